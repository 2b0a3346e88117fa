//! The way back: what a migration did is undone, exactly, and what users did since is kept.

mod accounts;
mod again;
mod alike;
mod damages;
mod definitions;
mod event_triggers;
mod foreseen;
mod ids;
mod large;
mod loaded;
mod managed;
mod mappings;
mod meanwhile;
mod notified;
mod numbers;
mod objects;
mod odd_names;
mod order;
mod planned;
mod refused;
mod rules;
mod strings;
mod together;
mod unseen;
mod views;

use crate::world::{ADMIN, Major, OWNER, Session, World};
use serde_json::json;
use snapbox::{assert_data_eq, str};
use supa_safe::effect::Besides;
use supa_safe::left_out::LeftOut;
use supa_safe::rollback::{Changed, Error, Mode, PATIENCE, Proved, Task, Translation};
use supa_safe::store::Snapshot;
use supa_safe::tools::installs::Installation;

pub(crate) const BEFORE: &str = include_str!("rollback/before.sql");

/// What the platform's own library lets its role do.
pub(crate) const AS_HOSTED: &str =
    "grant supabase_auth_admin, supabase_storage_admin, supabase_realtime_admin to postgres;
    grant set on parameter session_replication_role to postgres";

/// A snapshot of a database.
pub(crate) struct Base {
    pub(crate) world: World,
    pub(crate) snapshot: Snapshot,
    pub(crate) clients: Installation,
}

impl Base {
    fn new(major: Major) -> Self {
        let world = World::own_server_of(major, &[]);
        world.sql(ADMIN, AS_HOSTED);
        world.sql(OWNER, BEFORE);
        Self::of(world)
    }

    /// Takes a snapshot of a world's database.
    pub(crate) fn of(world: World) -> Self {
        drop(world.run(["snapshot"]).exits(0));
        let (snapshot, clients) = (world.snapshot(), world.clients());
        Self { world, snapshot, clients }
    }

    /// The ids that the snapshot's objects have now.
    pub(crate) fn ids(&self) -> Translation {
        self.world.translation(&self.snapshot, &self.clients)
    }

    /// Takes the session's database back in a transaction that is left open.
    pub(crate) fn bring_back(
        &self,
        session: &Session,
        mode: Mode,
        tables: &[&str],
        ids: &Translation,
    ) -> Result<Proved, Error> {
        self.with_task(mode, tables, ids, |task| session.bring_back(task))
    }

    /// The same, with all that the rehearsal compares.
    fn rehearse(&self, session: &Session, mode: Mode, tables: &[&str]) -> Result<(), Error> {
        self.with_task(mode, tables, &self.ids(), |task| {
            let proved = session.bring_back(task)?;
            session.proved_besides(task, &proved)
        })
    }

