//! Services, their versions, and what is true of them.

use std::collections::BTreeMap;

use super::{Draw, Fault, Kinds, MINUTE, Segments, random, scaled};
use crate::core::event::bundle::{Part, Parts, fingerprint};
use crate::core::ids::Version;
use crate::sim::random::Random;

const SERVICES: [&str; 2] = ["assistant", "search"];

/// The truth about a version, which sluice has to find out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    pub truth: Truth,
    /// Added to the share of passed evaluations.
    pub pass: f64,
    /// Factors on the share of errors and on the cost.
    pub error: f64,
    pub cost: f64,
    /// How much worse it is for the further guardrails of the seed, in units of their limits.
    pub shift: f64,
    /// How many fewer answers of the first suite are good, while it is well on the whole.
    pub forgets: f64,
    /// Now and then, something happens that must not.
    pub leaks: bool,
    /// When half of its answers begin to fail, ms after the start.
    pub breaks: Option<u64>,
    /// The segment in which it differs at all from what served before, where it is one only.
    pub only: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    /// Exactly as what served before.
    Same,
    Better,
    /// Worse, and within every limit.
    Within,
    /// Worse by exactly the limit.
    AtLimit,
    Beyond,
    /// Half of its answers are errors.
    Broken,
    /// The same, until it breaks.
    BreaksLater,
}

/// One service and its traffic.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    pub name: &'static str,
    /// Requests in ten seconds.
    pub requests: u64,
    pub pass: f64,
    pub error: f64,
    /// How far the baseline's share moves, and over how many ms.
    pub drift: (f64, u64),
    pub form: Form,
    /// What is measured for further guardrails.
    pub kinds: Kinds,
    /// The segments of its traffic, where some policy has segments.
    pub segments: Option<Segments>,
    pub versions: BTreeMap<Version, Effect>,
}

/// How telemetry is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Summed by the sender, as ready columns.
    Sums,
    /// Single samples, as ready columns.
    Columns,
    /// The same with the users named.
    Units,
    Json,
}

impl ServicePlan {
    /// Divides its traffic. Sums say nothing about segments, so most of those who send them send single samples.
    pub(super) fn divide(&mut self, segments: &Segments, seed: u64, n: u64) {
        let mut r = random(seed, Draw::Exposure, 8 + n);
        if self.form == Form::Sums && r.chance(0.85) {
            (self.form, self.requests) = (Form::Columns, self.requests / 8);
        }
        for effect in self.versions.values_mut().skip(1) {
            // Mostly not where it would be seen first.
            let later = 1 + r.below(segments.names.len() as u64 - 1) as usize;
            let segment = if r.chance(0.75) { later } else { 0 };
            effect.only = r.chance(0.7).then_some(segment);
        }
        self.kinds.histograms = false;
        self.segments = Some(segments.clone());
    }
}

pub(super) fn services(r: &mut Random, events_min: u64, faults: &[Fault], bundles: bool) -> Vec<ServicePlan> {
    let version = |i| version(i, bundles);
    let n = if r.chance(0.25) { 2 } else { 1 };
    let mut service = |name: &'static str| {
        let (pass, error) = (0.85 + 0.1 * r.unit(), 0.01 + 0.02 * r.unit());
        let drift =
            if faults.contains(&Fault::Drift) { (0.06 * r.unit(), 20 + r.below(60)) } else { (0.0, 60) };
        // Sums are the cheapest to make and to read: half of the services, for what comes in single samples costs the
        // rest of the time.
        let form = match r.below(6) {
            0 => Form::Columns,
            1 => Form::Units,
            2 => Form::Json,
            _ => Form::Sums,
        };
        let requests = match form {
            Form::Sums => 200 + r.below(400),
            _ => 20 + r.below(40),
        };
        let mut versions = BTreeMap::from([(version(0), effect(Truth::Same, events_min, r))]);
        for i in 1..=4 {
            let truth = match r.below(10) {
                0..=2 => Truth::Same,
                3 => Truth::Better,
                4 => Truth::Within,
                5 => Truth::AtLimit,
                6 => Truth::Beyond,
                7 => Truth::Broken,
                _ => Truth::BreaksLater,
            };
            versions.insert(version(i), effect(truth, events_min, r));
        }
        ServicePlan {
            name,
            requests,
            pass,
            error,
            drift: (drift.0, drift.1 * MINUTE),
            form,
            kinds: Kinds::default(),
            segments: None,
            versions,
        }
    };
    SERVICES.iter().take(n).map(|name| service(name)).collect()
}

/// The `i`th version: by name, or by what it is made of.
pub fn version(i: usize, bundles: bool) -> Version {
    if bundles { fingerprint(&bundle(i)) } else { Version(format!("m@{i}")) }
}

/// What the `i`th version is made of: some differ in one part, some in both.
pub fn bundle(i: usize) -> Parts {
    let (model, prompt) = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0)][i];
    let part = |name: &str, i: usize| Version(format!("{name}@{i}"));
    [(Part::Model, part("model", model)), (Part::Prompt, part("prompt", prompt))].into()
}

/// The limits of the policies below: 4 points of passes, twice the errors and a point.
fn effect(truth: Truth, events_min: u64, r: &mut Random) -> Effect {
    let (pass, error) = match truth {
        Truth::Same | Truth::BreaksLater => (0.0, 1.0),
        Truth::Better => (0.01 + 0.03 * r.unit(), 0.8),
        Truth::Within => (-0.02 * r.unit(), 1.2),
        Truth::AtLimit => (-0.04, 1.0),
        Truth::Beyond => (-0.07 - 0.1 * r.unit(), 1.0),
        Truth::Broken => (-0.4, 25.0),
    };
    let cost = if truth != Truth::Same && r.chance(0.3) { 1.6 } else { 1.0 };
    let breaks = (truth == Truth::BreaksLater).then(|| scaled((10 + r.below(60)) * MINUTE, events_min));
    Effect { truth, pass, error, cost, shift: 0.0, forgets: 0.0, leaks: false, breaks, only: None }
}
