//! Who waits for whom on the target.

use super::sessions::Backend;
use crate::effect::LockHeld;
use crate::event::Holder;
use crate::migration::masked;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::{Client, Error};

/// How long a vacuum is waited for: longer than the server waits before it ends one.
const OUTWAITS: Duration = Duration::from_millis(1500);
/// Tables that somebody vacuums.
const VACUUMED: &str = "
    select distinct l.relation
    from pg_catalog.pg_locks l
    join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
    where l.granted and l.mode = 'ShareUpdateExclusiveLock' and l.relation = any($1)";

/// A session that waits for a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    /// Its backend.
    pub pid: i32,
    /// How long it has waited.
    pub seconds: f64,
    /// Backends that hold the lock, or stand before it in the queue.
    pub behind: Vec<i32>,
    /// What it waits for, in words.
    pub what: String,
}

/// Every wait for a lock on the server, the longest first.
///
/// `pg_locks` shows everybody's to every role; `pg_blocking_pids` stops the lock manager for a moment,
/// and is asked about sessions that wait, and nobody else.
pub async fn waits(client: &Client) -> Result<Vec<Wait>, Error> {
    let rows = client
        .query(
            "select l.pid, coalesce(extract(epoch from pg_catalog.clock_timestamp() - l.waitstart), 0)::float8,
                    pg_catalog.pg_blocking_pids(l.pid),
                    case when c.oid is not null then pg_catalog.format('a lock on %I.%I', n.nspname, c.relname)
                         when l.locktype = 'transactionid' then 'the end of a transaction that changed the same row'
                         else 'a lock (' || l.locktype || ')' end
             from pg_catalog.pg_locks l
             left join pg_catalog.pg_class c on c.oid = l.relation
               and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
             left join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where not l.granted and l.pid <> pg_catalog.pg_backend_pid()
             order by 2 desc, 1",
            &[],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Wait { pid: row.get(0), seconds: row.get(1), behind: row.get(2), what: row.get(3) })
        .collect())
}

/// Lets a vacuum of a table make way: the server ends it for whoever waits long enough (PostgreSQL documentation,
/// `deadlock_timeout`). The lock that is asked for here keeps nobody from reading and writing. The tables come by id
/// and by name as SQL wants it.
pub async fn outwait_vacuum(client: &Client, tables: &[(u32, String)]) -> Result<(), Error> {
    let oids: Vec<u32> = tables.iter().map(|(oid, _)| *oid).collect();
    let vacuumed = client.query(VACUUMED, &[&oids]).await?;
    for (_, table) in tables.iter().filter(|(oid, _)| vacuumed.iter().any(|row| row.get::<_, u32>(0) == *oid))
    {
        let sql = format!(
            "begin; set local lock_timeout = '{}ms'; lock table only {table} in share update exclusive mode",
            OUTWAITS.as_millis()
        );
        let outcome = client.batch_execute(&sql).await;
        client.batch_execute("rollback").await?;
        // What does not make way shows when the tables are locked.
        if outcome.is_err_and(|error| error.as_db_error().is_none()) {
            break;
        }
    }
    Ok(())
}

/// Whom a wait is for in the end: those who wait for nobody themselves.
pub fn roots(waits: &[Wait], wait: &Wait) -> Vec<i32> {
    let behind: BTreeMap<i32, &[i32]> = waits.iter().map(|wait| (wait.pid, wait.behind.as_slice())).collect();
    let mut roots = BTreeSet::new();
    let mut seen = BTreeSet::from([wait.pid]);
    let mut next = wait.behind.clone();
    while let Some(pid) = next.pop() {
        match behind.get(&pid) {
            _ if !seen.insert(pid) => {}
            Some(others) => next.extend(*others),
            None => drop(roots.insert(pid)),
        }
    }
    roots.into_iter().collect()
}

/// What is known of sessions, the oldest first; 0 is a prepared transaction.
pub async fn holders(client: &Client, pids: &[i32]) -> Result<Vec<Holder>, Error> {
    let rows = client
        .query(
            "select pid, coalesce(usename::text, '?'), coalesce(application_name, ''), coalesce(state, '?'),
                    coalesce(extract(epoch from pg_catalog.clock_timestamp() - xact_start)::int8, 0),
                    coalesce(query, '')
             from pg_catalog.pg_stat_activity where pid = any($1) order by xact_start, pid",
            &[&pids],
        )
        .await?;
    let prepared = pids.contains(&0).then(|| Holder {
        pid: 0,
        user: String::new(),
        application: String::new(),
        state: "prepared".to_owned(),
        seconds: 0,
        query: String::new(),
    });
    Ok(prepared.into_iter().chain(rows.iter().map(holder)).collect())
}

fn holder(row: &tokio_postgres::Row) -> Holder {
    Holder {
        pid: row.get(0),
        user: row.get(1),
        application: row.get(2),
        state: row.get(3),
        seconds: row.get(4),
        query: masked(row.get(5)),
    }
}

