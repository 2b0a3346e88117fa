//! The same with objects of Storage in it: rows that the push changed, and bytes that went through the API.
//! The database is on one side of the commit or on the other, and the next run brings rows and bytes.

use super::{Relay, SINCE, confirmation, first_on, rolled, until_nobody_is_left};
use crate::kill::Going;
use crate::rollback::{NOTES, WRONG};
use crate::salvage::{Live, live};
use crate::scratch::until;
use crate::world::{ADMIN, Bucket, Major, OWNER, Ran, Session, World, list};
use serde_json::Value;
use snapbox::{assert_data_eq, str};
use std::time::{Duration, Instant};
use supa_safe::objects::Rest;

/// What the push does to rows of Storage.
const LOST: &str = "update storage.objects set name = 'lost/' || name where name = 'renamed';
    update storage.objects set owner_id = 'nobody', user_metadata = null where name = 'altered';
    set storage.allow_delete_query = 'true';
    delete from storage.objects where name = 'gone';";
const KEYS: [&str; 7] = ["renamed", "altered", "gone", "kept", "overwritten", "deleted", "moved"];

/// The database with the rows of Storage that SQL changed, and all objects with their bytes.
pub(super) struct State {
    rows: Vec<String>,
    objects: Live,
}

/// A world that a push and its users damaged.
pub(super) struct Damaged {
    pub(super) world: World,
    pub(super) bucket: Bucket,
    mode: &'static str,
    /// As the rollback leaves it.
    before: State,
    after: State,
}

impl Damaged {
    pub(super) fn new(major: Major, mode: &'static str) -> Self {
        Self::over(first_on(major), mode, |_, _| {})
    }

    /// The same, when the world is changed before its first run.
    fn over(mut world: World, mode: &'static str, change: impl FnOnce(&mut World, &Bucket)) -> Self {
        let bucket = world.bucket(&["photos"]);
        let key = bucket.double.keys().service_role.expose().to_owned();
        world.set("SUPA_SAFE_SERVICE_ROLE_KEY", key);
        change(&mut world, &bucket);
        for key in KEYS {
            bucket.put("photos", key, format!("bytes of {key}").as_bytes());
        }
        world.sql(
            ADMIN,
            r#"set session_replication_role = replica;
            update storage.buckets set file_size_limit = 100;
            update storage.objects set owner_id = md5(name), user_metadata = '{"of": "mine"}',
                metadata = metadata || '{"xRobotsTag": "noindex", "cacheControl": "max-age=60"}',
                created_at = created_at - interval '40 days', updated_at = updated_at - interval '20 days'"#,
        );
        world.sql(OWNER, NOTES);
        let confirm = confirmation(&world);
        drop(world.run(["migrate", "--confirm", &confirm]).exits(0));
        world.migration("20260101000000_wrong", &format!("{WRONG}{LOST}"));
        drop(world.run(["snapshot"]).exits(0));
        let of_snapshot = of_push(&world);
        let [before, after] = [(); 2].map(|()| State::now(&world, &bucket));
        let mut all = Self { world, bucket, mode, before, after };
        all.damage_by_push();
        all.damage_by_users();
        if mode == "touched" {
            // What users did to other rows and objects stays: the first one says what that is.
            drop(all.run().exits(0));
            assert_eq!(of_push(&all.world), of_snapshot);
            all.before = State::now(&all.world, &all.bucket);
            all.damage();
        }
        all
    }

    /// Pushes the mistake, and lets users go on.
    pub(super) fn damage(&mut self) {
        self.damage_by_push();
        if self.mode == "whole" {
            self.damage_by_users();
        }
    }

    fn damage_by_push(&mut self) {
        let Self { world, bucket, .. } = self;
        drop(world.run(["migrate", "--confirm", &confirmation(world)]).exits(0));
        world.sql(OWNER, SINCE);
        self.after = State::now(world, bucket);
        assert_ne!(self.after.rows, self.before.rows);
    }

    fn damage_by_users(&mut self) {
        let Self { world, bucket, .. } = self;
        bucket.put("photos", "overwritten", b"other bytes");
        bucket.delete("photos", "deleted");
        let (access, key) = (bucket.access(bucket.pair()), &bucket.double.keys().service_role);
        let rest = Rest::new(&access.endpoint, key).unwrap();
        bucket.runtime.block_on(rest.relocate(("photos", "moved"), ("photos", "elsewhere"))).unwrap();
        self.after = State::now(world, bucket);
    }

    pub(super) fn args(&self) -> [String; 5] {
        ["rollback", "--mode", self.mode, "--confirm", &confirmation(&self.world)].map(str::to_owned)
    }

