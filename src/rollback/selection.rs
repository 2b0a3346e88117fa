//! Which entries of an archive bring back what is gone.
//!
//! An entry carries the object id that its object had when the dump was taken, and an object keeps
//! its id until it is dropped: what has the id no more is gone, whatever took it along. The few
//! entries without an id belong to one that has it. Privileges, comments, and default privileges
//! are not taken from the archive: [`super::inverse`] works them out.

use super::names;
use crate::archive::{Contents, Entry};
use crate::fingerprint::{Class, Difference, Fingerprint, is_platform_schema};
use crate::left_out::LeftOut;
use std::collections::{BTreeMap, BTreeSet};

/// `pg_class` (`src/include/catalog/pg_class.h`).
const PG_CLASS: u32 = 1259;
/// `pg_proc` (`src/include/catalog/pg_proc.h`).
const PG_PROC: u32 = 1255;
/// Entries that are worked out instead.
const IN_PLACE: [&str; 5] = ["ACL", "COMMENT", "DEFAULT ACL", "SECURITY LABEL", "SUBSCRIPTION"];
/// Kinds of lines whose identity begins with a schema.
const STANDING: [&str; 11] = [
    "table",
    "foreign table",
    "view",
    "materialized view",
    "sequence",
    "function",
    "procedure",
    "aggregate",
    "type",
    "domain",
    "composite type",
];
/// Entries of large objects, which hold many at once ([`super::large`]).
pub(super) const LARGE: [&str; 4] = ["BLOB", "BLOBS", "BLOB METADATA", "LARGE OBJECT"];

/// An object by its catalog and its row there.
pub(super) type Object = (u32, u32);

/// Object ids of the database at hand by those of the database that the archive was made of.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    pairs: BTreeMap<Object, Object>,
    /// The ids that the objects of a copy began with.
    copied: BTreeMap<Object, Object>,
    /// Whether what has no pair has kept its id, if it is there at all.
    keeps_ids: bool,
}

impl Translation {
    /// Pairs the entries of an archive with those of a dump of its copy, `fresh` before anything changed:
    /// the same types and names in the same order. What the copy lacks has no pair. What was made again
    /// since is known by its name, as in [`Self::of_target`].
    pub fn of_copy(archive: &Contents, fresh: &Contents, now: &Contents) -> Self {
        let since = Self::of_target(fresh, now);
        let copied = pairs(archive, fresh);
        let pairs = copied.iter().filter_map(|(was, copied)| Some((*was, since.of(*copied)?)));
        Self { pairs: pairs.collect(), copied, keeps_ids: false }
    }

    /// Pairs the entries of an archive with those of a dump of the same database now. An object that
    /// was made again meanwhile, as a migration or an earlier rollback does, is known by its name. A table is
    /// known by its id as long as that stands, since its rows tell who it is.
    pub fn of_target(archive: &Contents, now: &Contents) -> Self {
        let tables = |contents: &Contents| -> BTreeSet<Object> {
            let tables = contents.entries.iter().filter(|entry| entry.kind == "TABLE");
            tables.map(|entry| (entry.catalog_oid, entry.oid)).collect()
        };
        let kept: BTreeSet<Object> = tables(archive).intersection(&tables(now)).copied().collect();
        let mut pairs: BTreeMap<Object, Object> = pairs(archive, now)
            .into_iter()
            .filter(|(was, is)| !kept.contains(was) && !kept.contains(is))
            .collect();
        let taken: BTreeSet<Object> = pairs.values().copied().collect();
        let with_id = archive.entries.iter().filter(|entry| entry.catalog_oid != 0);
        for was in with_id.map(|entry| (entry.catalog_oid, entry.oid)) {
            // It has the name of another one now, which is gone.
            if !pairs.contains_key(&was) && taken.contains(&was) {
                pairs.insert(was, (was.0, NOTHING));
            }
        }
        Self { pairs, copied: BTreeMap::new(), keeps_ids: true }
    }

    fn of(&self, object: Object) -> Option<Object> {
        self.pairs.get(&object).copied().or_else(|| self.keeps_ids.then_some(object))
    }

    /// The id that an object had as the snapshot has it, whatever bears its name now.
    fn first_of(&self, object: Object) -> Option<Object> {
        self.copied.get(&object).copied().or_else(|| self.keeps_ids.then_some(object))
    }
}

