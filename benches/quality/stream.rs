//! One simulated stream, judged by the production engine. A stream follows from its scenario and its number alone.

use sluice::core::decide::conditions::observed;
use sluice::core::decide::readings::judge;
use sluice::core::decide::turn::Turn;
use sluice::core::event::rollout_spec::RolloutSpec;
use sluice::core::evidence::block::pair_y;
use sluice::core::evidence::ingest::Receipt;
use sluice::core::evidence::monitor::GuardrailMonitor;
use sluice::core::evidence::score::harm_ln;
use sluice::core::ids::{Digest, Weight};
use sluice::core::policy::actuator::OnDeadline;
use sluice::core::policy::guardrail::{Count, EvidenceRules, Guardrail, Rule};
use sluice::core::policy::{ChangeKind, Concurrency, Policy, Retry, Step};
use sluice::core::rules::ENGINE;
use sluice::core::state::State;
use sluice::core::state::rollout::Rollout;
use sluice::core::telemetry::arm::{Arm, Portion};
use sluice::core::telemetry::cohort::unit_key;
use sluice::core::telemetry::observation::{Observation, Role};
use sluice::core::time::{Span, Timestamp};
use sluice::sim::random::Random;

use crate::law::Law;
use crate::scenario::{Asked, Labels, Phase, Scenario};

/// The levels of evidence that act, for alpha 0.05 and 0.01.
pub const LEVELS: [f64; 2] = [20.0, 100.0];

/// Observations of the baseline that most references are frozen from.
const REFERENCE: u32 = 500;
/// Blocks after which the next reference is asked for. In a rollout that happens when a cohort has settled.
const COHORT: u64 = 32;
/// Events in a block: what a minute holds where they are rare.
const EVENTS: u64 = 4;

/// Where a level was first reached: bet-on canary observations and requests so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct At {
    pub canary: u64,
    pub request: u64,
}

/// What became of one stream.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// First crossing of each level.
    pub harm: [Option<At>; 2],
    pub safe: [Option<At>; 2],
    /// The range that people are shown did not hold the true difference at some time.
    pub missed: bool,
    /// Canary observations when the last phase began.
    pub onset: u64,
    /// All of them.
    pub canary: u64,
}

impl Outcome {
    fn look(&mut self, guardrail: &Guardrail, monitor: &GuardrailMonitor, request: u64) {
        if monitor.reference.is_none() {
            return;
        }
        let at = At { canary: monitor.evidence.canary.n, request };
        for (first, ln) in [
            (&mut self.harm, harm_ln(guardrail, &monitor.evidence)),
            (&mut self.safe, monitor.evidence.safe.ln()),
        ] {
            for (first, level) in first.iter_mut().zip(LEVELS) {
                if first.is_none() && ln >= level.ln() {
                    *first = Some(at);
                }
            }
        }
    }
}

/// One request's outcome.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub step: u16,
    pub canary: bool,
    pub x: f64,
}

/// The requests of a stream, after the baseline observations that its reference is frozen from.
pub struct Stream<'a> {
    pub reference: Vec<f64>,
    random: Random,
    phases: std::slice::Iter<'a, Phase>,
    phase: &'a Phase,
    left: u64,
}

impl<'a> Stream<'a> {
    pub fn new(scenario: &'a Scenario, number: u64) -> Stream<'a> {
        let mut random = seeded(scenario, number);
        let mut phases = scenario.phases.iter();
        let phase = phases.next().expect("a phase");
        let n = scenario.guardrail.needs(&evidence_rules());
        let reference = (0..n).map(|_| phase.baseline.draw(&mut random)).collect();
        Stream { reference, random, phases, phase, left: phase.requests }
    }

    /// Whether the last phase has begun.
    pub fn last_phase(&self) -> bool {
        self.phases.len() == 0
    }
}

impl Iterator for Stream<'_> {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        while self.left == 0 {
            self.phase = self.phases.next()?;
            self.left = self.phase.requests;
        }
        self.left -= 1;
        let canary = self.random.chance(self.phase.share);
        let law = if canary { self.phase.canary } else { self.phase.baseline };
        Some(Request { step: self.phase.step, canary, x: law.draw(&mut self.random) })
    }
}

/// A generator for one stream: hashed, for the states of neighbouring seeds would run into each other.
fn seeded(scenario: &Scenario, number: u64) -> Random {
    let name = format!("{} {} {number}", scenario.name, scenario.share);
    let seed: [u8; 8] = Digest::of(name.as_bytes()).0[..8].try_into().expect("8 bytes");
    Random::new(u64::from_le_bytes(seed))
}

fn evidence_rules() -> EvidenceRules {
    EvidenceRules { reference_min: REFERENCE, ..EvidenceRules::default() }
}

