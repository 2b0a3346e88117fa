//! Each damage alone. What most migrations that go wrong do is pushed with the real CLI and taken back by the
//! program; what few do, in a session. Here each of the former once on each major version, with the other mode and
//! the other default privileges there; with `SUPA_SAFE_TEST_DAMAGES=every` all of them in every way
//! (`tests/soak/rollback`).

use super::{AS_HOSTED, BEFORE, Base};
use crate::rollback_rights::{CLASSIC, EXPLICIT};
use crate::world::{ADMIN, Major, OWNER, Ran, World, same};
use serde_json::json;
use supa_safe::failure::chain;
use supa_safe::rollback::Mode;

/// A damage's name, and what a migration does.
type Damage = (&'static str, &'static str);

const ROWS_AND_SHAPES: &[Damage] = &[
    ("rows changed", "update public.products set price = 0"),
    ("rows deleted", "delete from public.items; delete from public.orders where id % 2 = 0"),
    ("column dropped", "alter table public.orders drop column note cascade"),
    ("column renamed", "alter table public.orders rename column placed to placed_at"),
    ("type changed", "alter table public.audit alter column what type varchar(100)"),
    ("table dropped", "drop table public.products cascade"),
    ("table added", "create table public.reviews (id int primary key, product_id bigint references public.products, body text);
        insert into public.reviews values (1, 1, 'x')"),
    ("partition added", "create table public.events_3 partition of public.events for values from ('2026-03-01') to ('2026-04-01')"),
];

const VIEWS_AND_RIGHTS: &[Damage] = &[
    ("view added", "create view public.names as select sku from public.products"),
    ("materialized view added", "create materialized view public.m as select id, note from public.orders"),
    ("enum value added", "alter type public.mood add value 'great'"),
    (
        "policy opened",
        "create policy everything on public.orders for all to anon using (true); drop policy own on public.orders",
    ),
    (
        "row security off",
        "alter table public.orders disable row level security; alter table public.audit no force row level security",
    ),
    (
        "grant widened",
        "grant all on public.audit to anon; grant execute on function public.secret_count() to public; grant update (price) on public.products to anon",
    ),
    (
        "function replaced",
        "create or replace function public.total(o bigint) returns bigint language sql security definer as 'select 1::bigint'",
    ),
    ("sequence moved", "select setval('public.tickets', 5000)"),
];

const ROLES_AND_THE_REST: &[Damage] = &[
    ("membership granted", "grant service_role to authenticated; grant pg_read_all_data to anon"),
    (
        "role changed",
        "grant authenticated to clerk with admin option; revoke anon from clerk; alter role clerk createdb connection limit 9; alter role clerk set work_mem = '1MB'; alter role clerk reset lock_timeout",
    ),
    (
        "role setting changed",
        "alter role anon set statement_timeout = 0; alter role authenticated reset statement_timeout",
    ),
    (
        "trigger on auth.users added",
        "create function public.spy() returns trigger language plpgsql security definer as 'begin return new; end'; create trigger spy after insert on auth.users for each row execute function public.spy()",
    ),
    (
        "schema added",
        "create schema extra; create table extra.t (id int); insert into extra.t values (1); grant usage on schema extra to anon",
    ),
    (
        "extension added",
        "create extension citext schema extensions; create table public.c (a extensions.citext)",
    ),
    (
        "publication changed",
        "alter publication supabase_realtime drop table public.orders; alter publication supabase_realtime add table public.audit; create publication more for table public.items",
    ),
];

/// Less common ones, and the tables in which they write rows.
const OTHERS: &[(&str, &str, &[&str])] = &[
    ("column added", "alter table public.audit add column who text default current_user", &[]),
    (
        "default changed",
        "alter table public.orders alter column note set default 'x', alter column placed drop not null",
        &[],
    ),
    ("check dropped", "alter table public.orders drop constraint orders_note_check", &[]),
    ("key dropped", "alter table public.products drop constraint products_pkey cascade", &[]),
    ("table renamed", "alter table public.audit rename to journal", &[]),
    (
        "view replaced",
        "create or replace view public.order_notes as select id, note from public.orders where id > 5",
        &[],
    ),
    (
        "policy on storage opened",
        "drop policy photos on storage.objects; create policy all_photos on storage.objects for select to anon using (true)",
        &[],
    ),
    (
        "grant narrowed",
        "revoke all on public.products from authenticated, service_role; revoke usage on schema app from authenticated",
        &[],
    ),
    (
        "default privileges changed",
        "alter default privileges in schema public grant all on tables to pg_monitor; alter default privileges revoke execute on functions from public; alter default privileges in schema app revoke select on tables from authenticated",
        &[],
    ),
    (
        "default privileges of the database changed",
        "alter default privileges grant select on tables to pg_monitor; alter default privileges revoke all on sequences from postgres; alter default privileges grant usage on schemas to anon",
        &[],
    ),
    (
        "function with another result",
        "drop function public.total(bigint); create function public.total(o bigint) returns text language sql as 'select null::text'",
        &[],
    ),
    ("function dropped", "drop function public.log_order() cascade", &[]),
    ("trigger on auth.users dropped", "drop trigger on_sign_up on auth.users", &[]),
    ("trigger disabled", "alter table public.orders disable trigger log_order", &[]),
    ("schema dropped", "drop schema app cascade", &[]),
    ("sequence changed", "alter sequence public.tickets increment by 7", &[]),
    (
        "partition detached",
        "alter table public.events detach partition public.events_1; delete from public.events_1",
        &["public.events_1"],
    ),
    (
        "index dropped",
        "drop index public.events_body; drop index public.prices_sku; create index more on public.orders (note)",
        &[],
    ),
    (
        "comment changed",
        "comment on table public.orders is 'theirs'; comment on column public.orders.note is null; comment on view public.order_notes is 'v'",
        &[],
    ),
    (
        "what was granted is passed on",
        "grant anon to service_role with admin option; grant all on public.products to service_role with grant option;
        set role service_role; grant anon to authenticated; grant select on public.products to pg_monitor; reset role",
        &[],
    ),
    ("domain changed", "alter domain public.positive drop constraint positive_check", &[]),
    (
        "role added",
        "create role reader login; grant select on public.products to reader; grant reader to anon; alter role reader set work_mem = '1MB'",
        &[],
    ),
    (
        "database setting changed",
        "do $$begin execute format('alter database %I set work_mem = 1234', current_database()); end$$",
        &[],
    ),
    (
        "marks of indexes",
        "alter table public.orders cluster on orders_pkey; alter index public.prices_sku set (fillfactor = 50); alter index public.orders_pkey set (fillfactor = 70); alter table public.products replica identity using index products_sku_key",
        &[],
    ),
    (
        "trigger on a parent added",
        "create trigger log_more after insert on public.ledger for each row execute function public.log_order()",
        &[],
    ),
    ("trigger on a parent dropped", "drop trigger mark on public.ledger", &[]),
    (
        "privileges of the platform's objects",
        "grant select on auth.users to anon; grant select (provider) on auth.identities to anon; grant create on schema extensions to anon; grant execute on all functions in schema extensions to anon",
        &[],
    ),
    (
        "objects in schema extensions",
        "create function extensions.spy() returns trigger language plpgsql as 'begin return new; end'; create trigger spy after insert on auth.users for each row execute function extensions.spy(); create table extensions.seen (id serial); alter table extensions.own add column more int; comment on table extensions.own is 'theirs'",
        &[],
    ),
    (
        "database changed",
        "do $$begin execute format('grant create on database %I to anon', current_database()); execute format('comment on database %I is ''theirs''', current_database()); execute format('alter database %I connection limit 9', current_database()); end$$",
        &[],
    ),
    (
        "function and view chain",
        "create function public.f(p public.products) returns text language sql as 'select (p).sku'; create view public.v as select public.f(p) from public.products p",
        &[],
    ),
];

/// What a rollback gives back, as it is now: with the numbers of sequences, and large objects.
fn state(world: &World) -> Vec<String> {
    let mut state = world.state();
    for more in [
        "select 'sequence', schemaname, sequencename, last_value from pg_sequences where sequenceowner = 'postgres' order by 1, 2, 3",
        "select 'large object', oid, md5(lo_get(oid)), lomowner::regrole, lomacl from pg_largeobject_metadata order by 2",
    ] {
        state.extend(world.sql(ADMIN, more));
    }
    state
}

/// What a rollback gives back, as the tests measure it, and as `pg_dump` tells it.
pub(super) struct Before {
    state: Vec<String>,
    dump: Vec<String>,
}

impl Before {
    pub(super) fn of(world: &World) -> Self {
        Self { state: state(world), dump: world.dumped() }
    }

    /// Demands that something happened since.
    #[track_caller]
    pub(super) fn is_gone(&self, world: &World, name: &str) {
        assert!(same(&self.state, &state(world)).is_err(), "{name}: nothing happened");
    }

    /// Demands that everything is there again, as often as it was.
    pub(super) fn is_back(&self, world: &World) -> Result<(), String> {
        same(&self.state, &state(world))?;
        same(&self.dump, &world.dumped())
    }
}

/// The project, with these default privileges.
fn project(major: Major, privileges: &str) -> World {
    let world = World::own_server_of(major, &[]);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(OWNER, privileges);
    world.sql(OWNER, BEFORE);
    world.sql(
        OWNER,
        "create role clerk; grant anon, authenticated to clerk; alter role clerk set work_mem = '2MB';
        alter role clerk set lock_timeout = '1s'",
    );
    world
}

/// Pushes each damage alone and takes it back.
fn each_pushed(major: Major, explicit_on: Major, damages: &[Damage]) {
    for privileges in privileges(major == explicit_on) {
        let world = project(major, privileges);
        let before = Before::of(&world);
        for (at, (name, damage)) in damages.iter().enumerate() {
            let file = format!("202601010000{at:02}_wrong");
            world.migration(&file, damage);
            for mode in modes(major, at) {
                pushed_and_taken_back(&world, (name, mode), &before)
                    .unwrap_or_else(|why| panic!("{name}, {mode}: {why}"));
            }
            world.remove(&format!("supabase/migrations/{file}.sql"));
        }
    }
}

/// The default privileges with which a damage goes.
pub(super) fn privileges(is_explicit: bool) -> &'static [&'static str] {
    if every() {
        &[CLASSIC, EXPLICIT]
    } else if is_explicit {
        &[EXPLICIT]
    } else {
        &[CLASSIC]
    }
}

