//! Values in rows that refer to an object by its id, such as those of type `regclass`: an object that
//! came back has another id, and the rows that stay follow it.

use super::selection::Known;
use super::{Error, Work, names};
use crate::archive::one_line;
use crate::fingerprint::{Class, Fingerprint};
use serde_json::Value;
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// Columns of such types, wherever they are. What Database Webhooks call from is kept as a plain number
/// (`supabase_functions.http_request`).
const COLUMNS: &str = "
    select c.oid::pg_catalog.regclass::text, pg_catalog.quote_ident(a.attname), b.typname::text, t.typcategory = 'A'
    from pg_catalog.pg_attribute a
    join pg_catalog.pg_class c on c.oid = a.attrelid and c.relkind = 'r' and c.relpersistence <> 't'
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_type t on t.oid = a.atttypid
    join pg_catalog.pg_type b on b.oid = case
        when t.typtype = 'd' then t.typbasetype when t.typcategory = 'A' then t.typelem else t.oid end
    where a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        and b.typname ~ '^reg' and b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace
    union all
    select c.oid::pg_catalog.regclass::text, 'hook_table_id', 'regclass', false
    from pg_catalog.pg_class c
    where c.oid = pg_catalog.to_regclass('supabase_functions.hooks')
    order by 1, 2";

/// Objects by what refers to them, with their ids and the names that a session without a path reads.
const NAMES: &str = "
    select 'relation' as kind, c.oid as id, c.oid::regclass::text as name from pg_class c where c.oid >= 16384 and c.relkind <> 't'
    union all select 'routine', p.oid, p.oid::regprocedure::text from pg_proc p where p.oid >= 16384
    union all select 'type', t.oid, t.oid::regtype::text from pg_type t where t.oid >= 16384
    union all select 'operator', o.oid, o.oid::regoperator::text from pg_operator o where o.oid >= 16384
    union all select 'collation', c.oid, c.oid::regcollation::text from pg_collation c where c.oid >= 16384
    union all select 'configuration', c.oid, c.oid::regconfig::text from pg_ts_config c where c.oid >= 16384
    union all select 'dictionary', d.oid, d.oid::regdictionary::text from pg_ts_dict d where d.oid >= 16384
    union all select 'schema', n.oid, n.oid::regnamespace::text from pg_namespace n where n.oid >= 16384
    union all select 'role', r.oid, r.oid::regrole::text from pg_roles r where r.oid >= 16384";

/// What the types refer to (PostgreSQL documentation, 8.19).
const TYPES: [(&str, &str); 11] = [
    ("regclass", "relation"),
    ("regproc", "routine"),
    ("regprocedure", "routine"),
    ("regtype", "type"),
    ("regoper", "operator"),
    ("regoperator", "operator"),
    ("regcollation", "collation"),
    ("regconfig", "configuration"),
    ("regdictionary", "dictionary"),
    ("regnamespace", "schema"),
    ("regrole", "role"),
];

/// Kinds of a fingerprint, what an archive calls them, and what they are here.
const ARCHIVED: [(&str, &str, &str); 8] = [
    ("table", "TABLE", "relation"),
    ("foreign table", "FOREIGN TABLE", "relation"),
    ("view", "VIEW", "relation"),
    ("materialized view", "MATERIALIZED VIEW", "relation"),
    ("sequence", "SEQUENCE", "relation"),
    ("function", "FUNCTION", "routine"),
    ("procedure", "PROCEDURE", "routine"),
    ("aggregate", "AGGREGATE", "routine"),
];

/// A column whose values are ids.
struct Column {
    table: String,
    name: String,
    kind: &'static str,
    is_array: bool,
}

async fn columns(client: &Client) -> Result<Vec<Column>, Error> {
    let rows = client.query(COLUMNS, &[]).await?;
    let column = |row: &tokio_postgres::Row| {
        let found: String = row.get(2);
        let (_, kind) = TYPES.iter().find(|(name, _)| *name == found)?;
        Some(Column { table: row.get(0), name: row.get(1), kind, is_array: row.get(3) })
    };
    Ok(rows.iter().filter_map(column).collect())
}

/// Notes what every id stands for, before anything goes: of what the push dropped, the archive knows it.
pub(super) async fn note(work: &Work<'_>) -> Result<(), Error> {
    let sql = format!("create temp table supa_safe_named on commit drop as {NAMES}");
    work.client.batch_execute(&sql).await.map_err(Error::at("note what ids stand for"))?;
    let (mut kinds, mut ids, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, id, name) in archived(&work.recorded, &work.known()) {
        kinds.push(kind);
        ids.push(id);
        names.push(name);
    }
    let sql = "insert into pg_temp.supa_safe_named
        select a.* from unnest($1::text[], $2::oid[], $3::text[]) a (kind, id, name)
        where not exists (select from pg_temp.supa_safe_named n where (n.kind, n.id) = (a.kind, a.id))";
    let done = work.client.execute(sql, &[&kinds, &ids, &names]).await;
    done.map(drop).map_err(Error::at("note what ids stand for"))
}

