//! What every stage of a run is handed.

use crate::event::{Event, Observer, Reached, Stage};
use crate::objects::Access;
use crate::policy::Reuse;
use crate::store::{self, Kept, Store};
use crate::target::Staging;
use crate::tools::Machine;
use crate::tools::container::Wish;
use crate::tools::supabase::cloud::Cloud;
use jiff::{SignedDuration, Timestamp};
use std::io;
use std::path::PathBuf;
use std::time::Instant;

/// The surroundings of a run.
pub struct Context {
    /// Who is told what happens.
    pub observer: Box<dyn Observer>,
    /// Where this target's evidence stands.
    pub store: Store,
    /// The programs and folders of this machine.
    pub machine: Machine,
    /// What rehearsals run on.
    pub scratch: Wish,
    /// The server that the person gives to them.
    pub staging: Option<Staging>,
    /// The project on the platform, when the target has one.
    pub cloud: Option<Cloud>,
    /// The `supabase` folder of the project, when there is one.
    pub supabase_dir: Option<PathBuf>,
    /// How old a snapshot may be, for a word when one takes longer than that.
    pub max_age: SignedDuration,
    /// Where the target's Storage is; a target without it has none.
    pub storage: Option<Access>,
    /// How many objects may change while they are captured.
    pub allow_drift: u64,
    /// Whether rows of an earlier snapshot are taken over.
    pub reuse: Reuse,
    /// This machine's clock; only `cli` makes one.
    pub clock: fn() -> Timestamp,
}

impl Context {
    /// Tells an event.
    pub fn tell(&self, event: &Event) {
        self.observer.see(event);
    }

    /// Tells an event that must be on record before anything else happens.
    pub fn keep(&self, event: &Event) -> io::Result<()> {
        self.observer.keep(event)
    }

    /// Tells how far a rollback is.
    pub fn reached(&self, reached: Reached) {
        self.tell(&Event::RollbackStep(reached));
    }

    /// Tells a note.
    pub fn note(&self, text: impl Into<String>) {
        self.tell(&Event::Note { text: text.into() });
    }

    /// Tells a warning.
    pub fn warn(&self, text: impl Into<String>) {
        self.tell(&Event::Warning { text: text.into() });
    }

    /// Leaves what was written so far in the shared store, where there is one.
    pub async fn share(&self) -> Result<Kept, store::Error> {
        Box::pin(self.store.share((self.clock)())).await
    }

    /// The same of records alone: a rollback waits for no snapshot.
    pub async fn share_records(&self) -> Result<Kept, store::Error> {
        Box::pin(self.store.share_records()).await
    }

    /// Tells that a stage began; the returned watch tells its end.
    pub fn stage(&self, stage: Stage, text: impl Into<String>) -> Watch<'_> {
        self.tell(&Event::StageStarted { stage, text: text.into() });
        Watch { context: self, stage, started: Instant::now() }
    }
}

/// A stage that runs.
pub struct Watch<'a> {
    context: &'a Context,
    stage: Stage,
    started: Instant,
}

impl Watch<'_> {
    /// Tells that the stage ended well; returns the seconds it took.
    pub fn done(self, text: impl Into<String>) -> f64 {
        let seconds = self.started.elapsed().as_secs_f64();
        self.context.tell(&Event::StageDone { stage: self.stage, text: text.into(), seconds });
        seconds
    }
}
