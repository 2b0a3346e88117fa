//! Endpoints that fail, and runs that die while they copy.

use super::{component, files, index, lacks, manifest, world};
use crate::scratch::until;
use crate::world::list;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use supa_safe::demo::storage::{Kind, Operation};
use supa_safe::disk;
use supa_safe::proc::{self, Signal};

#[test]
fn a_server_that_is_busy_for_a_while_costs_only_time() {
    let (world, bucket) = world(&["photos"]);
    for n in 0..20 {
        bucket.put("photos", &n.to_string(), &vec![n; 200_000]);
    }
    for status in [544, 429, 500, 503] {
        bucket.spoil(Operation::Get, Kind::Status(status), 2);
    }
    bucket.spoil(Operation::Get, Kind::ShortBody, 1);
    bucket.spoil(Operation::Get, Kind::CutBody, 1);
    bucket.spoil(Operation::List, Kind::Status(544), 2);
    bucket.spoil(Operation::List, Kind::LostPage, 1);
    world.run(["snapshot"]).exits(0);
    assert_eq!(component(&world)["state"], "complete");
    assert_eq!(manifest(&world)["storage"]["ok"], 20);
    drop(world.run(["verify"]).exits(0));
}

#[test]
fn an_object_that_cannot_be_read_is_named() {
    let (world, bucket) = world(&["photos"]);
    bucket.put("photos", "x", b"x");
    bucket.spoil(Operation::Get, Kind::Status(544), 6);
    assert_eq!(
        lacks(&world),
        "objects of Storage: cannot read `photos/x`: the server answered 544 DatabaseTimeout"
    );
    bucket.spoil(Operation::List, Kind::Status(503), 6);
    assert_eq!(
        lacks(&world),
        "objects of Storage: cannot list the bucket `photos`: the server answered 503 ServiceUnavailable"
    );
    world.run(["snapshot"]).exits(0);
    assert_eq!(component(&world)["state"], "complete");
}

/// A run that is killed while it copies leaves no half object; the next one goes on where it died.
#[test]
fn a_copy_that_is_killed_leaves_no_half_object() {
    let (world, bucket) = world(&["photos"]);
    let many = 300_usize;
    for n in 0..many {
        bucket.put("photos", &format!("{n:04}"), &vec![n.to_le_bytes()[0]; 50_000 + n]);
    }
    bucket.spoil(Operation::Get, Kind::Slow(Duration::from_millis(20)), u32::MAX);
    let mut child =
        world.command().args(["snapshot"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("half of it is copied", || bucket.double.served().gets > 150);
    proc::signal(child.id(), Signal::KILL).unwrap();
    child.wait().unwrap();
    for file in files(&world) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(disk::sha256_file(&file).unwrap().0, name);
    }
    let before = bucket.double.served().gets;
    world.run(["snapshot"]).exits(0);
    let again = bucket.double.served().gets - before;
    assert!(again < 250, "{again} of {many} were copied again");
    assert_eq!(index(&world).len(), many);
    assert!(list(&world.store().join("objects/incoming")).is_empty());
    let left: Vec<_> =
        list(&world.store().join("objects")).into_iter().filter(|path| path.is_file()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(component(&world)["missing"], json!([]));
    drop(world.run(["verify"]).exits(0));
}
