//! Makes a server as empty as `initdb` leaves it: images come with roles and databases of their own.

use crate::manifest::quote_identifier;
use crate::postgres::connect;
use crate::target::Connection;
use tokio_postgres::Client;

/// The first object id that is not PostgreSQL's own (PostgreSQL documentation, "System catalog
/// initial data").
const FIRST_OWN: u32 = 16_384;

/// Why a server could not be emptied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
    /// A database of it could not be entered.
    #[error(transparent)]
    Connect(#[from] connect::Error),
}

/// Subscriptions, with their databases.
const SUBSCRIPTIONS: &str = "
    select d.datname::text, s.subname::text
    from pg_catalog.pg_subscription s
    join pg_catalog.pg_database d on d.oid = s.subdbid";

/// Drops every database and role but those of `initdb`, and makes the database `postgres` anew.
///
/// The session is the bootstrap role's, on `template1`. One database may be kept.
pub(super) async fn empty(client: &Client, owner: &Connection, kept: Option<&str>) -> Result<(), Error> {
    for row in client.query(SUBSCRIPTIONS, &[]).await? {
        leave(owner, row.get(0), row.get(1)).await?;
    }
    let databases = client
        .query(
            "select datname::text, datistemplate from pg_catalog.pg_database
             where datname not in ('template0', 'template1') and datname is distinct from $1",
            &[&kept],
        )
        .await?;
    for row in databases {
        let name = quote_identifier(row.get(0));
        // One whose drop was cut off is not to be altered (PostgreSQL documentation, `pg_database.datconnlimit`).
        if row.get(1) {
            client.batch_execute(&format!("alter database {name} is_template false")).await?;
        }
        client.batch_execute(&format!("drop database {name} with (force)")).await?;
    }
    let roles = client
        .query(
            "select rolname::text from pg_catalog.pg_roles where oid >= $1 order by oid desc",
            &[&FIRST_OWN],
        )
        .await?;
    let roles: Vec<String> = roles.iter().map(|row| quote_identifier(row.get(0))).collect();
    for role in &roles {
        client.batch_execute(&format!("drop owned by {role} cascade")).await?;
    }
    for role in &roles {
        client.batch_execute(&format!("drop role {role}")).await?;
    }
    client.batch_execute("alter role current_user reset all").await?;
    client.batch_execute("create database postgres template template0").await?;
    let comment = "comment on database postgres is 'default administrative connection database'";
    Ok(client.batch_execute(comment).await?)
}

/// Drops a subscription, which keeps its database from being dropped, without a word to the publisher.
async fn leave(owner: &Connection, database: String, name: &str) -> Result<(), Error> {
    let session = connect::writable(&Connection { database, ..owner.clone() }).await?;
    let name = quote_identifier(name);
    // Not in one message: the second is not for a transaction in which the first is not over.
    for change in ["disable", "set (slot_name = none)"] {
        session.client.batch_execute(&format!("alter subscription {name} {change}")).await?;
    }
    session.client.batch_execute(&format!("drop subscription {name}")).await?;
    session.close().await;
    Ok(())
}

/// The server's major version, once it serves: while the official entrypoint fills a new server, that
/// one listens nowhere but on its socket.
pub(super) async fn serving_major(client: &Client) -> Result<Option<u32>, tokio_postgres::Error> {
    let row = client
        .query_one(
            "select pg_catalog.current_setting('server_version_num')::int4,
                    pg_catalog.current_setting('listen_addresses') <> ''",
            &[],
        )
        .await?;
    let version: i32 = row.get(0);
    Ok(row.get::<_, bool>(1).then(|| u32::try_from(version).unwrap_or_default() / 10_000))
}
