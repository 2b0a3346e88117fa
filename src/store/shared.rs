//! The store in a bucket as one run knows it: what stands there, what this machine has of it, and who
//! holds its lock. The folder on this machine stays the working copy.

use super::bucket::{Bucket, Entry, Location};
use super::lease::{Holder, Lease, Taken};
use super::{Error, OBJECTS, Store};
use crate::disk;
use crate::manifest::storage::SALVAGED;
use crate::manifest::{FILE, SnapshotId};
use crate::objects::Condition;
use fs_err as fs;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::OnceCell;

/// What this machine knows of the bucket from earlier runs.
const KNOWN: &str = "shared.json";
/// Marks of uploads that are under way.
pub(super) const INCOMING: &str = "incoming";
/// Marks of snapshots that somebody removed.
pub(super) const REMOVED: &str = "removed";
pub(super) const SNAPSHOTS: &str = "snapshots";
/// Files that are sent, fetched, or read at once.
pub(super) const TRANSFERS: usize = 4;
/// Sorts after everything in the folder of the objects: there may be very many.
const AFTER_OBJECTS: &str = "objects0";

/// The copy of one target's folder in a bucket.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bucket: Bucket,
    pub(super) reads_back: bool,
    listed: Mutex<BTreeMap<String, Entry>>,
    objects: OnceCell<()>,
    /// What this run read after it was written.
    pub(super) proved: Mutex<BTreeSet<String>>,
    known: Mutex<Known>,
    leases: tokio::sync::Mutex<Vec<Lease>>,
}

/// What this machine knows of the bucket from earlier runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Known {
    /// Which bucket that is.
    bucket: String,
    /// This folder among all that use the bucket.
    machine: String,
    /// Snapshots that were uploaded, or came from there.
    pub(super) snapshots: BTreeSet<SnapshotId>,
    /// Records that were the same here and there.
    records: BTreeMap<String, Same>,
}

/// A record that was the same here and there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Same {
    etag: String,
    sha256: String,
}

/// What is to be done with a record that stands on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Newer {
    Neither,
    Here,
    There,
}

