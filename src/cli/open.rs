//! From arguments to a pinned target with its store: what almost every command begins with.

use super::done::{Broken, Done};
use super::fail::{damaged, failed, linked_sign_in_failed, resolve_failed};
use super::signals::Signals;
use super::{Setting, TargetArgs, bucket, prepare, staging, target};
use crate::config::{self, Config, Flags, Linked, Storage};
use crate::context::Context;
use crate::disk::Lock;
use crate::event::{Event, Observer, Observers};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::{ComponentName, SnapshotId};
use crate::objects::Origin;
use crate::policy::{Facts, Keeping, Policy};
use crate::resolve::{self, linked};
use crate::scratch;
use crate::store::{self, Snapshot, Store};
use crate::target::{EndpointKind, Project, ProjectRef, Target};
use crate::tools::Machine;
use crate::tools::container::Wish;
use crate::tools::installs::{self, Search};
use crate::tools::supabase::cloud::Cloud;
use crate::ui::{self, Human, Json, Record, Summary, Timings};
use jiff::SignedDuration;
use std::path::PathBuf;

/// A run that has its target.
pub(super) struct Opened {
    pub(super) target: Target,
    pub(super) policy: Policy,
    pub(super) context: Context,
    pub(super) config: Config,
    /// Where the evidence stands.
    pub(super) keeping: Keeping,
    /// The flags that name this target.
    flags: String,
    record: Record,
    timings: Timings,
    pub(super) run: String,
    _lock: Lock,
}

/// A target that something is done to without evidence: what that needs, and no more.
pub(super) struct Bare {
    pub(super) target: Target,
    pub(super) context: Context,
    flags: String,
    record: Record,
    _lock: Lock,
}

