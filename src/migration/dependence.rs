//! Which statements succeed, or do something, depending on the rows that are there.
//!
//! A rehearsal on older rows proves nothing for such a statement on the fresh ones. When in doubt a
//! statement counts as dependent; a table that the file itself makes has no rows from before. A plain
//! index over columns is left out: that a value is too long for it is not worth another rehearsal.

use super::statements::{Kind, Statement, Token, after, has, has_run, statements};
use std::collections::BTreeSet;
use std::fmt;

/// A statement that depends on rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependence {
    /// The line it begins in, from 1.
    pub line: usize,
    /// Its first words.
    pub statement: String,
    /// How.
    pub cause: Cause,
}

/// How a statement depends on rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It checks every row against a rule.
    Validates,
    /// It changes or copies rows.
    Backfills,
    /// It wants values to be unique.
    Unique,
    /// It wants values to be there.
    NotNull,
    /// It turns values into another type.
    Converts,
    /// What it does cannot be read from its text.
    Opaque,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Validates => "checks every row",
            Self::Backfills => "changes or copies rows",
            Self::Unique => "wants unique values",
            Self::NotNull => "wants a value in every row",
            Self::Converts => "converts values",
            Self::Opaque => "does what its text does not show",
        })
    }
}

/// The statements of a file that depend on rows.
pub fn data_dependence(sql: &str) -> Vec<Dependence> {
    let mut made = Made::default();
    let mut found = Vec::new();
    for statement in statements(sql) {
        if let Some(cause) = cause(&statement, &made) {
            found.push(Dependence { line: statement.line, statement: statement.shown(), cause });
        }
        made.note(&statement);
    }
    found
}

/// The tables that the file has made so far.
#[derive(Default)]
struct Made(BTreeSet<String>);

impl Made {
    fn note(&mut self, statement: &Statement<'_>) {
        if let Some(rest) = new_table(statement) {
            // With `IF NOT EXISTS` the table may be an old one.
            if after(rest, &["if"]).is_none() {
                self.0.extend(table_name(rest));
            }
        } else if let Some(rest) = statement.after(&["alter", "table"])
            && has_run(rest, &["rename", "to"])
        {
            self.forget(rest);
        } else if let Some(rest) = statement.after(&["drop", "table"]) {
            self.forget(rest);
        }
    }

