//! Which request means what, and the S3 half of them.

use super::faults::{Kind, Operation};
use super::reply::{Body, Sending, document, full, reply, s3_error, send, set};
use super::rows::{self, Removed, Row, Upload};
use super::sigv4::{self, Right};
use super::{BASE, Error, State, base64, lock, multipart, rest, xml};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use percent_encoding::percent_decode_str;

/// The most keys of a page.
const PAGE: usize = 1000;

/// Answers a request.
pub(super) async fn answer(state: &State, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return reply(400, "text/plain", "the body broke off") };
    let body = body.to_bytes();
    let path = parts.uri.path().to_owned();
    let answered = if let Some(rest) = below(&path, "/s3") {
        s3(state, &parts, rest, &body).await
    } else if let Some(rest) = below(&path, "/object") {
        rest::object(state, &parts, rest, &body).await
    } else if below(&path, "/bucket") == Some("") && parts.method == Method::GET {
        rest::buckets(state, &parts).await
    } else {
        Ok(unknown(state, &parts))
    };
    answered.unwrap_or_else(|error| s3_error(500, "InternalError", &error.to_string(), &path))
}

/// The part of a path below a folder of the interface.
fn below<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(BASE)?.strip_prefix(folder)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// A call that the double was not told of.
pub(super) fn unknown(state: &State, parts: &Parts) -> Response<Body> {
    lock(&state.unknown).push(format!("{} {}", parts.method, parts.uri));
    s3_error(501, "NotImplemented", "the double was not told of this call", parts.uri.path())
}

/// A header's value.
pub(super) fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

/// The characters that keys may have (supabase/storage, `limits.ts`), and no step out of a folder.
pub(super) fn is_valid_key(key: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_/!.*'() &$=@;:+,?-".contains(c);
    !key.is_empty() && key.chars().all(allowed) && !key.split('/').any(|part| matches!(part, "." | ".."))
}

async fn s3(state: &State, parts: &Parts, path: &str, body: &Bytes) -> Result<Response<Body>, Error> {
    let right = match sigv4::check(state, parts) {
        Ok(right) => right,
        Err((code, message)) => return Ok(s3_error(403, code, message, path)),
    };
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (bucket, key) = (decoded(bucket), decoded(key));
    match (&parts.method, bucket.is_empty(), key.is_empty()) {
        (&Method::GET, true, true) => {
            let names = if right == Right::All { rows::buckets(state).await? } else { Vec::new() };
            Ok(document(xml::buckets(&names)))
        }
        (_, false, true) => of_bucket(state, parts, &bucket, right).await,
        (_, false, false) if right == Right::Nothing => {
            Ok(s3_error(404, "NoSuchKey", "Object not found", &key))
        }
        (_, false, false) if !is_valid_key(&key) => {
            Ok(s3_error(400, "InvalidKey", &format!("Invalid key: {key}"), &key))
        }
        (&Method::GET | &Method::HEAD, false, false) => read(state, parts, &bucket, &key).await,
        _ if multipart::is_meant(parts) => multipart::answer(state, parts, (&bucket, &key), body).await,
        (&Method::PUT, false, false) => write(state, parts, (&bucket, &key), body).await,
        (&Method::DELETE, false, false) => remove(state, &bucket, &key).await,
        _ => Ok(unknown(state, parts)),
    }
}

async fn remove(state: &State, bucket: &str, key: &str) -> Result<Response<Body>, Error> {
    if let Some(failed) = failed(state.fault(Operation::Write), key).await {
        return Ok(failed);
    }
    Ok(match rows::remove(state, bucket, key).await? {
        Removed::Gone | Removed::NotThere => reply(204, "application/xml", ""),
        Removed::Referenced(message) => s3_error(409, "ResourceReferenced", &message, key),
    })
}

async fn of_bucket(
    state: &State,
    parts: &Parts,
    bucket: &str,
    right: Right,
) -> Result<Response<Body>, Error> {
    let query = sigv4::query(parts.uri.query());
    let there = right == Right::Nothing || rows::has_bucket(state, bucket).await?;
    if !there {
        return Ok(s3_error(404, "NoSuchBucket", "Bucket not found", bucket));
    }
    match parts.method {
        Method::HEAD => Ok(reply(200, "application/xml", "")),
        Method::GET if query.contains_key("location") => Ok(document(xml::location(&state.region))),
        Method::GET
            if query.get("list-type").is_some_and(|kind| kind == "2") && !query.contains_key("delimiter") =>
        {
            list(state, bucket, right, &query).await
        }
        _ => Ok(unknown(state, parts)),
    }
}

