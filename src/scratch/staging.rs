//! A scratch on a server that the person gives.
//!
//! The copy takes the whole server, not a database of it. Roles, their settings, and the settings of a
//! database by its name belong to a server: a migration that makes a role or says `alter database postgres`
//! would meet what stands there beside the copy, and would be judged by it. A server that is first made as
//! empty as `initdb` makes one is restored into by the very steps of the other engines, and afterwards
//! nothing has to be told apart: it is emptied again.
//!
//! So everything in such a server is dropped, and that is what its mark says, which a person sets and which
//! holds the server's own system identifier. Before anything is dropped, in the session that drops: the
//! server is another one than the target's, its owner is called as the target's, no other session and no
//! worker of a library is there, and no database that no rehearsal made.
//!
//! A database of ours stands there as long as a copy does. It says whose copy it is, and a session in it says
//! that the run lives; without that session it is what a killed run left, and the next one starts by
//! removing that.

use super::{KEEPER_LOCK, PREFIX, fresh};
use crate::disk::{self, Lock};
use crate::postgres::connect::{self, Session};
use crate::postgres::identity;
use crate::resolve;
use crate::target::{Connection, Server, SslMode, Staging};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use tempfile::TempDir;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// The database that stands there as long as a copy does.
const OWN: &str = "supa_safe_scratch";
/// What is locked in `template1` while a run looks, empties, or clears up.
const GATE: i64 = 0x5355_5041_5341_4645;
/// Databases that every server has.
const USUAL: [&str; 3] = ["postgres", "template0", "template1"];

/// What acts by itself in a plain server (PostgreSQL documentation, `pg_stat_activity.backend_type`; read in
/// 15 to 17). Whatever else does belongs to a library.
const PLAIN: [&str; 15] = [
    "archiver",
    "autovacuum launcher",
    "autovacuum worker",
    "background writer",
    "checkpointer",
    "client backend",
    "logical replication launcher",
    "logical replication worker",
    "parallel worker",
    "slotsync worker",
    "startup",
    "walreceiver",
    "walsender",
    "walsummarizer",
    "walwriter",
];

/// Libraries of the Supabase image, and of PostgreSQL, that have no workers.
const HARMLESS: [&str; 10] = [
    "auth_delay",
    "auto_explain",
    "pg_stat_statements",
    "pgaudit",
    "pgsodium",
    "plan_filter",
    "plpgsql",
    "plpgsql_check",
    "supabase_vault",
    "supautils",
];

