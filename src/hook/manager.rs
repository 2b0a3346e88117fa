//! Programs that own a repository's hooks, and the line that each needs.

use crate::proc::shell_word;
use fs_err as fs;
use std::path::{Path, PathBuf};

/// What a hook has to call.
pub const LINE: &str = "supa-safe check --pre-push \"$@\"";
/// husky's folder, unless it was given another.
const HUSKY: &str = ".husky";
/// The names under which lefthook looks for its configuration (lefthook's documentation, page
/// "Configuration", version 2).
const LEFTHOOK: [&str; 5] = ["yml", "yaml", "toml", "json", "jsonc"];

/// A program that owns a repository's hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// husky: one shell file for each hook in a folder, `.husky` unless it was given another.
    Husky {
        /// The file for this hook.
        file: PathBuf,
        /// The folder, from the top of the work tree.
        folder: PathBuf,
    },
    /// lefthook: one configuration.
    Lefthook {
        /// The file.
        file: PathBuf,
    },
}

impl Manager {
    /// The one that owns the hooks of a work tree whose hooks stand in this folder.
    pub(super) fn of(top: &Path, hooks_dir: &Path) -> Option<Self> {
        if let Some(folder) = husky(top, hooks_dir) {
            let file = top.join(&folder).join("pre-push");
            return Some(Self::Husky { file, folder });
        }
        let folders = [top.to_owned(), top.join(".config")];
        let names =
            LEFTHOOK.iter().flat_map(|form| [format!("lefthook.{form}"), format!(".lefthook.{form}")]);
        let names: Vec<String> = names.collect();
        folders
            .iter()
            .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
            .find(|file| file.is_file())
            .map(|file| Self::Lefthook { file })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Husky { .. } => "husky",
            Self::Lefthook { .. } => "lefthook",
        }
    }

    /// The file that a person adds to.
    pub fn file(&self) -> &Path {
        match self {
            Self::Husky { file, .. } | Self::Lefthook { file } => file,
        }
    }

    /// What to add to it.
    pub fn addition(&self) -> Vec<String> {
        match self {
            Self::Husky { .. } => vec![LINE.to_owned()],
            Self::Lefthook { .. } => [
                "pre-push:",
                "  commands:",
                "    supa-safe:",
                "      run: supa-safe check --pre-push {1} {2}",
                "      use_stdin: true",
            ]
            .map(str::to_owned)
            .to_vec(),
        }
    }

    /// Whether the file calls supa-safe already.
    pub fn calls_us(&self) -> bool {
        calls_us(self.file())
    }

    /// Whether the hook that git runs is one of this manager's.
    pub(super) fn is_behind(&self, hook: &Path) -> bool {
        match self {
            Self::Husky { file, .. } => file.parent().is_some_and(|own| hook.starts_with(own)),
            Self::Lefthook { .. } => fs::read_to_string(hook).is_ok_and(|text| text.contains("lefthook")),
        }
    }

    /// What makes git run it, from the top of the work tree.
    pub fn start(&self) -> String {
        let folder = match self {
            Self::Lefthook { .. } => return "lefthook install".to_owned(),
            Self::Husky { folder, .. } => folder,
        };
        let shown = shell_word(&folder.display().to_string());
        // `.husky` stands beside the packages that husky is one of.
        match folder.parent().filter(|packages| folder.ends_with(HUSKY) && *packages != Path::new("")) {
            Some(packages) => {
                let packages = shell_word(&packages.display().to_string());
                format!("npx --prefix {packages} husky {shown}")
            }
            None if *folder == Path::new(HUSKY) => "npx husky".to_owned(),
            None => format!("npx husky {shown}"),
        }
    }
}

/// husky's folder from the top of the work tree: the one that git looks into, or else the usual one.
///
/// husky 9 points git to the folder `_` in its own, whose files run those beside it; before, git looked into
/// its own. A project below the top gives its folder as the argument (husky's documentation, page "How To",
/// "Project Not in Git Root Directory").
fn husky(top: &Path, hooks_dir: &Path) -> Option<PathBuf> {
    let below = || hooks_dir.ancestors().take_while(|dir| dir.starts_with(top));
    let named = below().find(|dir| dir.ends_with(HUSKY));
    let is_huskys = hooks_dir.join("husky.sh").is_file() || !hooks_dir.exists();
    let given = below().nth(1).filter(|_| hooks_dir.ends_with("_") && is_huskys);
    let usual = Some(top.join(HUSKY)).filter(|usual| usual.is_dir());
    let folder = named.or(given).map(Path::to_owned).or(usual)?;
    folder.strip_prefix(top).ok().map(Path::to_owned)
}

/// Whether a file calls supa-safe in a line that is no comment.
pub(super) fn calls_us(file: &Path) -> bool {
    let calls = |line: &str| !line.trim_start().starts_with('#') && line.contains("check --pre-push");
    fs::read_to_string(file).is_ok_and(|text| text.lines().any(calls))
}
