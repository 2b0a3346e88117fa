//! Applies the pending files to the copy with the user's own CLI, and measures what each did.

use crate::context::Context;
use crate::effect::{Besides, FileEffect};
use crate::event::Event;
use crate::manifest::quote_identifier;
use crate::migration;
use crate::postgres::catalog::{self, Extension, Member};
use crate::postgres::connect::{self, Session};
use crate::postgres::{history, measure};
use crate::proc::{self, Stream};
use crate::rehearse::Subject;
use crate::rehearse::restore::Restored;
use crate::scratch;
use crate::target::Connection;
use crate::tools::supabase::{self, Answer, Problem, Progress};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio_postgres::Client;

/// Memberships that `supautils` stands in for on the platform: with them, `postgres` may do on a
/// plain server what it may do there (facts: policies and triggers on managed tables).
const LOOSENED: [&str; 3] = ["supabase_auth_admin", "supabase_storage_admin", "supabase_realtime_admin"];

/// SQLSTATE of a right that lacks.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Why the pending files could not be applied to the copy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session on the scratch.
    #[error("cannot connect to the scratch server")]
    Connect(#[from] connect::Error),
    /// A query on the scratch failed.
    #[error("the scratch server did not answer")]
    Query(#[from] tokio_postgres::Error),
    /// The extensions of the copy could not be read.
    #[error("cannot read the catalog of the copy")]
    Catalog(#[from] catalog::Error),
    /// The CLI could not be run.
    #[error("cannot run the Supabase CLI")]
    Program(#[from] proc::Error),
    /// The CLI did not say what it did.
    #[error("the Supabase CLI gave no answer")]
    Answer(#[from] supabase::AnswerError),
    /// A file or folder could not be used.
    #[error("cannot prepare the push to the copy")]
    Io(#[from] io::Error),
    /// The migration failed on the copy.
    #[error("{0}")]
    Migration(Box<Failed>),
}

/// A migration that failed on the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What ran last: a file, or the roles.
    pub file: String,
    /// The problem as the CLI tells it.
    pub problem: Problem,
    /// Files that stood on the copy afterwards.
    pub applied: Vec<String>,
    /// Extensions that the copy lacks.
    pub missing: Vec<String>,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.file)?;
        match &self.problem.sql {
            None => write!(f, ": {}", self.problem.message),
            Some(sql) => {
                if let Some(number) = sql.statement_number {
                    write!(f, ", statement {number}")?;
                }
                write!(f, ": {} (SQLSTATE {})", sql.message, sql.sqlstate)
            }
        }
    }
}

/// What the push to the copy did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Per file.
    pub effects: Vec<FileEffect>,
    /// What it did besides.
    pub besides: Besides,
    /// Versions in the history afterwards.
    pub history: Vec<String>,
    /// Why part of it ran as a superuser, if it did.
    pub superuser: Option<String>,
    /// Seconds of the whole push.
    pub seconds: f64,
}

/// Applies the pending files.
pub async fn apply(restored: &Restored, subject: &Subject<'_>, context: &Context) -> Result<Applied, Error> {
    let session = connect::writable(&restored.scratch.superuser_connection(&restored.database)).await?;
    let outcome = apply_in(&session, restored, subject, context).await;
    session.close().await;
    outcome
}

async fn apply_in(
    session: &Session,
    restored: &Restored,
    subject: &Subject<'_>,
    context: &Context,
) -> Result<Applied, Error> {
    let client = &session.client;
    let role = subject.target.connection.role();
    let connection = sign_in(client, restored, role).await?;
    let mut loosened = loosen(session, subject, role).await?;
    lend(client, &restored.extensions, role).await?;
    measure::begin(client).await?;

    let started = Instant::now();
    let mut pushed = push(subject, &connection, context).await?;
    let mut superuser = None;
    while let Answer::Stopped(problem) = &pushed.answer {
        let lent = lent_statement(problem, &pushed, subject).filter(|_| superuser.is_none());
        let Some(statement) = lent else {
            let history = versions(client).await?;
            return Err(Error::Migration(Box::new(Failed {
                file: last_file(pushed.last, subject),
                problem: problem.clone(),
                applied: subject.applied(&history).0,
                missing: restored.left_out.names().into_iter().map(str::to_owned).collect(),
            })));
        };
        superuser = Some(format!(
            "a plain server lets only superusers make event triggers and such extensions: from `{}`, {statement} on, \
             the copy was pushed to as one, so that a right which role {role} lacks on the target was not missed",
            last_file(pushed.last, subject)
        ));
        client.batch_execute(&format!("alter role {} superuser", quote_identifier(role))).await?;
        loosened.push(format!("alter role {} nosuperuser", quote_identifier(role)));
        measure::again(client).await?;
        pushed = push(subject, &connection, context).await?;
    }
    let seconds = started.elapsed().as_secs_f64();

    let history = versions(client).await?;
    let (effects, besides) = measure::end(client).await?;
    let effects = named(effects, subject);
    for statement in loosened {
        client.batch_execute(&statement).await?;
    }
    Ok(Applied { effects, besides, history, superuser, seconds })
}

async fn versions(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    Ok(history::read(client).await?.into_iter().map(|applied| applied.version).collect())
}

/// How a push to the copy ended.
struct Pushed {
    answer: Answer,
    /// What ran last.
    last: Option<Progress>,
}

async fn push(subject: &Subject<'_>, connection: &Connection, context: &Context) -> Result<Pushed, Error> {
    let empty = subject.frozen.empty_dir()?;
    let last = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&last);
    let settings = subject.frozen.settings().vault_variables();
    let cmd = subject
        .cli
        .push(&supabase::Push {
            connection,
            ssl_mode: connection.ssl_mode,
            frozen_dir: subject.frozen.dir(),
            empty_dir: empty.path(),
            flags: subject.pending.flags,
            vault_variables: &settings,
        })
        .on_line(move |stream, line| {
            if stream == Stream::Stderr
                && let Some(progress) = supabase::progress(line)
            {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
            }
        });
    context.tell(&Event::Program { command: cmd.to_string() });
    let output = cmd.run_unchecked().await?;
    let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(Pushed { answer: supabase::answer(&output.stdout)?, last })
}

