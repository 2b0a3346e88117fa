//! Fetches bytes again that were found damaged in the store, for a snapshot that was taken a moment ago.

use super::Error;
use super::pass::TRANSFERS;
use crate::context::Context;
use crate::manifest::storage::{Line, Object};
use crate::objects::Client;
use crate::store::{Objects, Snapshot};
use fs_err as fs;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

/// Fetches what a snapshot's index names and the store does not hold, and keeps what is still the
/// same; returns how many files came back. What did not stays missing: a server that does not answer,
/// or has other bytes by now, is no reason to stop.
pub async fn fetch_again(context: &Context, snapshot: &Snapshot) -> Result<u64, Error> {
    let Some(access) = context.storage.as_ref().filter(|access| access.keys.is_some()) else { return Ok(0) };
    let objects = context.store.objects()?;
    let lost = lost(&snapshot.storage_index(), &objects)?;
    if lost.is_empty() {
        return Ok(0);
    }
    let Ok(client) = Client::new(access).await else { return Ok(0) };
    let fetched = stream::iter(lost)
        .map(|(sha256, object)| fetch(&client, &objects, sha256, object))
        .buffer_unordered(TRANSFERS);
    let came_back: u64 =
        fetched.try_fold(0, |count, came| async move { Ok(count + u64::from(came)) }).await?;
    objects.sync()?;
    Ok(came_back)
}

/// Objects whose bytes the store lacks, one for each digest.
fn lost(index: &Path, objects: &Objects) -> Result<BTreeMap<String, Object>, Error> {
    let mut lost = BTreeMap::new();
    for line in BufReader::new(fs::File::open(index)?).lines() {
        let Line::Object(object) = super::line(&line?).map_err(Error::Row)? else { continue };
        if let (Some(sha256), Some(size)) = (&object.sha256, object.size)
            && !objects.holds(sha256, size)
        {
            lost.entry(sha256.clone()).or_insert(*object);
        }
    }
    Ok(lost)
}

async fn fetch(client: &Client, objects: &Objects, sha256: String, object: Object) -> Result<bool, Error> {
    let (Some(bucket), Some(key)) = (&object.bucket, &object.key) else { return Ok(false) };
    let begin = || objects.begin();
    match client.get(bucket, key, begin).await {
        Ok((incoming, received)) if received.sha256 == sha256 => {
            let objects = objects.clone();
            let keep = move || objects.keep(incoming, &sha256, received.size);
            tokio::task::spawn_blocking(keep).await.map_err(io::Error::other)??;
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) => Error::from(error).missing().map(|_| false),
    }
}
