//! What takes one difference of a fingerprint back: a change in place, or the object goes and comes
//! again from the archive.

use super::roles::{membership, role, setting};
use super::{grants, names};
use crate::fingerprint::Difference;
use serde_json::{Map, Value};

/// An object that goes as a whole, by the kind and the identity of its line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unit {
    pub(super) kind: String,
    pub(super) identity: String,
}

/// What takes a difference back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inverse {
    /// These statements do, and what was written to the object stays.
    Change(Vec<String>),
    /// The object goes; if it was there, the archive has it.
    Replace(Unit),
    /// Nothing has to go: the archive has it, or it follows from another line.
    Archive,
}

/// Kinds of relations that have columns.
pub(super) const RELATIONS: [&str; 5] =
    ["table", "foreign table", "view", "materialized view", "composite type"];

/// The fields of a line's definition.
pub(super) type Fields = Map<String, Value>;

/// Works out what takes a difference back; `before` of it is the live side.
///
/// `settings` is the text of the dump's `roles.sql` and `settings.sql`, which have the values of
/// settings as they must be written.
pub(super) fn of(difference: &Difference, settings: &str) -> Inverse {
    let [live, wanted] = [&difference.before, &difference.after].map(|text| fields(text.as_deref()));
    let change = match (&live, &wanted) {
        (Some(live), Some(wanted)) => in_place(difference, live, wanted, settings),
        (live, wanted) => added_or_removed(difference, live.as_ref(), wanted.as_ref(), settings),
    };
    match change {
        Some(statements) => Inverse::Change(statements),
        None => unit(&difference.kind, &difference.identity, live.is_some()),
    }
}

fn fields(text: Option<&str>) -> Option<Fields> {
    serde_json::from_str(text?).ok()
}

/// The object that goes for a line, when it stands on the live side.
fn unit(kind: &str, identity: &str, is_live: bool) -> Inverse {
    let relation =
        |name: &str| Inverse::Replace(Unit { kind: "relation".to_owned(), identity: name.to_owned() });
    match kind {
        // A column that is gone changes its table, which is still there.
        "column" => names::column(identity).map_or(Inverse::Archive, |(name, _)| relation(name)),
        "column order" => relation(identity),
        _ if is_live => Inverse::Replace(Unit { kind: kind.to_owned(), identity: identity.to_owned() }),
        _ => Inverse::Archive,
    }
}

/// Objects that stand on one side only and need no archive.
fn added_or_removed(
    difference: &Difference,
    live: Option<&Fields>,
    wanted: Option<&Fields>,
    settings: &str,
) -> Option<Vec<String>> {
    let none = Fields::new();
    match difference.kind.as_str() {
        "comment" => comment(&difference.identity, wanted).map(|text| vec![text]),
        "default privileges" | "given privileges" | "member privileges" => grants::statements(
            (&difference.kind, &difference.identity),
            live.unwrap_or(&none),
            wanted.unwrap_or(&none),
        ),
        "setting" => setting(&difference.identity, wanted.is_some(), settings).map(|text| vec![text]),
        "membership" => membership(&difference.identity, live.is_some(), wanted),
        "role" => role(&difference.identity, live, wanted),
        _ => None,
    }
}

