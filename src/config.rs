//! Settings: flags over environment over `supabase/supa-safe.toml` over defaults. The only reader
//! of the environment.

pub mod env_files;
mod scratch;
mod storage;
mod store;

pub use scratch::Place;
pub use storage::{Linked, Storage, Withheld};

use crate::manifest::{ComponentName, Strength};
use crate::objects::EndpointError;
use crate::policy::{Policy, Reuse};
use crate::secret::Secret;
use crate::store::BadAddress;
use crate::target::{Defaults, ProjectRef};
use fs_err as fs;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// The policy file's name in the `supabase` folder.
pub const FILE: &str = "supa-safe.toml";

/// A policy file with every setting switched off.
pub const SAMPLE: &str = include_str!("../templates/supa-safe.toml");

/// Variables that tell that a coding agent runs the command, as the Supabase CLI knows them.
const AGENT_VARIABLES: [&str; 16] = [
    "AI_AGENT",
    "ANTIGRAVITY_AGENT",
    "AUGMENT_AGENT",
    "CLAUDECODE",
    "CLAUDE_CODE",
    "CODEX_CI",
    "CODEX_SANDBOX",
    "CODEX_THREAD_ID",
    "COPILOT_ALLOW_ALL",
    "COPILOT_GITHUB_TOKEN",
    "COPILOT_MODEL",
    "CURSOR_AGENT",
    "CURSOR_TRACE_ID",
    "GEMINI_CLI",
    "OPENCODE_CLIENT",
    "REPL_ID",
];

