//! Writes rows of `storage.objects` and `storage.buckets` back as they were.
//!
//! Columns are written by name, and only those that the live table has. A row whose place is taken
//! by a foreign one is parked: it keeps its id, which other tables may refer to, under a key of ours.

use super::{Error, Row};
use crate::manifest::quote_identifier;
use crate::manifest::storage::Object;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::io;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Rows that are sent at a time.
const PORTION: usize = 500;
/// Begins the key of a row that waits for its place.
const PARKING: &str = "supa-safe-rollback/";
/// The columns that an index records.
const COLUMNS: [&str; 11] = [
    "id",
    "bucket_id",
    "name",
    "version",
    "owner",
    "owner_id",
    "created_at",
    "updated_at",
    "last_accessed_at",
    "metadata",
    "user_metadata",
];

/// Where a row with this id waits for its place.
pub fn parking(id: &str) -> String {
    format!("{PARKING}{id}")
}

/// What keeps the triggers of the two tables from changing or refusing what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// They do not fire.
    All,
    /// Deletions pass; an update still sets `updated_at`, and users' own triggers fire.
    Deletions,
}

/// Keeps the triggers quiet for the rest of the transaction, as far as the role may.
///
/// The platform lets role `postgres` do so (`supautils.privileged_role_allowed_configs`); a vanilla
/// server does not.
pub async fn quieten(client: &Client) -> Result<Quiet, Error> {
    client.batch_execute("savepoint supa_safe_quiet").await.map_err(Error::Write)?;
    match client.batch_execute("set local session_replication_role = replica").await {
        Ok(()) => {
            client.batch_execute("release savepoint supa_safe_quiet").await.map_err(Error::Write)?;
            Ok(Quiet::All)
        }
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let allow = "rollback to savepoint supa_safe_quiet; release savepoint supa_safe_quiet; \
                set local storage.allow_delete_query = 'true'";
            client.batch_execute(allow).await.map_err(Error::Write)?;
            Ok(Quiet::Deletions)
        }
        Err(error) => Err(Error::Write(error)),
    }
}

/// Lets them fire again.
pub async fn waken(client: &Client, quiet: Quiet) -> Result<(), Error> {
    let sql = match quiet {
        Quiet::All => "set local session_replication_role = origin",
        Quiet::Deletions => "set local storage.allow_delete_query = ''",
    };
    client.batch_execute(sql).await.map_err(Error::Write)
}

/// A row to write: as it was, over the row that it is now, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Writing<'a> {
    /// As it was.
    pub was: &'a Object,
    /// The version that it shall have.
    pub version: Option<&'a str>,
    /// As it is.
    pub now: Option<&'a Row>,
}

/// How a row travels to the server.
#[derive(Serialize)]
struct Sent<'a> {
    id: &'a str,
    bucket_id: Option<&'a str>,
    name: Option<&'a str>,
    version: Option<&'a str>,
    owner: Option<&'a str>,
    owner_id: Option<&'a str>,
    created_at: Option<&'a str>,
    updated_at: Option<&'a str>,
    last_accessed_at: Option<&'a str>,
    metadata: Option<&'a RawValue>,
    user_metadata: Option<&'a RawValue>,
    now_id: Option<&'a str>,
    now_bucket: Option<&'a str>,
    now_name: Option<&'a str>,
    now_version: Option<&'a str>,
}

impl<'a> Sent<'a> {
    fn of(writing: &Writing<'a>) -> Self {
        let Writing { was, version, now } = *writing;
        Self {
            id: &was.id,
            bucket_id: was.bucket.as_deref(),
            name: was.key.as_deref(),
            version,
            owner: was.owner.as_deref(),
            owner_id: was.owner_id.as_deref(),
            created_at: was.created_at.as_deref(),
            updated_at: was.updated_at.as_deref(),
            last_accessed_at: was.last_accessed_at.as_deref(),
            metadata: was.metadata.as_deref(),
            user_metadata: was.user_metadata.as_deref(),
            now_id: now.map(|row| row.id.as_str()),
            now_bucket: now.and_then(|row| row.bucket_id.as_deref()),
            now_name: now.and_then(|row| row.name.as_deref()),
            now_version: now.and_then(|row| row.version.as_deref()),
        }
    }
}

