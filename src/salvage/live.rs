//! What the live rows and bytes are at this moment.

use super::plan::Item;
use super::{Error, Reach};
use crate::manifest::storage::{Object, State};
use crate::objects::{self, Probe};
use crate::postgres::storage::{Row, back};
use std::collections::BTreeMap;
use std::io;
use tokio_postgres::Client;

/// What a request without a body says of the bytes at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// They are those of the snapshot.
    AsTheyWere,
    /// Others are there.
    Other,
    /// None are.
    None,
}

/// Looks whether an object's bytes stand at a place. A copy on the server, or an upload in one part
/// instead of several, has another etag for the same bytes: their MD5.
pub(super) async fn look(reach: &Reach, was: &Object, at: (&str, &str)) -> Result<Bytes, Error> {
    let etags = [was.etag.as_deref(), was.md5.as_deref()];
    for (number, etag) in etags.into_iter().flatten().enumerate() {
        if number > 0 && was.etag == was.md5 {
            break;
        }
        match reach.s3.probe(at.0, at.1, etag).await {
            Ok(Probe::Same) => return Ok(Bytes::AsTheyWere),
            Ok(Probe::Other) => {}
            // A server with its bytes in files fails when there are none. One that fails for another
            // reason will fail the upload as well.
            Ok(Probe::Missing) | Err(objects::Error::Busy { status: 500, .. }) => return Ok(Bytes::None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Bytes::Other)
}

/// The live rows of items, by id.
pub(super) async fn of_items<'a>(
    client: &Client,
    items: impl IntoIterator<Item = &'a Item>,
) -> Result<BTreeMap<String, Row>, Error> {
    let ids: Vec<&str> = items.into_iter().map(|item| item.was.id.as_str()).collect();
    let mut found = BTreeMap::new();
    for ids in ids.chunks(PORTION) {
        let rows = back::by_ids(client, ids).await?;
        found.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
    }
    Ok(found)
}

/// Rows that are asked for at a time.
pub(super) const PORTION: usize = 1000;

/// Fetches a live object's bytes into the store, and says what became of it. The etag of the bytes,
/// not that of the row, says what they are.
pub(super) async fn fetch(reach: &Reach, row: Row) -> Result<Object, Error> {
    let told = row.told();
    let Some((bucket, key)) = row.address() else {
        return Ok(row.record(State::UnreadableKey, told.size));
    };
    let received = match reach.s3.get(bucket, key, || reach.objects.begin()).await {
        Ok((incoming, received)) => {
            let (objects, sha256, size) = (reach.objects.clone(), received.sha256.clone(), received.size);
            tokio::task::spawn_blocking(move || objects.keep(incoming, &sha256, size))
                .await
                .map_err(io::Error::other)??;
            received
        }
        Err(objects::Error::NoBytes { .. } | objects::Error::NotFound { .. }) => {
            return Ok(row.record(State::Dangling, told.size));
        }
        Err(objects::Error::InvalidKey { .. }) => {
            return Ok(row.record(State::UnreadableKey, told.size));
        }
        // A server with its bytes in files fails so for a row that never had any.
        Err(objects::Error::Busy { status: 500, .. }) if row.metadata.is_none() => {
            return Ok(row.record(State::Dangling, told.size));
        }
        Err(error) => return Err(error.into()),
    };
    let is_row = told.etag.is_none() || told.etag == received.etag;
    let mut object = row.record(if is_row { State::Ok } else { State::Drifted }, Some(received.size));
    object.sha256 = Some(received.sha256);
    object.md5 = Some(received.md5);
    object.etag = received.etag;
    object.content_type = received.content_type;
    object.cache_control = received.cache_control;
    Ok(object)
}
