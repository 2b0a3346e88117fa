//! Atomic writes, private modes, locks: the only module that writes files.
//!
//! Everything is written to a temporary name in the same folder, synced, renamed, and the
//! folder synced, so that a crash leaves the old file or the new one, never a half.

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads that digest files: the disk is the limit soon after.
const HASHING_THREADS: usize = 4;

/// Sets the process's umask so that files of ours and of our children are private.
pub fn private_by_default() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
}

/// Makes a folder and its missing parents, mode 0700. Their names last as long as what stands in them.
pub fn make_private_dir(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|error| {
        io::Error::new(error.kind(), format!("create folder `{}`: {error}", path.display()))
    })?;
    missing.into_iter().filter_map(|dir| parent(dir).ok()).try_for_each(sync_dir)
}

/// Writes a whole file, mode 0600, atomically and durably.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = parent(path)?;
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    temp.write_all(bytes)?;
    persist(temp, path)
}

fn persist(temp: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|error| {
        io::Error::new(error.error.kind(), format!("rename to `{}`: {}", path.display(), error.error))
    })?;
    sync_dir(parent(path)?)
}

/// Writes a whole file that others may read, mode 0644, durably; false when there is one already.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let dir = parent(path)?;
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    temp.write_all(bytes)?;
    temp.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    temp.as_file().sync_all()?;
    match temp.persist_noclobber(path) {
        Ok(_) => sync_dir(dir).map(|()| true),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.error),
    }
}

/// Writes a whole program, mode 0755, atomically and durably.
pub fn write_program(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = parent(path)?;
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    temp.write_all(bytes)?;
    temp.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
    persist(temp, path)
}

/// A file that has no name of its own yet, mode 0600; dropping it removes it.
#[derive(Debug)]
pub struct Temp(tempfile::NamedTempFile);

impl Temp {
    /// Makes one in a folder of the file system that it shall stay on.
    pub fn new_in(dir: &Path) -> io::Result<Self> {
        Ok(Self(tempfile::NamedTempFile::new_in(dir)?))
    }

    /// Syncs it and gives it its name. The folder of the name is not synced.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        self.0.as_file().sync_all()?;
        self.0.persist(path).map_err(|error| {
            io::Error::new(error.error.kind(), format!("rename to `{}`: {}", path.display(), error.error))
        })?;
        Ok(())
    }
}

impl io::Write for Temp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A file of lines, mode 0600, which grows as they come; nothing is synced.
#[derive(Debug)]
pub struct Lines(io::BufWriter<fs::File>);

impl Lines {
    /// Makes the file, or empties it.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        Ok(Self(io::BufWriter::new(file)))
    }

    /// Appends a line.
    pub fn text(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(line.as_bytes())?;
        self.0.write_all(b"\n")
    }

    /// Appends a value as a line of JSON.
    pub fn json<T: Serialize>(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, value)?;
        self.0.write_all(b"\n")
    }

    /// Hands everything to the system.
    pub fn finish(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Makes a file or folder another user's (user and group id); only root may.
pub fn give_to(path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    fs::os::unix::fs::chown(path, Some(uid), Some(gid))
}

/// Writes a value as indented JSON with a final newline.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    write(path, &bytes)
}

/// Renames a finished folder into place and syncs the parent.
pub fn publish_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(parent(to)?)
}

/// Syncs a folder, so that renames in it are durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Syncs every file below a folder and the folders themselves.
pub fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    sync_dir(path)
}

/// Every file below a folder, as relative paths in order.
pub fn files_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                walk(root, &path, found)?;
            } else if let Ok(relative) = path.strip_prefix(root) {
                found.push(relative.to_owned());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(root, root, &mut found)?;
    found.sort();
    Ok(found)
}

/// Files below a folder that a process which died had not given their names yet, as relative paths in order.
pub fn unnamed_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = files_below(root)?;
    // `.tmp` and six letters (documentation of tempfile, `Builder`).
    found.retain(|file| {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(".tmp").is_some_and(|rest| rest.len() == 6)
    });
    Ok(found)
}

/// Bytes of all files below a folder; files that vanish meanwhile count nothing.
pub fn bytes_below(root: &Path) -> u64 {
    files_below(root).map_or(0, |files| {
        files.iter().filter_map(|file| fs::metadata(root.join(file)).ok()).map(|meta| meta.len()).sum()
    })
}

