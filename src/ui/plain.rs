//! Text of others, shown so that it can only say what it says: names of files, tables, and projects may
//! hold what moves a terminal's cursor or turns the order of letters around.

use super::styles;
use anstyle::{Reset, Style};
use std::borrow::Cow;

/// Shows what a terminal would act on, but for the ends of lines and this program's own colors.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    shown(text, |letter| letter == '\n')
}

/// The same for one line.
pub(super) fn plain_line(text: &str) -> Cow<'_, str> {
    shown(text, |_| false)
}

fn shown(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(|letter| acts(letter) && !is_kept(letter)) {
        return Cow::Borrowed(text);
    }
    let own: Vec<String> = [styles::BOLD, styles::ERROR, styles::WARNING, styles::DONE, styles::HINT]
        .iter()
        // A color is written after its weight.
        .flat_map(|style: &Style| {
            let whole = style.render().to_string();
            whole.split_inclusive('m').map(str::to_owned).collect::<Vec<_>>()
        })
        .chain([Reset.render().to_string()])
        .collect();
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let width = match own.iter().find(|own| rest.starts_with(own.as_str())) {
            Some(own) => {
                out.push_str(own);
                own.len()
            }
            None if acts(letter) && !is_kept(letter) => {
                out.extend(letter.escape_default());
                letter.len_utf8()
            }
            None => {
                out.push(letter);
                letter.len_utf8()
            }
        };
        rest = rest.get(width..).unwrap_or_default();
    }
    Cow::Owned(out)
}

/// Control characters, and those that end lines or turn the order of letters (Unicode Standard Annex 9).
fn acts(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::super::styles::DONE;
    use super::*;

    #[test]
    fn what_moves_the_cursor_is_shown() {
        let name = "1_a\u{1b}[1A\u{1b}[2K\u{8}\r\u{202e}lqs.sql";
        assert_eq!(plain(name), r"1_a\u{1b}[1A\u{1b}[2K\u{8}\r\u{202e}lqs.sql");
        let line = format!("{DONE}✓{DONE:#} a\nb");
        assert_eq!(plain(&line), line);
        assert_eq!(plain_line(&line), format!("{DONE}✓{DONE:#} a\\nb"));
    }
}
