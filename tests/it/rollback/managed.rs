//! Rows of the platform's tables: each damage alone, pushed with the real CLI, in both modes.

use super::damages::{Before, privileges};
use super::{AS_HOSTED, BEFORE};
use crate::world::{ADMIN, Bucket, Major, OWNER, World};
use serde_json::json;

const DAMAGES: &[(&str, &str)] = &[
    (
        "rows of auth.users",
        r#"update auth.users set email = 'lost-' || email, raw_user_meta_data = '{"lost": true}';
        delete from auth.users where id in (select id from auth.users order by id limit 2);
        insert into auth.users (id, email) values ('77777777-0000-0000-0000-000000000000', 'seed@x.y')"#,
    ),
    (
        "rows of storage.objects",
        "update storage.objects set name = 'lost/' || name where name = 'a';
        update storage.objects set owner_id = 'nobody', user_metadata = '{}' where name = 'b';
        update storage.buckets set public = true",
    ),
];

/// The project with objects in a bucket, each readable.
pub(super) fn with_objects(major: Major, privileges: &str) -> (World, Bucket) {
    let mut world = World::own_server_of(major, &[]);
    let bucket = world.bucket(&[BUCKET]);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(OWNER, privileges);
    world.sql(OWNER, BEFORE);
    // They have rows and no bytes.
    world.sql(ADMIN, "set storage.allow_delete_query = 'true'; delete from storage.objects");
    for key in KEYS {
        bucket.put(BUCKET, key, &bytes(key));
    }
    world.sql(ADMIN, r#"update storage.objects set owner_id = name, user_metadata = '{"of": "mine"}'"#);
    (world, bucket)
}

const BUCKET: &str = "pictures";
const KEYS: [&str; 3] = ["a", "b", "c"];

fn bytes(key: &str) -> Vec<u8> {
    format!("bytes of {key}").into_bytes()
}

/// Demands that the endpoint gives out every object as it was.
#[track_caller]
pub(super) fn every_object_is_readable(bucket: &Bucket) {
    for key in KEYS {
        assert_eq!(bucket.get(BUCKET, key), bytes(key), "{key}");
    }
}

fn each_alone(major: Major, privileges: &str) {
    let (world, bucket) = with_objects(major, privileges);
    let before = Before::of(&world);
    for (index, (name, damage)) in DAMAGES.iter().enumerate() {
        let file = format!("2026010100000{index}_wrong");
        world.migration(&file, damage);
        for mode in ["touched", "whole"] {
            drop(world.migrate(&[]).exits(0));
            before.is_gone(&world, name);
            let ran =
                world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
            assert_eq!(ran.summary()["rolled_back"]["mode"], json!(mode), "{name}");
            before.is_back(&world).unwrap_or_else(|why| panic!("{name}, {mode}: {why}"));
            every_object_is_readable(&bucket);
        }
        world.remove(&format!("supabase/migrations/{file}.sql"));
    }
}

#[test]
fn each_damage_to_managed_rows_alone_on_15() {
    for privileges in privileges(true) {
        each_alone(Major::Pg15, privileges);
    }
}

#[test]
fn each_damage_to_managed_rows_alone_on_17() {
    for privileges in privileges(false) {
        each_alone(Major::Pg17, privileges);
    }
}
