//! A rollback that is killed, cut off, or kept from what it needs: production is as before it, or as in
//! the snapshot, and the next run finishes. Never anything between.

mod bytes;
mod faults;
mod objects;
mod room;

use crate::kill::Going;
use crate::rollback::{NOTES, WRONG, pushed};
use crate::scratch::until;
use crate::world::{ADMIN, Major, OWNER, Session, World, told};
use serde_json::Value;
use snapbox::{assert_data_eq, str};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Makes the commit of a rollback wait for whoever holds the advisory lock.
pub(crate) const GATE: &str = "create function public.gate() returns trigger language plpgsql as
        'begin perform pg_advisory_xact_lock(77); return null; end';
    create constraint trigger gate after delete on supabase_migrations.schema_migrations deferrable initially deferred
        for each row execute function public.gate()";
/// What users wrote since the push.
const SINCE: &str = "insert into public.notes values (51, 'new', 'x');
    insert into public.others values (51, 1) on conflict do nothing";

/// A pushed mistake whose rollback can be held at its commit.
fn gated(mut world: World, url: Option<String>) -> World {
    if let Some(url) = url {
        world.set("SUPA_SAFE_DB_URL", url);
    }
    world.sql(OWNER, NOTES);
    let confirm = confirmation(&world);
    drop(world.run(["migrate", "--confirm", &confirm]).exits(0));
    world.sql(OWNER, GATE);
    world.migration("20260101000000_wrong", WRONG);
    drop(world.run(["snapshot"]).exits(0));
    drop(world.run(["migrate", "--confirm", &confirm]).exits(0));
    world.sql(OWNER, SINCE);
    world
}

fn first() -> World {
    first_on(Major::Pg17)
}

fn first_on(major: Major) -> World {
    World::hosted_of(major, &[("20250101000000_first", "create table public.first (id int)")])
}

/// The words that confirm the target that the environment names.
pub(crate) fn confirmation(world: &World) -> String {
    let url = world.variable("SUPA_SAFE_DB_URL").display().to_string();
    url.rsplit_once('@').unwrap().1.to_owned()
}

pub(crate) fn rollback(world: &World) -> Going {
    Going::start(world, &["rollback", "--confirm", &confirmation(world)])
}

/// Keeps every commit of a rollback waiting.
pub(crate) fn close_gate(world: &World) -> Session {
    let session = world.session(OWNER);
    session.run("select pg_advisory_lock(77)");
    session
}

pub(crate) fn open_gate(session: &Session) {
    session.run("select pg_advisory_unlock(77)");
}

/// The sessions of a rollback on the server. Storage has some of its own.
const BACKENDS: &str = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
    and application_name <> 'test' and backend_type = 'client backend' and usename = 'postgres'";

pub(crate) fn until_commit_waits(world: &World) {
    let session = world.session(ADMIN);
    let waits = format!("select 1 {BACKENDS} and wait_event = 'advisory' and query like '%commit%'");
    until("the commit waits", || !session.run(&waits).is_empty());
}

pub(crate) fn until_nobody_is_left(world: &World) {
    let session = world.session(ADMIN);
    let anybody = format!("select 1 {BACKENDS}");
    until("the server has ended its sessions", || session.run(&anybody).is_empty());
}

fn is_taken_back(world: &World) -> bool {
    world.sql(OWNER, "select to_regclass('public.extra') is null") == ["t"]
}

