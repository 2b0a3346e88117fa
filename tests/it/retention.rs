//! `prune`, `pin`, and `unpin`: what goes, what stays, and that nothing needed ever goes.

use crate::world::{Bucket, Cli, Major, Platform, REF_17, Weed, World, list, read_json};
use fs_err as fs;
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use supa_safe::demo::cloud::{Backup, Project};
use supa_safe::disk;
use supa_safe::manifest::storage::{Line, State};
use supa_safe::postgres::storage::Row;
use supa_safe::store::Store;

const DAY: Duration = Duration::from_hours(24);

/// A world with one real snapshot, from which older ones are made.
fn with_snapshot() -> World {
    let world = World::hosted(&[]);
    drop(world.run(["snapshot"]).exits(0));
    world
}

/// A copy of the newest snapshot as it would have been taken that long ago, naming these objects.
fn aged(world: &World, days: u16, objects: &[String]) -> String {
    let newest = world.snapshots().swap_remove(0);
    let now: jiff::Timestamp =
        read_json(&newest.join("manifest.json"))["taken"]["local_clock"].as_str().unwrap().parse().unwrap();
    let taken = now - jiff::SignedDuration::from_hours(24) * i32::from(days);
    let id = supa_safe::manifest::SnapshotId::new(taken, days).as_str().to_owned();
    let dir = newest.with_file_name(&id);
    for file in disk::files_below(&newest).unwrap() {
        fs::create_dir_all(dir.join(&file).parent().unwrap()).unwrap();
        fs::copy(newest.join(&file), dir.join(&file)).unwrap();
    }
    let mut manifest = read_json(&dir.join("manifest.json"));
    manifest["id"] = json!(id);
    manifest["taken"]["local_clock"] = json!(taken);
    if !objects.is_empty() {
        let index = index(objects);
        fs::create_dir_all(dir.join("storage")).unwrap();
        disk::write(&dir.join("storage/index.jsonl"), index.as_bytes()).unwrap();
        let digest = json!({"path": "storage/index.jsonl", "sha256": disk::sha256(index.as_bytes()), "bytes": index.len()});
        manifest["files"].as_array_mut().unwrap().push(digest);
    }
    disk::write_json(&dir.join("manifest.json"), &manifest).unwrap();
    id
}

/// An index of Storage with these objects.
fn index(objects: &[String]) -> String {
    let object = |sha256: &String| {
        let row = json!({
            "bucket_id": "b", "name": "k", "id": "00000000-0000-0000-0000-000000000000",
            "metadata": {"size": 8}, "version": "v",
        });
        let row: Row = serde_json::from_value(row).unwrap();
        let mut object = row.record(State::Ok, Some(8));
        object.sha256 = Some(sha256.clone());
        serde_json::to_string(&Line::Object(Box::new(object))).unwrap()
    };
    let bucket = r#"{"bucket":{"id":"b"}}"#.to_owned();
    let lines: Vec<String> = [bucket].into_iter().chain(objects.iter().map(object)).collect();
    lines.join("\n") + "\n"
}

/// An object file of that age; returns its digest.
fn object(world: &World, number: u32, age: Duration) -> String {
    let bytes = format!("object {number}");
    let sha256 = disk::sha256(bytes.as_bytes());
    let path = object_path(world, &sha256);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    disk::write(&path, bytes.as_bytes()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.file().set_modified(SystemTime::now() - age).unwrap();
    sha256
}

fn object_path(world: &World, sha256: &str) -> PathBuf {
    world.store().join("objects").join(&sha256[..2]).join(sha256)
}

fn ids(world: &World) -> Vec<String> {
    let name = |dir: &PathBuf| dir.file_name().unwrap().to_str().unwrap().to_owned();
    list(&world.store().join("snapshots")).iter().map(name).collect()
}

#[test]
fn every_keep_has_its_reason_and_the_rest_goes() {
    let world = with_snapshot();
    let (newest, young) = (ids(&world).swap_remove(0), aged(&world, 13, &[]));
    let (old, pinned) = (aged(&world, 20, &[]), aged(&world, 30, &[]));
    drop(world.run(["pin", &pinned]).exits(0));
    drop(world.run(["pin", &pinned]).exits(0));

    let before = disk::files_below(&world.store()).unwrap();
    let ran = world.run(["prune", "--dry-run"]).exits(0);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
  keep    [SNAPSHOT]  the newest one; younger than 14 d
  keep    [SNAPSHOT]  younger than 14 d
  remove  [SNAPSHOT]  20 d old, [BYTES]
  keep    [SNAPSHOT]  pinned

"#]]
    );
    assert_eq!(ran.data(), "1 of 4 snapshots of [TARGET] would go; 3 stay\n");
    assert_eq!(disk::files_below(&world.store()).unwrap(), before, "a dry run removes and writes nothing");

    let ran = world.run(["prune", "--json"]).exits(0);
    assert_eq!(ran.summary()["exit"], 0);
    let gone = ran.events_of("snapshot-removed");
    assert_eq!((gone.len(), &gone[0]["snapshot"], &gone[0]["gone"]), (1, &json!(old), &json!(true)));
    assert_eq!(ids(&world), [pinned.clone(), young.clone(), newest.clone()]);

    drop(world.run(["unpin", &pinned]).exits(0));
    world.write("supabase/supa-safe.toml", "keep = \"10d\"\n");
    drop(world.run(["prune"]).exits(0));
    assert_eq!(ids(&world), [newest]);

    let gone = world.run(["pin", &young]).exits(1);
    assert_eq!(gone.lines("error: "), ["error: there is no snapshot `[SNAPSHOT]` of this target"]);
}

