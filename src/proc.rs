//! Describes and runs programs: the only module that starts a process.
//!
//! A [`Cmd`] is data: what is shown, logged, and written into a runbook is what runs. There is
//! never a shell. Secrets go by environment and are masked in everything that is shown, captured
//! output included. Programs run in a process group of their own and are stopped with their
//! children; only [`Group::Shared`] (the delegate) shares the terminal's group and is never killed.

mod drain;
mod output;
mod stop;

pub use output::{Ended, Output, indented_tail};
pub use stop::{Signal, is_alive, signal};

use crate::secret::{MASK, Masker, Secret};
use drain::{Drain, Sink, drain, open_log};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stop::{Guard, Stop};

/// How much of a program's standard error is kept for messages.
const TAIL_BYTES: usize = 128 << 10;

/// What can go wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program's path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program was not found on `PATH`.
    #[error("`{program}` was not found on PATH")]
    NotFound {
        /// The program's name.
        program: String,
    },
    /// The program ended with a failure.
    #[error("`{shown}` {ended}{tail}")]
    Failed {
        /// The masked command line.
        shown: String,
        /// How it ended.
        ended: Ended,
        /// The last lines of its standard error, indented, or nothing.
        tail: String,
    },
    /// The program did not end in time and was stopped.
    #[error("`{shown}` did not end within {} s and was stopped", .after.as_secs())]
    TimedOut {
        /// The masked command line.
        shown: String,
        /// The limit.
        after: Duration,
    },
    /// Waiting for the program, or handling its output, failed.
    #[error("lost track of `{shown}`")]
    Lost {
        /// The masked command line.
        shown: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Which process group a program runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A group of its own: Ctrl-C does not reach it, and it is stopped when its handle is dropped.
    Own,
    /// Ours: it shares the terminal, gets its signals, and is never killed by us.
    Shared,
}

/// A user of this machine to run a program as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Name in the password database.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Main group id.
    pub gid: u32,
}

/// One of a program's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

type OnLine = Arc<dyn Fn(Stream, &str) + Send + Sync>;
type OnBytes = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A program to run, as data.
#[derive(Clone)]
pub struct Cmd {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    shown_env: Vec<(String, String)>,
    secrets: Vec<(String, Secret)>,
    masker: Masker,
    dir: Option<PathBuf>,
    timeout: Option<Duration>,
    group: Group,
    stop: Stop,
    user: Option<User>,
    log: Option<PathBuf>,
    on_line: Option<OnLine>,
    on_bytes: Option<OnBytes>,
    source: Option<Box<Self>>,
}

impl fmt::Debug for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cmd({self})")
    }
}

/// The command line as a person could paste it, secrets masked.
impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source} | ")?;
        }
        let mut words: Vec<String> = Vec::new();
        words.extend(self.secrets.iter().map(|(name, _)| format!("{name}={MASK}")));
        words.extend(self.shown_env.iter().map(|(name, value)| format!("{name}={}", shell_word(value))));
        words.push(shell_word(&self.program.to_string_lossy()));
        words.extend(self.args.iter().map(|arg| shell_word(&arg.to_string_lossy())));
        f.write_str(&self.masker.mask(&words.join(" ")))
    }
}