/// Statements for the fields that differ, when every one of them can be changed in place.
fn in_place(difference: &Difference, live: &Fields, wanted: &Fields, settings: &str) -> Option<Vec<String>> {
    let (kind, identity) = (difference.kind.as_str(), difference.identity.as_str());
    match kind {
        "comment" | "setting" => return added_or_removed(difference, Some(live), Some(wanted), settings),
        "membership" => return membership(identity, true, Some(wanted)),
        "role" => return role(identity, Some(live), Some(wanted)),
        "default privileges" | "given privileges" | "member privileges" => {
            return grants::statements((kind, identity), live, wanted);
        }
        "index" => return index(identity, live, wanted),
        _ => {}
    }
    let mut statements = Vec::new();
    let names: std::collections::BTreeSet<&String> = live.keys().chain(wanted.keys()).collect();
    let mut differing: Vec<&String> =
        names.into_iter().filter(|name| live.get(*name) != wanted.get(*name)).collect();
    if kind == "sequence" && differing.iter().any(|name| is_numbering(name)) {
        statements.push(numbering(identity, wanted)?);
        differing.retain(|name| !is_numbering(name));
    }
    for name in differing {
        let value = wanted.get(name);
        statements.extend(match (kind, name.as_str()) {
            (_, "acl") => grants::statements((kind, identity), live, wanted)?,
            ("database", "connection limit") => {
                let limit = value.and_then(Value::as_i64).unwrap_or(-1);
                vec![grants::in_database(&format!("alter database %I connection limit {limit}"))]
            }
            ("database", "owner") => {
                vec![grants::in_database(&format!("alter database %I owner to {}", value?.as_str()?))]
            }
            (_, "owner") => vec![format!("alter {} {identity} owner to {}", word(kind)?, value?.as_str()?)],
            ("table", "row security" | "force row security") => vec![row_security(identity, name, value)],
            ("table" | "materialized view", "replica identity") => {
                // One by an index follows from the index.
                match value?.as_str()? {
                    "index" => Vec::new(),
                    how => vec![format!("alter {kind} {identity} replica identity {how}")],
                }
            }
            ("column", "not null") => vec![alter_column(identity, verb(value), "not null")?],
            ("column", "default") => match value.and_then(Value::as_str) {
                Some(default) => vec![alter_column(identity, "set", &format!("default {default}"))?],
                None => vec![alter_column(identity, "drop", "default")?],
            },
            ("trigger", "enabled") => vec![enabled(identity, value?.as_str()?)?],
            ("function" | "procedure", "definition") => vec![same_head(live, wanted)?],
            // It follows from the definition.
            ("function" | "procedure", "security definer") => Vec::new(),
            ("constraint", "not validated") if value.is_none() => {
                let (name, table) = names::on(identity)?;
                vec![format!("alter table {table} validate constraint {name}")]
            }
            _ => return None,
        });
    }
    Some(statements)
}

/// What an index has besides its definition.
fn index(identity: &str, live: &Fields, wanted: &Fields) -> Option<Vec<String>> {
    let is_other = |name: &str| live.get(name) != wanted.get(name);
    if ["definition", "invalid", "parent"].into_iter().any(is_other) {
        return None;
    }
    let table = table_of_index(wanted)?;
    let name = names::parts(identity)?.last().copied()?;
    let is_on = |field: &str| wanted.get(field) == Some(&Value::Bool(true));
    let mut statements = Vec::new();
    if is_other("clustered") {
        statements.push(if is_on("clustered") {
            format!("alter table {table} cluster on {name}")
        } else {
            format!("alter table {table} set without cluster")
        });
    }
    // Otherwise it follows from the table's own line.
    if is_other("replica identity") && is_on("replica identity") {
        statements.push(format!("alter table {table} replica identity using index {name}"));
    }
    if is_other("statistics") {
        let targets = |fields: &Fields| fields.get("statistics").and_then(Value::as_object).cloned();
        let [live, wanted] = [live, wanted].map(|fields| targets(fields).unwrap_or_default());
        for column in live.keys().chain(wanted.keys()) {
            let target = wanted.get(column).and_then(Value::as_i64).unwrap_or(-1);
            statements.push(format!("alter index {identity} alter column {column} set statistics {target}"));
        }
    }
    Some(statements)
}

/// The table of an index, as `pg_get_indexdef` writes it; a partitioned one stands behind `ON ONLY`.
fn table_of_index(index: &Fields) -> Option<&str> {
    let (_, table) = names::around(index.get("definition")?.as_str()?, " ON ")?;
    Some(names::around(table.strip_prefix("ONLY ").unwrap_or(table), " USING ")?.0)
}

/// Whether a field of a sequence says how it counts.
fn is_numbering(name: &str) -> bool {
    ["type", "start", "increment", "minimum", "maximum", "cache", "cycle"].contains(&name)
}

/// Lets a sequence count as it did, from where it is: the numbers that it gave meanwhile are in use.
fn numbering(identity: &str, wanted: &Fields) -> Option<String> {
    let number = |name: &str| wanted.get(name)?.as_i64();
    let cycle = if wanted.get("cycle") == Some(&Value::Bool(true)) { "cycle" } else { "no cycle" };
    Some(format!(
        "alter sequence {identity} as {} start with {} increment by {} minvalue {} maxvalue {} cache {} {cycle}",
        wanted.get("type")?.as_str()?,
        number("start")?,
        number("increment")?,
        number("minimum")?,
        number("maximum")?,
        number("cache")?,
    ))
}

