//! Works out again, from the log, the evidence that one event speaks of: every cohort's and every block's factor, and
//! what the guardrails came to together. Pure; nothing is taken from the record but facts: every conclusion about the
//! rollout is drawn again, its references too, and compared with what is recorded.

use crate::core::decide::conditions::observed;
use crate::core::decide::decide;
use crate::core::decide::readings::{PooledEvidence, excuses, judge};
use crate::core::decide::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::Alert;
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::bets::{discoveries, enough};
use crate::core::evidence::kind::Secondary;
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::evidence::reference::Reference;
use crate::core::evidence::score::{self, Evidence};
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{EventSeq, RolloutId};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::{Guardrail, OnFail};
use crate::core::state::rollout::Rollout;
use crate::core::telemetry::arm::{Arm, ArmCount};
use crate::core::time::Timestamp;
use crate::core::words;
use crate::replay::{Divergence, Verifier};

/// Whose evidence an event speaks of.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    pub seq: EventSeq,
    pub rollout: RolloutId,
    pub guardrail: String,
    /// Tag and value: `(suite, refunds)`.
    pub slice: Option<(String, String)>,
    /// Further guardrails that the event speaks of.
    pub others: Vec<String>,
}

impl Subject {
    /// `eval_pass`, `eval_pass[suite=refunds]`
    pub fn name(&self) -> String {
        let slice = self.slice.as_ref().map(|(tag, value)| format!("[{tag}={value}]")).unwrap_or_default();
        format!("{}{slice}", self.guardrail)
    }
}

/// The evidence of one guardrail, or of one slice of it, factor by factor.
#[derive(Debug)]
pub struct EvidenceTrace {
    pub subject: Subject,
    /// In order of the log, one a scored cohort.
    pub cohorts: Vec<Factor>,
    /// Of the last of them, one a block.
    pub blocks: Vec<Factor>,
    /// `None`: the facts do not lead to the event.
    pub stand: Option<Snapshot>,
    /// The first conclusion about the rollout that is not what was worked out.
    pub differs: Option<Divergence>,
}

/// How everything stood at the event.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub guardrail: Guardrail,
    /// The evidence of harm that acts, for all guardrails together and for a family of slices.
    pub level: f64,
    /// What an attempt that is not the first means.
    pub series: Option<String>,
    /// The event that said that the guardrail fails, which stays so.
    pub failed_at: Option<EventSeq>,
    /// What it means that the canary is taken back, where the event does so because of this guardrail.
    pub rolled_back: Option<String>,
    pub reference: Option<Reference>,
    pub evidence: Evidence,
    /// Of a slice: where the event holds one.
    pub reading: Option<GuardrailReading>,
    pub weighing: Weighing,
    /// The slices that are judged together, most evidence first. Of a slice only.
    pub family: Vec<Member>,
}

/// The rollback guardrails together, whose weighted average decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weighing {
    /// In the policy's order.
    pub parts: Vec<Share>,
    pub ln: f64,
    pub need_ln: f64,
    /// Without those that are excused, where one is.
    pub rest_ln: Option<f64>,
    /// As the decision recorded it.
    pub recorded_ln: Option<f64>,
}

/// What one guardrail adds to the average.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    pub guardrail: String,
    pub weight: f64,
    pub ln: f64,
    /// Of weight times evidence.
    pub share_ln: f64,
    pub excused: bool,
    /// The average has crossed, and this one carries most of it.
    pub carries: bool,
}

/// One of the slices that are judged together.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: String,
    pub ln: f64,
    /// What the slice of its rank needs, or of the last that is found.
    pub need_ln: f64,
    pub found: bool,
}

/// By how much one cohort or block moved the evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    pub seq: EventSeq,
    /// When the requests began to be served.
    pub served: Timestamp,
    pub step: u16,
    pub baseline: ArmCount,
    pub canary: ArmCount,
    /// Log-evidence (nats) before and after, of harm and of safety.
    pub harm_ln: [f64; 2],
    pub safe_ln: [f64; 2],
    /// Kind missing: of a share that is higher, and of one that is lower; harm is their average.
    pub sides_ln: Option<[[f64; 2]; 2]>,
    /// Of the benefit that a trade-off asks for.
    pub benefit_ln: Option<[f64; 2]>,
    /// Capital held back was staked afresh.
    pub epoch: bool,
    /// Another segment began: its safety is shown anew.
    pub anew: bool,
}

/// Why an event has no evidence to show.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceTraceError {
    #[error("there is no event {0}")]
    NoEvent(EventSeq),
    #[error(
        "event {0} ({1}) rests on no evidence; name a cohort.scored, verdict.reached, decision.made, or an alert.raised about a guardrail or a slice"
    )]
    NoEvidence(EventSeq, &'static str),
    #[error("event {0} speaks of several guardrails; name one: {1}")]
    Which(EventSeq, String),
    #[error("event {0} does not speak of guardrail {1}; there are: {2}")]
    NoGuardrail(EventSeq, String, String),
}

