//! `supa-safe demo`: plays a whole migration on this machine, with nothing of the person's in it.

mod proof;

use super::fail::failed;
use super::signals::Signals;
use super::{Cli, Command, Global, Setting, look, migrate, open, rollback, secrets, snapshot};
use crate::config::{Config, Flags, Surroundings};
use crate::demo::platform::{self, Platform};
use crate::demo::{self, Hosted};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::proc::shell_word;
use crate::runbook;
use crate::scratch::Kept;
use crate::store::{self, Snapshot, Store};
use crate::tools::Machine;
use crate::tools::installs::{self, Installation};
use crate::tools::supabase::{self, Search, Supabase};
use crate::ui::{self, Json, Summary};
use clap::{Args, Parser as _};
use fs_err as fs;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Programs for the server that stands for the hosted project.
const HOSTED_BIN: &str = "SUPA_SAFE_DEMO_HOSTED_BIN";
/// Programs for the copy, and clients.
const PG_BIN: &str = "SUPA_SAFE_DEMO_PG_BIN";
/// The majors that a hosted project may have, best first.
const MAJORS: [u32; 3] = [17, 16, 15];

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Leave the database and the snapshot there, and say how to reach and how to end them
    #[arg(long)]
    keep: bool,
}

/// What this machine gives to the demo.
struct Props {
    machine: Machine,
    server: Installation,
    cli: Supabase,
}

/// Plays the demo. Scripts get the lines of each run in it, and at last a summary of the whole.
pub(super) async fn run(setting: &Setting, args: &DemoArgs) -> Result<Exit, Failure> {
    let mut proof = None;
    let outcome = Box::pin(on_stage(setting, args, &mut proof)).await;
    if setting.global.json {
        let (exit, error) = match &outcome {
            Ok(exit) => (exit.code(), Vec::new()),
            Err(failure) => (failure.exit.code(), failure.chain.clone()),
        };
        Json::summary(&Summary { exit, proof, error, ..Summary::new() }).map_err(failed(Exit::Error))?;
    }
    outcome
}

async fn on_stage(
    setting: &Setting,
    args: &DemoArgs,
    proof: &mut Option<ui::Proof>,
) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let story = Story { told: !setting.global.json && !setting.global.quiet };
    let props = signals.guard(props(setting)).await?;
    story.act("1/8", "A project that looks like one of Supabase's platform");
    let hosted = signals
        .guard(async {
            let started = Box::pin(Hosted::start(props.server.clone(), &props.machine)).await;
            started.map_err(|error| broken(&error))
        })
        .await?;
    let played = match signals.guard(Box::pin(set_up(setting, &hosted, &props, story))).await {
        Ok(platform) => {
            let setting = inner(setting, &hosted, &props, Some(&platform));
            let stage = Stage { setting, hosted: &hosted, platform: &platform };
            let played = Box::pin(play(&stage, story, &mut signals, proof)).await;
            let unknown = platform.unknown_calls();
            platform.stop().await;
            played.and_then(|exit| knew_every_call(&unknown).map(|()| exit))
        }
        Err(failure) => Err(failure),
    };
    let interrupted =
        matches!(&played, Err(failure) if matches!(failure.exit, Exit::Interrupted | Exit::Terminated));
    if args.keep && !interrupted {
        let (project, password, folder) =
            (hosted.project(), hosted.password_file(), hosted.folder().to_owned());
        let kept = hosted.keep().map_err(|error| broken(&error))?;
        story.kept(&kept, &project, &password, &state_dir(&folder));
    } else {
        let folder = hosted.folder().to_owned();
        // What went wrong in the story is worth more than what went wrong in clearing up.
        let stopped = hosted.stop().await.map_err(|error| broken(&error));
        if played.is_ok() {
            stopped?;
        }
        story.act("end", "Nothing stays behind");
        story.line(&format!("the server is stopped, and {} is removed", folder.display()));
        if played.is_ok() {
            story.line("`supa-safe demo --keep` keeps them, to look around in");
        }
    }
    played
}

