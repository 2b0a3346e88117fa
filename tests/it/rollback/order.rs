//! The order in which a rollback takes what it makes again.

use super::Base;
use crate::kill::Going;
use crate::scratch::until;
use crate::world::{ADMIN, Major, OWNER, Session, World};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use supa_safe::rollback::Mode;

/// `items` and `log` go back, and views with them; a key of `items` leads to `aged`, `read` lost a policy, and `stays` got
/// an index, and has a policy that reads `aged`. Nobody may change `log`, its owner neither.
const TABLES: &str = "create table public.aged (id int primary key, body text);
    create table public.items (id int primary key, parent int references public.aged deferrable initially deferred);
    create table public.read (id int primary key);
    create policy everybody on public.read using (true);
    create table public.stays (id int primary key);
    create policy seen on public.stays using (exists (select from public.aged));
    create table public.log (id int primary key);
    revoke update, delete, truncate on public.log from postgres;
    create view public.inner_one as select id, parent from public.items;
    create view public.all_of_them as select * from public.inner_one;
    create materialized view public.counted as select count(*) from public.items;
    insert into public.aged values (1, 'one'); insert into public.items values (1, 1);";

const TAKEN: &[&str] = &["public.items", "public.log"];

fn base() -> Base {
    let world = World::hosted(&[]);
    world.sql(OWNER, TABLES);
    let base = Base::of(world);
    base.world.sql(OWNER, "delete from public.items; drop policy everybody on public.read");
    base.world.sql(OWNER, "create index on public.stays (id)");
    base
}

/// What the rollback holds while it waits for somebody who is at this.
fn held_while_waiting_for(base: &Base, other: &Session, act: &str) -> Vec<String> {
    let (session, watch, ids) = (base.world.session(OWNER), base.world.session(OWNER), base.ids());
    other.run(&format!("begin; {act}"));
    let waiting = "select pid from pg_locks where not granted and locktype = 'relation'
        and database = (select oid from pg_database where datname = current_database())";
    let held = format!(
        "select relation::regclass from pg_locks l where granted and mode = 'AccessExclusiveLock' and pid = ({waiting})
            and relation::regclass::text !~ '^(pg_|information_schema)' order by relation::regclass::text collate \"C\""
    );
    thread::scope(|scope| {
        let rollback = scope.spawn(|| base.bring_back(&session, Mode::Touched, TAKEN, &ids).map(|_| ()));
        until("the rollback waits", || watch.run(waiting).len() == 1);
        let held = watch.run(&held);
        // Nobody who is at work comes to harm.
        other.run("commit");
        rollback.join().unwrap().unwrap();
        session.run("rollback");
        held
    })
}

#[test]
fn whoever_is_waited_for_needs_nothing_that_is_held() {
    let base = base();
    let other = base.world.session(OWNER);
    let views = ["all_of_them", "counted", "inner_one"];
    let held = |act: &str| held_while_waiting_for(&base, &other, act);
    // Who reads a view has it before what it reads.
    assert_eq!(held("select from public.all_of_them"), [""; 0]);
    assert_eq!(held("select from public.inner_one"), views[..2]);
    // Who writes a row that refers to another one asks for that when the row is there, and policies are asked last.
    let with = |more: &[&str]| {
        let mut all: Vec<String> = views.iter().chain(more).map(|name| (*name).to_owned()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(held("select from public.stays"), views);
    assert_eq!(held("insert into public.items values (2, 1)"), with(&["stays"]));
    assert_eq!(held("select from public.aged"), with(&["stays", "items"]));
    assert_eq!(held("insert into public.log values (1)"), with(&["stays", "items", "aged"]));
    // What comes back to a table that stays is taken before anything goes.
    assert_eq!(held("select from public.read"), with(&["stays", "items", "aged", "log"]));
}

#[test]
fn those_who_read_a_view_all_the_while_do_not_stop_it() {
    let base = base();
    let (session, ids, over) = (base.world.session(OWNER), base.ids(), AtomicBool::new(false));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = base.world.session(OWNER);
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        reader.run("select * from public.all_of_them");
                    }
                })
            })
            .collect();
        let outcome = base.bring_back(&session, Mode::Touched, TAKEN, &ids).map(|_| ());
        session.run("commit");
        over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
        outcome.unwrap();
    });
    assert_eq!(base.world.sql(OWNER, "select * from public.all_of_them"), ["1|1"]);
}

