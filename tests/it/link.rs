//! A linked project: which one a run is about, and the way to its database.

mod another;
mod doors;
mod looked_at;
mod traps;

use crate::rollback::AS_HOSTED;
use crate::terminal::Terminal;
use crate::world::{
    ADMIN, Cli, LOGIN_PASSWORD, Linked, Major, OWNER, Open, Platform, Ran, TEMPORARY, Template, World,
    read_json, same, told,
};
use snapbox::{assert_data_eq, str};
use std::sync::{Arc, Mutex};
use supa_safe::demo::cloud::{Branch, LoginRole, Project};

const FILES: [(&str, &str); 3] = [
    ("20260101000001_one", "create table public.one (id int primary key);"),
    ("20260101000002_two", "create table public.two (id int primary key);"),
    ("20260101000003_three", "create table public.three (id int primary key);"),
];

/// A world whose folder is linked by the real CLI.
pub(crate) fn linked(major: Major, cli: Cli) -> (World, Linked, Platform) {
    linked_to(World::new(major, cli).with_database(Template::Hosted))
}

fn linked_to(mut world: World) -> (World, Linked, Platform) {
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    let mut project = Linked::take(&world);
    let platform = world.on_platform(vec![project.project()]);
    project.link(&world);
    project.open(&world, Open::Direct);
    (world, project, platform)
}

fn migrate(world: &World, project: &Linked, args: &[&str]) -> Ran {
    world.run([&["migrate", "--confirm", &project.project_ref], args].concat())
}

/// The first line, with what differs from test to test replaced.
fn first_line(ran: &Ran, project: &Linked) -> String {
    let line = ran.stderr.lines().next().unwrap_or_default();
    let line = line.replace(&project.project_ref, "[REF]").replace(&project.pooler, "[POOLER]");
    line.split(", Postgres ").next().unwrap().to_owned()
}

fn lent_role() -> LoginRole {
    LoginRole { role: TEMPORARY.to_owned(), password: LOGIN_PASSWORD.to_owned(), ttl_seconds: 300 }
}

/// A project with what the push below touches, and the objects `a`, `b`, and `c`.
const BEFORE: &str = "create table public.one (id int primary key); insert into public.one values (1), (2);
    create policy photos on storage.objects for select to authenticated using (bucket_id = 'photos');
    create function public.new_user() returns trigger language plpgsql as 'begin return new; end';
    create trigger on_sign_up after insert on auth.users for each row execute function public.new_user();
    create role clerk; grant anon to clerk;
    alter default privileges in schema public grant select on tables to clerk;";

/// A push that touches rows, a table's shape, privileges, roles, what is the user's on tables of the platform, and
/// Storage.
const WRONG: &str = "update public.one set id = id + 10; alter table public.one add column more text;
    create table public.extra (id int primary key, one int references public.one);
    revoke all on public.one from anon; create role extra_reader; grant select on public.one to extra_reader;
    grant service_role to authenticated; revoke anon from clerk;
    alter role anon set statement_timeout = 0;
    alter default privileges in schema public revoke select on tables from clerk;
    alter default privileges in schema public grant all on tables to anon, extra_reader;
    drop policy photos on storage.objects;
    create policy everything on storage.objects for all to anon using (true);
    drop trigger on_sign_up on auth.users;
    create trigger spy after insert on auth.users for each row execute function public.new_user();
    update storage.objects set name = 'lost/' || name where name = 'a';
    update storage.objects set owner_id = 'nobody', user_metadata = '{}' where name = 'b';
    set local storage.allow_delete_query = 'true'; delete from storage.objects where name = 'c';";

/// A linked project without a password, whose platform lends a role, on a server of its own.
fn lends() -> (World, Linked, Platform) {
    let (mut world, project, platform) = linked_to(World::own_server(&[]));
    world.unset("SUPABASE_DB_PASSWORD");
    let admin = Mutex::new(world.session(ADMIN));
    platform.stub.change(&project.project_ref, |project| {
        project.login_role = Some(Arc::new(move || {
            let literal = LOGIN_PASSWORD.replace('\'', "''");
            let renewed = format!("alter role {TEMPORARY} password '{literal}' valid until '2036-01-01'");
            drop(admin.lock().unwrap().run(&renewed));
            lent_role()
        }));
    });
    (world, project, platform)
}

