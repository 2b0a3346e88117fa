//! What is not as it was, in words: rows against the index, bytes by probes.

use super::bytes::Theirs;
use super::classify::{Index, differences};
use super::plan::columns;
use super::save::Saved;
use super::{Error, Reach, TRANSFERS, live};
use crate::manifest::storage::Object;
use crate::postgres::storage::{Row, Told, address};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use tokio_postgres::Client;

/// Compares what was brought back with the snapshot. Versions are the server's own; so is the etag
/// of bytes that were uploaded in other parts. What somebody else did since stays, and is not compared.
pub async fn compare(
    client: &Client,
    reach: &Reach,
    saved: &Saved,
    (index, stays): (&Path, &BTreeMap<String, Theirs>),
) -> Result<Vec<String>, Error> {
    let found = differences(client, index).await?;
    let mut wrong = Vec::new();
    let ours: BTreeMap<&str, &Object> =
        saved.chosen.iter().map(|chosen| (chosen.item.was.id.as_str(), &chosen.item.was)).collect();
    let ours: BTreeMap<&str, &Object> = ours.into_iter().filter(|(id, _)| !stays.contains_key(*id)).collect();
    let live: BTreeMap<&str, &Row> = found.live.iter().map(|row| (row.id.as_str(), row)).collect();
    let left = saved.plan.left_ids();
    let is_theirs = |was: &Object| stays.contains_key(&was.id) || left.contains(was.id.as_str());
    let is_meant =
        |was: &&Object| (saved.plan.probe_all && !is_theirs(was)) || ours.contains_key(was.id.as_str());
    for was in found.was.iter().filter(is_meant) {
        let Some(row) = live.get(was.id.as_str()) else {
            wrong.push(format!("object {} has no row", was.in_words()));
            continue;
        };
        let differing = differing(was, row);
        if !differing.is_empty() {
            wrong.push(format!("object {} differs in {}", was.in_words(), differing.join(", ")));
        }
    }
    for merge in &saved.plan.merged {
        let names = live.get(merge.was.id.as_str()).map(|row| columns(&merge.was, row)).unwrap_or_default();
        let names: Vec<&str> = names.into_iter().filter(|name| merge.columns.contains(*name)).collect();
        if !names.is_empty() {
            wrong.push(format!("object {} differs in {}", merge.was.in_words(), names.join(", ")));
        }
    }
    wrong.extend(saved.wrong_limits(&found)?);
    let items: Vec<&Object> = ours.into_values().collect();
    wrong.extend(missing(reach, items).await?);
    if saved.plan.probe_all {
        let mut index = Index::open(index)?;
        let mut portion = Vec::new();
        loop {
            let next = index.next()?;
            let is_over = next.is_none();
            portion.extend(next.filter(|was| was.state.is_captured() && !is_theirs(was)));
            if portion.len() == live::PORTION || is_over {
                wrong.extend(missing(reach, portion.iter().collect()).await?);
                portion.clear();
            }
            if is_over {
                break;
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    Ok(wrong)
}

/// The columns that differ, but for the etag of a version that is another one.
fn differing(was: &Object, row: &Row) -> Vec<&'static str> {
    let mut differing = columns(was, row);
    if was.version != row.version && differing.contains(&"metadata") {
        let read = |raw: Option<&serde_json::value::RawValue>| -> Value {
            raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
        };
        let mut then = read(was.metadata.as_deref());
        let now = read(row.metadata.as_deref());
        if Told::of(row.metadata.as_deref()).etag.is_some() && then.is_object() {
            then["eTag"] = now["eTag"].clone();
        }
        if then == now {
            differing.retain(|column| *column != "metadata");
        }
    }
    differing
}

/// Objects whose bytes are not those of the snapshot.
async fn missing(reach: &Reach, objects: Vec<&Object>) -> Result<Vec<String>, Error> {
    let probed = stream::iter(objects).filter_map(|was| async move {
        was.sha256.as_ref()?;
        Some((was, address(was.bucket.as_deref(), was.key.as_deref())?))
    });
    let found: Vec<Option<String>> = probed
        .map(|(was, at)| async move {
            let bytes = live::look(reach, was, at).await?;
            Ok::<_, Error>(match bytes {
                live::Bytes::AsTheyWere => None,
                live::Bytes::Other => Some(format!("object {} has other bytes", was.in_words())),
                live::Bytes::None => Some(format!("object {} has no bytes", was.in_words())),
            })
        })
        .buffered(TRANSFERS)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}
