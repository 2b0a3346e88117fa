//! Counts the rows of each table in a script of `pg_restore`, as it streams by.
//!
//! A data file that was cut short can decode without an error (`pg_restore` takes a zstd file that
//! was cut in half for its end), so only the rows themselves tell that an archive is whole.

use std::collections::BTreeMap;

/// As much of a line as is needed to know it: the head of a `COPY`, or the two bytes of its end.
const KEPT: usize = 64 << 10;

/// Rows by schema and table.
pub type Counts = BTreeMap<(String, String), u64>;

/// Counts rows in bytes that come in pieces.
#[derive(Debug, Default)]
pub struct RowCounter {
    counts: Counts,
    table: Option<(String, String)>,
    line: Vec<u8>,
}

impl RowCounter {
    /// Takes the next piece of the script.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.keep(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(bytes);
    }

    /// The counts so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = if self.table.is_some() { 3 } else { KEPT };
        let room = room.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }

    fn end_line(&mut self) {
        match self.table.take() {
            Some(_) if self.line == b"\\." => {}
            Some(table) => {
                if let Some(count) = self.counts.get_mut(&table) {
                    *count += 1;
                }
                self.table = Some(table);
            }
            None => {
                self.table = copied_table(&String::from_utf8_lossy(&self.line));
                if let Some(table) = &self.table {
                    self.counts.entry(table.clone()).or_default();
                }
            }
        }
        self.line.clear();
    }
}

/// Schema and table of the first line of a `COPY … FROM stdin;`.
fn copied_table(line: &str) -> Option<(String, String)> {
    let rest = line.strip_prefix("COPY ")?.strip_suffix(" FROM stdin;")?;
    let (schema, rest) = identifier(rest)?;
    let (table, _) = identifier(rest.strip_prefix('.')?)?;
    Some((schema, table))
}

/// The identifier that a text begins with, without its quotes, and the rest.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', ' ']).unwrap_or(text.len());
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
        COPY auth.users (id) FROM stdin;\n\\.\nCOPY public.t (id) FROM stdin;\n\n\n\\.\n";

    fn counts(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(String, u64)> {
        let mut counter = RowCounter::default();
        pieces.for_each(|piece| counter.feed(&piece));
        counter
            .counts()
            .iter()
            .map(|((schema, table), count)| (format!("{schema}.{table}"), *count))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn rows_are_counted_however_the_bytes_come(size in 1_usize..80) {
            let found = counts(SCRIPT.as_bytes().chunks(size).map(<[u8]>::to_vec));
            let expected = [("auth.users", 0), ("public.Gift \"Cards\"", 3), ("public.t", 2)];
            prop_assert_eq!(found, expected.map(|(table, count)| (table.to_owned(), count)).to_vec());
        }
    }
}
