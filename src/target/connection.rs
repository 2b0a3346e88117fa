//! How to reach a database: the URL forms of libpq (PostgreSQL documentation, 34.1.1.2), read once
//! for our own sessions and for the environment of the tools.

use super::{Lease, ProjectRef};
use crate::secret::Secret;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use url::Url;

/// The port on which Supabase serves its transaction pooler
/// (supabase.com/docs/guides/database/connecting-to-postgres).
const TRANSACTION_POOLER_PORT: u16 = 6543;

/// Why a connection URL was not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The placeholder of the dashboard was left in place.
    #[error("the URL still holds the placeholder `{0}` in the place of the password")]
    Placeholder(String),
    /// It is not a URL at all, or a password in it is not percent-encoded.
    #[error("the connection URL cannot be read: {0}")]
    Malformed(String),
    /// The scheme is another one.
    #[error("the connection URL starts with `{0}://`; a Postgres URL starts with `postgresql://`")]
    Scheme(String),
    /// A part that must be there is missing.
    #[error("the connection URL names no {0}")]
    Missing(&'static str),
    /// A setting that would lead libpq elsewhere than the rest of the URL does.
    #[error("the URL's `{0}=` would choose another target, or another way to it, than the rest of the URL")]
    Redirects(String),
    /// A value of a known setting is not valid.
    #[error("`{value}` is not a value for `{name}`; it may be {allowed}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        allowed: &'static str,
    },
    /// Plaintext was asked for on a host that is not this machine.
    #[error("`sslmode=disable` would send the password and all rows to `{0}` in the clear")]
    Plaintext(String),
    /// The transaction pooler, by its port.
    #[error("`{0}` is a transaction pooler (port 6543): a dump through it can be wrong without an error")]
    TransactionPooler(String),
}

/// How strictly the server's certificate is checked, with libpq's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Plaintext.
    Disable,
    /// TLS if the server has it, else plaintext; loopback only.
    Prefer,
    /// TLS with any certificate.
    Require,
    /// TLS with a certificate of a trusted root.
    VerifyCa,
    /// TLS with a certificate of a trusted root for this very host.
    VerifyFull,
}

impl SslMode {
    /// libpq's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "disable" => Ok(Self::Disable),
            "allow" | "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(Error::Setting {
                name: "sslmode",
                value: text.to_owned(),
                allowed: "disable, prefer, require, verify-ca, or verify-full",
            }),
        }
    }
}

/// Settings of a URL by which libpq goes elsewhere, or opens another kind of session, than its other
/// parts say (PostgreSQL documentation, 34.1.2).
const REDIRECTING: [&str; 10] = [
    "dbname",
    "host",
    "hostaddr",
    "options",
    "passfile",
    "password",
    "port",
    "service",
    "target_session_attrs",
    "user",
];

/// Where the trusted roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The roots of this machine.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// What kind of door to the database an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointKind {
    /// `db.<ref>.supabase.co:5432`.
    Direct,
    /// `aws-N-<region>.pooler.supabase.com:5432`.
    SessionPooler,
    /// The local stack of `supabase start`.
    Local,
    /// Any other address.
    Url,
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct host",
            Self::SessionPooler => "session pooler",
            Self::Local => "local stack",
            Self::Url => "database URL",
        })
    }
}

/// Settings of the environment that fill what a URL leaves open, as libpq reads them.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// `--password`, `--password-file`, or `PGPASSWORD`; wins over the URL when it is explicit.
    pub password: Option<Secret>,
    /// `PGSSLMODE`.
    pub ssl_mode: Option<String>,
    /// `PGSSLROOTCERT`.
    pub ssl_root_cert: Option<String>,
}

/// How to reach a Postgres database.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role to sign in as.
    pub user: String,
    /// Its password, when one is known.
    pub password: Option<Secret>,
    /// Its password when that lives for minutes only: the role is then a temporary one, and works as
    /// `postgres`.
    pub lease: Option<Lease>,
    /// Database name.
    pub database: String,
    /// How strictly TLS is checked.
    pub ssl_mode: SslMode,
    /// The trusted roots.
    pub roots: Roots,
    /// Settings of the URL that mean nothing here and were left out, for a note to the person.
    pub ignored: Vec<String>,
}