/// No password at all: the platform lends a role for minutes, and everything works through it.
#[test]
fn a_lent_role_is_enough() {
    let (world, project, platform) = lends();
    world.migration(FILES[0].0, FILES[0].1);
    let ran = migrate(&world, &project, &[]).exits(0);
    assert_eq!(
        ran.lines("no password"),
        ["no password was given: signed in as `cli_login_postgres`, which supabase lends for minutes"]
    );
    assert_eq!(world.history(), ["20260101000001"]);
    let owner = "select tableowner from pg_tables where tablename = 'one'";
    assert_eq!(world.sql(OWNER, owner), ["postgres"]);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(LOGIN_PASSWORD));
    platform.knew_every_call();
}

/// The way back as well, in both modes, and through the pooler: rows, shapes, roles, default privileges, what is
/// the user's on tables of the platform, and Storage.
#[test]
fn a_lent_role_takes_a_push_back() {
    let (mut world, mut project, platform) = lends();
    let bucket = world.own_bucket(&project, &["photos"]);
    world.give_pair(&bucket);
    world.sql(ADMIN, AS_HOSTED);
    world.sql(OWNER, BEFORE);
    for key in ["a", "b", "c"] {
        bucket.put("photos", key, format!("bytes of {key}").as_bytes());
    }
    world.sql(ADMIN, r#"update storage.objects set owner_id = name, user_metadata = '{"of": "mine"}'"#);
    let before = (world.state(), world.dumped());
    world.migration("20260101000001_wrong", WRONG);
    for (mode, door) in [("touched", Open::Direct), ("whole", Open::Direct), ("touched", Open::Pooler)] {
        if door == Open::Pooler {
            project.open(&world, door);
        }
        drop(migrate(&world, &project, &[]).exits(0));
        assert_eq!(world.history(), ["20260101000001"]);
        world.sql(OWNER, "insert into public.one (id, more) values (3, 'new')");
        let args = ["rollback", "--mode", mode, "--confirm", &project.project_ref, "--json"];
        let ran = world.run(args).exits(0);
        let done = &ran.summary()["rolled_back"];
        let saved = &done["saved"];
        assert_eq!((&saved[0]["table"], &saved[0]["rows"]), (&"public.one".into(), &3.into()), "{mode}");
        assert_eq!((&done["mode"], &done["storage"]["left"]), (&mode.into(), &serde_json::json!([])));
        same(&before.0, &world.state()).unwrap_or_else(|why| panic!("{mode}, {door:?}: {why}"));
        same(&before.1, &world.dumped()).unwrap_or_else(|why| panic!("{mode}, {door:?}: {why}"));
        for key in ["a", "b", "c"] {
            assert_eq!(bucket.get("photos", key), format!("bytes of {key}").as_bytes(), "{mode}, {door:?}");
        }
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(LOGIN_PASSWORD));
    }
    platform.knew_every_call();
}

