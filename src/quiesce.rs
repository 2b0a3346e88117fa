//! Pauses what the Data API writes, from the consistency point of a snapshot until a push is over, and ends that.
//!
//! The transaction that pauses exports a snapshot before it commits: who imports that sees no pause, and no write
//! of the Data API comes after it. The tables are locked only until the snapshot is held elsewhere.

use crate::context::Context;
use crate::event::{Event, Holder};
use crate::manifest::Taken;
use crate::postgres::connect::{self, NOTICE_SILENCE, Session};
use crate::postgres::pause::{self, Found, Mark, Scope, Standing};
use crate::postgres::{identity, rows, waits};
use crate::resolve;
use crate::target::Target;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How long an attempt waits for writers at work, at most: whoever waits for us does so for less time than the
/// server takes to look for a deadlock (PostgreSQL documentation, `deadlock_timeout`, a second by default).
const PATIENCE: Duration = Duration::from_millis(900);
/// How often that is tried, and how long others get their turn in between.
const ATTEMPTS: u32 = 12;
const BETWEEN: Duration = Duration::from_secs(2);
/// How often a trigger that cannot be dropped is tried again.
const ROUNDS: u32 = 10;
const BETWEEN_ROUNDS: Duration = Duration::from_secs(1);
/// How often a pause is ended again whose session was lost.
const RELEASES: u32 = 6;
const BETWEEN_RELEASES: Duration = Duration::from_secs(5);

/// Why writes are not paused, or why a pause was not ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target cannot be opened, or is another database now.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// A statement failed.
    #[error("cannot {doing}")]
    Query {
        /// What was being done.
        doing: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Writers went on and on.
    #[error(
        "the tables could not be locked against their writers within {ATTEMPTS} attempts{}",
        in_words(.0)
    )]
    Busy(Vec<Holder>),
    /// A schema has the name of ours.
    #[error("the target has a schema `{}` that no run of supa-safe made", pause::SCHEMA)]
    Foreign,
    /// Nobody writes through an API.
    #[error("the target has no role `authenticator`, so no role of a Data API whose writes could be paused")]
    NoRoles,
    /// A pause stands already.
    #[error("writes to the target are paused: {}", .0.in_words())]
    Paused(Box<Mark>),
    /// Whoever comes after this run would not know of the pause.
    #[error("cannot write the record of this run")]
    NotOnRecord(#[source] std::io::Error),
    /// Somebody ended it while the snapshot was taken.
    #[error("the write pause of this run does not stand any more: somebody ended it")]
    Ended,
    /// The server gave no snapshot.
    #[error("the server exported no snapshot")]
    NoSnapshot,
}

fn in_words(holders: &[Holder]) -> String {
    holders.first().map(|holder| format!(": {holder}")).unwrap_or_default()
}

fn doing(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
    move |source| Error::Query { doing, source }
}

impl Error {
    /// Whether a lock did not come, or the tables changed while they were taken.
    fn is_passing(&self) -> bool {
        let passing = [
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNDEFINED_TABLE,
        ];
        matches!(self, Self::Query { source, .. } if source.code().is_some_and(|code| passing.contains(code)))
    }

    /// Whether there was no session, or no answer in it.
    fn is_lost(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Query { source, .. } => source.as_db_error().is_none(),
            _ => false,
        }
    }
}

/// What a pause would be about, and what stands in its way; nothing is changed.
pub async fn foresee(target: &Target) -> Result<Scope, Error> {
    let session = resolve::reopen(target).await?;
    let outcome = look(&session.client).await;
    session.close().await;
    outcome
}

async fn look(client: &Client) -> Result<Scope, Error> {
    demand_none(client).await?;
    let scope = pause::scope(client).await.map_err(doing("list the tables that are to be paused"))?;
    if scope.roles.is_empty() { Err(Error::NoRoles) } else { Ok(scope) }
}

/// Fails where a pause stands, or something that has its name.
async fn demand_none(client: &Client) -> Result<(), Error> {
    match pause::find(client).await.map_err(doing("look for a write pause"))? {
        Found::Nothing => Ok(()),
        Found::Foreign => Err(Error::Foreign),
        Found::Standing(standing) => Err(Error::Paused(Box::new(standing.mark))),
    }
}

