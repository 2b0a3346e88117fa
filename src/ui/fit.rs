//! Lines that fit a terminal: broken between words, and indented below their first words.

use super::plain::plain;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// With fewer columns than this a line is left to the terminal.
const LEAST: usize = 40;

/// A title with more columns than this does not push the text below it to the right.
const WIDEST_TITLE: usize = 20;
/// Stands for a blank at which no line is broken; Unicode gives it no meaning of its own.
const FIXED_BLANK: char = '\u{e000}';

/// Breaks a text for a stream when that is a terminal; a word that is too long, such as a path, stays
/// whole, and so does what stands in backticks or is a command, so that it can be copied.
pub(super) fn fit(text: &str, stream: &(impl IsTerminal + AsFd)) -> String {
    fit_beside(text, stream, 0)
}

/// The same, with so many columns left free.
pub(super) fn fit_beside(text: &str, stream: &(impl IsTerminal + AsFd), free: usize) -> String {
    let text = plain(text);
    match terminal_size_of(stream) {
        Some((Width(width), _)) if stream.is_terminal() && usize::from(width) >= LEAST + free => {
            broken(&text, usize::from(width) - free)
        }
        _ => text.into_owned(),
    }
}

fn broken(text: &str, width: usize) -> String {
    let line = |line: &str| {
        let words = line.trim_start_matches(' ');
        if words.starts_with("$ ") {
            return line.to_owned();
        }
        let (indent, words) = line.split_at(line.len() - words.len());
        let below = " ".repeat(indent.len() + hanging(words));
        let options = Options::new(width)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation)
            .initial_indent(indent)
            .subsequent_indent(&below);
        textwrap::wrap(&with_fixed(words), options).join("\n").replace(FIXED_BLANK, " ")
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// How far to the right the lines below the first begin: where the text after a title does, or two columns.
fn hanging(words: &str) -> usize {
    let Some((title, text)) = words.split_once("  ") else { return 2 };
    let blanks = text.len() - text.trim_start_matches(' ').len();
    let width = textwrap::core::display_width(title) + 2 + blanks;
    if width <= WIDEST_TITLE { width } else { 2 }
}

/// The words, with those between backticks as one.
fn with_fixed(words: &str) -> String {
    let mut is_fixed = false;
    let fixed = |letter| {
        is_fixed ^= letter == '`';
        if is_fixed && letter == ' ' { FIXED_BLANK } else { letter }
    };
    words.chars().map(fixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_what_follows_is_indented() {
        let text = "  limit      the rows of a table\n  /a/very/long/path/without/blanks";
        assert_eq!(
            broken(text, 24),
            "  limit      the rows of\n             a table\n  /a/very/long/path/without/blanks"
        );
        assert_eq!(broken("- one two three", 8), "- one\n  two\n  three");
        assert_eq!(
            broken("a title of more than twenty letters  b", 36),
            "a title of more than twenty letters\n  b"
        );
        assert_eq!(broken("\u{1b}[1mshort\u{1b}[0m line\n", 12), "\u{1b}[1mshort\u{1b}[0m line\n");
    }

    #[test]
    fn what_is_copied_stays_on_one_line() {
        assert_eq!(broken("run `cd a && b` again", 12), "run\n  `cd a && b`\n  again");
        assert_eq!(broken("  $ psql --file=a.sql --quiet", 12), "  $ psql --file=a.sql --quiet");
        assert_eq!(broken("it is `odd and long", 12), "it is\n  `odd and long");
    }
}
