//! `supa-safe prune`, `pin`, and `unpin`: which snapshots stay.
//!
//! Nothing here speaks to the target: what stands on this machine decides. Only where a snapshot would
//! go that a push leaned on is the platform asked, through the CLI, what native backups it has.

use super::done::close;
use super::fail::{cloud_failed, failed};
use super::open;
use super::{Setting, TargetArgs, bucket, snapshot_id};
use crate::config::Config;
use crate::disk::{self, Lock};
use crate::event::{Event, Observer, Observers};
use crate::evidence::config::{newest_backup, recorded_backup};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::policy::{Policy, in_words};
use crate::retention::{Facts, Known, PastPush, Verdict, decide, holds, lets_go_of_a_push};
use crate::store::{self, Snapshot, Store};
use crate::target::ProjectRef;
use crate::tools::supabase::cloud::Folder;
use crate::ui::Record;
use crate::verify;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Say what would go and what would stay; remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `pin` and `unpin`.
#[derive(Debug, Args)]
pub(super) struct PinArgs {
    /// The snapshot
    #[arg(value_parser = snapshot_id)]
    id: SnapshotId,
    #[command(flatten)]
    target: TargetArgs,
}

pub(super) async fn prune(setting: &Setting, args: &PruneArgs) -> Result<Exit, Failure> {
    close(setting, run(setting, args).await)
}

async fn run(setting: &Setting, args: &PruneArgs) -> Result<Vec<String>, Failure> {
    let open::Known { names, project_ref, policy, store, config, .. } =
        open::known(setting, &args.target).await?;
    let every: Vec<&str> = names.iter().map(String::as_str).collect();
    let keep = config.keep(&every).map_err(failed(Exit::Usage))?;
    let name = names.first().cloned().unwrap_or_default();
    let _run = open::lock(&store)?;
    let _retention = lock(&store)?;
    let mut observers = open::observers(setting);
    let run = store::run_name((setting.clock)(), std::process::id());
    if !args.dry_run {
        let file = store.run_file(&run);
        observers.add(Box::new(Record::open(&file, setting.clock).map_err(failed(Exit::Error))?));
        for id in store.finish_removals().map_err(failed(Exit::Error))? {
            let text = format!("removed the rest of snapshot {id}: an earlier run died while it pruned");
            observers.see(&Event::Note { text });
        }
        open::sweep_rollbacks(&store, &observers)?;
    }
    for name in ["run", "retention"] {
        bucket::lock(&store, name, (setting, &run), &observers).await?;
    }
    let case = Case {
        setting,
        store: &store,
        config: &config,
        policy: &policy,
        project_ref,
        keep,
        dry_run: args.dry_run,
    };
    let pruned = prune_locked(&case, &observers).await;
    if pruned.is_err() {
        bucket::release(&store).await;
    }
    let (verdicts, going, objects) = pruned?;
    bucket::leave(setting, &store).await?;
    let (kept, gone) = (verdicts.len() - going.len(), going.len());
    let would = if args.dry_run { "would go" } else { "went" };
    Ok(vec![format!("{gone} of {} snapshots of {name} {would}{objects}; {kept} stay", verdicts.len())])
}

/// Asks the platform for its native backups; when it cannot be asked, says why.
async fn ask(
    setting: &Setting,
    config: &Config,
    project_ref: &ProjectRef,
) -> Result<Result<Value, String>, Failure> {
    let scratch = tempfile::tempdir().map_err(failed(Exit::Error))?;
    let folder = Folder::new(scratch.path()).map_err(failed(Exit::Error))?;
    let asked = async {
        let cloud = open::cloud(setting, config, project_ref).await?;
        cloud.backups(&folder).await.map_err(|error| cloud_failed(&error))
    };
    Ok(asked.await.map_err(|failure| failure.chain.join(": ")))
}

/// The newest native backup that is known, and how it is known.
fn judge_backups(
    store: &Store,
    project_ref: &ProjectRef,
    asked: Result<Value, String>,
) -> Result<(Option<Timestamp>, String), Failure> {
    let by_age = "their age alone decides about snapshots that a push leaned on";
    let why = match asked.map(|told| newest_backup(&told)) {
        Ok(Some(at)) => {
            return Ok((Some(at), format!("the newest native backup of {project_ref} is of {at}")));
        }
        Ok(None) => return Ok((None, format!("{project_ref} has no native backup: {by_age}"))),
        Err(why) => why,
    };
    let ids = store.ids().map_err(failed(Exit::Error))?;
    let recorded = ids.iter().filter_map(|id| recorded_backup(&store.load(id).ok()?)).max();
    let known = match recorded {
        Some(at) => format!("the newest one that a snapshot knows of is of {at}"),
        None => format!("no snapshot knows of one: {by_age}"),
    };
    Ok((recorded, format!("{project_ref} was not asked for its native backups ({why}); {known}")))
}

