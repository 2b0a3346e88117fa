//! The table of contents of a dump, as `pg_restore --list` prints it, and filters over it.
//!
//! A line is `dump id; catalog oid, object oid, type, namespace, name, owner`, all but the numbers
//! unquoted, so a name with a blank cannot be told from two names: entries are matched by object
//! id, or against names that are known, never taken apart.

mod row_hash;
mod rows;
mod toc;

pub use row_hash::{SEEDS, values};
pub use rows::{RowReader, Rows, RowsByTable, is_cut_head};
pub use toc::{Error as BadToc, TableData, Toc};

use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Types of entries of which one is the beginning of another come longest first.
const LONG_TYPES: [&str; 26] = [
    "MATERIALIZED VIEW DATA",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PUBLICATION TABLES IN SCHEMA",
    "PUBLICATION TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "MATERIALIZED VIEW",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "ACCESS METHOD",
    "BLOB METADATA",
    "CHECK CONSTRAINT",
    "DEFAULT ACL",
    "EVENT TRIGGER",
    "FK CONSTRAINT",
    "INDEX ATTACH",
    "ROW SECURITY",
    "TABLE ATTACH",
    "TABLE DATA",
    "USER MAPPING",
    "LARGE OBJECT",
];

/// Entries whose number follows the users' doings rather than the schema's shape.
const MOVING_TYPES: [&str; 5] = ["BLOB", "BLOBS", "BLOB METADATA", "LARGE OBJECT", "ACL LARGE OBJECT"];

/// One line of the table of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The line as printed, for a list that goes back to `pg_restore --use-list`.
    pub line: String,
    /// Number in the archive.
    pub dump_id: u32,
    /// Catalog's object id, 0 where the entry is no object of its own.
    pub catalog_oid: u32,
    /// Object id; of the table for `TABLE DATA`.
    pub oid: u32,
    /// Type, such as `TABLE DATA`.
    pub kind: String,
    /// Namespace, name, and owner, as printed.
    pub rest: String,
}

impl Entry {
    /// Whether the entry is the named object of a namespace (`-` when it has none).
    pub fn is_named(&self, namespace: &str, name: &str) -> bool {
        let wanted = format!("{} {} ", one_line(namespace), one_line(name));
        format!("{} ", self.rest).starts_with(&wanted)
    }

    /// Whether the entry lies in the namespace.
    pub fn is_in(&self, namespace: &str) -> bool {
        self.rest.starts_with(&format!("{} ", one_line(namespace)))
    }
}

/// Names of tables, to be found for many entries. An entry is what [`Entry::is_named`] says.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Number of each, by namespace and name as printed.
    numbers: BTreeMap<String, usize>,
}

impl Names {
    /// Numbers the names of these namespaces in their order.
    pub fn of<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut numbers = BTreeMap::new();
        for (number, (namespace, name)) in names.enumerate() {
            numbers.entry(format!("{} {}", one_line(namespace), one_line(name))).or_insert(number);
        }
        Self { numbers }
    }

    /// The number of the first name that an entry has.
    pub fn find(&self, entry: &Entry) -> Option<usize> {
        let ends = entry.rest.match_indices(' ').map(|(at, _)| at).chain([entry.rest.len()]);
        ends.filter_map(|end| self.numbers.get(entry.rest.get(..end)?).copied()).min()
    }

    /// Whether an entry has one of the names.
    pub fn has(&self, entry: &Entry) -> bool {
        self.find(entry).is_some()
    }
}

/// `pg_restore` prints line breaks in names as blanks.
pub fn one_line(name: &str) -> String {
    name.replace(['\n', '\r'], " ")
}

/// A table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The entries, in the order in which they are restored.
    pub entries: Vec<Entry>,
}

/// A line was not understood.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the table of contents is not understood: `{text}`")]
pub struct Error {
    /// Its number, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
}

