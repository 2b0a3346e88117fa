//! The project's folder and the few settings of its configuration that a push reads.

use super::Error;
use crate::target::ProjectRef;
use fs_err as fs;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Configuration files that take precedence over `config.toml` from major 3 on.
const JSON_NAMES: [&str; 2] = ["config.json", "config.jsonc"];

/// A folder with `supabase/config.toml`, or the JSON form of it, inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The folder that the CLI calls the working directory.
    pub root: PathBuf,
    /// The `supabase` folder in it.
    pub supabase_dir: PathBuf,
}

impl Project {
    /// Finds the project as the CLI does: a given folder is used as it is, otherwise the nearest one
    /// upward counts.
    pub fn find(workdir: Option<&Path>, cwd: &Path) -> Result<Self, Error> {
        let start = workdir.map_or_else(|| cwd.to_owned(), |dir| cwd.join(dir));
        let levels = if workdir.is_some() { 1 } else { usize::MAX };
        start
            .ancestors()
            .take(levels)
            .map(|root| Self { root: root.to_owned(), supabase_dir: root.join("supabase") })
            .find(|project| !project.config_files().is_empty())
            .ok_or(Error::NoProject { start, upward: workdir.is_none() })
    }

    /// The configuration files that are there.
    pub fn config_files(&self) -> Vec<PathBuf> {
        let names = JSON_NAMES.iter().chain(&["config.toml"]);
        names.map(|name| self.supabase_dir.join(name)).filter(|path| path.is_file()).collect()
    }

    /// Projects in the folders above, which this one hides.
    pub fn hidden(&self) -> Vec<Self> {
        let above = self.root.ancestors().skip(1);
        above.filter_map(|root| Self::find(Some(root), root).ok()).collect()
    }

    /// Configuration files that a CLI of this major passes over.
    pub fn passed_over(&self, major: u32) -> Result<Vec<PathBuf>, Error> {
        let read = self.config_file(major)?;
        Ok(self.config_files().into_iter().filter(|path| *path != read).collect())
    }

    /// The `[remotes.*]` of every configuration file there is: name and ref.
    pub fn remotes(&self) -> Result<Vec<(String, ProjectRef)>, Error> {
        let mut remotes = Vec::new();
        for path in self.config_files() {
            remotes.extend(Config::read(path)?.remotes()?);
        }
        remotes.sort();
        remotes.dedup();
        Ok(remotes)
    }

    /// Whether the configuration asks for CLI 3's stack mode, in which the link is another file.
    pub fn wants_stack(&self) -> bool {
        let first = self.config_files().into_iter().next();
        let config = first.and_then(|path| Config::read(path).ok());
        config.and_then(|config| config.value.pointer("/experimental/stack")?.as_bool()).unwrap_or_default()
    }

    /// The port of the local stack's database, when `config.toml` says it.
    pub fn local_port(&self) -> Option<u16> {
        let text = fs::read_to_string(self.supabase_dir.join("config.toml")).ok()?;
        let config: toml::Table = text.parse().ok()?;
        let port = config.get("db")?.get("port")?.as_integer()?;
        u16::try_from(port).ok()
    }

    /// The configuration file that a CLI of this major reads.
    pub fn config_file(&self, major: u32) -> Result<PathBuf, Error> {
        let found = self.config_files();
        let toml = || self.supabase_dir.join("config.toml");
        if major < 3 {
            return if found.contains(&toml()) {
                Ok(toml())
            } else {
                Err(Error::NeedsToml { dir: self.supabase_dir.clone() })
            };
        }
        match found.as_slice() {
            [first, second, ..] if *second != toml() => {
                Err(Error::TwoConfigs { first: first.clone(), second: second.clone() })
            }
            [first, ..] => Ok(first.clone()),
            [] => Ok(toml()),
        }
    }

    /// Reads the configuration for a CLI of this major.
    pub fn config(&self, major: u32) -> Result<Config, Error> {
        Config::read(self.config_file(major)?)
    }
}

/// A configuration, read without judging what is of no use here.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    value: Value,
}

