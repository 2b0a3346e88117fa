//! A live database: rows are committed into every table all the while, each with a number of its own.
//! Through the push and the rollback none that was acknowledged is lost.
//!
//! Here twenty tables; `tests/soak/rollback` takes fifty, demands the rate, and prints its figures.

use crate::world::{OWNER, World, told};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Sessions that write.
const WRITERS: usize = 4;
/// When each row is due, all writers together: who was late catches up, so that 200 a second are reached.
const PACE: Duration = Duration::from_micros(4500);
/// The table that the migration hits.
const HIT: u64 = 7;
const WRONG: &str = "update public.t_7 set body = 'lost'; alter table public.t_7 add column more text;
    create table public.extra (id bigint primary key, t bigint references public.t_7);
    create policy opened on public.t_7 for all to anon using (true);";

/// What was acknowledged, and how long a writer waited at most, in milliseconds.
#[derive(Debug, Default)]
struct Written {
    rows: Mutex<BTreeSet<(u64, i64)>>,
    failed: Mutex<Vec<String>>,
    number: AtomicI64,
    by_writer: [AtomicU64; WRITERS],
    longest: AtomicU64,
    longest_elsewhere: AtomicU64,
}

impl Written {
    /// Commits a row into one table after the other, each when it is due.
    fn write(&self, world: &World, (writer, tables): (usize, u64), begun: Instant, over: &AtomicBool) {
        let session = world.session(OWNER);
        while !over.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let table = number.unsigned_abs() % tables;
            let due = begun + PACE * u32::try_from(number).unwrap();
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let started = Instant::now();
            let sql = format!("insert into public.t_{table} (id, body) values ({number}, 'written')");
            match session.try_run(&sql) {
                Ok(_) => {
                    self.rows.lock().unwrap().insert((table, number));
                    self.by_writer[writer].fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.failed.lock().unwrap().push(format!("{table}: {error:?}")),
            }
            let waited = u64::try_from(started.elapsed().as_millis()).unwrap();
            self.longest.fetch_max(waited, Ordering::Relaxed);
            if table != HIT {
                self.longest_elsewhere.fetch_max(waited, Ordering::Relaxed);
            }
        }
    }

    /// How many rows of each writer were acknowledged so far.
    fn acknowledged(&self) -> [u64; WRITERS] {
        self.by_writer.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

fn while_writing<T>(world: &World, tables: u64, work: impl FnOnce(&Written) -> T) -> (T, Written, f64) {
    let (written, over) = (Written::default(), AtomicBool::new(false));
    let begun = Instant::now();
    let done = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (written, over) = (&written, &over);
            scope.spawn(move || written.write(world, (writer, tables), begun, over));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&written)));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (done, written, begun.elapsed().as_secs_f64())
}

/// The rows of all tables now.
fn live(world: &World, tables: u64) -> BTreeSet<(u64, i64)> {
    let all: Vec<String> =
        (0..tables).map(|table| format!("select {table}, id from public.t_{table}")).collect();
    let rows = world.sql(OWNER, &all.join(" union all "));
    let pair = |row: &String| {
        let (table, id) = row.split_once('|').unwrap();
        (table.parse().unwrap(), id.parse().unwrap())
    };
    rows.iter().map(pair).collect()
}

/// The rows in the files of a rollback.
fn saved(done: &Value, folder: &Path) -> BTreeSet<(u64, i64)> {
    let mut found = BTreeSet::new();
    for one in done["saved"].as_array().unwrap() {
        let table = one["table"].as_str().unwrap().strip_prefix("public.t_").unwrap().parse().unwrap();
        let text = fs_err::read_to_string(folder.join(one["file"].as_str().unwrap())).unwrap();
        let ids = text.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap());
        let before = found.len();
        found.extend(ids.map(|id| (table, id)));
        assert_eq!(u64::try_from(found.len() - before).unwrap(), one["rows"].as_u64().unwrap());
    }
    found
}

