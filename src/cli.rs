//! The command line: arguments, the stages in order, and where errors become failures with the
//! next step. The only module that reads the clock.

mod bucket;
mod check;
mod confirm;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod done;
mod earlier;
mod evidence;
mod explain;
mod fail;
mod hook;
mod init;
mod look;
mod message;
mod migrate;
mod open;
mod others;
mod pre_push;
mod prepare;
mod prune;
mod pushed;
mod quiesce;
mod rehearse;
mod rollback;
mod secrets;
mod signals;
mod snapshot;
mod staging;
mod target;
mod verify;

use crate::config::{self, Surroundings};
use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::frozen::{self, Project};
use crate::manifest::SnapshotId;
use crate::proc::shell_word;
use crate::resolve::linked;
use crate::secret::without_url_passwords;
use crate::target::ProjectRef;
use crate::ui::{self, Loudness};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use done::Broken;
use jiff::{SignedDuration, Timestamp};
use std::path::PathBuf;

/// Makes `supabase db push` boring: a proved snapshot, a rehearsal on a copy, a checked push
#[derive(Debug, Parser)]
#[command(name = "supa-safe", version, about, after_help = exit::table_text(), max_term_width = 100)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Where a command's own flags stand in its help.
const RUN: &str = "This run";

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// Print JSON on stdout, and never ask
    #[arg(long, global = true)]
    json: bool,
    /// Print errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Print the programs that run; twice: also what they print
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Use colors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
    /// Never ask; what needs an answer fails and names its flag
    #[arg(long, global = true)]
    no_input: bool,
    /// Read the policy from this file instead of supabase/supa-safe.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use the Supabase project in this folder
    #[arg(long, global = true, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// The platform: a profile of the Supabase CLI, or a file of one
    #[arg(long, global = true, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// Take Postgres programs from this folder first
    #[arg(long, global = true, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

/// Which database; without a flag the linked project's.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Target")]
#[expect(clippy::option_option, reason = "a flag whose value may be left out")]
struct TargetArgs {
    /// The linked project; the default
    #[arg(long, conflicts_with_all = ["db_url", "remote", "local", "target"])]
    linked: bool,
    /// The project with this ref; beside a URL, the project that the database belongs to
    #[arg(long, value_name = "REF", conflicts_with_all = ["linked", "local", "target"])]
    project_ref: Option<ProjectRef>,
    /// The project of this `[remotes.*]` of the configuration
    #[arg(long, value_name = "NAME", conflicts_with_all = ["db_url", "remote", "local"])]
    target: Option<String>,
    /// As in the Supabase CLI 3: the linked project, or what this ref, branch, or URL names
    #[arg(long, value_name = "REF|BRANCH|URL", num_args = 0..=1, conflicts_with_all = ["db_url", "local"])]
    remote: Option<Option<String>>,
    /// The database with this URL; give the password in `PGPASSWORD` rather than in it
    ///
    /// `SUPA_SAFE_DB_URL` stands for this flag.
    #[arg(long, value_name = "URL")]
    db_url: Option<String>,
    /// The database of `supabase start` on this machine
    #[arg(long, conflicts_with = "db_url")]
    local: bool,
    /// The password; other users of this machine can see it here, so prefer the environment
    #[arg(short, long, value_name = "PASSWORD", hide = true)]
    password: Option<String>,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
}

