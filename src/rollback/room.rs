//! Whether the server lets a rollback through: locks, WAL that replication slots hold back, and
//! transactions that hold its tables.

use super::{Error, names};
use crate::evidence::estimate::bytes_in_words;
use crate::policy::Obstacle;
use tokio_postgres::Client;

/// Locks that a whole rollback takes, and those that the server has room for (PostgreSQL documentation,
/// `max_locks_per_transaction`): about one for each relation when it goes and one when it comes.
const LOCKS: &str = "
    select 2 * count(*), pg_catalog.current_setting('max_locks_per_transaction')::int8
        * (pg_catalog.current_setting('max_connections')::int8 + pg_catalog.current_setting('max_prepared_transactions')::int8)
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    left join pg_catalog.pg_class t on t.reltoastrelid = c.oid
    left join pg_catalog.pg_namespace h on h.oid = t.relnamespace
    where coalesce(h.nspname, n.nspname) = any($1)";

/// Slots that are lost when so much more is written (PostgreSQL documentation, `pg_replication_slots`),
/// with the size of what is made again: all of it is written to the log, rows and indexes. The size is that
/// of the last `ANALYZE` (`pg_class.relpages`): functions that measure wait for whoever locks a table.
const SLOTS: &str = "
    select s.slot_name::text, s.safe_wal_size::int8, m.bytes
    from pg_catalog.pg_replication_slots s
    cross join (
        select (coalesce(sum(p.relpages::int8), 0) * pg_catalog.current_setting('block_size')::int8)::int8 as bytes
        from unnest($1::text[], $2::text[]) t (home, name)
        join pg_catalog.pg_namespace n on n.nspname = t.home
        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.name
        join pg_catalog.pg_class p on p.oid in (c.oid, c.reltoastrelid)
            or p.oid in (select i.indexrelid from pg_catalog.pg_index i where i.indrelid = c.oid)
    ) m
    where s.safe_wal_size is not null and m.bytes > s.safe_wal_size
    order by 1";

/// Transactions in which nothing happens, and which hold tables that are made again.
const IDLE: &str = "
    select distinct on (a.pid) a.pid, coalesce(a.usename::text, '?'),
        extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::int8, t.home || '.' || t.name
    from unnest($1::text[], $2::text[]) t (home, name)
    join pg_catalog.pg_namespace n on n.nspname = t.home
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.name
    join pg_catalog.pg_locks l on l.relation = c.oid and l.granted
    join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where a.pid <> pg_catalog.pg_backend_pid() and a.datname = pg_catalog.current_database()
        and a.state like 'idle in transaction%'
        and a.state_change < pg_catalog.clock_timestamp() - interval '1 minute'
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

/// What stands in the way. `schemas` are the user's; `tables` those that would be made again, `extensions`
/// those that the push drops.
pub(super) async fn look(
    client: &Client,
    schemas: &[String],
    tables: &[String],
    extensions: &[String],
) -> Result<Vec<Obstacle>, Error> {
    let mut found = Vec::new();
    let locks = client.query_one(LOCKS, &[&schemas]).await?;
    let (needed, room): (i64, i64) = (locks.get(0), locks.get(1));
    if needed > room {
        found.push(Obstacle {
            fact: format!(
                "a rollback of everything takes about {needed} locks, and the server has room for {room}"
            ),
            way_out: "raise `max_locks_per_transaction` and restart the server".to_owned(),
        });
    }
    let (homes, names): (Vec<String>, Vec<String>) =
        tables.iter().filter_map(|table| names::qualified(table)).unzip();
    for row in client.query(SLOTS, &[&homes, &names]).await? {
        let (slot, room, needed): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        found.push(Obstacle {
            fact: format!(
                "it writes about {} to the log, and replication slot {slot} is lost after {} (`max_slot_wal_keep_size`)",
                bytes_in_words(needed.unsigned_abs()),
                bytes_in_words(room.max(0).unsigned_abs())
            ),
            way_out: format!(
                "let its reader catch up, raise the setting, or drop the slot with `select pg_drop_replication_slot('{slot}')`"
            ),
        });
    }
    for row in client.query(IDLE, &[&homes, &names]).await? {
        let (pid, user, seconds, table): (i32, String, i64, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        found.push(Obstacle {
            fact: format!(
                "a transaction of {user} (backend {pid}) has held {table} for {seconds} s and does nothing"
            ),
            way_out: format!("let it end, or end it with `select pg_terminate_backend({pid})`"),
        });
    }
    for row in client.query(EXTENSIONS, &[&extensions]).await? {
        let name: String = row.get(0);
        found.push(Obstacle {
            fact: format!("the push drops extension {name}, which this role cannot create again"),
            way_out: "leave the extension where it is".to_owned(),
        });
    }
    Ok(found)
}
