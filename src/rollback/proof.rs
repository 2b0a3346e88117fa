//! What must hold before anybody commits.

use super::live::Table;
use super::selection::Selection;
use super::since::{Doomed, Recorded};
use super::{Accounts, Error, Proved, Task, Work, keys, names, partitions};
use crate::archive;
use crate::fingerprint::{Class, Difference, Fingerprint, Line, is_platform_schema};
use crate::manifest::{Content, LargeObjects, TableRows};
use crate::postgres::rows;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

/// Names that an error lists.
const NAMED: usize = 20;

/// The tables among what comes back, with what the snapshot says of their rows.
pub(super) fn selected<'a>(work: &Work<'a>, selection: &Selection<'_>) -> Vec<&'a TableRows> {
    of_kind(work, selection, "TABLE DATA")
}

fn of_kind<'a>(work: &Work<'a>, selection: &Selection<'_>, kind: &str) -> Vec<&'a TableRows> {
    let tables = &work.task.snapshot.manifest.database.tables;
    let names = names_of(tables);
    let entries = selection.entries().filter(|entry| entry.kind == kind);
    let selected: BTreeSet<usize> = entries.filter_map(|entry| names.find(entry)).collect();
    selected.into_iter().filter_map(|number| tables.get(number)).collect()
}

pub(super) fn names_of(tables: &[TableRows]) -> archive::Names {
    archive::Names::of(tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())))
}

/// Demands that tables have the rows of the snapshot.
pub(super) async fn rows(client: &Client, tables: &[&TableRows]) -> Result<(), Error> {
    let mut different = differing(client, tables).await?;
    different.truncate(NAMED);
    if different.is_empty() { Ok(()) } else { Err(Error::NotExact(different)) }
}

/// Where tables have other rows than in the snapshot, in words.
async fn differing(client: &Client, tables: &[&TableRows]) -> Result<Vec<String>, Error> {
    let names: Vec<(&str, &str)> =
        tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).collect();
    let measured = rows::measure_all(client, &names).await?;
    let mut different = Vec::new();
    for (table, found) in tables.iter().zip(&measured) {
        let name = table.qualified();
        match (&table.content, &found.content) {
            _ if found.count != table.count => {
                different.push(format!("{name} has {} rows instead of {}", found.count, table.count));
            }
            (Content::Sum(recorded), Content::Sum(restored)) if recorded != restored => {
                different.push(format!("{name} has other content"));
            }
            (Content::Sum(_), Content::Unhashed(why)) => {
                different.push(format!("{name} cannot be hashed: {why}"));
            }
            _ => {}
        }
    }
    Ok(different)
}

/// The same for every table of the user's that did not come again; those that did were compared when they
/// came. Of materialized views nothing is demanded, as [`refreshed`] says.
pub(super) async fn elsewhere(client: &Client, task: &Task<'_>, proved: &Proved) -> Result<(), Error> {
    let all = &task.snapshot.manifest.database.tables;
    let (names, contents) = (names_of(all), super::recorded_contents(task.snapshot)?);
    let views = contents.entries.iter().filter(|entry| entry.kind == "MATERIALIZED VIEW DATA");
    let views: BTreeSet<usize> = views.filter_map(|entry| names.find(entry)).collect();
    let came: BTreeSet<&str> = proved.tables.iter().map(String::as_str).collect();
    let stayed = all.iter().enumerate().filter(|(number, table)| {
        table.class == Class::Owned
            && !views.contains(number)
            && !task.left_out.is_table_left_out(table)
            && !came.contains(table.qualified().as_str())
    });
    rows(client, &stayed.map(|(_, table)| table).collect::<Vec<_>>()).await
}

/// Materialized views that have other rows than in the snapshot. They are filled last, and nothing is
/// demanded of them: they show what there is, also in tables that did not go back, and in the snapshot
/// one may have shown what was there before.
pub(super) async fn refreshed(work: &Work<'_>, selection: &Selection<'_>) -> Result<Vec<String>, Error> {
    let differing = differing(work.client, &of_kind(work, selection, "MATERIALIZED VIEW DATA")).await?;
    Ok(differing.into_iter().map(|text| format!("materialized view {text}: it was filled again")).collect())
}

