//! Each rule refuses: by its number, with its fact and its fix, and the target stays as it is.

use crate::terminal::Terminal;
use crate::world::{ADMIN, OWNER, Ran, World, told};
use fs_err as fs;
use snapbox::{assert_data_eq, str};
use std::path::{Path, PathBuf};
use supa_safe::disk;
use supa_safe::postgres::{connect, sessions};

/// A migration that depends on nothing.
const TABLE: (&str, &str) = ("20260101000000_notes", "create table public.notes (id int primary key);");

/// History, tables, and rows of the target: what a refused run must leave as it was.
fn state(world: &World) -> Vec<String> {
    world.sql(
        ADMIN,
        "select n.nspname, c.relname, c.relkind,
                case when c.relkind = 'r' then query_to_xml(format(
                    'select count(*), md5(string_agg(t::text, chr(10) order by t::text)) from %I.%I t', n.nspname, c.relname
                ), true, true, '')::text end
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where n.nspname in ('public', 'supabase_migrations', 'auth') order by 1, 2",
    )
}

/// Runs the program, which must refuse by exactly these rules and leave the target alone.
#[track_caller]
fn refused(world: &World, args: &[&str], rules: &[&str]) -> Ran {
    refused_with(world, args, rules, 3)
}

#[track_caller]
fn refused_with(world: &World, args: &[&str], rules: &[&str], code: i32) -> Ran {
    let before = state(world);
    let ran = world.run([args, &["--json"]].concat()).exits(code);
    assert_eq!(state(world), before, "the target was touched: {ran}");
    let summary = ran.summary();
    assert_eq!(summary["target_touched"], false, "{ran}");
    let findings = summary["findings"].as_array().unwrap();
    let refusing = findings.iter().filter(|finding| finding["refuses"] == true);
    let found: Vec<&str> = refusing.clone().map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert_eq!(found, rules, "{ran}");
    for finding in refusing {
        assert!(ran.stderr.contains(finding["fact"].as_str().unwrap()), "no fact: {ran}");
        let fix = finding["fix"].as_str().unwrap().get(1..).unwrap();
        assert!(ran.stderr.contains(fix), "no fix: {ran}");
    }
    assert!(ran.stderr.contains("the target was not touched"), "{ran}");
    ran
}

