//! The store in a bucket, as commands use it: find it, take its lock, bring what others wrote, and
//! leave there what this run wrote.

use super::Setting;
use super::fail::failed;
use crate::config::Config;
use crate::event::{Event, Observer, Observers};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::objects;
use crate::store::{self, Asking, Location, Locked, Store};
use crate::target::Profile;
use std::time::Duration;

/// What says that the state folder is all, for whom the bucket is out of reach.
const WITHOUT: &str =
    "Check the network; to go on with what this machine holds alone, set SUPA_SAFE_STORE=local for this run";
/// How long the end of a run waits for its locks to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the shared store of a target is; `None` when the state folder is all.
pub(super) fn location(
    setting: &Setting,
    config: &Config,
    names: &[&str],
) -> Result<Option<Location>, Failure> {
    let location = config.store(&setting.surroundings, names).map_err(failed(Exit::Usage))?;
    let Some(location) = location else { return Ok(None) };
    let storage = config.storage(&setting.surroundings, names, None).map_err(failed(Exit::Usage))?;
    let endpoint = &location.access.endpoint;
    let host = Profile::default().project_host;
    let is_own = names.iter().any(|name| endpoint.is_of_project(name, &host))
        || storage.is_some_and(|storage| storage.access.endpoint.authority() == endpoint.authority());
    if is_own {
        return Err(Failure::message(
            Exit::Usage,
            format!("the store at `{endpoint}` is the project's own Storage; the target was not touched"),
        )
        .detail("what takes the project down would take its snapshots with it")
        .hint("Name a bucket of another project or another service in `store_endpoint`"));
    }
    Ok(Some(location))
}

/// Lets a store stand in the bucket of the policy too; nothing is read yet.
pub(super) async fn join(
    setting: &Setting,
    config: &Config,
    names: &[&str],
    store: Store,
) -> Result<Store, Failure> {
    match location(setting, config, names)? {
        None => Ok(store),
        Some(location) => store.join(&location).await.map_err(|error| store_failed(&error)),
    }
}

/// Takes a lock in the bucket; the caller holds the same one of the folder.
pub(super) async fn lock(
    store: &Store,
    name: &str,
    (setting, run): (&Setting, &str),
    observers: &Observers,
) -> Result<(), Failure> {
    let asking = Asking { host: setting.host(), run: run.to_owned(), clock: setting.clock };
    let locked = store.lock_shared(name, &asking).await.map_err(|error| store_failed(&error))?;
    match locked {
        Locked::Alone => {}
        Locked::Held { before, is_exclusive } => {
            if let Some(before) = before {
                let text = format!("took the lock of the store from {}, which is dead", before.in_words());
                observers.see(&Event::Note { text });
            }
            if !is_exclusive {
                let text = "the store has no conditional writes: nothing keeps runs on two machines apart"
                    .to_owned();
                observers.see(&Event::Warning { text });
            }
        }
        Locked::By(holder) => {
            return Err(Failure::message(
                Exit::Locked,
                format!("{} works on this target; the target was not touched", holder.in_words()),
            )
            .hint(
                "Wait until it has ended, then run again; a run that died counts as dead after two minutes",
            ));
        }
    }
    Ok(())
}

/// Brings what others wrote, and clears up after dead runs; the caller holds the lock.
pub(super) async fn catch_up(store: &Store, observers: &Observers) -> Result<(), Failure> {
    store.pull().await.map_err(|error| store_failed(&error))?;
    for text in store.clear_up().await.map_err(|error| store_failed(&error))? {
        observers.see(&Event::Note { text });
    }
    Ok(())
}

/// Leaves there what this run wrote, and lets the locks go.
pub(super) async fn leave(setting: &Setting, store: &Store) -> Result<(), Failure> {
    let shared = store.share((setting.clock)()).await.map(drop);
    let unlocked = tokio::time::timeout(PATIENCE, store.unlock_shared()).await.unwrap_or(Ok(()));
    shared.and(unlocked).map_err(|error| store_failed(&error))
}

/// Lets the locks go after something failed, which says more than that they could not be let go.
pub(super) async fn release(store: &Store) {
    drop(tokio::time::timeout(PATIENCE, store.unlock_shared()).await);
}

/// What to do when the store fails.
pub(super) fn store_failed(error: &store::Error) -> Failure {
    let failure = match error {
        store::Error::LockLost(_) => Failure::new(Exit::Locked, error),
        store::Error::Bucket { source, .. } if is_sign_in(source) => Failure::new(Exit::SignInFailed, error),
        _ => Failure::new(Exit::Error, error),
    };
    let store::Error::Bucket { source, .. } = error else { return failure };
    match &**source {
        objects::Error::NoKeys(_) => failure.hint(
            "Set SUPA_SAFE_STORE_ACCESS_KEY_ID and SUPA_SAFE_STORE_SECRET_ACCESS_KEY, or name a profile in `store_profile`",
        ),
        objects::Error::Transport { .. } | objects::Error::Busy { .. } => failure.hint(WITHOUT),
        objects::Error::NotFound { code, .. } if code == "NoSuchBucket" => {
            failure.hint("Make the bucket, or correct `store` in supabase/supa-safe.toml")
        }
        objects::Error::Denied { .. } => {
            failure.hint("The keys need leave to list, read, write, and remove objects in that folder of the bucket")
        }
        _ => failure.hint("Run `supa-safe doctor`, which tries the store"),
    }
}

fn is_sign_in(error: &objects::Error) -> bool {
    error.is_about_access() && !matches!(error, objects::Error::Denied { .. })
}