/// Demands that nothing of the platform went or changed while we were at work. What an extension
/// brought that was not there goes with it.
pub(super) fn platform(work: &Work<'_>, before: &Fingerprint, after: &Fingerprint) -> Result<(), Error> {
    let had = |identity: &str| {
        work.recorded.lines().iter().any(|line| line.kind == "extension" && line.identity == identity)
    };
    let has_brought = before.lines().iter().any(|line| line.kind == "extension" && !had(&line.identity));
    let given: Vec<String> = before
        .differences(after, Class::Owned)
        .into_iter()
        .filter(|difference| difference.kind == "given privileges")
        .filter_map(|difference| {
            Some(difference.identity.split_once(" on ")?.1.split_once(' ')?.1.to_owned())
        })
        .collect();
    // The lines of the platform's objects have what others gave as well.
    let is_given = |difference: &Difference| match difference.kind.as_str() {
        "member privileges" => {
            let home = names::around(&difference.identity, " in ").map_or("", |(_, home)| home);
            given.iter().any(|object| names::identifier(object).is_some_and(|(schema, _)| schema == home))
        }
        _ => given.contains(&difference.identity) && difference.is_of_privileges(),
    };
    let is_brought = |difference: &Difference| match difference.kind.as_str() {
        "extension version" => !had(&difference.identity),
        "member privileges" => {
            !had(names::around(&difference.identity, " in ").map_or(&*difference.identity, |(giver, _)| giver))
        }
        "policy" | "default privileges" => {
            has_brought && home(difference).is_some_and(|home| !is_known(&work.recorded, home))
        }
        _ => false,
    };
    let lost: Vec<String> = before
        .differences(after, Class::Platform)
        .iter()
        .filter(|difference| difference.before.is_some() && !is_brought(difference) && !is_given(difference))
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    if lost.is_empty() { Ok(()) } else { Err(Error::Platform(lost)) }
}

/// The schema of a policy, or of default privileges, as it is written.
fn home(difference: &Difference) -> Option<&str> {
    let rest = match difference.kind.as_str() {
        "policy" => names::on(&difference.identity)?.1,
        _ => names::identifier(difference.identity.strip_prefix("of ")?)?.1.strip_prefix(" in ")?,
    };
    Some(names::identifier(rest)?.0)
}

/// Whether a fingerprint has anything in a schema.
fn is_known(recorded: &Fingerprint, schema: &str) -> bool {
    let begins = format!("{schema}.");
    recorded.lines().iter().any(|line| {
        line.identity == schema
            || line.identity.starts_with(&begins)
            || line.identity.contains(&format!(" on {begins}"))
            || line.identity.contains(&format!(" in {schema} on "))
    })
}

/// Demands that tables which nobody could read are as they were before: no archive has what they may have lost.
pub(super) fn unread(before: &Fingerprint, after: &Fingerprint) -> Result<(), Error> {
    let lost = before.differences(after, Class::Owned);
    let lost: Vec<String> = lost
        .iter()
        .take(NAMED)
        .map(|difference| format!("{difference}, of a table that the snapshot could not read"))
        .collect();
    if lost.is_empty() { Ok(()) } else { Err(Error::NotExact(lost)) }
}

