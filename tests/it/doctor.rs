//! `doctor` finds what is broken, names one thing to do about it, and changes nothing.

use crate::world::{Cli, Major, Template, World, told};
use fs_err as fs;
use serde_json::Value;
use snapbox::{assert_data_eq, str};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use supa_safe::disk;

/// A world in which nothing is wrong.
fn healthy() -> World {
    let world = World::hosted(&[]);
    world.write("supabase/supa-safe.toml", supa_safe::config::SAMPLE);
    world
}

/// The checks that are not well, as `group/name grade`.
fn unwell(world: &World, args: &[&str]) -> Vec<String> {
    let ran = world.run([&["doctor", "--json"], args].concat());
    let report = ran.document();
    let checks = report["checks"].as_array().unwrap();
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    let unwell: Vec<&Value> = checks.iter().filter(|check| check["grade"] != "ok").collect();
    assert!(unwell.iter().all(|check| check["needed"].is_string() && check["fix"].is_string()), "{ran}");
    let failed = unwell.iter().any(|check| check["grade"] == "fail");
    assert_eq!(ran.code, i32::from(failed), "{ran}");
    assert!(!ran.to_string().contains(&told("SUPA_SAFE_TEST_PASSWORD")), "the password is shown");
    unwell
        .iter()
        .map(|check| format!("{}/{} {}", text(check, "group"), text(check, "name"), text(check, "grade")))
        .collect()
}

/// Breaks a healthy world and looks at what doctor finds. To start the CLI for its version takes longer
/// than all the rest, so it is not there, and that is not what is looked for.
#[track_caller]
fn finds(what: impl FnOnce(&mut World), expected: &[&str]) {
    let mut world = healthy();
    what(&mut world);
    world.set("SUPA_SAFE_SUPABASE_BIN", "/gone/supabase");
    let found = unwell(&world, &[]);
    assert_eq!(found, [&["tools/supabase fail"], expected].concat());
}

