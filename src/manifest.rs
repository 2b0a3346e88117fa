//! The on-disk record of a snapshot, and of the proofs that were made of it later.
//!
//! A folder without a manifest is no snapshot: the manifest is written last, by rename, and never
//! changed after. Proofs stand beside it, and each names the manifest by its SHA-256, so a changed
//! manifest loses its proofs.

pub mod storage;

use crate::fingerprint::Class;
use crate::target::{Identity, Server};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The version of the folder's format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// The manifest's file name in a snapshot's folder.
pub const FILE: &str = "manifest.json";
/// The list of digests, in the form of `sha256sum -c`.
pub const SUMS_FILE: &str = "SHA256SUMS";

/// A snapshot's name: `<UTC time>-<six hex digits>`, so that names sort by time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

/// A text is not a snapshot's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a snapshot id (such as `20261122T200312Z-1a2b3c`)")]
pub struct BadId(String);

impl SnapshotId {
    /// Makes a name from an instant and a random number.
    ///
    /// The first three of the six digits count parts of a second, 4096 in all, so that names sort as the
    /// instants do within one second too.
    pub fn new(at: Timestamp, random: u16) -> Self {
        let fraction = at.subsec_nanosecond().unsigned_abs() / 244_141;
        Self(format!("{}-{fraction:03x}{:03x}", at.strftime("%Y%m%dT%H%M%SZ"), random & 0x0fff))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SnapshotId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.to_owned());
        let (time, random) = text.split_once('-').ok_or_else(bad)?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let time_is_good = time.len() == 16
            && time.is_char_boundary(8)
            && time.is_char_boundary(9)
            && time.is_char_boundary(15)
            && digits(&time[..8])
            && &time[8..9] == "T"
            && digits(&time[9..15])
            && time.ends_with('Z');
        let random_is_good = random.len() == 6
            && random.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if time_is_good && random_is_good { Ok(Self(text.to_owned())) } else { Err(bad()) }
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = BadId;

    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much was proved of a snapshot; later ones include earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strength {
    /// The manifest was written.
    Recorded,
    /// Every file was read back from disk and has its digest.
    Digested,
    /// The archive was decoded, with as many rows of every table as its snapshot had.
    Decoded,
    /// Decoded, and equal in shape to a snapshot that was restored.
    Succeeded,
    /// Restored into an empty server and found equal in counts, content, and catalog.
    Restored,
}

impl Strength {
    /// The word of the policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Digested => "digested",
            Self::Decoded => "decoded",
            Self::Succeeded => "succeeded",
            Self::Restored => "restored",
        }
    }
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The record of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the folder's format.
    pub format: u32,
    /// The snapshot's name.
    pub id: SnapshotId,
    /// A person's word for it.
    pub label: Option<String>,
    /// Which database it is of.
    pub identity: Identity,
    /// That database's server.
    pub server: Server,
    /// The consistency point: the instant whose state the snapshot holds.
    pub taken: Taken,
    /// The programs that made it.
    pub tools: Vec<Tool>,
    /// The database component.
    pub database: Database,
    /// The other components.
    pub components: Vec<Component>,
    /// What the index of Storage holds, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<storage::Counts>,
    /// Every file of the snapshot but the manifest itself.
    pub files: Vec<FileDigest>,
    /// What was not proved or not captured, for people.
    pub limits: Vec<String>,
}

impl Manifest {
    /// Major version of the programs that wrote the archive; older ones cannot read it.
    pub fn client_major(&self) -> u32 {
        let written_by = self.tools.iter().find(|tool| tool.name == "pg_dump");
        written_by
            .and_then(|tool| tool.version.split('.').next()?.parse().ok())
            .unwrap_or_else(|| self.server.major())
    }
}

/// The consistency point by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// By the target's clock; ages count from here.
    pub target_clock: Timestamp,
    /// By this machine's clock.
    pub local_clock: Timestamp,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it says of itself.
    pub version: String,
}

/// A component other than the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Which one.
    pub name: ComponentName,
    /// Whether it was captured.
    pub state: ComponentState,
    /// What was captured, in words, such as `2 functions`.
    pub summary: String,
    /// What is missing when it is incomplete, in words.
    pub missing: Vec<String>,
}

impl Component {
    /// A component that the target does not have.
    pub fn not_applicable(name: ComponentName) -> Self {
        Self { name, state: ComponentState::NotApplicable, summary: String::new(), missing: Vec::new() }
    }

    /// A component that the person left out.
    pub fn left_out(name: ComponentName) -> Self {
        Self { state: ComponentState::LeftOut, ..Self::not_applicable(name) }
    }
}

/// The components beside the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentName {
    /// Buckets and their objects.
    Storage,
    /// Edge Functions.
    Functions,
    /// Names and digests of the secrets.
    Secrets,
    /// The `supabase` folder, and the project's own settings where the token allows.
    Config,
}

impl ComponentName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Storage, Self::Functions, Self::Secrets, Self::Config];

    /// The word of the policy file and of `--only`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Storage => "storage",
            Self::Functions => "functions",
            Self::Secrets => "secrets",
            Self::Config => "config",
        }
    }
}

