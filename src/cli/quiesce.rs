//! `supa-safe quiesce`: look for a write pause, and end one that a dead run left; what `migrate` and `rollback`
//! do about one.

use super::done::{Broken, Done};
use super::fail::{self, failed};
use super::look::paused_by;
use super::open::{self, Opened};
use super::signals::Signals;
use super::{Setting, TargetArgs};
use crate::context::Context;
use crate::delegate::TargetLock;
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres::pause::{Scope, Standing};
use crate::postgres::sessions;
use crate::quiesce::{self, Error, NotReleased, Released};
use crate::resolve;
use crate::target::Target;
use crate::ui::{self, Json, Summary};
use clap::{Args, Subcommand};
use serde::Serialize;
use tokio_postgres::error::SqlState;

/// Arguments of `quiesce`.
#[derive(Debug, Args)]
pub(super) struct QuiesceArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say whether writes to the target are paused, by whom, and what to do
    Status(QuiesceTarget),
    /// End a write pause whose run is dead
    Release(QuiesceTarget),
}

#[derive(Debug, Args)]
struct QuiesceTarget {
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn run(setting: &Setting, args: QuiesceArgs) -> Result<Exit, Failure> {
    match args.what {
        What::Status(args) => status(setting, &args.target).await,
        What::Release(args) => release(setting, &args.target).await,
    }
}

#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    target: String,
    /// Whether a pause stands, be it only what is left of one.
    stands: bool,
    /// Whether writes are refused.
    refuses: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Whether a run works on the target.
    is_at_work: bool,
    /// Tables with a trigger of the pause.
    tables: Vec<String>,
    next: String,
}

async fn status(setting: &Setting, args: &TargetArgs) -> Result<Exit, Failure> {
    let target = open::looked_at(setting, args).await?;
    let standing = quiesce::standing(&target).await.map_err(|error| not_paused(&error))?;
    let is_at_work = is_at_work(&target).await?;
    let name = target.name();
    let next = match &standing {
        None => "nothing".to_owned(),
        Some(_) if is_at_work => "wait: a run works on the target, and ends its pause itself".to_owned(),
        Some(_) => format!("`supa-safe quiesce release{}`", args.in_words()),
    };
    let pause = match &standing {
        None => "none".to_owned(),
        Some(Standing { mark, refuses, tables, .. }) => {
            let what = if *refuses {
                "writes of the API's roles are refused"
            } else {
                "writes are let through; the rest of a pause is left"
            };
            format!("{what} on {} tables: {}", tables.len(), mark.in_words())
        }
    };
    let text = format!("target  {name}\npause   {pause}\nnext    {next}\n");
    let document = document(name, standing, (is_at_work, next));
    let printed = if setting.global.json { ui::print_document(&document) } else { ui::print(&text) };
    printed.map_err(failed(Exit::Error))?;
    Ok(Exit::Done)
}

fn document(target: &str, standing: Option<Standing>, (is_at_work, next): (bool, String)) -> Status {
    let mark = standing.as_ref().map(|standing| standing.mark.clone());
    Status {
        schema: ui::SCHEMA,
        target: target.to_owned(),
        stands: standing.is_some(),
        refuses: standing.as_ref().is_some_and(|standing| standing.refuses),
        since: mark.as_ref().map(|mark| mark.since.clone()),
        run: mark.as_ref().map(|mark| mark.run.clone()),
        host: mark.as_ref().map(|mark| mark.host.clone()),
        pid: mark.as_ref().map(|mark| mark.pid),
        user: mark.map(|mark| mark.user),
        is_at_work,
        tables: standing.map(|standing| standing.tables).unwrap_or_default(),
        next,
    }
}

async fn is_at_work(target: &Target) -> Result<bool, Failure> {
    let session = resolve::reopen(target).await.map_err(|error| fail::resolve_failed(&error))?;
    let outcome = sessions::is_locked(&session.client).await.map_err(failed(Exit::Error));
    session.close().await;
    outcome
}

