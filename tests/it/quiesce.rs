//! The write pause: what is refused and what goes on, that no write of the API is lost by a rollback, that nothing
//! of it is left, and what becomes of it when its run does not come to its end.

mod killed;

use crate::kill::Going;
use crate::scratch::until;
use crate::world::{ADMIN, Cli, Major, OWNER, Ran, Session, Template, World, list, same};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use supa_safe::proc::Signal;
use tokio_postgres::error::SqlState;

const DATA_ONLY: (&str, &str) = ("1_data", "update public.notes set text = 'new' where id = 1;");

const TABLES: &str = "
    create table public.notes (id int primary key, text text);
    insert into public.notes values (1, 'old');
    create table public.logs (id bigint, at int) partition by range (id);
    create table public.logs_low partition of public.logs for values from (0) to (1000000);
    create view public.shown as select * from public.notes;
    create function public.add_note(id int) returns void language sql security definer set search_path = ''
        as 'insert into public.notes values (id, null)';
    grant all on public.notes, public.logs, public.logs_low, public.shown to anon, authenticated, service_role";

fn world_of(major: Major, migrations: &[(&str, &str)]) -> World {
    let world = World::new(major, Cli::V3).with_database(Template::Hosted);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    world.write("supabase/supa-safe.toml", "max_block = \"10m\"\n");
    for (name, sql) in migrations {
        world.migration(name, sql);
    }
    world.sql(OWNER, TABLES);
    world
}

fn world(migrations: &[(&str, &str)]) -> World {
    world_of(Major::Pg17, migrations)
}

fn quiesce(world: &World, args: &[&str]) -> Ran {
    world.migrate(&[&["--quiesce"], args].concat())
}

fn start(world: &World) -> Going {
    Going::start(world, &["migrate", "--quiesce", "--confirm", &world.target()])
}

/// A session of a role of the API's.
fn api(world: &World, role: &str) -> Session {
    let session = world.session(OWNER);
    session.run(&format!("set role {role}"));
    session
}

/// The SQLSTATE that a statement was refused with.
#[track_caller]
fn refused(session: &Session, sql: &str) -> String {
    let error = session.try_run(sql).err().unwrap_or_else(|| panic!("{sql} went through"));
    error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).code().to_owned()
}

/// Everything that a pause may leave, beside what `pg_dump` prints: privileges in the order in which they were
/// given, and triggers of every kind.
fn catalog(world: &World) -> Vec<String> {
    let mut lines = world.dumped();
    lines.extend(world.sql(
        ADMIN,
        "select format('%s %s', oid::regclass, relacl) from pg_class where relnamespace >= 16384 or relnamespace = 2200
         union all select format('%s %s', oid::regprocedure, proacl) from pg_proc where oid >= 16384
         union all select format('schema %s %s', nspname, nspacl) from pg_namespace
         union all select format('%s on %s', tgname, tgrelid::regclass) from pg_trigger where not tgisinternal
         union all select format('%s %s %s %s', defaclrole, defaclnamespace, defaclobjtype, defaclacl) from pg_default_acl",
    ));
    lines.sort_unstable();
    lines
}

fn status(world: &World) -> Value {
    world.run(["quiesce", "status", "--json"]).exits(0).document()
}

/// Demands that nothing of a pause is left, and that everybody may write.
#[track_caller]
fn is_over(world: &World) {
    let left = world.sql(
        ADMIN,
        "select nspname::text from pg_namespace where nspname = 'supa_safe'
         union all select tgname::text from pg_trigger where tgname = 'supa_safe_pause'",
    );
    assert_eq!(left, [""; 0]);
    api(world, "service_role").run("begin; insert into public.notes values (-1, null); rollback");
    let status = status(world);
    assert_eq!((&status["stands"], &status["next"]), (&json!(false), &json!("nothing")));
    let known = world.run(["status", "--json"]).exits(0).document();
    assert_eq!(known["paused_by"], Value::Null, "{known}");
}

/// Users who write rows of their own through the API, as fast as they can.
struct Writers<'w> {
    world: &'w World,
    number: AtomicUsize,
    acknowledged: Mutex<BTreeSet<usize>>,
    refused: AtomicUsize,
    is_over: AtomicBool,
}

