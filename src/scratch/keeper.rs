//! The keeper: starts the server, waits for the end of its starter, stops the server, removes the folder.
//!
//! Its starter holds a pipe that is its standard input. The first line is a [`Spec`]; end of file
//! means that the starter is gone; the line `keep` before it means that the server goes on until
//! the keeper gets SIGTERM. It answers with one [`Report`] a line on standard output.

use super::{DATA, Error, KEEPER_LOCK, LOG, PASSWORD, PREFIX, Wanted, sweep};
use crate::disk::{self, Lock};
use crate::proc::{self, Cmd, Running, Signal, User};
use crate::secret::Secret;
use fs_err as fs;
use futures_util::FutureExt as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io::{self, BufRead as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
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

/// What a keeper is to start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    base_dir: PathBuf,
    bin_dir: PathBuf,
    superuser: String,
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    password: Secret,
    max_connections: u32,
    max_locks_per_transaction: u32,
    run_as: Option<User>,
}

/// On a pipe between two processes of ours, and nowhere else.
fn expose<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

fn hide<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// What a keeper tells its starter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Report {
    /// The server accepts connections.
    Ready {
        /// The folder of the scratch.
        dir: PathBuf,
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
    pub(super) fn new(base_dir: &Path, wanted: &Wanted, password: Secret) -> Self {
        Self {
            base_dir: base_dir.to_owned(),
            bin_dir: wanted.installation.bin_dir.clone(),
            superuser: wanted.superuser.clone(),
            password,
            max_connections: wanted.max_connections,
            max_locks_per_transaction: wanted.max_locks_per_transaction,
            run_as: wanted.run_as.clone(),
        }
    }

    /// As it goes through the pipe.
    pub(super) fn line(&self) -> Result<String, Error> {
        serde_json::to_string(self).map(|line| line + "\n").map_err(|error| Error::NotTold(error.into()))
    }

    /// Makes the folder, and takes its lock before anybody could take it for remains.
    ///
    /// It belongs to us even when the server runs as another user, who may only pass through:
    /// whoever cleans up as root must find nothing in it that others put there.
    fn make_folder(&self) -> io::Result<(PathBuf, Lock)> {
        loop {
            let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&self.base_dir)?.keep();
            match Lock::take(&dir.join(KEEPER_LOCK)) {
                Ok(Some(lock)) => {
                    let mode = if self.run_as.is_some() { 0o711 } else { 0o700 };
                    fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode))?;
                    return Ok((dir, lock));
                }
                // Somebody who cleans up was faster.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A scratch that is being kept.
struct Place {
    spec: Spec,
    dir: PathBuf,
}

impl Place {
    fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    fn folder_error(&self, source: io::Error) -> Error {
        Error::Folder { base_dir: self.spec.base_dir.clone(), source }
    }

    /// A program of the installation, with an environment that holds nothing of the person's.
    fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.spec.bin_dir.join(name))
            .dir(&self.dir)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .as_user(self.spec.run_as.clone())
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
            .arg(format!("--username={}", self.spec.superuser))
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
            format!("max_connections={}", self.spec.max_connections),
            format!("max_locks_per_transaction={}", self.spec.max_locks_per_transaction),
        ];
        settings.extend(FIXED.map(str::to_owned));
        settings
    }
}

/// Runs as the keeper of a scratch, until it is not wanted any more.
pub async fn keeper_main() -> Result<(), Error> {
    let mut end = End::listen().map_err(Error::NotTold)?;
    let Some(line) = end.pipe.recv().await else { return Ok(()) };
    let spec: Spec = serde_json::from_str(&line).map_err(|error| Error::NotTold(error.into()))?;
    let result = keep(spec, &mut end).await;
    if let Err(error) = &result {
        report(&Report::Failed { message: chain(error) });
    }
    result
}

async fn keep(spec: Spec, end: &mut End) -> Result<(), Error> {
    let made = spec.make_folder();
    let (dir, lock) = made.map_err(|source| Error::Folder { base_dir: spec.base_dir.clone(), source })?;
    let place = Place { spec, dir };
    let kept = keep_in(&place, end).await;
    let removed = sweep::clean(&place.dir).await;
    drop(lock);
    kept.and(removed.map(drop).map_err(|source| Error::NotRemoved { dir: place.dir, source }))
}

async fn keep_in(place: &Place, end: &mut End) -> Result<(), Error> {
    // Neither of the two is cut short. A killed initdb leaves a segment of shared memory behind, and
    // so does a server that is asked to quit before it listens to signals: a run in the background
    // of a script inherits that SIGQUIT is ignored.
    initialize(place).await?;
    if end.asked().now_or_never().is_some() {
        return Ok(());
    }
    let (server, port) = bring_up(place).await?;
    report(&Report::Ready { dir: place.dir.clone(), port, pid: server.pid().unwrap_or_default() });
    tokio::select! {
        output = server.wait() => {
            let output = output?;
            Err(Error::Died { ended: output.ended, tail: proc::indented_tail(&output.stderr) })
        }
        // The server is dropped here, and with that it is stopped.
        () = end.asked() => Ok(()),
    }
}

async fn initialize(place: &Place) -> Result<(), Error> {
    let password_path = place.dir.join(PASSWORD);
    let prepare = || {
        let owner = place.spec.run_as.as_ref().map(|user| (user.uid, user.gid));
        disk::make_private_dir(&place.data())?;
        disk::give_to(&place.data(), owner)?;
        disk::write(&password_path, place.spec.password.expose().as_bytes())?;
        disk::give_to(&password_path, owner)
    };
    prepare().map_err(|source| place.folder_error(source))?;
    place.initdb().run().await?;
    fs::remove_file(password_path).map_err(|source| place.folder_error(source))
}

async fn bring_up(place: &Place) -> Result<(Running, u16), Error> {
    // Between finding a free port and using it, another process may take it. Whatever ended the
    // server, another port is tried; what has another cause fails again, and quickly.
    let mut attempt = 1;
    loop {
        let port = free_port().map_err(|source| place.folder_error(source))?;
        match start_server(place, port).await {
            Ok(server) => return Ok((server, port)),
            Err(Error::NotStarted { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

async fn start_server(place: &Place, port: u16) -> Result<Running, Error> {
    let server = place.server(port).start()?;
    let pid_file = place.data().join("postmaster.pid");
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
    /// Its lines; closed at its end.
    pipe: mpsc::UnboundedReceiver<String>,
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
                drop(sender.send(line));
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
                    Some(word) => self.is_kept = word == "keep",
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
    fn a_spec_goes_through_the_pipe_and_shows_no_password() {
        let spec = Spec {
            base_dir: "/tmp/a \"b\"\nc".into(),
            bin_dir: "/pg/bin".into(),
            superuser: "supabase_admin".to_owned(),
            password: Secret::new("hunter22"),
            max_connections: 60,
            max_locks_per_transaction: 64,
            run_as: Some(User { name: "postgres".to_owned(), uid: 101, gid: 104 }),
        };
        let line = spec.line().unwrap();
        assert_eq!(line.lines().count(), 1);
        let read: Spec = serde_json::from_str(&line).unwrap();
        assert_eq!(read.password.expose(), "hunter22");
        assert_eq!((&read.base_dir, &read.run_as), (&spec.base_dir, &spec.run_as));
        assert!(!format!("{read:?}").contains("hunter22"));
    }

    #[test]
    fn reports_are_one_line_each() {
        let line = serde_json::to_string(&Report::Failed { message: "a\nb".to_owned() }).unwrap();
        assert_eq!(line, r#"{"type":"failed","message":"a\nb"}"#);
    }
}
