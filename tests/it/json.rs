//! What scripts read: `--json` of every command, and its last line whatever happens.

use crate::world::{Ran, World};
use fs_err as fs;
use serde_json::{Value, json};
use supa_safe::disk;

/// The documented keys of a summary.
const SUMMARY: [&str; 13] = [
    "applied",
    "delegate_exit",
    "error",
    "exit",
    "findings",
    "limits",
    "not_applied",
    "runbook",
    "schema",
    "snapshot",
    "target_touched",
    "timings",
    "type",
];

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// Every line is an event of a type and a schema, and the last one, and no other, is the summary.
#[track_caller]
fn assert_lines(ran: &Ran) -> Value {
    let events = ran.events();
    for event in &events {
        assert_eq!(event["schema"], 1, "{event}");
        assert!(event["type"].is_string(), "{event}");
    }
    assert_eq!(events.iter().filter(|event| event["type"] == "summary").count(), 1, "{ran}");
    let summary = ran.summary();
    let keys: Vec<&str> = keys(&summary).into_iter().filter(|key| *key != "way_back").collect();
    assert_eq!(keys, SUMMARY);
    summary
}

fn stages(summary: &Value) -> Vec<&str> {
    let timings = summary["timings"].as_object().unwrap();
    assert!(timings.values().all(|seconds| seconds.as_f64().unwrap() >= 0.0), "{timings:?}");
    timings.keys().map(String::as_str).collect()
}

#[test]
fn a_healthy_run_tells_every_stage_and_says_nothing_else() {
    let world = World::hosted(&[("1_a", "create table a (id int);")]);
    let ran = world.migrate(&["--json"]).exits(0);
    let summary = assert_lines(&ran);
    assert_eq!(ran.stderr, "");
    assert_eq!(stages(&summary), ["collect", "delegate", "post-check", "rehearse", "verify"]);
    let snapshot = world.snapshots().remove(0);
    assert_eq!(summary["snapshot"], snapshot.file_name().unwrap().to_str().unwrap());
    assert_eq!(summary["runbook"], snapshot.join("restore.md").to_str().unwrap());
    assert_eq!(summary["error"], json!([]));
    assert_eq!(ran.events()[0]["type"], "target");
    assert_eq!(ran.events()[0]["name"], world.target());
    let record = world.rehearsals().remove(0);
    let way_back = &summary["way_back"];
    assert_eq!(keys(way_back), ["mode", "modes", "not_back", "seconds"]);
    assert_eq!(way_back["modes"], record["rollbacks"]);
    assert_eq!(
        (&way_back["mode"], &way_back["seconds"]),
        (&json!("touched"), &record["rollbacks"][0]["seconds"])
    );
    assert_eq!(way_back["not_back"], json!(supa_safe::rollback::LIMITS));
    let confirmed = ran.events_of("confirmation").remove(0)["lines"].clone();
    for limit in supa_safe::rollback::LIMITS {
        assert!(
            confirmed.as_array().unwrap().contains(&json!(["not back", limit])),
            "{limit} in {confirmed}"
        );
    }

    let limits: Vec<&str> =
        summary["limits"].as_array().unwrap().iter().map(|limit| limit.as_str().unwrap()).collect();
    assert_eq!(
        limits,
        [
            "Storage, Functions, secrets, and configuration are not part of a target given by URL",
            "extension pg_cron cannot be had on this machine: it and its rows are not in the copy",
            "extension pg_net cannot be had on this machine: it and its rows are not in the copy",
            "extension supabase_vault cannot be had on this machine: it and its rows are not in the copy",
        ]
    );
}

#[test]
fn a_run_that_ends_early_has_a_summary_too() {
    let mut world = World::hosted(&[("1_a", "create table a (id int);")]);
    let ran = world.run(["migrate", "--json"]).exits(4);
    let summary = assert_lines(&ran);
    assert_eq!(summary["error"], json!(["nobody can be asked to confirm the target; nothing was changed"]));

    world.set("PGPASSWORD", "wrong");
    for command in ["migrate", "rehearse", "check", "snapshot", "verify"] {
        let ran = world.run([command, "--json"]).exits(12);
        let summary = assert_lines(&ran);
        assert_eq!((&summary["target_touched"], &summary["snapshot"]), (&json!(false), &Value::Null));
        let [server, why] = summary["error"].as_array().unwrap().as_slice() else { panic!("{summary}") };
        assert_eq!(
            *server,
            format!("the server at `{}` refused the sign-in of role `postgres`", world.address())
        );
        assert_eq!(why, "FATAL: password authentication failed for user \"postgres\"");
    }
    world.unset("SUPA_SAFE_DB_URL");
    assert_lines(&world.run(["migrate", "--json"]).exits(10));
}

