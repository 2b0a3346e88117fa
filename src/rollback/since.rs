//! Rows written since the snapshot, kept in files before their tables go.
//!
//! A row that a transaction wrote which the snapshot saw is in the archive. Of the others, whose number
//! tells them, the content decides: its hash is looked for among those of the archive's rows, so that only
//! hashes cross the wire, and the rows that differ. Where rows may be alike, they are counted: the server says how
//! many the snapshot saw that are like the row, so that these do not cross the wire. A table whose shape changed
//! is compared by the columns that both have; columns that came since are compared by nothing, so
//! what was written to such a table after the migration is kept whatever it looks like.

use super::live::sql_name;
use super::script::Archive;
use super::{Error, history, names};
use crate::archive::RowReader;
use crate::disk;
use crate::manifest::{Manifest, qualified, quote_identifier};
use crate::tools::pg_restore::{self, Section};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_postgres::{Client, SimpleQueryMessage};

/// Tables that one message looks at.
const LOOKED_AT: usize = 500;
/// Tables that one statement reads.
const READ_AT_ONCE: usize = 50;
/// Files that are written side by side.
const FILES_AT_ONCE: usize = 16;

/// A table of the snapshot: schema, name, and columns.
pub(super) type Recorded = (String, String, Vec<String>);

/// A table that is about to go.
#[derive(Clone, Debug)]
pub(super) struct Doomed {
    pub(super) schema: String,
    pub(super) name: String,
    /// Its columns but the generated ones.
    pub(super) columns: Vec<String>,
    /// Those of them that are known by their numbers, with their names in the snapshot.
    pub(super) numbered: Vec<(String, String)>,
    /// What the snapshot has of it, when it was there.
    pub(super) recorded: Option<Recorded>,
    /// The partitioned tables that were above it there, the nearest first; for a partition that came since,
    /// those that it is under now.
    pub(super) above: Vec<Recorded>,
    /// Whether it had a key there.
    pub(super) has_key: bool,
    /// Columns of its primary key there, by which no two rows are alike.
    pub(super) primary_key: Vec<String>,
    /// The extension that it is a member of, which goes.
    pub(super) extension: Option<String>,
}

impl Doomed {
    /// One of which only the columns matter.
    pub(super) fn plain(schema: &str, name: &str, columns: Vec<String>) -> Self {
        let (schema, name) = (schema.to_owned(), name.to_owned());
        let (has_key, primary_key) = (true, Vec::new());
        let (numbered, above) = (Vec::new(), Vec::new());
        let (recorded, extension) = (None, None);
        Self { schema, name, columns, numbered, recorded, above, has_key, primary_key, extension }
    }

