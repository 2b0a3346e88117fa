//! `supa-safe migrate`: resolve, collect, verify, rehearse, runbook, confirm, refresh, grant,
//! delegate, post-check.

mod paused;

use super::done::{Broken, Done};
use super::evidence::{self, outdated, snapshot_facts, take};
use super::fail::{self, failed, refused};
use super::open::{self, Opened};
use super::prepare::{self, Prepared, PushFlags};
use super::signals::Signals;
use super::staging::{self, How};
use super::{
    RUN, Setting, TargetArgs, bucket, confirm, duration, earlier, others, pushed, quiesce, rollback,
    snapshot_id,
};
use crate::clearance::{self, Case, Clearance, Confirmation};
use crate::delegate::{self, Interrupts, Outcome, TargetLock};
use crate::effect::FileEffect;
use crate::event::{Event, Stage};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::manifest::{SnapshotId, Strength};
use crate::migration;
use crate::policy::{Facts, Finding, Keeping, PushFacts, Rehearsal, Rule, WayBack, judge};
use crate::postcheck::{self, rows::Traffic};
use crate::postgres::pause::Scope;
use crate::postgres::{identity, sessions};
use crate::rehearse::{self, Recalled, Rehearsed};
use crate::rollback::{Mode, preflight};
use crate::runbook::{self, Written};
use crate::ui;
use crate::verify::Verified;
use clap::Args;
use jiff::SignedDuration;

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    push: PushFlags,
    /// How old the snapshot may be when the push begins, such as 15m
    #[arg(long, value_parser = duration, value_name = "TIME", help_heading = RUN)]
    max_age: Option<SignedDuration>,
    /// Print what would be done, and touch nothing
    #[arg(long, help_heading = RUN)]
    dry_run: bool,
    /// Answer yes to everything but the confirmation of the target
    #[arg(long, help_heading = RUN)]
    yes: bool,
    /// Confirm the target by its name, for scripts
    #[arg(long, value_name = "WORDS", help_heading = RUN)]
    confirm: Option<String>,
    /// Where to rehearse: `auto` (as the policy says), `container`, `local` (the Postgres of this machine), the
    /// URL of a staging server, or `off` (the policy must allow that)
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = RUN)]
    rehearse: How,
    /// Use this snapshot, or refuse
    #[arg(long, value_parser = snapshot_id, value_name = "ID", help_heading = RUN)]
    snapshot: Option<SnapshotId>,
    /// Refuse what the roles of the Data API write (503) from a fresh snapshot until the push is compared
    ///
    /// So a rollback loses no write of theirs that was acknowledged before the push. Reads go on, no grant is
    /// changed, and `supa-safe quiesce release` ends it when the run was killed.
    #[arg(long, conflicts_with = "snapshot", help_heading = RUN)]
    quiesce: bool,
}

pub(super) async fn run(setting: &Setting, args: MigrateArgs) -> Result<Exit, Failure> {
    let mut signals = Signals::take()?;
    let mut opened = open::open(setting, &args.target, args.max_age, &mut signals).await?;
    if let Err(failure) = staging::heed(setting, &mut opened, &args.rehearse) {
        return opened.close(setting, Err(failure.into())).await;
    }
    let outcome = Box::pin(migrate(setting, &opened, &args, &mut signals)).await;
    opened.close(setting, outcome).await
}

