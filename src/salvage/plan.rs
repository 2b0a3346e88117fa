//! What lies between a snapshot's objects and the live ones, and what brings the former back. Pure.
//!
//! Bytes stand under bucket, key, and version. A row that SQL renamed, moved, or deleted has left
//! its bytes where they were and finds them again when it is as it was; the API takes the bytes
//! along, or away.

use crate::manifest::storage::{Object, State};
use crate::postgres::storage::{Row, address};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// What may be rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everything that differs from the snapshot.
    Everything,
    /// What a migration is known to touch; other differences are what users did, and stay.
    Only(Touched),
}

/// What a migration touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Ids of buckets.
    pub buckets: BTreeSet<String>,
    /// Ids of objects.
    pub ids: BTreeSet<String>,
    /// Buckets and keys of objects.
    pub names: BTreeSet<(String, String)>,
}

impl Scope {
    fn holds(&self, id: &str, place: &Place) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(touched) => {
                let name = place.bucket.clone().zip(place.key.clone());
                touched.ids.contains(id) || name.is_some_and(|name| touched.names.contains(&name))
            }
        }
    }

    fn holds_bucket(&self, id: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(touched) => touched.buckets.contains(id),
        }
    }
}

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

/// A difference that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Bucket and key, in words.
    pub object: String,
    /// Why.
    pub why: Why,
}

/// What will be done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Objects that are brought back.
    pub items: Vec<Item>,
    /// Every bucket of the snapshot.
    pub buckets: Vec<Bucket>,
    /// Objects that the snapshot does not have and that stand in the place of one that it has: they
    /// are saved, and go.
    pub displaced: Vec<Row>,
    /// Objects that were added. They stay unless they are asked to go.
    pub added: Vec<Row>,
    /// Buckets that were added.
    pub added_buckets: Vec<String>,
    /// Differences that stay.
    pub left: Vec<Left>,
    /// Whether the bytes of every object are probed, and not only of those that are brought back.
    pub probe_all: bool,
}

impl Plan {
    /// Whether nothing differs that could be brought back.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
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

