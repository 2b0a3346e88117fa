//! The seed files that `[db.seed] sql_paths` names, as the CLI finds them.
//!
//! Patterns are Go's `path.Match`, part by part; a folder stands for every `.sql` file below it, links
//! left out; each pattern's matches are in byte order, and a file counts once.

use super::Error;
use fs_err as fs;
use std::path::Path;

/// Resolves patterns to paths from the project's root; patterns that match nothing come back as well.
pub(super) fn expand(root: &Path, patterns: &[String]) -> Result<(Vec<String>, Vec<String>), Error> {
    let mut found: Vec<String> = Vec::new();
    let mut empty = Vec::new();
    for pattern in patterns {
        let parts = clean(pattern)?;
        let mut matches = vec![String::new()];
        for part in &parts {
            matches = matches.iter().flat_map(|dir| step(root, dir, part)).collect();
        }
        matches.sort();
        if matches.is_empty() {
            empty.push(pattern.clone());
        }
        for path in matches {
            let files = if root.join(&path).is_dir() { below(root, &path)? } else { vec![path] };
            for file in files {
                if !found.contains(&file) {
                    found.push(file);
                }
            }
        }
    }
    Ok((found, empty))
}

/// A found path as a pattern, relative to `supabase/`, that matches just it.
pub(super) fn pattern_of(path: &str) -> String {
    let relative =
        path.strip_prefix("supabase/").map_or_else(|| format!("../{path}"), |inside| format!("./{inside}"));
    let escape = |c: char| if "*?[\\".contains(c) { vec!['\\', c] } else { vec![c] };
    relative.chars().flat_map(escape).collect()
}

/// The parts of a pattern from the project's root, without `.` and `..`.
fn clean(pattern: &str) -> Result<Vec<&str>, Error> {
    if pattern.starts_with('/') {
        return Err(Error::SeedOutside { pattern: pattern.to_owned() });
    }
    let mut parts = vec!["supabase"];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(Error::SeedOutside { pattern: pattern.to_owned() });
        }
    }
    if parts.is_empty() {
        return Err(Error::SeedOutside { pattern: pattern.to_owned() });
    }
    Ok(parts)
}

/// The entries of a folder that one part of a pattern matches.
fn step(root: &Path, dir: &str, part: &str) -> Vec<String> {
    let join = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
    if !part.contains(['*', '?', '[', '\\']) {
        let path = join(part);
        return if root.join(&path).symlink_metadata().is_ok() { vec![path] } else { Vec::new() };
    }
    let pattern: Vec<char> = part.chars().collect();
    let entries = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| matches(&pattern, &name.chars().collect::<Vec<_>>()))
        .map(|name| join(&name))
        .collect()
}

/// Every `.sql` file below a folder, in byte order of the whole paths.
fn below(root: &Path, dir: &str) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(dir)).map_err(Error::Read)? {
        let entry = entry.map_err(Error::Read)?;
        let kind = entry.file_type().map_err(Error::Read)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{dir}/{name}");
        if kind.is_dir() {
            found.extend(below(root, &path)?);
        } else if kind.is_file() && name.strip_suffix(".sql").is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Go's `path.Match` for one part of a path; a broken pattern matches nothing.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return name.is_empty() };
    if *first == '*' {
        return (0..=name.len()).any(|at| name.get(at..).is_some_and(|tail| matches(rest, tail)));
    }
    let Some((c, tail)) = name.split_first() else { return false };
    match first {
        '?' => matches(rest, tail),
        '\\' => rest.split_first().is_some_and(|(literal, rest)| literal == c && matches(rest, tail)),
        '[' => class(rest, *c).is_some_and(|(inside, rest)| inside && matches(rest, tail)),
        _ => first == c && matches(rest, tail),
    }
}

/// Reads `[^a-z]` behind its bracket: whether the character is in it, and what follows.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let one = |rest: &[char]| match rest {
        ['\\', c, ..] => Some((*c, 2)),
        [']' | '-', ..] | [] => None,
        [c, ..] => Some((*c, 1)),
    };
    let negated = pattern.first() == Some(&'^');
    let mut rest = pattern.get(usize::from(negated)..)?;
    let mut inside = false;
    let mut ranges = 0;
    while ranges == 0 || rest.first() != Some(&']') {
        let (low, taken) = one(rest)?;
        rest = rest.get(taken..)?;
        let mut high = low;
        if rest.first() == Some(&'-') {
            let (end, taken) = one(rest.get(1..)?)?;
            (high, rest) = (end, rest.get(1 + taken..)?);
        }
        inside |= (low..=high).contains(&c);
        ranges += 1;
    }
    Some((inside != negated, rest.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_the_cli() {
        let check = |pattern: &str, name: &str| {
            matches(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>())
        };
        for (pattern, name) in [
            ("*.sql", "a.sql"),
            ("*", ""),
            ("[ab]?.sql", "a1.sql"),
            ("[^a]", "b"),
            ("a\\*", "a*"),
            ("[a-c]x", "bx"),
        ] {
            assert!(check(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.sql", "a.txt"), ("[ab]", "c"), ("[", "["), ("[]a]", "a"), ("?", ""), ("a\\*", "ab")]
        {
            assert!(!check(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_found_path_names_itself() {
        assert_eq!(pattern_of("supabase/seed.sql"), "./seed.sql");
        assert_eq!(pattern_of("more/[1]*.sql"), "../more/\\[1]\\*.sql");
    }

    #[test]
    fn a_seed_outside_the_project_is_refused() {
        for pattern in ["/etc/passwd", "../../x.sql", ".."] {
            assert!(matches!(clean(pattern), Err(Error::SeedOutside { .. })), "{pattern}");
        }
        assert_eq!(clean(".././supabase//a.sql").unwrap(), ["supabase", "a.sql"]);
    }
}
