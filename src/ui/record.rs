//! The record of a run on disk, which a later run reads to learn how this one ended.

use super::{Summary, is_lasting};
use crate::disk::Journal;
use crate::event::{Event, Observer};
use jiff::Timestamp;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Appends every lasting event to a file, synced but for steps of a rollback: no run relies on these, and users
/// wait while some of them are written.
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
        // A full disk must not stop a push that is under way; the stages' own writes fail loudly.
        drop(self.keep(event));
    }

    fn keep(&self, event: &Event) -> io::Result<()> {
        if !is_lasting(event) {
            return Ok(());
        }
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line { at: (self.clock)(), value: event };
        match event {
            Event::RollbackStep(_) => journal.append_unsynced(&line),
            _ => journal.append(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Observers;

    /// On a full disk a push goes on, and a rollback does not commit.
    #[test]
    fn a_line_that_has_to_stand_and_cannot_is_an_error() {
        let record = Record::open(Path::new("/dev/full"), || Timestamp::UNIX_EPOCH).unwrap();
        let mut observers = Observers::default();
        observers.add(Box::new(record));
        let snapshot = "20261101T000000Z-000000".parse().unwrap();
        let event = Event::RollingBack { snapshot, transaction: "77".to_owned() };
        observers.see(&event);
        assert_eq!(observers.keep(&event).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