async fn migrate(
    setting: &Setting,
    opened: &Opened,
    args: &MigrateArgs,
    signals: &mut Signals,
) -> Result<Done, Broken> {
    let prepared = signals.guard(prepare_push(setting, opened, args)).await?;
    let Some(prepared) = prepared else { return Ok(Done::nothing(opened)) };
    let scope = signals.guard(scope(opened, args)).await?;
    if args.dry_run {
        return signals.guard(show_plan(opened, &prepared, args.quiesce)).await;
    }
    let question = confirm::Question {
        target: opened.target.name(),
        agent: setting.surroundings.agent().filter(|_| !setting.exempt),
        flag: args.confirm.clone(),
        to: confirm::Purpose::Push,
        may_ask: setting.may_ask(),
    };
    confirm::foresee(&question)?;
    let ready = signals.guard(Box::pin(make_ready(opened, &prepared, args))).await?;
    let said = signals.guard(confirm::ask(opened, (&prepared, &ready), scope.as_ref(), question)).await?;
    let ready = signals.guard(Box::pin(refresh(opened, &prepared, ready))).await?;
    let pushing = Pushing { opened, prepared: &prepared, said: &said };
    if args.quiesce {
        return Box::pin(paused::push(pushing, ready, &setting.host(), signals)).await;
    }
    let held = signals.guard(lock(opened)).await?;
    let outcome = pushed(pushing, &ready, &held, signals).await?;
    held.release().await;
    let done = finish(pushing, &ready, outcome, signals).await?;
    prove_successor(opened, &ready.base, signals).await;
    Ok(done)
}

/// A push that somebody confirmed.
#[derive(Clone, Copy)]
struct Pushing<'a> {
    opened: &'a Opened,
    prepared: &'a Prepared,
    said: &'a Confirmation,
}

/// What is to be paused, looked at before the long work.
async fn scope(opened: &Opened, args: &MigrateArgs) -> Result<Option<Scope>, Broken> {
    if !args.quiesce || args.dry_run {
        return Ok(None);
    }
    let scope = crate::quiesce::foresee(&opened.target).await;
    Ok(Some(scope.map_err(|error| quiesce::not_paused(&error))?))
}

/// Asks for leave, and pushes.
async fn pushed(
    pushing: Pushing<'_>,
    ready: &Ready,
    held: &TargetLock,
    signals: &mut Signals,
) -> Result<Pushed, Broken> {
    let Pushing { opened, prepared, said } = pushing;
    let mut traffic = signals.guard(watch(ready, held)).await?;
    let clearance = signals.guard(grant(opened, prepared, ready, (said, held))).await?;
    traffic.look(&held.session().client).await.map_err(failed(Exit::Error))?;
    let outcome = delegate((opened, prepared), clearance, held, signals).await;
    tell_surprises(opened, &traffic, held, &outcome).await;
    Ok(outcome)
}

/// The pending files, or `None` when there is nothing to do.
async fn prepare_push(
    setting: &Setting,
    opened: &Opened,
    args: &MigrateArgs,
) -> Result<Option<Prepared>, Broken> {
    earlier::look(opened).await?;
    if let Some(left) = quiesce::settle(opened, args.dry_run).await? {
        // A dump would hold it.
        return Err(left.into());
    }
    Box::pin(rollback::demand_none(opened, &setting.host())).await?;
    let prepared = prepare::prepare(setting, opened, args.push).await?;
    if prepared.pending.is_empty() {
        return Ok(None);
    }
    if prepared.pending.migrations.is_empty() && prepare::dry_run(opened, &prepared).await?.up_to_date {
        return Ok(None);
    }
    for name in prepared.pending.names() {
        opened.context.note(format!("pending {name}"));
    }
    for fact in prepared.not_atomic() {
        opened.context.tell(&Event::Finding {
            rule: Rule::NotAtomic.code().to_owned(),
            fact,
            fix: "put such a statement alone into a file of its own".to_owned(),
            refuses: false,
        });
    }
    Ok(Some(prepared))
}

async fn show_plan(opened: &Opened, prepared: &Prepared, quiesce: bool) -> Result<Done, Broken> {
    let report = prepare::dry_run(opened, prepared).await?;
    let mut done = Done::nothing(opened);
    done.closing = vec!["Plan (nothing was touched):".to_owned()];
    let newest = opened.context.store.ids().map_err(failed(Exit::Error))?.into_iter().next();
    let evidence = newest.map_or_else(
        || "1. take a snapshot and verify it".to_owned(),
        |id| format!("1. use snapshot {id} when it holds, else take a new one and verify it"),
    );
    done = done
        .closing(evidence)
        .closing("2. restore it into a scratch server, compare, and apply the pending files to the copy")
        .closing(format!("3. ask for the words `{}`", opened.target.name()))
        .closing(if quiesce {
            "4. pause writes with a fresh snapshot, push, compare the target with the copy, and end the pause:"
        } else {
            "4. push, and compare the target with the copy:"
        });
    for file in report.roles.iter().chain(&report.migrations).chain(&report.seeds) {
        done = done.closing(format!("   {file}"));
    }
    done.summary.not_applied = report.migrations;
    Ok(done)
}

