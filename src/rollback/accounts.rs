//! Accounts that came and went since the snapshot.
//!
//! Rows of `auth.users` are not ours to take back: who signed up since stays, with the rows that refer
//! to the new account, and who is gone stays gone, with the rows that cannot stand alone. Both happens
//! between the rows and the keys of the archive, while no trigger and no key is there.

use super::keys::{ForeignKey, OnDelete};
use super::live::sql_name;
use super::since::{self, Doomed};
use super::{Error, Work, names};
use crate::manifest::quote_identifier;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::Client;

const USERS: (&str, &str) = ("auth", "users");

/// Rows of one table that are not as in the snapshot, since an account came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Qualified name.
    pub table: String,
    /// How many.
    pub rows: u64,
}

/// Rows of new accounts, in a temporary table of texts until their own table is there again.
pub(super) struct Kept {
    table: String,
    columns: Vec<String>,
    place: String,
}

/// Keeps the rows that refer to accounts which the snapshot does not have.
pub(super) async fn keep(work: &Work<'_>, doomed: &[Doomed]) -> Result<Vec<Kept>, Error> {
    let keys = ForeignKey::all(&work.recorded);
    let of_users = keys.iter().filter(|key| key.refers_to == "auth.users" && key.columns.len() == 1);
    let wanted: Vec<(&ForeignKey, &Doomed)> = of_users
        .filter_map(|key| {
            let own = names::qualified(&key.table)?;
            let is_own = |table: &&Doomed| {
                table.recorded.as_ref().is_some_and(|(schema, name, _)| (schema, name) == (&own.0, &own.1))
            };
            Some((key, doomed.iter().find(is_own)?))
        })
        .collect();
    if wanted.is_empty() || !mark_new(work).await? {
        return Ok(Vec::new());
    }
    let mut of_tables: BTreeMap<&str, (&Doomed, Vec<&str>)> = BTreeMap::new();
    for (key, table) in wanted {
        let column = key.columns.first().map(String::as_str).unwrap_or_default();
        if table.columns.contains(&names::plain(column)) {
            of_tables.entry(&key.table).or_insert_with(|| (table, Vec::new())).1.push(column);
        }
    }
    let mut kept = Vec::new();
    for (name, (table, referring)) in of_tables {
        let Some((_, _, recorded)) = &table.recorded else { continue };
        let columns: Vec<String> = recorded
            .iter()
            .filter(|name| table.columns.contains(name))
            .map(|name| quote_identifier(name))
            .collect();
        let place = format!("pg_temp.supa_safe_kept_{}", kept.len());
        let texts: Vec<String> =
            columns.iter().map(|name| format!("t.{name}::pg_catalog.text as {name}")).collect();
        let sql = format!(
            "create temp table supa_safe_kept_{} on commit drop as select {} from {} t \
             where exists (select from pg_temp.supa_safe_new n where n.id in ({}))",
            kept.len(),
            texts.join(", "),
            sql_name(&table.schema, &table.name),
            referring.iter().map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ")
        );
        work.client.batch_execute(&sql).await.map_err(Error::at("keep the rows of new accounts"))?;
        kept.push(Kept { table: name.to_owned(), columns, place });
    }
    Ok(kept)
}

/// Lists the accounts that came since in a temporary table; returns whether there are any.
async fn mark_new(work: &Work<'_>) -> Result<bool, Error> {
    let (schema, name) = USERS;
    let users = Doomed {
        schema: schema.to_owned(),
        name: name.to_owned(),
        columns: vec!["id".to_owned()],
        recorded: Some((schema.to_owned(), name.to_owned(), vec!["id".to_owned()])),
        has_key: true,
        primary_key: vec!["id".to_owned()],
    };
    if since::mark_one(work.client, &users, &work.compared()).await? == 0 {
        return Ok(false);
    }
    let sql = "create temp table supa_safe_new on commit drop as \
        select u.id from auth.users u join pg_temp.supa_safe_since s on s.place = u.ctid";
    work.client.batch_execute(sql).await.map_err(Error::at("look for new accounts"))?;
    Ok(true)
}

