//! Digests of an object's bytes on their way to disk, and whether they agree with its etag.

use md5::Md5;
use sha2::{Digest as _, Sha256};

/// Sizes of the parts in which objects are uploaded: what the server splits large uploads into
/// (`STORAGE_S3_UPLOAD_PART_SIZE`), what the AWS CLI does, and the least that S3 allows.
pub(super) const PART_SIZES: [u64; 3] = [16 << 20, 8 << 20, 5 << 20];

/// Whether bytes agree with the etag that came with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtagCheck {
    /// The etag is the MD5 of the bytes, or of their parts.
    Agrees,
    /// The etag is the MD5 of other bytes.
    Differs,
    /// It cannot be recomputed: there is none, or it is of parts of an unknown size.
    Unknown,
}

/// Digests that grow with the bytes.
#[derive(Debug)]
pub struct Digests {
    sha256: Sha256,
    md5: Md5,
    parts: Vec<Parts>,
    etag: Option<String>,
    length: u64,
}

/// What was digested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digested {
    pub(super) sha256: String,
    pub(super) md5: String,
    pub(super) length: u64,
    pub(super) check: EtagCheck,
}

#[derive(Debug)]
struct Parts {
    size: u64,
    filled: u64,
    current: Md5,
    all: Md5,
    count: u64,
}

impl Parts {
    fn new(size: u64) -> Self {
        Self { size, filled: 0, current: Md5::new(), all: Md5::new(), count: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.size - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.current.update(now);
            self.filled += now.len() as u64;
            if self.filled == self.size {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        let part = std::mem::replace(&mut self.current, Md5::new());
        self.all.update(part.finalize());
        self.filled = 0;
        self.count += 1;
    }

    fn etag(mut self) -> String {
        if self.filled > 0 {
            self.close();
        }
        format!("{}-{}", hex::encode(self.all.finalize()), self.count)
    }
}

impl Digests {
    /// Begins, for an object with this etag and of this length as far as they are known. Of the
    /// layouts of parts only those that fit both are digested.
    pub fn new(etag: Option<&str>, length: Option<u64>) -> Self {
        let etag = etag.map(|etag| bare_etag(etag).to_owned());
        let count = etag.as_deref().and_then(|etag| etag.split_once('-')?.1.parse::<u64>().ok());
        let fits = |size: &u64| {
            count.is_some_and(|count| length.is_none_or(|length| length.div_ceil(*size).max(1) == count))
        };
        let parts = PART_SIZES.into_iter().filter(fits).map(Parts::new).collect();
        Self { sha256: Sha256::new(), md5: Md5::new(), parts, etag, length: 0 }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.md5.update(bytes);
        for parts in &mut self.parts {
            parts.update(bytes);
        }
        self.length += bytes.len() as u64;
    }

    /// Ends.
    pub(super) fn finish(self) -> Digested {
        let md5 = hex::encode(self.md5.finalize());
        let check = match self.etag.as_deref() {
            Some(etag) if is_md5(etag) && etag == md5 => EtagCheck::Agrees,
            Some(etag) if is_md5(etag) => EtagCheck::Differs,
            Some(etag) if self.parts.into_iter().any(|parts| parts.etag() == etag) => EtagCheck::Agrees,
            _ => EtagCheck::Unknown,
        };
        Digested { sha256: hex::encode(self.sha256.finalize()), md5, length: self.length, check }
    }
}

fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An etag without its quotes: rows and headers hold them, other clients leave them out.
pub(super) fn bare_etag(etag: &str) -> &str {
    etag.trim_start_matches("W/").trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], etag: &str) -> EtagCheck {
        let mut digests = Digests::new(Some(etag), Some(bytes.len() as u64));
        for chunk in bytes.chunks(3_000_001) {
            digests.update(chunk);
        }
        digests.finish().check
    }

    fn md5(bytes: &[u8]) -> String {
        hex::encode(Md5::digest(bytes))
    }

    #[test]
    fn an_etag_of_one_part_is_the_md5() {
        assert_eq!(check(b"", "\"d41d8cd98f00b204e9800998ecf8427e\""), EtagCheck::Agrees);
        assert_eq!(check(b"x", &md5(b"x")), EtagCheck::Agrees);
        assert_eq!(check(b"y", &md5(b"x")), EtagCheck::Differs);
        assert_eq!(check(b"y", "odd"), EtagCheck::Unknown);
    }

    #[test]
    fn an_etag_of_parts_is_the_md5_of_their_md5s() {
        let bytes = vec![7_u8; 36 << 20];
        for size in [16, 8, 5] {
            let parts: Vec<u8> = bytes.chunks(size << 20).flat_map(Md5::digest).collect();
            let etag = format!("\"{}-{}\"", md5(&parts), bytes.len().div_ceil(size << 20));
            assert_eq!(check(&bytes, &etag), EtagCheck::Agrees, "{size} MiB");
        }
        assert_eq!(check(&bytes, &format!("{}-3", md5(b""))), EtagCheck::Unknown);
        assert_eq!(check(&bytes, &format!("{}-77", md5(b""))), EtagCheck::Unknown);
    }
}
