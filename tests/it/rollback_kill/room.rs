//! A disk that is full while objects are saved, and locks that never come on tables that are not ours: production is
//! as before, and a later run does it all.

use super::objects::Damaged;
use crate::rollback::AS_HOSTED;
use crate::world::{ADMIN, Major, OWNER, World, told};
use snapbox::{assert_data_eq, str};
use std::path::PathBuf;

/// What people put in the place of objects needs room before it is written over.
#[test]
fn a_full_disk_while_objects_are_saved() {
    let mut world = World::hosted(&[("20260101000000_wrong", "create table public.wrong (id int);")]);
    let disk = PathBuf::from(told("SUPA_SAFE_TEST_SALVAGED_DISK")).join("state");
    world.set("SUPA_SAFE_STATE_DIR", &disk);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "a", b"bytes of a");
    drop(world.migrate(&[]).exits(0));
    let large = vec![7; 20 << 20];
    bucket.put("photos", "a", &large);
    let damaged = world.state();
    let args = ["rollback", "--mode", "whole", "--confirm", &world.target()];
    let ran = world.run(args).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: cannot write the bytes of an object
  caused by: No space left on device (os error 28) at path "[..]"
  nothing was changed
hint: Make room on the disk of the state folder, then run it again

"#]]
    );
    assert_eq!(world.state(), damaged);
    assert_eq!(bucket.get("photos", "a"), large);
    bucket.put("photos", "a", b"others");
    drop(world.run(args).exits(0));
    assert_eq!(bucket.get("photos", "a"), b"bytes of a");
    fs_err::remove_dir_all(disk).unwrap();
}

/// What the push did to tables that belong to the platform, and to rows of Storage.
const ON_MANAGED: &str =
    "create function public.spy() returns trigger language plpgsql as 'begin return new; end';
    create trigger spy after insert on auth.users for each row execute function public.spy();
    create policy opened on storage.objects for select to anon using (true);
    update storage.objects set owner_id = 'nobody';
    create table public.wrong (id int);";

/// Somebody reads tables of the platform, and never ends.
#[test]
fn tables_of_the_platform_that_are_never_free() {
    let mut world = World::own_server(&[("20260101000000_wrong", ON_MANAGED)]);
    world.sql(ADMIN, AS_HOSTED);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "a", b"bytes of a");
    drop(world.migrate(&[]).exits(0));
    let damaged = world.state();
    let reader = world.session(ADMIN);
    for (mode, table) in [("touched", "auth.users"), ("whole", "storage.objects")] {
        reader.run(&format!("begin; select count(*) from {table}"));
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target()]).exits(1);
        assert_data_eq!(
            ran.failure(),
            str![[r#"
error: the rollback failed in `[..]`
  caused by: ERROR: canceling statement due to lock timeout
  nothing was changed
hint: See whose transaction holds its tables: `select pid, query from pg_stat_activity where state = 'idle in transaction'`
hint: Run it again when that has ended

"#]]
        );
        assert_eq!(world.state(), damaged, "{mode}");
        reader.run("rollback");
    }
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(0));
    assert_eq!(world.history(), [""; 0]);
    assert_eq!(world.sql(OWNER, "select count(*) from storage.objects where owner_id = 'nobody'"), ["0"]);
}

/// Rows of Storage alone, and what is left to do after the commit, are not waited for without end either.
#[test]
fn rows_of_storage_that_are_never_free() {
    let all = Damaged::new(Major::Pg17, "whole");
    let holder = all.world.session(ADMIN);
    holder.run("begin; select 1 from storage.objects where name = 'altered' for update");
    let ran = all.world.run(["rollback", "--only", "storage", "--confirm", &all.world.target()]).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: cannot write to the rows of schema storage
  caused by: ERROR: canceling statement due to lock timeout
  nothing was changed
hint: See whose transaction holds its tables: `select pid, query from pg_stat_activity where state = 'idle in transaction'`
hint: Run it again when that has ended

"#]]
    );
    holder.run("rollback");
    assert!(!all.is_back("a row"));

    holder.run("begin; select 1 from storage.buckets where id = 'photos' for update");
    assert_data_eq!(
        all.run().exits(22).failure(),
        str![[r#"
error: cannot write to the rows of schema storage
  caused by: ERROR: canceling statement due to lock timeout
  the rows are as in the snapshot; the objects of Storage are not yet
  what was kept first, and a text on what was done, are in [ROOT]/state/[..]
hint: Run `supa-safe rollback` again: it goes on with Storage
hint: Where these objects cannot come back, `supa-safe rollback --leave-objects` ends it without them

"#]]
    );
    holder.run("rollback");
    assert!(all.is_back("a bucket"));
    all.finish("when it is free");
}
