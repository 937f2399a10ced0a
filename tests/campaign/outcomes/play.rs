//! One rollout in virtual time: facts into the runner, and what its conclusions say to the world.

use std::collections::BTreeSet;

use sluice::core::event::Event;
use sluice::core::event::alert::Alert;
use sluice::core::event::decision::{Choice, Reason};
use sluice::core::event::fact::{Ack, AckStatus, Intent, Origin};
use sluice::core::event::rollout_spec::Outcome as End;
use sluice::core::evidence::verdict::Verdict;
use sluice::core::ids::{Digest, Service, Weight};
use sluice::core::policy::guardrail::OnFail;
use sluice::core::policy::{ChangeKind, Policy};
use sluice::core::telemetry::columns::{Builder, Columns, Row};
use sluice::core::time::{Span, Timestamp};
use sluice::core::words;
use sluice::runner::Runner;
use sluice::sim::random::Random;
use sluice::sim::script::START;
use sluice::sim::world::in_canary;

use super::data::{Arms, Arrivals, EVAL, METRICS};

pub const BASELINE: &str = "baseline";
pub const CANARY: &str = "canary";
const SERVICE: &str = "assistant";
/// So many that hardly one comes twice within a cohort.
const USERS: u64 = 50_000;
/// A telemetry message holds what was served in this time.
const BATCH: Span = Span::secs(10);

/// What became of the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    Promote,
    Hold,
    Rollback,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub word: Word,
    /// Guardrails that failed: those that ask a person about cost, latency or format, and the others.
    pub alerts: BTreeSet<String>,
    pub failed: BTreeSet<String>,
    /// Canary requests served until that was decided.
    pub canary: u64,
}

/// A rollout at work.
pub struct Play {
    runner: Runner,
    pub now: Timestamp,
    pub weight: Weight,
    /// Canary requests served so far.
    pub canary: u64,
    alerts: BTreeSet<String>,
    failed: BTreeSet<String>,
    /// Canary requests served when a guardrail that holds failed first.
    held_at: Option<u64>,
    promoted_at: u64,
    pub ended: Option<Ended>,
}

impl Play {
    pub fn start(policy: &Policy, seed: u64) -> Play {
        let mut play = Play {
            runner: Runner::default(),
            now: START,
            weight: Weight::ZERO,
            canary: 0,
            alerts: BTreeSet::new(),
            failed: BTreeSet::new(),
            held_at: None,
            promoted_at: 0,
            ended: None,
        };
        let log = uuid::Uuid::from_u64_pair(0x6f75_7463_6f6d_6573, seed);
        for fact in Event::begin(log, "outcomes") {
            play.take(fact);
        }
        let digest = Digest::of(policy.name.as_bytes());
        play.take(Event::PolicyStored { digest, policy: policy.clone(), source: policy.name.clone() });
        let intent = Intent {
            id: "i1".into(),
            service: SERVICE.into(),
            kind: ChangeKind::Model,
            from: Some(BASELINE.into()),
            to: CANARY.into(),
            policy: Some(policy.name.clone()),
            by: "maya".into(),
            reason: "recorded outcomes".into(),
            finding: None,
            scopes: Vec::new(),
            significant: false,
            composition: Default::default(),
            from_composition: Default::default(),
            content: Digest::of(b"i1"),
        };
        play.take(Event::IntentReceived { intent, origin: Origin::default() });
        play
    }

    /// The version of the rules that it is decided by.
    pub fn engine(&self) -> Option<u32> {
        self.runner.state.rollouts.values().next().map(|rollout| rollout.spec.engine)
    }

    /// Time passes up to `now`, and then telemetry comes in.
    pub fn batch(&mut self, now: Timestamp, columns: Columns) {
        self.now = now;
        self.take(Event::BatchReceived { service: SERVICE.into(), columns, origin: Origin::default() });
    }

    /// Time passes without any message.
    pub fn pass(&mut self, now: Timestamp) {
        self.now = now;
        let mut events = Vec::new();
        self.runner.tick(now, &mut |_, _, event| events.push(event.clone()));
        self.see(events);
    }