#[test]
fn a_vacuum_makes_way() {
    let settings = [
        "autovacuum=on",
        "autovacuum_naptime=1s",
        "autovacuum_vacuum_cost_delay=100ms",
        "autovacuum_vacuum_cost_limit=1",
    ];
    let wrong = "update public.notes set body = 'lost'";
    let world = World::own_server_set(Major::Pg17, &settings, &[("20260101000000_wrong", wrong)]);
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, body text);
        insert into public.notes select n, 'note' from generate_series(1, 50000) n",
    );
    drop(world.migrate(&[]).exits(0));
    let watch = world.session(ADMIN);
    let vacuumed = "select count(*) > 0 from pg_stat_progress_vacuum where relid = 'public.notes'::regclass";
    until("the table is vacuumed", || watch.run(vacuumed) == ["t"]);
    // The next one comes when all is over, as it would with the settings that a server comes with.
    drop(watch.run("alter system set autovacuum_naptime = '10min'"));
    drop(watch.run("select pg_reload_conf()"));
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(0);
    // On a busy machine the first ones may not come in time; in front of a vacuum none does before the sixth.
    assert!(!ran.text().contains("a lock did not come, attempt 5"), "{ran}");
    assert_eq!(world.sql(OWNER, "select distinct body from public.notes"), ["note"]);
}

#[test]
fn what_a_role_allows_a_transaction_does_not_end_it() {
    let world = World::own_server(&[]);
    world.sql(OWNER, "create table public.notes (id int primary key)");
    world.sql(ADMIN, "alter role postgres set transaction_timeout = '1h'");
    let base = Base::of(world);
    let session = base.world.session(OWNER);
    assert_eq!(session.run("show transaction_timeout"), ["1h"]);
    drop(base.bring_back(&session, Mode::Touched, &[], &base.ids()).unwrap());
    assert_eq!(session.run("show transaction_timeout"), ["0"]);
}

#[test]
fn what_keeps_nobody_out_of_a_table_keeps_nobody_out_of_those_that_it_refers_to() {
    let world = World::hosted(&[]);
    world.sql(
        OWNER,
        "create table public.profiles (id uuid primary key references auth.users, body text default 'one');
        create table public.messages (id uuid references auth.users); create publication told",
    );
    let base = Base::of(world);
    base.world.sql(
        OWNER,
        "create policy everybody on public.profiles using (true); grant delete on public.profiles to anon;
        alter publication told add table public.messages",
    );
    let (session, ids, other) = (base.world.session(OWNER), base.ids(), base.world.session(ADMIN));
    other.run("begin; select from auth.users; select from public.messages; lock table auth.users in row exclusive mode");
    drop(base.bring_back(&session, Mode::Touched, &[], &ids).unwrap());
    session.run("commit");
    other.run("commit");
    assert_eq!(base.world.sql(OWNER, "select count(*) from pg_policies where tablename = 'profiles'"), ["0"]);
    assert_eq!(
        base.world.sql(OWNER, "select count(*) from pg_publication_tables where pubname = 'told'"),
        ["0"]
    );
}

#[test]
fn whoever_has_an_account_and_waits_for_a_table_is_not_ended() {
    let wrong = "update auth.users set email = 'lost@x.y'; update public.notes set body = 'lost'";
    let world = World::own_server(&[("20260101000000_wrong", wrong)]);
    world.sql(ADMIN, "insert into auth.users (id, email) values (gen_random_uuid(), 'a@x.y')");
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, body text); insert into public.notes values (1, 'one')",
    );
    drop(world.migrate(&[]).exits(0));
    let (login, watch) = (world.session(ADMIN), world.session(ADMIN));
    login.run("begin; update auth.users set phone = '1'");
    let waits = "select count(*) > 0 from pg_locks where not granted";
    let ran = thread::scope(|scope| {
        let rollback = scope.spawn(|| world.run(["rollback", "--confirm", &world.target()]));
        until("the rollback waits", || watch.run(waits) == ["t"]);
        login.run("insert into public.notes values (2, 'two'); commit");
        rollback.join().unwrap().exits(0)
    });
    assert!(ran.text().contains("a lock did not come") || ran.text().contains("Rolled "), "{ran}");
    assert_eq!(world.sql(OWNER, "select body from public.notes"), ["one"]);
    assert_eq!(world.sql(ADMIN, "select email, phone from auth.users"), ["a@x.y|1"]);
}

#[test]
fn a_killed_rollback_lets_go_while_its_statement_runs() {
    let world = World::own_server(&[("20260101000000_wrong", "update public.notes set body = 'lost'")]);
    world.sql(
        OWNER,
        "create table public.pace (seconds int); insert into public.pace values (0);
        create function public.slow(int) returns int language plpgsql immutable as
            'begin perform pg_catalog.pg_sleep(seconds) from public.pace; return $1; end';
        create table public.notes (id int primary key, body text); insert into public.notes values (1, 'one');
        create index on public.notes (public.slow(id))",
    );
    drop(world.migrate(&[]).exits(0));
    world.sql(OWNER, "update public.pace set seconds = 600");
    let run = Going::start(&world, &["rollback", "--confirm", &world.target()]);
    let watch = world.session(ADMIN);
    let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    until("an index is made", || watch.run(sleeps) == ["1"]);
    run.kill();
    until("its backend has ended", || watch.run(sleeps) == ["0"]);
    assert_eq!(world.sql(OWNER, "select body from public.notes"), ["lost"]);
}
