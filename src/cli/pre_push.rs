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
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen::Project;
use crate::hook::{self, Behind, Carried, MIGRATIONS, Watched};
use crate::policy::{Rule, judge as judge_facts};
use crate::tools::git::Git;
use crate::ui::{Json, Summary};
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

/// How a policy file is found among the tracked ones.
const POLICIES: &str = "**/supabase/supa-safe.toml";
/// How links that lead to migrations are found among them.
const LINKS: [&str; 2] = ["**/supabase", "**/supabase/migrations"];
/// What a person may always do; said when nobody could judge.
const NO_VERIFY: &str = "`git push --no-verify` skips every hook, and nothing is judged; that is your choice";
/// The one command after which the push goes through.
const REHEARSE: &str =
    "`supa-safe rehearse` takes a snapshot and rehearses the files of the work tree; then push again";

/// What a push carries, and where from.
pub(super) struct Pushed {
    git: Git,
    top: Option<PathBuf>,
    behind: Vec<Behind>,
    carried: Vec<Carried>,
}

/// Reads what git says; none when the push carries no migrations to a watched branch.
pub(super) fn look(setting: &Setting) -> Result<Option<Pushed>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Error, error).hint(NO_VERIFY);
    let lines = hook::parse(&git_says()?).map_err(|error| failed(&error))?;
    let git = Git::inherited(setting.surroundings.env(), &setting.surroundings.cwd)
        .map_err(|error| failed(&error))?;
    let top = git.top_level().map_err(|error| failed(&error))?;
    let watched = watched(setting, &git, top.as_deref())?;
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
    Ok(Some(Pushed { git, top, behind: watched.behind, carried }))
}

/// What git says on stdin.
fn git_says() -> Result<String, Failure> {
    let mut stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return Err(Failure::message(
            Exit::Usage,
            "`--pre-push` reads what git says to its hook, and stdin is a terminal",
        )
        .hint("Run `supa-safe hook install`, or `supa-safe check` to judge the work tree"));
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text).map_err(fail::failed(Exit::Error))?;
    Ok(text)
}

fn same_folder(left: &Path, right: &Path) -> bool {
    let real = |path: &Path| fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(left) == real(right)
}

/// The branches that the policies of the work tree list: the tracked ones, and one at the usual place
/// that nobody committed yet.
fn watched(setting: &Setting, git: &Git, top: Option<&Path>) -> Result<Watched, Failure> {
    let branches = |supabase_dir: Option<&Path>| {
        let flags = Flags { config: setting.global.config.clone(), ..Flags::default() };
        let config = Config::load(&setting.surroundings, flags, supabase_dir);
        config.map(|config| config.hook_branches()).map_err(|error| {
            Failure::new(Exit::Usage, &error)
                .hint("Compare the file with the sample that `supa-safe explain policy` prints")
                .hint(NO_VERIFY)
        })
    };
    let mut watched = Watched { default: branches(None)?, own: BTreeMap::new(), behind: Vec::new() };
    let Some(top) = top else { return Ok(watched) };
    let [folder, migrations] = LINKS;
    let tracked = git.tracked(&[POLICIES, folder, migrations]).map_err(fail::failed(Exit::Error))?;
    let (links, files): (Vec<_>, Vec<_>) = tracked.into_iter().partition(|(_, is_link)| *is_link);
    watched.behind = links.into_iter().filter_map(|(link, _)| behind(top, link)).collect();
    if setting.global.config.is_some() {
        return Ok(watched);
    }
    let usual = format!("supabase/{}", config::FILE);
    let mut files: Vec<String> = files.into_iter().map(|(file, _)| file).collect();
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
fn behind(top: &Path, link: String) -> Option<Behind> {
    let project = link.strip_suffix("/migrations").unwrap_or(&link).strip_suffix("supabase")?;
    let root = project.trim_end_matches('/').to_owned();
    let within = fs_err::canonicalize(top).ok()?;
    let real = |path: &str| {
        let path = fs_err::canonicalize(top.join(&root).join(path)).ok()?;
        let path = path.strip_prefix(&within).ok()?.display().to_string();
        (!path.is_empty()).then_some(path)
    };
    let (folder, supabase_dir) = (real(MIGRATIONS)?, real("supabase")?);
    Some(Behind { root, link, folder, supabase_dir })
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
fn remote(args: &CheckArgs) -> Option<&String> {
    args.pushed_to.first().filter(|name| !name.contains([':', '/', '@']))
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
    crate::disk::make_private_dir(&files).map_err(fail::failed(Exit::Error))?;
    // Of a project behind links, the links themselves, and where they lead.
    let mut below = vec![Path::new(&carried.root).join("supabase").display().to_string()];
    for one in pushed.behind.iter().filter(|one| one.root == carried.root) {
        below.extend([one.supabase_dir.clone(), one.folder.clone()]);
    }
    pushed
        .git
        .check_out(&carried.commit, &below, &files, &checked_out.path().join("index"))
        .map_err(fail::failed(Exit::Error))?;
    // A push that takes a whole project away leaves nothing that could reach a target.
    let Ok(project) = Project::find(Some(&files.join(&carried.root)), &files) else { return Ok(Exit::Done) };
    let here = pushed.top.as_ref().map(|top| top.join(&carried.root));
    let here = here.filter(|here| Project::find(Some(here), here).is_ok());
    let mut setting = setting.clone();
    setting.global.workdir = Some(here.unwrap_or_else(|| project.root.clone()));
    let opened = open::open(&setting, &args.target, args.max_age, signals).await?;
    let outcome = signals.guard(judge_files(&setting, &opened, args, project)).await;
    // A script gets one last line for all projects.
    setting.global.json &= last || outcome.is_err();
    setting.global.quiet = true;
    opened.close(&setting, outcome).await
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
