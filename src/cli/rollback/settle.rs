//! A rollback of an earlier run that was cut off, on this machine or on another one: what became of it, and
//! the rest of it.

use super::undone::Undone;
use super::words::standing_lines;
use super::{How, Part, RollbackArgs, agreed, bring_bytes, incomplete, lock, not_done, owed, parted};
use crate::cli::Setting;
use crate::cli::bucket;
use crate::cli::done::{Broken, Done};
use crate::cli::fail::{self, failed};
use crate::cli::open::Opened;
use crate::cli::signals::Signals;
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres::history;
use crate::resolve;
use crate::rollback::Mode;
use crate::rollback::choice::{Past, Unsettled};
use crate::rollback::run::{self, Fate, NotDone};
use crate::rollback::storage::{Objects, Salvaged};
use crate::salvage::{self, Saved};
use crate::ui::Summary;
use crate::verify;
use std::path::{Path, PathBuf};

/// One whose transaction stands, and what it wrote.
pub(super) struct Standing {
    unsettled: Unsettled,
    folder: PathBuf,
    /// The objects of Storage that it was to bring back.
    objects: Option<Saved>,
}

/// What became of one that was cut off.
pub(super) enum Settled {
    /// Nothing of it stands, or there was none.
    Nothing,
    /// It stood, and a version that went with it is in the history again.
    PushedSince(Unsettled),
    /// It stands.
    Standing(Box<Standing>),
}

/// Asks the server; nothing changes.
pub(super) async fn look(opened: &Opened, past: &Past, host: &str) -> Result<Settled, Broken> {
    let Some(unsettled) = past.unsettled.clone() else { return Ok(Settled::Nothing) };
    let context = &opened.context;
    context.warn(format!(
        "run {} did not tell its rollback to the end; asking what became of it",
        unsettled.run
    ));
    if let Some(reached) = unsettled.reached {
        context.note(format!("its record ends {}", reached.in_words()));
    }
    // The numbers of transactions say nothing on another server.
    let snapshot = context.store.load(&unsettled.snapshot).ok();
    let differences =
        snapshot.map(|snapshot| snapshot.manifest.identity.differences(&opened.target.identity));
    if let Some(differences) = differences.filter(|differences| !differences.is_empty()) {
        context.warn(format!(
            "that was another database, of which nobody asks here: {}",
            differences.join("; ")
        ));
        return Ok(Settled::Nothing);
    }
    let fate = run::fate(&opened.target, &unsettled.transaction).await.map_err(|error| not_done(&error))?;
    let again = versions_again(opened, &unsettled).await?;
    let fate = match fate {
        // A server forgets old transactions. The versions go from the history with the rest, or not at all.
        Fate::Unknown => {
            context.warn("the server has forgotten that transaction; the history of migrations decides");
            let is_gone = !unsettled.versions.is_empty() && again.is_empty();
            if is_gone { Fate::Committed } else { Fate::Aborted }
        }
        fate => fate,
    };
    match fate {
        Fate::Committed if !again.is_empty() => {
            context.warn(format!(
                "that rollback stood, and {} came into the history again since: somebody pushed; where Storage still \
                 lacks objects, `{}` brings them",
                again.join(", "),
                storage_alone(&unsettled)
            ));
            return Ok(Settled::PushedSince(unsettled));
        }
        Fate::Committed => {}
        Fate::Never => {
            context.note("the server was restored to an earlier time: nothing of it stands");
            return Ok(Settled::Nothing);
        }
        Fate::Aborted => {
            context.note("nothing of it stands");
            return Ok(Settled::Nothing);
        }
        // Nobody is left to ask for its commit.
        Fate::InProgress if is_abandoned(&unsettled, host) => {
            context.note("nothing of it will stand, as soon as the server misses its session");
            return Ok(Settled::Nothing);
        }
        Fate::InProgress | Fate::Unknown => {
            return Err(Failure::message(
                Exit::Locked,
                "that rollback still goes on, or is still being committed",
            )
            .hint("Wait a little, then run `supa-safe rollback` again")
            .into());
        }
    }
    let folder = context.store.rollback_dir(&unsettled.run);
    context.store.fetch_rollback(&unsettled.run).await.map_err(|error| bucket::store_failed(&error))?;
    let objects = salvage::resume(&folder).map_err(|error| not_done(&NotDone::Storage(error)))?;
    let objects = objects.filter(|objects| !objects.is_nothing());
    Ok(Settled::Standing(Box::new(Standing { unsettled, folder, objects })))
}

/// The command that brings the objects back that a rollback left.
fn storage_alone(unsettled: &Unsettled) -> String {
    let Unsettled { snapshot, mode, .. } = unsettled;
    format!("supa-safe rollback {snapshot} --only storage --mode {}", mode.as_str())
}

impl Standing {
    /// Refuses to finish it for somebody who asks for another one.
    pub(super) fn is_meant(&self, args: &RollbackArgs) -> Result<(), Failure> {
        let Unsettled { snapshot, mode, database, .. } = &self.unsettled;
        let is_other = args.id.as_ref().is_some_and(|id| id != snapshot);
        let asks_for_more = (args.mode == Some(How::Whole) && *mode == Mode::Touched)
            || !args.table.is_empty()
            || !args.also.is_empty()
            || args.remove_added;
        let asks_for_database = args.only == Some(Part::Database) && (self.objects.is_some() || !database);
        if is_other || asks_for_more || asks_for_database {
            return Err(self.refused().hint("Then run this command again"));
        }
        Ok(())
    }

