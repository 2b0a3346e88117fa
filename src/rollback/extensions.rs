//! Rows of an extension's own tables, such as jobs and the list of queues: they are in no archive as rows of
//! the user's, and cannot be told from what the extension keeps there.

use super::closure::Closure;
use super::inverse::quote_literal;
use super::live::sql_name;
use super::since::{self, Doomed, Saved};
use super::{Error, Work, names};
use crate::disk;
use crate::effect::FileEffect;
use crate::fingerprint::Difference;
use crate::manifest::{ExtensionVersion, TableRows, qualified};
use crate::policy::Obstacle;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Tables that are members of some extensions, or of all but some, and whether this role can read all of them.
const MEMBERS: &str = "
    select e.extname::text, n.nspname::text, c.relname::text,
        array(
            select a.attname::text from pg_catalog.pg_attribute a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
            order by a.attnum),
        pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select')
            and not pg_catalog.row_security_active(c.oid)
    from pg_catalog.pg_extension e
    join pg_catalog.pg_depend d on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid
        and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'e'
    join pg_catalog.pg_class c on c.oid = d.objid and c.relkind = 'r'
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where (e.extname = any($1)) = $2
    order by 1, 2, 3";

/// A table of an extension.
struct Member {
    extension: String,
    schema: String,
    name: String,
    columns: Vec<String>,
    is_readable: bool,
}

/// Tables of these extensions, or of all others.
async fn members(client: &Client, extensions: &[String], are_these: bool) -> Result<Vec<Member>, Error> {
    let rows = client.query(MEMBERS, &[&extensions, &are_these]).await?;
    let member = |row: &tokio_postgres::Row| Member {
        extension: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        columns: row.get(3),
        is_readable: row.get(4),
    };
    Ok(rows.iter().map(member).collect())
}

/// Tables with rows of extensions that the snapshot does not have and that go, in words, for people who are
/// about to take back a push.
pub async fn of_added(client: &Client, recorded: &[ExtensionVersion]) -> Result<Vec<String>, Error> {
    let recorded: Vec<String> = recorded.iter().map(|extension| extension.name.clone()).collect();
    let mut found = Vec::new();
    for Member { extension, schema, name, is_readable, .. } in members(client, &recorded, false).await? {
        let table = qualified(&schema, &name);
        if !is_readable {
            found.push(format!("{table} of extension {extension}, which this role may not read"));
            continue;
        }
        let sql = format!("select exists (select from only {})", sql_name(&schema, &name));
        if client.query_one(&sql, &[]).await?.get(0) {
            found.push(format!("{table} of extension {extension}"));
        }
    }
    Ok(found)
}

/// Rows of extensions that were kept, and what could not be, in words.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) saved: Vec<(Doomed, Saved)>,
    pub(super) lost: Vec<String>,
}

/// Keeps the rows of extensions that go; so many files are there already.
pub(super) async fn keep(work: &Work<'_>, closure: &Closure, files: usize) -> Result<Kept, Error> {
    let mut kept = Kept::default();
    let going = closure.units.iter().filter(|unit| unit.kind == "extension");
    let going: Vec<String> = going.map(|unit| names::plain(&unit.identity)).collect();
    let Some(folder) = work.task.keep_in.filter(|_| !going.is_empty()) else { return Ok(kept) };
    for Member { extension, schema, name, columns, is_readable } in members(work.client, &going, true).await?
    {
        let table = qualified(&schema, &name);
        if !is_readable {
            kept.lost.push(format!(
                "extension {extension} is gone, and with it the rows of {table}, which this role may not read"
            ));
            continue;
        }
        since::unmark(work.client).await?;
        let sql = sql_name(&schema, &name);
        // Who may not lock it reads what is there.
        let body = format!(
            "begin lock table only {sql} in access exclusive mode; exception when insufficient_privilege then null; end"
        );
        let mark = format!("insert into pg_temp.supa_safe_since select 0, t.ctid from only {sql} t");
        let stage = Error::at("keep the rows of extensions");
        work.client.batch_execute(&format!("do {}", quote_literal(&body))).await.map_err(&stage)?;
        let rows = work.client.execute(&mark, &[]).await.map_err(&stage)?;
        if rows > 0 {
            let stem = format!("{:04}", files + kept.saved.len() + 1);
            let doomed = Doomed { extension: Some(extension), ..Doomed::plain(&schema, &name, columns) };
            let file = since::write(work.client, (0, &doomed), (folder, &stem)).await?;
            kept.saved.push((doomed, Saved { table, rows, file }));
        }
    }
    disk::sync_dir(folder)?;
    Ok(kept)
}

