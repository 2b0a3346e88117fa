//! Measures in a scratch what each migration does, by a trigger on the migration history.

use crate::effect::{
    Besides, FileEffect, LockHeld, ManagedChange, ManagedRows, SEEDS, SequenceLeft, TableEffect, Which,
};
use crate::fingerprint::Class;
use tokio_postgres::{Client, Error, Row};

/// The history itself, which changes in every push.
const HISTORY: &str = "supabase_migrations.schema_migrations";

/// Rows that changed alike in a managed table, of which the ids are noted: a record of a rehearsal is read
/// as a whole.
const NOTED: i64 = 10_000;

/// Begins to measure.
pub async fn begin(client: &Client) -> Result<(), Error> {
    client.batch_execute(include_str!("sql/measure.sql")).await?;
    client.batch_execute("select supa_safe_rehearsal.note('before')").await
}

/// Begins again after a file that failed: what is counted of it was taken back.
pub async fn again(client: &Client) -> Result<(), Error> {
    client.batch_execute("select supa_safe_rehearsal.note(null)").await
}

/// Ends measuring: notes what came after the last migration, reads everything, and leaves no trace.
pub async fn end(client: &Client) -> Result<(Vec<FileEffect>, Besides), Error> {
    client.query("select supa_safe_rehearsal.note($1)", &[&SEEDS]).await?;
    let rows = client.query(include_str!("sql/effects.sql"), &[]).await?;
    let besides = besides(client).await?;
    client
        .batch_execute(
            "set client_min_messages = warning;
             drop event trigger if exists supa_safe_rehearsal;
             drop schema supa_safe_rehearsal cascade;
             reset client_min_messages",
        )
        .await?;
    Ok((effects(&rows), besides))
}

/// What is the platform's moves by itself.
async fn besides(client: &Client) -> Result<Besides, Error> {
    let mut found = Besides::default();
    for row in client.query(include_str!("sql/besides.sql"), &[]).await? {
        if let Some(large_object) = row.get(3) {
            found.large_objects.push(large_object);
            continue;
        }
        let name: String = row.get(0);
        let schema = name.split('.').next().unwrap_or_default().trim_matches('"');
        if Class::of_rows(schema, "") == Class::Owned {
            found.sequences.push(SequenceLeft { name, value: row.get(1), is_called: row.get(2) });
        }
    }
    found.managed = managed(&client.query(include_str!("sql/managed.sql"), &[&NOTED]).await?);
    Ok(found)
}

fn managed(rows: &[Row]) -> Vec<ManagedRows> {
    let mut tables: Vec<ManagedRows> = Vec::new();
    for row in rows {
        let table: String = row.get(0);
        if tables.last().is_none_or(|last| last.table != table) {
            tables.push(ManagedRows { table, newest: row.get(4), ..ManagedRows::default() });
        }
        let Some(last) = tables.last_mut() else { continue };
        let ids: Option<Vec<String>> = row.get(3);
        match row.get(1) {
            "gone" => last.gone = ids.unwrap_or_default(),
            "added" => last.added = ids.unwrap_or_default(),
            _ => {
                let rows = ids.map_or(Which::Any, Which::These);
                last.changed.push(ManagedChange { columns: row.get(2), rows });
            }
        }
    }
    tables
}

fn effects(rows: &[Row]) -> Vec<FileEffect> {
    let mut effects: Vec<FileEffect> = Vec::new();
    for row in rows {
        let version: String = row.get(0);
        if effects.last().is_none_or(|effect| effect.file != version) {
            let seconds = if effects.is_empty() { row.get(1) } else { row.get(2) };
            effects.push(FileEffect { file: version, seconds, tables: Vec::new(), locks: Vec::new() });
        }
        let Some(effect) = effects.last_mut() else { continue };
        let table: String = row.get(3);
        if table == HISTORY {
            continue;
        }
        let count = |index: usize| u64::try_from(row.get::<_, i64>(index)).unwrap_or_default();
        let touched = TableEffect {
            table: table.clone(),
            inserted: count(4),
            updated: count(5),
            deleted: count(6),
            rewritten: row.get(7),
            reached: row.get(9),
            columns: Vec::new(),
        };
        if touched.is_changed() || touched.reached {
            effect.tables.push(touched);
        }
        let modes: Option<Vec<String>> = row.get(8);
        effect.locks.extend(modes.into_iter().flatten().map(|mode| LockHeld { table: table.clone(), mode }));
    }
    effects.retain(|effect| !effect.is_of_seeds() || !effect.tables.is_empty());
    effects
}
