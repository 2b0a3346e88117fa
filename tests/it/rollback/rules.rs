//! Rows that break a rule which comes back.

use crate::rollback_live::run_as_printed;
use crate::world::{OWNER, World};
use serde_json::json;

const BEFORE: &str = "create table public.a (id int primary key, t text not null);
    create table public.b (id int primary key, n int, constraint positive check (n > 0));
    create table public.c (id int primary key, t text unique);
    create table public.d (id int primary key, a int references public.a deferrable initially deferred);
    insert into public.a values (1, 'x'); insert into public.b values (1, 1); insert into public.c values (1, 'x');";
/// It loosens them, and writes no row.
const LOOSE: &str = "alter table public.a alter column t drop not null;
    alter table public.b drop constraint positive;
    alter table public.c drop constraint c_t_key;";

#[test]
fn tables_whose_rows_break_a_rule_that_comes_back_go_back_too() {
    let world = World::hosted(&[("20260101000000_loose", LOOSE)]);
    world.sql(OWNER, BEFORE);
    drop(world.migrate(&[]).exits(0));
    world.sql(
        OWNER,
        "insert into public.a values (2, null), (3, 'y'); insert into public.b values (2, -1);
        insert into public.c values (2, 'x'); insert into public.d values (1, 1)",
    );
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let done = &ran.summary()["rolled_back"];
    assert_eq!(done["tables"], json!(["public.a", "public.b", "public.c"]));
    let saved = done["saved"].as_array().unwrap();
    let saved: Vec<_> = saved.iter().map(|saved| (saved["table"].as_str(), saved["rows"].as_u64())).collect();
    let kept = [("public.a", 2), ("public.b", 1), ("public.c", 1)];
    assert_eq!(saved, kept.map(|(table, rows)| (Some(table), Some(rows))));
    let rows = "select (select count(*) from public.a), (select count(*) from public.b), \
         (select count(*) from public.c), (select count(*) from public.d)";
    assert_eq!(world.sql(OWNER, rows), ["1|1|1|1"]);
    // Of these, only one holds to the rules.
    run_as_printed(&world, &format!("cd '{}' && psql <url> -f load.sql", done["folder"].as_str().unwrap()));
    assert_eq!(world.sql(OWNER, rows), ["2|1|1|1"]);
}