/// Why a server is not rehearsed on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session on it.
    #[error("cannot connect to the staging server")]
    Connect(#[from] connect::Error),
    /// It did not answer.
    #[error("the staging server did not answer")]
    Query(#[from] tokio_postgres::Error),
    /// The target could not be compared with it.
    #[error("cannot compare the staging server with the target")]
    Target(#[source] resolve::Error),
    /// The target did not answer.
    #[error("cannot compare the staging server with the target")]
    TargetQuery(#[source] tokio_postgres::Error),
    /// It hands server sessions out by transaction.
    #[error("`{0}` is a transaction pooler, and a staging server is reached directly")]
    TransactionPooler(String),
    /// It is a replica.
    #[error("`{0}` is a replica (pg_is_in_recovery() is true), and a staging server is written to")]
    Replica(String),
    /// It is the target.
    #[error(
        "`{0}` is the target's own server under another name: a lock that was taken on the target shows there"
    )]
    IsTarget(String),
    /// It may be the target.
    #[error(
        "`{0}` has the system identifier of the target's server: it is a replica or a physical clone of it, and no proof tells the two apart for good"
    )]
    Clone(String),
    /// It is of another major version.
    #[error("`{address}` runs Postgres {found}, and the target runs Postgres {wanted}")]
    OtherMajor {
        /// `host:port`.
        address: String,
        /// Its major version.
        found: u32,
        /// The target's.
        wanted: u32,
    },
    /// The role is not the server's owner, or that one is called otherwise than the target's.
    #[error(
        "role `{role}` cannot rehearse on `{address}`: it takes the server's owner (the role of initdb), called `{wanted}` as on the target; there it is `{owner}`"
    )]
    NotOwner {
        /// `host:port`.
        address: String,
        /// Who signed in.
        role: String,
        /// Who owns the server.
        owner: String,
        /// Who owns the target's.
        wanted: String,
    },
    /// Nobody said that it may be emptied.
    #[error("`{address}` is not marked as a scratch server")]
    Unmarked {
        /// `host:port`.
        address: String,
        /// The statement that marks it.
        statement: String,
    },
    /// It holds databases that no rehearsal made.
    #[error("`{address}` holds the {}, and a rehearsal drops everything there", in_words(.databases))]
    Foreign {
        /// `host:port`.
        address: String,
        /// Their names.
        databases: Vec<String>,
    },
    /// Something in it acts by itself.
    #[error("`{address}` has what may act on the copy by itself: {}", .acting.join(", "))]
    Acting {
        /// `host:port`.
        address: String,
        /// What it is.
        acting: Vec<String>,
    },
    /// Somebody else uses it.
    #[error("others are connected to `{address}`: {}", .sessions.join(", "))]
    Others {
        /// `host:port`.
        address: String,
        /// Who.
        sessions: Vec<String>,
    },
    /// It does not count what is written.
    #[error("`{0}` has track_counts off: what a migration writes could not be told")]
    Uncounted(String),
    /// Another rehearsal has it.
    #[error("another rehearsal works on `{0}`")]
    Busy(String),
    /// It could not be emptied.
    #[error("the staging server cannot be made empty")]
    NotEmpty(#[from] fresh::Error),
    /// What was put there is not there any more.
    #[error("`{0}` does not hold this run's copy any more: nothing there was touched")]
    NotOurs(String),
    /// The folder for its lists could not be made.
    #[error("cannot make a folder for the rehearsal")]
    Folder(#[source] io::Error),
}

fn in_words(databases: &[String]) -> String {
    let s = if databases.len() == 1 { "" } else { "s" };
    let names: Vec<String> = databases.iter().map(|name| format!("`{name}`")).collect();
    format!("database{s} {}", names.join(", "))
}

impl Error {
    /// What to do about it.
    pub fn hints(&self) -> Vec<String> {
        let devoted = "Take a server that is for rehearsals alone: all that is in it is dropped, before each of them and after it".to_owned();
        match self {
            Self::IsTarget(_) | Self::Clone(_) => {
                vec![devoted, "Make one with `initdb`, or start a new container of the Supabase image".to_owned()]
            }
            Self::Unmarked { statement, .. } => vec![
                format!("Run there, if it is for rehearsals alone: {statement}"),
                "With that mark every database and every role of the server, but those of initdb, is dropped before each rehearsal and after it".to_owned(),
            ],
            Self::Foreign { databases, .. } => vec![
                devoted,
                format!("Or drop there what nobody needs: drop database {}", databases.join("; drop database ")),
            ],
            Self::NotOwner { wanted, .. } => vec![
                format!("Sign in as the owner of a server that was made with `initdb --username={wanted}`; in a container of the Supabase image that is supabase_admin"),
                "A hosted project cannot be one: its owner is the platform's".to_owned(),
            ],
            Self::Acting { .. } => vec![
                "Start that server with `max_worker_processes = 0`, or without the library: jobs and requests of the copy could run".to_owned(),
            ],
            Self::Others { .. } => vec![
                "End them, or take another server: they would work on a copy of the target's rows".to_owned(),
            ],
            Self::Uncounted(_) => vec!["Start that server with `track_counts = on`".to_owned()],
            Self::TransactionPooler(_) => vec!["Use the server's own address".to_owned()],
            Self::Replica(_) => vec!["Use the address of a primary".to_owned()],
            Self::OtherMajor { wanted, .. } => vec![format!("Take a server of Postgres {wanted}")],
            Self::Busy(_) => vec!["Wait until it has ended, then run again".to_owned()],
            Self::Connect(_) => vec![
                "Check the URL that `--rehearse`, SUPA_SAFE_REHEARSE_ENGINE, or `engine` under [rehearse] gives; set the password in SUPA_SAFE_STAGING_PASSWORD".to_owned(),
            ],
            Self::Query(_) | Self::Target(_) | Self::TargetQuery(_) | Self::NotEmpty(_) | Self::NotOurs(_) | Self::Folder(_) => Vec::new(),
        }
    }

    /// Whether the person gave a server that cannot be one.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Connect(_)
                | Self::Query(_)
                | Self::Target(_)
                | Self::TargetQuery(_)
                | Self::Busy(_)
                | Self::NotEmpty(_)
                | Self::NotOurs(_)
                | Self::Folder(_)
        )
    }
}

