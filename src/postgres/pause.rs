//! The statements of a write pause: triggers by which a database refuses what the roles of its Data API write.
//!
//! Nothing of a grant is changed. What a pause consists of stands in one schema, but for the triggers, which call
//! that schema's only function; the schema's comment says whose it is, so that any machine can tell, and end it.

use crate::fingerprint::{Class, Place, is_platform_role};
use crate::manifest::quote_identifier;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The schema of a pause; the fingerprint leaves it out (`sql/fingerprint/head.sql`).
pub const SCHEMA: &str = "supa_safe";
/// The roles of the Data API that the platform makes.
const OF_THE_API: [&str; 4] = ["anon", "authenticated", "authenticator", "service_role"];
/// The history of migrations, which the push itself writes.
const HISTORY: &str = "supabase_migrations";
/// Keeps whoever ends a pause from looking while one is just being committed.
const TURN: &str = "pg_catalog.hashtextextended('supa-safe quiesce', 0)";
/// How long that is waited for.
const TURN_COMES: &str = "set lock_timeout = '15s'";
/// How long one trigger waits for its table, whose readers and writers wait behind it meanwhile.
const BRIEF: &str = "set lock_timeout = '200ms'";
/// Triggers that are on the way to the server at once.
const AT_ONCE: usize = 50;

/// Roles that the Data API signs in as or works as, directly or through others.
const ROLES: &str = "
    select r.rolname::text
    from pg_catalog.pg_roles a
    join pg_catalog.pg_roles r on pg_catalog.pg_has_role(a.oid, r.oid, 'member')
    where a.rolname = 'authenticator' and not r.rolsuper and r.rolname not in (session_user, current_user)
    order by 1";

/// Tables, with whether this session may put a trigger on them and take it away again. A partitioned table comes
/// before its partitions: whoever writes through it takes them in this order.
const TABLES: &str = "
    select c.oid, n.nspname::text, c.relname::text, c.relkind = 'f', pg_catalog.pg_get_userbyid(c.relowner)::text,
        pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.pg_has_role(c.relowner, 'usage')
            and pg_catalog.has_table_privilege(c.oid, 'trigger')
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't' and n.nspname !~ '^pg_'
        and n.nspname <> 'information_schema'
        and not exists (
            select from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
    order by (select count(*) from pg_catalog.pg_partition_ancestors(c.oid)),
        n.nspname collate \"C\", c.relname collate \"C\"";

/// The schema with the mark, or, where there is none, the one that has its name.
const STANDING: &str = "
    select n.nspname::text, n.comment, p.oid, coalesce(p.prosrc like '%PT503%', false),
        array(
            select g.tgrelid::pg_catalog.regclass::text from pg_catalog.pg_trigger g where g.tgfoid = p.oid order by 1)
    from (
        select oid, nspname, coalesce(pg_catalog.obj_description(oid, 'pg_namespace'), '') as comment
        from pg_catalog.pg_namespace
    ) n
    left join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = 'paused' and p.pronargs = 0
    where n.comment like '{\"supa_safe\":\"pause\",%' or n.nspname = $1
    order by n.comment like '{\"supa_safe\":\"pause\",%' desc
    limit 1";

const TRIGGERS: &str = "
    select pg_catalog.quote_ident(g.tgname), g.tgrelid::pg_catalog.regclass::text
    from pg_catalog.pg_trigger g
    where g.tgfoid = $1 and not g.tgisinternal
    order by 2";

/// Who keeps a table from a trigger: writers, and whoever changes or vacuums it.
const IN_THE_WAY: &str = "
    select distinct coalesce(l.pid, 0)
    from pg_catalog.pg_locks l
    where l.granted and l.relation = any($1) and l.pid is distinct from pg_catalog.pg_backend_pid()
        and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
        and l.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
            'ExclusiveLock', 'AccessExclusiveLock')";

