//! Events for scripts: JSON Lines on stdout.

use super::{SCHEMA, Summary, is_lasting, print_json};
use crate::event::{Event, Observer};
use serde::Serialize;

/// Prints every lasting event as one line of JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json;

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    schema: u32,
    #[serde(flatten)]
    value: &'a T,
}

#[derive(Serialize)]
struct Last<'a> {
    r#type: &'static str,
    schema: u32,
    #[serde(flatten)]
    summary: &'a Summary,
}

impl Observer for Json {
    fn see(&self, event: &Event) {
        if is_lasting(event) {
            // A reader that stopped reading does not stop the run.
            drop(print_json(&Line { schema: SCHEMA, value: event }));
        }
    }
}

impl Json {
    /// Prints the last line.
    pub fn summary(summary: &Summary) -> std::io::Result<()> {
        print_json(&Last { r#type: "summary", schema: SCHEMA, summary })
    }
}
