//! A throwaway Postgres under a keeper.
//!
//! The server is a child of a keeper, which is our own program in a process of its own. The keeper
//! waits on a pipe whose other end only the starter holds: when the starter ends, however it ends,
//! the keeper stops the server and removes the folder, which it made itself. A keeper that was
//! killed leaves a folder whose lock nobody holds; [`sweep()`] ends and removes what is in it.
//!
//! The server runs on programs of this machine or in a container. It is inert: it listens on 127.0.0.1
//! only, no library acts by itself, and its settings stand on its command line, where `alter system` in
//! a dump or a migration does not reach them. A server that the person gives has no keeper: [`staging`].

pub mod engine;
mod fresh;
mod keeper;
pub mod staging;
mod sweep;

pub use engine::Engine;
pub use keeper::keeper_main;
pub use sweep::{Swept, leftovers, sweep};

use crate::postgres::connect;
use crate::proc::{self, Cmd, Ended, Running, Signal, Stream, User};
use crate::secret::Secret;
use crate::target::{Connection, Roots, SslMode, Staging};
use crate::tools::installs::Installation;
use engine::Container;
use fs_err as fs;
use keeper::{Report, Spec};
use staging::Held;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// How the name of a scratch folder starts.
const PREFIX: &str = "supa-safe-scratch-";
/// Held by the keeper as long as it lives.
const KEEPER_LOCK: &str = "keeper.lock";
/// The data folder of the server.
const DATA: &str = "data";
/// The bootstrap role's password; it is there until initdb has read it.
const PASSWORD: &str = "password";
/// What the server says.
const LOG: &str = "server.log";
/// Which engine runs the container that is called as the folder is.
const CONTAINER: &str = "container.json";
/// The folder that a container sees.
const SHARED: &str = "shared";