/// Demands that sequences are where they were; those that went back by themselves may be ahead.
pub(super) async fn sequences(
    client: &Client,
    task: &Task<'_>,
    (accounts, alone): (&Accounts, &[String]),
) -> Result<(), Error> {
    let owned = task.snapshot.manifest.database.sequences.iter().filter(|sequence| {
        !task.left_out.is_sequence_left_out(&sequence.name)
            && names::qualified(&sequence.name)
                // That of a queue goes back with its table, or is the extension's.
                .is_some_and(|(schema, _)| !is_platform_schema(&schema))
    });
    let owned: Vec<_> = owned.collect();
    if owned.is_empty() {
        return Ok(());
    }
    let selects: Vec<String> = owned
        .iter()
        .enumerate()
        .map(|(rank, sequence)| format!("select {rank}, last_value, is_called from {}", sequence.name))
        .collect();
    let found = client.query(&format!("{} order by 1", selects.join(" union all ")), &[]).await?;
    let different = owned.iter().zip(&found).filter_map(|(sequence, row)| {
        let (value, is_called): (i64, bool) = (row.get(1), row.get(2));
        // Those of tables with rows of new accounts are past these; one that went back by itself is past
        // the rows that were beyond it in the snapshot already.
        let went_back = alone.contains(&sequence.name);
        let may_be_ahead = (!accounts.loaded.is_empty() || went_back) && value >= sequence.value;
        ((value, is_called) != (sequence.value, sequence.is_called) && !may_be_ahead)
            .then(|| format!("sequence {} is at {value} instead of {}", sequence.name, sequence.value))
    });
    let different: Vec<String> = different.take(NAMED).collect();
    if different.is_empty() { Ok(()) } else { Err(Error::NotExact(different)) }
}

/// Demands that large objects are those that they were.
pub(super) async fn large_objects(client: &Client, task: &Task<'_>) -> Result<(), Error> {
    let found = rows::large_objects(client).await?;
    same_large_objects(&found, &task.snapshot.manifest.database.large_objects)
}

pub(super) fn same_large_objects(found: &LargeObjects, wanted: &LargeObjects) -> Result<(), Error> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::NotExact(vec![format!(
        "{} large objects instead of {}, or with other content",
        found.count, wanted.count
    )]))
}

/// The tables that go, each with what the snapshot has of it under whatever name.
pub(super) fn doomed<'a>(work: &Work<'_>, tables: impl Iterator<Item = &'a Table>) -> Vec<Doomed> {
    let (entries, columns, keyed) = (work.known().tables(), columns(&work.recorded), keyed(&work.recorded));
    let primary = primary_keys(&work.recorded);
    let (known, parents) =
        (&work.task.snapshot.manifest.database.tables, partitions::parents(&work.recorded));
    let names = names_of(known);
    let partitioned: Vec<&(String, String)> = parents.values().collect();
    let above_names = archive::Names::of(partitioned.iter().map(|name| (name.0.as_str(), name.1.as_str())));
    let of_table = |name: &(String, String)| columns.get(name).map(Vec::as_slice).unwrap_or_default();
    let with_columns = |name: (String, String)| -> Recorded {
        let columns = of_table(&name).iter().map(|(_, column)| column.clone()).collect();
        (name.0, name.1, columns)
    };
    let rows = |table: &Table| known.get(names.find(entries.get(&table.oid)?)?);
    let recorded =
        |table: &Table| Some(with_columns(rows(table).map(|rows| (rows.schema.clone(), rows.name.clone()))?));
    let objects = work.known();
    let numbered = |table: &Table| {
        let entry = entries.get(&table.oid)?;
        let rows = rows(table).filter(|_| objects.is_same(entry, table.oid))?;
        let columns = of_table(&(rows.schema.clone(), rows.name.clone()));
        Some(by_number(table, columns, rows.dropped.as_ref()?))
    };
    let above = |table: &Table, recorded: Option<&Recorded>| -> Vec<Recorded> {
        let mut next = match recorded {
            Some((schema, name, _)) => parents.get(&(schema.clone(), name.clone())).cloned(),
            None => table.above.iter().find_map(|oid| {
                partitioned.get(above_names.find(entries.get(oid)?)?).map(|name| (*name).clone())
            }),
        };
        let mut chain = Vec::new();
        while let Some(name) = next {
            next = parents.get(&name).cloned();
            chain.push(with_columns(name));
        }
        chain
    };
    let doomed = tables.map(|table| {
        let recorded = recorded(table);
        let name = recorded.as_ref().map(|(schema, name, _)| (schema.clone(), name.clone()));
        let above = above(table, recorded.as_ref());
        Doomed {
            schema: table.schema.clone(),
            name: table.name.clone(),
            columns: table.columns.clone(),
            numbered: numbered(table).unwrap_or_default(),
            has_key: name.as_ref().is_some_and(|name| keyed.contains(name)),
            primary_key: name.and_then(|name| primary.get(&name).cloned()).unwrap_or_default(),
            above,
            recorded,
            extension: None,
        }
    });
    doomed.collect()
}

