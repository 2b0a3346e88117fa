//! The copy in the bucket of what a snapshot names: brings back what this machine lacks, says what is
//! not there as it was sent, and takes away what dead runs left or `prune` decided on.

use super::removal::{Unnamed, is_object, read_sizes};
use super::share::object_path;
use super::shared::{INCOMING, REMOVED, SNAPSHOTS, Shared, TRANSFERS, local, mark};
use super::{Error, OBJECTS, Snapshot, Store};
use crate::disk;
use crate::manifest::storage::INDEX;
use crate::manifest::{FILE, FileDigest, SnapshotId};
use crate::objects;
use fs_err as fs;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

/// Objects younger than this may belong to a snapshot that is not listed yet, as in the folder.
const YOUNG: i64 = 24 * 3600;

/// How closely the copy in the bucket is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// By its listing.
    Listing,
    /// By reading it.
    Bytes,
}

/// A file of a snapshot, or an object that it names.
struct Part {
    path: String,
    /// What people know it by.
    name: String,
    is: FileDigest,
}

impl Store {
    /// Whether something of a snapshot stands in the bucket.
    pub(super) fn is_there(&self, id: &SnapshotId) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.ids().contains(id))
    }

    /// The length of a file of a snapshot, here or in the bucket.
    pub fn length(&self, snapshot: &Snapshot, file: &str) -> Option<u64> {
        let here = fs::metadata(snapshot.dir.join(file)).ok().map(|meta| meta.len());
        let path = format!("{SNAPSHOTS}/{}/{file}", snapshot.id());
        here.or_else(|| self.shared.as_ref()?.listed().get(&path).map(|entry| entry.size))
    }

    /// Brings the files of a snapshot here that are not, and nothing that is not as it was sent.
    /// Says what could not be brought.
    pub async fn fetch(&self, snapshot: &Snapshot) -> Result<Vec<String>, Error> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let is_absent = |part: &Part| {
            let meta = fs::metadata(self.root.join(&part.path));
            meta.is_err() && shared.listed().contains_key(&part.path)
        };
        let parts: Vec<Part> = files(snapshot).into_iter().filter(is_absent).collect();
        self.fetch_notes(shared, snapshot).await?;
        self.bring(shared, parts).await
    }

    /// Runbook, sums, and logs: nothing depends on them.
    async fn fetch_notes(&self, shared: &Shared, snapshot: &Snapshot) -> Result<(), Error> {
        let folder = format!("{SNAPSHOTS}/{}/", snapshot.id());
        let evidence: BTreeSet<String> = files(snapshot).into_iter().map(|part| part.path).collect();
        for path in shared.paths_below(&folder) {
            let file = local(&self.root, &path)?;
            if !evidence.contains(&path) && !file.exists() {
                shared.bucket.receive(&path, &file, None).await?;
                shared.same(&path, disk::sha256_file(&file)?.0);
            }
        }
        Ok(())
    }

    /// Brings the objects here that an index names.
    pub async fn fetch_objects(&self, index: &Path) -> Result<Vec<String>, Error> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let here = self.objects()?;
        let parts = objects_of(index)?.into_iter().filter(|part| !here.holds(&part.is.sha256, part.is.bytes));
        self.bring(shared, parts.collect()).await
    }

    /// Brings what a rollback kept.
    pub async fn fetch_rollback(&self, run: &str) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        for path in shared.paths_below(&format!("rollbacks/{run}/")) {
            let file = local(&self.root, &path)?;
            if !file.exists() {
                shared.bucket.receive(&path, &file, None).await?;
                shared.same(&path, disk::sha256_file(&file)?.0);
            }
        }
        let index = self.rollback_dir(run).join(crate::manifest::storage::SALVAGED);
        if index.exists() { self.fetch_objects(&index).await.map(drop) } else { Ok(()) }
    }

    /// Brings the indexes of all snapshots, which tell what objects are needed.
    pub async fn fetch_indexes(&self) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let mut parts = Vec::new();
        for id in self.ids()? {
            let Ok(snapshot) = self.load(&id) else { continue };
            parts.extend(
                files(&snapshot)
                    .into_iter()
                    .filter(|part| part.name == INDEX && !self.root.join(&part.path).exists()),
            );
        }
        self.bring(shared, parts).await.map(drop)
    }

    async fn bring(&self, shared: &Shared, parts: Vec<Part>) -> Result<Vec<String>, Error> {
        let one = |part: Part| async move {
            let file = local(&self.root, &part.path)?;
            match shared.bucket.receive(&part.path, &file, Some(&part.is)).await {
                Ok(true) => Ok(None),
                Ok(false) => Ok(Some(altered(shared, &part))),
                Err(error) if is_lost(&error) => Ok(Some(lost(shared, &part))),
                Err(error) => Err(error),
            }
        };
        let brought = stream::iter(parts.into_iter().map(one)).buffer_unordered(TRANSFERS);
        let brought: Vec<Option<String>> = brought.try_collect().await?;
        Ok(brought.into_iter().flatten().collect())
    }

    /// What of a snapshot does not stand in the bucket as it was sent, in words that name it. What
    /// this run read back after it was sent is not read again.
    pub async fn examine(&self, snapshot: &Snapshot, depth: Depth) -> Result<Vec<String>, Error> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let mut parts = files(snapshot);
        let bytes = fs::metadata(snapshot.dir.join(FILE))?.len();
        let path = format!("{SNAPSHOTS}/{}/{FILE}", snapshot.id());
        let is = FileDigest { path: path.clone(), sha256: snapshot.manifest_sha256.clone(), bytes };
        parts.push(Part { path, name: FILE.to_owned(), is });
        let index = snapshot.storage_index();
        if snapshot.manifest.storage.is_some() && index.exists() {
            shared.list_objects().await?;
            parts.extend(objects_of(&index)?);
        }
        let (there, not_there): (Vec<Part>, Vec<Part>) =
            parts.into_iter().partition(|part| shared.has(&part.path, part.is.bytes));
        let is_listed = |path: &str| shared.listed().contains_key(path);
        let mut found: Vec<String> = not_there
            .iter()
            .map(|part| if is_listed(&part.path) { altered(shared, part) } else { lost(shared, part) })
            .collect();
        if depth == Depth::Listing {
            return Ok(found);
        }
        let is_proved =
            |path: &str| shared.proved.lock().unwrap_or_else(PoisonError::into_inner).contains(path);
        let one = |part: Part| async move {
            Ok::<_, Error>(match shared.bucket.digest(&part.path).await? {
                None => Some(lost(shared, &part)),
                Some((sha256, bytes)) if sha256 == part.is.sha256 && bytes == part.is.bytes => None,
                Some(_) => Some(altered(shared, &part)),
            })
        };
        let work = there.into_iter().filter(|part| !is_proved(&part.path)).map(one);
        let read: Vec<Option<String>> = stream::iter(work).buffer_unordered(TRANSFERS).try_collect().await?;
        found.extend(read.into_iter().flatten());
        Ok(found)
    }

    /// Whether the bucket holds every object that an index names, in its length.
    pub fn has_objects_there(&self, index: &Path) -> Result<bool, Error> {
        let Some(shared) = &self.shared else { return Ok(false) };
        Ok(objects_of(index)?.iter().all(|part| shared.has(&part.path, part.is.bytes)))
    }

    /// Lists the objects of the bucket, for [`Store::has_objects_there`] and the like.
    pub async fn list_objects(&self) -> Result<(), Error> {
        match &self.shared {
            Some(shared) => shared.list_objects().await,
            None => Ok(()),
        }
    }

    /// Takes away what dead runs left in the bucket, and here what others removed there; the caller
    /// holds the lock. Says what it was.
    pub async fn clear_up(&self) -> Result<Vec<String>, Error> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        let cut_off = shared.bucket.end_unfinished().await?;
        if cut_off > 0 {
            notes.push(format!("ended {cut_off} uploads in parts that dead runs had begun"));
        }
        for id in marked(shared, REMOVED) {
            shared.remove_all(shared.paths_below(&format!("{SNAPSHOTS}/{id}/"))).await?;
            if self.dir(&id).exists() {
                self.remove(&id)?;
                notes.push(format!("removed snapshot {id} here: it was removed from the store"));
            }
        }
        for id in marked(shared, INCOMING) {
            let paths = shared.paths_below(&format!("{SNAPSHOTS}/{id}/"));
            let is_whole = paths.iter().any(|path| path.ends_with(&format!("/{id}/{FILE}")));
            if !is_whole && self.dir(&id).exists() {
                // The upload goes on from here.
                notes.push(format!("the upload of snapshot {id} was cut off; it goes on"));
                continue;
            }
            if !is_whole {
                shared.remove_all(paths).await?;
                notes.push(format!(
                    "removed the beginning of snapshot {id} from the store: the run that uploaded it died"
                ));
            }
            shared.remove(&mark(INCOMING, &id)).await?;
        }
        Ok(notes)
    }

    /// Removes a snapshot from the bucket, so that no half of it looks whole: its mark first, then its
    /// manifest. The caller holds the lock.
    pub async fn remove_there(&self, id: &SnapshotId, now: Timestamp) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        self.still_locked().await?;
        let folder = format!("{SNAPSHOTS}/{id}/");
        let paths = shared.paths_below(&folder);
        if paths.is_empty() {
            return Ok(());
        }
        shared.mark(&mark(REMOVED, id), now).await?;
        shared.remove(&format!("{folder}{FILE}")).await?;
        shared.remove_all(paths).await
    }

    /// Removes a record from the bucket.
    pub(super) async fn remove_record(&self, path: &str) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        shared.remove(path).await?;
        shared.forget(path);
        self.save_known(shared)
    }

    /// Unpins a snapshot in the bucket.
    pub async fn unpin_there(&self, id: &SnapshotId) -> Result<(), Error> {
        self.remove_record(&format!("pins/{id}.json")).await
    }

    /// Objects in the bucket that no index names and that are older than a day, and their bytes; the
    /// caller holds the lock and has the indexes here.
    pub async fn unnamed_there(
        &self,
        now: Timestamp,
        without: &BTreeSet<SnapshotId>,
    ) -> Result<Vec<Unnamed>, Error> {
        let Some(shared) = &self.shared else { return Ok(Vec::new()) };
        shared.list_objects().await?;
        // Nobody knows what a snapshot names whose manifest is lost.
        let is_known = |id: &SnapshotId| without.contains(id) || self.dir(id).join(FILE).exists();
        if let Some(id) = shared.ids().into_iter().find(|id| !is_known(id)) {
            return Err(Error::NoManifest(self.dir(&id).join(FILE)));
        }
        let named = self.named_objects(without)?;
        let mut unnamed = Vec::new();
        for path in shared.paths_below(&format!("{OBJECTS}/")) {
            let file = Path::new(path.strip_prefix("objects/").unwrap_or_default());
            let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(entry) = shared.listed().get(&path).cloned() else { continue };
            let is_old = now.as_second().saturating_sub(entry.modified) > YOUNG;
            if is_object(file, name) && is_old && !named.contains(name) {
                unnamed.push(Unnamed { path: path.into(), bytes: entry.size });
            }
        }
        Ok(unnamed)
    }

    /// Removes objects from the bucket.
    pub async fn remove_objects_there(&self, objects: &[Unnamed]) -> Result<(), Error> {
        let Some(shared) = &self.shared else { return Ok(()) };
        self.still_locked().await?;
        shared.remove_all(objects.iter().map(|object| object.path.display().to_string()).collect()).await
    }
}

