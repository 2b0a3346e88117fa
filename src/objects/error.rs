//! What the endpoint's answers mean.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::io;

/// Statuses after which the same request may succeed. 544 is Supabase's own `DatabaseTimeout`.
pub(super) const PASSING: [u16; 6] = [429, 500, 502, 503, 504, 544];

/// Why the endpoint could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing to sign with.
    #[error("there are no keys for `{0}`")]
    NoKeys(String),
    /// The profile could not be used.
    #[error("the AWS profile `{name}` cannot be used")]
    Profile {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The profile holds what would be sent as it is to a host that nobody vouches for.
    #[error(
        "the AWS profile `{name}` holds a session token, which is sent as it is, and only `storage_url` names \
         `{endpoint}`; set SUPA_SAFE_STORAGE_URL to it if it may have the token"
    )]
    Token {
        /// The profile's name.
        name: String,
        /// The endpoint.
        endpoint: String,
    },
    /// The access key id belongs to nobody.
    #[error("`{endpoint}` does not know this access key id")]
    UnknownKey {
        /// The endpoint.
        endpoint: String,
    },
    /// The signature is not the one that the server computes.
    #[error("`{endpoint}` refused the signature: the secret key is wrong, or the region is not `{region}`")]
    Signature {
        /// The endpoint.
        endpoint: String,
        /// What was signed for.
        region: String,
    },
    /// The server insists on another region.
    #[error("`{endpoint}` is not in the region `{region}`")]
    Region {
        /// The endpoint.
        endpoint: String,
        /// What was signed for.
        region: String,
    },
    /// The keys may not do that.
    #[error("`{endpoint}` does not allow these keys to {doing} ({code}: {message})")]
    Denied {
        /// The endpoint.
        endpoint: String,
        /// What was being done.
        doing: String,
        /// Its code.
        code: String,
        /// Its message.
        message: String,
    },
    /// There is no such bucket or object, by the server's rows.
    #[error("cannot {doing}: it is not there ({code})")]
    NotFound {
        /// What was being done.
        doing: String,
        /// Its code.
        code: String,
    },
    /// There is a row, and no bytes belong to it.
    #[error("cannot {doing}: it has a row and no bytes")]
    NoBytes {
        /// What was being done.
        doing: String,
    },
    /// The server does not accept such a key.
    #[error("cannot {doing}: the server does not accept such a key")]
    InvalidKey {
        /// What was being done.
        doing: String,
    },
    /// The server is overloaded, or fails.
    #[error("cannot {doing}: the server answered {status} {code}")]
    Busy {
        /// What was being done.
        doing: String,
        /// Its status.
        status: u16,
        /// Its code.
        code: String,
    },
    /// No answer, or one that broke off.
    #[error("cannot {doing} at `{endpoint}`: {problem}")]
    Transport {
        /// The endpoint.
        endpoint: String,
        /// What was being done.
        doing: String,
        /// What happened, without the request.
        problem: String,
    },
    /// Fewer or more bytes than were announced.
    #[error("cannot {doing}: {received} bytes came instead of {announced}")]
    Length {
        /// What was being done.
        doing: String,
        /// Bytes that were announced.
        announced: u64,
        /// Bytes that came.
        received: u64,
    },
    /// What arrived at the server are other bytes.
    #[error("cannot {doing}: the server has bytes with the MD5 {received} instead of {sent}")]
    Altered {
        /// What was being done.
        doing: String,
        /// The MD5 of what was sent.
        sent: String,
        /// What the server answered.
        received: String,
    },
    /// Something in the database refers to the row.
    #[error("cannot {doing}: rows of other tables refer to it ({message})")]
    Referenced {
        /// What was being done.
        doing: String,
        /// The server's message.
        message: String,
    },
    /// Something is there already.
    #[error("cannot {doing}: the place is taken")]
    Taken {
        /// What was being done.
        doing: String,
    },
    /// An answer that none of the above is.
    #[error("cannot {doing}: the server answered {status} {code} ({message})")]
    Unexpected {
        /// What was being done.
        doing: String,
        /// Its status.
        status: u16,
        /// Its code.
        code: String,
        /// Its message.
        message: String,
    },
    /// The bytes could not be written.
    #[error("cannot write the bytes of an object")]
    Io(#[from] io::Error),
}

/// Where a request went, for the text of its error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) endpoint: &'a str,
    pub(super) region: &'a str,
}

impl Error {
    /// Whether the same request may succeed a moment later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Transport { .. } | Self::Length { .. })
    }

    /// Whether every other request would fail in the same way.
    pub fn is_about_access(&self) -> bool {
        matches!(
            self,
            Self::NoKeys(_)
                | Self::Profile { .. }
                | Self::UnknownKey { .. }
                | Self::Signature { .. }
                | Self::Region { .. }
                | Self::Denied { .. }
        )
    }

    /// Reads the answer to a request.
    pub(super) fn of<E>(place: Place<'_>, doing: String, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let Some(status) = error.raw_response().map(|response| response.status().as_u16()) else {
            let endpoint = place.endpoint.to_owned();
            return Self::Transport { endpoint, doing, problem: cause(error) };
        };
        let code = error.code().unwrap_or("no code").to_owned();
        let message = error.message().unwrap_or("no message").to_owned();
        let endpoint = place.endpoint.to_owned();
        let region = place.region.to_owned();
        match (status, code.as_str()) {
            (200..=299, _) => Self::Transport { endpoint, doing, problem: cause(error) },
            (status, _) if PASSING.contains(&status) => Self::Busy { doing, status, code },
            (403, "SignatureDoesNotMatch") => Self::Signature { endpoint, region },
            (403, "InvalidAccessKeyId") => Self::UnknownKey { endpoint },
            // The server has one code for these, and tells them apart by its message alone.
            (403, "AccessDenied") if message.contains("Invalid Access Key") => Self::UnknownKey { endpoint },
            (403, "AccessDenied") if message.contains("Invalid Region") => Self::Region { endpoint, region },
            (401 | 403, _) => Self::Denied { endpoint, doing, code, message },
            (404, "S3Error") => Self::NoBytes { doing },
            (404, _) => Self::NotFound { doing, code },
            (400, "InvalidKey") => Self::InvalidKey { doing },
            (409, "ResourceReferenced") => Self::Referenced { doing, message },
            _ => Self::Unexpected { doing, status, code, message },
        }
    }
}

/// The innermost cause of an error that is no answer.
pub(super) fn cause<E: std::error::Error + 'static>(error: &E) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A body that broke off.
pub(super) fn broken_off(
    place: Place<'_>,
    doing: String,
    error: &(impl std::error::Error + 'static),
) -> Error {
    Error::Transport { endpoint: place.endpoint.to_owned(), doing, problem: cause(error) }
}
