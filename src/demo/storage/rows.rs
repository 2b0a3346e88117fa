//! The rows of `storage.buckets` and `storage.objects`, and what the server does to them.

use super::bytes::put_etag;
use super::{Error, State, lock};
use crate::disk;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;
use tokio_postgres::error::SqlState;

const COLUMNS: &str =
    "id::text, name, version, metadata->>'eTag', (metadata->>'size')::int8, metadata->>'mimetype',
    metadata->>'cacheControl', user_metadata::text,
    to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";

/// A row of `storage.objects`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) size: Option<i64>,
    pub(super) content_type: Option<String>,
    pub(super) cache_control: Option<String>,
    pub(super) user_metadata: Option<String>,
    pub(super) updated_at: String,
}

impl From<tokio_postgres::Row> for Row {
    fn from(row: tokio_postgres::Row) -> Self {
        Self {
            id: row.get(0),
            name: row.get(1),
            version: row.get(2),
            etag: row.get(3),
            size: row.get(4),
            content_type: row.get(5),
            cache_control: row.get(6),
            user_metadata: row.get(7),
            updated_at: row.get(8),
        }
    }
}

/// An object that arrives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Upload<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) content_type: Option<&'a str>,
    pub(super) cache_control: Option<&'a str>,
    pub(super) robots: Option<&'a str>,
    pub(super) user_metadata: Option<&'a str>,
    /// The etag of an upload in parts.
    pub(super) etag: Option<&'a str>,
}

/// Why a bucket does not take an upload: status, code, and message. What is there already is not
/// looked at.
pub(super) async fn refused(
    state: &State,
    upload: &Upload<'_>,
    size: usize,
) -> Result<Option<(u16, &'static str, String)>, Error> {
    let sql = "select file_size_limit, allowed_mime_types from storage.buckets where id = $1";
    let Some(row) = state.session.client.query_opt(sql, &[&upload.bucket]).await? else {
        return Ok(Some((404, "NoSuchBucket", "Bucket not found".to_owned())));
    };
    let limit: Option<i64> = row.get(0);
    let allowed: Option<Vec<String>> = row.get(1);
    if limit.is_some_and(|limit| i64::try_from(size).is_ok_and(|size| size > limit)) {
        let message = "The object exceeded the maximum allowed size".to_owned();
        return Ok(Some((413, "EntityTooLarge", message)));
    }
    let kind = upload.content_type.unwrap_or("application/octet-stream");
    if allowed.is_some_and(|allowed| !allowed.iter().any(|known| known == kind)) {
        return Ok(Some((415, "InvalidMimeType", format!("mime type {kind} is not supported"))));
    }
    Ok(None)
}

/// Buckets with their settings.
pub(super) async fn bucket_list(state: &State) -> Result<Vec<Value>, Error> {
    let sql = "select to_jsonb(b)::text from storage.buckets b order by id";
    let rows = state.session.client.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap_or_default()).collect())
}

/// The files that rows name.
pub(super) async fn files(state: &State) -> Result<BTreeSet<PathBuf>, Error> {
    let sql = "select bucket_id, name, version from storage.objects
        where bucket_id is not null and name is not null and version is not null";
    let rows = state.session.client.query(sql, &[]).await?;
    Ok(rows.iter().map(|row| state.file(row.get(0), row.get(1), row.get(2))).collect())
}

/// Names of all buckets.
pub(super) async fn buckets(state: &State) -> Result<Vec<String>, Error> {
    let rows = state.session.client.query("select id from storage.buckets order by id", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Whether there is such a bucket.
pub(super) async fn has_bucket(state: &State, bucket: &str) -> Result<bool, Error> {
    let sql = "select 1 from storage.buckets where id = $1";
    Ok(state.session.client.query_opt(sql, &[&bucket]).await?.is_some())
}

/// Rows of a bucket after a key, in the order of their bytes.
pub(super) async fn after(state: &State, bucket: &str, key: &str, limit: i64) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "select {COLUMNS} from storage.objects where bucket_id = $1 and name collate \"C\" > $2 and archived_at is null
         order by name collate \"C\" limit $3"
    );
    let rows = state.session.client.query(&sql, &[&bucket, &key, &limit]).await?;
    Ok(rows.into_iter().map(Row::from).collect())
}

/// The row of an object.
pub(super) async fn find(state: &State, bucket: &str, key: &str) -> Result<Option<Row>, Error> {
    let sql = format!(
        "select {COLUMNS} from storage.objects where bucket_id = $1 and name = $2 and archived_at is null"
    );
    Ok(state.session.client.query_opt(&sql, &[&bucket, &key]).await?.map(Row::from))
}

