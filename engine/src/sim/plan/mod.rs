//! What a seed stands for: services and their versions, policies, and everything that will happen to them from
//! outside, drawn before the first of it happens. Leaving one thing out changes nothing about the others.

pub mod actuation;
mod exposure;
mod policies;
mod services;
mod stimuli;

use std::str::FromStr;

use super::random::Random;
use crate::core::policy::Policy;
pub use exposure::{Segments, Way, Ways};
pub use policies::{DEARER, Detector, Kinds, OFTENER, POINTS, SLOWER};
pub use services::{Effect, Form, ServicePlan, Truth, bundle, version};
pub use stimuli::{Intent, Obedience, Stimulus, Work};

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
    Actuators "actuators" "they are slow, silent, refuse, confirm twice, lie, or stop half way"
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

/// Everything a seed stands for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub faults: Vec<Fault>,
    pub policies: Vec<(String, Policy)>,
    pub services: Vec<ServicePlan>,
    pub ways: Ways,
    pub actuators: Vec<&'static str>,
    /// Versions are bundles.
    pub bundles: bool,
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
    /// Ways of exposure, and what belongs to them.
    Exposure,
    /// What policies say of actuators and smoke tests, and how these end.
    CarriedOut,
    Smoke,
    /// What versions are made of, and conditions on what is observed.
    Composition,
    /// What must not happen, which versions it happens to, and who tells.
    Stop,
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
        let ways = Ways::draw(seed);
        let kinds = Kinds::draw(seed).with(&ways.kinds(seed));
        let mut made = random(seed, Draw::Composition, 0);
        let bundles = made.chance(0.2);
        let mut services = services::services(&mut r, events_min, &faults, bundles);
        let mut shifts = random(seed, Draw::Kinds, 1);
        let mut stops = random(seed, Draw::Stop, 1);
        for service in &mut services {
            service.kinds = kinds.clone();
            for effect in service.versions.values_mut().skip(1) {
                effect.shift = [0.0, 0.0, 0.0, 0.5, -0.5, 1.0, 1.0, 1.5, 3.0][shifts.below(9) as usize];
                if kinds.trade && effect.truth == Truth::Better && shifts.chance(0.7) {
                    effect.shift = 3.0;
                }
                effect.leaks = kinds.stop.is_some() && stops.chance(0.4);
                if kinds.judges_slices && effect.shift <= 0.0 && shifts.chance(0.6) {
                    effect.forgets = 0.6;
                }
            }
        }
        if let Some(segments) = &ways.segments {
            services.iter_mut().zip(0..).for_each(|(service, n)| service.divide(segments, seed, n));
        }
        let mut plan = Plan {
            policies: policies::policies(
                &mut r,
                &mut random(seed, Draw::People, 0),
                (&ways, &mut random(seed, Draw::Exposure, 2)),
                &actuation::actuators(seed, &actuators),
                &kinds,
                &(policies::windows(seed) + &actuation::further(seed) + &policies::made(bundles, &mut made)),
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
            ways,
            bundles,
            actuators,
        };
        plan.stimuli = plan.draw_stimuli(length);
        plan
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}
