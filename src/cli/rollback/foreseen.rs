//! What a rollback will meet, looked at before anybody is asked and anything is locked.

use super::plan::Plan;
use crate::cli::fail;
use crate::cli::open::Opened;
use crate::disk;
use crate::effect::Besides;
use crate::event::Stage;
use crate::evidence::estimate::bytes_in_words;
use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::policy::{Obstacle, Rule};
use crate::rollback::preflight::{self, Foreseen, Wanted};

/// Looks, and refuses what would fail by what is known now. A dry run only reads.
pub(super) async fn look(opened: &Opened, plan: &Plan, is_dry: bool) -> Result<Option<Foreseen>, Failure> {
    let watch = opened.context.stage(Stage::Rollback, "look what would stand in its way");
    let tables = plan.all_tables();
    let nothing = Besides::default();
    let wanted = Wanted {
        mode: plan.mode,
        tables: &tables,
        locks: plan.rehearsed_locks(),
        effects: plan.record.as_ref().map(|record| record.effects.as_slice()).unwrap_or_default(),
        besides: plan.record.as_ref().map_or(&nothing, |record| &record.besides),
        tries: !is_dry,
    };
    let foreseen = if plan.with_database {
        preflight::look_back(&opened.target, plan.base.snapshot(), wanted).await
    } else {
        preflight::look_at_storage(&opened.target, wanted.tries).await
    };
    let foreseen = match foreseen {
        Ok(foreseen) => foreseen,
        // Whoever needs a rollback is not kept from it by a look at it.
        Err(error) => {
            opened.context.warn(format!(
                "what may stand in the way of it could not be looked at: {}",
                failure::chain(&error).join(": ")
            ));
            return Ok(None);
        }
    };
    if !foreseen.stops.is_empty() {
        return Err(refused(&foreseen.stops));
    }
    watch.done(match foreseen.hinders.len() {
        0 => "nothing that is known stands in its way".to_owned(),
        count => format!("{count} things may stand in its way"),
    });
    Ok(Some(foreseen))
}

fn refused(stops: &[Obstacle]) -> Failure {
    let failure = Failure::message(Exit::Refused, "the rollback would fail; the target was not touched");
    let failure = stops.iter().fold(failure, |failure, obstacle| {
        failure.detail(format!("[{}] {}", Rule::RollbackImpossible, obstacle.fact))
    });
    let mut ways_out: Vec<&str> = stops.iter().map(|obstacle| obstacle.way_out.as_str()).collect();
    ways_out.dedup();
    let failure =
        ways_out.into_iter().fold(failure, |failure, way_out| failure.hint(fail::sentence(way_out)));
    failure.hint("Then run `supa-safe rollback` again")
}

/// What a person reads of it.
pub(super) fn lines(opened: &Opened, foreseen: &Foreseen) -> Vec<(&'static str, String)> {
    let free = disk::free_bytes(opened.context.store.root()).ok();
    let bytes = bytes_in_words(foreseen.bytes);
    let here = free.map_or_else(String::new, |free| format!(" ({} are free)", bytes_in_words(free)));
    let mut lines = vec![(
        "needs",
        format!(
            "about {bytes} more on the target's disk until it commits, and at most as much here for what is kept{here}"
        ),
    )];
    if free.is_some_and(|free| free < foreseen.bytes) {
        let text = "the rows that are kept may not fit on this disk; nothing is changed when they do not";
        lines.push(("WARNING", text.to_owned()));
    }
    lines.extend(warnings(foreseen));
    lines
}

/// What it may fail by.
pub(super) fn warnings(foreseen: &Foreseen) -> impl Iterator<Item = (&'static str, String)> {
    foreseen.hinders.iter().map(|one| ("WARNING", format!("{}: {}", one.fact, one.way_out)))
}
