//! A live platform: people sign up, log in, and upload, jobs run, partitions come, and the platform
//! migrates its own tables, all the while a push goes in and is taken back. What is the user's is as in
//! the snapshot afterwards, and nothing that the platform was told is lost.

use crate::rollback_rights::{CLASSIC, EXPLICIT};
use crate::world::{ADMIN, Bucket, Major, OWNER, Session, World};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use supa_safe::fingerprint::{Class, Fingerprint};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

const BEFORE: &str =
    "create table public.profiles (id uuid primary key references auth.users on delete cascade, name text);
    create function public.new_user() returns trigger language plpgsql security definer set search_path = ''
        as 'begin insert into public.profiles (id, name) values (new.id, new.email); return new; end';
    create trigger on_sign_up after insert on auth.users for each row execute function public.new_user();
    create table public.notes (id int primary key, body text);
    insert into public.notes select n, 'note ' || n from generate_series(1, 50) n;";

/// Wrong in rows, in shape, in a policy, and in Storage.
const WRONG: &str = "update public.notes set body = 'lost';
    update public.profiles set name = 'lost';
    alter table public.profiles add column more text;
    create table public.extra (id int primary key, note int references public.notes);
    create policy opened on public.notes for select to anon using (true);
    update storage.objects set name = 'lost/' || name where name like 'old/%';";

/// Between two writes of the same kind.
const PACE: Duration = Duration::from_millis(100);
/// The same of what nobody does often; a rollback takes longer.
const SELDOM: Duration = Duration::from_millis(500);

/// What the platform was told of one kind.
#[derive(Debug, Default)]
struct Acts {
    /// The numbers that were acknowledged.
    told: BTreeSet<i64>,
    /// Those that waited for a lock in vain, as those of an application do that tries again.
    late: usize,
    /// Those that were refused for another reason, which nobody tries again.
    refused: Vec<String>,
}

/// What the platform was told of every kind.
#[derive(Debug, Default)]
struct Told {
    users: Mutex<Acts>,
    logins: Mutex<Acts>,
    uploads: Mutex<Acts>,
    runs: Mutex<Acts>,
    partitions: Mutex<Acts>,
    columns: Mutex<Acts>,
}

impl Told {
    fn every_kind(&self) -> [(&'static str, MutexGuard<'_, Acts>); 6] {
        [
            ("sign-ups", &self.users),
            ("log-ins", &self.logins),
            ("uploads", &self.uploads),
            ("runs of jobs", &self.runs),
            ("partitions", &self.partitions),
            ("columns", &self.columns),
        ]
        .map(|(what, acts)| (what, acts.lock().unwrap()))
    }

    /// How many of every kind were acknowledged.
    fn counts(&self) -> [usize; 6] {
        self.every_kind().map(|(_, acts)| acts.told.len())
    }

    /// Demands that every kind went on, and that nobody was turned away.
    #[track_caller]
    fn went_on(&self, before: [usize; 6], after: [usize; 6]) {
        for ((what, acts), (before, after)) in self.every_kind().iter().zip(before.into_iter().zip(after)) {
            assert!(after > before, "no {what} while it was taken back: {before} before, {after} after it");
            assert_eq!(acts.refused, [""; 0], "{what}");
            assert!(acts.late <= acts.told.len(), "{what}: {} late, {} told", acts.late, acts.told.len());
        }
    }
}

/// A session of a role of the platform's, which is no superuser.
fn as_role(world: &World, role: &str) -> Session {
    let session = world.session(ADMIN);
    session.run(&format!("set session authorization {role}; set lock_timeout = '2s'"));
    session
}

/// Does something with one number after the other, at the pace of an application.
fn keep_on(
    over: &AtomicBool,
    (pace, acts): (Duration, &Mutex<Acts>),
    mut act: impl FnMut(i64) -> Result<(), Error>,
) {
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let outcome = act(number);
        let mut acts = acts.lock().unwrap();
        match outcome {
            Ok(()) => drop(acts.told.insert(number)),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => acts.late += 1,
            Err(error) => acts.refused.push(format!("{number}: {error:?}")),
        }
        drop(acts);
        std::thread::sleep(pace);
    }
}

fn user(number: i64) -> String {
    format!("'{number:08}-0000-4000-8000-000000000000'")
}