    fn take(&mut self, fact: Event) {
        let mut events = Vec::new();
        self.runner.take(self.now, fact, &mut |_, _, event| {
            if !matches!(event, Event::BatchReceived { .. } | Event::CohortScored { .. }) {
                events.push(event.clone());
            }
        });
        self.see(events);
    }

    /// Actuators obey at once; the rest is written down.
    fn see(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::CommandIssued { command, .. } => {
                    self.weight = command.weight;
                    for actuator in command.actuators.clone() {
                        let ack = Ack {
                            service: command.service.clone(),
                            command: command.id,
                            actuator,
                            status: AckStatus::Applied,
                            took_ms: Some(0),
                            done: None,
                        };
                        self.take(Event::AckReceived { ack, origin: Origin::default() });
                    }
                }
                Event::VerdictReached { reading, .. } if reading.verdict == Verdict::Fail => {
                    if reading.on_fail_effective() == OnFail::Alert {
                        self.alerts.insert(reading.name);
                    } else {
                        self.held_at.get_or_insert(self.canary);
                        self.failed.insert(reading.name);
                    }
                }
                Event::DecisionMade { decision, .. } => match decision.choice {
                    Choice::Rollback => self.end(Word::Rollback, self.canary),
                    Choice::Promote => self.promoted_at = self.canary,
                    Choice::Hold if decision.because.iter().any(|r| matches!(r, Reason::Deadline { .. })) => {
                        self.end(Word::Hold, self.held_at.unwrap_or(self.canary));
                    }
                    _ => {}
                },
                Event::RolloutEnded { outcome: End::Completed, .. } => {
                    self.end(Word::Promote, self.promoted_at);
                }
                Event::AlertRaised { alert, .. } => {
                    if let Alert::Unjudgeable { guardrail: name, .. } = &alert {
                        self.failed.insert(format!("{name}: {}", words::alert::text(&alert)));
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether a guardrail that holds or rolls back has failed.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    fn end(&mut self, word: Word, canary: u64) {
        let (alerts, failed) = (self.alerts.clone(), self.failed.clone());
        self.ended.get_or_insert(Ended { word, alerts, failed, canary });
    }
}

/// Serves drawn cases until the rollout has ended. A canary request of paired cases is answered by the baseline as
/// well, for its eval only; the baseline's own requests are not evaluated then, for nothing pairs with them.
pub fn serve(policy: &Policy, arms: &Arms, arrivals: &Arrivals, seed: u64) -> Ended {
    let mut play = Play::start(policy, seed);
    let mut random = Random::new(seed);
    let service = Service::from(SERVICE);
    let (start, mut next) = (play.now, 0);
    loop {
        let (from, to) = (play.now, play.now.plus(BATCH));
        let mut builder = Builder::new(from);
        while start.plus(Span(arrivals.at(next))) < to {
            let served_at = start.plus(Span(arrivals.at(next)));
            next += 1;
            let canary = in_canary(&service, random.below(USERS), play.weight);
            play.canary += u64::from(canary);
            let (version, cases) = if canary { (CANARY, &arms.canary) } else { (BASELINE, &arms.baseline) };
            let case = random.below(cases.len() as u64) as usize;
            let unit = (arms.paired && canary).then(|| next.to_string());
            for (i, metric) in METRICS.iter().enumerate() {
                let Some(value) = cases[case][i] else { continue };
                let mut row = Row { version, metric, served_at, unit: None, tags: None, value };
                if i == EVAL && arms.paired {
                    let (Some(unit), Some(other)) = (&unit, arms.baseline[case][EVAL]) else { continue };
                    row.unit = Some(unit);
                    builder.push(Row { version: BASELINE, value: other, ..row });
                }
                builder.push(row);
            }
        }
        if builder.is_empty() {
            play.pass(to);
        } else {
            play.batch(to, builder.finish());
        }
        if let Some(ended) = play.ended {
            return ended;
        }
        assert!(play.now.since(start) < Span::hours(100), "{}: no end", policy.name);
    }
}