    /// The columns that a table of the snapshot has too, as pairs: by number, or by name. What has another
    /// name and no number that is known may be a column that came while another one went.
    pub(super) fn pairs<'a>(&'a self, recorded: &'a [String]) -> Vec<(&'a str, &'a str)> {
        let live = |name: &String| {
            let numbered = self.numbered.iter().find(|(_, was)| was == name).map(|(is, _)| is);
            let is_free = |is: &&String| *is == name && !self.numbered.iter().any(|(other, _)| other == *is);
            numbered.or_else(|| self.columns.iter().find(is_free)).map(String::as_str)
        };
        recorded.iter().filter_map(|name| Some((live(name)?, name.as_str()))).collect()
    }

    /// Whether no two of its rows are alike in the columns that both sides have.
    fn is_alone(&self) -> bool {
        let recorded = self.recorded.as_ref().map(|(_, _, columns)| columns.as_slice()).unwrap_or_default();
        let pairs = self.pairs(recorded);
        let is_told = |column: &String| pairs.iter().any(|(_, recorded)| recorded == column);
        !self.primary_key.is_empty() && self.primary_key.iter().all(is_told)
    }

    /// The table of the snapshot that takes its rows: the topmost one finds their partitions.
    pub(super) fn home(&self) -> Option<&Recorded> {
        self.above.last().or(self.recorded.as_ref())
    }

    /// Whether a key of a table of the snapshot, by its qualified name, holds for its rows.
    pub(super) fn is_under(&self, table: &str) -> bool {
        let wanted = names::qualified(table);
        let is_wanted = |(schema, name, _): &Recorded| {
            wanted.as_ref().is_some_and(|wanted| (&wanted.0, &wanted.1) == (schema, name))
        };
        self.recorded.iter().chain(&self.above).any(is_wanted)
    }

    /// Schema and name in the snapshot, and the columns there that the table has now too.
    fn compared(&self) -> Option<((String, String), BTreeSet<String>)> {
        let (schema, name, columns) = self.recorded.as_ref()?;
        let kept = self.pairs(columns).into_iter().map(|(_, name)| name.to_owned());
        Some(((schema.clone(), name.clone()), kept.collect()))
    }

    /// A query for number, place, and hash of each row that may have been written since, whether it was written
    /// after the push where a hash does not tell, and how many rows are like it that the snapshot saw: of a
    /// column that came since nothing is known, and without a key a new row may be like one that went.
    fn select(&self, rank: usize, ago: Option<i32>, pushed: Option<i32>) -> String {
        let recorded = self.recorded.as_ref().map(|(_, _, columns)| columns.as_slice()).unwrap_or_default();
        let pairs = self.pairs(recorded);
        let columns: Vec<String> =
            pairs.iter().map(|(live, _)| format!("t.{}", quote_identifier(live))).collect();
        let has_more = self.columns.len() > pairs.len() || pairs.is_empty();
        let is_unseen = ago.map(|ago| format!("pg_catalog.age(t.xmin) <= {ago}"));
        let is_written = match (pushed, &is_unseen) {
            _ if !has_more && self.is_alone() => "false".to_owned(),
            (Some(age), _) => format!("pg_catalog.age(t.xmin) < {age}"),
            (None, Some(is_unseen)) => is_unseen.clone(),
            (None, None) => "true".to_owned(),
        };
        let hash = format!("pg_catalog.hashtextextended(row({})::pg_catalog.text, 0)", columns.join(", "));
        let rows = format!("from only {} t", sql_name(&self.schema, &self.name));
        match is_unseen {
            None => format!("select {rank}, t.ctid, {hash}, {is_written}, 0 {rows}"),
            Some(is_unseen) if self.is_alone() => {
                format!("select {rank}, t.ctid, {hash}, {is_written}, 0 {rows} where {is_unseen}")
            }
            Some(is_unseen) => format!(
                "(with unseen as materialized ( \
                    select t.ctid as place, {hash} as hash, {is_written} as is_written {rows} where {is_unseen}) \
                select {rank}, u.place, u.hash, u.is_written, coalesce(s.alike, 0) from unseen u left join ( \
                    select s.hash, count(*) as alike from (select {hash} as hash {rows} where not {is_unseen}) s \
                    where s.hash in (select hash from unseen where not is_written) group by s.hash \
                ) s on s.hash = u.hash)"
            ),
        }
    }
}

/// Rows of one table that were kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Qualified name, as it was when the rows were kept.
    pub table: String,
    /// How many.
    pub rows: u64,
    /// The file, in the folder of the rollback.
    pub file: String,
}

/// The hashes of the archive's rows of some tables, worked out from the columns that both sides had.
#[derive(Debug, Default)]
pub(super) struct Known {
    tables: BTreeMap<(String, String), (BTreeSet<String>, Vec<i64>)>,
}

impl Known {
    /// Reads those of the tables that are not known yet, or by other columns.
    pub(super) async fn add(&mut self, tables: &[&Doomed], archive: &Archive<'_>) -> Result<(), Error> {
        let mut single: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for (key, columns) in tables.iter().filter_map(|table| table.compared()) {
            if self.tables.get(&key).is_none_or(|(known, _)| *known != columns) {
                single.insert(key, columns);
            }
        }
        let list =
            archive.list_of_rows(|schema, name| single.contains_key(&(schema.to_owned(), name.to_owned())));
        if list.is_empty() {
            return Ok(());
        }
        let path = archive.scratch.join("since.list");
        disk::write(&path, list.as_bytes())?;
        let reader = Arc::new(Mutex::new(RowReader::of_single_rows(single.clone())));
        let reading = Arc::clone(&reader);
        pg_restore::section(archive.clients, &archive.snapshot.archive(), &path, Section::Data)
            .on_bytes(move |bytes| reading.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes))
            .run()
            .await
            .map_err(Error::Archive)?;
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, rows) in std::mem::take(&mut *reader).into_tables() {
            let mut hashes = rows.into_hashes();
            hashes.sort_unstable();
            let columns = single.remove(&key).unwrap_or_default();
            self.tables.insert(key, (columns, hashes));
        }
        Ok(())
    }

    /// Takes those of one table.
    fn take(&mut self, table: &Doomed) -> Hashes {
        let compared = table.compared().and_then(|(key, _)| self.tables.remove(&key));
        let sorted = compared.map(|(_, hashes)| hashes).unwrap_or_default();
        let met = (!table.is_alone()).then(|| vec![0; sorted.len()]);
        Hashes { sorted, met }
    }
}

