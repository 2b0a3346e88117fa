//! Proves a push before it happens: restores the snapshot into a scratch, compares, applies the
//! pending files with the real CLI, and records what they did.

pub mod apply;
pub mod compare;
pub mod record;
pub mod restore;
pub mod rollback;

use crate::context::Context;
use crate::event::{Event, Stage};
use crate::fingerprint::Fingerprint;
use crate::frozen::Frozen;
use crate::left_out::LeftOut;
use crate::manifest::{Content, Strength};
use crate::migration::Pending;
use crate::postgres::{catalog, checks, rows};
use crate::scratch;
use crate::store;
use crate::target::Target;
use crate::tools::supabase::Supabase;
use crate::verify::Verified;
use apply::Applied;
use compare::Equal;
use record::{Key, Record};
use restore::Restored;
use std::collections::BTreeMap;

/// Why there is no rehearsal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot could not be restored.
    #[error(transparent)]
    Restore(#[from] restore::Error),
    /// The copy is not equal to the snapshot, or could not be compared.
    #[error(transparent)]
    Compare(#[from] compare::Error),
    /// The pending files could not be applied, or failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The way back could not be rehearsed.
    #[error(transparent)]
    Rollback(#[from] rollback::Error),
    /// The user's own checks fail on the copy after the push.
    #[error("after the push the copy is not healthy: {}", .0.join("; "))]
    Checks(Vec<String>),
    /// The CLI said that it was done, and the history says something else.
    #[error("the push to the copy said that it was done, but left {} unapplied", .0.join(", "))]
    History(Vec<String>),
    /// The scratch server failed.
    #[error("the rehearsal was not finished: its server is gone")]
    Scratch(#[from] scratch::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read or written.
    #[error("cannot keep the rehearsal")]
    Io(#[from] std::io::Error),
}

/// The push that is rehearsed, and later delegated.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Where to.
    pub target: &'a Target,
    /// The frozen copy of the project.
    pub frozen: &'a Frozen,
    /// What would run.
    pub pending: &'a Pending,
    /// The CLI that runs it.
    pub cli: &'a Supabase,
}

impl Subject<'_> {
    /// The pending files that a history holds, and those that it does not.
    pub fn applied(&self, history: &[String]) -> (Vec<String>, Vec<String>) {
        let files = self.pending.migrations.iter();
        let (applied, not): (Vec<_>, Vec<_>) = files.partition(|file| history.contains(&file.version));
        let names = |files: Vec<&crate::migration::MigrationFile>| {
            files.into_iter().map(|file| file.file_name.clone()).collect()
        };
        (names(applied), names(not))
    }

    /// What a rehearsal of this push is known by.
    pub fn key(&self, base: &Verified) -> Key {
        Key {
            owned_digest: base.snapshot().manifest.database.owned_digest.clone(),
            pending_digest: self.pending.digest(),
            checks_digest: self.frozen.checks_digest(),
            cli: format!("{} {}", self.cli.version, self.cli.sha256),
            server_version: self.target.server.version_num,
        }
    }
}

/// A rehearsal that passed; only this module makes one.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    record: Record,
}

impl Rehearsed {
    /// What it proved.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// What an earlier rehearsal is worth for this push.
#[derive(Clone, Debug)]
pub enum Recalled {
    /// It stands for this push.
    Fits(Box<Rehearsed>),
    /// There is one of the same schema, but of other files.
    OtherFiles,
    /// There is none that fits, and why.
    Not(String),
}

/// Looks for an earlier rehearsal of the same push on the same shape.
///
/// When a pending file depends on rows, the rows must be the same as well; when the settings insist on
/// a container, it ran in one.
pub fn recall(base: &Verified, subject: &Subject<'_>, context: &Context) -> Result<Recalled, Error> {
    let key = subject.key(base);
    let Some(record) = Record::load(&context.store, &key)? else {
        if Record::any_of_other_files(&context.store, &key)? {
            return Ok(Recalled::OtherFiles);
        }
        return Ok(Recalled::Not("no rehearsal of these files on this schema is on record".to_owned()));
    };
    if let Some(why) = record.engine.unfit(&context.scratch) {
        return Ok(Recalled::Not(why));
    }
    if let Some(dependence) = record.dependences.first()
        && record.rows_digest != record::rows_digest(&base.snapshot().manifest)
    {
        return Ok(Recalled::Not(format!("rows changed since, and {dependence}")));
    }
    Ok(Recalled::Fits(Box::new(Rehearsed { record })))
}

/// Proves a snapshot by restoring it into a scratch and comparing everything.
pub async fn prove(base: Verified, context: &Context) -> Result<Verified, Error> {
    let (base, restored, _) = restore_and_compare(base, context).await?;
    restored.scratch.stop().await?;
    Ok(base)
}

/// Rehearses a push on a restored copy.
pub async fn rehearse(
    base: Verified,
    subject: &Subject<'_>,
    context: &Context,
) -> Result<(Verified, Rehearsed), Error> {
    let (base, mut restored, equal) = restore_and_compare(base, context).await?;
    match Box::pin(on_copy(&base, subject, (&restored, &equal), context)).await {
        Ok(record) => {
            restored.scratch.stop().await?;
            record.save(&context.store)?;
            Ok((base, Rehearsed { record }))
        }
        Err(error) => Err(restored.scratch.died().await.map_or(error, Error::Scratch)),
    }
}

/// Applies the pending files to the copy, and takes them back.
async fn on_copy(
    base: &Verified,
    subject: &Subject<'_>,
    (restored, equal): (&Restored, &Equal),
    context: &Context,
) -> Result<Record, Error> {
    let fresh = rollback::contents(restored, base.snapshot(), context).await?;
    let watch = context.stage(
        Stage::Rehearse,
        format!("apply {} to the copy with supabase {}", subject.pending.in_words(), subject.cli.version),
    );
    let mut applied = apply::apply(restored, subject, context).await?;
    let (_, missing) = subject.applied(&applied.history);
    if !missing.is_empty() {
        return Err(Error::History(missing));
    }
    let after = look_again(restored, subject, equal, &mut applied).await?;
    watch.done(format!("{} applied to the copy", subject.pending.in_words()));
    for effect in &applied.effects {
        context.tell(&Event::FileRehearsed(effect.clone()));
    }
    let translation = rollback::translation(restored, base.snapshot(), &fresh, context).await?;
    let touched = rollback::touched(restored, base.snapshot(), &applied.effects).await?;
    let pushed = rollback::Pushed {
        snapshot: base.snapshot(),
        translation: &translation,
        applied: &applied,
        touched: touched.as_ref(),
        before: &equal.fingerprint,
        after: &after,
    };
    let rollbacks = take_back(restored, subject, pushed, context).await?;
    let limits = limits(restored, equal, &applied, touched.is_some());
    Ok(Record {
        format: record::FORMAT,
        key: subject.key(base),
        rehearsed_at: (context.clock)(),
        snapshot: base.snapshot().id().clone(),
        rows_digest: record::rows_digest(&base.snapshot().manifest),
        contents_digest: base.snapshot().manifest.database.contents_digest.clone(),
        dependences: record::dependences(subject.pending),
        history: applied.history,
        fingerprint: after.to_text(),
        engine: restored.ran.clone(),
        left_out: restored.left_out.clone(),
        restore_seconds: restored.seconds,
        push_seconds: applied.seconds,
        limits,
        effects: applied.effects,
        besides: applied.besides,
        storage: touched,
        rollbacks,
    })
}

/// What was not proved.
fn limits(restored: &Restored, equal: &Equal, applied: &Applied, knows_storage: bool) -> Vec<String> {
    let mut limits = of_copy(&restored.left_out, equal);
    limits.extend_from_slice(restored.scratch.limits());
    limits.extend(applied.superuser.clone());
    if rollback::writes_storage(&applied.effects) && !knows_storage {
        limits.push(
            "the push changes rows of Storage, and the snapshot holds no Storage to take them back to"
                .to_owned(),
        );
    }
    limits
}

/// What a copy is not, or is not as it was.
fn of_copy(left_out: &LeftOut, equal: &Equal) -> Vec<String> {
    let refreshed = equal.refreshed.iter().map(|view| {
        format!(
            "materialized view {view} held other rows than it does when refreshed: a restore refreshes it"
        )
    });
    left_out.limits().into_iter().chain(refreshed).collect()
}

/// Rehearses the rollback, and tells how it went.
async fn take_back(
    restored: &Restored,
    subject: &Subject<'_>,
    pushed: rollback::Pushed<'_>,
    context: &Context,
) -> Result<Vec<rollback::Rehearsed>, Error> {
    let watch = context.stage(Stage::Rehearse, "take the copy back to the snapshot");
    let rollbacks = rollback::rehearse(restored, subject, pushed, context).await?;
    let exact: Vec<String> = rollbacks
        .iter()
        .filter(|rehearsed| rehearsed.failed.is_none())
        .map(|rehearsed| format!("{} in {:.1} s", rehearsed.mode.as_str(), rehearsed.seconds))
        .collect();
    for (mode, why) in rollbacks.iter().filter_map(|one| Some((one.mode, one.failed.as_ref()?))) {
        context.note(format!("rollback --mode {} is not exact here: {why}", mode.as_str()));
    }
    watch.done(if exact.is_empty() {
        "no rollback gives the snapshot back".to_owned()
    } else {
        format!("the rollback is exact: {}", exact.join(", "))
    });
    Ok(rollbacks)
}

/// Restores, compares, and records the proof.
async fn restore_and_compare(
    base: Verified,
    context: &Context,
) -> Result<(Verified, Restored, Equal), Error> {
    let snapshot = base.snapshot();
    let chosen = Box::pin(restore::choose(snapshot, context)).await?;
    let watch =
        context.stage(Stage::Rehearse, format!("restore snapshot {} into a scratch server", snapshot.id()));
    let mut restored = Box::pin(restore::restore(snapshot, chosen, context)).await?;
    let equal = match compare::compare(snapshot, &restored, context).await {
        Ok(equal) => equal,
        Err(error) => return Err(restored.scratch.died().await.map_or(error.into(), Error::Scratch)),
    };
    watch.done("the copy is equal to the snapshot");
    let limits = of_copy(&restored.left_out, &equal);
    for limit in &limits {
        context.note(limit.clone());
    }
    let base = base.strengthen(context, Strength::Restored, None, limits)?;
    Ok((base, restored, equal))
}

/// The copy after the push: the user's checks, the fingerprint, and which columns changed.
async fn look_again(
    restored: &Restored,
    subject: &Subject<'_>,
    before: &Equal,
    applied: &mut Applied,
) -> Result<Fingerprint, Error> {
    let connection = restored.scratch.superuser_connection(&restored.database);
    let session = compare::open(&connection).await.map_err(Error::Compare)?;
    let fingerprint =
        catalog::fingerprint(&session.client).await.map_err(|error| Error::Compare(error.into()))?;
    let names = compare::table_columns(&session).await?;
    for table in applied.effects.iter_mut().flat_map(|effect| &mut effect.tables) {
        if table.updated == 0 {
            continue;
        }
        if let Some(columns) = names.get(&table.table) {
            table.columns = changed_columns(&session.client, &table.table, columns, &before.columns)
                .await
                .map_err(|error| Error::Compare(error.into()))?;
        }
    }
    session.client.batch_execute("rollback").await.map_err(|error| Error::Compare(error.into()))?;
    let found = checks::run(&session.client, subject.target.connection.role(), subject.frozen.checks())
        .await
        .map_err(|error| Error::Compare(error.into()))?;
    session.close().await;
    let ill: Vec<String> =
        found.iter().filter(|found| !found.is_healthy()).map(checks::Found::in_words).collect();
    if ill.is_empty() { Ok(restored.left_out.comparable(&fingerprint)) } else { Err(Error::Checks(ill)) }
}

async fn changed_columns(
    client: &tokio_postgres::Client,
    table: &str,
    columns: &[String],
    before: &BTreeMap<String, BTreeMap<String, String>>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let Some(known) = before.get(table) else { return Ok(Vec::new()) };
    let measured = rows::measure_named(client, table, columns).await?;
    if matches!(measured.content, Content::Unhashed(_)) {
        return Ok(Vec::new());
    }
    let sums = columns.iter().zip(&measured.columns);
    Ok(sums
        .filter(|(column, sum)| known.get(*column) != Some(*sum))
        .map(|(column, _)| column.clone())
        .collect())
}
