//! The platform around the demo's database: the stub of the Management API with one project, and the
//! Storage double with the bytes of the shop's objects.

use super::OF_CUSTOMERS;
use super::cloud::{self, Function, Project, StoredSecret, Stub};
use super::storage::{self, Double, Settings};
use crate::postgres::connect;
use crate::target::Connection;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, StatusCode};
use rustls::{ClientConfig, RootCertStore};
use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

/// The project's ref.
pub const REF: &str = "shopshopshopshopshop";
/// Its name in the dashboard.
pub const NAME: &str = "Shop";
/// Names of its own secrets. Their values are made up anew for each run, and nobody needs them.
pub const SECRETS: [&str; 3] = ["MAIL_API_TOKEN", "PAYMENT_API_KEY", "PAYMENT_WEBHOOK_SECRET"];

/// The bucket of pictures that people upload.
/// Uploads at once.
const UPLOADS: usize = 8;
/// What stays as it is in the path of an upload.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_');
/// The objects whose rows the shop has, and their contents as its rows describe them.
const OBJECTS: &str = "select bucket_id, name, metadata->>'mimetype',
    repeat('object ' || bucket_id || '/' || name || chr(10), (user_metadata->>'repeat')::int)
    from storage.objects order by bucket_id, name";

/// Why there is no platform.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage does not run.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// No session to read the rows of the objects.
    #[error("cannot connect to the demo's database")]
    Connect(#[from] connect::Error),
    /// The rows of the objects could not be read.
    #[error("cannot read the rows of the demo's objects")]
    Rows(#[from] tokio_postgres::Error),
    /// No client for uploads.
    #[error("cannot make a client for the demo's uploads")]
    Tls(#[from] rustls::Error),
    /// An upload did not get there.
    #[error("cannot upload the demo's objects")]
    Http(#[from] reqwest::Error),
    /// A change of an object was refused.
    #[error("what was asked about `{key}` was answered with {status}")]
    Refused {
        /// The object.
        key: String,
        /// How.
        status: StatusCode,
    },
    /// No port, or no folder.
    #[error("cannot start the stub of the Management API")]
    Io(#[from] io::Error),
}

/// The platform, as long as it runs. Dropping it ends it.
#[derive(Debug)]
pub struct Platform {
    stub: Stub,
    storage: Double,
    objects: usize,
    /// Avatars whose owners go on.
    avatars: Vec<String>,
    functions: usize,
}

impl Platform {
    /// Starts both stand-ins over a database, as its superuser, and uploads every object that has a row.
    pub async fn start(admin: Connection, folder: &Path, functions: &[Function]) -> Result<Self, Error> {
        let mut project = Project::new(REF, NAME);
        project.functions = functions.to_vec();
        for secret in SECRETS {
            let value = hex::encode(crate::disk::random::<20>()?);
            project.secrets.push(StoredSecret::new(secret, &value));
        }
        let region = project.region.clone();
        let stub = Stub::start(folder, vec![project]).await?;
        let session = connect::read_only(&admin).await?;
        let rows = session.client.query(OBJECTS, &[]).await?;
        session.close().await;
        let settings = Settings {
            connection: admin,
            folder: folder.join("objects"),
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            project_ref: REF.to_owned(),
            region,
        };
        let storage = Double::start(settings).await?;
        let avatars = rows.iter().filter(|row| row.get::<_, &str>(0) == OF_CUSTOMERS).take(2);
        let avatars = avatars.map(|row| row.get(1)).collect();
        let platform = Self { stub, storage, objects: rows.len(), avatars, functions: functions.len() };
        let http = http()?;
        let uploads = rows.iter().map(|row| {
            let upload = Upload { bucket: row.get(0), key: row.get(1), content_type: row.get(2) };
            platform.upload(&http, upload, row.get(3))
        });
        stream::iter(uploads).buffer_unordered(UPLOADS).try_collect::<()>().await?;
        Ok(platform)
    }

    /// What people do to their avatars while nobody has noticed yet: one replaces it, one deletes it, and
    /// somebody new uploads one.
    pub async fn go_on(&self) -> Result<(), Error> {
        let http = http()?;
        let avatar = |key: &str| Upload {
            bucket: OF_CUSTOMERS.to_owned(),
            key: key.to_owned(),
            content_type: "image/png".to_owned(),
        };
        let mut keys = self.avatars.iter();
        if let Some(key) = keys.next() {
            self.upload(&http, avatar(key), "a new face".to_owned()).await?;
        }
        if let Some(key) = keys.next() {
            let key = format!("{OF_CUSTOMERS}/{key}");
            let answer =
                http.delete(self.address(&key)).bearer_auth(self.storage.keys().service_role.expose());
            let status = answer.send().await?.status();
            if !status.is_success() {
                return Err(Error::Refused { key, status });
            }
        }
        self.upload(&http, avatar("late/avatar.png"), "a late face".to_owned()).await
    }

    fn address(&self, key: &str) -> String {
        format!("{}/object/{}", self.storage.url(), utf8_percent_encode(key, PATH))
    }

    /// Uploads an object as an application does, through Storage's REST half.
    async fn upload(&self, http: &Client, upload: Upload, content: String) -> Result<(), Error> {
        let key = format!("{}/{}", upload.bucket, upload.key);
        let answer = http
            .post(self.address(&key))
            .bearer_auth(self.storage.keys().service_role.expose())
            .header("x-upsert", "true")
            .header("content-type", upload.content_type)
            .header("cache-control", "max-age=3600")
            .body(content)
            .send()
            .await?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(Error::Refused { key, status }) }
    }

    /// How many objects were uploaded.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// How many functions are deployed.
    pub fn functions(&self) -> usize {
        self.functions
    }

    /// What leads the CLI and supa-safe to the stand-ins, and past every proxy: all of it is on this
    /// machine.
    pub fn variables(&self) -> Vec<(&'static str, Option<OsString>)> {
        let keys = self.storage.keys();
        let set = |text: &str| Some(OsString::from(text));
        let mut variables = vec![
            (cloud::PROFILE_VARIABLE, Some(self.stub.profile().into())),
            (cloud::TOKEN_VARIABLE, set(self.stub.token().expose())),
            ("SUPA_SAFE_STORAGE_URL", set(&self.storage.endpoint())),
            ("SUPA_SAFE_S3_ACCESS_KEY_ID", set(&keys.access_key_id)),
            ("SUPA_SAFE_S3_SECRET_ACCESS_KEY", set(keys.secret_access_key.expose())),
        ];
        variables.extend(FOREIGN.map(|name| (name, None)));
        variables
    }

    /// Calls that the stand-ins were not told of.
    pub fn unknown_calls(&self) -> Vec<String> {
        [self.stub.unknown_calls(), self.storage.unknown_calls()].concat()
    }

    /// Ends both.
    pub async fn stop(self) {
        self.storage.stop().await;
    }
}

/// A client for this machine: past every proxy, and without a certificate to trust, since it speaks no TLS.
fn http() -> Result<Client, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(Client::builder().no_proxy().tls_backend_preconfigured(tls).build()?)
}

/// What the person may have set for projects of their own, and for the way out.
const FOREIGN: [&str; 14] = [
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "SUPABASE_ANON_KEY",
    "SUPABASE_DB_PASSWORD",
    "SUPABASE_ENV",
    "SUPABASE_PROJECT_ID",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_WORKDIR",
    "SUPA_SAFE_S3_PROFILE",
    "SUPA_SAFE_S3_REGION",
];

/// An object to upload.
struct Upload {
    bucket: String,
    key: String,
    content_type: String,
}
