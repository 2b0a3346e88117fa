//! What a migration drops and makes again is the same by its name alone.

use crate::world::{OWNER, World};
use serde_json::json;

const BEFORE: &str = "create table public.notes (id int primary key, body text);
    insert into public.notes select n, 'note ' || n from generate_series(1, 9) n;
    alter table public.notes enable row level security;
    create policy own on public.notes for select to authenticated using (body <> '');
    create function public.f(a int) returns int language sql as 'select a';
    create function public.touch() returns trigger language plpgsql as 'begin return new; end';
    create trigger touch before update on public.notes for each row execute function public.touch();
    create view public.bodies as select body from public.notes;
    create view public.moved as select id from public.notes;
    create type public.mood as enum ('sad', 'ok');
    create table public.logs (id serial primary key, body text, mood public.mood default 'ok');
    insert into public.logs (body) select 'log ' || n from generate_series(1, 9) n;
    create table public.kept (id int primary key, body text);
    insert into public.kept select n, 'kept ' || n from generate_series(1, 9) n;
    create table public.others (id int primary key, body text);
    insert into public.others values (1, 'x');
    create sequence public.numbers;
    select setval('public.numbers', 42);
    alter publication supabase_realtime add table public.notes;";

/// Idioms of migrations, the first six without any difference in the end.
const AGAIN: &str = "drop policy if exists own on public.notes;
    create policy own on public.notes for select to authenticated using (body <> '');
    drop trigger if exists touch on public.notes;
    create trigger touch before update on public.notes for each row execute function public.touch();
    drop view if exists public.bodies;
    create view public.bodies as select body from public.notes;
    alter view public.moved rename to moved_before;
    create view public.moved as select id from public.notes;
    alter publication supabase_realtime drop table public.notes;
    alter publication supabase_realtime add table public.notes;
    alter table public.notes drop constraint notes_pkey;
    alter table public.notes add constraint notes_pkey primary key (id);
    drop function if exists public.f(int);
    create function public.f(a int) returns int language sql as 'select a + 1';
    drop table if exists public.logs;
    alter type public.mood rename to mood_before;
    create type public.mood as enum ('sad', 'ok');
    drop type public.mood_before;
    create table public.logs (id serial primary key, body text, mood public.mood default 'ok');
    drop sequence public.numbers;
    create sequence public.numbers;";
/// A table that is swapped for another, over two files.
const SWAP: &str = "create table public.kept_new (id int primary key, body text);
    insert into public.kept_new select id, upper(body) from public.kept;";
const SWAPPED: &str = "alter table public.kept rename to kept_before;
    alter table public.kept_before rename constraint kept_pkey to kept_before_pkey;
    alter table public.kept_new rename to kept;
    alter table public.kept rename constraint kept_new_pkey to kept_pkey;";

#[test]
fn what_was_made_again_goes_back_with_what_it_held() {
    let world = World::hosted(&[
        ("20260101000000_again", AGAIN),
        ("20260102000000_swap", SWAP),
        ("20260103000000_swapped", SWAPPED),
    ]);
    world.sql(OWNER, BEFORE);
    let rows = |world: &World| {
        let sql = "select string_agg(l::text, ' ' order by id) from public.logs l;
            select string_agg(k::text, ' ' order by id) from public.kept k; select last_value from public.numbers";
        world.sql(OWNER, sql)
    };
    let (before, rows_before) = (world.state(), rows(&world));
    for mode in ["touched", "whole"] {
        drop(world.migrate(&[]).exits(0));
        let rehearsals = world.rehearsals();
        let failed: Vec<_> =
            rehearsals[0]["rollbacks"].as_array().unwrap().iter().map(|one| &one["failed"]).collect();
        assert_eq!(failed, [&json!(null); 2]);
        assert_ne!(rows(&world), rows_before);
        world.sql(OWNER, "update public.others set body = 'mine'");
        // Without a word it is the better way.
        let flags: &[&str] = if mode == "whole" { &["--mode", mode] } else { &[] };
        let target = world.target();
        let ran = world.run([&["rollback", "--json", "--confirm", &target], flags].concat()).exits(0);
        let done = &ran.summary()["rolled_back"];
        assert_eq!(done["mode"], json!(mode));
        assert_eq!(rows(&world), rows_before, "{mode}");
        let others = world.sql(OWNER, "select body from public.others");
        assert_eq!(others, [if mode == "touched" { "mine" } else { "x" }]);
        world.sql(OWNER, "update public.others set body = 'x'");
        let mut after = world.state();
        after.retain(|line| !line.contains("supabase_migrations"));
        assert_eq!(after, before, "{mode}");
    }
}

/// A statement that found no row on the copy finds some in production, and what hangs on these goes with them.
#[test]
fn rows_that_the_copy_did_not_have_go_back_too() {
    let cleaned = "delete from public.sessions where seen < '2026-01-01'; update public.users set name = 'x' where id > 3;
        insert into public.other values (1);";
    let world = World::hosted(&[("20260101000000_cleaned", cleaned)]);
    world.sql(
        OWNER,
        "create table public.sessions (id int primary key, seen date);
        create table public.pages (id int primary key, session int references public.sessions on delete cascade);
        create table public.users (id int primary key, name text);
        create table public.members (id int primary key, u int references public.users on delete cascade);
        create table public.other (id int);
        insert into public.sessions values (1, '2026-05-01'); insert into public.pages values (1, 1);
        insert into public.users values (1, 'a')",
    );
    drop(world.run(["snapshot"]).exits(0));
    drop(world.migrate(&["--dry-run"]).exits(0));
    // What came after the snapshot is what the push would find.
    let base = super::Base::of(world);
    drop(base.world.migrate(&[]).exits(0));
    let record = base.world.rehearsals().swap_remove(0);
    let touched: Vec<String> = record["rollbacks"][0]["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| table.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        touched,
        ["public.members", "public.other", "public.pages", "public.sessions", "public.users"]
    );
}

/// Seeds are no file of the history, and what they wrote goes back as well.
#[test]
fn a_push_with_seeds_is_taken_back_where_it_touched() {
    let world = World::hosted(&[("20260101000000_wrong", super::WRONG)]);
    world.sql(OWNER, super::NOTES);
    world.sql(OWNER, "create table public.seeded (id int primary key); create table public.quiet (id int)");
    world.write("supabase/seed.sql", "insert into public.seeded values (1), (2);");
    drop(world.migrate(&["--include-seed"]).exits(0));
    world.sql(OWNER, "insert into public.quiet values (1)");
    let ran = world.run(["rollback", "--json", "--confirm", &world.target()]).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!("touched"));
    assert_eq!(world.sql(OWNER, "select count(*) from public.seeded"), ["0"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.quiet"), ["1"]);
}
