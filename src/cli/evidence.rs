//! Which snapshot a push leans on: one that stands and holds, or a fresh one.

use super::bucket;
use super::done::Broken;
use super::fail;
use super::open::{Opened, pick};
use super::prepare::{Live, Prepared};
use crate::event::Event;
use crate::evidence::{self, secrets};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory;
use crate::manifest::{Component, ComponentState, SnapshotId, Strength};
use crate::policy::{Facts, Finding, Missing, Policy, Rule, SnapshotFacts, judge};
use crate::postgres::identity;
use crate::quiesce::Pause;
use crate::resolve;
use crate::store::{self, Snapshot, Store};
use crate::verify::{self, Verified};
use jiff::Timestamp;
use serde_json::Value;

/// The target's clock.
pub(super) async fn target_clock(opened: &Opened) -> Result<Timestamp, Failure> {
    let session = resolve::reopen(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
    let now = identity::clock(&session.client).await.map_err(fail::failed(Exit::Error));
    session.close().await;
    now
}

/// What the judge is told of a snapshot that was read back.
pub(super) fn snapshot_facts(opened: &Opened, verified: &Verified) -> Result<SnapshotFacts, Failure> {
    recorded_facts(&opened.context.store, verified.snapshot(), verified.strength())
}

/// What the records say of a snapshot.
pub(super) fn recorded_facts(
    store: &Store,
    snapshot: &Snapshot,
    strength: Strength,
) -> Result<SnapshotFacts, Failure> {
    let manifest = &snapshot.manifest;
    let entries = secrets::of(snapshot).map_err(fail::failed(Exit::Error))?;
    let confirmed = store.confirmed_secrets().map_err(fail::failed(Exit::Error))?;
    Ok(SnapshotFacts {
        id: manifest.id.clone(),
        identity: manifest.identity.clone(),
        taken_at: manifest.taken.target_clock,
        rolled_back: rolled_back_since(store, &manifest.id).map_err(fail::failed(Exit::Error))?,
        strength,
        broken: Vec::new(),
        missing: missing(&manifest.components),
        secrets: inventory::compare(&entries, &confirmed),
        gaps: manifest.database.gaps.clone(),
    })
}

/// The run that rolled the database back since a snapshot was taken. Of one whose taking is not on record, nothing
/// tells that it came later.
fn rolled_back_since(store: &Store, id: &SnapshotId) -> Result<Option<String>, store::Error> {
    for run in store.runs()?.into_iter().rev() {
        for event in store.run_lines(&run)?.iter().rev() {
            let is_of = |name: &str| event["type"] == name;
            if is_of("snapshot-taken") && event["snapshot"] == id.as_str() {
                return Ok(None);
            }
            if is_of("rolled-back") && event["database"] != Value::Bool(false) {
                return Ok(Some(run));
            }
        }
    }
    Ok(None)
}

/// What components lack.
fn missing(components: &[Component]) -> Vec<Missing> {
    let lacks = |component: &Component| {
        let what = match component.state {
            ComponentState::Complete | ComponentState::NotApplicable => Vec::new(),
            ComponentState::LeftOut => vec![format!("the component `{}`", component.name)],
            ComponentState::Incomplete => component.missing.clone(),
        };
        let name = component.name;
        what.into_iter().map(move |what| Missing { component: name, what })
    };
    components.iter().flat_map(lacks).collect()
}

/// The facts about evidence, before anything is rehearsed.
pub(super) fn evidence_facts(
    opened: &Opened,
    prepared: &Prepared,
    verified: &Verified,
) -> Result<Facts, Failure> {
    Ok(Facts {
        target: opened.target.identity.clone(),
        snapshot: Some(snapshot_facts(opened, verified)?),
        edited: prepared.edited.clone(),
        sessions: Vec::new(),
        push: None,
    })
}

/// The policy before the rehearsal, which proves more than `decoded` by itself.
pub(super) fn before_rehearsal(policy: &Policy) -> Policy {
    Policy { strength: policy.strength.min(Strength::Decoded), ..policy.clone() }
}

/// What a snapshot lacks for a push to the target as it is now, in words.
pub(super) fn outdated(verified: &Verified, live: &Live) -> Option<String> {
    let database = &verified.snapshot().manifest.database;
    if database.history != live.history {
        return Some("the migration history has changed since it was taken".to_owned());
    }
    (database.owned_digest != live.owned_digest)
        .then(|| "the schema of the target has changed since it was taken".to_owned())
}

/// Leaves in the store what an earlier run took and could not leave there.
pub(super) async fn share(opened: &Opened) -> Result<(), Failure> {
    opened.context.share().await.map(drop).map_err(|error| bucket::store_failed(&error))
}

/// A snapshot on disk that satisfies every rule of evidence, or a fresh one.
pub(super) async fn choose(
    opened: &Opened,
    prepared: &Prepared,
    wanted: Option<&SnapshotId>,
) -> Result<Verified, Broken> {
    share(opened).await?;
    if let Some(id) = wanted {
        let snapshot = pick(&opened.context.store, Some(id))?;
        let verified =
            verify::accept(snapshot, &opened.context).await.map_err(|error| fail::verify_failed(&error))?;
        return judged(opened, prepared, verified).await;
    }
    if let Some(verified) = standing(opened, prepared).await? {
        return Ok(verified);
    }
    let fresh = take(opened, None).await?;
    judged(opened, prepared, fresh).await
}

/// Takes and verifies a fresh snapshot.
pub(super) async fn take(opened: &Opened, pause: Option<&Pause<'_>>) -> Result<Verified, Broken> {
    let collected = evidence::collect(&opened.target, &opened.context, evidence::Want::default(), pause)
        .await
        .map_err(|error| fail::evidence_failed(&error))?;
    verify::verify_collected(collected, &opened.context).await.map_err(|error| fail::verify_failed(&error))
}

/// Passes a snapshot on, or refuses with the rules that it does not satisfy.
async fn judged(opened: &Opened, prepared: &Prepared, verified: Verified) -> Result<Verified, Broken> {
    let now = target_clock(opened).await?;
    let facts = evidence_facts(opened, prepared, &verified)?;
    let mut findings = judge(&before_rehearsal(&opened.policy), &facts, now);
    if let Some(why) = outdated(&verified, &prepared.live) {
        findings.push(outdated_finding(&verified, &why));
    }
    if findings.iter().any(|finding| finding.refuses) {
        return Err(fail::refused(findings));
    }
    for finding in findings {
        opened.context.warn(finding.to_string());
    }
    Ok(verified)
}

fn outdated_finding(verified: &Verified, why: &str) -> Finding {
    Finding {
        rule: Rule::NotRehearsed,
        fact: format!("snapshot {}: {why}", verified.snapshot().id()),
        fix: "run `supa-safe migrate`, which takes a fresh snapshot".to_owned(),
        refuses: true,
    }
}

/// The newest snapshot on disk, when it holds; set aside with the reason when it does not.
async fn standing(opened: &Opened, prepared: &Prepared) -> Result<Option<Verified>, Broken> {
    let context = &opened.context;
    let Some(id) = context.store.ids().map_err(fail::failed(Exit::Error))?.into_iter().next() else {
        return Ok(None);
    };
    let set_aside = |rule: Rule, fact: String| {
        context.tell(&Event::SetAside { snapshot: id.clone(), rule: rule.code().to_owned(), fact });
        None
    };
    let snapshot = match context.store.load(&id) {
        Ok(snapshot) => snapshot,
        Err(error) => match error.damage() {
            Some(what) => return Ok(set_aside(Rule::Digests, what)),
            None => return Err(Failure::new(Exit::Error, &error).into()),
        },
    };
    let verified = match verify::accept(snapshot, context).await {
        Ok(verified) => verified,
        Err(error @ verify::Error::Damaged { .. }) => return Ok(set_aside(Rule::Digests, error.to_string())),
        Err(error) => return Err(fail::verify_failed(&error)),
    };
    let now = target_clock(opened).await?;
    // What is wrong with the files is no reason to distrust the snapshot.
    let facts = Facts { edited: Vec::new(), ..evidence_facts(opened, prepared, &verified)? };
    let findings = judge(&before_rehearsal(&opened.policy), &facts, now);
    let (of_secrets, refusals): (Vec<Finding>, Vec<Finding>) = findings
        .into_iter()
        .filter(|finding| finding.refuses)
        .partition(|finding| finding.rule == Rule::SecretsNotConfirmed);
    if let Some(finding) = refusals.into_iter().next() {
        return Ok(set_aside(finding.rule, finding.fact));
    }
    if let Some(why) = outdated(&verified, &prepared.live) {
        return Ok(set_aside(Rule::NotRehearsed, why));
    }
    // A fresh snapshot would not change either.
    if !prepared.edited.is_empty() || !of_secrets.is_empty() {
        return judged(opened, prepared, verified).await.map(Some);
    }
    context.note(format!("snapshot {id} is young enough and {}: no new one is needed", verified.strength()));
    Ok(Some(verified))
}