/// Whose evidence an event speaks of. `named` is a guardrail, or a slice of one: `eval_pass[suite=refunds]`.
///
/// Errors: as in [`EvidenceTraceError`].
pub fn subject(seq: EventSeq, event: &Event, named: Option<&str>) -> Result<Subject, EvidenceTraceError> {
    let subject = |rollout: &RolloutId, name: &str| {
        let (guardrail, slice) = split(name);
        let slice = slice.map(|(tag, value)| (tag.to_owned(), value.to_owned()));
        Subject { seq, rollout: rollout.clone(), guardrail: guardrail.to_owned(), slice, others: Vec::new() }
    };
    // Of a guardrail its slices may be asked for too.
    let one = |rollout: &RolloutId, name: &str| match named {
        Some(named) if named != name && split(named).0 != name => {
            Err(EvidenceTraceError::NoGuardrail(seq, named.to_owned(), name.to_owned()))
        }
        _ => Ok(subject(rollout, named.unwrap_or(name))),
    };
    match event {
        Event::CohortScored { rollout, guardrail, .. } => one(rollout, guardrail),
        Event::VerdictReached { rollout, reading } => one(rollout, &reading.name),
        Event::AlertRaised { rollout, alert } => match alert {
            Alert::Guardrail { reading } | Alert::Slice { reading, .. } => one(rollout, &reading.name),
            Alert::AboveCap(above) => one(rollout, &above.guardrail),
            _ => Err(EvidenceTraceError::NoEvidence(seq, event.kind())),
        },
        Event::DecisionMade { rollout, decision } => {
            let names: Vec<&str> = decision.readings.iter().map(|r| r.name.as_str()).collect();
            let binding = decision.because.iter().find_map(|reason| match reason {
                Reason::Guardrail { name } | Reason::Slice { name } => Some(name.as_str()),
                _ => None,
            });
            let Some(name) = named.or(binding).or_else(|| least_to_spare(decision)) else {
                return Err(EvidenceTraceError::Which(seq, names.join(", ")));
            };
            if !names.contains(&split(name).0) {
                return Err(EvidenceTraceError::NoGuardrail(seq, name.to_owned(), names.join(", ")));
            }
            let others = names.iter().filter(|other| **other != split(name).0);
            let others = others.map(|other| (*other).to_owned()).collect();
            Ok(Subject { others, ..subject(rollout, name) })
        }
        other => Err(EvidenceTraceError::NoEvidence(seq, other.kind())),
    }
}

/// Of a promotion: the guardrail that was shown safe with the least to spare.
fn least_to_spare(decision: &Decision) -> Option<&str> {
    let gates = |r: &&GuardrailReading| {
        r.verdict == Verdict::Pass && r.on_fail != OnFail::Alert && r.kind.shows_safety()
    };
    let spare = |r: &GuardrailReading| r.safe_ln - r.safe_need_ln;
    let shown = decision.readings.iter().filter(gates).filter(|_| decision.choice == Choice::Promote);
    shown.min_by(|a, b| spare(a).total_cmp(&spare(b))).map(|r| r.name.as_str())
}

/// The guardrail of a name, and the tag and value of its slice.
fn split(name: &str) -> (&str, Option<(&str, &str)>) {
    let slice = || {
        let (guardrail, rest) = name.split_once('[')?;
        Some((guardrail, Some(rest.strip_suffix(']')?.split_once('=')?)))
    };
    slice().unwrap_or((name, None))
}

/// A fold of the log that watches one guardrail of one rollout.
pub struct Tracer {
    verifier: Verifier,
    trace: EvidenceTrace,
    failed_at: Option<EventSeq>,
}

impl Tracer {
    pub fn new(subject: Subject) -> Tracer {
        let trace =
            EvidenceTrace { subject, cohorts: Vec::new(), blocks: Vec::new(), stand: None, differs: None };
        Tracer { verifier: Verifier::default(), trace, failed_at: None }
    }

