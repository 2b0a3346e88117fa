//! Which snapshot to go back to, and whose migrations go.

use super::Mode;
use crate::event::{Reached, Step};
use crate::manifest::SnapshotId;
use jiff::Timestamp;
use serde_json::Value;

/// A push on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The run that pushed.
    pub run: String,
    /// The snapshot that its clearance was bound to.
    pub snapshot: SnapshotId,
    /// Its files.
    pub files: Vec<String>,
    /// Versions in the history before it.
    pub history: Vec<String>,
    /// Digest of what decided what it did, where its record tells.
    pub pending_digest: Option<String>,
}

/// A transaction of a rollback whose end is not on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// The run that began it.
    pub run: String,
    /// The snapshot that it went back to.
    pub snapshot: SnapshotId,
    /// The transaction's id.
    pub transaction: String,
    /// Whether the commit is known to have been asked for.
    pub is_committing: bool,
    /// Whether the database went back, or Storage alone.
    pub database: bool,
    /// How much went back.
    pub mode: Mode,
    /// Versions that went from the history.
    pub versions: Vec<String>,
    /// The machine that has its files, and where.
    pub place: Option<(String, String)>,
    /// When that was, by that machine's clock.
    pub at: Option<Timestamp>,
    /// How far it came, or a later run that went on with it, as far as that is on record.
    pub reached: Option<Reached>,
}

impl Unsettled {
    /// Reads the record of a run. One that ended by itself knew whether it had touched the target.
    fn read(run: &str, events: &[Value]) -> Option<Self> {
        let of_type = |name: &str| events.iter().rfind(|event| event["type"] == name);
        if of_type("summary").is_some_and(|summary| summary["target_touched"] == Value::Bool(false)) {
            return None;
        }
        let (begun, rolling_back) = (of_type("rollback-begun"), of_type("rolling-back"));
        let event = begun.or(rolling_back)?;
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let transaction = text("transaction")?;
        Some(Self {
            run: run.to_owned(),
            snapshot: text("snapshot")?.parse().ok()?,
            is_committing: rolling_back.is_some_and(|event| event["transaction"] == transaction.as_str()),
            transaction,
            database: event["database"] != Value::Bool(false),
            mode: serde_json::from_value(event["mode"].clone()).unwrap_or(Mode::Whole),
            versions: texts(event, "versions"),
            place: text("host").zip(text("folder")),
            at: text("at").and_then(|at| at.parse().ok()),
            reached: reached(events),
        })
    }
}

/// The last word of a run on how far its rollback is.
fn reached(events: &[Value]) -> Option<Reached> {
    let last = events.iter().rfind(|event| event["type"] == "rollback-step")?;
    serde_json::from_value(last.clone()).ok()
}

/// The same of a run that went on with the rollback of an earlier one, and began none of its own.
fn went_on(events: &[Value]) -> Option<Reached> {
    let is_own = events.iter().any(|event| event["type"] == "rollback-begun");
    reached(events).filter(|reached| !is_own && reached.step >= Step::MoveObjects)
}

/// What the records of the runs say, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The last push that no rollback took back.
    pub pushed: Option<Pushed>,
    /// The push that the last rollback took back.
    pub undone: Option<Pushed>,
    /// The pushes before these that no rollback took back.
    pub earlier: Vec<Pushed>,
    /// A rollback that was cut off.
    pub unsettled: Option<Unsettled>,
    /// The snapshot that the last rollback went back to, when no push came after it.
    pub rolled_back: Option<SnapshotId>,
}

