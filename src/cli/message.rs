//! What the team has to know of a rollback, as one text that can be pasted.

use crate::evidence::estimate::bytes_in_words;
use crate::manifest::SnapshotId;
use crate::rollback::storage::Objects;
use crate::rollback::{self, Accounts, Changed, DEFINITIONS, Mode};
use crate::ui::RolledBack;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The text's file, in the folder of the rollback.
pub(super) const FILE: &str = "message.md";
/// Names that are told; files have all of them.
const NAMED: usize = 10;

/// What was taken back, and when.
pub(super) struct About<'a> {
    pub(super) target: &'a str,
    pub(super) snapshot: &'a SnapshotId,
    /// When the snapshot was taken, as long as it is there.
    pub(super) taken_at: Option<Timestamp>,
    pub(super) done_at: Timestamp,
    /// What was not taken back.
    pub(super) limits: &'a [String],
}

/// The text, in Markdown.
pub(super) fn of(about: &About<'_>, done: &RolledBack) -> String {
    let About { target, snapshot, taken_at, done_at, limits } = about;
    let what = if done.database { "was" } else { "had its Storage" };
    let state =
        taken_at.map_or_else(String::new, |at| format!(" to the state of {} by its own clock", minute(at)));
    let mut lines = vec![
        format!("**{target} {what} taken back**{state},"),
        format!("snapshot {snapshot}; done at {}.", minute(*done_at)),
        String::new(),
    ];
    if done.database {
        lines.extend(database(done));
    }
    lines.extend(done.storage.iter().flat_map(storage));
    lines.push(format!("- Not taken back: {}.", limits.join("; ")));
    match &done.elsewhere {
        None => lines.push(format!("- Files of it, on the machine that wrote this: `{}`", done.folder)),
        Some(place) => lines.push(format!(
            "- Its run died. Which tables were made again, and the rows that it kept, stand in the files of it on {place}"
        )),
    }
    lines.join("\n") + "\n"
}

