//! Accounts that came and went since the snapshot.
//!
//! Rows of `auth.users` are not ours to take back: who signed up since stays, with the rows that refer
//! to the new account, and who is gone stays gone, with the rows that cannot stand alone. Both happens
//! between the rows and the keys of the archive, while no trigger and no key is there.

use super::keys::{ForeignKey, OnDelete};
use super::live::sql_name;
use super::since::{self, Doomed};
use super::{Error, Work, names, partitions};
use crate::manifest::{qualified, quote_identifier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
    /// Schema and name of the table.
    home: (String, String),
    /// As SQL wants it.
    table: String,
    columns: Vec<String>,
    place: String,
}

/// Keeps the rows that refer to accounts which the snapshot does not have.
pub(super) async fn keep(work: &Work<'_>, doomed: &[Doomed]) -> Result<Vec<Kept>, Error> {
    let keys = work.keys.iter().filter(|key| key.refers_to == "auth.users");
    let referring: Vec<(&str, String)> = keys
        .filter_map(|key| match &key.columns[..] {
            [column] => Some((key.table.as_str(), names::plain(column))),
            _ => None,
        })
        .collect();
    let mut wanted = Vec::new();
    for table in doomed {
        let Some((schema, name, recorded)) = table.home() else { continue };
        let pairs = since::pairs(&table.columns, recorded);
        let of_table = referring.iter().filter(|(of, _)| table.is_under(of));
        let live = of_table.filter_map(|(_, column)| pairs.iter().find(|(_, recorded)| recorded == column));
        let live: BTreeSet<&str> = live.map(|(live, _)| *live).collect();
        if !live.is_empty() {
            wanted.push((table, (schema, name), pairs, live));
        }
    }
    let mut kept = Vec::new();
    if wanted.is_empty() || !mark_new(work).await? {
        return Ok(kept);
    }
    for (table, home, pairs, referring) in wanted {
        let texts = pairs.iter().map(|(live, recorded)| {
            format!("t.{}::pg_catalog.text as {}", quote_identifier(live), quote_identifier(recorded))
        });
        let referring = referring.iter().map(|column| format!("t.{}", quote_identifier(column)));
        let number = kept.len();
        let sql = format!(
            "create temp table supa_safe_kept_{number} on commit drop as select {} from only {} t \
             where exists (select from pg_temp.supa_safe_new n where n.id in ({}))",
            texts.collect::<Vec<_>>().join(", "),
            sql_name(&table.schema, &table.name),
            referring.collect::<Vec<_>>().join(", ")
        );
        work.client.batch_execute(&sql).await.map_err(Error::at("keep the rows of new accounts"))?;
        let columns = pairs.iter().map(|(_, recorded)| quote_identifier(recorded)).collect();
        kept.push(Kept {
            home: (home.0.clone(), home.1.clone()),
            table: sql_name(home.0, home.1),
            columns,
            place: format!("pg_temp.supa_safe_kept_{number}"),
        });
    }
    Ok(kept)
}

/// Lists the accounts that came since in a temporary table; returns whether there are any.
async fn mark_new(work: &Work<'_>) -> Result<bool, Error> {
    let (schema, name) = USERS;
    let ids = vec!["id".to_owned()];
    let users = Doomed {
        recorded: Some((schema.to_owned(), name.to_owned(), ids.clone())),
        primary_key: ids.clone(),
        ..Doomed::plain(schema, name, ids)
    };
    if since::mark_one(work.client, &users, &work.compared()).await? == 0 {
        return Ok(false);
    }
    let sql = "create temp table supa_safe_new on commit drop as \
        select u.id from auth.users u join pg_temp.supa_safe_since s on s.place = u.ctid";
    work.client.batch_execute(sql).await.map_err(Error::at("look for new accounts"))?;
    Ok(true)
}

/// Takes away what cannot stand without an account, or a row, that is gone; `tables` by schema and name. A
/// key of a partitioned table is its partitions'.
pub(super) async fn remove(
    work: &Work<'_>,
    tables: &BTreeSet<(String, String)>,
) -> Result<Vec<Changed>, Error> {
    let parents = partitions::parents(&work.recorded);
    let mut tables = tables.clone();
    for mut table in tables.clone() {
        while let Some(parent) = parents.get(&table) {
            tables.insert(parent.clone());
            table.clone_from(parent);
        }
    }
    let is_one = |name: &str| names::qualified(name).is_some_and(|name| tables.contains(&name));
    let keys: Vec<&ForeignKey> = work
        .keys
        .iter()
        // One that was never validated may have been broken in the snapshot.
        .filter(|key| key.is_valid && is_one(&key.table) && (work.knows_objects() || !key.is_into_storage()))
        .collect();
    // In the snapshot every key between the user's own tables holds: the first look is for others.
    let others: Vec<&ForeignKey> = keys.iter().copied().filter(|key| !is_one(&key.refers_to)).collect();
    let mut changed = Vec::new();
    let mut rows = take_away(work, &others, &mut changed).await?;
    while rows > 0 {
        rows = take_away(work, &keys, &mut changed).await?;
    }
    Ok(changed)
}

/// Takes away the rows that do not hold to these keys, or their references; returns how many.
async fn take_away(work: &Work<'_>, keys: &[&ForeignKey], changed: &mut Vec<Changed>) -> Result<u64, Error> {
    let mut rows = 0;
    for key in keys {
        let mut found = 0;
        for statement in statements(key) {
            let done = work.client.execute(&statement, &[]).await;
            // What the second one takes away, the first one changed.
            found = found.max(done.map_err(Error::at("follow accounts that are gone"))?);
        }
        rows += found;
        add(changed, &key.table, found);
    }
    Ok(rows)
}

/// Statements that do what the key's action does.
fn statements(key: &ForeignKey) -> Vec<String> {
    let set = |columns: &[String], value: &str| {
        let sets: Vec<String> = columns.iter().map(|column| format!("{column} = {value}")).collect();
        format!("update {} t set {} where {}", key.table, sets.join(", "), key.dangles())
    };
    let remove = format!("delete from {} t where {}", key.table, key.dangles());
    match &key.on_delete {
        OnDelete::Remove => vec![remove],
        OnDelete::Forget(columns) => vec![set(columns, "null")],
        // The default may refer to what is gone too.
        OnDelete::Reset(columns) => vec![set(columns, "default"), remove],
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

/// Takes away those of the loaded rows that refer to what is gone: all others hold to their keys.
pub(super) async fn fit(work: &Work<'_>, kept: &[Kept]) -> Result<Vec<Changed>, Error> {
    let parents = partitions::parents(&work.recorded);
    let is_loaded = |key: &&ForeignKey| {
        let mut next = names::qualified(&key.table).filter(|_| key.is_valid);
        while let Some(table) = next {
            if kept.iter().any(|kept| kept.home == table) {
                return true;
            }
            next = parents.get(&table).cloned();
        }
        false
    };
    let keys: Vec<&ForeignKey> = work.keys.iter().filter(is_loaded).collect();
    let mut changed = Vec::new();
    while take_away(work, &keys, &mut changed).await? > 0 {}
    Ok(changed)
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
        add(&mut changed, &qualified(&kept.home.0, &kept.home.1), rows);
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
