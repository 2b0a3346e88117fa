//! What would stand in the way of a rollback is named before anything is pushed.

use super::{NOTES, WRONG};
use crate::world::{ADMIN, OWNER, World};

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

#[test]
fn a_right_that_lacks_is_named() {
    let world = World::own_server(&[("20260101000000_drop", "drop role sync")]);
    // Who may drop a role may not make it again.
    world.sql(
        ADMIN,
        "create role sync replication; grant sync to postgres with admin option; alter role postgres noreplication",
    );
    let ran = world.migrate(&["--json"]).exits(3);
    let findings = &ran.summary()["findings"];
    assert_eq!(findings.as_array().unwrap().len(), 1, "{ran}");
    assert_eq!(findings[0]["rule"], "SS012", "{ran}");
    assert_eq!(
        findings[0]["fact"],
        "a rollback is not possible on the target: this role cannot take back role sync: permission denied to alter role"
    );
    assert_eq!(world.history(), [""; 0]);
    world.sql(ADMIN, "alter role postgres replication");
    drop(world.migrate(&[]).exits(0));
}
