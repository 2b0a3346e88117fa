//! Asks a person for the target's name before it may change.

use super::Broken;
use super::migrate::Ready;
use super::open::Opened;
use super::prepare::Prepared;
use crate::clearance::{Confirmation, EXTRA_PHRASE, NotConfirmed, Said};
use crate::event::Event;
use crate::evidence::config::native_backups;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::policy::in_words;
use crate::postgres::pause::Scope;
use crate::rehearse::record::Record;
use crate::rollback::Mode;
use crate::ui::{self, Asked};
use jiff::SignedDuration;
use std::collections::BTreeSet;

/// Who is asked, and how.
pub(super) struct Question<'a> {
    pub(super) target: &'a str,
    pub(super) agent: Option<&'static str>,
    pub(super) flag: Option<String>,
    pub(super) to: Purpose,
    pub(super) may_ask: bool,
}

/// What the words are typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Push,
    Rollback,
    Secrets,
}

impl Purpose {
    fn verb(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Rollback => "roll back",
            Self::Secrets => "confirm that you keep the values of these secrets elsewhere",
        }
    }

    fn first(self) -> &'static str {
        match self {
            Self::Push => "reading what the migration does",
            Self::Rollback => "reading what `--dry-run` prints",
            Self::Secrets => "`supa-safe secrets check` has found each value that you keep",
        }
    }
}

/// Fails before the long work when nobody will be able to confirm after it.
pub(super) fn foresee(question: &Question<'_>) -> Result<(), Failure> {
    match &question.flag {
        None if question.may_ask && ui::has_terminal() => Ok(()),
        None => Err(no_terminal(question)),
        Some(words) => Confirmation::weigh(&Said::Flag(words.clone()), question.target, question.agent)
            .map(drop)
            .map_err(|error| not_confirmed(&error, question.target)),
    }
}

/// Shows what the confirmation is about and weighs the answer.
pub(super) async fn ask(
    opened: &Opened,
    (prepared, ready): (&Prepared, &Ready),
    pauses: Option<&Scope>,
    question: Question<'_>,
) -> Result<Confirmation, Broken> {
    show(opened, (prepared, ready), pauses, question.flag.is_none()).await?;
    Ok(weigh(&question).await?)
}

/// Takes the words and weighs them.
pub(super) async fn weigh(question: &Question<'_>) -> Result<Confirmation, Failure> {
    let said = match &question.flag {
        Some(words) => Said::Flag(words.clone()),
        None => typed(question).await?,
    };
    Confirmation::weigh(&said, question.target, question.agent)
        .map_err(|error| not_confirmed(&error, question.target))
}

async fn show(
    opened: &Opened,
    (prepared, ready): (&Prepared, &Ready),
    pauses: Option<&Scope>,
    is_asked: bool,
) -> Result<(), Failure> {
    let now = super::evidence::target_clock(opened).await?;
    let manifest = &ready.base.snapshot().manifest;
    let mut lines = vec![("target", opened.target.name().to_owned())];
    lines.extend(prepared.pending.names().into_iter().map(|name| ("will push", name)));
    lines.extend(prepared.not_atomic().into_iter().map(|fact| ("WARNING", fact)));
    lines.push((
        "snapshot",
        format!(
            "{} (strength: {}), {} old; a push may begin until it is {} old",
            manifest.id,
            ready.base.strength(),
            in_words(now.duration_since(manifest.taken.target_clock)),
            in_words(opened.policy.max_age)
        ),
    ));
    match &ready.rehearsed {
        None => {
            lines
                .push(("WARNING", "NOT REHEARSED: nobody knows what these files do to this data".to_owned()));
        }
        Some(rehearsed) => lines.extend(rehearsed_lines(rehearsed.record())),
    }
    lines.extend(pauses.map(super::quiesce::lines).unwrap_or_default());
    lines.extend(ready.way_back.obstacles().map(|fact| ("WARNING", fact)));
    lines.extend(
        native_backups(ready.base.snapshot()).map(|backups| ("native", format!("backups: {backups}"))),
    );
    let left_out = "what is written after it, passwords of roles, and what the limits name";
    lines.push(("not in it", left_out.to_owned()));
    lines.extend(manifest.limits.iter().map(|limit| ("limit", limit.clone())));
    opened.context.tell(&Event::Confirmation { lines, is_asked });
    Ok(())
}