impl Config {
    fn read(path: PathBuf) -> Result<Self, Error> {
        let text = fs::read_to_string(&path).map_err(Error::Read)?;
        let broken = |why: String| Error::BrokenConfig { path: path.clone(), why };
        let value = if path.extension().is_some_and(|extension| extension == "toml") {
            toml::from_str(&text).map_err(|error| broken(error.to_string()))?
        } else {
            serde_json::from_str(&plain_json(&text)).map_err(|error| broken(error.to_string()))?
        };
        Ok(Self { path, value })
    }

    /// The `[remotes.*]`: name and project ref, in the order of their names. As the CLI does, this
    /// refuses a ref that is none, and one that two of them share: their settings would contradict.
    pub fn remotes(&self) -> Result<Vec<(String, ProjectRef)>, Error> {
        let remotes = self.value.get("remotes").and_then(Value::as_object);
        let mut found: Vec<(String, ProjectRef)> = Vec::new();
        for (name, remote) in remotes.into_iter().flatten() {
            let Some(text) = remote.get("project_id").and_then(Value::as_str) else { continue };
            let project_ref: ProjectRef = text.parse().map_err(|source| Error::Remote {
                path: self.path.clone(),
                name: name.clone(),
                source,
            })?;
            if let Some((other, _)) = found.iter().find(|(_, known)| *known == project_ref) {
                let names = (other.clone(), name.clone());
                return Err(Error::SharedRef { path: self.path.clone(), names, project_ref });
            }
            found.push((name.clone(), project_ref));
        }
        Ok(found)
    }

    /// The settings that a push to a target reads: those of its `[remotes.*]` stand over the others.
    pub fn settings(&self, project_ref: Option<&ProjectRef>) -> Result<Settings, Error> {
        let mut merged = self.value.clone();
        let own = self.remotes()?.into_iter().find(|(_, id)| Some(id) == project_ref);
        if let Some(over) = own.and_then(|(name, _)| self.value.get("remotes")?.get(name)) {
            merge(&mut merged, over);
        }
        let at = |path: &str| merged.pointer(path);
        let switch = |path: &'static str| match at(path) {
            None => Ok(true),
            Some(value) => value.as_bool().ok_or_else(|| self.unclear(path, "is not true or false")),
        };
        let mut seed_paths = Vec::new();
        match at("/db/seed/sql_paths") {
            None => seed_paths.push("./seed.sql".to_owned()),
            Some(Value::Array(paths)) => {
                for path in paths {
                    let path = path.as_str().filter(|path| !path.starts_with("env("));
                    let unclear = || self.unclear("/db/seed/sql_paths", "holds a value that is no path");
                    seed_paths.push(path.ok_or_else(unclear)?.to_owned());
                }
            }
            Some(_) => return Err(self.unclear("/db/seed/sql_paths", "is not a list of paths")),
        }
        Ok(Settings {
            project_id: at("/project_id").and_then(Value::as_str).unwrap_or("project").to_owned(),
            migrations_enabled: switch("/db/migrations/enabled")?,
            seed_enabled: switch("/db/seed/enabled")?,
            seed_paths,
            vault: at("/db/vault").and_then(Value::as_object).cloned().unwrap_or_default(),
        })
    }

    fn unclear(&self, setting: &str, why: &'static str) -> Error {
        let setting = setting.trim_start_matches('/').replace('/', ".");
        Error::Setting { path: self.path.clone(), setting, why }
    }
}

/// What a push reads of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of the local stack; it does not name a target.
    pub project_id: String,
    /// `[db.migrations] enabled`.
    pub migrations_enabled: bool,
    /// `[db.seed] enabled`.
    pub seed_enabled: bool,
    /// `[db.seed] sql_paths`, relative to `supabase/`.
    pub seed_paths: Vec<String>,
    /// `[db.vault]`.
    pub vault: Map<String, Value>,
}

