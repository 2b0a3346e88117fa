//! Hooks that stood there before, and that ask who and where they are.

use super::Repository;
use crate::world::script;
use fs_err as fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A dispatcher for hooks of every name: what it found out about itself is kept, one word a check.
const DISPATCHER: &str = r#"here=$(dirname "$0")
{
    case "$(basename "$0")" in pre-push) echo name ;; esac
    [ -f "$here/lib.sh" ] && . "$here/lib.sh"
    for part in "$0".d/*; do [ -x "$part" ] && "$part"; done
    (cd "$here/../.." && [ -d supabase ] && echo above)
    cat
} >"$HOME/told"
[ ! -e "$HOME/refuse" ]"#;

struct Team {
    repository: Repository,
    hooks: PathBuf,
}

impl Team {
    /// A repository with a hook that needs what stands around it; `as_link` says where a link to it leads.
    fn new(hooks: &str, as_link: Option<&str>) -> Self {
        let repository = Repository::offline();
        let hooks = repository.dir.join(hooks);
        fs::create_dir_all(hooks.join("pre-push.d")).unwrap();
        let file = hooks.join(as_link.unwrap_or("pre-push"));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        script(&file, DISPATCHER);
        if let Some(target) = as_link {
            symlink(target, hooks.join("pre-push")).unwrap();
        }
        script(&hooks.join("pre-push.d/one"), "echo part");
        supa_safe::disk::write(&hooks.join("lib.sh"), b"echo helper\n").unwrap();
        Self { repository, hooks }
    }

    /// What the hook found out, but for git's line.
    fn told(&self, text: &str) -> Vec<String> {
        self.repository.other(text);
        self.repository.passes(["origin", "main"]);
        let told = fs::read_to_string(self.repository.world.path("home/told")).unwrap();
        let (found, git): (Vec<&str>, Vec<&str>) = told.lines().partition(|line| !line.contains(' '));
        assert_eq!(git.len(), 1, "{told}");
        assert!(git[0].starts_with("refs/heads/main "), "{told}");
        found.into_iter().map(str::to_owned).collect()
    }

    fn is_link_to(&self, target: &str) -> bool {
        fs::read_link(self.hooks.join("pre-push")).is_ok_and(|found| found == Path::new(target))
    }
}

const EVERYTHING: [&str; 4] = ["name", "helper", "part", "above"];

#[test]
fn a_hook_that_asks_who_and_where_it_is_still_knows() {
    for (hooks, as_link) in [
        (".git/hooks", None),
        (".git/hooks", Some("../../scripts/dispatch")),
        (".git/hooks", Some("dispatch")),
        (".git/hooks", Some("lib/dispatch")),
        ("tools/hooks", Some("../dispatch")),
    ] {
        let team = Team::new(hooks, as_link);
        let repository = &team.repository;
        if hooks != ".git/hooks" {
            drop(repository.git(["config", "core.hooksPath", hooks]).exits(0));
        }
        assert_eq!(team.told("one"), EVERYTHING, "{hooks} {as_link:?}");
        drop(repository.hook("install").exits(0));
        let kept = repository.dir.join(format!("{hooks}.before-supa-safe/pre-push"));
        assert_eq!(kept.is_symlink(), as_link.is_some(), "{hooks} {as_link:?}");
        assert_eq!(team.told("two"), EVERYTHING, "{hooks} {as_link:?}");
        repository.migration(1);
        repository.is_judged(["origin", "main"]);
        repository.passes(["--no-verify", "origin", "main"]);

        // What comes to the folder later is seen too, and the verdict counts.
        supa_safe::disk::write(&team.hooks.join("late"), b"").unwrap();
        repository.world.write("../home/refuse", "");
        repository.other("three");
        drop(repository.git(["push", "--quiet", "origin", "main"]).exits(1));
        fs::remove_file(repository.world.path("home/refuse")).unwrap();
        assert!(repository.dir.join(format!("{hooks}.before-supa-safe/late")).exists());

        drop(repository.hook("uninstall").exits(0));
        assert!(as_link.is_none_or(|target| team.is_link_to(target)), "{hooks} {as_link:?}");
        assert!(!repository.dir.join(format!("{hooks}.before-supa-safe")).exists());
        assert_eq!(team.told("four"), EVERYTHING, "{hooks} {as_link:?}");
    }
}

/// The text of version 1, but for its comments.
const VERSION_1: &str = r#"#!/bin/sh
# supa-safe pre-push hook, version 1
supa_safe=supa-safe
before=$(dirname -- "$0")/pre-push.before-supa-safe
if [ -x "$before" ]; then
    pushed=$(cat)
    say_pushed() { [ -z "$pushed" ] || printf '%s\n' "$pushed" 2>/dev/null; }
    say_pushed | "$before" "$@" || exit
    say_pushed | "$supa_safe" check --pre-push "$@"
fi
"#;

#[test]
fn a_hook_that_an_older_version_kept_is_renamed_and_comes_back() {
    for is_renewed in [true, false] {
        let team = Team::new(".git/hooks", Some("../../scripts/dispatch"));
        let repository = &team.repository;
        let old = team.hooks.join("pre-push.before-supa-safe");
        fs::rename(team.hooks.join("pre-push"), &old).unwrap();
        supa_safe::disk::write_program(&team.hooks.join("pre-push"), VERSION_1.as_bytes()).unwrap();
        assert_eq!(team.told("one"), ["helper", "above"], "version 1 takes the name away");
        if is_renewed {
            let ran = repository.hook("install").exits(0);
            assert!(ran.data().starts_with("Updated "), "{ran}");
            assert!(!old.exists());
            assert_eq!(team.told("two"), EVERYTHING);
        }
        drop(repository.hook("uninstall").exits(0));
        assert!(team.is_link_to("../../scripts/dispatch") && !old.exists());
        assert_eq!(team.told("three"), EVERYTHING);
    }
}

/// The text of this version runs what version 1 kept, whoever wrote it there.
#[test]
fn a_kept_hook_runs_under_its_old_name_too() {
    let team = Team::new(".git/hooks", None);
    let repository = &team.repository;
    drop(repository.hook("install").exits(0));
    let kept = repository.dir.join(".git/hooks.before-supa-safe");
    fs::rename(kept.join("pre-push"), team.hooks.join("pre-push.before-supa-safe")).unwrap();
    fs::remove_dir(&kept).unwrap();
    assert_eq!(team.told("one"), ["helper", "above"]);
    drop(repository.hook("install").exits(0));
    assert_eq!(team.told("two"), EVERYTHING);
}
