//! What no rehearsal saw: where else a push wrote, what others did since, and a push of which a part stands.

use super::{NOTES, WRONG};
use crate::world::{ADMIN, OWNER, Ran, World};
use serde_json::{Value, json};

/// Lines of what a person confirms, of one title.
pub(super) fn confirmed(ran: &Ran, title: &str) -> Vec<String> {
    let events = ran.events_of("confirmation");
    let lines = events[0]["lines"].as_array().unwrap().iter();
    let texts = lines.filter(|line| line[0] == title).map(|line| line[1].as_str().unwrap().to_owned());
    texts.collect()
}

/// A trigger and a branch of a block write in production alone: the row that makes them came after the snapshot.
#[test]
fn where_the_push_wrote_only_in_production_goes_back_too() {
    let world = World::hosted(&[(
        "20260101000000_expire",
        "update public.orders set status = 'expired' where due < '2026-01-01';
        do $$ begin
            if exists (select from public.orders where id = 7) then insert into public.branch values (2, 'push'); end if;
        end $$;",
    )]);
    world.sql(
        OWNER,
        "create table public.orders (id int primary key, status text default 'open', due date default '2026-05-01');
        create table public.log (id serial primary key, what text);
        create table public.branch (id int primary key, what text);
        create table public.quiet (id int primary key, what text);
        create function public.note() returns trigger language plpgsql as
            $$begin insert into public.log (what) values (old.id || new.status); return new; end$$;
        create trigger note after update on public.orders for each row execute function public.note();
        insert into public.orders (id) values (1); insert into public.log (what) values ('mine');
        insert into public.branch values (1, 'mine'); insert into public.quiet values (1, 'mine')",
    );
    drop(world.run(["snapshot"]).exits(0));
    world.sql(OWNER, "insert into public.orders values (7, 'open', '2025-01-01')");
    let snapshot = world.snapshot();
    drop(world.migrate(&["--snapshot", snapshot.id().as_str()]).exits(0));
    let log = "select what from public.log order by id";
    assert_eq!(world.sql(OWNER, log), ["mine", "7expired"]);
    world.sql(OWNER, "insert into public.quiet values (2, 'since')");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!("touched"));
    assert_eq!(
        confirmed(&ran, "also"),
        ["not rehearsed, since the push wrote to these here alone: public.branch, public.log"]
    );
    assert_eq!(world.sql(OWNER, log), ["mine"]);
    assert_eq!(world.sql(OWNER, "select id from public.branch"), ["1"]);
    assert_eq!(world.sql(OWNER, "select id from public.quiet order by 1"), ["1", "2"]);
    assert_eq!(world.sql(OWNER, "select status from public.orders"), ["open"]);
}