#[test]
fn what_a_push_and_a_rehearsal_lean_on_stays() {
    let world = World::hosted(&[("20260101000000_a", "create table a (id int);")]);
    drop(world.migrate(&[]).exits(0));
    let used = world.snapshots().swap_remove(0);
    let mut manifest = read_json(&used.join("manifest.json"));
    manifest["taken"]["local_clock"] = json!("2026-01-01T00:00:00Z");
    disk::write_json(&used.join("manifest.json"), &manifest).unwrap();
    drop(world.run(["snapshot"]).exits(0));
    let ran = world.run(["prune", "--json"]).exits(0);
    let kept = ran.events_of("snapshot-kept");
    let reasons: Vec<&Value> = kept.iter().map(|event| &event["reasons"]).collect();
    assert_eq!(
        reasons,
        [
            &json!(["the newest one", "younger than 14 d"]),
            &json!(["a rehearsal that still counts restored it", "the last push leaned on it"]),
        ]
    );
}

/// What a push leaned on stays until the platform has a backup from after it, as far as one can ask.
#[test]
fn a_push_waits_for_a_backup_of_the_platform() {
    let mut world = World::hosted(&[("20260101000000_a", "create table a (id int);")]);
    world.write("supabase/supa-safe.toml", "allow_unrehearsed = true\n");
    drop(world.migrate(&["--rehearse", "off"]).exits(0));
    world.migration("20260101000001_b", "create table b (id int);");
    drop(world.migrate(&["--rehearse", "off"]).exits(0));
    for snapshot in world.snapshots() {
        let mut manifest = read_json(&snapshot.join("manifest.json"));
        manifest["taken"]["local_clock"] = json!("2026-01-01T00:00:00Z");
        disk::write_json(&snapshot.join("manifest.json"), &manifest).unwrap();
    }
    drop(world.run(["snapshot"]).exits(0));
    let first = ids(&world).swap_remove(0);
    let platform = Platform::start(&mut world, vec![Project::new(REF_17, "Acme shop")]);
    let backup = |at: &str| Backup {
        id: 1,
        is_physical_backup: true,
        status: "COMPLETED".to_owned(),
        inserted_at: at.to_owned(),
    };
    // What is said of backups, what goes, and why the first one stays.
    let pruned = |world: &World, dry: &[&str]| {
        let ran = world.run([&["prune", "--project-ref", REF_17, "--json"], dry].concat()).exits(0);
        let text = |event: &Value, name: &str| event[name].as_str().unwrap().to_owned();
        let notes: Vec<String> = ran.events_of("note").iter().map(|note| text(note, "text")).collect();
        let gone: Vec<String> =
            ran.events_of("snapshot-removed").iter().map(|event| text(event, "snapshot")).collect();
        let kept =
            ran.events_of("snapshot-kept").into_iter().find(|event| event["snapshot"] == first.as_str());
        (notes.join("\n").replace(REF_17, "[REF]"), gone, kept.map(|event| event["reasons"].clone()))
    };
    let waits = Some(json!(["no native backup from after its push is known"]));
    let dry = ["--dry-run"];
    let (said, gone, _) = pruned(&world, &dry);
    assert_eq!(
        said,
        "[REF] has no native backup: their age alone decides about snapshots that a push leaned on"
    );
    assert_eq!(gone, std::slice::from_ref(&first));

    platform.stub.change(REF_17, |project| project.backups.list.push(backup("2026-01-02T03:00:00.000Z")));
    let (said, gone, kept) = pruned(&world, &dry);
    assert_eq!(said, "the newest native backup of [REF] is of 2026-01-02T03:00:00Z");
    assert_eq!((gone, kept), (Vec::new(), waits.clone()));

    // Offline, what a snapshot recorded counts.
    let token = world.variable("SUPABASE_ACCESS_TOKEN");
    world.unset("SUPABASE_ACCESS_TOKEN");
    let asked = "[REF] was not asked for its native backups (supabase is not signed in: Access token not provided. \
                 Supply an access token by running `supabase login` or setting the SUPABASE_ACCESS_TOKEN environment \
                 variable)";
    let (said, gone, _) = pruned(&world, &dry);
    assert_eq!(
        said,
        format!(
            "{asked}; no snapshot knows of one: their age alone decides about snapshots that a push leaned on"
        )
    );
    assert_eq!(gone, std::slice::from_ref(&first));
    let recorded = world.snapshots()[0].join("config/backups.json");
    fs::create_dir_all(recorded.parent().unwrap()).unwrap();
    disk::write_json(&recorded, &json!({"backups": [backup("2026-01-02T03:00:00.000Z")]})).unwrap();
    let (said, gone, kept) = pruned(&world, &dry);
    assert_eq!(said, format!("{asked}; the newest one that a snapshot knows of is of 2026-01-02T03:00:00Z"));
    assert_eq!((gone, kept), (Vec::new(), waits));

    // One from after both pushes is enough.
    world.set("SUPABASE_ACCESS_TOKEN", token);
    platform.stub.change(REF_17, |project| project.backups.list.push(backup("2099-01-02T03:00:00.000Z")));
    let (said, gone, _) = pruned(&world, &[]);
    assert_eq!(said, "the newest native backup of [REF] is of 2099-01-02T03:00:00Z");
    assert_eq!(gone, std::slice::from_ref(&first));
    assert!(!ids(&world).contains(&first));
    platform.knew_every_call();
}