/// Finds the programs before anything is started.
async fn props(setting: &Setting) -> Result<Props, Failure> {
    // Asked for its version, the CLI would leave a file in the person's home.
    let telemetry = [("SUPABASE_TELEMETRY_DISABLED", Some("1".into()))];
    let surroundings = &setting.surroundings.clone().with(telemetry);
    let named = |name| surroundings.variable(name).map(|dir| surroundings.cwd.join(dir));
    let hosted_bin = named(HOSTED_BIN);
    let flags = Flags { config: None, max_age: None, pg_bin: setting.global.pg_bin.clone() };
    let mut config = Config::load(surroundings, flags, None).map_err(failed(Exit::Usage))?;
    config.pg_bins.extend(named(PG_BIN));
    config.pg_bins.extend(hosted_bin.clone());
    let cli = find_cli(surroundings, &config).await?;
    let machine = open::machine(setting, &config).await?;
    let server = server(&machine, hosted_bin.as_deref())?;
    installs::client_for(server.major, &machine.installations).map_err(|error| no_postgres(&error))?;
    Ok(Props { machine, server, cli })
}

async fn find_cli(surroundings: &Surroundings, config: &Config) -> Result<Supabase, Failure> {
    let search = Search {
        explicit: config.supabase_bin.clone(),
        project_root: surroundings.cwd.clone(),
        env: surroundings.env().clone(),
    };
    supabase::find(&search).await.map_err(|error| {
        Failure::new(Exit::Error, &error)
            .hint("Install the Supabase CLI with `npm install --save-dev supabase`, or name it in SUPA_SAFE_SUPABASE_BIN")
            .hint("`./install.sh --demo` in the source of supa-safe gets everything that the demo needs")
    })
}

fn server(machine: &Machine, hosted_bin: Option<&Path>) -> Result<Installation, Failure> {
    let all = &machine.installations;
    let Some(dir) = hosted_bin else {
        let found = MAJORS.iter().find_map(|major| installs::server_for(*major, all).ok());
        return match found {
            Some(found) => Ok(found.clone()),
            None => installs::server_for(MAJORS[0], all).cloned().map_err(|error| no_postgres(&error)),
        };
    };
    let real = fs::canonicalize(dir).map_err(failed(Exit::Usage))?;
    all.iter()
        .find(|one| one.bin_dir == real && one.server && MAJORS.contains(&one.major))
        .cloned()
        .ok_or_else(|| {
            Failure::message(
                Exit::Usage,
                format!(
                    "`{}` (from {HOSTED_BIN}) holds no Postgres server of version 15 to 17",
                    dir.display()
                ),
            )
        })
}

fn no_postgres(error: &installs::Error) -> Failure {
    error.hints().into_iter().fold(Failure::new(Exit::Error, error), Failure::hint)
}

fn broken(error: &demo::Error) -> Failure {
    Failure::new(Exit::Error, error)
}

fn knew_every_call(unknown: &[String]) -> Result<(), Failure> {
    if unknown.is_empty() {
        return Ok(());
    }
    let text = "the stand-ins of the platform were asked for what they do not know";
    Err(unknown
        .iter()
        .fold(Failure::message(Exit::Error, text), |failure, call| failure.detail(call.clone())))
}

async fn set_up(
    setting: &Setting,
    hosted: &Hosted,
    props: &Props,
    story: Story,
) -> Result<Platform, Failure> {
    let (applied, pending) = demo::migrations();
    let server = &props.server.version;
    let address = hosted.connection().address();
    story.line(&format!("Postgres {server} on {address},"));
    story.line("  with the roles, schemas, and privileges of the platform");
    story.line(&format!(
        "the real supabase {} pushes the first {} migrations of a small shop …",
        props.cli.version,
        applied.len()
    ));
    // Found again, so that it leaves nothing outside of the demo's folder.
    let inner = inner(setting, hosted, props, None).surroundings;
    let config = Config::load(&inner, Flags::default(), None).map_err(failed(Exit::Usage))?;
    let cli = find_cli(&inner, &config).await?;
    hosted.push_applied(&cli).await.map_err(|error| broken(&error))?;
    story.line("about 50,000 rows are loaded …");
    hosted.load().await.map_err(|error| broken(&error))?;
    let platform = hosted.platform().await.map_err(|error| broken(&error))?;
    story.line(&format!("stand-ins for the rest of project {}, on loopback:", platform::REF));
    story.line(&format!("  Storage with {} objects, and", platform.objects()));
    story.line(&format!(
        "  the Management API with {} Edge Functions and {} secrets",
        platform.functions(),
        platform::SECRETS.len()
    ));
    story.act("2/8", "Somebody has written new migrations");
    for file in pending {
        story.line(file);
    }
    Ok(platform)
}

