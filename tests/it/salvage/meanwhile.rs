//! What others do meanwhile, what refers to objects, and what stands in the way.

use super::{DAMAGES, Half, OBJECTS, Rig, all_damages};
use crate::scratch::until;
use crate::world::{ADMIN, Major, World};
use fs_err as fs;
use supa_safe::demo::storage::{Kind, Operation};
use supa_safe::disk;
use supa_safe::objects::{self, EtagCheck, Upload};
use supa_safe::salvage::{self, Mark, Probing, Reach, Removal, Scope, Theirs, Touched};
use supa_safe::secret::Secret;

#[test]
fn what_users_upload_meanwhile_stays_and_is_named() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    all_damages(&rig);
    let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
    rig.bucket.put("photos", "overwritten", b"still other bytes");
    rig.rows(&saved);
    // One that came back by SQL, and one that is on its way.
    rig.overwrite("photos", "deleted");
    rig.delete("photos", "elsewhere/moved");
    let restored = rig.bytes(&mut saved, Removal::Keep);
    assert_eq!(restored.left, [""; 0]);
    let mut stays: Vec<(String, Theirs)> = restored
        .stays
        .iter()
        .map(|(id, theirs)| {
            let item = saved.items().find(|(item, _)| item.was.id == *id).unwrap().0;
            (item.was.key.clone().unwrap(), *theirs)
        })
        .collect();
    stays.sort();
    let expected =
        [("deleted", Theirs::Overwritten), ("moved", Theirs::Removed), ("overwritten", Theirs::Overwritten)];
    assert_eq!(stays, expected.map(|(key, theirs)| (key.to_owned(), theirs)));
    let wrong = rig.compare(&saved);
    assert_eq!(wrong.len(), 6, "{wrong:?}");
    // Nothing is left to be done about it, however often it is tried.
    assert_eq!(rig.compare_but(&saved, &restored.stays), [""; 0]);
    let again = rig.bytes(&mut saved, Removal::Keep);
    assert_eq!((again.left.len(), again.stays.len(), again.uploaded), (0, 3, 0));
    rig.no_stray_file("meanwhile");
    let read = |key: &str| rig.block_on(rig.api.0.get("photos", key, || Ok(Vec::new()))).unwrap().0;
    assert_eq!(
        (read("overwritten"), read("deleted")),
        (b"still other bytes".to_vec(), b"other bytes".to_vec())
    );
    assert_eq!(read("over/written by s3"), b"bytes of photos/over/written by s3");
}

#[test]
fn what_the_migration_did_not_touch_is_left_alone() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.sql("update storage.objects set name = 'x' where name = 'renamed'; update storage.buckets set public = true where id = 'photos'");
    let id = rig.world.sql(ADMIN, "select id from storage.objects where name = 'x'").concat();
    rig.overwrite("photos", "overwritten");
    rig.overwrite("photos", "new");
    let mark = Mark::Changed(["name".to_owned()].into());
    let touched = Touched { objects: [(id.clone(), mark)].into(), ..Touched::default() };
    let mut saved = rig.save(rig.classify(&Scope::Only(touched), Probing::Changed));
    rig.rows(&saved);
    let left: Vec<String> = saved.plan().left.iter().map(|left| left.object.clone()).collect();
    assert_eq!(left, ["`photos/overwritten`", "`photos/new`"]);
    rig.bytes(&mut saved, Removal::RemoveAdded);
    assert_eq!(rig.compare(&saved), [""; 0]);
    let now = rig.state();
    assert_eq!(now[&id], rig.before[&id]);
    assert_eq!(now.len(), rig.before.len() + 1);
    assert_eq!(rig.world.sql(ADMIN, "select public from storage.buckets where id = 'photos'"), ["t"]);
}

