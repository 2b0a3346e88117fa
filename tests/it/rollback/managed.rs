//! Rows of the platform's tables, and numbers that are out: each damage alone, pushed with the real CLI, in both
//! modes.

use super::{AS_HOSTED, BEFORE};
use crate::world::{ADMIN, Major, OWNER, World};
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
    ("a moved sequence", "select setval('public.tickets', 5000)"),
];

fn state(world: &World) -> Vec<String> {
    let mut state = world.state();
    state.retain(|line| !line.contains("supabase_migrations"));
    state.extend(world.sql(ADMIN, "select 'tickets', last_value, is_called from public.tickets"));
    state
}

fn each_alone(major: Major) {
    let mut world = World::own_server_of(major, &[]);
    let bucket = world.bucket(&["pictures"]);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(OWNER, BEFORE);
    // They have rows and no bytes.
    world.sql(ADMIN, "set storage.allow_delete_query = 'true'; delete from storage.objects");
    for key in ["a", "b", "c"] {
        bucket.put("pictures", key, format!("bytes of {key}").as_bytes());
    }
    world.sql(ADMIN, r#"update storage.objects set owner_id = name, user_metadata = '{"of": "mine"}'"#);
    let before = state(&world);
    for (index, (name, damage)) in DAMAGES.iter().enumerate() {
        let file = format!("2026010100000{index}_wrong");
        world.migration(&file, damage);
        for mode in ["touched", "whole"] {
            drop(world.migrate(&[]).exits(0));
            assert_ne!(state(&world), before, "{name}");
            let ran =
                world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
            assert_eq!(ran.summary()["rolled_back"]["mode"], json!(mode), "{name}");
            assert_eq!(state(&world), before, "{name}, {mode}");
            for key in ["a", "b", "c"] {
                assert_eq!(
                    bucket.get("pictures", key),
                    format!("bytes of {key}").as_bytes(),
                    "{name}, {mode}"
                );
            }
        }
        world.remove(&format!("supabase/migrations/{file}.sql"));
    }
}

#[test]
fn each_damage_to_managed_rows_alone_on_15() {
    each_alone(Major::Pg15);
}

#[test]
fn each_damage_to_managed_rows_alone_on_17() {
    each_alone(Major::Pg17);
}
