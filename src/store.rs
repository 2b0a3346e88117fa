//! The place of one target's snapshots, proofs, rehearsals, and runs in a local folder.
//!
//! A snapshot is built under `<id>.partial` and renamed when its manifest is in it, so a folder
//! without that suffix is whole. Only this module knows the layout.

mod bucket;
mod copy;
mod lease;
mod objects;
mod removal;
mod share;
mod shared;

pub use bucket::{Address, BadAddress, Bucket, Location};
pub use copy::Depth;
pub use lease::Holder;
pub use objects::{Incoming, Objects};
pub use removal::Unnamed;
pub use share::{Kept, Uploaded};
pub use shared::{Asking, Locked};

use crate::disk;
use crate::inventory::Confirmed;
use crate::manifest::storage::INDEX;
use crate::manifest::{BadId, Damage, FILE, FORMAT, Manifest, Proof, SnapshotId, Strength};
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::Shared;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PARTIAL: &str = ".partial";
/// Folder of a draft for what does not last.
const SCRATCH: &str = "scratch";
/// What a person confirmed of the secrets.
const CONFIRMED: &str = "secrets-confirmed.json";
const OBJECTS: &str = "objects";
const ROLLBACKS: &str = "rollbacks";
/// How the name of a record of damage ends, beside the proofs.
const DAMAGED: &str = "-damaged.json";

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot use the state folder")]
    Io(#[from] io::Error),
    /// A record is not what this program writes.
    #[error("`{path}` cannot be read", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The folder has lost its manifest.
    #[error("`{path}` is not there", path = .0.display())]
    NoManifest(PathBuf),
    /// An index is not the one that the manifest tells of.
    #[error("`{path}` is not the one that its manifest tells of", path = .0.display())]
    Index(PathBuf),
    /// The manifest is of another format.
    #[error("`{path}` has format {found}; this program reads format {FORMAT}", path = .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The bucket could not be used.
    #[error("cannot use the store `{name}`")]
    Bucket {
        /// Its address.
        name: String,
        /// Why.
        #[source]
        source: Box<crate::objects::Error>,
    },
    /// Something stands where the lock is.
    #[error("`{0}` is no lock that this program wrote")]
    StrangeLock(String),
    /// Another run took the lock.
    #[error("the lock of the store `{0}` was lost to another run, which took this one for dead")]
    LockLost(String),
    /// A name in the bucket that leads elsewhere.
    #[error("the store holds a file with the name `{}`, which is none of its own", .0.escape_debug())]
    StrangePath(String),
    /// What was read back is not what was sent.
    #[error("`{path}` was sent to the store `{name}`, and other bytes came back")]
    Altered {
        /// The address.
        name: String,
        /// The file.
        path: String,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot `{0}` of this target")]
    Unknown(SnapshotId),
    /// The text is not a snapshot id.
    #[error(transparent)]
    Id(#[from] BadId),
}

impl Error {
    /// What is wrong with the evidence itself, in words; `None` when something else failed.
    pub fn damage(&self) -> Option<String> {
        match self {
            Self::Unreadable { source, .. } => Some(format!("{self} ({source})")),
            Self::NoManifest(_) | Self::Index(_) | Self::Format { .. } => Some(self.to_string()),
            Self::Io(_)
            | Self::Bucket { .. }
            | Self::StrangeLock(_)
            | Self::LockLost(_)
            | Self::StrangePath(_)
            | Self::Altered { .. }
            | Self::Unknown(_)
            | Self::Id(_) => None,
        }
    }
}

/// The file of a confirmation.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmedSecrets {
    format: u32,
    confirmed: Vec<Confirmed>,
}

/// One target's folder.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    shared: Option<Arc<Shared>>,
}

/// A snapshot on disk.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its folder.
    pub dir: PathBuf,
    /// Its record.
    pub manifest: Manifest,
    /// SHA-256 of the record.
    pub manifest_sha256: String,
}

impl Snapshot {
    /// Its name.
    pub fn id(&self) -> &SnapshotId {
        &self.manifest.id
    }

    /// The dump's folder.
    pub fn archive(&self) -> PathBuf {
        self.dir.join("database").join("archive")
    }

    /// The index of Storage, when it was captured.
    pub fn storage_index(&self) -> PathBuf {
        self.dir.join(INDEX)
    }

