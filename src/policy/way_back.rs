//! Whether what is pushed can be taken back.

use super::{Finding, Policy, Rule, refusal};

/// What is known of the way back from a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WayBack {
    /// Why no rollback was exact in the rehearsal, if none was.
    pub not_exact: Option<String>,
    /// What stands in the way of a rollback on the target.
    pub blocked: Vec<Obstacle>,
}

impl WayBack {
    /// Why there is none, in words; nothing where there is one.
    pub fn obstacles(&self) -> impl Iterator<Item = String> {
        let not_exact = self.not_exact.iter().map(|why| not_exact(why));
        not_exact.chain(self.blocked.iter().map(blocked))
    }
}

fn not_exact(why: &str) -> String {
    format!("no rollback gives the snapshot back: {why}")
}

fn blocked(obstacle: &Obstacle) -> String {
    format!("a rollback is not possible on the target: {}", obstacle.fact)
}

/// Something that stands in the way of a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What it is, in words.
    pub fact: String,
    /// What to do about it.
    pub way_out: String,
}

pub(super) fn judge(policy: &Policy, way_back: &WayBack, findings: &mut Vec<Finding>) {
    let finding =
        |rule, fact, fix: &str| Finding { refuses: !policy.allow_no_rollback, ..refusal(rule, fact, fix) };
    if let Some(why) = &way_back.not_exact {
        findings.push(finding(
            Rule::RollbackNotExact,
            not_exact(why),
            "change what cannot be undone, or set `allow_no_rollback = true` for this target",
        ));
    }
    for obstacle in &way_back.blocked {
        findings.push(finding(
            Rule::RollbackImpossible,
            blocked(obstacle),
            &format!("{}, or set `allow_no_rollback = true` for this target", obstacle.way_out),
        ));
    }
}
