//! Which commit a folder is at, and whether it was changed since.

use super::Git;
use crate::proc::{self, Cmd};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Asking for a commit takes milliseconds; a status of a large work tree on a slow disk takes longer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a folder stands in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The commit that is checked out; none in a repository without a commit.
    pub commit: Option<String>,
    /// Files of the folder, and of what it links to, that differ from it, untracked ones included.
    pub changed: Vec<String>,
}

impl Revision {
    /// Whether the folder is not what the commit says.
    pub fn is_dirty(&self) -> bool {
        !self.changed.is_empty() || self.commit.is_none()
    }
}

impl Git {
    /// Where the folder stands, and with it what links in it lead to; `None` when it is in no
    /// repository that git accepts.
    pub async fn revision(&self, linked: &[PathBuf]) -> Result<Option<Revision>, proc::Error> {
        let inside = self.ask(&["rev-parse", "--is-inside-work-tree"]).run_unchecked().await?;
        if !inside.ended.is_success() || inside.stdout.trim() != "true" {
            return Ok(None);
        }
        let head = self.ask(&["rev-parse", "--verify", "--quiet", "HEAD"]).run_unchecked().await?;
        let commit = head.ended.is_success().then(|| head.stdout.trim().to_owned());
        let listed = self.status().arg(".").run().await?;
        let mut changed = changed_in(&listed.stdout);
        for path in linked {
            let listed = self.status().arg(path).run_unchecked().await?;
            // In a submodule the commit says nothing of it.
            let is_known = listed.ended.is_success();
            changed.extend(if is_known {
                changed_in(&listed.stdout)
            } else {
                vec![path.display().to_string()]
            });
        }
        changed.sort();
        changed.dedup();
        Ok(Some(Revision { commit, changed }))
    }

    fn status(&self) -> Cmd {
        let words = [
            "--literal-pathspecs",
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=all",
            "--no-renames",
        ];
        self.ask(&words).arg("--")
    }

    /// A monitor of the repository's own configuration is not started.
    fn ask(&self, words: &[&str]) -> Cmd {
        self.cmd().args(["-c", "core.fsmonitor=false"]).args(words).timeout(TIMEOUT)
    }
}

/// Paths of `git status --porcelain=v1 -z`: two letters, a space, and the path, each ended by a NUL.
fn changed_in(status: &str) -> Vec<String> {
    status.split('\0').filter_map(|entry| entry.get(3..)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;
    use std::collections::BTreeMap;

    async fn run(git: &Git, words: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@t"];
        git.ask(&[&identity, words].concat()).run().await.unwrap();
    }

    #[tokio::test]
    async fn a_folder_is_clean_dirty_or_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("app/supabase");
        crate::disk::make_private_dir(&project).unwrap();
        let env = ["PATH", "HOME"].map(|name| (name.into(), "/usr/bin:/bin".into()));
        let mut env = BTreeMap::from(env);
        env.insert("GIT_DIR".into(), "/nowhere".into());
        let (git, top) = (Git::at(&env, &project).unwrap(), Git::at(&env, dir.path()).unwrap());
        assert_eq!(git.revision(&[]).await.unwrap(), None);

        run(&top, &["init", "--quiet"]).await;
        let fresh = git.revision(&[]).await.unwrap().unwrap();
        assert_eq!((fresh.commit.as_deref(), fresh.is_dirty()), (None, true));

        write(&project.join("config.toml"), b"a = 1\n").unwrap();
        write(&dir.path().join("elsewhere"), b"x").unwrap();
        run(&top, &["add", "app"]).await;
        run(&top, &["commit", "--quiet", "--message", "x"]).await;
        let clean = git.revision(&[]).await.unwrap().unwrap();
        assert_eq!((clean.commit.map(|commit| commit.len()), clean.changed), (Some(40), vec![]));

        write(&project.join("config.toml"), b"a = 2\n").unwrap();
        write(&project.join("n\u{e9}w file"), b"").unwrap();
        let dirty = git.revision(&[]).await.unwrap().unwrap();
        assert_eq!(dirty.changed, ["app/supabase/config.toml", "app/supabase/n\u{e9}w file"]);

        let linked = fs_err::canonicalize(dir.path()).unwrap().join("elsewhere");
        let dirty = git.revision(&[linked]).await.unwrap().unwrap();
        assert_eq!(dirty.changed, ["app/supabase/config.toml", "app/supabase/n\u{e9}w file", "elsewhere"]);
    }
}
