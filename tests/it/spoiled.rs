//! Disks that are full and dumps that lie: never is a snapshot taken for whole that is not.

use crate::kill::Going;
use crate::scratch::until;
use crate::world::{ADMIN, OWNER, Ran, World, list, told};
use fs_err as fs;
use regex::Regex;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use supa_safe::disk;

/// Nothing stands where snapshots do, and the target knows nothing of it.
#[track_caller]
fn nothing_kept(world: &World, ran: &Ran) {
    let state = world.variable("SUPA_SAFE_STATE_DIR");
    let left: Vec<PathBuf> = list(&state).iter().flat_map(|target| list(&target.join("snapshots"))).collect();
    assert_eq!(left, [""; 0].map(PathBuf::from), "{ran}");
    assert_eq!(world.history(), [""; 0]);
}

/// A folder of Postgres programs whose `pg_dump` spoils what it writes.
fn spoiling(world: &World, harm: &str) -> PathBuf {
    let folder = world.path(format!("pg-{harm}"));
    fs::create_dir(&folder).unwrap();
    for program in list(Path::new(&told("SUPA_SAFE_TEST_PG17_BIN"))) {
        let name = program.file_name().unwrap().to_str().unwrap();
        symlink(&program, folder.join(if name == "pg_dump" { "pg_dump.real" } else { name })).unwrap();
    }
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrappers/pg_dump");
    fs::copy(wrapper, folder.join("pg_dump")).unwrap();
    disk::write(&folder.join("harm"), harm.as_bytes()).unwrap();
    folder
}

#[test]
fn a_dump_that_died_or_lies_is_no_snapshot() {
    let world = World::hosted(&[("20260101000000_notes", "create table public.notes (id int);")]);
    world.sql(OWNER, "create table public.rows as select md5(i::text) from generate_series(1, 2000) i");
    for (harm, code) in [("killed", 1), ("emptied", 1)] {
        let folder = spoiling(&world, harm);
        let ran = world
            .run(["migrate", "--confirm", &world.target(), "--pg-bin", folder.to_str().unwrap()])
            .exits(code);
        assert!(ran.stderr.contains("the target was not touched"), "{harm}: {ran}");
        nothing_kept(&world, &ran);
    }
    // `pg_restore` takes a zstd file that ends too early for its end, so only the count of rows shows it.
    let folder = spoiling(&world, "cut");
    let folder = folder.to_str().unwrap();
    let ran = world.run(["migrate", "--confirm", &world.target(), "--pg-bin", folder]).exits(3);
    assert!(ran.stderr.contains("[SS005]"), "{ran}");
    assert!(ran.stderr.contains("rows of table public.rows instead of 2000"), "{ran}");
    assert_eq!(world.history(), [""; 0]);
    let ran = world.run(["check"]).exits(3);
    assert!(ran.stderr.contains("[SS005]"), "{ran}");
}

#[test]
fn a_disk_that_is_full() {
    let mut world = World::hosted(&[("20260101000000_notes", "create table public.notes (id int);")]);
    world.sql(
        ADMIN,
        "create table public.noise (id int, bytes bytea);
         alter table public.noise alter bytes set storage external;
         insert into public.noise select i, (select decode(string_agg(replace(gen_random_uuid()::text, '-', ''), ''), 'hex')
             from generate_series(1, 64) where i > 0) from generate_series(1, 12000) i;
         alter table public.noise owner to postgres;
         analyze public.noise",
    );
    let disk = PathBuf::from(told("SUPA_SAFE_TEST_SMALL_DISK"));
    world.set("SUPA_SAFE_STATE_DIR", disk.join("state"));
    let ballast = disk.join("ballast");
    // Too little from the start; and enough by the estimate, yet too little for bytes that do not compress.
    for (left, text) in [(1_u64 << 20, "the archive may take"), (6 << 20, "No space left on device")] {
        let free = disk::free_bytes(&disk).unwrap();
        let mut file = fs::File::create(&ballast).unwrap();
        file.write_all(&vec![0; usize::try_from(free - left).unwrap()]).unwrap();
        drop(file);
        let ran = world.migrate(&[]);
        fs::remove_file(&ballast).unwrap();
        let ran = ran.exits(1);
        assert!(ran.stderr.contains(text), "{text}: {ran}");
        assert!(ran.stderr.contains("the target was not touched"), "{text}: {ran}");
        nothing_kept(&world, &ran);
    }
    fs::remove_dir_all(disk.join("state")).unwrap();
}

