//! Every server, CLI, and door: from a link by the real CLI to a push, on the strength of a snapshot
//! that lacks nothing of the project.

use super::{FILES, first_line, linked, migrate};
use crate::world::{Bucket, Cli, Linked, Major, Open, Platform, World, read_json, told};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use supa_safe::demo::cloud::{Backup, Function, StoredSecret};

/// A linked world of which every component has something, with Storage at the project's own address.
fn whole(major: Major, cli: Cli) -> (World, Linked, Platform, Bucket) {
    let (mut world, project, platform) = linked(major, cli);
    let config = format!("project_id = \"test\"\n[remotes.prod]\nproject_id = \"{}\"\n", project.project_ref);
    world.write("supabase/config.toml", &config);
    platform.stub.change(&project.project_ref, |project| {
        project.functions = vec![
            Function::new("hello", &[("hello/index.ts", "hello"), ("_shared/x.ts", "version 1")]),
            Function::new("pay", &[("pay/index.ts", "pay"), ("_shared/x.ts", "version 2")]),
        ];
        project.secrets.push(StoredSecret::new("STRIPE_KEY", "sk_live_value"));
        project.config = json!({"api": {"max_rows": 500}});
        project.backups.list.push(Backup {
            id: 1,
            is_physical_backup: true,
            status: "COMPLETED".to_owned(),
            inserted_at: "2026-11-01T03:00:00.000Z".to_owned(),
        });
    });
    let bucket = world.own_bucket(&project, &["photos"]);
    drop(world.run(["secrets", "confirm", "--confirm", &project.project_ref]).exits(0));
    (world, project, platform, bucket)
}

/// Puts one more object there, which the next snapshot has to fetch.
fn one_more_object(bucket: &Bucket, number: usize) {
    bucket.put("photos", &format!("{number}.txt"), format!("object {number}").as_bytes());
}

/// The components of a snapshot, each with its state and what it says of itself.
fn components(manifest: &Value) -> Vec<String> {
    let text = |component: &Value, name: &str| component[name].as_str().unwrap().to_owned();
    let components = manifest["components"].as_array().unwrap().iter();
    components
        .map(|one| format!("{} {}: {}", text(one, "name"), text(one, "state"), text(one, "summary")))
        .collect()
}

