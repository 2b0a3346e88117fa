//! Storage brought back: every damage alone and all at once, rows and bytes, through both halves of
//! the API, and after a kill anywhere.

mod kill;
mod meanwhile;
mod process;

use crate::world::{ADMIN, Bucket, Cli, Major, OWNER, Template, World, told};
use fs_err as fs;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;
use supa_safe::disk;
use supa_safe::manifest::storage::{Line, State};
use supa_safe::objects::{Access, Client, Rest, Written};
use supa_safe::postgres::connect::{self, Session};
use supa_safe::postgres::storage::{self, Row};
use supa_safe::salvage::{self, Change, Plan, Probing, Reach, Removal, Restored, Saved, Scope, Theirs};
use supa_safe::secret::Secret;
use supa_safe::store::Store;
use supa_safe::target::{Connection, Defaults};

/// How the API is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Rest,
    S3Alone,
}

/// A world with objects, a snapshot of them, and a session that may write.
struct Rig {
    world: World,
    bucket: Bucket,
    session: Session,
    reach: Reach,
    api: (Client, Rest),
    index: PathBuf,
    before: Live,
}

/// Rows without their versions, and bytes, by id; then the rows of buckets.
pub(crate) type Live = BTreeMap<String, (String, Option<Vec<u8>>)>;

/// Every object at the snapshot: bucket, key, and content type.
const OBJECTS: [(&str, &str, &str); 14] = [
    ("photos", "keep", "text/plain"),
    ("photos", "overwritten", "image/png"),
    ("photos", "over/written by s3", "image/png"),
    ("photos", "deleted", "text/plain"),
    ("photos", "moved", "text/plain"),
    ("photos", "renamed", "text/plain"),
    ("photos", "gone by sql", "text/plain"),
    ("photos", "chain/1", "text/plain"),
    ("photos", "chain/2", "text/plain"),
    ("photos", "swap & 1", "text/plain"),
    ("photos", "swap & 2", "text/plain"),
    ("photos", "//odd/ key(1)'*", "text/plain"),
    ("docs", "a", "application/pdf"),
    ("docs", "a/b", "application/pdf"),
];

/// What is there now.
pub(crate) fn live(world: &World, bucket: &Bucket) -> Live {
    let client = bucket.runtime.block_on(Client::new(&bucket.access(bucket.pair()))).unwrap();
    let mut state = Live::new();
    let rows = world.sql(
        ADMIN,
        "set timezone = 'UTC'; select id || '|' || bucket_id || '|' || name || '|' || (to_jsonb(o) - 'version')
         from storage.objects o",
    );
    for row in rows {
        let [id, name, key, columns] = row.splitn(4, '|').collect::<Vec<_>>().try_into().unwrap();
        let read = bucket.runtime.block_on(client.get(name, key, || Ok(Vec::new())));
        state.insert(id.to_owned(), (columns.to_owned(), read.ok().map(|(bytes, _)| bytes)));
    }
    let buckets = "set timezone = 'UTC'; select id || '|' || to_jsonb(b) from storage.buckets b";
    for row in world.sql(ADMIN, buckets) {
        let (id, columns) = row.split_once('|').unwrap();
        state.insert(format!("bucket {id}"), (columns.to_owned(), None));
    }
    state
}

fn store(world: &World) -> Store {
    let root = world.store();
    Store::open(root.parent().unwrap(), root.file_name().unwrap().to_str().unwrap()).unwrap()
}

/// A session that may write.
fn open(world: &World, bucket: &Bucket, role: &str) -> Session {
    let defaults =
        Defaults { password: Some(Secret::new(told("SUPA_SAFE_TEST_PASSWORD"))), ..Defaults::default() };
    let url = world.url().replacen("postgres@", &format!("{role}@"), 1);
    let connection = Connection::from_url(&url, &defaults).unwrap();
    bucket.runtime.block_on(connect::writable(&connection)).unwrap()
}

impl Rig {
    fn new(major: Major, half: Half) -> Self {
        Self::over(World::new(major, Cli::V3).with_database(Template::Hosted), half)
    }

