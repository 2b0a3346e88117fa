//! The real Supabase CLI: found, identified, and told what to push and where.
//!
//! Flags differ by major version. The environment is cleaned of everything that could lead a push
//! elsewhere, and the working directory is an empty folder, because the CLI's runtime loads `.env` files
//! from there before the CLI starts.

mod answer;
pub mod cloud;
mod login;

pub use login::{Login, LoginError};
pub mod env_file;

pub use answer::{Answer, AnswerError, Code, Problem, Progress, Report, SqlProblem, Told, answer, progress};

use crate::disk;
use crate::migration::Flags;
use crate::proc::{self, Cmd};
use crate::target::{Connection, SslMode};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The oldest CLI whose `db push` answers in JSON and whose way of sending a file is known.
pub const MINIMUM: Version = Version { major: 2, minor: 110, patch: 0 };
/// A line that our own `supabase` in front of the real one carries.
pub const SHIM_MARK: &str = "supa-safe shim";
/// `application_name` of the CLI's sessions, in majors 2 and 3.
pub const APPLICATION_NAME: &str = "@effect/sql-pg";
/// `--version` takes about a second; a first start on a cold disk takes longer.
const VERSION_TIMEOUT: Duration = Duration::from_mins(1);
/// Up to this size a program is identified by its content.
const HASHED_BYTES: u64 = 1 << 20;
/// Variables of the CLI that cannot change what a push does or where.
const KEPT: [&str; 6] = [
    "SUPABASE_ACCESS_TOKEN",
    "SUPABASE_PROFILE",
    "SUPABASE_HOME",
    "SUPABASE_SCANNER_BUFFER_SIZE",
    "SUPABASE_TELEMETRY_DISABLED",
    "SUPABASE_NO_UPDATE_NOTIFIER",
];

/// Why there is no CLI to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was found.
    #[error("the `supabase` command was not found in the project's `node_modules` or on PATH")]
    NotFound,
    /// The one asked for by path is not there.
    #[error("`{}` is not a program that can be run", .0.display())]
    NotAProgram(PathBuf),
    /// It is our own stand-in.
    #[error("`{}` is supa-safe's own shim, not the real command", .0.display())]
    OwnShim(PathBuf),
    /// It could not be run.
    #[error("cannot ask `{}` for its version", .path.display())]
    Version {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: proc::Error,
    },
    /// Its version cannot be read.
    #[error("`{} --version` printed `{printed}`, which is not a version", .path.display())]
    NotAVersion {
        /// The program.
        path: PathBuf,
        /// What it printed.
        printed: String,
    },
    /// It is too old.
    #[error(
        "`{}` is version {version}; {MINIMUM} or newer is needed: older ones answer `db push` with plain text only",
        .path.display()
    )]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// It could not be looked at.
    #[error("cannot identify `{}`", .path.display())]
    Identify {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A version of the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// Decides the flags.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number.
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let numbers = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch)), None) => Ok(Self { major, minor, patch }),
            _ => Err(()),
        }
    }
}

/// Where to look for the CLI.
#[derive(Clone, Debug)]
pub struct Search {
    /// A path given by the user; nothing else is looked at then.
    pub explicit: Option<PathBuf>,
    /// Where the search for `node_modules` begins, upward.
    pub project_root: PathBuf,
    /// The environment: `PATH`, and what the CLI inherits.
    pub env: BTreeMap<OsString, OsString>,
}

/// The CLI that will be used.
#[derive(Clone, Debug)]
pub struct Supabase {
    /// Where it was found.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
    /// Digest of what identifies it: version and content, or size and time of a large binary.
    pub sha256: String,
    /// The CLI on `PATH`, when its major is another one than the project's own.
    pub other_on_path: Option<(PathBuf, Version)>,
    program: PathBuf,
    env: BTreeMap<OsString, OsString>,
}

/// What to push, and where.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    /// The target; its password goes by environment.
    pub connection: &'a Connection,
    /// How strictly TLS is checked.
    pub ssl_mode: SslMode,
    /// The frozen copy of the project.
    pub frozen_dir: &'a Path,
    /// An empty folder to run in.
    pub empty_dir: &'a Path,
    /// The flags.
    pub flags: Flags,
    /// Environment variables that entries of the vault come from.
    pub vault_variables: &'a [String],
}

