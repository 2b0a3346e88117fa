//! The programs that supa-safe runs: builds their commands and reads their output.

pub mod container;
pub mod git;
pub mod installs;
pub mod pg_dump;
pub mod pg_restore;
pub mod supabase;

use crate::proc::Cmd;
use crate::target::Connection;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

/// How a Postgres tool signs in: the connection as libpq's environment, the password beside it.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// Where to.
    pub connection: &'a Connection,
}

impl Login<'_> {
    /// Starts a command with this login. Nothing else of libpq's environment reaches the program,
    /// so that a stray `PGOPTIONS` or `PGSERVICE` cannot lead it elsewhere.
    pub fn cmd(&self, program: PathBuf) -> Cmd {
        let mut cmd = Cmd::new(program).env("LC_ALL", "C");
        for (name, value) in self.connection.tool_env() {
            cmd = cmd.env(name, value);
        }
        match self.connection.password() {
            Some(password) => cmd.secret("PGPASSWORD", &password),
            None => cmd,
        }
    }
}

/// What this machine has, and where runs may put things.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The environment for programs that need one.
    pub env: BTreeMap<OsString, OsString>,
    /// Postgres installations, best first.
    pub installations: Vec<installs::Installation>,
    /// Folder for scratch servers.
    pub temp_dir: PathBuf,
    /// This very program, for the keeper.
    pub own_program: PathBuf,
}
