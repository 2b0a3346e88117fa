//! Roles, their memberships, and settings: the statements that make them what they were.

use super::inverse::{Fields, quote_literal};
use super::{grants, names};
use serde_json::Value;

/// Takes a setting from the dump, which has it as it must be written, or resets it.
pub(super) fn setting(identity: &str, is_wanted: bool, dumped: &str) -> Option<String> {
    let (whose, name) = identity.split_once(": ")?;
    let (head, in_database) = match whose.strip_suffix(" in database") {
        Some(role) => (role.strip_prefix("role ")?.to_owned(), true),
        None if whose == "database" => (String::new(), true),
        None if whose == "all roles" => ("all".to_owned(), false),
        None => (whose.strip_prefix("role ")?.to_owned(), false),
    };
    if is_wanted {
        let bare = |text: &str| text.replace('"', "").to_lowercase();
        let (role, name) = (bare(&head), bare(name));
        let found = dumped_statements(dumped).into_iter().find(|statement| {
            let statement = bare(statement);
            // The value may say anything.
            let Some((before, _)) = statement.split_once(&format!(" set {name} to ")) else { return false };
            let before = format!("{before} ");
            let is_role = head.is_empty() || before.contains(&format!("alter role {role} "));
            is_role && in_database == before.contains("database ") && !before.contains(" set ")
        });
        return found.map(|statement| statement.trim_end_matches(';').to_owned());
    }
    let name = names::parts(name).map_or_else(
        || name.to_owned(),
        |parts| {
            parts
                .iter()
                .map(|part| crate::manifest::quote_identifier(&names::plain(part)))
                .collect::<Vec<_>>()
                .join(".")
        },
    );
    Some(if head.is_empty() {
        grants::in_database(&format!("alter database %I reset {name}"))
    } else if in_database {
        grants::in_database(&format!("alter role {head} in database %I reset {name}"))
    } else {
        format!("alter role {head} reset {name}")
    })
}