fn verb(value: Option<&Value>) -> &'static str {
    if value == Some(&Value::Bool(true)) { "set" } else { "drop" }
}

fn row_security(table: &str, field: &str, value: Option<&Value>) -> String {
    let is_on = value == Some(&Value::Bool(true));
    let how = match (field, is_on) {
        ("row security", true) => "enable",
        ("row security", false) => "disable",
        (_, true) => "force",
        (_, false) => "no force",
    };
    format!("alter table {table} {how} row level security")
}

fn alter_column(identity: &str, verb: &str, what: &str) -> Option<String> {
    let (relation, column) = names::column(identity)?;
    Some(format!("alter table {relation} alter column {column} {verb} {what}"))
}

fn enabled(identity: &str, how: &str) -> Option<String> {
    let (name, table) = names::on(identity)?;
    let how = match how {
        "yes" => "enable",
        "no" => "disable",
        "replica" => "enable replica",
        _ => "enable always",
    };
    Some(format!("alter table {table} {how} trigger {name}"))
}

/// The definition, when `CREATE OR REPLACE` takes it: arguments and result are the same.
fn same_head(live: &Fields, wanted: &Fields) -> Option<String> {
    let text = |fields: &Fields| Some(fields.get("definition")?.as_str()?.to_owned());
    let (live, wanted) = (text(live)?, text(wanted)?);
    let head = |text: &str| text.split_once("\n LANGUAGE ").map(|(head, _)| head.to_owned());
    (head(&live)? == head(&wanted)?).then_some(wanted)
}

/// What stands behind `ALTER` and `DROP` for a line of this kind.
fn word(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "table" => "table",
        "view" => "view",
        "materialized view" => "materialized view",
        "foreign table" => "foreign table",
        "sequence" => "sequence",
        "index" | "invalid index" => "index",
        "function" | "procedure" | "aggregate" => "routine",
        "type" | "composite type" => "type",
        "domain" => "domain",
        "schema" => "schema",
        "extension" => "extension",
        "publication" => "publication",
        "event trigger" => "event trigger",
        "foreign data wrapper" => "foreign data wrapper",
        "foreign server" => "server",
        "language" => "language",
        "operator" => "operator",
        "operator class" => "operator class",
        "operator family" => "operator family",
        "access method" => "access method",
        "collation" => "collation",
        "conversion" => "conversion",
        "statistics" => "statistics",
        "text search configuration" => "text search configuration",
        "text search dictionary" => "text search dictionary",
        "text search parser" => "text search parser",
        "text search template" => "text search template",
        "cast" => "cast",
        "transform" => "transform",
        "policy" => "policy",
        "trigger" => "trigger",
        "rule" => "rule",
        _ => return None,
    })
}

/// The statement that drops an object with all that depends on it.
pub(super) fn drop_statement(unit: &Unit) -> Option<String> {
    let identity = &unit.identity;
    Some(match unit.kind.as_str() {
        "constraint" => {
            let (name, owner) = names::on(identity)?;
            match owner.strip_prefix("domain ") {
                Some(domain) => format!("alter domain {domain} drop constraint if exists {name} cascade"),
                None => format!("alter table {owner} drop constraint if exists {name} cascade"),
            }
        }
        "policy" => format!("drop policy if exists {identity}"),
        "statistics" => format!("drop statistics if exists {identity}"),
        "user mapping" => {
            let (role, server) = names::on(identity)?;
            format!("drop user mapping if exists for {role} server {server}")
        }
        "publication table" => {
            let (publication, table) = names::member(identity)?;
            format!("alter publication {publication} drop table only {table}")
        }
        "publication schema" => {
            let (publication, schema) = names::member(identity)?;
            format!("alter publication {publication} drop tables in schema {schema}")
        }
        kind => format!("drop {} if exists {identity} cascade", word(kind)?),
    })
}

