//! The rules SS001 and on: `judge(policy, facts, now)` is pure and says which do not hold.
//!
//! Numbers are never reused. A finding names the rule, the fact, and what satisfies it; the page
//! of each rule is `templates/explain/SSnnn.md`.

mod facts;
mod keeping;
mod rule;
mod way_back;

pub use facts::{EditedFile, Facts, Missing, PushFacts, Rehearsal, SnapshotFacts};
pub use keeping::Keeping;
pub use rule::{Rule, UnknownRule};
pub use way_back::{Obstacle, WayBack};

use crate::inventory::Standing;
use crate::manifest::{ComponentName, Strength};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::fmt;

/// How far a clock may run ahead before a snapshot counts as from the future.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What is the case.
    pub fact: String,
    /// What satisfies the rule.
    pub fix: String,
    /// Whether it stops the run; a warning does not.
    pub refuses: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.rule, self.fact)
    }
}

/// Whether rows of tables that are as in an earlier snapshot are taken over from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reuse {
    /// Over a slow line.
    #[default]
    Auto,
    /// Wherever there is one.
    Always,
    /// All rows are dumped.
    Never,
}

/// What must hold before a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How old a snapshot may be.
    pub max_age: SignedDuration,
    /// How far a snapshot must be proved.
    pub strength: Strength,
    /// How old a rehearsal may be.
    pub rehearsal_max_age: SignedDuration,
    /// Whether the policy of this target accepts a push without a rehearsal.
    pub allow_unrehearsed: bool,
    /// Whether the policy of this target accepts a push that no rollback takes back.
    pub allow_no_rollback: bool,
    /// Components beside the database that must be there, where the target has them.
    pub components: Vec<ComponentName>,
    /// How long a confirmation of the secrets holds.
    pub secrets_confirm_every: SignedDuration,
    /// Tables whose rows may be missing from the archive.
    pub accept_unreadable: Vec<String>,
    /// Applied versions whose files may differ from the history.
    pub accept_edited: Vec<String>,
    /// Objects of Storage that may change while they are captured.
    pub allow_drift: u64,
    /// Whether rows of tables that are as in an earlier snapshot are taken over from it.
    pub reuse: Reuse,
    /// How long a push may wait for a lock, or keep others waiting for its own.
    pub max_block: SignedDuration,
    /// Whether the policy of this target accepts evidence that stands on the disk of a CI job alone.
    pub allow_local_store: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_age: SignedDuration::from_mins(15),
            strength: Strength::Decoded,
            rehearsal_max_age: SignedDuration::from_hours(24),
            allow_unrehearsed: false,
            allow_no_rollback: false,
            components: ComponentName::ALL.to_vec(),
            secrets_confirm_every: SignedDuration::from_hours(30 * 24),
            accept_unreadable: Vec::new(),
            accept_edited: Vec::new(),
            allow_drift: 0,
            reuse: Reuse::Auto,
            max_block: SignedDuration::from_secs(5),
            allow_local_store: false,
        }
    }
}

/// Judges facts by the policy; `now` is the target's clock.
pub fn judge(policy: &Policy, facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &facts.snapshot {
        None => findings.push(refusal(
            Rule::NoSnapshot,
            format!("there is no snapshot of `{}`", facts.target.name),
            "run `supa-safe snapshot`",
        )),
        Some(snapshot) => judge_snapshot(policy, facts, snapshot, now, &mut findings),
    }
    for edited in facts.edited.iter().filter(|edited| !policy.accept_edited.contains(&edited.version)) {
        findings.push(refusal(
            Rule::AppliedEdited,
            format!("`{}` is applied on the target, and its file says something else now", edited.file),
            "restore the file as it was applied and put the change into a new migration, or list its version under `accept_edited`",
        ));
    }
    for session in &facts.sessions {
        findings.push(refusal(
            Rule::OtherSession,
            session.clone(),
            "wait until that session has ended, then run again",
        ));
    }
    if let Some(push) = &facts.push {
        judge_push(policy, push, &mut findings);
    }
    findings.sort_by_key(|finding| finding.rule);
    findings
}

fn refusal(rule: Rule, fact: String, fix: &str) -> Finding {
    Finding { rule, fact, fix: fix.to_owned(), refuses: true }
}

