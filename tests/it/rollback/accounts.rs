//! Accounts that a push wrote, and what users did to them, and with them, since.

use super::Base;
use crate::world::{ADMIN, OWNER, World};
use serde_json::json;
use supa_safe::effect::{Besides, ManagedChange, ManagedRows, Which};
use supa_safe::left_out::LeftOut;
use supa_safe::rollback::{Changed, Error, Mode, PATIENCE, Proved, Task};

/// Accounts `1@x.y` to `6@x.y`, each with an identity.
const ACCOUNTS: &str = "insert into auth.users (id, email, raw_user_meta_data, created_at)
        select ('00000000-0000-0000-0000-00000000000' || n)::uuid, n || '@x.y', '{\"plan\": \"free\"}', '2026-01-01'
        from generate_series(1, 6) n;
    insert into auth.identities (id, provider_id, user_id, identity_data, provider)
        select id, id, id, '{}', 'email' from auth.users;";

fn id(number: u32) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

fn ids(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| id(*number)).collect()
}

fn users(managed: ManagedRows) -> Besides {
    let managed = vec![ManagedRows { table: "auth.users".to_owned(), ..managed }];
    Besides { managed, ..Besides::default() }
}

fn changed(columns: &[&str], rows: Which) -> ManagedChange {
    ManagedChange { columns: columns.iter().map(|name| (*name).to_owned()).collect(), rows }
}

fn names(changed: &[Changed]) -> Vec<String> {
    changed.iter().map(|one| format!("{} {}", one.rows, one.table)).collect()
}

/// A project with accounts, their snapshot, and tables of its own.
fn base(tables: &str) -> Base {
    let world = World::hosted(&[]);
    world.sql(ADMIN, ACCOUNTS);
    world.sql(OWNER, tables);
    Base::of(world)
}

impl Base {
    /// Takes the database back, of a push that did this, and runs a query before nothing is committed.
    fn back(&self, tables: &[&str], besides: &Besides, query: &str) -> (Result<Proved, Error>, Vec<String>) {
        let session = self.world.session(OWNER);
        let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
        let task = Task {
            snapshot: &self.snapshot,
            mode: Mode::Touched,
            tables: &tables,
            besides,
            versions: &[],
            clients: &self.clients,
            left_out: &LeftOut::default(),
            translation: &self.ids(),
            storage: None,
            patience: PATIENCE,
            keep_in: Some(&self.world.path("kept")),
        };
        let proved = session.bring_back(&task);
        let found = if proved.is_ok() { session.run(query) } else { Vec::new() };
        (proved, found)
    }

    fn kept(&self, file: &str) -> String {
        fs_err::read_to_string(self.world.path("kept").join(file)).unwrap()
    }

    /// Runs the script that loads kept rows.
    fn load(&self) {
        let path = format!("{}:/usr/bin:/bin", crate::world::told("SUPA_SAFE_TEST_PG17_BIN"));
        let mut psql = self.world.program("psql");
        psql.args(["-f", "load.sql"]).arg(self.world.url()).env("PATH", path);
        drop(self.world.finish(psql.current_dir(self.world.path("kept"))).exits(0));
    }
}

