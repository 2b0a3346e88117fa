//! Answers, and bodies that can break off.

use super::xml;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Response, StatusCode};
use std::io;

/// The body of an answer.
pub(super) type Body = BoxBody<Bytes, io::Error>;

/// Pieces in which an object goes out.
const PIECE: usize = 256 << 10;

/// A whole body.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(io::Error::other).boxed()
}

/// A document or an object's headers without its body.
pub(super) fn reply(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, CONTENT_TYPE.as_str(), content_type);
    response
}

/// A document of the S3 protocol.
pub(super) fn document(xml: String) -> Response<Body> {
    reply(200, "application/xml; charset=utf-8", xml)
}

/// An error of the S3 protocol.
pub(super) fn s3_error(status: u16, code: &str, message: &str, resource: &str) -> Response<Body> {
    reply(status, "application/xml; charset=utf-8", xml::error(code, message, resource))
}

/// An error of the REST interface, which answers most of them with status 400.
pub(super) fn rest_error(status: u16, error: &str, message: &str) -> Response<Body> {
    let sent = if status == 404 || status == 409 { 400 } else { status };
    json(sent, &serde_json::json!({ "statusCode": status.to_string(), "error": error, "message": message }))
}

/// A JSON document.
pub(super) fn json(status: u16, value: &serde_json::Value) -> Response<Body> {
    reply(status, "application/json; charset=utf-8", value.to_string())
}

/// Sets a header whose value may not be one.
pub(super) fn set(response: &mut Response<Body>, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) =
        (hyper::header::HeaderName::from_bytes(name.as_bytes()), hyper::header::HeaderValue::from_str(value))
    {
        response.headers_mut().insert(name, value);
    }
}

/// How an object's body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// All of it.
    Whole,
    /// Half of it, then the connection breaks off.
    BreaksOff,
    /// Half of it, and its length was not announced.
    Cut,
}

/// Puts an object into an answer.
pub(super) fn send(response: &mut Response<Body>, bytes: Vec<u8>, sending: Sending) {
    let all = Bytes::from(bytes);
    if sending != Sending::Cut {
        set(response, CONTENT_LENGTH.as_str(), &all.len().to_string());
    }
    let sent = if sending == Sending::Whole { all.clone() } else { all.slice(..all.len() / 2) };
    let starts: Vec<usize> = (0..sent.len()).step_by(PIECE).collect();
    let mut pieces: Vec<io::Result<Frame<Bytes>>> = starts
        .into_iter()
        .map(|start| Ok(Frame::data(sent.slice(start..sent.len().min(start + PIECE)))))
        .collect();
    if sending == Sending::BreaksOff {
        pieces.push(Err(io::Error::other("the connection breaks off")));
    }
    *response.body_mut() = StreamBody::new(stream::iter(pieces)).boxed();
}