/// The name of the newest snapshot.
fn newest(world: &World) -> String {
    name(&world.snapshots().swap_remove(0))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The program as it runs on a machine whose clock is off.
fn by_clock(world: &World, offset: &str, args: &[&str]) -> Ran {
    let preload = told("SUPA_SAFE_TEST_FAKETIME");
    world.finish(world.command().args(args).env("LD_PRELOAD", preload).env("FAKETIME", offset))
}

#[test]
fn ss001_without_a_snapshot() {
    let world = World::hosted(&[TABLE]);
    let ran = refused(&world, &["check"], &["SS001"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS001] there is no snapshot of `[TARGET]`
hint: Run `supa-safe snapshot`
hint: Run `supa-safe explain SS001` to read why

"#]]
    );
}

#[test]
fn ss002_a_snapshot_that_was_not_proved_far_enough() {
    let world = World::hosted(&[]);
    world.write("supabase/supa-safe.toml", "strength = \"restored\"\n");
    drop(world.run(["snapshot"]).exits(0));
    let ran = refused(&world, &["check"], &["SS002"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS002] snapshot [SNAPSHOT] is decoded; at least restored is required
hint: Run `supa-safe verify --restore`
hint: Run `supa-safe explain SS002` to read why

"#]]
    );
    drop(world.run(["verify", "--restore"]).exits(0));
    drop(world.run(["check"]).exits(0));
    for proof in fs::read_dir(world.snapshots().swap_remove(0).join("proofs")).unwrap() {
        fs::remove_file(proof.unwrap().path()).unwrap();
    }
    world.remove("supabase/supa-safe.toml");
    drop(refused(&world, &["check"], &["SS002"]));
    drop(world.run(["verify"]).exits(0));
    drop(world.run(["check"]).exits(0));
}

#[test]
fn ss003_a_snapshot_that_is_too_old() {
    let world = World::hosted(&[TABLE]);
    drop(world.run(["snapshot"]).exits(0));
    let id = newest(&world);
    let migrate = ["migrate", "--confirm", &world.target(), "--max-age", "1ms", "--snapshot", &id];
    let ran = refused(&world, &migrate, &["SS003"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS003] snapshot [SNAPSHOT] is [TIME] old; at most [TIME] is allowed
hint: Run `supa-safe snapshot`, or raise `max_age` for this target
hint: Run `supa-safe explain SS003` to read why

"#]]
    );
    assert_eq!(world.snapshots().len(), 1, "a named snapshot is not replaced");
    drop(refused(&world, &["check", "--max-age", "1ms"], &["SS003", "SS009"]));
}

#[test]
fn ss003_goes_by_the_targets_clock_when_that_is_off() {
    let world = World::own_server(&[]);
    drop(world.run(["snapshot"]).exits(0));
    drop(world.run(["check"]).exits(0));

    world.server_clock("+1h");
    let ran = refused(&world, &["check"], &["SS003"]);
    assert!(ran.stderr.contains("is 1 h"), "{ran}");

    world.server_clock("-1h");
    let ran = refused(&world, &["check"], &["SS003"]);
    assert_data_eq!(
        ran.lines("[SS003]").concat(),
        str!["[SS003] snapshot [SNAPSHOT] is from the future: the target's clock is [TIME] [..]behind it"]
    );

    // A clock that is off all the time harms nobody.
    drop(world.run(["snapshot"]).exits(0));
    let ran = world.run(["check", "--snapshot", &newest(&world)]).exits(0);
    assert!(ran.stderr.contains("target "), "{ran}");
}

#[test]
fn ss003_does_not_go_by_our_clock() {
    for offset in ["+1h", "-1h"] {
        let world = World::hosted(&[]);
        drop(world.run(["snapshot"]).exits(0));
        drop(by_clock(&world, offset, &["check"]).exits(0));
        let ran = by_clock(&world, offset, &["check", "--max-age", "1ms"]).exits(3);
        assert_eq!(ran.lines("[SS").len(), 1, "{ran}");
        assert!(ran.stderr.contains("[SS003]"), "{ran}");
        drop(by_clock(&world, offset, &["snapshot"]).exits(0));
        drop(world.run(["check"]).exits(0));
    }
}

#[test]
fn ss004_a_database_that_was_made_anew_under_the_same_name() {
    let world = World::hosted(&[TABLE]);
    drop(world.run(["snapshot"]).exits(0));
    world.recreate_database();
    let ran = refused(&world, &["check"], &["SS004", "SS009"]);
    let facts = ran.lines("[SS004]").concat();
    assert!(facts.contains("is of another database: database oid "), "{facts}");
    let id = newest(&world);
    drop(refused(&world, &["migrate", "--confirm", &world.target(), "--snapshot", &id], &["SS004"]));
}

#[test]
fn ss004_a_snapshot_of_another_server() {
    let other = World::own_server(&[]);
    drop(other.run(["snapshot"]).exits(0));
    let world = World::hosted(&[]);
    drop(refused(&world, &["check"], &["SS001"]));
    let id = newest(&other);
    copy_folder(&other.snapshots().swap_remove(0), &world.store().join("snapshots").join(&id));
    let ran = refused(&world, &["check"], &["SS004"]);
    let fact = ran.lines("[SS004]").concat();
    assert!(fact.contains("system identifier"), "{fact}");
}

fn copy_folder(from: &Path, to: &Path) {
    for file in disk::files_below(from).unwrap() {
        disk::copy_file(&from.join(&file), &to.join(&file)).unwrap();
    }
}

/// A harm to a file, and its name.
type Harm = (&'static str, fn(&Path));

/// Ways to harm a file.
const HARMS: [Harm; 3] = [
    ("flip", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        disk::write(path, &bytes).unwrap();
    }),
    ("cut", |path| {
        let bytes = fs::read(path).unwrap();
        disk::write(path, &bytes[..bytes.len() - 1]).unwrap();
    }),
    ("remove", |path| fs::remove_file(path).unwrap()),
];

#[test]
fn ss005_evidence_that_was_altered() {
    let world = World::hosted(&[TABLE]);
    drop(world.run(["snapshot"]).exits(0));
    let snapshot = world.snapshots().swap_remove(0);
    let id = name(&snapshot);
    let rows = disk::files_below(&snapshot.join("database/archive")).unwrap();
    let rows = rows.iter().find(|file| file.to_str().unwrap().contains(".dat.")).unwrap();
    let files =
        ["manifest.json", "database/rows.tsv", "database/fingerprint.tsv", "database/archive/toc.dat"];
    let files = files.map(PathBuf::from).into_iter().chain([Path::new("database/archive").join(rows)]);
    for file in files {
        let path = snapshot.join(&file);
        let good = fs::read(&path).unwrap();
        // Every file of the database's evidence goes through the same comparison.
        let harms = if name(&file) == "manifest.json" { &HARMS[..] } else { &HARMS[..1] };
        for (harm, apply) in harms {
            apply(&path);
            let ran = refused(&world, &["check"], &["SS005"]);
            assert!(ran.stderr.contains(file.to_str().unwrap()), "{harm} {}: {ran}", file.display());
            disk::write(&path, &good).unwrap();
        }
    }
    let path = snapshot.join("database/rows.tsv");
    let good = fs::read(&path).unwrap();
    disk::write(&path, b"").unwrap();
    let migrate = ["migrate", "--confirm", &world.target(), "--snapshot", &id];
    let ran = refused(&world, &migrate, &["SS005"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the snapshot is damaged; the target was not touched
  [SS005] snapshot [SNAPSHOT] does not match its digests: database/rows.tsv has [BYTES] instead of [..]
hint: Run `supa-safe snapshot`; keep the damaged folder until you know what changed it
hint: Run `supa-safe explain SS005` to read why

"#]]
    );
    drop(refused(&world, &["verify", &id], &["SS005"]));
    drop(refused(&world, &["rehearse", &id], &["SS005"]));

    // A run that may choose sets it aside, and says so.
    let ran = world.run(["rehearse", "--json"]).exits(0);
    let set_aside = ran.events_of("set-aside");
    assert_eq!(
        (&set_aside[0]["rule"], &set_aside[0]["snapshot"]),
        (&"SS005".into(), &id.as_str().into()),
        "{ran}"
    );
    assert_ne!(ran.summary()["snapshot"], id);
    // What was found damaged is trusted again when a verification finds it well.
    disk::write(&path, &good).unwrap();
    drop(refused(&world, &["check", "--snapshot", &id], &["SS005"]));
    drop(world.run(["verify", &id]).exits(0));
    drop(world.run(["check", "--snapshot", &id]).exits(0));
}

#[test]
fn ss006_a_table_whose_rows_cannot_be_read() {
    let world = World::own_server(&[TABLE]);
    world.sql(
        ADMIN,
        "revoke pg_read_all_data from postgres;
         create table public.hidden (id int primary key, t text default 'x'); insert into public.hidden values (1);
         create index by_text on public.hidden (t);
         alter table public.hidden enable row level security;
         create policy nobody on public.hidden using (false);
         revoke all on public.hidden from public, postgres, anon, authenticated, service_role",
    );
    let migrate = ["migrate", "--confirm", &world.target()];
    let ran = refused(&world, &migrate, &["SS006"]);
    assert_data_eq!(
        ran.lines("[SS006]").concat(),
        str![
            "[SS006] the rows of table `public.hidden` are not in snapshot [SNAPSHOT]: the role of the connection may not read it"
        ]
    );
    let manifest = crate::world::read_json(&world.snapshots().swap_remove(0).join("manifest.json"));
    let gaps = manifest["database"]["gaps"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["schema"] == "public" && gap["name"] == "hidden"), "{gaps:?}");
    drop(refused(&world, &["check"], &["SS006", "SS009"]));

    world.write("supabase/supa-safe.toml", "accept_unreadable = [\"public.hidden\"]\n");
    let ran = refused(&world, &["check"], &["SS009"]);
    let findings = ran.summary()["findings"].clone();
    assert!(
        findings
            .as_array()
            .unwrap()
            .iter()
            .any(|found| found["rule"] == "SS006" && found["refuses"] == false),
        "{ran}"
    );
    let ran = world.migrate(&["--json"]).exits(0);
    let limit = "table public.hidden could not be read: it and its rows are not in the copy";
    assert!(ran.summary()["limits"].as_array().unwrap().contains(&limit.into()), "{ran}");

    // The way back leaves it alone, and does nothing where it cannot.
    world.sql(OWNER, "create type public.mood as enum ('good')");
    world.sql(ADMIN, "alter table public.hidden add column mood public.mood");
    let rollback = || world.run(["rollback", "--mode", "whole", "--confirm", &world.target()]);
    drop(rollback().exits(1));
    assert_eq!(world.sql(ADMIN, "select mood from public.hidden"), ["~"]);
    assert_eq!(world.history(), ["20260101000000"]);
    world.sql(ADMIN, "alter table public.hidden drop column mood");
    drop(rollback().exits(0));
    assert_eq!(world.sql(ADMIN, "select id, t from public.hidden"), ["1|x"]);
    assert_eq!(world.history(), [""; 0]);
}

#[test]
fn ss008_a_file_that_was_edited_after_its_rehearsal() {
    let world = World::hosted(&[TABLE]);
    world.write(
        "supabase/config.toml",
        "project_id = \"x\"\n[db.seed]\nenabled = true\nsql_paths = [\"./seed.sql\"]\n",
    );
    let files = [
        ("supabase/migrations/20260101000000_notes.sql", TABLE.1),
        ("supabase/seed.sql", "insert into public.notes values (1);"),
        ("supabase/roles.sql", "alter role anon set statement_timeout = '3s';"),
    ];
    for (file, text) in files {
        world.write(file, text);
    }
    let with = |command| [command, "--include-seed", "--include-roles"];
    drop(world.run(with("rehearse")).exits(0));
    drop(world.run(with("check")).exits(0));
    for (file, text) in files {
        world.write(file, &format!("{text}\nselect 1;\n"));
        let ran = refused(&world, &with("check"), &["SS008"]);
        assert!(ran.stderr.contains("since it was rehearsed"), "{ran}");
        world.write(file, text);
        drop(world.run(with("check")).exits(0));
    }
}

#[test]
fn ss008_a_file_that_is_edited_while_a_person_reads() {
    let world = World::hosted(&[TABLE]);
    let before = state(&world);
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    world.migration(TABLE.0, "create table public.other (id int);");
    terminal.types(&world.target());
    let (code, seen) = terminal.ends();
    assert_eq!(code, 3, "{seen}");
    // A terminal has its lines broken between words.
    let words = seen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains(
            "[SS008] `supabase/migrations/20260101000000_notes.sql` was edited since it was rehearsed"
        ),
        "{seen}"
    );
    assert_eq!(state(&world), before);
}

