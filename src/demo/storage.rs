//! A double of Supabase Storage: our own server over the rows of a real database and a folder of
//! bytes, with the habits of supabase/storage 1.11.2 as they were measured on it.
//!
//! Rows decide listings and HEAD, bytes decide GET. Signatures are checked over the whole path.
//! What was begun is finished, whether or not the client is still there.
//! A call that it was not told of is answered with 501 and written down.

mod base64;
mod bytes;
mod faults;
mod keys;
mod multipart;
mod reply;
mod rest;
mod routes;
mod rows;
mod sigv4;
mod xml;

pub use bytes::put_etag;
pub use faults::{Fault, Kind, Operation};
pub use keys::Keys;

use crate::postgres::connect::{self, Session};
use crate::secret::Secret;
use crate::target::Connection;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use reply::Body;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The path below which everything of Storage stands.
const BASE: &str = "/storage/v1";

/// Why the double does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session on the database.
    #[error("the Storage double cannot reach its database")]
    Connect(#[from] connect::Error),
    /// A statement failed.
    #[error("the Storage double's database refused a statement")]
    Query(#[from] tokio_postgres::Error),
    /// No port, or no folder.
    #[error("the Storage double cannot listen or write")]
    Io(#[from] io::Error),
}

/// What a double is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A role that owns, or may do everything with, the tables of schema `storage`.
    pub connection: Connection,
    /// Where bytes are kept.
    pub folder: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// The project's ref.
    pub project_ref: String,
    /// The region of the project.
    pub region: String,
}

/// What was asked for, by count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Pages of listings.
    pub lists: u64,
    /// Bodies of objects.
    pub gets: u64,
    /// Objects written.
    pub puts: u64,
    /// Objects moved.
    pub moves: u64,
    /// Objects removed.
    pub deletes: u64,
}

/// A double that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Double {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

/// What every request sees.
#[derive(Debug)]
struct State {
    session: Session,
    folder: PathBuf,
    keys: Keys,
    region: String,
    faults: Mutex<Vec<Fault>>,
    served: Mutex<Served>,
    unknown: Mutex<Vec<String>>,
    parts: Mutex<multipart::Parts>,
    etags: Mutex<BTreeMap<PathBuf, String>>,
    busy: AtomicU64,
}

impl Double {
    /// Starts a double with keys of its own.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let session = connect::writable(&settings.connection).await?;
        // What the server's own connections are set to.
        session.client.batch_execute("set storage.allow_delete_query = 'true'; set timezone = 'UTC'").await?;
        crate::disk::make_private_dir(&settings.folder)?;
        let listener = TcpListener::bind(settings.address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            session,
            folder: settings.folder,
            keys: Keys::new(&settings.project_ref)?,
            region: settings.region,
            faults: Mutex::default(),
            served: Mutex::default(),
            unknown: Mutex::default(),
            parts: Mutex::default(),
            etags: Mutex::default(),
            busy: AtomicU64::default(),
        });
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, state, task })
    }

    /// Ends it, and waits until nothing listens any more.
    pub async fn stop(mut self) {
        self.task.abort();
        // It was told to end: how it ended says nothing.
        drop((&mut self.task).await);
    }

    /// The address of everything below `/storage/v1`.
    pub fn url(&self) -> String {
        format!("http://{}{BASE}", self.address)
    }

    /// The S3 endpoint as the dashboard shows it.
    pub fn endpoint(&self) -> String {
        format!("{}/s3", self.url())
    }

    /// The keys that it accepts.
    pub fn keys(&self) -> &Keys {
        &self.state.keys
    }

    /// A JWT of a role other than the service role: it signs in, and sees no row.
    pub fn user_token(&self) -> Secret {
        self.state.keys.token("authenticated")
    }

    /// Makes the next requests go wrong.
    pub fn spoil(&self, fault: Fault) {
        lock(&self.state.faults).push(fault);
    }

    /// What was asked for so far.
    pub fn served(&self) -> Served {
        *lock(&self.state.served)
    }

    /// Whether no request is being answered, those of clients that went away included.
    pub fn is_idle(&self) -> bool {
        self.state.busy.load(Ordering::SeqCst) == 0
    }

    /// Calls that it was not told of.
    pub fn unknown_calls(&self) -> Vec<String> {
        lock(&self.state.unknown).clone()
    }

    /// The files of bytes that a row names, and those that none does.
    pub async fn files(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Error> {
        let named = rows::files(&self.state).await?;
        let all = crate::disk::files_below(&self.state.folder)?;
        Ok(all.into_iter().map(|file| self.state.folder.join(file)).partition(|file| named.contains(file)))
    }

    /// Stores an object as an upload with the service key does, without the way through HTTP.
    pub async fn put(&self, bucket: &str, key: &str, bytes: &[u8]) -> Result<String, Error> {
        let upload = rows::Upload { bucket, key, ..rows::Upload::default() };
        rows::store(&self.state, &upload, bytes).await
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // Without it the body waits for the acknowledgement of its headers.
        drop(stream.set_nodelay(true));
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let state = Arc::clone(&state);
                state.busy.fetch_add(1, Ordering::SeqCst);
                let answered = tokio::spawn(async move {
                    let answer = routes::answer(&state, request).await;
                    state.busy.fetch_sub(1, Ordering::SeqCst);
                    answer
                });
                async move {
                    let failed = |_| reply::reply(500, "text/plain", "the answer was lost");
                    Ok::<Response<Body>, Infallible>(answered.await.unwrap_or_else(failed))
                }
            });
            // A client that went away has nobody to tell.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}
