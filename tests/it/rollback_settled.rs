//! A rollback whose run died at its commit, or could not bring all objects of Storage back: the next run, on
//! this machine or on another one, says what is true, finishes it, and tells the team.

use crate::rollback_kill::{
    GATE, close_gate, confirmation, open_gate, rollback, until_commit_waits, until_nobody_is_left,
};
use crate::scratch::until;
use crate::world::{ADMIN, Bucket, Cli, Major, OWNER, Ran, World};
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};
use supa_safe::demo::storage::{Kind, Operation};

const WRONG: &str = "alter table public.notes drop column body; delete from public.notes where id > 2;";

/// A world with a history, rows, and a gate that keeps a rollback's commit waiting.
fn gated(world: &World) {
    world.sql(
        OWNER,
        "create schema supabase_migrations;
         create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text);
         create table public.notes (id int primary key, body text not null);
         insert into public.notes select i, 'note ' || i from generate_series(1, 5) i;
         select 1",
    );
    world.sql(OWNER, GATE);
    world.migration("20260101000000_wrong", WRONG);
}

/// Kills a rollback whose commit waits, and lets the server go on with it.
fn kill_at_the_commit(world: &World, args: &[&str]) {
    let gate = close_gate(world);
    let confirm = confirmation(world);
    let mut run = crate::kill::Going::start(world, &[&["rollback", "--confirm", &confirm], args].concat());
    run.until_type("rolling-back");
    until_commit_waits(world);
    run.kill();
    open_gate(&gate);
    // The double has sessions of its own.
    let session = world.session(ADMIN);
    let commits =
        "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and query like '%notify pgrst%commit%'";
    until("the commit has ended", || session.run(commits).is_empty());
}

/// The text for the team, and that it is in the folder too.
fn message(summary: &Value) -> String {
    let done = &summary["rolled_back"];
    let text = done["message"].as_str().unwrap();
    let folder = std::path::Path::new(done["folder"].as_str().unwrap());
    assert_eq!(fs_err::read_to_string(folder.join("message.md")).unwrap(), text);
    text.to_owned()
}

