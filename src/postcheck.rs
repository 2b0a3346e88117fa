//! Compares the target after the push with what the rehearsal left.

pub mod rows;

use crate::fingerprint::{self, Class, Fingerprint};
use crate::postgres::{catalog, checks, history, rows as pinned};
use crate::rehearse::record::Record;
use crate::rehearse::{Rehearsed, Subject};
use crate::resolve;
use crate::store::Snapshot;
use crate::target::Target;
use tokio_postgres::Client;

/// Why the comparison could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target cannot be opened, or is another database now.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// A query failed.
    #[error("the target did not answer")]
    Query(#[from] tokio_postgres::Error),
    /// The catalog could not be read.
    #[error("cannot read the catalog of the target")]
    Catalog(#[from] catalog::Error),
    /// A recorded fingerprint was not understood.
    #[error("the recorded fingerprint cannot be read")]
    Fingerprint(#[from] fingerprint::Error),
    /// A recorded fingerprint could not be read.
    #[error("the recorded fingerprint cannot be read")]
    Io(#[from] std::io::Error),
}

/// What of the owned schema is not as in a snapshot, in words.
pub async fn since(target: &Target, snapshot: &Snapshot) -> Result<Vec<String>, Error> {
    let recorded = fs_err::read_to_string(snapshot.database_file("fingerprint.tsv"))?;
    let recorded = Fingerprint::from_text(&recorded)?;
    let session = resolve::reopen(target).await?;
    let client = &session.client;
    client.batch_execute(pinned::PINNED).await?;
    client.batch_execute("begin isolation level repeatable read read only").await?;
    let found = catalog::fingerprint(client).await?;
    session.close().await;
    Ok(recorded.differences(&found, Class::Owned).iter().map(ToString::to_string).collect())
}

/// What differs in what the user owns from what the push left on the copy, in words.
pub async fn schema(client: &Client, record: &Record) -> Result<Vec<String>, Error> {
    let found = record.left_out.comparable(&catalog::fingerprint(client).await?);
    let expected = Fingerprint::from_text(&record.fingerprint)?;
    Ok(expected.differences(&found, Class::Owned).iter().map(ToString::to_string).collect())
}

/// What differs, in words; empty when all is as rehearsed.
pub async fn compare(subject: &Subject<'_>, rehearsed: Option<&Rehearsed>) -> Result<Vec<String>, Error> {
    let session = resolve::reopen(subject.target).await?;
    let client = &session.client;
    client.batch_execute(pinned::PINNED).await?;
    let mut differences = Vec::new();
    if let Some(rehearsed) = rehearsed {
        let record = rehearsed.record();
        client.batch_execute("begin isolation level repeatable read read only").await?;
        let applied: Vec<String> =
            history::read(client).await?.into_iter().map(|applied| applied.version).collect();
        if applied != record.history {
            differences.push(format!(
                "the history holds {} instead of {}",
                applied.join(", "),
                record.history.join(", ")
            ));
        }
        differences.extend(schema(client, record).await?);
        client.batch_execute("rollback").await?;
    }
    let found = checks::run(client, subject.target.connection.role(), subject.frozen.checks()).await?;
    differences.extend(found.iter().filter(|found| !found.is_healthy()).map(checks::Found::in_words));
    session.close().await;
    Ok(differences)
}
