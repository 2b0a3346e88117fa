//! Takes a database back to its snapshot, in one transaction of the caller's session that is proved
//! before anybody commits it.
//!
//! One mechanism serves every scope. The fingerprint says which objects differ; what can be changed
//! in place is, the rest goes with all that depends on it. What is gone then, whatever took it along,
//! comes back from the archive, and the fingerprint says again whether anything differs. The copy of
//! a rehearsal and the target run the same code.

mod accounts;
mod canary;
mod cascade;
pub mod choice;
mod closure;
mod definitions;
mod extensions;
mod grants;
mod history;
mod inverse;
mod keys;
mod large;
mod live;
mod locks;
mod merged;
mod moment;
pub mod named;
mod names;
mod objects;
mod partitions;
pub mod preflight;
mod proof;
mod proved;
pub mod pushed;
mod references;
mod reload;
mod roles;
mod room;
pub mod run;
mod script;
mod selection;
mod sequences;
mod since;
pub mod storage;
mod transaction;
mod unproved;

pub use accounts::Changed;
pub use definitions::{DEFINITIONS, contents, recorded_contents};
pub use extensions::of_added as rows_of_added_extensions;
pub use large::SavedObject;
pub use merged::Taken;
pub use moment::Moment;
pub use proved::{Accounts, Proved};
pub use reload::load_command;
pub use room::Locks;
pub use selection::Translation;
pub use since::Saved;

use crate::archive::{self, Contents, Names};
use crate::effect::Besides;
use crate::event::Step;
use crate::fingerprint::{self, Class, Difference, Fingerprint};
use crate::left_out::LeftOut;
use crate::manifest::qualified;
use crate::postgres::connect;
use crate::postgres::{catalog, rows};
use crate::proc;
use crate::salvage;
use crate::store::{self, Snapshot};
use crate::tools::installs::Installation;
use crate::tools::pg_restore::Section;
use inverse::Inverse;
use script::Archive;
use selection::{Known, Owned, Selection};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{io, iter};
use tokio_postgres::Client;

/// What no rollback brings back, for people.
pub const LIMITS: [&str; 6] = [
    "rows of managed schemas (auth, vault, cron) stay as they are, but for accounts that the push wrote",
    "rows of an extension's own tables (cron.job, pgmq.meta) are not brought back where the push dropped it",
    "accounts that came between the snapshot and the push stay as it left them",
    "Functions and secrets stay as they are",
    "passwords of roles that were dropped",
    "who granted a privilege, where that was not the owner",
];
/// How long a lock is waited for where nobody minds: as long as `pg_dump` is told to.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Looks at what is left and changes it in place, at most so often: a privilege can depend on another.
const PASSES: usize = 3;

