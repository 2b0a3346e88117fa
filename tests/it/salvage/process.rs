//! The same through the process: `supa-safe rollback` after every damage, alone and all at once, and after
//! pushes of the real CLI that did by SQL what SQL can do.

use super::{
    DAMAGES, GONE, Half, OTHER_BUCKET, OTHER_COLUMNS, OTHER_LIMITS, OTHER_VERSION, RENAMED, Rig, all_damages,
};
use crate::world::Major;
use serde_json::{Value, json};

const WHOLE: [&str; 2] = ["--mode", "whole"];
const STORAGE_ALONE: [&str; 2] = ["--only", "storage"];

/// What a migration does to Storage, each alone.
const BY_SQL: [(&str, &str); 7] = [
    ("renamed", RENAMED),
    ("deleted", GONE),
    ("other columns", OTHER_COLUMNS),
    ("another bucket", OTHER_BUCKET),
    ("another version", OTHER_VERSION),
    ("a bucket that takes nothing more", OTHER_LIMITS),
    (
        "rows added",
        "insert into storage.buckets (id, name) values ('new', 'new');
         insert into storage.objects (bucket_id, name, version) values ('photos', 'phantom', 'v'), ('new', 'too', null)",
    ),
];

/// A rig whose runs have the keys of this half.
fn reached(major: Major, half: Half) -> Rig {
    let mut rig = Rig::new(major, half);
    if half == Half::Rest {
        let key = rig.bucket.double.keys().service_role.expose().to_owned();
        rig.world.set("SUPA_SAFE_SERVICE_ROLE_KEY", key);
    }
    rig
}

/// Takes the world back; returns what was done to Storage, of which nothing is left to do.
fn rolled_back(rig: &Rig, args: &[&str], what: &str) -> Value {
    let target = rig.world.target();
    let ran = rig.world.run([&["rollback", "--confirm", &target, "--json"], args].concat());
    let storage = ran.exits(0).summary()["rolled_back"]["storage"].clone();
    assert_eq!((&storage["left"], &storage["stays"]), (&json!([]), &json!({})), "{what}");
    storage
}

/// Each damage of one world after the other, then all at once; what was added stays until it is asked to go.
fn each_and_all(major: Major, half: Half, how: [&str; 2]) {
    let rig = reached(major, half);
    let snapshot = rig.world.snapshot().id().to_string();
    let back =
        |more: &[&str], what: &str| rolled_back(&rig, &[&[snapshot.as_str()], &how[..], more].concat(), what);
    for (what, damage, _) in DAMAGES {
        damage(&rig);
        assert_ne!(rig.state(), rig.before, "{what}");
        back(&[], what);
        rig.stands_as_before(what);
    }

    all_damages(&rig);
    let damaged = rig.state();
    let storage = back(&[], "all at once");
    let names = ["object `new/added too`", "object `photos/added`", "bucket `new`"];
    assert_eq!((&storage["added"], &storage["added_names"]), (&json!(2), &json!(names)));
    rig.stands_as_before("all at once");
    let now = rig.state();
    let added: Vec<&String> = damaged.keys().filter(|id| !rig.before.contains_key(*id)).collect();
    assert_eq!((added.len(), now.len()), (3, rig.before.len() + 3));
    assert!(added.iter().all(|id| now[*id] == damaged[*id]), "{now:?}");

    let removed = back(&["--remove-added"], "what was added")["removed"].clone();
    assert_eq!(removed, json!(names));
    rig.stands_as_before("what was added");
    assert_eq!(rig.state(), rig.before);
}

#[test]
fn each_damage_and_all_of_them_with_the_database_on_15() {
    each_and_all(Major::Pg15, Half::S3Alone, WHOLE);
}

#[test]
fn each_damage_and_all_of_them_with_the_database_on_17() {
    each_and_all(Major::Pg17, Half::Rest, WHOLE);
}

#[test]
fn each_damage_and_all_of_them_without_the_database_on_15() {
    each_and_all(Major::Pg15, Half::Rest, STORAGE_ALONE);
}

#[test]
fn each_damage_and_all_of_them_without_the_database_on_17() {
    each_and_all(Major::Pg17, Half::S3Alone, STORAGE_ALONE);
}

/// What each file of a push did to Storage goes back with what it touched, and so does all of it at once.
fn each_by_a_push(major: Major, half: Half) {
    let rig = reached(major, half);
    // They take the same row.
    let together = BY_SQL.iter().filter(|(_, sql)| ![OTHER_BUCKET, OTHER_VERSION].contains(sql));
    let together = together.map(|(_, sql)| *sql).collect::<Vec<_>>().join(";\n");
    for (number, (what, sql)) in BY_SQL.into_iter().chain([("all at once", together.as_str())]).enumerate() {
        let file = format!("2026010100000{number}_wrong");
        rig.world.migration(&file, &format!("{sql};"));
        drop(rig.world.migrate(&[]).exits(0));
        assert_ne!(rig.state(), rig.before, "{what}");
        rolled_back(&rig, &["--mode", "touched"], what);
        rig.stands_as_before(what);
        assert_eq!(rig.state(), rig.before, "{what}");
        rig.world.remove(&format!("supabase/migrations/{file}.sql"));
    }
}

#[test]
fn each_damage_by_a_push_on_15() {
    each_by_a_push(Major::Pg15, Half::Rest);
}

#[test]
fn each_damage_by_a_push_on_17() {
    each_by_a_push(Major::Pg17, Half::S3Alone);
}
