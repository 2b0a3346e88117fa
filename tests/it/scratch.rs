//! The throwaway server: it starts, it is inert, and nothing is left of it whoever is killed.

use fs_err as fs;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use supa_safe::disk;
use supa_safe::proc::{self, Signal};
use supa_safe::scratch::{self, Engine, Error, Scratch, Wanted};
use supa_safe::target::Connection;
use supa_safe::tools::installs::{self, Installation, Search};
use tempfile::TempDir;

/// Set for the process that [`hold_until_killed`] is to be.
const HOLD: &str = "SUPA_SAFE_TEST_HOLD";

/// How long an event is awaited: longer than a busy machine needs.
const LIMIT: Duration = Duration::from_mins(1);

fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

/// A folder with a name that careless quoting would spoil, open for the user of the server to pass.
struct Base {
    path: PathBuf,
    _temp: TempDir,
}

impl Base {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(temp.path()).unwrap().join(format!("it's a \"{}\"", "long ".repeat(40)));
        fs::create_dir(&path).unwrap();
        for dir in [temp.path(), &path] {
            fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        }
        Self { path, _temp: temp }
    }

    fn folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap());
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect()
    }

    /// Every process whose command line names the folder: keeper, initdb, server.
    fn processes(&self) -> Vec<u32> {
        let name = self.path.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let line = fs::read(entry.path().join("cmdline")).ok()?;
                String::from_utf8_lossy(&line).contains(name).then_some(pid)
            })
            .collect()
    }

    fn assert_nothing_left(&self) {
        assert_eq!((self.folders(), self.processes()), (Vec::new(), Vec::new()));
    }

    fn until_nothing_is_left(&self) {
        until("nothing is left", || self.folders().is_empty() && self.processes().is_empty());
    }

    async fn wanted(&self, bin: &str) -> Wanted {
        let search = Search { explicit: vec![told(bin).into()], ..Search::default() };
        let installation = installs::installations(&search).await.swap_remove(0);
        self.wanted_of(installation)
    }

    fn wanted_of(&self, installation: Installation) -> Wanted {
        Wanted {
            engine: Engine::Local(installation),
            superuser: "supabase_admin".to_owned(),
            max_connections: 37,
            max_locks_per_transaction: 71,
            keeper: env!("CARGO_BIN_EXE_supa-safe").into(),
            base_dir: self.path.clone(),
            run_as: scratch::unprivileged_user(),
        }
    }
}

/// The programs of this machine that a scratch is to run on.
fn programs(wanted: &Wanted) -> &Installation {
    let Engine::Local(installation) = &wanted.engine else { panic!("a container") };
    installation
}

