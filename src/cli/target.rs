//! Which target the flags, the environment, and the project's files mean.

use super::fail::{branches_failed, failed, linked_failed, login_failed, project_failed, url_failed};
use super::{Setting, TargetArgs, open, prepare};
use crate::config::{Config, env_files};
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen;
use crate::resolve::Wanted;
use crate::resolve::linked::{self, Door};
use crate::secret::Secret;
use crate::target::{
    Connection, Defaults, EndpointKind, Lease, Link, Profile, Project, ProjectRef, Renewed, Roots,
    SUPABASE_ROOTS, SslMode,
};
use crate::tools::supabase::Login;
use crate::tools::supabase::cloud::{self, Cloud, Folder};
use crate::ui::{self, Asked};
use futures_util::future::BoxFuture;
use std::path::PathBuf;

/// The port of `supabase start`'s database (CLI documentation, `[db] port`).
const LOCAL_PORT: u16 = 54322;
/// Where the platform's roots are put for programs that want a file.
const ROOTS_FILE: &str = "supabase-roots.pem";

/// What a run is about, before anything was connected to.
enum Meant {
    /// The stack of `supabase start`.
    Local,
    /// A database by its URL, and the project that it is said to belong to.
    Url(String, Option<ProjectRef>),
    /// A project of the platform.
    Project(Box<Chosen>),
}

/// A project, and what its folder says.
struct Chosen {
    project: Project,
    link: Link,
    /// What chose it, for a note, when that was not the link.
    by: Option<String>,
    folder: Option<PathBuf>,
}

/// Reads flags, environment, and files in the order of the CLI. Without any of them it is the linked
/// project, whatever the CLI's major.
async fn meant(setting: &Setting, config: &Config, args: &TargetArgs) -> Result<Meant, Failure> {
    if args.local {
        return Ok(Meant::Local);
    }
    let remote = match &args.remote {
        None => None,
        Some(None) => return chosen(setting, None),
        Some(Some(text)) => Some(text),
    };
    if let Some(text) = args.db_url.as_ref().or_else(|| remote.filter(|text| text.contains("://"))) {
        return Ok(Meant::Url(text.clone(), args.project_ref.clone()));
    }
    if let Some(text) = remote {
        let project_ref = match text.parse() {
            Ok(project_ref) => project_ref,
            Err(_) => of_branch(setting, config, text).await?,
        };
        return chosen(setting, Some((project_ref, "--remote")));
    }
    if let Some(name) = &args.target {
        return chosen(setting, Some((of_remotes(setting, name)?, "--target")));
    }
    match (&args.project_ref, setting.surroundings.variable("SUPA_SAFE_DB_URL")) {
        (_, Some(url)) if !args.linked => Ok(Meant::Url(url, args.project_ref.clone())),
        (Some(project_ref), _) => chosen(setting, Some((project_ref.clone(), "--project-ref"))),
        (None, _) => chosen(setting, None),
    }
}

