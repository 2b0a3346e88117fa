//! Programs of this machine.

use super::{Check, Facts, Grade, Group, Staging};
use crate::scratch::engine::{Container, Lacking};
use crate::tools::container::Preference;
use crate::tools::installs::{self, Installation};

const GROUP: Group = Group::Tools;

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let major = facts.told().map(|answer| answer.major);
    let mut checks = vec![supabase(facts)];
    checks.extend(second_cli(facts));
    checks.push(clients(&facts.installations, major));
    checks.push(server(facts, major));
    checks.push(git(facts));
    checks.extend(node(facts));
    checks.push(engine(facts));
    checks.extend(staging(facts));
    checks
}

/// The server that the person gives to rehearsals.
fn staging(facts: &Facts) -> Option<Check> {
    let Staging { address, refused } = facts.scratch.as_ref()?.staging.as_ref()?;
    let check = Check::ok(GROUP, "staging server", address);
    Some(match refused {
        None => check,
        Some(failure) => Check::ok(GROUP, "staging server", failure.chain.join(": ")).needs(
            Grade::Fail,
            "a server that rehearsals may empty",
            failure.hints.first().cloned().unwrap_or_default(),
        ),
    })
}

fn supabase(facts: &Facts) -> Check {
    match &facts.cli {
        Ok(cli) => Check::ok(GROUP, "supabase", &cli.name),
        Err(failure) => Check::failed(GROUP, "supabase", failure, "the Supabase CLI, 2.110.0 or newer"),
    }
}

fn second_cli(facts: &Facts) -> Option<Check> {
    let cli = facts.cli.as_ref().ok()?;
    let other = cli.other.as_ref()?;
    let fix =
        format!("npm install --save-dev supabase@{}", other.split_whitespace().next().unwrap_or_default());
    let found = format!("the project has {}, and PATH has {other}", cli.version);
    Some(Check::ok(GROUP, "second supabase", found).needs(
        Grade::Warn,
        "one major version of the CLI: flags and the default target differ between majors",
        fix,
    ))
}

/// The clients that a dump needs; without an answer of the target, any will do.
fn clients(found: &[Installation], major: Option<u32>) -> Check {
    match installs::client_for(major.unwrap_or_default(), found) {
        Ok(one) => Check::ok(GROUP, "pg_dump", one.to_string()),
        Err(error) => postgres(Check::ok(GROUP, "pg_dump", error.to_string()), &error),
    }
}

/// The server that a rehearsal needs, where no container is to be had.
fn server(facts: &Facts, major: Option<u32>) -> Check {
    let found = &facts.installations;
    let name = "postgres server";
    let Some(major) = major else {
        let any = found.iter().find(|one| one.server).map(ToString::to_string);
        let found = any.unwrap_or_else(|| "none".to_owned());
        return Check::ok(GROUP, name, format!("{found}; which one is needed shows when the target answers"));
    };
    match installs::server_for(major, found) {
        Ok(one) => Check::ok(GROUP, name, one.to_string()),
        Err(error) => match facts.scratch.as_ref().map(|scratch| &scratch.container) {
            Some(Ok(_)) => Check::ok(GROUP, name, format!("{error}; rehearsals run in a container")),
            Some(Err(Lacking::Staging)) => {
                Check::ok(GROUP, name, format!("{error}; rehearsals run on the staging server"))
            }
            Some(Err(lacking @ Lacking::Absent { .. })) => Check::ok(GROUP, name, error.to_string()).needs(
                Grade::Warn,
                "it, or the image of the target's version, which the next rehearsal fetches if it may",
                lacking.hint(),
            ),
            Some(Err(_)) | None => postgres(Check::ok(GROUP, name, error.to_string()), &error),
        },
    }
}

fn postgres(check: Check, error: &installs::Error) -> Check {
    let fix = error.hints().into_iter().next().unwrap_or_default();
    check.needs(Grade::Fail, "Postgres of the target's major version", fix)
}

fn git(facts: &Facts) -> Check {
    match &facts.git {
        Some(version) => Check::ok(GROUP, "git", version),
        None => Check::ok(GROUP, "git", "not on PATH").needs(
            Grade::Warn,
            "git, for the hook and to record the commit",
            "apt-get install git (Debian, Ubuntu), brew install git (Homebrew)",
        ),
    }
}

/// npm's CLI is a script; supa-safe runs the program behind it, `npx supabase` needs node.
fn node(facts: &Facts) -> Option<Check> {
    let has_packages = facts.project.as_ref().is_ok_and(|project| project.has_packages);
    match &facts.node {
        Some(path) => Some(Check::ok(GROUP, "node", path.display().to_string())),
        None if has_packages => {
            Some(Check::ok(GROUP, "node", "not on PATH, and the project has packages").needs(
                Grade::Warn,
                "node, for the CLI of npm and for husky",
                "apt-get install nodejs (Debian, Ubuntu), brew install node (Homebrew)",
            ))
        }
        None => None,
    }
}

fn engine(facts: &Facts) -> Check {
    let name = "docker or podman";
    let Some(scratch) = &facts.scratch else {
        let found =
            facts.engine.as_ref().map_or_else(|| "none".to_owned(), |path| path.display().to_string());
        return Check::ok(
            GROUP,
            name,
            format!("{found}; which image is needed shows when the target answers"),
        );
    };
    match &scratch.container {
        Err(Lacking::Staging) => Check::ok(GROUP, name, "the settings want a staging server"),
        Ok(Container { engine, image, .. }) => {
            Check::ok(GROUP, name, format!("{}, image {}", engine.program.display(), image.name))
        }
        Err(lacking) if scratch.preference == Preference::Container => Check::ok(
            GROUP,
            name,
            lacking.to_string(),
        )
        .needs(Grade::Fail, "a container for rehearsals: the settings insist on one", lacking.hint()),
        Err(lacking) => {
            Check::ok(GROUP, name, format!("{lacking}; rehearsals use the Postgres of this machine"))
        }
    }
}