impl Contents {
    /// Reads what `pg_restore --list` printed.
    ///
    /// The triggers of partitions come last among the triggers. Of those, `pg_dump` writes only what differs
    /// from the parent's, as a change of the trigger that the parent's entry makes; between a partition of a
    /// partition and the root, it loses the dependency (measured with 15.18 and 17.10).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with(';') {
                continue;
            }
            entries.push(entry(line).ok_or_else(|| Error { line: index + 1, text: line.to_owned() })?);
        }
        let partitions: BTreeSet<String> = partitions(&entries).into_iter().map(str::to_owned).collect();
        let partitions: BTreeSet<&str> = partitions.iter().map(String::as_str).collect();
        let triggers = entries.iter().rposition(|entry| entry.kind == "TRIGGER").map_or(0, |last| last + 1);
        let others = entries.split_off(triggers);
        // A comment follows its trigger.
        let mut is_moved = false;
        let moved = |entry: &Entry| {
            is_moved = is_trigger_of(&partitions, entry) || is_moved && entry.kind == "COMMENT";
            is_moved
        };
        let moved: Vec<bool> = entries.iter().map(moved).collect();
        let (last, first): (Vec<_>, Vec<_>) = entries.into_iter().zip(moved).partition(|(_, moved)| *moved);
        let mut entries: Vec<Entry> = first.into_iter().chain(last).map(|(entry, _)| entry).collect();
        entries.extend(others);
        Ok(Self { entries })
    }

    /// Whether entries depend on others in a way that the archive does not tell, so that only their order,
    /// and not `pg_restore --jobs`, restores them.
    pub fn needs_its_order(&self) -> bool {
        let partitions = partitions(&self.entries);
        self.entries.iter().any(|entry| is_trigger_of(&partitions, entry))
    }

    /// Entries that satisfy the condition, as text for `pg_restore --use-list`.
    pub fn list(&self, keep: impl Fn(&Entry) -> bool) -> String {
        let mut text = String::new();
        for entry in self.entries.iter().filter(|entry| keep(entry)) {
            text.push_str(&entry.line);
            text.push('\n');
        }
        text
    }

    /// Names (`schema name`) under which the archive holds rows of tables or materialized views.
    ///
    /// A line does not say where the name ends and the owner begins, so every reading is in the
    /// set; a wrong one can only hide the absence of a table that has such a name.
    pub fn names_with_data(&self) -> BTreeSet<&str> {
        self.entries
            .iter()
            .filter(|entry| ["TABLE DATA", "MATERIALIZED VIEW DATA"].contains(&entry.kind.as_str()))
            .flat_map(|entry| prefixes(&entry.rest))
            .collect()
    }

    /// The entries in two lists of about equal bytes, so that two programs can decode an archive
    /// side by side; `bytes` tells the size of an entry's file.
    pub fn halves(&self, bytes: impl Fn(&Entry) -> u64) -> [String; 2] {
        let mut by_size: Vec<(u64, &Entry)> =
            self.entries.iter().map(|entry| (bytes(entry), entry)).collect();
        by_size.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        let (mut weights, mut halves) = ([0_u64; 2], [BTreeSet::new(), BTreeSet::new()]);
        for (size, entry) in by_size {
            let lighter = usize::from(weights[1] < weights[0]);
            weights[lighter] += size;
            halves[lighter].insert(entry.dump_id);
        }
        halves.map(|half| self.list(|entry| half.contains(&entry.dump_id)))
    }

    /// Digest of what is in the archive: types and names, without numbers. Large objects and the
    /// daily partitions of `realtime.messages` come and go with use and are left out.
    pub fn digest(&self) -> String {
        let mut lines: Vec<String> = self
            .entries
            .iter()
            .filter(|entry| !MOVING_TYPES.contains(&entry.kind.as_str()))
            .filter(|entry| {
                !entry.rest.contains("realtime messages_") && !entry.rest.contains("TABLE messages_")
            })
            .map(|entry| format!("{} {}\n", entry.kind, entry.rest))
            .collect();
        lines.sort_unstable();
        let mut hasher = Sha256::new();
        for line in &lines {
            hasher.update(line.as_bytes());
        }
        hex::encode(hasher.finalize())
    }
}

/// What may be the names of partitions: of each attachment, namespace, name, and owner up to any blank.
fn partitions(entries: &[Entry]) -> BTreeSet<&str> {
    let attached = entries.iter().filter(|entry| entry.kind == "TABLE ATTACH");
    attached.flat_map(|entry| prefixes(&entry.rest)).collect()
}

fn is_trigger_of(tables: &BTreeSet<&str>, entry: &Entry) -> bool {
    entry.kind == "TRIGGER" && prefixes(&entry.rest).any(|prefix| tables.contains(prefix))
}

/// Of namespace, name, and more: what ends before a blank and holds a name.
fn prefixes(rest: &str) -> impl Iterator<Item = &str> {
    rest.match_indices(' ').skip(1).filter_map(|(at, _)| rest.get(..at))
}

fn entry(line: &str) -> Option<Entry> {
    let (dump_id, after) = line.split_once("; ")?;
    let mut words = after.splitn(3, ' ');
    let catalog_oid = words.next()?.parse().ok()?;
    let oid = words.next()?.parse().ok()?;
    let described = words.next()?;
    let kind = LONG_TYPES
        .into_iter()
        .find(|kind| described.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' ')))
        .or_else(|| described.split(' ').next())?;
    let rest = described.strip_prefix(kind)?.strip_prefix(' ')?;
    Some(Entry {
        line: line.to_owned(),
        dump_id: dump_id.parse().ok()?,
        catalog_oid,
        oid,
        kind: kind.to_owned(),
        rest: rest.to_owned(),
    })
}

/// Reads the `setval` calls of a script that holds the archive's `SEQUENCE SET` entries.
pub fn sequence_values(script: &str) -> Vec<crate::manifest::SequenceValue> {
    // A name may hold a line break.
    script.split("SELECT pg_catalog.setval('").skip(1).filter_map(sequence_value).collect()
}

fn sequence_value(call: &str) -> Option<crate::manifest::SequenceValue> {
    let mut quotes = call.match_indices('\'').map(|(at, _)| at).peekable();
    let end = loop {
        let at = quotes.next()?;
        if quotes.next_if_eq(&(at + 1)).is_none() {
            break at;
        }
    };
    let (name, rest) = call.split_at(end);
    let (value, rest) = rest.strip_prefix("', ")?.split_once(", ")?;
    Some(crate::manifest::SequenceValue {
        name: name.replace("''", "'"),
        value: value.parse().ok()?,
        is_called: rest.starts_with("true"),
    })
}