/// What the story is played on.
struct Stage<'a> {
    setting: Setting,
    hosted: &'a Hosted,
    platform: &'a Platform,
}

impl Stage<'_> {
    /// Tells a command about the demo's project, and makes it what clap makes of it.
    fn command(&self, story: Story, words: &[&str], flags: &[(&str, &str)]) -> Result<Command, Failure> {
        let target = self.hosted.connection();
        let url = format!("postgresql://{}@{}", target.user, target.name());
        let flags = [&[("--db-url", url.as_str()), ("--project-ref", platform::REF)], flags].concat();
        story.line(&format!("$ supa-safe {} \\", words.join(" ")));
        for (place, (flag, value)) in flags.iter().enumerate() {
            let more = if place + 1 < flags.len() { " \\" } else { "" };
            story.line(&format!("    {flag} {value}{more}"));
        }
        let flags = flags.iter().flat_map(|(flag, value)| [*flag, *value]);
        let words = ["supa-safe"].into_iter().chain(words.iter().copied()).chain(flags);
        Ok(Cli::try_parse_from(words).map_err(failed(Exit::Error))?.command)
    }
}

/// Confirms the secrets, runs `supa-safe migrate` on the pending files, and shows what is left of it.
async fn play(
    stage: &Stage<'_>,
    story: Story,
    signals: &mut Signals,
    proof: &mut Option<ui::Proof>,
) -> Result<Exit, Failure> {
    let lost = || Failure::message(Exit::Error, "the demo has lost its command");
    let name = stage.hosted.connection().name();
    let confirm = [("--confirm", name.as_str())];

    story.act("3/8", "No snapshot can hold the values of secrets: somebody confirms to keep them");
    let Command::Secrets(args) = stage.command(story, &["secrets", "confirm"], &confirm)? else {
        return Err(lost());
    };
    story.line("(--confirm stands for you, who would type the name of the target when asked)");
    if story.told {
        signals.guard(secrets::run(&stage.setting, args)).await?;
    } else {
        // It prints no lines of events.
        signals.guard(secrets::confirm_silently(&stage.setting, args)).await?;
    }

    story.act("4/8", "The migrations are pushed with supa-safe instead of `supabase db push`");
    let Command::Migrate(args) = stage.command(story, &["migrate"], &confirm)? else { return Err(lost()) };
    let exit = Box::pin(migrate::run(&stage.setting, args)).await?;
    if exit == Exit::Done {
        story.act("5/8", "What stands on disk now");
        if story.told {
            let Command::Show(args) = stage.command(story, &["show"], &[])? else { return Err(lost()) };
            look::show(&stage.setting, &args).await?;
        }
        if let Some(snapshot) = newest(stage.hosted).map_err(failed(Exit::Error))? {
            story.snapshot(&snapshot).map_err(failed(Exit::Error))?;
        }
        let found = proof.insert(Box::pin(take_back(stage, story)).await?);
        if !found.holds {
            let text =
                "the demo's proof does not hold: after the rollback more differs than what customers did";
            return Err(found
                .wrong
                .iter()
                .cloned()
                .fold(Failure::message(Exit::Error, text), Failure::detail));
        }
        story.line("what differs is what people did");
        story.own_project();
    }
    Ok(exit)
}