/// SHA-256 of a file, lowercase hex, and its length in bytes.
pub fn sha256_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    let mut length = 0_u64;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(hasher.finalize()), length));
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        length += read as u64;
    }
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0_u8; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// [`sha256_file`] of many files, a few at a time, in their order.
pub fn sha256_files(paths: &[PathBuf]) -> Vec<io::Result<(String, u64)>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(HASHING_THREADS);
    let next = AtomicUsize::new(0);
    let digests = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(at) else { return };
                    let digest = sha256_file(path);
                    digests.lock().unwrap_or_else(PoisonError::into_inner).insert(at, digest);
                }
            });
        }
    });
    digests.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

/// SHA-256 of bytes, lowercase hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// How a folder stands, without touching it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Why it cannot be written to, or made, if so.
    pub problem: Option<String>,
    /// Whether others may look into it.
    pub is_open: bool,
    /// Bytes free where it stands, or would stand.
    pub free_bytes: u64,
}

/// Looks at a folder; of one that is not there, at the nearest one above it.
pub fn look_at_dir(path: &Path) -> Look {
    let above = path.ancestors().find(|dir| fs::symlink_metadata(dir).is_ok()).unwrap_or(Path::new("/"));
    let meta = fs::metadata(above);
    let is_dir = meta.as_ref().is_ok_and(std::fs::Metadata::is_dir);
    let may = rustix::fs::access(above, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK);
    let problem = match (is_dir, may) {
        (false, _) => Some(format!("`{}` is no folder", above.display())),
        (true, Err(error)) => Some(format!("`{}` cannot be written to: {error}", above.display())),
        (true, Ok(())) => None,
    };
    let is_open = above == path && meta.is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0);
    Look { problem, is_open, free_bytes: free_bytes(above).unwrap_or(0) }
}

/// Bytes free for us on the file system of a path.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Takes write rights from every file below a folder, so that nothing edits a frozen copy by accident.
pub fn make_read_only(root: &Path) -> io::Result<()> {
    for file in files_below(root)? {
        fs::set_permissions(root.join(file), std::fs::Permissions::from_mode(0o400))?;
    }
    Ok(())
}

/// Copies one file, mode 0600, making its folder.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    make_private_dir(parent(to)?)?;
    fs::copy(from, to)?;
    fs::set_permissions(to, std::fs::Permissions::from_mode(0o600))
}

/// An exclusive lock on a file; let go when dropped or when the process dies.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
}

impl Lock {
    /// Takes the lock, or returns `None` when another process holds it.
    ///
    /// The holder's process id stands in the file, for the message of who waits.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        match file.file().try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut lock = Self { file };
        lock.file.set_len(0)?;
        write!(lock.file, "{}", std::process::id())?;
        Ok(Some(lock))
    }

    /// Whether a process holds the lock, be it one that cannot be seen from here; nothing is written.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        match fs::File::open(path)?.file().try_lock_shared() {
            Ok(()) => Ok(false),
            Err(std::fs::TryLockError::WouldBlock) => Ok(true),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Appends lines to a file, each synced before the call returns unless it is said to be unsynced.
#[derive(Debug)]
pub struct Journal {
    file: fs::File,
    /// Whether a line may have been written in part.
    is_torn: bool,
}

impl Journal {
    /// Opens or makes the file, mode 0600.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = parent(path)?;
        make_private_dir(dir)?;
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        // A line that is on disk in a file whose name is not would be lost with it.
        sync_dir(dir)?;
        Ok(Self { file, is_torn: false })
    }

    /// Appends one JSON line durably.
    pub fn append<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        self.append_unsynced(record)?;
        self.file.sync_data()
    }

    /// Appends one JSON line, which outlives this process, and a power cut as soon as a later line is synced.
    pub fn append_unsynced<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        // What stands there of a line that failed is to take no other one along.
        let mut line = if self.is_torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut line, record)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        self.is_torn = written.is_err();
        written
    }
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("`{}` has no folder", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        write_json(&path, &[1, 2]).unwrap();
        write_json(&path, &[3]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  3\n]\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(files_below(dir.path()).unwrap(), vec![PathBuf::from("x.json")]);
    }

    #[test]
    fn a_file_without_a_name_of_its_own_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a");
        make_private_dir(&below).unwrap();
        write(&below.join(".tmp"), b"x").unwrap();
        write(&below.join("0001.csv"), b"x").unwrap();
        let temp = Temp::new_in(&below).unwrap();
        let name = Path::new("a").join(temp.0.path().file_name().unwrap());
        assert_eq!(unnamed_below(dir.path()).unwrap(), [name]);
        temp.persist(&below.join("0002.csv")).unwrap();
        assert!(unnamed_below(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        let held = Lock::take(&path).unwrap();
        assert!(held.is_some());
        assert!(Lock::take(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::take(&path).unwrap().is_some());
    }
}
