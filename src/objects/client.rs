//! Requests to the endpoint, each repeated while the server says that it is busy.

use super::digest::{Digests, EtagCheck, bare_etag};
use super::error::{Error, Place, broken_off};
use super::{Access, DEFAULT_REGION, Keys, Origin};
use aws_config::meta::region::ProvideRegion as _;
#[expect(deprecated, reason = "the names that are not deprecated are in a crate of the SDK's insides")]
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, ProvideCredentials as _, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStreamError;
use aws_sdk_s3::types::EncodingType;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// How often a request is made before its error counts.
const ATTEMPTS: u32 = 6;
/// The first pause between two of them; each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a body may stand still.
const STALL_GRACE: Duration = Duration::from_secs(20);
/// Pieces of a body between the network and the disk.
const PIECES: usize = 4;

/// A client of one endpoint; copies of it share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) s3: aws_sdk_s3::Client,
    endpoint: String,
    region: String,
}

/// An object in a listing, which is made from rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its etag without quotes; a row without bytes may have none.
    pub etag: Option<String>,
    /// Its length by the row.
    pub size: u64,
    /// When it was written, in seconds, by the server's clock.
    pub modified: Option<i64>,
}

/// What was read of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// SHA-256 of its bytes, lowercase hex.
    pub sha256: String,
    /// MD5 of its bytes, lowercase hex.
    pub md5: String,
    /// Its length.
    pub size: u64,
    /// The etag that came with the bytes, without quotes.
    pub etag: Option<String>,
    /// Whether the etag is of these bytes.
    pub check: EtagCheck,
    /// The content type that was served.
    pub content_type: Option<String>,
    /// The cache control that was served.
    pub cache_control: Option<String>,
}

/// What a probe without a body says of an object's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// They are there, with this etag.
    Same,
    /// Others are there.
    Other,
    /// There are none.
    Missing,
}

