//! What a store of evidence asks of S3 beside what Storage needs: writes on a condition, small objects
//! as a whole, and an end to uploads that were cut off.

use super::client::{Client, insist, object_in_words, status};
use super::digest::bare_etag;
use super::error::Error;
use super::upload::arrived;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// On what a write depends (Amazon S3, "Conditional writes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition<'a> {
    /// On nothing.
    Always,
    /// Nothing is there yet.
    Absent,
    /// What is there has this etag.
    Same(&'a str),
}

/// What became of a write on a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It stands, with this etag.
    Written(String),
    /// The condition does not hold.
    Refused,
}

/// A small object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its etag, without quotes.
    pub etag: String,
    /// When it was written, in seconds, by the server's clock.
    pub modified: Option<i64>,
}

impl Client {
    /// Writes bytes with their SHA-256, which a server that knows it checks and repeats. A write that
    /// was cut off is repeated: its condition may be refused because the first one arrived.
    pub async fn put_bytes(
        &self,
        (bucket, key): (&str, &str),
        bytes: &Bytes,
        on: Condition<'_>,
    ) -> Result<Put, Error> {
        let doing = || format!("write {}", object_in_words(bucket, key));
        let sha256 = BASE64_STANDARD.encode(Sha256::digest(bytes));
        let (absent, same) = match on {
            Condition::Always => (None, None),
            Condition::Absent => (Some("*".to_owned()), None),
            Condition::Same(etag) => (None, Some(format!("\"{}\"", bare_etag(etag)))),
        };
        let send = || async {
            let request = self
                .put_request((bucket, key), bytes)
                .checksum_sha256(&sha256)
                .set_if_none_match(absent.clone())
                .set_if_match(same.clone());
            let answer = match request.send().await {
                Ok(answer) => answer,
                // 409: another write of the same key is under way.
                Err(error) if on != Condition::Always && matches!(status(&error), Some(409 | 412)) => {
                    return Ok(Put::Refused);
                }
                // What should be the same is gone.
                Err(error) if same.is_some() && status(&error) == Some(404) => return Ok(Put::Refused),
                Err(error) => return Err(self.error(doing(), &error)),
            };
            if let Some(received) = answer.checksum_sha256().filter(|received| *received != sha256) {
                let (sent, received) = (sha256.clone(), received.to_owned());
                return Err(Error::Altered { doing: doing(), sent, received });
            }
            let written = (answer.e_tag(), answer.server_side_encryption());
            arrived(doing(), written, bytes).map(Put::Written)
        };
        insist(send).await
    }

    /// Reads a small object as a whole; `None` when it is not there.
    pub async fn read(&self, bucket: &str, key: &str) -> Result<Option<Kept>, Error> {
        let doing = || format!("read {}", object_in_words(bucket, key));
        let ask = || async {
            let answer = match self.s3.get_object().bucket(bucket).key(key).send().await {
                Ok(answer) => answer,
                Err(error) => {
                    return match self.error(doing(), &error) {
                        Error::NotFound { code, .. } if code == "NoSuchKey" => Ok(None),
                        error => Err(error),
                    };
                }
            };
            let etag = answer.e_tag().map(|etag| bare_etag(etag).to_owned()).unwrap_or_default();
            let modified = answer.last_modified().map(aws_sdk_s3::primitives::DateTime::secs);
            let body = answer.body.collect().await.map_err(|error| self.broken_off(doing(), &error))?;
            Ok(Some(Kept { bytes: body.into_bytes(), etag, modified }))
        };
        insist(ask).await
    }

    /// Ends uploads in parts that were cut off, of keys that begin with this: their parts cost money
    /// and are in no listing. Returns how many there were; a server that does not list them has none.
    pub async fn end_unfinished(&self, bucket: &str, prefix: &str) -> Result<usize, Error> {
        let doing =
            || format!("list the uploads that were cut off in the bucket `{}`", bucket.escape_debug());
        let ask = || async {
            let request = self.s3.list_multipart_uploads().bucket(bucket).prefix(prefix);
            request.send().await.map_err(|error| self.error(doing(), &error))
        };
        let listed = insist(ask).await?;
        let mut ended = 0;
        for upload in listed.uploads() {
            let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else { continue };
            let abort = self.s3.abort_multipart_upload().bucket(bucket).key(key).upload_id(id);
            abort.send().await.map_err(|error| self.error(doing(), &error))?;
            ended += 1;
        }
        Ok(ended)
    }
}
