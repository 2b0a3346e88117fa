//! `supa-safe migrate` from end to end, on real servers with the real CLI.

use crate::world::{ADMIN, Cli, Major, OWNER, Ran, Template, World};
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};
use std::time::{Duration, Instant};
use supa_safe::fingerprint::{Class, Fingerprint};
use supa_safe::rehearse::record::Record;

const SHOP_HISTORY: [&str; 4] = ["20260112090000", "20260119103000", "20260216140000", "20260309081500"];
const SHOP_PENDING: [&str; 3] = ["20261102090000", "20261109090000", "20261116090000"];

/// The one rehearsal on record.
fn rehearsal(world: &World) -> Record {
    match world.rehearsals().as_slice() {
        [one] => serde_json::from_value(one.clone()).unwrap(),
        other => panic!("not one rehearsal: {other:?}"),
    }
}

/// Demands that schema and history of the target are what the rehearsal left on the copy.
fn assert_as_rehearsed(world: &World) {
    let record = rehearsal(world);
    let rehearsed = Fingerprint::from_text(&record.fingerprint).unwrap();
    let found = record.left_out.comparable(&world.fingerprint());
    let differences = rehearsed.differences(&found, Class::Owned);
    assert!(differences.is_empty(), "{differences:?}");
    assert!(rehearsed.lines().len() > 100);
    assert_eq!(world.history(), record.history);
}

/// The files that a summary lists as applied, and as not.
fn files(ran: &Ran) -> (Value, Value) {
    let summary = ran.summary();
    (summary["applied"].clone(), summary["not_applied"].clone())
}

fn notes(ran: &Ran) -> Vec<String> {
    let text = |event: &Value| event["text"].as_str().unwrap().to_owned();
    ran.events_of("note").iter().map(text).collect()
}

/// Waits until a query gives a row.
fn until(world: &World, what: &str, query: &str) {
    let limit = Instant::now() + Duration::from_mins(2);
    let session = world.session(ADMIN);
    while session.run(query).is_empty() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
    }
}

mod every_server_and_cli {
    use super::*;

    fn a_healthy_shop(major: Major, cli: Cli) {
        let world = World::new(major, cli).with_sample_project().with_database(Template::Shop);
        assert_eq!(world.history(), SHOP_HISTORY);
        let ran = world.migrate(&["--json"]).exits(0);

        assert_eq!(world.history(), [&SHOP_HISTORY[..], &SHOP_PENDING].concat());
        assert_as_rehearsed(&world);
        let shop = "select
            (select count(*) from orders where shipping_cents = case when total_cents >= 25000 then 0 else 490 end),
            (select count(*) from orders), (select count(*) from profiles where loyalty_points > 0),
            (select count(*) from reviews), (select indisvalid from pg_index
              where indexrelid = 'orders_customer_placed_idx'::regclass)";
        assert_eq!(world.sql(OWNER, shop), ["6000|6000|480|0|t"]);
        let recorded = "select name, cardinality(statements) from supabase_migrations.schema_migrations
            where version > '2026110' order by version";
        assert_eq!(
            world.sql(ADMIN, recorded),
            ["shipping_and_loyalty|7", "orders_by_customer_and_date|1", "reviews|11"]
        );

        let summary = ran.summary();
        assert_eq!(summary["target_touched"], true);
        assert_eq!(summary["delegate_exit"], 0);
        assert_eq!(summary["not_applied"], json!([]));
        assert_eq!(
            summary["applied"],
            json!([
                "20261102090000_shipping_and_loyalty.sql",
                "20261109090000_orders_by_customer_and_date.sql",
                "20261116090000_reviews.sql"
            ])
        );
        let effects = &rehearsal(&world).effects;
        let orders = effects[0].tables.iter().find(|table| table.table == "public.orders").unwrap();
        assert_eq!((orders.inserted, orders.updated, orders.deleted), (0, 6000, 0));
        assert_eq!(orders.columns, ["shipping_cents"]);
    }

    #[test]
    fn pg15_and_cli_2() {
        a_healthy_shop(Major::Pg15, Cli::V2);
    }

