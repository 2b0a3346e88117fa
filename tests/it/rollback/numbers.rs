//! A sequence that comes back alone is not behind the rows that stayed.

use super::Base;
use crate::world::{OWNER, World};
use supa_safe::failure::chain;
use supa_safe::rollback::Mode;

const BEFORE: &str = "create table public.a (id serial primary key, body text);
    create table public.b (id int primary key default nextval('public.a_id_seq'), body text);
    create sequence public.loose;
    create table public.c (id bigint primary key default nextval('public.loose'), body text);
    insert into public.a (body) values ('x'), ('y');
    insert into public.b (body) values ('x'), ('y');
    insert into public.c (body) values ('x'), ('y');";

#[test]
fn a_sequence_that_comes_back_alone_is_ahead_of_rows_that_stay() {
    let world = World::hosted(&[]);
    world.sql(OWNER, BEFORE);
    let base = Base::of(world);
    base.world.sql(
        OWNER,
        "insert into public.b (body) values ('new'); insert into public.c (body) values ('new'), ('new')",
    );
    let ids = base.ids();
    let mut wrong = Vec::new();
    for (damage, last) in [
        ("alter sequence public.loose rename to lost", ["5", "4"]),
        ("alter sequence public.loose owned by public.c.id", ["5", "4"]),
        ("alter sequence public.loose set unlogged", ["5", "4"]),
        ("drop sequence public.loose cascade", ["5", "4"]),
        // Its rows beyond the snapshot are gone, but its numbers are out.
        ("alter sequence public.loose rename to lost; delete from public.c where id = 4", ["5", "4"]),
        // The sequence goes with `a`, and `b` stays.
        ("alter table public.a drop column body", ["5", "4"]),
        ("drop table public.a cascade", ["5", "4"]),
    ] {
        let session = base.world.session(OWNER);
        session.run(&format!("begin; {damage}"));
        if let Err(error) = base.bring_back(&session, Mode::Touched, &[], &ids) {
            wrong.push(format!("{damage}: {:?}", chain(&error)));
        } else {
            let found =
                session.run("select last_value from public.a_id_seq; select last_value from public.loose");
            if found != last {
                wrong.push(format!("{damage}: {found:?}"));
            }
        }
        session.run("rollback");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A number is not given twice, whoever takes one while a sequence goes back.
#[test]
fn nobody_takes_a_number_while_a_sequence_goes_back() {
    let world = World::hosted(&[]);
    world.sql(OWNER, BEFORE);
    let base = Base::of(world);
    let ids = base.ids();
    let session = base.world.session(OWNER);
    session.run("begin; alter sequence public.loose owned by public.c.id");
    drop(base.bring_back(&session, Mode::Touched, &[], &ids).unwrap());
    let other = base.world.session(OWNER);
    let refused = other.try_run("set lock_timeout = '100ms'; select nextval('public.loose')").unwrap_err();
    assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE));
    session.run("commit");
    assert_eq!(other.run("select nextval('public.loose')"), ["3"]);
}
