//! Bytes by bucket, key, and version, as the server's backend has them: a row that is renamed by
//! SQL has lost its bytes, and finds them again when it is renamed back.

use super::{State, lock};
use crate::disk;
use fs_err as fs;
use md5::{Digest as _, Md5};
use std::io;
use std::path::PathBuf;

/// The server splits larger uploads into parts of this size.
const PART: usize = 16 << 20;

/// The etag that the backend gives to bytes, with its quotes.
pub fn put_etag(bytes: &[u8]) -> String {
    if bytes.len() <= PART {
        return format!("\"{}\"", hex::encode(Md5::digest(bytes)));
    }
    let parts: Vec<u8> = bytes.chunks(PART).flat_map(Md5::digest).collect();
    format!("\"{}-{}\"", hex::encode(Md5::digest(&parts)), bytes.len().div_ceil(PART))
}

impl State {
    /// The file of a version. Keys are foreign text, so it is named by a digest.
    pub(super) fn file(&self, bucket: &str, key: &str, version: &str) -> PathBuf {
        self.folder.join(disk::sha256(format!("{bucket}\0{key}\0{version}").as_bytes()))
    }

    /// Keeps bytes.
    pub(super) fn keep(&self, bucket: &str, key: &str, version: &str, bytes: &[u8]) -> io::Result<()> {
        disk::write(&self.file(bucket, key, version), bytes)
    }

    /// The etag that the backend has for bytes: of an upload in parts it is that of the parts.
    pub(super) fn etag(&self, bucket: &str, key: &str, version: &str, bytes: &[u8]) -> String {
        let of_parts = lock(&self.etags).get(&self.file(bucket, key, version)).cloned();
        of_parts.unwrap_or_else(|| put_etag(bytes))
    }

    /// Keeps the etag of an upload in parts.
    pub(super) fn keep_etag(&self, bucket: &str, key: &str, version: &str, etag: &str) {
        lock(&self.etags).insert(self.file(bucket, key, version), etag.to_owned());
    }

    /// The bytes of a version; `None` when there are none.
    pub(super) fn bytes(&self, bucket: &str, key: &str, version: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.file(bucket, key, version)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the bytes of a version: they are gone for good, as on the platform.
    pub(super) fn forget(&self, bucket: &str, key: &str, version: &str) -> io::Result<()> {
        match fs::remove_file(self.file(bucket, key, version)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
