//! Runs a rollback on a target: tries again when a lock does not come, and settles its commit.

use super::{Error, Mode, Moment, PATIENCE, Proved, Task, bring_back_announced, locks, storage};
use crate::context::Context;
use crate::event::{Event, Reached, Step};
use crate::fingerprint::Class;
use crate::manifest::{SnapshotId, qualified};
use crate::postgres::connect::{self, Session};
use crate::salvage;
use crate::target::Target;
use std::path::Path;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// How long each attempt waits for a lock; between two of them others get their turn. Whoever reads the
/// table that is waited for waits behind us, so the first attempts are short: shorter than the server lets
/// two wait for each other before it ends one of them (PostgreSQL documentation, `deadlock_timeout`).
const ATTEMPTS: [Duration; 8] = [
    Duration::from_millis(900),
    Duration::from_millis(900),
    Duration::from_millis(900),
    Duration::from_millis(900),
    Duration::from_millis(900),
    Duration::from_secs(3),
    Duration::from_secs(3),
    PATIENCE,
];
const PAUSE: Duration = Duration::from_secs(2);
/// How often the end of a transaction is asked for.
const QUESTIONS: u32 = 5;

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stands.
    Committed,
    /// Nothing of it stands.
    Aborted,
    /// Its number is yet to come: the server was restored to an earlier time.
    Never,
    /// The server is still at it.
    InProgress,
    /// The server has forgotten it.
    Unknown,
}

/// A rollback that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// It was not proved, and nothing was committed.
    #[error(transparent)]
    Rollback(#[from] Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Storage could not be taken back.
    #[error(transparent)]
    Storage(#[from] salvage::Error),
    /// Objects are to be brought back, and nothing says where Storage is.
    #[error("objects of Storage are still to be brought back, and nothing says where it is")]
    NoWay,
    /// It was proved, and whether it was committed is not known.
    #[error(
        "the connection was lost while the rollback was committed, and the server does not say whether it was"
    )]
    Unsettled(#[source] tokio_postgres::Error),
}

/// A target that is taken back in a transaction that is still open. Dropping it changes nothing.
#[derive(Debug)]
pub struct Ready {
    session: Session,
    /// What was proved.
    pub proved: Proved,
}

/// What others are told of a rollback when its transaction begins.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// The run.
    pub run: &'a str,
    /// The machine.
    pub host: &'a str,
    /// The folder of the rollback.
    pub folder: &'a Path,
    /// The snapshot.
    pub snapshot: &'a SnapshotId,
    /// Whether the database goes back, or Storage alone.
    pub database: bool,
    /// How much goes back.
    pub mode: Mode,
    /// Versions that go from the history.
    pub versions: &'a [String],
}

impl Announcement<'_> {
    /// Records how far a transaction is. One that has touched nothing yet is recorded in the store as well:
    /// whatever becomes of this machine, any other one can ask the server how it ended. Nobody waits for it
    /// meanwhile.
    async fn tell(&self, moment: Moment<'_>, context: &Context) -> Result<(), Error> {
        moment.reached().for_each(|reached| context.reached(reached));
        let Moment::Begun(transaction) = moment else { return Ok(()) };
        let begun = Event::RollbackBegun {
            snapshot: self.snapshot.clone(),
            transaction: transaction.to_owned(),
            database: self.database,
            mode: self.mode.as_str(),
            versions: self.versions.to_vec(),
            host: self.host.to_owned(),
            folder: self.folder.display().to_string(),
        };
        context.keep(&begun)?;
        Ok(context.store.share_run(self.run).await?)
    }
}

/// Takes the target back, and leaves the transaction open.
pub async fn prove(
    target: &Target,
    task: &Task<'_>,
    context: &Context,
    announcement: &Announcement<'_>,
) -> Result<Ready, NotDone> {
    let mut attempt = 0;
    let mut tables = task.tables.to_vec();
    loop {
        let patience = ATTEMPTS.get(attempt).copied().unwrap_or(PATIENCE);
        let session = connect::writable(&target.connection).await?;
        let task = Task { tables: &tables, patience, ..*task };
        let announce = async |moment: Moment<'_>| announcement.tell(moment, context).await;
        match bring_back_announced(&session.client, &task, announce).await {
            Ok(proved) => return Ok(Ready { session, proved }),
            Err(error) if in_the_way(&error).is_some_and(|table| !tables.contains(&table)) => {
                session.close().await;
                let table = in_the_way(&error).unwrap_or_default();
                context.note(format!(
                    "rows of {table} that were written since do not fit what goes back: it goes back too, and its rows are kept"
                ));
                tables.push(table);
            }
            Err(error) if attempt + 1 < ATTEMPTS.len() && (is_passing(&error) || is_by_others(&error)) => {
                session.close().await;
                let what = match &error {
                    Error::LargeObjects => "large objects were written meanwhile",
                    error if is_by_others(error) => "the platform changed meanwhile",
                    _ => "a lock did not come",
                };
                attempt += 1;
                context.note(format!("{what}, attempt {attempt} of {}: nothing was changed", ATTEMPTS.len()));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                session.close().await;
                return Err(error.into());
            }
        }
    }
}

