//! `supa-safe hook`: install, remove, and look at the git pre-push hook.

use super::Setting;
use super::done::close;
use super::fail::failed;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::{self, Error, Installed, LINE, Manager, Place, Removed, Runs, State, VERSION};
use crate::proc::{self, shell_word};
use crate::tools::git::Git;
use crate::ui;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::path::PathBuf;

/// Arguments of `hook`.
#[derive(Debug, Args)]
pub(super) struct HookArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// Install the pre-push hook; one that stands there is kept and runs first
    Install,
    /// Remove it, and bring back the hook from before
    Uninstall,
    /// Say what stands where git looks for the hook
    Status,
}

pub(super) fn run(setting: &Setting, args: &HookArgs) -> Result<Exit, Failure> {
    match args.what {
        What::Install => close(setting, install(setting)),
        What::Uninstall => close(setting, uninstall(setting)),
        What::Status => status(setting),
    }
}

/// The place of the hooks of the repository that we stand in, or that `--workdir` is in.
pub(super) fn place(setting: &Setting) -> Result<Place, Error> {
    let surroundings = &setting.surroundings;
    let dir = match &setting.global.workdir {
        Some(dir) => surroundings.cwd.join(dir),
        None => surroundings.cwd.clone(),
    };
    let git = match setting.global.workdir {
        Some(_) => Git::at(surroundings.env(), &dir)?,
        None => Git::inherited(surroundings.env(), &dir)?,
    };
    Place::find(&git, &dir)
}

fn install(setting: &Setting) -> Result<Vec<String>, Failure> {
    let place = place(setting).map_err(|error| hook_failed(&error))?;
    if place.runs().map_err(failed(Exit::Error))? == Runs::Caller
        && let Some(file) = place.caller()
    {
        let who = place.manager().filter(|manager| manager.file() == file);
        let who = who.map_or("The hook", Manager::name);
        return Ok(vec![format!("{who} calls supa-safe already, in {}", file.display())]);
    }
    let program = std::env::current_exe().map_err(failed(Exit::Error))?;
    let installed = hook::install(&place, &program).map_err(|error| hook_failed(&error))?;
    let file = place.file().display().to_string();
    let mut said = match installed {
        Installed::Already => return Ok(vec![format!("The hook is installed already: {file}")]),
        Installed::Updated => vec![format!("Updated {file}")],
        Installed::New => vec![format!("Installed {file}")],
        Installed::Before => vec![
            format!("Installed {file}"),
            format!("The hook that stood there runs first, as {}", place.before().display()),
        ],
    };
    if place.shared {
        let has_before = matches!(place.state(), Ok(State::Installed { before: true, .. }));
        let found = proc::find("supa-safe", &setting.surroundings.path()).is_ok();
        said.push(format!(
            "The folder is part of the work tree: commit the file{} for everybody; it looks for supa-safe on PATH{}",
            if has_before { " and the folder of the hook from before" } else { "" },
            if found { "" } else { ", where it is not yet" }
        ));
    }
    let branches = super::open::config(setting, None)?.hook_branches();
    said.push(format!(
        "It judges pushes that change migrations on {} (`[hook] branches` in supabase/supa-safe.toml)",
        branches.join(", ")
    ));
    Ok(said)
}

fn uninstall(setting: &Setting) -> Result<Vec<String>, Failure> {
    let place = place(setting).map_err(|error| hook_failed(&error))?;
    let file = place.file().display().to_string();
    let removed = hook::uninstall(&place).map_err(|error| hook_failed(&error))?;
    let mut said = vec![match removed {
        Removed::Removed => format!("Removed {file}"),
        Removed::Restored => format!("Brought back the hook from before: {file}"),
        Removed::NotOurs => format!("Nothing to remove: no hook of supa-safe stands at {file}"),
    }];
    if let Some(manager) = place.manager().filter(|manager| manager.calls_us()) {
        said.push(format!("{} still calls supa-safe, in {}", manager.name(), manager.file().display()));
    }
    Ok(said)
}

#[derive(Debug, Serialize)]
struct Status {
    schema: u32,
    file: PathBuf,
    state: &'static str,
    version: Option<u32>,
    current_version: u32,
    before: Option<PathBuf>,
    manager: Option<&'static str>,
    next: Option<String>,
}

