//! Rehearses the way back: the copy that was pushed to is taken back to the snapshot with the code
//! that `rollback` runs on a target, in every mode, and nothing of it is committed.

use super::Subject;
use super::apply::Applied;
use super::restore::Restored;
use crate::archive::Contents;
use crate::context::Context;
use crate::effect::{FileEffect, TableEffect};
use crate::evidence::estimate::bytes_in_words;
use crate::failure;
use crate::fingerprint::{Class, Difference, Fingerprint, is_platform_role};
use crate::manifest::quote_identifier;
use crate::plan::event_trigger_owners;
use crate::postgres::{catalog, connect};
use crate::rollback::storage::{self, Wanted};
use crate::rollback::{self, Locks, Mode, Task, Translation};
use crate::salvage::{self, Probing, Removal, Saved, Touched};
use crate::store::Snapshot;
use crate::tools::installs::{self, Installation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use tokio_postgres::Client;

impl Objects {
    /// What goes back, for people.
    pub fn in_words(&self) -> String {
        let Self { objects, buckets, withdrawn, bytes_at_most } = *self;
        let minutes = match salvage::minutes(objects, bytes_at_most) {
            1 => "a minute".to_owned(),
            minutes => format!("{minutes} minutes"),
        };
        format!(
            "rows of {objects} objects and {buckets} buckets go back, {withdrawn} that it added go; \
             at most {} are uploaded, {minutes}",
            bytes_in_words(bytes_at_most)
        )
    }
}

/// Why the way back could not be rehearsed at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No fitting programs.
    #[error(transparent)]
    Installs(#[from] installs::Error),
    /// No session on the scratch.
    #[error("cannot connect to the scratch server")]
    Connect(#[from] connect::Error),
    /// The copy could not be read.
    #[error("the rollback cannot be rehearsed")]
    Rollback(#[from] rollback::Error),
    /// What was done to the rows of Storage could not be read.
    #[error("the rollback of Storage cannot be rehearsed")]
    Storage(#[from] salvage::Error),
}

/// What the rehearsal of one mode found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsed {
    /// How much went back.
    pub mode: Mode,
    /// Tables that were made again.
    pub tables: Vec<String>,
    /// Seconds from the first lock to the proof: nobody reads these tables meanwhile.
    pub seconds: f64,
    /// Locks that it held at its end.
    pub locks: Locks,
    /// What goes back of Storage, when the push wrote to its rows.
    pub storage: Option<Objects>,
    /// What of this push it does not bring back, or was not seen to, beside [`rollback::LIMITS`].
    pub limits: Vec<String>,
    /// Why the copy was not as in the snapshot afterwards, if it was not.
    pub failed: Option<String>,
}

impl Rehearsed {
    /// What it would not bring back, for people: of this push first.
    pub fn not_back(&self) -> Vec<String> {
        self.limits.iter().cloned().chain(rollback::LIMITS.map(str::to_owned)).collect()
    }
}

/// Rows of Storage that went back on the copy. Bytes are counted: a copy has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    /// Objects.
    pub objects: u64,
    /// Buckets.
    pub buckets: u64,
    /// Rows and buckets that the push added, which go unless somebody put something in.
    pub withdrawn: u64,
    /// Bytes that are uploaded at most, where the API removed what SQL did.
    pub bytes_at_most: u64,
}

/// What the copy holds, with the ids that it has there.
pub(super) async fn contents(
    restored: &Restored,
    snapshot: &Snapshot,
    context: &Context,
) -> Result<Contents, Error> {
    let clients = clients_for(snapshot, context)?;
    let connection = restored.scratch.superuser_connection(&restored.database);
    Ok(rollback::contents(&connection, clients, restored.scratch.dir()).await?)
}

/// The ids that the copy has for the objects of the archive, after a push; `fresh` is what it held before.
pub(super) async fn translation(
    restored: &Restored,
    snapshot: &Snapshot,
    fresh: &Contents,
    context: &Context,
) -> Result<Translation, Error> {
    let now = contents(restored, snapshot, context).await?;
    Ok(Translation::of_copy(&rollback::recorded_contents(snapshot)?, fresh, &now))
}

fn clients_for<'a>(snapshot: &Snapshot, context: &'a Context) -> Result<&'a Installation, installs::Error> {
    installs::client_for(snapshot.manifest.client_major(), &context.machine.installations)
}

