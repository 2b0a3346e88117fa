//! Finds the target and pins it: which server, which database, through which kind of door.

pub mod linked;

use crate::postgres::connect::{self, Session};
use crate::postgres::identity;
use crate::target::{Connection, EndpointKind, Identity, Project, Target};

/// Why a target could not be pinned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// A question to the server failed.
    #[error("the target did not answer a question about itself")]
    Query(#[from] tokio_postgres::Error),
    /// The address hands server sessions out by transaction.
    #[error(
        "`{0}` is a transaction pooler: it gave one server session to two of ours, and a dump through it can be wrong without an error"
    )]
    TransactionPooler(String),
    /// The server is a replica.
    #[error("`{0}` is a replica (pg_is_in_recovery() is true): it cannot be migrated")]
    Replica(String),
    /// The server's version is not supported.
    #[error("`{address}` runs Postgres {version}; supported are 15, 16, and 17")]
    Version {
        /// `host:port`.
        address: String,
        /// Its version.
        version: String,
    },
    /// The address leads to another database than before.
    #[error("`{name}` is another database than a moment ago: {}", differences.join("; "))]
    Moved {
        /// The target.
        name: String,
        /// What differs.
        differences: Vec<String>,
    },
}

/// Majors that the platform runs, with 16 between them.
const SUPPORTED: std::ops::RangeInclusive<u32> = 15..=17;

/// What a run is about, before its server was asked.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name that its evidence stands under, and that a person confirms.
    pub name: String,
    /// How to reach it.
    pub connection: Connection,
    /// What kind of door that is.
    pub kind: EndpointKind,
    /// The project that it belongs to.
    pub project: Option<Project>,
    /// Whether the connection was made from the project's ref, and not from a URL.
    pub linked: bool,
}

/// Connects, refuses what cannot be migrated or dumped, and pins the identity.
pub async fn resolve(wanted: Wanted) -> Result<Target, Error> {
    let first = connect::read_only(&wanted.connection).await?;
    let second = connect::read_only(&wanted.connection).await?;
    let pinned = pin(wanted, &first, &second).await;
    first.close().await;
    second.close().await;
    pinned
}

async fn pin(wanted: Wanted, first: &Session, second: &Session) -> Result<Target, Error> {
    let Wanted { name, connection, kind, project, linked: _ } = wanted;
    if identity::shares_sessions(first, second).await? {
        return Err(Error::TransactionPooler(connection.address()));
    }
    let seen = identity::look(&first.client, &name).await?;
    if seen.in_recovery {
        return Err(Error::Replica(connection.address()));
    }
    if !SUPPORTED.contains(&seen.server.major()) {
        return Err(Error::Version { address: connection.address(), version: seen.server.version() });
    }
    Ok(Target { connection, project, kind, identity: seen.identity, server: seen.server })
}

/// Opens a read-only session on the pinned target, and makes sure that it is still the same.
pub async fn reopen(target: &Target) -> Result<Session, Error> {
    let session = connect::read_only(&target.connection).await?;
    demand_same(target, &session).await?;
    Ok(session)
}

/// Makes sure that a session is on the pinned target.
pub async fn demand_same(target: &Target, session: &Session) -> Result<(), Error> {
    let seen = identity::look(&session.client, target.name()).await?;
    same(&target.identity, &seen.identity)
}

/// Makes sure that the password at hand signs in for a while: for a program that opens sessions of
/// its own.
pub async fn refresh(target: &Target) -> Result<(), Error> {
    Ok(connect::refresh(&target.connection).await?)
}

fn same(pinned: &Identity, seen: &Identity) -> Result<(), Error> {
    let differences = seen.differences(pinned);
    if differences.is_empty() { Ok(()) } else { Err(Error::Moved { name: pinned.name.clone(), differences }) }
}
