//! Rows written since the snapshot, kept in files before their tables go.
//!
//! A row is known by its content: its hash is looked for among those of the archive's rows, so that
//! only the hashes of a table cross the wire, and the rows that differ. A table whose shape changed
//! is compared by the columns that both have; columns that came since are compared by nothing, so
//! what was written to such a table after the migration is kept whatever it looks like.

use super::Error;
use super::script::Archive;
use crate::archive::RowReader;
use crate::disk;
use crate::manifest::{qualified, quote_identifier};
use crate::tools::pg_restore::{self, Section};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_postgres::Client;

/// A table that is about to go.
#[derive(Clone, Debug)]
pub(super) struct Doomed {
    pub(super) schema: String,
    pub(super) name: String,
    /// Its columns but the generated ones.
    pub(super) columns: Vec<String>,
    /// Schema, name, and columns in the snapshot, when it was there.
    pub(super) recorded: Option<(String, String, Vec<String>)>,
    /// Whether it had a key there.
    pub(super) has_key: bool,
}

/// Rows of one table that were kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Qualified name, as it was when the rows were kept.
    pub table: String,
    /// How many.
    pub rows: u64,
    /// The file, in the folder of the rollback.
    pub file: String,
}

/// The columns that both sides have, as pairs; what goes by another name on one side is paired in
/// order, since a column that was renamed is more likely than one that went while another came.
fn pairs<'a>(live: &'a [String], recorded: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let only = |one: &'a [String], other: &[String]| -> Vec<&'a str> {
        one.iter().filter(|name| !other.contains(name)).map(String::as_str).collect()
    };
    let renamed: BTreeMap<&str, &str> = only(recorded, live).into_iter().zip(only(live, recorded)).collect();
    let pair = |name: &'a String| {
        let same = live.iter().find(|column| *column == name).map(String::as_str);
        Some((same.or_else(|| renamed.get(name.as_str()).copied())?, name.as_str()))
    };
    recorded.iter().filter_map(pair).collect()
}

/// Keeps the rows of these tables that the archive does not have.
pub(super) async fn save(
    client: &Client,
    doomed: &[Doomed],
    archive: &Archive<'_>,
    versions: &[String],
    folder: &Path,
) -> Result<Vec<Saved>, Error> {
    disk::make_private_dir(folder)?;
    let mut known = hashes(doomed, archive).await?;
    let since =
        "select max(pg_catalog.age(xmin)) from supabase_migrations.schema_migrations where version = any($1)";
    let has_history = "select pg_catalog.to_regclass('supabase_migrations.schema_migrations') is not null";
    let since: Option<i32> = if client.query_one(has_history, &[]).await?.get(0) {
        client.query_one(since, &[&versions]).await?.get(0)
    } else {
        None
    };
    let mut saved = Vec::new();
    for table in doomed {
        let recorded = table.recorded.as_ref();
        let mut hashes = recorded
            .and_then(|(schema, name, _)| known.remove(&(schema.clone(), name.clone())))
            .unwrap_or_default();
        hashes.sort_unstable();
        let rows = mark(client, table, &hashes, since).await?;
        if rows > 0 {
            let file = format!("{:04}.csv", saved.len() + 1);
            write(client, table, &folder.join(&file)).await?;
            saved.push(Saved { table: qualified(&table.schema, &table.name), rows, file });
        }
    }
    disk::write(&folder.join("load.sql"), load_script(doomed, &saved).as_bytes())?;
    disk::write_json(&folder.join("saved.json"), &saved)?;
    disk::sync_dir(folder)?;
    Ok(saved)
}

/// Marks the rows of one table that the archive does not have; returns their number.
pub(super) async fn mark_one(client: &Client, table: &Doomed, archive: &Archive<'_>) -> Result<u64, Error> {
    let mut known = hashes(std::slice::from_ref(table), archive).await?;
    let mut hashes = known.pop_first().map(|(_, hashes)| hashes).unwrap_or_default();
    hashes.sort_unstable();
    mark(client, table, &hashes, None).await
}

