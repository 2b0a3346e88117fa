//! PostgREST reads schema and configuration anew after a rollback, and is left alone by one that changes nothing.

use super::{WRONG, pushed};
use crate::world::{OWNER, World};

fn rolled_back(world: &World, code: i32) {
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(code));
}

#[test]
fn postgrest_is_told_to_read_everything_anew() {
    let world = pushed();
    assert!(WRONG.contains("public.notes"));
    let listener = world.listener(OWNER, "pgrst");
    let reader = world.session(OWNER);
    reader.run("begin; select count(*) from public.notes");
    rolled_back(&world, 1);
    assert_eq!(listener.heard(), [""; 0]);
    reader.run("rollback");
    rolled_back(&world, 0);
    assert_eq!(listener.heard(), ["reload schema", "reload config"]);
}
