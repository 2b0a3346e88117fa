//! A linked project whose direct host and session pooler lead to a test's own database.
//!
//! The names stand in the hosts file of `tests/run`; behind them, `PgBouncer` gives the database the
//! name that it has on the platform, and the pooler's roles theirs.

use super::{ADMIN, OWNER, Platform, World, told, which};
use fs_err as fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use supa_safe::demo::cloud::Project;
use supa_safe::disk::Lock;

/// The temporary role's password, as long as a test says so.
pub(crate) const LOGIN_PASSWORD: &str = "short \"lived\" $(echo) `x` \\y";

/// The temporary role.
pub(crate) const TEMPORARY: &str = "cli_login_postgres";

/// Which of a project's doors are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Direct,
    Pooler,
}

/// A project of the hosts file, for one test at a time.
pub(crate) struct Linked {
    pub(crate) project_ref: String,
    pub(crate) pooler: String,
    number: usize,
    dir: PathBuf,
    bouncer: Option<Child>,
    _lock: Lock,
}

impl Linked {
    /// Takes a project that no other test has.
    pub(crate) fn take(world: &World) -> Self {
        let dir = PathBuf::from(told("SUPA_SAFE_TEST_LINKED_DIR"));
        let letters = told("SUPA_SAFE_TEST_LINKED");
        let (number, letter, lock) = letters
            .split(' ')
            .enumerate()
            .find_map(|(number, letter)| Some((number + 1, letter, Lock::take(&dir.join(letter)).unwrap()?)))
            .unwrap_or_else(|| panic!("more tests at once than projects: add some to tests/run"));
        let dir = world.path(format!("linked-{letter}"));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            project_ref: letter.repeat(20),
            pooler: format!("aws-0-{letter}.pooler.supabase.com"),
            number,
            dir,
            bouncer: None,
            _lock: lock,
        }
    }

    /// The project as the stub of the Management API shows it.
    pub(crate) fn project(&self) -> Project {
        let mut project = Project::new(&self.project_ref, "Prod App");
        project.pooler_host.clone_from(&self.pooler);
        project
    }

    /// Where the hosts file leads its own names.
    pub(crate) fn address(&self) -> std::net::Ipv4Addr {
        [127, 0, 1, u8::try_from(self.number).unwrap()].into()
    }

    /// Opens one door to the world's database, and closes the other.
    pub(crate) fn open(&mut self, world: &World, door: Open) {
        self.close();
        let place = world.place();
        // Every cluster has this on the database that it begins with.
        let comment = "default administrative connection database";
        drop(world.sql(ADMIN, &format!("comment on database {} is '{comment}'", place.database)));
        let password = told("SUPA_SAFE_TEST_PASSWORD");
        let (address, user, forced) = match door {
            Open::Direct => (self.address().to_string(), OWNER.to_owned(), String::new()),
            Open::Pooler => (
                format!("127.0.2.{}", self.number),
                format!("{OWNER}.{}", self.project_ref),
                format!(" user={OWNER} password='{}'", password.replace('\'', "''")),
            ),
        };
        let users = [(&user, password.as_str()), (&user.replace(OWNER, TEMPORARY), LOGIN_PASSWORD)]
            .map(|(user, password)| format!("\"{user}\" \"{}\"\n", password.replace('"', "\"\"")))
            .concat();
        let tls = told("SUPA_SAFE_TEST_LINKED_TLS");
        let settings = format!(
            "[databases]\npostgres = host={} port={} dbname={}{forced}\n\n[pgbouncer]\nlisten_addr = {address}\n\
             listen_port = 5432\nunix_socket_dir =\npool_mode = session\nauth_type = scram-sha-256\n\
             auth_file = {}\ndefault_pool_size = 8\nserver_idle_timeout = 5\nclient_tls_sslmode = require\n\
             client_tls_cert_file = {tls}.crt\nclient_tls_key_file = {tls}.key\n",
            place.host,
            place.port,
            place.database,
            self.dir.join("users").display()
        );
        readable(&self.dir.join("users"), &users);
        readable(&self.dir.join("pgbouncer.ini"), &settings);
        self.bouncer = Some(start(&self.dir));
        let limit = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect((address.as_str(), 5432)).is_err() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(Instant::now() < limit, "PgBouncer does not answer on {address}: {log}");
        }
    }

    fn close(&mut self) {
        if let Some(mut bouncer) = self.bouncer.take() {
            bouncer.kill().unwrap();
            bouncer.wait().unwrap();
        }
    }

    /// Links the world's folder with the real CLI.
    pub(crate) fn link(&self, world: &World) {
        drop(world.supabase(&["link", "--project-ref", &self.project_ref]).exits(0));
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.close();
    }
}

impl World {
    /// Makes this a world of linked projects: no URL, the password in the CLI's variable, the test
    /// root trusted, and the stub of the Management API known.
    pub(crate) fn on_platform(&mut self, projects: Vec<Project>) -> Platform {
        self.unset("SUPA_SAFE_DB_URL");
        self.unset("PGPASSWORD");
        self.set("SUPABASE_DB_PASSWORD", told("SUPA_SAFE_TEST_PASSWORD"));
        self.set("SUPA_SAFE_ROOT_CERT", told("SUPA_SAFE_TEST_ROOT_CA"));
        Platform::start(self, projects)
    }
}

fn readable(path: &Path, text: &str) {
    supa_safe::disk::write(path, text.as_bytes()).unwrap();
    fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

/// `PgBouncer` does not run as root.
fn start(dir: &Path) -> Child {
    let mut command = Command::new(which("setpriv"));
    if supa_safe::scratch::unprivileged_user().is_some() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(which("pgbouncer"));
    let log = fs::File::create(dir.join("log")).unwrap();
    command
        .arg("--quiet")
        .arg(dir.join("pgbouncer.ini"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap().into_parts().0)
        .stderr(log.into_parts().0)
        .spawn()
        .unwrap()
}
