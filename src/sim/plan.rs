//! What a seed stands for: services and their versions, policies, and everything that will happen to them from
//! outside, drawn before the first of it happens. Leaving one thing out changes nothing about the others.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::carried_out;
use super::disk::{Damage, Mishap};
use super::random::Random;
use crate::core::event::{Inbound, Verb};
use crate::core::evidence::GuardrailKind;
use crate::core::ids::Version;
use crate::core::policy::Policy;
use crate::wire::policy_file;

macro_rules! faults {
    ($($fault:ident $name:literal $what:literal)*) => {
        /// A kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $(#[doc = $what] $fault),* }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$fault),*];

            pub fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name),* }
            }

            /// For the list in the help.
            pub fn what(self) -> &'static str {
                match self { $(Fault::$fault => $what),* }
            }
        }
    };
}

faults! {
    Crash "crash" "the process is killed at any step"
    Disk "disk" "the disk fills up, a sync fails"
    Damage "damage" "pages change, the end of the log is gone, the anchor is unreadable"
    Lies "lies" "the disk says that it synced, and did not"
    Bus "bus" "messages are lost, doubled, delayed and reordered, confirmations get lost"
    Reset "reset" "a stream is lost with what waited in it"
    Clock "clock" "the clock is set forward and back, runs wrong, the machine sleeps"
    Actuators "actuators" "they are slow, silent, refuse, confirm twice, or lie"
    Operators "operators" "people give every order at any time, on old views too"
    Telemetry "telemetry" "late, missing, doubled, malformed, of strange versions, floods"
    Drift "drift" "the baseline moves while it is compared with"
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!("no fault {text}; known: {}", known.join(", "))
        })
    }
}

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
    /// When half of its answers begin to fail, ms after the start.
    pub breaks: Option<u64>,
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
    pub versions: BTreeMap<Version, Effect>,
}

/// Further guardrails of a seed: few at once, for each costs time.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    pub some: Vec<GuardrailKind>,
    pub histograms: bool,
    /// A quantile that fails is excused by better answers.
    trade: bool,
    warm_up: bool,
    /// Answers that fail are graded later than those that pass.
    pub slow_grades: bool,
}

/// Limits of the further guardrails: points of grades, pairs and missing values, factors of quantiles and counts.
pub const POINTS: f64 = 0.05;
pub const SLOWER: f64 = 0.3;
pub const OFTENER: f64 = 0.5;
/// Limit of the cost that every policy watches.
pub const DEARER: f64 = 0.2;

impl Kinds {
    fn draw(seed: u64) -> Kinds {
        use GuardrailKind::{Count, Missing, Paired, Quantile, Score, Split};
        let mut r = random(seed, Draw::Kinds, 0);
        let all = [Score, Quantile, Paired, Count, Split, Missing, Quantile, Count];
        let n = [0, 0, 1, 1, 2][r.below(5) as usize];
        let mut some: Vec<GuardrailKind> = (0..n).map(|_| all[r.below(8) as usize]).collect();
        some.dedup();
        let trade = some.contains(&Quantile) && r.chance(0.5);
        let (histograms, warm_up, slow_grades) = (r.chance(0.4), r.chance(0.2), r.chance(0.3));
        Kinds { some, histograms, trade, warm_up, slow_grades }
    }

