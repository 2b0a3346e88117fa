//! Whether the evidence of a push outlives the machine that pushes.

use super::{Finding, Policy, Rule, refusal};

/// Where the evidence of a push stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeping {
    /// On a machine that stays, or in a shared store.
    #[default]
    Lasting,
    /// On the disk of a CI job alone, which this variable tells of.
    Passing(&'static str),
}

pub(super) fn judge(policy: &Policy, keeping: Keeping, findings: &mut Vec<Finding>) {
    let Keeping::Passing(variable) = keeping else { return };
    if !policy.allow_local_store {
        findings.push(refusal(
            Rule::NoSharedStore,
            format!("{variable} is set, and the evidence of this push would go with the disk of the CI job"),
            "set `store = \"s3://bucket/folder\"`, or `allow_local_store = true` for this target when the machine stays",
        ));
    }
}
