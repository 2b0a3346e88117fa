//! One difference between two fingerprints, and how it is told.

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

/// Longer values are not shown: only the name of their field is.
const LONGEST_VALUES: usize = 80;
/// The same for lists, of which only the entries that came and went are shown.
const LONGEST_LIST: usize = 240;
/// Kinds whose options have their names told, and their values hashed.
const HASHED: [&str; 4] = ["foreign data wrapper", "foreign server", "foreign table", "column"];

/// One object that is not the same on both sides.
///
/// `before` and `after` hold the user's code, and with it whatever secrets somebody wrote into it:
/// they are for files. What goes to a terminal or a log is the `Display` form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What sort of object it is.
    pub kind: String,
    /// The object's name.
    pub identity: String,
    /// Its definition before, if it was there.
    pub before: Option<String>,
    /// Its definition after, if it is there.
    pub after: Option<String>,
}

impl Difference {
    /// Whether the order of columns differs only by columns that were added or removed, which
    /// have lines of their own.
    pub(super) fn follows_from_columns(&self) -> bool {
        if self.kind != "column order" {
            return false;
        }
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return true };
        let [before, after] = [before, after].map(|text| columns(text));
        let (Some(before), Some(after)) = (before, after) else { return false };
        let kept_before: Vec<_> = before.iter().filter(|name| after.contains(name)).collect();
        let kept_after: Vec<_> = after.iter().filter(|name| before.contains(name)).collect();
        before.len().max(after.len()) != kept_before.len() && kept_before == kept_after
    }

    /// Whether one side may not read the options that the other one does: a role sees less than another.
    pub(super) fn is_hidden(&self) -> bool {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return false };
        [before, after].into_iter().any(|definition| super::is_hidden(&self.kind, definition))
    }

    /// Whether all that differs is that one side was taken before options of this kind were hashed: where
    /// the names of all options are the same, a hash stands on both sides or on none.
    pub(super) fn is_unhashed(&self) -> bool {
        if !HASHED.contains(&self.kind.as_str()) {
            return false;
        }
        let side = |text: &Option<String>| {
            let mut fields = fields(text.as_deref()?)?;
            let hash = fields.remove("sha256");
            Some((fields, hash.is_some()))
        };
        let (Some(before), Some(after)) = (side(&self.before), side(&self.after)) else { return false };
        before.0 == after.0 && before.1 != after.1
    }

    /// Whether nothing but privileges differs.
    pub fn is_of_privileges(&self) -> bool {
        let side = |text: &Option<String>| {
            let mut fields = fields(text.as_deref()?)?;
            fields.remove("acl");
            Some(fields)
        };
        side(&self.before).is_some_and(|before| Some(before) == side(&self.after))
    }

    fn changed_fields(&self, before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        names
            .into_iter()
            .filter(|name| before.get(*name) != after.get(*name))
            .map(|name| self.tell(name, before.get(name), after.get(name)))
            .collect()
    }

    /// Names a field, and shows its values where they are short and cannot hold a secret.
    ///
    /// The code of functions, views, rules, and triggers can: a webhook's trigger has a token in it.
    fn tell(&self, name: &str, before: Option<&Value>, after: Option<&Value>) -> String {
        let is_closed = match name {
            "definition" => !matches!(self.kind.as_str(), "constraint" | "index" | "statistics"),
            "sha256" => true,
            _ => false,
        };
        let (changes, longest) = match (before, after) {
            (Some(Value::Array(before)), Some(Value::Array(after))) => (moved(before, after), LONGEST_LIST),
            (None, Some(Value::Array(after))) => (moved(&[], after), LONGEST_LIST),
            (Some(Value::Array(before)), None) => (moved(before, &[]), LONGEST_LIST),
            (None, Some(Value::Bool(true))) => ("false -> true".to_owned(), LONGEST_VALUES),
            (Some(Value::Bool(true)), None) => ("true -> false".to_owned(), LONGEST_VALUES),
            _ => (format!("{} -> {}", scalar(before), scalar(after)), LONGEST_VALUES),
        };
        let name = one_line(name);
        if is_closed || changes.chars().count() > longest { name } else { format!("{name} {changes}") }
    }
}

fn columns(definition: &str) -> Option<Vec<Value>> {
    match fields(definition)?.remove("columns")? {
        Value::Array(names) => Some(names),
        _ => None,
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.kind, one_line(&self.identity))?;
        match (&self.before, &self.after) {
            (None, _) => f.write_str("added"),
            (_, None) => f.write_str("removed"),
            (Some(before), Some(after)) => match (fields(before), fields(after)) {
                (Some(before), Some(after)) => {
                    write!(f, "changed: {}", self.changed_fields(&before, &after).join("; "))
                }
                _ => f.write_str("changed"),
            },
        }
    }
}

fn fields(definition: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(definition).ok()
}

fn scalar(value: Option<&Value>) -> String {
    match value {
        None => "none".to_owned(),
        Some(Value::String(text)) => one_line(text),
        Some(value) => value.to_string(),
    }
}

