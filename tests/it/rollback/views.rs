//! Materialized views show what there was when they were filled.

use super::{NOTES, WRONG};
use crate::world::{OWNER, World};
use serde_json::json;

/// One that is not as it would be when refreshed, and one over a table that goes back and one that stays.
const VIEWS: &str = "create materialized view public.stale as select count(*) as notes from public.notes;
    create materialized view public.pairs as select o.id, n.body from public.notes n join public.others o on o.note = n.id;
    insert into public.notes values (0, 'not seen yet');";

#[test]
fn one_that_was_not_refreshed_is_no_reason_to_refuse() {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, &format!("{NOTES}{VIEWS}"));
    let pushed = world.migrate(&["--json"]).exits(0);
    let compared = |name: &str| {
        let tables = pushed.events_of("table-compared");
        let table = tables.iter().find(|table| table["table"] == name).unwrap();
        (table["equal"] == true, table["refreshed"] == true)
    };
    assert_eq!(compared("public.stale"), (false, true));
    assert_eq!(compared("public.pairs"), (true, false));
    let limit =
        "materialized view public.stale held other rows than it does when refreshed: a restore refreshes it";
    let limits = pushed.summary()["limits"].clone();
    assert!(limits.as_array().unwrap().contains(&json!(limit)), "{limits}");

    // Nobody takes back what is written elsewhere, and the view over both shows it.
    world.sql(OWNER, "insert into public.others values (51, 1)");
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let done = &ran.summary()["rolled_back"];
    assert_eq!(
        done["references"],
        json!([
            "materialized view public.pairs has 51 rows instead of 50: it was filled again",
            "materialized view public.stale has other content: it was filled again",
        ])
    );
    assert_eq!(world.sql(OWNER, "select notes from public.stale"), ["51"]);
    assert_eq!(
        world.sql(OWNER, "select count(*), count(*) filter (where body = 'lost') from public.pairs"),
        ["51|0"]
    );
}
