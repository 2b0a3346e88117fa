//! What is told beside the files with kept rows: the script that loads them again, and their list.

use super::keys::ForeignKey;
use super::live::sql_name;
use super::since::{Doomed, Saved, pairs};
use super::{Error, Taken, Work, names};
use crate::disk;
use crate::manifest::{qualified, quote_identifier};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes both. The files that they name are there. The script does what `beside` says too.
pub(super) fn describe(
    work: &Work<'_>,
    doomed: &[Doomed],
    (saved, taken): (&[Saved], &[Taken]),
    (folder, beside): (&Path, &str),
) -> Result<(), Error> {
    disk::make_private_dir(folder)?;
    disk::write(&folder.join("load.sql"), load_script(doomed, saved, &work.keys, beside).as_bytes())?;
    let old = taken.iter().filter_map(|taken| {
        let rows = u64::try_from(taken.ids.len()).unwrap_or(u64::MAX);
        Some(Saved { table: taken.table.clone(), rows, file: taken.file.clone()? })
    });
    disk::write_json(&folder.join("saved.json"), &saved.iter().cloned().chain(old).collect::<Vec<_>>())?;
    Ok(disk::sync_dir(folder)?)
}

fn column_list(columns: &[String]) -> String {
    columns.iter().map(|column| quote_identifier(column)).collect::<Vec<_>>().join(", ")
}

/// How many tables a row needs before it can be there; tables that need each other stop somewhere.
fn depths(keys: &[ForeignKey]) -> BTreeMap<(String, String), usize> {
    let pairs: Vec<((String, String), (String, String))> = keys
        .iter()
        .filter_map(|key| Some((names::qualified(&key.table)?, names::qualified(&key.refers_to)?)))
        .filter(|(table, refers_to)| table != refers_to)
        .collect();
    let mut depths: BTreeMap<(String, String), usize> = BTreeMap::new();
    for _ in 0..pairs.len() {
        let mut is_done = true;
        for (table, refers_to) in &pairs {
            let below = depths.get(refers_to).copied().unwrap_or_default() + 1;
            let own = depths.entry(table.clone()).or_default();
            if *own < below && below <= pairs.len() {
                (*own, is_done) = (below, false);
            }
        }
        if is_done {
            break;
        }
    }
    depths
}

/// Statements for `psql` that move the sequences of a table past its rows.
fn move_sequences(table: &str) -> String {
    let literal = table.replace('\'', "''");
    format!(
        "select format('select setval(%L, greatest((select last_value from %s), (select max(%I) from %s)))', \
         s.sequence, s.sequence, s.attname, '{literal}')\n\
         from (select attname, pg_get_serial_sequence('{literal}', attname) as sequence from pg_attribute\n\
         where attrelid = '{literal}'::regclass and attnum > 0 and not attisdropped) s\n\
         where s.sequence is not null \\gexec\n"
    )
}

/// Statements that let go the rows whose account, or other row, is not there: they stay in the file.
fn without_dangling(table: &Doomed, pairs: &[(&str, &str)], keys: &[ForeignKey]) -> String {
    let live = |columns: &[String]| -> Option<Vec<String>> {
        let of = |column: &String| {
            let bare = names::plain(column);
            let found = pairs.iter().find(|(_, recorded)| *recorded == bare)?;
            Some(quote_identifier(found.0))
        };
        columns.iter().map(of).collect()
    };
    let own = keys.iter().filter(|key| table.has_key && table.is_under(&key.table));
    let named = own.filter_map(|key| Some((key, ForeignKey { columns: live(&key.columns)?, ..key.clone() })));
    let (within, others): (Vec<_>, Vec<_>) = named.partition(|(key, _)| table.is_under(&key.refers_to));
    let mut statements: Vec<String> =
        others.iter().map(|(_, key)| format!("delete from saved t where {};\n", key.dangles())).collect();
    // A row may refer to another one of the same file, which may not stand itself.
    statements.extend(within.into_iter().filter_map(|(key, renamed)| {
        let dangles = renamed.dangles();
        let equal = ForeignKey { key: live(&key.key)?, ..renamed }.equal();
        Some(format!(
            "do $$begin loop delete from saved t where {dangles} and not exists (select from saved r where {equal}); \
             exit when not found; end loop; end$$;\n"
        ))
    }));
    statements.concat()
}

