//! What lies between a snapshot's objects and the live ones, and what brings the former back. Pure.
//!
//! Bytes stand under bucket, key, and version. A row that SQL renamed, moved, or deleted has left
//! its bytes where they were and finds them again when it is as it was; the API takes the bytes
//! along, or away.

use super::scope::{self, Part, Scope, Touched};
use crate::manifest::storage::{Object, State};
use crate::postgres::storage::{Row, address};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) bucket: Option<String>,
    pub(super) key: Option<String>,
}

impl Place {
    pub(super) fn of(object: &Object) -> Self {
        Self { bucket: object.bucket.clone(), key: object.key.clone() }
    }

    pub(super) fn of_row(row: &Row) -> Self {
        Self { bucket: row.bucket_id.clone(), key: row.name.clone() }
    }

    /// Whether another row cannot stand there too.
    fn is_exclusive(&self) -> bool {
        self.bucket.is_some() && self.key.is_some()
    }
}

/// What happened to an object since the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Its row has other columns; its bytes are untouched.
    Altered,
    /// SQL gave its row another bucket or key; its bytes are untouched.
    MovedBySql,
    /// The API moved it, with its bytes.
    MovedByApi,
    /// Other bytes stand in its place.
    Overwritten,
    /// Its row is gone.
    Absent,
}

impl Change {
    /// What happened, for people.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::MovedBySql => "moved by SQL",
            Self::MovedByApi => "moved",
            Self::Overwritten => "overwritten",
            Self::Absent => "removed",
        }
    }
}

/// An object that will be brought back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item {
    /// What happened to it.
    pub change: Change,
    /// As it was.
    pub was: Object,
    /// As it is, when there is a row that was it.
    pub live: Option<Row>,
}

impl Item {
    /// Bucket and key, when a request can name them and there are bytes to bring back.
    pub(super) fn address(&self) -> Option<(&str, &str)> {
        self.was.sha256.as_ref()?;
        address(self.was.bucket.as_deref(), self.was.key.as_deref())
    }
}

/// A bucket, as it shall be at the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// Its id.
    pub id: String,
    /// Its whole row.
    pub wanted: Box<RawValue>,
    /// Whether there is no such row now.
    pub is_missing: bool,
    /// Whether its row is another one now.
    pub is_changed: bool,
    /// In which columns; in any, where nobody noted that.
    #[serde(default)]
    pub columns: Vec<String>,
}

/// Why a difference stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The migration did not touch it, so somebody else did.
    NotTouched,
    /// It changed while the snapshot was taken, so what it was is not known.
    Drifted,
    /// It had no bytes then, and has some now.
    HadNoBytes,
}

/// An object whose bytes stay, and of whose row some columns go back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Merge {
    /// As it was.
    pub was: Object,
    /// As it is.
    pub live: Row,
    /// The columns.
    pub columns: BTreeSet<String>,
}

/// A difference that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its id in the snapshot, when that has it.
    #[serde(default)]
    pub id: Option<String>,
    /// Bucket and key, in words.
    pub object: String,
    /// What happened to it; nothing when the snapshot does not have it.
    pub change: Option<Change>,
    /// Why.
    pub why: Why,
}

/// What will be done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Objects that are brought back.
    pub items: Vec<Item>,
    /// Objects of which somebody else's bytes stay, and columns of the row go back.
    pub merged: Vec<Merge>,
    /// Every bucket of the snapshot.
    pub buckets: Vec<Bucket>,
    /// Objects that the snapshot does not have and that stand in the place of one that it has: they
    /// are saved, and go.
    pub displaced: Vec<Row>,
    /// Objects that were added. They stay unless they are asked to go.
    pub added: Vec<Row>,
    /// Buckets that were added.
    pub added_buckets: Vec<String>,
    /// Rows that the migration added by SQL: those without bytes go.
    pub withdrawn: Vec<Row>,
    /// Those of them at whose bytes nobody could look yet.
    #[serde(default)]
    pub unseen: Vec<Row>,
    /// Buckets that the migration added: those without objects go.
    pub withdrawn_buckets: Vec<String>,
    /// Differences that stay.
    pub left: Vec<Left>,
    /// Whether the bytes of every object are probed, and not only of those that are brought back.
    pub probe_all: bool,
    /// Whether what was added is removed.
    pub remove_added: bool,
}

