//! The statements of a SQL text, by its tokens.
//!
//! Splitting needs no grammar, so a file that no parser accepts is split all the same. As in the CLI, a
//! semicolon separates only outside parentheses (rules) and outside `BEGIN ATOMIC … END` (SQL functions).

use squawk_lexer::{LiteralKind, TokenKind, tokenize};

/// How many characters of a statement stand in a message.
const SHOWN: usize = 60;

/// One significant token: white space and comments are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    start: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or an unquoted name.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string in dollar quotes.
    Body,
    /// Any other literal.
    Literal,
    /// An operator, a bracket, a separator.
    Symbol,
}

impl Token<'_> {
    /// Whether it is this keyword; `word` is in lower case.
    pub(super) fn is(self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this symbol.
    pub(super) fn is_symbol(self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }
}

/// One statement of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The line it begins in, from 1.
    pub line: usize,
    /// Its text, without the semicolon and the comments around it.
    pub text: &'a str,
    pub(super) tokens: Vec<Token<'a>>,
}

impl<'a> Statement<'a> {
    /// Its beginning in one line, for a message.
    pub fn shown(&self) -> String {
        // A statement may carry megabytes of rows.
        let end = self.text.char_indices().nth(8 * SHOWN).map_or(self.text.len(), |(end, _)| end);
        let head = self.text.get(..end).unwrap_or_default();
        cut(head.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The rest behind these keywords, when it begins with them.
    pub(super) fn after(&self, words: &[&str]) -> Option<&[Token<'a>]> {
        after(&self.tokens, words)
    }

    /// Whether it begins with these keywords.
    pub(super) fn starts(&self, words: &[&str]) -> bool {
        self.after(words).is_some()
    }

    /// Whether a keyword stands anywhere in it.
    pub(super) fn has(&self, word: &str) -> bool {
        has(&self.tokens, word)
    }
}

/// The rest of the tokens behind these keywords.
pub(super) fn after<'t, 'a>(tokens: &'t [Token<'a>], words: &[&str]) -> Option<&'t [Token<'a>]> {
    let head = tokens.get(..words.len())?;
    head.iter().zip(words).all(|(token, word)| token.is(word)).then(|| tokens.get(words.len()..))?
}

/// Whether a keyword stands anywhere.
pub(super) fn has(tokens: &[Token<'_>], word: &str) -> bool {
    tokens.iter().any(|token| token.is(word))
}

/// Whether these keywords stand one behind the other anywhere.
pub(super) fn has_run(tokens: &[Token<'_>], words: &[&str]) -> bool {
    (0..tokens.len()).any(|at| tokens.get(at..).is_some_and(|rest| after(rest, words).is_some()))
}

/// The statements of a text, in order.
pub fn statements<'a>(sql: &'a str) -> Vec<Statement<'a>> {
    let mut found = Vec::new();
    let mut current: Vec<Token<'a>> = Vec::new();
    let mut nesting = Nesting::default();
    let (mut line, mut counted) = (1, 0);
    let mut finish = |tokens: Vec<Token<'a>>| {
        let (first, last) = (tokens.first()?, tokens.last()?);
        line += sql.get(counted..first.start).map_or(0, |between| between.matches('\n').count());
        counted = first.start;
        let text = sql.get(first.start..last.start + last.text.len())?;
        Some(Statement { line, text, tokens })
    };
    for token in tokens(sql) {
        if token.is_symbol(";") && !nesting.at_semicolon() {
            found.extend(finish(std::mem::take(&mut current)));
            continue;
        }
        nesting.pass(token, current.last());
        current.push(token);
    }
    found.extend(finish(current));
    found
}

/// Where a semicolon does not end a statement.
#[derive(Default)]
struct Nesting {
    parentheses: usize,
    atomic: bool,
    /// Inside an atomic body: whether the next token begins one of its statements.
    fresh: bool,
}

impl Nesting {
    /// Takes note of a semicolon; whether it stands inside.
    fn at_semicolon(&mut self) -> bool {
        if self.parentheses == 0 && self.atomic {
            self.fresh = true;
        }
        let inside = self.parentheses > 0 || self.atomic;
        if !inside {
            *self = Self::default();
        }
        inside
    }

