//! What is told beside the files with kept rows: the script that loads them again, and their list.

use super::inverse::quote_literal;
use super::keys::ForeignKey;
use super::live::sql_name;
use super::since::{Doomed, Recorded, Saved};
use super::{DEFINITIONS, Error, Taken, Work, names};
use crate::disk;
use crate::fingerprint::one_line;
use crate::manifest::qualified;
use crate::proc::shell_word;
use std::collections::BTreeMap;
use std::path::Path;

/// How the script begins: what it says of itself, and what loads the rows of a file.
const LOAD: &str = include_str!("load.sql");
/// The script's file.
const SCRIPT: &str = "load.sql";

/// The command that loads the kept rows of a folder again, for people: the URL is theirs to fill in.
pub fn load_command(folder: &str) -> String {
    format!("cd {} && psql <url> -f {SCRIPT}", shell_word(folder))
}

/// Writes both. The files that they name are there. The script does what `beside` says too.
pub(super) fn describe(
    work: &Work<'_>,
    doomed: &[Doomed],
    (saved, taken): (&[Saved], &[Taken]),
    (folder, beside): (&Path, &str),
) -> Result<(), Error> {
    disk::make_private_dir(folder)?;
    disk::write(&folder.join(SCRIPT), load_script(doomed, saved, &work.keys, beside).as_bytes())?;
    let old = taken.iter().filter_map(|taken| {
        let rows = u64::try_from(taken.ids.len()).unwrap_or(u64::MAX);
        Some(Saved { table: taken.table.clone(), rows, file: taken.file.clone()? })
    });
    disk::write_json(&folder.join("saved.json"), &saved.iter().cloned().chain(old).collect::<Vec<_>>())?;
    Ok(disk::sync_dir(folder)?)
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
         where attrelid = to_regclass('{literal}') and attnum > 0 and not attisdropped) s\n\
         where s.sequence is not null \\gexec\n"
    )
}

/// Names as an array of texts.
fn array<'a>(names: impl Iterator<Item = &'a str>) -> String {
    format!("array[{}]::text[]", names.map(quote_literal).collect::<Vec<_>>().join(", "))
}

/// The part of the script that loads the rows of one file into the table that came back.
fn load_rows(saved: &Saved, table: &Doomed, (schema, bare, recorded): &Recorded) -> String {
    // The rows have the columns of the table that went, and go into the one that came back.
    let pairs = table.pairs(recorded);
    let name = sql_name(schema, bare);
    // Without a key a row of a user's cannot be told from one that the push wrote over. Nobody but
    // the owner reads the other table.
    let (target, head, end) = if table.has_key {
        (name.clone(), String::new(), "")
    } else {
        let aside = sql_name(schema, &format!("since_{bare}"));
        let head = format!(
            "-- The table has no key: rows of users and rows that the push wrote over go into {}, once.\n\
             select to_regclass({}) is null and to_regclass({}) is not null as is_to_come \\gset\n\
             \\if :is_to_come\ncreate table {aside} (like {name});\n\
             alter table {aside} enable row level security;\n",
            one_line(&aside),
            quote_literal(&aside),
            quote_literal(&name)
        );
        (aside, head, "\\endif\n")
    };
    // A command of psql ends with its line, and a name may hold anything: in the file columns have numbers.
    let numbered: Vec<String> = (1..=table.columns.len()).map(|number| format!("c{number}")).collect();
    let alone = table.columns.iter().filter(|column| !pairs.iter().any(|(live, _)| live == column));
    let alone: Vec<String> = alone
        .map(|column| format!("-- Of the file alone, the table has none that it was: {}\n", one_line(column)))
        .collect();
    let number = |live: &str| numbered.get(table.columns.iter().position(|column| column == live)?);
    let here = pairs.iter().filter_map(|(live, _)| number(live)).map(String::as_str);
    format!(
        "\n-- {}: {} rows\n{}{head}create temp table saved (\n    \
         supa_safe_row bigint generated always as identity primary key, {} text);\n\
         \\copy saved ({}) from '{}' with (format {}, header)\nanalyze saved;\n\
         call pg_temp.load_saved({}, '{}', {}, {});\ndrop table saved;\n{}{end}",
        one_line(&saved.table),
        saved.rows,
        alone.concat(),
        numbered.join(" text, "),
        numbered.join(", "),
        saved.file,
        saved.file.strip_suffix(".txt").map_or("csv", |_| "text"),
        quote_literal(&target),
        saved.file,
        array(here),
        array(pairs.iter().map(|(_, recorded)| *recorded)),
        match table.home().filter(|_| table.has_key) {
            Some((schema, bare, _)) => move_sequences(&sql_name(schema, bare)),
            None => String::new(),
        }
    )
}

/// A script for `psql` that loads the kept rows where they fit.
fn load_script(doomed: &[Doomed], saved: &[Saved], keys: &[ForeignKey], beside: &str) -> String {
    let table_of =
        |saved: &Saved| doomed.iter().find(|table| qualified(&table.schema, &table.name) == saved.table);
    let load = |saved: &Saved| {
        let Some(table) = table_of(saved) else {
            return format!(
                "\n-- {}: {} rows in {}, as they stood before some of their columns went back. Which of the\n\
                 -- values are a user's, and which the push wrote, only people can tell: by hand.\n",
                one_line(&saved.table),
                saved.rows,
                saved.file
            );
        };
        match (&table.recorded, &table.extension) {
            (Some(recorded), _) => load_rows(saved, table, recorded),
            (None, Some(extension)) => format!(
                "\n-- {}: {} rows in {}, of extension {}, which went: by hand, where it is there again\n",
                one_line(&saved.table),
                saved.rows,
                saved.file,
                one_line(extension)
            ),
            (None, None) => format!(
                "\n-- {}: {} rows in {}, and no table: how it was defined, `pg_restore -f - {DEFINITIONS}` says\n",
                one_line(&saved.table),
                saved.rows,
                saved.file
            ),
        }
    };
    let depths = depths(keys);
    let depth = |saved: &&Saved| {
        let (schema, name, _) = table_of(saved)?.recorded.as_ref()?;
        depths.get(&(schema.clone(), name.clone())).copied()
    };
    let mut in_order: Vec<&Saved> = saved.iter().collect();
    in_order.sort_by_key(depth);
    let loads: Vec<String> = in_order.into_iter().map(load).collect();
    let told = if loads.is_empty() && beside.is_empty() { "" } else { "\nselect * from loaded;\n" };
    format!("{LOAD}{}{beside}{told}\ncommit;\n", loads.concat())
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
            numbered: Vec::new(),
            recorded: Some(("public".to_owned(), "log".to_owned(), vec!["a".to_owned()])),
            has_key,
            above: Vec::new(),
            primary_key: Vec::new(),
            extension: None,
        };
        let saved = [Saved { table: "public.log".to_owned(), rows: 1, file: "0001.csv".to_owned() }];
        let into = |has_key| {
            let script = load_script(&[table(has_key)], &saved, &[], "");
            let line = script.lines().find(|line| line.starts_with("call ")).unwrap();
            line.split("', '").next().unwrap().to_owned()
        };
        assert_eq!(
            [into(true), into(false)],
            [
                "call pg_temp.load_saved('\"public\".\"log\"",
                "call pg_temp.load_saved('\"public\".\"since_log\""
            ]
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
