//! Lines that fit a terminal: broken between words, and indented below their first words.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// With fewer columns than this a line is left to the terminal.
const LEAST: usize = 40;

/// Breaks a text for a stream when that is a terminal; a word that is too long, such as a path, stays
/// whole, so that it can be copied.
pub(super) fn fit(text: &str, stream: &(impl IsTerminal + AsFd)) -> String {
    match terminal_size_of(stream) {
        Some((Width(width), _)) if stream.is_terminal() && usize::from(width) >= LEAST => {
            broken(text, usize::from(width))
        }
        _ => text.to_owned(),
    }
}

fn broken(text: &str, width: usize) -> String {
    let line = |line: &str| {
        let words = line.trim_start_matches(' ');
        let (indent, words) = line.split_at(line.len() - words.len());
        let below = format!("{indent}  ");
        let options = Options::new(width)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation)
            .initial_indent(indent)
            .subsequent_indent(&below);
        textwrap::wrap(words, options).join("\n")
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_what_follows_is_indented() {
        let text = "  limit      the rows of a table\n  /a/very/long/path/without/blanks";
        assert_eq!(
            broken(text, 24),
            "  limit      the rows of\n    a table\n  /a/very/long/path/without/blanks"
        );
        assert_eq!(broken("\u{1b}[1mshort\u{1b}[0m line\n", 12), "\u{1b}[1mshort\u{1b}[0m line\n");
    }
}
