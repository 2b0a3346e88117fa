//! All damages at once, in one migration that the real CLI pushes, and accounts that a push writes.

use super::AS_HOSTED;
use super::damages::Before;
use super::managed::{every_object_is_readable, with_objects};
use crate::rollback_rights::{CLASSIC, EXPLICIT};
use crate::world::{ADMIN, Major, OWNER, World};
use serde_json::json;

/// Everything that a migration may do wrong, as far as it can do it in one go.
const ALL: &str = "insert into auth.users (id, email) values ('77777777-0000-0000-0000-000000000000', 'seed@x.y');
    update auth.users set raw_user_meta_data = '{\"lost\": true}', email = 'lost-' || email;
    update public.products set price = 0;
    delete from public.items; delete from public.orders where id % 2 = 0;
    alter table public.orders rename column placed to placed_at;
    alter table public.orders drop column note cascade;
    alter table public.audit alter column what type varchar(100);
    drop table app.flags;
    create table public.reviews (id int primary key, product_id bigint references public.products, body text);
    insert into public.reviews values (1, 1, 'x');
    create view public.names as select sku from public.products;
    create materialized view public.m as select id, placed_at from public.orders;
    alter type public.mood add value 'great';
    create policy everything on public.orders for all to anon using (true); drop policy own on public.orders;
    alter table public.orders disable row level security;
    grant all on public.audit to anon; grant execute on function public.secret_count() to public;
    grant service_role to authenticated;
    alter role anon set statement_timeout = 0;
    create role reader login; grant select on public.products to reader;
    create or replace function public.total(o bigint) returns bigint language sql security definer as 'select 1::bigint';
    create function public.spy() returns trigger language plpgsql security definer as 'begin return new; end';
    create trigger spy after insert on auth.users for each row execute function public.spy();
    create schema extra; create table extra.t (id int); insert into extra.t values (1);
    create extension citext schema extensions; create table public.c (a extensions.citext);
    alter publication supabase_realtime drop table public.orders; alter publication supabase_realtime add table public.audit;
    select setval('public.tickets', 5000);
    create table public.events_3 partition of public.events for values from ('2026-03-01') to ('2026-04-01');
    alter table public.events detach partition public.events_1;
    comment on table public.orders is 'theirs';
    grant select on auth.users to anon; grant select (provider) on auth.identities to anon;
    grant create on schema extensions to authenticated;
    create table extensions.seen (id int); create function extensions.spy() returns int language sql as 'select 1';
    comment on function extensions.spy() is 'theirs';
    do $$ begin execute format('grant create on database %I to anon', current_database()); end $$;
    alter table public.orders cluster on orders_pkey;
    select lo_put(7777, 0, 'lost'); select lo_unlink(7778);
    alter default privileges in schema public grant all on tables to anon, pg_monitor;
    update storage.objects set name = 'lost/' || name where name = 'a';
    update storage.objects set owner_id = 'nobody', user_metadata = '{}', metadata = metadata || '{\"mimetype\": \"lost\"}' where name = 'b';
    set local storage.allow_delete_query = 'true'; delete from storage.objects where name = 'c';
    update storage.buckets set public = true, file_size_limit = 1, allowed_mime_types = '{lost/lost}';";
const LARGE: &str =
    "select lo_from_bytea(7777, 'mine'), lo_from_bytea(7778, 'too'); comment on large object 7778 is 'too'";

fn all_at_once(major: Major, privileges: &str) {
    let (world, bucket) = with_objects(major, privileges);
    world.sql(OWNER, LARGE);
    let before = Before::of(&world);
    world.migration("20260101000000_all", ALL);
    for mode in ["touched", "whole"] {
        drop(world.migrate(&[]).exits(0));
        before.is_gone(&world, mode);
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
        assert_eq!(ran.summary()["rolled_back"]["mode"], json!(mode));
        before.is_back(&world).unwrap_or_else(|why| panic!("{mode}: {why}"));
        every_object_is_readable(&bucket);
    }
}

#[test]
fn all_damages_of_one_push_on_15() {
    all_at_once(Major::Pg15, CLASSIC);
}

#[test]
fn all_damages_of_one_push_on_17() {
    all_at_once(Major::Pg17, CLASSIC);
}

#[test]
fn all_damages_of_one_push_with_explicit_default_privileges_on_15() {
    all_at_once(Major::Pg15, EXPLICIT);
}

#[test]
fn all_damages_of_one_push_with_explicit_default_privileges_on_17() {
    all_at_once(Major::Pg17, EXPLICIT);
}