    fn guardrails(&self) -> String {
        let line = |kind: &GuardrailKind| {
            let of = match kind {
                GuardrailKind::Score => {
                    "metric: grade, kind: score, better: higher, limit: 5pp, on_fail: hold, gates: true, slices: suite"
                }
                GuardrailKind::Quantile if self.trade => {
                    "metric: latency_ms, kind: quantile, q: 0.9, better: lower, limit: 30%, on_fail: rollback, weight: 0.2, unless: {benefit: eval_pass, by: 1pp}"
                }
                GuardrailKind::Quantile => {
                    "metric: latency_ms, kind: quantile, q: 0.9, better: lower, limit: 30%, on_fail: hold, gates: true"
                }
                GuardrailKind::Paired => {
                    "metric: shadow, kind: paired, better: higher, limit: 5pp, on_fail: hold, gates: true"
                }
                GuardrailKind::Count => {
                    "metric: complaint, kind: count, limit: 50%, on_fail: hold, gates: true"
                }
                GuardrailKind::Split => "metric: assigned, kind: split, on_fail: hold",
                _ => "metric: reply, kind: missing, of: request, limit: 5pp, maturity: 1m, on_fail: hold",
            };
            format!("    - {{{of}}}\n")
        };
        self.some.iter().map(line).collect()
    }
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

/// One thing that happens from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Stimulus {
    /// What ten seconds of a service's requests measured is sent.
    Tick(usize),
    Intent {
        service: usize,
        from: Option<usize>,
        to: usize,
        id: u64,
        policy: Option<&'static str>,
        reason: u64,
        finding: bool,
        /// Which of the scopes: bits.
        scopes: u64,
    },
    Act {
        verb: Verb,
        actor: usize,
        pick: u64,
        stale: bool,
        force: bool,
    },
    /// The next group meets this.
    Mishap(Mishap),
    /// Killed after so many of the next things to tell.
    KillInRelease(u64),
    /// Of the next messages to the broker only the first arrives; killed as soon as that is known.
    KillAtLoss,
    Kill,
    /// Stopped in order.
    Stop,
    Snapshot,
    /// Intents and telemetry are turned away for three minutes.
    NearlyFull,
    Damage(Damage),
    Reset(Inbound),
    /// The wall clock is set, ms.
    Clock(i64),
    Sleep(u64),
    Obey(usize, Obedience),
    /// A message that cannot be read.
    Garbage(Inbound, u64),
    Flood(usize),
    /// The policy's file is edited.
    Policy(u64),
    /// Somebody begins a freeze (of everything, or of a service; for so long, or until somebody ends it), or ends one.
    Freeze {
        freeze: bool,
        service: Option<usize>,
        lasts: Option<u64>,
        actor: usize,
    },
}

/// What an actuator does with commands from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obedience {
    After(u64),
    Silent,
    Refuses,
    /// Confirms, and does nothing.
    Lies,
    Twice,
    /// Another one confirms in its place first.
    Stranger,
}

/// Everything a seed stands for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub policies: Vec<(String, Policy)>,
    pub services: Vec<ServicePlan>,
    pub actuators: Vec<&'static str>,
    /// In order of time, ms after the start.
    pub stimuli: Vec<(u64, Stimulus)>,
    /// When trouble ends, and when people take back what is still open.
    pub healed: u64,
    pub cleared: u64,
    /// Bytes at which the daemon closes a group, where that is not the usual.
    pub group_bytes: Option<usize>,
    /// Log time runs at this rate beside true time, in millionths.
    pub rate: u64,
    /// The history goes on until it has as many events.
    pub events_min: u64,
}

/// Events of a history, where nothing else is asked for.
pub const EVENTS_MIN: u64 = 1_000;

/// A span of a history of the usual size in one of `events_min`.
fn scaled(span: u64, events_min: u64) -> u64 {
    span * events_min / EVENTS_MIN
}

/// Things that happen in a history of `events_min`, where `n` do in one of the usual size. A short history is the
/// denser one: what follows from two troubles at once is seen when they meet.
fn share(n: u64, events_min: u64) -> u64 {
    (n as f64 * libm::sqrt(events_min as f64 / EVENTS_MIN as f64)).ceil() as u64
}

pub const MINUTE: u64 = 60_000;
pub const TICK: u64 = 10_000;
/// What services share.
pub const SCOPES: [&str; 2] = ["gateway", "vector-db"];
pub const ACTORS: [&str; 4] = ["maya", "li", "ada", "omar"];
const SERVICES: [&str; 2] = ["assistant", "search"];

/// What is drawn, each from randomness of its own, so that leaving one thing out changes no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// Services, policies and kinds of trouble.
    Shape = 1,
    Intents,
    Stimuli,
    /// What a crash leaves on the disk, and how long the daemon is down after it.
    Crash,
    Downtime,
    /// Whether a confirmation reaches the broker.
    Confirm,
    /// How a message gets to the broker, and what becomes of it there.
    Send,
    Arrival,
    /// How a message gets to the daemon.
    Delivery,
    /// What is measured.
    Traffic,
    Damage,
    /// The further guardrails, and what is true for them.
    Kinds,
    /// Change windows and freezes.
    Windows,
    /// What people say beside the change itself, and what policies ask of them.
    People,
    /// What policies say of actuators and smoke tests, and how these end.
    CarriedOut,
    Smoke,
}

/// The randomness of the `n`th `what` of a seed.
pub fn random(seed: u64, what: Draw, n: u64) -> Random {
    let mut random = Random::new(seed ^ (what as u64).wrapping_mul(0xd6e8_feb8_6659_fd93));
    Random::new(random.bits() ^ n.wrapping_mul(0xa076_1d64_78bd_642f))
}