    /// A file of the database component.
    pub fn database_file(&self, name: &str) -> PathBuf {
        self.dir.join("database").join(name)
    }
}

/// The proofs of a snapshot, judged against its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The best proof's strength.
    pub strength: Strength,
    /// Proofs that do not fit the manifest, in words.
    pub broken: Vec<String>,
    /// What the last verification found damaged, when no proof was made since.
    pub damage: Vec<String>,
    /// What the best proof leaves open.
    pub limits: Vec<String>,
}

/// A snapshot's folder while it is being filled; dropping it before it is published removes it.
#[derive(Debug)]
pub struct Draft {
    /// Its name.
    pub id: SnapshotId,
    /// Its folder.
    pub dir: PathBuf,
    published: bool,
}

impl Draft {
    /// A folder for what is not part of the snapshot; gone before it is published.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.dir.join(SCRATCH).join(name)
    }

    /// Removes all scratch folders.
    pub fn clear_scratch(&self) -> Result<(), Error> {
        let dir = self.dir.join(SCRATCH);
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // What cannot be removed now is removed by the next run's sweep.
            drop(fs::remove_dir_all(&self.dir));
        }
    }
}

impl Store {
    /// Opens the folder of a target below the state folder, making it when needed.
    pub fn open(state_dir: &Path, target_folder: &str) -> Result<Self, Error> {
        let root = state_dir.join(target_folder);
        for folder in ["snapshots", "rehearsals", "runs", "locks"] {
            disk::make_private_dir(&root.join(folder))?;
        }
        Ok(Self { root, shared: None })
    }

    /// The folder of a target that has been worked on; nothing is made.
    pub fn existing(state_dir: &Path, target_folder: &str) -> Option<Self> {
        let root = state_dir.join(target_folder);
        root.join("snapshots").is_dir().then_some(Self { root, shared: None })
    }

    /// The target's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock of this target; `None` when another run holds it.
    pub fn lock(&self) -> Result<Option<disk::Lock>, Error> {
        Ok(disk::Lock::take(&self.root.join("locks").join("run"))?)
    }

    /// Process id of the run that holds the lock, as far as it is known.
    pub fn lock_holder(&self) -> Option<String> {
        let process = fs::read_to_string(self.root.join("locks").join("run")).ok()?;
        // It has the lock before it writes its number.
        Some(process).filter(|process| !process.is_empty())
    }

    /// Names of the snapshots, newest first.
    pub fn ids(&self) -> Result<Vec<SnapshotId>, Error> {
        let mut ids: Vec<SnapshotId> = Vec::new();
        for entry in fs::read_dir(self.root.join("snapshots"))? {
            ids.extend(entry?.file_name().to_string_lossy().parse::<SnapshotId>());
        }
        if let Some(shared) = &self.shared {
            // One whose manifest is lost there is a snapshot too, and a damaged one.
            ids.retain(|id| !shared.is_removed(id));
            let there = shared.ids();
            ids.extend(there.into_iter().filter(|id| !self.dir(id).exists()));
        }
        ids.sort_unstable_by(|left, right| right.cmp(left));
        Ok(ids)
    }

    /// The folder of a snapshot.
    pub fn dir(&self, id: &SnapshotId) -> PathBuf {
        self.root.join("snapshots").join(id.as_str())
    }

