//! What can happen during a run, and who is told.
//!
//! Work modules emit events; only `ui` and the record of the run turn them into text.

mod holder;
mod step;

pub use holder::Holder;
pub use step::{Parts, Reached, Step, Tally, Tell};

use crate::manifest::{SnapshotId, Strength};
use serde::Serialize;
use std::io;

/// The stages of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Find and pin the target.
    Resolve,
    /// Capture the evidence.
    Collect,
    /// Read it back.
    Verify,
    /// Restore it and apply the pending files to the copy.
    Rehearse,
    /// Ask a person.
    Confirm,
    /// Take fresh evidence after a long wait.
    Refresh,
    /// Run the real CLI.
    Delegate,
    /// Compare the target with the rehearsal.
    PostCheck,
    /// Take the target back.
    Rollback,
}

impl Stage {
    /// The stage as a word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Collect => "collect",
            Self::Verify => "verify",
            Self::Rehearse => "rehearse",
            Self::Confirm => "confirm",
            Self::Refresh => "refresh",
            Self::Delegate => "push",
            Self::PostCheck => "post-check",
            Self::Rollback => "rollback",
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// The target is known.
    Target {
        /// Its name.
        name: String,
        /// What kind of endpoint it is, and its version.
        about: String,
    },
    /// A stage began.
    StageStarted {
        /// Which.
        stage: Stage,
        /// What it is about to do.
        text: String,
    },
    /// A stage ended well.
    StageDone {
        /// Which.
        stage: Stage,
        /// What it did.
        text: String,
        /// Seconds it took.
        seconds: f64,
    },
    /// How far a stage is; emitted often.
    Progress {
        /// Which.
        stage: Stage,
        /// What is being worked on.
        item: String,
        /// Bytes done.
        bytes: u64,
        /// Bytes expected at most, when they can be estimated.
        expected_bytes: Option<u64>,
    },
    /// Something worth knowing.
    Note {
        /// The sentence.
        text: String,
    },
    /// Something a person should look at.
    Warning {
        /// The sentence.
        text: String,
    },
    /// What the snapshot will cost.
    Estimate {
        /// Bytes of the tables on the server, an upper bound for the wire.
        table_bytes: u64,
        /// Bytes that the archive may take here.
        disk_bytes: u64,
        /// Bytes free here.
        free_bytes: u64,
        /// Minutes it may take.
        minutes: f64,
    },
    /// A snapshot stands on disk.
    SnapshotTaken {
        /// Its name.
        snapshot: SnapshotId,
        /// Its folder.
        folder: String,
    },
    /// A snapshot was proved.
    SnapshotProved {
        /// Its name.
        snapshot: SnapshotId,
        /// How far.
        strength: Strength,
    },
    /// Evidence on disk was set aside, and why.
    SetAside {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The rule.
        rule: String,
        /// The fact.
        fact: String,
    },
    /// A snapshot stays when others go.
    SnapshotKept {
        /// Its name.
        snapshot: SnapshotId,
        /// Why, in words.
        reasons: Vec<String>,
    },
    /// A snapshot went, or would go.
    SnapshotRemoved {
        /// Its name.
        snapshot: SnapshotId,
        /// Its age in words.
        age: String,
        /// Bytes of its files, those of Storage aside.
        bytes: u64,
        /// Whether it is gone; a dry run only says so.
        gone: bool,
    },
    /// Object files that no snapshot names went, or would go.
    ObjectsRemoved {
        /// How many.
        count: usize,
        /// Their bytes.
        bytes: u64,
        /// Whether they are gone; a dry run only says so.
        gone: bool,
    },
    /// A program was started.
    Program {
        /// Its command line, masked.
        command: String,
    },
    /// A line that a program printed.
    ProgramLine {
        /// The line, masked.
        line: String,
    },
    /// The copy's table beside the manifest's.
    TableCompared {
        /// The table.
        table: String,
        /// Rows by the manifest.
        recorded: u64,
        /// Rows of the copy.
        restored: u64,
        /// Whether counts and hashes are equal.
        equal: bool,
        /// Whether it is a materialized view that the restore filled with other rows.
        refreshed: bool,
    },
    /// What a person, or a script for a person, confirms.
    Confirmation {
        /// A title and a text each.
        lines: Vec<(&'static str, String)>,
        /// Whether a person is asked now.
        is_asked: bool,
    },
    /// What one pending file did to the copy.
    FileRehearsed(crate::effect::FileEffect),
    /// A rule that does not hold.
    Finding {
        /// Its number.
        rule: String,
        /// The fact.
        fact: String,
        /// What satisfies it.
        fix: String,
        /// Whether it stops the run.
        refuses: bool,
    },
    /// The push begins: from here the target may change.
    Delegating {
        /// The snapshot that the clearance is bound to.
        snapshot: SnapshotId,
        /// The files.
        files: Vec<String>,
        /// Versions in the history before the push.
        history: Vec<String>,
        /// Digest of everything that decides what the push does.
        pending_digest: String,
    },
    /// The push is over and its outcome is known.
    Delegated {
        /// Files that stand.
        applied: Vec<String>,
        /// Files that do not.
        not_applied: Vec<String>,
    },
    /// A later run found out what became of a push whose own run did not.
    PushSettled {
        /// The run that pushed.
        run: String,
        /// Files that stand.
        applied: Vec<String>,
        /// Files that do not.
        not_applied: Vec<String>,
    },
    /// The transaction of a rollback is open, and has touched nothing yet.
    RollbackBegun {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The transaction's id, by which a later run asks what became of it.
        transaction: String,
        /// Whether the database goes back, or Storage alone.
        database: bool,
        /// How much goes back, as the command line says it.
        mode: &'static str,
        /// Versions that go from the history.
        versions: Vec<String>,
        /// The machine, which has the files of the rollback.
        host: String,
        /// Where they are on it.
        folder: String,
    },
    /// A rollback is proved, and is about to be committed.
    RollingBack {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The transaction's id, by which a later run asks what became of it.
        transaction: String,
    },
    /// A rollback begins a step, goes on with it, or is done with it.
    RollbackStep(Reached),
    /// The target's database is as in the snapshot.
    RolledBack {
        /// The snapshot.
        snapshot: SnapshotId,
        /// Whether the database went back, or Storage alone.
        database: bool,
    },
    /// Writes of the Data API's roles are about to be paused: from here on a pause may stand.
    WritesPausing,
    /// The target refuses what the roles of its Data API write.
    WritesPaused {
        /// These roles.
        roles: Vec<String>,
        /// On how many tables.
        tables: usize,
        /// Tables of the user's on which they still write.
        beyond: Vec<String>,
        /// Seconds for which the tables were locked to begin that.
        seconds: f64,
    },
    /// It does not any more.
    WritesReleased {
        /// Tables that still have a trigger, which lets everything through.
        left: Vec<String>,
    },
    /// The push waits for a lock, or keeps others waiting for its own, longer than the policy allows.
    Blocking {
        /// The file that runs.
        file: String,
        /// What it did, in words.
        text: String,
        /// Who is in its way.
        holders: Vec<Holder>,
        /// Whether its statement was canceled; one of a file that is not all-or-nothing is not.
        canceled: bool,
    },
    /// A server process works for the real CLI.
    DelegateBackend {
        /// Its process id.
        pid: i32,
        /// When it started, in microseconds since 1970 by the server's clock.
        started: i64,
    },
    /// The process id of the push, for a later run that looks for it.
    DelegatePid {
        /// The process id.
        pid: u32,
    },
}

/// Someone who is told what happens.
pub trait Observer: Send + Sync {
    /// Takes notice of an event.
    fn see(&self, event: &Event);

    /// The same, and fails when this observer keeps a record and could not write it.
    fn keep(&self, event: &Event) -> io::Result<()> {
        self.see(event);
        Ok(())
    }
}

/// Tells several observers.
#[derive(Default)]
pub struct Observers(Vec<Box<dyn Observer>>);

impl Observers {
    /// Adds one.
    pub fn add(&mut self, observer: Box<dyn Observer>) {
        self.0.push(observer);
    }
}

impl Observer for Observers {
    fn see(&self, event: &Event) {
        for observer in &self.0 {
            observer.see(event);
        }
    }

    fn keep(&self, event: &Event) -> io::Result<()> {
        self.0.iter().try_for_each(|observer| observer.keep(event))
    }
}