#[test]
fn ss009_what_was_not_rehearsed() {
    let world = World::hosted(&[TABLE]);
    let off = ["migrate", "--rehearse", "off", "--confirm", &world.target()];
    let ran = refused(&world, &off, &["SS009"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS009] the rehearsal is switched off, and the policy of this target does not allow that
hint: Leave out `--rehearse off`, or set `allow_unrehearsed = true` for this target
hint: Run `supa-safe explain SS009` to read why

"#]]
    );
    drop(world.run(["snapshot"]).exits(0));
    drop(refused(&world, &["check"], &["SS009"]));
    drop(world.run(["rehearse"]).exits(0));
    drop(world.run(["check"]).exits(0));

    world.sql(OWNER, "create table public.late (id int)");
    let ran = refused(&world, &["check"], &["SS009"]);
    assert!(ran.stderr.contains("the schema of the target has changed since it was taken"), "{ran}");
    let id = newest(&world);
    drop(refused(&world, &["migrate", "--confirm", &world.target(), "--snapshot", &id], &["SS009"]));

    world.write("supabase/supa-safe.toml", "allow_unrehearsed = true\n");
    let ran = world.run(off).exits(0);
    assert!(ran.stderr.contains("NOT REHEARSED"), "{ran}");
    assert_eq!(world.history(), ["20260101000000"]);
}

