//! Works out again, from the log, the evidence that one event speaks of: every cohort's and every block's factor.
//! Pure; nothing is taken from the record but facts, and what is recorded is compared.

use crate::core::cohort::Arm;
use crate::core::conclusion::{ArmCount, Reason};
use crate::core::event::Event;
use crate::core::evidence::{Evidence, GuardrailReading};
use crate::core::ids::{EventSeq, RolloutId};
use crate::core::policy::Policy;
use crate::core::reference::Reference;
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::core::watch::Watch;

/// The evidence of one guardrail, factor by factor.
#[derive(Clone, Debug, PartialEq)]
pub struct Retrace {
    pub rollout: RolloutId,
    pub guardrail: String,
    /// In order of the log, one a scored cohort.
    pub cohorts: Vec<Factor>,
    /// Of the last of them, one a block.
    pub blocks: Vec<Factor>,
    pub reference: Option<Reference>,
    pub evidence: Evidence,
    /// As recorded, where the event holds one.
    pub reading: Option<GuardrailReading>,
    /// The first event whose recorded evidence is not what was worked out.
    pub differs_at: Option<EventSeq>,
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
    /// Capital held back was staked afresh.
    pub epoch: bool,
}

/// Why an event has no evidence to show.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetraceError {
    #[error("there is no event {0}")]
    NoEvent(EventSeq),
    #[error("event {0} ({1}) rests on no evidence; name a cohort.scored, verdict.reached or decision.made")]
    NoEvidence(EventSeq, &'static str),
    #[error("event {0} speaks of several guardrails; name one: {1}")]
    Which(EventSeq, String),
    #[error("event {0} does not speak of guardrail {1}; there are: {2}")]
    NoGuardrail(EventSeq, String, String),
}

/// Which evidence an event speaks of.
///
/// Errors: as in [`RetraceError`].
pub fn subject(
    seq: EventSeq,
    event: &Event,
    named: Option<&str>,
) -> Result<(RolloutId, String, Option<GuardrailReading>), RetraceError> {
    let one = |rollout: &RolloutId, name: &str, reading: Option<&GuardrailReading>| match named {
        Some(named) if named != name => {
            Err(RetraceError::NoGuardrail(seq, named.to_owned(), name.to_owned()))
        }
        _ => Ok((rollout.clone(), name.to_owned(), reading.cloned())),
    };
    match event {
        Event::CohortScored { rollout, guardrail, .. } => one(rollout, guardrail, None),
        Event::VerdictReached { rollout, reading } => one(rollout, &reading.name, Some(reading)),
        Event::DecisionMade { rollout, decision } => {
            let names = || decision.readings.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ");
            let binding = decision.because.iter().find_map(|reason| match reason {
                Reason::Guardrail { name } => Some(name.as_str()),
                _ => None,
            });
            let Some(name) = named.or(binding) else { return Err(RetraceError::Which(seq, names())) };
            match decision.readings.iter().find(|r| r.name == name) {
                Some(reading) => Ok((rollout.clone(), name.to_owned(), Some(reading.clone()))),
                None => Err(RetraceError::NoGuardrail(seq, name.to_owned(), names())),
            }
        }
        other => Err(RetraceError::NoEvidence(seq, other.kind())),
    }
}

/// A fold of the log that watches one guardrail of one rollout.
pub struct Tracer {
    state: State,
    trace: Retrace,
}

impl Tracer {
    pub fn new((rollout, guardrail, reading): (RolloutId, String, Option<GuardrailReading>)) -> Tracer {
        let trace = Retrace {
            rollout,
            guardrail,
            cohorts: Vec::new(),
            blocks: Vec::new(),
            reference: None,
            evidence: Evidence::default(),
            reading,
            differs_at: None,
        };
        Tracer { state: State::default(), trace }
    }

    /// Takes the next event of the log, from its first up to the one in question.
    pub fn next(&mut self, seq: EventSeq, at: Timestamp, event: &Event) {
        if event.is_fact() {
            self.state.touched.clear();
        }
        if let Event::CohortScored { rollout, guardrail, cohort, scored } = event
            && (rollout, guardrail) == (&self.trace.rollout, &self.trace.guardrail)
            && let Some((policy, watch, i)) = self.watched()
        {
            let (evidence, blocks) = work_out(seq, policy, watch, i, *cohort, scored.step);
            let factor = factor(seq, *cohort, scored.step, &watch.evidence, &evidence);
            let whole = Factor { baseline: scored.baseline, canary: scored.canary, ..factor };
            if evidence != scored.evidence && self.trace.differs_at.is_none() {
                self.trace.differs_at = Some(seq);
            }
            self.trace.cohorts.push(whole);
            self.trace.blocks = blocks;
            self.trace.evidence = evidence;
        }
        self.state.apply(seq, at, event);
    }

    fn watched(&self) -> Option<(&Policy, &Watch, usize)> {
        let rollout = self.state.rollouts.get(&self.trace.rollout)?;
        let policy = self.state.policy_of(rollout);
        let i = policy.guardrails.iter().position(|g| g.name == self.trace.guardrail)?;
        Some((policy, &rollout.watches[i], i))
    }

    pub fn finish(mut self) -> Retrace {
        self.trace.reference = self.watched().and_then(|(_, watch, _)| watch.reference.clone());
        self.trace
    }
}

/// Scores a cohort block by block, as [`Watch::score`] does at once.
fn work_out(
    seq: EventSeq,
    policy: &Policy,
    watch: &Watch,
    i: usize,
    cohort: Timestamp,
    step: u16,
) -> (Evidence, Vec<Factor>) {
    let guardrail = &policy.guardrails[i];
    let scored = watch.score(guardrail, policy, cohort, step);
    let Some(reference) = &watch.reference else { return (scored.evidence, Vec::new()) };
    let mut evidence = watch.evidence.clone();
    evidence.enter_step(step);
    let mut blocks = Vec::new();
    let mut note = |served, before: &Evidence, after: &Evidence| {
        if after.blocks > before.blocks {
            blocks.push(factor(seq, served, step, before, after));
        }
    };
    for (at, portion) in watch.portions(guardrail, policy, cohort, step) {
        let before = evidence.clone();
        evidence.add(guardrail, reference, at, &portion);
        note(at, &before, &evidence);
    }
    let before = evidence.clone();
    let end = cohort.plus(policy.evidence.cohort);
    evidence.end_cohort(guardrail, reference, end);
    note(end, &before, &evidence);
    (scored.evidence, blocks)
}

fn factor(seq: EventSeq, served: Timestamp, step: u16, before: &Evidence, after: &Evidence) -> Factor {
    let grown = |arm: Arm| {
        let (was, is) = match arm {
            Arm::Baseline => (before.baseline, after.baseline),
            Arm::Canary => (before.canary, after.canary),
        };
        ArmCount { n: is.n - was.n, sum: is.sum - was.sum }
    };
    Factor {
        seq,
        served,
        step,
        baseline: grown(Arm::Baseline),
        canary: grown(Arm::Canary),
        harm_ln: [before.harm.ln(), after.harm.ln()],
        safe_ln: [before.safe.ln(), after.safe.ln()],
        epoch: after.harm.epoch > before.harm.epoch,
    }
}
