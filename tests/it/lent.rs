//! What the platform lets its role do and a plain server does not is no failure of a rehearsal (SS010).

use crate::world::{ADMIN, Major, OWNER, World};

/// As on the platform, where the library tells which extensions its role makes and drops.
const LIBRARY: &str = "do $$begin execute format('alter database %I set supautils.privileged_extensions = pg_cron', current_database()); end$$";
const EVENT_TRIGGER: &str =
    "create function public.watch() returns event_trigger language plpgsql as 'begin end';
    insert into public.notes values (2);
    create event trigger watch on ddl_command_end execute function public.watch();";

fn notes(world: &World) {
    world.sql(OWNER, "create table public.notes (id int primary key); insert into public.notes values (1)");
}

fn members_are_handed_on(major: Major) {
    let sql = "create role reporter;
        grant usage on schema extensions to reporter;
        grant execute on all functions in schema extensions to reporter;";
    let world = World::own_server_of(major, &[("20260101000000_grant", sql)]);
    let ran = world.migrate(&["--json"]).exits(0);
    let may = "select has_function_privilege('reporter', 'extensions.pg_stat_statements_reset(oid,oid,bigint)', 'execute')";
    let may = if major == Major::Pg17 { may.replace("bigint)", "bigint,boolean)") } else { may.to_owned() };
    assert_eq!(world.sql(ADMIN, &may), ["t"], "{ran}");
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
}

#[test]
fn functions_of_extensions_are_granted_on_the_copy_as_on_the_target_on_15() {
    members_are_handed_on(Major::Pg15);
}

#[test]
fn functions_of_extensions_are_granted_on_the_copy_as_on_the_target_on_17() {
    members_are_handed_on(Major::Pg17);
}

#[test]
fn an_extension_of_the_targets_role_is_dropped_on_the_copy() {
    let world = World::hosted(&[("20260101000000_drop", "drop extension citext")]);
    world.sql(OWNER, "create extension citext schema extensions");
    drop(world.migrate(&[]).exits(0));
    let installed = || world.sql(ADMIN, "select count(*) from pg_extension where extname = 'citext'");
    assert_eq!(installed(), ["0"]);
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    assert_eq!(installed(), ["1"]);
}

#[test]
fn an_extension_that_the_library_lets_it_drop_is_dropped_on_the_copy() {
    let world = World::hosted(&[("20260101000000_drop", "drop extension hstore")]);
    world.sql(ADMIN, "create extension hstore schema extensions");
    // Nobody lets the role drop it.
    drop(world.run(["rehearse"]).exits(5));
    world.sql(ADMIN, &LIBRARY.replace("pg_cron", "''pg_cron, hstore''"));
    drop(world.run(["snapshot"]).exits(0));
    drop(world.run(["rehearse"]).exits(0));
}

#[test]
fn an_event_trigger_is_made_on_the_copy_of_the_platform() {
    let world = World::hosted(&[("20260101000000_watch", EVENT_TRIGGER)]);
    notes(&world);
    // Without the library the target refuses it too.
    drop(world.run(["rehearse"]).exits(5));
    world.sql(ADMIN, LIBRARY);
    drop(world.run(["snapshot"]).exits(0));
    drop(world.run(["rehearse"]).exits(0));
    let record = world.rehearsals().remove(0);
    let limits = record["limits"].as_array().unwrap();
    let of_rights = limits
        .iter()
        .filter(|limit| limit.as_str().unwrap().contains("`20260101000000_watch.sql`, statement 3 on"));
    assert_eq!(of_rights.count(), 1, "{limits:?}");
    // Rows of the file that was begun twice are counted once.
    let effects = record["effects"].as_array().unwrap();
    assert_eq!(effects.len(), 1, "{effects:?}");
    let notes: Vec<_> = effects[0]["tables"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["table"] == "public.notes")
        .collect();
    assert_eq!(notes[0]["inserted"], 1, "{effects:?}");
}
