//! What SQL alone can do, in the caller's transaction: buckets, and the rows of objects.

use super::Error;
use super::plan::Change;
use super::save::{Saved, Way};
use crate::postgres::storage::back::{self, Writing};
use tokio_postgres::Client;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Buckets.
    pub buckets: u64,
    /// Objects whose row was written over.
    pub rewritten: u64,
    /// Objects whose row was gone.
    pub inserted: u64,
}

/// Writes them. Afterwards every id of the plan has a row; one whose place is taken waits for it
/// under another key until [`super::bytes`].
pub async fn rows(client: &Client, saved: &Saved) -> Result<Rows, Error> {
    let quiet = back::quieten(client).await?;
    let mut done = Rows::default();
    for bucket in saved.plan.buckets.iter().filter(|bucket| bucket.is_missing || bucket.is_changed) {
        back::write_bucket(client, &bucket.wanted).await?;
        done.buckets += 1;
    }
    let (mut gone, mut there) = (Vec::new(), Vec::new());
    for chosen in &saved.chosen {
        let Way::Row(version) = &chosen.way else { continue };
        let was = &chosen.item.was;
        let now = chosen.item.live.as_ref();
        let writing = Writing { was, version: version.as_deref(), now };
        let list = if chosen.item.change == Change::Absent { &mut gone } else { &mut there };
        list.push(writing);
    }
    done.rewritten = back::rewrite(client, &there).await?;
    done.inserted = back::insert(client, &gone).await?;
    back::waken(client, quiet).await?;
    Ok(done)
}
