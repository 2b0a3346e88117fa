//! Large objects, which go and come back one by one: an entry of the archive holds many of them.

use super::inverse::Unit;
use super::selection::LARGE;
use super::{Error, Mode, Work};
use crate::fingerprint::{Difference, Fingerprint};
use crate::tools::pg_restore::Section;
use bytes::Bytes;
use std::collections::BTreeSet;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_postgres::Client;

/// The kind of their lines.
const KIND: &str = "large object";
/// Pieces of output between the program and the server.
const PIECES: usize = 16;
/// Bytes of statements that go to the server at once.
const AT_ONCE: usize = 1 << 20;

/// Those that the transactions of these versions made, or granted to somebody.
const MADE: &str = "
    select l.oid from pg_catalog.pg_largeobject_metadata l
    where l.xmin::text in (
        select h.xmin::text from supabase_migrations.schema_migrations h where h.version = any($1))";

/// The large object that a difference is about, or a comment on it.
pub(super) fn of(difference: &Difference) -> Option<u32> {
    match difference.kind.as_str() {
        KIND => difference.identity.parse().ok(),
        "comment" => difference.identity.strip_prefix(KIND)?.trim_start().parse().ok(),
        _ => None,
    }
}

/// Those that stand and must go where only a part goes back: what the push changed comes again from the
/// archive, and what it made does not.
pub(super) async fn touched(work: &Work<'_>, live: &Fingerprint) -> Result<BTreeSet<Unit>, Error> {
    if work.task.mode == Mode::Whole {
        return Ok(BTreeSet::new());
    }
    let of_kind = |lines: &Fingerprint| -> BTreeSet<u32> {
        let lines = lines.lines().iter().filter(|line| line.kind == KIND);
        lines.filter_map(|line| line.identity.parse().ok()).collect()
    };
    let standing = of_kind(live);
    let mut going: BTreeSet<u32> = work.task.besides.large_objects.iter().copied().collect();
    if !standing.is_empty() && !work.task.versions.is_empty() && work.has_history().await? {
        let recorded = of_kind(&work.recorded);
        let made = work.client.query(MADE, &[&work.task.versions]).await?;
        going.extend(made.iter().map(|row| row.get::<_, u32>(0)).filter(|oid| !recorded.contains(oid)));
    }
    let units = going.intersection(&standing);
    Ok(units.map(|oid| Unit { kind: KIND.to_owned(), identity: oid.to_string() }).collect())
}

/// Brings back those that are gone, their owners included.
pub(super) async fn bring_back(work: &Work<'_>, differences: &[Difference]) -> Result<(), Error> {
    let gone = differences.iter().filter(|difference| difference.kind == KIND && difference.before.is_none());
    let wanted: BTreeSet<u32> = gone.filter_map(of).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let list = work.contents.list(|entry| LARGE.contains(&entry.kind.as_str()));
    // Versions of the program keep definitions in the one or the other.
    for section in [Section::PreData, Section::Data] {
        let (sender, receiver) = channel::<Bytes>(PIECES);
        let command = work.archive.command(&list, section)?.on_bytes(move |bytes| {
            // A receiver that is gone has failed, and says so itself.
            drop(sender.blocking_send(Bytes::copy_from_slice(bytes)));
        });
        let run = async { command.run().await.map_err(Error::Archive) };
        let chosen = Chosen { wanted: &wanted, is_open: false, statements: String::new() };
        let (_, ()) = tokio::try_join!(run, chosen.run(work.client, receiver))?;
    }
    work.pin().await
}

/// The statements of a script that are about the wanted ones.
struct Chosen<'a> {
    wanted: &'a BTreeSet<u32>,
    /// Whether what is written goes to one of them.
    is_open: bool,
    statements: String,
}

impl Chosen<'_> {
    async fn run(mut self, client: &Client, mut pieces: Receiver<Bytes>) -> Result<(), Error> {
        let mut rest = Vec::new();
        while let Some(piece) = pieces.recv().await {
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                rest.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    let line = String::from_utf8(std::mem::take(&mut rest)).map_err(|_| Error::Encoding)?;
                    self.line(&line);
                }
            }
            if self.statements.len() > AT_ONCE {
                self.flush(client).await?;
            }
        }
        self.flush(client).await
    }

    /// Keeps a line, as `pg_backup_archiver.c` and `dumpLOs` of `pg_dump.c` write it.
    fn line(&mut self, line: &str) {
        let is_wanted = |rest: &str| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().is_ok_and(|oid| self.wanted.contains(&oid))
        };
        let is_kept = if let Some(rest) = line.strip_prefix("SELECT pg_catalog.lo_create('") {
            is_wanted(rest)
        } else if let Some(rest) = line.strip_prefix("ALTER LARGE OBJECT ") {
            is_wanted(rest)
        } else if let Some(rest) = line.strip_prefix("SELECT pg_catalog.lo_open('") {
            self.is_open = is_wanted(rest);
            self.is_open
        } else {
            self.is_open
                && ["SELECT pg_catalog.lowrite(", "SELECT pg_catalog.lo_close("]
                    .iter()
                    .any(|start| line.starts_with(start))
        };
        if is_kept {
            self.statements.push_str(line);
        }
    }

    async fn flush(&mut self, client: &Client) -> Result<(), Error> {
        let statements = std::mem::take(&mut self.statements);
        let outcome = client.batch_execute(&statements).await;
        outcome.map_err(Error::at("bring back large objects"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_about_the_wanted_ones_are_kept() {
        let wanted = BTreeSet::from([7]);
        let mut chosen = Chosen { wanted: &wanted, is_open: false, statements: String::new() };
        let script = "BEGIN;\nSELECT pg_catalog.lo_create('7');\nSELECT pg_catalog.lo_create('77');\n\
            ALTER LARGE OBJECT 7 OWNER TO postgres;\nALTER LARGE OBJECT 77 OWNER TO postgres;\n\
            SELECT pg_catalog.lo_open('77', 131072);\nSELECT pg_catalog.lowrite(0, '\\x00');\n\
            SELECT pg_catalog.lo_close(0);\nSELECT pg_catalog.lo_open('7', 131072);\n\
            SELECT pg_catalog.lowrite(0, '\\x01');\nSELECT pg_catalog.lo_close(0);\nCOMMIT;\n";
        for line in script.split_inclusive('\n') {
            chosen.line(line);
        }
        assert_eq!(
            chosen.statements,
            "SELECT pg_catalog.lo_create('7');\nALTER LARGE OBJECT 7 OWNER TO postgres;\n\
            SELECT pg_catalog.lo_open('7', 131072);\nSELECT pg_catalog.lowrite(0, '\\x01');\n\
            SELECT pg_catalog.lo_close(0);\n"
        );
    }
}
