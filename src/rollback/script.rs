//! Runs what `pg_restore` prints in the caller's transaction.
//!
//! Our own session and not `psql`: the outer transaction must stay ours, and in its restricted mode
//! `psql` refuses half of what a wrapper would need.

use super::Error;
use super::inverse::quote_literal;
use crate::archive::{self, Contents, Names};
use crate::disk;
use crate::proc::Cmd;
use crate::store::Snapshot;
use crate::tools::installs::Installation;
use crate::tools::pg_restore::{self, Section};
use bytes::Bytes;
use futures_util::SinkExt as _;
use std::path::Path;
use std::pin::Pin;
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
        let filled = self.snapshot.manifest.database.tables.iter();
        let filled = filled.filter(|table| table.count > 0 && wanted(&table.schema, &table.name));
        let filled = Names::of(filled.map(|table| (table.schema.as_str(), table.name.as_str())));
        self.contents.list(|entry| entry.kind == "TABLE DATA" && filled.has(entry))
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
        let collect = async |mut pieces: Receiver<Bytes>| {
            let mut text = Vec::new();
            while let Some(piece) = pieces.recv().await {
                text.extend_from_slice(&piece);
            }
            Ok(text)
        };
        let text = self.stream(list, section, collect).await?;
        let text = String::from_utf8(text).map_err(|_| Error::Encoding)?;
        Ok(without_frame(&text, self.server))
    }

    /// Streams the rows of the listed entries to the server.
    pub(super) async fn rows(&self, client: &Client, list: &str) -> Result<(), Error> {
        if list.is_empty() {
            return Ok(());
        }
        self.stream(list, Section::Data, async |pieces| Stream::new(client, self.server).run(pieces).await)
            .await
    }

    /// Hands what is printed for the listed entries of a section on in pieces, to whoever takes them.
    async fn stream<T>(
        &self,
        list: &str,
        section: Section,
        take: impl AsyncFnOnce(Receiver<Bytes>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (sender, receiver) = channel::<Bytes>(PIECES);
        let command = self.command(list, section)?.on_bytes(move |bytes| {
            // A receiver that is gone has failed, and says so itself.
            drop(sender.blocking_send(Bytes::copy_from_slice(bytes)));
        });
        let run = async { command.run().await.map_err(Error::Archive) };
        let (_, taken) = tokio::try_join!(run, take(receiver))?;
        Ok(taken)
    }
}

/// Takes out what only `psql` understands, and the setting that a server before 17 does not know.
///
/// Only the head, up to the first statement, and the very last line are looked at: the bodies of
/// functions may hold anything (`src/bin/pg_dump/pg_backup_archiver.c`, `RestoreArchive`).
fn without_frame(script: &str, server: u32) -> String {
    let mut in_head = true;
    // `lines` would take the carriage returns of literals away.
    let mut kept: Vec<&str> = script.split('\n').collect();
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

/// Bytes of a table's rows that wait until it is known that there are no more: a table so small is not
/// worth the three ways there and back that a `COPY` takes.
const SMALL: usize = 16 << 10;
/// Bytes of statements that are sent together.
const TOGETHER: usize = 1 << 20;

/// Where the rows of a table go.
enum Rows {
    /// Nowhere yet. The head of their `COPY`, and the rows so far.
    Held(String, Vec<u8>),
    /// To the server.
    Sent(Sink),
}

type Sink = Pin<Box<CopyInSink<Bytes>>>;

/// A script of rows on its way to the server.
struct Stream<'a> {
    client: &'a Client,
    server: u32,
    statements: String,
    line: Vec<u8>,
    rows: Option<Rows>,
    /// Whether the next byte of the rows begins a line.
    at_start: bool,
}

impl<'a> Stream<'a> {
    fn new(client: &'a Client, server: u32) -> Self {
        Self { client, server, statements: String::new(), line: Vec::new(), rows: None, at_start: true }
    }

    async fn run(mut self, mut pieces: Receiver<Bytes>) -> Result<(), Error> {
        while let Some(mut piece) = pieces.recv().await {
            while !piece.is_empty() {
                piece = if self.rows.is_some() { self.copied(piece).await? } else { self.stated(piece)? };
            }
        }
        if self.rows.is_some() {
            return Err(Error::Cut);
        }
        self.flush().await
    }

