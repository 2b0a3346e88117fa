//! `supa-safe check`: the judge alone; nothing is collected, rehearsed, or changed.

use super::done::{Broken, Done};
use super::open::{self, Opened};
use super::prepare::{self, Prepared, PushFlags};
use super::signals::Signals;
use super::{RUN, Setting, TargetArgs, duration, evidence, fail, snapshot_id};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::policy::{Facts, PushFacts, Rehearsal, SnapshotFacts, WayBack, judge};
use crate::postgres::{identity, sessions};
use crate::rehearse::{self, Recalled};
use crate::resolve;
use crate::verify::{self, Verified};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use std::ffi::OsString;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) push: PushFlags,
    /// How old the snapshot may be, such as 15m
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = RUN)]
    pub(super) max_age: Option<SignedDuration>,
    /// Judge this snapshot instead of the newest one
    #[arg(long, value_parser = snapshot_id, value_name = "ID", help_heading = RUN)]
    pub(super) snapshot: Option<SnapshotId>,
    /// Judge what git is about to push: the line for a pre-push hook, which has git's words on stdin
    #[arg(long, help_heading = RUN)]
    pub(super) pre_push: bool,
    /// The remote's name and URL, as git gives them to the hook
    #[arg(requires = "pre_push", hide = true, num_args = 0..=2)]
    pub(super) pushed_to: Vec<OsString>,
}

pub(super) async fn run(setting: &Setting, args: CheckArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let opened = open::open(setting, &args.target, args.max_age, &mut signals).await?;
    let outcome = signals.guard(check(setting, &opened, &args)).await;
    opened.close(setting, outcome).await
}

async fn check(setting: &Setting, opened: &Opened, args: &CheckArgs) -> Result<Done, Broken> {
    let prepared = prepare::prepare(setting, opened, args.push).await?;
    let (now, sessions) = on_target(opened).await?;
    let (facts, verified) = facts(opened, &prepared, args.snapshot.as_ref()).await?;
    let findings = judge(&opened.policy, &Facts { sessions, ..facts }, now);
    if findings.iter().any(|finding| finding.refuses) {
        return Err(fail::refused(findings));
    }
    for finding in &findings {
        opened.context.warn(finding.to_string());
    }
    let mut done = verified.as_ref().map_or_else(|| Done::nothing(opened), Done::of);
    done.summary.findings = findings;
    Ok(done.closing("Every rule holds; `supa-safe migrate` would ask for the confirmation and push"))
}

/// What the evidence on disk says for a push of the pending files.
pub(super) async fn facts(
    opened: &Opened,
    prepared: &Prepared,
    wanted: Option<&SnapshotId>,
) -> Result<(Facts, Option<Verified>), Broken> {
    let (snapshot, verified) = newest(opened, wanted).await?;
    let push = match &verified {
        Some(verified) if !prepared.pending.is_empty() => Some(push_facts(opened, prepared, verified)?),
        _ => None,
    };
    let facts = Facts { snapshot, edited: prepared.edited.clone(), push, ..opened.no_facts() };
    Ok((facts, verified))
}

/// The target's clock, and the sessions there that forbid a push.
async fn on_target(opened: &Opened) -> Result<(Timestamp, Vec<String>), Failure> {
    let session = resolve::reopen(&opened.target).await.map_err(|error| fail::resolve_failed(&error))?;
    let now = identity::clock(&session.client).await.map_err(fail::failed(Exit::Error));
    let others = sessions::in_the_way(&session.client).await.map_err(fail::failed(Exit::Error));
    session.close().await;
    Ok((now?, others?.into_iter().map(|other| other.text).collect()))
}

/// The snapshot in question as the judge sees it, damaged ones included.
async fn newest(
    opened: &Opened,
    wanted: Option<&SnapshotId>,
) -> Result<(Option<SnapshotFacts>, Option<Verified>), Broken> {
    evidence::share(opened).await?;
    let store = &opened.context.store;
    let newest = store.ids().map_err(fail::failed(Exit::Error))?.into_iter().next();
    let Some(id) = wanted.cloned().or(newest) else { return Ok((None, None)) };
    let broken = |what: Vec<String>| SnapshotFacts {
        id: id.clone(),
        identity: opened.target.identity.clone(),
        taken_at: (opened.context.clock)(),
        rolled_back: None,
        strength: crate::manifest::Strength::Recorded,
        broken: what,
        missing: Vec::new(),
        secrets: Vec::new(),
        gaps: Vec::new(),
    };
    let snapshot = match store.load(&id) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            return match error.damage() {
                Some(what) => Ok((Some(broken(vec![what])), None)),
                None => Err(Failure::new(Exit::Error, &error).hint("Run `supa-safe list`").into()),
            };
        }
    };
    match verify::accept(snapshot, &opened.context).await {
        Ok(verified) => Ok((Some(evidence::snapshot_facts(opened, &verified)?), Some(verified))),
        Err(verify::Error::Damaged { what, .. }) => Ok((Some(broken(what)), None)),
        Err(error) => Err(fail::verify_failed(&error)),
    }
}

fn push_facts(opened: &Opened, prepared: &Prepared, verified: &Verified) -> Result<PushFacts, Failure> {
    let recalled = rehearse::recall(verified, &prepared.subject(opened), &opened.context)
        .map_err(|error| fail::rehearse_failed(&error))?;
    let mut changed = Vec::new();
    let mut way_back = WayBack::default();
    let rehearsal = match recalled {
        Recalled::Fits(rehearsed) => {
            way_back.not_exact = rehearsed.record().not_exact();
            let at = rehearsed.record().rehearsed_at;
            let passed = Rehearsal::Passed { at, age: (opened.context.clock)().duration_since(at) };
            evidence::outdated(verified, &prepared.live).map_or(passed, Rehearsal::Missing)
        }
        Recalled::OtherFiles => {
            changed.push("a pending file, a seed, roles.sql, or the configuration was changed".to_owned());
            Rehearsal::NotYet
        }
        Recalled::Not(why) => Rehearsal::Missing(why),
    };
    let (not_atomic, keeping) = (prepared.not_atomic(), opened.keeping);
    Ok(PushFacts { changed, not_atomic, rehearsal, way_back, keeping })
}
