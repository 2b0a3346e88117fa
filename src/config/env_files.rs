//! Environment files: those of a project, which count, and those of an application in the working
//! directory, which must not.

use crate::secret::Secret;
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
    Some(EnvFile { path: path.to_owned(), values: parse(&text) })
}

/// Reads `NAME=value` lines: `export`, comments, and both quotes, within which a value may go over
/// several lines.
fn parse(text: &str) -> BTreeMap<String, Secret> {
    let mut values = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    while !rest.is_empty() {
        let after = rest.split_once('\n').map_or("", |(_, after)| after);
        let Some((name, value)) = name_and_rest(rest) else {
            rest = after;
            continue;
        };
        let value = if let Some((value, behind)) = quoted(value) {
            rest = behind.split_once('\n').map_or("", |(_, after)| after);
            value
        } else {
            rest = after;
            let plain = value.lines().next().unwrap_or_default().split(" #").next().unwrap_or_default();
            if plain.starts_with('#') { String::new() } else { plain.trim_end().to_owned() }
        };
        values.insert(name.to_owned(), Secret::new(value));
    }
    values
}

/// The name that a line assigns to, and all that stands behind the sign.
fn name_and_rest(text: &str) -> Option<(&str, &str)> {
    let assignment = text.trim_start_matches([' ', '\t']);
    let assignment = assignment.strip_prefix("export ").unwrap_or(assignment);
    let (name, value) = assignment.split_once('=')?;
    let name = name.trim_matches([' ', '\t']);
    is_name(name).then(|| (name, value.trim_start_matches([' ', '\t'])))
}

/// A value in quotes, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'))?;
    let body = text.get(1..)?;
    let end = closing(body, quote)?;
    let inner = body.get(..end)?;
    let value = if quote == '"' { unescape(inner) } else { inner.to_owned() };
    Some((value, body.get(end + 1..)?))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn closing(body: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    body.char_indices().find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped && quote == '"';
        ends.then_some(at)
    })
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match letters.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some(other) => out.push(other),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_is_read() {
        let text = "\u{feff}# comment\nA=1\n export B = two words # not this\nC=\"x\\n\\\"y\\\" # z\" # c\nD='a\nb'\n\
            E=\nF=#x\nno line\nG=p#ss\r\n=x\nH=\"open\nI='$A'\nJ=last";
        let values = parse(text);
        let read: Vec<(&str, &str)> =
            values.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(
            read,
            [
                ("A", "1"),
                ("B", "two words"),
                ("C", "x\n\"y\" # z"),
                ("D", "a\nb"),
                ("E", ""),
                ("F", ""),
                ("G", "p#ss"),
                ("H", "\"open"),
                ("I", "$A"),
                ("J", "last"),
            ]
        );
    }

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
