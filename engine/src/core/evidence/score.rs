//! The evidence of one guardrail: settled blocks in, log-evidence of harm and of safety out.
//!
//! Invariant: a block is scored with a reference, a grid and an epoch fixed before it was seen.
//! Not here: gathering samples into cohorts (`telemetry::cohort`), what it is read as (`decide::readings`).

use serde::{Deserialize, Serialize};

use super::bets::{Arms, Bets, PairSetting, Pairs, Setting, Wealth, ln_weighted};
use super::block::{BLOCK, EPOCH_CANARY, OpenBlock, pair_y};
use super::interval::IntervalEstimate;
use super::kind::Secondary;
use super::label_bets;
use super::reference::{Reference, exceeds};
use crate::core::policy::guardrail::Guardrail;
use crate::core::telemetry::arm::{ArmCount, Portion};
use crate::core::time::{Span, Timestamp};

/// Values of one arm that wait for the other from one cohort to the next; more are dropped, whatever they say.
const OPEN_VALUES_MAX: usize = 1_024;
/// How long they wait.
const TOLERANCE: Span = Span::mins(10);
/// Everything one guardrail has learned from settled cohorts. Its size does not grow with samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub harm: Wealth,
    pub safe: Wealth,
    /// Of a benefit that a trade-off asks for; of a missing share that is lower than the baseline's; of a mean, that more
    /// of the canary's values are above the cap than may be.
    pub secondary: Option<Wealth>,
    /// A benefit was shown at some time. Latched.
    pub benefit_shown: bool,
    /// Who graded what was last scored, by hash; 0 where nobody is named. Another begins an epoch.
    pub judge: u64,
    /// Step of the last scored block; entering another begins an epoch.
    pub step: u16,
    /// Canary observations since the epoch began.
    pub epoch_canary: u32,
    pub blocks: u64,
    /// Settled and bet on, whole rollout.
    pub baseline: ArmCount,
    pub canary: ArmCount,
    /// Means only: how many of them counted as the cap, baseline and canary.
    pub capped: [u32; 2],
    /// Canary observations settled at `step`, bet on or not.
    pub step_canary: u64,
    /// Observations that lack the other arm so far.
    pub open: OpenBlock,
    pub interval: IntervalEstimate,
    /// When the last epoch began: canary observations, evidence of harm and of safety. For the outlook that people
    /// are shown.
    pub mark: Mark,
}

/// How the evidence stood at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    pub canary: u64,
    pub harm_ln: f64,
    pub safe_ln: f64,
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

impl Evidence {
    /// A capital of 1 on each side, staked on the grids of `reference`.
    pub fn start(&mut self, reference: &Reference, step: u16) {
        self.harm = Wealth::new(reference.harm_grid.len());
        self.safe = Wealth::new(reference.safe_grid.len());
        self.secondary =
            (!reference.secondary_grid.is_empty()).then(|| Wealth::new(reference.secondary_grid.len()));
        self.step = step;
        self.epoch_canary = 0;
    }

    /// That one segment is safe says nothing about the next, and what is shown is about one. What speaks
    /// against the canary stays.
    pub fn enter_segment(&mut self, benefit: bool) {
        self.safe = Wealth::new(self.safe.log_wealth.len());
        self.capped = [0; 2];
        // Nor does a benefit in one excuse harm in the next.
        if benefit {
            self.secondary = self.secondary.as_ref().map(|other| Wealth::new(other.log_wealth.len()));
            self.benefit_shown = false;
        }
        self.interval = IntervalEstimate::default();
        (self.baseline, self.canary) = (ArmCount::default(), ArmCount::default());
    }

    /// Begins an epoch when `judge` is not the one of before, and compares nothing across the change.
    pub fn enter_judge(&mut self, judge: u64) {
        let before = std::mem::replace(&mut self.judge, judge);
        if before != 0 && before != judge {
            self.begin_epoch();
            self.open = OpenBlock::default();
            (self.interval.step, self.interval.squares) = Default::default();
        }
    }

    /// Begins an epoch when `step` is not the last scored one.
    pub fn enter_step(&mut self, step: u16) {
        if step != self.step {
            self.begin_epoch();
            // A block belongs to one step.
            self.open = OpenBlock::default();
            (self.interval.step, self.interval.squares) = Default::default();
            self.step = step;
            self.step_canary = 0;
        }
    }

    /// Canary observations settled at `step`.
    pub fn step_canary_at(&self, step: u16) -> u64 {
        if self.step == step { self.step_canary } else { 0 }
    }

