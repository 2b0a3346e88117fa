//! `supa-safe status`, `list`, and `show`: what is there; nothing is taken or changed.

use super::fail::failed;
use super::open::{self, Known};
use super::{Setting, TargetArgs, evidence, snapshot_id};
use crate::event::Reached;
use crate::evidence::config::native_backups;
use crate::evidence::estimate::bytes_in_words;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::{Component, ComponentName, ComponentState, SnapshotId, Strength};
use crate::policy::{Facts, Finding, Policy, Rule, SnapshotFacts, in_words, judge};
use crate::rollback::choice::{Past, Unsettled};
use crate::store::{Snapshot, Standing, Store};
use crate::ui;
use crate::verify;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write as _};

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The snapshot; the newest one without it
    #[arg(value_parser = snapshot_id)]
    id: Option<SnapshotId>,
    #[command(flatten)]
    target: TargetArgs,
}

/// One snapshot in a list.
#[derive(Debug, Serialize)]
struct Row {
    id: SnapshotId,
    label: Option<String>,
    taken_at: Timestamp,
    strength: Strength,
    rows: u64,
    bytes: u64,
    /// Why the evidence cannot be used, when that shows without reading it all.
    broken: Vec<String>,
    /// Components that lack something.
    incomplete: Vec<ComponentName>,
    /// Components that were left out.
    left_out: Vec<ComponentName>,
}

#[derive(Debug, Serialize)]
struct List {
    schema: u32,
    target: String,
    folder: String,
    snapshots: Vec<Row>,
}

/// What to do when the newest snapshot does not hold.
const TAKES_ANOTHER: &str = "`supa-safe migrate` takes a fresh snapshot first; `supa-safe check` says what is wrong with the newest one";

/// What to do when a rollback was cut off.
const SETTLES: &str =
    "`supa-safe rollback` asks the server what became of that rollback, and finishes it or begins again";

/// What to do when a run did not tell that it ended its write pause.
const PAUSED: &str = "`supa-safe quiesce status` asks the target whether the pause still stands, and `supa-safe quiesce release` ends it";

/// Sorts after the name of every run.
const AFTER_ALL: &str = "~";

/// A snapshot's row, or why there is none.
type Listed = Result<Row, (SnapshotId, verify::Error)>;

/// Reads what every snapshot's record says; a damaged one is a row of its own kind.
fn rows(store: &Store) -> Result<Vec<Listed>, Failure> {
    let ids = store.ids().map_err(failed(Exit::Error))?;
    Ok(ids.into_iter().map(|id| row(store, &id).map_err(|error| (id, error))).collect())
}

fn row(store: &Store, id: &SnapshotId) -> Result<Row, verify::Error> {
    let snapshot = store.load(id)?;
    let standing = verify::glance(store, &snapshot)?;
    let manifest = &snapshot.manifest;
    let in_state = |state| {
        let components = manifest.components.iter().filter(move |component| component.state == state);
        components.map(|component| component.name).collect()
    };
    Ok(Row {
        id: id.clone(),
        label: manifest.label.clone(),
        taken_at: manifest.taken.target_clock,
        strength: standing.strength,
        rows: manifest.database.tables.iter().map(|table| table.count).sum(),
        bytes: manifest.files.iter().map(|file| file.bytes).sum(),
        incomplete: in_state(ComponentState::Incomplete),
        left_out: in_state(ComponentState::LeftOut),
        broken: standing.broken,
    })
}

pub(super) async fn list(setting: &Setting, args: &ListArgs) -> Result<Exit, Failure> {
    let Known { name, store, .. } = open::known(setting, &args.target).await?;
    let mut listed = List {
        schema: ui::SCHEMA,
        target: name,
        folder: store.root().display().to_string(),
        snapshots: Vec::new(),
    };
    let mut text = Vec::new();
    writeln!(text, "target {}", listed.target).map_err(failed(Exit::Error))?;
    for row in rows(&store)? {
        match row {
            Ok(row) => {
                writeln!(text, "{}", line(&row, (setting.clock)())).map_err(failed(Exit::Error))?;
                listed.snapshots.push(row);
            }
            Err((id, error)) => writeln!(text, "{id}  DAMAGED: {error}").map_err(failed(Exit::Error))?,
        }
    }
    if listed.snapshots.is_empty() {
        writeln!(text, "No snapshot of {}; `supa-safe snapshot` takes one", listed.target)
            .map_err(failed(Exit::Error))?;
    }
    print(setting, &listed, &text)
}

