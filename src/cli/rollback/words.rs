//! What a person reads before a rollback.

use super::commands::commands;
use super::foreseen;
use super::plan::Plan;
use crate::cli::done::Done;
use crate::cli::message::{named, stays_in_words};
use crate::cli::open::Opened;
use crate::evidence::estimate::bytes_in_words;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::policy::in_words;
use crate::rollback::choice::Unsettled;
use crate::rollback::pushed::Written;
use crate::rollback::{Mode, Proved, storage};
use crate::salvage;
use crate::ui::{Planned, Summary};
use jiff::SignedDuration;

/// What a rollback without keys does to Storage.
const HALF: &str = "no keys lead to the objects of Storage: their rows go back, their bytes wait for a run that has \
    keys, and this one ends with code 22";

/// What nobody knows without a rehearsal of just these files.
const ACCOUNTS: &str = "nobody knows what the push did to accounts: their rows in auth stay as they are, and rows of \
    yours that belong to accounts that are gone do not come back";

/// Said where a statement on rows of Storage met none on the copy.
pub(super) const OBJECTS: &str = "a statement of the push writes to rows of Storage: it met none on the copy, and here some are not \
    as in the snapshot, by the push or by people. They stay; `supa-safe rollback --only storage --mode whole` takes \
    them back";

/// Who waits meanwhile.
const BLOCKS: &str = "nobody reads or writes these tables until it is over, nor those of the platform that keys \
    tie to them: sign-ups and logins may wait too";

/// How many changes of others are named.
const SHOWN: usize = 10;

/// What is true afterwards.
pub(super) fn is_back(proved: &Proved, with_database: bool) -> String {
    let what = match (with_database, proved.mode) {
        (true, Mode::Touched) => "what the migration touched is as in the snapshot",
        (true, Mode::Whole) => "everything of yours is as in the snapshot",
        (false, Mode::Touched) => return "what the migration did to Storage is taken back".to_owned(),
        (false, Mode::Whole) => return "Storage is as in the snapshot".to_owned(),
    };
    let made_again = proved.tables.len() - proved.removed_tables.len();
    format!("{made_again} tables made again, and {what}")
}

/// What a person confirms.
pub(super) fn lines(opened: &Opened, plan: &Plan) -> Vec<(&'static str, String)> {
    let manifest = &plan.base.snapshot().manifest;
    let age = (opened.context.clock)().duration_since(manifest.taken.local_clock);
    let mut lines = vec![
        ("target", opened.target.name().to_owned()),
        (
            "back to",
            format!("snapshot {} of {}, {} ago", manifest.id, manifest.taken.target_clock, in_words(age)),
        ),
    ];
    lines.extend(plan.versions().iter().map(|version| ("undoes", format!("migration {version}"))));
    let is_known = plan.record.is_some();
    let mode = match (plan.with_database, plan.mode) {
        (true, Mode::Touched) if is_known => {
            "touched: what the migration touched goes back; rows that were written elsewhere stay"
        }
        (true, Mode::Touched) => {
            "touched: what the schema owns goes back, and the tables that you named; which rows the push wrote \
             elsewhere nobody knows, and they stay"
        }
        (true, Mode::Whole) => "whole: everything of yours goes back to the snapshot",
        (false, Mode::Touched) => {
            "touched: what the migration did to Storage goes back, and no table of yours is written"
        }
        (false, Mode::Whole) => "whole: all of Storage goes back, and no table of yours is written",
    };
    lines.push(("mode", mode.to_owned()));
    if plan.with_database {
        lines.extend(rehearsed(plan));
        lines.extend(partial(plan));
        lines.extend(unrehearsed(plan));
    }
    match &plan.objects {
        Some(objects) => {
            lines.extend(storage_lines(objects));
            if !objects.is_empty() && !storage::has_keys(&opened.context) {
                lines.push(("WARNING", HALF.to_owned()));
            }
        }
        None if plan.with_database && !plan.leaves_storage() => {
            lines.push(("storage", "stays as it is, and is not looked at".to_owned()));
        }
        None => {}
    }
    if plan.with_database {
        lines.push(("kept", "rows written since to tables that go back are kept in files first".to_owned()));
        lines.push(("blocks", BLOCKS.to_owned()));
        lines.extend(plan.foreseen.iter().flat_map(|foreseen| foreseen::lines(opened, foreseen)));
        lines.extend(plan.not_back().into_iter().map(|what| ("not back", what)));
    } else {
        lines.extend(plan.foreseen.iter().flat_map(foreseen::warnings));
        if plan.mode == Mode::Whole && !plan.choice.foreign.is_empty() {
            let text = format!(
                "the history holds {}, which neither the snapshot nor a push on record knows: what these did to \
                 Storage goes back too",
                plan.choice.foreign.join(", ")
            );
            lines.push(("WARNING", text));
        }
    }
    lines
}

/// What the rehearsal found of this mode.
fn rehearsed(plan: &Plan) -> Vec<(&'static str, String)> {
    let Some(rehearsed) = plan.rehearsed() else {
        let tables = match plan.mode {
            Mode::Whole => "all of yours".to_owned(),
            Mode::Touched => named(&plan.tables),
        };
        return vec![
            ("WARNING", "NOT REHEARSED: the proof before the commit is all there is".to_owned()),
            ("tables", format!("{tables}: these go back as well as what the schema owns")),
        ];
    };
    if let Some(why) = &rehearsed.failed {
        return vec![("WARNING", format!("not exact in the rehearsal: {why}"))];
    }
    let time = SignedDuration::try_from_secs_f64(rehearsed.seconds.ceil()).unwrap_or_default();
    let tables = named(&rehearsed.tables);
    let mut lines = vec![
        ("rehearsed", format!("exact, in {} on the copy", in_words(time))),
        ("tables", format!("{tables}: these go, and come as the snapshot has them")),
    ];
    let is_more =
        |table: &&String| !rehearsed.tables.contains(*table) && !plan.only_here.tables.contains(*table);
    let more: Vec<String> = plan.tables.iter().filter(is_more).cloned().collect();
    if plan.mode == Mode::Touched && !more.is_empty() {
        lines.push(("also", format!("{}: go back as well, which was not rehearsed", named(&more))));
    }
    lines
}