/// Takes away what cannot stand without an account, or a row, that is gone; `tables` by schema and name.
pub(super) async fn remove(
    work: &Work<'_>,
    tables: &BTreeSet<(String, String)>,
) -> Result<Vec<Changed>, Error> {
    let is_one = |name: &str| names::qualified(name).is_some_and(|name| tables.contains(&name));
    let keys: Vec<ForeignKey> = ForeignKey::all(&work.recorded)
        .into_iter()
        // One that was never validated may have been broken in the snapshot.
        .filter(|key| key.is_valid && is_one(&key.table) && (work.knows_objects() || !key.is_into_storage()))
        .collect();
    let mut changed: Vec<Changed> = Vec::new();
    let mut is_first = true;
    loop {
        let mut rows = 0;
        for key in &keys {
            // In the snapshot every key between the user's own tables holds: the first look is for others.
            if is_first && is_one(&key.refers_to) {
                continue;
            }
            let found = work
                .client
                .execute(&statement(key), &[])
                .await
                .map_err(Error::at("follow accounts that are gone"))?;
            rows += found;
            add(&mut changed, &key.table, found);
        }
        if rows == 0 {
            return Ok(changed);
        }
        is_first = false;
    }
}

fn statement(key: &ForeignKey) -> String {
    match key.on_delete {
        OnDelete::Remove => format!("delete from {} t where {}", key.table, key.dangles()),
        OnDelete::Forget => {
            let nulls: Vec<String> = key.columns.iter().map(|column| format!("{column} = null")).collect();
            format!("update {} t set {} where {}", key.table, nulls.join(", "), key.dangles())
        }
    }
}

fn add(changed: &mut Vec<Changed>, table: &str, rows: u64) {
    if rows == 0 {
        return;
    }
    match changed.iter_mut().find(|one| one.table == table) {
        Some(one) => one.rows += rows,
        None => changed.push(Changed { table: table.to_owned(), rows }),
    }
}

/// Loads the rows of new accounts again, and moves the sequences of their tables past them.
pub(super) async fn load(client: &Client, kept: &[Kept]) -> Result<Vec<Changed>, Error> {
    let mut changed = Vec::new();
    for kept in kept {
        let types = client
            .query(
                "select pg_catalog.quote_ident(a.attname), pg_catalog.format_type(a.atttypid, a.atttypmod)
                 from pg_catalog.pg_attribute a
                 where a.attrelid = $1::text::pg_catalog.regclass and a.attnum > 0 and not a.attisdropped",
                &[&kept.table],
            )
            .await?;
        let of = |column: &String| {
            let bare = names::plain(column);
            let row = types.iter().find(|row| names::plain(row.get(0)) == bare)?;
            Some(format!("k.{column}::{}", row.get::<_, String>(1)))
        };
        let values: Vec<String> = kept.columns.iter().filter_map(of).collect();
        let (table, place) = (&kept.table, &kept.place);
        let sql = format!(
            "insert into {table} ({}) overriding system value select {} from {place} k",
            kept.columns.join(", "),
            values.join(", ")
        );
        let rows = client.execute(&sql, &[]).await?;
        if rows > 0 {
            move_sequences(client, table, &kept.columns).await?;
        }
        add(&mut changed, table, rows);
    }
    Ok(changed)
}

async fn move_sequences(client: &Client, table: &str, columns: &[String]) -> Result<(), Error> {
    for column in columns {
        let sql = "select pg_catalog.pg_get_serial_sequence($1, $2)";
        let found: Option<String> = client.query_one(sql, &[&table, &names::plain(column)]).await?.get(0);
        if let Some(sequence) = found {
            let sql = format!(
                "select pg_catalog.setval('{0}', greatest((select last_value from {sequence}), \
                 (select max({column}) from {table})))",
                sequence.replace('\'', "''")
            );
            client.batch_execute(&sql).await?;
        }
    }
    Ok(())
}
