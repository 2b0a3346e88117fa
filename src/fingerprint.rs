//! What a database consists of, as lines that can be kept, compared, and told to a person.
//!
//! A line names one object by words that survive a restore (no object ids, no database name) and
//! holds its definition: a JSON object whose absent fields mean "as created by default". Each line
//! belongs to one [`Class`] of state, which says what a difference in it means.

mod class;
mod difference;

pub use class::{Class, Place, is_platform_role, is_platform_schema};
pub use difference::{Difference, one_line};

use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Why a text is not a fingerprint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A line has too few or too many fields.
    #[error("line {line} has {fields} fields where class, kind, identity, and definition are expected")]
    Fields {
        /// The line's number, from 1.
        line: usize,
        /// How many fields there are.
        fields: usize,
    },
    /// The first field is no class.
    #[error("line {line} starts with `{word}`, which is not a class (owned, merged, or platform)")]
    Class {
        /// The line's number, from 1.
        line: usize,
        /// What stands there.
        word: String,
    },
    /// A backslash is followed by something that [`Fingerprint::to_text`] never writes.
    #[error("line {line} has `\\{found}`, which is not an escape (\\\\, \\n, \\r, or \\t)")]
    Escape {
        /// The line's number, from 1.
        line: usize,
        /// What follows the backslash; empty at the end of a field.
        found: String,
    },
    /// The last line break is missing, so the text may have been cut.
    #[error("line {line} is cut: the text does not end with a line break")]
    Cut {
        /// The line's number, from 1.
        line: usize,
    },
}

/// One object, or one aspect of it that changes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What a difference in this line means.
    pub class: Class,
    /// What sort of object it is, in words for people: `table`, `column`, `policy`.
    pub kind: String,
    /// The object's name, qualified and quoted as SQL wants it.
    pub identity: String,
    /// How the object is defined.
    pub definition: String,
}

impl Line {
    /// Whether `pg_dump` leaves the object out, so that no restore brings it back: an index that a
    /// failed `create index concurrently` left behind.
    pub fn is_beyond_dump(&self) -> bool {
        self.kind == "invalid index"
    }

    /// Whether it is a user mapping whose options the session may not read: a dump by its role lacks them too.
    pub fn hides_options(&self) -> bool {
        is_hidden(&self.kind, &self.definition)
    }

    fn key(&self) -> (&str, &str) {
        (&self.kind, &self.identity)
    }

    fn write(&self, text: &mut String) {
        text.push_str(self.class.word());
        for field in [&self.kind, &self.identity, &self.definition] {
            text.push('\t');
            escape(field, text);
        }
        text.push('\n');
    }
}

/// The lines of one database at one moment, ordered by kind and identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    lines: Vec<Line>,
}

impl Fingerprint {
    /// Puts the lines in order; which order they come in does not matter.
    pub fn new(lines: impl IntoIterator<Item = Line>) -> Self {
        let mut lines: Vec<Line> = lines.into_iter().collect();
        lines.sort_by(|a, b| (a.key(), &a.definition, a.class).cmp(&(b.key(), &b.definition, b.class)));
        Self { lines }
    }