fn portions<'a>(rows: &'a [Writing<'a>]) -> impl Iterator<Item = Result<String, Error>> + 'a {
    rows.chunks(PORTION).map(|rows| {
        let sent: Vec<Sent<'_>> = rows.iter().map(Sent::of).collect();
        Ok(serde_json::to_string(&sent).map_err(io::Error::from)?)
    })
}

/// The columns of a table of schema `storage` that can be written.
async fn writable_columns(client: &Client, table: &str) -> Result<Vec<String>, Error> {
    let sql = "select attname::text from pg_catalog.pg_attribute
        where attrelid = pg_catalog.to_regclass('storage.' || $1) and attnum > 0 and not attisdropped and attgenerated = ''
        order by attnum";
    Ok(client.query(sql, &[&table]).await?.into_iter().map(|row| row.get(0)).collect())
}

/// Those of them that an index records.
async fn object_columns(client: &Client) -> Result<Vec<String>, Error> {
    let all = writable_columns(client, "objects").await?;
    Ok(all.into_iter().filter(|name| COLUMNS.contains(&name.as_str())).collect())
}

/// A row's target, or its parking when a row that is none of those sent stands there.
fn place(own_id: &str) -> String {
    format!(
        "case when exists (select from storage.objects x where x.bucket_id = r.bucket_id and x.name = r.name
            and x.id is distinct from {own_id}) then '{PARKING}' || r.id else r.name end"
    )
}

const SENT: &str = "pg_catalog.jsonb_array_elements($1::text::jsonb) s,
    pg_catalog.jsonb_populate_record(null::storage.objects, s) r";

/// Writes rows over those that they are now. First every row that changes its place leaves it, so
/// that chains and swaps of keys come out. A row that changed meanwhile is left alone. Returns how
/// many were written.
pub async fn rewrite(client: &Client, rows: &[Writing<'_>]) -> Result<u64, Error> {
    let columns = object_columns(client).await?;
    let leave = format!(
        "update storage.objects o set name = '{PARKING}' || r.id from {SENT}
         where o.id = (s ->> 'now_id')::uuid and o.version is not distinct from s ->> 'now_version'
           and o.bucket_id is not distinct from s ->> 'now_bucket' and o.name is not distinct from s ->> 'now_name'
           and (o.bucket_id is distinct from r.bucket_id or o.name is distinct from r.name)"
    );
    let set: Vec<String> = columns
        .iter()
        .map(|column| match column.as_str() {
            "name" => format!("name = {}", place("o.id")),
            column => format!("{0} = r.{0}", quote_identifier(column)),
        })
        .collect();
    let write = format!(
        "update storage.objects o set {} from {SENT}
         where o.id = (s ->> 'now_id')::uuid and o.version is not distinct from s ->> 'now_version'
           and o.bucket_id is not distinct from s ->> 'now_bucket'
           and (o.name is not distinct from s ->> 'now_name' or o.name = '{PARKING}' || r.id)",
        set.join(", ")
    );
    for portion in portions(rows) {
        client.execute(&leave, &[&portion?]).await.map_err(Error::Write)?;
    }
    let mut written = 0;
    for portion in portions(rows) {
        written += client.execute(&write, &[&portion?]).await.map_err(Error::Write)?;
    }
    Ok(written)
}

/// Writes some columns of rows that nobody wrote since they were read. Returns how many were written.
pub async fn write_columns(
    client: &Client,
    rows: &[Writing<'_>],
    wanted: &BTreeSet<String>,
) -> Result<u64, Error> {
    let columns = object_columns(client).await?;
    let columns = columns.iter().filter(|column| wanted.contains(*column));
    let set: Vec<String> = columns.map(|column| format!("{0} = r.{0}", quote_identifier(column))).collect();
    if set.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "update storage.objects o set {} from {SENT}
         where o.id = (s ->> 'now_id')::uuid and o.version is not distinct from s ->> 'now_version'",
        set.join(", ")
    );
    let mut written = 0;
    for portion in portions(rows) {
        written += client.execute(&sql, &[&portion?]).await.map_err(Error::Write)?;
    }
    Ok(written)
}

/// Removes rows without bytes that nobody wrote since they were read, with triggers awake: what other
/// tables refer to stays, and so do all of them then. Returns how many went.
pub async fn withdraw(client: &Client, rows: &[&Row], buckets: &[String]) -> Result<u64, Error> {
    let begin = "savepoint supa_safe_withdraw; set local storage.allow_delete_query = 'true'";
    client.batch_execute(begin).await.map_err(Error::Write)?;
    let (ids, versions): (Vec<&str>, Vec<Option<&str>>) =
        rows.iter().map(|row| (row.id.as_str(), row.version.as_deref())).unzip();
    let objects = "delete from storage.objects o
        using rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) gone (id, version)
        where o.id = gone.id::uuid and o.version is not distinct from gone.version";
    let empty = "delete from storage.buckets b where id = any($1)
        and not exists (select from storage.objects o where o.bucket_id = b.id)";
    let deleted = async {
        Ok::<_, tokio_postgres::Error>(
            client.execute(objects, &[&ids, &versions]).await? + client.execute(empty, &[&buckets]).await?,
        )
    };
    match deleted.await {
        Ok(gone) => {
            let end = "set local storage.allow_delete_query = ''; release savepoint supa_safe_withdraw";
            client.batch_execute(end).await.map_err(Error::Write)?;
            Ok(gone)
        }
        Err(error) if error.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            client.batch_execute("rollback to savepoint supa_safe_withdraw").await.map_err(Error::Write)?;
            Ok(0)
        }
        Err(error) => Err(Error::Write(error)),
    }
}