#[test]
fn commands_that_report_print_one_document() {
    let world = World::hosted(&[("1_a", "create table a (id int);")]);
    let target = world.target();
    let status = world.run(["status", "--json"]).exits(0).document();
    assert_eq!((&status["schema"], &status["target"]), (&json!(1), &json!(target)));
    assert_eq!((&status["snapshot"], &status["age_seconds"]), (&Value::Null, &Value::Null));
    assert_eq!((&status["max_age_seconds"], &status["required_strength"]), (&json!(900), &json!("decoded")));

    let ran = world.run(["snapshot", "--json", "--label", "before"]).exits(0);
    let summary = assert_lines(&ran);
    assert_eq!(stages(&summary), ["collect", "verify"]);
    let id = summary["snapshot"].clone();

    let list = world.run(["list", "--json"]).exits(0).document();
    assert_eq!(keys(&list), ["folder", "schema", "snapshots", "target"]);
    assert_eq!((&list["target"], &list["folder"]), (&json!(target), &json!(world.store().to_str().unwrap())));
    let [row] = list["snapshots"].as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!(
        keys(row),
        ["broken", "bytes", "id", "incomplete", "label", "left_out", "rows", "strength", "taken_at"]
    );
    assert_eq!((&row["id"], &row["label"], &row["strength"]), (&id, &json!("before"), &json!("decoded")));
    assert_eq!(row["broken"], json!([]));

    let show = world.run(["show", id.as_str().unwrap(), "--json"]).exits(0).document();
    assert_eq!(keys(&show), ["broken", "folder", "limits", "manifest", "schema", "strength"]);
    assert_eq!((&show["manifest"]["id"], &show["strength"]), (&id, &json!("decoded")));

    let status = world.run(["status", "--json"]).exits(0).document();
    assert_eq!(
        keys(&status),
        ["age_seconds", "max_age_seconds", "next", "required_strength", "schema", "snapshot", "target"]
    );
    assert_eq!((&status["snapshot"], status["age_seconds"].as_i64().is_some()), (row, true));

    // Nothing was rehearsed.
    let ran = world.run(["check", "--json"]).exits(3);
    let summary = assert_lines(&ran);
    let findings = summary["findings"].as_array().unwrap();
    let rules: Vec<&str> = findings.iter().map(|finding| finding["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["SS009"]);
    assert!(
        findings.iter().all(|finding| keys(finding) == ["fact", "fix", "refuses", "rule"]),
        "{findings:?}"
    );
}

#[test]
fn rules_are_explained_in_one_document() {
    let world = World::new(crate::world::Major::Pg17, crate::world::Cli::V3);
    let all = world.run(["explain", "--json"]).exits(0).document();
    let rules: Vec<&str> =
        all["pages"].as_array().unwrap().iter().map(|page| page["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, supa_safe::policy::Rule::ALL.map(supa_safe::policy::Rule::code));
    let one = world.run(["explain", "ss003", "--json"]).exits(0).document();
    assert_eq!(keys(&one), ["pages", "schema"]);
    assert_eq!(one["pages"][0]["rule"], "SS003");
    let wrong = world.run(["explain", "SS999", "--json"]).exits(2);
    assert_eq!(wrong.stdout, "");
}

/// What `status` advises, and the newest snapshot's line in `list`, from its strength on.
fn advice(world: &World) -> (String, String) {
    let status = world.run(["status"]).exits(0).stdout;
    let next = status.lines().find_map(|line| line.strip_prefix("next      ")).unwrap().to_owned();
    let list = world.run(["list"]).exits(0).stdout;
    let line = list.lines().nth(1).unwrap();
    (next, line.split_once(" ago").unwrap().1.to_owned())
}

#[test]
fn status_and_list_tell_what_the_newest_snapshot_lacks() {
    let mut world = World::hosted(&[]);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "x", b"x");
    world.write("supabase/supa-safe.toml", "max_age = \"1h\"\n");
    let pushes = "`supa-safe migrate` pushes on the strength of this snapshot".to_owned();
    let fresh = "`supa-safe migrate` takes a fresh snapshot first; `supa-safe check` says what is wrong with the newest one".to_owned();

    drop(world.run(["snapshot"]).exits(0));
    assert_eq!(advice(&world), (pushes.clone(), String::new()));
    let contents = world.snapshots()[0].join("database/archive/toc.dat");
    let good = fs::read(&contents).unwrap();
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    disk::write(&contents, &bytes).unwrap();
    drop(world.run(["verify"]).exits(3));
    let (next, line) = advice(&world);
    assert_eq!(next, fresh);
    assert!(line.starts_with("  DAMAGED: "), "{line}");
    assert_ne!(world.run(["show", "--json"]).exits(0).document()["broken"], json!([]));
    disk::write(&contents, &good).unwrap();
    drop(world.run(["verify"]).exits(0));
    assert_eq!(advice(&world), (pushes, String::new()));

    let partial = world.run(["snapshot", "--only", "database"]).exits(0);
    assert_eq!(
        partial.stdout.lines().last().unwrap(),
        "It holds a part only: `supa-safe migrate` takes a fresh snapshot of all that the policy requires"
    );
    assert_eq!(advice(&world), (fresh.clone(), "  without: storage".to_owned()));

    world.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", "wrong");
    drop(world.run(["snapshot"]).exits(3));
    assert_eq!(advice(&world), (fresh, "  INCOMPLETE: storage".to_owned()));
}