/// A policy with one step.
fn policy(share: f64, guardrails: Vec<Guardrail>) -> Policy {
    let step = |share: f64| Step::plain(Weight((share * 10_000.0).round() as u16), Span::ZERO);
    Policy {
        name: "quality".into(),
        applies_to: vec![],
        significant: false,
        steps: vec![step(share)],
        soak: Span::ZERO,
        keep_old: Span::ZERO,
        on_deadline: OnDeadline::Hold,
        guardrails,
        conditions: Vec::new(),
        evidence: evidence_rules(),
        stale_after: Span::mins(10),
        approvals: vec![],
        concurrency: Concurrency::Queue,
        parts_at_once: 1,
        windows: None,
        segments: None,
        ab: false,
        release: false,
        retry_after_rollback: Retry::Allowed,
        scopes: Vec::new(),
        actuators: vec![],
        ack_timeout: Span::mins(1),
        declared: Default::default(),
        effective: None,
        smoke: Vec::new(),
    }
}

/// The engine as a rollout holds it, given one observation at a time and looked at after every block.
pub struct Judge<'a> {
    guardrail: &'a Guardrail,
    policy: Policy,
    pub monitor: GuardrailMonitor,
    /// Events of the open block, baseline and canary.
    events: [u64; 2],
}

impl<'a> Judge<'a> {
    /// With a reference frozen from `values`, as from the cohorts before the first bet.
    pub fn new(guardrail: &'a Guardrail, share: f64, values: &[f64]) -> Judge<'a> {
        let policy = policy(share, vec![guardrail.clone()]);
        let mut monitor = GuardrailMonitor::new(guardrail);
        let (start, length) = (Timestamp(0), policy.evidence.cohort);
        let mut observe = |arm, i: usize, value, role| {
            let key = unit_key(&i.to_string());
            let unit = matches!(guardrail.rule, Rule::Paired { .. }).then_some(key);
            let o = Observation {
                arm,
                served_at: start,
                cohort: start,
                unit,
                judge: None,
                place: key,
                value,
                role,
            };
            monitor.observe(&Receipt { guardrail, length, now: start, settled: false }, o);
        };
        for (i, &value) in values.iter().enumerate() {
            match guardrail.rule {
                Rule::Paired { .. } => {
                    let (a, b) = pair(value);
                    observe(Arm::Baseline, i, a, Role::Value);
                    observe(Arm::Canary, i, b, Role::Value);
                }
                // A one is a request whose value has not come.
                Rule::Missing { .. } => {
                    observe(Arm::Baseline, i, 0.0, Role::Request);
                    if value < 0.5 {
                        observe(Arm::Baseline, i, 0.0, Role::Value);
                    }
                }
                _ => observe(Arm::Baseline, i, value, Role::Value),
            }
        }
        if !values.is_empty() {
            let scored = monitor.score(guardrail, &policy, start, 0);
            monitor.apply_scored(guardrail, &policy, start, &scored);
        }
        let mut judge = Judge { guardrail, policy, monitor, events: [0; 2] };
        judge.freeze(0);
        judge
    }

    /// Takes one observation; returns whether that closed a block.
    #[inline]
    pub fn take(&mut self, number: u64, request: Request) -> bool {
        let Request { step, canary, x } = request;
        let monitor = &mut self.monitor;
        let Some(reference) = &monitor.reference else { return false };
        monitor.evidence.enter_step(step);
        let portion = match self.guardrail.rule {
            Rule::Mean { .. } | Rule::Score { .. } | Rule::Quantile { .. } => Portion::Value { canary, x },
            Rule::Paired { .. } => {
                let (a, b) = pair(x);
                Portion::Pair { a, b }
            }
            Rule::Count(_) | Rule::Split => {
                self.events[usize::from(canary)] += 1;
                if self.events[0] + self.events[1] < EVENTS {
                    return false;
                }
                let [x_a, x_b] = std::mem::take(&mut self.events);
                let ratio =
                    if let Rule::Count(Count { ratio }) = self.guardrail.rule { Some(ratio) } else { None };
                Portion::Labels { x_a, x_b, share: self.policy.steps[0].to.as_share(), ratio }
            }
            Rule::Proportion(_) | Rule::Missing(_) | Rule::Absolute(_) | Rule::Stop(_) => {
                let (n_b, f) = (u64::from(canary), u64::from(x >= 0.5));
                Portion::Counts { n_a: 1 - n_b, f_a: f * (1 - n_b), n_b, f_b: f * n_b }
            }
        };
        // What a scored cohort adds to the next reference.
        let of_pair = matches!(self.guardrail.rule, Rule::Paired { .. });
        if !canary || of_pair {
            let y = if of_pair { pair_y(0.0, x) } else { reference.baseline_y(x) };
            monitor.gathered.n += 1;
            monitor.gathered.sum += y;
            monitor.gathered.sumsq += y * y;
            if matches!(self.guardrail.rule, Rule::Quantile { .. }) {
                monitor.gathered.values.push(x);
            }
        }
        let blocks = monitor.evidence.blocks;
        monitor.evidence.add(self.guardrail, reference, Timestamp(number * 1_000), &portion);
        let closed = monitor.evidence.blocks > blocks;
        if closed && monitor.evidence.blocks.is_multiple_of(COHORT) {
            monitor.gathered.forget();
            self.freeze(step);
        }
        closed
    }

    fn freeze(&mut self, step: u16) {
        if let Some(Ok(reference)) = self.monitor.next_reference(self.guardrail, &self.policy.evidence) {
            self.monitor.apply_reference(&reference, step);
        }
    }
}

/// The outcomes of both arms whose difference is `x`.
fn pair(x: f64) -> (f64, f64) {
    if x < 0.0 { (1.0, 0.0) } else { (0.0, x) }
}

/// Runs stream `number` of a scenario to its end, or until everything asked is known.
pub fn run(scenario: &Scenario, number: u64) -> Outcome {
    if let Some(labels) = &scenario.labels {
        return run_cohorts(scenario, labels, number);
    }
    if !scenario.beside.is_empty() {
        return run_policy(scenario, number);
    }
    let mut stream = Stream::new(scenario, number);
    let mut judge = Judge::new(&scenario.guardrail, scenario.share, &stream.reference);
    let (mut outcome, mut begun) = (Outcome::default(), false);
    let mut n = 0;
    while let Some(request) = stream.next() {
        n += 1;
        if !begun && stream.last_phase() {
            (outcome.onset, begun) = (judge.monitor.evidence.canary.n, true);
        }
        if judge.take(n, request) {
            outcome.look(&scenario.guardrail, &judge.monitor, n);
            if let Asked::Range(truth) = scenario.asked {
                let range = judge.monitor.evidence.interval.range(judge.monitor.scale());
                outcome.missed |= range.is_some_and(|range| truth < range.lo || truth > range.hi);
            }
            let done = match scenario.asked {
                Asked::Worse | Asked::WorseFast | Asked::Onset => outcome.harm[1].is_some(),
                Asked::Equal => n >= 100_000 && outcome.safe[1].is_some(),
                _ => false,
            };
            if done {
                break;
            }
        }
    }
    outcome.canary = judge.monitor.evidence.canary.n;
    outcome
}

/// Each request is an observation of every guardrail, and what acts is what the policy says of all together.
fn run_policy(scenario: &Scenario, number: u64) -> Outcome {
    let mut random = seeded(scenario, number);
    let phase = &scenario.phases[0];
    let parts: Vec<(&Guardrail, Law, Law)> = scenario.parts().collect();
    let policy = policy(scenario.share, parts.iter().map(|(guardrail, ..)| (*guardrail).clone()).collect());
    let mut judges: Vec<Judge> = Vec::new();
    for (guardrail, baseline, _) in &parts {
        let n = guardrail.needs(&evidence_rules());
        let values: Vec<f64> = (0..n).map(|_| baseline.draw(&mut random)).collect();
        judges.push(Judge::new(guardrail, scenario.share, &values));
    }
    let (state, mut rollout) =
        (State::default(), Rollout::new("r1".into(), spec(), &policy, 1, Timestamp(0)));
    let mut outcome = Outcome::default();
    for n in 1..=phase.requests {
        let canary = random.chance(phase.share);
        let mut closed = false;
        for (judge, (_, of_baseline, of_canary)) in judges.iter_mut().zip(&parts) {
            let law = if canary { of_canary } else { of_baseline };
            closed |= judge.take(n, Request { step: phase.step, canary, x: law.draw(&mut random) });
        }
        // An average reaches a level only if one of its parts does.
        if !closed || judges.iter().all(|judge| judge.monitor.evidence.harm.ln() < LEVELS[0].ln()) {
            continue;
        }
        let swap = |judges: &mut [Judge], rollout: &mut Rollout| {
            let pairs = judges.iter_mut().zip(&mut rollout.monitors);
            pairs.for_each(|(judge, monitor)| std::mem::swap(&mut judge.monitor, monitor));
        };
        swap(&mut judges, &mut rollout);
        let turn = Turn { state: &state, rollout: &rollout, policy: &policy, now: Timestamp(n * 1_000) };
        let judgement = judge(turn, &observed(turn));
        swap(&mut judges, &mut rollout);
        let at = Some(At { canary: judges[0].monitor.evidence.canary.n, request: n });
        let acts = [judgement.harm, judgement.harm_ln >= LEVELS[1].ln()];
        for (first, _) in outcome.harm.iter_mut().zip(acts).filter(|(first, acts)| first.is_none() && *acts) {
            *first = at;
        }
        if scenario.asked == Asked::PooledEvidence && outcome.harm[1].is_some() {
            break;
        }
    }
    outcome.canary = judges[0].monitor.evidence.canary.n;
    outcome
}

fn spec() -> RolloutSpec {
    RolloutSpec {
        intent: "quality".into(),
        service: "quality".into(),
        kind: ChangeKind::Model,
        from: "a".into(),
        to: "b".into(),
        policy_name: "quality".into(),
        policy: Digest::of(b"quality"),
        by: "quality".into(),
        reason: "quality".into(),
        attempt: 1,
        finding: None,
        composition: Default::default(),
        from_composition: Default::default(),
        behind: None,
        supersedes: Vec::new(),
        scopes: Vec::new(),
        blocked: None,
        engine: ENGINE,
        traceparent: None,
    }
}

/// An outcome on its way: when it comes in, and what it is.
struct Coming {
    at: Timestamp,
    observation: Observation,
}

/// Requests spread over time, outcomes that come in late, cohorts that settle: everything as in a rollout whose
/// canary starts two hours into the baseline's traffic.
fn run_cohorts(scenario: &Scenario, labels: &Labels, number: u64) -> Outcome {
    let (guardrail, policy) = (&scenario.guardrail, policy(scenario.share, vec![scenario.guardrail.clone()]));
    let length = policy.evidence.cohort;
    let mut monitor = GuardrailMonitor::new(guardrail);
    let mut outcome = Outcome::default();
    let coming = coming(scenario, labels, length, number);
    for (n, Coming { at, observation }) in coming.iter().enumerate() {
        settle(&mut monitor, &policy, *at, n as u64, &mut outcome);
        let settled = observation.cohort.plus(length).plus(guardrail.maturity) <= *at;
        monitor.observe(&Receipt { guardrail, length, now: *at, settled }, *observation);
    }
    settle(&mut monitor, &policy, Timestamp(u64::MAX), coming.len() as u64, &mut outcome);
    outcome.canary = monitor.evidence.canary.n;
    outcome
}

/// Scores what has settled by `now`, freezing references in between, as `decide` does.
fn settle(monitor: &mut GuardrailMonitor, policy: &Policy, now: Timestamp, n: u64, outcome: &mut Outcome) {
    let (guardrail, length) = (&policy.guardrails[0], policy.evidence.cohort);
    while let Some(start) =
        monitor.oldest().filter(|start| start.plus(length).plus(guardrail.maturity) <= now)
    {
        let scored = monitor.score(guardrail, policy, start, 0);
        monitor.apply_scored(guardrail, policy, start, &scored);
        outcome.look(guardrail, monitor, n);
        if let Some(Ok(reference)) = monitor.next_reference(guardrail, &policy.evidence) {
            monitor.apply_reference(&reference, 0);
        }
    }
}

/// Every outcome of a stream in the order in which they come in.
fn coming(scenario: &Scenario, labels: &Labels, length: Span, number: u64) -> Vec<Coming> {
    let mut random = seeded(scenario, number);
    let phase = &scenario.phases[0];
    let start = Timestamp(Span::hours(2).0);
    let (requests, apart, named) = labels.user;
    let like_the_user = libm::sqrt(labels.icc);
    let mut all = Vec::new();
    let before = start.0 * labels.rate / 1_000 / requests;
    for user in 0..before + phase.requests / requests {
        let began = user * requests * 1_000 / labels.rate;
        let canary = began >= start.0 && random.chance(phase.share);
        let law = if canary { phase.canary } else { phase.baseline };
        // Each outcome is the user's own with probability sqrt(icc), else drawn anew: the correlation is then icc.
        let own = law.draw(&mut random);
        for i in 0..requests {
            let like = like_the_user > 0.0 && random.chance(like_the_user);
            let value = if like { own } else { law.draw(&mut random) };
            let served = Timestamp(began + i * apart * 1_000 + random.below(1_000));
            let mean = labels.minutes[usize::from(value < 0.5)];
            let delay = -libm::log1p(-random.unit()) * mean * 60_000.0;
            let at = served.plus(Span(delay as u64));
            let served_at = if labels.by_arrival { at } else { served };
            if served_at < start && (canary || !labels.by_arrival) {
                continue;
            }
            let cohort = Timestamp(served_at.0 / length.0 * length.0);
            let place = unit_key(&format!("{user} {i}"));
            let unit = named.then(|| unit_key(&user.to_string()));
            let arm = if canary { Arm::Canary } else { Arm::Baseline };
            let role = Role::Value;
            let observation = Observation { arm, served_at, cohort, unit, judge: None, place, value, role };
            all.push(Coming { at, observation });
        }
    }
    all.sort_by_key(|coming| (coming.at, coming.observation.place));
    all
}

/// Whether a law's observations are zeros and ones.
pub fn is_binary(law: Law) -> bool {
    matches!(law, Law::Share(_))
}