    fn with_task<T>(
        &self,
        mode: Mode,
        tables: &[&str],
        ids: &Translation,
        act: impl FnOnce(&Task<'_>) -> T,
    ) -> T {
        let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
        act(&Task {
            snapshot: &self.snapshot,
            mode,
            tables: &tables,
            besides: &Besides::default(),
            versions: &[],
            clients: &self.clients,
            left_out: &LeftOut::default(),
            translation: ids,
            storage: None,
            patience: PATIENCE,
            keep_in: None,
        })
    }
}

#[test]
fn a_server_learns_soon_that_nobody_is_there() {
    let base = Base::new(Major::Pg17);
    let session = base.world.session(OWNER);
    drop(base.bring_back(&session, Mode::Touched, &[], &base.ids()).unwrap());
    let shown =
        "select current_setting('tcp_keepalives_idle')::int + current_setting('tcp_keepalives_interval')::int
        * current_setting('tcp_keepalives_count')::int, current_setting('tcp_user_timeout')::int / 1000";
    assert_eq!(session.run(shown), ["30|30"]);
}

#[test]
fn a_table_that_nobody_thought_of_is_seen_in_the_rehearsal() {
    let world = World::hosted(&[]);
    world.sql(OWNER, NOTES);
    world.sql(OWNER, "create materialized view public.counted as select count(*) from public.others");
    let base = Base::of(world);
    base.world.sql(
        OWNER,
        "update public.notes set body = 'lost'; update public.others set note = 1; insert into public.others values (99);
        refresh materialized view public.counted",
    );
    let told = |tables: &[&str], mode: Mode| {
        let session = base.world.session(OWNER);
        match base.rehearse(&session, mode, tables) {
            Err(Error::NotExact(what)) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(&["public.notes"], Mode::Touched), ["public.others has 51 rows instead of 50"]);
    assert_eq!(
        told(&[], Mode::Touched),
        ["public.notes has other content", "public.others has 51 rows instead of 50"]
    );
    let session = base.world.session(OWNER);
    base.rehearse(&session, Mode::Touched, &["public.notes", "public.others"]).unwrap();
    session.run("rollback");
    base.rehearse(&session, Mode::Whole, &[]).unwrap();
}

/// Two tables of old, of which the migration touches one.
pub(crate) const NOTES: &str = "create table public.notes (id int primary key, body text);
    create table public.others (id int primary key, note int references public.notes);
    insert into public.notes select n, 'note ' || n from generate_series(1, 50) n;
    insert into public.others select n, n from generate_series(1, 50) n;";
pub(crate) const WRONG: &str = "update public.notes set body = 'lost';
    alter table public.notes add column more text;
    create table public.extra (id int primary key, note int references public.notes);";

pub(crate) fn pushed() -> World {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    drop(world.migrate(&[]).exits(0));
    assert_eq!(world.history(), ["20260101000000"]);
    world
}

/// What was taken back is not taken back twice by itself.
pub(crate) fn refused_as_done(world: &World) {
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the last push was taken back already, to snapshot [SNAPSHOT]
  the target was not touched
hint: To go back to it once more, run `supa-safe rollback [SNAPSHOT] --mode whole`

"#]]
    );
}

#[test]
fn the_last_push_is_taken_back_and_what_came_since_is_kept() {
    let world = pushed();
    world.sql(
        OWNER,
        "insert into public.notes values (51, 'new', 'x'); update public.notes set more = 'mine' where id = 7;
        insert into public.others values (51, 1), (52, 2); insert into public.extra values (1, 1)",
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let summary = ran.summary();
    let done = &summary["rolled_back"];
    assert_eq!((&done["mode"], &done["versions"]), (&json!("touched"), &json!(["20260101000000"])));
    assert_eq!(done["tables"], json!(["public.extra", "public.notes"]));
    assert_eq!(done["removed_tables"], json!(["public.extra"]));
    assert_eq!(world.history(), [""; 0]);
    assert_eq!(
        world.sql(OWNER, "select count(*), min(body), max(body) from public.notes"),
        ["50|note 1|note 9"]
    );
    assert_eq!(world.sql(OWNER, "select to_regclass('public.extra')"), ["~"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["52"]);
    let foreign_key =
        world.sql(OWNER, "select convalidated from pg_constraint where conname = 'others_note_fkey'");
    assert_eq!(foreign_key, ["t"]);
    let folder = std::path::PathBuf::from(done["folder"].as_str().unwrap());
    let saved = |table: &str| {
        let all = done["saved"].as_array().unwrap();
        let saved = all.iter().find(|saved| saved["table"] == table).unwrap();
        fs_err::read_to_string(folder.join(saved["file"].as_str().unwrap())).unwrap()
    };
    assert_eq!(saved("public.extra"), "id,note\n1,1\n");
    let message = fs_err::read_to_string(folder.join("message.md")).unwrap();
    assert_eq!(done["message"], message);
    // The migration wrote every row, so every row differs from the snapshot's.
    assert_eq!(saved("public.notes").lines().count(), 52);
    assert!(saved("public.notes").lines().any(|line| line == "51,new,x"));

    refused_as_done(&world);
    // The file is pending again, and the way goes on.
    drop(world.migrate(&[]).exits(0));
    assert_eq!(world.history(), ["20260101000000"]);
    world.sql(OWNER, "insert into public.others values (53, 3)");
    let ran = world.run(["rollback", "--mode", "whole", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(world.history(), [""; 0]);
    // The push took a snapshot of its own: the first one is from before a rollback.
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["52"]);
    let saved = &ran.summary()["rolled_back"]["saved"];
    assert!(saved.as_array().unwrap().iter().any(|one| one["table"] == "public.others" && one["rows"] == 1));
}

#[test]
fn accounts_that_came_stay_and_those_that_went_stay_away() {
    let base = Base::new(Major::Pg17);
    let (new, gone) = ("99999999-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001");
    let items = format!(
        "select count(*) from public.items i join public.orders o on o.id = i.order_id where o.user_id = '{gone}'"
    );
    let items = base.world.sql(OWNER, &items).remove(0);
    base.world.sql(
        OWNER,
        &format!(
            "update public.products set price = 0; alter table public.orders add column more text;
            insert into auth.users (id, email) values ('{new}', 'new@x.y'); delete from auth.users where id = '{gone}'"
        ),
    );
    let orders = "select count(*) from public.orders where user_id =";
    assert_eq!(base.world.sql(OWNER, &format!("{orders} '{new}'")), ["1"]);
    for (mode, tables) in [(Mode::Touched, &["public.products", "public.orders"][..]), (Mode::Whole, &[])] {
        let session = base.world.session(OWNER);
        let proved = base.bring_back(&session, mode, tables, &base.ids()).unwrap();
        let names = |changed: &[Changed]| -> Vec<String> {
            changed.iter().map(|one| format!("{} {}", one.rows, one.table)).collect()
        };
        assert_eq!(names(&proved.accounts.loaded), ["1 public.orders"]);
        // The orders of the account, and the items of these, which stayed where only a part goes back.
        let items = format!("{items} public.items");
        let removed =
            if mode == Mode::Whole { vec!["16 public.orders", &items] } else { vec!["16 public.orders"] };
        assert_eq!(names(&proved.accounts.removed), removed);
        assert_eq!(proved.accounts.failed, None);
        assert_eq!(session.run(&format!("{orders} '{new}'")), ["1"]);
        assert_eq!(session.run(&format!("{orders} '{gone}'")), ["0"]);
        assert_eq!(session.run("select count(*) from public.orders"), ["305"]);
        assert_eq!(session.run("select min(price) from public.products"), ["1"]);
        // The next number is free.
        session.run("insert into public.orders (note) values ('next')");
        session.run("rollback");
    }
}

#[test]
fn rows_that_would_refer_to_nothing_go_back_with_their_table() {
    let world = pushed();
    world.sql(
        OWNER,
        "insert into public.notes values (51, 'new', 'x'); insert into public.others values (51, 51)",
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let tables = &ran.summary()["rolled_back"]["tables"];
    assert_eq!(tables, &json!(["public.extra", "public.notes", "public.others"]));
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["50"]);
    let saved = ran.summary()["rolled_back"]["saved"].clone();
    assert!(saved.as_array().unwrap().iter().any(|one| one["table"] == "public.others" && one["rows"] == 1));
}

/// What a push can do to what is no table, and to tables that it leaves alone otherwise.
const BESIDES: &str = "select setval('public.tickets', 5000);
    select setval('public.numbered_id_seq', 7000);
    select setval('public.behind_id_seq', 1, false);
    select setval('public.used', 9000);
    select lo_unlink(424242);
    select lo_put(424243, 0, 'gone');
    grant select on large object 424244 to anon;
    select lo_from_bytea(424260, 'theirs');";

#[test]
fn sequences_and_large_objects_go_back_as_far_as_rows_allow() {
    let world = World::hosted(&[("20260101000000_besides", BESIDES)]);
    world.sql(
        OWNER,
        "create sequence public.tickets; select setval('public.tickets', 41);
        create sequence public.used; select setval('public.used', 7);
        create table public.numbered (id serial primary key); create table public.behind (id serial primary key);
        insert into public.numbered select from generate_series(1, 30);
        insert into public.behind select from generate_series(1, 20);
        select lo_from_bytea(424242, 'one'), lo_from_bytea(424243, 'three'), lo_from_bytea(424244, 'five'), lo_from_bytea(424245, 'mine');
        grant update on large object 424242 to authenticated;
        comment on large object 424242 is 'a large object'; comment on large object 424245 is 'mine'",
    );
    let before = world.state();
    drop(world.migrate(&[]).exits(0));
    // Users go on: new numbers, and large objects of their own.
    world.sql(
        OWNER,
        "insert into public.numbered select from generate_series(1, 2); select nextval('public.used');
        select lo_unlink(424245), lo_from_bytea(424250, 'new')",
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], json!("touched"));
    let at = |sequence: &str| {
        world.sql(OWNER, &format!("select last_value, is_called from public.{sequence}")).remove(0)
    };
    let found = ["tickets", "behind_id_seq", "numbered_id_seq", "used"].map(at);
    assert_eq!(found, ["41|t", "20|t", "7002|t", "9001|t"]);
    let large = "select oid, convert_from(lo_get(oid), 'UTF8'), obj_description(oid, 'pg_largeobject') \
        from pg_largeobject_metadata order by 1";
    assert_eq!(
        world.sql(OWNER, large),
        ["424242|one|a large object", "424243|three|~", "424244|five|~", "424250|new|~"]
    );
    // But for what users did.
    world.sql(
        OWNER,
        "delete from public.numbered where id > 30; select lo_unlink(424250), lo_from_bytea(424245, 'mine');
        comment on large object 424245 is 'mine'",
    );
    let without_history = |state: Vec<String>| -> Vec<String> {
        state.into_iter().filter(|line| !line.contains("supabase_migrations")).collect()
    };
    assert_eq!(without_history(world.state()), without_history(before));
}

#[test]
fn rows_of_tables_named_like_key_words_follow_their_accounts() {
    let world = World::hosted(&[]);
    let (new, gone) = ("99999999-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001");
    world.sql(
        OWNER,
        &format!(
            r#"insert into auth.users (id, email) values ('{gone}', 'a@x.y');
            create table public."user" (id uuid primary key references auth.users on delete cascade, "select" text);
            create table public."order" (id serial primary key, "user" uuid references public."user" on delete cascade);
            insert into public."user" values ('{gone}', 'a'); insert into public."order" ("user") values ('{gone}')"#
        ),
    );
    let base = Base::of(world);
    base.world.sql(
        OWNER,
        &format!(
            r#"alter table public."user" add column more text; alter table public."order" add column more text;
            delete from auth.users; insert into auth.users (id, email) values ('{new}', 'b@x.y');
            insert into public."user" values ('{new}', 'b')"#
        ),
    );
    for mode in [Mode::Touched, Mode::Whole] {
        let session = base.world.session(OWNER);
        let proved = base.bring_back(&session, mode, &[], &base.ids()).unwrap();
        assert_eq!(proved.accounts.removed.len(), 2, "{:?}", proved.accounts);
        assert_eq!(session.run(r#"select "select" from public."user""#), ["b"]);
        session.run("rollback");
    }
}

#[test]
fn rows_that_refer_by_id_follow_what_came_back() {
    let world = World::hosted(&[]);
    world.sql(OWNER, NOTES);
    world.sql(
        OWNER,
        "create table public.gone (id int primary key); create sequence public.counter;
        create function public.f(a int) returns int language sql as 'select a';
        create domain public.named as regclass;
        create table public.refs (id int primary key, what regclass, named public.named, how regprocedure, kind regtype, many regclass[]);
        insert into public.refs values (1, 'public.notes', 'public.gone', 'public.f(int)', 'public.notes', '{public.notes}'),
            (2, 'public.others', 'public.counter', 'public.f(int)', 'int', '{public.others}');
        insert into public.refs values (3)",
    );
    world.sql(
        ADMIN,
        r#"insert into realtime.subscription (subscription_id, entity, claims) values (gen_random_uuid(), 'public.notes', '{"role": "anon"}')"#,
    );
    let rows = "set search_path = ''; select id, what, named, how, kind from public.refs order by id";
    let base = Base::of(world);
    let before = base.world.sql(OWNER, rows);
    base.world.sql(
        OWNER,
        "update public.notes set body = 'lost'; drop table public.gone; drop function public.f;
        create table public.later (id int); insert into public.refs (id, what) values (4, 'public.later')",
    );
    let session = base.world.session(OWNER);
    let proved = base.bring_back(&session, Mode::Touched, &["public.notes"], &base.ids()).unwrap();
    let after = session.run(rows);
    assert_eq!(after[..3], before);
    assert_eq!(
        proved.references,
        [
            "1 rows of public.refs refer in many to a relation that is gone, or has another id",
            "1 rows of public.refs refer in what to a relation that is gone, or has another id",
        ]
    );
    assert_eq!(session.run("select entity from realtime.subscription"), ["public.notes"]);
    session.run("rollback");
}

#[test]
fn queues_go_back_with_their_messages() {
    let world = World::hosted(&[]);
    world.sql(ADMIN, "create schema pgmq; grant all on schema pgmq to postgres");
    // As `pgmq.create` makes them.
    world.sql(
        OWNER,
        "create table pgmq.q_mail (msg_id bigint generated always as identity primary key, message jsonb);
        create table pgmq.a_mail (msg_id bigint primary key, message jsonb);
        insert into pgmq.q_mail (message) select to_jsonb(n) from generate_series(1, 9) n",
    );
    let base = Base::of(world);
    let ids = base.ids();
    for (mode, tables) in [(Mode::Touched, &["pgmq.q_mail"][..]), (Mode::Whole, &[])] {
        let session = base.world.session(OWNER);
        session.run("begin; delete from pgmq.q_mail where msg_id < 5; drop table pgmq.a_mail; create table pgmq.q_more (id int)");
        let proved = base.bring_back(&session, mode, tables, &ids).unwrap();
        assert!(proved.tables.contains(&"pgmq.q_mail".to_owned()), "{:?}", proved.tables);
        let found = session.run(
            "select count(*), sum(msg_id) from pgmq.q_mail; select to_regclass('pgmq.a_mail'), to_regclass('pgmq.q_more')",
        );
        assert_eq!(found, ["9|45", "pgmq.a_mail|~"]);
        session.run("rollback");
    }
}

#[test]
fn a_child_comes_again_below_a_check_that_was_never_proved() {
    let world = World::hosted(&[]);
    world.sql(
        OWNER,
        "create table public.top (a int, b text); create table public.low (c int) inherits (public.top);
        insert into public.low values (-1, 'x', 1);
        alter table public.top add constraint positive check (a > 0) not valid;
        comment on constraint positive on public.top is 'for new rows'",
    );
    let base = Base::of(world);
    let ids = base.ids();
    for damage in ["drop table public.low", "alter table public.low no inherit public.top"] {
        let session = base.world.session(OWNER);
        session.run(&format!("begin; {damage}"));
        let proved = base.bring_back(&session, Mode::Touched, &[], &ids).unwrap();
        assert_eq!(proved.mode, Mode::Touched);
        assert_eq!(session.run("select a, c from public.low"), ["-1|1"]);
        session.run("rollback");
    }
}