impl Shared {
    pub(super) fn listed(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists the objects too, once.
    pub(super) async fn list_objects(&self) -> Result<(), Error> {
        let list = || async {
            let found = self.bucket.list(&format!("{OBJECTS}/")).await?;
            self.listed().extend(found);
            Ok(())
        };
        self.objects.get_or_try_init(list).await.map(drop)
    }

    /// Whether something of this length stands there.
    pub(super) fn has(&self, path: &str, size: u64) -> bool {
        self.listed().get(path).is_some_and(|entry| entry.size == size)
    }

    pub(super) fn paths_below(&self, folder: &str) -> Vec<String> {
        let listed = self.listed();
        let below = listed.range(folder.to_owned()..).map(|(path, _)| path);
        below.take_while(|path| path.starts_with(folder)).cloned().collect()
    }

    /// Snapshots of which something stands there, but for those that somebody removed, or whose upload
    /// has not ended.
    pub(super) fn ids(&self) -> BTreeSet<SnapshotId> {
        let listed = self.listed();
        let id = |path: &String| path.strip_prefix("snapshots/")?.split_once('/')?.0.parse().ok();
        let mut ids: BTreeSet<SnapshotId> = listed.keys().filter_map(id).collect();
        ids.retain(|id| {
            let is_whole = listed.contains_key(&format!("{SNAPSHOTS}/{id}/{FILE}"));
            let is_coming = listed.contains_key(&mark(INCOMING, id));
            !listed.contains_key(&mark(REMOVED, id)) && (is_whole || !is_coming)
        });
        ids
    }

    /// Whether somebody removed a snapshot, here or elsewhere.
    pub(super) fn is_removed(&self, id: &SnapshotId) -> bool {
        self.listed().contains_key(&mark(REMOVED, id))
    }

    /// Sends a file, and remembers that it stands there.
    pub(super) async fn send(&self, path: &str, file: &Path) -> Result<(), Error> {
        let entry = self.bucket.send(path, file).await?;
        self.listed().insert(path.to_owned(), entry);
        Ok(())
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Error> {
        self.bucket.remove(path).await?;
        self.listed().remove(path);
        Ok(())
    }

    pub(super) async fn remove_all(&self, paths: Vec<String>) -> Result<(), Error> {
        let removals = paths.iter().map(|path| self.remove(path));
        stream::iter(removals).buffer_unordered(TRANSFERS).try_collect().await
    }

    /// Writes a mark, which is there or not; what is in it is for people.
    pub(super) async fn mark(&self, path: &str, at: Timestamp) -> Result<(), Error> {
        let bytes = serde_json::json!({ "at": at }).to_string();
        let size = bytes.len() as u64;
        self.bucket.write(path, &bytes.into(), Condition::Always).await?;
        let entry = Entry { size, etag: String::new(), modified: i64::MAX };
        self.listed().insert(path.to_owned(), entry);
        Ok(())
    }
}

/// The mark of a snapshot.
pub(super) fn mark(folder: &str, id: &SnapshotId) -> String {
    format!("{folder}/{id}.json")
}

/// Who asks for a lock.
#[derive(Clone, Debug)]
pub struct Asking {
    /// The machine's name.
    pub host: String,
    /// The run.
    pub run: String,
    /// The clock of this machine.
    pub clock: fn() -> Timestamp,
}

/// What became of the wish for the bucket's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// There is no bucket, and the folder's own lock is enough.
    Alone,
    /// It is held.
    Held {
        /// The dead run that held it before.
        before: Option<Holder>,
        /// Whether the service keeps two from holding it.
        is_exclusive: bool,
    },
    /// Another run holds it.
    By(Box<Holder>),
}

impl Store {
    /// Lets the store stand in a bucket too; nothing is asked of it yet.
    pub async fn join(mut self, location: &Location) -> Result<Self, Error> {
        let folder = self.root.file_name().map(|name| name.to_string_lossy().into_owned());
        let bucket = Bucket::open(location, &folder.unwrap_or_default()).await?;
        let known = read_known(&self.root, bucket.name())?;
        self.shared = Some(Arc::new(Shared {
            bucket,
            reads_back: location.reads_back,
            listed: Mutex::default(),
            objects: OnceCell::new(),
            proved: Mutex::default(),
            known: Mutex::new(known),
            leases: tokio::sync::Mutex::default(),
        }));
        Ok(self)
    }

    /// The address of the bucket, when there is one.
    pub fn bucket_name(&self) -> Option<&str> {
        self.shared.as_ref().map(|shared| shared.bucket.name())
    }

    /// Takes a lock in the bucket. The caller holds the lock of the same name in the folder: a dead
    /// run of this folder is known by it.
    pub async fn lock_shared(&self, name: &str, asking: &Asking) -> Result<Locked, Error> {
        let Some(shared) = &self.shared else { return Ok(Locked::Alone) };
        let now = (asking.clock)();
        let holder = Holder {
            host: asking.host.clone(),
            pid: std::process::id(),
            run: asking.run.clone(),
            since: now,
            machine: shared.known().machine.clone(),
            nonce: hex::encode(disk::random::<12>()?),
            renewed: now,
        };
        let path = format!("locks/{name}");
        match Lease::take(&shared.bucket, &path, holder, asking.clock).await? {
            Taken::By(holder) => Ok(Locked::By(holder)),
            Taken::Held(lease, before) => {
                let is_exclusive = lease.is_exclusive;
                shared.leases.lock().await.push(*lease);
                Ok(Locked::Held { before, is_exclusive })
            }
        }
    }

    /// Lets the locks in the bucket go.
    pub async fn unlock_shared(&self) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let leases = std::mem::take(&mut *shared.leases.lock().await);
        for lease in leases {
            lease.release().await?;
        }
        Ok(())
    }

