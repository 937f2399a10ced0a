//! The evidence behind one event, worked out again from the log, as programs get it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::bets::{UNITS_PER_NAT, Wealth};
use crate::core::evidence::kind::Secondary;
use crate::core::evidence::score::{self, BENEFIT_LN};
use crate::core::ids::EventSeq;
use crate::core::telemetry::arm::ArmCount;
use crate::core::words;
use crate::evidence_trace::{EvidenceTrace, Factor, Member, Share, Snapshot, Weighing};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRequest {
    /// A `cohort.scored`, `verdict.reached`, `decision.made`, or an `alert.raised` about a guardrail or a slice.
    pub seq: EventSeq,
    /// Which one, where the event speaks of several; else the one that binds, of a promotion the one with the least to
    /// spare. A slice: `NAME[TAG=VALUE]`.
    pub guardrail: Option<String>,
}

/// Answer to `evidence`: every factor that the evidence of one guardrail, or of one slice of it, is the product of.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceAnswer {
    pub seq: EventSeq,
    pub rollout: String,
    pub guardrail: String,
    /// Further guardrails that the event speaks of.
    #[serde(default)]
    pub others: Vec<String>,
    /// How it stood at the event, in a sentence.
    pub text: String,
    /// What the evidence means, and what may never be found.
    pub meaning: Vec<String>,
    /// What was worked out from the facts is what was recorded of the rollout, word for word.
    pub verified: bool,
    /// The first event that it differs from, and both sides of it.
    pub differs_at: Option<EventSeq>,
    pub difference: Option<String>,
    /// The verdict by which it failed; that stays so, whatever the evidence does afterwards.
    pub failed_at: Option<EventSeq>,
    pub baseline: BaselineView,
    /// Kind missing: the average of `above` and `below`, which hold the bets.
    pub harm: AccountView,
    /// `null`: of a kind that cannot show that its limit is respected.
    pub safe: Option<AccountView>,
    /// Kind missing: that more is missing than the limit allows, and that less is.
    pub above: Option<AccountView>,
    pub below: Option<AccountView>,
    /// That the canary is better by what a trade-off asks for.
    pub benefit: Option<AccountView>,
    /// Kind mean: that more of the canary's values count as the cap than may.
    pub above_cap: Option<AccountView>,
    /// The rollback guardrails together; `null` of a slice, and where none compares yet.
    pub together: Option<PooledEvidenceView>,
    /// The slices that are judged together, most evidence first. Of a slice only.
    pub slices: Vec<RankView>,
    /// A factor a scored cohort, oldest first; then a factor a block of the last of them.
    pub cohorts: Vec<FactorView>,
    pub blocks: Vec<FactorView>,
}

/// The rollback guardrails together: they fail when the weighted average of their evidence reaches what acts.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PooledEvidenceView {
    pub parts: Vec<PartView>,
    /// Log of the average (nats), and how much acts.
    pub ln: f64,
    pub need_ln: f64,
    pub evidence: String,
    /// The same without those that are excused, where one is.
    pub rest_ln: Option<f64>,
    /// As the decision recorded it, where the event is one.
    pub recorded_ln: Option<f64>,
}

/// What one guardrail adds to the average.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PartView {
    pub guardrail: String,
    pub weight: f64,
    /// Log-evidence of harm (nats), and of weight times evidence.
    pub ln: f64,
    pub share_ln: f64,
    /// A trade-off excuses it: its failing holds.
    pub excused: bool,
    /// The average has reached what acts, and this one carries most of it: it is the one that fails.
    pub carries: bool,
}

/// A slice among those that are judged together: the first k are found if the k-th has what k of them need.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RankView {
    pub slice: String,
    /// Log-evidence of harm (nats), and what its rank needs.
    pub ln: f64,
    pub need_ln: f64,
    pub evidence: String,
    pub found: bool,
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
    /// Log-evidence in nats, and how much acts by itself (where that is known).
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
    /// The same of what the guardrail has beside.
    pub above: Option<MoveView>,
    pub below: Option<MoveView>,
    pub benefit: Option<MoveView>,
    /// Capital held back was staked afresh.
    pub epoch: bool,
    /// Another segment began: its safety is shown anew.
    pub anew: bool,
}

/// A factor of one account, and its log-evidence (nats) after it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct MoveView {
    pub times: f64,
    pub ln: f64,
}

/// Observations and their sum: of zeros and ones, the ones.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CountView {
    pub n: u64,
    pub sum: f64,
}

