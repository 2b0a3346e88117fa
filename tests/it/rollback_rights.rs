//! What `anon`, `authenticated`, and `service_role` can really do: tried, not read from a catalog, before a
//! migration and after the rollback. Our own fingerprint has no part in it.

use crate::rollback::{AS_HOSTED, BEFORE, Base};
use crate::rollback_zoo::WRAPPER;
use crate::world::{ADMIN, Major, OWNER, World, same};
use supa_safe::failure::chain;
use supa_safe::rollback::Mode;

const TRIES: &str = include_str!("rollback/rights.sql");
const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Tries a statement and takes it back: rows that it reached, or why it was refused. Of what is read, which rows.
const ATTEMPT: &str = r#"create temp table answers (role text, what text, answer text);
    create function pg_temp.attempt(what text, statement text) returns void language plpgsql as $$
    declare
        found bigint;
        answer text;
        tried_by text := current_user;
    begin
        begin
            execute statement;
            get diagnostics found = row_count;
            raise exception using errcode = 'UNDO1', message = found || ' rows';
        exception when others then
            answer := case sqlstate when 'UNDO1' then sqlerrm else sqlstate end;
        end;
        insert into answers values (tried_by, what, answer);
    end $$;
    create function pg_temp.reading(what text, statement text) returns void language plpgsql as $$
    declare
        answer text;
        tried_by text := current_user;
    begin
        begin
            execute format('select count(*) || '' rows '' || coalesce(md5(string_agg((r.*)::text, '' ''
                order by (r.*)::text collate "C")), '''') from (%s) r', statement) into answer;
            raise exception using errcode = 'UNDO1', message = answer;
        exception when others then
            answer := case sqlstate when 'UNDO1' then sqlerrm else sqlstate end;
        end;
        insert into answers values (tried_by, what, answer);
    end $$;
    grant all on answers to public;
    grant execute on function pg_temp.attempt, pg_temp.reading to public;"#;
/// Who asks, as the API tells it: one of the accounts, with orders of its own.
const WHO: &str = "00000000-0000-0000-0000-000000000001";

/// What the template has.
pub(crate) const CLASSIC: &str = "select";
/// New projects since 2026-05-30: nothing that is made in `public` is exposed by itself.
pub(crate) const EXPLICIT: &str = "alter default privileges in schema public revoke select, insert, update, delete on tables
        from anon, authenticated, service_role;
    alter default privileges in schema public revoke usage, select on sequences from anon, authenticated, service_role;
    alter default privileges in schema public revoke execute on functions from anon, authenticated, service_role;
    alter default privileges revoke execute on functions from public;";
const GRANTS: &str = "grant select, insert on public.orders to authenticated;
    grant all on public.items to service_role;
    grant execute on function public.total(bigint) to authenticated;";

/// What Studio offers: every new table gets row security.
const ENSURE_RLS: &str =
    "create function public.ensure_rls() returns event_trigger language plpgsql security definer
        set search_path = '' as $$
    declare made record;
    begin
        for made in select * from pg_event_trigger_ddl_commands()
            where command_tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') and schema_name = 'public'
        loop
            execute format('alter table %s enable row level security', made.object_identity);
        end loop;
    end $$;
    create event trigger ensure_rls on ddl_command_end
        when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') execute function public.ensure_rls();";

/// Things of which each way to get at them must come back.
const MORE: &str =
    "create function public.hidden() returns text language sql security definer set search_path = '' as
        'select what from public.audit limit 1';
    revoke all on function public.hidden() from public, anon, authenticated;
    create function public.shown() returns text language sql stable security definer set search_path = '' as
        'select string_agg(what, '','' order by id) from public.audit';
    revoke all on function public.shown() from public, authenticated, service_role;
    grant execute on function public.shown() to anon;
    create view public.leaky as select * from public.audit;
    revoke all on public.leaky from anon, authenticated, service_role;
    create type public.secret as enum ('a');
    revoke usage on type public.secret from public;
    create schema closed;
    create table closed.books (id int primary key, title text);
    insert into closed.books values (1, 'x');
    create sequence public.numbers;
    revoke all on public.numbers from anon, authenticated;
    select lo_from_bytea(424242, 'x'), lo_from_bytea(424243, 'y');
    grant select on large object 424242 to anon;
    insert into public.audit (what) values ('secret');
    create table public.no_rows_for_anon (id int primary key, body text);
    insert into public.no_rows_for_anon values (1, 'x');
    revoke all on public.no_rows_for_anon from anon;
    grant update (body) on public.no_rows_for_anon to anon;
    create server elsewhere foreign data wrapper postgres_fdw options (host '127.0.0.1', port '1');
    create foreign table public.far (id int, body text) server elsewhere;
    revoke all on public.far from anon;
    create foreign table public.far_too (id int) server elsewhere;";

/// Wider here, narrower there, and most of it made anew. Functions of extensions are tried too, but not granted: on
/// a copy they come before the default privileges that let the project's owner grant them.
const DAMAGE: &str = "alter default privileges in schema public grant all on tables to anon, authenticated;
    alter default privileges in schema public grant all on functions to anon;
    alter default privileges grant execute on functions to public;
    alter default privileges grant usage on schemas to anon;
    grant all on all tables in schema public to anon with grant option;
    grant all on all routines in schema public to anon;
    grant all on all sequences in schema public to anon;
    revoke all on public.products from authenticated, service_role;
    alter table public.orders disable row level security;
    create policy everything on public.audit for all to public using (true) with check (true);
    alter policy own on public.orders using (true);
    alter function public.shown() security invoker;
    alter table public.products drop column price cascade;
    drop table public.items;
    alter table public.audit add column whose text;
    alter table public.no_rows_for_anon add column more int default 3;
    drop view public.order_notes;
    create view public.order_notes as select * from public.orders;
    drop function public.secret_count();
    create function public.secret_count() returns bigint language sql security definer as 'select 1::bigint';
    create or replace function public.hidden() returns text language sql as 'select 1::text';
    grant usage, create on schema closed, app to anon, authenticated;
    grant all on closed.books to anon;
    drop type public.secret;
    create type public.secret as enum ('b');
    drop sequence public.numbers;
    create sequence public.numbers;
    grant service_role to authenticated;
    grant pg_read_all_data to anon;
    create policy all_photos on storage.objects for all to anon using (true);
    create table public.added (id int);
    grant all on public.added to anon;
    drop foreign table public.far_too;
    create foreign table public.far_too (id int) server elsewhere;
    revoke all on public.far_too from anon, service_role;
    grant create on schema extensions to anon;
    create function extensions.spy() returns trigger language plpgsql security definer as 'begin return new; end';
    comment on function extensions.spy() is 'theirs';
    create trigger spy after insert on auth.users for each row execute function extensions.spy();
    create table extensions.seen (id serial primary key, what text);
    comment on column extensions.seen.what is 'theirs';
    grant all on extensions.seen to anon;
    do $do$ begin
        execute format('grant create on database %I to anon', current_database());
        execute format('comment on database %I is ''theirs''', current_database());
        execute format('alter database %I connection limit 7', current_database());
    end $do$;";
