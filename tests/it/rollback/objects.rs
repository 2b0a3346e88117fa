//! Storage goes back with the database when the migration wrote to its rows, and what users did stays.

use crate::world::{ADMIN, Bucket, OWNER, World};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use supa_safe::disk;

const MIGRATION: &str = "update storage.objects set name = 'lost/' || name where name in ('a', 'b');
    set local storage.allow_delete_query = 'true';
    delete from storage.objects where name = 'c';
    update storage.objects set owner_id = 'nobody' where name in ('f', 'g');
    insert into storage.buckets (id, name) values ('new', 'new'), ('used', 'used');
    update storage.buckets set public = true where id = 'photos';
    insert into storage.objects (bucket_id, name, version) values ('photos', 'phantom', 'v');
    create table public.wrong (id int);";

/// Keys and bytes of the objects of a bucket, as the server gives them out.
fn served(world: &World, bucket: &Bucket) -> BTreeMap<String, String> {
    let keys = world.sql(OWNER, "select name from storage.objects where bucket_id = 'photos' order by name");
    let text = |key: &str| String::from_utf8(bucket.get("photos", key)).unwrap();
    keys.into_iter().map(|key| (key.clone(), text(&key))).collect()
}

/// A world with eight objects, of which the migration changes the rows of five.
fn pushed() -> (World, Bucket) {
    let mut world = World::hosted(&[("20260101000000_wrong", MIGRATION)]);
    let bucket = world.bucket(&["photos"]);
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        bucket.put("photos", key, format!("bytes of {key}").as_bytes());
    }
    world.sql(
        ADMIN,
        "update storage.objects set owner_id = 'owner of ' || name;
        create table public.files (object uuid primary key references storage.objects on delete cascade);
        alter table public.files owner to postgres;
        insert into public.files select id from storage.objects where name in ('b', 'c', 'e')",
    );
    drop(world.migrate(&[]).exits(0));
    // People overwrite, delete, and upload meanwhile; one writes over what the migration changed.
    bucket.put("photos", "d", b"newer d");
    bucket.put("photos", "f", b"newer f");
    bucket.delete("photos", "e");
    bucket.put("photos", "added", b"added");
    bucket.put("used", "mine", b"mine");
    (world, bucket)
}

fn rolled_back(world: &World, args: &[&str]) -> Value {
    let target = world.target();
    let args = [&["rollback", "--confirm", &target, "--json"], args].concat();
    world.run(args).exits(0).summary()["rolled_back"]["storage"].clone()
}

#[test]
fn rows_that_the_migration_changed_go_back_and_what_users_did_stays() {
    let (world, bucket) = pushed();
    let storage = rolled_back(&world, &[]);
    assert_eq!(
        (&storage["left"], &storage["stays"], &storage["uploaded"]),
        (&json!([]), &json!({ "added": 2, "overwritten": 2, "removed": 1 }), &json!(0)),
        "{storage}"
    );
    let expected = [
        ("a", "bytes of a"),
        ("added", "added"),
        ("b", "bytes of b"),
        ("c", "bytes of c"),
        ("d", "newer d"),
        ("f", "newer f"),
        ("g", "bytes of g"),
        ("h", "bytes of h"),
    ];
    assert_eq!(served(&world, &bucket), expected.map(|(key, text)| (key.to_owned(), text.to_owned())).into());
    let owners =
        "select count(*) from storage.objects where bucket_id = 'photos' and owner_id = 'owner of ' || name";
    assert_eq!(world.sql(OWNER, owners), ["7"]);
    // The bucket that the migration added is in the way of its next push; one with a user's file stays.
    assert_eq!(
        world.sql(
            OWNER,
            "select id, public from storage.buckets where id in ('photos', 'used', 'new') order by id"
        ),
        ["photos|f", "used|f"]
    );
    assert_eq!(bucket.get("used", "mine"), b"mine");
    let rehearsed = world.rehearsals()[0]["rollbacks"][0]["storage"].clone();
    assert_eq!(
        rehearsed,
        json!({ "objects": 5, "buckets": 1, "withdrawn": 3, "bytes_at_most": "bytes of c".len() })
    );
}

#[test]
fn everything_goes_back_when_asked_and_what_users_did_is_saved() {
    let (world, bucket) = pushed();
    let asked = world.run(["rollback", "--mode", "whole", "--remove-added", "--dry-run"]).exits(0);
    let text = asked.data();
    let storage: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  storage    ")).collect();
    assert_eq!(
        storage,
        [
            "7 objects go back (1 altered, 2 moved by SQL, 2 overwritten, 2 removed), and 1 buckets; \
             at most [BYTES] are uploaded, in about [TIME]",
            "3 that the migration added go, unless something was put in",
            "2 that were added (object `photos/added`, object `used/mine`) are removed, and saved first",
        ]
    );
    let storage = rolled_back(&world, &["--mode", "whole", "--remove-added"]);
    assert_eq!((&storage["left"], &storage["stays"]), (&json!([]), &json!({})), "{storage}");
    let expected =
        ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key.to_owned(), format!("bytes of {key}")));
    assert_eq!(served(&world, &bucket), expected.into());
    assert_eq!(
        world.sql(OWNER, "select id, public from storage.buckets where id in ('photos', 'used', 'new')"),
        ["photos|f"]
    );
    for bytes in ["newer d", "newer f", "added", "mine"] {
        let sha256 = disk::sha256(bytes.as_bytes());
        let kept = world.store().join("objects").join(&sha256[..2]).join(&sha256);
        assert_eq!(fs_err::read_to_string(kept).unwrap(), bytes);
    }
}

