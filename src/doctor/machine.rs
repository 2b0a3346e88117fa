//! The hook, and where evidence stands.

use super::{Check, Facts, Grade, Group, Hook, Shared, State};
use crate::evidence::estimate::bytes_in_words;
use crate::hook::{Manager, Runs, VERSION};

/// Less than this is not enough for any snapshot.
const LEAST_FREE: u64 = 1 << 30;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![pre_push(&facts.hook)];
    match &facts.state {
        Err(failure) => checks.push(Check::failed(
            Group::Disk,
            "state folder",
            failure,
            "a place for snapshots, outside of the work tree",
        )),
        Ok(state) => checks.extend(disk(state)),
    }
    checks.extend(facts.shared.as_ref().map(shared));
    checks
}

fn pre_push(found: &Hook) -> Check {
    let (group, name) = (Group::Hook, "pre-push");
    let install = "supa-safe hook install";
    let needed = "the hook, so that a push of migrations is judged";
    match found {
        Hook::None(why) => Check::ok(group, name, why),
        Hook::Elsewhere(why) => Check::ok(group, name, why).needs(Grade::Warn, needed, install),
        Hook::Place(Runs::Ours(version), _) if *version < VERSION => Check::ok(
            group,
            name,
            format!("version {version}, of an older supa-safe"),
        )
        .needs(Grade::Warn, "the hook of this version", install),
        Hook::Place(Runs::Ours(_), _) => Check::ok(group, name, "installed"),
        Hook::Place(Runs::Caller, manager) => {
            let who = manager.as_ref().map_or("somebody else's hook", Manager::name);
            Check::ok(group, name, format!("{who} calls supa-safe"))
        }
        Hook::Place(_, Some(manager)) if manager.calls_us() => Check::ok(
            group,
            name,
            format!("{} would call supa-safe, and git does not run it", manager.name()),
        )
        .needs(Grade::Warn, needed, manager.start()),
        Hook::Place(_, Some(manager)) => {
            Check::ok(group, name, format!("{} owns the hooks and does not call supa-safe", manager.name()))
                .needs(Grade::Warn, needed, install)
        }
        Hook::Place(Runs::Nothing, None) => {
            Check::ok(group, name, "none").needs(Grade::Warn, needed, install)
        }
        Hook::Place(Runs::Foreign, None) => {
            Check::ok(group, name, "somebody else's only").needs(Grade::Warn, needed, install)
        }
    }
}

fn disk(state: &State) -> Vec<Check> {
    let group = Group::Disk;
    let dir = state.dir.display().to_string();
    if let Some(why) = &state.problem {
        return vec![Check::ok(group, "state folder", format!("{dir}: {why}")).needs(
            Grade::Fail,
            "a folder that can be written to",
            "export SUPA_SAFE_STATE_DIR=<folder>",
        )];
    }
    let folder = Check::ok(group, "state folder", &dir);
    let folder = if state.is_open {
        folder.needs(
            Grade::Warn,
            "a folder that only you can look into: snapshots hold your data",
            format!("chmod 700 {}", crate::proc::shell_word(&dir)),
        )
    } else {
        folder
    };
    let mut checks = vec![folder, space(state)];
    let left = Check::ok(
        group,
        "leftovers",
        if state.leftovers.is_empty() { "none".to_owned() } else { state.leftovers.join(", ") },
    );
    checks.push(if state.leftovers.is_empty() {
        left
    } else {
        left.needs(Grade::Warn, "nothing of dead runs; the next run clears it up", "supa-safe snapshot")
    });
    if let Some(run) = &state.unsettled {
        checks.push(Check::ok(group, "last push", format!("run {run} ended while it pushed")).needs(
            Grade::Warn,
            "to know what became of it",
            "supa-safe migrate --dry-run",
        ));
    }
    checks
}

fn shared(store: &Shared) -> Check {
    let (group, name) = (Group::Disk, "shared store");
    match &store.tried {
        Err(failure) => Check::failed(
            group,
            name,
            failure,
            "a bucket that may be listed and read, and that runs may write to",
        ),
        Ok(()) => Check::ok(
            group,
            name,
            format!("{}: can be read; a run tries to write when it takes the lock", store.name),
        ),
    }
}

fn space(state: &State) -> Check {
    let check = Check::ok(Group::Disk, "free space", bytes_in_words(state.free_bytes));
    // A rehearsal needs the snapshot, and its restored copy, which is larger.
    let wanted = LEAST_FREE.max(state.snapshot_bytes.saturating_mul(10));
    if state.free_bytes >= wanted {
        return check;
    }
    check.needs(Grade::Warn, "room for a snapshot and its restored copy", "supa-safe prune")
}