/// [`Strength::Succeeded`] satisfies every requirement: a snapshot of the same shape was restored,
/// and its own restore follows when the push is over (DESIGN 3, freshness).
fn judge_snapshot(
    policy: &Policy,
    facts: &Facts,
    snapshot: &SnapshotFacts,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    let differences = snapshot.identity.differences(&facts.target);
    if !differences.is_empty() {
        findings.push(refusal(
            Rule::Identity,
            format!("snapshot {} is of another database: {}", snapshot.id, differences.join("; ")),
            "run `supa-safe snapshot` against this target",
        ));
    }
    if !snapshot.broken.is_empty() {
        findings.push(refusal(
            Rule::Digests,
            format!("snapshot {} does not match its digests: {}", snapshot.id, snapshot.broken.join("; ")),
            "run `supa-safe snapshot`; keep the damaged folder until you know what changed it",
        ));
    } else if snapshot.strength < policy.strength && snapshot.strength != Strength::Succeeded {
        findings.push(refusal(
            Rule::Strength,
            format!(
                "snapshot {} is {}; at least {} is required",
                snapshot.id, snapshot.strength, policy.strength
            ),
            if policy.strength > Strength::Decoded {
                "run `supa-safe verify --restore`"
            } else {
                "run `supa-safe verify`"
            },
        ));
    }
    judge_age(policy, snapshot, now, findings);
    if let Some(run) = &snapshot.rolled_back {
        findings.push(refusal(
            Rule::Age,
            format!(
                "snapshot {} is from before the rollback of run {run}, which made objects again under other ids",
                snapshot.id
            ),
            "run `supa-safe snapshot`",
        ));
    }
    judge_components(policy, snapshot, now, findings);
    for gap in &snapshot.gaps {
        let name = gap.qualified();
        let accepted = policy.accept_unreadable.contains(&name);
        if !accepted {
            findings.push(Finding {
                rule: Rule::Incomplete,
                fact: format!("the rows of table `{name}` are not in snapshot {}: {}", snapshot.id, gap.why),
                fix: format!(
                    "grant the role of the connection the right to read it, or list \"{name}\" under `accept_unreadable`"
                ),
                refuses: gap.class != crate::fingerprint::Class::Platform,
            });
        }
    }
}

fn judge_components(policy: &Policy, snapshot: &SnapshotFacts, now: Timestamp, findings: &mut Vec<Finding>) {
    for Missing { component, what } in
        snapshot.missing.iter().filter(|missing| policy.components.contains(&missing.component))
    {
        findings.push(refusal(
            Rule::Incomplete,
            format!("snapshot {} lacks {what}", snapshot.id),
            &format!("run `supa-safe snapshot`, or leave `{component}` out of `components`"),
        ));
    }
    if !policy.components.contains(&ComponentName::Secrets) {
        return;
    }
    let open = |standing: &Standing| standing.open(policy.secrets_confirm_every, now);
    let open: Vec<String> = snapshot.secrets.iter().filter_map(open).collect();
    if !open.is_empty() {
        findings.push(refusal(
            Rule::SecretsNotConfirmed,
            format!("nobody confirmed that these secrets are kept elsewhere: {}", open.join("; ")),
            "run `supa-safe secrets confirm`",
        ));
    }
}

fn judge_age(policy: &Policy, snapshot: &SnapshotFacts, now: Timestamp, findings: &mut Vec<Finding>) {
    let age = now.duration_since(snapshot.taken_at);
    if age < -CLOCK_TOLERANCE {
        findings.push(refusal(
            Rule::Age,
            format!(
                "snapshot {} is from the future: the target's clock is {} behind it",
                snapshot.id,
                in_words(-age)
            ),
            "check the clock of the target, then run `supa-safe snapshot`",
        ));
    } else if age > policy.max_age {
        findings.push(refusal(
            Rule::Age,
            format!(
                "snapshot {} is {} old; at most {} is allowed",
                snapshot.id,
                in_words(age),
                in_words(policy.max_age)
            ),
            "run `supa-safe snapshot`, or raise `max_age` for this target",
        ));
    }
}

