//! Whether the server lets a rollback through: locks, WAL that replication slots hold back, and
//! transactions that hold its tables.

use super::{Error, Mode, names};
use crate::evidence::estimate::bytes_in_words;
use crate::policy::Obstacle;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio_postgres::Client;

/// Locks that a whole rollback takes, and those that the server has room for (PostgreSQL documentation,
/// `max_locks_per_transaction`): for each relation one when it goes and one when it comes, and more for what goes
/// with it, types and constraints. Measured where a rollback of 182 of these held 872.
const LOCKS: &str = "
    select 5 * count(*), pg_catalog.current_setting('max_locks_per_transaction')::int8
        * (pg_catalog.current_setting('max_connections')::int8 + pg_catalog.current_setting('max_prepared_transactions')::int8)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_class t on t.reltoastrelid = c.oid
    left join pg_catalog.pg_namespace h on h.oid = t.relnamespace
    where coalesce(h.nspname, n.nspname) = any($1)";

/// The same for tables that are made again: the table, what is too large for its rows, the indexes of both, and
/// its own sequences. Measured where a rollback of 240 of these held 874.
const LOCKS_OF_TABLES: &str = "
    with named as (
        select c.oid, c.reltoastrelid
        from unnest($1::text[], $2::text[]) t (home, name)
        join pg_catalog.pg_namespace n on n.nspname = t.home
        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.name
    ), heaps as (
        select oid from named union all select reltoastrelid from named where reltoastrelid <> 0
    )
    select 4 * (
            (select count(*) from heaps)
            + (select count(*) from pg_catalog.pg_index i join heaps h on h.oid = i.indrelid)
            + (select count(*) from pg_catalog.pg_depend d
                join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
                join named on named.oid = d.refobjid
                where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i'))
        ), pg_catalog.current_setting('max_locks_per_transaction')::int8
        * (pg_catalog.current_setting('max_connections')::int8 + pg_catalog.current_setting('max_prepared_transactions')::int8)";

/// The size of tables that are made again, rows and indexes. It is that of the last `ANALYZE`
/// (`pg_class.relpages`): functions that measure wait for whoever locks a table.
const BYTES: &str = "
    select (coalesce(sum(p.relpages::int8), 0) * pg_catalog.current_setting('block_size')::int8)::int8
    from unnest($1::text[], $2::text[]) t (home, name)
    join pg_catalog.pg_namespace n on n.nspname = t.home
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.name
    join pg_catalog.pg_class p on p.oid in (c.oid, c.reltoastrelid)
        or p.oid in (select i.indexrelid from pg_catalog.pg_index i where i.indrelid = c.oid)";

/// Slots that are lost when so much more is written (PostgreSQL documentation, `pg_replication_slots`).
const SLOTS: &str = "
    select s.slot_name::text, s.safe_wal_size::int8
    from pg_catalog.pg_replication_slots s
    where s.safe_wal_size is not null and s.safe_wal_size < $1
    order by 1";

/// Transactions that hold tables which are made again: those in which nothing happens for a minute, and those
/// that are at work for longer than `$3` seconds. A vacuum makes way by itself.
const HOLDERS: &str = "
    select distinct on (a.pid) a.pid, coalesce(a.usename::text, '?'),
        extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::int8, t.home || '.' || t.name,
        a.state = 'active'
    from unnest($1::text[], $2::text[]) t (home, name)
    join pg_catalog.pg_namespace n on n.nspname = t.home
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.name
    join pg_catalog.pg_locks l on l.relation = c.oid and l.granted
    join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where a.pid <> pg_catalog.pg_backend_pid() and a.datname = pg_catalog.current_database()
        and a.backend_type = 'client backend'
        and (
            (a.state like 'idle in transaction%'
                and a.state_change < pg_catalog.clock_timestamp() - interval '1 minute')
            or (a.state = 'active'
                and a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $3)))
    order by a.pid, 4";

/// Extensions that this role may not create: neither trusted, nor on the list of `supautils`.
const EXTENSIONS: &str = "
    select e.name from pg_catalog.unnest($1::text[]) e (name)
    where not (select r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user)
        and not exists (
            select from pg_catalog.pg_available_extension_versions v where v.name = e.name and v.trusted)
        and e.name <> all (pg_catalog.regexp_split_to_array(
            coalesce(pg_catalog.current_setting('supautils.privileged_extensions', true), ''), '[[:space:]]*,[[:space:]]*'))
    order by 1";

