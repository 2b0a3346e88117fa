//! The keeper: starts the server, waits for the end of its starter, stops the server, removes the folder.
//!
//! Its starter holds a pipe that is its standard input. The first line is a [`Spec`]; end of file
//! means that the starter is gone; the line `keep` before it means that the server goes on until
//! the keeper gets SIGTERM. It answers with one [`Report`] a line on standard output.

mod container;
mod local;

use super::{Engine, Error, KEEPER_LOCK, PREFIX, Wanted, sweep};
use crate::disk::Lock;
use crate::proc::User;
use crate::secret::Secret;
use crate::tools::container::Image;
use fs_err as fs;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;

/// What every scratch server is told on its command line.
const SETTINGS: [&str; 21] = [
    // Inert: nobody from outside, no library that acts by itself.
    "listen_addresses=127.0.0.1",
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
];

/// What a keeper is to start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    base_dir: PathBuf,
    superuser: String,
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    password: Secret,
    max_connections: u32,
    max_locks_per_transaction: u32,
    on: On,
}

/// What the server runs on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum On {
    /// Programs of this machine.
    Programs {
        /// Their folder.
        bin_dir: PathBuf,
        /// Who runs them.
        run_as: Option<User>,
    },
    /// A container.
    Container {
        /// The engine; its environment is the keeper's own.
        program: PathBuf,
        /// The image.
        image: Image,
        /// The person's own arguments.
        args: Vec<String>,
    },
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
            superuser: wanted.superuser.clone(),
            password,
            max_connections: wanted.max_connections,
            max_locks_per_transaction: wanted.max_locks_per_transaction,
            on: match &wanted.engine {
                Engine::Local(installation) => {
                    On::Programs { bin_dir: installation.bin_dir.clone(), run_as: wanted.run_as.clone() }
                }
                Engine::Container(container) => On::Container {
                    program: container.engine.program.clone(),
                    image: container.image.clone(),
                    args: container.args.clone(),
                },
            },
        }
    }

    /// The settings of the server.
    fn settings(&self, own: &[String]) -> Vec<String> {
        let mut settings = vec![
            format!("max_connections={}", self.max_connections),
            format!("max_locks_per_transaction={}", self.max_locks_per_transaction),
            "log_error_verbosity=terse".to_owned(),
        ];
        settings.extend(SETTINGS.map(str::to_owned));
        settings.extend(own.iter().cloned());
        settings
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
                    let by_another = matches!(&self.on, On::Programs { run_as: Some(_), .. });
                    let mode = if by_another { 0o711 } else { 0o700 };
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
    fn folder_error(&self, source: io::Error) -> Error {
        Error::Folder { base_dir: self.spec.base_dir.clone(), source }
    }
}

/// Runs as the keeper of a scratch, until it is not wanted any more; `env` is what engines of
/// containers get.
pub async fn keeper_main(env: &BTreeMap<OsString, OsString>) -> Result<(), Error> {
    let mut end = End::listen().map_err(Error::NotTold)?;
    let Some(line) = end.pipe.recv().await else { return Ok(()) };
    let spec: Spec = serde_json::from_str(&line).map_err(|error| Error::NotTold(error.into()))?;
    let result = keep(spec, &mut end, env).await;
    if let Err(error) = &result {
        report(&Report::Failed { message: chain(error) });
    }
    result
}

async fn keep(spec: Spec, end: &mut End, env: &BTreeMap<OsString, OsString>) -> Result<(), Error> {
    let made = spec.make_folder();
    let (dir, lock) = made.map_err(|source| Error::Folder { base_dir: spec.base_dir.clone(), source })?;
    let place = Place { spec, dir };
    let kept = match &place.spec.on {
        On::Programs { bin_dir, run_as } => local::keep(&place, bin_dir, run_as.as_ref(), end).await,
        On::Container { program, image, args } => {
            let engine = container::Engine { program: program.clone(), env: env.clone() };
            container::keep(&place, &engine, (image, args), end).await
        }
    };
    let removed = sweep::clean(&place.dir, env).await;
    drop(lock);
    kept.and(removed.map(drop).map_err(|source| Error::NotRemoved { dir: place.dir, source }))
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
    fn a_spec_goes_through_the_pipe_and_shows_no_password() {
        let spec = Spec {
            base_dir: "/tmp/a \"b\"\nc".into(),
            superuser: "supabase_admin".to_owned(),
            password: Secret::new("hunter22"),
            max_connections: 60,
            max_locks_per_transaction: 64,
            on: On::Programs {
                bin_dir: "/pg/bin".into(),
                run_as: Some(User { name: "postgres".to_owned(), uid: 101, gid: 104 }),
            },
        };
        let line = spec.line().unwrap();
        assert_eq!(line.lines().count(), 1);
        let read: Spec = serde_json::from_str(&line).unwrap();
        assert_eq!(read.password.expose(), "hunter22");
        assert_eq!((&read.base_dir, &read.on), (&spec.base_dir, &spec.on));
        assert!(!format!("{read:?}").contains("hunter22"));
    }

    #[test]
    fn reports_are_one_line_each() {
        let line = serde_json::to_string(&Report::Failed { message: "a\nb".to_owned() }).unwrap();
        assert_eq!(line, r#"{"type":"failed","message":"a\nb"}"#);
    }
}