/// Inserts rows that are gone, where none has their id again. Returns how many were inserted.
pub async fn insert(client: &Client, rows: &[Writing<'_>]) -> Result<u64, Error> {
    let columns = object_columns(client).await?;
    let names: Vec<String> = columns.iter().map(|column| quote_identifier(column)).collect();
    let values: Vec<String> = columns
        .iter()
        .map(|column| match column.as_str() {
            "name" => place("r.id"),
            column => format!("r.{}", quote_identifier(column)),
        })
        .collect();
    let sql = format!(
        "insert into storage.objects ({}) select {} from {SENT}
         where not exists (select from storage.objects o where o.id = r.id)",
        names.join(", "),
        values.join(", ")
    );
    let mut inserted = 0;
    for portion in portions(rows) {
        inserted += client.execute(&sql, &[&portion?]).await.map_err(Error::Write)?;
    }
    Ok(inserted)
}

/// Gives rows that stand where they shall every column that an upload does not set, or sets anew.
/// Of their metadata the etag is that of the bytes as they are now. Rows that are so already are not
/// written.
pub async fn mend(client: &Client, rows: &[Writing<'_>], quiet: Quiet) -> Result<u64, Error> {
    let columns = object_columns(client).await?;
    let has = |name: &str| columns.iter().any(|column| column == name);
    let metadata =
        "case when o.version is distinct from r.version and r.metadata ? 'eTag' and o.metadata ? 'eTag'
        then r.metadata || jsonb_build_object('eTag', o.metadata -> 'eTag') else r.metadata end";
    let kept = ["id", "bucket_id", "name", "version"];
    let pairs: Vec<(String, String)> = columns
        .iter()
        .filter(|column| !kept.contains(&column.as_str()))
        .map(|column| match column.as_str() {
            "metadata" => (column.clone(), metadata.to_owned()),
            name => (quote_identifier(name), format!("r.{}", quote_identifier(name))),
        })
        .collect();
    let set: Vec<String> = pairs.iter().map(|(column, value)| format!("{column} = {value}")).collect();
    // Where the trigger sets the time again, a row that differs in it alone would never be done.
    let compared = |column: &str| quiet == Quiet::All || column != "updated_at";
    let differs: Vec<String> = pairs
        .iter()
        .filter(|(column, _)| compared(column))
        .map(|(column, value)| format!("o.{column} is distinct from {value}"))
        .collect();
    if !has("metadata") || set.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "update storage.objects o set {} from {SENT}
         where o.id = r.id and o.bucket_id = r.bucket_id and o.name = r.name and ({})",
        set.join(", "),
        differs.join(" or ")
    );
    let mut mended = 0;
    for portion in portions(rows) {
        mended += client.execute(&sql, &[&portion?]).await.map_err(Error::Write)?;
    }
    Ok(mended)
}

/// The rows with these ids.
pub async fn by_ids(client: &Client, ids: &[&str]) -> Result<Vec<Row>, Error> {
    let sql = "select pg_catalog.to_jsonb(o)::text from storage.objects o
        join pg_catalog.unnest($1::text[]) wanted on o.id = wanted::uuid
        where pg_catalog.to_jsonb(o) ->> 'archived_at' is null
        order by o.bucket_id collate \"C\", o.name collate \"C\"";
    rows(client.query(sql, &[&ids]).await?)
}

/// The rows that stand at these places.
pub async fn at(client: &Client, places: &[(&str, &str)]) -> Result<Vec<Row>, Error> {
    let (buckets, keys): (Vec<&str>, Vec<&str>) = places.iter().copied().unzip();
    let sql = "select pg_catalog.to_jsonb(o)::text from storage.objects o
        join rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) wanted (bucket, key)
            on o.bucket_id = bucket and o.name = key
        where pg_catalog.to_jsonb(o) ->> 'archived_at' is null";
    rows(client.query(sql, &[&buckets, &keys]).await?)
}