/// A script for `psql` that loads the kept rows where their keys are free.
fn load_script(doomed: &[Doomed], saved: &[Saved], keys: &[ForeignKey], beside: &str) -> String {
    let head = "-- Loads the rows that were written between the snapshot and the rollback, where their keys are free.\n\
        -- Run it in this folder: psql <url> -f load.sql\n\\set ON_ERROR_STOP on\nbegin;\n";
    let table_of =
        |saved: &Saved| doomed.iter().find(|table| qualified(&table.schema, &table.name) == saved.table);
    let load = |saved: &Saved| {
        let Some(table) = table_of(saved) else {
            return Some(format!(
                "\n-- {}: {} rows in {}, as they stood before some of their columns went back. Which of the\n\
                 -- values are a user's, and which the push wrote, only people can tell: by hand.\n",
                saved.table, saved.rows, saved.file
            ));
        };
        let Some((schema, bare, recorded)) = &table.recorded else {
            return Some(format!(
                "\n-- {}: {} rows in {}, and no table\n",
                saved.table, saved.rows, saved.file
            ));
        };
        // The rows have the columns of the table that went, and go into the one that came back.
        let pairs = pairs(&table.columns, recorded);
        let name = sql_name(schema, bare);
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
            let aside = sql_name(schema, &format!("since_{bare}"));
            let note = format!(
                "-- The table has no key: rows of users and rows that the push wrote over go into {aside}.\n\
                 create table {aside} (like {name});\nalter table {aside} enable row level security;\n"
            );
            (aside, note)
        };
        Some(format!(
            "\n-- {}: {} rows\n{note}create temp table saved as select {} from {name} with no data;\n{more}\
             \\copy saved ({}) from '{}' with (format csv, header)\n{}\
             insert into {target} ({}) overriding system value select {} from saved on conflict do nothing;\n\
             drop table saved;\n{}",
            saved.table,
            saved.rows,
            shape.join(", "),
            column_list(&table.columns),
            saved.file,
            without_dangling(table, &pairs, keys),
            there.join(", "),
            here.join(", "),
            match table.home().filter(|_| table.has_key) {
                Some((schema, bare, _)) => move_sequences(&sql_name(schema, bare)),
                None => String::new(),
            }
        ))
    };
    let depths = depths(keys);
    let depth = |saved: &&Saved| {
        let (schema, name, _) = table_of(saved)?.recorded.as_ref()?;
        depths.get(&(schema.clone(), name.clone())).copied()
    };
    let mut in_order: Vec<&Saved> = saved.iter().collect();
    in_order.sort_by_key(depth);
    let loads: Vec<String> = in_order.into_iter().filter_map(load).collect();
    format!("{head}{}{beside}\ncommit;\n", loads.concat())
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
            above: Vec::new(),
            primary_key: Vec::new(),
        };
        let saved = [Saved { table: "public.log".to_owned(), rows: 1, file: "0001.csv".to_owned() }];
        let into = |has_key| {
            let script = load_script(&[table(has_key)], &saved, &[], "");
            let line = script.lines().find(|line| line.starts_with("insert into")).unwrap();
            line.split(" (").next().unwrap().to_owned()
        };
        assert_eq!(
            [into(true), into(false)],
            ["insert into \"public\".\"log\"", "insert into \"public\".\"since_log\""]
        );
    }

    #[test]
    fn what_others_refer_to_is_loaded_before_them() {
        let key = |table: &str, refers_to: &str| ForeignKey {
            table: table.to_owned(),
            columns: Vec::new(),
            refers_to: refers_to.to_owned(),
            key: Vec::new(),
            on_delete: crate::rollback::keys::OnDelete::Remove,
            is_valid: true,
        };
        let keys = [key("public.a", "public.b"), key("public.b", "public.c"), key("public.a", "public.a")];
        let depths = depths(&keys);
        let depth = |name: &str| depths.get(&("public".to_owned(), name.to_owned())).copied();
        assert_eq!([depth("a"), depth("b"), depth("c")], [Some(2), Some(1), None]);
    }
}