/// Finds the CLI: the explicit one, the project's own, the one on `PATH`.
pub async fn find(search: &Search) -> Result<Supabase, Error> {
    if let Some(path) = &search.explicit {
        if !is_program(path) {
            return Err(Error::NotAProgram(path.clone()));
        }
        if is_own_shim(path) {
            return Err(Error::OwnShim(path.clone()));
        }
        return identify(path, search).await;
    }
    let usable = |path: &PathBuf| is_program(path) && !is_own_shim(path);
    let local = search
        .project_root
        .ancestors()
        .map(|dir| dir.join("node_modules/.bin/supabase"))
        .find(|path| usable(path));
    let path_list = search.env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let global = std::env::split_paths(&path_list).map(|dir| dir.join("supabase")).find(usable);
    let Some(local) = local else {
        return identify(&global.ok_or(Error::NotFound)?, search).await;
    };
    let mut found = identify(&local, search).await?;
    if let Some(global) = global.filter(|global| program_of(global) != found.program) {
        // What else is on PATH is worth a note, never an error.
        let other = version_of(&program_of(&global), search).await.ok();
        found.other_on_path =
            other.filter(|version| version.major != found.version.major).map(|version| (global, version));
    }
    Ok(found)
}

async fn identify(path: &Path, search: &Search) -> Result<Supabase, Error> {
    let program = program_of(path);
    let version = version_of(&program, search).await?;
    if version < MINIMUM {
        return Err(Error::TooOld { path: path.to_owned(), version });
    }
    let sha256 =
        identity_of(&program, version).map_err(|source| Error::Identify { path: program.clone(), source })?;
    let env = search.env.clone();
    Ok(Supabase { path: path.to_owned(), version, sha256, other_on_path: None, program, env })
}

async fn version_of(program: &Path, search: &Search) -> Result<Version, Error> {
    let output = Cmd::new(program)
        .arg("--version")
        .env_base(&clean_env(&search.env, &[]))
        .env("SUPABASE_NO_UPDATE_NOTIFIER", "1")
        .dir("/")
        .timeout(VERSION_TIMEOUT)
        .run()
        .await
        .map_err(|source| Error::Version { path: program.to_owned(), source })?;
    let printed = output.stdout.trim().to_owned();
    printed.parse().map_err(|()| Error::NotAVersion { path: program.to_owned(), printed })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether a file is a script of ours that stands in front of the real command.
fn is_own_shim(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.is_ok() && head.windows(SHIM_MARK.len()).any(|window| window == SHIM_MARK.as_bytes())
}

/// The platform's binary behind npm's `dist/supabase.js`, found as Node would find it; otherwise the
/// file itself. Without Node in between, the process that is watched is the one that pushes.
fn program_of(path: &Path) -> PathBuf {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if !real.ends_with("dist/supabase.js") {
        return real;
    }
    let (system, arch) = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("macos", "aarch64") => ("darwin", "arm64"),
        ("macos", _) => ("darwin", "x64"),
        (_, "aarch64") => ("linux", "arm64"),
        _ => ("linux", "x64"),
    };
    let binary = |dir: &Path, libc: &str| {
        dir.join(format!("node_modules/@supabase/cli-{system}-{arch}{libc}/bin/supabase"))
    };
    let found = real
        .ancestors()
        .flat_map(|dir| ["", "-musl"].map(|libc| binary(dir, libc)))
        .find(|candidate| is_program(candidate));
    found.unwrap_or(real)
}

fn identity_of(program: &Path, version: Version) -> io::Result<String> {
    let meta = fs::metadata(program)?;
    let content = if meta.len() <= HASHED_BYTES {
        disk::sha256_file(program)?.0
    } else {
        format!("{} bytes, modified {}.{:09}", meta.len(), meta.mtime(), meta.mtime_nsec())
    };
    Ok(disk::sha256(format!("supabase {version}\n{content}\n").as_bytes()))
}

