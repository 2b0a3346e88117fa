//! What looks alike and is not: an account of a person and one of the push, the files that were rehearsed and
//! those that were pushed, rows without a key, an object that people removed and one that the push did.

use super::NOTES;
use super::unseen::confirmed;
use crate::world::{ADMIN, Major, OWNER, World};
use serde_json::json;

/// A push onto the snapshot that is there, and what came since.
fn push_onto_snapshot(world: &World, since: &str) {
    drop(world.run(["snapshot"]).exits(0));
    world.sql(ADMIN, since);
    drop(world.migrate(&["--snapshot", world.snapshot().id().as_str()]).exits(0));
}

/// The copy has no account for the update: the one that it meets signed up after the snapshot.
#[test]
fn who_signed_up_before_the_push_is_none_of_its_accounts() {
    let world = World::hosted(&[(
        "20260101000000_admin",
        "insert into auth.users (id, email, raw_user_meta_data) values (gen_random_uuid(), 'admin@x.y', '{\"tier\": 1}');
        update auth.users set raw_user_meta_data = '{\"tier\": 2}' where raw_user_meta_data is null",
    )]);
    world.sql(
        ADMIN,
        "insert into auth.users (id, email, raw_user_meta_data) values (gen_random_uuid(), '1@x.y', '{\"tier\": 0}')",
    );
    push_onto_snapshot(&world, "insert into auth.users (id, email) values (gen_random_uuid(), 'new@x.y')");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    // Two of them are as the push left them, and one is its own: nobody can tell which.
    assert_eq!(
        world.sql(ADMIN, "select email from auth.users order by 1"),
        ["1@x.y", "admin@x.y", "new@x.y"]
    );
    assert_eq!(
        ran.summary()["rolled_back"]["references"],
        json!([
            "auth.users: of 1 rows that the push added on the copy, 0 were found and taken away; the others stand \
             under ids that nobody knows, or went before"
        ])
    );
}

/// An account that the push added under another id than on the copy goes, and its row is kept.
#[test]
fn an_account_that_only_the_push_can_have_made_goes_and_is_kept() {
    let world = World::hosted(&[(
        "20260101000000_admin",
        "insert into auth.users (id, email) values (gen_random_uuid(), 'admin@x.y')",
    )]);
    push_onto_snapshot(&world, "insert into auth.users (id, email) values (gen_random_uuid(), 'new@x.y')");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(world.sql(ADMIN, "select email from auth.users"), ["new@x.y"]);
    let rolled_back = &ran.summary()["rolled_back"];
    assert_eq!(
        rolled_back["saved"],
        json!([{ "table": "auth.users", "rows": 1, "file": "auth.users.added.csv" }])
    );
    let file = std::path::Path::new(rolled_back["folder"].as_str().unwrap()).join("auth.users.added.csv");
    assert_eq!(std::fs::read_to_string(file).unwrap().matches("admin@x.y").count(), 1);
}

/// The files that were rehearsed got another text before they were pushed without a rehearsal.
#[test]
fn a_rehearsal_of_another_text_says_nothing_of_the_push() {
    let file = "20260101000000_change";
    let world = World::hosted(&[(file, "update public.notes set body = 'one' where id = 1")]);
    world.sql(OWNER, NOTES);
    world.write("supabase/supa-safe.toml", "allow_unrehearsed = true\n");
    drop(world.run(["rehearse"]).exits(0));
    world.migration(file, "delete from public.others; update public.notes set body = 'one' where id = 1");
    drop(world.migrate(&["--rehearse", "off"]).exits(0));
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["0"]);
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!("whole"));
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["50"]);
}

/// Rows like those of the snapshot, written before the push: they are more, and kept.
#[test]
fn rows_without_a_key_that_came_before_the_push_are_kept() {
    let world = World::hosted(&[(
        "20260101000000_clicks",
        "update public.clicks set day = '2026-06-01' where link = 8",
    )]);
    world.sql(
        OWNER,
        "create table public.clicks (link int, day date);
        insert into public.clicks select 7, '2026-05-01' from generate_series(1, 5);
        insert into public.clicks values (8, '2026-05-01')",
    );
    push_onto_snapshot(&world, "insert into public.clicks values (7, '2026-05-01'), (7, '2026-05-01')");
    world.sql(OWNER, "insert into public.clicks values (7, '2026-05-01')");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let rolled_back = &ran.summary()["rolled_back"];
    let folder = std::path::Path::new(rolled_back["folder"].as_str().unwrap());
    let clicks = std::fs::read_to_string(folder.join("0001.csv")).unwrap();
    assert_eq!(clicks.matches("7,2026-05-01").count(), 3, "{clicks}");
    assert_eq!(
        world.sql(OWNER, "select link, day, count(*) from public.clicks group by 1, 2 order by 1"),
        ["7|2026-05-01|5", "8|2026-05-01|1"]
    );
}