    fn over(mut world: World, half: Half) -> Self {
        world.write("supabase/config.toml", "project_id = \"test\"\n");
        let bucket = world.bucket(&["photos", "docs", "other"]);
        let service_role = bucket.double.keys().service_role.clone();
        let access =
            |key: Option<&Secret>| Access { service_role: key.cloned(), ..bucket.access(bucket.pair()) };
        let rest = Rest::new(&access(None).endpoint, &service_role).unwrap();
        let s3 = bucket.runtime.block_on(Client::new(&access(None))).unwrap();
        for (name, key, kind) in OBJECTS {
            let metadata = json!({ "Key": key, "ü": [1, { "n": 2 }] }).to_string();
            let written = Written {
                content_type: Some(kind),
                cache_control: Some("max-age=60"),
                robots: Some("noindex"),
                user_metadata: Some(&metadata),
            };
            let bytes = bytes::Bytes::from(format!("bytes of {name}/{key}"));
            bucket.runtime.block_on(rest.put((name, key), &bytes, &written)).unwrap();
        }
        // What is there already may be more than the bucket takes today.
        world.sql(
            ADMIN,
            "update storage.buckets set allowed_mime_types = '{image/png}', file_size_limit = 5 where id = 'docs';
             set session_replication_role = replica;
             update storage.objects set owner_id = md5(name), owner = gen_random_uuid(),
                 created_at = created_at - interval '40 days', updated_at = updated_at - interval '20 days',
                 last_accessed_at = last_accessed_at - interval '10 days'",
        );
        drop(world.run(["snapshot"]).exits(0));
        let index = world.snapshots()[0].join("storage/index.jsonl");
        let session = open(&world, &bucket, OWNER);
        let access = access((half == Half::Rest).then_some(&service_role));
        let objects = store(&world).objects().unwrap();
        let reach = bucket.runtime.block_on(Reach::open(&access, objects)).unwrap();
        let mut rig = Self { world, bucket, session, reach, api: (s3, rest), index, before: Live::new() };
        rig.before = rig.state();
        rig
    }

    fn reach_objects(&self) -> supa_safe::store::Objects {
        store(&self.world).objects().unwrap()
    }

    fn run_dir(&self) -> PathBuf {
        self.world.path("run")
    }

    /// What is there now.
    fn state(&self) -> Live {
        live(&self.world, &self.bucket)
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.bucket.runtime.block_on(future)
    }

    fn sql(&self, sql: &str) {
        self.world.sql(ADMIN, sql);
    }

    fn overwrite(&self, bucket: &str, key: &str) {
        self.bucket.put(bucket, key, b"other bytes");
    }

    fn delete(&self, bucket: &str, key: &str) {
        self.block_on(self.api.0.delete(bucket, key)).unwrap();
    }

    fn relocate(&self, from: (&str, &str), to: (&str, &str)) {
        self.block_on(self.api.1.relocate(from, to)).unwrap();
    }

    fn classify(&self, scope: &Scope, probing: Probing) -> Plan {
        self.block_on(salvage::classify(&self.session.client, &self.index, scope, probing)).unwrap()
    }

    fn save(&self, plan: Plan) -> Saved {
        self.block_on(salvage::save(&self.reach, plan, &self.run_dir())).unwrap()
    }

    fn rows(&self, saved: &Saved) {
        let client = &self.session.client;
        self.block_on(async {
            client.batch_execute("begin").await.unwrap();
            salvage::rows(client, saved).await.unwrap();
            client.batch_execute("commit").await.unwrap();
        });
    }

    fn bytes(&self, saved: &mut Saved, removal: Removal) -> Restored {
        let client = &self.session.client;
        self.block_on(salvage::bytes(client, &self.reach, saved, (&self.index, removal), &drop)).unwrap()
    }

    fn roll_back(&self, probing: Probing, removal: Removal) -> (Saved, Restored) {
        let mut saved = self.save(self.classify(&Scope::Everything, probing));
        self.rows(&saved);
        let restored = self.bytes(&mut saved, removal);
        (saved, restored)
    }

    fn compare(&self, saved: &Saved) -> Vec<String> {
        self.compare_but(saved, &BTreeMap::new())
    }

    /// The same, when this is known to be others' doing.
    fn compare_but(&self, saved: &Saved, stays: &BTreeMap<String, Theirs>) -> Vec<String> {
        let compared = salvage::compare(&self.session.client, &self.reach, saved, (&self.index, stays));
        self.block_on(compared).unwrap()
    }