/// The modes of table locks, from the weakest, each with those of its kind and above that it keeps out
/// (PostgreSQL documentation, "Explicit Locking", table "Conflicting Lock Modes").
const CONFLICTS: [(&str, &[&str]); 8] = [
    ("AccessShareLock", &["AccessExclusiveLock"]),
    ("RowShareLock", &["ExclusiveLock", "AccessExclusiveLock"]),
    ("RowExclusiveLock", &["ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]),
    (
        "ShareUpdateExclusiveLock",
        &[
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
    ("ShareLock", &["ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]),
    ("ShareRowExclusiveLock", &["ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"]),
    ("ExclusiveLock", &["ExclusiveLock", "AccessExclusiveLock"]),
    ("AccessExclusiveLock", &["AccessExclusiveLock"]),
];

/// Whether two modes keep each other out.
fn conflict(one: &str, other: &str) -> bool {
    CONFLICTS.iter().any(|(mode, kept_out)| {
        (*mode == one && kept_out.contains(&other)) || (*mode == other && kept_out.contains(&one))
    })
}

/// Sessions in a transaction older than some seconds that hold a lock on a table against these locks,
/// with the table.
pub async fn against(
    client: &Client,
    wanted: &[&LockHeld],
    older_than: f64,
) -> Result<Vec<(Holder, String)>, Error> {
    let pairs = wanted.iter().flat_map(|lock| {
        let against = CONFLICTS.iter().filter(|(mode, _)| conflict(mode, &lock.mode));
        against.map(|(mode, _)| (lock.table.as_str(), *mode))
    });
    let (tables, modes): (Vec<&str>, Vec<&str>) = pairs.unzip();
    let rows = client
        .query(
            "select distinct on (a.pid) a.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''),
                    coalesce(a.state, '?'),
                    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::int8, coalesce(a.query, ''),
                    pg_catalog.format('%I.%I', n.nspname, c.relname)
             from pg_catalog.pg_locks l
             join pg_catalog.pg_stat_activity a using (pid)
             join pg_catalog.pg_class c on c.oid = l.relation
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where l.granted and l.pid <> pg_catalog.pg_backend_pid()
               and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
               and (pg_catalog.format('%I.%I', n.nspname, c.relname), l.mode)
                   in (select * from unnest($1::text[], $2::text[]))
               and a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $3)
             order by a.pid, 7",
            &[&tables, &modes, &older_than],
        )
        .await?;
    Ok(rows.iter().map(|row| (holder(row), row.get(6))).collect())
}

/// A transaction of a backend, and the statement that it is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Whose.
    pub backend: Backend,
    /// When it began, in microseconds since 1970 by the server's clock.
    pub began: i64,
    /// The statement; the server cuts off what is long.
    pub query: String,
}

/// The transactions that these backends are in.
pub async fn transactions(client: &Client, of: &BTreeSet<Backend>) -> Result<Vec<Transaction>, Error> {
    let (pids, starts): (Vec<i32>, Vec<i64>) =
        of.iter().map(|backend| (backend.pid, backend.started)).unzip();
    let rows = client
        .query(
            "select pid, started, (extract(epoch from xact_start) * 1000000)::int8, coalesce(query, '')
             from pg_catalog.pg_stat_activity a,
                  lateral (select (extract(epoch from backend_start) * 1000000)::int8 as started) s
             where xact_start is not null
               and (pid, started) in (select * from unnest($1::int4[], $2::int8[]))",
            &[&pids, &starts],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| Transaction {
            backend: Backend { pid: row.get(0), started: row.get(1) },
            began: row.get(2),
            query: row.get(3),
        })
        .collect())
}

/// Asks the server to cancel what a backend does, as long as it is in that transaction; whether it was.
pub async fn cancel(client: &Client, transaction: &Transaction) -> Result<bool, Error> {
    let Transaction { backend, began, .. } = transaction;
    let row = client
        .query_opt(
            "select pg_catalog.pg_cancel_backend(pid) from pg_catalog.pg_stat_activity
             where pid = $1 and (extract(epoch from backend_start) * 1000000)::int8 = $2
               and (extract(epoch from xact_start) * 1000000)::int8 = $3",
            &[&backend.pid, &backend.started, &began],
        )
        .await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_keep_each_other_out_both_ways() {
        let against = |mode: &str| CONFLICTS.iter().filter(|(other, _)| conflict(other, mode)).count();
        let counts = CONFLICTS.map(|(mode, _)| against(mode));
        assert_eq!(counts, [1, 2, 4, 5, 5, 6, 7, 8]);
        assert!(!conflict("ShareLock", "ShareLock") && conflict("ShareLock", "RowExclusiveLock"));
    }

    #[test]
    fn a_queue_leads_to_whoever_waits_for_nobody() {
        let wait =
            |pid, behind: &[i32]| Wait { pid, seconds: 1.0, behind: behind.to_vec(), what: String::new() };
        let waits = [wait(1, &[2, 3]), wait(2, &[4, 3]), wait(3, &[5]), wait(7, &[8]), wait(8, &[7])];
        assert_eq!(roots(&waits, &waits[0]), [4, 5]);
        assert_eq!(roots(&waits, &waits[2]), [5]);
        // A deadlock has no root; the server ends it.
        assert_eq!(roots(&waits, &waits[3]), [0; 0]);
    }
}