impl EvidenceAnswer {
    pub fn new(trace: EvidenceTrace) -> EvidenceAnswer {
        let name = trace.subject.name();
        let stand = trace.stand.as_ref();
        let reading = stand.and_then(|stand| stand.reading.clone());
        let evidence = stand.map(|stand| stand.evidence.clone()).unwrap_or_default();
        let reference = stand.and_then(|stand| stand.reference.clone()).unwrap_or_default();
        let needs = |of: fn(&GuardrailReading) -> f64| reading.as_ref().map(of);
        let account = |wealth: &Wealth, grid: &[f64], need_ln: Option<f64>| AccountView {
            bets: grid
                .iter()
                .zip(&wealth.log_wealth)
                .map(|(size, word)| BetView { size: *size, ln: *word as f64 / UNITS_PER_NAT, word: *word })
                .collect(),
            reserve: wealth.cash,
            ..balance(wealth.ln(), need_ln)
        };
        let guardrail = stand.map(|stand| &stand.guardrail);
        let beside_is = |what| guardrail.filter(|g| g.profile().secondary == Some(what));
        let missing = beside_is(Secondary::Below).is_some();
        let beside = |need_ln| {
            evidence.secondary.as_ref().map(|other| account(other, &reference.secondary_grid, need_ln))
        };
        let above = account(&evidence.harm, &reference.harm_grid, needs(|r| r.harm_need_ln));
        let harm = match guardrail.filter(|_| missing) {
            Some(guardrail) => balance(score::harm_ln(guardrail, &evidence), above.need_ln),
            None => above.clone(),
        };
        let benefit = guardrail.and_then(|g| g.benefit);
        EvidenceAnswer {
            seq: trace.subject.seq,
            rollout: trace.subject.rollout.0.clone(),
            guardrail: name,
            others: trace.subject.others.clone(),
            text: reading.as_ref().map(words::reading).unwrap_or_default(),
            meaning: stand.map(meaning).unwrap_or_default(),
            verified: trace.differs.is_none(),
            differs_at: trace.differs.as_ref().map(|differs| differs.seq()),
            difference: trace.differs.as_ref().map(|differs| differs.sides()),
            failed_at: stand.and_then(|stand| stand.failed_at),
            harm,
            safe: guardrail
                .filter(|g| g.shows_safety())
                .map(|_| account(&evidence.safe, &reference.safe_grid, needs(|r| r.safe_need_ln))),
            below: beside(None).filter(|_| missing),
            above: missing.then_some(AccountView { need_ln: None, evidence: String::new(), ..above }),
            benefit: benefit.and_then(|_| beside(Some(BENEFIT_LN))),
            above_cap: beside_is(Secondary::AboveCap).and_then(|g| {
                // Whatever its weight, an alert needs what a rollback needs of all together.
                let share = if g.weight > 0.0 { libm::log(g.weight) } else { 0.0 };
                beside(needs(|r| r.harm_need_ln).map(|need| need + share))
            }),
            together: stand
                .filter(|stand| !stand.weighing.parts.is_empty() && trace.subject.slice.is_none())
                .map(|stand| together(&stand.weighing)),
            slices: stand.iter().flat_map(|stand| &stand.family).map(rank).collect(),
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

/// An account without its bets.
fn balance(ln: f64, need_ln: Option<f64>) -> AccountView {
    let evidence = need_ln.map(|need| words::evidence(ln, need)).unwrap_or_default();
    AccountView { ln, need_ln, evidence, bets: Vec::new(), reserve: 0.0 }
}

fn meaning(stand: &Snapshot) -> Vec<String> {
    let guardrail = &stand.guardrail;
    let slice = !stand.family.is_empty();
    let mut said: Vec<String> = stand.rolled_back.iter().cloned().collect();
    // What one slice shows must be read among all that are looked at.
    said.extend(match (&stand.reading, slice) {
        (Some(reading), false) => words::meaning(guardrail, reading),
        _ => Vec::new(),
    });
    if guardrail.compares().is_none() {
        said.push("It counts against a fixed limit and compares nothing: no evidence is weighed.".into());
    }
    said.extend(slice.then(|| words::family(stand.family.len(), stand.level)));
    said.extend(stand.reference.as_ref().and_then(|reference| words::resolution(guardrail, reference)));
    said.extend(stand.series.clone());
    said
}

fn together(w: &Weighing) -> PooledEvidenceView {
    let part = |part: &Share| PartView {
        guardrail: part.guardrail.clone(),
        weight: part.weight,
        ln: part.ln,
        share_ln: part.share_ln,
        excused: part.excused,
        carries: part.carries,
    };
    PooledEvidenceView {
        parts: w.parts.iter().map(part).collect(),
        ln: w.ln,
        need_ln: w.need_ln,
        evidence: words::evidence(w.ln, w.need_ln),
        rest_ln: w.rest_ln,
        recorded_ln: w.recorded_ln,
    }
}

fn rank(m: &Member) -> RankView {
    RankView {
        slice: m.name.clone(),
        ln: m.ln,
        need_ln: m.need_ln,
        evidence: words::evidence(m.ln, m.need_ln),
        found: m.found,
    }
}

fn factor(f: &Factor) -> FactorView {
    let counted = |arm: &ArmCount| CountView { n: arm.n, sum: arm.sum };
    // JSON has no infinity.
    let times = |[before, after]: [f64; 2]| libm::exp(after - before).min(f64::MAX);
    let moved = |ln: [f64; 2]| MoveView { times: times(ln), ln: ln[1] };
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
        above: f.sides_ln.map(|[above, _]| moved(above)),
        below: f.sides_ln.map(|[_, below]| moved(below)),
        benefit: f.benefit_ln.map(moved),
        epoch: f.epoch,
        anew: f.anew,
    }
}
