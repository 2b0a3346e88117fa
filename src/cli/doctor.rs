//! `supa-safe doctor`: looks at everything that a run needs, and changes nothing.

use super::fail::{cloud_failed, failed, linked_sign_in_failed, resolve_failed, staging_failed};
use super::{Setting, TargetArgs, bucket, hook as hook_command, open, prune, staging, target};
use crate::config::{self, Config, Flags, Linked, Surroundings};
use crate::disk;
use crate::doctor::{self, Answer, Check, Cli, Door, Facts, Grade, Hook, Keys, Scratch, Shared, State};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen;
use crate::hook::{self, Runs};
use crate::objects::{self, Access, Client};
use crate::postgres::{connect, identity, storage};
use crate::proc;
use crate::resolve::{self, Wanted};
use crate::scratch::{self, engine};
use crate::store::{self, Bucket, Location, Store};
use crate::target::{Project, Target, folder_name};
use crate::tools::git::Git;
use crate::tools::installs::{self, Installation, Search};
use crate::tools::supabase::cloud::{self, Cloud, Folder};
use crate::tools::supabase::{self, Supabase};
use crate::ui::{self, Mark};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

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
    let described = match &usable {
        Some(config) => target::described(setting, config, args).await.ok(),
        None => None,
    };
    let found = project.as_ref().ok().map(look_at);
    let is_named = described.is_some()
        || is_named(surroundings, args)
        || found.as_ref().is_some_and(|found| found.link.is_some());
    let (names, meant) = described.unwrap_or_default();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let name = names.first().copied();
    let (keys, access) = keys(surroundings, usable.as_ref(), &names, meant.as_ref());
    // Roots that are built in are written to a file, and the CLI writes into its home folder: for a
    // linked project both are elsewhere, and go away again.
    let elsewhere = meant.as_ref().and_then(|_| tempfile::tempdir().ok());
    let way = match &usable {
        Some(config) if is_named => {
            Some(way(setting, config, args, elsewhere.as_ref().map(TempDir::path)).await)
        }
        _ => None,
    };
    let (cli, installations, (answer, tried)) = tokio::join!(
        find_cli(surroundings, usable.as_ref(), &project),
        find_postgres(surroundings, usable.as_ref()),
        ask(setting, way.as_ref().and_then(|way| way.as_ref().ok()), access.as_ref()),
    );
    let signed_in = match (&cli, &meant, &elsewhere) {
        (Ok(cli), Some(meant), Some(dir)) => signed_in(surroundings, cli, meant, dir.path()).await,
        _ => None,
    };
    let shared = shared(setting, usable.as_ref(), &names).await;
    let target = answer.as_ref().and_then(|answer| answer.as_ref().ok()?.as_ref()).map(|(_, target)| target);
    let scratch = scratch_of(setting, usable.as_ref().zip(target)).await;
    let path = surroundings.path();
    let program = |program: &str| proc::find(program, &path).ok();
    Facts {
        cli: cli.map(|cli| shown(&cli)),
        installations,
        git: git(setting),
        node: program("node"),
        engine: program("docker").or_else(|| program("podman")),
        policy: policy(setting, config.as_ref(), project.as_ref().ok(), &names),
        token: token(surroundings),
        has_project: meant.is_some(),
        signed_in,
        door: way.map(|way| way.map(|wanted| door_of(&wanted))),
        answer: answer.map(|answer| answer.map(|known| known.map(|(answer, _)| answer))),
        keys,
        tried,
        storage_url: storage_url(surroundings, usable.as_ref(), &names),
        hook: hook(setting),
        shared,
        scratch,
        state: state(setting, usable.map_or(config, Ok), name),
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

/// Whether flags or the environment name a target, be it a wrong one.
fn is_named(surroundings: &Surroundings, args: &TargetArgs) -> bool {
    let variables = ["SUPA_SAFE_DB_URL", "SUPABASE_PROJECT_ID"];
    args.local
        || args.linked
        || args.db_url.is_some()
        || args.remote.is_some()
        || args.target.is_some()
        || args.project_ref.is_some()
        || variables.iter().any(|name| surroundings.variable(name).is_some())
}

/// The way to the target; nobody is asked for a password, nor the platform for a role.
async fn way(
    setting: &Setting,
    config: &Config,
    args: &TargetArgs,
    elsewhere: Option<&Path>,
) -> Result<Wanted, Failure> {
    let (mut setting, mut config) = (setting.clone(), config.clone());
    let by_url = args.db_url.is_some() || setting.surroundings.variable("SUPA_SAFE_DB_URL").is_some();
    if let Some(dir) = elsewhere.filter(|_| !by_url) {
        config.state_dir = dir.to_owned();
        setting.surroundings = at_home_in(&setting.surroundings, dir);
    }
    let found = Box::pin(target::look(&setting, &config, args));
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| {
        let text = format!("no way to the target was found within {} s", PATIENCE.as_secs());
        Err(Failure::message(Exit::TargetNotFound, text).hint("Check the network, then run again"))
    })
}