    /// Takes the next event of the log, from its first up to the one in question.
    pub fn next(&mut self, seq: EventSeq, at: Timestamp, event: &Event) {
        let asked = seq == self.trace.subject.seq;
        // What a conclusion speaks of is how things stood before it; a scored cohort is in what came of it.
        let scored = matches!(event, Event::CohortScored { .. });
        if asked && !scored {
            let concluded = decide(&self.verifier.state).filter(|again| again.kind() == event.kind());
            self.trace.stand = self.stand(concluded.as_ref().unwrap_or(event), event);
        }
        if let Event::CohortScored { rollout, guardrail, cohort, scored } = event
            && (rollout, guardrail) == (&self.trace.subject.rollout, &self.trace.subject.guardrail)
            && let Some((_, policy, i, monitor)) = self.watched()
            && monitor.cohorts.contains_key(cohort)
        {
            let (factor, blocks) = work_out(seq, policy, i, monitor, *cohort, scored.step);
            self.trace.cohorts.push(factor);
            self.trace.blocks = blocks;
        }
        self.fold(seq, at, event);
        if let Event::VerdictReached { rollout, reading } = event
            && (rollout, &reading.name) == (&self.trace.subject.rollout, &self.trace.subject.guardrail)
            && reading.verdict == Verdict::Fail
        {
            self.failed_at.get_or_insert(seq);
        }
        if asked && scored {
            self.trace.stand = self.stand(event, event);
        }
    }

    /// Folds what follows from the facts; of other rollouts, and where that is of another sort, what is recorded.
    fn fold(&mut self, seq: EventSeq, at: Timestamp, event: &Event) {
        let Err(divergence) = self.verifier.next(seq, at, event) else { return };
        let again = match &divergence {
            Divergence::Differs { replayed, .. } => replayed.as_deref(),
            Divergence::Missing { .. } => None,
        };
        let again = again.filter(|again| (again.kind(), again.rollout()) == (event.kind(), event.rollout()));
        let of_it = |event: &Event| event.rollout() == Some(&self.trace.subject.rollout);
        let about = match &divergence {
            Divergence::Differs { recorded, replayed, .. } => {
                of_it(recorded) || replayed.as_deref().is_some_and(of_it)
            }
            Divergence::Missing { replayed, .. } => of_it(replayed),
        };
        self.verifier.state.apply(seq, at, again.unwrap_or(event));
        if about && self.trace.differs.is_none() {
            self.trace.differs = Some(divergence);
        }
    }

    /// What is watched: of a slice, its own evidence.
    fn watched(&self) -> Option<(&Rollout, &Policy, usize, &GuardrailMonitor)> {
        let subject = &self.trace.subject;
        let rollout = self.verifier.state.rollouts.get(&subject.rollout)?;
        let policy = self.verifier.state.policy_of(rollout);
        let i = policy.guardrails.iter().position(|g| g.name == subject.guardrail)?;
        let monitor = &rollout.monitors[i];
        let monitor = match &subject.slice {
            Some((_, value)) => monitor.slices.get(value)?,
            None => monitor,
        };
        Some((rollout, policy, i, monitor))
    }

    /// How it stands now; `again` is the event as worked out, `recorded` as in the log.
    fn stand(&self, again: &Event, recorded: &Event) -> Option<Snapshot> {
        let (rollout, policy, i, monitor) = self.watched()?;
        let state = &self.verifier.state;
        let turn = Turn { state, rollout, policy, now: state.now };
        let name = self.trace.subject.name();
        let slice = self.trace.subject.slice.is_some();
        let reading = match again {
            Event::AlertRaised { alert, .. } => alert.reading().filter(|r| r.name == name).cloned(),
            Event::VerdictReached { reading, .. } => Some(reading.clone()).filter(|r| r.name == name),
            Event::DecisionMade { decision, .. } => {
                decision.readings.iter().find(|r| r.name == name).cloned()
            }
            _ if slice => None,
            _ => judge(turn, &observed(turn)).readings.into_iter().nth(i),
        };
        let because = |reason: &Reason| matches!(reason, Reason::Guardrail { name: by } if *by == name);
        let rolled_back = match again {
            Event::DecisionMade { decision, .. } if decision.because.iter().any(because) => {
                words::rolled_back(decision, policy)
            }
            _ => None,
        };
        let recorded_ln = match recorded {
            Event::DecisionMade { decision, .. } => Some(decision.harm_ln),
            _ => None,
        };
        Some(Snapshot {
            guardrail: policy.guardrails[i].clone(),
            level: policy.evidence.rollback,
            series: words::series(rollout.spec.attempt, policy),
            failed_at: self.failed_at.filter(|_| !slice),
            rolled_back,
            reference: monitor.reference.clone(),
            evidence: monitor.evidence.clone(),
            reading,
            weighing: Weighing { recorded_ln, ..weighing(turn) },
            family: Some(family(rollout, policy))
                .filter(|family| slice && family.iter().any(|member| member.name == name))
                .unwrap_or_default(),
        })
    }

    pub fn finish(self) -> EvidenceTrace {
        self.trace
    }
}

