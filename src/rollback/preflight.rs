//! Whether a rollback would be possible on the target, before anything is pushed.

use super::run::NotDone;
use super::{Error, names, room};
use crate::effect::FileEffect;
use crate::fingerprint::{Class, Difference, Fingerprint, Line, is_platform_schema};
use crate::left_out::LeftOut;
use crate::manifest::TableRows;
use crate::policy::Obstacle;
use crate::postgres::connect;
use crate::postgres::rows;
use crate::store::Snapshot;
use crate::target::Target;
use std::collections::BTreeSet;
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

/// Policies that go with an object of the user's, by the words of the fingerprint.
const DEPENDENT: &str = "
    select distinct pg_catalog.quote_ident(p.polname) || ' on ' || p.polrelid::pg_catalog.regclass
    from pg_catalog.pg_policy p
    join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
    left join pg_catalog.pg_proc f on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.oid = d.refobjid
    left join pg_catalog.pg_class c on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and c.oid = d.refobjid
    join pg_catalog.pg_namespace n on n.oid = coalesce(f.pronamespace, c.relnamespace)
    where n.nspname = any($1)";

/// What a rehearsed push leaves, and what taking it back makes again.
#[derive(Clone, Copy, Debug)]
pub struct Pushed<'a> {
    /// The fingerprint that it leaves, as text: what differs in it must be made again.
    pub after: &'a str,
    /// Qualified names of the tables that the rollback makes again.
    pub tables: &'a [String],
    /// What the copy that it was rehearsed on cannot hold.
    pub left_out: &'a LeftOut,
    /// What it did to rows.
    pub effects: &'a [FileEffect],
}

/// What stands in the way of a rollback to this snapshot. Steps that need more than the owner's rights are
/// tried in a transaction that is rolled back.
pub async fn look(
    target: &Target,
    snapshot: &Snapshot,
    pushed: Pushed<'_>,
) -> Result<Vec<Obstacle>, NotDone> {
    let after = Fingerprint::from_text(pushed.after).map_err(Error::Fingerprint)?;
    let recorded = fs_err::read_to_string(snapshot.database_file("fingerprint.tsv")).map_err(Error::Io)?;
    let recorded = Fingerprint::from_text(&recorded).map_err(Error::Fingerprint)?;
    let session = connect::writable(&target.connection).await?;
    let differences = pushed.left_out.comparable(&recorded).differences(&after, Class::Owned);
    let of_kind = |kind: &str| {
        let differences = differences.iter().filter(move |difference| difference.kind == kind);
        differences.cloned().collect::<Vec<Difference>>()
    };
    let changed = of_kind("policy").into_iter().map(|difference| difference.identity).collect();
    let dropped = of_kind("extension").into_iter().filter(|difference| difference.after.is_none());
    let dropped: Vec<String> = dropped.map(|difference| names::plain(&difference.identity)).collect();
    let gaps = &snapshot.manifest.database.gaps;
    let unread: Vec<_> = gaps.iter().map(|gap| (gap.schema.clone(), gap.name.clone())).collect();
    let mut found = beyond(&snapshot.manifest.database.tables, pushed.effects);
    let outcome = async {
        found.extend(look_at(&session.client, &recorded, changed, &unread).await?);
        found.extend(room::look(&session.client, &schemas(&recorded), pushed.tables, &dropped).await?);
        Ok::<_, Error>(found)
    };
    let outcome = outcome.await;
    session.close().await;
    Ok(outcome?)
}

/// Rows of an extension's own tables, such as the list of queues: they are in no archive as rows of the
/// user's, and cannot be told from what the extension keeps there.
fn beyond(tables: &[TableRows], effects: &[FileEffect]) -> Vec<Obstacle> {
    let written = effects.iter().flat_map(|effect| &effect.tables);
    let written: BTreeSet<(String, String)> = written
        .filter(|table| table.inserted + table.updated + table.deleted > 0)
        .filter_map(|table| names::qualified(&table.table))
        .collect();
    let beyond = tables.iter().filter(|table| {
        // The CLI itself writes secrets of the configuration.
        table.extension.is_some()
            && table.schema != "vault"
            && written.contains(&(table.schema.clone(), table.name.clone()))
    });
    let obstacle = |table: &TableRows| Obstacle {
        fact: format!(
            "the push writes rows of {}, which belong to extension {} and do not go back",
            table.qualified(),
            table.extension.as_deref().unwrap_or_default()
        ),
        way_out: "write them by hand after the push".to_owned(),
    };
    beyond.map(obstacle).collect()
}

fn schemas(recorded: &Fingerprint) -> Vec<String> {
    let owned = recorded.lines().iter().filter(|line| line.class == Class::Owned);
    owned.filter(|line| line.kind == "schema").map(|line| names::plain(&line.identity)).collect()
}

async fn look_at(
    client: &Client,
    recorded: &Fingerprint,
    mut policies: Vec<String>,
    unread: &[(String, String)],
) -> Result<Vec<Obstacle>, Error> {
    let schemas = schemas(recorded);
    client.batch_execute("begin").await?;
    client.batch_execute(rows::PINNED).await?;
    client.batch_execute("set local lock_timeout = '2s'").await?;
    let mut found: Vec<Obstacle> = client
        .query(FOREIGN, &[&schemas])
        .await?
        .iter()
        .map(|row| (row.get::<_, String>(0), row.get::<_, String>(1)))
        // What the dump could not read is left alone.
        .filter(|(_, name)| names::qualified(name).is_none_or(|name| !unread.contains(&name)))
        .map(|(owner, name)| Obstacle {
            fact: format!("{name} belongs to role {owner}, for whom this role cannot make it again"),
            way_out: format!("let this role own it (`alter table … owner to …`), or `grant {owner}` to it"),
        })
        .collect();
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
                Some(said) => found.push(Obstacle {
                    fact: format!("this role cannot {what}: {}", said.message()),
                    way_out: "give the role of the connection that right, or sign in as one that has it"
                        .to_owned(),
                }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::TableEffect;
    use crate::manifest::Content;

    #[test]
    fn rows_of_an_extension_are_named() {
        let table = |schema: &str, name: &str, extension: Option<&str>| TableRows {
            schema: schema.to_owned(),
            name: name.to_owned(),
            class: Class::Platform,
            count: 1,
            content: Content::Sum("1".to_owned()),
            is_hashed_in_archive: true,
            extension: extension.map(str::to_owned),
        };
        let tables = [
            table("pgmq", "meta", Some("pgmq")),
            table("pgmq", "q_mail", None),
            table("vault", "secrets", Some("supabase_vault")),
            table("cron", "job", Some("pg_cron")),
        ];
        let effect = |table: &str, inserted| TableEffect {
            table: table.to_owned(),
            inserted,
            updated: 0,
            deleted: 0,
            rewritten: false,
            columns: Vec::new(),
        };
        let written = ["pgmq.meta", "pgmq.q_mail", "vault.secrets"].map(|name| effect(name, 1));
        let effects = FileEffect {
            file: "1_queue.sql".to_owned(),
            seconds: 0.1,
            tables: written.into_iter().chain([effect("cron.job", 0)]).collect(),
            locks: Vec::new(),
        };
        let found: Vec<String> = beyond(&tables, &[effects]).into_iter().map(|one| one.fact).collect();
        assert_eq!(
            found,
            ["the push writes rows of pgmq.meta, which belong to extension pgmq and do not go back"]
        );
    }
}
