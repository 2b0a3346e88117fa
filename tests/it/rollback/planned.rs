//! What a rollback would do, for whoever only asks: the plan, and the programs that it would run.

use super::pushed;
use crate::world::told;
use serde_json::json;
use snapbox::{assert_data_eq, str};

#[test]
fn a_dry_run_prints_the_plan_with_its_programs_and_changes_nothing() {
    let world = pushed();
    let before = world.state();
    let ran = world.run(["rollback", "--dry-run"]).exits(0);
    assert_data_eq!(
        ran.data(),
        str![[r#"
Plan (nothing was touched):
  target     [TARGET]
  back to    snapshot [SNAPSHOT] of [..] ago
  undoes     migration 20260101000000
  mode       touched: what the migration touched goes back; rows that were written elsewhere stay
  rehearsed  exact, in [TIME] on the copy
  tables     public.extra, public.notes: these go, and come as the snapshot has them
  kept       rows written since to tables that go back are kept in files first
  blocks     nobody reads or writes these tables until it is over, nor those of the platform that keys tie to them: sign-ups and logins may wait too
  needs      about [BYTES] more on the target's disk until it commits, and at most as much here for what is kept ([BYTES] are free)
  not back   rows of managed schemas (auth, vault, cron) stay as they are, but for accounts that the push wrote
  not back   rows of an extension's own tables (cron.job, pgmq.meta) are not brought back where the push dropped it
  not back   accounts that came between the snapshot and the push stay as it left them
  not back   Functions and secrets stay as they are
  not back   passwords of roles that were dropped
  not back   who granted a privilege, where that was not the owner
  runs       PGPASSWORD=**** LC_ALL=C [..] PGUSER=postgres PGDATABASE=[DATABASE] [..]/pg_dump --no-password --schema-only --format=custom '--file=[ROOT]/state/[..]/rollbacks/<run>/definitions.dump'
  runs       LC_ALL=C [..]/pg_restore --list '[ROOT]/state/[..]/rollbacks/<run>/definitions.dump'
  runs       LC_ALL=C [..]/pg_restore --file=- --no-tablespaces --section=pre-data '--use-list=<lists>/pre-data.list' [ROOT]/state/[..]/snapshots/[SNAPSHOT]/database/archive
  runs       LC_ALL=C [..]/pg_restore --file=- --no-tablespaces --section=data '--use-list=<lists>/data.list' [ROOT]/state/[..]/snapshots/[SNAPSHOT]/database/archive
  runs       LC_ALL=C [..]/pg_restore --file=- --no-tablespaces --section=post-data '--use-list=<lists>/post-data.list' [ROOT]/state/[..]/snapshots/[SNAPSHOT]/database/archive

"#]]
    );
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(&told("SUPA_SAFE_TEST_PASSWORD")));
    let summary = world.run(["rollback", "--dry-run", "--json"]).exits(0).summary();
    let plan = &summary["plan"];
    assert_eq!((&plan["mode"], &plan["versions"]), (&json!("touched"), &json!(["20260101000000"])));
    assert_eq!(plan["tables"], json!(["public.extra", "public.notes"]));
    let record = &world.rehearsals()[0]["rollbacks"][0];
    assert_eq!((&plan["mode"], &plan["seconds"]), (&record["mode"], &record["seconds"]));
    assert_eq!(plan["obstacles"], json!([]));
    let printed = ran.stdout.lines().filter_map(|line| line.strip_prefix("  runs       "));
    assert_eq!(plan["commands"], json!(printed.collect::<Vec<_>>()));
    assert_eq!(summary["target_touched"], false);
    assert_eq!(world.state(), before);
    assert!(!world.store().join("rollbacks").exists());
}