/// The surroundings of a CLI that only looks: another home folder, and the token of the own one.
fn at_home_in(surroundings: &Surroundings, home: &Path) -> Surroundings {
    let token = surroundings.variable("SUPABASE_ACCESS_TOKEN").or_else(|| {
        let text = fs_err::read_to_string(token_file(surroundings)?).ok()?;
        Some(text.trim().to_owned())
    });
    surroundings.clone().with([
        ("HOME", Some(home.into())),
        ("SUPABASE_HOME", None),
        ("SUPABASE_ACCESS_TOKEN", token.map(Into::into)),
        ("SUPABASE_TELEMETRY_DISABLED", Some("1".into())),
    ])
}

fn door_of(wanted: &Wanted) -> Door {
    let connection = &wanted.connection;
    Door {
        address: connection.address(),
        kind: wanted.kind,
        is_loopback: connection.is_loopback(),
        has_password: connection.password.is_some(),
        is_linked: wanted.linked,
        ssl_mode: connection.ssl_mode,
    }
}

/// What signs for Storage, and how to try it.
fn keys(
    surroundings: &Surroundings,
    config: Option<&Config>,
    names: &[&str],
    project: Option<&Project>,
) -> (Keys, Option<Access>) {
    const PAIR: [&str; 2] = ["SUPA_SAFE_S3_ACCESS_KEY_ID", "SUPA_SAFE_S3_SECRET_ACCESS_KEY"];
    let [id, secret] = PAIR;
    let keys = match PAIR.map(|name| surroundings.variable(name).is_some()) {
        [true, false] => return (Keys::Half([id, secret]), None),
        [false, true] => return (Keys::Half([secret, id]), None),
        [true, true] => Keys::Set("set".to_owned()),
        [false, false] => match surroundings.variable("SUPA_SAFE_S3_PROFILE") {
            Some(profile) => Keys::Set(format!("AWS profile {profile}")),
            None => Keys::None(Vec::new()),
        },
    };
    let linked = project.map(|project| Linked {
        project_ref: project.project_ref.as_str(),
        host: &project.profile.project_host,
    });
    let storage = config.and_then(|config| config.storage(surroundings, names, linked).ok().flatten());
    let Some(storage) = storage else { return (keys, None) };
    let keys = match &storage.access.keys {
        Some(objects::Keys::Profile { name, .. }) => Keys::Set(format!("AWS profile {name}")),
        Some(objects::Keys::Session { .. }) => Keys::Set("the project's own keys".to_owned()),
        Some(_) => Keys::Set("set".to_owned()),
        None => Keys::None(storage.withheld.iter().map(ToString::to_string).collect()),
    };
    (keys, Some(storage.access))
}

/// What the target said of itself, and what is wrong with the keys of Storage.
type Asked = (Option<Result<Option<(Answer, Target)>, Failure>>, Option<String>);