fn of(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Demands that a snapshot has everything of the project, with so many objects and migrations.
#[track_caller]
fn lacks_nothing(dir: &Path, bucket: &Bucket, count: usize) {
    let manifest = read_json(&dir.join("manifest.json"));
    assert_eq!(
        components(&manifest),
        [
            format!("storage complete: 3 buckets, {}, {} B", of(count, "object"), 8 * count),
            // Those that have not changed are not downloaded again.
            format!(
                "functions complete: 2 functions{}: hello version 1, pay version 1",
                if count == 1 { "" } else { ", 2 unchanged" }
            ),
            "secrets complete: 1 secret of the project, 4 of the platform".to_owned(),
            format!(
                "config complete: {} files outside of git, the project's own settings, the list of native backups",
                count + 1
            ),
        ]
    );
    let missing = manifest["components"].as_array().unwrap().iter().map(|component| &component["missing"]);
    assert!(missing.clone().all(|missing| *missing == json!([])), "{manifest}");
    assert_eq!((&manifest["database"]["gaps"], &manifest["limits"]), (&json!([]), &json!([])));
    let files: Vec<&str> =
        manifest["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    for file in [
        "config/backups.json",
        "config/remote.toml",
        "config/supabase/config.toml",
        "config/supabase/migrations/20260101000001_one.sql",
        "database/archive/toc.dat",
        "functions.json",
        "functions/hello/_shared/x.ts",
        "functions/pay/_shared/x.ts",
        "secrets.json",
        "storage/index.jsonl",
    ] {
        assert!(files.contains(&file), "{file} is not among {files:?}");
    }
    let backups = read_json(&dir.join("config/backups.json"));
    assert_eq!(backups["backups"][0]["inserted_at"], "2026-11-01T03:00:00.000Z");
    // All that was there before is not fetched again.
    assert_eq!(bucket.double.served().gets, count as u64);
    assert_eq!(bucket.double.unknown_calls(), [""; 0]);
}

/// Three pushes, each through another door.
fn a_healthy_migrate(major: Major, cli: Cli) {
    let (mut world, mut project, platform, bucket) = whole(major, cli);

    // The project's own keys are enough for its own address.
    world.set("SUPABASE_ANON_KEY", bucket.double.keys().anon.expose());
    world.set("SUPABASE_SERVICE_ROLE_KEY", bucket.double.keys().service_role.expose());
    world.migration(FILES[0].0, FILES[0].1);
    one_more_object(&bucket, 1);
    let ran = migrate(&world, &project, &[]).exits(0);
    assert_eq!(first_line(&ran, &project), "target [REF] (project Prod App, [remotes.prod], direct host");
    assert_eq!(world.history(), ["20260101000001"]);
    lacks_nothing(&world.snapshots()[0], &bucket, 1);

    world.unset("SUPABASE_ANON_KEY");
    world.unset("SUPABASE_SERVICE_ROLE_KEY");
    world.give_pair(&bucket);
    project.open(&world, Open::Pooler);
    world.migration(FILES[1].0, FILES[1].1);
    one_more_object(&bucket, 2);
    let ran = migrate(&world, &project, &[]).exits(0);
    assert_eq!(
        first_line(&ran, &project),
        "target [REF] (project Prod App, [remotes.prod], session pooler [POOLER]:5432"
    );
    assert_eq!(world.history(), ["20260101000001", "20260101000002"]);
    lacks_nothing(&world.snapshots()[0], &bucket, 2);

    // The same database by its URL is the same target: same name, same evidence.
    project.open(&world, Open::Direct);
    world.migration(FILES[2].0, FILES[2].1);
    one_more_object(&bucket, 3);
    world.set("PGPASSWORD", told("SUPA_SAFE_TEST_PASSWORD"));
    let url = format!(
        "postgresql://postgres@db.{}.supabase.co:5432/postgres?sslmode=verify-full&sslrootcert={}",
        project.project_ref,
        told("SUPA_SAFE_TEST_ROOT_CA")
    );
    let ran = migrate(&world, &project, &["--db-url", &url]).exits(0);
    assert_eq!(first_line(&ran, &project), "target [REF] (project Prod App, [remotes.prod], direct host");
    assert_eq!(world.history().len(), 3);
    lacks_nothing(&world.snapshots()[0], &bucket, 3);
    assert_eq!(world.snapshots().len(), 3);
    assert!(world.store().ends_with(&project.project_ref));
    platform.knew_every_call();
}

#[test]
fn pg15_cli2() {
    a_healthy_migrate(Major::Pg15, Cli::V2);
}

#[test]
fn pg15_cli3() {
    a_healthy_migrate(Major::Pg15, Cli::V3);
}

#[test]
fn pg17_cli2() {
    a_healthy_migrate(Major::Pg17, Cli::V2);
}

#[test]
fn pg17_cli3() {
    a_healthy_migrate(Major::Pg17, Cli::V3);
}

/// By a URL that says no project there is nobody to ask for the rest, which the manifest says; with
/// the project beside it, nothing is missing.
#[test]
fn a_url_without_its_project_has_the_database_alone() {
    let (mut world, project, platform, bucket) = whole(Major::Pg17, Cli::V3);
    world.give_pair(&bucket);
    world.set("PGPASSWORD", told("SUPA_SAFE_TEST_PASSWORD"));
    world.migration(FILES[0].0, FILES[0].1);
    one_more_object(&bucket, 1);
    platform.stub.forget_calls();
    let root = told("SUPA_SAFE_TEST_ROOT_CA");
    let url = format!("{}?sslmode=verify-full&sslrootcert={root}", world.url());
    let taken = |args: &[&str]| -> PathBuf {
        let ran = world.run([&["snapshot", "--json", "--db-url", &url], args].concat()).exits(0);
        ran.events_of("snapshot-taken")[0]["folder"].as_str().unwrap().into()
    };
    let manifest = read_json(&taken(&[]).join("manifest.json"));
    assert_eq!(
        components(&manifest),
        [
            "storage not-applicable: ",
            "functions not-applicable: ",
            "secrets not-applicable: ",
            "config not-applicable: ",
        ]
    );
    assert_eq!(
        manifest["limits"],
        json!(["Storage, Functions, secrets, and configuration are not part of a target given by URL"])
    );
    assert_eq!(platform.stub.calls(), [""; 0]);
    lacks_nothing(&taken(&["--project-ref", &project.project_ref]), &bucket, 1);
    platform.knew_every_call();
}
