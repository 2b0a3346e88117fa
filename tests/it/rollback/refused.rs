//! A snapshot that is not the one to go back to is refused by name.

use super::pushed;

#[test]
fn a_snapshot_from_after_the_push_is_refused_and_the_right_one_named() {
    let world = pushed();
    let right = world.snapshot().id().clone();
    drop(world.run(["snapshot"]).exits(0));
    let later = world.snapshot().id().clone();
    assert_ne!(right, later);
    let before = world.state();
    let ran = world.run(["rollback", later.as_str(), "--confirm", &world.target()]).exits(3);
    let error = ran.stderr.split_once("error: ").unwrap().1;
    assert_eq!(
        error,
        format!(
            "snapshot {later} already holds 20260101000000: it was taken after the push\n  \
             the target was not touched\n\
             hint: The push leaned on another one: run `supa-safe rollback {right}`\n"
        )
    );
    assert_eq!(world.state(), before);
    // Which is the one that goes back without a name, too.
    let ran = world.run(["rollback", right.as_str(), "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(ran.summary()["snapshot"], right.as_str());
    assert_eq!(world.history(), [""; 0]);
}
