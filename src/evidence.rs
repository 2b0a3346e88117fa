//! Captures the components of a target into a snapshot, and writes the manifest last.

pub mod config;
pub mod database;
pub mod estimate;
pub mod functions;
mod point;
mod reuse;
pub mod secrets;
pub mod storage;

use crate::archive::RowsByTable;
use crate::context::Context;
use crate::disk;
use crate::event::{Event, Stage};
use crate::manifest::{
    Component, ComponentName, ComponentState, FORMAT, FileDigest, Manifest, SUMS_FILE, SnapshotId,
};
use crate::quiesce::Pause;
use crate::store::{self, Draft, Snapshot};
use crate::target::Target;
use crate::tools::supabase::cloud;
use std::io;
use std::path::{Path, PathBuf};
use storage::Storage;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database could not be captured.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The functions could not be captured.
    #[error(transparent)]
    Functions(#[from] functions::Error),
    /// The secrets could not be captured.
    #[error(transparent)]
    Secrets(#[from] secrets::Error),
    /// The configuration could not be captured.
    #[error(transparent)]
    Config(#[from] config::Error),
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

/// A snapshot that was collected a moment ago.
#[derive(Debug)]
pub struct Collected {
    /// The snapshot.
    pub(crate) snapshot: Snapshot,
    /// What its archive held when it was decoded.
    pub(crate) rows: RowsByTable,
}

impl Error {
    /// What the platform refused, when that is the reason.
    pub fn cloud(&self) -> Option<&cloud::Error> {
        match self {
            Self::Functions(functions::Error::Cloud(error))
            | Self::Secrets(secrets::Error::Cloud(error))
            | Self::Config(config::Error::Cloud(error)) => Some(error),
            _ => None,
        }
    }
}

/// What a snapshot is to hold.
#[derive(Clone, Debug, Default)]
pub struct Want {
    /// A person's word for it.
    pub label: Option<String>,
    /// The components beside the database; all of them without it.
    pub only: Option<Vec<ComponentName>>,
}

impl Want {
    fn has(&self, name: ComponentName) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(&name))
    }
}

/// Takes a snapshot of the target, whose consistency point begins the pause where there is one.
pub async fn collect(
    target: &Target,
    context: &Context,
    want: Want,
    pause: Option<&Pause<'_>>,
) -> Result<Collected, Error> {
    let watch = context.stage(Stage::Collect, format!("take a snapshot of {}", target.name()));
    let local_clock = (context.clock)();
    let draft = context.store.begin(SnapshotId::new(local_clock, u16::from_le_bytes(disk::random()?)))?;
    let storage = if want.has(ComponentName::Storage) {
        Storage::prepare(target, context, &draft).await?
    } else {
        None
    };
    let database = async { Ok(database::capture(target, context, &draft, storage.as_ref(), pause).await?) };
    let (mut captured, beside) = tokio::try_join!(database, Box::pin(beside(context, &draft, &want)))?;
    draft.clear_scratch()?;
    let files = digests(&draft).await?;
    let bytes: u64 = files.iter().map(|file| file.bytes).sum();
    let mut limits = captured.limits;
    let mut components = beside.components;
    let (component, storage_counts) = match captured.storage.take() {
        Some(captured) => {
            limits.extend(captured.limits);
            (captured.component, captured.counts)
        }
        None => (without_storage(context, &want, &mut limits), None),
    };
    tell(context, &component);
    components.insert(0, component);
    limits.extend(beside.limits);
    let manifest = Manifest {
        format: FORMAT,
        id: draft.id.clone(),
        label: want.label,
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
    let kept = context.share().await?;
    if let Some(name) = context.store.bucket_name() {
        context.note(format!("{} files of it were sent to `{name}`", kept.uploaded.files));
    }
    let rows: u64 = manifest.database.tables.iter().map(|table| table.count).sum();
    watch.done(format!(
        "{} tables, {rows} rows, {}",
        manifest.database.tables.len(),
        estimate::bytes_in_words(bytes)
    ));
    context.tell(&Event::SnapshotTaken {
        snapshot: manifest.id.clone(),
        folder: snapshot.dir.display().to_string(),
    });
    Ok(Collected { snapshot, rows: captured.rows })
}

/// Storage when it is not captured, and why.
fn without_storage(context: &Context, want: &Want, limits: &mut Vec<String>) -> Component {
    if context.cloud.is_some() || context.storage.is_some() {
        limits.push("the files of Storage are not in the snapshot".to_owned());
    }
    let name = ComponentName::Storage;
    if want.has(name) { Component::not_applicable(name) } else { Component::left_out(name) }
}

/// What stands beside the database.
struct Beside {
    components: Vec<Component>,
    limits: Vec<String>,
}

/// Captures everything but the database, side by side.
async fn beside(context: &Context, draft: &Draft, want: &Want) -> Result<Beside, Error> {
    let Some(cloud) = &context.cloud else {
        let names = [ComponentName::Functions, ComponentName::Secrets, ComponentName::Config];
        let what = if context.storage.is_some() { "Functions" } else { "Storage, Functions" };
        return Ok(Beside {
            components: names.map(Component::not_applicable).to_vec(),
            limits: vec![format!("{what}, secrets, and configuration are not part of a target given by URL")],
        });
    };
    let functions = async {
        let name = ComponentName::Functions;
        if !want.has(name) {
            return Ok::<_, Error>(Component::left_out(name));
        }
        Ok(functions::capture(cloud, context, draft).await?)
    };
    let secrets = async {
        let name = ComponentName::Secrets;
        if !want.has(name) {
            return Ok(Component::left_out(name));
        }
        Ok(secrets::capture(cloud, draft).await?)
    };
    let config = async {
        let name = ComponentName::Config;
        if !want.has(name) {
            return Ok((Component::left_out(name), Vec::new()));
        }
        let config::Captured { component, limits } = config::capture(cloud, context, draft).await?;
        Ok((component, limits))
    };
    let (functions, secrets, (config, limits)) = tokio::try_join!(functions, secrets, config)?;
    let components = vec![functions, secrets, config];
    for component in &components {
        tell(context, component);
    }
    Ok(Beside { components, limits })
}

fn tell(context: &Context, component: &Component) {
    match component.state {
        ComponentState::Complete => context.note(format!("{}: {}", component.name, component.summary)),
        ComponentState::Incomplete => {
            context.warn(format!("{} is incomplete: {}", component.name, component.missing.join("; ")));
        }
        ComponentState::LeftOut | ComponentState::NotApplicable => {}
    }
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
