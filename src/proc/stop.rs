//! Ends programs: a signal that asks, a time to obey, then SIGKILL to the whole group.

use super::Group;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group, test_kill_process, test_kill_process_group};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a program is asked to end, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    pub(super) signal: Signal,
    pub(super) grace: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal::TERM, grace: Duration::from_secs(5) }
    }
}

/// Stops a program group that nobody waits for any more.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) handle: Option<Arc<duct::Handle>>,
    pub(super) group: Group,
    pub(super) stop: Stop,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        if self.group == Group::Own {
            stop_group(&handle, self.stop);
        }
    }
}

/// The signal to the group, grace, SIGKILL to the group.
fn stop_group(handle: &duct::Handle, stop: Stop) {
    let groups: Vec<Pid> =
        handle.pids().into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).collect();
    let send = |signal| {
        for group in &groups {
            // A group that is already gone is what is wanted.
            let _ = kill_process_group(*group, signal);
        }
    };
    let until = Instant::now() + stop.grace;
    send(stop.signal);
    let has_ended = matches!(handle.wait_deadline(until), Ok(Some(_)));
    // The program may be gone before its children are.
    let is_left = || groups.iter().any(|group| test_kill_process_group(*group).is_ok());
    while has_ended && is_left() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    if !has_ended || is_left() {
        send(Signal::KILL);
        drop(handle.wait());
    }
}

/// Whether there is a process with this id.
pub fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One of another user is there too, and may not be asked.
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
}

/// Sends a signal to one process that is not a child of ours.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}
