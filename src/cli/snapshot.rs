//! `supa-safe snapshot`: take evidence now, and verify it.

use super::done::{Broken, Done};
use super::open::{self, Opened};
use super::signals::Signals;
use super::{Setting, TargetArgs, fail};
use crate::evidence::{self, Want};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::{ComponentName, ComponentState};
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
    /// Capture these components only; the database is one of them always
    #[arg(long, value_delimiter = ',', value_name = "COMPONENT")]
    only: Vec<Only>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    Database,
    Storage,
    Functions,
    Secrets,
    Config,
}

impl Only {
    fn component(self) -> Option<ComponentName> {
        match self {
            Self::Database => None,
            Self::Storage => Some(ComponentName::Storage),
            Self::Functions => Some(ComponentName::Functions),
            Self::Secrets => Some(ComponentName::Secrets),
            Self::Config => Some(ComponentName::Config),
        }
    }
}

/// What `--only` means; a snapshot without a database would be none.
fn wanted(only: &[Only]) -> Result<Option<Vec<ComponentName>>, Failure> {
    if only.is_empty() {
        return Ok(None);
    }
    if !only.contains(&Only::Database) {
        return Err(Failure::message(
            Exit::Usage,
            "a snapshot always holds the database, and `--only` leaves it out",
        )
        .hint("Add `database` to `--only`"));
    }
    Ok(Some(only.iter().filter_map(|only| only.component()).collect()))
}

pub(super) async fn run(setting: &Setting, args: SnapshotArgs) -> Result<Exit, Failure> {
    let want = Want { label: args.label, only: wanted(&args.only)? };
    let mut signals = Signals::take()?;
    let opened = open::open(setting, &args.target, None, &mut signals).await?;
    let outcome = signals.guard(Box::pin(take(&opened, want))).await;
    opened.close(setting, outcome).await
}

async fn take(opened: &Opened, want: Want) -> Result<Done, Broken> {
    let collected = evidence::collect(&opened.target, &opened.context, want, None)
        .await
        .map_err(|error| fail::evidence_failed(&error))?;
    let verified = verify::verify_collected(collected, &opened.context)
        .await
        .map_err(|error| fail::verify_failed(&error))?;
    if let Some(incomplete) = fail::incomplete(&verified.snapshot().manifest, &opened.policy.components) {
        return Err(incomplete);
    }
    let left_out = verified.snapshot().manifest.components.iter().any(|component| {
        component.state == ComponentState::LeftOut && opened.policy.components.contains(&component.name)
    });
    Ok(Done::of(&verified).closing(if left_out {
        "It holds a part only: `supa-safe migrate` takes a fresh snapshot of all that the policy requires"
    } else {
        "Next: `supa-safe migrate` pushes on the strength of it, as long as it is young enough"
    }))
}