impl Writers<'_> {
    fn write(&self, role: &str) {
        let session = api(self.world, role);
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            match session.try_run(&format!("insert into public.logs values ({number}, 1)")) {
                Ok(_) => drop(self.acknowledged.lock().unwrap().insert(number)),
                Err(error) => {
                    assert_eq!(error.code().map(SqlState::code), Some("PT503"), "{error:?}");
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn so_far(&self) -> BTreeSet<usize> {
        self.acknowledged.lock().unwrap().clone()
    }
}

/// Numbers in a file of kept rows, or in what a query gives.
fn numbers(lines: impl IntoIterator<Item = String>) -> BTreeSet<usize> {
    let first = |line: String| line.split(['\t', ',', '|']).next()?.parse().ok();
    lines.into_iter().filter_map(first).collect()
}

/// Writers go on over the whole of it; then everything goes back.
fn no_acknowledged_write_is_lost(major: Major) {
    let world = world_of(major, &[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let writers = Writers {
        world: &world,
        number: AtomicUsize::new(1),
        acknowledged: Mutex::default(),
        refused: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    };
    let before = std::thread::scope(|scope| {
        for role in ["anon", "authenticated", "service_role"] {
            let writers = &writers;
            scope.spawn(move || writers.write(role));
        }
        until("they write", || writers.so_far().len() > 50);
        let mut run = start(&world);
        run.until_type("delegating");
        let before = writers.so_far();
        // One who comes while it is paused.
        assert_eq!(refused(&api(&world, "anon"), "insert into public.logs values (0, 1)"), "PT503");
        let (code, summary) = run.ends();
        assert_eq!(code, 0, "{summary}");
        until("they are let through", || writers.so_far().len() > before.len() + 50);
        writers.is_over.store(true, Ordering::Relaxed);
        before
    });
    assert!(writers.refused.load(Ordering::Relaxed) > 0);
    is_over(&world);

    let acknowledged = writers.so_far();
    assert!(acknowledged.len() > before.len());
    let ran = world.run(["rollback", "--mode", "whole", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(world.sql(OWNER, "select text from public.notes"), ["old"], "{ran}");
    let live = numbers(world.sql(OWNER, "select id from public.logs"));
    let lost: Vec<_> = before.difference(&live).collect();
    assert!(lost.is_empty(), "acknowledged before the push, and not in the snapshot: {lost:?}");
    let folder = list(&world.store().join("rollbacks")).pop().unwrap();
    let files = supa_safe::disk::files_below(&folder).unwrap();
    let texts = files.iter().filter_map(|file| fs_err::read_to_string(folder.join(file)).ok());
    let kept = numbers(texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()));
    let found: BTreeSet<_> = live.union(&kept).copied().collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "neither live nor kept: {lost:?}");
}

#[test]
fn no_acknowledged_write_is_lost_on_15() {
    no_acknowledged_write_is_lost(Major::Pg15);
}

#[test]
fn no_acknowledged_write_is_lost_on_17() {
    no_acknowledged_write_is_lost(Major::Pg17);
}

/// A run that stands in its push, since somebody reads the table that the push wants for itself.
fn held(world: &World) -> (Going, Session) {
    world.run(["rehearse"]).exits(0);
    let reader = world.session(OWNER);
    let mut run = start(world);
    run.until_type("delegating");
    reader.run("begin; select * from public.notes");
    let waits = "select 1 from pg_locks where relation = 'public.notes'::regclass and not granted";
    let observer = world.session(OWNER);
    until("the push waits", || !observer.run(waits).is_empty());
    (run, reader)
}

const ALTERS: (&str, &str) = ("1_alters", "alter table public.notes add column more int;");

#[test]
fn every_way_of_writing_is_refused_and_reads_go_on() {
    let world = world(&[ALTERS]);
    world.sql(OWNER, "create table public.gone (id int); insert into public.gone values (1)");
    world.sql(OWNER, "grant all on public.gone to anon, authenticated, service_role");
    let (run, reader) = held(&world);
    for role in ["anon", "authenticated", "service_role"] {
        let api = api(&world, role);
        for sql in [
            "insert into public.gone values (2)",
            "update public.gone set id = 2",
            "delete from public.gone",
            "truncate public.gone",
            "insert into public.logs values (2, 1)",
            "insert into public.logs_low values (2, 1)",
            "with w as (insert into public.gone values (2) returning id) select * from w",
            "merge into public.gone g using (select 1 as id) s on s.id = g.id when matched then delete",
        ] {
            assert_eq!(refused(&api, sql), "PT503", "{role}: {sql}");
        }
        assert_eq!(api.run("select count(*) from public.gone"), ["1"]);
    }
    let mut psql = world.program(world.variable("SUPA_SAFE_PG_BIN").join("psql"));
    psql.args(["-X", "-v", "VERBOSITY=verbose", "-c", "set role anon", "-c", "copy public.gone from stdin"]);
    let copied = world.finish(psql.args(["-d", &world.url()])).exits(1);
    assert!(copied.stderr.contains("PT503"), "{copied}");
    world.sql(OWNER, "insert into public.gone values (3)");
    reader.run("rollback");
    let (code, summary) = run.ends();
    assert_eq!(code, 0, "{summary}");
    is_over(&world);
}

#[test]
fn a_write_through_a_function_of_the_owner_or_a_view_is_refused() {
    let world = world(&[("1_alters", "alter table public.logs add column more int;")]);
    // Triggers of the usual kind are not for it.
    world.sql(
        ADMIN,
        "create function auth.add_note_quietly(id int) returns void language sql security definer
            set search_path = '' set session_replication_role = replica
            as 'insert into public.notes values (id, null)'",
    );
    world.run(["rehearse"]).exits(0);
    let reader = world.session(OWNER);
    let mut run = start(&world);
    run.until_type("delegating");
    reader.run("begin; select * from public.logs");
    let api = api(&world, "authenticated");
    for sql in [
        "select public.add_note(7)",
        "select auth.add_note_quietly(7)",
        "insert into public.shown values (7, 'x')",
        "delete from public.shown",
        "update public.shown set text = 'x'",
    ] {
        assert_eq!(refused(&api, sql), "PT503", "{sql}");
    }
    // Whoever is not of the API goes by it, through the same function too.
    world.sql(OWNER, "select public.add_note(8)");
    reader.run("rollback");
    let (code, summary) = run.ends();
    assert_eq!(code, 0, "{summary}");
    assert_eq!(world.sql(OWNER, "select id from public.notes order by 1"), ["1", "8"]);
    is_over(&world);
}

/// A foreign table takes no trigger for TRUNCATE on every version.
fn foreign_tables_are_paused(major: Major) {
    let world = world_of(major, &[DATA_ONLY]);
    world.sql(
        ADMIN,
        "create foreign data wrapper elsewhere; create server elsewhere foreign data wrapper elsewhere;
         grant usage on foreign server elsewhere to postgres",
    );
    world.sql(
        OWNER,
        "create foreign table public.far (id int) server elsewhere; grant all on public.far to anon;
         create foreign table public.logs_far partition of public.logs for values from (1000000) to (2000000)
            server elsewhere; grant all on public.logs_far to anon;
         create schema supabase_migrations;
         create table supabase_migrations.schema_migrations (version text not null primary key);
         alter table supabase_migrations.schema_migrations add statements text[], add name text",
    );
    let before = catalog(&world);
    let ran = quiesce(&world, &["--json"]).exits(0);
    assert_eq!(ran.events_of("writes-paused")[0]["tables"], json!(5), "{ran}");
    assert_eq!(same(&before, &catalog(&world)), Ok(()));
    is_over(&world);
}

#[test]
fn foreign_tables_are_paused_on_15() {
    foreign_tables_are_paused(Major::Pg15);
}

#[test]
fn foreign_tables_are_paused_on_17() {
    foreign_tables_are_paused(Major::Pg17);
}

#[test]
fn nothing_of_the_catalog_differs_afterwards() {
    let world = world(&[DATA_ONLY]);
    world.sql(OWNER, "grant insert on public.notes to service_role with grant option");
    let history = "create schema supabase_migrations;
         create table supabase_migrations.schema_migrations (version text not null primary key);
         alter table supabase_migrations.schema_migrations add statements text[], add name text";
    world.sql(OWNER, history);
    let before = catalog(&world);
    let ran = quiesce(&world, &["--json"]).exits(0);
    assert_eq!(
        ran.summary()["limits"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|limit| limit.to_string().contains("pause"))
            .count(),
        0
    );
    assert_eq!(same(&before, &catalog(&world)), Ok(()));
    is_over(&world);
}

#[test]
fn a_push_that_changes_grants_leaves_what_it_leaves_without_a_pause() {
    let grants = (
        "1_grants",
        "revoke insert on public.notes from anon; grant select on public.notes to anon;
        grant update (text) on public.notes to authenticated with grant option;
        create policy p on public.notes for insert to authenticated with check (true);
        alter default privileges in schema public revoke all on tables from anon;",
    );
    let (with, without) = (world(&[grants]), world(&[grants]));
    quiesce(&with, &[]).exits(0);
    without.migrate(&[]).exits(0);
    let lines = |world: &World| {
        let name = world.database_name().to_owned();
        catalog(world).into_iter().map(|line| line.replace(&name, "database")).collect::<Vec<_>>()
    };
    assert_eq!(same(&lines(&without), &lines(&with)), Ok(()));
    is_over(&with);
}

#[test]
fn writers_who_do_not_end_are_named_and_nothing_is_left() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let before = catalog(&world);
    let writer = world.session(OWNER);
    writer.run("begin; insert into public.logs values (1, 1)");
    let mut run = start(&world);
    run.until_text("attempt 1 of 12");
    // Whoever else writes is not kept from it for longer than an attempt takes.
    world.sql(OWNER, "insert into public.logs values (2, 1)");
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"]), (1, &json!(false)), "{summary}");
    assert!(summary["error"].to_string().contains("idle in transaction"), "{summary}");
    writer.run("rollback");
    assert_eq!(same(&before, &catalog(&world)), Ok(()));
    is_over(&world);
}

#[test]
fn a_writer_who_ends_is_waited_for() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let writer = api(&world, "anon");
    writer.run("begin; insert into public.logs values (1, 1)");
    let mut run = start(&world);
    run.until_text("attempt 1 of 12");
    writer.run("commit");
    let (code, summary) = run.ends();
    assert_eq!(code, 0, "{summary}");
    is_over(&world);
    world.run(["rollback", "--mode", "whole", "--confirm", &world.target()]).exits(0);
    assert_eq!(world.sql(OWNER, "select id from public.logs"), ["1"]);
}

#[test]
fn a_vacuum_makes_way() {
    let settings = [
        "autovacuum=on",
        "autovacuum_naptime=1s",
        "autovacuum_vacuum_cost_delay=100ms",
        "autovacuum_vacuum_cost_limit=1",
    ];
    let world = World::own_server_set(
        Major::Pg17,
        &settings,
        &[("20260101000000_a", "create table public.a (id int)")],
    );
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, body text);
        insert into public.notes select n, 'note' from generate_series(1, 50000) n",
    );
    world.run(["rehearse"]).exits(0);
    let watch = world.session(ADMIN);
    let vacuumed = "select count(*) > 0 from pg_stat_progress_vacuum where relid = 'public.notes'::regclass";
    until("the table is vacuumed", || watch.run(vacuumed) == ["t"]);
    drop(watch.run("alter system set autovacuum_naptime = '10min'"));
    drop(watch.run("select pg_reload_conf()"));
    // In front of it all twelve attempts would be in vain.
    quiesce(&world, &["--json"]).exits(0);
    is_over(&world);
}