#[test]
fn only_accounts_that_the_push_changed_go_back_and_only_in_what_it_changed() {
    let base = base("");
    base.world.sql(
        ADMIN,
        r#"update auth.users set raw_user_meta_data = '{"plan": "paid"}' where email in ('1@x.y', '2@x.y');
        update auth.users set phone = '+1' where email = '3@x.y'"#,
    );
    base.world.sql(
        ADMIN,
        r#"update auth.users set phone = '+2' where email = '1@x.y';
        update auth.users set raw_user_meta_data = '{"plan": "paid", "name": "B"}' where email = '2@x.y';
        update auth.users set raw_user_meta_data = '{"name": "C"}' where email in ('3@x.y', '4@x.y');
        insert into auth.users (id, email, created_at) values ('99999999-0000-0000-0000-000000000000', 'new@x.y', now())"#,
    );
    let rows = "select left(email, 1), raw_user_meta_data, phone from auth.users order by 1";
    let free = r#"{"plan": "free"}"#;
    let these = |numbers: &[u32]| Which::These(ids(numbers));
    let check = |besides: ManagedRows, expected: &[String], kept: &str| {
        let besides = users(ManagedRows { newest: Some("2026-01-02".to_owned()), ..besides });
        let (proved, found) = base.back(&[], &besides, rows);
        assert_eq!(found[..4], *expected);
        assert_eq!(
            json!(proved.unwrap().saved),
            json!([{"table": "auth.users", "rows": 3, "file": "auth.users.csv"}])
        );
        assert_eq!(base.kept("auth.users.csv").matches(kept).count(), 1);
        assert_eq!(base.kept("saved.json").matches("auth.users.csv").count(), 1);
        assert_eq!(base.kept("load.sql").matches("auth.users.csv").count(), 1);
    };
    let changes = vec![
        changed(&["confirmed_at", "raw_user_meta_data"], these(&[1, 2])),
        changed(&["phone"], these(&[3])),
    ];
    let name = r#"{"name": "C"}"#;
    check(
        ManagedRows { changed: changes, ..ManagedRows::default() },
        &[format!("1|{free}|+2"), format!("2|{free}|~"), format!("3|{name}|~"), format!("4|{name}|~")],
        r#""{""name"": ""B"", ""plan"": ""paid""}""#,
    );
}

#[test]
fn where_nobody_noted_which_all_accounts_go_back() {
    let base = base("");
    base.world.sql(ADMIN, "update auth.users set phone = '+' || left(email, 1) where email < '3'");
    let any = ManagedRows { changed: vec![changed(&["phone"], Which::Any)], ..ManagedRows::default() };
    let (proved, found) = base.back(&[], &users(any), "select count(phone) from auth.users");
    assert_eq!(found, ["0"]);
    assert_eq!(proved.unwrap().saved.len(), 1);
}

/// What the copy did not have: an account from before the snapshot and after the copy, and one that a user
/// changed in between. The push wrote both.
#[test]
fn accounts_that_the_copy_did_not_have_go_back_too() {
    let base = base("");
    base.world.sql(ADMIN, "update auth.users set phone = '+' || left(email, 1) where email < '3'");
    let noted = |newest: &str| ManagedRows {
        changed: vec![changed(&["phone"], Which::These(ids(&[1])))],
        newest: Some(newest.to_owned()),
        ..ManagedRows::default()
    };
    let left = |newest| {
        base.back(&[], &users(noted(newest)), "select phone from auth.users where phone is not null")
    };
    assert_eq!(left("2025-01-01").1, [""; 0]);
    assert_eq!(left("2026-01-01").1, ["+2"]);
}

#[test]
fn who_signed_up_again_with_the_address_of_a_deleted_account_stays() {
    let base = base(
        "create table public.profiles (id uuid primary key references auth.users on delete cascade, name text);
        insert into public.profiles select id, email from auth.users",
    );
    // The push deletes two, and gives a third one another address; the addresses find new owners.
    base.world.sql(
        ADMIN,
        "delete from auth.users where email in ('1@x.y', '2@x.y'); update auth.users set email = 'x' where email = '3@x.y';
        insert into auth.users (id, email) values ('99999999-0000-0000-0000-000000000001', '1@x.y'),
            ('99999999-0000-0000-0000-000000000003', '3@x.y')",
    );
    let managed =
        [("auth.users", vec![changed(&["email"], Which::These(ids(&[3])))]), ("auth.identities", vec![])];
    let managed = managed.map(|(table, changed)| ManagedRows {
        table: table.to_owned(),
        changed,
        gone: ids(&[1, 2]),
        ..ManagedRows::default()
    });
    let besides = Besides { managed: managed.into(), ..Besides::default() };
    let rows = "select left(id::text, 1) || email from auth.users order by 1; select name from public.profiles order by 1;
        select right(id::text, 1) from auth.identities order by 1";
    let (proved, found) = base.back(&["public.profiles"], &besides, rows);
    let proved = proved.unwrap();
    assert_eq!(
        found.join(" "),
        "02@x.y 04@x.y 05@x.y 06@x.y 0x 91@x.y 93@x.y 2@x.y 3@x.y 4@x.y 5@x.y 6@x.y 2 3 4 5 6"
    );
    assert_eq!(names(&proved.accounts.removed), ["1 public.profiles"]);
    let taken: Vec<_> =
        proved.accounts.taken.iter().map(|taken| (taken.table.as_str(), taken.ids.clone())).collect();
    assert_eq!(taken, [("auth.users", ids(&[1, 3])), ("auth.identities", ids(&[1]))]);
    let old = base.kept("auth.users.old.csv");
    assert_eq!((old.lines().count(), old.matches("1@x.y").count(), old.matches("3@x.y").count()), (3, 1, 1));
    assert_eq!(base.kept("auth.identities.old.csv").lines().count(), 2);
    assert_eq!(base.kept("saved.json").matches(".old.csv").count(), 2);
}