async fn release(setting: &Setting, args: &TargetArgs) -> Result<Exit, Failure> {
    // What it does is over in seconds, and may be done again: a signal does not cut it off.
    let _signals = Signals::take()?;
    let bare = match Box::pin(open::bare(setting, args)).await {
        Ok(bare) => bare,
        Err(failure) => return ended(setting, &mut Summary::new(), Err(failure)),
    };
    let mut summary = Summary::new();
    let outcome = release_bare(&bare, &mut summary).await;
    if let Err(failure) = &outcome {
        summary.exit = failure.exit.code();
        summary.target_touched |= failure.exit.code() >= 20;
        summary.error.clone_from(&failure.chain);
    }
    bare.end(&summary)?;
    ended(setting, &mut summary, outcome)
}

async fn release_bare(bare: &open::Bare, summary: &mut Summary) -> Result<Vec<String>, Failure> {
    let held = TargetLock::take(&bare.target).await.map_err(|error| fail::delegate_failed(&error))?;
    let released = quiesce::release(&bare.target, &bare.context).await;
    held.release().await;
    let name = bare.target.name();
    let again = bare.command("quiesce release");
    match released {
        Err(error) => Err(not_released(&error, &again)),
        Ok(None) => {
            set_right(&bare.context)?;
            Ok(vec![format!("No write pause stands on {name}; nothing was touched")])
        }
        Ok(Some(released)) => {
            summary.target_touched = true;
            if released.left.is_empty() {
                return Ok(vec![format!("Ended the write pause on {name}: {}", released.mark.in_words())]);
            }
            Err(left(&released, &again))
        }
    }
}

fn ended(
    setting: &Setting,
    summary: &mut Summary,
    outcome: Result<Vec<String>, Failure>,
) -> Result<Exit, Failure> {
    if let Err(failure) = &outcome {
        summary.exit = failure.exit.code();
        summary.error.clone_from(&failure.chain);
    }
    if setting.global.json {
        Json::summary(summary).map_err(failed(Exit::Error))?;
    }
    let said = outcome?;
    if !setting.global.json && !setting.global.quiet {
        let text = said.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
        ui::print(&text).map_err(failed(Exit::Error))?;
    }
    Ok(Exit::Done)
}

/// Triggers that could not be dropped yet.
fn left(released: &Released, again: &str) -> Failure {
    let text = "writes are let through again, and triggers of the pause, which do nothing any more, are left";
    let mut failure = Failure::message(Exit::RollbackIncomplete, text);
    for table in &released.left {
        failure = failure.detail(format!("on {table}"));
    }
    for holder in &released.holders {
        failure = failure.detail(format!("in the way: {holder}"));
    }
    failure.hint(format!("Run `{again}` when those sessions have ended"))
}

fn not_released(error: &NotReleased, again: &str) -> Failure {
    let failure = Failure::new(Exit::RollbackIncomplete, error);
    let failure = failure.detail(if error.lets_through {
        "writes are let through; triggers of the pause, which do nothing any more, may be left"
    } else {
        "WRITES OF THE API'S ROLES MAY STILL BE REFUSED (503)"
    });
    failure.hint(format!("Run `{again}`"))
}

/// Has the records say that no pause stands, where a run had no time to tell that it did not begin one, or ended it.
fn set_right(context: &Context) -> Result<(), Failure> {
    if paused_by(&context.store)?.is_some() {
        context.tell(&Event::WritesReleased { left: Vec::new() });
    }
    Ok(())
}

/// Ends the pause that a dead run left, before anything else is done to the target. A run that only looks says
/// that it stands. Returns what is left of it, which lets everything through.
pub(super) async fn settle(opened: &Opened, only_looks: bool) -> Result<Option<Failure>, Failure> {
    let standing = quiesce::standing(&opened.target).await.map_err(|error| not_paused(&error))?;
    let again = opened.command("quiesce release");
    let Some(Standing { mark, .. }) = standing else {
        if !only_looks {
            set_right(&opened.context)?;
        }
        return Ok(None);
    };
    if only_looks {
        opened
            .context
            .warn(format!("writes to the target are paused: {}; `{again}` ends that", mark.in_words()));
        return Ok(None);
    }
    // Whoever paused it holds this lock for as long as it lives.
    let held = TargetLock::take(&opened.target).await.map_err(|error| fail::delegate_failed(&error))?;
    opened.context.warn(format!("ending a write pause whose run is dead: {}", mark.in_words()));
    let released = quiesce::release(&opened.target, &opened.context).await;
    held.release().await;
    match released {
        Err(error) => Err(not_released(&error, &again)),
        Ok(Some(released)) if !released.left.is_empty() => Ok(Some(left(&released, &again))),
        Ok(_) => Ok(None),
    }
}

