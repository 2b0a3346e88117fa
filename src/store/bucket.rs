//! One target's folder in a bucket. Whatever goes there, and whatever comes back, passes through
//! [`Bucket::send`], [`Bucket::receive`], and [`Bucket::digest`]; small records, which hold no
//! evidence, through [`Bucket::write`] and [`Bucket::read`].

use super::Error;
use crate::disk;
use crate::manifest::FileDigest;
use crate::objects::{self, Access, Client, Condition, Kept, PART, Put, Upload};
use bytes::Bytes;
use fs_err as fs;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A bucket, and the folder in it that the store has to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    bucket: String,
    prefix: String,
}

/// A text is no address of a bucket.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not the address of a bucket (such as `s3://bucket/folder`)")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        let (bucket, prefix) = match text.trim().strip_prefix("s3://").ok_or_else(bad)?.split_once('/') {
            Some((bucket, prefix)) => (bucket, prefix.trim_matches('/')),
            None => (text.trim().trim_start_matches("s3://"), ""),
        };
        // As Amazon S3 names buckets; what is written into a key is taken as it is.
        let of_bucket = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_prefix = prefix.is_empty() || prefix.split('/').all(is_part);
        if bucket.len() < 3 || !bucket.bytes().all(of_bucket) || !is_prefix {
            return Err(bad());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Where the store in a bucket is, and what signs for it.
#[derive(Clone, Debug)]
pub struct Location {
    /// Bucket and folder.
    pub address: Address,
    /// The endpoint, and the keys.
    pub access: Access,
    /// Whether everything that was uploaded is read again at once.
    pub reads_back: bool,
}

/// One target's folder in a bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    client: Client,
    within: String,
    folder: String,
    /// What people know it by.
    name: String,
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) etag: String,
    /// In seconds, by the server's clock.
    pub(super) modified: i64,
}

impl Bucket {
    /// Signs in, for one target's folder; nothing is asked yet.
    pub async fn open(location: &Location, target_folder: &str) -> Result<Self, Error> {
        let Address { bucket, prefix } = &location.address;
        let name = format!("{}/{target_folder}", location.address);
        let client = Box::pin(Client::new(&location.access))
            .await
            .map_err(|source| Error::Bucket { name: name.clone(), source: Box::new(source) })?;
        let folder =
            if prefix.is_empty() { target_folder.to_owned() } else { format!("{prefix}/{target_folder}") };
        Ok(Self { client, within: bucket.clone(), folder, name })
    }

