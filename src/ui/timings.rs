//! Seconds per stage, for the summary.

use crate::event::{Event, Observer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Adds up what every stage took.
#[derive(Clone, Debug, Default)]
pub struct Timings(Arc<Mutex<BTreeMap<String, f64>>>);

impl Timings {
    /// Seconds by the stage's word.
    pub fn seconds(&self) -> BTreeMap<String, f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Timings {
    fn see(&self, event: &Event) {
        if let Event::StageDone { stage, seconds, .. } = event {
            let mut timings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *timings.entry(stage.word().to_owned()).or_default() += seconds;
        }
    }
}
