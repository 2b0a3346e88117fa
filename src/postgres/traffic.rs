//! How many rows were written to tables, by the server's own counters.

use std::collections::BTreeMap;
use tokio_postgres::{Client, Error};

/// Rows inserted, updated, and deleted since the counters were reset, by qualified name.
pub type Counts = BTreeMap<String, [u64; 3]>;

/// Reads the counters of tables, named as `format('%I.%I')` names them.
pub async fn read(client: &Client, tables: &[String]) -> Result<Counts, Error> {
    let rows = client
        .query(
            "select pg_catalog.format('%I.%I', schemaname, relname), n_tup_ins, n_tup_upd, n_tup_del
             from pg_catalog.pg_stat_all_tables
             where pg_catalog.format('%I.%I', schemaname, relname) = any($1)",
            &[&tables],
        )
        .await?;
    let count = |value: i64| u64::try_from(value).unwrap_or_default();
    Ok(rows.iter().map(|row| (row.get(0), [1, 2, 3].map(|index| count(row.get(index))))).collect())
}
