//! Which statements keep a file from being all-or-nothing.
//!
//! The rules are those of CLI 2.110 and later, run against servers 15 and 17: a file is sent as one
//! pipeline, that is one transaction with its history row, except that some statements are sent alone
//! between two batches, that transaction control anywhere makes the whole file run statement by
//! statement, and that the server itself commits at once around statements that own their transaction.

use super::statements::{Kind, Statement, has, has_run, statements, tokens};
use std::fmt;

/// The first line that makes the CLI run a file without any transaction.
const PG_DELTA: &str = "-- pg-delta: transaction=false";

/// A statement after which a failure does not take the whole file back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAtomic {
    /// The line it begins in, from 1.
    pub line: usize,
    /// Its first words.
    pub statement: String,
    /// Why.
    pub reason: Reason,
}

/// Why a file is not all-or-nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `CONCURRENTLY`: several transactions, and an invalid index when it fails.
    Concurrently,
    /// `VACUUM` cannot run in a transaction.
    Vacuum,
    /// `ALTER SYSTEM` cannot run in a transaction.
    AlterSystem,
    /// `CLUSTER`, which the CLI sends alone.
    Cluster,
    /// Databases, tablespaces, subscriptions, whole reindexing: the server commits with the statement.
    OwnTransaction,
    /// `BEGIN`, `COMMIT`, and their like: the CLI runs the file statement by statement.
    TransactionControl,
    /// A `DO` block or a procedure that may commit in the middle.
    MayCommit,
    /// The first line turns transactions off.
    PgDelta,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Concurrently => {
                "`CONCURRENTLY` runs outside of the file's transaction and can leave an invalid index"
            }
            Self::Vacuum => "`VACUUM` runs outside of the file's transaction",
            Self::AlterSystem => "`ALTER SYSTEM` runs outside of the file's transaction",
            Self::Cluster => "`CLUSTER` runs outside of the file's transaction",
            Self::OwnTransaction => "the server commits together with this statement",
            Self::TransactionControl => {
                "transaction control makes every statement of the file commit by itself"
            }
            Self::MayCommit => "the block or procedure may commit what came before it",
            Self::PgDelta => "the first line turns transactions off for the file",
        })
    }
}

/// What keeps a file from being all-or-nothing; empty when nothing does.
pub fn atomicity(sql: &str) -> Vec<NotAtomic> {
    let text = sql.strip_prefix('\u{feff}').unwrap_or(sql);
    let first_line = text.split('\n').next().unwrap_or_default();
    if first_line.strip_suffix('\r').unwrap_or(first_line) == PG_DELTA {
        return vec![NotAtomic { line: 1, statement: PG_DELTA.to_owned(), reason: Reason::PgDelta }];
    }
    let judged = statements(sql).into_iter().filter_map(|statement| {
        let reason = reason(&statement)?;
        Some(NotAtomic { line: statement.line, statement: statement.shown(), reason })
    });
    judged.collect()
}

fn reason(statement: &Statement<'_>) -> Option<Reason> {
    let starts = |words: &[&str]| statement.starts(words);
    if controls_transaction(statement) {
        Some(Reason::TransactionControl)
    } else if is_concurrent(statement) {
        Some(Reason::Concurrently)
    } else if starts(&["vacuum"]) {
        Some(Reason::Vacuum)
    } else if starts(&["alter", "system"]) {
        Some(Reason::AlterSystem)
    } else if starts(&["cluster"]) {
        Some(Reason::Cluster)
    } else if owns_transaction(statement) {
        Some(Reason::OwnTransaction)
    } else if starts(&["call"]) || (starts(&["do"]) && body_may_commit(statement)) {
        Some(Reason::MayCommit)
    } else {
        None
    }
}

/// A comment between the words hides `BEGIN` from the CLI, which then reports success while the server
/// throws the open transaction away; here it counts all the same.
///
/// `SAVEPOINT`, `RELEASE`, and `ROLLBACK TO` are left out: they fail, and the file fails whole.
fn controls_transaction(statement: &Statement<'_>) -> bool {
    let starts = |words: &[&str]| statement.starts(words);
    if starts(&["rollback"]) {
        let to = |words: &[&str]| starts(words);
        return !(to(&["rollback", "to"])
            || to(&["rollback", "work", "to"])
            || to(&["rollback", "transaction", "to"]));
    }
    let plain = ["begin", "commit", "end", "abort"].iter().any(|word| starts(&[*word]));
    plain || starts(&["start", "transaction"]) || starts(&["prepare", "transaction"])
}

fn is_concurrent(statement: &Statement<'_>) -> bool {
    let index = [&["create", "index"][..], &["create", "unique", "index"], &["drop", "index"]];
    let at_once = |words: &&[&str]| {
        statement.after(words).and_then(|rest| rest.first()).is_some_and(|next| next.is("concurrently"))
    };
    index.iter().any(at_once)
        || (statement.starts(&["reindex"]) && statement.has("concurrently"))
        || (statement.starts(&["alter", "table"])
            && has_run(&statement.tokens, &["detach", "partition"])
            && statement.has("concurrently"))
}

