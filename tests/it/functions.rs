//! Edge Functions in a snapshot: each as it was deployed, and nothing of the project's own folder touched.

use crate::world::{Cli, Major, Platform, REF_17, Ran, Template, World};
use fs_err as fs;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use supa_safe::demo::cloud::{Function, Part, Project};
use supa_safe::disk;

/// Two functions that were deployed with different versions of a shared file.
fn two() -> Project {
    let mut project = Project::new(REF_17, "Acme shop");
    project.functions = vec![
        Function::new("hello", &[("hello/index.ts", "hello"), ("_shared/x.ts", "version 1")]),
        Function::new(
            "pay",
            &[("pay/index.ts", "pay"), ("pay/deno.json", "{}"), ("_shared/x.ts", "version 2")],
        ),
    ];
    project
}

fn world(cli: Cli, project: Project) -> (World, Platform) {
    let mut world = World::new(Major::Pg17, cli).with_database(Template::Hosted);
    let platform = Platform::start(&mut world, vec![project]);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    world.write("supabase/functions/hello/index.ts", "not deployed yet");
    // Leads every CLI that runs here to another project.
    world.write(".env", "SUPABASE_PROJECT_ID=zzzzzzzzzzzzzzzzzzzz\nSUPABASE_WORKDIR=/nowhere\n");
    (world, platform)
}

fn snapshot(world: &World) -> Ran {
    world.run(["snapshot", "--project-ref", REF_17, "--only", "database,functions", "--json"])
}

/// Every file below a folder with its content; none when the folder is not there.
fn tree(dir: &Path) -> BTreeMap<String, String> {
    let files = if dir.exists() { disk::files_below(dir).unwrap() } else { Vec::new() };
    let read = |file: &Path| fs::read_to_string(dir.join(file)).unwrap();
    files.iter().map(|file| (file.display().to_string(), read(file))).collect()
}