/// The state that a run that finishes leaves.
fn finish(world: &World) {
    drop(world.run(["rollback", "--confirm", &confirmation(world)]).exits(0));
    assert_eq!(world.history(), ["20250101000000"]);
    let notes =
        world.sql(OWNER, "select count(*), count(*) filter (where body = 'note ' || id) from public.notes");
    assert_eq!(notes, ["50|50"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["51"]);
    assert!(is_taken_back(world));
    assert_data_eq!(
        world.run(["rollback", "--confirm", &confirmation(world)]).exits(3).failure(),
        str![[r#"
error: the last push was taken back already, to snapshot [SNAPSHOT]
  the target was not touched
hint: To go back to it once more, run `supa-safe rollback [SNAPSHOT] --mode whole`

"#]]
    );
}

#[test]
fn killed_around_each_record_on_15() {
    killed_around_each_record(Major::Pg15);
}

#[test]
fn killed_around_each_record_on_17() {
    killed_around_each_record(Major::Pg17);
}

fn killed_around_each_record(major: Major) {
    let world = gated(first_on(major), None);
    let damaged = world.state();

    // Before anything is on record: it waits for a table.
    let reader = world.session(OWNER);
    reader.run("begin; select count(*) from public.notes");
    let run = rollback(&world);
    let session = world.session(ADMIN);
    let waits = format!("select 1 {BACKENDS} and wait_event_type = 'Lock'");
    until("it waits for a lock", || !session.run(&waits).is_empty());
    run.kill();
    reader.run("rollback");
    until_nobody_is_left(&world);
    assert_eq!(world.state(), damaged);

    // It is about to commit, and the server gives up.
    let gate = close_gate(&world);
    let mut run = rollback(&world);
    run.until_type("rolling-back");
    until_commit_waits(&world);
    run.kill();
    session.run(&format!("select pg_terminate_backend(pid) {BACKENDS}"));
    until_nobody_is_left(&world);
    open_gate(&gate);
    assert_eq!(world.state(), damaged);

    // It is about to commit, and the server goes on.
    gate.run("select pg_advisory_lock(77)");
    let mut run = rollback(&world);
    run.until_text("nothing of it stands");
    run.until_type("rolling-back");
    until_commit_waits(&world);
    run.kill();
    open_gate(&gate);
    until_nobody_is_left(&world);
    assert!(is_taken_back(&world));
    let settled = world.state();
    let ran = world.run(["rollback", "--confirm", &confirmation(&world), "--json"]).exits(0);
    assert_eq!(ran.events_of("rolled-back").len(), 1, "{ran}");
    assert!(ran.events_of("rolling-back").is_empty(), "{ran}");
    assert_eq!(ran.summary()["target_touched"], false);
    assert_eq!(world.state(), settled);
    // What was written since is in the files of the run that died.
    let saved = crate::world::list(&world.store().join("rollbacks"));
    let notes = saved.iter().filter_map(|run| fs_err::read_to_string(run.join("0001.csv")).ok());
    assert!(notes.collect::<Vec<_>>().last().unwrap().contains("51,new,x"));
    drop(world.run(["rollback", "--confirm", &confirmation(&world)]).exits(3));
    assert_eq!(world.state(), settled);
}

#[test]
fn while_another_run_still_commits() {
    let world = gated(first(), None);
    let gate = close_gate(&world);
    let mut run = rollback(&world);
    run.until_type("rolling-back");
    until_commit_waits(&world);
    let second = world.run(["rollback", "--confirm", &confirmation(&world)]).exits(11);
    assert!(second.stderr.contains("the target was not touched"), "{second}");
    run.kill();
    let mut next = rollback(&world);
    next.until_text("did not tell its rollback to the end");
    open_gate(&gate);
    let (code, summary) = next.ends();
    assert_eq!((code, &summary["target_touched"]), (0, &Value::Bool(false)), "{summary}");
    assert!(is_taken_back(&world));
}

/// Random enough, and the same for a seed (xorshift).
fn rolled(seed: u64, sides: u64) -> u64 {
    let mut number = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..3 {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
    }
    number % sides
}

#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it by hand")]
#[test]
fn killed_at_any_instant() {
    let soak = std::env::var("SUPA_SAFE_TEST_SEEDS").ok();
    let seeds: u64 = soak.as_deref().map_or(3, |seeds| seeds.parse().unwrap());
    let world = gated(first(), None);
    let started = Instant::now();
    let damaged = world.state();
    finish(&world);
    let whole = world.state();
    let limit = u64::try_from(started.elapsed().as_millis()).unwrap() * 2 / 3;
    let (mut before, mut after) = (0, 0);
    for seed in 1..=seeds {
        drop(world.run(["migrate", "--confirm", &confirmation(&world)]).exits(0));
        world.sql(OWNER, SINCE.split(';').next().unwrap());
        let again = world.state();
        assert_eq!(damaged.len(), again.len());
        let instant = Instant::now() + Duration::from_millis(rolled(seed, limit));
        let run = rollback(&world);
        until("the instant has come", || Instant::now() >= instant);
        run.kill();
        until_nobody_is_left(&world);
        let found = world.state();
        if found == again {
            before += 1;
        } else {
            assert_eq!(found, whole, "seed {seed}: something between");
            after += 1;
        }
        let ran = world.run(["rollback", "--confirm", &confirmation(&world)]);
        assert!(ran.code == 0 || ran.code == 3, "seed {seed}: {ran}");
        assert_eq!(world.state(), whole, "seed {seed}");
    }
    eprintln!(
        "killed within {limit} ms, {seeds} times: as before {before} times, as in the snapshot {after} times"
    );
}

/// Passes a server's bytes on, until it is told to cut.
struct Relay {
    address: String,
    open: Arc<Mutex<Vec<TcpStream>>>,
    is_closed: Arc<AtomicBool>,
}

impl Relay {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, is_closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (streams, is_deaf) = (Arc::clone(&open), Arc::clone(&is_closed));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if is_deaf.load(Ordering::SeqCst) {
                    continue;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { return };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || pass_on(from, to));
                }
                streams.lock().unwrap().extend([client, server]);
            }
        });
        Self { address, open, is_closed }
    }

    /// Cuts, and hangs up on whoever comes.
    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    fn reopen(&self) {
        self.is_closed.store(false, Ordering::SeqCst);
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            // One that has ended already is as good.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 8192];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}

/// A world whose runs reach the server through a relay.
fn relayed(major: Major) -> (World, Relay) {
    let world = first_on(major);
    let relay = Relay::to(world.address());
    let url = world.url().replace(&world.address(), &relay.address);
    (gated(world, Some(url)), relay)
}

/// A rollback whose connection is cut while its commit waits: its code, and whether it says that it touched
/// the target.
fn cut_at_the_commit(world: &World, relay: &Relay, then: impl FnOnce()) -> (i32, bool) {
    let mut run = rollback(world);
    run.until_type("rolling-back");
    until_commit_waits(world);
    relay.cut();
    then();
    let (code, summary) = run.ends();
    (code, summary["target_touched"].as_bool().unwrap())
}

#[test]
fn a_cut_connection_is_asked_about_on_15() {
    a_cut_connection_is_asked_about(Major::Pg15);
}

#[test]
fn a_cut_connection_is_asked_about_on_17() {
    a_cut_connection_is_asked_about(Major::Pg17);
}

fn a_cut_connection_is_asked_about(major: Major) {
    let (world, relay) = relayed(major);
    let damaged = world.state();
    let gate = close_gate(&world);

    // Cut before the commit: nothing stands.
    let reader = world.session(OWNER);
    reader.run("begin; select count(*) from public.notes");
    let run = rollback(&world);
    let session = world.session(ADMIN);
    let waits = format!("select 1 {BACKENDS} and wait_event_type = 'Lock'");
    until("it waits for a lock", || !session.run(&waits).is_empty());
    relay.cut();
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"]), (1, &Value::Bool(false)), "{summary}");
    reader.run("rollback");
    until_nobody_is_left(&world);
    assert_eq!(world.state(), damaged);

    // Cut at the commit, which the server gives up.
    let give_up = || {
        session.run(&format!("select pg_terminate_backend(pid) {BACKENDS} and query like '%commit%'"));
    };
    assert_eq!(cut_at_the_commit(&world, &relay, give_up), (1, false));
    until_nobody_is_left(&world);
    assert_eq!(world.state(), damaged);

    // Cut at the commit, which the server goes on with: the run itself finds out.
    assert_eq!(cut_at_the_commit(&world, &relay, || open_gate(&gate)), (0, true));
    assert!(is_taken_back(&world));
    drop(world.run(["rollback", "--confirm", &confirmation(&world)]).exits(3));
}

#[test]
fn a_lock_that_never_comes() {
    let world = pushed();
    let damaged = world.state();
    let reader = world.session(OWNER);
    reader.run("begin; select count(*) from public.notes");
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the rollback failed in `lock the tables`
  caused by: ERROR: canceling statement due to lock timeout
  nothing was changed
hint: See whose transaction holds its tables: `select pid, query from pg_stat_activity where state = 'idle in transaction'`
hint: Run it again when that has ended

"#]]
    );
    reader.run("rollback");
    assert_eq!(world.state(), damaged);
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
}