/// Who keeps a trigger on its table: everybody who is at work on it.
const AT_WORK: &str = "
    select distinct coalesce(l.pid, 0)
    from pg_catalog.pg_locks l
    join pg_catalog.pg_trigger g on g.tgrelid = l.relation and g.tgfoid = $1
    where l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
        and l.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())";

/// Who paused, in the words of the schema's comment. What a later version adds is passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mark {
    /// What this is.
    supa_safe: String,
    /// Version of the mark.
    format: u32,
    /// When, by the target's clock.
    pub since: String,
    /// The machine.
    pub host: String,
    /// The process on it.
    pub pid: u32,
    /// The role that the run signed in as.
    pub user: String,
    /// The run.
    pub run: String,
}

impl Mark {
    /// The same, with the time when it began.
    #[must_use]
    pub fn since(&self, since: &str) -> Self {
        Self { since: since.to_owned(), ..self.clone() }
    }

    /// The mark of a run.
    pub fn new(run: &str, host: &str, user: &str) -> Self {
        Self {
            supa_safe: "pause".to_owned(),
            format: 1,
            since: String::new(),
            host: host.to_owned(),
            pid: std::process::id(),
            user: user.to_owned(),
            run: run.to_owned(),
        }
    }

    /// Who paused, and since when.
    pub fn in_words(&self) -> String {
        let Self { since, host, pid, user, run, .. } = self;
        format!("run {run} (process {pid} on {host}, as {user}) paused it at {since}")
    }
}

/// A pause in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    schema: String,
    function: Option<u32>,
    /// Whose it is.
    pub mark: Mark,
    /// Whether writes are refused; else only its remains stand, which let everything through.
    pub refuses: bool,
    /// Tables with its trigger.
    pub tables: Vec<String>,
}

impl Standing {
    /// Whether this run's pause refuses writes.
    pub fn refuses_for(&self, run: &str) -> bool {
        self.refuses && self.mark.run == run
    }
}

/// What stands where a pause would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A schema of somebody else's, which has the name.
    Foreign,
    /// A pause.
    Standing(Standing),
}

/// A table that a pause is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its object id.
    pub oid: u32,
    /// Its name, as SQL wants it.
    pub name: String,
    is_foreign: bool,
}

/// What a pause would be about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Roles whose writes are refused.
    pub roles: Vec<String>,
    /// Tables on which they are.
    pub tables: Vec<Table>,
    /// Tables of the user's on which this session may not put a trigger.
    pub beyond: Vec<String>,
}

/// Reads what a pause would be about.
pub async fn scope(client: &Client) -> Result<Scope, Error> {
    let rows = client.query(ROLES, &[]).await?;
    let roles = rows.iter().map(|row| row.get::<_, String>(0));
    let mut scope = Scope {
        roles: roles.filter(|role| OF_THE_API.contains(&role.as_str()) || !is_platform_role(role)).collect(),
        ..Scope::default()
    };
    for row in client.query(TABLES, &[]).await? {
        let (schema, name, owner): (String, String, String) = (row.get(1), row.get(2), row.get(4));
        let place =
            Place { subject: "table", schema: Some(&schema), owner: Some(&owner), ..Place::default() };
        if Class::of_table(place, &name) != Class::Owned || schema == HISTORY {
            continue;
        }
        if row.get(5) {
            let sql = format!("{}.{}", quote_identifier(&schema), quote_identifier(&name));
            scope.tables.push(Table { oid: row.get(0), name: sql, is_foreign: row.get(3) });
        } else {
            scope.beyond.push(crate::manifest::qualified(&schema, &name));
        }
    }
    Ok(scope)
}

/// Looks for a pause.
pub async fn find(client: &Client) -> Result<Found, Error> {
    let Some(row) = client.query_opt(STANDING, &[&SCHEMA]).await? else { return Ok(Found::Nothing) };
    let comment: String = row.get(1);
    let mark = serde_json::from_str::<Mark>(&comment).unwrap_or_default();
    if !comment.starts_with("{\"supa_safe\":\"pause\",") {
        return Ok(Found::Foreign);
    }
    Ok(Found::Standing(Standing {
        schema: quote_identifier(row.get(0)),
        function: row.get(2),
        mark,
        refuses: row.get(3),
        tables: row.get(4),
    }))
}

