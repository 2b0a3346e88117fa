//! Runs what `pg_restore` prints in the caller's transaction.
//!
//! Our own session and not `psql`: the outer transaction must stay ours, and in its restricted mode
//! `psql` refuses half of what a wrapper would need.

use super::Error;
use crate::archive::Contents;
use crate::disk;
use crate::manifest::TableRows;
use crate::proc::Cmd;
use crate::store::Snapshot;
use crate::tools::installs::Installation;
use crate::tools::pg_restore::{self, Section};
use bytes::Bytes;
use futures_util::SinkExt as _;
use std::path::Path;
use tokio::sync::mpsc::{Receiver, channel};
use tokio_postgres::{Client, CopyInSink};

/// Pieces of output between the program and the server.
const PIECES: usize = 16;

/// An archive whose parts can be run.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) contents: &'a Contents,
    pub(super) clients: &'a Installation,
    /// Where lists are put.
    pub(super) scratch: &'a Path,
    /// Major version of the server.
    pub(super) server: u32,
}

impl Archive<'_> {
    /// The list of the entries that hold the rows of tables that satisfy the condition. Tables that
    /// were empty have none that are worth reading.
    pub(super) fn list_of_rows(&self, wanted: impl Fn(&str, &str) -> bool) -> String {
        let filled: Vec<&TableRows> = self
            .snapshot
            .manifest
            .database
            .tables
            .iter()
            .filter(|table| table.count > 0 && wanted(&table.schema, &table.name))
            .collect();
        self.contents.list(|entry| {
            entry.kind == "TABLE DATA"
                && filled.iter().any(|table| entry.is_named(&table.schema, &table.name))
        })
    }

    pub(super) fn command(&self, list: &str, section: Section) -> Result<Cmd, Error> {
        let path = self.scratch.join(format!("{}.list", section.word()));
        disk::write(&path, list.as_bytes())?;
        Ok(pg_restore::section(self.clients, &self.snapshot.archive(), &path, section))
    }

    /// The definitions of a section, ready to be run.
    pub(super) async fn definitions(&self, list: &str, section: Section) -> Result<String, Error> {
        if list.is_empty() {
            return Ok(String::new());
        }
        // The output may be larger than what a command keeps of it.
        let (sender, mut receiver) = channel::<Bytes>(PIECES);
        let command = self.command(list, section)?.on_bytes(move |bytes| {
            // A receiver that is gone has failed, and says so itself.
            drop(sender.blocking_send(Bytes::copy_from_slice(bytes)));
        });
        let collect = async {
            let mut text = Vec::new();
            while let Some(piece) = receiver.recv().await {
                text.extend_from_slice(&piece);
            }
            Ok(text)
        };
        let run = async { command.run().await.map_err(Error::Archive) };
        let (text, _) = tokio::try_join!(collect, run)?;
        let text = String::from_utf8(text).map_err(|_| Error::Encoding)?;
        Ok(without_frame(&text, self.server))
    }

    /// Streams the rows of the listed entries to the server.
    pub(super) async fn rows(&self, client: &Client, list: &str) -> Result<(), Error> {
        if list.is_empty() {
            return Ok(());
        }
        let (sender, receiver) = channel::<Bytes>(PIECES);
        let command = self.command(list, Section::Data)?.on_bytes(move |bytes| {
            // A receiver that is gone has failed, and says so itself.
            drop(sender.blocking_send(Bytes::copy_from_slice(bytes)));
        });
        let run = async { command.run().await.map_err(Error::Archive) };
        let (_, ()) = tokio::try_join!(run, Stream::new(client, self.server).run(receiver))?;
        Ok(())
    }
}

/// Takes out what only `psql` understands, and the setting that a server before 17 does not know.
///
/// Only the head, up to the first statement, and the very last line are looked at: the bodies of
/// functions may hold anything (`src/bin/pg_dump/pg_backup_archiver.c`, `RestoreArchive`).
fn without_frame(script: &str, server: u32) -> String {
    let mut in_head = true;
    let mut kept: Vec<&str> = script.lines().collect();
    kept.retain(|line| {
        let is_framed = in_head
            && (line.starts_with("\\restrict ")
                || *line == "SET lock_timeout = 0;"
                || (server < 17 && *line == "SET transaction_timeout = 0;"));
        in_head &= !line.starts_with("SET client_encoding = ");
        !is_framed
    });
    if let Some(at) = kept.iter().rposition(|line| line.starts_with("\\unrestrict ")) {
        kept.truncate(at);
    }
    kept.join("\n")
}