/// Takes the rows of Storage back and nothing else, and leaves the transaction open.
pub async fn prove_storage(
    target: &Target,
    saved: &salvage::Saved,
    context: &Context,
    announcement: &Announcement<'_>,
) -> Result<Ready, NotDone> {
    let session = connect::writable(&target.connection).await?;
    let announce = async |moment: Moment<'_>| announcement.tell(moment, context).await;
    let proved = storage::rows(&session.client, (saved, announcement.mode), announce).await?;
    Ok(Ready { session, proved })
}

/// Commits. Whether a commit that was cut off stands is asked of the server.
pub async fn commit(
    target: &Target,
    snapshot: &SnapshotId,
    ready: Ready,
    context: &Context,
) -> Result<Proved, NotDone> {
    let Ready { session, proved } = ready;
    let snapshot = snapshot.clone();
    context.reached(Reached::begin(Step::Commit));
    // A later run that finds no word of this transaction would take the target for damaged, and begin again.
    let event = Event::RollingBack { snapshot, transaction: proved.transaction.clone() };
    context.keep(&event).map_err(Error::Io)?;
    // PostgREST reads the schema anew (PostgREST documentation, Schema Cache).
    let sql = "notify pgrst, 'reload schema'; notify pgrst, 'reload config'; commit";
    let outcome = session.client.batch_execute(sql).await;
    session.close().await;
    let Err(lost) = outcome else {
        context.reached(Reached::end(Step::Commit));
        return Ok(proved);
    };
    // Even an error that a server sends may be a pooler's, which lost the real one.
    match fate(target, &proved.transaction).await {
        Ok(Fate::Committed) => {
            context.reached(Reached::end(Step::Commit));
            Ok(proved)
        }
        Ok(Fate::Aborted | Fate::Never) => Err(Error::Statement { stage: "commit", source: lost }.into()),
        Ok(Fate::InProgress | Fate::Unknown) | Err(_) => Err(NotDone::Unsettled(lost)),
    }
}

/// Asks the server what became of a transaction; one that is still going is waited for.
pub async fn fate(target: &Target, transaction: &str) -> Result<Fate, NotDone> {
    let session = connect::read_only(&target.connection).await?;
    let sql = "select pg_catalog.pg_xact_status($1::text::pg_catalog.xid8)";
    let mut fate = Fate::InProgress;
    for _ in 0..QUESTIONS {
        let row = match session.client.query_one(sql, &[&transaction]).await {
            Ok(row) => row,
            Err(error) if error.code() == Some(&SqlState::INVALID_PARAMETER_VALUE) => {
                fate = Fate::Never;
                break;
            }
            Err(error) => return Err(Error::Query(error).into()),
        };
        fate = match row.get::<_, Option<String>>(0).as_deref() {
            Some("committed") => Fate::Committed,
            Some("aborted") => Fate::Aborted,
            Some(_) => Fate::InProgress,
            None => Fate::Unknown,
        };
        if fate != Fate::InProgress {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    session.close().await;
    Ok(fate)
}

/// The user's table that stayed, and of which rows refer to what is gone with the snapshot, or break a
/// rule that comes back with it.
fn in_the_way(error: &Error) -> Option<String> {
    const RULES: [SqlState; 5] = [
        SqlState::FOREIGN_KEY_VIOLATION,
        SqlState::NOT_NULL_VIOLATION,
        SqlState::CHECK_VIOLATION,
        SqlState::UNIQUE_VIOLATION,
        SqlState::EXCLUSION_VIOLATION,
    ];
    let said = error.server().filter(|said| RULES.contains(said.code()))?;
    let (schema, name) = (said.schema()?, said.table()?);
    (Class::of_rows(schema, name) == Class::Owned).then(|| qualified(schema, name))
}

/// Something that went or changed while we were at work: it may have been the platform, or users.
fn is_by_others(error: &Error) -> bool {
    matches!(error, Error::Platform(_) | Error::LargeObjects)
}

/// A lock that did not come, or not all of them in time, a table that went while its lock was waited for, and being the
/// one whom the server picks to end a deadlock.
pub fn is_passing(error: &Error) -> bool {
    let is_locking = matches!(error, Error::Statement { stage: locks::STAGE, .. });
    error.server().is_some_and(|said| {
        [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(said.code())
            || (is_locking && [SqlState::QUERY_CANCELED, SqlState::UNDEFINED_TABLE].contains(said.code()))
    })
}