    /// Bytes that are sent at most. What SQL alone changed is not sent, what was deleted only when the
    /// API did it, and what was moved only without the service role's key.
    pub fn bytes_at_most(&self) -> u64 {
        let sent = |item: &&Item| !matches!(item.change, Change::Altered | Change::MovedBySql);
        self.items.iter().filter(sent).filter_map(|item| item.was.size).sum()
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
        let stays =
            if ids.contains(object.id.as_str()) { stays(object, change) } else { Some(Why::NotTouched) };
        if let Some(why) = stays {
            plan.left.push(Left { object: object.in_words(), why });
            continue;
        }
        wanted.insert(Place::of(object));
        plan.items.push(Item { change, was: object.clone(), live: found.cloned() });
    }
    for row in live.iter().filter(|row| !claimed.contains(row.id.as_str())) {
        let place = Place::of_row(row);
        if place.is_exclusive() && wanted.contains(&place) {
            plan.displaced.push(row.clone());
        } else if scope.holds(&row.id, &place) {
            plan.added.push(row.clone());
        } else {
            plan.left.push(Left { object: row.in_words(), why: Why::NotTouched });
        }
    }
    let needed: BTreeSet<&str> = plan.items.iter().filter_map(|item| item.was.bucket.as_deref()).collect();
    (plan.buckets, plan.added_buckets) = buckets(&buckets_were, &buckets_live, scope, &needed);
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
    let holds = |(object, row): &&(&'a Object, Option<&'a Row>)| {
        scope.holds(&object.id, &Place::of(object))
            || row.is_some_and(|row| scope.holds(&row.id, &Place::of_row(row)))
    };
    let mut open: Vec<&Object> = pairs.iter().filter(holds).map(|(object, _)| *object).collect();
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

/// The snapshot's buckets, and the ids of those that it does not have.
fn buckets(
    were: &[Box<RawValue>],
    live: &[Box<RawValue>],
    scope: &Scope,
    needed: &BTreeSet<&str>,
) -> (Vec<Bucket>, Vec<String>) {
    let read = |raw: &RawValue| -> Option<(String, Value)> {
        let value: Value = serde_json::from_str(raw.get()).ok()?;
        Some((value["id"].as_str()?.to_owned(), value))
    };
    let now: BTreeMap<String, (&RawValue, Value)> =
        live.iter().filter_map(|raw| read(raw).map(|(id, value)| (id, (&**raw, value)))).collect();
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for (raw, (id, value)) in were.iter().filter_map(|raw| Some((raw, read(raw)?))) {
        known.insert(id.clone());
        let may = scope.holds_bucket(&id);
        match now.get(&id) {
            None if may || needed.contains(id.as_str()) => {
                found.push(Bucket { id, wanted: raw.clone(), is_missing: true, is_changed: false });
            }
            None => {}
            Some((_, live)) if may => {
                let is_changed = !has_columns(live, &value);
                found.push(Bucket { id, wanted: raw.clone(), is_missing: false, is_changed });
            }
            Some((raw, _)) => {
                found.push(Bucket { id, wanted: (*raw).to_owned(), is_missing: false, is_changed: false });
            }
        }
    }
    let added = now.into_keys().filter(|id| !known.contains(id) && scope.holds_bucket(id)).collect();
    (found, added)
}

/// Whether a row has the values of another one, in the columns that both have: the platform adds some.
pub(super) fn has_columns(live: &Value, wanted: &Value) -> bool {
    let (Some(live), Some(wanted)) = (live.as_object(), wanted.as_object()) else { return false };
    wanted.iter().all(|(name, value)| live.get(name).is_none_or(|live| live == value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A row as `id place version`; the place is `bucket/key`.
    fn row(text: &str) -> Row {
        let [id, place, version] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let (bucket, key) = place.split_once('/').unwrap();
        serde_json::from_value(json!({ "id": id, "bucket_id": bucket, "name": key, "version": version }))
            .unwrap()
    }

    fn was(text: &str, state: State) -> Object {
        let mut object = row(text).record(state, Some(1));
        object.sha256 = state.is_captured().then(|| "s".to_owned());
        object
    }

    fn plan(then: &[&str], now: &[&str], scope: &Scope) -> Plan {
        let then = then.iter().map(|text| was(text, State::Ok)).collect();
        let live = now.iter().map(|text| row(text)).collect();
        decide(Differences { was: then, live, ..Differences::default() }, scope)
    }

    /// The plan in short: changes by id, then who is displaced (-), added (+), and left (=).
    fn short(plan: &Plan) -> Vec<String> {
        let items = plan.items.iter().map(|item| format!("{} {:?}", item.was.id, item.change));
        let rows = |sign: &str, rows: &[Row]| -> Vec<String> {
            rows.iter().map(|row| format!("{sign}{}", row.id)).collect()
        };
        let left = plan.left.iter().map(|left| format!("={} {:?}", left.object, left.why));
        items.chain(rows("-", &plan.displaced)).chain(rows("+", &plan.added)).chain(left).collect()
    }

    #[track_caller]
    fn check(then: &[&str], now: &[&str], expected: &[&str]) {
        assert_eq!(short(&plan(then, now, &Scope::Everything)), expected);
    }

    #[test]
    fn each_change_has_its_name() {
        check(&["1 b/a v1"], &["1 b/a v1"], &["1 Altered"]);
        check(&["1 b/a v1"], &["1 b/z v1"], &["1 MovedBySql"]);
        check(&["1 b/a v1"], &["1 c/a v1"], &["1 MovedBySql"]);
        check(&["1 b/a v1"], &["1 b/z v9"], &["1 MovedByApi"]);
        check(&["1 b/a v1"], &["1 b/a v9"], &["1 Overwritten"]);
        check(&["1 b/a v1"], &[], &["1 Absent"]);
        check(&[], &["9 b/z v9"], &["+9"]);
    }

    #[test]
    fn keys_that_were_exchanged_or_taken_again_come_out() {
        // A chain and a swap, by SQL and by the API.
        check(&["1 b/a v1", "2 b/b v2"], &["1 b/b v1", "2 b/c v2"], &["1 MovedBySql", "2 MovedBySql"]);
        check(&["1 b/a v1", "2 b/b v2"], &["2 b/a v8", "1 b/b v9"], &["1 MovedByApi", "2 MovedByApi"]);
        // Deleted and uploaded again: the new one is in the way.
        check(&["1 b/a v1"], &["9 b/a v9"], &["1 Absent", "-9"]);
        check(&["1 b/a v1"], &["9 b/a v9", "1 b/z v1"], &["1 MovedBySql", "-9"]);
        // SQL wrote the row again with another id.
        check(&["1 b/a v1"], &["9 b/z v1"], &["1 MovedBySql"]);
        // A version that several rows have tells nothing.
        check(&["1 b/a v"], &["8 b/y v", "9 b/z v"], &["1 Absent", "+8", "+9"]);
    }

    #[test]
    fn what_the_migration_did_not_touch_stays() {
        let touched = |ids: &[&str], names: &[&str]| {
            let name = |name: &&str| name.split_once('/').map(|(b, k)| (b.to_owned(), k.to_owned())).unwrap();
            Scope::Only(Touched {
                buckets: BTreeSet::new(),
                ids: ids.iter().map(|id| (*id).to_owned()).collect(),
                names: names.iter().map(name).collect(),
            })
        };
        let then = ["1 b/a v1", "2 b/b v2", "3 b/c v3"];
        let now = ["1 b/a v9", "3 b/z v9", "4 b/d v4"];
        assert_eq!(
            short(&plan(&then, &now, &touched(&["1"], &[]))),
            ["1 Overwritten", "=`b/b` NotTouched", "=`b/c` NotTouched", "=`b/d` NotTouched"]
        );
        assert_eq!(
            short(&plan(&then, &now, &touched(&[], &["b/b", "b/d"]))),
            ["2 Absent", "+4", "=`b/a` NotTouched", "=`b/c` NotTouched"]
        );
        // Somebody moved an object to a key that has to come back: it goes back too, and so does what
        // is in its own way.
        let then = ["1 b/a v1", "2 b/b v2", "3 b/c v3"];
        let now = ["2 b/a v8", "3 b/b v9"];
        assert_eq!(
            short(&plan(&then, &now, &touched(&["1"], &[]))),
            ["1 Absent", "2 MovedByApi", "3 MovedByApi"]
        );
    }

    #[test]
    fn what_was_not_captured_is_not_made_up() {
        let check = |state: State, now: &str, expected: &str| {
            let differences = Differences {
                was: vec![was("1 b/a v1", state)],
                live: vec![row(now)],
                ..Differences::default()
            };
            assert_eq!(short(&decide(differences, &Scope::Everything)), [expected]);
        };
        check(State::Drifted, "1 b/a v9", "=`b/a` Drifted");
        check(State::Dangling, "1 b/a v9", "=`b/a` HadNoBytes");
        check(State::Dangling, "1 b/z v1", "1 MovedBySql");
        check(State::UnreadableKey, "1 b/a v9", "1 Overwritten");
    }

    #[test]
    fn buckets_are_compared_in_the_columns_that_both_have() {
        let raw = |value: Value| RawValue::from_string(value.to_string()).unwrap();
        let differences = Differences {
            buckets_were: vec![
                raw(json!({ "id": "same", "public": false })),
                raw(json!({ "id": "open", "public": false })),
                raw(json!({ "id": "gone", "public": false })),
            ],
            buckets_live: vec![
                raw(json!({ "id": "same", "public": false, "versioning_status": "DISABLED" })),
                raw(json!({ "id": "open", "public": true })),
                raw(json!({ "id": "new", "public": true })),
            ],
            ..Differences::default()
        };
        let plan = decide(differences.clone(), &Scope::Everything);
        let found: Vec<_> =
            plan.buckets.iter().map(|one| (one.id.as_str(), one.is_missing, one.is_changed)).collect();
        assert_eq!(found, [("same", false, false), ("open", false, true), ("gone", true, false)]);
        assert_eq!(plan.added_buckets, ["new"]);
        let none = decide(differences, &Scope::Only(Touched::default()));
        // A bucket that somebody else changed is to stay as it is now.
        assert_eq!(none.buckets[1].wanted.get(), r#"{"id":"open","public":true}"#);
        assert!(none.is_empty() && none.buckets.len() == 2 && none.added_buckets.is_empty());
    }
}
