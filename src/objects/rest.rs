//! The REST half of Storage: an upload there keeps every kind of metadata, and a move takes the
//! bytes along on the server. It needs the service role's key and no signature.

use super::Endpoint;
use super::client::{insist, object_in_words};
use super::error::{Error, PASSING, cause};
use crate::secret::Secret;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::HttpError;
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long a request may take: a move copies on the server.
const TIMEOUT: Duration = Duration::from_mins(5);
/// Longer user metadata does not fit into the headers that the server reads.
const MOST_METADATA: usize = 8 << 10;
/// What stays as it is in the path of a request.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A client of the REST half; copies of it share its connections.
#[derive(Clone, Debug)]
pub struct Rest {
    connector: Arc<Connector>,
    base: String,
    key: Secret,
}

/// An object to write, with everything that its row keeps of it.
#[derive(Clone, Debug, Default)]
pub struct Written<'a> {
    /// What `Content-Type` it is served with.
    pub content_type: Option<&'a str>,
    /// What `Cache-Control` it is served with.
    pub cache_control: Option<&'a str>,
    /// What `X-Robots-Tag` it is served with.
    pub robots: Option<&'a str>,
    /// The application's own metadata, as JSON.
    pub user_metadata: Option<&'a str>,
}

/// A request.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: Bytes,
}

/// An error as the server puts it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    #[serde(rename = "statusCode")]
    status: String,
    error: String,
    message: String,
}

impl Rest {
    /// Makes a client; nothing is asked yet. `None` when the endpoint is not below the path that
    /// every project has.
    pub fn new(endpoint: &Endpoint, key: &Secret) -> Option<Self> {
        let base = endpoint.as_str().strip_suffix("s3/")?.to_owned();
        let connector = Connector::builder().tls_provider(Provider::rustls(CryptoMode::Ring)).build();
        Some(Self { connector: Arc::new(connector), base, key: key.clone() })
    }

    /// Whether a request of this half can name the key: what is between here and the server may take
    /// an empty part of a path away.
    pub fn can_name(bucket: &str, key: &str) -> bool {
        let part = |part: &str| !part.is_empty() && part.trim() == part && !matches!(part, "." | "..");
        part(bucket) && key.split('/').all(part)
    }

    /// Asks whether the server takes the key.
    pub async fn sign_in(&self) -> Result<(), Error> {
        let request = || Request { method: "GET", path: "bucket", headers: &[], body: Bytes::new() };
        let ask = || self.send(request(), "list the buckets".to_owned());
        insist(ask).await.map(drop)
    }

    /// Writes an object, over the one that is there, whose row keeps its id.
    pub async fn put(
        &self,
        (bucket, key): (&str, &str),
        bytes: &Bytes,
        written: &Written<'_>,
    ) -> Result<(), Error> {
        let path = format!("object/{}/{}", encoded(bucket), encoded(key));
        let metadata = written.user_metadata.filter(|text| text.len() <= MOST_METADATA);
        let metadata = metadata.map(aws_smithy_types::base64::encode);
        let headers = [
            ("x-upsert", Some("true")),
            ("content-type", written.content_type),
            ("cache-control", written.cache_control),
            ("x-robots-tag", written.robots),
            ("x-metadata", metadata.as_deref()),
        ];
        // What no header can hold is set in the row afterwards.
        let fits = |text: &&str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let headers: Vec<(&str, &str)> =
            headers.into_iter().filter_map(|(name, value)| Some((name, value.filter(fits)?))).collect();
        let doing = || format!("write {}", object_in_words(bucket, key));
        let request = || Request { method: "POST", path: &path, headers: &headers, body: bytes.clone() };
        insist(|| self.send(request(), doing())).await.map(drop)
    }

