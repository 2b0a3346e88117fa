//! What must go: what differs, and everything that cannot stay when that goes.

use super::inverse::{self, Inverse, RELATIONS, Unit};
use super::live::Table;
use super::{Error, Mode, Work, large, locks, names, partitions, unproved};
use crate::fingerprint::{Class, Fingerprint};
use crate::manifest::quote_identifier;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Rounds of looking for what else must go; each adds something, or ends it.
const ROUNDS: usize = 8;
/// Objects that one statement drops.
const AT_ONCE: usize = 100;

/// What goes, and the tables among it, in a fixed order.
#[derive(Clone, Debug, Default)]
pub(super) struct Closure {
    pub(super) units: BTreeSet<Unit>,
    pub(super) tables: Vec<Table>,
}

impl Closure {
    /// The tables that hold rows of users.
    pub(super) fn users_tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| table.has_rows && !table.is_history())
    }
}

/// Finds what must go, and locks it. A partition that somebody makes before its parent is locked
/// would go with it unseen: then everything is looked at again, under the locks.
pub(super) async fn find(work: &Work<'_>, live: &Fingerprint) -> Result<Closure, Error> {
    let (mut tables, mut taken) = (work.tables().await?, BTreeSet::new());
    for _ in 0..ROUNDS {
        let known = known(work, live, &tables).await?;
        // What is found by dropping takes its locks in the order of the drop: few are left for that.
        locks::take(work, (live, &known), &mut taken).await?;
        let closure = with_all_that_goes_along(work, known, &tables).await?;
        keep_hidden(work, live, &closure)?;
        locks::take(work, (live, &closure), &mut taken).await?;
        let now = work.tables().await?;
        // Somebody may have added a column, which would go unseen.
        if now == tables {
            return Ok(closure);
        }
        tables = now;
    }
    Err(Error::NotExact(vec!["tables come and go all the while".to_owned()]))
}

/// Demands that no user mapping goes whose options the archive lacks: it would come back without them.
fn keep_hidden(work: &Work<'_>, live: &Fingerprint, closure: &Closure) -> Result<(), Error> {
    let goes = |kind: &str, identity: &str| {
        closure.units.iter().any(|unit| unit.kind == kind && unit.identity == identity)
    };
    let wrapper = |server: &str| {
        let found =
            live.lines().iter().find(|line| line.kind == "foreign server" && line.identity == server)?;
        let fields: Value = serde_json::from_str(&found.definition).ok()?;
        fields.get("wrapper")?.as_str().map(str::to_owned)
    };
    let stands = |identity: &str| {
        live.lines().iter().any(|line| line.kind == "user mapping" && line.identity == identity)
    };
    let hidden = work.recorded.lines().iter().filter(|line| line.hides_options() && stands(&line.identity));
    let lost = hidden.filter(|line| {
        let server = names::on(&line.identity).map(|(_, server)| server).unwrap_or_default();
        goes("user mapping", &line.identity)
            || goes("foreign server", server)
            || wrapper(server)
                .is_some_and(|wrapper| goes("foreign data wrapper", &quote_identifier(&wrapper)))
    });
    let lost: Vec<String> = lost
        .map(|line| {
            format!(
                "user mapping {} would lose its options, which the snapshot could not read",
                line.identity
            )
        })
        .collect();
    if lost.is_empty() { Ok(()) } else { Err(Error::NotExact(lost)) }
}

/// What is known to go before anything is tried.
async fn known(work: &Work<'_>, live: &Fingerprint, tables: &[Table]) -> Result<Closure, Error> {
    let mut closure = Closure { units: differing(work, live), tables: Vec::new() };
    closure.units.extend(large::touched(work, live).await?);
    if work.task.mode == Mode::Whole {
        closure.units.extend(everything(live));
        closure.tables = tables.to_vec();
        return Ok(closure);
    }
    for table in tables.iter().filter(|table| is_named(work.task.tables, table)) {
        closure.units.insert(Unit { kind: "table".to_owned(), identity: table.sql() });
    }
    Ok(closure)
}

