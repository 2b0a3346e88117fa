//! Layouts in which git does not show a project as it stands in the work tree.

use super::{Repository, TABLE};
use crate::world::World;
use fs_err as fs;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;

impl Repository {
    /// Takes files out of git, and leaves them where they are.
    fn ignores(&self, path: &str) {
        self.world.write(".gitignore", &format!("{path}\n"));
        drop(self.git(["rm", "--quiet", "-r", "--cached", path]).exits(0));
        self.commit();
        self.passes(["--no-verify", "origin", "main"]);
    }
}

#[test]
fn migrations_without_a_committed_configuration_are_judged() {
    let repository = Repository::offline().installed();
    repository.ignores("supabase/config.toml");
    repository.migration(1);
    repository.is_judged(["origin", "main"]);
    repository.passes(["--no-verify", "origin", "main"]);
    repository.other("one");
    repository.passes(["origin", "main"]);

    // Nor is there one here.
    repository.world.remove("supabase/config.toml");
    repository.migration(2);
    repository.is_judged(["origin", "main"]);

    // What is left of a project that goes whole reaches no target.
    repository.passes(["--no-verify", "origin", "main"]);
    fs::remove_dir_all(repository.dir.join("supabase")).unwrap();
    repository.commit();
    repository.passes(["origin", "main"]);
}

/// The configuration of the work tree stands in for the one that nobody committed.
#[test]
fn the_evidence_of_a_project_without_a_committed_configuration_counts() {
    let repository = Repository::around(World::hosted(&[])).installed();
    repository.ignores("supabase/config.toml");
    repository.world.migration(TABLE.0, TABLE.1);
    repository.commit();
    drop(repository.world.run(["rehearse"]).exits(0));
    let ran = repository.git(["push", "origin", "main"]).exits(0);
    assert_eq!(ran.lines("1 file of the pushed commit: snapshot and rehearsal hold").len(), 1, "{ran}");
}

#[test]
fn a_configuration_behind_a_link_is_read() {
    let repository = Repository::offline().installed();
    let app = &repository.dir;
    fs::create_dir(app.join("cfg")).unwrap();
    fs::rename(app.join("supabase/config.toml"), app.join("cfg/config.toml")).unwrap();
    symlink("../cfg/config.toml", app.join("supabase/config.toml")).unwrap();
    repository.commit();
    repository.passes(["--no-verify", "origin", "main"]);
    repository.migration(1);
    repository.is_judged(["origin", "main"]);
}

#[test]
fn links_of_a_commit_that_is_not_checked_out_are_followed() {
    let repository = Repository::offline().installed();
    let app = repository.dir.clone();
    // A program of that name is no link.
    repository.world.write("bin/supabase", "#!/bin/sh\n");
    repository.commit();
    repository.passes(["origin", "main"]);
    let switch = |branch: &str| drop(repository.git(["checkout", "--quiet", branch]).exits(0));
    drop(repository.git(["checkout", "--quiet", "-b", "feat"]).exits(0));
    symlink("db", app.join("way")).unwrap();
    fs::create_dir_all(app.join("apps/web/supabase")).unwrap();
    symlink("../../../way/sql", app.join("apps/web/supabase/migrations")).unwrap();
    repository.world.write("db/sql/20260101000001_a.sql", "select 1;");
    repository.commit();
    switch("main");
    repository.is_judged(["origin", "feat:main"]);
    repository.is_judged(["origin", "feat:refs/heads/production"]);
    repository.passes(["origin", "feat:refs/heads/feature"]);
    repository.passes(["--no-verify", "origin", "feat:main"]);
    let pushes = |change: &dyn Fn()| {
        switch("feat");
        change();
        repository.commit();
        switch("main");
    };
    // Links that stay as they are: what they lead to decides.
    pushes(&|| repository.world.write("README.md", "one"));
    repository.passes(["origin", "feat:main"]);
    pushes(&|| repository.world.write("bin/supabase", "#!/bin/sh\nexit 1\n"));
    repository.passes(["origin", "feat:main"]);
    pushes(&|| repository.world.write("db/sql/20260101000002_b.sql", "select 1;"));
    repository.is_judged(["origin", "feat:main"]);
    // The same from a repository without a work tree, where the project is at the top.
    repository.passes(["--no-verify", "origin", "feat:main"]);
    pushes(&|| {
        fs::create_dir_all(app.join("supabase")).unwrap();
        symlink("../db/sql", app.join("supabase/migrations")).unwrap();
    });
    repository.passes(["--no-verify", "origin", "feat:main"]);
    let bare = repository.world.path("bare.git");
    drop(
        repository
            .git([OsStr::new("clone"), "--quiet".as_ref(), "--bare".as_ref(), ".".as_ref(), bare.as_ref()])
            .exits(0),
    );
    let install =
        repository.world.finish(repository.world.command().args(["hook", "install"]).current_dir(&bare));
    drop(install.exits(0));
    let url = repository.world.path("remote.git").display().to_string();
    pushes(&|| repository.world.write("db/sql/20260101000003_c.sql", "select 1;"));
    drop(repository.git_in(&bare, ["fetch", "--quiet", "origin", "feat:feat"]).exits(0));
    let ran = repository.git_in(&bare, ["push", "--quiet", &url, "feat:main"]).exits(1);
    assert_eq!(ran.lines("error: ")[0], "error: `127.0.0.1:1` does not answer", "{ran}");
}

