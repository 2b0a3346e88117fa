//! Signatures of requests (AWS Signature Version 4), checked over the path as it was sent: a
//! double that took the path apart first would not notice a client that glues it wrong.

use super::State;
use super::keys::hmac;
use crate::disk;
use hyper::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;

/// What a signature entitles to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Every row.
    All,
    /// Those that policies show, and the double has none that show any.
    Nothing,
}

/// Why a request is not let in: code and message, as the server puts them.
pub(super) type Refusal = (&'static str, &'static str);

struct Signature<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    headers: Vec<&'a str>,
    hex: &'a str,
}

/// Checks a request's signature.
pub(super) fn check(state: &State, parts: &Parts) -> Result<Right, Refusal> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let missing = ("InvalidSignature", "Missing authorization header");
    let sent = read(header("authorization").ok_or(missing)?)
        .ok_or(("InvalidSignature", "Invalid signature format"))?;
    let keys = &state.keys;
    let (secret, right) = match header("x-amz-security-token") {
        Some(token) => {
            if sent.access_key != keys.project_ref {
                return Err(("AccessDenied", "Invalid Access Key"));
            }
            let role = keys.role(token).ok_or(("AccessDenied", "invalid signature"))?;
            (&keys.anon, if role == "service_role" { Right::All } else { Right::Nothing })
        }
        None if sent.access_key == keys.access_key_id => (&keys.secret_access_key, Right::All),
        None => return Err(("AccessDenied", "Invalid Access Key")),
    };
    // The region that a client means is taken when it is one of these, else the project's own.
    let region = if ["auto", "us-east-1"].contains(&sent.region) { sent.region } else { &state.region };
    let at = header("x-amz-date").unwrap_or_default();
    let scope = format!("{}/{region}/s3/aws4_request", sent.date);
    let request = canonical(parts, &sent);
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", disk::sha256(request.as_bytes()));
    let mut key = format!("AWS4{}", secret.expose()).into_bytes();
    for part in [sent.date, region, "s3", "aws4_request"] {
        key = hmac(&key, part);
    }
    if at.starts_with(sent.date) && hex::encode(hmac(&key, &text)) == sent.hex {
        Ok(right)
    } else {
        Err((
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        ))
    }
}

fn read(authorization: &str) -> Option<Signature<'_>> {
    let fields: BTreeMap<&str, &str> = authorization
        .strip_prefix("AWS4-HMAC-SHA256 ")?
        .split(',')
        .filter_map(|field| field.trim().split_once('='))
        .collect();
    let mut credential = fields.get("Credential")?.split('/');
    let (access_key, date, region) = (credential.next()?, credential.next()?, credential.next()?);
    (credential.next()? == "s3" && credential.next()? == "aws4_request" && credential.next().is_none())
        .then_some(())?;
    let headers = fields.get("SignedHeaders")?.split(';').collect();
    Some(Signature { access_key, date, region, headers, hex: fields.get("Signature")? })
}

fn canonical(parts: &Parts, sent: &Signature<'_>) -> String {
    let mut query: Vec<(String, String)> =
        query(parts.uri.query()).into_iter().map(|(name, value)| (encoded(&name), encoded(&value))).collect();
    query.sort();
    let query: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut names = sent.headers.clone();
    names.sort_unstable();
    let headers: Vec<String> = names
        .iter()
        .map(|name| {
            let values: Vec<&str> = parts
                .headers
                .get_all(*name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(str::trim)
                .collect();
            format!("{name}:{}\n", values.join(","))
        })
        .collect();
    let payload = parts.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    format!(
        "{}\n{}\n{}\n{}\n{}\n{}",
        parts.method,
        parts.uri.path(),
        query.join("&"),
        headers.concat(),
        names.join(";"),
        payload.unwrap_or("UNSIGNED-PAYLOAD"),
    )
}

/// The parameters of a request, decoded.
pub(super) fn query(query: Option<&str>) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
