//! Opens the consistency point: the instant whose state a snapshot holds.

use super::database::{Error, doing};
use super::storage::{self, Delta, Settled, Storage};
use crate::context::Context;
use crate::manifest::Taken;
use crate::postgres::{identity, pause};
use crate::quiesce::{self, Pause};
use std::time::Duration;
use tokio_postgres::Client;

/// Consistency points that are taken while objects of Storage change under the copy.
const ATTEMPTS: u32 = 8;
/// How long a busy writer is waited for between two of them.
const PAUSE: Duration = Duration::from_millis(250);

/// A consistency point that is open in a session.
pub(super) struct Point<'s> {
    /// When.
    pub(super) taken: Taken,
    /// The name of the exported snapshot.
    pub(super) exported: String,
    /// The oldest transaction that goes on.
    pub(super) horizon: i64,
    /// What came of Storage, or what goes on beside the dump.
    pub(super) storage: Copied<'s>,
}

/// The copy of what changed in Storage.
pub(super) enum Copied<'s> {
    /// It is done, or there is no Storage.
    Done(Option<storage::Captured>),
    /// It goes on.
    Beside(Delta<'s>),
}

impl Copied<'_> {
    /// Waits for its end.
    pub(super) async fn end(self) -> Result<Option<storage::Captured>, Error> {
        match self {
            Self::Done(captured) => Ok(captured),
            Self::Beside(delta) => Ok(Some(delta.await?)),
        }
    }
}

/// Opens a consistency point and reads the rows of Storage in it. While objects change under the
/// copy, nothing else hangs on the point yet, so another one is taken.
pub(super) async fn open<'s>(
    context: &Context,
    client: &Client,
    storage: Option<&'s Storage<'s>>,
    pause: Option<&Pause<'_>>,
) -> Result<Point<'s>, Error> {
    let mut attempt = 1;
    loop {
        let (taken, exported, horizon) = begin(context, client, pause).await?;
        let Some(storage) = storage else {
            return Ok(Point { taken, exported, horizon, storage: Copied::Done(None) });
        };
        // Under a pause there is one point, and no other one after it.
        let may_repeat = pause.is_none() && attempt < ATTEMPTS;
        let copied = match storage.settle(client, may_repeat).await? {
            Settled::Done(captured) => Copied::Done(Some(captured)),
            Settled::Beside(delta) => Copied::Beside(delta),
            Settled::Again => {
                client.batch_execute("rollback").await.map_err(doing("leave the consistency point"))?;
                tokio::time::sleep(PAUSE).await;
                storage.again(client).await?;
                attempt += 1;
                continue;
            }
        };
        return Ok(Point { taken, exported, horizon, storage: copied });
    }
}

async fn begin(
    context: &Context,
    client: &Client,
    pause: Option<&Pause<'_>>,
) -> Result<(Taken, String, i64), Error> {
    let given = match pause {
        Some(pause) => Some(pause.begin(context).await?),
        None => None,
    };
    let local_clock = (context.clock)();
    let target_clock = identity::clock(client).await.map_err(doing("read the target's clock"))?;
    let begin = given.map_or_else(
        || "begin isolation level repeatable read read only".to_owned(),
        |given| pause::import(&given.exported),
    );
    client.batch_execute(&begin).await.map_err(doing("open the consistency point"))?;
    if given.is_none() {
        quiesce::demand_no_pause(client).await?;
    }
    let sql = "select pg_catalog.pg_export_snapshot(), \
        pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::text::int8";
    let row = client.query_one(sql, &[]).await.map_err(doing("export the snapshot"))?;
    let taken = given.map_or(Taken { target_clock, local_clock }, |given| given.taken);
    Ok((taken, row.get(0), row.get(1)))
}