/// What became of a push, and the signal that came meanwhile.
type Pushed = Result<(Outcome, Option<Exit>), delegate::Error>;

/// Everything that a confirmation is asked on.
pub(super) struct Ready {
    pub(super) base: Verified,
    pub(super) rehearsed: Option<Rehearsed>,
    pub(super) way_back: WayBack,
    pub(super) runbook: Written,
}

impl Ready {
    /// What each file did to the copy; nothing is known without a rehearsal.
    fn effects(&self) -> &[FileEffect] {
        self.rehearsed.as_ref().map_or(&[], |rehearsed| &rehearsed.record().effects)
    }
}

/// Refuses before the long work what the judge would refuse after it.
fn foresee(opened: &Opened, prepared: &Prepared) -> Result<(), Broken> {
    let push = PushFacts { keeping: opened.keeping, ..push_facts(prepared, Rehearsal::NotYet) };
    let facts = Facts { push: Some(push), ..opened.no_facts() };
    let mut findings = judge(&opened.policy, &facts, (opened.context.clock)());
    findings.retain(|finding| finding.rule == Rule::NoSharedStore);
    if findings.is_empty() { Ok(()) } else { Err(refused(findings)) }
}

async fn make_ready(opened: &Opened, prepared: &Prepared, args: &MigrateArgs) -> Result<Ready, Broken> {
    foresee(opened, prepared)?;
    if matches!(args.rehearse, How::Off) && !opened.policy.allow_unrehearsed {
        let facts = Facts { push: Some(push_facts(prepared, Rehearsal::Off)), ..opened.no_facts() };
        let findings = judge(&opened.policy, &facts, (opened.context.clock)());
        return Err(refused(findings.into_iter().filter(|found| found.rule == Rule::NotRehearsed).collect()));
    }
    staging::check(opened, &args.rehearse).await?;
    let base = evidence::choose(opened, prepared, args.snapshot.as_ref()).await?;
    if matches!(args.rehearse, How::Off) {
        opened.context.warn("NOT REHEARSED: the policy of this target allows a push without a rehearsal");
        let runbook = runbook::write(base.snapshot(), None).map_err(failed(Exit::Error))?;
        let way_back = WayBack::default();
        return Ok(Ready { base, rehearsed: None, way_back, runbook });
    }
    let (base, rehearsed) = rehearse_or_recall(opened, prepared, base).await?;
    let way_back = way_back(opened, prepared, &base, &rehearsed).await?;
    let runbook = runbook::write(base.snapshot(), Some(&rehearsed)).map_err(failed(Exit::Error))?;
    Ok(Ready { base, rehearsed: Some(rehearsed), way_back, runbook })
}

/// Whether there is a way back, judged before a person is asked.
async fn way_back(
    opened: &Opened,
    prepared: &Prepared,
    base: &Verified,
    rehearsed: &Rehearsed,
) -> Result<WayBack, Broken> {
    let record = rehearsed.record();
    let files = prepared.pending.migrations.iter();
    let dropped: Vec<String> = files.flat_map(|file| migration::dropped_extensions(&file.sql)).collect();
    let best = record.way_back();
    let pushed = preflight::Pushed {
        dropped: &dropped,
        locks: best.map(|best| best.locks),
        after: &record.fingerprint,
        mode: best.map_or(Mode::Whole, |best| best.mode),
        tables: best.map(|best| best.tables.as_slice()).unwrap_or_default(),
        left_out: &record.left_out,
        effects: &record.effects,
        besides: &record.besides,
    };
    let blocked =
        preflight::look(&opened.target, base.snapshot(), pushed).await.map_err(failed(Exit::Error))?;
    let way_back = WayBack { not_exact: record.not_exact(), blocked };
    let push = PushFacts { way_back: way_back.clone(), ..push_facts(prepared, Rehearsal::NotYet) };
    let facts = Facts { push: Some(push), ..opened.no_facts() };
    let of_way_back = [Rule::RollbackNotExact, Rule::RollbackImpossible];
    let findings = judge(&opened.policy, &facts, (opened.context.clock)());
    let findings: Vec<Finding> =
        findings.into_iter().filter(|finding| of_way_back.contains(&finding.rule)).collect();
    if findings.iter().any(|finding| finding.refuses) {
        return Err(refused(findings));
    }
    for Finding { rule, fact, fix, refuses } in findings {
        opened.context.tell(&Event::Finding { rule: rule.code().to_owned(), fact, fix, refuses });
    }
    Ok(way_back)
}

