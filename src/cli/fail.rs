//! Where errors become failures: the exit code and the person's next step.

use super::bucket;
use super::done::Broken;
use super::open::Opened;
use crate::delegate;
use crate::evidence;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::frozen;
use crate::manifest::{ComponentName, ComponentState, Manifest, SnapshotId};
use crate::policy::{Finding, Rule};
use crate::postcheck;
use crate::postgres::connect;
use crate::postgres::reach::Unreachable;
use crate::rehearse;
use crate::resolve::{self, linked};
use crate::scratch::{self, engine, staging};
use crate::target::{self, ProjectRef};
use crate::tools::installs;
use crate::tools::supabase::{LoginError, cloud};
use crate::ui::Summary;
use crate::verify;
use std::error::Error;

/// A failure without a hint.
pub(super) fn failed<E: Error>(exit: Exit) -> impl Fn(E) -> Failure {
    move |error| Failure::new(exit, &error)
}

/// A project's folder that cannot be used.
pub(super) fn project_failed(error: &frozen::Error) -> Failure {
    let failure = Failure::new(Exit::Error, error);
    match error {
        frozen::Error::NoProject { .. } => failure.hint(
            "Go to the project's folder, or pass `--workdir <folder>`; `supabase init` makes a new project",
        ),
        _ => failure.detail("the target was not touched"),
    }
}

/// A URL that was not accepted.
pub(super) fn url_failed(error: &target::Error) -> Failure {
    let failure = Failure::new(Exit::Usage, error);
    match error {
        target::Error::Placeholder(_) => failure
            .hint("Leave the password out of the URL (`postgresql://USER@HOST:5432/postgres`) and set PGPASSWORD")
            .hint("Find or reset the password in the project's dashboard under Database settings"),
        target::Error::Malformed(_) => failure
            .hint("Leave the password out of the URL and set PGPASSWORD, or percent-encode it (`@` is `%40`)"),
        target::Error::TransactionPooler(_) => failure
            .hint("Use the session pooler: the same host with port 5432")
            .hint("Or the direct host `db.<ref>.supabase.co:5432`"),
        target::Error::Plaintext(_) => failure.hint("Use `sslmode=require`, or better `sslmode=verify-full`"),
        target::Error::Redirects(name) => failure
            .hint(format!("Put it in its place (`postgresql://USER@HOST:PORT/DATABASE`), and leave `{name}=` out")),
        target::Error::Scheme(_) | target::Error::Missing(_) | target::Error::Setting { .. } => {
            failure.hint("Copy the URL from the project's dashboard under Connect, session mode")
        }
    }
}

/// A target that could not be pinned.
pub(super) fn resolve_failed(error: &resolve::Error) -> Failure {
    match error {
        resolve::Error::Connect(error) => connect_failed(error),
        resolve::Error::TransactionPooler(_) => Failure::new(Exit::Usage, error)
            .hint("Use the session pooler or the direct host of the database"),
        resolve::Error::Replica(_) => Failure::new(Exit::TargetNotFound, error).hint("Use the address of the primary"),
        resolve::Error::Query(_) | resolve::Error::Version { .. } => Failure::new(Exit::Error, error),
        resolve::Error::Moved { .. } => Failure::new(Exit::Refused, error)
            .hint("Something moved the address to another server (a failover, a restore, DNS); find out what, then run again"),
    }
}