impl Settings {
    /// Names of the environment variables that the vault's entries come from.
    pub fn vault_variables(&self) -> Vec<String> {
        let name = |value: &Value| Some(value.as_str()?.strip_prefix("env(")?.strip_suffix(')')?.to_owned());
        self.vault.values().filter_map(name).collect()
    }
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// Takes comments and trailing commas out of JSON with comments; everything else stays in its place.
fn plain_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut comma: Option<usize> = None;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' => string_length(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            _ => next.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        if token.starts_with('/') && token.len() > 1 {
            out.extend(token.chars().map(|c| if c == '\n' { c } else { ' ' }));
            continue;
        }
        if let (Some(at), "]" | "}") = (comma, token) {
            out.replace_range(at..=at, " ");
        }
        if token == "," {
            comma = Some(out.len());
        } else if !token.trim().is_empty() {
            comma = None;
        }
        out.push_str(token);
    }
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_with_comments_is_read() {
        let text = "{ // one\n \"a\": \"// no \\\" /* no */\", /* , */ \"b\": [1, 2, /* x */ ], }";
        let value: Value = serde_json::from_str(&plain_json(text)).unwrap();
        assert_eq!(value, serde_json::json!({ "a": "// no \" /* no */", "b": [1, 2] }));
    }

    #[test]
    fn a_remote_stands_over_the_rest() {
        let text = "[db.seed]\nsql_paths = ['./a.sql']\n[db.vault]\nk = 'env(K)'\n\
            [remotes.prod]\nproject_id = 'abcdefghijklmnopqrst'\n[remotes.prod.db.seed]\nenabled = false\n";
        let config = Config { path: PathBuf::from("c"), value: toml::from_str(text).unwrap() };
        let base = config.settings(None).unwrap();
        assert_eq!((base.seed_enabled, base.migrations_enabled), (true, true));
        let prod = config.settings("abcdefghijklmnopqrst".parse().ok().as_ref()).unwrap();
        assert_eq!((prod.seed_enabled, prod.seed_paths), (false, vec!["./a.sql".to_owned()]));
        assert_eq!(base.vault_variables(), ["K"]);
        let remotes = config.remotes().unwrap();
        assert_eq!(remotes, [("prod".to_owned(), "abcdefghijklmnopqrst".parse().unwrap())]);
    }

    #[test]
    fn a_ref_belongs_to_one_remote() {
        let message = |text: &str| {
            let config = Config { path: PathBuf::from("c"), value: toml::from_str(text).unwrap() };
            config.settings(None).unwrap_err().to_string()
        };
        assert_eq!(
            message(
                "[remotes.b]\nproject_id = 'abcdefghijklmnopqrst'\n[remotes.prod]\nproject_id = 'abcdefghijklmnopqrst'\n"
            ),
            "`c` gives `abcdefghijklmnopqrst` to both [remotes.b] and [remotes.prod]; supabase refuses that"
        );
        assert_eq!(
            message("[remotes.prod]\nproject_id = 'env(REF)'\n"),
            "[remotes.prod] in `c` has no project ref"
        );
    }

    #[test]
    fn the_configuration_of_each_major_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            crate::disk::make_private_dir(path.parent().unwrap()).unwrap();
            crate::disk::write(&path, text.as_bytes()).unwrap();
        };
        put("supabase/config.toml", "[remotes.prod]\nproject_id = 'abcdefghijklmnopqrst'\n");
        put("app/supabase/config.json", "{\"experimental\": {\"stack\": true}}");
        put("app/supabase/config.toml", "");
        let project = Project::find(None, &dir.path().join("app/supabase/migrations")).unwrap();
        assert_eq!(project.root, dir.path().join("app"));
        assert_eq!(project.hidden().len(), 1);
        assert!(project.wants_stack() && !project.hidden()[0].wants_stack());
        assert_eq!(project.passed_over(3).unwrap(), [project.supabase_dir.join("config.toml")]);
        assert_eq!(project.passed_over(2).unwrap(), [project.supabase_dir.join("config.json")]);
        put("app/supabase/config.jsonc", "{}");
        assert!(matches!(project.passed_over(3), Err(Error::TwoConfigs { .. })));
        assert_eq!(project.hidden()[0].remotes().unwrap().len(), 1);
    }
}
