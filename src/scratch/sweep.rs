//! Ends and removes what keepers that were killed have left.
//!
//! A folder is touched only when it is ours, closed to the writing of others, and its lock is
//! not held. A process is ended only when it is a Postgres whose working directory is the
//! data folder: every process of a server has it, and a number in a file may be somebody else's.
//! A container is removed by the name of its folder: its labels could tell no more, since the folder
//! or the keeper may stand where we cannot see them.

use super::engine::listed;
use super::{CONTAINER, DATA, KEEPER_LOCK, PREFIX};
use crate::disk::Lock;
use crate::proc::{self, Cmd, Output, Signal};
use crate::tools::container::{self, Engine};
use fs_err as fs;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long an immediate shutdown, and then a kill, may take.
const STEPS: [(Signal, Duration); 2] =
    [(Signal::QUIT, Duration::from_secs(8)), (Signal::KILL, Duration::from_secs(4))];
/// How often ending processes are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The remains of one scratch.
#[derive(Debug)]
pub struct Swept {
    /// Its folder.
    pub dir: PathBuf,
    /// Whether the folder is gone, and if so, how many processes of its server were still running.
    pub outcome: Result<usize, io::Error>,
}

/// Cleans up after keepers that are gone, and says what was found; `env` is what engines of
/// containers get.
pub async fn sweep(base_dir: &Path, env: &BTreeMap<OsString, OsString>) -> Vec<Swept> {
    let Ok(base_dir) = fs::canonicalize(base_dir) else { return Vec::new() };
    let mut swept = Vec::new();
    for entry in fs::read_dir(base_dir).into_iter().flatten().filter_map(Result::ok) {
        let dir = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) || !is_ours(&dir) {
            continue;
        }
        let Ok(Some(_lock)) = Lock::take(&dir.join(KEEPER_LOCK)) else { continue };
        let outcome = clean(&dir, env).await;
        swept.push(Swept { dir, outcome });
    }
    swept
}

/// What the kernel calls the time since this machine came up; it is the same in every container.
pub(super) fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// Removes the containers that ran when the machine went down, and returns their names: their folders
/// may be gone with it, and what they hold is a copy of the target.
pub(super) async fn sweep_earlier_boots(engine: &Engine) -> Vec<String> {
    let Ok(boot) = boot() else { return Vec::new() };
    let all = engine.containers().run().await.map(|output| container::listed(&output.stdout));
    let mut removed = Vec::new();
    for name in all.unwrap_or_default() {
        let is_of = |output: Output| output.stdout.trim() != boot && !output.stdout.trim().is_empty();
        if engine.boot(&name).run().await.is_ok_and(is_of) && engine.remove(&name).run().await.is_ok() {
            removed.push(name);
        }
    }
    removed
}

/// Scratch folders whose keepers are gone; nothing is ended or removed.
pub fn leftovers(base_dir: &Path) -> Vec<PathBuf> {
    let is_left =
        |dir: &PathBuf| is_ours(dir) && Lock::is_held(&dir.join(KEEPER_LOCK)).is_ok_and(|is_held| !is_held);
    let entries = fs::read_dir(base_dir).into_iter().flatten().filter_map(Result::ok);
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    named.map(|entry| entry.path()).filter(is_left).collect()
}

/// Whether only we can have put things into a folder.
fn is_ours(dir: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(dir)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == ours && meta.mode() & 0o022 == 0)
}

