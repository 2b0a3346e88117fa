//! The fingerprint against real servers: a change of every kind is named and nothing else is, and a
//! restored copy has the same owned lines.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::env;
use std::time::Duration;
use supa_safe::fingerprint::{Class, Fingerprint};
use supa_safe::postgres::catalog::{self, Table, TableKind};
use supa_safe::proc::Cmd;
use supa_safe::secret::Secret;
use tokio_postgres::{Client, Config, NoTls};

const PINNED: &str = "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; \
     set bytea_output = 'hex'; set extra_float_digits = 1; set search_path = ''; set quote_all_identifiers = off; \
     set lc_monetary = 'C'";
const EVERYTHING: &str = include_str!("fingerprint/everything.sql");
const CHANGES: &str = include_str!("fingerprint/changes.sql");

/// A round of changes.sql: the statements, and the lines that they are told as.
struct Round {
    title: &'static str,
    sql: String,
    told: Vec<&'static str>,
}

fn rounds() -> Vec<Round> {
    let (_, rounds) = CHANGES.split_once("\n-- == ").expect("a first round");
    rounds
        .split("\n-- == ")
        .map(|round| {
            let (title, body) = round.split_once('\n').expect("a title");
            let sql: Vec<_> = body.lines().filter(|line| !line.starts_with("--> ")).collect();
            let mut told: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("--> ")).collect();
            told.sort_unstable();
            Round { title, sql: sql.join("\n"), told }
        })
        .collect()
}

/// One of the servers that `tests/run` starts, and the folder of its programs.
#[derive(Clone, Copy)]
enum Server {
    Pg15,
    Pg17,
}

impl Server {
    fn address(self) -> (String, u16) {
        let address = variable(match self {
            Self::Pg15 => "SUPA_SAFE_TEST_PG15",
            Self::Pg17 => "SUPA_SAFE_TEST_PG17",
        });
        let (host, port) = address.rsplit_once(':').expect("host:port");
        (host.to_owned(), port.parse().expect("a port"))
    }

    fn program(self, name: &str) -> String {
        let folder = variable(match self {
            Self::Pg15 => "SUPA_SAFE_TEST_PG15_BIN",
            Self::Pg17 => "SUPA_SAFE_TEST_PG17_BIN",
        });
        format!("{folder}/{name}")
    }

    async fn connect(self, database: &str) -> Client {
        let (host, port) = self.address();
        let mut config = Config::new();
        config.host(host).port(port).user("supabase_admin").dbname(database);
        config.password(variable("SUPA_SAFE_TEST_PASSWORD"));
        let (client, connection) = config.connect(NoTls).await.expect("connect");
        tokio::spawn(connection);
        client
    }

    /// Makes a database like a hosted one and opens a pinned session in it.
    async fn database(self, name: &str) -> Client {
        let name = format!("{name}_{}", std::process::id());
        let admin = self.connect("postgres").await;
        run(&admin, &format!("drop database if exists {name} with (force)")).await;
        run(&admin, &format!("create database {name} template hosted owner postgres")).await;
        let client = self.connect(&name).await;
        run(&client, PINNED).await;
        client
    }

    async fn drop(self, client: Client) {
        let name = name_of(&client).await;
        let admin = self.connect("postgres").await;
        run(&admin, &format!("drop database {name} with (force)")).await;
    }

    /// Runs one of the server's programs.
    async fn tool(self, name: &str, args: &[&str]) {
        let (host, port) = self.address();
        let connection = ["--host", &host, "--port", &port.to_string(), "--username", "supabase_admin"];
        Cmd::new(self.program(name))
            .args(connection)
            .args(args)
            .secret("PGPASSWORD", &Secret::new(variable("SUPA_SAFE_TEST_PASSWORD")))
            .timeout(Duration::from_mins(1))
            .run()
            .await
            .expect(name);
    }
}

#[expect(clippy::disallowed_methods, reason = "tests/run tells the servers by the environment")]
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

async fn run(client: &Client, sql: &str) {
    if let Err(error) = client.batch_execute(sql).await {
        panic!("{error:?} in {sql}");
    }
}

