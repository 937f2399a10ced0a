//! A small world outside sluice: users who send requests, versions that answer them, actuators that obey.

use std::collections::{BTreeMap, VecDeque};

use super::random::Random;
use crate::core::event::Event;
use crate::core::event::command::Command;
use crate::core::event::fact::{Ack, AckStatus, Origin};
use crate::core::event::smoke::{SmokeAsk, SmokeOutcome, SmokeResult};
use crate::core::ids::{Actuator, CommandId, RolloutId, Service, Version, Weight};
use crate::core::policy::segment::Task;
use crate::core::telemetry::columns::{Builder, Row};
use crate::core::time::{Span, Timestamp};

/// How a version answers: what each metric of a request looks like.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    pub metrics: Vec<(String, Draw)>,
    /// Metrics that arrive up to so long after the request.
    pub late: BTreeMap<String, Span>,
}

impl Behaviour {
    /// With what probability it is right in the shadow.
    fn shadow(&self, metric: &str) -> Option<f64> {
        let of = self.metrics.iter().filter(|(name, _)| name == metric);
        of.filter_map(|(_, draw)| if let Draw::Shadow(p) = draw { Some(*p) } else { None }).next()
    }
}

/// How a metric's values are drawn.
#[derive(Clone, Copy, Debug)]
pub enum Draw {
    /// One with this probability.
    Chance(f64),
    /// Log-normal: mean and standard deviation of the logarithm, rounded to six decimals.
    Positive { mean: f64, sigma: f64 },
    /// `Chance(p)`, on a share of requests only.
    Sampled { share: f64, p: f64 },
    /// Uniform around a mean: a grade.
    Grade { mean: f64, spread: f64 },
    /// A one with this probability, and else nothing: an event that has no denominator.
    Event(f64),
    /// Requests to the canary are answered by the baseline as well: a one each with its version's probability, mostly on
    /// the same requests. The unit is the request.
    Shadow(f64),
}

/// Share of requests on which the two answers of a shadowed request have nothing to do with each other.
const SHADOW_NOISE: f64 = 0.1;

/// The users of one service.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    pub service: Service,
    pub per_second: u32,
    pub users: u64,
    /// What they send says who they are.
    pub named: bool,
    pub versions: BTreeMap<Version, Behaviour>,
    /// What serves: baseline, canary, the canary's share. Set by commands.
    pub baseline: Version,
    pub canary: Version,
    pub weight: Weight,
    /// The tag by which its users differ, and the share of them that each value has, in hundredths; the others have none.
    pub tag: String,
    pub segments: Vec<(String, u64)>,
    /// The canary's share of segments, by name.
    pub weights: BTreeMap<String, Weight>,
    /// A copy of the traffic is answered by the canary as well.
    pub shadowed: bool,
}

impl Traffic {
    /// The segment a user belongs to.
    fn segment_of(&self, user: u64) -> Option<&str> {
        let mut place = user % 100;
        for (name, share) in &self.segments {
            if place < *share {
                return Some(name);
            }
            place -= share;
        }
        None
    }

    /// How a version answers users of a segment.
    fn behaviour(&self, version: &Version, segment: Option<&str>) -> Option<&Behaviour> {
        let own = segment.and_then(|segment| self.versions.get(&Version(format!("{version}@{segment}"))));
        own.or_else(|| self.versions.get(version))
    }
}

/// What an actuator does with commands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Obedience {
    /// Applies and confirms after a delay.
    After(Span),
    Silent,
    Rejects,
    /// Confirms after a second, and does nothing.
    Lies,
    /// Reports every minute how much is done, and in the end confirms, having lost some.
    Populates {
        over: Span,
        of: u64,
        lost: u64,
    },
}

/// How a smoke test ends.
#[derive(Clone, Debug, PartialEq)]
pub enum Conduct {
    Ends(Span, SmokeOutcome, String),
    /// Never, until its time is over.
    Hangs,
    /// It passes, and says so again a second later.
    Twice(Span),
}