impl Plan {
    /// Draws what `seed` stands for at a size, out of `allowed` kinds of trouble.
    pub fn draw(seed: u64, events_min: u64, allowed: &[Fault]) -> Plan {
        let mut r = random(seed, Draw::Shape, 0);
        let likely = |fault| match fault {
            Fault::Damage | Fault::Lies => 0.06,
            Fault::Reset => 0.2,
            _ => 0.5,
        };
        let faults: Vec<Fault> = Fault::ALL
            .iter()
            .copied()
            .filter(|fault| r.chance(likely(*fault)) && allowed.contains(fault))
            .collect();
        let two = r.chance(0.4);
        let actuators = if two { vec!["router-eu", "router-us"] } else { vec!["router"] };
        let length = scaled((90 + r.below(60)) * MINUTE, events_min);
        let kinds = Kinds::draw(seed);
        let mut services = services(&mut r, events_min, &faults);
        let mut shifts = random(seed, Draw::Kinds, 1);
        for service in &mut services {
            service.kinds = kinds.clone();
            for effect in service.versions.values_mut().skip(1) {
                effect.shift = [0.0, 0.0, 0.0, 0.5, -0.5, 1.0, 1.0, 1.5, 3.0][shifts.below(9) as usize];
                if kinds.trade && effect.truth == Truth::Better && shifts.chance(0.7) {
                    effect.shift = 3.0;
                }
            }
        }
        let mut plan = Plan {
            policies: policies(
                &mut r,
                &mut random(seed, Draw::People, 0),
                &carried_out::actuators(seed, &actuators),
                &kinds,
                &(windows(seed) + &carried_out::further(seed)),
            ),
            stimuli: Vec::new(),
            healed: length,
            cleared: length + scaled(90 * MINUTE, events_min).max(20 * MINUTE),
            rate: if faults.contains(&Fault::Clock) && r.chance(0.2) {
                900_000 + r.below(1_200_000)
            } else {
                1_000_000
            },
            group_bytes: r.chance(0.3).then(|| 300 + r.below(3_000) as usize),
            seed,
            events_min,
            faults,
            services,
            actuators,
        };
        plan.stimuli = plan.draw_stimuli(length);
        plan
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn draw_stimuli(&self, length: u64) -> Vec<(u64, Stimulus)> {
        let mut all = Vec::new();
        for (i, _) in self.services.iter().enumerate() {
            all.extend((0..length / TICK).map(|n| (n * TICK + 37 * i as u64, Stimulus::Tick(i))));
        }
        all.extend(self.intents(length));
        let mut r = random(self.seed, Draw::Stimuli, 0);
        let mut some =
            |n: u64, all: &mut Vec<(u64, Stimulus)>, make: &mut dyn FnMut(&mut Random) -> Stimulus| {
                for _ in 0..share(n, self.events_min) {
                    let at = 1_000 + r.below(length - 1_000);
                    all.push((at, make(&mut r)));
                }
            };
        some(1, &mut all, &mut |_| Stimulus::Snapshot);
        for fault in &self.faults {
            match fault {
                Fault::Crash => some(6, &mut all, &mut |r| match r.below(9) {
                    0 | 1 => Stimulus::Kill,
                    2 => Stimulus::Mishap(Mishap::KilledBefore),
                    3 => Stimulus::Mishap(Mishap::KilledUnsynced),
                    4 => Stimulus::Mishap(Mishap::KilledAfter),
                    5 => Stimulus::KillInRelease(r.below(4)),
                    6 => Stimulus::KillAtLoss,
                    7 => Stimulus::Mishap(Mishap::KilledBetween),
                    _ => Stimulus::Stop,
                }),
                Fault::Disk => some(3, &mut all, &mut |r| match r.below(4) {
                    0 => Stimulus::Mishap(Mishap::Full),
                    1 => Stimulus::Mishap(Mishap::Sync),
                    _ => Stimulus::NearlyFull,
                }),
                Fault::Damage => some(1, &mut all, &mut |r| {
                    Stimulus::Damage(
                        [Damage::Flip, Damage::Misdirected, Damage::Tail, Damage::Anchor]
                            [r.below(4) as usize],
                    )
                }),
                Fault::Lies => some(1, &mut all, &mut |_| Stimulus::Mishap(Mishap::Lost)),
                Fault::Bus | Fault::Drift => {}
                Fault::Reset => some(1, &mut all, &mut |r| {
                    Stimulus::Reset(
                        [Inbound::Intents, Inbound::Telemetry, Inbound::Acks][r.below(3) as usize],
                    )
                }),
                Fault::Clock => some(3, &mut all, &mut |r| match r.below(3) {
                    0 => Stimulus::Clock(r.below(20 * MINUTE) as i64),
                    1 => Stimulus::Clock(-(r.below(5 * MINUTE) as i64)),
                    _ => Stimulus::Sleep(r.below(scaled(30 * MINUTE, self.events_min))),
                }),
                Fault::Actuators => {
                    let n = self.actuators.len() as u64;
                    some(8, &mut all, &mut |r| {
                        let how = match r.below(8) {
                            0 | 1 => Obedience::After(500 + r.below(90_000)),
                            2 => Obedience::Silent,
                            3 => Obedience::Refuses,
                            4 => Obedience::Lies,
                            5 => Obedience::Twice,
                            6 => Obedience::Stranger,
                            _ => Obedience::After(500),
                        };
                        Stimulus::Obey(r.below(n) as usize, how)
                    });
                }
                Fault::Operators => some(16, &mut all, &mut |r| Stimulus::Act {
                    // A pause lasts until somebody ends it; a skip is refused at most moments.
                    verb: match r.below(15) {
                        n if n < 9 => Verb::ALL[n as usize],
                        9..=13 => Verb::Skip,
                        _ => Verb::Pause,
                    },
                    actor: r.below(ACTORS.len() as u64) as usize,
                    pick: r.bits(),
                    stale: r.chance(0.3),
                    force: r.chance(0.3),
                }),
                Fault::Telemetry => {
                    let n = self.services.len() as u64;
                    some(6, &mut all, &mut |r| match r.below(4) {
                        0 => Stimulus::Flood(r.below(n) as usize),
                        _ => Stimulus::Garbage(
                            [Inbound::Intents, Inbound::Telemetry, Inbound::Acks][r.below(3) as usize],
                            r.bits(),
                        ),
                    });
                }
            }
        }
        if self.has(Fault::Lies) {
            // A crash right after the lie: what is younger than the anchor is gone without a trace.
            let at = r.below(length);
            all.push((at, Stimulus::Mishap(Mishap::Lost)));
            all.push((at, Stimulus::KillInRelease(r.below(3))));
        }
        if r.chance(0.3) {
            let at = r.below(length);
            all.push((at, Stimulus::Policy(r.bits())));
        }
        let mut r = random(self.seed, Draw::Windows, 1);
        if self.has(Fault::Operators) && r.chance(0.5) {
            for _ in 0..share(4, self.events_min) {
                let freeze = r.chance(0.6);
                let service = r.chance(0.5).then(|| r.below(2) as usize);
                let lasts = (freeze && r.chance(0.6)).then(|| 1 + r.below(20 * MINUTE));
                let (at, actor) = (1_000 + r.below(length - 1_000), r.below(ACTORS.len() as u64) as usize);
                all.push((at, Stimulus::Freeze { freeze, service, lasts, actor }));
            }
        }
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// Requests to roll something out, some of them nonsense.
    fn intents(&self, length: u64) -> Vec<(u64, Stimulus)> {
        let mut r = random(self.seed, Draw::Intents, 0);
        let n = share(3 + r.below(5), self.events_min);
        let mut all: Vec<(u64, Stimulus)> = Vec::new();
        for id in 0..n {
            let at = if id == 0 { 5_000 } else { r.below(length * 3 / 4) };
            let service = r.below(self.services.len() as u64) as usize;
            let to = 1 + r.below(4) as usize;
            let policy = match r.below(12) {
                0 => Some("nobody-knows"),
                1..=4 => Some("cautious"),
                _ => Some("quick"),
            };
            let from = (id == 0 || r.chance(0.3)).then_some(0);
            let mut said = random(self.seed, Draw::People, 1 + id);
            let (finding, some) = (said.chance(0.5), said.chance(0.7));
            let scopes = if some { 1 + said.below(3) } else { 0 };
            let intent = Stimulus::Intent { service, from, to, id, policy, reason: 0, finding, scopes };
            if r.chance(0.3) {
                // It is sent again later, or its id is used for something else.
                let reason = r.below(2);
                let again = Stimulus::Intent { service, from, to, id, policy, reason, finding, scopes };
                all.push((at + 1_000 + r.below(scaled(30 * MINUTE, self.events_min)), again));
            }
            all.push((at, intent));
        }
        all
    }
}

fn services(r: &mut Random, events_min: u64, faults: &[Fault]) -> Vec<ServicePlan> {
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
            versions,
        }
    };
    SERVICES.iter().take(n).map(|name| service(name)).collect()
}

