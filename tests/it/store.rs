//! The store in a bucket of an S3 server that is none of ours.

use crate::world::Weed;
use supa_safe::objects::{self, Condition, Put};
use supa_safe::store::{Asking, Error, Location, Locked, Store};

fn written(put: Put) -> Option<String> {
    match put {
        Put::Written(etag) => Some(etag),
        Put::Refused => None,
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn asking(run: &str) -> Asking {
    Asking { host: "here".to_owned(), run: run.to_owned(), clock: now }
}

/// A state folder of its own that uses the bucket.
fn joined(weed: &Weed, dir: &std::path::Path) -> Store {
    let store = Store::open(dir, "target").unwrap();
    weed.runtime.block_on(store.join(&weed.location(Weed::owner()))).unwrap()
}

#[test]
fn a_write_may_depend_on_what_is_there() {
    let weed = Weed::new();
    let bucket = weed.open(Weed::owner());
    let write = |text: &str, on: Condition<'_>| {
        let bytes = text.to_owned().into();
        let put = bucket.write("x", &bytes, on);
        written(weed.runtime.block_on(put).unwrap())
    };
    let first = write("one", Condition::Absent).unwrap();
    assert_eq!(write("two", Condition::Absent), None);
    let second = write("two", Condition::Same(&first)).unwrap();
    assert_eq!(write("three", Condition::Same(&first)), None);
    let read = || weed.runtime.block_on(bucket.read("x")).unwrap();
    let found = read().unwrap();
    assert_eq!((found.bytes.as_ref(), found.etag), (b"two".as_slice(), second));
    weed.runtime.block_on(bucket.remove("x")).unwrap();
    assert_eq!(read(), None);
    assert_eq!(write("three", Condition::Same(&first)), None);
}

#[test]
fn what_keys_may_not_do_is_said() {
    let weed = Weed::new();
    let fails = |keys| {
        let bucket = weed.open(keys);
        let bytes = "x".into();
        let put = bucket.write("x", &bytes, Condition::Always);
        match weed.runtime.block_on(put).unwrap_err() {
            Error::Bucket { source, .. } => *source,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(fails(Weed::reader()), objects::Error::Denied { .. }));
    let pair =
        |id: &str| objects::Keys::Pair { id: id.to_owned(), secret: supa_safe::secret::Secret::new("x") };
    assert!(matches!(fails(pair("OWNERKEY")), objects::Error::Signature { .. }));
    assert!(matches!(fails(pair("NOBODY")), objects::Error::UnknownKey { .. }));
}

#[test]
fn one_of_two_folders_holds_the_lock() {
    let weed = Weed::new();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = [0, 1].map(|at| joined(&weed, dirs[at].path()));
    let take =
        |store: &Store, run: &str| weed.runtime.block_on(store.lock_shared("run", &asking(run))).unwrap();
    assert_eq!(take(&first, "r1"), Locked::Held { before: None, is_exclusive: true });
    let Locked::By(holder) = take(&second, "r2") else { panic!("both hold it") };
    assert_eq!((holder.run.as_str(), holder.pid, holder.host.as_str()), ("r1", std::process::id(), "here"));
    weed.runtime.block_on(first.unlock_shared()).unwrap();
    assert_eq!(take(&second, "r2"), Locked::Held { before: None, is_exclusive: true });
    // The folder's own lock says that its earlier run is dead.
    let again = joined(&weed, dirs[1].path());
    let Locked::Held { before, .. } = take(&again, "r3") else { panic!("the dead run holds it") };
    assert_eq!(before.map(|before| before.run).as_deref(), Some("r2"));
    // Whoever was taken for dead has no say any more.
    let shared = weed.runtime.block_on(second.share(now()));
    assert!(matches!(shared, Err(Error::LockLost(_))), "{shared:?}");
    weed.runtime.block_on(again.unlock_shared()).unwrap();
    assert_eq!(weed.keys(), [""; 0]);
}

#[test]
fn many_who_ask_at_once_are_told_of_one() {
    let weed = Weed::new();
    let dirs: Vec<tempfile::TempDir> = (0..8).map(|_| tempfile::tempdir().unwrap()).collect();
    let stores: Vec<Store> = dirs.iter().map(|dir| joined(&weed, dir.path())).collect();
    let asking = asking("r");
    let asked = futures_util::future::join_all(stores.iter().map(|store| store.lock_shared("run", &asking)));
    let answers = weed.runtime.block_on(asked);
    let is_held =
        |answer: &&Result<Locked, Error>| matches!(answer, Ok(Locked::Held { is_exclusive: true, .. }));
    assert_eq!(answers.iter().filter(is_held).count(), 1, "{answers:?}");
    let is_told = |answer: &&Result<Locked, Error>| matches!(answer, Ok(Locked::By(_)));
    assert_eq!(answers.iter().filter(is_told).count(), 7, "{answers:?}");
}

#[test]
fn an_address_that_nobody_answers_is_named() {
    let weed = Weed::new();
    let endpoint = objects::Endpoint::of_store("http://127.0.0.1:1").unwrap();
    let location = weed.location(Weed::owner());
    let location = Location { access: objects::Access { endpoint, ..location.access }, ..location };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "target").unwrap();
    let store = weed.runtime.block_on(store.join(&location)).unwrap();
    let failed = weed.runtime.block_on(store.pull()).unwrap_err();
    let Error::Bucket { name, source } = failed else { panic!("{failed:?}") };
    assert_eq!(name, format!("{}/target", weed.address()));
    assert!(matches!(*source, objects::Error::Transport { .. }), "{source:?}");
}