/// The hashes of the archive's rows of a table.
#[derive(Debug)]
struct Hashes {
    sorted: Vec<i64>,
    /// How many rows with the hash at this place, the first of those that are the same, were met, where rows
    /// may be alike: one more than the archive has is another.
    met: Option<Vec<u32>>,
}

impl Hashes {
    /// Whether the archive has the row besides those like it that the snapshot saw, which are all there yet, and
    /// each that was met before.
    fn meet(&mut self, hash: i64, seen: usize) -> bool {
        let first = self.sorted.partition_point(|known| *known < hash);
        if self.sorted.get(first) != Some(&hash) {
            return false;
        }
        let Some(met) = self.met.as_mut().and_then(|met| met.get_mut(first)) else { return true };
        let before = seen.saturating_add(usize::try_from(*met).unwrap_or(usize::MAX));
        *met = met.saturating_add(1);
        self.sorted.get(first.saturating_add(before)) == Some(&hash)
    }
}

/// How many transactions ago the snapshot was: what an older transaction wrote was seen by it.
///
/// A number comes again when a server is restored to an earlier instant, and nobody can be restored
/// without a start: where the server was started since, every row is compared.
pub(super) async fn transactions_since(client: &Client, manifest: &Manifest) -> Result<Option<i32>, Error> {
    let Some(horizon) = manifest.database.horizon else { return Ok(None) };
    let sql = "select pg_catalog.pg_current_xact_id()::text::int8 - $1, \
        pg_catalog.pg_postmaster_start_time() < $2::text::timestamptz";
    let taken = manifest.taken.target_clock.to_string();
    let row = client.query_one(sql, &[&horizon, &taken]).await?;
    let (ago, runs_since): (i64, bool) = (row.get(0), row.get(1));
    // Ages go up to half of all numbers.
    Ok(i32::try_from(ago).ok().filter(|ago| runs_since && (0..i32::MAX / 2).contains(ago)))
}

/// The tables among these that a transaction wrote to which the snapshot did not see.
pub(super) async fn written<'a>(
    client: &Client,
    tables: &[&'a Doomed],
    ago: Option<i32>,
) -> Result<Vec<&'a Doomed>, Error> {
    let Some(ago) = ago else { return Ok(tables.to_vec()) };
    let mut found = Vec::new();
    for some in tables.chunks(LOOKED_AT) {
        let looks = some.iter().enumerate().map(|(rank, table)| {
            let name = sql_name(&table.schema, &table.name);
            format!(
                "select {rank} where exists (select from only {name} t where pg_catalog.age(t.xmin) <= {ago})"
            )
        });
        for message in client.simple_query(&looks.collect::<Vec<_>>().join(";")).await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let rank = row.get(0).and_then(|rank| rank.parse::<usize>().ok());
            found.extend(rank.and_then(|rank| some.get(rank)));
        }
    }
    Ok(found)
}

/// What rows are to be compared with.
pub(super) struct Compared<'a> {
    pub(super) archive: &'a Archive<'a>,
    /// As [`transactions_since`] says.
    pub(super) ago: Option<i32>,
    /// Versions of the history that go.
    pub(super) versions: &'a [String],
}

/// Keeps the rows of these tables that the archive does not have.
pub(super) async fn save(
    client: &Client,
    doomed: &[Doomed],
    mut known: Known,
    compared: &Compared<'_>,
    folder: &Path,
) -> Result<Vec<Saved>, Error> {
    disk::make_private_dir(folder)?;
    let written = written(client, &doomed.iter().collect::<Vec<_>>(), compared.ago).await?;
    known.add(&written, compared.archive).await?;
    let pushed = pushed(client, compared.versions).await?;
    let counts = mark(client, &written, known, (compared.ago, pushed)).await?;
    let kept = written.iter().enumerate().zip(counts).filter(|(_, rows)| *rows > 0).enumerate();
    // Each waits for the way there and back.
    let writing = kept.map(|(at, ((rank, table), rows))| async move {
        let file = write(client, (rank, table), (folder, &format!("{:04}", at + 1))).await?;
        Ok::<_, Error>(Saved { table: qualified(&table.schema, &table.name), rows, file })
    });
    let saved = futures_util::stream::iter(writing).buffered(FILES_AT_ONCE).try_collect().await?;
    disk::sync_dir(folder)?;
    Ok(saved)
}

