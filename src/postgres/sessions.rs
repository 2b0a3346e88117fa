//! Other sessions on the target, and the lock that two runs of ours share.

use crate::migration::masked;
use crate::tools::supabase::APPLICATION_NAME;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio_postgres::{Client, Error};

/// How long a session of this machine's may take to end after its program did.
const ENDING: Duration = Duration::from_secs(3);
/// How often it is looked for meanwhile.
const POLL: Duration = Duration::from_millis(100);

/// A session of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Its backend.
    pub pid: i32,
    /// What it is, in words, with its age.
    pub text: String,
    /// Whether the same role opened it from the same address as this session: a program that a run
    /// here started may have opened it.
    pub may_be_own: bool,
}

/// Sessions during which a push must not begin: dumps hold locks on every table, and every reader
/// queues behind the push that waits for them; two pushes at once both run their files.
///
/// A program's session outlives it for a moment, since its server process learns of the end only when
/// it reads again. One that may be such a remnant of a run here is given that moment.
pub async fn in_the_way(client: &Client) -> Result<Vec<Other>, Error> {
    let until = Instant::now() + ENDING;
    loop {
        let others = others(client).await?;
        if others.iter().all(|other| !other.may_be_own) || Instant::now() > until {
            return Ok(others);
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn others(client: &Client) -> Result<Vec<Other>, Error> {
    let rows = client
        .query(
            "select pid, application_name, coalesce(usename::text, '?'),
                    extract(epoch from pg_catalog.clock_timestamp() - xact_start)::int8,
                    usename = session_user and client_addr is not distinct from pg_catalog.inet_client_addr()
             from pg_catalog.pg_stat_activity
             where datname = pg_catalog.current_database() and xact_start is not null
               and pid <> pg_catalog.pg_backend_pid()
               and (application_name in ('pg_dump', 'pg_dumpall', 'pg_restore') or application_name = $1)
             order by xact_start",
            &[&APPLICATION_NAME],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let (pid, name, user, seconds): (i32, String, String, i64) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            let what = if name == APPLICATION_NAME {
                "the Supabase CLI is at work"
            } else {
                "a dump or restore runs"
            };
            let text = format!("{what} on the target: `{name}` as {user}, backend {pid}, since {seconds} s");
            Other { pid, text, may_be_own: row.get::<_, Option<bool>>(4).unwrap_or_default() }
        })
        .collect())
}

/// Sessions that hold a lock on a relation that stops even its readers, or wait for one, in words: who
/// reads after such a wait began waits behind it.
pub async fn exclusive(client: &Client) -> Result<Vec<String>, Error> {
    let rows = client
        .query(
            "select distinct on (a.pid) a.pid, coalesce(a.application_name, ''), coalesce(a.usename::text, '?'),
                    extract(epoch from pg_catalog.clock_timestamp()
                        - case when l.granted then a.xact_start else l.waitstart end)::int8,
                    pg_catalog.format('%I.%I', n.nspname, c.relname), coalesce(a.query, ''), l.granted,
                    case when not l.granted then
                        pg_catalog.array_to_string(pg_catalog.pg_blocking_pids(a.pid), ', ') end
             from pg_catalog.pg_locks l
             join pg_catalog.pg_stat_activity a using (pid)
             join pg_catalog.pg_class c on c.oid = l.relation and c.relkind in ('r', 'm', 'p')
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where l.mode = 'AccessExclusiveLock' and a.pid <> pg_catalog.pg_backend_pid()
               and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
             order by a.pid, l.granted desc, l.relation",
            &[],
        )
        .await?;
    let words = |row: &tokio_postgres::Row| {
        let (pid, name, user, seconds): (i32, String, String, Option<i64>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let (table, query): (String, String) = (row.get(4), row.get(5));
        let (seconds, query) = (seconds.unwrap_or_default(), masked(&query));
        if row.get(6) {
            return format!(
                "backend {pid} (`{name}` as {user}) has held {table} since {seconds} s: `{query}`"
            );
        }
        let behind = row.get::<_, Option<String>>(7).filter(|pids| !pids.is_empty());
        let behind = behind.map(|pids| format!(", behind backend {pids}")).unwrap_or_default();
        format!(
            "backend {pid} (`{name}` as {user}) has waited to lock {table} against readers for {seconds} s{behind}: `{query}`"
        )
    };
    Ok(rows.iter().map(words).collect())
}

/// A server process, told apart from a later one with the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Backend {
    /// Its process id.
    pub pid: i32,
    /// When it started, in microseconds since 1970 by the server's clock.
    pub started: i64,
}

/// Backends of the CLI, by its application name.
pub async fn cli_backends(client: &Client) -> Result<Vec<Backend>, Error> {
    let rows = client
        .query(
            "select pid, (extract(epoch from backend_start) * 1000000)::int8
             from pg_catalog.pg_stat_activity
             where datname = pg_catalog.current_database() and application_name = $1",
            &[&APPLICATION_NAME],
        )
        .await?;
    Ok(rows.iter().map(|row| Backend { pid: row.get(0), started: row.get(1) }).collect())
}

/// Which backends are taken for those of a push.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Those that bore the CLI's name when they were looked at.
    pub backends: BTreeSet<Backend>,
    /// When the push began, by the server's clock in microseconds since 1970.
    pub since: Option<i64>,
}

/// Backends of a push that are inside a transaction or a statement: those with the CLI's application
/// name, and those that were seen with it before, since a migration may set another name. When none
/// was ever seen, it may have set that name between two looks: then every session counts that the
/// same role opened from the same address since the push began.
pub async fn at_work(client: &Client, seen: &Seen) -> Result<Vec<i32>, Error> {
    let (pids, starts): (Vec<i32>, Vec<i64>) =
        seen.backends.iter().map(|backend| (backend.pid, backend.started)).unzip();
    let since = seen.since.filter(|_| seen.backends.is_empty());
    let rows = client
        .query(
            "select pid from pg_catalog.pg_stat_activity a,
                 lateral (select (extract(epoch from backend_start) * 1000000)::int8 as started) s
             where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()
               and (state <> 'idle' or xact_start is not null)
               and (application_name = $1
                   or (pid, started) in (select * from unnest($2::int4[], $3::int8[]))
                   or (started >= $4::int8 and usename = session_user
                       and client_addr is not distinct from pg_catalog.inet_client_addr()))",
            &[&APPLICATION_NAME, &pids, &starts, &since],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Asks the server to cancel a backend's statement.
pub async fn cancel(client: &Client, pid: i32) -> Result<bool, Error> {
    Ok(client.query_one("select pg_catalog.pg_cancel_backend($1)", &[&pid]).await?.get(0))
}

/// Takes the lock that keeps two runs off one target, wherever they run; let go with the session.
pub async fn try_lock(client: &Client) -> Result<bool, Error> {
    let row = client
        .query_one(
            "select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('supa-safe migrate', 0))",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

/// Whether somebody has that lock.
pub async fn is_locked(client: &Client) -> Result<bool, Error> {
    let row = client
        .query_one(
            "select exists (
                select from pg_catalog.pg_locks l
                join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
                where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                    and ((l.classid::int8 << 32) | l.objid::int8)
                        = pg_catalog.hashtextextended('supa-safe migrate', 0))",
            &[],
        )
        .await?;
    Ok(row.get(0))
}