/// The modes in which a damage goes: on each major version the other one, and every second damage the other way.
fn modes(major: Major, at: usize) -> &'static [&'static str] {
    if every() {
        &["touched", "whole"]
    } else if at.is_multiple_of(2) == (major == Major::Pg15) {
        &["touched"]
    } else {
        &["whole"]
    }
}

fn every() -> bool {
    std::env::var("SUPA_SAFE_TEST_DAMAGES").is_ok_and(|which| which == "every")
}

fn pushed_and_taken_back(world: &World, (name, mode): (&str, &str), before: &Before) -> Result<(), String> {
    let succeeded = |ran: Ran| if ran.code == 0 { Ok(ran) } else { Err(ran.to_string()) };
    drop(succeeded(world.migrate(&[]))?);
    before.is_gone(world, name);
    let ran = succeeded(world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]))?;
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!(mode));
    before.is_back(world)
}

/// Each damage in a session on the same database. The second mode is committed, and what it left is told from
/// outside; of the first one, the rows are.
fn each_in_a_session(major: Major, privileges: &str, modes: [Mode; 2]) {
    let base = Base::of(project(major, privileges));
    let (dump, before) = (base.world.dumped(), base.world.session(OWNER).contents());
    let mut wrong = Vec::new();
    for (name, sql, tables) in OTHERS {
        base.world.sql(OWNER, sql);
        let (session, ids) = (base.world.session(OWNER), base.ids());
        for mode in modes {
            let tables = if mode == Mode::Touched { tables } else { &[][..] };
            let outcome = base.bring_back(&session, mode, tables, &ids);
            let outcome = outcome.map_err(|error| format!("{:?}", chain(&error)));
            let outcome = outcome.and_then(|_| same(&before, &session.contents()));
            let is_last = mode == modes[1];
            let is_back = outcome.is_ok();
            session.run(if is_last && is_back { "commit" } else { "rollback" });
            let outcome =
                outcome.and_then(|()| if is_last { same(&dump, &base.world.dumped()) } else { Ok(()) });
            wrong.extend(outcome.err().map(|why| format!("{name}, {}: {why}", mode.as_str())));
            // The next one would be blamed for it.
            assert!(!is_last || is_back, "{}", wrong.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn each_other(major: Major, explicit_on: Major, modes: [Mode; 2]) {
    if every() {
        let pushed: Vec<Damage> = OTHERS.iter().map(|(name, damage, _)| (*name, *damage)).collect();
        each_pushed(major, explicit_on, &pushed);
    } else {
        each_in_a_session(major, if major == explicit_on { EXPLICIT } else { CLASSIC }, modes);
    }
}

#[test]
fn each_damage_to_rows_and_shapes_on_15() {
    each_pushed(Major::Pg15, Major::Pg17, ROWS_AND_SHAPES);
}

#[test]
fn each_damage_to_rows_and_shapes_on_17() {
    each_pushed(Major::Pg17, Major::Pg17, ROWS_AND_SHAPES);
}

#[test]
fn each_damage_to_views_and_rights_on_15() {
    each_pushed(Major::Pg15, Major::Pg15, VIEWS_AND_RIGHTS);
}

#[test]
fn each_damage_to_views_and_rights_on_17() {
    each_pushed(Major::Pg17, Major::Pg15, VIEWS_AND_RIGHTS);
}

#[test]
fn each_damage_to_roles_and_the_rest_on_15() {
    each_pushed(Major::Pg15, Major::Pg15, ROLES_AND_THE_REST);
}

#[test]
fn each_damage_to_roles_and_the_rest_on_17() {
    each_pushed(Major::Pg17, Major::Pg15, ROLES_AND_THE_REST);
}

#[test]
fn each_damage_of_other_kinds_on_15() {
    each_other(Major::Pg15, Major::Pg15, [Mode::Whole, Mode::Touched]);
}

#[test]
fn each_damage_of_other_kinds_on_17() {
    each_other(Major::Pg17, Major::Pg15, [Mode::Touched, Mode::Whole]);
}
