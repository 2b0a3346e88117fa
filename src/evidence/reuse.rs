//! Rows that an earlier snapshot holds: a table that is as it was then is not dumped again.
//!
//! Within the consistency point the server counts and hashes such a table, which costs it what reading the table for
//! the dump would, and the line nothing. The file with its rows is linked into the new archive, and its table of
//! contents tells of it as `pg_dump` would have: each snapshot is whole, and stands when the other is removed.

use crate::archive::{BadToc, SEEDS, TableData, Toc};
use crate::context::Context;
use crate::disk;
use crate::fingerprint::{Fingerprint, Line};
use crate::manifest::{
    Content, FileDigest, SnapshotId, Strength, TableRows, qualified, quote_identifier, quoted,
};
use crate::policy::Reuse;
use crate::postgres::catalog::{Table, TableKind};
use crate::postgres::rows::{self, Twice};
use crate::target::Target;
use crate::tools::installs::Installation;
use crate::tools::pg_dump;
use fs_err as fs;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use tokio_postgres::Client;

/// A line that brings less in a second than the server hashes is worth asking the server (bytes per second).
const SLOW: f64 = 30e6;
/// Tables that are smaller together are dumped in no time (bytes).
const WORTH: u64 = 16 << 20;
/// A table that is smaller costs less than the question (bytes).
const LEAST: u64 = 64 << 10;
/// Snapshots that are looked at for one that serves.
const LOOKED_AT: usize = 5;

/// Why an archive could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table could not be counted and hashed.
    #[error("cannot compare table {table} with an earlier snapshot")]
    Query {
        /// The table.
        table: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The archive's table of contents was not read.
    #[error(transparent)]
    Toc(#[from] BadToc),
    /// It is not one to which rows can be added.
    #[error("the archive has no place for the rows of table {0}, which are those of an earlier snapshot")]
    NoPlace(String),
    /// A file could not be read or written.
    #[error("cannot take over rows of an earlier snapshot")]
    Io(#[from] io::Error),
}

/// What is to be captured, and how.
pub(super) struct Wanted<'a> {
    pub(super) context: &'a Context,
    pub(super) target: &'a Target,
    pub(super) installation: &'a Installation,
    /// What the files of the dump end with.
    pub(super) suffix: &'static str,
    pub(super) tables: &'a [&'a Table],
    pub(super) fingerprint: &'a Fingerprint,
    /// Bytes per second of the line.
    pub(super) line: f64,
}

/// Tables whose rows are taken over, by schema and name.
#[derive(Debug, Default)]
pub(super) struct Reused {
    tables: BTreeMap<(String, String), Same>,
    /// The table of contents of the snapshot that they are of.
    toc: Option<Toc>,
}

#[derive(Debug)]
struct Same {
    found: Twice,
    data: TableData,
    path: PathBuf,
    from: SnapshotId,
}

/// An earlier snapshot of the same database by the same program.
struct Base {
    id: SnapshotId,
    archive: PathBuf,
    toc: Toc,
    fingerprint: Fingerprint,
    tables: BTreeMap<(String, String), TableRows>,
    files: BTreeMap<String, FileDigest>,
}

/// Finds the tables that are as in an earlier snapshot. To be asked in the consistency point.
pub(super) async fn choose(client: &Client, wanted: &Wanted<'_>) -> Result<Reused, Error> {
    let reuse = wanted.context.reuse;
    if reuse == Reuse::Never || (reuse == Reuse::Auto && wanted.line > SLOW) {
        return Ok(Reused::default());
    }
    let Some(base) = Base::find(wanted) else { return Ok(Reused::default()) };
    let least = if reuse == Reuse::Always { 0 } else { LEAST };
    let candidates: Vec<(&Table, &TableRows, Same)> = wanted
        .tables
        .iter()
        .filter(|table| table.bytes >= least)
        .filter_map(|table| base.candidate(table, wanted))
        .collect();
    let bytes: u64 = candidates.iter().map(|(table, ..)| table.bytes).sum();
    if reuse == Reuse::Auto && bytes < WORTH {
        return Ok(Reused::default());
    }
    let asked = candidates.len();
    let mut tables = BTreeMap::new();
    for (table, was, same) in candidates {
        let failed = |source| Error::Query { table: qualified(&table.schema, &table.name), source };
        let found = rows::measure_twice(client, (&table.schema, &table.name), SEEDS).await.map_err(failed)?;
        let Some(found) = found.filter(|found| is_as_was(found, was)) else { continue };
        if base.is_well(&same.path, wanted) {
            tables.insert((table.schema.clone(), table.name.clone()), Same { found, ..same });
        }
    }
    wanted.context.note(format!(
        "{} of {asked} tables that could be are as in snapshot {}: their rows are taken over from there",
        tables.len(),
        base.id
    ));
    Ok(Reused { tables, toc: Some(base.toc) })
}

fn is_as_was(found: &Twice, was: &TableRows) -> bool {
    let [first, second] = &found.sums;
    found.count == was.count
        && was.content == Content::Sum(first.clone())
        && was.second.as_deref() == Some(second.as_str())
}

impl Base {
    fn find(wanted: &Wanted<'_>) -> Option<Self> {
        let ids = wanted.context.store.ids().ok()?;
        let mut ids: Vec<SnapshotId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.into_iter().rev().take(LOOKED_AT).find_map(|id| Self::of(&id, wanted))
    }

