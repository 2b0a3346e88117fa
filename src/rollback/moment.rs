//! What others are told of a rollback's transaction while it is open.

use crate::event::{Reached, Step};

/// One thing that they are told.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// It has this id, and has touched nothing yet.
    Begun(&'a str),
    /// It is done with a step, begins one, or both.
    Between(Option<Step>, Option<Step>),
}

impl Moment<'_> {
    pub(super) fn begin(step: Step) -> Self {
        Self::Between(None, Some(step))
    }

    pub(super) fn next(over: Step, begun: Step) -> Self {
        Self::Between(Some(over), Some(begun))
    }

    pub(super) fn end(step: Step) -> Self {
        Self::Between(Some(step), None)
    }

    /// How far it is with its steps.
    pub(super) fn reached(self) -> impl Iterator<Item = Reached> {
        let (over, begun) = match self {
            Self::Begun(_) => (None, None),
            Self::Between(over, begun) => (over, begun),
        };
        over.map(Reached::end).into_iter().chain(begun.map(Reached::begin))
    }
}
