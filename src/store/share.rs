//! Brings what this machine wrote into the bucket: objects first, the manifest of a snapshot last, so
//! that no half snapshot there looks whole. [`Kept`] is the proof that it stands there.

use super::bucket::Bucket;
use super::shared::{INCOMING, SNAPSHOTS, Shared, TRANSFERS, local, mark};
use super::{Error, OBJECTS, ROLLBACKS, Snapshot, Store};
use crate::disk;
use crate::manifest::storage::SALVAGED;
use crate::manifest::{FILE, FileDigest, SnapshotId};
use fs_err as fs;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::PoisonError;

/// The evidence stands where the policy wants it: in the folder alone, or in the bucket too.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Snapshots in the bucket; `None` without one.
    snapshots: Option<BTreeSet<SnapshotId>>,
    /// What was uploaded for it.
    pub uploaded: Uploaded,
}

impl Kept {
    /// Whether a snapshot is where it has to be.
    pub fn has(&self, id: &SnapshotId) -> bool {
        self.snapshots.as_ref().is_none_or(|there| there.contains(id))
    }
}

/// How much was uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uploaded {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Something to upload.
struct Item {
    path: String,
    file: PathBuf,
    /// What it must be; records may be anything.
    is: Option<FileDigest>,
}

impl Store {
    /// Uploads whatever is not in the bucket yet; what stands there afterwards was confirmed.
    pub async fn share(&self, now: Timestamp) -> Result<Kept, Error> {
        let mut uploaded = Uploaded::default();
        let Some(shared) = self.shared.clone() else { return Ok(Kept { snapshots: None, uploaded }) };
        for id in self.ids()? {
            if let Some(snapshot) = self.is_to_share(&shared, &id)? {
                self.send_snapshot(&shared, &snapshot, now, &mut uploaded).await?;
            }
        }
        let kept = self.share_records().await?;
        uploaded.files += kept.uploaded.files;
        uploaded.bytes += kept.uploaded.bytes;
        Ok(Kept { uploaded, ..kept })
    }

    /// Uploads what is no part of a snapshot, and what rollbacks saved.
    pub async fn share_records(&self) -> Result<Kept, Error> {
        let mut uploaded = Uploaded::default();
        let Some(shared) = self.shared.clone() else { return Ok(Kept { snapshots: None, uploaded }) };
        self.send_salvaged(&shared, &mut uploaded).await?;
        self.send_records(&shared, &mut uploaded).await?;
        self.still_locked().await?;
        let ids = shared.ids();
        let is_whole = |id: &SnapshotId| shared.listed().contains_key(&format!("{SNAPSHOTS}/{id}/{FILE}"));
        let snapshots = ids.into_iter().filter(is_whole).collect();
        Ok(Kept { snapshots: Some(snapshots), uploaded })
    }

    /// Uploads the record of one run, which is short, as far as it has come.
    pub async fn share_run(&self, run: &str) -> Result<(), Error> {
        let Some(shared) = self.shared.clone() else { return Ok(()) };
        let path = format!("runs/{run}.jsonl");
        let file = local(&self.root, &path)?;
        let sha256 = disk::sha256_file(&file)?.0;
        shared.send(&path, &file).await?;
        shared.same(&path, sha256);
        self.still_locked().await?;
        self.save_known(&shared)
    }

    /// A snapshot that is whole here and never was in the bucket. One that was and is not any more
    /// was lost there, and a later verification is to say so.
    fn is_to_share(&self, shared: &Shared, id: &SnapshotId) -> Result<Option<Snapshot>, Error> {
        let listed = |path: &str| shared.listed().contains_key(path);
        let is_there = listed(&format!("{SNAPSHOTS}/{id}/{FILE}")) || shared.is_removed(id);
        if is_there || shared.known().snapshots.contains(id) {
            return Ok(None);
        }
        let snapshot = match self.load(id) {
            Ok(snapshot) => snapshot,
            Err(error) if error.damage().is_some() => return Ok(None),
            Err(error) => return Err(error),
        };
        let stands = |file: &FileDigest| {
            fs::metadata(snapshot.dir.join(&file.path)).is_ok_and(|meta| meta.len() == file.bytes)
        };
        Ok(snapshot.manifest.files.iter().all(stands).then_some(snapshot))
    }

    async fn send_snapshot(
        &self,
        shared: &Shared,
        snapshot: &Snapshot,
        now: Timestamp,
        uploaded: &mut Uploaded,
    ) -> Result<(), Error> {
        let id = snapshot.id();
        shared.mark(&mark(INCOMING, id), now).await?;
        shared.list_objects().await?;
        let objects = self.objects_to_send(shared, &snapshot.storage_index())?;
        send_all(shared, objects, uploaded).await?;
        let files = snapshot.manifest.files.iter().map(|file| {
            let path = format!("{SNAPSHOTS}/{id}/{}", file.path);
            Ok(Item { file: local(&self.root, &path)?, path, is: Some(file.clone()) })
        });
        send_all(shared, files.collect::<Result<_, Error>>()?, uploaded).await?;
        let path = format!("{SNAPSHOTS}/{id}/{FILE}");
        let file = snapshot.dir.join(FILE);
        let bytes = fs::metadata(&file)?.len();
        let is = FileDigest { path: path.clone(), sha256: snapshot.manifest_sha256.clone(), bytes };
        send_all(shared, vec![Item { path, file, is: Some(is) }], uploaded).await?;
        shared.remove(&mark(INCOMING, id)).await?;
        shared.known().snapshots.insert(id.clone());
        self.save_known(shared)
    }

