//! Compares a restored copy with the manifest: counts, content, sequences, large objects, catalog.

use crate::context::Context;
use crate::event::Event;
use crate::fingerprint::{self, Class, Fingerprint};
use crate::left_out::LeftOut;
use crate::manifest::{Content, TableRows, qualified};
use crate::postgres::catalog::{self, TableKind};
use crate::postgres::connect::{self, Session};
use crate::postgres::rows;
use crate::rehearse::restore::Restored;
use crate::store::Snapshot;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Sessions that hash the copy side by side.
const READERS: usize = 2;

/// Why the comparison could not be made, or what it found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session on the scratch.
    #[error("cannot connect to the scratch server")]
    Connect(#[from] connect::Error),
    /// A query on the scratch failed.
    #[error("the scratch server did not answer")]
    Query(#[from] tokio_postgres::Error),
    /// The catalog could not be read.
    #[error("cannot read the catalog of the copy")]
    Catalog(#[from] catalog::Error),
    /// The fingerprint of the snapshot was not understood.
    #[error("the fingerprint of the snapshot cannot be read")]
    Fingerprint(#[from] fingerprint::Error),
    /// A file could not be read.
    #[error("cannot read the snapshot")]
    Io(#[from] std::io::Error),
    /// The copy is not equal to the snapshot.
    #[error("the restored copy is not equal to the snapshot: {}", .0.join("; "))]
    Different(Vec<String>),
}

/// A copy that was found equal to its snapshot.
#[derive(Clone, Debug)]
pub struct Equal {
    /// The copy's fingerprint, without what this machine cannot hold.
    pub fingerprint: Fingerprint,
    /// Per table, the sum of hashes of each column.
    pub columns: BTreeMap<String, BTreeMap<String, String>>,
    /// Materialized views that hold other rows than in the snapshot. A restore fills them anew from
    /// rows that are equal: they had not been refreshed since, or tell of the time.
    pub refreshed: Vec<String>,
    /// Differences in platform state, which are no gate.
    pub platform_differences: usize,
}

/// Compares, and tells every table side by side.
pub async fn compare(snapshot: &Snapshot, restored: &Restored, context: &Context) -> Result<Equal, Error> {
    let connection = restored.scratch.superuser_connection(&restored.database);
    let session = open(&connection).await?;
    let mut different = Vec::new();
    let compared = tables(snapshot, restored, context).await?;
    different.extend(compared.iter().filter_map(Compared::difference));
    sequences(snapshot, &restored.left_out, &session, &mut different).await?;
    let large_objects = rows::large_objects(&session.client).await?;
    let recorded = &snapshot.manifest.database.large_objects;
    if large_objects != *recorded {
        different.push(format!(
            "{} large objects instead of {}, or with other content",
            large_objects.count, recorded.count
        ));
    }
    let recorded =
        Fingerprint::from_text(&fs_err::read_to_string(snapshot.database_file("fingerprint.tsv"))?)?;
    let recorded = restored.left_out.comparable(&recorded);
    let fingerprint = restored.left_out.comparable(&catalog::fingerprint(&session.client).await?);
    session.close().await;
    different.extend(recorded.differences(&fingerprint, Class::Owned).iter().map(ToString::to_string));
    if !different.is_empty() {
        return Err(Error::Different(different));
    }
    let platform_differences = recorded.differences(&fingerprint, Class::Platform).len();
    let is_refreshed = |compared: &&Compared| matches!(compared.outcome, Outcome::Refreshed);
    let refreshed = compared.iter().filter(is_refreshed).map(|one| one.table.clone()).collect();
    let columns = compared.into_iter().map(|compared| (compared.table, compared.columns)).collect();
    Ok(Equal { fingerprint, columns, refreshed, platform_differences })
}

/// Opens a session whose text of rows and catalog is comparable.
pub async fn open(connection: &crate::target::Connection) -> Result<Session, Error> {
    let session = connect::read_only(connection).await?;
    session.client.batch_execute(rows::PINNED).await?;
    session.client.batch_execute("begin isolation level repeatable read read only").await?;
    Ok(session)
}

async fn tables(snapshot: &Snapshot, restored: &Restored, context: &Context) -> Result<Vec<Compared>, Error> {
    let mut queue: Vec<&TableRows> = snapshot
        .manifest
        .database
        .tables
        .iter()
        .filter(|table| !restored.left_out.is_table_left_out(table))
        .collect();
    queue.sort_by_key(|table| std::cmp::Reverse(table.count));
    let queue = Mutex::new(VecDeque::from(queue));
    let found: Mutex<Vec<Compared>> = Mutex::new(Vec::new());
    let reader = async || {
        let session = open(&restored.scratch.superuser_connection(&restored.database)).await?;
        let tables = catalog::tables(&session.client).await?;
        let tables = tables.into_iter().map(|table| (qualified(&table.schema, &table.name), table)).collect();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(table) = next else { break };
            let compared = compare_table(&session, table, &tables).await?;
            context.tell(&Event::TableCompared {
                table: table.qualified(),
                recorded: table.count,
                restored: compared.count,
                equal: matches!(compared.outcome, Outcome::Equal),
                refreshed: matches!(compared.outcome, Outcome::Refreshed),
            });
            found.lock().unwrap_or_else(PoisonError::into_inner).push(compared);
        }
        session.close().await;
        Ok::<(), Error>(())
    };
    futures_util::future::try_join_all((0..READERS).map(|_| reader())).await?;
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|one, other| one.table.cmp(&other.table));
    Ok(found)
}

struct Compared {
    table: String,
    count: u64,
    columns: BTreeMap<String, String>,
    outcome: Outcome,
}

/// How the rows of a copy stand to those of the snapshot.
enum Outcome {
    Equal,
    /// Other rows of a materialized view, which the restore filled.
    Refreshed,
    /// In words.
    Different(String),
}

impl Compared {
    fn difference(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Different(text) => Some(text.clone()),
            Outcome::Equal | Outcome::Refreshed => None,
        }
    }
}

/// Columns by qualified table name.
pub async fn table_columns(session: &Session) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let tables = catalog::tables(&session.client).await?;
    Ok(tables.into_iter().map(|table| (qualified(&table.schema, &table.name), table.columns)).collect())
}

