//! What a pending file did to the copy, measured in the rehearsal.

use serde::{Deserialize, Serialize};

/// What stands in place of a file for what came after the last one: seeds.
pub const SEEDS: &str = "seeds";

/// Effects of one pending file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEffect {
    /// The file's name.
    pub file: String,
    /// Seconds from its first statement to its history row.
    pub seconds: f64,
    /// What it did to each table it touched.
    pub tables: Vec<TableEffect>,
    /// Locks stronger than reading that it held on tables that were there before, at its end.
    pub locks: Vec<LockHeld>,
}

/// Effects on one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableEffect {
    /// Qualified name.
    pub table: String,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Whether the table's file was written anew, as a type change does, or the table was made again.
    pub rewritten: bool,
    /// Whether rows could have been written, had a statement found any: on another day it may.
    #[serde(default)]
    pub reached: bool,
    /// Columns whose content changed over the whole push, when rows were updated.
    pub columns: Vec<String>,
}

/// What a push did besides the rows of tables, measured where nobody else writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Besides {
    /// Sequences that were there before and after, and moved.
    pub sequences: Vec<SequenceLeft>,
    /// Large objects that were there before, and changed or went.
    pub large_objects: Vec<u32>,
    /// Rows of accounts, each table before those that refer to it.
    pub managed: Vec<ManagedRows>,
}

/// What a push did to the rows of a managed table, by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedRows {
    /// Qualified name.
    pub table: String,
    /// What changed in rows that were there before and after.
    pub changed: Vec<ManagedChange>,
    /// Rows that went.
    pub gone: Vec<String>,
    /// Rows that came.
    pub added: Vec<String>,
    /// When the last of the rows that were there before was made, if they say so: what the push does to
    /// later ones was not seen.
    pub newest: Option<String>,
}

/// Columns of a managed table that changed together, and in which rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagedChange {
    /// The columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Which,
}

/// Rows of a managed table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// So many that nobody noted them: it may be any.
    Any,
    /// Those with these ids.
    These(Vec<String>),
}

/// Where a push left a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceLeft {
    /// Qualified name before the push, as SQL wants it.
    pub name: String,
    /// `last_value`.
    pub value: i64,
    /// `is_called`.
    pub is_called: bool,
}

/// A lock that a file held when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHeld {
    /// Qualified table name.
    pub table: String,
    /// The mode, as `pg_locks` has it.
    pub mode: String,
}

impl LockHeld {
    /// Whether readers wait behind it.
    pub fn blocks_reads(&self) -> bool {
        self.mode == "AccessExclusiveLock"
    }
}

impl FileEffect {
    /// Whether it is about the seeds, which are no file of the history.
    pub fn is_of_seeds(&self) -> bool {
        self.file == SEEDS
    }
}

impl TableEffect {
    /// Whether the table is not as it was.
    pub fn is_changed(&self) -> bool {
        self.inserted + self.updated + self.deleted > 0 || self.rewritten
    }

    /// What happened to the table, for people.
    pub fn in_words(&self) -> String {
        let counts = [(self.inserted, "inserted"), (self.updated, "updated"), (self.deleted, "deleted")];
        let mut parts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if self.rewritten {
            parts.push("rewritten".to_owned());
        }
        if !self.columns.is_empty() {
            parts.push(format!("columns {}", self.columns.join(", ")));
        }
        if parts.is_empty() {
            parts.push("no row found to write".to_owned());
        }
        format!("{}: {}", self.table, parts.join(", "))
    }
}
