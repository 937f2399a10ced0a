//! Folds a recorded history again: to prove that the same facts give the same conclusions byte for byte, or to
//! see where another policy would have parted from the record. Pure; replaying never sends anything.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::core::decide::decide;
use crate::core::event::Event;
use crate::core::event::decision::Choice;
use crate::core::event::fact::AckStatus;
use crate::core::ids::{CommandId, Digest, EventSeq, RolloutId, Weight};
use crate::core::policy::Policy;
use crate::core::state::State;
use crate::core::text::plain;
use crate::core::time::Timestamp;
use crate::core::words;
use crate::core::words::line::describe;
use crate::runner::Runner;
use crate::wire::events;
use crate::wire::time::rfc3339;

/// A history being verified, event by event.
#[derive(Default)]
pub struct Verifier {
    pub state: State,
    pub counts: Counts,
}

/// What a verified history held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub events: u64,
    pub conclusions: u64,
    pub decisions: u64,
    /// Observations in telemetry.
    pub observations: u64,
}

/// Where replaying parts from the record.
#[derive(Debug, thiserror::Error)]
pub enum Divergence {
    #[error("seq {seq}: replay differs from the record")]
    Differs { seq: EventSeq, at: Timestamp, recorded: Box<Event>, replayed: Option<Box<Event>> },
    #[error("after seq {seq}: the replay concludes something that the record does not have")]
    Missing { seq: EventSeq, at: Timestamp, replayed: Box<Event> },
}

impl Divergence {
    /// The event where they part; where the record ends too early, the last one before.
    pub fn seq(&self) -> EventSeq {
        match self {
            Divergence::Differs { seq, .. } | Divergence::Missing { seq, .. } => *seq,
        }
    }

    /// The two sides, and the first value that differs.
    pub fn sides(&self) -> String {
        let title = |seq, at, event: &Event| {
            let rollout = event.rollout().map_or(String::new(), |id| format!("{id}, "));
            format!("{rollout}seq {seq}, {}", rfc3339(at))
        };
        match self {
            Divergence::Differs { seq, at, recorded, replayed } => {
                let other = replayed.as_ref().map_or("nothing".to_owned(), |event| describe(event));
                let first = replayed.as_ref().and_then(|event| first_difference(recorded, event));
                let first = first.map_or(String::new(), |(path, a, b)| {
                    format!(
                        "\nfirst difference: {}: RECORDED {}, REPLAYED {}",
                        plain(&path),
                        plain(&a),
                        plain(&b)
                    )
                });
                format!(
                    "{}\n  RECORDED  {}\n  REPLAYED  {other}{first}",
                    title(*seq, *at, recorded),
                    describe(recorded)
                )
            }
            Divergence::Missing { seq, at, replayed } => format!(
                "{}\n  RECORDED  nothing more\n  REPLAYED  {}",
                title(*seq, *at, replayed),
                describe(replayed)
            ),
        }
    }
}

impl Verifier {
    /// Goes on from a state that was folded, not decided again.
    pub fn from(state: State) -> Verifier {
        Verifier { state, counts: Counts::default() }
    }

    /// Takes the next recorded event: a fact is folded, a conclusion must be what the core concludes here.
    pub fn next(&mut self, seq: EventSeq, at: Timestamp, event: &Event) -> Result<(), Divergence> {
        self.counts.events += 1;
        if event.is_fact() {
            self.settled()?;
            if let Event::BatchReceived { columns, .. } = event {
                self.counts.observations += columns.observations();
            }
        } else {
            self.counts.decisions += u64::from(matches!(event, Event::DecisionMade { .. }));
            self.counts.conclusions += 1;
            let replayed = decide(&self.state);
            if !replayed.as_ref().is_some_and(|replayed| same_bytes(replayed, event)) {
                let (recorded, replayed) = (Box::new(event.clone()), replayed.map(Box::new));
                return Err(Divergence::Differs { seq, at, recorded, replayed });
            }
        }
        self.state.apply(seq, at, event);
        Ok(())
    }

    /// At the end, and before each fact: nothing more follows from the last one.
    pub fn settled(&self) -> Result<(), Divergence> {
        match decide(&self.state) {
            None => Ok(()),
            Some(replayed) => Err(Divergence::Missing {
                seq: self.state.last,
                at: self.state.now,
                replayed: Box::new(replayed),
            }),
        }
    }
}

/// Whether two events have the same stored bytes.
fn same_bytes(a: &Event, b: &Event) -> bool {
    let bytes = |event: &Event| {
        let mut out = Vec::new();
        events::encode(event, &mut out).map(|code| (code, out)).ok()
    };
    bytes(a).is_some_and(|a| Some(a) == bytes(b))
}

/// The first value that differs between two events: path, recorded, replayed.
pub fn first_difference(recorded: &Event, replayed: &Event) -> Option<(String, String, String)> {
    let json = |event: &Event| serde_json::to_value(event).unwrap_or(Value::Null);
    difference("", &json(recorded), &json(replayed))
}