pub fn version(i: usize) -> Version {
    Version(format!("m@{i}"))
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
    Effect { truth, pass, error, cost, shift: 0.0, breaks }
}

/// The change windows of a seed, for some: an hour is long in a history.
fn windows(seed: u64) -> String {
    let mut r = random(seed, Draw::Windows, 0);
    if !r.chance(0.35) {
        return String::new();
    }
    let mut text = String::from("  windows:\n");
    let zone = ["Europe/Berlin", "Asia/Kolkata", "America/New_York", "UTC"][r.below(4) as usize];
    if r.chance(0.7) {
        let (minute, lasts) = (r.below(60), 15 + r.below(40));
        text += &format!("    allow: [{{cron: \"0 {minute} * * * *\", duration: {lasts}m, tz: {zone}}}]\n");
    }
    if r.chance(0.5) {
        let (minute, lasts) = (r.below(60), 3 + r.below(15));
        text += &format!(
            "    deny: [{{cron: \"0 {minute} * * * *\", duration: {lasts}m, tz: {zone}, reason: backup}}]\n"
        );
    }
    let (from, lasts) = (r.below(60), 10 + r.below(40));
    let clock = |minute: u64| format!("2026-01-05T{:02}:{:02}", 9 + minute / 60, minute % 60);
    let (from, to) = (clock(from), clock(from + lasts));
    text += &format!("    freeze: [{{from: {from}, to: {to}, tz: UTC, reason: stocktaking}}]\n");
    text
}