    /// Reads a snapshot's record.
    pub fn load(&self, id: &SnapshotId) -> Result<Snapshot, Error> {
        let dir = self.dir(id);
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() && !self.is_there(id) => {
                return Err(Error::Unknown(id.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoManifest(path)),
            Err(error) => return Err(error.into()),
        };
        let unreadable = |source| Error::Unreadable { path: path.clone(), source };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let format = u32::try_from(format).unwrap_or(u32::MAX);
        if format != FORMAT {
            return Err(Error::Format { path, found: format });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(unreadable)?;
        Ok(Snapshot { manifest_sha256: disk::sha256(&bytes), dir, manifest })
    }

    /// The target that a snapshot is of, when it stands beside the snapshots of this one.
    pub fn elsewhere(&self, id: &SnapshotId) -> Option<String> {
        let beside = fs::read_dir(self.root.parent()?).ok()?;
        let mut roots = beside.filter_map(|entry| Some(entry.ok()?.path())).filter(|root| *root != self.root);
        let snapshot = roots.find_map(|root| Self { root, shared: None }.load(id).ok())?;
        Some(snapshot.manifest.identity.name)
    }

    /// Begins a snapshot.
    pub fn begin(&self, id: SnapshotId) -> Result<Draft, Error> {
        let dir = self.root.join("snapshots").join(format!("{id}{PARTIAL}"));
        for folder in ["database", "proofs", "logs"] {
            disk::make_private_dir(&dir.join(folder))?;
        }
        Ok(Draft { id, dir, published: false })
    }

    /// Writes the manifest into a draft whose files are all written, and gives it its name.
    pub fn publish(&self, mut draft: Draft, manifest: &Manifest) -> Result<Snapshot, Error> {
        disk::sync_tree(&draft.dir)?;
        disk::write_json(&draft.dir.join(FILE), manifest)?;
        disk::publish_dir(&draft.dir, &self.dir(&draft.id))?;
        draft.published = true;
        self.load(&draft.id)
    }

    /// Removes drafts of runs that died; the caller holds the lock. Returns their names.
    pub fn sweep(&self) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(self.root.join("snapshots"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(PARTIAL) {
                fs::remove_dir_all(entry.path())?;
                removed.push(name);
            }
        }
        Objects::sweep(&self.root.join(OBJECTS))?;
        let frozen = self.root.join("frozen");
        if frozen.exists() {
            fs::remove_dir_all(frozen)?;
        }
        Ok(removed)
    }

    /// The folder for a run's frozen copy of the project.
    pub fn frozen_dir(&self, run: &str) -> PathBuf {
        self.root.join("frozen").join(run)
    }

    /// Removes a run's frozen copy.
    pub fn remove_frozen(&self, run: &str) -> Result<(), Error> {
        let dir = self.frozen_dir(run);
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        Ok(())
    }

    /// Adds a proof to a snapshot.
    pub fn add_proof(&self, snapshot: &Snapshot, proof: &Proof) -> Result<(), Error> {
        let dir = snapshot.dir.join("proofs");
        disk::make_private_dir(&dir)?;
        let name = format!("{}-{}.json", proof.proved_at.strftime("%Y%m%dT%H%M%S%6fZ"), proof.strength);
        Ok(disk::write_json(&dir.join(name), proof)?)
    }

    /// Records what a verification found damaged.
    pub fn add_damage(&self, snapshot: &Snapshot, damage: &Damage) -> Result<(), Error> {
        let dir = snapshot.dir.join("proofs");
        disk::make_private_dir(&dir)?;
        let name = format!("{}{DAMAGED}", damage.found_at.strftime("%Y%m%dT%H%M%S%6fZ"));
        Ok(disk::write_json(&dir.join(name), damage)?)
    }

    /// The snapshots whose restore stands for this one, by its proofs.
    pub fn successor_of(&self, snapshot: &Snapshot) -> Result<Vec<SnapshotId>, Error> {
        let dir = snapshot.dir.join("proofs");
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut bases = Vec::new();
        for file in disk::files_below(&dir)? {
            let proof = serde_json::from_slice::<Proof>(&fs::read(dir.join(file))?);
            bases.extend(proof.ok().and_then(|proof| proof.successor_of));
        }
        Ok(bases)
    }

    /// The standing of a snapshot by its proofs. A proof of another manifest counts for nothing
    /// and is named: manifests never change, so one of the two was altered.
    pub fn standing(&self, snapshot: &Snapshot) -> Result<Standing, Error> {
        let mut standing = Standing {
            strength: Strength::Recorded,
            broken: Vec::new(),
            damage: Vec::new(),
            limits: Vec::new(),
        };
        let dir = snapshot.dir.join("proofs");
        if !dir.exists() {
            return Ok(standing);
        }
        // Names begin with the time, so that a later proof takes earlier damage back.
        for file in disk::files_below(&dir)? {
            let name = file.display().to_string();
            let bytes = fs::read(dir.join(&file))?;
            if name.ends_with(DAMAGED) {
                match serde_json::from_slice::<Damage>(&bytes) {
                    Ok(damage) => standing.damage = damage.what,
                    Err(error) => standing.broken.push(format!("proofs/{name} cannot be read ({error})")),
                }
                continue;
            }
            match serde_json::from_slice::<Proof>(&bytes) {
                Err(error) => standing.broken.push(format!("proofs/{name} cannot be read ({error})")),
                Ok(proof) if proof.manifest_sha256 != snapshot.manifest_sha256 => {
                    standing.broken.push(format!("{FILE} is not the one that proofs/{name} is about"));
                }
                Ok(proof) => {
                    standing.damage.clear();
                    if proof.strength >= standing.strength {
                        standing.strength = proof.strength;
                        standing.limits = proof.limits;
                    }
                }
            }
        }
        Ok(standing)
    }

    /// Which secrets a person confirmed, with their digests then.
    pub fn confirmed_secrets(&self) -> Result<Vec<Confirmed>, Error> {
        let path = self.root.join(CONFIRMED);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let record: ConfirmedSecrets = serde_json::from_slice(&bytes)
            .map_err(|source| Error::Unreadable { path: path.clone(), source })?;
        if record.format != FORMAT {
            return Err(Error::Format { path, found: record.format });
        }
        Ok(record.confirmed)
    }

    /// Records a confirmation of the secrets; the last one holds.
    pub fn confirm_secrets(&self, confirmed: Vec<Confirmed>) -> Result<(), Error> {
        let record = ConfirmedSecrets { format: FORMAT, confirmed };
        Ok(disk::write_json(&self.root.join(CONFIRMED), &record)?)
    }

    /// The bytes of Storage's objects.
    pub fn objects(&self) -> Result<Objects, Error> {
        Ok(Objects::open(self.root.join(OBJECTS))?)
    }

    /// The index of Storage in the newest snapshot that has one.
    pub fn newest_storage_index(&self) -> Result<Option<PathBuf>, Error> {
        let indexes = self.ids()?.into_iter().map(|id| self.dir(&id).join(INDEX));
        Ok(indexes.into_iter().find(|index| index.exists()))
    }

    /// The record of a run.
    pub fn run_file(&self, run: &str) -> PathBuf {
        self.root.join("runs").join(format!("{run}.jsonl"))
    }

    /// The record of the newest run before the given one that holds an event of one of these types,
    /// as lines of JSON, with its name.
    pub fn last_run_with(
        &self,
        types: &[&str],
        run: &str,
    ) -> Result<Option<(String, Vec<serde_json::Value>)>, Error> {
        for name in self.runs()?.into_iter().rev() {
            if name.as_str() >= run {
                continue;
            }
            let lines = self.run_lines(&name)?;
            if lines.iter().any(|line| types.iter().any(|name| line["type"] == *name)) {
                return Ok(Some((name, lines)));
            }
        }
        Ok(None)
    }

    /// Names of the runs, oldest first.
    pub fn runs(&self) -> Result<Vec<String>, Error> {
        let files = disk::files_below(&self.root.join("runs"))?;
        // What else stands there is nobody's record.
        let name = |file: PathBuf| Some(file.to_str()?.strip_suffix(".jsonl")?.to_owned());
        Ok(files.into_iter().filter_map(name).collect())
    }

    /// The records of all runs before the given one, the newest first.
    pub fn earlier_runs(&self, run: &str) -> Result<Vec<(String, Vec<serde_json::Value>)>, Error> {
        let names = self.runs()?.into_iter().rev().filter(|name| name.as_str() < run);
        names.map(|name| Ok((name.clone(), self.run_lines(&name)?))).collect()
    }

    /// Where a rollback keeps what was written since its snapshot.
    pub fn rollback_dir(&self, run: &str) -> PathBuf {
        self.root.join(ROLLBACKS).join(run)
    }

    /// The record of a run as lines of JSON. The last line of a run that died may be cut short, and
    /// does not count.
    pub fn run_lines(&self, run: &str) -> Result<Vec<serde_json::Value>, Error> {
        let bytes = fs::read(self.run_file(run))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The bytes of every rehearsal's record.
    pub fn rehearsals(&self) -> Result<Vec<Vec<u8>>, Error> {
        let dir = self.root.join("rehearsals");
        let read = |file: PathBuf| fs::read(dir.join(file));
        Ok(disk::files_below(&dir)?.into_iter().map(read).collect::<Result<_, _>>()?)
    }

    /// The file of a rehearsal.
    pub fn rehearsal_file(&self, key: &str) -> PathBuf {
        self.root.join("rehearsals").join(format!("{key}.json"))
    }
}

/// A name for a run that sorts by time.
pub fn run_name(at: Timestamp, pid: u32) -> String {
    format!("{}-{pid}", at.strftime("%Y%m%dT%H%M%S%6fZ"))
}