fn sign_up(world: &World, told: &Told, over: &AtomicBool) {
    let session = as_role(world, "supabase_auth_admin");
    keep_on(over, (PACE, &told.users), |number| {
        let id = user(number);
        let sql = format!(
            "begin; insert into auth.users (id, email) values ({id}, 'u{number}@example.com');
             insert into auth.sessions (id, user_id, created_at) values ({id}, {id}, now());
             insert into auth.refresh_tokens (token, user_id, session_id) values ('t{number}', {id}, {id}); commit"
        );
        session.try_run(&sql).map(drop).inspect_err(|_| drop(session.run("rollback")))
    });
}

fn log_in(world: &World, told: &Told, over: &AtomicBool) {
    let session = as_role(world, "supabase_auth_admin");
    keep_on(over, (PACE, &told.logins), |number| {
        let sql = format!(
            "begin; update auth.users set last_sign_in_at = '2026-01-01'::timestamptz + {number} * interval '1 s'
                 where email = 'old@example.com';
             update auth.sessions set user_agent = 'login {number}', refreshed_at = now() where tag = 'old';
             insert into auth.refresh_tokens (token) values ('login {number}'); commit"
        );
        session.try_run(&sql).map(drop).inspect_err(|_| drop(session.run("rollback")))
    });
}

fn run_jobs(world: &World, told: &Told, over: &AtomicBool) {
    let session = world.session(ADMIN);
    keep_on(over, (PACE, &told.runs), |number| {
        let sql = format!("insert into cron.job_run_details (runid, status) values ({number}, 'succeeded')");
        session.try_run(&sql).map(drop)
    });
}

fn make_partitions(world: &World, told: &Told, over: &AtomicBool) {
    let session = as_role(world, "supabase_realtime_admin");
    keep_on(over, (SELDOM, &told.partitions), |number| {
        let sql = format!(
            "begin; create table realtime.messages_far_{number} partition of realtime.messages
                 for values from (timestamp '2100-01-01' + {number} * interval '1 day')
                 to (timestamp '2100-01-02' + {number} * interval '1 day');
             insert into realtime.messages (topic, extension, inserted_at)
                 values ('{number}', 'broadcast', timestamp '2100-01-01' + {number} * interval '1 day'); commit"
        );
        session.try_run(&sql).map(drop).inspect_err(|_| drop(session.run("rollback")))
    });
}

/// A release of the platform adds columns to its own tables.
fn migrate_platform(world: &World, told: &Told, over: &AtomicBool) {
    let session = as_role(world, "supabase_auth_admin");
    keep_on(over, (SELDOM, &told.columns), |number| {
        let sql = format!("alter table auth.users add column platform_{number} text default 'x'");
        session.try_run(&sql).map(drop)
    });
}

fn upload(bucket: &Bucket, told: &Told, over: &AtomicBool) {
    keep_on(over, (PACE, &told.uploads), |number| {
        bucket.put("photos", &format!("new/{number}"), format!("upload {number}").as_bytes());
        Ok(())
    });
}

