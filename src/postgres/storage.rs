//! Rows of `storage.buckets` and `storage.objects`.
//!
//! Rows travel as JSON that the server makes of whatever columns there are: supabase/storage adds
//! some every few months. Rows of archived versions (a column since 2026-08) are left out.

pub mod back;
mod row;

pub use row::{Row, Told, address};

use std::collections::BTreeMap;
use std::io;
use tokio_postgres::Client;

/// Rows that are fetched at a time.
const FETCH: &str = "fetch 2000 from supa_safe_objects";

/// Why rows could not be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused.
    #[error("cannot read the rows of schema storage")]
    Query(#[from] tokio_postgres::Error),
    /// The server refused to write them.
    #[error("cannot write to the rows of schema storage")]
    Write(#[source] tokio_postgres::Error),
    /// Whoever takes the rows could not.
    #[error("cannot keep the rows of schema storage")]
    Io(#[from] io::Error),
}

/// Whether the database has Storage's tables.
pub async fn has_tables(client: &Client) -> Result<bool, Error> {
    let sql = "select pg_catalog.to_regclass('storage.objects') is not null
        and pg_catalog.to_regclass('storage.buckets') is not null";
    Ok(client.query_one(sql, &[]).await?.get(0))
}

/// Objects of each bucket that has any.
pub async fn counts(client: &Client) -> Result<BTreeMap<Option<String>, u64>, Error> {
    let sql = "select bucket_id, count(*) from storage.objects o
        where pg_catalog.to_jsonb(o) ->> 'archived_at' is null group by 1";
    let rows = client.query(sql, &[]).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or_default()))
        .collect())
}

/// Objects of one bucket.
pub async fn count(client: &Client, bucket: &str) -> Result<u64, Error> {
    let sql = "select count(*) from storage.objects o
        where bucket_id = $1 and pg_catalog.to_jsonb(o) ->> 'archived_at' is null";
    let count: i64 = client.query_one(sql, &[&bucket]).await?.get(0);
    Ok(u64::try_from(count).unwrap_or_default())
}

/// The buckets, each a JSON object of its whole row.
pub async fn buckets(client: &Client) -> Result<Vec<String>, Error> {
    let sql = "select pg_catalog.to_jsonb(b)::text from storage.buckets b order by id collate \"C\"";
    Ok(client.query(sql, &[]).await?.into_iter().map(|row| row.get(0)).collect())
}

/// Hands over every object in the order of the bytes of bucket and key, each a JSON object of its
/// row. Must run inside a transaction; rows come in portions, however many there are.
pub async fn each_object(client: &Client, mut take: impl FnMut(&str) -> io::Result<()>) -> Result<(), Error> {
    client
        .batch_execute(
            "declare supa_safe_objects no scroll cursor for
             select row::text from (select pg_catalog.to_jsonb(o) as row, bucket_id, name, id from storage.objects o) o
             where row ->> 'archived_at' is null
             order by bucket_id collate \"C\" nulls first, name collate \"C\" nulls first, id",
        )
        .await?;
    loop {
        let rows = client.query(FETCH, &[]).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            take(row.get(0))?;
        }
    }
    Ok(client.batch_execute("close supa_safe_objects").await?)
}
