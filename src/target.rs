//! Which database a run is about: the connection, what kind of endpoint it is, and its identity.
//!
//! One parser serves our own sessions and the environment of the tools, so that both always mean
//! the same server.

mod connection;
mod lease;
mod link;
mod profile;
mod project;
mod staging;

pub use connection::{Connection, Defaults, EndpointKind, Error, Roots, SslMode};
pub use lease::{Lease, Renewed};
pub use link::{Link, Named, PoolerError, pooler_host};
pub use profile::{Profile, ProfileError};
pub use project::{BadRef, Project, ProjectRef, is_project_ref};
pub use staging::Staging;

use serde::{Deserialize, Serialize};

/// The two roots of the platform's servers, which no public store holds: "Supabase Root 2021 CA",
/// valid to 2031 (SHA-256 `807025ad…e6cafa`) and to 2035 (`5f9b7795…2c9ae2`). The CLI carries the
/// same two (2.122.1 and 3.1.0), and the dashboard gives them out under Database settings.
pub const SUPABASE_ROOTS: &str = include_str!("target/supabase-roots.pem");

/// What makes a database this database and no other (DESIGN 3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Project ref, or `host:port/database`.
    pub name: String,
    /// `pg_control_system().system_identifier`; a physical clone shares it with its origin.
    pub system_identifier: String,
    /// Object id of the database in its cluster.
    pub database_oid: u32,
    /// Timeline of the cluster.
    pub timeline: u32,
}

impl Identity {
    /// What differs between two identities, for a person; empty when they are the same database.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, left: &str, right: &str| {
            if left != right {
                found.push(format!("{what} {left} is not {right}"));
            }
        };
        compare("target", &self.name, &other.name);
        compare("system identifier", &self.system_identifier, &other.system_identifier);
        compare("database oid", &self.database_oid.to_string(), &other.database_oid.to_string());
        compare("timeline", &self.timeline.to_string(), &other.timeline.to_string());
        found
    }
}

/// A resolved and pinned target.
#[derive(Clone, Debug)]
pub struct Target {
    /// How to reach it.
    pub connection: Connection,
    /// The project that it is the database of, when that is known.
    pub project: Option<Project>,
    /// What kind of endpoint it is.
    pub kind: EndpointKind,
    /// What it is.
    pub identity: Identity,
    /// What was learned of its server.
    pub server: Server,
}

/// What a target's server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `server_version_num`, such as 170010.
    pub version_num: u32,
    /// Whether the session was encrypted.
    pub tls: bool,
    /// The role of object id 10: the owner of the cluster, `supabase_admin` on the platform.
    pub bootstrap_role: String,
    /// Whether the platform's `supautils` extension is loaded.
    pub supautils: bool,
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// Character encoding of the database.
    pub encoding: String,
    /// Its `datcollate`.
    pub collation: String,
}

impl Server {
    /// The major version, such as 17.
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// The version for people, such as `17.10`.
    pub fn version(&self) -> String {
        format!("{}.{}", self.major(), self.version_num % 10_000)
    }
}

impl Target {
    /// The name a person confirms with, and the first word of every run.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Its names in the policy: the one that a person confirms, the ref, and those of its `[remotes.*]`.
    pub fn names(&self) -> Vec<&str> {
        let others = self.project.iter().flat_map(|project| {
            std::iter::once(project.project_ref.as_str()).chain(project.remotes.iter().map(String::as_str))
        });
        std::iter::once(self.name()).chain(others).collect()
    }

    /// The project ref, when there is one.
    pub fn project_ref(&self) -> Option<&ProjectRef> {
        self.project.as_ref().map(|project| &project.project_ref)
    }

    /// The TLS mode for the Supabase CLI: what our own session really got, never less. What the
    /// server says of it is about a pooler's session where there is one between.
    pub fn cli_ssl_mode(&self) -> SslMode {
        match (self.server.tls, self.connection.ssl_mode) {
            (false, SslMode::Disable | SslMode::Prefer) => SslMode::Disable,
            (_, mode) => mode.max(SslMode::Require),
        }
    }

    /// The folder of this target's evidence below the state folder.
    pub fn folder(&self) -> String {
        folder_name(self.name())
    }
}
/// A target's name as a folder name: everything but letters, digits, `.`, and `-` becomes `_`,
/// and a name that was changed in a way that could meet another one gets its digest behind it.
pub fn folder_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' };
    let escaped: String = name.chars().map(plain).collect();
    let harmless = name.chars().all(|c| c.is_ascii_alphanumeric() || ".-:/".contains(c));
    if harmless { escaped } else { format!("{escaped}-{}", &crate::disk::sha256(name.as_bytes())[..8]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roots_of_the_platform_are_two_certificates() {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let roots: Vec<String> = CertificateDer::pem_slice_iter(SUPABASE_ROOTS.as_bytes())
            .map(|certificate| crate::disk::sha256(&certificate.unwrap()))
            .collect();
        assert_eq!(
            roots,
            [
                "807025ad50d4ed219d2c9c7d299c004f824eb00cf7f65afef607d07b72e6cafa",
                "5f9b77951a7aa1303f9b58eea9bfa89e358cfdc15f9786ff10d4930a722c9ae2",
            ]
        );
    }

    #[test]
    fn folders_of_two_targets_never_meet() {
        assert_eq!(folder_name("127.0.0.1:5432/postgres"), "127.0.0.1_5432_postgres");
        assert_ne!(folder_name("h:1/a_b"), folder_name("h:1/a b"));
    }
}