/// What it may give away of the platform's: the server notes who gave it, but of what a superuser gives, that
/// the owner did (PostgreSQL documentation, `GRANT`), as of what the platform itself gave.
const GIVEN: &str = "grant select on auth.users to anon with grant option;
    grant select (provider) on auth.identities to authenticated;
    grant select, delete on storage.objects to pg_monitor;
    grant usage on schema storage to pg_monitor;";
/// The answers to everything that is tried, and what a table that is made now would be open for.
fn answers(world: &World) -> Vec<String> {
    let session = world.session(ADMIN);
    session.run("begin");
    session.run(ATTEMPT);
    session.run(&format!(
        "set role {OWNER}; create table public.tomorrow (id serial); create function public.soon() returns int language sql
            as 'select 1'; reset role"
    ));
    for role in ROLES {
        let claims = format!(r#"{{"sub": "{WHO}", "role": "{role}"}}"#);
        session.run(&format!("set request.jwt.claims = '{claims}'; set role {role}; {TRIES}; reset role"));
    }
    let answers =
        session.run("select role, what, answer from answers order by role, what collate \"C\", answer");
    session.run("rollback");
    answers
}

/// The project with all that can be tried, its owner as on the platform or a superuser.
fn project(major: Major, privileges: &str, owner_is_superuser: bool) -> World {
    let world = World::own_server_of(major, &[]);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(ADMIN, WRAPPER);
    if owner_is_superuser {
        world.sql(ADMIN, &format!("alter role {OWNER} superuser"));
    }
    world.sql(OWNER, privileges);
    world.sql(OWNER, BEFORE);
    world.sql(OWNER, MORE);
    if privileges == EXPLICIT {
        world.sql(OWNER, GRANTS);
    }
    world
}

/// Demands that the damage is seen, and that all of it is gone once it was taken back.
fn as_before(world: &World, damage: impl Fn(&str), take_back: impl Fn(&str)) {
    let before = answers(world);
    assert!(before.len() > 500, "{}", before.len());
    // Policies show rows, and a function what it may read, whoever calls it.
    for begin in [
        "anon|read public.audit|42501",
        "anon|ask public.shown()|1 rows ",
        "authenticated|read public.orders|16 rows ",
    ] {
        assert_eq!(before.iter().filter(|answer| answer.starts_with(begin)).count(), 1, "{begin}");
    }
    for mode in ["touched", "whole"] {
        damage(mode);
        let damaged = answers(world);
        let changed = before.iter().filter(|answer| !damaged.contains(answer)).count();
        assert!(changed > 50, "{changed}");
        take_back(mode);
        same(&before, &answers(world)).unwrap_or_else(|why| panic!("{mode}: other answers\n{why}"));
    }
}

/// Pushes the damage with the real CLI and takes it back.
fn pushed(major: Major, privileges: &str) {
    let world = project(major, privileges, false);
    world.migration("20260101000000_damage", &format!("{DAMAGE}\n{GIVEN}"));
    let push = |_: &str| drop(world.migrate(&[]).exits(0));
    as_before(&world, push, |mode| {
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
        assert_eq!(ran.summary()["rolled_back"]["mode"], mode);
    });
}

#[test]
fn with_classic_default_privileges_on_15() {
    pushed(Major::Pg15, CLASSIC);
}

#[test]
fn with_classic_default_privileges_on_17() {
    pushed(Major::Pg17, CLASSIC);
}

#[test]
fn with_explicit_default_privileges_on_15() {
    pushed(Major::Pg15, EXPLICIT);
}

#[test]
fn with_explicit_default_privileges_on_17() {
    pushed(Major::Pg17, EXPLICIT);
}

/// Without the platform's library, only a superuser owns event triggers, and the owner is none on a copy: there
/// its tables do not come back. So this is no push, and in a session.
#[test]
fn with_row_security_for_every_new_table() {
    let base = Base::of(project(Major::Pg17, ENSURE_RLS, true));
    let damage = |_: &str| drop(base.world.sql(OWNER, DAMAGE));
    as_before(&base.world, damage, |mode| {
        let (session, ids) = (base.world.session(OWNER), base.ids());
        let mode = if mode == "whole" { Mode::Whole } else { Mode::Touched };
        if let Err(error) = base.bring_back(&session, mode, &[], &ids) {
            panic!("{mode:?}: {:?}", chain(&error));
        }
        session.run("commit");
    });
}
