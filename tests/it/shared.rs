//! A store in a bucket, through the program: another machine, a lost machine, damage in the bucket,
//! two runs at once, and runs that die or are cut off while they upload.

use crate::kill::Going;
use crate::world::{Cli, Major, OWNER, Weed, World};
use fs_err as fs;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use supa_safe::store::{Asking, Locked, Store};

const FILES: [(&str, &str); 1] = [(
    "20260101000000_drop",
    "alter table public.notes drop column body; delete from public.notes where id > 2;",
)];

/// A world with rows that its migration takes away.
fn world() -> World {
    let world = World::hosted(&FILES);
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, body text not null);
         insert into public.notes select i, 'note ' || i from generate_series(1, 5) i;
         select 1",
    );
    world
}

/// The machine is lost: nothing is left of its state folder.
fn lose(world: &World) {
    fs::remove_dir_all(world.path("state")).unwrap();
}

fn ids(world: &World) -> Vec<String> {
    let listed = world.run(["list", "--json"]).exits(0).document();
    let ids = listed["snapshots"].as_array().unwrap().iter();
    ids.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

fn newest(world: &World) -> String {
    world.snapshots()[0].file_name().unwrap().to_str().unwrap().to_owned()
}

/// What the last line of a run says was found.
fn facts(summary: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = summary["findings"].as_array().unwrap().iter();
    findings.map(|finding| (text(finding, "rule"), text(finding, "fact"))).collect()
}

#[test]
fn a_lost_machine_takes_nothing_with_it() {
    let mut world = world();
    let weed = world.weed();
    let before = world.state();
    drop(world.migrate(&[]).exits(0));
    assert_ne!(world.state(), before);
    let taken = newest(&world);
    lose(&world);
    assert_eq!(ids(&world), [taken.as_str()]);
    let shown = world.run(["show", "--json"]).exits(0).document();
    assert_eq!((shown["manifest"]["id"].as_str(), &shown["broken"]), (Some(taken.as_str()), &json!([])));
    lose(&world);
    let target = world.target();
    let back = world.run(["rollback", "--confirm", &target, "--json"]).exits(0).summary();
    assert_eq!(back["snapshot"].as_str(), Some(taken.as_str()));
    assert_eq!(world.state(), before);
    // What the rollback kept is there too, and no lock.
    lose(&world);
    let left: Vec<String> = weed.keys();
    assert!(left.iter().any(|key| key.contains("/rollbacks/")), "{left:#?}");
    assert!(!left.iter().any(|key| key.contains("/locks/") || key.contains("/incoming/")), "{left:#?}");
    // Everybody knows that it was taken back: the same once more is refused.
    assert_eq!(world.run(["rollback", "--confirm", &target]).code, 3);
}

#[test]
fn what_is_altered_or_lost_in_the_bucket_is_named() {
    let mut world = world();
    let weed = world.weed();
    drop(world.run(["snapshot"]).exits(0));
    let id = newest(&world);
    let name = weed.key(&format!("{id}/manifest.json"));
    let store = format!("{}/{}", weed.address(), name.split_once("/snapshots/").unwrap().0);
    drop(world.run(["verify"]).exits(0));

    let key = weed.key(&format!("{id}/database/archive/toc.dat"));
    let bytes = weed.get(&key);
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    weed.put(&key, &other);
    let found = |end: &str| {
        let fact = format!("snapshot {id} does not match its digests: {end} the store `{store}`");
        vec![("SS005".to_owned(), fact)]
    };
    let altered = found("database/archive/toc.dat has other bytes in");
    assert_eq!(facts(&world.run(["verify", "--json"]).exits(3).summary()), altered);
    // A machine that has no copy takes nothing that is not as it was sent.
    lose(&world);
    assert_eq!(facts(&world.run(["verify", "--json"]).exits(3).summary()), altered);
    assert!(!world.snapshots()[0].join("database/archive/toc.dat").exists());

    weed.put(&key, &bytes);
    drop(world.run(["verify"]).exits(0));
    let rows = weed.key(&format!("{id}/database/roles.sql"));
    weed.remove(&rows);
    assert_eq!(
        facts(&world.run(["verify", "--json"]).exits(3).summary()),
        found("database/roles.sql is not in")
    );
}

#[test]
fn one_of_two_runs_holds_the_lock() {
    let mut world = world();
    let weed = world.weed();
    drop(world.run(["snapshot"]).exits(0));
    let folder = world.store().file_name().unwrap().to_str().unwrap().to_owned();
    let elsewhere = Store::open(&world.path("elsewhere"), &folder).unwrap();
    let asking = Asking { host: "ci-7".to_owned(), run: "r1".to_owned(), clock: Timestamp::now };
    let (other, locked) = weed.runtime.block_on(async {
        let other = elsewhere.join(&weed.location(Weed::owner())).await.unwrap();
        let locked = other.lock_shared("run", &asking).await.unwrap();
        (other, locked)
    });
    assert_eq!(locked, Locked::Held { before: None, is_exclusive: true });
    let before = world.state();
    let refused = world.migrate(&["--json"]).exits(11).summary();
    let holder: Value = serde_json::from_slice(&weed.get(&weed.key("/locks/run"))).unwrap();
    let who = format!(
        "run r1 (process {} on ci-7, since {})",
        std::process::id(),
        holder["since"].as_str().unwrap()
    );
    assert_eq!(refused["error"], json!([format!("{who} works on this target; the target was not touched")]));
    assert_eq!(world.state(), before);
    // Looking is nobody's business.
    assert_eq!(ids(&world).len(), 1);
    weed.runtime.block_on(other.unlock_shared()).unwrap();
    drop(world.migrate(&[]).exits(0));
}

/// How many keys each run adds before it is killed.
const KILLED_AT: [usize; 3] = [2, 6, 13];

#[test]
fn no_half_snapshot_is_taken_for_a_whole_one() {
    let mut world = world();
    let weed = world.weed();
    let mut other = World::new(Major::Pg17, Cli::V3);
    other.same_target(&world);
    let manifests = |weed: &Weed| weed.keys().iter().filter(|key| key.ends_with("/manifest.json")).count();
    for more in KILLED_AT {
        let at = weed.keys().len() + more;
        let run = Going::start(&world, &["snapshot"]);
        let deadline = Instant::now() + Duration::from_mins(4);
        while weed.keys().len() < at {
            assert!(Instant::now() < deadline, "it never uploads {more} files: {:#?}", weed.keys());
        }
        run.kill();
        assert_eq!(ids(&other).len(), manifests(&weed), "killed at {more}");
    }
    // The next run of the same machine ends what was begun, and takes its own.
    drop(world.run(["snapshot"]).exits(0));
    assert_eq!((ids(&world), ids(&other).len()), (ids(&other), manifests(&weed)));
    assert!(!weed.keys().iter().any(|key| key.contains("/incoming/")), "{:#?}", weed.keys());
    drop(other.run(["verify"]).exits(0));
}

#[test]
fn the_beginning_of_a_snapshot_goes_with_the_machine() {
    let mut world = world();
    let weed = world.weed();
    let run = Going::start(&world, &["snapshot"]);
    let deadline = Instant::now() + Duration::from_mins(4);
    while weed.keys().len() < 6 {
        assert!(Instant::now() < deadline, "{:#?}", weed.keys());
    }
    run.kill();
    lose(&world);
    // Nobody can wait for two minutes here.
    weed.remove(&weed.key("/locks/run"));
    let ran = world.run(["snapshot"]).exits(0);
    assert_eq!(ids(&world), [newest(&world)], "{ran}");
    let of_others = |key: &String| key.contains("/snapshots/") && !key.contains(&newest(&world));
    assert_eq!(weed.keys().into_iter().filter(of_others).collect::<Vec<_>>(), [""; 0]);
}

/// A line to the server that breaks after so many bytes, and stays broken.
struct Line {
    address: String,
}

impl Line {
    fn to(server: &'static str, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicU64::new(bytes));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let left = Arc::clone(&left);
                std::thread::spawn(move || drop(carry(&client, server, &left)));
            }
        });
        Self { address }
    }
}

