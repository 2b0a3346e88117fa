//! The record of a run on disk, which a later run reads to learn how this one ended.

use super::{Summary, is_lasting};
use crate::disk::Journal;
use crate::event::{Event, Observer};
use jiff::Timestamp;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Appends every lasting event to a file, synced.
#[derive(Clone, Debug)]
pub struct Record {
    journal: Arc<Mutex<Journal>>,
    clock: fn() -> Timestamp,
}

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    at: Timestamp,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Serialize)]
struct Last<'a> {
    r#type: &'static str,
    at: Timestamp,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl Record {
    /// Opens the record of a run.
    pub fn open(path: &Path, clock: fn() -> Timestamp) -> io::Result<Self> {
        Ok(Self { journal: Arc::new(Mutex::new(Journal::open(path)?)), clock })
    }

    /// Appends the last line.
    pub fn summary(&self, summary: &Summary) -> io::Result<()> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append(&Last { r#type: "summary", at: (self.clock)(), summary })
    }
}

impl Observer for Record {
    fn see(&self, event: &Event) {
        if is_lasting(event) {
            let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk must not stop a push that is under way; the stages' own writes fail loudly.
            drop(journal.append(&Line { at: (self.clock)(), value: event }));
        }
    }
}
