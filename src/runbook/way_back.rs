//! Renders `rollback.md` from what the rehearsal of the rollback found.

use super::{Error, by_hand};
use crate::archive::Contents;
use crate::fingerprint::Fingerprint;
use crate::proc::shell_word;
use crate::rehearse::record::Record;
use crate::rehearse::rollback::{Rehearsed, dropped_logins};
use crate::rollback::{self, Mode};
use crate::store::Snapshot;
use minijinja::{Environment, UndefinedBehavior, context};
use std::path::Path;

/// The page's file name.
pub(super) const FILE: &str = "rollback.md";
/// What stands for the name of the run that rolls back, which nobody knows yet.
const RUN: &str = "<run>";

/// The page.
pub(super) fn render(snapshot: &Snapshot, contents: &Contents, record: &Record) -> Result<String, Error> {
    let manifest = &snapshot.manifest;
    let modes: Vec<_> = record.rollbacks.iter().map(|one| mode(one, record)).collect();
    let files: Vec<String> = record.effects.iter().map(|effect| effect.file.clone()).collect();
    let not_back = match record.way_back() {
        Some(way_back) => way_back.not_back(),
        None => rollback::LIMITS.map(str::to_owned).to_vec(),
    };
    let (recorded, after) = fingerprints(snapshot, record)?;
    let dropped = dropped_logins(&record.left_out.comparable(&recorded), &after);
    let by_hand: Vec<_> = by_hand::all(manifest, contents, &dropped)
        .into_iter()
        .map(|one| context! { text => one.text, command => one.command })
        .collect();
    let kept = snapshot.dir.parent().and_then(Path::parent).unwrap_or(&snapshot.dir);
    let kept = kept.join("rollbacks").join(RUN);
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    Ok(templates.render_str(
        include_str!("../../templates/rollback.md"),
        context! {
            id => manifest.id.as_str(),
            target => manifest.identity.name.as_str(),
            taken_at => manifest.taken.target_clock.to_string(),
            rehearsed_at => record.rehearsed_at.to_string(),
            command => format!("supa-safe rollback {}", manifest.id),
            storage => snapshot.storage_index().exists(),
            folder => shell_word(&snapshot.dir.display().to_string()),
            load => rollback::load_command(&kept.display().to_string()),
            limits => &record.limits,
            not_back,
            by_hand,
            files,
            modes,
        },
    )?)
}

/// What the rehearsal of one mode found.
fn mode(one: &Rehearsed, record: &Record) -> minijinja::Value {
    context! {
        name => one.mode.as_str(),
        what => match one.mode {
            Mode::Touched => "what the push touched; rows written to other tables since stay",
            Mode::Whole => "everything of yours",
        },
        is_default => record.way_back().is_some_and(|way_back| way_back.mode == one.mode),
        failed => one.failed.as_deref(),
        seconds => format!("{:.0}", one.seconds.ceil()),
        tables => &one.tables,
        storage => one.storage.map(|objects| objects.in_words()),
    }
}

/// The fingerprint of the snapshot, and the one that the push left on the copy.
fn fingerprints(snapshot: &Snapshot, record: &Record) -> Result<(Fingerprint, Fingerprint), Error> {
    let recorded = fs_err::read_to_string(snapshot.database_file("fingerprint.tsv"))?;
    Ok((Fingerprint::from_text(&recorded)?, Fingerprint::from_text(&record.fingerprint)?))
}