    /// Stakes capital afresh on both sides.
    pub fn begin_epoch(&mut self) {
        self.mark = Mark { canary: self.canary.n, harm_ln: self.harm.ln(), safe_ln: self.safe.ln() };
        self.harm.begin_epoch();
        self.safe.begin_epoch();
        if let Some(other) = &mut self.secondary {
            other.begin_epoch();
        }
        self.epoch_canary = 0;
    }

    /// Adds observations in request-time order, scoring each block that closes.
    pub fn add(&mut self, guardrail: &Guardrail, reference: &Reference, at: Timestamp, portion: &Portion) {
        let waited = !self.open.is_empty() && !self.open.both() && at.since(self.open.since) > TOLERANCE;
        if waited {
            self.open = OpenBlock::default();
        }
        if let Portion::Labels { x_a, x_b, share, ratio } = *portion {
            return self.score_labels(guardrail, reference, (x_a, x_b, share), ratio);
        }
        let open = &mut self.open;
        if open.is_empty() {
            open.since = at;
        }
        match *portion {
            Portion::Counts { n_a, f_a, n_b, f_b } => open.count(n_a, f_a, n_b, f_b),
            Portion::Beyond { n_a, f_a, n_b, f_b, unsure_b } => {
                open.count(n_a, f_a, n_b, f_b);
                open.unsure_b += unsure_b;
            }
            Portion::Value { canary, x } => match reference.threshold {
                // Only whether it is beyond the threshold is bet on.
                Some(threshold) => {
                    let factor = if canary { guardrail.canary_factor() } else { 1.0 };
                    let beyond = u64::from(exceeds(guardrail.better, x / factor, threshold));
                    let canary = u64::from(canary);
                    open.count(1 - canary, beyond * (1 - canary), canary, beyond * canary);
                }
                None if canary => {
                    open.n_b += 1;
                    open.sum_b += x;
                    open.xs_b.push(x);
                }
                None => {
                    open.n_a += 1;
                    open.sum_a += x;
                    open.xs_a.push(x);
                }
            },
            Portion::Pair { a, b } => {
                open.n_a += 1;
                open.n_b += 1;
                open.sum_a += a;
                open.sum_b += b;
                open.xs_a.push(a);
                open.xs_b.push(b);
            }
            Portion::Labels { .. } => {}
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
        let Some(bets) = guardrail.bets(reference) else { return };
        match &bets {
            Bets::Counts(arms) => self.score_counts(arms, reference, &block),
            Bets::Values(arms) => self.score_values(arms, guardrail.canary_factor(), reference, &block),
            Bets::Pairs(pairs) => self.score_pairs(pairs, reference, &block),
            // Labels are scored as they come: no block is opened.
            Bets::Labels { .. } => return,
        }
        self.interval.add(&bets, reference, &block);
        self.close(guardrail, block.n_a, block.sum_a, block.n_b, block.sum_b);
    }

    fn score_counts(&mut self, arms: &Arms, reference: &Reference, block: &OpenBlock) {
        let (n_a, n_b) = (block.n_a as f64, block.n_b as f64);
        let (f_a, sure, unsure) = (block.sum_a, block.sum_b, block.unsure_b as f64);
        let pay = |setting: &Setting, lean, eps: f64, f_b| {
            setting.bet(lean, eps, n_a, n_b).pay_counts(n_a, f_a, n_b, f_b)
        };
        let Arms { setting, lean, secondary: asked, .. } = arms;
        self.harm.add(reference.harm_grid.iter().map(|eps| pay(setting, *lean, *eps, sure)));
        let safe = lean.opposite();
        self.safe.add(reference.safe_grid.iter().map(|eps| pay(setting, safe, *eps, sure + unsure)));
        if let (Some(other), Some((setting, lean))) = (&mut self.secondary, asked) {
            other.add(reference.secondary_grid.iter().map(|eps| pay(setting, *lean, *eps, sure)));
        }
    }

    /// `factor`: what the canary's values are divided by.
    fn score_values(&mut self, arms: &Arms, factor: f64, reference: &Reference, block: &OpenBlock) {
        let (n_a, n_b) = (block.n_a as f64, block.n_b as f64);
        let normal = |xs: &[f64], factor: f64| -> Vec<f64> {
            xs.iter().map(|x| reference.baseline_y(x / factor)).collect()
        };
        let (ys_a, ys_b) = (normal(&block.xs_a, 1.0), normal(&block.xs_b, factor));
        let pay =
            |setting: &Setting, lean, eps: f64| setting.bet(lean, eps, n_a, n_b).pay_values(&ys_a, &ys_b);
        let Arms { setting, lean, secondary: asked, .. } = arms;
        self.harm.add(reference.harm_grid.iter().map(|eps| pay(setting, *lean, *eps)));
        self.safe.add(reference.safe_grid.iter().map(|eps| pay(setting, lean.opposite(), *eps)));
        // Where there is a cap, what is asked beside is how many are above it.
        let above = reference.cap.map(|cap| {
            let above = |xs: &[f64], factor: f64| xs.iter().filter(|x| **x / factor > cap).count() as u64;
            [above(&block.xs_a, 1.0), above(&block.xs_b, factor)]
        });
        for (capped, more) in self.capped.iter_mut().zip(above.unwrap_or_default()) {
            *capped = capped.saturating_add(more as u32);
        }
        let (Some(other), Some((setting, lean))) = (&mut self.secondary, asked) else { return };
        other.add(reference.secondary_grid.iter().map(|eps| match above {
            Some([f_a, f_b]) => {
                setting.bet(*lean, *eps, n_a, n_b).pay_counts(n_a, f_a as f64, n_b, f_b as f64)
            }
            None => pay(setting, *lean, *eps),
        }));
    }

    fn score_pairs(&mut self, pairs: &Pairs, reference: &Reference, block: &OpenBlock) {
        let ys: Vec<f64> = block.xs_a.iter().zip(&block.xs_b).map(|(a, b)| pair_y(*a, *b)).collect();
        let pay = |setting: &PairSetting, lean, eps: f64| setting.pay(lean, setting.stake(lean, eps), &ys);
        let Pairs { setting, lean, benefit, .. } = pairs;
        self.harm.add(reference.harm_grid.iter().map(|eps| pay(setting, *lean, *eps)));
        self.safe.add(reference.safe_grid.iter().map(|eps| pay(setting, lean.opposite(), *eps)));
        if let (Some(other), Some((setting, _))) = (&mut self.secondary, benefit) {
            other.add(reference.secondary_grid.iter().map(|eps| pay(setting, lean.opposite(), *eps)));
        }
    }

    /// Counts and splits need neither a block of a certain size nor both arms: pay-offs of events only add up.
    fn score_labels(
        &mut self,
        guardrail: &Guardrail,
        reference: &Reference,
        (x_a, x_b, share): (u64, u64, f64),
        ratio: Option<f64>,
    ) {
        // With no baseline, or no canary, every event has one label, and says nothing.
        if !(share > 0.0 && share < 1.0) || x_a + x_b == 0 {
            return;
        }
        let (a, b) = (x_a as f64, x_b as f64);
        let boundary = ratio.unwrap_or(1.0);
        let t0 = label_bets::chance(boundary, 1.0 - share, share);
        let pay = |r: &f64| label_bets::pay(t0, label_bets::chance(boundary * r, 1.0 - share, share), a, b);
        self.harm.add(reference.harm_grid.iter().map(pay));
        self.safe.add(reference.safe_grid.iter().map(pay));
        if ratio.is_none() {
            self.interval.sum += (a + b) * share;
            self.interval.weight += a + b;
        } else {
            // Mantel-Haenszel: drift of the intensity cancels.
            self.interval.sum += b * (1.0 - share);
            self.interval.weight += a * share;
        }
        self.close(guardrail, x_a, a, x_b, b);
    }

    fn close(&mut self, guardrail: &Guardrail, n_a: u64, sum_a: f64, n_b: u64, sum_b: f64) {
        self.blocks += 1;
        self.baseline.add(n_a, sum_a);
        self.canary.add(n_b, sum_b);
        if guardrail.benefit.is_some() {
            self.benefit_shown |= self.secondary.as_ref().is_some_and(|other| other.ln() >= BENEFIT_LN);
        }
        self.epoch_canary = self.epoch_canary.saturating_add(n_b.min(u64::from(u32::MAX)) as u32);
        if u64::from(self.epoch_canary) >= EPOCH_CANARY {
            self.begin_epoch();
        }
    }
}

/// Evidence that shows a benefit: 20x.
pub const BENEFIT_LN: f64 = 2.995732273553991;

/// Log-evidence that the limit is exceeded. A missing share has two sides: the average of their evidence is evidence
/// against either.
pub fn harm_ln(guardrail: &Guardrail, evidence: &Evidence) -> f64 {
    let above = evidence.harm.ln();
    if guardrail.profile().secondary != Some(Secondary::Below) {
        return above;
    }
    let below = evidence.secondary.as_ref().map_or(0.0, |other| other.ln());
    ln_weighted([(0.5, above), (0.5, below)].into_iter())
}