fn expected(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

fn component(world: &World, at: usize) -> serde_json::Value {
    let manifest = crate::world::read_json(&world.snapshots()[at].join("manifest.json"));
    manifest["components"].as_array().unwrap().iter().find(|one| one["name"] == "functions").unwrap().clone()
}

fn captured_apart(cli: Cli) {
    let (world, platform) = world(cli, two());
    let before = tree(&world.path("app"));
    snapshot(&world).exits(0);
    let dir = &world.snapshots()[0];
    assert_eq!(
        tree(&dir.join("functions/hello")),
        expected(&[("_shared/x.ts", "version 1"), ("hello/index.ts", "hello")])
    );
    assert_eq!(
        tree(&dir.join("functions/pay")),
        expected(&[("_shared/x.ts", "version 2"), ("pay/deno.json", "{}"), ("pay/index.ts", "pay")])
    );
    let list = crate::world::read_json(&dir.join("functions.json"));
    assert_eq!((list[0]["slug"].as_str(), list[0]["verify_jwt"].as_bool()), (Some("hello"), Some(true)));
    let component = component(&world, 0);
    assert_eq!(component["state"], "complete");
    assert_eq!(component["summary"], "2 functions: hello version 1, pay version 1");
    assert_eq!(tree(&world.path("app")), before);
    assert!(!dir.join("scratch").exists());
    platform.knew_every_call();
}

#[test]
fn functions_with_different_shared_files_are_both_right_with_cli_2() {
    captured_apart(Cli::V2);
}

#[test]
fn functions_with_different_shared_files_are_both_right_with_cli_3() {
    captured_apart(Cli::V3);
}

#[test]
fn what_has_not_changed_is_not_fetched_again() {
    let (world, platform) = world(Cli::V3, two());
    snapshot(&world).exits(0);
    let fetched = || {
        let calls = platform.stub.calls();
        platform.stub.forget_calls();
        calls.into_iter().filter(|call| call.ends_with("/body")).collect::<Vec<_>>()
    };
    assert_eq!(fetched().len(), 2);

    platform.stub.change(REF_17, |project| project.functions[1].deploy(&[("pay/index.ts", "pay 2")]));
    snapshot(&world).exits(0);
    assert_eq!(fetched(), [format!("GET /v1/projects/{REF_17}/functions/pay/body")]);
    let dir = &world.snapshots()[0];
    assert_eq!(tree(&dir.join("functions/pay")), expected(&[("pay/index.ts", "pay 2")]));
    assert_eq!(tree(&dir.join("functions/hello")).len(), 2);
    assert_eq!(component(&world, 0)["summary"], "2 functions, 1 unchanged: hello version 1, pay version 2");

    // A file that lost its digest is not handed on.
    disk::write(&dir.join("functions/hello/hello/index.ts"), b"altered").unwrap();
    snapshot(&world).exits(0);
    assert_eq!(fetched(), [format!("GET /v1/projects/{REF_17}/functions/hello/body")]);
    assert_eq!(tree(&world.snapshots()[0].join("functions/hello"))["hello/index.ts"], "hello");
    platform.knew_every_call();
}

#[test]
fn no_function_is_complete() {
    let (world, platform) = world(Cli::V3, Project::new(REF_17, "Acme shop"));
    snapshot(&world).exits(0);
    let component = component(&world, 0);
    assert_eq!(
        (component["state"].as_str(), component["summary"].as_str()),
        (Some("complete"), Some("no functions"))
    );
    platform.knew_every_call();
}

/// The bundle by which CLI 2.99.0 wrote a file outside of its workdir.
fn refused(cli: Cli) {
    let mut project = two();
    let evil = "source/../../../../../evil.ts";
    project.functions[1].parts.push(Part { path: evil.to_owned(), bytes: b"evil".to_vec() });
    let (world, platform) = world(cli, project);
    snapshot(&world).exits(3);
    let component = component(&world, 0);
    assert_eq!(component["state"], "incomplete");
    let missing =
        format!("function `pay`: the file `{evil}` of function `pay` leaves the folder of the functions");
    assert_eq!(component["missing"], json!([missing]));
    let dir = &world.snapshots()[0];
    assert_eq!((tree(&dir.join("functions/hello")).len(), tree(&dir.join("functions/pay")).len()), (2, 0));
    let anywhere = disk::files_below(&world.path("")).unwrap();
    assert!(anywhere.iter().all(|file| !file.ends_with("evil.ts")), "{anywhere:?}");
    platform.knew_every_call();
}

#[test]
fn a_part_that_leaves_its_folder_is_refused_with_cli_2() {
    refused(Cli::V2);
}

#[test]
fn a_part_that_leaves_its_folder_is_refused_with_cli_3() {
    refused(Cli::V3);
}

#[test]
fn without_a_token_nothing_is_taken() {
    let (mut world, platform) = world(Cli::V3, two());
    world.unset("SUPABASE_ACCESS_TOKEN");
    let ran = snapshot(&world).exits(12);
    assert_eq!(world.snapshots(), [""; 0].map(std::path::PathBuf::from));
    snapbox::assert_data_eq!(
        ran.failure(),
        snapbox::str![[r#"
error: supabase is not signed in: Access token not provided. Supply an access token by running `supabase login` or setting the SUPABASE_ACCESS_TOKEN environment variable
  the target was not touched; no snapshot was kept
hint: Run `supabase login`, or set SUPABASE_ACCESS_TOKEN to a token of https://supabase.com/dashboard/account/tokens
hint: To leave the platform out, set `components = []` for this target in supabase/supa-safe.toml

"#]]
    );
    let ran = world.run(["snapshot", "--project-ref", REF_17, "--only", "functions"]).exits(2);
    snapbox::assert_data_eq!(
        ran.failure(),
        snapbox::str![[r#"
error: a snapshot always holds the database, and `--only` leaves it out
hint: Add `database` to `--only`

"#]]
    );
    world.run(["snapshot", "--project-ref", REF_17, "--only", "database"]).exits(0);
    assert_eq!(component(&world, 0)["state"], "left-out");
    world.write("supabase/supa-safe.toml", "components = []\n");
    world.run(["snapshot", "--project-ref", REF_17]).exits(0);
    assert_eq!(component(&world, 0)["state"], "not-applicable");
    assert_eq!(platform.stub.calls(), [""; 0]);
}

#[test]
fn a_right_that_the_token_lacks_is_named() {
    let mut project = two();
    project.forbidden = ["/functions", "/secrets", "/config", "/backups"].map(str::to_owned).to_vec();
    let (world, platform) = world(Cli::V3, project);
    let ran = world.run(["snapshot", "--project-ref", REF_17, "--json"]).exits(3);
    let limits = ran.summary()["limits"].clone();
    let manifest = crate::world::read_json(&world.snapshots()[0].join("manifest.json"));
    let missing: Vec<&serde_json::Value> =
        manifest["components"].as_array().unwrap().iter().map(|component| &component["missing"]).collect();
    let right = |doing: &str| format!("the access token has no right to {doing} of project `{REF_17}`");
    assert_eq!(*missing[1], json!([format!("the functions: {}", right("list the functions"))]));
    assert_eq!(*missing[2], json!([format!("the names of the secrets: {}", right("list the secrets"))]));
    let limits: Vec<&str> = limits.as_array().unwrap().iter().filter_map(|limit| limit.as_str()).collect();
    let backups = format!("the list of native backups is not in the snapshot: {}", right("list the backups"));
    assert!(limits.contains(&backups.as_str()), "{limits:?}");
    let config = "the project's own configuration is not in the snapshot: ";
    assert_eq!(limits.iter().filter(|limit| limit.starts_with(config)).count(), 1, "{limits:?}");

    let ran = world.run(["check", "--project-ref", REF_17, "--json"]).exits(3);
    let rules: Vec<String> = ran.summary()["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["rule"].to_string())
        .collect();
    assert_eq!(rules, ["\"SS006\"", "\"SS006\""]);
    platform.knew_every_call();
}
