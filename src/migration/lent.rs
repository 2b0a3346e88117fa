//! What only superusers may do on a plain server, and the platform's library lets its role do.

use super::atomicity;
use super::statements::{Statement, statements};

/// Whether the statement of this number, from 1, makes an event trigger or an extension, and a failure of it
/// took the whole file back.
pub fn is_lent(sql: &str, number: usize) -> bool {
    let kinds: [&[&str]; 2] = [&["create", "event", "trigger"], &["create", "extension"]];
    let is_meant = |statement: &Statement<'_>| kinds.iter().any(|words| statement.starts(words));
    let found = statements(sql);
    number.checked_sub(1).and_then(|at| found.get(at)).is_some_and(is_meant) && atomicity(sql).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_of_superusers_is_lent_where_its_file_is_atomic() {
        let sql = "select 1;\n-- x\nCREATE EVENT TRIGGER t on ddl_command_end execute function f();\ncreate extension pg_net;";
        let found: Vec<bool> = (0..5).map(|number| is_lent(sql, number)).collect();
        assert_eq!(found, [false, false, true, true, false]);
        assert!(!is_lent("create index concurrently on t (i);\ncreate extension pg_net;", 2));
    }
}
