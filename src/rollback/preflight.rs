//! Whether a rollback would be possible on the target, before anything is pushed, and before one begins.

use super::inverse::RELATIONS;
use super::run::NotDone;
use super::{Error, Locks, Mode, canary, extensions, live, names, room};
use crate::effect::{Besides, FileEffect};
use crate::fingerprint::{Class, Difference, Fingerprint, Line};
use crate::left_out::LeftOut;
use crate::policy::Obstacle;
use crate::postgres::connect;
use crate::postgres::{catalog, rows};
use crate::salvage;
use crate::store::Snapshot;
use crate::target::Target;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_postgres::Client;

/// How long others may be at work before a push: who holds a table for longer may well do so again.
const OF_A_PUSH: Duration = Duration::from_mins(5);
/// How long they may be before a rollback, which waits for them about as long again.
const OF_A_ROLLBACK: Duration = Duration::from_secs(30);

/// What a rehearsed push leaves, and what taking it back makes again.
#[derive(Clone, Copy, Debug)]
pub struct Pushed<'a> {
    /// Locks that taking it back held on the copy.
    pub locks: Option<Locks>,
    /// The fingerprint that it leaves, as text: what differs in it must be made again.
    pub after: &'a str,
    /// How much the rollback takes back.
    pub mode: Mode,
    /// Qualified names of the tables that it makes again.
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
        written: written(pushed.effects, pushed.besides),
    };
    let dropped = of_kind("extension").into_iter().filter(|difference| difference.after.is_none());
    let mut dropped: BTreeSet<String> =
        dropped.map(|difference| names::plain(&difference.identity)).collect();
    let recorded_extensions = recorded.lines().iter().filter(|line| line.kind == "extension");
    let recorded_extensions = recorded_extensions.map(|line| names::plain(&line.identity));
    dropped.extend(recorded_extensions.filter(|name| pushed.dropped.contains(name)));
    let dropped: Vec<String> = dropped.into_iter().collect();
    let tables = &snapshot.manifest.database.tables;
    let mut found = extensions::written(tables, pushed.effects);
    found.extend(extensions::dropped(tables, &dropped));
    let schemas = schemas(&recorded);
    let scope = room::Scope {
        mode: pushed.mode,
        schemas: &schemas,
        tables: pushed.tables,
        extensions: &dropped,
        patience: OF_A_PUSH,
        held: pushed.locks.map(|locks| locks.held),
        enough: pushed.locks.map(|locks| locks.room),
    };
    let outcome = async {
        let client = &session.client;
        client.batch_execute(rows::PINNED).await?;
        let foreign = canary::foreign(client, &schemas, &unread(snapshot)).await?;
        found.extend(foreign.iter().map(canary::Foreign::obstacle));
        let missing = canary::send(client, &schemas, &way).await?;
        found.extend(missing.needed.into_iter().chain(missing.others));
        found.extend(room::look(client, &scope).await?);
        Ok::<_, Error>(found)
    };
    let outcome = outcome.await;
    session.close().await;
    Ok(outcome?)
}

/// A rollback that somebody asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How much goes back.
    pub mode: Mode,
    /// Qualified names of the tables that are made again, as far as they are known; all of them with everything.
    pub tables: &'a [String],
    /// How many locks it held on the copy, where exactly this was rehearsed.
    pub locks: Option<i64>,
    /// What the push did to rows, where that is known.
    pub effects: &'a [FileEffect],
    /// What it did besides.
    pub besides: &'a Besides,
    /// Whether steps are tried in a transaction that is rolled back, or the target is only read.
    pub tries: bool,
}

/// What a rollback will meet.
#[derive(Clone, Debug, Default)]
pub struct Foreseen {
    /// What it fails by.
    pub stops: Vec<Obstacle>,
    /// What it may fail by, or what it costs. It changes nothing when it fails, so nobody is kept from trying.
    pub hinders: Vec<Obstacle>,
    /// Bytes of the tables that are made again, about: the target takes as much again until it commits.
    pub bytes: u64,
}

/// Looks at the target as it stands, before anything is locked.
pub async fn look_back(
    target: &Target,
    snapshot: &Snapshot,
    wanted: Wanted<'_>,
) -> Result<Foreseen, NotDone> {
    let session = if wanted.tries {
        connect::writable(&target.connection).await?
    } else {
        connect::read_only(&target.connection).await?
    };
    let outcome = foresee(&session.client, snapshot, wanted).await;
    session.close().await;
    Ok(outcome?)
}

/// Looks at what a rollback of Storage alone will meet: whether this role may write its rows, and who holds them.
pub async fn look_at_storage(target: &Target, tries: bool) -> Result<Foreseen, NotDone> {
    let session = if tries {
        connect::writable(&target.connection).await?
    } else {
        connect::read_only(&target.connection).await?
    };
    let outcome = foresee_storage(&session.client, tries).await;
    session.close().await;
    Ok(outcome?)
}