/// The hashes of the archive's rows, by table.
async fn hashes(
    doomed: &[Doomed],
    archive: &Archive<'_>,
) -> Result<BTreeMap<(String, String), Vec<i64>>, Error> {
    let mut single: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for table in doomed {
        if let Some((schema, name, columns)) = &table.recorded {
            let kept = pairs(&table.columns, columns).into_iter().map(|(_, name)| name.to_owned());
            single.insert((schema.clone(), name.clone()), kept.collect());
        }
    }
    let list =
        archive.list_of_rows(|schema, name| single.contains_key(&(schema.to_owned(), name.to_owned())));
    if list.is_empty() {
        return Ok(BTreeMap::new());
    }
    let path = archive.scratch.join("since.list");
    disk::write(&path, list.as_bytes())?;
    let reader = Arc::new(Mutex::new(RowReader::of_single_rows(single)));
    let reading = Arc::clone(&reader);
    pg_restore::section(archive.clients, &archive.snapshot.archive(), &path, Section::Data)
        .on_bytes(move |bytes| reading.lock().unwrap_or_else(PoisonError::into_inner).feed(bytes))
        .run()
        .await
        .map_err(Error::Archive)?;
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    let tables = std::mem::take(&mut *reader).into_tables();
    Ok(tables.into_iter().map(|(table, rows)| (table, rows.into_hashes())).collect())
}

/// Puts the places of the rows that are not in the snapshot into a temporary table; returns their
/// number.
async fn mark(client: &Client, table: &Doomed, known: &[i64], since: Option<i32>) -> Result<u64, Error> {
    let recorded = table.recorded.as_ref().map(|(_, _, columns)| columns.as_slice()).unwrap_or_default();
    let pairs = pairs(&table.columns, recorded);
    let columns: Vec<String> =
        pairs.iter().map(|(live, _)| format!("t.{}", quote_identifier(live))).collect();
    let has_more = table.columns.len() > pairs.len() || pairs.is_empty();
    let is_written = match since {
        _ if !has_more => "false".to_owned(),
        None => "true".to_owned(),
        Some(age) => format!("pg_catalog.age(t.xmin) < {age}"),
    };
    let name = qualified_sql(table);
    let sql = format!(
        "copy (select t.ctid, pg_catalog.hashtextextended(row({})::pg_catalog.text, 0), {is_written} \
         from only {name} t) to stdout",
        columns.join(", ")
    );
    // The places are few or they are many; a file holds either.
    let mut places = tempfile::tempfile()?;
    let mut count = 0;
    let stream = client.copy_out(&sql).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(piece) = stream.next().await {
        // A server sends one row at a time.
        for line in piece?.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let text = std::str::from_utf8(line).map_err(|_| Error::Encoding)?;
            let mut fields = text.split('\t');
            let (place, hash, is_written) = (fields.next(), fields.next(), fields.next());
            let is_known = hash
                .and_then(|hash| hash.parse().ok())
                .is_some_and(|hash| known.binary_search(&hash).is_ok());
            if !is_known || is_written == Some("t") {
                count += 1;
                writeln!(places, "{}", place.unwrap_or_default())?;
            }
        }
    }
    // Most tables have none, and over a long way each question takes its time.
    if count > 0 {
        send_places(client, places).await?;
    }
    Ok(count)
}

async fn send_places(client: &Client, mut places: std::fs::File) -> Result<(), Error> {
    use std::io::Seek as _;
    places.rewind()?;
    client
        .batch_execute(
            "create temp table if not exists supa_safe_since (place tid); truncate pg_temp.supa_safe_since",
        )
        .await?;
    let sink = client.copy_in("copy pg_temp.supa_safe_since from stdin").await?;
    let mut sink = std::pin::pin!(sink);
    let mut reader = std::io::BufReader::with_capacity(64 << 10, places);
    loop {
        let piece = Bytes::copy_from_slice(reader.fill_buf()?);
        if piece.is_empty() {
            break;
        }
        reader.consume(piece.len());
        sink.send(piece).await?;
    }
    sink.finish().await?;
    Ok(())
}

pub(super) fn qualified_sql(table: &Doomed) -> String {
    format!("{}.{}", quote_identifier(&table.schema), quote_identifier(&table.name))
}

fn column_list(columns: &[String]) -> String {
    columns.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

/// Writes the marked rows, synced.
pub(super) async fn write(client: &Client, table: &Doomed, path: &Path) -> Result<(), Error> {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("t.{}", quote_identifier(column))).collect();
    let sql = format!(
        "copy (select {} from only {} t join pg_temp.supa_safe_since s on s.place = t.ctid) to stdout (format csv, header)",
        columns.join(", "),
        qualified_sql(table)
    );
    let folder = path.parent().unwrap_or(path);
    let mut file = disk::Temp::new_in(folder)?;
    let stream = client.copy_out(&sql).await?;
    let mut stream = std::pin::pin!(stream);
    while let Some(piece) = stream.try_next().await? {
        file.write_all(&piece)?;
    }
    Ok(file.persist(path)?)
}