/// The statement that failed, when only a superuser may do it here and the target's library lets its role.
fn lent_statement(problem: &Problem, pushed: &Pushed, subject: &Subject<'_>) -> Option<String> {
    let sql = problem.sql.as_ref().filter(|sql| sql.sqlstate == INSUFFICIENT_PRIVILEGE)?;
    let Some(Progress::Migration(name)) = &pushed.last else { return None };
    let file = subject.pending.migrations.iter().find(|file| file.file_name == *name)?;
    let number = sql.statement_number.filter(|number| migration::is_lent(&file.sql, *number))?;
    subject.target.server.supautils.then(|| format!("statement {number}"))
}

/// Lets the target's role sign in to the copy. The bootstrap role can already, and our own sessions
/// are its.
async fn sign_in(client: &Client, restored: &Restored, role: &str) -> Result<Connection, Error> {
    let own = restored.scratch.superuser_connection(&restored.database);
    if own.user == role {
        return Ok(own);
    }
    let password = scratch::random_password()?;
    // The password is random hex digits, which need no quoting.
    let sql = format!("alter role {} login password '{}'", quote_identifier(role), password.expose());
    client.batch_execute(&sql).await?;
    Ok(restored.scratch.connection(role, &restored.database, Some(password)))
}

/// Gives the role what the platform gives it by other means; returns the statements that take it back.
async fn loosen(session: &Session, subject: &Subject<'_>, role: &str) -> Result<Vec<String>, Error> {
    if !subject.target.server.supautils {
        return Ok(Vec::new());
    }
    let role = quote_identifier(role);
    let rows = session
        .client
        .query(
            "select rolname::text from pg_catalog.pg_roles where rolname = any($1)",
            &[&LOOSENED.as_slice()],
        )
        .await?;
    let mut undo = Vec::new();
    for row in rows {
        let managed = quote_identifier(row.get(0));
        session.client.batch_execute(&format!("grant {managed} to {role}")).await?;
        undo.push(format!("revoke {managed} from {role}"));
    }
    Ok(undo)
}

/// Gives the role the rights on extensions that it has on the target: a restore makes them as the bootstrap role,
/// and no dump says whose they are and what was given along. The fingerprint leaves out what `postgres` has of them.
async fn lend(client: &Client, recorded: &[Extension], role: &str) -> Result<(), Error> {
    let droppable = recorded.iter().filter(|extension| extension.droppable);
    let droppable: Vec<&str> = droppable.map(|extension| extension.name.as_str()).collect();
    // There is no `alter extension … owner to`.
    let sql = "update pg_catalog.pg_extension set extowner = (select oid from pg_catalog.pg_roles where rolname = $1)
        where extname = any($2)";
    client.execute(sql, &[&role, &droppable]).await?;
    if role != "postgres" {
        return Ok(());
    }
    let there = catalog::extensions(client).await?;
    let there: BTreeSet<&String> =
        there.iter().flat_map(|extension| &extension.members).map(|member| &member.identity).collect();
    let members = recorded.iter().flat_map(|extension| &extension.members);
    let statements: Vec<String> = members
        .filter(|member| there.contains(&member.identity))
        .filter_map(|one| grant(one, role))
        .collect();
    client.batch_execute(&statements.join("; ")).await?;
    Ok(())
}

/// The statement that lets a role hand on what it may hand on of a member.
fn grant(member: &Member, role: &str) -> Option<String> {
    let (kind, name) = member.identity.split_once(' ')?;
    let kind = match kind {
        "function" | "procedure" | "aggregate" => "routine",
        "schema" | "sequence" => kind,
        _ => "table",
    };
    // Two words: `materialized view`, `foreign table`.
    let name = name.strip_prefix("view ").or_else(|| name.strip_prefix("table ")).unwrap_or(name);
    let privileges = (!member.grantable.is_empty()).then(|| member.grantable.join(", "))?;
    Some(format!("grant {privileges} on {kind} {name} to {} with grant option", quote_identifier(role)))
}

fn last_file(last: Option<Progress>, subject: &Subject<'_>) -> String {
    match last {
        Some(Progress::Migration(file) | Progress::Seed(file)) => file,
        Some(Progress::Roles) => "supabase/roles.sql".to_owned(),
        Some(Progress::Vault) => "the vault secrets of the configuration".to_owned(),
        None => subject
            .pending
            .migrations
            .first()
            .map_or_else(|| "the push".to_owned(), |file| file.file_name.clone()),
    }
}

/// Effects under the names of the files.
fn named(mut effects: Vec<FileEffect>, subject: &Subject<'_>) -> Vec<FileEffect> {
    for effect in &mut effects {
        if let Some(file) = subject.pending.migrations.iter().find(|file| file.version == effect.file) {
            effect.file.clone_from(&file.file_name);
        }
    }
    effects
}
