//! Large objects, which go and come back one by one: an entry of the archive holds many of them.

use super::closure::Closure;
use super::inverse::{Unit, quote_literal};
use super::selection::LARGE;
use super::{Error, Mode, Work, history, proof};
use crate::disk;
use crate::fingerprint::{Class, Difference, Fingerprint, Place};
use crate::postgres::rows;
use crate::tools::pg_restore::Section;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, SimpleQueryMessage};

/// The kind of their lines.
pub(super) const KIND: &str = "large object";
/// Pieces of output between the program and the server.
const PIECES: usize = 16;
/// Bytes of statements that go to the server at once.
const AT_ONCE: usize = 1 << 20;
/// Bytes of one of them that are read at once.
const READ_AT_ONCE: i32 = 1 << 22;

/// Large objects that one message takes away.
const UNLINKED_AT_ONCE: usize = 100;
/// What the server says when another session has it at this instant.
const PASSING: [SqlState; 2] = [SqlState::INTERNAL_ERROR, SqlState::UNDEFINED_OBJECT];

/// The large object that a difference is about, or a comment on it.
pub(super) fn of(difference: &Difference) -> Option<u32> {
    match difference.kind.as_str() {
        KIND => difference.identity.parse().ok(),
        "comment" => difference.identity.strip_prefix(KIND)?.trim_start().parse().ok(),
        _ => None,
    }
}

fn of_kind(lines: &Fingerprint) -> BTreeSet<u32> {
    let lines = lines.lines().iter().filter(|line| line.kind == KIND);
    lines.filter_map(|line| line.identity.parse().ok()).collect()
}

/// Those that stand and must go where only a part goes back: what the push changed comes again from the
/// archive, and what it made does not.
pub(super) async fn touched(work: &Work<'_>, live: &Fingerprint) -> Result<BTreeSet<Unit>, Error> {
    if work.task.mode == Mode::Whole {
        return Ok(BTreeSet::new());
    }
    let standing = of_kind(live);
    let mut going: BTreeSet<u32> = work.task.besides.large_objects.iter().copied().collect();
    if !standing.is_empty() && !work.task.versions.is_empty() && work.has_history().await? {
        let recorded = of_kind(&work.recorded);
        let sql = format!(
            "select l.oid from pg_catalog.pg_largeobject_metadata l where l.xmin::text in ({})",
            history::TRANSACTIONS
        );
        let made = work.client.query(&sql, &[&work.task.versions]).await?;
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
    // Versions of the program keep definitions in the one or the other.
    for section in [Section::PreData, Section::Data] {
        let mut chosen = Chosen { wanted: &wanted, is_open: false, statements: String::new() };
        let client = work.client;
        read(work, section, async |line| {
            chosen.line(line);
            if chosen.statements.len() > AT_ONCE { chosen.flush(client).await } else { Ok(()) }
        })
        .await?;
        chosen.flush(client).await?;
    }
    work.pin().await
}

/// Reads what the archive says of large objects, line by line.
async fn read(
    work: &Work<'_>,
    section: Section,
    mut take: impl AsyncFnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let list = work.contents.list(|entry| LARGE.contains(&entry.kind.as_str()));
    let (sender, mut pieces): (_, Receiver<Bytes>) = channel(PIECES);
    let command = work.archive.command(&list, section)?.on_bytes(move |bytes| {
        // A receiver that is gone has failed, and says so itself.
        drop(sender.blocking_send(Bytes::copy_from_slice(bytes)));
    });
    let run = async { command.run().await.map_err(Error::Archive) };
    let lines = async {
        let mut rest = Vec::new();
        while let Some(piece) = pieces.recv().await {
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                rest.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    let line = String::from_utf8(std::mem::take(&mut rest)).map_err(|_| Error::Encoding)?;
                    take(&line).await?;
                }
            }
        }
        Ok(())
    };
    tokio::try_join!(run, lines).map(drop)
}

/// A large object that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedObject {
    /// Its number.
    pub oid: u32,
    /// Whose it was.
    pub owner: String,
    /// Its length.
    pub bytes: u64,
    /// The file, in the folder of the rollback.
    pub file: String,
    /// Whether the snapshot has one of this number, with other content.
    pub is_changed: bool,
}

