//! `supa-safe rollback`: choose the snapshot, confirm, take the database back, prove it, commit.

mod commands;
mod foreseen;
mod plan;
mod settle;
mod undone;
mod words;

use super::done::{Broken, Done};
use super::fail::{self, failed};
use super::open::{self, Opened};
use super::signals::Signals;
use super::{RUN, Setting, TargetArgs, bucket, confirm, earlier, quiesce, snapshot_id};
use crate::delegate::{self, TargetLock};
use crate::disk;
use crate::event::{Event, Stage};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::left_out::LeftOut;
use crate::manifest::SnapshotId;
use crate::resolve;
use crate::rollback::choice::{Past, Unsettled};
use crate::rollback::run::{self, Announcement, NotDone, Ready};
use crate::rollback::storage::{self, Objects, Salvaged};
use crate::rollback::{self, PATIENCE, Task, Translation};
use crate::salvage;
use crate::store::Snapshot;
use crate::target::Target;
use crate::tools::installs;
use clap::{Args, ValueEnum};
use plan::{Plan, plan};
use settle::Settled;
pub(super) use settle::demand_none;
use std::io;
use std::path::Path;
use tokio_postgres::error::SqlState;
use undone::Undone;
use words::{lines, show};

/// Arguments of `rollback`.
#[derive(Debug, Args)]
pub(super) struct RollbackArgs {
    /// The snapshot; without it the one that the last push leaned on
    #[arg(value_parser = snapshot_id)]
    id: Option<SnapshotId>,
    #[command(flatten)]
    target: TargetArgs,
    /// How much goes back; without it what the migration touched, where the rehearsal proved that or `--table`
    /// names tables, and everything elsewhere
    #[arg(long, value_name = "HOW", help_heading = RUN)]
    mode: Option<How>,
    /// Take back the rows of this table as well, with those of the migration
    #[arg(long, value_name = "SCHEMA.NAME", help_heading = RUN)]
    table: Vec<String>,
    /// Take back this version of somebody else's too
    #[arg(long, value_name = "VERSION", help_heading = RUN)]
    also: Vec<String>,
    /// Take back this part alone; without it the database, and Storage where the migration wrote to it
    #[arg(long, value_name = "PART", help_heading = RUN)]
    only: Option<Part>,
    /// With `--mode whole`, remove what people added to Storage as well; it is saved first
    #[arg(long, help_heading = RUN)]
    remove_added: bool,
    /// Leave the objects of Storage that an earlier rollback, which stands, still had to bring back
    #[arg(long, help_heading = RUN)]
    leave_objects: bool,
    /// Print what would be done, and change nothing
    #[arg(long, help_heading = RUN)]
    dry_run: bool,
    /// Confirm the target by its name, for scripts
    #[arg(long, value_name = "WORDS", help_heading = RUN)]
    confirm: Option<String>,
}

/// What to do about a full disk.
const ROOM: &str = "Make room on the disk of the state folder, then run it again";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    Touched,
    Whole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Database,
    Storage,
}

pub(super) async fn run(setting: &Setting, args: RollbackArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let opened = open::open(setting, &args.target, None, &mut signals).await?;
    let outcome = Box::pin(roll_back(setting, &opened, &args, &mut signals)).await;
    opened.close(setting, outcome).await
}

async fn roll_back(
    setting: &Setting,
    opened: &Opened,
    args: &RollbackArgs,
    signals: &mut Signals,
) -> Result<Done, Broken> {
    // A push of a run that died may still go on.
    signals.guard(earlier::look(opened)).await?;
    // What is left of a pause does nothing, and is in nobody's way.
    drop(signals.guard(quiesce::settle(opened, args.dry_run)).await?);
    let mut past = Past::read(opened.context.store.earlier_runs(&opened.run).map_err(failed(Exit::Error))?);
    let host = setting.host();
    match signals.guard(Box::pin(settle::look(opened, &past, &host))).await? {
        Settled::Nothing => {}
        Settled::PushedSince(unsettled) => {
            past.settle(&unsettled);
            if !args.dry_run {
                let Unsettled { snapshot, database, .. } = unsettled;
                opened.context.tell(&Event::RolledBack { snapshot, database });
            }
        }
        Settled::Standing(standing) => {
            standing.is_meant(args)?;
            return Box::pin(settle::finish(setting, opened, *standing, (args, signals))).await;
        }
    }
    if args.leave_objects {
        let text = "no rollback stands whose objects could be left";
        return Err(Failure::message(Exit::Refused, text)
            .detail("the target was not touched")
            .hint("To take the last push back, leave `--leave-objects` away")
            .into());
    }
    let plan = signals.guard(Box::pin(plan(opened, &past, args))).await?;
    if args.dry_run {
        return Ok(show(opened, &plan)?);
    }
    agreed(setting, opened, lines(opened, &plan), (args, &mut *signals)).await?;
    execute(opened, &plan, &host, signals).await
}

