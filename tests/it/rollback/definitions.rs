//! What people made by hand since the push goes with the rest: how it was defined is kept.

use super::{NOTES, WRONG};
use crate::world::{OWNER, World};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[test]
fn definitions_as_they_stood_before_are_kept() {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(OWNER, NOTES);
    drop(world.migrate(&[]).exits(0));
    world.sql(
        OWNER,
        "create table public.studio (id int primary key, body text); insert into public.studio values (1, 'x');
        alter table public.studio enable row level security; create policy own on public.studio using (id > 0)",
    );
    let policy = "select polname, pg_get_expr(polqual, polrelid) from pg_policy where polrelid = 'public.studio'::regclass";
    let made = world.sql(OWNER, policy);
    let ran = world.run(["rollback", "--confirm", &world.target(), "--json"]).exits(0);
    let done = &ran.summary()["rolled_back"];
    assert_eq!(
        (&done["tables"], &done["removed_tables"]),
        (
            &json!(["public.extra", "public.notes", "public.studio"]),
            &json!(["public.extra", "public.studio"])
        )
    );
    assert_eq!(world.sql(OWNER, "select to_regclass('public.studio')"), ["~"]);

    let folder = Path::new(done["folder"].as_str().unwrap());
    let file = folder.join("definitions.dump");
    assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let load = fs_err::read_to_string(folder.join("load.sql")).unwrap();
    let notes: Vec<&str> = load.lines().filter(|line| line.starts_with("-- public.studio")).collect();
    let note = "-- public.studio: 1 rows in 0002.csv, and no table: how it was defined, `pg_restore -f - definitions.dump` says";
    assert_eq!(notes, [note]);
    let pg_restore = world.variable("SUPA_SAFE_PG_BIN").join("pg_restore");
    let script = world.finish(world.program(pg_restore).args(["-f", "-"]).arg(&file)).exits(0).stdout;
    let of_studio = script.split(";\n").filter(|statement| {
        let first = statement.lines().find(|line| !line.is_empty() && !line.starts_with("--"));
        first.is_some_and(|line| line.starts_with("CREATE ") && line.contains("public.studio"))
    });
    world.sql(OWNER, &of_studio.collect::<Vec<_>>().join(";"));
    assert_eq!(world.sql(OWNER, policy), made);
}