#[test]
fn a_pause_that_somebody_ends_is_no_ground_for_a_push() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    let before = catalog(&world);
    let mut run = start(&world);
    run.until_type("writes-paused");
    world.sql(ADMIN, "drop schema supa_safe cascade");
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"]), (1, &json!(false)), "{summary}");
    assert!(summary["error"].to_string().contains("somebody ended it"), "{summary}");
    assert_eq!(same(&before, &catalog(&world)), Ok(()));
}

#[test]
fn a_schema_of_somebody_elses_is_left_alone() {
    let world = world(&[DATA_ONLY]);
    world.sql(OWNER, "create schema supa_safe; create table supa_safe.mine (id int)");
    let before = catalog(&world);
    let ran = quiesce(&world, &[]).exits(1);
    assert!(ran.failure().contains("a schema `supa_safe` that no run of supa-safe made"), "{ran}");
    world.run(["quiesce", "release"]).exits(0);
    assert_eq!(status(&world)["stands"], json!(false));
    assert_eq!(same(&before, &catalog(&world)), Ok(()));
    // Without a pause it is a schema like any other.
    world.migrate(&[]).exits(0);
}

#[test]
fn a_push_that_fails_ends_the_pause() {
    let fails = "alter table public.notes add column more int;
        do $$ begin if exists (select from public.logs where id = 99) then raise 'no'; end if; end $$;";
    let world = world(&[("1_fails", fails)]);
    let (run, reader) = held(&world);
    // A row that the copy did not have.
    world.sql(OWNER, "insert into public.logs values (99, 1)");
    reader.run("rollback");
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["not_applied"]), (20, &json!(["1_fails.sql"])), "{summary}");
    is_over(&world);
}