/// The user's tables in which rows were written, or would have been had there been any. TRUNCATE counts no row: it gives a table another file
/// (PostgreSQL documentation, `TRUNCATE`), as does a type that is changed with USING.
pub fn written_tables(effects: &[FileEffect]) -> Vec<String> {
    let written = effects.iter().flat_map(|effect| &effect.tables);
    let mut names: Vec<String> = written
        .filter(|table| table.is_changed() || table.reached)
        .map(|table| table.table.clone())
        .filter(|table| is_owned(table))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The history of migrations is not dropped for the few rows that go; what the CLI keeps of seeds beside it is
/// a table like others.
fn is_owned(table: &str) -> bool {
    let (schema, name) = table.split_once('.').unwrap_or(("", table));
    // In schema `extensions` the closure knows whose a table is.
    (Class::of_rows(schema, name) == Class::Owned || schema == "extensions")
        && table != "supabase_migrations.schema_migrations"
}

/// Whether rows of accounts were written, or would have been had there been any.
pub fn writes_accounts(effects: &[FileEffect]) -> bool {
    let mut tables = effects.iter().flat_map(|effect| &effect.tables);
    tables.any(|table| (table.is_changed() || table.reached) && table.table.starts_with("auth."))
}

/// Whether rows of Storage were written.
pub fn writes_storage(effects: &[FileEffect]) -> bool {
    tables_of_storage(effects).any(TableEffect::is_changed)
}

/// Whether rows of Storage were written, or would have been had there been any.
pub fn reaches_storage(effects: &[FileEffect]) -> bool {
    tables_of_storage(effects).next().is_some()
}

fn tables_of_storage(effects: &[FileEffect]) -> impl Iterator<Item = &TableEffect> {
    let is_meant = |table: &&TableEffect| {
        (table.is_changed() || table.reached)
            && ["storage.objects", "storage.buckets"].contains(&table.table.as_str())
    };
    effects.iter().flat_map(|effect| &effect.tables).filter(is_meant)
}

/// What the push did to the rows of Storage on the copy; nothing where no index tells what they were.
pub(super) async fn touched(
    restored: &Restored,
    snapshot: &Snapshot,
    effects: &[FileEffect],
) -> Result<Option<Touched>, Error> {
    let index = snapshot.storage_index();
    if !writes_storage(effects) || !index.exists() {
        return Ok(None);
    }
    let session = connect::read_only(&restored.scratch.superuser_connection(&restored.database)).await?;
    let touched = salvage::touched(&session.client, &index).await?;
    session.close().await;
    Ok(Some(touched))
}

/// What is taken back on the copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pushed<'a> {
    /// The snapshot that was restored.
    pub(super) snapshot: &'a Snapshot,
    /// The copy's ids.
    pub(super) translation: &'a Translation,
    /// What the push did.
    pub(super) applied: &'a Applied,
    /// What it did to the rows of Storage.
    pub(super) touched: Option<&'a Touched>,
    /// What was there before it, as far as the copy can hold it.
    pub(super) before: &'a Fingerprint,
    /// What it left.
    pub(super) after: &'a Fingerprint,
}

