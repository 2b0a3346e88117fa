//! Checks that are not proved for the rows that were there before them.

use super::inverse::Unit;
use super::names;
use crate::fingerprint::Fingerprint;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The unproved checks of tables that stay, `left`, above tables that are gone. A table that is new takes
/// its parent's check over as a proved one, and refuses the rows that it had: the check goes, and the
/// archive brings it back, children included, when these have their rows.
pub(super) fn above_gone(recorded: &Fingerprint, left: &Fingerprint) -> BTreeSet<Unit> {
    let of_kind = |kind: &'static str| -> BTreeSet<&str> {
        let lines = left.lines().iter().filter(move |line| line.kind == kind);
        lines.map(|line| line.identity.as_str()).collect()
    };
    let (tables, standing) = (of_kind("table"), of_kind("constraint"));
    let constraints = recorded.lines().iter().filter(|line| line.kind == "constraint");
    let checks = constraints.filter_map(|line| {
        let (name, mut table) = names::on(&line.identity)?;
        let mut constraint = fields(&line.definition)?;
        let is_of_gone = constraint.contains_key("not validated") && !tables.contains(table);
        while is_of_gone && constraint.get("inheritance").and_then(Value::as_str) == Some("inherited") {
            (table, constraint) = above(recorded, name, table)?;
        }
        is_of_gone.then(|| format!("{name} on {table}"))
    });
    let checks = checks.filter(|identity| standing.contains(identity.as_str()));
    checks.map(|identity| Unit { kind: "constraint".to_owned(), identity }).collect()
}

/// The parent of a table that has the constraint too, and the constraint there.
fn above<'a>(recorded: &'a Fingerprint, name: &str, table: &str) -> Option<(&'a str, Map<String, Value>)> {
    let lines = || recorded.lines().iter();
    let of_table = lines().find(|line| line.kind == "table" && line.identity == table)?;
    let parents = fields(&of_table.definition)?.get("inherits")?.as_array()?.clone();
    parents.iter().filter_map(Value::as_str).find_map(|parent| {
        let identity = format!("{name} on {parent}");
        let line = lines().find(|line| line.kind == "constraint" && line.identity == identity)?;
        Some((names::on(&line.identity)?.1, fields(&line.definition)?))
    })
}

fn fields(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::{Class, Line};

    #[test]
    fn the_topmost_check_above_a_table_that_is_gone_goes() {
        let line = |kind: &str, identity: &str, definition: &str| Line {
            class: Class::Owned,
            kind: kind.to_owned(),
            identity: identity.to_owned(),
            definition: definition.to_owned(),
        };
        let inherited = r#"{"not validated": true, "inheritance": "inherited"}"#;
        let recorded = Fingerprint::new([
            line("table", "public.top", "{}"),
            line("table", "public.middle", r#"{"inherits": ["public.other", "public.top"]}"#),
            line("table", "public.low", r#"{"inherits": ["public.middle"]}"#),
            line("constraint", "c on public.top", r#"{"not validated": true}"#),
            line("constraint", "c on public.middle", inherited),
            line("constraint", "c on public.low", inherited),
        ]);
        let left = recorded.without(|line| line.identity.ends_with("public.low"));
        let found: Vec<String> = above_gone(&recorded, &left).into_iter().map(|unit| unit.identity).collect();
        assert_eq!(found, ["c on public.top"]);
        assert!(above_gone(&recorded, &recorded).is_empty());
        let all_gone = recorded.without(|_| true);
        assert!(above_gone(&recorded, &all_gone).is_empty());
    }
}
