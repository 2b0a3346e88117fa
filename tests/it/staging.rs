//! Rehearsals on a server that the person gives: it is proved not to be the target, marked, and emptied.

use crate::kill::Going;
use crate::scratch::until;
use crate::world::{ADMIN, Cli, Major, OWNER, Ran, Staging, Template, World, told};
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;
use supa_safe::disk;
use supa_safe::proc::{self, Cmd, Signal};
use supa_safe::scratch::unprivileged_user;
use supa_safe::secret::Secret;
use tokio::runtime::Runtime;

const TABLE: (&str, &str) = ("20260101000000_a", "create table public.a (id int);");
const SLOW: (&str, &str) = ("20260101000000_slow", "do $$ begin perform pg_sleep(300); end $$;");

const PUSHES: &str =
    "select count(*) from pg_stat_activity where query like '%pg_sleep(300)%' and pid <> pg_backend_pid()";

fn notes(ran: &Ran) -> Vec<String> {
    ran.events_of("note").iter().map(|note| note["text"].as_str().unwrap().to_owned()).collect()
}

/// A rehearsal there that is refused, and touches neither side.
#[track_caller]
fn refused(world: &World, staging: Option<&Staging>, url: &str) -> String {
    let (before, contents) = (world.state(), staging.map(Staging::contents));
    let ran = world.migrate(&["--rehearse", url]).exits(2);
    assert_eq!((world.state(), staging.map(Staging::contents)), (before, contents));
    // It is known before anything is collected.
    assert!(world.snapshots().is_empty());
    ran.failure()
}

/// Nothing that was written holds the server's password.
fn is_secret(world: &World, staging: &Staging, ran: &Ran) {
    assert!(!ran.to_string().contains(staging.password()), "{ran}");
    for file in disk::files_below(&world.path("state")).unwrap() {
        let bytes = fs_err::read(world.path("state").join(&file)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(staging.password()), "{}", file.display());
    }
}

fn a_shop_is_rehearsed(major: Major, cli: Cli) {
    let mut world = World::new(major, cli).with_sample_project().with_database(Template::Shop);
    let staging = world.staging(major);
    staging.mark();
    let ran = world.migrate(&["--rehearse", &staging.url(), "--json", "-v"]).exits(0);
    assert_eq!(ran.summary()["not_applied"], json!([]));
    let [record] = world.rehearsals().try_into().unwrap();
    let engine = &record["engine"]["staging"];
    assert_eq!(engine["address"], staging.address());
    let said = format!("rehearsing on the staging server {}, Postgres ", staging.address());
    assert_eq!(notes(&ran).iter().filter(|note| note.starts_with(&said)).count(), 1, "{ran}");
    let rollbacks = record["rollbacks"].as_array().unwrap();
    assert_eq!(rollbacks.len(), 2);
    assert!(rollbacks.iter().all(|mode| mode["failed"].is_null()), "{rollbacks:?}");
    assert_eq!(staging.contents(), [""; 0]);
    is_secret(&world, &staging, &ran);
    let ran = world.run(["rollback", "--confirm", &world.target()]).exits(0);
    is_secret(&world, &staging, &ran);
}

#[test]
fn a_push_to_pg17_is_rehearsed_on_a_staging_server_over_tls() {
    a_shop_is_rehearsed(Major::Pg17, Cli::V3);
}

#[test]
fn a_push_to_pg15_is_rehearsed_on_a_staging_server_over_tls() {
    a_shop_is_rehearsed(Major::Pg15, Cli::V2);
}

