//! The rules by number, and their pages.

use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A numbered condition of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// There is no snapshot of this target.
    NoSnapshot,
    /// The snapshot was not proved far enough.
    Strength,
    /// The snapshot is too old, from the future, or from before a rollback.
    Age,
    /// The snapshot is of another database.
    Identity,
    /// The evidence on disk does not match its digests.
    Digests,
    /// A component is missing or incomplete.
    Incomplete,
    /// Secrets that nobody confirmed to have elsewhere.
    SecretsNotConfirmed,
    /// Pending files changed since the rehearsal.
    PendingChanged,
    /// Not rehearsed, or the rehearsal is stale.
    NotRehearsed,
    /// The migration failed in the rehearsal.
    RehearsalFailed,
    /// The rollback is not exact in the rehearsal.
    RollbackNotExact,
    /// A rollback is not possible on the target.
    RollbackImpossible,
    /// A file that was applied has been edited.
    AppliedEdited,
    /// A pending file is not all-or-nothing.
    NotAtomic,
    /// Another session dumps, pushes, or holds an old transaction.
    OtherSession,
    /// The evidence stands on the disk of a CI job alone.
    NoSharedStore,
}

impl Rule {
    /// Every rule, by number.
    pub const ALL: [Self; 16] = [
        Self::NoSnapshot,
        Self::Strength,
        Self::Age,
        Self::Identity,
        Self::Digests,
        Self::Incomplete,
        Self::SecretsNotConfirmed,
        Self::PendingChanged,
        Self::NotRehearsed,
        Self::RehearsalFailed,
        Self::RollbackNotExact,
        Self::RollbackImpossible,
        Self::AppliedEdited,
        Self::NotAtomic,
        Self::OtherSession,
        Self::NoSharedStore,
    ];

    /// The rule's number.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoSnapshot => "SS001",
            Self::Strength => "SS002",
            Self::Age => "SS003",
            Self::Identity => "SS004",
            Self::Digests => "SS005",
            Self::Incomplete => "SS006",
            Self::SecretsNotConfirmed => "SS007",
            Self::PendingChanged => "SS008",
            Self::NotRehearsed => "SS009",
            Self::RehearsalFailed => "SS010",
            Self::RollbackNotExact => "SS011",
            Self::RollbackImpossible => "SS012",
            Self::AppliedEdited => "SS013",
            Self::NotAtomic => "SS014",
            Self::OtherSession => "SS015",
            Self::NoSharedStore => "SS016",
        }
    }

    /// The rule's page, in Markdown.
    pub fn page(self) -> &'static str {
        match self {
            Self::NoSnapshot => include_str!("../../templates/explain/SS001.md"),
            Self::Strength => include_str!("../../templates/explain/SS002.md"),
            Self::Age => include_str!("../../templates/explain/SS003.md"),
            Self::Identity => include_str!("../../templates/explain/SS004.md"),
            Self::Digests => include_str!("../../templates/explain/SS005.md"),
            Self::Incomplete => include_str!("../../templates/explain/SS006.md"),
            Self::SecretsNotConfirmed => include_str!("../../templates/explain/SS007.md"),
            Self::PendingChanged => include_str!("../../templates/explain/SS008.md"),
            Self::NotRehearsed => include_str!("../../templates/explain/SS009.md"),
            Self::RehearsalFailed => include_str!("../../templates/explain/SS010.md"),
            Self::RollbackNotExact => include_str!("../../templates/explain/SS011.md"),
            Self::RollbackImpossible => include_str!("../../templates/explain/SS012.md"),
            Self::AppliedEdited => include_str!("../../templates/explain/SS013.md"),
            Self::NotAtomic => include_str!("../../templates/explain/SS014.md"),
            Self::OtherSession => include_str!("../../templates/explain/SS015.md"),
            Self::NoSharedStore => include_str!("../../templates/explain/SS016.md"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A text names no rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a rule; rules are {list}", list = Rule::ALL.map(Rule::code).join(", "))]
pub struct UnknownRule(String);

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        Self::ALL
            .into_iter()
            .find(|rule| rule.code().eq_ignore_ascii_case(text))
            .ok_or_else(|| UnknownRule(text.to_owned()))
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
