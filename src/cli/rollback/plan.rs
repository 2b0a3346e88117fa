//! What a rollback will do, as far as it is known before the target is locked.

use super::{How, Part, RollbackArgs, not_done};
use crate::cli::done::Broken;
use crate::cli::fail::{self, failed};
use crate::cli::open::{Opened, pick};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::postgres::history;
use crate::rehearse::record::Record;
use crate::rehearse::rollback::{writes_storage, written_tables};
use crate::resolve;
use crate::rollback::Mode;
use crate::rollback::choice::{self, Choice, Past, Refusal};
use crate::rollback::run::NotDone;
use crate::rollback::storage::{self, Wanted};
use crate::salvage::{self, Removal};
use crate::verify::{self, Verified};

/// What is to be done, as far as it is known before the target is locked.
pub(super) struct Plan {
    pub(super) choice: Choice,
    pub(super) base: Verified,
    pub(super) record: Option<Record>,
    pub(super) mode: Mode,
    pub(super) tables: Vec<String>,
    pub(super) with_database: bool,
    pub(super) with_storage: bool,
    pub(super) removal: Removal,
    /// What would be done to Storage, when something may be.
    pub(super) objects: Option<salvage::Plan>,
}

impl Plan {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        let touched = self.record.as_ref().and_then(|record| record.storage.as_ref());
        Wanted { mode: self.mode, touched, removal: self.removal }
    }
}

/// Chooses, and looks at what lies between the target and the snapshot. Nothing changes.
pub(super) async fn plan(opened: &Opened, past: &Past, args: &RollbackArgs) -> Result<Plan, Broken> {
    let store = &opened.context.store;
    let session = resolve::reopen(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
    let live = history::read(&session.client).await.map_err(failed(Exit::Error))?;
    session.close().await;
    let live: Vec<String> = live.into_iter().map(|applied| applied.version).collect();
    let with_history = |id: &SnapshotId| -> Result<(SnapshotId, Vec<String>), Broken> {
        Ok((id.clone(), pick(store, Some(id))?.manifest.database.history))
    };
    let wanted = args.id.as_ref().map(with_history).transpose()?;
    let newest = store.ids().map_err(failed(Exit::Error))?.into_iter().next();
    let bound = past.pushed.as_ref().map(|pushed| pushed.snapshot.clone()).or(newest);
    let bound = bound.filter(|_| wanted.is_none() && past.rolled_back.is_none());
    let bound = bound.as_ref().map(with_history).transpose()?;
    let choice = choice::choose(past, wanted, bound, &live, &args.also)
        .map_err(|refusal| refused(&refusal))?
        .ok_or_else(|| {
            Failure::message(Exit::Refused, "there is no snapshot of this target to go back to")
                .detail("the target was not touched")
        })?;
    let snapshot = opened.snapshot(Some(&choice.snapshot))?;
    let differences = snapshot.manifest.identity.differences(&opened.target.identity);
    if !differences.is_empty() {
        return Err(Failure::message(
            Exit::Refused,
            "the snapshot is of another database; the target was not touched",
        )
        .detail(format!("[SS004] {}", differences.join("; ")))
        .into());
    }
    let base =
        verify::accept(snapshot, &opened.context).await.map_err(|error| fail::verify_failed(&error))?;
    let digest = &base.snapshot().manifest.database.owned_digest;
    let record = Record::of_push(store, digest, &choice.files).map_err(failed(Exit::Error))?;
    let record = record.filter(|_| choice.is_of_one_push());
    let (mode, tables) = scope(record.as_ref(), args)?;
    let can_be_reached = opened.context.storage.is_some() && base.snapshot().storage_index().exists();
    let with_storage = match args.only {
        Some(only) => only == Part::Storage,
        None => {
            args.remove_added
                || record.as_ref().is_some_and(|record| writes_storage(&record.effects))
                || (mode == Mode::Whole && can_be_reached)
        }
    };
    let removal = if args.remove_added { Removal::RemoveAdded } else { Removal::Keep };
    let with_database = args.only != Some(Part::Storage);
    let mut plan =
        Plan { choice, base, record, mode, tables, with_database, with_storage, removal, objects: None };
    if with_storage && can_be_reached {
        let session = resolve::reopen(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
        let objects = storage::foresee(&session.client, plan.base.snapshot(), plan.wanted()).await;
        session.close().await;
        plan.objects = Some(objects.map_err(|error| not_done(&NotDone::Storage(error)))?);
    }
    Ok(plan)
}

/// How much goes back, and whose rows.
fn scope(record: Option<&Record>, args: &RollbackArgs) -> Result<(Mode, Vec<String>), Failure> {
    let mut tables = record.map(|record| written_tables(&record.effects)).unwrap_or_default();
    tables.extend(args.table.iter().cloned());
    let is_exact = |record: &Record| {
        record.rollbacks.iter().any(|one| one.mode == Mode::Touched && one.failed.is_none())
    };
    let mode = match args.mode {
        Some(How::Touched) if record.is_none() && args.table.is_empty() => {
            return Err(Failure::message(
                Exit::Refused,
                "no rehearsal of all that would go is on record, so nobody knows which rows it wrote; the target was not touched",
            )
            .hint("Pass `--mode whole`, or name the tables with `--table`"));
        }
        Some(How::Touched) => Mode::Touched,
        None if record.is_some_and(is_exact) || !args.table.is_empty() => Mode::Touched,
        Some(How::Whole) | None => Mode::Whole,
    };
    Ok((mode, tables))
}

fn refused(refusal: &Refusal) -> Failure {
    let failure = Failure::new(Exit::Refused, refusal).detail("the target was not touched");
    match refusal {
        Refusal::Already(snapshot) => {
            failure.hint(format!("To go back to it once more, run `supa-safe rollback {snapshot}`"))
        }
        Refusal::TakenAfter { .. } => {
            failure.hint("Name an older one of `supa-safe list`: `supa-safe rollback <id>`")
        }
        Refusal::Foreign(versions) => {
            let also: Vec<String> = versions.iter().map(|version| format!("--also {version}")).collect();
            failure.hint(format!("Ask who pushed them; to take them back too, pass {}", also.join(" ")))
        }
        Refusal::Lost(_) => {
            failure.hint("Somebody changed the history; compare it with `supabase migration list`")
        }
    }
}