/// A linked project that is not understood or not reached.
pub(super) fn linked_failed(error: &linked::Error, project_ref: Option<&ProjectRef>) -> Failure {
    let link = format!("supabase link --project-ref {}", project_ref.map_or("<ref>", ProjectRef::as_str));
    let by_url = "Or copy the session pooler's URL from the project's dashboard under Connect, and pass it with `--db-url`";
    match error {
        linked::Error::Read(_) => Failure::new(Exit::Error, error),
        linked::Error::Broken { .. } => Failure::new(Exit::TargetNotFound, error).hint(format!("Run `{link}` again")),
        linked::Error::NoProfile { .. } | linked::Error::Profile { .. } => Failure::new(Exit::Usage, error)
            .hint("Correct `--profile`, SUPABASE_PROFILE, or the file `~/.supabase/profile`"),
        linked::Error::NoDoor { why: Unreachable::NoAnswer, .. } => Failure::new(Exit::TargetNotFound, error)
            .hint("Check in the dashboard that the project is not paused and that no network restriction is between")
            .hint(format!("Run `{link}`: it writes down the session pooler's address")),
        linked::Error::NoDoor { .. } => Failure::new(Exit::TargetNotFound, error)
            .hint(format!("Run `{link}`: it writes down the session pooler's address, which has IPv4"))
            .hint(by_url),
        linked::Error::Pooler { .. } => Failure::new(Exit::TargetNotFound, error)
            .hint(format!("Run `{link}` again: it writes down the address anew"))
            .hint(by_url),
    }
}

/// A linked project that was not pinned: the next step is another one than with a URL.
pub(super) fn linked_sign_in_failed(error: &resolve::Error) -> Failure {
    let failure = |exit| Failure::new(exit, error);
    match error {
        resolve::Error::Connect(connect::Error::SignIn { .. }) => failure(Exit::SignInFailed)
            .hint("Set the database's password in SUPABASE_DB_PASSWORD; it can be reset in the project's dashboard under Database settings"),
        resolve::Error::Connect(connect::Error::NoPassword { .. }) => failure(Exit::SignInFailed)
            .hint("Set SUPABASE_DB_PASSWORD, or pass `--password-file <file>`"),
        resolve::Error::Connect(connect::Error::Tls { .. }) => failure(Exit::SignInFailed)
            .hint("Get the certificate from the project's dashboard under Database settings, and name its file in SUPA_SAFE_ROOT_CERT")
            .hint("Or set PGSSLMODE=require, which encrypts and verifies nothing"),
        resolve::Error::Connect(connect::Error::Roots { .. }) => failure(Exit::Usage)
            .hint("Check SUPA_SAFE_ROOT_CERT, `root_cert` in supabase/supa-safe.toml, and PGSSLROOTCERT"),
        _ => resolve_failed(error),
    }
}

/// Branches that could not be listed.
pub(super) fn branches_failed(error: &cloud::Error) -> Failure {
    let failure = |exit| Failure::new(exit, error).hint("Or pass the branch's own ref: `--remote=<ref>`");
    match error {
        cloud::Error::NotSignedIn(_) => {
            failure(Exit::SignInFailed).hint("Sign supabase in: `supabase login`, or SUPABASE_ACCESS_TOKEN")
        }
        cloud::Error::UnknownProject(_) => failure(Exit::TargetNotFound),
        _ => failure(Exit::Error),
    }
}

/// A password that is neither given nor lent.
pub(super) fn login_failed(error: &LoginError) -> Failure {
    let exit = match error {
        LoginError::NotSignedIn(_) | LoginError::Refused { .. } | LoginError::Unreadable(_) => {
            Exit::SignInFailed
        }
        LoginError::Program(_) | LoginError::Io(_) => Exit::Error,
    };
    Failure::new(exit, error)
        .detail("no password was given: neither `--password-file`, SUPABASE_DB_PASSWORD, nor an env file of the project")
        .hint("Set the database's password in SUPABASE_DB_PASSWORD; it can be reset in the project's dashboard under Database settings")
        .hint("Or sign supabase in (`supabase login`, or SUPABASE_ACCESS_TOKEN): it then lends a temporary role")
}

