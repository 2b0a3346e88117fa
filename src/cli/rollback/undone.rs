//! What a rollback did, as its own end tells it, and a later run when there was none.

use super::plan::Plan;
use crate::cli::done::Done;
use crate::cli::message::{self, About};
use crate::cli::open::Opened;
use crate::disk;
use crate::exit::Exit;
use crate::manifest::{FORMAT, SnapshotId};
use crate::rollback::choice::Unsettled;
use crate::rollback::storage::Objects;
use crate::rollback::{self, Proved};
use crate::ui::{RolledBack, Summary};
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The record's file, in the folder of the rollback.
const FILE: &str = "undone.json";

/// What a rollback is about to commit. Whoever finds its folder can tell what it did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Undone {
    format: u32,
    pub(super) proved: Proved,
    /// Versions that went from the history.
    versions: Vec<String>,
    /// Whether the database went back, or Storage alone.
    pub(super) with_database: bool,
    /// What it does not bring back, for people.
    #[serde(default)]
    limits: Vec<String>,
    at: Timestamp,
    /// Where the rest of it stands, when it is not here.
    #[serde(skip)]
    elsewhere: Option<String>,
}

impl Undone {
    /// What is proved and not committed yet.
    pub(super) fn of_plan(plan: &Plan, proved: Proved, at: Timestamp) -> Self {
        Self {
            versions: plan.versions().to_vec(),
            with_database: plan.with_database,
            limits: plan.limits(),
            ..Self::of_proved(proved, at)
        }
    }

    fn of_proved(proved: Proved, at: Timestamp) -> Self {
        let limits = rollback::LIMITS.map(str::to_owned).to_vec();
        Self {
            format: FORMAT,
            proved,
            versions: Vec::new(),
            with_database: true,
            limits,
            at,
            elsewhere: None,
        }
    }

    /// Keeps it before anybody commits.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        disk::make_private_dir(folder)?;
        disk::write_json(&folder.join(FILE), self)
    }

    /// What is known of a rollback that was cut off. Its own machine has all of it, and the store when
    /// the machine lived long enough.
    pub(super) fn of(unsettled: &Unsettled, folder: &Path, now: Timestamp) -> io::Result<Self> {
        match fs::read(folder.join(FILE)) {
            // One that is cut short, or of another version, tells no more than one that is not there.
            Ok(bytes) => {
                if let Ok(undone) = serde_json::from_slice::<Self>(&bytes)
                    && undone.format == FORMAT
                {
                    return Ok(undone);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let transaction = unsettled.transaction.clone();
        let proved = Proved { transaction, ..Proved::nothing(unsettled.mode) };
        let place = unsettled.place.as_ref();
        let place = place.map_or_else(
            || "the machine that ran it".to_owned(),
            |(host, folder)| format!("`{host}`, in `{folder}`"),
        );
        let at = unsettled.at.unwrap_or(now);
        Ok(Self {
            versions: unsettled.versions.clone(),
            with_database: unsettled.database,
            elsewhere: Some(place),
            ..Self::of_proved(proved, at)
        })
    }

    /// Writes the text for the team, and the last words of a run that did it.
    pub(super) fn finish(
        self,
        opened: &Opened,
        snapshot: &SnapshotId,
        objects: Option<Objects>,
        folder: &Path,
    ) -> Done {
        let Self { proved, versions, with_database, limits, at, elsewhere, .. } = self;
        if let Some(why) = &proved.accounts.failed {
            opened.context.warn(format!(
                "the rows of accounts that signed up since do not fit and were not loaded again: {why}"
            ));
        }
        for reference in &proved.references {
            opened.context.warn(reference.clone());
        }
        let seconds = proved.seconds;
        let mut done = RolledBack {
            mode: proved.mode,
            database: with_database,
            versions,
            tables: proved.tables,
            removed_tables: proved.removed_tables,
            saved: proved.saved,
            large_objects: proved.large_objects,
            accounts: proved.accounts,
            references: proved.references,
            folder: folder.display().to_string(),
            elsewhere,
            storage: objects,
            seconds,
            message: String::new(),
        };
        let taken = opened.context.store.load(snapshot).ok();
        let about = About {
            target: opened.target.name(),
            snapshot,
            taken_at: taken.map(|taken| taken.manifest.taken.target_clock),
            done_at: at,
            limits: &limits,
        };
        done.message = message::of(&about, &done);
        // What is done is done, and the text stands in the summary too.
        let written = disk::make_private_dir(folder)
            .and_then(|()| disk::write(&folder.join(message::FILE), done.message.as_bytes()));
        if let Err(error) = written {
            opened.context.warn(format!("the text for the team could not be kept in a file: {error}"));
        }
        let what = if with_database { "" } else { "the Storage of " };
        let closing = vec![
            format!(
                "Rolled {what}{} back to snapshot {snapshot} ({}, {seconds:.1} s)",
                opened.target.name(),
                done.mode.as_str(),
            ),
            "For the team, ready to paste:".to_owned(),
            String::new(),
            done.message.trim_end().to_owned(),
        ];
        let summary = Summary {
            snapshot: Some(snapshot.clone()),
            target_touched: true,
            limits,
            rolled_back: Some(done),
            ..Summary::new()
        };
        Done { exit: Exit::Done, summary, closing }
    }
}
