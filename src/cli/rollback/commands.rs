//! The programs that a rollback runs, for whoever only asked what it would do.

use super::plan::Plan;
use crate::cli::fail;
use crate::cli::open::Opened;
use crate::failure::Failure;
use crate::rollback::DEFINITIONS;
use crate::tools::pg_restore::{self, Section};
use crate::tools::{Login, installs, pg_dump};
use std::path::Path;

/// What stands for names that only the run itself gives.
const RUN: &str = "<run>";
const LISTS: &str = "<lists>";

/// Their command lines, masked. Everything else is done in the one session of the transaction.
pub(super) fn commands(opened: &Opened, plan: &Plan) -> Result<Vec<String>, Failure> {
    if !plan.with_database {
        return Ok(Vec::new());
    }
    let snapshot = plan.base.snapshot();
    let clients =
        installs::client_for(snapshot.manifest.client_major(), &opened.context.machine.installations)
            .map_err(|error| fail::installs_failed(&error))?;
    let login = Login { connection: &opened.target.connection };
    let definitions = opened.context.store.rollback_dir(RUN).join(DEFINITIONS);
    let archive = snapshot.archive();
    let gaps = snapshot.manifest.database.gaps.iter();
    let unread: Vec<String> = gaps.map(|gap| pg_dump::pattern(&gap.schema, &gap.name)).collect();
    let section = |section: Section| {
        let list = Path::new(LISTS).join(format!("{}.list", section.word()));
        pg_restore::section(clients, &archive, &list, section)
    };
    let commands = [
        pg_dump::definitions(clients, &login, &definitions, &unread),
        pg_restore::list(clients, &definitions),
        section(Section::PreData),
        section(Section::Data),
        section(Section::PostData),
    ];
    Ok(commands.iter().map(ToString::to_string).collect())
}