    /// That something else cannot be done before this one is finished.
    fn refused(&self) -> Failure {
        let Unsettled { run, snapshot, .. } = &self.unsettled;
        let failure = Failure::message(
            Exit::Refused,
            format!("the rollback of run {run} to snapshot {snapshot} stands, and was not told to its end"),
        );
        let failure = failure.detail("this run did not touch the target").hint(
            "Run `supa-safe rollback`: it brings the objects of Storage that are left, and tells what was done; the \
             rows stay as they are",
        );
        match self.objects {
            Some(_) => failure.hint(
                "Where these objects cannot come back, `supa-safe rollback --leave-objects` ends it without them",
            ),
            None => failure,
        }
    }
}

/// Refuses a push on top of one that stands and is not finished: after the push nobody would finish it.
pub(in crate::cli) async fn demand_none(opened: &Opened, host: &str) -> Result<(), Broken> {
    let past = Past::read(opened.context.store.earlier_runs(&opened.run).map_err(failed(Exit::Error))?);
    match look(opened, &past, host).await? {
        Settled::Nothing | Settled::PushedSince(_) => Ok(()),
        Settled::Standing(standing) => Err(standing.refused().into()),
    }
}

/// Whether its run died on this machine before it asked for the commit. The record that another machine
/// shared may lack its last lines.
fn is_abandoned(unsettled: &Unsettled, host: &str) -> bool {
    let is_here =
        unsettled.place.as_ref().is_some_and(|(at, folder)| at == host && Path::new(folder).exists());
    is_here && !unsettled.is_committing
}

/// The versions that were to go and are in the history.
async fn versions_again(opened: &Opened, unsettled: &Unsettled) -> Result<Vec<String>, Broken> {
    let session = resolve::reopen(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
    let live = history::read(&session.client).await.map_err(failed(Exit::Error))?;
    session.close().await;
    let is_there = |version: &&String| live.iter().any(|applied| applied.version == **version);
    Ok(unsettled.versions.iter().filter(is_there).cloned().collect())
}

/// Brings the objects of Storage back that are left, once somebody has confirmed that, and tells all that it
/// did.
pub(super) async fn finish(
    setting: &Setting,
    opened: &Opened,
    standing: Standing,
    (args, signals): (&RollbackArgs, &mut Signals),
) -> Result<Done, Broken> {
    let Standing { unsettled, folder, objects } = standing;
    let snapshot = unsettled.snapshot.clone();
    let left = objects.as_ref().filter(|_| args.leave_objects).map(|objects| objects.items().count());
    let objects = objects.filter(|_| !args.leave_objects);
    let lines = objects.as_ref().map(|objects| standing_lines(opened, &unsettled, objects));
    if args.dry_run {
        return Ok(foreseen(opened, &unsettled, lines.unwrap_or_default()));
    }
    let undone = Undone::of(&unsettled, &folder, (opened.context.clock)()).map_err(failed(Exit::Error))?;
    let objects: Option<Result<Objects, Failure>> = match (objects, lines) {
        (Some(objects), Some(lines)) => {
            agreed(setting, opened, lines, (args, &mut *signals)).await?;
            // Its bytes may stand in the shared store alone.
            let base = opened.snapshot(Some(&snapshot))?;
            let accept = async {
                verify::accept(base, &opened.context).await.map_err(|error| fail::verify_failed(&error))
            };
            let base = signals.guard(Box::pin(accept)).await?;
            let reached = async {
                let reached = Salvaged::reached(&opened.context, objects).await;
                reached.map_err(|error| owed(Failure::new(Exit::RollbackIncomplete, &error)))
            };
            let objects = signals.guard(reached).await?;
            let held = signals.guard(lock(&opened.target)).await?;
            // From here on the target changes: no signal ends this halfway.
            let objects = bring_bytes(opened, base.snapshot(), objects).await;
            held.release().await;
            Some(objects)
        }
        _ => None,
    };
    let (has_written, database) = (objects.is_some(), undone.with_database);
    let (objects, failed) = parted(objects);
    let mut done = undone.finish(opened, &snapshot, objects, &folder);
    done.summary.target_touched = has_written;
    if let Some(failure) = failed {
        return Err(incomplete(failure, done));
    }
    // From here on no run asks what became of it.
    opened.context.tell(&Event::RolledBack { snapshot: snapshot.clone(), database });
    let first = format!("The rollback of run {} stands, and was not done again:", unsettled.run);
    done.closing.insert(0, first);
    if let Some(count) = left {
        let text = format!(
            "{count} objects of Storage were not looked at again; `{}` does that",
            storage_alone(&unsettled)
        );
        done.summary.limits.push(text.clone());
        done.closing.push(format!("  {text}"));
    }
    Ok(done)
}

fn foreseen(opened: &Opened, unsettled: &Unsettled, lines: Vec<(&'static str, String)>) -> Done {
    let closing = vec![format!(
        "The rollback of run {} to snapshot {} stands on {}; `supa-safe rollback` tells what it did, and finishes \
         it where something is left (nothing was touched)",
        unsettled.run,
        unsettled.snapshot,
        opened.target.name()
    )];
    let summary = Summary { snapshot: Some(unsettled.snapshot.clone()), ..Summary::new() };
    let done = Done { exit: Exit::Done, summary, closing };
    lines.into_iter().fold(done, |done, (title, text)| done.closing(format!("  {title:<10} {text}")))
}
