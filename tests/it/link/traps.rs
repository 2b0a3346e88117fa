//! What an application's `.env` files, which the CLI's runtime loads, could lead a run away by
//! (facts 1.3): the run stays on the linked project and reaches nobody else.

use super::{FILES, first_line, linked, migrate};
use crate::world::{Cli, Linked, Major, Platform, Ran, World, told};
use fs_err as fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use supa_safe::disk;

/// Everything that an application's files could say, at once; the other project is alive and open.
fn an_applications_env_files(cli: Cli) {
    let (mut world, project, platform) = linked(Major::Pg17, cli);
    signed_in(&mut world, &platform);
    // The project's own files count.
    world.unset("SUPABASE_DB_PASSWORD");
    world.write("supabase/.env", &format!("SUPABASE_DB_PASSWORD='{}'\n", told("SUPA_SAFE_TEST_PASSWORD")));
    let elsewhere = Elsewhere::new(cli);
    world.migration(FILES[0].0, FILES[0].1);
    let env = format!(
        "DATABASE_URL=x\nSUPABASE_PROJECT_ID={}\nSUPABASE_WORKDIR={}\nSUPABASE_YES=1\n",
        elsewhere.project.project_ref,
        elsewhere.path("app").display()
    );
    world.write(".env", &env);
    world.write(".env.local", &format!("SUPABASE_ACCESS_TOKEN=sbp_{}\n", "0".repeat(40)));
    let pg = format!(
        "PGHOST=db.{}.supabase.co\nPGDATABASE=elsewhere\nPGPASSWORD=x\n",
        elsewhere.project.project_ref
    );
    world.write(".env.development", &pg);
    let ran = migrate(&world, &project, &[]).exits(0);
    let note: Vec<String> =
        ran.lines("SUPABASE_").iter().map(|line| line.replace(&project.project_ref, "[REF]")).collect();
    assert_eq!(
        note,
        [
            "SUPABASE_PROJECT_ID, SUPABASE_WORKDIR, SUPABASE_YES in `.env` and SUPABASE_ACCESS_TOKEN in `.env.local` and \
             PGDATABASE, PGHOST, PGPASSWORD in `.env.development` would lead `supabase` elsewhere and count for nothing \
             here; the run stays on [REF]"
        ]
    );
    assert_eq!(world.history(), ["20260101000001"]);
    elsewhere.saw_nobody(&platform);
}

#[test]
fn an_applications_env_files_do_not_redirect_cli2() {
    an_applications_env_files(Cli::V2);
}

#[test]
fn an_applications_env_files_do_not_redirect_cli3() {
    an_applications_env_files(Cli::V3);
}

/// Another project that is alive: who comes to its database, its pooler, or its platform is counted.
struct Elsewhere {
    world: World,
    project: Linked,
    api: String,
    came: Arc<AtomicU32>,
}

impl Elsewhere {
    fn new(cli: Cli) -> Self {
        let world = World::new(Major::Pg17, cli);
        let project = Linked::take(&world);
        let came = Arc::new(AtomicU32::new(0));
        let direct = project.address().octets();
        let pooler = [direct[0], direct[1], 2, direct[3]];
        for address in [direct, pooler] {
            count(TcpListener::bind((std::net::Ipv4Addr::from(address), 5432)).unwrap(), &came);
        }
        let platform = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = format!("http://{}", platform.local_addr().unwrap());
        count(platform, &came);
        world.write("supabase/config.toml", "");
        world.write("supabase/.temp/project-ref", &project.project_ref);
        let url = format!("postgresql://postgres.{}@{}:5432/postgres", project.project_ref, project.pooler);
        world.write("supabase/.temp/pooler-url", &url);
        world.migration("20260101000009_wrong", "create table public.wrong ();");
        let profile = format!(
            "name: other\napi_url: {api}\ndashboard_url: {api}\nproject_host: supabase.co\npooler_host: supabase.com\n"
        );
        world.write("../profile.yaml", &profile);
        world.write("../home/.supabase/profile", &world.path("profile.yaml").display().to_string());
        Self { world, project, api, came }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.world.path(path)
    }

    /// Demands that nobody came, and that the platform was asked nothing about this project.
    #[track_caller]
    fn saw_nobody(&self, platform: &Platform) {
        assert_eq!(self.came.load(Ordering::SeqCst), 0);
        let about = |call: &String| call.contains(&self.project.project_ref);
        assert_eq!(platform.stub.calls().into_iter().filter(about).collect::<Vec<_>>(), [""; 0]);
    }
}

fn count(listener: TcpListener, came: &Arc<AtomicU32>) {
    let came = Arc::clone(came);
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            came.fetch_add(1, Ordering::SeqCst);
        }
    });
}

struct Trap {
    file: &'static str,
    text: String,
    /// The variables that the run names; none where it has nothing to say of them.
    names: &'static str,
}

