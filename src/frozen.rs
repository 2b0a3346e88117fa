//! The frozen copy of a project: what rehearsal and push run from, so that both run the same.
//!
//! It holds the migrations, and, as the flags want it, the roles file and the seed files. Its
//! configuration is written anew from the settings that a push reads, with those of the target's
//! `[remotes.*]` merged in: the CLI does not merge them when it is given a URL, and it refuses a whole
//! configuration without the templates and keys that other sections name. `.env` files stay out, so
//! an application's environment cannot redirect a push.

mod project;
mod seeds;
mod source;

pub use project::{Config, Project, Settings};

use crate::disk;
use crate::migration::{self, Flags, HistoryError, MigrationFile, Pending, Skipped};
use crate::target::{BadRef, ProjectRef};
use fs_err as fs;
use source::{Content, Source};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What the copied configuration is called.
const CONFIG: &str = "supabase/config.toml";
/// The custom roles.
pub const ROLES: &str = "supabase/roles.sql";
/// The folder of the migrations.
const MIGRATIONS: &str = "supabase/migrations";
/// The folder of the user's own checks.
const CHECKS: &str = "supabase/checks";

/// Why a project cannot be frozen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No project was found.
    #[error("no Supabase project: `{}` has no `supabase/config.toml`{}", .start.display(),
        if *.upward { ", nor has a folder above it" } else { "" })]
    NoProject {
        /// Where the search began.
        start: PathBuf,
        /// Whether the folders above were searched too.
        upward: bool,
    },
    /// Major 2 reads the TOML form only.
    #[error("`{}` has no `config.toml`, the only configuration that supabase 2 reads", .dir.display())]
    NeedsToml {
        /// The folder.
        dir: PathBuf,
    },
    /// Both JSON forms are there.
    #[error("both `{}` and `{}` are there; supabase refuses that", .first.display(), .second.display())]
    TwoConfigs {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The configuration cannot be parsed.
    #[error("`{}` cannot be read: {why}", .path.display())]
    BrokenConfig {
        /// The file.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
    /// A setting that a push reads has a value that is not understood.
    #[error("`{setting}` in `{}` {why}", .path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The setting.
        setting: String,
        /// Why.
        why: &'static str,
    },
    /// A `[remotes.*]` has something else than a ref.
    #[error("[remotes.{name}] in `{}` has no project ref", .path.display())]
    Remote {
        /// The file.
        path: PathBuf,
        /// The remote.
        name: String,
        /// Why.
        #[source]
        source: BadRef,
    },
    /// Two of the `[remotes.*]` have one ref.
    #[error("`{}` gives `{project_ref}` to both [remotes.{}] and [remotes.{}]; supabase refuses that", .path.display(), .names.0, .names.1)]
    SharedRef {
        /// The file.
        path: PathBuf,
        /// The two.
        names: (String, String),
        /// The ref.
        project_ref: ProjectRef,
    },
    /// A seed path cannot be part of the copy.
    #[error("the seed path `{pattern}` leaves the project; a frozen copy holds only files inside of it")]
    SeedOutside {
        /// The path as configured.
        pattern: String,
    },
    /// A file that would be pushed is no file.
    #[error("`{path}` is not a file that can be read")]
    NoFile {
        /// Path from the project's root.
        path: String,
        /// Why.
        #[source]
        source: Option<io::Error>,
    },
    /// A file is not text that the CLI passes on unchanged.
    #[error("`{path}` is not valid UTF-8, which supabase would change on its way")]
    NotUtf8 {
        /// Path from the project's root.
        path: String,
    },
    /// The copy was changed after it was made.
    #[error("the frozen copy was changed: {}", list(.0))]
    Tampered(Vec<Change>),
    /// Reading the project failed.
    #[error("cannot read the project")]
    Read(#[source] io::Error),
    /// Writing the copy failed.
    #[error("cannot write the frozen copy")]
    Write(#[source] io::Error),
}

fn list(changes: &[Change]) -> String {
    let shown = |change: &Change| format!("`{}` was {}", change.path, change.what.as_str());
    changes.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// A file that is not as it was when the copy was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path from the project's root.
    pub path: String,
    /// What happened to it.
    pub what: Changed,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Its content is another one.
    Edited,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl Changed {
    /// The word for a message.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// For which push a copy is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Its flags.
    pub flags: Flags,
    /// The CLI's major version.
    pub major: u32,
    /// The target's project ref, which chooses among `[remotes.*]`.
    pub project_ref: Option<ProjectRef>,
}

/// A copy of what a push reads, and its digests.
#[derive(Clone, Debug)]
pub struct Frozen {
    dir: PathBuf,
    want: Want,
    config_path: String,
    files: BTreeMap<String, String>,
    migrations: Vec<MigrationFile>,
    checks: Vec<(String, String)>,
    seeds: Vec<String>,
    settings: Settings,
    /// Files of the migrations folder that the CLI passes over.
    pub skipped: Vec<Skipped>,
    /// Seed patterns that match no file.
    pub unmatched_seeds: Vec<String>,
}

/// Copies what a push reads into `<into>/supabase`, read-only, and reads the copy back.
pub fn freeze(project: &Project, into: &Path, want: &Want) -> Result<Frozen, Error> {
    let source = Source::read(project, want)?;
    for dir in [MIGRATIONS, CHECKS] {
        disk::make_private_dir(&into.join(dir)).map_err(Error::Write)?;
    }
    let mut files = BTreeMap::new();
    for (path, content) in &source.files {
        let to = into.join(path);
        match content {
            Content::Copy(from) => disk::copy_file(from, &to).map_err(|source| no_file(path, source))?,
            Content::Text(text) => disk::write(&to, text.as_bytes()).map_err(Error::Write)?,
        }
        files.insert(path.clone(), disk::sha256_file(&to).map_err(Error::Write)?.0);
    }
    disk::sync_tree(into).map_err(Error::Write)?;
    disk::make_read_only(into).map_err(Error::Write)?;
    let text = |path: String| {
        let bytes = fs::read(into.join(&path)).map_err(Error::Write)?;
        String::from_utf8(bytes).map_err(|_| Error::NotUtf8 { path })
    };
    let mut migrations = Vec::new();
    for name in &source.migrations {
        migrations.extend(MigrationFile::new(name, text(format!("{MIGRATIONS}/{name}"))?));
    }
    let mut checks = Vec::new();
    for name in source.checks {
        let sql = text(format!("{CHECKS}/{name}"))?;
        checks.push((name, sql));
    }
    for path in source.seeds.iter().map(String::as_str).chain([ROLES]) {
        if files.contains_key(path) {
            text(path.to_owned())?;
        }
    }
    Ok(Frozen {
        dir: into.to_owned(),
        want: want.clone(),
        config_path: source.config_path,
        files,
        migrations,
        checks,
        seeds: source.seeds,
        settings: source.settings,
        skipped: source.skipped,
        unmatched_seeds: source.unmatched_seeds,
    })
}

impl Frozen {
    /// The folder to give to the CLI as `--workdir`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// For which push it was made.
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// The text of a file of the copy; the path begins at the project's root.
    pub fn text(&self, path: &str) -> io::Result<String> {
        fs_err::read_to_string(self.dir.join(path))
    }

    /// Every migration file, in the CLI's order.
    pub fn migrations(&self) -> &[MigrationFile] {
        &self.migrations
    }

    /// The user's own checks: name and query.
    pub fn checks(&self) -> &[(String, String)] {
        &self.checks
    }

    /// An empty folder for the CLI to run in, beside the copy: what a dead run leaves there is
    /// removed with it.
    pub fn empty_dir(&self) -> io::Result<tempfile::TempDir> {
        tempfile::tempdir_in(self.dir.parent().unwrap_or(&self.dir))
    }

    /// Digest of the user's own checks.
    pub fn checks_digest(&self) -> String {
        let digests =
            self.checks.iter().map(|(name, query)| format!("{} {name}\n", disk::sha256(query.as_bytes())));
        disk::sha256(digests.collect::<String>().as_bytes())
    }

    /// The settings that the copy was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a push would do to a target with this history.
    pub fn pending(&self, history: &[String]) -> Result<Pending, HistoryError> {
        let digest = |path: &str| self.files.get(path).cloned();
        let mut migrations = Vec::new();
        if self.settings.migrations_enabled {
            let files = migration::compare_history(&self.migrations, history, self.want.flags)?;
            migrations.extend(files.into_iter().cloned());
        }
        let seeds = self.seeds.iter().filter_map(|path| Some((path.clone(), digest(path)?))).collect();
        Ok(Pending {
            migrations,
            seeds,
            roles: digest(ROLES),
            config_sha256: digest(CONFIG).unwrap_or_default(),
            flags: self.want.flags,
        })
    }

    /// What changed in the project since the copy was made; empty when a new copy would be equal.
    pub fn still_matches(&self, project: &Project) -> Result<Vec<Change>, Error> {
        let source = Source::read(project, &self.want)?;
        let mut now = BTreeMap::new();
        for (path, content) in &source.files {
            let digest = match content {
                Content::Copy(from) => disk::sha256_file(from).map_err(|source| no_file(path, source))?.0,
                Content::Text(text) => disk::sha256(text.as_bytes()),
            };
            now.insert(path.clone(), digest);
        }
        let mut changes = differences(&self.files, &now);
        changes.retain(|change| match change.path.strip_prefix(MIGRATIONS) {
            Some(name) => migration::split_file_name(name.trim_start_matches('/')).is_some(),
            None => true,
        });
        for change in &mut changes {
            if change.path == CONFIG {
                change.path.clone_from(&self.config_path);
            }
        }
        Ok(changes)
    }

    /// Proves that the copy is still the one that was made.
    pub fn verify_copy(&self) -> Result<(), Error> {
        let mut now = BTreeMap::new();
        for path in disk::files_below(&self.dir).map_err(Error::Read)? {
            let digest = disk::sha256_file(&self.dir.join(&path)).map_err(Error::Read)?.0;
            now.insert(path.to_string_lossy().into_owned(), digest);
        }
        let changes = differences(&self.files, &now);
        if changes.is_empty() { Ok(()) } else { Err(Error::Tampered(changes)) }
    }
}

fn differences(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<Change> {
    let change = |path: &String, what| Change { path: path.clone(), what };
    let mut found = Vec::new();
    for (path, digest) in then {
        match now.get(path) {
            None => found.push(change(path, Changed::Removed)),
            Some(other) if other != digest => found.push(change(path, Changed::Edited)),
            Some(_) => {}
        }
    }
    let added = now.keys().filter(|path| !then.contains_key(*path));
    found.extend(added.map(|path| change(path, Changed::Added)));
    found
}

fn no_file(path: &str, source: io::Error) -> Error {
    Error::NoFile { path: path.to_owned(), source: Some(source) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct World {
        dir: tempfile::TempDir,
    }

    impl World {
        fn new(files: &[(&str, &str)]) -> Self {
            let world = Self { dir: tempfile::tempdir().unwrap() };
            for (path, text) in files {
                world.put(path, text);
            }
            world
        }

        fn path(&self, path: &str) -> PathBuf {
            self.dir.path().join(path)
        }

        fn put(&self, path: &str, text: &str) {
            disk::make_private_dir(self.path(path).parent().unwrap()).unwrap();
            disk::write(&self.path(path), text.as_bytes()).unwrap();
        }

        fn project(&self) -> Project {
            Project::find(Some(Path::new("app")), self.dir.path()).unwrap()
        }

        fn freeze(&self, want: &Want) -> Result<Frozen, Error> {
            let into = tempfile::Builder::new().tempdir_in(self.dir.path()).unwrap().keep();
            freeze(&self.project(), &into, want)
        }
    }

    const MINIMAL: [(&str, &str); 3] = [
        ("app/supabase/config.toml", "project_id = 'x'\n[auth]\nsite_url = 'env(URL)'\n"),
        ("app/supabase/migrations/2_b.sql", "select 2;"),
        ("app/supabase/migrations/1_a.sql", "select 1;"),
    ];

    fn want(flags: Flags, major: u32) -> Want {
        Want { flags, major, project_ref: None }
    }

    fn everything() -> Flags {
        Flags { include_all: true, include_roles: true, include_seed: true, with_vault: true }
    }

    #[test]
    fn a_copy_holds_what_a_push_reads_and_nothing_else() {
        let world = World::new(&MINIMAL);
        for (path, text) in [
            ("app/.env", "SUPABASE_PROJECT_ID=zzz"),
            ("app/supabase/.env", "X=1"),
            ("app/supabase/.temp/project-ref", "abc"),
            ("app/supabase/functions/f/index.ts", ""),
            ("app/supabase/migrations/notes.md", "hello"),
            ("app/supabase/roles.sql", "create role r;"),
            ("app/supabase/seed.sql", "select 3;"),
            ("app/supabase/checks/orphans.sql", "select 1 where false"),
        ] {
            world.put(path, text);
        }
        let frozen = world.freeze(&want(everything(), 3)).unwrap();
        let files: Vec<String> =
            disk::files_below(frozen.dir()).unwrap().iter().map(|path| path.display().to_string()).collect();
        assert_eq!(
            files,
            [
                "supabase/checks/orphans.sql",
                "supabase/config.toml",
                "supabase/migrations/1_a.sql",
                "supabase/migrations/2_b.sql",
                "supabase/migrations/notes.md",
                "supabase/roles.sql",
                "supabase/seed.sql",
            ]
        );
        let config = fs::read_to_string(frozen.dir().join(CONFIG)).unwrap();
        assert!(!config.contains("auth") && config.contains("sql_paths = [\"./seed.sql\"]"), "{config}");
        let pending = frozen.pending(&["1".to_owned()]).unwrap();
        assert_eq!(pending.migrations[0].file_name, "2_b.sql");
        assert_eq!(pending.seeds[0], ("supabase/seed.sql".to_owned(), disk::sha256(b"select 3;")));
        assert_eq!(pending.roles, Some(disk::sha256(b"create role r;")));
        assert_eq!(frozen.checks()[0].0, "orphans.sql");
        frozen.verify_copy().unwrap();
    }

    #[test]
    fn what_changed_since_is_named() {
        let world = World::new(&MINIMAL);
        world.put("app/supabase/seed.sql", "select 3;");
        let frozen = world.freeze(&want(everything(), 3)).unwrap();
        let changes = || list(&frozen.still_matches(&world.project()).unwrap());
        assert_eq!(changes(), "");
        world.put("app/supabase/config.toml", "project_id = 'x'\n[auth]\nsite_url = 'other'\n");
        world.put("app/supabase/migrations/README.md", "x");
        assert_eq!(changes(), "", "neither can change what a push does");

        world.put("app/supabase/migrations/2_b.sql", "select 22;");
        world.put("app/supabase/migrations/3_c.sql", "select 3;");
        fs::remove_file(world.path("app/supabase/migrations/1_a.sql")).unwrap();
        world.put("app/supabase/config.toml", "project_id = 'x'\n[db.seed]\nsql_paths = []\n");
        assert_eq!(
            changes(),
            "`supabase/config.toml` was edited, `supabase/migrations/1_a.sql` was removed, \
             `supabase/migrations/2_b.sql` was edited, `supabase/seed.sql` was removed, \
             `supabase/migrations/3_c.sql` was added"
        );
    }

    #[test]
    fn a_touched_copy_is_noticed() {
        let world = World::new(&MINIMAL);
        let frozen = world.freeze(&want(Flags::default(), 3)).unwrap();
        fs::remove_file(frozen.dir().join("supabase/migrations/1_a.sql")).unwrap();
        disk::write(&frozen.dir().join("supabase/.env"), b"X=1").unwrap();
        assert_eq!(
            frozen.verify_copy().unwrap_err().to_string(),
            "the frozen copy was changed: `supabase/migrations/1_a.sql` was removed, `supabase/.env` was added"
        );
    }

    #[test]
    fn seeds_are_those_of_the_target() {
        let world = World::new(&MINIMAL);
        world.put(
            "app/supabase/config.toml",
            "[db.seed]\nenabled = false\nsql_paths = ['./s/*.sql', '../more', './none.sql']\n\
             [remotes.p]\nproject_id = 'pppppppppppppppppppp'\n[remotes.p.db.seed]\nenabled = true\nsql_paths = ['../more/[x].sql']\n",
        );
        for path in ["app/supabase/s/b.sql", "app/supabase/s/a.sql", "app/more/d/[x].sql", "app/more/x.sql"] {
            world.put(path, "");
        }
        let seeds = |major: u32, project_ref: Option<&str>| {
            let want = Want {
                project_ref: project_ref.and_then(|text| text.parse().ok()),
                ..want(everything(), major)
            };
            world.freeze(&want).unwrap().seeds
        };
        assert_eq!(seeds(2, None), [""; 0]);
        assert_eq!(seeds(2, Some("pppppppppppppppppppp")), ["more/x.sql"]);
        let all = ["supabase/s/a.sql", "supabase/s/b.sql", "more/d/[x].sql", "more/x.sql"];
        assert_eq!(seeds(3, None), all);
    }

    #[test]
    fn links_are_followed_or_refused() {
        let world = World::new(&MINIMAL);
        world.put("elsewhere.sql", "select 3;");
        symlink(world.path("elsewhere.sql"), world.path("app/supabase/migrations/3_c.sql")).unwrap();
        let frozen = world.freeze(&want(Flags::default(), 3)).unwrap();
        assert_eq!(frozen.migrations()[2].sql, "select 3;");
        assert!(!frozen.dir().join("supabase/migrations/3_c.sql").is_symlink());

        symlink("nowhere", world.path("app/supabase/migrations/4_d.sql")).unwrap();
        let error = world.freeze(&want(Flags::default(), 3)).unwrap_err();
        assert_eq!(error.to_string(), "`supabase/migrations/4_d.sql` is not a file that can be read");
    }

    #[test]
    fn what_cannot_be_pushed_as_it_is_is_refused() {
        let message = |files: &[(&str, &str)], major: u32| {
            let world = World::new(files);
            world
                .freeze(&want(everything(), major))
                .unwrap_err()
                .to_string()
                .replace(&*world.dir.path().to_string_lossy(), "")
        };
        assert_eq!(
            message(&[("app/supabase/config.toml", "[db.seed]\nsql_paths = ['../../x.sql']")], 3),
            "the seed path `../../x.sql` leaves the project; a frozen copy holds only files inside of it"
        );
        assert_eq!(
            message(&[("app/supabase/config.json", "{}")], 2),
            "`/app/supabase` has no `config.toml`, the only configuration that supabase 2 reads"
        );
        assert_eq!(
            message(&[("app/supabase/config.json", "{}"), ("app/supabase/config.jsonc", "{}")], 3),
            "both `/app/supabase/config.json` and `/app/supabase/config.jsonc` are there; supabase refuses that"
        );
        assert_eq!(
            message(&[("app/supabase/config.toml", "[db.seed]\nenabled = 'env(X)'")], 3),
            "`db.seed.enabled` in `/app/supabase/config.toml` is not true or false"
        );
    }

    #[test]
    fn a_project_is_found_from_below() {
        let world = World::new(&MINIMAL);
        let below = world.path("app/supabase/migrations");
        assert_eq!(Project::find(None, &below).unwrap().root, world.path("app"));
        let error = Project::find(Some(Path::new(".")), &below).unwrap_err().to_string();
        assert!(error.ends_with("has no `supabase/config.toml`"), "{error}");
    }
}
