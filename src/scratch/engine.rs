//! Chooses what a scratch runs on: a container of the target's image where one can be had, else
//! programs of this machine.

use super::staging;
use super::sweep::sweep_earlier_boots;
use crate::context::Context;
use crate::event::{Event, Stage};
use crate::failure;
use crate::proc;
use crate::target::{Server, Staging};
use crate::tools::container::{self, Image, PROGRAMS, Preference, Wish};
use crate::tools::installs::{self, Installation};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;

/// Variables that are about databases and projects, and no business of an engine.
const NOT_ITS_OWN: [&str; 4] = ["PG", "SUPABASE_", "SUPA_SAFE_", "AWS_"];
/// How often an engine is asked for its images.
const ATTEMPTS: usize = 4;
/// How long it is left alone in between.
const PAUSE: Duration = Duration::from_millis(100);
/// How many lines of a failed fetch are told.
const LINES: usize = 4;

/// Why there is nothing to run a scratch on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The person wants the programs of this machine, and none fits.
    #[error(transparent)]
    NoServer(#[from] installs::Error),
    /// The person wants a container, and there is none.
    #[error("no container for the rehearsal: {0}")]
    NoContainer(Lacking),
    /// The server that the person gives cannot be used.
    #[error(transparent)]
    Staging(#[from] staging::Error),
    /// Neither.
    #[error("nothing here can run the rehearsal: {local}; no container either, because {container}")]
    Nothing {
        /// About programs.
        local: installs::Error,
        /// About containers.
        container: Lacking,
    },
}

impl Error {
    /// What to do about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::NoServer(error) => error.hints(),
            Self::NoContainer(lacking) => vec![lacking.hint()],
            Self::Staging(error) => error.hints(),
            Self::Nothing { local, container } => {
                std::iter::once(container.hint()).chain(local.hints()).collect()
            }
        }
    }
}

/// Why there is no container.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lacking {
    /// The person does not want one.
    #[error("the settings want the programs of this machine")]
    Unwanted,
    /// The person gives a server.
    #[error("the settings want a staging server")]
    Staging,
    /// The server's socket does not reach us from inside Docker's own machine.
    #[error("containers are used on Linux only")]
    OtherSystem,
    /// No engine.
    #[error("neither docker nor podman is on PATH")]
    NoEngine,
    /// An engine that does not run.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", and "))]
    Silent(Vec<Silent>),
    /// The image is not here, and was not to be fetched.
    #[error("image `{image}` is not here")]
    Absent {
        /// The image.
        image: String,
        /// The engine that would fetch it.
        engine: String,
    },
    /// The image could not be fetched.
    #[error("image `{image}` could not be fetched: {said}")]
    NotFetched {
        /// The image.
        image: String,
        /// The engine that tried.
        engine: String,
        /// What it said.
        said: String,
    },
    /// The container did not come up.
    #[error("{said}")]
    Broken {
        /// Why.
        said: String,
        /// What to do about it.
        hint: String,
    },
    /// Nobody knows which image.
    #[error("no Supabase image of Postgres {0} is here, and the project's version is not known")]
    Unknown(u32),
}

impl Lacking {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unwanted | Self::Staging => "Set `engine = \"auto\"` under [rehearse] in supabase/supa-safe.toml, with docker or podman running".to_owned(),
            Self::OtherSystem => format!("Rehearse on Linux, where docker or podman with the image `{}:<version>` stands in", container::REPOSITORY),
            Self::NoEngine => format!("Install docker or podman, and fetch the image of your project: `docker pull {}:<version>`", container::REPOSITORY),
            Self::Silent(silent) => silent.iter().map(Silent::hint).collect::<Vec<_>>().join("; "),
            Self::Absent { image, engine } => format!("Fetch the image with `{engine} pull {image}`, or set `pull = \"missing\"` under [rehearse] in supabase/supa-safe.toml"),
            Self::NotFetched { image, engine, .. } => format!("Find out why `{engine} pull {image}` fails, or name another image under [rehearse] in supabase/supa-safe.toml"),
            Self::Broken { hint, .. } => hint.clone(),
            Self::Unknown(_) => "Name the image under [rehearse] in supabase/supa-safe.toml (`image = \"…\"`), or run `supabase link`, which writes the version down".to_owned(),
        }
    }
}

/// An engine that is here and does not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{engine}` does not answer ({said})")]
pub struct Silent {
    /// Its name.
    pub engine: String,
    /// The last line that it said.
    pub said: String,
}