/// The verdicts, what goes, and the objects that go with it, in words.
type Pruned = (Vec<Verdict>, BTreeSet<SnapshotId>, String);

/// Whose snapshots are looked at, and by which policy.
struct Case<'a> {
    setting: &'a Setting,
    store: &'a Store,
    config: &'a Config,
    policy: &'a Policy,
    project_ref: Option<ProjectRef>,
    keep: SignedDuration,
    dry_run: bool,
}

async fn prune_locked(case: &Case<'_>, observers: &Observers) -> Result<Pruned, Failure> {
    let Case { setting, store, keep, dry_run, .. } = *case;
    let of_store = |error: store::Error| bucket::store_failed(&error);
    if dry_run {
        store.pull().await.map_err(of_store)?;
    } else {
        bucket::catch_up(store, observers).await?;
    }
    store.fetch_indexes().await.map_err(of_store)?;
    store.list_objects().await.map_err(of_store)?;
    let mut facts = facts(store, (setting.clock)(), keep).map_err(failed(Exit::Error))?;
    let mut verdicts = decide(&facts);
    let asked = case.project_ref.as_ref().filter(|_| lets_go_of_a_push(&facts, &verdicts));
    if let Some(project_ref) = asked {
        facts.backup_at = backups(case, project_ref, observers).await?;
        verdicts = decide(&facts);
    }
    if !dry_run {
        for verdict in verdicts.iter().filter(|verdict| !verdict.is_kept()) {
            store.remove_there(&verdict.id, facts.now).await.map_err(of_store)?;
        }
    }
    let going = remove_snapshots(store, &verdicts, observers, dry_run)?;
    remove_objects_there(store, &facts, &going, dry_run).await?;
    let objects = remove_objects(store, &facts, &going, observers, dry_run)?;
    Ok((verdicts, going, objects))
}

/// The newest native backup that is known.
async fn backups(
    case: &Case<'_>,
    project_ref: &ProjectRef,
    observers: &Observers,
) -> Result<Option<Timestamp>, Failure> {
    // A policy without components asks nothing of the platform.
    let asked = if case.policy.components.is_empty() {
        Err("`components = []`".to_owned())
    } else {
        ask(case.setting, case.config, project_ref).await?
    };
    let (backup_at, text) = judge_backups(case.store, project_ref, asked)?;
    observers.see(&Event::Note { text });
    Ok(backup_at)
}

/// The same in the bucket; why every object stays is said where those of the folder are removed.
async fn remove_objects_there(
    store: &Store,
    facts: &Facts,
    going: &BTreeSet<SnapshotId>,
    dry_run: bool,
) -> Result<(), Failure> {
    let unnamed = match store.unnamed_there(facts.now, going).await {
        Ok(unnamed) => unnamed,
        Err(error) if error.damage().is_some() => return Ok(()),
        Err(error) => return Err(bucket::store_failed(&error)),
    };
    if dry_run || unnamed.is_empty() {
        return Ok(());
    }
    store.remove_objects_there(&unnamed).await.map_err(|error| bucket::store_failed(&error))
}

fn remove_snapshots(
    store: &Store,
    verdicts: &[Verdict],
    observers: &Observers,
    dry_run: bool,
) -> Result<BTreeSet<SnapshotId>, Failure> {
    let mut going = BTreeSet::new();
    for verdict in verdicts {
        let snapshot = verdict.id.clone();
        if verdict.is_kept() {
            let reasons = verdict.reasons.iter().map(ToString::to_string).collect();
            observers.see(&Event::SnapshotKept { snapshot, reasons });
            continue;
        }
        let bytes = disk::bytes_below(&store.dir(&snapshot));
        if !dry_run {
            store.remove(&snapshot).map_err(failed(Exit::Error))?;
        }
        let age = verdict.age.map(in_words).unwrap_or_default();
        going.insert(snapshot.clone());
        observers.see(&Event::SnapshotRemoved { snapshot, age, bytes, gone: !dry_run });
    }
    Ok(going)
}

/// Removes what no snapshot names any more. An index that cannot be trusted keeps every object.
fn remove_objects(
    store: &Store,
    facts: &Facts,
    going: &BTreeSet<SnapshotId>,
    observers: &Observers,
    dry_run: bool,
) -> Result<String, Failure> {
    let unnamed = match store.unnamed_objects(facts.now, going) {
        Ok(unnamed) => unnamed,
        Err(error) => match error.damage() {
            None => return Err(Failure::new(Exit::Error, &error)),
            Some(why) => {
                let text =
                    format!("every Storage object stays, because it is not known which are needed: {why}");
                observers.see(&Event::Warning { text });
                return Ok(String::new());
            }
        },
    };
    if unnamed.is_empty() {
        return Ok(String::new());
    }
    if !dry_run {
        store.remove_objects(&unnamed).map_err(failed(Exit::Error))?;
    }
    let (count, bytes) = (unnamed.len(), unnamed.iter().map(|object| object.bytes).sum());
    observers.see(&Event::ObjectsRemoved { count, bytes, gone: !dry_run });
    Ok(format!(", and {count} Storage objects with them"))
}

