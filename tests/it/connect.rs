//! Each way in which a target cannot be reached has its own exit code and its own next step.

use crate::world::{Cli, Major, Ran, Template, World, told};
use snapbox::{assert_data_eq, str};

/// A database and no project: nothing here gets that far.
fn world() -> World {
    World::new(Major::Pg17, Cli::V3).with_database(Template::Hosted)
}

fn at(world: &World, url: &str) -> Ran {
    world.run(["snapshot", "--db-url", url])
}

/// The world's database behind another address.
fn behind(world: &World, address: &str) -> String {
    format!("postgresql://postgres@{address}/{}", world.database_name())
}

#[test]
fn a_url_that_is_none() {
    let world = world();
    for (url, text) in [
        (
            "postgresql://postgres:p#ss@127.0.0.3:5432/postgres",
            str![[r#"
error: the connection URL cannot be read: its password holds a character (`@`, `/`, `?`, `#`, or `:`) that must be percent-encoded
hint: Leave the password out of the URL and set PGPASSWORD, or percent-encode it (`@` is `%40`)

"#]],
        ),
        (
            "mysql://root@127.0.0.3/app",
            str![[r#"
error: the connection URL starts with `mysql://`; a Postgres URL starts with `postgresql://`
hint: Copy the URL from the project's dashboard under Connect, session mode

"#]],
        ),
        (
            "postgresql://postgres:[YOUR-PASSWORD]@127.0.0.3:5432/postgres",
            str![[r#"
error: the URL still holds the placeholder `[YOUR-PASSWORD]` in the place of the password
hint: Leave the password out of the URL (`postgresql://USER@HOST:5432/postgres`) and set PGPASSWORD
hint: Find or reset the password in the project's dashboard under Database settings

"#]],
        ),
        (
            "postgresql://127.0.0.3:5432/postgres",
            str![[r#"
error: the connection URL names no user (`postgresql://USER@host:port/database`)
hint: Copy the URL from the project's dashboard under Connect, session mode

"#]],
        ),
        (
            "postgresql://postgres@127.0.0.3:5432/postgres?sslmode=maybe",
            str![[r#"
error: `maybe` is not a value for `sslmode`; it may be disable, prefer, require, verify-ca, or verify-full
hint: Copy the URL from the project's dashboard under Connect, session mode

"#]],
        ),
        (
            "postgresql://postgres@db.example.com/postgres?sslmode=disable",
            str![[r#"
error: `sslmode=disable` would send the password and all rows to `db.example.com` in the clear
hint: Use `sslmode=require`, or better `sslmode=verify-full`

"#]],
        ),
        (
            "postgresql://postgres@127.0.0.3:6543/postgres",
            str![[r#"
error: `127.0.0.3:6543` is a transaction pooler (port 6543): a dump through it can be wrong without an error
hint: Use the session pooler: the same host with port 5432
hint: Or the direct host `db.<ref>.supabase.co:5432`

"#]],
        ),
    ] {
        let ran = at(&world, url).exits(2);
        assert_data_eq!(ran.talk(), text);
    }
    assert!(!world.path("state").exists());
}

#[test]
fn no_target_at_all() {
    let mut world = world();
    world.unset("SUPA_SAFE_DB_URL");
    assert_data_eq!(
        world.run(["snapshot"]).exits(10).talk(),
        str![[r#"
error: no target was given, and here is no Supabase project
hint: Run `supabase link --project-ref <ref>`, or pass `--project-ref <ref>`
hint: Pass `--db-url <url>` or set SUPA_SAFE_DB_URL for a database by its URL; `--local` for the stack of `supabase start`

"#]]
    );
}

#[test]
fn a_host_that_does_not_answer() {
    let world = world();
    let ran = at(&world, "postgresql://postgres@127.0.0.3:5999/postgres").exits(10);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: `127.0.0.3:5999` does not answer
  caused by: Connection refused (os error 111)
hint: Check host and port, that the database is running, and that no firewall or network restriction is between

"#]]
    );
}

#[test]
fn a_host_that_nobody_knows() {
    let world = world();
    let ran = at(&world, "postgresql://postgres@db.invalid:5432/postgres").exits(10);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: host `db.invalid` is not known
  caused by: failed to lookup address information: Temporary failure in name resolution
hint: Check the host in the URL

"#]]
    );
    let ran = at(&world, "postgresql://postgres@db.yyyyyyyyyyyyyyyyyyyy.supabase.co:5432/postgres").exits(10);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: host `db.yyyyyyyyyyyyyyyyyyyy.supabase.co` is not known
  caused by: failed to lookup address information: Temporary failure in name resolution
hint: The direct host has an IPv6 address only; on an IPv4 network use the session pooler
hint: Copy its URL from the project's dashboard under Connect, session mode

"#]]
    );
}

#[test]
fn a_password_that_is_wrong_or_missing() {
    let mut world = world();
    world.set("PGPASSWORD", "wrong");
    assert_data_eq!(
        world.run(["snapshot"]).exits(12).talk(),
        str![[r#"
error: the server at `127.0.0.3:5432` refused the sign-in of role `postgres`
  caused by: FATAL: password authentication failed for user "postgres"
hint: Check role and password; set the password in PGPASSWORD (a password in the URL goes before it)

"#]]
    );
    world.unset("PGPASSWORD");
    assert_data_eq!(
        world.run(["snapshot"]).exits(12).talk(),
        str![[r#"
error: the server at `127.0.0.3:5432` asks role `postgres` for a password, and none was given
hint: Set PGPASSWORD, or pass `--password-file <file>`

"#]]
    );
}

#[test]
fn a_database_that_is_not_there() {
    let world = world();
    let url = world.url().replace(world.database_name(), "nowhere");
    assert_data_eq!(
        at(&world, &url).exits(10).talk(),
        str![[r#"
error: the server at `127.0.0.3:5432` has no database `nowhere`
hint: Check the database's name at the end of the URL; on Supabase it is `postgres`

"#]]
    );
}

#[test]
fn a_transaction_pooler_is_refused_by_what_it_does() {
    let world = world();
    let ran = at(&world, &behind(&world, &told("SUPA_SAFE_TEST_POOLER_ODD"))).exits(2);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: `127.0.0.3:7000` is a transaction pooler: it gave one server session to two of ours, and a dump through it can be wrong without an error
hint: Use the session pooler or the direct host of the database

"#]]
    );
    assert!(!world.path("state").exists());
}

#[test]
fn a_session_pooler_is_fine() {
    let world = world();
    let ran = at(&world, &behind(&world, &told("SUPA_SAFE_TEST_POOLER_SESSION"))).exits(0);
    assert!(ran.stderr.contains("the archive decodes with every row"), "{ran}");
    assert_eq!(world.snapshots().len(), 1);
}

#[test]
fn a_replica_is_refused() {
    let world = world();
    let ran = at(&world, &format!("postgresql://postgres@{}/shop_replica", told("SUPA_SAFE_TEST_STANDBY")))
        .exits(10);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: the server at `127.0.0.4:5432` has no database `shop_replica`
hint: Check the database's name at the end of the URL; on Supabase it is `postgres`

"#]]
    );
    let ran =
        at(&world, &format!("postgresql://postgres@{}/postgres", told("SUPA_SAFE_TEST_STANDBY"))).exits(10);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: `127.0.0.4:5432` is a replica (pg_is_in_recovery() is true): it cannot be migrated
hint: Use the address of the primary

"#]]
    );
}

#[test]
fn the_certificate_is_checked_as_asked() {
    let world = world();
    let root = told("SUPA_SAFE_TEST_ROOT_CA");
    let full = format!("{}?sslmode=verify-full", world.url());
    drop(at(&world, &format!("{full}&sslrootcert={root}")).exits(0));

    let ran = at(&world, &full).exits(12);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: no trusted TLS connection to `127.0.0.3:5432` with sslmode=verify-full
  caused by: invalid peer certificate: UnknownIssuer
hint: Pass the server's root certificate with `sslrootcert=<file>` in the URL, or use `sslmode=require`

"#]]
    );

    // The same server by an address that its certificate does not name.
    let wrong = format!("{full}&sslrootcert={root}").replace("127.0.0.3", "[::ffff:127.0.0.3]");
    let ran = at(&world, &wrong).exits(12);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: no trusted TLS connection to `[::ffff:7f00:3]:5432` with sslmode=verify-full
  caused by: invalid peer certificate: certificate not valid for name "::ffff:127.0.0.3"; certificate is only valid for DnsName("db.bbbbbbbbbbbbbbbbbbbb.supabase.co") or IpAddress(127.0.0.3)
hint: Pass the server's root certificate with `sslrootcert=<file>` in the URL, or use `sslmode=require`

"#]]
    );
    drop(at(&world, &wrong.replace("verify-full", "verify-ca")).exits(0));

    let ran = at(&world, &format!("{full}&sslrootcert=/nonexistent.crt")).exits(2);
    assert_data_eq!(
        ran.talk(),
        str![[r#"
error: cannot read the root certificates in `/nonexistent.crt`
  caused by: failed to open file `/nonexistent.crt`: No such file or directory (os error 2)
hint: Check `sslrootcert` in the URL and PGSSLROOTCERT

"#]]
    );
}
