//! Servers elsewhere and what their users sign in with: changed options are seen without being shown, and
//! options that the role may not read are not lost.

use super::Base;
use crate::rollback_zoo::WRAPPER;
use crate::world::{ADMIN, OWNER, World};
use supa_safe::rollback::{Error, Mode};

const SERVER: &str = "create table public.notes (id int primary key); insert into public.notes values (1);
    create server elsewhere foreign data wrapper postgres_fdw options (host 'h.example.com');
    create foreign table public.far (id int) server elsewhere options (table_name 't');
    create user mapping for postgres server elsewhere options (user 'u', password 'mapping-s3cret');
    create user mapping for public server elsewhere options (user 'all');";
const HIDDEN: &str =
    "create user mapping for anon server elsewhere options (user 'a', password 'hidden-s3cret')";

/// What everybody signs in with, by somebody who sees it.
fn options(base: &Base) -> Vec<String> {
    base.world.sql(
        ADMIN,
        "select usename, array(select unnest(umoptions) order by 1) from pg_user_mappings order by 1",
    )
}

fn server(more: &str) -> Base {
    let world = World::hosted(&[]);
    world.sql(ADMIN, WRAPPER);
    world.sql(OWNER, SERVER);
    world.sql(OWNER, more);
    Base::of(world)
}

fn every_mode(base: &Base) {
    let before = options(base);
    for damage in [
        "alter user mapping for postgres server elsewhere options (set password 'other')",
        "alter user mapping for public server elsewhere options (drop user)",
        "drop user mapping for postgres server elsewhere",
    ] {
        for mode in [Mode::Touched, Mode::Whole] {
            base.world.sql(OWNER, damage);
            assert_ne!(options(base), before);
            let session = base.world.session(OWNER);
            let proved = base.bring_back(&session, mode, &[], &base.ids());
            assert!(proved.is_ok(), "{damage}, {mode:?}: {proved:?}");
            session.run("commit");
            assert_eq!(options(base), before, "{damage}, {mode:?}");
        }
    }
}

#[test]
fn changed_options_come_back_and_are_never_shown() {
    let base = server("select 1");
    every_mode(&base);
    let folder = base.snapshot.dir.join("database");
    for file in ["fingerprint.tsv", "contents.txt"] {
        let text = fs_err::read_to_string(folder.join(file)).unwrap();
        assert!(!text.contains("s3cret"), "{file}");
    }
    assert!(!serde_json::to_string(&base.snapshot.manifest).unwrap().contains("s3cret"));
}

#[test]
fn options_of_foreign_tables_come_back_and_are_never_shown() {
    let world = World::hosted(&[]);
    world.sql(
        ADMIN,
        "create foreign data wrapper files; grant usage on foreign data wrapper files to postgres",
    );
    world.sql(
        OWNER,
        "create server lake foreign data wrapper files;
        create foreign table public.invoices (id int options (path '/id-s3cret'), n int)
            server lake options (format 'csv', uri 's3://key:s3cret@mine/x.csv')",
    );
    let base = Base::of(world);
    let text = fs_err::read_to_string(base.snapshot.dir.join("database/fingerprint.tsv")).unwrap();
    assert!(!text.contains("s3cret"), "{text}");
    let options = "select ftoptions from pg_foreign_table; select attfdwoptions from pg_attribute
        where attrelid = 'public.invoices'::regclass and attnum = 1";
    let before = base.world.sql(OWNER, options);
    for damage in [
        "alter foreign table public.invoices options (set uri 's3://other/x.csv')",
        "alter foreign table public.invoices alter id options (set path '/n')",
        "alter foreign table public.invoices options (drop uri)",
    ] {
        for mode in [Mode::Touched, Mode::Whole] {
            let session = base.world.session(OWNER);
            session.run(&format!("begin; {damage}"));
            let proved = base.bring_back(&session, mode, &[], &base.ids());
            assert!(proved.is_ok(), "{damage}, {mode:?}: {proved:?}");
            assert_eq!(session.run(options), before, "{damage}, {mode:?}");
            session.run("rollback");
        }
    }
}

#[test]
fn options_that_nobody_may_read_stay_or_nothing_does() {
    let base = server(HIDDEN);
    let limit = "the options of user mapping anon on elsewhere are not in the archive, and a change of them is not \
        seen: the role of the connection may not read them";
    assert!(
        base.snapshot.manifest.limits.iter().any(|one| one == limit),
        "{:?}",
        base.snapshot.manifest.limits
    );
    every_mode(&base);
    base.world.sql(OWNER, "alter server elsewhere options (set host 'other.example.com')");
    let before = options(&base);
    for mode in [Mode::Touched, Mode::Whole] {
        let session = base.world.session(OWNER);
        match base.bring_back(&session, mode, &[], &base.ids()) {
            Err(Error::NotExact(what)) => assert_eq!(
                what,
                ["user mapping anon on elsewhere would lose its options, which the snapshot could not read"]
            ),
            other => panic!("{mode:?}: {other:?}"),
        }
        session.run("rollback");
    }
    assert_eq!(options(&base), before);
}
