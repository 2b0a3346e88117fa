//! `supa-safe init`: looks around and writes the policy file, switched off in every line.

use super::done::close;
use super::fail::failed;
use super::open;
use super::{Setting, hook, project};
use crate::config::{FILE, sample};
use crate::disk;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen::{self, Project};
use crate::hook::{Manager, Runs};
use crate::resolve::linked;
use crate::target::ProjectRef;
use crate::tools::installs::{self, Search};
use crate::tools::supabase;
use clap::Args;

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {}

pub(super) async fn run(setting: &Setting, _args: InitArgs) -> Result<Exit, Failure> {
    close(setting, init(setting).await)
}

async fn init(setting: &Setting) -> Result<Vec<String>, Failure> {
    let project = project(setting).map_err(|error| no_project(&error))?;
    let path = match &setting.global.config {
        Some(path) => setting.surroundings.cwd.join(path),
        None => project.supabase_dir.join(FILE),
    };
    if path.exists() {
        let said = format!("{} is there already; nothing was changed", path.display());
        return Ok(vec![said, "Next: `supa-safe doctor` says what is missing on this machine".to_owned()]);
    }
    if path.is_symlink() {
        let text = format!("`{}` is a link, and what it leads to is not there", path.display());
        return Err(Failure::message(Exit::Error, text)
            .hint("Make the file that it leads to, or remove the link, then run again"));
    }
    let remotes = remotes(&project);
    let mut said = vec![format!("project   {}", project.root.display())];
    said.extend(tools(setting, &project).await?);
    said.extend(linked(&project));
    said.extend(remotes.iter().map(|(name, id)| format!("remote    {} is {id}", name.escape_debug())));
    said.push(format!("git hook  {}", hook_in_words(setting)));
    if !disk::write_new(&path, sample(&remotes).as_bytes()).map_err(failed(Exit::Error))? {
        return Err(Failure::message(
            Exit::Error,
            format!("`{}` was written by somebody else just now", path.display()),
        ));
    }
    said.push(format!("Wrote {}: every setting in it is switched off. Commit it", path.display()));
    said.push("Next: `supa-safe doctor` says what is missing on this machine".to_owned());
    Ok(said)
}

/// What `config.toml` calls its projects; a configuration that cannot be read is a matter of `doctor`.
fn remotes(project: &Project) -> Vec<(String, ProjectRef)> {
    project.remotes().unwrap_or_default()
}

/// The project that the folder is linked to; a link that cannot be read is a matter of `doctor` as well.
fn linked(project: &Project) -> Option<String> {
    let link = linked::read(&project.root, project.wants_stack()).ok()?;
    let project_ref = link.project_ref()?;
    let name = link.name_of(project_ref).map(|name| format!(" ({})", name.escape_debug()));
    Some(format!("linked    {project_ref}{}", name.unwrap_or_default()))
}

async fn tools(setting: &Setting, project: &Project) -> Result<Vec<String>, Failure> {
    // The file that `--config` names is about to be written.
    let mut without = setting.clone();
    without.global.config = None;
    let config = open::config(&without, None)?;
    let surroundings = &setting.surroundings;
    let search = supabase::Search {
        explicit: config.supabase_bin.clone(),
        project_root: project.root.clone(),
        env: surroundings.env().clone(),
    };
    let cli = match supabase::find(&search).await {
        Ok(cli) => cli.name(),
        Err(error) => format!("none: {error}"),
    };
    let search =
        Search { explicit: config.pg_bins.clone(), path: surroundings.path(), home: surroundings.home() };
    let found = installs::installations(&search).await;
    let postgres: Vec<String> = found.iter().map(ToString::to_string).collect();
    let postgres = if postgres.is_empty() { "none".to_owned() } else { postgres.join(", ") };
    Ok(vec![format!("CLI       {cli}"), format!("Postgres  {postgres}")])
}

fn hook_in_words(setting: &Setting) -> String {
    let install = "`supa-safe hook install` installs it";
    match hook::place(setting) {
        Err(_) => "none: this is no git repository".to_owned(),
        Ok(place) => match (place.runs(), place.manager()) {
            (Ok(Runs::Ours(_)), _) => "installed".to_owned(),
            (Ok(Runs::Caller), manager) => {
                format!("{} calls supa-safe", manager.map_or("the one that is there", Manager::name))
            }
            (_, Some(manager)) => {
                format!("{} owns the hooks; `supa-safe hook install` says what to do", manager.name())
            }
            (_, None) => format!("not installed; {install}"),
        },
    }
}

fn no_project(error: &frozen::Error) -> Failure {
    Failure::new(Exit::Error, error)
        .hint("Go to the project's folder, or pass `--workdir <folder>`; `supabase init` makes a new project")
}