fn weighing(turn: Turn) -> Weighing {
    let together = PooledEvidence::of(turn, &excuses(turn, &observed(turn)));
    let largest = together.largest();
    let parts = together.parts.iter().map(|part| Share {
        guardrail: part.name.to_owned(),
        weight: part.weight,
        ln: part.ln,
        share_ln: part.share_ln(),
        excused: part.excused,
        carries: largest.iter().flatten().any(|largest| part.share_ln() >= *largest),
    });
    Weighing {
        parts: parts.collect(),
        ln: together.ln(),
        need_ln: together.need_ln,
        rest_ln: together.rest_ln(),
        recorded_ln: None,
    }
}

/// All slices that the policy judges, as e-BH ranks them.
fn family(rollout: &Rollout, policy: &Policy) -> Vec<Member> {
    let judged = rollout.monitors.iter().zip(&policy.guardrails).flat_map(|(monitor, guardrail)| {
        let tag = guardrail.slices.as_deref().unwrap_or_default();
        let values = guardrail.judged.iter().flat_map(|judged| &judged.values);
        values.map(move |value| {
            let part = monitor.slices.get(value).filter(|p| p.reference.is_some() && p.evidence.blocks > 0);
            (format!("{}[{tag}={value}]", guardrail.name), part.map_or(0.0, |part| part.evidence.harm.ln()))
        })
    });
    let mut ranked: Vec<(String, f64)> = judged.collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let level = policy.evidence.rollback;
    let lns: Vec<f64> = ranked.iter().map(|(_, ln)| *ln).collect();
    let found = discoveries(&lns, level);
    let k = found.iter().filter(|found| **found).count();
    let member = |(i, ((name, ln), found))| Member {
        name,
        ln,
        need_ln: enough(lns.len(), k.max(i + 1), level),
        found,
    };
    ranked.into_iter().zip(found).enumerate().map(member).collect()
}

/// Scores a cohort at once, as it was, and block by block.
fn work_out(
    seq: EventSeq,
    policy: &Policy,
    i: usize,
    monitor: &GuardrailMonitor,
    cohort: Timestamp,
    step: u16,
) -> (Factor, Vec<Factor>) {
    let guardrail = &policy.guardrails[i];
    let scored = monitor.score(guardrail, policy, cohort, step);
    let mut before = monitor.evidence.clone();
    let segment = |step: u16| policy.steps.get(usize::from(step)).and_then(|step| step.segment);
    let anew = monitor.reference.is_some() && segment(step) != segment(before.step);
    let factor = |served, before: &Evidence, after: &Evidence, anew| {
        let change = |of: fn(&Evidence) -> f64| [of(before), of(after)];
        let other = |e: &Evidence| e.secondary.as_ref().map_or(0.0, |other| other.ln());
        let other_ln = [other(before), other(after)];
        let two_sided = guardrail.profile().secondary == Some(Secondary::Below);
        Factor {
            seq,
            served,
            step,
            baseline: grown(before, after, Arm::Baseline),
            canary: grown(before, after, Arm::Canary),
            harm_ln: [score::harm_ln(guardrail, before), score::harm_ln(guardrail, after)],
            safe_ln: change(|e| e.safe.ln()),
            sides_ln: two_sided.then(|| [change(|e| e.harm.ln()), other_ln]),
            benefit_ln: guardrail.benefit.map(|_| other_ln),
            epoch: after.harm.epoch > before.harm.epoch,
            anew,
        }
    };
    let mut evidence = monitor.entering(guardrail, policy, cohort, step);
    if anew {
        (before.baseline, before.canary) = Default::default();
    }
    let whole = Factor {
        baseline: scored.baseline,
        canary: scored.canary,
        ..factor(cohort, &before, &scored.evidence, anew)
    };
    let Some(reference) = &monitor.reference else { return (whole, Vec::new()) };
    let mut blocks = Vec::new();
    let mut note = |served, evidence: &Evidence| {
        if evidence.blocks > before.blocks {
            blocks.push(factor(served, &before, evidence, anew && blocks.is_empty()));
            before = evidence.clone();
        }
    };
    for (at, portion) in monitor.portions(guardrail, policy, cohort, step) {
        evidence.add(guardrail, reference, at, &portion);
        note(at, &evidence);
    }
    let end = cohort.plus(policy.evidence.cohort);
    evidence.end_cohort(guardrail, reference, end);
    note(end, &evidence);
    (whole, blocks)
}

/// What of an arm was bet on meanwhile.
fn grown(before: &Evidence, after: &Evidence, arm: Arm) -> ArmCount {
    let (was, is) = match arm {
        Arm::Baseline => (before.baseline, after.baseline),
        Arm::Canary => (before.canary, after.canary),
    };
    ArmCount { n: is.n.saturating_sub(was.n), sum: is.sum - was.sum }
}
