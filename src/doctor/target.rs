//! The project, the way to its target, and the keys of its Storage.

use super::{Answer, Check, Door, Facts, Grade, Group, Keys, Project};
use crate::exit::Exit;
use crate::policy::in_words;
use crate::target::{SslMode, is_project_ref};
use jiff::SignedDuration;

/// How far the clocks may be apart before it is worth a word. Ages count by the target's clock alone.
const CLOCKS: SignedDuration = SignedDuration::from_secs(30);

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = project(facts);
    checks.extend(connection(facts));
    checks.push(storage(facts));
    checks
}

fn project(facts: &Facts) -> Vec<Check> {
    let group = Group::Project;
    let needed = "a folder with supabase/config.toml in it";
    let found = match &facts.project {
        Err(failure) => return vec![Check::failed(group, "folder", failure, needed), policy(facts)],
        Ok(found) => found,
    };
    let config = match &found.config {
        Ok(()) => Check::ok(group, "config", "can be read"),
        Err(why) => Check::ok(group, "config", why).needs(
            Grade::Fail,
            "a configuration that the CLI can read",
            "correct the file at the place that is named, then `supa-safe doctor` again",
        ),
    };
    let folder = Check::ok(group, "folder", found.root.display().to_string());
    vec![folder, config, policy(facts), link(facts, found), token(facts, found)]
}

fn policy(facts: &Facts) -> Check {
    let (group, name) = (Group::Project, "policy");
    match &facts.policy {
        Ok(Some(path)) => Check::ok(group, name, path.display().to_string()),
        Ok(None) => Check::ok(group, name, "none: the defaults hold").needs(
            Grade::Warn,
            "supabase/supa-safe.toml, so that the team has one policy",
            "supa-safe init",
        ),
        Err(failure) => Check::failed(group, name, failure, "a policy file without mistakes"),
    }
}

fn link(facts: &Facts, project: &Project) -> Check {
    let (group, name) = (Group::Project, "link");
    match &project.link {
        Some(found) if is_project_ref(found) => Check::ok(group, name, found),
        Some(found) => Check::ok(group, name, format!("`{found}` is no project ref")).needs(
            Grade::Fail,
            "twenty lowercase letters",
            "supabase link",
        ),
        None if facts.door.is_some() => Check::ok(group, name, "none; the target is named otherwise"),
        None => {
            Check::ok(group, name, "none").needs(Grade::Warn, "a linked project, or a URL", "supabase link")
        }
    }
}

fn token(facts: &Facts, project: &Project) -> Check {
    let (group, name) = (Group::Project, "access token");
    let needed = "a token, for Functions, secrets, and backups";
    let place = facts.token.map(|place| format!("in {place}"));
    match (place, &facts.signed_in) {
        (Some(place), Some(Ok(()))) => Check::ok(group, name, format!("{place}, and accepted")),
        (Some(_), Some(Err(failure))) => {
            let check = Check::failed(group, name, failure, needed);
            // Anything else may pass.
            let is_wrong = matches!(failure.exit, Exit::SignInFailed | Exit::TargetNotFound);
            Check { grade: if is_wrong { Grade::Fail } else { Grade::Warn }, ..check }
        }
        (Some(place), None) => Check::ok(group, name, place),
        (None, _) if project.link.is_none() && !facts.has_project => {
            Check::ok(group, name, "none; not needed for a URL")
        }
        (None, _) => {
            Check::ok(group, name, "not in SUPABASE_ACCESS_TOKEN or ~/.supabase (a keyring is not read)")
                .needs(Grade::Warn, needed, "supabase login")
        }
    }
}

fn connection(facts: &Facts) -> Vec<Check> {
    let group = Group::Connection;
    let mut checks = Vec::new();
    match &facts.door {
        None => {
            checks.push(Check::ok(group, "target", "none was named").needs(
                Grade::Warn,
                "a target, to look at it",
                "supa-safe doctor --db-url postgresql://postgres@db.<ref>.supabase.co:5432/postgres",
            ));
            return checks;
        }
        Some(Err(failure)) => {
            checks.push(Check::failed(group, "target", failure, "a direct connection or the session pooler"));
            return checks;
        }
        Some(Ok(door)) => {
            checks.push(Check::ok(group, "target", format!("{} ({})", door.address, door.kind)));
            checks.push(password(door, facts));
            checks.push(tls(door, facts.told()));
        }
    }
    match &facts.answer {
        None => {}
        Some(Err(failure)) => checks.push(Check::failed(group, "answer", failure, "a target that answers")),
        Some(Ok(None)) => checks.push(Check::ok(group, "answer", "asks for a password")),
        Some(Ok(Some(answer))) => {
            checks.push(Check::ok(group, "answer", format!("Postgres {}", answer.version)));
            checks.push(clock(answer));
        }
    }
    checks
}

