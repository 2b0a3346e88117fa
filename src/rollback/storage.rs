//! Storage around the transaction: saved before it, its rows within it, its bytes after it.

use super::run::NotDone;
use super::{Accounts, Error, Mode, Proved};
use crate::context::Context;
use crate::postgres::connect;
use crate::salvage::{self, Probing, Reach, Removal, Saved, Scope};
use crate::store::Snapshot;
use crate::target::Target;
use serde::Serialize;
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
    /// Objects that the snapshot does not have, and that stay.
    pub added: u64,
    /// Live objects that were written over and kept first.
    pub saved: u64,
    /// What is not as in the snapshot, in words.
    pub left: Vec<String>,
}

/// Looks at every object, and keeps what will be written over. Nothing of the target changes.
pub async fn save(
    target: &Target,
    snapshot: &Snapshot,
    context: &Context,
    folder: &Path,
) -> Result<Option<(Reach, Saved)>, NotDone> {
    let index = snapshot.storage_index();
    let Some(access) = context.storage.as_ref().filter(|_| index.exists()) else { return Ok(None) };
    let objects = context.store.objects()?;
    let reach = Reach::open(access, objects).await?;
    let session = connect::read_only(&target.connection).await?;
    let plan = salvage::classify(&session.client, &index, &Scope::Everything, Probing::Changed).await?;
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
    client.batch_execute("begin").await?;
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
    let restored = salvage::bytes(client, reach, saved, &index, Removal::Keep).await?;
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
        added: count(saved.plan().added.len()),
        saved: count(saved.casualties().len()),
        left,
    })
}