/// Escapes what would break a line, or do worse to a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, character| {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
        line
    })
}

/// Says which entries came and went, or both lists where only their order differs.
fn moved(before: &[Value], after: &[Value]) -> String {
    let gone = before.iter().filter(|entry| !after.contains(entry)).map(|entry| ('-', entry));
    let come = after.iter().filter(|entry| !before.contains(entry)).map(|entry| ('+', entry));
    let moves: Vec<String> =
        gone.chain(come).map(|(sign, entry)| format!("{sign}{}", scalar(Some(entry)))).collect();
    if moves.is_empty() {
        let [before, after] = [before, after]
            .map(|list| list.iter().map(|entry| scalar(Some(entry))).collect::<Vec<_>>().join(", "));
        format!("{before} -> {after}")
    } else {
        moves.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(kind: &str, before: Option<&str>, after: Option<&str>) -> Difference {
        let [before, after] = [before, after].map(|text| text.map(str::to_owned));
        Difference { kind: kind.into(), identity: "public.x".into(), before, after }
    }

    #[test]
    fn told_in_one_line() {
        let check = |kind: &str, before: Option<&str>, after: Option<&str>, says: &str| {
            assert_eq!(difference(kind, before, after).to_string(), says);
        };
        check("table", None, Some("{}"), "table public.x added");
        check("column", Some("{}"), None, "column public.x removed");
        check(
            "table",
            Some(r#"{"owner": "a", "acl": ["anon=SELECT", "b=X"]}"#),
            Some(r#"{"owner": "a", "acl": ["b=X", "c=Y"], "row security": true}"#),
            "table public.x changed: acl -anon=SELECT +c=Y; row security false -> true",
        );
        check(
            "type",
            Some(r#"{"labels": ["a", "b"]}"#),
            Some(r#"{"labels": ["b", "a"]}"#),
            "type public.x changed: labels a, b -> b, a",
        );
        check("other", Some("a"), Some("b"), "other public.x changed");
    }

    #[test]
    fn code_and_values_that_may_be_secret_are_not_told() {
        let tell = |kind: &str, field: &str| {
            let [before, after] = ["s3cret", "other"].map(|text| format!(r#"{{"{field}": "{text}"}}"#));
            difference(kind, Some(&before), Some(&after)).to_string()
        };
        assert_eq!(tell("trigger", "definition"), "trigger public.x changed: definition");
        assert_eq!(tell("setting", "sha256"), "setting public.x changed: sha256");
        assert_eq!(tell("setting", "value"), "setting public.x changed: value s3cret -> other");
        assert_eq!(
            tell("constraint", "definition"),
            "constraint public.x changed: definition s3cret -> other"
        );
        let long = format!(r#"{{"default": "{}"}}"#, "x".repeat(200));
        let text = difference("column", Some("{}"), Some(&long)).to_string();
        assert_eq!(text, "column public.x changed: default");
    }

    #[test]
    fn a_hash_that_an_older_snapshot_lacks_is_no_difference() {
        let is_unhashed = |kind: &str, before: &str, after: &str| {
            [(before, after), (after, before)]
                .map(|(before, after)| difference(kind, Some(before), Some(after)).is_unhashed())
        };
        let [none, one, other] = ["", r#", "sha256": "1""#, r#", "sha256": "2""#]
            .map(|hash| format!(r#"{{"fdw options": ["uri"]{hash}}}"#));
        assert_eq!(is_unhashed("foreign table", &none, &one), [true, true]);
        assert_eq!(is_unhashed("foreign table", &one, &other), [false, false]);
        assert_eq!(is_unhashed("foreign table", "{}", &one), [false, false], "an option that came");
        assert_eq!(is_unhashed("user mapping", "{}", r#"{"sha256": "1"}"#), [false, false]);
        assert!(!difference("column", None, Some(&one)).is_unhashed());
    }

    #[test]
    fn a_name_cannot_break_the_line() {
        let identity = "public.\"a\nb\u{1b}[2J\"".to_owned();
        let difference = Difference { kind: "table".into(), identity, before: None, after: None };
        assert_eq!(difference.to_string(), r#"table public."a\nb\u{1b}[2J" added"#);
    }

    #[test]
    fn the_order_of_columns_counts_only_where_columns_moved() {
        let follows = |before: &str, after: &str| {
            let order = |names: &str| {
                let names: Vec<&str> = names.split_terminator(' ').collect();
                serde_json::json!({ "columns": names }).to_string()
            };
            difference("column order", Some(&order(before)), Some(&order(after))).follows_from_columns()
        };
        assert!(follows("a b c", "a c"), "one removed");
        assert!(follows("a c", "a b c"), "one added");
        assert!(follows("a b c", "a c d"), "one removed, one added");
        assert!(!follows("a b", "b a"), "moved");
        assert!(!follows("a b c", "c a"), "moved and removed");
        assert!(!difference("table", None, None).follows_from_columns());
        assert!(difference("column order", None, Some("{}")).follows_from_columns(), "a new table");
        assert!(!difference("column order", Some("x"), Some("y")).follows_from_columns());
    }
}
