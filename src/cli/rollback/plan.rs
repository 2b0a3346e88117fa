//! What a rollback will do, as far as it is known before the target is locked.

use super::words::OBJECTS;
use super::{How, Part, RollbackArgs, foreseen, not_done};
use crate::cli::done::Broken;
use crate::cli::fail::{self, failed};
use crate::cli::open::{Opened, pick};
use crate::cli::prepare;
use crate::event::Stage;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::postcheck;
use crate::postgres::connect::Session;
use crate::postgres::{history, rows};
use crate::rehearse::record::Record;
use crate::rehearse::rollback::{
    BYTES, Rehearsed, reaches_storage, writes_accounts, writes_storage, written_tables,
};
use crate::resolve;
use crate::rollback::choice::{self, Asked, Choice, Past, Refusal};
use crate::rollback::preflight::Foreseen;
use crate::rollback::pushed::{self, Written};
use crate::rollback::run::NotDone;
use crate::rollback::storage::{self, Wanted};
use crate::rollback::{self, LIMITS, Mode, named};
use crate::salvage::{self, Probing, Removal};
use crate::verify::{self, Verified};

/// Said of a rollback that no rehearsal tried.
const UNTRIED: &str = "this rollback was never rehearsed: the proof before its commit is all there is";

/// What is to be done, as far as it is known before the target is locked.
pub(super) struct Plan {
    pub(super) choice: Choice,
    pub(super) base: Verified,
    pub(super) record: Option<Record>,
    pub(super) mode: Mode,
    pub(super) tables: Vec<String>,
    /// In which of the tables the push wrote here, and not on the copy.
    pub(super) only_here: Written,
    /// What others made or changed since the push, and what goes back with the rest, in words.
    pub(super) by_others: Vec<String>,
    /// Tables with rows of extensions that the push added, in words.
    pub(super) extensions: Vec<String>,
    pub(super) with_database: bool,
    pub(super) with_storage: bool,
    pub(super) removal: Removal,
    pub(super) probing: Probing,
    /// Whether rows of Storage are not as in the snapshot, and the push or people changed them: they stay.
    pub(super) leaves_objects: bool,
    /// What would be done to Storage, when something may be.
    pub(super) objects: Option<salvage::Plan>,
    /// What it will meet, as far as that could be looked at.
    pub(super) foreseen: Option<Foreseen>,
}

impl Plan {
    /// The versions that go from the history, which stays when Storage goes back alone.
    pub(super) fn versions(&self) -> &[String] {
        if self.with_database { &self.choice.versions } else { &[] }
    }

    /// What the rehearsal of this mode found, if there was one.
    pub(super) fn rehearsed(&self) -> Option<&Rehearsed> {
        self.record.as_ref()?.rollbacks.iter().find(|one| one.mode == self.mode)
    }

    /// The tables that go back, as far as they are known.
    pub(super) fn all_tables(&self) -> Vec<String> {
        let rehearsed = self.rehearsed().map(|one| one.tables.as_slice()).unwrap_or_default();
        let mut tables: Vec<String> = self.tables.iter().chain(rehearsed).cloned().collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// The locks that it held on the copy, where no more goes back than there.
    pub(super) fn rehearsed_locks(&self) -> Option<i64> {
        let rehearsed = self.rehearsed().filter(|one| one.failed.is_none())?;
        let is_there = |table: &String| rehearsed.tables.contains(table);
        (self.mode == Mode::Whole || self.tables.iter().all(is_there)).then_some(rehearsed.locks.held)
    }

    /// What it does not bring back, for people: of this push first.
    pub(super) fn not_back(&self) -> Vec<String> {
        match self.rehearsed() {
            Some(rehearsed) => rehearsed.not_back(),
            None => LIMITS.map(str::to_owned).to_vec(),
        }
    }

    /// The same, and whether nobody ever tried it.
    pub(super) fn limits(&self) -> Vec<String> {
        let is_tried = !self.with_database || self.rehearsed().is_some_and(|one| one.failed.is_none());
        let untried = (!is_tried).then(|| UNTRIED.to_owned());
        let not_back = self.not_back().into_iter().filter(|what| what != BYTES);
        let objects = self.leaves_objects.then(|| OBJECTS.to_owned());
        untried.into_iter().chain(objects).chain(not_back).collect()
    }

    pub(super) fn wanted(&self) -> Wanted<'_> {
        let touched = self.record.as_ref().and_then(|record| record.storage.as_ref());
        Wanted { mode: self.mode, touched, removal: self.removal, probing: self.probing }
    }