    /// Objects of an index that the bucket does not hold.
    fn objects_to_send(&self, shared: &Shared, index: &std::path::Path) -> Result<Vec<Item>, Error> {
        let mut named = BTreeMap::new();
        super::removal::read_sizes(index, &mut named)?;
        let objects = self.objects()?;
        let to_send = named.into_iter().filter_map(|(sha256, bytes)| {
            let path = object_path(&sha256);
            let file = objects.path(&sha256);
            let is_missing = !shared.has(&path, bytes) && file.exists();
            is_missing.then(|| Item {
                file,
                is: Some(FileDigest { path: path.clone(), sha256, bytes }),
                path,
            })
        });
        Ok(to_send.collect())
    }

    /// What rollbacks saved of Storage.
    async fn send_salvaged(&self, shared: &Shared, uploaded: &mut Uploaded) -> Result<(), Error> {
        let rollbacks = self.root.join(ROLLBACKS);
        if !rollbacks.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(rollbacks)? {
            let index = entry?.path().join(SALVAGED);
            if index.exists() {
                shared.list_objects().await?;
                send_all(shared, self.objects_to_send(shared, &index)?, uploaded).await?;
            }
        }
        Ok(())
    }

    /// Everything that is no part of a manifest and may be written later than it.
    async fn send_records(&self, shared: &Shared, uploaded: &mut Uploaded) -> Result<(), Error> {
        let mut items = Vec::new();
        for path in self.records(shared)? {
            let file = local(&self.root, &path)?;
            if shared.is_newer_here(&path, &file)? {
                items.push(Item { path, file, is: None });
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        // Taken before they are sent: a record that grows meanwhile is sent once more.
        let digest = |item: &Item| Ok((item.path.clone(), disk::sha256_file(&item.file)?.0));
        let sent: Vec<(String, String)> = items.iter().map(digest).collect::<Result<_, Error>>()?;
        send_all(shared, items, uploaded).await?;
        for (path, sha256) in sent {
            shared.same(&path, sha256);
        }
        self.save_known(shared)
    }

    fn records(&self, shared: &Shared) -> Result<Vec<String>, Error> {
        let mut records = Vec::new();
        for folder in ["rehearsals", "runs", "pins", ROLLBACKS] {
            let dir = self.root.join(folder);
            if dir.exists() {
                let files = disk::files_below(&dir)?.into_iter();
                records.extend(files.map(|file| format!("{folder}/{}", file.display())));
            }
        }
        if self.root.join(super::CONFIRMED).exists() {
            records.push(super::CONFIRMED.to_owned());
        }
        for id in shared.ids() {
            let dir = self.dir(&id);
            let Ok(snapshot) = self.load(&id) else { continue };
            let evidence: BTreeSet<&str> =
                snapshot.manifest.files.iter().map(|file| file.path.as_str()).collect();
            let files = disk::files_below(&dir)?.into_iter().map(|file| file.display().to_string());
            let files = files.filter(|file| file != FILE && !evidence.contains(file.as_str()));
            records.extend(files.map(|file| format!("{SNAPSHOTS}/{id}/{file}")));
        }
        Ok(records)
    }
}

/// The path of an object.
pub(super) fn object_path(sha256: &str) -> String {
    format!("{OBJECTS}/{}/{sha256}", sha256.get(..2).unwrap_or_default())
}

/// Sends files, a few at a time, and reads those back whose digests are known.
async fn send_all(shared: &Shared, items: Vec<Item>, uploaded: &mut Uploaded) -> Result<(), Error> {
    let one = |item: Item| async move {
        let bytes = fs::metadata(&item.file)?.len();
        shared.send(&item.path, &item.file).await?;
        if let Some(is) = item.is.filter(|_| shared.reads_back) {
            read_back(&shared.bucket, &item.path, &is).await?;
            shared.proved.lock().unwrap_or_else(PoisonError::into_inner).insert(item.path);
        }
        Ok::<_, Error>(bytes)
    };
    let sent: Vec<u64> =
        stream::iter(items.into_iter().map(one)).buffer_unordered(TRANSFERS).try_collect().await?;
    uploaded.files += sent.len() as u64;
    uploaded.bytes += sent.iter().sum::<u64>();
    Ok(())
}

async fn read_back(bucket: &Bucket, path: &str, is: &FileDigest) -> Result<(), Error> {
    match bucket.digest(path).await? {
        Some((sha256, bytes)) if sha256 == is.sha256 && bytes == is.bytes => Ok(()),
        Some(_) | None => Err(Error::Altered { name: bucket.name().to_owned(), path: path.to_owned() }),
    }
}