/// What stands with a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Which run.
    token: String,
    /// Whose copy.
    target: String,
    /// The database of the copy.
    database: String,
    /// When it was begun, by the server's clock.
    since: String,
}

/// A server that may be rehearsed on, and the session that saw it.
struct Examined {
    session: Session,
    server: Server,
    /// What a killed run left.
    left: Option<Note>,
}

/// A server that is held for a copy.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) staging: Staging,
    session: Session,
    dir: TempDir,
    _lock: Lock,
    /// What a killed run had left there.
    pub(super) left: Option<String>,
    /// What it is not as the target.
    pub(super) limits: Vec<String>,
}

impl Held {
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Why the session is gone that holds the server, if it is: a server that was started again meanwhile answers
    /// a new one.
    pub(super) async fn lost(&self) -> Option<connect::Error> {
        let source = self.session.client.batch_execute("").await.err()?;
        Some(connect::Error::Other { address: self.staging.connection.address(), source })
    }
}

/// Makes sure that a server may be rehearsed on; nothing there is changed.
pub async fn check(staging: &Staging) -> Result<Server, Error> {
    let Examined { session, server, .. } = examine(staging).await?;
    session.close().await;
    Ok(server)
}

async fn examine(staging: &Staging) -> Result<Examined, Error> {
    let session = connect::writable(&staging.connection).await?;
    let second = connect::writable(&staging.connection).await?;
    let is_shared = identity::shares_sessions(&session, &second).await;
    second.close().await;
    let address = staging.connection.address();
    if is_shared? {
        return Err(Error::TransactionPooler(address));
    }
    let seen = identity::look(&session.client, &address).await?;
    if seen.in_recovery {
        return Err(Error::Replica(address));
    }
    is_another(staging, &session.client, &seen.identity.system_identifier).await?;
    let (found, wanted) = (seen.server.major(), staging.target.server.major());
    if found != wanted {
        return Err(Error::OtherMajor { address, found, wanted });
    }
    is_owned(staging, &session.client, &seen.server).await?;
    let mark = format!("supa-safe: scratch server {}", seen.identity.system_identifier);
    if comment(&session.client, "template1").await?.as_deref() != Some(&*mark) {
        let statement = format!("comment on database template1 is '{mark}'");
        return Err(Error::Unmarked { address, statement });
    }
    let left = is_free(&session.client, &address).await?;
    is_inert(&session.client, &address).await?;
    Ok(Examined { session, server: seen.server, left })
}

/// Proves that a session is not on the target's server, whatever either of them is called.
///
/// Two databases of one server share its identifier, and so do replicas and physical clones. Whether a lock
/// that is taken on one side shows on the other tells which of these it is; it is asked in any case, since
/// it does not lean on what a server says of itself.
async fn is_another(staging: &Staging, client: &Client, system_identifier: &str) -> Result<(), Error> {
    let key = disk::random::<7>().map_err(Error::Folder)?;
    let key = key.into_iter().fold(0_i64, |key, byte| (key << 8) | i64::from(byte));
    let target = resolve::reopen(&staging.target).await.map_err(Error::Target)?;
    let locked = target.client.execute("select pg_catalog.pg_advisory_lock($1)", &[&key]).await;
    let shows = client
        .query_one(
            "select exists (select from pg_catalog.pg_locks where locktype = 'advisory'
               and ((classid::int8 << 32) | objid::int8) = $1)",
            &[&key],
        )
        .await;
    target.close().await;
    locked.map_err(Error::TargetQuery)?;
    let address = staging.connection.address();
    if shows?.get::<_, bool>(0) {
        return Err(Error::IsTarget(address));
    }
    if staging.target.identity.system_identifier == system_identifier {
        return Err(Error::Clone(address));
    }
    Ok(())
}

