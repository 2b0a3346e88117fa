//! `restore.md` by hand: its commands are run as they stand, by a person who has no supa-safe; and those of
//! `rollback.md`.

use crate::rollback::{NOTES, WRONG};
use crate::world::{ADMIN, Cli, Major, OWNER, Ran, Template, World, read_json, told};
use fs_err as fs;
use std::path::Path;
use std::process::Command;
use supa_safe::scratch;

/// The blocks of shell commands, one after another, as a person pastes them.
fn commands(runbook: &str) -> String {
    let blocks = runbook.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0).collect()
}

/// Comparison as step 4 of the runbook tells it, in the form of `rows.tsv`.
fn comparison(tables: &[&str]) -> String {
    let pinned = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
        set bytea_output = 'hex'; set extra_float_digits = 1; set search_path = '';\n";
    let query = |table: &&str| {
        let name = table.replace('\'', "''");
        format!(
            "select count(*) || e'\\t' || coalesce(sum(hashtextextended((t.*)::text, 0)), 0) || e'\\t{name}' from only {table} t;\n"
        )
    };
    tables.iter().map(query).fold(pinned.to_owned(), |text, query| text + &query)
}

/// Runs a script as somebody who may run a Postgres server.
fn as_a_person(script: &str, shell: &str, bin: &str) -> String {
    let mut words = Vec::new();
    if scratch::unprivileged_user().is_some() {
        words.extend(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]);
    }
    words.extend([shell, "-eu", "-c", script]);
    let output = Command::new(words[0])
        .args(&words[1..])
        .env_clear()
        .env("PATH", format!("{bin}:/usr/bin:/bin"))
        .env("LANG", "C.UTF-8")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{script}\n{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A copy of the folder where the user of the server can read it, as the runbook tells root.
fn copy_for_postgres(snapshot: &Path, copy: &Path) {
    let done = Command::new("cp").arg("-r").args([snapshot, copy]).status().unwrap();
    assert!(done.success());
    if scratch::unprivileged_user().is_some() {
        let done = Command::new("chown").args(["-R", "postgres:"]).arg(copy).status().unwrap();
        assert!(done.success());
    }
}

fn restores_by_hand(major: Major, bin: &str) {
    let world = World::new(major, Cli::V3).with_sample_project().with_database(Template::Shop);
    world.run(["rehearse"]).exits(0);
    let snapshot = world.snapshots().remove(0);
    let copy = world.path("copy of the snapshot");
    copy_for_postgres(&snapshot, &copy);
    let runbook = fs::read_to_string(copy.join("restore.md")).unwrap();
    assert!(runbook.contains("the commands that the rehearsal ran"), "{runbook}");
    let own = format!("cd {}\n", snapshot.display());
    assert!(runbook.contains(&own), "{runbook}");
    let script = commands(&runbook).replace(&own, &format!("cd '{}'\n", copy.display()));

    let manifest = read_json(&snapshot.join("manifest.json"));
    let tables = manifest["database"]["tables"].as_array().unwrap();
    let rows = fs::read_to_string(snapshot.join("database/rows.tsv")).unwrap();
    assert_eq!(rows.lines().count(), tables.len());
    // The rows of extensions that this machine cannot have are not in the copy, as the runbook says.
    let kept = tables.iter().zip(rows.lines()).filter(|(table, _)| table["extension"].is_null());
    let expected: Vec<&str> = kept.map(|(_, line)| line).collect();
    assert!(expected.iter().any(|line| line.ends_with("\tauth.users")) && expected.len() > 20, "{rows}");
    let names: Vec<&str> = expected.iter().map(|line| line.rsplit('\t').next().unwrap()).collect();

    let look = format!(
        "{script}\nprintf '%s\\n' ---- found\npsql -X -q -A -t -v ON_ERROR_STOP=1 -d {} <<'EOF'\n{}EOF\n",
        world.database_name(),
        comparison(&names)
    );
    let stop = format!("trap \"pg_ctl -D '{}/restored' -m immediate -s stop\" EXIT\n", copy.display());
    let printed = as_a_person(&(stop + &look), "sh", bin);
    let found: Vec<&str> = printed.split_once("----\nfound\n").unwrap().1.lines().collect();
    assert_eq!(found, expected);
}

#[test]
fn the_commands_of_the_runbook_restore_the_snapshot() {
    // One after the other: the runbook names a port.
    restores_by_hand(Major::Pg17, &told("SUPA_SAFE_TEST_PG17_BIN"));
    restores_by_hand(Major::Pg15, &told("SUPA_SAFE_TEST_PG15_BIN"));
}

/// Blocks of shell commands, each for itself.
fn blocks(runbook: &str) -> Vec<&str> {
    runbook.split("```sh\n").skip(1).map(|block| block.split_once("```").unwrap().0).collect()
}

/// Runs a command of `rollback.md` as a person in the project's folder.
fn run(world: &World, command: &str) -> Ran {
    let own = Path::new(env!("CARGO_BIN_EXE_supa-safe")).parent().unwrap();
    let path =
        format!("{}:{}:{}", own.display(), told("SUPA_SAFE_TEST_PG17_BIN"), world.variable("PATH").display());
    world.finish(world.program("/bin/sh").args(["-euc", command]).env("PATH", path))
}

/// A pushed world with what no rollback brings back, and its `rollback.md`.
fn pushed_with_more() -> (World, String) {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    world.sql(
        ADMIN,
        "insert into cron.job (schedule, command, jobname) values ('0 3 * * *', 'select nightly()', 'nightly');
        insert into auth.users (id, email) values ('00000000-0000-0000-0000-000000000001', 'one@x.y')",
    );
    drop(world.migrate(&[]).exits(0));
    let runbook = fs::read_to_string(world.snapshots()[0].join("rollback.md")).unwrap();
    (world, runbook)
}

#[test]
fn the_runbook_of_the_rollback_says_what_the_rehearsal_found() {
    let (world, runbook) = pushed_with_more();
    let record = world.rehearsals().remove(0);
    let rollbacks = record["rollbacks"].as_array().unwrap();
    assert_eq!(rollbacks.len(), 2);
    for one in rollbacks {
        let (mode, seconds) = (one["mode"].as_str().unwrap(), one["seconds"].as_f64().unwrap().ceil());
        assert!(
            runbook.contains(&format!("- `--mode {mode}`: exact, in {seconds:.0} s on the copy; ")),
            "{runbook}"
        );
        for limit in one["limits"].as_array().unwrap() {
            assert!(runbook.contains(&format!("- {}\n", limit.as_str().unwrap())), "{limit} in {runbook}");
        }
    }
    let limits = record["limits"].as_array().unwrap();
    assert!(!limits.is_empty());
    for limit in limits {
        assert!(runbook.contains(&format!("- {}\n", limit.as_str().unwrap())), "{limit} in {runbook}");
    }
    for limit in supa_safe::rollback::LIMITS {
        assert!(runbook.contains(&format!("- {limit}\n")), "{limit} in {runbook}");
    }
    assert!(runbook.contains(record["rehearsed_at"].as_str().unwrap()), "{runbook}");
    assert!(!runbook.contains(&told("SUPA_SAFE_TEST_PASSWORD")), "{runbook}");
}

#[test]
fn the_commands_of_the_runbook_take_the_push_back() {
    let (world, runbook) = pushed_with_more();
    let id = world.snapshot().id().clone();
    let blocks = blocks(&runbook);
    let folder = world.snapshots()[0].display().to_string();
    let load = format!("cd '{}/rollbacks/<run>' && psql <url> -f load.sql\n", world.store().display());
    let printed = |schema: &str, table: &str| {
        format!("pg_restore --file=- --data-only --schema={schema} --table={table} database/archive\n")
    };
    let command = |more: &str| format!("supa-safe rollback {id}{more}\n");
    assert_eq!(
        blocks,
        [
            command(""),
            command(" --mode touched"),
            command(" --mode whole"),
            command(" --only database"),
            load.clone(),
            format!("cd {folder}\n"),
            printed("cron", "job"),
            printed("auth", "users"),
        ]
    );
    world.sql(
        OWNER,
        "insert into public.notes values (51, 'new', 'x'); insert into public.others values (51, 1)",
    );
    let confirmed = |command: &str| format!("{} --confirm {} --json", command.trim(), world.target());
    let ran = run(&world, &confirmed(blocks[0])).exits(0);
    let done = ran.summary()["rolled_back"].clone();
    assert_eq!(done["mode"], "touched");
    let rows = "select count(*), min(body), max(body) from public.notes";
    assert_eq!(world.sql(OWNER, rows), ["50|note 1|note 9"]);
    let name = Path::new(done["folder"].as_str().unwrap()).file_name().unwrap().to_str().unwrap().to_owned();
    let loading = load.replace("<run>", &name).replace("<url>", &world.url());
    // The very command that the end of the run prints, but for the quotes that the name of a run needs not.
    let end = load.trim().replace("<run>", &name).replace('\'', "");
    let message = done["message"].as_str().unwrap();
    assert!(message.lines().any(|line| line == format!("  `{end}`")), "{message}");
    drop(run(&world, &loading).exits(0));
    assert_eq!(world.sql(OWNER, rows), ["51|new|note 9"]);

    drop(world.migrate(&[]).exits(0));
    let ran = run(&world, &confirmed(blocks[2])).exits(0);
    assert_eq!(ran.summary()["rolled_back"]["mode"], "whole");
    assert_eq!(world.sql(OWNER, rows), ["50|note 1|note 9"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.others"), ["50"]);

    let by_hand = |block: &str| run(&world, &format!("{}{block}", blocks[5])).exits(0).stdout;
    assert!(by_hand(blocks[6]).lines().any(|line| line.contains("\tselect nightly()\t")));
    assert!(by_hand(blocks[7]).lines().any(|line| line.contains("\tone@x.y\t")));
}