    fn forget(&mut self, rest: &[Token<'_>]) {
        if let Some(name) = table_name(past_options(rest)) {
            self.0.remove(&name);
        }
    }

    fn has(&self, rest: &[Token<'_>]) -> bool {
        table_name(past_options(rest)).is_some_and(|name| self.0.contains(&name))
    }
}

/// Passes `IF [NOT] EXISTS` and `ONLY`.
pub(super) fn past_options<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let skip = tokens
        .iter()
        .take_while(|token| ["if", "not", "exists", "only"].iter().any(|word| token.is(word)))
        .count();
    tokens.get(skip..).unwrap_or_default()
}

/// A table's name as the server folds it; `public` is taken for the default schema.
fn table_name(tokens: &[Token<'_>]) -> Option<String> {
    let mut name = fold(tokens.first()?)?;
    if tokens.get(1).is_some_and(|token| token.is_symbol(".")) {
        name = format!("{name}.{}", fold(tokens.get(2)?)?);
    }
    Some(name.strip_prefix("public.").map_or(name.clone(), str::to_owned))
}

/// A name as the server folds it.
pub(super) fn fold(token: &Token<'_>) -> Option<String> {
    match token.kind {
        Kind::Word => Some(token.text.to_ascii_lowercase()),
        Kind::Quoted => Some(token.text.trim_matches('"').to_owned()),
        _ => None,
    }
}

/// What follows `CREATE [TEMP …] TABLE`.
fn new_table<'s, 'a>(statement: &'s Statement<'a>) -> Option<&'s [Token<'a>]> {
    const KINDS: [&str; 6] = ["global", "local", "temp", "temporary", "unlogged", "foreign"];
    let rest = statement.after(&["create"])?;
    let skip = rest.iter().take_while(|token| KINDS.iter().any(|kind| token.is(kind))).count();
    after(rest.get(skip..)?, &["table"])
}

fn cause(statement: &Statement<'_>, made: &Made) -> Option<Cause> {
    let first = statement.tokens.first()?;
    if first.kind != Kind::Word {
        return Some(Cause::Opaque);
    }
    match first.text.to_ascii_lowercase().as_str() {
        "update" | "delete" | "merge" | "copy" | "truncate" | "with" | "refresh" => Some(Cause::Backfills),
        "insert" => insert(statement, made),
        "select" => select(statement),
        "create" => create(statement, made),
        "alter" => alter(statement, made),
        "drop" | "grant" | "revoke" | "comment" | "set" | "reset" | "security" | "reassign" | "begin"
        | "start" | "commit" | "end" | "abort" | "rollback" | "savepoint" | "release" | "lock"
        | "analyze" | "vacuum" | "cluster" | "reindex" | "notify" | "listen" | "unlisten" | "discard"
        | "deallocate" | "checkpoint" | "load" => None,
        _ => Some(Cause::Opaque),
    }
}

/// Values that stand in the file meet old rows only through the keys of an old table.
fn insert(statement: &Statement<'_>, made: &Made) -> Option<Cause> {
    let reads = ["select", "table", "returning"].iter().any(|word| statement.has(word));
    let rest = statement.after(&["insert", "into"]).unwrap_or_default();
    (reads || !made.has(rest)).then_some(Cause::Backfills)
}

/// Only settings and constants are harmless: any function may do anything.
fn select(statement: &Statement<'_>) -> Option<Cause> {
    let calls = statement.tokens.windows(2).any(|pair| {
        let [name, next] = pair else { return false };
        let named = matches!(name.kind, Kind::Word | Kind::Quoted) && !name.is("select");
        next.is_symbol("(") && named && !name.is("set_config")
    });
    if statement.has("into") {
        return Some(Cause::Backfills);
    }
    (calls || statement.has("from")).then_some(Cause::Opaque)
}

fn create(statement: &Statement<'_>, made: &Made) -> Option<Cause> {
    if let Some(rest) = new_table(statement) {
        let tail = top_level(rest);
        if has(&tail, "as") && ["select", "table", "values", "with", "execute"].iter().any(|w| has(rest, w)) {
            return (!has_run(rest, &["with", "no", "data"])).then_some(Cause::Backfills);
        }
        // A default partition is searched for rows that belong into the new one.
        let parent = rest.iter().position(|token| token.is("of")).and_then(|at| rest.get(at + 1..));
        let partition = has_run(rest, &["partition", "of"]) && !parent.is_some_and(|rest| made.has(rest));
        return partition.then_some(Cause::Validates);
    }
    if statement.starts(&["create", "materialized", "view"]) {
        return (!has_run(&statement.tokens, &["with", "no", "data"])).then_some(Cause::Backfills);
    }
    if let Some(rest) = statement.after(&["create", "unique", "index"]) {
        return (!made.has(behind_on(rest))).then_some(Cause::Unique);
    }
    if let Some(rest) = statement.after(&["create", "index"]) {
        let target = behind_on(rest);
        let nested = target.iter().filter(|token| token.is_symbol("(")).count() > 1;
        return ((nested || has(target, "where")) && !made.has(target)).then_some(Cause::Validates);
    }
    None
}

fn behind_on<'t, 'a>(tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    let on = tokens.iter().position(|token| token.is("on")).map_or(tokens.len(), |at| at + 1);
    tokens.get(on..).unwrap_or_default()
}

fn alter(statement: &Statement<'_>, made: &Made) -> Option<Cause> {
    if let Some(rest) = statement.after(&["alter", "table"]) {
        if made.has(rest) {
            return None;
        }
        return actions(rest).into_iter().find_map(table_action);
    }
    if let Some(rest) = statement.after(&["alter", "domain"]) {
        return actions(rest).into_iter().find_map(table_action);
    }
    let attribute = statement.starts(&["alter", "type"])
        && has_run(&statement.tokens, &["alter", "attribute"])
        && statement.has("cascade");
    attribute.then_some(Cause::Converts)
}

/// The actions of an `ALTER TABLE`, without the table's name.
fn actions<'t, 'a>(rest: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let rest = past_options(rest);
    let qualified = rest.get(1).is_some_and(|token| token.is_symbol("."));
    let mut rest = rest.get(if qualified { 3 } else { 1 }..).unwrap_or_default();
    if rest.first().is_some_and(|token| token.is_symbol("*")) {
        rest = rest.get(1..).unwrap_or_default();
    }
    let mut depth = 0_usize;
    rest.split(|token| {
        if token.is_symbol("(") || token.is_symbol("[") {
            depth += 1;
        } else if token.is_symbol(")") || token.is_symbol("]") {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.is_symbol(",")
    })
    .collect()
}

/// The tokens outside of all parentheses.
fn top_level<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut depth = 0_usize;
    let outside = |token: &&Token<'a>| {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && !token.is_symbol(")")
    };
    tokens.iter().filter(outside).copied().collect()
}

