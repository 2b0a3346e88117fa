//! Restores a snapshot into a scratch with the programs and commands that `restore.md` prints.

use crate::archive::{self, Contents};
use crate::context::Context;
use crate::disk;
use crate::event::Event;
use crate::left_out::LeftOut;
use crate::manifest::ExtensionVersion;
use crate::plan::restore_steps;
use crate::postgres::catalog::Extension;
use crate::postgres::connect;
use crate::proc;
use crate::scratch::engine::{self, Chosen, Lacking};
use crate::scratch::{self, Scratch, Wanted};
use crate::store::Snapshot;
use crate::target::Server;
use crate::tools::installs::{self, Installation};
use crate::tools::pg_restore::Site;
use crate::tools::{Login, pg_restore};
use std::io;
use std::time::Instant;

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No fitting programs.
    #[error(transparent)]
    Installs(#[from] installs::Error),
    /// Nothing to run a scratch on.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// No scratch server.
    #[error("cannot start a scratch server")]
    Scratch(#[from] scratch::Error),
    /// The container did not come up, and nothing else may or can take its place.
    #[error("cannot start a scratch server in a container")]
    Container(#[source] scratch::Error),
    /// The scratch server ended in the middle.
    #[error("the scratch server is gone while the snapshot was being restored")]
    Died(#[source] scratch::Error),
    /// No session on the scratch.
    #[error("cannot connect to the scratch server")]
    Connect(#[from] connect::Error),
    /// A query on the scratch failed.
    #[error("the scratch server did not answer")]
    Query(#[from] tokio_postgres::Error),
    /// A command failed.
    #[error("the snapshot cannot be restored")]
    Program {
        /// Extensions of the target that the scratch lacks: the likely cause when there are any.
        missing: Vec<String>,
        /// Why the scratch is no container, which could have them.
        lacking: Option<Box<Lacking>>,
        /// What Postgres said.
        #[source]
        source: proc::Error,
    },
    /// The disk of the scratch is full.
    #[error("the disk is full at `{path}`, where the copy stands: {free} bytes are free")]
    Full {
        /// The folder.
        path: String,
        /// Bytes that are free.
        free: u64,
        /// What failed.
        #[source]
        source: proc::Error,
    },
    /// The archive's table of contents was not understood.
    #[error("the archive cannot be read")]
    Contents(#[from] archive::Error),
    /// A record of the snapshot was not understood.
    #[error("`{0}` of the snapshot cannot be read")]
    Record(&'static str, #[source] serde_json::Error),
    /// A file could not be read or written.
    #[error("cannot prepare the restore")]
    Io(#[from] io::Error),
}

/// With less than one segment of the write-ahead log free, a server cannot go on (PostgreSQL
/// documentation, `wal_segment_size`).
const FULL: u64 = 16 << 20;

/// A snapshot in a scratch.
#[derive(Debug)]
pub struct Restored {
    /// The server.
    pub scratch: Scratch,
    /// The database in it; it has the name of the target's.
    pub database: String,
    /// What it ran on.
    pub ran: engine::Ran,
    /// What it cannot hold.
    pub left_out: LeftOut,
    /// The extensions of the snapshot.
    pub extensions: Vec<Extension>,
    /// Seconds that it took, the start of the server included.
    pub seconds: f64,
}

/// Chooses what a copy of a snapshot runs on. An image that has to be fetched is fetched here: that takes
/// minutes, which are none of the restore's.
pub async fn choose(snapshot: &Snapshot, context: &Context) -> Result<Chosen, Error> {
    let chosen = engine::choose(&snapshot.manifest.server, context).await?;
    if chosen.lacking() != Some(&Lacking::Unwanted) {
        context.note(chosen.in_words());
    }
    Ok(chosen)
}

/// Restores a snapshot into a fresh scratch.
pub async fn restore(snapshot: &Snapshot, chosen: Chosen, context: &Context) -> Result<Restored, Error> {
    let started = Instant::now();
    let manifest = &snapshot.manifest;
    let clients = clients_for(snapshot, context)?;
    let (chosen, mut scratch) = Box::pin(start(chosen, &manifest.server, context)).await?;
    if let Some(removed) = scratch.removed() {
        context.note(removed);
    }
    let database = manifest.database.name.clone();
    let extensions =
        serde_json::from_slice::<Vec<Extension>>(&fs_err::read(snapshot.database_file("extensions.json"))?)
            .map_err(|source| Error::Record("extensions.json", source))?;
    let left_out =
        LeftOut::new(extensions.clone(), &available(&scratch).await?, &snapshot.manifest.database.gaps);
    let restore =
        Restore { snapshot, context, clients, scratch: &scratch, left_out: &left_out, chosen: &chosen };
    let outcome = restore.run().await;
    if let Err(error) = outcome {
        return Err(scratch.died().await.map_or(error, Error::Died));
    }
    let ran = chosen.ran();
    Ok(Restored { database, ran, left_out, extensions, seconds: started.elapsed().as_secs_f64(), scratch })
}

/// Starts a scratch on what was chosen; where that is a container which does not come up, on what else
/// there is.
async fn start(chosen: Chosen, server: &Server, context: &Context) -> Result<(Chosen, Scratch), Error> {
    let error = match start_on(&chosen, server, context).await {
        Ok(scratch) => return Ok((chosen, scratch)),
        Err(scratch::Error::Staging(error)) => return Err(Error::Engine(error.into())),
        Err(error) => error,
    };
    let is_container = chosen.is_container();
    let Some(chosen) = chosen.instead(server, context, &error) else {
        return Err(if is_container { Error::Container(error) } else { Error::Scratch(error) });
    };
    context.warn(chosen.in_words());
    let scratch = start_on(&chosen, server, context).await?;
    Ok((chosen, scratch))
}

async fn start_on(chosen: &Chosen, server: &Server, context: &Context) -> Result<Scratch, scratch::Error> {
    let engine = match chosen {
        Chosen::Own { engine, .. } => engine.clone(),
        Chosen::Given { staging, .. } => {
            return scratch::borrow(staging, &context.machine.temp_dir).await;
        }
    };
    scratch::start(Wanted {
        engine,
        superuser: server.bootstrap_role.clone(),
        max_connections: server.max_connections,
        max_locks_per_transaction: server.max_locks_per_transaction,
        keeper: context.machine.own_program.clone(),
        base_dir: context.machine.temp_dir.clone(),
        run_as: scratch::unprivileged_user(),
    })
    .await
}

/// Client programs that can read the archive: at least as new as those that wrote it.
fn clients_for<'a>(snapshot: &Snapshot, context: &'a Context) -> Result<&'a Installation, installs::Error> {
    installs::client_for(snapshot.manifest.client_major(), &context.machine.installations)
}

async fn available(scratch: &Scratch) -> Result<Vec<ExtensionVersion>, Error> {
    let session = connect::read_only(&scratch.superuser_connection("postgres")).await?;
    let rows = session
        .client
        .query(
            "select name::text, coalesce(default_version, '') from pg_catalog.pg_available_extensions",
            &[],
        )
        .await?;
    session.close().await;
    Ok(rows.iter().map(|row| ExtensionVersion { name: row.get(0), version: row.get(1) }).collect())
}

struct Restore<'a> {
    snapshot: &'a Snapshot,
    context: &'a Context,
    clients: &'a Installation,
    scratch: &'a Scratch,
    left_out: &'a LeftOut,
    chosen: &'a Chosen,
}

impl Restore<'_> {
    async fn run(&self) -> Result<(), Error> {
        let contents =
            Contents::parse(&fs_err::read_to_string(self.snapshot.database_file("contents.txt"))?)?;
        // The list stands in the scratch's folder: the snapshot's own folder never changes.
        let list = self.scratch.dir().join("restore.list");
        disk::write(&list, self.left_out.list(&contents).as_bytes())?;
        let database = &self.snapshot.manifest.database.name;
        let server = self.scratch.superuser_connection("postgres");
        let restored = self.scratch.superuser_connection(database);
        let site = Site {
            installation: Some(self.clients),
            server: Some(Login { connection: &server }),
            restored: Some(Login { connection: &restored }),
            database,
            snapshot: &self.snapshot.dir,
            list: &list,
        };
        for step in restore_steps(&self.snapshot.manifest, &contents, self.clients.major) {
            let cmd = pg_restore::step(&step, &site);
            self.context.tell(&Event::Program { command: cmd.to_string() });
            cmd.run().await.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn failed(&self, source: proc::Error) -> Error {
        let dir = self.scratch.dir();
        match disk::free_bytes(dir) {
            Ok(free) if free < FULL => Error::Full { path: dir.display().to_string(), free, source },
            Ok(_) | Err(_) => {
                let missing = self.left_out.names().into_iter().map(str::to_owned).collect();
                Error::Program { missing, lacking: self.chosen.lacking().cloned().map(Box::new), source }
            }
        }
    }
}
