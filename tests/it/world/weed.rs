//! `SeaweedFS`: an S3 server that is none of ours. One for all tests of a run, started by the first that
//! asks for it, and a folder of its bucket for each test: every bucket would take volumes of its own.

use super::{World, told};
use crate::scratch::until;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use fs_err as fs;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use supa_safe::disk;
use supa_safe::objects::{Access, Endpoint, Keys, Origin};
use supa_safe::secret::Secret;
use supa_safe::store::{Bucket, Location};
use tokio::runtime::Runtime;

const S3: &str = "127.0.0.1:8334";
/// Who may do everything, and who may only read.
const OWNER: [&str; 2] = ["OWNERKEY", "an-owner/secret+1"];
const READER: [&str; 2] = ["READERKEY", "a-reader/secret+1"];

const BUCKET: &str = "evidence";

/// A folder of the bucket.
pub(crate) struct Weed {
    folder: String,
    pub(crate) runtime: Runtime,
    s3: aws_sdk_s3::Client,
}

impl Weed {
    /// A bucket of its own on the server, which is started when it is not up yet.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        up();
        let runtime = Runtime::new().unwrap();
        let folder = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .endpoint_url(format!("http://{S3}/"))
            .region(Region::new("us-east-1"))
            .credentials_provider(Credentials::new(OWNER[0], OWNER[1], None, None, "test"))
            .force_path_style(true)
            .build();
        let s3 = aws_sdk_s3::Client::from_conf(config);
        // It is there when an earlier test made it.
        drop(runtime.block_on(s3.create_bucket().bucket(BUCKET).send()));
        Self { folder, runtime, s3 }
    }

    /// The pair of keys that may do everything.
    pub(crate) fn owner() -> Keys {
        pair(OWNER)
    }

    /// The pair that may only read.
    pub(crate) fn reader() -> Keys {
        pair(READER)
    }

    /// The same as text.
    pub(crate) fn reader_pair() -> [&'static str; 2] {
        READER
    }

    /// Where a store in this bucket is.
    pub(crate) fn location(&self, keys: Keys) -> Location {
        let endpoint = Endpoint::of_store(&Self::endpoint()).unwrap();
        Location {
            address: self.address().parse().unwrap(),
            access: Access {
                endpoint,
                origin: Origin::Vouched,
                region: None,
                keys: Some(keys),
                service_role: None,
            },
            reads_back: true,
        }
    }

    /// A target's folder in it.
    pub(crate) fn open(&self, keys: Keys) -> Bucket {
        self.runtime.block_on(Bucket::open(&self.location(keys), "target")).unwrap()
    }

    /// The address of the folder.
    pub(crate) fn address(&self) -> String {
        format!("s3://{BUCKET}/{}", self.folder)
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.folder)
    }

    /// The address of the server.
    pub(crate) fn endpoint() -> String {
        format!("http://{S3}")
    }

    /// All keys below the folder.
    pub(crate) fn keys(&self) -> Vec<String> {
        let read = async {
            let folder = self.path("");
            let request = self.s3.list_objects_v2().bucket(BUCKET).prefix(&folder);
            let mut pages = request.into_paginator().send();
            let mut keys = Vec::new();
            while let Some(page) = pages.next().await {
                keys.extend(
                    page.unwrap()
                        .contents()
                        .iter()
                        .map(|object| object.key().unwrap().replacen(&folder, "", 1)),
                );
            }
            keys
        };
        self.runtime.block_on(read)
    }

    /// The one key that ends so.
    pub(crate) fn key(&self, end: &str) -> String {
        let found: Vec<String> = self.keys().into_iter().filter(|key| key.ends_with(end)).collect();
        let [key] = found.as_slice() else { panic!("{} keys end with {end}: {found:?}", found.len()) };
        key.clone()
    }

    /// The bytes of an object.
    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        let read = async {
            let object = self.s3.get_object().bucket(BUCKET).key(self.path(key)).send().await.unwrap();
            object.body.collect().await.unwrap().to_vec()
        };
        self.runtime.block_on(read)
    }

    /// Writes an object behind everybody's back.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let put = self.s3.put_object().bucket(BUCKET).key(self.path(key)).body(bytes.to_vec().into());
        self.runtime.block_on(put.send()).unwrap();
    }

    /// Removes one.
    pub(crate) fn remove(&self, key: &str) {
        let remove = self.s3.delete_object().bucket(BUCKET).key(self.path(key));
        self.runtime.block_on(remove.send()).unwrap();
    }
}