/// Asks the target about itself, in sessions that may only read, and Storage for a page of a listing.
async fn ask(setting: &Setting, way: Option<&Wanted>, access: Option<&Access>) -> Asked {
    let Some(wanted) = way else { return (None, None) };
    let failed_so = |error| {
        if wanted.linked { linked_sign_in_failed(&error) } else { resolve_failed(&error) }
    };
    let asked = async {
        let target = match resolve::resolve(wanted.clone()).await {
            Err(resolve::Error::Connect(connect::Error::NoPassword { .. })) if wanted.linked => {
                return Ok((None, try_storage(access, None).await));
            }
            resolved => resolved.map_err(failed_so)?,
        };
        let session = resolve::reopen(&target).await.map_err(failed_so)?;
        let clock = identity::clock(&session.client).await.map_err(failed(Exit::Error));
        let tried = try_storage(access, Some(&session.client)).await;
        session.close().await;
        let answer = Answer {
            major: target.server.major(),
            version: target.server.version(),
            tls: target.server.tls,
            clock_ahead: clock?.duration_since((setting.clock)()),
        };
        Ok((Some((answer, target)), tried))
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok((answer, tried))) => (Some(Ok(answer)), tried),
        Ok(Err(failure)) => (Some(Err(failure)), None),
        Err(_) => {
            let address = wanted.connection.address();
            let text = format!("`{address}` did not answer within {} s", PATIENCE.as_secs());
            let failure = Failure::message(Exit::TargetNotFound, text);
            (Some(Err(failure.hint("Check the network, then run again"))), None)
        }
    }
}

/// Asks docker and podman whether they have what a rehearsal of the target needs.
async fn scratch_of(setting: &Setting, known: Option<(&Config, &Target)>) -> Option<Scratch> {
    let (config, target) = known?;
    let wish = open::wish(setting, config, target).ok()?;
    let container = engine::at_hand(&target.server, &wish, setting.surroundings.env()).await;
    let staging = staging_of(setting, config, target).await;
    Some(Scratch { preference: wish.preference, container, staging })
}

/// Looks whether the staging server may be one.
async fn staging_of(setting: &Setting, config: &Config, target: &Target) -> Option<doctor::Staging> {
    let staging = staging::set(setting, config, target).transpose()?;
    let address = staging.as_ref().map_or_else(|_| "none".to_owned(), |one| one.connection.address());
    let refused = match staging {
        Ok(staging) => {
            Box::pin(crate::scratch::staging::check(&staging)).await.err().map(|error| staging_failed(&error))
        }
        Err(failure) => Some(failure),
    };
    Some(doctor::Staging { address, refused })
}

/// Lists a page of one bucket that has objects, or, where no database says which, the buckets; says what
/// is wrong with the keys.
async fn try_storage(access: Option<&Access>, database: Option<&tokio_postgres::Client>) -> Option<String> {
    let access = access.filter(|access| access.keys.is_some())?;
    let bucket = match database {
        Some(database) => Some(bucket_with_objects(database).await?),
        None => None,
    };
    let asked = async {
        let client = Client::new(access).await?;
        match &bucket {
            Some(bucket) => Ok(client.pages(bucket).next().await?.is_some_and(|page| !page.is_empty())),
            None => client.sign_in().await.map(|()| true),
        }
    };
    match tokio::time::timeout(STORAGE_PATIENCE, asked).await {
        Err(_) => {
            Some(format!("`{}` did not answer within {} s", access.endpoint, STORAGE_PATIENCE.as_secs()))
        }
        Ok(Err(error @ objects::Error::Profile { .. })) => {
            Some(Failure::new(Exit::Error, &error).chain.join(": "))
        }
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(true)) => None,
        Ok(Ok(false)) => Some(
            "they sign in and are shown no objects, as a role is that row-level security hides them from"
                .to_owned(),
        ),
    }
}

