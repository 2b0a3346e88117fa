//! `supa-safe rehearse`: restore, apply the pending migrations to the copy, and report.

use super::done::{Broken, Done};
use super::open::{self, Opened};
use super::prepare::{self, PushFlags};
use super::signals::Signals;
use super::staging::{self, How};
use super::{RUN, Setting, TargetArgs, evidence, fail, snapshot_id};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::rehearse;
use crate::runbook;
use crate::ui::WayBack;
use clap::Args;

/// Arguments of `rehearse`.
#[derive(Debug, Args)]
pub(super) struct RehearseArgs {
    /// The snapshot; without it the newest one that holds, or a fresh one
    #[arg(value_parser = snapshot_id)]
    id: Option<SnapshotId>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    push: PushFlags,
    /// Where to rehearse: `auto` (as the policy says), `container`, `local` (the Postgres of this machine), or
    /// the URL of a staging server
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = staging::place, help_heading = RUN)]
    rehearse: How,
}

pub(super) async fn run(setting: &Setting, args: RehearseArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let mut opened = open::open(setting, &args.target, None, &mut signals).await?;
    if let Err(failure) = staging::heed(setting, &mut opened, &args.rehearse) {
        return opened.close(setting, Err(failure.into())).await;
    }
    let outcome = signals.guard(Box::pin(rehearse(setting, &opened, &args))).await;
    opened.close(setting, outcome).await
}

async fn rehearse(setting: &Setting, opened: &Opened, args: &RehearseArgs) -> Result<Done, Broken> {
    let prepared = prepare::prepare(setting, opened, args.push).await?;
    if prepared.pending.is_empty() {
        return Ok(Done::nothing(opened));
    }
    staging::check(opened, &args.rehearse).await?;
    let base = evidence::choose(opened, &prepared, args.id.as_ref()).await?;
    let subject = prepared.subject(opened);
    let (base, rehearsed) = rehearse::rehearse(base, &subject, &opened.context)
        .await
        .map_err(|error| fail::rehearsal_broken(&error))?;
    let runbook = runbook::write(base.snapshot(), Some(&rehearsed)).map_err(fail::failed(Exit::Error))?;
    let mut done = Done::of(&base);
    done.summary.runbook = Some(runbook.path().display().to_string());
    let record = rehearsed.record();
    done.summary.limits.extend(record.limits.clone());
    done.summary.way_back = Some(WayBack::new(record, std::iter::empty()));
    done.summary.not_applied =
        prepared.pending.migrations.iter().map(|file| file.file_name.clone()).collect();
    Ok(done.closing(
        "Rehearsed; the target was not touched. `supa-safe migrate` pushes without rehearsing again",
    ))
}
