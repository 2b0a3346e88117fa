//! Asks a person for the target's name before it may change.

use super::Broken;
use super::migrate::Ready;
use super::open::Opened;
use super::prepare::Prepared;
use crate::clearance::{Confirmation, EXTRA_PHRASE, NotConfirmed, Said};
use crate::evidence::config::native_backups;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::policy::in_words;
use crate::ui::{self, Asked};
use jiff::SignedDuration;

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
    Secrets,
}

impl Purpose {
    fn verb(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Secrets => "confirm that you keep the values of these secrets elsewhere",
        }
    }

    fn first(self) -> &'static str {
        match self {
            Self::Push => "reading what the migration does",
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
    prepared: &Prepared,
    ready: &Ready,
    question: Question<'_>,
) -> Result<Confirmation, Broken> {
    show(opened, prepared, ready).await?;
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

async fn show(opened: &Opened, prepared: &Prepared, ready: &Ready) -> Result<(), Failure> {
    let context = &opened.context;
    let now = super::evidence::target_clock(opened).await?;
    let manifest = &ready.base.snapshot().manifest;
    context.note(format!("target     {}", opened.target.name()));
    for file in &prepared.pending.migrations {
        context.note(format!("will push  {}", file.file_name));
    }
    for fact in prepared.not_atomic() {
        context.warn(fact);
    }
    context.note(format!(
        "snapshot   {} (strength: {}), {} old; a push may begin until it is {} old",
        manifest.id,
        ready.base.strength(),
        in_words(now.duration_since(manifest.taken.target_clock)),
        in_words(opened.policy.max_age)
    ));
    match &ready.rehearsed {
        None => context.warn("NOT REHEARSED: nobody knows what these files do to this data"),
        Some(rehearsed) => {
            let record = rehearsed.record();
            let took = SignedDuration::try_from_secs_f64(record.push_seconds.ceil()).unwrap_or_default();
            let restore =
                SignedDuration::try_from_secs_f64(record.restore_seconds.ceil()).unwrap_or_default();
            context.note(format!(
                "rehearsed  the push took {}, and restoring the snapshot into a new database {}",
                in_words(took),
                in_words(restore)
            ));
        }
    }
    if let Some(backups) = native_backups(ready.base.snapshot()) {
        context.note(format!("native     backups: {backups}"));
    }
    context.note("not in it  what is written after it, passwords of roles, and what the limits name");
    for limit in &manifest.limits {
        context.note(format!("limit      {limit}"));
    }
    Ok(())
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