    fn pass(&mut self, token: Token<'_>, before: Option<&Token<'_>>) {
        if token.is_symbol("(") {
            self.parentheses += 1;
        } else if token.is_symbol(")") {
            self.parentheses = self.parentheses.saturating_sub(1);
        } else if !self.atomic && token.is("atomic") && before.is_some_and(|before| before.is("begin")) {
            (self.atomic, self.fresh) = (true, true);
            return;
        } else if self.atomic && self.fresh && self.parentheses == 0 && token.is("end") {
            self.atomic = false;
        }
        if !token.is_symbol(";") {
            self.fresh = false;
        }
    }
}

/// A statement's beginning in one line, for people who did not write it: without its comments, and with
/// `?` in the place of every literal, since both may hold what is secret. The end of the text may be cut
/// off, as the server does in `pg_stat_activity`.
pub fn masked(sql: &str) -> String {
    let mut shown = String::new();
    let mut end = 0;
    for token in tokens(sql).into_iter().take(SHOWN) {
        if token.start > end && !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(if matches!(token.kind, Kind::Literal | Kind::Body) { "?" } else { token.text });
        end = token.start + token.text.len();
    }
    cut(shown)
}

/// At most as much as stands in a message.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The significant tokens of a text.
pub(super) fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut start = 0;
    let mut found = Vec::new();
    for token in tokenize(sql) {
        let end = start + token.len as usize;
        if let (Some(kind), Some(text)) = (kind_of(token.kind), sql.get(start..end)) {
            found.push(Token { kind, text, start });
        }
        start = end;
    }
    found
}

fn kind_of(kind: TokenKind) -> Option<Kind> {
    match kind {
        TokenKind::Whitespace | TokenKind::LineComment | TokenKind::BlockComment { .. } | TokenKind::Eof => {
            None
        }
        TokenKind::Ident => Some(Kind::Word),
        TokenKind::QuotedIdent { .. } => Some(Kind::Quoted),
        TokenKind::Literal { kind: LiteralKind::DollarQuotedString { .. } } => Some(Kind::Body),
        TokenKind::Literal { .. } => Some(Kind::Literal),
        _ => Some(Kind::Symbol),
    }
}

/// Whether an applied file still says what the history recorded of it.
///
/// White space, comments, semicolons, the case of unquoted words, and line ends inside of strings (a
/// checkout may turn them) do not count.
pub fn same_statements(file_sql: &str, recorded: &[String]) -> bool {
    fn meaning(sql: &str) -> impl Iterator<Item = String> + use<'_> {
        tokens(sql).into_iter().filter(|token| !token.is_symbol(";")).map(|token| match token.kind {
            Kind::Word => token.text.to_ascii_lowercase(),
            _ => token.text.replace("\r\n", "\n"),
        })
    }
    meaning(file_sql).eq(recorded.iter().flat_map(|statement| meaning(statement)))
}

