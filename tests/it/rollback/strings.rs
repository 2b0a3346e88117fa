//! Texts that servers and programs read in more ways than one.

use crate::rollback_live::run_as_printed;
use crate::world::{ADMIN, OWNER, World};

/// A row that ends a literal where a backslash is a sign of its own, and commands behind it.
const ROWS: &str = r#"create table public.keep (id int primary key);
    create table public."a\b" (id int primary key, "c\d'" text default 'x\y', v text);
    insert into public."a\b" (id, v) values
        (1, $v$\' ); commit; drop table public.keep; begin; --$v$), (2, 'a\tb\'), (3, '\\'), (4, null)"#;
const PUSH: &str = r#"set standard_conforming_strings = on;
    update public."a\b" set v = 'wrong'; alter table public."a\b" add column more int;"#;

#[test]
fn rows_are_rows_however_the_database_reads_backslashes() {
    let world = World::hosted(&[("20260101000000_wrong", PUSH)]);
    world.sql(OWNER, ROWS);
    world.sql(
        ADMIN,
        "do 'begin execute format(''alter database %I set standard_conforming_strings = off'', current_database()); end'",
    );
    let before = world.state();
    for mode in ["touched", "whole"] {
        drop(world.migrate(&[]).exits(0));
        assert_ne!(world.state(), before);
        drop(world.run(["rollback", "--mode", mode, "--confirm", &world.target()]).exits(0));
        assert_eq!(world.state(), before, "{mode}");
    }
}

/// `psql` before 18 takes such a line for the end of a CSV file, within a value too.
#[test]
fn a_line_that_ends_files_is_a_line_of_a_value() {
    let push = "alter table public.notes add column more int; alter table public.others add column more int;";
    let world = World::hosted(&[("20260101000000_wrong", push)]);
    world.sql(
        OWNER,
        "create table public.notes (id int primary key, body text); create table public.others (id int primary key)",
    );
    drop(world.migrate(&[]).exits(0));
    world.sql(
        OWNER,
        r"insert into public.notes values (1, E'a\n\\.\nb\tc'), (2, null), (3, E'\\.'); insert into public.others values (1)",
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let folder = ran.summary()["rolled_back"]["folder"].as_str().unwrap().to_owned();
    run_as_printed(&world, &format!("cd '{folder}' && psql <url> -f load.sql"));
    assert_eq!(
        world.sql(OWNER, r"select id, replace(body, E'\n', '|') from public.notes order by id"),
        ["1|a|\\.|b\tc", "2|~", "3|\\."]
    );
    assert_eq!(world.sql(OWNER, "select id from public.others"), ["1"]);
}
