//! Runs that are told to end: nothing is left behind, the exit code says whether the target was touched, and
//! what cannot be ended half way is seen to its end.

use crate::kill::{Going, held_push, nothing_is_left, world};
use crate::world::OWNER;
use serde_json::json;
use supa_safe::proc::Signal;

#[test]
fn a_rehearsal_that_is_told_to_end_leaves_nothing() {
    let world = world();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        let mut run = Going::start(&world, &["rehearse"]);
        run.until_text("to the copy with supabase");
        run.signals(signal);
        let (ended, summary) = run.ends();
        assert_eq!((ended, &summary["target_touched"]), (code, &json!(false)), "{summary}");
        nothing_is_left(&world);
    }
    assert_eq!((world.history(), world.rehearsals().len()), (Vec::new(), 0));
    drop(world.run(["rehearse"]).exits(0));
}

/// Whoever sends these tells this process alone: the CLI goes on and is waited for, and all was done then.
#[test]
fn a_push_is_seen_to_its_end_by_a_run_that_is_told_to_end() {
    for signal in [Signal::TERM, Signal::HUP] {
        let world = world();
        let (mut run, gate) = held_push(&world);
        run.signals(signal);
        run.until_text("waiting for supabase");
        gate.run("commit");
        let (code, summary) = run.ends();
        assert_eq!((code, &summary["target_touched"]), (0, &json!(true)), "{summary}");
        let files = ["20260101000000_first.sql", "20260102000000_second.sql"];
        assert_eq!((&summary["applied"], &summary["not_applied"]), (&json!(files), &json!([])), "{summary}");
        assert_eq!(world.history(), ["20260101000000", "20260102000000"]);
    }
}

#[test]
fn a_rollback_that_is_told_to_end_before_its_commit_changes_nothing() {
    let world = crate::rollback::pushed();
    let damaged = world.state();
    let reader = world.session(OWNER);
    reader.run("begin; select count(*) from public.notes");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        let mut run = crate::rollback_kill::rollback(&world);
        run.until_text("a lock did not come");
        run.signals(signal);
        let (ended, summary) = run.ends();
        assert_eq!((ended, &summary["target_touched"]), (code, &json!(false)), "{summary}");
        assert_eq!(world.state(), damaged);
    }
    reader.run("rollback");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!((ran.events_of("rolled-back").len(), world.history()), (1, Vec::new()), "{ran}");
}