/// The id that no object has (`src/include/postgres_ext.h`, `InvalidOid`).
const NOTHING: u32 = 0;

/// The objects of two tables of contents that have the same type and name. Whose they are is the last word
/// of an entry, and no part of the name: what was made again may be another one's.
fn pairs(archive: &Contents, now: &Contents) -> BTreeMap<Object, Object> {
    let with_id = |contents: &'_ Contents| -> Vec<(String, Object)> {
        let entries = contents.entries.iter().filter(|entry| entry.catalog_oid != 0);
        let named = entries.map(|entry| {
            let name = entry.rest.rsplit_once(' ').map_or(entry.rest.as_str(), |(name, _)| name);
            (format!("{} {name}", entry.kind), (entry.catalog_oid, entry.oid))
        });
        named.collect()
    };
    let mut found: BTreeMap<String, Vec<Object>> = BTreeMap::new();
    for (name, object) in with_id(now).into_iter().rev() {
        found.entry(name).or_default().push(object);
    }
    let pair = |(name, object): (String, Object)| Some((object, found.get_mut(&name)?.pop()?));
    with_id(archive).into_iter().filter_map(pair).collect()
}

/// The objects of an archive by the ids that they have in the database at hand.
#[derive(Debug)]
pub(super) struct Known<'a> {
    contents: &'a Contents,
    translation: &'a Translation,
}

impl<'a> Known<'a> {
    pub(super) fn new(contents: &'a Contents, translation: &'a Translation) -> Self {
        Self { contents, translation }
    }

    /// The object of an entry; none for entries without one.
    fn object(&self, entry: &Entry) -> Option<Object> {
        if entry.catalog_oid == 0 { None } else { self.translation.of((entry.catalog_oid, entry.oid)) }
    }

    /// The entries of tables, by the ids that these have now.
    pub(super) fn tables(&self) -> BTreeMap<u32, &'a Entry> {
        let tables = self.contents.entries.iter().filter(|entry| entry.kind == "TABLE");
        let known = tables.filter_map(|entry| Some((self.object(entry)?, entry)));
        known.filter(|((catalog, _), _)| *catalog == PG_CLASS).map(|((_, oid), entry)| (oid, entry)).collect()
    }

    /// Whether a table is the very one of an entry, and not one that was made again under its name. Columns of
    /// a copy have numbers of their own.
    pub(super) fn is_same(&self, entry: &Entry, oid: u32) -> bool {
        self.translation.keeps_ids && entry.oid == oid
    }

    /// The entries of relations and routines, with the ids that they have now, or had when they stood.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'a Entry, u32)> {
        self.relations_and_routines().filter_map(|entry| Some((entry, self.object(entry)?.1)))
    }

    /// The same, with the ids that they had in the snapshot: what was made again since has another one now.
    pub(super) fn named_first(&self) -> impl Iterator<Item = (&'a Entry, u32)> {
        self.relations_and_routines().filter_map(|entry| {
            let object = (entry.catalog_oid, entry.oid);
            Some((entry, self.translation.first_of(object)?.1))
        })
    }

    fn relations_and_routines(&self) -> impl Iterator<Item = &'a Entry> {
        let entries = self.contents.entries.iter();
        entries.filter(|entry| [PG_CLASS, PG_PROC].contains(&entry.catalog_oid))
    }

    /// All objects, by catalog.
    pub(super) fn by_catalog(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut catalogs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (catalog, oid) in self.contents.entries.iter().filter_map(|entry| self.object(entry)) {
            catalogs.entry(catalog).or_default().push(oid);
        }
        catalogs
    }
}

/// What is to come back.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    contents: &'a Contents,
    kept: BTreeSet<u32>,
}

/// What decides whether an entry is the user's.
pub(super) struct Owned<'a> {
    schemas: Vec<String>,
    /// Schema and name as the archive prints them, of policies and triggers on managed tables.
    attached: Vec<(String, String)>,
    /// Kind and name of what has no schema.
    global: Vec<(String, String)>,
    /// Names of user mappings that are gone: no dump tells their ids (`pg_dump.c`, `dumpUserMappings`).
    mappings: Vec<String>,
    left_out: &'a LeftOut,
}