fn judge_push(policy: &Policy, push: &PushFacts, findings: &mut Vec<Finding>) {
    let fix = "run `supa-safe migrate`, which rehearses, or `supa-safe rehearse`";
    for changed in &push.changed {
        findings.push(refusal(Rule::PendingChanged, format!("{changed} since it was rehearsed"), fix));
    }
    for file in &push.not_atomic {
        findings.push(Finding {
            rule: Rule::NotAtomic,
            fact: file.clone(),
            fix: "put such a statement alone into a file of its own".to_owned(),
            refuses: false,
        });
    }
    way_back::judge(policy, &push.way_back, findings);
    keeping::judge(policy, push.keeping, findings);
    match &push.rehearsal {
        Rehearsal::Off if !policy.allow_unrehearsed => findings.push(refusal(
            Rule::NotRehearsed,
            "the rehearsal is switched off, and the policy of this target does not allow that".to_owned(),
            "leave out `--rehearse off`, or set `allow_unrehearsed = true` for this target",
        )),
        Rehearsal::Missing(why) => {
            findings.push(refusal(Rule::NotRehearsed, format!("not rehearsed: {why}"), fix));
        }
        Rehearsal::Failed(what) => findings.push(refusal(
            Rule::RehearsalFailed,
            format!("the migration failed on the copy: {what}"),
            "correct the file and run again",
        )),
        Rehearsal::Passed { age, .. } if *age < -CLOCK_TOLERANCE => findings.push(refusal(
            Rule::NotRehearsed,
            format!(
                "the rehearsal is from the future: this machine's clock is {} behind it",
                in_words(-*age)
            ),
            fix,
        )),
        Rehearsal::Passed { age, .. } if *age > policy.rehearsal_max_age => {
            findings.push(refusal(
                Rule::NotRehearsed,
                format!(
                    "the rehearsal is {} old; at most {} is allowed",
                    in_words(*age),
                    in_words(policy.rehearsal_max_age)
                ),
                fix,
            ));
        }
        Rehearsal::Passed { .. } | Rehearsal::Off | Rehearsal::NotYet => {}
    }
}

