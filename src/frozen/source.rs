//! What of a project belongs into a copy.

use super::{CHECKS, CONFIG, Error, MIGRATIONS, Project, ROLES, Settings, Want, no_file, seeds};
use crate::migration::{self, Skipped};
use fs_err as fs;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Everything of a project that goes into its copy, by path from the root.
pub(super) struct Source {
    pub(super) config_path: String,
    pub(super) files: BTreeMap<String, Content>,
    pub(super) migrations: Vec<String>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) checks: Vec<String>,
    pub(super) seeds: Vec<String>,
    pub(super) unmatched_seeds: Vec<String>,
    pub(super) settings: Settings,
}

/// Where a file of the copy comes from.
pub(super) enum Content {
    Copy(PathBuf),
    Text(String),
}

impl Source {
    pub(super) fn read(project: &Project, want: &Want) -> Result<Self, Error> {
        let config = project.config(want.major)?;
        let settings = config.settings(want.project_ref.as_ref())?;
        let root = &project.root;
        let mut files = BTreeMap::new();
        let mut copy = |path: String| {
            let from = root.join(&path);
            // A link is followed: the copy holds its content.
            match fs::metadata(&from) {
                Ok(meta) if meta.is_file() => drop(files.insert(path, Content::Copy(from))),
                Ok(_) => return Err(Error::NoFile { path, source: None }),
                Err(source) => return Err(no_file(&path, source)),
            }
            Ok(())
        };
        let (migrations, skipped) = migration::list(entries(root, MIGRATIONS)?);
        for name in &migrations {
            copy(format!("{MIGRATIONS}/{name}"))?;
        }
        let mut checks = entries(root, CHECKS)?;
        checks.retain(|name| name.strip_suffix(".sql").is_some());
        checks.sort();
        for name in &checks {
            copy(format!("{CHECKS}/{name}"))?;
        }
        if want.flags.include_roles && root.join(ROLES).exists() {
            copy(ROLES.to_owned())?;
        }
        // From major 3 on the flag itself turns seeding on.
        let seeding = want.flags.include_seed && (settings.seed_enabled || want.major >= 3);
        let patterns = if seeding { settings.seed_paths.as_slice() } else { &[] };
        let (seeds, unmatched_seeds) = seeds::expand(root, patterns)?;
        for path in &seeds {
            copy(path.clone())?;
        }
        // The names that the CLI passes over decide whether an old `init` file stands first.
        for one in skipped.iter().filter(|one| !one.file_name.starts_with(".env")) {
            let path = format!("{MIGRATIONS}/{}", one.file_name);
            files.insert(path, Content::Text(String::new()));
        }
        let text = config_text(&settings, &seeds, want.flags.with_vault)?;
        files.insert(CONFIG.to_owned(), Content::Text(text));
        let config_path = config.path.strip_prefix(root).unwrap_or(&config.path).display().to_string();
        Ok(Self { config_path, files, migrations, skipped, checks, seeds, unmatched_seeds, settings })
    }
}

/// Names of a folder's entries that are not folders themselves.
fn entries(root: &Path, dir: &str) -> Result<Vec<String>, Error> {
    let found = match fs::read_dir(root.join(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.map_err(Error::Read)?,
    };
    let mut names = Vec::new();
    for entry in found {
        let entry = entry.map_err(Error::Read)?;
        if entry.file_type().map_err(Error::Read)?.is_dir() {
            continue;
        }
        let name = entry.file_name().into_string();
        names.push(name.map_err(|name| Error::NotUtf8 { path: format!("{dir}/{}", name.display()) })?);
    }
    Ok(names)
}

/// The configuration for the CLI: nothing but what a push reads.
fn config_text(settings: &Settings, seeds: &[String], with_vault: bool) -> Result<String, Error> {
    let patterns: Vec<String> = seeds.iter().map(|path| seeds::pattern_of(path)).collect();
    let mut config = serde_json::json!({
        "project_id": settings.project_id,
        "db": {
            "migrations": { "enabled": settings.migrations_enabled },
            "seed": { "enabled": !patterns.is_empty(), "sql_paths": patterns },
        },
    });
    if with_vault && let Some(db) = config.get_mut("db").and_then(serde_json::Value::as_object_mut) {
        db.insert("vault".to_owned(), settings.vault.clone().into());
    }
    toml::to_string(&config).map_err(|error| Error::Write(io::Error::other(error)))
}
