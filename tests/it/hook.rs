//! The git pre-push hook, with real git: what it judges, and whose hooks it leaves alone.

mod asked;
mod before;
mod layouts;
mod managers;

use crate::world::{Cli, Major, Ran, World, script};
use fs_err as fs;
use snapbox::{assert_data_eq, str};
use std::ffi::OsStr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

const TABLE: (&str, &str) = ("20260101000000_notes", "create table public.notes (id int primary key);");

/// A repository around the project of a world, with a remote that has its first commit on `main`.
struct Repository {
    world: World,
    dir: PathBuf,
}

impl Repository {
    /// Around a project whose target does not answer: what is judged is refused.
    fn offline() -> Self {
        let mut world = World::new(Major::Pg17, Cli::V3);
        world.write("supabase/config.toml", "project_id = \"test\"\n");
        world.set("SUPA_SAFE_DB_URL", "postgresql://postgres@127.0.0.1:1/postgres");
        Self::around(world)
    }

    fn around(mut world: World) -> Self {
        let own = Path::new(env!("CARGO_BIN_EXE_supa-safe")).parent().unwrap();
        let path = format!("{}:{}", own.display(), world.variable("PATH").display());
        world.set("PATH", path);
        world.set("GIT_CONFIG_NOSYSTEM", "1");
        let dir = world.path("app");
        let repository = Self { world, dir };
        repository.config(&[
            ("user.name", "Test"),
            ("user.email", "test@example.com"),
            ("init.defaultBranch", "main"),
        ]);
        repository.config(&[("protocol.file.allow", "always"), ("advice.ignoredHook", "false")]);
        drop(repository.git(["init", "--quiet"]).exits(0));
        let remote = repository.world.path("remote.git");
        drop(
            repository
                .git([OsStr::new("init"), "--quiet".as_ref(), "--bare".as_ref(), remote.as_ref()])
                .exits(0),
        );
        drop(
            repository
                .git([OsStr::new("remote"), "add".as_ref(), "origin".as_ref(), remote.as_ref()])
                .exits(0),
        );
        repository.commit();
        drop(repository.git(["push", "--quiet", "origin", "main"]).exits(0));
        repository
    }

    fn config(&self, settings: &[(&str, &str)]) {
        for (name, value) in settings {
            drop(self.git(["config", "--global", name, value]).exits(0));
        }
    }

    /// Runs git at the top of the work tree.
    fn git<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        self.git_in(&self.dir, args)
    }

    fn git_in<S: AsRef<OsStr>>(&self, dir: &Path, args: impl IntoIterator<Item = S>) -> Ran {
        self.world.finish(self.world.program("git").args(args).current_dir(dir))
    }

    fn hook(&self, what: &str) -> Ran {
        self.world.finish(self.world.command().args(["hook", what]).current_dir(&self.dir))
    }

    fn installed(self) -> Self {
        drop(self.hook("install").exits(0));
        self
    }

    /// Commits everything that was written.
    fn commit(&self) {
        drop(self.git(["add", "--all"]).exits(0));
        drop(self.git(["commit", "--quiet", "--allow-empty", "--message", "more"]).exits(0));
    }

    /// Commits a migration.
    fn migration(&self, number: u32) {
        self.world.migration(&format!("2026010100000{number}_m{number}"), "select 1;");
        self.commit();
    }

    /// Commits something else.
    fn other(&self, text: &str) {
        self.world.write("README.md", text);
        self.commit();
    }

    /// What a branch of the remote is.
    fn remote(&self, reference: &str) -> String {
        let git_dir = self.world.path("remote.git").display().to_string();
        self.git(["--git-dir", &git_dir, "rev-parse", "--verify", "--quiet", reference]).stdout
    }

    fn head(&self) -> String {
        self.git(["rev-parse", "HEAD"]).stdout
    }

    fn file(&self) -> PathBuf {
        self.dir.join(".git/hooks/pre-push")
    }

    #[track_caller]
    fn passes<const N: usize>(&self, args: [&str; N]) {
        drop(self.git(["push", "--quiet"].iter().chain(&args)).exits(0));
    }

    /// The hook tried to judge, and nobody answered: the push did not happen.
    #[track_caller]
    fn is_judged<const N: usize>(&self, args: [&str; N]) {
        let before = self.git(["ls-remote", "origin"]).stdout;
        let ran = self.git(["push", "--quiet"].iter().chain(&args)).exits(1);
        let error = ran.lines("error: ");
        assert_eq!(error[0], "error: `127.0.0.1:1` does not answer", "{ran}");
        assert_eq!(self.git(["ls-remote", "origin"]).stdout, before);
    }
}

