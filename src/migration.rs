//! Migration files: which are pending, in which order, what their statements can do, and a digest.
//!
//! Order and comparison are those of `supabase db push` (read in 2.122.1 and 3.1.0, and run): files
//! are sorted by version as text and merged with the history, which is compared by version alone.

mod atomicity;
mod dependence;
mod dropped;
mod lent;
mod statements;

pub use atomicity::{NotAtomic, Reason, atomicity};
pub use dependence::{Cause, Dependence, data_dependence};
pub use dropped::dropped_extensions;
pub use lent::is_lent;
pub use statements::{Statement, holds, masked, same_statements, statements};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Versions below this are skipped when they stand first and are called `init`, as the CLI does.
const FIRST_INIT: u64 = 20_211_209_000_000;

/// One file of `supabase/migrations`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationFile {
    /// The digits before the first underscore: what the history knows it by.
    pub version: String,
    /// What stands between the first underscore and `.sql`.
    pub name: String,
    /// The whole file name.
    pub file_name: String,
    /// Its text.
    pub sql: String,
}

impl MigrationFile {
    /// Makes one from a name that fits [`split_file_name`].
    pub fn new(file_name: &str, sql: impl Into<String>) -> Option<Self> {
        let (version, name) = split_file_name(file_name)?;
        Some(Self {
            version: version.to_owned(),
            name: name.to_owned(),
            file_name: file_name.to_owned(),
            sql: sql.into(),
        })
    }
}

/// Splits a file name into version and name: `^([0-9]+)_(.*)\.sql$`, where the dot is no line end.
pub fn split_file_name(file_name: &str) -> Option<(&str, &str)> {
    let (version, rest) = file_name.split_once('_')?;
    let name = rest.strip_suffix(".sql")?;
    let digits = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !name.contains(['\n', '\r', '\u{2028}', '\u{2029}'])).then_some((version, name))
}

/// A file of the migrations folder that the CLI passes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub file_name: String,
    /// Why.
    pub why: &'static str,
}

/// Sorts file names as the CLI lists them, and sets aside those that it skips.
///
/// The listing is in byte order; an old `…_init.sql` is skipped only when it is the very first entry,
/// so `names` has to hold every entry of the folder that is not itself a folder.
pub fn list(mut names: Vec<String>) -> (Vec<String>, Vec<Skipped>) {
    names.sort();
    let mut kept = Vec::new();
    let mut skipped = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        if index == 0 && is_old_init(&name) {
            skipped.push(Skipped { file_name: name, why: "an `init` file of the CLI before December 2021" });
        } else if split_file_name(&name).is_none() {
            skipped.push(Skipped { file_name: name, why: "its name is not `<timestamp>_name.sql`" });
        } else {
            kept.push(name);
        }
    }
    kept.sort_by(|left, right| version_of(left).cmp(version_of(right)));
    (kept, skipped)
}

fn version_of(file_name: &str) -> &str {
    split_file_name(file_name).map_or("", |(version, _)| version)
}

/// `([0-9]{14})_init\.sql` anywhere in the name, with an old timestamp.
fn is_old_init(name: &str) -> bool {
    let Some(at) = name.find("_init.sql") else { return false };
    let digits = name.get(at.saturating_sub(14)..at).unwrap_or_default();
    digits.len() == 14 && digits.parse::<u64>().is_ok_and(|version| version < FIRST_INIT)
}

/// The flags of `supabase db push` that change what runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of another program")]
pub struct Flags {
    /// `--include-all`: files older than the newest applied one run as well.
    pub include_all: bool,
    /// `--include-roles`: `supabase/roles.sql` runs first, at every push.
    pub include_roles: bool,
    /// `--include-seed`: seed files that never ran are run last.
    pub include_seed: bool,
    /// No `--skip-vault`: the vault secrets of the configuration are written before the files.
    pub with_vault: bool,
}

/// Why a push would stop before it changes anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The history names versions that no local file has.
    #[error("the target's history holds versions without a local file: {}", .0.join(", "))]
    MissingLocal(Vec<String>),
    /// Local files are older than the newest applied one, and `--include-all` was not given.
    #[error("local files are older than the newest applied migration: {}", .0.join(", "))]
    OutOfOrder(Vec<String>),
}

