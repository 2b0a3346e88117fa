//! The keeper: starts the server, waits for the end of its starter, stops the server, removes the folder.
//!
//! Its starter gives it a specification on disk and a pipe as standard input. It answers with one
//! [`Report`] a line on standard output. End of file on the pipe means that the starter is gone;
//! the line `keep` before it means that the server goes on until the keeper gets SIGTERM.

use super::{DATA, Error, KEEPER_LOCK, LOG, PASSWORD, Wanted, sweep};
use crate::disk::{self, Lock};
use crate::proc::{self, Cmd, Running, Signal, User};
use fs_err as fs;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

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

/// What a keeper is to start, as it stands in the folder. It holds no secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    dir: PathBuf,
    bin_dir: PathBuf,
    superuser: String,
    max_connections: u32,
    max_locks_per_transaction: u32,
    run_as: Option<User>,
}

/// What a keeper tells its starter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Report {
    /// The server accepts connections.
    Ready {
        /// On this port of 127.0.0.1.
        port: u16,
        /// Its process.
        pid: u32,
    },
    /// The server is gone, or never came.
    Failed {
        /// The error and its causes.
        message: String,
    },
}

impl Spec {
    pub(super) fn new(dir: &Path, wanted: &Wanted) -> Self {
        Self {
            dir: dir.to_owned(),
            bin_dir: wanted.installation.bin_dir.clone(),
            superuser: wanted.superuser.clone(),
            max_connections: wanted.max_connections,
            max_locks_per_transaction: wanted.max_locks_per_transaction,
            run_as: wanted.run_as.clone(),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// A program of the installation, with an environment that holds nothing of the person's.
    fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.bin_dir.join(name))
            .dir(&self.dir)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .as_user(self.run_as.clone())
            .log(self.dir.join(LOG))
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
            .arg(format!("--username={}", self.superuser))
            .arg("--pwfile")
            .arg(self.dir.join(PASSWORD))
            .args(locale)
            .args(["--encoding=UTF8", "--auth=scram-sha-256", "--no-sync", "--no-instructions"])
            .timeout(INITDB_TIMEOUT)
    }

    /// The server; dropped, it is asked for an immediate shutdown, since its data are thrown away.
    fn server(&self, port: u16) -> Cmd {
        let settings = self.settings(port).into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        self.program("postgres").arg("-D").arg(self.data()).args(settings).stop_by(Signal::QUIT, SERVER_GRACE)
    }

    fn settings(&self, port: u16) -> Vec<String> {
        const FIXED: [&str; 24] = [
            // Inert: nobody from outside, no library that acts by itself.
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_preload_libraries=",
            "session_preload_libraries=",
            "local_preload_libraries=",
            "archive_mode=off",
            // Quick: nothing has to survive a crash, and a crash is reported rather than survived.
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "autovacuum=off",
            "jit=off",
            "restart_after_crash=off",
            "shared_buffers=128MB",
            "maintenance_work_mem=256MB",
            "track_counts=on",
            // Inside the folder: a killed server leaves nothing in /dev/shm, which is small in containers.
            "dynamic_shared_memory_type=mmap",
            "timezone=UTC",
            "log_timezone=UTC",
            // The log holds neither statements nor rows: they may be the person's data.
            "logging_collector=off",
            "log_destination=stderr",
            "log_min_error_statement=panic",
            "log_error_verbosity=terse",
        ];
        let mut settings = vec![
            format!("port={port}"),
            format!("max_connections={}", self.max_connections),
            format!("max_locks_per_transaction={}", self.max_locks_per_transaction),
        ];
        settings.extend(FIXED.map(str::to_owned));
        settings
    }
}

/// Runs as the keeper of the scratch that the file specifies, until it is not wanted any more.
pub async fn keeper_main(spec_path: &Path) -> Result<(), Error> {
    let spec_error = |source| Error::Spec { path: spec_path.to_owned(), source };
    let text = fs::read_to_string(spec_path).map_err(spec_error)?;
    let spec: Spec = serde_json::from_str(&text).map_err(|error| spec_error(error.into()))?;
    let lock = Lock::take(&spec.dir.join(KEEPER_LOCK)).map_err(spec_error)?;
    let Some(lock) = lock else { return Err(Error::Taken(spec.dir)) };
    let kept = keep(&spec).await;
    let removed = sweep::clean(&spec.dir).await;
    drop(lock);
    let result =
        kept.and(removed.map(drop).map_err(|source| Error::NotRemoved { dir: spec.dir.clone(), source }));
    if let Err(error) = &result {
        report(&Report::Failed { message: chain(error) });
    }
    result
}

async fn keep(spec: &Spec) -> Result<(), Error> {
    let mut end = End::listen().map_err(|source| Error::Spec { path: spec.dir.clone(), source })?;
    let (server, port) = tokio::select! {
        up = bring_up(spec) => up?,
        () = end.asked() => return Ok(()),
    };
    report(&Report::Ready { port, pid: server.pid().unwrap_or_default() });
    tokio::select! {
        output = server.wait() => {
            let output = output?;
            Err(Error::Died { ended: output.ended, tail: proc::indented_tail(&output.stderr) })
        }
        // The server is dropped here, and with that it is stopped.
        () = end.asked() => Ok(()),
    }
}

async fn bring_up(spec: &Spec) -> Result<(Running, u16), Error> {
    let folder_error = |source| Error::Folder { base_dir: spec.dir.clone(), source };
    let make_data = || {
        disk::make_private_dir(&spec.data())?;
        disk::give_to(&spec.data(), spec.run_as.as_ref().map(|user| (user.uid, user.gid)))
    };
    make_data().map_err(folder_error)?;
    spec.initdb().run().await?;
    fs::remove_file(spec.dir.join(PASSWORD)).map_err(folder_error)?;
    // Between finding a free port and using it, another process may take it. Whatever ended the
    // server, another port is tried; what has another cause fails again, and quickly.
    let mut attempt = 1;
    loop {
        let port = free_port().map_err(folder_error)?;
        match start_server(spec, port).await {
            Ok(server) => return Ok((server, port)),
            Err(Error::NotStarted { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn start_server(spec: &Spec, port: u16) -> Result<Running, Error> {
    let server = spec.server(port).start()?;
    let pid_file = spec.data().join("postmaster.pid");
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

/// Waits for whatever ends the keeper.
struct End {
    /// One message for `keep`; closed at the end of the pipe.
    pipe: mpsc::UnboundedReceiver<()>,
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    is_kept: bool,
}

impl End {
    fn listen() -> io::Result<Self> {
        let (sender, pipe) = mpsc::unbounded_channel();
        // A thread that the runtime does not wait for: it may read until the process ends.
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if line == "keep" {
                    let _ = sender.send(());
                }
            }
        });
        Ok(Self {
            pipe,
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            is_kept: false,
        })
    }

    async fn asked(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv(), if !self.is_kept => return,
                word = self.pipe.recv(), if !self.is_kept => match word {
                    Some(()) => self.is_kept = true,
                    None => return,
                },
            }
        }
    }
}

fn report(report: &Report) {
    let Ok(line) = serde_json::to_string(report) else { return };
    let mut stdout = io::stdout().lock();
    // A starter that is gone reads nothing; its end is noticed on the other pipe.
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

/// An error and its causes in one text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
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

    #[test]
    fn reports_are_one_line_each() {
        let line = serde_json::to_string(&Report::Failed { message: "a\nb".to_owned() }).unwrap();
        assert_eq!(line, r#"{"type":"failed","message":"a\nb"}"#);
    }
}
