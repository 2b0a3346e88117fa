//! A pause whose run is dead, or that cannot be ended at once.

use super::*;

/// What stands after a kill: writes are refused, every command says so, and `release` ends it.
fn stands_and_is_released(world: &World, before: &[String]) {
    let found = status(world);
    assert_eq!(
        (&found["stands"], &found["refuses"], &found["is_at_work"]),
        (&json!(true), &json!(true), &json!(false)),
        "{found}"
    );
    let known = world.run(["status", "--json"]).exits(0).document();
    assert_eq!(known["paused_by"], found["run"], "{known}");
    assert!(known["next"].as_str().unwrap().contains("quiesce release"), "{known}");
    assert_eq!(refused(&api(world, "anon"), "insert into public.notes values (5, null)"), "PT503");
    let ran = world.run(["snapshot"]).exits(1);
    assert!(ran.failure().contains("writes to the target are paused"), "{ran}");
    let released = world.run(["quiesce", "release", "--json"]).exits(0).summary();
    assert_eq!(released["target_touched"], json!(true), "{released}");
    is_over(world);
    assert_eq!(same(before, &catalog(world)), Ok(()));
    world.run(["quiesce", "release"]).exits(0);
}

fn until_nobody_works(world: &World) {
    let observer = world.session(OWNER);
    let others =
        "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                  and application_name <> 'test'";
    until("its sessions are gone", || observer.run(others).is_empty());
}

#[test]
fn a_run_that_was_killed_while_it_took_the_snapshot() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let before = catalog(&world);
    let mut run = start(&world);
    run.until_type("writes-paused");
    run.kill();
    until_nobody_works(&world);
    stands_and_is_released(&world, &before);
    quiesce(&world, &[]).exits(0);
}

#[test]
fn a_run_that_was_killed_while_it_pushed_and_a_plain_run_after_it() {
    let world = world(&[ALTERS]);
    let (run, reader) = held(&world);
    run.kill();
    let again = world.run(["quiesce", "status", "--json"]).exits(0).document();
    assert_eq!(again["refuses"], json!(true), "{again}");
    reader.run("rollback");
    let observer = world.session(OWNER);
    until("the push is over", || {
        observer.run("select 1 from supabase_migrations.schema_migrations").len() == 1
    });
    until_nobody_works(&world);
    let ran = world.migrate(&["--json"]).exits(0);
    assert_eq!(ran.events_of("writes-released").len(), 1, "{ran}");
    is_over(&world);
}

#[test]
fn a_rollback_after_a_kill_ends_the_pause_first() {
    let world = world(&[ALTERS]);
    let before = world.state();
    let (run, reader) = held(&world);
    run.kill();
    reader.run("rollback");
    let observer = world.session(OWNER);
    until("the push is over", || {
        observer.run("select 1 from supabase_migrations.schema_migrations").len() == 1
    });
    until_nobody_works(&world);
    // Who reads another table keeps a trigger on it, and the rollback from nothing.
    let elsewhere = world.session(OWNER);
    elsewhere.run("begin; select * from public.logs_low");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let released = ran.events_of("writes-released");
    assert_eq!(released.len(), 1, "{ran}");
    assert_eq!(released[0]["left"], json!(["public.logs_low"]), "{ran}");
    elsewhere.run("rollback");
    world.run(["quiesce", "release"]).exits(0);
    is_over(&world);
    assert_eq!(same(&before, &world.state()), Ok(()));
}

#[test]
fn a_plain_run_ends_the_pause_of_a_dead_one_and_pushes() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let mut run = start(&world);
    run.until_type("writes-paused");
    run.kill();
    until_nobody_works(&world);
    world.migrate(&["--dry-run"]).exits(0);
    assert_eq!(status(&world)["refuses"], json!(true));
    world.migrate(&[]).exits(0);
    assert_eq!(world.history(), ["1"]);
    is_over(&world);
}

/// The function of the pause lets everything through, and triggers are left.
fn lets_through(world: &World) -> bool {
    world.sql(ADMIN, "select 1 from pg_proc where proname = 'paused' and prosrc not like '%PT503%'").len()
        == 1
}

#[test]
fn a_reader_who_stays_keeps_nobody_from_writing_and_a_later_release_finishes() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let before = catalog(&world).len();
    let reader = world.session(OWNER);
    reader.run("begin; select * from public.logs_low");
    let ran = quiesce(&world, &["--json"]).exits(0);
    assert_eq!(ran.events_of("writes-released")[0]["left"], json!(["public.logs_low"]), "{ran}");
    assert!(ran.summary()["limits"].to_string().contains("quiesce release"), "{ran}");
    api(&world, "anon")
        .run("insert into public.logs_low values (5, 1); insert into public.notes values (5, null)");
    let found = status(&world);
    assert_eq!((&found["stands"], &found["refuses"]), (&json!(true), &json!(false)), "{found}");
    let again = world.run(["quiesce", "release"]).exits(22);
    assert!(again.failure().contains("in the way: backend"), "{again}");
    reader.run("rollback");
    world.run(["quiesce", "release"]).exits(0);
    is_over(&world);
    assert!(catalog(&world).len() >= before);
}

#[test]
fn a_run_that_was_killed_while_it_ended_the_pause() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let reader = world.session(OWNER);
    reader.run("begin; select * from public.logs_low");
    let run = start(&world);
    until("writes are let through", || lets_through(&world));
    run.kill();
    api(&world, "anon").run("insert into public.notes values (5, null)");
    until_nobody_works(&world);
    reader.run("rollback");
    world.run(["quiesce", "release"]).exits(0);
    is_over(&world);
}

#[test]
fn the_pause_of_a_run_that_lives_is_not_ended_by_others() {
    let mut world = world(&[ALTERS]);
    let (run, reader) = held(&world);
    assert_eq!(status(&world)["is_at_work"], json!(true));
    world.run(["quiesce", "release"]).exits(11);
    // On another machine, whose folder knows nothing of it.
    let state = world.variable("SUPA_SAFE_STATE_DIR");
    let elsewhere = world.path("elsewhere");
    world.set("SUPA_SAFE_STATE_DIR", elsewhere);
    world.run(["quiesce", "release"]).exits(11);
    drop(quiesce(&world, &[]).exits(11));
    world.set("SUPA_SAFE_STATE_DIR", state);
    assert_eq!(refused(&api(&world, "anon"), "insert into public.logs values (5, 1)"), "PT503");
    reader.run("rollback");
    let (code, summary) = run.ends();
    assert_eq!(code, 0, "{summary}");
    is_over(&world);
}