    /// Takes a line of statements; returns what is left of the piece.
    fn stated(&mut self, mut piece: Bytes) -> Result<Bytes, Error> {
        let Some(end) = memchr::memchr(b'\n', &piece) else {
            self.line.extend_from_slice(&piece);
            return Ok(Bytes::new());
        };
        self.line.extend_from_slice(&piece.split_to(end + 1));
        if archive::is_cut_head(&self.line) {
            return Ok(piece);
        }
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| Error::Encoding)?;
        if line.starts_with("COPY ") && line.ends_with(" FROM stdin;\n") {
            self.at_start = true;
            self.rows = Some(Rows::Held(line, Vec::new()));
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
        if !self.line.is_empty() {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(&piece);
            piece = whole.into();
        }
        let (rows, end) = split_at_end(&piece, self.at_start);
        self.send(piece.split_to(rows)).await?;
        match end {
            End::Here => {
                drop(piece.split_to(END.len()));
                self.end_rows().await?;
                Ok(piece)
            }
            End::Unknown { at_start } => {
                self.at_start = at_start;
                self.line = piece.to_vec();
                Ok(Bytes::new())
            }
        }
    }

    async fn send(&mut self, rows: Bytes) -> Result<(), Error> {
        match self.rows.take() {
            Some(Rows::Held(head, mut few)) => {
                few.extend_from_slice(&rows);
                self.rows = Some(if few.len() > SMALL {
                    Rows::Sent(self.begin_copy(&head, few).await?)
                } else {
                    Rows::Held(head, few)
                });
            }
            Some(Rows::Sent(mut sink)) => {
                if !rows.is_empty() {
                    sink.send(rows).await.map_err(rows_back())?;
                }
                self.rows = Some(Rows::Sent(sink));
            }
            None => {}
        }
        Ok(())
    }

    async fn begin_copy(&mut self, head: &str, rows: Vec<u8>) -> Result<Sink, Error> {
        self.flush().await?;
        let mut sink =
            Box::pin(self.client.copy_in(head.trim_end_matches([';', '\n'])).await.map_err(rows_back())?);
        if !rows.is_empty() {
            sink.send(rows.into()).await.map_err(rows_back())?;
        }
        Ok(sink)
    }

    async fn end_rows(&mut self) -> Result<(), Error> {
        let sink = match self.rows.take() {
            Some(Rows::Held(head, few)) => {
                if let Some(statement) = insert(&head, &few)? {
                    self.statements.push_str(&statement);
                    None
                } else {
                    Some(self.begin_copy(&head, few).await?)
                }
            }
            Some(Rows::Sent(sink)) => Some(sink),
            None => None,
        };
        if let Some(mut sink) = sink {
            sink.as_mut().finish().await.map_err(rows_back())?;
        }
        if self.statements.len() > TOGETHER { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Error> {
        let statements = std::mem::take(&mut self.statements);
        if !statements.trim().is_empty() {
            self.client.batch_execute(&statements).await.map_err(Error::at("make objects again"))?;
        }
        Ok(())
    }
}

/// Names the step in which the server refused rows.
fn rows_back() -> impl Fn(tokio_postgres::Error) -> Error {
    Error::at("bring back rows")
}

/// The line behind the last row.
const END: &[u8] = b"\\.\n";

/// What stands behind the rows of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The line that ends them.
    Here,
    /// What may be the beginning of that line, or nothing.
    Unknown {
        /// Whether that begins a line.
        at_start: bool,
    },
}

/// How many bytes of a piece are rows, and what comes behind them. A piece may break off anywhere.
fn split_at_end(piece: &[u8], at_start: bool) -> (usize, End) {
    if at_start && piece.starts_with(END) {
        return (0, End::Here);
    }
    if let Some(at) = memchr::memmem::find(piece, b"\n\\.\n") {
        return (at + 1, End::Here);
    }
    let line = memchr::memrchr(b'\n', piece).map(|at| at + 1);
    let at_start = at_start || line.is_some();
    let rows = line.unwrap_or_default();
    let is_open = at_start && END.starts_with(piece.get(rows..).unwrap_or_default());
    if is_open {
        (rows, End::Unknown { at_start: true })
    } else {
        (piece.len(), End::Unknown { at_start: false })
    }
}

/// The rows of a small table as one statement. Literals are read as `COPY` reads its fields, by the input
/// function of the column's type (`src/backend/parser/parse_coerce.c`, `coerce_type`). None for a table
/// without columns.
fn insert(head: &str, rows: &[u8]) -> Result<Option<String>, Error> {
    let Some(into) = head.strip_prefix("COPY ").and_then(|head| head.strip_suffix(" FROM stdin;\n")) else {
        return Ok(None);
    };
    if !into.ends_with(')') {
        return Ok(None);
    }
    if rows.is_empty() {
        return Ok(Some(String::new()));
    }
    let mut statement = format!("INSERT INTO {into} OVERRIDING SYSTEM VALUE VALUES\n");
    for (at, line) in rows.strip_suffix(b"\n").unwrap_or(rows).split(|byte| *byte == b'\n').enumerate() {
        statement.push_str(if at == 0 { "(" } else { ",\n(" });
        for (at, value) in archive::values(line).enumerate() {
            statement.push_str(if at == 0 { "" } else { ", " });
            match value.map(String::from_utf8).transpose().map_err(|_| Error::Encoding)? {
                Some(value) => statement.push_str(&quote_literal(&value)),
                None => statement.push_str("NULL"),
            }
        }
        statement.push(')');
    }
    statement.push_str(";\n");
    Ok(Some(statement))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rows that come out, and what stands behind the line that ends them.
    fn split(pieces: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut rows, mut held, mut at_start) = (Vec::new(), Vec::new(), true);
        for (at, piece) in pieces.iter().enumerate() {
            let piece = [&std::mem::take(&mut held), *piece].concat();
            let (length, end) = split_at_end(&piece, at_start);
            rows.extend_from_slice(&piece[..length]);
            match end {
                End::Here => {
                    let rest = [&piece[length + END.len()..], &pieces[at + 1..].concat()].concat();
                    return (rows, Some(rest));
                }
                End::Unknown { at_start: next } => {
                    held = piece[length..].to_vec();
                    at_start = next;
                }
            }
        }
        (rows, None)
    }

