//! The stub of the Management API against the real CLIs, and what we read from them.

use crate::world::{Cli, Major, Platform, REF_15, REF_17, World};
use fs_err as fs;
use snapbox::{assert_data_eq, str};
use std::sync::Arc;
use supa_safe::demo::cloud::{Backup, Branch, Function, LoginRole, Project, StoredSecret};
use supa_safe::disk;
use supa_safe::tools::supabase;
use supa_safe::tools::supabase::cloud::{Cloud, Error, Folder, Functions};

fn project() -> Project {
    let mut project = Project::new(REF_17, "Acme shop");
    project.functions.push(Function::new(
        "hello",
        &[("hello/index.ts", "import '../_shared/x.ts'\n"), ("_shared/x.ts", "export const x = 1\n")],
    ));
    let id = "22222222-2222-4222-8222-222222222222".to_owned();
    project.branches.push(Branch { id, name: "staging".to_owned(), project_ref: REF_15.to_owned() });
    let role = LoginRole {
        role: "cli_login_postgres".to_owned(),
        password: "short \"lived".to_owned(),
        ttl_seconds: 300,
    };
    project.login_role = Some(Arc::new(move || role.clone()));
    project
}

/// Commands that other tests do not run, so that every shape of the stub was read by the real thing.
fn real_cli_is_content(cli: Cli, target: &str) {
    let mut world = World::new(Major::Pg17, cli);
    let platform = Platform::start(&mut world, vec![project()]);
    world.write("supabase/config.toml", "project_id = \"test\"\n");

    world.supabase(&["link", "--project-ref", REF_17]).exits(0);
    let linked = |file: &str| fs::read_to_string(world.path("app/supabase/.temp").join(file)).unwrap();
    assert_eq!(linked("project-ref"), REF_17);
    assert_eq!(
        linked("pooler-url"),
        format!("postgresql://postgres.{REF_17}@aws-0-eu-central-1.pooler.supabase.com:5432/postgres")
    );

    let branches = world.supabase(&["branches", "list"]).exits(0).document();
    assert_eq!(branches["branches"][0]["project_ref"], REF_15, "{branches}");

    let dump = world.supabase(&["db", "dump", "--dry-run", target]).exits(0);
    let script = |line: &str| dump.stdout.lines().any(|printed| printed == line);
    assert!(script("export PGUSER=\"cli_login_postgres\""), "{dump}");
    assert!(script("export PGPASSWORD=\"short \\\"lived\""), "{dump}");

    let config = world.supabase(&["config", "diff"]).exits(0).document();
    assert_eq!(config["schema_version"], 1, "{config}");

    platform.knew_every_call();
}

#[test]
fn the_stub_answers_the_real_cli_2() {
    real_cli_is_content(Cli::V2, "--linked");
}

#[test]
fn the_stub_answers_the_real_cli_3() {
    real_cli_is_content(Cli::V3, "--remote");
}

#[test]
fn the_stub_remembers_what_it_was_not_told_of() {
    let mut world = World::new(Major::Pg17, Cli::V3);
    let platform = Platform::start(&mut world, vec![project()]);
    world.set("SUPABASE_ACCESS_TOKEN", format!("sbp_{}", "0".repeat(40)));
    let ran = world.supabase(&["projects", "list"]).exits(1);
    assert_eq!(ran.document()["error"]["code"], "ProjectsListUnexpectedStatusError", "{ran}");
    platform.knew_every_call();
    world.set("SUPABASE_ACCESS_TOKEN", platform.stub.token().expose());
    let remote = format!("--remote={REF_17}");
    world.supabase(&["domains", "get", &remote]).exits(1);
    let unknown = platform.stub.unknown_calls();
    assert!(unknown.contains(&format!("GET /v1/projects/{REF_17}/custom-hostname")), "{unknown:?}");
}

/// What came of asking, by kind.
fn kind(outcome: &Result<Functions, Error>) -> &'static str {
    match outcome {
        Ok(_) => "told",
        Err(Error::NotSignedIn(_)) => "not signed in",
        Err(Error::Forbidden { .. }) => "forbidden",
        Err(Error::UnknownProject(_)) => "unknown project",
        Err(Error::Network(_)) => "network",
        Err(_) => "other",
    }
}

