//! `supa-safe secrets`: which secrets the project has, which of them a person confirmed to keep
//! elsewhere, and whether the kept values are the deployed ones. No value is ever shown.

use super::confirm::{self, Purpose, Question};
use super::fail::{cloud_failed, failed};
use super::open::{self, Known};
use super::{RUN, Setting, TargetArgs, bucket};
use crate::disk;
use crate::evidence::secrets;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inventory::{self, Entry, Standing, State, Verdict};
use crate::policy::Policy;
use crate::proc::{Cmd, Ended, Group};
use crate::secret::Secret;
use crate::store::Store;
use crate::tools::supabase::cloud::Folder;
use crate::tools::supabase::env_file;
use crate::ui;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `secrets`.
#[derive(Debug, Args)]
pub(super) struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// List the names, and what is new or changed since the last confirmation
    List(ListArgs),
    /// Confirm that you keep the value of every secret elsewhere
    Confirm(ConfirmArgs),
    /// Prove by SHA-256 that the values you keep are the deployed ones
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, Args)]
struct ConfirmArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Confirm by the target's name, for scripts
    #[arg(long, value_name = "WORDS", help_heading = RUN)]
    confirm: Option<String>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Read the kept values from this file, as `supabase secrets set --env-file` does
    #[arg(long, value_name = "FILE", help_heading = RUN)]
    env_file: Option<PathBuf>,
    /// Read them from what this command prints, in the same form; it is run with `sh -c`
    #[arg(long, value_name = "COMMAND", conflicts_with = "env_file", help_heading = RUN)]
    command: Option<String>,
}

pub(super) async fn run(setting: &Setting, args: SecretsArgs) -> Result<Exit, Failure> {
    match args.command {
        SecretsCommand::List(args) => list(setting, &args).await,
        SecretsCommand::Confirm(args) => confirm(setting, args).await,
        SecretsCommand::Check(args) => check(setting, &args).await,
    }
}

/// A project's secrets and what is known of them.
struct Inventory {
    target: String,
    project_ref: String,
    store: Store,
    policy: Policy,
    entries: Vec<Entry>,
    standings: Vec<Standing>,
    checks: BTreeMap<String, String>,
}

impl Inventory {
    async fn read(setting: &Setting, args: &TargetArgs) -> Result<Self, Failure> {
        let Known { name: target, project_ref, policy, store, config, .. } =
            open::known(setting, args).await?;
        let project_ref = project_ref.ok_or_else(|| {
            Failure::message(Exit::Usage, "this target has no project on the platform, and so no secrets")
                .hint("Pass `--project-ref <ref>` beside the URL when it has one")
        })?;
        let cloud = open::cloud(setting, &config, &project_ref).await?;
        let scratch = tempfile::tempdir().map_err(failed(Exit::Error))?;
        let folder = Folder::new(scratch.path()).map_err(failed(Exit::Error))?;
        let entries = secrets::list(&cloud, &folder).await.map_err(|error| match &error {
            secrets::Error::Cloud(error) => cloud_failed(error),
            _ => Failure::new(Exit::Error, &error),
        })?;
        let confirmed = store.confirmed_secrets().map_err(failed(Exit::Error))?;
        let standings = inventory::compare(&entries, &confirmed);
        let project_ref = project_ref.to_string();
        Ok(Self { target, project_ref, store, policy, entries, standings, checks: config.secret_checks() })
    }

    /// What needs a confirmation, in words.
    fn open(&self, setting: &Setting) -> Vec<String> {
        let (every, now) = (self.policy.secrets_confirm_every, (setting.clock)());
        self.standings.iter().filter_map(|standing| standing.open(every, now)).collect()
    }