impl Past {
    /// Reads the records of runs, the newest first.
    pub fn read(runs: impl IntoIterator<Item = (String, Vec<Value>)>) -> Self {
        let mut past = Self::default();
        // Every rollback settles first what an earlier one left open.
        let mut is_settled = false;
        let mut is_before_a_push = false;
        let mut further = None;
        // A rollback takes back every push down to the one that leaned on its snapshot.
        let mut undoing: Option<SnapshotId> = None;
        for (run, events) in runs {
            let last = |name: &str| events.iter().rposition(|event| event["type"] == name);
            let snapshot = |event: &Value| event["snapshot"].as_str()?.parse::<SnapshotId>().ok();
            // What a run finished of another one comes before what it began itself.
            let (done, pushed) = (last("rolled-back"), last("delegating"));
            if !is_before_a_push {
                let rest = events.get(done.map_or(0, |at| at + 1)..).unwrap_or_default();
                if past.unsettled.is_none() && !is_settled {
                    further = further.or_else(|| went_on(rest));
                    let unsettled = Unsettled::read(&run, rest);
                    past.unsettled = unsettled
                        .map(|unsettled| Unsettled { reached: further.or(unsettled.reached), ..unsettled });
                }
                is_settled |= done.is_some();
            }
            let done = done.and_then(|at| events.get(at));
            if let Some(snapshot) =
                done.filter(|event| event["database"] != Value::Bool(false)).and_then(snapshot)
            {
                if !is_before_a_push && past.rolled_back.is_none() {
                    past.rolled_back = Some(snapshot.clone());
                }
                undoing = Some(snapshot);
            }
            let Some(event) = pushed.and_then(|at| events.get(at)) else { continue };
            let pushed = snapshot(event).map(|snapshot| Pushed {
                run,
                snapshot,
                files: texts(event, "files"),
                history: texts(event, "history"),
                pending_digest: event["pending_digest"].as_str().map(str::to_owned),
            });
            let is_undone = undoing.is_some();
            undoing = undoing.filter(|to| pushed.as_ref().is_none_or(|pushed| pushed.snapshot != *to));
            if is_before_a_push {
                past.earlier.extend(pushed.filter(|_| !is_undone));
            } else if past.rolled_back.is_some() {
                past.undone = pushed;
            } else {
                past.pushed = pushed;
            }
            is_before_a_push = true;
        }
        past
    }
}

impl Past {
    /// Takes one that stood as settled: what was pushed before it is taken back.
    pub fn settle(&mut self, unsettled: &Unsettled) {
        self.unsettled = None;
        if unsettled.database {
            self.rolled_back = Some(unsettled.snapshot.clone());
            self.undone = self.pushed.take().or(self.undone.take());
        }
    }
}

fn texts(event: &Value, name: &str) -> Vec<String> {
    let list = event.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// What goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The versions that go from the history.
    pub versions: Vec<String>,
    /// The files of the push that is taken back, when one is on record: none where it was one of seeds or roles.
    pub files: Vec<String>,
    /// Digest of what decided what that push did, where its record tells.
    pub pending_digest: Option<String>,
    /// Whether a push is on record.
    pub is_pushed: bool,
    /// Versions of somebody else's that stay, where Storage goes back alone.
    pub foreign: Vec<String>,
}

impl Choice {
    /// Whether every version that goes is of the push whose files these are: its rehearsal says nothing of
    /// what others wrote.
    pub fn is_of_one_push(&self) -> bool {
        let own: Vec<String> = self.files.iter().map(|file| version(file)).collect();
        self.versions.iter().all(|version| own.contains(version))
    }

    /// Whether a file of the push stands: the others never ran to their end, or went back already.
    pub fn stands(&self, file: &str) -> bool {
        self.versions.contains(&version(file))
    }

    /// Whether some file of the push does not stand.
    pub fn is_partial(&self) -> bool {
        self.files.iter().any(|file| !self.stands(file))
    }

    /// Whether nothing is known that could be taken back.
    pub fn is_of_no_push(&self) -> bool {
        self.versions.is_empty() && !self.is_pushed
    }

    /// Whether no file of the push stands, nor anything else that would go from the history.
    pub fn is_void(&self) -> bool {
        self.versions.is_empty() && self.is_partial()
    }
}

/// Why nothing is taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The last push is taken back already.
    #[error("the last push was taken back already, to snapshot {0}")]
    Already(SnapshotId),
    /// The snapshot has what is to be taken back.
    #[error("snapshot {snapshot} already holds {}: it was taken after the push", .versions.join(", "))]
    TakenAfter {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The versions.
        versions: Vec<String>,
        /// The one that the push leaned on, when another one was asked for.
        right: Option<SnapshotId>,
    },
    /// The push left nothing behind.
    #[error(
        "nothing of the last push stands: the history and everything that the schema owns are as in snapshot {0}"
    )]
    NothingStands(SnapshotId),
    /// Nothing was pushed.
    #[error(
        "no push is on record, and the history and everything that the schema owns are as in snapshot {0}"
    )]
    NothingPushed(SnapshotId),
    /// Somebody else pushed since.
    #[error("the target's history holds {}, which neither the snapshot nor a push on record knows", .0.join(", "))]
    Foreign(Vec<String>),
    /// The history lacks what the snapshot has.
    #[error("the target's history lacks {}, which the snapshot has", .0.join(", "))]
    Lost(Vec<String>),
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The snapshot, and the versions that it holds.
    pub snapshot: Option<(SnapshotId, Vec<String>)>,
    /// Versions of somebody else's that go too.
    pub also: Vec<String>,
    /// Whether Storage goes back alone: the history stays, whoever wrote it.
    pub storage_alone: bool,
}