#[test]
fn a_push_of_migrations_needs_their_evidence() {
    let repository = Repository::around(World::hosted(&[])).installed();
    let world = &repository.world;
    world.migration(TABLE.0, TABLE.1);
    repository.commit();
    let refused = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_data_eq!(
        refused.failure(),
        str![[r#"
error: the policy refuses this push; the target was not touched
  [SS001] there is no snapshot of `[TARGET]`
  git was about to push supabase/migrations/ of [..] to main of origin
hint: Run `supa-safe snapshot`
hint: Run `supa-safe explain SS001` to read why
hint: `supa-safe rehearse` takes a snapshot and rehearses the files of the work tree; then push again
error: failed to push some refs to '[ROOT]/remote.git'

"#]]
    );

    drop(world.run(["snapshot"]).exits(0));
    let refused = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_eq!(refused.lines("[SS").len(), 1);
    assert!(refused.lines("[SS009]").len() == 1, "{refused}");

    drop(world.run(["rehearse"]).exits(0));
    // The work tree says something else than the commit, which is what counts.
    world.migration(TABLE.0, "drop table everything;");
    drop(repository.git(["push", "--quiet", "origin", "main"]).exits(0));
    assert_eq!(repository.remote("main"), repository.head());

    // Rehearsed files, and another commit is pushed.
    drop(repository.git(["checkout", "--quiet", "."]).exits(0));
    world.migration("20260102000000_more", "create table public.more (id int);");
    repository.commit();
    let refused = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_eq!(refused.lines("[SS").len(), 1);
    assert_eq!(refused.lines("[SS008]").len(), 1, "{refused}");
    let next = "hint: Run `supa-safe migrate`, which rehearses, or `supa-safe rehearse`";
    assert_eq!(refused.lines("hint: ")[0], next);
}

#[test]
fn a_push_of_what_the_target_has_needs_no_evidence() {
    let repository = Repository::around(World::hosted(&[TABLE])).installed();
    let world = &repository.world;
    drop(world.migrate(&["--max-age", "1h"]).exits(0));
    fs::remove_dir_all(world.store().join("snapshots")).unwrap();
    world.migration("20260102000000_more", "create table public.more (id int);");
    repository.commit();
    drop(repository.git(["push", "--quiet", "origin", "main~1:refs/heads/production"]).exits(0));
    let ran = repository.git(["push", "origin", "main"]).exits(1);
    assert_eq!(ran.lines("[SS001]").len(), 1, "{ran}");

    // An applied file that says something else now is never right.
    world.remove("supabase/migrations/20260102000000_more.sql");
    world.migration(TABLE.0, "create table public.notes (id bigint primary key);");
    repository.commit();
    let ran = repository.git(["push", "origin", "main"]).exits(1);
    assert_eq!(ran.lines("[SS").len(), 1, "{ran}");
    assert_eq!(ran.lines("[SS013]").len(), 1, "{ran}");
}

#[test]
fn only_migrations_to_a_watched_branch_are_judged() {
    let repository = Repository::offline().installed();
    repository.other("one");
    repository.passes(["origin", "main"]);
    repository.migration(1);
    repository.is_judged(["origin", "main"]);
    repository.is_judged(["origin", "HEAD:refs/heads/production"]);
    repository.passes(["origin", "HEAD:refs/heads/feature"]);
    repository.passes(["origin", "HEAD:refs/tags/v1"]);
    repository.passes(["origin", "--delete", "feature"]);
    repository.passes(["--no-verify", "origin", "main"]);
    assert_eq!(repository.remote("main"), repository.head());
    repository.other("two");
    repository.passes(["origin", "main"]);

    // A migration that is taken away is a change too.
    repository.world.remove("supabase/migrations/20260101000001_m1.sql");
    repository.commit();
    repository.is_judged(["origin", "main"]);
}

#[test]
fn nobody_answers_and_the_person_may_choose() {
    let repository = Repository::offline().installed();
    repository.migration(1);
    let refused = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_data_eq!(
        refused.failure(),
        str![[r#"
error: `127.0.0.1:1` does not answer
  caused by: Connection refused (os error 111)
hint: Check host and port, that the database is running, and that no firewall or network restriction is between
hint: `git push --no-verify` skips every hook, and nothing is judged; that is your choice
error: failed to push some refs to '[ROOT]/remote.git'

"#]]
    );
}

#[test]
fn a_new_branch_is_judged_with_all_that_it_carries() {
    let repository = Repository::offline().installed();
    // Without migrations there is nothing to judge.
    repository.passes(["origin", "main:refs/heads/master"]);
    repository.passes(["origin", "--delete", "master"]);
    repository.migration(1);
    repository.passes(["--no-verify", "origin", "main"]);
    repository.passes(["origin", "main:refs/heads/feature"]);
    // main and feature have it, and nobody judged it there.
    repository.is_judged(["origin", "main:refs/heads/production"]);
    repository.passes(["--no-verify", "origin", "main:refs/heads/production"]);
    repository.other("one");
    repository.passes(["origin", "main:refs/heads/production"]);
}

/// git hands these down to its hooks, where they would give patterns another meaning.
#[test]
fn words_about_pathspecs_do_not_blind_the_hook() {
    let repository = Repository::offline().installed();
    repository.migration(1);
    let before = repository.remote("main");
    for word in ["--literal-pathspecs", "--noglob-pathspecs", "--glob-pathspecs", "--icase-pathspecs"] {
        drop(repository.git([word, "push", "--quiet", "origin", "main"]).exits(1));
        assert_eq!(repository.remote("main"), before, "{word}");
    }
}

#[test]
fn migrations_behind_links_are_judged() {
    // The folder of the migrations is a link.
    let repository = Repository::offline().installed();
    let app = repository.dir.clone();
    fs::create_dir_all(app.join("sql")).unwrap();
    symlink("../sql", app.join("supabase/migrations")).unwrap();
    repository.world.write("sql/README", "none yet");
    repository.commit();
    repository.is_judged(["origin", "main"]);
    repository.passes(["--no-verify", "origin", "main"]);
    repository.other("one");
    repository.passes(["origin", "main"]);
    repository.world.write("sql/20260101000001_a.sql", "select 1;");
    repository.commit();
    repository.is_judged(["origin", "main"]);
    repository.is_judged(["origin", "main:refs/heads/production"]);
    repository.passes(["origin", "main:refs/heads/feature"]);

    // The whole folder is one, and its policy counts.
    let repository = Repository::offline().installed();
    let app = repository.dir.clone();
    fs::rename(app.join("supabase"), app.join("db")).unwrap();
    symlink("db", app.join("supabase")).unwrap();
    repository.world.write("db/supa-safe.toml", "[hook]\nbranches = [\"live\"]\n");
    repository.world.write("db/migrations/20260101000001_a.sql", "select 1;");
    repository.commit();
    repository.passes(["origin", "main"]);
    repository.is_judged(["origin", "main:refs/heads/live"]);
}

/// What is judged behind links are the files of the pushed commit.
#[test]
fn a_commit_behind_links_is_read_whole() {
    let repository = Repository::around(World::hosted(&[TABLE]));
    let app = repository.dir.clone();
    fs::rename(app.join("supabase"), app.join("db")).unwrap();
    fs::rename(app.join("db/migrations"), app.join("sql")).unwrap();
    symlink("db", app.join("supabase")).unwrap();
    symlink("../sql", app.join("db/migrations")).unwrap();
    repository.commit();
    let repository = repository.installed();
    drop(repository.world.run(["rehearse"]).exits(0));
    let ran = repository.git(["push", "origin", "main"]).exits(0);
    assert_eq!(ran.lines("1 file of the pushed commit: snapshot and rehearsal hold").len(), 1, "{ran}");
    assert_eq!(ran.lines("project folder: ").len(), 0, "{ran}");
    repository.world.write("sql/20260102000000_more.sql", "select 1;");
    repository.commit();
    let ran = repository.git(["push", "origin", "main"]).exits(1);
    assert_eq!(ran.lines("[SS008]").len(), 1, "{ran}");
}

#[test]
fn a_forced_push_is_compared_with_what_it_replaces() {
    let repository = Repository::offline().installed();
    repository.migration(1);
    repository.other("one");
    repository.passes(["--no-verify", "origin", "main"]);
    drop(repository.git(["commit", "--quiet", "--amend", "--message", "two"]).exits(0));
    repository.passes(["--force", "origin", "main"]);
    drop(repository.git(["reset", "--quiet", "--hard", "HEAD~2"]).exits(0));
    repository.is_judged(["--force", "origin", "main"]);

    // Somebody else pushed, and what they pushed is not here.
    let other = repository.world.path("other");
    let remote = repository.world.path("remote.git");
    drop(repository.git([OsStr::new("clone"), "--quiet".as_ref(), remote.as_ref(), other.as_ref()]).exits(0));
    drop(repository.git_in(&other, ["commit", "--quiet", "--allow-empty", "--message", "x"]).exits(0));
    drop(repository.git_in(&other, ["push", "--quiet", "origin", "main"]).exits(0));
    repository.migration(3);
    repository.is_judged(["--force", "origin", "main"]);
}

#[test]
fn the_policy_lists_the_branches() {
    let repository = Repository::offline().installed();
    repository.world.write("supabase/supa-safe.toml", "[hook]\nbranches = [\"release/*\"]\n");
    repository.migration(1);
    repository.passes(["origin", "main"]);
    repository.passes(["origin", "main:refs/heads/releases"]);
    repository.is_judged(["origin", "main:refs/heads/release/1"]);
    repository.world.write("supabase/supa-safe.toml", "[hook]\nbranch = 1\n");
    let ran = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_eq!(
        ran.lines("error: ")[0],
        "error: `[ROOT]/app/supabase/supa-safe.toml` is not a policy file",
        "{ran}"
    );
}

#[test]
fn a_project_anywhere_in_the_repository_counts() {
    let repository = Repository::offline().installed();
    let world = &repository.world;
    world.write("apps/web/supabase/config.toml", "project_id = \"web\"\n");
    world.write("apps/web/supabase/supa-safe.toml", "[hook]\nbranches = [\"live\"]\n");
    world.write("apps/web/supabase/migrations/20260101000001_a.sql", "select 1;");
    world.write("docs/supabase-migrations/20260101000001_a.sql", "select 1;");
    repository.commit();
    // From a folder below, as people push.
    let below = repository.dir.join("apps/web");
    drop(repository.git_in(&below, ["push", "--quiet", "origin", "main"]).exits(0));
    let ran = repository.git_in(&below, ["push", "--quiet", "origin", "main:refs/heads/live"]).exits(1);
    assert_eq!(ran.lines("error: ")[0], "error: `127.0.0.1:1` does not answer", "{ran}");
}

#[test]
fn a_url_without_a_name_is_a_remote_too() {
    let repository = Repository::offline().installed();
    let url = format!("file://{}", repository.world.path("remote.git").display());
    repository.other("one");
    repository.passes([&url, "main"]);
    repository.migration(1);
    repository.is_judged([&url, "main"]);
    // Nothing is known of what that remote has.
    drop(repository.git(["reset", "--quiet", "--hard", "HEAD~1"]).exits(0));
    repository.passes([&url, "main:refs/heads/production"]);
    repository.passes([&url, "--delete", "production"]);
    repository.migration(1);
    repository.passes(["--no-verify", &url, "main"]);
    repository.is_judged([&url, "main:refs/heads/production"]);
}

#[test]
fn a_worktree_and_a_submodule_have_the_same_hook() {
    let repository = Repository::offline().installed();
    let tree = repository.world.path("tree");
    drop(
        repository
            .git([
                OsStr::new("worktree"),
                "add".as_ref(),
                "--quiet".as_ref(),
                "-b".as_ref(),
                "b".as_ref(),
                tree.as_ref(),
            ])
            .exits(0),
    );
    let migration = tree.join("supabase/migrations/20260101000001_a.sql");
    fs::create_dir_all(migration.parent().unwrap()).unwrap();
    supa_safe::disk::write(&migration, b"select 1;").unwrap();
    drop(repository.git_in(&tree, ["add", "--all"]).exits(0));
    drop(repository.git_in(&tree, ["commit", "--quiet", "--message", "m"]).exits(0));
    drop(repository.git_in(&tree, ["push", "--quiet", "origin", "b"]).exits(0));
    drop(repository.git_in(&tree, ["push", "--quiet", "origin", "b:main"]).exits(1));

    // The project is a submodule: its own repository has its own hook, and the outer one carries nothing.
    let outer = repository.world.path("outer");
    let outer_remote = repository.world.path("outer.git");
    for args in [&["init", "--quiet"][..], &["init", "--quiet", "--bare"]] {
        let dir = if args.len() == 2 { &outer } else { &outer_remote };
        drop(repository.git(args.iter().map(OsStr::new).chain([dir.as_os_str()])).exits(0));
    }
    let url = repository.world.path("remote.git").display().to_string();
    drop(repository.git_in(&outer, ["submodule", "--quiet", "add", &url, "app"]).exits(0));
    let inner = outer.join("app");
    for dir in [&outer, &inner] {
        drop(
            repository
                .world
                .finish(repository.world.command().args(["hook", "install"]).current_dir(dir))
                .exits(0),
        );
    }
    assert!(outer.join(".git/modules/app/hooks/pre-push").is_file());
    let migration = inner.join("supabase/migrations/20260101000001_a.sql");
    fs::create_dir_all(migration.parent().unwrap()).unwrap();
    supa_safe::disk::write(&migration, b"select 1;").unwrap();
    drop(repository.git_in(&inner, ["add", "--all"]).exits(0));
    drop(repository.git_in(&inner, ["commit", "--quiet", "--message", "m"]).exits(0));
    drop(repository.git_in(&inner, ["push", "--quiet", "origin", "HEAD:main"]).exits(1));
    drop(repository.git_in(&outer, ["add", "--all"]).exits(0));
    drop(repository.git_in(&outer, ["commit", "--quiet", "--message", "m"]).exits(0));
    let url = outer_remote.display().to_string();
    drop(repository.git_in(&outer, ["push", "--quiet", &url, "main"]).exits(0));
}

/// A hook that keeps what it was told, and ends with what stands in a file.
fn foreign(repository: &Repository, file: &Path) -> String {
    let (told, code) = (repository.world.path("told"), repository.world.path("code"));
    supa_safe::disk::write(&code, b"0").unwrap();
    let text = format!("echo \"$@\" >{0}; cat >>{0}; exit \"$(cat {1})\"", told.display(), code.display());
    script(file, &text);
    fs::read_to_string(file).unwrap()
}

#[test]
fn a_hook_that_was_there_runs_first_and_comes_back() {
    let repository = Repository::offline();
    let text = foreign(&repository, &repository.file());
    let ran = repository.hook("install").exits(0);
    assert_data_eq!(
        ran.data(),
        str![[r#"
Installed [ROOT]/app/.git/hooks/pre-push
The hook that stood there runs first, as [ROOT]/app/.git/hooks.before-supa-safe/pre-push
It judges pushes that change migrations on main, master, production (`[hook] branches` in supabase/supa-safe.toml)

"#]]
    );
    let before = repository.remote("main");
    repository.other("one");
    repository.passes(["origin", "main"]);
    let told = fs::read_to_string(repository.world.path("told")).unwrap();
    let expected = format!(
        "origin {}\nrefs/heads/main {} refs/heads/main {}\n",
        repository.world.path("remote.git").display(),
        repository.head().trim(),
        before.trim()
    );
    assert_eq!(told, expected);

    repository.migration(1);
    repository.is_judged(["origin", "main"]);
    supa_safe::disk::write(&repository.world.path("code"), b"7").unwrap();
    repository.other("two");
    let ran = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_eq!(ran.lines("error: ").len(), 1, "the hook of before refuses, and ours is not asked: {ran}");

    // Twice is once, and a way back is a way back.
    drop(repository.hook("install").exits(0));
    drop(repository.hook("uninstall").exits(0));
    assert_eq!(fs::read_to_string(repository.file()).unwrap(), text);
    assert!(!repository.dir.join(".git/hooks.before-supa-safe").exists());
    drop(repository.hook("uninstall").exits(0));
    assert_eq!(fs::read_to_string(repository.file()).unwrap(), text, "what is not ours stays");
}

#[test]
fn what_is_installed_is_said() {
    let repository = Repository::offline();
    let state = |repository: &Repository| {
        let ran = repository.world.finish(
            repository.world.command().args(["hook", "status", "--json"]).current_dir(&repository.dir),
        );
        ran.exits(0).document()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&repository), "missing");
    drop(repository.hook("install").exits(0));
    assert_eq!(state(&repository), "installed");
    assert_eq!(fs::metadata(repository.file()).unwrap().permissions().mode() & 0o777, 0o755);
    let text = fs::read_to_string(repository.file()).unwrap();
    assert!(text.contains(env!("CARGO_BIN_EXE_supa-safe")), "{text}");
    // An older one, of a program that has moved since.
    let old =
        text.replace("version 2", "version 0").replace(env!("CARGO_BIN_EXE_supa-safe"), "/gone/supa-safe");
    supa_safe::disk::write_program(&repository.file(), old.as_bytes()).unwrap();
    assert_eq!(state(&repository), "outdated");
    repository.migration(1);
    repository.is_judged(["origin", "main"]);
    drop(repository.hook("install").exits(0));
    assert_eq!(fs::read_to_string(repository.file()).unwrap(), text);
    drop(repository.hook("uninstall").exits(0));
    assert_eq!(state(&repository), "missing");
    assert!(!repository.file().exists());
    foreign(&repository, &repository.file());
    assert_eq!(state(&repository), "foreign");
    let nowhere = repository.world.finish(
        repository.world.command().args(["hook", "install"]).current_dir(repository.world.path("home")),
    );
    assert_eq!(nowhere.exits(1).lines("error: "), ["error: `[ROOT]/home` is in no git repository"]);
}

#[test]
fn without_the_program_nothing_is_pushed() {
    let mut repository = Repository::offline().installed();
    let text = fs::read_to_string(repository.file()).unwrap();
    let gone = text.replace(env!("CARGO_BIN_EXE_supa-safe"), "/gone/supa-safe");
    supa_safe::disk::write_program(&repository.file(), gone.as_bytes()).unwrap();
    let path = repository.world.variable("PATH").display().to_string();
    let (_, without) = path.split_once(':').unwrap();
    let without = without.to_owned();
    repository.world.set("PATH", without);
    repository.other("one");
    let ran = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert_eq!(ran.lines("error: ")[0], "error: supa-safe was not found, so nobody judged this push");
}

#[test]
fn hooks_path_inside_is_used_and_outside_is_refused() {
    let repository = Repository::offline();
    drop(repository.git(["config", "core.hooksPath", ".githooks"]).exits(0));
    drop(repository.hook("install").exits(0));
    let text = fs::read_to_string(repository.dir.join(".githooks/pre-push")).unwrap();
    assert!(
        !text.contains(env!("CARGO_BIN_EXE_supa-safe")),
        "a shared file names no path of this machine: {text}"
    );
    repository.migration(1);
    repository.is_judged(["origin", "main"]);
    // git resolves it from the top of the work tree, wherever the person stands.
    let below = repository.dir.join("supabase");
    drop(
        repository
            .world
            .finish(repository.world.command().args(["hook", "uninstall"]).current_dir(below))
            .exits(0),
    );
    assert!(!repository.dir.join(".githooks/pre-push").exists());
    drop(repository.git(["config", "--unset", "core.hooksPath"]).exits(0));

    let outside = repository.world.path("hooks");
    repository.config(&[("core.hooksPath", outside.to_str().unwrap())]);
    let ran = repository.hook("install").exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: `core.hooksPath` leads to `[ROOT]/hooks`, outside of this repository
  note: what stands there runs for every repository that uses it, so it was left alone
hint: To judge in all of them, add this line to [ROOT]/hooks/pre-push: supa-safe check --pre-push "$@"
hint: To judge in this one, give it its own folder: `git config --local core.hooksPath [ROOT]/app/.git/hooks`, then `supa-safe hook install`
hint: To give the setting up: `git config --global --unset core.hooksPath`

"#]]
    );
    assert!(!outside.exists() && !repository.file().exists());
    // The second hint, word for word.
    let own = repository.dir.join(".git/hooks");
    drop(repository.git(["config", "--local", "core.hooksPath", own.to_str().unwrap()]).exits(0));
    drop(repository.hook("install").exits(0));
    repository.is_judged(["origin", "main"]);
    // The first one.
    drop(repository.git(["config", "--local", "--unset", "core.hooksPath"]).exits(0));
    fs::create_dir(&outside).unwrap();
    script(&outside.join("pre-push"), supa_safe::hook::LINE);
    repository.is_judged(["origin", "main"]);
}