/// Two policies with the bakes, deadlines, gates and actuators of the seed.
fn policies(
    r: &mut Random,
    people: &mut Random,
    actuators: &str,
    kinds: &Kinds,
    windows: &str,
) -> Vec<(String, Policy)> {
    let further = kinds.guardrails();
    let (pass_weight, warm_up) = (if kinds.trade { 0.4 } else { 0.6 }, u8::from(kinds.warm_up));
    let mut make = |name: &str, steps: String, more: &str| {
        let deadline = if r.chance(0.5) { "hold" } else { "rollback" };
        let concurrency = if r.chance(0.8) { "queue" } else { "refuse" };
        let concurrency = if people.chance(0.3) { "supersede" } else { concurrency };
        let keep = if people.chance(0.6) { 1 + people.below(20) } else { 0 };
        let scopes = if people.chance(0.1) { "gateway" } else { "" };
        let more = more.replace("OTHERS", if people.chance(0.5) { "true" } else { "false" });
        let retry = if people.chance(0.7) { "needs_finding" } else { "allowed" };
        let maturity = [if kinds.slow_grades { 1 } else { 0 }, 1, 3][r.below(3) as usize];
        let text = format!(
            "apiVersion: sluice.dev/v1\nkind: RolloutPolicy\nmetadata: {{name: {name}}}\nspec:\n  applies_to: [model]\n  \
             exposure:\n    percent: [{steps}]\n    soak: {soak}m\n  on_deadline: {deadline}\n  guardrails:\n    \
             - {{metric: eval_pass, kind: proportion, better: higher, limit: 4pp, maturity: {maturity}m, on_fail: rollback, weight: {pass_weight}}}\n    \
             - {{metric: error, kind: proportion, better: lower, limit: {{ratio: 2, plus: 1pp}}, on_fail: rollback, weight: 0.4}}\n    \
             - {{metric: error, kind: absolute, above: 35%, of_last: 100, on_fail: rollback}}\n    \
             - {{metric: cost_usd, kind: mean, better: lower, limit: 20%, on_fail: alert}}\n{further}  \
             evidence: {{reference_min: {min}, warm_up: {warm_up}m}}\n  actuators: [{actuators}]\n  stale_after: 5m\n  \
             concurrency: {concurrency}\n  retry_after_rollback: {retry}\n  \
             keep_old: {keep}m\n  scopes: [{scopes}]\n{windows}{more}",
            soak = 2 + r.below(8),
            min = 100 + r.below(200),
        );
        let policy = policy_file::parse_policy(&text, name).unwrap_or_else(|error| panic!("{error}\n{text}"));
        (text, policy)
    };
    vec![
        make("quick", "{to: 30%, bake: 3m, deadline: 25m}, {to: 60%, bake: 2m}, {to: 100%}".into(), ""),
        make(
            "cautious",
            "{to: 10%, bake: 4m, min_samples: {eval_pass: 60}, deadline: 20m}, {to: 50%, bake: 6m, min_samples: \
             {eval_pass: 300}, deadline: 30m}, {to: 100%}"
                .into(),
            "  approvals: [{before: 50%, by: 1, not_submitter: OTHERS}, {before: 100%, by: 2, not_submitter: OTHERS}]\n",
        ),
    ]
}