impl Connection {
    /// Reads a `postgresql://` URL.
    pub fn from_url(text: &str, defaults: &Defaults) -> Result<Self, Error> {
        let text = text.trim();
        placeholder(text)?;
        let url = parse_url(text)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(Error::Missing("host"))?;
        let host = decode(host.trim_start_matches('[').trim_end_matches(']'));
        let user = decode(url.username());
        if user.is_empty() {
            return Err(Error::Missing("user (`postgresql://USER@host:port/database`)"));
        }
        let database = decode(url.path().trim_start_matches('/'));
        let mut connection = Self {
            host,
            port: url.port().unwrap_or(5432),
            database: if database.is_empty() { "postgres".to_owned() } else { database },
            user,
            password: url.password().map(|password| Secret::new(decode(password))),
            lease: None,
            ssl_mode: SslMode::Prefer,
            roots: Roots::System,
            ignored: Vec::new(),
        };
        if connection.password.is_none() {
            connection.password.clone_from(&defaults.password);
        }
        connection.settle_tls(&url, defaults)?;
        if connection.port == TRANSACTION_POOLER_PORT {
            return Err(Error::TransactionPooler(connection.address()));
        }
        Ok(connection)
    }

    /// The database of `supabase start` (CLI documentation: port 54322, password `postgres`).
    pub fn local_stack(port: u16) -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port,
            user: "postgres".to_owned(),
            password: Some(Secret::new("postgres")),
            lease: None,
            database: "postgres".to_owned(),
            ssl_mode: SslMode::Prefer,
            roots: Roots::System,
            ignored: Vec::new(),
        }
    }

    fn settle_tls(&mut self, url: &Url, defaults: &Defaults) -> Result<(), Error> {
        let mut mode = defaults.ssl_mode.clone();
        let mut root = defaults.ssl_root_cert.clone();
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => root = Some(value.into_owned()),
                name if REDIRECTING.contains(&name) => return Err(Error::Redirects(name.to_owned())),
                _ => self.ignored.push(name.into_owned()),
            }
        }
        let given = mode.as_deref().filter(|mode| !mode.is_empty()).map(SslMode::from_str).transpose()?;
        self.roots = match root.as_deref() {
            None | Some("" | "system") => Roots::System,
            Some(path) => Roots::File(PathBuf::from(path)),
        };
        self.ssl_mode = match given {
            Some(SslMode::Disable) if !self.is_loopback() => {
                return Err(Error::Plaintext(self.host.clone()));
            }
            // libpq: with `sslrootcert=system` only verify-full is accepted; with a root file,
            // `require` checks the chain as verify-ca does.
            Some(SslMode::Require) if matches!(self.roots, Roots::File(_)) => SslMode::VerifyCa,
            Some(mode) if self.is_loopback() => mode,
            Some(mode) => mode.max(SslMode::Require),
            None if matches!(self.roots, Roots::File(_)) => SslMode::VerifyFull,
            None if self.is_loopback() => SslMode::Prefer,
            None => SslMode::Require,
        };
        Ok(())
    }

    /// Whether the host is this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// What kind of door this is, by its name.
    pub fn kind(&self) -> EndpointKind {
        if self.host.ends_with(".pooler.supabase.com") {
            EndpointKind::SessionPooler
        } else if direct_ref(&self.host).is_some() {
            EndpointKind::Direct
        } else {
            EndpointKind::Url
        }
    }

    /// The project ref, when host or user name carries one.
    pub fn project_ref(&self) -> Option<ProjectRef> {
        direct_ref(&self.host).or_else(|| {
            let (_, project) = self.user.split_once('.')?;
            project.parse().ok().filter(|_| self.kind() == EndpointKind::SessionPooler)
        })
    }

    /// The role that statements run as: a pooler's user name carries the project ref behind it.
    pub fn role(&self) -> &str {
        if let Some(role) = self.assumed_role() {
            return role;
        }
        match self.user.split_once('.') {
            Some((role, project)) if project.parse::<ProjectRef>().is_ok() => role,
            _ => &self.user,
        }
    }

    /// The role that every session has to take on, because the one that signs in is a temporary one.
    pub fn assumed_role(&self) -> Option<&'static str> {
        self.lease.as_ref().map(|_| "postgres")
    }

    /// The password that signs in now.
    pub fn password(&self) -> Option<Secret> {
        self.lease.as_ref().map(Lease::password).or_else(|| self.password.clone())
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// `host:port/database`: the name of a target given by URL, and the words that confirm it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.address(), self.database)
    }

    /// The URL for the Supabase CLI: no password, and an `sslmode` that says what is to happen.
    pub fn url_without_password(&self, ssl_mode: SslMode) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut url = format!(
            "postgresql://{}@{}/{}?sslmode={}",
            encode(&self.user),
            self.address(),
            encode(&self.database),
            ssl_mode.as_str()
        );
        if ssl_mode >= SslMode::VerifyCa
            && let Roots::File(path) = &self.roots
        {
            url.push_str("&sslrootcert=");
            url.push_str(&encode(&path.to_string_lossy()));
        }
        url
    }

    /// The connection as libpq's environment, without the password.
    ///
    /// `PGGSSENCMODE` is off because old clients fail on a pooler's answer to the negotiation
    /// (facts: "received invalid response to GSSAPI negotiation").
    pub fn tool_env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGSSLMODE", self.ssl_mode.as_str().to_owned()),
            ("PGGSSENCMODE", "disable".to_owned()),
            ("PGCONNECT_TIMEOUT", "15".to_owned()),
        ];
        if self.ssl_mode >= SslMode::VerifyCa {
            let roots = match &self.roots {
                Roots::System => "system".to_owned(),
                Roots::File(path) => path.display().to_string(),
            };
            env.push(("PGSSLROOTCERT", roots));
        }
        env
    }
}

