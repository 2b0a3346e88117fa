//! Rows of users that go along with the accounts that the push added: those that refer to one, or to such a
//! row, in tables that stay. They are kept in files first.

use super::live::Table;
use super::since::{self, Doomed, Saved};
use super::{Error, Work, keys, proof};
use crate::disk;
use crate::manifest::qualified;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// The foreign keys between tables that hold rows themselves; partitions have copies of their parents' keys
/// (PostgreSQL documentation, `pg_constraint.conparentid`).
const KEYS: &str = "
    select k.conrelid, k.conrelid::pg_catalog.regclass::text, k.confrelid, k.confrelid::pg_catalog.regclass::text,
        (select pg_catalog.string_agg(pg_catalog.format('r.%I = t.%I', f.attname, a.attname), ' and ')
         from rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) u (own, other)
         join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.own
         join pg_catalog.pg_attribute f on f.attrelid = k.confrelid and f.attnum = u.other),
        k.confdeltype = 'c', k.confdeltype in ('a', 'r'), pg_catalog.pg_has_role(c.relowner, 'usage')
    from pg_catalog.pg_constraint k
    join pg_catalog.pg_class c on c.oid = k.conrelid and c.relkind = 'r'
    join pg_catalog.pg_class o on o.oid = k.confrelid and o.relkind = 'r'
    where k.contype = 'f' and pg_catalog.has_table_privilege(c.oid, 'select')
        and pg_catalog.has_table_privilege(o.oid, 'select')";
/// The keys of some tables that would hold up what goes, as they were declared.
const HOLDING: &str = "
    select pg_catalog.format('alter table %s drop constraint %I', k.conrelid::pg_catalog.regclass, k.conname)
    from pg_catalog.pg_constraint k
    where k.contype = 'f' and k.confdeltype in ('a', 'r') and k.conparentid = 0
        and k.conrelid = any($1) and k.confrelid = any($2)";

/// A foreign key.
struct Key {
    table: u32,
    name: String,
    refers_to: u32,
    other: String,
    /// Whether a row `t` refers to a row `r`.
    refers: String,
    /// Whether the row goes along; else it loses its reference.
    goes: bool,
    /// Whether it keeps the other row from going.
    holds: bool,
    /// Whether the table is the user's, so that its rows are kept, and nobody may change them until they go.
    is_own: bool,
}

/// Keeps what will go along, and lets go what would hold it up in `tables`, which go anyway, partitioned ones
/// among them.
pub(super) async fn keep(
    work: &Work<'_>,
    tables: &[Table],
    saved: usize,
) -> Result<Vec<(Doomed, Saved)>, Error> {
    let client = work.client;
    let keys = keys(client).await?;
    keys::find_operators(client).await?;
    let reached = mark(client, &keys).await?;
    work.pin().await?;
    let going: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let reached: Vec<u32> = reached.into_iter().collect();
    for row in client.query(HOLDING, &[&going, &reached]).await? {
        let done = client.batch_execute(row.get(0)).await;
        done.map_err(Error::at("take away the accounts that the push added"))?;
    }
    let Some(folder) = work.task.keep_in else { return Ok(Vec::new()) };
    let all = work.tables().await?;
    let stays = |table: &&Table| {
        table.has_rows && !table.is_history() && reached.contains(&table.oid) && !going.contains(&table.oid)
    };
    let staying: Vec<&Table> = all.iter().filter(stays).collect();
    let doomed = proof::doomed(work, staying.iter().copied());
    let mut kept = Vec::new();
    for (table, doomed) in staying.into_iter().zip(doomed) {
        since::unmark(client).await?;
        let sql = "insert into pg_temp.supa_safe_since
            select distinct 0, g.place from pg_temp.supa_safe_going g where g.rel = $1";
        let rows = client.execute(sql, &[&table.oid]).await?;
        if rows > 0 {
            let stem = format!("{:04}", saved + kept.len() + 1);
            let file = since::write(client, (0, &doomed), (folder, &stem)).await?;
            kept.push((doomed, Saved { table: qualified(&table.schema, &table.name), rows, file }));
        }
    }
    disk::sync_dir(folder)?;
    Ok(kept)
}

async fn keys(client: &Client) -> Result<Vec<Key>, Error> {
    let rows = client.query(KEYS, &[]).await?;
    let key = |row: &tokio_postgres::Row| Key {
        table: row.get(0),
        name: row.get(1),
        refers_to: row.get(2),
        other: row.get(3),
        refers: row.get(4),
        goes: row.get(5),
        holds: row.get(6),
        is_own: row.get(7),
    };
    Ok(rows.iter().map(key).collect())
}

/// Marks the rows that go along or lose a reference, from the accounts down; returns their tables.
async fn mark(client: &Client, keys: &[Key]) -> Result<BTreeSet<u32>, Error> {
    let stage = Error::at("look for rows that go along with accounts");
    client
        .batch_execute("create temp table supa_safe_going (rel oid, place tid, goes bool) on commit drop")
        .await?;
    let mut fresh = BTreeSet::new();
    for row in client.query("select distinct a.name from pg_temp.supa_safe_added a", &[]).await? {
        let table: String = row.get(0);
        let sql = format!(
            "insert into pg_temp.supa_safe_going
             select t.tableoid, t.ctid, true from {table} t
             join pg_temp.supa_safe_added a on a.name = $1 and a.id = t.id::text returning rel"
        );
        fresh.extend(client.query(&sql, &[&table]).await?.iter().map(|row| row.get::<_, u32>(0)));
    }
    let mut reached = fresh.clone();
    while !fresh.is_empty() {
        let mut next = BTreeSet::new();
        for key in keys.iter().filter(|key| fresh.contains(&key.refers_to) && !key.holds) {
            let Key { table, name, refers_to, other, refers, goes, is_own, .. } = key;
            let hold = if *is_own { "for update of t" } else { "" };
            let sql = format!(
                "insert into pg_temp.supa_safe_going
                 select {table}, t.ctid, {goes} from only {name} t
                 where exists (
                     select from only {other} r
                     join pg_temp.supa_safe_going g on g.rel = {refers_to} and g.place = r.ctid and g.goes
                     where {refers})
                 and not exists (
                     select from pg_temp.supa_safe_going g
                     where g.rel = {table} and g.place = t.ctid and (g.goes or not {goes})) {hold}"
            );
            if client.execute(&sql, &[]).await.map_err(&stage)? > 0 {
                reached.insert(*table);
                if *goes {
                    next.insert(*table);
                }
            }
        }
        fresh = next;
    }
    Ok(reached)
}
