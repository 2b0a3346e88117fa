//! What only the API can do, after COMMIT. Each look is at the live rows and bytes of that moment,
//! so that a second run finishes what the first began.

use super::classify::Index;
use super::plan::{Change, Item};
use super::save::{Chosen, Saved, Way, withdraw};
use super::{Error, Reach, TRANSFERS, live, place};
use crate::disk;
use crate::event::{Step, Tally, Tell};
use crate::manifest::storage::{Object, State};
use crate::objects::{self, Rest, Upload, Written};
use crate::postgres::storage::Row;
use crate::postgres::storage::back::{self, Writing};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use tokio_postgres::Client;

/// Larger objects go through the S3 protocol.
const REST_SIZE: u64 = 6_000_000;

/// The rows as text, and how long somebody else's lock is waited for: the next run goes on.
const SETTINGS: &str = "set timezone = 'UTC'; set lock_timeout = '10s'";

/// What becomes of objects that the snapshot does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They stay.
    Keep,
    /// They are saved, and removed.
    RemoveAdded,
}

/// What was done, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Rows that were brought back to their places.
    pub moved: u64,
    /// Objects that were uploaded.
    pub uploaded: u64,
    /// Their bytes.
    pub uploaded_bytes: u64,
    /// Objects whose bytes were there.
    pub found: u64,
    /// Added objects and buckets that were removed, in words.
    pub removed: Vec<String>,
    /// What somebody else did to objects of the plan since the rows went back, by their ids. It stays.
    pub stays: BTreeMap<String, Theirs>,
    /// What could not be done, in words.
    pub left: Vec<String>,
    /// What buckets allowed when that was lifted, by their ids.
    lifted: BTreeMap<String, Map<String, Value>>,
}

/// What somebody else did to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Theirs {
    /// They uploaded other bytes.
    Overwritten,
    /// They gave it another place.
    Moved,
    /// They removed it.
    Removed,
}

impl Theirs {
    /// For people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Overwritten => "overwritten",
            Self::Moved => "moved",
            Self::Removed => "removed",
        }
    }
}

impl Restored {
    /// Lets the buckets of these objects take whatever they once took.
    pub(super) async fn lift_limits<'a>(
        &mut self,
        client: &Client,
        chosen: impl Iterator<Item = &'a Chosen>,
    ) -> Result<(), Error> {
        let buckets: BTreeSet<&str> = chosen.filter_map(|chosen| chosen.item.was.bucket.as_deref()).collect();
        if buckets.is_empty() {
            return Ok(());
        }
        for limits in back::lift_limits(client, &buckets.into_iter().collect::<Vec<_>>()).await? {
            let (Value::Object(limits), Some(id)) = (&limits, limits["id"].as_str()) else { continue };
            // Somebody may have limited it again since.
            let limited = limits.iter().filter(|(_, limit)| !limit.is_null());
            let limited = limited.map(|(name, limit)| (name.clone(), limit.clone()));
            self.lifted.entry(id.to_owned()).or_default().extend(limited);
        }
        Ok(())
    }

    /// Notes an error that is about one object alone; any other one ends the run.
    pub(super) fn leave(&mut self, object: &Object, error: Error) -> Result<(), Error> {
        let alone = match &error {
            Error::Objects(error) => matches!(
                error,
                objects::Error::InvalidKey { .. }
                    | objects::Error::NotFound { .. }
                    | objects::Error::NoBytes { .. }
                    | objects::Error::Altered { .. }
                    | objects::Error::Referenced { .. }
                    | objects::Error::Taken { .. }
                    | objects::Error::Unexpected { .. }
            ),
            Error::Lost { .. } | Error::Meanwhile { .. } => true,
            _ => false,
        };
        if !alone {
            return Err(error);
        }
        self.left.push(format!("object {}: {error}", object.in_words()));
        Ok(())
    }
}

/// What is to be done about an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// They are there; the row may lack something.
    Found,
    /// They are uploaded.
    Upload,
    /// They are uploaded over others, which are saved first.
    Overwrite,
    /// Somebody uploaded others meanwhile.
    Theirs,
}