#[test]
fn a_table_that_is_locked_against_readers() {
    let world = World::hosted(&[("20260101000000_notes", "create table public.notes (id int);")]);
    world.sql(OWNER, "create table public.busy (id int)");
    let holder = world.session(OWNER);
    holder.run("begin");
    holder.run("lock table public.busy in access exclusive mode");
    let pid = holder.run("select pg_backend_pid()").remove(0);
    let ran = world.run(["snapshot"]).exits(1);
    let first = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let since = Regex::new("since [0-9]+ s").unwrap().replace(first, "since N s").into_owned();
    assert_eq!(
        since.replace(&pid, "PID"),
        "error: a table of the target is locked against readers: backend PID (`test` as postgres) has held public.busy \
         since N s: `select pg_backend_pid()`"
    );
    nothing_kept(&world, &ran);
    holder.run("rollback");
    world.run(["snapshot"]).exits(0);
}

/// Holds whoever dumps them long enough for another table to be asked for.
const LONG: &str = "create table public.busy (id int); insert into public.busy values (1);
    create table public.long_1 as select n, repeat(md5(n::text), 20) as t from generate_series(1, 40000) n;
    create table public.long_2 as select * from public.long_1";

const AGAIN: &str = "somebody asked for a table against its readers while it was dumped, and the dump had to end: \
    attempt 2 of 3";

/// A snapshot whose dump has the table, but whose workers have not come to it.
fn dumping(world: &World) -> Going {
    let session = world.session(OWNER);
    let run = Going::start(world, &["snapshot"]);
    let has_it = "select 1 from pg_locks l join pg_stat_activity a using (pid)
        where a.application_name = 'pg_dump' and a.datname = current_database()
        and l.relation = 'public.busy'::regclass and l.granted";
    until("the dump has the table", || !session.run(has_it).is_empty());
    run
}

#[test]
fn a_table_that_is_asked_for_against_readers_while_it_is_dumped() {
    let world = World::hosted(&[("20260101000000_notes", "create table public.notes (id int);")]);
    world.sql(OWNER, LONG);
    let asking = world.session(OWNER);
    let pid = asking.run("select pg_backend_pid()").remove(0);
    // It comes and goes.
    let mut run = dumping(&world);
    asking.run("begin; lock table public.busy in access exclusive mode; commit");
    run.until(|event| event["text"] == AGAIN);
    assert_eq!(run.ends().0, 0);
    assert_eq!(world.snapshots().len(), 1);

    // It stays.
    let mut run = dumping(&world);
    asking.run("begin; lock table public.busy in access exclusive mode");
    run.until(|event| event["text"] == AGAIN);
    let (code, summary) = run.ends();
    let since = Regex::new("since [0-9]+ s").unwrap();
    let error = since.replace(summary["error"][0].as_str().unwrap(), "since N s").replace(&pid, "PID");
    assert_eq!(
        (code, error.as_str()),
        (
            1,
            "a table of the target is locked against readers: backend PID (`test` as postgres) has held public.busy \
             since N s: `begin; lock table public.busy in access exclusive mode`"
        )
    );
    asking.run("rollback");

    // It waits behind a reader, and keeps all later ones waiting.
    let reader = world.session(OWNER);
    reader.run("begin; select from public.busy");
    let behind = reader.run("select pg_backend_pid()").remove(0);
    let waiting = std::thread::scope(|scope| {
        let asked = scope.spawn(|| asking.run("begin; lock table public.busy in access exclusive mode"));
        let watch = world.session(OWNER);
        until("it waits", || {
            !watch
                .run("select 1 from pg_locks where not granted and relation = 'public.busy'::regclass")
                .is_empty()
        });
        let ran = world.run(["snapshot"]).exits(1);
        reader.run("rollback");
        drop(asked.join().unwrap());
        ran
    });
    let first = waiting.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    let seconds = Regex::new("for [0-9]+ s").unwrap();
    assert_eq!(
        seconds.replace(first, "for N s").replace(&pid, "PID").replace(&behind, "READER"),
        "error: a table of the target is locked against readers: backend PID (`test` as postgres) has waited to lock \
         public.busy against readers for N s, behind backend READER: `begin; lock table public.busy in access \
         exclusive mode`"
    );
}
