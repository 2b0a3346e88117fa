//! Who a database is, and whether an address is a pooler that changes sessions under us.

use crate::postgres::connect::Session;
use crate::target::{Identity, Server};
use jiff::Timestamp;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// What one look at a target's server says.
#[derive(Debug)]
pub struct Seen {
    /// The database.
    pub identity: Identity,
    /// Its server.
    pub server: Server,
    /// Whether it is a replica.
    pub in_recovery: bool,
}

/// Reads identity and server facts; `name` becomes the identity's name.
pub async fn look(client: &Client, name: &str) -> Result<Seen, Error> {
    let row = client
        .query_one(
            "select s.system_identifier::text, d.oid, c.timeline_id, pg_catalog.pg_is_in_recovery(),
                    pg_catalog.current_setting('server_version_num')::int4,
                    coalesce((select ssl from pg_catalog.pg_stat_ssl where pid = pg_catalog.pg_backend_pid()), false),
                    (select rolname::text from pg_catalog.pg_roles where oid = 10),
                    pg_catalog.current_setting('supautils.privileged_extensions', true) is not null,
                    pg_catalog.current_setting('max_connections')::int4,
                    pg_catalog.current_setting('max_locks_per_transaction')::int4,
                    pg_catalog.pg_encoding_to_char(d.encoding)::text, d.datcollate::text
             from pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_database d
             where d.datname = pg_catalog.current_database()",
            &[],
        )
        .await?;
    let unsigned = |index: usize| u32::try_from(row.get::<_, i32>(index)).unwrap_or_default();
    Ok(Seen {
        identity: Identity {
            name: name.to_owned(),
            system_identifier: row.get(0),
            database_oid: row.get(1),
            timeline: unsigned(2),
        },
        in_recovery: row.get(3),
        server: Server {
            version_num: unsigned(4),
            tls: row.get(5),
            bootstrap_role: row.get(6),
            supautils: row.get(7),
            max_connections: unsigned(8),
            max_locks_per_transaction: unsigned(9),
            encoding: row.get(10),
            collation: row.get(11),
        },
    })
}

/// The target's clock.
pub async fn clock(client: &Client) -> Result<Timestamp, Error> {
    let row = client
        .query_one("select (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8", &[])
        .await?;
    Ok(Timestamp::from_microsecond(row.get(0)).unwrap_or_default())
}

/// Whether the address gives the server's sessions out by transaction.
///
/// The first session marks itself; the second, inside a transaction, must not see the mark, and
/// the first must keep its backend meanwhile. A pooler that hands one server session to both shows
/// the mark; one that moves the first session to another backend shows another process id. Only
/// the simple protocol is used: prepared statements would fail behind such a pooler first.
pub async fn shares_sessions(first: &Session, second: &Session) -> Result<bool, Error> {
    let mark = format!("{:p}", std::ptr::from_ref(first));
    let before = ask(
        &first.client,
        &format!("set supa_safe.probe = '{mark}'; select pg_catalog.pg_backend_pid()::text"),
    )
    .await?;
    let seen = ask(
        &second.client,
        "begin; select pg_catalog.pg_backend_pid()::text || '/' || coalesce(pg_catalog.current_setting('supa_safe.probe', true), '')",
    )
    .await?;
    let after = ask(&first.client, "select pg_catalog.pg_backend_pid()::text").await?;
    second.client.batch_execute("rollback").await?;
    first.client.batch_execute("reset supa_safe.probe").await?;
    Ok(seen != format!("{seen_pid}/", seen_pid = seen.split('/').next().unwrap_or_default())
        || before != after
        || seen.split('/').next() == Some(before.as_str()))
}

async fn ask(client: &Client, sql: &str) -> Result<String, Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .next_back()
        .unwrap_or_default())
}