fn refusals_are_told_apart(cli: Cli) {
    let mut world = World::new(Major::Pg17, cli);
    let mut silent = project();
    silent.forbidden = vec!["/functions".to_owned()];
    let platform = Platform::start(&mut world, vec![silent]);
    let ask = |world: &World, project_ref: &str| {
        let folder = Folder::new(world.path("folder")).unwrap();
        platform.block_on(async {
            let cli = supabase::find(&world.search()).await.unwrap();
            Cloud::new(cli, project_ref).unwrap().functions(&folder).await
        })
    };
    assert_eq!(kind(&ask(&world, REF_17)), "forbidden");
    platform.stub.change(REF_17, |project| project.forbidden.clear());
    assert_eq!(kind(&ask(&world, REF_17)), "told");
    assert_eq!(kind(&ask(&world, REF_15)), "unknown project");
    let token = platform.stub.token();
    for wrong in ["", "sbp_short", &format!("sbp_{}", "0".repeat(40))] {
        world.set("SUPABASE_ACCESS_TOKEN", wrong);
        assert_eq!(kind(&ask(&world, REF_17)), "not signed in", "{wrong}");
    }
    world.set("SUPABASE_ACCESS_TOKEN", token.expose());
    platform.knew_every_call();
    // Nobody listens on the first port.
    let profile = fs::read_to_string(platform.stub.profile()).unwrap();
    let nobody = profile.replace(&platform.stub.address().to_string(), "127.0.0.1:1");
    disk::write(platform.stub.profile(), nobody.as_bytes()).unwrap();
    assert_eq!(kind(&ask(&world, REF_17)), "network");
}

#[test]
fn refusals_are_told_apart_with_cli_2() {
    refusals_are_told_apart(Cli::V2);
}

#[test]
fn refusals_are_told_apart_with_cli_3() {
    refusals_are_told_apart(Cli::V3);
}

fn starting(text: &str, word: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(word)).map(str::to_owned).collect()
}

/// The whole of a linked project in one snapshot, and a push that waits for a confirmation of the secrets.
#[test]
fn a_push_needs_every_component_and_confirmed_secrets() {
    let mut world =
        World::hosted(&[("20260101000000_notes", "create table public.notes (id int primary key);")]);
    let mut acme = project();
    acme.secrets.push(StoredSecret::new("STRIPE_KEY", "sk_live_value"));
    acme.config = serde_json::json!({"api": {"db_schema": "public,private", "max_rows": 500}});
    acme.backups.list.push(Backup {
        id: 1,
        is_physical_backup: true,
        status: "COMPLETED".to_owned(),
        inserted_at: "2026-11-01T03:00:00.000Z".to_owned(),
    });
    let platform = Platform::start(&mut world, vec![acme]);
    world.write("supabase/functions/.env", "HIDDEN=never_copied\n");
    let with_ref = |args: &[&str]| world.run([args, &["--project-ref", REF_17]].concat());
    let target = world.target();
    let push = ["migrate", "--confirm", &target, "--json"];

    let ran = with_ref(&push).exits(3);
    assert_eq!(ran.summary()["findings"][0]["rule"], "SS007", "{ran}");
    assert_eq!((world.rehearsals().len(), world.snapshots().len()), (0, 1));
    with_ref(&["secrets", "confirm", "--confirm", &target]).exits(0);
    let ran = with_ref(&push).exits(0);
    assert_eq!(world.history(), ["20260101000000"]);
    assert_eq!(world.snapshots().len(), 1, "the first snapshot is as good as a new one: {ran}");

    let dir = &world.snapshots()[0];
    let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    assert!(text("config/supabase/migrations/20260101000000_notes.sql").contains("public.notes"));
    assert!(text("config/remote.toml").contains("max_rows = 500"));
    assert!(!dir.join("config/supabase/functions").exists());
    assert!(!text("secrets.json").contains("sk_live_value"));
    let shown = with_ref(&["show"]).exits(0);
    let beside = ["functions", "secrets", "config", "native", "limit      `"]
        .map(|word| starting(&shown.data(), word));
    assert_data_eq!(
        beside.concat().join("\n"),
        str![[r#"
functions  1 function: hello version 1
secrets    1 secret of the project, 4 of the platform
config     2 files outside of git, the project's own settings, the list of native backups
native     backups: the last one is of 2026-11-01T03:00:00.000Z
limit      `functions/.env` is not in the snapshot: it may hold secrets
"#]]
    );
    platform.knew_every_call();
}
