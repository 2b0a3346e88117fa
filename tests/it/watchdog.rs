//! A push that waits for a lock, or keeps others waiting: what is canceled, what is said, what stands.

use crate::kill::Going;
use crate::scratch::until;
use crate::world::{Cli, Major, OWNER, Session, Template, World};
use fs_err as fs;
use serde_json::{Value, json};
use snapbox::{assert_data_eq, str};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use supa_safe::disk;

const COUNT: &str = "select count(*) from public.gate where 'hunter2' <> '' -- hunter2";

/// A project whose first file is applied, and another one that needs the table for itself.
fn world_of(major: Major, cli: Cli, second: &str) -> World {
    let world = World::new(major, cli).with_database(Template::Hosted);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    world.write("supabase/supa-safe.toml", "max_block = \"1s\"\n");
    let first = "create table public.gate (id int)";
    world.migration("1_gate", &format!("{first};"));
    world.migration("2_second", second);
    world.sql(
        OWNER,
        &format!(
            "{first}; create schema supabase_migrations;
             create table supabase_migrations.schema_migrations (version text not null primary key);
             alter table supabase_migrations.schema_migrations add statements text[], add name text;
             insert into supabase_migrations.schema_migrations values ('1', array['{first}'], 'gate')"
        ),
    );
    world
}

fn world(second: &str) -> World {
    world_of(Major::Pg17, Cli::V3, second)
}

fn start(world: &World) -> Going {
    Going::start(world, &["migrate", "--confirm", &world.target()])
}

/// Reads the table when the push is about to begin, and stays in the transaction.
fn read_when_it_begins(run: &mut Going, reader: &Session) -> String {
    run.until_type("delegating");
    let _rows = reader.run(&format!("begin; {COUNT}"));
    reader.run("select pg_backend_pid()").concat()
}

/// Customers who read the table all the while.
struct Customers<'w> {
    world: &'w World,
    served: AtomicUsize,
    closed: AtomicBool,
}

impl Customers<'_> {
    fn come(&self) {
        let session = self.world.session(OWNER);
        while !self.closed.load(Ordering::Relaxed) {
            let _rows = session.run("select count(*) from public.gate");
            self.served.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every one of them was served again.
    fn until_served(&self, count: usize) {
        let before = self.served.load(Ordering::Relaxed);
        until("customers are served", || self.served.load(Ordering::Relaxed) > before + 20 * count);
    }
}

fn with_customers<T>(world: &World, count: usize, work: impl FnOnce(&Customers<'_>) -> T) -> T {
    let customers = Customers { world, served: AtomicUsize::new(0), closed: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| customers.come());
        }
        let outcome = work(&customers);
        customers.closed.store(true, Ordering::Relaxed);
        outcome
    })
}

mod behind_a_reader {
    use super::*;

    /// The reader stays for as long as the test wants, and customers come all the while.
    fn a_push_is_canceled(major: Major, cli: Cli) {
        let world = world_of(major, cli, "alter table public.gate add column x int;");
        let reader = world.session(OWNER);
        let mut run = start(&world);
        let pid = read_when_it_begins(&mut run, &reader);
        let summary = with_customers(&world, 2, |customers| {
            let told = run.until_type("blocking");
            assert_eq!((&told["file"], &told["canceled"]), (&json!("2_second.sql"), &json!(true)), "{told}");
            assert!(told["text"].as_str().unwrap().contains("behind it"), "{told}");
            let holder = &told["holders"][0];
            assert_eq!(holder["pid"].to_string(), pid);
            assert_eq!(
                (&holder["user"], &holder["state"], &holder["query"]),
                (&json!(OWNER), &json!("idle in transaction"), &json!("select pg_backend_pid()"))
            );
            let (code, summary) = run.ends();
            assert_eq!(code, 20, "{summary}");
            // The reader is still there, and nobody waits.
            customers.until_served(2);
            assert_eq!(reader.run("select 1"), ["1"]);
            summary
        });
        assert_eq!(
            (&summary["applied"], &summary["not_applied"], &summary["target_touched"]),
            (&json!([]), &json!(["2_second.sql"]), &json!(true))
        );
        assert_eq!(world.history(), ["1"]);
        reader.run("commit");

        let ran = world.migrate(&["--json"]).exits(0);
        assert_eq!(ran.events_of("table-compared"), [Value::Null; 0], "it was rehearsed again: {ran}");
        assert_eq!(ran.summary()["applied"], json!(["2_second.sql"]));
        assert_eq!(world.history(), ["1", "2"]);
        assert_eq!((world.rehearsals().len(), world.snapshots().len()), (1, 1));
    }

    #[test]
    fn pg15_and_cli_2() {
        a_push_is_canceled(Major::Pg15, Cli::V2);
    }

    #[test]
    fn pg15_and_cli_3() {
        a_push_is_canceled(Major::Pg15, Cli::V3);
    }

    #[test]
    fn pg17_and_cli_2() {
        a_push_is_canceled(Major::Pg17, Cli::V2);
    }

    #[test]
    fn pg17_and_cli_3() {
        a_push_is_canceled(Major::Pg17, Cli::V3);
    }
}

