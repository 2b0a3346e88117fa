//! `pg_restore` and `psql`: their commands.

use crate::plan::{Place, RestoreStep};
use crate::proc::Cmd;
use crate::tools::Login;
use crate::tools::installs::Installation;
use std::collections::BTreeMap;
use std::path::Path;

/// The command that prints an archive's table of contents.
pub fn list(installation: &Installation, archive: &Path) -> Cmd {
    plain(installation).arg("--list").arg(archive)
}

/// The command that decodes the rows of a list and prints them; `--list` reads only the head of an
/// archive and accepts a file that was cut in half.
pub fn decode_rows(installation: &Installation, archive: &Path, list: &Path) -> Cmd {
    plain(installation)
        .args(["--section=data", "--file=-"])
        .arg(format!("--use-list={}", list.display()))
        .arg(archive)
}

/// The command that prints the entries of a list as SQL.
pub fn script(installation: &Installation, archive: &Path, list: &Path) -> Cmd {
    plain(installation).arg("--file=-").arg(format!("--use-list={}", list.display())).arg(archive)
}

/// A part of an archive, in the order in which a restore runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Definitions that rows need.
    PreData,
    /// Rows, sequences, and large objects.
    Data,
    /// Definitions that need rows.
    PostData,
}

impl Section {
    /// Its name, as `--section` takes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::PreData => "pre-data",
            Self::Data => "data",
            Self::PostData => "post-data",
        }
    }
}

/// The command that prints the listed entries of a section as SQL.
pub fn section(installation: &Installation, archive: &Path, list: &Path, section: Section) -> Cmd {
    plain(installation)
        .args(["--file=-", "--no-tablespaces"])
        .arg(format!("--section={}", section.word()))
        .arg(format!("--use-list={}", list.display()))
        .arg(archive)
}

/// Takes the setting that servers before 17 do not know out of the script's header, which ends with
/// the encoding; neither a definition nor a row comes before that line
/// (`src/bin/pg_dump/pg_backup_archiver.c`, `_doSetFixedOutputState`).
const FIT_HEADER: &str = "1,/^SET client_encoding = /{/^SET transaction_timeout = 0;$/d;}";

/// Where the steps of a restore run: with which programs, against which server, on which files.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// The programs; those of `PATH` without it.
    pub installation: Option<&'a Installation>,
    /// How to sign in; by the environment of whoever runs the commands without it.
    pub server: Option<Login<'a>>,
    /// The same, for the database that is restored.
    pub restored: Option<Login<'a>>,
    /// Name of that database.
    pub database: &'a str,
    /// The snapshot's folder.
    pub snapshot: &'a Path,
    /// What to restore.
    pub list: &'a Path,
}

/// The command of a step.
pub fn step(step: &RestoreStep, site: &Site<'_>) -> Cmd {
    match step {
        RestoreStep::File { place, file } => {
            psql(*place, site).arg(format!("--file={}", site.snapshot.join(file).display()))
        }
        RestoreStep::Statement { place, sql } => psql(*place, site).arg(format!("--command={sql}")),
        RestoreStep::Archive { is_older: false, jobs } => program("pg_restore", Place::Database, site)
            .args(["--no-password", "--exit-on-error", "--no-tablespaces"])
            .arg(format!("--jobs={jobs}"))
            .arg(format!("--dbname={}", site.database))
            .arg(format!("--use-list={}", site.list.display()))
            .arg(site.snapshot.join("database/archive")),
        RestoreStep::Archive { is_older: true, .. } => {
            let path = site.installation.map_or_else(|| "pg_restore".into(), |at| at.program("pg_restore"));
            let script = Cmd::new(path)
                .args(["--file=-", "--no-tablespaces"])
                .arg(format!("--use-list={}", site.list.display()))
                .arg(site.snapshot.join("database/archive"));
            let path = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
            let fit = Cmd::new("sed").env_base(&path).env("LC_ALL", "C").arg(FIT_HEADER);
            psql(Place::Database, site).arg("--output=/dev/null").input_from(fit.input_from(script))
        }
    }
}

fn psql(place: Place, site: &Site<'_>) -> Cmd {
    let database = match place {
        Place::Server => "postgres",
        Place::Database => site.database,
    };
    program("psql", place, site)
        .args(["--no-password", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
        .arg(format!("--dbname={database}"))
}

fn program(name: &str, place: Place, site: &Site<'_>) -> Cmd {
    let path = site.installation.map_or_else(|| name.into(), |installation| installation.program(name));
    let login = match place {
        Place::Server => &site.server,
        Place::Database => &site.restored,
    };
    login.as_ref().map_or_else(|| Cmd::new(&path), |login| login.cmd(path.clone()))
}

fn plain(installation: &Installation) -> Cmd {
    Cmd::new(installation.program("pg_restore")).env("LC_ALL", "C")
}