/// Chooses; `bound` is the snapshot without a name and the versions that it holds, `live` are those of the
/// target now.
pub fn choose(
    past: &Past,
    asked: Asked,
    bound: Option<(SnapshotId, Vec<String>)>,
    live: &[String],
) -> Result<Option<Choice>, Refusal> {
    let Asked { snapshot: wanted, also, storage_alone } = asked;
    let is_default = wanted.is_none();
    if !storage_alone
        && is_default
        && let Some(snapshot) = &past.rolled_back
    {
        return Err(Refusal::Already(snapshot.clone()));
    }
    let Some((snapshot, recorded)) = wanted.or(bound) else { return Ok(None) };
    let pushed = past.pushed.as_ref();
    let own: Vec<String> =
        pushed.into_iter().flat_map(|pushed| &pushed.files).map(|file| version(file)).collect();
    let held: Vec<String> = own.iter().filter(|version| recorded.contains(version)).cloned().collect();
    if !held.is_empty() {
        let right = pushed.map(|pushed| pushed.snapshot.clone()).filter(|_| !is_default);
        return Err(Refusal::TakenAfter { snapshot, versions: held, right });
    }
    let lost: Vec<String> = recorded.iter().filter(|version| !live.contains(version)).cloned().collect();
    if !lost.is_empty() && !storage_alone {
        return Err(Refusal::Lost(lost));
    }
    let mut versions: Vec<String> =
        live.iter().filter(|version| !recorded.contains(version)).cloned().collect();
    // Who names a snapshot takes back every push since.
    let earlier = past.earlier.iter().filter(|_| !is_default);
    let on_record: Vec<&Pushed> = pushed.into_iter().chain(earlier).collect();
    let is_known = |version: &String| {
        on_record.iter().flat_map(|pushed| &pushed.files).any(|file| self::version(file) == *version)
    };
    let foreign: Vec<String> =
        versions.iter().filter(|version| !is_known(version) && !also.contains(version)).cloned().collect();
    if storage_alone {
        versions.retain(|version| !foreign.contains(version));
    } else if !foreign.is_empty() {
        return Err(Refusal::Foreign(foreign));
    }
    let leaned_on = on_record.iter().find(|pushed| pushed.snapshot == snapshot);
    let meant = pushed.or(leaned_on.copied()).or(past.undone.as_ref());
    let files = meant.map(|pushed| pushed.files.clone()).unwrap_or_default();
    if storage_alone && pushed.is_none() && leaned_on.is_none() {
        // The database went back, and what the push did to Storage may still be there.
        versions = files.iter().map(|file| version(file)).collect();
    }
    let pending_digest = meant.and_then(|pushed| pushed.pending_digest.clone());
    Ok(Some(Choice { snapshot, versions, files, pending_digest, is_pushed: meant.is_some(), foreign }))
}