/// The project of one of the `[remotes.*]`.
fn of_remotes(setting: &Setting, name: &str) -> Result<ProjectRef, Failure> {
    let remotes = super::project(setting)
        .and_then(|project| project.remotes())
        .map_err(|error| project_failed(&error))?;
    let mut named = remotes.iter().filter(|(known, _)| known == name);
    match (named.next(), named.next()) {
        (Some((_, project_ref)), None) => Ok(project_ref.clone()),
        (Some(_), Some(_)) => Err(Failure::message(
            Exit::Usage,
            format!("[remotes.{name}] has one ref in `config.toml` and another one in the JSON form of it"),
        )
        .hint("Delete the file that you do not use, or pass `--project-ref <ref>`")),
        (None, _) => {
            let known: Vec<&str> = remotes.iter().map(|(known, _)| known.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(Failure::message(Exit::TargetNotFound, format!("the configuration has no [remotes.{name}]"))
                .hint(format!("Use one of its remotes ({known}), or pass `--project-ref <ref>`")))
        }
    }
}

/// The project that a branch of the linked one is, which only the platform knows.
async fn of_branch(setting: &Setting, config: &Config, name: &str) -> Result<ProjectRef, Failure> {
    let folder = super::project(setting).map_err(|error| project_failed(&error))?;
    let link = read_link(setting, &folder)?;
    // A linked branch keeps the name of its parent beside it.
    let parent = link.named.as_ref().map(|named| &named.project_ref).or_else(|| link.project_ref());
    let Some(parent) = parent else { return Err(not_linked(setting, Some(&folder))) };
    let cli = prepare::find_cli(setting, config).await?;
    let scratch = tempfile::tempdir().map_err(failed(Exit::Error))?;
    let asked = async {
        let calls = Folder::new(scratch.path())?;
        Cloud::new(cli, parent.as_str())?.branches(&calls).await
    };
    let branches = asked.await.map_err(|error| branches_failed(&error))?;
    let known: Vec<&str> = branches.iter().map(|branch| branch.name.as_str()).collect();
    let own = branches.iter().find(|branch| branch.name == name);
    own.and_then(|branch| branch.project_ref.parse().ok()).ok_or_else(|| {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let text = format!("`{name}` is neither a project ref, a URL, nor a branch of {parent}");
        Failure::message(Exit::TargetNotFound, text)
            .hint(format!("Use one of its branches ({known}), or pass `--remote=<ref>`"))
    })
}

fn chosen(setting: &Setting, flag: Option<(ProjectRef, &str)>) -> Result<Meant, Failure> {
    let folder = super::project(setting).ok();
    let link = match &folder {
        Some(folder) => read_link(setting, folder)?,
        None => Link::default(),
    };
    let exported = match setting.surroundings.variable("SUPABASE_PROJECT_ID") {
        Some(text) if flag.is_none() => Some(text.parse::<ProjectRef>().map_err(|error| {
            Failure::new(Exit::Usage, &error).hint("Correct or unset SUPABASE_PROJECT_ID in the environment")
        })?),
        _ => None,
    };
    let explicit = flag.or_else(|| Some((exported?, "SUPABASE_PROJECT_ID")));
    let Some((project_ref, by)) = explicit
        .map(|(project_ref, by)| (project_ref, Some(by)))
        .or_else(|| Some((link.project_ref()?.clone(), None)))
    else {
        return Err(not_linked(setting, folder.as_ref()));
    };
    let other = link.project_ref().filter(|linked| **linked != project_ref);
    let by = by.zip(other).map(|(by, linked)| format!("{by} names the project; the linked one is {linked}"));
    let project = describe(setting, project_ref, &link)?;
    let folder = folder.map(|folder| folder.root);
    Ok(Meant::Project(Box::new(Chosen { project, link, by, folder })))
}

fn not_linked(setting: &Setting, folder: Option<&frozen::Project>) -> Failure {
    let by_url = "Pass `--db-url <url>` or set SUPA_SAFE_DB_URL for a database by its URL; `--local` for the stack of `supabase start`";
    if let Some(workdir) = super::workdir(setting).filter(|workdir| !workdir.is_dir()) {
        let text = format!("no target was given, and the folder `{}` does not exist", workdir.display());
        return Failure::message(Exit::TargetNotFound, text)
            .hint("Correct `--workdir`, or SUPABASE_WORKDIR")
            .hint(by_url);
    }
    let text = match folder {
        Some(folder) => {
            format!("`{}` is not linked to a project, and no target was given", folder.root.display())
        }
        None => "no target was given, and here is no Supabase project".to_owned(),
    };
    Failure::message(Exit::TargetNotFound, text)
        .hint("Run `supabase link --project-ref <ref>`, or pass `--project-ref <ref>`")
        .hint(by_url)
}

fn read_link(setting: &Setting, folder: &frozen::Project) -> Result<Link, Failure> {
    let exported = setting.surroundings.variable("SUPABASE_EXPERIMENTAL_STACK");
    let stack = exported.is_some_and(|value| value == "1" || value == "true") || folder.wants_stack();
    linked::read(&folder.root, stack).map_err(|error| linked_failed(&error, None))
}

/// Puts to a ref what the files beside it say.
fn describe(setting: &Setting, project_ref: ProjectRef, link: &Link) -> Result<Project, Failure> {
    // A configuration that cannot be read is told when it is needed.
    let remotes = super::project(setting).and_then(|folder| folder.remotes()).unwrap_or_default();
    let remotes =
        remotes.into_iter().filter(|(_, known)| *known == project_ref).map(|(name, _)| name).collect();
    let profile = match setting.surroundings.variable("SUPABASE_PROFILE") {
        Some(name) => linked::profile(&name, &setting.surroundings.cwd)
            .map_err(|error| linked_failed(&error, Some(&project_ref)))?,
        None => Profile::default(),
    };
    Ok(Project { name: link.name_of(&project_ref), remotes, profile, project_ref })
}

/// The names of the target, as [`crate::target::Target::names`], and its project, without a word to
/// the target.
pub(super) async fn names(
    setting: &Setting,
    config: &Config,
    args: &TargetArgs,
) -> Result<(Vec<String>, Option<ProjectRef>), Failure> {
    let (names, project) = described(setting, config, args).await?;
    Ok((names, project.map(|project| project.project_ref)))
}

/// The same with all that is known of the project.
pub(super) async fn described(
    setting: &Setting,
    config: &Config,
    args: &TargetArgs,
) -> Result<(Vec<String>, Option<Project>), Failure> {
    let (name, project) = match meant(setting, config, args).await? {
        Meant::Local => (local(setting).name(), None),
        Meant::Url(url, said) => {
            let connection = from_url(&url, &setting.surroundings.connection_defaults())?;
            (name_of_url(&connection), project_of_url(setting, &connection, said)?)
        }
        Meant::Project(chosen) => (chosen.project.project_ref.to_string(), Some(chosen.project)),
    };
    let Some(project) = project else { return Ok((vec![name], None)) };
    let names = [name, project.project_ref.to_string()].into_iter().chain(project.remotes.clone()).collect();
    Ok((names, Some(project)))
}

/// The project that a database belongs to, by its own address or as it was said.
fn project_of_url(
    setting: &Setting,
    connection: &Connection,
    said: Option<ProjectRef>,
) -> Result<Option<Project>, Failure> {
    let project_ref = match (connection.project_ref(), said) {
        (Some(own), Some(said)) if own != said => {
            return Err(Failure::message(
                Exit::Usage,
                format!("the database is that of project `{own}`, and `--project-ref` names `{said}`"),
            )
            .hint("Leave out `--project-ref`, or give the URL of that project's database"));
        }
        (own, said) => own.or(said),
    };
    let Some(project_ref) = project_ref else { return Ok(None) };
    let link = match super::project(setting) {
        Ok(folder) => read_link(setting, &folder)?,
        Err(_) => Link::default(),
    };
    Ok(Some(describe(setting, project_ref, &link)?))
}

/// A URL whose host or user carries a ref leads to the same target as that project.
fn name_of_url(connection: &Connection) -> String {
    let own = connection.project_ref().filter(|_| connection.database == "postgres");
    own.map_or_else(|| connection.name(), String::from)
}

/// Finds the door and the password; what a person should know of it goes to the notes.
pub(super) async fn find(
    setting: &Setting,
    config: &Config,
    args: &TargetArgs,
    notes: &mut Vec<Event>,
) -> Result<Wanted, Failure> {
    search(setting, config, (args, SignIn::Wanted), notes).await
}

/// The same for who only looks: without a password at hand nobody is asked for one, and no role is lent.
pub(super) async fn look(setting: &Setting, config: &Config, args: &TargetArgs) -> Result<Wanted, Failure> {
    search(setting, config, (args, SignIn::AsItIs), &mut Vec::new()).await
}

/// What becomes of a linked project without a password at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignIn {
    /// A person is asked, and then the platform.
    Wanted,
    /// Nothing.
    AsItIs,
}