/// The same with what goes along, as a drop that is taken back tells it, and what must come again with that.
async fn with_all_that_goes_along(
    work: &Work<'_>,
    mut closure: Closure,
    tables: &[Table],
) -> Result<Closure, Error> {
    if work.task.mode == Mode::Whole {
        return Ok(closure);
    }
    for _ in 0..ROUNDS {
        work.client.batch_execute("savepoint supa_safe_closure").await?;
        drop_all(work.client, &closure).await?;
        let left = work.look().await?;
        let standing: BTreeSet<u32> = work.tables().await?.iter().map(|table| table.oid).collect();
        work.client.batch_execute("rollback to savepoint supa_safe_closure").await?;
        closure.tables = tables.iter().filter(|table| !standing.contains(&table.oid)).cloned().collect();
        let mut more = differing(work, &left);
        more.extend(parents(&work.recorded, &left));
        more.extend(unproved::above_gone(&work.recorded, &left));
        more.retain(|unit| !closure.units.contains(unit));
        if more.is_empty() {
            return Ok(closure);
        }
        closure.units.extend(more);
    }
    let left = closure.units.iter().map(|unit| format!("{} {}", unit.kind, unit.identity)).collect();
    Err(Error::NotExact(left))
}

/// Whether a table is one of those named.
pub(super) fn is_named(qualified: &[String], table: &Table) -> bool {
    let own = (table.schema.clone(), table.name.clone());
    qualified.iter().filter_map(|name| names::qualified(name)).any(|named| named == own)
}

/// What differs and cannot be changed in place.
fn differing(work: &Work<'_>, live: &Fingerprint) -> BTreeSet<Unit> {
    let relations: BTreeMap<&str, &str> = live
        .lines()
        .iter()
        .filter(|line| RELATIONS.contains(&line.kind.as_str()) || line.kind == "type")
        .map(|line| (line.identity.as_str(), line.kind.as_str()))
        .collect();
    let of_constraints = indexes_of_constraints(live);
    let cloned = cloned_triggers(live);
    let units = work.differences(live).into_iter().filter_map(|difference| {
        let is_cloned = difference.kind == "trigger" && cloned.contains(&difference.identity);
        if is_cloned || inverse::is_inherited(&difference) {
            return None;
        }
        let Inverse::Replace(unit) = inverse::of(&difference, &work.settings) else { return None };
        if unit.kind == "index"
            && let Some(constraint) = of_constraints.get(&unit.identity)
        {
            return Some(Unit { kind: "constraint".to_owned(), identity: constraint.clone() });
        }
        if unit.kind != "relation" {
            return Some(unit);
        }
        let kind = (*relations.get(unit.identity.as_str())?).to_owned();
        Some(Unit { kind, identity: unit.identity })
    });
    units.collect()
}

/// The indexes that constraints made, which go with these alone, and the constraints.
fn indexes_of_constraints(live: &Fingerprint) -> BTreeMap<String, String> {
    let constraints = live.lines().iter().filter(|line| line.kind == "constraint");
    let indexes = constraints.filter_map(|line| {
        let fields: Value = serde_json::from_str(&line.definition).ok()?;
        let definition = fields.get("definition")?.as_str()?;
        let is_made = ["PRIMARY KEY", "UNIQUE", "EXCLUDE"].iter().any(|word| definition.starts_with(word));
        let (name, table) = names::on(&line.identity).filter(|_| is_made)?;
        let schema = names::parts(table)?.first().copied()?;
        Some((format!("{schema}.{name}"), line.identity.clone()))
    });
    indexes.collect()
}

