//! Checks as data: what was found, what is needed, and the one command that helps.
//!
//! Nothing here looks or changes anything: `cli` gathers the [`Facts`], and [`examine`] grades them.

mod machine;
mod target;
mod tools;

use crate::failure::Failure;
use crate::hook;
use crate::scratch::engine::{Container, Lacking};
use crate::target::{EndpointKind, SslMode};
use crate::tools::container::Preference;
use crate::tools::installs::Installation;
use crate::tools::supabase::Version;
use jiff::SignedDuration;
use serde::Serialize;
use std::path::PathBuf;

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Programs of this machine.
    Tools,
    /// The project's folder and its files.
    Project,
    /// The target.
    Connection,
    /// Keys of Storage.
    Storage,
    /// The git hook.
    Hook,
    /// Where evidence stands.
    Disk,
}

impl Group {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Project => "project",
            Self::Connection => "connection",
            Self::Storage => "storage",
            Self::Hook => "hook",
            Self::Disk => "disk",
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Something works less well, or not yet.
    Warn,
    /// Something cannot work.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about.
    pub group: Group,
    /// Its name within the group.
    pub name: &'static str,
    /// How it ended.
    pub grade: Grade,
    /// What is there.
    pub found: String,
    /// What is needed; none where it is there.
    pub needed: Option<&'static str>,
    /// What to do.
    pub fix: Option<String>,
}

impl Check {
    fn ok(group: Group, name: &'static str, found: impl Into<String>) -> Self {
        Self { group, name, grade: Grade::Ok, found: found.into(), needed: None, fix: None }
    }

    fn needs(mut self, grade: Grade, needed: &'static str, fix: impl Into<String>) -> Self {
        self.grade = grade;
        self.needed = Some(needed);
        self.fix = Some(fix.into());
        self
    }

    /// A check that ended in an error which names its own next step.
    fn failed(group: Group, name: &'static str, failure: &Failure, needed: &'static str) -> Self {
        let fix = failure.hints.first().cloned().unwrap_or_else(|| "supa-safe explain policy".to_owned());
        Self::ok(group, name, failure.chain.join(": ")).needs(Grade::Fail, needed, fix)
    }
}

/// The Supabase CLI.
#[derive(Debug)]
pub struct Cli {
    /// Name, version, and path.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Another major on `PATH`.
    pub other: Option<String>,
}

/// The project.
#[derive(Debug)]
pub struct Project {
    /// Its folder.
    pub root: PathBuf,
    /// Whether its configuration can be read, and if not, why.
    pub config: Result<(), String>,
    /// What it is linked to, as the file says it; none without the file.
    pub link: Option<String>,
    /// Whether it has packages of npm.
    pub has_packages: bool,
}

/// How the target is to be reached.
#[derive(Debug)]
pub struct Door {
    /// `host:port`.
    pub address: String,
    /// What kind it is.
    pub kind: EndpointKind,
    /// Whether it is this machine.
    pub is_loopback: bool,
    /// Whether a password is known.
    pub has_password: bool,
    /// Whether it is a linked project's, for which a run asks for a password, or for a role.
    pub is_linked: bool,
    /// How strictly TLS is checked.
    pub ssl_mode: SslMode,
}

/// What the target said.
#[derive(Debug)]
pub struct Answer {
    /// Its major version.
    pub major: u32,
    /// Its version.
    pub version: String,
    /// Whether the session was encrypted.
    pub tls: bool,
    /// How far its clock is ahead of ours.
    pub clock_ahead: SignedDuration,
}

/// What signs for Storage.
#[derive(Debug)]
pub enum Keys {
    /// Something, in words.
    Set(String),
    /// Half of a pair: the variable that is set, and the one that is not.
    Half([&'static str; 2]),
    /// Nothing, and why keys that are there are not used.
    None(Vec<String>),
}

/// What rehearsals of the target run on.
#[derive(Debug)]
pub struct Scratch {
    /// What the settings want.
    pub preference: Preference,
    /// The container that is to be had without a fetch, or why there is none.
    pub container: Result<Container, Lacking>,
    /// The server that the person gives.
    pub staging: Option<Staging>,
}

/// A server that the person gives to rehearsals.
#[derive(Debug)]
pub struct Staging {
    /// `host:port`.
    pub address: String,
    /// Why none can run there, if none can.
    pub refused: Option<Failure>,
}

/// The git hook.
#[derive(Debug)]
pub enum Hook {
    /// There is no repository, or git failed.
    None(String),
    /// What git runs, and who manages the hooks.
    Place(hook::Runs, Option<hook::Manager>),
    /// It may not be installed where git looks for it.
    Elsewhere(String),
}

/// The shared store.
#[derive(Debug)]
pub struct Shared {
    /// Its address.
    pub name: String,
    /// Why it cannot be used, if so.
    pub tried: Result<(), Failure>,
}

/// Where evidence stands.
#[derive(Debug)]
pub struct State {
    /// The folder.
    pub dir: PathBuf,
    /// Why it cannot be written to, if so.
    pub problem: Option<String>,
    /// Whether others may look into it.
    pub is_open: bool,
    /// Bytes free.
    pub free_bytes: u64,
    /// Bytes of the newest snapshot of this target.
    pub snapshot_bytes: u64,
    /// What dead runs have left, in words.
    pub leftovers: Vec<String>,
    /// A run that ended while it pushed.
    pub unsettled: Option<String>,
}

/// Everything that was looked at.
#[derive(Debug)]
pub struct Facts {
    /// The Supabase CLI, or why there is none.
    pub cli: Result<Cli, Failure>,
    /// The Postgres installations.
    pub installations: Vec<Installation>,
    /// The version of git.
    pub git: Option<String>,
    /// Where node is.
    pub node: Option<PathBuf>,
    /// Where docker or podman is.
    pub engine: Option<PathBuf>,
    /// What rehearsals run on; none when the target did not say its version.
    pub scratch: Option<Scratch>,
    /// The project, or why there is none.
    pub project: Result<Project, Failure>,
    /// The policy file, none when there is none, or what is wrong with it.
    pub policy: Result<Option<PathBuf>, Failure>,
    /// Where an access token was found.
    pub token: Option<&'static str>,
    /// Whether the target is a project of the platform.
    pub has_project: bool,
    /// Whether the platform lets the CLI look at the project, when it was asked.
    pub signed_in: Option<Result<(), Failure>>,
    /// How to reach the target, or what is wrong with the way; none when no target was named.
    pub door: Option<Result<Door, Failure>>,
    /// What the target said, when it was asked: nothing, where it wants a password that nobody was
    /// asked for.
    pub answer: Option<Result<Option<Answer>, Failure>>,
    /// What signs for Storage.
    pub keys: Keys,
    /// What is wrong with that, when it was tried.
    pub tried: Option<String>,
    /// What is wrong with the address of Storage, if anything.
    pub storage_url: Option<String>,
    /// The hook.
    pub hook: Hook,
    /// The shared store, when one is named.
    pub shared: Option<Shared>,
    /// Where evidence stands, or why that is not known.
    pub state: Result<State, Failure>,
}

impl Facts {
    fn told(&self) -> Option<&Answer> {
        self.answer.as_ref()?.as_ref().ok()?.as_ref()
    }
}

/// Grades what was found, group by group.
pub fn examine(facts: &Facts) -> Vec<Check> {
    let mut checks = tools::checks(facts);
    checks.extend(target::checks(facts));
    checks.extend(machine::checks(facts));
    checks
}