/// The objects of the snapshot by the ids that they had then: what was made again since bears another one.
fn archived<'a>(recorded: &'a Fingerprint, known: &Known<'_>) -> Vec<(&'static str, u32, &'a str)> {
    // The archive puts a blank between the types of arguments.
    let entry = |kind: &str, rest: &str| (kind.to_owned(), rest.replace(", ", ","));
    let ids: BTreeMap<(String, String), u32> =
        known.named_first().map(|(found, id)| (entry(&found.kind, &found.rest), id)).collect();
    let owned = recorded.lines().iter().filter(|line| line.class == Class::Owned);
    let objects = owned.filter_map(|line| {
        let (_, archived, kind) = ARCHIVED.iter().find(|(kind, ..)| *kind == line.kind)?;
        let fields: Value = serde_json::from_str(&line.definition).ok()?;
        let role = names::plain(fields.get("owner")?.as_str()?);
        let (schema, rest) = names::identifier(&line.identity)?;
        let (name, arguments) = names::identifier(rest.strip_prefix('.')?)?;
        let rest = format!("{} {}{arguments} {role}", names::plain(schema), names::plain(name));
        Some((*kind, *ids.get(&entry(archived, &one_line(&rest)))?, line.identity.as_str()))
    });
    objects.collect()
}

/// Lets the rows that stay follow what came back; returns in words what could not follow.
pub(super) async fn follow(work: &Work<'_>) -> Result<Vec<String>, Error> {
    let client = work.client;
    let sql = format!(
        "create temp table supa_safe_stands on commit drop as {NAMES};
        create temp table supa_safe_moved on commit drop as
            select b.kind, b.id as was, a.id as now
            from pg_temp.supa_safe_named b
            left join pg_temp.supa_safe_stands a on a.kind = b.kind and a.name = b.name
            where not exists (
                select from pg_temp.supa_safe_stands s where s.kind = b.kind and s.id = b.id)"
    );
    client.batch_execute(&sql).await.map_err(Error::at("look for what has another id"))?;
    let moved = client.query("select distinct kind from pg_temp.supa_safe_moved", &[]).await?;
    let moved: Vec<String> = moved.iter().map(|row| row.get(0)).collect();
    let mut left = Vec::new();
    if moved.is_empty() {
        return Ok(left);
    }
    let columns = columns(client).await?;
    let columns: Vec<Column> =
        columns.into_iter().filter(|column| moved.iter().any(|kind| kind == column.kind)).collect();
    let is_quiet = try_to(client, "set local session_replication_role = replica").await?.is_ok();
    for column in &columns {
        let Column { table, name, kind, is_array } = column;
        if !is_array {
            let sql = format!(
                "update only {table} t set {name} = m.now from pg_temp.supa_safe_moved m \
                 where m.kind = '{kind}' and m.was = t.{name}::oid and m.now is not null"
            );
            if let Err(why) = try_to(client, &sql).await? {
                left.push(format!("{table}.{name} does not follow what came back with another id: {why}"));
                continue;
            }
        }
        let ids = if *is_array { format!("any(t.{name}::oid[])") } else { format!("t.{name}::oid") };
        let sql = format!(
            "select count(*) from only {table} t where exists (
                select from pg_temp.supa_safe_moved m where m.kind = '{kind}' and m.was = {ids})"
        );
        let rows: i64 = client.query_one(&sql, &[]).await?.get(0);
        if rows > 0 {
            left.push(format!(
                "{rows} rows of {table} refer in {name} to a {kind} that is gone, or has another id"
            ));
        }
    }
    if is_quiet {
        client.batch_execute("set local session_replication_role = origin").await?;
    }
    Ok(left)
}

/// Classes of errors that say of a statement that it cannot be done: its values, rules over its rows, rights, and what a
/// trigger says (PostgreSQL documentation, appendix A).
const REFUSALS: [&str; 4] = ["22", "23", "42", "P0"];

/// Tries a statement; a refusal is told in words.
async fn try_to(client: &Client, sql: &str) -> Result<Result<(), String>, Error> {
    client.batch_execute("savepoint supa_safe_try").await?;
    let Err(error) = client.batch_execute(sql).await else {
        client.batch_execute("release savepoint supa_safe_try").await?;
        return Ok(Ok(()));
    };
    match error.as_db_error() {
        Some(said) if REFUSALS.iter().any(|class| said.code().code().starts_with(class)) => {
            client
                .batch_execute("rollback to savepoint supa_safe_try; release savepoint supa_safe_try")
                .await?;
            Ok(Err(said.message().to_owned()))
        }
        _ => Err(Error::Statement { stage: "follow what has another id", source: error }),
    }
}
