//! Captures Storage: rows in the snapshot of the dump, bytes beside it.
//!
//! An overwritten object's bytes are gone at once, so the order decides. First everything is copied
//! by the live rows, then again what changed meanwhile, until little does; then the consistency
//! point is opened and the rows are read in it; then the few objects are copied that changed since
//! (measured at 7 overwrites a second: rows before bytes lost 28 of 2,000 objects, this order none).
//! What is overwritten even then has drifted; while that takes no time to repeat, the consistency
//! point is taken anew.

mod again;
mod check;
mod known;
mod pass;

pub use again::fetch_again;

use crate::context::Context;
use crate::disk;
use crate::manifest::storage::{Counts, Line};
use crate::manifest::{Component, ComponentName, ComponentState};
use crate::objects::{self, Client};
use crate::postgres::connect::Session;
use crate::postgres::{rows, storage};
use crate::resolve;
use crate::store::{self, Draft, Objects};
use crate::target::Target;
use pass::{Pass, Tally};
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;
use tokio_postgres::Client as Database;

/// A bulk copy that fetched so few is followed by the consistency point.
const FEW: u64 = 32;
/// Bulk copies at most: where objects change faster than they are copied, none would be the last.
const ROUNDS: u32 = 5;
/// How long the copy of what changed may take before the dump begins beside it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names of a kind that are written out.
const NAMES: usize = 10;

