//! What the process tells its caller: the exit-code table.
//!
//! Invariant: below 20 the target was not changed; 20 and above it may have been.

/// How a run ended, as its caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// An error stopped the run before the target was touched.
    Error = 1,
    /// The command line was wrong.
    Usage = 2,
    /// A rule of the policy does not hold.
    Refused = 3,
    /// Nobody confirmed.
    NotConfirmed = 4,
    /// The migration failed on the copy, or the copy is not equal to the snapshot.
    RehearsalFailed = 5,
    /// The target does not exist or does not answer.
    TargetNotFound = 10,
    /// Another run holds the lock of this target.
    Locked = 11,
    /// The target did not accept the sign-in.
    SignInFailed = 12,
    /// The `supabase` command failed.
    DelegateFailed = 20,
    /// The target differs from what the rehearsal left.
    PostCheckDiffers = 21,
    /// The rollback did not finish.
    RollbackIncomplete = 22,
    /// Ctrl-C; the summary says whether before or after the delegate.
    Interrupted = 130,
    /// SIGTERM or SIGHUP; the summary says whether before or after the delegate.
    Terminated = 143,
}

impl Exit {
    /// Every code with its meaning, in the order of the table.
    pub const TABLE: [(Self, &'static str); 14] = [
        (Self::Done, "done"),
        (Self::Error, "error before the target was touched"),
        (Self::Usage, "the command line is wrong"),
        (Self::Refused, "refused by a rule of the policy"),
        (Self::NotConfirmed, "not confirmed"),
        (Self::RehearsalFailed, "the rehearsal failed"),
        (Self::TargetNotFound, "the target was not found"),
        (Self::Locked, "another run holds the lock"),
        (Self::SignInFailed, "the sign-in failed"),
        (Self::DelegateFailed, "supabase failed; the target may have been changed"),
        (Self::PostCheckDiffers, "pushed, and the post-check found a difference"),
        (Self::RollbackIncomplete, "the rollback is incomplete; the message names which half stands"),
        (Self::Interrupted, "interrupted (Ctrl-C); the summary says whether the target was touched"),
        (Self::Terminated, "terminated; the summary says whether the target was touched"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// The exit-code table as `--help` shows it.
pub fn table_text() -> String {
    let rows: Vec<String> =
        Exit::TABLE.iter().map(|(exit, meaning)| format!("  {:>3}  {meaning}", exit.code())).collect();
    format!(
        "Exit codes (below 20 the target was not changed; 20 and above it may have been):\n{}",
        rows.join("\n")
    )
}