    fn of(id: &SnapshotId, wanted: &Wanted<'_>) -> Option<Self> {
        let store = &wanted.context.store;
        let snapshot = store.load(id).ok()?;
        let manifest = &snapshot.manifest;
        let version = &wanted.installation.version;
        let is_same_program =
            manifest.tools.iter().any(|tool| tool.name == "pg_dump" && tool.version == *version);
        let standing = store.standing(&snapshot).ok()?;
        let is_proved = standing.strength >= Strength::Decoded
            && standing.broken.is_empty()
            && standing.damage.is_empty();
        if !is_same_program || !is_proved || manifest.identity != wanted.target.identity {
            return None;
        }
        let archive = snapshot.archive();
        let toc = Toc::read(&fs::read(archive.join("toc.dat")).ok()?).ok()?;
        let fingerprint = fs::read_to_string(snapshot.database_file("fingerprint.tsv")).ok()?;
        let fingerprint = Fingerprint::from_text(&fingerprint).ok()?;
        let tables = manifest.database.tables.iter();
        let tables =
            tables.map(|table| ((table.schema.clone(), table.name.clone()), table.clone())).collect();
        let files = manifest.files.iter().map(|file| (file.path.clone(), file.clone())).collect();
        Some(Self { id: id.clone(), archive, toc, fingerprint, tables, files })
    }

    /// What could be taken over for a table, when its rows are the same.
    fn candidate<'a>(
        &'a self,
        table: &'a Table,
        wanted: &Wanted<'_>,
    ) -> Option<(&'a Table, &'a TableRows, Same)> {
        let was = self.tables.get(&(table.schema.clone(), table.name.clone()))?;
        let is_plain = table.kind == TableKind::Table && table.extension.is_none() && table.is_dumped_as_read;
        let is_hashed = was.is_hashed_in_archive && was.second.is_some();
        let before = shape(&self.fingerprint, table);
        if !is_plain || !is_hashed || before.is_empty() || before != shape(wanted.fingerprint, table) {
            return None;
        }
        let data = self.toc.data_of(&table.schema, &table.name)?;
        let path = self.archive.join(format!("{}{}", data.file, wanted.suffix));
        let found = Twice::default();
        path.is_file().then(|| (table, was, Same { found, data, path, from: self.id.clone() }))
    }

    /// Whether the file is what the snapshot says.
    fn is_well(&self, path: &Path, wanted: &Wanted<'_>) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let known = self.files.get(&format!("database/archive/{name}"));
        let is_well =
            disk::sha256_file(path).is_ok_and(|(sha256, _)| known.is_some_and(|file| file.sha256 == sha256));
        if !is_well {
            wanted.context.warn(format!(
                "{} is not what snapshot {} had: the rows are dumped again; `supa-safe verify {}` says more",
                path.display(),
                self.id,
                self.id
            ));
        }
        is_well
    }
}

/// What the columns of a table are, in their order.
fn shape<'a>(fingerprint: &'a Fingerprint, table: &Table) -> Vec<&'a Line> {
    // The server quotes its key words too.
    let ways = |name: &str| [quoted(name), quote_identifier(name)];
    let names = ways(&table.schema).map(|schema| ways(&table.name).map(|name| format!("{schema}.{name}")));
    let is_of = |line: &&Line| {
        let mut names = names.iter().flatten();
        match line.kind.as_str() {
            "column order" => names.any(|name| line.identity == *name),
            "column" => {
                let below = |name: &String| {
                    line.identity.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
                };
                names.any(below)
            }
            _ => false,
        }
    };
    fingerprint.lines().iter().filter(is_of).collect()
}

impl Reused {
    /// Patterns for `pg_dump` of the tables whose rows it leaves away.
    pub(super) fn patterns(&self) -> Vec<String> {
        self.tables.keys().map(|(schema, name)| pg_dump::pattern(schema, name)).collect()
    }

    /// What is known of a table whose rows are taken over.
    pub(super) fn rows(&self, table: &Table) -> Option<TableRows> {
        let Same { found: Twice { count, sums: [first, second] }, from, .. } =
            self.tables.get(&(table.schema.clone(), table.name.clone()))?;
        Some(TableRows {
            schema: table.schema.clone(),
            name: table.name.clone(),
            class: table.class,
            count: *count,
            content: Content::Sum(first.clone()),
            is_hashed_in_archive: true,
            extension: None,
            dropped: Some(table.dropped.clone()),
            second: Some(second.clone()),
            from: Some(from.clone()),
        })
    }

    /// Puts the rows into an archive that was dumped without them.
    pub(super) fn complete(&self, archive: &Path) -> Result<(), Error> {
        let Some(base) = self.toc.as_ref().filter(|_| !self.tables.is_empty()) else { return Ok(()) };
        let path = archive.join("toc.dat");
        let mut toc = Toc::read(&fs::read(&path)?)?;
        for ((schema, name), same) in &self.tables {
            let no_place = || Error::NoPlace(qualified(schema, name));
            let file = toc.is_like(base).then(|| toc.add_data((schema, name), same.data.copy.clone()));
            let file = file.flatten().ok_or_else(no_place)?;
            let suffix = same.path.to_string_lossy();
            let suffix = suffix.rsplit_once(same.data.file.as_str()).ok_or_else(no_place)?.1;
            take(&same.path, &archive.join(format!("{file}{suffix}")))?;
        }
        Ok(disk::write(&path, &toc.to_bytes())?)
    }
}

/// One file under two names; a copy of it where the file system has no such thing.
fn take(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| disk::copy_file(from, to))
}
