//! Rows of an extension's own tables, such as jobs and the list of queues: they are in no archive as rows of
//! the user's, and cannot be told from what the extension keeps there.

use super::names;
use crate::effect::FileEffect;
use crate::fingerprint::Difference;
use crate::manifest::TableRows;
use crate::policy::Obstacle;
use std::collections::{BTreeMap, BTreeSet};

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