/// Pushes and takes the push back meanwhile. The platform's release comes once the push is in: whoever
/// waits for an exclusive lock ends a dump with several workers, and that is no matter of the way back.
fn while_it_lives<T>(
    world: &World,
    bucket: &Bucket,
    push: impl FnOnce(),
    take_back: impl FnOnce() -> T,
) -> (T, Told) {
    let (told, over) = (Told::default(), AtomicBool::new(false));
    let (done, before, after) = std::thread::scope(|scope| {
        let (told, over) = (&told, &over);
        for act in [sign_up, log_in, run_jobs, make_partitions] {
            scope.spawn(move || act(world, told, over));
        }
        scope.spawn(move || upload(bucket, told, over));
        let work = || {
            push();
            scope.spawn(move || migrate_platform(world, told, over));
            let before = told.counts();
            let done = take_back();
            (done, before, told.counts())
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    told.went_on(before, after);
    (done, told)
}

/// The numbers that a query finds.
fn found(world: &World, sql: &str) -> BTreeSet<i64> {
    world.sql(ADMIN, sql).iter().map(|row| row.parse().unwrap()).collect()
}

#[track_caller]
fn holds(what: &str, acts: Mutex<Acts>, now: &BTreeSet<i64>) {
    let told = acts.into_inner().unwrap().told;
    let lost: Vec<_> = told.difference(now).collect();
    assert!(lost.is_empty(), "{} of {} {what} are lost: {lost:?}", lost.len(), told.len());
}

/// The rows of the project and of its buckets, but for those of new accounts and uploads.
fn owned_rows(world: &World) -> Vec<String> {
    let all = [
        ("public.notes", "true"),
        ("public.profiles", "id = 'ffffffff-0000-4000-8000-000000000000'"),
        ("storage.objects", "name not like 'new/%'"),
        ("storage.buckets", "true"),
    ];
    let measured = all.map(|(table, which)| {
        format!(
            "select '{table}', count(*), md5(string_agg((t.*)::text, ' ' order by (t.*)::text collate \"C\"))
            from {table} t where {which}"
        )
    });
    world.sql(ADMIN, &measured.join(" union all "))
}

fn the_platform_goes_on(major: Major, privileges: &str, mode: &str) {
    let mut world = World::hosted_of(major, &[("20260101000000_wrong", WRONG)]);
    let bucket = world.bucket(&["photos"]);
    world.sql(OWNER, privileges);
    world.sql(OWNER, BEFORE);
    world.sql(
        ADMIN,
        "create extension if not exists pg_cron;
         insert into auth.users (id, email) values ('ffffffff-0000-4000-8000-000000000000', 'old@example.com');
         insert into auth.sessions (id, user_id, tag) select id, id, 'old' from auth.users",
    );
    bucket.put("photos", "old/a", b"old a");
    let before = owned_rows(&world);
    let push = || drop(world.migrate(&[]).exits(0));
    let take_back = ["rollback", "--mode", mode, "--confirm", &world.target(), "--json"];
    let (ran, told) = while_it_lives(&world, &bucket, push, || world.run(take_back).exits(0));
    assert_eq!(ran.summary()["rolled_back"]["mode"], mode);
    assert_eq!(ran.summary()["rolled_back"]["storage"]["left"], serde_json::json!([]));

    let recorded = fs_err::read_to_string(world.snapshot().database_file("fingerprint.tsv")).unwrap();
    let recorded = Fingerprint::from_text(&recorded).unwrap();
    let differences = world.fingerprint().differences(&recorded, Class::Owned);
    assert!(differences.is_empty(), "{differences:?}");
    assert_eq!(owned_rows(&world), before);
    assert_eq!(bucket.get("photos", "old/a"), b"old a");

    let users = "select left(u.id::text, 8)::int from auth.users u join auth.sessions s on s.user_id = u.id
        join auth.refresh_tokens t on t.session_id = s.id join public.profiles p on p.id = u.id
        where u.email like 'u%'";
    holds("sign-ups", told.users, &found(&world, users));
    let logins = "select substr(token, 7)::int from auth.refresh_tokens where token like 'login %'";
    let last = *told.logins.lock().unwrap().told.last().unwrap();
    assert_eq!(
        world.sql(ADMIN, "select user_agent from auth.sessions where tag = 'old'"),
        [format!("login {last}")]
    );
    let signed_in = "select extract(epoch from last_sign_in_at - '2026-01-01')::bigint from auth.users
        where email = 'old@example.com'";
    assert_eq!(world.sql(ADMIN, signed_in), [last.to_string()]);
    holds("log-ins", told.logins, &found(&world, logins));
    holds("runs of jobs", told.runs, &found(&world, "select runid from cron.job_run_details"));
    let messages = "select topic::int from realtime.messages where inserted_at > '2099-01-01'";
    holds("partitions", told.partitions, &found(&world, messages));
    let columns = "select substr(attname, 10)::int from pg_attribute
        where attrelid = 'auth.users'::regclass and attname like 'platform\\_%' and not attisdropped";
    holds("columns", told.columns, &found(&world, columns));
    for number in &told.uploads.lock().unwrap().told {
        assert_eq!(bucket.get("photos", &format!("new/{number}")), format!("upload {number}").into_bytes());
    }
    let uploads = "select substr(name, 5)::int from storage.objects where name like 'new/%'";
    holds("uploads", told.uploads, &found(&world, uploads));
}

#[test]
fn the_platform_goes_on_when_what_was_touched_goes_back_on_15() {
    the_platform_goes_on(Major::Pg15, CLASSIC, "touched");
}

#[test]
fn the_platform_goes_on_when_what_was_touched_goes_back_on_17() {
    the_platform_goes_on(Major::Pg17, CLASSIC, "touched");
}

#[test]
fn the_platform_goes_on_when_everything_goes_back_on_15() {
    the_platform_goes_on(Major::Pg15, EXPLICIT, "whole");
}

#[test]
fn the_platform_goes_on_when_everything_goes_back_on_17() {
    the_platform_goes_on(Major::Pg17, CLASSIC, "whole");
}
