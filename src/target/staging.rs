//! A server that a person gives to rehearsals.

use super::{Connection, Target};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A server that a person gives to rehearsals, and the target that it must not be.
#[derive(Clone, Debug)]
pub struct Staging {
    /// How to reach it as its owner, in `template1`: the one database that no rehearsal makes or drops.
    pub connection: Connection,
    /// What is rehearsed for.
    pub target: Target,
    /// What this run signs its work there with: nobody else knows it.
    pub token: String,
    in_use: Arc<AtomicBool>,
}

impl Staging {
    /// A server by its connection; the database that its URL names has no meaning.
    pub fn new(connection: Connection, target: Target, token: String) -> Self {
        let connection = Connection { database: "template1".to_owned(), ..connection };
        Self { connection, target, token, in_use: Arc::default() }
    }

    /// The database of a copy: a migration may name it, so it is called as the target's.
    pub fn database(&self) -> &str {
        &self.target.connection.database
    }

    /// Whether this run has put something into it that is not removed yet.
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::SeqCst)
    }

    /// Notes that something is about to be put into it, or that nothing is left.
    pub fn set_in_use(&self, in_use: bool) {
        self.in_use.store(in_use, Ordering::SeqCst);
    }
}
