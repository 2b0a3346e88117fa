//! The habits of the Storage double that nothing here relies on yet, and that a restore will meet.
//! Each was measured on the real server.

use crate::storage::world;
use crate::world::{ADMIN, Bucket};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

fn s3(bucket: &Bucket) -> aws_sdk_s3::Client {
    let keys = bucket.double.keys();
    let secret = keys.secret_access_key.expose();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(format!("{}/", bucket.double.endpoint()))
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(&keys.access_key_id, secret, None, None, "test"))
        .force_path_style(true)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .retry_config(RetryConfig::disabled())
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

#[test]
fn s3_answers_as_the_real_server_does() {
    let (world, bucket) = world(&["photos"]);
    let s3 = s3(&bucket);
    bucket.runtime.block_on(async {
        let put = |key: &str, body: &'static [u8]| {
            s3.put_object().bucket("photos").key(key).body(body.to_vec().into())
        };
        let etag = put("x", b"one").send().await.unwrap();
        assert_eq!(etag.e_tag(), Some("\"f97c5d29941bfb1b2fdab0874906ab82\""));
        // A condition is not looked at: this overwrites.
        put("x", b"two").if_none_match("*").send().await.unwrap();
        let got = s3.get_object().bucket("photos").key("x").send().await.unwrap();
        assert_eq!(got.body.collect().await.unwrap().to_vec(), b"two");
        put("empty", b"").send().await.unwrap();
        let head = s3.head_object().bucket("photos").key("empty").send().await.unwrap();
        assert_eq!(
            (head.content_length(), head.e_tag()),
            (None, Some("\"d41d8cd98f00b204e9800998ecf8427e\""))
        );
        put("folder/", b"").send().await.unwrap();
        assert!(s3.get_object().bucket("photos").key("folder/").send().await.is_err());
        assert!(put("per%cent", b"").send().await.is_err());
        let place = s3.get_bucket_location().bucket("photos").send().await.unwrap();
        assert_eq!(place.location_constraint().unwrap().as_str(), "eu-central-1");
        s3.delete_object().bucket("photos").key("x").send().await.unwrap();
    });
    world.sql(ADMIN, "update storage.objects set version = 'gone' where name = 'empty'");
    bucket.runtime.block_on(async {
        // HEAD is answered from the row: one without bytes is there.
        assert!(s3.head_object().bucket("photos").key("empty").send().await.is_ok());
        assert!(s3.get_object().bucket("photos").key("empty").send().await.is_err());
        assert_eq!(bucket.double.unknown_calls(), [""; 0]);
        // What it was not told of fails loudly.
        let acl = s3.get_bucket_acl().bucket("photos").send().await.unwrap_err();
        assert_eq!(acl.raw_response().unwrap().status().as_u16(), 501);
    });
    assert_eq!(bucket.double.unknown_calls(), ["GET /storage/v1/s3/photos/?acl"]);
    let names = world.sql(ADMIN, "select name from storage.objects order by 1");
    assert_eq!(names, ["empty", "folder/.emptyFolderPlaceholder"]);
}

struct Rest<'a> {
    bucket: &'a Bucket,
    http: reqwest::Client,
}

impl Rest<'_> {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let token = self.bucket.double.keys().service_role.expose();
        self.http.request(method, format!("{}/object/{path}", self.bucket.double.url())).bearer_auth(token)
    }

    fn send(&self, request: RequestBuilder) -> (u16, Value) {
        self.bucket.runtime.block_on(async {
            let response: Response = request.send().await.unwrap();
            let status = response.status().as_u16();
            (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
        })
    }
}

#[test]
fn rest_keeps_every_kind_of_metadata_and_the_row_its_id() {
    let (world, bucket) = world(&["photos"]);
    // Only the first test of a process installs it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let rest = Rest { bucket: &bucket, http: reqwest::Client::new() };
    let upload = |body: &'static str| {
        rest.ask(Method::POST, "photos/a%20b.txt")
            .header("content-type", "text/plain")
            .header("cache-control", "max-age=60")
            .header("x-robots-tag", "noindex")
            // {"n":1,"t":"ü"}
            .header("x-metadata", "eyJuIjoxLCJ0Ijoiw7wifQ==")
            .body(body)
    };
    let (status, made) = rest.send(upload("one"));
    assert_eq!((status, &made["Key"]), (200, &json!("photos/a b.txt")));
    let row = "select name, metadata->>'mimetype', metadata->>'cacheControl', metadata->>'xRobotsTag', user_metadata
               from storage.objects";
    assert_eq!(world.sql(ADMIN, row), ["a b.txt|text/plain|max-age=60|noindex|{\"n\": 1, \"t\": \"ü\"}"]);
    let (status, refused) = rest.send(upload("two"));
    assert_eq!(
        (status, &refused["error"], &refused["statusCode"]),
        (400, &json!("Duplicate"), &json!("409"))
    );
    let (_, again) = rest.send(upload("two").header("x-upsert", "true"));
    assert_eq!(again["Id"], made["Id"]);

    let (_, before) = rest.send(rest.ask(Method::GET, "info/photos/a%20b.txt"));
    assert_eq!(before["metadata"], json!({ "n": 1, "t": "ü" }));
    let moving = json!({ "bucketId": "photos", "sourceKey": "a b.txt", "destinationKey": "c" });
    let (status, moved) = rest.send(rest.ask(Method::POST, "move").body(moving.to_string()));
    assert_eq!((status, &moved["Id"]), (200, &made["Id"]));
    let (_, after) = rest.send(rest.ask(Method::GET, "info/photos/c"));
    assert!(after["version"] != before["version"] && after["id"] == before["id"], "{after}");
    assert_eq!(supa_safe::disk::files_below(&world.path("bytes")).unwrap().len(), 1);

    let user = bucket.double.user_token();
    let url = format!("{}/object/photos/c", bucket.double.url());
    assert_eq!(rest.send(rest.http.delete(&url).bearer_auth(user.expose())).0, 403);
    assert_eq!(rest.send(rest.ask(Method::DELETE, "photos/c")).0, 200);
    assert_eq!(rest.send(rest.ask(Method::DELETE, "photos/c")).0, 400);
    assert!(supa_safe::disk::files_below(&world.path("bytes")).unwrap().is_empty());
    assert_eq!(bucket.double.unknown_calls(), [""; 0]);
}