async fn foresee_storage(client: &Client, tries: bool) -> Result<Foreseen, Error> {
    let tables = salvage::TABLES.map(str::to_owned);
    let mut foreseen = Foreseen::default();
    if tries {
        let recorded = Fingerprint::default();
        let written = tables.iter().cloned().collect();
        let way = canary::Way {
            recorded: &recorded,
            back: Vec::new(),
            settings: String::new(),
            changed: Vec::new(),
            written,
        };
        let missing = canary::send(client, &[], &way).await?;
        foreseen.hinders.extend(missing.needed.into_iter().chain(missing.others));
    }
    let scope = room::Scope {
        mode: Mode::Touched,
        schemas: &[],
        tables: &tables,
        extensions: &[],
        patience: OF_A_ROLLBACK,
        held: None,
        enough: None,
    };
    foreseen.hinders.extend(room::look(client, &scope).await?);
    Ok(foreseen)
}

async fn foresee(client: &Client, snapshot: &Snapshot, wanted: Wanted<'_>) -> Result<Foreseen, Error> {
    let read = |name: &str| fs_err::read_to_string(snapshot.database_file(name));
    let recorded = Fingerprint::from_text(&read("fingerprint.tsv")?)?;
    client.batch_execute(rows::PINNED).await?;
    let live = catalog::fingerprint(client).await?;
    let tables = match wanted.mode {
        Mode::Touched => wanted.tables.to_vec(),
        Mode::Whole => live::tables(client).await?.iter().map(live::Table::qualified).collect(),
    };
    let differences = recorded.differences(&live, Class::Owned);
    let of_kind = |kind: &str| {
        let differences = differences.iter().filter(move |difference| difference.kind == kind);
        differences.cloned().collect::<Vec<Difference>>()
    };
    let gone = of_kind("extension").into_iter().filter(|difference| difference.after.is_none());
    let gone: Vec<String> = gone.map(|difference| names::plain(&difference.identity)).collect();
    let schemas = schemas(&recorded);
    let mut foreseen = Foreseen::default();
    for foreign in canary::foreign(client, &schemas, &unread(snapshot)).await? {
        match fate(&recorded, &tables, &foreign) {
            Some(Fate::Fails) => foreseen.stops.push(foreign.obstacle_to_its_return()),
            Some(Fate::Unknown) if wanted.mode == Mode::Whole => {
                foreseen.hinders.push(foreign.obstacle_to_its_return());
            }
            Some(Fate::Unknown) | None => {}
        }
    }
    if wanted.tries {
        let way = canary::Way {
            recorded: &recorded,
            back: live.differences(&recorded, Class::Owned),
            settings: format!("{}\n{}", read("roles.sql")?, read("settings.sql")?),
            changed: of_kind("policy").into_iter().map(|difference| difference.identity).collect(),
            written: written(wanted.effects, wanted.besides),
        };
        let missing = canary::send(client, &schemas, &way).await?;
        foreseen.stops.extend(missing.needed);
        foreseen.hinders.extend(missing.others);
    }
    let scope = room::Scope {
        mode: wanted.mode,
        schemas: &schemas,
        tables: &tables,
        extensions: &gone,
        patience: OF_A_ROLLBACK,
        held: wanted.locks,
        enough: None,
    };
    foreseen.hinders.extend(room::look(client, &scope).await?);
    foreseen.bytes = scope.bytes(client).await?;
    Ok(foreseen)
}

/// What becomes of an object that somebody else owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes, and cannot come again.
    Fails,
    /// Whether it goes is not known.
    Unknown,
}

/// None where it is not the user's, or where it comes again for another owner.
fn fate(recorded: &Fingerprint, tables: &[String], foreign: &canary::Foreign) -> Option<Fate> {
    let mut lines = recorded.lines().iter().filter(|line| line.class == Class::Owned);
    let is_it = |line: &&Line| line.identity == foreign.name && RELATIONS.contains(&line.kind.as_str());
    let line = lines.find(is_it)?;
    let fields: Value = serde_json::from_str(&line.definition).ok()?;
    if fields["owner"].as_str().map(names::plain) != Some(foreign.owner.clone()) {
        return None;
    }
    let name = names::qualified(&foreign.name);
    let goes = tables.iter().any(|table| names::qualified(table) == name);
    Some(if goes { Fate::Fails } else { Fate::Unknown })
}

/// What the dump could not read.
fn unread(snapshot: &Snapshot) -> Vec<(String, String)> {
    let gaps = &snapshot.manifest.database.gaps;
    gaps.iter().map(|gap| (gap.schema.clone(), gap.name.clone())).collect()
}

/// Tables of the platform that it wrote to, and that are written to again.
fn written(effects: &[FileEffect], besides: &Besides) -> BTreeSet<String> {
    let effects = effects.iter().flat_map(|effect| &effect.tables);
    let storage = effects.map(|table| &table.table).filter(|table| salvage::TABLES.contains(&table.as_str()));
    storage.chain(besides.managed.iter().map(|rows| &rows.table)).cloned().collect()
}

fn schemas(recorded: &Fingerprint) -> Vec<String> {
    let owned = recorded.lines().iter().filter(|line| line.class == Class::Owned);
    owned.filter(|line| line.kind == "schema").map(|line| names::plain(&line.identity)).collect()
}
