//! The REST half: what a restore writes with, since it keeps every kind of metadata.

use super::faults::{Kind, Operation};
use super::reply::{Body, Sending, json, reply, rest_error, send, set};
use super::routes::{header, is_valid_key, unknown};
use super::rows::{self, Removed, Upload};
use super::{Error, State, base64, lock};
use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

/// Why a request is not let in.
fn refused(state: &State, parts: &Parts) -> Option<Response<Body>> {
    let token = header(parts, "authorization").and_then(|value| value.strip_prefix("Bearer "));
    let Some(role) = token.and_then(|token| state.keys.role(token)) else {
        return Some(rest_error(403, "Unauthorized", "Invalid Compact JWS"));
    };
    (role != "service_role")
        .then(|| rest_error(403, "Unauthorized", "new row violates row-level security policy"))
}

/// Answers a request for the list of buckets.
pub(super) async fn buckets(state: &State, parts: &Parts) -> Result<Response<Body>, Error> {
    if let Some(refused) = refused(state, parts) {
        return Ok(refused);
    }
    Ok(json(200, &Value::Array(rows::bucket_list(state).await?)))
}

/// Answers a request below `/object`.
pub(super) async fn object(
    state: &State,
    parts: &Parts,
    path: &str,
    body: &Bytes,
) -> Result<Response<Body>, Error> {
    if let Some(refused) = refused(state, parts) {
        return Ok(refused);
    }
    if parts.method != Method::GET
        && let Some(Kind::Status(status)) = state.fault(Operation::Write)
    {
        return Ok(rest_error(status, "Error", "the double was told to fail"));
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    if path == "move" && parts.method == Method::POST {
        return rename(state, body).await;
    }
    let (path, is_info) = path.strip_prefix("info/").map_or((path, false), |path| (path, true));
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let Some((bucket, key)) = path.split_once('/').filter(|(_, key)| !key.is_empty()) else {
        return Ok(unknown(state, parts));
    };
    if !is_valid_key(key) {
        return Ok(rest_error(400, "InvalidKey", &format!("Invalid key: {key}")));
    }
    match parts.method {
        Method::GET if is_info => info(state, bucket, key).await,
        Method::GET => read(state, bucket, key).await,
        Method::POST | Method::PUT if !is_info => write(state, parts, (bucket, key), body).await,
        Method::DELETE if !is_info => Ok(match rows::remove(state, bucket, key).await? {
            Removed::Gone => json(200, &json!({ "message": "Successfully deleted" })),
            Removed::NotThere => not_found(),
            Removed::Referenced(message) => rest_error(409, "ResourceReferenced", &message),
        }),
        _ => Ok(unknown(state, parts)),
    }
}

fn not_found() -> Response<Body> {
    rest_error(404, "not_found", "Object not found")
}

async fn write(
    state: &State,
    parts: &Parts,
    (bucket, key): (&str, &str),
    body: &Bytes,
) -> Result<Response<Body>, Error> {
    let upsert = parts.method == Method::PUT || header(parts, "x-upsert") == Some("true");
    if !upsert && rows::find(state, bucket, key).await?.is_some() {
        return Ok(rest_error(409, "Duplicate", "The resource already exists"));
    }
    let metadata = header(parts, "x-metadata").and_then(base64::decode);
    let metadata = metadata.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let upload = Upload {
        bucket,
        key,
        content_type: header(parts, "content-type"),
        cache_control: header(parts, "cache-control"),
        robots: header(parts, "x-robots-tag"),
        user_metadata: metadata.as_deref(),
        etag: None,
    };
    if let Some((status, code, message)) = rows::refused(state, &upload, body.len()).await? {
        return Ok(rest_error(status, code, &message));
    }
    lock(&state.served).puts += 1;
    rows::store(state, &upload, body).await?;
    let id = rows::find(state, bucket, key).await?.map(|row| row.id);
    Ok(json(200, &json!({ "Id": id, "Key": format!("{bucket}/{key}") })))
}

async fn read(state: &State, bucket: &str, key: &str) -> Result<Response<Body>, Error> {
    let Some(row) = rows::find(state, bucket, key).await? else { return Ok(not_found()) };
    lock(&state.served).gets += 1;
    let Some(bytes) = state.bytes(bucket, key, row.version.as_deref().unwrap_or_default())? else {
        return Ok(not_found());
    };
    let mut response = reply(200, row.content_type.as_deref().unwrap_or("application/octet-stream"), "");
    set(&mut response, "cache-control", row.cache_control.as_deref().unwrap_or("no-cache"));
    send(&mut response, bytes, Sending::Whole);
    Ok(response)
}

async fn info(state: &State, bucket: &str, key: &str) -> Result<Response<Body>, Error> {
    let Some(row) = rows::find(state, bucket, key).await? else { return Ok(not_found()) };
    let metadata = row.user_metadata.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    Ok(json(
        200,
        &json!({
            "id": row.id, "name": row.name, "version": row.version, "bucket_id": bucket, "size": row.size,
            "content_type": row.content_type, "cache_control": row.cache_control, "etag": row.etag,
            "metadata": metadata, "last_modified": row.updated_at,
        }),
    ))
}

/// The row keeps its id; bytes get a new version.
async fn rename(state: &State, body: &Bytes) -> Result<Response<Body>, Error> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let (Some(bucket), Some(from), Some(to)) =
        (asked["bucketId"].as_str(), asked["sourceKey"].as_str(), asked["destinationKey"].as_str())
    else {
        return Ok(rest_error(400, "Error", "body must have required properties"));
    };
    let to_bucket = asked["destinationBucket"].as_str().unwrap_or(bucket);
    if !is_valid_key(to) {
        return Ok(rest_error(400, "InvalidKey", &format!("Invalid key: {to}")));
    }
    let Some(row) = rows::find(state, bucket, from).await? else { return Ok(not_found()) };
    if rows::find(state, to_bucket, to).await?.is_some() {
        return Ok(rest_error(409, "Duplicate", "The resource already exists"));
    }
    let moved = rows::rename(state, (bucket, from), (to_bucket, to), &row).await?;
    let done = || json(200, &json!({ "message": "Successfully moved", "Id": row.id }));
    Ok(if moved { done() } else { not_found() })
}