async fn is_owned(staging: &Staging, client: &Client, server: &Server) -> Result<(), Error> {
    let row = client
        .query_one(
            "select rolname::text, oid = 10 and rolsuper, pg_catalog.current_setting('track_counts')::bool
             from pg_catalog.pg_roles where rolname = session_user",
            &[],
        )
        .await?;
    let address = staging.connection.address();
    let (owner, wanted) = (server.bootstrap_role.clone(), staging.target.server.bootstrap_role.clone());
    if !row.get::<_, bool>(1) || owner != wanted {
        return Err(Error::NotOwner { address, role: row.get(0), owner, wanted });
    }
    if row.get(2) { Ok(()) } else { Err(Error::Uncounted(address)) }
}

async fn comment(client: &Client, database: &str) -> Result<Option<String>, Error> {
    let row = client
        .query_opt(
            "select pg_catalog.shobj_description(oid, 'pg_database') from pg_catalog.pg_database
             where datname = $1",
            &[&database],
        )
        .await?;
    Ok(row.map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()))
}

/// Makes sure that nobody uses the server, and takes the gate; returns what a killed run left there.
async fn is_free(client: &Client, address: &str) -> Result<Option<Note>, Error> {
    client.batch_execute("set lock_timeout = '30s'").await?;
    match client.execute("select pg_catalog.pg_advisory_lock($1)", &[&GATE]).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(Error::Busy(address.to_owned()));
        }
        other => drop(other?),
    }
    let left = comment(client, OWN).await?;
    // A run that was killed before it wrote its note had put nothing there yet.
    let left = left.and_then(|note| serde_json::from_str::<Note>(&note).ok());
    let is_ours = |name: &str| {
        USUAL.contains(&name) || name == OWN || left.as_ref().is_some_and(|note| note.database == name)
    };
    let databases = client.query("select datname::text from pg_catalog.pg_database order by 1", &[]).await?;
    let mut databases: Vec<String> = databases.iter().map(|row| row.get(0)).collect();
    databases.retain(|name| !is_ours(name));
    if !databases.is_empty() {
        return Err(Error::Foreign { address: address.to_owned(), databases });
    }
    // What is connected to a copy without a run is what that run had started: it goes with the copy.
    let of_copy: Vec<&str> = left.iter().flat_map(|note| ["postgres", note.database.as_str()]).collect();
    let sessions = client
        .query(
            "select datname is not distinct from $1, coalesce(usename::text, '') || ' in '
                    || coalesce(datname::text, 'no database')
                    || ' (' || pid || coalesce(', ' || nullif(application_name, ''), '') || ')'
             from pg_catalog.pg_stat_activity
             where backend_type in ('client backend', 'walsender') and pid <> pg_catalog.pg_backend_pid()
               and coalesce(datname::text, '') <> all($2)
               and not (usename = session_user and datname = 'template1' and application_name = 'supa-safe')
             order by pid",
            &[&OWN, &of_copy],
        )
        .await?;
    if sessions.iter().any(|row| row.get(0)) {
        return Err(Error::Busy(address.to_owned()));
    }
    if !sessions.is_empty() {
        let sessions = sessions.iter().map(|row| row.get(1)).collect();
        return Err(Error::Others { address: address.to_owned(), sessions });
    }
    Ok(left)
}

/// Makes sure that nothing there works by itself. A worker that waits for its database to appear shows
/// nowhere, and so its library is enough, unless the server lets nothing of that kind run.
async fn is_inert(client: &Client, address: &str) -> Result<(), Error> {
    let rows = client
        .query(
            "select distinct 'worker `' || backend_type || '`' from pg_catalog.pg_stat_activity
               where backend_type <> all($1)
             union all
             select 'library `' || name || '`'
               from pg_catalog.unnest(pg_catalog.string_to_array(
                 pg_catalog.current_setting('shared_preload_libraries'), ',')) listed,
               pg_catalog.regexp_replace(pg_catalog.btrim(listed, ' \"'), '^.*/|[.]so$', '', 'g') name
               where name <> '' and name <> all($2)
                 and pg_catalog.current_setting('max_worker_processes')::int4 > 0
             order by 1",
            &[&PLAIN.as_slice(), &HARMLESS.as_slice()],
        )
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let acting = rows.iter().map(|row| row.get(0)).collect();
    Err(Error::Acting { address: address.to_owned(), acting })
}