impl Plan {
    /// Whether nothing differs that could be brought back.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
            && self.merged.is_empty()
            && self.withdrawn.is_empty()
            && self.unseen.is_empty()
            && self.withdrawn_buckets.is_empty()
            && !(self.remove_added && !(self.added.is_empty() && self.added_buckets.is_empty()))
            && !self.probe_all
            && !self.buckets.iter().any(|bucket| bucket.is_missing || bucket.is_changed)
    }

    /// How many objects there are of each change.
    pub fn counts(&self) -> BTreeMap<Change, u64> {
        let mut counts = BTreeMap::new();
        for item in &self.items {
            *counts.entry(item.change).or_default() += 1;
        }
        counts
    }

    /// How many of the differences that stay there are of each kind.
    pub fn left_counts(&self) -> BTreeMap<&'static str, u64> {
        let left = self.left.iter().filter(|left| left.why == Why::NotTouched);
        scope::counts(left.map(|left| left.change))
    }

    /// Ids of the snapshot's objects that stay as they are now.
    pub(super) fn left_ids(&self) -> BTreeSet<&str> {
        self.left.iter().filter_map(|left| left.id.as_deref()).collect()
    }

    /// What was added and is not the migration's, in words.
    pub fn added_in_words(&self) -> Vec<String> {
        let objects = self.added.iter().map(|row| format!("object {}", row.in_words()));
        let buckets = self.added_buckets.iter().map(|id| format!("bucket `{}`", id.escape_debug()));
        objects.chain(buckets).collect()
    }

    /// Takes what the migration added out of what stays: a push of the corrected file would find it in
    /// its way.
    pub fn withdraw(&mut self, touched: &Touched) {
        let is_its = |row: &Row| touched.has_added(&Place::of_row(row));
        let (its, others) = std::mem::take(&mut self.added).into_iter().partition(is_its);
        (self.withdrawn, self.added) = (its, others);
        let buckets = std::mem::take(&mut self.added_buckets).into_iter();
        (self.withdrawn_buckets, self.added_buckets) =
            buckets.partition(|id| touched.added_buckets.contains(id));
    }

    /// Objects whose bytes may have to be sent. What SQL alone changed is not sent, what was deleted only when
    /// the API did it, and what was moved only without the service role's key.
    pub fn sent_at_most(&self) -> impl Iterator<Item = &Object> {
        let is_sent = |item: &&Item| !matches!(item.change, Change::Altered | Change::MovedBySql);
        self.items.iter().filter(is_sent).map(|item| &item.was)
    }

    /// Their bytes.
    pub fn bytes_at_most(&self) -> u64 {
        self.sent_at_most().filter_map(|object| object.size).sum()
    }
}

/// Rows on either side that have no equal on the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Differences {
    pub(super) was: Vec<Object>,
    pub(super) live: Vec<Row>,
    /// Rows of buckets: as they were, and as they are.
    pub(super) buckets_were: Vec<Box<RawValue>>,
    pub(super) buckets_live: Vec<Box<RawValue>>,
}

/// The columns in which a row differs from what it was, the version aside.
pub(super) fn columns(was: &Object, live: &Row) -> Vec<&'static str> {
    let raw = |raw: &Option<Box<RawValue>>| {
        raw.as_deref().map(RawValue::get).filter(|text| *text != "null").map(str::to_owned)
    };
    let columns = [
        ("bucket_id", was.bucket == live.bucket_id),
        ("name", was.key == live.name),
        ("owner", was.owner == live.owner),
        ("owner_id", was.owner_id == live.owner_id),
        ("created_at", was.created_at == live.created_at),
        ("updated_at", was.updated_at == live.updated_at),
        ("last_accessed_at", was.last_accessed_at == live.last_accessed_at),
        ("metadata", raw(&was.metadata) == raw(&live.metadata)),
        ("user_metadata", raw(&was.user_metadata) == raw(&live.user_metadata)),
    ];
    columns.into_iter().filter(|(_, equal)| !equal).map(|(name, _)| name).collect()
}