/// Ends the server that runs in a scratch folder, if one does, and removes the folder.
///
/// Returns how many processes there were; a container counts as one.
pub(super) async fn clean(dir: &Path, env: &BTreeMap<OsString, OsString>) -> io::Result<usize> {
    let data = dir.join(DATA);
    let mut count = remove_container(dir, env).await?;
    for (signal, bound) in STEPS {
        let pids = servers(&data).await;
        count = count.max(pids.len());
        for pid in pids {
            // A process that is already gone is what is wanted.
            drop(proc::signal(pid, signal));
        }
        let until = Instant::now() + bound;
        while !servers(&data).await.is_empty() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
    if servers(&data).await.is_empty() {
        remove(dir)?;
        return Ok(count);
    }
    Err(io::Error::other(format!("the server in `{}` does not end", data.display())))
}

/// Removes the container of a scratch, if it has one; returns how many there were.
async fn remove_container(dir: &Path, env: &BTreeMap<OsString, OsString>) -> io::Result<usize> {
    let Ok(written) = fs::read(dir.join(CONTAINER)) else { return Ok(0) };
    let Ok(program) = serde_json::from_slice(&written) else { return Ok(0) };
    let engine = Engine { program, env: env.clone() };
    let name = dir.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    if !is_there(&engine, &name).await? {
        return Ok(0);
    }
    drop(engine.remove(&name).run().await);
    if !is_there(&engine, &name).await? {
        return Ok(1);
    }
    let command = engine.remove(&name).to_string();
    Err(io::Error::other(format!("the container `{name}` does not go (`{command}`)")))
}

/// Whether there is a container; an engine that does not answer says neither.
async fn is_there(engine: &Engine, name: &str) -> io::Result<bool> {
    if engine.look(name).run().await.is_ok() {
        return Ok(true);
    }
    let answers = listed(engine).await;
    answers
        .map(|_| false)
        .map_err(|silent| io::Error::other(format!("{silent}, and may still have the container `{name}`")))
}

/// Removes a scratch folder, the bulk of it first, while its lock is still there to be held.
fn remove(dir: &Path) -> io::Result<()> {
    // A sweep that comes just now makes a new lock, and removes the rest as well.
    const ATTEMPTS: usize = 3;
    let gone = |path: &Path| match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(&dir.join(DATA))?;
    (1..ATTEMPTS).find_map(|_| gone(dir).ok()).map_or_else(|| gone(dir), Ok)
}

/// The processes of the server in a data folder.
async fn servers(data: &Path) -> Vec<u32> {
    if cfg!(target_os = "linux") {
        return working_in(data);
    }
    // Without /proc the server itself is asked for, by the process that it wrote down.
    let written = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let Some(pid) = written.lines().next().and_then(|line| line.trim().parse::<u32>().ok()) else {
        return Vec::new();
    };
    let ps = Cmd::new("/bin/ps").args(["-ww", "-o", "command=", "-p"]).arg(pid.to_string());
    let command = ps.run().await.map(|output| output.stdout).unwrap_or_default();
    if command.contains(&*data.to_string_lossy()) { vec![pid] } else { Vec::new() }
}

fn working_in(data: &Path) -> Vec<u32> {
    let is_server = |process: &Path| {
        fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == data)
            && fs::read_link(process.join("exe")).is_ok_and(|exe| is_postgres(&exe))
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            is_server(&entry.path()).then_some(pid)
        })
        .collect()
}

/// Whether a program is Postgres; one that was replaced meanwhile has ` (deleted)` behind its name.
fn is_postgres(exe: &Path) -> bool {
    let name = exe.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.strip_suffix(" (deleted)").unwrap_or(name) == "postgres"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn folder(base: &Path, name: &str, mode: u32) -> PathBuf {
        let dir = base.join(name);
        fs::create_dir_all(dir.join(DATA)).unwrap();
        fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        dir
    }

    #[tokio::test]
    async fn only_remains_of_ours_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(temp.path()).unwrap();
        let left = folder(&base, "supa-safe-scratch-left", 0o711);
        let running = folder(&base, "supa-safe-scratch-running", 0o700);
        let open = folder(&base, "supa-safe-scratch-open", 0o770);
        let other = folder(&base, "other", 0o700);
        let link = base.join("supa-safe-scratch-link");
        symlink(&other, &link).unwrap();
        let lock = Lock::take(&running.join(KEEPER_LOCK)).unwrap();
        // The number of a process in a container says nothing outside of it.
        let number = |dir: &Path, pid: u32| {
            let mut file = fs::OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .open(dir.join(KEEPER_LOCK))
                .unwrap();
            write!(file, "{pid}").unwrap();
        };
        number(&running, 999_999_999);
        number(&left, std::process::id());
        assert_eq!(leftovers(&base), std::slice::from_ref(&left));
        let swept = sweep(&base, &BTreeMap::new()).await;
        let found: Vec<_> = swept.iter().map(|one| (&one.dir, one.outcome.as_ref().unwrap())).collect();
        assert_eq!(found, [(&left, &0)]);
        assert!(!left.exists());
        for dir in [&running, &open, &other, &link] {
            assert!(dir.join(DATA).exists(), "{}", dir.display());
        }
        drop(lock);
        assert_eq!(sweep(&base, &BTreeMap::new()).await.len(), 1);
    }

    #[test]
    fn a_process_that_is_no_postgres_is_nobodys_server() {
        let here = fs::canonicalize(".").unwrap();
        assert_eq!(working_in(&here), Vec::<u32>::new());
        assert!(is_postgres(Path::new("/pg/bin/postgres (deleted)")));
        assert!(!is_postgres(Path::new("/pg/bin/postgres-exporter")));
    }
}