    /// Moves an object on the server: its row keeps its id, and the old bytes go.
    pub async fn relocate(&self, from: (&str, &str), to: (&str, &str)) -> Result<(), Error> {
        let body = json!({
            "bucketId": from.0, "sourceKey": from.1, "destinationBucket": to.0, "destinationKey": to.1,
        });
        let body = Bytes::from(body.to_string());
        let doing = || format!("move {} to {}", object_in_words(from.0, from.1), object_in_words(to.0, to.1));
        let headers = [("content-type", "application/json")];
        let request =
            || Request { method: "POST", path: "object/move", headers: &headers, body: body.clone() };
        insist(|| self.send(request(), doing())).await.map(drop)
    }

    async fn send(&self, request: Request<'_>, doing: String) -> Result<Bytes, Error> {
        let broken =
            |doing: String, problem: String| Error::Transport { endpoint: self.base.clone(), doing, problem };
        let Ok(request) = self.signed(request) else {
            // The error may name the header's value.
            return Err(broken(doing, "the request cannot be made: is the key one line of text?".to_owned()));
        };
        let answered = tokio::time::timeout(TIMEOUT, async {
            let answer = self.connector.call(request).await.map_err(|error| cause(&error))?;
            let status = answer.status().as_u16();
            let body = ByteStream::new(answer.into_body()).collect().await.map_err(|error| cause(&error))?;
            Ok((status, body.into_bytes()))
        });
        match answered.await {
            Err(_) => Err(broken(doing, format!("no answer in {} minutes", TIMEOUT.as_secs() / 60))),
            Ok(Err(problem)) => Err(broken(doing, problem)),
            Ok(Ok((200..=299, body))) => Ok(body),
            Ok(Ok((status, body))) => Err(self.refused(doing, status, &body)),
        }
    }

    fn signed(&self, request: Request<'_>) -> Result<HttpRequest, HttpError> {
        let Request { method, path, headers, body } = request;
        let length = body.len().to_string();
        let mut signed = HttpRequest::new(SdkBody::from(body));
        signed.set_method(method)?;
        signed.set_uri(format!("{}{path}", self.base))?;
        let sent = signed.headers_mut();
        // As the platform's own clients do: its gateway turns a key that is no JWT into one.
        sent.try_insert("apikey", self.key.expose().to_owned())?;
        sent.try_insert("authorization", format!("Bearer {}", self.key.expose()))?;
        sent.try_insert("content-length", length)?;
        for (name, value) in headers {
            sent.try_insert((*name).to_owned(), (*value).to_owned())?;
        }
        Ok(signed)
    }

    /// Most errors come with status 400, and their own inside.
    fn refused(&self, doing: String, status: u16, body: &[u8]) -> Error {
        let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
        let status = refusal.status.parse().unwrap_or(status);
        let Refusal { error: code, message, .. } = refusal;
        match status {
            status if PASSING.contains(&status) => Error::Busy { doing, status, code },
            401 | 403 => Error::Denied { endpoint: self.base.clone(), doing, code, message },
            404 => Error::NotFound { doing, code },
            409 if code == "ResourceReferenced" => Error::Referenced { doing, message },
            409 => Error::Taken { doing },
            400 if code == "InvalidKey" => Error::InvalidKey { doing },
            status => Error::Unexpected { doing, status, code, message },
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_path_would_lose_are_not_named() {
        for (key, can) in [
            ("a/b c?d", true),
            ("a//b", false),
            ("/a", false),
            ("a/", false),
            (" a", false),
            ("a/ b", false),
            ("a/../b", false),
        ] {
            assert_eq!(Rest::can_name("b", key), can, "{key}");
        }
    }

    #[test]
    fn its_address_is_beside_that_of_s3() {
        let endpoint = Endpoint::parse("https://abc.storage.supabase.co").unwrap();
        let rest = Rest::new(&endpoint, &Secret::new("secret-key")).unwrap();
        assert_eq!(rest.base, "https://abc.storage.supabase.co/storage/v1/");
        assert!(!format!("{rest:?}").contains("secret-key"));
        assert!(Rest::new(&Endpoint::parse("https://h/elsewhere").unwrap(), &Secret::new("x")).is_none());
    }
}
