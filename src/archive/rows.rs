//! Counts and hashes the rows of each table in a script of `pg_restore`, as it streams by.
//!
//! A data file that was cut short can decode without an error (`pg_restore` takes a zstd file that
//! was cut in half for its end), so only the rows themselves tell that an archive is whole.

use super::row_hash::{Hashes, RowHasher};
use crate::manifest::Content;
use std::collections::{BTreeMap, BTreeSet};

/// As much of a line as is needed to know it for the head of a `COPY`.
const KEPT: usize = 256 << 10;
/// The line behind the last row.
const END: &[u8] = b"\\.";

/// What is known of the rows of one table in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many.
    pub count: u64,
    sum: i128,
    /// The same by another seed.
    second: i128,
    /// Why the sum is not whole, if it is not.
    unhashed: Option<String>,
    has_columns: bool,
    /// The hash of every row, where they were asked for; a row that could not be hashed has none.
    hashes: Vec<i64>,
    /// Which fields the hashes are of, where they were asked for.
    is_kept: Option<Vec<bool>>,
}

impl Rows {
    /// The content hash.
    pub fn content(&self) -> Content {
        match &self.unhashed {
            None => Content::Sum(self.sum.to_string()),
            Some(why) => Content::Unhashed(why.clone()),
        }
    }

    /// The sum of the hashes by another seed, where every row has one.
    pub fn second(&self) -> Option<String> {
        self.unhashed.is_none().then(|| self.second.to_string())
    }

    /// The hash of every row, in no order.
    pub fn into_hashes(self) -> Vec<i64> {
        self.hashes
    }

    fn add(&mut self, hashes: Result<Hashes, String>) {
        self.count += 1;
        match hashes {
            Ok([hash, _]) if self.is_kept.is_some() => self.hashes.push(hash),
            Ok([hash, second]) => {
                self.sum += i128::from(hash);
                self.second += i128::from(second);
            }
            Err(why) => self.unhashed = Some(why),
        }
    }
}

/// Rows by schema and table.
pub type RowsByTable = BTreeMap<(String, String), Rows>;

/// Reads rows in bytes that come in pieces.
#[derive(Debug, Default)]
pub struct RowReader {
    tables: RowsByTable,
    copying: Option<((String, String), Rows)>,
    /// The beginning of a line that is not over.
    line: Vec<u8>,
    hasher: RowHasher,
    /// Tables whose every row is asked for, and by which columns.
    single: BTreeMap<(String, String), BTreeSet<String>>,
}

impl RowReader {
    /// A reader that keeps the hash of every row of these tables, worked out from these columns alone.
    pub fn of_single_rows(single: BTreeMap<(String, String), BTreeSet<String>>) -> Self {
        Self { single, ..Self::default() }
    }

    /// Takes the next piece of the script.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (last, rest) = bytes.split_at(end);
            self.end_line(last);
            bytes = rest.get(1..).unwrap_or_default();
        }
        if self.copying.is_some() {
            self.keep(bytes, END.len() + 1);
            self.hasher.keep(bytes);
        } else {
            self.keep(bytes, KEPT);
        }
    }

    /// The tables so far.
    pub fn into_tables(mut self) -> RowsByTable {
        self.tables.extend(self.copying);
        self.tables
    }

    fn keep(&mut self, bytes: &[u8], room: usize) {
        let room = room.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    fn end_line(&mut self, last: &[u8]) {
        let Some((table, mut rows)) = self.copying.take() else {
            self.keep(last, KEPT);
            if is_cut_head(&self.line) {
                self.keep(b"\n", KEPT);
                return;
            }
            self.copying = copied_table(&String::from_utf8_lossy(&self.line), &self.single);
            self.line.clear();
            return;
        };
        // The beginning was kept for this question only; the hasher has all of it.
        let is_end = if self.line.is_empty() { last == END } else { [&self.line, last].concat() == END };
        self.line.clear();
        let hash = match &rows.is_kept {
            Some(is_kept) if rows.has_columns => self.hasher.end_of(last, is_kept),
            _ => self.hasher.end(last),
        };
        if is_end {
            self.tables.insert(table, rows);
            return;
        }
        rows.add(if rows.has_columns { hash } else { Ok(self.hasher.no_columns()) });
        self.copying = Some((table, rows));
    }
}

