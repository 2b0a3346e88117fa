//! The bytes of Storage's objects, named by their SHA-256 and shared by all snapshots of a target.

use crate::disk;
use fs_err as fs;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where bytes stand while they arrive; what a dead run left there is of no use.
const INCOMING: &str = "incoming";
/// What the last bulk copy saw, in the order of buckets and keys.
const SEEN: &str = "seen.jsonl";
/// The same while it is written: what is left of it lets the next run go on where one died.
const SEEN_PARTIAL: &str = "seen.partial";
/// The one of a run that died.
const SEEN_BEFORE: &str = "seen.before";

/// The folder of a target's objects.
#[derive(Clone, Debug)]
pub struct Objects {
    root: PathBuf,
    touched: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// Bytes that arrive. Dropping it before it is kept removes them.
#[derive(Debug)]
pub struct Incoming(disk::Temp);

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Objects {
    pub(super) fn open(root: PathBuf) -> io::Result<Self> {
        disk::make_private_dir(&root.join(INCOMING))?;
        Ok(Self { root, touched: Arc::default() })
    }

    /// Removes what arrived for a run that died; the caller holds the target's lock.
    pub(super) fn sweep(root: &Path) -> io::Result<()> {
        let incoming = root.join(INCOMING);
        if incoming.exists() {
            fs::remove_dir_all(incoming)?;
        }
        Ok(())
    }

    /// The file of an object's bytes.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.root.join(sha256.get(..2).unwrap_or_default()).join(sha256)
    }

    /// Whether bytes of this digest and length are there; nothing is read.
    pub fn holds(&self, sha256: &str, size: u64) -> bool {
        fs::metadata(self.path(sha256)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Takes its name from a file whose bytes are not those of its digest, so that the next capture
    /// fetches them again; the file stays for whoever looks into it.
    pub fn set_aside(&self, sha256: &str) -> io::Result<()> {
        let path = self.path(sha256);
        if path.exists() { fs::rename(&path, path.with_extension("damaged")) } else { Ok(()) }
    }

    /// Begins to take bytes.
    pub fn begin(&self) -> io::Result<Incoming> {
        Ok(Incoming(disk::Temp::new_in(&self.root.join(INCOMING))?))
    }

    /// Gives bytes that have all arrived their name. They are on disk then, their name is after
    /// [`Objects::sync`].
    pub fn keep(&self, incoming: Incoming, sha256: &str, size: u64) -> io::Result<()> {
        if self.holds(sha256, size) {
            return Ok(());
        }
        let path = self.path(sha256);
        if let Some(dir) = path.parent() {
            disk::make_private_dir(dir)?;
            self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
        }
        incoming.0.persist(&path)
    }

    /// Makes the names of everything that was kept durable.
    pub fn sync(&self) -> io::Result<()> {
        let touched = std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        for dir in touched.iter().chain([&self.root]) {
            disk::sync_dir(dir)?;
        }
        Ok(())
    }

    /// Begins the record of a bulk copy, and keeps that of one that died.
    pub fn begin_seen(&self) -> io::Result<disk::Lines> {
        let partial = self.root.join(SEEN_PARTIAL);
        let before = self.root.join(SEEN_BEFORE);
        let length = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        if length(&partial) > length(&before) && !self.root.join(SEEN).exists() {
            fs::rename(&partial, before)?;
        }
        disk::Lines::create(&partial)
    }

    /// Ends the record of a bulk copy.
    pub fn publish_seen(&self) -> io::Result<()> {
        fs::rename(self.root.join(SEEN_PARTIAL), self.root.join(SEEN))
    }

    /// Records of bulk copies that a later one need not repeat.
    pub fn seen(&self) -> Vec<PathBuf> {
        let records = [SEEN, SEEN_BEFORE].map(|name| self.root.join(name));
        records.into_iter().filter(|path| path.exists()).collect()
    }

    /// Removes those records: an index that names the same objects stands.
    pub fn forget_seen(&self) -> io::Result<()> {
        self.seen().into_iter().try_for_each(fs::remove_file)
    }
}