/// The columns of a table that it had in the snapshot, by ranks there, with their names there: a column that
/// was renamed has its number still, and one that came has a new one.
fn by_number(table: &Table, columns: &[(usize, String)], dropped: &[i16]) -> Vec<(String, String)> {
    let count = columns.last().map_or(0, |(rank, _)| rank + 1);
    let numbers: Vec<i16> = (1..i16::MAX).filter(|number| !dropped.contains(number)).take(count).collect();
    let live = |number: &i16| table.columns.get(table.numbers.iter().position(|own| own == number)?);
    let pair = |(rank, was): &(usize, String)| Some((live(numbers.get(*rank)?)?.clone(), was.clone()));
    columns.iter().filter_map(pair).collect()
}

/// The tables by whose rows `on conflict` knows one that is there.
fn keyed(recorded: &Fingerprint) -> BTreeSet<(String, String)> {
    let constraints = recorded.lines().iter().filter(|line| line.kind == "constraint");
    let keys = constraints.filter(|line| {
        let fields = serde_json::from_str::<Value>(&line.definition).ok();
        let definition = fields.as_ref().and_then(|fields| fields.get("definition")?.as_str());
        definition.is_some_and(|text| ["PRIMARY KEY", "UNIQUE"].iter().any(|key| text.starts_with(key)))
    });
    let keyed = keys.filter_map(|line| names::qualified(names::on(&line.identity)?.1));
    keyed.collect()
}

/// The columns of the primary keys, by table.
fn primary_keys(recorded: &Fingerprint) -> BTreeMap<(String, String), Vec<String>> {
    let constraints = recorded.lines().iter().filter(|line| line.kind == "constraint");
    let keys = constraints.filter_map(|line| {
        let fields = serde_json::from_str::<Value>(&line.definition).ok()?;
        let (columns, _) = keys::list(fields.get("definition")?.as_str()?.strip_prefix("PRIMARY KEY (")?)?;
        let table = names::qualified(names::on(&line.identity)?.1)?;
        Some((table, columns.iter().map(|column| names::plain(column)).collect()))
    });
    keys.collect()
}

/// The columns that the snapshot has of each table, with their ranks, but the generated ones, which no dump
/// holds.
fn columns(recorded: &Fingerprint) -> BTreeMap<(String, String), Vec<(usize, String)>> {
    let of_kind = |kind: &'static str| recorded.lines().iter().filter(move |line| line.kind == kind);
    let fields = |line: &Line| serde_json::from_str::<Value>(&line.definition).ok();
    let generated: BTreeSet<(&str, String)> = of_kind("column")
        .filter(|line| fields(line).is_some_and(|fields| fields.get("generated").is_some()))
        .filter_map(|line| names::column(&line.identity))
        .map(|(relation, column)| (relation, names::plain(column)))
        .collect();
    let tables = of_kind("column order").filter_map(|line| {
        let fields = fields(line)?;
        let names = fields.get("columns")?.as_array()?.iter().filter_map(Value::as_str).map(str::to_owned);
        let is_kept =
            |(_, name): &(usize, String)| !generated.contains(&(line.identity.as_str(), name.clone()));
        Some((names::qualified(&line.identity)?, names.enumerate().filter(is_kept).collect()))
    });
    tables.collect()
}
