//! One pass over rows in order: what the store has is named, what it lacks is fetched.

use super::known::Known;
use super::{Error, NAMES};
use crate::context::Context;
use crate::disk;
use crate::event::{Event, Stage};
use crate::manifest::storage::{Counts, Line, Object, State};
use crate::objects::{self, Client, EtagCheck, Received};
use crate::postgres::storage::{Row, Told};
use crate::store::{Incoming, Objects};
use fs_err as fs;
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::value::RawValue;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Transfers at once.
pub(super) const TRANSFERS: usize = 8;
/// Objects that may wait for one before them, since the record is written in order.
const WINDOW: usize = 256;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How often an object without bytes is asked for: an overwrite takes the old bytes away between the
/// server's look at the row and its look at the bytes.
const LOOKS: u32 = 3;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(100);

/// A pass.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    pub(super) objects: &'a Objects,
    pub(super) client: Option<&'a Client>,
    pub(super) rows: PathBuf,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    /// Objects whose bytes were fetched.
    pub(super) fetched: u64,
    /// Names of some that drifted.
    pub(super) drifted: Vec<String>,
    /// Objects whose etag could not be recomputed.
    pub(super) unproved: u64,
    /// Objects that nothing could be read of for want of keys.
    pub(super) without_keys: u64,
}

/// What became of one row.
struct Done {
    object: Object,
    fetched: bool,
    unproved: bool,
    without_keys: bool,
}

impl Done {
    fn of(object: Object) -> Self {
        Self { object, fetched: false, unproved: false, without_keys: false }
    }
}

/// Counts bytes as they arrive.
struct Counted {
    incoming: Incoming,
    bytes: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.incoming.write(bytes)?;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.incoming.flush()
    }
}