async fn list(
    state: &State,
    bucket: &str,
    right: Right,
    query: &std::collections::BTreeMap<String, String>,
) -> Result<Response<Body>, Error> {
    lock(&state.served).lists += 1;
    let fault = state.fault(Operation::List);
    if let Some(failed) = failed(fault, bucket).await {
        return Ok(failed);
    }
    let wanted = query.get("max-keys").and_then(|max| max.parse().ok()).unwrap_or(PAGE);
    let max_keys = if wanted == 0 || wanted > PAGE { PAGE } else { wanted };
    let after = match query.get("continuation-token") {
        None => query.get("start-after").cloned().unwrap_or_default(),
        Some(token) => match base64::decode(token).and_then(|token| String::from_utf8(token).ok()) {
            Some(key) => key,
            None => {
                return Ok(s3_error(400, "InvalidParameter", "Invalid Parameter continuation-token", bucket));
            }
        },
    };
    let limit = i64::try_from(max_keys + 1).unwrap_or(i64::MAX);
    let mut rows =
        if right == Right::All { rows::after(state, bucket, &after, limit).await? } else { Vec::new() };
    let more = rows.len() > max_keys && fault != Some(Kind::LostPage);
    rows.truncate(max_keys);
    let next = rows.last().filter(|_| more).map(|row| base64::encode_url(row.name.as_bytes()));
    let url_encoded = query.get("encoding-type").is_some_and(|kind| kind == "url");
    Ok(document(xml::list(&xml::Page { bucket, rows: &rows, next, max_keys, url_encoded })))
}

/// The answer of a request that a fault makes fail; a slow one only waits.
pub(super) async fn failed(fault: Option<Kind>, resource: &str) -> Option<Response<Body>> {
    match fault? {
        Kind::Slow(time) => tokio::time::sleep(time).await,
        Kind::Status(status) => {
            let code = match status {
                429 => "SlowDown",
                544 => "DatabaseTimeout",
                500 => "InternalError",
                _ => "ServiceUnavailable",
            };
            return Some(s3_error(status, code, "the double was told to fail", resource));
        }
        Kind::ShortBody | Kind::CutBody | Kind::LostPage => {}
    }
    None
}

async fn read(state: &State, parts: &Parts, bucket: &str, key: &str) -> Result<Response<Body>, Error> {
    if parts.headers.contains_key("range") {
        return Ok(unknown(state, parts));
    }
    let Some(row) = rows::find(state, bucket, key).await? else {
        return Ok(s3_error(404, "NoSuchKey", "Object not found", key));
    };
    if parts.method == Method::HEAD {
        return Ok(head(&row));
    }
    lock(&state.served).gets += 1;
    let fault = state.fault(Operation::Get);
    if let Some(failed) = failed(fault, key).await {
        return Ok(failed);
    }
    let Some(bytes) = state.bytes(bucket, key, row.version.as_deref().unwrap_or_default())? else {
        return Ok(s3_error(404, "S3Error", "The specified key does not exist.", key));
    };
    let etag = state.etag(bucket, key, row.version.as_deref().unwrap_or_default(), &bytes);
    let mut response = reply(200, row.content_type.as_deref().unwrap_or("application/octet-stream"), "");
    set(&mut response, "etag", &etag);
    set(&mut response, "cache-control", row.cache_control.as_deref().unwrap_or("no-cache"));
    if header(parts, "if-none-match").is_some_and(|known| known.trim_matches('"') == etag.trim_matches('"')) {
        *response.status_mut() = hyper::StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let sending = match fault {
        Some(Kind::ShortBody) => Sending::BreaksOff,
        Some(Kind::CutBody) => Sending::Cut,
        _ => Sending::Whole,
    };
    send(&mut response, bytes, sending);
    Ok(response)
}

/// HEAD is answered from the row alone, and says no length when it is 0.
fn head(row: &Row) -> Response<Body> {
    let mut response = reply(200, row.content_type.as_deref().unwrap_or("application/octet-stream"), "");
    if let Some(etag) = &row.etag {
        set(&mut response, "etag", etag);
    }
    if let Some(size) = row.size.filter(|size| *size != 0) {
        set(&mut response, "content-length", &size.to_string());
    }
    *response.body_mut() = full("");
    response
}

/// Conditions and checksums of an upload are not looked at.
async fn write(
    state: &State,
    parts: &Parts,
    (bucket, key): (&str, &str),
    body: &Bytes,
) -> Result<Response<Body>, Error> {
    let streamed =
        header(parts, "x-amz-content-sha256").is_some_and(|sha256| sha256.starts_with("STREAMING-"));
    if streamed || parts.headers.contains_key("x-amz-copy-source") {
        return Ok(unknown(state, parts));
    }
    if let Some(failed) = failed(state.fault(Operation::Write), key).await {
        return Ok(failed);
    }
    let upload = Upload {
        bucket,
        key,
        content_type: header(parts, "content-type"),
        cache_control: header(parts, "cache-control"),
        ..Upload::default()
    };
    if let Some((status, code, message)) = rows::refused(state, &upload, body.len()).await? {
        return Ok(s3_error(status, code, &message, key));
    }
    lock(&state.served).puts += 1;
    let etag = rows::store(state, &upload, body).await?;
    let mut response = reply(200, "application/xml", "");
    set(&mut response, "etag", &etag);
    Ok(response)
}