#[test]
fn ss009_a_schema_that_changes_while_a_person_reads() {
    let world = World::hosted(&[TABLE]);
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    world.sql(OWNER, "create table public.late (id int)");
    terminal.types(&world.target());
    let (code, seen) = terminal.ends();
    assert_eq!(code, 3, "{seen}");
    assert!(seen.contains("[SS009] not rehearsed: the schema of the target has changed"), "{seen}");
    assert_eq!(world.history(), [""; 0]);
}

#[test]
fn ss010_a_migration_that_fails_on_the_copy() {
    let world = World::hosted(&[
        TABLE,
        (
            "20260102000000_broken",
            "select 1;\n\nalter table public.notes add check (id > 0);\ninsert into public.notes values (-1);\n",
        ),
    ]);
    let ran = refused_with(&world, &["migrate", "--confirm", &world.target()], &["SS010"], 5);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS010] the migration failed on the copy: `20260102000000_broken.sql`, statement 3: new row for relation "notes" violates check constraint "notes_id_check" (SQLSTATE 23514)
    insert into public.notes values (-1)
  Failing row contains (-1).
  20260101000000_notes.sql stood on the copy
  the copy lacks the extensions pg_cron, pg_net, supabase_vault: if the file needs one of them, the file may be right
hint: Correct the file and run again
hint: Run `supa-safe explain SS010` to read why