impl Pass<'_> {
    /// Runs it, and writes its record: the buckets first, then the objects in the order of the rows.
    pub(super) async fn run(&self, mut out: disk::Lines, buckets: &[String]) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        for bucket in buckets {
            let line = Line::Bucket(RawValue::from_string(bucket.clone()).map_err(Error::Row)?);
            tally.counts.add(&line);
            out.json(&line)?;
        }
        let expected_bytes = Some(self.expected()?);
        let bytes = Arc::new(AtomicU64::new(0));
        let transfers = Semaphore::new(TRANSFERS);
        let copied = self.rows()?.map(|row| self.one(row, &transfers, &bytes)).buffered(WINDOW);
        tokio::pin!(copied);
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        let mut item = String::new();
        loop {
            let next = tokio::select! {
                next = copied.next() => next,
                _ = tick.tick() => {
                    let bytes = bytes.load(Ordering::Relaxed);
                    if bytes > 0 {
                        let item = item.clone();
                        self.context.tell(&Event::Progress { stage: Stage::Collect, item, bytes, expected_bytes });
                    }
                    continue;
                }
            };
            let Some(done) = next.transpose()? else { break };
            tally.fetched += u64::from(done.fetched);
            tally.unproved += u64::from(done.unproved);
            tally.without_keys += u64::from(done.without_keys);
            if done.fetched {
                item = done.object.in_words();
            }
            if done.object.state == State::Drifted && tally.drifted.len() < NAMES {
                tally.drifted.push(done.object.in_words());
            }
            let line = Line::Object(Box::new(done.object));
            tally.counts.add(&line);
            out.json(&line)?;
        }
        out.finish()?;
        Ok(tally)
    }

    /// Bytes that are to be fetched, as far as the records tell; what they name is taken to be there.
    fn expected(&self) -> Result<u64, Error> {
        let mut bytes = 0;
        for row in self.lines()? {
            let (row, known) = row?;
            let told = row.told();
            if row.address().is_some() && !known.iter().any(|seen| is_same(seen, &row, &told)) {
                bytes += told.size.unwrap_or_default();
            }
        }
        Ok(bytes)
    }

    fn rows(&self) -> Result<impl Stream<Item = Result<(Row, Vec<Object>), Error>> + use<>, Error> {
        Ok(stream::iter(self.lines()?))
    }

    /// The rows, each with what is known of it.
    fn lines(&self) -> Result<impl Iterator<Item = Result<(Row, Vec<Object>), Error>> + use<>, Error> {
        let mut known = Known::default();
        for record in self.objects.seen().iter().chain(&self.context.store.newest_storage_index()?) {
            known.add(record)?;
        }
        let lines = BufReader::new(fs::File::open(&self.rows)?).lines();
        Ok(lines.map(move |line| {
            let row: Row = serde_json::from_str(&line?).map_err(Error::Row)?;
            let known = known.of(row.bucket_id.as_deref(), row.name.as_deref());
            Ok((row, known))
        }))
    }

    async fn one(
        &self,
        row: Result<(Row, Vec<Object>), Error>,
        transfers: &Semaphore,
        bytes: &Arc<AtomicU64>,
    ) -> Result<Done, Error> {
        let (row, known) = row?;
        let told = row.told();
        if row.address().is_none() {
            return Ok(Done::of(row.record(State::UnreadableKey, told.size)));
        }
        if let Some(seen) = known.into_iter().find(|seen| self.has(seen, &row, &told)) {
            return Ok(Done::of(captured(row, seen)));
        }
        let Some(client) = self.client else {
            return Ok(Done { without_keys: true, ..Done::of(row.record(State::Drifted, told.size)) });
        };
        let _turn = transfers.acquire().await.map_err(io::Error::other)?;
        self.fetch(client, row, &told, bytes).await
    }

    /// Whether these bytes are the row's, and in the store.
    fn has(&self, seen: &Object, row: &Row, told: &Told) -> bool {
        let (Some(sha256), Some(size)) = (&seen.sha256, seen.size) else { return false };
        is_same(seen, row, told) && self.objects.holds(sha256, size)
    }

    async fn fetch(
        &self,
        client: &Client,
        row: Row,
        told: &Told,
        bytes: &Arc<AtomicU64>,
    ) -> Result<Done, Error> {
        let Some((bucket, key)) = row.address() else {
            return Ok(Done::of(row.record(State::UnreadableKey, told.size)));
        };
        let begin = || Ok(Counted { incoming: self.objects.begin()?, bytes: Arc::clone(bytes) });
        let mut has_changed = false;
        let mut answer = client.get(bucket, key, begin).await;
        for _ in 1..LOOKS {
            if !matches!(answer, Err(objects::Error::NoBytes { .. })) {
                break;
            }
            // Its row tells one that never had bytes from one that is being overwritten.
            has_changed |= match client.row_etag(bucket, key).await {
                Ok(etag) => etag != told.etag,
                Err(objects::Error::NotFound { .. }) => true,
                Err(error) => return Err(error.into()),
            };
            tokio::time::sleep(PAUSE).await;
            answer = client.get(bucket, key, begin).await;
        }
        let state = match answer {
            Ok((writer, received)) => return self.keep(row, told, writer.incoming, received).await,
            Err(objects::Error::NotFound { .. }) => State::Drifted,
            Err(objects::Error::NoBytes { .. }) if has_changed => State::Drifted,
            Err(objects::Error::NoBytes { .. }) => State::Dangling,
            Err(objects::Error::InvalidKey { .. }) => State::UnreadableKey,
            // A server with its bytes in files fails so for a row that never had any.
            Err(objects::Error::Busy { status: 500, .. }) if row.metadata.is_none() => State::Dangling,
            Err(error) => return Err(error.into()),
        };
        Ok(Done::of(row.record(state, told.size)))
    }

    async fn keep(
        &self,
        row: Row,
        told: &Told,
        incoming: Incoming,
        received: Received,
    ) -> Result<Done, Error> {
        let is_row = told.etag.is_none() || told.etag == received.etag;
        if let Some(announced) = told.size.filter(|size| *size != received.size)
            && is_row
            && received.check != EtagCheck::Agrees
        {
            let doing = format!("read {}", row.in_words());
            return Err(objects::Error::Length { doing, announced, received: received.size }.into());
        }
        let (objects, sha256, size) = (self.objects.clone(), received.sha256.clone(), received.size);
        tokio::task::spawn_blocking(move || objects.keep(incoming, &sha256, size))
            .await
            .map_err(io::Error::other)??;
        let unproved = received.check != EtagCheck::Agrees;
        let mut object = row.record(if is_row { State::Ok } else { State::Drifted }, Some(size));
        object.sha256 = Some(received.sha256);
        object.md5 = Some(received.md5);
        object.etag = received.etag;
        object.content_type = received.content_type;
        object.cache_control = received.cache_control;
        object.state = placeholder(object.state, &object);
        Ok(Done { fetched: true, unproved, ..Done::of(object) })
    }
}

/// Whether these bytes are the row's: by the version, or by etag and length.
fn is_same(seen: &Object, row: &Row, told: &Told) -> bool {
    let agrees = told.etag.is_none() || seen.etag == told.etag;
    let same_version =
        seen.state.is_captured() && agrees && row.version.is_some() && seen.version == row.version;
    let same_bytes =
        told.etag.is_some() && told.size.is_some() && seen.etag == told.etag && seen.size == told.size;
    same_version || same_bytes
}

/// The row with bytes that the store has.
fn captured(row: Row, seen: Object) -> Object {
    let mut object = row.record(State::Ok, seen.size);
    object.sha256 = seen.sha256;
    object.md5 = seen.md5;
    object.etag = seen.etag;
    object.content_type = seen.content_type;
    object.cache_control = seen.cache_control;
    object.state = placeholder(object.state, &object);
    object
}

fn placeholder(state: State, object: &Object) -> State {
    let named = object.key.as_deref().is_some_and(|key| key.ends_with("/.emptyFolderPlaceholder"));
    if state == State::Ok && named && object.size == Some(0) { State::Placeholder } else { state }
}
