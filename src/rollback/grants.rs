//! Privileges of fingerprint lines, and the statements that turn one list of them into another.
//!
//! A dump writes privileges relative to what Postgres gives by itself, and `GRANT` only adds: where
//! default privileges exist, an object that is made again comes back wider than it was. So the
//! statements here are worked out from what an object has and what it had.

use super::inverse::quote_literal;
use super::names;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Privileges by grantee; true where the grantee may grant them on.
type Granted = BTreeMap<(String, String), bool>;

/// What stands behind `ON` in a `GRANT` for a line of this kind, and the columns; none for kinds
/// without privileges of their own.
fn object(kind: &str, identity: &str) -> Option<(String, Option<String>)> {
    let word = match kind {
        "table" | "view" | "materialized view" | "foreign table" => "table",
        "sequence" => "sequence",
        "function" | "procedure" | "aggregate" => "routine",
        "schema" => "schema",
        "type" | "domain" => "type",
        "language" => "language",
        "foreign data wrapper" => "foreign data wrapper",
        "foreign server" => "foreign server",
        "large object" => "large object",
        "column" => {
            let (relation, column) = names::column(identity)?;
            return Some((format!("table {relation}"), Some(column.to_owned())));
        }
        _ => return None,
    };
    Some((format!("{word} {identity}"), None))
}

/// Statements that give an object the privileges of `wanted` instead of those of `found`.
pub(super) fn statements(
    (kind, identity): (&str, &str),
    found: &Map<String, Value>,
    wanted: &Map<String, Value>,
) -> Option<Vec<String>> {
    if kind == "default privileges" {
        return default_privileges(identity, found.get("acl"), wanted.get("acl"));
    }
    if kind == "given privileges" {
        return given(identity, found, wanted);
    }
    if kind == "member privileges" {
        return of_members(found, wanted);
    }
    let (found, wanted) = (read(found.get("acl")), read(wanted.get("acl")));
    let change = Change::between(&found, &wanted);
    if kind == "database" {
        let statements = change.statements("database %I", str::to_owned);
        return Some(statements.iter().map(|text| in_database(text)).collect());
    }
    let (object, column) = object(kind, identity)?;
    let say = |privilege: &str| match &column {
        None => privilege.to_owned(),
        Some(column) => format!("{privilege} ({column})"),
    };
    Some(change.statements(&object, say))
}

/// A statement on the database in which it runs, whose name takes the place of `%I`.
pub(super) fn in_database(statement: &str) -> String {
    let (before, after) = statement.split_once("%I").unwrap_or((statement, ""));
    let body = format!(
        "begin execute {} || pg_catalog.quote_ident(pg_catalog.current_database()) || {}; end",
        quote_literal(before),
        quote_literal(after)
    );
    format!("do {}", quote_literal(&body))
}

/// `by role on kind name` of privileges on what is the platform's, that somebody else gave: only the giver
/// takes them back, and a superuser acts for the owner (PostgreSQL documentation, `GRANT`).
fn given(identity: &str, found: &Map<String, Value>, wanted: &Map<String, Value>) -> Option<Vec<String>> {
    let (giver, object) = names::on(identity.strip_prefix("by ")?)?;
    let (kind, name) =
        GIVEN.iter().find_map(|kind| Some((*kind, object.strip_prefix(kind)?.trim_start())))?;
    let mut statements = self::statements((kind, name), found, wanted)?;
    if !statements.is_empty() {
        // The role at work may itself be one that was taken.
        let held = "pg_catalog.set_config('supa_safe.role', pg_catalog.current_setting('role'), true)";
        let taken = "pg_catalog.set_config('role', pg_catalog.current_setting('supa_safe.role'), true)";
        statements.splice(0..0, [format!("select {held}"), format!("set local role {giver}")]);
        statements.push(format!("select {taken}"));
    }
    Some(statements)
}

/// Privileges on members of an extension, told as what was granted and revoked since it made them.
fn of_members(found: &Map<String, Value>, wanted: &Map<String, Value>) -> Option<Vec<String>> {
    let names: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    let mut statements = Vec::new();
    for name in names {
        let list = |side: &Map<String, Value>, which: &str| {
            read(side.get(name).and_then(|changes| changes.get(which)))
        };
        // What one side has revoked the other one has.
        let side = |side: &Map<String, Value>, other: &Map<String, Value>| -> Granted {
            let (revoked, mut granted) = (list(side, "revoked"), list(side, "granted"));
            granted.extend(list(other, "revoked").into_iter().filter(|(key, _)| !revoked.contains_key(key)));
            granted
        };
        let (live, was) = (side(found, wanted), side(wanted, found));
        let change = Change::between(&live, &was);
        let (word, name) =
            MEMBERS.iter().find_map(|(found, word)| Some((*word, name.strip_prefix(found)?)))?;
        let (object, column) = object(word, name)?;
        statements.extend(change.statements(&object, |privilege| match &column {
            None => privilege.to_owned(),
            Some(column) => format!("{privilege} ({column})"),
        }));
    }
    Some(statements)
}