#[test]
fn objects_go_when_no_index_names_them() {
    let world = with_snapshot();
    let [shared, only_old, stray, fresh] = [(1, DAY * 40), (2, DAY * 40), (3, DAY * 2), (4, DAY / 2)]
        .map(|(number, age)| object(&world, number, age));
    let young = aged(&world, 3, std::slice::from_ref(&shared));
    let old = aged(&world, 30, &[shared.clone(), only_old.clone()]);
    // What is no object is nobody's business.
    let note = world.store().join("objects/ab/README");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    disk::write(&note, b"x").unwrap();

    // What was set aside as damaged is no object any more, and goes when it is old.
    let damaged = object_path(&world, &object(&world, 7, DAY * 2));
    fs::rename(&damaged, damaged.with_extension("damaged")).unwrap();
    // A file of somebody's is no record of a run.
    disk::write(&world.store().join("runs/notes.txt"), b"\xff").unwrap();

    drop(world.run(["prune", "--dry-run"]).exits(0));
    let there = |sha256: &str| object_path(&world, sha256).exists();
    assert!([&shared, &only_old, &stray, &fresh].into_iter().all(|sha256| there(sha256)));
    let ran = world.run(["prune", "--json"]).exits(0);
    let objects = ran.events_of("objects-removed");
    assert_eq!((objects.len(), &objects[0]["count"]), (1, &json!(3)));
    assert!(!damaged.with_extension("damaged").exists());
    assert!(!ids(&world).contains(&old));
    assert_eq!([&shared, &only_old, &stray, &fresh].map(|sha256| there(sha256)), [true, false, false, true]);
    assert!(note.exists());

    // A draft names what it has so far.
    let draft = world.store().join("snapshots/20261122T000000Z-aaaaaa.partial/storage");
    fs::create_dir_all(&draft).unwrap();
    let drafted = object(&world, 5, DAY * 3);
    disk::write(&draft.join("index.jsonl"), index(std::slice::from_ref(&drafted)).as_bytes()).unwrap();
    drop(world.run(["prune"]).exits(0));
    assert!(there(&drafted));

    // What a rollback saved is nowhere else.
    let salvage = world.store().join("rollbacks/20261122T000000Z-aaaaaa/salvage");
    fs::create_dir_all(&salvage).unwrap();
    let saved = object(&world, 7, DAY * 3);
    disk::write(&salvage.join("index.jsonl"), index(std::slice::from_ref(&saved)).as_bytes()).unwrap();
    drop(world.run(["prune"]).exits(0));
    assert!(there(&saved));

    // An index that was cut short, or that cannot be read, names nobody knows what.
    let path = world.store().join("snapshots").join(&young).join("storage/index.jsonl");
    for text in ["", "{\"object\":"] {
        let stray = object(&world, 6, DAY * 2);
        disk::write(&path, text.as_bytes()).unwrap();
        let ran = world.run(["prune", "--json"]).exits(0);
        assert_eq!(ran.events_of("warning").len(), 1, "{ran}");
        assert!(there(&stray) && there(&shared), "{text}");
    }
}

