//! Whether the keys see everything: a listing against the rows themselves.
//!
//! A role that row-level security shows nothing to signs in, and is told with status 200 that there
//! are no objects.

use super::Error;
use crate::objects::Client;
use crate::postgres::storage;
use tokio_postgres::Client as Database;

/// Listings of a bucket before its count is believed: uploads go on meanwhile.
const ATTEMPTS: u32 = 4;

/// Lists every bucket that has objects by its rows; says in words what the keys do not see.
pub(super) async fn listings(client: &Client, database: &Database) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for (bucket, mut before) in storage::counts(database).await? {
        let Some(bucket) = bucket else { continue };
        for attempt in 1..=ATTEMPTS {
            let listed = count(client, &bucket).await?;
            let after = storage::count(database, &bucket).await?;
            // Uploads and deletions while the listing ran put its count between the two.
            let (least, most) = (before.min(after), before.max(after));
            before = after;
            if (least..=most).contains(&listed) {
                break;
            }
            if attempt == ATTEMPTS {
                missing.push(difference(&bucket, listed, most));
            }
        }
    }
    Ok(missing)
}

async fn count(client: &Client, bucket: &str) -> Result<u64, Error> {
    let (mut pages, mut listed) = (client.pages(bucket), 0);
    while let Some(page) = pages.next().await? {
        listed += page.len() as u64;
    }
    Ok(listed)
}

fn difference(bucket: &str, listed: u64, rows: u64) -> String {
    let bucket = bucket.escape_debug();
    if listed == 0 {
        format!(
            "{} of bucket `{bucket}`: the keys sign in and the listing is empty, as a role does that \
             row-level security shows nothing; use S3 keys of the dashboard, or the key of the service role",
            super::of(rows, "object")
        )
    } else {
        format!("objects of bucket `{bucket}`: its listing has {listed}, and storage.objects has {rows}")
    }
}