    /// Returns the lines in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Writes one line of text per object: class, kind, identity, and definition, apart by tabs.
    ///
    /// Tabs, line breaks, and backslashes inside a field are written `\t`, `\n`, `\r`, and `\\`.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            line.write(&mut text);
        }
        text
    }

    /// Reads what [`Self::to_text`] wrote.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let Some(body) = text.strip_suffix('\n') else {
            return if text.is_empty() {
                Ok(Self::default())
            } else {
                Err(Error::Cut { line: text.split('\n').count() })
            };
        };
        let lines = body.split('\n').enumerate().map(|(index, line)| read_line(line, index + 1));
        Ok(Self::new(lines.collect::<Result<Vec<_>, _>>()?))
    }

    /// Returns the SHA-256, in hex, of the text of the owned lines.
    pub fn owned_digest(&self) -> String {
        let mut text = String::new();
        for line in self.lines.iter().filter(|line| line.class == Class::Owned) {
            line.write(&mut text);
        }
        hex::encode(Sha256::digest(text.as_bytes()))
    }

    /// Says what has to be done to this database to get the other one, in one class of state.
    ///
    /// An object that is of another class on the other side counts with the class that it has
    /// there, so that it shows as removed from one class and added to another.
    pub fn differences(&self, other: &Self, class: Class) -> Vec<Difference> {
        let (before, after) = (self.by_key(class), other.by_key(class));
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        keys.into_iter()
            .filter_map(|key| {
                let [was, is] = [&before, &after].map(|side| side.get(key));
                (was != is).then(|| Difference {
                    kind: key.0.to_owned(),
                    identity: key.1.to_owned(),
                    before: was.map(|found| found.join("\n")),
                    after: is.map(|found| found.join("\n")),
                })
            })
            .filter(|difference| {
                !difference.follows_from_columns() && !difference.is_hidden() && !difference.is_unhashed()
            })
            .collect()
    }

    /// Leaves out the lines for which the predicate holds, as when an extension cannot be had here.
    #[must_use]
    pub fn without(&self, predicate: impl Fn(&Line) -> bool) -> Self {
        Self { lines: self.lines.iter().filter(|line| !predicate(line)).cloned().collect() }
    }

    /// Two lines with one key are not expected, but neither is one of them lost.
    fn by_key(&self, class: Class) -> BTreeMap<(&str, &str), Vec<&str>> {
        let mut map = BTreeMap::<_, Vec<_>>::new();
        for line in self.lines.iter().filter(|line| line.class == class) {
            map.entry(line.key()).or_default().push(line.definition.as_str());
        }
        map
    }
}

/// What stands for options that the session may not read.
const HIDDEN: &str = r#"{"options": "not readable"}"#;

fn is_hidden(kind: &str, definition: &str) -> bool {
    kind == "user mapping" && definition == HIDDEN
}

fn read_line(text: &str, line: usize) -> Result<Line, Error> {
    let fields: Vec<&str> = text.split('\t').collect();
    let [class, kind, identity, definition] = fields[..] else {
        return Err(Error::Fields { line, fields: fields.len() });
    };
    Ok(Line {
        class: Class::from_word(class).ok_or_else(|| Error::Class { line, word: class.to_owned() })?,
        kind: unescape(kind, line)?,
        identity: unescape(identity, line)?,
        definition: unescape(definition, line)?,
    })
}

fn escape(field: &str, text: &mut String) {
    for character in field.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            other => text.push(other),
        }
    }
}