impl<'a> Owned<'a> {
    /// `differences` are those of the database at hand.
    pub(super) fn of(recorded: &Fingerprint, differences: &[Difference], left_out: &'a LeftOut) -> Self {
        let mappings = differences
            .iter()
            .filter(|difference| difference.kind == "user mapping" && difference.before.is_none())
            .filter_map(|difference| names::on(&difference.identity))
            .map(|(role, server)| {
                let role = if role == "PUBLIC" { "public".to_owned() } else { names::plain(role) };
                format!("USER MAPPING {role} SERVER {}", names::plain(server))
            });
        let mappings = mappings.collect();
        let owned = || recorded.lines().iter().filter(|line| line.class == Class::Owned);
        let of_schemas =
            owned().filter(|line| line.kind == "schema").map(|line| names::plain(&line.identity));
        // Queues stand in a schema that is not the user's, and so may anything of schema `extensions`.
        let of_tables = owned().filter(|line| STANDING.contains(&line.kind.as_str()));
        let of_tables = of_tables
            .filter_map(|line| names::identifier(&line.identity))
            .filter(|(_, rest)| rest.starts_with('.'))
            .map(|(schema, _)| names::plain(schema));
        let schemas: BTreeSet<String> = of_schemas.chain(of_tables).collect();
        let attached =
            owned().filter(|line| ["policy", "trigger"].contains(&line.kind.as_str())).filter_map(|line| {
                let (name, table) = names::on(&line.identity)?;
                let (schema, table) = names::qualified(table)?;
                is_platform_schema(&schema).then(|| (schema, format!("{table} {}", names::plain(name))))
            });
        let global = ["event trigger", "publication", "extension"];
        let global = owned()
            .filter(|line| global.contains(&line.kind.as_str()))
            .map(|line| (line.kind.to_uppercase(), names::plain(&line.identity)));
        let (schemas, attached, global) =
            (schemas.into_iter().collect(), attached.collect(), global.collect());
        Self { schemas, attached, global, mappings, left_out }
    }

    fn has(&self, entry: &Entry) -> bool {
        if !self.left_out.keeps(entry) || IN_PLACE.contains(&entry.kind.as_str()) {
            return false;
        }
        if self.schemas.iter().any(|schema| entry.is_in(schema)) {
            return true;
        }
        if !entry.is_in("-") {
            return self.attached.iter().any(|(schema, name)| entry.is_named(schema, name));
        }
        match entry.kind.as_str() {
            "SCHEMA" => self.schemas.iter().any(|schema| entry.is_named("-", schema)),
            kind @ ("EVENT TRIGGER" | "PUBLICATION" | "EXTENSION") => {
                self.global.iter().any(|(owned, name)| owned == kind && entry.is_named("-", name))
            }
            _ => true,
        }
    }
}

impl<'a> Selection<'a> {
    /// Selects what is gone; `exists` says whether an object is there.
    pub(super) fn of_gone(known: &Known<'a>, owned: &Owned<'_>, exists: &BTreeSet<Object>) -> Self {
        let entries = &known.contents.entries;
        let is_large = |entry: &Entry| LARGE.contains(&entry.kind.as_str());
        let by_id: Vec<&Entry> = entries
            .iter()
            .filter(|entry| !is_large(entry) && owned.has(entry))
            .filter(|entry| known.object(entry).is_some_and(|object| !exists.contains(&object)))
            .collect();
        let tables: BTreeSet<u32> =
            by_id.iter().filter(|entry| entry.catalog_oid == PG_CLASS).map(|entry| entry.oid).collect();
        let rests = |kind: &str| -> BTreeSet<&str> {
            by_id.iter().filter(|entry| entry.kind == kind).map(|entry| entry.rest.as_str()).collect()
        };
        let (sequences, plain_tables) = (rests("SEQUENCE"), rests("TABLE"));
        let indexes = by_id.iter().filter(|entry| ["INDEX", "CONSTRAINT"].contains(&entry.kind.as_str()));
        let indexes: BTreeSet<(&str, &str)> = indexes.flat_map(|entry| words(entry)).collect();
        let belongs = |entry: &Entry| match entry.kind.as_str() {
            _ if is_large(entry) => false,
            _ if entry.catalog_oid != 0 => false,
            "TABLE DATA" | "ROW SECURITY" | "MATERIALIZED VIEW DATA" => tables.contains(&entry.oid),
            "SEQUENCE SET" | "SEQUENCE OWNED BY" => sequences.contains(entry.rest.as_str()),
            "USER MAPPING" => owned.mappings.iter().any(|name| entry.is_named("-", name)),
            "TABLE ATTACH" => plain_tables.contains(entry.rest.as_str()),
            "INDEX ATTACH" => {
                entry.rest.trim_end().split_once(' ').is_some_and(|name| indexes.contains(&name))
            }
            _ => false,
        };
        let kept = by_id.iter().map(|entry| entry.dump_id);
        let belonging = entries.iter().filter(|entry| belongs(entry)).map(|entry| entry.dump_id);
        Self { contents: known.contents, kept: kept.chain(belonging).collect() }
    }

