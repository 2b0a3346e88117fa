//! Where links of a commit lead.

use fs_err as fs;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How many links a path may take; Linux gives up after as many (`path_resolution(7)`).
const LIMIT: usize = 40;
/// Answers of `cat-file --batch-check --follow-symlinks` that a text follows, whose length they tell
/// (`git-cat-file(1)`, "BATCH OUTPUT").
const WITH_TEXT: [&str; 4] = ["symlink", "dangling", "loop", "notdir"];
/// The one among them that is no dead end: the text is where the link leads to, outside of the tree.
const OUTSIDE: &str = "symlink";

/// A folder, and what links at it and below it lead to: `links` stand in `within` already, the rest need not.
pub(super) fn closure(within: &Path, folder: &Path, links: &[String]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let Some(real) = led(within, &path) else { continue };
        if !found.contains(&real) {
            open.extend(links.iter().map(PathBuf::from).filter(|link| link.starts_with(&real)));
            found.insert(real);
        }
    }
    found
}

/// A path in a folder without its links; none when it leads out of the folder, or nowhere.
fn led(within: &Path, path: &Path) -> Option<PathBuf> {
    let names = |path: &Path| -> VecDeque<OsString> { path.iter().map(OsString::from).collect() };
    let (mut rest, mut real, mut taken) = (names(path), PathBuf::new(), 0);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            if !real.pop() {
                return None;
            }
        } else if let Ok(target) = fs::read_link(within.join(&real).join(&name)) {
            taken += 1;
            if target.is_absolute() || taken > LIMIT {
                return None;
            }
            let mut names = names(&target);
            names.append(&mut rest);
            rest = names;
        } else if name != "." {
            real.push(name);
        }
    }
    Some(real)
}

/// What `cat-file --batch-check --follow-symlinks` printed, one for each path that it was asked for.
pub(super) fn answers(mut text: &str) -> Vec<Option<String>> {
    let mut answers = Vec::new();
    while let Some((line, rest)) = text.split_once('\n') {
        text = rest;
        let words: Vec<&str> = line.split(' ').collect();
        answers.push(match words.as_slice() {
            [what, length] if WITH_TEXT.contains(what) => {
                let length = length.parse().unwrap_or_default();
                let said = text.get(..length).unwrap_or(text).to_owned();
                text = text.get(length + 1..).unwrap_or_default();
                (*what == OUTSIDE).then_some(said)
            }
            [object, _, _] if object.bytes().all(|byte| byte.is_ascii_hexdigit()) => Some(line.to_owned()),
            _ => None,
        });
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let within = dir.path();
        for (target, link) in [
            ("db", "supabase"),
            ("../other/sql", "db/migrations"),
            ("cfg", "other"),
            ("../cfg/config.toml", "db/config.toml"),
            ("../../out", "db/out"),
            ("/etc", "db/absolute"),
            ("round", "db/round"),
        ] {
            crate::disk::make_private_dir(within.join(link).parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(target, within.join(link)).unwrap();
        }
        let links: Vec<String> =
            ["supabase", "db/migrations", "other", "db/config.toml", "db/out", "db/absolute", "db/round"]
                .map(str::to_owned)
                .to_vec();
        let found = closure(within, Path::new("supabase"), &links);
        let expected = ["cfg/config.toml", "cfg/sql", "db"].map(PathBuf::from);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn answers_of_git_are_read() {
        let one = "1111111111111111111111111111111111111111";
        let text = format!(
            "{one} tree 33\n{one}:a/supabase/migrations missing\nsymlink 6\n../sql\ndangling 3\n{one}\n{one} blob 3\n"
        );
        let text = text.replace(&format!("dangling 3\n{one}"), "dangling 3\na b");
        let expected = [
            Some(format!("{one} tree 33")),
            None,
            Some("../sql".to_owned()),
            None,
            Some(format!("{one} blob 3")),
        ];
        assert_eq!(answers(&text), expected);
    }
}