/// Whether a row is what it was.
pub(super) fn is_same(was: &Object, live: &Row) -> bool {
    was.id == live.id && was.version == live.version && columns(was, live).is_empty()
}

/// Decides what happened and what is done about it.
pub(super) fn decide(differences: Differences, scope: &Scope) -> Plan {
    let Differences { was, live, buckets_were, buckets_live } = differences;
    let sides = Sides::new(&was, &live);
    let mut claimed: BTreeSet<&str> = BTreeSet::new();
    let mut pairs: Vec<(&Object, Option<&Row>)> = Vec::new();
    for object in &was {
        let found = sides.now(object);
        claimed.extend(found.map(|row| row.id.as_str()));
        pairs.push((object, found));
    }
    let ids = in_scope(&pairs, &sides, scope);
    let mut plan = Plan::default();
    let mut wanted: BTreeSet<Place> = BTreeSet::new();
    for (object, found) in pairs {
        let change = change(object, found);
        let part = match (ids.contains(object.id.as_str()), scope.part(object, found), found) {
            (true, _, _) => stays(object, change).map_or(Part::Whole, Part::None),
            (false, Part::Columns(columns), Some(live)) => {
                plan.merged.push(Merge { was: object.clone(), live: live.clone(), columns });
                Part::None(Why::NotTouched)
            }
            (false, _, _) => Part::None(Why::NotTouched),
        };
        if let Part::None(why) = part {
            let id = Some(object.id.clone());
            plan.left.push(Left { id, object: object.in_words(), change: Some(change), why });
            continue;
        }
        wanted.insert(Place::of(object));
        plan.items.push(Item { change, was: object.clone(), live: found.cloned() });
    }
    for row in live.iter().filter(|row| !claimed.contains(row.id.as_str())) {
        let place = Place::of_row(row);
        if place.is_exclusive() && wanted.contains(&place) {
            plan.displaced.push(row.clone());
        } else if scope.holds_added(&place) {
            plan.added.push(row.clone());
        } else {
            let object = row.in_words();
            plan.left.push(Left { id: None, object, change: None, why: Why::NotTouched });
        }
    }
    let needed: BTreeSet<&str> = plan.items.iter().filter_map(|item| item.was.bucket.as_deref()).collect();
    (plan.buckets, plan.added_buckets) = buckets((&buckets_were, &buckets_live), scope, &needed);
    if let Scope::Only(touched) = scope {
        plan.withdraw(touched);
    }
    plan
}

/// The live rows by what they may be known by.
struct Sides<'a> {
    ids_then: BTreeSet<&'a str>,
    by_id: BTreeMap<&'a str, &'a Row>,
    by_place: BTreeMap<Place, &'a Row>,
    by_version: BTreeMap<&'a str, Vec<&'a Row>>,
}

impl<'a> Sides<'a> {
    fn new(was: &'a [Object], live: &'a [Row]) -> Self {
        let mut by_version: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in live {
            if let Some(version) = &row.version {
                by_version.entry(version).or_default().push(row);
            }
        }
        Self {
            ids_then: was.iter().map(|object| object.id.as_str()).collect(),
            by_id: live.iter().map(|row| (row.id.as_str(), row)).collect(),
            by_place: live
                .iter()
                .map(|row| (Place::of_row(row), row))
                .filter(|(place, _)| place.is_exclusive())
                .collect(),
            by_version,
        }
    }

    /// The row that an object is now: the one with its id; else one that SQL wrote again with
    /// another id, which its version tells.
    fn now(&self, object: &Object) -> Option<&'a Row> {
        if let Some(row) = self.by_id.get(object.id.as_str()) {
            return Some(row);
        }
        match self.by_version.get(object.version.as_deref()?)?.as_slice() {
            [row] if !self.ids_then.contains(row.id.as_str()) => Some(row),
            _ => None,
        }
    }
}

