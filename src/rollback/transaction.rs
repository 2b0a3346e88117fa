//! The transaction in which a database goes back.

use super::Error;
use crate::postgres::connect::NOTICE_SILENCE;
use crate::postgres::rows;
use std::time::Duration;
use tokio_postgres::Client;

/// Begins the transaction, which waits for each lock so long; returns its id.
pub(super) async fn begin(client: &Client, patience: Duration) -> Result<String, Error> {
    // Servers before 17 do not know it.
    let unhurried = "select pg_catalog.set_config(name, '0', false) from pg_catalog.pg_settings where name = 'transaction_timeout'";
    client.batch_execute(unhurried).await?;
    // What is committed while it waits for a lock must be seen: a role may have another default.
    client.batch_execute("begin isolation level read committed").await?;
    let patience = patience.as_millis();
    let pinned = format!("{}; {NOTICE_SILENCE}; set lock_timeout = '{patience}ms'", rows::PINNED);
    client.batch_execute(&pinned).await?;
    id(client).await
}

pub(super) async fn id(client: &Client) -> Result<String, Error> {
    Ok(client.query_one("select pg_catalog.pg_current_xact_id()::text", &[]).await?.get(0))
}