/// Pushes a migration that goes through and is wrong, lets customers go on, takes it back, and compares.
async fn take_back(stage: &Stage<'_>, story: Story) -> Result<ui::Proof, Failure> {
    let lost = || Failure::message(Exit::Error, "the demo has lost its command");
    let name = stage.hosted.connection().name();
    let confirm = [("--confirm", name.as_str())];
    let quiet = Setting {
        global: Global { quiet: true, json: false, ..stage.setting.global.clone() },
        surroundings: stage.setting.surroundings.clone(),
        ..stage.setting
    };

    story.act("6/8", "A week later: a migration that goes through, and is wrong");
    stage.hosted.write_wrong().map_err(|error| broken(&error))?;
    for line in [
        demo::WRONG_NAME,
        "  a lost WHERE, a dropped column, a new table with a foreign key, a view on an old table,",
        "  a policy that opens every order, and rows of Storage overwritten and deleted",
    ] {
        story.line(line);
    }
    let Command::Migrate(args) = stage.command(story, &["migrate", "--quiet"], &confirm)? else {
        return Err(lost());
    };
    went(Box::pin(migrate::run(&quiet, args)).await?)?;
    let before = newest(stage.hosted).map_err(failed(Exit::Error))?.ok_or_else(lost)?;
    story.line("it went through; customers go on, before anybody looks:");
    stage.hosted.go_on().await.map_err(|error| broken(&error))?;
    stage.platform.go_on().await.map_err(|error| broken(&demo::Error::Platform(error)))?;
    story.line("  somebody has signed up, somebody has ordered, a note was written about a product,");
    story.line("  and of the avatars one was replaced, one deleted, and one uploaded");
    story.line(&format!("now: {}", stage.hosted.looks().await.map_err(|error| broken(&error))?));

    story.act("7/8", "The way back");
    let Command::Rollback(args) = stage.command(story, &["rollback"], &confirm)? else { return Err(lost()) };
    went(rollback::run(&stage.setting, args).await?)?;
    story.line(&format!("now: {}", stage.hosted.looks().await.map_err(|error| broken(&error))?));
    story.line("the proof: one more snapshot, compared with the one from before the migration");
    let Command::Snapshot(args) = stage.command(story, &["snapshot", "--quiet"], &[])? else {
        return Err(lost());
    };
    went(Box::pin(snapshot::run(&quiet, args)).await?)?;
    let after = newest(stage.hosted).map_err(failed(Exit::Error))?.ok_or_else(lost)?;
    story.compared(&before, &after)
}

/// Demands that a command of the story did what it was asked for.
fn went(exit: Exit) -> Result<(), Failure> {
    if exit == Exit::Done {
        return Ok(());
    }
    let text = format!("a command of the demo ended with code {}", exit.code());
    Err(Failure::message(Exit::Error, text))
}

fn newest(hosted: &Hosted) -> Result<Option<Snapshot>, store::Error> {
    let folder = crate::target::folder_name(&hosted.connection().name());
    let store = Store::open(&state_dir(hosted.folder()), &folder)?;
    store.ids()?.first().map(|id| store.load(id)).transpose()
}

/// The setting of the run inside: the demo's own project, state, programs, and password.
fn inner(setting: &Setting, hosted: &Hosted, props: &Props, platform: Option<&Platform>) -> Setting {
    let password = hosted.connection().password.as_ref().map(|password| OsString::from(password.expose()));
    let dirs = |dir: PathBuf| Some(dir.into_os_string());
    let mut changes = vec![
        ("PGPASSWORD", password),
        ("PGSSLMODE", None),
        ("PGSSLROOTCERT", None),
        ("SUPA_SAFE_DB_URL", None),
        ("SUPA_SAFE_STORE", None),
        // The same on every machine, and quick.
        ("SUPA_SAFE_REHEARSE_ENGINE", Some("local".into())),
        ("SUPA_SAFE_STATE_DIR", dirs(state_dir(hosted.folder()))),
        ("SUPA_SAFE_SUPABASE_BIN", dirs(props.cli.path.clone())),
        ("SUPABASE_HOME", dirs(hosted.cli_home())),
        ("SUPABASE_TELEMETRY_DISABLED", Some("1".into())),
        // The CLI's runtime unpacks a library of its own there.
        ("BUN_TMPDIR", dirs(hosted.cli_home())),
    ];
    changes.extend(platform.map(Platform::variables).unwrap_or_default());
    let bin = setting.surroundings.variable(PG_BIN).or_else(|| setting.surroundings.variable(HOSTED_BIN));
    if let Some(bin) = bin {
        changes.push(("SUPA_SAFE_PG_BIN", dirs(setting.surroundings.cwd.join(bin))));
    }
    Setting {
        global: Global { config: None, workdir: Some(hosted.project()), ..setting.global.clone() },
        surroundings: setting.surroundings.clone().with(changes),
        clock: setting.clock,
        exempt: true,
    }
}

fn state_dir(folder: &Path) -> PathBuf {
    folder.join("state")
}