    fn lines(&self) -> Vec<String> {
        let width = self.standings.iter().map(|standing| standing.shown().chars().count()).max().unwrap_or(0);
        let line = |name: String, state: State| match state {
            State::BuiltIn => format!("  {name:<width$}  set by the platform"),
            State::New => format!("! {name:<width$}  NEW"),
            State::Changed(at) => {
                format!("! {name:<width$}  CHANGED since it was confirmed on {}", inventory::day(at))
            }
            State::Confirmed(at) => format!("  {name:<width$}  confirmed on {}", inventory::day(at)),
        };
        self.standings.iter().map(|standing| line(standing.shown(), standing.state)).collect()
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    schema: u32,
    target: &'a str,
    project_ref: &'a str,
    secrets: &'a [Standing],
    /// What needs a confirmation, in words.
    open: Vec<String>,
}

async fn list(setting: &Setting, args: &ListArgs) -> Result<Exit, Failure> {
    let inventory = Inventory::read(setting, &args.target).await?;
    let open = inventory.open(setting);
    let printed = if setting.global.json {
        ui::print_document(&Listed {
            schema: ui::SCHEMA,
            target: &inventory.target,
            project_ref: &inventory.project_ref,
            secrets: &inventory.standings,
            open,
        })
    } else {
        let head = format!("target {}, project {}", inventory.target, inventory.project_ref);
        let tail = if open.is_empty() {
            "Every secret is confirmed".to_owned()
        } else {
            format!("{} to confirm: `supa-safe secrets confirm`", open.len())
        };
        let lines = [vec![head], inventory.lines(), vec![tail]].concat();
        ui::print(&lines.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat())
    };
    printed.map_err(failed(Exit::Error))?;
    Ok(Exit::Done)
}

async fn confirm(setting: &Setting, args: ConfirmArgs) -> Result<Exit, Failure> {
    let Confirmed { target, project_ref, open, every } = record(setting, &args.target, args.confirm).await?;
    let printed = if setting.global.json {
        ui::print_document(&serde_json::json!({
            "schema": ui::SCHEMA,
            "target": target,
            "project_ref": project_ref,
            "confirmed": open,
        }))
    } else if open.is_empty() {
        ui::print("Nothing to confirm: every secret was confirmed, and has not changed\n")
    } else {
        ui::print(&format!("Confirmed {} of the secrets of {target}; this holds for {every}\n", open.len()))
    };
    printed.map_err(failed(Exit::Error))?;
    Ok(Exit::Done)
}

/// Confirms, and prints nothing.
#[cfg(feature = "demo")]
pub(super) async fn confirm_silently(setting: &Setting, args: SecretsArgs) -> Result<(), Failure> {
    let mut silent = setting.clone();
    silent.global.quiet = true;
    if let SecretsCommand::Confirm(args) = args.command {
        record(&silent, &args.target, args.confirm).await?;
    }
    Ok(())
}

/// What a person confirmed.
struct Confirmed {
    target: String,
    project_ref: String,
    /// What needed it, in words.
    open: Vec<String>,
    /// How long it holds, in words.
    every: String,
}

/// Shows what needs a confirmation, takes it, and keeps it; says nothing of how it ended.
async fn record(setting: &Setting, args: &TargetArgs, flag: Option<String>) -> Result<Confirmed, Failure> {
    let inventory = Inventory::read(setting, args).await?;
    let open = inventory.open(setting);
    if !open.is_empty() {
        if !setting.global.quiet {
            ui::heading(&inventory.target, "secrets of the project");
            for line in inventory.lines() {
                ui::tell(&line);
            }
        }
        let question = Question {
            target: &inventory.target,
            agent: setting.surroundings.agent().filter(|_| !setting.exempt),
            flag,
            may_ask: setting.may_ask(),
            to: Purpose::Secrets,
        };
        confirm::weigh(&question).await?;
        let confirmed = inventory::confirm(&inventory.entries, (setting.clock)());
        inventory.store.confirm_secrets(confirmed).map_err(failed(Exit::Error))?;
        bucket::leave(setting, &inventory.store).await?;
    }
    let every = crate::policy::in_words(inventory.policy.secrets_confirm_every);
    Ok(Confirmed { target: inventory.target, project_ref: inventory.project_ref, open, every })
}

#[derive(Serialize)]
struct Checked<'a> {
    schema: u32,
    target: &'a str,
    project_ref: &'a str,
    secrets: Vec<Value>,
    checks: &'a [Exercised],
}

#[derive(Serialize)]
struct Value {
    name: String,
    verdict: Verdict,
}

/// What became of a secret's own check.
#[derive(Serialize)]
struct Exercised {
    name: String,
    passed: bool,
    /// Why not, in words; never what the command printed.
    why: Option<String>,
}

async fn check(setting: &Setting, args: &CheckArgs) -> Result<Exit, Failure> {
    let kept = kept(setting, args).await?;
    let inventory = Inventory::read(setting, &args.target).await?;
    if kept.is_none() && inventory.checks.is_empty() {
        return Err(Failure::message(Exit::Usage, "there is nothing to check the secrets with")
            .hint("Pass `--env-file <file>` or `--command <command>` with the values that you keep")
            .hint("Or set `check` in a section `[secrets.NAME]` of supabase/supa-safe.toml"));
    }
    let verdicts = kept.as_ref().map(|kept| {
        let digest =
            |(name, value): (&String, &Secret)| (name.clone(), disk::sha256(value.expose().as_bytes()));
        inventory::verdicts(&inventory.entries, &kept.iter().map(digest).collect::<Vec<_>>())
    });
    let verdicts = verdicts.unwrap_or_default();
    let exercised = exercise(setting, &inventory, &kept.unwrap_or_default()).await?;
    print_checked(setting, &inventory, &verdicts, &exercised)?;
    let lost = verdicts.iter().filter(|(_, verdict)| verdict.is_lost()).count();
    let broken = exercised.iter().filter(|one| !one.passed).count();
    if lost + broken == 0 {
        return Ok(Exit::Done);
    }
    let mut failure = Failure::message(Exit::Refused, "not every secret is kept and works");
    if lost > 0 {
        failure = failure.detail(format!("deployed values that are not among the kept ones: {lost}")).hint(
            "Find the deployed value where it came from, or make a new one and deploy it with `supabase secrets set`",
        );
    }
    if broken > 0 {
        failure = failure
            .detail(format!("secrets that do not pass their check: {broken}"))
            .hint("Run the command of `[secrets.NAME]` by hand to see why it fails");
    }
    Err(failure)
}

