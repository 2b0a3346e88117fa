//! Captures the database: one exported snapshot serves the dump, the fingerprint, and the exact
//! counts of every table, so that they cannot differ by a commit in between.
//!
//! The content hashes are worked out on this machine from the dump itself wherever its text is the
//! server's own, so that hashing costs the target nothing.

use crate::archive::{self, Contents, Rows, RowsByTable};
use crate::context::Context;
use crate::decode;
use crate::disk;
use crate::event::{Event, Stage};
use crate::evidence::estimate::{self, bytes_in_words};
use crate::evidence::point;
use crate::evidence::reuse::{self, Reused};
use crate::evidence::storage::{self, Storage};
use crate::fingerprint::Fingerprint;
use crate::manifest::{Content, Database, ExtensionVersion, Gap, TableRows, Taken, Tool, qualified};
use crate::postgres::catalog::{self, Table, TableKind};
use crate::postgres::connect::Session;
use crate::postgres::{history, rows, sessions, settings};
use crate::proc::{self, Stream};
use crate::quiesce::{self, Pause};
use crate::resolve;
use crate::store::Draft;
use crate::target::{EndpointKind, SslMode, Target};
use crate::tools::installs::{self, Installation};
use crate::tools::pg_dump::{self, Compression, Dump};
use crate::tools::{Login, pg_restore};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Connections that copy rows. With the one that counts and the leader of `pg_dump` that makes
/// four, the most that a run may hold (DESIGN 3.1).
const JOBS: u32 = 2;
/// Counting with one process of the server takes less than the dump beside it: more would only take
/// turns with the dump, and with the users of the target.
const ALONE: &str = "set max_parallel_workers_per_gather = 0";
/// How often a dump is tried for that somebody's lock gets in the way of.
const ATTEMPTS: u32 = 3;
/// How often the growth of the archive is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Why the database could not be captured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target cannot be opened, or is another database now.
    #[error(transparent)]
    Resolve(#[from] resolve::Error),
    /// No fitting client programs.
    #[error(transparent)]
    Installs(#[from] installs::Error),
    /// A query failed.
    #[error("cannot {doing}")]
    Query {
        /// What was being done.
        doing: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The catalog could not be read.
    #[error("cannot read the catalog")]
    Catalog(#[from] catalog::Error),
    /// A program failed.
    #[error("the dump failed")]
    Program(#[from] proc::Error),
    /// The archive's table of contents was not understood.
    #[error("the archive cannot be read")]
    Contents(#[from] archive::Error),
    /// Rows of an earlier snapshot could not be taken over.
    #[error(transparent)]
    Reuse(#[from] reuse::Error),
    /// The archive could not be decoded.
    #[error(transparent)]
    Decode(#[from] decode::Error),
    /// The dump went through something that changes sessions.
    #[error("the archive holds names without their schema: the dump went through a transaction pooler")]
    SearchPath,
    /// A table was locked against readers.
    #[error("a table of the target is locked against readers: {}", .holders.join("; "))]
    Locked {
        /// Who holds such locks.
        holders: Vec<String>,
        /// What waited for it in vain.
        #[source]
        source: Box<Self>,
    },
    /// Writes could not be paused, or are paused by somebody else.
    #[error(transparent)]
    Quiesce(#[from] quiesce::Error),
    /// Storage, whose rows are of the same consistency point, could not be captured.
    #[error("cannot capture Storage")]
    Storage(#[from] storage::Error),
    /// The disk is too small.
    #[error("the archive may take {}, and only {} are free at `{path}`", bytes_in_words(*.needed), bytes_in_words(*.free))]
    Disk {
        /// The folder.
        path: String,
        /// Bytes that it may take.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file could not be read or written.
    #[error("cannot write the database evidence")]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether it may be that a lock was waited for in vain. Of `pg_dump` only the exit code is known.
    fn may_be_a_lock(&self) -> bool {
        let of = |error: &tokio_postgres::Error| error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE);
        match self {
            Self::Query { source, .. }
            | Self::Catalog(catalog::Error::Query(source))
            | Self::Reuse(reuse::Error::Query { source, .. }) => of(source),
            Self::Program(_) => true,
            _ => false,
        }
    }

    /// Whether the dump ended since somebody asked for a table against its readers meanwhile.
    fn is_a_lost_lock(&self) -> bool {
        matches!(self, Self::Program(proc::Error::Failed { tail, .. }) if pg_dump::lost_a_lock(tail))
    }
}

pub(super) fn doing(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Error {
    let doing = what.into();
    move |source| Error::Query { doing, source }
}

/// What was captured.
#[derive(Debug)]
pub struct Captured {
    /// The component's record.
    pub database: Database,
    /// The consistency point.
    pub taken: Taken,
    /// The programs used.
    pub tools: Vec<Tool>,
    /// What was not captured.
    pub limits: Vec<String>,
    /// What the archive holds, decoded to its end.
    pub rows: RowsByTable,
    /// What was captured of Storage, whose rows are of the same consistency point.
    pub storage: Option<storage::Captured>,
}

/// Captures the database into a draft, and what changed in Storage since its bulk copy.
pub async fn capture(
    target: &Target,
    context: &Context,
    draft: &Draft,
    storage: Option<&Storage<'_>>,
    pause: Option<&Pause<'_>>,
) -> Result<Captured, Error> {
    let installation = installs::client_for(target.server.major(), &context.machine.installations)?;
    let dir = draft.dir.join("database");
    let session = resolve::reopen(target).await?;
    for holder in sessions::exclusive(&session.client).await.map_err(doing("look at other sessions"))? {
        context.warn(format!("a table is locked against readers and is waited for, 10 s at most: {holder}"));
    }
    let capture = Capture { target, context, installation, dir: &dir, logs: &draft.dir.join("logs"), pause };
    let outcome = capture.run_until_whole(&session, storage).await;
    session.close().await;
    outcome
}

struct Capture<'a> {
    target: &'a Target,
    context: &'a Context,
    installation: &'a Installation,
    dir: &'a Path,
    logs: &'a Path,
    pause: Option<&'a Pause<'a>>,
}

impl Capture<'_> {
    /// Begins again when the dump had to end for a lock that somebody else asked for, a few times.
    async fn run_until_whole(
        &self,
        session: &Session,
        storage: Option<&Storage<'_>>,
    ) -> Result<Captured, Error> {
        let mut holders = Vec::new();
        let mut attempt = 1;
        loop {
            let error = match self.run(session, storage).await {
                Err(error) if error.may_be_a_lock() => error,
                outcome => return outcome,
            };
            // Who waited for the dump has the lock now, or has done with it.
            let found = self.holders().await;
            if !found.is_empty() {
                holders = found;
            }
            let is_lost = error.is_a_lost_lock();
            if !is_lost || attempt == ATTEMPTS {
                if is_lost && holders.is_empty() {
                    holders.push("sessions that come and go".to_owned());
                }
                let source = Box::new(error);
                return Err(if holders.is_empty() { *source } else { Error::Locked { holders, source } });
            }
            attempt += 1;
            self.context.note(format!(
                "somebody asked for a table against its readers while it was dumped, and the dump had to end: \
                 attempt {attempt} of {ATTEMPTS}"
            ));
            session.client.batch_execute("rollback").await.map_err(doing("leave the consistency point"))?;
            fs_err::remove_dir_all(self.archive())?;
            if let Some(storage) = storage {
                storage.again(&session.client).await?;
            }
        }
    }

    /// Whoever holds a lock that a reader waits for, or asks for one.
    async fn holders(&self) -> Vec<String> {
        let Ok(session) = resolve::reopen(self.target).await else { return Vec::new() };
        let holders = sessions::exclusive(&session.client).await;
        session.close().await;
        holders.unwrap_or_default()
    }

    async fn run(&self, session: &Session, storage: Option<&Storage<'_>>) -> Result<Captured, Error> {
        let client = &session.client;
        let defaults = rows::defaults(client).await.map_err(doing("read the settings of a session"))?;
        client.batch_execute(rows::PINNED).await.map_err(doing("prepare the session"))?;
        client.batch_execute(ALONE).await.map_err(doing("prepare the session"))?;
        let line = estimate::bytes_per_second(client).await.map_err(doing("measure the line"))?;

        let point = point::open(self.context, client, storage, self.pause).await?;

        let tables = catalog::tables(client).await?;
        let expected_bytes = self.announce(&tables, line)?;
        let fingerprint = catalog::fingerprint(client).await?;
        let extensions = catalog::extensions(client).await?;
        let applied = history::read(client).await.map_err(doing("read the migration history"))?;
        let (readable, gaps) = split_readable(&tables);
        let without: Vec<String> = gaps.iter().map(|gap| pg_dump::pattern(&gap.schema, &gap.name)).collect();

        let compression = self.compression().await?;
        let archive = self.archive();
        // A pooler may not know the setting by which a tool asks for UTC.
        let may_ask_for_utc = self.target.kind != EndpointKind::SessionPooler;
        let as_read = defaults.is_hex && (defaults.is_utc || may_ask_for_utc);
        let wanted = reuse::Wanted {
            context: self.context,
            target: self.target,
            installation: self.installation,
            suffix: compression.suffix(),
            tables: if as_read { readable.as_slice() } else { &[] },
            fingerprint: &fingerprint,
            line,
        };
        let reused = reuse::choose(client, &wanted).await?;
        let without_rows = reused.patterns();
        let dump = Dump {
            snapshot: &point.exported,
            folder: &archive,
            jobs: JOBS,
            compression,
            without: &without,
            without_rows: &without_rows,
            in_utc: !defaults.is_utc && may_ask_for_utc,
        };
        let (mut measured, (), storage) = tokio::try_join!(
            self.measure(session, &readable, as_read, &reused),
            self.dump(&dump, expected_bytes),
            point.storage.end()
        )?;
        let large_objects = rows::large_objects(client).await.map_err(doing("hash the large objects"))?;
        client.batch_execute("commit").await.map_err(doing("close the consistency point"))?;

        reused.complete(&archive)?;
        let read_back = async {
            let contents = self.contents().await?;
            Ok((self.sequences(&contents).await?, contents))
        };
        let decoding = async { Ok(decode::decode(&archive, self.installation).await?) };
        let ((sequences, contents), (), rows) = tokio::try_join!(read_back, self.roles(), decoding)?;
        take_hashes(&mut measured, &rows);
        disk::write(&self.dir.join("fingerprint.tsv"), fingerprint.to_text().as_bytes())?;
        disk::write_json(&self.dir.join("extensions.json"), &extensions)?;
        disk::write(&self.dir.join("rows.tsv"), rows_file(&measured).as_bytes())?;
        disk::write(&self.dir.join("settings.sql"), self.settings(session).await?.as_bytes())?;

        let limits = self.limits(&measured, &gaps, &fingerprint);
        Ok(Captured {
            database: Database {
                name: self.target.connection.database.clone(),
                owned_digest: fingerprint.owned_digest(),
                contents_digest: contents.digest(),
                tables: measured,
                sequences,
                large_objects,
                extensions: extensions.into_iter().map(version).collect(),
                history: applied.into_iter().map(|applied| applied.version).collect(),
                gaps,
                archive_bytes: disk::bytes_below(&self.archive()),
                horizon: Some(point.horizon),
            },
            taken: point.taken,
            tools: vec![Tool { name: "pg_dump".to_owned(), version: self.installation.version.clone() }],
            limits,
            rows,
            storage,
        })
    }

    fn limits(&self, tables: &[TableRows], gaps: &[Gap], fingerprint: &Fingerprint) -> Vec<String> {
        let mut limits = limits(tables, gaps, fingerprint);
        let mode = self.target.connection.ssl_mode;
        if self.target.project.is_some() && mode < SslMode::VerifyCa {
            limits.push(format!("the server's certificate was not verified (sslmode={})", mode.as_str()));
        }
        limits
    }

    fn archive(&self) -> std::path::PathBuf {
        self.dir.join("archive")
    }

    fn login(&self) -> Login<'_> {
        Login { connection: &self.target.connection }
    }

    /// Tells what it will cost, and refuses when the disk is certainly too small; returns how many
    /// bytes the archive may take.
    fn announce(&self, tables: &[Table], bytes_per_second: f64) -> Result<u64, Error> {
        let estimate = estimate::estimate(tables, bytes_per_second);
        let free = disk::free_bytes(self.dir)?;
        self.context.tell(&Event::Estimate {
            table_bytes: estimate.table_bytes,
            disk_bytes: estimate.disk_bytes,
            free_bytes: free,
            minutes: estimate.time.as_secs_f64() / 60.0,
        });
        if estimate.time > self.context.max_age.unsigned_abs() {
            self.context.warn(format!(
                "this snapshot may take longer than the {} that it may be old: raise `max_age` for this target, or run closer to it",
                crate::policy::in_words(self.context.max_age)
            ));
        }
        // A third of the estimate is what well compressible rows take.
        if free < estimate.disk_bytes / 3 {
            return Err(Error::Disk {
                path: self.dir.display().to_string(),
                needed: estimate.disk_bytes,
                free,
            });
        }
        Ok(estimate.disk_bytes)
    }

    async fn compression(&self) -> Result<Compression, Error> {
        if self.installation.major < 16 {
            return Ok(Compression::Gzip);
        }
        let probe = pg_dump::probe_zstd(self.installation).run_unchecked().await?;
        Ok(if pg_dump::has_zstd(&probe.stderr) { Compression::Zstd } else { Compression::Gzip })
    }

    /// Counts every table; hashes those whose text in the dump is not the server's own. The hashes
    /// of the others are still to come.
    async fn measure(
        &self,
        session: &Session,
        tables: &[&Table],
        as_read: bool,
        reused: &Reused,
    ) -> Result<Vec<TableRows>, Error> {
        let client = &session.client;
        let mut measured = Vec::with_capacity(tables.len());
        for table in tables.iter().filter(|table| table.kind != TableKind::UnpopulatedMaterializedView) {
            if let Some(known) = reused.rows(table) {
                measured.push(known);
                continue;
            }
            let (schema, name) = (&table.schema, &table.name);
            let failed = || doing(format!("count table {}", qualified(schema, name)));
            let is_hashed_in_archive = as_read
                && table.is_dumped_as_read
                && table.kind == TableKind::Table
                && table.extension.is_none();
            let (count, content) = if is_hashed_in_archive {
                (rows::count(client, schema, name).await.map_err(failed())?, Content::Sum(String::new()))
            } else {
                let found = rows::measure(client, schema, name, &[]).await.map_err(failed())?;
                (found.count, found.content)
            };
            measured.push(TableRows {
                schema: schema.clone(),
                name: name.clone(),
                class: table.class,
                count,
                content,
                is_hashed_in_archive,
                extension: table.extension.clone(),
                dropped: Some(table.dropped.clone()),
                second: None,
                from: None,
            });
        }
        Ok(measured)
    }

    async fn dump(&self, dump: &Dump<'_>, expected_bytes: u64) -> Result<(), Error> {
        let table = Arc::new(Mutex::new(String::new()));
        let seen = Arc::clone(&table);
        resolve::refresh(self.target).await?;
        let cmd = pg_dump::dump(self.installation, &self.login(), dump)
            .log(self.logs.join("pg_dump.log"))
            .on_line(move |stream, line| {
                if stream == Stream::Stderr
                    && let Some(name) = pg_dump::dumped_table(line)
                {
                    name.clone_into(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
                }
            });
        self.context.tell(&Event::Program { command: cmd.to_string() });
        let run = cmd.run();
        tokio::pin!(run);
        let mut tick = tokio::time::interval(PROGRESS_EVERY);
        loop {
            tokio::select! {
                ended = &mut run => {
                    ended?;
                    return Ok(());
                }
                _ = tick.tick() => {
                    let item = table.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let bytes = disk::bytes_below(dump.folder);
                    let expected_bytes = Some(expected_bytes);
                    self.context.tell(&Event::Progress { stage: Stage::Collect, item, bytes, expected_bytes });
                }
            }
        }
    }

    async fn contents(&self) -> Result<Contents, Error> {
        let listed = pg_restore::list(self.installation, &self.archive()).run().await?;
        disk::write(&self.dir.join("contents.txt"), listed.stdout.as_bytes())?;
        Ok(Contents::parse(&listed.stdout)?)
    }

    /// Sequence values from the archive, and whether the dump's session kept its settings.
    async fn sequences(&self, contents: &Contents) -> Result<Vec<crate::manifest::SequenceValue>, Error> {
        let list = self.dir.join("sequences.list");
        disk::write(&list, contents.list(|entry| entry.kind == "SEQUENCE SET").as_bytes())?;
        let script = pg_restore::script(self.installation, &self.archive(), &list).run().await?;
        fs_err::remove_file(&list)?;
        if !archive::has_empty_search_path(&script.stdout) {
            return Err(Error::SearchPath);
        }
        Ok(archive::sequence_values(&script.stdout))
    }

    async fn roles(&self) -> Result<(), Error> {
        resolve::refresh(self.target).await?;
        let printed = pg_dump::roles(self.installation, &self.login()).run().await?;
        let fit = pg_dump::fit_roles(&printed.stdout, &self.target.server.bootstrap_role);
        Ok(disk::write(&self.dir.join("roles.sql"), fit.as_bytes())?)
    }

    /// Settings of the database itself, which no archive without `--create` holds.
    async fn settings(&self, session: &Session) -> Result<String, Error> {
        let statements = settings::statements(&session.client)
            .await
            .map_err(doing("read the settings of the database"))?;
        Ok(statements.into_iter().map(|statement| statement + ";\n").collect())
    }
}

fn version(extension: catalog::Extension) -> ExtensionVersion {
    ExtensionVersion { name: extension.name, version: extension.version }
}

/// Fills in the hashes that the archive's rows give. A table that the archive lacks stays without
/// one, and verification names it.
fn take_hashes(tables: &mut [TableRows], rows: &RowsByTable) {
    // Of rows that were taken over the server's own hash is known, and verification compares the two.
    let is_dumped = |table: &&mut TableRows| table.is_hashed_in_archive && table.from.is_none();
    for table in tables.iter_mut().filter(is_dumped) {
        let found = rows.get(&(table.schema.clone(), table.name.clone()));
        table.content = found.map_or_else(
            || Content::Unhashed("the archive does not hold its rows".to_owned()),
            Rows::content,
        );
        table.second = found.and_then(Rows::second);
    }
}

fn split_readable(tables: &[Table]) -> (Vec<&Table>, Vec<Gap>) {
    let (readable, hidden): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(|table| table.is_readable);
    let gaps = hidden
        .into_iter()
        .map(|table| Gap {
            schema: table.schema.clone(),
            name: table.name.clone(),
            class: table.class,
            why: "the role of the connection may not read it".to_owned(),
        })
        .collect();
    (readable, gaps)
}

/// Counts and hashes as a file for people and `diff`: `count<TAB>hash<TAB>table`.
fn rows_file(tables: &[TableRows]) -> String {
    let line = |table: &TableRows| {
        let content = match &table.content {
            Content::Sum(sum) => sum.clone(),
            Content::Unhashed(why) => format!("unhashed ({why})"),
        };
        format!("{}\t{content}\t{}\n", table.count, table.qualified())
    };
    tables.iter().map(line).collect::<Vec<_>>().concat()
}

fn limits(tables: &[TableRows], gaps: &[Gap], fingerprint: &Fingerprint) -> Vec<String> {
    let unhashed = tables.iter().filter_map(|table| match &table.content {
        Content::Unhashed(why) => {
            Some(format!("the content of {} was counted but not hashed: {why}", table.qualified()))
        }
        Content::Sum(_) => None,
    });
    let gaps =
        gaps.iter().map(|gap| format!("the rows of {} are not in the archive: {}", gap.qualified(), gap.why));
    let beyond = fingerprint.lines().iter().filter(|line| line.is_beyond_dump()).map(|line| {
        format!("{} {} is not in the archive, since pg_dump leaves it out", line.kind, line.identity)
    });
    let hidden = fingerprint.lines().iter().filter(|line| line.hides_options()).map(|line| {
        format!(
            "the options of user mapping {} are not in the archive, and a change of them is not seen: the role of \
             the connection may not read them",
            line.identity
        )
    });
    unhashed.chain(gaps).chain(beyond).chain(hidden).collect()
}