/// Whether a statement that the server shows as running is one of a file's; the server may have cut off
/// its end.
pub fn holds(sql: &str, running: &str) -> bool {
    let mut shown = tokens(running);
    while shown.last().is_some_and(|token| token.is_symbol(";")) {
        shown.pop();
    }
    let Some(last) = shown.pop() else { return false };
    let begins = |tokens: &[Token<'_>]| {
        let whole = tokens.len() > shown.len()
            && tokens.iter().zip(&shown).all(|(one, other)| one.text == other.text);
        whole && tokens.get(shown.len()).is_some_and(|token| token.text.starts_with(last.text))
    };
    statements(sql).iter().any(|statement| begins(&statement.tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(sql: &str) -> Vec<(usize, &str)> {
        statements(sql).into_iter().map(|statement| (statement.line, statement.text)).collect()
    }

    #[test]
    fn semicolons_separate_only_at_the_top() {
        let cases: [(&str, &[(usize, &str)]); 9] = [
            ("", &[]),
            (" ;; -- only a comment\n/* ; /* nested ; */ ; */", &[]),
            ("select 1;\n\n-- two\nselect\n 2 -- end", &[(1, "select 1"), (4, "select\n 2")]),
            (
                "\u{feff}select ';', \";\", $a$ ; $$ ; $a$; x",
                &[(1, "select ';', \";\", $a$ ; $$ ; $a$"), (1, "x")],
            ),
            ("select e'\\';', 'a'';'; y", &[(1, "select e'\\';', 'a'';'"), (1, "y")]),
            (
                "create rule r as on insert to t do also (select 1; select 2); z",
                &[(1, "create rule r as on insert to t do also (select 1; select 2)"), (1, "z")],
            ),
            (
                "create function f() returns int begin atomic\nselect 1; select case when a then 1 end;\nend;\nz",
                &[
                    (
                        1,
                        "create function f() returns int begin atomic\nselect 1; select case when a then 1 end;\nend",
                    ),
                    (4, "z"),
                ],
            ),
            ("begin; commit", &[(1, "begin"), (1, "commit")]),
            ("select 'never closed; select 2", &[(1, "select 'never closed; select 2")]),
        ];
        for (sql, expected) in cases {
            assert_eq!(split(sql), expected, "{sql}");
        }
    }

    #[test]
    fn long_statements_are_shown_short() {
        let sql = format!("select\n  'ü{}'", "x".repeat(100));
        assert_eq!(statements(&sql)[0].shown(), format!("select 'ü{}…", "x".repeat(51)));
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let cases = [
            (
                "select\n  secret -- hunter2\n from t where k = 'hunter2' and n=42",
                "select secret from t where k = ? and n=?",
            ),
            (
                "alter role a password E'hunt\\'er2'; select $x$hunter2$x$",
                "alter role a password ?; select ?",
            ),
            ("insert into t values ('cut of", "insert into t values (?"),
            ("do $$ begin perform 'cut of", "do ?"),
            ("select /* never closed", "select"),
            ("", ""),
        ];
        for (sql, expected) in cases {
            assert_eq!(masked(sql), expected, "{sql}");
        }
        assert_eq!(masked(&format!("select {}", "x".repeat(80))), format!("select {}…", "x".repeat(53)));
    }

    #[test]
    fn a_running_statement_is_found_in_its_file() {
        let sql = "create table a (i int);\n-- why\nupdate a set i = 'long; one' where true;";
        for running in [
            "create table a (i int)",
            "create table a (i int);",
            "update a set i = 'long; one' where true",
            "  update a\n set /* x */ i = 'long;",
            "update a set i = 'long; one' wh",
        ] {
            assert!(holds(sql, running), "{running}");
        }
        for running in ["", ";", "table a", "create table a (i int8)", "update a set i = 'other", "select 1"]
        {
            assert!(!holds(sql, running), "{running}");
        }
    }

    #[test]
    fn an_edit_is_told_from_a_new_layout() {
        let recorded = ["-- first\nCREATE TABLE a (i int)", "select $$ x;\n y $$"].map(str::to_owned);
        let check = |file: &str| same_statements(file, &recorded);
        assert!(check("create table a(i INT);\r\n\r\nselect $$ x;\r\n y $$ -- done"));
        assert!(check("create table a(i int) select $$ x;\n y $$"));
        assert!(!check("create table a(i int); select $$ x;\n  y $$"));
        assert!(!check("create table \"a\"(i int); select $$ x;\n y $$"));
        assert!(!check("create table a(i int);"));
        assert!(!check("create table a(i int); select $$ x;\n y $$; select 1"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_token_is_lost(parts in prop::collection::vec(
            prop::sample::select(vec!["a", "begin", "atomic", "end", ";", "(", ")", "'", "\"", "$$", "--", "/*", "*/", "\n", " ", "e'", "\\", "ü"]),
            0..24,
        )) {
            let sql = parts.concat();
            let split: Vec<String> = statements(&sql).iter().map(|one| one.text.to_owned()).collect();
            prop_assert!(same_statements(&sql, &split));
        }
    }
}