/// The files that a push would apply, in its order.
///
/// Both sides are merged in the order of their versions as text; a version that two files share is
/// matched once, and its other file counts as missing on the target.
pub fn compare_history<'a>(
    local: &'a [MigrationFile],
    history: &[String],
    flags: Flags,
) -> Result<Vec<&'a MigrationFile>, HistoryError> {
    let mut files: Vec<&MigrationFile> = local.iter().collect();
    files.sort_by(|left, right| left.version.cmp(&right.version));
    let mut history: Vec<&String> = history.iter().collect();
    history.sort();
    let mut missing_local = Vec::new();
    let mut between = Vec::new();
    let mut applied = history.into_iter().peekable();
    let mut own = files.into_iter().peekable();
    while let (Some(version), Some(file)) = (applied.peek(), own.peek()) {
        match version.as_str().cmp(&file.version) {
            std::cmp::Ordering::Equal => {
                applied.next();
                own.next();
            }
            std::cmp::Ordering::Less => missing_local.extend(applied.next().cloned()),
            std::cmp::Ordering::Greater => between.extend(own.next()),
        }
    }
    missing_local.extend(applied.cloned());
    if !missing_local.is_empty() {
        return Err(HistoryError::MissingLocal(missing_local));
    }
    if !between.is_empty() && !flags.include_all {
        return Err(HistoryError::OutOfOrder(between.iter().map(|file| file.file_name.clone()).collect()));
    }
    between.extend(own);
    Ok(between)
}

/// Everything that decides what a push does to the target, besides the target itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The files that will be applied, in order.
    pub migrations: Vec<MigrationFile>,
    /// Seed files that may run: path from the project's root, SHA-256.
    pub seeds: Vec<(String, String)>,
    /// SHA-256 of `roles.sql`, when it runs.
    pub roles: Option<String>,
    /// SHA-256 of the configuration the CLI is given.
    pub config_sha256: String,
    /// The flags.
    pub flags: Flags,
}

impl Pending {
    /// Whether a push would do nothing at all.
    pub fn is_empty(&self) -> bool {
        self.migrations.is_empty() && self.seeds.is_empty() && self.roles.is_none() && !self.flags.with_vault
    }

    /// Everything that runs, in order, for people. Whether a seed ran before is known to the CLI alone.
    pub fn names(&self) -> Vec<String> {
        let roles = self.roles.iter().map(|_| "supabase/roles.sql".to_owned());
        let migrations = self.migrations.iter().map(|file| file.file_name.clone());
        let seeds = self.seeds.iter().map(|(path, _)| format!("{path} (a seed: runs unless it ran before)"));
        roles.chain(migrations).chain(seeds).collect()
    }

    /// How much runs, such as `roles.sql and 2 files`.
    pub fn in_words(&self) -> String {
        let roles = self.roles.iter().map(|_| "roles.sql".to_owned());
        let counted = |count: usize, word: &str| {
            (count > 0).then(|| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
        };
        let files = counted(self.migrations.len(), "file");
        let seeds = counted(self.seeds.len(), "seed");
        let parts: Vec<String> = roles.chain(files).chain(seeds).collect();
        if parts.is_empty() { "the vault secrets".to_owned() } else { parts.join(" and ") }
    }

    /// SHA-256 over an encoding in which every text carries its length and every list its count, so that
    /// two different values never have the same bytes.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.encoded()))
    }

