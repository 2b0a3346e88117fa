//! Uploads in parts, of the S3 half. What is under way has a row, and its parts are kept apart.

use super::faults::Operation;
use super::reply::{Body, document, reply, s3_error, set};
use super::routes::{failed, header, unknown};
use super::rows::{self, Upload};
use super::{Error, State, lock, sigv4, xml};
use bytes::Bytes;
use hyper::http::request::Parts as Request;
use hyper::{Method, Response};
use md5::{Digest as _, Md5};
use std::collections::BTreeMap;

/// Parts by the upload's id and their number.
pub(super) type Parts = BTreeMap<String, BTreeMap<u32, Bytes>>;

/// Whether a request is about an upload in parts.
pub(super) fn is_meant(request: &Request) -> bool {
    let query = sigv4::query(request.uri.query());
    query.contains_key("uploads") || query.contains_key("uploadId")
}

/// Answers it.
pub(super) async fn answer(
    state: &State,
    request: &Request,
    (bucket, key): (&str, &str),
    body: &Bytes,
) -> Result<Response<Body>, Error> {
    let query = sigv4::query(request.uri.query());
    if let Some(failed) = failed(state.fault(Operation::Write), key).await {
        return Ok(failed);
    }
    let id = query.get("uploadId").map(String::as_str);
    let number = query.get("partNumber").and_then(|number| number.parse::<u32>().ok());
    match (&request.method, id, number) {
        (&Method::POST, None, None) => begin(state, request, (bucket, key)).await,
        (&Method::PUT, Some(id), Some(number)) => Ok(take(state, id, number, body)),
        (&Method::POST, Some(id), None) => complete(state, (bucket, key), id).await,
        (&Method::DELETE, Some(id), None) => {
            forget(state, id).await?;
            Ok(reply(204, "application/xml", ""))
        }
        _ => Ok(unknown(state, request)),
    }
}

async fn begin(
    state: &State,
    request: &Request,
    (bucket, key): (&str, &str),
) -> Result<Response<Body>, Error> {
    let upload = Upload { bucket, key, content_type: header(request, "content-type"), ..Upload::default() };
    if let Some((status, code, message)) = rows::refused(state, &upload, 0).await? {
        return Ok(s3_error(status, code, &message, key));
    }
    let id = rows::new_version()?;
    let metadata = serde_json::json!({
        "mimetype": header(request, "content-type"), "cacheControl": header(request, "cache-control"),
    });
    let sql =
        "insert into storage.s3_multipart_uploads (id, upload_signature, bucket_id, key, version, metadata)
        values ($1, '', $2, $3, $1, $4::text::jsonb)";
    state.session.client.execute(sql, &[&id, &bucket, &key, &metadata.to_string()]).await?;
    lock(&state.parts).insert(id.clone(), BTreeMap::new());
    Ok(document(xml::begun(bucket, key, &id)))
}

fn take(state: &State, id: &str, number: u32, body: &Bytes) -> Response<Body> {
    match lock(&state.parts).get_mut(id) {
        None => s3_error(404, "NoSuchUpload", "Upload not found", id),
        Some(parts) => {
            parts.insert(number, body.clone());
            let mut response = reply(200, "application/xml", "");
            set(&mut response, "etag", &format!("\"{}\"", hex::encode(Md5::digest(body))));
            response
        }
    }
}

async fn complete(state: &State, (bucket, key): (&str, &str), id: &str) -> Result<Response<Body>, Error> {
    let Some(parts) = lock(&state.parts).get(id).cloned() else {
        return Ok(s3_error(404, "NoSuchUpload", "Upload not found", id));
    };
    let digests: Vec<u8> = parts.values().flat_map(Md5::digest).collect();
    let etag = format!("\"{}-{}\"", hex::encode(Md5::digest(&digests)), parts.len());
    let bytes = parts.into_values().collect::<Vec<_>>().concat();
    let sql = "select metadata->>'mimetype', metadata->>'cacheControl' from storage.s3_multipart_uploads where id = $1";
    let row = state.session.client.query_one(sql, &[&id]).await?;
    let (content_type, cache_control): (Option<String>, Option<String>) = (row.get(0), row.get(1));
    let upload = Upload {
        bucket,
        key,
        content_type: content_type.as_deref(),
        cache_control: cache_control.as_deref(),
        etag: Some(&etag),
        ..Upload::default()
    };
    if let Some((status, code, message)) = rows::refused(state, &upload, bytes.len()).await? {
        return Ok(s3_error(status, code, &message, key));
    }
    lock(&state.served).puts += 1;
    rows::store(state, &upload, &bytes).await?;
    forget(state, id).await?;
    Ok(document(xml::completed(bucket, key, &etag)))
}

async fn forget(state: &State, id: &str) -> Result<(), Error> {
    let sql = "delete from storage.s3_multipart_uploads where id = $1";
    state.session.client.execute(sql, &[&id]).await?;
    lock(&state.parts).remove(id);
    Ok(())
}