/// Accounts that are there when the snapshot is taken: changed, deleted by the push, deleted since.
const ACCOUNTS: &str = "create table public.profiles (id uuid primary key references auth.users on delete cascade, name text);
    insert into auth.users (id, email, raw_user_meta_data, last_sign_in_at)
        select ('00000000-0000-0000-0000-00000000000' || n)::uuid, n || '@x.y', '{\"plan\": \"free\"}', '2026-01-01' from generate_series(1, 5) n;
    insert into auth.identities (provider_id, user_id, identity_data, provider)
        select n, ('00000000-0000-0000-0000-00000000000' || n)::uuid, '{}', 'email' from generate_series(1, 5) n;
    update auth.users set raw_user_meta_data = '{\"plan\": \"paid\"}' where email = '5@x.y';
    insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at)
        select id, id, 'totp', 'verified', now(), now() from auth.users where email < '4';
    insert into public.profiles select id, email from auth.users";
const ON_ACCOUNTS: &str = "update auth.users set raw_user_meta_data = '{\"plan\": \"paid\"}';
    delete from auth.users where email = '2@x.y';
    insert into auth.users (id, email) values ('77777777-0000-0000-0000-000000000000', 'seed@x.y');";

#[test]
fn accounts_that_the_push_wrote_go_back_and_the_others_go_on() {
    let world = World::hosted(&[("20260101000000_accounts", ON_ACCOUNTS)]);
    world.sql(ADMIN, ACCOUNTS);
    world.sql(ADMIN, "alter table public.profiles owner to postgres");
    let paid = r#"{"plan": "paid"}"#;
    for (mode, between) in [("touched", None), ("whole", Some(format!("between@x.y|{paid}|~")))] {
        drop(world.run(["snapshot"]).exits(0));
        // Who comes between snapshot and push is not taken for the push's, which writes over what the fifth one
        // wrote last.
        let came = "insert into auth.users (id, email) values (gen_random_uuid(), 'between@x.y');
            update auth.users set raw_user_meta_data = '{\"plan\": \"tried\"}' where email = '5@x.y'";
        world.sql(ADMIN, if between.is_some() { came } else { "" });
        drop(world.migrate(&[]).exits(0));
        // One signs in, one leaves, one comes, and one changes something.
        let change = "update auth.users set raw_user_meta_data = '{}' where email = '5@x.y'";
        world.sql(ADMIN, if mode == "touched" { change } else { "" });
        world.sql(
            ADMIN,
            "update auth.users set last_sign_in_at = '2026-02-02' where email = '1@x.y';
            delete from auth.users where email = '3@x.y';
            insert into auth.users (id, email) values ('99999999-0000-0000-0000-000000000000', 'new@x.y') on conflict do nothing;
            insert into public.profiles values ('99999999-0000-0000-0000-000000000000', 'new') on conflict do nothing",
        );
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
        let users = "select email, raw_user_meta_data, last_sign_in_at::date from auth.users order by email";
        let mut expected = vec![
            r#"1@x.y|{"plan": "free"}|2026-02-02"#.to_owned(),
            r#"2@x.y|{"plan": "free"}|2026-01-01"#.to_owned(),
            r#"4@x.y|{"plan": "free"}|2026-01-01"#.to_owned(),
            "5@x.y|{}|2026-01-01".to_owned(),
        ];
        expected.extend(between);
        expected.push("new@x.y|~|~".to_owned());
        assert_eq!(world.sql(OWNER, users), expected, "{mode}: {ran}");
        let others = |sql: &str| world.sql(OWNER, sql).join(" ");
        assert_eq!(others("select provider_id from auth.identities order by 1"), "1 2 4 5");
        assert_eq!(others("select right(id::text, 1) from auth.mfa_factors order by 1"), "1 2");
        assert_eq!(others("select name from public.profiles order by 1"), "1@x.y 2@x.y 4@x.y 5@x.y new");
    }
}

/// TRUNCATE counts no rows, and a key that goes leaves rows that are alike.
#[test]
fn rows_that_no_counter_and_no_key_tells() {
    let emptied = "truncate public.clicks; alter table public.votes drop column id;
        alter table public.words alter column word type text using upper(word);";
    let world = World::own_server_of(Major::Pg17, &[("20260101000000_emptied", emptied)]);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(
        OWNER,
        "create table public.clicks (page text); insert into public.clicks values ('home'), ('home');
        create table public.votes (id int primary key, option text); insert into public.votes values (1, 'yes');
        create table public.words (word text primary key); insert into public.words values ('one')",
    );
    let before = world.state();
    drop(world.migrate(&[]).exits(0));
    assert_eq!(world.sql(OWNER, "select count(*) from public.clicks"), ["0"]);
    let since =
        "insert into public.clicks values ('home'), ('home'); insert into public.votes values ('yes')";
    world.sql(OWNER, since);
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let saved = ran.summary()["rolled_back"]["saved"].clone();
    assert_eq!(world.state(), before);
    let rows = |table: &str| {
        let of_table = saved.as_array().unwrap().iter().find(|saved| saved["table"] == table);
        of_table.map(|saved| saved["rows"].clone())
    };
    assert_eq!((rows("public.clicks"), rows("public.votes")), (Some(json!(2)), Some(json!(1))), "{saved}");
}
