//! What is kept by a person's word, and how things go: by rename first, so that nothing that is half
//! gone looks whole.

use super::{Error, PARTIAL, ROLLBACKS, Store};
use crate::disk::{self, Lock};
use crate::manifest::SnapshotId;
use crate::manifest::storage::{INDEX, Line, Object, SALVAGED};
use crate::proc;
use fs_err as fs;
use jiff::Timestamp;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const REMOVING: &str = ".removing";
/// Objects younger than this may belong to a snapshot that is not listed yet.
const YOUNG: Duration = Duration::from_hours(24);

/// An object file that no snapshot names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    pub(super) path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

impl Store {
    /// Takes the lock that keeps pinning and pruning apart; `None` when another run holds it.
    pub fn lock_retention(&self) -> Result<Option<Lock>, Error> {
        Ok(Lock::take(&self.root.join("locks").join("retention"))?)
    }

    /// Pins a snapshot; false when it was pinned already. The caller holds the lock.
    pub fn pin(&self, id: &SnapshotId, at: Timestamp) -> Result<bool, Error> {
        if !self.dir(id).exists() {
            return Err(Error::Unknown(id.clone()));
        }
        let file = self.pin_file(id);
        if file.exists() {
            return Ok(false);
        }
        disk::make_private_dir(&self.root.join("pins"))?;
        disk::write_json(&file, &json!({ "pinned_at": at }))?;
        Ok(true)
    }

