//! Two linked projects on one machine: what is one's is not the other's.

use super::{FILES, migrate};
use crate::world::{Cli, Linked, Major, Open, Template, World};

#[test]
fn a_snapshot_of_another_project_is_refused_by_name() {
    let mut world = World::new(Major::Pg17, Cli::V3).with_database(Template::Hosted);
    world.write("supabase/config.toml", "project_id = \"test\"\n");
    let (mut project, mut other) = (Linked::take(&world), Linked::take(&world));
    let platform = world.on_platform(vec![project.project(), other.project()]);
    project.link(&world);
    project.open(&world, Open::Direct);
    world.migration(FILES[0].0, FILES[0].1);
    let ran = migrate(&world, &project, &["--json"]).exits(0);
    let theirs = ran.summary()["snapshot"].as_str().unwrap().to_owned();
    other.link(&world);
    other.open(&world, Open::Direct);
    let before = world.state();
    for args in
        [&["rollback", &theirs, "--confirm", &other.project_ref][..], &["rollback", &theirs, "--dry-run"]]
    {
        let ran = world.run(args).exits(3);
        let error = ran.stderr.split_once("error: ").unwrap().1;
        assert_eq!(
            error,
            format!(
                "snapshot {theirs} is of {0}, which is another target\n  [SS004] nothing was touched\n\
                 hint: Name {0} as the target, or see `supa-safe list` for the snapshots of this one\n",
                project.project_ref
            )
        );
    }
    assert_eq!(world.state(), before);
    assert_eq!(world.history(), ["20260101000001"]);
    platform.knew_every_call();
}