fn direct_ref(host: &str) -> Option<ProjectRef> {
    host.strip_prefix("db.")?.strip_suffix(".supabase.co")?.parse().ok()
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn placeholder(text: &str) -> Result<(), Error> {
    const PLACEHOLDERS: [&str; 4] =
        ["[YOUR-PASSWORD]", "[YOUR_PASSWORD]", "%5BYOUR-PASSWORD%5D", "<password>"];
    PLACEHOLDERS
        .iter()
        .find(|placeholder| text.contains(**placeholder))
        .map_or(Ok(()), |placeholder| Err(Error::Placeholder((*placeholder).to_owned())))
}

/// Parses, and puts the likely cause into the message without showing what may be a password.
fn parse_url(text: &str) -> Result<Url, Error> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Error::Malformed("it has the form `postgresql://user@host:port/database`".to_owned()));
    };
    if scheme != "postgresql" && scheme != "postgres" {
        // What is no scheme may be anything, a password too.
        let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        return Err(if is_scheme {
            Error::Scheme(scheme.to_owned())
        } else {
            Error::Malformed("it has the form `postgresql://user@host:port/database`".to_owned())
        });
    }
    if rest.contains("<ref>") {
        return Err(Error::Missing("project ref: `<ref>` stands in its place"));
    }
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(authority_end);
    let path = after.split(['?', '#']).next().unwrap_or_default();
    let unencoded = authority.matches('@').count() > 1
        || path.contains('@')
        || (!authority.contains('@') && after.contains('@'))
        || after.contains('#');
    if unencoded {
        return Err(Error::Malformed(
            "its password holds a character (`@`, `/`, `?`, `#`, or `:`) that must be percent-encoded"
                .to_owned(),
        ));
    }
    Url::parse(text).map_err(|error| Error::Malformed(error.to_string()))
}
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Connection, Error> {
        Connection::from_url(text, &Defaults::default())
    }

    #[test]
    fn a_whole_url_is_read() {
        let connection =
            read("postgresql://po%40st:p%40ss@[2001:db8::1]:5433/my%20db?sslmode=verify-full&pgbouncer=true")
                .unwrap();
        assert_eq!(connection.name(), "[2001:db8::1]:5433/my db");
        assert_eq!(connection.user, "po@st");
        assert_eq!(connection.password.as_ref().unwrap().expose(), "p@ss");
        assert_eq!(connection.ssl_mode, SslMode::VerifyFull);
        assert_eq!(connection.ignored, vec!["pgbouncer"]);
        assert_eq!(
            connection.url_without_password(SslMode::VerifyFull),
            "postgresql://po%40st@[2001:db8::1]:5433/my%20db?sslmode=verify-full"
        );
    }

    #[test]
    fn each_mistake_has_its_own_message() {
        let message = |text: &str| read(text).unwrap_err().to_string();
        assert_eq!(
            message("postgresql://postgres:[YOUR-PASSWORD]@db.example.com/postgres"),
            "the URL still holds the placeholder `[YOUR-PASSWORD]` in the place of the password"
        );
        assert_eq!(
            message("db.example.com"),
            "the connection URL cannot be read: it has the form `postgresql://user@host:port/database`"
        );
        assert_eq!(
            message("mysql://u@h/d"),
            "the connection URL starts with `mysql://`; a Postgres URL starts with `postgresql://`"
        );
        assert_eq!(
            message("postgresql://u:p@q@h/d"),
            "the connection URL cannot be read: its password holds a character (`@`, `/`, `?`, `#`, or `:`) that must be percent-encoded"
        );
        assert_eq!(message("postgresql://u:p/q@h/d"), message("postgresql://u:p#q@h/d"));
        assert_eq!(message("postgresql://u:p@q/r@h/d"), message("postgresql://u:p/q@h/d"));
        assert_eq!(message("postgres:secret@h://x"), message("db.example.com"));
        assert_eq!(
            message("postgresql://u@h/d?dbname=e"),
            "the URL's `dbname=` would choose another target, or another way to it, than the rest of the URL"
        );
        assert_eq!(
            message("postgresql://u@h:99999/d"),
            "the connection URL cannot be read: invalid port number"
        );
        assert_eq!(
            message("postgresql://h/d"),
            "the connection URL names no user (`postgresql://USER@host:port/database`)"
        );
        assert_eq!(
            message("postgresql://u@h/d?sslmode=maybe"),
            "`maybe` is not a value for `sslmode`; it may be disable, prefer, require, verify-ca, or verify-full"
        );
        assert_eq!(
            message("postgresql://u@h/d?sslmode=disable"),
            "`sslmode=disable` would send the password and all rows to `h` in the clear"
        );
        assert_eq!(
            message("postgresql://u@h:6543/d"),
            "`h:6543` is a transaction pooler (port 6543): a dump through it can be wrong without an error"
        );
    }

    #[test]
    fn only_loopback_may_be_plaintext() {
        assert_eq!(read("postgresql://u@127.0.0.1/d").unwrap().ssl_mode, SslMode::Prefer);
        assert_eq!(read("postgresql://u@localhost/d?sslmode=disable").unwrap().ssl_mode, SslMode::Disable);
        assert_eq!(read("postgresql://u@example.com/d").unwrap().ssl_mode, SslMode::Require);
        assert_eq!(read("postgresql://u@example.com/d?sslmode=prefer").unwrap().ssl_mode, SslMode::Require);
        assert_eq!(
            read("postgresql://u@example.com/d?sslrootcert=/r.pem").unwrap().ssl_mode,
            SslMode::VerifyFull
        );
    }

    #[test]
    fn supabase_hosts_are_known() {
        let direct = read("postgresql://postgres@db.abcdefghijklmnopqrst.supabase.co/postgres").unwrap();
        assert_eq!(
            (direct.kind(), direct.project_ref()),
            (EndpointKind::Direct, "abcdefghijklmnopqrst".parse().ok())
        );
        let pooler = read(
            "postgresql://postgres.abcdefghijklmnopqrst@aws-0-eu-central-1.pooler.supabase.com:5432/postgres",
        )
        .unwrap();
        assert_eq!(
            (pooler.kind(), pooler.project_ref()),
            (EndpointKind::SessionPooler, "abcdefghijklmnopqrst".parse().ok())
        );
        assert_eq!(read("postgresql://postgres@other/postgres").unwrap().project_ref(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn an_encoded_password_is_read_back(password in "[ -~]{1,24}", database in "[a-z@/ ]{1,12}") {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let url = format!("postgresql://u:{}@h/{}", encode(&password), encode(&database));
            let connection = read(&url).unwrap();
            prop_assert_eq!(connection.password.as_ref().unwrap().expose(), password.as_str());
            prop_assert_eq!(&connection.database, &database);
            let without = connection.url_without_password(SslMode::Require);
            prop_assert_eq!(&read(&without).unwrap().database, &database);
            let shown = format!("{connection:?}");
            prop_assert!(password.len() < 6 || !shown.contains(&password));
        }
    }
}