/// Begins a transaction, pauses in it, and exports a snapshot that does not see that; returns the snapshot's name.
/// Everything is taken within the patience: who waits for us is never so long at it that the server looks for a
/// deadlock.
pub async fn begin(
    client: &Client,
    scope: &Scope,
    mark: &Mark,
    patience: Duration,
) -> Result<Option<String>, Error> {
    let text = serde_json::to_string(mark).unwrap_or_default();
    let roles: Vec<String> = scope.roles.iter().map(|role| literal(role)).collect();
    let refuse = format!(
        "begin
    if pg_catalog.current_setting('role') operator(pg_catalog.=) any (array[{roles}]::pg_catalog.text[])
        or current_user::pg_catalog.text operator(pg_catalog.=) any (array[{roles}]::pg_catalog.text[])
        or session_user::pg_catalog.text operator(pg_catalog.=) any (array[{roles}]::pg_catalog.text[])
    then
        raise exception using errcode = 'PT503',
            message = 'writes are paused while a migration is pushed',
            hint = 'Try again in a few minutes';
    end if;
    return null;
end",
        roles = roles.join(", ")
    );
    let mut statements = vec![
        format!("create schema {SCHEMA}"),
        format!("comment on schema {SCHEMA} is {}", literal(&text)),
        format!("create function {SCHEMA}.paused() returns trigger language plpgsql as {}", literal(&refuse)),
    ];
    statements.extend(scope.tables.iter().map(|table| {
        let truncate = if table.is_foreign { "" } else { " or truncate" };
        format!(
            "create trigger supa_safe_pause before insert or update or delete{truncate} on {name} \
             for each statement execute function {SCHEMA}.paused();
             alter table only {name} enable always trigger supa_safe_pause",
            name = table.name
        )
    }));
    let body = literal(&format!("begin {}; end", statements.join(";\n")));
    let patience = patience.as_millis();
    // A writer that is waited for must be seen when it is done: a role may have another default. Who sleeps while the
    // tables are locked loses them.
    let sql = format!(
        "begin isolation level read committed read write; set local lock_timeout = '{patience}ms'; \
         set local idle_in_transaction_session_timeout = '10s'; \
         set local statement_timeout = '{patience}ms'; select pg_catalog.pg_advisory_xact_lock({TURN}); \
         do {body}; set local statement_timeout = 0; select pg_catalog.pg_export_snapshot()"
    );
    last_value(client, &sql).await
}

/// Opens a transaction that sees what an exported snapshot does, and exports that on; returns its name.
pub async fn hold(client: &Client, exported: &str) -> Result<Option<String>, Error> {
    let sql = format!(
        "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read read only; \
         set transaction snapshot {}; select pg_catalog.pg_export_snapshot()",
        literal(exported)
    );
    last_value(client, &sql).await
}

/// Begins the transaction of who sees what an exported snapshot does.
pub fn import(exported: &str) -> String {
    format!("begin isolation level repeatable read read only; set transaction snapshot {}", literal(exported))
}

async fn last_value(client: &Client, sql: &str) -> Result<Option<String>, Error> {
    let said = client.simple_query(sql).await?;
    let value = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(said.iter().rev().find_map(value))
}

/// Waits until nobody is just committing a pause, and keeps others from it until the session ends.
pub async fn take_turn(client: &Client) -> Result<(), Error> {
    client.batch_execute(TURN_COMES).await?;
    client.batch_execute(&format!("select pg_catalog.pg_advisory_lock({TURN})")).await
}

