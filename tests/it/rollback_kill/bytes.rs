//! A snapshot with one byte wrong, in whichever file a rollback reads: refused by the file's name, and the target
//! is not touched. Of objects, those count that it may have to send: nobody reads the bytes of the others.

use super::confirmation;
use super::objects::Damaged;
use crate::world::{Major, read_json};
use fs_err as fs;
use serde_json::Value;
use snapbox::{assert_data_eq, str};
use std::path::Path;

/// Objects whose bytes a rollback sends, or may have to.
const SENT: [&str; 4] = ["deleted", "gone", "moved", "overwritten"];

/// Files that a rollback reads besides the archive's rows.
const READ: [&str; 7] = [
    "database/archive/toc.dat",
    "database/contents.txt",
    "database/fingerprint.tsv",
    "database/roles.sql",
    "database/rows.tsv",
    "database/settings.sql",
    "storage/index.jsonl",
];

/// What is found of a file with one bit turned in the middle of what is looked for; the file is whole again
/// afterwards.
fn with_a_bit_turned<T>(file: &Path, within: &[u8], find: impl FnOnce() -> T) -> T {
    let whole = fs::read(file).unwrap();
    let mut wrong = whole.clone();
    let at = whole.windows(within.len()).position(|window| window == within).unwrap();
    wrong[at + within.len() / 2] ^= 1;
    fs::write(file, &wrong).unwrap();
    let found = find();
    fs::write(file, &whole).unwrap();
    found
}

/// The same anywhere.
fn with_any_bit_turned<T>(file: &Path, find: impl FnOnce() -> T) -> T {
    let whole = fs::read(file).unwrap();
    with_a_bit_turned(file, &whole, find)
}

#[test]
fn one_byte_wrong_in_any_file() {
    let all = Damaged::new(Major::Pg17, "whole");
    let world = &all.world;
    let planned = world.run(["rollback", "--dry-run", "--json"]).exits(0).summary();
    let id = planned["snapshot"].as_str().unwrap();
    let dir = world.store().join("snapshots").join(id);
    let manifest = read_json(&dir.join("manifest.json"));
    let refused = |mode: &str| {
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &confirmation(world), "--json"]);
        let summary = ran.exits(3).summary();
        assert_eq!(summary["target_touched"], false, "{summary}");
        let findings = summary["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["fact"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let damaged = |what: &str| [format!("snapshot {id} does not match its digests: {what}")];

    let files = manifest["files"].as_array().unwrap().iter();
    let files: Vec<&str> =
        files.filter(|file| file["bytes"] != 0).map(|file| file["path"].as_str().unwrap()).collect();
    assert!(READ.iter().all(|file| files.contains(file)), "{files:?}");
    for (number, file) in files.iter().enumerate() {
        let mode = ["touched", "whole"][number % 2];
        let found = with_any_bit_turned(&dir.join(file), || refused(mode));
        assert_eq!(found, damaged(&format!("{file} has another SHA-256")), "{mode}");
    }
    let file = dir.join("manifest.json");
    let found = with_a_bit_turned(&file, b"\"owned_digest\": \"", || refused("whole"));
    assert_data_eq!(
        found.concat(),
        str![
            "snapshot [..] does not match its digests: `[..]/manifest.json` cannot be read (unknown field [..])"
        ]
    );
    let digest = manifest["database"]["owned_digest"].as_str().unwrap();
    let found = with_a_bit_turned(&file, digest.as_bytes(), || refused("whole"));
    assert_data_eq!(
        found.concat(),
        str![
            "snapshot [..] does not match its digests: manifest.json is not the one that proofs/[..]-decoded.json is about; manifest.json is not the one that proofs/[..]-restored.json is about"
        ]
    );

    let index = fs::read_to_string(dir.join("storage/index.jsonl")).unwrap();
    let objects: Vec<Value> = index
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["object"].clone())
        .filter(|object| object["key"].as_str().is_some_and(|key| SENT.contains(&key)))
        .collect();
    assert_eq!(objects.len(), SENT.len());
    for object in &objects {
        let sha256 = object["sha256"].as_str().unwrap();
        let file = world.store().join("objects").join(&sha256[..2]).join(sha256);
        let found = with_any_bit_turned(&file, || refused("whole"));
        let key = object["key"].as_str().unwrap();
        assert_eq!(found, damaged(&format!("the bytes of object `photos/{key}` have another SHA-256")));
    }
    // Every table has a file of its own.
    assert!(files.len() > 50, "{files:?}");
    assert!(!all.is_back("one byte wrong"));
    all.finish("whole again");
}
