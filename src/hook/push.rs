//! What a push carries: which projects' migrations, to which branch.

use super::Error;
use crate::proc;
use crate::tools::git::Git;
use std::collections::{BTreeMap, BTreeSet};

/// The folder of the migrations, wherever the project is in the repository.
pub const MIGRATIONS: &str = "supabase/migrations/";
/// What counts as a change of them.
const CHANGES: &str = "**/supabase/migrations/**";
/// How links that lead to migrations are found.
pub const LINKS: [&str; 2] = ["**/supabase", "**/supabase/migrations"];
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

impl Line {
    /// The commit, and the branch of the remote that it is pushed to; none when it is no push to a branch.
    pub fn to_branch(&self) -> Option<(&str, &str)> {
        self.commit.as_deref().zip(self.remote_ref.strip_prefix(HEADS))
    }
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

/// A folder of migrations that stands elsewhere in the work tree, behind links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The project's folder from the top of the work tree.
    pub root: String,
    /// Where the migrations really are.
    pub folder: String,
}

/// Which branches count for which project.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// For projects without a list of their own.
    pub default: Vec<String>,
    /// By the project's folder from the top of the work tree.
    pub own: BTreeMap<String, Vec<String>>,
    /// The commit that is checked out.
    pub head: Option<String>,
    /// Migrations behind links of the work tree.
    pub behind: Vec<Behind>,
    /// By a commit that is not checked out: what may be links to migrations there; none when nobody can list it.
    pub links: BTreeMap<String, Option<Vec<String>>>,
}

impl Watched {
    fn of(&self, root: &str) -> &[String] {
        self.own.get(root).unwrap_or(&self.default)
    }

    /// Every list that holds a branch, once.
    fn lists_with(&self, branch: &str) -> BTreeSet<&[String]> {
        let all = self.own.values().chain([&self.default]);
        all.map(Vec::as_slice).filter(|list| watches(list, branch)).collect()
    }

    /// Links of the work tree say nothing of another commit.
    fn behind(&self, commit: &str) -> &[Behind] {
        if self.is_checked_out(commit) { &self.behind } else { &[] }
    }

    fn is_checked_out(&self, commit: &str) -> bool {
        self.head.as_deref() == Some(commit)
    }
}

/// The projects that a changed path belongs to.
fn roots_of<'a>((path, is_link): &'a (String, bool), behind: &'a [Behind]) -> impl Iterator<Item = &'a str> {
    let is_below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let behind = behind.iter().filter(move |one| is_below(&one.folder)).map(|one| one.root.as_str());
    let linked = if *is_link { root_of_link(path) } else { None };
    root_of(path).or(linked).into_iter().chain(behind)
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
        let Some((commit, branch)) = line.to_branch() else { continue };
        let lists = watched.lists_with(branch);
        if lists.is_empty() {
            continue;
        }
        let changes = changes(git, line.replaces.as_deref(), commit, watched.behind(commit))?;
        let roots = changes.iter().flat_map(|change| roots_of(change, watched.behind(commit)));
        let mut roots: BTreeSet<String> = roots.map(str::to_owned).collect();
        if !watched.is_checked_out(commit) {
            roots.extend(changed_behind_links(git, line.replaces.as_deref(), commit, watched)?);
        }
        found.extend(roots.into_iter().filter(|root| lists.contains(watched.of(root))).map(|root| Carried {
            root,
            commit: commit.to_owned(),
            branch: branch.to_owned(),
        }));
    }
    Ok(found.into_iter().collect())
}

fn changes(
    git: &Git,
    base: Option<&str>,
    commit: &str,
    behind: &[Behind],
) -> Result<Vec<(String, bool)>, proc::Error> {
    let [folder, migrations] = LINKS;
    let patterns = [CHANGES, folder, migrations];
    let below: Vec<&str> = behind.iter().map(|one| one.folder.as_str()).collect();
    if let Some(base) = base
        && let Some(changed) = git.changed([base, commit], &patterns, &below)?
    {
        return Ok(changed);
    }
    let nothing = git.empty_tree()?;
    git.changed([&nothing, commit], &patterns, &below)?.ok_or_else(|| proc::Error::Failed {
        shown: format!("git diff-tree {nothing} {commit}"),
        ended: proc::Ended::Code(128),
        tail: String::new(),
    })
}

/// Projects of a commit that is not checked out, in which other migrations stand behind links than in what
/// the push replaces.
fn changed_behind_links(
    git: &Git,
    base: Option<&str>,
    commit: &str,
    watched: &Watched,
) -> Result<Vec<String>, proc::Error> {
    let links = match watched.links.get(commit) {
        Some(known) => known.clone(),
        None => git.tracked(&LINKS, Some(commit))?,
    };
    // Where nobody can list a commit, in a bare repository, the usual place is asked for.
    let links = links.unwrap_or_else(|| vec!["supabase".to_owned()]);
    let roots: BTreeSet<&str> = links.iter().filter_map(|link| root_of_link(link)).collect();
    if roots.is_empty() {
        return Ok(Vec::new());
    }
    let folder = MIGRATIONS.trim_end_matches('/');
    let at = |tree: &str, root: &str| match root {
        "" => format!("{tree}:{folder}"),
        root => format!("{tree}:{root}/{folder}"),
    };
    let trees: Vec<&str> = [commit].into_iter().chain(base).collect();
    let asked: Vec<String> = roots.iter().flat_map(|root| trees.iter().map(|tree| at(tree, root))).collect();
    let found = git.led_to(&asked)?;
    let differs = |sides: &[Option<String>]| sides.first() != sides.get(1).or(Some(&None));
    let pairs = roots.into_iter().zip(found.chunks(trees.len()));
    Ok(pairs.filter(|(_, sides)| differs(sides)).map(|(root, _)| root.to_owned()).collect())
}

/// The folder of the project whose migrations a link leads to, by the link's path.
pub fn root_of_link(path: &str) -> Option<&str> {
    let project = path.strip_suffix("/migrations").unwrap_or(path).strip_suffix("supabase")?;
    if project.is_empty() { Some(project) } else { project.strip_suffix('/') }
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
        for (path, root) in [
            ("supabase", Some("")),
            ("apps/web/supabase/migrations", Some("apps/web")),
            ("mysupabase", None),
            ("supabase/migrations.sql", None),
        ] {
            assert_eq!(root_of_link(path), root, "{path}");
        }
    }
}