/// A rehearsal that still stands, or a new one.
pub(super) async fn rehearse_or_recall(
    opened: &Opened,
    prepared: &Prepared,
    base: Verified,
) -> Result<(Verified, Rehearsed), Broken> {
    let subject = prepared.subject(opened);
    let context = &opened.context;
    match rehearse::recall(&base, &subject, context).map_err(|error| fail::rehearse_failed(&error))? {
        Recalled::Fits(rehearsed) => {
            let record = rehearsed.record();
            let age = (context.clock)().duration_since(record.rehearsed_at);
            if age <= opened.policy.rehearsal_max_age && age >= SignedDuration::ZERO {
                context.note(format!(
                    "not rehearsed again: the same files were rehearsed on the same schema {} ago with snapshot {}",
                    crate::policy::in_words(age),
                    record.snapshot
                ));
                for effect in &record.effects {
                    context.tell(&Event::FileRehearsed(effect.clone()));
                }
                match clearance::succeed(base, &rehearsed, context).map_err(failed(Exit::Error))? {
                    Ok(base) => return Ok((base, *rehearsed)),
                    Err(base) => {
                        context.note(
                            "the snapshot has another shape than the one that was restored: rehearsing again",
                        );
                        return rehearse_now(opened, prepared, base).await;
                    }
                }
            }
            context.note(format!(
                "rehearsing again: the last rehearsal is {} old",
                crate::policy::in_words(age)
            ));
        }
        Recalled::OtherFiles => {
            context.note("rehearsing: the pending files are others than those of the last rehearsal");
        }
        Recalled::Not(why) => context.note(format!("rehearsing: {why}")),
    }
    rehearse_now(opened, prepared, base).await
}

async fn rehearse_now(
    opened: &Opened,
    prepared: &Prepared,
    base: Verified,
) -> Result<(Verified, Rehearsed), Broken> {
    let subject = prepared.subject(opened);
    rehearse::rehearse(base, &subject, &opened.context).await.map_err(|error| fail::rehearsal_broken(&error))
}

/// Takes one fresh snapshot when the old one ran out of age meanwhile; never a second one.
async fn refresh(opened: &Opened, prepared: &Prepared, ready: Ready) -> Result<Ready, Broken> {
    let now = evidence::target_clock(opened).await?;
    let age = now.duration_since(ready.base.snapshot().manifest.taken.target_clock);
    if age <= opened.policy.max_age {
        return Ok(ready);
    }
    let watch = opened.context.stage(
        Stage::Refresh,
        format!("the snapshot is {} old by now: take a fresh one", crate::policy::in_words(age)),
    );
    let fresh = take(opened, None).await?;
    let (base, rehearsed) = if ready.rehearsed.is_some() {
        let (base, rehearsed) = rehearse_or_recall(opened, prepared, fresh).await?;
        (base, Some(rehearsed))
    } else {
        (fresh, None)
    };
    let runbook = runbook::write(base.snapshot(), rehearsed.as_ref()).map_err(failed(Exit::Error))?;
    let ready = Ready { base, rehearsed, way_back: ready.way_back, runbook };
    watch.done(format!("snapshot {} is {}", ready.base.snapshot().id(), ready.base.strength()));
    Ok(ready)
}

