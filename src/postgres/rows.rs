//! Exact counts and content hashes of tables, in the caller's snapshot.
//!
//! The hash of a table is the sum of `hashtextextended` over its rows as text. Postgres adds up
//! `bigint` in 128 bits, so the sum needs no cast to `numeric` to be exact (and is the same). `(t.*)::text` and
//! not `t::text`: a column named `t` would be taken instead. The text of a row depends on the
//! settings that [`PINNED`] fixes (each was seen to change it).

use crate::manifest::{Content, LargeObjects, quote_identifier};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// Settings that make the text of a row the same in every session. A lock is waited for as long as
/// `pg_dump` is told to.
pub const PINNED: &str = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
     set bytea_output = 'hex'; set extra_float_digits = 1; set search_path = ''; \
     set quote_all_identifiers = off; set lc_monetary = 'C'; set xmloption = 'content'; set row_security = off; \
     set standard_conforming_strings = on; \
     set statement_timeout = 0; set lock_timeout = '10s'; set idle_in_transaction_session_timeout = 0";

/// Count and content of a table `t`.
const MEASURE: &str =
    "count(*), coalesce(sum(pg_catalog.hashtextextended((t.*)::pg_catalog.text, 0)), 0)::text";

/// Settings of a fresh session that `pg_dump` leaves alone and that change the text of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Whether the time zone is UTC.
    pub is_utc: bool,
    /// Whether bytes come as hexadecimal digits.
    pub is_hex: bool,
}

/// Reads them; the session must be as it was opened.
pub async fn defaults(client: &Client) -> Result<Defaults, Error> {
    let sql = "select pg_catalog.current_setting('TimeZone') in ('UTC', 'Etc/UTC', 'GMT', 'Etc/GMT', 'Zulu'), \
         pg_catalog.current_setting('bytea_output') = 'hex'";
    let row = client.query_one(sql, &[]).await?;
    Ok(Defaults { is_utc: row.get(0), is_hex: row.get(1) })
}

/// Count and content of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Exact count.
    pub count: u64,
    /// Content hash.
    pub content: Content,
    /// Sum of hashes per column, in the order asked for.
    pub columns: Vec<String>,
}

/// Counts and hashes one table. Must run inside a transaction; a row that cannot be made text
/// (over one gigabyte) leaves the count and the reason.
pub async fn measure(
    client: &Client,
    schema: &str,
    name: &str,
    columns: &[String],
) -> Result<Measured, Error> {
    let table = format!("{}.{}", quote_identifier(schema), quote_identifier(name));
    measure_named(client, &table, columns).await
}

/// The same, for a name that is ready for SQL.
pub async fn measure_named(client: &Client, table: &str, columns: &[String]) -> Result<Measured, Error> {
    let per_column: String = columns
        .iter()
        .map(|column| {
            format!(
                ", coalesce(sum(pg_catalog.hashtextextended(t.{}::pg_catalog.text, 0)), 0)::text",
                quote_identifier(column)
            )
        })
        .collect::<Vec<_>>()
        .concat();
    let sql = format!("select {MEASURE}{per_column} from only {table} t");
    client.batch_execute("savepoint supa_safe_measure").await?;
    match client.query_one(&sql, &[]).await {
        Ok(row) => {
            client.batch_execute("release savepoint supa_safe_measure").await?;
            Ok(Measured {
                count: unsigned(row.get(0)),
                content: Content::Sum(row.get(1)),
                columns: (0..columns.len()).map(|index| row.get(index + 2)).collect(),
            })
        }
        Err(error) if is_unhashable(&error) => {
            let why = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
            client.batch_execute("rollback to savepoint supa_safe_measure").await?;
            let row = client.query_one(&format!("select count(*) from only {table}"), &[]).await?;
            client.batch_execute("release savepoint supa_safe_measure").await?;
            Ok(Measured { count: unsigned(row.get(0)), content: Content::Unhashed(why), columns: Vec::new() })
        }
        Err(error) => Err(error),
    }
}

/// Count of one table, and the sums of the hashes of its rows by two seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Twice {
    /// Exact count.
    pub count: u64,
    /// A sum by each seed.
    pub sums: [String; 2],
}

