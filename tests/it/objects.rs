//! The S3 client against the double: what it asks, and what it makes of the answers.

use crate::storage::NASTY;
use crate::world::{ADMIN, Bucket, Cli, Major, Template, World};
use supa_safe::demo::storage::{Kind, Operation};
use supa_safe::objects::{Access, Client, Error, EtagCheck, Keys, Listed, Probe, Received};
use supa_safe::secret::Secret;

fn world() -> (World, Bucket) {
    let mut world = World::new(Major::Pg17, Cli::V3).with_database(Template::Hosted);
    let bucket = world.bucket(&["photos", "Bad_Bucket Name!"]);
    (world, bucket)
}

fn client(bucket: &Bucket, access: &Access) -> Client {
    bucket.runtime.block_on(Client::new(access)).unwrap()
}

fn read(bucket: &Bucket, client: &Client, key: &str) -> Result<(Vec<u8>, Received), Error> {
    bucket.runtime.block_on(client.get("photos", key, || Ok(Vec::new())))
}

fn listed(bucket: &Bucket, client: &Client, name: &str) -> Result<Vec<Listed>, Error> {
    bucket.runtime.block_on(async {
        let (mut pages, mut all) = (client.pages(name), Vec::new());
        while let Some(page) = pages.next().await? {
            all.extend(page);
        }
        Ok(all)
    })
}

fn no_unknown_call(bucket: &Bucket) {
    assert_eq!(bucket.double.unknown_calls(), [""; 0]);
}

#[test]
fn keys_are_listed_and_read_as_they_are() {
    let (_world, bucket) = world();
    let client = client(&bucket, &bucket.access(bucket.pair()));
    let mut keys = NASTY.to_vec();
    for key in NASTY {
        bucket.put("photos", key, key.as_bytes());
    }
    keys.sort_unstable();
    let found: Vec<String> =
        listed(&bucket, &client, "photos").unwrap().into_iter().map(|one| one.key).collect();
    assert_eq!(found, keys);
    for key in keys {
        let (bytes, received) = read(&bucket, &client, key).unwrap();
        assert_eq!((bytes.as_slice(), received.check), (key.as_bytes(), EtagCheck::Agrees), "{key}");
    }
    bucket.put("Bad_Bucket Name!", "x", b"");
    let empty = listed(&bucket, &client, "Bad_Bucket Name!").unwrap();
    let Listed { key, etag, size, .. } = &empty[0];
    assert_eq!(
        (empty.len(), key.as_str(), etag.as_deref(), *size),
        (1, "x", Some("d41d8cd98f00b204e9800998ecf8427e"), 0)
    );
    no_unknown_call(&bucket);
}

#[test]
fn a_listing_has_every_page() {
    let (world, bucket) = world();
    world.sql(
        ADMIN,
        "insert into storage.objects (bucket_id, name, version, metadata)
         select 'photos', 'k' || n || chr(1 + n % 300), n::text, jsonb_build_object('size', n) from generate_series(1, 2500) n",
    );
    let client = client(&bucket, &bucket.access(bucket.pair()));
    let found: Vec<String> =
        listed(&bucket, &client, "photos").unwrap().into_iter().map(|one| one.key).collect();
    assert_eq!(found, world.sql(ADMIN, "select name from storage.objects order by name collate \"C\""));
    assert_eq!(bucket.double.served().lists, 3);
}

#[test]
fn each_way_of_signing_in_works_and_each_mistake_has_its_name() {
    let (_world, bucket) = world();
    bucket.put("photos", "x", b"x");
    let keys = bucket.double.keys().clone();
    let attempt = |keys: Keys, region: Option<&str>| {
        let access = Access { region: region.map(str::to_owned), ..bucket.access(keys) };
        listed(&bucket, &client(&bucket, &access), "photos").map(|all| all.len())
    };
    assert_eq!(attempt(bucket.pair(), None).unwrap(), 1);
    assert_eq!(attempt(bucket.pair(), Some("eu-central-1")).unwrap(), 1);
    assert_eq!(attempt(bucket.session(keys.service_role.clone()), None).unwrap(), 1);
    // The wrong role signs in, and is told that there is nothing.
    assert_eq!(attempt(bucket.session(bucket.double.user_token()), None).unwrap(), 0);

    let wrong_region = attempt(bucket.pair(), Some("ap-south-1")).unwrap_err();
    assert!(
        matches!(&wrong_region, Error::Signature { region, .. } if region == "ap-south-1"),
        "{wrong_region}"
    );
    let pair = |id: &str, secret: &Secret| Keys::Pair { id: id.to_owned(), secret: secret.clone() };
    let unknown = attempt(pair("nobody", &keys.secret_access_key), None).unwrap_err();
    assert!(matches!(&unknown, Error::UnknownKey { .. }), "{unknown}");
    let wrong_secret = attempt(pair(&keys.access_key_id, &keys.anon), None).unwrap_err();
    assert!(matches!(&wrong_secret, Error::Signature { .. }), "{wrong_secret}");
    let no_jwt = attempt(bucket.session(Secret::new("sb_secret_x")), None).unwrap_err();
    assert!(matches!(&no_jwt, Error::Denied { .. }), "{no_jwt}");
    for error in [wrong_region, unknown, wrong_secret, no_jwt] {
        let text = format!("{error} {error:?}");
        assert!(
            !text.contains(keys.secret_access_key.expose()) && !text.contains(keys.anon.expose()),
            "{text}"
        );
        assert!(error.is_about_access(), "{text}");
    }
}

