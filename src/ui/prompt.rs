//! Questions to a person at a terminal.

use std::io::{self, IsTerminal as _};

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
    let typed = tokio::task::spawn_blocking(move || {
        dialoguer::Password::new().with_prompt(question).allow_empty_password(true).interact()
    })
    .await
    .map_err(io::Error::other)?;
    weigh(typed)
}

fn weigh(typed: dialoguer::Result<String>) -> io::Result<Asked> {
    match typed {
        Ok(text) => Ok(Asked::Typed(text)),
        Err(dialoguer::Error::IO(error)) => match error.kind() {
            io::ErrorKind::NotConnected => Ok(Asked::NoTerminal),
            io::ErrorKind::Interrupted => Ok(Asked::Cancelled),
            _ => Err(error),
        },
    }
}
