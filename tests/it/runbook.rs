//! `restore.md` by hand: its commands are run as they stand, by a person who has no supa-safe.

use crate::world::{Cli, Major, Template, World, read_json, told};
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