/// Those that a push writes, of extensions that stay.
pub(super) fn written(tables: &[TableRows], effects: &[FileEffect]) -> Vec<Obstacle> {
    let written = effects.iter().flat_map(|effect| &effect.tables);
    let written: BTreeSet<(String, String)> = written
        .filter(|table| table.inserted + table.updated + table.deleted > 0)
        .filter_map(|table| names::qualified(&table.table))
        .collect();
    let written = tables.iter().filter(|table| {
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
    written.map(obstacle).collect()
}

/// Those that go with the extensions that a push drops.
pub(super) fn dropped(tables: &[TableRows], extensions: &[String]) -> Vec<Obstacle> {
    let lost = lost(tables, |name| extensions.iter().any(|dropped| dropped == name)).into_iter();
    let obstacle = |(name, rows): (&str, Vec<String>)| Obstacle {
        fact: format!(
            "the push drops extension {name}, and with it rows that do not go back: {}",
            rows.join(", ")
        ),
        way_out: "leave the extension where it is, or write its rows down, to make them again by hand"
            .to_owned(),
    };
    lost.map(obstacle).collect()
}

/// What came back without its rows, in words.
pub(super) fn emptied(tables: &[TableRows], differences: &[Difference]) -> Vec<String> {
    let gone = differences.iter().filter(|one| one.kind == "extension" && one.before.is_none());
    let gone: BTreeSet<String> = gone.map(|one| names::plain(&one.identity)).collect();
    let lost = lost(tables, |name| gone.contains(name)).into_iter();
    lost.map(|(name, rows)| format!("extension {name} came back without its rows: {}", rows.join(", ")))
        .collect()
}

/// How many rows the snapshot has of these extensions, by their names, in words.
fn lost(tables: &[TableRows], is_one: impl Fn(&str) -> bool) -> BTreeMap<&str, Vec<String>> {
    let mut lost: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in tables.iter().filter(|table| table.count > 0) {
        if let Some(name) = table.extension.as_deref().filter(|name| is_one(name)) {
            lost.entry(name).or_default().push(format!("{} of {}", table.count, table.qualified()));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::TableEffect;
    use crate::fingerprint::Class;
    use crate::manifest::Content;

    fn tables() -> Vec<TableRows> {
        let table = |schema: &str, name: &str, count, extension: Option<&str>| TableRows {
            schema: schema.to_owned(),
            name: name.to_owned(),
            class: Class::Platform,
            count,
            content: Content::Sum("1".to_owned()),
            is_hashed_in_archive: true,
            extension: extension.map(str::to_owned),
            dropped: None,
            second: None,
            from: None,
        };
        vec![
            table("pgmq", "meta", 1, Some("pgmq")),
            table("pgmq", "q_mail", 1, None),
            table("vault", "secrets", 1, Some("supabase_vault")),
            table("cron", "job", 2, Some("pg_cron")),
            table("cron", "job_run_details", 30, Some("pg_cron")),
            table("net", "queue", 0, Some("pg_net")),
        ]
    }

    fn facts(found: Vec<Obstacle>) -> Vec<String> {
        found.into_iter().map(|one| one.fact).collect()
    }

    #[test]
    fn rows_of_an_extension_are_named() {
        let effect = |table: &str, inserted| TableEffect {
            table: table.to_owned(),
            inserted,
            updated: 0,
            deleted: 0,
            rewritten: false,
            reached: false,
            columns: Vec::new(),
        };
        let written = ["pgmq.meta", "pgmq.q_mail", "vault.secrets"].map(|name| effect(name, 1));
        let effects = FileEffect {
            file: "1_queue.sql".to_owned(),
            seconds: 0.1,
            tables: written.into_iter().chain([effect("cron.job", 0)]).collect(),
            locks: Vec::new(),
        };
        assert_eq!(
            facts(super::written(&tables(), &[effects])),
            ["the push writes rows of pgmq.meta, which belong to extension pgmq and do not go back"]
        );
    }

    #[test]
    fn rows_that_go_with_an_extension_are_named() {
        let extensions = ["pg_cron", "pg_net", "citext"].map(str::to_owned);
        assert_eq!(
            facts(dropped(&tables(), &extensions)),
            ["the push drops extension pg_cron, and with it rows that do not go back: 2 of cron.job, \
                 30 of cron.job_run_details"]
        );
        let gone = |identity: &str, before: Option<&str>| Difference {
            kind: "extension".to_owned(),
            identity: identity.to_owned(),
            before: before.map(str::to_owned),
            after: Some("{}".to_owned()),
        };
        assert_eq!(
            emptied(&tables(), &[gone("pgmq", None), gone("pg_cron", Some("{}")), gone("pg_net", None)]),
            ["extension pgmq came back without its rows: 1 of pgmq.meta"]
        );
    }
}