#[test]
fn the_target_under_another_name_is_no_staging_server() {
    let mut world = World::hosted(&[TABLE]);
    world.set("SUPA_SAFE_STAGING_PASSWORD", told("SUPA_SAFE_TEST_PASSWORD"));
    let name = format!("db.{}.supabase.co:5432", "b".repeat(20));
    let pooler = told("SUPA_SAFE_TEST_POOLER_SESSION");
    // Another database of the same server, too.
    for address in [&world.address(), &name, &pooler] {
        let text = refused(&world, None, &format!("postgresql://{ADMIN}@{address}/postgres"));
        let said = format!(
            "error: `{address}` is the target's own server under another name: a lock that was taken on the target shows there\n  the target was not touched\n"
        );
        assert!(text.starts_with(&said), "{text}");
    }
    let odd = told("SUPA_SAFE_TEST_POOLER_ODD");
    let text = refused(&world, None, &format!("postgresql://{ADMIN}@{odd}/postgres"));
    assert!(text.starts_with(&format!("error: `{odd}` is a transaction pooler")), "{text}");
    let standby = told("SUPA_SAFE_TEST_STANDBY");
    let text = refused(&world, None, &format!("postgresql://{ADMIN}@{standby}/postgres"));
    assert!(text.starts_with(&format!("error: `{standby}` is a replica")), "{text}");
}

#[test]
fn a_physical_clone_of_the_target_is_no_staging_server() {
    let mut world = World::own_server_set(Major::Pg17, &["wal_level=replica", "max_wal_senders=2"], &[TABLE]);
    let password = told("SUPA_SAFE_TEST_PASSWORD");
    world.set("SUPA_SAFE_STAGING_PASSWORD", password.clone());
    let dir = world.path("clone");
    fs_err::create_dir(&dir).unwrap();
    let user = unprivileged_user();
    disk::give_to(&dir, user.as_ref().map(|user| (user.uid, user.gid))).unwrap();
    let bin = told("SUPA_SAFE_TEST_PG17_HOSTED_BIN");
    let own = world.address();
    let copy = Cmd::new(format!("{bin}/pg_basebackup"))
        .args(["--no-password", "--checkpoint=fast", "--wal-method=stream", "--no-sync", "--username", ADMIN])
        .args(["--host", own.split(':').next().unwrap(), "--port", own.rsplit(':').next().unwrap()])
        .arg("--pgdata")
        .arg(dir.join("data"))
        .secret("PGPASSWORD", &Secret::new(password))
        .as_user(user.clone())
        .dir("/");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Cmd::new(format!("{bin}/postgres"))
        .arg("-D")
        .arg(dir.join("data"))
        .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c"])
        .arg(format!("port={port}"))
        .stop_by(Signal::QUIT, Duration::from_secs(8))
        .as_user(user)
        .dir("/");
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(async {
        copy.run().await.unwrap();
        server.start().unwrap()
    });
    let ready =
        || fs_err::read_to_string(dir.join("data/postmaster.pid")).unwrap_or_default().contains("ready");
    until("the clone is up", ready);
    let url = format!("postgresql://{ADMIN}@127.0.0.1:{port}/postgres?sslmode=disable");
    let text = refused(&world, None, &url);
    let said = format!(
        "error: `127.0.0.1:{port}` has the system identifier of the target's server: it is a replica or a physical clone of it"
    );
    assert!(text.starts_with(&said), "{text}");
    drop(server);
}

