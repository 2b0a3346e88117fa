//! The Storage double over a world's database.

use super::{ADMIN, World, told};
use supa_safe::demo::storage::{Double, Fault, Kind, Operation, Settings};
use supa_safe::objects::{Access, Client, Endpoint, Keys};
use supa_safe::secret::Secret;
use supa_safe::target::{Connection, Defaults};
use tokio::runtime::Runtime;

const REF: &str = "abcdefghijklmnopqrst";

/// A double, and the runtime that it runs on.
pub(crate) struct Bucket {
    pub(crate) double: Double,
    pub(crate) runtime: Runtime,
}

impl Bucket {
    /// Stores an object as an upload does.
    pub(crate) fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        self.runtime.block_on(self.double.put(bucket, key, bytes)).unwrap();
    }

    /// The bytes of an object, as the endpoint gives them out.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let read = async {
            let client = Client::new(&self.access(self.pair())).await.unwrap();
            client.get(bucket, key, || Ok(Vec::new())).await.unwrap().0
        };
        self.runtime.block_on(read)
    }

    /// Deletes an object as its owner does.
    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        let deleted =
            async { Client::new(&self.access(self.pair())).await.unwrap().delete(bucket, key).await };
        self.runtime.block_on(deleted).unwrap();
    }

    /// Makes the next requests go wrong.
    pub(crate) fn spoil(&self, on: Operation, kind: Kind, times: u32) {
        self.double.spoil(Fault { on, kind, times });
    }

    /// The pair of S3 keys.
    pub(crate) fn pair(&self) -> Keys {
        let keys = self.double.keys();
        Keys::Pair { id: keys.access_key_id.clone(), secret: keys.secret_access_key.clone() }
    }

    /// The session-token form with some token.
    pub(crate) fn session(&self, token: Secret) -> Keys {
        let keys = self.double.keys();
        Keys::Session { project: keys.project_ref.clone(), anon: keys.anon.clone(), service_role: token }
    }

    /// The double's endpoint with these keys.
    pub(crate) fn access(&self, keys: Keys) -> Access {
        let endpoint = Endpoint::parse(&self.double.endpoint()).unwrap();
        Access { endpoint, region: None, keys: Some(keys), service_role: None }
    }
}

impl World {
    /// Starts a double over this world's database, and makes these buckets.
    pub(crate) fn bucket(&mut self, buckets: &[&str]) -> Bucket {
        for bucket in buckets {
            let quoted = bucket.replace('\'', "''");
            self.sql(
                ADMIN,
                &format!("insert into storage.buckets (id, name) values ('{quoted}', '{quoted}')"),
            );
        }
        let runtime = Runtime::new().unwrap();
        let defaults =
            Defaults { password: Some(Secret::new(told("SUPA_SAFE_TEST_PASSWORD"))), ..Defaults::default() };
        let url = self.url().replacen("postgres@", &format!("{ADMIN}@"), 1);
        let settings = Settings {
            connection: Connection::from_url(&url, &defaults).unwrap(),
            folder: self.path("bytes"),
            address: ([127, 0, 0, 1], 0).into(),
            project_ref: REF.to_owned(),
            region: "eu-central-1".to_owned(),
        };
        let double = runtime.block_on(Double::start(settings)).unwrap();
        self.set("SUPA_SAFE_STORAGE_URL", double.endpoint());
        self.set("SUPA_SAFE_S3_ACCESS_KEY_ID", double.keys().access_key_id.clone());
        self.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", double.keys().secret_access_key.expose());
        Bucket { double, runtime }
    }
}