/// Lets everything through. That takes no lock on any table: whoever writes next is not refused any more.
pub async fn let_through(client: &Client, standing: &Standing) -> Result<(), Error> {
    if standing.function.is_none() {
        return Ok(());
    }
    client
        .batch_execute(&format!(
            "create or replace function {}.paused() returns trigger language plpgsql as 'begin return null; end'",
            standing.schema
        ))
        .await
}

/// Drops the triggers, each in a transaction of its own; returns how many could not be dropped now.
pub async fn drop_triggers(client: &Client, standing: &Standing) -> Result<usize, Error> {
    let Some(function) = standing.function else { return Ok(0) };
    client.batch_execute(BRIEF).await?;
    let rows = client.query(TRIGGERS, &[&function]).await?;
    let drops = rows.iter().map(|row| {
        let (name, table): (String, String) = (row.get(0), row.get(1));
        async move {
            match client.batch_execute(&format!("drop trigger if exists {name} on {table}")).await {
                // The table of another owner by now lets go of it with the function, one that is gone had it.
                Err(error) if error.code() != Some(&SqlState::LOCK_NOT_AVAILABLE) => match error.code() {
                    Some(_) => Ok(0),
                    None => Err(error),
                },
                Err(_) => Ok(1),
                Ok(()) => Ok(0),
            }
        }
    });
    let left: Vec<Result<usize, Error>> = stream::iter(drops).buffered(AT_ONCE).collect().await;
    left.into_iter().sum()
}

/// Drops the function, with the triggers that are left, and the schema. A schema in which somebody made something
/// meanwhile stays, without the mark.
pub async fn drop_schema(client: &Client, standing: &Standing) -> Result<(), Error> {
    let schema = &standing.schema;
    let dropped = client
        .batch_execute(&format!(
            "begin; {BRIEF}; drop function if exists {schema}.paused() cascade; drop schema if exists {schema}; commit"
        ))
        .await;
    let Err(error) = dropped else { return Ok(()) };
    client.batch_execute("rollback").await?;
    if error.code() != Some(&SqlState::DEPENDENT_OBJECTS_STILL_EXIST) {
        return Err(error);
    }
    client
        .batch_execute(&format!(
            "begin; {BRIEF}; drop function if exists {schema}.paused() cascade; comment on schema {schema} is null; \
             commit"
        ))
        .await
}

/// Sessions that keep a pause from beginning.
pub async fn in_the_way(client: &Client, scope: &Scope) -> Result<Vec<i32>, Error> {
    let oids: Vec<u32> = scope.tables.iter().map(|table| table.oid).collect();
    Ok(client.query(IN_THE_WAY, &[&oids]).await?.iter().map(|row| row.get(0)).collect())
}

/// Sessions that keep its triggers where they are.
pub async fn at_work(client: &Client, standing: &Standing) -> Result<Vec<i32>, Error> {
    let Some(function) = standing.function else { return Ok(Vec::new()) };
    Ok(client.query(AT_WORK, &[&function]).await?.iter().map(|row| row.get(0)).collect())
}

/// How long the server lets two wait for each other before it ends one of them.
pub async fn deadlock_timeout(client: &Client) -> Result<Duration, Error> {
    let sql = "select setting::int8 from pg_catalog.pg_settings where name = 'deadlock_timeout'";
    let milliseconds: i64 = client.query_one(sql, &[]).await?.get(0);
    Ok(Duration::from_millis(milliseconds.unsigned_abs()))
}

/// A text as an SQL literal, whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_by_its_first_word() {
        let mark = Mark::new("r1", "laptop", "postgres").since("now");
        let text = serde_json::to_string(&mark).unwrap();
        assert!(text.starts_with(r#"{"supa_safe":"pause","format":1,"#), "{text}");
        assert_eq!(serde_json::from_str::<Mark>(&text).unwrap(), mark);
        let later = r#"{"supa_safe":"pause","format":2,"run":"r2","more":[]}"#;
        assert_eq!(serde_json::from_str::<Mark>(later).unwrap().run, "r2");
    }

    #[test]
    fn a_literal_holds_any_text() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }
}
