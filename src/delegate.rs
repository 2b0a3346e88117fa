//! Hands a clearance over to the real Supabase CLI, and finds out what became of it.
//!
//! The CLI is never killed: when it ends early, its backend goes on and commits. Only the server
//! knows what stands, so the history is read when the backend is gone.

mod eye;
mod watchdog;

pub use eye::Eye;
pub use watchdog::Stopped;

use crate::clearance::Clearance;
use crate::context::Context;
use crate::event::Event;
use crate::postgres::connect::Session;
use crate::postgres::{history, sessions};
use crate::proc::{self, Ended, Group};
use crate::resolve;
use crate::target::Target;
use crate::tools::supabase::{self, Answer, Problem};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use watchdog::Watchdog;

/// How often the server is asked whether the push goes on.
const POLL: Duration = Duration::from_millis(250);
/// How often the backends of the CLI are looked for: a file may rename its session soon after it began.
const LOOK: Duration = Duration::from_millis(20);
/// Why a push did not start, or why its outcome is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target cannot be opened, or is another database now.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// A query failed.
    #[error("the target did not answer")]
    Query(#[from] tokio_postgres::Error),
    /// The CLI could not be run.
    #[error("cannot run the Supabase CLI")]
    Program(#[from] proc::Error),
    /// A folder could not be made.
    #[error("cannot prepare the push")]
    Io(#[from] io::Error),
    /// The shared store failed, before the push began.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// Another run works on the target.
    #[error("another run of supa-safe works on this target, on this machine or another one")]
    Locked,
    /// The clearance ended before the push began.
    #[error("the clearance has expired")]
    Expired,
}

/// The lock on a target, held by a session of its own.
#[derive(Debug)]
pub struct TargetLock {
    session: Session,
}

impl TargetLock {
    /// Takes the lock.
    pub async fn take(target: &Target) -> Result<Self, Error> {
        let session = resolve::reopen(target).await?;
        if sessions::try_lock(&session.client).await? { Ok(Self { session }) } else { Err(Error::Locked) }
    }

    /// The session that holds it; read-only.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Lets it go.
    pub async fn release(self) {
        self.session.close().await;
    }
}

/// What became of a push.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Files that stand.
    pub applied: Vec<String>,
    /// Files that do not.
    pub not_applied: Vec<String>,
    /// How the CLI ended.
    pub ended: Ended,
    /// What it says went wrong.
    pub problem: Option<Problem>,
    /// Whether somebody interrupted it.
    pub interrupted: bool,
    /// Why the watchdog canceled it, if it did.
    pub stopped: Option<Stopped>,
}

impl Outcome {
    /// Whether everything stands and the CLI agrees.
    pub fn is_success(&self) -> bool {
        self.ended.is_success() && self.problem.is_none() && self.not_applied.is_empty()
    }
}

/// How a person's Ctrl-C reaches a push that is under way.
#[derive(Clone, Debug, Default)]
pub struct Interrupts(Arc<Notify>);

impl Interrupts {
    /// Tells that somebody interrupted.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// Pushes under a clearance.
pub async fn push(
    clearance: Clearance<'_>,
    held: &TargetLock,
    context: &Context,
    interrupts: &Interrupts,
) -> Result<Outcome, Error> {
    let client = &held.session.client;
    let mut eye = Eye::new(clearance.subject().target, client);
    let now = crate::postgres::identity::clock(client).await?;
    if now > clearance.expires_at() {
        return Err(Error::Expired);
    }
    eye.begins(now.as_microsecond());
    let subject = clearance.subject();
    let mut watchdog = Watchdog::new(subject, clearance.max_block())?;
    let before: Vec<String> =
        history::read(client).await?.into_iter().map(|applied| applied.version).collect();
    let empty = subject.frozen.empty_dir()?;
    resolve::refresh(subject.target).await?;
    let variables = subject.frozen.settings().vault_variables();
    let cmd = subject
        .cli
        .push(&supabase::Push {
            connection: &subject.target.connection,
            ssl_mode: subject.target.cli_ssl_mode(),
            frozen_dir: subject.frozen.dir(),
            empty_dir: empty.path(),
            flags: subject.pending.flags,
            vault_variables: &variables,
        })
        .group(Group::Shared);
    context.tell(&Event::Program { command: cmd.to_string() });
    context.tell(&Event::Delegating {
        snapshot: clearance.snapshot().clone(),
        files: subject.pending.migrations.iter().map(|file| file.file_name.clone()).collect(),
        history: before,
        pending_digest: subject.pending.digest(),
    });
    // Whoever comes next may come on another machine.
    context.share().await?;
    let running = cmd.start()?;
    if let Some(pid) = running.pid() {
        context.tell(&Event::DelegatePid { pid });
    }
    let mut interrupted = false;
    let wait = running.wait();
    tokio::pin!(wait);
    let output = loop {
        tokio::select! {
            output = &mut wait => break output?,
            () = watch(&mut watchdog, &mut eye, context) => {}
            () = interrupts.0.notified() => {
                on_interrupt(&mut eye, context, std::mem::replace(&mut interrupted, true)).await?;
            }
        }
    };
    for line in output.stderr.lines() {
        context.tell(&Event::ProgramLine { line: line.to_owned() });
    }
    see_out(&mut eye, Some(&mut watchdog), context, (interrupts, &mut interrupted)).await?;
    let after = eye.history().await?;
    let (applied, not_applied) = subject.applied(&after);
    context.tell(&Event::Delegated { applied: applied.clone(), not_applied: not_applied.clone() });
    let problem = match supabase::answer(&output.stdout) {
        Ok(Answer::Stopped(problem)) => Some(problem),
        Ok(Answer::Done(_)) | Err(_) => None,
    };
    Ok(Outcome {
        applied,
        not_applied,
        ended: output.ended,
        problem,
        interrupted,
        stopped: watchdog.stopped(),
    })
}

/// One look after a pause; it may be dropped at any moment.
async fn watch(watchdog: &mut Watchdog, eye: &mut Eye<'_>, context: &Context) {
    if eye.is_blind() {
        tokio::time::sleep(LOOK).await;
        // What is missed now is asked again when the program has ended.
        drop(eye.notice(context).await);
    } else {
        tokio::time::sleep(watchdog.pause()).await;
        watchdog.look(eye, context).await;
    }
}

/// Waits until no backend of the CLI is at work any more.
pub async fn settle(eye: &mut Eye<'_>, context: &Context) -> Result<(), Error> {
    see_out(eye, None, context, (&Interrupts::default(), &mut false)).await
}

/// The same for a push of this run; the second interrupt cancels its statement.
async fn see_out(
    eye: &mut Eye<'_>,
    mut watchdog: Option<&mut Watchdog>,
    context: &Context,
    (interrupts, interrupted): (&Interrupts, &mut bool),
) -> Result<(), Error> {
    let mut told = false;
    loop {
        let backends = eye.at_work().await?;
        if let Some(watchdog) = watchdog.as_deref_mut() {
            watchdog.look(eye, context).await;
        }
        if backends.is_empty() {
            return Ok(());
        }
        if !told {
            told = true;
            context.warn(format!(
                "the server is still at work on the push (backend {})",
                backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = interrupts.0.notified() => {
                on_interrupt(eye, context, std::mem::replace(interrupted, true)).await?;
            }
        }
    }
}

/// The first interrupt changes nothing, whether the CLI is still there or only its backend; the
/// next one cancels what the backend does.
async fn on_interrupt(eye: &mut Eye<'_>, context: &Context, again: bool) -> Result<(), Error> {
    if !again {
        context.warn(
            "waiting for supabase; the target may be half migrated. Interrupt again to cancel its statement",
        );
        return Ok(());
    }
    for pid in eye.at_work().await? {
        context.warn(format!("canceling the statement of backend {pid}"));
        eye.cancel(pid).await?;
    }
    Ok(())
}
