//! What the judge is told.

use super::{Keeping, WayBack};
use crate::inventory::Standing;
use crate::manifest::{ComponentName, Gap, SnapshotId, Strength};
use crate::target::Identity;
use jiff::{SignedDuration, Timestamp};

/// What is known when the judge is asked.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The pinned target.
    pub target: Identity,
    /// The snapshot in question, when there is one.
    pub snapshot: Option<SnapshotFacts>,
    /// Applied files that differ from the history.
    pub edited: Vec<EditedFile>,
    /// Sessions on the target that forbid a push.
    pub sessions: Vec<String>,
    /// The push in question, from the moment that it is known.
    pub push: Option<PushFacts>,
}

/// What is known of a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotFacts {
    /// Its name.
    pub id: SnapshotId,
    /// Which database it is of.
    pub identity: Identity,
    /// Its consistency point, by the target's clock.
    pub taken_at: Timestamp,
    /// The run that rolled the database back since it was taken, as far as that is on record.
    pub rolled_back: Option<String>,
    /// The best proof.
    pub strength: Strength,
    /// Files that do not match their digests, in words.
    pub broken: Vec<String>,
    /// What components lack.
    pub missing: Vec<Missing>,
    /// Where the secrets stand.
    pub secrets: Vec<Standing>,
    /// Tables whose rows are not in the archive.
    pub gaps: Vec<Gap>,
}

/// Something that a component lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The component.
    pub component: ComponentName,
    /// What it lacks, in words.
    pub what: String,
}

/// An applied file that differs from what the history recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditedFile {
    /// Its version.
    pub version: String,
    /// Its name.
    pub file: String,
}

/// What is known of the push.
#[derive(Clone, Debug)]
pub struct PushFacts {
    /// What changed in the pending files since they were frozen, in words.
    pub changed: Vec<String>,
    /// Pending files that are not all-or-nothing, in words.
    pub not_atomic: Vec<String>,
    /// The rehearsal.
    pub rehearsal: Rehearsal,
    /// The way back.
    pub way_back: WayBack,
    /// Where the evidence stands.
    pub keeping: Keeping,
}

/// What is known of the rehearsal of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// Its turn has not come.
    NotYet,
    /// The person asked to leave it out.
    Off,
    /// There is none that fits, and why.
    Missing(String),
    /// It ran and the migration failed.
    Failed(String),
    /// It ran and passed.
    Passed {
        /// When, by this machine's clock.
        at: Timestamp,
        /// How long ago.
        age: SignedDuration,
    },
}
