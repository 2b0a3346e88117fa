//! The steps of a restore, as data: what the rehearsal runs and what `restore.md` prints.

use crate::archive::Contents;
use crate::manifest::{Manifest, quote_identifier};

/// One step of restoring a snapshot into an empty server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreStep {
    /// Run a file of the snapshot, in the database given.
    File {
        /// Which database to be connected to.
        place: Place,
        /// Path in the snapshot's folder.
        file: &'static str,
    },
    /// Run a statement, in the database given.
    Statement {
        /// Which database to be connected to.
        place: Place,
        /// The statement.
        sql: String,
    },
    /// Restore the archive.
    Archive {
        /// Whether the server is older than `pg_restore`, whose settings it does not know then.
        is_older: bool,
        /// How many entries are restored side by side.
        jobs: u8,
    },
}

/// Which database a step is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The maintenance database `postgres`.
    Server,
    /// The database that is restored.
    Database,
}

/// Roles that load the platform's libraries at sign-in could not sign in on a plain server.
const RESET_LIBRARIES: &str = "do 'declare statement text; begin for statement in \
    select distinct format(''alter role %I reset %I'', rolname, split_part(c, ''='', 1)) \
    from pg_db_role_setting s join pg_roles r on r.oid = s.setrole cross join unnest(setconfig) c \
    where split_part(c, ''='', 1) in (''session_preload_libraries'', ''local_preload_libraries'') \
    loop execute statement; end loop; end'";

/// The steps that restore a snapshot into an empty server whose owner is the bootstrap role, with
/// client programs of this major version.
pub fn restore_steps(manifest: &Manifest, contents: &Contents, client_major: u32) -> Vec<RestoreStep> {
    let database = &manifest.database.name;
    let statement = |place, sql: String| RestoreStep::Statement { place, sql };
    let raised = event_trigger_owners(contents, &manifest.server.bootstrap_role);
    let mut steps = vec![
        RestoreStep::File { place: Place::Server, file: "database/roles.sql" },
        statement(Place::Server, RESET_LIBRARIES.to_owned()),
    ];
    if database != "postgres" {
        steps.push(statement(
            Place::Server,
            format!("create database {} template template0", quote_identifier(database)),
        ));
    }
    steps.push(RestoreStep::File { place: Place::Database, file: "database/settings.sql" });
    for role in &raised {
        steps.push(statement(Place::Database, format!("alter role {} superuser", quote_identifier(role))));
    }
    let is_older = manifest.server.major() < client_major;
    steps.push(RestoreStep::Archive { is_older, jobs: if contents.needs_its_order() { 1 } else { 2 } });
    for role in &raised {
        steps.push(statement(Place::Database, format!("alter role {} nosuperuser", quote_identifier(role))));
    }
    steps
}

/// Roles other than the bootstrap role that own event triggers: a plain server lets only
/// superusers own one ("The owner of an event trigger must be a superuser").
pub fn event_trigger_owners(contents: &Contents, bootstrap_role: &str) -> Vec<String> {
    let mut owners: Vec<String> = contents
        .entries
        .iter()
        .filter(|entry| entry.kind == "EVENT TRIGGER")
        .filter_map(|entry| entry.rest.rsplit(' ').next())
        .filter(|owner| *owner != bootstrap_role)
        .map(str::to_owned)
        .collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}
