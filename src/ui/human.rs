//! Events for people: lines on stderr, with a moving line where there is a terminal.

use super::Loudness;
use super::fit::fit;
use super::plain::plain_line;
use super::styles::{DONE, HINT, WARNING};
use crate::effect::FileEffect;
use crate::event::{Event, Holder, Observer, Stage};
use crate::evidence::estimate::bytes_in_words;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// From when on a stage's pace tells how long it takes.
const SETTLED: Duration = Duration::from_secs(3);

/// How the rows of a copy stand to those of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Equal,
    Refreshed,
    Different,
}

impl Content {
    fn of(is_equal: bool, is_refreshed: bool) -> Self {
        match (is_equal, is_refreshed) {
            (true, _) => Self::Equal,
            (false, true) => Self::Refreshed,
            (false, false) => Self::Different,
        }
    }
}

/// Tells a person.
#[derive(Debug)]
pub struct Human {
    loudness: Loudness,
    bar: ProgressBar,
    compared: Mutex<Vec<(String, u64, u64, Content)>>,
}

impl Human {
    /// Tells as much as asked for.
    pub fn new(loudness: Loudness) -> Self {
        let moving = std::io::stderr().is_terminal() && loudness > Loudness::Quiet;
        let target = if moving { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        // Nothing moves before the first stage.
        bar.finish_and_clear();
        Self { loudness, bar, compared: Mutex::new(Vec::new()) }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| {
            // Nobody listens any more when stderr is gone; the run goes on.
            drop(writeln!(anstream::stderr(), "{}", fit(&plain_line(text), &std::io::stderr())));
        });
    }

    fn tell(&self, event: &Event) {
        match event {
            Event::Target { name, about } => self.line(&format!("target {HINT}{name}{HINT:#} ({about})")),
            Event::StageStarted { text, .. } => {
                self.bar.reset();
                self.bar.set_message(plain_line(text).into_owned());
                self.bar.enable_steady_tick(Duration::from_millis(120));
                if self.bar.is_hidden() {
                    self.line(&format!("  {text} …"));
                }
            }
            Event::StageDone { stage, text, seconds } => self.done(*stage, text, *seconds),
            Event::Progress { item, bytes, expected_bytes, .. } => {
                let text = progress(item, *bytes, *expected_bytes, self.bar.elapsed());
                self.bar.set_message(plain_line(&text).into_owned());
            }
            Event::Note { text } => self.line(&format!("  {text}")),
            Event::Warning { text } => self.line(&format!("{WARNING}warning{WARNING:#}: {text}")),
            Event::Estimate { table_bytes, disk_bytes, free_bytes, minutes } => {
                self.line(&estimate(*table_bytes, *disk_bytes, *free_bytes, *minutes));
            }
            Event::SnapshotTaken { snapshot, folder } => {
                self.line(&format!("  snapshot {snapshot} in {folder}"));
            }
            Event::SetAside { snapshot, rule, fact } => {
                self.line(&format!("  snapshot {snapshot} is set aside: [{rule}] {fact}"));
            }
            Event::SnapshotKept { snapshot, reasons } => {
                self.line(&format!("  keep    {snapshot}  {}", reasons.join("; ")));
            }
            Event::SnapshotRemoved { snapshot, age, bytes, gone } => {
                let word = if *gone { "removed" } else { "remove " };
                self.line(&format!("  {word} {snapshot}  {age} old, {}", bytes_in_words(*bytes)));
            }
            Event::ObjectsRemoved { count, bytes, gone } => {
                self.line(&objects_removed(*count, *bytes, *gone));
            }
            Event::TableCompared { table, recorded, restored, equal, refreshed } => {
                let row = (table.clone(), *recorded, *restored, Content::of(*equal, *refreshed));
                self.compared.lock().unwrap_or_else(PoisonError::into_inner).push(row);
            }
            Event::FileRehearsed(effect) => self.file(effect),
            Event::Confirmation { lines, .. } => {
                for (title, text) in lines {
                    self.line(&format!("  {title:<10} {text}"));
                }
            }
            Event::Finding { rule, fact, refuses, .. } if !refuses => {
                self.line(&format!("{WARNING}warning{WARNING:#}: [{rule}] {fact}"));
            }
            Event::Blocking { file, text, holders, canceled } => {
                self.blocking(file, text, holders, *canceled);
            }
            Event::WritesPaused { roles, tables, seconds, .. } => self.paused(roles, *tables, *seconds),
            Event::WritesReleased { left } => self.released(left),
            Event::Program { command } if self.loudness >= Loudness::Verbose => {
                self.line(&format!("  $ {command}"));
            }
            Event::ProgramLine { line } => self.line(&format!("  | {line}")),
            Event::SnapshotProved { .. }
            | Event::Finding { .. }
            | Event::Program { .. }
            | Event::Delegating { .. }
            | Event::Delegated { .. }
            | Event::PushSettled { .. }
            | Event::RollbackBegun { .. }
            | Event::RollingBack { .. }
            | Event::RollbackStep(_)
            | Event::RolledBack { .. }
            | Event::WritesPausing
            | Event::DelegateBackend { .. }
            | Event::DelegatePid { .. } => {}
        }
    }

