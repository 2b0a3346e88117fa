//! What is decided, by example.

use super::*;
use crate::salvage::Mark;
use serde_json::json;

/// A row as `id place version`; the place is `bucket/key`.
fn row(text: &str) -> Row {
    let [id, place, version] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (bucket, key) = place.split_once('/').unwrap();
    serde_json::from_value(json!({ "id": id, "bucket_id": bucket, "name": key, "version": version })).unwrap()
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

/// The plan in short: changes by id, then who is displaced (-), withdrawn (~), added (+), and left (=).
fn short(plan: &Plan) -> Vec<String> {
    let items = plan.items.iter().map(|item| format!("{} {:?}", item.was.id, item.change));
    let rows = |sign: &str, rows: &[Row]| -> Vec<String> {
        rows.iter().map(|row| format!("{sign}{}", row.id)).collect()
    };
    let left = plan.left.iter().map(|left| format!("={} {:?}", left.object, left.why));
    let gone = rows("-", &plan.displaced).into_iter().chain(rows("~", &plan.withdrawn));
    items.chain(gone).chain(rows("+", &plan.added)).chain(left).collect()
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
    let only = |removed: &[&str], changed: &[(&str, &str)], added: &[(&str, &str)]| {
        let marks = removed.iter().map(|id| ((*id).to_owned(), Mark::Removed));
        let changed = changed.iter().map(|(id, columns)| {
            let columns = columns.split(' ').map(str::to_owned).collect();
            ((*id).to_owned(), Mark::Changed(columns))
        });
        let place = |(bucket, key): &(&str, &str)| ((*bucket).to_owned(), (*key).to_owned());
        Scope::Only(Touched {
            objects: marks.chain(changed).collect(),
            added: added.iter().map(place).collect(),
            ..Touched::default()
        })
    };
    let then = ["1 b/a v1", "2 b/b v2", "3 b/c v3"];
    let now = ["1 b/y v1", "3 b/z v9", "4 b/d v4"];
    assert_eq!(
        short(&plan(&then, &now, &only(&[], &[("1", "name updated_at"), ("2", "owner")], &[]))),
        ["1 MovedBySql", "=`b/b` NotTouched", "=`b/c` NotTouched", "=`b/d` NotTouched"]
    );
    assert_eq!(
        short(&plan(&then, &now, &only(&["2"], &[], &[("b", "d")]))),
        ["2 Absent", "~4", "=`b/a` NotTouched", "=`b/c` NotTouched"]
    );
    // What the API wrote over stays, and what SQL renamed first goes back.
    assert_eq!(
        short(&plan(&["1 b/a v1"], &["1 b/a v9"], &only(&[], &[("1", "metadata")], &[]))),
        ["=`b/a` NotTouched"]
    );
    assert_eq!(
        short(&plan(&["1 b/a v1"], &["1 b/z v9"], &only(&[], &[("1", "name")], &[]))),
        ["1 MovedByApi"]
    );
    // Somebody moved an object to a key that has to come back: it goes back too, and so does what
    // is in its own way.
    let now = ["2 b/a v8", "3 b/b v9"];
    assert_eq!(
        short(&plan(&then, &now, &only(&["1"], &[], &[]))),
        ["1 Absent", "2 MovedByApi", "3 MovedByApi"]
    );
}

#[test]
fn of_what_somebody_wrote_since_only_columns_go_back() {
    let mut then = was("1 b/a v1", State::Ok);
    then.owner_id = Some("owner".to_owned());
    let columns = BTreeSet::from(["owner_id", "updated_at", "metadata"].map(str::to_owned));
    let touched =
        Touched { objects: [("1".to_owned(), Mark::Changed(columns))].into(), ..Touched::default() };
    let differences = Differences { was: vec![then], live: vec![row("1 b/a v9")], ..Differences::default() };
    let plan = decide(differences, &Scope::Only(touched));
    assert_eq!(short(&plan), ["=`b/a` NotTouched"]);
    assert_eq!(plan.merged[0].columns, BTreeSet::from(["owner_id".to_owned()]));
    assert_eq!(plan.left_counts(), [("overwritten", 1)].into());
}

#[test]
fn what_differs_on_the_copy_is_what_the_migration_did() {
    let raw = |value: Value| RawValue::from_string(value.to_string()).unwrap();
    let bucket =
        |id: &str, public: bool, limit: u64| raw(json!({ "id": id, "public": public, "limit": limit }));
    let differences = Differences {
        was: vec![was("1 b/a v1", State::Ok), was("2 b/b v2", State::Ok)],
        live: vec![row("1 b/z v1"), row("9 b/n v")],
        buckets_were: vec![bucket("b", false, 1), bucket("c", false, 1)],
        buckets_live: vec![bucket("b", true, 1), bucket("n", true, 1)],
    };
    let touched = Touched::of(&differences);
    let only = |name: &str| Mark::Changed([name.to_owned()].into());
    let expected = Touched {
        objects: [("1".to_owned(), only("name")), ("2".to_owned(), Mark::Removed)].into(),
        added: [("b".to_owned(), "n".to_owned())].into(),
        buckets: [("b".to_owned(), only("public")), ("c".to_owned(), Mark::Removed)].into(),
        added_buckets: ["n".to_owned()].into(),
    };
    assert_eq!(touched, expected);
    // Somebody set another limit since, and it stays.
    let now = Differences { buckets_live: vec![bucket("b", true, 7), bucket("n", true, 1)], ..differences };
    let plan = decide(now, &Scope::Only(touched));
    let wanted: Vec<&str> = plan.buckets.iter().map(|one| one.wanted.get()).collect();
    assert_eq!(wanted, [r#"{"id":"b","limit":7,"public":false}"#, r#"{"id":"c","limit":1,"public":false}"#]);
    assert_eq!((plan.withdrawn.len(), plan.withdrawn_buckets), (1, vec!["n".to_owned()]));
}

#[test]
fn what_was_not_captured_is_not_made_up() {
    let check = |state: State, now: &str, expected: &str| {
        let differences =
            Differences { was: vec![was("1 b/a v1", state)], live: vec![row(now)], ..Differences::default() };
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