/// Shows what will be done, and goes on when somebody has confirmed the target.
async fn agreed(
    setting: &Setting,
    opened: &Opened,
    lines: Vec<(&'static str, String)>,
    (args, signals): (&RollbackArgs, &mut Signals),
) -> Result<(), Failure> {
    let question = confirm::Question {
        target: opened.target.name(),
        agent: setting.surroundings.agent().filter(|_| !setting.exempt),
        flag: args.confirm.clone(),
        to: confirm::Purpose::Rollback,
        may_ask: setting.may_ask(),
    };
    confirm::foresee(&question)?;
    opened.context.tell(&Event::Confirmation { lines, is_asked: question.flag.is_none() });
    signals.guard(confirm::weigh(&question)).await.map(drop)
}

async fn execute(opened: &Opened, plan: &Plan, host: &str, signals: &mut Signals) -> Result<Done, Broken> {
    let (context, target) = (&opened.context, &opened.target);
    let snapshot = plan.base.snapshot();
    let held = signals.guard(lock(target)).await?;
    let watch =
        context.stage(Stage::Rollback, format!("take {} back to snapshot {}", target.name(), snapshot.id()));
    let folder = context.store.rollback_dir(&opened.run);
    let storage = if plan.with_storage {
        let save = async {
            let saved = storage::save(target, snapshot, context, (plan.wanted(), &folder));
            saved.await.map_err(|error| not_done(&error))
        };
        signals.guard(save).await?
    } else {
        None
    };
    // What is written over later is in the store before; no request is made while anybody waits for us.
    let share = async { context.share_records().await.map_err(|error| bucket::store_failed(&error)) };
    drop(signals.guard(share).await?);
    let announcement = Announcement {
        run: &opened.run,
        host,
        folder: &folder,
        snapshot: snapshot.id(),
        database: plan.with_database,
        mode: plan.mode,
        versions: plan.versions(),
    };
    let ready = signals.guard(Box::pin(prove(opened, plan, storage.as_ref(), &announcement))).await?;
    let at = (context.clock)();
    let undone = Undone::of_plan(plan, ready.proved.clone(), at);
    undone.write(&folder).map_err(not_kept)?;
    let proved =
        run::commit(target, snapshot.id(), ready, context).await.map_err(|error| not_done(&error))?;
    // The bytes may take long: what was kept is in the store before.
    let unshared = context.share_records().await.err().map(|error| {
        let text = format!(
            "what was kept of this rollback is only on this machine, in {}, until a run here reaches the store: {error}",
            folder.display()
        );
        context.warn(text.clone());
        text
    });
    let objects = match storage {
        Some(salvaged) => Some(bring_bytes(opened, snapshot, salvaged).await),
        None => None,
    };
    held.release().await;
    let (objects, failed) = parted(objects);
    if failed.is_none() {
        watch.done(words::is_back(&proved, plan.with_database));
    }
    let mut done = undone.finish(opened, snapshot.id(), objects, &folder);
    if let Some(failure) = failed {
        return Err(incomplete(failure, done));
    }
    // From here on no run asks what became of it.
    context.tell(&Event::RolledBack { snapshot: snapshot.id().clone(), database: plan.with_database });
    if let Some(text) = unshared {
        done.summary.limits.push(text.clone());
        done.closing.push(format!("  {text}"));
    }
    Ok(done)
}

/// Keeps other runs away from the target.
async fn lock(target: &Target) -> Result<TargetLock, Failure> {
    TargetLock::take(target).await.map_err(|error| match error {
        delegate::Error::Query(_) => {
            Failure::new(Exit::Error, &error).detail("this run did not touch the target")
        }
        error => fail::delegate_failed(&error),
    })
}

/// The objects of Storage that came back, or why some did not.
fn parted(objects: Option<Result<Objects, Failure>>) -> (Option<Objects>, Option<Failure>) {
    match objects.transpose() {
        Ok(objects) => (objects, None),
        Err(failure) => (None, Some(failure)),
    }
}

/// A rollback of which the rows stand, and not yet all objects: what it did is told all the same.
fn incomplete(failure: Failure, done: Done) -> Broken {
    let folder = done.summary.rolled_back.as_ref().map(|done| done.folder.clone());
    let failure = folder.into_iter().fold(failure, |failure, folder| {
        failure.detail(format!("what was kept first, and a text on what was done, are in {folder}"))
    });
    Broken::new(failure, done.summary)
}

/// The database, or the rows of Storage alone, in a transaction that is left open.
async fn prove(
    opened: &Opened,
    plan: &Plan,
    storage: Option<&Salvaged>,
    announcement: &Announcement<'_>,
) -> Result<Ready, Failure> {
    let (context, target, snapshot) = (&opened.context, &opened.target, plan.base.snapshot());
    if !plan.with_database {
        let saved = storage.map(Salvaged::saved).ok_or_else(|| {
            Failure::message(
                Exit::Refused,
                "the snapshot does not say what Storage held; nothing was changed",
            )
        })?;
        let proved = run::prove_storage(target, saved, context, announcement).await;
        return proved.map_err(|error| not_done(&error));
    }
    let clients = installs::client_for(snapshot.manifest.client_major(), &context.machine.installations)
        .map_err(|error| fail::installs_failed(&error))?;
    let ids = ids(opened, plan, (clients, announcement.folder)).await?;
    let left_out = LeftOut::unread(&snapshot.manifest.database.gaps);
    let untouched = salvage::nothing();
    let saved = match storage {
        Some(salvaged) => Some(salvaged.saved()),
        None => plan.leaves_storage().then_some(&untouched),
    };
    let besides = plan.record.as_ref().map(|record| record.besides.clone()).unwrap_or_default();
    let task = Task {
        snapshot,
        mode: plan.mode,
        tables: &plan.tables,
        besides: &besides,
        versions: &plan.choice.versions,
        clients,
        left_out: &left_out,
        translation: &ids,
        storage: saved,
        patience: PATIENCE,
        keep_in: Some(announcement.folder),
    };
    run::prove(target, &task, context, announcement).await.map_err(|error| not_done(&error))
}

/// Says that objects are owed, and how that ends.
fn owed(failure: Failure) -> Failure {
    failure
        .detail("the rows are as in the snapshot; the objects of Storage are not yet")
        .hint("Run `supa-safe rollback` again: it goes on with Storage")
        .hint(
            "Where these objects cannot come back, `supa-safe rollback --leave-objects` ends it without them",
        )
}

/// The bytes of Storage, after the commit.
async fn bring_bytes(
    opened: &Opened,
    snapshot: &Snapshot,
    mut salvaged: Salvaged,
) -> Result<Objects, Failure> {
    let brought = storage::bytes(&opened.target, snapshot, &mut salvaged, &opened.context).await;
    let objects = brought.map_err(|error| {
        let failure = Failure::new(Exit::RollbackIncomplete, &error);
        owed(match error {
            NotDone::NoWay => failure.hint("Set the keys that `supa-safe snapshot` used"),
            _ if is_full(&error) => failure.hint(ROOM),
            _ => failure,
        })
    })?;
    if objects.left.is_empty() {
        return Ok(objects);
    }
    let failure = Failure::message(Exit::RollbackIncomplete, "objects of Storage are not as in the snapshot");
    Err(owed(objects.left.iter().take(20).fold(failure, |failure, left| failure.detail(left.clone()))))
}

/// The ids that the snapshot's objects have now. The definitions as they stand, of what others made since too,
/// stay in the folder of the rollback.
async fn ids(
    opened: &Opened,
    plan: &Plan,
    (clients, folder): (&installs::Installation, &Path),
) -> Result<Translation, Failure> {
    disk::make_private_dir(folder).map_err(not_kept)?;
    let not_read = |error: rollback::Error| not_done(&NotDone::Rollback(error));
    resolve::refresh(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
    let now = rollback::contents(&opened.target.connection, clients, folder).await.map_err(not_read)?;
    disk::sync_tree(folder).map_err(not_kept)?;
    let recorded = rollback::recorded_contents(plan.base.snapshot()).map_err(not_read)?;
    Ok(Translation::of_target(&recorded, &now))
}

/// What helps where the server lacks what a rollback needs.
fn of_server(stopped: &rollback::Error) -> Option<&'static [&'static str]> {
    let code = stopped.server()?.code();
    if *code == SqlState::OUT_OF_MEMORY {
        Some(&[
            "Raise `max_locks_per_transaction` and restart the server, then run it again",
            "Or take less back at once: `--mode touched` locks only what the push touched",
        ])
    } else if *code == SqlState::DISK_FULL {
        Some(&[
            "Make room on the target: tables stand there twice until the rollback is over; then run it again",
        ])
    } else {
        None
    }
}

/// What helps against a rollback that was not proved.
fn next(stopped: &rollback::Error) -> Option<&'static str> {
    match stopped {
        rollback::Error::NotExact(_) | rollback::Error::Platform(_) => Some(
            "Run it with `--mode whole`; where that does not help either, follow `restore.md` in the snapshot's folder",
        ),
        rollback::Error::Archive(_)
        | rollback::Error::Contents(_)
        | rollback::Error::Fingerprint(_)
        | rollback::Error::Cut
        | rollback::Error::Encoding => {
            Some("Run `supa-safe verify` with the snapshot's id: it says what is damaged")
        }
        rollback::Error::Definitions(_) | rollback::Error::Query(_) => {
            Some("Run it again; `supa-safe doctor` looks at the connection and the role")
        }
        rollback::Error::LargeObjects => {
            Some("Stop whoever writes to large objects, which no lock keeps away, and run it again")
        }
        rollback::Error::Io(_) => Some("See that the state folder can be written to, then run it again"),
        _ => None,
    }
}

