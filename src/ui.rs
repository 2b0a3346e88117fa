//! What people and scripts see: renderers of events, failures, and reports. The only module that
//! prints. stdout is data, stderr is talk.

mod fit;
mod human;
mod json;
mod plain;
mod prompt;
mod record;
mod timings;

pub use human::Human;
pub use json::Json;
pub use prompt::{Asked, ask_password, ask_words, has_terminal};
pub use record::Record;
pub use timings::Timings;

use crate::event::{Event, Stage};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::policy::Finding;
use crate::rehearse::rollback::Rehearsed;
use crate::rollback::storage::Objects;
use crate::rollback::{Accounts, Mode, Saved, SavedObject};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};

/// Version of the JSON output; changes within it are additive.
pub const SCHEMA: u32 = 1;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loudness {
    /// Errors only.
    Quiet,
    /// Stages and results.
    Normal,
    /// And the programs that run.
    Verbose,
    /// And what they print.
    VeryVerbose,
}

/// The last word of a run that acts.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Exit code.
    pub exit: u8,
    /// Whether the target may have been changed.
    pub target_touched: bool,
    /// The snapshot that the run leaned on.
    pub snapshot: Option<SnapshotId>,
    /// The runbook in it.
    pub runbook: Option<String>,
    /// Rules that did not hold.
    pub findings: Vec<Finding>,
    /// What was not proved.
    pub limits: Vec<String>,
    /// Seconds per stage.
    pub timings: BTreeMap<Stage, f64>,
    /// Files that stand on the target because of this run.
    pub applied: Vec<String>,
    /// Pending files that do not.
    pub not_applied: Vec<String>,
    /// How what was pushed, or rehearsed, can be taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
    /// What would go back, when somebody only asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Planned>,
    /// What went back, when something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<RolledBack>,
    /// How the demo ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Exit code of the delegate, when it ran.
    pub delegate_exit: Option<i32>,
    /// The error, outermost first.
    pub error: Vec<String>,
}

/// What differs after the demo's rollback from before its push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Whether that is what customers did, and nothing else.
    pub holds: bool,
    /// That, for people.
    pub lines: Vec<String>,
    /// What differs by nobody's hand, or is lost of what customers did.
    pub wrong: Vec<String>,
}

/// How the copy was taken back in the rehearsal.
#[derive(Clone, Debug, Serialize)]
pub struct WayBack {
    /// The mode that a rollback takes by itself, if one was exact.
    pub mode: Option<Mode>,
    /// Seconds that it took on the copy.
    pub seconds: Option<f64>,
    /// What it would not bring back, and what stands in its way, in words.
    pub not_back: Vec<String>,
    /// Every mode that was rehearsed.
    pub modes: Vec<Rehearsed>,
}

impl WayBack {
    /// What a rehearsal recorded; `obstacles` stand in the way on the target.
    pub fn new(record: &crate::rehearse::record::Record, obstacles: impl Iterator<Item = String>) -> Self {
        let best = record.way_back();
        Self {
            mode: best.map(|best| best.mode),
            seconds: best.map(|best| best.seconds),
            not_back: obstacles.chain(best.map(Rehearsed::not_back).into_iter().flatten()).collect(),
            modes: record.rollbacks.clone(),
        }
    }
}

/// What a rollback would do.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// How much would go back.
    pub mode: Mode,
    /// Whether the database would, or Storage alone.
    pub database: bool,
    /// Whether Storage would.
    pub storage: bool,
    /// Versions that would go from the history.
    pub versions: Vec<String>,
    /// Tables that would go, as far as they are known before they are locked.
    pub tables: Vec<String>,
    /// Seconds that it took on the copy, when it was exact there.
    pub seconds: Option<f64>,
    /// What may stand in its way.
    pub obstacles: Vec<String>,
    /// What it would not bring back.
    pub not_back: Vec<String>,
    /// The programs that it would run, masked.
    pub commands: Vec<String>,
}

/// What a rollback did.
#[derive(Clone, Debug, Serialize)]
pub struct RolledBack {
    /// How much went back.
    pub mode: Mode,
    /// Whether the database went back, or Storage alone.
    pub database: bool,
    /// Versions that went from the history.
    pub versions: Vec<String>,
    /// Tables that went.
    pub tables: Vec<String>,
    /// Those of them that the snapshot does not have; all others were made again.
    pub removed_tables: Vec<String>,
    /// Rows written since that were kept.
    pub saved: Vec<Saved>,
    /// Large objects written since that were kept.
    pub large_objects: Vec<SavedObject>,
    /// What accounts that came and went since leave behind.
    pub accounts: Accounts,
    /// Rows that refer by id to what is not as it was, in words.
    pub references: Vec<String>,
    /// Where they are.
    pub folder: String,
    /// Where the rest of this stands, when the run that did it died and its machine did not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    /// What was done about Storage, when it went back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Objects>,
    /// Seconds from the first lock to the commit.
    pub seconds: f64,
    /// What a team has to know, in Markdown.
    pub message: String,
}

