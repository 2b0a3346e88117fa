//! git: what a hook and a look around ask it.
//!
//! A hook inherits `GIT_DIR` and its like: [`Git::inherited`] keeps them, so that the question is
//! about the repository that git itself works on. [`Git::at`] clears them: it is about a folder.
//! Nothing here fetches, takes an optional lock, or asks.

mod links;
mod revision;

pub use revision::Revision;

use crate::proc::{self, Cmd, Output};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Variables that bind git to one repository (`git rev-parse --local-env-vars`, git 2.47).
const LOCAL: [&str; 16] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];
/// Variables that give pathspecs another meaning (git(1)); `git --literal-pathspecs push` hands the first
/// one down to its hooks.
const PATHSPECS: [&str; 4] =
    ["GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS"];
/// The mode of a symbolic link in a tree.
const LINK: &str = "120000";
/// Code of a git that could not do its work, where 1 means "no".
const FATAL: i32 = 128;

/// git, and where it works.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    env: BTreeMap<OsString, OsString>,
    dir: PathBuf,
}

impl Git {
    /// git in this folder, bound to the repository that the environment names.
    pub fn inherited(env: &BTreeMap<OsString, OsString>, dir: &Path) -> Result<Self, proc::Error> {
        let path = env.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let mut env = env.clone();
        env.retain(|name, _| !PATHSPECS.iter().any(|other| name == OsStr::new(other)));
        Ok(Self { program: proc::find("git", &path)?, env, dir: dir.to_owned() })
    }

    /// git in this folder, bound to the repository that the folder belongs to.
    pub fn at(env: &BTreeMap<OsString, OsString>, dir: &Path) -> Result<Self, proc::Error> {
        let mut git = Self::inherited(env, dir)?;
        git.env.retain(|name, _| !LOCAL.iter().any(|local| name == OsStr::new(local)));
        Ok(git)
    }

    fn cmd(&self) -> Cmd {
        Cmd::new(&self.program)
            .env_base(&self.env)
            .env("LC_ALL", "C")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .dir(&self.dir)
    }

    /// Whether there is a repository here.
    pub fn is_repository(&self) -> Result<bool, proc::Error> {
        Ok(self.cmd().args(["rev-parse", "--git-dir"]).run_now_unchecked()?.ended.is_success())
    }

    /// The version as git says it, such as `2.47.3`.
    pub fn version(&self) -> Result<String, proc::Error> {
        let printed = self.cmd().arg("--version").run_now()?.stdout;
        Ok(printed.split_whitespace().nth(2).unwrap_or_default().to_owned())
    }

    /// The top of the work tree; none in a bare repository.
    pub fn top_level(&self) -> Result<Option<PathBuf>, proc::Error> {
        let output = self.cmd().args(["rev-parse", "--show-toplevel"]).run_now_unchecked()?;
        Ok(output.ended.is_success().then(|| PathBuf::from(line(&output))))
    }

    /// The top of the work tree, and the commit that is checked out there, if there is one yet; none in a
    /// bare repository.
    pub fn checked_out(&self) -> Result<Option<(PathBuf, Option<String>)>, proc::Error> {
        let cmd = self.cmd().args(["rev-parse", "--show-toplevel", "--revs-only", "HEAD"]);
        let output = cmd.run_now_unchecked()?;
        if !output.ended.is_success() {
            return Ok(None);
        }
        let printed = line(&output);
        Ok(Some(match printed.rsplit_once('\n') {
            Some((top, head)) => (PathBuf::from(top), Some(head.to_owned())),
            None => (PathBuf::from(printed), None),
        }))
    }

    /// The folder that all work trees of the repository share.
    pub fn common_dir(&self) -> Result<PathBuf, proc::Error> {
        let output = self.cmd().args(["rev-parse", "--git-common-dir"]).run_now()?;
        Ok(self.dir.join(line(&output)))
    }

    /// The folder in which git looks for hooks, as `core.hooksPath` has it.
    pub fn hooks_dir(&self) -> Result<PathBuf, proc::Error> {
        let output = self.cmd().args(["rev-parse", "--git-path", "hooks"]).run_now()?;
        Ok(self.dir.join(line(&output)))
    }

    /// Where `core.hooksPath` is set, and to what: a line of `git config --show-origin`.
    pub fn hooks_path(&self) -> Result<Option<String>, proc::Error> {
        let output =
            self.cmd().args(["config", "--show-scope", "--get", "core.hooksPath"]).run_now_unchecked()?;
        Ok(output.ended.is_success().then(|| line(&output)))
    }

    /// Tracked files and links that match one of the patterns, from the top of the work tree, and those of a
    /// commit besides; none in a bare repository.
    pub fn tracked(
        &self,
        patterns: &[&str],
        commit: Option<&str>,
    ) -> Result<Option<Vec<String>>, proc::Error> {
        let cmd = self.cmd().args(["ls-files", "-z", "--full-name"]);
        let cmd = cmd.args(commit.map(|commit| format!("--with-tree={commit}"))).arg("--");
        let output = cmd.args(patterns.iter().map(|pattern| magic(pattern))).run_now_unchecked()?;
        Ok(output.ended.is_success().then(|| names(&output)))
    }

    /// The tree without files, whose name depends on the repository's hash.
    pub fn empty_tree(&self) -> Result<String, proc::Error> {
        Ok(line(&self.cmd().args(["hash-object", "-t", "tree", "--stdin"]).run_now()?))
    }