    /// Demands that everything of the snapshot is as it was, and nothing lies about.
    #[track_caller]
    fn is_as_before(&self, saved: &Saved, what: &str) {
        assert_eq!(self.compare(saved), [""; 0], "{what}");
        self.stands_as_before(what);
    }

    /// The same without a word of who brought it back.
    #[track_caller]
    fn stands_as_before(&self, what: &str) {
        let now = self.state();
        for (id, was) in &self.before {
            assert_eq!(now.get(id), Some(was), "{what}");
        }
        self.no_stray_file(what);
        assert_eq!(
            self.world.sql(ADMIN, "select name from storage.objects where name like 'supa-safe%'"),
            [""; 0]
        );
    }

    /// Demands that each file of bytes has a row, and the calls were known.
    #[track_caller]
    fn no_stray_file(&self, what: &str) {
        let (_, stray) = self.block_on(self.bucket.double.files()).unwrap();
        assert!(stray.is_empty(), "{what}: {stray:?}");
        assert_eq!(self.bucket.double.unknown_calls(), [""; 0]);
    }
}

/// What SQL can do to rows, and so a migration.
const RENAMED: &str = "update storage.objects set name = 'other' where name = 'renamed'";
const GONE: &str =
    "set storage.allow_delete_query = 'true'; delete from storage.objects where name = 'gone by sql'";
const OTHER_COLUMNS: &str = r#"update storage.objects set owner_id = 'x', user_metadata = null,
    metadata = metadata || '{"mimetype": "x/y"}' where name = 'keep'"#;
const OTHER_BUCKET: &str = "update storage.objects set bucket_id = 'other' where name = 'keep'";
const OTHER_VERSION: &str = "update storage.objects set version = 'x' where name = 'keep'";
const OTHER_LIMITS: &str = "update storage.buckets set file_size_limit = 3, allowed_mime_types = '{}', public = true where id = 'docs'";

/// A damage, and what it is called by the plan.
type Damage = (&'static str, fn(&Rig), &'static [Change]);

/// Every damage of `facts/storage.md`, and what people do to keys.
const DAMAGES: [Damage; 17] = [
    ("overwritten", |rig| rig.overwrite("photos", "overwritten"), &[Change::Overwritten]),
    (
        "overwritten twice",
        |rig| {
            rig.overwrite("photos", "over/written by s3");
            rig.overwrite("photos", "over/written by s3");
        },
        &[Change::Overwritten],
    ),
    ("deleted by the API", |rig| rig.delete("photos", "deleted"), &[Change::Absent]),
    (
        "moved by the API",
        |rig| rig.relocate(("photos", "moved"), ("photos", "elsewhere/moved")),
        &[Change::MovedByApi],
    ),
    ("renamed by SQL", |rig| rig.sql(RENAMED), &[Change::MovedBySql]),
    ("deleted by SQL", |rig| rig.sql(GONE), &[Change::Absent]),
    (
        "a chain by the API",
        |rig| {
            rig.relocate(("photos", "chain/2"), ("photos", "chain/3"));
            rig.relocate(("photos", "chain/1"), ("photos", "chain/2"));
        },
        &[Change::MovedByApi, Change::MovedByApi],
    ),
    (
        "a swap by the API",
        |rig| {
            rig.relocate(("photos", "swap & 1"), ("photos", "swap & 3"));
            rig.relocate(("photos", "swap & 2"), ("photos", "swap & 1"));
            rig.relocate(("photos", "swap & 3"), ("photos", "swap & 2"));
        },
        &[Change::MovedByApi, Change::MovedByApi],
    ),
    ("an odd key", |rig| rig.delete("photos", "//odd/ key(1)'*"), &[Change::Absent]),
    (
        "a bucket that takes it no more",
        |rig| {
            rig.overwrite("docs", "a");
            rig.sql(OTHER_LIMITS);
        },
        &[Change::Overwritten],
    ),
    (
        "moved out of a bucket that takes it no more",
        |rig| rig.relocate(("docs", "a/b"), ("other", "a/b")),
        &[Change::MovedByApi],
    ),
    ("other columns", |rig| rig.sql(OTHER_COLUMNS), &[Change::Altered]),
    ("another bucket by SQL", |rig| rig.sql(OTHER_BUCKET), &[Change::MovedBySql]),
    ("another version by SQL", |rig| rig.sql(OTHER_VERSION), &[Change::Overwritten]),
    (
        "moved and overwritten",
        |rig| {
            rig.relocate(("photos", "moved"), ("photos", "elsewhere/moved"));
            rig.overwrite("photos", "elsewhere/moved");
        },
        &[Change::MovedByApi],
    ),
    (
        "overwritten, then renamed by SQL",
        |rig| {
            rig.overwrite("photos", "overwritten");
            rig.sql("update storage.objects set name = 'other' where name = 'overwritten'");
        },
        &[Change::MovedByApi],
    ),
    (
        "deleted and uploaded again",
        |rig| {
            rig.delete("photos", "deleted");
            rig.overwrite("photos", "deleted");
        },
        &[Change::Absent],
    ),
];

