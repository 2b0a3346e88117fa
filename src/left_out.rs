//! What a plain Postgres on this machine cannot hold of a hosted database, and how the archive's
//! list and the comparison leave it out. Everything left out is a limit that people are told.

use crate::archive::{Contents, Entry};
use crate::fingerprint::{Class, Fingerprint, Line};
use crate::manifest::{ExtensionVersion, Gap, TableRows};
use crate::postgres::catalog::Extension;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Settings that load libraries at sign-in: a plain server lacks the platform's libraries.
const LIBRARY_SETTINGS: [&str; 2] = ["session_preload_libraries", "local_preload_libraries"];

/// What is left out of a restore on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    extensions: Vec<Extension>,
    /// Tables that the dump could not read, and so does not even define.
    unread: Vec<String>,
}

impl LeftOut {
    /// Compares a snapshot's extensions with those that the scratch can have, and adds the tables
    /// that could not be read. Those of the platform are defined by what defines the platform.
    pub fn new(extensions: Vec<Extension>, available: &[ExtensionVersion], gaps: &[Gap]) -> Self {
        let missing =
            |extension: &Extension| !available.iter().any(|candidate| candidate.name == extension.name);
        let owned = gaps.iter().filter(|gap| gap.class != Class::Platform);
        Self {
            extensions: extensions.into_iter().filter(missing).collect(),
            unread: owned.map(Gap::qualified).collect(),
        }
    }

    /// What a target itself cannot be taken back to: tables that the dump could not read. They are left
    /// alone.
    pub fn unread(gaps: &[Gap]) -> Self {
        Self::new(Vec::new(), &[], gaps)
    }

    /// Names of the extensions that the scratch cannot have.
    pub fn names(&self) -> Vec<&str> {
        self.extensions.iter().map(|extension| extension.name.as_str()).collect()
    }

    /// The limits, for people.
    pub fn limits(&self) -> Vec<String> {
        let extensions = self.names().into_iter().map(|name| {
            format!("extension {name} cannot be had on this machine: it and its rows are not in the copy")
        });
        let unread = self
            .unread
            .iter()
            .map(|table| format!("table {table} could not be read: it and its rows are not in the copy"));
        extensions.chain(unread).collect()
    }

    /// The part of the archive that the scratch can hold.
    pub fn list(&self, contents: &Contents) -> String {
        contents.list(|entry| self.keeps(entry))
    }

    /// Drops the extension, its comment, its members' rows and privileges, and the privileges of
    /// the schemas that it makes. Subscriptions go too: a copy must not talk to other servers.
    pub fn keeps(&self, entry: &Entry) -> bool {
        entry.kind != "SUBSCRIPTION" && !self.extensions.iter().any(|extension| belongs(extension, entry))
    }

    /// Whether a table's rows are not in the copy.
    pub fn is_table_left_out(&self, table: &TableRows) -> bool {
        table.extension.as_deref().is_some_and(|name| self.names().contains(&name))
    }

    /// Whether a sequence of the archive is not in the copy.
    pub fn is_sequence_left_out(&self, qualified: &str) -> bool {
        let identity = format!("sequence {qualified}");
        self.extensions
            .iter()
            .flat_map(|extension| &extension.members)
            .any(|member| member.identity == identity)
    }

    /// A fingerprint without what the scratch cannot have or must not do.
    pub fn comparable(&self, fingerprint: &Fingerprint) -> Fingerprint {
        fingerprint.without(|line| self.is_line_left_out(line))
    }

    /// Whether a table, by its qualified name, could not be read.
    pub fn is_unread(&self, table: &str) -> bool {
        self.unread.iter().any(|unread| unread == table)
    }

    /// What a fingerprint says of tables that could not be read.
    pub fn of_unread(&self, fingerprint: &Fingerprint) -> Fingerprint {
        fingerprint.without(|line| !self.unread.iter().any(|table| is_about(line, table)))
    }

    fn is_line_left_out(&self, line: &Line) -> bool {
        if line.is_beyond_dump() {
            return true;
        }
        if self.unread.iter().any(|table| is_about(line, table)) {
            return true;
        }
        let named = |word: &str| line.identity.split([' ', '.', ':', '"']).any(|part| part == word);
        match line.kind.as_str() {
            "extension" | "extension version" | "member privileges" => {
                self.names().iter().any(|name| named(name))
            }
            "given privileges" => {
                let object = line.identity.split_once(" on ").and_then(|(_, object)| object.split_once(' '));
                object.is_some_and(|(_, name)| self.extensions.iter().any(|one| makes(one, name)))
            }
            "policy" => self
                .extensions
                .iter()
                .flat_map(|extension| &extension.members)
                .filter_map(|member| member.identity.strip_prefix("table "))
                .any(|table| line.identity.ends_with(&format!(" on {table}"))),
            "setting" => LIBRARY_SETTINGS.iter().any(|setting| line.identity.ends_with(setting)),
            "subscription" => true,
            _ => self
                .extensions
                .iter()
                .flat_map(|extension| &extension.created_schemas)
                .any(|schema| line.kind == "schema" && line.identity == *schema),
        }
    }
}

/// Whether a line describes a table or something of it.
fn is_about(line: &Line, table: &str) -> bool {
    line.identity == table
        || line.identity.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
        || line.identity.ends_with(&format!(" on {table}"))
        || (line.kind == "index" && line.definition.contains(&format!(" ON {table} ")))
}