/// Each takes the address of the next.
#[test]
fn addresses_that_moved_from_one_account_to_the_next_go_back() {
    let base = base("");
    base.world.sql(
        ADMIN,
        "update auth.users set email = 'x' where email = '1@x.y'; update auth.users set email = '1@x.y' where email = '2@x.y';
        update auth.users set email = '2@x.y' where email = '3@x.y'",
    );
    let moved = changed(&["email"], Which::These(ids(&[1, 2, 3])));
    let besides = users(ManagedRows { changed: vec![moved], ..ManagedRows::default() });
    let (proved, found) = base.back(&[], &besides, "select email from auth.users order by id");
    assert_eq!(found, ["1@x.y", "2@x.y", "3@x.y", "4@x.y", "5@x.y", "6@x.y"]);
    assert_eq!(proved.unwrap().accounts.taken, []);
}

const SHOP: &str =
    "create table public.profiles (id uuid primary key references auth.users on delete cascade, name text);
    create table public.posts (id int primary key, by uuid references public.profiles on delete cascade,
        above int references public.posts on delete cascade);
    create table public.likes (id int primary key, of uuid references auth.users on delete set null);
    create table public.orders (id int primary key, of uuid references auth.users);
    create table public.lines (id int primary key, of int references public.orders);";

#[test]
fn rows_that_go_along_with_an_account_of_the_push_are_kept() {
    let base = base(SHOP);
    base.world.sql(ADMIN, &format!("insert into auth.users (id, email) values ('{}', 'seed@x.y')", id(9)));
    base.world.sql(
        OWNER,
        &format!(
            "insert into public.orders values (1, '{0}'), (2, '{1}'); insert into public.lines values (1, 1), (2, 2);
            insert into public.profiles values ('{0}', 'seed'), ('{1}', 'mine');
            insert into public.posts values (1, '{0}', null), (2, '{1}', 1), (3, '{1}', null);
            insert into public.likes values (1, '{0}'), (2, '{1}')",
            id(9),
            id(1)
        ),
    );
    let besides = users(ManagedRows { added: ids(&[9]), ..ManagedRows::default() });
    // Orders were written by the push too, in the rehearsal.
    let rows = "select count(*) from auth.users where email = 'seed@x.y'; select id from public.posts;
        select id || coalesce(left(of::text, 1), '-') from public.likes order by id; select count(*) from public.orders";
    let (proved, found) = base.back(&["public.orders", "public.lines"], &besides, rows);
    let proved = proved.unwrap();
    assert_eq!(found.join(" "), "0 3 1- 20 0");
    let saved = |table: &str| proved.saved.iter().find(|saved| saved.table == table).unwrap();
    let kept = |table| base.kept(&saved(table).file);
    assert_eq!(kept("public.profiles"), format!("id,name\n{},seed\n", id(9)));
    assert_eq!(kept("public.posts"), format!("id,by,above\n1,{},\n2,{},1\n", id(9), id(1)));
    assert_eq!(kept("public.likes"), format!("id,of\n1,{}\n", id(9)));
    assert_eq!((saved("public.orders").rows, saved("public.posts").rows), (2, 2));

    // What can be is loaded again, what refers to the account stays in the file.
    base.world.sql(ADMIN, "delete from public.lines; delete from public.orders; delete from auth.users where email = 'seed@x.y'");
    base.load();
    let rows = "select count(*) from public.posts; select id from public.orders; select id from public.lines;
        select count(*) from public.profiles";
    assert_eq!(base.world.sql(OWNER, rows), ["1", "2", "2", "1"]);
}