async fn lock(opened: &Opened) -> Result<TargetLock, Broken> {
    TargetLock::take(&opened.target).await.map_err(|error| fail::delegate_failed(&error).into())
}

/// Watches what the application writes to the tables that the push will touch.
async fn watch(ready: &Ready, held: &TargetLock) -> Result<Traffic, Broken> {
    Ok(Traffic::watch(&held.session().client, ready.effects()).await.map_err(failed(Exit::Error))?)
}

/// Warns when a push that went through wrote other numbers of rows than on the copy.
async fn tell_surprises(opened: &Opened, traffic: &Traffic, held: &TargetLock, outcome: &Pushed) {
    if outcome.as_ref().is_ok_and(|(outcome, _)| outcome.is_success()) {
        match traffic.surprises(&held.session().client).await {
            Ok(surprises) => surprises.into_iter().for_each(|text| opened.context.warn(text)),
            Err(error) => opened.context.warn(format!("the rows written could not be counted: {error}")),
        }
    }
}

fn push_facts(prepared: &Prepared, rehearsal: Rehearsal) -> PushFacts {
    PushFacts {
        changed: Vec::new(),
        not_atomic: prepared.not_atomic(),
        rehearsal,
        way_back: WayBack::default(),
        keeping: Keeping::Lasting,
    }
}

/// Looks at everything once more, under the lock, and asks for leave.
async fn grant<'a>(
    opened: &'a Opened,
    prepared: &'a Prepared,
    ready: &'a Ready,
    (said, held): (&Confirmation, &TargetLock),
) -> Result<Clearance<'a>, Broken> {
    prepared.frozen.verify_copy().map_err(failed(Exit::Error))?;
    let changes = prepared.frozen.still_matches(&prepared.project).map_err(failed(Exit::Error))?;
    let clock = (opened.context.clock)();
    let rehearsal = ready.rehearsed.as_ref().map_or(Rehearsal::Off, |rehearsed| {
        let at = rehearsed.record().rehearsed_at;
        Rehearsal::Passed { at, age: clock.duration_since(at) }
    });
    let (live, _) = prepare::look(held.session()).await?;
    let rehearsal = match outdated(&ready.base, &live) {
        Some(why) => Rehearsal::Missing(why),
        None => rehearsal,
    };
    let report = prepare::dry_run(opened, prepared).await?;
    let expected: Vec<&String> = prepared.pending.migrations.iter().map(|file| &file.file_name).collect();
    let rehearsal = if report.migrations.iter().collect::<Vec<_>>() == expected {
        rehearsal
    } else {
        Rehearsal::Missing(format!("supabase would push {} now", report.migrations.join(", ")))
    };
    let client = &held.session().client;
    let others = sessions::in_the_way(client).await.map_err(failed(Exit::Error))?;
    let holding = others::holding(opened, client, ready.effects()).await?;
    let facts = Facts {
        target: opened.target.identity.clone(),
        snapshot: Some(snapshot_facts(opened, &ready.base)?),
        edited: prepared.edited.clone(),
        sessions: others.into_iter().map(|other| other.text).chain(holding).collect(),
        push: Some(PushFacts {
            changed: changes
                .iter()
                .map(|change| format!("`{}` was {}", change.path, change.what.as_str()))
                .collect(),
            way_back: ready.way_back.clone(),
            keeping: opened.keeping,
            ..push_facts(prepared, rehearsal)
        }),
    };
    let now = identity::clock(client).await.map_err(failed(Exit::Error))?;
    let kept = opened.context.share().await.map_err(|error| bucket::store_failed(&error))?;
    let case = Case {
        policy: &opened.policy,
        facts,
        base: &ready.base,
        rehearsed: ready.rehearsed.as_ref(),
        runbook: &ready.runbook,
        subject: prepared.subject(opened),
        kept,
    };
    clearance::grant(&case, said, now).map_err(refused)
}

