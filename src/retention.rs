//! Which snapshots are kept, and why: a decision, not a deletion.
//!
//! Nothing goes that something still leans on, and nothing goes without a reason to go: a snapshot
//! whose record cannot be read is kept, because nobody knows what it is.

use crate::manifest::{ComponentName, ComponentState, Manifest, SnapshotId};
use crate::policy::in_words;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How long a rehearsal may count at most (DESIGN 3); an older one leans on nothing any more.
const REHEARSAL_COUNTS: SignedDuration = SignedDuration::from_hours(24);

/// What is known when it is decided.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This machine's clock.
    pub now: Timestamp,
    /// How long a snapshot is kept in any case.
    pub keep: SignedDuration,
    /// Every snapshot of the target.
    pub snapshots: Vec<Known>,
    /// Snapshots that a rehearsal restored, and when.
    pub rehearsals: Vec<(SnapshotId, Timestamp)>,
    /// Runs that pushed.
    pub pushes: Vec<PastPush>,
    /// When the platform's newest backup was completed; none when that is not known, or there is none.
    pub backup_at: Option<Timestamp>,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub id: SnapshotId,
    /// Its consistency point by this machine's clock, or why its record cannot be read.
    pub taken_at: Result<Timestamp, String>,
    /// Whether a person pinned it.
    pub pinned: bool,
    /// Snapshots whose restore stands for this one.
    pub successor_of: Vec<SnapshotId>,
    /// What it holds, by the part's name.
    pub holds: BTreeMap<&'static str, Extent>,
    /// Whether a part of it is known to be lost or altered.
    pub is_damaged: bool,
}

impl Known {
    /// Whether nothing is lost with an older one as long as this one is there.
    fn replaces(&self, older: &Self) -> bool {
        let holds = |part: &str| self.holds.get(part).copied().unwrap_or(Extent::None);
        self.id > older.id
            && self.taken_at.is_ok()
            && !self.is_damaged
            && older.holds.iter().all(|(part, extent)| holds(part) >= *extent)
    }
}

/// How much of a part a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Nothing.
    None,
    /// Not all of it.
    Part,
    /// All of it.
    Whole,
}

/// What a snapshot holds by its record: the database, and each component.
pub fn holds(manifest: &Manifest) -> BTreeMap<&'static str, Extent> {
    let database = if manifest.database.gaps.is_empty() { Extent::Whole } else { Extent::Part };
    let components = manifest.components.iter().map(|component| {
        let extent = match component.state {
            ComponentState::Complete => Extent::Whole,
            // Keys that do not open Storage leave no index, and nothing of it is held.
            ComponentState::Incomplete if component.name != ComponentName::Storage => Extent::Part,
            ComponentState::Incomplete if manifest.storage.is_some() => Extent::Part,
            ComponentState::Incomplete | ComponentState::LeftOut | ComponentState::NotApplicable => {
                Extent::None
            }
        };
        (component.name.as_str(), extent)
    });
    components.chain([("database", database)]).collect()
}

/// A run that pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastPush {
    /// Its name, which sorts by time.
    pub run: String,
    /// The snapshot that its clearance was bound to.
    pub snapshot: SnapshotId,
    /// When it began to push.
    pub at: Timestamp,
    /// Whether it is known what became of it.
    pub settled: bool,
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is the newest one.
    Newest,
    /// No newer one that is undamaged holds all that it holds.
    Unreplaced {
        /// What it holds, in words.
        holds: String,
        /// Whether it is damaged itself.
        is_damaged: bool,
    },
    /// A person said so.
    Pinned,
    /// It is young.
    Young(SignedDuration),
    /// A rehearsal that still counts restored it.
    Rehearsed,
    /// The restore of this one stands for that one.
    Successor(SnapshotId),
    /// The last push leaned on it.
    LastPush,
    /// Nobody knows what became of that run's push.
    Unsettled(String),
    /// The platform is not known to have a backup that is newer than the push.
    NoBackup,
    /// Its record cannot be read.
    Damaged(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest one"),
            Self::Unreplaced { holds, is_damaged: false } => {
                write!(f, "no newer undamaged one holds as much: {holds}")
            }
            Self::Unreplaced { holds, is_damaged: true } => {
                write!(f, "damaged, and no newer undamaged one holds what it should: {holds}")
            }
            Self::Pinned => f.write_str("pinned"),
            Self::Young(keep) => write!(f, "younger than {}", in_words(*keep)),
            Self::Rehearsed => f.write_str("a rehearsal that still counts restored it"),
            Self::Successor(id) => write!(f, "its restore stands for snapshot {id}"),
            Self::LastPush => f.write_str("the last push leaned on it"),
            Self::Unsettled(run) => write!(f, "nobody knows yet what became of the push of run {run}"),
            Self::NoBackup => f.write_str("no native backup from after its push is known"),
            Self::Damaged(why) => {
                write!(f, "its record cannot be read ({why}): look at it, then remove it by hand")
            }
        }
    }
}