fn pair([id, secret]: [&str; 2]) -> Keys {
    Keys::Pair { id: id.to_owned(), secret: Secret::new(secret) }
}

impl World {
    /// Looks at another world's target, its Storage, and its store from a state folder of its own.
    pub(crate) fn same_target(&mut self, other: &Self) {
        let shared = |name: &str| {
            ["SUPA_SAFE_STOR", "SUPA_SAFE_S3_"].iter().any(|start| name.starts_with(start))
                || name == "SUPA_SAFE_DB_URL"
        };
        for (name, value) in other.env.iter().filter(|(name, _)| shared(name)) {
            self.set(name, value.clone());
        }
    }

    /// A bucket, which this world's runs have as their store.
    pub(crate) fn weed(&mut self) -> Weed {
        let weed = Weed::new();
        self.set("SUPA_SAFE_STORE", weed.address());
        self.set("SUPA_SAFE_STORE_ENDPOINT", Weed::endpoint());
        self.set("SUPA_SAFE_STORE_ACCESS_KEY_ID", OWNER[0]);
        self.set("SUPA_SAFE_STORE_SECRET_ACCESS_KEY", OWNER[1]);
        weed
    }
}

/// Starts the server, unless another test did.
fn up() {
    let dir = PathBuf::from(told("SUPA_SAFE_TEST_WEED_DIR"));
    let lock = fs::OpenOptions::new().create(true).append(true).open(dir.join("lock")).unwrap();
    lock.file().lock().unwrap();
    if dir.join("up").exists() {
        return;
    }
    start(&dir);
    until(&format!("SeaweedFS answers; see {}", dir.join("log").display()), || {
        TcpStream::connect(S3).is_ok()
    });
    disk::write(&dir.join("up"), b"").unwrap();
}

fn start(dir: &Path) {
    let who = |name: &str, [id, secret]: [&str; 2], actions: &[&str]| {
        serde_json::json!({ "name": name, "actions": actions,
            "credentials": [{ "accessKey": id, "secretKey": secret }] })
    };
    let identities = [who("owner", OWNER, &["Admin"]), who("reader", READER, &["Read", "List"])];
    disk::write_json(&dir.join("s3.json"), &serde_json::json!({ "identities": identities })).unwrap();
    fs::create_dir(dir.join("data")).unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut server = Command::new(told("SUPA_SAFE_TEST_WEED"));
    server.args(["-logtostderr=true", "server", "-filer", "-s3", "-s3.iam=false", "-volume.max=50"]);
    server.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64"]);
    server.arg(format!("-dir={}", dir.join("data").display()));
    server.arg(format!("-s3.config={}", dir.join("s3.json").display()));
    for (port, number) in [
        ("master.port", 9333),
        ("master.port.grpc", 19333),
        ("volume.port", 8081),
        ("volume.port.grpc", 18081),
        ("filer.port", 8889),
        ("filer.port.grpc", 18889),
        ("s3.port", 8334),
        ("s3.port.grpc", 18334),
        ("s3.port.iceberg", 0),
        ("s3.port.lance", 0),
    ] {
        server.arg(format!("-{port}={number}"));
    }
    // It outlives this test, and ends with the namespace.
    server.current_dir(dir).process_group(0);
    server.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    drop(server.spawn().unwrap());
}