/// Files of the push that do not stand.
fn partial(plan: &Plan) -> impl Iterator<Item = (&'static str, String)> {
    let not = plan.choice.files.iter().filter(|file| !plan.choice.stands(file));
    not.map(|file| {
        let text =
            format!("{file} does not stand: of what it may have done, only what the schema owns goes back");
        ("WARNING", text)
    })
}

/// What no rehearsal told.
fn unrehearsed(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if !plan.knows_accounts() {
        lines.push(("WARNING", ACCOUNTS.to_owned()));
    }
    if plan.leaves_objects {
        lines.push(("WARNING", OBJECTS.to_owned()));
    }
    let Written { tables, unread } = &plan.only_here;
    if !tables.is_empty() {
        let text = format!("not rehearsed, since the push wrote to these here alone: {}", named(tables));
        lines.push(("also", text));
    }
    if !unread.is_empty() {
        let text = format!(
            "not read for rows of the push, being locked, large, or closed to this role: {}; `--table` takes one \
             back, `--mode whole` all",
            named(unread)
        );
        lines.push(("WARNING", text));
    }
    if !plan.extensions.is_empty() {
        lines.push((
            "also",
            format!(
                "goes with its extension, and is kept in files where it can be: {}",
                named(&plan.extensions)
            ),
        ));
    }
    let others = plan.by_others.iter().take(SHOWN).cloned();
    lines.extend(
        others.map(|what| ("WARNING", format!("not as in the rehearsal, and goes back as well: {what}"))),
    );
    if let Some(more) = plan.by_others.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(("WARNING", format!("and {more} more that are not as in the rehearsal")));
    }
    lines
}

/// What a person confirms when the rows went back already.
pub(super) fn standing_lines(
    opened: &Opened,
    unsettled: &Unsettled,
    saved: &salvage::Saved,
) -> Vec<(&'static str, String)> {
    vec![
        ("target", opened.target.name().to_owned()),
        ("back to", format!("snapshot {}; the rows are, since run {}", unsettled.snapshot, unsettled.run)),
        (
            "storage",
            format!(
                "{} objects are looked after, and moved or uploaded where they are not as in the snapshot",
                saved.items().count()
            ),
        ),
    ]
}

/// What is done to Storage, and what stays.
fn storage_lines(plan: &salvage::Plan) -> Vec<(&'static str, String)> {
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let changes: Vec<String> = plan
        .counts()
        .into_iter()
        .map(|(change, count)| format!("{count} {}", change.in_words()))
        .chain(
            (!plan.merged.is_empty()).then(|| format!("{} in some columns of their rows", plan.merged.len())),
        )
        .collect();
    let buckets = plan.buckets.iter().filter(|bucket| bucket.is_missing || bucket.is_changed).count();
    let buckets = if buckets == 0 { String::new() } else { format!(", and {buckets} buckets") };
    let withdrawn = plan.withdrawn.len() + plan.withdrawn_buckets.len();
    let bytes = plan.bytes_at_most();
    let mut lines = vec![(
        "storage",
        format!(
            "{} objects go back ({}){buckets}; at most {} are uploaded, in about {} min",
            plan.items.len() + plan.merged.len(),
            if changes.is_empty() { "none".to_owned() } else { changes.join(", ") },
            bytes_in_words(bytes),
            salvage::minutes(count(plan.items.len()), bytes)
        ),
    )];
    if withdrawn > 0 {
        let text = format!("{withdrawn} that the migration added go, unless something was put in");
        lines.push(("storage", text));
    }
    let added = plan.added_in_words();
    if !added.is_empty() {
        let fate = if plan.remove_added {
            "are removed, and saved first"
        } else {
            "stay; `--remove-added` removes them"
        };
        lines.push(("storage", format!("{} that were added ({}) {fate}", added.len(), named(&added))));
    }
    let left = stays_in_words(&plan.left_counts());
    lines.extend(left.map(|left| ("storage", format!("by others since, and stay: {left}"))));
    lines
}

/// The plan, for whoever only asked for it.
pub(super) fn show(opened: &Opened, plan: &Plan) -> Result<Done, Failure> {
    let commands = commands(opened, plan)?;
    let mut lines = lines(opened, plan);
    lines.extend(commands.iter().map(|command| ("runs", command.clone())));
    let obstacles = plan.foreseen.iter().flat_map(|foreseen| &foreseen.hinders);
    let planned = Planned {
        mode: plan.mode,
        database: plan.with_database,
        storage: plan.with_storage,
        versions: plan.versions().to_vec(),
        tables: if plan.with_database { plan.all_tables() } else { Vec::new() },
        seconds: plan.rehearsed().filter(|one| one.failed.is_none()).map(|one| one.seconds),
        obstacles: obstacles.map(|obstacle| obstacle.fact.clone()).collect(),
        not_back: plan.not_back(),
        commands,
    };
    let summary =
        Summary { snapshot: Some(plan.choice.snapshot.clone()), plan: Some(planned), ..Summary::new() };
    let done = Done { exit: Exit::Done, summary, closing: vec!["Plan (nothing was touched):".to_owned()] };
    Ok(lines.into_iter().fold(done, |done, (title, text)| done.closing(format!("  {title:<10} {text}"))))
}
