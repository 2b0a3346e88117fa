//! Programs that own a repository's hooks, and the line that each needs.

use fs_err as fs;
use std::path::{Path, PathBuf};

/// What a hook has to call.
pub const LINE: &str = "supa-safe check --pre-push \"$@\"";
/// The names under which lefthook looks for its configuration (lefthook's documentation, page
/// "Configuration", version 2).
const LEFTHOOK: [&str; 5] = ["yml", "yaml", "toml", "json", "jsonc"];

/// A program that owns a repository's hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manager {
    /// husky: one shell file for each hook in `.husky`.
    Husky {
        /// The file for this hook.
        file: PathBuf,
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
        let husky = top.join(".husky");
        if hooks_dir.starts_with(&husky) || husky.is_dir() {
            return Some(Self::Husky { file: husky.join("pre-push") });
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
            Self::Husky { file } | Self::Lefthook { file } => file,
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
            Self::Husky { file } => file.parent().is_some_and(|own| hook.starts_with(own)),
            Self::Lefthook { .. } => fs::read_to_string(hook).is_ok_and(|text| text.contains("lefthook")),
        }
    }

    /// What makes git run it.
    pub fn start(&self) -> &'static str {
        match self {
            Self::Husky { .. } => "npx husky",
            Self::Lefthook { .. } => "lefthook install",
        }
    }
}

/// Whether a file calls supa-safe in a line that is no comment.
pub(super) fn calls_us(file: &Path) -> bool {
    let calls = |line: &str| !line.trim_start().starts_with('#') && line.contains("check --pre-push");
    fs::read_to_string(file).is_ok_and(|text| text.lines().any(calls))
}