/// Ends the pause of this run, whatever became of the run; one that went well may end otherwise by that.
pub(super) async fn end(opened: &Opened, outcome: Result<Done, Broken>) -> Result<Done, Broken> {
    let again = opened.command("quiesce release");
    let (lets_through, failure) = match quiesce::release(&opened.target, &opened.context).await {
        Err(error) => (error.lets_through, not_released(&error, &again)),
        Ok(Some(released)) if !released.left.is_empty() => (true, left(&released, &again)),
        Ok(None) => {
            // What became of the run is told whatever the records say.
            drop(set_right(&opened.context));
            return outcome;
        }
        Ok(Some(_)) => return outcome,
    };
    match outcome {
        // What is left does nothing: the push went through, and users are served.
        Ok(mut done) if lets_through => {
            let text = format!("{}; `{again}` removes them", failure.chain.join(": "));
            done.summary.limits.push(text.clone());
            Ok(done.closing(text))
        }
        Ok(done) => {
            let failure = Failure { exit: Exit::PostCheckDiffers, ..failure };
            Err(Broken::new(failure.detail("the push is done"), done.summary))
        }
        Err(mut broken) => {
            if broken.failure.exit.code() < 20 {
                broken.failure.exit = Exit::RollbackIncomplete;
            }
            broken.summary.target_touched = true;
            broken.failure.details.extend(failure.chain);
            broken.failure.details.extend(failure.details);
            broken.failure.hints.splice(0..0, failure.hints);
            Err(broken)
        }
    }
}

/// What is paused, and what is not, for the person who confirms.
pub(super) fn lines(scope: &Scope) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        (
            "pauses",
            format!(
                "writes of {} to {} tables, through functions of others too, are answered with 503 from the fresh \
                 snapshot until the push is compared; reads go on, and no grant is changed",
                scope.roles.join(", "),
                scope.tables.len()
            ),
        ),
        (
            "not paused",
            "sign-ups, uploads, jobs of cron, large objects, and whoever connects as postgres or as a role of its own"
                .to_owned(),
        ),
    ];
    lines.extend(
        scope
            .beyond
            .iter()
            .map(|table| ("not paused", format!("{table}: this role may not put a trigger on it"))),
    );
    lines
}

/// Writes that cannot be paused.
pub(super) fn not_paused(error: &Error) -> Failure {
    let untouched = "the target was not touched";
    match error {
        Error::Resolve(error) => fail::resolve_failed(error),
        Error::Connect(error) => fail::connect_failed(error),
        Error::Busy(holders) => {
            let failure = Failure::new(Exit::Error, error).detail(format!("{untouched}; no pause stands"));
            holders
                .iter()
                .fold(failure, |failure, holder| {
                    failure.detail(format!("in the way: {holder}; `{}` ends it", holder.end_with()))
                })
                .hint("Wait until these sessions have ended, or end them, then run again")
        }
        Error::Foreign => Failure::new(Exit::Error, error)
            .detail(untouched)
            .hint("Give that schema another name, or leave `--quiesce` away"),
        Error::NoRoles => Failure::new(Exit::Error, error).detail(untouched).hint("Leave `--quiesce` away"),
        Error::Paused(_) => Failure::new(Exit::Error, error)
            .detail("a snapshot taken now would hold the triggers of the pause; the target was not touched")
            .hint("Run `supa-safe quiesce release`: it ends the pause when that run is dead"),
        Error::NotOnRecord(_) => Failure::new(Exit::Error, error)
            .detail(untouched)
            .hint("See that the state folder can be written to, then run again"),
        Error::Query { .. } | Error::NoSnapshot | Error::Ended => {
            let failure = Failure::new(Exit::Error, error).detail("no pause stands on the target");
            let may_not = matches!(error, Error::Query { source, .. }
                if source.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE));
            failure.hint(if may_not {
                "Sign in as a role that may create a schema in the database, or leave `--quiesce` away"
            } else {
                "Run it again, or leave `--quiesce` away"
            })
        }
    }
}
