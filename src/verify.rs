//! Reads evidence back and proves it: digests from disk, the archive decoded with every row, every
//! table of the manifest in its table of contents, every object of Storage with its bytes.

mod storage;

use crate::archive::{self, Contents, RowsByTable};
use crate::context::Context;
use crate::decode;
use crate::disk;
use crate::event::{Event, Stage};
use crate::evidence::{self, Collected};
use crate::manifest::storage::Object;
use crate::manifest::{Damage, FileDigest, Proof, SnapshotId, Strength};
use crate::store::{self, Depth, Snapshot, Standing, Store};
use crate::tools::installs;
use std::io;
use std::path::{Path, PathBuf};
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
        source: decode::Error,
    },
    /// The archive's table of contents was not understood.
    #[error("the archive's table of contents cannot be read")]
    Contents(#[from] archive::Error),
    /// No fitting client programs.
    #[error(transparent)]
    Installs(#[from] installs::Error),
    /// Bytes of Storage could not be fetched again.
    #[error("cannot fetch bytes of Storage again")]
    Storage(#[from] evidence::storage::Error),
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
    let mut standing = look(context, snapshot, Look::Length).await?;
    take_damage(&mut standing);
    Ok(standing)
}

/// What shows of a snapshot without reading it: its standing, and files that are not there or have
/// another length.
pub fn glance(store: &Store, snapshot: &Snapshot) -> Result<Standing, Error> {
    let mut standing = store.standing(snapshot)?;
    take_damage(&mut standing);
    let wrong = |file: &&FileDigest| store.length(snapshot, &file.path) != Some(file.bytes);
    let lost = snapshot.manifest.files.iter().filter(wrong);
    standing.broken.extend(lost.map(|file| format!("{} is not there as it was written", file.path)));
    Ok(standing)
}

/// Whether every object that a snapshot's index names is there in its length.
pub fn has_objects(store: &Store, snapshot: &Snapshot) -> Result<bool, Error> {
    let Some(counts) = snapshot.manifest.storage else { return Ok(true) };
    if store.has_objects_there(&snapshot.storage_index())? {
        return Ok(true);
    }
    let lost = storage::damage(&snapshot.storage_index(), counts, &store.objects()?, Look::Length)?;
    Ok(lost.is_empty())
}

/// What an earlier verification found holds as long as no later one found it well.
fn take_damage(standing: &mut Standing) {
    let found = std::mem::take(&mut standing.damage);
    standing.broken.extend(found.into_iter().map(|what| format!("{what}, as an earlier verification found")));
}

async fn look(context: &Context, snapshot: &Snapshot, look: Look) -> Result<Standing, Error> {
    let store = &context.store;
    let lost = Box::pin(store.fetch(snapshot)).await?;
    let mut standing = store.standing(snapshot)?;
    standing.broken.extend(damage(snapshot).await?);
    // An index that is not the one of its digest is no guide to anything.
    if let Some(counts) = snapshot.manifest.storage.filter(|_| standing.broken.is_empty()) {
        let (index, objects) = (snapshot.storage_index(), store.objects()?);
        Box::pin(store.fetch_objects(&index)).await?;
        let found = tokio::task::spawn_blocking(move || storage::damage(&index, counts, &objects, look))
            .await
            .map_err(io::Error::other)??;
        standing.broken.extend(found);
    }
    let depth = if look == Look::Digest { Depth::Bytes } else { Depth::Listing };
    standing.broken.extend(Box::pin(store.examine(snapshot, depth)).await?);
    standing.broken.extend(lost);
    standing.broken.dedup();
    Ok(standing)
}

/// Proves a snapshot to [`Strength::Decoded`], and keeps the better strength that it had before.
pub async fn verify(snapshot: Snapshot, context: &Context) -> Result<Verified, Error> {
    let watch = context.stage(Stage::Verify, format!("read snapshot {} back", snapshot.id()));
    let proved = read_back(snapshot.clone(), context).await;
    let verified = recorded(proved, &snapshot, context)?;
    watch.done(decoded_in_words(verified.snapshot()));
    Ok(verified)
}

async fn read_back(snapshot: Snapshot, context: &Context) -> Result<Verified, Error> {
    let installation =
        installs::client_for(snapshot.manifest.server.major(), &context.machine.installations)?;
    let lost = Box::pin(context.store.fetch(&snapshot)).await?;
    if !lost.is_empty() {
        return Err(Error::Damaged { id: snapshot.id().clone(), what: lost });
    }
    let archive = snapshot.archive();
    let decoding = async {
        let undecodable = |source| Error::Undecodable { id: snapshot.id().clone(), source };
        decode::decode(&archive, installation).await.map_err(undecodable)
    };
    let (standing, rows) = tokio::try_join!(look(context, &snapshot, Look::Digest), decoding)?;
    prove(snapshot, context, standing, &rows)
}

/// Writes down what was found damaged, for whoever looks at the snapshot later.
fn recorded(
    proved: Result<Verified, Error>,
    snapshot: &Snapshot,
    context: &Context,
) -> Result<Verified, Error> {
    let what = match &proved {
        Err(Error::Damaged { what, .. }) => what.clone(),
        Err(error @ Error::Undecodable { .. }) => vec![error.to_string()],
        Ok(_) | Err(_) => return proved,
    };
    context.store.add_damage(snapshot, &Damage { found_at: (context.clock)(), what })?;
    proved
}

/// The same for a snapshot that was collected a moment ago: what was decoded then is taken, once
/// the files are read back and are still those. Bytes of Storage that the store had from before and
/// that are damaged are fetched again, since the server still has them.
pub async fn verify_collected(collected: Collected, context: &Context) -> Result<Verified, Error> {
    let Collected { snapshot, rows } = collected;
    let watch = context.stage(Stage::Verify, format!("read snapshot {} back", snapshot.id()));
    let mut standing = look(context, &snapshot, Look::Digest).await?;
    if !standing.broken.is_empty() {
        let came_back = evidence::storage::fetch_again(context, &snapshot).await?;
        if came_back > 0 {
            context.warn(fetched_in_words(came_back));
            standing = look(context, &snapshot, Look::Digest).await?;
        }
    }
    let verified = recorded(prove(snapshot.clone(), context, standing, &rows), &snapshot, context)?;
    watch.done(decoded_in_words(verified.snapshot()));
    Ok(verified)
}

fn fetched_in_words(count: u64) -> String {
    let files = if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    format!(
        "{files} of Storage's bytes had changed on this disk since an earlier snapshot, and came anew from the \
         server; what was found stays beside, as `.damaged`"
    )
}

fn decoded_in_words(snapshot: &Snapshot) -> String {
    let objects = snapshot.manifest.storage.map_or_else(String::new, |counts| {
        format!(", {} objects of Storage have their bytes", counts.ok + counts.placeholders)
    });
    format!(
        "{} files match their digests, the archive decodes with every row{objects}",
        snapshot.manifest.files.len()
    )
}

fn prove(
    snapshot: Snapshot,
    context: &Context,
    standing: Standing,
    rows: &RowsByTable,
) -> Result<Verified, Error> {
    let mut broken = standing.broken;
    broken.extend(missing_tables(&snapshot)?);
    broken.extend(wrong_rows(&snapshot, rows));
    if !broken.is_empty() {
        return Err(Error::Damaged { id: snapshot.id().clone(), what: broken });
    }
    let strength = standing.strength.max(Strength::Decoded);
    record(context, &snapshot, Stronger { strength, successor_of: None, limits: standing.limits })?;
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

/// Demands that the bytes of these objects of an accepted snapshot, of which only the length was looked at, are
/// what they were.
pub async fn demand_bytes(context: &Context, base: &Verified, objects: Vec<Object>) -> Result<(), Error> {
    let kept = context.store.objects()?;
    let altered = tokio::task::spawn_blocking(move || storage::altered(&objects, &kept));
    let what = altered.await.map_err(io::Error::other)?;
    if what.is_empty() { Ok(()) } else { Err(Error::Damaged { id: base.snapshot().id().clone(), what }) }
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

/// Tables of which the archive holds other rows than the snapshot had.
///
/// Of an extension's tables it may hold a part: what the extension marks as the user's.
fn wrong_rows(snapshot: &Snapshot, rows: &RowsByTable) -> Vec<String> {
    let tables = snapshot.manifest.database.tables.iter().filter(|table| table.extension.is_none());
    tables
        .filter_map(|table| {
            let found = rows.get(&(table.schema.clone(), table.name.clone()))?;
            if found.count != table.count {
                return Some(format!(
                    "the archive holds {} rows of table {} instead of {}",
                    found.count,
                    table.qualified(),
                    table.count
                ));
            }
            let is_other = table.is_hashed_in_archive && found.content() != table.content;
            is_other.then(|| format!("the archive holds other rows of table {}", table.qualified()))
        })
        .collect()
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
