//! What others do between the choice and the commit, and what of a push does not stand.

use super::{Base, NOTES, WRONG};
use crate::world::{ADMIN, OWNER, World};
use serde_json::json;
use snapbox::{assert_data_eq, str};
use supa_safe::effect::Besides;
use supa_safe::left_out::LeftOut;
use supa_safe::rollback::{Error, Mode, PATIENCE, Proved, Task};
use supa_safe::salvage::{self, Saved};

fn base(sql: &str) -> Base {
    let world = World::hosted(&[]);
    world.sql(ADMIN, sql);
    Base::of(world)
}

/// Takes the database back, and nothing of it stays.
fn foreseen(base: &Base, tables: &[&str], storage: Option<&Saved>, mode: Mode) -> Result<Proved, Error> {
    let (session, ids) = (base.world.session(OWNER), base.ids());
    let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
    let task = Task {
        snapshot: &base.snapshot,
        mode,
        tables: &tables,
        besides: &Besides::default(),
        versions: &["20260101000000".to_owned()],
        clients: &base.clients,
        left_out: &LeftOut::default(),
        translation: &ids,
        storage,
        patience: PATIENCE,
        keep_in: None,
    };
    let outcome = session.bring_back(&task);
    if outcome.is_ok() {
        // A push that comes now waits until it is over.
        let other = base.world.session(OWNER);
        let push =
            "set lock_timeout = '100ms'; insert into supabase_migrations.schema_migrations values ('9')";
        assert!(other.try_run(push).is_err());
    }
    session.run("rollback");
    outcome
}

const HISTORY: &str = "create schema supabase_migrations authorization postgres;
    create table supabase_migrations.schema_migrations (version text primary key);
    alter table supabase_migrations.schema_migrations owner to postgres;
    insert into supabase_migrations.schema_migrations values ('20250101000000');";

#[test]
fn a_push_after_the_choice_is_refused() {
    let base = base(&format!(
        "{HISTORY} create table public.notes (id int primary key); alter table public.notes owner to postgres"
    ));
    base.world.sql(OWNER, "insert into supabase_migrations.schema_migrations values ('20260101000000')");
    let go = |mode| foreseen(&base, &["public.notes"], None, mode);
    for mode in [Mode::Touched, Mode::Whole] {
        assert!(go(mode).is_ok());
    }
    base.world.sql(
        OWNER,
        "insert into supabase_migrations.schema_migrations values ('20260202000000');
        create table public.theirs (id int); insert into public.notes values (7)",
    );
    for mode in [Mode::Touched, Mode::Whole] {
        let outcome = go(mode);
        let Err(Error::History { came, went }) = outcome else { panic!("{mode:?}: {outcome:?}") };
        assert_eq!((came, went), (vec!["20260202000000".to_owned()], Vec::new()));
    }
    base.world.sql(OWNER, "delete from supabase_migrations.schema_migrations");
    let outcome = go(Mode::Touched);
    assert!(matches!(&outcome, Err(Error::History { went, .. }) if went.len() == 2), "{outcome:?}");
}

#[test]
fn rows_do_not_go_for_objects_that_do_not_come_back() {
    let base = base(&format!(
        "{HISTORY} insert into storage.buckets (id, name) values ('photos', 'photos');
        insert into storage.objects (bucket_id, name) values ('photos', 'a'), ('photos', 'b');
        create table public.files (object uuid primary key references storage.objects on delete cascade);
        alter table public.files owner to postgres;
        insert into public.files select id from storage.objects"
    ));
    base.world.sql(
        ADMIN,
        "insert into supabase_migrations.schema_migrations values ('20260101000000');
        set storage.allow_delete_query = 'true'; delete from storage.objects where name = 'a'",
    );
    for mode in [Mode::Touched, Mode::Whole] {
        let outcome = foreseen(&base, &["public.files"], None, mode);
        assert!(matches!(&outcome, Err(Error::Objects(lost)) if lost.len() == 1), "{mode:?}: {outcome:?}");
        // A user removed it, when the push is known not to have.
        let proved = foreseen(&base, &["public.files"], Some(&salvage::nothing()), mode).unwrap();
        assert_eq!(proved.accounts.removed.len(), 1, "{mode:?}");
    }
}

#[test]
fn what_of_a_push_does_not_stand_is_not_taken_back() {
    let world = World::hosted(&[("20250101000000_notes", NOTES)]);
    drop(world.migrate(&[]).exits(0));
    world.migration("20260101000000_others", "update public.others set note = 1 where id > 45");
    let gone = "delete from supabase_migrations.schema_migrations where version = '20260101000000'";
    drop(world.migrate(&[]).exits(0));
    world.sql(OWNER, gone);
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: nothing of the last push stands: the history and everything that the schema owns are as in snapshot [SNAPSHOT]
  the target was not touched
hint: Where a file that is not all-or-nothing wrote rows before it failed, name their tables with `--table`
hint: To take back everything that was written since the snapshot, pass `--mode whole`

"#]]
    );
    // Of this one, the first file does not stand and the second one does.
    world.migration("20260102000000_wrong", WRONG);
    drop(world.migrate(&[]).exits(0));
    world.sql(OWNER, gone);
    world.sql(OWNER, "insert into public.others values (51, 1)");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let done = &ran.summary()["rolled_back"];
    assert_eq!(
        (&done["mode"], &done["tables"]),
        (&json!("touched"), &json!(["public.extra", "public.notes"]))
    );
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["51"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.notes where body = 'lost'"), ["0"]);
}

#[test]
fn a_table_that_nobody_has_is_no_table_to_take_back() {
    let world = World::hosted(&[]);
    world.sql(OWNER, NOTES);
    drop(world.run(["snapshot"]).exits(0));
    let ran =
        world.run(["rollback", "--table", "notes", "--table", "public.others", "--confirm", &world.target()]);
    assert_data_eq!(
        ran.exits(2).failure(),
        str![[r#"
error: `notes`: no table of yours has this name, neither on the target nor in the snapshot
  the target was not touched
hint: Instead of `notes`, is it `public.notes`?

"#]]
    );
}