fn rehearsed_lines(record: &Record) -> Vec<(&'static str, String)> {
    let rounded =
        |seconds: f64| in_words(SignedDuration::try_from_secs_f64(seconds.ceil()).unwrap_or_default());
    let mut lines = vec![(
        "rehearsed",
        format!(
            "the push took {}, and restoring the snapshot into a new database {}",
            rounded(record.push_seconds),
            rounded(record.restore_seconds)
        ),
    )];
    if let Some(way_back) = record.way_back() {
        let elsewhere = match way_back.mode {
            Mode::Touched => "what is written to other tables stays",
            Mode::Whole => "everything of yours goes back",
        };
        lines.push((
            "way back",
            format!(
                "`supa-safe rollback` gave the copy back exactly in {} ({}: {elsewhere})",
                rounded(way_back.seconds),
                way_back.mode.as_str()
            ),
        ));
        lines.extend(way_back.storage.map(|objects| ("of storage", objects.in_words())));
        lines.extend(way_back.not_back().into_iter().map(|what| ("not back", what)));
    }
    let tables = record.effects.iter().flat_map(|effect| &effect.tables);
    lines.extend(tables.map(|table| ("did", table.in_words())));
    let blocking = record.effects.iter().flat_map(|effect| &effect.locks).filter(|lock| lock.blocks_reads());
    let blocked: BTreeSet<&str> = blocking.map(|lock| lock.table.as_str()).collect();
    lines.extend(
        blocked.into_iter().map(|table| ("blocks", format!("readers of {table} wait while it runs"))),
    );
    lines.extend(record.limits.iter().map(|limit| ("limit", limit.clone())));
    lines
}

async fn typed(question: &Question<'_>) -> Result<Said, Failure> {
    if !question.may_ask {
        return Err(no_terminal(question));
    }
    let prompt = format!("Type {} to {}", question.target, question.to.verb());
    let words = answer(prompt, question).await?;
    let extra = match question.agent {
        None => None,
        Some(variable) => {
            let prompt = format!("{variable} is set, so a coding agent may be typing. Type: {EXTRA_PHRASE}");
            Some(answer(prompt, question).await?)
        }
    };
    Ok(Said::Typed { words, extra })
}

async fn answer(prompt: String, question: &Question<'_>) -> Result<String, Failure> {
    match ui::ask_words(prompt).await.map_err(|error| Failure::new(Exit::NotConfirmed, &error))? {
        Asked::Typed(words) => Ok(words),
        Asked::NoTerminal => Err(no_terminal(question)),
        Asked::Cancelled => {
            Err(Failure::message(Exit::Interrupted, "interrupted; the target was not touched"))
        }
    }
}

fn no_terminal(question: &Question<'_>) -> Failure {
    let words = crate::proc::shell_word(question.target);
    Failure::message(Exit::NotConfirmed, "nobody can be asked to confirm the target; nothing was changed")
        .hint(format!("Pass `--confirm {words}` after {}", question.to.first()))
}

fn not_confirmed(error: &NotConfirmed, target: &str) -> Failure {
    let failure = Failure::new(Exit::NotConfirmed, error).detail("nothing was changed");
    match error {
        NotConfirmed::OtherWords { .. } => failure.hint(format!("The words are `{target}`")),
        NotConfirmed::Agent(_) | NotConfirmed::NoPhrase => failure.hint(
            "A person runs the command on a terminal and types the words; an agent must ask its person to",
        ),
    }
}
