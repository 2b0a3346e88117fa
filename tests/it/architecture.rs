//! What no compiler checks: the order of the modules, who may do what, and how long a file may be.

use fs_err as fs;
use regex::Regex;
use std::path::Path;
use supa_safe::disk;
use supa_safe::exit::Exit;
use supa_safe::policy::Rule;

/// Longer files are about more than one thing.
const MOST_LINES: usize = 600;

/// A source file.
struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module that the file belongs to; none for the two roots.
    fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/")?;
        let module = path.split(['/', '.']).next()?;
        (!matches!(module, "lib" | "main")).then_some(module)
    }

    /// Numbered lines without comments, up to the unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines
            .take_while(|(_, line)| !line.starts_with("mod tests {"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Places where a pattern stands, as `path:line: text`.
    fn places(&self, pattern: &Regex) -> Vec<String> {
        let found = self.code().filter(|(_, line)| pattern.is_match(line));
        found.map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim())).collect()
    }

    fn is_in(&self, places: &[&str]) -> bool {
        let below = |place: &str| {
            place.strip_suffix('/').is_some_and(|dir| self.path.starts_with(&format!("{dir}/")))
        };
        places.iter().any(|place| self.path == *place || below(place))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut files = disk::files_below(&root().join(folder)).unwrap();
    files.sort();
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .map(|file| Source {
            path: format!("{folder}/{}", file.display()),
            text: fs::read_to_string(root().join(folder).join(file)).unwrap(),
        })
        .collect()
}

/// Demands that a pattern stands nowhere in `src` but in these files and folders, and does stand in them.
#[track_caller]
fn only_in(pattern: &str, allowed: &[&str]) {
    let pattern = Regex::new(pattern).unwrap();
    let (inside, outside): (Vec<Source>, Vec<Source>) =
        sources("src").into_iter().partition(|source| source.is_in(allowed));
    let elsewhere: Vec<String> = outside.iter().flat_map(|source| source.places(&pattern)).collect();
    assert!(elsewhere.is_empty(), "`{pattern}` belongs in {allowed:?}:\n{}", elsewhere.join("\n"));
    let used: Vec<String> = inside.iter().flat_map(|source| source.places(&pattern)).collect();
    assert!(!used.is_empty(), "`{pattern}` stands nowhere: this test looks for the wrong thing");
}

/// The order in which `lib.rs` lists the modules.
fn order() -> Vec<String> {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let module = Regex::new(r"(?m)^(?:pub )?mod (\w+);").unwrap();
    module.captures_iter(&lib).map(|found| found[1].to_owned()).collect()
}

#[test]
fn imports_point_up() {
    let order = order();
    let rank = |module: &str| {
        order
            .iter()
            .position(|listed| listed == module)
            .unwrap_or_else(|| panic!("`{module}` is not in lib.rs"))
    };
    let import = Regex::new(r"\b(?:crate|supa_safe)::(\w+|\{)").unwrap();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources("src") {
        let Some(module) = source.module() else { continue };
        for (number, line) in source.code() {
            for used in import.captures_iter(line).map(|found| found[1].to_owned()) {
                seen += 1;
                if used == "{" || rank(&used) > rank(module) {
                    wrong.push(format!("{}:{number}: `{module}` must not use `{used}`", source.path));
                }
            }
        }
    }
    assert!(seen > 300, "only {seen} imports: this test looks for the wrong thing");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn only_proc_starts_programs() {
    only_in(r"\bduct::|\bprocess::Command\b", &["src/proc.rs", "src/proc/"]);
}

#[test]
fn only_ui_asks() {
    only_in(r"\bdialoguer::", &["src/ui/"]);
}

/// A push of the real CLI goes to a target under a clearance, or to a throwaway server.
#[test]
fn only_delegate_and_rehearse_push() {
    only_in(
        r"\.push\(&(supabase::)?Push\b",
        &["src/delegate.rs", "src/rehearse/", "src/demo.rs", "src/demo/"],
    );
    // Nobody makes one to hand it on.
    let made = Regex::new(r"\bPush \{").unwrap();
    let handed = Regex::new(r"\.(push|dry_run)\(&(supabase::)?Push \{").unwrap();
    let elsewhere = sources("src").into_iter().filter(|source| source.path != "src/tools/supabase.rs");
    let loose: Vec<String> =
        elsewhere.flat_map(|source| source.places(&made)).filter(|place| !handed.is_match(place)).collect();
    assert!(loose.is_empty(), "\n{}", loose.join("\n"));
    only_in(r"\bdelegate::push\(", &["src/cli/migrate.rs"]);
    only_in(r#""db", "push""#, &["src/tools/supabase.rs"]);
}

/// Every other session is read-only.
#[test]
fn only_scratches_and_rollbacks_are_opened_for_writing() {
    only_in(
        r"\bwritable\(",
        &[
            "src/postgres/connect.rs",
            "src/quiesce.rs",
            "src/scratch.rs",
            "src/scratch/",
            "src/rehearse/",
            "src/rollback/run.rs",
            "src/rollback/storage.rs",
            "src/rollback/preflight.rs",
            "src/demo.rs",
            "src/demo/",
        ],
    );
    only_in(r"\bConfig::new\(\)", &["src/postgres/connect.rs", "src/postgres/connect/"]);
}

#[test]
fn no_file_is_long() {
    let long: Vec<String> = [sources("src"), sources("tests/it")]
        .into_iter()
        .flatten()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, path)| format!("{path} has {lines} lines"))
        .collect();
    assert!(long.is_empty(), "more than {MOST_LINES}:\n{}", long.join("\n"));
}

#[test]
fn every_module_and_file_says_what_it_is_for() {
    let silent: Vec<String> = [sources("src"), sources("tests/it")]
        .into_iter()
        .flatten()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert_eq!(silent, [""; 0]);
}

#[test]
fn every_rule_has_a_page() {
    let begins = |rule: Rule| {
        let heading = rule.page().lines().next().unwrap_or_default();
        let title = heading.strip_prefix("# ").and_then(|rest| rest.strip_prefix(rule.code()));
        title.and_then(|rest| rest.strip_prefix(": ")).is_some_and(|title| !title.is_empty())
    };
    let wrong: Vec<&str> = Rule::ALL.into_iter().filter(|rule| !begins(*rule)).map(Rule::code).collect();
    assert_eq!(wrong, [""; 0], "these pages do not begin with `# SSnnn: …`");
    let mut pages = disk::files_below(&root().join("templates/explain")).unwrap();
    pages.sort();
    let known = Rule::ALL.map(|rule| format!("{}.md", rule.code()));
    assert_eq!(pages, known.map(std::path::PathBuf::from), "a page without a rule is never shown");
}

#[test]
fn the_readme_lists_every_exit_code() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Exit codes\n").unwrap();
    let rows: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    let expected = Exit::TABLE.map(|(exit, meaning)| format!("| {} | {meaning} |", exit.code()));
    assert_eq!(rows, expected);
}
