//! Rehearsals in a real container: podman, with an image of real server programs.

use crate::kill::Going;
use crate::scratch::until;
use crate::world::{ADMIN, Cli, IMAGE, Major, OWNER, Ran, Registry, Template, World, list, podman};
use fs_err as fs;
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use supa_safe::proc::{self, Signal};

const PENDING: (&str, &str) = (
    "20260101000000_titles",
    "alter table public.notes add column title text; update public.notes set title = 'untitled';",
);

/// An image that nobody has, at a registry that does not answer.
const NOWHERE: &str = "localhost:1/nobody/postgres:17";

/// A project that keeps embeddings: plain PostgreSQL lacks their type.
fn project(podman: &Path, image: &str, more: &str) -> World {
    let world = World::hosted(&[PENDING]).with_containers(podman, image, more);
    world.sql(ADMIN, "create extension vector with schema extensions");
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, embedding extensions.vector);
         insert into public.notes select n, array[n, 0.5, -1] from generate_series(1, 200) n",
    );
    world
}

/// A project with a push that takes longer than any test.
fn slow_project(podman: &Path) -> World {
    let wait = "do $$ begin perform pg_sleep(300); end $$;";
    World::hosted(&[("20260101000000_slow", wait)]).with_containers(podman, IMAGE, "")
}

fn notes(ran: &Ran) -> Vec<String> {
    ran.events_of("note").iter().map(|note| note["text"].as_str().unwrap().to_owned()).collect()
}

fn hints(ran: &Ran) -> Vec<String> {
    ran.failure().lines().filter(|line| line.starts_with("hint: ")).map(str::to_owned).collect()
}

fn scratches(world: &World) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.to_str().unwrap().contains("supa-safe-scratch-");
    list(&world.path("tmp")).into_iter().filter(named).collect()
}

fn nothing_is_left(world: &World) -> bool {
    world.containers().is_empty() && scratches(world).is_empty()
}