async fn name_of(client: &Client) -> String {
    client.query_one("select current_database()::text", &[]).await.expect("name").get(0)
}

async fn fingerprint(client: &Client) -> Fingerprint {
    catalog::fingerprint(client).await.expect("fingerprint")
}

/// The differences as they are told, those of the platform marked.
fn told(before: &Fingerprint, after: &Fingerprint) -> Vec<String> {
    let owned = before.differences(after, Class::Owned).into_iter().map(|found| found.to_string());
    let platform = before.differences(after, Class::Platform);
    let mut lines: Vec<_> =
        owned.chain(platform.into_iter().map(|found| format!("platform: {found}"))).collect();
    lines.sort();
    lines
}

/// All in one transaction that never commits, so that no other test sees the roles.
async fn every_change_is_named(server: Server) {
    let client = server.database("fingerprint_changes").await;
    run(&client, "begin").await;
    run(&client, EVERYTHING).await;
    let before = fingerprint(&client).await;
    let text = before.to_text();
    assert_eq!(Fingerprint::from_text(&text).as_ref(), Ok(&before));
    assert!(!text.contains("s3cret"), "an option or a setting shows its value");
    for round in rounds() {
        run(&client, "savepoint before_round").await;
        run(&client, &round.sql).await;
        let after = fingerprint(&client).await;
        assert_eq!(told(&before, &after), round.told, "{}", round.title);
        run(&client, "rollback to savepoint before_round").await;
    }
    assert_eq!(fingerprint(&client).await, before, "after all rounds were undone");
    run(&client, "rollback").await;
    server.drop(client).await;
}

#[tokio::test]
async fn every_change_is_named_on_15() {
    every_change_is_named(Server::Pg15).await;
}

#[tokio::test]
async fn every_change_is_named_on_17() {
    every_change_is_named(Server::Pg17).await;
}

/// Every kind is in the table of changes, or it is not known that a change of it shows.
#[tokio::test]
async fn the_table_of_changes_has_every_kind() {
    let client = Server::Pg17.database("fingerprint_kinds").await;
    run(&client, "begin").await;
    run(&client, EVERYTHING).await;
    let told: Vec<&str> = rounds().into_iter().flat_map(|round| round.told).collect();
    for line in fingerprint(&client).await.lines() {
        let start = format!("{} ", line.kind);
        let is_told = told.iter().any(|text| text.trim_start_matches("platform: ").starts_with(&start));
        assert!(is_told, "no change of kind `{}`", line.kind);
    }
    run(&client, "rollback").await;
    Server::Pg17.drop(client).await;
}

async fn a_restored_copy_is_the_same(server: Server) {
    let origin = server.database("fingerprint_origin").await;
    run(&origin, &format!("begin; {EVERYTHING}; commit")).await;
    let archive = tempfile::tempdir().expect("folder");
    let archive = archive.path().join("archive").display().to_string();
    let origin_name = name_of(&origin).await;
    server.tool("pg_dump", &["--format", "directory", "--file", &archive, &origin_name]).await;

    let copy_name = format!("fingerprint_copy_{}", std::process::id());
    let admin = server.connect("postgres").await;
    run(&admin, &format!("create database {copy_name} template template0 owner postgres")).await;
    server.tool("pg_restore", &["--exit-on-error", "--dbname", &copy_name, &archive]).await;
    let copy = server.connect(&copy_name).await;
    run(&copy, PINNED).await;

    // What belongs to the database itself is in the archive only for `pg_restore --create`.
    let contents = |found: &Fingerprint| {
        found.without(|line| {
            line.identity.starts_with("database") || line.kind == "database" || line.kind == "setting"
        })
    };
    let (before, after) = (contents(&fingerprint(&origin).await), contents(&fingerprint(&copy).await));
    assert_eq!(told(&before, &after), Vec::<String>::new());
    assert_eq!(before.owned_digest(), after.owned_digest());
    for client in [origin, copy] {
        server.drop(client).await;
    }
}

#[tokio::test]
async fn a_restored_copy_is_the_same_on_15() {
    a_restored_copy_is_the_same(Server::Pg15).await;
}