async fn bucket_with_objects(database: &tokio_postgres::Client) -> Option<String> {
    if !storage::has_tables(database).await.ok()? {
        return None;
    }
    let counts = storage::counts(database).await.ok()?;
    counts.into_iter().find_map(|(bucket, count)| bucket.filter(|_| count > 0))
}

/// Asks the platform for what a run asks first, which needs a token and a project that it sees. Nothing
/// where no token is at hand, or the CLI cannot be asked so.
async fn signed_in(
    surroundings: &Surroundings,
    cli: &Supabase,
    project: &Project,
    home: &Path,
) -> Option<Result<(), Failure>> {
    token(surroundings)?;
    let cli = cli.clone().with_env(at_home_in(surroundings, home).env().clone());
    let cloud = Cloud::new(cli, project.project_ref.as_str()).ok()?;
    let folder = Folder::new(home.join("secrets")).ok()?;
    match tokio::time::timeout(PATIENCE, cloud.secrets(&folder)).await {
        Ok(Ok(_)) => Some(Ok(())),
        Ok(Err(cloud::Error::Program(_) | cloud::Error::Unreadable(_) | cloud::Error::Io(_))) => None,
        Ok(Err(error)) => Some(Err(cloud_failed(&error))),
        Err(_) => {
            let text = format!("the Management API did not answer within {} s", PATIENCE.as_secs());
            Some(Err(Failure::message(Exit::Error, text).hint("Check the network, then run again")))
        }
    }
}

/// What is wrong with the address of Storage.
fn storage_url(surroundings: &Surroundings, config: Option<&Config>, names: &[&str]) -> Option<String> {
    match config?.storage(surroundings, names, None) {
        Err(error @ config::Error::Storage(_)) => Some(error.to_string()),
        _ => None,
    }
}

async fn find_cli(
    surroundings: &Surroundings,
    config: Option<&Config>,
    project: &Result<frozen::Project, frozen::Error>,
) -> Result<Supabase, Failure> {
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
    found.map_err(|error| {
        Failure::new(Exit::Error, &error)
            .hint("npm install --save-dev supabase, or name it in SUPA_SAFE_SUPABASE_BIN")
    })
}

fn shown(cli: &Supabase) -> Cli {
    let other = cli.other_on_path.as_ref().map(|(path, version)| format!("{version} ({})", path.display()));
    Cli { name: cli.name(), version: cli.version, other }
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
    target: &[&str],
) -> Result<Option<PathBuf>, Failure> {
    let again = |failure: &Failure| {
        let mut text = Failure::message(failure.exit, failure.chain.join(": "));
        text.hints.clone_from(&failure.hints);
        text
    };
    let config = config.map_err(again)?;
    let wrong = |error| Failure::new(Exit::Usage, &error).hint("supa-safe explain policy");
    config.policy(target).map_err(wrong)?;
    config.keep(target).map_err(wrong)?;
    config.scratch(&setting.surroundings, None).map_err(wrong)?;
    let named = setting.global.config.as_ref().map(|path| setting.surroundings.cwd.join(path));
    let usual = project.map(|project| project.supabase_dir.join(config::FILE));
    Ok(named.or(usual).filter(|path| path.exists()))
}

fn token(surroundings: &Surroundings) -> Option<&'static str> {
    if surroundings.variable("SUPABASE_ACCESS_TOKEN").is_some() {
        return Some("SUPABASE_ACCESS_TOKEN");
    }
    token_file(surroundings)?.is_file().then_some("~/.supabase/access-token")
}

fn token_file(surroundings: &Surroundings) -> Option<PathBuf> {
    Some(surroundings.home()?.join(".supabase/access-token"))
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
async fn shared(setting: &Setting, config: Option<&Config>, names: &[&str]) -> Option<Shared> {
    let location = match bucket::location(setting, config?, names) {
        Ok(location) => location?,
        Err(failure) => return Some(Shared { name: String::new(), tried: Err(failure) }),
    };
    let tried = tokio::time::timeout(PATIENCE, look_into(&location, names.first().copied())).await;
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
