//! Which secrets a project has, and which of them a person confirmed to have elsewhere: names,
//! digests, and instants, never a value.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Names that the platform sets by itself begin so; `supabase secrets set` refuses them.
const BUILT_IN: &str = "SUPABASE_";

/// A secret of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// SHA-256 of its value, lowercase hex.
    pub digest: String,
    /// When it was set, as the platform says it.
    pub updated_at: Option<String>,
}

impl Entry {
    /// Whether the platform sets it by itself, so that there is nothing to keep elsewhere.
    pub fn is_built_in(&self) -> bool {
        self.name.starts_with(BUILT_IN)
    }
}

/// What a person confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmed {
    /// The secret's name.
    pub name: String,
    /// Its digest then.
    pub digest: String,
    /// When.
    pub at: Timestamp,
}

/// Where a secret stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "at")]
pub enum State {
    /// Set by the platform; needs no confirmation.
    BuiltIn,
    /// Nobody confirmed it yet.
    New,
    /// It has another value than the one that was confirmed then.
    Changed(Timestamp),
    /// Confirmed then, with this value.
    Confirmed(Timestamp),
}

/// A secret and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
}

impl Standing {
    /// Why it needs a confirmation, in words; `None` when it needs none.
    pub fn open(&self, every: SignedDuration, now: Timestamp) -> Option<String> {
        let name = &self.name;
        match self.state {
            State::New => Some(format!("`{name}` was never confirmed")),
            State::Changed(at) => Some(format!("`{name}` was changed since it was confirmed on {}", day(at))),
            State::Confirmed(at) if now.duration_since(at) > every => {
                Some(format!("`{name}` was confirmed on {}", day(at)))
            }
            State::BuiltIn | State::Confirmed(_) => None,
        }
    }
}

/// An instant as a day, for people.
pub fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Compares the secrets of a project with what was confirmed, in the order of their names.
pub fn compare(entries: &[Entry], confirmed: &[Confirmed]) -> Vec<Standing> {
    let state = |entry: &Entry| {
        if entry.is_built_in() {
            return State::BuiltIn;
        }
        match confirmed.iter().find(|confirmed| confirmed.name == entry.name) {
            None => State::New,
            Some(confirmed) if confirmed.digest == entry.digest => State::Confirmed(confirmed.at),
            Some(confirmed) => State::Changed(confirmed.at),
        }
    };
    let mut found: Vec<Standing> =
        entries.iter().map(|entry| Standing { name: entry.name.clone(), state: state(entry) }).collect();
    found.sort_by(|left, right| left.name.cmp(&right.name));
    found
}

/// The record of a confirmation of all these secrets; names that are gone are forgotten.
pub fn confirm(entries: &[Entry], at: Timestamp) -> Vec<Confirmed> {
    let own = entries.iter().filter(|entry| !entry.is_built_in());
    own.map(|entry| Confirmed { name: entry.name.clone(), digest: entry.digest.clone(), at }).collect()
}

/// What a deployed value is, compared with the one kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The same.
    Matches,
    /// Another one.
    Differs,
    /// Deployed, and not kept.
    Missing,
    /// Kept, and not deployed.
    NotDeployed,
}

impl Verdict {
    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::Differs => "differs from the deployed value",
            Self::Missing => "is deployed, and missing here",
            Self::NotDeployed => "is here, and not deployed",
        }
    }

    /// Whether the deployed value would be lost.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Differs | Self::Missing)
    }
}

/// Compares the deployed digests with digests of values kept elsewhere, in the order of their names.
/// Built-in names are left out on both sides, as `supabase secrets set` skips them.
pub fn verdicts(entries: &[Entry], kept: &[(String, String)]) -> Vec<(String, Verdict)> {
    let verdict = |entry: &Entry| match kept.iter().find(|(name, _)| *name == entry.name) {
        None => Verdict::Missing,
        Some((_, digest)) if digest.eq_ignore_ascii_case(&entry.digest) => Verdict::Matches,
        Some(_) => Verdict::Differs,
    };
    let own: Vec<&Entry> = entries.iter().filter(|entry| !entry.is_built_in()).collect();
    let mut found: Vec<(String, Verdict)> =
        own.iter().map(|entry| (entry.name.clone(), verdict(entry))).collect();
    let extra = kept.iter().map(|(name, _)| name);
    let extra =
        extra.filter(|name| !name.starts_with(BUILT_IN) && own.iter().all(|entry| entry.name != **name));
    found.extend(extra.map(|name| (name.clone(), Verdict::NotDeployed)));
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Differs, Matches, Missing, NotDeployed};
    use super::*;

    fn entry(name: &str, digest: &str) -> Entry {
        Entry { name: name.into(), digest: digest.into(), updated_at: None }
    }

    fn at(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * 86_400).unwrap()
    }

    #[test]
    fn new_changed_and_old_secrets_need_a_confirmation() {
        let before =
            [entry("OLD", "1"), entry("TURNED", "2"), entry("GONE", "3"), entry("SUPABASE_URL", "4")];
        let confirmed = confirm(&before, at(0));
        assert_eq!(confirmed.len(), 3);
        let now = [entry("TURNED", "5"), entry("SUPABASE_URL", "6"), entry("NEW", "7"), entry("OLD", "1")];
        let standings = compare(&now, &confirmed);
        let open = |days| {
            let every = SignedDuration::from_hours(30 * 24);
            let open = standings.iter().filter_map(|standing| standing.open(every, at(days)));
            open.collect::<Vec<_>>()
        };
        assert_eq!(
            open(29),
            ["`NEW` was never confirmed", "`TURNED` was changed since it was confirmed on 2027-01-15"]
        );
        assert_eq!(open(31).len(), 3);
        assert_eq!(open(31)[1], "`OLD` was confirmed on 2027-01-15");
        assert_eq!(
            compare(&now, &confirm(&now, at(1)))
                .iter()
                .filter_map(|one| one.open(SignedDuration::from_hours(1), at(1)))
                .count(),
            0
        );
    }

    #[test]
    fn every_verdict_is_reached() {
        let entries = [entry("A", "aa"), entry("B", "bb"), entry("C", "cc"), entry("SUPABASE_URL", "dd")];
        let kept = [("A", "AA"), ("B", "xx"), ("X", "yy"), ("SUPABASE_URL", "zz")]
            .map(|(name, digest)| (name.to_owned(), digest.to_owned()));
        let expected = [("A", Matches), ("B", Differs), ("C", Missing), ("X", NotDeployed)];
        assert_eq!(verdicts(&entries, &kept), expected.map(|(name, verdict)| (name.to_owned(), verdict)));
    }
}