impl Silent {
    /// A service that does not run and a person who may not speak to it look the same from here.
    fn hint(&self) -> String {
        format!("Make `{} image ls` work for your user: it says what it lacks", self.engine)
    }
}

/// What a scratch runs on.
#[derive(Clone, Debug)]
pub enum Engine {
    /// Programs of this machine.
    Local(Installation),
    /// A container.
    Container(Container),
}

/// A container to run a scratch in.
#[derive(Clone, Debug)]
pub struct Container {
    /// The engine.
    pub engine: container::Engine,
    /// The image.
    pub image: Image,
    /// The person's own arguments for `run`.
    pub args: Vec<String>,
    /// The major version that the image must have.
    pub major: u32,
}

/// What a rehearsal ran on, as its record says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ran {
    /// Programs of this machine.
    Local {
        /// Their version.
        version: String,
    },
    /// A container.
    Container {
        /// The engine's name.
        engine: String,
        /// The image's name.
        image: String,
        /// The image's digest.
        id: String,
    },
    /// A server that the person gave.
    Staging {
        /// `host:port`.
        address: String,
        /// Its version.
        version: String,
    },
}

impl Ran {
    /// Why a rehearsal on this does not count under the person's settings, if it does not.
    pub fn unfit(&self, wish: &Wish) -> Option<String> {
        let insists = wish.preference == Preference::Container;
        match self {
            Self::Local { .. } | Self::Container { .. } if wish.preference == Preference::Staging => {
                Some(format!("the last one ran on {self}, and the settings want a staging server"))
            }
            Self::Local { .. } | Self::Staging { .. } if insists => {
                Some(format!("the last one ran on {self}, and the settings want a container"))
            }
            Self::Container { image, .. } if insists => {
                let wanted = wish.image.as_ref().filter(|wanted| *wanted != image)?;
                Some(format!("the last one ran in {self}, and the settings want image {wanted}"))
            }
            Self::Local { .. } | Self::Container { .. } | Self::Staging { .. } => None,
        }
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { version } => write!(f, "Postgres {version} of this machine"),
            Self::Container { engine, image, id } => {
                let short = id.get(..12).unwrap_or(id);
                write!(f, "a container ({engine}) of image {image}, {short}")
            }
            Self::Staging { address, version } => {
                write!(f, "the staging server {address}, Postgres {version}")
            }
        }
    }
}

/// What was chosen.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// A server of our own.
    Own {
        /// What it runs on.
        engine: Engine,
        /// Why that is no container, if it is none.
        lacking: Option<Lacking>,
    },
    /// A server that the person gives.
    Given {
        /// It.
        staging: Box<Staging>,
        /// Its version.
        version: String,
    },
}

impl Chosen {
    /// It, for the record.
    pub fn ran(&self) -> Ran {
        match self {
            Self::Own { engine: Engine::Local(installation), .. } => {
                Ran::Local { version: installation.version.clone() }
            }
            Self::Own { engine: Engine::Container(Container { engine, image, .. }), .. } => {
                Ran::Container { engine: engine.name(), image: image.name.clone(), id: image.id.clone() }
            }
            Self::Given { staging, version } => {
                Ran::Staging { address: staging.connection.address(), version: version.clone() }
            }
        }
    }

    /// Why it is no container, if it is none and could be one.
    pub fn lacking(&self) -> Option<&Lacking> {
        match self {
            Self::Own { lacking, .. } => lacking.as_ref(),
            Self::Given { .. } => None,
        }
    }

    /// It and the reason, for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::Own { lacking: None, .. } => format!("rehearsing in {}", self.ran()),
            Self::Own { lacking: Some(lacking), .. } => {
                format!("rehearsing with {}: {lacking}", self.ran())
            }
            Self::Given { .. } => format!("rehearsing on {}", self.ran()),
        }
    }
}

/// Chooses what to run a scratch of a server on.
pub async fn choose(server: &Server, context: &Context) -> Result<Chosen, Error> {
    if let Some(staging) = &context.staging {
        let found = Box::pin(staging::check(staging)).await?;
        return Ok(Chosen::Given { staging: Box::new(staging.clone()), version: found.version() });
    }
    let local = installs::server_for(server.major(), &context.machine.installations);
    let lacking = match container(server, context, local.is_ok()).await {
        Ok(container) => return Ok(Chosen::Own { engine: Engine::Container(container), lacking: None }),
        Err(lacking) => lacking,
    };
    match (context.scratch.preference, local) {
        (Preference::Container, _) => Err(Error::NoContainer(lacking)),
        (Preference::Local | Preference::Staging, local) => Ok(Chosen::local(local?, lacking)),
        (Preference::Auto, Ok(installation)) => Ok(Chosen::local(installation, lacking)),
        (Preference::Auto, Err(local)) => Err(Error::Nothing { local, container: lacking }),
    }
}