#[test]
fn a_file_that_is_not_all_or_nothing_is_never_canceled() {
    let world = world("begin; alter table public.gate add column x int; commit;");
    let reader = world.session(OWNER);
    let mut run = start(&world);
    let pid = read_when_it_begins(&mut run, &reader);
    let told = run.until_type("blocking");
    assert_eq!((&told["file"], &told["canceled"]), (&json!("2_second.sql"), &json!(false)), "{told}");
    assert_eq!(told["holders"][0]["pid"].to_string(), pid);
    reader.run("commit");
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["applied"]), (0, &json!(["2_second.sql"])), "{summary}");
}

/// A session of an application that calls itself as the CLI does, since both use the same library.
#[test]
fn a_push_that_keeps_others_waiting_is_canceled_and_nobody_else() {
    let world = world("alter table public.gate add column x int; select pg_sleep(4);");
    world.sql(OWNER, "create table public.other (id int)");
    let (gate, other, application) = (world.session(OWNER), world.session(OWNER), world.session(OWNER));
    let mut run = start(&world);
    run.until_type("delegating");
    other.run("begin; lock table public.other in access exclusive mode");
    run.until_type("delegate-backend");
    application.run("set application_name = '@effect/sql-pg'");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| application.try_run("select count(*) from public.other"));
        let customer = scope.spawn(|| {
            let holds = "select 1 from pg_locks where relation = 'public.gate'::regclass
                         and mode = 'AccessExclusiveLock' and granted";
            until("the push holds the table", || !other.run(holds).is_empty());
            gate.run("select count(*) from public.gate")
        });
        let told = run.until_type("blocking");
        assert_eq!((&told["canceled"], &told["holders"]), (&json!(true), &json!([])), "{told}");
        assert!(told["text"].as_str().unwrap().starts_with("kept 1 other session waiting"), "{told}");
        assert_eq!(customer.join().unwrap(), ["0"]);
        other.run("commit");
        assert_eq!(waits.join().unwrap().unwrap(), ["0"]);
    });
    let (code, summary) = run.ends();
    assert_eq!((code, &summary["not_applied"]), (20, &json!(["2_second.sql"])), "{summary}");
}

#[test]
fn the_account_of_a_canceled_push() {
    let world = world("alter table public.gate add column x int;");
    world.run(["rehearse"]).exits(0);
    let reader = world.session(OWNER);
    let ran = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.migrate(&[]));
        // From here on nobody looks for old transactions any more.
        let begins = || {
            let records = disk::files_below(&world.store().join("runs")).unwrap();
            let read = |file: PathBuf| fs::read_to_string(world.store().join("runs").join(file)).unwrap();
            records.into_iter().map(read).any(|record| record.contains(r#""type":"delegating""#))
        };
        until("the push is about to begin", begins);
        reader.run(&format!("begin; {COUNT}"));
        run.join().unwrap().exits(20)
    });
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the push was canceled: `2_second.sql` waited [TIME] for a lock on public.gate
  `max_block` allows 1s; whoever waited for the push goes on
  in its way: backend [..] (`test` as postgres, idle in transaction, since [TIME]): `begin; select count(*) from public.gate where ? <> ?`
  `select pg_terminate_backend([..])` ends it
  not applied  2_second.sql
  no pending file stands on the target, and its schema is as before
  the state before the push is in snapshot [SNAPSHOT]
hint: Wait until that session has ended, or end it, then run `supa-safe migrate` again: it resumes at the first file that does not stand
hint: Or take back what stands: `supa-safe rollback`
hint: To restore the state before the push into a new database, follow [ROOT]/state/[..]/snapshots/[SNAPSHOT]/restore.md

"#]]
    );
    reader.run("commit");
}

#[test]
fn an_old_transaction_on_a_table_that_the_push_needs() {
    let world = world("alter table public.gate add column x int;");
    world.write("supabase/supa-safe.toml", "max_block = \"3s\"\n");
    world.sql(OWNER, "create table public.other (id int)");
    world.run(["rehearse"]).exits(0);
    let (reader, elsewhere) = (world.session(OWNER), world.session(OWNER));
    reader.run(&format!("begin; {COUNT}"));
    elsewhere.run("begin; select count(*) from public.other");
    let old = "select 1 from pg_stat_activity where datname = current_database()
               and xact_start < clock_timestamp() - interval '4 s'";
    let observer = world.session(OWNER);
    until("the transactions are old", || observer.run(old).len() == 2);
    let ran = world.migrate(&[]).exits(3);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: the policy refuses this migration; the target was not touched
  [SS015] an old transaction holds `public.gate`, which the push needs: backend [..] (`test` as postgres, idle in transaction, since [TIME]): `begin; select count(*) from public.gate where ? <> ?`
hint: Wait until that session has ended, then run again
hint: Run `supa-safe explain SS015` to read why

"#]]
    );
    assert_eq!(world.history(), ["1"]);

    let mut run = start(&world);
    run.until_text("it is waited for");
    reader.run("commit");
    let (code, summary) = run.ends();
    assert_eq!(code, 0, "{summary}");
    assert_eq!(world.history(), ["1", "2"]);
}