/// Types of members, by `pg_identify_object`, and the kinds that they are here.
const MEMBERS: [(&str, &str); 13] = [
    ("materialized view column ", "column"),
    ("foreign table column ", "column"),
    ("table column ", "column"),
    ("view column ", "column"),
    ("materialized view ", "table"),
    ("foreign table ", "table"),
    ("table ", "table"),
    ("view ", "table"),
    ("sequence ", "sequence"),
    ("function ", "function"),
    ("procedure ", "procedure"),
    ("aggregate ", "aggregate"),
    ("type ", "type"),
];

/// Kinds of what carries such privileges.
const GIVEN: [&str; 6] = ["column", "table", "sequence", "function", "schema", "type"];

/// `of role [in schema] on tables` as `ALTER DEFAULT PRIVILEGES` wants it. Where no line stands, the
/// privileges are those that Postgres gives by itself.
fn default_privileges(identity: &str, found: Option<&Value>, wanted: Option<&Value>) -> Option<Vec<String>> {
    let (who, objects) = identity.rsplit_once(" on ")?;
    let who = who.strip_prefix("of ")?;
    let (role, schema) =
        names::around(who, " in ").map_or((who, None), |(role, schema)| (role, Some(schema)));
    let base = if schema.is_some() { Granted::new() } else { built_in(role, objects) };
    let list = |acl: Option<&Value>| acl.map_or_else(|| base.clone(), |acl| read(Some(acl)));
    let place = schema.map(|schema| format!(" in schema {schema}")).unwrap_or_default();
    let head = format!("alter default privileges for role {role}{place} ");
    let (found, wanted) = (list(found), list(wanted));
    let change = Change::between(&found, &wanted);
    Some(change.statements(objects, str::to_owned).into_iter().map(|text| head.clone() + &text).collect())
}

/// What Postgres gives on a new object (PostgreSQL documentation, section 5.8, table 5.2): to the owner all
/// that there is, which is more from version to version (`MAINTAIN` since 17).
fn built_in(role: &str, objects: &str) -> Granted {
    let public = match objects {
        "functions" => Some("EXECUTE"),
        "types" => Some("USAGE"),
        _ => None,
    };
    let own = ((role.to_owned(), "ALL".to_owned()), false);
    let public = public.map(|privilege| (("PUBLIC".to_owned(), privilege.to_owned()), false));
    std::iter::once(own).chain(public).collect()
}

/// Reads `["anon=SELECT*,INSERT", …]`.
fn read(acl: Option<&Value>) -> Granted {
    let entries = acl.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    entries
        .filter_map(|entry| entry.rsplit_once('='))
        .flat_map(|(grantee, privileges)| {
            privileges.split(',').map(move |privilege| {
                let name = privilege.trim_end_matches('*');
                ((grantee.to_owned(), name.to_owned()), name != privilege)
            })
        })
        .collect()
}

struct Change<'a> {
    revoked: Vec<(&'a str, &'a str)>,
    granted: Vec<(&'a str, &'a str, bool)>,
}

impl<'a> Change<'a> {
    fn between(found: &'a Granted, wanted: &'a Granted) -> Self {
        let is_less = |key: &(String, String), may_grant: bool| match wanted.get(key) {
            None => true,
            Some(wanted) => may_grant && !wanted,
        };
        let revoked = found
            .iter()
            .filter(|(key, may_grant)| is_less(key, **may_grant))
            .map(|((grantee, privilege), _)| (grantee.as_str(), privilege.as_str()))
            .collect();
        let granted = wanted
            .iter()
            .filter(|(key, may_grant)| found.get(*key) != Some(may_grant))
            .map(|((grantee, privilege), may_grant)| (grantee.as_str(), privilege.as_str(), *may_grant))
            .collect();
        Self { revoked, granted }
    }