    /// The selected entries, in the order in which they are restored.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'a Entry> {
        self.contents.entries.iter().filter(|entry| self.kept.contains(&entry.dump_id))
    }

    /// Whether nothing is selected.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The list for `pg_restore`, of the entries that satisfy the condition.
    pub(super) fn list(&self, keep: impl Fn(&Entry) -> bool) -> String {
        self.contents.list(|entry| self.kept.contains(&entry.dump_id) && keep(entry))
    }
}

/// The first word of an entry with each run of its words: the name of an index or of a constraint is one of
/// these, and stands behind that of the table.
fn words(entry: &Entry) -> Vec<(&str, &str)> {
    let blanks: Vec<usize> = entry.rest.match_indices(' ').map(|(at, _)| at).collect();
    let starts = std::iter::once(0).chain(blanks.iter().map(|at| at + 1));
    let ends: Vec<usize> = blanks.iter().copied().chain([entry.rest.len()]).collect();
    let runs = starts.flat_map(|start| ends.iter().filter_map(move |end| entry.rest.get(start..*end)));
    let first = entry.rest.split(' ').next().unwrap_or_default();
    runs.map(|run| (first, run)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Line;

    const LIST: &str = "\
        6; 2615 2200 SCHEMA - public pg_database_owner\n\
        7; 2615 16400 SCHEMA - app postgres\n\
        8; 2615 16401 SCHEMA - auth supabase_admin\n\
        215; 1259 16386 TABLE public orders postgres\n\
        216; 1259 16387 SEQUENCE public orders_id_seq postgres\n\
        217; 1259 16388 TABLE auth users supabase_auth_admin\n\
        218; 0 0 SEQUENCE OWNED BY public orders_id_seq postgres\n\
        300; 0 0 ACL public TABLE orders postgres\n\
        344; 0 16386 TABLE DATA public orders postgres\n\
        345; 0 0 SEQUENCE SET public orders_id_seq postgres\n\
        350; 2606 16390 CONSTRAINT public orders orders_pkey postgres\n\
        351; 0 0 INDEX ATTACH public orders_pkey \n\
        352; 2620 16391 TRIGGER auth users on_sign_up supabase_auth_admin\n\
        353; 2620 16392 TRIGGER auth users platform_trigger supabase_auth_admin\n\
        354; 3256 16393 POLICY public orders own_orders postgres\n";

    fn recorded() -> Fingerprint {
        let line = |kind: &str, identity: &str| Line {
            class: Class::Owned,
            kind: kind.to_owned(),
            identity: identity.to_owned(),
            definition: "{}".to_owned(),
        };
        Fingerprint::new([
            line("schema", "public"),
            line("schema", "app"),
            line("trigger", "on_sign_up on auth.users"),
        ])
    }

    fn selected(exists: &[Object], translation: &Translation) -> Vec<u32> {
        let contents = Contents::parse(LIST).unwrap();
        let left_out = LeftOut::default();
        let known = Known::new(&contents, translation);
        let owned = Owned::of(&recorded(), &[], &left_out);
        let exists = exists.iter().copied().collect();
        Selection::of_gone(&known, &owned, &exists).entries().map(|entry| entry.dump_id).collect()
    }

    #[test]
    fn what_has_its_id_no_more_is_selected_with_what_belongs_to_it() {
        let all = [
            (2615, 2200),
            (2615, 16400),
            (1259, 16386),
            (1259, 16387),
            (2606, 16390),
            (2620, 16391),
            (3256, 16393),
        ];
        let contents = Contents::parse(LIST).unwrap();
        let same = Translation::of_target(&contents, &contents);
        assert_eq!(selected(&all, &same), [0; 0]);
        assert_eq!(selected(&all[..2], &same), [215, 216, 218, 344, 345, 350, 351, 352, 354]);
        assert_eq!(selected(&[&all[..2], &all[3..]].concat(), &same), [215, 344]);
    }

    #[test]
    fn a_copy_has_other_ids() {
        let contents = Contents::parse(LIST).unwrap();
        let copy = Contents::parse(&LIST.replace(" 1638", " 9938").replace(" 1639", " 9939")).unwrap();
        let found = [(2615, 2200), (2615, 16400), (1259, 99386), (1259, 99387), (2606, 99390), (2620, 99391)];
        assert_eq!(selected(&found, &Translation::of_copy(&contents, &copy, &copy)), [354]);
        assert_eq!(selected(&found, &Translation::of_target(&contents, &copy)), [354]);
        // What a copy lacks is not missed; what a target lacks is gone, unless it has another name now.
        let fewer = LIST.replace("216; 1259 16387 SEQUENCE public orders_id_seq postgres\n", "");
        let fewer = Contents::parse(&fewer).unwrap();
        let all = [(2615, 2200), (2615, 16400), (1259, 16386), (2606, 16390), (2620, 16391), (3256, 16393)];
        assert_eq!(selected(&all, &Translation::of_copy(&contents, &fewer, &fewer)), [0; 0]);
        assert_eq!(selected(&all, &Translation::of_target(&contents, &fewer)), [216, 218, 345]);
    }

    #[test]
    fn what_was_made_again_is_known_by_its_name() {
        let contents = Contents::parse(LIST).unwrap();
        let copy = Contents::parse(&LIST.replace(" 1638", " 9938").replace(" 1639", " 9939")).unwrap();
        // The policy, as another one's, and the table, of which the old one has another name.
        let again = "354; 3256 20001 POLICY public orders own_orders somebody\n\
            215; 1259 16386 TABLE public old postgres\n215; 1259 20002 TABLE public orders postgres\n";
        let table = "215; 1259 16386 TABLE public orders postgres\n";
        let now = LIST.replace("354; 3256 16393 POLICY public orders own_orders postgres\n", again);
        let now = Contents::parse(&now.replace(table, "")).unwrap();
        let found = [(2615, 2200), (2615, 16400), (1259, 16386), (1259, 16387), (1259, 20002)];
        let found = [&found[..], &[(2606, 16390), (2620, 16391), (3256, 20001)]].concat();
        assert_eq!(selected(&found, &Translation::of_target(&contents, &now)), [0; 0]);
        // The table that has the rows is the one that is meant.
        let without: Vec<Object> = found.iter().copied().filter(|object| object.1 != 16386).collect();
        assert_eq!(selected(&without, &Translation::of_target(&contents, &now)), [215, 344]);
        let on_copy = |object: &Object| match object.1 {
            oid @ 16386..=16391 => (object.0, oid - 16386 + 99386),
            _ => *object,
        };
        let now = "354; 3256 20001 POLICY public orders own_orders postgres\n";
        let now = LIST.replace("354; 3256 16393 POLICY public orders own_orders postgres\n", now);
        let now = Contents::parse(&now.replace(" 1638", " 9938").replace(" 1639", " 9939")).unwrap();
        let found: Vec<Object> = found.iter().map(on_copy).collect();
        assert_eq!(selected(&found, &Translation::of_copy(&contents, &copy, &now)), [0; 0]);
        assert_eq!(selected(&found[..7], &Translation::of_copy(&contents, &copy, &now)), [354]);
    }

    #[test]
    fn what_took_the_name_of_another_is_not_itself() {
        let was = "1; 1259 11 VIEW public v postgres\n2; 1259 12 VIEW public w postgres\n";
        let now = Contents::parse("1; 1259 12 VIEW public v postgres\n").unwrap();
        let contents = Contents::parse(was).unwrap();
        let (left_out, translation) = (LeftOut::default(), Translation::of_target(&contents, &now));
        let (known, owned) = (Known::new(&contents, &translation), Owned::of(&recorded(), &[], &left_out));
        let gone = Selection::of_gone(&known, &owned, &BTreeSet::from([(1259, 12)]));
        assert_eq!(gone.entries().map(|entry| entry.dump_id).collect::<Vec<_>>(), [2]);
    }
}