/// Empties a server that may be rehearsed on, and holds it.
///
/// Returns how to reach it, with a way of TLS that leaves nothing open: a program of somebody else must not
/// fall back to less than our own session got.
pub(super) async fn begin(staging: &Staging, base_dir: &Path) -> Result<(Held, Connection), Error> {
    let Examined { session, server, left } = examine(staging).await?;
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(base_dir).map_err(Error::Folder)?;
    let lock = Lock::take(&dir.path().join(KEEPER_LOCK)).map_err(Error::Folder)?;
    let lock = lock.ok_or_else(|| Error::Folder(io::ErrorKind::ResourceBusy.into()))?;
    staging.set_in_use(true);
    if left.is_some() {
        // Until it is gone, the note that knows it stays.
        fresh::empty(&session.client, &staging.connection, Some(OWN)).await?;
    }
    put_note(&session.client, staging).await?;
    fresh::empty(&session.client, &staging.connection, Some(OWN)).await?;
    let own = Connection { database: OWN.to_owned(), ..staging.connection.clone() };
    let held = connect::writable(&own).await?;
    held.client.batch_execute(connect::NOTICE_SILENCE).await?;
    session.close().await;
    let ssl_mode = match (server.tls, staging.connection.ssl_mode) {
        (false, SslMode::Disable | SslMode::Prefer) => SslMode::Disable,
        (_, mode) => mode.max(SslMode::Require),
    };
    let connection = Connection { ssl_mode, ..staging.connection.clone() };
    let left = left.map(|note| {
        format!(
            "removed from the staging server {} what a rehearsal for {} left there, which began at {} and was killed",
            staging.connection.address(), note.target, note.since
        )
    });
    let limits = limits(staging, &server);
    Ok((Held { staging: staging.clone(), session: held, dir, _lock: lock, left, limits }, connection))
}

/// Says whose copy is about to stand there.
async fn put_note(client: &Client, staging: &Staging) -> Result<(), Error> {
    if comment(client, OWN).await?.is_none() {
        client.batch_execute(&format!("create database {OWN} template template0")).await?;
    }
    let since = identity::clock(client).await?.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    let target = &staging.target;
    let note = Note {
        token: staging.token.clone(),
        target: target.name().to_owned(),
        database: staging.database().to_owned(),
        since,
    };
    let note = serde_json::to_string(&note).map_err(|error| Error::Folder(error.into()))?;
    let row = client
        .query_one(
            "select pg_catalog.format('comment on database %I is %L', $1::text, $2::text)",
            &[&OWN, &note],
        )
        .await?;
    Ok(client.batch_execute(row.get(0)).await?)
}

/// What such a server is not as the target, beside what a comparison shows.
fn limits(staging: &Staging, server: &Server) -> Vec<String> {
    let mut limits = vec![
        "the staging server has a network: what a migration itself calls (http, dblink, a foreign server) was really called".to_owned(),
    ];
    let wanted = &staging.target.server;
    let locks =
        |server: &Server| u64::from(server.max_connections) * u64::from(server.max_locks_per_transaction);
    if locks(server) > locks(wanted) {
        limits.push(format!(
            "the staging server has room for {} locks and the target for {}: a push that needs more fails on the target",
            locks(server),
            locks(wanted)
        ));
    }
    limits
}

/// Gives a held server back, empty.
pub(super) async fn end(held: Held) -> Result<(), Error> {
    let Held { staging, session, .. } = held;
    // Whoever looks meanwhile sees that the run lives.
    let outcome = clear(&staging).await;
    session.close().await;
    outcome
}

/// Empties a server after this very run.
pub async fn clear(staging: &Staging) -> Result<(), Error> {
    let session = connect::writable(&staging.connection).await?;
    let client = &session.client;
    client.batch_execute("set lock_timeout = '30s'").await?;
    client.execute("select pg_catalog.pg_advisory_lock($1)", &[&GATE]).await?;
    let note = comment(client, OWN).await?;
    let note = note.and_then(|note| serde_json::from_str::<Note>(&note).ok());
    if note.is_none_or(|note| note.token != staging.token) {
        return Err(Error::NotOurs(staging.connection.address()));
    }
    fresh::empty(client, &staging.connection, Some(OWN)).await?;
    client.batch_execute(&format!("drop database {OWN} with (force)")).await?;
    staging.set_in_use(false);
    session.close().await;
    Ok(())
}
