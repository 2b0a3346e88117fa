//! What a rehearsal proved, on disk, so that it need not be repeated while it is valid.

use crate::disk;
use crate::effect::{Besides, FileEffect};
use crate::fingerprint::Class;
use crate::left_out::LeftOut;
use crate::manifest::{Content, Manifest, SnapshotId};
use crate::migration::{Pending, data_dependence};
use crate::rehearse::rollback::{Rehearsed, writes_accounts, writes_storage};
use crate::salvage::Touched;
use crate::scratch::engine::Ran;
use crate::store::{self, Store};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io;

/// Version of the record's format.
pub const FORMAT: u32 = 7;

/// What a rehearsal is known by: it stands for every push with the same key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Digest of the owned part of the target's fingerprint.
    pub owned_digest: String,
    /// Digest of everything that decides what the push does.
    pub pending_digest: String,
    /// Digest of the user's own checks, which the copy satisfied.
    pub checks_digest: String,
    /// Version and digest of the CLI.
    pub cli: String,
    /// `server_version_num` of the target.
    pub server_version: u32,
}

impl Key {
    /// The key as a file name.
    pub fn name(&self) -> String {
        let Self { owned_digest, pending_digest, checks_digest, cli, server_version } = self;
        let text = format!("{owned_digest}\n{pending_digest}\n{checks_digest}\n{cli}\n{server_version}");
        disk::sha256(text.as_bytes())
    }
}

/// A rehearsal that passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the format.
    pub format: u32,
    /// What it is known by.
    pub key: Key,
    /// When, by this machine's clock.
    pub rehearsed_at: Timestamp,
    /// The snapshot that was restored.
    pub snapshot: SnapshotId,
    /// Digest of the rows of that snapshot, platform tables aside.
    pub rows_digest: String,
    /// Digest of that snapshot's table of contents.
    pub contents_digest: String,
    /// Statements whose success or effect depends on rows, in words.
    pub dependences: Vec<String>,
    /// What each file did.
    pub effects: Vec<FileEffect>,
    /// What the push did besides the rows of tables.
    pub besides: Besides,
    /// Versions in the history afterwards.
    pub history: Vec<String>,
    /// The copy's fingerprint afterwards, as text.
    pub fingerprint: String,
    /// What the copy ran on.
    pub engine: Ran,
    /// What the copy could not hold.
    pub left_out: LeftOut,
    /// Seconds of the restore.
    pub restore_seconds: f64,
    /// Seconds of the push.
    pub push_seconds: f64,
    /// What they did to the rows of Storage, when they did and the snapshot tells what these were.
    pub storage: Option<Touched>,
    /// How the copy was taken back, by mode.
    pub rollbacks: Vec<Rehearsed>,
    /// What was not proved.
    pub limits: Vec<String>,
}

