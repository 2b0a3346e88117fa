//! The Storage double over a world's database.

use super::{ADMIN, Linked, World, told};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use supa_safe::demo::storage::{Double, Fault, Kind, Operation, Settings};
use supa_safe::objects::{Access, Client, Endpoint, Keys, Origin};
use supa_safe::secret::Secret;
use supa_safe::target::{Connection, Defaults};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

const REF: &str = "abcdefghijklmnopqrst";

/// A double, and the runtime that it runs on.
pub(crate) struct Bucket {
    pub(crate) double: Double,
    pub(crate) runtime: Runtime,
}

impl Bucket {
    /// Stores an object as an upload does.
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        self.runtime.block_on(self.double.put(bucket, key, bytes)).unwrap();
    }

    /// The bytes of an object, as the endpoint gives them out.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let read = async {
            let client = Client::new(&self.access(self.pair())).await.unwrap();
            client.get(bucket, key, || Ok(Vec::new())).await.unwrap().0
        };
        self.runtime.block_on(read)
    }

    /// Deletes an object as its owner does.
    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        let deleted =
            async { Client::new(&self.access(self.pair())).await.unwrap().delete(bucket, key).await };
        self.runtime.block_on(deleted).unwrap();
    }

    /// Makes the next requests go wrong.
    pub(crate) fn spoil(&self, on: Operation, kind: Kind, times: u32) {
        self.double.spoil(Fault { on, kind, times });
    }

    /// The pair of S3 keys.
    pub(crate) fn pair(&self) -> Keys {
        let keys = self.double.keys();
        Keys::Pair { id: keys.access_key_id.clone(), secret: keys.secret_access_key.clone() }
    }

    /// The session-token form with some token.
    pub(crate) fn session(&self, token: Secret) -> Keys {
        let keys = self.double.keys();
        Keys::Session { project: keys.project_ref.clone(), anon: keys.anon.clone(), service_role: token }
    }

    /// The double's endpoint with these keys.
    pub(crate) fn access(&self, keys: Keys) -> Access {
        let endpoint = Endpoint::parse(&self.double.endpoint()).unwrap();
        Access { endpoint, origin: Origin::Vouched, region: None, keys: Some(keys), service_role: None }
    }
}

impl World {
    /// Starts a double over this world's database, and makes these buckets.
    pub(crate) fn bucket(&mut self, buckets: &[&str]) -> Bucket {
        let bucket = self.double(REF, buckets);
        self.set("SUPA_SAFE_STORAGE_URL", bucket.double.endpoint());
        self.give_pair(&bucket);
        bucket
    }

    /// The same at the address that a linked project has of its own, which nobody has to name: its
    /// certificate is signed by the test root, and the machine trusts that.
    pub(crate) fn own_bucket(&mut self, project: &Linked, buckets: &[&str]) -> Bucket {
        let bucket = self.double(&project.project_ref, buckets);
        let inside = Endpoint::parse(&bucket.double.endpoint()).unwrap();
        let inside = url::Url::parse(inside.as_str()).unwrap().socket_addrs(|| None).unwrap()[0];
        let listener = bucket.runtime.block_on(TcpListener::bind((project.address(), 443))).unwrap();
        bucket.runtime.spawn(unwrap_tls(listener, acceptor(), inside));
        self.set("SSL_CERT_FILE", told("SUPA_SAFE_TEST_ROOT_CA"));
        bucket
    }

    /// Lets the environment name the pair of S3 keys.
    pub(crate) fn give_pair(&mut self, bucket: &Bucket) {
        let keys = bucket.double.keys();
        self.set("SUPA_SAFE_S3_ACCESS_KEY_ID", keys.access_key_id.clone());
        self.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", keys.secret_access_key.expose());
    }

    fn double(&self, project_ref: &str, buckets: &[&str]) -> Bucket {
        for bucket in buckets {
            let quoted = bucket.replace('\'', "''");
            self.sql(
                ADMIN,
                &format!("insert into storage.buckets (id, name) values ('{quoted}', '{quoted}')"),
            );
        }
        let runtime = Runtime::new().unwrap();
        let defaults =
            Defaults { password: Some(Secret::new(told("SUPA_SAFE_TEST_PASSWORD"))), ..Defaults::default() };
        let url = self.url().replacen("postgres@", &format!("{ADMIN}@"), 1);
        let settings = Settings {
            connection: Connection::from_url(&url, &defaults).unwrap(),
            folder: self.path("bytes"),
            address: ([127, 0, 0, 1], 0).into(),
            project_ref: project_ref.to_owned(),
            region: "eu-central-1".to_owned(),
        };
        let double = runtime.block_on(Double::start(settings)).unwrap();
        Bucket { double, runtime }
    }
}

/// Speaks TLS with the certificate of the linked projects.
fn acceptor() -> TlsAcceptor {
    let tls = told("SUPA_SAFE_TEST_LINKED_TLS");
    let chain = CertificateDer::pem_file_iter(format!("{tls}.crt")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(format!("{tls}.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(chain, key).unwrap()).into()
}

/// Passes on what comes over TLS, as the platform's gateway does.
async fn unwrap_tls(listener: TcpListener, acceptor: TlsAcceptor, inside: SocketAddr) {
    while let Ok((stream, _)) = listener.accept().await {
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let (Ok(mut outer), Ok(mut inner)) =
                (acceptor.accept(stream).await, TcpStream::connect(inside).await)
            else {
                return;
            };
            // Who went away first is for the two ends to say.
            drop(copy_bidirectional(&mut outer, &mut inner).await);
        });
    }
}
