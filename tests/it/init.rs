//! `init` looks around, writes once, and never writes over anything.

use crate::world::{Cli, Major, World};
use fs_err as fs;
use snapbox::{assert_data_eq, str};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use supa_safe::disk;

#[test]
fn init_writes_once_and_never_over_anything() {
    let world = World::new(Major::Pg17, Cli::V3);
    let remotes = "[remotes.live]\nproject_id = \"abcdefghijklmnopqrst\"\n";
    world.write("supabase/config.toml", &format!("project_id = \"x\"\n{remotes}"));
    world.write("supabase/.temp/project-ref", "zzzzzzzzzzzzzzzzzzzz");
    world.write(
        "supabase/.temp/linked-project.json",
        "{\"ref\": \"zzzzzzzzzzzzzzzzzzzz\", \"name\": \"Staging\"}",
    );
    let ran = world.run(["init"]).exits(0);
    let lines: Vec<String> = ran
        .data()
        .lines()
        .filter(|line| !line.starts_with("Postgres"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_data_eq!(
        lines.concat(),
        str![[r#"
project   [ROOT]/app
CLI       supabase 3.1.0 ([..]/supabase.js)
linked    zzzzzzzzzzzzzzzzzzzz (Staging)
remote    live is abcdefghijklmnopqrst
git hook  none: this is no git repository
Wrote [ROOT]/app/supabase/supa-safe.toml: every setting in it is switched off. Commit it
Next: `supa-safe doctor` says what is missing on this machine

"#]]
    );
    let file = world.path("app/supabase/supa-safe.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        supa_safe::config::sample(&[("live".to_owned(), "abcdefghijklmnopqrst".parse().unwrap())])
    );

    let tree = || {
        disk::files_below(&world.path(""))
            .unwrap()
            .into_iter()
            .map(|file| {
                let digest = disk::sha256_file(&world.path(&file)).unwrap().0;
                (file, digest)
            })
            .collect::<Vec<_>>()
    };
    let before = tree();
    let ran = world.run(["init"]).exits(0);
    assert_eq!(
        ran.data().lines().next().unwrap(),
        "[ROOT]/app/supabase/supa-safe.toml is there already; nothing was changed"
    );
    assert_eq!(tree(), before);
    // Not even what is no policy file.
    disk::write(&file, b"# mine").unwrap();
    drop(world.run(["init"]).exits(0));
    assert_eq!(fs::read_to_string(&file).unwrap(), "# mine");
    let summary = world.run(["init", "--json"]).exits(0).summary();
    assert_eq!(summary["target_touched"], false);

    drop(world.run(["init", "--config", "elsewhere.toml"]).exits(0));
    assert_eq!(fs::read_to_string(world.path("app/elsewhere.toml")).unwrap(), text);

    let nowhere = world.run(["init", "--workdir", "/"]).exits(1);
    assert_eq!(nowhere.lines("error: "), ["error: no Supabase project: `/` has no `supabase/config.toml`"]);

    world.remove("supabase/supa-safe.toml");
    symlink("gone.toml", &file).unwrap();
    let ran = world.run(["init"]).exits(1);
    assert_eq!(
        ran.lines("error: "),
        ["error: `[ROOT]/app/supabase/supa-safe.toml` is a link, and what it leads to is not there"]
    );
}