/// The triggers that partitions have from their parents: of the same name, they go and come with those.
fn cloned_triggers(live: &Fingerprint) -> BTreeSet<String> {
    let parents: BTreeMap<&str, String> =
        partitions::all(live).map(|(line, parent)| (line.identity.as_str(), parent)).collect();
    let triggers = live.lines().iter().filter(|line| line.kind == "trigger");
    let triggers: BTreeSet<&str> = triggers.map(|line| line.identity.as_str()).collect();
    let is_cloned = |identity: &&&str| {
        names::on(identity)
            .and_then(|(name, table)| Some(format!("{name} on {}", parents.get(table)?)))
            .is_some_and(|above| triggers.contains(above.as_str()))
    };
    triggers.iter().filter(is_cloned).map(|identity| (*identity).to_owned()).collect()
}

/// Everything of the user's that a dump defines and that stands in a schema; schemas, extensions,
/// publications, and servers with the options of their users only go when they differ.
fn everything(live: &Fingerprint) -> impl Iterator<Item = Unit> {
    const STAYING: [&str; 8] = [
        "schema",
        "extension",
        "publication",
        "role",
        "database",
        "foreign data wrapper",
        "foreign server",
        "user mapping",
    ];
    let owned = live.lines().iter().filter(|line| line.class == Class::Owned);
    owned.filter_map(|line| {
        let unit = Unit { kind: line.kind.clone(), identity: line.identity.clone() };
        let goes_along = inverse::carrier(&unit).is_some()
            || ["index", "invalid index", "statistics", "publication schema"].contains(&line.kind.as_str());
        // It goes with its queue, which may be a member of the extension.
        let is_of_queue = line.kind == "sequence" && line.identity.starts_with("pgmq.");
        let can_go = !is_of_queue
            && inverse::drop_statement(&unit).is_some()
            && !STAYING.contains(&line.kind.as_str());
        (can_go && !goes_along).then_some(unit)
    })
}

/// The tables whose partitions in the snapshot are not there. A partition that comes again under a table
/// that stayed would get its keys twice.
fn parents(recorded: &Fingerprint, left: &Fingerprint) -> BTreeSet<Unit> {
    let tables = left.lines().iter().filter(|line| line.kind == "table");
    let standing: BTreeSet<&str> = tables.map(|line| line.identity.as_str()).collect();
    partitions::all(recorded)
        .filter(|(line, _)| line.class == Class::Owned && !standing.contains(line.identity.as_str()))
        .map(|(_, identity)| Unit { kind: "table".to_owned(), identity })
        .collect()
}

/// The order in which kinds go: what hangs on tables that stay, before the tables take the rest along.
fn rank(kind: &str) -> u8 {
    match kind {
        "event trigger" => 0,
        "policy" | "trigger" | "rule" | "publication table" | "publication schema" => 1,
        "constraint" | "index" | "invalid index" | "statistics" => 2,
        "materialized view" | "view" => 3,
        "table" | "foreign table" => 4,
        "sequence" => 5,
        "schema" => 8,
        "extension" => 9,
        _ => 6,
    }
}

/// Drops what must go.
pub(super) async fn drop_all(client: &Client, closure: &Closure) -> Result<(), Error> {
    let tables: BTreeSet<&str> = closure
        .units
        .iter()
        .filter(|unit| ["table", "foreign table"].contains(&unit.kind.as_str()))
        .map(|unit| unit.identity.as_str())
        .collect();
    let mut units: Vec<&Unit> = closure
        .units
        .iter()
        // These go after everything else, by themselves.
        .filter(|unit| unit.kind != large::KIND)
        // It goes with its table, and cannot be named once that is gone.
        .filter(|unit| inverse::carrier(unit).is_none_or(|table| !tables.contains(table)))
        .collect();
    units.sort_by_key(|unit| rank(&unit.kind));
    let statements: Vec<String> = units.into_iter().filter_map(inverse::drop_statement).collect();
    for some in statements.chunks(AT_ONCE) {
        client.batch_execute(&some.join(";\n")).await.map_err(Error::at("drop what must go"))?;
    }
    Ok(())
}
