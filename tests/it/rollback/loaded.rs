//! Kept rows are loaded again where they fit the table that came back; those that do not keep no other away.

use super::Base;
use crate::world::{ADMIN, OWNER, World, told};
use supa_safe::rollback::{Mode, Task};

const BEFORE: &str = "create type public.state as enum ('new');
    create domain public.short as varchar(5);
    create table public.orders (id int primary key, state public.state, note varchar(5), tag public.short,
        total int not null check (total > 0), twice int generated always as (total * 2) stored);
    create table public.tree (id bigint generated always as identity primary key,
        above bigint references public.tree deferrable initially deferred, owner uuid references auth.users);
    create table public.log (what text not null);
    create table public.z_prices (id int primary key, price numeric(10, 2), born date);";
/// Names may hold lines, and these may be commands of `psql`.
const ODD: &str = r#"create table public."x
\! touch ran
" ("id
\! touch ran
" int primary key, c1 text, supa_safe_row text);
create table public."y
\! touch ran
" ("what
':\! touch ran
" text)"#;
const ODD_ROWS: &str = r#"insert into public."x
\! touch ran
" values (1, 'one', 'row');
insert into public."y
\! touch ran
" values ('two')"#;
const ODD_LOADED: &str = r#"select c1, supa_safe_row from public."x
\! touch ran
";
select * from public."since_y
\! touch ran
""#;
const PUSH: &str =
    "alter table public.orders alter note type text, alter tag type text, alter total drop not null,
        drop constraint orders_total_check, add column more text;
    alter table public.log alter what drop not null;
    alter table public.z_prices alter price type numeric, alter born type timestamptz;
    create table public.later (id int primary key);";
const USERS: &str = "insert into public.orders (id, state, note, tag, total) values (1, 'new', '', null, 1),
        (2, 'archived', null, null, 2), (3, 'new', 'too long', null, 3), (4, 'new', null, null, null),
        (5, 'new', null, '', 5), (6, 'new', 'y', null, -1), (7, 'new', 'z', 'abcdef', 7), (8, 'new', 'é', 'x', 8);
    insert into public.tree (id, above, owner) overriding system value
        values (10, 12, null), (11, null, '00000000-0000-0000-0000-000000000001'), (12, null, null), (13, 11, null);
    insert into public.log values ('a'), (null);
    insert into public.later values (1);
    insert into public.z_prices values (1, 1.5, null), (2, 1.2345, null), (3, 2.00, '2001-02-03 04:05+00');";

fn rolled_back() -> Base {
    let world = World::hosted(&[]);
    world.sql(
        ADMIN,
        "insert into auth.users (id, email) values ('00000000-0000-0000-0000-000000000001', '1@x.y')",
    );
    world.sql(OWNER, BEFORE);
    world.sql(OWNER, ODD);
    let base = Base::of(world);
    base.world.sql(OWNER, "alter type public.state add value 'archived'");
    base.world.sql(OWNER, PUSH);
    base.world.sql(OWNER, USERS);
    base.world.sql(OWNER, ODD_ROWS);
    let session = base.world.session(OWNER);
    let kept = base.world.path("kept");
    let proved = base.with_task(Mode::Whole, &[], &base.ids(), |task| {
        session.bring_back(&Task { keep_in: Some(&kept), ..*task })
    });
    assert_eq!(proved.unwrap().saved.len(), 7);
    session.run("commit");
    base
}

/// Runs the script; returns of each table how many rows there were, how many were loaded, and where others stay.
fn load(base: &Base) -> Vec<String> {
    let path = format!("{}:/usr/bin:/bin", told("SUPA_SAFE_TEST_PG17_BIN"));
    let mut psql = base.world.program("psql");
    psql.args(["-qAtf", "load.sql"]).arg(base.world.url()).env("PATH", path);
    let ran = base.world.finish(psql.current_dir(base.world.path("kept"))).exits(0);
    let told = ran.stdout.lines().filter(|line| line.starts_with('"'));
    told.map(|line| line.split('|').take(4).collect::<Vec<_>>().join("|")).collect()
}

#[test]
fn rows_that_do_not_fit_stay_in_their_file_and_all_others_are_loaded() {
    let base = rolled_back();
    base.world.sql(ADMIN, "delete from auth.users");
    let told = load(&base);
    assert_eq!(
        told,
        [
            "\"public\".\"since_log\"|2|1|0002.csv",
            "\"public\".\"orders\"|8|3|0003.csv",
            "\"public\".\"x",
            "\"|1|1|",
            "\"public\".\"since_y",
            "\"|1|1|",
            "\"public\".\"z_prices\"|3|1|0007.csv",
            "\"public\".\"tree\"|4|2|0004.csv"
        ]
    );
    let orders = "select id, state, note, tag, total, twice from public.orders order by id";
    assert_eq!(base.world.sql(OWNER, orders), ["1|new||~|1|2", "5|new|~||5|10", "8|new|é|x|8|16"]);
    let tree = "select id, above from public.tree order by id";
    assert_eq!(base.world.sql(OWNER, tree), ["10|12", "12|~"]);
    assert_eq!(base.world.sql(OWNER, "insert into public.tree default values returning id"), ["13"]);
    assert_eq!(base.world.sql(OWNER, "select * from public.since_log"), ["a"]);
    // What a type would round or cut stays whole, in the file.
    assert_eq!(base.world.sql(OWNER, "select id, price, born from public.z_prices"), ["1|1.50|~"]);
    // Names that hold lines are names, and no commands.
    assert_eq!(base.world.sql(OWNER, ODD_LOADED), ["one|row", "two"]);
    assert!(!base.world.path("kept/ran").exists());
    // What was in the way can be taken away.
    base.world.sql(OWNER, "alter type public.state add value 'archived'");
    base.world.sql(OWNER, "drop table public.tree");
    let told = load(&base);
    assert_eq!(
        told,
        [
            "\"public\".\"orders\"|8|1|0003.csv",
            "\"public\".\"x",
            "\"|1|0|0005.csv",
            "\"public\".\"z_prices\"|3|0|0007.csv",
            "\"public\".\"tree\"|4|0|0004.csv"
        ]
    );
    assert_eq!(base.world.sql(OWNER, orders)[1], "2|archived|~|~|2|4");
    assert_eq!(base.world.sql(OWNER, "select count(*) from public.since_log"), ["1"]);
}