#[test]
fn ids_are_there_for_foreign_keys_before_the_bytes_are() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    let id = rig.world.sql(ADMIN, "select id from storage.objects where name = 'deleted'").concat();
    rig.delete("photos", "deleted");
    rig.overwrite("photos", "deleted");
    rig.sql("create table public.files (object uuid primary key references storage.objects)");
    let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
    assert_eq!(saved.plan().displaced.len(), 1);
    rig.rows(&saved);
    rig.sql(&format!("insert into public.files values ('{id}')"));
    rig.sql("insert into public.files select id from storage.objects where name = 'deleted'");
    let restored = rig.bytes(&mut saved, Removal::Keep);
    // Something refers to what stands in the way, so it cannot go.
    assert_eq!(
        restored.left,
        [
            "object `photos/deleted`: cannot remove `photos/deleted`: rows of other tables refer to it (update or delete on \
             table \"objects\" violates foreign key constraint \"files_object_fkey\" on table \"files\")"
        ]
    );
    rig.sql(&format!("delete from public.files where object <> '{id}'"));
    let restored = rig.bytes(&mut saved, Removal::Keep);
    assert_eq!((restored.left.len(), restored.moved, restored.uploaded), (0, 1, 1));
    rig.is_as_before(&saved, "foreign key");
    let words = saved.casualties().iter().find(|object| object.id != id).unwrap();
    assert_eq!(fs::read(rig.reach_objects().path(words.sha256.as_ref().unwrap())).unwrap(), b"other bytes");
}

/// As on a server without supautils: what cannot be kept is said.
#[test]
fn a_role_that_may_not_quieten_triggers_says_what_it_could_not_keep() {
    let world = World::own_server(&[]);
    world.sql(ADMIN, "revoke set on parameter session_replication_role from postgres");
    let rig = Rig::over(world, Half::Rest);
    for (_, damage, _) in &DAMAGES[..7] {
        damage(&rig);
    }
    let (saved, restored) = rig.roll_back(Probing::Changed, Removal::Keep);
    assert_eq!(restored.left, [""; 0]);
    let mut expected: Vec<String> =
        ["chain/1", "chain/2", "deleted", "moved", "over/written by s3", "overwritten", "renamed"]
            .map(|key| format!("object `photos/{key}` differs in updated_at"))
            .to_vec();
    expected.sort();
    assert_eq!(rig.compare(&saved), expected);
    rig.no_stray_file("no replica");
    let again = rig.bytes(&mut saved.clone(), Removal::Keep);
    assert_eq!((again.uploaded, again.moved, again.left.len()), (0, 0, 0));
}

#[test]
fn large_objects_get_the_etag_that_they_had() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    let bytes: Vec<u8> = (0..11_u32 << 20).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[2]).collect();
    let file = rig.world.path("large");
    disk::write(&file, &bytes).unwrap();
    let put = |key: &str, parts: u32| {
        let etag = format!("{}-{parts}", "0".repeat(32));
        let upload = Upload {
            file: &file,
            size: bytes.len() as u64,
            etag: Some(&etag),
            content_type: Some("image/png"),
            cache_control: None,
        };
        rig.block_on(rig.api.0.put("photos", key, &upload)).unwrap()
    };
    assert!(put("three parts", 3).ends_with("-3"));
    assert!(put("one part", 1).ends_with("-1"));
    assert_eq!(put("whole", 77).len(), 32);
    let (_, received) = rig.block_on(rig.api.0.get("photos", "three parts", || Ok(Vec::new()))).unwrap();
    assert_eq!(received.check, EtagCheck::Agrees);
    let mut rig = rig;
    super::next_round(&mut rig);
    for key in ["three parts", "one part", "whole"] {
        rig.overwrite("photos", key);
    }
    let (saved, restored) = rig.roll_back(Probing::Changed, Removal::Keep);
    assert_eq!((restored.uploaded, restored.left.len()), (3, 0));
    rig.is_as_before(&saved, "large");
    assert_eq!(rig.world.sql(ADMIN, "select count(*) from storage.s3_multipart_uploads"), ["0"]);
}

#[test]
fn a_key_that_is_refused_is_known_before_anything_changes() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    let wrong = Secret::new("no-key-of-this-project");
    let access = objects::Access { service_role: Some(wrong), ..rig.bucket.access(rig.bucket.pair()) };
    let error = rig.block_on(Reach::open(&access, rig.reach_objects())).unwrap_err();
    assert!(matches!(&error, salvage::Error::Objects(objects::Error::Denied { .. })), "{error}");
    let key = rig.bucket.double.keys().service_role.clone();
    let shown = format!("{error} {error:?} {:?} {access:?}", rig.reach);
    assert!(!shown.contains("no-key") && !shown.contains(key.expose()), "{shown}");
}

