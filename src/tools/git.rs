//! git, read-only: which commit a folder is at, and whether it was changed since.

use crate::proc::{self, Cmd};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Asking for a commit takes milliseconds; a status of a large work tree on a slow disk takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a folder stands in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The commit that is checked out; none in a repository without a commit.
    pub commit: Option<String>,
    /// Files of the folder that differ from it, untracked ones included.
    pub changed: Vec<String>,
}

impl Revision {
    /// Whether the folder is not what the commit says.
    pub fn is_dirty(&self) -> bool {
        !self.changed.is_empty() || self.commit.is_none()
    }
}

/// The git of this machine.
#[derive(Clone, Debug)]
pub struct Git {
    program: PathBuf,
    env: BTreeMap<OsString, OsString>,
}

impl Git {
    /// Finds git on `PATH`. Nothing of `GIT_*` passes: a hook inherits `GIT_DIR` of its repository.
    pub fn find(env: &BTreeMap<OsString, OsString>) -> Option<Self> {
        let path = env.get(OsStr::new("PATH"))?;
        let program = proc::find("git", path).ok()?;
        let own = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("GIT_"));
        let kept = env.iter().filter(|(name, _)| !own(name));
        Some(Self { program, env: kept.map(|(name, value)| (name.clone(), value.clone())).collect() })
    }

    /// Where a folder stands; `None` when it is in no repository that git accepts.
    pub async fn revision(&self, dir: &Path) -> Result<Option<Revision>, proc::Error> {
        let inside = self.cmd(dir, &["rev-parse", "--is-inside-work-tree"]).run_unchecked().await?;
        if !inside.ended.is_success() || inside.stdout.trim() != "true" {
            return Ok(None);
        }
        let head = self.cmd(dir, &["rev-parse", "--verify", "--quiet", "HEAD"]).run_unchecked().await?;
        let commit = head.ended.is_success().then(|| head.stdout.trim().to_owned());
        let status = ["status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", "."];
        let listed = self.cmd(dir, &status).run().await?;
        Ok(Some(Revision { commit, changed: changed(&listed.stdout) }))
    }

    /// Without optional locks git does not write its index, and a monitor of the repository's own
    /// configuration is not started.
    fn cmd(&self, dir: &Path, words: &[&str]) -> Cmd {
        Cmd::new(&self.program)
            .args(["-c", "core.fsmonitor=false", "--no-optional-locks"])
            .args(words)
            .env_base(&self.env)
            .env("LC_ALL", "C")
            .dir(dir)
            .timeout(TIMEOUT)
    }
}

/// Paths of `git status --porcelain=v1 -z`: two letters, a space, and the path, each ended by a NUL.
fn changed(status: &str) -> Vec<String> {
    status.split('\0').filter_map(|entry| entry.get(3..)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;

    async fn run(git: &Git, dir: &Path, words: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t"];
        git.cmd(dir, &[&identity, words].concat()).run().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_is_clean_dirty_or_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("app/supabase");
        crate::disk::make_private_dir(&project).unwrap();
        let env = ["PATH", "HOME"].map(|name| (name.into(), "/usr/bin:/bin".into()));
        let mut env = BTreeMap::from(env);
        env.insert("GIT_DIR".into(), "/nowhere".into());
        let git = Git::find(&env).unwrap();
        assert_eq!(git.revision(&project).await.unwrap(), None);

        run(&git, dir.path(), &["init", "--quiet"]).await;
        let fresh = git.revision(&project).await.unwrap().unwrap();
        assert_eq!((fresh.commit.as_deref(), fresh.is_dirty()), (None, true));

        write(&project.join("config.toml"), b"a = 1\n").unwrap();
        write(&dir.path().join("elsewhere"), b"x").unwrap();
        run(&git, dir.path(), &["add", "app"]).await;
        run(&git, dir.path(), &["commit", "--quiet", "--message", "x"]).await;
        let clean = git.revision(&project).await.unwrap().unwrap();
        assert_eq!((clean.commit.map(|commit| commit.len()), clean.changed), (Some(40), vec![]));

        write(&project.join("config.toml"), b"a = 2\n").unwrap();
        write(&project.join("n\u{e9}w file"), b"").unwrap();
        let dirty = git.revision(&project).await.unwrap().unwrap();
        assert_eq!(dirty.changed, ["app/supabase/config.toml", "app/supabase/n\u{e9}w file"]);
    }
}