impl Record {
    /// Reads the record of a key; one of another format, or one that cannot be read, is none.
    pub(super) fn load(store: &Store, key: &Key) -> Result<Option<Self>, store::Error> {
        match fs_err::read(store.rehearsal_file(&key.name())) {
            Ok(bytes) => {
                let record = serde_json::from_slice::<Self>(&bytes).ok();
                Ok(record.filter(|record| record.format == FORMAT && record.key == *key))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is a record of other files on the same schema, server, and CLI.
    pub(super) fn any_of_other_files(store: &Store, key: &Key) -> Result<bool, store::Error> {
        let records = store.rehearsals()?;
        let same_but_files = |record: &Self| {
            let (pending_digest, checks_digest) = (key.pending_digest.clone(), key.checks_digest.clone());
            Key { pending_digest, checks_digest, ..record.key.clone() } == *key
        };
        Ok(records
            .iter()
            .filter_map(|bytes| serde_json::from_slice::<Self>(bytes).ok())
            .any(|record| same_but_files(&record)))
    }

    /// The newest record of a push of these files onto a schema; by the digest of what decided what the push
    /// did, or, where nobody noted that, when all that there is of such files is of the same.
    pub fn of_push(
        store: &Store,
        owned_digest: &str,
        (files, pending_digest): (&[String], Option<&str>),
    ) -> Result<Option<Self>, store::Error> {
        let records = store.rehearsals()?;
        let records = records.iter().filter_map(|bytes| serde_json::from_slice::<Self>(bytes).ok());
        let fitting = records
            .filter(|record| record.format == FORMAT && record.key.owned_digest == owned_digest)
            .filter(|record| {
                let of_files = record.effects.iter().filter(|effect| !effect.is_of_seeds());
                let rehearsed: Vec<&String> = of_files.map(|effect| &effect.file).collect();
                match pending_digest {
                    Some(pending_digest) => record.key.pending_digest == pending_digest,
                    None => !files.is_empty() && rehearsed == files.iter().collect::<Vec<_>>(),
                }
            });
        let fitting: Vec<Self> = fitting.collect();
        let contents: BTreeSet<&str> =
            fitting.iter().map(|record| record.key.pending_digest.as_str()).collect();
        if contents.len() > 1 {
            return Ok(None);
        }
        Ok(fitting.into_iter().max_by_key(|record| record.rehearsed_at))
    }

    /// What it says of those files alone that satisfy the condition. How the push went back is only known of
    /// all of them together; what it did to accounts is known where the others left them alone.
    #[must_use]
    pub fn of_files(mut self, stands: impl Fn(&str) -> bool) -> Self {
        let effects = std::mem::take(&mut self.effects);
        // Seeds come after the last file.
        let all_stand = effects.iter().all(|effect| effect.is_of_seeds() || stands(&effect.file));
        let (standing, others): (Vec<FileEffect>, Vec<FileEffect>) = effects
            .into_iter()
            .partition(|effect| if effect.is_of_seeds() { all_stand } else { stands(&effect.file) });
        self.effects = standing;
        if !others.is_empty() {
            // Sequences go to where the snapshot had them, whichever file moved them.
            self.besides.large_objects.clear();
            if writes_accounts(&others) {
                self.besides.managed.clear();
            }
            self.rollbacks.clear();
            self.storage = self.storage.filter(|_| !writes_storage(&others));
        }
        self
    }

    /// The best way back that the rehearsal proved: what was touched, or else everything.
    pub fn way_back(&self) -> Option<&Rehearsed> {
        self.rollbacks.iter().filter(|one| one.failed.is_none()).min_by_key(|one| one.mode)
    }

    /// Why the rehearsal proved no way back, if it proved none.
    pub fn not_exact(&self) -> Option<String> {
        match self.way_back() {
            Some(_) => None,
            None => self.rollbacks.iter().find_map(|one| one.failed.clone()),
        }
    }

    /// Writes the record.
    pub(super) fn save(&self, store: &Store) -> io::Result<()> {
        disk::write_json(&store.rehearsal_file(&self.key.name()), self)
    }
}

/// Digest of counts and contents of all tables that are not the platform's.
pub(super) fn rows_digest(manifest: &Manifest) -> String {
    let mut hasher = Sha256::new();
    for table in manifest.database.tables.iter().filter(|table| table.class != Class::Platform) {
        let content = match &table.content {
            Content::Sum(sum) => sum.as_str(),
            Content::Unhashed(_) => "unhashed",
        };
        hasher.update(format!("{}\t{}\t{content}\n", table.qualified(), table.count));
    }
    hex::encode(hasher.finalize())
}

/// Statements of the pending files that depend on rows, in words. Roles and seeds count as such:
/// nothing is known of their text.
pub(super) fn dependences(pending: &Pending) -> Vec<String> {
    let files = pending.migrations.iter().flat_map(|file| {
        data_dependence(&file.sql).into_iter().map(move |dependence| {
            format!(
                "`{}` line {} (`{}`) {}",
                file.file_name, dependence.line, dependence.statement, dependence.cause
            )
        })
    });
    let seeds = pending.seeds.iter().map(|(path, _)| format!("seed `{path}` may depend on rows"));
    files.chain(seeds).collect()
}