/// No session.
pub(super) fn connect_failed(error: &connect::Error) -> Failure {
    let failure = |exit| Failure::new(exit, error);
    match error {
        connect::Error::UnknownHost { host, .. } if host.starts_with("db.") && host.ends_with(".supabase.co") => {
            failure(Exit::TargetNotFound)
                .hint("The direct host has an IPv6 address only; on an IPv4 network use the session pooler")
                .hint("Copy its URL from the project's dashboard under Connect, session mode")
        }
        connect::Error::UnknownHost { .. } => failure(Exit::TargetNotFound).hint("Check the host in the URL"),
        connect::Error::NoAnswer { .. } => failure(Exit::TargetNotFound)
            .hint("Check host and port, that the database is running, and that no firewall or network restriction is between"),
        connect::Error::NoDatabase { .. } => {
            failure(Exit::TargetNotFound).hint("Check the database's name at the end of the URL; on Supabase it is `postgres`")
        }
        connect::Error::SignIn { .. } => failure(Exit::SignInFailed)
            .hint("Check role and password; set the password in PGPASSWORD (a password in the URL goes before it)"),
        connect::Error::NoPassword { .. } => {
            failure(Exit::SignInFailed).hint("Set PGPASSWORD, or pass `--password-file <file>`")
        }
        connect::Error::Tls { .. } => failure(Exit::SignInFailed)
            .hint("Pass the server's root certificate with `sslrootcert=<file>` in the URL, or use `sslmode=require`"),
        connect::Error::Roots { .. } => failure(Exit::Usage).hint("Check `sslrootcert` in the URL and PGSSLROOTCERT"),
        connect::Error::Full { .. } => failure(Exit::Error)
            .hint("Close other sessions, or wait; supa-safe needs at most four connections, and five with `--quiesce`"),
        connect::Error::Other { .. } | connect::Error::Lease { .. } => failure(Exit::Error),
    }
}

/// Programs that are missing.
pub(super) fn installs_failed(error: &installs::Error) -> Failure {
    error.hints().into_iter().fold(Failure::new(Exit::Error, error), Failure::hint)
}

/// A snapshot that was not taken.
pub(super) fn evidence_failed(error: &evidence::Error) -> Failure {
    use evidence::database::Error as Database;
    if let Some(error) = error.cloud() {
        return cloud_failed(error).detail("the target was not touched; no snapshot was kept");
    }
    match error {
        evidence::Error::Database(Database::Resolve(error)) => resolve_failed(error),
        evidence::Error::Database(Database::Quiesce(error)) => super::quiesce::not_paused(error),
        evidence::Error::Database(Database::Installs(error)) => installs_failed(error),
        evidence::Error::Database(Database::Disk { .. }) => Failure::new(Exit::Error, error)
            .detail("the target was not touched; no snapshot was kept")
            .hint("Free space, or choose another place with SUPA_SAFE_STATE_DIR"),
        evidence::Error::Database(Database::Locked { .. }) => Failure::new(Exit::Error, error)
            .detail("the target was not touched; no snapshot was kept")
            .hint("Wait until that session has ended, or end it with `select pg_terminate_backend(<backend>)`, then run again"),
        evidence::Error::Database(Database::SearchPath) => {
            Failure::new(Exit::Error, error).hint("Use the session pooler or the direct host of the database")
        }
        evidence::Error::Database(Database::Program(_)) => Failure::new(Exit::Error, error)
            .detail("the target was not touched; no snapshot was kept")
            .hint("If a permission is missing, sign in as the role that owns the project (`postgres`)"),
        evidence::Error::Store(error) => bucket::store_failed(error).detail("the target was not touched"),
        _ => Failure::new(Exit::Error, error).detail("the target was not touched; no snapshot was kept"),
    }
}