/// First in its batch such a statement commits by itself; behind another one it always fails.
fn owns_transaction(statement: &Statement<'_>) -> bool {
    let starts = |words: &[&str]| statement.starts(words);
    let whole = ["schema", "database", "system"];
    ["create", "drop"]
        .iter()
        .any(|verb| ["database", "tablespace", "subscription"].iter().any(|what| starts(&[*verb, *what])))
        || starts(&["alter", "subscription"])
        || (starts(&["alter", "database"]) && has_run(&statement.tokens, &["set", "tablespace"]))
        || statement.after(&["reindex"]).is_some_and(|rest| whole.iter().any(|what| has(rest, what)))
}

/// Whether the body of a `DO` ends a transaction or calls a procedure that could.
fn body_may_commit(statement: &Statement<'_>) -> bool {
    let bodies = statement.tokens.iter().filter(|token| matches!(token.kind, Kind::Body | Kind::Literal));
    bodies.into_iter().any(|body| {
        let inner = tokens(inside(body.text));
        let at = |index: usize| index.checked_sub(1).and_then(|before| inner.get(before));
        inner.iter().enumerate().any(|(index, token)| {
            // `ON COMMIT DROP` of a temporary table ends nothing.
            ["commit", "rollback", "call"].iter().any(|word| token.is(word))
                && !at(index).is_some_and(|before| before.is("on"))
        })
    })
}

/// What stands between the quotes of a dollar-quoted or plain string.
pub(super) fn inside(literal: &str) -> &str {
    let dollars = || {
        let end = literal.get(1..)?.find('$')? + 2;
        let tag = literal.get(..end)?;
        literal.get(end..)?.strip_suffix(tag)
    };
    if literal.starts_with('$') {
        return dollars().unwrap_or(literal);
    }
    let quoted = literal.find('\'').and_then(|at| literal.get(at + 1..));
    quoted.map_or(literal, |text| text.strip_suffix('\'').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_files_have_no_findings() {
        for sql in [
            "create table a(i int); create index on a(i); drop table b;",
            "alter type e add value 'x'; refresh materialized view concurrently v; analyze t;",
            "reindex table t; lock table t; set local work_mem = '4MB'; savepoint s; rollback to s;",
            "create function f() returns trigger language plpgsql as $$ begin commit; end $$;",
            "create function f() returns int begin atomic select 1; end;",
            "do $$ begin create temp table x (i int) on commit drop; raise notice 'commit'; end $$;",
            "prepare q as select 1; comment on table a is 'vacuum; commit';",
            "select 1; -- pg-delta: transaction=false",
            " -- pg-delta: transaction=false\nselect 1;",
            "alter database d set work_mem = '4MB'; create index concurrently_1 on t(i)",
            "\"begin\"; create rule r as on update to t do (delete from a; select 1)",
        ] {
            assert_eq!(atomicity(sql), [], "{sql}");
        }
    }

    #[test]
    fn each_reason_is_found_where_it_stands() {
        use Reason::*;
        let cases: [(&str, &[(usize, Reason)]); 14] = [
            ("create table a(i int);\nCREATE INDEX concurrently i on a(i);", &[(2, Concurrently)]),
            ("create unique index /* x */ concurrently i on a(i)", &[(1, Concurrently)]),
            (
                "drop index concurrently i; reindex (concurrently) table t; alter table a detach partition b concurrently",
                &[(1, Concurrently); 3],
            ),
            ("-- /* \n vacuum(analyze) t; vacuum", &[(2, Vacuum), (2, Vacuum)]),
            ("alter system set work_mem = '4MB'; cluster t", &[(1, AlterSystem), (1, Cluster)]),
            (
                "create database d; drop subscription s; reindex (verbose) schema public",
                &[(1, OwnTransaction); 3],
            ),
            (
                "create tablespace t location '/x'; alter database d set tablespace t",
                &[(1, OwnTransaction); 2],
            ),
            ("begin; select 1;\ncommit;", &[(1, TransactionControl), (2, TransactionControl)]),
            ("begin/* hidden from the CLI */; select 1", &[(1, TransactionControl)]),
            (
                "start transaction; end; abort; rollback work; prepare transaction 'x'",
                &[(1, TransactionControl); 5],
            ),
            ("do $body$ begin perform 1; commit; end $body$", &[(1, MayCommit)]),
            ("do language plpgsql 'begin call p(); end'; call q();", &[(1, MayCommit), (1, MayCommit)]),
            ("-- pg-delta: transaction=false\nbegin;", &[(1, PgDelta)]),
            ("\u{feff}-- pg-delta: transaction=false\r\nselect 1", &[(1, PgDelta)]),
        ];
        for (sql, expected) in cases {
            let found: Vec<_> = atomicity(sql).iter().map(|one| (one.line, one.reason)).collect();
            assert_eq!(found, expected, "{sql}");
        }
    }
}