    #[test]
    fn pg15_and_cli_3() {
        a_healthy_shop(Major::Pg15, Cli::V3);
    }

    #[test]
    fn pg17_and_cli_2() {
        a_healthy_shop(Major::Pg17, Cli::V2);
    }

    #[test]
    fn pg17_and_cli_3() {
        a_healthy_shop(Major::Pg17, Cli::V3);
    }
}

#[test]
fn an_unhealthy_check_after_the_push_fails_the_rehearsal() {
    let world = World::hosted(&[("1_a", "create table a (id int); insert into a values (-1);")]);
    world.write("supabase/checks/positive.sql", "select id from a where id < 0;");
    let before = world.state();
    let ran = world.migrate(&[]).exits(5);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS010] the migration failed on the copy: after the push the copy is not healthy: check `positive.sql` returned 1 rows instead of none
hint: Correct the file and run again
hint: Run `supa-safe explain SS010` to read why

"#]]
    );
    assert_eq!(world.state(), before);
}

#[test]
fn seeds_run_when_they_are_asked_for_and_once() {
    let world = World::hosted(&[("1_a", "create table a (id int primary key);")]);
    world.write("supabase/seed.sql", "insert into a values (1), (2);");
    world.migrate(&[]).exits(0);
    assert_eq!(world.sql(OWNER, "select count(*) from a"), ["0"]);

    let ran = world.migrate(&["--include-seed", "--json"]).exits(0);
    assert_eq!(files(&ran), (json!([]), json!([])));
    assert_eq!(world.sql(OWNER, "select count(*) from a"), ["2"]);
    assert_eq!(world.sql(ADMIN, "select path from supabase_migrations.seed_files"), ["supabase/seed.sql"]);

    let ran = world.migrate(&["--include-seed", "--json"]).exits(0);
    assert_eq!(ran.summary()["target_touched"], false);
}

#[test]
fn roles_run_first_when_they_are_asked_for() {
    let world = World::own_server(&[("1_a", "create table a (id int); grant select on a to reporting;")]);
    world.write("supabase/roles.sql", "create role reporting nologin;");
    // Without its role the file fails, and only on the copy.
    let ran = world.migrate(&["--json"]).exits(5);
    assert_eq!(ran.summary()["findings"][0]["rule"], "SS010");
    let ran = world.migrate(&["--include-roles", "--json"]).exits(0);
    assert_eq!(files(&ran), (json!(["1_a.sql"]), json!([])));
    let granted =
        "select rolname, has_table_privilege(oid, 'a', 'select') from pg_roles where rolname = 'reporting'";
    assert_eq!(world.sql(ADMIN, granted), ["reporting|t"]);
    assert_as_rehearsed(&world);
}

#[test]
fn an_older_file_needs_include_all() {
    let world = World::hosted(&[("2_b", "create table b ();")]);
    world.migrate(&[]).exits(0);
    world.migration("1_a", "create table a ();");
    let ran = world.migrate(&[]).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: local files are older than the newest applied migration: 1_a.sql
  the target was not touched
hint: Pass `--include-all` to push them as well, or give them a newer version

"#]]
    );
    world.migrate(&["--include-all"]).exits(0);
    assert_eq!(world.history(), ["1", "2"]);
}

