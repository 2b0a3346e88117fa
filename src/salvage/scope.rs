//! What may go back: everything that differs, or what a migration is known to have changed. Pure.
//!
//! A migration is SQL, and SQL reaches rows alone; whoever uploads, moves, or deletes through the API
//! gives the object another version, or takes its row away. So a row that the rehearsal saw change
//! goes back while its version is the one of the snapshot. Of one that somebody wrote since, only the
//! columns go back that the migration changed and that no upload sets.

use super::plan::{Change, Differences, Place, Why, columns, read_bucket};
use crate::manifest::storage::Object;
use crate::postgres::storage::Row;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Columns that an upload over an object keeps (supabase/storage, `upsertObject`).
const KEPT: [&str; 4] = ["owner", "owner_id", "created_at", "last_accessed_at"];
/// Columns that say where an object's bytes stand.
const PLACE: [&str; 3] = ["bucket_id", "name", "version"];

/// What may be rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that differs from the snapshot.
    Everything,
    /// What a migration is known to touch; other differences are what users did, and stay.
    Only(Touched),
}

/// What a migration did to a row of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// It removed it.
    Removed,
    /// It changed these columns.
    Changed(BTreeSet<String>),
}

/// What a migration did to the rows of Storage, as its rehearsal found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Touched {
    /// Buckets of the snapshot, by id.
    pub buckets: BTreeMap<String, Mark>,
    /// Objects of the snapshot, by id.
    pub objects: BTreeMap<String, Mark>,
    /// Ids of buckets that it added.
    pub added_buckets: BTreeSet<String>,
    /// Buckets and keys of the rows that it added.
    pub added: BTreeSet<(String, String)>,
}

/// What becomes of an object that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it goes back.
    Whole,
    /// These columns of its row go back; its bytes are somebody's.
    Columns(BTreeSet<String>),
    /// It stays.
    None(Why),
}

impl Touched {
    /// What differs between a snapshot and the copy of it that a migration ran on.
    pub(super) fn of(differences: &Differences) -> Self {
        let Differences { was, live, buckets_were, buckets_live } = differences;
        let now: BTreeMap<&str, &Row> = live.iter().map(|row| (row.id.as_str(), row)).collect();
        let mark = |was: &Object| match now.get(was.id.as_str()) {
            None => Mark::Removed,
            Some(row) => {
                let version = (was.version != row.version).then_some("version");
                Mark::Changed(columns(was, row).into_iter().chain(version).map(str::to_owned).collect())
            }
        };
        let objects = was.iter().map(|was| (was.id.clone(), mark(was))).collect();
        let then: BTreeSet<&str> = was.iter().map(|was| was.id.as_str()).collect();
        let added = live.iter().filter(|row| !then.contains(row.id.as_str()));
        let added = added.filter_map(|row| row.bucket_id.clone().zip(row.name.clone())).collect();
        let by_id = |rows: &[Box<RawValue>]| -> BTreeMap<String, Value> {
            rows.iter().filter_map(|raw| read_bucket(raw)).collect()
        };
        let (then, now) = (by_id(buckets_were), by_id(buckets_live));
        let changed = |id: &String, was: &Value| match now.get(id) {
            None => Some(Mark::Removed),
            Some(live) => {
                let names = was.as_object()?.iter().filter(|(name, value)| live.get(name) != Some(value));
                let names: BTreeSet<String> = names.map(|(name, _)| name.clone()).collect();
                (!names.is_empty()).then_some(Mark::Changed(names))
            }
        };
        Self {
            buckets: then.iter().filter_map(|(id, was)| Some((id.clone(), changed(id, was)?))).collect(),
            objects,
            added_buckets: now.keys().filter(|id| !then.contains_key(*id)).cloned().collect(),
            added,
        }
    }

    /// Whether it did nothing to them.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether it added the row that stands at a place.
    pub(super) fn has_added(&self, place: &Place) -> bool {
        place.bucket.clone().zip(place.key.clone()).is_some_and(|place| self.added.contains(&place))
    }

    fn part(&self, was: &Object, live: Option<&Row>) -> Part {
        match (self.objects.get(&was.id), live) {
            (Some(Mark::Removed), None) => Part::Whole,
            (Some(_), Some(live)) if live.version == was.version => Part::Whole,
            (None, _) | (Some(Mark::Changed(_)), None) | (Some(Mark::Removed), Some(_)) => {
                Part::None(Why::NotTouched)
            }
            (Some(Mark::Changed(names)), Some(_)) if names.iter().any(|name| is(name, &PLACE)) => Part::Whole,
            (Some(Mark::Changed(names)), Some(live)) => {
                let differing = columns(was, live);
                let names: BTreeSet<String> = names
                    .iter()
                    .filter(|name| is(name, &KEPT) && differing.contains(&name.as_str()))
                    .cloned()
                    .collect();
                if names.is_empty() { Part::None(Why::NotTouched) } else { Part::Columns(names) }
            }
        }
    }
}

fn is(name: &str, names: &[&str]) -> bool {
    names.contains(&name)
}

impl Scope {
    /// What becomes of an object of the snapshot.
    pub(super) fn part(&self, was: &Object, live: Option<&Row>) -> Part {
        match self {
            Self::Everything => Part::Whole,
            Self::Only(touched) => touched.part(was, live),
        }
    }

    /// Whether a row that the snapshot does not have may go.
    pub(super) fn holds_added(&self, place: &Place) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(touched) => touched.has_added(place),
        }
    }

    /// Whether a bucket that the snapshot does not have may go.
    pub(super) fn holds_added_bucket(&self, id: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(touched) => touched.added_buckets.contains(id),
        }
    }

    /// The row that a bucket shall have, when it may be another one than it has.
    pub(super) fn bucket(&self, id: &str, was: &Value, live: Option<&Value>) -> Option<Value> {
        let touched = match self {
            Self::Everything => return Some(was.clone()),
            Self::Only(touched) => touched,
        };
        match (touched.buckets.get(id)?, live) {
            (Mark::Removed, _) => Some(was.clone()),
            (Mark::Changed(_), None) => None,
            (Mark::Changed(names), Some(live)) => {
                let mut wanted = live.clone();
                for name in names {
                    *wanted.get_mut(name)? = was.get(name)?.clone();
                }
                Some(wanted)
            }
        }
    }
}

/// How many of the differences that stay there are of each kind; none is an object that was added.
pub(super) fn counts(kinds: impl Iterator<Item = Option<Change>>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for kind in kinds {
        let word = match kind {
            None => "added",
            Some(Change::Altered) => "altered",
            Some(Change::MovedBySql | Change::MovedByApi) => "moved",
            Some(Change::Overwritten) => "overwritten",
            Some(Change::Absent) => "removed",
        };
        *counts.entry(word).or_default() += 1;
    }
    counts
}
