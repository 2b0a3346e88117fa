//! A stub of Supabase's Management API on loopback, which the real CLI is led to by a profile file.
//!
//! It answers what the CLI asks about the projects that it was told of, in the shapes of the API's
//! public description, and checks the token. A call that it was not told of gets 501 and is
//! remembered, so that a test can demand that there was none.

mod answer;
mod project;

pub use project::{
    Backup, Backups, Branch, Function, LoginRole, MakeRole, Part, Project, RestorePoint, StoredSecret,
};

use crate::disk;
use crate::secret::Secret;
use answer::Answer;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The variable that names the profile file to the CLI.
pub const PROFILE_VARIABLE: &str = "SUPABASE_PROFILE";
/// The variable that holds the token for the CLI.
pub const TOKEN_VARIABLE: &str = "SUPABASE_ACCESS_TOKEN";

/// The stub, as long as it runs. Dropping it closes its port.
#[derive(Debug)]
pub struct Stub {
    address: SocketAddr,
    profile: PathBuf,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

/// What the stub knows and has seen.
struct State {
    token: Secret,
    projects: Vec<Project>,
    calls: Vec<String>,
    unknown: Vec<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State({} projects, {} calls)", self.projects.len(), self.calls.len())
    }
}

impl Stub {
    /// Starts the stub on a free port, and writes the profile into a folder.
    pub async fn start(folder: &Path, projects: Vec<Project>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let profile = folder.join("profile.yaml");
        disk::write(&profile, profile_text(address).as_bytes())?;
        let token = Secret::new(format!("sbp_{}", hex::encode(disk::random::<20>()?)));
        let state = State { token, projects, calls: Vec::new(), unknown: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(Self { address, profile, state, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The profile file, for [`PROFILE_VARIABLE`].
    pub fn profile(&self) -> &Path {
        &self.profile
    }

    /// The only token that is accepted, for [`TOKEN_VARIABLE`].
    pub fn token(&self) -> Secret {
        self.lock().token.clone()
    }

    /// Every call, in order, as `GET /v1/projects`.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Calls that the stub has no answer for.
    pub fn unknown_calls(&self) -> Vec<String> {
        self.lock().unknown.clone()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    /// Changes what is deployed; a project that is not there is left alone.
    pub fn change(&self, project_ref: &str, change: impl FnOnce(&mut Project)) {
        let mut state = self.lock();
        if let Some(project) = state.projects.iter_mut().find(|one| one.project_ref == project_ref) {
            change(project);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A profile as the CLI reads it: `name`, `api_url`, `dashboard_url`, and `project_host` are required.
fn profile_text(address: SocketAddr) -> String {
    format!(
        "name: stub\napi_url: http://{address}\ndashboard_url: http://{address}\n\
         project_host: supabase.co\npooler_host: supabase.com\n"
    )
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(stream, Arc::clone(&state)));
    }
}

async fn connection(stream: TcpStream, state: Arc<Mutex<State>>) {
    let service = service_fn(move |request| respond(request, Arc::clone(&state)));
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A client that goes away in the middle is its own affair.
    drop(served.await);
}

async fn respond(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A body that breaks off answers like an empty one: with an error of the API.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let bearer = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let call = format!("{} {}", head.method, head.uri);
    let (answer, make_role) = {
        let mut state = lock(&state);
        state.calls.push(call.clone());
        let expected = format!("Bearer {}", state.token.expose());
        if bearer == Some(expected.as_str()) {
            let answer = answer::answer(&mut state.projects, &head.method, head.uri.path(), &body);
            if answer.is_unknown() {
                state.unknown.push(call);
            }
            answer
        } else {
            Answer::unauthorized()
        }
    }
    .take_role();
    let answer = match make_role {
        None => answer,
        // It may ask a database, and the lock must not be held meanwhile.
        Some(make) => match tokio::task::spawn_blocking(move || make()).await {
            Ok(role) => Answer::of_role(&role),
            Err(_) => Answer::message(500, "Failed to create login role"),
        },
    };
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, answer.content_type);
    Ok(response)
}