/// Makes what is there the snapshot of the next round, as a capture does and without the rest of it.
fn next_round(rig: &mut Rig) {
    let client = &rig.session.client;
    let (mut buckets, mut rows) = (Vec::new(), Vec::new());
    rig.block_on(async {
        client.batch_execute("begin; set local timezone = 'UTC'").await.unwrap();
        buckets = storage::buckets(client).await.unwrap();
        storage::each_object(client, |row| {
            rows.push(serde_json::from_str::<Row>(row)?);
            Ok(())
        })
        .await
        .unwrap();
        client.batch_execute("commit").await.unwrap();
    });
    let store = rig.reach_objects();
    let bucket = |row: String| Line::Bucket(RawValue::from_string(row).unwrap());
    let mut lines: Vec<Line> = buckets.into_iter().map(bucket).collect();
    for row in rows {
        let (name, key) = (row.bucket_id.clone().unwrap(), row.name.clone().unwrap());
        let (incoming, got) = rig.block_on(rig.api.0.get(&name, &key, || store.begin())).unwrap();
        store.keep(incoming, &got.sha256, got.size).unwrap();
        let mut object = row.record(State::Ok, Some(got.size));
        (object.sha256, object.md5, object.etag) = (Some(got.sha256), Some(got.md5), got.etag);
        lines.push(Line::Object(Box::new(object)));
    }
    let lines: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    rig.index = rig.world.path("index.jsonl");
    disk::write(&rig.index, lines.concat().as_bytes()).unwrap();
    if rig.run_dir().exists() {
        fs::remove_dir_all(rig.run_dir()).unwrap();
    }
    rig.before = rig.state();
}

fn each_damage_alone(half: Half) {
    let mut rig = Rig::new(Major::Pg17, half);
    for (what, damage, changes) in DAMAGES {
        damage(&rig);
        let plan = rig.classify(&Scope::Everything, Probing::Changed);
        let found: Vec<Change> = plan.items.iter().map(|item| item.change).collect();
        assert_eq!(found, changes, "{what}");
        let (saved, restored) = rig.roll_back(Probing::Changed, Removal::Keep);
        assert_eq!(restored.left, [""; 0], "{what}");
        rig.is_as_before(&saved, what);
        next_round(&mut rig);
    }
}

#[test]
fn each_damage_alone_through_rest() {
    each_damage_alone(Half::Rest);
}

#[test]
fn each_damage_alone_through_s3() {
    each_damage_alone(Half::S3Alone);
}

/// Those of the damages that do not hinder each other, and what was added.
fn all_damages(rig: &Rig) {
    for (_, damage, _) in &DAMAGES[..12] {
        damage(rig);
    }
    rig.overwrite("photos", "added");
    rig.sql("insert into storage.buckets (id, name) values ('new', 'new')");
    rig.overwrite("new", "added too");
}