fn print_checked(
    setting: &Setting,
    inventory: &Inventory,
    verdicts: &[(String, Verdict)],
    exercised: &[Exercised],
) -> Result<(), Failure> {
    let printed = if setting.global.json {
        let value = |(name, verdict): &(String, Verdict)| Value { name: name.clone(), verdict: *verdict };
        ui::print_document(&Checked {
            schema: ui::SCHEMA,
            target: &inventory.target,
            project_ref: &inventory.project_ref,
            secrets: verdicts.iter().map(value).collect(),
            checks: exercised,
        })
    } else {
        let head = format!("target {}, project {}", inventory.target, inventory.project_ref);
        let value = |(name, verdict): &(String, Verdict)| {
            let mark = if verdict.is_lost() { "!" } else { " " };
            format!("{mark} {} {}", name.escape_debug(), verdict.words())
        };
        let check = |one: &Exercised| match &one.why {
            None => format!("  {} passes its check", one.name),
            Some(why) => format!("! {} does not pass its check: it {why}", one.name),
        };
        let lines: Vec<String> = [head]
            .into_iter()
            .chain(verdicts.iter().map(value))
            .chain(exercised.iter().map(check))
            .map(|line| format!("{line}\n"))
            .collect();
        ui::print(&lines.concat())
    };
    printed.map_err(failed(Exit::Error))
}

/// The values that the person keeps; `None` when no source was named.
async fn kept(setting: &Setting, args: &CheckArgs) -> Result<Option<BTreeMap<String, Secret>>, Failure> {
    if let Some(path) = &args.env_file {
        let path = setting.surroundings.cwd.join(path);
        let bytes = fs_err::read(&path).map_err(failed(Exit::Usage))?;
        // As the CLI reads it: what is not UTF-8 becomes the replacement character.
        return Ok(Some(env_file::parse(&String::from_utf8_lossy(&bytes))));
    }
    let Some(command) = &args.command else { return Ok(None) };
    let output = shell(setting, command).run_unchecked().await.map_err(failed(Exit::Error))?;
    if !output.ended.is_success() {
        return Err(Failure::message(
            Exit::Error,
            format!("the command of `--command` {}; what it printed is not shown", output.ended),
        )
        .hint("Run it by hand"));
    }
    Ok(Some(env_file::parse(&output.stdout)))
}

/// A command of the person's own, with their terminal: a password manager may ask on it.
fn shell(setting: &Setting, command: &str) -> Cmd {
    Cmd::new("/bin/sh")
        .args(["-c", command])
        .env_base(setting.surroundings.env())
        .dir(&setting.surroundings.cwd)
        .group(Group::Shared)
}

/// Runs the check of each deployed secret that has one, with its kept value in its own variable.
async fn exercise(
    setting: &Setting,
    inventory: &Inventory,
    kept: &BTreeMap<String, Secret>,
) -> Result<Vec<Exercised>, Failure> {
    let mut exercised = Vec::new();
    for (name, command) in &inventory.checks {
        let name = name.clone();
        if inventory.entries.iter().all(|entry| entry.name != name) {
            let why = Some("is not deployed".to_owned());
            exercised.push(Exercised { name, passed: false, why });
            continue;
        }
        let mut cmd = shell(setting, command);
        if let Some(value) = kept.get(&name) {
            if value.expose().contains('\0') {
                let why =
                    Some("has a NUL character in its kept value, which no command can be given".to_owned());
                exercised.push(Exercised { name, passed: false, why });
                continue;
            }
            cmd = cmd.secret(&name, value);
        }
        let ended = cmd.run_unchecked().await.map_err(failed(Exit::Error))?.ended;
        let why = (ended != Ended::Code(0)).then(|| ended.to_string());
        exercised.push(Exercised { name, passed: why.is_none(), why });
    }
    Ok(exercised)
}
