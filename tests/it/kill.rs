//! Runs that are killed, interrupted, or in each other's way: what is left, and what the next run
//! says about it. Each waits for events of the run; a lock on the target holds it where it is.

use crate::scratch::until;
use crate::world::{OWNER, Ran, Session, World, code, list};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use supa_safe::proc::{self, Signal};

const FILES: [(&str, &str); 2] = [
    ("20260101000000_first", "create table public.first (id int);"),
    ("20260102000000_second", "insert into public.gate values (1);"),
];

/// A world with a table that its second migration writes to.
pub(crate) fn world() -> World {
    with_gate(World::hosted(&FILES))
}

/// The table, and a policy that lets a push wait for it.
fn with_gate(world: World) -> World {
    world.write("supabase/supa-safe.toml", "max_block = \"10m\"\n");
    world.sql(OWNER, "create table public.gate (id int)");
    world
}

/// Keeps everybody from the table, until the session ends its transaction.
fn close_gate(world: &World) -> Session {
    let session = world.session(OWNER);
    session.run("begin; lock table public.gate in access exclusive mode");
    session
}

/// A push that waits at the gate.
pub(crate) fn held_push(world: &World) -> (Going, Session) {
    drop(world.run(["rehearse"]).exits(0));
    let gate = close_gate(world);
    let mut run = Going::start(world, &["migrate", "--confirm", &world.target()]);
    run.until_type("delegate-pid");
    until_push_waits(world);
    (run, gate)
}

