//! The program on a terminal, with a person who reads and types.

use crate::scratch::until;
use crate::world::World;
use expectrl::process::Termios as _;
use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{Eof, Expect as _, Session};
use std::process::{Command, Stdio};
use std::time::Duration;
use supa_safe::proc::{self, Signal};

/// How long a person waits for the next words.
const PATIENCE: Duration = Duration::from_mins(1);

/// A terminal with one program on it.
pub(crate) struct Terminal {
    session: OsSession,
    seen: String,
}

impl Terminal {
    /// Starts the program of a world.
    pub(crate) fn start(world: &World, args: &[&str]) -> Self {
        let mut command = world.command();
        command.args(args);
        Self::of(command)
    }

    /// Starts a prepared command.
    pub(crate) fn of(mut command: Command) -> Self {
        command.env("TERM", "xterm").stdin(Stdio::inherit());
        let mut session = Session::spawn(command).unwrap();
        session.set_expect_timeout(Some(PATIENCE));
        // As a terminal is, unless the program says otherwise.
        session.set_echo(true).unwrap();
        Self { session, seen: String::new() }
    }

    /// Waits for words.
    #[track_caller]
    pub(crate) fn sees(&mut self, words: &str) {
        match self.session.expect(words) {
            Ok(found) => self.seen.push_str(&String::from_utf8_lossy(found.as_bytes())),
            Err(error) => {
                let rest = self.rest();
                panic!("waited in vain for `{words}`: {error}; seen: {}{rest}", self.seen);
            }
        }
    }

    /// What came since.
    fn rest(&mut self) -> String {
        let mut bytes = [0; 1 << 12];
        let read = self.session.try_read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(bytes.get(..read).unwrap()).into_owned()
    }

    /// Types a line.
    pub(crate) fn types(&mut self, line: &str) {
        self.session.send(format!("{line}\r")).unwrap();
    }

    /// Types a line that is not shown, as soon as the program has seen to that: what was typed before is
    /// thrown away then.
    pub(crate) fn types_unseen(&mut self, line: &str) {
        until("what is typed is not shown", || !self.session.is_echo().unwrap());
        self.types(line);
    }

    /// Presses Ctrl-C.
    pub(crate) fn interrupts(&mut self) {
        self.session.send("\u{3}").unwrap();
    }

    /// Somebody else sends the process a signal.
    pub(crate) fn signals(&self, signal: Signal) {
        let pid = u32::try_from(self.session.get_process().pid().as_raw()).unwrap();
        proc::signal(pid, signal).unwrap();
    }

    /// Waits for the end: the exit code, and everything that stood on the terminal.
    pub(crate) fn ends(mut self) -> (i32, String) {
        let rest =
            self.session.expect(Eof).unwrap_or_else(|error| panic!("no end: {error}; seen: {}", self.seen));
        self.seen.push_str(&String::from_utf8_lossy(rest.as_bytes()));
        let code = match self.session.get_process().wait().unwrap() {
            WaitStatus::Exited(_, code) => code,
            WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
            other => panic!("{other:?}"),
        };
        (code, self.seen)
    }
}