/// Pushes; from here on a signal is told to the push instead of ending the run.
async fn delegate(
    (opened, prepared): (&Opened, &Prepared),
    clearance: Clearance<'_>,
    held: &TargetLock,
    signals: &mut Signals,
) -> Pushed {
    let watch = opened.context.stage(Stage::Delegate, format!("push to {}", opened.target.name()));
    let interrupts = Interrupts::default();
    let push = delegate::push(clearance, held, &opened.context, &interrupts);
    tokio::pin!(push);
    let mut signal = None;
    let outcome = loop {
        tokio::select! {
            outcome = &mut push => break outcome?,
            exit = signals.next() => {
                signal = Some(exit);
                interrupts.tell();
            }
        }
    };
    if outcome.is_success() {
        watch.done(format!("{} applied", prepared.pending.in_words()));
    }
    Ok((outcome, signal))
}

async fn finish(
    Pushing { opened, prepared, .. }: Pushing<'_>,
    ready: &Ready,
    outcome: Pushed,
    signals: &mut Signals,
) -> Result<Done, Broken> {
    let mut done = Done::of(&ready.base);
    done.summary.runbook = Some(ready.runbook.path().display().to_string());
    let (outcome, signal) = match outcome {
        Ok(outcome) => outcome,
        Err(error) => return Err(Broken::new(fail::delegate_failed(&error), done.summary)),
    };
    done.summary.target_touched = true;
    done.summary.applied.clone_from(&outcome.applied);
    done.summary.not_applied.clone_from(&outcome.not_applied);
    done.summary.delegate_exit = match outcome.ended {
        crate::proc::Ended::Code(code) => Some(code),
        crate::proc::Ended::Signal(signal) => Some(128 + signal),
    };
    if let Some(rehearsed) = &ready.rehearsed {
        let record = rehearsed.record();
        done.summary.limits.extend(record.limits.clone());
        done.summary.way_back = Some(ui::WayBack::new(record, ready.way_back.obstacles()));
    } else {
        done.summary.limits.push("NOT REHEARSED".to_owned());
    }
    if !outcome.is_success() {
        let what = (prepared, &ready.base);
        return Err(pushed::push_failed(opened, what, (&outcome, signal), done.summary).await);
    }
    let watch = opened.context.stage(Stage::PostCheck, "compare the target with the rehearsed copy");
    let subject = prepared.subject(opened);
    let comparison = tokio::select! {
        comparison = postcheck::compare(&subject, ready.rehearsed.as_ref()) => comparison,
        exit = signals.next() => return Err(fail::postcheck_interrupted(exit, done.summary)),
    };
    let differences = comparison.map_err(|error| fail::postcheck_failed(&error, &done.summary))?;
    if !differences.is_empty() {
        return Err(fail::postcheck_differs(opened, &differences, done.summary));
    }
    watch.done(match ready.rehearsed {
        Some(_) => "history, schema, and checks are as rehearsed",
        None => "the checks are healthy; NOT REHEARSED",
    });
    let pushed = format!("Pushed {} to {}", prepared.pending.in_words(), opened.target.name());
    if ready.base.strength() == Strength::Succeeded {
        // The proof that follows may take long.
        opened.context.note(pushed.clone());
    }
    done.closing.insert(0, pushed);
    let lines = pushed::way_back(opened, done.summary.way_back.as_ref());
    done.closing.extend(lines);
    Ok(done.closing(format!("To restore it into a new database, follow {}", ready.runbook.path().display())))
}

/// A snapshot that stood on another one's restore gets its own proof when the push is over. That may
/// take long, and nothing depends on it any more: a signal ends it.
async fn prove_successor(opened: &Opened, base: &Verified, signals: &mut Signals) {
    if base.strength() != Strength::Succeeded {
        return;
    }
    let proof = tokio::select! {
        proof = Box::pin(rehearse::prove(base.clone(), &opened.context)) => proof,
        _ = signals.next() => {
            opened.context.warn("the snapshot was not proved by restoring it; `supa-safe verify --restore` does");
            return;
        }
    };
    if let Err(error) = proof {
        let failure = fail::rehearse_failed(&error);
        opened
            .context
            .warn(format!("the snapshot could not be proved by restoring it: {}", failure.chain.join(": ")));
    }
}
