//! What SQL alone can do, in the caller's transaction: buckets, and the rows of objects.

use super::Error;
use super::classify;
use super::plan::{Change, Merge, columns};
use super::save::{Saved, Way};
use crate::manifest::storage::Object;
use crate::postgres::storage::Row;
use crate::postgres::storage::back::{self, Writing};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
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
    /// Objects of whose row some columns were written.
    pub merged: u64,
    /// Rows without bytes and empty buckets, which the migration added, that went.
    pub withdrawn: u64,
}

/// Writes them. Afterwards every id of the plan has a row; one whose place is taken waits for it
/// under another key until [`super::bytes`].
pub async fn rows(client: &Client, saved: &Saved) -> Result<Rows, Error> {
    let quiet = back::quieten(client).await?;
    let mut done = Rows::default();
    for bucket in saved.plan.buckets.iter().filter(|bucket| bucket.is_missing || bucket.is_changed) {
        back::write_bucket(client, &bucket.wanted, &bucket.columns).await?;
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
    done.merged = merge(client, &saved.plan.merged).await?;
    back::waken(client, quiet).await?;
    if !(saved.plan.withdrawn.is_empty() && saved.plan.withdrawn_buckets.is_empty()) {
        let rows: Vec<&Row> = saved.plan.withdrawn.iter().collect();
        done.withdrawn = back::withdraw(client, &rows, &saved.plan.withdrawn_buckets).await?;
    }
    Ok(done)
}

async fn merge(client: &Client, merged: &[Merge]) -> Result<u64, Error> {
    let mut by_columns: BTreeMap<&BTreeSet<String>, Vec<Writing<'_>>> = BTreeMap::new();
    for merge in merged {
        let writing = Writing { was: &merge.was, version: None, now: Some(&merge.live) };
        by_columns.entry(&merge.columns).or_default().push(writing);
    }
    let mut written = 0;
    for (columns, rows) in by_columns {
        written += back::write_columns(client, &rows, columns).await?;
    }
    Ok(written)
}

/// What rows alone should have brought back and did not, in words. For a copy, on which nobody else
/// writes; within the caller's transaction, whose time zone is UTC.
pub async fn not_as_before(client: &Client, saved: &Saved, index: &Path) -> Result<Vec<String>, Error> {
    let found = classify::read(client, index).await?;
    let live: BTreeMap<&str, &Row> = found.live.iter().map(|row| (row.id.as_str(), row)).collect();
    let then: BTreeSet<&str> = found.was.iter().map(|was| was.id.as_str()).collect();
    let in_words = |was: &Object| match live.get(was.id.as_str()) {
        None => format!("object {} has no row", was.in_words()),
        Some(row) => {
            let version = (was.version != row.version).then_some("version");
            let names: Vec<&str> = columns(was, row).into_iter().chain(version).collect();
            format!("object {} differs in {}", was.in_words(), names.join(", "))
        }
    };
    let mut wrong: Vec<String> = found.was.iter().map(in_words).collect();
    let added = found.live.iter().filter(|row| !then.contains(row.id.as_str()));
    wrong.extend(added.map(|row| format!("object {} was added", row.in_words())));
    wrong.extend(saved.wrong_buckets(&found)?);
    Ok(wrong)
}