/// What people did stays, and the history of migrations says nothing of Storage.
#[test]
fn storage_goes_back_alone_before_and_after_the_database() {
    let (world, bucket) = pushed();
    let shown = world.run(["rollback", "--only", "storage", "--dry-run"]).exits(0).data();
    let titles: BTreeSet<&str> =
        shown.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert_eq!(titles, BTreeSet::from(["target", "back", "mode", "storage"]), "{shown}");
    for args in [&["--only", "storage"][..], &["--only", "storage"], &[], &["--only", "storage"]] {
        let storage = rolled_back(&world, args);
        assert_eq!(
            (&storage["left"], &storage["stays"]),
            (&json!([]), &json!({ "added": 2, "overwritten": 2, "removed": 1 })),
            "{args:?}: {storage}"
        );
    }
    assert_eq!(world.history(), [""; 0]);
    assert_eq!(served(&world, &bucket)["f"], "newer f");
    let storage = rolled_back(&world, &["--only", "storage", "--mode", "whole", "--remove-added"]);
    assert_eq!((&storage["left"], &storage["stays"]), (&json!([]), &json!({})), "{storage}");
    let expected =
        ["a", "b", "c", "d", "e", "f", "g", "h"].map(|key| (key.to_owned(), format!("bytes of {key}")));
    assert_eq!(served(&world, &bucket), expected.into());
}

#[test]
fn without_keys_the_rows_go_back_and_the_next_run_with_keys_ends_it() {
    let (mut world, bucket) = pushed();
    let (id, secret) = ("SUPA_SAFE_S3_ACCESS_KEY_ID", "SUPA_SAFE_S3_SECRET_ACCESS_KEY");
    world.unset(id);
    world.unset(secret);
    let rollback = |world: &World| world.run(["rollback", "--confirm", &world.target(), "--json"]);
    for _ in 0..2 {
        let ran = rollback(&world).exits(22);
        assert_eq!((ran.events_of("rolled-back").len(), &ran.summary()["target_touched"]), (0, &json!(true)));
        // What the migration removed is there again, and so are the rows that went with it.
        assert_eq!(world.sql(OWNER, "select count(*) from public.files"), ["2"]);
        assert_eq!(world.history(), [""; 0]);
        assert_eq!(bucket.get("photos", "c"), b"bytes of c");
    }
    world.give_pair(&bucket);
    // Nobody has confirmed that it goes on: nothing is touched.
    let added = "select name from storage.objects where name = 'phantom'";
    for (args, code) in [(["rollback", "--dry-run", "--json"], 0), (["rollback", "--no-input", "--json"], 4)]
    {
        let ran = world.run(args).exits(code);
        assert_eq!(
            (ran.events_of("rolled-back").len(), &ran.summary()["target_touched"]),
            (0, &json!(false)),
            "{ran}"
        );
        assert_eq!(world.sql(OWNER, added), ["phantom"]);
    }
    let ran = rollback(&world).exits(0);
    assert_eq!(ran.summary()["target_touched"], true);
    assert_eq!(ran.events_of("rolled-back").len(), 1, "{ran}");
    assert_eq!(world.sql(OWNER, added), [""; 0]);
    drop(rollback(&world).exits(3));
}

/// What would keep Storage from going back alone, and whose migrations are undone with it, is told first.
#[test]
fn storage_alone_says_what_is_in_its_way_and_whose_files_go_back_with_it() {
    let (world, _bucket) = pushed();
    world.sql(OWNER, "insert into supabase_migrations.schema_migrations (version) values ('20260202000000')");
    let warnings = |args: &[&str], code: i32| -> Vec<String> {
        let target = world.target();
        let args = [&["rollback", "--only", "storage", "--json", "--confirm", &target], args].concat();
        let lines = world.run(args).exits(code).events_of("confirmation").remove(0)["lines"].clone();
        let warnings = lines.as_array().unwrap().iter().filter(|line| line[0] == "WARNING");
        warnings.map(|line| line[1].as_str().unwrap().to_owned()).collect()
    };
    // The role has the rights of those of the Data API.
    let roles = "postgres, anon, authenticated, service_role";
    world.sql(ADMIN, &format!("revoke update on storage.buckets from {roles} cascade"));
    let told = warnings(&[], 1);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("this role cannot write rows of storage.buckets: "), "{told:?}");
    world.sql(ADMIN, &format!("grant update on storage.buckets to {roles}"));
    let told = warnings(&["--mode", "whole"], 0);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("the history holds 20260202000000, "), "{told:?}");
}
