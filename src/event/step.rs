//! The steps of a rollback, as its record tells them.

use serde::{Deserialize, Serialize};

/// A step of a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Keep the objects of Storage that will be written over.
    KeepObjects,
    /// Lock what goes.
    Lock,
    /// Keep the rows that were written since.
    KeepRows,
    /// Take the database back, and compare it.
    TakeBack,
    /// Commit that.
    Commit,
    /// Bring objects of Storage to their places.
    MoveObjects,
    /// Look after the bytes of objects, and upload those that are not there.
    BringObjects,
}

impl Step {
    /// When that is, and when it is over, for people.
    fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::KeepObjects => ("while it kept objects of Storage", "once it had kept objects of Storage"),
            Self::Lock => ("while it waited for locks", "once it had its locks"),
            Self::KeepRows => ("while it kept rows written since", "once it had kept rows written since"),
            Self::TakeBack => ("while the database went back", "before its commit"),
            Self::Commit => ("while it was committed", "after its commit"),
            Self::MoveObjects => {
                ("while objects of Storage were moved", "once objects of Storage were moved")
            }
            Self::BringObjects => ("while objects of Storage went back", "once objects of Storage were back"),
        }
    }
}

/// How many of its parts a step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Those that are done.
    pub done: u64,
    /// All of them.
    pub of: u64,
}

/// How far a rollback is: a step begins, goes on, or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// The step.
    pub step: Step,
    /// Whether it is over.
    pub is_over: bool,
    /// How much of it is done, where that is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
}

impl Reached {
    /// A step begins.
    pub fn begin(step: Step) -> Self {
        Self { step, is_over: false, parts: None }
    }

    /// A step is over.
    pub fn end(step: Step) -> Self {
        Self { is_over: true, ..Self::begin(step) }
    }

    /// When that is, for people.
    pub fn in_words(self) -> String {
        let (going, over) = self.step.in_words();
        match self.parts {
            Some(Parts { done, of }) if !self.is_over => format!("{going}, {done} of {of} done"),
            _ => (if self.is_over { over } else { going }).to_owned(),
        }
    }
}

/// Somebody who is told how far a rollback is.
pub type Tell<'a> = &'a (dyn Fn(Reached) + Sync);

/// Counts the parts of a step as they are done, and tells of at most a hundred of them: a line of the record
/// each is much where there are many.
pub struct Tally<'a> {
    step: Step,
    parts: Parts,
    tell: Tell<'a>,
}

impl<'a> Tally<'a> {
    /// The step begins.
    pub fn begin(step: Step, of: u64, tell: Tell<'a>) -> Self {
        let parts = Parts { done: 0, of };
        tell(Reached { parts: Some(parts), ..Reached::begin(step) });
        Self { step, parts, tell }
    }

    /// So many more are done.
    pub fn add(&mut self, more: u64) {
        let pace = self.parts.of.div_ceil(100).max(1);
        let before = self.parts.done / pace;
        self.parts.done += more;
        if self.parts.done / pace > before && self.parts.done < self.parts.of {
            (self.tell)(Reached { parts: Some(self.parts), ..Reached::begin(self.step) });
        }
    }

    /// The step is over.
    pub fn end(self) {
        (self.tell)(Reached { parts: Some(self.parts), ..Reached::end(self.step) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The parts that were told of when each of so many was done.
    fn told(of: u64, at_once: u64) -> Vec<u64> {
        let told = Mutex::new(Vec::new());
        let tell = |reached: Reached| told.lock().unwrap().push(reached);
        let mut tally = Tally::begin(Step::BringObjects, of, &tell);
        for _ in 0..of / at_once {
            tally.add(at_once);
        }
        tally.end();
        let told = told.into_inner().unwrap();
        assert_eq!(told.iter().filter(|reached| reached.is_over).count(), 1);
        assert!(told.last().unwrap().is_over);
        told.into_iter().map(|reached| reached.parts.unwrap().done).collect()
    }

    #[test]
    fn few_are_told_one_by_one_and_many_in_batches() {
        assert_eq!(told(3, 1), [0, 1, 2, 3]);
        assert_eq!(told(4, 4), [0, 4]);
        assert_eq!(told(0, 1), [0, 0]);
        for at_once in [1, 8] {
            let many = told(100_000, at_once);
            assert!((90..=102).contains(&many.len()), "{}", many.len());
            assert_eq!(many.last(), Some(&100_000));
        }
    }

    #[test]
    fn words_say_when_it_was() {
        let parts = Some(Parts { done: 12, of: 40 });
        let going = Reached { parts, ..Reached::begin(Step::BringObjects) };
        assert_eq!(going.in_words(), "while objects of Storage went back, 12 of 40 done");
        assert_eq!(Reached { is_over: true, ..going }.in_words(), "once objects of Storage were back");
        assert_eq!(Reached::begin(Step::Lock).in_words(), "while it waited for locks");
        assert_eq!(Reached::end(Step::TakeBack).in_words(), "before its commit");
    }
}