/// The statements of a dump, of which a text may go over many lines.
fn dumped_statements(dumped: &str) -> Vec<&str> {
    let (mut is_text, mut is_name, mut start) = (false, false, 0);
    let mut statements = Vec::new();
    for (at, character) in dumped.char_indices() {
        match character {
            '\'' if !is_name => is_text = !is_text,
            '"' if !is_text => is_name = !is_name,
            '\n' if !is_text && !is_name => {
                statements.push(dumped.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    statements.push(dumped.get(start..).unwrap_or_default());
    statements
}

/// Revokes a membership from whomever it was granted by: since 16, each grantor's stands by itself, and
/// the copy is taken back by another role than the one that pushed to it.
pub(super) fn revoke(role: &str, member: &str) -> String {
    let (sql, role, member) =
        (quote_literal(&format!("revoke {role} from {member}")), quote_literal(role), quote_literal(member));
    // What the member passed on goes along; the next look finds what of that was there before.
    let body = format!(
        "declare grantor text; begin \
         if pg_catalog.current_setting('server_version_num')::int4 < 160000 then execute {sql}; return; end if; \
         for grantor in select m.grantor::pg_catalog.regrole::text from pg_catalog.pg_auth_members m \
         where m.roleid = {role}::pg_catalog.regrole and m.member = {member}::pg_catalog.regrole \
         and pg_catalog.pg_has_role(m.grantor, 'USAGE') \
         loop execute {sql} || ' granted by ' || grantor || ' cascade'; end loop; end"
    );
    format!("do {}", quote_literal(&body))
}

/// Fails for want of a right where a membership stands: since 16, what somebody granted for whom this role may not
/// act is revoked by nobody else, without a word.
pub(super) fn is_gone(role: &str, member: &str) -> String {
    let (role, member) = (quote_literal(role), quote_literal(member));
    let body = format!(
        "declare grantors text; begin \
         select pg_catalog.string_agg(m.grantor::pg_catalog.regrole::text, ', ' order by 1) into grantors \
         from pg_catalog.pg_auth_members m \
         where m.roleid = {role}::pg_catalog.regrole and m.member = {member}::pg_catalog.regrole; \
         if grantors is not null then \
         raise insufficient_privilege using message = 'it was granted by ' || grantors; end if; end"
    );
    format!("do {}", quote_literal(&body))
}

/// Statements that give a member the membership of the snapshot, or none.
pub(super) fn membership(identity: &str, is_live: bool, wanted: Option<&Fields>) -> Option<Vec<String>> {
    let (member, role) = names::around(identity, " in ")?;
    let mut statements = Vec::new();
    if is_live {
        statements.push(revoke(role, member));
    }
    if let Some(wanted) = wanted {
        let options = ["admin", "inherit", "set"].into_iter().filter_map(|name| {
            let is_on = wanted.get(name)?.as_bool()?;
            Some(format!("{name} {is_on}"))
        });
        let options: Vec<String> = options.collect();
        // Before 16 the only option is a word of its own.
        let with = match wanted.get("inherit").and_then(Value::as_bool) {
            None if wanted.get("admin").is_some() => " with admin option".to_owned(),
            None => String::new(),
            Some(_) => format!(" with {}", options.join(", ")),
        };
        statements.push(format!("grant {role} to {member}{with}"));
    }
    Some(statements)
}

/// Attributes of a role and how they are written, switched on and off.
const ATTRIBUTES: [(&str, &str, &str); 6] = [
    ("inherit", "inherit", "noinherit"),
    ("create role", "createrole", "nocreaterole"),
    ("create db", "createdb", "nocreatedb"),
    ("login", "login", "nologin"),
    ("replication", "replication", "noreplication"),
    ("bypass rls", "bypassrls", "nobypassrls"),
];

/// Statements that make a role what it was, or drop it.
pub(super) fn role(identity: &str, live: Option<&Fields>, wanted: Option<&Fields>) -> Option<Vec<String>> {
    let Some(wanted) = wanted else { return Some(vec![format!("drop role if exists {identity}")]) };
    let mut statements = Vec::new();
    let created: Fields = [("inherit".to_owned(), Value::Bool(true))].into_iter().collect();
    if live.is_none() {
        statements.push(format!("create role {identity}"));
    }
    let live = live.unwrap_or(&created);
    let is_on = |fields: &Fields, name: &str| fields.get(name) == Some(&Value::Bool(true));
    if is_on(live, "superuser") != is_on(wanted, "superuser") {
        return None;
    }
    let mut attributes: Vec<String> = ATTRIBUTES
        .iter()
        .filter(|(name, ..)| is_on(live, name) != is_on(wanted, name))
        .map(|(name, on, off)| if is_on(wanted, name) { *on } else { *off }.to_owned())
        .collect();
    if live.get("connection limit") != wanted.get("connection limit") {
        let limit = wanted.get("connection limit").and_then(Value::as_i64).unwrap_or(-1);
        attributes.push(format!("connection limit {limit}"));
    }
    if live.get("valid until") != wanted.get("valid until") {
        let until = wanted.get("valid until").and_then(Value::as_str);
        let until = until.map_or_else(|| "infinity".to_owned(), |until| format!("{until} UTC"));
        attributes.push(format!("valid until {}", quote_literal(&until)));
    }
    if !attributes.is_empty() {
        statements.push(format!("alter role {identity} with {}", attributes.join(" ")));
    }
    Some(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_what_the_dump_says_whatever_is_in_it() {
        let dumped = "CREATE ROLE \"o'x\";\nALTER ROLE a SET app.x TO 'of database x\n set app.y to ''1''';\n\
            ALTER ROLE ab SET app.y TO '2';\nALTER ROLE a SET app.y TO '3';\n\
            do 'begin execute ''alter role a in database '' || x || '' set app.y to ''''4''''''; end';\n";
        let of = |identity: &str| setting(identity, true, dumped);
        let x = "ALTER ROLE a SET app.x TO 'of database x\n set app.y to ''1'''";
        assert_eq!(of("role a: app.x").unwrap(), x);
        assert_eq!(of("role ab: app.y").unwrap(), "ALTER ROLE ab SET app.y TO '2'");
        assert_eq!(of("role a: app.y").unwrap(), "ALTER ROLE a SET app.y TO '3'");
        assert!(of("role a in database: app.y").unwrap().starts_with("do 'begin"));
        assert_eq!(of("role b: app.y"), None);
    }
}