/// Settings of a run, before the target is known.
pub(super) fn config(setting: &Setting, max_age: Option<SignedDuration>) -> Result<Config, Failure> {
    let flags =
        Flags { config: setting.global.config.clone(), max_age, pg_bin: setting.global.pg_bin.clone() };
    let project = super::project(setting).ok();
    let supabase_dir = project.as_ref().map(|project| project.supabase_dir.as_path());
    Config::load(&setting.surroundings, flags, supabase_dir).map_err(|error| {
        Failure::new(Exit::Usage, &error).hint(match error {
            config::Error::NoState => "Set HOME, or name a folder in SUPA_SAFE_STATE_DIR",
            _ => "Compare the file with the sample that `supa-safe explain policy` prints",
        })
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
    let mut observers = observers(setting);
    let mut notes = Vec::new();
    let target = find(setting, &config, args, &mut notes).await;
    if let Ok(target) = &target {
        observers.see(&Event::Target { name: target.name().to_owned(), about: about(target) });
    }
    for note in &notes {
        observers.see(note);
    }
    let target = target?;
    let policy = config.policy(&target.names()).map_err(failed(Exit::Usage))?;
    let scratch = wish(setting, &config, &target)?;
    let staging = staging::set(setting, &config, &target)?;
    let storage =
        storage(setting, &config, &target)?.filter(|_| policy.components.contains(&ComponentName::Storage));
    for note in storage.iter().flat_map(|storage| of_storage(storage, &target)) {
        observers.see(&note);
    }
    let store = Store::open(&config.state_dir, &target.folder()).map_err(failed(Exit::Error))?;
    let lock = lock(&store)?;
    let store = bucket::join(setting, &config, &target.names(), store).await?;
    let run = store::run_name((setting.clock)(), std::process::id());
    let record = Record::open(&store.run_file(&run), setting.clock).map_err(failed(Exit::Error))?;
    observers.add(Box::new(record.clone()));
    bucket::lock(&store, "run", (setting, &run), &observers).await?;
    let timings = Timings::default();
    observers.add(Box::new(timings.clone()));
    let furnished = furnish(setting, (&config, &target, &policy), &store, &observers).await;
    if furnished.is_err() {
        bucket::release(&store).await;
    }
    let (machine, cloud) = furnished?;
    let context = Context {
        observer: Box::new(observers),
        store,
        machine,
        scratch,
        staging,
        cloud,
        supabase_dir: super::project(setting).ok().map(|project| project.supabase_dir),
        clock: setting.clock,
        max_age: policy.max_age,
        storage: storage.map(|storage| storage.access),
        allow_drift: policy.allow_drift,
        reuse: policy.reuse,
    };
    let ci = setting.surroundings.ci().filter(|_| !setting.exempt && context.store.bucket_name().is_none());
    let keeping = ci.map_or(Keeping::Lasting, Keeping::Passing);
    let flags = args.in_words();
    Ok(Opened { target, policy, context, config, keeping, flags, record, timings, run, _lock: lock })
}

/// Pins a target and takes its lock, without a word to the platform, a store, or the project's tools.
pub(super) async fn bare(setting: &Setting, args: &TargetArgs) -> Result<Bare, Failure> {
    let config = config(setting, None)?;
    let mut observers = observers(setting);
    let mut notes = Vec::new();
    let target = find(setting, &config, args, &mut notes).await?;
    observers.see(&Event::Target { name: target.name().to_owned(), about: about(&target) });
    for note in &notes {
        observers.see(note);
    }
    let policy = config.policy(&target.names()).map_err(failed(Exit::Usage))?;
    let scratch = wish(setting, &config, &target)?;
    let store = Store::open(&config.state_dir, &target.folder()).map_err(failed(Exit::Error))?;
    let lock = lock(&store)?;
    let run = store::run_name((setting.clock)(), std::process::id());
    let record = Record::open(&store.run_file(&run), setting.clock).map_err(failed(Exit::Error))?;
    observers.add(Box::new(record.clone()));
    let context = Context {
        observer: Box::new(observers),
        store,
        machine: machine(setting, &config).await?,
        scratch,
        staging: None,
        cloud: None,
        supabase_dir: None,
        clock: setting.clock,
        max_age: policy.max_age,
        storage: None,
        allow_drift: policy.allow_drift,
        reuse: policy.reuse,
    };
    Ok(Bare { target, context, flags: args.in_words(), record, _lock: lock })
}

/// A target that is only looked at: no lock, no record, and no question for a password.
pub(super) async fn looked_at(setting: &Setting, args: &TargetArgs) -> Result<Target, Failure> {
    let config = config(setting, None)?;
    let wanted = target::look(setting, &config, args).await?;
    resolve::resolve(wanted).await.map_err(|error| resolve_failed(&error))
}

/// Clears up after dead runs, and looks around.
async fn furnish(
    setting: &Setting,
    (config, target, policy): (&Config, &Target, &Policy),
    store: &Store,
    observers: &Observers,
) -> Result<(Machine, Option<Cloud>), Failure> {
    let machine = machine(setting, config).await?;
    // What a dead run left is not to be shared.
    sweep(store, &machine, observers).await?;
    bucket::catch_up(store, observers).await?;
    let project_ref = target.project_ref().filter(|_| !policy.components.is_empty());
    let cloud = match project_ref {
        Some(project_ref) => Some(cloud(setting, config, project_ref).await?),
        None => None,
    };
    Ok((machine, cloud))
}

/// What a person should know of the way to Storage.
fn of_storage(storage: &Storage, target: &Target) -> Vec<Event> {
    let withheld = storage.withheld.iter().map(|why| Event::Warning { text: why.to_string() });
    let elsewhere = target.project_ref().filter(|_| storage.access.origin == Origin::File);
    let elsewhere = elsewhere.map(|project_ref| Event::Note {
        text: format!(
            "`storage_url` leads to `{}`, which is not a host of {project_ref}: objects are read there, and a \
             rollback sends them there",
            storage.access.endpoint
        ),
    });
    elsewhere.into_iter().chain(withheld).collect()
}

async fn find(
    setting: &Setting,
    config: &Config,
    args: &TargetArgs,
    notes: &mut Vec<Event>,
) -> Result<Target, Failure> {
    let wanted = target::find(setting, config, args, notes).await?;
    let linked = wanted.linked;
    let pinned = resolve::resolve(wanted).await;
    pinned.map_err(|error| if linked { linked_sign_in_failed(&error) } else { resolve_failed(&error) })
}

/// What a person needs to know the target by, beside its name.
fn about(target: &Target) -> String {
    let mut parts = target.project.iter().flat_map(Project::about).collect::<Vec<_>>();
    parts.push(match target.kind {
        EndpointKind::SessionPooler => format!("{} {}", target.kind, target.connection.address()),
        kind => kind.to_string(),
    });
    parts.push(format!("Postgres {}", target.server.version()));
    parts.join(", ")
}

pub(super) fn observers(setting: &Setting) -> Observers {
    let mut observers = Observers::default();
    if setting.global.json {
        observers.add(Box::new(Json));
    }
    if !setting.global.json || setting.global.verbose > 0 {
        observers.add(Box::new(Human::new(setting.loudness())));
    }
    observers
}

/// What is known of a target without a word to it.
pub(super) struct Known {
    pub(super) name: String,
    /// All names by which the policy may know it.
    pub(super) names: Vec<String>,
    pub(super) project_ref: Option<ProjectRef>,
    pub(super) policy: Policy,
    pub(super) store: Store,
    pub(super) config: Config,
}

/// Where a target's Storage is, and what signs for it.
pub(super) fn storage(
    setting: &Setting,
    config: &Config,
    target: &Target,
) -> Result<Option<Storage>, Failure> {
    let linked = target.project.as_ref().map(|project| Linked {
        project_ref: project.project_ref.as_str(),
        host: &project.profile.project_host,
    });
    config.storage(&setting.surroundings, &target.names(), linked).map_err(failed(Exit::Usage))
}

/// What rehearsals of a target run on.
pub(super) fn wish(setting: &Setting, config: &Config, target: &Target) -> Result<Wish, Failure> {
    let root = super::project(setting).ok().map(|project| project.root);
    let linked = target.project_ref().zip(root);
    let version = linked.and_then(|(project_ref, root)| linked::image_version(&root, project_ref));
    config.scratch(&setting.surroundings, version).map_err(failed(Exit::Usage))
}

/// A project seen through the CLI.
pub(super) async fn cloud(
    setting: &Setting,
    config: &Config,
    project_ref: &ProjectRef,
) -> Result<Cloud, Failure> {
    let cli = prepare::find_cli(setting, config).await?;
    Cloud::new(cli, project_ref.as_str()).map_err(|error| super::fail::cloud_failed(&error))
}

/// A target's name, policy, and store, without a lock and without a word to the target.
pub(super) async fn known(setting: &Setting, args: &TargetArgs) -> Result<Known, Failure> {
    let config = config(setting, None)?;
    let (names, project_ref) = Box::pin(target::names(setting, &config, args)).await?;
    let every: Vec<&str> = names.iter().map(String::as_str).collect();
    let policy = config.policy(&every).map_err(failed(Exit::Usage))?;
    let name = names.first().cloned().unwrap_or_default();
    let store =
        Store::open(&config.state_dir, &crate::target::folder_name(&name)).map_err(failed(Exit::Error))?;
    let store = bucket::join(setting, &config, &every, store).await?;
    store.pull().await.map_err(|error| bucket::store_failed(&error))?;
    Ok(Known { name, names, project_ref, policy, store, config })
}

impl Bare {
    /// A command line that means this target.
    pub(super) fn command(&self, name: &str) -> String {
        format!("supa-safe {name}{}", self.flags)
    }

    /// Writes the last line of the record.
    pub(super) fn end(&self, summary: &Summary) -> Result<(), Failure> {
        self.record.summary(summary).map_err(failed(Exit::Error))
    }
}

impl Opened {
    /// Says how the run ended, to people, scripts, and the record.
    pub(super) async fn close(
        &self,
        setting: &Setting,
        outcome: Result<Done, Broken>,
    ) -> Result<Exit, Failure> {
        staging::clear(&self.context).await;
        let (mut summary, ended, closing) = match outcome {
            Ok(done) => {
                let mut summary = done.summary;
                summary.exit = done.exit.code();
                let closing =
                    done.closing.iter().map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
                (summary, Ok(done.exit), closing)
            }
            Err(broken) => {
                let Broken { mut summary, failure } = broken;
                summary.exit = failure.exit.code();
                summary.target_touched |= (20..100).contains(&failure.exit.code());
                summary.error.clone_from(&failure.chain);
                (*summary, Err(failure), String::new())
            }
        };
        summary.timings = self.timings.seconds();
        if !setting.global.json && !setting.global.quiet {
            self.told(&summary, ui::print(&closing))?;
        }
        self.told(&summary, self.context.store.remove_frozen(&self.run))?;
        self.told(&summary, self.record.summary(&summary))?;
        if let Err(failure) = bucket::leave(setting, &self.context.store).await {
            self.context.warn(format!(
                "the records of this run are not in the store yet, and the next run leaves them there: {}",
                failure.chain.join(": ")
            ));
        }
        if setting.global.json {
            self.told(&summary, Json::summary(&summary))?;
        }
        ended
    }

    /// A run that touched the target, or that failed, ends as that ended, whatever becomes of its last words.
    fn told<E: std::error::Error>(&self, summary: &Summary, told: Result<(), E>) -> Result<(), Failure> {
        match told {
            Err(error) if summary.target_touched || !summary.error.is_empty() => {
                self.context.warn(format!("the end of this run could not be told: {error}"));
                Ok(())
            }
            told => told.map_err(failed(Exit::Error)),
        }
    }
}

pub(super) fn lock(store: &Store) -> Result<Lock, Failure> {
    store.lock().map_err(failed(Exit::Error))?.ok_or_else(|| {
        Failure::message(
            Exit::Locked,
            format!(
                "another run{} works on this target; the target was not touched",
                store.lock_holder().map(|process| format!(" (process {process})")).unwrap_or_default()
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

/// Removes what rollbacks that died were just writing, and says so.
pub(super) fn sweep_rollbacks(store: &Store, observers: &Observers) -> Result<(), Failure> {
    for name in store.sweep_rollbacks().map_err(failed(Exit::Error))? {
        let text = format!("removed `{name}`: an earlier run died while it wrote this file of its rollback");
        observers.see(&Event::Note { text });
    }
    Ok(())
}

/// Clears up after runs that died, and says what was found.
async fn sweep(store: &Store, machine: &Machine, observers: &Observers) -> Result<(), Failure> {
    let note = |text: String| observers.see(&Event::Note { text });
    for name in store.sweep().map_err(failed(Exit::Error))? {
        note(format!("removed `{name}`: an earlier run died while it took this snapshot"));
    }
    for name in store.finish_removals().map_err(failed(Exit::Error))? {
        note(format!("removed the rest of snapshot {name}: an earlier run died while it pruned"));
    }
    sweep_rollbacks(store, observers)?;
    for swept in scratch::sweep(&machine.temp_dir, &machine.env).await {
        match swept.outcome {
            Ok(_) => {
                note(format!("removed the scratch server that a dead run left in {}", swept.dir.display()));
            }
            Err(error) => {
                let text = format!("cannot remove the scratch folder {}: {error}", swept.dir.display());
                observers.see(&Event::Warning { text });
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
    store.load(&id).map_err(|error| match (error.damage(), store.elsewhere(&id)) {
        (Some(what), _) => damaged(&id, &[what]),
        (None, Some(target)) => of_another(&id, &target).into(),
        (None, None) => Failure::new(Exit::Error, &error)
            .hint("Run `supa-safe list` for the snapshots of this target")
            .into(),
    })
}

/// A snapshot that stands in the state folder of another target.
fn of_another(id: &SnapshotId, target: &str) -> Failure {
    Failure::message(Exit::Refused, format!("snapshot {id} is of {target}, which is another target"))
        .detail("[SS004] nothing was touched")
        .hint(format!("Name {target} as the target, or see `supa-safe list` for the snapshots of this one"))
}

impl Opened {
    /// A command line that means this target.
    pub(super) fn command(&self, name: &str) -> String {
        format!("supa-safe {name}{}", self.flags)
    }

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
