//! Storage goes back with the database when the migration wrote to its rows.

use crate::world::{Bucket, OWNER, World};
use std::collections::BTreeMap;

const MIGRATION: &str = "update storage.objects set name = 'lost/' || name where name in ('a', 'b');
    set local storage.allow_delete_query = 'true';
    delete from storage.objects where name = 'c';
    create table public.wrong (id int);";

/// Keys and bytes of all objects, as the server gives them out.
fn served(world: &World, bucket: &Bucket) -> BTreeMap<String, Vec<u8>> {
    let keys = world.sql(OWNER, "select name from storage.objects where bucket_id = 'photos' order by name");
    keys.into_iter().map(|key| (key.clone(), bucket.get("photos", &key))).collect()
}

#[test]
fn objects_go_back_with_the_rows_that_the_migration_changed() {
    let mut world = World::hosted(&[("20260101000000_wrong", MIGRATION)]);
    let bucket = world.bucket(&["photos"]);
    for key in ["a", "b", "c", "d"] {
        bucket.put("photos", key, format!("bytes of {key}").as_bytes());
    }
    let before = served(&world, &bucket);
    let rows =
        "select id, name, owner, created_at, updated_at, user_metadata from storage.objects order by id";
    let rows_before = world.sql(OWNER, rows);
    drop(world.migrate(&[]).exits(0));
    // A person overwrites one and adds one meanwhile.
    bucket.put("photos", "d", b"newer");
    bucket.put("photos", "e", b"added");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let summary = ran.summary();
    let storage = &summary["rolled_back"]["storage"];
    assert_eq!(
        (&storage["left"], &storage["added"]),
        (&serde_json::json!([]), &serde_json::json!(1)),
        "{ran}"
    );
    let mut after = served(&world, &bucket);
    assert_eq!(after.remove("e").as_deref(), Some(&b"added"[..]));
    assert_eq!(after, before);
    let rows_after: Vec<String> =
        world.sql(OWNER, rows).into_iter().filter(|row| !row.contains("|e|")).collect();
    // Who may not switch triggers off leaves the time of the change.
    let without_time = |rows: &[String]| -> Vec<String> {
        rows.iter()
            .map(|row| {
                row.split('|')
                    .enumerate()
                    .filter(|(at, _)| *at != 4)
                    .map(|(_, field)| field)
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .collect()
    };
    assert_eq!(without_time(&rows_after), without_time(&rows_before));
}