#[test]
fn a_file_with_its_own_transaction_is_named_before_and_applied_as_it_is() {
    let world = World::hosted(&[
        ("1_plain", "create table a (id int);"),
        ("2_own", "begin;\ncreate table b (id int);\ncommit;\n"),
    ]);
    // Nobody confirms: what was said stood before the question.
    let ran = world.run(["migrate"]).exits(4);
    assert_data_eq!(
        ran.lines("warning: ").join("\n"),
        str![[r#"
warning: [SS014] `2_own.sql` is not all-or-nothing: line 1 (`begin`): transaction control makes every statement of the file commit by itself
"#]]
    );
    assert_eq!(world.history(), [""; 0]);

    let ran = world.migrate(&["--json"]).exits(0);
    let finding = ran.events_of("finding");
    assert_eq!(finding[0]["rule"], "SS014");
    assert_eq!(finding[0]["refuses"], false);
    let kinds: Vec<Value> = ran.events().iter().map(|event| event["type"].clone()).collect();
    let at = |kind: &str| kinds.iter().position(|found| found == kind).unwrap();
    assert!(at("finding") < at("delegating"), "{kinds:?}");
    let statements =
        "select statements[1], statements[3] from supabase_migrations.schema_migrations where version = '2'";
    assert_eq!(world.sql(ADMIN, statements), ["begin|commit"]);
}

#[test]
fn nothing_pending_takes_no_snapshot() {
    let world = World::hosted(&[]);
    let ran = world.migrate(&[]).exits(0);
    assert_data_eq!(
        ran.text(),
        str![[r#"
exit 0
---- stdout
Nothing is pending on [TARGET]; nothing was touched
---- stderr
target [TARGET] (database URL, Postgres 17.10)
  CLI: supabase 3.1.0 ([..]/supabase-v3/dist/supabase.js)

"#]]
    );
    assert_eq!(world.snapshots().len(), 0);
}

#[test]
fn a_plan_touches_nothing() {
    let world = World::hosted(&[("1_a", "create table a ();"), ("2_b", "create table b ();")]);
    let before = world.state();
    let ran = world.run(["migrate", "--dry-run"]).exits(0);
    assert_data_eq!(
        ran.data(),
        str![[r#"
Plan (nothing was touched):
1. take a snapshot and verify it
2. restore it into a scratch server, compare, and apply the pending files to the copy
3. ask for the words `[TARGET]`
4. push, and compare the target with the copy:
   1_a.sql
   2_b.sql

"#]]
    );
    assert_eq!(world.state(), before);
    assert_eq!(world.snapshots().len(), 0);
}

#[test]
fn a_rehearsal_that_stands_is_not_repeated() {
    let world = World::hosted(&[("1_a", "create table a (id int);")]);
    let first = world.run(["rehearse", "--json"]).exits(0);
    assert_eq!(files(&first), (json!([]), json!(["1_a.sql"])));
    assert_eq!(world.history(), [""; 0]);

    let ran = world.migrate(&["--json"]).exits(0);
    let notes = notes(&ran);
    let said = |begin: &str| notes.iter().filter(|note| note.starts_with(begin)).count();
    assert_eq!(
        (said("not rehearsed again: the same files were rehearsed"), said("rehearsing")),
        (1, 0),
        "{notes:?}"
    );
    assert_eq!(ran.events_of("table-compared"), [Value::Null; 0]);
    assert_eq!(ran.summary()["snapshot"], first.summary()["snapshot"]);
    assert_eq!(world.snapshots().len(), 1);
    assert_as_rehearsed(&world);
}

#[test]
fn new_files_after_a_push_are_rehearsed_on_a_new_snapshot() {
    let world = World::hosted(&[("1_a", "create table a (id int);")]);
    let first = world.migrate(&["--json"]).exits(0);
    world.migration("2_b", "alter table a add column b int;");
    let second = world.migrate(&["--json"]).exits(0);
    let aside = second.events_of("set-aside");
    assert_eq!(aside[0]["snapshot"], first.summary()["snapshot"]);
    assert_eq!(aside[0]["rule"], "SS009");
    assert_eq!(aside[0]["fact"], "the migration history has changed since it was taken");
    assert_eq!(files(&second), (json!(["2_b.sql"]), json!([])));
    assert_eq!((world.snapshots().len(), world.rehearsals().len()), (2, 2));
    assert_eq!(world.history(), ["1", "2"]);
}

#[test]
fn what_fails_on_the_copy_does_not_reach_the_target() {
    let world = World::hosted(&[
        ("1_fine", "create table fine (id int);"),
        ("2_bad", "create table bad (id int);\n\ninsert into bad\nvalues ('x');\n"),
        ("3_never", "create table never (id int);"),
    ]);
    let before = world.state();
    let ran = world.migrate(&[]).exits(5);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS010] the migration failed on the copy: `2_bad.sql`, statement 2: invalid input syntax for type integer: "x" (SQLSTATE 22P02)
    insert into bad
    values ('x')
  1_fine.sql stood on the copy
  the copy lacks the extensions pg_cron, pg_net, supabase_vault: if the file needs one of them, the file may be right
hint: Correct the file and run again
hint: Run `supa-safe explain SS010` to read why

"#]]
    );
    assert_eq!(world.state(), before);
    let ran = world.migrate(&["--json"]).exits(5);
    let summary = ran.summary();
    assert_eq!(summary["target_touched"], false);
    assert_eq!((&summary["applied"], &summary["not_applied"]), (&json!([]), &json!([])));
    assert_eq!(summary["findings"].as_array().unwrap().len(), 1);
    assert_eq!(ran.events_of("delegating"), [Value::Null; 0]);
}

/// A rehearsal stands for the rows of its snapshot, and for those alone where a file depends on them.
#[test]
fn a_duplicate_that_came_in_since() {
    let world = World::hosted(&[
        ("1_one", "create table one (id int);"),
        ("2_unique", "alter table people add unique (email);"),
        ("3_three", "create table three (id int);"),
    ]);
    world.sql(OWNER, "create table people (email text); insert into people values ('a@example.com')");
    world.run(["rehearse"]).exits(0);
    world.sql(OWNER, "insert into people values ('a@example.com')");

    let ran = world.migrate(&["--json"]).exits(20);
    assert_eq!(files(&ran), (json!(["1_one.sql"]), json!(["2_unique.sql", "3_three.sql"])));
    let error = &ran.summary()["error"];
    let expected =
        "supabase failed: ERROR: could not create unique index \"people_email_key\" (SQLSTATE 23505)";
    assert_eq!(*error, json!([expected]));
    assert_eq!(world.history(), ["1"]);

    // With a fresh snapshot the next run sees it before the target does.
    let ran = world.migrate(&["--json"]).exits(5);
    assert_eq!(world.history(), ["1"]);
    assert_eq!(ran.summary()["findings"][0]["rule"], "SS010");
}

#[test]
fn a_fresh_snapshot_with_other_rows_is_rehearsed_when_a_file_depends_on_rows() {
    let world = World::hosted(&[("1_unique", "alter table people add unique (email);")]);
    world.sql(OWNER, "create table people (email text); insert into people values ('a@example.com')");
    world.run(["rehearse"]).exits(0);
    world.sql(OWNER, "insert into people values ('b@example.com')");
    world.run(["snapshot"]).exits(0);
    let ran = world.migrate(&["--json"]).exits(0);
    let why: Vec<String> = notes(&ran).into_iter().filter(|note| note.starts_with("rehearsing: ")).collect();
    let expected = "rehearsing: rows changed since, and `1_unique.sql` line 1 (`alter table people add unique (email)`) wants unique values";
    assert_eq!(why, [expected]);
}

/// A reader that does not end lets no `alter table` through, and neither dump nor rehearsal see it.
#[test]
fn a_lock_on_the_target_stops_at_the_second_of_three() {
    let world = World::hosted(&[
        ("1_one", "create table one (id int);"),
        ("2_two", "set lock_timeout = '200ms';\nalter table busy add column b int;"),
        ("3_three", "create table three (id int);"),
    ]);
    world.write("supabase/supa-safe.toml", "max_block = \"10m\"\n");
    world.sql(OWNER, "create table busy (id int)");
    let reader = world.session(OWNER);
    reader.run("begin; select * from busy");
    let ran = world.migrate(&["--json"]).exits(20);
    assert_eq!(files(&ran), (json!(["1_one.sql"]), json!(["2_two.sql", "3_three.sql"])));
    let summary = ran.summary();
    assert_eq!((&summary["target_touched"], &summary["delegate_exit"]), (&json!(true), &json!(1)));
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: supabase failed: ERROR: canceling statement due to lock timeout (SQLSTATE 55P03)
  in `2_two.sql`:
    alter table busy add column b int
  applied      1_one.sql
  not applied  2_two.sql
  not applied  3_three.sql
  the target was changed
  the state before the push is in snapshot [SNAPSHOT]
hint: Correct the cause, then run `supa-safe migrate` again: it resumes at the first file that does not stand
hint: Or take back what stands: `supa-safe rollback`
hint: To restore the state before the push into a new database, follow [ROOT]/state/[..]/snapshots/[SNAPSHOT]/restore.md

"#]]
    );
    assert_eq!(world.history(), ["1"]);
    assert_eq!(world.sql(OWNER, "select to_regclass('one'), to_regclass('three')"), ["one|~"]);

    // It resumes where it stopped.
    reader.run("commit");
    let ran = world.migrate(&["--json"]).exits(0);
    assert_eq!(files(&ran), (json!(["2_two.sql", "3_three.sql"]), json!([])));
    assert_eq!(world.history(), ["1", "2", "3"]);
}

#[test]
fn a_failed_file_that_is_not_all_or_nothing_may_leave_something() {
    let world = World::hosted(&[(
        "1_own",
        "begin;\ncreate table left_behind (id int);\ncommit;\nset lock_timeout = '200ms';\nalter table busy add column b int;",
    )]);
    world.write("supabase/supa-safe.toml", "max_block = \"10m\"\n");
    world.sql(OWNER, "create table busy (id int)");
    let reader = world.session(OWNER);
    reader.run("begin; select * from busy");
    let ran = world.migrate(&[]).exits(20);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: supabase failed: ERROR: canceling statement due to lock timeout (SQLSTATE 55P03)
  in `1_own.sql`:
    alter table busy add column b int
  not applied  1_own.sql
  no pending file stands on the target, but its schema is not as before:
    column public.left_behind.id added
    column supabase_migrations.schema_migrations.name added
    column supabase_migrations.schema_migrations.statements added
    column supabase_migrations.schema_migrations.version added
    constraint schema_migrations_pkey on supabase_migrations.schema_migrations added
    index supabase_migrations.schema_migrations_pkey added
    schema supabase_migrations added
    table public.left_behind added
    table supabase_migrations.schema_migrations added
  the state before the push is in snapshot [SNAPSHOT]
hint: Correct the cause, then run `supa-safe migrate` again: it resumes at the first file that does not stand
hint: Or take back what stands: `supa-safe rollback`
hint: To restore the state before the push into a new database, follow [ROOT]/state/[..]/snapshots/[SNAPSHOT]/restore.md

"#]]
    );
    assert_eq!(world.sql(OWNER, "select to_regclass('left_behind')"), ["left_behind"]);
    assert_eq!(world.history(), [""; 0]);
}

/// The file waits on the target, and only there, for a lock that the test holds.
#[test]
fn a_schema_that_somebody_else_changes_during_the_push_is_found() {
    let world = World::hosted(&[("1_wait", "select pg_advisory_xact_lock(42); create table a (id int);")]);
    world.write("supabase/supa-safe.toml", "max_block = \"10m\"\n");
    let gate = world.session(OWNER);
    gate.run("select pg_advisory_lock(42)");
    let target = world.target();
    let mut command = world.command();
    command.args(["migrate", "--confirm", &target, "--json"]);
    let ran = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.finish(&mut command));
        until(
            &world,
            "the push waits",
            "select from pg_locks where locktype = 'advisory' and not granted and database =
             (select oid from pg_database where datname = current_database())",
        );
        world.sql(OWNER, "create table surprise (id int)");
        gate.run("select pg_advisory_unlock(42)");
        run.join().unwrap()
    })
    .exits(21);
    assert_eq!(files(&ran), (json!(["1_wait.sql"]), json!([])));
    assert_eq!(ran.summary()["target_touched"], true);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the push is done, and the target is not as the rehearsal left the copy
  column public.surprise.id added
  table public.surprise added
hint: To take the push back, run `supa-safe rollback`
hint: To restore the state before the push into a new database, follow [ROOT]/[..]/restore.md

"#]]
    );
    assert_eq!(world.history(), ["1"]);
}