async fn search(
    setting: &Setting,
    config: &Config,
    (args, sign_in): (&TargetArgs, SignIn),
    notes: &mut Vec<Event>,
) -> Result<Wanted, Failure> {
    match meant(setting, config, args).await? {
        Meant::Local => {
            let connection = local(setting);
            let (name, kind) = (connection.name(), EndpointKind::Local);
            Ok(Wanted { name, connection, kind, project: None, linked: false })
        }
        Meant::Url(url, project_ref) => by_url(setting, args, (&url, project_ref), notes),
        Meant::Project(mut chosen) => {
            if args.password.is_some() {
                notes.push(seen_in_argv("SUPABASE_DB_PASSWORD"));
            }
            notes.extend(chosen.by.clone().map(|text| Event::Note { text }));
            notes.extend(traps(setting, &chosen));
            by_link(setting, config, (args, sign_in), (&mut chosen, notes)).await
        }
    }
}

fn by_url(
    setting: &Setting,
    args: &TargetArgs,
    (url, said): (&str, Option<ProjectRef>),
    notes: &mut Vec<Event>,
) -> Result<Wanted, Failure> {
    let mut defaults = setting.surroundings.connection_defaults();
    if let Some(password) = explicit_password(args)? {
        defaults.password = Some(password);
    }
    let connection = from_url(url, &defaults)?;
    let project = project_of_url(setting, &connection, said)?;
    let given = args.db_url.as_ref().or_else(|| args.remote.as_ref()?.as_ref());
    let has_password = |url: &String| url::Url::parse(url).is_ok_and(|url| url.password().is_some());
    if args.password.is_some() || given.is_some_and(has_password) {
        notes.push(seen_in_argv("PGPASSWORD"));
    }
    if !connection.ignored.is_empty() {
        notes.push(Event::Note {
            text: format!("the URL's {} has no meaning here and is left out", connection.ignored.join(", ")),
        });
    }
    let (name, kind) = (name_of_url(&connection), connection.kind());
    Ok(Wanted { name, connection, kind, project, linked: false })
}