#[test]
fn another_machine_learns_what_a_dead_one_committed() {
    let mut world = World::hosted(&[]);
    let weed = world.weed();
    gated(&world);
    let before = world.state();
    drop(world.migrate(&[]).exits(0));
    world.sql(OWNER, "insert into public.notes values (51)");
    kill_at_the_commit(&world, &[]);
    assert_eq!(world.state(), before);
    // What users write afterwards is nobody's to take back.
    world.sql(OWNER, "insert into public.notes values (52, 'after')");
    let after = world.state();
    // Nobody can wait for two minutes here.
    weed.remove(&weed.key("/locks/run"));

    let mut other = World::new(Major::Pg17, Cli::V3);
    other.same_target(&world);
    let status = other.run(["status", "--json"]).exits(0).document();
    let run = status["unsettled_rollback"].as_str().unwrap().to_owned();
    let ran = other.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!((ran.events_of("rolled-back").len(), ran.events_of("rollback-begun").len()), (1, 0), "{ran}");
    assert_eq!(world.state(), after);
    let summary = ran.summary();
    assert_eq!(summary["target_touched"], false);
    assert_data_eq!(
        message(&summary),
        str![[r#"
**[..] was taken back** to the state of [..] by its own clock,
snapshot [..]; done at [..].

- Undone, and pending again: 20260101000000. Correct before the next push.
- Not taken back: [..].
- Its run died. Which tables were made again, and the rows that it kept, stand in the files of it on `[..]`, in `[..]`

"#]]
    );
    assert_eq!(other.run(["status", "--json"]).exits(0).document().get("unsettled_rollback"), None);

    // The machine comes back: what it kept is in the store after its next run.
    crate::rollback::refused_as_done(&world);
    let kept = format!("rollbacks/{run}/0001.csv");
    assert_eq!(weed.get(&weed.key(&kept)), fs_err::read(world.store().join(kept)).unwrap());
    assert_eq!(world.state(), after);
}

#[test]
fn another_machine_begins_again_when_nothing_was_committed() {
    let mut world = World::hosted(&[]);
    let weed = world.weed();
    gated(&world);
    let before = world.state();
    drop(world.migrate(&[]).exits(0));
    let damaged = world.state();
    let gate = close_gate(&world);
    let mut run = rollback(&world);
    run.until_type("rolling-back");
    until_commit_waits(&world);
    run.kill();
    let others = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
        and pid <> pg_backend_pid() and application_name <> 'test'";
    world.sql(ADMIN, others);
    until_nobody_is_left(&world);
    open_gate(&gate);
    assert_eq!(world.state(), damaged);
    weed.remove(&weed.key("/locks/run"));
    let mut other = World::new(Major::Pg17, Cli::V3);
    other.same_target(&world);
    let run = other.run(["status", "--json"]).exits(0).document()["unsettled_rollback"].clone();
    other.write("supabase/config.toml", "project_id = \"test\"\n");
    let warned = other.run(["migrate", "--dry-run", "--json"]).events_of("warning");
    let expected = format!(
        "run {} did not tell its rollback to the end; asking what became of it",
        run.as_str().unwrap()
    );
    assert!(warned.iter().any(|event| event["text"] == expected.as_str()), "{warned:#?}");
    let foreseen = other.run(["rollback", "--dry-run", "--json"]).exits(0);
    assert_eq!(foreseen.events_of("rolled-back"), [""; 0]);
    let ran = other.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!((ran.events_of("rolled-back").len(), ran.events_of("rollback-begun").len()), (1, 1), "{ran}");
    assert_eq!(world.state(), before);
}

#[test]
fn a_run_that_ended_by_itself_is_not_asked_about() {
    let world = crate::rollback::pushed();
    let reader = world.session(OWNER);
    reader.run("begin; select count(*) from public.notes");
    drop(world.run(["rollback", "--confirm", &world.target()]).exits(1));
    assert_eq!(world.run(["status", "--json"]).exits(0).document().get("unsettled_rollback"), None);
    reader.run("rollback");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(ran.events_of("warning"), [""; 0]);
}

/// Objects whose rows the migration changed, and one that went for good.
fn objects() -> (World, Bucket) {
    objects_in(World::hosted(&[]))
}

fn objects_in(mut world: World) -> (World, Bucket) {
    let bucket = world.bucket(&["photos"]);
    for key in ["a", "b"] {
        bucket.put("photos", key, format!("bytes of {key}").as_bytes());
    }
    gated(&world);
    world.migration(
        "20260102000000_objects",
        "update storage.objects set name = 'lost/' || name where name = 'a';
         update storage.objects set owner_id = 'nobody' where name = 'b';",
    );
    drop(world.migrate(&[]).exits(0));
    world.sql(OWNER, "insert into public.notes values (51)");
    (world, bucket)
}

#[test]
fn objects_that_could_not_be_brought_back_are_told_when_they_are() {
    let (world, bucket) = objects();
    bucket.delete("photos", "b");
    bucket.spoil(Operation::Write, Kind::Status(403), 1);
    let ran = world.run(["rollback", "--mode", "whole", "--confirm", &world.target(), "--json"]).exits(22);
    assert_eq!(ran.summary()["target_touched"], true, "{ran}");
    // What was done is told, and that it is not all.
    let done = &ran.summary()["rolled_back"];
    assert_eq!((&done["mode"], &done["storage"]), (&json!("whole"), &Value::Null));
    assert!(message(&ran.summary()).contains("1 row of public.notes in `"), "{ran}");
    assert_eq!(world.history(), [""; 0]);
    let foreseen = world.run(["rollback", "--dry-run"]).exits(0);
    assert_data_eq!(
        foreseen.data(),
        str![[r#"
The rollback of run [..] to snapshot [SNAPSHOT] stands on [TARGET]; `supa-safe rollback` tells what it did, and finishes it where something is left (nothing was touched)
  target     [TARGET]
  back to    snapshot [SNAPSHOT]; the rows are, since run [..]
  storage    2 objects are looked after, and moved or uploaded where they are not as in the snapshot

"#]]
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let summary = ran.summary();
    assert_eq!((ran.events_of("rolled-back").len(), &summary["target_touched"]), (1, &json!(true)), "{ran}");
    assert_data_eq!(
        message(&summary),
        str![[r#"
**[..] was taken back** to the state of [..] by its own clock,
snapshot [..]; done at [..].

- Undone, and pending again: 20260101000000, 20260102000000. Correct before the next push.
- Went back: everything of ours. Made again: [..]public.notes[..].
...
  - 1 row of public.notes in `[..].csv`
...
- Storage: [..], 1 uploaded; [..]
...
"#]]
    );
    assert_eq!(bucket.get("photos", "b"), b"bytes of b");
}

/// The bytes stand in the shared store alone for whoever never took that snapshot.
#[test]
fn another_machine_brings_the_objects_that_are_owed() {
    let mut world = World::hosted(&[]);
    drop(world.weed());
    let (world, bucket) = objects_in(world);
    bucket.delete("photos", "b");
    bucket.spoil(Operation::Write, Kind::Status(403), 1);
    drop(world.run(["rollback", "--mode", "whole", "--confirm", &world.target()]).exits(22));
    let mut other = World::new(Major::Pg17, Cli::V3);
    other.same_target(&world);
    let ran = other.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    assert_eq!(
        (&ran.summary()["rolled_back"]["storage"]["left"], bucket.get("photos", "b")),
        (&json!([]), b"bytes of b".to_vec()),
        "{ran}"
    );
}

/// Nobody would finish it after a push, and who asks for another way back is told that one stands.
#[test]
fn nothing_else_is_done_while_one_that_stands_is_not_finished() {
    let (world, bucket) = objects();
    bucket.delete("photos", "b");
    bucket.spoil(Operation::Write, Kind::Status(403), 1);
    drop(world.run(["rollback", "--mode", "whole", "--confirm", &world.target()]).exits(22));
    let told = |ran: Ran| -> String {
        let text = ran.exits(3).failure();
        text.lines().next().unwrap().to_owned()
    };
    let run = world.run(["status", "--json"]).exits(0).document()["unsettled_rollback"].clone();
    let stands = format!(
        "error: the rollback of run {} to snapshot [SNAPSHOT] stands, and was not told to its end",
        run.as_str().unwrap()
    );
    assert_eq!(told(world.migrate(&[])), stands);
    let target = world.target();
    for other in [&["--table", "public.notes"][..], &["--only", "database"], &["--remove-added"]] {
        assert_eq!(told(world.run([&["rollback", "--confirm", &target], other].concat())), stands);
    }
    assert_eq!(world.history(), [""; 0]);
    // An object that nobody can write any more keeps nobody from the next push.
    let snapshot = world.snapshot().id().clone();
    let ran = world.run(["rollback", "--leave-objects", "--confirm", &target, "--json"]).exits(0);
    let left = format!(
        "2 objects of Storage were not looked at again; `supa-safe rollback {snapshot} --only storage --mode whole` \
         does that"
    );
    assert_eq!(ran.summary()["limits"].as_array().unwrap().last().unwrap(), &json!(left));
    // Nothing is left that could be left alone.
    let ran = world.run(["rollback", "--leave-objects", "--confirm", &target]);
    assert_eq!(told(ran), "error: no rollback stands whose objects could be left");
    let storage =
        ["rollback", snapshot.as_str(), "--only", "storage", "--mode", "whole", "--confirm", &target];
    drop(world.run(storage).exits(0));
    assert_eq!(bucket.get("photos", "b"), b"bytes of b");
    drop(world.migrate(&[]).exits(0));
}

/// Somebody pushes with another tool after a rollback of which nobody knew that it stood.
#[test]
fn what_was_pushed_after_one_that_stood_is_seen() {
    let mut world = World::hosted(&[]);
    drop(world.weed());
    gated(&world);
    drop(world.migrate(&[]).exits(0));
    let snapshot = world.snapshot().id().clone();
    kill_at_the_commit(&world, &[]);
    let before = world.state();
    world.sql(OWNER, WRONG);
    world.sql(OWNER, "insert into supabase_migrations.schema_migrations (version) values ('20260101000000')");
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(3);
    let first = "error: the last push was taken back already, to snapshot [SNAPSHOT]";
    assert_eq!(ran.failure().lines().next().unwrap(), first);
    let target = world.target();
    let again = ["rollback", snapshot.as_str(), "--mode", "whole", "--confirm", &target, "--json"];
    // Nobody knows who pushed it.
    drop(world.run(again).exits(3));
    let ran = world.run([&again[..], &["--also", "20260101000000"]].concat()).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["versions"], json!(["20260101000000"]));
    assert_eq!(world.state(), before);
}

#[test]
fn storage_alone_is_told_as_storage_alone() {
    let (world, _bucket) = objects();
    world.sql(
        ADMIN,
        "create constraint trigger gate after update on storage.objects deferrable initially deferred
         for each row execute function public.gate();
         alter table storage.objects enable always trigger gate",
    );
    let rows = world.sql(OWNER, "select count(*) from public.notes");
    kill_at_the_commit(&world, &["--only", "storage"]);
    assert_eq!(world.sql(OWNER, "select name from storage.objects order by 1"), ["a", "b"]);
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let (events, summary) = (ran.events_of("rolled-back"), ran.summary());
    assert_eq!((&events[0]["database"], &summary["rolled_back"]["database"]), (&json!(false), &json!(false)));
    assert_data_eq!(
        message(&summary),
        str![[r#"
**[..] had its Storage taken back** to the state of [..] by its own clock,
snapshot [..]; done at [..].

- Storage: went back. [..]
- Not taken back: [..].
- Files of it, on the machine that wrote this: `[..]`

"#]]
    );
    assert_eq!(world.sql(OWNER, "select count(*) from public.notes"), rows);
    // The database still stands to be taken back.
    world.sql(ADMIN, "drop trigger gate on storage.objects");
    drop(world.run(["rollback", "--only", "database", "--confirm", &world.target()]).exits(0));
    assert_eq!(world.history(), [""; 0]);
    // And Storage once more, whatever somebody did to it since.
    world.sql(OWNER, "update storage.objects set owner_id = 'nobody' where name = 'b'");
    drop(world.run(["rollback", "--only", "storage", "--confirm", &world.target()]).exits(0));
    assert_eq!(world.sql(OWNER, "select owner_id from storage.objects where name = 'b'"), ["~"]);
}
