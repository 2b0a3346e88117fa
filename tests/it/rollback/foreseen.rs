//! What would stand in the way of a rollback is named before anything is pushed.

use super::{Base, NOTES, WRONG};
use crate::world::{ADMIN, Major, OWNER, World};
use serde_json::json;
use snapbox::{assert_data_eq, str};
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

/// Pushes although a rollback is not possible, since the policy accepts that by name.
fn accepted(world: &World) {
    world.write("supabase/supa-safe.toml", "allow_no_rollback = true\n");
    let ran = world.migrate(&["--json"]).exits(0);
    let findings = ran.events_of("finding");
    let findings: Vec<_> = findings.iter().map(|one| (&one["rule"], &one["refuses"])).collect();
    assert_eq!(findings, [(&json!("SS012"), &json!(false))], "{ran}");
    // It stands in the summary, and in what is confirmed.
    let obstacle = ran.summary()["way_back"]["not_back"][0].clone();
    let confirmed = ran.events_of("confirmation").remove(0)["lines"].clone();
    assert!(confirmed.as_array().unwrap().contains(&json!(["WARNING", obstacle])), "{ran}");
    assert_eq!(world.history(), ["20260101000000"]);
}

fn obstacles(world: &World) -> Vec<String> {
    let plan = world.run(["rollback", "--dry-run", "--json"]).exits(0).summary()["plan"].clone();
    plan["obstacles"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

fn rolled_back(world: &World) {
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    assert_eq!(world.history(), [""; 0]);
}

#[test]
fn a_transaction_that_works_for_long_is_named_and_keeps_nobody_from_a_rollback() {
    let world = World::own_server(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    let (gate, worker) = (world.session(OWNER), world.session(OWNER));
    gate.run("select pg_advisory_lock(7)");
    let pid = worker.run("begin; select count(*) from public.notes; select pg_backend_pid()").remove(1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| worker.run("select pg_advisory_lock(7)"));
        let is_waiting =
            format!("select state from pg_stat_activity where pid = {pid} and wait_event_type = 'Lock'");
        crate::scratch::until("it waits", || gate.run(&is_waiting) == ["active"]);
        world.server_clock("+1h");
        let held = |fact: &str| {
            let (holder, since) = fact.split_once(" has held public.notes for 3").unwrap();
            (holder.to_owned(), since.split_once(' ').unwrap().1.to_owned())
        };
        let expected = |said: &str| {
            (format!("{said}a transaction of postgres (backend {pid})"), "s and is at work yet".to_owned())
        };
        assert_eq!(held(&obstacle(&world)), expected("a rollback is not possible on the target: "));
        gate.run("select pg_advisory_unlock(7)");
        drop(waiting.join().unwrap());
        worker.run("commit");
        drop(world.migrate(&[]).exits(0));
        gate.run("select pg_advisory_lock(8)");
        worker.run("begin; select count(*) from public.notes");
        let waiting = scope.spawn(|| worker.run("select pg_advisory_lock(8)"));
        crate::scratch::until("it waits", || gate.run(&is_waiting) == ["active"]);
        world.server_clock("+2h");
        let found = obstacles(&world);
        assert_eq!(found.iter().map(|fact| held(fact)).collect::<Vec<_>>(), [expected("")]);
        gate.run("select pg_advisory_unlock(8)");
        drop(waiting.join().unwrap());
        worker.run("rollback");
    });
    assert_eq!(obstacles(&world), [""; 0]);
    rolled_back(&world);
}

#[test]
fn a_table_of_somebody_else_is_refused_before_the_push_and_before_the_rollback() {
    let wrong = "update public.theirs set body = 'lost'; create table public.extra (id int primary key)";
    let world = World::own_server(&[("20260101000000_wrong", wrong)]);
    world.sql(OWNER, "create table public.theirs (id int primary key, body text); insert into public.theirs values (1, 'one')");
    world.sql(
        ADMIN,
        "create role stranger; alter table public.theirs owner to stranger; grant all on public.theirs to postgres",
    );
    assert_eq!(
        obstacle(&world),
        "a rollback is not possible on the target: public.theirs belongs to role stranger, for whom this role cannot \
         make it again"
    );
    accepted(&world);
    let before = world.state();
    for args in [&["--dry-run"][..], &["--mode", "whole"], &[]] {
        let target = world.target();
        let ran = world.run([&["rollback", "--confirm", &target], args].concat()).exits(3);
        assert_data_eq!(
            ran.failure(),
            str![[r#"
error: the rollback would fail; the target was not touched
  [SS012] public.theirs belongs to role stranger, for whom this role cannot make it again
hint: Sign in as a role that may act for stranger and create in the schema, or restore the snapshot into a new database by its `restore.md`
hint: Then run `supa-safe rollback` again

"#]]
        );
    }
    assert_eq!(world.state(), before);
}

#[test]
fn locks_that_may_not_be_enough_are_named_for_what_goes_back() {
    let settings = ["max_locks_per_transaction=20"];
    let wrong = "update public.events set body = 'lost'";
    let world = World::own_server_set(Major::Pg17, &settings, &[("20260101000000_wrong", wrong)]);
    let partition = |number: u32| {
        format!(
            "create table public.events_{number} partition of public.events for values from ({number}) to ({});",
            number + 1
        )
    };
    world.sql(
        OWNER,
        &format!(
            "create table public.events (id int primary key, body text) partition by range (id); {}
            insert into public.events select n, 'event' from generate_series(0, 59) n",
            (0..60).map(partition).collect::<String>()
        ),
    );
    // The copy has more room than its settings promise, and nobody else is there: what passed is not refused.
    let summary = world.migrate(&["--json"]).exits(0).summary();
    let modes = summary["way_back"]["modes"].as_array().unwrap();
    let rehearsed = |mode: &str| &modes.iter().find(|one| one["mode"] == mode).unwrap()["locks"];
    let (touched, whole) = (rehearsed("touched"), rehearsed("whole"));
    let locks =
        |locks: &serde_json::Value| (locks["held"].as_i64().unwrap(), locks["room"].as_i64().unwrap());
    for (held, room) in [locks(touched), locks(whole)] {
        assert!(room == 600 && held > room, "{held} {room}");
    }
    let told = |what: &str, (held, room): (i64, i64)| {
        format!("a rollback of {what} takes about {held} locks, and the server has room for {room}")
    };
    // Others may be there when it is needed.
    assert_eq!(obstacles(&world), [told("what the push touches", locks(touched))]);
    let planned = world.run(["rollback", "--dry-run", "--json", "--mode", "whole"]).exits(0);
    assert_eq!(planned.summary()["plan"]["obstacles"], json!([told("everything", locks(whole))]));
    rolled_back(&world);
    // A push that touches one table alone needs no locks for the others.
    world.remove("supabase/migrations/20260101000000_wrong.sql");
    world.migration("20260102000000_one", "create table public.one (id int primary key)");
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn a_replication_slot_that_would_be_lost_is_named() {
    let settings = ["wal_level=replica", "max_slot_wal_keep_size=1MB"];
    let wrong = "update public.notes set body = 'lost' where id < 5";
    let world = World::own_server_set(Major::Pg17, &settings, &[("20260101000000_wrong", wrong)]);
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, body text) with (fillfactor = 10);
        insert into public.notes select n, repeat('x', 200) from generate_series(1, 12000) n; analyze public.notes;
        create table public.others (id int primary key)",
    );
    world.sql(ADMIN, "select pg_create_physical_replication_slot('reader', true)");
    let named = |fact: &str| {
        let (before, after) = fact.split_once("it writes about ").unwrap();
        (
            before.to_owned(),
            after.split_once(" to the log, and replication slot reader is lost after ").is_some(),
        )
    };
    assert_eq!(named(&obstacle(&world)), ("a rollback is not possible on the target: ".to_owned(), true));
    accepted(&world);
    assert_eq!(obstacles(&world).iter().map(|fact| named(fact)).collect::<Vec<_>>(), [(String::new(), true)]);
    rolled_back(&world);
}

#[test]
fn a_right_that_lacks_is_named() {
    for (major, said) in [
        (Major::Pg15, "must be superuser to alter replication roles or change replication attribute"),
        (Major::Pg17, "permission denied to alter role"),
    ] {
        let world = World::own_server_of(major, &[("20260101000000_drop", "drop role sync")]);
        // Who may drop a role may not make it again.
        world.sql(
            ADMIN,
            "create role sync replication; grant sync to postgres with admin option; alter role postgres noreplication",
        );
        assert_eq!(
            obstacle(&world),
            format!("a rollback is not possible on the target: this role cannot take back role sync: {said}")
        );
        if major == Major::Pg17 {
            world.sql(ADMIN, "alter role postgres replication");
            drop(world.migrate(&[]).exits(0));
        }
    }
}

/// What an admin granted since the snapshot goes with everything of roles, and not every role may revoke it.
#[test]
fn a_membership_that_only_an_admin_may_revoke_is_named_before_the_rollback() {
    for major in [Major::Pg15, Major::Pg17] {
        let world = World::own_server_of(major, &[("20260101000000_wrong", WRONG)]);
        world.sql(OWNER, NOTES);
        world.sql(ADMIN, "create role reader; create role person");
        drop(world.migrate(&[]).exits(0));
        world.sql(ADMIN, "grant reader to person");
        let damaged = world.state();
        if major == Major::Pg17 {
            let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
            assert_data_eq!(
                ran.failure(),
                str![[r#"
error: the rollback would fail; the target was not touched
  [SS012] this role cannot take back membership person in reader: it was granted by supabase_admin
hint: Sign in as a role that may, and `revoke reader from person`
hint: Then run `supa-safe rollback` again

"#]]
            );
            assert_eq!(world.state(), damaged);
            world.sql(ADMIN, "revoke reader from person");
        }
        rolled_back(&world);
        let members = "select count(*) from pg_auth_members where roleid = 'reader'::regrole and member = 'person'::regrole";
        assert_eq!(world.sql(ADMIN, members), ["0"], "{major:?}");
    }
}

#[test]
fn a_publication_that_this_role_cannot_make_again_is_named() {
    let world = World::own_server(&[("20260101000000_drop", "drop publication everything")]);
    // As a superuser left it, who was asked to.
    world.sql(
        ADMIN,
        "create publication everything for all tables;
        update pg_publication set pubowner = 'postgres'::regrole where pubname = 'everything'",
    );
    assert_eq!(
        obstacle(&world),
        "a rollback is not possible on the target: this role cannot make publication everything again: \
         must be superuser to create FOR ALL TABLES publication"
    );
}

#[test]
fn a_server_elsewhere_that_this_role_cannot_make_again_is_named() {
    let world = World::own_server(&[("20260101000000_drop", "drop server elsewhere")]);
    world.sql(ADMIN, crate::rollback_zoo::WRAPPER);
    world.sql(OWNER, "create server elsewhere foreign data wrapper postgres_fdw");
    world.sql(ADMIN, "revoke usage on foreign data wrapper postgres_fdw from postgres");
    assert_eq!(
        obstacle(&world),
        "a rollback is not possible on the target: this role cannot make foreign server elsewhere again: \
         permission denied for foreign-data wrapper postgres_fdw"
    );
    world.sql(ADMIN, "grant usage on foreign data wrapper postgres_fdw to postgres");
    drop(world.migrate(&[]).exits(0));
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
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

/// Whoever may make a trigger on a table need not be allowed to drop it.
#[test]
fn a_trigger_that_nobody_may_drop_is_named() {
    let trigger = "create trigger evil after update on auth.users for each row execute function public.spy()";
    let world = World::own_server(&[("20260101000000_trigger", trigger)]);
    world.sql(
        OWNER,
        "create function public.spy() returns trigger language plpgsql as 'begin return new; end'",
    );
    let fact = "a rollback is not possible on the target: this role cannot drop trigger evil on auth.users: \
        must be owner of relation users";
    assert_eq!(obstacle(&world), fact);
    world.sql(ADMIN, super::AS_HOSTED);
    let before = world.state();
    drop(world.migrate(&[]).exits(0));
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    assert_eq!(world.state(), before);
}