async fn by_link(
    setting: &Setting,
    config: &Config,
    (args, sign_in): (&TargetArgs, SignIn),
    (chosen, notes): (&mut Chosen, &mut Vec<Event>),
) -> Result<Wanted, Failure> {
    let door = door(setting, config, chosen).await?;
    let project = &chosen.project;
    let name = project.project_ref.to_string();
    let (ssl_mode, roots) = tls(setting, config, project)?;
    if ssl_mode < SslMode::VerifyCa {
        notes.push(Event::Warning {
            text: format!(
                "the certificate of `{}` is not verified (sslmode={}): whoever is between could read and change everything",
                door.host,
                ssl_mode.as_str()
            ),
        });
    }
    let password = match password(setting, args, (chosen, notes))? {
        None if sign_in == SignIn::Wanted => asked(setting, &name).await?,
        found => found,
    };
    let (role, lease) = if password.is_some() || sign_in == SignIn::AsItIs {
        ("postgres".to_owned(), None)
    } else {
        let (role, lease) = lent(setting, config, chosen).await?;
        let text = format!("no password was given: signed in as `{role}`, which supabase lends for minutes");
        notes.push(Event::Note { text });
        (role, Some(lease))
    };
    let connection = Connection {
        user: format!("{role}{}", door.suffix),
        host: door.host,
        port: door.port,
        password,
        lease,
        database: "postgres".to_owned(),
        ssl_mode,
        roots,
        ignored: Vec::new(),
    };
    Ok(Wanted { name, connection, kind: door.kind, project: Some(project.clone()), linked: true })
}

