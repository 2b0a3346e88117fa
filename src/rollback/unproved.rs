//! Checks that are not proved for the rows that were there before them.

use super::names;
use crate::fingerprint::{Difference, Fingerprint};
use serde_json::{Map, Value};

/// Statements after which a table that came again below one that stayed has that one's check as an
/// unproved one: a table that is new takes it over as proved, and only when a check is added to the
/// parent does it reach the children as it is.
pub(super) fn again(difference: &Difference, recorded: &Fingerprint) -> Option<[String; 2]> {
    let wanted = fields(difference.after.as_deref()?)?;
    let live = fields(difference.before.as_deref()?)?;
    let is_unproved = |fields: &Map<String, Value>| fields.contains_key("not validated");
    if difference.kind != "constraint" || !is_unproved(&wanted) || is_unproved(&live) {
        return None;
    }
    let (name, mut table) = names::on(&difference.identity)?;
    let mut constraint = wanted;
    while constraint.get("inheritance").and_then(Value::as_str) == Some("inherited") {
        (table, constraint) = above(recorded, name, table)?;
    }
    let definition = constraint.get("definition")?.as_str()?;
    Some([
        format!("alter table {table} drop constraint {name}"),
        format!("alter table {table} add constraint {name} {definition}"),
    ])
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
    fn the_topmost_table_gets_its_check_anew() {
        let line = |kind: &str, identity: &str, definition: &str| Line {
            class: Class::Owned,
            kind: kind.to_owned(),
            identity: identity.to_owned(),
            definition: definition.to_owned(),
        };
        let unproved = r#"{"not validated": true, "definition": "CHECK ((a > 0)) NOT VALID"}"#;
        let inherited = r#"{"not validated": true, "inheritance": "inherited", "definition": "CHECK ((a > 0)) NOT VALID"}"#;
        let recorded = Fingerprint::new([
            line("table", "public.top", "{}"),
            line("table", "public.middle", r#"{"inherits": ["public.other", "public.top"]}"#),
            line("table", "public.low", r#"{"inherits": ["public.middle"]}"#),
            line("constraint", "c on public.top", unproved),
            line("constraint", "c on public.middle", inherited),
            line("constraint", "c on public.low", inherited),
        ]);
        let difference = |before: &str| Difference {
            kind: "constraint".to_owned(),
            identity: "c on public.low".to_owned(),
            before: Some(before.to_owned()),
            after: Some(inherited.to_owned()),
        };
        assert_eq!(
            again(&difference(r#"{"inheritance": "inherited", "definition": "CHECK ((a > 0))"}"#), &recorded),
            Some([
                "alter table public.top drop constraint c".to_owned(),
                "alter table public.top add constraint c CHECK ((a > 0)) NOT VALID".to_owned()
            ])
        );
        assert_eq!(again(&difference(unproved), &recorded), None);
    }
}