fn line(row: &Row, now: Timestamp) -> String {
    let age = in_words(now.duration_since(row.taken_at));
    let label = row.label.as_ref().map(|label| format!("  {label}")).unwrap_or_default();
    let said = |what: &str, list: String| {
        if list.is_empty() { String::new() } else { format!("  {what}: {list}") }
    };
    let names = |components: &[ComponentName]| {
        components.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let incomplete = said("INCOMPLETE", names(&row.incomplete));
    let left_out = said("without", names(&row.left_out));
    let broken = said("DAMAGED", row.broken.join("; "));
    format!(
        "{}  {:<9}  {} rows, {}, {age} ago{label}{incomplete}{left_out}{broken}",
        row.id,
        row.strength.as_str(),
        row.rows,
        bytes_in_words(row.bytes)
    )
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    schema: u32,
    folder: String,
    strength: Strength,
    broken: Vec<String>,
    limits: Vec<String>,
    manifest: &'a crate::manifest::Manifest,
}

pub(super) async fn show(setting: &Setting, args: &ShowArgs) -> Result<Exit, Failure> {
    let Known { store, .. } = open::known(setting, &args.target).await?;
    let snapshot = open::pick(&store, args.id.as_ref()).map_err(|broken| broken.failure)?;
    let standing = verify::glance(&store, &snapshot).map_err(failed(Exit::Error))?;
    let manifest = &snapshot.manifest;
    let mut text = Vec::new();
    let mut limits = manifest.limits.clone();
    limits.extend(standing.limits.clone());
    write_snapshot(&mut text, &snapshot, &standing, &limits).map_err(failed(Exit::Error))?;
    let shown = Shown {
        schema: ui::SCHEMA,
        folder: snapshot.dir.display().to_string(),
        strength: standing.strength,
        broken: standing.broken,
        limits,
        manifest,
    };
    print(setting, &shown, &text)
}

fn write_snapshot(
    text: &mut Vec<u8>,
    snapshot: &Snapshot,
    standing: &Standing,
    limits: &[String],
) -> io::Result<()> {
    let manifest = &snapshot.manifest;
    writeln!(text, "snapshot   {}", manifest.id)?;
    if let Some(label) = &manifest.label {
        writeln!(text, "label      {label}")?;
    }
    writeln!(text, "target     {} (Postgres {})", manifest.identity.name, manifest.server.version())?;
    writeln!(
        text,
        "identity   system {}, database {}",
        manifest.identity.system_identifier, manifest.identity.database_oid
    )?;
    writeln!(text, "taken at   {} by the target's clock", manifest.taken.target_clock)?;
    writeln!(text, "strength   {}", standing.strength)?;
    for broken in &standing.broken {
        writeln!(text, "DAMAGED    {broken}")?;
    }
    writeln!(text, "folder     {}", snapshot.dir.display())?;
    writeln!(text, "archive    {}", bytes_in_words(manifest.database.archive_bytes))?;
    writeln!(text, "history    {} migrations", manifest.database.history.len())?;
    for component in &manifest.components {
        if let Some(line) = component_line(component) {
            writeln!(text, "{:<9}  {line}", component.name.as_str())?;
        }
    }
    if let Some(backups) = native_backups(snapshot) {
        writeln!(text, "native     backups: {backups}")?;
        writeln!(
            text,
            "           named restore points stand in the dashboard: supabase has no command for them"
        )?;
    }
    writeln!(text, "tables")?;
    let (empty, filled): (Vec<_>, Vec<_>) =
        manifest.database.tables.iter().partition(|table| table.count == 0);
    for table in filled {
        writeln!(text, "  {:>12}  {}", table.count, table.qualified())?;
    }
    if !empty.is_empty() {
        writeln!(text, "  {:>12}  and {} empty tables", 0, empty.len())?;
    }
    for limit in limits {
        writeln!(text, "limit      {limit}")?;
    }
    Ok(())
}

fn component_line(component: &Component) -> Option<String> {
    match component.state {
        ComponentState::Complete => Some(component.summary.clone()),
        ComponentState::Incomplete => Some(format!("INCOMPLETE: {}", component.missing.join("; "))),
        ComponentState::LeftOut => Some("left out".to_owned()),
        ComponentState::NotApplicable => None,
    }
}

#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    target: String,
    snapshot: Option<Row>,
    age_seconds: Option<i64>,
    max_age_seconds: i64,
    required_strength: Strength,
    /// The run whose rollback was not told to its end, and nobody has asked the server yet how it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsettled_rollback: Option<String>,
    /// How far that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    unsettled_step: Option<Reached>,
    /// The run that paused writes to the target, and did not tell that it ended that.
    #[serde(skip_serializing_if = "Option::is_none")]
    paused_by: Option<String>,
    next: String,
}

