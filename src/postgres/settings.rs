//! What belongs to a database as such (owner, privileges, settings), which no archive without
//! `--create` holds, as statements that another database can run.

use tokio_postgres::{Client, Error};

/// Statements that give the database in which they run the owner, the privileges, and the settings
/// of this one.
///
/// Each is a `do` block, since none of these commands takes `current_database()`. A list setting is
/// stored ready quoted and goes as it is; every other value is quoted here
/// (`src/bin/pg_dump/dumputils.c`, `variable_is_guc_list_quote`).
pub async fn statements(client: &Client) -> Result<Vec<String>, Error> {
    let rows = client.query(include_str!("sql/settings.sql"), &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