/// A project that could not be looked at.
pub(super) fn cloud_failed(error: &cloud::Error) -> Failure {
    let failure = |exit| Failure::new(exit, error);
    match error {
        cloud::Error::NotARef(_) => failure(Exit::Usage),
        cloud::Error::NotSignedIn(_) => failure(Exit::SignInFailed)
            .hint("Run `supabase login`, or set SUPABASE_ACCESS_TOKEN to a token of https://supabase.com/dashboard/account/tokens")
            .hint("To leave the platform out, set `components = []` for this target in supabase/supa-safe.toml"),
        cloud::Error::Forbidden { .. } => failure(Exit::SignInFailed)
            .hint("Use the token of an account, or with a scope, that may do this"),
        cloud::Error::UnknownProject(_) => failure(Exit::TargetNotFound)
            .hint("Compare the ref with those of `supabase projects list`: the token may be of another account"),
        cloud::Error::Network(_) => failure(Exit::Error)
            .hint("Check the network, a proxy, and the profile of the CLI (SUPABASE_PROFILE, ~/.supabase/profile)")
            .hint("For a snapshot of the database alone, run `supa-safe snapshot --only database`"),
        cloud::Error::OtherProject { .. } => failure(Exit::Error)
            .hint("Look for what leads the CLI elsewhere: its profile, or a wrapper around it"),
        _ => failure(Exit::Error),
    }
}

/// A snapshot that was not proved.
pub(super) fn verify_failed(error: &verify::Error) -> Broken {
    match error {
        verify::Error::Damaged { id, what } => damaged(id, what),
        verify::Error::Undecodable { id, source } => {
            let causes = Failure::new(Exit::Refused, source).chain.join(": ");
            damaged(id, &[causes])
        }
        verify::Error::Installs(error) => installs_failed(error).into(),
        verify::Error::Store(error) => bucket::store_failed(error).into(),
        _ => Failure::new(Exit::Error, error).into(),
    }
}

/// A snapshot that is not what was captured: SS005, whichever command found it.
pub(super) fn damaged(id: &SnapshotId, what: &[String]) -> Broken {
    let finding = Finding {
        rule: Rule::Digests,
        fact: format!("snapshot {id} does not match its digests: {}", what.join("; ")),
        fix: "run `supa-safe snapshot`; keep the damaged folder until you know what changed it".to_owned(),
        refuses: true,
    };
    let failure = Failure::message(Exit::Refused, "the snapshot is damaged; the target was not touched")
        .detail(finding.to_string())
        .hint(sentence(&finding.fix))
        .hint(format!("Run `supa-safe explain {}` to read why", finding.rule));
    Broken::new(failure, Summary { findings: vec![finding], ..Summary::new() })
}

/// A snapshot that stands, and lacks something of a required component; `None` when it lacks nothing.
pub(super) fn incomplete(manifest: &Manifest, required: &[ComponentName]) -> Option<Broken> {
    let incomplete = manifest
        .components
        .iter()
        .filter(|one| one.state == ComponentState::Incomplete && required.contains(&one.name));
    let findings: Vec<Finding> = incomplete
        .flat_map(|component| &component.missing)
        .map(|missing| Finding {
            rule: Rule::Incomplete,
            fact: format!("snapshot {} lacks {missing}", manifest.id),
            fix: "run `supa-safe snapshot`".to_owned(),
            refuses: true,
        })
        .collect();
    if findings.is_empty() {
        return None;
    }
    let mut failure =
        Failure::message(Exit::Refused, "the snapshot is incomplete; the target was not touched");
    for finding in &findings {
        failure = failure.detail(finding.to_string());
    }
    let failure = failure
        .hint("Correct the cause, then run `supa-safe snapshot` again")
        .hint(format!("Run `supa-safe explain {}` to read why", Rule::Incomplete));
    let limits = manifest.limits.clone();
    let summary = Summary { snapshot: Some(manifest.id.clone()), findings, limits, ..Summary::new() };
    Some(Broken::new(failure, summary))
}

/// Nothing to rehearse on.
pub(super) fn engine_failed(error: &engine::Error) -> Failure {
    if let engine::Error::Staging(error) = error {
        return staging_failed(error);
    }
    let failure = Failure::new(Exit::Error, error).detail("the target was not touched");
    error.hints().into_iter().fold(failure, Failure::hint)
}