/// A script of rows on its way to the server.
struct Stream<'a> {
    client: &'a Client,
    server: u32,
    statements: String,
    line: Vec<u8>,
    copy: Option<std::pin::Pin<Box<CopyInSink<Bytes>>>>,
    /// Whether the next byte of the rows begins a line.
    at_start: bool,
}

impl<'a> Stream<'a> {
    fn new(client: &'a Client, server: u32) -> Self {
        Self { client, server, statements: String::new(), line: Vec::new(), copy: None, at_start: true }
    }

    async fn run(mut self, mut pieces: Receiver<Bytes>) -> Result<(), Error> {
        while let Some(mut piece) = pieces.recv().await {
            while !piece.is_empty() {
                piece =
                    if self.copy.is_some() { self.copied(piece).await? } else { self.stated(piece).await? };
            }
        }
        if self.copy.is_some() {
            return Err(Error::Cut);
        }
        self.flush().await
    }

    /// Takes a line of statements; returns what is left of the piece.
    async fn stated(&mut self, mut piece: Bytes) -> Result<Bytes, Error> {
        let Some(end) = memchr::memchr(b'\n', &piece) else {
            self.line.extend_from_slice(&piece);
            return Ok(Bytes::new());
        };
        self.line.extend_from_slice(&piece.split_to(end + 1));
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| Error::Encoding)?;
        if line.starts_with("COPY ") && line.ends_with(" FROM stdin;\n") {
            self.flush().await?;
            self.at_start = true;
            self.copy = Some(Box::pin(self.client.copy_in(line.trim_end_matches([';', '\n'])).await?));
        } else if !self.is_framing(&line) {
            self.statements.push_str(&line);
        }
        Ok(piece)
    }

    /// Lines for `psql`, and the transactions that a script puts around large objects, which would
    /// commit the one that is open.
    fn is_framing(&self, line: &str) -> bool {
        let line = line.trim_end();
        line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ")
            || ["BEGIN;", "COMMIT;", "SET lock_timeout = 0;"].contains(&line)
            || (self.server < 17 && line == "SET transaction_timeout = 0;")
    }

    /// Hands rows on up to the line that ends them; returns what is left of the piece.
    async fn copied(&mut self, mut piece: Bytes) -> Result<Bytes, Error> {
        const END: &[u8] = b"\\.\n";
        if !self.line.is_empty() {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(&piece);
            piece = whole.into();
        }
        let end = if self.at_start && piece.starts_with(END) {
            Some(0)
        } else {
            memchr::memmem::find(&piece, b"\n\\.\n").map(|at| at + 1)
        };
        if let Some(end) = end {
            let rows = piece.split_to(end);
            self.send(rows).await?;
            drop(piece.split_to(END.len()));
            self.end_copy().await?;
            return Ok(piece);
        }
        // A piece may break off in a line; what may be the beginning of the end is kept back.
        let start = memchr::memrchr(b'\n', &piece).map(|at| at + 1);
        self.at_start = start.is_some() || self.at_start;
        let tail = piece.get(start.unwrap_or_default()..).unwrap_or_default();
        if self.at_start && END.starts_with(tail) {
            self.line = piece.split_off(start.unwrap_or_default()).to_vec();
        } else {
            self.at_start = false;
        }
        self.send(piece).await?;
        Ok(Bytes::new())
    }

    async fn send(&mut self, rows: Bytes) -> Result<(), Error> {
        match &mut self.copy {
            Some(copy) if !rows.is_empty() => Ok(copy.send(rows).await?),
            _ => Ok(()),
        }
    }

    async fn end_copy(&mut self) -> Result<(), Error> {
        if let Some(mut copy) = self.copy.take() {
            copy.as_mut().finish().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let statements = std::mem::take(&mut self.statements);
        if !statements.trim().is_empty() {
            self.client.batch_execute(&statements).await?;
        }
        Ok(())
    }
}