/// Whether the object follows from that of a parent table, and cannot go by itself.
pub(super) fn is_inherited(difference: &Difference) -> bool {
    let live = fields(difference.before.as_deref()).unwrap_or_default();
    match difference.kind.as_str() {
        "index" => live.get("parent").is_some(),
        "constraint" => live.get("inheritance").and_then(Value::as_str) == Some("inherited"),
        _ => false,
    }
}

/// The table that an object hangs on, as it is written.
pub(super) fn carrier(unit: &Unit) -> Option<&str> {
    match unit.kind.as_str() {
        "constraint" | "policy" | "trigger" | "rule" => names::on(&unit.identity).map(|(_, table)| table),
        "publication table" => names::member(&unit.identity).map(|(_, table)| table),
        _ => None,
    }
}

/// The relation that is changed when a difference is taken back, as it is written.
pub(super) fn relation(difference: &Difference) -> Option<String> {
    let identity = difference.identity.as_str();
    let relation = match difference.kind.as_str() {
        "table" | "foreign table" | "view" | "materialized view" | "sequence" | "column order" => {
            Some(identity)
        }
        "column" => names::column(identity).map(|(relation, _)| relation),
        "constraint" | "policy" | "trigger" | "rule" => names::on(identity).map(|(_, relation)| relation),
        "index" | "invalid index" => {
            let sides = [&difference.before, &difference.after];
            let index = sides.into_iter().find_map(|side| fields(side.as_deref()))?;
            return table_of_index(&index).map(str::to_owned);
        }
        _ => None,
    };
    relation.map(str::to_owned)
}

/// A constraint that is missing on a table that stayed: one that the table was made with is no entry of
/// the archive.
pub(super) fn constraint(difference: &Difference) -> Option<String> {
    if difference.kind != "constraint" || difference.before.is_some() {
        return None;
    }
    let wanted = fields(difference.after.as_deref())?;
    // The parent's brings it along.
    if wanted.get("inheritance").and_then(Value::as_str) == Some("inherited") {
        return None;
    }
    let (name, owner) = names::on(&difference.identity)?;
    let definition = wanted.get("definition")?.as_str()?;
    Some(match owner.strip_prefix("domain ") {
        Some(domain) => format!("alter domain {domain} add constraint {name} {definition}"),
        None => format!("alter table {owner} add constraint {name} {definition}"),
    })
}

/// Types of objects that carry a comment, by `pg_identify_object`, and what `COMMENT ON` calls them.
const COMMENTED: [(&str, &str); 9] = [
    ("materialized view column ", "column "),
    ("foreign table column ", "column "),
    ("composite type column ", "column "),
    ("table column ", "column "),
    ("view column ", "column "),
    ("table constraint ", "constraint "),
    ("composite type ", "type "),
    ("foreign-data wrapper ", "foreign data wrapper "),
    ("statistics object ", "statistics "),
];

fn comment(identity: &str, wanted: Option<&Fields>) -> Option<String> {
    let object = match identity.strip_prefix("domain constraint ") {
        Some(rest) => {
            let (name, domain) = names::on(rest)?;
            format!("constraint {name} on domain {domain}")
        }
        None if identity == "database current" => "database %I".to_owned(),
        None => COMMENTED
            .iter()
            .find_map(|(found, word)| Some(format!("{word}{}", identity.strip_prefix(found)?)))
            .unwrap_or_else(|| identity.to_owned()),
    };
    let text = match wanted.and_then(|wanted| wanted.get("text")?.as_str()) {
        Some(text) => quote_literal(text),
        None => "null".to_owned(),
    };
    let statement = format!("comment on {object} is {text}");
    Some(if identity == "database current" { grants::in_database(&statement) } else { statement })
}