/// A staging server that cannot be used.
pub(super) fn staging_failed(error: &staging::Error) -> Failure {
    let exit = match error {
        staging::Error::Busy(_) => Exit::Locked,
        error if error.is_refusal() => Exit::Usage,
        _ => Exit::Error,
    };
    let failure = Failure::new(exit, error).detail("the target was not touched");
    error.hints().into_iter().fold(failure, Failure::hint)
}

/// A rehearsal that could not be made, or that failed.
pub(super) fn rehearse_failed(error: &rehearse::Error) -> Failure {
    use rehearse::{compare, restore};
    match error {
        rehearse::Error::Restore(restore::Error::Installs(error)) => installs_failed(error),
        rehearse::Error::Restore(restore::Error::Engine(error)) => engine_failed(error),
        rehearse::Error::Scratch(scratch::Error::Staging(error)) => staging_failed(error),
        rehearse::Error::Restore(restore::Error::Container(source)) => Failure::new(Exit::Error, error)
            .detail("the target was not touched; the snapshot was kept")
            .hint(source.hint()),
        rehearse::Error::Scratch(_) | rehearse::Error::Restore(restore::Error::Died(_)) => Failure::new(
            Exit::Error,
            error,
        )
        .detail("the target was not touched; the snapshot was kept")
        .hint(
            "Find out what ended the server, which is often a lack of memory, and run the same command again",
        ),
        rehearse::Error::Restore(restore::Error::Full { .. }) => Failure::new(Exit::Error, error)
            .detail("the target was not touched; the snapshot was kept")
            .hint("Free space there, or choose another place for scratch servers with TMPDIR"),
        rehearse::Error::Restore(restore::Error::Program { missing, lacking, .. }) => {
            let failure = Failure::new(Exit::RehearsalFailed, error)
                .detail("the target was not touched; the snapshot was kept");
            if missing.is_empty() {
                return failure
                    .hint("Read the first line that Postgres printed: it names what cannot be restored");
            }
            let failure = failure
                .detail(format!("this machine lacks the extensions {}", missing.join(", ")))
                .hint("Something in the database needs one of them (a type, a default): rehearse in a container, whose image has them");
            match lacking {
                Some(lacking) => failure.hint(lacking.hint()),
                None => failure,
            }
            .hint("Or install them for the Postgres on this machine")
        }
        rehearse::Error::Compare(compare::Error::Different(_)) => Failure::new(Exit::RehearsalFailed, error)
            .detail("the target was not touched; the snapshot was kept"),
        _ => Failure::new(Exit::Error, error).detail("the target was not touched"),
    }
}

/// A run that the policy refuses.
pub(super) fn refused(findings: Vec<Finding>) -> Broken {
    let of_rehearsal = [Rule::RehearsalFailed, Rule::RollbackNotExact];
    let exit = if findings.iter().any(|finding| finding.refuses && of_rehearsal.contains(&finding.rule)) {
        Exit::RehearsalFailed
    } else {
        Exit::Refused
    };
    let refusing: Vec<&Finding> = findings.iter().filter(|finding| finding.refuses).collect();
    let mut failure = Failure::message(exit, "the policy refuses this migration; the target was not touched");
    for finding in &refusing {
        failure = failure.detail(finding.to_string());
    }
    for finding in &refusing {
        failure = failure.hint(sentence(&finding.fix));
    }
    let codes: Vec<&str> = refusing.iter().map(|finding| finding.rule.code()).collect();
    let failure = failure.hint(format!("Run `supa-safe explain {}` to read why", codes.join(" ")));
    Broken::new(failure, Summary { findings, ..Summary::new() })
}