/// Whether a script of `pg_restore` begins with an empty search path.
///
/// A dump through a transaction pooler can lose that setting and then holds unqualified names.
pub fn has_empty_search_path(script: &str) -> bool {
    script.lines().any(|line| line == "SELECT pg_catalog.set_config('search_path', '', false);")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = ";\n; Archive created at 2026-11-22 20:00:00 UTC\n;\n\
        215; 1259 16386 TABLE public orders postgres\n\
        3344; 0 16386 TABLE DATA public orders postgres\n\
        3345; 0 0 SEQUENCE SET public orders_id_seq postgres\n\
        3346; 0 0 ACL public FUNCTION total(integer, text) postgres\n\
        7; 2615 16400 SCHEMA - my schema postgres\n\
        3347; 0 16401 TABLE DATA my schema a table postgres\n";

    #[test]
    fn entries_are_read() {
        let contents = Contents::parse(LIST).unwrap();
        let kinds: Vec<&str> = contents.entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["TABLE", "TABLE DATA", "SEQUENCE SET", "ACL", "SCHEMA", "TABLE DATA"]);
        assert_eq!(
            contents.names_with_data(),
            BTreeSet::from(["public orders", "my schema", "my schema a", "my schema a table"])
        );
        assert!(contents.entries[5].is_named("my schema", "a table"));
        assert!(contents.entries[3].is_named("public", "FUNCTION total(integer, text)"));
        assert_eq!(
            contents.list(|entry| entry.kind == "TABLE"),
            "215; 1259 16386 TABLE public orders postgres\n"
        );
    }

    #[test]
    fn triggers_of_partitions_come_after_those_of_their_parents() {
        let list = "1; 0 0 TABLE ATTACH public a postgres\n2; 2620 12 TRIGGER public a t postgres\n\
            5; 0 0 COMMENT public TRIGGER t ON a postgres\n3; 2620 11 TRIGGER public z t postgres\n4; 3466 10 EVENT TRIGGER - e postgres\n";
        let contents = Contents::parse(list).unwrap();
        let order: Vec<u32> = contents.entries.iter().map(|entry| entry.dump_id).collect();
        assert_eq!((order, contents.needs_its_order()), (vec![1, 3, 2, 5, 4], true));
        let contents = Contents::parse(&list.replace("TRIGGER public a", "TRIGGER public b")).unwrap();
        let order: Vec<u32> = contents.entries.iter().map(|entry| entry.dump_id).collect();
        assert_eq!((order, contents.needs_its_order()), (vec![1, 2, 5, 3, 4], false));
    }

    #[test]
    fn names_are_found_as_each_is() {
        let contents = Contents::parse(LIST).unwrap();
        let all =
            [("public", "orders"), ("my", "schema a table"), ("my schema", "a table"), ("my schema", "a")];
        let names = Names::of(all.into_iter());
        for entry in &contents.entries {
            let expected = all.iter().position(|(namespace, name)| entry.is_named(namespace, name));
            assert_eq!(names.find(entry), expected, "{}", entry.line);
        }
    }

    #[test]
    fn halves_hold_everything_once_and_weigh_alike() {
        let contents = Contents::parse(LIST).unwrap();
        let [left, right] = contents.halves(|entry| if entry.kind == "TABLE DATA" { 10 } else { 0 });
        assert_eq!(left.lines().count() + right.lines().count(), 6);
        assert_eq!([&left, &right].map(|half| half.matches("TABLE DATA").count()), [1, 1]);
    }

    #[test]
    fn the_digest_sees_names_and_not_numbers() {
        let contents = Contents::parse(LIST).unwrap();
        let renumbered = Contents::parse(&LIST.replace("16386", "99")).unwrap();
        let renamed = Contents::parse(&LIST.replace("orders", "order")).unwrap();
        assert_eq!(contents.digest(), renumbered.digest());
        assert_ne!(contents.digest(), renamed.digest());
    }

    #[test]
    fn nonsense_names_its_line() {
        let error = Contents::parse(";\nwhat").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the table of contents is not understood: `what`");
    }

    #[test]
    fn sequence_values_are_read() {
        let script = "SELECT pg_catalog.set_config('search_path', '', false);\n\
            SELECT pg_catalog.setval('public.\"Odd''s, seq\"', 42, true);\nSELECT pg_catalog.setval('public.b', -1, false);\n\
            SELECT pg_catalog.setval('public.\"c\nd\"', 7, true);\n";
        let values = sequence_values(script);
        assert_eq!(values.len(), 3);
        assert_eq!((values[2].name.as_str(), values[2].value), ("public.\"c\nd\"", 7));
        assert_eq!(
            (values[0].name.as_str(), values[0].value, values[0].is_called),
            ("public.\"Odd's, seq\"", 42, true)
        );
        assert_eq!((values[1].value, values[1].is_called), (-1, false));
        assert!(has_empty_search_path(script));
    }
}
