//! A staging server of a test: real TLS and no other way in, and nothing in it.

use super::{ADMIN, Major, World, told, with_movable_clock};
use fs_err as fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use supa_safe::disk;
use supa_safe::scratch::{self, Engine, Scratch, Wanted};
use supa_safe::tools::installs::{self, Search};
use tokio::runtime::Runtime;

/// A staging server. Its certificate is one of the tests' root, for its address.
pub(crate) struct Staging {
    scratch: Option<Scratch>,
    runtime: Runtime,
    psql: String,
    password: String,
    port: u16,
}

impl World {
    /// A server for this world's rehearsals, which knows its password.
    pub(crate) fn staging(&mut self, major: Major) -> Staging {
        self.staging_set(major, &[])
    }

    /// The same, with settings of its own, each as `name=value`.
    pub(crate) fn staging_set(&mut self, major: Major, more: &[&str]) -> Staging {
        let dir = self.path("staging");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
        let access = dir.join("access");
        disk::write(&access, b"hostssl all all 127.0.0.1/32 scram-sha-256\n").unwrap();
        fs::set_permissions(&access, std::fs::Permissions::from_mode(0o644)).unwrap();
        let tls = told("SUPA_SAFE_TEST_STAGING_TLS");
        let settings = [
            format!("hba_file={}", access.display()),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={tls}.crt"),
            format!("ssl_key_file={tls}.key"),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let runtime = Runtime::new().unwrap();
        let scratch = runtime.block_on(async {
            let search = Search { explicit: vec![major.hosted_programs().into()], ..Search::default() };
            let mut installation = installs::installations(&search).await.swap_remove(0);
            installation.bin_dir = with_movable_clock(&installation.bin_dir, &dir, &settings);
            let wanted = Wanted {
                engine: Engine::Local(installation),
                superuser: ADMIN.to_owned(),
                max_connections: 30,
                max_locks_per_transaction: 64,
                keeper: env!("CARGO_BIN_EXE_supa-safe").into(),
                base_dir: dir.clone(),
                run_as: scratch::unprivileged_user(),
            };
            scratch::start(wanted).await.unwrap()
        });
        let owner = scratch.superuser_connection("template1");
        let password = owner.password.as_ref().unwrap().expose().to_owned();
        self.set("SUPA_SAFE_STAGING_PASSWORD", password.clone());
        let psql = format!("{}/psql", Major::Pg17.programs());
        Staging { scratch: Some(scratch), runtime, psql, password, port: owner.port }
    }
}

impl Staging {
    /// Its URL without the password; whoever connects proves the server.
    pub(crate) fn url(&self) -> String {
        self.url_of(ADMIN)
    }

    /// The same for another role.
    pub(crate) fn url_of(&self, role: &str) -> String {
        let root = told("SUPA_SAFE_TEST_ROOT_CA");
        format!("postgresql://{role}@{}/postgres?sslmode=verify-full&sslrootcert={root}", self.address())
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// Rows of a query in a database of it, columns apart by `|`.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Vec<String> {
        let output = self.psql(database, sql).output().unwrap();
        let Output { stdout, stderr, .. } = &output;
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(stderr));
        String::from_utf8_lossy(stdout).lines().map(str::to_owned).collect()
    }

    /// A session that runs a statement, to be started by the test itself.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> Command {
        let way = format!(
            "host=127.0.0.1 port={} user={ADMIN} dbname={database} sslmode=verify-full sslrootcert={}",
            self.port,
            told("SUPA_SAFE_TEST_ROOT_CA")
        );
        let mut command = Command::new(&self.psql);
        command.env("PGPASSWORD", &self.password).args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            "-d",
            &way,
        ]);
        command
    }

    /// Says that everything in it may be dropped.
    pub(crate) fn mark(&self) {
        let mark = self.sql(
            "template1",
            "select format('comment on database template1 is %L', 'supa-safe: scratch server ' || system_identifier)
             from pg_control_system()",
        );
        drop(self.sql("template1", &mark[0]));
    }

    /// What is in it that `initdb` does not make.
    pub(crate) fn contents(&self) -> Vec<String> {
        let mut contents = self.sql(
            "template1",
            "select 'database ' || datname from pg_database where datname not in ('postgres', 'template0', 'template1')
             union all select 'role ' || rolname from pg_roles where oid >= 16384 order by 1",
        );
        let relations = "select 'relation ' || oid::regclass from pg_class where oid >= 16384
                         and relnamespace <> 'pg_toast'::regnamespace order by 1";
        contents.extend(self.sql("postgres", relations));
        contents
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let stopped = self.scratch.take().map(|scratch| self.runtime.block_on(scratch.stop()));
        if !std::thread::panicking() {
            stopped.unwrap().unwrap();
        }
    }
}