#[test]
fn beside_a_run_nothing_is_removed() {
    let world = with_snapshot();
    let old = aged(&world, 30, &[]);
    let held = disk::Lock::take(&world.store().join("locks/run")).unwrap().unwrap();
    drop(world.run(["prune"]).exits(11));
    // A person may pin what a long run is about.
    drop(world.run(["pin", &old]).exits(0));
    drop(held);
    let held = disk::Lock::take(&world.store().join("locks/retention")).unwrap().unwrap();
    drop(world.run(["unpin", &old]).exits(11));
    drop(world.run(["prune"]).exits(11));
    drop(held);
    drop(world.run(["prune"]).exits(0));
    assert!(ids(&world).contains(&old));
}

/// Every snapshot that looks whole has every byte that its manifest tells of, and every object.
fn assert_whole(world: &World) {
    for id in ids(world).iter().filter(|id| id.parse::<supa_safe::manifest::SnapshotId>().is_ok()) {
        let dir = world.store().join("snapshots").join(id);
        let manifest = read_json(&dir.join("manifest.json"));
        for file in manifest["files"].as_array().unwrap() {
            let path = dir.join(file["path"].as_str().unwrap());
            assert_eq!(
                fs::metadata(&path).unwrap().len(),
                file["bytes"].as_u64().unwrap(),
                "{}",
                path.display()
            );
        }
        let index = fs::read_to_string(dir.join("storage/index.jsonl")).unwrap_or_default();
        for sha256 in named(&index) {
            assert!(object_path(world, &sha256).exists(), "{id} lost {sha256}");
        }
    }
}

fn named(index: &str) -> BTreeSet<String> {
    let line = |line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["object"]["sha256"].as_str().map(str::to_owned)
    };
    index.lines().filter_map(line).collect()
}

/// Files in the folder of the snapshot in whose removal the kill falls: enough to be seen going.
const MANY: usize = 15_000;

/// Fills a snapshot with files; returns where they are before and while it is removed.
fn fill(world: &World, id: &str) -> [PathBuf; 2] {
    let snapshots = world.store().join("snapshots");
    let many = snapshots.join(id).join("logs/many");
    fs::create_dir_all(&many).unwrap();
    for number in 0..MANY {
        drop(fs::File::create(many.join(number.to_string())).unwrap());
    }
    [many, snapshots.join(format!("{id}.removing/logs/many"))]
}

/// Killed in the middle of a removal, of another snapshot each time, and finished by the next run.
#[test]
fn a_killed_prune_never_takes_what_is_needed() {
    let world = with_snapshot();
    for seed in [1_usize, 4, 6] {
        let objects: Vec<String> = (0..40).map(|number| object(&world, number, DAY * 40)).collect();
        let own = |days: u16| {
            let first = usize::from(days);
            [&objects[..10], &objects[first..first + 5]].concat()
        };
        let young: Vec<String> = (1..=3).map(|days| aged(&world, days, &own(days))).collect();
        let old: Vec<String> = (20..=27).map(|days| aged(&world, days, &own(days))).collect();
        let folders = fill(&world, &old[seed]);
        let full = || folders.iter().any(|dir| fs::read_dir(dir).map_or(0, Iterator::count) == MANY);
        let mut prune = world.command().args(["prune", "--quiet"]).spawn().unwrap();
        while full() && prune.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        prune.kill().unwrap();
        let ended = prune.wait().unwrap();
        assert!(!ended.success() && folders.iter().any(|dir| dir.exists()), "it was killed in the middle");
        assert_whole(&world);
        let left = old.iter().filter(|id| ids(&world).contains(id)).count();
        assert_eq!(left, old.len() - seed - 1, "newest first, up to the one that was going");

        drop(world.run(["prune"]).exits(0));
        assert_whole(&world);
        assert_eq!(ids(&world).len(), 1 + young.len(), "{:?}", ids(&world));
        let left = objects.iter().filter(|sha256| object_path(&world, sha256).exists()).count();
        // The first ten, which all share; those of the young ones are among them.
        assert_eq!(left, 10);
        for id in young {
            fs::remove_dir_all(world.store().join("snapshots").join(id)).unwrap();
        }
    }
}

