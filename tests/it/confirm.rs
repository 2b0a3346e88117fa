//! Nobody's words but the person's push: by flag, on a terminal, under an agent, too late.

use crate::terminal::Terminal;
use crate::world::{OWNER, World};
use snapbox::{assert_data_eq, str};
use supa_safe::proc::Signal;

const TABLE: (&str, &str) = ("20260101000000_notes", "create table public.notes (id int primary key);");

/// A world whose migration is rehearsed, so that each run comes to the question at once.
fn rehearsed() -> World {
    let world = World::hosted(&[TABLE]);
    drop(world.run(["rehearse"]).exits(0));
    world
}

fn untouched(world: &World) {
    assert_eq!(world.history(), [""; 0]);
    assert_eq!(world.sql(OWNER, "select to_regclass('public.notes')"), ["~"]);
}

#[test]
fn off_a_terminal_the_flag_is_named() {
    let world = rehearsed();
    for args in [&["migrate"][..], &["migrate", "--yes"], &["migrate", "--no-input"]] {
        let ran = world.run(args).exits(4);
        assert_data_eq!(
            ran.failure(),
            str![[r#"
error: nobody can be asked to confirm the target; nothing was changed
hint: Pass `--confirm [TARGET]` after reading what the migration does

"#]]
        );
    }
    let ran = world.run(["migrate", "--json"]).exits(4);
    assert_eq!(ran.summary()["target_touched"], false);
    untouched(&world);
}

#[test]
fn other_words_do_not_confirm() {
    let world = rehearsed();
    let ran = world.run(["migrate", "--confirm", "yes"]).exits(4);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the words do not match: `yes` is not `[TARGET]`
  nothing was changed
hint: The words are `[TARGET]`

"#]]
    );
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    terminal.types("y");
    let (code, seen) = terminal.ends();
    assert_eq!(code, 4, "{seen}");
    untouched(&world);
}

#[test]
fn under_an_agent_only_a_person_confirms() {
    let mut world = rehearsed();
    world.set("CLAUDECODE", "1");
    let ran = world.migrate(&[]).exits(4);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: `--confirm` does not count under a coding agent (CLAUDECODE is set)
  nothing was changed
hint: A person runs the command on a terminal and types the words; an agent must ask its person to

"#]]
    );
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    terminal.types(&world.target());
    terminal.sees("Type: I am a person and I read this");
    terminal.types("yes");
    let (code, seen) = terminal.ends();
    assert_eq!(code, 4, "{seen}");
    untouched(&world);

    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    terminal.types(&world.target());
    terminal.sees("Type: I am a person and I read this");
    terminal.types("I am a person and I read this");
    let (code, seen) = terminal.ends();
    assert_eq!(code, 0, "{seen}");
    assert_eq!(world.history(), ["20260101000000"]);
}

#[test]
fn a_person_presses_ctrl_c_at_the_question() {
    let world = rehearsed();
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    terminal.interrupts();
    let (code, seen) = terminal.ends();
    assert_eq!(code, 130, "{seen}");
    assert!(seen.contains("interrupted; the target was not touched"), "{seen}");
    untouched(&world);
}

/// The terminal is the person's again, also when somebody else ends the run at the question.
#[test]
fn a_run_that_is_told_to_end_at_the_question_leaves_the_terminal_usable() {
    let world = rehearsed();
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    terminal.signals(Signal::TERM);
    let (code, seen) = terminal.ends();
    assert_eq!(code, 143, "{seen}");
    assert!(seen.contains("interrupted; the target was not touched"), "{seen}");
    untouched(&world);
}

/// What the project owns, its history aside.
fn owned(world: &World) -> Vec<String> {
    world.state().into_iter().filter(|line| !line.contains("supabase_migrations")).collect()
}

#[test]
fn a_person_who_takes_longer_than_the_evidence_lasts() {
    let world = World::hosted(&[TABLE, ("20260102000000_index", "create index on public.notes (id);")]);
    let before = owned(&world);
    let mut terminal = Terminal::start(&world, &["migrate", "--max-age", "20s"]);
    terminal.sees("to push");
    let rehearsed = world.snapshots();
    assert_eq!((rehearsed.len(), world.rehearsals().len()), (1, 1));
    // Waits for what the run waits for: the snapshot becoming too old by the target's clock.
    let taken = crate::world::read_json(&rehearsed[0].join("manifest.json"));
    let taken = taken["taken"]["target_clock"].as_str().unwrap();
    world.sql(OWNER, &format!("select pg_sleep(greatest(0, extract(epoch from timestamptz '{taken}' + interval '20.2 s' - clock_timestamp())))"));
    terminal.types(&world.target());
    let (code, seen) = terminal.ends();
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("old by now: take a fresh one"), "{seen}");
    assert!(seen.contains("not rehearsed again"), "{seen}");
    assert!(seen.contains("is succeeded"), "{seen}");
    assert_eq!((world.snapshots().len(), world.rehearsals().len()), (2, 1), "{seen}");
    assert_eq!(seen.matches("into a scratch server").count().min(1), 1, "{seen}");
    assert_eq!(world.history(), ["20260101000000", "20260102000000"]);
    // The snapshot that succeeded the rehearsed one is the one to go back to, without a word more.
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let successor = world.snapshots()[0].file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(
        (&ran.summary()["snapshot"], &ran.summary()["rolled_back"]["mode"]),
        (&successor.into(), &"touched".into())
    );
    assert_eq!(owned(&world), before);
}

/// Whoever writes a migration also chooses its name, and the person reads both.
#[test]
fn a_name_cannot_take_back_what_the_person_reads() {
    let name = "20290101000001_a\u{1b}[1A\u{1b}[2K\u{1b}[1A";
    let world = World::hosted(&[TABLE, (name, "create table public.hidden (id int);")]);
    let mut terminal = Terminal::start(&world, &["migrate"]);
    terminal.sees("to push");
    terminal.interrupts();
    let (code, seen) = terminal.ends();
    assert_eq!(code, 130, "{seen}");
    let shown = r"20290101000001_a\u{1b}[1A\u{1b}[2K\u{1b}[1A.sql";
    for line in [format!("pending {shown}"), format!("will push  {shown}")] {
        assert!(seen.contains(&line), "{line} in {seen}");
    }
    assert!(!seen.contains("a\u{1b}[1A"), "{seen}");
    untouched(&world);
}