    /// Unpins a snapshot; false when it was not pinned.
    pub fn unpin(&self, id: &SnapshotId) -> Result<bool, Error> {
        match fs::remove_file(self.pin_file(id)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.dir(id).exists() => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Unknown(id.clone())),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a snapshot is pinned.
    pub fn is_pinned(&self, id: &SnapshotId) -> bool {
        self.pin_file(id).exists()
    }

    fn pin_file(&self, id: &SnapshotId) -> PathBuf {
        self.root.join("pins").join(format!("{id}.json"))
    }

    /// Removes a snapshot; the caller holds the lock of the target.
    pub fn remove(&self, id: &SnapshotId) -> Result<(), Error> {
        let going = self.root.join("snapshots").join(format!("{id}{REMOVING}"));
        disk::publish_dir(&self.dir(id), &going)?;
        Ok(fs::remove_dir_all(going)?)
    }

    /// Finishes removals of runs that died; the caller holds the lock. Returns the names.
    pub fn finish_removals(&self) -> Result<Vec<String>, Error> {
        let mut finished = Vec::new();
        for entry in fs::read_dir(self.root.join("snapshots"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(id) = name.strip_suffix(REMOVING) {
                fs::remove_dir_all(entry.path())?;
                finished.push(id.to_owned());
            }
        }
        Ok(finished)
    }

    /// Removes the files that rollbacks which died were just writing, and which hold rows that nobody knows of;
    /// the caller holds the lock. Returns their names.
    pub fn sweep_rollbacks(&self) -> Result<Vec<String>, Error> {
        let files = self.cut_short()?;
        for file in &files {
            fs::remove_file(self.root.join(file))?;
        }
        Ok(files.into_iter().map(|file| file.display().to_string()).collect())
    }

    fn cut_short(&self) -> io::Result<Vec<PathBuf>> {
        let rollbacks = self.root.join(ROLLBACKS);
        if !rollbacks.exists() {
            return Ok(Vec::new());
        }
        let files = disk::unnamed_below(&rollbacks)?.into_iter();
        Ok(files.map(|file| Path::new(ROLLBACKS).join(file)).collect())
    }

    /// What dead runs have left, by name; nothing while a run is going on.
    pub fn leftovers(&self) -> Vec<String> {
        let holder = self.lock_holder().and_then(|process| process.trim().parse().ok());
        if holder.is_some_and(proc::is_alive) {
            return Vec::new();
        }
        let names = fs::read_dir(self.root.join("snapshots")).into_iter().flatten();
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter(|name| name.ends_with(PARTIAL) || name.ends_with(REMOVING));
        let cut_short = self.cut_short().unwrap_or_default().into_iter();
        names.chain(cut_short.map(|file| file.display().to_string())).collect()
    }

    /// Object files that no index names and that are older than a day; the caller holds the lock.
    ///
    /// An index that is not what its manifest says names nobody knows what: that is an error, and
    /// nothing may go.
    pub fn unnamed_objects(
        &self,
        now: Timestamp,
        without: &BTreeSet<SnapshotId>,
    ) -> Result<Vec<Unnamed>, Error> {
        let objects = self.root.join("objects");
        if !objects.exists() {
            return Ok(Vec::new());
        }
        let named = self.named_objects(without)?;
        let mut unnamed = Vec::new();
        for file in disk::files_below(&objects)? {
            let path = objects.join(&file);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let meta = fs::symlink_metadata(&path)?;
            let is_old = SystemTime::from(now).duration_since(meta.modified()?).is_ok_and(|age| age > YOUNG);
            if is_object(&file, name) && is_old && !named.contains(name) {
                unnamed.push(Unnamed { bytes: meta.len(), path });
            }
        }
        Ok(unnamed)
    }

    /// Removes object files.
    pub fn remove_objects(&self, objects: &[Unnamed]) -> Result<(), Error> {
        for object in objects {
            fs::remove_file(&object.path)?;
        }
        Ok(())
    }

    /// Digests that the snapshots, drafts, and rollbacks name, but for some that are about to go.
    pub(super) fn named_objects(&self, without: &BTreeSet<SnapshotId>) -> Result<BTreeSet<String>, Error> {
        let mut named = BTreeSet::new();
        for entry in fs::read_dir(self.root.join("snapshots"))? {
            let dir = entry?.path();
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.parse::<SnapshotId>().ok();
            if name.ends_with(REMOVING) || id.as_ref().is_some_and(|id| without.contains(id)) {
                continue;
            }
            if let Some(id) = &id {
                self.check_index(id)?;
            }
            read_index(&dir.join(INDEX), &mut named)?;
        }
        let rollbacks = self.root.join(ROLLBACKS);
        if rollbacks.exists() {
            for entry in fs::read_dir(rollbacks)? {
                read_index(&entry?.path().join(SALVAGED), &mut named)?;
            }
        }
        Ok(named)
    }

    /// Compares a snapshot's index with its manifest.
    fn check_index(&self, id: &SnapshotId) -> Result<(), Error> {
        let snapshot = self.load(id)?;
        let Some(file) = snapshot.manifest.files.iter().find(|file| file.path == INDEX) else {
            return Ok(());
        };
        let path = snapshot.dir.join(INDEX);
        match disk::sha256_file(&path) {
            Ok((sha256, _)) if sha256 == file.sha256 => Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            Ok(_) | Err(_) => Err(Error::Index(path)),
        }
    }
}

/// Adds what an index names; a draft has none before its turn comes.
fn read_index(path: &Path, named: &mut BTreeSet<String>) -> Result<(), Error> {
    each_object(path, |object| named.extend(object.sha256))
}

/// Adds the digests and the lengths of the objects that an index names.
pub(super) fn read_sizes(path: &Path, named: &mut BTreeMap<String, u64>) -> Result<(), Error> {
    each_object(path, |object| named.extend(object.sha256.zip(object.size)))
}

fn each_object(path: &Path, mut take: impl FnMut(Object)) -> Result<(), Error> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for line in io::BufReader::new(file).lines() {
        let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
        match serde_json::from_str(&line?).map_err(unreadable)? {
            Line::Object(object) => take(*object),
            Line::Bucket(_) => {}
        }
    }
    Ok(())
}

/// Whether a path below `objects` is one of an object, or was set aside: `ab/abcd…`, and the same with
/// `.damaged` after it, which no index names.
pub(super) fn is_object(file: &Path, name: &str) -> bool {
    let name = name.strip_suffix(".damaged").unwrap_or(name);
    let is_digest = name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digest && file.parent() == name.get(..2).map(Path::new)
}
