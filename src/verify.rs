//! Reads evidence back and proves it: digests from disk, the archive decoded with every row, every
//! table of the manifest in its table of contents, every object of Storage with its bytes.

mod storage;

use crate::archive::{self, Contents, Counts, RowCounter};
use crate::context::Context;
use crate::disk;
use crate::event::{Event, Stage};
use crate::manifest::{FileDigest, Proof, SnapshotId, Strength};
use crate::proc;
use crate::store::{self, Snapshot, Standing};
use crate::tools::installs::{self, Installation};
use crate::tools::pg_restore;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use storage::Look;

/// Why a snapshot could not be proved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The evidence is not what was captured.
    #[error("snapshot {id} is damaged: {}", .what.join("; "))]
    Damaged {
        /// The snapshot.
        id: SnapshotId,
        /// What is wrong with it.
        what: Vec<String>,
    },
    /// The archive could not be decoded.
    #[error("the archive of snapshot {id} cannot be decoded")]
    Undecodable {
        /// The snapshot.
        id: SnapshotId,
        /// Why.
        #[source]
        source: proc::Error,
    },
    /// The archive's table of contents was not understood.
    #[error("the archive's table of contents cannot be read")]
    Contents(#[from] archive::Error),
    /// No fitting client programs.
    #[error(transparent)]
    Installs(#[from] installs::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read or written.
    #[error("cannot read the snapshot")]
    Io(#[from] io::Error),
}

/// A snapshot that was proved in this run, and how far.
#[derive(Clone, Debug)]
pub struct Verified {
    snapshot: Snapshot,
    strength: Strength,
}

impl Verified {
    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// How far it was proved.
    pub fn strength(&self) -> Strength {
        self.strength
    }

    /// Records a proof that goes further, and stands by it.
    pub(crate) fn strengthen(
        mut self,
        context: &Context,
        strength: Strength,
        successor_of: Option<SnapshotId>,
        limits: Vec<String>,
    ) -> Result<Self, store::Error> {
        record(context, &self.snapshot, Stronger { strength, successor_of, limits })?;
        self.strength = self.strength.max(strength);
        Ok(self)
    }
}

struct Stronger {
    strength: Strength,
    successor_of: Option<SnapshotId>,
    limits: Vec<String>,
}

fn record(context: &Context, snapshot: &Snapshot, proof: Stronger) -> Result<(), store::Error> {
    let Stronger { strength, successor_of, limits } = proof;
    let proof = Proof {
        manifest_sha256: snapshot.manifest_sha256.clone(),
        strength,
        proved_at: (context.clock)(),
        successor_of,
        limits,
    };
    context.store.add_proof(snapshot, &proof)?;
    context.tell(&Event::SnapshotProved { snapshot: snapshot.id().clone(), strength });
    Ok(())
}

/// What a snapshot on disk is worth now: its standing, with every file of its own read back. Of the
/// bytes of Storage, which may be many times as much, presence and length are looked at.
pub async fn inspect(context: &Context, snapshot: &Snapshot) -> Result<Standing, Error> {
    look(context, snapshot, Look::Length).await
}

async fn look(context: &Context, snapshot: &Snapshot, look: Look) -> Result<Standing, Error> {
    let mut standing = context.store.standing(snapshot)?;
    standing.broken.extend(damage(snapshot).await?);
    // An index that is not the one of its digest is no guide to anything.
    if let Some(counts) = snapshot.manifest.storage.filter(|_| standing.broken.is_empty()) {
        let (index, objects) = (snapshot.storage_index(), context.store.objects()?);
        let found = tokio::task::spawn_blocking(move || storage::damage(&index, counts, &objects, look))
            .await
            .map_err(io::Error::other)??;
        standing.broken.extend(found);
    }
    Ok(standing)
}

/// Proves a snapshot to [`Strength::Decoded`], and keeps the better strength that it had before.
pub async fn verify(snapshot: Snapshot, context: &Context) -> Result<Verified, Error> {
    let watch = context.stage(Stage::Verify, format!("read snapshot {} back", snapshot.id()));
    let installation =
        installs::client_for(snapshot.manifest.server.major(), &context.machine.installations)?;
    let (standing, counts) =
        tokio::try_join!(look(context, &snapshot, Look::Digest), decode(&snapshot, installation))?;
    let mut broken = standing.broken;
    broken.extend(missing_tables(&snapshot)?);
    broken.extend(wrong_counts(&snapshot, &counts));
    if !broken.is_empty() {
        return Err(Error::Damaged { id: snapshot.id().clone(), what: broken });
    }
    let strength = standing.strength.max(Strength::Decoded);
    record(context, &snapshot, Stronger { strength, successor_of: None, limits: standing.limits })?;
    let objects = snapshot.manifest.storage.map_or_else(String::new, |counts| {
        format!(", {} objects of Storage have their bytes", counts.ok + counts.placeholders)
    });
    watch.done(format!(
        "{} files match their digests, the archive decodes with every row{objects}",
        snapshot.manifest.files.len()
    ));
    Ok(Verified { snapshot, strength })
}

/// Accepts a snapshot by an earlier proof; its files are read back and compared with their digests.
pub async fn accept(snapshot: Snapshot, context: &Context) -> Result<Verified, Error> {
    let standing = inspect(context, &snapshot).await?;
    if !standing.broken.is_empty() {
        return Err(Error::Damaged { id: snapshot.id().clone(), what: standing.broken });
    }
    Ok(Verified { snapshot, strength: standing.strength })
}

/// Files that are missing, altered, or too many.
async fn damage(snapshot: &Snapshot) -> Result<Vec<String>, Error> {
    let (dir, files) = (snapshot.dir.clone(), snapshot.manifest.files.clone());
    let found = tokio::task::spawn_blocking(move || altered(&dir, &files)).await.map_err(io::Error::other)?;
    Ok(found)
}

fn altered(dir: &Path, files: &[FileDigest]) -> Vec<String> {
    let check = |(file, digest): (&FileDigest, io::Result<(String, u64)>)| match digest {
        Err(error) => Some(format!("{} cannot be read ({})", file.path, error.kind())),
        Ok((_, bytes)) if bytes != file.bytes => {
            Some(format!("{} has {bytes} bytes instead of {}", file.path, file.bytes))
        }
        Ok((sha256, _)) if sha256 != file.sha256 => Some(format!("{} has another SHA-256", file.path)),
        Ok(_) => None,
    };
    let paths: Vec<PathBuf> = files.iter().map(|file| dir.join(&file.path)).collect();
    files.iter().zip(disk::sha256_files(&paths)).filter_map(check).collect()
}

/// Decodes the rows of the archive to their end, in two halves side by side, and counts them. The
/// rest of an archive is its table of contents, which `pg_restore` reads whole each time.
async fn decode(snapshot: &Snapshot, installation: &Installation) -> Result<Counts, Error> {
    let archive = snapshot.archive();
    let failed = |source| Error::Undecodable { id: snapshot.id().clone(), source };
    let listed = pg_restore::list(installation, &archive).run().await.map_err(failed)?;
    let lists = Contents::parse(&listed.stdout)?.halves(|entry| file_bytes(&archive, entry.dump_id));
    let folder = tempfile::tempdir()?;
    let half = async |name: &str, list: &str| {
        let path: PathBuf = folder.path().join(name);
        disk::write(&path, list.as_bytes())?;
        let counter = Arc::new(Mutex::new(RowCounter::default()));
        let counting = Arc::clone(&counter);
        pg_restore::decode_rows(installation, &archive, &path)
            .on_bytes(move |bytes| counting.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes))
            .run()
            .await
            .map_err(failed)?;
        let counts = counter.lock().unwrap_or_else(PoisonError::into_inner).counts().clone();
        Ok::<Counts, Error>(counts)
    };
    let [left, right] = &lists;
    let (mut counts, more) = tokio::try_join!(half("left", left), half("right", right))?;
    counts.extend(more);
    Ok(counts)
}

/// Tables of which the archive holds other numbers of rows than were counted in its snapshot.
///
/// Of an extension's tables it may hold a part: what the extension marks as the user's.
fn wrong_counts(snapshot: &Snapshot, counts: &Counts) -> Vec<String> {
    let tables = snapshot.manifest.database.tables.iter().filter(|table| table.extension.is_none());
    tables
        .filter_map(|table| {
            let found = counts.get(&(table.schema.clone(), table.name.clone()))?;
            (*found != table.count).then(|| {
                format!(
                    "the archive holds {found} rows of table {} instead of {}",
                    table.qualified(),
                    table.count
                )
            })
        })
        .collect()
}

/// Bytes of an entry's file in a directory archive, whatever its compression; 0 when it has none.
fn file_bytes(archive: &Path, dump_id: u32) -> u64 {
    ["", ".gz", ".lz4", ".zst"]
        .iter()
        .filter_map(|suffix| fs_err::metadata(archive.join(format!("{dump_id}.dat{suffix}"))).ok())
        .map(|meta| meta.len())
        .sum()
}

/// Tables of the manifest that the archive's table of contents lacks.
fn missing_tables(snapshot: &Snapshot) -> Result<Vec<String>, Error> {
    let listed = fs_err::read_to_string(snapshot.database_file("contents.txt"))?;
    let contents = Contents::parse(&listed)?;
    let held = contents.names_with_data();
    Ok(snapshot
        .manifest
        .database
        .tables
        .iter()
        .filter(|table| table.extension.is_none())
        .filter(|table| {
            !held.contains(format!("{} {}", table.schema, table.name).replace(['\n', '\r'], " ").as_str())
        })
        .map(|table| format!("the archive has no rows of table {}", table.qualified()))
        .collect())
}
