//! Whether a rollback would be possible on the target, before anything is pushed.

use super::run::NotDone;
use super::{Error, canary, names, room};
use crate::effect::{Besides, FileEffect};
use crate::fingerprint::{Class, Difference, Fingerprint};
use crate::left_out::LeftOut;
use crate::manifest::TableRows;
use crate::policy::Obstacle;
use crate::postgres::connect;
use crate::store::Snapshot;
use crate::target::Target;
use std::collections::BTreeSet;

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
    /// What it did besides.
    pub besides: &'a Besides,
}

/// What stands in the way of a rollback to this snapshot. Steps that need more than the owner's rights are
/// tried in a transaction that is rolled back.
pub async fn look(
    target: &Target,
    snapshot: &Snapshot,
    pushed: Pushed<'_>,
) -> Result<Vec<Obstacle>, NotDone> {
    let after = Fingerprint::from_text(pushed.after).map_err(Error::Fingerprint)?;
    let read = |name: &str| fs_err::read_to_string(snapshot.database_file(name)).map_err(Error::Io);
    let recorded = Fingerprint::from_text(&read("fingerprint.tsv")?).map_err(Error::Fingerprint)?;
    let session = connect::writable(&target.connection).await?;
    let comparable = pushed.left_out.comparable(&recorded);
    let differences = comparable.differences(&after, Class::Owned);
    let of_kind = |kind: &str| {
        let differences = differences.iter().filter(move |difference| difference.kind == kind);
        differences.cloned().collect::<Vec<Difference>>()
    };
    let way = canary::Way {
        recorded: &recorded,
        back: after.differences(&comparable, Class::Owned),
        settings: format!("{}\n{}", read("roles.sql")?, read("settings.sql")?),
        changed: of_kind("policy").into_iter().map(|difference| difference.identity).collect(),
        written: written(&pushed),
    };
    let dropped = of_kind("extension").into_iter().filter(|difference| difference.after.is_none());
    let dropped: Vec<String> = dropped.map(|difference| names::plain(&difference.identity)).collect();
    let gaps = &snapshot.manifest.database.gaps;
    let unread: Vec<_> = gaps.iter().map(|gap| (gap.schema.clone(), gap.name.clone())).collect();
    let mut found = beyond(&snapshot.manifest.database.tables, pushed.effects);
    let outcome = async {
        found.extend(canary::send(&session.client, &schemas(&recorded), &way, &unread).await?);
        found.extend(room::look(&session.client, &schemas(&recorded), pushed.tables, &dropped).await?);
        Ok::<_, Error>(found)
    };
    let outcome = outcome.await;
    session.close().await;
    Ok(outcome?)
}

/// Tables of the platform that it wrote to, and that are written to again.
fn written(pushed: &Pushed<'_>) -> BTreeSet<String> {
    let of_storage = ["storage.objects", "storage.buckets"];
    let effects = pushed.effects.iter().flat_map(|effect| &effect.tables);
    let storage = effects.map(|table| &table.table).filter(|table| of_storage.contains(&table.as_str()));
    storage.chain(pushed.besides.managed.iter().map(|rows| &rows.table)).cloned().collect()
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
        let found: Vec<String> = beyond(&tables, &[effects]).into_iter().map(|one| one.fact).collect();
        assert_eq!(
            found,
            ["the push writes rows of pgmq.meta, which belong to extension pgmq and do not go back"]
        );
    }
}