/// A sentence's first letter as a capital.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A rehearsal that failed: the migration's own fault is a finding, anything else an error.
pub(super) fn rehearsal_broken(error: &rehearse::Error) -> Broken {
    let fact = match error {
        rehearse::Error::Apply(rehearse::apply::Error::Migration(failed)) => failed.to_string(),
        rehearse::Error::Checks(_) | rehearse::Error::History(_) => error.to_string(),
        _ => return rehearse_failed(error).into(),
    };
    let finding = Finding {
        rule: Rule::RehearsalFailed,
        fact: format!("the migration failed on the copy: {fact}"),
        fix: "correct the file and run again".to_owned(),
        refuses: true,
    };
    let mut broken = refused(vec![finding]);
    if let rehearse::Error::Apply(rehearse::apply::Error::Migration(failed)) = error {
        if let Some(statement) = failed.problem.sql.as_ref().and_then(|sql| sql.statement.as_ref()) {
            for line in statement.lines().take(12) {
                broken.failure = broken.failure.detail(format!("  {line}"));
            }
        }
        if let Some(detail) = failed.problem.sql.as_ref().and_then(|sql| sql.detail.as_ref()) {
            broken.failure = broken.failure.detail(detail.clone());
        }
        broken.failure = broken.failure.detail(stands(&failed.applied, "on the copy"));
        if !failed.missing.is_empty() {
            broken.failure = broken.failure.detail(format!(
                "the copy lacks the extensions {}: if the file needs one of them, the file may be right",
                failed.missing.join(", ")
            ));
        }
    }
    broken
}

fn stands(applied: &[String], place: &str) -> String {
    if applied.is_empty() {
        format!("no file stood {place}")
    } else {
        format!("{} stood {place}", applied.join(", "))
    }
}

/// A push that did not begin, or whose outcome is not known.
pub(super) fn delegate_failed(error: &delegate::Error) -> Failure {
    match error {
        delegate::Error::Resolve(error) => resolve_failed(error),
        delegate::Error::Locked => Failure::new(Exit::Locked, error)
            .detail("the target was not touched")
            .hint("Wait until it has ended, then run again"),
        delegate::Error::Store(error) => bucket::store_failed(error).detail("the target was not touched"),
        delegate::Error::Expired => Failure::new(Exit::Refused, error)
            .detail("[SS003] the snapshot became too old; the target was not touched")
            .hint("Run again; raise `max_age` for this target when this repeats"),
        delegate::Error::Query(_) | delegate::Error::Program(_) | delegate::Error::Io(_) => {
            Failure::new(Exit::DelegateFailed, error)
                .detail("the target may have been changed")
                .hint("Run `supa-safe migrate` again: it looks for what became of this push first")
        }
    }
}

/// A post-check that somebody interrupted.
pub(super) fn postcheck_interrupted(exit: Exit, summary: Summary) -> Broken {
    let failure = Failure::message(exit, "interrupted after the push; the target was changed")
        .detail("whether it is as rehearsed was not compared to the end");
    Broken::new(failure, summary)
}

/// A post-check that could not be made.
pub(super) fn postcheck_failed(error: &postcheck::Error, summary: &Summary) -> Broken {
    let failure = Failure::new(Exit::PostCheckDiffers, error)
        .detail("the push is done; whether the target is as rehearsed is not known");
    Broken::new(failure, summary.clone())
}

/// A target that is not as the rehearsal left the copy.
pub(super) fn postcheck_differs(opened: &Opened, differences: &[String], summary: Summary) -> Broken {
    let mut failure = Failure::message(
        Exit::PostCheckDiffers,
        "the push is done, and the target is not as the rehearsal left the copy",
    );
    for difference in differences {
        failure = failure.detail(difference.clone());
    }
    failure = failure.hint(format!("To take the push back, run `{}`", opened.command("rollback")));
    if let Some(runbook) = &summary.runbook {
        failure = failure
            .hint(format!("To restore the state before the push into a new database, follow {runbook}"));
    }
    Broken::new(failure, summary)
}
