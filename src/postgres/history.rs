//! The migration history as the Supabase CLI keeps it.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// One applied migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its version.
    pub version: String,
    /// Its statements as the CLI recorded them; `None` in rows that something else wrote.
    pub statements: Option<Vec<String>>,
}

/// Reads the history in order of version; empty when the table was never made.
///
/// Old CLIs made the table with the version alone, so the statements are read only where the
/// column exists.
pub async fn read(client: &Client) -> Result<Vec<Applied>, Error> {
    let shape = client
        .query_one(
            "select count(*) filter (where attname = 'version') > 0, count(*) filter (where attname = 'statements') > 0
             from pg_catalog.pg_attribute
             where attrelid = pg_catalog.to_regclass('supabase_migrations.schema_migrations') and not attisdropped",
            &[],
        )
        .await?;
    if !shape.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let statements = if shape.get(1) { "statements" } else { "null::text[]" };
    let sql =
        format!("select version, {statements} from supabase_migrations.schema_migrations order by version");
    let rows = client.query(&sql, &[]).await?;
    Ok(rows.iter().map(|row| Applied { version: row.get(0), statements: row.get(1) }).collect())
}

/// The versions alone, in order; none when the table was never made.
pub async fn versions(client: &Client) -> Result<Vec<String>, Error> {
    let table = "select pg_catalog.to_regclass('supabase_migrations.schema_migrations') is not null";
    if !client.query_one(table, &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows =
        client.query("select version from supabase_migrations.schema_migrations order by 1", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The versions alone, for somebody who must not wait: `None` while another session keeps readers out.
pub async fn versions_now(client: &Client) -> Result<Option<Vec<String>>, Error> {
    let table = "select pg_catalog.to_regclass('supabase_migrations.schema_migrations') is not null";
    if !client.query_one(table, &[]).await?.get::<_, bool>(0) {
        return Ok(Some(Vec::new()));
    }
    // One message is one transaction, and the setting ends with it.
    let messages = client
        .simple_query(
            "set local lock_timeout = '200ms'; select version from supabase_migrations.schema_migrations",
        )
        .await;
    match messages {
        Ok(messages) => Ok(Some(messages.iter().filter_map(version).collect())),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

fn version(message: &SimpleQueryMessage) -> Option<String> {
    match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    }
}
