//! What would stand in the way of a rollback is named before anything is pushed.

use super::{NOTES, WRONG};
use crate::world::{OWNER, World};

#[test]
fn a_transaction_that_would_hold_its_tables_is_named() {
    let world = World::own_server(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    let idle = world.session(OWNER);
    idle.run("begin; select count(*) from public.notes");
    world.server_clock("+1h");
    let ran = world.migrate(&["--json"]).exits(3);
    let findings = &ran.summary()["findings"];
    assert_eq!(findings.as_array().unwrap().len(), 1, "{ran}");
    assert_eq!(findings[0]["rule"], "SS012", "{ran}");
    assert_eq!(world.history(), [""; 0]);
    idle.run("rollback");
    drop(world.migrate(&[]).exits(0));
}