impl fmt::Display for ComponentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a component was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentState {
    /// Everything of it is there.
    Complete,
    /// Something of it is missing.
    Incomplete,
    /// The person left it out with `--only`.
    LeftOut,
    /// The target cannot have it: a database given by URL.
    NotApplicable,
}

/// The database component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Digest of the owned part of the fingerprint.
    pub owned_digest: String,
    /// Digest of the archive's table of contents, without object ids and dump numbers.
    pub contents_digest: String,
    /// Every table and materialized view that holds rows.
    pub tables: Vec<TableRows>,
    /// Sequence values, from the archive: sequences do not take part in a snapshot.
    pub sequences: Vec<SequenceValue>,
    /// Large objects.
    pub large_objects: LargeObjects,
    /// Extensions of the database.
    pub extensions: Vec<ExtensionVersion>,
    /// Versions in the migration history.
    pub history: Vec<String>,
    /// Tables whose rows are not in the archive.
    pub gaps: Vec<Gap>,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// The oldest transaction that went on at the consistency point: whatever an older one wrote was
    /// seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon: Option<i64>,
}

/// Rows of one table at the consistency point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRows {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Class of state of its rows.
    pub class: Class,
    /// Exact count.
    pub count: u64,
    /// Content hash.
    pub content: Content,
    /// Whether the rows in the archive give this hash, so that decoding it proves them; else the
    /// server worked it out.
    pub is_hashed_in_archive: bool,
    /// The extension that the table belongs to.
    pub extension: Option<String>,
    /// Numbers that columns had which were dropped before: the others have the rest, in order. Older
    /// snapshots do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Vec<i16>>,
    /// The content hash by another seed, where the rows in the archive gave it. Older snapshots do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// The snapshot from which the rows in the archive were taken over, when the target's were found equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SnapshotId>,
}

impl TableRows {
    /// `schema.name`, each quoted where SQL needs it.
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// The content hash of a table, order of rows aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Sum of the 64-bit hashes of all rows as text.
    Sum(String),
    /// It could not be hashed, and why.
    Unhashed(String),
}

/// A sequence's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceValue {
    /// Qualified name as the archive has it.
    pub name: String,
    /// `last_value`.
    pub value: i64,
    /// `is_called`.
    pub is_called: bool,
}

/// Large objects, together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargeObjects {
    /// How many.
    pub count: u64,
    /// Hash over their ids and contents.
    pub hash: String,
}

/// An extension of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtensionVersion {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
}

/// A table whose rows are not in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Class of state of its rows.
    pub class: Class,
    /// Why.
    pub why: String,
}

impl Gap {
    /// `schema.name`, each quoted where SQL needs it.
    pub fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// A file of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Path in the snapshot's folder.
    pub path: String,
    /// SHA-256, lowercase hex.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// A verification of a snapshot, in `proofs/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// SHA-256 of the manifest that was verified.
    pub manifest_sha256: String,
    /// What was proved.
    pub strength: Strength,
    /// When, by this machine's clock.
    pub proved_at: Timestamp,
    /// The snapshot whose restore stands for this one, at [`Strength::Succeeded`].
    pub successor_of: Option<SnapshotId>,
    /// What the proof leaves open, for people.
    pub limits: Vec<String>,
}

/// Damage that a verification found, in `proofs/`; a later proof takes it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// When, by this machine's clock.
    pub found_at: Timestamp,
    /// What, in words.
    pub what: Vec<String>,
}

/// `schema.name`, each quoted where SQL needs it.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// An SQL identifier, quoted when it is not plain lowercase.
///
/// Key words are not quoted: the result is for people and for comparing names, not for SQL.
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { quote_identifier(name) }
}

/// An SQL identifier in double quotes.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_and_nonsense_is_not() {
        let id = |at: &str, random| SnapshotId::new(at.parse().unwrap(), random);
        let early = id("2026-11-22T20:03:12.1Z", 0xfb3c);
        assert_eq!(early.as_str(), "20261122T200312Z-199b3c");
        let late = id("2026-11-22T20:03:12.999999999Z", 0);
        assert_eq!(late.as_str(), "20261122T200312Z-fff000");
        assert!(id("2026-11-22T20:03:12Z", 0x0fff) < early && early < late);
        assert_eq!(early.as_str().parse(), Ok(early));
        for bad in [
            "",
            "x",
            "../../etc-1a2b3c",
            "20261122T200312Z-1a2b3",
            "20261122T200312Z-1A2B3C",
            "2026112éT00312Z-1a2b3c",
        ] {
            assert_eq!(bad.parse::<SnapshotId>(), Err(BadId(bad.to_owned())));
        }
    }

    #[test]
    fn strengths_are_in_order() {
        use Strength::{Decoded, Digested, Recorded, Restored, Succeeded};
        assert!(Recorded < Digested && Digested < Decoded && Decoded < Succeeded && Succeeded < Restored);
    }

    #[test]
    fn names_are_quoted_where_needed() {
        assert_eq!(qualified("public", "Weird \"t\""), "public.\"Weird \"\"t\"\"\"");
    }
}