/// The last run on record that paused writes, when none since ended that.
pub(super) fn paused_by(store: &Store) -> Result<Option<String>, Failure> {
    let types = ["writes-pausing", "writes-released"];
    let last = store.last_run_with(&types, AFTER_ALL).map_err(failed(Exit::Error))?;
    let is_of = |event: &Value| types.iter().any(|name| event["type"] == *name);
    Ok(last.and_then(|(run, events)| {
        let last = events.iter().rfind(|event| is_of(event))?;
        // What is left of one says so itself.
        let stands =
            last["type"] == "writes-pausing" || last["left"].as_array().is_some_and(|left| !left.is_empty());
        stands.then_some(run)
    }))
}

pub(super) async fn status(setting: &Setting, args: &StatusArgs) -> Result<Exit, Failure> {
    let Known { name, policy, store, .. } = open::known(setting, &args.target).await?;
    let mut rows = rows(&store)?.into_iter();
    // One whose record cannot be read is set aside, and a fresh one is taken.
    let (newest, is_readable) = match rows.next() {
        Some(Ok(row)) => (Some(row), true),
        Some(Err(_)) => (rows.find_map(Result::ok), false),
        None => (None, true),
    };
    let now = (setting.clock)();
    let age = newest.as_ref().map(|row| now.duration_since(row.taken_at));
    let past = Past::read(store.earlier_runs(AFTER_ALL).map_err(failed(Exit::Error))?);
    let unsettled = past.unsettled;
    let paused_by = paused_by(&store)?;
    let next = match &newest {
        _ if paused_by.is_some() => PAUSED,
        _ if unsettled.is_some() => SETTLES,
        None => {
            "`supa-safe migrate` takes a snapshot, rehearses, and pushes; `supa-safe snapshot` only takes one"
        }
        Some(_) if !is_readable => TAKES_ANOTHER,
        Some(row) => next(&refusals(&store, &policy, row, now)?),
    };
    let mut text = Vec::new();
    let mut write = || -> io::Result<()> {
        writeln!(text, "target    {name}")?;
        match &newest {
            None => writeln!(text, "snapshot  none")?,
            Some(row) => writeln!(text, "snapshot  {}", line(row, (setting.clock)()))?,
        }
        if let Some(Unsettled { run, reached, .. }) = &unsettled {
            let stopped = reached.map(|reached| format!(": its record ends {}", reached.in_words()));
            let stopped = stopped.unwrap_or_default();
            writeln!(text, "rollback  run {run} did not tell its rollback to the end{stopped}")?;
        }
        if let Some(run) = &paused_by {
            writeln!(
                text,
                "pause     run {run} paused writes to the target, and did not tell that it ended that"
            )?;
        }
        writeln!(text, "policy    at most {} old, at least {}", in_words(policy.max_age), policy.strength)?;
        writeln!(text, "next      {next}")
    };
    write().map_err(failed(Exit::Error))?;
    let status = Status {
        schema: ui::SCHEMA,
        target: name,
        snapshot: newest,
        age_seconds: age.map(|age| age.as_secs()),
        max_age_seconds: policy.max_age.as_secs(),
        required_strength: policy.strength,
        unsettled_step: unsettled.as_ref().and_then(|unsettled| unsettled.reached),
        paused_by,
        unsettled_rollback: unsettled.map(|unsettled| unsettled.run),
        next: next.to_owned(),
    };
    print(setting, &status, &text)
}

/// The rules that a snapshot's records do not satisfy, by this machine's clock.
fn refusals(store: &Store, policy: &Policy, row: &Row, now: Timestamp) -> Result<Vec<Finding>, Failure> {
    let snapshot = store.load(&row.id).map_err(failed(Exit::Error))?;
    let broken = row.broken.clone();
    let facts = SnapshotFacts { broken, ..evidence::recorded_facts(store, &snapshot, row.strength)? };
    let facts = Facts {
        target: snapshot.manifest.identity,
        snapshot: Some(facts),
        edited: Vec::new(),
        sessions: Vec::new(),
        push: None,
    };
    Ok(judge(&evidence::before_rehearsal(policy), &facts, now)
        .into_iter()
        .filter(|finding| finding.refuses)
        .collect())
}

/// What to do next with the newest snapshot.
fn next(refusals: &[Finding]) -> &'static str {
    if refusals.is_empty() {
        return "`supa-safe migrate` pushes on the strength of this snapshot";
    }
    if refusals.iter().all(|finding| finding.rule == Rule::SecretsNotConfirmed) {
        return "`supa-safe secrets confirm`; then `supa-safe migrate` pushes on the strength of this snapshot";
    }
    TAKES_ANOTHER
}

fn print<T: Serialize>(setting: &Setting, document: &T, text: &[u8]) -> Result<Exit, Failure> {
    let printed = if setting.global.json {
        ui::print_document(document)
    } else {
        ui::print(&String::from_utf8_lossy(text))
    };
    printed.map_err(failed(Exit::Error))?;
    Ok(Exit::Done)
}