/// Waits for an event.
pub(crate) fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !happened() {
        assert!(Instant::now() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn keeper_pid(scratch: &Scratch) -> u32 {
    fs::read_to_string(scratch.dir().join("keeper.lock")).unwrap().parse().unwrap()
}

fn server_pid(scratch: &Scratch) -> u32 {
    let text = fs::read_to_string(scratch.dir().join("data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn is_root() -> bool {
    scratch::unprivileged_user().is_some()
}

async fn sign_in(connection: &Connection) -> tokio_postgres::Client {
    let (client, session) = tokio_postgres::Config::new()
        .host(&connection.host)
        .port(connection.port)
        .user(&connection.user)
        .password(connection.password.as_ref().unwrap().expose())
        .dbname(&connection.database)
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(session);
    client
}

/// The first column of each row, through a session of its own.
async fn ask(connection: &Connection, sql: &str) -> Vec<String> {
    let rows = sign_in(connection).await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Keeps the server busy with a statement that does not end, in a session that stays.
async fn keep_busy(scratch: &Scratch) {
    const ENDLESS: &str = "select count(*) from generate_series(1, 1000000000000)";
    let connection = scratch.superuser_connection("postgres");
    let client = sign_in(&connection).await;
    tokio::spawn(async move { client.batch_execute(ENDLESS).await });
    let running = format!("select 'x' from pg_stat_activity where query = '{ENDLESS}' and state = 'active'");
    let limit = Instant::now() + LIMIT;
    while ask(&connection, &running).await.is_empty() {
        assert!(Instant::now() < limit, "the statement does not run");
    }
}

/// The System V segments that a process has made.
fn shared_memory_of(pid: u32) -> usize {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let makers = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4)?.parse().ok());
    makers.filter(|maker: &u32| *maker == pid).count()
}

async fn starts_and_leaves_nothing(bin: &str, major: &str) {
    let base = Base::new();
    let scratch = scratch::start(base.wanted(bin).await).await.unwrap();
    let settings = ask(
        &scratch.superuser_connection("postgres"),
        "select current_setting(name) from unnest(array['server_version_num', 'listen_addresses',
           'unix_socket_directories', 'max_connections', 'max_locks_per_transaction', 'fsync', 'wal_level',
           'shared_preload_libraries', 'TimeZone', 'server_encoding', 'password_encryption']) name
         union all select datcollate || ' ' || rolname from pg_database, pg_roles
         where datname = 'postgres' and pg_roles.oid = 10",
    )
    .await;
    let [version, rest @ ..] = settings.as_slice() else { panic!("{settings:?}") };
    assert_eq!(version.get(..2), Some(major));
    let expected = ["127.0.0.1", "", "37", "71", "off", "minimal", "", "UTC", "UTF8", "scram-sha-256"];
    assert_eq!(rest, [expected.as_slice(), &["C.UTF-8 supabase_admin"]].concat());

    let names: Vec<_> = disk::files_below(scratch.dir()).unwrap();
    let mut outside_data: Vec<_> = names.iter().filter(|name| !name.starts_with("data")).collect();
    outside_data.sort();
    assert_eq!(outside_data, ["keeper.lock", "server.log"].map(Path::new));

    let server = server_pid(&scratch);
    assert_eq!(shared_memory_of(server), 1);
    scratch.stop().await.unwrap();
    base.assert_nothing_left();
    assert_eq!(shared_memory_of(server), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_15_leaves_nothing() {
    starts_and_leaves_nothing("SUPA_SAFE_TEST_PG15_BIN", "15").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_17_leaves_nothing() {
    starts_and_leaves_nothing("SUPA_SAFE_TEST_PG17_BIN", "17").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_scratch_leaves_nothing() {
    let base = Base::new();
    let scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    keep_busy(&scratch).await;
    drop(scratch);
    base.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_have_two_ports() {
    let base = Base::new();
    let wanted = base.wanted("SUPA_SAFE_TEST_PG17_BIN").await;
    let (one, two) = tokio::join!(scratch::start(wanted.clone()), scratch::start(wanted));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.port(), two.port());
    for scratch in [&one, &two] {
        let data =
            ask(&scratch.superuser_connection("postgres"), "select current_setting('data_directory')").await;
        assert_eq!(data, [scratch.dir().join("data").to_str().unwrap()]);
    }
    let (one, two) = tokio::join!(one.stop(), two.stop());
    one.unwrap();
    two.unwrap();
    base.assert_nothing_left();
}

/// Not a test by itself: the process that the two below kill.
#[tokio::test(flavor = "multi_thread")]
async fn hold_until_killed() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let path = PathBuf::from(told(HOLD));
    let base = Base { path: path.clone(), _temp: tempfile::tempdir().unwrap() };
    let scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    keep_busy(&scratch).await;
    disk::write(&path.join("held"), b"").unwrap();
    std::future::pending::<()>().await;
    drop(scratch);
}

/// Kills a starter as soon as something has happened in its folder.
fn kill_starter_when(happened: impl Fn(&Base) -> bool) {
    let base = Base::new();
    let mut starter = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scratch::hold_until_killed"])
        .env(HOLD, &base.path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("the starter came so far", || {
        assert_eq!(starter.try_wait().unwrap(), None);
        happened(&base)
    });
    starter.kill().unwrap();
    starter.wait().unwrap();
    base.until_nothing_is_left();
}

#[test]
fn a_starter_killed_while_it_uses_the_server_leaves_nothing() {
    kill_starter_when(|base| base.path.join("held").exists());
}

#[test]
fn a_starter_killed_during_initdb_leaves_nothing() {
    kill_starter_when(|base| base.folders().iter().any(|dir| dir.join("data/PG_VERSION").exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_killed_keeper_the_sweep_cleans_up() {
    let base = Base::new();
    let mut scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    let server = server_pid(&scratch);
    keep_busy(&scratch).await;
    assert!(scratch::sweep(&base.path, &BTreeMap::new()).await.is_empty());
    ask(&scratch.superuser_connection("postgres"), "select 'still there'").await;

    proc::signal(keeper_pid(&scratch), Signal::KILL).unwrap();
    assert_eq!(
        scratch.ended().await.to_string(),
        "the keeper of the scratch was ended by signal 9 without a report"
    );
    assert!(base.processes().contains(&server));
    let swept = scratch::sweep(&base.path, &BTreeMap::new()).await;
    let [one] = swept.as_slice() else { panic!("{swept:?}") };
    assert_eq!(one.dir, scratch.dir());
    assert!(matches!(one.outcome, Ok(processes) if processes > 1), "{one:?}");
    base.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_killed_keeper_the_starter_cleans_up() {
    let base = Base::new();
    let scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    proc::signal(keeper_pid(&scratch), Signal::KILL).unwrap();
    let error = scratch.stop().await.unwrap_err();
    assert_eq!(error.to_string(), "the keeper of the scratch was ended by signal 9 without a report");
    base.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_reported_with_its_last_words() {
    let base = Base::new();
    let mut scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    proc::signal(server_pid(&scratch), Signal::INT).unwrap();
    let said = scratch.ended().await.to_string();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.first(), Some(&"the scratch server ended by itself: it exited with code 0"));
    assert_eq!(lines.last().unwrap().split_once("LOG:  ").unwrap().1, "database system is shut down");
    base.assert_nothing_left();
    assert_eq!(scratch.stop().await.unwrap_err().to_string(), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_is_reported_with_the_reason() {
    let base = Base::new();
    let wanted = Wanted { max_connections: 0, ..base.wanted("SUPA_SAFE_TEST_PG17_BIN").await };
    let said = scratch::start(wanted).await.unwrap_err().to_string();
    let lines: Vec<&str> = said.lines().collect();
    let [first, reason] = lines.as_slice() else { panic!("{said}") };
    assert_eq!(*first, "the scratch server did not start: it exited with code 1");
    let reason = reason.split_once("FATAL:  ").unwrap().1;
    assert_eq!(reason, "0 is outside the valid range for parameter \"max_connections\" (1 .. 262143)");
    base.assert_nothing_left();
}

/// The real programs, but the first start of the server gets a port that is in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_was_taken_meanwhile_is_given_up() {
    let base = Base::new();
    let wanted = base.wanted("SUPA_SAFE_TEST_PG17_BIN").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let real = programs(&wanted).bin_dir.clone();
    let bin_dir = base.path.parent().unwrap().join("bin");
    fs::create_dir(&bin_dir).unwrap();
    symlink(real.join("initdb"), bin_dir.join("initdb")).unwrap();
    let script = format!(
        "#!/bin/sh\nif mkdir data/first; then set -- \"$@\" -c port={}; fi\nexec {} \"$@\"\n",
        taken.local_addr().unwrap().port(),
        proc::shell_word(real.join("postgres").to_str().unwrap())
    );
    disk::write(&bin_dir.join("postgres"), script.as_bytes()).unwrap();
    for path in [bin_dir.clone(), bin_dir.join("postgres")] {
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let installation = Installation { bin_dir, ..programs(&wanted).clone() };
    let scratch = scratch::start(base.wanted_of(installation)).await.unwrap();
    assert!(scratch.dir().join("data/first").exists());
    assert_ne!(scratch.port(), taken.local_addr().unwrap().port());
    scratch.stop().await.unwrap();
    base.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_scratch_runs_until_its_keeper_is_asked_to_end() {
    let base = Base::new();
    let scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    let kept = scratch.keep().unwrap();
    assert!(scratch::sweep(&base.path, &BTreeMap::new()).await.is_empty());
    ask(&kept.connection, "select 'still there'").await;
    proc::signal(kept.keeper_pid, Signal::TERM).unwrap();
    base.until_nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_root_the_server_is_an_ordinary_user() {
    let Some(user) = scratch::unprivileged_user() else { return };
    let base = Base::new();
    let scratch = scratch::start(base.wanted("SUPA_SAFE_TEST_PG17_BIN").await).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", server_pid(&scratch))).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(field("Uid:"), [user.uid; 4]);
    assert_eq!(field("Gid:"), [user.gid; 4]);
    assert_eq!(field("Groups:"), Vec::<u32>::new());
    scratch.stop().await.unwrap();

    let wanted = Wanted { run_as: None, ..base.wanted("SUPA_SAFE_TEST_PG17_BIN").await };
    assert!(matches!(scratch::start(wanted).await, Err(Error::NoUser)));
    base.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_root_a_closed_folder_is_named() {
    if !is_root() {
        return;
    }
    let base = Base::new();
    let wanted = base.wanted("SUPA_SAFE_TEST_PG17_BIN").await;
    let closed = base.path.parent().unwrap().join("closed");
    fs::create_dir_all(closed.join("bin")).unwrap();
    symlink(programs(&wanted).program("initdb"), closed.join("bin/initdb")).unwrap();
    fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let user = scratch::unprivileged_user().unwrap().name;

    let installation = Installation { bin_dir: closed.join("bin"), ..programs(&wanted).clone() };
    let error =
        scratch::start(Wanted { engine: Engine::Local(installation), ..wanted.clone() }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "user `{user}` cannot enter `{0}`, on the way to the Postgres programs in `{0}/bin`",
            closed.display()
        )
    );

    let error = scratch::start(Wanted { base_dir: closed.join("bin"), ..wanted }).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "user `{user}` cannot enter `{0}`, on the way to the folder for scratches `{0}/bin`",
            closed.display()
        )
    );
    base.assert_nothing_left();
}
