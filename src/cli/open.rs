//! From arguments to a pinned target with its store: what almost every command begins with.

use super::done::{Broken, Done};
use super::fail::{damaged, failed, resolve_failed};
use super::signals::Signals;
use super::{Setting, TargetArgs};
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::disk::Lock;
use crate::event::{Event, Observer, Observers};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::SnapshotId;
use crate::policy::{Facts, Policy};
use crate::resolve;
use crate::scratch;
use crate::secret::Secret;
use crate::store::{self, Snapshot, Store};
use crate::target::{Connection, Defaults, EndpointKind, Target};
use crate::tools::Machine;
use crate::tools::installs::{self, Search};
use crate::ui::{self, Human, Json, Record, Summary, Timings};
use jiff::SignedDuration;
use std::path::PathBuf;

/// The port of `supabase start`'s database (CLI documentation, `[db] port`).
const LOCAL_PORT: u16 = 54322;

/// A run that has its target.
pub(super) struct Opened {
    pub(super) target: Target,
    pub(super) policy: Policy,
    pub(super) context: Context,
    pub(super) config: Config,
    record: Record,
    timings: Timings,
    pub(super) run: String,
    _lock: Lock,
}

/// Settings of a run, before the target is known.
pub(super) fn config(setting: &Setting, max_age: Option<SignedDuration>) -> Result<Config, Failure> {
    let flags =
        Flags { config: setting.global.config.clone(), max_age, pg_bin: setting.global.pg_bin.clone() };
    let project = super::project(setting).ok();
    let supabase_dir = project.as_ref().map(|project| project.supabase_dir.as_path());
    Config::load(&setting.surroundings, flags, supabase_dir).map_err(|error| {
        Failure::new(Exit::Usage, &error)
            .hint("Compare the file with the sample that `supa-safe explain policy` prints")
    })
}

/// Opens the target of a command that acts. When that fails, a script gets its last line as it does
/// when anything later fails.
pub(super) async fn open(
    setting: &Setting,
    args: &TargetArgs,
    max_age: Option<SignedDuration>,
    signals: &mut Signals,
) -> Result<Opened, Failure> {
    let opened = signals.guard(Box::pin(pin(setting, args, max_age))).await;
    if let Err(failure) = &opened
        && setting.global.json
    {
        let summary = Summary { exit: failure.exit.code(), error: failure.chain.clone(), ..Summary::new() };
        Json::summary(&summary).map_err(failed(Exit::Error))?;
    }
    opened
}

/// Resolves and pins the target, takes its lock, and clears up after runs that died.
async fn pin(
    setting: &Setting,
    args: &TargetArgs,
    max_age: Option<SignedDuration>,
) -> Result<Opened, Failure> {
    let config = config(setting, max_age)?;
    let (connection, kind) = connection(setting, args)?;
    let mut observers = observers(setting);
    let notes = connection_notes(args, &connection);
    let target = resolve::resolve(connection, kind).await.map_err(|error| resolve_failed(&error))?;
    observers.see(&Event::Target {
        name: target.name().to_owned(),
        about: format!("{}, Postgres {}", target.kind, target.server.version()),
    });
    for note in &notes {
        observers.see(note);
    }
    let policy = config.policy(target.name()).map_err(failed(Exit::Usage))?;
    let storage = config.storage(&setting.surroundings, target.name(), None).map_err(failed(Exit::Usage))?;
    let store = Store::open(&config.state_dir, &target.folder()).map_err(failed(Exit::Error))?;
    let lock = lock(&store)?;
    let run = store::run_name((setting.clock)(), std::process::id());
    let record = Record::open(&store.run_file(&run), setting.clock).map_err(failed(Exit::Error))?;
    observers.add(Box::new(record.clone()));
    let timings = Timings::default();
    observers.add(Box::new(timings.clone()));
    let machine = machine(setting, &config).await?;
    let context = Context {
        observer: Box::new(observers),
        store,
        machine,
        clock: setting.clock,
        max_age: policy.max_age,
        storage,
        allow_drift: policy.allow_drift,
    };
    sweep(&context).await?;
    Ok(Opened { target, policy, context, config, record, timings, run, _lock: lock })
}

fn observers(setting: &Setting) -> Observers {
    let mut observers = Observers::default();
    if setting.global.json {
        observers.add(Box::new(Json));
    }
    if !setting.global.json || setting.global.verbose > 0 {
        observers.add(Box::new(Human::new(setting.loudness())));
    }
    observers
}

/// The store of a target and the target's name, without a lock and without a word to the target.
pub(super) fn store_of(setting: &Setting, args: &TargetArgs) -> Result<(Store, String), Failure> {
    let (connection, _) = connection(setting, args)?;
    let name = connection.project_ref().map_or_else(|| connection.name(), str::to_owned);
    let store = Store::open(&config(setting, None)?.state_dir, &crate::target::folder_name(&name))
        .map_err(failed(Exit::Error))?;
    Ok((store, name))
}

/// The connection that the arguments and the environment mean.
pub(super) fn connection(
    setting: &Setting,
    args: &TargetArgs,
) -> Result<(Connection, EndpointKind), Failure> {
    if args.local {
        let local_port =
            super::project(setting).ok().and_then(|project| project.local_port()).unwrap_or(LOCAL_PORT);
        return Ok((Connection::local_stack(local_port), EndpointKind::Local));
    }
    let url = args
        .db_url
        .clone()
        .or_else(|| args.remote.clone())
        .or_else(|| setting.surroundings.variable("SUPA_SAFE_DB_URL"));
    let Some(url) = url else {
        return Err(Failure::message(Exit::Usage, "no target was given, and this version cannot resolve a linked project")
            .hint("Pass `--db-url <url>`, or set SUPA_SAFE_DB_URL; for the stack of `supabase start` pass `--local`"));
    };
    let defaults = defaults(setting, args)?;
    let connection =
        Connection::from_url(&url, &defaults).map_err(|error| super::fail::url_failed(&error))?;
    let kind = connection.kind();
    Ok((connection, kind))
}

