//! What no rollback brings back, and how people make it again from the snapshot.

use super::has;
use crate::archive::{Contents, Names};
use crate::manifest::{ComponentName, Manifest, TableRows};
use crate::proc::Cmd;

/// One thing to be made again.
#[derive(Debug)]
pub(super) struct ByHand {
    /// What, and how.
    pub(super) text: String,
    /// The command that prints what it was, to be run in the snapshot's folder.
    pub(super) command: Option<String>,
}

/// All of it that this snapshot holds something of; `logins` are roles that the push drops.
pub(super) fn all(manifest: &Manifest, contents: &Contents, logins: &[String]) -> Vec<ByHand> {
    let tables = in_archive(manifest, contents);
    let mut found: Vec<ByHand> = tables.iter().filter_map(|table| of_extension(table)).collect();
    let accounts =
        tables.iter().find(|table| (table.schema.as_str(), table.name.as_str()) == ("auth", "users"));
    found.extend(accounts.map(|table| ByHand {
        text: "Accounts: rows of `auth` stay as they are, but for what the push wrote. What a row was, hashes \
               of passwords included, is printed by:"
            .to_owned(),
        command: Some(print_rows(table)),
    }));
    if !logins.is_empty() {
        found.push(ByHand {
            text: format!(
                "Passwords: {} come back without one. Set new ones in `psql` with `\\password <role>`, which sends \
                 and logs no plain text.",
                logins.iter().map(|role| format!("`{role}`")).collect::<Vec<_>>().join(", ")
            ),
            command: None,
        });
    }
    found.extend(of_platform(manifest));
    found
}

/// The tables of which the archive has rows.
fn in_archive<'a>(manifest: &'a Manifest, contents: &Contents) -> Vec<&'a TableRows> {
    let filled: Vec<&TableRows> = manifest.database.tables.iter().filter(|table| table.count > 0).collect();
    let names = Names::of(filled.iter().map(|table| (table.schema.as_str(), table.name.as_str())));
    let entries = contents.entries.iter().filter(|entry| entry.kind == "TABLE DATA");
    let mut numbers: Vec<usize> = entries.filter_map(|entry| names.find(entry)).collect();
    numbers.sort_unstable();
    numbers.into_iter().filter_map(|number| filled.get(number).copied()).collect()
}

/// Rows that belong to an extension.
fn of_extension(table: &TableRows) -> Option<ByHand> {
    let extension = table.extension.as_deref()?;
    let rows = table.count;
    match (table.schema.as_str(), table.name.as_str()) {
        ("cron", "job") => Some(ByHand {
            text: format!(
                "Jobs of `cron`, {rows} in the snapshot: where the push changed, dropped, or lost one, see what it was, \
                 and make it again with `select cron.schedule('<name>', '<schedule>', $$<command>$$)`:"
            ),
            command: Some(print_rows(table)),
        }),
        ("cron", _) => None,
        // The rows hold what is encrypted with a key that is not in the database.
        ("vault", "secrets") => Some(ByHand {
            text: format!(
                "Secrets of the vault, {rows} in the snapshot: they are encrypted with a key that is not in it. Make a \
                 lost one again with `select vault.create_secret('<value>', '<name>')`, from where you keep its value."
            ),
            command: None,
        }),
        _ => Some(ByHand {
            text: format!(
                "Rows of `{}`, which belong to extension `{extension}`, {rows} in the snapshot: see what they were, and \
                 make them again with the functions of the extension:",
                table.qualified()
            ),
            command: Some(print_rows(table)),
        }),
    }
}

/// The command that prints the rows of a table as they are in the archive.
fn print_rows(table: &TableRows) -> String {
    Cmd::new("pg_restore")
        .args(["--file=-", "--data-only"])
        .arg(format!("--schema={}", table.schema))
        .arg(format!("--table={}", table.name))
        .arg("database/archive")
        .to_string()
}

/// What the platform holds beside the database.
fn of_platform(manifest: &Manifest) -> Vec<ByHand> {
    let held = [
        (
            ComponentName::Functions,
            "Edge Functions stay as they are. To deploy one as it was, copy the content of `functions/<slug>/` into \
             `supabase/functions` of an empty project folder and run `supabase functions deploy <slug>` there, with \
             `--no-verify-jwt` where `functions.json` says `\"verify_jwt\": false`.",
        ),
        (
            ComponentName::Secrets,
            "Secrets of the project stay as they are; `secrets.json` has their names and digests. Set a value that \
             you keep elsewhere with `supabase secrets set --env-file <file>`; `supa-safe secrets check` says \
             whether it is the one that is deployed.",
        ),
        (
            ComponentName::Config,
            "The project's own settings stay as they are. What they were stands in `config/`; change them in the \
             project's dashboard.",
        ),
    ];
    let held = held.into_iter().filter(|(name, _)| has(manifest, *name));
    held.map(|(_, text)| ByHand { text: text.to_owned(), command: None }).collect()
}