#[test]
fn a_signal_ends_the_pause() {
    let world = world(&[DATA_ONLY]);
    world.run(["rehearse"]).exits(0);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        let mut run = start(&world);
        run.until_type("writes-paused");
        run.signals(signal);
        let (ended, summary) = run.ends();
        assert_eq!((ended, &summary["target_touched"]), (code, &json!(false)), "{summary}");
        is_over(&world);
        assert_eq!(world.history(), [""; 0]);
    }
}

#[test]
fn a_push_may_drop_rename_move_and_add_tables() {
    let world = world(&[(
        "1_moves",
        "drop view public.shown; drop table public.logs; create schema elsewhere;
         alter table public.notes set schema elsewhere; alter table elsewhere.notes rename to other;
         create table public.added (id int);",
    )]);
    quiesce(&world, &[]).exits(0);
    let left = "select 1 from pg_namespace where nspname = 'supa_safe'
        union all select 1 from pg_trigger where tgname = 'supa_safe_pause'";
    assert_eq!(world.sql(ADMIN, left), [""; 0]);
    world.run(["rollback", "--confirm", &world.target()]).exits(0);
    is_over(&world);
}

#[test]
fn a_schema_that_is_not_as_rehearsed_refuses_and_ends_the_pause() {
    let world = world(&[DATA_ONLY]);
    let mut run = start(&world);
    run.until_type("confirmation");
    world.sql(OWNER, "create table public.late (id int)");
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["findings"][0]["rule"]), (3, &json!("SS009")), "{summary}");
    let left = "select 1 from pg_namespace where nspname = 'supa_safe'";
    assert_eq!(world.sql(ADMIN, left), [""; 0]);
    assert_eq!(world.history(), [""; 0]);
}

#[test]
fn what_is_paused_stands_in_the_confirmation() {
    let world = world(&[DATA_ONLY]);
    world.write("supabase/supa-safe.toml", "allow_no_rollback = true\n");
    world.sql(ADMIN, "create table public.of_admin (id int)");
    let ran = quiesce(&world, &["--json"]).exits(0);
    let lines = ran.events_of("confirmation").remove(0)["lines"].clone();
    let of = |title: &str| -> Vec<String> {
        let lines = lines.as_array().unwrap().iter().filter(|line| line[0] == title);
        lines.map(|line| line[1].as_str().unwrap().to_owned()).collect()
    };
    assert!(
        of("pauses")[0].contains("anon, authenticated, authenticator, service_role to 3 tables"),
        "{lines}"
    );
    assert!(of("not paused").iter().any(|line| line.starts_with("public.of_admin: ")), "{lines}");
    let paused = ran.events_of("writes-paused").remove(0);
    assert_eq!((&paused["tables"], &paused["beyond"]), (&json!(3), &json!(["public.of_admin"])));
    is_over(&world);
}