    /// Paths that match one of the patterns, or are or lie below one of the others, and differ between two
    /// trees, and whether each is a link in one of them; none when one of the trees is not here.
    pub fn changed(
        &self,
        [from, to]: [&str; 2],
        patterns: &[&str],
        below: &[&str],
    ) -> Result<Option<Vec<(String, bool)>>, proc::Error> {
        let cmd = self
            .cmd()
            .args(["diff-tree", "-r", "-z", "--raw", "--no-renames", from, to, "--"])
            .args(patterns.iter().map(|pattern| magic(pattern)))
            .args(below.iter().map(|path| literal(path)));
        let shown = cmd.to_string();
        let output = cmd.run_now_unchecked()?;
        match output.ended {
            proc::Ended::Code(0) => Ok(Some(changes(&output))),
            proc::Ended::Code(FATAL) => Ok(None),
            ended => Err(proc::Error::Failed { shown, ended, tail: proc::indented_tail(&output.stderr) }),
        }
    }

    /// What stands at each path of a tree, written `<tree>:<path>`, when links within the tree are followed;
    /// of a link that leaves it, where it leads to.
    pub fn led_to(&self, paths: &[String]) -> Result<Vec<Option<String>>, proc::Error> {
        let cmd = self.cmd().args(["cat-file", "--batch-check", "--follow-symlinks"]);
        let output = feed(cmd, paths, "\n")?;
        Ok(links::answers(&output.stdout))
    }

    /// Writes a folder of a commit into an empty folder, as a checkout would write it, and what links in it
    /// lead to within the commit; `scratch_index` is a file that does not exist. The work tree and its index
    /// stay as they are.
    pub fn check_out(
        &self,
        commit: &str,
        folder: &str,
        into: &Path,
        scratch_index: &Path,
    ) -> Result<(), proc::Error> {
        let index = scratch_index.display().to_string();
        let work_tree = format!("--work-tree={}", into.display());
        let git_dir = format!("--git-dir={}", self.git_dir()?.display());
        let cmd = |args: &[&str]| {
            let cmd = self.cmd().env("GIT_INDEX_FILE", index.clone()).env("GIT_NO_LAZY_FETCH", "0");
            cmd.dir(into).args([&git_dir, &work_tree]).args(args)
        };
        drop(cmd(&["read-tree", "--no-sparse-checkout", commit]).run_now()?);
        let entries = names(&cmd(&["ls-files", "--stage", "-z", "--full-name"]).run_now()?);
        // `<mode> <object> <stage>`, a tab, and the path. A name that is no text cannot be asked for.
        let link = |entry: String| {
            let (about, path) = entry.split_once('\t')?;
            (about.starts_with(LINK) && !path.contains(char::REPLACEMENT_CHARACTER)).then(|| path.to_owned())
        };
        let links: Vec<String> = entries.into_iter().filter_map(link).collect();
        if !links.is_empty() {
            drop(feed(cmd(&["checkout-index", "-z", "--stdin"]), &links, "\0")?);
        }
        let below = links::closure(into, Path::new(folder), &links);
        let listed = cmd(&["ls-files", "-z", "--full-name", "--"]);
        let listed = listed.args(below.iter().map(|path| literal(&path.display().to_string())));
        drop(cmd(&["checkout-index", "-z", "--stdin", "--force"]).input_from(listed).run_now()?);
        Ok(())
    }

    fn git_dir(&self) -> Result<PathBuf, proc::Error> {
        Ok(PathBuf::from(line(&self.cmd().args(["rev-parse", "--absolute-git-dir"]).run_now()?)))
    }
}

/// A pattern in which `**/` stands for any folder, from the top of the work tree.
fn magic(pattern: &str) -> String {
    format!(":(top,glob){pattern}")
}

/// A path from the top of the work tree, as it is.
fn literal(path: &str) -> String {
    format!(":(top,literal){path}")
}

/// One line of output; a path may end in blanks, so only the line's end goes.
fn line(output: &Output) -> String {
    output.stdout.strip_suffix('\n').unwrap_or(&output.stdout).to_owned()
}

/// Names that end with NUL.
fn names(output: &Output) -> Vec<String> {
    output.stdout.split('\0').filter(|name| !name.is_empty() && *name != "\n").map(str::to_owned).collect()
}

/// What `diff-tree --raw -z` prints: `:<mode> <mode> <object> <object> <letter>` and a path, in turn.
fn changes(output: &Output) -> Vec<(String, bool)> {
    let mut words = names(output).into_iter();
    let mut changes = Vec::new();
    while let (Some(about), Some(path)) = (words.next(), words.next()) {
        let mut modes = about.trim_start_matches(':').split(' ').take(2);
        changes.push((path, modes.any(|mode| mode == LINK)));
    }
    changes
}

/// Runs a program that reads these words, each with its end.
fn feed(cmd: Cmd, words: &[String], end: &str) -> Result<Output, proc::Error> {
    let shown = cmd.to_string();
    let (running, mut writer) = cmd.start_held()?;
    // A program that reads no further has ended, and how it ended says why.
    drop(words.iter().try_for_each(|word| write!(writer, "{word}{end}")));
    drop(writer);
    let output = running.wait_now()?;
    if output.ended.is_success() {
        return Ok(output);
    }
    Err(proc::Error::Failed { shown, ended: output.ended, tail: proc::indented_tail(&output.stderr) })
}
