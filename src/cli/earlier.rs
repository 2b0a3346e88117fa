//! What became of an earlier run that was cut off while it pushed.

use super::fail::{failed, resolve_failed};
use super::open::Opened;
use crate::delegate::{self, Eye};
use crate::event::Event;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres::sessions::Backend;
use crate::resolve;
use serde_json::Value;

/// Looks at the record of the last run; when that run died while it pushed, waits for the push
/// that may still go on, and says which of its files stand.
pub(super) async fn look(opened: &Opened) -> Result<(), Failure> {
    let Some((run, events)) = opened
        .context
        .store
        .last_run_with(&["delegating", "push-settled"], &opened.run)
        .map_err(failed(Exit::Error))?
    else {
        return Ok(());
    };
    let of_type =
        |name: &str| events.iter().rfind(|event| event.get("type").and_then(Value::as_str) == Some(name));
    let Some(delegating) = of_type("delegating") else { return Ok(()) };
    // A run that lost its connection told its end, but not what became of its push.
    if of_type("delegated").is_some() {
        return Ok(());
    }
    let context = &opened.context;
    context.warn(format!("run {run} ended before it knew what became of its push; looking for it"));
    let session = resolve::reopen(&opened.target).await.map_err(|error| resolve_failed(&error))?;
    let mut eye = Eye::new(&opened.target, &session.client);
    for event in events.iter().filter(|event| event["type"] == "delegate-backend") {
        let number = |name: &str| event.get(name).and_then(Value::as_i64).unwrap_or_default();
        let pid = i32::try_from(number("pid")).unwrap_or_default();
        eye.know(Backend { pid, started: number("started") });
    }
    let settled = delegate::settle(&mut eye, context).await;
    settled.map_err(failed(Exit::Error))?;
    let now = eye.history().await.map_err(failed(Exit::Error))?;
    session.close().await;
    let texts = |name: &str| -> Vec<String> {
        let list = delegating.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let version = |file: &String| file.split('_').next().unwrap_or_default().to_owned();
    let (applied, not_applied): (Vec<String>, Vec<String>) =
        texts("files").into_iter().partition(|file| now.contains(&version(file)));
    for (files, stands) in [(&applied, "stands"), (&not_applied, "does not stand")] {
        for file in files {
            context.note(format!("`{file}` of that run {stands}"));
        }
    }
    if !applied.is_empty() {
        context.warn("that push was never compared with its rehearsal; run your own checks on the target");
    }
    context.tell(&Event::PushSettled { run, applied, not_applied });
    Ok(())
}
