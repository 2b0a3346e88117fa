//! What the transactions of a push left behind in the database at hand, whatever the rehearsal saw.

use super::{Error, closure, history, live};
use crate::postgres::rows;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::BTreeMap;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Tables that are asked for at once, each by a statement of its own, so that no table is held for another.
const AT_ONCE: usize = 50;
/// Blocks that are read in all, the smallest tables first: 8 GiB where a block has 8 KiB.
const BLOCKS: i64 = 1 << 20;
/// How long one table may take: somebody waits for the rollback.
const BRIEF: &str = "set statement_timeout = '10s'; set lock_timeout = '1s'";
/// Blocks of tables that the session may read, as of the last `ANALYZE`.
const SIZES: &str = "
    select c.oid, c.relpages::int8 from pg_catalog.pg_class c
    where c.oid = any($1) and pg_catalog.has_table_privilege(c.oid, 'SELECT')";

/// Where rows of a push stand.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// The tables.
    pub tables: Vec<String>,
    /// Those that were not read: nobody may, somebody has them locked, or there is too much to read.
    pub unread: Vec<String>,
}

/// The user's tables, but those that are named already, that hold a row as these versions wrote it. A trigger,
/// or a branch of a block, may write where the copy had no row for it. Rows that went there, those that a block
/// with an exception handler wrote, and files that are not all-or-nothing leave no such trace: a row has the
/// number of the transaction, or subtransaction, that made it (`htup_details.h`).
pub async fn tables(client: &Client, versions: &[String], named: &[String]) -> Result<Written, Error> {
    if versions.is_empty() || !history::is_there(client).await? {
        return Ok(Written::default());
    }
    let numbers = client.query(history::TRANSACTIONS, &[&versions]).await?;
    let numbers: Vec<String> = numbers.iter().map(|row| row.get(0)).collect();
    let numbers = numbers.join(",");
    let tables = live::tables(client).await?;
    let asked: Vec<&live::Table> = tables
        .iter()
        .filter(|table| table.has_rows && !table.is_history() && !closure::is_named(named, table))
        .collect();
    let oids: Vec<u32> = asked.iter().map(|table| table.oid).collect();
    let sizes: BTreeMap<u32, i64> =
        client.query(SIZES, &[&oids]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
    let (small, unread) = affordable(asked, |table| sizes.get(&table.oid).copied());
    client.batch_execute(BRIEF).await?;
    let looks = small.iter().map(|table| holds(client, table, &numbers));
    let found: Vec<Option<bool>> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    client.batch_execute(rows::PINNED).await?;
    let of = |wanted: Option<bool>| {
        let named = small.iter().zip(&found).filter(move |(_, found)| **found == wanted);
        named.map(|(table, _)| table.qualified())
    };
    let mut written = Written { tables: of(Some(true)).collect(), unread: of(None).collect() };
    written.unread.extend(unread.into_iter().map(live::Table::qualified));
    written.tables.sort_unstable();
    written.unread.sort_unstable();
    Ok(written)
}

/// What can be read within [`BLOCKS`], the smallest first, and what cannot: it is too much, or has no size, since
/// nobody may read it.
fn affordable<T>(asked: Vec<T>, blocks: impl Fn(&T) -> Option<i64>) -> (Vec<T>, Vec<T>) {
    let (mut readable, mut others): (Vec<T>, Vec<T>) =
        asked.into_iter().partition(|one| blocks(one).is_some());
    readable.sort_by_key(&blocks);
    let mut left = BLOCKS;
    let is_small = |one: &T| {
        left -= blocks(one).unwrap_or_default().max(1);
        left >= 0
    };
    let (small, large): (Vec<T>, Vec<T>) = readable.into_iter().partition(is_small);
    others.extend(large);
    (small, others)
}

/// Whether a table holds a row of these transactions; nothing when the server does not say.
async fn holds(client: &Client, table: &live::Table, numbers: &str) -> Result<Option<bool>, Error> {
    let sql = format!(
        "select 1 where exists (select from only {} t where t.xmin = any('{{{numbers}}}'::xid[]))",
        table.sql()
    );
    match client.simple_query(&sql).await {
        Ok(said) => Ok(Some(said.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))))),
        Err(error) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_are_read_and_what_nobody_may_read_costs_nothing() {
        let tables = vec![("closed", None), ("huge", Some(BLOCKS)), ("small", Some(2)), ("new", Some(-1))];
        let names = |tables: Vec<(&'static str, Option<i64>)>| -> Vec<&str> {
            tables.into_iter().map(|(name, _)| name).collect()
        };
        let (read, unread) = affordable(tables, |(_, blocks)| *blocks);
        assert_eq!((names(read), names(unread)), (vec!["new", "small"], vec!["closed", "huge"]));
    }
}
