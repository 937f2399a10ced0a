//! The evidence behind one event, worked out again from the log, as programs get it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shapes::ApiError;
use crate::core::bets::{WORD, Wealth};
use crate::core::conclusion::ArmCount;
use crate::core::ids::EventSeq;
use crate::core::words;
use crate::retrace::{Factor, Retrace, RetraceError, Tracer, subject};
use crate::shell::log::Reader;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// A `cohort.scored`, `verdict.reached` or `decision.made`.
    pub seq: EventSeq,
    /// Which one, where the event speaks of several; else the one that binds.
    pub guardrail: Option<String>,
}

/// Answer to `evidence`: every factor that the evidence of one guardrail is the product of.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceAnswer {
    pub seq: EventSeq,
    pub rollout: String,
    pub guardrail: String,
    /// The sentence of the event, where it has one.
    pub text: String,
    /// What was worked out is what was recorded, word for word.
    pub verified: bool,
    /// The first event that it differs from.
    pub differs_at: Option<EventSeq>,
    pub baseline: BaselineView,
    pub harm: AccountView,
    pub safe: AccountView,
    /// A factor a scored cohort, oldest first; then a factor a block of the last of them.
    pub cohorts: Vec<FactorView>,
    pub blocks: Vec<FactorView>,
}

/// What the baseline is taken to be, at the event.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct BaselineView {
    pub n: u64,
    pub mean: f64,
    pub variance: f64,
    pub cap: Option<f64>,
    pub threshold: Option<f64>,
}

/// One account of evidence: what is staked on each size of regression, and what is in reserve.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AccountView {
    /// Log-evidence in nats, and how much acts (where the event says so).
    pub ln: f64,
    pub need_ln: Option<f64>,
    pub evidence: String,
    pub bets: Vec<BetView>,
    /// Capital that is not staked.
    pub reserve: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BetView {
    /// Excess over the boundary, normalised; of counts and splits the ratio.
    pub size: f64,
    /// Log capital in nats, and the same as a fixed-point word (units of 2^-40).
    pub ln: f64,
    pub word: i64,
}

/// By how much something multiplied the evidence.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FactorView {
    pub seq: EventSeq,
    pub served_ms: u64,
    /// Number of the step, from 1.
    pub step: u16,
    pub baseline: CountView,
    pub canary: CountView,
    pub harm: f64,
    pub safe: f64,
    /// Log-evidence (nats) after it.
    pub harm_ln: f64,
    pub safe_ln: f64,
    /// Capital held back was staked afresh.
    pub epoch: bool,
}

/// Observations and their sum: of zeros and ones, the ones.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountView {
    pub n: u64,
    pub sum: f64,
}

/// Works out the evidence behind the event `request.seq` from the log.
pub fn evidence(log: &Reader, last: EventSeq, request: &EvidenceRequest) -> Result<EvidenceAnswer, ApiError> {
    if request.seq > last {
        return Err(RetraceError::NoEvent(request.seq).into());
    }
    let asked = log.read(request.seq)?;
    let mut tracer = Tracer::new(subject(request.seq, &asked.event, request.guardrail.as_deref())?);
    for found in log.scan(1)? {
        let found = found?;
        tracer.next(found.seq, found.at, &found.event);
        if found.seq >= request.seq {
            break;
        }
    }
    Ok(EvidenceAnswer::new(request.seq, tracer.finish()))
}

impl EvidenceAnswer {
    pub fn new(seq: EventSeq, trace: Retrace) -> EvidenceAnswer {
        let Retrace { reference, evidence, reading, .. } = trace;
        let reference = reference.unwrap_or_default();
        let needs = |of: fn(&crate::core::evidence::GuardrailReading) -> f64| reading.as_ref().map(of);
        let account = |wealth: &Wealth, grid: &[f64], need_ln: Option<f64>| AccountView {
            ln: wealth.ln(),
            need_ln,
            evidence: need_ln.map(|need| words::evidence(wealth.ln(), need)).unwrap_or_default(),
            bets: grid
                .iter()
                .zip(&wealth.words)
                .map(|(size, word)| BetView { size: *size, ln: *word as f64 / WORD, word: *word })
                .collect(),
            reserve: wealth.cash,
        };
        EvidenceAnswer {
            seq,
            rollout: trace.rollout.0,
            guardrail: trace.guardrail,
            text: reading.as_ref().map(words::reading).unwrap_or_default(),
            verified: trace.differs_at.is_none(),
            differs_at: trace.differs_at,
            harm: account(&evidence.harm, &reference.harm_grid, needs(|r| r.harm_need_ln)),
            safe: account(&evidence.safe, &reference.safe_grid, needs(|r| r.safe_need_ln)),
            baseline: BaselineView {
                n: reference.n,
                mean: reference.theta,
                variance: reference.variance,
                cap: reference.cap,
                threshold: reference.threshold,
            },
            cohorts: trace.cohorts.iter().map(factor).collect(),
            blocks: trace.blocks.iter().map(factor).collect(),
        }
    }
}

fn factor(f: &Factor) -> FactorView {
    let counted = |arm: &ArmCount| CountView { n: arm.n, sum: arm.sum };
    let times = |[before, after]: [f64; 2]| libm::exp(after - before);
    FactorView {
        seq: f.seq,
        served_ms: f.served.0,
        step: f.step + 1,
        baseline: counted(&f.baseline),
        canary: counted(&f.canary),
        harm: times(f.harm_ln),
        safe: times(f.safe_ln),
        harm_ln: f.harm_ln[1],
        safe_ln: f.safe_ln[1],
        epoch: f.epoch,
    }
}

impl From<RetraceError> for ApiError {
    fn from(error: RetraceError) -> ApiError {
        let code = match error {
            RetraceError::NoEvent(_) | RetraceError::NoGuardrail(..) => "E4004",
            RetraceError::NoEvidence(..) | RetraceError::Which(..) => "E5015",
        };
        ApiError::new(code, error.to_string())
    }
}
