//! Writes objects through the S3 protocol, and removes them. The server checks no upload: only the
//! etag that it answers with, or a probe after it, says what arrived.

use super::client::{Client, insist, object_in_words};
use super::digest::{PART_SIZES, bare_etag};
use super::error::Error;
use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption};
use bytes::Bytes;
use fs_err as fs;
use md5::{Digest as _, Md5};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// Larger uploads go in parts: the server would split them into parts of this size itself.
pub const PART: u64 = 16 << 20;

/// Bytes to send, and what they are served with.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// The file of the bytes.
    pub file: &'a Path,
    /// Their number.
    pub size: u64,
    /// The etag that they had, which tells in what parts they were sent.
    pub etag: Option<&'a str>,
    /// What `Content-Type` they are served with.
    pub content_type: Option<&'a str>,
    /// What `Cache-Control` they are served with.
    pub cache_control: Option<&'a str>,
}

impl Upload<'_> {
    /// The size of the parts that make the same etag again; `None` for one part.
    pub(super) fn part_size(&self) -> Option<u64> {
        let count = self.etag.and_then(|etag| bare_etag(etag).split_once('-')?.1.parse::<u64>().ok());
        let same = |size: &u64| count == Some(self.size.div_ceil(*size).max(1));
        PART_SIZES.into_iter().find(same).or((self.size > PART).then_some(PART))
    }
}

impl Client {
    /// Writes an object, over the one that is there; returns the etag that the server gave it.
    pub async fn put(&self, bucket: &str, key: &str, upload: &Upload<'_>) -> Result<String, Error> {
        match upload.part_size() {
            None => self.put_whole(bucket, key, upload).await,
            Some(size) => self.put_parts((bucket, key), upload, size).await,
        }
    }

    /// A request that writes an object as a whole.
    pub(super) fn put_request(&self, (bucket, key): (&str, &str), bytes: &Bytes) -> PutObjectFluentBuilder {
        self.s3.put_object().bucket(bucket).key(key).body(bytes.clone().into())
    }

    async fn put_whole(&self, bucket: &str, key: &str, upload: &Upload<'_>) -> Result<String, Error> {
        let bytes = piece(upload.file, 0, upload.size).await?;
        let doing = || format!("write {}", object_in_words(bucket, key));
        let send = || async {
            let request = self
                .put_request((bucket, key), &bytes)
                .set_content_type(upload.content_type.map(str::to_owned))
                .set_cache_control(upload.cache_control.map(str::to_owned));
            let answer = request.send().await.map_err(|error| self.error(doing(), &error))?;
            arrived(doing(), (answer.e_tag(), answer.server_side_encryption()), &bytes)
        };
        insist(send).await
    }

    async fn put_parts(
        &self,
        (bucket, key): (&str, &str),
        upload: &Upload<'_>,
        size: u64,
    ) -> Result<String, Error> {
        let doing = || format!("write {} in parts", object_in_words(bucket, key));
        let start = || async {
            let request = self
                .s3
                .create_multipart_upload()
                .bucket(bucket)
                .key(key)
                .set_content_type(upload.content_type.map(str::to_owned))
                .set_cache_control(upload.cache_control.map(str::to_owned));
            request.send().await.map_err(|error| self.error(doing(), &error))
        };
        let begun = insist(start).await?;
        let id = begun.upload_id().unwrap_or_default();
        let sent = self.send_parts((bucket, key), upload, (id, size)).await;
        if sent.is_err() {
            let abort = self.s3.abort_multipart_upload().bucket(bucket).key(key).upload_id(id);
            // The error that led here says more than that the parts stay.
            drop(abort.send().await);
        }
        sent
    }

    async fn send_parts(
        &self,
        (bucket, key): (&str, &str),
        upload: &Upload<'_>,
        (id, size): (&str, u64),
    ) -> Result<String, Error> {
        let doing = || format!("write {} in parts", object_in_words(bucket, key));
        let mut parts = Vec::new();
        for (number, start) in
            (1..).zip((0..upload.size).step_by(usize::try_from(size).unwrap_or(usize::MAX)))
        {
            let bytes = piece(upload.file, start, size.min(upload.size - start)).await?;
            let send = || async {
                let request = self
                    .s3
                    .upload_part()
                    .bucket(bucket)
                    .key(key)
                    .upload_id(id)
                    .part_number(number)
                    .body(bytes.clone().into());
                let answer = request.send().await.map_err(|error| self.error(doing(), &error))?;
                arrived(doing(), (answer.e_tag(), answer.server_side_encryption()), &bytes)
            };
            let etag = insist(send).await?;
            parts.push(CompletedPart::builder().part_number(number).e_tag(etag).build());
        }
        let all = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let end = || async {
            let request = self
                .s3
                .complete_multipart_upload()
                .bucket(bucket)
                .key(key)
                .upload_id(id)
                .multipart_upload(all.clone());
            request.send().await.map_err(|error| self.error(doing(), &error))
        };
        Ok(insist(end).await?.e_tag().map(|etag| bare_etag(etag).to_owned()).unwrap_or_default())
    }

    /// Removes an object with its bytes; one that is not there is as good as removed.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), Error> {
        let send = || async {
            let answer = self.s3.delete_object().bucket(bucket).key(key).send().await;
            answer.map_err(|error| self.error(format!("remove {}", object_in_words(bucket, key)), &error))
        };
        insist(send).await.map(drop)
    }
}

/// The etag of a part that arrived, which must be that of the bytes. A bucket with a key of its own
/// has etags that are no MD5 (Amazon S3, `AboutObject`); the signature holds the SHA-256 of the bytes
/// in any case.
pub(super) fn arrived(
    doing: String,
    (etag, encryption): (Option<&str>, Option<&ServerSideEncryption>),
    bytes: &Bytes,
) -> Result<String, Error> {
    let sent = hex::encode(Md5::digest(bytes));
    match etag.map(bare_etag) {
        Some(etag) if etag == sent => Ok(sent),
        Some(etag) if encryption.is_some_and(|kind| *kind != ServerSideEncryption::Aes256) => {
            Ok(etag.to_owned())
        }
        other => Err(Error::Altered { doing, sent, received: other.unwrap_or("nothing").to_owned() }),
    }
}

/// A piece of a file.
pub(super) async fn piece(file: &Path, start: u64, length: u64) -> Result<Bytes, Error> {
    let file: PathBuf = file.to_owned();
    let read = move || -> io::Result<Bytes> {
        let mut file = fs::File::open(file)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact(&mut bytes)?;
        Ok(bytes.into())
    };
    Ok(tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_that_make_the_same_etag() {
        let part_size = |size: u64, etag: Option<&str>| {
            let upload = Upload { file: Path::new("x"), size, etag, content_type: None, cache_control: None };
            upload.part_size()
        };
        for (size, etag, expected) in [
            (0, Some("d41d8cd98f00b204e9800998ecf8427e"), None),
            (10 << 20, Some("\"d41d8cd98f00b204e9800998ecf8427e\""), None),
            (10 << 20, Some("\"d41d8cd98f00b204e9800998ecf8427e-1\""), Some(16 << 20)),
            (10 << 20, Some("d41d8cd98f00b204e9800998ecf8427e-2"), Some(8 << 20)),
            (40 << 20, Some("d41d8cd98f00b204e9800998ecf8427e-8"), Some(5 << 20)),
            (40 << 20, Some("d41d8cd98f00b204e9800998ecf8427e-77"), Some(PART)),
            (40 << 20, None, Some(PART)),
        ] {
            assert_eq!(part_size(size, etag), expected, "{size} {etag:?}");
        }
    }
}
