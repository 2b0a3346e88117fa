//! The git pre-push hook: installs and removes it, and knows what a push carries.
//!
//! The installed file is a short shell script that asks `supa-safe check --pre-push`. A hook that
//! stood there before is kept and runs first, with the same lines on stdin. It keeps its name and stands as
//! deep as before, in a folder beside that of the hooks, because many hooks ask who and where they are. What
//! belongs to somebody else (a hook manager, a folder outside the repository) is not touched.

mod manager;
mod push;

pub use manager::{LINE, Manager};
pub use push::{Behind, Carried, LINKS, Line, MIGRATIONS, Watched, carried, parse, root_of_link};

use crate::disk;
use crate::proc::{self, shell_word};
use crate::tools::git::Git;
use fs_err as fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The hook as it is installed, but for the place of the program.
const TEMPLATE: &str = include_str!("../templates/pre-push.sh");
/// The line of the template that names the program.
const PROGRAM: &str = "supa_safe=supa-safe\n";
/// How a hook of ours begins its second line.
const MARK: &str = "# supa-safe pre-push hook, version ";
/// The version of the template.
pub const VERSION: u32 = 2;
/// The hook's file name.
const FILE: &str = "pre-push";
/// What the folder of the hook that stood there before is called, behind the name of the hooks' folder; version
/// 1 called the hook itself so, and it still does where there is no room beside the folder.
///
/// Not `.legacy`: pre-commit and prek move whatever they find to that name.
const BEFORE: &str = ".before-supa-safe";

/// Why the hook cannot be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no repository.
    #[error("`{}` is in no git repository", .0.display())]
    NoRepository(PathBuf),
    /// `core.hooksPath` leads out of the repository.
    #[error("`core.hooksPath` leads to `{}`, outside of this repository", .dir.display())]
    Outside {
        /// Where git looks for hooks.
        dir: PathBuf,
        /// The scope in which it is set, such as `global`.
        scope: String,
        /// The repository's own folder of hooks.
        own: PathBuf,
    },
    /// A hook manager owns the hooks, and does not call supa-safe.
    #[error("{} owns the hooks of this repository", .manager.name())]
    Managed {
        /// The manager.
        manager: Manager,
        /// Whether git runs it.
        is_run: bool,
    },
    /// A hook manager would call supa-safe, and git does not run it.
    #[error("{} would call supa-safe, and git does not run {} here", .0.name(), .0.name())]
    Idle(Manager),
    /// Two hooks of others are there.
    #[error("`{}` and `{}` are both hooks of others, and only one can run before supa-safe", .hook.display(), .before.display())]
    Two {
        /// The hook that git runs.
        hook: PathBuf,
        /// The one that was kept from before.
        before: PathBuf,
    },
    /// git failed.
    #[error(transparent)]
    Git(#[from] proc::Error),
    /// git says something that is not a line of a pre-push hook.
    #[error("`{0}` is not a line that git gives to a pre-push hook")]
    Line(String),
    /// A file could not be read or written.
    #[error("cannot use the folder of git's hooks")]
    Io(#[from] io::Error),
}

/// Where git looks for the hooks of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub dir: PathBuf,
    /// Whether it is part of the work tree, so that others get what is written there.
    pub shared: bool,
    /// The scope of a `core.hooksPath` that leads outside.
    outside: Option<String>,
    own: PathBuf,
    /// Where a hook from before is kept.
    kept: Option<PathBuf>,
    manager: Option<Manager>,
}

/// What stands where git looks for the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Missing,
    /// Ours.
    Installed {
        /// The version of its text.
        version: u32,
        /// Whether a hook from before runs first.
        before: bool,
    },
    /// Somebody else's.
    Foreign,
}

/// What git runs before a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Nothing: no file, or one that is no program.
    Nothing,
    /// Our hook, in this version.
    Ours(u32),
    /// Somebody else's, which calls supa-safe.
    Caller,
    /// Somebody else's, which does not.
    Foreign,
}

/// What an installation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// A new file.
    New,
    /// A new file, and the hook that stood there runs before it.
    Before,
    /// A newer text, or another place of the program.
    Updated,
    /// Nothing: it was there.
    Already,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Removed the file.
    Removed,
    /// Brought back the hook from before.
    Restored,
    /// Nothing: what stands there, if anything, is not ours.
    NotOurs,
}

