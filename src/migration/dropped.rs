//! What a file drops by its text: a copy that lacks an extension does not show that it went.

use super::dependence::{fold, past_options};
use super::statements::statements;

/// The extensions that a file drops by name.
pub fn dropped_extensions(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in statements(sql) {
        let Some(rest) = statement.after(&["drop", "extension"]) else { continue };
        let names = past_options(rest).split(|token| token.is_symbol(","));
        found.extend(names.filter_map(|name| fold(name.first()?)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_named_as_the_server_folds_them() {
        let sql = "drop extension if exists \"pg_cron\";\n/* x */ DROP EXTENSION PGMQ, \"uuid-ossp\" cascade;
            create extension hstore; comment on extension citext is 'drop extension citext';";
        assert_eq!(dropped_extensions(sql), ["pg_cron", "pgmq", "uuid-ossp"]);
    }
}