impl Chosen {
    /// What to take in the place of a container that did not come up, unless the person insists on one.
    pub fn instead(&self, server: &Server, context: &Context, error: &super::Error) -> Option<Self> {
        let is_free = self.is_container() && context.scratch.preference == Preference::Auto;
        let installation = installs::server_for(server.major(), &context.machine.installations).ok()?;
        let broken = || Lacking::Broken { said: failure::chain(error).join(": "), hint: error.hint() };
        is_free.then(|| Self::local(installation, broken()))
    }

    /// Whether it is a container.
    pub fn is_container(&self) -> bool {
        matches!(self, Self::Own { engine: Engine::Container(_), .. })
    }

    fn local(installation: &Installation, lacking: Lacking) -> Self {
        Self::Own { engine: Engine::Local(installation.clone()), lacking: Some(lacking) }
    }
}

/// The container that a scratch runs in, its image fetched where that may be; `is_local` says whether
/// programs of this machine would do.
async fn container(server: &Server, context: &Context, is_local: bool) -> Result<Container, Lacking> {
    let (wish, env) = (&context.scratch, &context.machine.env);
    match at_hand(server, wish, env).await {
        Ok(container) => {
            for name in sweep_earlier_boots(&container.engine).await {
                context.note(format!("removed the container {name}, which ran when the machine went down"));
            }
            Ok(container)
        }
        Err(Lacking::Absent { image, engine }) if wish.may_fetch(is_local) => {
            let found = found(&engine, env).ok_or(Lacking::NoEngine)?;
            let image = fetch(&found, &image, context).await?;
            Ok(made_of(image, found, wish, server))
        }
        lacking => lacking,
    }
}

/// The container that a scratch of a server can have at once: nothing is fetched. `env` is the
/// environment of the run.
pub async fn at_hand(
    server: &Server,
    wish: &Wish,
    env: &BTreeMap<OsString, OsString>,
) -> Result<Container, Lacking> {
    match wish.preference {
        Preference::Local => return Err(Lacking::Unwanted),
        Preference::Staging => return Err(Lacking::Staging),
        Preference::Auto | Preference::Container => {}
    }
    if cfg!(target_os = "macos") {
        return Err(Lacking::OtherSystem);
    }
    let mut silent = Vec::new();
    let mut answering = None;
    for engine in PROGRAMS.into_iter().filter_map(|name| found(name, env)) {
        let listed = match listed(&engine).await {
            Ok(listed) => listed,
            Err(not) => {
                silent.push(not);
                continue;
            }
        };
        let name = wish.pick(&server.version(), &listed);
        if let Some(image) = look(&engine, name).await {
            return Ok(made_of(image, engine, wish, server));
        }
        answering.get_or_insert(engine.name());
    }
    match (answering, wish.name()) {
        (Some(engine), Some(image)) => Err(Lacking::Absent { image, engine }),
        (Some(_), None) => Err(Lacking::Unknown(server.major())),
        (None, _) if silent.is_empty() => Err(Lacking::NoEngine),
        (None, _) => Err(Lacking::Silent(silent)),
    }
}