/// How many transactions ago these versions came into the history.
async fn pushed(client: &Client, versions: &[String]) -> Result<Option<i32>, Error> {
    let since =
        "select max(pg_catalog.age(xmin)) from supabase_migrations.schema_migrations where version = any($1)";
    if history::is_there(client).await? {
        return Ok(client.query_one(since, &[&versions]).await?.get(0));
    }
    Ok(None)
}

/// Marks the rows of one table that the archive does not have, with number 0; returns how many.
pub(super) async fn mark_one(client: &Client, table: &Doomed, compared: &Compared<'_>) -> Result<u64, Error> {
    let written = written(client, &[table], compared.ago).await?;
    let mut known = Known::default();
    known.add(&written, compared.archive).await?;
    Ok(mark(client, &written, known, (compared.ago, None)).await?.into_iter().sum())
}

/// Puts the places of the rows that are not in the snapshot into a temporary table, with the number of
/// their table; returns how many each has.
async fn mark(
    client: &Client,
    tables: &[&Doomed],
    mut known: Known,
    (ago, pushed): (Option<i32>, Option<i32>),
) -> Result<Vec<u64>, Error> {
    // The places are few or they are many; a file holds either.
    let mut places = tempfile::tempfile()?;
    let mut counts = vec![0_u64; tables.len()];
    for (chunk, some) in tables.chunks(READ_AT_ONCE).enumerate() {
        let first = chunk * READ_AT_ONCE;
        let mut hashes: Vec<Hashes> = some.iter().map(|table| known.take(table)).collect();
        let selects = some.iter().enumerate().map(|(rank, table)| table.select(first + rank, ago, pushed));
        let sql = format!("copy ({}) to stdout", selects.collect::<Vec<_>>().join(" union all "));
        let stream = client.copy_out(&sql).await?;
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = stream.next().await {
            // A server sends one row at a time.
            for line in piece?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let text = std::str::from_utf8(line).map_err(|_| Error::Encoding)?;
                let mut fields = text.split('\t');
                let (rank, place) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
                let (hash, is_written, seen) = (fields.next(), fields.next(), fields.next());
                let rank_here = rank.parse::<usize>().map_err(|_| Error::Encoding)?;
                let hashes = hashes.get_mut(rank_here - first);
                let hash = hash.and_then(|hash| hash.parse().ok());
                let seen = seen.and_then(|seen| seen.parse().ok()).ok_or(Error::Encoding)?;
                let is_kept = is_written == Some("t")
                    || !hash.zip(hashes).is_some_and(|(hash, hashes)| hashes.meet(hash, seen));
                if is_kept && let Some(count) = counts.get_mut(rank_here) {
                    *count += 1;
                    writeln!(places, "{rank}\t{place}")?;
                }
            }
        }
    }
    // Most tables have none, and over a long way each question takes its time.
    if counts.iter().any(|count| *count > 0) {
        send_places(client, places).await?;
    }
    Ok(counts)
}

/// Makes or empties the table of the places of rows that are kept.
pub(super) async fn unmark(client: &Client) -> Result<(), Error> {
    let sql = "create temp table if not exists supa_safe_since (rank int, place tid); \
        truncate pg_temp.supa_safe_since";
    Ok(client.batch_execute(sql).await?)
}

async fn send_places(client: &Client, mut places: std::fs::File) -> Result<(), Error> {
    use std::io::Seek as _;
    places.rewind()?;
    unmark(client).await?;
    let sink = client.copy_in("copy pg_temp.supa_safe_since from stdin").await?;
    let mut sink = std::pin::pin!(sink);
    let mut reader = std::io::BufReader::with_capacity(64 << 10, places);
    loop {
        let piece = Bytes::copy_from_slice(reader.fill_buf()?);
        if piece.is_empty() {
            break;
        }
        reader.consume(piece.len());
        sink.send(piece).await?;
    }
    sink.finish().await?;
    Ok(())
}