fn password(door: &Door, facts: &Facts) -> Check {
    let (group, name) = (Group::Connection, "password");
    if door.has_password {
        return Check::ok(group, name, "set");
    }
    if door.is_linked {
        let found = "not signed in: no password is exported";
        return match facts.signed_in {
            Some(Ok(())) => Check::ok(group, name, format!("{found}; supabase lends a run a role")),
            _ => Check::ok(group, name, found).needs(
                Grade::Warn,
                "a password, or an access token, for which supabase lends a role",
                "read -rs SUPABASE_DB_PASSWORD && export SUPABASE_DB_PASSWORD",
            ),
        };
    }
    Check::ok(group, name, "none").needs(
        Grade::Warn,
        "a password, unless the server asks for none",
        "read -rs PGPASSWORD && export PGPASSWORD",
    )
}

/// `require` encrypts and believes any server; only `verify-full` knows which one it is.
fn tls(door: &Door, answer: Option<&Answer>) -> Check {
    let (group, name) = (Group::Connection, "tls");
    let mode = format!("sslmode={}", door.ssl_mode.as_str());
    if door.is_loopback {
        let tls = answer.map(|answer| if answer.tls { "encrypted" } else { "plaintext" });
        return Check::ok(group, name, format!("{mode}, {}, on this machine", tls.unwrap_or("not tried")));
    }
    if door.ssl_mode >= SslMode::VerifyFull {
        return Check::ok(group, name, mode);
    }
    Check::ok(group, name, format!("{mode}: encrypted, and any server is believed")).needs(
        Grade::Warn,
        "sslmode=verify-full with the root certificate of the project's dashboard",
        "export PGSSLMODE=verify-full PGSSLROOTCERT=<file>",
    )
}

fn clock(answer: &Answer) -> Check {
    let (group, name) = (Group::Connection, "clock");
    let ahead = answer.clock_ahead;
    if ahead.abs() <= CLOCKS {
        return Check::ok(group, name, "as on this machine");
    }
    let word = if ahead.is_negative() { "behind" } else { "ahead of" };
    Check::ok(group, name, format!("the target's is {} {word} this machine's", in_words(ahead))).needs(
        Grade::Warn,
        "clocks that agree, so that ages read right",
        "timedatectl set-ntp true",
    )
}

fn storage(facts: &Facts) -> Check {
    let (group, name) = (Group::Storage, "S3 keys");
    let needed = "S3 keys of the project, from its dashboard under Storage, S3";
    if let Some(why) = &facts.storage_url {
        return Check::ok(group, name, why).needs(
            Grade::Fail,
            "the S3 endpoint of the project, or none",
            "correct SUPA_SAFE_STORAGE_URL, or `storage_url` in supabase/supa-safe.toml",
        );
    }
    if let Some(why) = &facts.tried {
        let fix = "export SUPA_SAFE_S3_ACCESS_KEY_ID=<id>, and its secret, of a new pair";
        return Check::ok(group, name, why).needs(Grade::Fail, needed, fix);
    }
    let export = "export SUPA_SAFE_S3_ACCESS_KEY_ID=<id>";
    match &facts.keys {
        Keys::Set(words) => Check::ok(group, name, words),
        Keys::Half([set, missing]) => Check::ok(group, name, format!("{set} without {missing}")).needs(
            Grade::Fail,
            needed,
            format!("read -rs {missing} && export {missing}"),
        ),
        Keys::None(withheld) if !withheld.is_empty() => {
            Check::ok(group, name, withheld.join("; ")).needs(Grade::Warn, needed, export)
        }
        // A database given by URL has no Storage to copy.
        Keys::None(_)
            if facts.has_project || facts.project.as_ref().is_ok_and(|project| project.link.is_some()) =>
        {
            Check::ok(group, name, "none").needs(Grade::Warn, needed, export)
        }
        Keys::None(_) => Check::ok(group, name, "none; not needed for a URL"),
    }
}