/// What can be wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy file could not be read.
    #[error("cannot read the policy file")]
    Read(#[from] io::Error),
    /// The policy file is not what it must be.
    #[error("`{path}` is not a policy file", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is not valid.
    #[error("`{value}` is not {wanted} for `{name}`")]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
    /// The address of Storage is none.
    #[error(transparent)]
    Storage(#[from] EndpointError),
    /// The address of the shared store is none.
    #[error("`store` cannot be used")]
    Store(#[from] BadAddress),
    /// Nothing says where Amazon keeps the bucket.
    #[error("`store` names a bucket, and neither `store_endpoint` nor `store_region` says where it is")]
    NoStoreRegion,
    /// Of a pair of keys one is set.
    #[error("{set} is set and {missing} is not")]
    Half {
        /// The one.
        set: &'static str,
        /// The other.
        missing: &'static str,
    },
    /// There is no home and no state folder.
    #[error("no state folder: neither HOME nor XDG_STATE_HOME is set")]
    NoState,
}

/// Everything of the process's surroundings that settings come from.
#[derive(Clone, Debug)]
pub struct Surroundings {
    env: BTreeMap<OsString, OsString>,
    /// The working directory.
    pub cwd: PathBuf,
}

impl Surroundings {
    /// Reads the environment and the working directory of this process, once.
    pub fn of_this_process() -> io::Result<Self> {
        Ok(Self { env: std::env::vars_os().collect(), cwd: std::env::current_dir()? })
    }

    /// The same surroundings with some variables set, or taken away.
    #[must_use]
    pub fn with(mut self, changes: impl IntoIterator<Item = (&'static str, Option<OsString>)>) -> Self {
        for (name, value) in changes {
            match value {
                Some(value) => self.env.insert(name.into(), value),
                None => self.env.remove(&OsString::from(name)),
            };
        }
        self
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.env
            .get(&OsString::from(name))
            .map(|value| value.to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
    }

    /// The name of this machine, as far as it is known without asking.
    pub fn host(&self) -> String {
        self.variable("HOSTNAME")
            .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
    }

    /// The whole environment, for programs that need one.
    pub fn env(&self) -> &BTreeMap<OsString, OsString> {
        &self.env
    }

    /// `PATH`.
    pub fn path(&self) -> OsString {
        self.env.get(&OsString::from("PATH")).cloned().unwrap_or_default()
    }

    /// The home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    /// The folder for things that do not last.
    pub fn temp_dir(&self) -> PathBuf {
        self.variable("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }

    /// What fills the gaps of a connection URL.
    pub fn connection_defaults(&self) -> Defaults {
        Defaults {
            password: self.variable("PGPASSWORD").map(Secret::new),
            ssl_mode: self.variable("PGSSLMODE"),
            ssl_root_cert: self.variable("PGSSLROOTCERT"),
        }
    }

    /// The variable by which a coding agent gives itself away, if one does.
    pub fn agent(&self) -> Option<&'static str> {
        if self.variable("CURSOR_EXTENSION_HOST_ROLE").as_deref() == Some("agent-exec") {
            return Some("CURSOR_EXTENSION_HOST_ROLE");
        }
        AGENT_VARIABLES.into_iter().find(|name| self.variable(name).is_some())
    }

    /// Whether colors are wanted where `--color auto` leaves it open; anstream knows the other
    /// variables, but not this one.
    pub fn forces_color(&self) -> bool {
        self.variable("FORCE_COLOR").is_some_and(|value| value != "0")
    }
}

/// How long a snapshot is kept, unless the policy says otherwise.
const KEEP: SignedDuration = SignedDuration::from_hours(14 * 24);
/// Branches whose pushes the hook judges, unless the policy names others.
const BRANCHES: [&str; 3] = ["main", "master", "production"];

/// The policy file as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    max_age: Option<String>,
    strength: Option<Strength>,
    rehearsal_max_age: Option<String>,
    allow_unrehearsed: Option<bool>,
    allow_no_rollback: Option<bool>,
    accept_unreadable: Option<Vec<String>>,
    accept_edited: Option<Vec<String>>,
    components: Option<Vec<ComponentName>>,
    secrets_confirm_every: Option<String>,
    allow_drift: Option<u64>,
    reuse: Option<Reuse>,
    max_block: Option<String>,
    storage_url: Option<String>,
    storage_profile: Option<String>,
    storage_region: Option<String>,
    store: Option<String>,
    store_endpoint: Option<String>,
    store_region: Option<String>,
    store_profile: Option<String>,
    store_reads_back: Option<bool>,
    allow_local_store: Option<bool>,
    pg_bin: Option<PathBuf>,
    supabase_bin: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    keep: Option<String>,
    #[serde(default)]
    hook: HookSection,
    root_cert: Option<PathBuf>,
    #[serde(default)]
    rehearse: scratch::Section,
    #[serde(default)]
    secrets: BTreeMap<String, SecretSection>,
    #[serde(default)]
    targets: BTreeMap<String, TargetSection>,
}

/// What the git hook looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HookSection {
    branches: Option<Vec<String>>,
}

/// What is known of one secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretSection {
    check: String,
}

/// What one target has of its own.
///
/// Its settings stand in [`PolicyFile`] again: serde's `flatten` would lose the line of a mistake.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetSection {
    max_age: Option<String>,
    strength: Option<Strength>,
    rehearsal_max_age: Option<String>,
    allow_unrehearsed: Option<bool>,
    allow_no_rollback: Option<bool>,
    accept_unreadable: Option<Vec<String>>,
    accept_edited: Option<Vec<String>>,
    keep: Option<String>,
    components: Option<Vec<ComponentName>>,
    secrets_confirm_every: Option<String>,
    allow_drift: Option<u64>,
    reuse: Option<Reuse>,
    max_block: Option<String>,
    storage_url: Option<String>,
    storage_profile: Option<String>,
    storage_region: Option<String>,
    store: Option<String>,
    store_endpoint: Option<String>,
    store_region: Option<String>,
    store_profile: Option<String>,
    store_reads_back: Option<bool>,
    allow_local_store: Option<bool>,
}

/// Settings that flags give.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--max-age`.
    pub max_age: Option<SignedDuration>,
    /// `--pg-bin`.
    pub pg_bin: Option<PathBuf>,
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Config {
    file: PolicyFile,
    flags: Flags,
    /// Folders of Postgres programs that come first.
    pub pg_bins: Vec<PathBuf>,
    /// The Supabase CLI, when it is named.
    pub supabase_bin: Option<PathBuf>,
    /// Where evidence stands.
    pub state_dir: PathBuf,
    /// Root certificates to check the servers of linked projects by, instead of the platform's own.
    pub root_cert: Option<PathBuf>,
}

impl Config {
    /// Reads the settings; `supabase_dir` is the project's folder when there is a project.
    pub fn load(
        surroundings: &Surroundings,
        flags: Flags,
        supabase_dir: Option<&Path>,
    ) -> Result<Self, Error> {
        let (file, base) = read_file(&flags, supabase_dir, &surroundings.cwd)?;
        let relative = |path: &PathBuf| base.join(path);
        let variable = |name: &str| surroundings.variable(name).map(|path| surroundings.cwd.join(path));
        let state_dir = variable("SUPA_SAFE_STATE_DIR")
            .or_else(|| file.state_dir.as_ref().map(relative))
            .or_else(|| surroundings.variable("XDG_STATE_HOME").map(|dir| Path::new(&dir).join("supa-safe")))
            .or_else(|| surroundings.home().map(|home| home.join(".local/state/supa-safe")))
            .ok_or(Error::NoState)?;
        let pg_bins = flags
            .pg_bin
            .iter()
            .map(|path| surroundings.cwd.join(path))
            .chain(variable("SUPA_SAFE_PG_BIN"))
            .chain(file.pg_bin.as_ref().map(relative))
            .collect();
        let supabase_bin =
            variable("SUPA_SAFE_SUPABASE_BIN").or_else(|| file.supabase_bin.as_ref().map(relative));
        let root_cert = variable("SUPA_SAFE_ROOT_CERT").or_else(|| file.root_cert.as_ref().map(relative));
        Ok(Self { file, flags, pg_bins, supabase_bin, state_dir, root_cert })
    }

    /// How long a snapshot of a target is kept in any case.
    pub fn keep(&self, names: &[&str]) -> Result<SignedDuration, Error> {
        let own =
            names.iter().find_map(|name| self.file.targets.get(*name)).and_then(|own| own.keep.as_ref());
        own.or(self.file.keep.as_ref()).map_or(Ok(KEEP), |text| parse_days("keep", text))
    }

    /// Branches whose pushes the hook judges; `*` in one stands for any text.
    pub fn hook_branches(&self) -> Vec<String> {
        let default = || BRANCHES.map(str::to_owned).to_vec();
        self.file.hook.branches.clone().unwrap_or_else(default)
    }

    /// The commands that exercise secrets, by the secret's name.
    pub fn secret_checks(&self) -> BTreeMap<String, String> {
        let check = |(name, section): (&String, &SecretSection)| (name.clone(), section.check.clone());
        self.file.secrets.iter().map(check).collect()
    }

    /// The policy for a target, by the first of its names that has a section.
    pub fn policy(&self, names: &[&str]) -> Result<Policy, Error> {
        let own = names.iter().find_map(|name| self.file.targets.get(*name)).cloned().unwrap_or_default();
        let default = Policy::default();
        let duration = |name: &str, own: &Option<String>, all: &Option<String>| {
            own.as_ref().or(all.as_ref()).map(|text| parse_duration(name, text)).transpose()
        };
        let max_age = duration("max_age", &own.max_age, &self.file.max_age)?;
        let rehearsal = duration("rehearsal_max_age", &own.rehearsal_max_age, &self.file.rehearsal_max_age)?;
        let confirm =
            duration("secrets_confirm_every", &own.secrets_confirm_every, &self.file.secrets_confirm_every)?;
        let max_block = duration("max_block", &own.max_block, &self.file.max_block)?;
        let one_day = default.rehearsal_max_age;
        Ok(Policy {
            max_age: self.flags.max_age.or(max_age).unwrap_or(default.max_age),
            strength: own.strength.or(self.file.strength).unwrap_or(default.strength),
            rehearsal_max_age: rehearsal.unwrap_or(one_day).min(one_day),
            allow_no_rollback: own.allow_no_rollback.or(self.file.allow_no_rollback).unwrap_or_default(),
            allow_unrehearsed: own.allow_unrehearsed.or(self.file.allow_unrehearsed).unwrap_or_default(),
            components: own.components.or_else(|| self.file.components.clone()).unwrap_or(default.components),
            secrets_confirm_every: confirm.unwrap_or(default.secrets_confirm_every),
            accept_unreadable: own
                .accept_unreadable
                .or_else(|| self.file.accept_unreadable.clone())
                .unwrap_or_default(),
            accept_edited: own.accept_edited.or_else(|| self.file.accept_edited.clone()).unwrap_or_default(),
            allow_drift: own.allow_drift.or(self.file.allow_drift).unwrap_or_default(),
            reuse: own.reuse.or(self.file.reuse).unwrap_or(default.reuse),
            max_block: max_block.unwrap_or(default.max_block),
            allow_local_store: own.allow_local_store.or(self.file.allow_local_store).unwrap_or_default(),
        })
    }
}

fn read_file(flags: &Flags, supabase_dir: Option<&Path>, cwd: &Path) -> Result<(PolicyFile, PathBuf), Error> {
    let path = match (&flags.config, supabase_dir) {
        (Some(path), _) => cwd.join(path),
        (None, Some(dir)) => dir.join(FILE),
        (None, None) => return Ok((PolicyFile::default(), cwd.to_owned())),
    };
    let base = supabase_dir.and_then(Path::parent).unwrap_or(cwd).to_owned();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && flags.config.is_none() => {
            return Ok((PolicyFile::default(), base));
        }
        Err(error) => return Err(error.into()),
    };
    let file: PolicyFile =
        toml::from_str(&text).map_err(|source| Error::File { path, source: Box::new(source) })?;
    refuse_empty(&file)?;
    Ok((file, base))
}