/// Fails where a pause stands: a dump would hold its triggers.
pub async fn demand_no_pause(client: &Client) -> Result<(), Error> {
    match demand_none(client).await {
        Err(Error::Foreign) => Ok(()),
        outcome => outcome,
    }
}

/// A consistency point from which on nothing is written through the Data API.
#[derive(Clone, Debug)]
pub struct Given {
    /// The name of the exported snapshot.
    pub exported: String,
    /// When.
    pub taken: Taken,
}

/// A pause that begins when a snapshot asks for its consistency point.
#[derive(Debug)]
pub struct Pause<'a> {
    target: &'a Target,
    anchor: &'a Client,
    mark: Mark,
    given: OnceCell<Given>,
}

impl<'a> Pause<'a> {
    /// A pause of a run. The session holds the consistency point until it is let go.
    pub fn new(target: &'a Target, anchor: &'a Client, (run, host): (&str, &str)) -> Self {
        let mark = Mark::new(run, host, target.connection.role());
        Self { target, anchor, mark, given: OnceCell::new() }
    }

    /// Pauses, the first time it is asked.
    pub async fn begin(&self, context: &Context) -> Result<&Given, Error> {
        self.given.get_or_try_init(|| self.pause(context)).await
    }

    /// Lets the consistency point go; the pause stands on.
    pub async fn let_go(&self) -> Result<(), Error> {
        self.anchor.batch_execute("commit").await.map_err(doing("let the consistency point go"))
    }

    async fn pause(&self, context: &Context) -> Result<Given, Error> {
        for attempt in 1..=ATTEMPTS {
            let error = match self.attempt(context).await {
                Err(error) if error.is_passing() => error,
                outcome => return outcome,
            };
            context.note(format!(
                "writers are at work, attempt {attempt} of {ATTEMPTS} to pause them: {}",
                crate::failure::chain(&error).join(": ")
            ));
            if attempt < ATTEMPTS {
                tokio::time::sleep(BETWEEN).await;
            }
        }
        let scope = pause::scope(self.anchor).await.map_err(doing("list the tables"))?;
        let pids = pause::in_the_way(self.anchor, &scope).await.map_err(doing("look at other sessions"))?;
        let holders = waits::holders(self.anchor, &pids).await.map_err(doing("look at other sessions"))?;
        Err(Error::Busy(holders))
    }

    async fn attempt(&self, context: &Context) -> Result<Given, Error> {
        let session = connect::writable(&self.target.connection).await?;
        let outcome = self.attempt_in(&session.client, context).await;
        session.close().await;
        outcome
    }

    async fn attempt_in(&self, client: &Client, context: &Context) -> Result<Given, Error> {
        client.batch_execute(rows::PINNED).await.map_err(doing("prepare the session"))?;
        client.batch_execute(NOTICE_SILENCE).await.map_err(doing("prepare the session"))?;
        let scope = look(client).await?;
        let tables: Vec<(u32, String)> =
            scope.tables.iter().map(|table| (table.oid, table.name.clone())).collect();
        let outwaited = waits::outwait_vacuum(client, &tables).await;
        outwaited.map_err(doing("wait for a vacuum to make way"))?;
        let deadlock = pause::deadlock_timeout(client).await.map_err(doing("read `deadlock_timeout`"))?;
        let local_clock = (context.clock)();
        let target_clock = identity::clock(client).await.map_err(doing("read the target's clock"))?;
        let mark = self.mark.since(&target_clock.to_string());
        let patience = PATIENCE.min(deadlock * 9 / 10);
        let locked = Instant::now();
        let exported = pause::begin(client, &scope, &mark, patience);
        let exported = exported.await.map_err(doing("pause the writes"))?.ok_or(Error::NoSnapshot)?;
        // A name of another server's, or of another database's, is not taken: it is the pinned target.
        let held = pause::hold(self.anchor, &exported);
        let held = held.await.map_err(doing("hold the consistency point"))?.ok_or(Error::NoSnapshot)?;
        context.keep(&Event::WritesPausing).map_err(Error::NotOnRecord)?;
        client.batch_execute("commit").await.map_err(doing("pause the writes"))?;
        context.tell(&Event::WritesPaused {
            roles: scope.roles,
            tables: scope.tables.len(),
            beyond: scope.beyond,
            seconds: locked.elapsed().as_secs_f64(),
        });
        Ok(Given { exported: held, taken: Taken { target_clock, local_clock } })
    }
}

