//! `supa-safe check --pre-push`: whether what git is about to push may leave this machine.
//!
//! First the quick look, which every push pays for: git's lines and a comparison of trees, without
//! a word to the target. Only what carries migrations to a watched branch is judged, and then the
//! files are those of the pushed commit, not those of the work tree.

use super::check::{self, CheckArgs};
use super::done::{Broken, Done};
use super::evidence::target_clock;
use super::open::{self, Opened};
use super::prepare;
use super::signals::Signals;
use super::{Setting, fail};
use crate::config::{self, Config, Flags};
use crate::disk;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen::Project;
use crate::hook::{self, Behind, Carried, LINKS, Line, MIGRATIONS, Watched};
use crate::policy::{Rule, judge as judge_facts};
use crate::tools::git::Git;
use crate::ui::{Json, Summary};
use fs_err as fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

/// How a policy file is found among the tracked ones.
const POLICIES: &str = "**/supabase/supa-safe.toml";
/// What a person may always do; said when nobody could judge.
const NO_VERIFY: &str = "`git push --no-verify` skips every hook, and nothing is judged; that is your choice";
/// The one command after which the push goes through.
const REHEARSE: &str =
    "`supa-safe rehearse` takes a snapshot and rehearses the files of the work tree; then push again";

/// What a push carries, and where from.
pub(super) struct Pushed {
    git: Git,
    top: Option<PathBuf>,
    carried: Vec<Carried>,
}

/// Reads what git says; none when the push carries no migrations to a watched branch.
pub(super) fn look(setting: &Setting) -> Result<Option<Pushed>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Error, error).hint(NO_VERIFY);
    let lines = hook::parse(&git_says()?).map_err(|error| failed(&error))?;
    let git = Git::inherited(setting.surroundings.env(), &setting.surroundings.cwd)
        .map_err(|error| failed(&error))?;
    let (top, head) = git.checked_out().map_err(|error| failed(&error))?.unzip();
    let watched = watched(setting, &git, &lines, (top.as_deref(), head.flatten()))?;
    let mut carried = hook::carried(&git, &lines, &watched).map_err(|error| failed(&error))?;
    if let Some(dir) = &setting.global.workdir {
        let meant = setting.surroundings.cwd.join(dir);
        let here = |root: &str| top.as_ref().is_some_and(|top| same_folder(&meant, &top.join(root)));
        carried.retain(|one| here(&one.root));
    }
    if carried.is_empty() {
        if setting.global.json {
            Json::summary(&Summary::new()).map_err(fail::failed(Exit::Error))?;
        }
        return Ok(None);
    }
    Ok(Some(Pushed { git, top, carried }))
}

/// What git says on stdin. The names of references are bytes; what is no text in one fits no name of a policy.
fn git_says() -> Result<String, Failure> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::message(
            Exit::Usage,
            "`--pre-push` reads what git says to its hook, and stdin is a terminal",
        )
        .hint("Run `supa-safe hook install`, or `supa-safe check` to judge the work tree"));
    }
    let mut said = Vec::new();
    stdin.read_to_end(&mut said).map_err(fail::failed(Exit::Error))?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn same_folder(left: &Path, right: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(left) == real(right)
}

