//! Whether a rollback would be possible on the target, before anything is pushed.

use super::run::NotDone;
use super::{Error, names};
use crate::fingerprint::{Class, Fingerprint, Line, is_platform_schema};
use crate::postgres::connect;
use crate::postgres::rows;
use crate::store::Snapshot;
use crate::target::Target;
use tokio_postgres::Client;

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
    where n.nspname = any($1) and not pg_catalog.pg_has_role(o.owner, 'USAGE')
        and not exists (
            select from pg_catalog.pg_depend d
            where d.classid = o.class and d.objid = o.id and d.deptype in ('e', 'i'))
    order by 2 limit 20";

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

/// Policies that go with an object of the user's, by the words of the fingerprint.
const DEPENDENT: &str = "
    select distinct pg_catalog.quote_ident(p.polname) || ' on ' || p.polrelid::pg_catalog.regclass
    from pg_catalog.pg_policy p
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
    left join pg_catalog.pg_proc f on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.oid = d.refobjid
    left join pg_catalog.pg_class c on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.refobjid
    join pg_catalog.pg_namespace n on n.oid = coalesce(f.pronamespace, c.relnamespace)
    where n.nspname = any($1)";

/// What stands in the way of a rollback to this snapshot, in words. Steps that need more than the owner's
/// rights are tried in a transaction that is rolled back.
///
/// `after` is the fingerprint that the push leaves: what differs in it must be made again.
pub async fn look(target: &Target, snapshot: &Snapshot, after: &str) -> Result<Vec<String>, NotDone> {
    let after = Fingerprint::from_text(after).map_err(Error::Fingerprint)?;
    let recorded = fs_err::read_to_string(snapshot.database_file("fingerprint.tsv")).map_err(Error::Io)?;
    let recorded = Fingerprint::from_text(&recorded).map_err(Error::Fingerprint)?;
    let session = connect::writable(&target.connection).await?;
    let changed: Vec<String> = recorded
        .differences(&after, Class::Owned)
        .into_iter()
        .filter(|difference| difference.kind == "policy")
        .map(|difference| difference.identity)
        .collect();
    let gaps = &snapshot.manifest.database.gaps;
    let unread: Vec<_> = gaps.iter().map(|gap| (gap.schema.clone(), gap.name.clone())).collect();
    let found = look_at(&session.client, &recorded, changed, &unread).await;
    session.close().await;
    Ok(found?)
}

async fn look_at(
    client: &Client,
    recorded: &Fingerprint,
    mut policies: Vec<String>,
    unread: &[(String, String)],
) -> Result<Vec<String>, Error> {
    let schemas: Vec<String> = recorded
        .lines()
        .iter()
        .filter(|line| line.class == Class::Owned && line.kind == "schema")
        .map(|line| names::plain(&line.identity))
        .collect();
    client.batch_execute("begin").await?;
    client.batch_execute(rows::PINNED).await?;
    client.batch_execute("set local lock_timeout = '2s'").await?;
    let mut found: Vec<String> = client
        .query(FOREIGN, &[&schemas])
        .await?
        .iter()
        .map(|row| (row.get::<_, String>(0), row.get::<_, String>(1)))
        // What the dump could not read is left alone.
        .filter(|(_, name)| names::qualified(name).is_none_or(|name| !unread.contains(&name)))
        .map(|(owner, name)| {
            format!("{name} belongs to role {owner}, for whom this role cannot make it again")
        })
        .collect();
    let locks = client.query_one(LOCKS, &[&schemas]).await?;
    let (needed, room): (i64, i64) = (locks.get(0), locks.get(1));
    if needed > room {
        found.push(format!(
            "a rollback of everything takes about {needed} locks, and the server has room for {room}: raise `max_locks_per_transaction`"
        ));
    }
    let dependent = client.query(DEPENDENT, &[&schemas]).await?;
    policies.extend(dependent.iter().map(|row| row.get::<_, String>(0)));
    for (what, sql) in tries(recorded, &policies) {
        client.batch_execute("savepoint supa_safe_canary").await?;
        let outcome = client.batch_execute(&sql).await;
        client.batch_execute("rollback to savepoint supa_safe_canary").await?;
        if let Err(error) = outcome {
            match error.as_db_error() {
                // Somebody is at work there, which says nothing about rights.
                Some(said) if *said.code() == tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE => {}
                Some(said) => found.push(format!("this role cannot {what}: {}", said.message())),
                None => return Err(error.into()),
            }
        }
    }
    client.batch_execute("rollback").await?;
    Ok(found)
}

/// Steps that need more than the owner's rights, and what they are.
fn tries(recorded: &Fingerprint, policies: &[String]) -> Vec<(String, String)> {
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
    let triggers = on_managed("trigger").into_iter().map(|(name, table)| {
        let sql = format!(
            "create function public.supa_safe_canary() returns trigger language plpgsql as 'begin return null; end'; \
             create trigger supa_safe_canary after truncate on {table} execute function public.supa_safe_canary()"
        );
        (format!("make trigger {name} on {table} again"), sql)
    });
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
