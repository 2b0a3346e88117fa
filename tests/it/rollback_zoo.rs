//! The zoo: one object of every kind that a dump holds goes through each damage and comes back, by
//! our own fingerprint, and by a dump of everything that knows nothing of it.

use crate::rollback::{AS_HOSTED, Base};
use crate::world::{ADMIN, Major, OWNER, World, same};
use supa_safe::failure::chain;
use supa_safe::rollback::{Mode, Translation};

const ZOO: &str = include_str!("rollback/zoo.sql");
const DAMAGES: &str = include_str!("rollback/zoo_damages.sql");
/// Of the damages that cost most, every so many; `tests/soak/rollback` takes each.
const SOME: usize = 12;
/// What the platform does when its extension is made.
pub(crate) const WRAPPER: &str = "create extension postgres_fdw schema extensions;
    grant usage on foreign data wrapper postgres_fdw to postgres";

fn zoo(major: Major) -> World {
    let world = World::own_server_of(major, &[]);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(ADMIN, WRAPPER);
    world.sql(OWNER, ZOO);
    world
}

fn damages() -> impl Iterator<Item = &'static str> {
    DAMAGES.lines().filter(|line| !line.starts_with("--"))
}

/// Every line of a dump of everything, rows and privileges included.
fn dump(world: &World) -> Vec<String> {
    let pg_dump = world.variable("SUPA_SAFE_PG_BIN").join("pg_dump");
    let text =
        world.finish(world.program(pg_dump).args(["--no-sync", "--dbname", &world.url()])).exits(0).stdout;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("\\restrict ") && !line.starts_with("\\unrestrict "));
    lines.sort_unstable();
    lines
}

/// Each damage alone, in a transaction that nobody sees.
fn each_alone(major: Major) {
    let base = Base::of(zoo(major));
    let recorded = supa_safe::rollback::recorded_contents(&base.snapshot).unwrap();
    // Whatever stands has the id that it had.
    let ids = Translation::of_target(&recorded, &recorded);
    let session = base.world.session(OWNER);
    let mut wrong = Vec::new();
    for (at, damage) in damages().enumerate() {
        // What goes back as a whole hardly knows what happened to it.
        let modes: &[Mode] =
            if at.is_multiple_of(SOME) { &[Mode::Touched, Mode::Whole] } else { &[Mode::Touched] };
        for &mode in modes {
            session.run(&format!("begin; {damage}"));
            if let Err(error) = base.bring_back(&session, mode, &[], &ids) {
                wrong.push(format!("{damage}\n  {mode:?}: {:?}", chain(&error)));
            }
            session.run("rollback; reset all");
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), damages().count(), wrong.join("\n"));
}

#[test]
fn each_damage_of_the_zoo_alone_on_15() {
    each_alone(Major::Pg15);
}

#[test]
fn each_damage_of_the_zoo_alone_on_17() {
    each_alone(Major::Pg17);
}

/// Damages that stay, one after the other: afterwards a dump of everything is what it was.
fn as_dumped(major: Major) {
    let base = Base::of(zoo(major));
    let before = dump(&base.world);
    let mut wrong = Vec::new();
    let every = std::env::var("SUPA_SAFE_TEST_EVERY").map_or(SOME, |every| every.parse().unwrap());
    for (at, damage) in damages().enumerate().skip(major as usize).step_by(every) {
        let mode = if (at / every).is_multiple_of(2) { Mode::Touched } else { Mode::Whole };
        base.world.sql(OWNER, damage);
        let (session, ids) = (base.world.session(OWNER), base.ids());
        if let Err(error) = base.bring_back(&session, mode, &[], &ids) {
            wrong.push(format!("{damage}\n  {mode:?}: {:?}", chain(&error)));
            session.run("rollback; reset all");
            if let Err(error) = base.bring_back(&session, Mode::Whole, &[], &ids) {
                wrong.push(format!("{damage}\n  then whole: {:?}", chain(&error)));
                break;
            }
        }
        session.run("commit");
        if let Err(found) = same(&before, &dump(&base.world)) {
            wrong.push(format!("{damage}\n  {mode:?}, as dumped:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), damages().count(), wrong.join("\n"));
}

#[test]
fn a_dump_of_the_zoo_is_what_it_was_on_15() {
    as_dumped(Major::Pg15);
}

#[test]
fn a_dump_of_the_zoo_is_what_it_was_on_17() {
    as_dumped(Major::Pg17);
}

/// As many damages as go together, those that drop most last.
fn batch(world: &World) -> String {
    let session = world.session(OWNER);
    session.run("begin");
    let mut fitting: Vec<&str> = damages().collect();
    fitting.reverse();
    fitting.retain(|damage| {
        session.run("savepoint one");
        let is_done = session.try_run(damage).is_ok();
        session.run(if is_done { "release one" } else { "rollback to one" });
        is_done
    });
    session.run("rollback");
    assert!(fitting.len() > damages().count() / 2, "{} fit", fitting.len());
    fitting.join(";\n")
}

/// Everything at once, and as much as goes together: pushed with the real CLI, and taken back in both modes.
fn pushed(major: Major) {
    let world = zoo(major);
    let before = (world.state(), dump(&world));
    for (name, damage) in [("dropped", "drop schema zoo cascade".to_owned()), ("changed", batch(&world))] {
        let file = format!("20260101000000_{name}");
        world.migration(&file, &damage);
        for mode in ["touched", "whole"] {
            drop(world.migrate(&[]).exits(0));
            assert!(same(&before.0, &world.state()).is_err(), "{name}, {mode}");
            let ran =
                world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
            assert_eq!(ran.summary()["rolled_back"]["mode"], mode);
            for (was, is) in [(&before.0, world.state()), (&before.1, dump(&world))] {
                same(was, &is).unwrap_or_else(|found| panic!("{name}, {mode}:\n{found}"));
            }
        }
        world.remove(&format!("supabase/migrations/{file}.sql"));
    }
}

#[test]
fn a_push_over_the_zoo_is_taken_back_on_15() {
    pushed(Major::Pg15);
}

#[test]
fn a_push_over_the_zoo_is_taken_back_on_17() {
    pushed(Major::Pg17);
}