/// How a pause was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// Whose it was.
    pub mark: Mark,
    /// Tables whose trigger could not be dropped yet. It lets everything through.
    pub left: Vec<String>,
    /// Who is at work on them.
    pub holders: Vec<Holder>,
}

/// A pause that could not be ended.
#[derive(Debug, thiserror::Error)]
#[error("the write pause could not be ended")]
pub struct NotReleased {
    /// Whether writes are let through all the same; nothing when that is not known.
    pub lets_through: bool,
    /// Why.
    #[source]
    pub source: Error,
}

/// Demands that the pause of a run still refuses writes.
pub async fn demand_paused(client: &Client, run: &str) -> Result<(), Error> {
    match pause::find(client).await.map_err(doing("look for the write pause"))? {
        Found::Standing(standing) if standing.refuses_for(run) => Ok(()),
        _ => Err(Error::Ended),
    }
}

/// Ends a pause, if one stands. Writes are let through first; the rest may be done again at any time, and is when
/// the line was cut.
pub async fn release(target: &Target, context: &Context) -> Result<Option<Released>, NotReleased> {
    let mut outcome = release_once(target).await;
    for _ in 1..RELEASES {
        let Err(error) = &outcome else { break };
        if !error.source.is_lost() {
            break;
        }
        let why = crate::failure::chain(&error.source).join(": ");
        context.note(format!("the write pause could not be ended yet, and is tried again: {why}"));
        tokio::time::sleep(BETWEEN_RELEASES).await;
        outcome = release_once(target).await;
    }
    if let Ok(Some(released)) = &outcome {
        context.tell(&Event::WritesReleased { left: released.left.clone() });
    }
    outcome
}

async fn release_once(target: &Target) -> Result<Option<Released>, NotReleased> {
    let refusing = |source: Error| NotReleased { lets_through: false, source };
    let session = open(target).await.map_err(refusing)?;
    let outcome = release_in(&session.client).await;
    session.close().await;
    outcome
}

async fn open(target: &Target) -> Result<Session, Error> {
    let session = connect::writable(&target.connection).await?;
    resolve::demand_same(target, &session).await?;
    Ok(session)
}

async fn release_in(client: &Client) -> Result<Option<Released>, NotReleased> {
    let at = |doing: &'static str, lets_through: bool| {
        move |source| NotReleased { lets_through, source: Error::Query { doing, source } }
    };
    client.batch_execute(rows::PINNED).await.map_err(at("prepare the session", false))?;
    pause::take_turn(client).await.map_err(at("wait for a pause that is just beginning", false))?;
    let found = pause::find(client).await.map_err(at("look for a write pause", false))?;
    let Found::Standing(mut standing) = found else { return Ok(None) };
    pause::let_through(client, &standing).await.map_err(at("let writes through", false))?;
    let mark = standing.mark.clone();
    for round in 1..=ROUNDS {
        let left = pause::drop_triggers(client, &standing).await.map_err(at("drop the triggers", true))?;
        if left == 0 {
            match pause::drop_schema(client, &standing).await {
                Ok(()) => return Ok(Some(Released { mark, left: Vec::new(), holders: Vec::new() })),
                Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
                Err(error) => return Err(at("drop the schema of the pause", true)(error)),
            }
        }
        if round < ROUNDS {
            tokio::time::sleep(BETWEEN_ROUNDS).await;
        }
    }
    if let Found::Standing(now) = pause::find(client).await.map_err(at("look for a write pause", true))? {
        standing = now;
    }
    let pids = pause::at_work(client, &standing).await.map_err(at("look at other sessions", true))?;
    let holders = waits::holders(client, &pids).await.map_err(at("look at other sessions", true))?;
    let mut left = standing.tables;
    if left.is_empty() {
        left.push(format!("schema {}", pause::SCHEMA));
    }
    Ok(Some(Released { mark, left, holders }))
}

/// The pause that stands, if any.
pub async fn standing(target: &Target) -> Result<Option<Standing>, Error> {
    let session = resolve::reopen(target).await?;
    let found = pause::find(&session.client).await.map_err(doing("look for a write pause"));
    session.close().await;
    Ok(match found? {
        Found::Standing(standing) => Some(standing),
        Found::Nothing | Found::Foreign => None,
    })
}
