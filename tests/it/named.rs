//! What a run says that it will do and what it did: nothing runs that was not named before.

use crate::world::{ADMIN, Major, OWNER, Ran, Template, World};
use crate::world::{Cli, told};
use serde_json::Value;

const TABLE: (&str, &str) = ("20260101000000_notes", "create table public.notes (id int);");

/// The lines of the confirmation with this title.
fn confirmed(ran: &Ran, title: &str) -> Vec<String> {
    let events = ran.events_of("confirmation");
    let lines = events.iter().flat_map(|event| event["lines"].as_array().unwrap());
    let text = |line: &Value| (line[0] == title).then(|| line[1].as_str().unwrap().to_owned());
    lines.filter_map(text).collect()
}

#[test]
fn roles_and_seeds_are_named_before_they_run() {
    let world = World::own_server(&[TABLE]);
    let config = "project_id = \"x\"\n[db.seed]\nenabled = true\nsql_paths = [\"./seed.sql\"]\n";
    world.write("supabase/config.toml", config);
    world.write("supabase/seed.sql", "insert into public.notes values (1);");
    let ran = world.migrate(&["--json", "--include-seed"]).exits(0);
    assert_eq!(
        confirmed(&ran, "will push"),
        ["20260101000000_notes.sql", "supabase/seed.sql (a seed: runs unless it ran before)"]
    );
    assert_eq!(
        confirmed(&ran, "did"),
        ["public.notes: 1 inserted", "supabase_migrations.seed_files: 1 inserted"]
    );

    world.write("supabase/roles.sql", "alter role anon set statement_timeout = '3s';");
    let ran = world.migrate(&["--include-roles"]).exits(0);
    assert!(ran.stderr.contains("will push  supabase/roles.sql"), "{ran}");
    assert!(ran.stdout.contains(&format!("Pushed roles.sql to {}", world.target())), "{ran}");
}

#[test]
fn a_check_that_is_new_is_rehearsed_before_the_push() {
    let world = World::hosted(&[TABLE]);
    drop(world.run(["rehearse"]).exits(0));
    world.write("supabase/checks/none.sql", "select 1 as bad");
    drop(world.migrate(&[]).exits(5));
    assert_eq!(world.history(), [""; 0]);
    world.write("supabase/checks/none.sql", "select 1 as bad where false");
    drop(world.migrate(&[]).exits(0));
}

#[test]
fn migrations_that_are_switched_off_are_said_to_be() {
    let world = World::hosted(&[TABLE]);
    world.write("supabase/config.toml", "project_id = \"x\"\n[db.migrations]\nenabled = false\n");
    let ran = world.migrate(&[]).exits(0);
    assert_eq!(
        ran.lines("warning: "),
        [
            "warning: `[db.migrations] enabled = false` in the configuration: supabase pushes no migration at all"
        ]
    );
}

#[test]
fn the_role_that_owns_the_server_may_push_as_well() {
    let mut world = World::hosted(&[TABLE]);
    let url = world.url().replace(&format!("//{OWNER}@"), &format!("//{ADMIN}@"));
    world.set("SUPA_SAFE_DB_URL", url);
    drop(world.migrate(&[]).exits(0));
    assert_eq!(world.history(), ["20260101000000"]);
}

#[test]
fn a_password_in_a_mistyped_command_is_not_repeated() {
    let world = World::new(Major::Pg17, Cli::V3).with_database(Template::Hosted);
    let password = told("SUPA_SAFE_TEST_PASSWORD");
    let inside: String = password.chars().filter(char::is_ascii_alphanumeric).collect();
    for args in [
        vec!["migrate".to_owned(), format!("postgresql://postgres:{inside}@127.0.0.3:5432/x")],
        vec!["snapshot".to_owned(), "--db-url".to_owned(), format!("postgres:{inside}@127.0.0.3://x")],
        vec![
            "snapshot".to_owned(),
            "--db-url".to_owned(),
            format!("postgresql://postgres:a@{inside}/b@127.0.0.3/x"),
        ],
    ] {
        let ran = world.run(&args).exits(2);
        assert!(!ran.text().contains(&inside), "{ran}");
    }
}