/// Users, versions and actuators at one moment of virtual time.
pub struct World {
    pub now: Timestamp,
    pub random: Random,
    pub traffic: Vec<Traffic>,
    pub actuators: BTreeMap<Actuator, Obedience>,
    /// By name; others pass after five seconds.
    pub tests: BTreeMap<String, Conduct>,
    /// Confirmations on their way, and whether the command is carried out.
    acks: VecDeque<(Timestamp, Ack, Command, bool)>,
    /// Smoke tests that run.
    running: Vec<(Timestamp, SmokeResult)>,
    /// What was measured and has not arrived, by the second in which it does.
    late: BTreeMap<(Timestamp, Service), Vec<Late>>,
    applied: BTreeMap<CommandId, Command>,
}

impl World {
    pub fn new(seed: u64, now: Timestamp) -> World {
        World {
            now,
            random: Random::new(seed),
            traffic: Vec::new(),
            actuators: BTreeMap::new(),
            tests: BTreeMap::new(),
            acks: VecDeque::new(),
            running: Vec::new(),
            late: BTreeMap::new(),
            applied: BTreeMap::new(),
        }
    }

    /// Shows the world an event that sluice released.
    pub fn see(&mut self, event: &Event) {
        let (command, actuators) = match event {
            Event::CommandIssued { command, .. } => {
                self.applied.insert(command.id, command.clone());
                (command.clone(), command.actuators.clone())
            }
            Event::CommandResent { command, actuators, .. } => match self.applied.get(command) {
                Some(known) => (known.clone(), actuators.clone()),
                None => return,
            },
            Event::SmokeAsked { rollout, ask } => return self.test(rollout, ask),
            // What ran them is gone.
            Event::DaemonStarted { .. } => return self.running.clear(),
            _ => return,
        };
        for actuator in actuators {
            let obedience = self.actuators.get(&actuator).copied().unwrap_or(Obedience::After(Span::secs(1)));
            let (delay, status) = match obedience {
                Obedience::After(delay) => (delay, AckStatus::Applied),
                Obedience::Rejects => (Span::secs(1), AckStatus::Rejected("weights are frozen".into())),
                Obedience::Lies => (Span::secs(1), AckStatus::Applied),
                Obedience::Silent => continue,
                Obedience::Populates { over, of, lost } => {
                    self.populate(&command, &actuator, over, of, lost);
                    continue;
                }
            };
            let ack = Ack {
                service: command.service.clone(),
                command: command.id,
                actuator,
                status,
                took_ms: Some(delay.0),
                done: None,
            };
            self.acks.push_back((self.now.plus(delay), ack, command.clone(), obedience != Obedience::Lies));
        }
    }

    /// Runs a smoke test.
    fn test(&mut self, rollout: &RolloutId, ask: &SmokeAsk) {
        let usual = Conduct::Ends(Span::secs(5), SmokeOutcome::Passed, "all is well".into());
        let (took, outcome, detail, twice) = match self.tests.get(&ask.name).unwrap_or(&usual) {
            Conduct::Ends(took, outcome, detail) if *took < ask.timeout => {
                (*took, *outcome, detail.clone(), false)
            }
            Conduct::Twice(took) => (*took, SmokeOutcome::Passed, String::new(), true),
            _ => (ask.timeout, SmokeOutcome::TimedOut, String::new(), false),
        };
        let (rollout, name) = (rollout.clone(), ask.name.clone());
        let result = SmokeResult { id: ask.id, rollout, name, outcome, detail, took_ms: took.0 };
        let at = self.now.plus(took);
        self.running.extend(twice.then(|| (at.plus(Span::secs(1)), result.clone())));
        self.running.push((at, result));
    }