fn minute(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn database(done: &RolledBack) -> Vec<String> {
    let mut lines = Vec::new();
    if !done.versions.is_empty() {
        let versions = done.versions.join(", ");
        lines.push(format!("- Undone, and pending again: {versions}. Correct before the next push."));
    }
    if done.elsewhere.is_none() {
        lines.extend(tables(done));
        lines.push(format!("- Nobody could read or write these tables for {:.1} s.", done.seconds));
    }
    let rows: u64 = done.saved.iter().map(|saved| saved.rows).sum();
    if rows > 0 {
        lines.push(format!(
            "- Written to these since, by the push or by people, and kept in files: {}:",
            rows_in_words(rows)
        ));
        let shown = done.saved.iter().take(NAMED);
        lines.extend(shown.map(|saved| {
            format!("  - {} of {} in `{}`", rows_in_words(saved.rows), saved.table, saved.file)
        }));
        if let Some(more) = done.saved.len().checked_sub(NAMED).filter(|more| *more > 0) {
            lines.push(format!("  - and those of {more} more tables, by `saved.json`"));
        }
    }
    let large = &done.large_objects;
    if !large.is_empty() {
        let bytes = large.iter().map(|object| object.bytes).sum();
        lines.push(format!(
            "- Large objects written since, and kept in files: {}, of {}.",
            large.len(),
            bytes_in_words(bytes)
        ));
    }
    if rows > 0 || !large.is_empty() {
        lines.push("- To load them again where they fit:".to_owned());
        lines.push(format!("  `{}`", rollback::load_command(&done.folder)));
    }
    lines.extend(accounts(&done.accounts));
    lines.extend(done.references.iter().map(|reference| format!("- To be looked at: {reference}")));
    lines
}

fn tables(done: &RolledBack) -> Vec<String> {
    let is_removed = |table: &&String| done.removed_tables.contains(table);
    let (removed, again): (Vec<&String>, Vec<&String>) = done.tables.iter().partition(is_removed);
    let [removed, again] = [removed, again].map(|tables| tables.into_iter().cloned().collect::<Vec<_>>());
    let made = named(&again);
    let mut lines = vec![match done.mode {
        Mode::Touched => {
            format!(
                "- Went back: what that changed. Made again: {made}. Rows that were written elsewhere stay."
            )
        }
        Mode::Whole => format!("- Went back: everything of ours. Made again: {made}."),
    }];
    if !again.is_empty() {
        lines.push("- Rows that people deleted from these since are there again.".to_owned());
    }
    if !removed.is_empty() {
        lines.push(format!("- Removed, since they came after the snapshot: {}.", named(&removed)));
    }
    lines.push(format!(
        "- Definitions as they stood before: `{DEFINITIONS}`, read with `pg_restore -f - {DEFINITIONS}`."
    ));
    lines
}

fn accounts(accounts: &Accounts) -> Vec<String> {
    let changed = |changed: &[Changed]| -> Vec<String> {
        let words = |one: &Changed| {
            let gone = one.refers_to.as_ref().map(|table| format!(" (of {table})")).unwrap_or_default();
            format!("{} of {}{gone}", rows_in_words(one.rows), one.table)
        };
        changed.iter().map(words).collect()
    };
    let mut lines = Vec::new();
    if !accounts.loaded.is_empty() {
        let loaded = named(&changed(&accounts.loaded));
        lines.push(format!("- Who signed up since stays; loaded again with the accounts: {loaded}."));
    }
    if !accounts.unfit.is_empty() {
        let unfit = named(&changed(&accounts.unfit));
        lines.push(format!(
            "- Of these, some refer to what is gone, or have values that are too long or too exact: without the reference, or only in the files: {unfit}."
        ));
    }
    if !accounts.removed.is_empty() {
        let removed = named(&changed(&accounts.removed));
        lines.push(format!("- Not brought back, or without the reference, since what they refer to is gone since, such as an account: {removed}."));
    }
    lines.extend(accounts.taken.iter().map(|taken| {
        let rows = u64::try_from(taken.ids.len()).unwrap_or(u64::MAX);
        let file = taken.file.as_ref().map(|file| format!("; as they were in `{file}`")).unwrap_or_default();
        format!(
            "- Did not go back, since others have by now what only one may have, such as an address: {} of {} \
             ({}){file}.",
            rows_in_words(rows),
            taken.table,
            named(&taken.ids)
        )
    }));
    if accounts.failed.is_some() {
        let text =
            "- Who signed up since stays, but the rows with the accounts do not fit: they are in the files.";
        lines.push(text.to_owned());
    }
    lines
}

fn storage(objects: &Objects) -> Vec<String> {
    let Objects { moved, uploaded, found, saved, added_names, .. } = objects;
    let mut lines = vec![format!(
        "- Storage: went back. Of the bytes of these objects, {found} were still there, {moved} were moved back, {uploaded} uploaded; {saved} that stood in their place were kept first."
    )];
    if !objects.removed.is_empty() {
        lines.push(format!("- Removed from Storage, and kept: {}.", named(&objects.removed)));
    }
    if !added_names.is_empty() {
        lines.push(format!("- Added to Storage since, and still there: {}.", named(added_names)));
    }
    let left = stays_in_words(&objects.stays);
    lines.extend(left.map(|left| format!("- Of Storage, by others since, and as they left it: {left}.")));
    lines
}

/// What differs from the snapshot by other hands, for people.
pub(super) fn stays_in_words(counts: &BTreeMap<&'static str, u64>) -> Option<String> {
    let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Names, the first few of them.
pub(super) fn named(names: &[String]) -> String {
    let (first, rest) = names.split_at(names.len().min(NAMED));
    match (first.is_empty(), rest.len()) {
        (true, _) => "no table".to_owned(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{}, and {more} more", first.join(", ")),
    }
}

fn rows_in_words(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollback::{Saved, SavedObject, Taken};

    #[test]
    fn a_team_reads_what_went_back_what_is_kept_and_what_stays() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let changed = |table: &str, rows| vec![Changed { table: table.to_owned(), rows, refers_to: None }];
        let done = RolledBack {
            mode: Mode::Touched,
            database: true,
            versions: vec!["20260101000000".to_owned()],
            tables: ["public.a", "public.b", "public.new"].map(str::to_owned).to_vec(),
            removed_tables: vec!["public.new".to_owned()],
            saved: vec![Saved { table: "public.a".to_owned(), rows: 2, file: "0001.csv".to_owned() }],
            large_objects: vec![SavedObject {
                oid: 7,
                owner: "o".to_owned(),
                bytes: 9,
                file: "large-7.bin".to_owned(),
                is_changed: false,
            }],
            accounts: Accounts {
                loaded: changed("public.p", 1),
                removed: vec![Changed {
                    refers_to: Some("auth.users".to_owned()),
                    ..changed("public.q", 3).remove(0)
                }],
                unfit: changed("public.p", 2),
                failed: None,
                taken: vec![Taken {
                    table: "auth.users".to_owned(),
                    ids: vec!["00000000-0000-0000-0000-000000000001".to_owned()],
                    file: Some("auth.users.old.csv".to_owned()),
                }],
            },
            references: vec!["x refers to y".to_owned()],
            folder: "/state/rollbacks/1".to_owned(),
            elsewhere: None,
            storage: Some(Objects {
                moved: 1,
                uploaded: 2,
                found: 3,
                saved: 2,
                added_names: ["object `photos/x`", "bucket `y`"].map(str::to_owned).to_vec(),
                stays: [("overwritten", 1), ("removed", 2)].into(),
                ..Objects::default()
            }),
            seconds: 1.5,
            message: String::new(),
        };
        let snapshot: SnapshotId = "20260101T000000Z-000000".parse().unwrap();
        let (taken_at, done_at) = (Some(at("2026-01-01T00:00:00Z")), at("2026-01-01T00:10:00Z"));
        let limits = ["one thing", "another"].map(str::to_owned);
        let about =
            About { target: "abcdefghijklmnopqrst", snapshot: &snapshot, taken_at, done_at, limits: &limits };
        let expected = [
            "**abcdefghijklmnopqrst was taken back** to the state of 2026-01-01 00:00:00 UTC by its own clock,",
            "snapshot 20260101T000000Z-000000; done at 2026-01-01 00:10:00 UTC.",
            "",
            "- Undone, and pending again: 20260101000000. Correct before the next push.",
            "- Went back: what that changed. Made again: public.a, public.b. Rows that were written elsewhere stay.",
            "- Rows that people deleted from these since are there again.",
            "- Removed, since they came after the snapshot: public.new.",
            "- Definitions as they stood before: `definitions.dump`, read with `pg_restore -f - definitions.dump`.",
            "- Nobody could read or write these tables for 1.5 s.",
            "- Written to these since, by the push or by people, and kept in files: 2 rows:",
            "  - 2 rows of public.a in `0001.csv`",
            "- Large objects written since, and kept in files: 1, of 9 B.",
            "- To load them again where they fit:",
            "  `cd /state/rollbacks/1 && psql <url> -f load.sql`",
            "- Who signed up since stays; loaded again with the accounts: 1 row of public.p.",
            "- Of these, some refer to what is gone, or have values that are too long or too exact: without the reference, or only in the files: 2 rows of public.p.",
            "- Not brought back, or without the reference, since what they refer to is gone since, such as an account: 3 rows of public.q (of auth.users).",
            "- Did not go back, since others have by now what only one may have, such as an address: 1 row of \
             auth.users (00000000-0000-0000-0000-000000000001); as they were in `auth.users.old.csv`.",
            "- To be looked at: x refers to y",
            "- Storage: went back. Of the bytes of these objects, 3 were still there, 1 were moved back, 2 uploaded; 2 that stood in their place were kept first.",
            "- Added to Storage since, and still there: object `photos/x`, bucket `y`.",
            "- Of Storage, by others since, and as they left it: 1 overwritten, 2 removed.",
            "- Not taken back: one thing; another.",
            "- Files of it, on the machine that wrote this: `/state/rollbacks/1`",
        ];
        assert_eq!(of(&about, &done).lines().collect::<Vec<_>>(), expected);
    }
}
