//! Brings the objects of Storage back, and saves what is in their place before.
//!
//! After rows were restored, listings and HEAD answer from them as if nothing had happened, while
//! the bytes of whatever the API touched are gone. So the difference is taken from rows *before*
//! anything is restored, and afterwards only a conditional GET counts.
//!
//! The stages, each a call, and each may be called again after a crash:
//!
//! 1. [`classify`] reads both sides and makes the [`Plan`]; nothing changes.
//! 2. [`save`] fetches the bytes of every live object that will be overwritten or deleted into the
//!    content store, and writes down what was saved and the plan itself; nothing changes yet. Without
//!    keys, [`defer`] leaves to a later run what takes a look at bytes.
//! 3. [`rows`] does what SQL alone can do, inside the caller's transaction. Every id of the snapshot
//!    exists afterwards, so that foreign keys hold.
//! 4. [`bytes`], after COMMIT, moves, uploads, and removes through the API, and gives the rows what
//!    an upload does not keep. It looks at the live rows and bytes anew, so it finishes what another
//!    one began; [`resume`] reads the plan back.
//! 5. [`compare`] says in words what is not as it was.

mod bytes;
mod classify;
mod compare;
mod live;
mod place;
mod plan;
mod rows;
mod save;
mod scope;

pub use bytes::{Removal, Restored, Theirs, bytes};
pub use classify::{Probing, classify, touched};
pub use compare::compare;
pub use plan::{Bucket, Change, Item, Left, Merge, Plan, Why};
pub use rows::{Rows, not_as_before, rows};
pub use save::{Saved, Way, defer, foresee, nothing, resume, save};
pub use scope::{Mark, Scope, Touched};

use crate::objects::{self, Access, Client, Rest};
use crate::postgres::storage;
use crate::store::Objects;
use std::io;

/// The tables that hold its rows.
pub const TABLES: [&str; 2] = ["storage.objects", "storage.buckets"];

/// Objects that are read, probed, or written at once.
const TRANSFERS: usize = 8;

/// Why Storage could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows could not be read or written.
    #[error(transparent)]
    Rows(#[from] storage::Error),
    /// A statement failed.
    #[error("the database refused a statement on the rows of Storage")]
    Query(#[from] tokio_postgres::Error),
    /// The endpoint failed.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// A line of an index or of the plan is not what this program writes.
    #[error("a record of Storage's objects cannot be read")]
    Record(#[source] serde_json::Error),
    /// The bytes of an object are not in the store.
    #[error("the bytes of object {object} are not in the store, and it has to be uploaded")]
    Lost {
        /// Bucket and key, in words.
        object: String,
    },
    /// Somebody wrote to an object, or moved it, while it was moved.
    #[error("somebody changed object {object} while it was moved back; what it has become is left alone")]
    Meanwhile {
        /// Bucket and key, in words.
        object: String,
    },
    /// A file could not be read or written.
    #[error("cannot keep what is saved of Storage")]
    Io(#[from] io::Error),
}

/// What a slow line takes in a second, for an estimate.
const BYTES_PER_SECOND: u64 = 2_000_000;
/// Objects that are moved or uploaded in a second at least, for an estimate.
const OBJECTS_PER_SECOND: u64 = 20;

/// Minutes that objects take to come back at most, whatever is known of the line.
pub fn minutes(objects: u64, bytes: u64) -> u64 {
    (objects / OBJECTS_PER_SECOND + bytes / BYTES_PER_SECOND).div_ceil(60).max(1)
}

/// How Storage is reached, and where bytes are kept.
#[derive(Clone, Debug)]
pub struct Reach {
    s3: Client,
    rest: Option<Rest>,
    objects: Objects,
}

impl Reach {
    /// Signs in. Without the service role's key everything goes through the S3 protocol.
    pub async fn open(access: &Access, objects: Objects) -> Result<Self, Error> {
        let s3 = Client::new(access).await?;
        let rest = access.service_role.as_ref().and_then(|key| Rest::new(&access.endpoint, key));
        if let Some(rest) = &rest {
            rest.sign_in().await?;
        }
        Ok(Self { s3, rest, objects })
    }
}
