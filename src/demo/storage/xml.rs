//! The documents of the S3 protocol.

use super::rows::Row;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The namespace that every document of the server has, errors too since 2026-07-22.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// What stays as it is in a key of a listing with `encoding-type=url`.
const IN_KEYS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// A page of a listing.
pub(super) struct Page<'a> {
    pub(super) bucket: &'a str,
    pub(super) rows: &'a [Row],
    pub(super) next: Option<String>,
    pub(super) max_keys: usize,
    pub(super) url_encoded: bool,
}

/// An error.
pub(super) fn error(code: &str, message: &str, resource: &str) -> String {
    document(
        "Error",
        &format!(
            "<Code>{}</Code><Message>{}</Message><Resource>{}</Resource>",
            escaped(code),
            escaped(message),
            escaped(resource)
        ),
    )
}

/// The answer to `ListObjectsV2`.
pub(super) fn list(page: &Page<'_>) -> String {
    let key = |key: &str| {
        if page.url_encoded { utf8_percent_encode(key, IN_KEYS).to_string() } else { escaped(key) }
    };
    let contents: Vec<String> = page
        .rows
        .iter()
        .map(|row| {
            let etag = row.etag.as_deref().map_or_else(String::new, |etag| format!("<ETag>{}</ETag>", escaped(etag)));
            format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified>{etag}<Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                key(&row.name),
                row.updated_at,
                row.size.unwrap_or_default(),
            )
        })
        .collect();
    let next = page
        .next
        .as_deref()
        .map_or_else(String::new, |token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let encoding = if page.url_encoded { "<EncodingType>url</EncodingType>" } else { "" };
    document(
        "ListBucketResult",
        &format!(
            "<Name>{}</Name><Prefix/>{encoding}<MaxKeys>{}</MaxKeys><KeyCount>{}</KeyCount><IsTruncated>{}</IsTruncated>{next}{}",
            escaped(page.bucket),
            page.max_keys,
            page.rows.len(),
            page.next.is_some(),
            contents.concat(),
        ),
    )
}

/// The answer to `ListBuckets`.
pub(super) fn buckets(names: &[String]) -> String {
    let buckets: Vec<String> =
        names.iter().map(|name| format!("<Bucket><Name>{}</Name></Bucket>", escaped(name))).collect();
    document("ListAllMyBucketsResult", &format!("<Buckets>{}</Buckets>", buckets.concat()))
}

/// The answer to `CreateMultipartUpload`.
pub(super) fn begun(bucket: &str, key: &str, id: &str) -> String {
    document(
        "InitiateMultipartUploadResult",
        &format!("<Bucket>{}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>", escaped(bucket), escaped(key)),
    )
}

/// The answer to `CompleteMultipartUpload`.
pub(super) fn completed(bucket: &str, key: &str, etag: &str) -> String {
    document(
        "CompleteMultipartUploadResult",
        &format!(
            "<Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag>",
            escaped(bucket),
            escaped(key),
            escaped(etag)
        ),
    )
}

/// The answer to `GetBucketLocation`.
pub(super) fn location(region: &str) -> String {
    document("LocationConstraint", &escaped(region))
}

fn document(root: &str, inside: &str) -> String {
    format!(r#"<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="{NAMESPACE}">{inside}</{root}>"#)
}

/// Text in a document; what XML has no form for is replaced, since one with it could not be read.
fn escaped(text: &str) -> String {
    let has_no_form = |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    text.replace(has_no_form, "\u{fffd}")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\r', "&#13;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_can_be_read_whatever_a_key_holds() {
        assert_eq!(escaped("c\u{1}\t\r<\u{ffff}"), "c\u{fffd}\t&#13;&lt;\u{fffd}");
    }
}
