//! Hooks that husky and lefthook own, the real ones.

use super::Repository;
use crate::world::told;
use fs_err as fs;
use snapbox::{assert_data_eq, str};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

fn manager(name: &str) -> PathBuf {
    Path::new(&told("SUPA_SAFE_TEST_HOOK_MANAGERS")).join(name)
}

#[test]
fn husky_owns_the_hooks_and_calls_supa_safe() {
    let repository = Repository::offline();
    repository.world.write("package.json", "{\"name\": \"app\", \"private\": true}\n");
    drop(repository.world.finish(&mut repository.world.program(manager("husky"))).exits(0));
    let ran = repository.hook("install").exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: husky owns the hooks of this repository
  Nothing was written. Add to [ROOT]/app/.husky/pre-push:
      supa-safe check --pre-push "$@"
hint: Then commit the file: husky runs it for everybody who installed the packages

"#]]
    );
    repository.world.write(".husky/pre-push", &format!("{}\n", supa_safe::hook::LINE));
    repository.other("one");
    repository.passes(["origin", "main"]);
    repository.migration(1);
    repository.is_judged(["origin", "main"]);
    let ran = repository.hook("install").exits(0);
    assert_eq!(ran.data(), "husky calls supa-safe already, in [ROOT]/app/.husky/pre-push\n");
}

/// As its documentation has it for a project below the top, and for a folder of another name.
#[test]
fn husky_is_known_wherever_its_folder_is() {
    for (folder, start) in [
        ("frontend/.husky", "npx --prefix frontend husky frontend/.husky"),
        ("config/hooks", "npx husky config/hooks"),
    ] {
        let repository = Repository::offline();
        drop(repository.world.finish(repository.world.program(manager("husky")).arg(folder)).exits(0));
        let file = format!("{folder}/pre-push");
        let team = "echo told >\"$HOME/told\"\n";
        repository.world.write(&file, team);
        let ran = repository.hook("install").exits(1);
        assert_eq!(
            ran.failure(),
            format!(
                "error: husky owns the hooks of this repository\n  \
                 Nothing was written. Add to [ROOT]/app/{file}:\n      supa-safe check --pre-push \"$@\"\n\
                 hint: Then commit the file: husky runs it for everybody who installed the packages\n"
            )
        );
        assert_eq!(status(&repository), ("missing".to_owned(), Some("supa-safe hook install".to_owned())));
        repository.other("one");
        repository.passes(["origin", "main"]);
        assert!(repository.world.path("home/told").exists(), "the team's hook still runs: {folder}");

        repository.world.write(&file, &format!("{team}{}\n", supa_safe::hook::LINE));
        assert_eq!(status(&repository), ("installed".to_owned(), None));
        repository.migration(1);
        repository.is_judged(["origin", "main"]);
        // A fresh clone has husky's own files no more.
        fs::remove_dir_all(repository.dir.join(folder).join("_")).unwrap();
        let expected = ("missing".to_owned(), Some(start.to_owned()));
        assert_eq!(status(&repository), expected);
    }
}

#[test]
fn lefthook_owns_the_hooks_and_calls_supa_safe() {
    let repository = Repository::offline();
    repository.world.write("lefthook.yml", "output: [failure]\n");
    let ran = repository.hook("install").exits(1);
    assert_data_eq!(
        ran.failure(),
        str![[r#"
error: lefthook owns the hooks of this repository
  Nothing was written. Add to [ROOT]/app/lefthook.yml:
      pre-push:
        commands:
          supa-safe:
            run: supa-safe check --pre-push {1} {2}
            use_stdin: true
hint: Then run `lefthook install`

"#]]
    );
    // Word for word, as it is indented there.
    let added: Vec<String> = ran
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("      "))
        .map(|line| format!("{line}\n"))
        .collect();
    repository.world.write("lefthook.yml", &added.concat());
    drop(repository.world.finish(repository.world.program(manager("lefthook")).arg("install")).exits(0));
    repository.other("one");
    repository.passes(["origin", "main"]);
    repository.migration(1);
    let ran = repository.git(["push", "--quiet", "origin", "main"]).exits(1);
    assert!(ran.to_string().contains("`127.0.0.1:1` does not answer"), "{ran}");
    assert_ne!(repository.remote("main"), repository.head());
    let ran = repository.hook("install").exits(0);
    assert_eq!(ran.data(), "lefthook calls supa-safe already, in [ROOT]/app/lefthook.yml\n");
}

/// What `hook status` says: the state, and the command that would help.
fn status(repository: &Repository) -> (String, Option<String>) {
    let ran = repository
        .world
        .finish(repository.world.command().args(["hook", "status", "--json"]).current_dir(&repository.dir));
    let document = ran.exits(0).document();
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    (text("state").unwrap(), text("next"))
}

/// A manager's file calls supa-safe, and nobody has told git to run the manager.
#[test]
fn a_manager_that_git_does_not_run_installs_nothing() {
    let lefthook = "pre-push:\n  commands:\n    supa-safe:\n      run: supa-safe check --pre-push {1} {2}\n      use_stdin: true\n";
    let husky = format!("{}\n", supa_safe::hook::LINE);
    for (name, file, text, start) in [
        ("husky", ".husky/pre-push", husky.as_str(), "npx husky"),
        ("lefthook", "lefthook.yml", lefthook, "lefthook install"),
    ] {
        let repository = Repository::offline();
        repository.world.write("package.json", "{\"name\": \"app\", \"private\": true}\n");
        repository.world.write(file, text);
        assert_eq!(status(&repository), ("missing".to_owned(), Some(start.to_owned())), "{name}");
        let ran = repository.hook("install").exits(1);
        assert_eq!(
            ran.failure(),
            format!(
                "error: {name} would call supa-safe, and git does not run {name} here\nhint: Run `{start}`\n"
            )
        );
        let doctor = repository.world.run(["doctor", "--json", "--workdir", "."]).document();
        let checks = doctor["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["group"] == "hook").unwrap();
        assert_eq!((check["grade"].as_str(), check["fix"].as_str()), (Some("warn"), Some(start)), "{name}");

        // The hint, word for word.
        let mut command = repository.world.program(manager(name));
        command.args(start.split(' ').skip(1).filter(|word| *word != "husky"));
        drop(repository.world.finish(&mut command).exits(0));
        assert_eq!(status(&repository), ("installed".to_owned(), None), "{name}");
        drop(repository.hook("install").exits(0));
        repository.migration(1);
        let before = repository.remote("main");
        drop(repository.git(["push", "--quiet", "origin", "main"]).exits(1));
        assert_eq!(repository.remote("main"), before, "{name}");
    }
}

/// Ours is what git runs, whatever a manager's file says of other hooks.
#[test]
fn a_manager_that_came_later_changes_nothing_for_our_hook() {
    let repository = Repository::offline().installed();
    repository.world.write("lefthook.yml", "pre-commit:\n  commands:\n    x:\n      run: 'true'\n");
    assert_eq!(status(&repository), ("installed".to_owned(), None));
    let ran = repository.hook("install").exits(0);
    assert_eq!(ran.data(), "The hook is installed already: [ROOT]/app/.git/hooks/pre-push\n");
    repository.migration(1);
    repository.is_judged(["origin", "main"]);

    // A file that is no program is run by nobody.
    fs::set_permissions(repository.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(status(&repository).0, "missing");
    drop(repository.hook("install").exits(0));
    assert_eq!(status(&repository).0, "installed");
    repository.is_judged(["origin", "main"]);
}
