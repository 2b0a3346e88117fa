//! What refers to a table by its id, by the program and in both modes: webhooks, subscriptions, and stored values
//! of type `regclass` follow a table that the push dropped, made again, or replaced by a copy.

use crate::world::{ADMIN, OWNER, World};
use serde_json::{Value, json};

const TABLES: &str = "create table public.orders (id int primary key, note text, price int);
    create table public.products (id int primary key, sku text);
    create table public.gone (id int primary key);
    create table public.still (id int primary key);
    create sequence public.counter;
    insert into public.orders values (1, 'mine', 7); insert into public.products values (1, 'x'); insert into public.gone values (1);
    create table public.notes (about regclass, id int);
    insert into public.notes values ('public.orders', 1), ('public.products', 1), ('public.gone', 1), ('public.still', 1),
        ('public.counter', 1);";
/// As Studio writes them: a webhook's call is noted with the table's id as a plain number.
const WEBHOOKS: &str = "create trigger called after insert or update on public.orders for each row
        execute function supabase_functions.http_request('http://127.0.0.1:9/', 'POST', '{}', '{}', '1000');
    create trigger called after insert on public.gone for each row
        execute function supabase_functions.http_request('http://127.0.0.1:9/', 'POST', '{}', '{}', '1000');
    create trigger called after insert on public.still for each row
        execute function supabase_functions.http_request('http://127.0.0.1:9/', 'POST', '{}', '{}', '1000');";
/// As `pgmq.create` makes them.
const QUEUE: &str =
    "create table pgmq.q_mail (msg_id bigint generated always as identity primary key, message jsonb);
    create table pgmq.a_mail (msg_id bigint primary key, message jsonb);
    insert into pgmq.q_mail (message) select to_jsonb(n) from generate_series(1, 9) n;
    insert into public.notes values ('pgmq.q_mail', 1), ('pgmq.a_mail', 1);";

/// Drops and makes again, replaces by a copy, adds and drops columns, drops.
const WRONG: &str = "drop table public.orders;
    create table public.orders (id int primary key, total int);
    create table public.products_copy as select id, upper(sku) as sku from public.products;
    drop table public.products; alter table public.products_copy rename to products;
    drop table public.gone; drop sequence public.counter; create sequence public.counter;
    alter table public.still add column more text; alter table public.still drop column more;
    delete from pgmq.q_mail where msg_id < 5;
    drop table pgmq.a_mail; create table pgmq.a_mail (msg_id bigint primary key, message jsonb);";

/// What refers to each table: the name that the id leads to.
const REFERRING: &str =
    "select 'hook', hook_name, hook_table_id::oid::regclass::text from supabase_functions.hooks
    union all select 'subscription', subscription_id::text, entity::text from realtime.subscription
    union all select 'note', id::text, about::text from public.notes
    order by 1, 2, 3";

fn project() -> World {
    let world = World::hosted(&[("20260101000000_wrong", WRONG)]);
    world.sql(ADMIN, "create schema pgmq; grant all on schema pgmq to postgres");
    world.sql(OWNER, TABLES);
    world.sql(OWNER, WEBHOOKS);
    world.sql(OWNER, QUEUE);
    world.sql(OWNER, "update public.orders set price = 8; insert into public.gone values (2); insert into public.still values (1)");
    subscribe(&world, 1, &["orders", "products", "gone", "still"]);
    world
}

/// A client of Realtime listens to tables.
fn subscribe(world: &World, client: u32, tables: &[&str]) {
    for table in tables {
        world.sql(
            ADMIN,
            &format!(
                r#"insert into realtime.subscription (subscription_id, entity, claims)
                values ('00000000-0000-4000-8000-00000000000{client}', 'public.{table}', '{{"role": "anon"}}')"#
            ),
        );
    }
}

/// What refers to what, each by the name to which its id leads.
fn referring(world: &World) -> Vec<String> {
    world.sql(ADMIN, &format!("set search_path = ''; {REFERRING}"))
}

#[test]
fn what_refers_by_id_follows_what_came_back() {
    let world = project();
    let before = referring(&world);
    assert_eq!(before.iter().filter(|line| line.starts_with("hook|")).count(), 3, "{before:#?}");
    assert_eq!(before.len(), 14, "{before:#?}");
    let mut leaned_on: Option<Value> = None;
    for mode in ["touched", "whole"] {
        // What came back has other ids than in the first snapshot, young as that is.
        if let Some(Value::String(id)) = &leaned_on {
            let ran = world.migrate(&["--snapshot", id]).exits(3);
            assert_eq!(ran.lines("[SS003]").len(), 1, "{ran}");
            assert_eq!(world.run(["check"]).exits(3).lines("[SS003]").len(), 1);
        }
        let ran = world.migrate(&["--json"]).exits(0);
        let rules: Vec<Value> =
            ran.events_of("set-aside").iter().map(|set_aside| set_aside["rule"].clone()).collect();
        assert_eq!(rules, leaned_on.iter().map(|_| json!("SS003")).collect::<Vec<_>>(), "{ran}");
        assert_ne!(leaned_on.as_ref(), Some(&ran.summary()["snapshot"]));
        leaned_on = Some(ran.summary()["snapshot"].clone());
        assert_ne!(referring(&world), before);
        // Somebody listens to what the push made, which goes under another id once more.
        subscribe(&world, 2, &["orders"]);
        let ran = world.run(["rollback", "--mode", mode, "--confirm", &world.target(), "--json"]).exits(0);
        let done = &ran.summary()["rolled_back"];
        assert_eq!((&done["mode"], &done["references"]), (&json!(mode), &json!([])), "{ran}");
        let since = "select entity from realtime.subscription where subscription_id::text like '%2'";
        assert_eq!(world.sql(OWNER, &format!("set search_path = ''; {since}")), ["public.orders"], "{mode}");
        world.sql(ADMIN, "delete from realtime.subscription where subscription_id::text like '%2'");
        assert_eq!(referring(&world), before, "{mode}");
        let queue = "select count(*), sum(msg_id) from pgmq.q_mail; select count(*) from pgmq.a_mail";
        assert_eq!(world.sql(OWNER, queue), ["9|45", "0"], "{mode}");
        let of = |table: &str| world.sql(OWNER, &format!("select t from public.{table} t order by 1"));
        assert_eq!((of("orders"), of("products")), (vec!["(1,mine,8)".to_owned()], vec!["(1,x)".to_owned()]));
    }
}