/// The door to a project's database. Where the direct host is out of reach and the link names no pooler
/// of this project, as in a fresh clone, the platform is asked for it, and the folder stays as it is.
async fn door(setting: &Setting, config: &Config, chosen: &mut Chosen) -> Result<Door, Failure> {
    let project = &chosen.project;
    let failure = match linked::door(project, &chosen.link).await {
        Ok(door) => return Ok(door),
        Err(error) => {
            let failure = linked_failed(&error, Some(&project.project_ref));
            if !matches!(error, linked::Error::NoDoor { .. }) {
                return Err(failure);
            }
            failure
        }
    };
    let asked = async {
        let cloud = open::cloud(setting, config, &project.project_ref).await.ok()?;
        let scratch = tempfile::tempdir().ok()?;
        Some(cloud.pooler_url(&Folder::new(scratch.path()).ok()?).await)
    };
    let url = match asked.await {
        Some(Ok(Some(url))) => url,
        Some(Err(cloud::Error::NotSignedIn(_))) => {
            let hint = "Or sign supabase in (`supabase login`, or SUPABASE_ACCESS_TOKEN): it then tells the pooler's address";
            return Err(failure.hint(hint));
        }
        _ => return Err(failure),
    };
    let Ok(door) = linked::pooler(project, &url) else { return Err(failure) };
    chosen.link.pooler_url = Some((url, "the platform's answer"));
    Ok(door)
}

fn local(setting: &Setting) -> Connection {
    let port = super::project(setting).ok().and_then(|project| project.local_port());
    Connection::local_stack(port.unwrap_or(LOCAL_PORT))
}

fn from_url(url: &str, defaults: &Defaults) -> Result<Connection, Failure> {
    Connection::from_url(url, defaults).map_err(|error| url_failed(&error))
}

/// How strictly a linked project's server is checked: wholly, by the platform's own roots, unless
/// the environment or the policy say otherwise. The roots of another platform are not known.
fn tls(setting: &Setting, config: &Config, project: &Project) -> Result<(SslMode, Roots), Failure> {
    let Defaults { ssl_mode, ssl_root_cert, .. } = setting.surroundings.connection_defaults();
    let given =
        ssl_mode.map(|mode| mode.parse::<SslMode>()).transpose().map_err(|error| url_failed(&error))?;
    if given == Some(SslMode::Disable) {
        return Err(url_failed(&crate::target::Error::Plaintext(project.direct_host())));
    }
    let own_roots = config.root_cert.clone().or_else(|| ssl_root_cert.map(PathBuf::from));
    let own = own_roots.is_some();
    let default = Profile::default();
    let known = project.profile.project_host == default.project_host;
    let roots = match own_roots {
        Some(path) if path.as_os_str() == "system" => Roots::System,
        Some(path) => Roots::File(setting.surroundings.cwd.join(path)),
        None if known => Roots::File(supabase_roots(config)?),
        None => return Ok((given.unwrap_or(SslMode::Require).max(SslMode::Require), Roots::System)),
    };
    let mode = given.unwrap_or(SslMode::VerifyFull).max(SslMode::Require);
    // As in libpq, roots of one's own are not there for nothing.
    Ok((if mode == SslMode::Require && own { SslMode::VerifyCa } else { mode }, roots))
}

fn supabase_roots(config: &Config) -> Result<PathBuf, Failure> {
    let path = config.state_dir.join(ROOTS_FILE);
    if fs_err::read_to_string(&path).ok().as_deref() != Some(SUPABASE_ROOTS) {
        crate::disk::make_private_dir(&config.state_dir).map_err(failed(Exit::Error))?;
        crate::disk::write(&path, SUPABASE_ROOTS.as_bytes()).map_err(failed(Exit::Error))?;
    }
    Ok(path)
}

fn explicit_password(args: &TargetArgs) -> Result<Option<Secret>, Failure> {
    if let Some(password) = &args.password {
        return Ok(Some(Secret::new(password.clone())));
    }
    let Some(path) = &args.password_file else { return Ok(None) };
    let text = fs_err::read_to_string(path).map_err(failed(Exit::Usage))?;
    Ok(Some(Secret::new(text.lines().next().unwrap_or_default())))
}