#[test]
fn what_others_made_since_the_push_is_named_before_it_goes() {
    let world = super::pushed();
    world.sql(
        OWNER,
        "create table public.waitlist (id int primary key); alter table public.waitlist enable row level security;
        create function public.hotfix() returns int language sql as 'select 1'",
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let named = confirmed(&ran, "WARNING");
    let is_named =
        |what: &str| named.contains(&format!("not as in the rehearsal, and goes back as well: {what} added"));
    assert!(is_named("table public.waitlist") && is_named("function public.hotfix()"), "{named:#?}");
    // What the push made is none of theirs.
    assert!(!is_named("table public.extra"), "{named:#?}");
    assert_eq!(world.sql(OWNER, "select to_regclass('public.waitlist')"), ["~"]);
}

const ACCOUNTS: &str = "insert into auth.users (id, email, raw_user_meta_data)
        select ('00000000-0000-0000-0000-00000000000' || n)::uuid, n || '@x.y', '{\"plan\": \"free\"}' from generate_series(1, 3) n;
    create table public.profiles (id uuid primary key references auth.users on delete cascade);
    alter table public.profiles owner to postgres;
    insert into public.profiles select id from auth.users";

/// A push whose second file fails in production alone.
fn half_pushed(second: &str) -> World {
    let world = World::hosted(&[
        (
            "20260101000000_clean",
            "delete from auth.users where email = '1@x.y'; update auth.users set raw_user_meta_data = '{}' where email = '2@x.y'",
        ),
        ("20260102000000_check", second),
    ]);
    world.sql(OWNER, NOTES);
    world.sql(ADMIN, ACCOUNTS);
    drop(world.run(["snapshot"]).exits(0));
    world.sql(OWNER, "insert into public.notes values (1000, 'late')");
    drop(world.migrate(&["--snapshot", world.snapshot().id().as_str()]).exits(20));
    assert_eq!(world.history(), ["20260101000000"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.profiles"), ["2"]);
    world
}

#[test]
fn accounts_of_the_file_that_stands_go_back() {
    let world = half_pushed("alter table public.notes add constraint few check (id < 100)");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!("touched"));
    let accounts = "select email, raw_user_meta_data from auth.users order by 1";
    let free = r#"{"plan": "free"}"#;
    assert_eq!(
        world.sql(OWNER, accounts),
        [format!("1@x.y|{free}"), format!("2@x.y|{free}"), format!("3@x.y|{free}")]
    );
    assert_eq!(world.sql(OWNER, "select count(*) from public.profiles"), ["3"]);
}

#[test]
fn accounts_that_more_files_wrote_are_told_to_stay() {
    let both = "update auth.users set phone = '+1' where email = '3@x.y';
        alter table public.notes add constraint few check (id < 100)";
    let world = half_pushed(both);
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let told = "nobody knows what the push did to accounts: their rows in auth stay as they are, and rows of yours \
        that belong to accounts that are gone do not come back";
    assert!(confirmed(&ran, "WARNING").contains(&told.to_owned()), "{ran}");
    assert_eq!(world.sql(OWNER, "select count(*) from public.profiles"), ["2"]);
}

/// The copy gives an account another id than production does.
#[test]
fn accounts_that_were_added_and_cannot_be_told_are_counted() {
    let world = World::hosted(&[(
        "20260101000000_admin",
        "insert into auth.users (id, email) values (gen_random_uuid(), 'admin@x.y');
        update auth.users set raw_user_meta_data = '{}' where email = '2@x.y'",
    )]);
    world.sql(ADMIN, ACCOUNTS);
    drop(world.migrate(&[]).exits(0));
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let references = &ran.summary()["rolled_back"]["references"];
    assert_eq!(
        references,
        &json!([
            "auth.users: of 1 rows that the push added on the copy, 0 were found and taken away; the others stand \
             under ids that nobody knows, or went before"
        ])
    );
}

/// The second push of changed seeds writes over what the CLI notes of the first ones.
#[test]
fn a_second_push_of_seeds_goes_back_where_it_touched() {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    world.sql(OWNER, "create table public.seeded (id int primary key); create table public.quiet (id int)");
    world.write("supabase/seed.sql", "insert into public.seeded values (1);");
    drop(world.migrate(&["--include-seed"]).exits(0));
    let seeds = "select path, hash from supabase_migrations.seed_files";
    let noted = world.sql(OWNER, seeds);
    world.write("supabase/seed.sql", "insert into public.seeded values (2);");
    drop(world.migrate(&["--include-seed"]).exits(0));
    assert_ne!(world.sql(OWNER, seeds), noted);
    world.sql(OWNER, "insert into public.quiet values (1)");
    let ran = world.run(["rollback", "--json", "--confirm", &world.target()]).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!("touched"));
    assert_eq!(world.sql(OWNER, seeds), noted);
    assert_eq!(world.sql(OWNER, "select id from public.seeded"), ["1"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.quiet"), ["1"]);
}

/// Two pushes, and both go back, one after the other.
#[test]
fn the_push_before_the_one_that_was_taken_back_can_go_too() {
    let world = super::pushed();
    let first = world.snapshot().id().clone();
    world.migration(
        "20260102000000_more",
        "create table public.more (id int); insert into public.others values (77)",
    );
    drop(world.run(["snapshot"]).exits(0));
    drop(world.migrate(&[]).exits(0));
    let back = |args: &[&str]| -> Value {
        let target = world.target();
        let args = [&["rollback", "--json", "--confirm", &target], args].concat();
        world.run(args).exits(0).summary()["rolled_back"].clone()
    };
    assert_eq!(back(&[])["versions"], json!(["20260102000000"]));
    let done = back(&[first.as_str()]);
    assert_eq!((&done["versions"], &done["mode"]), (&json!(["20260101000000"]), &json!("touched")));
    assert_eq!(world.history(), [""; 0]);
    assert_eq!(world.sql(OWNER, "select count(*), min(body) from public.notes"), ["50|note 1"]);
}
