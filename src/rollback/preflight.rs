//! Whether a rollback would be possible on the target, before anything is pushed.

use super::run::NotDone;
use super::{Error, canary, extensions, names, room};
use crate::effect::{Besides, FileEffect};
use crate::fingerprint::{Class, Difference, Fingerprint};
use crate::left_out::LeftOut;
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
    /// Extensions that it drops by its text, of which the copy may show nothing.
    pub dropped: &'a [String],
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
    let mut dropped: BTreeSet<String> =
        dropped.map(|difference| names::plain(&difference.identity)).collect();
    let recorded_extensions = recorded.lines().iter().filter(|line| line.kind == "extension");
    let recorded_extensions = recorded_extensions.map(|line| names::plain(&line.identity));
    dropped.extend(recorded_extensions.filter(|name| pushed.dropped.contains(name)));
    let dropped: Vec<String> = dropped.into_iter().collect();
    let gaps = &snapshot.manifest.database.gaps;
    let unread: Vec<_> = gaps.iter().map(|gap| (gap.schema.clone(), gap.name.clone())).collect();
    let tables = &snapshot.manifest.database.tables;
    let mut found = extensions::written(tables, pushed.effects);
    found.extend(extensions::dropped(tables, &dropped));
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

fn schemas(recorded: &Fingerprint) -> Vec<String> {
    let owned = recorded.lines().iter().filter(|line| line.class == Class::Owned);
    owned.filter(|line| line.kind == "schema").map(|line| names::plain(&line.identity)).collect()
}