    pub(super) fn run(&self) -> Ran {
        self.world.run(self.args())
    }

    fn start(&self) -> Going {
        Going::start(&self.world, &self.args().each_ref().map(String::as_str))
    }

    /// Which side of the commit the database is on, when nothing works on it any more.
    #[track_caller]
    pub(super) fn is_back(&self, what: &str) -> bool {
        until_nobody_is_left(&self.world);
        until("the double comes to rest", || self.bucket.double.is_idle());
        let now = rows(&self.world);
        if now != self.after.rows {
            assert_eq!(now, self.before.rows, "{what}: something between");
            return true;
        }
        assert_eq!(live(&self.world, &self.bucket), self.after.objects, "{what}: objects went ahead");
        false
    }

    /// Demands that all of it is as before the push.
    #[track_caller]
    pub(super) fn stands_as_before(&self, what: &str) {
        assert_eq!(rows(&self.world), self.before.rows, "{what}");
        assert_eq!(live(&self.world, &self.bucket), self.before.objects, "{what}");
        let double = &self.bucket.double;
        let (_, stray) = self.bucket.runtime.block_on(double.files()).unwrap();
        assert!(stray.is_empty(), "{what}: {stray:?}");
        assert_eq!(double.unknown_calls(), [""; 0], "{what}");
    }

    /// The run that finishes, after which nothing is left to do.
    #[track_caller]
    pub(super) fn finish(&self, what: &str) {
        drop(self.run().exits(0));
        self.stands_as_before(what);
        drop(self.world.run(["rollback", "--confirm", &confirmation(&self.world)]).exits(3));
    }

    /// Keeps an upload waiting.
    fn hold_upload(&self) -> Session {
        let session = self.world.session(ADMIN);
        session.run("begin; select 1 from storage.objects where name = 'overwritten' for update");
        session
    }

    /// Storage waits, or whoever puts the last columns into the row.
    fn until_upload_waits(&self) {
        let waits = "select 1 from pg_stat_activity where datname = current_database()
            and application_name <> 'test' and wait_event_type = 'Lock'";
        let session = self.world.session(ADMIN);
        until("the upload waits", || !session.run(waits).is_empty());
    }
}

impl State {
    fn now(world: &World, bucket: &Bucket) -> Self {
        Self { rows: rows(world), objects: live(world, bucket) }
    }
}

/// Everything that goes back in the transaction.
fn rows(world: &World) -> Vec<String> {
    let mut rows = world.state();
    rows.retain(|line| !line.starts_with("storage.objects|") && !line.starts_with("storage.buckets|"));
    rows.extend(of_push(world));
    rows
}

/// The objects whose rows the push changed.
fn of_push(world: &World) -> Vec<String> {
    world.sql(
        ADMIN,
        "select to_jsonb(o) from storage.objects o where name ~ '^(lost/)?(renamed|altered|gone)$' order by id",
    )
}

/// How many instants are tried; more of them by hand.
fn seeds() -> u64 {
    std::env::var("SUPA_SAFE_TEST_SEEDS").map_or(5, |seeds| seeds.parse().unwrap())
}

/// A damage that is taken back once, and again; how long the run takes, in milliseconds.
fn timed(all: &mut Damaged) -> u64 {
    let started = Instant::now();
    drop(all.run().exits(0));
    let took = started.elapsed().as_millis();
    all.stands_as_before("the first");
    all.damage();
    u64::try_from(took).unwrap()
}

#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it by hand")]
#[test]
fn killed_at_any_instant() {
    let mut all = Damaged::new(Major::Pg17, "whole");
    let limit = timed(&mut all);
    let (mut before, mut back, mut ended) = (0, 0, 0);
    for seed in 1..=seeds() {
        let what = format!("seed {seed}");
        let mut run = all.start();
        let instant = Instant::now() + Duration::from_millis(rolled(seed, limit));
        until("the instant has come", || Instant::now() >= instant);
        let is_over = run.child.try_wait().unwrap().is_some();
        if !is_over {
            run.kill();
        }
        match (is_over, all.is_back(&what)) {
            (true, _) => {
                ended += 1;
                all.stands_as_before(&what);
                all.damage();
            }
            (false, true) => back += 1,
            (false, false) => before += 1,
        }
    }
    drop(all.run());
    all.stands_as_before("after all");
    eprintln!(
        "killed within {limit} ms: as before {before} times, rows back {back} times, over {ended} times"
    );
}