impl Place {
    /// Finds the place of a repository's hooks, and whose it is.
    pub fn find(git: &Git, start: &Path) -> Result<Self, Error> {
        if !git.is_repository()? {
            return Err(Error::NoRepository(start.to_owned()));
        }
        let dir = git.hooks_dir()?;
        let real = real_path(&dir);
        let common = real_path(&git.common_dir()?);
        let top = git.top_level()?.map(|top| real_path(&top));
        let own = common.join("hooks");
        let in_work_tree = top.as_ref().is_some_and(|top| real.starts_with(top));
        let inside = real.starts_with(&common) || in_work_tree;
        let outside = if inside { None } else { git.hooks_path()? };
        let is_room =
            |dir: &&Path| dir.starts_with(&common) || top.as_ref().is_some_and(|top| dir.starts_with(top));
        let kept = real.parent().filter(is_room).map(|_| with_ending(&real, BEFORE));
        let scope = |line: String| line.split_whitespace().next().unwrap_or_default().to_owned();
        Ok(Self {
            manager: top.as_ref().and_then(|top| Manager::of(top, &real)),
            shared: in_work_tree && !real.starts_with(&common),
            outside: outside.map(scope),
            own,
            kept,
            dir,
        })
    }

    /// The file of the hook.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// The file of the hook that runs before ours.
    pub fn before(&self) -> PathBuf {
        let in_folder = self.kept.as_ref().map(|kept| kept.join(FILE));
        let of_version_1 = with_ending(&self.file(), BEFORE);
        in_folder.filter(|file| stands(file) || !stands(&of_version_1)).unwrap_or(of_version_1)
    }

    /// Who else manages the hooks here.
    pub fn manager(&self) -> Option<&Manager> {
        self.manager.as_ref()
    }

    /// What git runs before a push: whatever else stands in the repository, this decides.
    pub fn runs(&self) -> io::Result<Runs> {
        let file = self.file();
        Ok(match self.state()? {
            State::Missing => Runs::Nothing,
            _ if !is_program(&file) => Runs::Nothing,
            State::Installed { version, .. } => Runs::Ours(version),
            State::Foreign if self.caller().is_some() => Runs::Caller,
            State::Foreign => Runs::Foreign,
        })
    }

    /// The file of somebody else's hook that calls supa-safe: that of the manager which git runs, or
    /// the hook itself.
    pub fn caller(&self) -> Option<PathBuf> {
        let of_manager = self.active_manager().map(|manager| manager.file().to_owned());
        of_manager.into_iter().chain([self.file()]).find(|file| manager::calls_us(file))
    }

    fn active_manager(&self) -> Option<&Manager> {
        let hook = real_path(&self.dir).join(FILE);
        self.manager.as_ref().filter(|manager| is_program(&hook) && manager.is_behind(&hook))
    }

    /// Whether the folder may be written to at all.
    pub fn check(&self) -> Result<(), Error> {
        // Ours is there, so it is renewed, whoever else manages hooks of other names.
        let is_ours = matches!(self.state()?, State::Installed { .. });
        match (&self.outside, self.manager.as_ref().filter(|_| !is_ours)) {
            (_, Some(manager)) if manager.calls_us() && self.active_manager().is_none() => {
                Err(Error::Idle(manager.clone()))
            }
            (_, Some(manager)) => {
                Err(Error::Managed { manager: manager.clone(), is_run: self.active_manager().is_some() })
            }
            (Some(scope), None) => {
                Err(Error::Outside { dir: self.dir.clone(), scope: scope.clone(), own: self.own.clone() })
            }
            (None, None) => Ok(()),
        }
    }

    /// What stands there.
    pub fn state(&self) -> io::Result<State> {
        let file = self.file();
        if !stands(&file) {
            return Ok(State::Missing);
        }
        let ours = version(&fs::read(&file).unwrap_or_default());
        Ok(ours.map_or(State::Foreign, |version| State::Installed { version, before: self.has_before() }))
    }

    fn has_before(&self) -> bool {
        stands(&self.before())
    }