/// Writes the marked rows of the table with this number, synced, and returns the file's name: a CSV file, but
/// where a value has a line that psql before 18 takes for the end of such a file; then it is as `COPY` has it
/// without options, with a header.
pub(super) async fn write(
    client: &Client,
    (rank, table): (usize, &Doomed),
    (folder, stem): (&Path, &str),
) -> Result<String, Error> {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("t.{}", quote_identifier(column))).collect();
    let sql = format!(
        "copy (select {} from only {} t join pg_temp.supa_safe_since s on s.place = t.ctid and s.rank = {rank}) \
         to stdout",
        columns.join(", "),
        sql_name(&table.schema, &table.name)
    );
    let (csv, ends) = copied(client, &format!("{sql} (format csv, header)"), folder).await?;
    let (file, name) = if ends.is_met {
        (copied(client, &format!("{sql} (header)"), folder).await?.0, format!("{stem}.txt"))
    } else {
        (csv, format!("{stem}.csv"))
    };
    file.persist(&folder.join(&name))?;
    Ok(name)
}

/// The rows in a file that has no name yet.
async fn copied(client: &Client, sql: &str, folder: &Path) -> Result<(disk::Temp, Ends), Error> {
    let (mut file, mut ends) = (disk::Temp::new_in(folder)?, Ends::default());
    let stream = client.copy_out(sql).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(piece) = stream.try_next().await? {
        ends.look(&piece);
        file.write_all(&piece)?;
    }
    Ok((file, ends))
}

/// Looks for a line that psql takes for the end of rows, within a value too.
#[derive(Debug, Default)]
struct Ends {
    /// The last bytes that were seen.
    before: Vec<u8>,
    is_met: bool,
}

impl Ends {
    fn look(&mut self, piece: &[u8]) {
        self.before.extend_from_slice(piece);
        self.is_met |= [&b"\n\\.\n"[..], b"\n\\.\r\n"]
            .iter()
            .any(|end| memchr::memmem::find(&self.before, end).is_some());
        let seen = self.before.len().saturating_sub(4);
        self.before.drain(..seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_rows_that_are_alike_each_is_met_once() {
        let meet = |met: Option<Vec<u32>>, seen: usize| {
            let mut hashes = Hashes { sorted: vec![-5, 7, 7, 9], met };
            [7, 9, 7, 7, 8, 9, -5].map(|hash| hashes.meet(hash, seen))
        };
        assert_eq!(meet(Some(vec![0; 4]), 0), [true, true, true, false, false, false, true]);
        assert_eq!(meet(Some(vec![0; 4]), 1), [true, false, false, false, false, false, false]);
        assert_eq!(meet(None, 0), [true, true, true, true, false, true, true]);
    }

    #[test]
    fn the_end_of_rows_is_seen_wherever_a_piece_breaks_off() {
        for (text, expected) in [
            ("a\n\"x\n\\.\ny\"\n", true),
            ("a\n\"x\r\n\\.\r\ny\"\n", true),
            ("a\n\"x\n\\.y\"\n", false),
            ("a\n\"x\n \\.\ny\"\n", false),
        ] {
            for at in 0..=text.len() {
                let mut ends = Ends::default();
                let (first, second) = text.as_bytes().split_at(at);
                ends.look(first);
                ends.look(second);
                assert_eq!(ends.is_met, expected, "{text:?} at {at}");
            }
        }
    }

    #[test]
    fn columns_are_paired_by_number_and_then_by_name() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let check = |live: &str, numbered: &[(&str, &str)], recorded: &str, expected: &[(&str, &str)]| {
            let numbered = numbered.iter().map(|(live, was)| ((*live).to_owned(), (*was).to_owned()));
            let doomed = Doomed { numbered: numbered.collect(), ..Doomed::plain("public", "t", names(live)) };
            assert_eq!(doomed.pairs(&names(recorded)), expected);
        };
        check("id a b", &[], "id a b", &[("id", "id"), ("a", "a"), ("b", "b")]);
        check("id c", &[], "id a", &[("id", "id")]);
        check("id c", &[("id", "id"), ("c", "a")], "id a", &[("id", "id"), ("c", "a")]);
        // They changed their names; the second one went, and another one has its name.
        check("b a", &[("b", "a"), ("a", "b")], "a b", &[("b", "a"), ("a", "b")]);
        check("id a", &[("id", "id")], "id a", &[("id", "id"), ("a", "a")]);
        check("id a", &[("id", "id"), ("a", "b")], "id a b", &[("id", "id"), ("a", "b")]);
    }
}
