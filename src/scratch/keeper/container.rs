//! A server in a container without a network, reached over a socket in a folder that is closed to
//! everybody else. Programs that know no such sockets, as the Supabase CLI, come by a port of
//! 127.0.0.1, from which the keeper passes everything on.

use super::super::sweep::boot;
use super::super::{CONTAINER, Error, LOG, SHARED};
use super::{End, Place, Report, report};
use crate::disk;
use crate::postgres::connect;
use crate::proc::{self, Running};
use crate::scratch::fresh;
use crate::target::{Connection, Roots, SslMode};
pub(super) use crate::tools::container::Engine;
use crate::tools::container::{INSIDE, Image, Run};
use fs_err as fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// How long the server may take until it accepts connections: the entrypoint makes it first.
const READY_TIMEOUT: Duration = Duration::from_mins(3);
/// How often a starting server is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long the engine may take to notice that its container was removed.
const GRACE: Duration = Duration::from_secs(4);
/// The name of the socket.
const SOCKET: &str = ".s.PGSQL.5432";
/// How much is passed on at once.
const CHUNK: usize = 64 << 10;

/// Who may sign in: the image's own rules may ask for users of the container.
const ACCESS: &str = "local all all scram-sha-256\n";
const ACCESS_FILE: &str = "pg_hba.conf";
/// An empty folder.
const NOTHING: &str = "nothing";

/// Keeps a container.
pub(super) async fn keep(
    place: &Place,
    engine: &Engine,
    (image, args): (&Image, &[String]),
    end: &mut End,
) -> Result<(), Error> {
    let shared = prepare(place, engine).map_err(|source| place.folder_error(source))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|source| place.folder_error(source))?;
    let port = listener.local_addr().map_err(|source| place.folder_error(source))?.port();
    let folder = fs::File::open(&shared).map_err(|source| place.folder_error(source))?;
    let name = name(place);
    let settings = place.spec.settings(&settings());
    let server = engine
        .run(&Run {
            name: &name,
            image,
            dir: &place.dir,
            boot: &boot().map_err(|source| place.folder_error(source))?,
            shared: &shared,
            nothing: &place.dir.join(NOTHING),
            superuser: &place.spec.superuser,
            password: &place.spec.password,
            args,
            settings: &settings,
        })
        .log(place.dir.join(LOG))
        .start()?;
    let outcome = tokio::select! {
        outcome = serve(place, port, &server) => outcome,
        () = pass_on(listener, folder) => Ok(Served::Asked),
        () = end.asked() => Ok(Served::Asked),
    };
    // What is not there any more need not go; whether it is gone is looked at with the folder.
    drop(engine.remove(&name).run().await);
    let ended = tokio::time::timeout(GRACE, server.wait()).await;
    match (outcome?, ended) {
        (Served::Asked, _) | (_, Err(_)) => Ok(()),
        (_, Ok(Err(error))) => Err(error.into()),
        (Served::NotStarted, Ok(Ok(output))) => {
            Err(Error::NotStarted { ended: output.ended, tail: proc::indented_tail(&output.stderr) })
        }
        (Served::Died, Ok(Ok(output))) => {
            Err(Error::Died { ended: output.ended, tail: proc::indented_tail(&output.stderr) })
        }
    }
}

/// How a container that was kept ended.
enum Served {
    /// Somebody asked.
    Asked,
    /// It never accepted connections.
    NotStarted,
    /// By itself.
    Died,
}

/// The container is called as its folder is, so that whoever finds the folder finds it.
fn name(place: &Place) -> String {
    place.dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Makes the folder that the container sees. Others cannot come to it, and its server is another user.
fn prepare(place: &Place, engine: &Engine) -> io::Result<PathBuf> {
    let shared = place.dir.join(SHARED);
    disk::make_private_dir(&shared)?;
    let nothing = place.dir.join(NOTHING);
    disk::make_private_dir(&nothing)?;
    fs::set_permissions(&nothing, std::fs::Permissions::from_mode(0o755))?;
    let access = shared.join(ACCESS_FILE);
    disk::write(&access, ACCESS.as_bytes())?;
    fs::set_permissions(&access, std::fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o777))?;
    disk::write_json(&place.dir.join(CONTAINER), &engine.program)?;
    Ok(shared)
}

fn settings() -> [String; 5] {
    [
        "port=5432".to_owned(),
        format!("unix_socket_directories=/var/run/postgresql,{INSIDE}"),
        "unix_socket_permissions=0777".to_owned(),
        format!("hba_file={INSIDE}/{ACCESS_FILE}"),
        // The image's libraries are loaded, since extensions ask for them, but none gets a process to
        // act in by itself: no job runs, and no request is sent.
        "max_worker_processes=0".to_owned(),
    ]
}

/// Waits until the server serves, reports it, and waits until it ends.
async fn serve(place: &Place, port: u16, server: &Running) -> Result<Served, Error> {
    let came_up = tokio::time::timeout(READY_TIMEOUT, came_up(place, port, server)).await;
    if !came_up.map_err(|_| Error::NotReady(READY_TIMEOUT))?? {
        return Ok(Served::NotStarted);
    }
    report(&Report::Ready { dir: place.dir.clone(), port });
    while server.try_wait()?.is_none() {
        tokio::time::sleep(LOOK).await;
    }
    Ok(Served::Died)
}

async fn came_up(place: &Place, port: u16, server: &Running) -> Result<bool, Error> {
    let socket = place.dir.join(SHARED).join(SOCKET);
    loop {
        if server.try_wait()?.is_some() {
            return Ok(false);
        }
        if socket.exists() && is_serving(place, port).await {
            return Ok(true);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the server answers that it serves; one that is about to be restarted does not.
async fn is_serving(place: &Place, port: u16) -> bool {
    let connection = Connection {
        host: "127.0.0.1".to_owned(),
        port,
        user: place.spec.superuser.clone(),
        password: Some(place.spec.password.clone()),
        lease: None,
        database: "template1".to_owned(),
        ssl_mode: SslMode::Disable,
        roots: Roots::System,
        ignored: Vec::new(),
    };
    let Ok(session) = connect::read_only(&connection).await else { return false };
    let is_serving = matches!(fresh::serving_major(&session.client).await, Ok(Some(_)));
    session.close().await;
    is_serving
}

/// Passes every connection on to the socket, for ever.
async fn pass_on(listener: TcpListener, folder: fs::File) {
    // The path of a socket is short, and that of the folder may not be.
    let folder = Arc::new(folder);
    let socket = Arc::new(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    loop {
        let Ok((near, _)) = listener.accept().await else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let (socket, folder) = (Arc::clone(&socket), Arc::clone(&folder));
        tokio::spawn(async move {
            // Either side tells its own program when it is cut off.
            drop(pass_one_on(near, &socket).await);
            drop(folder);
        });
    }
}

async fn pass_one_on(mut near: TcpStream, socket: &str) -> io::Result<()> {
    near.set_nodelay(true)?;
    let mut far = UnixStream::connect(socket).await?;
    copy_bidirectional_with_sizes(&mut near, &mut far, CHUNK, CHUNK).await.map(drop)
}
