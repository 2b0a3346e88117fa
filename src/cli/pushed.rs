//! What a person has to know of a push: the way back, and what one that did not go through left on the
//! target.

use super::done::Broken;
use super::open::Opened;
use super::prepare::Prepared;
use crate::delegate::{Outcome, Stopped};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postcheck;
use crate::ui::{Summary, WayBack};
use crate::verify::Verified;

/// How a push is taken back, and what that would not bring back.
pub(super) fn way_back(opened: &Opened, known: Option<&WayBack>) -> Vec<String> {
    let to = format!("To take this push back, run `{}`", opened.command("rollback"));
    let Some(known) = known else { return vec![format!("{to}; NOT REHEARSED")] };
    let first = match known.mode.zip(known.seconds) {
        Some((mode, seconds)) => {
            format!("{to} ({}: exact on the copy, in {seconds:.1} s)", mode.as_str())
        }
        None => "No rollback of this push was exact on the copy".to_owned(),
    };
    let not_back = known.not_back.join("; ");
    let rest = (!not_back.is_empty()).then(|| format!("  It would not bring back: {not_back}"));
    std::iter::once(first).chain(rest).collect()
}

/// A push that failed.
pub(super) async fn push_failed(
    opened: &Opened,
    (prepared, base): (&Prepared, &Verified),
    (outcome, signal): (&Outcome, Option<Exit>),
    summary: Summary,
) -> Broken {
    let exit = signal.unwrap_or(Exit::DelegateFailed);
    let mut failure = match &outcome.stopped {
        Some(stopped) => canceled(opened, exit, stopped),
        None => failed(exit, outcome, signal),
    };
    for file in &outcome.applied {
        failure = failure.detail(format!("applied      {file}"));
    }
    for file in &outcome.not_applied {
        failure = failure.detail(format!("not applied  {file}"));
    }
    for line in standing(opened, prepared, base, outcome).await {
        failure = failure.detail(line);
    }
    if let Some(id) = &summary.snapshot {
        failure = failure.detail(format!("the state before the push is in snapshot {id}"));
    }
    let again = "then run `supa-safe migrate` again: it resumes at the first file that does not stand";
    failure = failure.hint(match &outcome.stopped {
        Some(stopped) if stopped.holders.is_empty() => {
            format!("Split the file, or raise `max_block` for this target, {again}")
        }
        Some(_) => format!("Wait until that session has ended, or end it, {again}"),
        None => format!("Correct the cause, {again}"),
    });
    failure = failure.hint(format!("Or take back what stands: `{}`", opened.command("rollback")));
    if let Some(runbook) = &summary.runbook {
        failure = failure
            .hint(format!("To restore the state before the push into a new database, follow {runbook}"));
    }
    Broken::new(failure, summary)
}

fn canceled(opened: &Opened, exit: Exit, stopped: &Stopped) -> Failure {
    let Stopped { file, text, holders } = stopped;
    let allowed = opened.policy.max_block;
    let mut failure = Failure::message(exit, format!("the push was canceled: `{file}` {text}"))
        .detail(format!("`max_block` allows {allowed:#}; whoever waited for the push goes on"));
    for holder in holders {
        failure = failure
            .detail(format!("in its way: {holder}"))
            .detail(format!("`{}` ends it", holder.end_with()));
    }
    failure
}

fn failed(exit: Exit, outcome: &Outcome, signal: Option<Exit>) -> Failure {
    let text = match (&outcome.problem, signal) {
        (Some(problem), _) => {
            format!("supabase failed: {}", problem.message.lines().next().unwrap_or_default())
        }
        (None, Some(_)) => "interrupted while supabase pushed".to_owned(),
        (None, None) => format!("supabase {} without saying why", outcome.ended),
    };
    let mut failure = Failure::message(exit, text);
    let statement = outcome.problem.as_ref().and_then(|problem| problem.sql.as_ref()?.statement.as_ref());
    if let (Some(file), Some(statement)) = (outcome.not_applied.first(), statement) {
        failure = failure.detail(format!("in `{file}`:"));
        for line in statement.lines().take(12) {
            failure = failure.detail(format!("  {line}"));
        }
    }
    failure
}

/// What stands beside the files that the history names.
async fn standing(opened: &Opened, prepared: &Prepared, base: &Verified, outcome: &Outcome) -> Vec<String> {
    if !outcome.applied.is_empty() {
        return vec!["the target was changed".to_owned()];
    }
    let nothing = "no pending file stands on the target";
    let open = "rows that such a file wrote were not compared";
    let may_have_written = !prepared.not_atomic().is_empty();
    match postcheck::since(&opened.target, base.snapshot()).await {
        Ok(differences) if differences.is_empty() && may_have_written => {
            vec![format!("{nothing}, and its schema is as before; a file is not all-or-nothing, and {open}")]
        }
        Ok(differences) if differences.is_empty() => {
            vec![format!("{nothing}, and its schema is as before")]
        }
        Ok(differences) => std::iter::once(format!("{nothing}, but its schema is not as before:"))
            .chain(differences.into_iter().map(|difference| format!("  {difference}")))
            .collect(),
        Err(error) => vec![format!(
            "{nothing}; whether its schema is as before is not known: {}",
            Failure::new(Exit::DelegateFailed, &error).chain.join(": ")
        )],
    }
}