/// What happens to a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its age, when its record can be read.
    pub age: Option<SignedDuration>,
    /// Why it is kept; empty when it goes.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decides for every snapshot, newest first.
pub fn decide(facts: &Facts) -> Vec<Verdict> {
    let mut verdicts: BTreeMap<&SnapshotId, Vec<Reason>> =
        facts.snapshots.iter().map(|known| (&known.id, own_reasons(facts, known))).collect();
    // A restore that stands for a kept snapshot is kept, and so is what that one leans on.
    let mut queue: Vec<&Known> = facts
        .snapshots
        .iter()
        .filter(|known| verdicts.get(&known.id).is_some_and(|why| !why.is_empty()))
        .collect();
    let mut seen: BTreeSet<&SnapshotId> = queue.iter().map(|known| &known.id).collect();
    while let Some(kept) = queue.pop() {
        for base in &kept.successor_of {
            if let Some(why) = verdicts.get_mut(base) {
                why.push(Reason::Successor(kept.id.clone()));
            }
            if let Some(known) = facts.snapshots.iter().find(|known| known.id == *base)
                && seen.insert(&known.id)
            {
                queue.push(known);
            }
        }
    }
    let age = |known: &Known| known.taken_at.as_ref().ok().map(|taken| facts.now.duration_since(*taken));
    let mut decided: Vec<Verdict> = facts
        .snapshots
        .iter()
        .map(|known| Verdict {
            id: known.id.clone(),
            age: age(known),
            reasons: verdicts.remove(&known.id).unwrap_or_default(),
        })
        .collect();
    decided.sort_by(|left, right| right.id.cmp(&left.id));
    decided
}

fn own_reasons(facts: &Facts, known: &Known) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let readable = facts.snapshots.iter().filter(|other| other.taken_at.is_ok());
    if readable.max_by(|left, right| left.id.cmp(&right.id)).is_some_and(|newest| newest.id == known.id) {
        reasons.push(Reason::Newest);
    } else if known.taken_at.is_ok() && !facts.snapshots.iter().any(|other| other.replaces(known)) {
        reasons.push(Reason::Unreplaced { holds: in_list(&known.holds), is_damaged: known.is_damaged });
    }
    if known.pinned {
        reasons.push(Reason::Pinned);
    }
    match &known.taken_at {
        Err(why) => reasons.push(Reason::Damaged(why.clone())),
        // One from the future is young as well: the clock is wrong, not the snapshot.
        Ok(taken) if facts.now.duration_since(*taken) < facts.keep => reasons.push(Reason::Young(facts.keep)),
        Ok(_) => {}
    }
    let counts = |at: &Timestamp| facts.now.duration_since(*at) <= REHEARSAL_COUNTS;
    if facts.rehearsals.iter().any(|(id, at)| *id == known.id && counts(at)) {
        reasons.push(Reason::Rehearsed);
    }
    let last = facts.pushes.iter().max_by(|left, right| left.run.cmp(&right.run));
    if last.is_some_and(|push| push.snapshot == known.id) {
        reasons.push(Reason::LastPush);
    }
    for push in facts.pushes.iter().filter(|push| push.snapshot == known.id) {
        if !push.settled {
            reasons.push(Reason::Unsettled(push.run.clone()));
        }
        if facts.backup_at.is_some_and(|backup| backup < push.at) {
            reasons.push(Reason::NoBackup);
        }
    }
    reasons
}

/// Whether one goes that a push leaned on: then it matters what backups the platform has.
pub fn lets_go_of_a_push(facts: &Facts, verdicts: &[Verdict]) -> bool {
    let mut going = verdicts.iter().filter(|verdict| !verdict.is_kept());
    going.any(|verdict| facts.pushes.iter().any(|push| push.snapshot == verdict.id))
}