    /// Fails when a lock in the bucket was lost meanwhile.
    pub(super) async fn still_locked(&self) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        for lease in &*shared.leases.lock().await {
            if !lease.is_held().await? {
                return Err(Error::LockLost(shared.bucket.name().to_owned()));
            }
        }
        Ok(())
    }

    /// Lists what stands in the bucket, and brings what is small and absent here: manifests, proofs,
    /// rehearsals, runs, pins, confirmations.
    pub async fn pull(&self) -> Result<(), Error> {
        let Some(shared) = self.shared.clone() else { return Ok(()) };
        let mut listed = shared.bucket.list_after(AFTER_OBJECTS).await?;
        listed.extend(shared.bucket.list(&format!("{INCOMING}/")).await?);
        *shared.listed() = listed;
        self.forget_pins(&shared)?;
        let wanted: Vec<String> = shared.listed().keys().filter(|path| is_pulled(path)).cloned().collect();
        let root = &self.root;
        let shared = &shared;
        let one = |path: String| async move {
            let file = local(root, &path)?;
            if path.ends_with(FILE) {
                if !file.exists() {
                    shared.bucket.receive(&path, &file, None).await?;
                }
                return Ok::<_, Error>(());
            }
            let entry = shared.listed().get(&path).cloned();
            let Some(entry) = entry else { return Ok(()) };
            if shared.newer(&path, &file, &entry)? == Newer::There {
                shared.bucket.receive(&path, &file, None).await?;
                shared.same(&path, disk::sha256_file(&file)?.0);
            }
            Ok(())
        };
        let work = wanted.into_iter().filter(|path| Self::is_wanted(shared, path)).map(one);
        stream::iter(work).buffer_unordered(2 * TRANSFERS).try_collect::<()>().await?;
        let ids = shared.ids();
        shared.known().snapshots.extend(ids);
        self.save_known(shared)
    }

    /// Nothing is brought of a snapshot that somebody removed, or whose upload has not ended.
    fn is_wanted(shared: &Shared, path: &str) -> bool {
        let id = path.strip_prefix("snapshots/").and_then(|rest| rest.split_once('/')?.0.parse().ok());
        let Some(id): Option<SnapshotId> = id else { return true };
        !shared.is_removed(&id) && shared.listed().contains_key(&format!("{SNAPSHOTS}/{id}/{FILE}"))
    }

    /// Pins that were here and there, and are no longer there: somebody else unpinned.
    fn forget_pins(&self, shared: &Shared) -> Result<(), Error> {
        let is_gone = |path: &&String| path.starts_with("pins/") && !shared.listed().contains_key(*path);
        let gone: Vec<String> = shared.known().records.keys().filter(is_gone).cloned().collect();
        for path in gone {
            match fs::remove_file(local(&self.root, &path)?) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => drop(shared.known().records.remove(&path)),
            }
        }
        Ok(())
    }

    pub(super) fn save_known(&self, shared: &Shared) -> Result<(), Error> {
        let known = shared.known().clone();
        Ok(disk::write_json(&self.root.join(KNOWN), &known)?)
    }
}