impl Cmd {
    /// Starts a description. The environment is empty until [`Cmd::env_base`] or [`Cmd::env`] fill it.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            shown_env: Vec::new(),
            secrets: Vec::new(),
            masker: Masker::default(),
            dir: None,
            timeout: None,
            group: Group::Own,
            stop: Stop::default(),
            user: None,
            log: None,
            on_line: None,
            on_bytes: None,
            source: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<T: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Takes over an environment, which is not shown.
    #[must_use]
    pub fn env_base(mut self, env: &BTreeMap<OsString, OsString>) -> Self {
        self.env.extend(env.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// Sets a variable that is part of the command as shown.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.env.insert(name.into(), value.clone().into());
        self.shown_env.push((name.to_owned(), value));
        self
    }

    /// Sets a variable to a secret: shown as `NAME=****`, and masked in all output.
    #[must_use]
    pub fn secret(mut self, name: &str, value: &Secret) -> Self {
        self.masker.learn(value);
        self.secrets.push((name.to_owned(), value.clone()));
        self
    }

    /// Masks a secret in the output although it is not handed to the program as a variable.
    #[must_use]
    pub fn masking(mut self, value: &Secret) -> Self {
        self.masker.learn(value);
        self
    }

    /// Reads standard input from another program, which starts and ends with this one and whose
    /// failure is this one's. Of the other's description only program, arguments, environment,
    /// folder, and user count.
    #[must_use]
    pub fn input_from(mut self, source: Self) -> Self {
        self.masker.merge(&source.masker);
        self.source = Some(Box::new(source));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Stops the program after this time.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Chooses the process group.
    #[must_use]
    pub fn group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }

    /// Chooses how a program of [`Group::Own`] is asked to end (SIGTERM), and how long it may take (5 s).
    #[must_use]
    pub fn stop_by(mut self, signal: Signal, grace: Duration) -> Self {
        self.stop = Stop { signal, grace };
        self
    }

    /// Runs the program as another user, without our supplementary groups; only root may.
    #[must_use]
    pub fn as_user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Appends all output, masked, to a file (mode 0600).
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Calls back with every line of output, masked, as it comes.
    #[must_use]
    pub fn on_line(mut self, call: impl Fn(Stream, &str) + Send + Sync + 'static) -> Self {
        self.on_line = Some(Arc::new(call));
        self
    }

    /// Hands standard output on as bytes, which are neither kept nor logged: for what is too large.
    #[must_use]
    pub fn on_bytes(mut self, call: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.on_bytes = Some(Arc::new(call));
        self
    }

    /// Runs the program to its end; anything but code 0 is an error with its last lines.
    pub async fn run(self) -> Result<Output, Error> {
        let shown = self.to_string();
        self.run_unchecked().await?.checked(shown)
    }

    /// [`Cmd::run`] for a short program, on this thread and without a runtime. No timeout counts.
    pub fn run_now(self) -> Result<Output, Error> {
        let shown = self.to_string();
        self.run_now_unchecked()?.checked(shown)
    }

    /// [`Cmd::run_unchecked`] for a short program, on this thread and without a runtime. No timeout counts.
    pub fn run_now_unchecked(self) -> Result<Output, Error> {
        self.start()?.wait_now()
    }

    /// Runs the program to its end and returns however it ended.
    pub async fn run_unchecked(self) -> Result<Output, Error> {
        let timeout = self.timeout;
        let running = self.start()?;
        match timeout {
            None => running.wait().await,
            Some(after) => {
                let shown = running.shown.clone();
                tokio::time::timeout(after, running.wait())
                    .await
                    .unwrap_or(Err(Error::TimedOut { shown, after }))
            }
        }
    }

    /// Starts the program without waiting, its standard input closed.
    pub fn start(self) -> Result<Running, Error> {
        self.start_with_stdin(None)
    }

    /// Starts the program with a pipe as its standard input, whose writing end is returned.
    ///
    /// The program sees end of file when the writer is dropped, or when this process dies.
    pub fn start_held(self) -> Result<(Running, PipeWriter), Error> {
        let (reader, writer) = io::pipe().map_err(|source| self.start_error(source))?;
        Ok((self.start_with_stdin(Some(reader))?, writer))
    }

    fn start_error(&self, source: io::Error) -> Error {
        Error::Start { program: self.program.display().to_string(), source }
    }

    fn start_with_stdin(self, stdin: Option<PipeReader>) -> Result<Running, Error> {
        let shown = self.to_string();
        let (out_reader, out_writer) = io::pipe().map_err(|source| self.start_error(source))?;
        let (err_reader, err_writer) = io::pipe().map_err(|source| self.start_error(source))?;
        let handle = self
            .pipeline(stdin, err_writer)
            .and_then(|expression| expression.stdout_file(out_writer).start())
            .map_err(|source| self.start_error(source))?;
        let log = self.log.as_deref().map(open_log).transpose().map_err(|source| self.start_error(source))?;
        let sink = Arc::new(Mutex::new(Sink { log, masker: self.masker, on_line: self.on_line }));
        let handle = Arc::new(handle);
        Ok(Running {
            shown,
            pid: handle.pids().first().copied(),
            stdout: match self.on_bytes {
                Some(call) => drain::drain_bytes(out_reader, call),
                None => drain(Stream::Stdout, out_reader, usize::MAX, Arc::clone(&sink)),
            },
            stderr: drain(Stream::Stderr, err_reader, TAIL_BYTES, sink),
            guard: Guard { handle: Some(handle), group: self.group, stop: self.stop },
        })
    }

    /// This program, behind those that it reads from.
    fn pipeline(&self, stdin: Option<PipeReader>, stderr: PipeWriter) -> io::Result<duct::Expression> {
        let Some(source) = &self.source else { return Ok(self.expression(stdin, stderr)) };
        let feeding = source.pipeline(stdin, stderr.try_clone()?)?;
        Ok(feeding.pipe(self.bare_expression(stderr)))
    }

    fn expression(&self, stdin: Option<PipeReader>, stderr: PipeWriter) -> duct::Expression {
        let expression = self.bare_expression(stderr);
        match stdin {
            Some(reader) => expression.stdin_file(reader),
            None => expression.stdin_null(),
        }
    }

    fn bare_expression(&self, stderr: PipeWriter) -> duct::Expression {
        let mut env = self.env.clone();
        env.extend(self.secrets.iter().map(|(name, value)| (name.into(), value.expose().into())));
        let mut expression =
            duct::cmd(self.program.as_os_str(), &self.args).full_env(env).stderr_file(stderr).unchecked();
        if let Some(dir) = &self.dir {
            expression = expression.dir(dir);
        }
        let (group, user) = (self.group, self.user.clone());
        expression.before_spawn(move |command| {
            if group == Group::Own {
                command.process_group(0);
            }
            if let Some(user) = &user {
                command.uid(user.uid).gid(user.gid);
            }
            Ok(())
        })
    }
}

/// A program that runs. Dropping it stops a program of [`Group::Own`] with its children.
#[derive(Debug)]
pub struct Running {
    shown: String,
    pid: Option<u32>,
    stdout: Drain,
    stderr: Drain,
    guard: Guard,
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// How the program ended, or `None` while it runs.
    pub fn try_wait(&self) -> Result<Option<Ended>, Error> {
        let lost = |source| Error::Lost { shown: self.shown.clone(), source };
        let handle = self.guard.handle.as_ref().ok_or_else(|| lost(io::ErrorKind::NotFound.into()))?;
        Ok(handle.try_wait().map_err(lost)?.map(|output| output.status.into()))
    }

