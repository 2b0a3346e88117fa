//! Kills around each record and each sync, and a disk that is full from any write on: production is as before, or
//! the next run finishes it. All of them with `SUPA_SAFE_TEST_EVERY=1`; else some.

use super::objects::{Damaged, is_told_truly};
use crate::world::{Major, Ran, told};
use snapbox::{assert_data_eq, str};
use std::collections::BTreeSet;
use std::path::PathBuf;
use supa_safe::disk;

/// Runs that came to a fault before the commit, and after it.
#[derive(Debug, Default)]
struct Hit {
    before: u32,
    after: u32,
    /// Files that they were writing then.
    cut_short: usize,
    /// What the others said that did not come to their end: the code, and what could not be done.
    errors: BTreeSet<String>,
}

/// A run whose files of a kind come to a fault, as `tests/wrappers/fault.c` says.
fn spoiled(all: &Damaged, fault: &str) -> Ran {
    let mut command = all.world.command();
    command.args(all.args()).arg("--json");
    all.world.finish(command.env("LD_PRELOAD", told("SUPA_SAFE_TEST_FAULTS")).env("FAULT", fault))
}

/// How many faults there are from one that is tried to the next.
fn stride(by_itself: u32) -> u32 {
    std::env::var("SUPA_SAFE_TEST_EVERY").map_or(by_itself, |every| every.parse().unwrap())
}

fn rollbacks(all: &Damaged) -> PathBuf {
    all.world.store().join("rollbacks")
}

fn cut_short(all: &Damaged) -> Vec<PathBuf> {
    let folder = rollbacks(all);
    if folder.exists() { disk::unnamed_below(&folder).unwrap() } else { Vec::new() }
}

/// Comes to such a fault at one call after the other, each run going on from what the one before it left, until
/// one is told that nothing is left to do.
#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it by hand")]
fn comes_to_each(all: &Damaged, fault: &str, part: &str, stride: u32) -> Hit {
    let (mut number, mut is_back, mut hit) = (1, false, Hit::default());
    loop {
        let what = format!("{fault} {number} {part}, {hit:?}");
        let left = cut_short(all);
        let ran = spoiled(all, &format!("{fault} {number} {part}"));
        let was_back = is_back;
        let is_over = if ran.code == 137 {
            is_back = all.is_back(&what);
            false
        } else {
            let summary = ran.summary();
            let error = summary["error"].get(0).filter(|_| ran.code != 3);
            hit.errors.extend(error.map(|error| format!("{} {error}", ran.code)));
            is_back = is_told_truly(all, &(ran.code, summary), was_back, &what);
            ran.code == 3
        };
        assert!(is_back || !was_back, "{what}: {ran}");
        if is_over {
            assert!(was_back, "{what}: {ran}");
            break;
        }
        if ran.code != 0 {
            *(if is_back { &mut hit.after } else { &mut hit.before }) += 1;
        }
        if part == "/rollbacks/" {
            let now = cut_short(all);
            assert!(left.iter().all(|file| !now.contains(file)), "{what}: {ran}");
            hit.cut_short += now.len();
        }
        number = if is_back == was_back { number + stride } else { 1 };
    }
    all.stands_as_before(&format!("{fault} {part}"));
    assert!(cut_short(all).is_empty());
    eprintln!("{fault} {part}: {hit:?}");
    hit
}

/// Kills a rollback around each of its calls on these files, before the calls or after them.
fn killed(all: &Damaged, how: &str, (call, part): (&str, &str), by_itself: u32) -> Hit {
    let hit = comes_to_each(all, &format!("{how} {call}"), part, stride(by_itself));
    assert!(hit.before > 0 && hit.after > 0, "{how} {call} {part}: {hit:?}");
    hit
}

#[test]
fn killed_around_each_record() {
    let mut all = Damaged::new(Major::Pg17, "whole");
    drop(killed(&all, "before", ("write", "/runs/"), 6));
    all.damage();
    drop(killed(&all, "after", ("write", "/runs/"), 5));
}

/// After the commit there are two: no larger stride comes to one of them for sure.
#[test]
fn killed_before_each_sync_of_what_is_kept() {
    let hit = killed(&Damaged::new(Major::Pg17, "whole"), "before", ("sync", "/rollbacks/"), 2);
    assert!(hit.cut_short > 0, "{hit:?}");
}

#[test]
fn killed_after_each_sync_of_what_is_kept_in_mode_touched() {
    let hit = killed(&Damaged::new(Major::Pg15, "touched"), "after", ("sync", "/rollbacks/"), 2);
    assert!(hit.cut_short > 0, "{hit:?}");
}

#[test]
fn killed_at_each_sync_of_saved_objects() {
    let hit = comes_to_each(&Damaged::new(Major::Pg17, "whole"), "before sync", "/objects/", 1);
    assert!(hit.before > 0, "{hit:?}");
}

/// What could not be written is said, and that nothing was changed; what comes after the commit ends no run.
#[test]
fn a_full_disk_at_each_write() {
    let mut all = Damaged::new(Major::Pg17, "whole");
    let mut errors = BTreeSet::new();
    for (at, (part, by_itself)) in
        [("/runs/", 6), ("/rollbacks/", 15), ("/objects/", 1)].into_iter().enumerate()
    {
        if at > 0 {
            all.damage();
        }
        let hit = comes_to_each(&all, "full write", part, stride(by_itself));
        assert!(hit.before > 0, "{part}: {hit:?}");
        errors.extend(hit.errors.into_iter().map(|error| format!("{part} {error}\n")));
    }
    assert_data_eq!(
        errors.into_iter().collect::<String>(),
        str![[r#"
/objects/ 1 "cannot write the bytes of an object"
/rollbacks/ 1 "cannot keep the files of the rollback"
/rollbacks/ 1 "cannot keep what is saved of Storage"
/runs/ 1 "cannot keep the files of the rollback"

"#]]
    );
}