/// Stores an object: its bytes under a new version, then its row, then the old bytes go. Returns
/// the etag.
pub(super) async fn store(state: &State, upload: &Upload<'_>, bytes: &[u8]) -> Result<String, Error> {
    // An upload of nothing to a folder makes the placeholder that the dashboard makes.
    let placeholder = format!("{}.emptyFolderPlaceholder", upload.key);
    let is_folder = bytes.is_empty() && upload.key.ends_with('/');
    let key = if is_folder { placeholder.as_str() } else { upload.key };
    let (version, etag) = (new_version()?, upload.etag.map_or_else(|| put_etag(bytes), str::to_owned));
    state.keep(upload.bucket, key, &version, bytes)?;
    if let Some(etag) = upload.etag {
        state.keep_etag(upload.bucket, key, &version, etag);
    }
    let mut metadata = Map::new();
    metadata.insert("eTag".to_owned(), etag.clone().into());
    metadata.insert("size".to_owned(), bytes.len().into());
    metadata.insert("contentLength".to_owned(), bytes.len().into());
    metadata.insert("httpStatusCode".to_owned(), 200.into());
    metadata.insert("mimetype".to_owned(), upload.content_type.unwrap_or("application/octet-stream").into());
    metadata.insert("cacheControl".to_owned(), upload.cache_control.unwrap_or("no-cache").into());
    if let Some(robots) = upload.robots {
        metadata.insert("xRobotsTag".to_owned(), robots.into());
    }
    let metadata = Value::Object(metadata).to_string();
    // The row keeps its id, owner, and time of creation; what an upload brings is replaced.
    let sql = "with old as (select version from storage.objects where bucket_id = $1 and name = $2)
        insert into storage.objects (bucket_id, name, version, metadata, user_metadata)
        values ($1, $2, $3, $4::text::jsonb || jsonb_build_object('lastModified',
            to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')), $5::text::jsonb)
        on conflict (bucket_id, name) do update set version = excluded.version, metadata = excluded.metadata,
            user_metadata = excluded.user_metadata
        returning (select version from old)";
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
        [&upload.bucket, &key, &version, &metadata, &upload.user_metadata];
    let old: Option<String> = state.session.client.query_one(sql, &params).await?.get(0);
    if let Some(old) = old.filter(|old| *old != version) {
        state.forget(upload.bucket, key, &old)?;
    }
    Ok(etag)
}

/// What became of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// The object is gone, with its bytes.
    Gone,
    /// There was none.
    NotThere,
    /// Another table refers to it.
    Referenced(String),
}

/// Removes an object with its bytes.
pub(super) async fn remove(state: &State, bucket: &str, key: &str) -> Result<Removed, Error> {
    let sql = "delete from storage.objects where bucket_id = $1 and name = $2 returning version";
    let row = match state.session.client.query_opt(sql, &[&bucket, &key]).await {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(Removed::NotThere),
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            let message = error.as_db_error().map(|error| error.message().to_owned());
            return Ok(Removed::Referenced(message.unwrap_or_default()));
        }
        Err(error) => return Err(error.into()),
    };
    lock(&state.served).deletes += 1;
    if let Some(version) = row.get::<_, Option<String>>(0) {
        state.forget(bucket, key, &version)?;
    }
    Ok(Removed::Gone)
}

/// Moves an object: the row keeps its id and gets a new version; the old bytes go.
pub(super) async fn rename(
    state: &State,
    from: (&str, &str),
    to: (&str, &str),
    row: &Row,
) -> Result<bool, Error> {
    let old = row.version.clone().unwrap_or_default();
    let Some(bytes) = state.bytes(from.0, from.1, &old)? else { return Ok(false) };
    let version = new_version()?;
    state.keep(to.0, to.1, &version, &bytes)?;
    let sql = "update storage.objects set bucket_id = $3, name = $4, version = $5, metadata = metadata - 'xRobotsTag'
        where bucket_id = $1 and name = $2";
    state.session.client.execute(sql, &[&from.0, &from.1, &to.0, &to.1, &version]).await?;
    state.forget(from.0, from.1, &old)?;
    lock(&state.served).moves += 1;
    Ok(true)
}

/// A version is a UUID.
pub(super) fn new_version() -> Result<String, Error> {
    let digits = hex::encode(disk::random::<16>()?);
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    Ok(format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)))
}
