//! Captures the configuration: the files of the `supabase` folder with the commit that they are at, the
//! project's own settings where the token allows, and what the platform has of native backups.
//!
//! Never a file that may hold a secret: `.env` files and keys are left out by name, and named.

use crate::context::Context;
use crate::disk;
use crate::manifest::{Component, ComponentName, ComponentState};
use crate::proc;
use crate::store::{Draft, Snapshot};
use crate::tools::git::{Git, Revision};
use crate::tools::supabase::cloud::{self, Cloud, Folder};
use fs_err as fs;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of the component, and what stands in it.
const DIR: &str = "config";
const LOCAL: &str = "supabase";
const REMOTE: &str = "remote.toml";
const BACKUPS: &str = "backups.json";
const REVISION: &str = "git.json";
/// What of a `supabase` folder makes the project: files with these ends, and everything in these folders.
const FILES: [&str; 5] = [".toml", ".json", ".jsonc", ".sql", ".md"];
const FOLDERS: [&str; 7] = ["checks", "functions", "migrations", "schemas", "seed", "seeds", "templates"];
/// Folders that are made from others, or that belong to the CLI.
const MADE: [&str; 4] = [".branches", ".git", ".temp", "node_modules"];
/// The state of a backup that can be restored.
const COMPLETED: &str = "COMPLETED";
/// Ends of names of env files, private keys, and key stores.
const SECRETS: [&str; 9] =
    [".env", ".jks", ".key", ".keystore", ".p12", ".p8", ".pem", ".pfx", "signing_keys.json"];

