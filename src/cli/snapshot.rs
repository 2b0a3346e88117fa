//! `supa-safe snapshot`: take evidence now, and verify it.

use super::done::{Broken, Done};
use super::open::{self, Opened};
use super::signals::Signals;
use super::{Setting, TargetArgs, fail};
use crate::evidence;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::verify;
use clap::{Args, ValueEnum};

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// A word to know the snapshot by
    #[arg(long)]
    label: Option<String>,
    /// Components to capture; of a target given by URL there is only the database
    #[arg(long, value_delimiter = ',', value_name = "COMPONENT")]
    only: Vec<Only>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    Database,
}

pub(super) async fn run(setting: &Setting, args: SnapshotArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let opened = open::open(setting, &args.target, None, &mut signals).await?;
    let outcome = signals.guard(take(&opened, args.label)).await;
    opened.close(setting, outcome)
}

async fn take(opened: &Opened, label: Option<String>) -> Result<Done, Broken> {
    let snapshot = evidence::collect(&opened.target, &opened.context, label)
        .await
        .map_err(|error| fail::evidence_failed(&error))?;
    let verified =
        verify::verify(snapshot, &opened.context).await.map_err(|error| fail::verify_failed(&error))?;
    if let Some(incomplete) = fail::incomplete(&verified.snapshot().manifest) {
        return Err(incomplete);
    }
    Ok(Done::of(&verified)
        .closing("Next: `supa-safe migrate` pushes on the strength of it, as long as it is young enough"))
}
