//! What the transactions of a push left behind in the database at hand, whatever the rehearsal saw.

use super::{Error, closure, live};
use crate::postgres::rows;
use tokio_postgres::Client;

/// Tables that are asked at once.
const AT_ONCE: usize = 100;
/// The numbers of the transactions that these versions came with.
pub(super) const TRANSACTIONS: &str =
    "select distinct h.xmin::text from supabase_migrations.schema_migrations h where h.version = any($1)";

/// The user's tables, but those that are named already, that hold a row as these versions wrote it. A trigger,
/// or a branch of a block, may write where the copy had no row for it. Rows that went there, and files that
/// are not all-or-nothing, leave no such trace (`htup_details.h`: a row has the number of who made it).
///
/// It reads these tables, and keeps nobody waiting.
pub async fn tables(client: &Client, versions: &[String], named: &[String]) -> Result<Vec<String>, Error> {
    let history = "select pg_catalog.to_regclass('supabase_migrations.schema_migrations') is not null";
    if versions.is_empty() || !client.query_one(history, &[]).await?.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    client.batch_execute(rows::PINNED).await?;
    let numbers = client.query(TRANSACTIONS, &[&versions]).await?;
    let numbers: Vec<String> = numbers.iter().map(|row| row.get(0)).collect();
    let numbers = numbers.join(",");
    let tables = live::tables(client).await?;
    let asked: Vec<&live::Table> = tables
        .iter()
        .filter(|table| table.has_rows && !table.is_history() && !closure::is_named(named, table))
        .collect();
    let mut found = Vec::new();
    for some in asked.chunks(AT_ONCE) {
        let selects = some.iter().enumerate().map(|(rank, table)| {
            let name = table.sql();
            format!(
                "select {rank} where exists (select from only {name} t where t.xmin = any('{{{numbers}}}'::xid[]))"
            )
        });
        let sql = selects.collect::<Vec<_>>().join(" union all ");
        for row in client.query(&sql, &[]).await? {
            let rank: i32 = row.get(0);
            let table = usize::try_from(rank).ok().and_then(|rank| some.get(rank));
            found.extend(table.map(|table| table.qualified()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
