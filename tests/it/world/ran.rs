//! What a run of the program left to look at.

use super::World;
use regex::Regex;
use serde_json::Value;
use snapbox::Redactions;
use std::fmt;

/// How a program ended and what it said.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(super) redactions: Redactions,
}

impl Ran {
    /// Demands an exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Everything, with what differs from run to run replaced by names in brackets.
    pub(crate) fn text(&self) -> String {
        self.redacted(&self.to_string())
    }

    /// stdout in the same way.
    pub(crate) fn data(&self) -> String {
        self.redacted(&self.stdout)
    }

    /// stderr in the same way.
    pub(crate) fn talk(&self) -> String {
        self.redacted(&self.stderr)
    }

    /// The error at its end, from the line `error: ` on.
    pub(crate) fn failure(&self) -> String {
        let at = self.stderr.find("error: ").unwrap_or_else(|| panic!("no error: {self}"));
        self.redacted(self.stderr.get(at..).unwrap())
    }

    /// Lines of stderr that begin so, redacted.
    pub(crate) fn lines(&self, begin: &str) -> Vec<String> {
        let talk = self.talk();
        talk.lines().map(str::trim_start).filter(|line| line.starts_with(begin)).map(str::to_owned).collect()
    }

    fn redacted(&self, text: &str) -> String {
        self.redactions.redact(text)
    }

    /// The lines of `--json`, parsed.
    pub(crate) fn events(&self) -> Vec<Value> {
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self}"));
        self.stdout.lines().map(parse).collect()
    }

    /// The events of a type.
    pub(crate) fn events_of(&self, name: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["type"] == name).collect()
    }

    /// The last line of `--json`.
    #[track_caller]
    pub(crate) fn summary(&self) -> Value {
        let last = self.events().pop().unwrap_or_else(|| panic!("no line: {self}"));
        assert_eq!(last["type"], "summary", "{self}");
        assert_eq!(last["exit"], self.code, "{self}");
        last
    }

    /// stdout as one JSON document.
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl World {
    /// What differs from run to run.
    pub(super) fn redactions(&self) -> Redactions {
        let mut redactions = Redactions::new();
        if self.place.is_some() {
            redactions.insert("[TARGET]", self.target()).unwrap();
            redactions.insert("[DATABASE]", self.database_name().to_owned()).unwrap();
        }
        redactions.insert("[ROOT]", self.root.display().to_string()).unwrap();
        for (name, pattern) in [
            ("[SNAPSHOT]", r"(?<redacted>\d{8}T\d{6}Z-[0-9a-f]{6})"),
            ("[TIME]", r"(?<redacted>\d+(\.\d+)? (ms|s|min|h))\b"),
            ("[BYTES]", r"(?<redacted>\d+(\.\d+)? (B|kB|KB|KiB|MB|MiB|GB|GiB|bytes))\b"),
        ] {
            redactions.insert(name, Regex::new(pattern).unwrap()).unwrap();
        }
        redactions
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n---- stdout\n{}---- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}