#[test]
fn a_profile_signs_in_and_brings_its_region() {
    let (world, bucket) = world();
    bucket.put("photos", "x", b"x");
    let keys = bucket.double.keys();
    let files = [world.path("config"), world.path("credentials")];
    supa_safe::disk::write(&files[0], b"[profile shop]\nregion = eu-central-1\n").unwrap();
    let text = format!(
        "[shop]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        keys.access_key_id,
        keys.secret_access_key.expose()
    );
    supa_safe::disk::write(&files[1], text.as_bytes()).unwrap();
    let profile = |name: &str| bucket.access(Keys::Profile { name: name.to_owned(), files: files.clone() });
    assert_eq!(listed(&bucket, &client(&bucket, &profile("shop")), "photos").unwrap().len(), 1);
    let error = bucket.runtime.block_on(Client::new(&profile("nosuch"))).unwrap_err();
    assert!(matches!(&error, Error::Profile { name, .. } if name == "nosuch"), "{error}");
}

#[test]
fn what_cannot_be_read_has_its_name() {
    let (world, bucket) = world();
    world.sql(
        ADMIN,
        "insert into storage.objects (bucket_id, name) values ('photos', 'phantom'), ('photos', 'per%cent'), ('photos', 'ünïcode')",
    );
    let client = client(&bucket, &bucket.access(bucket.pair()));
    let error = |key: &str| read(&bucket, &client, key).unwrap_err();
    assert!(matches!(error("phantom"), Error::NoBytes { .. }));
    assert!(matches!(error("per%cent"), Error::InvalidKey { .. }));
    assert!(matches!(error("ünïcode"), Error::InvalidKey { .. }));
    assert!(matches!(error("absent"), Error::NotFound { .. }));
    let listed = listed(&bucket, &client, "nosuch").unwrap_err();
    assert!(matches!(listed, Error::NotFound { ref code, .. } if code == "NoSuchBucket"), "{listed}");
}

#[test]
fn a_busy_server_is_asked_again() {
    let (_world, bucket) = world();
    bucket.put("photos", "x", b"some bytes");
    let client = client(&bucket, &bucket.access(bucket.pair()));
    for status in [544, 429, 500, 503] {
        bucket.spoil(Operation::Get, Kind::Status(status), 2);
        bucket.spoil(Operation::List, Kind::Status(status), 1);
        assert_eq!(read(&bucket, &client, "x").unwrap().0, b"some bytes", "{status}");
        assert_eq!(listed(&bucket, &client, "photos").unwrap().len(), 1, "{status}");
    }
    bucket.spoil(Operation::Get, Kind::Status(544), 6);
    let error = read(&bucket, &client, "x").unwrap_err();
    assert!(matches!(error, Error::Busy { status: 544, .. }), "{error}");
}

#[test]
fn a_body_that_is_short_is_read_again() {
    let (_world, bucket) = world();
    let bytes = vec![5_u8; 3_000_000];
    bucket.put("photos", "x", &bytes);
    let client = client(&bucket, &bucket.access(bucket.pair()));
    for kind in [Kind::ShortBody, Kind::CutBody] {
        bucket.spoil(Operation::Get, kind, 1);
        let (read, received) = read(&bucket, &client, "x").unwrap();
        assert_eq!((read.len(), received.check), (bytes.len(), EtagCheck::Agrees), "{kind:?}");
    }
    bucket.spoil(Operation::Get, Kind::ShortBody, 6);
    let error = read(&bucket, &client, "x").unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error}");
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    let (_world, bucket) = world();
    let client = client(&bucket, &bucket.access(bucket.pair()));
    let endpoint = format!("{}/", bucket.double.endpoint());
    let Bucket { double, runtime } = bucket;
    runtime.block_on(double.stop());
    let error = runtime.block_on(client.pages("photos").next()).unwrap_err();
    assert!(matches!(&error, Error::Transport { endpoint: named, .. } if *named == endpoint), "{error}");
}

#[test]
fn a_probe_sees_bytes_and_not_rows() {
    let (world, bucket) = world();
    bucket.put("photos", "x", b"x");
    bucket.put("photos", "empty", b"");
    world.sql(ADMIN, "update storage.objects set name = 'moved' where name = 'x'");
    let client = client(&bucket, &bucket.access(bucket.pair()));
    let probe = |key: &str, etag: &str| bucket.runtime.block_on(client.probe("photos", key, etag)).unwrap();
    assert_eq!(probe("moved", "9dd4e461268c8034f5c8564e155c67a6"), Probe::Missing);
    assert_eq!(probe("x", "9dd4e461268c8034f5c8564e155c67a6"), Probe::Missing);
    world.sql(ADMIN, "update storage.objects set name = 'x' where name = 'moved'");
    assert_eq!(probe("x", "9dd4e461268c8034f5c8564e155c67a6"), Probe::Same);
    assert_eq!(probe("x", "d41d8cd98f00b204e9800998ecf8427e"), Probe::Other);
    assert_eq!(probe("empty", "\"d41d8cd98f00b204e9800998ecf8427e\""), Probe::Same);
    no_unknown_call(&bucket);
}