const PARTITIONED: &str = "create table public.visits (id bigint generated by default as identity, of uuid references auth.users on delete cascade,
        day date not null, primary key (id, day)) partition by range (day);
    create table public.visits_1 partition of public.visits for values from ('2026-01-01') to ('2026-02-01');
    create table public.visits_2 partition of public.visits for values from ('2026-02-01') to ('2026-03-01') partition by list (day);
    create table public.visits_2a partition of public.visits_2 default;
    create table public.visits_rest partition of public.visits default;
    create table public.pages (visit bigint, day date, name text, foreign key (visit, day) references public.visits on delete cascade);
    insert into public.visits (of, day) select id, '2026-01-10'::date + 30 * (n % 2) from auth.users, generate_series(1, 2) n;
    insert into public.pages select id, day, 'home' from public.visits;";

#[test]
fn rows_of_accounts_in_partitions_come_and_go_with_them() {
    let base = base(PARTITIONED);
    base.world.sql(
        OWNER,
        "alter table public.visits add column more text; alter table public.pages add column more text",
    );
    base.world.sql(
        ADMIN,
        &format!(
            "delete from auth.users where email = '1@x.y'; insert into auth.users (id, email) values ('{0}', 'new@x.y');
            create table public.visits_3 partition of public.visits for values from ('2026-03-01') to ('2026-04-01');
            insert into public.visits (of, day) values ('{0}', '2026-01-05'), ('{0}', '2026-02-05'), ('{0}', '2026-03-05')",
            id(9)
        ),
    );
    let rows = format!(
        "select tableoid::regclass::text, day from public.visits where of = '{}' order by day;
        select count(*), count(distinct of) from public.visits; select count(*) from public.pages;
        insert into public.visits (day) values ('2026-01-20') returning id > 15",
        id(9)
    );
    let (proved, found) = base.back(&[], &Besides::default(), &rows);
    let proved = proved.unwrap();
    assert_eq!(names(&proved.accounts.loaded), ["3 public.visits"]);
    assert_eq!(names(&proved.accounts.removed), ["2 public.visits", "2 public.pages"]);
    assert_eq!(proved.accounts.failed, None);
    assert_eq!(
        found,
        [
            "public.visits_1|2026-01-05",
            "public.visits_2a|2026-02-05",
            "public.visits_rest|2026-03-05",
            "13|6",
            "10",
            "t"
        ]
    );
}

/// Sessions are the platform's, and do not come back: where a user's own table needs one, the rehearsal
/// says that this is no way back.
#[test]
fn a_rehearsal_in_which_an_account_is_missing_proves_nothing() {
    let tables = "create table public.devices (id int primary key, session uuid references auth.sessions on delete cascade);
        insert into public.devices select 1, id from auth.sessions";
    let damage = "update public.devices set id = 2; delete from auth.sessions;";
    let world = World::hosted(&[("20260101000000_sessions", damage)]);
    world.sql(ADMIN, ACCOUNTS);
    world.sql(
        ADMIN,
        "insert into auth.sessions (id, user_id) select id, id from auth.users where email = '1@x.y'",
    );
    world.sql(ADMIN, &format!("{tables}; alter table public.devices owner to postgres"));
    let ran = world.migrate(&["--json"]).exits(5);
    let findings = &ran.summary()["findings"];
    assert_eq!(findings[0]["rule"], "SS011", "{ran}");
    assert_eq!(world.history(), [""; 0]);
}

