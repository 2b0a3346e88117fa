//! The demo, whole, to its proof.

use crate::world::{Cli, Major, Ran, World, told};
use serde_json::json;

fn played(args: &[&str]) -> Ran {
    let mut world = World::new(Major::Pg17, Cli::V3);
    world.set("SUPA_SAFE_DEMO_PG_BIN", told("SUPA_SAFE_TEST_PG17_BIN"));
    world.set("SUPA_SAFE_DEMO_HOSTED_BIN", told("SUPA_SAFE_TEST_PG17_HOSTED_BIN"));
    world.unset("SUPA_SAFE_PG_BIN");
    let ran = world.run([&["demo"], args].concat()).exits(0);
    let left = crate::world::list(&world.path("tmp"));
    assert!(left.is_empty(), "{left:?}");
    ran
}

#[test]
fn the_demo_ends_with_its_proof() {
    let ran = played(&[]);
    let at = |text: &str| ran.stderr.find(text).unwrap_or_else(|| panic!("no `{text}`: {ran}"));
    let order =
        ["1/8", "4/8", "7/8", "the proof", ": equal", "what differs is what people did", "8/8"].map(at);
    assert!(order.is_sorted(), "{ran}");
}

#[test]
fn scripts_get_the_demos_rollback_and_its_proof() {
    let ran = played(&["--json"]);
    let summaries = ran.events_of("summary");
    let rolled_back = summaries.iter().filter(|one| !one["rolled_back"].is_null()).count();
    assert_eq!(rolled_back, 1, "{ran}");
    let proof = &ran.summary()["proof"];
    assert_eq!((&proof["holds"], &proof["wrong"]), (&json!(true), &json!([])), "{ran}");
    assert!(!proof["lines"].as_array().unwrap().is_empty(), "{ran}");
}