/// A duration for people, in its two largest units.
pub fn in_words(duration: SignedDuration) -> String {
    let seconds = duration.abs().as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds % 86_400 / 3_600, seconds % 3_600 / 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) if seconds % 60 == 0 => format!("{minutes} min"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, 0) => format!("{hours} h"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (_, 0, _) => format!("{days} d"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Class;
    use crate::inventory::State;
    use crate::manifest::{Gap, SnapshotId};
    use crate::target::Identity;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity { name: "h:5432/app".into(), system_identifier: "7".into(), database_oid: 5, timeline: 1 }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn good() -> Facts {
        Facts {
            target: identity(),
            snapshot: Some(SnapshotFacts {
                id: SnapshotId::new(at(0), 1),
                identity: identity(),
                taken_at: at(0),
                rolled_back: None,
                strength: Strength::Decoded,
                broken: Vec::new(),
                missing: Vec::new(),
                secrets: Vec::new(),
                gaps: Vec::new(),
            }),
            edited: Vec::new(),
            sessions: Vec::new(),
            push: Some(PushFacts {
                changed: Vec::new(),
                not_atomic: Vec::new(),
                rehearsal: Rehearsal::Passed { at: at(0), age: SignedDuration::from_secs(60) },
                way_back: WayBack::default(),
                keeping: Keeping::Lasting,
            }),
        }
    }

    fn check(change: impl Fn(&mut Facts), now: i64, expected: &[&str]) {
        let mut facts = good();
        change(&mut facts);
        let found: Vec<String> =
            judge(&Policy::default(), &facts, at(now)).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    fn of_snapshot(change: impl Fn(&mut SnapshotFacts)) -> impl Fn(&mut Facts) {
        move |facts| facts.snapshot.iter_mut().for_each(&change)
    }

    fn of_push(change: impl Fn(&mut PushFacts)) -> impl Fn(&mut Facts) {
        move |facts| facts.push.iter_mut().for_each(&change)
    }

    fn no_right() -> Obstacle {
        Obstacle { fact: "no right".to_owned(), way_out: "grant it".to_owned() }
    }

    #[test]
    fn a_push_without_a_way_back_can_be_accepted() {
        let mut facts = good();
        of_push(|p| p.way_back.blocked = vec![no_right()])(&mut facts);
        let accepting = Policy { allow_no_rollback: true, ..Policy::default() };
        let refuses = |policy: &Policy| judge(policy, &facts, at(60))[0].refuses;
        assert_eq!([refuses(&Policy::default()), refuses(&accepting)], [true, false]);
    }

    #[test]
    fn each_rule_names_its_fact() {
        let id = "20270115T080000Z-000001";
        check(|_| {}, 60, &[]);
        check(|facts| facts.snapshot = None, 60, &["[SS001] there is no snapshot of `h:5432/app`"]);
        check(
            of_snapshot(|s| s.strength = Strength::Recorded),
            60,
            &[&format!("[SS002] snapshot {id} is recorded; at least decoded is required")],
        );
        check(|_| {}, 901, &[&format!("[SS003] snapshot {id} is 15 min 1 s old; at most 15 min is allowed")]);
        check(
            |_| {},
            -3600,
            &[&format!("[SS003] snapshot {id} is from the future: the target's clock is 1 h behind it")],
        );
        check(
            of_snapshot(|s| s.rolled_back = Some("r".into())),
            60,
            &[&format!(
                "[SS003] snapshot {id} is from before the rollback of run r, which made objects again under other ids"
            )],
        );
        check(
            of_snapshot(|s| s.identity.system_identifier = "8".into()),
            60,
            &[&format!("[SS004] snapshot {id} is of another database: system identifier 8 is not 7")],
        );
        check(
            of_snapshot(|s| s.broken = vec!["toc.dat has another digest".into()]),
            60,
            &[&format!("[SS005] snapshot {id} does not match its digests: toc.dat has another digest")],
        );
        check(
            of_snapshot(|s| {
                s.gaps = vec![Gap {
                    schema: "public".into(),
                    name: "hidden".into(),
                    class: Class::Owned,
                    why: "no right to read".into(),
                }];
            }),
            60,
            &[&format!(
                "[SS006] the rows of table `public.hidden` are not in snapshot {id}: no right to read"
            )],
        );
        check(
            of_push(|p| p.way_back.not_exact = Some("table a removed".into())),
            60,
            &["[SS011] no rollback gives the snapshot back: table a removed"],
        );
        check(
            of_push(|p| p.way_back.blocked = vec![no_right()]),
            60,
            &["[SS012] a rollback is not possible on the target: no right"],
        );
        check(
            of_push(|p| p.changed = vec!["`seed.sql` was edited".into()]),
            60,
            &["[SS008] `seed.sql` was edited since it was rehearsed"],
        );
        check(
            of_push(|p| p.rehearsal = Rehearsal::Missing("no record".into())),
            60,
            &["[SS009] not rehearsed: no record"],
        );
        check(
            of_push(|p| p.rehearsal = Rehearsal::Off),
            60,
            &["[SS009] the rehearsal is switched off, and the policy of this target does not allow that"],
        );
        check(
            of_push(|p| p.rehearsal = Rehearsal::Failed("x".into())),
            60,
            &["[SS010] the migration failed on the copy: x"],
        );
        check(
            |facts| facts.edited = vec![EditedFile { version: "1".into(), file: "1_a.sql".into() }],
            60,
            &["[SS013] `1_a.sql` is applied on the target, and its file says something else now"],
        );
    }

    #[test]
    fn a_component_that_the_policy_does_not_require_may_lack_anything() {
        let id = "20270115T080000Z-000001";
        let lacking = of_snapshot(|s| {
            let what = "function `pay`: forbidden".to_owned();
            s.missing = vec![Missing { component: ComponentName::Functions, what }];
            s.secrets = vec![
                Standing { name: "STRIPE_KEY".into(), state: State::New },
                Standing { name: "OLD".into(), state: State::Confirmed(at(-31 * 86_400)) },
                Standing { name: "GOOD".into(), state: State::Confirmed(at(-29 * 86_400)) },
                Standing { name: "SUPABASE_URL".into(), state: State::BuiltIn },
            ];
        });
        check(
            &lacking,
            60,
            &[
                &format!("[SS006] snapshot {id} lacks function `pay`: forbidden"),
                "[SS007] nobody confirmed that these secrets are kept elsewhere: `STRIPE_KEY` was never confirmed; `OLD` was confirmed on 2026-12-15",
            ],
        );
        let mut facts = good();
        lacking(&mut facts);
        let policy = Policy { components: vec![ComponentName::Storage], ..Policy::default() };
        assert_eq!(judge(&policy, &facts, at(60)), []);
    }

    #[test]
    fn a_platform_gap_warns_only() {
        let mut facts = good();
        of_snapshot(|s| {
            s.gaps = vec![Gap {
                schema: "storage".into(),
                name: "migrations".into(),
                class: Class::Platform,
                why: "no right to read".into(),
            }];
        })(&mut facts);
        let findings = judge(&Policy::default(), &facts, at(60));
        assert_eq!(findings.iter().map(|finding| finding.refuses).collect::<Vec<_>>(), [false]);
    }

    #[test]
    fn durations_are_words() {
        let word = |seconds| in_words(SignedDuration::from_secs(seconds));
        assert_eq!(
            [word(5), word(60), word(61), word(7200), word(90_061)],
            ["5 s", "1 min", "1 min 1 s", "2 h", "1 d 1 h"]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn more_or_fresher_evidence_never_refuses_what_was_granted(
            age in 0_i64..2000, fresher in 0_i64..2000, strength in 0_usize..5, stronger in 0_usize..5,
        ) {
            let all = [Strength::Recorded, Strength::Digested, Strength::Decoded, Strength::Succeeded, Strength::Restored];
            let refused = |age: i64, strength: usize| {
                let mut facts = good();
                of_snapshot(|s| s.strength = all[strength])(&mut facts);
                !judge(&Policy::default(), &facts, at(age)).is_empty()
            };
            let (better_age, better_strength) = (age.min(fresher), strength.max(stronger));
            prop_assert!(refused(age, strength) || !refused(better_age, better_strength));
        }
    }
}