impl Client {
    /// Makes a client; nothing is asked yet.
    pub async fn new(access: &Access) -> Result<Self, Error> {
        let tls = Provider::rustls(CryptoMode::Ring);
        let http = aws_smithy_http_client::Builder::new().tls_provider(tls).build_https();
        let (credentials, of_profile) = credentials(access, &http).await?;
        let region = access.region.clone().or(of_profile).unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .endpoint_url(access.endpoint.as_str())
            .region(Region::new(region.clone()))
            .credentials_provider(credentials)
            .force_path_style(true)
            // What the SDK would send else is what stores other than Amazon's refuse.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // It does not know 544, and cannot repeat a body that broke off.
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).build(),
            )
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().grace_period(STALL_GRACE).build(),
            )
            .build();
        let s3 = aws_sdk_s3::Client::from_conf(config);
        Ok(Self { s3, endpoint: access.endpoint.to_string(), region })
    }

    /// Lists the buckets, to see whether the keys are good for anything.
    pub async fn sign_in(&self) -> Result<(), Error> {
        let ask = || async {
            let answer = self.s3.list_buckets().send().await;
            answer.map(drop).map_err(|error| self.error("list the buckets".to_owned(), &error))
        };
        insist(ask).await
    }

    /// The objects of a bucket, page by page in the order of their bytes.
    pub fn pages<'a>(&'a self, bucket: &'a str) -> Pages<'a> {
        Pages { client: self, bucket, prefix: None, after: None, token: None, is_over: false }
    }

    /// The same of those whose keys begin with this, and stand after that one.
    pub fn pages_below<'a>(&'a self, bucket: &'a str, prefix: &'a str, after: Option<String>) -> Pages<'a> {
        Pages { prefix: Some(prefix), after, ..self.pages(bucket) }
    }

    /// Reads an object into a writer. Each attempt gets a writer of its own, so that nothing of one
    /// that broke off is left in the next.
    pub async fn get<W, M>(&self, bucket: &str, key: &str, make: M) -> Result<(W, Received), Error>
    where
        W: Write + Send + 'static,
        M: Fn() -> io::Result<W>,
    {
        let mut before: Option<Received> = None;
        loop {
            let (writer, received) = insist(|| async { self.get_once(bucket, key, make()?).await }).await?;
            // Bytes that come twice with the same wrong etag are what the server has: an encrypted
            // backend has etags that are no MD5.
            if received.check != EtagCheck::Differs || before.as_ref() == Some(&received) {
                return Ok((writer, received));
            }
            before = Some(received);
        }
    }

    async fn get_once<W>(&self, bucket: &str, key: &str, writer: W) -> Result<(W, Received), Error>
    where
        W: Write + Send + 'static,
    {
        let doing = || format!("read {}", object_in_words(bucket, key));
        let answer = self.s3.get_object().bucket(bucket).key(key).send().await;
        let mut output = answer.map_err(|error| self.error(doing(), &error))?;
        let announced = output.content_length().and_then(|length| u64::try_from(length).ok());
        let etag = output.e_tag().map(|etag| bare_etag(etag).to_owned());
        let digests = Digests::new(etag.as_deref(), announced);
        let (pieces, inbox) = tokio::sync::mpsc::channel(PIECES);
        let writing = tokio::task::spawn_blocking(move || write_down(inbox, writer, digests));
        let came = pass_on(&mut output, pieces).await;
        let (writer, digested) = writing.await.map_err(io::Error::other)??;
        came.map_err(|error| self.broken_off(doing(), &error))?;
        if let Some(announced) = announced.filter(|announced| *announced != digested.length) {
            return Err(Error::Length { doing: doing(), announced, received: digested.length });
        }
        let received = Received {
            sha256: digested.sha256,
            md5: digested.md5,
            size: digested.length,
            etag,
            check: digested.check,
            content_type: output.content_type().map(str::to_owned),
            cache_control: output.cache_control().map(str::to_owned),
        };
        Ok((writer, received))
    }

    /// The etag of an object's row, if it has one; a HEAD says nothing about bytes.
    pub async fn row_etag(&self, bucket: &str, key: &str) -> Result<Option<String>, Error> {
        let ask = || async {
            let answer = self.s3.head_object().bucket(bucket).key(key).send().await;
            answer.map_err(|error| self.error(format!("look at {}", object_in_words(bucket, key)), &error))
        };
        Ok(insist(ask).await?.e_tag().map(|etag| bare_etag(etag).to_owned()))
    }

    /// Asks whether an object's bytes are there with this etag, without reading them: a HEAD is
    /// answered from the row alone, a conditional GET is not.
    pub async fn probe(&self, bucket: &str, key: &str, etag: &str) -> Result<Probe, Error> {
        let quoted = format!("\"{}\"", bare_etag(etag));
        let ask = || async {
            let request = self.s3.get_object().bucket(bucket).key(key).if_none_match(&quoted);
            let probed = match request.send().await {
                Ok(_) => return Ok(Probe::Other),
                Err(error) if status(&error) == Some(304) => return Ok(Probe::Same),
                Err(error) => self.error(format!("probe {}", object_in_words(bucket, key)), &error),
            };
            match probed {
                Error::NoBytes { .. } | Error::NotFound { .. } => Ok(Probe::Missing),
                error => Err(error),
            }
        };
        insist(ask).await
    }

    fn place(&self) -> Place<'_> {
        Place { endpoint: &self.endpoint, region: &self.region }
    }

    pub(super) fn broken_off(&self, doing: String, error: &(impl std::error::Error + 'static)) -> Error {
        broken_off(self.place(), doing, error)
    }

    pub(super) fn error<E>(&self, doing: String, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: std::error::Error + aws_sdk_s3::error::ProvideErrorMetadata + 'static,
    {
        Error::of(self.place(), doing, error)
    }
}

/// A listing that is under way.
#[derive(Debug)]
pub struct Pages<'a> {
    client: &'a Client,
    bucket: &'a str,
    prefix: Option<&'a str>,
    after: Option<String>,
    token: Option<String>,
    is_over: bool,
}

impl Pages<'_> {
    /// The next page; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Vec<Listed>>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let client = self.client;
        let ask = || async {
            let answer = client
                .s3
                .list_objects_v2()
                .bucket(self.bucket)
                .set_prefix(self.prefix.map(str::to_owned))
                .set_start_after(self.after.clone())
                .set_continuation_token(self.token.clone())
                // XML has no form for some of the characters that rows may hold.
                .encoding_type(EncodingType::Url)
                .send()
                .await;
            answer.map_err(|error| {
                client.error(format!("list the bucket `{}`", self.bucket.escape_debug()), &error)
            })
        };
        let page = insist(ask).await?;
        self.token = page.next_continuation_token().map(str::to_owned);
        self.is_over = self.token.is_none();
        let listed = page.contents().iter().map(|object| Listed {
            key: decoded(object.key().unwrap_or_default()),
            etag: object.e_tag().map(|etag| bare_etag(etag).to_owned()),
            size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
            modified: object.last_modified().map(aws_sdk_s3::primitives::DateTime::secs),
        });
        Ok(Some(listed.collect()))
    }
}

