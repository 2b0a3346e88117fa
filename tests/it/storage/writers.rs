//! Objects that are overwritten while they are captured.
//!
//! Here with few objects; `tests/soak/storage` runs the full figures.

use super::{component, figure, files, index, tell, world};
use crate::world::{Bucket, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use supa_safe::demo::storage::{Kind, Operation};

/// Overwrites a second.
const RATE: u64 = 7;

/// Overwrites one of the first `hot` objects seven times a second while the work runs; pauses for two
/// seconds after each `busy` of them. Returns the number of overwrites as well.
fn while_writing<T>(bucket: &Bucket, hot: u64, busy: u64, work: impl FnOnce() -> T) -> (T, u64) {
    let (over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (over, written) = (&over, &written);
        scope.spawn(move || {
            let started = Instant::now();
            let mut paused = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let count = written.load(Ordering::Relaxed);
                let due = Duration::from_millis(count * 1000 / RATE) + paused;
                if started.elapsed() < due {
                    std::thread::yield_now();
                    std::thread::park_timeout(Duration::from_millis(5));
                    continue;
                }
                let key = format!("{:05}", count * 7919 % hot);
                bucket.put("photos", &key, format!("{key} as it was written the {count}th time").as_bytes());
                written.fetch_add(1, Ordering::Relaxed);
                if (count + 1) % busy == 0 {
                    paused += Duration::from_secs(2);
                }
            }
        });
        let ends = Ends(over);
        let done = work();
        drop(ends);
        let written = written.load(Ordering::Relaxed);
        assert!(written > 3);
        (done, written)
    })
}

/// Ends the writer, also when the work panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn filled(objects: u64) -> (World, Bucket) {
    let (world, bucket) = world(&["photos"]);
    for n in 0..objects {
        bucket.put("photos", &format!("{n:05}"), format!("object {n}").as_bytes());
    }
    (world, bucket)
}

/// Objects that the store cannot give back as their rows want them, and those that the index says so of.
fn lost_and_listed(world: &World) -> (BTreeSet<String>, BTreeSet<String>) {
    let index = index(world);
    let kept: BTreeSet<String> = files(world).iter().map(|file| md5(&fs_err::read(file).unwrap())).collect();
    let key = |object: &Value| object["key"].as_str().unwrap().to_owned();
    let wanted = |object: &Value| object["metadata"]["eTag"].as_str().unwrap().trim_matches('"').to_owned();
    let lost = index.values().filter(|object| !kept.contains(&wanted(object))).map(key).collect();
    let listed = index.values().filter(|object| object["state"] == "drifted").map(key).collect();
    (lost, listed)
}

fn md5(bytes: &[u8]) -> String {
    supa_safe::demo::storage::put_etag(bytes).trim_matches('"').to_owned()
}

#[test]
fn many_objects_under_a_writer_lose_none() {
    let many = figure("SUPA_SAFE_TEST_OBJECTS", 200);
    let (world, bucket) = filled(many);
    let (_, written) = while_writing(&bucket, many, u64::MAX, || world.run(["snapshot"]).exits(0));
    assert_eq!(lost_and_listed(&world), Default::default());
    assert_eq!(index(&world).len() as u64, many);
    tell(&format!("{many} objects, {written} overwrites at {RATE} a second: 0 lost, 0 listed as drifted"));
    drop(world.run(["verify"]).exits(0));
}

/// Every request is slow and all writes go to two objects: what is gone is what is listed.
#[test]
fn what_is_lost_is_what_is_listed_as_drifted() {
    let many = figure("SUPA_SAFE_TEST_OBJECTS", 20);
    let (world, bucket) = filled(many);
    if many > 20 {
        // The first copy of many would only be slow.
        drop(world.run(["snapshot"]).exits(0));
    }
    bucket.spoil(Operation::Get, Kind::Slow(Duration::from_millis(300)), u32::MAX);
    let (ran, written) = while_writing(&bucket, 2, u64::MAX, || world.run(["snapshot", "--json"]).exits(3));
    let (lost, listed) = lost_and_listed(&world);
    assert!(!lost.is_empty(), "{ran}");
    assert_eq!(lost, listed);
    let (lost, listed) = (lost.len(), listed.len());
    tell(&format!(
        "{many} objects, 300 ms a request, {written} overwrites of two of them: {lost} lost, the same {listed} listed \
         as drifted"
    ));
    let (_, listed) = lost_and_listed(&world);
    let missing = component(&world)["missing"][0].as_str().unwrap().to_owned();
    let names: Vec<String> = listed.iter().map(|key| format!("`photos/{key}`")).collect();
    let counted = if names.len() == 1 { "1 object".to_owned() } else { format!("{} objects", names.len()) };
    assert_eq!(
        missing,
        format!("{counted} of Storage that changed while they were copied: {}", names.join(", "))
    );
    drop(world.run(["verify"]).exits(0));

    world.write("supabase/supa-safe.toml", "allow_drift = 2\n");
    drop(while_writing(&bucket, 2, u64::MAX, || world.run(["snapshot"]).exits(0)));
    let (lost, listed) = lost_and_listed(&world);
    assert_eq!(lost, listed);
    assert_eq!(component(&world)["missing"], json!([]));
}

#[test]
fn a_writer_that_pauses_two_seconds_leaves_none_drifted() {
    let many = figure("SUPA_SAFE_TEST_OBJECTS", 20);
    let (world, bucket) = filled(many);
    if many > 20 {
        drop(world.run(["snapshot"]).exits(0));
    }
    bucket.spoil(Operation::Get, Kind::Slow(Duration::from_millis(300)), u32::MAX);
    let (_, written) = while_writing(&bucket, 3, 14, || world.run(["snapshot"]).exits(0));
    assert_eq!(lost_and_listed(&world), Default::default());
    tell(&format!(
        "{many} objects, 300 ms a request, {written} overwrites of three of them with pauses of two seconds: 0 lost, \
         0 listed as drifted"
    ));
    drop(world.run(["verify"]).exits(0));
}
