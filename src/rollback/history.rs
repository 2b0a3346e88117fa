//! The history of migrations: whose versions stand must not change between the choice and the commit, since
//! what somebody else pushes meanwhile would go back in part.

use super::{Error, Work};
use crate::postgres::history;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// The table.
const TABLE: &str = "supabase_migrations.schema_migrations";

/// The numbers of the transactions that versions came with.
pub(super) const TRANSACTIONS: &str =
    "select distinct h.xmin::text from supabase_migrations.schema_migrations h where h.version = any($1)";

/// Whether a database has one.
pub(super) async fn is_there(client: &Client) -> Result<bool, Error> {
    let sql = format!("select pg_catalog.to_regclass('{TABLE}') is not null");
    Ok(client.query_one(&sql, &[]).await?.get(0))
}

impl Work<'_> {
    pub(super) async fn has_history(&self) -> Result<bool, Error> {
        is_there(self.client).await
    }

    /// Keeps every push out, and demands that the history is the one that the choice was made by: that of the
    /// snapshot, and the versions that go.
    pub(super) async fn hold_history(&self) -> Result<(), Error> {
        if self.has_history().await? {
            let sql = format!("lock table {TABLE} in share row exclusive mode");
            self.client.batch_execute(&sql).await.map_err(Error::at("lock the history"))?;
        }
        let recorded = &self.task.snapshot.manifest.database.history;
        self.demand_history(recorded.iter().chain(self.task.versions)).await
    }

    /// Takes the versions out of the history, which stays otherwise.
    pub(super) async fn forget(&self) -> Result<(), Error> {
        if self.task.versions.is_empty() || !self.has_history().await? {
            return Ok(());
        }
        let sql = format!("delete from {TABLE} where version = any($1)");
        let done = self.client.execute(&sql, &[&self.task.versions]).await;
        done.map(drop).map_err(Error::at("correct the history"))
    }

    /// Demands that the history is that of the snapshot.
    pub(super) async fn prove_history(&self) -> Result<(), Error> {
        self.demand_history(self.task.snapshot.manifest.database.history.iter()).await
    }

    async fn demand_history(&self, wanted: impl Iterator<Item = &String>) -> Result<(), Error> {
        let live: BTreeSet<String> = history::versions(self.client).await?.into_iter().collect();
        let wanted: BTreeSet<String> = wanted.cloned().collect();
        if live == wanted {
            return Ok(());
        }
        let only =
            |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect();
        Err(Error::History { came: only(&live, &wanted), went: only(&wanted, &live) })
    }
}