/// Of rows that are alike, the server counts those that the snapshot saw: they stay where they are, and none of
/// them is taken for one that came. Rows of which people removed some and added others are as many as before.
#[test]
fn rows_without_a_key_are_counted_where_they_are() {
    // Nobody else is at work there, by whom what was written long ago would count as written since.
    let world = World::own_server_set(
        Major::Pg17,
        &["shared_preload_libraries=pg_stat_statements"],
        &[(
            "20260101000000_clicks",
            "update public.clicks set day = day where link = 3; delete from public.clicks where link = 5",
        )],
    );
    world.sql(
        OWNER,
        "create table public.clicks (link int, day date);
        insert into public.clicks select n % 5 + 1, '2026-05-01' from generate_series(1, 50) n;
        insert into public.clicks select 100 + n, '2026-05-01' from generate_series(1, 5000) n",
    );
    push_onto_snapshot(
        &world,
        // Of link 1, two come. Of link 2, three go and two come, and of link 3, one goes, two come; of link 4, one
        // becomes a 1. Of one that is nowhere else, two come.
        "insert into public.clicks select link, '2026-05-01' from unnest(array[1, 1, 2, 2, 3, 3, 9, 9]) link;
        delete from public.clicks where ctid in (select ctid from public.clicks where link = 2 order by ctid limit 3);
        delete from public.clicks where ctid in (select ctid from public.clicks where link = 3 order by ctid limit 1);
        update public.clicks set link = 1
            where ctid in (select ctid from public.clicks where link = 4 order by ctid limit 1)",
    );
    // Of a row that came after the push, nothing else tells that it is new.
    world.sql(OWNER, "insert into public.clicks values (4, '2026-05-01'), (5, '2026-05-01')");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let rolled_back = &ran.summary()["rolled_back"];
    let folder = std::path::Path::new(rolled_back["folder"].as_str().unwrap());
    let kept = std::fs::read_to_string(folder.join("0001.csv")).unwrap();
    let mut kept: Vec<&str> = kept.lines().skip(1).collect();
    kept.sort_unstable();
    let day = "2026-05-01";
    assert_eq!(kept, ["1", "1", "1", "3", "4", "5", "9", "9"].map(|link| format!("{link},{day}")));
    let rows = "select link, count(*) from public.clicks where link < 100 group by 1 order by 1";
    assert_eq!(world.sql(OWNER, rows), ["1|10", "2|10", "3|10", "4|10", "5|10"]);
    // Those that were written since, eleven of them by the push.
    let looked_at = "select max(rows) from extensions.pg_stat_statements
        where query like 'copy (%hashtextextended(row(t.%link%'
            and dbid = (select oid from pg_database where datname = current_database())";
    assert_eq!(world.sql(ADMIN, looked_at), ["20"]);
}

/// A statement on rows of Storage met none on the copy, and some in production.
#[test]
fn objects_that_the_push_removed_here_alone_are_not_taken_for_those_of_people() {
    let mut world = World::hosted(&[(
        "20260101000000_expire",
        "select set_config('storage.allow_delete_query', 'true', false);
        delete from storage.objects where last_accessed_at < '2001-01-01';
        update public.notes set body = 'one' where id = 1",
    )]);
    world.sql(OWNER, NOTES);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "a", b"a");
    bucket.put("photos", "b", b"b");
    push_onto_snapshot(&world, "update storage.objects set last_accessed_at = '2000-01-01' where name = 'a'");
    let objects = "select name from storage.objects order by 1";
    assert_eq!(world.sql(ADMIN, objects), ["b"]);
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let told = "a statement of the push writes to rows of Storage: it met none on the copy, and here some are not as in \
        the snapshot, by the push or by people. They stay; `supa-safe rollback --only storage --mode whole` takes them \
        back";
    assert!(confirmed(&ran, "WARNING").contains(&told.to_owned()), "{ran}");
    assert_eq!(world.sql(ADMIN, objects), ["b"]);
    let alone = ["rollback", "--only", "storage", "--mode", "whole", "--confirm", &world.target(), "--json"];
    drop(world.run(alone).exits(0));
    assert_eq!(world.sql(ADMIN, objects), ["a", "b"]);
    assert_eq!(bucket.get("photos", "a"), b"a");
}

/// What belongs to the platform stays as the push leaves it, and the rehearsal says so.
#[test]
fn what_of_the_platform_does_not_come_back_is_named() {
    let world = World::hosted(&[(
        "20260101000000_schema",
        "drop schema public cascade; create schema public; create table public.more (id int)",
    )]);
    let ran = world.run(["rehearse", "--json"]).exits(0);
    let limits = &ran.summary()["way_back"]["not_back"];
    for kind in ["functions", "sequences", "tables"] {
        let named = format!(
            "of the platform's, as the push leaves it: default privileges of supabase_admin in public on {kind}"
        );
        assert!(limits.as_array().unwrap().contains(&json!(named)), "{limits}");
    }
}