fn marked(shared: &Shared, folder: &str) -> Vec<SnapshotId> {
    let paths = shared.paths_below(&format!("{folder}/")).into_iter();
    paths.filter_map(|path| path.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()).collect()
}

/// The files that a manifest names.
fn files(snapshot: &Snapshot) -> Vec<Part> {
    let part = |file: &FileDigest| Part {
        path: format!("{SNAPSHOTS}/{}/{}", snapshot.id(), file.path),
        name: file.path.clone(),
        is: file.clone(),
    };
    snapshot.manifest.files.iter().map(part).collect()
}

/// The objects that an index names, each once.
fn objects_of(index: &Path) -> Result<Vec<Part>, Error> {
    let mut named = BTreeMap::new();
    read_sizes(index, &mut named)?;
    let part = |(sha256, bytes): (String, u64)| {
        let path = object_path(&sha256);
        Part { name: path.clone(), is: FileDigest { path: path.clone(), sha256, bytes }, path }
    };
    Ok(named.into_iter().map(part).collect())
}

fn lost(shared: &Shared, part: &Part) -> String {
    format!("{} is not in the store `{}`", part.name, shared.bucket.name())
}

fn altered(shared: &Shared, part: &Part) -> String {
    format!("{} has other bytes in the store `{}`", part.name, shared.bucket.name())
}

fn is_lost(error: &Error) -> bool {
    let Error::Bucket { source, .. } = error else { return false };
    matches!(**source, objects::Error::NotFound { .. } | objects::Error::NoBytes { .. })
}