/// A folder that is half gone is no snapshot, and any run finishes it.
#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_next_run() {
    let world = with_snapshot();
    let old = aged(&world, 30, &[]);
    let dir = world.store().join("snapshots").join(&old);
    fs::rename(&dir, dir.with_file_name(format!("{old}.removing"))).unwrap();
    let list = world.run(["list", "--json"]).exits(0).document();
    assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
    drop(world.run(["snapshot"]).exits(0));
    assert!(ids(&world).iter().all(|id| Path::new(id).extension().is_none()), "{:?}", ids(&world));
}

/// Rows that nobody knows of do not lie about: any run removes them, and says so. What has its name stays.
#[test]
fn what_a_dead_rollback_was_writing_goes() {
    let world = with_snapshot();
    let folder = world.store().join("rollbacks/20261101T000000000000Z-7");
    let whole = [folder.join("0001.csv"), folder.join("salvage/plan.jsonl")];
    fs::create_dir_all(folder.join("salvage")).unwrap();
    for file in &whole {
        disk::write(file, b"1,new,x\n").unwrap();
    }
    for command in ["prune", "snapshot"] {
        for cut in [".tmpAbCdEf", "salvage/.tmp123456"] {
            fs::write(folder.join(cut), "2,new,x\n").unwrap();
        }
        let leftovers = world.run(["doctor", "--json"]).document();
        let check = leftovers["checks"].as_array().unwrap().iter().find(|check| check["name"] == "leftovers");
        let left = "rollbacks/20261101T000000000000Z-7/.tmpAbCdEf, \
            rollbacks/20261101T000000000000Z-7/salvage/.tmp123456";
        assert_eq!(check.unwrap()["found"], left);
        if command == "prune" {
            let kept = world.run(["prune", "--dry-run"]).exits(0);
            assert_eq!(kept.lines("removed"), [""; 0]);
        }
        let ran = world.run([command]).exits(0);
        let removed = |cut: &str| {
            format!(
                "removed `rollbacks/20261101T000000000000Z-7/{cut}`: an earlier run died while it wrote this \
                 file of its rollback"
            )
        };
        assert_eq!(ran.lines("removed"), [removed(".tmpAbCdEf"), removed("salvage/.tmp123456")]);
        assert_eq!(list(&folder), [folder.join("0001.csv"), folder.join("salvage")]);
    }
    assert!(whole.iter().all(|file| file.exists()));
}

/// Makes a snapshot as old as that, its proofs with it.
fn grow_old(dir: &Path, days: i32) {
    let path = dir.join("manifest.json");
    let mut manifest = read_json(&path);
    let taken: jiff::Timestamp = manifest["taken"]["local_clock"].as_str().unwrap().parse().unwrap();
    manifest["taken"]["local_clock"] = json!(taken - jiff::SignedDuration::from_hours(24) * days);
    disk::write_json(&path, &manifest).unwrap();
    let sha256 = disk::sha256_file(&path).unwrap().0;
    for proof in list(&dir.join("proofs")) {
        let mut text = read_json(&proof);
        text["manifest_sha256"] = json!(sha256);
        disk::write_json(&proof, &text).unwrap();
    }
}

/// A world with objects of Storage, and a whole snapshot of it that is a month old.
fn with_old_whole() -> (World, Bucket, String) {
    let mut world = World::hosted(&[]);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "a", b"one");
    bucket.put("photos", "b", b"two");
    drop(world.run(["snapshot"]).exits(0));
    grow_old(&world.snapshots()[0], 30);
    for file in disk::files_below(&world.store().join("objects")).unwrap() {
        let file = fs::OpenOptions::new().write(true).open(world.store().join("objects").join(file)).unwrap();
        file.file().set_modified(SystemTime::now() - DAY * 30).unwrap();
    }
    let id = ids(&world).swap_remove(0);
    (world, bucket, id)
}

/// Prunes, and demands that the whole snapshot and every byte of Storage are still there.
#[track_caller]
fn keeps_the_whole_one(world: &World, id: &str) {
    drop(world.run(["prune"]).exits(0));
    assert!(ids(world).iter().any(|kept| kept == id), "{:?}", ids(world));
    drop(world.run(["verify", id]).exits(0));
}