#[test]
fn a_server_without_the_mark_is_refused_with_the_statement_that_sets_it() {
    let mut world = World::hosted(&[TABLE]);
    let staging = world.staging(Major::Pg17);
    let text = refused(&world, Some(&staging), &staging.url());
    assert_data_eq!(
        &text,
        str![[r#"
error: `127.0.0.1:[..]` is not marked as a scratch server
  the target was not touched
hint: Run there, if it is for rehearsals alone: comment on database template1 is 'supa-safe: scratch server [..]'
hint: With that mark every database and every role of the server, but those of initdb, is dropped before each rehearsal and after it

"#]]
    );
    let statement = text.lines().find_map(|line| line.split_once("alone: ")).unwrap().1.to_owned();
    // A mark that was copied from another server is none.
    drop(staging.sql("template1", "comment on database template1 is 'supa-safe: scratch server 1'"));
    assert_eq!(refused(&world, Some(&staging), &staging.url()), text);
    drop(staging.sql("template1", &statement));
    drop(world.migrate(&["--rehearse", &staging.url()]).exits(0));
    assert_eq!(staging.contents(), [""; 0]);
}

#[test]
fn a_server_that_is_for_something_else_too_is_refused() {
    let mut world = World::hosted(&[TABLE]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    let said = |text: String| text.lines().next().unwrap().to_owned();

    drop(staging.sql("template1", "create database app"));
    let text = refused(&world, Some(&staging), &staging.url());
    let begin = format!("error: `{}`", staging.address());
    assert_eq!(
        said(text),
        format!("{begin} holds the database `app`, and a rehearsal drops everything there")
    );
    drop(staging.sql("template1", "drop database app"));

    let mut other = staging.psql("postgres", "select pg_sleep(300)").stdout(Stdio::null()).spawn().unwrap();
    let at_work =
        "select count(*) from pg_stat_activity where application_name = 'psql' and datname = 'postgres'";
    until("it is connected", || staging.sql("template1", at_work) == ["1"]);
    let text = said(refused(&world, None, &staging.url()));
    let others =
        format!("error: others are connected to `{}`: supabase_admin in postgres (", staging.address());
    assert!(text.starts_with(&others), "{text}");
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'psql' and datname = 'postgres'";
    assert_eq!(staging.sql("template1", end), ["t"]);
    assert!(!other.wait().unwrap().success());
    until("it is gone", || staging.sql("template1", at_work) == ["0"]);

    let other = format!("create role other superuser login password '{}'", staging.password());
    drop(staging.sql("template1", &other));
    let text = said(refused(&world, Some(&staging), &staging.url_of("other")));
    assert_eq!(
        text,
        format!(
            "error: role `other` cannot rehearse on `{}`: it takes the server's owner (the role of initdb), called `supabase_admin` as on the target; there it is `supabase_admin`",
            staging.address()
        )
    );
    assert!(world.rehearsals().is_empty());
}

#[test]
fn a_server_with_a_library_that_acts_by_itself_is_refused() {
    let mut world = World::hosted(&[TABLE]);
    let staging = world.staging_set(Major::Pg17, &["shared_preload_libraries=pg_prewarm"]);
    staging.mark();
    let text = refused(&world, Some(&staging), &staging.url());
    let said = format!(
        "error: `{}` has what may act on the copy by itself: library `pg_prewarm`\n",
        staging.address()
    );
    assert!(text.starts_with(&said), "{text}");
}

#[test]
fn roles_and_settings_of_databases_are_as_on_the_target_and_leave_nothing() {
    let roles = "create role reader; alter role postgres set work_mem = '9MB'; grant reader to postgres;";
    let mut world = World::own_server(&[("20260101000000_roles", roles)]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    // What stood there before is none of the copy's.
    drop(staging.sql("postgres", "create role reader; create table public.left_here (id int)"));
    drop(world.migrate(&["--rehearse", &staging.url()]).exits(0));
    assert_eq!(world.sql(OWNER, "select count(*) from pg_roles where rolname = 'reader'"), ["1"]);
    assert_eq!(staging.contents(), [""; 0]);
    assert_eq!(staging.sql("template1", "select count(*) from pg_db_role_setting"), ["0"]);
}

#[test]
fn a_server_of_another_major_version_is_refused() {
    let mut world = World::hosted(&[TABLE]);
    let staging = world.staging(Major::Pg15);
    staging.mark();
    let text = refused(&world, Some(&staging), &staging.url());
    assert!(text.contains("runs Postgres 15, and the target runs Postgres 17"), "{text}");
}

/// A rehearsal whose copy is there and is pushed to.
fn held(world: &World, url: &str) -> Going {
    let mut run = Going::start(world, &["rehearse", "--rehearse", url]);
    run.until_text("to the copy with supabase");
    run
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let mut world = World::hosted(&[SLOW]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    let run = held(&world, &staging.url());
    until("it is pushed to", || staging.sql("template1", PUSHES) != ["0"]);

    // One at a time.
    let mut busy = World::hosted(&[TABLE]);
    busy.set("SUPA_SAFE_STAGING_PASSWORD", staging.password());
    let ran = busy.migrate(&["--rehearse", &staging.url()]).exits(11);
    assert!(ran.failure().contains("another rehearsal works on"), "{ran}");

    run.kill();
    assert!(staging.contents().contains(&"database supa_safe_scratch".to_owned()));
    // It keeps its database from being dropped.
    let subscription =
        "create subscription told connection 'host=127.0.0.1 port=1 dbname=postgres' publication p
        with (connect = false)";
    drop(staging.sql("postgres", subscription));
    world.remove("supabase/migrations/20260101000000_slow.sql");
    world.migration(TABLE.0, TABLE.1);
    let ran = world.migrate(&["--rehearse", &staging.url(), "--json"]).exits(0);
    let said = format!(
        "removed from the staging server {} what a rehearsal for {} left there",
        staging.address(),
        world.target()
    );
    assert_eq!(notes(&ran).iter().filter(|note| note.starts_with(&said)).count(), 1, "{ran}");
    assert_eq!(staging.contents(), [""; 0]);
    assert_eq!(staging.sql("template1", PUSHES), ["0"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.a"), ["0"]);
}

#[test]
fn a_database_whose_drop_was_cut_off_is_dropped() {
    let mut world = World::hosted(&[TABLE]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    drop(staging.sql("template1", "update pg_database set datconnlimit = -2 where datname = 'postgres'"));
    drop(world.migrate(&["--rehearse", &staging.url()]).exits(0));
    assert_eq!(staging.contents(), [""; 0]);
}

#[test]
fn a_server_that_ends_every_session_is_no_failed_migration() {
    let mut world = World::hosted(&[SLOW]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    let run = held(&world, &staging.url());
    until("it is pushed to", || staging.sql("template1", PUSHES) != ["0"]);
    let end_all = "select pg_terminate_backend(pid) from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()";
    drop(staging.sql("template1", end_all));
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"]), (1, &Value::Bool(false)), "{summary}");
    assert!(summary["error"].to_string().contains("the staging server is gone"), "{summary}");
}

#[test]
fn a_run_that_is_interrupted_or_fails_leaves_an_empty_server() {
    let mut world = World::hosted(&[SLOW]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    let run = held(&world, &staging.url());
    proc::signal(run.child.id(), Signal::INT).unwrap();
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"]), (130, &Value::Bool(false)));
    assert_eq!(staging.contents(), [""; 0]);

    world.remove("supabase/migrations/20260101000000_slow.sql");
    world.migration("20260102000000_wrong", "select 1 / 0;");
    let ran = world.migrate(&["--rehearse", &staging.url(), "--json"]).exits(5);
    let said = format!("removed the copy from the staging server {}", staging.address());
    assert!(notes(&ran).contains(&said), "{ran}");
    assert_eq!(staging.contents(), [""; 0]);
}

#[test]
fn the_policy_names_a_staging_server_and_no_password() {
    let mut world = World::hosted(&[TABLE]);
    let staging = world.staging(Major::Pg17);
    staging.mark();
    world.unset("SUPA_SAFE_REHEARSE_ENGINE");
    let policy = |url: &str| format!("[rehearse]\nengine = \"{url}\"\n");
    let with_password = staging.url().replace('@', &format!(":{}@", staging.password()));
    world.write("supabase/supa-safe.toml", &policy(&with_password));
    let ran = world.run(["rehearse"]).exits(2);
    assert!(!ran.to_string().contains(staging.password()), "{ran}");
    world.write("supabase/supa-safe.toml", &policy(&staging.url()));
    let ran = world.run(["doctor", "--json"]);
    assert!(ran.stdout.contains(&staging.address()), "{ran}");
    drop(world.run(["rehearse"]).exits(0));
    assert_eq!(world.rehearsals()[0]["engine"]["staging"]["address"], staging.address());

    let ran = world.run(["rehearse", "--rehearse", "off"]).exits(2);
    assert!(ran.stderr.contains("a rehearsal cannot be off"), "{ran}");
    let ran = world.migrate(&["--json"]).exits(0);
    assert!(notes(&ran).iter().any(|note| note.starts_with("not rehearsed again")), "{ran}");
}
