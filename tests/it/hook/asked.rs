//! The hook on a terminal: a person is asked, although stdin is git's.

use super::{Repository, TABLE};
use crate::link::linked;
use crate::terminal::Terminal;
use crate::world::{Cli, Major, told};

#[test]
fn a_person_is_asked_for_the_password_within_a_push() {
    let (mut world, _project, _platform) = linked(Major::Pg17, Cli::V3);
    world.unset("SUPABASE_DB_PASSWORD");
    let repository = Repository::around(world).installed();
    repository.world.migration(TABLE.0, TABLE.1);
    repository.commit();
    let before = repository.remote("main");
    let mut push = repository.world.program("git");
    push.args(["push", "origin", "main"]);
    let mut terminal = Terminal::of(push);
    terminal.sees("Password of the database of");
    terminal.types_unseen(&told("SUPA_SAFE_TEST_PASSWORD"));
    terminal.sees("[SS001]");
    let (code, seen) = terminal.ends();
    assert_eq!(code, 1, "{seen}");
    assert!(!seen.contains(&told("SUPA_SAFE_TEST_PASSWORD")), "{seen}");
    assert_eq!(repository.remote("main"), before);
}
