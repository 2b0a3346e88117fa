//! Rows of tables that are as in an earlier snapshot are taken over from it.

use crate::world::{Cli, Major, OWNER, Ran, Template, World, read_json};
use fs_err as fs;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use supa_safe::archive::Toc;
use supa_safe::disk;

const TABLES: &str = r#"
    create table public.plain (id int primary key, v text);
    insert into public.plain select n, 'row ' || n from generate_series(1, 3000) n;
    create table public.changes (id int primary key, v text);
    insert into public.changes select n, 'row ' || n from generate_series(1, 100) n;
    create schema "An odd "" one";
    create table "An odd "" one"."a.b ÄÖ *?" (id int generated always as identity, "Sp alt" text, "select" text);
    insert into "An odd "" one"."a.b ÄÖ *?" ("Sp alt", "select") values ('x', null), ('\N', E'tab\tback\\slash');
    create table public.keyless (v int); insert into public.keyless select n % 3 from generate_series(1, 100) n;
    create table public.parts (id int, v text) partition by range (id);
    create table public.parts_low partition of public.parts for values from (0) to (100);
    create table public.parts_high partition of public.parts for values from (100) to (200);
    insert into public.parts select n, 'p' from generate_series(0, 199) n;
    create table public.refers (id int primary key, plain int references public.plain);
    insert into public.refers select n, n from generate_series(1, 50) n;
    create table public.none (id int);
    create materialized view public.counted as select count(*) from public.plain;"#;

fn world(major: Major) -> World {
    let world = World::new(major, Cli::V3).with_database(Template::Hosted);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    world.write("supabase/supa-safe.toml", "reuse = \"always\"\n");
    world.sql(OWNER, TABLES);
    world
}

fn snapshot(world: &World) -> Ran {
    world.run(["snapshot"]).exits(0)
}

/// The oldest first.
fn snapshots(world: &World) -> Vec<PathBuf> {
    let mut found = world.snapshots();
    found.sort_unstable();
    found
}