#[test]
fn a_newer_snapshot_without_storage_does_not_replace_a_whole_one() {
    let (mut world, bucket, whole) = with_old_whole();
    world.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", "wrong");
    drop(world.run(["snapshot"]).exits(3));
    keeps_the_whole_one(&world, &whole);
    drop(world.run(["snapshot", "--only", "database"]).exits(0));
    for dir in world.snapshots().iter().take(2) {
        grow_old(dir, 20);
    }
    keeps_the_whole_one(&world, &whole);
    assert_eq!(ids(&world).len(), 2, "the newest, and the newest whole one");

    world.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", bucket.double.keys().secret_access_key.expose());
    drop(world.run(["snapshot"]).exits(0));
    drop(world.run(["prune"]).exits(0));
    assert_eq!(ids(&world).len(), 1, "a new whole one takes their place");
    assert_whole(&world);
}

#[test]
fn a_damaged_snapshot_does_not_replace_an_older_one() {
    let (world, _bucket, whole) = with_old_whole();
    drop(world.run(["snapshot"]).exits(0));
    let newer = world.snapshots().swap_remove(0);
    let contents = newer.join("database/archive/toc.dat");
    let bytes = fs::read(&contents).unwrap();
    fs::remove_file(&contents).unwrap();
    keeps_the_whole_one(&world, &whole);

    // Nothing shows from outside, and a verification found it.
    let mut spoiled = bytes.clone();
    *spoiled.last_mut().unwrap() ^= 1;
    disk::write(&contents, &spoiled).unwrap();
    let newest = newer.file_name().unwrap().to_str().unwrap();
    drop(world.run(["verify", newest]).exits(3));
    keeps_the_whole_one(&world, &whole);

    disk::write(&contents, &bytes).unwrap();
    drop(world.run(["verify", newest]).exits(0));
    drop(world.run(["prune"]).exits(0));
    assert_eq!(ids(&world), [newest]);
}

#[test]
fn what_goes_here_goes_from_the_bucket_and_from_other_machines() {
    let mut world = with_snapshot();
    let [needed, free] = [1, 2].map(|number| object(&world, number, Duration::ZERO));
    let old = aged(&world, 20, &[needed.clone(), free.clone()]);
    let newer = aged(&world, 3, std::slice::from_ref(&needed));
    let weed = world.weed();
    drop(world.run(["snapshot"]).exits(0));
    let mut other = World::new(Major::Pg17, Cli::V3);
    other.same_target(&world);
    let listed = |world: &World| {
        world.run(["list", "--json"]).exits(0).document()["snapshots"].as_array().unwrap().len()
    };
    assert_eq!((listed(&world), listed(&other)), (4, 4));
    drop(world.run(["pin", &newer]).exits(0));
    drop(world.run(["prune"]).exits(0));
    assert_eq!((listed(&world), listed(&other)), (3, 3));
    let of_old = |key: &String| key.contains(&old);
    let left: Vec<String> = weed.keys().into_iter().filter(of_old).collect();
    assert_eq!(left, [weed.key(&format!("/removed/{old}.json"))]);
    // Another machine removes its copy, and knows the pin.
    drop(other.run(["prune"]).exits(0));
    assert!(!other.store().join("snapshots").join(&old).exists());
    assert!(other.store().join("pins").join(format!("{newer}.json")).exists());
    drop(other.run(["unpin", &newer]).exits(0));
    drop(world.run(["list"]).exits(0));
    assert!(!world.store().join("pins").join(format!("{newer}.json")).exists());
    // In two days one object of the bucket is free to go.
    let folder = world.store().file_name().unwrap().to_str().unwrap().to_owned();
    let unnamed = weed.runtime.block_on(async {
        let store = Store::open(&world.path("elsewhere"), &folder).unwrap();
        let store = store.join(&weed.location(Weed::owner())).await.unwrap();
        store.pull().await.unwrap();
        store.fetch_indexes().await.unwrap();
        let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
        let unnamed = store.unnamed_there(later, &BTreeSet::new()).await.unwrap();
        store.remove_objects_there(&unnamed).await.unwrap();
        unnamed
    });
    assert_eq!(unnamed.len(), 1);
    let objects = weed.keys().into_iter().filter(|key| key.contains("/objects/")).collect::<Vec<_>>();
    assert_eq!(objects, [weed.key(&needed)]);
}