/// Why the configuration could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform did not tell.
    #[error("cannot read the configuration of the project")]
    Cloud(#[from] cloud::Error),
    /// git failed.
    #[error("cannot ask git about the `supabase` folder")]
    Git(#[from] proc::Error),
    /// A file could not be read or written.
    #[error("cannot copy the configuration")]
    Io(#[from] io::Error),
}

/// What was captured.
#[derive(Debug)]
pub struct Captured {
    /// The record.
    pub component: Component,
    /// What was left out.
    pub limits: Vec<String>,
}

/// Captures the configuration into a draft.
pub async fn capture(cloud: &Cloud, context: &Context, draft: &Draft) -> Result<Captured, Error> {
    let dir = draft.dir.join(DIR);
    disk::make_private_dir(&dir)?;
    let mut limits = Vec::new();
    let mut parts = Vec::new();
    match &context.supabase_dir {
        Some(from) => parts.push(local(from, context, &dir, &mut limits).await?),
        None => {
            limits.push("there is no `supabase` folder here: its files are not in the snapshot".to_owned());
        }
    }
    let (remote, backups) =
        tokio::join!(async { cloud.config(&Folder::new(draft.scratch("config"))?).await }, async {
            cloud.backups(&Folder::new(draft.scratch("backups"))?).await
        });
    if let Some(remote) = allowed(remote, "the project's own configuration", &mut limits)? {
        disk::write(&dir.join(REMOTE), remote.as_bytes())?;
        parts.push("the project's own settings".to_owned());
    }
    if let Some(backups) = allowed(backups, "the list of native backups", &mut limits)? {
        disk::write_json(&dir.join(BACKUPS), &backups)?;
        parts.push("the list of native backups".to_owned());
    }
    let component = Component {
        name: ComponentName::Config,
        state: ComponentState::Complete,
        summary: parts.join(", "),
        missing: Vec::new(),
    };
    Ok(Captured { component, limits })
}

/// What the platform told; a right that the token lacks, or a command that this CLI does not know, is a
/// limit and no error.
fn allowed<T>(
    told: Result<T, cloud::Error>,
    what: &str,
    limits: &mut Vec<String>,
) -> Result<Option<T>, Error> {
    match told {
        Ok(told) => Ok(Some(told)),
        Err(
            error @ (cloud::Error::Forbidden { .. }
            | cloud::Error::Refused { .. }
            | cloud::Error::Unreadable(_)),
        ) => {
            limits.push(format!("{what} is not in the snapshot: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn local(
    from: &Path,
    context: &Context,
    dir: &Path,
    limits: &mut Vec<String>,
) -> Result<String, Error> {
    let git = Git::at(&context.machine.env, from).ok();
    let top = git.as_ref().map(Git::top_level).transpose()?.flatten();
    let within = top.as_deref().or_else(|| from.parent()).unwrap_or(from);
    let Choice { taken, left_out, followed, .. } = choose(from, within)?;
    for file in &taken {
        disk::copy_file(&from.join(file), &dir.join(LOCAL).join(file))?;
    }
    for LeftOut { file, why } in left_out {
        limits.push(format!("`{}` is not in the snapshot: {why}", file.display()));
    }
    let revision = match git {
        Some(git) => git.revision(&followed).await?,
        None => None,
    };
    disk::write_json(&dir.join(REVISION), &revision)?;
    Ok(format!("{} files {}", taken.len(), at(revision.as_ref())))
}

fn at(revision: Option<&Revision>) -> String {
    let Some(revision) = revision else { return "outside of git".to_owned() };
    let commit = revision.commit.as_deref().map_or("no commit", |commit| commit.get(..12).unwrap_or(commit));
    let dirty = match revision.changed.len() {
        0 => String::new(),
        1 => ", 1 of them changed since".to_owned(),
        many => format!(", {many} of them changed since"),
    };
    format!("at {commit}{dirty}")
}

/// A file that is not copied, and why.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LeftOut {
    file: PathBuf,
    why: &'static str,
}

/// What of a `supabase` folder is copied.
struct Choice {
    /// The folder, and the repository or the project that it belongs to, both without links.
    base: PathBuf,
    within: PathBuf,
    taken: Vec<PathBuf>,
    left_out: Vec<LeftOut>,
    /// Where links led.
    followed: Vec<PathBuf>,
}

/// Chooses the files to copy, and those that are left out. A link is followed as a push follows it, as
/// long as it stays within the repository.
fn choose(from: &Path, within: &Path) -> io::Result<Choice> {
    let mut choice = Choice {
        base: fs::canonicalize(from)?,
        within: fs::canonicalize(within)?,
        taken: Vec::new(),
        left_out: Vec::new(),
        followed: Vec::new(),
    };
    let above: Vec<PathBuf> = choice.base.ancestors().map(Path::to_owned).collect();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_folder = entry.path().is_dir();
        let is_meant = if is_folder {
            FOLDERS.contains(&name.as_str())
        } else {
            FOLDERS.contains(&name.as_str())
                || may_hold_secrets(&name)
                || FILES.iter().any(|end| name.ends_with(end))
        };
        if is_meant {
            choice.add(from, name.into(), &above)?;
        }
    }
    choice.taken.sort();
    choice.left_out.sort();
    Ok(choice)
}

impl Choice {
    /// Takes a file, or everything below a folder; `above` are the folders that it stands in.
    fn add(&mut self, from: &Path, file: PathBuf, above: &[PathBuf]) -> io::Result<()> {
        if file.file_name().is_some_and(|name| MADE.iter().any(|made| name == *made)) {
            return Ok(());
        }
        let path = from.join(&file);
        let is_link = fs::symlink_metadata(&path)?.is_symlink();
        let Ok(real) = fs::canonicalize(&path) else {
            self.left_out.push(LeftOut { file, why: "it is a link that leads nowhere" });
            return Ok(());
        };
        let is_folder = real.is_dir();
        let why = if is_link { self.refusal(&real) } else { None };
        let why = why.or_else(|| {
            let names = [file.file_name(), real.file_name()].into_iter().flatten();
            let holds_secrets = names.into_iter().any(|name| may_hold_secrets(&name.to_string_lossy()));
            match is_folder {
                true => above.contains(&real).then_some("it is a link to a folder that it stands in"),
                false if holds_secrets => Some("it may hold secrets"),
                false => (!real.is_file()).then_some("it is no plain file"),
            }
        });
        if let Some(why) = why {
            self.left_out.push(LeftOut { file, why });
            return Ok(());
        }
        if is_folder {
            let above = [above, std::slice::from_ref(&real)].concat();
            for entry in fs::read_dir(&path)? {
                self.add(from, file.join(entry?.file_name()), &above)?;
            }
        } else {
            self.taken.push(file);
        }
        if is_link {
            self.followed.push(real);
        }
        Ok(())
    }

    /// Why a link is not followed.
    fn refusal(&self, real: &Path) -> Option<&'static str> {
        let Some(inside) = [&self.base, &self.within].into_iter().find_map(|dir| real.strip_prefix(dir).ok())
        else {
            return Some("it is a link that leads out of the repository");
        };
        let is_made = inside.iter().any(|part| MADE.iter().any(|made| part == *made));
        is_made.then_some("it is a link into a folder that is made from others")
    }
}

fn may_hold_secrets(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with(".env") || SECRETS.iter().any(|end| name.ends_with(end))
}

/// The native backups as `supabase backups list` tells them; other fields are passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Backups {
    pitr_enabled: bool,
    #[serde(rename = "backups")]
    daily: Vec<Backup>,
    physical_backup_data: Window,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Backup {
    status: String,
    inserted_at: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Window {
    earliest_physical_backup_date_unix: Option<i64>,
    latest_physical_backup_date_unix: Option<i64>,
}

/// What the platform had of native backups when the snapshot was taken, in words; nothing where it was
/// not asked.
pub fn native_backups(snapshot: &Snapshot) -> Option<String> {
    recorded(snapshot).map(|told| in_words(&told))
}

/// The newest native backup that the platform had when the snapshot was taken.
pub fn recorded_backup(snapshot: &Snapshot) -> Option<Timestamp> {
    newest_backup(&recorded(snapshot)?)
}

fn recorded(snapshot: &Snapshot) -> Option<Value> {
    let told = fs::read(snapshot.dir.join(DIR).join(BACKUPS)).ok()?;
    serde_json::from_slice(&told).ok()
}

/// The last moment that one of the native backups brings back, by what the platform told of them.
pub fn newest_backup(told: &Value) -> Option<Timestamp> {
    let Backups { pitr_enabled, daily, physical_backup_data } = Backups::deserialize(told).ok()?;
    let window = physical_backup_data.latest_physical_backup_date_unix.filter(|_| pitr_enabled);
    let window = window.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let done = daily.iter().filter(|backup| backup.status == COMPLETED);
    done.filter_map(|backup| backup.inserted_at.parse().ok()).chain(window).max()
}

fn in_words(told: &Value) -> String {
    let Ok(told) = Backups::deserialize(told) else { return "cannot be read".to_owned() };
    let Window { earliest_physical_backup_date_unix: from, latest_physical_backup_date_unix: to } =
        told.physical_backup_data;
    let instant = |seconds: i64| Timestamp::from_second(seconds).ok();
    if let (true, Some(from), Some(to)) = (told.pitr_enabled, from.and_then(instant), to.and_then(instant)) {
        return format!("to any second from {from} to {to}");
    }
    // Written alike, so that text sorts as time.
    let done = told.daily.iter().filter(|backup| backup.status == COMPLETED);
    let last = done.map(|backup| backup.inserted_at.as_str()).max();
    last.map_or_else(|| "none".to_owned(), |last| format!("the last one is of {last}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    fn names(files: &[PathBuf]) -> Vec<String> {
        files.iter().map(|file| file.display().to_string()).collect()
    }

    fn reasons(left_out: &[LeftOut]) -> Vec<String> {
        left_out.iter().map(|left_out| format!("{} {}", left_out.file.display(), left_out.why)).collect()
    }

    #[test]
    fn links_are_followed_within_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for file in [
            "repo/supabase/config.json",
            "repo/supabase/functions/hello/index.ts",
            "repo/db/migrations/20260101000000_a.sql",
            "repo/db/main.toml",
            "repo/db/production.env",
            "repo/shared/x.ts",
            "repo/node_modules/y/index.js",
            "elsewhere/seed.sql",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            disk::write(&path, b"x").unwrap();
        }
        let link = |to: &str, from: &str| symlink(to, root.join("repo/supabase").join(from)).unwrap();
        link("../db/migrations", "migrations");
        link("../db/main.toml", "config.toml");
        link("../../../shared", "functions/hello/shared");
        link("../../db/production.env", "functions/plain");
        link("../../node_modules/y", "functions/y");
        link("..", "functions/up");
        link("../../..", "functions/above");
        link("nowhere", "checks");
        link("../../elsewhere", "seeds");
        link("../../elsewhere/seed.sql", "seed.sql");
        let Choice { taken, left_out, followed, .. } =
            choose(&root.join("repo/supabase"), &root.join("repo")).unwrap();
        assert_eq!(
            names(&taken),
            [
                "config.json",
                "config.toml",
                "functions/hello/index.ts",
                "functions/hello/shared/x.ts",
                "migrations/20260101000000_a.sql"
            ]
        );
        assert_eq!(
            reasons(&left_out),
            [
                "checks it is a link that leads nowhere",
                "functions/above it is a link that leads out of the repository",
                "functions/plain it may hold secrets",
                "functions/up it is a link to a folder that it stands in",
                "functions/y it is a link into a folder that is made from others",
                "seed.sql it is a link that leads out of the repository",
                "seeds it is a link that leads out of the repository",
            ]
        );
        let mut followed = names(&followed);
        followed.sort();
        let real = |path: &str| root.join("repo").join(path).display().to_string();
        assert_eq!(followed, ["db/main.toml", "db/migrations", "shared"].map(real));

        // A whole folder behind a link is as good as one.
        symlink("repo/supabase", root.join("supabase")).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let Choice { taken, .. } = choose(&root.join("supabase"), elsewhere.path()).unwrap();
        assert_eq!(names(&taken), ["config.json", "functions/hello/index.ts"]);
    }

    #[test]
    fn what_may_hold_secrets_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        for file in [
            "config.toml",
            "roles.sql",
            "seed.sql",
            "notes.txt",
            ".env",
            ".env.local",
            ".temp/project-ref",
            "signing_keys.json",
            "migrations/20260101000000_a.sql",
            "functions/hello/index.ts",
            "functions/hello/node_modules/x/index.js",
            "functions/.env",
            "functions/hello/server.PEM",
            "other/file.sql",
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            disk::write(&path, b"x").unwrap();
        }
        symlink("/etc/passwd", dir.path().join("functions/hello/link.ts")).unwrap();
        let Choice { taken, left_out, .. } = choose(dir.path(), dir.path()).unwrap();
        assert_eq!(
            names(&taken),
            [
                "config.toml",
                "functions/hello/index.ts",
                "migrations/20260101000000_a.sql",
                "roles.sql",
                "seed.sql"
            ]
        );
        assert_eq!(
            reasons(&left_out),
            [
                ".env it may hold secrets",
                ".env.local it may hold secrets",
                "functions/.env it may hold secrets",
                "functions/hello/link.ts it is a link that leads out of the repository",
                "functions/hello/server.PEM it may hold secrets",
                "signing_keys.json it may hold secrets"
            ]
        );
    }

    #[test]
    fn native_backups_are_told_in_words() {
        let daily = |status: &str, at: &str| json!({"id": 1, "status": status, "inserted_at": at});
        let list = [
            daily("COMPLETED", "2026-11-01T03:00:00.000Z"),
            daily("COMPLETED", "2026-11-02T03:00:00.000Z"),
            daily("FAILED", "2026-11-03T03:00:00.000Z"),
        ];
        let told = json!({"pitr_enabled": false, "backups": list, "physical_backup_data": {}});
        assert_eq!(in_words(&told), "the last one is of 2026-11-02T03:00:00.000Z");
        let newest = |told: &Value| newest_backup(told).map(|at| at.to_string());
        assert_eq!(newest(&told).unwrap(), "2026-11-02T03:00:00Z");
        let window = json!({"earliest_physical_backup_date_unix": 1_800_000_000, "latest_physical_backup_date_unix": 1_800_086_400});
        let told = json!({"pitr_enabled": true, "backups": [], "physical_backup_data": window.clone()});
        assert_eq!(in_words(&told), "to any second from 2027-01-15T08:00:00Z to 2027-01-16T08:00:00Z");
        assert_eq!(newest(&told).unwrap(), "2027-01-16T08:00:00Z");
        let told = json!({"pitr_enabled": false, "backups": [], "physical_backup_data": window});
        assert_eq!(newest(&told), None);
        assert_eq!(in_words(&json!({"backups": []})), "none");
        assert_eq!(in_words(&json!({"backups": 1})), "cannot be read");
    }
}
