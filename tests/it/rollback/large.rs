//! Large objects that users wrote since the snapshot: kept in files before they go, and loaded again.

use super::{Base, NOTES, WRONG};
use crate::rollback_live::run_as_printed;
use crate::scratch::until;
use crate::world::{OWNER, Session, World};
use serde_json::json;
use supa_safe::disk;
use supa_safe::rollback::{Mode, Task};

/// More than is read at once.
const LONG: usize = (4 << 20) + 5;

#[test]
fn large_objects_of_users_are_kept_and_loaded_again() {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    world.sql(
        OWNER,
        "select lo_from_bytea(424242, 'one'), lo_from_bytea(424243, 'two'), lo_from_bytea(424244, '')",
    );
    drop(world.migrate(&[]).exits(0));
    world.sql(
        OWNER,
        &format!(
            "select lo_put(424242, 0, 'changed'), lo_from_bytea(424250, 'new'), lo_from_bytea(424251, ''),
                lo_from_bytea(424252, convert_to(repeat('x', {LONG}), 'UTF8'));
             alter large object 424250 owner to anon"
        ),
    );
    let new = "select oid, lomowner::regrole, md5(lo_get(oid)) from pg_largeobject_metadata
        where oid between 424250 and 424260 order by oid";
    let since = world.sql(OWNER, new);
    let ran = world.run(["rollback", "--mode", "whole", "--confirm", &world.target(), "--json"]).exits(0);
    let done = ran.summary()["rolled_back"].clone();
    let kept = |oid: u32, owner: &str, bytes: usize, is_changed: bool| json!({ "oid": oid, "owner": owner, "bytes": bytes, "file": format!("large-{oid}.bin"), "is_changed": is_changed });
    assert_eq!(
        done["large_objects"],
        json!([
            kept(424_242, "postgres", 7, true),
            kept(424_250, "anon", 3, false),
            kept(424_251, "postgres", 0, false),
            kept(424_252, "postgres", LONG, false)
        ])
    );
    let contents = "select oid, convert_from(lo_get(oid), 'UTF8') from pg_largeobject_metadata order by oid";
    assert_eq!(world.sql(OWNER, contents), ["424242|one", "424243|two", "424244|"]);

    run_as_printed(&world, &format!("cd '{}' && psql <url> -f load.sql", done["folder"].as_str().unwrap()));
    assert_eq!(world.sql(OWNER, new), since);
    let others = "select convert_from(lo_get(oid), 'UTF8'), obj_description(oid, 'pg_largeobject')
        from pg_largeobject_metadata where oid not between 424250 and 424260 order by oid between 424242 and 424244, oid";
    assert_eq!(
        world.sql(OWNER, others),
        ["changed|large object 424242, as it was before the rollback", "one|~", "two|~", "|~"]
    );
    // What is there already stays as it is.
    world.sql(OWNER, "select lo_put(424250, 0, 'old')");
    run_as_printed(&world, &format!("cd '{}' && psql <url> -f load.sql", done["folder"].as_str().unwrap()));
    assert_eq!(world.sql(OWNER, "select convert_from(lo_get(424250), 'UTF8')"), ["old"]);
    // An owner to whom nothing can be given keeps nothing away.
    world.sql(OWNER, "select lo_unlink(424250)");
    let script = std::path::Path::new(done["folder"].as_str().unwrap()).join("load.sql");
    let text = fs_err::read_to_string(&script).unwrap().replace("'anon'", "'supabase_admin'");
    disk::write(&script, text.as_bytes()).unwrap();
    run_as_printed(&world, &format!("cd '{}' && psql <url> -f load.sql", done["folder"].as_str().unwrap()));
    let found = "select lomowner::regrole, convert_from(lo_get(oid), 'UTF8') from pg_largeobject_metadata where oid = 424250";
    assert_eq!(world.sql(OWNER, found), ["postgres|new"]);
}

/// Waits until a session of the database waits for a lock on an object, given by a cast that finds its id.
fn until_waiting(session: &Session, object: &str) {
    let sql = format!(
        "select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())
            and objid = {object}"
    );
    until("the rollback waits", || session.run(&sql) == ["1"]);
}

#[test]
fn large_objects_that_are_written_during_a_rollback_are_not_lost() {
    let world = World::hosted(&[]);
    world.sql(
        OWNER,
        "create function public.f() returns int language sql as 'select 1'; create schema aside; create table aside.gone ();
        select lo_from_bytea(424242, 'one'), lo_from_bytea(424243, 'two')",
    );
    let base = Base::of(world);
    let (world, ids, kept) = (&base.world, base.ids(), base.world.path("kept"));
    world.sql(OWNER, "select lo_from_bytea(424244, 'three'); drop table aside.gone");
    let [function, schema, user] = [OWNER; 3].map(|role| world.session(role));
    function.run("begin; comment on function public.f() is 'held'");
    schema.run("begin; drop schema aside");
    let session = world.session(OWNER);
    let proved = std::thread::scope(|scope| {
        let rollback = scope.spawn(|| {
            base.with_task(Mode::Whole, &[], &ids, |task| {
                session.bring_back(&Task { keep_in: Some(&kept), ..*task })
            })
        });
        until_waiting(&user, "'public.f'::regproc");
        user.run(
            "select lo_put(424242, 0, 'won'); select lo_from_bytea(424250, 'new'); select lo_unlink(424244)",
        );
        function.run("rollback");
        until_waiting(&user, "'aside'::regnamespace");
        user.run("select lo_from_bytea(424251, 'later')");
        schema.run("rollback");
        rollback.join().unwrap()
    });
    let file = |oid: u32| fs_err::read_to_string(kept.join(format!("large-{oid}.bin"))).unwrap();
    let saved: Vec<_> = proved.unwrap().large_objects.iter().map(|one| (one.oid, file(one.oid))).collect();
    assert_eq!(saved, [(424_242, "won".to_owned()), (424_250, "new".to_owned())]);
    let contents = "select oid, convert_from(lo_get(oid), 'UTF8') from pg_largeobject_metadata order by oid";
    assert_eq!(session.run(contents), ["424242|one", "424243|two", "424251|later"]);
}