/// The rows of Storage that go back on the copy, and how many.
async fn objects(
    client: &Client,
    pushed: &Pushed<'_>,
    mode: Mode,
) -> Result<Option<(Saved, Objects)>, salvage::Error> {
    let Some(touched) = pushed.touched else { return Ok(None) };
    let (removal, probing) = (Removal::Keep, Probing::Changed);
    let wanted = Wanted { mode, touched: Some(touched), removal, probing };
    let plan = storage::foresee(client, pushed.snapshot, wanted).await?;
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let objects = Objects {
        objects: count(plan.items.len() + plan.merged.len()),
        buckets: count(plan.buckets.iter().filter(|one| one.is_missing || one.is_changed).count()),
        withdrawn: count(plan.withdrawn.len() + plan.withdrawn_buckets.len()),
        bytes_at_most: plan.bytes_at_most(),
    };
    Ok(Some((salvage::foresee(plan), objects)))
}

/// What taking the copy back showed.
struct Back {
    proved: rollback::Proved,
    locks: Locks,
    storage: Option<Objects>,
    /// What the push did to the platform's, and stays.
    platform: Vec<Difference>,
}

/// Takes the copy back, in a transaction that is left open.
async fn bring_back(client: &Client, task: &Task<'_>, pushed: &Pushed<'_>) -> Result<Back, rollback::Error> {
    let storage = objects(client, pushed, task.mode).await?;
    let saved = storage.as_ref().map(|(saved, _)| saved);
    let proved = rollback::bring_back(client, &Task { storage: saved, ..*task }).await?;
    let locks = Locks::of(client).await?;
    // Nobody else writes here.
    rollback::proved_besides(client, task, &proved).await?;
    if let Some(saved) = saved {
        let index = pushed.snapshot.storage_index();
        let wrong = salvage::not_as_before(client, saved, &index).await?;
        if !wrong.is_empty() {
            return Err(rollback::Error::NotExact(wrong));
        }
    }
    let now = task.left_out.comparable(&catalog::fingerprint(client).await?);
    let platform = pushed.before.differences(&now, Class::Platform);
    Ok(Back { proved, locks, storage: storage.map(|(_, objects)| objects), platform })
}

/// Roles that may sign in and that the push drops.
pub fn dropped_logins(recorded: &Fingerprint, after: &Fingerprint) -> Vec<String> {
    let differences = recorded.differences(after, Class::Owned).into_iter();
    let dropped = differences.filter(|difference| difference.kind == "role" && difference.after.is_none());
    let may_sign_in = |definition: &Option<String>| {
        let fields: Option<Value> = definition.as_deref().and_then(|text| serde_json::from_str(text).ok());
        fields.is_some_and(|fields| fields["login"] == Value::Bool(true))
    };
    dropped.filter(|role| may_sign_in(&role.before)).map(|role| role.identity).collect()
}

/// What of this push does not come back, or was not seen to, in words.
fn limits(pushed: &Pushed<'_>, recorded: &Fingerprint, back: &Back) -> Vec<String> {
    let mut limits = back.proved.references.clone();
    let (shown, more) = back.platform.split_at(back.platform.len().min(SHOWN));
    limits.extend(shown.iter().map(|difference| {
        format!("of the platform's, as the push leaves it: {} {}", difference.kind, difference.identity)
    }));
    if !more.is_empty() {
        limits.push(format!("{} more of the platform's", more.len()));
    }
    let logins = dropped_logins(recorded, pushed.after).into_iter();
    limits.extend(logins.map(|role| format!("the password of role {role}, which the push drops")));
    for rows in &pushed.applied.besides.managed {
        if !rows.changed.is_empty() {
            let columns: BTreeSet<&str> =
                rows.changed.iter().flat_map(|change| &change.columns).map(String::as_str).collect();
            let columns: Vec<&str> = columns.into_iter().collect();
            limits.push(format!(
                "what users write after the push to {} of accounts that it changed ({}): it is kept in a file",
                columns.join(", "),
                rows.table
            ));
        }
        if rows.table == "auth.users" && !rows.gone.is_empty() {
            limits.push(format!("sessions of the {} accounts that the push deletes", rows.gone.len()));
        }
    }
    if back.storage.is_some() {
        limits.push(BYTES.to_owned());
    }
    limits
}