/// A link that goes away takes its migrations along.
#[test]
fn a_link_that_is_taken_away_is_a_change() {
    let repository = Repository::offline().installed();
    let app = repository.dir.clone();
    repository.world.write("sql/20260101000001_a.sql", "select 1;");
    symlink("../sql", app.join("supabase/migrations")).unwrap();
    repository.commit();
    repository.passes(["--no-verify", "origin", "main"]);
    fs::remove_file(app.join("supabase/migrations")).unwrap();
    repository.commit();
    repository.is_judged(["origin", "main"]);
}

/// Names of references, remotes, and files are bytes to git.
#[test]
fn names_that_are_no_text_do_not_stop_a_push() {
    let repository = Repository::offline().installed();
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let push = |target: &OsStr, reference: &[u8]| {
        repository.git([OsStr::new("push"), "--quiet".as_ref(), target, &bytes(reference)])
    };
    let origin = OsStr::new("origin");
    let write = |path: &[u8]| {
        let path = repository.dir.join(bytes(path));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        supa_safe::disk::write(&path, b"select 1;").unwrap();
        repository.commit();
    };
    write(b"notes/voil\xe0.sql");
    drop(push(origin, b"main").exits(0));
    drop(push(origin, b"main:refs/heads/voil\xe0").exits(0));
    drop(push(origin, b":refs/heads/voil\xe0").exits(0));
    let elsewhere = repository.world.path("").join(bytes(b"voil\xe0.git"));
    let bare = [OsStr::new("init"), "--quiet".as_ref(), "--bare".as_ref(), elsewhere.as_os_str()];
    drop(repository.git(bare).exits(0));
    drop(push(elsewhere.as_os_str(), b"main").exits(0));

    // A migration of such a name is judged, to a branch of such a name too.
    write(b"supabase/migrations/20260101000001_voil\xe0.sql");
    repository.is_judged(["origin", "main"]);
    repository.world.write("supabase/supa-safe.toml", "[hook]\nbranches = [\"*\"]\n");
    let ran = push(origin, b"main:refs/heads/voil\xe0").exits(1);
    assert_eq!(ran.lines("error: ")[0], "error: `127.0.0.1:1` does not answer", "{ran}");
    drop(repository.git(["push", "--quiet", "--no-verify", "origin", "main"]).exits(0));
    write(b"voil\xe0/supabase/migrations/20260101000001_a.sql");
    let ran = push(origin, b"main").exits(1);
    let expected = "error: the folder `voil\u{fffd}` has a name that is not UTF-8";
    assert_eq!(ran.lines("error: ")[0], expected, "{ran}");
}
