//! Each privileged step of a way back, tried once in a transaction that is rolled back.

mod objects;

use super::inverse::{self, Inverse};
use super::{Error, names, roles};
use crate::fingerprint::{Class, Difference, Fingerprint, Line, is_platform_schema};
use crate::policy::Obstacle;
use crate::postgres::rows;
use crate::postgres::storage::back;
use crate::salvage;
use std::collections::BTreeSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Kinds of differences that are changed in place, lock no table, and need more than the owner's rights.
const PRIVILEGED: [&str; 5] = ["role", "membership", "setting", "default privileges", "database"];
/// How long a lock is waited for: others wait behind it.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '900ms'";

/// Objects of the user's that the session's role could not make again, as owner of the same.
const FOREIGN: &str = "
    select distinct pg_catalog.pg_get_userbyid(o.owner)::text, o.name
    from (
        select c.relowner as owner, c.relnamespace as home, c.oid as id, 'pg_catalog.pg_class'::pg_catalog.regclass as class,
            c.oid::pg_catalog.regclass::text as name
        from pg_catalog.pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't'
        union all
        select p.proowner, p.pronamespace, p.oid, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid::pg_catalog.regprocedure::text
        from pg_catalog.pg_proc p
    ) o
    join pg_catalog.pg_namespace n on n.oid = o.home
    where n.nspname = any($1) and not (pg_catalog.pg_has_role(o.owner, 'USAGE') and pg_catalog.pg_has_role(o.owner, $2))
        and not exists (
            select from pg_catalog.pg_depend d
            where d.classid = o.class and d.objid = o.id and d.deptype in ('e', 'i'))
    order by 2 limit 20";

/// Policies that go with an object of the user's, by the words of the fingerprint.
const DEPENDENT: &str = "
    select distinct pg_catalog.quote_ident(p.polname) || ' on ' || p.polrelid::pg_catalog.regclass
    from pg_catalog.pg_policy p
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
    left join pg_catalog.pg_proc f on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.oid = d.refobjid
    left join pg_catalog.pg_class c on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.refobjid
    join pg_catalog.pg_namespace n on n.oid = coalesce(f.pronamespace, c.relnamespace)
    where n.nspname = any($1)";

/// What a rollback has to do, as far as rights are concerned.
pub(super) struct Way<'a> {
    /// The fingerprint of the snapshot.
    pub(super) recorded: &'a Fingerprint,
    /// What a push leaves that differs, to be taken back.
    pub(super) back: Vec<Difference>,
    /// `roles.sql` and `settings.sql` of the snapshot.
    pub(super) settings: String,
    /// Policies that the push changes.
    pub(super) changed: Vec<String>,
    /// Tables of the platform that the push writes to.
    pub(super) written: BTreeSet<String>,
}

/// A privileged step.
struct Step {
    /// For people.
    what: String,
    sql: String,
    /// Whether a rollback takes exactly this step, whatever else it does.
    is_certain: bool,
    /// What helps where the role may not do it.
    way_out: String,
}

impl Step {
    fn new((what, sql): (String, String)) -> Self {
        let way_out = "give the role of the connection that right, or sign in as one that has it".to_owned();
        Self { what, sql, is_certain: false, way_out }
    }
}

/// What this role may not do of it.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Without which a rollback fails.
    pub(super) needed: Vec<Obstacle>,
    /// Without which it may fail.
    pub(super) others: Vec<Obstacle>,
}