/// What the state folder says. The platform's backups are not known here.
fn facts(store: &Store, now: Timestamp, keep: SignedDuration) -> Result<Facts, verify::Error> {
    let mut snapshots = Vec::new();
    for id in store.ids()? {
        let pinned = store.is_pinned(&id);
        snapshots.push(match store.load(&id) {
            Ok(snapshot) => Known {
                taken_at: Ok(snapshot.manifest.taken.local_clock),
                pinned,
                successor_of: store.successor_of(&snapshot)?,
                holds: holds(&snapshot.manifest),
                is_damaged: is_damaged(store, &snapshot)?,
                id,
            },
            Err(error) => {
                let Some(why) = error.damage() else { return Err(error.into()) };
                Known {
                    id,
                    taken_at: Err(why),
                    pinned,
                    successor_of: Vec::new(),
                    holds: BTreeMap::new(),
                    is_damaged: true,
                }
            }
        });
    }
    let rehearsals = store.rehearsals()?.iter().filter_map(|record| rehearsed(record)).collect();
    Ok(Facts { now, keep, snapshots, rehearsals, pushes: pushes(store)?, backup_at: None })
}

/// Whether damage is known, or shows without reading everything.
fn is_damaged(store: &Store, snapshot: &Snapshot) -> Result<bool, verify::Error> {
    Ok(!verify::glance(store, snapshot)?.broken.is_empty() || !verify::has_objects(store, snapshot)?)
}

fn rehearsed(record: &[u8]) -> Option<(SnapshotId, Timestamp)> {
    let record: Value = serde_json::from_slice(record).ok()?;
    let text = |name: &str| record.get(name)?.as_str();
    Some((text("snapshot")?.parse().ok()?, text("rehearsed_at")?.parse().ok()?))
}

/// The runs that pushed, and whether they, or a later run, learned what became of it.
pub(super) fn pushes(store: &Store) -> Result<Vec<PastPush>, store::Error> {
    let mut pushes = Vec::new();
    let mut settled_later = BTreeSet::new();
    for run in store.runs()? {
        let lines = store.run_lines(&run)?;
        let of_type =
            |name: &str| lines.iter().find(|line| line.get("type").and_then(Value::as_str) == Some(name));
        let text = |line: &Value, name: &str| line.get(name)?.as_str().map(str::to_owned);
        settled_later.extend(of_type("push-settled").and_then(|line| text(line, "run")));
        let Some(line) = of_type("delegating") else { continue };
        let read = || Some((text(line, "snapshot")?.parse().ok()?, text(line, "at")?.parse().ok()?));
        if let Some((snapshot, at)) = read() {
            let settled = of_type("delegated").is_some();
            pushes.push(PastPush { run, snapshot, at, settled });
        }
    }
    for push in &mut pushes {
        push.settled |= settled_later.contains(&push.run);
    }
    Ok(pushes)
}

fn lock(store: &Store) -> Result<Lock, Failure> {
    store.lock_retention().map_err(failed(Exit::Error))?.ok_or_else(|| {
        Failure::message(Exit::Locked, "another run prunes or pins the snapshots of this target")
            .hint("Wait until it has ended, then run again")
    })
}

pub(super) async fn pin(setting: &Setting, args: &PinArgs) -> Result<Exit, Failure> {
    close(setting, change_pin(setting, args, true).await)
}

pub(super) async fn unpin(setting: &Setting, args: &PinArgs) -> Result<Exit, Failure> {
    close(setting, change_pin(setting, args, false).await)
}

async fn change_pin(setting: &Setting, args: &PinArgs, pinned: bool) -> Result<Vec<String>, Failure> {
    let open::Known { store, .. } = open::known(setting, &args.target).await?;
    let _retention = lock(&store)?;
    let run = store::run_name((setting.clock)(), std::process::id());
    bucket::lock(&store, "retention", (setting, &run), &open::observers(setting)).await?;
    if !pinned {
        store.unpin_there(&args.id).await.map_err(|error| bucket::store_failed(&error))?;
    }
    let changed = if pinned { store.pin(&args.id, (setting.clock)()) } else { store.unpin(&args.id) };
    let changed = changed.map_err(|error| {
        Failure::new(Exit::Error, &error).hint("Run `supa-safe list` for the snapshots of this target")
    });
    let left = bucket::leave(setting, &store).await;
    let changed = changed?;
    left?;
    let id = &args.id;
    Ok(vec![match (pinned, changed) {
        (true, true) => format!("Pinned {id}: `supa-safe prune` keeps it until `supa-safe unpin {id}`"),
        (true, false) => format!("{id} is pinned already"),
        (false, true) => format!("Unpinned {id}: `supa-safe prune` decides about it again"),
        (false, false) => format!("{id} was not pinned"),
    }])
}
