//! A live platform: people sign up, log in, and upload, jobs run, partitions come, and the platform
//! migrates its own tables, all the while a push goes in and is taken back. What is the user's is as in
//! the snapshot afterwards, and nothing that the platform was told is lost.

use crate::world::{ADMIN, Bucket, OWNER, Session, World};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use supa_safe::fingerprint::{Class, Fingerprint};

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
/// The same of what nobody does often.
const SELDOM: Duration = Duration::from_secs(2);

/// What the platform was told, and acknowledged.
#[derive(Debug, Default)]
struct Told {
    users: Mutex<BTreeSet<i64>>,
    logins: Mutex<BTreeSet<i64>>,
    uploads: Mutex<BTreeSet<i64>>,
    runs: Mutex<BTreeSet<i64>>,
    partitions: Mutex<BTreeSet<i64>>,
    columns: Mutex<BTreeSet<i64>>,
}

/// A session of a role of the platform's, which is no superuser.
fn as_role(world: &World, role: &str) -> Session {
    let session = world.session(ADMIN);
    session.run(&format!("set session authorization {role}; set lock_timeout = '2s'"));
    session
}

/// Does something with one number after the other, at the pace of an application; a number counts when
/// nobody refused.
fn keep_on<E>(
    over: &AtomicBool,
    (pace, done): (Duration, &Mutex<BTreeSet<i64>>),
    mut act: impl FnMut(i64) -> Result<(), E>,
) {
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        if act(number).is_ok() {
            done.lock().unwrap().insert(number);
        }
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
            "update auth.sessions set user_agent = 'login {number}', refreshed_at = now() where tag = 'old';
             insert into auth.refresh_tokens (token) values ('login {number}')"
        );
        session.try_run(&sql).map(drop)
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
        Ok::<(), ()>(())
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
    let done = std::thread::scope(|scope| {
        let (told, over) = (&told, &over);
        for act in [sign_up, log_in, run_jobs, make_partitions] {
            scope.spawn(move || act(world, told, over));
        }
        scope.spawn(move || upload(bucket, told, over));
        let work = || {
            push();
            scope.spawn(move || migrate_platform(world, told, over));
            take_back()
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    (done, told)
}

/// The numbers that a query finds.
fn found(world: &World, sql: &str) -> BTreeSet<i64> {
    world.sql(ADMIN, sql).iter().map(|row| row.parse().unwrap()).collect()
}

#[track_caller]
fn holds(what: &str, told: Mutex<BTreeSet<i64>>, now: &BTreeSet<i64>) {
    let told = told.into_inner().unwrap();
    let lost: Vec<_> = told.difference(now).collect();
    assert!(lost.is_empty(), "{} of {} {what} are lost: {lost:?}", lost.len(), told.len());
    assert!(!told.is_empty(), "there were no {what}");
}

fn the_platform_goes_on(mode: &str) {
    let mut world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    let bucket = world.bucket(&["photos"]);
    world.sql(OWNER, BEFORE);
    world.sql(
        ADMIN,
        "create extension if not exists pg_cron;
         insert into auth.users (id, email) values ('ffffffff-0000-4000-8000-000000000000', 'old@example.com');
         insert into auth.sessions (id, user_id, tag) select id, id, 'old' from auth.users",
    );
    bucket.put("photos", "old/a", b"old a");
    let push = || drop(world.migrate(&[]).exits(0));
    let take_back = ["rollback", "--mode", mode, "--confirm", &world.target(), "--json"];
    let (ran, told) = while_it_lives(&world, &bucket, push, || world.run(take_back).exits(0));
    assert_eq!(ran.summary()["rolled_back"]["mode"], mode);
    assert_eq!(ran.summary()["rolled_back"]["storage"]["left"], serde_json::json!([]));

    let recorded = fs_err::read_to_string(world.snapshot().database_file("fingerprint.tsv")).unwrap();
    let recorded = Fingerprint::from_text(&recorded).unwrap();
    let differences = world.fingerprint().differences(&recorded, Class::Owned);
    assert!(differences.is_empty(), "{differences:?}");
    let notes = "select count(*) from public.notes where body = 'note ' || id";
    assert_eq!(world.sql(OWNER, notes), ["50"]);
    assert_eq!(bucket.get("photos", "old/a"), b"old a");

    let users = "select left(u.id::text, 8)::int from auth.users u join auth.sessions s on s.user_id = u.id
        join auth.refresh_tokens t on t.session_id = s.id join public.profiles p on p.id = u.id
        where u.email like 'u%'";
    holds("sign-ups", told.users, &found(&world, users));
    let logins = "select substr(token, 7)::int from auth.refresh_tokens where token like 'login %'";
    let last = *told.logins.lock().unwrap().last().unwrap();
    assert_eq!(
        world.sql(ADMIN, "select user_agent from auth.sessions where tag = 'old'"),
        [format!("login {last}")]
    );
    holds("log-ins", told.logins, &found(&world, logins));
    holds("runs of jobs", told.runs, &found(&world, "select runid from cron.job_run_details"));
    let messages = "select topic::int from realtime.messages where inserted_at > '2099-01-01'";
    holds("partitions", told.partitions, &found(&world, messages));
    let columns = "select substr(attname, 10)::int from pg_attribute
        where attrelid = 'auth.users'::regclass and attname like 'platform\\_%' and not attisdropped";
    holds("columns", told.columns, &found(&world, columns));
    for number in told.uploads.lock().unwrap().iter() {
        assert_eq!(bucket.get("photos", &format!("new/{number}")), format!("upload {number}").into_bytes());
    }
    let uploads = "select substr(name, 5)::int from storage.objects where name like 'new/%'";
    holds("uploads", told.uploads, &found(&world, uploads));
}

#[test]
fn the_platform_goes_on_when_what_was_touched_goes_back() {
    the_platform_goes_on("touched");
}

#[test]
fn the_platform_goes_on_when_everything_goes_back() {
    the_platform_goes_on("whole");
}