fn traps(elsewhere: &Elsewhere) -> Vec<Trap> {
    let other = &elsewhere.project.project_ref;
    let path = |path: &str| elsewhere.path(path).display().to_string();
    let trap = |file, text: String, names| Trap { file, text: text + "\n", names };
    let project_id = |file| trap(file, format!("SUPABASE_PROJECT_ID={other}"), "SUPABASE_PROJECT_ID");
    let variable = |name: &'static str, value: &str| trap(".env", format!("{name}={value}"), name);
    let token = format!("sbp_{}", "0".repeat(40));
    let pg = format!("PGHOST=db.{other}.supabase.co\nPGUSER=nobody\nPGDATABASE=elsewhere\nPGPASSWORD=x");
    // The CLI's own file of the project: it may hold a password, and leads nobody away.
    let own = format!(
        "SUPABASE_PROJECT_ID={other}\nSUPABASE_API_URL={}\nSUPABASE_ACCESS_TOKEN={token}",
        elsewhere.api
    );
    vec![
        project_id(".env"),
        project_id(".env.local"),
        project_id(".env.development"),
        project_id(".env.staging"),
        variable("SUPABASE_WORKDIR", &path("app")),
        variable("SUPABASE_EXPERIMENTAL_STACK", "1"),
        variable("SUPABASE_ACCESS_TOKEN", &token),
        // The profile of the home folder was read, and is exported to the CLI.
        trap(".env", format!("SUPABASE_PROFILE={}", path("profile.yaml")), ""),
        trap(".env", format!("SUPABASE_HOME={}", path("home/.supabase")), ""),
        trap(".env", pg, "PGDATABASE, PGHOST, PGPASSWORD, PGUSER"),
        trap("supabase/.env", own, ""),
    ]
}

/// Each trap alone: the target is the linked one, and so is the project that the CLI is asked about. That the push
/// goes there as well is shown with all of them at once, and with the worst one alone.
fn each_trap_alone(cli: Cli) {
    let (mut world, project, platform) = linked(Major::Pg17, cli);
    signed_in(&mut world, &platform);
    world.write("supabase/supa-safe.toml", "components = []\nallow_unrehearsed = true\n");
    world.migration(FILES[0].0, FILES[0].1);
    let elsewhere = Elsewhere::new(cli);
    let stack = format!("{{\"active_branch\": {{\"ref\": \"{}\"}}}}", elsewhere.project.project_ref);
    world.write("supabase/.link.json", &stack);
    platform.stub.forget_calls();
    let traps = traps(&elsewhere);
    for Trap { file, text, names } in &traps {
        world.set("NODE_ENV", file.strip_prefix(".env.").filter(|mode| *mode != "local").unwrap_or("test"));
        world.write(file, text);
        let ran = migrate(&world, &project, &["--dry-run"]).exits(0);
        assert_eq!(
            first_line(&ran, &project),
            "target [REF] (project Prod App, direct host",
            "{file} {text}"
        );
        if !names.is_empty() {
            let said = format!(
                "{names} in `{file}` would lead `supabase` elsewhere and count for nothing here; the run stays on {}",
                project.project_ref
            );
            assert_eq!(notes(&ran), [said], "{file} {text}: {ran}");
        }
        drop(world.run(["secrets", "list"]).exits(0));
        world.remove(file);
    }
    let secrets = format!("GET /v1/projects/{}/secrets", project.project_ref);
    let asked = platform.stub.calls().iter().filter(|call| **call == secrets).count();
    assert_eq!(asked, traps.len());
    world.write(traps[0].file, &traps[0].text);
    drop(migrate(&world, &project, &["--rehearse", "off"]).exits(0));
    assert_eq!(world.history(), ["20260101000001"]);
    elsewhere.saw_nobody(&platform);
    platform.knew_every_call();
}

/// What says yes to the CLI says nothing here, and a password beside the working directory is nobody's.
fn a_yes_in_a_file_confirms_nothing(cli: Cli) {
    let (world, project, _platform) = linked(Major::Pg17, cli);
    world.write("supabase/supa-safe.toml", "components = []\nallow_unrehearsed = true\n");
    world.migration(FILES[0].0, FILES[0].1);
    for file in [".env", "supabase/.env"] {
        world.write(file, "SUPABASE_YES=1\n");
        drop(world.run(["migrate", "--rehearse", "off"]).exits(4));
        world.remove(file);
    }
    assert_eq!(world.history(), [""; 0]);
    world.write("web/.env", "SUPABASE_DB_PASSWORD=another\n");
    let mut command = world.command();
    command.current_dir(world.path("app/web"));
    command.args(["migrate", "--rehearse", "off", "--confirm", &project.project_ref]);
    drop(world.finish(&mut command).exits(0));
    assert_eq!(world.history(), ["20260101000001"]);
}

fn notes(ran: &Ran) -> Vec<String> {
    let notes =
        ran.stderr.lines().map(str::trim_start).filter(|line| line.contains("count for nothing here"));
    notes.map(str::to_owned).collect()
}

/// Signed in by files of the home folder: what an application's file says would go before them.
fn signed_in(world: &mut World, platform: &Platform) {
    world.unset("SUPABASE_ACCESS_TOKEN");
    world.unset("SUPABASE_PROFILE");
    let home = world.path("home/.supabase");
    fs::create_dir_all(&home).unwrap();
    disk::write(&home.join("access-token"), platform.stub.token().expose().as_bytes()).unwrap();
    disk::write(&home.join("profile"), platform.stub.profile().display().to_string().as_bytes()).unwrap();
}

#[test]
fn each_trap_alone_with_cli2() {
    each_trap_alone(Cli::V2);
}

#[test]
fn each_trap_alone_with_cli3() {
    each_trap_alone(Cli::V3);
}

#[test]
fn a_yes_in_a_file_confirms_nothing_with_cli2() {
    a_yes_in_a_file_confirms_nothing(Cli::V2);
}

#[test]
fn a_yes_in_a_file_confirms_nothing_with_cli3() {
    a_yes_in_a_file_confirms_nothing(Cli::V3);
}