    #[test]
    fn the_end_of_rows_is_a_line_of_its_own() {
        let check = |script: &str, rows: &str, rest: Option<&str>| {
            let expected = (rows.as_bytes().to_vec(), rest.map(|rest| rest.as_bytes().to_vec()));
            assert_eq!(split(&[script.as_bytes()]), expected, "{script}");
        };
        check("\\.\nSET", "", Some("SET"));
        check("1\ta\n\\.\n\nCOPY", "1\ta\n", Some("\nCOPY"));
        check("a\\.\n\\\\.\n\\.\n", "a\\.\n\\\\.\n", Some(""));
        check("\n\n\\.\n", "\n\n", Some(""));
        check("1\n2", "1\n2", None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn pieces_break_off_anywhere(
            rows in "([a\t]|\\\\[\\.N\\\\]|\n){0,20}", cuts in prop::collection::vec(0_usize..40, 0..6),
        ) {
            let rows = if rows.is_empty() || rows.ends_with('\n') { rows } else { rows + "\n" };
            prop_assume!(!rows.split('\n').any(|line| line == "\\."));
            let script = format!("{rows}\\.\nSELECT 1;\n\\.\n");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(script.len())).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([script.len()]);
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            let pieces: Vec<&[u8]> =
                starts.zip(ends).map(|(start, end)| &script.as_bytes()[start..end]).collect();
            let rest = b"SELECT 1;\n\\.\n".to_vec();
            prop_assert_eq!(split(&pieces), (rows.into_bytes(), Some(rest)));
        }
    }

    #[test]
    fn rows_of_a_small_table_are_one_statement() {
        let head = "COPY public.\"T\" (id, \"a)\") FROM stdin;\n";
        assert_eq!(
            insert(head, b"1\tit's\\n\\\\x\n2\t\\N\n3\t\n").unwrap().unwrap(),
            "INSERT INTO public.\"T\" (id, \"a)\") OVERRIDING SYSTEM VALUE VALUES\n\
             ('1', E'it''s\n\\\\x'),\n('2', NULL),\n('3', '');\n"
        );
        assert_eq!(insert("COPY public.t  FROM stdin;\n", b"\n\n").unwrap(), None);
        assert_eq!(insert(head, b"").unwrap().unwrap(), "");
    }

    #[test]
    fn the_frame_of_a_script_goes_and_what_looks_like_it_stays() {
        let script = "--\n\\restrict x\nSET statement_timeout = 0;\nSET lock_timeout = 0;\n\
            SET transaction_timeout = 0;\nSET client_encoding = 'UTF8';\nCREATE FUNCTION f() AS $$\n\
            \\restrict y\nSET lock_timeout = 0;\n\\unrestrict y\n$$;\n\\unrestrict x\n\n";
        let body = "CREATE FUNCTION f() AS $$\n\\restrict y\nSET lock_timeout = 0;\n\\unrestrict y\n$$;";
        let head = "--\nSET statement_timeout = 0;\n";
        let encoding = "SET client_encoding = 'UTF8';\n";
        assert_eq!(without_frame(script, 15), format!("{head}{encoding}{body}"));
        let timeout = "SET transaction_timeout = 0;\n";
        assert_eq!(without_frame(script, 17), format!("{head}{timeout}{encoding}{body}"));
    }
}
