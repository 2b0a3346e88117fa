//! Other sessions on the target that a push would wait for.

use super::fail::failed;
use super::open::Opened;
use crate::effect::FileEffect;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres::waits;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// How often the target is asked whether they are gone.
const POLL: Duration = Duration::from_millis(200);

/// Old transactions that hold a table against the locks that the push took in its rehearsal, in words.
///
/// One that is younger than `max_block` may end by itself, and the push waits no longer than that for
/// it; an older one is waited for as long again.
pub(super) async fn holding(
    opened: &Opened,
    client: &Client,
    effects: &[FileEffect],
) -> Result<Vec<String>, Failure> {
    let wanted: Vec<_> = effects.iter().flat_map(|effect| &effect.locks).collect();
    let max_block = opened.policy.max_block;
    let started = Instant::now();
    let mut told = false;
    loop {
        let found = waits::against(client, &wanted, max_block.as_secs_f64()).await;
        let found: Vec<String> = found
            .map_err(failed(Exit::Error))?
            .into_iter()
            .map(|(holder, table)| {
                format!("an old transaction holds `{table}`, which the push needs: {holder}")
            })
            .collect();
        if found.is_empty() || started.elapsed().as_secs_f64() > max_block.as_secs_f64() {
            return Ok(found);
        }
        if !std::mem::replace(&mut told, true) {
            for text in &found {
                opened.context.warn(format!("{text}; it is waited for, {max_block:#} at most"));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