#[tokio::test]
async fn a_restored_copy_is_the_same_on_17() {
    a_restored_copy_is_the_same(Server::Pg17).await;
}

#[tokio::test]
async fn a_session_with_other_settings_is_refused() {
    let client = Server::Pg17.database("fingerprint_settings").await;
    for (setting, found, needed) in
        [("search_path", "fp", ""), ("DateStyle", "SQL, DMY", "ISO, YMD"), ("TimeZone", "Asia/Tokyo", "UTC")]
    {
        run(&client, &format!("begin; set local {setting} = '{found}'")).await;
        let error = catalog::fingerprint(&client).await.expect_err(setting);
        let expected =
            format!("the session has `{setting}` at `{found}`; a fingerprint needs it at `{needed}`");
        assert_eq!(error.to_string(), expected);
        run(&client, "rollback").await;
    }
    Server::Pg17.drop(client).await;
}

/// The rows that one role can read in schema `fp`, and those of the extension's table.
async fn readable(client: &Client, role: &str) -> Vec<String> {
    run(client, &format!("set local role {role}")).await;
    let tables = catalog::tables(client).await.expect("tables");
    run(client, "reset role").await;
    let named = |table: Table| (table.schema == "fp" && table.is_readable).then_some(table.name);
    tables.into_iter().filter_map(named).collect()
}

#[tokio::test]
async fn tables_are_listed_with_what_can_be_read() {
    let client = Server::Pg17.database("fingerprint_tables").await;
    run(&client, "begin").await;
    run(&client, EVERYTHING).await;
    run(&client, "grant usage on schema fp to authenticated, service_role").await;
    let tables = catalog::tables(&client).await.expect("tables");
    let find = |schema: &str, name: &str| {
        let found = tables.iter().find(|table| table.schema == schema && table.name == name);
        found.unwrap_or_else(|| panic!("{schema}.{name} is not listed"))
    };
    let child = find("fp", "child");
    assert_eq!((child.kind, child.class), (TableKind::Table, Class::Owned));
    assert_eq!(child.columns, ["parent_id", "odd \"name"]);
    assert_eq!(find("fp", "empty").kind, TableKind::UnpopulatedMaterializedView);
    assert_eq!(find("fp", "sums").kind, TableKind::MaterializedView);
    assert_eq!(find("fp", "event_2024").kind, TableKind::Table);
    assert_eq!(find("auth", "users").class, Class::Merged);
    assert_eq!(find("auth", "sessions").class, Class::Platform);
    assert!(!tables.iter().any(|table| ["event", "cheap", "far", "counter"].contains(&table.name.as_str())));

    // Row security hides rows of fp.parent from anon, who may select from it, but not from
    // service_role, who bypasses it; authenticated may select from nothing.
    let seen = readable(&client, "anon").await;
    assert_eq!(
        seen,
        ["child", "empty", "event_2024", "event_rest", "hasty", "heir", "of_pair", "pointer", "sums"]
    );
    assert_eq!(readable(&client, "service_role").await, ["parent"]);
    assert!(readable(&client, "authenticated").await.is_empty());
    run(&client, "rollback").await;
    Server::Pg17.drop(client).await;
}

#[tokio::test]
async fn extensions_are_listed_with_their_members() {
    let client = Server::Pg17.database("fingerprint_extensions").await;
    let extensions = catalog::extensions(&client).await.expect("extensions");
    let crypto = extensions.iter().find(|found| found.name == "pgcrypto").expect("pgcrypto");
    assert_eq!((crypto.schema.as_str(), crypto.version.as_str()), ("extensions", "1.3"));
    assert!(crypto.members.iter().any(|member| member.identity.starts_with("function extensions.crypt(")));
    assert_eq!(crypto.created_schemas, Vec::<String>::new());
    let cron = extensions.iter().find(|found| found.name == "pg_cron").expect("pg_cron");
    assert_eq!(cron.created_schemas, ["cron"]);
    let oid: u32 = client.query_one("select 'cron.job'::regclass::oid", &[]).await.expect("oid").get(0);
    assert!(cron.members.iter().any(|member| member.oid == oid && member.identity == "table cron.job"));
    Server::Pg17.drop(client).await;
}