/// A text in single quotes, under `standard_conforming_strings`.
pub(super) fn quote_literal(text: &str) -> String {
    // However a session reads backslashes (PostgreSQL documentation, `standard_conforming_strings`).
    if text.contains('\\') {
        format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inverse(kind: &str, identity: &str, live: Option<&str>, wanted: Option<&str>) -> Inverse {
        let difference = Difference {
            kind: kind.to_owned(),
            identity: identity.to_owned(),
            before: live.map(str::to_owned),
            after: wanted.map(str::to_owned),
        };
        let dumped =
            "ALTER ROLE anon SET statement_timeout TO '3s';\nALTER ROLE anon SET \"app.x\" TO 'y';\n";
        of(&difference, dumped)
    }

    fn changes(kind: &str, identity: &str, live: Option<&str>, wanted: Option<&str>) -> Vec<String> {
        match inverse(kind, identity, live, wanted) {
            Inverse::Change(statements) => statements,
            other => panic!("{other:?}"),
        }
    }

    fn replaced(kind: &str, identity: &str, live: Option<&str>, wanted: Option<&str>) -> (String, String) {
        match inverse(kind, identity, live, wanted) {
            Inverse::Replace(unit) => (unit.kind, unit.identity),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_can_be_is_changed_in_place() {
        let on = Some(r#"{"row security": true}"#);
        assert_eq!(
            changes("table", "public.a", Some("{}"), on),
            ["alter table public.a enable row level security"]
        );
        assert_eq!(
            changes(
                "column",
                "public.a.b",
                Some(r#"{"type": "int"}"#),
                Some(r#"{"type": "int", "not null": true, "default": "0"}"#)
            ),
            [
                "alter table public.a alter column b set default 0",
                "alter table public.a alter column b set not null"
            ]
        );
        assert_eq!(
            changes(
                "comment",
                "table column public.a.b",
                Some(r#"{"text": "x"}"#),
                Some(r#"{"text": "it's"}"#)
            ),
            ["comment on column public.a.b is 'it''s'"]
        );
        assert_eq!(
            changes("setting", "role anon: app.x", None, Some("{}")),
            ["ALTER ROLE anon SET \"app.x\" TO 'y'"]
        );
        assert_eq!(
            changes("setting", "role anon: work_mem", Some("{}"), None),
            ["alter role anon reset \"work_mem\""]
        );
        assert_eq!(
            changes("membership", "anon in app", Some(r#"{"inherit": true, "set": true}"#), None),
            [super::super::roles::revoke("app", "anon")]
        );
        assert_eq!(
            changes("role", "app", None, Some(r#"{"inherit": false, "login": true}"#)),
            ["create role app", "alter role app with noinherit login"]
        );
    }

    #[test]
    fn the_rest_goes_and_comes_again() {
        let pair = |kind: &str, identity: &str| (kind.to_owned(), identity.to_owned());
        let int = Some(r#"{"type": "int"}"#);
        assert_eq!(replaced("column", "public.a.b", None, int), pair("relation", "public.a"));
        assert_eq!(
            replaced("column", "public.a.b", int, Some(r#"{"type": "text"}"#)),
            pair("relation", "public.a")
        );
        assert_eq!(replaced("view", "public.v", Some("{}"), None), pair("view", "public.v"));
        assert_eq!(inverse("policy", "p on public.a", None, Some("{}")), Inverse::Archive);
        let text = |body: &str, result: &str| {
            format!(
                "{{\"definition\": \"CREATE OR REPLACE FUNCTION public.f()\\n RETURNS {result}\\n LANGUAGE sql\\nAS {body}\"}}"
            )
        };
        let was = text("one", "integer");
        assert_eq!(changes("function", "public.f()", Some(&text("two", "integer")), Some(&was)).len(), 1);
        assert_eq!(
            replaced("function", "public.f()", Some(&text("two", "text")), Some(&was)),
            pair("function", "public.f()")
        );
    }

    #[test]
    fn drops_are_written_as_their_kind_wants() {
        let sql = |kind: &str, identity: &str| {
            drop_statement(&Unit { kind: kind.to_owned(), identity: identity.to_owned() }).unwrap()
        };
        assert_eq!(sql("aggregate", "public.a(integer)"), "drop routine if exists public.a(integer) cascade");
        assert_eq!(
            sql("policy", "\"p q\" on storage.objects"),
            "drop policy if exists \"p q\" on storage.objects"
        );
        assert_eq!(
            sql("constraint", "c on public.t"),
            "alter table public.t drop constraint if exists c cascade"
        );
        assert_eq!(sql("publication table", "p: public.t"), "alter publication p drop table only public.t");
        assert_eq!(sql("user mapping", "PUBLIC on s"), "drop user mapping if exists for PUBLIC server s");
    }
}