    /// Removes the folder of the hook from before with the links that our hook made in it.
    fn clear_kept(&self) -> io::Result<()> {
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.is_dir()) else { return Ok(()) };
        let hooks = real_path(&self.dir);
        let hooks = Path::new("..").join(hooks.file_name().unwrap_or_default());
        let mut is_empty = true;
        for entry in fs::read_dir(kept)? {
            let path = entry?.path();
            let is_ours = fs::read_link(&path).is_ok_and(|target| target.starts_with(&hooks));
            if is_ours {
                fs::remove_file(&path)?;
            }
            is_empty &= is_ours;
        }
        // What a hook wrote there is not ours.
        if is_empty { fs::remove_dir(kept) } else { Ok(()) }
    }

    /// Gives a hook that version 1 kept its own name again.
    fn rename_before(&self) -> io::Result<bool> {
        let (Some(kept), old) = (&self.kept, self.before()) else { return Ok(false) };
        if old.starts_with(kept) || !stands(&old) {
            return Ok(false);
        }
        make_dir(kept)?;
        fs::rename(old, kept.join(FILE))?;
        Ok(true)
    }
}

/// Installs the hook, which calls this program.
pub fn install(place: &Place, program: &Path) -> Result<Installed, Error> {
    place.check()?;
    let text = text(place, program);
    let file = place.file();
    let done = match place.state()? {
        State::Missing => Installed::New,
        State::Installed { .. } if fs::read(&file)? == text.as_bytes() && is_program(&file) => {
            return Ok(if place.rename_before()? { Installed::Updated } else { Installed::Already });
        }
        State::Installed { .. } => Installed::Updated,
        State::Foreign if place.has_before() => {
            return Err(Error::Two { hook: file, before: place.before() });
        }
        State::Foreign => {
            if let Some(kept) = &place.kept {
                make_dir(kept)?;
            }
            // Both names stand until the new file takes the first: no push goes by unhooked.
            fs::hard_link(&file, place.before())?;
            Installed::Before
        }
    };
    disk::make_private_dir(&place.dir)?;
    disk::write_program(&file, text.as_bytes())?;
    // This text finds it under both names; that of version 1 only under the old one.
    place.rename_before()?;
    Ok(done)
}

/// Removes the hook when it is ours, and brings back the one from before.
pub fn uninstall(place: &Place) -> Result<Removed, Error> {
    let State::Installed { before, .. } = place.state()? else { return Ok(Removed::NotOurs) };
    if before {
        fs::rename(place.before(), place.file())?;
        place.clear_kept()?;
        return Ok(Removed::Restored);
    }
    fs::remove_file(place.file())?;
    Ok(Removed::Removed)
}

/// The hook's text. In a folder that others share, no path of this machine stands in it.
fn text(place: &Place, program: &Path) -> String {
    if place.shared {
        return TEMPLATE.to_owned();
    }
    TEMPLATE.replacen(PROGRAM, &format!("supa_safe={}\n", shell_word(&program.to_string_lossy())), 1)
}

/// The version of a hook of ours; none when it is not ours.
fn version(text: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(text);
    text.lines().take(3).find_map(|line| line.strip_prefix(MARK))?.trim().parse().ok()
}

/// Whether anything has this name, a link that leads nowhere included.
fn stands(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// A path with more at the end of its name.
fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// A folder that all may read who may read the hooks.
fn make_dir(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// A path without links; of what does not exist, the part that does.
fn real_path(path: &Path) -> PathBuf {
    for base in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (fs::canonicalize(base), path.strip_prefix(base)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_a_hook_of_this_version() {
        assert_eq!(version(TEMPLATE.as_bytes()), Some(VERSION));
        assert_eq!(TEMPLATE.matches(PROGRAM).count(), 2, "once as the place to fill, once as the way out");
    }

    #[test]
    fn only_ours_is_ours() {
        for foreign in
            ["", "#!/bin/sh\nsupa-safe check --pre-push\n", "# supa-safe pre-push hook, version x\n"]
        {
            assert_eq!(version(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(version(b"#!/bin/sh\n# supa-safe pre-push hook, version 7\n"), Some(7));
    }
}
