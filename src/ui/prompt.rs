//! Questions to a person at a terminal.

use super::fit::fit_beside;
use super::plain::plain_line;
use std::io::{self, IsTerminal as _, Write as _};

/// Columns that a question leaves to its answer: dialoguer draws its line again, and can only take back one.
const ANSWER: usize = 24;

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What was typed.
    Typed(String),
    /// There is no terminal to ask on.
    NoTerminal,
    /// Ctrl-C.
    Cancelled,
}

/// Whether there is a terminal to ask on: dialoguer draws on stderr and reads from the terminal
/// itself, so that stdin may be a pipe.
pub fn has_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Asks for words to be typed; there is no default for danger.
pub async fn ask_words(question: String) -> io::Result<Asked> {
    if !has_terminal() {
        return Ok(Asked::NoTerminal);
    }
    let question = last_line(&question)?;
    let typed = tokio::task::spawn_blocking(move || {
        dialoguer::Input::<String>::new().with_prompt(question).allow_empty(true).interact_text()
    })
    .await
    .map_err(io::Error::other)?;
    weigh(typed.map(|text| text.trim().to_owned()))
}

/// Asks for a password, which is not shown while it is typed; an empty one is an answer.
pub async fn ask_password(question: String) -> io::Result<Asked> {
    if !has_terminal() {
        return Ok(Asked::NoTerminal);
    }
    let question = last_line(&question)?;
    let typed = tokio::task::spawn_blocking(move || {
        dialoguer::Password::new().with_prompt(question).allow_empty_password(true).interact()
    })
    .await
    .map_err(io::Error::other)?;
    weigh(typed)
}

/// Prints a question but for its last line, which is returned.
fn last_line(question: &str) -> io::Result<String> {
    let fitting = fit_beside(&plain_line(question), &io::stderr(), ANSWER);
    let Some((above, last)) = fitting.rsplit_once('\n') else { return Ok(fitting) };
    writeln!(io::stderr(), "{above}")?;
    Ok(last.to_owned())
}

fn weigh(typed: dialoguer::Result<String>) -> io::Result<Asked> {
    match typed {
        Ok(text) => Ok(Asked::Typed(text)),
        Err(dialoguer::Error::IO(error)) => match error.kind() {
            io::ErrorKind::NotConnected => Ok(Asked::NoTerminal),
            io::ErrorKind::Interrupted => {
                // What comes next begins a line.
                writeln!(io::stderr())?;
                Ok(Asked::Cancelled)
            }
            _ => Err(error),
        },
    }
}
