//! A snapshot that is not the one to go back to is refused by name.

use super::pushed;
use crate::world::{OWNER, World};

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

/// A migration that failed on the copy leaves a snapshot, and what users write since is no damage.
#[test]
fn nothing_goes_back_where_nothing_was_pushed() {
    let world = World::hosted(&[("20260101000000_wrong", "alter table public.notes drop column no_such")]);
    world.sql(OWNER, "create table public.notes (id int primary key)");
    drop(world.migrate(&[]).exits(5));
    world.sql(OWNER, "insert into public.notes values (1)");
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
    let first = "error: no push is on record, and the history and everything that the schema owns are as in \
        snapshot [SNAPSHOT]";
    assert_eq!(ran.failure().lines().next().unwrap(), first);
    assert_eq!(world.sql(OWNER, "select id from public.notes"), ["1"]);
    // Somebody who asks for it by name gets it, and what somebody did by hand goes back without one.
    world.sql(OWNER, "alter table public.notes add column more int");
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    assert_eq!(world.sql(OWNER, "select * from public.notes"), [""; 0]);
}