/// What is there and says nothing is a mistake: nothing would be judged, or checked, by it.
fn refuse_empty(file: &PolicyFile) -> Result<(), Error> {
    let empty =
        |name: String, value: &str, wanted| Err(Error::Value { name, value: value.to_owned(), wanted });
    if file.hook.branches.as_ref().is_some_and(|list| list.iter().all(|branch| branch.trim().is_empty())) {
        let wanted = "a list of branches (`supa-safe hook uninstall` takes the hook away)";
        return empty("[hook] branches".to_owned(), "[]", wanted);
    }
    if file.targets.keys().any(|name| name.trim().is_empty()) {
        return empty("[targets]".to_owned(), "", "the name of a target");
    }
    match file.secrets.iter().find(|(_, section)| section.check.trim().is_empty()) {
        Some((name, section)) => empty(format!("[secrets.{name}] check"), &section.check, "a command"),
        None => Ok(()),
    }
}

/// The sample, and at its end a section for every project that the configuration names.
pub fn sample(remotes: &[(String, ProjectRef)]) -> String {
    if remotes.is_empty() {
        return SAMPLE.to_owned();
    }
    let head = "\n# The projects that [remotes.*] of the configuration names.\n".to_owned();
    // A name may hold whatever TOML lets one quote.
    let sections = remotes.iter().map(|(name, id)| {
        format!("\n# {name:?}\n#[targets.{id}]\n#max_age = \"15m\"\n#strength = \"decoded\"\n")
    });
    [SAMPLE.to_owned(), head].into_iter().chain(sections).collect::<Vec<_>>().concat()
}

