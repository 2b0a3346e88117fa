//! The platform's side of a linked project: the stub of the Management API, known to a world.

use super::World;
use supa_safe::demo::cloud::{PROFILE_VARIABLE, Project, Stub, TOKEN_VARIABLE};
use tokio::runtime::Runtime;

/// Project refs whose direct hosts lead to Postgres 15 and 17 (see `tests/run`).
pub(crate) const REF_15: &str = "aaaaaaaaaaaaaaaaaaaa";
pub(crate) const REF_17: &str = "bbbbbbbbbbbbbbbbbbbb";

/// A stub that runs as long as this stands.
pub(crate) struct Platform {
    pub(crate) stub: Stub,
    runtime: Runtime,
}

impl Platform {
    /// Starts a stub with these projects and leads every program of the world to it.
    pub(crate) fn start(world: &mut World, projects: Vec<Project>) -> Self {
        let runtime = Runtime::new().unwrap();
        let stub = runtime.block_on(Stub::start(&world.path(""), projects)).unwrap();
        world.set(PROFILE_VARIABLE, stub.profile());
        world.set(TOKEN_VARIABLE, stub.token().expose());
        Self { stub, runtime }
    }

    /// Runs something of the library to its end.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Demands that the stub knew every call.
    #[track_caller]
    pub(crate) fn knew_every_call(&self) {
        assert_eq!(self.stub.unknown_calls(), [""; 0]);
    }
}