#[test]
fn a_healthy_machine_has_no_findings() {
    let world = healthy();
    assert_eq!(unwell(&world, &[]), [""; 0]);
    drop(world.run(["snapshot"]).exits(0));
    assert_eq!(unwell(&world, &[]), [""; 0]);
    let ran = world.run(["doctor"]).exits(0);
    let ends: Vec<String> = ran.data().lines().rev().take(4).map(|line| format!("{line}\n")).collect();
    assert_data_eq!(
        ends.into_iter().rev().collect::<String>(),
        str![[r#"
  ok   state folder     [ROOT]/state
  ok   free space       [BYTES]
  ok   leftovers        none
[..] checks: 0 failed, 0 warned

"#]]
    );
}

/// Every file, folder, and link of the world: mode, time of change, and content.
pub(crate) fn tree(world: &World) -> Vec<(PathBuf, u32, i64, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, u32, i64, String)>) {
        for path in crate::world::list(dir) {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() { disk::sha256_file(&path).unwrap().0 } else { String::new() };
            found.push((path.clone(), meta.mode(), meta.mtime_nsec() + meta.mtime(), content));
            if meta.is_dir() {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&world.path(""), &mut found);
    found
}

#[test]
fn looking_changes_nothing() {
    let mut world = healthy();
    // The CLI writes into the home folder as long as nobody tells it not to.
    world.unset("SUPABASE_TELEMETRY_DISABLED");
    drop(world.finish(world.program("git").args(["init", "--quiet"])));
    drop(world.run(["hook", "install"]).exits(0));
    let before = (tree(&world), world.state());
    drop(world.run(["doctor"]).exits(0));
    assert_eq!(unwell(&world, &[]), [""; 0]);
    assert_eq!((tree(&world), world.state()), before, "also where no state folder is yet");

    drop(world.run(["snapshot"]).exits(0));
    fs::create_dir(world.store().join("snapshots/20261122T000000Z-aaaaaa.partial")).unwrap();
    let before = tree(&world);
    drop(world.run(["doctor"]).exits(0));
    assert_eq!(tree(&world), before);
}

#[test]
fn broken_tools_are_found() {
    finds(|_| {}, &[]);
    finds(|world| world.unset("SUPA_SAFE_PG_BIN"), &["tools/pg_dump fail", "tools/postgres server fail"]);
    finds(
        |world| {
            let bin = world.path("bin");
            fs::create_dir(&bin).unwrap();
            world.write("package.json", "{}");
            world.set("PATH", bin);
        },
        &["tools/git warn", "tools/node warn"],
    );
}

#[test]
fn a_second_cli_is_found() {
    let mut world = healthy();
    world.unset("SUPA_SAFE_SUPABASE_BIN");
    for (dir, cli) in [("app/node_modules/.bin", "SUPA_SAFE_TEST_CLI2"), ("bin", "SUPA_SAFE_TEST_CLI3")] {
        fs::create_dir_all(world.path(dir)).unwrap();
        symlink(told(cli), world.path(dir).join("supabase")).unwrap();
    }
    let path = format!("{}:{}", world.path("bin").display(), world.variable("PATH").display());
    world.set("PATH", path);
    assert_eq!(unwell(&world, &[]), ["tools/second supabase warn"]);
}

#[test]
fn a_broken_project_is_found() {
    let world = healthy();
    assert_eq!(unwell(&world, &["--workdir", "/"]), ["project/folder fail", "project/policy warn"]);
    finds(|world| world.write("supabase/config.toml", "x = [\n"), &["project/config fail"]);
    finds(|world| world.write("supabase/supa-safe.toml", "max_ages = \"1h\"\n"), &["project/policy fail"]);
    finds(|world| world.write("supabase/supa-safe.toml", "keep = \"ever\"\n"), &["project/policy fail"]);
    finds(|world| world.remove("supabase/supa-safe.toml"), &["project/policy warn"]);
    finds(
        |world| world.write("supabase/.temp/project-ref", "production\n"),
        &["project/link fail", "project/access token warn", "storage/S3 keys warn"],
    );
    finds(
        |world| {
            world.write("supabase/.temp/project-ref", "abcdefghijklmnopqrst");
            world.set("SUPABASE_ACCESS_TOKEN", "sbp_x");
            world.set("SUPA_SAFE_S3_PROFILE", "supabase");
        },
        &[],
    );
}

#[test]
fn a_broken_connection_is_found() {
    let url = |address: &str| format!("postgresql://postgres@{address}/postgres");
    finds(|world| world.set("SUPA_SAFE_DB_URL", url("127.0.0.1:6543")), &["connection/target fail"]);
    finds(|world| world.set("SUPA_SAFE_DB_URL", url("127.0.0.1:1")), &["connection/answer fail"]);
    finds(
        |world| world.set("SUPA_SAFE_DB_URL", "postgresql://postgres:[YOUR-PASSWORD]@h/x"),
        &["connection/target fail"],
    );
    finds(|world| world.set("PGPASSWORD", "wrong"), &["connection/answer fail"]);
    finds(|world| world.unset("PGPASSWORD"), &["connection/password warn", "connection/answer fail"]);
    finds(|world| world.unset("SUPA_SAFE_DB_URL"), &["project/link warn", "connection/target warn"]);
    // A transaction pooler on a port that does not give it away.
    let odd = url(&told("SUPA_SAFE_TEST_POOLER_ODD"));
    finds(|world| world.set("SUPA_SAFE_DB_URL", odd), &["connection/answer fail"]);
    finds(|world| world.set("SUPA_SAFE_S3_ACCESS_KEY_ID", "id"), &["storage/S3 keys fail"]);
    finds(|world| world.set("SUPA_SAFE_STORAGE_URL", "not a url"), &["storage/S3 keys fail"]);
}

/// Keys are tried on one page of one bucket.
#[test]
fn keys_that_do_not_open_storage_are_found() {
    let mut world = healthy();
    let bucket = world.bucket(&["photos"]);
    world.set("SUPA_SAFE_SUPABASE_BIN", "/gone/supabase");
    bucket.put("photos", "x", b"x");
    assert_eq!(unwell(&world, &[]), ["tools/supabase fail"]);
    world.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", "wrong");
    assert_eq!(unwell(&world, &[]), ["tools/supabase fail", "storage/S3 keys fail"]);
    assert_eq!(bucket.double.served().gets, 0);
}

#[test]
fn clocks_that_differ_are_found() {
    let world = World::own_server(&[]);
    world.write("supabase/supa-safe.toml", "");
    world.server_clock("-1h");
    assert_eq!(unwell(&world, &[]), ["connection/clock warn"]);
}

#[test]
fn a_broken_machine_is_found() {
    finds(|world| disk::write(&world.path("state"), b"").unwrap(), &["disk/state folder fail"]);
    finds(
        |world| {
            fs::create_dir(world.path("state")).unwrap();
            fs::set_permissions(world.path("state"), std::fs::Permissions::from_mode(0o755)).unwrap();
        },
        &["disk/state folder warn"],
    );
    finds(
        |world| {
            drop(world.run(["snapshot"]).exits(0));
            fs::create_dir(world.store().join("snapshots/20261122T000000Z-aaaaaa.partial")).unwrap();
        },
        &["disk/leftovers warn"],
    );
    finds(
        |world| {
            drop(world.run(["snapshot"]).exits(0));
            let delegating = "{\"type\":\"delegating\",\"at\":\"2026-11-22T00:00:00Z\",\"snapshot\":\"20261122T000000Z-aaaaaa\"}\n";
            disk::write(&world.store().join("runs/20261122T000000000000Z-1.jsonl"), delegating.as_bytes())
                .unwrap();
        },
        &["disk/last push warn"],
    );
    let repository = |world: &World| drop(world.finish(world.program("git").args(["init", "--quiet"])));
    finds(|world| repository(world), &["hook/pre-push warn"]);
    finds(
        |world| {
            repository(world);
            let hook = world.path("app/.git/hooks/pre-push");
            disk::write_program(&hook, b"#!/bin/sh\n# supa-safe pre-push hook, version 0\n").unwrap();
        },
        &["hook/pre-push warn"],
    );
    finds(
        |world| {
            repository(world);
            world.write("lefthook.yml", "pre-push:\n");
        },
        &["hook/pre-push warn"],
    );
}

/// A small disk, on which no snapshot and its copy have room.
#[test]
fn a_full_disk_is_found() {
    let mut world = World::new(Major::Pg17, Cli::V3);
    world.database(Template::Hosted);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    world.write("supabase/supa-safe.toml", "");
    let dir = PathBuf::from(told("SUPA_SAFE_TEST_SMALL_DISK")).join(format!("doctor-{}", std::process::id()));
    world.set("SUPA_SAFE_STATE_DIR", dir);
    assert_eq!(unwell(&world, &[]), ["disk/free space warn"]);
}
