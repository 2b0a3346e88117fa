//! What a rollback makes or drops of objects that belong to no table, tried beside those that stand: each in a
//! way that no other session waits for.

use super::Way;
use crate::fingerprint::{Difference, is_platform_schema};
use crate::manifest::quote_identifier;
use crate::rollback::inverse::{self, Inverse};
use crate::rollback::names;
use serde_json::Value;

/// What is commented on that no session locks for long, by the first word.
const SHARED: [&str; 9] =
    ["role", "database", "schema", "extension", "event", "publication", "server", "foreign-data", "language"];

/// A step in words, and the statements that try it.
type Step = (String, String);

/// Steps for what is to come back, and for what is to go.
pub(super) fn steps(way: &Way<'_>) -> Vec<Step> {
    let differences = || way.back.iter();
    let again = differences().filter(|difference| difference.before.is_none()).filter_map(again);
    let gone = differences().filter(|difference| difference.after.is_none()).filter_map(gone);
    let comments = differences().filter(|difference| difference.kind == "comment");
    let comments = comments.filter(|difference| is_of_nobody(&difference.identity));
    let comments = comments.flat_map(|difference| comment(difference, &way.settings));
    let large = differences().any(|difference| difference.kind == "large object").then(|| {
        let sql = "select pg_catalog.lo_unlink(pg_catalog.lo_create(0))";
        ("make large objects again".to_owned(), sql.to_owned())
    });
    again.chain(gone).chain(comments).chain(large).collect()
}

/// A step that makes what the push drops: something like it, while it stands.
fn again(difference: &Difference) -> Option<Step> {
    let identity = &difference.identity;
    let fields: Value = serde_json::from_str(difference.after.as_deref()?).ok()?;
    let sql = match difference.kind.as_str() {
        "schema" => "create schema supa_safe_canary".to_owned(),
        "publication" if fields["puballtables"] == true => {
            "create publication supa_safe_canary for all tables".to_owned()
        }
        "publication" => "create publication supa_safe_canary".to_owned(),
        "publication schema" => {
            let (_, schema) = names::member(identity)?;
            format!("create publication supa_safe_canary for tables in schema {schema}")
        }
        "foreign data wrapper" => "create foreign data wrapper supa_safe_canary".to_owned(),
        "foreign server" => {
            let wrapper = quote_identifier(fields["wrapper"].as_str()?);
            format!("create server supa_safe_canary foreign data wrapper {wrapper}")
        }
        "user mapping" => {
            let (role, server) = names::on(identity)?;
            format!("create user mapping if not exists for {role} server {server}")
        }
        _ => return None,
    };
    Some((format!("make {} {identity} again", difference.kind), sql))
}

/// A step that drops what the push makes: something like it.
fn gone(difference: &Difference) -> Option<Step> {
    let identity = &difference.identity;
    let sql = match difference.kind.as_str() {
        // Who may make one need not be allowed to drop it.
        "extension" => format!("create extension {identity}; drop extension {identity}"),
        "event trigger" => {
            "create function public.supa_safe_canary() returns event_trigger language plpgsql as 'begin end'; \
             create event trigger supa_safe_canary on ddl_command_end execute function public.supa_safe_canary(); \
             drop event trigger supa_safe_canary"
                .to_owned()
        }
        _ => return None,
    };
    Some((format!("drop {} {identity}", difference.kind), sql))
}

/// Whether a comment is on something of the platform's, or on what is no table's.
fn is_of_nobody(identity: &str) -> bool {
    let mut words = identity.split([' ', '.']);
    let first = words.next().unwrap_or_default();
    SHARED.contains(&first) || words.any(|word| is_platform_schema(&names::plain(word)))
}

fn comment(difference: &Difference, settings: &str) -> Vec<Step> {
    let Inverse::Change(statements) = inverse::of(difference, settings) else { return Vec::new() };
    let what = format!("take back the comment on {}", difference.identity);
    statements.into_iter().map(|statement| (what.clone(), statement)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;
    use std::collections::BTreeSet;

    fn statements(back: &[(&str, &str, Option<&str>, Option<&str>)]) -> Vec<String> {
        let difference =
            |(kind, identity, before, after): &(&str, &str, Option<&str>, Option<&str>)| Difference {
                kind: (*kind).to_owned(),
                identity: (*identity).to_owned(),
                before: before.map(str::to_owned),
                after: after.map(str::to_owned),
            };
        let way = Way {
            recorded: &Fingerprint::default(),
            back: back.iter().map(difference).collect(),
            settings: String::new(),
            changed: Vec::new(),
            written: BTreeSet::new(),
        };
        steps(&way).into_iter().map(|(_, sql)| sql).collect()
    }

    #[test]
    fn what_the_push_drops_is_made_beside_it() {
        let found = statements(&[
            ("publication", "p", None, Some(r#"{"puballtables": true}"#)),
            ("publication", "q", None, Some(r#"{"puballtables": false}"#)),
            ("publication schema", "q: \"a b\"", None, Some("{}")),
            ("foreign server", "s", None, Some(r#"{"wrapper": "W x"}"#)),
            ("user mapping", "PUBLIC on s", None, Some("{}")),
            ("table", "public.t", None, Some("{}")),
        ]);
        let expected = [
            "create publication supa_safe_canary for all tables",
            "create publication supa_safe_canary",
            "create publication supa_safe_canary for tables in schema \"a b\"",
            "create server supa_safe_canary foreign data wrapper \"W x\"",
            "create user mapping if not exists for PUBLIC server s",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_on_tables_of_the_users_wait_for_nobody() {
        let text = Some(r#"{"text": "x"}"#);
        let found = statements(&[
            ("comment", "table public.t", Some("{}"), text),
            ("comment", "table column auth.users.id", Some("{}"), text),
            ("comment", "role anon", Some("{}"), text),
        ]);
        assert_eq!(found, ["comment on column auth.users.id is 'x'", "comment on role anon is 'x'"]);
    }
}