    fn statements(&self, object: &str, say: impl Fn(&str) -> String) -> Vec<String> {
        let mut statements = Vec::new();
        let mut taken: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (grantee, privilege) in &self.revoked {
            taken.entry(grantee).or_default().push(say(privilege));
        }
        for (grantee, privileges) in taken {
            // What the grantee passed on goes along; the next look finds what of that was there before.
            statements.push(format!("revoke {} on {object} from {grantee} cascade", privileges.join(", ")));
        }
        let mut given: BTreeMap<(&str, bool), Vec<String>> = BTreeMap::new();
        for (grantee, privilege, may_grant) in &self.granted {
            given.entry((grantee, *may_grant)).or_default().push(say(privilege));
        }
        for ((grantee, may_grant), privileges) in given {
            let option = if may_grant { " with grant option" } else { "" };
            statements.push(format!("grant {} on {object} to {grantee}{option}", privileges.join(", ")));
        }
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(kind: &str, identity: &str, found: &str, wanted: &str) -> Vec<String> {
        let parse = |text: &str| serde_json::from_str(text).unwrap();
        statements((kind, identity), &parse(found), &parse(wanted)).unwrap()
    }

    #[test]
    fn privileges_are_given_back_and_taken_away() {
        assert_eq!(
            between(
                "table",
                "public.a",
                r#"{"acl": ["PUBLIC=SELECT", "anon=INSERT,SELECT*", "postgres=SELECT"]}"#,
                r#"{"acl": ["anon=SELECT", "authenticated=SELECT*,UPDATE", "postgres=SELECT"]}"#
            ),
            [
                "revoke SELECT on table public.a from PUBLIC cascade",
                "revoke INSERT, SELECT on table public.a from anon cascade",
                "grant SELECT on table public.a to anon",
                "grant UPDATE on table public.a to authenticated",
                "grant SELECT on table public.a to authenticated with grant option",
            ]
        );
        assert_eq!(
            between("column", "public.a.\"b c\"", r#"{"acl": ["anon=UPDATE"]}"#, "{}"),
            ["revoke UPDATE (\"b c\") on table public.a from anon cascade"]
        );
        assert_eq!(between("function", "public.f(integer)", "{}", "{}"), [""; 0]);
    }

    #[test]
    fn privileges_of_the_platforms_objects_are_taken_by_whoever_gave_them() {
        let of = |object: &str| {
            let identity = format!("by \"my role\" on {object}");
            between("given privileges", &identity, r#"{"acl": ["anon=SELECT"]}"#, "{}").swap_remove(2)
        };
        assert_eq!(of("table auth.users"), "revoke SELECT on table auth.users from anon cascade");
        assert_eq!(
            of("column auth.users.email"),
            "revoke SELECT (email) on table auth.users from anon cascade"
        );
        let statements =
            between("given privileges", "by a on schema auth", r#"{"acl": ["anon=USAGE"]}"#, "{}");
        assert_eq!(statements[1..3], ["set local role a", "revoke USAGE on schema auth from anon cascade"]);
        assert_eq!(statements.len(), 4);
        assert_eq!(
            between("database", "current", r#"{"acl": ["anon=CREATE"]}"#, "{}"),
            ["do 'begin execute ''revoke CREATE on database '' || \
              pg_catalog.quote_ident(pg_catalog.current_database()) || '' from anon cascade''; end'"]
        );
    }

    #[test]
    fn privileges_of_members_are_what_they_were_made_with_but_for_what_was_changed() {
        assert_eq!(
            between(
                "member privileges",
                "citext in public",
                r#"{"function public.a(text)": {"granted": ["anon=EXECUTE"], "revoked": ["PUBLIC=EXECUTE"]},
                    "view public.v": {"granted": ["anon=SELECT*"], "revoked": null}}"#,
                r#"{"function public.a(text)": {"granted": ["app=EXECUTE"], "revoked": null},
                    "table column public.t.c": {"granted": null, "revoked": ["anon=SELECT"]}}"#
            ),
            [
                "revoke EXECUTE on routine public.a(text) from anon cascade",
                "grant EXECUTE on routine public.a(text) to PUBLIC",
                "grant EXECUTE on routine public.a(text) to app",
                "revoke SELECT (c) on table public.t from anon cascade",
                "revoke SELECT on table public.v from anon cascade",
            ]
        );
    }

    #[test]
    fn default_privileges_begin_with_what_postgres_gives() {
        assert_eq!(
            between(
                "default privileges",
                "of postgres on functions",
                r#"{"acl": ["postgres=EXECUTE"]}"#,
                "{}"
            ),
            [
                "alter default privileges for role postgres revoke EXECUTE on functions from postgres cascade",
                "alter default privileges for role postgres grant EXECUTE on functions to PUBLIC",
                "alter default privileges for role postgres grant ALL on functions to postgres",
            ]
        );
        assert_eq!(
            between("default privileges", "of app on tables", "{}", r#"{"acl": ["anon=SELECT"]}"#),
            [
                "alter default privileges for role app revoke ALL on tables from app cascade",
                "alter default privileges for role app grant SELECT on tables to anon",
            ]
        );
        assert_eq!(
            between(
                "default privileges",
                "of postgres in public on tables",
                "{}",
                r#"{"acl": ["anon=SELECT"]}"#
            ),
            ["alter default privileges for role postgres in schema public grant SELECT on tables to anon"]
        );
    }
}