fn change(was: &Object, live: Option<&Row>) -> Change {
    let Some(live) = live else { return Change::Absent };
    let same_place = Place::of(was) == Place::of_row(live);
    match (was.version == live.version, same_place) {
        (true, true) => Change::Altered,
        (true, false) => Change::MovedBySql,
        (false, false) => Change::MovedByApi,
        (false, true) => Change::Overwritten,
    }
}

/// Whether an object stays as it is although it may be rolled back: what it was is not known, or was
/// nothing.
fn stays(was: &Object, change: Change) -> Option<Why> {
    match (was.state, change) {
        (State::Drifted, Change::Overwritten) => Some(Why::Drifted),
        (State::Dangling, Change::Overwritten) => Some(Why::HadNoBytes),
        _ => None,
    }
}

/// Ids of the objects that are brought back. One that stands in the way of another goes back too.
fn in_scope<'a>(
    pairs: &[(&'a Object, Option<&'a Row>)],
    sides: &Sides<'a>,
    scope: &Scope,
) -> BTreeSet<&'a str> {
    let by_row: BTreeMap<&str, &Object> =
        pairs.iter().filter_map(|(object, row)| Some((row.as_ref()?.id.as_str(), *object))).collect();
    let is_whole = |(object, row): &&(&'a Object, Option<&'a Row>)| scope.part(object, *row) == Part::Whole;
    let mut open: Vec<&Object> = pairs.iter().filter(is_whole).map(|(object, _)| *object).collect();
    let mut ids = BTreeSet::new();
    while let Some(object) = open.pop() {
        if !ids.insert(object.id.as_str()) {
            continue;
        }
        let occupant = sides.by_place.get(&Place::of(object));
        open.extend(occupant.and_then(|row| by_row.get(row.id.as_str())));
    }
    ids
}

/// The id of a bucket, and its row.
pub(super) fn read_bucket(raw: &RawValue) -> Option<(String, Value)> {
    let value: Value = serde_json::from_str(raw.get()).ok()?;
    Some((value["id"].as_str()?.to_owned(), value))
}

/// The snapshot's buckets, and the ids of those that it does not have.
fn buckets(
    (were, live): (&[Box<RawValue>], &[Box<RawValue>]),
    scope: &Scope,
    needed: &BTreeSet<&str>,
) -> (Vec<Bucket>, Vec<String>) {
    let now: BTreeMap<String, Value> = live.iter().filter_map(|raw| read_bucket(raw)).collect();
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for (raw, (id, was)) in were.iter().filter_map(|raw| Some((raw, read_bucket(raw)?))) {
        known.insert(id.clone());
        let live = now.get(&id);
        let wanted = scope.bucket(&id, &was, live);
        let columns = live.zip(wanted.as_ref()).map(|(live, wanted)| other_columns(live, wanted));
        let columns = columns.unwrap_or_default();
        let row = |value: &Value| RawValue::from_string(value.to_string()).unwrap_or_else(|_| raw.clone());
        let wanted = match (live, wanted) {
            (None, None) if !needed.contains(id.as_str()) => continue,
            // What somebody else changed is to stay as it is now.
            (Some(live), None) => row(live),
            (_, Some(wanted)) if wanted != was => row(&wanted),
            _ => raw.clone(),
        };
        found.push(Bucket {
            id,
            wanted,
            is_missing: live.is_none(),
            is_changed: !columns.is_empty(),
            columns,
        });
    }
    let added = now.into_keys().filter(|id| !known.contains(id) && scope.holds_added_bucket(id)).collect();
    (found, added)
}

/// The columns in which a row has other values than another one, of those that both have: the platform adds some.
pub(super) fn other_columns(live: &Value, wanted: &Value) -> Vec<String> {
    let wanted = wanted.as_object().into_iter().flatten();
    let others = wanted.filter(|(name, value)| live.get(name).is_some_and(|live| live != *value));
    others.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests;
