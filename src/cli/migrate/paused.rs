//! The push of `migrate --quiesce`: a fresh snapshot begins a write pause, and whatever becomes of the push, the
//! pause ends.

use super::{Pushing, Ready, finish, lock, prove_successor, pushed};
use crate::clearance;
use crate::cli::done::{Broken, Done};
use crate::cli::evidence::take;
use crate::cli::fail::{failed, refused};
use crate::cli::open::Opened;
use crate::cli::quiesce::{end, not_paused};
use crate::cli::signals::Signals;
use crate::event::Stage;
use crate::exit::Exit;
use crate::policy::{Finding, Rule};
use crate::quiesce::{Pause, demand_paused};
use crate::runbook;
use crate::verify::Verified;

/// Pushes under a pause.
pub(super) async fn push(
    pushing: Pushing<'_>,
    ready: Ready,
    host: &str,
    signals: &mut Signals,
) -> Result<Done, Broken> {
    let opened = pushing.opened;
    let held = signals.guard(lock(opened)).await?;
    let pause = Pause::new(&opened.target, &held.session().client, (&opened.run, host));
    let mut base = None;
    let outcome = async {
        let ready = signals.guard(Box::pin(fresh(opened, ready, &pause))).await?;
        base = Some(ready.base.clone());
        let stands = demand_paused(&held.session().client, &opened.run);
        signals.guard(async { stands.await.map_err(|error| not_paused(&error)) }).await?;
        let outcome = pushed(pushing, &ready, &held, signals).await?;
        finish(pushing, &ready, outcome, signals).await
    };
    let outcome = outcome.await;
    // No signal cuts this off: it is over in seconds, and users wait for it.
    let outcome = end(opened, outcome).await;
    held.release().await;
    let done = outcome?;
    if let Some(base) = base {
        prove_successor(opened, &base, signals).await;
    }
    Ok(done)
}

/// Takes a fresh snapshot, whose consistency point begins the pause. It must be of the schema that was rehearsed:
/// nobody waits for another rehearsal while writes are refused. Rows may be others, as they may for every push whose
/// snapshot is young enough.
async fn fresh(opened: &Opened, ready: Ready, pause: &Pause<'_>) -> Result<Ready, Broken> {
    let watch = opened.context.stage(Stage::Refresh, "pause writes and take a fresh snapshot");
    let base = take(opened, Some(pause)).await?;
    pause.let_go().await.map_err(|error| not_paused(&error))?;
    let base = match &ready.rehearsed {
        None => base,
        Some(rehearsed) => {
            let succeeded = clearance::succeed(base, rehearsed, &opened.context);
            succeeded.map_err(failed(Exit::Error))?.map_err(|base| other(&base))?
        }
    };
    let runbook = runbook::write(base.snapshot(), ready.rehearsed.as_ref()).map_err(failed(Exit::Error))?;
    watch.done(format!("snapshot {} is {}", base.snapshot().id(), base.strength()));
    Ok(Ready { base, runbook, ..ready })
}

/// A fresh snapshot of something else than was rehearsed.
fn other(base: &Verified) -> Broken {
    refused(vec![Finding {
        rule: Rule::NotRehearsed,
        fact: format!(
            "snapshot {}, which was taken under the write pause, has another shape than the one that was rehearsed",
            base.snapshot().id()
        ),
        fix: "run `supa-safe migrate --quiesce` again, which rehearses before it pauses".to_owned(),
        refuses: true,
    }])
}