impl TargetArgs {
    /// The flags that name the same target again. What may hold a password is not repeated.
    fn in_words(&self) -> String {
        let Self { project_ref, target, remote, db_url, local, .. } = self;
        let is_url = |text: &str| text.contains("://");
        let url = db_url.is_some() || remote.iter().flatten().any(|text| is_url(text));
        let remote = remote.as_ref().map(|remote| match remote {
            Some(name) => format!(" --remote={}", shell_word(name)),
            None => " --remote".to_owned(),
        });
        let flags = [
            url.then(|| " --db-url <the same URL>".to_owned()),
            remote.filter(|_| !url),
            target.as_ref().map(|name| format!(" --target {}", shell_word(name))),
            project_ref.as_ref().map(|project_ref| format!(" --project-ref {project_ref}")),
            local.then(|| " --local".to_owned()),
        ];
        flags.into_iter().flatten().collect()
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Push the pending migrations, after a snapshot and a rehearsal on a copy
    Migrate(migrate::MigrateArgs),
    /// Take a snapshot of the target now and verify it
    Snapshot(snapshot::SnapshotArgs),
    /// Prove a snapshot again
    Verify(verify::VerifyArgs),
    /// Restore the newest snapshot into a copy and apply the pending migrations to it
    Rehearse(rehearse::RehearseArgs),
    /// Take the target back to its snapshot, and keep what users wrote since
    Rollback(rollback::RollbackArgs),
    /// Look for a write pause that a dead run left on the target, and end it
    Quiesce(quiesce::QuiesceArgs),
    /// Judge what is there; collects nothing
    Check(check::CheckArgs),
    /// List, confirm, and check the secrets of the project; never shows a value
    Secrets(secrets::SecretsArgs),
    /// Say where this target stands, and what to do next
    Status(look::StatusArgs),
    /// List the snapshots of a target
    List(look::ListArgs),
    /// Show one snapshot
    Show(look::ShowArgs),
    /// Remove snapshots that nothing needs any more, and say why the others stay
    Prune(prune::PruneArgs),
    /// Keep a snapshot until it is unpinned
    Pin(prune::PinArgs),
    /// Let `prune` decide about a snapshot again
    Unpin(prune::PinArgs),
    /// Say why a rule exists and how to satisfy it
    Explain(explain::ExplainArgs),
    /// Look around and write supabase/supa-safe.toml, with every setting switched off
    Init(init::InitArgs),
    /// Look at everything that a run needs, and change nothing
    Doctor(doctor::DoctorArgs),
    /// Let git ask before a push that carries migrations
    Hook(hook::HookArgs),
    /// Play a whole migration on a throwaway project of this machine
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Keep a scratch server until the pipe on stdin closes
    #[command(hide = true)]
    KeepScratch,
}

/// Runs the program and returns what it exits with.
pub fn main() -> Exit {
    crate::disk::private_by_default();
    let command = Cli::command().mut_subcommands(|command| command.after_help(exit::table_text()));
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match begin(cli) {
        Ok(exit) => exit,
        Err(failure) => {
            ui::print_failure(&failure);
            failure.exit
        }
    }
}

fn usage(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    // A reader that went away needs no help.
    if text.contains('@') {
        drop(ui::print_error(&without_url_passwords(&text)));
    } else {
        drop(error.print());
    }
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

/// Runs a command, most of them in the runtime: what git waits for at every push does without.
fn begin(cli: Cli) -> Result<Exit, Failure> {
    let surroundings = Surroundings::of_this_process().map_err(|error| Failure::new(Exit::Error, &error))?;
    choose_color(cli.global.color, &surroundings);
    let surroundings = with_profile(surroundings, cli.global.profile.as_deref())?;
    let setting = Setting { global: cli.global, surroundings, clock: now, exempt: false };
    match cli.command {
        Command::Check(args) if args.pre_push => match pre_push::look(&setting)? {
            None => Ok(Exit::Done),
            Some(pushed) => in_runtime(pre_push::judge(&setting, &args, &pushed)),
        },
        command => in_runtime(run(&setting, command)),
    }
}

fn in_runtime(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Error, &error))?;
    let outcome = runtime.block_on(work);
    // Threads that wait for a program which was told to stop must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

async fn run(setting: &Setting, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Migrate(args) => Box::pin(migrate::run(setting, args)).await,
        Command::Rehearse(args) => Box::pin(rehearse::run(setting, args)).await,
        Command::Rollback(args) => Box::pin(rollback::run(setting, args)).await,
        Command::Check(args) => Box::pin(check::run(setting, args)).await,
        Command::Quiesce(args) => Box::pin(quiesce::run(setting, args)).await,
        Command::Snapshot(args) => Box::pin(snapshot::run(setting, args)).await,
        Command::Verify(args) => Box::pin(verify::run(setting, args)).await,
        Command::Secrets(args) => Box::pin(secrets::run(setting, args)).await,
        Command::Status(args) => look::status(setting, &args).await,
        Command::List(args) => look::list(setting, &args).await,
        Command::Show(args) => look::show(setting, &args).await,
        Command::Doctor(args) => Box::pin(doctor::run(setting, args)).await,
        Command::Init(args) => Box::pin(init::run(setting, args)).await,
        Command::Prune(args) => prune::prune(setting, &args).await,
        Command::Pin(args) => prune::pin(setting, &args).await,
        Command::Unpin(args) => prune::unpin(setting, &args).await,
        Command::Explain(args) => explain::run(setting, &args),
        Command::Hook(args) => hook::run(setting, &args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => Box::pin(demo::run(setting, &args)).await,
        Command::KeepScratch => match crate::scratch::keeper_main(setting.surroundings.env()).await {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(Failure::new(Exit::Error, &error)),
        },
    }
}

/// What every command is run with.
#[derive(Clone, Debug)]
struct Setting {
    global: Global,
    surroundings: Surroundings,
    clock: fn() -> Timestamp,
    /// Whether the agents' rule does not apply: the demo and the servers that it started.
    exempt: bool,
}

impl Setting {
    fn loudness(&self) -> Loudness {
        match (self.global.quiet, self.global.verbose) {
            (true, _) => Loudness::Quiet,
            (false, 0) => Loudness::Normal,
            (false, 1) => Loudness::Verbose,
            (false, _) => Loudness::VeryVerbose,
        }
    }

