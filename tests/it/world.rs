//! A world of its own for each test: folders, environment, project, and database, around the real
//! program. Nothing of the developer's machine gets in but the programs that `tests/run` names.

mod bucket;
mod containers;
mod evidence;
mod linked;
mod platform;
mod ran;
mod session;
mod staging;
mod state;
mod weed;

pub(crate) use bucket::Bucket;
pub(crate) use containers::{IMAGE, Registry, podman};
pub(crate) use linked::{LOGIN_PASSWORD, Linked, Open, TEMPORARY};
pub(crate) use platform::{Platform, REF_15, REF_17};
pub(crate) use ran::Ran;
pub(crate) use session::{Listener, Session};
pub(crate) use staging::Staging;
pub(crate) use state::same;
pub(crate) use weed::Weed;

use fs_err as fs;
use serde_json::Value;
use session::Place;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use supa_safe::disk;
use supa_safe::fingerprint::Fingerprint;
use supa_safe::postgres::{catalog, rows};
use supa_safe::scratch::{self, Engine, Scratch, Wanted};
use supa_safe::tools::installs::{self, Search};
use supa_safe::tools::supabase;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const HOSTED_ROLES: &str = include_str!("../../src/demo/hosted/roles.sql");
const HOSTED_PLATFORM: &str = include_str!("../../src/demo/hosted/platform.sql");
/// The bootstrap role of every server here, as on the platform.
pub(crate) const ADMIN: &str = "supabase_admin";
/// The role of the project's owner, whom the program signs in as.
pub(crate) const OWNER: &str = "postgres";

/// What `tests/run` tells.
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

/// Major versions of Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Major {
    Pg15,
    Pg17,
}

impl Major {
    fn address(self) -> (String, u16) {
        let told = told(match self {
            Self::Pg15 => "SUPA_SAFE_TEST_PG15",
            Self::Pg17 => "SUPA_SAFE_TEST_PG17",
        });
        let (host, port) = told.rsplit_once(':').unwrap();
        (host.to_owned(), port.parse().unwrap())
    }

    /// The programs as a user has them.
    fn programs(self) -> String {
        told(match self {
            Self::Pg15 => "SUPA_SAFE_TEST_PG15_BIN",
            Self::Pg17 => "SUPA_SAFE_TEST_PG17_BIN",
        })
    }

    /// The programs of a server with the platform's extensions.
    fn hosted_programs(self) -> String {
        told(match self {
            Self::Pg15 => "SUPA_SAFE_TEST_PG15_HOSTED_BIN",
            Self::Pg17 => "SUPA_SAFE_TEST_PG17_HOSTED_BIN",
        })
    }
}

/// Versions of the real Supabase CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cli {
    V2,
    V3,
}

impl Cli {
    fn program(self) -> String {
        told(match self {
            Self::V2 => "SUPA_SAFE_TEST_CLI2",
            Self::V3 => "SUPA_SAFE_TEST_CLI3",
        })
    }
}

/// What a database begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Template {
    /// A fresh project of the platform.
    Hosted,
    /// The sample shop with its rows, the first four migrations applied.
    Shop,
}

impl Template {
    fn name(self) -> &'static str {
        match self {
            Self::Hosted => "hosted",
            Self::Shop => "shop",
        }
    }
}

/// A server of a test's own, for tests that make or alter roles.
struct OwnServer {
    scratch: Option<Scratch>,
    runtime: Runtime,
}

impl OwnServer {
    fn start(major: Major, base_dir: &Path, settings: &[&str], password: &str) -> (Self, Place) {
        let runtime = Runtime::new().unwrap();
        let scratch = runtime.block_on(async {
            let search = Search { explicit: vec![major.hosted_programs().into()], ..Search::default() };
            let mut installation = installs::installations(&search).await.swap_remove(0);
            installation.bin_dir = with_movable_clock(&installation.bin_dir, base_dir, settings);
            let wanted = Wanted {
                engine: Engine::Local(installation),
                superuser: ADMIN.to_owned(),
                max_connections: 30,
                max_locks_per_transaction: 64,
                keeper: env!("CARGO_BIN_EXE_supa-safe").into(),
                base_dir: base_dir.to_owned(),
                run_as: scratch::unprivileged_user(),
            };
            scratch::start(wanted).await.unwrap()
        });
        let first = scratch.superuser_connection("postgres");
        let own_password = first.password.as_ref().unwrap().expose().to_owned();
        let mut place =
            Place { host: first.host, port: first.port, password: own_password, database: first.database };
        let admin = place.session(ADMIN);
        admin.run(HOSTED_ROLES);
        let quoted = password.replace('\'', "''");
        admin.run(&format!("alter role {ADMIN} password '{quoted}'; alter role {OWNER} password '{quoted}'"));
        admin.run("create database hosted owner postgres template template0");
        password.clone_into(&mut place.password);
        "hosted".clone_into(&mut place.database);
        place.session(ADMIN).run(HOSTED_PLATFORM);
        admin.run("alter database hosted is_template true allow_connections false");
        (Self { scratch: Some(scratch), runtime }, place)
    }
}

