//! Seconds per stage, for the summary.

use crate::event::{Event, Observer, Stage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Adds up what every stage took.
#[derive(Clone, Debug, Default)]
pub struct Timings(Arc<Mutex<BTreeMap<Stage, f64>>>);

impl Timings {
    /// Seconds of each stage.
    pub fn seconds(&self) -> BTreeMap<Stage, f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Timings {
    fn see(&self, event: &Event) {
        if let Event::StageDone { stage, seconds, .. } = event {
            let mut timings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *timings.entry(*stage).or_default() += seconds;
        }
    }
}
