//! The Storage component: what is captured, what is said of what cannot be, and what is not copied
//! again.

mod faults;
mod writers;

use crate::world::{ADMIN, Bucket, World, list, read_json};
use fs_err as fs;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use supa_safe::demo::storage::{Kind, Operation, Served, put_etag};
use supa_safe::disk;

/// Keys that the server accepts, and that a careless client, path, or shell would spoil.
pub(crate) const NASTY: [&str; 40] = [
    "plain.txt",
    "with space.txt",
    " leading",
    "trailing ",
    "a",
    "a/b",
    "a/b/c",
    "double//slash",
    "/leading-slash",
    "trailing-slash/x/",
    "*",
    "?",
    "star*.txt",
    "question?.txt",
    "CON",
    "con",
    "NUL.txt",
    "file.",
    "Case",
    "case",
    "CASE",
    "amp&ersand",
    "plus+plus",
    "equals=x",
    "at@home",
    "colon:x",
    "semi;colon",
    "comma,comma",
    "dollar$HOME",
    "$(whoami)",
    "quote'quote",
    "(paren)",
    "!bang",
    "-rf",
    "--help",
    "...",
    "a..b",
    "x/...y",
    "and/+/=&?",
    "very/deep/1/2/3/4/5/6/7/8/9/0/1/2/3/4/5/6/7/8/9/key with space & plus + and ? in (it)",
];

/// Keys that the server refuses, in rows that SQL or an older server made.
const ILLEGAL: [&str; 24] = [
    "../escape",
    "../../etc/passwd",
    "a/../b",
    "./here",
    "x/..",
    "per%cent",
    "%2e%2e%2fx",
    "100%",
    "hash#tag",
    "quo\"te",
    "back\\slash",
    "til~de",
    "br[ack]et",
    "br{ac}e",
    "pi|pe",
    "ca^ret",
    "an<gl>e",
    "ünïcödé",
    "日本語.png",
    "new\nline",
    "c\u{1}x",
    "back\u{8}space",
    "\u{1b}[2J",
    "no character \u{ffff}",
];

/// A world with a double, and these buckets.
pub(crate) fn world(buckets: &[&str]) -> (World, Bucket) {
    let mut world = World::hosted(&[]);
    let bucket = world.bucket(buckets);
    (world, bucket)
}

/// The newest snapshot's manifest.
pub(crate) fn manifest(world: &World) -> Value {
    read_json(&world.snapshots()[0].join("manifest.json"))
}

/// The Storage component of the newest snapshot.
pub(crate) fn component(world: &World) -> Value {
    let manifest = manifest(world);
    let all = manifest["components"].as_array().unwrap();
    all.iter().find(|component| component["name"] == "storage").unwrap().clone()
}

/// The objects in the newest snapshot's index, by bucket and key.
pub(crate) fn index(world: &World) -> BTreeMap<(String, String), Value> {
    let text = fs::read_to_string(world.snapshots()[0].join("storage/index.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let part = |object: &Value, name: &str| object[name].as_str().unwrap().to_owned();
    lines
        .filter_map(|line| line.get("object").cloned())
        .map(|object| ((part(&object, "bucket"), part(&object, "key")), object))
        .collect()
}

/// The file of an object's bytes.
pub(crate) fn file(world: &World, object: &Value) -> PathBuf {
    let sha256 = object["sha256"].as_str().unwrap();
    world.store().join("objects").join(&sha256[..2]).join(sha256)
}

/// The files of bytes that the store has.
pub(crate) fn files(world: &World) -> Vec<PathBuf> {
    let shards = list(&world.store().join("objects")).into_iter().filter(|dir| dir.is_dir());
    let shards = shards.filter(|dir| dir.file_name().unwrap().len() == 2);
    shards.flat_map(|dir| list(&dir)).collect()
}

/// Tells figures to whoever runs `tests/soak/storage`.
#[expect(clippy::print_stderr, reason = "they are for whoever runs it by hand")]
fn tell(figures: &str) {
    eprintln!("figures: {figures}");
}

/// A number that `tests/soak/storage` makes larger.
pub(crate) fn figure(name: &str, small: u64) -> u64 {
    std::env::var(name).map_or(small, |figure| figure.parse().unwrap())
}

fn state<'a>(index: &'a BTreeMap<(String, String), Value>, bucket: &str, key: &str) -> &'a Value {
    &index.get(&(bucket.to_owned(), key.to_owned())).unwrap_or_else(|| panic!("{bucket}/{key}"))["state"]
}