/// Reads a length of time such as `14d`, `2w`, or `36h`; a day has 24 hours.
fn parse_days(name: &str, text: &str) -> Result<SignedDuration, Error> {
    let span = text.parse::<Span>().ok();
    let duration = span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
    duration.filter(SignedDuration::is_positive).ok_or_else(|| Error::Value {
        name: name.to_owned(),
        value: text.to_owned(),
        wanted: "a length of time (such as `14d` or `36h`)",
    })
}

/// Reads a length of time such as `15m`, `1h 30m`, or `90s`.
pub fn parse_duration(name: &str, text: &str) -> Result<SignedDuration, Error> {
    text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive).ok_or_else(|| Error::Value {
        name: name.to_owned(),
        value: text.to_owned(),
        wanted: "a length of time (such as `15m` or `1h`)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn surroundings(vars: &[(&str, &str)], cwd: &Path) -> Surroundings {
        Surroundings {
            env: vars.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            cwd: cwd.to_owned(),
        }
    }

    pub(super) fn with_file(text: &str, flags: Flags) -> Result<Config, Error> {
        let dir = tempfile::tempdir().unwrap();
        crate::disk::write(&dir.path().join(FILE), text.as_bytes()).unwrap();
        Config::load(&surroundings(&[("HOME", "/h")], Path::new("/c")), flags, Some(dir.path()))
    }

    #[test]
    fn a_target_overrides_the_file_and_a_flag_overrides_both() {
        let text = "max_age = \"30m\"\nstrength = \"restored\"\n[targets.\"h:1/d\"]\nmax_age = \"1h\"\n";
        let config = with_file(text, Flags::default()).unwrap();
        assert_eq!(config.policy(&["other"]).unwrap().max_age, SignedDuration::from_mins(30));
        assert_eq!(config.policy(&["unknown", "h:1/d"]).unwrap().max_age, SignedDuration::from_mins(60));
        assert_eq!(config.policy(&["unknown", "h:1/d"]).unwrap().strength, Strength::Restored);
        let flags = Flags { max_age: Some(SignedDuration::from_secs(5)), ..Flags::default() };
        let config = with_file(text, flags).unwrap();
        assert_eq!(config.policy(&["unknown", "h:1/d"]).unwrap().max_age, SignedDuration::from_secs(5));
        assert_eq!(config.state_dir, PathBuf::from("/h/.local/state/supa-safe"));
    }

    #[test]
    fn days_are_read() {
        let keep =
            |text: &str| with_file(&format!("keep = \"{text}\""), Flags::default()).unwrap().keep(&["x"]);
        assert_eq!(keep("2w").unwrap(), SignedDuration::from_hours(14 * 24));
        assert_eq!(keep("1d 12h").unwrap(), SignedDuration::from_hours(36));
        for wrong in ["", "0d", "-1d", "14", "1 month", "ever"] {
            assert!(keep(wrong).is_err(), "{wrong}");
        }
        let text = "keep = \"30d\"\n[targets.\"h:1/d\"]\nkeep = \"60d\"\n";
        let config = with_file(text, Flags::default()).unwrap();
        let days = |target| config.keep(target).unwrap().as_hours() / 24;
        assert_eq!((days(&["other"]), days(&["h:1/d"])), (30, 60));
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        let message = |text: &str| {
            let error = with_file(text, Flags::default()).unwrap_err();
            std::error::Error::source(&error).unwrap().to_string()
        };
        assert!(message("max_ages = 1").starts_with("TOML parse error at line 1, column 1"));
        let config = with_file("max_age = \"soon\"", Flags::default()).unwrap();
        assert_eq!(
            config.policy(&["x"]).unwrap_err().to_string(),
            "`soon` is not a length of time (such as `15m` or `1h`) for `max_age`"
        );
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let name = |text: &str| match with_file(text, Flags::default()) {
            Err(Error::Value { name, .. }) => Some(name),
            _ => None,
        };
        for (text, expected) in [
            ("[hook]\nbranches = []", "[hook] branches"),
            ("[hook]\nbranches = [\" \"]", "[hook] branches"),
            ("[targets.\"\"]\nmax_age = \"1h\"", "[targets]"),
            ("[secrets.STRIPE_KEY]\ncheck = \"\"", "[secrets.STRIPE_KEY] check"),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(name("[hook]\nbranches = [\"main\"]\n[secrets.A]\ncheck = \"true\""), None);
    }

    #[test]
    fn the_sample_is_a_policy_file_with_the_defaults() {
        let switched_on: String = SAMPLE
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| rest.contains(" = ") && !rest.starts_with(' '))
                    .unwrap_or(line)
            })
            .filter(|line| !line.starts_with("state_dir") && !line.starts_with("root_cert"))
            .map(|line| format!("{line}\n"))
            .collect::<Vec<_>>()
            .concat()
            .replace("#[", "[");
        let config = with_file(&switched_on, Flags::default()).unwrap();
        assert_eq!(config.policy(&["other"]).unwrap(), Policy::default());
        let nothing = with_file("", Flags::default()).unwrap();
        assert_eq!(config.hook_branches(), nothing.hook_branches());
        assert_eq!(config.keep(&["other"]).unwrap(), nothing.keep(&["other"]).unwrap());
    }

    #[test]
    fn the_sample_names_the_projects_of_the_configuration() {
        let id = "bcdefghijklmnopqrstu";
        let text = sample(&[("prod\n[x]".to_owned(), id.parse().unwrap())]);
        assert_eq!(text.matches(id).count(), 1);
        assert!(with_file(&text, Flags::default()).unwrap().file.targets.is_empty());
        let switched_on = text
            .replace("#[targets.bcd", "[targets.bcd")
            .replace("#max_age = \"15m\"\n#strength", "max_age = \"1h\"\n#strength");
        let policy = with_file(&switched_on, Flags::default()).unwrap().policy(&[id]).unwrap();
        assert_eq!(policy.max_age, SignedDuration::from_hours(1));
        assert_eq!(sample(&[]), SAMPLE);
    }

    #[test]
    fn an_agent_gives_itself_away() {
        let agent = |vars: &[(&str, &str)]| surroundings(vars, Path::new("/")).agent();
        assert_eq!(agent(&[("CLAUDECODE", "1")]), Some("CLAUDECODE"));
        assert_eq!(agent(&[("CLAUDECODE", "")]), None);
        assert_eq!(agent(&[("CURSOR_EXTENSION_HOST_ROLE", "user")]), None);
    }
}
