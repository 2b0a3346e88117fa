//! What a database defines now, and what it defined when the snapshot was taken.

use super::Error;
use crate::archive::Contents;
use crate::postgres::{catalog, connect, rows};
use crate::store::Snapshot;
use crate::target::Connection;
use crate::tools::installs::Installation;
use crate::tools::{Login, pg_dump, pg_restore};
use std::path::Path;

/// The definitions of a database, as `pg_restore` reads them.
pub const DEFINITIONS: &str = "definitions.dump";

/// The table of contents of a database as it is now, for a [`super::Translation`]. Its definitions stay in the
/// folder, in a file named [`DEFINITIONS`]. Tables that the role may not read are not in it.
pub async fn contents(
    connection: &Connection,
    clients: &Installation,
    folder: &Path,
) -> Result<Contents, Error> {
    let file = folder.join(DEFINITIONS);
    let session = connect::read_only(connection).await?;
    let tables = async {
        session.client.batch_execute(rows::PINNED).await?;
        Ok::<_, Error>(catalog::tables(&session.client).await?)
    };
    let tables = tables.await;
    session.close().await;
    let mut unread = tables?;
    unread.retain(|table| !table.is_readable);
    let unread: Vec<String> =
        unread.iter().map(|table| pg_dump::pattern(&table.schema, &table.name)).collect();
    let dump = pg_dump::definitions(clients, &Login { connection }, &file, &unread);
    dump.run().await.map_err(Error::Definitions)?;
    let listed = pg_restore::list(clients, &file).run().await.map_err(Error::Definitions)?;
    Ok(Contents::parse(&listed.stdout)?)
}

/// The table of contents of a snapshot.
pub fn recorded_contents(snapshot: &Snapshot) -> Result<Contents, Error> {
    Ok(Contents::parse(&fs_err::read_to_string(snapshot.database_file("contents.txt"))?)?)
}