/// The environment without what could redirect a push or stand over its configuration.
fn clean_env(env: &BTreeMap<OsString, OsString>, wanted: &[String]) -> BTreeMap<OsString, OsString> {
    let passes = |name: &str| {
        let known = KEPT.contains(&name) || wanted.iter().any(|wanted| wanted == name);
        known || !(name.starts_with("PG") || name.starts_with("SUPABASE_"))
    };
    let kept = env.iter().filter(|(name, _)| name.to_str().is_none_or(passes));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Supabase {
    /// The same CLI in another environment.
    #[must_use]
    pub fn with_env(self, env: BTreeMap<OsString, OsString>) -> Self {
        Self { env, ..self }
    }

    /// What identifies this CLI for a rehearsal, and for a person.
    pub fn name(&self) -> String {
        format!("supabase {} ({})", self.version, self.path.display())
    }

    /// Asks what a push would do; nothing is changed.
    pub fn dry_run(&self, push: &Push<'_>) -> Cmd {
        self.db_push(push).arg("--dry-run")
    }

    /// Pushes. Who runs it chooses the process group and how to wait.
    pub fn push(&self, push: &Push<'_>) -> Cmd {
        self.db_push(push).arg("--yes")
    }

    fn db_push(&self, push: &Push<'_>) -> Cmd {
        let Push { connection, flags, .. } = push;
        let url = connection.url_without_password(push.ssl_mode);
        let target =
            if self.version.major >= 3 { format!("--remote={url}") } else { format!("--db-url={url}") };
        let wanted = if flags.with_vault { push.vault_variables } else { &[] };
        let mut cmd = Cmd::new(&self.program)
            .args(["db", "push", &target])
            .args(["--output-format", "json", "--agent", "no", "--workdir"])
            .arg(push.frozen_dir)
            .env_base(&clean_env(&self.env, wanted))
            .env("SUPABASE_NO_UPDATE_NOTIFIER", "1")
            .dir(push.empty_dir);
        let switches = [
            (flags.include_all, "--include-all"),
            (flags.include_roles, "--include-roles"),
            (flags.include_seed, "--include-seed"),
            (!flags.with_vault, "--skip-vault"),
        ];
        for (_, switch) in switches.iter().filter(|(on, _)| *on) {
            cmd = cmd.arg(switch);
        }
        match connection.password() {
            Some(password) => cmd.secret("PGPASSWORD", &password),
            None => cmd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;
    use crate::target::Defaults;

    fn program(path: &Path, text: &str) {
        disk::make_private_dir(path.parent().unwrap()).unwrap();
        disk::write(path, text.as_bytes()).unwrap();
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn search(root: &Path, on_path: &Path) -> Search {
        let env = [("PATH", format!("{}:/usr/bin:/bin", on_path.display()))];
        Search {
            explicit: None,
            project_root: root.to_owned(),
            env: env.map(|(name, value)| (name.into(), value.into())).into(),
        }
    }

    #[test]
    fn versions_are_read() {
        let read = |text: &str| text.parse::<Version>().ok().map(|version| version.to_string());
        assert_eq!(read("2.122.1\n").as_deref(), Some("2.122.1"));
        assert_eq!(read("v3.1.0-beta.2").as_deref(), Some("3.1.0"));
        assert_eq!([read(""), read("dev"), read("3.1"), read("1.2.3.4")], [const { None }; 4]);
        assert!("2.99.0".parse::<Version>().unwrap() < MINIMUM);
    }

    #[tokio::test]
    async fn the_projects_own_cli_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let (app, bin) = (dir.path().join("repo/app"), dir.path().join("bin"));
        program(&bin.join("supabase"), "#!/bin/sh\necho 3.1.0\n");
        let found = find(&search(&app, &bin)).await.unwrap();
        assert_eq!((found.path, found.version.major), (bin.join("supabase"), 3));

        let local = dir.path().join("repo/node_modules/.bin/supabase");
        program(&local, "#!/bin/sh\necho 2.122.1\n");
        let found = find(&search(&app, &bin)).await.unwrap();
        assert_eq!((&found.path, found.version.major), (&local, 2));
        assert_eq!(found.other_on_path.unwrap().1.major, 3);

        program(&local, "#!/bin/sh\n# supa-safe shim\necho 2.122.1\n");
        let found = find(&search(&app, &bin)).await.unwrap();
        assert_eq!(found.path, bin.join("supabase"));
    }

    #[tokio::test]
    async fn a_cli_that_cannot_be_used_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("supabase");
        let message = async |text: &str| {
            program(&path, text);
            let search = Search { explicit: Some(path.clone()), ..search(dir.path(), dir.path()) };
            let error = find(&search).await.unwrap_err().to_string();
            error.replace(&path.display().to_string(), "X")
        };
        assert_eq!(
            message("#!/bin/sh\necho 2.109.1").await,
            "`X` is version 2.109.1; 2.110.0 or newer is needed: older ones answer `db push` with plain text only"
        );
        assert_eq!(
            message("#!/bin/sh\necho dev").await,
            "`X --version` printed `dev`, which is not a version"
        );
        assert_eq!(message("# supa-safe shim").await, "`X` is supa-safe's own shim, not the real command");
        fs::remove_file(&path).unwrap();
        let nothing = find(&search(dir.path(), dir.path())).await.unwrap_err();
        assert!(matches!(nothing, Error::NotFound), "{nothing}");
    }

    #[tokio::test]
    async fn the_binary_behind_npms_script_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("node_modules");
        program(&modules.join("supabase/dist/supabase.js"), "#!/bin/sh\necho 0.0.0\n");
        for (system, arch) in [("linux", "x64"), ("linux", "arm64"), ("darwin", "x64"), ("darwin", "arm64")] {
            let binary = format!("@supabase/cli-{system}-{arch}/bin/supabase");
            program(&modules.join(binary), "#!/bin/sh\necho 3.1.0\n");
        }
        disk::make_private_dir(&modules.join(".bin")).unwrap();
        std::os::unix::fs::symlink("../supabase/dist/supabase.js", modules.join(".bin/supabase")).unwrap();
        let found = find(&search(dir.path(), Path::new("/nonexistent"))).await.unwrap();
        assert_eq!(found.version.to_string(), "3.1.0");
    }

    #[test]
    fn flags_follow_the_major_and_nothing_redirects() {
        let mut connection =
            Connection::from_url("postgresql://postgres@127.0.0.1:5433/postgres", &Defaults::default())
                .unwrap();
        connection.password = Some(Secret::new("p@ss word"));
        let env = [
            "PATH",
            "PGHOST",
            "PGSERVICE",
            "SUPABASE_DB_SEED_ENABLED",
            "SUPABASE_PROJECT_ID",
            "SUPABASE_YES",
        ];
        let cli = |major: u32| Supabase {
            path: PathBuf::from("supabase"),
            version: Version { major, minor: 122, patch: 1 },
            sha256: String::new(),
            other_on_path: None,
            program: PathBuf::from("supabase"),
            env: env.map(|name| (name.into(), "x".into())).into(),
        };
        let push = Push {
            connection: &connection,
            ssl_mode: SslMode::Require,
            frozen_dir: Path::new("/frozen"),
            empty_dir: Path::new("/empty"),
            flags: Flags { include_all: true, ..Flags::default() },
            vault_variables: &[],
        };
        assert_eq!(
            cli(2).push(&push).to_string(),
            "PGPASSWORD=**** SUPABASE_NO_UPDATE_NOTIFIER=1 supabase db push \
             '--db-url=postgresql://postgres@127.0.0.1:5433/postgres?sslmode=require' \
             --output-format json --agent no --workdir /frozen --include-all --skip-vault --yes"
        );
        let flags = Flags { with_vault: true, include_seed: true, include_roles: true, include_all: false };
        assert_eq!(
            cli(3).dry_run(&Push { flags, ..push }).to_string(),
            "PGPASSWORD=**** SUPABASE_NO_UPDATE_NOTIFIER=1 supabase db push \
             '--remote=postgresql://postgres@127.0.0.1:5433/postgres?sslmode=require' \
             --output-format json --agent no --workdir /frozen --include-roles --include-seed --dry-run"
        );
        let kept = clean_env(&cli(3).env, &["SUPABASE_YES".to_owned()]);
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["PATH", "SUPABASE_YES"]);
    }
}
