//! Runs that die anywhere, and the ones after them.

use super::{Half, Rig, all_damages, next_round, open};
use crate::scratch::until;
use crate::world::{Major, OWNER};
use std::pin::pin;
use std::task::Poll;
use supa_safe::salvage::{self, Probing, Removal, Scope};

/// Drops a future when it was asked that often, as a kill does: nothing of it goes on, but what the
/// servers were told already does.
async fn dies_after<T>(polls: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Lets the server finish what it was told.
fn let_finish(rig: &Rig) {
    until("the double comes to rest", || rig.bucket.double.is_idle());
}

/// Rolls back in runs that live a bit longer each; returns how many there were.
fn in_short_lives(rig: &Rig, first: u32, longer: u32) -> u32 {
    let (run, index, damaged) = (rig.run_dir(), rig.index.clone(), rig.state());
    let (mut polls, mut lives, mut committed) = (first, 0, false);
    loop {
        let session = open(&rig.world, &rig.bucket, OWNER);
        let client = &session.client;
        let life = async {
            let resumed = salvage::resume(&run).unwrap().filter(|_| committed);
            let mut saved = if let Some(saved) = resumed {
                saved
            } else {
                let plan = salvage::classify(client, &index, &Scope::Everything, Probing::Changed);
                let saved = salvage::save(&rig.reach, plan.await.unwrap(), &run).await.unwrap();
                client.batch_execute("begin").await.unwrap();
                salvage::rows(client, &saved).await.unwrap();
                saved
            };
            if !committed {
                // The caller knows whether a COMMIT went through; here it does.
                committed = true;
                client.batch_execute("commit").await.unwrap();
            }
            let restored = salvage::bytes(client, &rig.reach, &mut saved, (&index, Removal::Keep), &drop);
            (restored.await.unwrap(), saved)
        };
        let ended = rig.block_on(async { Box::pin(dies_after(polls, life)).await });
        if committed && ended.is_none() {
            // A COMMIT that was sent goes through before the session ends.
            rig.block_on(async { client.batch_execute("select").await }).unwrap();
        }
        rig.block_on(session.close());
        let_finish(rig);
        lives += 1;
        if let Some((restored, saved)) = ended {
            assert_eq!(restored.left, [""; 0]);
            rig.is_as_before(&saved, &format!("after {lives} lives from {first} by {longer}"));
            return lives;
        }
        if !committed {
            assert_eq!(rig.state(), damaged);
        }
        polls += longer;
    }
}

fn dies_anywhere(half: Half) {
    let mut rig = Rig::new(Major::Pg17, half);
    let mut lives = 0;
    for (first, longer) in [(1, 2), (2, 3), (15, 1)] {
        all_damages(&rig);
        lives += in_short_lives(&rig, first, longer);
        for key in ["added", "added too"] {
            let bucket = if key == "added" { "photos" } else { "new" };
            rig.delete(bucket, key);
        }
        rig.sql("set storage.allow_delete_query = 'true'; delete from storage.buckets where id = 'new'");
        next_round(&mut rig);
    }
    assert!(lives > 40, "{lives} lives say little");
}

#[test]
fn a_run_that_dies_anywhere_is_finished_by_another() {
    dies_anywhere(Half::Rest);
}

#[test]
fn a_run_that_dies_anywhere_is_finished_by_another_through_s3() {
    dies_anywhere(Half::S3Alone);
}