/// Makes roles superusers, or takes that from them.
async fn raise(restored: &Restored, roles: &[String], word: &str) -> Result<(), rollback::Error> {
    if roles.is_empty() {
        return Ok(());
    }
    let statements: Vec<String> =
        roles.iter().map(|role| format!("alter role {} {word}", quote_identifier(role))).collect();
    let session = connect::writable(&restored.scratch.superuser_connection(&restored.database)).await?;
    let outcome = session.client.batch_execute(&statements.join("; ")).await;
    session.close().await;
    Ok(outcome?)
}

/// Said of a rehearsal, and of no rollback.
pub const BYTES: &str = "bytes of Storage were counted and not brought back: the copy has none";
/// Differences that are named.
const SHOWN: usize = 10;

/// Takes the copy back in a session that ends, and with it the transaction, while these roles are superusers.
async fn try_to_bring_back(
    restored: &Restored,
    (task, pushed): (&Task<'_>, &Pushed<'_>),
    raised: &[String],
) -> Result<Back, rollback::Error> {
    raise(restored, raised, "superuser").await?;
    let session = connect::writable(&restored.scratch.superuser_connection(&restored.database)).await?;
    let outcome = bring_back(&session.client, task, pushed).await;
    session.close().await;
    raise(restored, raised, "nosuperuser").await?;
    let mut back = outcome?;
    back.platform.retain(|difference| !raised.contains(&difference.identity));
    Ok(back)
}

/// Roles of the platform that own event triggers, which its own library lets them. They are raised where a
/// rollback fails without it, and only there: what a superuser grants is granted by the owner.
fn owners_of_event_triggers(snapshot: &Snapshot) -> Result<Vec<String>, rollback::Error> {
    let contents = rollback::recorded_contents(snapshot)?;
    let mut owners = event_trigger_owners(&contents, &snapshot.manifest.server.bootstrap_role);
    owners.retain(|owner| is_platform_role(owner));
    Ok(owners)
}

/// Takes the copy back in both modes.
pub(super) async fn rehearse(
    restored: &Restored,
    subject: &Subject<'_>,
    pushed: Pushed<'_>,
    context: &Context,
) -> Result<Vec<Rehearsed>, Error> {
    let Pushed { snapshot, translation, applied, .. } = pushed;
    let clients = clients_for(snapshot, context)?;
    let tables = written_tables(&applied.effects);
    let versions: Vec<String> = subject.pending.migrations.iter().map(|file| file.version.clone()).collect();
    let recorded = snapshot.database_file("fingerprint.tsv");
    let recorded = fs_err::read_to_string(recorded).map_err(rollback::Error::Io)?;
    let recorded = Fingerprint::from_text(&recorded).map_err(rollback::Error::Fingerprint)?;
    let recorded = restored.left_out.comparable(&recorded);
    let owners = owners_of_event_triggers(snapshot)?;
    let mut found = Vec::new();
    for mode in [Mode::Touched, Mode::Whole] {
        let task = Task {
            snapshot,
            mode,
            tables: &tables,
            besides: &applied.besides,
            versions: &versions,
            clients,
            left_out: &restored.left_out,
            translation,
            storage: None,
            patience: rollback::PATIENCE,
            keep_in: None,
        };
        let mut outcome = try_to_bring_back(restored, (&task, &pushed), &[]).await;
        if outcome.is_err() && !owners.is_empty() {
            outcome = try_to_bring_back(restored, (&task, &pushed), &owners).await;
        }
        found.push(match outcome {
            Ok(back) => Rehearsed {
                mode,
                limits: limits(&pushed, &recorded, &back),
                tables: back.proved.tables,
                seconds: back.proved.seconds,
                locks: back.locks,
                storage: back.storage,
                failed: None,
            },
            Err(error) => Rehearsed {
                mode,
                tables: Vec::new(),
                seconds: 0.0,
                locks: Locks::default(),
                storage: None,
                limits: Vec::new(),
                failed: Some(failure::chain(&error).join(": ")),
            },
        });
    }
    Ok(found)
}
