//! Object stores that speak S3, Supabase Storage before all: lists buckets, reads and writes objects,
//! probes them. No workflow.
//!
//! The server answers listings from rows and reads from bytes (facts of supabase/storage 1.11.2,
//! measured): a listing proves nothing about bytes, and a read proves one object.

mod client;
mod digest;
mod endpoint;
mod error;
mod keep;
mod rest;
mod upload;

pub use client::{Client, Listed, Pages, Probe, Received};
pub use digest::{Digests, EtagCheck};
pub use endpoint::{Endpoint, EndpointError};
pub use error::Error;
pub use keep::{Condition, Kept, Put};
pub use rest::{Rest, Written};
pub use upload::{PART, Upload};

use crate::secret::Secret;
use std::path::PathBuf;

/// Signs for the project's region too, unless a server is set to insist on its own
/// (supabase/storage, `signature-v4.ts`).
pub const DEFAULT_REGION: &str = "us-east-1";

/// Who says where the objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The project, whose own host it is, or a person, who named it in the environment.
    Vouched,
    /// A file of the repository alone, which many may change. What signs may be used there: the secret
    /// stays here, and a signature holds for that host only. What is sent as it is may not.
    File,
}

/// Where the objects of a target are, and with what they are read.
#[derive(Clone, Debug)]
pub struct Access {
    /// The S3 endpoint.
    pub endpoint: Endpoint,
    /// Who says so.
    pub origin: Origin,
    /// The region that is signed for; that of the profile, then [`DEFAULT_REGION`], without it.
    pub region: Option<String>,
    /// What signs; without it nothing can be read.
    pub keys: Option<Keys>,
    /// The service role's key for the REST half, which keeps every kind of metadata and moves objects.
    pub service_role: Option<Secret>,
}

/// What signs requests.
#[derive(Clone, Debug)]
pub enum Keys {
    /// A pair of S3 keys from the project's dashboard; it sees every bucket.
    Pair {
        /// The access key id.
        id: String,
        /// The secret access key.
        secret: Secret,
    },
    /// Keys that end with a session, as Amazon lends them to a CI job.
    Temporary {
        /// The access key id.
        id: String,
        /// The secret access key.
        secret: Secret,
        /// The session's token.
        token: Secret,
    },
    /// A profile of the AWS files, and nothing else of AWS's search order: that one would sign with
    /// the keys of whatever AWS account this shell has, and ask the cloud's metadata address.
    Profile {
        /// Its name.
        name: String,
        /// The `config` and the `credentials` file.
        files: [PathBuf; 2],
    },
    /// The project's own keys: signed with the anonymous one, read with the rights of the service
    /// role.
    Session {
        /// The project ref.
        project: String,
        /// The anonymous key.
        anon: Secret,
        /// The service role's key; it must be a JWT.
        service_role: Secret,
    },
}
