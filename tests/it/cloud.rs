//! The stub of the Management API against the real CLIs, and what we read from them.

use crate::world::{Cli, Major, Platform, REF_15, REF_17, World};
use fs_err as fs;
use std::sync::Arc;
use supa_safe::demo::cloud::{Branch, Function, LoginRole, Project};

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