    fn done(&self, stage: Stage, text: &str, seconds: f64) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
        self.flush_compared();
        let seconds = seconds_in_words(seconds);
        self.line(&format!("{DONE}✓{DONE:#} {:<10} {text} ({seconds})", stage.word()));
    }

    fn paused(&self, roles: &[String], tables: usize, seconds: f64) {
        self.line(&format!(
            "  writes of {} to {tables} tables are paused; the tables were locked for {}",
            roles.join(", "),
            seconds_in_words(seconds)
        ));
    }

    fn released(&self, left: &[String]) {
        if left.is_empty() {
            return self.line("  writes are let through again");
        }
        self.line(&format!(
            "{WARNING}warning{WARNING:#}: writes are let through again; triggers of the pause, which do nothing any \
             more, are left on {}",
            left.join(", ")
        ));
    }

    fn blocking(&self, file: &str, text: &str, holders: &[Holder], canceled: bool) {
        let end = if canceled {
            "its statement is canceled"
        } else {
            "it is not all-or-nothing, so it is not canceled"
        };
        self.line(&format!("{WARNING}warning{WARNING:#}: `{file}` {text}; {end}"));
        for holder in holders {
            self.line(&format!("    in its way: {holder}; `{}` ends it", holder.end_with()));
        }
    }

    /// The tables of the copy beside those of the snapshot, in columns. The empty ones, of which the
    /// platform has many, share a line.
    fn flush_compared(&self) {
        let mut compared = std::mem::take(&mut *self.compared.lock().unwrap_or_else(PoisonError::into_inner));
        if compared.is_empty() {
            return;
        }
        compared.sort();
        let all = compared.len();
        if self.loudness < Loudness::Verbose {
            compared.retain(|(_, recorded, restored, content)| {
                *recorded > 0 || *restored > 0 || *content != Content::Equal
            });
        }
        let empty = all - compared.len();
        let wide = compared.iter().map(|(table, ..)| table.chars().count()).max().unwrap_or(0).max(20);
        self.line(&format!("  {:<wide$}  {:>12}  {:>12}  content", "table", "snapshot", "copy"));
        for (table, recorded, restored, content) in compared {
            let content = match content {
                Content::Equal => format!("{DONE}equal{DONE:#}"),
                Content::Refreshed => format!("{WARNING}refreshed{WARNING:#}"),
                Content::Different => format!("{WARNING}DIFFERENT{WARNING:#}"),
            };
            self.line(&format!("  {table:<wide$}  {recorded:>12}  {restored:>12}  {content}"));
        }
        if empty > 0 {
            let text = format!("and {empty} empty tables");
            self.line(&format!("  {text:<wide$}  {0:>12}  {0:>12}  {DONE}equal{DONE:#}", 0));
        }
    }

    fn file(&self, effect: &FileEffect) {
        self.line(&format!("  {} ({})", effect.file, seconds_in_words(effect.seconds)));
        for table in &effect.tables {
            self.line(&format!("    {}", table.in_words()));
        }
        let blocking: Vec<&str> =
            effect.locks.iter().filter(|lock| lock.blocks_reads()).map(|lock| lock.table.as_str()).collect();
        if !blocking.is_empty() {
            self.line(&format!("    readers of {} wait while it runs", blocking.join(", ")));
        }
    }
}

impl Observer for Human {
    fn see(&self, event: &Event) {
        let least = match event {
            Event::Program { .. } => Loudness::Verbose,
            Event::ProgramLine { .. } => Loudness::VeryVerbose,
            // Nobody may be asked without being told what about.
            Event::Confirmation { is_asked: true, .. } => Loudness::Quiet,
            _ => Loudness::Normal,
        };
        if self.loudness >= least {
            self.tell(event);
        }
    }
}

/// What a snapshot will cost, for people.
fn estimate(table_bytes: u64, disk_bytes: u64, free_bytes: u64, minutes: f64) -> String {
    format!(
        "  database: {} of tables, at most {} on disk ({} free), {}",
        bytes_in_words(table_bytes),
        bytes_in_words(disk_bytes),
        bytes_in_words(free_bytes),
        if minutes < 1.0 { "less than a minute".to_owned() } else { format!("about {minutes:.0} min") },
    )
}

fn objects_removed(count: usize, bytes: u64, gone: bool) -> String {
    let word = if gone { "removed" } else { "remove " };
    format!("  {word} {count} Storage objects that no snapshot names, {}", bytes_in_words(bytes))
}

/// How far a stage is, and how long it takes yet at the pace so far; where nobody counts bytes, the item.
fn progress(item: &str, bytes: u64, expected: Option<u64>, elapsed: Duration) -> String {
    if bytes == 0 && expected.is_none() && !item.is_empty() {
        return item.to_owned();
    }
    let of = expected.filter(|expected| *expected > bytes).map_or_else(String::new, |expected| {
        let of = format!(" of at most {}", bytes_in_words(expected));
        if bytes == 0 || elapsed < SETTLED {
            return of;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let share = (expected - bytes) as f64 / bytes as f64;
        format!("{of}, at most {} more", seconds_in_words((elapsed.as_secs_f64() * share).ceil()))
    });
    let item = if item.is_empty() { String::new() } else { format!(", {item}") };
    format!("{}{of}{item}", bytes_in_words(bytes))
}

/// Seconds for people.
pub(super) fn seconds_in_words(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_what_is_left() {
        let after =
            |seconds, bytes, expected| progress("`a/b`", bytes, expected, Duration::from_secs(seconds));
        assert_eq!(after(9, 1_000_000, None), "1.0 MB, `a/b`");
        assert_eq!(after(1, 1_000_000, Some(9_000_000)), "1.0 MB of at most 9.0 MB, `a/b`");
        assert_eq!(
            after(10, 1_000_000, Some(9_000_000)),
            "1.0 MB of at most 9.0 MB, at most 1 min 20 s more, `a/b`"
        );
        assert_eq!(after(10, 9_000_000, Some(9_000_000)), "9.0 MB, `a/b`");
        assert_eq!(progress("", 0, Some(5), Duration::from_secs(10)), "0 B of at most 5 B");
        assert_eq!(after(9, 0, None), "`a/b`");
    }
}