#[test]
fn one_row_of_a_new_account_that_does_not_fit_keeps_no_other_away() {
    let base = base(
        "create table public.products (id int primary key);
        create table public.orders (id int primary key, by uuid references auth.users, product int references public.products);
        create table public.notes (id int primary key, by uuid references auth.users, of int references public.orders on delete set null)",
    );
    let new = id(9);
    base.world.sql(ADMIN, &format!("insert into auth.users (id, email) values ('{new}', 'new@x.y')"));
    base.world.sql(
        OWNER,
        &format!(
            "insert into public.products values (1); insert into public.orders values (1, '{new}', 1), (2, '{new}', null);
            insert into public.notes values (1, '{new}', 1), (2, '{new}', 2)"
        ),
    );
    let rows = "select id from public.orders; select id, of from public.notes order by 1";
    let tables = ["public.products", "public.orders", "public.notes"];
    let (proved, found) = base.back(&tables, &Besides::default(), rows);
    let accounts = proved.unwrap().accounts;
    assert_eq!(found, ["2", "1|~", "2|2"]);
    assert_eq!(accounts.failed, None);
    assert_eq!(names(&accounts.loaded), ["2 public.notes", "2 public.orders"]);
    assert_eq!(names(&accounts.unfit), ["1 public.orders", "1 public.notes"]);
}

#[test]
fn what_referred_to_an_account_that_is_gone_follows_the_action_of_its_key() {
    let (gone, other) = (id(1), id(2));
    let base = base(&format!(
        "create table public.members (tenant int, id uuid references auth.users on delete cascade, primary key (tenant, id));
        create table public.posts (id int primary key, tenant int, author uuid,
            foreign key (tenant, author) references public.members on delete set null (author));
        create table public.tags (id int primary key, owner uuid default '{other}' references auth.users on delete set default);
        create table public.marks (id int primary key, owner uuid default '{gone}' references auth.users on delete set default);
        insert into public.members values (7, '{gone}'), (7, '{other}');
        insert into public.posts values (1, 7, '{gone}'), (2, 7, '{other}');
        insert into public.tags values (1, '{gone}'); insert into public.marks values (1, '{gone}')",
    ));
    let tables = ["public.members", "public.posts", "public.tags", "public.marks"];
    base.world.sql(ADMIN, "delete from public.marks; delete from auth.users where email = '1@x.y'");
    let rows =
        "select tenant, id from public.members; select id, tenant, author from public.posts order by 1;
        select id, owner from public.tags; select id from public.marks";
    let (proved, found) = base.back(&tables, &Besides::default(), rows);
    let mut removed = names(&proved.unwrap().accounts.removed);
    removed.sort_unstable();
    assert_eq!(removed, ["1 public.marks", "1 public.members", "1 public.posts", "1 public.tags"]);
    assert_eq!(found, [&format!("7|{other}"), "1|7|~", &format!("2|7|{other}"), &format!("1|{other}")]);
}

#[test]
fn a_view_of_what_users_wrote_since_is_filled_as_it_is_now() {
    let base = base(
        "create table public.notes (id int primary key);
        create materialized view public.accounts as select count(*) from auth.users;
        create materialized view public.written as select count(*) from public.notes",
    );
    base.world.sql(
        OWNER,
        "drop materialized view public.accounts, public.written; insert into public.notes values (1)",
    );
    base.world.sql(
        ADMIN,
        "insert into auth.users (id, email) values ('99999999-0000-0000-0000-000000000000', 'new@x.y')",
    );
    let rows = "select * from public.accounts; select * from public.written";
    let (proved, found) = base.back(&[], &Besides::default(), rows);
    proved.unwrap();
    assert_eq!(found, ["7", "1"]);
}