/// Why a database was not taken back. Nothing is committed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("the rollback failed in `{stage}`")]
    Statement {
        /// What was being done.
        stage: &'static str,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A query failed.
    #[error("a query of the rollback failed")]
    Query(#[from] tokio_postgres::Error),
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The archive could not be read.
    #[error("the archive of the snapshot cannot be read")]
    Archive(#[source] proc::Error),
    /// The definitions of the database could not be dumped.
    #[error("the definitions of the database cannot be read")]
    Definitions(#[source] proc::Error),
    /// The archive's table of contents was not understood.
    #[error("the archive's table of contents cannot be read")]
    Contents(#[from] archive::Error),
    /// The archive ends within the rows of a table.
    #[error("the archive ends within the rows of a table")]
    Cut,
    /// Output of a program or the server is not UTF-8.
    #[error("a text of the database is not UTF-8")]
    Encoding,
    /// The fingerprint of the snapshot was not understood.
    #[error("the fingerprint of the snapshot cannot be read")]
    Fingerprint(#[from] fingerprint::Error),
    /// A file could not be read or written.
    #[error("cannot keep the files of the rollback")]
    Io(#[from] io::Error),
    /// The rows of Storage could not be taken back.
    #[error(transparent)]
    Storage(#[from] salvage::Error),
    /// The store could not be told of the transaction.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Something would not be as in the snapshot.
    #[error("the database would not be as in the snapshot: {}", .0.join("; "))]
    NotExact(Vec<String>),
    /// Rows would have to go, since objects of Storage do not come back.
    #[error("rows would be lost with objects of Storage: {}", .0.join("; "))]
    Objects(Vec<String>),
    /// Somebody pushed, or repaired the history, since it was read.
    #[error("the history of migrations changed meanwhile: {}", changed(.came, .went))]
    History {
        /// Versions that came.
        came: Vec<String>,
        /// Versions that went.
        went: Vec<String>,
    },
    /// Somebody wrote to large objects while they went.
    #[error("large objects were written to while they were taken back")]
    LargeObjects,
    /// Something of the platform would be lost.
    #[error("the platform would lose what is not ours: {}", .0.join("; "))]
    Platform(Vec<String>),
}

/// What changed in a history, in words.
fn changed(came: &[String], went: &[String]) -> String {
    let sides = [("came", came), ("went", went)].into_iter().filter(|(_, versions)| !versions.is_empty());
    sides.map(|(word, versions)| format!("{} {word}", versions.join(", "))).collect::<Vec<_>>().join(", and ")
}

impl Error {
    /// Names the step of a failed statement.
    fn at(stage: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Statement { stage, source }
    }

    /// What the server said, when it said something.
    pub fn server(&self) -> Option<&tokio_postgres::error::DbError> {
        let first: &(dyn std::error::Error + 'static) = self;
        iter::successors(Some(first), |error| error.source())
            .find_map(|error| error.downcast_ref::<tokio_postgres::Error>()?.as_db_error())
    }
}

/// How much goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What the migration touched; what was written elsewhere stays.
    Touched,
    /// Everything that is the user's.
    Whole,
}

impl Mode {
    /// The word of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Touched => "touched",
            Self::Whole => "whole",
        }
    }
}

/// What is to be taken back, and by which means.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The snapshot to go back to.
    pub snapshot: &'a Snapshot,
    /// How much.
    pub mode: Mode,
    /// Qualified names of tables whose rows go back although their shape is the same.
    pub tables: &'a [String],
    /// What the push did besides the rows of tables, as far as it is known.
    pub besides: &'a Besides,
    /// The versions in the history that go.
    pub versions: &'a [String],
    /// Programs that can read the archive.
    pub clients: &'a Installation,
    /// What the database at hand cannot hold of the snapshot; nothing on a target.
    pub left_out: &'a LeftOut,
    /// Ids of objects in the database at hand.
    pub translation: &'a Translation,
    /// The objects of Storage whose rows go back as well; none of them when the push is known to have left
    /// these alone, and nothing when that is not known.
    pub storage: Option<&'a salvage::Saved>,
    /// How long each lock is waited for, while others wait behind it.
    pub patience: Duration,
    /// Where rows written since are kept; none in a rehearsal.
    pub keep_in: Option<&'a Path>,
}

/// Takes the database back in a transaction that it begins and leaves open; whoever calls it
/// commits, or does not.
pub async fn bring_back(client: &Client, task: &Task<'_>) -> Result<Proved, Error> {
    bring_back_announced(client, task, async |_| Ok(())).await
}

/// The same, when somebody is to know the transaction's id before it takes its first lock, and how far it is.
pub async fn bring_back_announced(
    client: &Client,
    task: &Task<'_>,
    announce: impl AsyncFn(Moment<'_>) -> Result<(), Error>,
) -> Result<Proved, Error> {
    let contents = recorded_contents(task.snapshot)?;
    let scratch = tempfile::tempdir()?;
    let mut work = Work::read(client, task, &contents, scratch.path()).await?;
    client.batch_execute(rows::PINNED).await?;
    let known = work.read_ahead().await?;
    let transaction = transaction::begin(client, task.patience).await?;
    announce(Moment::Begun(&transaction)).await?;
    announce(Moment::begin(Step::Lock)).await?;
    let started = Instant::now();
    work.ago = work.transactions_since().await?;
    let (live, unread) = work.look_at_all().await?;
    let closure = closure::find(&work, &live).await?;
    work.hold_history().await?;
    let sequences = sequences::note(&work).await?;
    announce(Moment::next(Step::Lock, Step::KeepRows)).await?;
    // From here on it costs more to begin again than to wait.
    work.pin().await?;
    let doomed = proof::doomed(&work, closure.users_tables());
    let removed_tables = doomed.iter().filter(|table| table.recorded.is_none());
    let removed_tables = removed_tables.map(|table| qualified(&table.schema, &table.name)).collect();
    let mut saved = work.save(&doomed, known).await?;
    let managed = merged::load(&work).await?;
    let marked = merged::mark_added(&work, &managed).await?;
    let along =
        if marked.are_any { cascade::keep(&work, &closure.tables, saved.len()).await? } else { Vec::new() };
    let added = merged::remove_added(&work, &managed).await?;
    if !managed.is_empty() {
        // No table goes while a key of it is still to be checked.
        let sql = "set constraints all immediate; set constraints all deferred";
        client.batch_execute(sql).await.map_err(Error::at("check deferred keys"))?;
    }
    let kept = accounts::keep(&work, &doomed).await?;
    let of_extensions = extensions::keep(&work, &closure, saved.len() + along.len()).await?;
    announce(Moment::next(Step::KeepRows, Step::TakeBack)).await?;
    references::note(&work).await?;
    closure::drop_all(client, &closure).await?;
    let large_objects = large::take_away(&work, &closure).await?;
    if let Some(saved) = task.storage {
        // Before the keys that refer to them.
        salvage::rows(client, saved).await?;
    }
    let merged::Back { kept: changed, taken } = merged::bring_back(&work, &managed).await?;
    let beside = along.into_iter().chain(of_extensions.saved);
    let (beside, of_beside): (Vec<_>, Vec<_>) = beside.unzip();
    let doomed = doomed.into_iter().chain(beside).collect::<Vec<_>>();
    saved.extend(of_beside);
    saved.extend(changed.into_iter().chain(added));
    if let Some(folder) = task.keep_in {
        // Every file that they name is synced.
        let beside = large::load_script(&large_objects);
        reload::describe(&work, &doomed, (&saved, &taken), (folder, &beside))?;
    }
    let (restored, refreshed) = work.restore(&kept).await?;
    let accounts = Accounts { taken, ..restored };
    work.forget().await?;
    work.settle().await?;
    work.prove_history().await?;
    let sequences = sequences::turn_back(&work, &sequences).await?;
    let mut references = references::follow(&work).await?;
    references.extend(refreshed.into_iter().chain(marked.missed).chain(of_extensions.lost));
    let now = work.look_at_all().await?;
    proof::platform(&work, &live, &now.0)?;
    proof::unread(&unread, &now.1)?;
    if task.mode == Mode::Whole {
        proof::sequences(client, task, (&accounts, &sequences)).await?;
        large::prove(&work).await?;
    }
    announce(Moment::end(Step::TakeBack)).await?;
    let seconds = started.elapsed().as_secs_f64();
    let tables = closure.users_tables().map(live::Table::qualified).collect();
    Ok(Proved {
        tables,
        removed_tables,
        saved,
        large_objects,
        accounts,
        sequences,
        references,
        transaction,
        seconds,
        ..Proved::nothing(task.mode)
    })
}

/// Demands that sequences, large objects, and the rows of accounts and of every table are as in the
/// snapshot, those that nobody thought of included. To be asked where nobody wrote but the push and the way
/// back.
pub async fn proved_besides(client: &Client, task: &Task<'_>, proved: &Proved) -> Result<(), Error> {
    if !proved.accounts.is_empty() {
        return Err(Error::NotExact(proved.accounts.in_words()));
    }
    proof::sequences(client, task, (&Accounts::default(), &proved.sequences)).await?;
    proof::large_objects(client, task).await?;
    proof::elsewhere(client, task, proved).await
}

/// What every step needs.
struct Work<'a> {
    client: &'a Client,
    task: &'a Task<'a>,
    archive: Archive<'a>,
    contents: &'a Contents,
    /// The fingerprint to go back to.
    recorded: Fingerprint,
    /// `roles.sql` and `settings.sql` of the snapshot.
    settings: String,
    /// As [`since::transactions_since`] says.
    ago: Option<i32>,
    /// The foreign keys to go back to.
    keys: Vec<keys::ForeignKey>,
}

impl<'a> Work<'a> {
    async fn read(
        client: &'a Client,
        task: &'a Task<'a>,
        contents: &'a Contents,
        scratch: &'a Path,
    ) -> Result<Self, Error> {
        let snapshot = task.snapshot;
        let read = |name: &str| fs_err::read_to_string(snapshot.database_file(name));
        let recorded = Fingerprint::from_text(&read("fingerprint.tsv")?)?;
        let version: i32 = client
            .query_one("select pg_catalog.current_setting('server_version_num')::int4", &[])
            .await?
            .get(0);
        let archive = Archive {
            snapshot,
            contents,
            clients: task.clients,
            scratch,
            server: u32::try_from(version / 10_000).unwrap_or_default(),
        };
        Ok(Self {
            client,
            task,
            archive,
            contents,
            recorded: task.left_out.comparable(&recorded),
            settings: format!("{}\n{}", read("roles.sql")?, read("settings.sql")?),
            ago: None,
            keys: keys::ForeignKey::all(&recorded),
        })
    }

    fn known(&self) -> Known<'a> {
        Known::new(self.contents, self.task.translation)
    }

    /// The fingerprint as it is now.
    async fn look(&self) -> Result<Fingerprint, Error> {
        Ok(self.task.left_out.comparable(&catalog::fingerprint(self.client).await?))
    }

    /// The same, and what it says of tables that nobody could read.
    async fn look_at_all(&self) -> Result<(Fingerprint, Fingerprint), Error> {
        let (all, left_out) = (catalog::fingerprint(self.client).await?, self.task.left_out);
        Ok((left_out.comparable(&all), left_out.of_unread(&all)))
    }

    /// The user's tables, but those that nobody could read: they are left alone.
    async fn tables(&self) -> Result<Vec<live::Table>, Error> {
        let mut tables = live::tables(self.client).await?;
        tables.retain(|table| !self.task.left_out.is_unread(&table.qualified()));
        Ok(tables)
    }

    /// What is to be done to get from here to the snapshot. Users make large objects as they write rows:
    /// where only a part goes back, those that the push did not touch stay; elsewhere all go that stand, and
    /// those that come after stay.
    fn differences(&self, live: &Fingerprint) -> Vec<Difference> {
        let mut differences = live.differences(&self.recorded, Class::Owned);
        differences.retain(|difference| match (large::of(difference), self.task.mode) {
            (None, _) => true,
            (Some(oid), Mode::Touched) => self.task.besides.large_objects.contains(&oid),
            (Some(_), Mode::Whole) => difference.after.is_some(),
        });
        differences
    }

    /// A copy has its own numbers.
    async fn transactions_since(&self) -> Result<Option<i32>, Error> {
        if self.task.keep_in.is_none() {
            return Ok(None);
        }
        since::transactions_since(self.client, &self.task.snapshot.manifest).await
    }

    /// Reads from the archive what rows written since will be compared with, while nobody waits for us. What
    /// else is needed is read when it shows. Whoever vacuums makes way first.
    async fn read_ahead(&self) -> Result<since::Known, Error> {
        locks::outwait_vacuum(self).await?;
        let mut known = since::Known::default();
        let Some(ago) = self.transactions_since().await? else { return Ok(known) };
        let tables = self.tables().await?;
        let is_meant = |table: &&live::Table| {
            let is_whole = self.task.mode == Mode::Whole || closure::is_named(self.task.tables, table);
            is_whole && table.has_rows && !table.is_history()
        };
        let doomed = proof::doomed(self, tables.iter().filter(is_meant));
        let doomed: Vec<&since::Doomed> = doomed.iter().collect();
        let written = since::written(self.client, &doomed, Some(ago)).await?;
        known.add(&written, &self.archive).await?;
        Ok(known)
    }

    fn compared(&self) -> since::Compared<'_> {
        since::Compared { archive: &self.archive, ago: self.ago, versions: self.task.versions }
    }

    async fn save(&self, doomed: &[since::Doomed], known: since::Known) -> Result<Vec<Saved>, Error> {
        let Some(folder) = self.task.keep_in else { return Ok(Vec::new()) };
        since::save(self.client, doomed, known, &self.compared(), folder).await
    }

    /// Brings back from the archive whatever is gone; also tells which views show other rows, and which
    /// extensions have lost theirs.
    async fn restore(&self, kept: &[accounts::Kept]) -> Result<(Accounts, Vec<String>), Error> {
        let differences = self.differences(&self.look().await?);
        self.make_roles(&differences).await?;
        let owned = Owned::of(&self.recorded, &differences, self.task.left_out);
        large::bring_back(self, &differences).await?;
        let exists = live::existing(self.client, &self.known()).await?;
        let selection = Selection::of_gone(&self.known(), &owned, &exists);
        if selection.is_empty() {
            return Ok((Accounts::default(), Vec::new()));
        }
        let tables = proof::selected(self, &selection);
        let run = async |stage: &'static str, sql: String| {
            self.client.batch_execute(&sql).await.map_err(Error::at(stage))
        };
        let list = selection.list(|_| true);
        run("bring back definitions", self.archive.definitions(&list, Section::PreData).await?).await?;
        let empty = tables.iter().filter(|table| table.count == 0);
        let empty = Names::of(empty.map(|table| (table.schema.as_str(), table.name.as_str())));
        let filled = selection.list(|entry| entry.kind != "TABLE DATA" || !empty.has(entry));
        self.archive.rows(self.client, &filled).await?;
        self.pin().await?;
        proof::rows(self.client, &tables).await?;
        self.demand_objects(&tables).await?;
        let names = tables.iter().map(|table| (table.schema.clone(), table.name.clone())).collect();
        let removed = accounts::remove(self, &names).await?;
        let definitions = self.archive.definitions(&list, Section::PostData).await?;
        let accounts = self.bind(&definitions, kept).await?;
        self.pin().await?;
        let accounts = Accounts { removed, ..accounts };
        let mut told = proof::refreshed(self, &selection).await?;
        told.extend(extensions::emptied(&self.task.snapshot.manifest.database.tables, &differences));
        Ok((accounts, told))
    }

    /// Brings back keys, indexes, and rules over the rows of new accounts; when these do not fit, without
    /// them.
    async fn bind(&self, definitions: &str, kept: &[accounts::Kept]) -> Result<Accounts, Error> {
        let run = async || {
            let stage = "bring back keys, indexes, and rules";
            self.client.batch_execute(definitions).await.map_err(Error::at(stage))
        };
        if kept.is_empty() {
            run().await?;
            return Ok(Accounts::default());
        }
        self.client.batch_execute("savepoint supa_safe_accounts").await?;
        let fill = async || {
            let (loaded, unfit) = accounts::load(self.client, kept).await?;
            let unfit = accounts::fit(self, kept, unfit).await?;
            run().await?;
            Ok::<_, Error>(Accounts { loaded, unfit, ..Accounts::default() })
        };
        match fill().await {
            Ok(accounts) => Ok(accounts),
            Err(error) if error.server().is_some() => {
                self.client.batch_execute("rollback to savepoint supa_safe_accounts").await?;
                run().await?;
                let failed = Some(crate::failure::chain(&error).join(": "));
                Ok(Accounts { failed, ..Accounts::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// Tables of the platform in which rows go back.
    fn platform_tables(&self) -> impl Iterator<Item = String> {
        let storage = self.task.storage.filter(|saved| saved.writes_rows()).map(|_| salvage::TABLES);
        let storage = storage.into_iter().flatten().map(str::to_owned);
        storage.chain(self.task.besides.managed.iter().map(|rows| rows.table.clone()))
    }

    /// A script of `pg_restore` sets what it needs; the proof needs other settings.
    async fn pin(&self) -> Result<(), Error> {
        self.client.batch_execute(rows::PINNED).await?;
        Ok(self.client.batch_execute("set check_function_bodies = off").await?)
    }

    /// Roles come first: definitions name them.
    async fn make_roles(&self, differences: &[Difference]) -> Result<(), Error> {
        for difference in differences {
            if difference.kind == "role"
                && difference.before.is_none()
                && let Inverse::Change(statements) = inverse::of(difference, &self.settings)
            {
                let sql = statements.join(";\n");
                self.client.batch_execute(&sql).await.map_err(Error::at("make roles"))?;
            }
        }
        Ok(())
    }

    /// Changes in place what still differs, until nothing does.
    async fn settle(&self) -> Result<(), Error> {
        self.pin().await?;
        let parents = partitions::parents(&self.recorded);
        for _ in 0..PASSES {
            let differences = self.differences(&self.look().await?);
            if differences.is_empty() {
                return Ok(());
            }
            let mut statements: Vec<((u8, usize), String)> = Vec::new();
            for difference in &differences {
                let rank = (rank(difference), partitions::depth(&parents, difference));
                let change = match inverse::of(difference, &self.settings) {
                    Inverse::Change(change) => change,
                    Inverse::Archive => inverse::constraint(difference).into_iter().collect(),
                    Inverse::Replace(_) => Vec::new(),
                };
                statements.extend(change.into_iter().map(|statement| (rank, statement)));
            }
            statements.sort_by_key(|(rank, _)| *rank);
            let sql: Vec<String> = statements.into_iter().map(|(_, statement)| statement).collect();
            let sql = sql.join(";\n");
            self.client.batch_execute(&sql).await.map_err(Error::at("change in place what differs"))?;
        }
        let left = self.differences(&self.look().await?);
        let left: Vec<String> = left.iter().map(ToString::to_string).collect();
        if left.is_empty() { Ok(()) } else { Err(Error::NotExact(left)) }
    }
}

/// The order of changes: a role goes when nothing names it any more.
fn rank(difference: &Difference) -> u8 {
    match difference.kind.as_str() {
        "role" if difference.after.is_none() => 9,
        "role" => 0,
        "column" => 1,
        "constraint" => 2,
        // One that goes may stand in the way of another: two roles are not in each other.
        "membership" if difference.after.is_none() => 7,
        "membership" => 8,
        _ => 5,
    }
}