/// The images that an engine has, when it answers. podman 4.3 fails while somebody else adds or removes
/// an image, so it is asked again; an engine that hangs is not.
pub(super) async fn listed(engine: &container::Engine) -> Result<Vec<String>, Silent> {
    let silent = |said| Silent { engine: engine.name(), said };
    let mut attempt = 1;
    loop {
        let said = match engine.images().run_unchecked().await {
            Ok(output) if output.ended.is_success() => return Ok(container::listed(&output.stdout)),
            Ok(output) => {
                let last = output.stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
                last.map_or_else(|| format!("it {}", output.ended), str::to_owned)
            }
            Err(error) => return Err(silent(failure::chain(&error).join(": "))),
        };
        if attempt == ATTEMPTS {
            return Err(silent(said));
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// An engine on `PATH`.
fn found(name: &str, env: &BTreeMap<OsString, OsString>) -> Option<container::Engine> {
    let path = env.get(&OsString::from("PATH")).cloned().unwrap_or_default();
    let program = proc::find(name, &path).ok()?;
    Some(container::Engine { program, env: engine_env(env) })
}

fn made_of(image: Image, engine: container::Engine, wish: &Wish, server: &Server) -> Container {
    Container { engine, image, args: wish.args.clone(), major: server.major() }
}

async fn look(engine: &container::Engine, name: Option<String>) -> Option<Image> {
    let name = name?;
    let output = engine.inspect(&name).run().await.ok()?;
    container::inspected(&name, &output.stdout)
}

/// Fetches an image, and tells what the engine says meanwhile.
async fn fetch(engine: &container::Engine, name: &str, context: &Context) -> Result<Image, Lacking> {
    let stage = Stage::Rehearse;
    let watch = context
        .stage(stage, format!("fetch image {name} with {}: more than a gigabyte, once", engine.name()));
    let (sender, mut lines) = mpsc::unbounded_channel();
    let cmd = engine.pull(name).on_line(move |_, line| {
        // Nobody listens any more when the run was ended.
        drop(sender.send(line.trim().to_owned()));
    });
    context.tell(&Event::Program { command: cmd.to_string() });
    let mut last = VecDeque::new();
    let told = async {
        while let Some(line) = lines.recv().await {
            if line.is_empty() {
                continue;
            }
            context.tell(&Event::Progress { stage, item: line.clone(), bytes: 0, expected_bytes: None });
            last.push_back(line);
            while last.len() > LINES {
                last.pop_front();
            }
        }
    };
    let (fetched, ()) = tokio::join!(cmd.run(), told);
    let said = Vec::from(last).join("; ");
    let failed = || Lacking::NotFetched { image: name.to_owned(), engine: engine.name(), said: said.clone() };
    fetched.map_err(|_| failed())?;
    let image = look(engine, Some(name.to_owned())).await.ok_or_else(failed)?;
    watch.done(format!("image {name} is here"));
    Ok(image)
}

/// The environment without what an engine does not need: it holds passwords.
fn engine_env(env: &BTreeMap<OsString, OsString>) -> BTreeMap<OsString, OsString> {
    let is_its_own = |name: &OsString| {
        let name = name.to_string_lossy();
        !NOT_ITS_OWN.iter().any(|prefix| name.starts_with(prefix))
    };
    env.iter()
        .filter(|(name, _)| is_its_own(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_counts_where_the_settings_do_not_want_another_engine() {
        let local = Ran::Local { version: "17.6".to_owned() };
        let container =
            Ran::Container { engine: "podman".to_owned(), image: "i:1".to_owned(), id: "ab".to_owned() };
        let wish = |preference, image: Option<&str>| Wish {
            preference,
            image: image.map(str::to_owned),
            ..Wish::default()
        };
        let fits = |ran: &Ran, wish: &Wish| ran.unfit(wish).is_none();
        for preference in [Preference::Auto, Preference::Local] {
            assert!(fits(&local, &wish(preference, None)));
            assert!(fits(&container, &wish(preference, Some("i:2"))));
        }
        let insisting = |image| wish(Preference::Container, image);
        assert!(!fits(&local, &insisting(None)));
        assert!(fits(&container, &insisting(None)));
        assert!(fits(&container, &insisting(Some("i:1"))));
        assert!(!fits(&container, &insisting(Some("i:2"))));
        let staging = Ran::Staging { address: "s:5432".to_owned(), version: "17.6".to_owned() };
        assert!(fits(&staging, &wish(Preference::Auto, None)));
        assert!(!fits(&staging, &insisting(None)));
        assert!(fits(&staging, &wish(Preference::Staging, None)));
        assert!(!fits(&local, &wish(Preference::Staging, None)));
        assert!(!fits(&container, &wish(Preference::Staging, None)));
    }

    #[test]
    fn an_engine_gets_no_password() {
        let env =
            ["PATH", "HOME", "PGPASSWORD", "SUPABASE_DB_PASSWORD", "DOCKER_HOST", "AWS_SECRET_ACCESS_KEY"]
                .map(|name| (OsString::from(name), OsString::from("x")));
        let left: Vec<_> = engine_env(&env.into()).into_keys().collect();
        assert_eq!(left, ["DOCKER_HOST", "HOME", "PATH"]);
    }
}
