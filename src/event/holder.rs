//! A session that others wait for.

use serde::Serialize;
use std::fmt;

/// A session on the target that is in somebody's way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Holder {
    /// Its backend; 0 is a prepared transaction.
    pub pid: i32,
    /// Its role.
    pub user: String,
    /// The name that its program gives itself.
    pub application: String,
    /// What it does, in the server's words, such as `idle in transaction`.
    pub state: String,
    /// Seconds since its transaction began.
    pub seconds: i64,
    /// Its last statement, without literals and comments.
    pub query: String,
}

impl Holder {
    /// The statement that ends it.
    pub fn end_with(&self) -> String {
        match (self.pid, self.state.as_str()) {
            (0, _) => "rollback prepared '…' -- select * from pg_prepared_xacts".to_owned(),
            (pid, "active") => format!("select pg_cancel_backend({pid})"),
            (pid, _) => format!("select pg_terminate_backend({pid})"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("a prepared transaction");
        }
        let Self { pid, user, application, state, seconds, query } = self;
        write!(f, "backend {pid} (`{application}` as {user}, {state}, since {seconds} s): `{query}`")
    }
}