/// The version of a file, which its name begins with.
fn version(file: &str) -> String {
    file.split('_').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(day: u32) -> SnapshotId {
        format!("202611{day:02}T000000Z-000000").parse().unwrap()
    }

    fn push(run: &str, day: u32, file: &str) -> (String, Vec<Value>) {
        let event = json!({ "type": "delegating", "snapshot": id(day), "files": [file], "history": ["1"] });
        (run.to_owned(), vec![event])
    }

    fn asked(snapshot: Option<(SnapshotId, Vec<String>)>, also: Vec<String>) -> Asked {
        Asked { snapshot, also, storage_alone: false }
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn the_last_push_is_taken_back_and_once() {
        let past =
            Past::read([("c".to_owned(), vec![]), push("b", 2, "2_two.sql"), push("a", 1, "1_one.sql")]);
        assert_eq!(past.pushed.as_ref().unwrap().run, "b");
        let bound = Some((id(2), words("1")));
        let choice = choose(&past, Asked::default(), bound.clone(), &words("1 2")).unwrap().unwrap();
        assert_eq!((&choice.snapshot, &choice.versions), (&id(2), &words("2")));
        assert!(choice.stands("2_two.sql") && !choice.is_partial());
        // Nothing of it stands, but something else may.
        let choice = choose(&past, Asked::default(), bound, &words("1")).unwrap().unwrap();
        assert_eq!(choice.versions, words(""));
        assert!(choice.is_void() && choice.is_partial() && !choice.stands("2_two.sql"));

        let done = json!({ "type": "rolled-back", "snapshot": id(2) });
        let past = Past::read([("c".to_owned(), vec![done]), push("b", 2, "2_two.sql")]);
        assert_eq!(choose(&past, Asked::default(), None, &words("1")), Err(Refusal::Already(id(2))));
        let choice =
            choose(&past, asked(Some((id(2), words("1"))), Vec::new()), None, &words("1")).unwrap().unwrap();
        assert_eq!(choice.snapshot, id(2));
    }

    #[test]
    fn what_somebody_else_pushed_is_named() {
        let past = Past::read([push("b", 2, "2_two.sql")]);
        let bound = || Some((id(2), words("1")));
        assert_eq!(
            choose(&past, Asked::default(), bound(), &words("1 2 3")),
            Err(Refusal::Foreign(words("3")))
        );
        let choice = choose(&past, asked(None, words("3")), bound(), &words("1 2 3")).unwrap().unwrap();
        assert_eq!(choice.versions, words("2 3"));
        assert_eq!(choose(&past, Asked::default(), bound(), &words("2")), Err(Refusal::Lost(words("1"))));
        let after = Some((id(3), words("1 2")));
        let taken_after = |right| Err(Refusal::TakenAfter { snapshot: id(3), versions: words("2"), right });
        assert_eq!(choose(&past, Asked::default(), after.clone(), &words("1 2")), taken_after(None));
        // Neither is it when somebody asks for it.
        assert_eq!(choose(&past, asked(after, Vec::new()), None, &words("1 2")), taken_after(Some(id(2))));
    }

    #[test]
    fn storage_alone_goes_back_whoever_pushed_since() {
        let storage = |snapshot| Asked { snapshot, storage_alone: true, ..Asked::default() };
        let past = Past::read([push("b", 2, "2_two.sql")]);
        let bound = || Some((id(2), words("1")));
        let choice = choose(&past, storage(None), bound(), &words("1 2 3")).unwrap().unwrap();
        assert_eq!((&choice.versions, choice.is_partial()), (&words("2"), false));
        assert_eq!(choice.foreign, words("3"));
        // The database went back, and objects were left.
        let done = json!({ "type": "rolled-back", "snapshot": id(2) });
        let past = Past::read([("c".to_owned(), vec![done]), push("b", 2, "2_two.sql")]);
        for (asked, bound) in [(storage(None), bound()), (storage(bound()), None)] {
            for live in ["1", "1 2 3", "3"] {
                let choice = choose(&past, asked.clone(), bound.clone(), &words(live)).unwrap().unwrap();
                assert_eq!((&choice.snapshot, choice.stands("2_two.sql")), (&id(2), true), "{live}");
            }
        }
    }

    #[test]
    fn a_push_that_was_taken_back_is_known_no_more() {
        let done = json!({ "type": "rolled-back", "snapshot": id(2) });
        let past = Past::read([
            push("d", 4, "3_three.sql"),
            ("c".to_owned(), vec![done]),
            push("b", 2, "2_two.sql"),
            push("a", 1, "1_one.sql"),
        ]);
        assert_eq!(past.earlier.iter().map(|pushed| pushed.run.as_str()).collect::<Vec<_>>(), ["a"]);
        // Somebody else pushed its corrected file.
        let bound = Some((id(4), words("0 1")));
        let choice = choose(&past, Asked::default(), bound, &words("0 1 2 3"));
        assert_eq!(choice, Err(Refusal::Foreign(words("2"))));
        let choice = choose(&past, asked(Some((id(1), words("0"))), Vec::new()), None, &words("0 1 2 3"));
        assert_eq!(choice, Err(Refusal::Foreign(words("2"))));
        // Without a name it is the last push alone.
        let bound = Some((id(4), words("0")));
        let choice = choose(&past, Asked::default(), bound, &words("0 1 3"));
        assert_eq!(choice, Err(Refusal::Foreign(words("1"))));
    }

    #[test]
    fn pushes_before_the_last_one_are_known() {
        let done = json!({ "type": "rolled-back", "snapshot": id(2) });
        let past =
            Past::read([("c".to_owned(), vec![done]), push("b", 2, "2_two.sql"), push("a", 1, "1_one.sql")]);
        assert_eq!((&past.pushed, past.undone.as_ref().unwrap().run.as_str()), (&None, "b"));
        let to_first = Some((id(1), words("0")));
        let choice = choose(&past, asked(to_first, Vec::new()), None, &words("0 1")).unwrap().unwrap();
        assert_eq!((&choice.versions, &choice.files), (&words("1"), &words("1_one.sql")));
        // Both at once: no rehearsal says anything of both.
        let past = Past::read([push("b", 2, "2_two.sql"), push("a", 1, "1_one.sql")]);
        let choice = choose(&past, asked(Some((id(1), words("0"))), Vec::new()), None, &words("0 1 2"))
            .unwrap()
            .unwrap();
        assert_eq!(choice.versions, words("1 2"));
        assert!(!choice.is_of_one_push());
    }

    #[test]
    fn what_a_run_finished_comes_before_what_it_began() {
        let done = json!({ "type": "rolled-back", "snapshot": id(1) });
        let begun = json!({ "type": "rollback-begun", "snapshot": id(2), "transaction": "78" });
        let past = Past::read([("c".to_owned(), vec![done, begun]), push("b", 2, "2_two.sql")]);
        assert_eq!(past.unsettled.unwrap().transaction, "78");
        assert_eq!(past.rolled_back, Some(id(1)));
    }

    #[test]
    fn a_rollback_that_was_cut_off_is_found() {
        let begun = json!({ "type": "rolling-back", "snapshot": id(2), "transaction": "77" });
        let past = Past::read([("c".to_owned(), vec![begun]), push("b", 2, "2_two.sql")]);
        let unsettled = Unsettled {
            run: "c".to_owned(),
            snapshot: id(2),
            transaction: "77".to_owned(),
            is_committing: true,
            database: true,
            mode: Mode::Whole,
            versions: Vec::new(),
            place: None,
            at: None,
            reached: None,
        };
        assert_eq!(past.unsettled, Some(unsettled));
        assert!(past.pushed.is_some());
    }

    #[test]
    fn one_that_was_cut_off_before_its_commit_is_found_by_its_last_transaction() {
        let begun = |transaction: &str| {
            json!({
                "type": "rollback-begun", "snapshot": id(2), "transaction": transaction, "database": false,
                "mode": "touched", "versions": ["2"], "host": "h", "folder": "/f"
            })
        };
        let proved = json!({ "type": "rolling-back", "snapshot": id(2), "transaction": "77" });
        let read = |events: &[Value]| Past::read([("c".to_owned(), events.to_vec())]).unsettled;
        let unsettled = Unsettled {
            run: "c".to_owned(),
            snapshot: id(2),
            transaction: "78".to_owned(),
            is_committing: false,
            database: false,
            mode: Mode::Touched,
            versions: words("2"),
            place: Some(("h".to_owned(), "/f".to_owned())),
            at: None,
            reached: None,
        };
        assert_eq!(read(&[begun("77"), begun("78")]), Some(unsettled.clone()));
        let committing = Unsettled { is_committing: true, transaction: "77".to_owned(), ..unsettled };
        assert_eq!(read(&[begun("77"), proved]), Some(committing.clone()));
        let settled = json!({ "type": "rolled-back", "snapshot": id(2), "database": false });
        let runs = [("d".to_owned(), vec![settled]), ("c".to_owned(), vec![begun("77")])];
        assert_eq!(Past::read(runs), Past::default());
        let end = |touched: bool| json!({ "type": "summary", "target_touched": touched });
        assert_eq!(read(&[begun("77"), end(false)]), None);
        let ended = read(&[begun("77"), end(true)]).unwrap();
        assert_eq!(ended.transaction, committing.transaction);
    }

    #[test]
    fn how_far_a_rollback_came_is_known_of_the_last_run_that_went_on_with_it() {
        let begun = json!({ "type": "rollback-begun", "snapshot": id(2), "transaction": "77" });
        let step = |step: &str, done: u64| json!({ "type": "rollback-step", "step": step, "is_over": false, "parts": { "done": done, "of": 9 } });
        let reached = |runs: &[&[Value]]| {
            let named = runs.iter().zip(["d", "c", "b"]).map(|(run, name)| (name.to_owned(), run.to_vec()));
            let reached = Past::read(named).unsettled.unwrap().reached?;
            Some((reached.step, reached.parts.unwrap().done))
        };
        let first = [begun.clone(), step("lock", 1), step("bring-objects", 2)];
        assert_eq!(reached(&[&first[..1]]), None);
        assert_eq!(reached(&[&first]), Some((Step::BringObjects, 2)));
        assert_eq!(reached(&[&[step("bring-objects", 5)], &first]), Some((Step::BringObjects, 5)));
        assert_eq!(reached(&[&[], &[step("move-objects", 3)], &first]), Some((Step::MoveObjects, 3)));
        // It kept objects for a rollback of its own, and died before that began.
        assert_eq!(reached(&[&[step("keep-objects", 7)], &first]), Some((Step::BringObjects, 2)));
        let end = json!({ "type": "summary", "target_touched": false });
        let gave_up = [begun, step("lock", 8), end];
        assert_eq!(reached(&[&gave_up, &first]), Some((Step::BringObjects, 2)));
        // What a newer program writes is not known here.
        assert_eq!(reached(&[&[first[0].clone(), step("dance", 1)]]), None);
    }
}