fn rows(found: Vec<tokio_postgres::Row>) -> Result<Vec<Row>, Error> {
    let read = |row: tokio_postgres::Row| serde_json::from_str(row.get(0)).map_err(io::Error::from);
    Ok(found.into_iter().map(read).collect::<Result<_, _>>()?)
}

/// Gives a row another place; its bytes stay where they are. False when it changed meanwhile, or
/// the place is taken.
pub async fn rename(client: &Client, row: &Row, to: (&str, &str)) -> Result<bool, Error> {
    let sql = "update storage.objects o set bucket_id = $3, name = $4
        where id = $1::text::uuid and version is not distinct from $2
          and not exists (select from storage.objects x where x.bucket_id = $3 and x.name = $4)";
    Ok(client.execute(sql, &[&row.id, &row.version, &to.0, &to.1]).await.map_err(Error::Write)? == 1)
}

/// Lets two rows change places, with what belongs to the bytes: each keeps its id and what people
/// gave it. Does nothing, and says so, when one of them is not as it was read.
pub async fn exchange(client: &Client, one: &Row, other: &Row) -> Result<bool, Error> {
    let as_read = "select from storage.objects
        where id = $1::text::uuid and bucket_id is not distinct from $2 and name is not distinct from $3
            and version is not distinct from $4
        for update";
    for row in [one, other] {
        let found = client.query(as_read, &[&row.id, &row.bucket_id, &row.name, &row.version]).await?;
        if found.is_empty() {
            return Ok(false);
        }
    }
    let park = "update storage.objects set name = $2 where id = $1::text::uuid";
    let set = "update storage.objects set bucket_id = $2, name = $3, version = $4, metadata = $5::text::jsonb
        where id = $1::text::uuid";
    let raw = |row: &Row| row.metadata.as_ref().map(|raw| raw.get().to_owned());
    // Not its own parking: that may be where it shall go.
    client.execute(park, &[&one.id, &format!("{}/out", parking(&one.id))]).await.map_err(Error::Write)?;
    client
        .execute(set, &[&other.id, &one.bucket_id, &one.name, &one.version, &raw(one)])
        .await
        .map_err(Error::Write)?;
    client
        .execute(set, &[&one.id, &other.bucket_id, &other.name, &other.version, &raw(other)])
        .await
        .map_err(Error::Write)?;
    Ok(true)
}