/// A script for `psql` that loads the kept rows where their keys are free.
fn load_script(doomed: &[Doomed], saved: &[Saved]) -> String {
    let head = "-- Loads the rows that were written between the snapshot and the rollback, where their keys are free.\n\
        -- Run it in this folder: psql <url> -f load.sql\n\\set ON_ERROR_STOP on\nbegin;\n";
    let load = |saved: &Saved| {
        let table = doomed.iter().find(|table| qualified(&table.schema, &table.name) == saved.table)?;
        let Some((schema, bare, recorded)) = &table.recorded else {
            return Some(format!(
                "\n-- {}: {} rows in {}, and no table\n",
                saved.table, saved.rows, saved.file
            ));
        };
        // The rows have the columns of the table that went, and go into the one that came back.
        let pairs = pairs(&table.columns, recorded);
        let name = format!("{}.{}", quote_identifier(schema), quote_identifier(bare));
        let quoted = |columns: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            columns.map(quote_identifier).collect()
        };
        let here = quoted(&mut pairs.iter().map(|(live, _)| *live));
        let there = quoted(&mut pairs.iter().map(|(_, recorded)| *recorded));
        let shape: Vec<String> =
            here.iter().zip(&there).map(|(here, there)| format!("{there} as {here}")).collect();
        let more = table.columns.iter().filter(|column| !pairs.iter().any(|(live, _)| live == column));
        let more: Vec<String> = more
            .map(|column| format!("alter table saved add column {} text;\n", quote_identifier(column)))
            .collect();
        let more = more.concat();
        // Without a key a row of a user's cannot be told from one that the push wrote over. Nobody but
        // the owner reads the other table.
        let (target, note) = if table.has_key {
            (name.clone(), String::new())
        } else {
            let aside =
                format!("{}.{}", quote_identifier(schema), quote_identifier(&format!("since_{bare}")));
            let note = format!(
                "-- The table has no key: rows of users and rows that the push wrote over go into {aside}.\n\
                 create table {aside} (like {name});\nalter table {aside} enable row level security;\n"
            );
            (aside, note)
        };
        Some(format!(
            "\n-- {}: {} rows\n{note}create temp table saved as select {} from {name} with no data;\n{more}\
             \\copy saved ({}) from '{}' with (format csv, header)\n\
             insert into {target} ({}) overriding system value select {} from saved on conflict do nothing;\n\
             drop table saved;\n",
            saved.table,
            saved.rows,
            shape.join(", "),
            column_list(&table.columns),
            saved.file,
            there.join(", "),
            here.join(", ")
        ))
    };
    let loads: Vec<String> = saved.iter().filter_map(load).collect();
    format!("{head}{}\ncommit;\n", loads.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_table_without_a_key_are_loaded_beside_it() {
        let table = |has_key| Doomed {
            schema: "public".to_owned(),
            name: "log".to_owned(),
            columns: vec!["a".to_owned()],
            recorded: Some(("public".to_owned(), "log".to_owned(), vec!["a".to_owned()])),
            has_key,
        };
        let saved = [Saved { table: "public.log".to_owned(), rows: 1, file: "0001.csv".to_owned() }];
        let into = |has_key| {
            let script = load_script(&[table(has_key)], &saved);
            let line = script.lines().find(|line| line.starts_with("insert into")).unwrap();
            line.split(" (").next().unwrap().to_owned()
        };
        assert_eq!(
            [into(true), into(false)],
            ["insert into \"public\".\"log\"", "insert into \"public\".\"since_log\""]
        );
    }

    #[test]
    fn columns_are_paired_by_name_and_then_in_order() {
        let names = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let check = |live: &str, recorded: &str, expected: &[(&str, &str)]| {
            let (live, recorded) = (names(live), names(recorded));
            assert_eq!(pairs(&live, &recorded), expected);
        };
        check("id a b", "id a b", &[("id", "id"), ("a", "a"), ("b", "b")]);
        check("id b2 a", "id a b", &[("id", "id"), ("a", "a"), ("b2", "b")]);
        check("id a", "id a b", &[("id", "id"), ("a", "a")]);
        check("id a c", "id a", &[("id", "id"), ("a", "a")]);
    }
}
