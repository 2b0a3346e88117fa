//! What became of an earlier run that was cut off while it pushed.

use super::fail::{failed, resolve_failed};
use super::open::Opened;
use crate::delegate::{self, Interrupts};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres::history;
use crate::resolve;
use serde_json::Value;

/// Looks at the record of the last run; when that run died while it pushed, waits for the push
/// that may still go on, and says which of its files stand.
pub(super) async fn look(opened: &Opened) -> Result<(), Failure> {
    let Some((run, events)) =
        opened.context.store.last_run_before(&opened.run).map_err(failed(Exit::Error))?
    else {
        return Ok(());
    };
    let of_type =
        |name: &str| events.iter().rfind(|event| event.get("type").and_then(Value::as_str) == Some(name));
    let Some(delegating) = of_type("delegating") else { return Ok(()) };
    if of_type("delegated").is_some() || of_type("summary").is_some() {
        return Ok(());
    }
    let context = &opened.context;
    context.warn(format!("run {run} died while it pushed; looking for what became of it"));
    let session = resolve::reopen(&opened.target).await.map_err(|error| resolve_failed(&error))?;
    delegate::settle(&session.client, context, &Interrupts::default()).await.map_err(failed(Exit::Error))?;
    let now: Vec<String> = history::read(&session.client)
        .await
        .map_err(failed(Exit::Error))?
        .into_iter()
        .map(|applied| applied.version)
        .collect();
    session.close().await;
    let texts = |name: &str| -> Vec<String> {
        let list = delegating.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    for file in texts("files") {
        let version = file.split('_').next().unwrap_or_default().to_owned();
        let stands = if now.contains(&version) { "stands" } else { "does not stand" };
        context.note(format!("`{file}` of that run {stands}"));
    }
    Ok(())
}
