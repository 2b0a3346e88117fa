//! Storage around the transaction: saved before it, its rows within it, its bytes after it.

use super::run::NotDone;
use super::{Error, Mode, Moment, Proved};
use crate::context::Context;
use crate::event::{Reached, Step};
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
    /// The names of these, and of such buckets, in words.
    pub added_names: Vec<String>,
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
    /// Whose bytes are looked at.
    pub probing: Probing,
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
    let mut plan = salvage::classify(client, &snapshot.storage_index(), &scope, wanted.probing).await?;
    if wanted.mode == Mode::Whole {
        plan.withdraw(&touched);
    }
    plan.remove_added = wanted.removal == Removal::RemoveAdded;
    Ok(plan)
}

/// What goes back of Storage, kept on disk.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// How the bytes are reached, when anything leads there.
    reach: Option<Reach>,
    saved: Saved,
}

impl Salvaged {
    /// What a run saved whose transaction stands, and the way to the bytes.
    pub async fn reached(context: &Context, saved: Saved) -> Result<Self, NotDone> {
        Ok(Self { reach: reach(context).await?, saved })
    }

    /// What is written in the transaction.
    pub fn saved(&self) -> &Saved {
        &self.saved
    }
}

/// Whether a run has keys that lead to the bytes.
pub fn has_keys(context: &Context) -> bool {
    context.storage.as_ref().is_some_and(|access| access.keys.is_some())
}

async fn reach(context: &Context) -> Result<Option<Reach>, NotDone> {
    let Some(access) = context.storage.as_ref().filter(|_| has_keys(context)) else { return Ok(None) };
    Ok(Some(Reach::open(access, context.store.objects()?).await?))
}

/// Looks at every object, and keeps what will be written over. Nothing of the target changes. None when
/// the snapshot does not say what the objects were.
pub async fn save(
    target: &Target,
    snapshot: &Snapshot,
    context: &Context,
    (wanted, folder): (Wanted<'_>, &Path),
) -> Result<Option<Salvaged>, NotDone> {
    if !snapshot.storage_index().exists() {
        return Ok(None);
    }
    context.reached(Reached::begin(Step::KeepObjects));
    let reach = reach(context).await?;
    let session = connect::read_only(&target.connection).await?;
    let plan = foresee(&session.client, snapshot, wanted).await?;
    session.close().await;
    let saved = match &reach {
        Some(reach) => salvage::save(reach, plan, folder).await?,
        None => salvage::defer(plan, folder)?,
    };
    context.reached(Reached::end(Step::KeepObjects));
    Ok(Some(Salvaged { reach, saved }))
}

/// The rows alone, in a transaction that is left open.
pub(super) async fn rows(
    client: &tokio_postgres::Client,
    (saved, mode): (&Saved, Mode),
    announce: impl AsyncFn(Moment<'_>) -> Result<(), Error>,
) -> Result<Proved, Error> {
    client.batch_execute("begin isolation level read committed").await?;
    client.batch_execute(crate::postgres::rows::PINNED).await?;
    let transaction = super::transaction::id(client).await?;
    announce(Moment::Begun(&transaction)).await?;
    announce(Moment::begin(Step::TakeBack)).await?;
    let started = Instant::now();
    salvage::rows(client, saved).await?;
    announce(Moment::end(Step::TakeBack)).await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Proved { transaction, seconds, ..Proved::nothing(mode) })
}

/// Brings the bytes back after the commit, and compares. Without a way to them it fails, unless nothing is
/// to be brought back.
pub async fn bytes(
    target: &Target,
    snapshot: &Snapshot,
    salvaged: &mut Salvaged,
    context: &Context,
) -> Result<Objects, NotDone> {
    let Salvaged { reach, saved } = salvaged;
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let Some(reach) = reach else {
        return if saved.is_nothing() {
            let plan = saved.plan();
            let (added, added_names) = (count(plan.added.len()), plan.added_in_words());
            Ok(Objects { added, added_names, stays: plan.left_counts(), ..Objects::default() })
        } else {
            Err(NotDone::NoWay)
        };
    };
    let index = snapshot.storage_index();
    let session = connect::writable(&target.connection).await?;
    let client = &session.client;
    let removal = if saved.plan().remove_added { Removal::RemoveAdded } else { Removal::Keep };
    let tell = |reached| context.reached(reached);
    let restored = salvage::bytes(client, reach, saved, (&index, removal), &tell).await?;
    let mut left = restored.left;
    left.extend(salvage::compare(client, reach, saved, (&index, &restored.stays)).await?);
    session.close().await;
    left.sort_unstable();
    left.dedup();
    let mut stays = saved.plan().left_counts();
    for theirs in restored.stays.values() {
        *stays.entry(theirs.in_words()).or_default() += 1;
    }
    let (added, added_names) = match removal {
        Removal::Keep => (count(saved.plan().added.len()), saved.plan().added_in_words()),
        Removal::RemoveAdded => (0, Vec::new()),
    };
    Ok(Objects {
        moved: restored.moved,
        uploaded: restored.uploaded,
        found: restored.found,
        added,
        added_names,
        removed: restored.removed,
        stays,
        saved: count(saved.casualties().len()),
        left,
    })
}