fn table_action(action: &[Token<'_>]) -> Option<Cause> {
    let outer = top_level(action);
    if let Some(rest) = after(&outer, &["add"]) {
        return added(rest);
    }
    let rest = after(&outer, &["alter"]).unwrap_or_default();
    let runs = |words: &[&str]| has_run(&outer, words);
    if runs(&["set", "not", "null"]) {
        Some(Cause::NotNull)
    } else if has(rest, "type") && !has(rest, "default") {
        Some(Cause::Converts)
    } else if after(&outer, &["validate"]).is_some()
        || after(&outer, &["attach"]).is_some()
        || runs(&["set", "expression"])
    {
        Some(Cause::Validates)
    } else {
        None
    }
}

/// What an added constraint or column asks of the rows.
fn added(rest: &[Token<'_>]) -> Option<Cause> {
    let named = after(rest, &["constraint"]).and_then(|rest| rest.get(1..));
    let (rest, named) = (named.unwrap_or(rest), named.is_some());
    let begins = |word: &str| after(rest, &[word]).is_some();
    if has_run(rest, &["not", "valid"]) {
        return None;
    }
    if begins("primary") && has_run(rest, &["using", "index"]) {
        return Some(Cause::NotNull);
    }
    if begins("unique") || begins("primary") {
        return (!has_run(rest, &["using", "index"])).then_some(Cause::Unique);
    }
    if begins("check") || begins("exclude") || (begins("foreign") && has(rest, "key")) {
        return Some(Cause::Validates);
    }
    if named {
        return Some(if begins("not") { Cause::NotNull } else { Cause::Validates });
    }
    added_column(rest)
}

fn added_column(rest: &[Token<'_>]) -> Option<Cause> {
    let has = |word: &str| has(rest, word);
    let filled =
        has("default") || has("generated") || has("serial") || has("bigserial") || has("smallserial");
    if has("unique") || has_run(rest, &["primary", "key"]) {
        Some(Cause::Unique)
    } else if has("check")
        || (has("references") && filled)
        || has_run(rest, &["generated", "always", "as"]) && !has("identity")
    {
        Some(Cause::Validates)
    } else {
        (has_run(rest, &["not", "null"]) && !filled).then_some(Cause::NotNull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_look_at_rows_is_left_out() {
        for sql in [
            "create table a(i int primary key check (i > 0), b int references c(i) not null)",
            "create table a(i int); alter table public.a add constraint c check (i > 0); create unique index on a(i)",
            "create table \"A b\"(i int); insert into \"A b\" values (1); alter table only \"A b\" alter i set not null",
            "alter table a add column b int, add c text not null default 'x', drop column d cascade, rename to e",
            "alter table a add constraint c check (b > 0) not valid, add foreign key (b) references d(i) not valid",
            "alter table a add unique using index i; alter table a alter b drop not null, alter c set default now()",
            "alter table a add e bigserial not null, add f int generated by default as identity",
            "create index on a(b, c); create index concurrently if not exists i on s.a using gin (b jsonb_path_ops)",
            "create or replace view v as select * from a; create policy p on a using (true); drop table a cascade",
            "create function f() returns int language sql begin atomic update a set b = 1; select 1; end",
            "create trigger t before update on a for each row execute function f()",
            "select set_config('search_path', '', false); select 1; grant select on a to b; comment on table a is 'x'",
            "alter type e add value 'x'; alter type e rename to f; alter table a enable row level security",
            "alter table a alter column type set default 1; create materialized view v as select 1 with no data",
        ] {
            assert_eq!(data_dependence(sql), [], "{sql}");
        }
    }

    #[test]
    fn what_looks_at_rows_is_found() {
        use Cause::*;
        let cases: [(&str, &[(usize, Cause)]); 22] = [
            (
                "select 1;\nupdate a set b = 1;\nwith x as (delete from a returning *) insert into b select * from x",
                &[(2, Backfills), (3, Backfills)],
            ),
            (
                "create table a(i int); insert into a select 1 from b; insert into old values (1)",
                &[(1, Backfills), (1, Backfills)],
            ),
            ("create table if not exists a(i int); insert into a values (1)", &[(1, Backfills)]),
            ("create table a(i int); drop table a; update a set i = 1", &[(1, Backfills)]),
            (
                "create table n(i int); alter table n rename to m; alter table o rename to n; alter table n alter i set not null",
                &[(1, NotNull)],
            ),
            ("alter table a add constraint c check (b > 0)", &[(1, Validates)]),
            (
                "alter table a add b int, add constraint \"not valid\" foreign key (b) references d(i)",
                &[(1, Validates)],
            ),
            ("alter table a add exclude using gist (b with &&)", &[(1, Validates)]),
            (
                "alter table a add primary key (i); alter table a add constraint c unique (i)",
                &[(1, Unique); 2],
            ),
            ("alter table a add constraint c primary key using index i", &[(1, NotNull)]),
            ("alter table if exists only s.a * validate constraint c", &[(1, Validates)]),
            ("create unique index concurrently on a(b)", &[(1, Unique)]),
            (
                "create index on a((b::int)); create index on a(lower(b)); create index on a(b) where c / d > 1",
                &[(1, Validates); 3],
            ),
            ("alter table a alter column b set not null, alter c type int using c::int", &[(1, NotNull)]),
            (
                "alter table a alter c type int using c::int; alter table a alter c set data type text",
                &[(1, Converts); 2],
            ),
            (
                "alter table a add b int not null; alter table a add column b int unique",
                &[(1, NotNull), (1, Unique)],
            ),
            ("alter table a add b int generated always as (1 / c) stored", &[(1, Validates)]),
            (
                "alter table a attach partition b for values in (1); create table p partition of a default",
                &[(1, Validates); 2],
            ),
            (
                "alter domain d add constraint c check (value > 0); alter domain d set not null",
                &[(1, Validates), (1, NotNull)],
            ),
            ("do $$ begin end $$; call p(); execute q; select f(); select * from a", &[(1, Opaque); 5]),
            (
                "create table a as select * from b; select * into c from b; refresh materialized view v",
                &[(1, Backfills); 3],
            ),
            ("create materialized view v as select 1; truncate a; copy a from '/x'", &[(1, Backfills); 3]),
        ];
        for (sql, expected) in cases {
            let found: Vec<_> = data_dependence(sql).iter().map(|one| (one.line, one.cause)).collect();
            assert_eq!(found, expected, "{sql}");
        }
    }
}