/// The push makes types longer, and puts one column in the place of another.
#[test]
fn values_of_a_new_account_are_not_cut_and_go_into_no_other_column() {
    let base = base(
        "create domain public.short as varchar(3);
        create table public.profiles (gone int, id uuid primary key references auth.users on delete cascade, name varchar(5),
            price numeric(4, 1), tag public.short, tags varchar(2)[], nick text, a text, b text, phone text,
            born date, ratio real);
        alter table public.profiles drop column gone",
    );
    base.world.sql(
        OWNER,
        "alter table public.profiles alter name type text, alter price type numeric, alter tag type text, alter tags type text[],
            alter born type timestamptz, alter ratio type float8, drop column phone, add column avatar_url text;
        alter table public.profiles rename nick to nickname; alter table public.profiles rename a to c;
        alter table public.profiles rename b to a; alter table public.profiles rename c to b",
    );
    base.world.sql(
        ADMIN,
        &format!(
            "insert into auth.users (id, email) select ('00000000-0000-0000-0000-00000000002' || n)::uuid, 'new' || n || '@x.y'
                from generate_series(0, 7) n;
            insert into public.profiles (id, born, ratio) values
                ('{}', '2001-02-03 04:05+00', null), ('{}', null, 1.23456789012);
            insert into public.profiles (id, name, price, tag, tags, nickname, b, a, avatar_url, born, ratio) values
                ('{}', 'fits', 1.5, 'abc', '{{ab,c}}', 'nick', 'was a', 'was b', 'https://x.y/1.png', '2001-02-03', 0.5),
                ('{}', 'too long', 1, 'x', null, null, null, null, null, null, null),
                ('{}', 'x', 1.25, 'x', null, null, null, null, null, null, null),
                ('{}', 'x', 1, 'abcd', null, null, null, null, null, null, null),
                ('{}', 'x', 1, 'x', '{{abc}}', null, null, null, null, null, null),
                ('{}', 'x', 1.50, null, null, null, null, null, null, null, null)",
            id(26), id(27), id(20), id(21), id(22), id(23), id(24), id(25)
        ),
    );
    let rows = "select right(id::text, 2), name, price, tag, tags, nick, a, b, phone, born, ratio from public.profiles order by 1";
    let (proved, found) = base.back(&[], &Besides::default(), rows);
    let accounts = proved.unwrap().accounts;
    assert_eq!(
        found,
        ["20|fits|1.5|abc|{ab,c}|nick|was a|was b|~|2001-02-03|0.5", "25|x|1.5|~|~|~|~|~|~|~|~"]
    );
    assert_eq!(accounts.failed, None);
    assert_eq!(names(&accounts.loaded), ["2 public.profiles"]);
    assert_eq!(names(&accounts.unfit), ["6 public.profiles"]);
    let load = base.kept("load.sql");
    let told: Vec<&str> = load.lines().filter(|line| line.starts_with("-- Of the file alone")).collect();
    assert_eq!(told, ["-- Of the file alone, the table has none that it was: avatar_url"]);
}

/// What the push had let be without an account cannot be so in the snapshot.
#[test]
fn rows_that_cannot_be_without_their_account_go_with_it() {
    let (gone, other) = (id(1), id(2));
    let base = base(&format!(
        "create table public.orders (id int primary key, of uuid not null references auth.users on delete set null);
        create table public.tips (id int primary key, of uuid references auth.users on delete set null, guest text,
            constraint known check (of is not null or guest is not null));
        create table public.shares (id int, of uuid not null references auth.users on delete set default) partition by list (id);
        create table public.shares_1 partition of public.shares for values in (1, 2);
        insert into public.orders values (1, '{gone}'), (2, '{other}');
        insert into public.tips values (1, '{gone}', null), (2, '{gone}', 'Ann'), (3, '{other}', null);
        insert into public.shares values (1, '{gone}'), (2, '{other}')"
    ));
    base.world.sql(
        OWNER,
        "alter table public.orders alter of drop not null; alter table public.tips drop constraint known;
        alter table public.shares alter of drop not null",
    );
    base.world.sql(ADMIN, "delete from auth.users where email = '1@x.y'");
    let rows = "select id from public.orders; select id, of, guest from public.tips order by 1; select id from public.shares";
    let tables = ["public.orders", "public.tips", "public.shares_1"];
    let (proved, found) = base.back(&tables, &Besides::default(), rows);
    let mut removed = names(&proved.unwrap().accounts.removed);
    removed.sort_unstable();
    assert_eq!(removed, ["1 public.orders", "1 public.shares", "2 public.tips"]);
    assert_eq!(found, ["2", "2|~|Ann", &format!("3|{other}|~"), "2"]);
}
