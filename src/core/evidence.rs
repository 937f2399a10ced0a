//! The evidence of one guardrail: settled blocks in, log-evidence of harm and of safety out.
//!
//! Invariant: a block is scored with a reference, a grid and an epoch fixed before it was seen.
//! Not here: gathering samples into cohorts (`cohort`), what a reading leads to (`judge`).

use serde::{Deserialize, Serialize};

use super::bets::{Lean, Wealth};
use super::event::ArmCount;
use super::ids::Metric;
use super::planted::{Bug, planted};
use super::policy::{Guardrail, OnFail, Rule};
use super::reference::{Reference, harm_lean};
use super::time::{Span, Timestamp};
use super::verdict::Verdict;

/// Canary observations after which a new epoch begins.
pub const EPOCH_CANARY: u64 = 512;
/// Values of one arm that wait for the other from one cohort to the next; more are dropped, whatever they say.
const OPEN_VALUES_MAX: usize = 1_024;
/// How long they wait.
const TOLERANCE: Span = Span::mins(10);
/// Observations that close a block.
pub const BLOCK: u64 = 32;

/// Everything one guardrail has learned from settled cohorts. Its size does not grow with samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub harm: Wealth,
    pub safe: Wealth,
    /// Step of the last scored block; entering another begins an epoch.
    pub step: u16,
    /// Canary observations since the epoch began.
    pub epoch_canary: u64,
    pub blocks: u64,
    /// Settled and bet on, whole rollout.
    pub baseline: ArmCount,
    pub canary: ArmCount,
    /// Canary observations settled at `step`, bet on or not.
    pub step_canary: u64,
    /// Observations that lack the other arm so far.
    pub open: OpenBlock,
    pub display: Display,
}

/// Observations not yet scored, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenBlock {
    /// Request time of the oldest.
    pub since: Timestamp,
    pub n_a: u64,
    pub n_b: u64,
    /// Sums: for zeros and ones, the number of ones.
    pub sum_a: f64,
    pub sum_b: f64,
    /// Values, for means only.
    pub xs_a: Vec<f64>,
    pub xs_b: Vec<f64>,
}

/// Accumulators of the always-valid range that people are shown; no decision reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Display {
    pub weight: f64,
    pub sum: f64,
    pub variance: f64,
    /// The variance at which the range is tightest: that of [`EPOCH_CANARY`] canary observations.
    pub best_at: f64,
}

/// What scoring one cohort came to: the counts it held, and the evidence that results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    pub step: u16,
    pub baseline: ArmCount,
    pub canary: ArmCount,
    /// The cohort went into the next reference only: none was frozen yet.
    pub reference_only: bool,
    pub evidence: Evidence,
}

/// A difference and the range it lies in, in the metric's own unit (shares for proportions).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    pub diff: f64,
    pub lo: f64,
    pub hi: f64,
}

/// The kind of a guardrail, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardrailKind {
    Proportion,
    Mean,
    Absolute,
}

/// How one guardrail stands: the verdict and all that `explain` needs to say why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardrailReading {
    pub name: String,
    pub metric: Metric,
    pub kind: GuardrailKind,
    pub on_fail: OnFail,
    pub verdict: Verdict,
    pub baseline: ArmCount,
    pub canary: ArmCount,
    pub range: Option<Range>,
    /// Log-evidence in nats, and how much of it acts.
    pub harm_ln: f64,
    pub harm_need_ln: f64,
    pub safe_ln: f64,
    pub safe_need_ln: f64,
    /// How far the canary may be from the baseline, in the metric's own unit; the share of an absolute guard.
    pub limit: Option<f64>,
    /// Observations that wait for their cohort to settle.
    pub waiting: u64,
    /// Observations that came too late to be bet on.
    pub late: u64,
    pub reference: Option<Reference>,
    pub epoch: u32,
    pub blocks: u64,
}

impl OpenBlock {
    pub fn is_empty(&self) -> bool {
        self.n_a + self.n_b == 0
    }

    /// Values held for a mean.
    pub fn values(&self) -> usize {
        self.xs_a.len() + self.xs_b.len()
    }

    fn both(&self) -> bool {
        self.n_a > 0 && self.n_b > 0
    }
}

/// Observations of one instant (or slot) of request time, ready to be cut into blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Portion {
    /// `n` and how many are ones, per arm.
    Counts { n_a: u64, f_a: u64, n_b: u64, f_b: u64 },
    /// One raw value of the canary or the baseline.
    Value { canary: bool, x: f64 },
}

impl Evidence {
    /// A capital of 1 on each side, staked on the grids of `reference`.
    pub fn start(&mut self, reference: &Reference, step: u16) {
        self.harm = Wealth::new(reference.harm_grid.len());
        self.safe = Wealth::new(reference.safe_grid.len());
        self.step = step;
        self.epoch_canary = 0;
    }

    /// Begins an epoch when `step` is not the last scored one.
    pub fn enter_step(&mut self, step: u16) {
        if step != self.step {
            self.begin_epoch();
            // A block belongs to one step.
            self.open = OpenBlock::default();
            self.step = step;
            if !planted(Bug::ForgetsStepCount) {
                self.step_canary = 0;
            }
        }
    }

    /// Canary observations settled at `step`.
    pub fn step_canary_at(&self, step: u16) -> u64 {
        if self.step == step || planted(Bug::ForgetsStepCount) { self.step_canary } else { 0 }
    }

    /// Stakes capital afresh on both sides.
    pub fn begin_epoch(&mut self) {
        self.harm.begin_epoch();
        self.safe.begin_epoch();
        self.epoch_canary = 0;
    }

