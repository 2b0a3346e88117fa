//! A server of this machine's own programs.

use super::super::{DATA, Error, LOG, PASSWORD};
use super::{End, Place, Report, report};
use crate::disk;
use crate::proc::{self, Cmd, Running, Signal, User};
use fs_err as fs;
use futures_util::FutureExt as _;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long initdb may take; it takes less than a second.
const INITDB_TIMEOUT: Duration = Duration::from_mins(2);
/// How long the server may take until it accepts connections.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// How long an immediate shutdown may take: after 5 s the server kills its own children.
const SERVER_GRACE: Duration = Duration::from_secs(8);
/// How often a starting server is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How many ports are tried.
const ATTEMPTS: usize = 5;

/// A scratch on programs of this machine.
struct Local<'a> {
    place: &'a Place,
    bin_dir: &'a Path,
    run_as: Option<&'a User>,
}

impl Local<'_> {
    fn data(&self) -> PathBuf {
        self.place.dir.join(DATA)
    }

    /// A program of the installation, with an environment that holds nothing of the person's.
    fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.bin_dir.join(name))
            .dir(&self.place.dir)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .as_user(self.run_as.cloned())
            .log(self.place.dir.join(LOG))
    }

    fn initdb(&self) -> Cmd {
        // On macOS `UTF-8` is a character type of its own, and `C.UTF-8` may be missing.
        let locale: &[&str] = if cfg!(target_os = "macos") {
            &["--locale=C", "--lc-ctype=UTF-8"]
        } else {
            &["--locale=C.UTF-8"]
        };
        self.program("initdb")
            .arg("--pgdata")
            .arg(self.data())
            .arg(format!("--username={}", self.place.spec.superuser))
            .arg("--pwfile")
            .arg(self.place.dir.join(PASSWORD))
            .args(locale)
            .args(["--encoding=UTF8", "--auth=scram-sha-256", "--no-sync", "--no-instructions"])
            .timeout(INITDB_TIMEOUT)
    }

    /// The server; dropped, it is asked for an immediate shutdown, since its data are thrown away.
    fn server(&self, port: u16) -> Cmd {
        let own = [
            format!("port={port}"),
            // The programs are the person's own, and load nothing of theirs.
            "shared_preload_libraries=".to_owned(),
            "unix_socket_directories=".to_owned(),
        ];
        let settings =
            self.place.spec.settings(&own).into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        self.program("postgres").arg("-D").arg(self.data()).args(settings).stop_by(Signal::QUIT, SERVER_GRACE)
    }
}

/// Keeps a server of this machine's programs.
pub(super) async fn keep(
    place: &Place,
    bin_dir: &Path,
    run_as: Option<&User>,
    end: &mut End,
) -> Result<(), Error> {
    let local = &Local { place, bin_dir, run_as };
    // Neither of the two is cut short. A killed initdb leaves a segment of shared memory behind, and
    // so does a server that is asked to quit before it listens to signals: a run in the background
    // of a script inherits that SIGQUIT is ignored.
    initialize(local).await?;
    if end.asked().now_or_never().is_some() {
        return Ok(());
    }
    let (server, port) = bring_up(local).await?;
    report(&Report::Ready { dir: place.dir.clone(), port });
    tokio::select! {
        output = server.wait() => {
            let output = output?;
            Err(Error::Died { ended: output.ended, tail: proc::indented_tail(&output.stderr) })
        }
        // The server is dropped here, and with that it is stopped.
        () = end.asked() => Ok(()),
    }
}

async fn initialize(local: &Local<'_>) -> Result<(), Error> {
    let password_path = local.place.dir.join(PASSWORD);
    let prepare = || {
        let owner = local.run_as.map(|user| (user.uid, user.gid));
        disk::make_private_dir(&local.data())?;
        disk::give_to(&local.data(), owner)?;
        disk::write(&password_path, local.place.spec.password.expose().as_bytes())?;
        disk::give_to(&password_path, owner)
    };
    prepare().map_err(|source| local.place.folder_error(source))?;
    local.initdb().run().await?;
    fs::remove_file(password_path).map_err(|source| local.place.folder_error(source))
}

async fn bring_up(local: &Local<'_>) -> Result<(Running, u16), Error> {
    // Between finding a free port and using it, another process may take it. Whatever ended the
    // server, another port is tried; what has another cause fails again, and quickly.
    let mut attempt = 1;
    loop {
        let port = free_port().map_err(|source| local.place.folder_error(source))?;
        match start_server(local, port).await {
            Ok(server) => return Ok((server, port)),
            Err(Error::NotStarted { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn start_server(local: &Local<'_>, port: u16) -> Result<Running, Error> {
    let server = local.server(port).start()?;
    let pid_file = local.data().join("postmaster.pid");
    let came_up = async {
        loop {
            if server.try_wait()?.is_some() {
                return Ok(false);
            }
            if is_ready(&fs::read_to_string(&pid_file).unwrap_or_default(), server.pid()) {
                return Ok::<bool, Error>(true);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let came_up = tokio::time::timeout(READY_TIMEOUT, came_up).await;
    if came_up.map_err(|_| Error::NotReady(READY_TIMEOUT))?? {
        return Ok(server);
    }
    let output = server.wait().await?;
    Err(Error::NotStarted { ended: output.ended, tail: proc::indented_tail(&output.stderr) })
}

/// Whether `postmaster.pid` says that this very server accepts connections, as `pg_ctl` asks it:
/// the first line is the process, the eighth the state.
fn is_ready(pid_file: &str, pid: Option<u32>) -> bool {
    let mut lines = pid_file.lines().map(str::trim);
    let owner = lines.next().and_then(|line| line.parse().ok());
    owner.is_some() && owner == pid && lines.nth(6) == Some("ready")
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_server_is_ready() {
        let file = |state: &str| format!("42\n/d/data\n1700000000\n5555\n\n127.0.0.1\n  123  4\n{state}\n");
        assert!(is_ready(&file("ready   "), Some(42)));
        assert!(!is_ready(&file("starting"), Some(42)));
        assert!(!is_ready(&file("ready   "), Some(43)));
        assert!(!is_ready("42\n/d/data\n", Some(42)));
        assert!(!is_ready("", None));
    }
}