/// The branches that the policies of the work tree list: the tracked ones, and one at the usual place
/// that nobody committed yet. What is not checked out is listed with them, so that git is asked once.
fn watched(
    setting: &Setting,
    git: &Git,
    pushed: &[Line],
    (top, head): (Option<&Path>, Option<String>),
) -> Result<Watched, Failure> {
    let branches = |supabase_dir: Option<&Path>| {
        let flags = Flags { config: setting.global.config.clone(), ..Flags::default() };
        let config = Config::load(&setting.surroundings, flags, supabase_dir);
        config.map(|config| config.hook_branches()).map_err(|error| {
            Failure::new(Exit::Usage, &error)
                .hint("Compare the file with the sample that `supa-safe explain policy` prints")
                .hint(NO_VERIFY)
        })
    };
    let mut watched = Watched { default: branches(None)?, head, ..Watched::default() };
    let Some(top) = top else { return Ok(watched) };
    let mut elsewhere = pushed.iter().filter_map(|line| line.to_branch().map(|(commit, _)| commit));
    let elsewhere = elsewhere.find(|commit| watched.head.as_deref() != Some(commit));
    let [folder, migrations] = LINKS;
    let tracked =
        git.tracked(&[POLICIES, folder, migrations], elsewhere).map_err(fail::failed(Exit::Error))?;
    let is_policy = |path: &String| path.ends_with(config::FILE);
    let parts = tracked.map(|tracked| tracked.into_iter().partition::<Vec<_>, _>(is_policy));
    let (mut files, links) = parts.unzip();
    watched.behind = links.iter().flatten().filter_map(|link| behind(top, link)).collect();
    watched.links.extend(elsewhere.map(|commit| (commit.to_owned(), links)));
    if setting.global.config.is_some() {
        return Ok(watched);
    }
    let usual = format!("supabase/{}", config::FILE);
    let files = files.get_or_insert_default();
    // Behind a link git tracks no policy file under this name.
    files.extend(watched.behind.iter().map(|one| Path::new(&one.root).join(&usual).display().to_string()));
    files.push(usual.clone());
    for file in files {
        let Some(root) = file.strip_suffix(&usual).map(|root| root.trim_end_matches('/')) else { continue };
        watched.own.insert(root.to_owned(), branches(Some(&top.join(root).join("supabase")))?);
    }
    Ok(watched)
}

/// Where migrations behind a tracked link are, when they are in this work tree.
fn behind(top: &Path, link: &str) -> Option<Behind> {
    let root = hook::root_of_link(link).filter(|_| top.join(link).is_symlink())?;
    let within = fs::canonicalize(top).ok()?;
    let folder = fs::canonicalize(top.join(root).join(MIGRATIONS)).ok()?;
    let folder = folder.strip_prefix(&within).ok()?.display().to_string();
    (!folder.is_empty()).then(|| Behind { root: root.to_owned(), folder })
}

/// Judges every project that the push changes; the first refusal ends it.
pub(super) async fn judge(setting: &Setting, args: &CheckArgs, pushed: &Pushed) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let mut exit = Exit::Done;
    for (index, carried) in pushed.carried.iter().enumerate() {
        let last = index + 1 == pushed.carried.len();
        let judged = Box::pin(judge_one(setting, args, pushed, carried, (&mut signals, last))).await;
        exit = judged.map_err(|failure| explained(failure, args, carried))?;
    }
    Ok(exit)
}

/// A refusal of a push is about a branch; a judge that could not be asked is no verdict.
fn explained(mut failure: Failure, args: &CheckArgs, carried: &Carried) -> Failure {
    if matches!(failure.exit, Exit::Refused | Exit::RehearsalFailed) {
        let commit = carried.commit.get(..10).unwrap_or(&carried.commit);
        let root = if carried.root.is_empty() { String::new() } else { format!("{}/", carried.root) };
        let of = remote(args).map(|remote| format!(" of {remote}")).unwrap_or_default();
        failure
            .details
            .push(format!("git was about to push {root}{MIGRATIONS} of {commit} to {}{of}", carried.branch));
        return failure;
    }
    failure.hint(NO_VERIFY)
}

/// The name of the remote. git passes the URL when it has none, and that may hold a password.
fn remote(args: &CheckArgs) -> Option<&str> {
    args.pushed_to.first().and_then(|name| name.to_str()).filter(|name| !name.contains([':', '/', '@']))
}

