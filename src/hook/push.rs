//! What a push carries: which projects' migrations, to which branch.

use super::Error;
use crate::proc;
use crate::tools::git::Git;
use std::collections::{BTreeMap, BTreeSet};

/// The folder of the migrations, wherever the project is in the repository.
pub const MIGRATIONS: &str = "supabase/migrations/";
/// What counts as a change of them.
const CHANGES: &str = "**/supabase/migrations/**";
/// How a reference to a branch begins.
const HEADS: &str = "refs/heads/";

/// One line that git gives to the hook: `<local ref> <local sha> <remote ref> <remote sha>`
/// (githooks(5), `pre-push`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The commit that is pushed; none for a deletion.
    pub commit: Option<String>,
    /// The reference on the remote.
    pub remote_ref: String,
    /// What it is there; none when it is new.
    pub replaces: Option<String>,
}

/// A project whose migrations a push changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Carried {
    /// The project's folder from the top of the work tree; empty when it is the top.
    pub root: String,
    /// The commit that is pushed.
    pub commit: String,
    /// The branch of the remote.
    pub branch: String,
}

/// Reads what git says on stdin.
///
/// The local side may be any expression, blanks included (`git push origin ":/fix it:main"`); the other
/// three words may not.
pub fn parse(text: &str) -> Result<Vec<Line>, Error> {
    let id = |word: &str| {
        let is_id = word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| (!word.bytes().all(|byte| byte == b'0')).then(|| word.to_owned()))
    };
    let line = |line: &str| {
        let mut words = line.rsplitn(4, ' ');
        let (replaces, remote_ref, commit) = (words.next()?, words.next()?, words.next()?);
        words.next().filter(|local_ref| !local_ref.is_empty())?;
        Some(Line { commit: id(commit)?, remote_ref: remote_ref.to_owned(), replaces: id(replaces)? })
    };
    text.lines().map(|text| line(text).ok_or_else(|| Error::Line(text.to_owned()))).collect()
}

/// Whether a list of branches holds this one; `*` stands for any text.
fn watches(list: &[String], branch: &str) -> bool {
    list.iter().any(|pattern| fits(pattern, branch))
}

fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.filter_map(|at| rest.get(at..)).any(|rest| fits(tail, rest))
        }),
    }
}

/// A folder of migrations that stands elsewhere in the repository, behind links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The project's folder from the top of the work tree.
    pub root: String,
    /// The link: `supabase`, or its `migrations`.
    pub link: String,
    /// Where the migrations really are.
    pub folder: String,
    /// Where the `supabase` folder really is.
    pub supabase_dir: String,
}

/// Which branches count for which project.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// For projects without a list of their own.
    pub default: Vec<String>,
    /// By the project's folder from the top of the work tree.
    pub own: BTreeMap<String, Vec<String>>,
    /// Migrations behind links.
    pub behind: Vec<Behind>,
}

impl Watched {
    fn of(&self, root: &str) -> &[String] {
        self.own.get(root).unwrap_or(&self.default)
    }

    /// The projects that a changed path belongs to.
    fn roots_of<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let is_below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let behind = self.behind.iter().filter(move |one| path == one.link || is_below(&one.folder));
        root_of(path).into_iter().chain(behind.map(|one| one.root.as_str()))
    }

    /// Every list that holds a branch, once.
    fn lists_with(&self, branch: &str) -> BTreeSet<&[String]> {
        let all = self.own.values().chain([&self.default]);
        all.map(Vec::as_slice).filter(|list| watches(list, branch)).collect()
    }
}

/// The projects whose migrations these lines change, on branches that count for them.
///
/// A branch that the remote has is compared with what it is there. A new one is compared with nothing,
/// and so is a commit that is not here (somebody else pushed it, and it is being replaced): then every
/// migration counts, and the target says which are pending. What another branch has is no measure: it
/// may have come there with `--no-verify`.
pub fn carried(git: &Git, lines: &[Line], watched: &Watched) -> Result<Vec<Carried>, proc::Error> {
    let mut found = BTreeSet::new();
    for line in lines {
        let (Some(commit), Some(branch)) = (&line.commit, line.remote_ref.strip_prefix(HEADS)) else {
            continue;
        };
        let lists = watched.lists_with(branch);
        if lists.is_empty() {
            continue;
        }
        let changes = changes(git, line.replaces.as_deref(), commit, watched)?;
        let roots: BTreeSet<&str> = changes.iter().flat_map(|path| watched.roots_of(path)).collect();
        found.extend(roots.into_iter().filter(|root| lists.contains(watched.of(root))).map(|root| Carried {
            root: root.to_owned(),
            commit: commit.clone(),
            branch: branch.to_owned(),
        }));
    }
    Ok(found.into_iter().collect())
}

fn changes(
    git: &Git,
    base: Option<&str>,
    commit: &str,
    watched: &Watched,
) -> Result<Vec<String>, proc::Error> {
    let below: Vec<&str> =
        watched.behind.iter().flat_map(|one| [one.link.as_str(), one.folder.as_str()]).collect();
    if let Some(base) = base
        && let Some(changed) = git.changed([base, commit], CHANGES, &below)?
    {
        return Ok(changed);
    }
    let nothing = git.empty_tree()?;
    git.changed([&nothing, commit], CHANGES, &below)?.ok_or_else(|| proc::Error::Failed {
        shown: format!("git diff-tree {nothing} {commit}"),
        ended: proc::Ended::Code(128),
        tail: String::new(),
    })
}

/// The folder of the project that a migration belongs to, by its path alone.
fn root_of(path: &str) -> Option<&str> {
    if path.starts_with(MIGRATIONS) {
        return Some("");
    }
    path.find(&format!("/{MIGRATIONS}")).and_then(|at| path.get(..at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn lines_of_git_are_read() {
        let text = format!(
            "refs/heads/main {ONE} refs/heads/main {ZERO}\n:/fix it {ONE} refs/heads/x {ONE}\n(delete) {ZERO} refs/heads/y {ONE}\n"
        );
        let some = || Some(ONE.to_owned());
        let line = |commit, name: &str, replaces| Line {
            commit,
            remote_ref: format!("refs/heads/{name}"),
            replaces,
        };
        assert_eq!(
            parse(&text).unwrap(),
            [line(some(), "main", None), line(some(), "x", some()), line(None, "y", some())]
        );
        assert_eq!(parse("").unwrap(), []);
        for wrong in ["x", "a b c d", &format!("{ONE} refs/heads/main {ONE}"), &format!("a {ONE} b 123")] {
            assert!(matches!(parse(wrong), Err(Error::Line(text)) if text == wrong), "{wrong}");
        }
    }

    #[test]
    fn branches_are_matched() {
        let list = ["main", "release/*", "*-live"].map(str::to_owned);
        for (branch, expected) in [
            ("main", true),
            ("main2", false),
            ("feature/main", false),
            ("release/1", true),
            ("release/1/2", true),
            ("release", false),
            ("eu-live", true),
            ("eu-live-2", false),
        ] {
            assert_eq!(watches(&list, branch), expected, "{branch}");
        }
    }

    #[test]
    fn a_migration_tells_its_project() {
        for (path, root) in [
            ("supabase/migrations/1_a.sql", ""),
            ("apps/web/supabase/migrations/1_a.sql", "apps/web"),
            ("a/supabase/migrations/supabase/migrations/x", "a"),
            ("mysupabase/supabase/migrations/x", "mysupabase"),
        ] {
            assert_eq!(root_of(path), Some(root), "{path}");
        }
    }
}
