//! Rehearses the way back: the copy that was pushed to is taken back to the snapshot with the code
//! that `rollback` runs on a target, in every mode, and nothing of it is committed.

use super::Subject;
use super::apply::Applied;
use super::restore::Restored;
use crate::context::Context;
use crate::effect::FileEffect;
use crate::failure;
use crate::fingerprint::Class;
use crate::postgres::connect;
use crate::rollback::{self, Mode, Task, Translation};
use crate::store::Snapshot;
use crate::tools::installs::{self, Installation};
use serde::{Deserialize, Serialize};

/// Why the way back could not be rehearsed at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No fitting programs.
    #[error(transparent)]
    Installs(#[from] installs::Error),
    /// No session on the scratch.
    #[error("cannot connect to the scratch server")]
    Connect(#[from] connect::Error),
    /// The copy could not be read.
    #[error("the rollback cannot be rehearsed")]
    Rollback(#[from] rollback::Error),
}

/// What the rehearsal of one mode found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsed {
    /// How much went back.
    pub mode: Mode,
    /// Tables that were made again.
    pub tables: Vec<String>,
    /// Seconds from the first lock to the proof: nobody reads these tables meanwhile.
    pub seconds: f64,
    /// Why the copy was not as in the snapshot afterwards, if it was not.
    pub failed: Option<String>,
}

/// The ids that a fresh copy has for the objects of the archive. To be read before anything changes.
pub(super) async fn translation(
    restored: &Restored,
    snapshot: &Snapshot,
    context: &Context,
) -> Result<Translation, Error> {
    let clients = clients_for(snapshot, context)?;
    let connection = restored.scratch.superuser_connection(&restored.database);
    let copy = rollback::contents(&connection, clients, restored.scratch.dir()).await?;
    Ok(Translation::of_copy(&rollback::recorded_contents(snapshot)?, &copy))
}

fn clients_for<'a>(snapshot: &Snapshot, context: &'a Context) -> Result<&'a Installation, installs::Error> {
    installs::client_for(snapshot.manifest.client_major(), &context.machine.installations)
}

/// The user's tables in which rows were written.
pub fn written_tables(effects: &[FileEffect]) -> Vec<String> {
    let written = effects.iter().flat_map(|effect| &effect.tables);
    let mut names: Vec<String> = written
        .filter(|table| table.inserted + table.updated + table.deleted > 0)
        .map(|table| table.table.clone())
        .filter(|table| is_owned(table))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The history of migrations is not dropped for the few rows that go.
fn is_owned(table: &str) -> bool {
    let (schema, name) = table.split_once('.').unwrap_or(("", table));
    Class::of_rows(schema, name) == Class::Owned && schema != "supabase_migrations"
}

/// Takes the copy back in both modes.
pub(super) async fn rehearse(
    restored: &Restored,
    subject: &Subject<'_>,
    (snapshot, translation, applied): (&Snapshot, &Translation, &Applied),
    context: &Context,
) -> Result<Vec<Rehearsed>, Error> {
    let clients = clients_for(snapshot, context)?;
    let tables = written_tables(&applied.effects);
    let versions: Vec<String> = subject.pending.migrations.iter().map(|file| file.version.clone()).collect();
    let mut found = Vec::new();
    for mode in [Mode::Touched, Mode::Whole] {
        let session = connect::writable(&restored.scratch.superuser_connection(&restored.database)).await?;
        let task = Task {
            snapshot,
            mode,
            tables: &tables,
            besides: &applied.besides,
            versions: &versions,
            clients,
            left_out: &restored.left_out,
            translation,
            storage: None,
            keep_in: None,
        };
        let outcome = match rollback::bring_back(&session.client, &task).await {
            // Nobody else writes here.
            Ok(proved) => rollback::proved_besides(&session.client, &task).await.map(|()| proved),
            Err(error) => Err(error),
        };
        // The session ends, and with it the transaction.
        session.close().await;
        found.push(match outcome {
            Ok(proved) => Rehearsed { mode, tables: proved.tables, seconds: proved.seconds, failed: None },
            Err(error) => Rehearsed {
                mode,
                tables: Vec::new(),
                seconds: 0.0,
                failed: Some(failure::chain(&error).join(": ")),
            },
        });
    }
    Ok(found)
}