fn difference(path: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .find_map(|(key, value)| difference(&join(path, key), value, b.get(key).unwrap_or(&Value::Null)))
            .or_else(|| {
                let extra = b.iter().find(|(key, _)| !a.contains_key(*key))?;
                Some((join(path, extra.0), "nothing".into(), extra.1.to_string()))
            }),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
        }
        _ if a == b => None,
        _ => Some((path.to_owned(), a.to_string(), b.to_string())),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// One decision, for comparing histories.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub at: Timestamp,
    pub choice: Choice,
    pub to: Weight,
    pub summary: String,
}

/// One rollout under the recorded policy and under another.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    pub rollout: RolloutId,
    pub recorded: Vec<Step>,
    pub replayed: Vec<Step>,
}

impl Comparison {
    /// Index of the first decision that is not the same choice at the same time. From there on the recorded
    /// telemetry no longer shows what the other policy would have seen.
    pub fn parted(&self) -> Option<usize> {
        let same = |(a, b): (&Step, &Step)| (a.at, a.choice, a.to) == (b.at, b.choice, b.to);
        let first = self.recorded.iter().zip(&self.replayed).position(|pair| !same(pair));
        let (n, m) = (self.recorded.len(), self.replayed.len());
        first.or((n != m).then(|| n.min(m)))
    }
}

/// Replays recorded facts under another policy.
pub struct WhatIf {
    policy: Policy,
    digest: Digest,
    runner: Runner,
    recorded: BTreeMap<RolloutId, Vec<Step>>,
    replayed: BTreeMap<RolloutId, Vec<Step>>,
    /// What recorded commands asked for.
    commands: BTreeMap<CommandId, (RolloutId, Weight)>,
}

impl WhatIf {
    pub fn new(policy: Policy, source: &str) -> WhatIf {
        WhatIf {
            policy,
            digest: Digest::of(source.as_bytes()),
            runner: Runner::default(),
            recorded: BTreeMap::new(),
            replayed: BTreeMap::new(),
            commands: BTreeMap::new(),
        }
    }

    /// Takes the next recorded event. Conclusions are only noted; facts go to the other policy.
    pub fn next(&mut self, at: Timestamp, event: &Event) {
        let mut fact = event.clone();
        match &mut fact {
            Event::DecisionMade { rollout, decision } => {
                let step = step(at, decision);
                self.recorded.entry(rollout.clone()).or_default().push(step);
            }
            Event::CommandIssued { rollout, command } => {
                self.commands.insert(command.id, (rollout.clone(), command.weight));
            }
            Event::IntentReceived { intent, .. } => {
                let (digest, policy) = (self.digest, self.policy.clone());
                if !self.runner.state.policies.contains_key(&digest) {
                    self.take(at, Event::PolicyStored { digest, policy, source: String::new() });
                }
                intent.policy = Some(self.policy.name.clone());
            }
            // The policy under test keeps its name, whatever the record stored under it.
            Event::PolicyStored { policy, .. } if policy.name == self.policy.name => return,
            Event::AckReceived { ack, .. } => {
                // An actuator that confirmed a share then would have confirmed the same share here.
                let Some((rollout, weight)) = self.commands.get(&ack.command) else { return };
                let open = self.runner.state.rollouts.get(rollout).and_then(|r| r.sent.as_ref());
                match open {
                    Some(sent) if sent.command.weight == *weight || ack.status != AckStatus::Applied => {
                        ack.command = sent.command.id;
                    }
                    _ => return,
                }
            }
            _ => {}
        }
        if fact.is_fact() && !matches!(fact, Event::TimePassed) {
            self.take(at, fact);
        } else if matches!(fact, Event::TimePassed) {
            self.tick(at);
        }
    }

    fn take(&mut self, at: Timestamp, fact: Event) {
        self.tick(at);
        let WhatIf { runner, replayed, .. } = self;
        runner.take(at, fact, &mut |_, at, event| note(replayed, at, event));
    }

    fn tick(&mut self, until: Timestamp) {
        let WhatIf { runner, replayed, .. } = self;
        while let Some(due) = runner.state.due().filter(|due| *due <= until) {
            runner.tick(due, &mut |_, at, event| note(replayed, at, event));
        }
    }

    /// Every rollout of the record beside what the other policy decided.
    pub fn compare(self) -> Vec<Comparison> {
        let mut replayed = self.replayed;
        self.recorded
            .into_iter()
            .map(|(rollout, recorded)| {
                let replayed = replayed.remove(&rollout).unwrap_or_default();
                Comparison { rollout, recorded, replayed }
            })
            .collect()
    }
}

fn note(steps: &mut BTreeMap<RolloutId, Vec<Step>>, at: Timestamp, event: &Event) {
    if let Event::DecisionMade { rollout, decision } = event {
        steps.entry(rollout.clone()).or_default().push(step(at, decision));
    }
}

fn step(at: Timestamp, decision: &crate::core::event::decision::Decision) -> Step {
    Step { at, choice: decision.choice, to: decision.weight_to, summary: words::decision(decision) }
}
