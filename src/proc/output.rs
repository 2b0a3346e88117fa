//! What a program left behind.

use super::Error;
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// Whether the program ended with code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        status.code().map_or_else(|| Self::Signal(status.signal().unwrap_or(0)), Self::Code)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub ended: Ended,
    /// Its standard output, masked.
    pub stdout: String,
    /// The end of its standard error, masked.
    pub stderr: String,
}

impl Output {
    pub(super) fn checked(self, shown: String) -> Result<Self, Error> {
        if self.ended.is_success() {
            return Ok(self);
        }
        Err(Error::Failed { shown, ended: self.ended, tail: indented_tail(&self.stderr) })
    }
}

/// The last lines of a text that are not empty, indented, to stand below an error.
pub fn indented_tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let skip = lines.len().saturating_sub(12);
    let shown: Vec<&str> = lines.into_iter().skip(skip).collect();
    if shown.is_empty() { String::new() } else { format!("\n    {}", shown.join("\n    ")) }
}