/// Tries what this role may do of it.
pub(super) async fn send(client: &Client, schemas: &[String], way: &Way<'_>) -> Result<Missing, Error> {
    client.batch_execute("begin").await?;
    client.batch_execute(rows::PINNED).await?;
    client.batch_execute(LOCK_TIMEOUT).await?;
    let mut found = Missing::default();
    let dependent = client.query(DEPENDENT, &[&schemas]).await?;
    let mut policies = way.changed.clone();
    policies.extend(dependent.iter().map(|row| row.get::<_, String>(0)));
    let of_objects =
        of_managed(way.recorded, &policies).into_iter().chain(of_triggers(way)).chain(objects::steps(way));
    for step in of_objects.map(Step::new).chain(of_roles(way)) {
        let list = if step.is_certain { &mut found.needed } else { &mut found.others };
        list.extend(tried(client, &step).await?);
    }
    if !way.written.is_empty() {
        back::quieten(client).await.map_err(|error| Error::Storage(salvage::Error::from(error)))?;
        for table in &way.written {
            // Rights are asked for although no row is met.
            let sql = format!(
                "update {table} set id = id where false; delete from {table} where false; \
                 insert into {table} (id) select id from {table} where false"
            );
            let step = Step::new((format!("write rows of {table}"), sql));
            found.others.extend(tried(client, &step).await?);
        }
    }
    client.batch_execute("rollback").await?;
    Ok(found)
}

/// An object that somebody else owns.
#[derive(Clone, Debug)]
pub(super) struct Foreign {
    /// Its owner.
    pub(super) owner: String,
    /// Its name, as SQL wants it.
    pub(super) name: String,
}

impl Foreign {
    /// That, as an obstacle.
    pub(super) fn obstacle(&self) -> Obstacle {
        let Self { owner, name } = self;
        Obstacle {
            fact: format!("{name} belongs to role {owner}, for whom this role cannot make it again"),
            way_out: format!("let this role own it (`alter table … owner to …`), or `grant {owner}` to it"),
        }
    }

    /// That, of an object that has to be made again for the owner that the snapshot names.
    pub(super) fn obstacle_to_its_return(&self) -> Obstacle {
        let way_out = format!(
            "sign in as a role that may act for {} and create in the schema, or restore the snapshot into a new \
             database by its `restore.md`",
            self.owner
        );
        Obstacle { way_out, ..self.obstacle() }
    }
}

/// Objects that somebody else owns, of a session that shows whole names.
pub(super) async fn foreign(
    client: &Client,
    schemas: &[String],
    unread: &[(String, String)],
) -> Result<Vec<Foreign>, Error> {
    let version: i32 =
        client.query_one("select pg_catalog.current_setting('server_version_num')::int4", &[]).await?.get(0);
    // Since 16, who may act as a role need not be allowed to become it (PostgreSQL documentation, `GRANT`).
    let becoming = if version < 160_000 { "USAGE" } else { "SET" };
    let owned = client.query(FOREIGN, &[&schemas, &becoming]).await?;
    let owned = owned.iter().map(|row| Foreign { owner: row.get(0), name: row.get(1) });
    // What the dump could not read is left alone.
    Ok(owned.filter(|one| names::qualified(&one.name).is_none_or(|name| !unread.contains(&name))).collect())
}

/// Tries a step. Only a right that lacks is an obstacle: before the push there may be nothing to take back.
async fn tried(client: &Client, step: &Step) -> Result<Option<Obstacle>, Error> {
    let Step { what, sql, way_out, .. } = step;
    client.batch_execute("savepoint supa_safe_canary").await?;
    let outcome = client.batch_execute(sql).await;
    client.batch_execute("rollback to savepoint supa_safe_canary").await?;
    let Err(error) = outcome else { return Ok(None) };
    let Some(said) = error.as_db_error() else { return Err(error.into()) };
    if *said.code() != SqlState::INSUFFICIENT_PRIVILEGE {
        return Ok(None);
    }
    Ok(Some(Obstacle {
        fact: format!("this role cannot {what}: {}", said.message()),
        way_out: way_out.clone(),
    }))
}