/// Programs that run the real ones, the server by the clock that the file `clock` beside them says, and with
/// settings of its own.
fn with_movable_clock(bin_dir: &Path, base_dir: &Path, settings: &[&str]) -> PathBuf {
    let dir = base_dir.join("bin");
    fs::create_dir(&dir).unwrap();
    let clock = dir.join("clock");
    let by_clock = format!(
        "export LD_PRELOAD='{}' FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1",
        told("SUPA_SAFE_TEST_FAKETIME"),
        clock.display()
    );
    // The last word counts; what `initdb` starts takes none.
    let settings: Vec<String> = settings.iter().map(|setting| format!(" -c '{setting}'")).collect();
    let settings = settings.concat();
    let by_clock = format!("{by_clock}\ncase $1 in -D) set -- \"$@\"{settings};; esac");
    for (name, before) in [("initdb", ":"), ("postgres", by_clock.as_str())] {
        script(&dir.join(name), &format!("{before}\nexec '{}' \"$@\"", bin_dir.join(name).display()));
    }
    disk::write(&clock, b"+0").unwrap();
    for path in [&dir, &clock] {
        fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

/// Writes a shell script that everybody may run.
pub(crate) fn script(path: &Path, text: &str) {
    disk::write(path, format!("#!/bin/sh\n{text}\n").as_bytes()).unwrap();
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let stopped = self.scratch.take().map(|scratch| self.runtime.block_on(scratch.stop()));
        if !std::thread::panicking() {
            stopped.unwrap().unwrap();
        }
    }
}

/// Everything that one test has to itself.
pub(crate) struct World {
    major: Major,
    temp: TempDir,
    root: PathBuf,
    place: Option<Place>,
    env: Vec<(String, OsString)>,
    own_server: Option<(OwnServer, Place)>,
}

impl World {
    /// Folders and an environment; no project and no database yet.
    pub(crate) fn new(major: Major, cli: Cli) -> Self {
        // The server of a rehearsal is another user when we are root, and must get through.
        let temp = tempfile::Builder::new().prefix("world-").tempdir_in("/tmp").unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        for dir in ["", "home", "tmp", "app", "app/supabase"] {
            let path = root.join(dir);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, std::fs::Permissions::from_mode(0o711)).unwrap();
        }
        let node = which("node");
        let path = format!("{}:/usr/bin:/bin", node.parent().unwrap().display());
        let mut world = Self { major, temp, root, place: None, env: Vec::new(), own_server: None };
        for (name, dir) in [("HOME", "home"), ("TMPDIR", "tmp"), ("SUPA_SAFE_STATE_DIR", "state")] {
            let path = world.path(dir);
            world.set(name, path);
        }
        world.set("PATH", path);
        world.set("LANG", "C.UTF-8");
        world.set("TZ", "Asia/Kathmandu");
        world.set("PGPASSWORD", told("SUPA_SAFE_TEST_PASSWORD"));
        world.set("SUPA_SAFE_PG_BIN", major.programs());
        world.set("SUPA_SAFE_REHEARSE_ENGINE", "local");
        world.set("SUPA_SAFE_SUPABASE_BIN", cli.program());
        world.set("SUPABASE_TELEMETRY_DISABLED", "1");
        world
    }

    /// The sample shop, its project and its rows, on Postgres 17 with CLI 3.
    pub(crate) fn shop() -> Self {
        Self::new(Major::Pg17, Cli::V3).with_sample_project().with_database(Template::Shop)
    }

    /// A fresh hosted database and a project of these migrations, on Postgres 17 with CLI 3.
    pub(crate) fn hosted(migrations: &[(&str, &str)]) -> Self {
        Self::hosted_of(Major::Pg17, migrations)
    }

    /// The same, on another major version.
    pub(crate) fn hosted_of(major: Major, migrations: &[(&str, &str)]) -> Self {
        Self::new(major, Cli::V3).with_database(Template::Hosted).with_project(migrations)
    }

    /// Like [`World::hosted`], on a server of its own: roles belong to a whole server.
    pub(crate) fn own_server(migrations: &[(&str, &str)]) -> Self {
        Self::own_server_of(Major::Pg17, migrations)
    }

    /// The same, of a major version.
    pub(crate) fn own_server_of(major: Major, migrations: &[(&str, &str)]) -> Self {
        Self::own_server_set(major, &[], migrations)
    }

    /// The same, with settings of its own, each as `name=value`.
    pub(crate) fn own_server_set(major: Major, settings: &[&str], migrations: &[(&str, &str)]) -> Self {
        let mut world = Self::new(major, Cli::V3);
        let dir = world.path("server");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        world.own_server =
            Some(OwnServer::start(world.major, &dir, settings, &told("SUPA_SAFE_TEST_PASSWORD")));
        world.with_database(Template::Hosted).with_project(migrations)
    }

    fn with_project(self, migrations: &[(&str, &str)]) -> Self {
        self.write("supabase/config.toml", "project_id = \"test\"\n\n[db]\nmajor_version = 17\n");
        for (name, sql) in migrations {
            self.migration(name, sql);
        }
        self
    }

    /// Moves the clock of this world's own server, such as by `+1h`.
    pub(crate) fn server_clock(&self, offset: &str) {
        use std::io::Write as _;
        // In place: the server reads it at every look at the clock.
        let path = self.path("server/bin/clock");
        let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).unwrap();
        file.write_all(offset.as_bytes()).unwrap();
    }

    /// Copies the sample project.
    pub(crate) fn with_sample_project(self) -> Self {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("supabase"), &self.path("app/supabase"));
        self
    }

    /// Makes a database.
    pub(crate) fn with_database(mut self, template: Template) -> Self {
        self.database(template);
        self
    }

    /// Makes a database from a template and lets the environment name it.
    pub(crate) fn database(&mut self, template: Template) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = format!("t_{}_{count}", std::process::id());
        let server = self.server();
        make_database(&server, &database, template);
        let place = Place { database, ..server };
        self.set("SUPA_SAFE_DB_URL", place_url(&place));
        self.place = Some(place);
    }

    /// Drops the database and makes an empty one of the same name, as a careless reset does.
    pub(crate) fn recreate_database(&self) {
        let name = self.database_name();
        self.server().session(ADMIN).run(&format!("drop database {name} with (force)"));
        make_database(&self.server(), name, Template::Hosted);
    }

    /// The server's maintenance database.
    fn server(&self) -> Place {
        let place = self.own_server.as_ref().map_or_else(
            || {
                let (host, port) = self.major.address();
                let password = told("SUPA_SAFE_TEST_PASSWORD");
                Place { host, port, password, database: String::new() }
            },
            |(_, place)| place.clone(),
        );
        Place { database: "postgres".to_owned(), ..place }
    }

    fn place(&self) -> &Place {
        self.place.as_ref().unwrap()
    }

    /// The words that confirm the target.
    pub(crate) fn target(&self) -> String {
        let Place { host, port, database, .. } = self.place();
        format!("{host}:{port}/{database}")
    }

    /// `host:port` of the server.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.place().host, self.place().port)
    }

    /// The target's URL, without the password.
    pub(crate) fn url(&self) -> String {
        place_url(self.place())
    }

    /// The database's name.
    pub(crate) fn database_name(&self) -> &str {
        &self.place().database
    }

    /// A path in the world.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Sets a variable of the environment that programs get.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.unset(name);
        self.env.push((name.to_owned(), value.into()));
    }

    /// Removes one.
    pub(crate) fn unset(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// A variable of that environment, as a path.
    pub(crate) fn variable(&self, name: &str) -> PathBuf {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.into()).unwrap()
    }

    /// Writes a file of the project; the path begins at its root.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path("app").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        disk::write(&path, text.as_bytes()).unwrap();
    }

    /// Writes a migration; the name is `<version>_<words>`.
    pub(crate) fn migration(&self, name: &str, sql: &str) {
        self.write(&format!("supabase/migrations/{name}.sql"), sql);
    }

    /// Removes a file of the project.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.path("app").join(path)).unwrap();
    }

    /// The program, in this world and in the project's folder, to be started by the test itself.
    pub(crate) fn command(&self) -> Command {
        self.program(env!("CARGO_BIN_EXE_supa-safe"))
    }

    /// Another program in the same world.
    pub(crate) fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.path("app")).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    #[must_use = "look at its code or its text"]
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.finish(self.command().args(args))
    }

    /// Runs a prepared command of this world to its end.
    pub(crate) fn finish(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        let redact = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran {
            code: code(output.status),
            stdout: redact(output.stdout),
            stderr: redact(output.stderr),
            redactions: self.redactions(),
        }
    }

    /// Where this world's CLI is found, and the environment that it gets.
    pub(crate) fn search(&self) -> supabase::Search {
        let env = self.env.iter().map(|(name, value)| (name.into(), value.clone()));
        supabase::Search {
            explicit: Some(self.variable("SUPA_SAFE_SUPABASE_BIN")),
            project_root: self.path("app"),
            env: env.collect(),
        }
    }

    /// Runs the real CLI of this world in the project's folder, its answer as JSON.
    #[must_use = "look at its code or its text"]
    pub(crate) fn supabase(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(self.variable("SUPA_SAFE_SUPABASE_BIN"));
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.path("app")).stdin(Stdio::null());
        self.finish(command.args(args).args(["--output-format", "json", "--agent", "no"]))
    }

    /// Runs `migrate`, confirmed by its flag.
    #[must_use = "look at its code or its text"]
    pub(crate) fn migrate(&self, args: &[&str]) -> Ran {
        let target = self.target();
        self.run([&["migrate", "--confirm", &target], args].concat())
    }

    /// A session of a role.
    pub(crate) fn session(&self, role: &str) -> Session {
        self.place().session(role)
    }

    /// A session that hears what is told on a channel.
    pub(crate) fn listener(&self, role: &str, channel: &str) -> Listener {
        self.place().listener(role, channel)
    }

    /// Runs statements in a session of their own; rows as in [`Session::run`].
    pub(crate) fn sql(&self, role: &str, sql: &str) -> Vec<String> {
        self.session(role).run(sql)
    }

    /// The versions in the migration history.
    pub(crate) fn history(&self) -> Vec<String> {
        if self.sql(ADMIN, "select to_regclass('supabase_migrations.schema_migrations')") == ["~"] {
            return Vec::new();
        }
        self.sql(ADMIN, "select version from supabase_migrations.schema_migrations order by version")
    }

    /// The catalog fingerprint of the target, read as the program does.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let Session { client, runtime } = self.session(OWNER);
        runtime.block_on(async {
            client.batch_execute(rows::PINNED).await.unwrap();
            client.batch_execute("begin isolation level repeatable read read only").await.unwrap();
            catalog::fingerprint(&client).await.unwrap()
        })
    }

    /// The state folder of this target.
    pub(crate) fn store(&self) -> PathBuf {
        let state = self.path("state");
        let dirs: Vec<PathBuf> = list(&state).into_iter().filter(|path| path.is_dir()).collect();
        match dirs.as_slice() {
            [dir] => dir.clone(),
            other => panic!("not one target in {}: {other:?}", state.display()),
        }
    }

    /// Folders of whole snapshots, the newest first.
    pub(crate) fn snapshots(&self) -> Vec<PathBuf> {
        if !self.path("state").exists() {
            return Vec::new();
        }
        let mut dirs: Vec<PathBuf> = list(&self.store().join("snapshots"))
            .into_iter()
            .filter(|dir| dir.join("manifest.json").exists())
            .collect();
        dirs.reverse();
        dirs
    }

    /// What rehearsals proved, as they are kept on disk.
    pub(crate) fn rehearsals(&self) -> Vec<Value> {
        list(&self.store().join("rehearsals")).iter().map(|path| read_json(path)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let (None, Some(place)) = (&self.own_server, &self.place) {
            let gone = self
                .server()
                .session(ADMIN)
                .try_run(&format!("drop database {} with (force)", place.database));
            if !std::thread::panicking() {
                gone.unwrap();
            }
        }
        if std::thread::panicking() {
            self.temp.disable_cleanup(true);
        }
    }
}

/// The exit code as a shell sees it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The entries of a folder, by name; none when it is not there.
pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn make_database(server: &Place, database: &str, template: Template) {
    let session = server.session(ADMIN);
    session.run(&format!("create database {database} owner {OWNER} template {}", template.name()));
    // What a copy of a template does not have.
    session.run(&format!(
        "grant create on database {database} to supabase_auth_admin, supabase_storage_admin; \
         alter database {database} set \"app.settings.jwt_exp\" to '3600'"
    ));
}

fn place_url(place: &Place) -> String {
    format!("postgresql://{OWNER}@{}:{}/{}", place.host, place.port, place.database)
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("`{program}` is not on PATH: run tests/run"))
}

fn copy(from: &Path, to: &Path) {
    for file in disk::files_below(from).unwrap() {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(&file), &target).unwrap();
    }
}