async fn judge_one(
    setting: &Setting,
    args: &CheckArgs,
    pushed: &Pushed,
    carried: &Carried,
    (signals, last): (&mut Signals, bool),
) -> Result<Exit, Failure> {
    let checked_out = tempfile::tempdir().map_err(fail::failed(Exit::Error))?;
    let files = checked_out.path().join("files");
    disk::make_private_dir(&files).map_err(fail::failed(Exit::Error))?;
    let supabase_dir = Path::new(&carried.root).join("supabase").display().to_string();
    pushed
        .git
        .check_out(&carried.commit, &supabase_dir, &files, &checked_out.path().join("index"))
        .map_err(fail::failed(Exit::Error))?;
    let here = pushed.top.as_ref().map(|top| top.join(&carried.root));
    let here = here.and_then(|here| Project::find(Some(&here), &here).ok());
    let Some(project) = project(&files.join(&carried.root), here.as_ref())? else {
        return gone(carried);
    };
    let mut setting = setting.clone();
    setting.global.workdir = Some(here.map_or_else(|| project.root.clone(), |here| here.root));
    let opened = open::open(&setting, &args.target, args.max_age, signals).await?;
    let outcome = signals.guard(judge_files(&setting, &opened, args, project)).await;
    // A script gets one last line for all projects.
    setting.global.json &= last || outcome.is_err();
    setting.global.quiet = true;
    opened.close(&setting, outcome).await
}

/// The project as the push would leave it. A commit without a configuration is judged with that of the work
/// tree, and where that has none either, by the files alone. None when neither configuration nor migrations
/// are left.
fn project(root: &Path, here: Option<&Project>) -> Result<Option<Project>, Failure> {
    if let Ok(project) = Project::find(Some(root), root) {
        return Ok(Some(project));
    }
    if fs::symlink_metadata(root.join(MIGRATIONS.trim_end_matches('/'))).is_err() {
        return Ok(None);
    }
    let supabase_dir = root.join("supabase");
    let committed_none = |name: &Path, text: &[u8]| disk::write(&supabase_dir.join(name), text);
    let configs = here.map(Project::config_files).unwrap_or_default();
    for config in &configs {
        let name = Path::new(config.file_name().unwrap_or_default());
        let written = fs::read(config).and_then(|text| committed_none(name, &text));
        written.map_err(fail::failed(Exit::Error))?;
    }
    if configs.is_empty() {
        committed_none(Path::new("config.toml"), b"").map_err(fail::failed(Exit::Error))?;
    }
    Ok(Some(Project { root: root.to_owned(), supabase_dir }))
}

/// A push that takes a whole project away leaves nothing that could reach a target.
fn gone(carried: &Carried) -> Result<Exit, Failure> {
    if carried.root.contains(char::REPLACEMENT_CHARACTER) {
        let chain = format!("the folder `{}` has a name that is not UTF-8", carried.root);
        return Err(Failure::message(Exit::Error, chain)
            .detail("its migrations cannot be read under this name, so nobody judged them"));
    }
    Ok(Exit::Done)
}

/// The judge of `check`, but for other sessions on the target: nothing happens there now.
async fn judge_files(
    setting: &Setting,
    opened: &Opened,
    args: &CheckArgs,
    project: Project,
) -> Result<Done, Broken> {
    let prepared = prepare::prepare_files(setting, opened, args.push, project).await?;
    let now = target_clock(opened).await?;
    let (facts, verified) = check::facts(opened, &prepared, args.snapshot.as_ref()).await?;
    let mut findings = judge_facts(&opened.policy, &facts, now);
    if prepared.pending.is_empty() {
        // No evidence is needed for what changes nothing.
        findings.retain(|finding| finding.rule == Rule::AppliedEdited);
    }
    if findings.iter().any(|finding| finding.refuses) {
        let lacks_evidence = findings.iter().any(|finding| finding.rule != Rule::AppliedEdited);
        let mut broken = fail::refused(findings);
        if lacks_evidence {
            broken.failure = broken.failure.hint(REHEARSE);
        }
        broken.failure.chain = vec!["the policy refuses this push; the target was not touched".to_owned()];
        return Err(broken);
    }
    for finding in &findings {
        opened.context.warn(finding.to_string());
    }
    opened.context.note(if prepared.pending.is_empty() {
        format!("nothing of the pushed commit is pending on {}", opened.target.name())
    } else {
        format!("{} of the pushed commit: snapshot and rehearsal hold", prepared.pending.in_words())
    });
    let mut done = verified.as_ref().map_or_else(|| Done::nothing(opened), Done::of);
    done.summary.findings = findings;
    Ok(done)
}