    /// Lets the program go on by itself.
    pub fn detach(mut self) {
        self.guard.handle = None;
    }

    /// [`Running::wait`] for a short program, on this thread and without a runtime.
    pub fn wait_now(mut self) -> Result<Output, Error> {
        let lost = |source| Error::Lost { shown: self.shown.clone(), source };
        let handle = self.guard.handle.as_ref().ok_or_else(|| lost(io::ErrorKind::NotFound.into()))?;
        let ended = handle.wait().map_err(lost)?.status.into();
        self.guard.handle = None;
        Ok(Output { ended, stdout: self.stdout.finish(), stderr: self.stderr.finish() })
    }

    /// Waits for the end.
    pub async fn wait(mut self) -> Result<Output, Error> {
        let lost = |source| Error::Lost { shown: self.shown.clone(), source };
        let Some(handle) = self.guard.handle.clone() else {
            return Err(lost(io::ErrorKind::NotFound.into()));
        };
        let status = tokio::task::spawn_blocking(move || handle.wait().map(|output| output.status))
            .await
            .map_err(|error| lost(io::Error::other(error)))?
            .map_err(lost)?;
        self.guard.handle = None;
        let (stdout, stderr) = (self.stdout, self.stderr);
        let (stdout, stderr) = tokio::task::spawn_blocking(move || (stdout.finish(), stderr.finish()))
            .await
            .map_err(|error| Error::Lost { shown: self.shown.clone(), source: io::Error::other(error) })?;
        Ok(Output { ended: status.into(), stdout, stderr })
    }
}

/// Finds a program by name in a list of folders as `PATH` has it.
pub fn find(program: &str, path: &OsStr) -> Result<PathBuf, Error> {
    which::which_in_global(program, Some(path))
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| Error::NotFound { program: program.to_owned() })
}

