//! Reads an env file as `supabase secrets set --env-file` does, so that a digest of what is read is the
//! digest of what that command deploys.
//!
//! Measured on 2.122.1 and 3.1.0, both follow the npm package `dotenv`: `export ` and `NAME: value` are
//! accepted; quotes (single, double, backtick) may span lines; in double quotes `\n` and `\r` become
//! line ends and no other escape does anything; a `#` ends a value that is not quoted; nothing is
//! expanded; of two lines with one name the last one holds. A line that fits no pattern is passed over.

use crate::secret::Secret;
use std::collections::BTreeMap;

/// Reads names and values.
pub fn parse(text: &str) -> BTreeMap<String, Secret> {
    let text: Vec<char> = text.replace("\r\n", "\n").replace('\r', "\n").chars().collect();
    let mut found = BTreeMap::new();
    let mut at = 0;
    while at < text.len() {
        let line = Reader { text: &text, at };
        let mut end = at;
        if let Some((name, value, after)) = line.assignment() {
            found.insert(name, Secret::new(unquoted(&value)));
            end = after;
        }
        at = end_of_line(&text, end) + 1;
    }
    found
}

/// JavaScript's `\s`.
fn is_space(c: char) -> bool {
    c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}')
}

/// Where JavaScript's `$` matches.
fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\u{2028}' | '\u{2029}')
}

fn end_of_line(text: &[char], from: usize) -> usize {
    text.iter().skip(from).position(|c| is_line_end(*c)).map_or(text.len(), |found| from + found)
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    text: &'a [char],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a [char] {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.iter().position(|c| !wanted(*c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// A name, its value as written, and where the value ends.
    fn assignment(mut self) -> Option<(String, String, usize)> {
        self.take_while(is_space);
        let plain = self;
        let exported = self.exported().and_then(Self::pair);
        exported.or_else(|| plain.pair())
    }

    fn exported(mut self) -> Option<Self> {
        let word = self.take_while(|c| !is_space(c));
        let is_export = word.iter().collect::<String>() == "export";
        (is_export && !self.take_while(is_space).is_empty()).then_some(self)
    }

    fn pair(mut self) -> Option<(String, String, usize)> {
        let name: String =
            self.take_while(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)).iter().collect();
        if name.is_empty() {
            return None;
        }
        let mut equals = self;
        equals.take_while(is_space);
        if equals.peek() == Some('=') {
            equals.at += 1;
            self = equals;
        } else {
            let colon = self.peek() == Some(':');
            self.at += 1;
            if !colon || !self.peek().is_some_and(is_space) {
                return None;
            }
            self.at += 1;
        }
        let (value, end) = self.quoted().unwrap_or_else(|| {
            let mut rest = self;
            let value = rest.take_while(|c| c != '#' && c != '\n');
            (value.iter().collect(), rest.at)
        });
        Some((name, value, end))
    }

    /// A quoted value with nothing but a comment behind it on its last line.
    fn quoted(mut self) -> Option<(String, usize)> {
        self.take_while(is_space);
        let quote = self.peek().filter(|c| matches!(c, '\'' | '"' | '`'))?;
        let open = self.at;
        let mut ends = Vec::new();
        for (at, c) in self.text.iter().enumerate().skip(open + 1) {
            if *c == quote {
                ends.push(at);
                let before = self.text.get(at - 1);
                if at == open + 1 || before != Some(&'\\') {
                    break;
                }
            }
        }
        // An escaped quote ends the value only when no later one does.
        let end = ends.into_iter().rev().find(|end| self.is_last(end + 1))?;
        Some((self.text.get(open..=end)?.iter().collect(), end + 1))
    }

    fn is_last(&self, at: usize) -> bool {
        let mut rest = Self { text: self.text, at };
        rest.take_while(|c| is_space(c) && !is_line_end(c));
        rest.peek().is_none_or(|c| c == '#' || is_line_end(c))
    }
}

/// The value without its quotes, and in double quotes with its line ends.
fn unquoted(value: &str) -> String {
    let value = value.trim_matches(is_space);
    let quote = value.chars().next().filter(|c| matches!(c, '\'' | '"' | '`'));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote)).unwrap_or(value);
    if quote == Some('"') { inner.replace("\\n", "\n").replace("\\r", "\r") } else { inner.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    fn read(text: &str) -> Vec<(String, String)> {
        parse(text).into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect()
    }

    /// What 2.122.1 and 3.1.0 sent for this file.
    #[test]
    fn values_are_what_the_cli_deploys() {
        let text = "A=1\nexport B=\"two words\"\nC=\"line1\\nline2\"\nD=\"real\nnewline\"\nE=\nF=unicode ✓ ü\nG=a#b\nH=a # comment\nI='single \\n $X'\nJ=\"x $A ${B}\"\nK: yaml\nL=\"quo\\\"te\"\nM=`back`\nN = spaced  \nO=\"tail\" # c\nP=$A\nQ=\"a\\\\b\"\nR='it's'\nS.T=dot\nU=\"\\t tab\"\nV=\"#h\"\n";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "line1\nline2"),
            ("D", "real\nnewline"),
            ("E", ""),
            ("F", "unicode ✓ ü"),
            ("G", "a"),
            ("H", "a"),
            ("I", "single \\n $X"),
            ("J", "x $A ${B}"),
            ("K", "yaml"),
            ("L", "quo\\\"te"),
            ("M", "back"),
            ("N", "spaced"),
            ("O", "tail"),
            ("P", "$A"),
            ("Q", "a\\\\b"),
            ("R", "it's"),
            ("S.T", "dot"),
            ("U", "\\t tab"),
            ("V", "#h"),
        ];
        assert_eq!(read(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// The pattern of dotenv, which has no look-around: the same language in any engine that prefers
    /// the first alternative.
    fn by_pattern(text: &str) -> Vec<(String, String)> {
        let pattern = Regex::new(
            r#"(?m)^\s*(?:export\s+)?([A-Za-z0-9_.-]+)(?:\s*=\s*?|:\s+?)(\s*'(?:\\'|[^'])*'|\s*"(?:\\"|[^"])*"|\s*`(?:\\`|[^`])*`|[^#\r\n]+)?\s*(?:#.*)?$"#,
        )
        .unwrap();
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut found = BTreeMap::new();
        for one in pattern.captures_iter(&text) {
            let value = one.get(2).map_or("", |value| value.as_str());
            found.insert(one[1].to_owned(), unquoted(value));
        }
        found.into_iter().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_reader_is_the_pattern(text in "([AB=:#'\"` \n\r\\\\]|export |A=|\\\\n|x){0,14}") {
            prop_assert_eq!(read(&text), by_pattern(&text), "{:?}", text);
        }
    }
}