fn carry(client: &TcpStream, server: &str, left: &Arc<AtomicU64>) -> io::Result<()> {
    let upstream = TcpStream::connect(server)?;
    let (mut answers, mut back) = (upstream.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || io::copy(&mut answers, &mut back));
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    let mut piece = [0; 4096];
    loop {
        let read = from.read(&mut piece)?;
        let taken =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(read as u64));
        if read == 0 || taken.is_err() {
            left.store(0, Ordering::Relaxed);
            client.shutdown(Shutdown::Both)?;
            return upstream.shutdown(Shutdown::Both);
        }
        to.write_all(piece.get(..read).unwrap_or_default())?;
    }
}

#[test]
fn a_line_that_is_cut_keeps_the_push_back() {
    let mut world = world();
    let weed = world.weed();
    let before = world.state();
    let line = Line::to("127.0.0.1:8334", 60_000);
    world.set("SUPA_SAFE_STORE_ENDPOINT", line.address);
    let failed = world.migrate(&["--json"]).exits(1).summary();
    assert_eq!(failed["target_touched"], false);
    assert_eq!(world.state(), before);
    assert!(!weed.keys().iter().any(|key| key.ends_with("/manifest.json")), "{:#?}", weed.keys());
    world.set("SUPA_SAFE_STORE_ENDPOINT", Weed::endpoint());
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn keys_that_do_not_fit_are_said_before_anything_else() {
    let mut world = world();
    let weed = world.weed();
    let before = world.state();
    world.set("SUPA_SAFE_STORE_SECRET_ACCESS_KEY", "another");
    assert_eq!(world.migrate(&[]).code, 12);
    // A bucket that takes nothing.
    let [id, secret] = Weed::reader_pair();
    world.set("SUPA_SAFE_STORE_ACCESS_KEY_ID", id);
    world.set("SUPA_SAFE_STORE_SECRET_ACCESS_KEY", secret);
    assert_eq!(world.migrate(&[]).code, 1);
    assert_eq!((world.state(), weed.keys()), (before, Vec::new()));
    assert_eq!(ids(&world), [""; 0]);
}

/// Looking is not writing: keys that may only read are enough for it.
#[test]
fn doctor_leaves_the_store_as_it_is() {
    let mut world = world();
    world.set("SUPA_SAFE_SUPABASE_BIN", "/gone/supabase");
    let weed = world.weed();
    let [id, secret] = Weed::reader_pair();
    world.set("SUPA_SAFE_STORE_ACCESS_KEY_ID", id);
    world.set("SUPA_SAFE_STORE_SECRET_ACCESS_KEY", secret);
    let store = |world: &World| {
        let report = world.run(["doctor", "--json"]).document();
        let mut checks = report["checks"].as_array().unwrap().iter();
        checks.find(|check| check["name"] == "shared store").unwrap()["grade"].clone()
    };
    assert_eq!(store(&world), "ok");
    assert_eq!(weed.keys(), [""; 0]);
    world.set("SUPA_SAFE_STORE_SECRET_ACCESS_KEY", "another");
    assert_eq!(store(&world), "fail");
}

#[test]
fn a_ci_job_needs_a_store_that_stays() {
    let mut world = world();
    world.set("CI", "true");
    let before = world.state();
    let refused = world.migrate(&["--json"]).exits(3).summary();
    let fact = "CI is set, and the evidence of this push would go with the disk of the CI job".to_owned();
    assert_eq!(facts(&refused), [("SS016".to_owned(), fact)]);
    assert_eq!((world.state(), world.snapshots().len()), (before, 0));
    drop(world.run(["rehearse"]).exits(0));
    assert_eq!(facts(&world.run(["check", "--json"]).exits(3).summary())[0].0, "SS016");
    let _weed = world.weed();
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn a_policy_may_name_a_ci_machine_that_stays() {
    let mut world = world();
    world.set("CI", "true");
    world.write(
        "supabase/supa-safe.toml",
        &format!("[targets.\"{}\"]\nallow_local_store = true\n", world.target()),
    );
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn the_projects_own_storage_is_no_store() {
    let mut world = world();
    let weed = world.weed();
    world.set("SUPA_SAFE_STORAGE_URL", Weed::endpoint() + "/");
    assert_eq!(world.run(["list"]).code, 2);
    assert_eq!(world.migrate(&[]).code, 2);
    assert_eq!(weed.keys(), [""; 0]);
}