/// A damaged world whose runs reach the database and Storage through relays.
fn relayed() -> (Damaged, Relay, Relay) {
    let world = first_on(Major::Pg17);
    let database = Relay::to(world.address());
    let mut storage = None;
    let all = Damaged::over(world, "whole", |world, bucket| {
        let url = world.url().replace(&world.address(), &database.address);
        world.set("SUPA_SAFE_DB_URL", url);
        let inside = bucket.double.url();
        let inside = inside.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let relay = Relay::to(inside.to_owned());
        world.set("SUPA_SAFE_STORAGE_URL", bucket.double.endpoint().replace(inside, &relay.address));
        storage = Some(relay);
    });
    (all, database, storage.unwrap())
}

/// What a run that was cut off says is so: below 20 it changed nothing, and with 22 the rows are back.
#[track_caller]
pub(super) fn is_told_truly(
    all: &Damaged,
    (code, summary): &(i32, Value),
    was_back: bool,
    what: &str,
) -> bool {
    let is_back = all.is_back(what);
    match code {
        0 => all.stands_as_before(what),
        1 | 3 | 10 | 12 => {
            assert_eq!((is_back, &summary["target_touched"]), (was_back, &false.into()), "{what}: {summary}");
        }
        22 => assert_eq!((is_back, &summary["target_touched"]), (true, &true.into()), "{what}: {summary}"),
        _ => panic!("{what}: {summary}"),
    }
    is_back
}

#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it by hand")]
#[test]
fn cut_off_from_the_database_at_any_instant() {
    let (mut all, database, _storage) = relayed();
    let limit = timed(&mut all);
    let (mut is_back, mut codes) = (false, Vec::new());
    for seed in 1..=seeds() {
        let run = all.start();
        let instant = Instant::now() + Duration::from_millis(rolled(seed, limit));
        until("the instant has come", || Instant::now() >= instant);
        database.cut();
        let ended = run.ends();
        is_back = is_told_truly(&all, &ended, is_back, &format!("seed {seed}"));
        codes.push(ended.0);
        if ended.0 == 0 {
            all.damage();
            is_back = false;
        }
    }
    all.finish("after all");
    eprintln!("cut off within {limit} ms: codes {codes:?}");
}

/// The steps of the last rollback that began, as its record has them.
fn recorded_steps(world: &World) -> String {
    let records = list(&world.store().join("runs")).into_iter().rev();
    let mut records = records.map(|file| fs_err::read_to_string(file).unwrap());
    let record = records.find(|record| record.contains("rollback-begun")).unwrap();
    let lines = record.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line["type"] == "rollback-step").map(|line| {
        assert!(line["at"].is_string(), "{line}");
        let edge = if line["is_over"] == true { "end" } else { "begin" };
        let parts = &line["parts"];
        let parts =
            if parts.is_null() { String::new() } else { format!(" {}/{}", parts["done"], parts["of"]) };
        format!("{edge} {}{parts}\n", line["step"].as_str().unwrap())
    });
    steps.collect()
}

#[test]
fn cut_off_from_storage_while_bytes_go_back() {
    let (all, _database, storage) = relayed();
    let held = all.hold_upload();
    let ran = std::thread::scope(|scope| {
        let going = scope.spawn(|| all.run());
        all.until_upload_waits();
        storage.close();
        held.run("commit");
        going.join().unwrap()
    });
    assert_data_eq!(
        ran.exits(22).failure(),
        str![[r#"
error: cannot [..] at `http://127.0.0.1:[..]/storage/v1/[..]
  the rows are as in the snapshot; the objects of Storage are not yet
  what was kept first, and a text on what was done, are in [ROOT]/state/[..]
hint: Run `supa-safe rollback` again: it goes on with Storage
hint: Where these objects cannot come back, `supa-safe rollback --leave-objects` ends it without them

"#]]
    );
    assert!(all.is_back("cut off from Storage"));
    assert_data_eq!(
        recorded_steps(&all.world),
        str![[r#"
begin keep-objects
end keep-objects
begin lock
end lock
begin keep-rows
end keep-rows
begin take-back
end take-back
begin commit
end commit
begin move-objects 0/1
end move-objects 1/1
begin bring-objects 0/6
begin bring-objects 4/6
...
"#]]
    );
    let status = all.world.run(["status", "--json"]).exits(0).document();
    assert_eq!(status["unsettled_step"]["step"], "bring-objects");
    let status = all.world.run(["status"]).exits(0);
    let stopped = status.stdout.lines().find(|line| line.starts_with("rollback"));
    assert_data_eq!(
        stopped.unwrap_or_default(),
        str![
            "rollback  run [..] did not tell its rollback to the end: its record ends while objects of Storage went back, [..] of 6 done"
        ]
    );
    // Nobody can sign in there: nothing more is changed, and it can still be ended without the objects.
    drop(all.run().exits(22));
    assert!(all.is_back("still cut off"));
    storage.reopen();
    all.finish("reached again");
}