/// Those that go: of all of the user's, whatever stands now, since users make them and take them away meanwhile.
async fn going(work: &Work<'_>, closure: &Closure) -> Result<Vec<u32>, Error> {
    let units = closure.units.iter().filter(|unit| unit.kind == KIND);
    let units: BTreeSet<u32> = units.filter_map(|unit| unit.identity.parse().ok()).collect();
    let sql = "select oid, pg_catalog.pg_get_userbyid(lomowner)::text from pg_catalog.pg_largeobject_metadata order by oid";
    let standing = work.client.query(sql, &[]).await?;
    let standing = standing.iter().map(|row| (row.get::<_, u32>(0), row.get::<_, &str>(1)));
    let goes = |oid: u32, owner: &str| match work.task.mode {
        Mode::Touched => units.contains(&oid),
        Mode::Whole => {
            Place { subject: KIND, owner: Some(owner), ..Place::default() }.class() == Class::Owned
        }
    };
    Ok(standing.filter(|(oid, owner)| goes(*oid, owner)).map(|(oid, _)| oid).collect())
}

/// Lets those go that have to, the others of the closure being gone; keeps those that the archive does not have.
/// Writing to one takes no lock that could be held against it (`inv_api.c`), so this is the last that goes, and
/// one that was written to after it was read is the end of this attempt.
pub(super) async fn take_away(work: &Work<'_>, closure: &Closure) -> Result<Vec<SavedObject>, Error> {
    let going = going(work, closure).await?;
    if going.is_empty() {
        return Ok(Vec::new());
    }
    let Some(folder) = work.task.keep_in else {
        let sql =
            "select pg_catalog.lo_unlink(oid) from pg_catalog.pg_largeobject_metadata where oid = any($1)";
        work.client.query(sql, &[&going]).await.map_err(Error::at("drop large objects"))?;
        return Ok(Vec::new());
    };
    let sql =
        "select oid, pg_catalog.pg_get_userbyid(lomowner)::text, pg_catalog.md5(pg_catalog.lo_get(oid)),
            pg_catalog.length(pg_catalog.lo_get(oid))::int8
        from pg_catalog.pg_largeobject_metadata where oid = any($1) order by oid";
    let standing = work.client.query(sql, &[&going]).await.map_err(Error::at("keep large objects"))?;
    let mut saved = Vec::new();
    let recorded = &work.task.snapshot.manifest.database.large_objects;
    if rows::large_objects(work.client).await? != *recorded {
        let known = digests(work).await?;
        disk::make_private_dir(folder)?;
        for row in &standing {
            let (oid, md5): (u32, String) = (row.get(0), row.get(2));
            if known.get(&oid) == Some(&md5) {
                continue;
            }
            let (owner, bytes) = (row.get(1), row.get::<_, i64>(3));
            let file = format!("large-{oid}.bin");
            write(work.client, (oid, bytes), &folder.join(&file)).await?;
            let (bytes, is_changed) = (bytes.unsigned_abs(), known.contains_key(&oid));
            saved.push(SavedObject { oid, owner, bytes, file, is_changed });
        }
    }
    let read = |row: &Row| -> (u32, String) { (row.get(0), row.get(2)) };
    unlink(work.client, standing.iter().map(read).collect()).await?;
    Ok(saved)
}

/// Takes them away, and demands that nobody wrote to them since they were read.
async fn unlink(client: &Client, read: Vec<(u32, String)>) -> Result<(), Error> {
    let unlink = |(oid, md5): &(u32, String)| {
        // A statement sees what was committed when it began.
        format!(
            "select pg_catalog.md5(pg_catalog.lo_get(oid)) = '{md5}', pg_catalog.lo_unlink(oid) \
             from pg_catalog.pg_largeobject_metadata where oid = {oid}"
        )
    };
    for some in read.chunks(UNLINKED_AT_ONCE) {
        let statements: Vec<String> = some.iter().map(unlink).collect();
        let messages = match client.simple_query(&statements.join(";\n")).await {
            // Somebody wrote to it, or took it away, at this instant (`simple_heap_delete` of `heapam.c`).
            Err(error) if error.code().is_some_and(|code| PASSING.contains(code)) => {
                return Err(Error::LargeObjects);
            }
            outcome => outcome.map_err(Error::at("drop large objects"))?,
        };
        let is_other = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) != Some("t"));
        if messages.iter().any(is_other) {
            return Err(Error::LargeObjects);
        }
    }
    Ok(())
}

