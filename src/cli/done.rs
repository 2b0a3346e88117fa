//! How a command that acts ended.

use super::Setting;
use super::fail::failed;
use super::open::Opened;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::ui::{self, Json, Summary};
use crate::verify::Verified;

/// It did what it was asked for.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) exit: Exit,
    pub(super) summary: Summary,
    /// Last lines for a person.
    pub(super) closing: Vec<String>,
}

/// It did not.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) failure: Failure,
    pub(super) summary: Box<Summary>,
}

impl Broken {
    /// Failed, with what is known so far.
    pub(super) fn new(failure: Failure, summary: Summary) -> Self {
        Self { failure, summary: Box::new(summary) }
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::new(failure, Summary::new())
    }
}

impl Done {
    /// Leaned on a snapshot.
    pub(super) fn of(verified: &Verified) -> Self {
        let snapshot = verified.snapshot();
        let summary = Summary {
            snapshot: Some(snapshot.id().clone()),
            limits: snapshot.manifest.limits.clone(),
            ..Summary::new()
        };
        let closing = vec![format!(
            "Snapshot {} (strength: {}) is in {}",
            snapshot.id(),
            verified.strength(),
            snapshot.dir.display()
        )];
        Self { exit: Exit::Done, summary, closing }
    }

    /// Found nothing to do.
    pub(super) fn nothing(opened: &Opened) -> Self {
        let closing = vec![format!("Nothing is pending on {}; nothing was touched", opened.target.name())];
        Self { exit: Exit::Done, summary: Summary::new(), closing }
    }

    /// Adds a last line.
    #[must_use]
    pub(super) fn closing(mut self, line: impl Into<String>) -> Self {
        self.closing.push(line.into());
        self
    }
}

/// Ends a command that acts on this machine only, as [`Opened::close`] ends one with a target.
pub(super) fn close(setting: &Setting, outcome: Result<Vec<String>, Failure>) -> Result<Exit, Failure> {
    let global = &setting.global;
    let mut summary = Summary::new();
    if let Err(failure) = &outcome {
        summary.exit = failure.exit.code();
        summary.error.clone_from(&failure.chain);
    }
    if global.json {
        Json::summary(&summary).map_err(failed(Exit::Error))?;
    }
    let said = outcome?;
    if !global.json && !global.quiet {
        let text = said.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
        ui::print(&text).map_err(failed(Exit::Error))?;
    }
    Ok(Exit::Done)
}