/// Brings the bytes back, and the rest of the rows; then removes what was added, if that was asked
/// for. The index is that of the snapshot. What is done of it is told.
pub async fn bytes(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (index, removal): (&Path, Removal),
    tell: Tell<'_>,
) -> Result<Restored, Error> {
    client.batch_execute(SETTINGS).await?;
    let mut done = Restored::default();
    let restored = restore(client, reach, saved, (index, &mut done, tell)).await;
    // Whatever became of it, nobody else shall upload what the buckets do not allow.
    let limited = put_limits(client, saved, &done.lifted).await;
    restored.and(limited)?;
    if removal == Removal::RemoveAdded {
        remove_added(client, reach, saved, &mut done).await?;
    }
    Ok(done)
}

async fn restore(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (index, done, tell): (&Path, &mut Restored, Tell<'_>),
) -> Result<(), Error> {
    withdraw_unseen(client, reach, saved).await?;
    place::settle(client, reach, saved, (done, tell)).await?;
    let chosen: Vec<Chosen> =
        saved.chosen.iter().filter(|chosen| chosen.item.address().is_some()).cloned().collect();
    let mut tally = Tally::begin(Step::BringObjects, chosen.len() as u64, tell);
    for portion in chosen.chunks(live::PORTION) {
        portion_of(client, reach, saved, (portion, done, Some(&mut tally))).await?;
    }
    tally.end();
    if saved.plan.probe_all {
        probe_all(client, reach, saved, (index, done)).await?;
    }
    Ok(())
}

/// Takes away what the migration added and nobody could look at when the rows went back.
async fn withdraw_unseen(client: &Client, reach: &Reach, saved: &Saved) -> Result<(), Error> {
    let ids: Vec<&str> = saved.plan.unseen.iter().map(|row| row.id.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let (mut standing, mut filled) = (back::by_ids(client, &ids).await?, Vec::new());
    withdraw(reach, &mut standing, &mut filled).await?;
    let quiet = place::begin(client).await?;
    let rows: Vec<&Row> = standing.iter().collect();
    let withdrawn = back::withdraw(client, &rows, &saved.plan.withdrawn_buckets).await;
    place::end(client, quiet, withdrawn.map(drop)).await
}

async fn portion_of(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (portion, done, mut tally): (&[Chosen], &mut Restored, Option<&mut Tally<'_>>),
) -> Result<(), Error> {
    let rows = live::of_items(client, portion.iter().map(|chosen| &chosen.item)).await?;
    let here: Vec<(&Chosen, &Row)> = portion
        .iter()
        .filter_map(|chosen| {
            let row = rows.get(&chosen.item.was.id)?;
            (row.address() == chosen.item.address()).then_some((chosen, row))
        })
        .collect();
    let verdicts: Vec<Verdict> = stream::iter(here.clone())
        .map(|(chosen, row)| judge(reach, saved, (chosen, row)))
        .buffered(TRANSFERS)
        .try_collect()
        .await?;
    let with = |wanted: &[Verdict]| -> Vec<(&Chosen, &Row)> {
        let pairs = here.iter().zip(&verdicts).filter(|(_, verdict)| wanted.contains(verdict));
        pairs.map(|(pair, _)| *pair).collect()
    };
    let mut whole: Vec<&Object> =
        with(&[Verdict::Found]).iter().map(|(chosen, _)| &chosen.item.was).collect();
    done.found += whole.len() as u64;
    let theirs = with(&[Verdict::Theirs]);
    done.stays.extend(theirs.iter().map(|(chosen, _)| (chosen.item.was.id.clone(), Theirs::Overwritten)));
    saved.also(reach, with(&[Verdict::Overwrite]).iter().map(|(_, row)| (*row).clone()).collect()).await?;
    let uploads = with(&[Verdict::Upload, Verdict::Overwrite]);
    let mut count = |more: usize| {
        if let Some(tally) = &mut tally {
            tally.add(more as u64);
        }
    };
    count(portion.len() - uploads.len());
    done.lift_limits(client, uploads.iter().map(|(chosen, _)| *chosen)).await?;
    let sent: Vec<(&Object, Result<Option<Theirs>, Error>)> = stream::iter(uploads)
        .map(|(chosen, row)| async move { (&chosen.item.was, send_over(client, reach, (chosen, row)).await) })
        .buffered(TRANSFERS)
        .inspect(|(_, sent)| count(usize::from(sent.is_ok())))
        .collect()
        .await;
    for (was, sent) in sent {
        match sent {
            Ok(None) => {
                done.uploaded += 1;
                done.uploaded_bytes += was.size.unwrap_or_default();
                whole.push(was);
            }
            Ok(Some(theirs)) => {
                done.stays.insert(was.id.clone(), theirs);
            }
            Err(error) => done.leave(was, error)?,
        }
    }
    mend(client, &whole).await
}

/// Uploads an object's bytes over a row, unless somebody wrote that since it was read: uploads take no
/// condition, and what was saved is not what would be lost.
async fn send_over(
    client: &Client,
    reach: &Reach,
    (chosen, row): (&Chosen, &Row),
) -> Result<Option<Theirs>, Error> {
    let Some(to) = chosen.item.address() else { return Ok(None) };
    let theirs = changed(client, row).await?;
    if theirs.is_none() {
        send(reach, &chosen.item.was, to).await?;
    }
    Ok(theirs)
}

/// What somebody did to a row since it was read.
pub(super) async fn changed(client: &Client, row: &Row) -> Result<Option<Theirs>, Error> {
    let now = back::by_ids(client, &[&row.id]).await?;
    Ok(match now.first() {
        None => Some(Theirs::Removed),
        Some(now) if now.address() != row.address() => Some(Theirs::Moved),
        Some(now) if now.version != row.version => Some(Theirs::Overwritten),
        Some(_) => None,
    })
}

async fn judge(reach: &Reach, saved: &Saved, (chosen, row): (&Chosen, &Row)) -> Result<Verdict, Error> {
    let was = &chosen.item.was;
    let Some(at) = chosen.item.address() else { return Ok(Verdict::Theirs) };
    let bytes = live::look(reach, was, at).await?;
    let is_expected = row.version.as_deref() == chosen.expected();
    Ok(match bytes {
        live::Bytes::AsTheyWere => Verdict::Found,
        live::Bytes::None if is_expected => Verdict::Upload,
        live::Bytes::Other if is_expected => Verdict::Overwrite,
        live::Bytes::Other if is_saved(reach, saved, (row, at)).await? => Verdict::Upload,
        live::Bytes::None | live::Bytes::Other => Verdict::Theirs,
    })
}

/// Whether the bytes at a place are those that were saved of this row: the API moved them here since.
async fn is_saved(reach: &Reach, saved: &Saved, (row, at): (&Row, (&str, &str))) -> Result<bool, Error> {
    for object in saved.with_bytes().filter(|object| object.id == row.id) {
        if live::look(reach, object, at).await? == live::Bytes::AsTheyWere {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Uploads an object's bytes from the store, and makes sure that they are there.
pub(super) async fn send(reach: &Reach, was: &Object, to: (&str, &str)) -> Result<(), Error> {
    let lost = || Error::Lost { object: was.in_words() };
    let (Some(sha256), Some(size)) = (&was.sha256, was.size) else { return Err(lost()) };
    if size == 0 && to.1.ends_with('/') {
        // The server would make the placeholder of a folder of it, under another key.
        return Err(objects::Error::InvalidKey { doing: format!("write {}", was.in_words()) }.into());
    }
    let file = reach.objects.path(sha256);
    let (read, wanted) = (file.clone(), (sha256.clone(), size));
    let digest =
        tokio::task::spawn_blocking(move || disk::sha256_file(&read)).await.map_err(io::Error::other)?;
    if digest.ok() != Some(wanted) {
        return Err(lost());
    }
    let metadata: Value =
        was.metadata.as_ref().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let text = |name: &str| metadata[name].as_str();
    let content_type = text("mimetype").or(was.content_type.as_deref()).or(Some("application/octet-stream"));
    let cache_control = text("cacheControl").or(was.cache_control.as_deref());
    let in_parts = was.etag.as_deref().is_some_and(|etag| etag.contains('-'));
    match &reach.rest {
        Some(rest) if size <= REST_SIZE && !in_parts && Rest::can_name(to.0, to.1) => {
            let bytes =
                tokio::task::spawn_blocking(move || fs_err::read(file)).await.map_err(io::Error::other)??;
            let written = Written {
                content_type,
                cache_control,
                robots: text("xRobotsTag"),
                user_metadata: was.user_metadata.as_deref().map(serde_json::value::RawValue::get),
            };
            rest.put(to, &Bytes::from(bytes), &written).await?;
        }
        _ => {
            let upload = Upload { file: &file, size, etag: was.etag.as_deref(), content_type, cache_control };
            reach.s3.put(to.0, to.1, &upload).await?;
        }
    }
    // No answer proves an upload but that of a probe.
    if live::look(reach, was, to).await? == live::Bytes::AsTheyWere {
        return Ok(());
    }
    let sent = was.md5.clone().unwrap_or_default();
    let doing = format!("write {}", was.in_words());
    Err(objects::Error::Altered { doing, sent, received: "another one".to_owned() }.into())
}

/// Gives rows whose bytes are there what an upload or a move does not keep.
async fn mend(client: &Client, whole: &[&Object]) -> Result<(), Error> {
    if whole.is_empty() {
        return Ok(());
    }
    let rows: Vec<Writing<'_>> =
        whole.iter().map(|was| Writing { was, version: was.version.as_deref(), now: None }).collect();
    let quiet = place::begin(client).await?;
    let mended = back::mend(client, &rows, quiet).await;
    place::end(client, quiet, mended.map(drop)).await
}

/// Sets what buckets allow as it shall be, where that was lifted: as it was just before, and where an earlier run
/// lifted it, as the plan says.
async fn put_limits(
    client: &Client,
    saved: &Saved,
    lifted: &BTreeMap<String, Map<String, Value>>,
) -> Result<(), Error> {
    for limits in lifted.values() {
        back::set_limits(client, &Value::Object(limits.clone()).to_string()).await?;
    }
    for bucket in &saved.plan.buckets {
        back::set_limits(client, bucket.wanted.get()).await?;
    }
    Ok(())
}

/// Looks after the bytes of every other object of the snapshot whose row is there, but of those that stay
/// as somebody else left them.
async fn probe_all(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    (index, done): (&Path, &mut Restored),
) -> Result<(), Error> {
    let known = saved.chosen.iter().map(|chosen| chosen.item.was.id.as_str()).chain(saved.plan.left_ids());
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    let mut index = Index::open(index)?;
    let mut portion = Vec::new();
    loop {
        let next = index.next()?;
        let is_over = next.is_none();
        portion.extend(next.filter(|was| !known.contains(&was.id)).and_then(probed));
        if portion.len() == live::PORTION || is_over {
            portion_of(client, reach, saved, (&portion, done, None)).await?;
            portion.clear();
        }
        if is_over {
            return Ok(());
        }
    }
}

/// An object as if its row had just been written.
fn probed(was: Object) -> Option<Chosen> {
    was.sha256.as_ref().filter(|_| was.state.is_captured())?;
    let way = Way::Row(was.version.clone());
    Some(Chosen { item: Item { change: Change::Altered, was, live: None }, way })
}

/// Removes objects and buckets that were added and that nobody changed since.
async fn remove_added(
    client: &Client,
    reach: &Reach,
    saved: &mut Saved,
    done: &mut Restored,
) -> Result<(), Error> {
    let added = saved.plan.added.clone();
    for portion in added.chunks(live::PORTION) {
        let ids: Vec<&str> = portion.iter().map(|row| row.id.as_str()).collect();
        let mut going = back::by_ids(client, &ids).await?;
        going.retain(|row| portion.iter().any(|known| known.id == row.id && known.version == row.version));
        saved.also(reach, going.clone()).await?;
        for row in going {
            // What somebody wrote since is not saved, and not what was to go.
            if changed(client, &row).await?.is_some() {
                continue;
            }
            match remove(client, reach, &row).await {
                Ok(()) => done.removed.push(format!("object {}", row.in_words())),
                Err(error) => done.leave(&row.record(State::Ok, None), error)?,
            }
        }
    }
    let plan = &saved.plan;
    for bucket in plan.added_buckets.iter().chain(&plan.withdrawn_buckets) {
        let quiet = place::begin(client).await?;
        let removed = back::remove_bucket(client, bucket).await;
        let is_gone = matches!(removed, Ok(true));
        place::end(client, quiet, removed.map(drop)).await?;
        let words = format!("bucket `{}`", bucket.escape_debug());
        if is_gone {
            done.removed.push(words);
        } else if plan.added_buckets.contains(bucket) {
            done.left.push(format!("{words} has objects and stays"));
        }
    }
    Ok(())
}

async fn remove(client: &Client, reach: &Reach, row: &Row) -> Result<(), Error> {
    let by_api = match row.address() {
        Some((bucket, key)) => reach.s3.delete(bucket, key).await,
        None => Err(objects::Error::InvalidKey { doing: format!("remove {}", row.in_words()) }),
    };
    match by_api {
        // No request can name it, so no bytes can be reached under it.
        Err(objects::Error::InvalidKey { .. }) => {
            let quiet = place::begin(client).await?;
            let deleted = back::delete(client, &[&row.id]).await;
            place::end(client, quiet, deleted.map(drop)).await
        }
        by_api => Ok(by_api?),
    }
}