/// Neither a password nor a token.
#[test]
fn nobody_lends_without_a_token() {
    let (mut world, project, _platform) = linked(Major::Pg17, Cli::V3);
    world.unset("SUPABASE_DB_PASSWORD");
    world.unset("SUPABASE_ACCESS_TOKEN");
    let ran = world.run(["snapshot"]).exits(12);
    assert_data_eq!(
        ran.talk().replace(&project.project_ref, "[REF]"),
        str![[r#"
error: supabase is not signed in, so it cannot lend a temporary role: Access token not provided. Supply an access token by running `supabase login` or setting the SUPABASE_ACCESS_TOKEN environment variable.
  no password was given: neither `--password-file`, SUPABASE_DB_PASSWORD, nor an env file of the project
hint: Set the database's password in SUPABASE_DB_PASSWORD; it can be reset in the project's dashboard under Database settings
hint: Or sign supabase in (`supabase login`, or SUPABASE_ACCESS_TOKEN): it then lends a temporary role

"#]]
    );
    world.set("SUPABASE_DB_PASSWORD", "wrong");
    let ran = world.run(["snapshot"]).exits(12);
    assert_data_eq!(
        ran.talk().replace(&project.project_ref, "[REF]"),
        str![[r#"
error: the server at `db.[REF].supabase.co:5432` refused the sign-in of role `postgres`
  caused by: FATAL: SASL authentication failed
hint: Set the database's password in SUPABASE_DB_PASSWORD; it can be reset in the project's dashboard under Database settings

"#]]
    );
}

/// A project's folder without a link; `project_id` names no project of the platform.
fn unlinked() -> (World, Platform) {
    let mut world = World::new(Major::Pg17, Cli::V3);
    let platform = world.on_platform(Vec::new());
    world.write("supabase/config.toml", "project_id = \"abcdefghijklmnopqrst\"\n");
    (world, platform)
}

fn says(world: &World, args: &[&str], exit: i32) -> String {
    world.run([&["snapshot"], args].concat()).exits(exit).talk()
}

#[test]
fn no_target_and_wrong_ones_say_what_to_do() {
    let (world, _platform) = unlinked();
    assert_data_eq!(
        says(&world, &[], 10),
        str![[r#"
error: `[ROOT]/app` is not linked to a project, and no target was given
hint: Run `supabase link --project-ref <ref>`, or pass `--project-ref <ref>`
hint: Pass `--db-url <url>` or set SUPA_SAFE_DB_URL for a database by its URL; `--local` for the stack of `supabase start`

"#]]
    );
    assert_data_eq!(
        says(&world, &["--target", "prod"], 10),
        str![[r#"
error: the configuration has no [remotes.prod]
hint: Use one of its remotes (none), or pass `--project-ref <ref>`

"#]]
    );
    assert_data_eq!(
        says(&world, &["--project-ref", "abc"], 2),
        str![[r#"
error: invalid value 'abc' for '--project-ref <REF>': `abc` is not a project ref (twenty lowercase letters, such as `abcdefghijklmnopqrst`)

For more information, try '--help'.

"#]]
    );
    assert_eq!(says(&world, &["--remote=develop"], 10), says(&world, &[], 10));
    assert_data_eq!(
        says(&world, &["--workdir", "/nope"], 10),
        str![[r#"
error: no target was given, and the folder `/nope` does not exist
hint: Correct `--workdir`, or SUPABASE_WORKDIR
hint: Pass `--db-url <url>` or set SUPA_SAFE_DB_URL for a database by its URL; `--local` for the stack of `supabase start`

"#]]
    );
    assert_data_eq!(
        says(&world, &["--project-ref", "zzzzzzzzzzzzzzzzzzzz"], 10),
        str![[r#"
error: `db.zzzzzzzzzzzzzzzzzzzz.supabase.co` is not known here, and no session pooler of this project is known
hint: Run `supabase link --project-ref zzzzzzzzzzzzzzzzzzzz`: it writes down the session pooler's address, which has IPv4
hint: Or copy the session pooler's URL from the project's dashboard under Connect, and pass it with `--db-url`

"#]]
    );
    assert!(!world.path("state").exists());

    let mut homeless = world;
    homeless.unset("HOME");
    homeless.unset("SUPA_SAFE_STATE_DIR");
    homeless.unset("XDG_STATE_HOME");
    assert_data_eq!(
        says(&homeless, &[], 2),
        str![[r#"
error: no state folder: neither HOME nor XDG_STATE_HOME is set
hint: Set HOME, or name a folder in SUPA_SAFE_STATE_DIR

"#]]
    );
}

/// What a link's files can say wrong.
#[test]
fn a_link_that_leads_nowhere_says_what_to_do() {
    let (mut world, _platform) = unlinked();
    let ipv6 = told("SUPA_SAFE_TEST_IPV6_REF");
    world.write("supabase/.temp/project-ref", &ipv6);
    assert_data_eq!(
        says(&world, &[], 10),
        str![[r#"
error: `db.vvvvvvvvvvvvvvvvvvvv.supabase.co` has an IPv6 address only, which this network does not reach, and no session pooler of this project is known
hint: Run `supabase link --project-ref vvvvvvvvvvvvvvvvvvvv`: it writes down the session pooler's address, which has IPv4
hint: Or copy the session pooler's URL from the project's dashboard under Connect, and pass it with `--db-url`

"#]]
    );
    let pooler = |host: &str| format!("postgresql://postgres.{ipv6}@{host}:5432/postgres");
    world.write("supabase/.temp/pooler-url", &pooler("pooler.example.com"));
    assert_data_eq!(
        says(&world, &[], 10),
        str![[r#"
error: `db.vvvvvvvvvvvvvvvvvvvv.supabase.co` has an IPv6 address only, which this network does not reach, and the pooler in `supabase/.temp/pooler-url` is not used
  caused by: its host `pooler.example.com` is not under `supabase.com`, where the poolers of `stub` are
hint: Run `supabase link --project-ref vvvvvvvvvvvvvvvvvvvv` again: it writes down the address anew
hint: Or copy the session pooler's URL from the project's dashboard under Connect, and pass it with `--db-url`

"#]]
    );
    world.set("SUPABASE_PROFILE", "nowhere.yaml");
    assert_data_eq!(
        says(&world, &[], 2),
        str![[r#"
error: `nowhere.yaml` is neither a profile that supabase knows nor a file of one
  caused by: failed to open file `[ROOT]/app/nowhere.yaml`: No such file or directory (os error 2)
hint: Correct `--profile`, SUPABASE_PROFILE, or the file `~/.supabase/profile`

"#]]
    );
    world.write("supabase/.temp/project-ref", "my-project");
    assert_data_eq!(
        says(&world, &[], 10),
        str![[r#"
error: `[ROOT]/app/supabase/.temp/project-ref` is not what `supabase link` writes: `my-project` is not a project ref (twenty lowercase letters, such as `abcdefghijklmnopqrst`)
hint: Run `supabase link --project-ref <ref>` again

"#]]
    );
    assert!(!world.path("state").exists());
}

/// Which project, which folder, which file: the one that counts is said.
#[test]
fn what_was_chosen_is_said() {
    let (mut world, project, _platform) = linked(Major::Pg17, Cli::V3);
    let ref_of = |text: &str| text.replace(&project.project_ref, "[REF]");
    // An outer project, a JSON configuration, and a start further below.
    world.write("supabase/config.json", "{\"project_id\": \"json\"}");
    world.write("../supabase/config.toml", "project_id = \"outer\"\n");
    let mut command = world.command();
    command.current_dir(world.path("app/supabase")).args(["migrate", "--dry-run"]);
    let ran = world.finish(&mut command).exits(0);
    assert_data_eq!(
        ref_of(&ran.talk()),
        str![[r#"
target [REF] (project Prod App, direct host, Postgres 17.10)
  CLI: supabase 3.1.0 ([..]/supabase.js)
  project folder: [ROOT]/app
  the project folder above it is not meant: [ROOT]
warning: `[ROOT]/app/supabase/config.toml` is passed over: supabase 3 reads `[ROOT]/app/supabase/config.json`

"#]]
    );
    // Another project is linked: the exported password is not sent to this one.
    world.write("supabase/.temp/project-ref", "zzzzzzzzzzzzzzzzzzzz");
    world.unset("SUPABASE_ACCESS_TOKEN");
    world.set("SUPABASE_PROJECT_ID", &project.project_ref);
    let ran = world.run(["snapshot"]).exits(12);
    assert_data_eq!(
        ref_of(&ran.talk()),
        str![[r#"
  SUPABASE_PROJECT_ID names the project; the linked one is zzzzzzzzzzzzzzzzzzzz
  SUPABASE_DB_PASSWORD is not sent to [REF]: this folder is linked to zzzzzzzzzzzzzzzzzzzz
error: supabase is not signed in, so it cannot lend a temporary role: Access token not provided. Supply an access token by running `supabase login` or setting the SUPABASE_ACCESS_TOKEN environment variable.
  no password was given: neither `--password-file`, SUPABASE_DB_PASSWORD, nor an env file of the project
hint: Set the database's password in SUPABASE_DB_PASSWORD; it can be reset in the project's dashboard under Database settings
hint: Or sign supabase in (`supabase login`, or SUPABASE_ACCESS_TOKEN): it then lends a temporary role

"#]]
    );
}

/// What `status` says the target is; it connects to nothing.
fn target_of(world: &World, args: &[&str]) -> String {
    let document = world.run([&["status", "--json"], args].concat()).exits(0).document();
    document["target"].as_str().unwrap().to_owned()
}

#[test]
fn every_flag_names_its_project() {
    let (mut world, _platform) = unlinked();
    let [linked, prod, other] = ["l", "p", "o"].map(|letter| letter.repeat(20));
    world.write("supabase/.temp/project-ref", &linked);
    world.write(
        "supabase/config.toml",
        &format!("project_id = \"x\"\n[remotes.prod]\nproject_id = \"{prod}\"\n"),
    );
    world.write("supabase/.link.json", &format!("{{\"active_branch\": {{\"ref\": \"{other}\"}}}}"));
    let direct = format!("postgresql://postgres@db.{other}.supabase.co/postgres");
    let pooler = format!("postgresql://postgres.{other}@aws-0-c.pooler.supabase.com:5432/postgres");
    for (args, expected) in [
        (vec![], &linked),
        (vec!["--linked"], &linked),
        (vec!["--remote"], &linked),
        (vec!["--target", "prod"], &prod),
        (vec!["--project-ref", &other], &other),
        (vec!["--remote", &other], &other),
        (vec!["--remote", &direct], &other),
        (vec!["--db-url", &pooler], &other),
        (vec!["--db-url", &direct, "--project-ref", &other], &other),
        (vec!["--local"], &"127.0.0.1:54322/postgres".to_owned()),
        (vec!["--db-url", "postgresql://u@h/d", "--project-ref", &other], &"h:5432/d".to_owned()),
    ] {
        assert_eq!(target_of(&world, &args), *expected, "{args:?}");
    }
    world.set("SUPABASE_EXPERIMENTAL_STACK", "1");
    assert_eq!(target_of(&world, &[]), other);
    world.set("SUPABASE_PROJECT_ID", &prod);
    assert_eq!(target_of(&world, &[]), prod);
    world.set("SUPA_SAFE_DB_URL", "postgresql://u@h/d");
    assert_eq!(target_of(&world, &[]), "h:5432/d");
    assert_eq!(target_of(&world, &["--linked"]), prod);
    let workdir = world.path("app").display().to_string();
    world.unset("SUPA_SAFE_DB_URL");
    world.set("SUPABASE_WORKDIR", &workdir);
    let mut command = world.command();
    command.current_dir("/").args(["status", "--json", "--target", "prod"]);
    assert_eq!(world.finish(&mut command).exits(0).document()["target"], prod.as_str());
}

#[test]
fn a_branch_is_named_by_the_platform() {
    let (mut world, _) = unlinked();
    let [parent, branch] = ["p", "q"].map(|letter| letter.repeat(20));
    let mut project = Project::new(&parent, "Prod App");
    let id = "22222222-2222-4222-8222-222222222222".to_owned();
    project.branches.push(Branch { id, name: "develop".to_owned(), project_ref: branch.clone() });
    let _platform = world.on_platform(vec![project]);
    // The branch is linked already; its parent is the one that has branches.
    world.write("supabase/.temp/project-ref", &branch);
    world.write(
        "supabase/.temp/linked-project.json",
        &format!("{{\"ref\": \"{parent}\", \"name\": \"Prod App\"}}"),
    );
    assert_eq!(target_of(&world, &["--remote=develop"]), branch);
    let ran = world.run(["status", "--remote=nowhere"]).exits(10);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: `nowhere` is neither a project ref, a URL, nor a branch of pppppppppppppppppppp
hint: Use one of its branches (develop), or pass `--remote=<ref>`

"#]]
    );
}

/// With the pooler as the only door, the CLI signs in through it before it lends the role.
#[test]
fn a_role_is_lent_through_the_pooler() {
    let (mut world, mut project, platform) = linked(Major::Pg17, Cli::V2);
    project.open(&world, Open::Pooler);
    world.unset("SUPABASE_DB_PASSWORD");
    platform.stub.change(&project.project_ref, |project| project.login_role = Some(Arc::new(lent_role)));
    let ran = world.run(["snapshot"]).exits(0);
    assert_eq!(first_line(&ran, &project), "target [REF] (project Prod App, session pooler [POOLER]:5432");
    assert_eq!(world.snapshots().len(), 1);
    platform.knew_every_call();
}

/// A fresh clone has no file with the pooler in it: the platform tells it, and the folder stays as it is.
#[test]
fn a_pooler_that_is_not_on_file_is_asked_for() {
    for cli in [Cli::V2, Cli::V3] {
        let (world, mut project, platform) = linked(Major::Pg17, cli);
        project.open(&world, Open::Pooler);
        world.remove("supabase/.temp/pooler-url");
        let ran = world.run(["snapshot"]).exits(0);
        let through = "target [REF] (project Prod App, session pooler [POOLER]:5432";
        assert_eq!(first_line(&ran, &project), through);
        assert!(!world.path("app/supabase/.temp/pooler-url").exists());

        // Another project is linked, and its pooler is on file.
        let other = "z".repeat(20);
        world.write("supabase/.temp/project-ref", &other);
        let url = format!("postgresql://postgres.{other}@{}:5432/postgres", project.pooler);
        world.write("supabase/.temp/pooler-url", &url);
        world.write("password", &told("SUPA_SAFE_TEST_PASSWORD"));
        let file = world.path("app/password").display().to_string();
        let args = ["snapshot", "--project-ref", &project.project_ref, "--password-file", &file];
        let ran = world.run(args).exits(0);
        assert_eq!(first_line(&ran, &project), through);
        platform.knew_every_call();
    }
}

/// Who is not signed in is told what the platform would tell.
#[test]
fn a_pooler_is_not_told_to_strangers() {
    let (mut world, mut project, _platform) = linked(Major::Pg17, Cli::V3);
    project.open(&world, Open::Pooler);
    world.remove("supabase/.temp/pooler-url");
    world.unset("SUPABASE_ACCESS_TOKEN");
    assert_data_eq!(
        says(&world, &[], 10).replace(&project.project_ref, "[REF]"),
        str![[r#"
error: `db.[REF].supabase.co` does not answer, and no session pooler of this project is known
hint: Check in the dashboard that the project is not paused and that no network restriction is between
hint: Run `supabase link --project-ref [REF]`: it writes down the session pooler's address
hint: Or sign supabase in (`supabase login`, or SUPABASE_ACCESS_TOKEN): it then tells the pooler's address

"#]]
    );
}

/// A backend that a pooler keeps delivers its counters only after it was idle for a while.
#[test]
fn rows_that_a_pooled_session_wrote_are_waited_for() {
    let (world, mut project, _platform) = linked(Major::Pg17, Cli::V3);
    project.open(&world, Open::Pooler);
    world.sql(
        OWNER,
        "create table public.orders (id int primary key, paid bool not null default false);
         insert into public.orders select generate_series(1, 6000)",
    );
    world.migration("20260101000001_paid", "update public.orders set paid = true;");
    let ran = migrate(&world, &project, &[]).exits(0);
    assert_eq!(ran.lines("warning: public.orders"), [""; 0], "{ran}");
}

#[test]
fn a_person_is_asked_for_the_password() {
    let (mut world, _project, platform) = linked(Major::Pg17, Cli::V3);
    world.unset("SUPABASE_DB_PASSWORD");
    platform.stub.forget_calls();
    let mut terminal = Terminal::start(&world, &["snapshot"]);
    terminal.sees("Password of the database of");
    terminal.types_unseen(&told("SUPA_SAFE_TEST_PASSWORD"));
    let (code, seen) = terminal.ends();
    assert_eq!(code, 0, "{seen}");
    assert!(!seen.contains(&told("SUPA_SAFE_TEST_PASSWORD")), "{seen}");
    let lent = platform.stub.calls().into_iter().filter(|call| call.contains("login-role"));
    assert_eq!(lent.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_certificate_is_verified_unless_the_environment_says_otherwise() {
    let (mut world, project, _platform) = linked(Major::Pg17, Cli::V3);
    let ref_of = |text: &str| text.replace(&project.project_ref, "[REF]");
    // The platform's own roots did not sign the servers of the tests.
    world.unset("SUPA_SAFE_ROOT_CERT");
    let ran = world.run(["snapshot"]).exits(12);
    assert_data_eq!(
        ref_of(&ran.talk()),
        str![[r#"
error: no trusted TLS connection to `db.[REF].supabase.co:5432` with sslmode=verify-full
  caused by: invalid peer certificate: UnknownIssuer
hint: Get the certificate from the project's dashboard under Database settings, and name its file in SUPA_SAFE_ROOT_CERT
hint: Or set PGSSLMODE=require, which encrypts and verifies nothing

"#]]
    );
    world.set("PGSSLMODE", "require");
    let ran = world.run(["snapshot"]).exits(0);
    let unverified = "warning: the certificate of";
    assert_data_eq!(
        ref_of(&ran.lines(unverified).concat()),
        str![
            "warning: the certificate of `db.[REF].supabase.co` is not verified (sslmode=require): whoever is between could read and change everything"
        ]
    );
    let manifest = read_json(&world.snapshots()[0].join("manifest.json"));
    let limits = manifest["limits"].as_array().unwrap();
    assert!(
        limits.contains(&"the server's certificate was not verified (sslmode=require)".into()),
        "{manifest}"
    );
    world.set("PGSSLMODE", "disable");
    let ran = world.run(["snapshot"]).exits(2);
    assert_data_eq!(
        ref_of(&ran.talk()),
        str![[r#"
error: `sslmode=disable` would send the password and all rows to `db.[REF].supabase.co` in the clear
hint: Use `sslmode=require`, or better `sslmode=verify-full`

"#]]
    );
}