    fn encoded(&self) -> Vec<u8> {
        let mut out = Encoder(b"supa-safe pending 1\n".to_vec());
        out.count(self.migrations.len());
        for file in &self.migrations {
            out.text(&file.file_name);
            out.text(&file.sql);
        }
        out.count(self.seeds.len());
        for (path, sha256) in &self.seeds {
            out.text(path);
            out.text(sha256);
        }
        out.count(usize::from(self.roles.is_some()));
        out.text(self.roles.as_deref().unwrap_or_default());
        out.text(&self.config_sha256);
        let Flags { include_all, include_roles, include_seed, with_vault } = self.flags;
        out.0.extend([include_all, include_roles, include_seed, with_vault].map(u8::from));
        out.0
    }
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn count(&mut self, count: usize) {
        self.0.extend((count as u64).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files(names: &[&str]) -> Vec<MigrationFile> {
        names.iter().map(|name| MigrationFile::new(name, "select 1").unwrap()).collect()
    }

    #[test]
    fn file_names_follow_the_rule_of_the_cli() {
        assert_eq!(split_file_name("2026_a_b.sql"), Some(("2026", "a_b")));
        assert_eq!(split_file_name("1_.sql"), Some(("1", "")));
        for wrong in ["a_b.sql", "2026.sql", "2026_a.SQL", "_a.sql", "2026_a.sql~", " 1_a.sql", "1_a\nb.sql"]
        {
            assert_eq!(split_file_name(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn listing_sorts_by_version_and_names_what_is_skipped() {
        let names = ["20_b.sql", "3_c.sql", "notes.md", "20_a.sql", "100_a.sql"];
        let (kept, skipped) = list(names.map(str::to_owned).to_vec());
        assert_eq!(kept, ["100_a.sql", "20_a.sql", "20_b.sql", "3_c.sql"]);
        assert_eq!(skipped.len(), 1);

        let old = "20210101000000_init.sql".to_owned();
        assert_eq!(list(vec![old.clone(), "20260101000000_a.sql".to_owned()]).0, ["20260101000000_a.sql"]);
        assert_eq!(list(vec![old.clone(), ".keep".to_owned()]).0, [old]);
        assert_eq!(list(vec!["20220101000000_init.sql".to_owned()]).1, []);
    }

    #[test]
    fn history_is_merged_as_the_cli_does() {
        let check = |local: &[&str], history: &[&str], include_all: bool| {
            let history: Vec<String> = history.iter().map(|&version| version.to_owned()).collect();
            let flags = Flags { include_all, ..Flags::default() };
            compare_history(&files(local), &history, flags)
                .map(|found| found.iter().map(|file| file.file_name.clone()).collect::<Vec<_>>())
        };
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
        let (missing, older) = (HistoryError::MissingLocal, HistoryError::OutOfOrder);
        assert_eq!(check(&["2_b.sql", "1_a.sql"], &[], false), Ok(names(&["1_a.sql", "2_b.sql"])));
        assert_eq!(check(&["1_a.sql", "2_b.sql"], &["1"], false), Ok(names(&["2_b.sql"])));
        assert_eq!(check(&["1_a.sql"], &["1"], false), Ok(vec![]));
        assert_eq!(check(&["2_b.sql"], &["1", "2", "3"], false), Err(missing(names(&["1", "3"]))));
        assert_eq!(check(&["1_a.sql", "2_b.sql", "4_d.sql"], &["2"], false), Err(older(names(&["1_a.sql"]))));
        assert_eq!(
            check(&["1_a.sql", "2_b.sql", "4_d.sql"], &["2"], true),
            Ok(names(&["1_a.sql", "4_d.sql"]))
        );
        assert_eq!(check(&["1_a.sql", "1_b.sql"], &["1"], false), Ok(names(&["1_b.sql"])));
        assert_eq!(
            check(&["1_a.sql", "1_b.sql", "2_c.sql"], &["1", "2"], false),
            Err(older(names(&["1_b.sql"])))
        );
    }

    fn any_pending() -> impl Strategy<Value = Pending> {
        let text = "[ab]{0,2}";
        let file = (text, text).prop_map(|(name, sql)| MigrationFile {
            version: "1".to_owned(),
            file_name: format!("1_{name}.sql"),
            name,
            sql,
        });
        let seeds = prop::collection::vec((text, text), 0..3);
        let all =
            (prop::collection::vec(file, 0..3), seeds, prop::option::of(text), text, any::<[bool; 4]>());
        all.prop_map(|(migrations, seeds, roles, config_sha256, flags)| {
            let [include_all, include_roles, include_seed, with_vault] = flags;
            let flags = Flags { include_all, include_roles, include_seed, with_vault };
            Pending { migrations, seeds, roles, config_sha256, flags }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn different_values_have_different_digests(left in any_pending(), right in any_pending()) {
            prop_assert_eq!(left == right, left.digest() == right.digest());
        }
    }
}