/// Bucket and key for people: keys are foreign text, and may hold anything.
pub(super) fn object_in_words(bucket: &str, key: &str) -> String {
    format!("`{}/{}`", bucket.escape_debug(), key.escape_debug())
}

/// Repeats a request while its error may pass.
pub(super) async fn insist<T, F, R>(request: R) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
    R: Fn() -> F,
{
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match request().await {
            Err(error) if error.is_passing() => tokio::time::sleep(pause).await,
            ended => return ended,
        }
        pause *= 2;
    }
    request().await
}

/// What signs, and the region that belongs to it.
async fn credentials(
    access: &Access,
    http: &SharedHttpClient,
) -> Result<(SharedCredentialsProvider, Option<String>), Error> {
    let keys = access.keys.as_ref().ok_or_else(|| Error::NoKeys(access.endpoint.to_string()))?;
    Ok(match keys {
        Keys::Pair { id, secret } => {
            let fixed = Credentials::new(id, secret.expose(), None, None, "supa-safe");
            (SharedCredentialsProvider::new(fixed), None)
        }
        Keys::Session { project, anon, service_role } => {
            let token = Some(service_role.expose().to_owned());
            let fixed = Credentials::new(project, anon.expose(), token, None, "supa-safe");
            (SharedCredentialsProvider::new(fixed), None)
        }
        Keys::Temporary { id, secret, token } => {
            let token = Some(token.expose().to_owned());
            let fixed = Credentials::new(id, secret.expose(), token, None, "supa-safe");
            (SharedCredentialsProvider::new(fixed), None)
        }
        Keys::Profile { name, files } => {
            let provider = ProviderConfig::without_region().with_http_client(http.clone());
            let files = profile_files(files);
            let region = ProfileFileRegionProvider::builder()
                .configure(&provider)
                .profile_name(name)
                .profile_files(files.clone())
                .build();
            let region = region.region().await;
            let credentials = ProfileFileCredentialsProvider::builder()
                .configure(&provider)
                .profile_name(name)
                .profile_files(files)
                .build();
            // Else the first request would fail for it, and be taken for a lost connection.
            let given = credentials
                .provide_credentials()
                .await
                .map_err(|source| Error::Profile { name: name.clone(), source: Box::new(source) })?;
            if given.session_token().is_some() && access.origin == Origin::File {
                return Err(Error::Token { name: name.clone(), endpoint: access.endpoint.to_string() });
            }
            (SharedCredentialsProvider::new(credentials), region.map(|region| region.to_string()))
        }
    })
}

#[expect(deprecated, reason = "the names that are not deprecated are in a crate of the SDK's insides")]
fn profile_files([config, credentials]: &[PathBuf; 2]) -> ProfileFiles {
    let kinds = [(ProfileFileKind::Config, config), (ProfileFileKind::Credentials, credentials)];
    // One of the two is enough, and the SDK fails for one that it is told of and that is not there.
    kinds
        .into_iter()
        .filter(|(_, path)| path.exists())
        .fold(ProfileFiles::builder(), |files, (kind, path)| files.with_file(kind, path))
        .build()
}

async fn pass_on(
    output: &mut GetObjectOutput,
    pieces: tokio::sync::mpsc::Sender<Bytes>,
) -> Result<(), ByteStreamError> {
    while let Some(piece) = output.body.try_next().await? {
        // The writer is gone when the disk is full; its own error says so.
        if pieces.send(piece).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn write_down<W: Write>(
    mut inbox: tokio::sync::mpsc::Receiver<Bytes>,
    mut writer: W,
    mut digests: Digests,
) -> io::Result<(W, super::digest::Digested)> {
    while let Some(piece) = inbox.blocking_recv() {
        writer.write_all(&piece)?;
        digests.update(&piece);
    }
    Ok((writer, digests.finish()))
}

pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// A key as `encoding-type=url` writes it.
fn decoded(key: &str) -> String {
    percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned()
}