fn text(sql: &str) -> String {
    format!("E'{}'", sql.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"))
}

#[test]
fn every_object_has_its_state_and_its_bytes() {
    let (world, bucket) = world(&["photos", "Bad_Bucket Name!", "empty"]);
    for key in NASTY {
        bucket.put("photos", key, format!("bytes of {key}").as_bytes());
    }
    for key in ILLEGAL {
        let sql = "insert into storage.objects (bucket_id, name, version, metadata) values ('photos', ";
        world.sql(ADMIN, &format!("{sql}{}, 'v', '{{\"size\": 3, \"eTag\": \"x\"}}')", text(key)));
    }
    for n in 0..3 {
        world.sql(
            ADMIN,
            &format!("insert into storage.objects (bucket_id, name) values ('photos', 'phantom{n}')"),
        );
    }
    bucket.put("Bad_Bucket Name!", "nothing", b"");
    bucket.put("Bad_Bucket Name!", "folder/", b"");
    let length = figure("SUPA_SAFE_TEST_LARGE", 40_000_000);
    let large: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
    bucket.put("photos", "large.bin", &large);
    // No float holds this number.
    let odd = r#"{"n": 12345678901234567890123, "t": "\"\\ü"}"#;
    world.sql(ADMIN, &format!("update storage.objects set user_metadata = '{odd}' where name = 'a/b'"));

    let started = Instant::now();
    world.run(["snapshot"]).exits(0);
    let seconds = started.elapsed().as_secs_f64();
    let index = index(&world);
    for key in NASTY {
        assert_eq!(state(&index, "photos", key), "ok", "{key}");
        let object = &index[&("photos".to_owned(), key.to_owned())];
        assert_eq!(fs::read(file(&world, object)).unwrap(), format!("bytes of {key}").as_bytes(), "{key}");
    }
    for key in ILLEGAL {
        assert_eq!(state(&index, "photos", key), "unreadable-key", "{key}");
    }
    for n in 0..3 {
        assert_eq!(state(&index, "photos", &format!("phantom{n}")), "dangling");
    }
    assert_eq!(state(&index, "Bad_Bucket Name!", "nothing"), "ok");
    assert_eq!(state(&index, "Bad_Bucket Name!", "folder/.emptyFolderPlaceholder"), "placeholder");
    let object = &index[&("photos".to_owned(), "large.bin".to_owned())];
    assert_eq!(
        (&object["state"], &object["etag"]),
        (&json!("ok"), &json!(put_etag(&large).trim_matches('"')))
    );
    assert!(object["etag"].as_str().unwrap().ends_with(&format!("-{}", length.div_ceil(16 << 20))));
    assert!(fs::read(file(&world, object)).unwrap() == large);
    tell(&format!(
        "an object of {length} bytes, 40 nasty keys, 24 illegal ones: as they were, in {seconds:.1} s"
    ));

    let component = component(&world);
    assert_eq!((&component["state"], &component["missing"]), (&json!("complete"), &json!([])));
    let counts = &manifest(&world)["storage"];
    let expected = json!({
        "buckets": 5, "ok": 42, "drifted": 0, "dangling": 3, "unreadable_keys": 24, "placeholders": 1,
        "bytes": counts["bytes"],
    });
    assert_eq!(*counts, expected);
    assert_eq!(bucket.double.unknown_calls(), [""; 0]);
    the_index_holds_the_rows(&world);

    let shown = world.run(["show"]).exits(0);
    let line = shown.stdout.lines().find(|line| line.starts_with("storage ")).unwrap();
    assert_eq!(line, format!("storage    5 buckets, 70 objects, {}.0 MB", length / 1_000_000));
    drop(world.run(["verify"]).exits(0));
}

/// What the index holds of each row, against what the database says.
fn the_index_holds_the_rows(world: &World) {
    let text = fs::read_to_string(world.snapshots()[0].join("storage/index.jsonl")).unwrap();
    let quoted = text.replace('\'', "''");
    let session = world.session(ADMIN);
    session.run("create temp table lines (line jsonb)");
    for line in quoted.lines() {
        session.run(&format!("insert into lines values ('{line}')"));
    }
    let wrong = session.run(
        "select o.name from storage.objects o left join
             (select line -> 'object' as l from lines where line ? 'object') l on (l ->> 'id')::uuid = o.id
         where (l ->> 'bucket', l ->> 'key', l ->> 'version', l -> 'metadata', l -> 'user_metadata', l ->> 'owner_id',
                (l ->> 'created_at')::timestamptz, (l ->> 'updated_at')::timestamptz, (l ->> 'last_accessed_at')::timestamptz)
             is distinct from (o.bucket_id, o.name, o.version, coalesce(o.metadata, 'null'), coalesce(o.user_metadata, 'null'),
                o.owner_id, o.created_at, o.updated_at, o.last_accessed_at)",
    );
    assert_eq!(wrong, [""; 0]);
    let buckets =
        session.run("select count(*) from storage.buckets b join lines on line -> 'bucket' = to_jsonb(b)");
    assert_eq!(buckets, ["5"]);
}

/// Four objects in a snapshot, two of them with the same bytes.
fn four_photos() -> (World, Bucket) {
    let (world, bucket) = world(&["photos"]);
    for key in ["one", "two", "same as two", "three"] {
        bucket.put("photos", key, key.replace("same as ", "").as_bytes());
    }
    world.run(["snapshot"]).exits(0);
    (world, bucket)
}

#[test]
fn damage_names_bucket_and_key() {
    let (world, _bucket) = four_photos();
    let index = index(&world);
    let path = |key: &str| file(&world, &index[&("photos".to_owned(), key.to_owned())]);
    disk::write(&path("two"), b"owt").unwrap();
    fs::remove_file(path("one")).unwrap();
    let ran = world.run(["verify", "--json"]).exits(3);
    let id = manifest(&world)["id"].as_str().unwrap().to_owned();
    let fact = ran.summary()["findings"][0]["fact"].as_str().unwrap().to_owned();
    let damage: Vec<&str> = fact.split_once(": ").unwrap().1.split("; ").collect();
    assert_eq!(
        damage,
        [
            "the bytes of object `photos/one` are not there",
            "the bytes of object `photos/same as two` have another SHA-256",
            "the bytes of object `photos/two` have another SHA-256",
        ],
        "{id}"
    );
    // A fresh snapshot fetches them again, and the damaged file stays beside.
    world.run(["snapshot"]).exits(0);
    drop(world.run(["verify"]).exits(0));
    assert_eq!(fs::read(path("two")).unwrap(), b"two");
    assert_eq!(fs::read(path("two").with_extension("damaged")).unwrap(), b"owt");
}

#[test]
fn what_has_not_changed_is_not_copied_again() {
    let (world, bucket) = world(&["photos"]);
    let many = figure("SUPA_SAFE_TEST_UNCHANGED", 600);
    for n in 0..many {
        bucket.put("photos", &format!("{n}.txt"), format!("object {n}").repeat(1500).as_bytes());
    }
    let timed = |what: &str| {
        let started = Instant::now();
        let before = bucket.double.served().gets;
        world.run(["snapshot"]).exits(0);
        let fetched = bucket.double.served().gets - before;
        let seconds = started.elapsed().as_secs_f64();
        tell(&format!("{what} snapshot of {many} objects: {fetched} fetched in {seconds:.1} s"));
    };
    timed("first");
    assert_eq!(bucket.double.served().gets, many);
    timed("second");
    assert_eq!(bucket.double.served().gets, many);
    assert_eq!(index(&world).len() as u64, many);

    // An overwrite with as many bytes is seen; a row that only SQL moved finds its bytes by their etag.
    bucket.put("photos", "7.txt", "tcejbo 7".repeat(1500).as_bytes());
    bucket.put("photos", "new.txt", b"new");
    world.run(["snapshot"]).exits(0);
    assert_eq!(bucket.double.served().gets, many + 2);
    let object = &index(&world)[&("photos".to_owned(), "7.txt".to_owned())];
    assert_eq!(fs::read(file(&world, object)).unwrap(), "tcejbo 7".repeat(1500).as_bytes());
    assert_eq!(list(&world.store().join("objects/incoming")), [""; 0].map(PathBuf::from));
    drop(world.run(["verify"]).exits(0));
}

/// Bytes that the store had from before are read back with the snapshot that leans on them, and the
/// same run fetches them again when they are not what they were.
#[test]
fn bytes_that_are_damaged_are_fetched_again_in_the_same_run() {
    let (world, bucket) = four_photos();
    let index = index(&world);
    let path = |key: &str| file(&world, &index[&("photos".to_owned(), key.to_owned())]);
    let gets = bucket.double.served().gets;
    disk::write(&path("one"), b"longer than it was").unwrap();
    disk::write(&path("two"), b"owt").unwrap();
    let ran = world.run(["snapshot"]).exits(0);
    assert_eq!(
        ran.lines("warning: "),
        [
            "warning: 1 file of Storage's bytes had changed on this disk since an earlier snapshot, and came anew from \
             the server; what was found stays beside, as `.damaged`"
        ]
    );
    assert_eq!(["one", "two"].map(|key| fs::read(path(key)).unwrap()), [b"one", b"two"]);
    assert_eq!(fs::read(path("two").with_extension("damaged")).unwrap(), b"owt");
    assert_eq!(bucket.double.served().gets, gets + 2);
    drop(world.run(["verify"]).exits(0));

    // A server that does not give them out leaves the damage, which is said.
    disk::write(&path("three"), b"eerht").unwrap();
    bucket.spoil(Operation::Get, Kind::Status(544), 6);
    let ran = world.run(["snapshot", "--json"]).exits(3);
    let finding = &ran.summary()["findings"][0];
    assert_eq!(finding["rule"], "SS005");
    let fact = finding["fact"].as_str().unwrap();
    assert_eq!(fact.split_once(": ").unwrap().1, "the bytes of object `photos/three` have another SHA-256");
    world.run(["snapshot"]).exits(0);
    assert_eq!(fs::read(path("three")).unwrap(), b"three");
}

#[test]
fn an_object_file_that_is_gone_is_copied_again() {
    let (world, bucket) = world(&["photos"]);
    bucket.put("photos", "x", b"some bytes");
    world.run(["snapshot"]).exits(0);
    let path: &Path = &files(&world)[0];
    fs::remove_file(path).unwrap();
    world.run(["snapshot"]).exits(0);
    assert_eq!(fs::read(path).unwrap(), b"some bytes");
    assert_eq!(bucket.double.served().gets, 2);
}

/// Takes a snapshot that lacks something, and says what.
#[track_caller]
fn lacks(world: &World) -> String {
    let ran = world.run(["snapshot", "--json"]).exits(3);
    let summary = ran.summary();
    let fact = summary["findings"][0]["fact"].as_str().unwrap();
    assert_eq!(
        (&summary["findings"][0]["rule"], &summary["target_touched"]),
        (&json!("SS006"), &json!(false))
    );
    let component = component(world);
    assert_eq!(component["state"], "incomplete");
    let missing = component["missing"][0].as_str().unwrap().to_owned();
    assert_eq!(fact, format!("snapshot {} lacks {missing}", summary["snapshot"].as_str().unwrap()));
    // The database of that snapshot is as good as of any.
    drop(world.run(["verify"]).exits(0));
    missing
}

#[test]
fn keys_that_see_nothing_are_a_failure_that_names_the_cause() {
    let (mut world, bucket) = world(&["photos"]);
    bucket.put("photos", "x", b"x");
    bucket.put("photos", "y", b"y");
    let endpoint = bucket.access(bucket.pair()).endpoint;
    let secret = bucket.double.keys().secret_access_key.clone();

    world.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", "wrong");
    assert_eq!(
        lacks(&world),
        format!(
            "objects of Storage: `{endpoint}` refused the signature: the secret key is wrong, or the region is not `us-east-1`"
        )
    );
    world.set("SUPA_SAFE_S3_SECRET_ACCESS_KEY", secret.expose());
    world.set("SUPA_SAFE_S3_REGION", "ap-south-1");
    assert_eq!(
        lacks(&world),
        format!(
            "objects of Storage: `{endpoint}` refused the signature: the secret key is wrong, or the region is not `ap-south-1`"
        )
    );
    world.unset("SUPA_SAFE_S3_REGION");
    world.set("SUPA_SAFE_S3_ACCESS_KEY_ID", "nobody");
    assert_eq!(lacks(&world), format!("objects of Storage: `{endpoint}` does not know this access key id"));

    world.unset("SUPA_SAFE_S3_ACCESS_KEY_ID");
    world.unset("SUPA_SAFE_S3_SECRET_ACCESS_KEY");
    assert_eq!(
        lacks(&world),
        "2 objects of Storage: there are no keys to read them with; create S3 keys in the dashboard under Storage, S3, \
         and set SUPA_SAFE_S3_ACCESS_KEY_ID and SUPA_SAFE_S3_SECRET_ACCESS_KEY, or name an AWS profile in \
         SUPA_SAFE_S3_PROFILE"
    );
    assert_eq!(bucket.double.served().gets, 0);
}

#[test]
fn a_role_that_is_shown_nothing_is_a_failure_that_names_the_cause() {
    let (mut world, bucket) = world(&["photos"]);
    bucket.put("photos", "x", b"x");
    let keys = bucket.double.keys();
    world.unset("SUPA_SAFE_S3_ACCESS_KEY_ID");
    world.unset("SUPA_SAFE_S3_SECRET_ACCESS_KEY");
    // The form of a profile that holds a session token.
    let profile = |token: &str| {
        let text = format!(
            "[shop]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {token}\n",
            keys.project_ref,
            keys.anon.expose()
        );
        fs::create_dir_all(world.path("home/.aws")).unwrap();
        disk::write(&world.path("home/.aws/credentials"), text.as_bytes()).unwrap();
    };
    world.write("supabase/supa-safe.toml", "storage_profile = \"shop\"\n");
    profile(bucket.double.user_token().expose());
    assert_eq!(
        lacks(&world),
        "1 object of bucket `photos`: the keys sign in and the listing is empty, as a role does that row-level security \
         shows nothing; use S3 keys of the dashboard, or the key of the service role"
    );
    profile(keys.service_role.expose());
    world.run(["snapshot"]).exits(0);
    assert_eq!(component(&world)["state"], "complete");
}

/// Whoever can change a file of the repository could name a host of their own there: what is sent as
/// it is does not go to it. A signature may: it holds for that host, and the secret stays here.
#[test]
fn a_session_token_does_not_go_where_a_file_alone_leads() {
    let (mut world, bucket) = world(&["photos"]);
    bucket.put("photos", "x", b"x");
    let endpoint = bucket.access(bucket.pair()).endpoint;
    let keys = bucket.double.keys();
    let text = format!(
        "[shop]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n[pair]\n\
         aws_access_key_id = {}\naws_secret_access_key = {}\n",
        keys.project_ref,
        keys.anon.expose(),
        keys.service_role.expose(),
        keys.access_key_id,
        keys.secret_access_key.expose(),
    );
    fs::create_dir_all(world.path("home/.aws")).unwrap();
    disk::write(&world.path("home/.aws/credentials"), text.as_bytes()).unwrap();
    world.unset("SUPA_SAFE_S3_ACCESS_KEY_ID");
    world.unset("SUPA_SAFE_S3_SECRET_ACCESS_KEY");
    world.unset("SUPA_SAFE_STORAGE_URL");
    let policy = format!("storage_url = \"{endpoint}\"\nstorage_profile = \"shop\"\n");
    world.write("supabase/supa-safe.toml", &policy);
    assert_eq!(
        lacks(&world),
        format!(
            "objects of Storage: the AWS profile `shop` holds a session token, which is sent as it is, and only \
             `storage_url` names `{endpoint}`; set SUPA_SAFE_STORAGE_URL to it if it may have the token"
        )
    );
    assert_eq!(bucket.double.served(), Served::default());
    // Nobody but this person can set a variable, or a profile of another name.
    world.set("SUPA_SAFE_S3_PROFILE", "pair");
    world.run(["snapshot"]).exits(0);
    world.unset("SUPA_SAFE_S3_PROFILE");
    world.set("SUPA_SAFE_STORAGE_URL", endpoint.as_str());
    bucket.put("photos", "x", b"changed");
    world.run(["snapshot"]).exits(0);
    assert_eq!(bucket.double.served().gets, 2);
}

#[test]
fn what_sql_proves_empty_needs_no_keys() {
    let (mut world, bucket) = world(&["photos"]);
    world.unset("SUPA_SAFE_S3_ACCESS_KEY_ID");
    world.unset("SUPA_SAFE_S3_SECRET_ACCESS_KEY");
    world.run(["snapshot"]).exits(0);
    let expected = json!({ "name": "storage", "state": "complete", "summary": "3 buckets, 0 objects, 0 B", "missing": [] });
    assert_eq!(component(&world), expected);
    assert_eq!(bucket.double.served().lists, 0);
    world.unset("SUPA_SAFE_STORAGE_URL");
    world.run(["snapshot"]).exits(0);
    assert_eq!(component(&world)["state"], "not-applicable");
}