fn unescape(field: &str, line: usize) -> Result<String, Error> {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        text.push(match characters.next() {
            Some('\\') => '\\',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            found => return Err(Error::Escape { line, found: found.map(String::from).unwrap_or_default() }),
        });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(class: Class, kind: &str, identity: &str, definition: &str) -> Line {
        Line { class, kind: kind.into(), identity: identity.into(), definition: definition.into() }
    }

    fn any_line() -> impl Strategy<Value = Line> {
        let class = prop::sample::select(vec![Class::Owned, Class::Merged, Class::Platform]);
        let text = "[ab\\\\ntr\t\n\r\u{2028}é\"]{0,8}|\\PC*";
        (class, text, text, text).prop_map(|(class, kind, identity, definition)| Line {
            class,
            kind,
            identity,
            definition,
        })
    }

    proptest! {
        #[test]
        fn text_gives_back_the_same_fingerprint(lines in prop::collection::vec(any_line(), 0..6)) {
            let fingerprint = Fingerprint::new(lines);
            prop_assert_eq!(Fingerprint::from_text(&fingerprint.to_text()), Ok(fingerprint));
        }

        #[test]
        fn the_order_of_lines_does_not_matter(
            (lines, shuffled) in prop::collection::vec(any_line(), 0..6)
                .prop_flat_map(|lines| (Just(lines.clone()), Just(lines).prop_shuffle()))
        ) {
            let (one, other) = (Fingerprint::new(lines), Fingerprint::new(shuffled));
            prop_assert_eq!(one.owned_digest(), other.owned_digest());
            prop_assert_eq!(one, other);
        }

        #[test]
        fn no_difference_means_the_same_digest(
            a in prop::collection::vec(any_line(), 0..4), b in prop::collection::vec(any_line(), 0..4)
        ) {
            let (a, b) = (Fingerprint::new(a), Fingerprint::new(b));
            let same = a.differences(&b, Class::Owned).is_empty();
            prop_assert_eq!(same, a.owned_digest() == b.owned_digest());
        }
    }

    #[test]
    fn text_is_one_line_per_object_in_order() {
        let fingerprint = Fingerprint::new([
            line(Class::Platform, "table", "auth.users", "{}"),
            line(Class::Owned, "column", "public.a.b", "x\ty\\z\n"),
        ]);
        assert_eq!(
            fingerprint.to_text(),
            "owned\tcolumn\tpublic.a.b\tx\\ty\\\\z\\n\nplatform\ttable\tauth.users\t{}\n"
        );
    }

    #[test]
    fn a_spoiled_text_is_refused_with_its_line() {
        let good = "owned\ttable\ta\t{}\n";
        let check = |bad: &str, says: &str| {
            let error = Fingerprint::from_text(&format!("{good}{bad}")).expect_err(bad);
            assert_eq!(error.to_string(), says);
        };
        check(
            "owned\ttable\ta\n",
            "line 2 has 3 fields where class, kind, identity, and definition are expected",
        );
        check("\n", "line 2 has 1 fields where class, kind, identity, and definition are expected");
        check(
            "mine\ttable\ta\t{}\n",
            "line 2 starts with `mine`, which is not a class (owned, merged, or platform)",
        );
        check(
            "owned\ttable\ta\\x\t{}\n",
            "line 2 has `\\x`, which is not an escape (\\\\, \\n, \\r, or \\t)",
        );
        check("owned\ttable\ta\t{}\\\n", "line 2 has `\\`, which is not an escape (\\\\, \\n, \\r, or \\t)");
        check("owned\ttable\tb\t{}", "line 2 is cut: the text does not end with a line break");
    }

    #[test]
    fn the_digest_covers_owned_lines_only() {
        let owned = line(Class::Owned, "table", "public.a", "{}");
        let base = Fingerprint::new([owned.clone(), line(Class::Platform, "table", "auth.users", "{}")]);
        let moved = Fingerprint::new([owned, line(Class::Platform, "table", "auth.users", "{\"x\": 1}")]);
        assert_eq!(base.owned_digest(), moved.owned_digest());
        assert_ne!(base.owned_digest(), Fingerprint::default().owned_digest());
        assert!(base.differences(&moved, Class::Owned).is_empty());
        assert_eq!(base.differences(&moved, Class::Platform).len(), 1);
    }

    #[test]
    fn a_line_that_is_there_twice_is_not_lost() {
        let one = line(Class::Owned, "cast", "x", "{\"a\": 1}");
        let two = line(Class::Owned, "cast", "x", "{\"a\": 2}");
        let both = Fingerprint::new([one.clone(), two]);
        assert_eq!(both.lines().len(), 2);
        assert_eq!(both.differences(&Fingerprint::new([one]), Class::Owned).len(), 1);
    }

    #[test]
    fn without_leaves_lines_out() {
        let base = Fingerprint::new([
            line(Class::Owned, "extension", "vector", "{}"),
            line(Class::Owned, "table", "public.a", "{}"),
        ]);
        let left = base.without(|line| line.kind == "extension");
        assert_eq!(left.lines().len(), 1);
    }
}
