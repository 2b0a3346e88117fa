//! A disk that is full while objects are saved: production is as before, and a later run does it all.

use crate::world::{World, told};
use snapbox::{assert_data_eq, str};
use std::path::PathBuf;

/// What people put in the place of objects needs room before it is written over.
#[test]
fn a_full_disk_while_objects_are_saved() {
    let mut world = World::hosted(&[("20260101000000_wrong", "create table public.wrong (id int);")]);
    let disk = PathBuf::from(told("SUPA_SAFE_TEST_SALVAGED_DISK")).join("state");
    world.set("SUPA_SAFE_STATE_DIR", &disk);
    let bucket = world.bucket(&["photos"]);
    bucket.put("photos", "a", b"bytes of a");
    drop(world.migrate(&[]).exits(0));
    let large = vec![7; 20 << 20];
    bucket.put("photos", "a", &large);
    let damaged = world.state();
    let args = ["rollback", "--mode", "whole", "--confirm", &world.target()];
    let ran = world.run(args).exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: cannot write the bytes of an object
  caused by: No space left on device (os error 28) at path "[..]"
  nothing was changed
hint: Make room on the disk of the state folder, then run it again

"#]]
    );
    assert_eq!(world.state(), damaged);
    assert_eq!(bucket.get("photos", "a"), large);
    bucket.put("photos", "a", b"others");
    drop(world.run(args).exits(0));
    assert_eq!(bucket.get("photos", "a"), b"bytes of a");
    fs_err::remove_dir_all(disk).unwrap();
}