/// A run that goes on while the test looks at its events.
pub(crate) struct Going {
    pub(crate) child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Going {
    /// Starts the program as the leader of a group, as a shell does.
    pub(crate) fn start(world: &World, args: &[&str]) -> Self {
        let mut command = world.command();
        command.args(args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Waits for an event.
    #[track_caller]
    pub(crate) fn until(&mut self, what: impl Fn(&Value) -> bool) -> Value {
        let mut seen = String::new();
        loop {
            let from = seen.len();
            if self.stdout.read_line(&mut seen).unwrap() == 0 {
                let mut talk = String::new();
                self.child.stderr.take().unwrap().read_to_string(&mut talk).unwrap();
                panic!("it ended before that: {seen}{talk}");
            }
            let event: Value = serde_json::from_str(seen.get(from..).unwrap()).unwrap();
            if what(&event) {
                return event;
            }
        }
    }

    pub(crate) fn until_type(&mut self, name: &str) -> Value {
        self.until(|event| event["type"] == name)
    }

    pub(crate) fn until_text(&mut self, text: &str) -> Value {
        self.until(|event| event["text"].as_str().is_some_and(|found| found.contains(text)))
    }

    pub(crate) fn kill(mut self) {
        proc::signal(self.child.id(), Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Somebody tells this process alone.
    pub(crate) fn signals(&self, signal: Signal) {
        proc::signal(self.child.id(), signal).unwrap();
    }

    /// Ctrl-C: the terminal tells the whole group.
    fn interrupt(&self) {
        let group = format!("-{}", self.child.id());
        assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    }

    /// Waits for the end: the exit code and the last event.
    pub(crate) fn ends(mut self) -> (i32, Value) {
        let summary = self.until_type("summary");
        (code(self.child.wait().unwrap()), summary)
    }
}

/// Waits until the push waits at the gate.
fn until_push_waits(world: &World) {
    let waits = "select 1 from pg_stat_activity where datname = current_database() and query like '%gate%'
                 and wait_event_type = 'Lock' and application_name <> 'test'";
    let session = world.session(OWNER);
    until("the push waits", || !session.run(waits).is_empty());
}

fn scratches(world: &World) -> usize {
    let folders = list(&world.path("tmp"));
    folders.into_iter().filter(|path| path.to_str().unwrap().contains("supa-safe-scratch-")).count()
}

/// Waits until no scratch server is left, nor its folder.
pub(crate) fn nothing_is_left(world: &World) {
    until("no scratch is left", || scratches(world) == 0);
    let folder = format!("{}/supa-safe-scratch-", world.path("tmp").display());
    until("no server is left", || {
        let lines = fs_err::read_dir("/proc").unwrap().filter_map(Result::ok);
        let mut lines = lines.filter_map(|process| fs_err::read(process.path().join("cmdline")).ok());
        !lines.any(|line| String::from_utf8_lossy(&line).contains(&folder))
    });
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

fn notes(ran: &Ran) -> String {
    let events = ran.events();
    let texts: Vec<&str> = events.iter().filter_map(|event| event["text"].as_str()).collect();
    texts.join("\n")
}

#[test]
fn a_snapshot_that_was_killed_is_none() {
    let world = world();
    let gate = close_gate(&world);
    let mut run = Going::start(&world, &["snapshot"]);
    run.until_type("stage-started");
    let drafts = || list(&world.store().join("snapshots"));
    until("the snapshot was begun", || !drafts().is_empty());
    run.kill();
    assert!(world.snapshots().is_empty());
    let drafts = drafts();
    assert_eq!(drafts.len(), 1);
    gate.run("rollback");

    let ran = world.run(["snapshot", "--json"]).exits(0);
    let draft = drafts[0].file_name().unwrap().to_str().unwrap();
    assert!(notes(&ran).contains(&format!("removed `{draft}`: an earlier run died")), "{ran}");
    assert_eq!(list(&world.store().join("snapshots")), world.snapshots());
    assert_eq!(world.snapshots().len(), 1);
}

#[test]
fn a_rehearsal_that_was_killed_leaves_no_server() {
    let world = world();
    let mut run = Going::start(&world, &["rehearse"]);
    run.until_text("to the copy with supabase");
    assert_eq!(scratches(&world), 1);
    run.kill();
    nothing_is_left(&world);
    assert_eq!(world.history(), [""; 0]);
    assert!(world.rehearsals().is_empty());
    drop(world.run(["rehearse"]).exits(0));
}

#[test]
fn a_push_whose_run_was_killed_goes_on_and_the_next_run_finds_it() {
    let world = world();
    let target = world.target();
    let (run, gate) = held_push(&world);
    run.kill();
    // A look in between does not make the next push forget.
    drop(world.run(["check"]).exits(3));

    let mut next = Going::start(&world, &["migrate", "--confirm", &target]);
    next.until_text("ended before it knew what became of its push");
    next.until_text("still at work");
    gate.run("commit");
    let settled = next.until_type("push-settled");
    assert_eq!(
        names(&settled["applied"]),
        ["20260101000000_first.sql", "20260102000000_second.sql"],
        "{settled}"
    );
    let (code, summary) = next.ends();
    assert_eq!((code, &summary["target_touched"]), (0, &Value::Bool(false)), "{summary}");
    assert_eq!(world.history(), ["20260101000000", "20260102000000"]);
    assert_eq!(world.sql(OWNER, "select count(*) from public.gate"), ["1"]);

    let ran = world.run(["migrate", "--json"]).exits(0);
    assert!(ran.events_of("push-settled").is_empty(), "{ran}");
}

#[test]
fn ctrl_c_during_the_push_waits_for_the_server() {
    let world = world();
    let (mut run, gate) = held_push(&world);
    run.interrupt();
    run.until_text("still at work");
    gate.run("commit");
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["target_touched"]), (130, &Value::Bool(true)), "{summary}");
    let history: Vec<String> = world.history();
    let stands = |file: &str| history.iter().any(|version| file.starts_with(version));
    assert!(names(&summary["applied"]).iter().all(|file| stands(file)), "{summary}");
    assert!(!names(&summary["not_applied"]).iter().any(|file| stands(file)), "{summary}");
    assert_eq!(names(&summary["applied"]).len() + names(&summary["not_applied"]).len(), 2, "{summary}");
    assert!(history.contains(&"20260101000000".to_owned()));
}

#[test]
fn a_second_ctrl_c_cancels_the_statement() {
    let world = world();
    let (mut run, gate) = held_push(&world);
    run.interrupt();
    run.until_text("Interrupt again to cancel its statement");
    run.interrupt();
    run.until_text("canceling the statement");
    let (code, summary) = run.ends();
    assert_eq!(code, 130, "{summary}");
    assert_eq!(names(&summary["applied"]), ["20260101000000_first.sql"], "{summary}");
    assert_eq!(names(&summary["not_applied"]), ["20260102000000_second.sql"], "{summary}");
    assert_eq!(world.history(), ["20260101000000"]);
    gate.run("commit");
    assert_eq!(world.sql(OWNER, "select count(*) from public.gate"), ["0"]);
}

#[test]
fn a_second_run_at_once_is_refused() {
    let world = world();
    let gate = close_gate(&world);
    let mut run = Going::start(&world, &["snapshot"]);
    run.until_type("stage-started");
    let second = world.run(["snapshot"]).exits(11);
    let text =
        format!("another run (process {}) works on this target; the target was not touched", run.child.id());
    assert!(second.stderr.contains(&text), "{second}");
    gate.run("commit");
    let (code, summary) = run.ends();
    assert_eq!(code, 0, "{summary}");
}

#[test]
fn a_push_that_names_its_session_anew_is_still_waited_for() {
    let world = with_gate(World::hosted(&[
        ("20260101000000_first", "create table public.first (id int);"),
        ("20260102000000_second", "set application_name = 'mine'; insert into public.gate values (1);"),
    ]));
    let (mut run, gate) = held_push(&world);
    run.interrupt();
    run.until_text("still at work");
    gate.run("commit");
    let (code, summary) = run.ends();
    assert_eq!(code, 130, "{summary}");
    assert_eq!(names(&summary["applied"]).len(), 2, "{summary}");
    assert_eq!(world.history(), ["20260101000000", "20260102000000"]);
}

#[test]
fn a_push_that_ends_our_own_session_is_seen_to_its_end() {
    let end_all = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and usename = current_user and pid <> pg_backend_pid();";
    let world = World::hosted(&[
        ("20260101000000_first", "create table public.first (id int);"),
        ("20260102000000_second", end_all),
        ("20260103000000_third", "create table public.third (id int);"),
    ]);
    let ran = world.migrate(&["--json"]).exits(0);
    assert_eq!(names(&ran.summary()["applied"]).len(), 3, "{ran}");
}
