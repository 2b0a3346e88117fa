//! What became of a database that is as in the snapshot.

use super::{Changed, Mode, Saved, SavedObject, Taken};
use serde::{Deserialize, Serialize};

/// What accounts that came and went since the snapshot leave behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounts {
    /// Rows of new accounts that were loaded again.
    pub loaded: Vec<Changed>,
    /// Rows that were taken away or lost their reference, since their account is gone.
    pub removed: Vec<Changed>,
    /// Rows of new accounts that were not loaded again, or lost their reference, since it is to what is gone or
    /// a type of their table would cut a value.
    pub unfit: Vec<Changed>,
    /// Why the rows of new accounts could not be loaded again, if they could not.
    pub failed: Option<String>,
    /// Accounts that could not go back, since another one has their place by now.
    pub taken: Vec<Taken>,
}

impl Accounts {
    /// Whether every row is as in the snapshot.
    pub fn is_empty(&self) -> bool {
        self.loaded.is_empty() && self.removed.is_empty() && self.taken.is_empty()
    }

    /// What is not as in the snapshot, for people.
    pub(super) fn in_words(&self) -> Vec<String> {
        let changed = |changes: &[Changed], what: &str| -> Vec<String> {
            changes.iter().map(|one| format!("{} rows of {} {what}", one.rows, one.table)).collect()
        };
        let mut words = changed(&self.loaded, "are not in it");
        words.extend(changed(&self.removed, "refer to what is gone"));
        let taken = self.taken.iter();
        words.extend(taken.map(|one| format!("{} rows of {} have no place", one.ids.len(), one.table)));
        words
    }
}

/// A database that is as in the snapshot, in a transaction that is still open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proved {
    /// How much goes back.
    pub mode: Mode,
    /// Tables that went.
    pub tables: Vec<String>,
    /// Those of them that the snapshot does not have; all others were made again.
    #[serde(default)]
    pub removed_tables: Vec<String>,
    /// Rows written since that were kept.
    pub saved: Vec<Saved>,
    /// Large objects written since that were kept.
    pub large_objects: Vec<SavedObject>,
    /// Rows that are not as in the snapshot, since accounts came and went.
    pub accounts: Accounts,
    /// Sequences that went back by themselves, and are not below a row that stays.
    pub sequences: Vec<String>,
    /// What is not as it was although it went back, in words: what refers by id, views that show other
    /// rows, and accounts that the push added and that were not found.
    pub references: Vec<String>,
    /// The transaction's id, by which its end can be asked for.
    pub transaction: String,
    /// Seconds since the first lock.
    pub seconds: f64,
}

impl Proved {
    /// One that says of no table that it went back.
    pub fn nothing(mode: Mode) -> Self {
        Self {
            mode,
            tables: Vec::new(),
            removed_tables: Vec::new(),
            saved: Vec::new(),
            large_objects: Vec::new(),
            accounts: Accounts::default(),
            sequences: Vec::new(),
            references: Vec::new(),
            transaction: String::new(),
            seconds: 0.0,
        }
    }
}