#[test]
fn bytes_that_are_not_those_of_the_snapshot_are_never_sent() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.overwrite("photos", "overwritten");
    rig.overwrite("photos", "keep");
    let sha256 = disk::sha256(b"bytes of photos/keep");
    disk::write(&rig.reach_objects().path(&sha256), b"bytes of photos/kelp").unwrap();
    let (saved, restored) = rig.roll_back(Probing::Changed, Removal::Keep);
    let lost = "object `photos/keep`: the bytes of object `photos/keep` are not in the store, and it has to be uploaded";
    assert_eq!((restored.uploaded, restored.left), (1, vec![lost.to_owned()]));
    assert_eq!(
        rig.compare(&saved),
        [
            "object `photos/keep` differs in updated_at, metadata, user_metadata",
            "object `photos/keep` has other bytes"
        ]
    );
    assert_eq!(OBJECTS.len() + 5, rig.before.len());
}

#[test]
fn limits_are_back_whatever_became_of_the_uploads() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.overwrite("docs", "a");
    let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
    rig.rows(&saved);
    rig.bucket.spoil(Operation::Write, Kind::Status(401), 1);
    let client = &rig.session.client;
    let failed =
        rig.block_on(salvage::bytes(client, &rig.reach, &mut saved, (&rig.index, Removal::Keep), &drop));
    assert!(matches!(&failed, Err(salvage::Error::Objects(objects::Error::Denied { .. }))), "{failed:?}");
    assert_eq!(rig.state()["bucket docs"], rig.before["bucket docs"]);
    let restored = rig.bytes(&mut saved, Removal::Keep);
    assert_eq!((restored.uploaded, restored.left.len()), (1, 0));
    rig.is_as_before(&saved, "limits");
}

#[test]
fn what_comes_into_the_way_meanwhile_is_saved_too() {
    for half in [Half::Rest, Half::S3Alone] {
        let rig = Rig::new(Major::Pg17, half);
        rig.relocate(("photos", "moved"), ("photos", "elsewhere"));
        let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
        rig.rows(&saved);
        rig.bucket.put("photos", "moved", b"a newcomer");
        let restored = rig.bytes(&mut saved, Removal::Keep);
        assert_eq!((restored.moved, restored.left.len()), (1, 0));
        rig.is_as_before(&saved, "newcomer");
        let read_back = salvage::resume(&rig.run_dir()).unwrap().unwrap();
        let sha256 = disk::sha256(b"a newcomer");
        let named =
            |object: &&supa_safe::manifest::storage::Object| object.sha256.as_deref() == Some(&sha256);
        assert_eq!(read_back.casualties().iter().filter(named).count(), 1);
        assert_eq!(fs::read(rig.reach_objects().path(&sha256)).unwrap(), b"a newcomer");
    }
}

#[test]
fn what_is_uploaded_between_a_look_and_the_upload_stays() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.overwrite("docs", "a");
    let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
    rig.rows(&saved);
    // The limits of the bucket are lifted after the look, which waits for whoever writes to its row.
    let dashboard = rig.world.session(ADMIN);
    dashboard.run("begin; update storage.buckets set public = public where id = 'docs'");
    let restored = std::thread::scope(|scope| {
        let going = scope.spawn(|| rig.bytes(&mut saved, Removal::Keep));
        let waits =
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        until("it waits for the bucket", || !rig.world.sql(ADMIN, waits).is_empty());
        rig.bucket.put("docs", "a", b"newer");
        dashboard.run("commit");
        going.join().unwrap()
    });
    assert_eq!((restored.uploaded, restored.left.len()), (0, 0));
    assert_eq!(restored.stays.into_values().collect::<Vec<_>>(), [Theirs::Overwritten]);
    assert_eq!(rig.bucket.get("docs", "a"), b"newer");
}

#[test]
fn without_keys_rows_go_back_and_bytes_wait_for_a_run_that_has_them() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    all_damages(&rig);
    let saved = salvage::defer(rig.classify(&Scope::Everything, Probing::Changed), &rig.run_dir()).unwrap();
    assert!(!saved.is_nothing());
    rig.rows(&saved);
    // Whoever refers to an object finds it.
    let ids: Vec<&String> = rig.before.keys().filter(|id| !id.starts_with("bucket ")).collect();
    let now = rig.world.sql(ADMIN, "select id from storage.objects");
    assert!(ids.iter().all(|id| now.contains(*id)), "{now:?}");
    let key = "renamed";
    assert_eq!(rig.bucket.get("photos", key), format!("bytes of photos/{key}").into_bytes());

    let mut resumed = salvage::resume(&rig.run_dir()).unwrap().unwrap();
    let restored = rig.bytes(&mut resumed, Removal::Keep);
    assert_eq!((restored.left, restored.stays.len()), (Vec::new(), 0));
    rig.is_as_before(&resumed, "deferred");
}