async fn write(client: &Client, (oid, bytes): (u32, i64), path: &Path) -> Result<(), Error> {
    let mut file = disk::Temp::new_in(path.parent().unwrap_or(path))?;
    let mut from = 0_i64;
    while from < bytes {
        let sql = "select pg_catalog.lo_get($1, $2, $3)";
        let row = client.query_one(sql, &[&oid, &from, &READ_AT_ONCE]).await;
        let piece: Vec<u8> = row.map_err(Error::at("keep large objects"))?.get(0);
        if piece.is_empty() {
            return Err(Error::LargeObjects);
        }
        file.write_all(&piece)?;
        from += i64::try_from(piece.len()).unwrap_or(i64::MAX);
    }
    Ok(file.persist(path)?)
}

/// Demands that those of the snapshot are as they were there. One that it does not have was made by users
/// since the others went.
pub(super) async fn prove(work: &Work<'_>) -> Result<(), Error> {
    let recorded: Vec<u32> = of_kind(&work.recorded).into_iter().collect();
    let found = rows::large_objects_among(work.client, Some(&recorded)).await?;
    proof::same_large_objects(&found, &work.task.snapshot.manifest.database.large_objects)
}

/// The MD5 of each large object of the archive.
async fn digests(work: &Work<'_>) -> Result<BTreeMap<u32, String>, Error> {
    let mut hashes: BTreeMap<u32, Md5> = BTreeMap::new();
    let mut open = None;
    for section in [Section::PreData, Section::Data] {
        read(work, section, async |line| {
            if let Some(rest) = line.strip_prefix("SELECT pg_catalog.lo_open('") {
                open = oid_at(rest);
                hashes.extend(open.map(|oid| (oid, Md5::new())));
            } else if let Some(rest) = line.strip_prefix("SELECT pg_catalog.lowrite(")
                && let Some(hash) = open.and_then(|oid| hashes.get_mut(&oid))
            {
                let digits = rest.rsplit_once("\\x").map(|(_, digits)| digits).unwrap_or_default();
                let digits = digits.split('\'').next().unwrap_or_default();
                hash.update(hex::decode(digits).map_err(|_| Error::Encoding)?);
            }
            Ok(())
        })
        .await?;
    }
    let empty = of_kind(&work.recorded).into_iter().map(|oid| (oid, Md5::new()));
    let mut all: BTreeMap<u32, Md5> = empty.collect();
    all.extend(hashes);
    Ok(all.into_iter().map(|(oid, hash)| (oid, hex::encode(hash.finalize()))).collect())
}

fn oid_at(text: &str) -> Option<u32> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A script for `psql` that loads them again: under their own number where that is free, and beside it
/// where the snapshot has another one.
pub(super) fn load_script(saved: &[SavedObject]) -> String {
    let load = |object: &SavedObject| {
        let SavedObject { oid, owner, bytes, file, is_changed } = object;
        let owner = |of: &str| format!("call pg_temp.give_away({of}, {}, '{file}');\n", quote_literal(owner));
        if *is_changed {
            return format!(
                "\n-- Large object {oid} is as in the snapshot; what it was before goes into another one.\n\
                 \\lo_import '{file}' 'large object {oid}, as it was before the rollback'\n{}\
                 \\echo large object {oid}, as it was before the rollback, is :LASTOID\n",
                owner(":LASTOID")
            );
        }
        format!(
            "\n-- Large object {oid}: {bytes} bytes\n\
             select count(*) = 0 as is_free from pg_largeobject_metadata where oid = {oid} \\gset\n\
             \\if :is_free\n\\lo_import '{file}'\nselect lo_create({oid});\n\
             select count(lo_put({oid}, at, lo_get(:LASTOID, at, {READ_AT_ONCE})))\n\
             from generate_series(0::bigint, {bytes} - 1, {READ_AT_ONCE}) at;\n\
             select lo_unlink(:LASTOID);\n{}\\endif\n",
            owner(&oid.to_string())
        )
    };
    saved.iter().map(load).collect::<Vec<_>>().concat()
}

/// The statements of a script that are about the wanted ones.
struct Chosen<'a> {
    wanted: &'a BTreeSet<u32>,
    /// Whether what is written goes to one of them.
    is_open: bool,
    statements: String,
}

impl Chosen<'_> {
    /// Keeps a line, as `pg_backup_archiver.c` and `dumpLOs` of `pg_dump.c` write it.
    fn line(&mut self, line: &str) {
        let is_wanted = |rest: &str| oid_at(rest).is_some_and(|oid| self.wanted.contains(&oid));
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