/// Whether this begins a `COPY` and ends within it: a name may hold a line break.
pub fn is_cut_head(line: &[u8]) -> bool {
    let is_over = || {
        let quotes = memchr::memchr_iter(b'"', line).count();
        line.trim_ascii_end().ends_with(b" FROM stdin;") && quotes.is_multiple_of(2)
    };
    line.starts_with(b"COPY ") && line.len() < KEPT && !is_over()
}

/// Schema and table of the first lines of a `COPY … FROM stdin;`.
fn copied_table(
    line: &str,
    single: &BTreeMap<(String, String), BTreeSet<String>>,
) -> Option<((String, String), Rows)> {
    let rest = line.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?;
    let (schema, rest) = identifier(rest)?;
    let (table, columns) = identifier(rest.strip_prefix('.')?)?;
    let table = (schema, table);
    let is_kept = single.get(&table).map(|wanted| kept(columns, wanted));
    Some((table, Rows { has_columns: columns.contains('('), is_kept, ..Rows::default() }))
}

/// Which columns of the list ` (a, b)` are wanted.
fn kept(columns: &str, wanted: &BTreeSet<String>) -> Vec<bool> {
    let mut rest = columns.trim_start().trim_start_matches('(');
    let mut is_kept = Vec::new();
    while let Some((column, more)) = identifier(rest).filter(|(column, _)| !column.is_empty()) {
        is_kept.push(wanted.contains(&column));
        rest = more.trim_start_matches([',', ' ']);
    }
    is_kept
}

/// The identifier that a text begins with, without its quotes, and the rest.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', ' ', ',', ')']).unwrap_or(text.len());
        return Some((text.get(..end)?.to_owned(), text.get(end..)?));
    };
    let mut name = String::new();
    let mut letters = quoted.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != '"' {
            name.push(letter);
        } else if letters.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, quoted.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SCRIPT: &str = "SET x = 1;\n\nCOPY public.\"Gift \"\"Cards\"\"\" (id, a) FROM stdin;\n1\tx\n2\t\\.\n3\t\n\\.\n\n\
        COPY auth.users (id) FROM stdin;\n\\.\nCOPY public.t (id) FROM stdin;\n\n\n\\.\nCOPY public.none  FROM stdin;\n\n\\.\n\
        COPY public.\"a\nCOPY b FROM stdin;\n\" (\"c\n\") FROM stdin;\n7\n\\.\n";

    fn read(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(String, u64, i128)> {
        let mut reader = RowReader::default();
        pieces.for_each(|piece| reader.feed(&piece));
        reader
            .into_tables()
            .into_iter()
            .map(|((schema, table), rows)| (format!("{schema}.{table}"), rows.count, rows.sum))
            .collect()
    }

    #[test]
    fn single_rows_are_known_by_the_columns_that_are_asked_for() {
        let hashes = |script: &str, columns: &[&str]| {
            let columns = columns.iter().map(|column| (*column).to_owned()).collect();
            let single = BTreeMap::from([(("public".to_owned(), "t".to_owned()), columns)]);
            let mut reader = RowReader::of_single_rows(single);
            reader.feed(script.as_bytes());
            reader.into_tables().remove(&("public".to_owned(), "t".to_owned())).unwrap().into_hashes()
        };
        let whole = "COPY public.t (id, \"a, b\", c) FROM stdin;\n1\tx\ty\n2\tx\tz\n\\.\n";
        let part = "COPY public.t (id, c) FROM stdin;\n1\ty\n2\tz\n\\.\n";
        assert_eq!(hashes(whole, &["id", "c"]), hashes(part, &["id", "c"]));
        assert_eq!(hashes(whole, &["a, b"]).len(), 2);
        assert_eq!(hashes(whole, &["a, b"])[0], hashes(whole, &["a, b"])[1]);
        assert_ne!(hashes(whole, &["id", "c"]), hashes(whole, &["id", "a, b"]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn rows_are_read_however_the_bytes_come(size in 1_usize..80) {
            let found = read(SCRIPT.as_bytes().chunks(size).map(<[u8]>::to_vec));
            prop_assert_eq!(&found, &read(std::iter::once(SCRIPT.as_bytes().to_vec())));
            let counts = found.iter().map(|(table, count, _)| (table.as_str(), *count));
            let expected = [("auth.users", 0), ("public.Gift \"Cards\"", 3), ("public.a\nCOPY b FROM stdin;\n", 1), ("public.none", 1), ("public.t", 2)];
            prop_assert_eq!(counts.collect::<Vec<_>>(), expected);
        }
    }
}