/// Whether what has this name, or the table of a column, is a member of an extension or its schema. The
/// types of arguments are written in more than one way, so every function of the name counts.
fn makes(extension: &Extension, name: &str) -> bool {
    let bare = |name: &str| name.split('(').next().unwrap_or_default().to_owned();
    let is_below = |above: &str, name: &str| {
        name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    extension.created_schemas.iter().any(|schema| is_below(schema, name))
        || extension.members.iter().any(|member| {
            member.identity.split_once(' ').is_some_and(|(_, made)| is_below(&bare(made), &bare(name)))
        })
}

fn belongs(extension: &Extension, entry: &Entry) -> bool {
    let members = || -> BTreeSet<u32> { extension.members.iter().map(|member| member.oid).collect() };
    let in_created_schema = || extension.created_schemas.iter().any(|schema| entry.is_in(schema));
    match entry.kind.as_str() {
        "EXTENSION" => entry.is_named("-", &extension.name),
        "COMMENT" => entry.is_named("-", &format!("EXTENSION {}", extension.name)),
        "TABLE DATA" => members().contains(&entry.oid),
        "ACL" | "SEQUENCE SET" | "DEFAULT ACL" => {
            in_created_schema()
                || extension
                    .created_schemas
                    .iter()
                    .any(|schema| entry.is_named("-", &format!("SCHEMA {schema}")))
                || extension.members.iter().any(|member| is_member(&member.identity, entry))
        }
        "POLICY" | "ROW SECURITY" | "TRIGGER" | "INDEX" => in_created_schema(),
        _ => false,
    }
}

/// Whether a privilege or sequence entry is about a member, by its name: such entries carry no
/// object id. A member's identity is `kind schema.name` or `kind schema.name(types)`; the archive
/// writes the arguments of a function with their names, so every overload of the name counts.
fn is_member(identity: &str, entry: &Entry) -> bool {
    let Some((_, qualified)) = identity.split_once(' ') else { return false };
    let Some((schema, name)) = qualified.split_once('.') else { return false };
    let (schema, name) = (schema.trim_matches('"'), name.trim_matches('"'));
    match name.split_once('(') {
        Some((name, _)) => ["FUNCTION", "PROCEDURE", "AGGREGATE"]
            .iter()
            .any(|kind| entry.rest.starts_with(&format!("{schema} {kind} {}(", name.trim_matches('"')))),
        None => ["", "TABLE ", "SEQUENCE ", "TYPE ", "DOMAIN "]
            .iter()
            .any(|kind| entry.is_named(schema, &format!("{kind}{name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::catalog::Member;

    const LIST: &str = "\
        5; 3079 16560 EXTENSION - supabase_vault \n\
        3761; 0 0 COMMENT - EXTENSION supabase_vault \n\
        3748; 0 0 ACL - SCHEMA cron supabase_admin\n\
        3846; 0 0 ACL vault FUNCTION create_secret(new_secret text, new_name text) supabase_admin\n\
        3953; 0 0 ACL vault TABLE secrets supabase_admin\n\
        2948; 0 16564 TABLE DATA vault secrets supabase_admin\n\
        3957; 0 0 SEQUENCE SET cron jobid_seq supabase_admin\n\
        2580; 826 16653 DEFAULT ACL cron DEFAULT PRIVILEGES FOR SEQUENCES supabase_admin\n\
        215; 1259 16386 TABLE public secrets postgres\n\
        3344; 0 16386 TABLE DATA public secrets postgres\n\
        3345; 0 0 ACL public TABLE secrets postgres\n\
        99; 6100 1 SUBSCRIPTION - abroad postgres\n";

    fn extension(name: &str, schema: Option<&str>, members: &[(u32, &str)]) -> Extension {
        Extension {
            name: name.to_owned(),
            version: "1".to_owned(),
            schema: "x".to_owned(),
            droppable: false,
            created_schemas: schema.map(str::to_owned).into_iter().collect(),
            members: members
                .iter()
                .map(|(oid, identity)| Member {
                    class_oid: 1259,
                    oid: *oid,
                    identity: (*identity).to_owned(),
                    grantable: Vec::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn everything_of_a_missing_extension_is_left_out_and_nothing_else() {
        let vault = extension(
            "supabase_vault",
            None,
            &[
                (16564, "table vault.secrets"),
                (16470, "function vault.create_secret(pg_catalog.text,pg_catalog.text)"),
            ],
        );
        let cron = extension("pg_cron", Some("cron"), &[(16620, "sequence cron.jobid_seq")]);
        let contents = Contents::parse(LIST).unwrap();
        let kept = LeftOut::new(vec![vault.clone(), cron], &[], &[]).list(&contents);
        let kept: Vec<&str> = kept.lines().filter_map(|line| line.split(';').next()).collect();
        assert_eq!(kept, ["215", "3344", "3345"]);
        let available = ["supabase_vault", "pg_cron"]
            .map(|name| ExtensionVersion { name: name.to_owned(), version: "1".to_owned() });
        let kept = LeftOut::new(vec![vault], &available, &[]).list(&contents);
        assert_eq!(kept.lines().count(), 11);
    }
}