impl Shared {
    /// Which side of a record is the newer one. What was the same at the end of an earlier run tells
    /// on which side it changed since; when it changed on both, a record that only grows is the longer
    /// one, and of any other the later one counts.
    fn newer(&self, path: &str, file: &Path, there: &Entry) -> Result<Newer, Error> {
        let meta = match fs::metadata(file) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Newer::There),
            Err(error) => return Err(error.into()),
        };
        let (sha256, size) = disk::sha256_file(file)?;
        let before = self.known().records.get(path).cloned();
        let same_here = before.as_ref().is_some_and(|same| same.sha256 == sha256);
        let kept_there = before.as_ref().is_some_and(|same| same.etag == there.etag);
        Ok(match (same_here, kept_there) {
            (true, true) => Newer::Neither,
            (true, false) => Newer::There,
            (false, true) => Newer::Here,
            (false, false)
                if Path::new(path).extension().is_some_and(|kind| kind == "jsonl") && size != there.size =>
            {
                if size > there.size {
                    Newer::Here
                } else {
                    Newer::There
                }
            }
            (false, false) => {
                let modified = meta.modified()?.duration_since(SystemTime::UNIX_EPOCH);
                let here = modified.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
                if here > there.modified { Newer::Here } else { Newer::There }
            }
        })
    }

    /// Whether a record here is not what stands there.
    pub(super) fn is_newer_here(&self, path: &str, file: &Path) -> Result<bool, Error> {
        let Some(there) = self.listed().get(path).cloned() else { return Ok(true) };
        Ok(self.newer(path, file, &there)? == Newer::Here)
    }

    /// Notes that a record has these bytes here and there.
    pub(super) fn same(&self, path: &str, sha256: String) {
        if let Some(etag) = self.listed().get(path).map(|entry| entry.etag.clone()) {
            self.known().records.insert(path.to_owned(), Same { etag, sha256 });
        }
    }

    /// Notes that a record is gone on both sides.
    pub(super) fn forget(&self, path: &str) {
        self.known().records.remove(path);
    }
}

fn read_known(root: &Path, bucket: &str) -> Result<Known, Error> {
    let file = root.join(KNOWN);
    let found: Option<Known> = match fs::read(&file) {
        Ok(bytes) => Some(
            serde_json::from_slice(&bytes)
                .map_err(|source| Error::Unreadable { path: file.clone(), source })?,
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(known) = found.filter(|known| known.bucket == bucket) {
        return Ok(known);
    }
    let machine = hex::encode(disk::random::<12>()?);
    let known = Known { bucket: bucket.to_owned(), machine, ..Known::default() };
    disk::write_json(&file, &known)?;
    Ok(known)
}

/// Whether something is brought here before anybody asks for it.
fn is_pulled(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [SNAPSHOTS, id, FILE] | [SNAPSHOTS, id, "proofs", _] => id.parse::<SnapshotId>().is_ok(),
        ["rehearsals" | "runs" | "pins", _] | [super::CONFIRMED] => true,
        ["rollbacks", _, rest @ ..] => rest.join("/") == SALVAGED,
        _ => false,
    }
}

/// The file of a path in the bucket. Names there are foreign text: none leads out of the folder.
pub(super) fn local(root: &Path, path: &str) -> Result<PathBuf, Error> {
    let is_name = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.split('/').all(is_name) { Ok(root.join(path)) } else { Err(Error::StrangePath(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_in_the_bucket_leads_out_of_the_folder() {
        let root = Path::new("/state/t");
        let read = |path: &str| local(root, path).ok();
        assert_eq!(read("snapshots/x/config/a b.toml"), Some(root.join("snapshots/x/config/a b.toml")));
        for path in ["../x", "runs/../../x", "/etc/passwd", "runs//x", "runs/./x", "", "runs/a\0b"] {
            assert_eq!(read(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_small_is_brought_before_it_is_asked_for() {
        let id = "20270115T080000Z-000001";
        for path in ["manifest.json", "proofs/1-decoded.json"] {
            assert!(is_pulled(&format!("snapshots/{id}/{path}")), "{path}");
        }
        for path in
            ["runs/1.jsonl", "pins/x.json", "secrets-confirmed.json", "rollbacks/1/salvage/index.jsonl"]
        {
            assert!(is_pulled(path), "{path}");
        }
        for path in ["snapshots/x/manifest.json", "rollbacks/1/saved/rows", "locks/run", "removed/x.json"] {
            assert!(!is_pulled(path), "{path}");
        }
        assert!(!is_pulled(&format!("snapshots/{id}/database/archive/toc.dat")));
    }
}
