//! What can be made to go wrong; nothing does unless it is asked for.

use super::{State, lock};
use std::time::Duration;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A page of a listing.
    List,
    /// An object's body.
    Get,
    /// Anything that is written.
    Write,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An error with this status, such as 544.
    Status(u16),
    /// The connection breaks off after half of the body.
    ShortBody,
    /// Half of the body, as if that were all.
    CutBody,
    /// The answer waits.
    Slow(Duration),
    /// Nothing follows this page, though there is more.
    LostPage,
}

/// A fault of the next requests of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which requests.
    pub on: Operation,
    /// What happens to them.
    pub kind: Kind,
    /// To how many of them.
    pub times: u32,
}

impl State {
    /// The fault of this request, if there is one.
    pub(super) fn fault(&self, on: Operation) -> Option<Kind> {
        let mut faults = lock(&self.faults);
        let at = faults.iter().position(|fault| fault.on == on && fault.times > 0)?;
        let fault = faults.get_mut(at)?;
        fault.times -= 1;
        Some(fault.kind)
    }
}
