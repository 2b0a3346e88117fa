//! What would stand in the way of a rollback is named before anything is pushed.

use super::{Base, NOTES, WRONG};
use crate::world::{ADMIN, OWNER, World};
use supa_safe::rollback::{Mode, Task};

/// The one fact for which a push is refused before anything is pushed.
fn obstacle(world: &World) -> String {
    let ran = world.migrate(&["--json"]).exits(3);
    let findings = &ran.summary()["findings"];
    assert_eq!(findings.as_array().unwrap().len(), 1, "{ran}");
    assert_eq!(findings[0]["rule"], "SS012", "{ran}");
    assert_eq!(world.history(), [""; 0]);
    findings[0]["fact"].as_str().unwrap().to_owned()
}

#[test]
fn a_transaction_that_would_hold_its_tables_is_named() {
    let world = World::own_server(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    let idle = world.session(OWNER);
    idle.run("begin; select count(*) from public.notes");
    world.server_clock("+1h");
    drop(obstacle(&world));
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
    assert_eq!(
        obstacle(&world),
        "a rollback is not possible on the target: this role cannot take back role sync: permission denied to alter role"
    );
    world.sql(ADMIN, "alter role postgres replication");
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn rows_that_go_with_an_extension_are_named() {
    let dropped = "drop extension if exists \"pg_cron\"; create table public.notes (id int primary key)";
    let world = World::own_server(&[("20260101000000_diff", dropped)]);
    // As the platform's own library lets its role drop and make it.
    world.sql(
        ADMIN,
        "create extension if not exists pg_cron;
        insert into cron.job (schedule, command) values ('0 3 * * *', 'select 1');
        do $$begin execute format('alter database %I set supautils.privileged_extensions = pg_cron', current_database()); end$$",
    );
    assert_eq!(
        obstacle(&world),
        "a rollback is not possible on the target: the push drops extension pg_cron, and with it rows that do not go back: 1 of cron.job"
    );
}

#[test]
fn an_extension_that_lost_its_rows_is_named() {
    let world = World::hosted(&[]);
    world.sql(
        ADMIN,
        "create extension if not exists pg_cron; insert into cron.job (schedule, command) values ('0 3 * * *', 'select 1')",
    );
    let base = Base::of(world);
    base.world.sql(ADMIN, "drop extension pg_cron");
    let session = base.world.session(ADMIN);
    let proved = base.bring_back(&session, Mode::Touched, &[], &base.ids()).unwrap();
    assert_eq!(proved.references, ["extension pg_cron came back without its rows: 1 of cron.job"]);
    session.run("rollback");
}

/// What people put into an extension that the push added goes with it.
#[test]
fn rows_of_an_extension_that_the_push_added_are_kept() {
    let world = World::hosted(&[]);
    world.sql(ADMIN, "drop extension if exists pg_cron");
    let base = Base::of(world);
    base.world.sql(
        ADMIN,
        "create extension pg_cron; insert into cron.job (jobname, schedule, command) values ('nightly', '0 3 * * *', 'select 1')",
    );
    let session = base.world.session(ADMIN);
    let added = session.rows_of_added_extensions(&base.snapshot.manifest.database.extensions);
    assert_eq!(added.unwrap(), ["cron.job of extension pg_cron"]);
    let kept = base.world.path("kept");
    let ids = base.ids();
    for mode in [Mode::Touched, Mode::Whole] {
        let proved = base
            .with_task(mode, &[], &ids, |task| session.bring_back(&Task { keep_in: Some(&kept), ..*task }));
        let saved = proved.unwrap().saved;
        assert_eq!(
            saved.iter().map(|one| (one.table.as_str(), one.rows)).collect::<Vec<_>>(),
            [("cron.job", 1)]
        );
        let rows = fs_err::read_to_string(kept.join(&saved[0].file)).unwrap();
        assert_eq!(rows.matches("nightly").count(), 1);
        let load = fs_err::read_to_string(kept.join("load.sql")).unwrap();
        let told: Vec<&str> = load.lines().filter(|line| line.starts_with("-- cron.job")).collect();
        assert_eq!(
            told,
            [
                "-- cron.job: 1 rows in 0001.csv, of extension pg_cron, which went: by hand, where it is there again"
            ]
        );
        assert_eq!(session.run("select to_regclass('cron.job')"), ["~"]);
        session.run("rollback");
    }
}
