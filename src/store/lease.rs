//! The lock of a target in the bucket: a small object that is written only when there is none, and
//! written anew by its holder as long as it lives.

use super::Error;
use super::bucket::Bucket;
use crate::objects::{Condition, Put};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often a holder says that it lives.
const RENEWAL: Duration = Duration::from_secs(10);
/// A lock that is older is looked at: clocks of machines differ by less.
const STALE: i64 = 120;
/// How long it is looked at. Whoever lives renews it three times meanwhile.
const WATCH: Duration = Duration::from_secs(35);
const LOOK: Duration = Duration::from_secs(5);

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The run.
    pub run: String,
    /// Since when, by its own clock.
    pub since: Timestamp,
    /// Its state folder: whoever has the lock of that one knows that the holder is dead.
    pub(super) machine: String,
    /// Tells this holder from every other.
    pub(super) nonce: String,
    /// When it last said that it lives.
    pub(super) renewed: Timestamp,
}

impl Holder {
    fn bytes(&self) -> Result<Bytes, Error> {
        Ok(serde_json::to_vec(self).map_err(std::io::Error::other)?.into())
    }

    /// In words.
    pub fn in_words(&self) -> String {
        format!("run {} (process {} on {}, since {})", self.run, self.pid, self.host, self.since)
    }
}

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Lease {
    bucket: Bucket,
    path: String,
    nonce: String,
    is_lost: Arc<AtomicBool>,
    renewing: JoinHandle<()>,
    /// Whether the service keeps two from holding it.
    pub(super) is_exclusive: bool,
}

/// What became of the wish for a lock.
pub(super) enum Taken {
    /// It is held now; of a dead run, if there was one.
    Held(Box<Lease>, Option<Holder>),
    /// Somebody else holds it.
    By(Box<Holder>),
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Lease {
    /// Takes a lock, from a dead holder too.
    pub(super) async fn take(
        bucket: &Bucket,
        path: &str,
        holder: Holder,
        clock: fn() -> Timestamp,
    ) -> Result<Taken, Error> {
        let bytes = holder.bytes()?;
        loop {
            // Asked first: a service without conditional writes would let this one write over it.
            let Some(found) = bucket.read(path).await? else {
                let Put::Written(etag) = bucket.write(path, &bytes, Condition::Absent).await? else {
                    continue;
                };
                let (etag, is_exclusive) = match bucket.write(path, &bytes, Condition::Absent).await? {
                    Put::Refused => (etag, true),
                    Put::Written(etag) => (etag, false),
                };
                let lease = Self::hold(bucket, path, (holder, etag), clock, is_exclusive);
                return Ok(Taken::Held(Box::new(lease), None));
            };
            let Ok(other) = serde_json::from_slice::<Holder>(&found.bytes) else {
                return Err(Error::StrangeLock(format!("{}/{path}", bucket.name())));
            };
            if other.nonce == holder.nonce {
                // The first write arrived, and its answer did not.
                let lease = Self::hold(bucket, path, (holder, found.etag), clock, true);
                return Ok(Taken::Held(Box::new(lease), None));
            }
            let is_own = other.machine == holder.machine;
            let age = found.modified.map_or(0, |modified| clock().as_second() - modified);
            if !is_own && (age < STALE || lives(bucket, path, &found.etag).await?) {
                return Ok(Taken::By(Box::new(other)));
            }
            if let Put::Written(etag) = bucket.write(path, &bytes, Condition::Same(&found.etag)).await? {
                let lease = Self::hold(bucket, path, (holder, etag), clock, true);
                return Ok(Taken::Held(Box::new(lease), Some(other)));
            }
        }
    }

    fn hold(
        bucket: &Bucket,
        path: &str,
        (holder, etag): (Holder, String),
        clock: fn() -> Timestamp,
        is_exclusive: bool,
    ) -> Self {
        let is_lost = Arc::new(AtomicBool::new(false));
        let nonce = holder.nonce.clone();
        let renewing =
            tokio::spawn(renew((bucket.clone(), path.to_owned()), (holder, etag), clock, is_lost.clone()));
        Self { bucket: bucket.clone(), path: path.to_owned(), nonce, is_lost, renewing, is_exclusive }
    }

    /// Whether it is held still, by what stands in the bucket.
    pub(super) async fn is_held(&self) -> Result<bool, Error> {
        if self.is_lost.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let found = self.bucket.read(&self.path).await?;
        let holder = found.and_then(|found| serde_json::from_slice::<Holder>(&found.bytes).ok());
        Ok(holder.is_some_and(|holder| holder.nonce == self.nonce))
    }

    /// Lets it go.
    pub(super) async fn release(self) -> Result<(), Error> {
        self.renewing.abort();
        if self.is_held().await? { self.bucket.remove(&self.path).await } else { Ok(()) }
    }
}

/// Whether the holder of a lock says within a while that it lives.
async fn lives(bucket: &Bucket, path: &str, etag: &str) -> Result<bool, Error> {
    let mut watched = Duration::ZERO;
    while watched < WATCH {
        tokio::time::sleep(LOOK).await;
        watched += LOOK;
        if bucket.read(path).await?.is_none_or(|found| found.etag != etag) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn renew(
    (bucket, path): (Bucket, String),
    (mut holder, mut etag): (Holder, String),
    clock: fn() -> Timestamp,
    is_lost: Arc<AtomicBool>,
) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        holder.renewed = clock();
        let Ok(bytes) = holder.bytes() else { continue };
        match bucket.write(&path, &bytes, Condition::Same(&etag)).await {
            Ok(Put::Written(now)) => etag = now,
            // One that arrived and whose answer was lost is refused too; what stands there decides.
            Ok(Put::Refused) => match bucket.read(&path).await {
                Ok(Some(found)) if is_of(&found.bytes, &holder) => etag = found.etag,
                Ok(_) => return is_lost.store(true, Ordering::Relaxed),
                Err(_) => {}
            },
            // The line may come back.
            Err(_) => {}
        }
    }
}

fn is_of(bytes: &[u8], holder: &Holder) -> bool {
    serde_json::from_slice::<Holder>(bytes).is_ok_and(|found| found.nonce == holder.nonce)
}