async fn compare_table(
    session: &Session,
    table: &TableRows,
    tables: &BTreeMap<String, catalog::Table>,
) -> Result<Compared, Error> {
    let name = table.qualified();
    let Some(found) = tables.get(&name) else {
        let outcome = Outcome::Different(format!("table {name} is not in the copy"));
        return Ok(Compared { table: name, count: 0, columns: BTreeMap::new(), outcome });
    };
    // Only these classes can be touched by a migration in a way that is reported by column.
    let columns: &[String] = if table.class == Class::Platform { &[] } else { &found.columns };
    let measured = rows::measure(&session.client, &table.schema, &table.name, columns).await?;
    let difference = match (&table.content, &measured.content) {
        _ if measured.count != table.count => {
            Some(format!("table {name} has {} rows instead of {}", measured.count, table.count))
        }
        (Content::Sum(recorded), Content::Sum(restored)) if recorded != restored => {
            Some(format!("table {name} has other content"))
        }
        (Content::Sum(_), Content::Unhashed(why)) => {
            Some(format!("table {name} cannot be hashed in the copy: {why}"))
        }
        _ => None,
    };
    let columns = columns.iter().cloned().zip(measured.columns).collect();
    let outcome = match difference {
        None => Outcome::Equal,
        Some(_) if found.kind == TableKind::MaterializedView => Outcome::Refreshed,
        Some(difference) => Outcome::Different(difference),
    };
    Ok(Compared { table: name, count: measured.count, columns, outcome })
}

async fn sequences(
    snapshot: &Snapshot,
    left_out: &LeftOut,
    session: &Session,
    different: &mut Vec<String>,
) -> Result<(), Error> {
    let all = &snapshot.manifest.database.sequences;
    for recorded in all.iter().filter(|sequence| !left_out.is_sequence_left_out(&sequence.name)) {
        let sql = format!("select last_value, is_called from {}", recorded.name);
        let row = session.client.query_one(&sql, &[]).await?;
        let (value, is_called): (i64, bool) = (row.get(0), row.get(1));
        if (value, is_called) != (recorded.value, recorded.is_called) {
            different.push(format!("sequence {} is at {value} instead of {}", recorded.name, recorded.value));
        }
    }
    Ok(())
}