    /// Sends word of the work every minute, and at its end.
    fn populate(&mut self, command: &Command, actuator: &Actuator, over: Span, of: u64, lost: u64) {
        let of_task = command.task == Some(Task::Populate);
        let ends = if of_task { over } else { Span::secs(1) };
        let minutes = ends.0.div_ceil(60_000);
        for minute in 1..=minutes {
            let after = Span::mins(minute).min(ends);
            let last = minute == minutes;
            let done = (of - lost) * after.0 / ends.0.max(1);
            let ack = Ack {
                service: command.service.clone(),
                command: command.id,
                actuator: actuator.clone(),
                status: if last { AckStatus::Applied } else { AckStatus::Progress },
                took_ms: last.then_some(ends.0),
                done: of_task.then_some((done, of)),
            };
            self.acks.push_back((self.now.plus(after), ack, command.clone(), true));
        }
    }

    /// One second of the world: confirmations that arrive and what the requests of the second measured.
    pub fn second(&mut self) -> Vec<(Timestamp, Event)> {
        let (start, end) = (self.now, self.now.plus(Span::secs(1)));
        let mut facts = Vec::new();
        let (arrived, rest): (Vec<_>, Vec<_>) = self.acks.drain(..).partition(|(at, ..)| *at <= end);
        self.acks = rest.into();
        for (at, ack, command, obeys) in arrived {
            if ack.status == AckStatus::Applied && obeys {
                for traffic in self.traffic.iter_mut().filter(|t| t.service == command.service) {
                    traffic.baseline = command.baseline.clone();
                    traffic.canary = command.canary.clone();
                    traffic.weight = command.weight;
                    let weights =
                        command.segments.iter().map(|segment| (segment.segment.name.clone(), segment.weight));
                    traffic.weights = weights.collect();
                    traffic.shadowed = command.task == Some(Task::Shadow);
                }
            }
            facts.push((at, Event::AckReceived { ack, origin: Origin::default() }));
        }
        for traffic in &self.traffic {
            if let Some(event) = serve(traffic, start, &mut self.random, &mut self.late) {
                facts.push((end, event));
            }
        }
        while let Some(arrived) = self.late.first_entry().filter(|entry| entry.key().0 <= start) {
            let ((_, service), samples) = arrived.remove_entry();
            facts.push((end, batch(service, &samples)));
        }
        let (over, rest) = self.running.drain(..).partition(|(at, _)| *at <= end);
        self.running = rest;
        let over: Vec<(Timestamp, SmokeResult)> = over;
        facts.extend(over.into_iter().map(|(at, result)| (at, Event::SmokeFinished { result })));
        self.now = end;
        facts.sort_by_key(|(at, _)| *at);
        facts
    }
}

/// A sample on its way.
struct Late {
    version: Version,
    metric: String,
    served_at: Timestamp,
    unit: Option<String>,
    tags: Option<String>,
    value: f64,
}

/// What arrives together, in order of request time.
fn batch(service: Service, samples: &[Late]) -> Event {
    let mut samples: Vec<&Late> = samples.iter().collect();
    samples.sort_by_key(|sample| sample.served_at);
    let mut builder = Builder::new(samples[0].served_at);
    for sample in samples {
        builder.push(Row {
            version: sample.version.as_str(),
            metric: &sample.metric,
            served_at: sample.served_at,
            unit: sample.unit.as_deref(),
            tags: sample.tags.as_deref(),
            value: sample.value,
        });
    }
    Event::BatchReceived { service, columns: builder.finish(), origin: Origin::default() }
}