/// The one who tells it.
#[derive(Clone, Copy)]
struct Story {
    told: bool,
}

impl Story {
    fn act(self, number: &str, title: &str) {
        if self.told {
            ui::heading(number, title);
        }
    }

    fn line(self, text: &str) {
        if self.told {
            ui::tell(text);
        }
    }

    fn snapshot(self, snapshot: &Snapshot) -> io::Result<()> {
        self.line("what stands in that folder:");
        for (name, what) in [
            ("manifest.json", "what was captured of which target, and when; written last"),
            ("SHA256SUMS", "a digest of every file"),
            ("database/", "the dump, and count and content hash of every table"),
            ("storage/", "every object's row and digest; the bytes are in ../../objects/"),
            ("functions/", "the source of each Edge Function, with what it shares"),
            ("secrets.json", "names and digests of the secrets"),
            ("config/", "the `supabase` folder, and the project's own settings"),
            (runbook::FILE, "how to restore it with `psql` and `pg_restore`, without supa-safe"),
        ] {
            self.line(&format!("  {name:<14} {what}"));
        }
        self.line("among other commands of restore.md, as the rehearsal ran them:");
        let text = fs::read_to_string(snapshot.dir.join(runbook::FILE))?;
        let is_short = |line: &&str| line.len() < 140;
        let is_command =
            |line: &&str| ["sha256sum", "psql", "pg_restore"].iter().any(|name| line.starts_with(name));
        for command in text.lines().filter(is_command).filter(is_short) {
            self.line(&format!("  $ {command}"));
        }
        Ok(())
    }

    /// What differs between two snapshots.
    fn compared(self, before: &Snapshot, after: &Snapshot) -> Result<ui::Proof, Failure> {
        let of_database = proof::compare(&before.manifest.database, &after.manifest.database);
        let [was, is] = [before, after].map(|snapshot| fs::read_to_string(snapshot.storage_index()));
        let (was, is) = was.and_then(|was| Ok((was, is?))).map_err(failed(Exit::Error))?;
        let of_objects = proof::compare_objects(&was, &is).map_err(failed(Exit::Error))?;
        let lines: Vec<String> = of_database.lines.into_iter().chain(of_objects.lines).collect();
        let wrong: Vec<String> = of_database.wrong.into_iter().chain(of_objects.wrong).collect();
        for line in &lines {
            self.line(&format!("  {line}"));
        }
        Ok(ui::Proof { holds: wrong.is_empty(), lines, wrong })
    }

    fn own_project(self) {
        self.act("8/8", "The same on a project of yours, from the folder that holds `supabase/`");
        for line in [
            "supabase link                           # unless it is linked already",
            "export SUPA_SAFE_S3_ACCESS_KEY_ID=…     # for the files of Storage,",
            "export SUPA_SAFE_S3_SECRET_ACCESS_KEY=… # with this",
            "supa-safe doctor                        # says what is missing",
            "supa-safe migrate --dry-run             # prints the plan, and touches nothing",
            "supa-safe snapshot                      # only a proved snapshot",
            "supa-safe secrets confirm               # that you keep their values elsewhere",
            "supa-safe migrate                       # all of it: it asks before it pushes",
            "supa-safe show                          # the snapshot, and its folder",
            "supa-safe rollback                      # takes the last push back",
        ] {
            self.line(line);
        }
    }

    fn kept(self, kept: &Kept, project: &Path, password: &Path, state: &Path) {
        let word = |path: &Path| shell_word(&path.to_string_lossy());
        let at = &kept.connection;
        self.act("kept", "Database, project, and evidence are still there");
        self.line("what stood for the platform ended with this run");
        for line in [
            format!("export SUPA_SAFE_STATE_DIR={}", word(state)),
            format!("export SUPA_SAFE_DB_URL=postgresql://postgres@{}/postgres", at.address()),
            format!("export PGPASSWORD=$(cat {})", word(password)),
            format!("cd {}", word(project)),
            "supa-safe status".to_owned(),
            format!("psql -h {} -p {} -U postgres postgres", at.host, at.port),
            format!("kill {}    # ends the server and removes {}", kept.keeper_pid, kept.dir.display()),
        ] {
            self.line(&line);
        }
    }
}
