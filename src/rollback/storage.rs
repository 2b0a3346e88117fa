//! Storage around the transaction: saved before it, its rows within it, its bytes after it.

use super::run::NotDone;
use super::{Accounts, Error, Mode, Proved};
use crate::context::Context;
use crate::postgres::connect;
use crate::salvage::{self, Plan, Probing, Reach, Removal, Saved, Scope, Touched};
use crate::store::Snapshot;
use crate::target::Target;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// What was done about the objects of Storage, and what was not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Objects {
    /// Objects that were brought back to their places.
    pub moved: u64,
    /// Objects that were uploaded.
    pub uploaded: u64,
    /// Objects whose bytes were there.
    pub found: u64,
    /// Objects and buckets that the snapshot does not have and that were removed, in words.
    pub removed: Vec<String>,
    /// Objects that the snapshot does not have, that would go if it were asked for, and that stay.
    pub added: u64,
    /// What differs from the snapshot by other hands than the migration's and stays: how many objects
    /// were overwritten, moved, removed, altered, added.
    pub stays: BTreeMap<&'static str, u64>,
    /// Live objects that were written over and kept first.
    pub saved: u64,
    /// What is not as in the snapshot, in words.
    pub left: Vec<String>,
}

/// Which objects go back.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How much.
    pub mode: Mode,
    /// What the migration did to the rows, where a rehearsal is on record.
    pub touched: Option<&'a Touched>,
    /// Whether what was added goes.
    pub removal: Removal,
}

/// Looks at every object, and says what would be done. Nothing changes. The session must not be in a
/// transaction.
pub async fn foresee(
    client: &tokio_postgres::Client,
    snapshot: &Snapshot,
    wanted: Wanted<'_>,
) -> Result<Plan, salvage::Error> {
    let touched = wanted.touched.cloned().unwrap_or_default();
    let scope = match wanted.mode {
        Mode::Touched => Scope::Only(touched.clone()),
        Mode::Whole => Scope::Everything,
    };
    let mut plan = salvage::classify(client, &snapshot.storage_index(), &scope, Probing::Changed).await?;
    if wanted.mode == Mode::Whole {
        plan.withdraw(&touched);
    }
    plan.remove_added = wanted.removal == Removal::RemoveAdded;
    Ok(plan)
}

/// Looks at every object, and keeps what will be written over. Nothing of the target changes.
pub async fn save(
    target: &Target,
    snapshot: &Snapshot,
    context: &Context,
    (wanted, folder): (Wanted<'_>, &Path),
) -> Result<Option<(Reach, Saved)>, NotDone> {
    let is_there = snapshot.storage_index().exists();
    let Some(access) = context.storage.as_ref().filter(|_| is_there) else { return Ok(None) };
    let objects = context.store.objects()?;
    let reach = Reach::open(access, objects).await?;
    let session = connect::read_only(&target.connection).await?;
    let plan = foresee(&session.client, snapshot, wanted).await?;
    session.close().await;
    let saved = salvage::save(&reach, plan, folder).await?;
    Ok(Some((reach, saved)))
}

/// Reads back what a run saved whose transaction stands.
pub async fn resume(context: &Context, folder: &Path) -> Result<Option<(Reach, Saved)>, NotDone> {
    let (Some(access), Some(saved)) = (&context.storage, salvage::resume(folder)?) else { return Ok(None) };
    let objects = context.store.objects()?;
    Ok(Some((Reach::open(access, objects).await?, saved)))
}

/// The rows alone, in a transaction that is left open.
pub(super) async fn rows(client: &tokio_postgres::Client, saved: &Saved) -> Result<Proved, Error> {
    let started = Instant::now();
    client.batch_execute("begin isolation level read committed").await?;
    client.batch_execute(crate::postgres::rows::PINNED).await?;
    salvage::rows(client, saved).await?;
    let transaction = super::transaction(client).await?;
    let seconds = started.elapsed().as_secs_f64();
    let (tables, kept, accounts) = (Vec::new(), Vec::new(), Accounts::default());
    let references = Vec::new();
    Ok(Proved { mode: Mode::Touched, tables, saved: kept, accounts, references, transaction, seconds })
}

/// Brings the bytes back after the commit, and compares.
pub async fn bytes(
    target: &Target,
    snapshot: &Snapshot,
    (reach, saved): (&Reach, &mut Saved),
) -> Result<Objects, NotDone> {
    let index = snapshot.storage_index();
    let session = connect::writable(&target.connection).await?;
    let client = &session.client;
    let removal = if saved.plan().remove_added { Removal::RemoveAdded } else { Removal::Keep };
    let restored = salvage::bytes(client, reach, saved, &index, removal).await?;
    let mut left = restored.left;
    left.extend(salvage::compare(client, reach, saved, &index).await?);
    session.close().await;
    left.sort_unstable();
    left.dedup();
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    Ok(Objects {
        moved: restored.moved,
        uploaded: restored.uploaded,
        found: restored.found,
        added: match removal {
            Removal::Keep => count(saved.plan().added.len()),
            Removal::RemoveAdded => 0,
        },
        removed: restored.removed,
        stays: saved.plan().left_counts(),
        saved: count(saved.casualties().len()),
        left,
    })
}
