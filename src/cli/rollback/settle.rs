//! A rollback of an earlier run that was cut off at its commit: what became of it, and the rest of it.

use super::words::standing_lines;
use super::{RollbackArgs, agreed, bring_bytes, not_done};
use crate::cli::Setting;
use crate::cli::bucket;
use crate::cli::done::{Broken, Done};
use crate::cli::fail;
use crate::cli::open::Opened;
use crate::cli::rollback::Part;
use crate::cli::signals::Signals;
use crate::delegate::TargetLock;
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::rollback::choice::{Past, Unsettled};
use crate::rollback::run::{self, Fate};
use crate::rollback::storage::{self, Salvaged};
use crate::ui::Summary;
use std::path::PathBuf;

/// One whose transaction stands.
pub(super) struct Standing {
    unsettled: Unsettled,
    folder: PathBuf,
    /// The objects of Storage that it was to bring back.
    objects: Option<Salvaged>,
}

/// Asks the server; nothing changes. `None` when nothing of it stands.
pub(super) async fn look(opened: &Opened, past: &Past) -> Result<Option<Standing>, Broken> {
    let Some(unsettled) = past.unsettled.clone() else { return Ok(None) };
    let context = &opened.context;
    context.warn(format!("run {} ended before it knew whether its rollback was committed", unsettled.run));
    let fate = run::fate(&opened.target, &unsettled.transaction).await.map_err(|error| not_done(&error))?;
    match fate {
        Fate::Committed => {}
        Fate::Aborted => {
            context.note("nothing of it stands: beginning again");
            return Ok(None);
        }
        Fate::InProgress => {
            return Err(Failure::message(Exit::Locked, "that rollback is still being committed")
                .hint("Wait a little, then run `supa-safe rollback` again")
                .into());
        }
        Fate::Unknown => {
            context.warn("the server has forgotten that transaction; the history of migrations decides");
            return Ok(None);
        }
    }
    let folder = context.store.rollback_dir(&unsettled.run);
    context.store.fetch_rollback(&unsettled.run).await.map_err(|error| bucket::store_failed(&error))?;
    let objects = storage::resume(context, &folder).await.map_err(|error| not_done(&error))?;
    let objects = objects.filter(|objects| !objects.saved().is_nothing());
    Ok(Some(Standing { unsettled, folder, objects }))
}

/// Brings the objects of Storage back that are left, once somebody has confirmed that, and says what stands.
pub(super) async fn finish(
    setting: &Setting,
    opened: &Opened,
    standing: Standing,
    (args, signals): (&RollbackArgs, &mut Signals),
) -> Result<Done, Broken> {
    let Standing { unsettled, folder, objects } = standing;
    let snapshot = unsettled.snapshot.clone();
    let summary = Summary { snapshot: Some(snapshot.clone()), ..Summary::new() };
    let first = format!("The rollback of run {} stands on {}", unsettled.run, opened.target.name());
    let Some(objects) = objects.filter(|_| args.only != Some(Part::Database)) else {
        let closing =
            vec![format!("{first}: its rows are as in snapshot {snapshot}; nothing more was changed")];
        let done = Done { exit: Exit::Done, summary, closing };
        return Ok(if args.dry_run { done } else { told(opened, &unsettled, &folder, done) });
    };
    let lines = standing_lines(opened, &unsettled, objects.saved());
    if args.dry_run {
        let closing = vec![format!("{first}; what would be done (nothing was touched):")];
        let done = Done { exit: Exit::Done, summary, closing };
        return Ok(lines
            .into_iter()
            .fold(done, |done, (title, text)| done.closing(format!("  {title:<10} {text}"))));
    }
    agreed(setting, opened, lines, (args, &mut *signals)).await?;
    let held = signals
        .guard(async {
            TargetLock::take(&opened.target).await.map_err(|error| fail::delegate_failed(&error))
        })
        .await?;
    let base = opened.snapshot(Some(&snapshot))?;
    // From here on the target changes: no signal ends this halfway.
    let objects = bring_bytes(opened, &base, objects).await?;
    held.release().await;
    let closing = vec![
        format!("{first}, and its objects of Storage are back from snapshot {snapshot} too:"),
        format!(
            "  {} moved back, {} uploaded, {} were there",
            objects.moved, objects.uploaded, objects.found
        ),
    ];
    let summary = Summary { target_touched: true, ..summary };
    Ok(told(opened, &unsettled, &folder, Done { exit: Exit::Done, summary, closing }))
}

/// From here on no run asks what became of it.
fn told(opened: &Opened, unsettled: &Unsettled, folder: &std::path::Path, done: Done) -> Done {
    opened.context.tell(&Event::RolledBack { snapshot: unsettled.snapshot.clone(), database: true });
    let kept = folder.join("load.sql");
    if kept.exists() {
        done.closing(format!("  rows written since are kept; {} loads them again", kept.display()))
    } else {
        done
    }
}