#[test]
fn a_full_disk_for_what_came_since() {
    let mut world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    let disk = PathBuf::from(told("SUPA_SAFE_TEST_SAVED_DISK")).join("state");
    world.set("SUPA_SAFE_STATE_DIR", &disk);
    world.sql(OWNER, NOTES);
    drop(world.migrate(&[]).exits(0));
    world.sql(
        OWNER,
        "insert into public.notes select n, repeat(md5(n::text), 40) from generate_series(100, 20000) n",
    );
    let damaged = world.state();
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: cannot keep the files of the rollback
  caused by: No space left on device (os error 28) at path "[..]"
  nothing was changed
hint: Make room on the disk of the state folder, then run it again

"#]]
    );
    assert_eq!(world.state(), damaged);
    world.sql(OWNER, "delete from public.notes where id > 100");
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    assert!(is_taken_back(&world));
    fs_err::remove_dir_all(disk).unwrap();
}

#[test]
fn a_snapshot_of_another_database() {
    let world = pushed();
    world.recreate_database();
    let state = world.state();
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the snapshot is of another database; the target was not touched
  [SS004] database oid [..] is not [..]

"#]]
    );
    assert_eq!(world.state(), state);
}

#[test]
fn what_a_teammate_pushed_in_between() {
    let world = pushed();
    world.sql(
        OWNER,
        "create table public.theirs (id int); update public.others set note = 2;
         insert into supabase_migrations.schema_migrations (version, name) values ('20260201000000', 'theirs')",
    );
    let state = world.state();
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the target's history holds 20260201000000, which neither the snapshot nor a push on record knows
  the target was not touched
hint: Ask who pushed them; to take them back too, pass --also 20260201000000

"#]]
    );
    assert_eq!(world.state(), state);
    let also = ["rollback", "--also", "20260201000000", "--confirm", &world.target()];
    let others = "select count(*) from public.others where note = 2";
    let theirs = world.sql(OWNER, others);
    drop(world.run(also).exits(0));
    // Nobody rehearsed what they wrote: everything went back.
    assert_ne!(world.sql(OWNER, others), theirs);
    assert_eq!(world.history(), [""; 0]);
    assert_eq!(world.sql(OWNER, "select to_regclass('public.theirs')"), ["~"]);
}

#[test]
fn a_snapshot_of_the_damage_is_not_what_is_gone_back_to() {
    let world = pushed();
    drop(world.run(["snapshot"]).exits(0));
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    let notes = world.sql(OWNER, "select count(*) filter (where body = 'note ' || id) from public.notes");
    assert_eq!(notes, ["50"]);
}
