//! `pg_dump` and `pg_dumpall`: their commands, and how their output is made fit.

use crate::manifest::quote_identifier;
use crate::proc::Cmd;
use crate::tools::Login;
use crate::tools::installs::Installation;
use std::path::Path;

/// How the archive's files are compressed.
///
/// zstd at level 3 is about three times as fast as gzip here; only clients from 16 on can have it,
/// and not every build has (PostgreSQL documentation, `pg_dump --compress`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `zstd:3`.
    Zstd,
    /// `gzip:6`, or level 6 for old clients.
    Gzip,
}

impl Compression {
    /// What it adds to the name of a file.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
        }
    }

    fn value(self, major: u32) -> &'static str {
        match self {
            Self::Zstd => "zstd:3",
            Self::Gzip if major >= 16 => "gzip:6",
            Self::Gzip => "6",
        }
    }
}

/// What to dump, and how.
#[derive(Clone, Debug)]
pub struct Dump<'a> {
    /// Name of the exported snapshot.
    pub snapshot: &'a str,
    /// The folder to make.
    pub folder: &'a Path,
    /// Connections that copy rows.
    pub jobs: u32,
    /// Compression of the files.
    pub compression: Compression,
    /// Tables that cannot be read, as quoted patterns.
    pub without: &'a [String],
    /// Tables whose rows are left away, as quoted patterns.
    pub without_rows: &'a [String],
    /// Whether to ask for times in UTC: the target's sessions have another time zone by themselves.
    pub in_utc: bool,
}

/// The command that dumps the whole database in directory format.
///
/// `--lock-wait-timeout`: without it `pg_dump` waits for ever behind a lock, and every statement
/// that wants a stronger lock queues behind it.
pub fn dump(installation: &Installation, login: &Login<'_>, dump: &Dump<'_>) -> Cmd {
    let cmd = login.cmd(installation.bin_dir.join("pg_dump"));
    let cmd = if dump.in_utc { cmd.env("PGTZ", "UTC") } else { cmd };
    cmd.arg("--no-password")
        .arg("--verbose")
        .arg("--format=directory")
        .arg(format!("--file={}", dump.folder.display()))
        .arg(format!("--snapshot={}", dump.snapshot))
        .arg(format!("--jobs={}", dump.jobs))
        .arg(format!("--compress={}", dump.compression.value(installation.major)))
        .arg("--lock-wait-timeout=10s")
        .args(assumed_role(login))
        .args(dump.without.iter().map(|pattern| format!("--exclude-table={pattern}")))
        .args(dump.without_rows.iter().map(|pattern| format!("--exclude-table-data={pattern}")))
}

/// The command that dumps the definitions alone, but for tables that match these patterns: it locks what it
/// dumps, and who may not read a table may not lock it.
pub fn definitions(installation: &Installation, login: &Login<'_>, file: &Path, without: &[String]) -> Cmd {
    login
        .cmd(installation.bin_dir.join("pg_dump"))
        .args(["--no-password", "--schema-only", "--format=custom"])
        .arg(format!("--file={}", file.display()))
        .args(assumed_role(login))
        .args(without.iter().map(|pattern| format!("--exclude-table={pattern}")))
}

/// A pattern that means exactly this table.
pub fn pattern(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// The command that prints roles, memberships, and role settings, without password hashes.
pub fn roles(installation: &Installation, login: &Login<'_>) -> Cmd {
    login
        .cmd(installation.bin_dir.join("pg_dumpall"))
        .arg("--no-password")
        .arg("--roles-only")
        .arg("--no-role-passwords")
        .arg(format!("--database={}", login.connection.database))
        .args(assumed_role(login))
}

/// What makes a temporary role work as the owner.
fn assumed_role(login: &Login<'_>) -> Option<String> {
    login.connection.assumed_role().map(|role| format!("--role={role}"))
}

/// The command that tells whether this build of `pg_dump` can compress with zstd: it checks its
/// options before it connects.
pub fn probe_zstd(installation: &Installation) -> Cmd {
    Cmd::new(installation.bin_dir.join("pg_dump")).env("LC_ALL", "C").args([
        "--no-password",
        "--format=custom",
        "--compress=zstd:3",
        "--host=/nonexistent",
        "--file=/dev/null",
    ])
}

/// Whether the answer to [`probe_zstd`] is about the connection, so that zstd was accepted.
pub fn has_zstd(stderr: &str) -> bool {
    stderr.contains("connection to server")
}

/// The table that a line of `pg_dump --verbose` is about.
pub fn dumped_table(line: &str) -> Option<&str> {
    let (_, after) = line.split_once("dumping contents of table ")?;
    Some(after.trim_matches('"'))
}

/// Whether a dump ended since somebody asked for a table against its readers after it had begun: its workers
/// take their locks without waiting, or they would wait for whoever waits for their leader
/// (`lockTableForWorker` of `parallel.c`).
pub fn lost_a_lock(stderr: &str) -> bool {
    stderr.contains("could not obtain lock on relation")
}

/// Makes the output of `pg_dumpall --roles-only` fit for an empty server whose owner is
/// `bootstrap_role`: without the lines that only `psql` of the same age reads, and without the
/// creation of a role that is there already.
pub fn fit_roles(script: &str, bootstrap_role: &str) -> String {
    let quoted = crate::manifest::quote_identifier(bootstrap_role);
    let created = [format!("CREATE ROLE {bootstrap_role};"), format!("CREATE ROLE {quoted};")];
    let mut fit = String::with_capacity(script.len());
    for line in script.lines() {
        if line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ")
            || created.iter().any(|known| known == line)
        {
            continue;
        }
        fit.push_str(line);
        fit.push('\n');
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_fit_an_empty_server() {
        let script = "\\restrict abc\nCREATE ROLE supabase_admin;\nALTER ROLE supabase_admin WITH SUPERUSER;\nCREATE ROLE app;\n\\unrestrict abc\n";
        assert_eq!(
            fit_roles(script, "supabase_admin"),
            "ALTER ROLE supabase_admin WITH SUPERUSER;\nCREATE ROLE app;\n"
        );
    }

    #[test]
    fn a_lock_that_a_worker_did_not_get() {
        assert!(lost_a_lock(
            "  pg_dump: error: could not obtain lock on relation \"public.notes\"\n  This usually means that someone \
             requested an ACCESS EXCLUSIVE lock on the table after the pg_dump parent process had gotten the \
             initial ACCESS SHARE lock on the table.\n  pg_dump: error: a worker process died unexpectedly"
        ));
        assert!(!lost_a_lock(
            "pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout"
        ));
    }

    #[test]
    fn the_table_of_a_verbose_line() {
        assert_eq!(
            dumped_table("pg_dump: dumping contents of table \"public.orders\""),
            Some("public.orders")
        );
        assert_eq!(dumped_table("pg_dump: reading schemas"), None);
    }

    #[test]
    fn the_probe_tells_an_option_from_a_connection() {
        assert!(!has_zstd(
            "pg_dump: error: invalid compression specification: this build does not support compression with ZSTD"
        ));
        assert!(has_zstd(
            "pg_dump: error: connection to server on socket \"/nonexistent/.s.PGSQL.5432\" failed: No such file"
        ));
    }
}