    /// Its address, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn key(&self, path: &str) -> String {
        format!("{}/{path}", self.folder)
    }

    fn error(&self, source: objects::Error) -> Error {
        Error::Bucket { name: self.name.clone(), source: Box::new(source) }
    }

    /// What stands below a folder, by path.
    pub(super) async fn list(&self, below: &str) -> Result<BTreeMap<String, Entry>, Error> {
        self.listed(below, None).await
    }

    /// What stands after a path in the order of bytes.
    pub(super) async fn list_after(&self, path: &str) -> Result<BTreeMap<String, Entry>, Error> {
        self.listed("", Some(self.key(path))).await
    }

    async fn listed(&self, below: &str, after: Option<String>) -> Result<BTreeMap<String, Entry>, Error> {
        let prefix = self.key(below);
        let mut pages = self.client.pages_below(&self.within, &prefix, after);
        let mut found = BTreeMap::new();
        while let Some(page) = Box::pin(pages.next()).await.map_err(|error| self.error(error))? {
            found.extend(page.into_iter().filter_map(|listed| {
                let path = listed.key.strip_prefix(&self.folder)?.strip_prefix('/')?.to_owned();
                let etag = listed.etag.unwrap_or_default();
                let modified = listed.modified.unwrap_or_default();
                // Some servers list folders.
                (!path.ends_with('/')).then_some((path, Entry { size: listed.size, etag, modified }))
            }));
        }
        Ok(found)
    }

    /// Sends a file, in parts when it is large; the service checks each part, and answers with what
    /// it holds.
    pub(super) async fn send(&self, path: &str, file: &Path) -> Result<Entry, Error> {
        let meta = fs::metadata(file)?;
        let (size, key) = (meta.len(), self.key(path));
        let etag = if size > PART {
            let upload = Upload { file, size, etag: None, content_type: None, cache_control: None };
            Box::pin(self.client.put(&self.within, &key, &upload)).await.map_err(|error| self.error(error))?
        } else {
            let file = file.to_owned();
            let bytes =
                tokio::task::spawn_blocking(move || fs::read(file)).await.map_err(io::Error::other)??;
            match self.write(path, &bytes.into(), Condition::Always).await? {
                Put::Written(etag) => etag,
                Put::Refused => String::new(),
            }
        };
        Ok(Entry { size, etag, modified: i64::MAX })
    }

    /// Brings a file back; nothing is kept of bytes that are not those of the digest. False when
    /// they are not.
    pub(super) async fn receive(
        &self,
        path: &str,
        file: &Path,
        expected: Option<&FileDigest>,
    ) -> Result<bool, Error> {
        let dir: PathBuf = file.parent().map(Path::to_owned).unwrap_or_default();
        disk::make_private_dir(&dir)?;
        let key = self.key(path);
        let get = self.client.get(&self.within, &key, || disk::Temp::new_in(&dir));
        let (temp, received) = Box::pin(get).await.map_err(|error| self.error(error))?;
        let fits = |wanted: &FileDigest| wanted.sha256 == received.sha256 && wanted.bytes == received.size;
        if !expected.is_none_or(fits) {
            return Ok(false);
        }
        let file = file.to_owned();
        let keep = move || temp.persist(&file).and_then(|()| disk::sync_dir(&dir));
        tokio::task::spawn_blocking(keep).await.map_err(io::Error::other)??;
        Ok(true)
    }

    /// Reads an object without keeping it: SHA-256 and length; `None` when it is not there.
    pub(super) async fn digest(&self, path: &str) -> Result<Option<(String, u64)>, Error> {
        match Box::pin(self.client.get(&self.within, &self.key(path), || Ok(io::sink()))).await {
            Ok((_, received)) => Ok(Some((received.sha256, received.size))),
            Err(objects::Error::NotFound { .. } | objects::Error::NoBytes { .. }) => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Writes a small record.
    pub async fn write(&self, path: &str, bytes: &Bytes, on: Condition<'_>) -> Result<Put, Error> {
        let key = self.key(path);
        Box::pin(self.client.put_bytes((&self.within, &key), bytes, on))
            .await
            .map_err(|error| self.error(error))
    }

    /// Reads a small record; `None` when it is not there.
    pub async fn read(&self, path: &str) -> Result<Option<Kept>, Error> {
        Box::pin(self.client.read(&self.within, &self.key(path))).await.map_err(|error| self.error(error))
    }

    /// Looks whether it may be listed and read, and leaves it as it is: that it may be written to, and
    /// only once, shows when a run takes its lock.
    pub async fn look(&self) -> Result<(), Error> {
        self.list("locks").await?;
        self.read("locks/run").await.map(drop)
    }

    /// Removes an object; one that is not there is as good as removed.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        Box::pin(self.client.delete(&self.within, &self.key(path))).await.map_err(|error| self.error(error))
    }

    /// Ends uploads of dead runs.
    pub(super) async fn end_unfinished(&self) -> Result<usize, Error> {
        Box::pin(self.client.end_unfinished(&self.within, &self.key("")))
            .await
            .map_err(|error| self.error(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_folder() {
        let read = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(read("s3://evidence").as_deref(), Ok("s3://evidence"));
        assert_eq!(read(" s3://evidence/team/a/ \n").as_deref(), Ok("s3://evidence/team/a"));
        for bad in
            ["evidence", "s3://", "s3:///x", "https://h/b", "s3://a b/c", "s3://abc/x//y", "s3://abc/../y"]
        {
            assert_eq!(read(bad), Err(BadAddress(bad.to_owned())), "{bad}");
        }
    }
}
