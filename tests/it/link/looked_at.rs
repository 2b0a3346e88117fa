//! A linked project that `doctor` looks at: everything but what only a person, or a change on the
//! platform, would open.

use super::linked;
use crate::doctor::tree;
use crate::world::{Bucket, Cli, Linked, Major, Open, Platform, World, told};
use serde_json::Value;
use supa_safe::disk;

/// A linked world without a password, with the project's own keys of Storage.
fn without_password(cli: Cli) -> (World, Linked, Platform, Bucket) {
    let (mut world, project, platform) = linked(Major::Pg17, cli);
    world.write("supabase/supa-safe.toml", supa_safe::config::SAMPLE);
    let bucket = world.own_bucket(&project, &["photos"]);
    bucket.put("photos", "x", b"x");
    world.set("SUPABASE_ANON_KEY", bucket.double.keys().anon.expose());
    world.set("SUPABASE_SERVICE_ROLE_KEY", bucket.double.keys().service_role.expose());
    world.unset("SUPABASE_DB_PASSWORD");
    (world, project, platform, bucket)
}

/// What doctor finds of the target, with its grade.
fn seen(world: &World, project: &Linked) -> Vec<String> {
    let report = world.run(["doctor", "--json"]).document();
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let of_target = checks.filter(|check| {
        let (group, name) = (check["group"].as_str().unwrap(), check["name"].as_str().unwrap());
        matches!(group, "connection" | "storage") && name != "clock" || name == "access token"
    });
    of_target
        .map(|check| {
            let found = text(check, "found").replace(&project.project_ref, "[REF]");
            let found = found.replace(&project.pooler, "[POOLER]");
            format!("{} {}: {found}", text(check, "grade"), text(check, "name"))
        })
        .collect()
}

#[test]
fn everything_but_the_inside_without_a_password() {
    let (mut world, mut project, platform, _bucket) = without_password(Cli::V3);
    world.unset("SUPABASE_TELEMETRY_DISABLED");
    platform.stub.forget_calls();
    // The CLI leaves a library of its own there.
    let tree = |world: &World| {
        let tmp = world.path("tmp");
        tree(world).into_iter().filter(|(path, ..)| !path.starts_with(&tmp)).collect::<Vec<_>>()
    };
    let before = tree(&world);
    assert_eq!(
        seen(&world, &project),
        [
            "ok access token: in SUPABASE_ACCESS_TOKEN, and accepted",
            "ok target: db.[REF].supabase.co:5432 (direct host)",
            "ok password: not signed in: no password is exported; supabase lends a run a role",
            "ok tls: sslmode=verify-full",
            "ok answer: asks for a password",
            "ok S3 keys: the project's own keys",
        ]
    );
    assert_eq!(tree(&world), before);
    assert!(platform.stub.calls().iter().all(|call| call.starts_with("GET ")), "{:?}", platform.stub.calls());

    project.open(&world, Open::Pooler);
    world.remove("supabase/.temp/pooler-url");
    world.unset("SUPABASE_ACCESS_TOKEN");
    world.write(
        "supabase/.temp/pooler-url",
        &format!("postgresql://postgres.{}@{}:5432/postgres", project.project_ref, project.pooler),
    );
    world.set("SUPABASE_SERVICE_ROLE_KEY", "x.y.z");
    let found = seen(&world, &project);
    assert_eq!(
        found[..4],
        [
            "warn access token: not in SUPABASE_ACCESS_TOKEN or ~/.supabase (a keyring is not read)",
            "ok target: [POOLER]:5432 (session pooler)",
            "warn password: not signed in: no password is exported",
            "ok tls: sslmode=verify-full",
        ]
    );
    assert!(found[5].starts_with("fail S3 keys: "), "{found:?}");
}

#[test]
fn a_password_in_a_file_of_the_project_is_enough() {
    let (mut world, project, _platform, bucket) = without_password(Cli::V2);
    world.write("supabase/.env", &format!("SUPABASE_DB_PASSWORD='{}'\n", told("SUPA_SAFE_TEST_PASSWORD")));
    // Keys of a profile that the policy names.
    world.unset("SUPABASE_SERVICE_ROLE_KEY");
    let keys = bucket.double.keys();
    let file = world.path("credentials");
    let (id, secret) = (&keys.access_key_id, keys.secret_access_key.expose());
    let text = format!("[photos]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n");
    disk::write(&file, text.as_bytes()).unwrap();
    world.set("AWS_SHARED_CREDENTIALS_FILE", &file);
    world.write("supabase/supa-safe.toml", "storage_profile = \"photos\"\n");
    // A token that the CLI does not even send.
    world.set("SUPABASE_ACCESS_TOKEN", "nonsense");
    let found = seen(&world, &project);
    assert!(found[0].starts_with("fail access token: supabase is not signed in"), "{found:?}");
    assert_eq!(
        found[1..],
        [
            "ok target: db.[REF].supabase.co:5432 (direct host)",
            "ok password: set",
            "ok tls: sslmode=verify-full",
            "ok answer: Postgres 17.10",
            "ok S3 keys: AWS profile photos",
        ]
    );
}