fn status(setting: &Setting) -> Result<Exit, Failure> {
    let place = place(setting).map_err(|error| hook_failed(&error))?;
    let status = look(&place).map_err(failed(Exit::Error))?;
    if setting.global.json {
        ui::print_document(&status).map_err(failed(Exit::Error))?;
        return Ok(Exit::Done);
    }
    let mut text = format!("hook   {} ({})\n", status.state, status.file.display());
    if let Some(before) = &status.before {
        text.push_str(&format_line("first", &before.display().to_string()));
    }
    if let Some(manager) = status.manager {
        text.push_str(&format_line("owner", manager));
    }
    if let Some(next) = &status.next {
        text.push_str(&format_line("next", next));
    }
    ui::print(&text).map_err(failed(Exit::Error))?;
    Ok(Exit::Done)
}

fn format_line(name: &str, text: &str) -> String {
    format!("{name:<6} {text}\n")
}

fn look(place: &Place) -> std::io::Result<Status> {
    let runs = place.runs()?;
    let install = || "supa-safe hook install".to_owned();
    let manager = place.manager();
    // Where a manager owns the hooks, its file is what a person looks into.
    let owner = manager.filter(|_| !matches!(runs, Runs::Ours(_)));
    let idle = owner.filter(|manager| runs != Runs::Caller && manager.calls_us());
    let (state, next) = match runs {
        Runs::Ours(version) if version < VERSION => ("outdated", Some(install())),
        Runs::Ours(_) | Runs::Caller => ("installed", None),
        Runs::Foreign if owner.is_none() => ("foreign", Some(install())),
        Runs::Foreign | Runs::Nothing => ("missing", Some(idle.map_or_else(install, Manager::start))),
    };
    let is_ours = |state| matches!(state, State::Installed { before: true, .. });
    Ok(Status {
        schema: ui::SCHEMA,
        file: place
            .caller()
            .filter(|_| runs == Runs::Caller)
            .or_else(|| owner.map(|manager| manager.file().to_owned()))
            .unwrap_or_else(|| place.file()),
        state,
        version: if let Runs::Ours(version) = runs { Some(version) } else { None },
        current_version: VERSION,
        before: is_ours(place.state()?).then(|| place.before()),
        manager: manager.map(Manager::name),
        next,
    })
}

/// A hook that was not installed or removed.
pub(super) fn hook_failed(error: &Error) -> Failure {
    let failure = Failure::new(Exit::Error, error);
    match error {
        Error::NoRepository(_) => {
            failure.hint("Go to the repository of the project, or pass `--workdir <folder>`")
        }
        Error::Managed { manager, is_run } => managed(failure, manager, *is_run),
        Error::Idle(manager) => failure.hint(format!("Run `{}`", manager.start())),
        Error::Outside { dir, scope, own } => {
            let file = dir.join("pre-push");
            failure
                .detail("note: what stands there runs for every repository that uses it, so it was left alone")
                .hint(format!("To judge in all of them, add this line to {}: {LINE}", file.display()))
                .hint(format!(
                    "To judge in this one, give it its own folder: `git config --local core.hooksPath {}`, then `supa-safe hook install`",
                    shell_word(&own.display().to_string())
                ))
                .hint(format!("To give the setting up: `git config --{scope} --unset core.hooksPath`"))
        }
        Error::Two { before, .. } => failure.hint(format!(
            "Join the two into one, then `rm {}` and run again",
            shell_word(&before.display().to_string())
        )),
        Error::Git(_) | Error::Line(_) | Error::Io(_) => failure,
    }
}

fn managed(failure: Failure, manager: &Manager, is_run: bool) -> Failure {
    let mut failure = failure.detail(format!("Nothing was written. Add to {}:", manager.file().display()));
    for line in manager.addition() {
        failure = failure.detail(format!("    {line}"));
    }
    let failure = match manager {
        Manager::Husky { .. } => {
            failure.hint("Then commit the file: husky runs it for everybody who installed the packages")
        }
        Manager::Lefthook { .. } => failure,
    };
    // lefthook writes a hook of git's for each name that stands in its file.
    if is_run && matches!(manager, Manager::Husky { .. }) {
        return failure;
    }
    failure.hint(format!("Then run `{}`", manager.start()))
}
