//! What would be pushed: the project, the CLI, the frozen copy, the history, the pending files.

use super::Setting;
use super::fail::{failed, project_failed, resolve_failed};
use super::open::Opened;
use crate::config::Config;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::fingerprint::Fingerprint;
use crate::frozen::{self, Frozen, Project, Want};
use crate::migration::{Flags, HistoryError, MigrationFile, Pending, atomicity, same_statements};
use crate::policy::EditedFile;
use crate::postgres::connect::Session;
use crate::postgres::{catalog, history, rows};
use crate::rehearse::Subject;
use crate::resolve;
use crate::tools::supabase::{self, Answer, Push, Report, Search, Supabase};
use clap::Args;

/// Flags of `supabase db push` that change what runs.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "As in supabase db push")]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of another program")]
pub(super) struct PushFlags {
    /// Also push files older than the newest applied one
    #[arg(long)]
    include_all: bool,
    /// Run supabase/roles.sql first
    #[arg(long)]
    include_roles: bool,
    /// Run seed files that never ran
    #[arg(long)]
    include_seed: bool,
    /// Leave the vault alone; the default
    #[arg(long, conflicts_with = "with_vault")]
    skip_vault: bool,
    /// Also write the vault secrets of the configuration
    #[arg(long)]
    with_vault: bool,
}

impl PushFlags {
    fn flags(self) -> Flags {
        Flags {
            include_all: self.include_all,
            include_roles: self.include_roles,
            include_seed: self.include_seed,
            with_vault: self.with_vault,
        }
    }
}

/// What would be pushed.
pub(super) struct Prepared {
    pub(super) project: Project,
    pub(super) frozen: Frozen,
    pub(super) pending: Pending,
    pub(super) cli: Supabase,
    pub(super) edited: Vec<EditedFile>,
    pub(super) live: Live,
}

/// The target's schema and history at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) owned_digest: String,
    pub(super) history: Vec<String>,
}

impl Prepared {
    pub(super) fn subject<'a>(&'a self, opened: &'a Opened) -> Subject<'a> {
        Subject { target: &opened.target, frozen: &self.frozen, pending: &self.pending, cli: &self.cli }
    }

    /// Pending files that are not all-or-nothing, in words.
    pub(super) fn not_atomic(&self) -> Vec<String> {
        self.pending
            .migrations
            .iter()
            .filter_map(|file| {
                let first = atomicity(&file.sql).into_iter().next()?;
                Some(format!(
                    "`{}` is not all-or-nothing: line {} (`{}`): {}",
                    file.file_name, first.line, first.statement, first.reason
                ))
            })
            .collect()
    }
}

/// Finds project and CLI, freezes the project, and compares it with the target's history.
pub(super) async fn prepare(
    setting: &Setting,
    opened: &Opened,
    flags: PushFlags,
) -> Result<Prepared, Failure> {
    let project = super::project(setting).map_err(|error| project_failed(&error))?;
    prepare_files(setting, opened, flags, project).await
}

/// The same for files that stand elsewhere than the project's tools.
pub(super) async fn prepare_files(
    setting: &Setting,
    opened: &Opened,
    flags: PushFlags,
    project: Project,
) -> Result<Prepared, Failure> {
    let cli = match &opened.context.cloud {
        Some(cloud) => cloud.cli().clone(),
        None => find_cli(setting, &opened.config).await?,
    };
    tell_cli(opened, &cli);
    // Files that a push carries stand in a folder that goes away; its name would help nobody.
    let known = super::project(setting);
    let meant = known.as_ref().unwrap_or(&project);
    say_which(setting, opened, meant, cli.version.major).map_err(|error| project_failed(&error))?;
    let want = Want {
        flags: flags.flags(),
        major: cli.version.major,
        project_ref: opened.target.project_ref().cloned(),
    };
    let into = opened.context.store.frozen_dir(&opened.run);
    let frozen = frozen::freeze(&project, &into, &want).map_err(|error| project_failed(&error))?;
    for skipped in &frozen.skipped {
        opened.context.note(format!("supabase skips `{}`: {}", skipped.file_name, skipped.why));
    }
    for pattern in &frozen.unmatched_seeds {
        opened.context.warn(format!("no seed file matches `{pattern}`"));
    }
    if !frozen.settings().migrations_enabled {
        opened.context.warn(
            "`[db.migrations] enabled = false` in the configuration: supabase pushes no migration at all",
        );
    }
    let session = resolve::reopen(&opened.target).await.map_err(|error| resolve_failed(&error))?;
    let outcome = compare(&session, &frozen).await;
    session.close().await;
    let (pending, edited, live) = outcome?;
    Ok(Prepared { project, frozen, pending, cli, edited, live })
}