impl Summary {
    /// A summary of a run that did nothing yet.
    pub fn new() -> Self {
        Self {
            exit: Exit::Done.code(),
            target_touched: false,
            snapshot: None,
            runbook: None,
            findings: Vec::new(),
            limits: Vec::new(),
            timings: BTreeMap::new(),
            applied: Vec::new(),
            not_applied: Vec::new(),
            way_back: None,
            plan: None,
            rolled_back: None,
            proof: None,
            delegate_exit: None,
            error: Vec::new(),
        }
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints one JSON document, or a text, on stdout. A reader that went away is no error.
pub fn print(text: &str) -> io::Result<()> {
    write_out(&fit::fit(text, &io::stdout()))
}

/// Prints a text on stdout as it is, since it may be copied into a file.
pub fn print_verbatim(text: &str) -> io::Result<()> {
    write_out(&if io::stdout().is_terminal() { plain::plain(text) } else { text.into() })
}

fn write_out(text: &str) -> io::Result<()> {
    quiet_pipe(anstream::stdout().write_all(text.as_bytes()).and_then(|()| anstream::stdout().flush()))
}

/// Prints a text on stderr.
pub fn print_error(text: &str) -> io::Result<()> {
    quiet_pipe(anstream::stderr().write_all(text.as_bytes()))
}

/// Prints a value as one line of JSON on stdout.
pub fn print_json<T: Serialize>(value: &T) -> io::Result<()> {
    write_out(&format!("{}\n", serde_json::to_string(value)?))
}

/// Prints a value as indented JSON on stdout.
pub fn print_document<T: Serialize>(value: &T) -> io::Result<()> {
    write_out(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints the title of an act on stderr, with an empty line before it.
pub fn heading(number: &str, title: &str) {
    // Nobody listens any more when stderr is gone.
    drop(writeln!(anstream::stderr(), "\n{HINT}{number}{HINT:#} {BOLD}{title}{BOLD:#}"));
}

/// Prints a line below a heading on stderr.
pub fn tell(text: &str) {
    // Nobody listens any more when stderr is gone.
    drop(writeln!(anstream::stderr(), "{}", fit::fit(&format!("  {text}"), &io::stderr())));
}

/// Prints an error with its causes, details, and hints on stderr, the most useful line last.
pub fn print_failure(failure: &Failure) {
    let mut text = String::new();
    let mut chain = failure.chain.iter();
    let head = chain.next().cloned().unwrap_or_default();
    write_text(&mut text, format_args!("{ERROR}error{ERROR:#}: {head}\n"));
    for cause in chain {
        // What a server says may have several lines.
        write_text(&mut text, format_args!("  caused by: {}\n", cause.replace('\n', "\n    ")));
    }
    for detail in &failure.details {
        write_text(&mut text, format_args!("  {detail}\n"));
    }
    for hint in &failure.hints {
        write_text(&mut text, format_args!("{HINT}hint{HINT:#}: {hint}\n"));
    }
    // Nothing is left to tell an error to when stderr is gone.
    drop(anstream::stderr().write_all(fit::fit(&text, &io::stderr()).as_bytes()));
}

/// How something stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Worth a look.
    Warn,
    /// Wrong.
    Fail,
}

/// The word in its color, four letters wide.
pub fn marked(mark: Mark) -> String {
    match mark {
        Mark::Ok => format!("{DONE}ok{DONE:#}  "),
        Mark::Warn => format!("{WARNING}warn{WARNING:#}"),
        Mark::Fail => format!("{ERROR}FAIL{ERROR:#}"),
    }
}

use styles::{BOLD, DONE, ERROR, HINT, WARNING};

mod styles {
    //! Colors carry meaning only, and never alone.
    use anstyle::{AnsiColor, Color, Style};

    const fn color(color: AnsiColor) -> Style {
        Style::new().fg_color(Some(Color::Ansi(color))).bold()
    }

    pub(super) const BOLD: Style = Style::new().bold();
    pub(super) const ERROR: Style = color(AnsiColor::Red);
    pub(super) const WARNING: Style = color(AnsiColor::Yellow);
    pub(super) const DONE: Style = color(AnsiColor::Green);
    pub(super) const HINT: Style = color(AnsiColor::Cyan);
}

/// A closed pipe ends the output and is no error.
fn quiet_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Whether an event is worth a line of a record or a script.
fn is_lasting(event: &Event) -> bool {
    !matches!(event, Event::Progress { .. } | Event::ProgramLine { .. })
}

fn write_text(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    use std::fmt::Write as _;
    // Writing to a `String` cannot fail.
    let _ = text.write_fmt(arguments);
}
