//! A whole run, and the password is nowhere: no argument of a program, no file, no output.

use crate::link::linked;
use crate::world::{Cli, Major, World, told};
use fs_err as fs;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use supa_safe::disk;

/// Reads the command lines of all processes, over and over, until told to stop.
fn watch(stop: &AtomicBool) -> BTreeSet<Vec<u8>> {
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            if process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                // A process may end while it is looked at.
                seen.extend(fs::read(process.path().join("cmdline")));
            }
        }
    }
    seen
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    // Whole groups only: what follows the password would change the last letters.
    for group in bytes.chunks_exact(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        text.extend([18, 12, 6, 0].map(|shift| char::from(LETTERS[bits >> shift & 63])));
    }
    text
}

/// The password as programs write such things.
fn forms(password: &str) -> Vec<String> {
    const USERINFO: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'@').add(b'/').add(b'%').add(b'\\');
    let encoded = |set| utf8_percent_encode(password, set).to_string();
    let json = serde_json::to_string(password).unwrap();
    let mut forms = vec![
        password.to_owned(),
        encoded(NON_ALPHANUMERIC),
        encoded(NON_ALPHANUMERIC).to_lowercase(),
        encoded(USERINFO),
        json.trim_matches('"').to_owned(),
        password.replace('\\', "\\\\"),
        // Whatever becomes of the rest, letters and digits stay as they are.
        password.rsplit('-').next().unwrap().to_owned(),
    ];
    forms.extend((0..3).map(|skip| base64(password.as_bytes().get(skip..).unwrap())));
    forms
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn the_password_is_nowhere() {
    let world = World::shop();
    let password = told("SUPA_SAFE_TEST_PASSWORD");
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || watch(&stop)
    });
    let human = world.migrate(&["-vv"]);
    let json = world.run(["verify", "--restore", "--json"]);
    let wrong = world.run([
        "snapshot",
        "--db-url",
        &format!("postgresql://postgres@{}/nowhere", told("SUPA_SAFE_TEST_PG17")),
    ]);
    stop.store(true, Ordering::Relaxed);
    let lines = watcher.join().unwrap();
    let (human, json, wrong) = (human.exits(0), json.exits(0), wrong.exits(10));

    let started =
        |name: &str| lines.iter().any(|line| holds(line.split(|byte| *byte == 0).next().unwrap(), name));
    for program in ["pg_dump", "pg_restore", "postgres", "supabase"] {
        assert!(started(program), "{program} was not seen");
    }
    let mut texts: Vec<(String, Vec<u8>)> = lines
        .into_iter()
        .map(|line| (format!("arguments {}", String::from_utf8_lossy(&line)), line))
        .collect();
    for ran in [&human, &json, &wrong] {
        texts.push(("stdout".to_owned(), ran.stdout.clone().into_bytes()));
        texts.push(("stderr".to_owned(), ran.stderr.clone().into_bytes()));
    }
    let root = world.path("");
    for file in disk::files_below(&root).unwrap() {
        texts.push((file.display().to_string(), fs::read(root.join(&file)).unwrap()));
    }
    assert!(texts.iter().any(|(name, _)| name.ends_with("manifest.json")));
    for form in forms(&password) {
        for (name, bytes) in &texts {
            assert!(!holds(bytes, &form), "the password is in {name} as {form}");
        }
    }
    for (name, bytes) in &texts {
        assert!(!holds(bytes, "SCRAM-SHA-256$"), "{name} holds the hash of a password");
    }
}

/// The keys of a whole linked project: they are in the environment of programs, and nowhere else.
#[test]
fn keys_of_a_linked_project_are_nowhere() {
    let (mut world, _project, platform) = linked(Major::Pg17, Cli::V3);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "x", b"x");
    let keys = bucket.double.keys();
    world.set("SUPABASE_ANON_KEY", keys.anon.expose());
    world.set("SUPABASE_SERVICE_ROLE_KEY", keys.service_role.expose());
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || watch(&stop)
    });
    let human = world.run(["snapshot", "-vv"]);
    let json = world.run(["snapshot", "--json"]);
    stop.store(true, Ordering::Relaxed);
    let lines = watcher.join().unwrap();
    let (human, json) = (human.exits(0), json.exits(0));

    assert!(lines.iter().any(|line| holds(line, "functions")), "the CLI was not seen");
    let mut texts: Vec<(String, Vec<u8>)> =
        lines.into_iter().map(|line| ("arguments".to_owned(), line)).collect();
    for ran in [&human, &json] {
        texts.push(("output".to_owned(), ran.to_string().into_bytes()));
    }
    let state = world.path("state");
    for file in disk::files_below(&state).unwrap() {
        texts.push((file.display().to_string(), fs::read(state.join(&file)).unwrap()));
    }
    let token = platform.stub.token();
    let secrets = [
        ("access token", token.expose()),
        ("S3 secret", keys.secret_access_key.expose()),
        ("service role's key", keys.service_role.expose()),
    ];
    for (what, secret) in secrets {
        for (name, bytes) in &texts {
            assert!(!holds(bytes, secret), "the {what} is in {name}");
        }
    }
}