/// Tables of the newest snapshot, with the snapshot from which their rows are.
fn taken_over(world: &World) -> BTreeMap<String, Option<String>> {
    let newest = snapshots(world).pop().unwrap();
    let manifest = read_json(&newest.join("manifest.json"));
    let tables = manifest["database"]["tables"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    tables
        .map(|table| {
            (
                format!("{}.{}", text(&table["schema"]).unwrap(), text(&table["name"]).unwrap()),
                text(&table["from"]),
            )
        })
        .collect()
}

fn is_taken_over(world: &World, table: &str) -> bool {
    taken_over(world)[table].is_some()
}

/// What plain tools read from an archive, but for the lines that are random.
fn restored(world: &World, archive: &Path, args: &[&str]) -> String {
    let mut command = world.program(world.variable("SUPA_SAFE_PG_BIN").join("pg_restore"));
    let ran = world.finish(command.args(args).args(["-f", "-"]).arg(archive)).exits(0);
    let lines = ran
        .stdout
        .lines()
        .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
    lines.filter(|line| !line.starts_with("--")).flat_map(|line| [line, "\n"]).collect()
}

/// The rows by table, in no order of the tables.
fn rows(script: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for part in script.split("\nCOPY ").skip(1) {
        let (head, rest) = part.split_once(" FROM stdin;\n").unwrap();
        let (rows, _) = rest.split_once("\\.\n").unwrap();
        found.insert(head.to_owned(), rows.lines().map(str::to_owned).collect());
    }
    found
}

fn archive(snapshot: &Path) -> PathBuf {
    snapshot.join("database/archive")
}

fn a_snapshot_of_two_stands_alone(major: Major) {
    let world = world(major);
    snapshot(&world);
    world.sql(OWNER, "update public.changes set v = 'other' where id = 7");
    let ran = snapshot(&world);
    assert!(ran.text().contains("are as in snapshot"), "{ran}");
    let [first, second] = snapshots(&world).try_into().unwrap();
    for table in ["plain", "keyless", "parts_low", "parts_high", "refers", "none"] {
        assert!(is_taken_over(&world, &format!("public.{table}")), "{table}: {ran}");
    }
    assert!(is_taken_over(&world, "An odd \" one.a.b ÄÖ *?"));
    assert!(!is_taken_over(&world, "public.changes") && !is_taken_over(&world, "public.counted"));

    // The same as a dump that took nothing over, entry by entry and row by row.
    world.write("supabase/supa-safe.toml", "reuse = \"never\"\n");
    snapshot(&world);
    let third = snapshots(&world).pop().unwrap();
    assert!(taken_over(&world).values().all(Option::is_none));
    let inode = |snapshot: &Path| {
        let files = disk::files_below(&archive(snapshot)).unwrap();
        let of = |file: PathBuf| fs::metadata(archive(snapshot).join(file)).unwrap();
        files.into_iter().map(of).filter(|meta| meta.nlink() > 1).count()
    };
    assert!(inode(&second) >= 7 && inode(&third) == 0);
    fs::remove_dir_all(&first).unwrap();
    assert_eq!(inode(&second), 0);
    for args in [&[][..], &["--data-only"]] {
        let [second, third] = [&second, &third].map(|one| restored(&world, &archive(one), args));
        assert_eq!(rows(&second), rows(&third));
        let rest =
            |script: &str| script.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(rest(&second), rest(&third));
    }
    world.run(["verify"]).exits(0);
    let fresh = world.session(OWNER);
    fresh.run("create database alone");
    let url = world.url().replace(world.database_name(), "alone");
    let mut command = world.program(world.variable("SUPA_SAFE_PG_BIN").join("pg_restore"));
    command
        .args(["--jobs=2", "--schema=public", "--no-owner", "--no-privileges", "-d", &url])
        .arg(archive(&second));
    let ran = world.finish(&mut command);
    fresh.run("drop database alone");
    assert!(!ran.stderr.contains("COPY failed"), "{ran}");
}

#[test]
fn a_snapshot_of_two_stands_alone_on_15() {
    a_snapshot_of_two_stands_alone(Major::Pg15);
}

#[test]
fn a_snapshot_of_two_stands_alone_on_17() {
    a_snapshot_of_two_stands_alone(Major::Pg17);
}

#[test]
fn what_differs_in_a_row_or_in_its_columns_is_dumped() {
    let world = world(Major::Pg17);
    snapshot(&world);
    let plain = |change: &str| {
        world.sql(OWNER, change);
        snapshot(&world);
        is_taken_over(&world, "public.plain")
    };
    assert!(plain("select 1"));
    assert!(!plain("update public.plain set v = 'row 2' where id = 1"));
    assert!(plain("update public.plain set v = 'row 2' where id = 1"));
    // As many rows, and other ones.
    assert!(!plain(
        "delete from public.plain where id = 3000; insert into public.plain values (3001, 'row 3000')"
    ));
    assert!(!plain("alter table public.plain add column more int"));
    assert!(!plain("alter table public.plain rename column more to other"));
    assert!(!plain("alter table public.plain alter column other type text"));
    assert!(!plain("alter table public.plain drop column other"));
    assert!(plain("create table public.again as table public.plain"));
    // Another table of the same name, with the same rows.
    assert!(
        plain(
            "drop table public.plain cascade; alter table public.again rename to plain;
        alter table public.plain alter column id set not null, add primary key (id)"
        ) || !taken_over(&world).is_empty()
    );
    let newest = snapshots(&world).pop().unwrap();
    assert!(restored(&world, &archive(&newest), &[]).contains("row 3000"));
}

#[test]
fn a_rollback_to_such_a_snapshot_is_exact() {
    let world = world(Major::Pg17);
    snapshot(&world);
    world.sql(OWNER, "update public.changes set v = 'other' where id = 7");
    let before = world.state();
    world.migration("20260101000000_wrong", "update public.plain set v = 'lost'; drop table public.keyless");
    for mode in ["touched", "whole"] {
        snapshot(&world);
        assert!(is_taken_over(&world, "public.refers"));
        drop(world.migrate(&[]).exits(0));
        drop(world.run(["rollback", "--mode", mode, "--confirm", &world.target()]).exits(0));
        assert_eq!(world.state(), before, "{mode}");
    }
}

#[test]
fn a_damaged_file_is_not_taken_over() {
    let world = world(Major::Pg17);
    snapshot(&world);
    let [first] = snapshots(&world).try_into().unwrap();
    let toc = Toc::read(&fs::read(archive(&first).join("toc.dat")).unwrap()).unwrap();
    let file = toc.data_of("public", "plain").unwrap().file;
    let path = archive(&first).join(format!("{file}.zst"));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk::write(&path, &bytes).unwrap();
    let ran = snapshot(&world);
    assert!(ran.text().contains("is not what snapshot"), "{ran}");
    assert!(!is_taken_over(&world, "public.plain") && is_taken_over(&world, "public.refers"));
}

#[test]
fn on_a_fast_line_all_is_dumped() {
    let world = world(Major::Pg17);
    world.write("supabase/supa-safe.toml", "");
    snapshot(&world);
    snapshot(&world);
    assert!(taken_over(&world).values().all(Option::is_none));
}

/// What is read of a real table of contents is written again to the byte.
#[test]
fn a_table_of_contents_is_written_as_it_was_read() {
    for major in [Major::Pg15, Major::Pg17] {
        let world = world(major);
        snapshot(&world);
        let bytes = fs::read(archive(&world.snapshots()[0]).join("toc.dat")).unwrap();
        assert_eq!(Toc::read(&bytes).unwrap().to_bytes(), bytes);
    }
}