#[test]
fn all_damages_at_once_leave_nothing_behind() {
    for (major, half) in [Major::Pg15, Major::Pg17].into_iter().zip([Half::Rest, Half::S3Alone]) {
        let rig = Rig::new(major, half);
        all_damages(&rig);
        let damaged = rig.state();
        let plan = rig.classify(&Scope::Everything, Probing::Changed);
        let added: Vec<String> = plan.added.iter().map(Row::in_words).collect();
        assert_eq!(added, ["`new/added too`", "`photos/added`"]);
        assert_eq!(
            (plan.added_buckets.clone(), plan.displaced.len(), plan.left.len()),
            (vec!["new".to_owned()], 0, 0)
        );
        assert!(plan.bytes_at_most() > 0 && !plan.is_empty());
        let puts = rig.bucket.double.served().puts;
        let (saved, restored) = rig.roll_back(Probing::Changed, Removal::Keep);
        rig.is_as_before(&saved, "all at once");
        assert_eq!((restored.left.len(), restored.removed.len()), (0, 0));
        // What SQL alone did costs no byte, and neither does a move where the server can do it.
        let sent = rig.bucket.double.served().puts - puts;
        assert_eq!(sent, if half == Half::Rest { 5 } else { 12 });
        assert_eq!(restored.uploaded, 5);
        // What was added stays, and every byte that had to go is in the store.
        let now = rig.state();
        for (id, (row, bytes)) in damaged {
            let is_old = rig.before.contains_key(&id);
            assert!(is_old || now.get(&id) == Some(&(row, bytes.clone())), "{id} was added");
            let Some(bytes) = bytes.filter(|bytes| is_old && now[&id].1.as_ref() != Some(bytes)) else {
                continue;
            };
            let object = saved.casualties().iter().find(|object| object.id == id).unwrap();
            assert_eq!(fs::read(rig.reach_objects().path(object.sha256.as_ref().unwrap())).unwrap(), bytes);
        }
        // Its index is read by `prune`.
        let index = fs::read_to_string(rig.run_dir().join("salvage/index.jsonl")).unwrap();
        assert_eq!(index.lines().count(), saved.casualties().len());
    }
}

#[test]
fn what_was_added_goes_when_asked_and_is_saved() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.overwrite("photos", "added");
    rig.sql(
        "insert into storage.buckets (id, name) values ('new', 'new'), ('kept', 'kept');
         insert into storage.objects (bucket_id, name, version) values ('photos', 'no/../key', 'v'), ('new', 'phantom', null)",
    );
    let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
    rig.rows(&saved);
    // Uploaded after the plan was made: nobody asked for its removal.
    rig.overwrite("kept", "younger");
    let restored = rig.bytes(&mut saved, Removal::RemoveAdded);
    assert_eq!(
        restored.removed,
        ["object `new/phantom`", "object `photos/added`", "object `photos/no/../key`", "bucket `new`"]
    );
    assert_eq!(restored.left, ["bucket `kept` has objects and stays"]);
    let object = saved.casualties().iter().find(|object| object.key.as_deref() == Some("added")).unwrap();
    assert_eq!(fs::read(rig.reach_objects().path(object.sha256.as_ref().unwrap())).unwrap(), b"other bytes");
    rig.is_as_before(&saved, "added");
}

#[test]
fn a_bucket_that_is_gone_comes_back_with_its_objects() {
    for half in [Half::Rest, Half::S3Alone] {
        let rig = Rig::new(Major::Pg17, half);
        rig.delete("docs", "a");
        rig.delete("docs", "a/b");
        rig.sql("set storage.allow_delete_query = 'true'; delete from storage.buckets where id = 'docs'");
        let (saved, restored) = rig.roll_back(Probing::Changed, Removal::Keep);
        assert_eq!((restored.uploaded, restored.left.len()), (2, 0));
        rig.is_as_before(&saved, "bucket");
    }
}

/// What a restore of the whole database by other means leaves: every row, and not its bytes.
#[test]
fn bytes_that_no_row_misses_are_found_by_probes() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.sql("create table back_then as select * from storage.objects");
    all_damages(&rig);
    rig.sql(
        "set session_replication_role = replica; delete from storage.objects; delete from storage.buckets where id = 'new';
         update storage.buckets set file_size_limit = 5, allowed_mime_types = '{image/png}', public = false where id = 'docs';
         alter table storage.objects alter path_tokens drop expression;
         insert into storage.objects select * from back_then",
    );
    let plan = rig.classify(&Scope::Everything, Probing::Changed);
    assert!(plan.is_empty(), "{plan:?}");
    let (saved, restored) = rig.roll_back(Probing::All, Removal::Keep);
    assert_eq!((restored.uploaded, restored.found, restored.left.len()), (11, 3, 0));
    assert_eq!(rig.state(), rig.before);
    assert_eq!(rig.compare(&saved), [""; 0]);
    // Again, it has nothing to do.
    let (_, again) = rig.roll_back(Probing::All, Removal::Keep);
    assert_eq!((again.uploaded, again.found), (0, 14));
}
