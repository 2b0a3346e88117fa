//! Event triggers of the project: a push drops some, with their function and without, and switches, renames, and
//! comments others. None is added by a push: without the platform's library only a superuser adds one, and the copy lets
//! the owner do so only where the target has that library (`lent`).

use super::damages::Before;
use super::{AS_HOSTED, Base, NOTES};
use crate::world::{ADMIN, Major, OWNER, World};
use serde_json::json;
use supa_safe::rollback::Mode;

const TRIGGERS: &str =
    "create function public.watch() returns event_trigger language plpgsql set search_path = '' as 'begin end';
    create function public.watch_too() returns event_trigger language plpgsql as 'begin end';
    create event trigger dropped on ddl_command_end when tag in ('CREATE TABLE', 'ALTER TABLE') execute function public.watch();
    create event trigger disabled on sql_drop execute function public.watch();
    create event trigger renamed on ddl_command_start execute function public.watch_too();
    create event trigger always_on on ddl_command_end when tag in ('CREATE VIEW') execute function public.watch();
    alter event trigger always_on enable always;
    create function public.watch_more() returns event_trigger language plpgsql as 'begin end';
    create event trigger gone on sql_drop when tag in ('DROP TABLE') execute function public.watch_more();
    comment on event trigger dropped is 'watches';";
const WRONG: &str = "update public.notes set body = 'lost';
    drop event trigger dropped;
    alter event trigger disabled disable;
    alter event trigger renamed rename to other;
    alter event trigger always_on enable replica;
    comment on event trigger always_on is 'theirs';
    drop function public.watch_more() cascade;";

fn event_triggers(world: &World) -> Vec<String> {
    world.sql(
        ADMIN,
        "select evtname, evtevent, evtenabled, evttags, evtfoid::regproc, evtowner::regrole, obj_description(oid, 'pg_event_trigger')
        from pg_event_trigger order by evtname",
    )
}

fn pushed_over_event_triggers(major: Major) {
    let world = World::own_server_of(major, &[("20260101000000_wrong", WRONG)]);
    world.sql(ADMIN, AS_HOSTED);
    // Without the platform's library, only a superuser owns event triggers.
    world.sql(ADMIN, &format!("alter role {OWNER} superuser"));
    world.sql(OWNER, NOTES);
    world.sql(OWNER, TRIGGERS);
    let before = (event_triggers(&world), Before::of(&world));
    for mode in ["touched", "whole"] {
        drop(world.migrate(&[]).exits(0));
        assert_ne!(event_triggers(&world), before.0);
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
        assert_eq!(ran.summary()["rolled_back"]["mode"], json!(mode));
        assert_eq!(event_triggers(&world), before.0, "{mode}");
        before.1.is_back(&world).unwrap_or_else(|why| panic!("{mode}: {why}"));
    }
}

#[test]
fn event_triggers_come_back_on_15() {
    pushed_over_event_triggers(Major::Pg15);
}

#[test]
fn event_triggers_come_back_on_17() {
    pushed_over_event_triggers(Major::Pg17);
}

#[test]
fn one_that_refuses_changes_and_goes_is_not_asked() {
    let world = World::own_server(&[]);
    world.sql(ADMIN, &format!("alter role {OWNER} superuser"));
    world.sql(OWNER, NOTES);
    world.sql(OWNER, "create view public.shown as select * from public.notes");
    let base = Base::of(world);
    base.world.sql(
        OWNER,
        "update public.notes set body = 'lost';
        create function public.refuse() returns event_trigger language plpgsql as 'begin raise ''no changes''; end';
        create event trigger refuses on ddl_command_start execute function public.refuse()",
    );
    for mode in [Mode::Touched, Mode::Whole] {
        let session = base.world.session(OWNER);
        let proved = base.bring_back(&session, mode, &["public.notes"], &base.ids());
        assert!(proved.is_ok(), "{mode:?}: {proved:?}");
        session.run("rollback");
    }
}