/// Runs the command that the program prints, with the target's URL.
pub(crate) fn run_as_printed(world: &World, printed: &str) {
    let command = printed.trim().replace("<url>", &format!("'{}'", world.url()));
    let path = format!("{}:/usr/bin:/bin", told("SUPA_SAFE_TEST_PG17_BIN"));
    let ran = world.finish(world.program("/bin/sh").args(["-c", &command]).env("PATH", path));
    drop(ran.exits(0));
}

#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it by hand")]
fn nothing_is_lost(mode: &str) {
    let soak = std::env::var("SUPA_SAFE_TEST_TABLES").ok();
    let tables: u64 = soak.as_deref().map_or(20, |tables| tables.parse().unwrap());
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    let schema = (0..tables).map(|table| {
        format!(
            "create table public.t_{table} (id bigint primary key, body text, at timestamptz default now());
             insert into public.t_{table} select -n, 'old' from generate_series(1, 100) n;"
        )
    });
    world.sql(OWNER, &schema.collect::<String>());
    let ((pushed, done), written, seconds) = while_writing(&world, tables, |written| {
        drop(world.migrate(&[]).exits(0));
        let before_rollback = live(&world, tables);
        let before = written.acknowledged();
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
        let after = written.acknowledged();
        let went_on = before.iter().zip(&after).all(|(before, after)| after > before);
        assert!(
            went_on,
            "a writer stood still while it was taken back: {before:?} before, {after:?} after it"
        );
        (before_rollback, ran.summary()["rolled_back"].clone())
    });
    let acknowledged = written.rows.into_inner().unwrap();
    assert_eq!(written.failed.into_inner().unwrap(), [""; 0]);
    assert_eq!(done["mode"], mode);
    let folder = std::path::PathBuf::from(done["folder"].as_str().unwrap());
    let (now, kept) = (live(&world, tables), saved(&done, &folder));
    let is_lost = |row: &&(u64, i64)| !now.contains(row) && !kept.contains(row);
    let lost: Vec<_> = acknowledged.iter().filter(is_lost).collect();
    assert!(lost.is_empty(), "{} of {} rows are lost: {lost:?}", lost.len(), acknowledged.len());
    let is_undone = |row: &&(u64, i64)| row.0 != HIT && !now.contains(row);
    let undone = acknowledged.iter().filter(is_undone).count();
    if mode == "touched" {
        assert_eq!(undone, 0, "writes to other tables were undone");
    } else {
        assert!(undone > 0, "a rollback of everything undoes what was written since");
    }
    assert!(pushed.len() > usize::try_from(tables).unwrap() * 100);
    let old = world.sql(OWNER, "select count(*) from public.t_7 where id < 0 and body = 'old'");
    assert_eq!(old, ["100"]);
    #[expect(clippy::cast_precision_loss, reason = "thousands of rows")]
    let rate = acknowledged.len() as f64 / seconds;
    assert!(soak.is_none() || rate >= 200.0, "{rate:.0} commits a second");
    eprintln!(
        "{mode}: {} rows of {tables} tables acknowledged in {seconds:.1} s, {rate:.0} a second, {} live, {} saved, \
         none lost; rolled back in {:.2} s; a writer waited {} ms at most, elsewhere than in the table that was hit {} ms",
        acknowledged.len(),
        acknowledged.iter().filter(|row| now.contains(row)).count(),
        kept.len(),
        done["seconds"].as_f64().unwrap(),
        written.longest.into_inner(),
        written.longest_elsewhere.into_inner(),
    );

    let script = format!("cd '{}' && psql <url> -f load.sql", folder.display());
    run_as_printed(&world, &script);
    let loaded = live(&world, tables);
    let missing: Vec<_> = acknowledged.iter().filter(|row| !loaded.contains(row)).collect();
    assert!(missing.is_empty(), "{} rows are not loaded: {missing:?}", missing.len());
    let old = world.sql(OWNER, "select count(*) from public.t_7 where id < 0 and body = 'old'");
    assert_eq!(old, ["100"], "what the migration wrote came in again");
}

#[test]
fn no_row_is_lost_when_what_was_touched_goes_back() {
    nothing_is_lost("touched");
}

#[test]
fn no_row_is_lost_when_everything_goes_back() {
    nothing_is_lost("whole");
}