/// A file of the rollback that could not be written, before anything was committed.
fn not_kept(error: io::Error) -> Failure {
    not_done(&NotDone::Rollback(error.into()))
}

/// Whether there is no room for what is to be kept.
fn is_full(error: &NotDone) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::StorageFull)
}

/// A rollback that did not come to its end.
fn not_done(error: &NotDone) -> Failure {
    match error {
        error if is_full(error) => {
            Failure::new(Exit::Error, error).detail("nothing was changed").hint(ROOM)
        }
        NotDone::Connect(error) | NotDone::Rollback(rollback::Error::Connect(error)) => {
            fail::connect_failed(error)
        }
        NotDone::Unsettled(_) => Failure::new(Exit::RollbackIncomplete, error)
            .hint("Run `supa-safe rollback` again: it asks the server what became of it first"),
        NotDone::Rollback(passing) if run::is_passing(passing) => Failure::new(Exit::Error, error)
            .detail("nothing was changed")
            .hint("See whose transaction holds its tables: `select pid, query from pg_stat_activity where state = 'idle in transaction'`")
            .hint("Run it again when that has ended"),
        NotDone::Rollback(stopped) if let Some(ways) = of_server(stopped) => {
            let failure = Failure::new(Exit::Error, error).detail("nothing was changed");
            ways.iter().fold(failure, |failure, way| failure.hint(*way))
        }
        NotDone::Rollback(rollback::Error::Statement { .. }) => {
            let failure = Failure::new(Exit::Error, error).detail("nothing was changed");
            failure.hint("Run it again; with `--mode whole` when rows written since refer to what goes back")
        }
        NotDone::Rollback(rollback::Error::History { .. }) => Failure::new(Exit::Refused, error)
            .detail("the target was not touched")
            .hint("Run `supa-safe rollback` again: it reads the history anew, and says whose versions these are"),
        NotDone::Rollback(rollback::Error::Objects(_)) => Failure::new(Exit::Refused, error)
            .detail("the target was not touched")
            .hint("Where the snapshot holds Storage, leave `--only database` away: the objects go back too")
            .hint("Where that is refused, pass `--mode whole`: everything goes back, Storage as well"),
        NotDone::Storage(_) | NotDone::NoWay => Failure::new(Exit::Error, error)
            .detail("nothing was changed")
            .hint("To take the database back without Storage, pass `--only database`"),
        NotDone::Store(error) | NotDone::Rollback(rollback::Error::Store(error)) => {
            bucket::store_failed(error).detail("nothing was changed")
        }
        NotDone::Rollback(stopped) => {
            let failure = Failure::new(Exit::Error, error).detail("nothing was changed");
            match next(stopped) {
                Some(next) => failure.hint(next),
                None => failure,
            }
        }
    }
}
