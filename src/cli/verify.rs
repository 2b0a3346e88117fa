//! `supa-safe verify`: prove a snapshot again, by reading it back or by restoring it.

use super::done::{Broken, Done};
use super::open::{self, Opened};
use super::signals::Signals;
use super::{Setting, TargetArgs, evidence, fail, snapshot_id};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::rehearse;
use crate::verify;
use clap::Args;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The snapshot; the newest one without it
    #[arg(value_parser = snapshot_id)]
    id: Option<SnapshotId>,
    #[command(flatten)]
    target: TargetArgs,
    /// Restore it into a scratch server on this machine and compare everything
    #[arg(long)]
    restore: bool,
}

pub(super) async fn run(setting: &Setting, args: VerifyArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let opened = open::open(setting, &args.target, None, &mut signals).await?;
    let outcome = signals.guard(Box::pin(prove(&opened, &args))).await;
    opened.close(setting, outcome).await
}

async fn prove(opened: &Opened, args: &VerifyArgs) -> Result<Done, Broken> {
    evidence::share(opened).await?;
    let snapshot = opened.snapshot(args.id.as_ref())?;
    let verified =
        verify::verify(snapshot, &opened.context).await.map_err(|error| fail::verify_failed(&error))?;
    if !args.restore {
        return Ok(Done::of(&verified).closing("`supa-safe verify --restore` proves it by restoring it"));
    }
    let verified =
        rehearse::prove(verified, &opened.context).await.map_err(|error| fail::rehearse_failed(&error))?;
    Ok(Done::of(&verified))
}