/// What one second of a service's requests measured; what arrives later goes into `late`.
fn serve(
    traffic: &Traffic,
    start: Timestamp,
    random: &mut Random,
    late: &mut BTreeMap<(Timestamp, Service), Vec<Late>>,
) -> Option<Event> {
    let mut builder = Builder::new(start);
    for i in 0..traffic.per_second {
        let user = random.below(traffic.users);
        let segment = traffic.segment_of(user);
        // Whom no command names is one of the others.
        let weight =
            segment.and_then(|segment| traffic.weights.get(segment)).copied().unwrap_or(traffic.weight);
        let canary = in_canary(&traffic.service, user, weight);
        let version = if canary { &traffic.canary } else { &traffic.baseline };
        let Some(behaviour) = traffic.behaviour(version, segment) else { continue };
        let tags = segment.map(|segment| format!("{}={segment}", traffic.tag));
        let unit = traffic.named.then(|| format!("u{user}"));
        let served_at = start.plus(Span(u64::from(i) * 1_000 / u64::from(traffic.per_second)));
        for (metric, draw) in &behaviour.metrics {
            let value = match *draw {
                Draw::Chance(p) => f64::from(u8::from(random.chance(p))),
                Draw::Positive { mean, sigma } => {
                    libm::round(random.log_normal(mean, sigma) * 1e6).max(1.0) / 1e6
                }
                Draw::Sampled { share, p } => {
                    if !random.chance(share) {
                        continue;
                    }
                    f64::from(u8::from(random.chance(p)))
                }
                Draw::Grade { mean, spread } => {
                    libm::round((mean + spread * (2.0 * random.unit() - 1.0)) * 1e3) / 1e3
                }
                Draw::Event(p) => {
                    if !random.chance(p) {
                        continue;
                    }
                    1.0
                }
                Draw::Shadow(p) => {
                    if canary || traffic.shadowed {
                        let canary =
                            traffic.behaviour(&traffic.canary, segment).and_then(|b| b.shadow(metric));
                        shadow(traffic, metric, served_at, i, canary.unwrap_or(p), random, &mut builder);
                    }
                    continue;
                }
            };
            if let Some(within) = behaviour.late.get(metric) {
                let arrives = start.plus(Span(random.below(within.0) / 1_000 * 1_000));
                late.entry((arrives, traffic.service.clone())).or_default().push(Late {
                    version: version.clone(),
                    metric: metric.clone(),
                    served_at,
                    unit: unit.clone(),
                    tags: tags.clone(),
                    value,
                });
                continue;
            }
            let (unit, tags) = (unit.as_deref(), tags.as_deref());
            builder.push(Row { version: version.as_str(), metric, served_at, unit, tags, value });
        }
    }
    let service = traffic.service.clone();
    (!builder.is_empty()).then(|| Event::BatchReceived {
        service,
        columns: builder.finish(),
        origin: Origin::default(),
    })
}

/// Both answers to one request, the canary's right with probability `p`.
fn shadow(
    traffic: &Traffic,
    metric: &str,
    served_at: Timestamp,
    i: u32,
    p: f64,
    random: &mut Random,
    builder: &mut Builder,
) {
    let other = traffic.versions.get(&traffic.baseline).and_then(|b| b.shadow(metric));
    let Some(baseline) = other else { return };
    let hard = random.unit();
    let own = if random.chance(SHADOW_NOISE) { random.unit() } else { hard };
    let unit = format!("request-{}-{i}", served_at.0);
    for (version, value) in [(&traffic.canary, own < p), (&traffic.baseline, hard < baseline)] {
        let value = f64::from(u8::from(value));
        let unit = Some(unit.as_str());
        builder.push(Row { version: version.as_str(), metric, served_at, unit, tags: None, value });
    }
}

/// Whether a user is served by the canary: flagd's `fractional` bucketing (murmur3-32 of flag key and
/// targeting key, seed 0, scaled to the total weight), so that a growing weight never moves a user back.
pub fn in_canary(service: &Service, user: u64, weight: Weight) -> bool {
    let key = format!("{service}user-{user}");
    let hash = murmur3::murmur3_32(&mut key.as_bytes(), 0).expect("reading from memory");
    // The bucket of the last weight reached is the baseline's: the canary takes the first part.
    (u64::from(hash) * u64::from(Weight::FULL.0)) >> 32 < u64::from(weight.0)
}