/// Roles, memberships, settings, and privileges of what is to come, as the rollback changes them.
fn of_roles(way: &Way<'_>) -> Vec<Step> {
    let going = way.back.iter().filter(|difference| difference.kind == "role" && difference.after.is_none());
    let going: BTreeSet<&str> = going.map(|difference| difference.identity.as_str()).collect();
    let back = way.back.iter().filter(|difference| PRIVILEGED.contains(&difference.kind.as_str()));
    let steps = |difference: &Difference| match inverse::of(difference, &way.settings) {
        Inverse::Change(statements) => {
            let what = format!("take back {} {}", difference.kind, difference.identity);
            let is_certain = ["role", "membership"].contains(&difference.kind.as_str());
            let membership = (difference.kind == "membership" && difference.after.is_none())
                .then(|| names::around(&difference.identity, " in "))
                .flatten()
                // With a role its memberships go.
                .filter(|(member, role)| !going.contains(member) && !going.contains(role));
            // Each by itself: a role that is there still cannot be made.
            let steps = statements.into_iter().map(|sql| match membership {
                None => Step { is_certain, ..Step::new((what.clone(), sql)) },
                Some((member, role)) => Step {
                    what: what.clone(),
                    sql: format!("{sql}; {}", roles::is_gone(role, member)),
                    is_certain,
                    way_out: format!("sign in as a role that may, and `revoke {role} from {member}`"),
                },
            });
            steps.collect()
        }
        Inverse::Replace(_) | Inverse::Archive => Vec::new(),
    };
    back.flat_map(steps).collect()
}

/// Triggers that the push leaves on tables of the platform, which must go: who may make one need not be allowed to
/// drop it.
fn of_triggers(way: &Way<'_>) -> Vec<(String, String)> {
    let left =
        way.back.iter().filter(|difference| difference.kind == "trigger" && difference.before.is_some());
    let on_platform = left.filter_map(|difference| {
        let (name, table) = names::on(&difference.identity)?;
        is_platform_schema(&names::qualified(table)?.0).then_some((name, table))
    });
    let step = |(name, table): (&str, &str)| {
        let sql = format!("{}; drop trigger supa_safe_canary on {table}", trigger_on(table));
        (format!("drop trigger {name} on {table}"), sql)
    };
    on_platform.map(step).collect()
}

/// Makes a trigger on a table.
fn trigger_on(table: &str) -> String {
    format!(
        "create function public.supa_safe_canary() returns trigger language plpgsql as 'begin return null; end'; \
         create trigger supa_safe_canary after truncate on {table} execute function public.supa_safe_canary()"
    )
}

/// Objects on tables of the platform, and event triggers.
fn of_managed(recorded: &Fingerprint, policies: &[String]) -> Vec<(String, String)> {
    let owned = || recorded.lines().iter().filter(|line| line.class == Class::Owned);
    let on_managed = |kind: &'static str| {
        let is_meant =
            move |line: &&Line| line.kind == kind && (kind != "policy" || policies.contains(&line.identity));
        let tables = owned().filter(is_meant).filter_map(|line| {
            let (name, table) = names::on(&line.identity)?;
            is_platform_schema(&names::qualified(table)?.0).then_some((name.to_owned(), table.to_owned()))
        });
        let mut tables: Vec<(String, String)> = tables.collect();
        tables.sort_by(|left, right| left.1.cmp(&right.1));
        tables.dedup_by(|left, right| left.1 == right.1);
        tables
    };
    let triggers = on_managed("trigger")
        .into_iter()
        .map(|(name, table)| (format!("make trigger {name} on {table} again"), trigger_on(&table)));
    let policies = on_managed("policy").into_iter().map(|(name, table)| {
        (format!("make policy {name} on {table} again"), format!("drop policy if exists {name} on {table}"))
    });
    let has_event_trigger = owned().any(|line| line.kind == "event trigger");
    let event_trigger = has_event_trigger.then(|| {
        let sql = "create function public.supa_safe_canary() returns event_trigger language plpgsql as 'begin end'; \
             create event trigger supa_safe_canary on ddl_command_end execute function public.supa_safe_canary()";
        ("make event triggers again".to_owned(), sql.to_owned())
    });
    triggers.chain(policies).chain(event_trigger).collect()
}
