//! `supa-safe doctor`: looks at everything that a run needs, and changes nothing.

use super::fail::{failed, resolve_failed};
use super::{Setting, TargetArgs, bucket, hook as hook_command, open, prune, target};
use crate::config::{self, Config, Flags, Surroundings};
use crate::disk;
use crate::doctor::{self, Answer, Check, Cli, Door, Facts, Grade, Hook, Shared, State};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen;
use crate::hook::{self, Runs};
use crate::objects::{Access, Client};
use crate::postgres::{identity, storage};
use crate::proc;
use crate::resolve::{self, Wanted};
use crate::scratch;
use crate::store::{self, Bucket, Location, Store};
use crate::target::{Connection, EndpointKind, folder_name};
use crate::tools::git::Git;
use crate::tools::installs::{self, Installation, Search};
use crate::tools::supabase;
use crate::ui::{self, Mark};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// How long the target may take for everything that it is asked.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long Storage may take for one page of a listing.
const STORAGE_PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: u32,
    version: &'static str,
    system: String,
    worst: Grade,
    checks: &'a [Check],
}

pub(super) async fn run(setting: &Setting, args: DoctorArgs) -> Result<Exit, Failure> {
    let facts = Box::pin(gather(setting, &args.target)).await;
    let checks = doctor::examine(&facts);
    let worst = checks.iter().map(|check| check.grade).max().unwrap_or(Grade::Ok);
    let version = env!("CARGO_PKG_VERSION");
    let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
    if setting.global.json {
        let report = Report { schema: ui::SCHEMA, version, system, worst, checks: &checks };
        ui::print_document(&report).map_err(failed(Exit::Error))?;
    } else {
        ui::print(&text(&format!("supa-safe {version}, {system}"), &checks)).map_err(failed(Exit::Error))?;
    }
    Ok(if worst == Grade::Fail { Exit::Error } else { Exit::Done })
}

fn text(head: &str, checks: &[Check]) -> String {
    let mut lines = vec![head.to_owned()];
    let mut group = None;
    for check in checks {
        if group.replace(check.group) != Some(check.group) {
            lines.push(check.group.as_str().to_owned());
        }
        let mark = match check.grade {
            Grade::Ok => Mark::Ok,
            Grade::Warn => Mark::Warn,
            Grade::Fail => Mark::Fail,
        };
        lines.push(format!("  {} {:<16} {}", ui::marked(mark), check.name, check.found));
        lines.extend(check.needed.map(|needed| format!("       {:<16} {needed}", "needed")));
        lines.extend(check.fix.as_ref().map(|fix| format!("       {:<16} {fix}", "fix")));
    }
    let count = |grade| checks.iter().filter(|check| check.grade == grade).count();
    lines.push(format!(
        "{} checks: {} failed, {} warned",
        checks.len(),
        count(Grade::Fail),
        count(Grade::Warn)
    ));
    lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat()
}

async fn gather(setting: &Setting, args: &TargetArgs) -> Facts {
    let surroundings = &setting.surroundings;
    let project = super::project(setting);
    let config = open::config(setting, None);
    // A policy file with a mistake is a finding of its own, and no reason to find nothing else.
    let usable = config.as_ref().ok().cloned().or_else(|| without_file(setting));
    let way = tokio::time::timeout(PATIENCE, way(setting, usable.as_ref(), args)).await.unwrap_or_default();
    let (cli, installations, answer) = tokio::join!(
        find_cli(surroundings, usable.as_ref(), &project),
        find_postgres(surroundings, usable.as_ref()),
        ask(setting, usable.as_ref(), way.as_ref().and_then(|way| way.as_ref().ok())),
    );
    let name = match &usable {
        Some(config) => target::names(setting, config, args).await.ok(),
        None => None,
    };
    let name = name.and_then(|(names, _)| names.into_iter().next());
    let shared = shared(setting, usable.as_ref(), name.as_deref()).await;
    let path = surroundings.path();
    let found = |program: &str| proc::find(program, &path).ok();
    Facts {
        cli,
        installations,
        git: git(setting),
        node: found("node"),
        engine: found("docker").or_else(|| found("podman")),
        policy: policy(setting, config.as_ref(), project.as_ref().ok(), name.as_deref()),
        token: token(surroundings),
        door: way.map(|way| way.map(|wanted| door_of(&wanted.connection, wanted.kind))),
        answer,
        keys: (
            surroundings.variable("SUPA_SAFE_S3_ACCESS_KEY_ID").is_some(),
            surroundings.variable("SUPA_SAFE_S3_SECRET_ACCESS_KEY").is_some(),
        ),
        storage_url: storage_url(surroundings, usable.as_ref(), name.as_deref()),
        profile: surroundings.variable("SUPA_SAFE_S3_PROFILE"),
        hook: hook(setting),
        shared,
        state: state(setting, usable.map_or(config, Ok), name.as_deref()),
        project: project
            .map(|project| look_at(&project))
            .map_err(|error| Failure::new(Exit::Error, &error).hint("supabase init, or --workdir <folder>")),
    }
}