/// What a snapshot holds, in words.
fn in_list(holds: &BTreeMap<&'static str, Extent>) -> String {
    let word = |(part, extent): (&&str, &Extent)| match extent {
        Extent::None => None,
        Extent::Part => Some(format!("{part} in part")),
        Extent::Whole => Some((*part).to_owned()),
    };
    holds.iter().filter_map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn days_ago(days: i32) -> Timestamp {
        now() - DAY * days
    }

    fn id(days: i32) -> SnapshotId {
        SnapshotId::new(days_ago(days), 0)
    }

    fn known(days: i32) -> Known {
        Known {
            id: id(days),
            taken_at: Ok(days_ago(days)),
            pinned: false,
            successor_of: Vec::new(),
            holds: BTreeMap::from([("database", Extent::Whole), ("storage", Extent::Whole)]),
            is_damaged: false,
        }
    }

    fn facts(snapshots: Vec<Known>) -> Facts {
        Facts {
            now: now(),
            keep: DAY * 14,
            snapshots,
            rehearsals: Vec::new(),
            pushes: Vec::new(),
            backup_at: None,
        }
    }

    fn push(days: i32, settled: bool) -> PastPush {
        PastPush { run: format!("{}", 1000 - days), snapshot: id(days), at: days_ago(days), settled }
    }

    /// What is kept, by age in days, with the reasons.
    fn check(facts: &Facts, expected: &[(i32, &[Reason])]) {
        let kept: Vec<(SnapshotId, Vec<Reason>)> = decide(facts)
            .into_iter()
            .filter(Verdict::is_kept)
            .map(|verdict| (verdict.id, verdict.reasons))
            .collect();
        let expected: Vec<(SnapshotId, Vec<Reason>)> =
            expected.iter().map(|(days, reasons)| (id(*days), reasons.to_vec())).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn the_newest_and_the_young_stay() {
        let young = || Reason::Young(DAY * 14);
        check(
            &facts(vec![known(20), known(13), known(14), known(3)]),
            &[(3, &[Reason::Newest, young()]), (13, &[young()])],
        );
        check(&facts(vec![known(90), known(60)]), &[(60, &[Reason::Newest])]);
        check(&facts(vec![known(-1), known(60)]), &[(-1, &[Reason::Newest, young()])]);
        check(&facts(Vec::new()), &[]);
    }

    #[test]
    fn what_something_leans_on_stays() {
        let base = || vec![known(60), known(50), known(40), known(30), known(20)];
        let pinned = |facts: &mut Facts| facts.snapshots[0].pinned = true;
        let mut one = facts(base());
        pinned(&mut one);
        check(&one, &[(20, &[Reason::Newest]), (60, &[Reason::Pinned])]);

        let mut one = facts(base());
        one.rehearsals = vec![(id(50), days_ago(1)), (id(40), days_ago(2))];
        check(&one, &[(20, &[Reason::Newest]), (50, &[Reason::Rehearsed])]);

        let mut one = facts(base());
        one.pushes = vec![push(60, true), push(50, false), push(40, true)];
        check(
            &one,
            &[
                (20, &[Reason::Newest]),
                (40, &[Reason::LastPush]),
                (50, &[Reason::Unsettled("950".to_owned())]),
            ],
        );
    }

    #[test]
    fn a_chain_of_successors_stays_whole() {
        let mut one = facts(vec![known(60), known(50), known(40), known(30)]);
        one.snapshots[3].successor_of = vec![id(50)];
        one.snapshots[1].successor_of = vec![id(60)];
        one.snapshots[2].successor_of = vec![id(60)];
        check(
            &one,
            &[
                (30, &[Reason::Newest]),
                (50, &[Reason::Successor(id(30))]),
                (60, &[Reason::Successor(id(50))]),
            ],
        );
    }

    #[test]
    fn a_backup_of_the_platform_lets_go_only_when_it_is_newer() {
        let mut one = facts(vec![known(60), known(50), known(20)]);
        one.pushes = vec![push(60, true), push(50, true), push(20, true)];
        let last = [Reason::Newest, Reason::LastPush];
        check(&one, &[(20, &last)]);
        assert!(lets_go_of_a_push(&one, &decide(&one)));
        one.backup_at = Some(days_ago(55));
        check(
            &one,
            &[(20, &[Reason::Newest, Reason::LastPush, Reason::NoBackup]), (50, &[Reason::NoBackup])],
        );
        one.pushes.remove(0);
        assert!(!lets_go_of_a_push(&one, &decide(&one)));
        one.backup_at = Some(days_ago(1));
        check(&one, &[(20, &last)]);
    }

    #[test]
    fn what_nobody_can_read_stays_and_is_not_the_newest() {
        let mut one = facts(vec![known(60), known(50)]);
        one.snapshots[1].taken_at = Err("cut short".to_owned());
        check(&one, &[(50, &[Reason::Damaged("cut short".to_owned())]), (60, &[Reason::Newest])]);
    }

    #[test]
    fn what_no_newer_one_replaces_stays() {
        let storage = |days: i32, extent| {
            let mut known = known(days);
            known.holds.extend([("storage", extent)]);
            known
        };
        let unreplaced =
            |holds: &str, is_damaged| [Reason::Unreplaced { holds: holds.to_owned(), is_damaged }];
        let all = unreplaced("database, storage", false);
        let newest = [Reason::Newest];
        let whole = || vec![known(90), known(80)];

        let with = |more: Vec<Known>| facts([whole(), more].concat());
        check(&with(vec![storage(60, Extent::None)]), &[(60, &newest), (80, &all)]);
        let part = unreplaced("database, storage in part", false);
        check(
            &with(vec![storage(70, Extent::Part), storage(60, Extent::None)]),
            &[(60, &newest), (70, &part), (80, &all)],
        );
        let mut one = with(vec![known(60)]);
        one.snapshots[2].is_damaged = true;
        check(&one, &[(60, &newest), (80, &all)]);
        // Damaged ones stay until one that is not holds as much.
        one.snapshots[1].is_damaged = true;
        let damaged = unreplaced("database, storage", true);
        check(&one, &[(60, &newest), (80, &damaged), (90, &all)]);
        one.snapshots.push(known(50));
        check(&one, &[(50, &newest)]);
    }
}
