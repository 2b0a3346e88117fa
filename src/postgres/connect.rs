//! Opens sessions. Those on a target are read-only unless [`writable`] made them.
//!
//! tokio-postgres knows neither `verify-ca` nor `verify-full`, so TLS is settled here with rustls.

use crate::target::{Connection, Roots, SslMode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode as WireMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A session whose other end says nothing for so long is lost. A laptop that sleeps says no farewell, and
/// the locks of its session stand until the server learns of it: by the defaults of most systems after two
/// hours (PostgreSQL documentation, `tcp_keepalives_idle`).
const SILENCE: Duration = Duration::from_secs(30);
/// Has the server notice the same; one whose system knows no such setting leaves it. While a statement runs it looks
/// at the connection only when it is told to (PostgreSQL documentation, `client_connection_check_interval`).
pub const NOTICE_SILENCE: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; \
     set tcp_keepalives_count = 4; set tcp_user_timeout = '30s'; set client_connection_check_interval = '5s'";
/// How often a full or starting server is asked again, a second apart.
const ATTEMPTS: u32 = 10;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's name has no address.
    #[error("host `{host}` is not known")]
    UnknownHost {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nothing answers at the address.
    #[error("`{address}` does not answer")]
    NoAnswer {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answers but has no such database.
    #[error("the server at `{address}` has no database `{database}`")]
    NoDatabase {
        /// `host:port`.
        address: String,
        /// The database.
        database: String,
    },
    /// Role or password were refused.
    #[error("the server at `{address}` refused the sign-in of role `{user}`")]
    SignIn {
        /// `host:port`.
        address: String,
        /// The role.
        user: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// No password is known, and the server wants one.
    #[error("the server at `{address}` asks role `{user}` for a password, and none was given")]
    NoPassword {
        /// `host:port`.
        address: String,
        /// The role.
        user: String,
    },
    /// The certificate or the handshake failed.
    #[error("no trusted TLS connection to `{address}` with sslmode={mode}")]
    Tls {
        /// `host:port`.
        address: String,
        /// The mode.
        mode: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The trusted roots could not be read.
    #[error("cannot read the root certificates in `{path}`", path = .path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server had no free connection for long.
    #[error("the server at `{address}` has no free connection")]
    Full {
        /// `host:port`.
        address: String,
        /// What it said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The password of a temporary role ended, and there is no other one.
    #[error("cannot renew the temporary role's password")]
    Lease {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Any other error while connecting.
    #[error("cannot open a session at `{address}`")]
    Other {
        /// `host:port`.
        address: String,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },
}

/// Takes a new password for a temporary role whose password is about to end. Call it right before a
/// program that opens connections of its own; sessions here do it by themselves.
pub async fn refresh(connection: &Connection) -> Result<(), Error> {
    match &connection.lease {
        None => Ok(()),
        Some(lease) => lease.refresh().await.map_err(|source| Error::Lease { source }),
    }
}

/// A session with its connection task.
#[derive(Debug)]
pub struct Session {
    /// Runs statements.
    pub client: Client,
    task: JoinHandle<()>,
}

impl Session {
    /// Ends the session and waits until the server was told.
    pub async fn close(self) {
        let Self { client, task } = self;
        drop(client);
        // A connection task that failed has ended as well.
        drop(task.await);
    }
}

/// Opens a session that cannot write: `default_transaction_read_only` is on.
pub async fn read_only(connection: &Connection) -> Result<Session, Error> {
    open(connection, "set default_transaction_read_only = on; set statement_timeout = 0").await
}

/// Opens a session that may write.
pub async fn writable(connection: &Connection) -> Result<Session, Error> {
    open(connection, "").await
}

async fn open(connection: &Connection, settings: &str) -> Result<Session, Error> {
    refresh(connection).await?;
    let tls = MakeRustlsConnect::new(tls_config(connection)?);
    let config = wire_config(connection);
    let mut attempt = 1;
    loop {
        match config.connect(tls.clone()).await {
            Ok((client, wire)) => {
                let task = tokio::spawn(async move {
                    // The client's next call reports a lost connection.
                    drop(wire.await);
                });
                if let Some(role) = connection.assumed_role() {
                    let assumed = client.batch_execute(&format!("set session role {role}")).await;
                    assumed.map_err(|source| Error::Other { address: connection.address(), source })?;
                }
                // It may wait for other programs for as long as these take.
                let set = client.batch_execute(&format!("set idle_session_timeout = 0; {settings}")).await;
                set.map_err(|source| Error::Other { address: connection.address(), source })?;
                return Ok(Session { client, task });
            }
            Err(error) if attempt < ATTEMPTS && is_passing(&error) => {
                attempt += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(classify(connection, error)),
        }
    }
}

fn wire_config(connection: &Connection) -> Config {
    let mut config = Config::new();
    config
        .host(&connection.host)
        .port(connection.port)
        .user(&connection.user)
        .dbname(&connection.database)
        .application_name("supa-safe")
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives_idle(SILENCE / 3)
        .keepalives_interval(SILENCE / 6)
        .keepalives_retries(4)
        .tcp_user_timeout(SILENCE)
        .ssl_mode(match connection.ssl_mode {
            SslMode::Disable => WireMode::Disable,
            SslMode::Prefer => WireMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => WireMode::Require,
        });
    if let Some(password) = connection.password() {
        config.password(password.expose());
    }
    config
}

/// A full server, and one that starts or stops, may answer differently in a second.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| [&SqlState::TOO_MANY_CONNECTIONS, &SqlState::CANNOT_CONNECT_NOW].contains(&code))
}

fn classify(connection: &Connection, error: tokio_postgres::Error) -> Error {
    let address = connection.address();
    let user = connection.user.clone();
    match error.code() {
        Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
            return Error::NoDatabase { address, database: connection.database.clone() };
        }
        Some(code)
            if *code == SqlState::INVALID_PASSWORD
                || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
        {
            return Error::SignIn { address, user, source: error };
        }
        // PgBouncer's way to say the same.
        Some(code)
            if *code == SqlState::PROTOCOL_VIOLATION
                && chain_text(&error).contains("SASL authentication failed") =>
        {
            return Error::SignIn { address, user, source: error };
        }
        Some(code) if *code == SqlState::TOO_MANY_CONNECTIONS => {
            return Error::Full { address, source: error };
        }
        Some(_) => return Error::Other { address, source: error },
        None => {}
    }
    let text = chain_text(&error);
    if text.contains("password missing") {
        return Error::NoPassword { address, user };
    }
    let Some(source) = error.into_source() else {
        return Error::NoAnswer { address, source: text.into() };
    };
    match source.downcast::<io::Error>() {
        Ok(io_error) if text.contains("failed to lookup address") => {
            Error::UnknownHost { host: connection.host.clone(), source: *io_error }
        }
        Ok(io_error) if is_tls(&io_error) => {
            Error::Tls { address, mode: connection.ssl_mode.as_str(), source: io_error }
        }
        Ok(io_error) => Error::NoAnswer { address, source: io_error },
        Err(other) if text.contains("TLS") => {
            Error::Tls { address, mode: connection.ssl_mode.as_str(), source: other }
        }
        Err(other) => Error::NoAnswer { address, source: other },
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
}

fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn tls_config(connection: &Connection) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|source| tls_error(connection, source))?;
    if connection.ssl_mode < SslMode::VerifyCa {
        let verifier = Arc::new(Unverified { provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(connection)?), provider)
        .build()
        .map_err(|source| tls_error(connection, source))?;
    if connection.ssl_mode == SslMode::VerifyFull {
        return Ok(builder.with_webpki_verifier(chain).with_no_client_auth());
    }
    let verifier = Arc::new(AnyName { chain });
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn tls_error(connection: &Connection, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Tls { address: connection.address(), mode: connection.ssl_mode.as_str(), source: Box::new(source) }
}

fn roots(connection: &Connection) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match &connection.roots {
        Roots::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Roots::File(path) => {
            let failed = |source| Error::Roots { path: path.clone(), source };
            let pem = fs_err::read(path).map_err(|source| failed(source.into()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|source| failed(source.into()))?;
                store.add(certificate).map_err(|source| failed(source.into()))?;
            }
            if store.is_empty() {
                return Err(failed("the file holds no certificate".into()));
            }
        }
    }
    Ok(store)
}

/// Accepts any certificate, as libpq's `require` does, but checks that the peer holds its key.
#[derive(Debug)]
struct Unverified {
    provider: Arc<rustls::crypto::CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain and leaves the name aside: libpq's `verify-ca`.
#[derive(Debug)]
struct AnyName {
    chain: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
