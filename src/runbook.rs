//! Renders `restore.md` from the very steps that the rehearsal ran, and `rollback.md` from its record.

mod by_hand;
mod way_back;

use crate::archive::{self, Contents};
use crate::disk;
use crate::fingerprint;
use crate::left_out::LeftOut;
use crate::manifest::{ComponentName, ComponentState, Manifest, SnapshotId};
use crate::plan::restore_steps;
use crate::proc::shell_word;
use crate::rehearse::Rehearsed;
use crate::store::Snapshot;
use crate::tools::pg_restore::{self, Site};
use minijinja::{Environment, UndefinedBehavior, context};
use std::io;
use std::path::{Path, PathBuf};

/// The runbook's file name.
pub const FILE: &str = "restore.md";
/// What to restore of the archive, beside it.
const LIST: &str = "restore.list";

/// Why there is no runbook.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot write the runbook")]
    Io(#[from] io::Error),
    /// A fingerprint was not understood.
    #[error("the fingerprint of the snapshot cannot be read")]
    Fingerprint(#[from] fingerprint::Error),
    /// The archive's table of contents was not understood.
    #[error("the archive's table of contents cannot be read")]
    Contents(#[from] archive::Error),
    /// The template failed.
    #[error("cannot render the runbook")]
    Template(#[from] minijinja::Error),
}

/// A runbook on disk; only this module makes one.
#[derive(Clone, Debug)]
pub struct Written {
    snapshot: SnapshotId,
    path: PathBuf,
}

impl Written {
    /// The snapshot that it restores.
    pub fn snapshot(&self) -> &SnapshotId {
        &self.snapshot
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether the snapshot holds a component as a whole.
fn has(manifest: &Manifest, name: ComponentName) -> bool {
    let component = manifest.components.iter().find(|component| component.name == name);
    component.is_some_and(|component| component.state == ComponentState::Complete)
}

/// Writes the runbook into the snapshot's folder.
pub fn write(snapshot: &Snapshot, rehearsed: Option<&Rehearsed>) -> Result<Written, Error> {
    let manifest = &snapshot.manifest;
    let contents = Contents::parse(&fs_err::read_to_string(snapshot.database_file("contents.txt"))?)?;
    let nothing = LeftOut::default();
    let left_out = rehearsed.map_or(&nothing, |rehearsed| &rehearsed.record().left_out);
    disk::write(&snapshot.dir.join(LIST), left_out.list(&contents).as_bytes())?;
    let site = Site {
        installation: None,
        server: None,
        restored: None,
        database: &manifest.database.name,
        snapshot: Path::new(""),
        list: Path::new(LIST),
    };
    let commands: Vec<String> = restore_steps(manifest, &contents, manifest.client_major())
        .iter()
        .map(|step| pg_restore::step(step, &site).to_string())
        .collect();
    let mut limits = manifest.limits.clone();
    limits.extend(left_out.limits());
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let text = templates.render_str(
        include_str!("../templates/restore.md"),
        context! {
            id => manifest.id.as_str(),
            target => manifest.identity.name.as_str(),
            version => manifest.server.version(),
            major => manifest.server.major(),
            client_major => manifest.client_major(),
            taken_at => manifest.taken.target_clock.to_string(),
            bootstrap_role => manifest.server.bootstrap_role.as_str(),
            folder => shell_word(&snapshot.dir.display().to_string()),
            tables => manifest.database.tables.len(),
            rehearsed => rehearsed.is_some(),
            rehearsed_at => rehearsed.map(|rehearsed| rehearsed.record().rehearsed_at.to_string()),
            restore_seconds => rehearsed.map(|rehearsed| format!("{:.0}", rehearsed.record().restore_seconds.ceil())),
            functions => has(manifest, ComponentName::Functions),
            is_piped => manifest.client_major() > manifest.server.major(),
            commands,
            limits,
        },
    )?;
    let path = snapshot.dir.join(FILE);
    disk::write(&path, text.as_bytes())?;
    if let Some(rehearsed) = rehearsed {
        let text = way_back::render(snapshot, &contents, rehearsed.record())?;
        disk::write(&snapshot.dir.join(way_back::FILE), text.as_bytes())?;
    }
    Ok(Written { snapshot: manifest.id.clone(), path })
}