/// The settings without a policy file.
fn without_file(setting: &Setting) -> Option<Config> {
    let flags = Flags { pg_bin: setting.global.pg_bin.clone(), ..Flags::default() };
    Config::load(&setting.surroundings, flags, None).ok()
}

/// The way to the target, when one was named, or when the linked one can be tried without asking
/// anybody for a password, or the platform for a role.
async fn way(
    setting: &Setting,
    config: Option<&Config>,
    args: &TargetArgs,
) -> Option<Result<Wanted, Failure>> {
    let by_url =
        args.local || args.db_url.is_some() || setting.surroundings.variable("SUPA_SAFE_DB_URL").is_some();
    let has_password = args.password.is_some()
        || args.password_file.is_some()
        || setting.surroundings.variable("SUPABASE_DB_PASSWORD").is_some();
    if by_url || has_password {
        Some(target::find(setting, config?, args, &mut Vec::new()).await)
    } else {
        None
    }
}

fn door_of(connection: &Connection, kind: EndpointKind) -> Door {
    Door {
        address: connection.address(),
        kind,
        is_loopback: connection.is_loopback(),
        has_password: connection.password.is_some(),
        ssl_mode: connection.ssl_mode,
    }
}

/// Asks the target about itself, in sessions that may only read.
async fn ask(
    setting: &Setting,
    config: Option<&Config>,
    way: Option<&Wanted>,
) -> Option<Result<Answer, Failure>> {
    let wanted = way?;
    let asked = async {
        let target = resolve::resolve(wanted.clone()).await.map_err(|error| resolve_failed(&error))?;
        let session = resolve::reopen(&target).await.map_err(|error| resolve_failed(&error))?;
        let clock = identity::clock(&session.client).await.map_err(failed(Exit::Error));
        let access = config.and_then(|config| open::storage(setting, config, &target).ok().flatten());
        let storage = match access {
            Some(storage) => try_storage(&storage.access, &session.client).await,
            None => None,
        };
        session.close().await;
        Ok(Answer {
            storage,
            major: target.server.major(),
            version: target.server.version(),
            tls: target.server.tls,
            clock_ahead: clock?.duration_since((setting.clock)()),
        })
    };
    Some(tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| {
        let text =
            format!("`{}` did not answer within {} s", wanted.connection.address(), PATIENCE.as_secs());
        Err(Failure::message(Exit::TargetNotFound, text).hint("Check the network, then run again"))
    }))
}

/// Lists a page of one bucket that has objects; says what is wrong with the keys.
async fn try_storage(access: &Access, database: &tokio_postgres::Client) -> Option<String> {
    access.keys.as_ref()?;
    let counts = match storage::has_tables(database).await {
        Ok(true) => storage::counts(database).await.ok()?,
        _ => return None,
    };
    let bucket = counts.into_iter().find_map(|(bucket, count)| bucket.filter(|_| count > 0))?;
    let page = async { Client::new(access).await?.pages(&bucket).next().await };
    match tokio::time::timeout(STORAGE_PATIENCE, page).await {
        Err(_) => {
            Some(format!("`{}` did not answer within {} s", access.endpoint, STORAGE_PATIENCE.as_secs()))
        }
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(Some(page))) if !page.is_empty() => None,
        Ok(Ok(_)) => Some(
            "they sign in and are shown no objects, as a role is that row-level security hides them from"
                .to_owned(),
        ),
    }
}

/// What is wrong with the address of Storage.
fn storage_url(surroundings: &Surroundings, config: Option<&Config>, name: Option<&str>) -> Option<String> {
    let names: Vec<&str> = name.into_iter().collect();
    match config?.storage(surroundings, &names, None) {
        Err(error @ config::Error::Storage(_)) => Some(error.to_string()),
        _ => None,
    }
}

async fn find_cli(
    surroundings: &Surroundings,
    config: Option<&Config>,
    project: &Result<frozen::Project, frozen::Error>,
) -> Result<Cli, Failure> {
    // Asked for its version, the CLI writes its telemetry into the home folder, unless told not to.
    let quiet = surroundings.clone().with([("SUPABASE_TELEMETRY_DISABLED", Some("1".into()))]);
    let search = supabase::Search {
        explicit: config.and_then(|config| config.supabase_bin.clone()),
        project_root: project
            .as_ref()
            .map_or_else(|_| surroundings.cwd.clone(), |project| project.root.clone()),
        env: quiet.env().clone(),
    };
    let found = supabase::find(&search).await;
    let cli = found.map_err(|error| {
        Failure::new(Exit::Error, &error)
            .hint("npm install --save-dev supabase, or name it in SUPA_SAFE_SUPABASE_BIN")
    })?;
    let other = cli.other_on_path.as_ref().map(|(path, version)| format!("{version} ({})", path.display()));
    Ok(Cli { name: cli.name(), version: cli.version, other })
}

async fn find_postgres(surroundings: &Surroundings, config: Option<&Config>) -> Vec<Installation> {
    let explicit = config.map(|config| config.pg_bins.clone()).unwrap_or_default();
    let search = Search { explicit, path: surroundings.path(), home: surroundings.home() };
    installs::installations(&search).await
}