    /// Whether the push is known to have left accounts alone, or what it did to them.
    pub(super) fn knows_accounts(&self) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| !writes_accounts(&record.effects) || !record.besides.managed.is_empty())
    }

    /// Whether the push is known to have left the rows of Storage alone.
    pub(super) fn leaves_storage(&self) -> bool {
        self.record.as_ref().is_some_and(|record| !reaches_storage(&record.effects))
    }

    /// Whether the push may have written rows of Storage where the copy had none for it.
    fn may_write_storage(&self) -> bool {
        let is_told = |record: &Record| writes_storage(&record.effects) || !reaches_storage(&record.effects);
        !self.with_storage && !self.record.as_ref().is_none_or(is_told)
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
    let storage_alone = args.only == Some(Part::Storage);
    let newest = store.ids().map_err(failed(Exit::Error))?.into_iter().next();
    let of_push = past.pushed.as_ref().map(|pushed| pushed.snapshot.clone());
    let bound = of_push.or(past.rolled_back.clone().filter(|_| storage_alone)).or(newest);
    let bound = bound.filter(|_| wanted.is_none() && (storage_alone || past.rolled_back.is_none()));
    let bound = bound.as_ref().map(with_history).transpose()?;
    let asked = Asked { snapshot: wanted, also: args.also.clone(), storage_alone };
    let choice = choice::choose(past, asked, bound, &live)
        .map_err(|refusal| refused(&refusal, args))?
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
    let push = (choice.files.as_slice(), choice.pending_digest.as_deref());
    let record = Record::of_push(store, digest, push).map_err(failed(Exit::Error))?;
    let record = record.filter(|_| choice.is_of_one_push());
    let record = record.map(|record| record.of_files(|file| choice.stands(file)));
    let (mode, tables) = scope(&choice, record.as_ref(), args)?;
    let with_database = !storage_alone;
    let removal = if args.remove_added { Removal::RemoveAdded } else { Removal::Keep };
    // Rows that are equal prove nothing of the bytes, and who asks for Storage alone means these.
    let probing = if storage_alone { Probing::All } else { Probing::Changed };
    let mut plan = Plan {
        choice,
        base,
        record,
        mode,
        tables,
        only_here: Written::default(),
        by_others: Vec::new(),
        extensions: Vec::new(),
        with_database,
        with_storage: false,
        removal,
        probing,
        leaves_objects: false,
        objects: None,
        foreseen: None,
    };
    plan.with_storage = with_storage(&plan, args)?;
    let session = resolve::reopen(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
    let looked = look(opened, &session, &mut plan, args).await;
    session.close().await;
    looked?;
    demand_bytes(opened, &plan).await?;
    plan.foreseen = foreseen::look(opened, &plan, args.dry_run).await?;
    Ok(plan)
}

/// Refuses to begin what could not be brought to its end: an object whose kept bytes are damaged.
async fn demand_bytes(opened: &Opened, plan: &Plan) -> Result<(), Broken> {
    let sent = plan.objects.iter().flat_map(salvage::Plan::sent_at_most).cloned().collect();
    let demanded = verify::demand_bytes(&opened.context, &plan.base, sent).await;
    demanded.map_err(|error| {
        let broken = fail::verify_failed(&error);
        let hint = "To take the database back and leave Storage as it is, pass `--only database`";
        Broken { failure: broken.failure.hint(hint), ..broken }
    })
}

/// Looks at the target with what is planned.
async fn look(
    opened: &Opened,
    session: &Session,
    plan: &mut Plan,
    args: &RollbackArgs,
) -> Result<(), Failure> {
    let (snapshot, client) = (plan.base.snapshot(), &session.client);
    let unknown = named::unknown(client, snapshot, &args.table).await.map_err(failed(Exit::Error))?;
    if !unknown.is_empty() {
        return Err(not_tables(&unknown));
    }
    let is_named = args.id.is_some() || args.mode.is_some() || !args.table.is_empty() || args.remove_added;
    if plan.choice.is_of_no_push() && plan.with_database && !is_named {
        let (live, _) = prepare::look(session).await?;
        if live.owned_digest == snapshot.manifest.database.owned_digest {
            return Err(refused(&Refusal::NothingPushed(plan.choice.snapshot.clone()), args));
        }
    }
    let is_asked_for_more = args.mode.is_some() || !args.table.is_empty() || plan.with_storage;
    if plan.choice.is_void() && plan.with_database && !is_asked_for_more {
        let (live, _) = prepare::look(session).await?;
        if live.owned_digest == snapshot.manifest.database.owned_digest {
            return Err(refused(&Refusal::NothingStands(plan.choice.snapshot.clone()), args));
        }
    }
    if plan.with_storage {
        let objects = storage::foresee(client, snapshot, plan.wanted()).await;
        plan.objects = Some(objects.map_err(|error| not_done(&NotDone::Storage(error)))?);
    }
    if args.only.is_none() && plan.may_write_storage() {
        plan.leaves_objects = storage_differs(opened, session, plan).await?;
    }
    if plan.with_database { look_at_others(opened, session, plan).await } else { Ok(()) }
}

/// Whether Storage is not as in the snapshot, where that can be told.
async fn storage_differs(opened: &Opened, session: &Session, plan: &Plan) -> Result<bool, Failure> {
    let snapshot = plan.base.snapshot();
    if !snapshot.storage_index().exists() {
        return Ok(false);
    }
    let watch = opened.context.stage(Stage::Rollback, "look whether the push wrote to rows of Storage");
    let wanted =
        Wanted { mode: Mode::Whole, touched: None, removal: Removal::Keep, probing: Probing::Changed };
    let objects = storage::foresee(&session.client, snapshot, wanted).await;
    let objects = objects.map_err(|error| not_done(&NotDone::Storage(error)))?;
    watch.done(if objects.is_empty() {
        "they are as in the snapshot"
    } else {
        "some are not as in the snapshot"
    });
    Ok(!objects.is_empty())
}

/// Looks for what the rehearsal could not see: where else the push wrote, and what others did since.
async fn look_at_others(opened: &Opened, session: &Session, plan: &mut Plan) -> Result<(), Failure> {
    let client = &session.client;
    client.batch_execute(rows::PINNED).await.map_err(failed(Exit::Error))?;
    let recorded = &plan.base.snapshot().manifest.database.extensions;
    let added = rollback::rows_of_added_extensions(client, recorded).await;
    plan.extensions = added.map_err(failed(Exit::Error))?;
    if plan.mode == Mode::Touched {
        let watch = opened.context.stage(Stage::Rollback, "look where else the push wrote");
        let found = pushed::tables(client, &plan.choice.versions, &plan.tables).await;
        plan.only_here = found.map_err(failed(Exit::Error))?;
        plan.tables.extend(plan.only_here.tables.iter().cloned());
        watch.done(format!("the push wrote to {} tables more than on the copy", plan.only_here.tables.len()));
    }
    if let Some(record) = plan.record.as_ref().filter(|_| !plan.choice.is_partial()) {
        plan.by_others = postcheck::schema(client, record).await.map_err(failed(Exit::Error))?;
        if plan.mode == Mode::Touched {
            // Those that the push did not touch stay.
            plan.by_others.retain(|what| !what.starts_with("large object "));
        }
    }
    Ok(())
}

/// Whether Storage goes back as well: where it was asked for, where the push wrote to its rows, and with
/// everything.
fn with_storage(plan: &Plan, args: &RollbackArgs) -> Result<bool, Failure> {
    let is_known = plan.base.snapshot().storage_index().exists();
    let writes = plan.record.as_ref().is_some_and(|record| writes_storage(&record.effects));
    let is_told = plan.record.as_ref().is_some_and(|record| record.storage.is_some());
    let wanted = match args.only {
        Some(only) => only == Part::Storage,
        None => args.remove_added || writes || (plan.mode == Mode::Whole && is_known),
    };
    let refused = |why: &str| {
        let failure = Failure::message(Exit::Refused, why).detail("the target was not touched");
        let failure =
            failure.hint("To take the database back and leave Storage as it is, pass `--only database`");
        Err(if is_known { failure.hint("To take both back, pass `--mode whole`") } else { failure })
    };
    if wanted && !is_known {
        return refused("Storage would have to go back, and the snapshot does not say what it held");
    }
    if args.only.is_none() && writes && !is_told && plan.mode == Mode::Touched {
        return refused(
            "the push wrote to rows of Storage, and the rehearsal does not tell which of its files to which",
        );
    }
    Ok(wanted)
}

fn not_tables(unknown: &[named::Unknown]) -> Failure {
    let words = unknown.iter().map(|unknown| format!("`{}`", unknown.name)).collect::<Vec<_>>().join(", ");
    let failure = Failure::message(
        Exit::Usage,
        format!("{words}: no table of yours has this name, neither on the target nor in the snapshot"),
    );
    let failure = failure.detail("the target was not touched");
    unknown.iter().filter(|unknown| !unknown.candidates.is_empty()).fold(failure, |failure, unknown| {
        failure.hint(format!("Instead of `{}`, is it `{}`?", unknown.name, unknown.candidates.join("`, `")))
    })
}

/// How much goes back, and whose rows.
fn scope(
    choice: &Choice,
    record: Option<&Record>,
    args: &RollbackArgs,
) -> Result<(Mode, Vec<String>), Failure> {
    let mut tables = record.map(|record| written_tables(&record.effects)).unwrap_or_default();
    tables.extend(args.table.iter().cloned());
    let is_exact = |record: &Record| {
        record.rollbacks.iter().any(|one| one.mode == Mode::Touched && one.failed.is_none())
    };
    let mode = match args.mode {
        Some(How::Touched) if record.is_none() && args.table.is_empty() && !choice.is_void() => {
            return Err(Failure::message(
                Exit::Refused,
                "no rehearsal of all that would go is on record, so nobody knows which rows it wrote; the target was not touched",
            )
            .hint("Pass `--mode whole`, or name the tables with `--table`"));
        }
        Some(How::Touched) => Mode::Touched,
        // What ran to its end is known, and nobody asked for more than that.
        None if choice.is_void() || (choice.is_partial() && record.is_some()) => Mode::Touched,
        None if record.is_some_and(is_exact) || !args.table.is_empty() => Mode::Touched,
        Some(How::Whole) | None => Mode::Whole,
    };
    Ok((mode, tables))
}

fn refused(refusal: &Refusal, args: &RollbackArgs) -> Failure {
    let failure = Failure::new(Exit::Refused, refusal).detail("the target was not touched");
    match refusal {
        Refusal::Already(snapshot) => {
            let only = if args.only == Some(Part::Database) { " --only database" } else { "" };
            failure.hint(format!(
                "To go back to it once more, run `supa-safe rollback {snapshot} --mode whole{only}`"
            ))
        }
        Refusal::TakenAfter { right: Some(right), .. } => failure
            .hint(format!("The push leaned on another one: run `supa-safe rollback {right}`")),
        Refusal::TakenAfter { right: None, .. } => {
            failure.hint("Name an older one of `supa-safe list`: `supa-safe rollback <id>`")
        }
        Refusal::NothingPushed(_) => failure
            .hint("To take back rows that were written since, name their tables with `--table`, or pass `--mode whole`"),
        Refusal::NothingStands(_) => failure
            .hint("Where a file that is not all-or-nothing wrote rows before it failed, name their tables with `--table`")
            .hint("To take back everything that was written since the snapshot, pass `--mode whole`"),
        Refusal::Foreign(versions) => {
            let also: Vec<String> = versions.iter().map(|version| format!("--also {version}")).collect();
            failure.hint(format!("Ask who pushed them; to take them back too, pass {}", also.join(" ")))
        }
        Refusal::Lost(_) => {
            failure.hint("Somebody changed the history; compare it with `supabase migration list`")
        }
    }
}