    /// The name of this machine.
    fn host(&self) -> String {
        self.surroundings.host()
    }

    /// Whether a person may be asked.
    fn may_ask(&self) -> bool {
        !self.global.no_input && !self.global.json
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn choose_color(color: Color, surroundings: &Surroundings) {
    let choice = match color {
        Color::Always => anstream::ColorChoice::Always,
        Color::Never => anstream::ColorChoice::Never,
        Color::Auto if surroundings.variable("NO_COLOR").is_none() && surroundings.forces_color() => {
            anstream::ColorChoice::Always
        }
        Color::Auto => anstream::ColorChoice::Auto,
    };
    choice.write_global();
}

/// The Supabase project that the command is about.
fn project(setting: &Setting) -> Result<Project, frozen::Error> {
    Project::find(workdir(setting).as_deref(), &setting.surroundings.cwd)
}

/// The folder that a flag or the environment names.
fn workdir(setting: &Setting) -> Option<PathBuf> {
    let exported = setting.surroundings.variable("SUPABASE_WORKDIR").map(PathBuf::from);
    let workdir = setting.global.workdir.clone().or(exported)?;
    Some(setting.surroundings.cwd.join(workdir))
}

/// Pins the profile for this run and for every program that it starts, which run elsewhere and would
/// read a relative path in another way: the flag, the environment, or the user's file.
fn with_profile(surroundings: Surroundings, flag: Option<&str>) -> Result<Surroundings, Failure> {
    let home = surroundings
        .variable("SUPABASE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(surroundings.home()?.join(".supabase")));
    let in_file = || linked::profile_file(&home?).transpose();
    let name = flag.map(str::to_owned).or_else(|| surroundings.variable("SUPABASE_PROFILE"));
    let name = match name.map(Ok).or_else(in_file).transpose() {
        Ok(Some(name)) => name,
        Ok(None) => return Ok(surroundings),
        Err(error) => return Err(Failure::new(Exit::Usage, &error)),
    };
    let path = surroundings.cwd.join(&name);
    let pinned = if path.is_file() { path.into_os_string() } else { name.into() };
    Ok(surroundings.with([("SUPABASE_PROFILE", Some(pinned))]))
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    config::parse_duration("--max-age", text).map_err(|error| error.to_string())
}

fn snapshot_id(text: &str) -> Result<SnapshotId, String> {
    text.parse::<SnapshotId>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        target: TargetArgs,
    }

    #[test]
    fn a_printed_command_names_the_same_target_and_no_password() {
        let flags = |args: &[&str]| Line::parse_from([&["supa-safe"], args].concat()).target.in_words();
        assert_eq!(flags(&[]), "");
        assert_eq!(flags(&["--linked"]), "");
        assert_eq!(flags(&["--local"]), " --local");
        assert_eq!(flags(&["--target", "my prod"]), " --target 'my prod'");
        assert_eq!(flags(&["--remote=preview"]), " --remote=preview");
        let url = "postgresql://postgres:hunter2@db/postgres";
        for args in [["--db-url", url], ["--remote", url]] {
            assert_eq!(flags(&args), " --db-url <the same URL>");
        }
    }
}