/// An explicit password goes before the environment's, and both only where the URL has none.
fn defaults(setting: &Setting, args: &TargetArgs) -> Result<Defaults, Failure> {
    let mut defaults = setting.surroundings.connection_defaults();
    if let Some(password) = &args.password {
        defaults.password = Some(Secret::new(password.clone()));
    }
    if let Some(path) = &args.password_file {
        let text = fs_err::read_to_string(path).map_err(failed(Exit::Usage))?;
        defaults.password = Some(Secret::new(text.lines().next().unwrap_or_default()));
    }
    Ok(defaults)
}

fn connection_notes(args: &TargetArgs, connection: &Connection) -> Vec<Event> {
    let mut notes = Vec::new();
    let in_url = |url: &Option<String>| {
        url.as_deref().is_some_and(|url| url::Url::parse(url).is_ok_and(|url| url.password().is_some()))
    };
    if args.password.is_some() || in_url(&args.db_url) || in_url(&args.remote) {
        notes.push(Event::Warning {
            text:
                "other users of this machine can see the password in the command line; set PGPASSWORD instead"
                    .to_owned(),
        });
    }
    if !connection.ignored.is_empty() {
        notes.push(Event::Note {
            text: format!("the URL's {} has no meaning here and is left out", connection.ignored.join(", ")),
        });
    }
    notes
}

impl Opened {
    /// Says how the run ended, to people, scripts, and the record.
    pub(super) fn close(&self, setting: &Setting, outcome: Result<Done, Broken>) -> Result<Exit, Failure> {
        let (mut summary, ended) = match outcome {
            Ok(done) => {
                let mut summary = done.summary;
                summary.exit = done.exit.code();
                if !setting.global.json && !setting.global.quiet {
                    let text: String =
                        done.closing.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
                    ui::print(&text).map_err(failed(Exit::Error))?;
                }
                (summary, Ok(done.exit))
            }
            Err(broken) => {
                let Broken { mut summary, failure } = broken;
                summary.exit = failure.exit.code();
                summary.target_touched |= (20..100).contains(&failure.exit.code());
                summary.error.clone_from(&failure.chain);
                (*summary, Err(failure))
            }
        };
        summary.timings = self.timings.seconds();
        self.context.store.remove_frozen(&self.run).map_err(failed(Exit::Error))?;
        self.record.summary(&summary).map_err(failed(Exit::Error))?;
        if setting.global.json {
            Json::summary(&summary).map_err(failed(Exit::Error))?;
        }
        ended
    }
}

fn lock(store: &Store) -> Result<Lock, Failure> {
    store.lock().map_err(failed(Exit::Error))?.ok_or_else(|| {
        Failure::message(
            Exit::Locked,
            format!(
                "another run (process {}) works on this target; the target was not touched",
                store.lock_holder()
            ),
        )
        .hint("Wait until it has ended, then run again")
    })
}

/// Looks around on this machine.
pub(super) async fn machine(setting: &Setting, config: &Config) -> Result<Machine, Failure> {
    let surroundings = &setting.surroundings;
    let search =
        Search { explicit: config.pg_bins.clone(), path: surroundings.path(), home: surroundings.home() };
    Ok(Machine {
        env: surroundings.env().clone(),
        installations: installs::installations(&search).await,
        temp_dir: surroundings.temp_dir(),
        own_program: own_program()?,
    })
}

fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(failed(Exit::Error))
}

/// Clears up after runs that died, and says what was found.
async fn sweep(context: &Context) -> Result<(), Failure> {
    for name in context.store.sweep().map_err(failed(Exit::Error))? {
        context.note(format!("removed `{name}`: an earlier run died while it took this snapshot"));
    }
    for swept in scratch::sweep(&context.machine.temp_dir).await {
        match swept.outcome {
            Ok(_) => context
                .note(format!("removed the scratch server that a dead run left in {}", swept.dir.display())),
            Err(error) => {
                context.warn(format!("cannot remove the scratch folder {}: {error}", swept.dir.display()));
            }
        }
    }
    Ok(())
}

/// A snapshot by name, or the newest one.
pub(super) fn pick(store: &Store, id: Option<&SnapshotId>) -> Result<Snapshot, Broken> {
    let id = match id {
        Some(id) => id.clone(),
        None => store.ids().map_err(failed(Exit::Error))?.into_iter().next().ok_or_else(|| {
            Failure::message(Exit::Refused, "there is no snapshot of this target")
                .hint("Run `supa-safe snapshot`")
        })?,
    };
    store.load(&id).map_err(|error| match error.damage() {
        Some(what) => damaged(&id, &[what]),
        None => Failure::new(Exit::Error, &error)
            .hint("Run `supa-safe list` for the snapshots of this target")
            .into(),
    })
}

impl Opened {
    /// Facts of a target of which nothing is known yet.
    pub(super) fn no_facts(&self) -> Facts {
        Facts {
            target: self.target.identity.clone(),
            snapshot: None,
            edited: Vec::new(),
            sessions: Vec::new(),
            push: None,
        }
    }

    /// A snapshot of this target by name, or the newest one.
    pub(super) fn snapshot(&self, id: Option<&SnapshotId>) -> Result<Snapshot, Broken> {
        pick(&self.context.store, id)
    }
}