#[test]
fn what_the_migration_added_goes_when_somebody_can_look_at_it() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.sql(
        "insert into storage.buckets (id, name) values ('new', 'new');
        insert into storage.objects (bucket_id, name) values ('photos', 'never had bytes');
        insert into storage.objects (bucket_id, name, version) values ('new', 'phantom', 'v'), ('photos', 'used', 'v')",
    );
    rig.bucket.put("photos", "used", b"by somebody");
    let added = [("photos", "never had bytes"), ("new", "phantom"), ("photos", "used")];
    let added = added.map(|(bucket, key)| (bucket.to_owned(), key.to_owned()));
    let touched =
        Touched { added: added.into(), added_buckets: ["new".to_owned()].into(), ..Touched::default() };
    let plan = rig.classify(&Scope::Only(touched), Probing::Changed);
    let saved = salvage::defer(plan, &rig.run_dir()).unwrap();
    rig.rows(&saved);
    let standing = "select name from storage.objects where name in ('never had bytes', 'phantom', 'used') \
        union all select id from storage.buckets where id = 'new' order by 1";
    assert_eq!(rig.world.sql(ADMIN, standing), ["new", "phantom", "used"]);
    let mut resumed = salvage::resume(&rig.run_dir()).unwrap().unwrap();
    drop(rig.bytes(&mut resumed, Removal::Keep));
    assert_eq!(rig.world.sql(ADMIN, standing), ["used"]);
    assert_eq!(rig.bucket.get("photos", "used"), b"by somebody");
}

/// What an admin allows less of while the bytes go back is not the rollback's.
#[test]
fn limits_that_somebody_sets_meanwhile_stay() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.overwrite("docs", "a");
    let mut saved = rig.save(rig.classify(&Scope::Everything, Probing::Changed));
    rig.rows(&saved);
    rig.sql("update storage.buckets set file_size_limit = 7 where id = 'photos'");
    let restored = rig.bytes(&mut saved, Removal::Keep);
    assert_eq!((restored.uploaded, restored.left.len()), (1, 0));
    let limits = "select file_size_limit from storage.buckets where id = 'photos'";
    assert_eq!(rig.world.sql(crate::world::ADMIN, limits), ["7"]);
}

/// Of two limits that are lifted, somebody sets one: that one is theirs, and the other one goes back.
#[test]
fn a_limit_that_somebody_sets_while_it_is_lifted_stays() {
    let rig = Rig::new(Major::Pg17, Half::Rest);
    rig.sql(
        "update storage.buckets set file_size_limit = 1000, allowed_mime_types = '{application/pdf}' where id = 'docs'",
    );
    let limits = || {
        let sql = "select file_size_limit, allowed_mime_types from storage.buckets where id = 'docs'";
        rig.world.sql(ADMIN, sql).concat()
    };
    rig.overwrite("docs", "a");
    // Of what stays as it is, the plan knows the limits of now, and these are put back.
    let id = rig.world.sql(ADMIN, "select id from storage.objects where name = 'a'").concat();
    let touched = Touched {
        objects: [(id, Mark::Changed(["version".to_owned()].into()))].into(),
        ..Touched::default()
    };
    let mut saved = rig.save(rig.classify(&Scope::Only(touched), Probing::Changed));
    rig.rows(&saved);
    assert_eq!(limits(), "1000|{application/pdf}");
    let somebody = rig.world.session(ADMIN);
    somebody.run("begin; select from storage.objects where bucket_id = 'docs' and name = 'a' for update");
    let restored = std::thread::scope(|scope| {
        let going = scope.spawn(|| rig.bytes(&mut saved, Removal::Keep));
        let waits =
            "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        until("it waits for the object", || !rig.world.sql(ADMIN, waits).is_empty());
        assert_eq!(limits(), "~|~");
        rig.sql("update storage.buckets set file_size_limit = 700 where id = 'docs'");
        somebody.run("commit");
        going.join().unwrap()
    });
    assert_eq!((restored.uploaded, restored.left), (1, Vec::new()));
    assert_eq!(limits(), "700|{application/pdf}");
    assert_eq!(rig.compare(&saved), [""; 0]);
}