/// The password of a linked project, from the CLI's places. The one in the environment is the linked
/// project's: it is not sent to another one.
fn password(
    setting: &Setting,
    args: &TargetArgs,
    (chosen, notes): (&Chosen, &mut Vec<Event>),
) -> Result<Option<Secret>, Failure> {
    if let Some(password) = explicit_password(args)? {
        return Ok(Some(password));
    }
    let exported = setting.surroundings.variable("SUPABASE_DB_PASSWORD").map(Secret::new);
    let supabase_env = setting.surroundings.variable("SUPABASE_ENV");
    let in_files = || {
        let root = chosen.folder.as_ref()?;
        let files = env_files::of_project(root, supabase_env.as_deref());
        files.iter().find_map(|file| file.variable("SUPABASE_DB_PASSWORD").cloned())
    };
    let Some(found) = exported.or_else(in_files) else { return Ok(None) };
    let (own, linked) = (&chosen.project.project_ref, chosen.link.project_ref());
    if let Some(linked) = linked.filter(|linked| *linked != own) {
        notes.push(Event::Note {
            text: format!("SUPABASE_DB_PASSWORD is not sent to {own}: this folder is linked to {linked}"),
        });
        return Ok(None);
    }
    Ok(Some(found))
}

async fn asked(setting: &Setting, name: &str) -> Result<Option<Secret>, Failure> {
    if !setting.may_ask() {
        return Ok(None);
    }
    match ui::ask_password(format!(
        "Password of the database of {name} (empty: supabase lends a temporary role)"
    ))
    .await
    .map_err(failed(Exit::Error))?
    {
        Asked::Typed(text) if text.is_empty() => Ok(None),
        Asked::Typed(text) => Ok(Some(Secret::new(text))),
        Asked::NoTerminal => Ok(None),
        Asked::Cancelled => {
            Err(Failure::message(Exit::Interrupted, "interrupted; the target was not touched"))
        }
    }
}

/// The temporary role that the CLI lends, for which an access token is enough.
async fn lent(setting: &Setting, config: &Config, chosen: &Chosen) -> Result<(String, Lease), Failure> {
    let cli = prepare::find_cli(setting, config).await?;
    let project_ref = chosen.project.project_ref.clone();
    let pooler_url = chosen.link.pooler_url.as_ref().map(|(url, _)| url.clone());
    let ask = move || {
        let (cli, project_ref, pooler_url) = (cli.clone(), project_ref.clone(), pooler_url.clone());
        async move { cli.login_role(&project_ref, pooler_url.as_deref()).await }
    };
    let Login { role, password } = ask().await.map_err(|error| login_failed(&error))?;
    let renew = move || {
        let asked = ask();
        Box::pin(async move { Ok(asked.await?.password) }) as BoxFuture<'static, Renewed>
    };
    Ok((role, Lease::new(password, renew)))
}

pub(super) fn seen_in_argv(variable: &str) -> Event {
    Event::Warning {
        text: format!(
            "other users of this machine can see the password in the command line; set {variable} instead"
        ),
    }
}

/// Names what an application's environment files in the working directory would have led `supabase`
/// away by. They have no say here, and the CLI never runs in that folder.
fn traps(setting: &Setting, chosen: &Chosen) -> Option<Event> {
    let surroundings = &setting.surroundings;
    let at_root = chosen.folder.as_ref() == Some(&surroundings.cwd);
    let harmless = |name: &str, value: &Secret| {
        surroundings.variable(name).is_some()
            || (name == "SUPABASE_PROJECT_ID" && value.expose() == chosen.project.project_ref.as_str())
            // There it is one of the project's own files.
            || (name == "SUPABASE_DB_PASSWORD" && at_root)
    };
    let node_env = surroundings.variable("NODE_ENV");
    let mut found = Vec::new();
    for file in env_files::of_application(&surroundings.cwd, node_env.as_deref()) {
        let names: Vec<&str> = file
            .leading_away()
            .filter(|(name, value)| !harmless(name, value))
            .map(|(name, _)| name)
            .collect();
        if !names.is_empty() {
            let file_name = file.path.file_name().unwrap_or_default().display();
            found.push(format!("{} in `{file_name}`", names.join(", ")));
        }
    }
    (!found.is_empty()).then(|| Event::Note {
        text: format!(
            "{} would lead `supabase` elsewhere and count for nothing here; the run stays on {}",
            found.join(" and "),
            chosen.project.project_ref
        ),
    })
}