    /// Adds observations in request-time order, scoring each block that closes.
    pub fn add(&mut self, guardrail: &Guardrail, reference: &Reference, at: Timestamp, portion: &Portion) {
        let open = &mut self.open;
        if open.is_empty() {
            open.since = at;
        }
        match *portion {
            Portion::Counts { n_a, f_a, n_b, f_b } => {
                open.n_a += n_a;
                open.n_b += n_b;
                open.sum_a += f_a as f64;
                open.sum_b += f_b as f64;
            }
            Portion::Value { canary: false, x } => {
                open.n_a += 1;
                open.sum_a += x;
                open.xs_a.push(x);
            }
            Portion::Value { canary: true, x } => {
                open.n_b += 1;
                open.sum_b += x;
                open.xs_b.push(x);
            }
        }
        if open.n_a + open.n_b >= BLOCK && open.both() {
            self.score(guardrail, reference);
        }
    }

    /// At the end of a cohort: scores what both arms are in, keeps a one-sided rest for a while.
    pub fn end_cohort(&mut self, guardrail: &Guardrail, reference: &Reference, end: Timestamp) {
        if self.open.both() {
            self.score(guardrail, reference);
        } else if end.since(self.open.since) > TOLERANCE || self.open.values() > OPEN_VALUES_MAX {
            self.open = OpenBlock::default();
        }
    }

    fn score(&mut self, guardrail: &Guardrail, reference: &Reference) {
        let block = std::mem::take(&mut self.open);
        let setting = reference.setting(guardrail);
        let lean = harm_lean(guardrail.better);
        let (n_a, n_b) = (block.n_a as f64, block.n_b as f64);
        if matches!(guardrail.rule, Rule::Mean { .. }) {
            let ys_a: Vec<f64> = block.xs_a.iter().map(|x| reference.baseline_y(*x)).collect();
            let ys_b: Vec<f64> = block.xs_b.iter().map(|x| reference.canary_y(guardrail, *x)).collect();
            for (wealth, lean, grid) in self.sides(lean, reference) {
                wealth.add(grid.iter().map(|eps| setting.bet(lean, *eps, n_a, n_b).pay_values(&ys_a, &ys_b)));
            }
        } else {
            let (f_a, f_b) = (block.sum_a, block.sum_b);
            for (wealth, lean, grid) in self.sides(lean, reference) {
                wealth.add(
                    grid.iter().map(|eps| setting.bet(lean, *eps, n_a, n_b).pay_counts(n_a, f_a, n_b, f_b)),
                );
            }
        }
        self.display.add(guardrail, reference, &block);
        self.blocks += 1;
        for (arm, n, sum) in
            [(&mut self.baseline, block.n_a, block.sum_a), (&mut self.canary, block.n_b, block.sum_b)]
        {
            arm.n += n;
            arm.sum += sum;
        }
        self.epoch_canary += block.n_b;
        if self.epoch_canary >= EPOCH_CANARY {
            self.begin_epoch();
        }
    }

    fn sides<'a>(
        &'a mut self,
        harm: Lean,
        reference: &'a Reference,
    ) -> [(&'a mut Wealth, Lean, &'a [f64]); 2] {
        [
            (&mut self.harm, harm, &reference.harm_grid),
            (&mut self.safe, harm.opposite(), &reference.safe_grid),
        ]
    }
}

impl Display {
    /// Block difference with Mantel-Haenszel weight `n_a n_b / (n_a + n_b)`: only arms of the same minutes are
    /// compared, so drift of the baseline cancels.
    fn add(&mut self, guardrail: &Guardrail, reference: &Reference, block: &OpenBlock) {
        let (n_a, n_b) = (block.n_a as f64, block.n_b as f64);
        let h = n_a * n_b / (n_a + n_b);
        let (mean_a, mean_b) = (block.sum_a / n_a, block.sum_b / n_b);
        // Means are weighed on the scale of the bets, so that one rule fits every unit.
        let cap = reference.cap.unwrap_or(1.0);
        let per_observation = match guardrail.rule {
            Rule::Mean { .. } => [reference.variance; 2],
            // The block's own share, drawn towards the reference, so that no block claims certainty.
            _ => [(block.sum_a, n_a), (block.sum_b, n_b)].map(|(sum, n)| {
                let p = (sum + 2.0 * reference.theta) / (n + 2.0);
                p * (1.0 - p)
            }),
        };
        if self.weight == 0.0 {
            self.best_at = reference.variance * EPOCH_CANARY as f64;
        }
        self.weight += h;
        self.sum += h * (mean_b - mean_a) / cap;
        self.variance += h * h * (per_observation[0] / n_a + per_observation[1] / n_b);
    }

    /// Estimate and always-valid 95 % range: a normal mixture boundary (Howard et al. 2021, Annals of
    /// Statistics, arXiv:1810.08240). Asymptotic, hence for display only. `None` while too little was seen.
    pub fn range(&self, scale: f64) -> Option<Range> {
        if self.weight < 20.0 {
            return None;
        }
        let radius = normal_mixture_bound(self.variance, 0.05, self.best_at) / self.weight;
        let diff = self.sum / self.weight;
        Some(Range { diff: diff * scale, lo: (diff - radius) * scale, hi: (diff + radius) * scale })
    }
}

/// The two-sided normal mixture boundary at intrinsic variance `v`, tightest at `v_opt`: a sum of that variance
/// leaves `±bound` at any time with probability at most `alpha` (Howard et al. 2021, equation 14).
pub fn normal_mixture_bound(v: f64, alpha: f64, v_opt: f64) -> f64 {
    let tail = libm::log(1.0 / alpha);
    let rho = v_opt / (2.0 * tail + libm::log(1.0 + 2.0 * tail));
    libm::sqrt((v + rho) * (libm::log(1.0 + v / rho) + 2.0 * tail))
}
