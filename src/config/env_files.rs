//! Environment files: those of a project, which count, and those of an application in the working
//! directory, which must not.

use crate::secret::Secret;
use crate::tools::supabase::env_file;
use fs_err as fs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an application's file could lead a run of the CLI away by: its runtime loads the files of
/// the working directory before it starts (facts 1.3).
const LEADING_AWAY: [&str; 8] = [
    "SUPABASE_PROJECT_ID",
    "SUPABASE_ACCESS_TOKEN",
    "SUPABASE_WORKDIR",
    "SUPABASE_PROFILE",
    "SUPABASE_HOME",
    "SUPABASE_DB_PASSWORD",
    "SUPABASE_EXPERIMENTAL_STACK",
    "SUPABASE_YES",
];

/// The variables of one file.
#[derive(Clone, Debug)]
pub struct EnvFile {
    /// The file.
    pub path: PathBuf,
    values: BTreeMap<String, Secret>,
}

impl EnvFile {
    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&Secret> {
        self.values.get(name).filter(|value| !value.expose().is_empty())
    }

    /// Names of the variables that could lead a run elsewhere.
    pub fn leading_away(&self) -> impl Iterator<Item = (&str, &Secret)> {
        let leads = |name: &str| LEADING_AWAY.contains(&name) || name.starts_with("PG");
        self.values.iter().map(|(name, value)| (name.as_str(), value)).filter(move |(name, _)| leads(name))
    }
}

/// The files that the CLI's runtime would load from the working directory.
pub fn of_application(cwd: &Path, node_env: Option<&str>) -> Vec<EnvFile> {
    let mode = node_env.unwrap_or("development");
    [".env".to_owned(), ".env.local".to_owned(), format!(".env.{mode}")]
        .iter()
        .filter_map(|name| read(&cwd.join(name)))
        .collect()
}

/// The project's own files, the strongest first: what an earlier one sets, a later one does not
/// change (CLI source, `loadNestedEnv`).
pub fn of_project(root: &Path, supabase_env: Option<&str>) -> Vec<EnvFile> {
    let mode = supabase_env.unwrap_or("development");
    let mut names = vec![format!(".env.{mode}.local")];
    if mode != "test" {
        names.push(".env.local".to_owned());
    }
    names.extend([format!(".env.{mode}"), ".env".to_owned()]);
    [root.join("supabase"), root.to_owned()]
        .iter()
        .flat_map(|dir| names.iter().map(|name| dir.join(name)))
        .filter_map(|path| read(&path))
        .collect()
}

fn read(path: &Path) -> Option<EnvFile> {
    // A file that cannot be read has no say; the CLI passes over it as well.
    let text = fs::read_to_string(path).ok()?;
    Some(EnvFile { path: path.to_owned(), values: env_file::parse(&text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_files_have_an_order() {
        let dir = tempfile::tempdir().unwrap();
        crate::disk::make_private_dir(&dir.path().join("supabase")).unwrap();
        for name in ["supabase/.env", "supabase/.env.local", ".env", ".env.development.local", ".env.prod"] {
            crate::disk::write(&dir.path().join(name), format!("FROM={name}\n").as_bytes()).unwrap();
        }
        let order = |mode| -> Vec<String> {
            let files = of_project(dir.path(), mode);
            files.iter().map(|file| file.variable("FROM").unwrap().expose().to_owned()).collect()
        };
        assert_eq!(order(None), ["supabase/.env.local", "supabase/.env", ".env.development.local", ".env"]);
        assert_eq!(order(Some("prod")), ["supabase/.env.local", "supabase/.env", ".env.prod", ".env"]);
        assert_eq!(order(Some("test")), ["supabase/.env", ".env"]);
    }

    #[test]
    fn what_leads_away_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let text = "DATABASE_URL=x\nPGHOST=h\nSUPABASE_PROJECT_ID=zzz\nSUPABASE_URL=u\n";
        crate::disk::write(&dir.path().join(".env.production"), text.as_bytes()).unwrap();
        assert!(of_application(dir.path(), None).is_empty());
        let files = of_application(dir.path(), Some("production"));
        let names: Vec<&str> = files.iter().flat_map(EnvFile::leading_away).map(|(name, _)| name).collect();
        assert_eq!(names, ["PGHOST", "SUPABASE_PROJECT_ID"]);
    }
}