/// Why Storage could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target cannot be opened, or is another database now.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// The rows could not be read.
    #[error(transparent)]
    Rows(#[from] storage::Error),
    /// A statement failed.
    #[error("cannot prepare the session for the rows of Storage")]
    Query(#[from] tokio_postgres::Error),
    /// The endpoint failed.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A row is not what was expected.
    #[error("a row of `storage.objects` cannot be understood")]
    Row(#[source] serde_json::Error),
    /// A file could not be read or written.
    #[error("cannot write the Storage evidence")]
    Io(#[from] io::Error),
}

impl Error {
    /// What the component lacks for it, when the rest of the snapshot is as good without.
    fn missing(self) -> Result<String, Self> {
        match self {
            Self::Objects(objects::Error::Io(error)) => Err(Self::Io(error)),
            Self::Objects(error) => Ok(format!("objects of Storage: {}", in_words(&error))),
            other => Err(other),
        }
    }
}

/// What was captured.
#[derive(Debug)]
pub struct Captured {
    /// The component's record.
    pub component: Component,
    /// What its index holds, when there is one.
    pub counts: Option<Counts>,
    /// What was not captured, or not proved.
    pub limits: Vec<String>,
}

/// A capture that is under way.
pub struct Storage<'a> {
    context: &'a Context,
    folder: PathBuf,
    objects: Objects,
    client: Option<Client>,
    has_tables: bool,
    missing: Vec<String>,
}

/// The copy of what changed since the bulk copy.
pub type Delta<'s> = Pin<Box<dyn Future<Output = Result<Captured, Error>> + 's>>;

/// How far the copy of what changed has come when the dump may begin.
pub enum Settled<'s> {
    /// To its end.
    Done(Captured),
    /// It takes long, and goes on beside the dump.
    Beside(Delta<'s>),
    /// Objects changed under it: a consistency point taken now may do better.
    Again,
}

impl<'a> Storage<'a> {
    /// Copies what the live rows name; `None` when the target has no Storage.
    pub async fn prepare(
        target: &Target,
        context: &'a Context,
        draft: &Draft,
    ) -> Result<Option<Self>, Error> {
        let Some(access) = &context.storage else { return Ok(None) };
        let folder = draft.dir.join("storage");
        disk::make_private_dir(&folder)?;
        let objects = context.store.objects()?;
        let mut capture =
            Self { context, folder, objects, client: None, has_tables: false, missing: Vec::new() };
        let session = resolve::reopen(target).await?;
        let prepared = async {
            session.client.batch_execute(rows::PINNED).await?;
            capture.has_tables = storage::has_tables(&session.client).await?;
            if !capture.has_tables {
                return Ok(());
            }
            if access.keys.is_none() {
                let objects: u64 = storage::counts(&session.client).await?.values().sum();
                capture.missing.extend((objects > 0).then(|| no_keys(objects)));
                return Ok(());
            }
            capture.client = Some(Client::new(access).await?);
            capture.bulk(&session).await
        };
        let prepared: Result<(), Error> = prepared.await;
        session.close().await;
        if let Err(error) = prepared {
            capture.missing.push(error.missing()?);
        }
        Ok(Some(capture))
    }

    async fn bulk(&mut self, session: &Session) -> Result<(), Error> {
        let Some(client) = &self.client else { return Ok(()) };
        self.missing.extend(check::listings(client, &session.client).await?);
        if !self.missing.is_empty() {
            return Ok(());
        }
        for _ in 0..ROUNDS {
            if self.catch_up(&session.client).await? <= FEW {
                break;
            }
        }
        Ok(())
    }

    /// Copies what the live rows name and the store does not have; returns how many were fetched.
    async fn catch_up(&self, database: &Database) -> Result<u64, Error> {
        let rows = self.folder.join("live.jsonl");
        database.batch_execute("begin isolation level repeatable read read only").await?;
        self.read_rows(database, &rows).await?;
        database.batch_execute("commit").await?;
        let out = self.objects.begin_seen()?;
        let copied = self.pass(rows.clone()).run(out, &[]).await;
        fs_err::remove_file(rows)?;
        let tally = copied?;
        self.objects.publish_seen()?;
        Ok(tally.fetched)
    }

    /// Copies once more before another consistency point. An endpoint that fails now will fail the
    /// copy that counts, and is judged there.
    pub async fn again(&self, database: &Database) -> Result<(), Error> {
        match self.catch_up(database).await {
            Ok(_) => Ok(()),
            Err(error) => error.missing().map(drop),
        }
    }

    async fn read_rows(&self, database: &Database, path: &std::path::Path) -> Result<(), Error> {
        let mut lines = disk::Lines::create(path)?;
        storage::each_object(database, |row| lines.text(row)).await?;
        Ok(lines.finish()?)
    }

    fn pass(&self, rows: PathBuf) -> Pass<'_> {
        Pass { context: self.context, objects: &self.objects, client: self.client.as_ref(), rows }
    }

    /// Reads the rows in the transaction of the exported snapshot, and copies what changed. May say
    /// that another consistency point is worth trying, when `may_repeat`.
    pub async fn settle(&self, database: &Database, may_repeat: bool) -> Result<Settled<'_>, Error> {
        if !self.has_tables || !self.missing.is_empty() {
            return Ok(Settled::Done(self.without_index()));
        }
        self.read_rows(database, &self.folder.join("rows.jsonl")).await?;
        let buckets = storage::buckets(database).await?;
        let mut delta: Delta<'_> = Box::pin(self.delta(buckets));
        match tokio::time::timeout(PATIENCE, &mut delta).await {
            Err(_) => Ok(Settled::Beside(delta)),
            Ok(ended) => {
                let captured = ended?;
                let drifted = captured.counts.map_or(0, |counts| counts.drifted);
                let again = may_repeat && drifted > self.context.allow_drift;
                Ok(if again { Settled::Again } else { Settled::Done(captured) })
            }
        }
    }

    async fn delta(&self, buckets: Vec<String>) -> Result<Captured, Error> {
        let rows = self.folder.join("rows.jsonl");
        let index = self.folder.join("index.jsonl");
        let out = disk::Lines::create(&index)?;
        let copied = self.pass(rows.clone()).run(out, &buckets).await;
        self.objects.sync()?;
        fs_err::remove_file(rows)?;
        match copied {
            Ok(tally) if tally.without_keys == 0 => Ok(self.captured(&tally)),
            other => {
                fs_err::remove_file(index)?;
                let missing = match other {
                    Ok(tally) => no_keys(tally.without_keys),
                    Err(error) => error.missing()?,
                };
                let component = component(String::new(), vec![missing]);
                Ok(Captured { component, counts: None, limits: Vec::new() })
            }
        }
    }

    fn without_index(&self) -> Captured {
        let summary = if self.has_tables { "" } else { "no Storage in this database" };
        let component = component(summary.to_owned(), self.missing.clone());
        Captured { component, counts: None, limits: Vec::new() }
    }

    fn captured(&self, tally: &Tally) -> Captured {
        let counts = tally.counts;
        let mut missing = Vec::new();
        if counts.drifted > self.context.allow_drift {
            missing.push(format!(
                "{} of Storage that changed while they were copied: {}",
                of(counts.drifted, "object"),
                names(&tally.drifted, counts.drifted)
            ));
        }
        let summary = format!(
            "{}, {}, {}",
            of(counts.buckets, "bucket"),
            of(counts.objects(), "object"),
            super::estimate::bytes_in_words(counts.bytes)
        );
        let note = |count: u64, what: &str| {
            (count > 0).then(|| format!("{} of Storage {what}", of(count, "object")))
        };
        let limits = [
            note(counts.drifted, "changed during the copy: the bytes are newer than the database, or gone"),
            note(counts.dangling, "had a row and no bytes on the server"),
            note(counts.unreadable_keys, "could not be read: the server does not accept the key of the row"),
            note(
                tally.unproved,
                "came with an etag that cannot be recomputed: the length alone was compared",
            ),
        ];
        let limits = limits.into_iter().flatten().collect();
        Captured { component: component(summary, missing), counts: Some(counts), limits }
    }

    /// Forgets what only helps a run that goes on where one died; the snapshot stands.
    pub fn finish(&self) -> Result<(), Error> {
        Ok(self.objects.forget_seen()?)
    }
}

/// A line of the index, read back.
pub(super) fn line(text: &str) -> Result<Line, serde_json::Error> {
    serde_json::from_str(text)
}

fn component(summary: String, missing: Vec<String>) -> Component {
    let state = if missing.is_empty() { ComponentState::Complete } else { ComponentState::Incomplete };
    Component { name: ComponentName::Storage, state, summary, missing }
}

fn no_keys(objects: u64) -> String {
    format!(
        "{} of Storage: there are no keys to read them with; create S3 keys in the dashboard under \
         Storage, S3, and set SUPA_SAFE_S3_ACCESS_KEY_ID and SUPA_SAFE_S3_SECRET_ACCESS_KEY, or name an AWS profile \
         in SUPA_SAFE_S3_PROFILE",
        of(objects, "object")
    )
}

/// A number of things.
fn of(count: u64, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

fn names(some: &[String], of: u64) -> String {
    let more = of.saturating_sub(some.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", some.join(", "))
}

fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