/// Quotes one word for a POSIX shell.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use proptest::prelude::*;

    fn sh(script: &str) -> Cmd {
        Cmd::new("/bin/sh").arg("-c").arg(script)
    }

    #[tokio::test]
    async fn output_is_captured_and_masked() {
        let secret = Secret::new("hunter22");
        let output = sh("echo out $PW; echo err $PW >&2").secret("PW", &secret).run().await.unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out ****\n", "err ****\n"));
    }

    #[tokio::test]
    async fn failure_names_command_code_and_last_lines() {
        let secret = Secret::new("hunter22");
        let error = sh("echo no $PW >&2; exit 3").secret("PW", &secret).run().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "`PW=**** /bin/sh -c 'echo no $PW >&2; exit 3'` exited with code 3\n    no ****"
        );
    }

    #[tokio::test]
    async fn a_pipe_shows_all_its_programs_and_fails_with_any() {
        let secret = Secret::new("hunter22");
        let print = sh("echo $PW; echo two; exit $0").secret("PW", &secret);
        let good = Cmd::new("/bin/sed").arg("s/two/2/").input_from(print.clone().arg("0"));
        let good = Cmd::new("/bin/cat").input_from(good);
        assert_eq!(
            good.to_string(),
            "PW=**** /bin/sh -c 'echo $PW; echo two; exit $0' 0 | /bin/sed s/two/2/ | /bin/cat"
        );
        assert_eq!(good.run().await.unwrap().stdout, "****\n2\n");
        let bad = Cmd::new("/bin/cat").input_from(print.arg("7")).run_unchecked().await.unwrap();
        assert_eq!(bad.ended, Ended::Code(7));
        let bad = sh("exit 5").input_from(sh("yes")).run_unchecked().await.unwrap();
        assert_eq!(bad.ended, Ended::Code(5));
    }

    #[tokio::test]
    async fn a_timeout_stops_the_grandchildren_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 60 & echo $! > {}; wait", pid_file.display());
        let error = sh(&script).timeout(Duration::from_secs(2)).run().await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z"), "still running: {state}");
    }

    #[test]
    fn a_dropped_program_is_asked_with_the_chosen_signal() {
        let dir = tempfile::tempdir().unwrap();
        let (up, asked) = (dir.path().join("up"), dir.path().join("asked"));
        let script = format!(
            "trap 'echo x > {}; kill $!; exit' QUIT; sleep 60 & echo x > {}; wait",
            asked.display(),
            up.display()
        );
        let running = sh(&script).stop_by(Signal::QUIT, Duration::from_secs(20)).start().unwrap();
        while !up.exists() {
            assert_eq!(running.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        drop(running);
        assert!(asked.exists());
    }

    #[test]
    fn a_detached_program_goes_on() {
        let (running, stdin) = sh("read line; exit 3").start_held().unwrap();
        let pid = running.pid().unwrap();
        running.detach();
        assert!(fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains("(sh)"));
        drop(stdin);
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Cmd::new("/no/such/program").run().await.unwrap_err();
        assert_eq!(error.to_string(), "cannot start `/no/such/program`");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_shell_reads_back_what_was_quoted(word in "[^\0\r]{0,20}") {
            let script = format!("printf '%s.' {}", shell_word(&word));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let output = runtime.block_on(sh(&script).run()).unwrap();
            let expected = format!("{word}.");
            prop_assert_eq!(output.stdout.trim_end_matches('\n'), expected.trim_end_matches('\n'));
        }
    }
}
