//! Reads the snapshot's index and the live rows side by side, in the order of both: what is equal is
//! forgotten at once, so that memory grows with the differences alone.

use super::Error;
use super::plan::{Differences, Plan, decide, is_same};
use super::scope::{Scope, Touched};
use crate::manifest::storage::{Line, Object};
use crate::postgres::storage::{self, Row};
use fs_err as fs;
use serde_json::value::RawValue;
use std::cmp::Ordering;
use std::io::{self, BufRead as _, BufReader, Lines};
use std::path::Path;
use tokio_postgres::Client;

/// Whose bytes are looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// Those of the objects whose rows differ.
    Changed,
    /// Those of all objects: somebody restored the rows already, and they tell nothing any more.
    All,
}

/// Makes the plan; nothing changes. The session must not be in a transaction.
pub async fn classify(client: &Client, index: &Path, scope: &Scope, probing: Probing) -> Result<Plan, Error> {
    let mut plan = decide(differences(client, index).await?, scope);
    plan.probe_all = probing == Probing::All;
    Ok(plan)
}

/// What a migration did to the rows, on the copy that it ran on. The session must not be in a
/// transaction.
pub async fn touched(client: &Client, index: &Path) -> Result<Touched, Error> {
    Ok(Touched::of(&differences(client, index).await?))
}

/// The rows on either side that have no equal on the other.
pub(super) async fn differences(client: &Client, index: &Path) -> Result<Differences, Error> {
    client
        .batch_execute("begin isolation level repeatable read read only; set local timezone = 'UTC'")
        .await?;
    let found = read(client, index).await;
    // A transaction that failed ends in the same way.
    client.batch_execute("rollback").await?;
    found
}

/// The same within the caller's transaction, whose time zone is UTC.
pub(super) async fn read(client: &Client, index: &Path) -> Result<Differences, Error> {
    let mut merge = Merge::open(index)?;
    if storage::has_tables(client).await? {
        for bucket in storage::buckets(client).await? {
            merge.found.buckets_live.push(RawValue::from_string(bucket).map_err(Error::Record)?);
        }
        storage::each_object(client, |row| merge.take(serde_json::from_str(row)?)).await?;
    }
    merge.finish()
}

/// Objects of an index, one at a time.
pub(super) struct Index {
    lines: Lines<BufReader<fs::File>>,
    /// Rows of buckets, which stand first.
    pub(super) buckets: Vec<Box<RawValue>>,
}

impl Index {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { lines: BufReader::new(fs::File::open(path)?).lines(), buckets: Vec::new() })
    }

    /// The next object.
    pub(super) fn next(&mut self) -> io::Result<Option<Object>> {
        for line in self.lines.by_ref() {
            match serde_json::from_str(&line?)? {
                Line::Bucket(bucket) => self.buckets.push(bucket),
                Line::Object(object) => return Ok(Some(*object)),
            }
        }
        Ok(None)
    }
}

struct Merge {
    index: Index,
    head: Option<Object>,
    found: Differences,
}

impl Merge {
    fn open(path: &Path) -> io::Result<Self> {
        let mut index = Index::open(path)?;
        let head = index.next()?;
        Ok(Self { index, head, found: Differences::default() })
    }

    fn take(&mut self, live: Row) -> io::Result<()> {
        let key = |row: &Row| (row.bucket_id.clone(), row.name.clone(), row.id.clone());
        let live_key = key(&live);
        while let Some(was) = self.head.take() {
            match (was.bucket.clone(), was.key.clone(), was.id.clone()).cmp(&live_key) {
                Ordering::Less => self.found.was.push(was),
                Ordering::Equal => {
                    if !is_same(&was, &live) {
                        self.found.was.push(was);
                        self.found.live.push(live);
                    }
                    self.head = self.index.next()?;
                    return Ok(());
                }
                Ordering::Greater => {
                    self.head = Some(was);
                    break;
                }
            }
            self.head = self.index.next()?;
        }
        self.found.live.push(live);
        Ok(())
    }

    fn finish(mut self) -> Result<Differences, Error> {
        while let Some(was) = self.head.take() {
            self.found.was.push(was);
            self.head = self.index.next()?;
        }
        self.found.buckets_were = self.index.buckets;
        Ok(self.found)
    }
}
