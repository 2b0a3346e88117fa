//! Makes a server as empty as `initdb` leaves it: images come with roles and databases of their own.

use crate::manifest::quote_identifier;
use tokio_postgres::{Client, Error};

/// The first object id that is not PostgreSQL's own (PostgreSQL documentation, "System catalog
/// initial data").
const FIRST_OWN: u32 = 16_384;

/// Drops every database and role but those of `initdb`, and makes the database `postgres` anew.
///
/// The session is the bootstrap role's, on `template1`. One database may be kept.
pub async fn empty(client: &Client, kept: Option<&str>) -> Result<(), Error> {
    let databases = client
        .query(
            "select datname::text from pg_catalog.pg_database
             where datname not in ('template0', 'template1') and datname is distinct from $1",
            &[&kept],
        )
        .await?;
    for row in databases {
        let name = quote_identifier(row.get(0));
        client.batch_execute(&format!("alter database {name} is_template false")).await?;
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
    client.batch_execute("comment on database postgres is 'default administrative connection database'").await
}

/// The server's major version, once it serves: while the official entrypoint fills a new server, that
/// one listens nowhere but on its socket.
pub async fn serving_major(client: &Client) -> Result<Option<u32>, Error> {
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