fn git(setting: &Setting) -> Option<String> {
    let surroundings = &setting.surroundings;
    Git::at(surroundings.env(), &surroundings.cwd).ok()?.version().ok()
}

fn look_at(project: &frozen::Project) -> doctor::Project {
    let read = |name: &str| fs_err::read_to_string(project.supabase_dir.join(name)).ok();
    let linked = || {
        let stack: serde_json::Value = serde_json::from_str(&read(".link.json")?).ok()?;
        Some(stack.pointer("/active_branch/ref")?.as_str()?.to_owned())
    };
    doctor::Project {
        root: project.root.clone(),
        config: project.config(3).map(drop).map_err(|error| error.to_string()),
        link: read(".temp/project-ref").map(|text| text.trim().to_owned()).or_else(linked),
        has_packages: project.root.join("package.json").exists(),
    }
}

fn policy(
    setting: &Setting,
    config: Result<&Config, &Failure>,
    project: Option<&frozen::Project>,
    target: Option<&str>,
) -> Result<Option<PathBuf>, Failure> {
    let again = |failure: &Failure| {
        let mut text = Failure::message(failure.exit, failure.chain.join(": "));
        text.hints.clone_from(&failure.hints);
        text
    };
    let config = config.map_err(again)?;
    let wrong = |error| Failure::new(Exit::Usage, &error).hint("supa-safe explain policy");
    let target: Vec<&str> = target.into_iter().collect();
    config.policy(&target).map_err(wrong)?;
    config.keep(&target).map_err(wrong)?;
    let named = setting.global.config.as_ref().map(|path| setting.surroundings.cwd.join(path));
    let usual = project.map(|project| project.supabase_dir.join(config::FILE));
    Ok(named.or(usual).filter(|path| path.exists()))
}

fn token(surroundings: &Surroundings) -> Option<&'static str> {
    if surroundings.variable("SUPABASE_ACCESS_TOKEN").is_some() {
        return Some("SUPABASE_ACCESS_TOKEN");
    }
    let file = surroundings.home()?.join(".supabase/access-token");
    file.is_file().then_some("~/.supabase/access-token")
}

fn hook(setting: &Setting) -> Hook {
    let place = match hook_command::place(setting) {
        Ok(place) => place,
        Err(error) => return Hook::None(error.to_string()),
    };
    match (place.runs(), place.check()) {
        (Err(error), _) => Hook::None(error.to_string()),
        (Ok(Runs::Nothing | Runs::Foreign), Err(error @ hook::Error::Outside { .. })) => {
            Hook::Elsewhere(error.to_string())
        }
        (Ok(runs), _) => Hook::Place(runs, place.manager().cloned()),
    }
}

/// Looks into the shared store.
async fn shared(setting: &Setting, config: Option<&Config>, name: Option<&str>) -> Option<Shared> {
    let names: Vec<&str> = name.into_iter().collect();
    let location = match bucket::location(setting, config?, &names) {
        Ok(location) => location?,
        Err(failure) => return Some(Shared { name: String::new(), tried: Err(failure) }),
    };
    let tried = tokio::time::timeout(PATIENCE, look_into(&location, name)).await;
    let tried = tried.unwrap_or_else(|_| {
        let text = format!("`{}` did not answer within {} s", location.access.endpoint, PATIENCE.as_secs());
        Err(Failure::message(Exit::Error, text).hint("Check the network, then run again"))
    });
    Some(Shared { name: location.address.to_string(), tried })
}

async fn look_into(location: &Location, name: Option<&str>) -> Result<(), Failure> {
    let looked = async { Bucket::open(location, &folder_name(name.unwrap_or("doctor"))).await?.look().await };
    looked.await.map_err(|error: store::Error| bucket::store_failed(&error))
}

fn state(setting: &Setting, config: Result<Config, Failure>, target: Option<&str>) -> Result<State, Failure> {
    let dir = config?.state_dir;
    let look = disk::look_at_dir(&dir);
    let store = target.and_then(|target| Store::existing(&dir, &folder_name(target)));
    let mut leftovers = store.as_ref().map(Store::leftovers).unwrap_or_default();
    let scratches = scratch::leftovers(&setting.surroundings.temp_dir());
    leftovers.extend(scratches.into_iter().map(|dir| dir.display().to_string()));
    let snapshot_bytes = store
        .as_ref()
        .and_then(|store| open::pick(store, None).ok())
        .map_or(0, |newest| newest.manifest.files.iter().map(|file| file.bytes).sum());
    let pushes = store.as_ref().and_then(|store| prune::pushes(store).ok()).unwrap_or_default();
    let unsettled = pushes.into_iter().next_back().filter(|push| !push.settled);
    Ok(State {
        problem: look.problem,
        is_open: look.is_open,
        free_bytes: look.free_bytes,
        snapshot_bytes,
        leftovers,
        unsettled: unsettled.map(|push| push.run),
        dir,
    })
}