/// Locks that this session holds, of whatever strength, and the room that the server has for all: those of
/// which a session remembers some by itself (PostgreSQL source, `src/backend/storage/lmgr/README`, "Fast Path
/// Locking") are sixteen at most, and count too.
const HELD: &str = "
    select count(distinct (locktype, database, relation, page, tuple, virtualxid, transactionid::text,
            classid, objid, objsubid)),
        pg_catalog.current_setting('max_locks_per_transaction')::int8
        * (pg_catalog.current_setting('max_connections')::int8 + pg_catalog.current_setting('max_prepared_transactions')::int8)
    from pg_catalog.pg_locks
    where pid = pg_catalog.pg_backend_pid()";

/// Locks that a rollback held at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locks {
    /// How many.
    pub held: i64,
    /// How many the settings of that server promise room for; it may have more.
    pub room: i64,
}

impl Locks {
    /// Those of a transaction that is open.
    pub async fn of(client: &Client) -> Result<Self, Error> {
        let row = client.query_one(HELD, &[]).await?;
        Ok(Self { held: row.get(0), room: row.get(1) })
    }
}

/// What a rollback makes again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    /// How much goes back.
    pub(super) mode: Mode,
    /// The user's schemas.
    pub(super) schemas: &'a [String],
    /// Tables that are made again.
    pub(super) tables: &'a [String],
    /// Extensions that are.
    pub(super) extensions: &'a [String],
    /// For how long a transaction may have been at work.
    pub(super) patience: Duration,
    /// How many locks it took on the copy, where it was rehearsed.
    pub(super) held: Option<i64>,
    /// The room for locks that was enough for it there.
    pub(super) enough: Option<i64>,
}

impl Scope<'_> {
    fn homes_and_names(&self) -> (Vec<String>, Vec<String>) {
        self.tables.iter().filter_map(|table| names::qualified(table)).unzip()
    }

    /// Bytes of its tables, about.
    pub(super) async fn bytes(&self, client: &Client) -> Result<u64, Error> {
        let (homes, names) = self.homes_and_names();
        let bytes: i64 = client.query_one(BYTES, &[&homes, &names]).await?.get(0);
        Ok(bytes.unsigned_abs())
    }

    /// Whether the server may run out of locks.
    async fn locks(&self, client: &Client) -> Result<Option<Obstacle>, Error> {
        let (homes, names) = self.homes_and_names();
        let (row, what) = match self.mode {
            Mode::Whole => (client.query_one(LOCKS, &[&self.schemas]).await?, "everything"),
            Mode::Touched => {
                (client.query_one(LOCKS_OF_TABLES, &[&homes, &names]).await?, "what the push touches")
            }
        };
        let (foreseen, room): (i64, i64) = (row.get(0), row.get(1));
        let needed = self.held.unwrap_or(foreseen);
        let is_too_few = needed > room && self.enough.is_none_or(|enough| room < enough);
        Ok(is_too_few.then(|| Obstacle {
            fact: format!(
                "a rollback of {what} takes about {needed} locks, and the server has room for {room}"
            ),
            way_out: "raise `max_locks_per_transaction` and restart the server".to_owned(),
        }))
    }
}

/// What may stand in the way.
pub(super) async fn look(client: &Client, scope: &Scope<'_>) -> Result<Vec<Obstacle>, Error> {
    let mut found: Vec<Obstacle> = scope.locks(client).await?.into_iter().collect();
    let (homes, names) = scope.homes_and_names();
    let needed = scope.bytes(client).await?;
    for row in client.query(SLOTS, &[&i64::try_from(needed).unwrap_or(i64::MAX)]).await? {
        let (slot, room): (String, i64) = (row.get(0), row.get(1));
        found.push(Obstacle {
            fact: format!(
                "it writes about {} to the log, and replication slot {slot} is lost after {} (`max_slot_wal_keep_size`)",
                bytes_in_words(needed),
                bytes_in_words(room.max(0).unsigned_abs())
            ),
            way_out: format!(
                "let its reader catch up, raise the setting, or drop the slot with `select pg_drop_replication_slot('{slot}')`"
            ),
        });
    }
    let patience = scope.patience.as_secs_f64();
    for row in client.query(HOLDERS, &[&homes, &names, &patience]).await? {
        let (pid, user, seconds, table): (i32, String, i64, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let does = if row.get(4) { "is at work yet" } else { "does nothing" };
        found.push(Obstacle {
            fact: format!(
                "a transaction of {user} (backend {pid}) has held {table} for {seconds} s and {does}"
            ),
            way_out: format!("let it end, or end it with `select pg_terminate_backend({pid})`"),
        });
    }
    for row in client.query(EXTENSIONS, &[&scope.extensions]).await? {
        let name: String = row.get(0);
        found.push(Obstacle {
            fact: format!("the push drops extension {name}, which this role cannot create again"),
            way_out: "leave the extension where it is".to_owned(),
        });
    }
    Ok(found)
}