/// Removes rows whose bytes no request can name.
pub async fn delete(client: &Client, ids: &[&str]) -> Result<u64, Error> {
    let sql =
        "delete from storage.objects o using pg_catalog.unnest($1::text[]) gone where o.id = gone::uuid";
    client.execute(sql, &[&ids]).await.map_err(Error::Write)
}

/// Inserts the row of a bucket, or writes these columns of it over the one that is there; all, if there are none.
pub async fn write_bucket(client: &Client, row: &RawValue, changed: &[String]) -> Result<(), Error> {
    let columns = bucket_columns(client, row).await?;
    let changed: Vec<String> = changed.iter().map(|name| quote_identifier(name)).collect();
    let written = columns.iter().filter(|column| changed.is_empty() || changed.contains(column));
    let names = columns.join(", ");
    let values: Vec<String> = columns.iter().map(|column| format!("r.{column}")).collect();
    let set: Vec<String> = written.map(|column| format!("{column} = excluded.{column}")).collect();
    let sql = format!(
        "insert into storage.buckets ({names})
         select {} from pg_catalog.jsonb_populate_record(null::storage.buckets, $1::text::jsonb) r
         on conflict (id) do update set {}",
        values.join(", "),
        set.join(", ")
    );
    client.execute(&sql, &[&row.get()]).await.map_err(Error::Write)?;
    Ok(())
}

/// The columns of a bucket's row that the live table has.
async fn bucket_columns(client: &Client, row: &RawValue) -> Result<Vec<String>, Error> {
    let known: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(row.get()).map_err(io::Error::from)?;
    let all = writable_columns(client, "buckets").await?;
    Ok(all.iter().filter(|name| known.contains_key(*name)).map(|name| quote_identifier(name)).collect())
}

/// Lifts what buckets allow to be uploaded: an object may be older than the limit. Returns what they allowed, as
/// far as they limited anything, each bucket with its id.
pub async fn lift_limits(client: &Client, buckets: &[&str]) -> Result<Vec<serde_json::Value>, Error> {
    let sql = "with limited as (
            select id, file_size_limit, allowed_mime_types from storage.buckets
            where id = any ($1) and (file_size_limit is not null or allowed_mime_types is not null)
            order by id for update
        ), lifted as (
            update storage.buckets b set file_size_limit = null, allowed_mime_types = null
            from limited l where b.id = l.id
        )
        select pg_catalog.to_jsonb(l)::text from limited l";
    let limited = client.query(sql, &[&buckets]).await.map_err(Error::Write)?;
    let read = |row: tokio_postgres::Row| serde_json::from_str(row.get(0)).map_err(io::Error::from);
    Ok(limited.into_iter().map(read).collect::<Result<_, _>>()?)
}

/// Sets each of those limits as in a bucket's row, where it is lifted: another one is somebody's since.
pub async fn set_limits(client: &Client, row: &str) -> Result<(), Error> {
    let sql = "update storage.buckets b set file_size_limit = coalesce(b.file_size_limit, r.file_size_limit),
            allowed_mime_types = coalesce(b.allowed_mime_types, r.allowed_mime_types)
        from pg_catalog.jsonb_populate_record(null::storage.buckets, $1::text::jsonb) r
        where b.id = r.id and (b.file_size_limit is null and r.file_size_limit is not null
            or b.allowed_mime_types is null and r.allowed_mime_types is not null)";
    client.execute(sql, &[&row]).await.map_err(Error::Write)?;
    Ok(())
}

/// Removes the row of a bucket that has no objects; whether it is gone.
pub async fn remove_bucket(client: &Client, bucket: &str) -> Result<bool, Error> {
    let sql = "delete from storage.buckets b where id = $1
        and not exists (select from storage.objects o where o.bucket_id = b.id)";
    Ok(client.execute(sql, &[&bucket]).await.map_err(Error::Write)? == 1)
}
