//! Captures the components of a target into a snapshot, and writes the manifest last.

pub mod database;
pub mod estimate;
mod point;
pub mod storage;

use crate::context::Context;
use crate::disk;
use crate::event::{Event, Stage};
use crate::manifest::{
    Component, ComponentName, ComponentState, FORMAT, FileDigest, Manifest, SUMS_FILE, SnapshotId,
};
use crate::store::{self, Draft, Snapshot};
use crate::target::Target;
use std::io;
use std::path::{Path, PathBuf};
use storage::Storage;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be captured.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// Storage could not be captured.
    #[error("cannot capture Storage")]
    Storage(#[from] storage::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file could not be read or written.
    #[error("cannot write the snapshot")]
    Io(#[from] io::Error),
}

/// Takes a snapshot of the target.
pub async fn collect(target: &Target, context: &Context, label: Option<String>) -> Result<Snapshot, Error> {
    let watch = context.stage(Stage::Collect, format!("take a snapshot of {}", target.name()));
    let local_clock = (context.clock)();
    let draft = context.store.begin(SnapshotId::new(local_clock, u32::from_le_bytes(disk::random()?)))?;
    let storage = Storage::prepare(target, context, &draft).await?;
    let captured = database::capture(target, context, &draft, storage.as_ref()).await?;
    let files = digests(&draft).await?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let mut limits = captured.limits;
    let mut components = ComponentName::ALL.map(Component::not_applicable).to_vec();
    let mut storage_counts = None;
    match captured.storage {
        None => limits.push(
            "Storage, Functions, secrets, and configuration are not part of a target given by URL".to_owned(),
        ),
        Some(storage) => {
            limits.push(
                "Functions, secrets, and configuration are not part of a target given by URL".to_owned(),
            );
            limits.extend(storage.limits);
            storage_counts = storage.counts;
            components.retain(|component| component.name != ComponentName::Storage);
            components.insert(0, storage.component);
        }
    }
    let manifest = Manifest {
        format: FORMAT,
        id: draft.id.clone(),
        label,
        identity: target.identity.clone(),
        server: target.server.clone(),
        taken: captured.taken,
        tools: captured.tools,
        database: captured.database,
        components,
        storage: storage_counts,
        files,
        limits,
    };
    let snapshot = context.store.publish(draft, &manifest)?;
    if let Some(storage) = storage.filter(|_| manifest.storage.is_some()) {
        storage.finish()?;
    }
    let rows: u64 = manifest.database.tables.iter().map(|table| table.count).sum();
    let complete = manifest.components.iter().filter(|one| one.state == ComponentState::Complete);
    let beside: Vec<String> = complete.map(|one| format!("; {}: {}", one.name, one.summary)).collect();
    watch.done(format!(
        "{} tables, {rows} rows, {}{}",
        manifest.database.tables.len(),
        estimate::bytes_in_words(bytes),
        beside.concat()
    ));
    context.tell(&Event::SnapshotTaken {
        snapshot: manifest.id.clone(),
        folder: snapshot.dir.display().to_string(),
    });
    Ok(snapshot)
}

/// Digests every file of the draft, and writes them down in the form of `sha256sum -c`.
async fn digests(draft: &Draft) -> Result<Vec<FileDigest>, Error> {
    let dir = draft.dir.clone();
    let digested =
        tokio::task::spawn_blocking(move || digest_files(&dir)).await.map_err(io::Error::other)??;
    let sums: String =
        digested.iter().map(|file| format!("{}  {}\n", file.sha256, file.path)).collect::<Vec<_>>().concat();
    disk::write(&draft.dir.join(SUMS_FILE), sums.as_bytes())?;
    Ok(digested)
}

fn digest_files(dir: &Path) -> io::Result<Vec<FileDigest>> {
    let mut files = disk::files_below(dir)?;
    files.retain(|file| !file.starts_with("proofs") && !file.starts_with("logs"));
    let paths: Vec<PathBuf> = files.iter().map(|file| dir.join(file)).collect();
    files
        .iter()
        .zip(disk::sha256_files(&paths))
        .map(|(file, digest)| {
            let (sha256, bytes) = digest?;
            Ok(FileDigest { path: file.display().to_string(), sha256, bytes })
        })
        .collect()
}
