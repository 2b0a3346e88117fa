//! The one error a person sees: exit, error chain, findings, hints.

use crate::exit::Exit;
use std::error::Error;

/// A run's end that is not success, ready to be shown.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// The error and its causes, outermost first.
    pub chain: Vec<String>,
    /// Lines that belong to the error: findings, files, numbers.
    pub details: Vec<String>,
    /// What to do next; each an imperative with an exact command where there is one.
    pub hints: Vec<String>,
}

impl Failure {
    /// Makes a failure from an error and all of its sources.
    pub fn new(exit: Exit, error: &dyn Error) -> Self {
        Self { exit, chain: chain(error), details: Vec::new(), hints: Vec::new() }
    }

    /// Makes a failure from a sentence.
    pub fn message(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, chain: vec![text.into()], details: Vec::new(), hints: Vec::new() }
    }

    /// Adds a next step.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        let text = text.into();
        if !self.hints.contains(&text) {
            self.hints.push(text);
        }
        self
    }

    /// Adds a line under the error.
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.details.push(text.into());
        self
    }
}

/// An error and all of its sources as texts, outermost first.
pub fn chain(error: &dyn Error) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // tokio-postgres puts this word in front of what the server said.
        if text != "db error" && chain.last() != Some(&text) {
            chain.push(text);
        }
        source = cause.source();
    }
    chain
}