#[test]
fn an_extension_that_this_machine_lacks_is_in_the_container() {
    let podman = podman();
    let world = project(&podman, IMAGE, "");
    let ran = world.migrate(&["--json"]).exits(0);
    assert_eq!(world.sql(OWNER, "select count(title), count(embedding) from notes"), ["200|200"]);
    let [record] = world.rehearsals().try_into().unwrap();
    let engine = &record["engine"]["container"];
    assert_eq!((&engine["engine"], &engine["image"]), (&json!("podman"), &json!(IMAGE)));
    let id = engine["id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    let said = format!("rehearsing in a container (podman) of image {IMAGE}, {}", id.get(..12).unwrap());
    assert_eq!(notes(&ran).iter().filter(|note| **note == said).count(), 1, "{ran}");
    // Everything that the platform has is in the copy.
    assert_eq!((&record["limits"], &record["left_out"]["extensions"]), (&json!([]), &json!([])));
    assert!(nothing_is_left(&world));
}

#[test]
fn without_a_container_the_way_out_is_named() {
    let podman = podman();
    let world = project(&podman, NOWHERE, "pull = \"never\"\n");
    let before = world.state();
    let ran = world.migrate(&["--json"]).exits(5);
    let said = format!(": image `{NOWHERE}` is not here");
    assert_eq!(notes(&ran).iter().filter(|note| note.ends_with(&said)).count(), 1, "{ran}");
    assert_data_eq!(
        hints(&ran).join("\n"),
        str![[r#"
hint: Something in the database needs one of them (a type, a default): rehearse in a container, whose image has them
hint: Fetch the image with `podman pull localhost:1/nobody/postgres:17`, or set `pull = "missing"` under [rehearse] in supabase/supa-safe.toml
hint: Or install them for the Postgres on this machine
"#]]
    );
    assert_eq!(world.state(), before);
    assert!(nothing_is_left(&world));
}

#[test]
fn an_image_that_cannot_be_had_ends_a_run_that_insists_and_no_other() {
    let podman = podman();
    let table = ("20260101000000_a", "create table a (id int);");
    let world = World::hosted(&[table]).with_containers(&podman, NOWHERE, "pull = \"missing\"\n");
    let insisting = world.migrate(&["--rehearse", "container", "--json"]).exits(1);
    assert_eq!(insisting.summary()["target_touched"], false);
    assert_eq!(
        hints(&insisting),
        [format!(
            "hint: Find out why `podman pull {NOWHERE}` fails, or name another image under [rehearse] in supabase/supa-safe.toml"
        )]
    );

    let ran = world.migrate(&["--json"]).exits(0);
    let said = format!(": image `{NOWHERE}` could not be fetched: ");
    assert_eq!(notes(&ran).iter().filter(|note| note.contains(&said)).count(), 1, "{ran}");
    assert_eq!(world.rehearsals()[0]["engine"]["local"]["version"], "17.10");
    assert!(nothing_is_left(&world));
}

#[test]
fn an_image_that_is_not_here_is_fetched_with_a_word_about_it() {
    let podman = podman();
    let table = ("20260101000000_a", "create table a (id int);");
    let mut world = World::hosted(&[table]).with_containers(&podman, IMAGE, "");
    let registry = Registry::new(&mut world);
    let image = registry.image();
    world.rehearses_in(&image, &[], "pull = \"never\"\n");
    let refused = world.migrate(&["--rehearse", "container"]).exits(1);
    assert_data_eq!(
        refused.failure(),
        str![[r#"
error: no container for the rehearsal: image `127.0.0.1:[..]/supabase/postgres:17` is not here
  the target was not touched
hint: Fetch the image with `podman pull 127.0.0.1:[..]/supabase/postgres:17`, or set `pull = "missing"` under [rehearse] in supabase/supa-safe.toml

"#]]
    );
    assert_eq!(registry.fetched(), 0);

    world.rehearses_in(&image, &[], "");
    let ran = world.migrate(&["--rehearse", "container", "--json"]).exits(0);
    assert_eq!(registry.fetched(), 1);
    let text = |event: &Value| event["text"].as_str().unwrap().to_owned();
    let texts = |kind| ran.events_of(kind).iter().map(text).collect::<Vec<_>>();
    let begun = format!("fetch image {image} with podman: more than a gigabyte, once");
    assert!(texts("stage-started").contains(&begun), "{ran}");
    assert!(texts("stage-done").contains(&format!("image {image} is here")), "{ran}");
    assert_eq!(world.rehearsals()[0]["engine"]["container"]["image"], image);
    assert!(nothing_is_left(&world));
}

/// What doctor says about docker and podman, and what to do about it.
fn found(world: &World) -> (String, Value) {
    let report = world.run(["doctor", "--json"]).document();
    let mut checks = report["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == "docker or podman").unwrap();
    (check["found"].as_str().unwrap().to_owned(), check["fix"].clone())
}

#[test]
fn doctor_tells_which_image_a_rehearsal_takes() {
    let podman = podman();
    let mut world = World::hosted(&[]).with_containers(&podman, IMAGE, "");
    // To start it for its version takes longer than all the rest.
    world.set("SUPA_SAFE_SUPABASE_BIN", "/gone/supabase");
    assert_eq!(found(&world), (format!("/usr/bin/podman, image {IMAGE}"), Value::Null));
    world.rehearses_in(NOWHERE, &[], "engine = \"container\"\n");
    let fix = format!(
        "Fetch the image with `podman pull {NOWHERE}`, or set `pull = \"missing\"` under [rehearse] in supabase/supa-safe.toml"
    );
    assert_eq!(found(&world), (format!("image `{NOWHERE}` is not here"), json!(fix)));
}

#[test]
fn an_engine_whose_service_is_dead_or_hangs_is_named_with_the_reason() {
    let podman = podman();
    let table = ("20260101000000_a", "create table a (id int);");
    let mut world = World::hosted(&[table]).with_containers(&podman, IMAGE, "");
    // With that it asks a service, as docker does.
    let service = format!("unix://{}", world.path("service").display());
    world.set("CONTAINER_HOST", service);
    let insisting = world.migrate(&["--rehearse", "container", "--json"]).exits(1);
    assert_eq!(insisting.summary()["target_touched"], false);
    assert_data_eq!(
        insisting.failure(),
        str![[r#"
error: no container for the rehearsal: `podman` does not answer (Error: unable to connect to Podman socket: Get "[..]": dial unix [ROOT]/service: connect: no such file or directory)
  the target was not touched
hint: Make `podman image ls` work for your user: it says what it lacks

"#]]
    );

    let _takes_and_never_answers = UnixListener::bind(world.path("service")).unwrap();
    world.set("SUPA_SAFE_SUPABASE_BIN", "/gone/supabase");
    let (said, fix) = found(&world);
    assert_data_eq!(
        said,
        str![
            "`podman` does not answer (`/usr/bin/podman image ls --format '{{.Repository}}:{{.Tag}}'` did not end within 10 s and was stopped); rehearsals use the Postgres of this machine"
        ]
    );
    assert_eq!(fix, Value::Null);
}

#[test]
fn an_image_of_another_major_version_is_named() {
    let podman = podman();
    let world = World::new(Major::Pg15, Cli::V3).with_database(Template::Hosted);
    let world = world.with_containers(&podman, IMAGE, "engine = \"container\"\n");
    world.write("supabase/config.toml", "project_id = \"test\"\n\n[db]\nmajor_version = 15\n");
    world.migration("20260101000000_a", "create table a (id int);");
    let insisting = world.run(["rehearse", "--json"]).exits(1);
    assert_eq!(insisting.summary()["target_touched"], false);
    assert_data_eq!(
        insisting.failure(),
        str![[r#"
error: cannot start a scratch server in a container
  caused by: image `localhost/supa-safe-test/postgres:17` has Postgres 17, and the target has Postgres 15
  the target was not touched; the snapshot was kept
hint: Name an image of Postgres 15 in the line `image` under [rehearse] in supabase/supa-safe.toml, or take that line out: then one is chosen by the target's version

"#]]
    );
    world.rehearses_in(IMAGE, &[], "");
    let ran = world.run(["rehearse", "--json"]).exits(0);
    let [warning] = ran.events_of("warning").try_into().unwrap();
    assert_data_eq!(
        warning["text"].as_str().unwrap().to_owned(),
        str![
            "rehearsing with Postgres 15.[..] of this machine: image `localhost/supa-safe-test/postgres:17` has Postgres 17, and the target has Postgres 15"
        ]
    );
    assert!(nothing_is_left(&world));
}

#[test]
fn a_container_that_does_not_come_up_gives_way_unless_somebody_insists() {
    let podman = podman();
    let world = World::hosted(&[("20260101000000_a", "create table a (id int);")]);
    let world = world.with_containers(&podman, IMAGE, "");
    // Its server does not start with that.
    world.rehearses_in(IMAGE, &["--entrypoint=/no/such"], "");
    let insisting = world.migrate(&["--rehearse", "container", "--json"]).exits(1);
    assert_eq!(insisting.summary()["target_touched"], false);
    assert!(nothing_is_left(&world));
    let ran = world.migrate(&["--json"]).exits(0);
    assert_eq!(ran.events_of("warning").len(), 1, "{ran}");
    assert_eq!(world.rehearsals()[0]["engine"]["local"]["version"], "17.10");
    assert!(nothing_is_left(&world));
}

#[test]
fn a_rehearsal_on_this_machine_does_not_count_for_who_insists_on_a_container() {
    let podman = podman();
    let table = ("20260101000000_a", "create table a (id int);");
    let world = World::hosted(&[table]).with_containers(&podman, IMAGE, "engine = \"local\"\n");
    drop(world.run(["rehearse"]).exits(0));
    let ran = world.migrate(&["--rehearse", "container", "--json"]).exits(0);
    let said =
        "rehearsing: the last one ran on Postgres 17.10 of this machine, and the settings want a container";
    assert_eq!(notes(&ran).iter().filter(|note| **note == said).count(), 1, "{ran}");
    let [record] = world.rehearsals().try_into().unwrap();
    assert_eq!(record["engine"]["container"]["image"], IMAGE);
}

#[test]
fn what_ran_when_the_machine_went_down_is_removed_by_the_next_rehearsal() {
    let podman = podman();
    let table = ("20260101000000_a", "create table a (id int);");
    let world = World::hosted(&[table]).with_containers(&podman, IMAGE, "engine = \"container\"\n");
    let now = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let [earlier, today] = [("earlier", "00000000-0000-0000-0000-000000000000"), ("today", now.trim())]
        .map(|(name, boot)| world.ended_container(&format!("{name}-{}", std::process::id()), boot));
    drop(world.run(["rehearse"]).exits(0));
    let is_there = |name: &str| world.container_names().contains(&name.to_owned());
    assert!(!is_there(&earlier) && is_there(&today));
    drop(world.podman(&["rm", &today]));
}

/// A rehearsal that goes on in a container, its push begun.
fn held(world: &World) -> Going {
    let mut run = Going::start(world, &["rehearse"]);
    run.until_text("to the copy with supabase");
    run
}

#[test]
fn a_run_that_was_killed_leaves_no_container() {
    let podman = podman();
    let world = slow_project(&podman);
    let run = held(&world);
    assert_eq!(world.containers().len(), 1);
    let password = "POSTGRES_PASSWORD=";
    let mut lines = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    assert!(!lines.any(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(password)
    }));
    run.kill();
    until("nothing is left", || nothing_is_left(&world));
}

#[test]
fn a_run_that_was_killed_while_its_container_starts_leaves_nothing() {
    let podman = podman();
    let world = slow_project(&podman);
    let is_asked_for = |world: &World| scratches(world).iter().any(|dir| dir.join("container.json").exists());
    let is_there = |world: &World| !world.containers().is_empty();
    for happened in [is_asked_for as fn(&World) -> bool, is_there] {
        let run = Going::start(&world, &["rehearse"]);
        until("the container starts", || happened(&world));
        run.kill();
        until("nothing is left", || nothing_is_left(&world));
    }
}

#[test]
fn a_container_that_dies_in_the_middle_is_no_fault_of_the_migration() {
    let podman = podman();
    let world = slow_project(&podman);
    let mut run = held(&world);
    let [name] = world.containers().try_into().unwrap();
    drop(world.podman(&["kill", &name]));
    let mut talk = run.child.stderr.take().unwrap();
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"], &summary["findings"]), (1, &json!(false), &json!([])));
    let mut said = String::new();
    talk.read_to_string(&mut said).unwrap();
    assert_data_eq!(
        said,
        str![[r#"
error: the rehearsal was not finished: its server is gone
  caused by: the scratch server ended by itself: it exited with code 137
...
  the target was not touched; the snapshot was kept
hint: Find out what ended the server, which is often a lack of memory, and run the same command again

"#]]
    );
    assert!(nothing_is_left(&world));
}

#[test]
fn of_two_at_once_the_next_run_removes_the_dead_one_only() {
    let podman = podman();
    let (dead, mut alive) = (slow_project(&podman), slow_project(&podman));
    alive.set("TMPDIR", dead.path("tmp"));
    let killed = held(&dead);
    let ([scratch], [container]) =
        (scratches(&dead).try_into().unwrap(), dead.containers().try_into().unwrap());
    let going = held(&alive);
    let names = dead.containers();
    assert_eq!(names.len(), 2);
    for name in &names {
        let asked = ["container", "inspect", "--format", "{{.HostConfig.NetworkMode}}", name];
        assert_eq!(dead.podman(&asked), "none\n");
    }
    // Somebody else's, under a name like ours.
    let other = format!("supa-safe-scratch-of-nobody-{}", std::process::id());
    drop(dead.podman(&["create", "--network=none", "--name", &other, IMAGE]));

    let keeper = fs::read_to_string(scratch.join("keeper.lock")).unwrap().trim().parse().unwrap();
    proc::signal(keeper, Signal::KILL).unwrap();
    killed.kill();
    assert_eq!(dead.containers(), names);
    let ran = dead.run(["snapshot", "--json"]).exits(0);
    let said = format!("removed the scratch server that a dead run left in {}", scratch.display());
    assert!(notes(&ran).contains(&said), "{ran}");
    let left: Vec<String> = names.into_iter().filter(|name| *name != container).collect();
    assert_eq!(dead.containers(), left);
    drop(dead.podman(&["rm", &other]));
    going.kill();
    until("nothing is left", || nothing_is_left(&dead));
}