"#]]
    );
}

#[test]
fn ss013_an_applied_file_that_was_edited() {
    let world = World::shop();
    let file = "supabase/migrations/20260112090000_catalog.sql";
    let text = fs::read_to_string(world.path("app").join(file)).unwrap();
    world.write(file, &format!("{text}\n\ncreate index on public.products (price);\n"));
    let ran = refused(&world, &["migrate", "--confirm", &world.target()], &["SS013"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS013] `20260112090000_catalog.sql` is applied on the target, and its file says something else now
hint: Restore the file as it was applied and put the change into a new migration, or list its version under `accept_edited`
hint: Run `supa-safe explain SS013` to read why

"#]]
    );
    drop(refused(&world, &["check"], &["SS009", "SS013"]));
    // Blanks and comments around statements are no change.
    world.write(file, &format!("-- Applied in January.\n{text}"));
    drop(refused(&world, &["check"], &["SS009"]));

    world.write(file, &format!("{text}\n\ncreate index on public.products (price);\n"));
    world.write("supabase/supa-safe.toml", "accept_edited = [\"20260112090000\"]\n");
    drop(refused(&world, &["check"], &["SS009"]));
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn ss015_another_session_that_dumps() {
    let world = World::hosted(&[TABLE]);
    drop(world.run(["rehearse"]).exits(0));
    let dump = world.session(OWNER);
    dump.run("set application_name = 'pg_dump'; begin; select 1");
    let ran = refused(&world, &["check"], &["SS015"]);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS015] a dump or restore runs on the target: `pg_dump` as postgres, backend [..], since [TIME]
hint: Wait until that session has ended, then run again
hint: Run `supa-safe explain SS015` to read why

"#]]
    );
    drop(refused(&world, &["migrate", "--confirm", &world.target()], &["SS015"]));
    dump.run("commit");
    drop(world.migrate(&[]).exits(0));
}

/// The server process of a program that ended outlives it for a moment.
#[test]
fn ss015_is_not_about_a_session_of_ours_that_is_ending() {
    let world = World::hosted(&[TABLE]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let own = runtime.block_on(connect::read_only(&world.connection(OWNER))).unwrap();
    let look = || runtime.block_on(sessions::in_the_way(&own.client)).unwrap();
    let begin = |role| {
        let session = world.session(role);
        session.run("set application_name = '@effect/sql-pg'; begin; select 1");
        session
    };
    let ending = begin(OWNER);
    std::thread::scope(|scope| {
        let seen = scope.spawn(look);
        ending.run("select pg_sleep(0.3); commit");
        assert_eq!(seen.join().unwrap(), []);
    });
    // Somebody else's is no remnant of ours, and neither is one that stays.
    let other = begin(ADMIN);
    let found = look();
    assert_eq!(found.iter().map(|other| other.may_be_own).collect::<Vec<_>>(), [false]);
    other.run("commit");
    let staying = begin(OWNER);
    assert_eq!(look().iter().map(|other| other.may_be_own).collect::<Vec<_>>(), [true]);
    staying.run("commit");
    runtime.block_on(own.close());
}