/// How long a keeper may take to stop its server; longer than the server's own bound.
const KEEPER_GRACE: Duration = Duration::from_secs(20);
/// How often a running keeper is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What can go wrong with a scratch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres does not run as root, and this machine has no user for it.
    #[error(
        "Postgres does not run as root, and this machine has no user `postgres` or `nobody` to run it as"
    )]
    NoUser,
    /// The user of the server cannot go where it must.
    #[error("user `{user}` cannot enter `{}`, on the way to {what} `{}`", .blocked.display(), .path.display())]
    NotTraversable {
        /// The user that the server runs as.
        user: String,
        /// The folder that is closed to it.
        blocked: PathBuf,
        /// What stands behind it.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// The folder could not be made ready.
    #[error("cannot prepare a scratch folder in `{}`", .base_dir.display())]
    Folder {
        /// Where scratch folders are made.
        base_dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No password could be made.
    #[error("cannot read random bytes for the password of the scratch")]
    Random(#[source] io::Error),
    /// The keeper was not told what to keep, or cannot listen to its starter.
    #[error("the keeper of a scratch is started by `supa-safe` itself, which tells it what to keep")]
    NotTold(#[source] io::Error),
    /// A program could not be run.
    #[error("the scratch failed")]
    Program(#[from] proc::Error),
    /// The server did not come up.
    #[error("the scratch server did not start: it {ended}{tail}")]
    NotStarted {
        /// How it ended.
        ended: Ended,
        /// The last lines of its log, indented.
        tail: String,
    },
    /// The server was not ready in time.
    #[error("the scratch server was not ready within {} s", .0.as_secs())]
    NotReady(Duration),
    /// The server ended although nobody asked it to.
    #[error("the scratch server ended by itself: it {ended}{tail}")]
    Died {
        /// How it ended.
        ended: Ended,
        /// The last lines of its log, indented.
        tail: String,
    },
    /// What the keeper reported.
    #[error("{0}")]
    Reported(String),
    /// The keeper ended without a report.
    #[error("the keeper of the scratch {0} without a report")]
    KeeperLost(Ended),
    /// The server of an image could not be emptied.
    #[error("the server in the container cannot be made ready")]
    Connect(#[from] connect::Error),
    /// The same.
    #[error("the server in the container cannot be made empty")]
    NotEmpty(#[from] fresh::Error),
    /// The image is of another major version.
    #[error("image `{image}` has Postgres {found}, and the target has Postgres {wanted}")]
    OtherMajor {
        /// The image.
        image: String,
        /// Its major version.
        found: u32,
        /// The target's.
        wanted: u32,
    },
    /// The server that the person gave cannot be used.
    #[error(transparent)]
    Staging(#[from] staging::Error),
    /// It does not answer any more.
    #[error("the staging server is gone")]
    StagingGone(#[source] connect::Error),
    /// The keeper could not be told to go on.
    #[error("cannot tell the keeper of the scratch to go on without us")]
    NotKept(#[source] io::Error),
    /// The folder could not be removed.
    #[error("cannot remove the scratch folder `{}`", .dir.display())]
    NotRemoved {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What to do about a container that did not come up.
    pub fn hint(&self) -> String {
        match self {
            Self::OtherMajor { wanted, .. } => format!(
                "Name an image of Postgres {wanted} in the line `image` under [rehearse] in supabase/supa-safe.toml, or take that line out: then one is chosen by the target's version"
            ),
            _ => "Correct what the engine says, with `container_args` under [rehearse] in supabase/supa-safe.toml where it wants other arguments".to_owned(),
        }
    }
}

/// What a scratch is to be like.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the server runs on.
    pub engine: Engine,
    /// Name of the bootstrap role.
    pub superuser: String,
    /// The target's `max_connections`.
    pub max_connections: u32,
    /// The target's `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// Our own program.
    pub keeper: PathBuf,
    /// Where the folder is made.
    pub base_dir: PathBuf,
    /// Who runs programs of this machine; must be given when we are root.
    pub run_as: Option<User>,
}

/// A running server that a copy can stand in.
#[derive(Debug)]
pub struct Scratch {
    ground: Ground,
    /// As its bootstrap role.
    owner: Connection,
}

/// What a scratch stands on.
#[derive(Debug)]
enum Ground {
    /// A server under a keeper. Dropping it stops the server and removes its folder.
    Own(Box<Own>),
    /// A server of the person's. What is dropped here leaves it as it is, held by nobody.
    Given(Box<Held>),
}

/// A server under a keeper.
#[derive(Debug)]
struct Own {
    // Dropped before `keeper`, so that the keeper begins to stop before anybody waits for it.
    pipe: io::PipeWriter,
    keeper: Running,
    words: Words,
    dir: PathBuf,
    container: Option<Container>,
}

/// A scratch that goes on without us.
#[derive(Clone, Debug)]
pub struct Kept {
    /// How to reach it as its superuser; the password is known to nobody else.
    pub connection: Connection,
    /// Its folder, which is removed when it is stopped.
    pub dir: PathBuf,
    /// The process to send SIGTERM to when it is not wanted any more.
    pub keeper_pid: u32,
}

/// Starts a server with nothing in it but the bootstrap role, and waits until it accepts connections.
pub async fn start(wanted: Wanted) -> Result<Scratch, Error> {
    let folder_error = |source| Error::Folder { base_dir: wanted.base_dir.clone(), source };
    let base_dir = fs::canonicalize(&wanted.base_dir).map_err(folder_error)?;
    match (&wanted.engine, &wanted.run_as) {
        (Engine::Local(installation), Some(user)) => check_way(user, &base_dir, installation).await?,
        (Engine::Local(_), None) if rustix::process::geteuid().is_root() => return Err(Error::NoUser),
        (Engine::Local(_), None) | (Engine::Container(_), _) => {}
    }
    let container = match &wanted.engine {
        Engine::Local(_) => None,
        Engine::Container(container) => Some(container.clone()),
    };
    let password = random_password().map_err(Error::Random)?;
    let order = Spec::new(&base_dir, &wanted, password.clone()).line()?;
    let (sender, lines) = mpsc::unbounded_channel();
    let mut words = Words { lines, failure: None };
    let (keeper, mut pipe) = Cmd::new(&wanted.keeper)
        .arg("keep-scratch")
        .env_base(&engine_env(container.as_ref()))
        .dir("/")
        .masking(&password)
        .stop_by(Signal::TERM, KEEPER_GRACE)
        .on_line(move |stream, line| {
            if stream == Stream::Stdout {
                // Nobody listens any more when the scratch is being dropped.
                drop(sender.send(line.to_owned()));
            }
        })
        .start_held()?;
    // A keeper that does not read has ended, and what it said is worth more than a broken pipe.
    drop(pipe.write_all(order.as_bytes()));
    let (dir, port) = match words.next().await {
        Some(Report::Ready { dir, port }) => (dir, port),
        Some(Report::Failed { message }) => return Err(Error::Reported(message)),
        None => return Err(lost(keeper).await),
    };
    let owner = Connection {
        host: "127.0.0.1".to_owned(),
        port,
        user: wanted.superuser,
        password: Some(password),
        lease: None,
        database: "template1".to_owned(),
        ssl_mode: SslMode::Disable,
        roots: Roots::System,
        ignored: Vec::new(),
    };
    let own = Own { pipe, keeper, words, dir, container: container.clone() };
    let scratch = Scratch { ground: Ground::Own(Box::new(own)), owner };
    if let Some(container) = &container {
        scratch.make_empty(container).await?;
    }
    Ok(scratch)
}

/// Empties a server that the person gives, and holds it; its folder for lists is made in `base_dir`.
pub async fn borrow(staging: &Staging, base_dir: &Path) -> Result<Scratch, Error> {
    let (held, owner) = Box::pin(staging::begin(staging, base_dir)).await?;
    Ok(Scratch { ground: Ground::Given(Box::new(held)), owner })
}

/// What the engine of a container gets; a keeper of programs gets nothing.
fn engine_env(container: Option<&Container>) -> BTreeMap<OsString, OsString> {
    container.map(|container| container.engine.env.clone()).unwrap_or_default()
}

async fn lost(keeper: Running) -> Error {
    match keeper.wait().await {
        Ok(output) if output.stderr.trim().is_empty() => Error::KeeperLost(output.ended),
        Ok(output) => Error::Reported(format!(
            "the keeper of the scratch {}{}",
            output.ended,
            proc::indented_tail(&output.stderr)
        )),
        Err(error) => Error::Program(error),
    }
}

impl Scratch {
    /// Makes the server of an image, which may hold roles and schemas of its own, one as `initdb` makes it.
    async fn make_empty(&self, container: &Container) -> Result<(), Error> {
        let session = connect::writable(&self.superuser_connection("template1")).await?;
        let found =
            fresh::serving_major(&session.client).await.map_err(fresh::Error::from)?.unwrap_or_default();
        if found != container.major {
            let image = container.image.name.clone();
            return Err(Error::OtherMajor { image, found, wanted: container.major });
        }
        fresh::empty(&session.client, &self.superuser_connection("template1"), None).await?;
        session.close().await;
        Ok(())
    }

    /// How to reach a database in it.
    pub fn connection(&self, user: &str, database: &str, password: Option<Secret>) -> Connection {
        let (user, database) = (user.to_owned(), database.to_owned());
        Connection { user, password, database, ..self.owner.clone() }
    }

    /// How to reach a database in it as the bootstrap role.
    pub fn superuser_connection(&self, database: &str) -> Connection {
        Connection { database: database.to_owned(), ..self.owner.clone() }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.owner.port
    }

    /// A folder for what belongs to it; that of a server under a keeper and of its log.
    pub fn dir(&self) -> &Path {
        match &self.ground {
            Ground::Own(own) => &own.dir,
            Ground::Given(held) => held.dir(),
        }
    }

    /// What it is not as the target, for people.
    pub fn limits(&self) -> &[String] {
        match &self.ground {
            Ground::Own(_) => &[],
            Ground::Given(held) => &held.limits,
        }
    }

    /// What was removed from it that a killed run had left, for people.
    pub fn removed(&self) -> Option<&str> {
        match &self.ground {
            Ground::Own(_) => None,
            Ground::Given(held) => held.left.as_deref(),
        }
    }

    /// Why the server is gone, if it is. Asked when work in it failed: a server that died shows as a lost
    /// connection, and no statement is at fault then.
    pub async fn died(&mut self) -> Option<Error> {
        if let Ground::Given(held) = &self.ground
            && let Some(error) = held.lost().await
        {
            return Some(Error::StagingGone(error));
        }
        match connect::read_only(&self.superuser_connection("template1")).await {
            Ok(session) => {
                session.close().await;
                None
            }
            Err(error) => match &mut self.ground {
                Ground::Own(own) => tokio::time::timeout(KEEPER_GRACE, own.ended()).await.ok(),
                Ground::Given(_) => Some(Error::StagingGone(error)),
            },
        }
    }

    /// Waits until the scratch ends by itself, and says why; may be dropped and called again. A server of
    /// the person's is not watched.
    pub async fn ended(&mut self) -> Error {
        match &mut self.ground {
            Ground::Own(own) => own.ended().await,
            Ground::Given(_) => std::future::pending().await,
        }
    }

    /// Stops the server and removes its folder, with an error when it had ended before; one of the person's
    /// is emptied.
    pub async fn stop(self) -> Result<(), Error> {
        match self.ground {
            Ground::Own(own) => own.stop().await,
            Ground::Given(held) => Ok(Box::pin(staging::end(*held)).await?),
        }
    }

    /// Leaves the server running after us.
    pub fn keep(self) -> Result<Kept, Error> {
        let connection = self.superuser_connection("postgres");
        match self.ground {
            Ground::Own(own) => own.keep(connection),
            Ground::Given(_) => Err(Error::NotKept(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl Own {
    async fn ended(&mut self) -> Error {
        loop {
            match self.keeper.try_wait() {
                Err(error) => return Error::Program(error),
                Ok(None) => tokio::time::sleep(LOOK).await,
                Ok(Some(ended)) => return self.words.last(ended).await,
            }
        }
    }

    async fn stop(self) -> Result<(), Error> {
        let Self { pipe, keeper, mut words, dir, container } = self;
        drop(pipe);
        // In the worst case the keeper is dropped here, and killed.
        let ended = tokio::time::timeout(KEEPER_GRACE, keeper.wait()).await;
        // A keeper that was killed has left everything as it was.
        if dir.exists() {
            sweep::clean(&dir, &engine_env(container.as_ref()))
                .await
                .map_err(|source| Error::NotRemoved { dir, source })?;
        }
        match ended {
            Ok(Ok(output)) if !output.ended.is_success() => Err(words.last(output.ended).await),
            Ok(Err(error)) => Err(Error::Program(error)),
            _ => Ok(()),
        }
    }

    fn keep(mut self, connection: Connection) -> Result<Kept, Error> {
        if let Some(ended) = self.keeper.try_wait()? {
            return Err(Error::KeeperLost(ended));
        }
        self.pipe.write_all(b"keep\n").map_err(Error::NotKept)?;
        let keeper_pid = self.keeper.pid().unwrap_or_default();
        self.keeper.detach();
        Ok(Kept { connection, dir: self.dir, keeper_pid })
    }
}

/// What the keeper says.
#[derive(Debug)]
struct Words {
    lines: mpsc::UnboundedReceiver<String>,
    failure: Option<String>,
}

impl Words {
    /// The next report, or `None` at the end of the keeper's output.
    async fn next(&mut self) -> Option<Report> {
        while let Some(line) = self.lines.recv().await {
            if let Ok(report) = serde_json::from_str(&line) {
                return Some(report);
            }
        }
        None
    }

    /// Why a keeper ended by itself; the same whenever it is asked.
    async fn last(&mut self, ended: Ended) -> Error {
        if let Some(Report::Failed { message }) = self.next().await {
            self.failure = Some(message);
        }
        self.failure.clone().map_or(Error::KeeperLost(ended), Error::Reported)
    }
}

/// The user to run servers as when we are root: `postgres`, else `nobody`.
pub fn unprivileged_user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].into_iter().find_map(|name| user_in(&passwd, name))
}

fn user_in(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let &[found, _, uid, gid, ..] = fields.as_slice() else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (found == name && uid != 0).then(|| User { name: name.to_owned(), uid, gid })
    })
}

/// A password that nobody knows: 48 random hex digits.
pub fn random_password() -> io::Result<Secret> {
    Ok(Secret::new(hex::encode(crate::disk::random::<24>()?)))
}

/// Proves that the user can run the programs and enter the folder, by doing it once.
async fn check_way(user: &User, base_dir: &Path, installation: &Installation) -> Result<(), Error> {
    let initdb = Cmd::new(installation.program("initdb")).arg("--version");
    let tried = initdb.dir(base_dir).as_user(Some(user.clone())).run().await;
    let Err(error) = tried else { return Ok(()) };
    let is_denied = matches!(&error, proc::Error::Start { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    let closed = |what, path: &Path| {
        let blocked = blocked_at(path, user)?;
        Some(Error::NotTraversable { user: user.name.clone(), blocked, what, path: path.to_owned() })
    };
    let found = is_denied.then(|| {
        closed("the Postgres programs in", &installation.bin_dir)
            .or_else(|| closed("the folder for scratches", base_dir))
    });
    Err(found.flatten().unwrap_or(Error::Program(error)))
}

/// The first folder on the way to a path that its mode closes to a user.
fn blocked_at(path: &Path, user: &User) -> Option<PathBuf> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way.into_iter()
        .find(|folder| fs::metadata(folder).is_ok_and(|meta| !may_enter(&meta, user)))
        .map(Path::to_owned)
}

fn may_enter(meta: &std::fs::Metadata, user: &User) -> bool {
    let shift = if meta.uid() == user.uid {
        6
    } else if meta.gid() == user.gid {
        3
    } else {
        0
    };
    (meta.mode() >> shift) & 1 == 1
}