/// Says which folder and which configuration were taken where there is more than one.
fn say_which(setting: &Setting, opened: &Opened, project: &Project, major: u32) -> Result<(), frozen::Error> {
    let hidden = project.hidden();
    if project.root != setting.surroundings.cwd || !hidden.is_empty() {
        opened.context.note(format!("project folder: {}", project.root.display()));
    }
    for other in hidden {
        opened.context.note(format!("the project folder above it is not meant: {}", other.root.display()));
    }
    for path in project.passed_over(major)? {
        let read = project.config_file(major)?;
        opened.context.warn(format!(
            "`{}` is passed over: supabase {major} reads `{}`",
            path.display(),
            read.display()
        ));
    }
    Ok(())
}

async fn compare(session: &Session, frozen: &Frozen) -> Result<(Pending, Vec<EditedFile>, Live), Failure> {
    let (live, applied) = look(session).await?;
    let pending = frozen.pending(&live.history).map_err(|error| history_failed(&error))?;
    let edited = edited(frozen.migrations(), &applied);
    Ok((pending, edited, live))
}

/// The target's schema and history now.
pub(super) async fn look(session: &Session) -> Result<(Live, Vec<history::Applied>), Failure> {
    let client = &session.client;
    client.batch_execute(rows::PINNED).await.map_err(failed(Exit::Error))?;
    client
        .batch_execute("begin isolation level repeatable read read only")
        .await
        .map_err(failed(Exit::Error))?;
    let fingerprint: Fingerprint = catalog::fingerprint(client).await.map_err(failed(Exit::Error))?;
    let applied = history::read(client).await.map_err(failed(Exit::Error))?;
    client.batch_execute("commit").await.map_err(failed(Exit::Error))?;
    let history = applied.iter().map(|applied| applied.version.clone()).collect();
    Ok((Live { owned_digest: fingerprint.owned_digest(), history }, applied))
}

/// Applied files whose text is not what the history recorded.
fn edited(files: &[MigrationFile], applied: &[history::Applied]) -> Vec<EditedFile> {
    let recorded = |file: &MigrationFile| {
        applied.iter().find(|applied| applied.version == file.version)?.statements.as_ref()
    };
    files
        .iter()
        .filter(|file| recorded(file).is_some_and(|statements| !same_statements(&file.sql, statements)))
        .map(|file| EditedFile { version: file.version.clone(), file: file.file_name.clone() })
        .collect()
}

/// Finds the CLI of the project, or of the machine where there is no project.
pub(super) async fn find_cli(setting: &Setting, config: &Config) -> Result<Supabase, Failure> {
    let search = Search {
        explicit: config.supabase_bin.clone(),
        project_root: super::project(setting)
            .map_or_else(|_| setting.surroundings.cwd.clone(), |project| project.root),
        env: setting.surroundings.env().clone(),
    };
    supabase::find(&search).await.map_err(|error| {
        Failure::new(Exit::Error, &error)
            .hint("Install the Supabase CLI (`npm install --save-dev supabase`), or name it in SUPA_SAFE_SUPABASE_BIN")
    })
}

fn tell_cli(opened: &Opened, cli: &Supabase) {
    opened.context.note(format!("CLI: {}", cli.name()));
    if let Some((path, version)) = &cli.other_on_path {
        opened.context.warn(format!(
            "the project has supabase {}, and PATH has {version} ({}); the project's is used",
            cli.version,
            path.display()
        ));
    }
}

/// Asks the CLI what a push would do; nothing is changed.
pub(super) async fn dry_run(opened: &Opened, prepared: &Prepared) -> Result<Report, Failure> {
    let empty = prepared.frozen.empty_dir().map_err(failed(Exit::Error))?;
    resolve::refresh(&opened.target).await.map_err(|error| resolve_failed(&error))?;
    let variables = prepared.frozen.settings().vault_variables();
    let cmd = prepared.cli.dry_run(&Push {
        connection: &opened.target.connection,
        ssl_mode: opened.target.cli_ssl_mode(),
        frozen_dir: prepared.frozen.dir(),
        empty_dir: empty.path(),
        flags: prepared.pending.flags,
        vault_variables: &variables,
    });
    let output = cmd.run_unchecked().await.map_err(failed(Exit::Error))?;
    match supabase::answer(&output.stdout).map_err(failed(Exit::Error))? {
        Answer::Done(report) => Ok(report),
        Answer::Stopped(problem) => {
            Err(Failure::message(Exit::Error, format!("supabase refuses the push: {}", problem.message))
                .detail("the target was not touched"))
        }
    }
}

fn history_failed(error: &HistoryError) -> Failure {
    let failure = Failure::new(Exit::Error, error).detail("the target was not touched");
    match error {
        HistoryError::MissingLocal(_) => failure
            .hint("Get the missing files from whoever pushed them (`git pull`), or fetch them with `supabase migration fetch`")
            .hint("Do not mark them as reverted with `supabase migration repair` on production: that changes its history, not its schema"),
        HistoryError::OutOfOrder(_) => failure.hint("Pass `--include-all` to push them as well, or give them a newer version"),
    }
}