/// Counts and hashes a table by two seeds in one pass and one trip; nothing where a row cannot be hashed. Must run inside
/// a transaction.
pub async fn measure_twice(
    client: &Client,
    (schema, name): (&str, &str),
    seeds: [i64; 2],
) -> Result<Option<Twice>, Error> {
    let table = format!("{}.{}", quote_identifier(schema), quote_identifier(name));
    let sums = seeds
        .map(|seed| format!(", coalesce(sum(pg_catalog.hashtextextended(line, '{seed}'::bigint)), 0)::text"));
    // Without `offset` the text would be made for each of the sums.
    let sql = format!(
        "savepoint supa_safe_measure; \
         select count(*)::text{} from (select (t.*)::pg_catalog.text as line from only {table} t offset 0) lines; \
         release savepoint supa_safe_measure",
        sums.concat()
    );
    match client.simple_query(&sql).await {
        Ok(messages) => Ok(messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(Twice {
                count: row.get(0)?.parse().ok()?,
                sums: [row.get(1)?.to_owned(), row.get(2)?.to_owned()],
            }),
            _ => None,
        })),
        Err(error) if is_unhashable(&error) => {
            client
                .batch_execute("rollback to savepoint supa_safe_measure; release savepoint supa_safe_measure")
                .await?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Tables that one message measures: over a slow line a round trip for each would be most of the time.
const AT_ONCE: usize = 500;

/// Counts and hashes many tables, by schema and name. Must run inside a transaction.
pub async fn measure_all(client: &Client, tables: &[(&str, &str)]) -> Result<Vec<Measured>, Error> {
    let mut measured = Vec::with_capacity(tables.len());
    for some in tables.chunks(AT_ONCE) {
        match measure_some(client, some).await {
            Ok(found) => measured.extend(found),
            Err(error) if is_unhashable(&error) => {
                client.batch_execute("rollback to savepoint supa_safe_measure").await?;
                for (schema, name) in some {
                    measured.push(measure(client, schema, name, &[]).await?);
                }
                client.batch_execute("release savepoint supa_safe_measure").await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(measured)
}

/// Leaves the savepoint behind when it fails.
async fn measure_some(client: &Client, tables: &[(&str, &str)]) -> Result<Vec<Measured>, Error> {
    let selects = tables.iter().map(|(schema, name)| {
        let table = format!("{}.{}", quote_identifier(schema), quote_identifier(name));
        format!("select {MEASURE} from only {table} t;")
    });
    let selects = selects.collect::<Vec<_>>().concat();
    let messages = client
        .simple_query(&format!("savepoint supa_safe_measure; {selects} release savepoint supa_safe_measure"))
        .await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let measured = rows.map(|row| Measured {
        count: row.get(0).and_then(|count| count.parse().ok()).unwrap_or_default(),
        content: Content::Sum(row.get(1).unwrap_or_default().to_owned()),
        columns: Vec::new(),
    });
    Ok(measured.collect())
}

/// Counts the rows of one table.
pub async fn count(client: &Client, schema: &str, name: &str) -> Result<u64, Error> {
    let sql = format!("select count(*) from only {}.{}", quote_identifier(schema), quote_identifier(name));
    Ok(unsigned(client.query_one(&sql, &[]).await?.get(0)))
}

/// Errors of the row's text rather than of the connection or the table.
fn is_unhashable(error: &Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            SqlState::OUT_OF_MEMORY,
            SqlState::INTERNAL_ERROR,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::CANNOT_COERCE,
            SqlState::FEATURE_NOT_SUPPORTED,
        ]
        .contains(code)
    })
}

/// Counts and hashes the large objects that the role may read.
pub async fn large_objects(client: &Client) -> Result<LargeObjects, Error> {
    large_objects_among(client, None).await
}

/// The same of some of them.
pub async fn large_objects_among(client: &Client, some: Option<&[u32]>) -> Result<LargeObjects, Error> {
    let row = client
        .query_one(
            "select count(*), coalesce(sum(pg_catalog.hashtextextended(oid::text || ':' || pg_catalog.md5(pg_catalog.lo_get(oid)), 0)::numeric), 0)::text
             from pg_catalog.pg_largeobject_metadata where oid = any(coalesce($1, array[oid]))",
            &[&some],
        )
        .await?;
    Ok(LargeObjects { count: unsigned(row.get(0)), hash: row.get(1) })
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}
