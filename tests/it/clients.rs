//! Clients newer than the server: accepted, and their output made fit.

use crate::world::{ADMIN, Cli, Major, Ran, Template, World, told};
use fs_err as fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// A folder with links to some programs of an installation; the rest of it stands where it stood.
fn only(programs: &[&str], from: &str, folder: &Path) {
    fs::create_dir(folder).unwrap();
    for program in programs {
        symlink(Path::new(from).join(program), folder.join(program)).unwrap();
    }
}

/// Runs the program where the system's own installations cannot be seen.
fn run_without_system_installations(world: &World, args: &[&str]) -> Ran {
    let plain = world.command();
    let mut command = Command::new("unshare");
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(world.path("app")).stdin(Stdio::null());
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none /usr/lib/postgresql && exec \"$@\"", "sh"]);
    command.arg(plain.get_program()).args(args);
    world.finish(&mut command)
}

/// Rows that look like the header that is made fit, and bytes that a careless filter would spoil.
const TRAPS: &str = r"
    create table public.traps (id int primary key, body text not null);
    insert into public.traps values
        (1, 'SET transaction_timeout = 0;'),
        (2, E'a\nSET transaction_timeout = 0;\nSET client_encoding = ''UTF8'';\nb'),
        (3, E'\\. \t \\N \\\\ $$ '' \u65e5\u672c'), (4, repeat('long ', 300000)), (5, '');
    create function public.trap() returns text language sql as $$
SELECT '
SET transaction_timeout = 0;
' $$;";

#[test]
fn a_newer_client_serves_an_older_server() {
    let mut world = World::new(Major::Pg15, Cli::V3).with_database(Template::Shop);
    world.sql(ADMIN, TRAPS);
    let (server, clients) = (world.path("server-15"), world.path("clients-17"));
    // The server's programs find their libraries from where they really are.
    only(&["initdb", "postgres"], &told("SUPA_SAFE_TEST_PG15_HOSTED_BIN"), &server);
    only(&["pg_dump", "pg_dumpall", "pg_restore", "psql"], &told("SUPA_SAFE_TEST_PG17_BIN"), &clients);
    world.set("SUPA_SAFE_PG_BIN", clients.into_os_string());
    let server = server.to_str().unwrap();
    let run =
        |args: &[&str]| run_without_system_installations(&world, &[args, &["--pg-bin", server]].concat());
    run(&["snapshot"]).exits(0);
    let ran = run(&["verify", "--restore", "-v"]).exits(0);
    let restore = ran.stderr.lines().find(|line| line.contains("pg_restore --file=-")).unwrap();
    assert!(restore.contains(" | LC_ALL=C sed ") && restore.contains("/psql --no-password"), "{restore}");
    assert!(ran.stderr.contains("the copy is equal to the snapshot"), "{ran}");
}
