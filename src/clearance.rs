//! Grants leave to change one target, from the proofs themselves. The only maker of a
//! [`Clearance`], and of a [`Confirmation`].

use crate::context::Context;
use crate::manifest::{SnapshotId, Strength};
use crate::policy::{Facts, Finding, Policy, judge};
use crate::rehearse::{Rehearsed, Subject};
use crate::runbook::Written;
use crate::store::{self, Kept};
use crate::verify::Verified;
use jiff::{SignedDuration, Timestamp};

/// What a person under a coding agent types besides the target's name: such a person has the
/// agent's variables in the shell too, and a program would not make this claim unasked.
pub const EXTRA_PHRASE: &str = "I am a person and I read this";

/// How the words of a confirmation came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Typed on the terminal; under an agent with the extra phrase.
    Typed {
        /// The words.
        words: String,
        /// The extra phrase, when it was asked for.
        extra: Option<String>,
    },
    /// Passed with `--confirm`.
    Flag(String),
}

/// Why words do not confirm.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotConfirmed {
    /// They are not the target's name.
    #[error("the words do not match: `{said}` is not `{wanted}`")]
    OtherWords {
        /// What was said.
        said: String,
        /// What confirms.
        wanted: String,
    },
    /// A flag does not count under a coding agent.
    #[error("`--confirm` does not count under a coding agent ({0} is set)")]
    Agent(&'static str),
    /// The extra phrase was not typed.
    #[error("the extra phrase was not typed")]
    NoPhrase,
}

/// A person's or a script's consent to change a target; only this module makes one.
#[derive(Debug)]
pub struct Confirmation {
    target: String,
}

impl Confirmation {
    /// Weighs what was said; `agent` is the variable by which a coding agent gave itself away.
    pub fn weigh(said: &Said, target: &str, agent: Option<&'static str>) -> Result<Self, NotConfirmed> {
        let words = match (said, agent) {
            (Said::Flag(_), Some(variable)) => return Err(NotConfirmed::Agent(variable)),
            (Said::Typed { extra, .. }, Some(_)) if extra.as_deref() != Some(EXTRA_PHRASE) => {
                return Err(NotConfirmed::NoPhrase);
            }
            (Said::Flag(words) | Said::Typed { words, .. }, _) => words,
        };
        if words == target {
            Ok(Self { target: target.to_owned() })
        } else {
            Err(NotConfirmed::OtherWords { said: words.clone(), wanted: target.to_owned() })
        }
    }
}

/// Everything that a clearance is granted on.
#[derive(Debug)]
pub struct Case<'a> {
    /// What must hold.
    pub policy: &'a Policy,
    /// What is known now.
    pub facts: Facts,
    /// The proved snapshot.
    pub base: &'a Verified,
    /// The rehearsal; `None` only where the policy allows a push without one.
    pub rehearsed: Option<&'a Rehearsed>,
    /// The runbook of that snapshot.
    pub runbook: &'a Written,
    /// What will be pushed.
    pub subject: Subject<'a>,
    /// Where the evidence stands.
    pub kept: Kept,
}

/// Leave to push once, bound to target, snapshot, and pending files, until it expires.
#[derive(Debug)]
pub struct Clearance<'a> {
    subject: Subject<'a>,
    snapshot: SnapshotId,
    expires_at: Timestamp,
    max_block: SignedDuration,
}

impl<'a> Clearance<'a> {
    /// What may be pushed.
    pub fn subject(&self) -> Subject<'a> {
        self.subject
    }

    /// The snapshot that it is bound to.
    pub fn snapshot(&self) -> &SnapshotId {
        &self.snapshot
    }

    /// When it ends, by the target's clock.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// How long the push may wait for a lock, or keep others waiting.
    pub fn max_block(&self) -> SignedDuration {
        self.max_block
    }
}

/// Grants a clearance, or says which rules do not hold; `now` is the target's clock.
pub fn grant<'a>(
    case: &Case<'a>,
    said: &Confirmation,
    now: Timestamp,
) -> Result<Clearance<'a>, Vec<Finding>> {
    let mut findings: Vec<Finding> =
        judge(case.policy, &case.facts, now).into_iter().filter(|finding| finding.refuses).collect();
    let manifest = &case.base.snapshot().manifest;
    let key = case.subject.key(case.base);
    let bound = said.target == case.subject.target.name()
        && case.runbook.snapshot() == &manifest.id
        && case.rehearsed.is_none_or(|rehearsed| rehearsed.record().key == key)
        && (case.rehearsed.is_some() || case.policy.allow_unrehearsed)
        && case.facts.snapshot.as_ref().is_some_and(|snapshot| snapshot.id == manifest.id);
    if !case.kept.has(&manifest.id) {
        findings.push(Finding {
            rule: crate::policy::Rule::Digests,
            fact: format!("snapshot {} does not stand in the shared store", manifest.id),
            fix: "run `supa-safe migrate` again, which takes another one".to_owned(),
            refuses: true,
        });
    }
    if !bound {
        findings.push(Finding {
            rule: crate::policy::Rule::NotRehearsed,
            fact: "the proofs are not about the same push".to_owned(),
            fix: "run `supa-safe migrate` again".to_owned(),
            refuses: true,
        });
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    Ok(Clearance {
        subject: case.subject,
        snapshot: manifest.id.clone(),
        expires_at: manifest.taken.target_clock + case.policy.max_age,
        max_block: case.policy.max_block,
    })
}

/// Lets a fresh snapshot stand on the restore of the one that was rehearsed: both have the same
/// shape, so what restored the one restores the other (DESIGN 3, freshness).
pub fn succeed(
    fresh: Verified,
    rehearsed: &Rehearsed,
    context: &Context,
) -> Result<Result<Verified, Verified>, store::Error> {
    let (database, record) = (&fresh.snapshot().manifest.database, rehearsed.record());
    let same_shape = database.owned_digest == record.key.owned_digest
        && database.contents_digest == record.contents_digest;
    if !same_shape || fresh.strength() < Strength::Decoded {
        return Ok(Err(fresh));
    }
    if fresh.strength() >= Strength::Succeeded {
        return Ok(Ok(fresh));
    }
    let of = record.snapshot.clone();
    fresh.strengthen(context, Strength::Succeeded, Some(of), record.limits.clone()).map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &str, extra: Option<&str>) -> Said {
        Said::Typed { words: words.to_owned(), extra: extra.map(str::to_owned) }
    }

    #[test]
    fn only_the_targets_name_confirms() {
        let weigh = |said: &Said, agent| Confirmation::weigh(said, "h:1/d", agent).err();
        assert_eq!(weigh(&typed("h:1/d", None), None), None);
        assert_eq!(weigh(&Said::Flag("h:1/d".into()), None), None);
        assert_eq!(
            weigh(&Said::Flag("yes".into()), None),
            Some(NotConfirmed::OtherWords { said: "yes".into(), wanted: "h:1/d".into() })
        );
    }

    #[test]
    fn under_an_agent_a_flag_never_counts_and_typed_words_need_the_phrase() {
        let weigh = |said: &Said| Confirmation::weigh(said, "h:1/d", Some("CLAUDECODE")).err();
        assert_eq!(weigh(&Said::Flag("h:1/d".into())), Some(NotConfirmed::Agent("CLAUDECODE")));
        assert_eq!(weigh(&typed("h:1/d", None)), Some(NotConfirmed::NoPhrase));
        assert_eq!(weigh(&typed("h:1/d", Some("yes"))), Some(NotConfirmed::NoPhrase));
        assert_eq!(weigh(&typed("h:1/d", Some(EXTRA_PHRASE))), None);
    }
}
