//! Everything that happens from outside.

use super::{ACTORS, Draw, Fault, MINUTE, Plan, TICK, random, scaled, share};
use crate::core::event::fact::Inbound;
use crate::core::event::verb::Verb;
use crate::sim::disk::{Damage, Mishap};
use crate::sim::random::Random;

/// One thing that happens from outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Stimulus {
    /// What ten seconds of a service's requests measured is sent.
    Tick(usize),
    Intent(Intent),
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
    /// How it does what it is asked for beside setting a share.
    Work(usize, Work),
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

/// A request to roll something out; services and versions by number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Intent {
    pub service: usize,
    pub from: Option<usize>,
    pub to: usize,
    pub id: u64,
    pub policy: Option<&'static str>,
    pub reason: u64,
    pub finding: bool,
    /// Which of the scopes: bits.
    pub scopes: u64,
}

/// How an actuator does a task from now on, and what it says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It says how far it is, and in the end that it is done.
    Well,
    /// It says that it is done with half of it.
    Half,
    /// How far it is goes back on the way.
    Backward,
    /// It goes on telling how far it is when it has said that it is done.
    Longer,
    Late,
    /// It gets on, and never says that it is done.
    Never,
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

/// How often a kind of trouble strikes a history of the usual size. What is done to messages and measurements takes no moment.
fn often(fault: Fault) -> u64 {
    match fault {
        Fault::Crash | Fault::Telemetry => 6,
        Fault::Disk | Fault::Clock => 3,
        Fault::Damage | Fault::Lies | Fault::Reset => 1,
        Fault::Actuators => 8,
        Fault::Operators => 16,
        Fault::Bus | Fault::Drift => 0,
    }
}

impl Plan {
    pub(super) fn draw_stimuli(&self, length: u64) -> Vec<(u64, Stimulus)> {
        let mut all = Vec::new();
        for (i, _) in self.services.iter().enumerate() {
            all.extend((0..length / TICK).map(|n| (n * TICK + 37 * i as u64, Stimulus::Tick(i))));
        }
        all.extend(self.intents(length));
        let mut r = random(self.seed, Draw::Stimuli, 0);
        for _ in 0..share(1, self.events_min) {
            all.push((1_000 + r.below(length - 1_000), Stimulus::Snapshot));
        }
        for fault in &self.faults {
            for _ in 0..share(often(*fault), self.events_min) {
                let at = 1_000 + r.below(length - 1_000);
                all.push((at, self.trouble(*fault, &mut r)));
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
        all.extend(self.freezes(length));
        all.extend(self.tasks(length));
        all.sort_by_key(|(at, _)| *at);
        all
    }

    /// One stroke of a kind of trouble.
    fn trouble(&self, fault: Fault, r: &mut Random) -> Stimulus {
        const STREAMS: [Inbound; 3] = [Inbound::Intents, Inbound::Telemetry, Inbound::Acks];
        match fault {
            Fault::Crash => match r.below(9) {
                0 | 1 => Stimulus::Kill,
                2 => Stimulus::Mishap(Mishap::KilledBefore),
                3 => Stimulus::Mishap(Mishap::KilledUnsynced),
                4 => Stimulus::Mishap(Mishap::KilledAfter),
                5 => Stimulus::KillInRelease(r.below(4)),
                6 => Stimulus::KillAtLoss,
                7 => Stimulus::Mishap(Mishap::KilledBetween),
                _ => Stimulus::Stop,
            },
            Fault::Disk => match r.below(4) {
                0 => Stimulus::Mishap(Mishap::Full),
                1 => Stimulus::Mishap(Mishap::Sync),
                _ => Stimulus::NearlyFull,
            },
            Fault::Damage => {
                let how = [Damage::Flip, Damage::Misdirected, Damage::Tail, Damage::Anchor];
                Stimulus::Damage(how[r.below(4) as usize])
            }
            Fault::Lies => Stimulus::Mishap(Mishap::Lost),
            Fault::Reset => Stimulus::Reset(STREAMS[r.below(3) as usize]),
            Fault::Clock => match r.below(3) {
                0 => Stimulus::Clock(r.below(20 * MINUTE) as i64),
                1 => Stimulus::Clock(-(r.below(5 * MINUTE) as i64)),
                _ => Stimulus::Sleep(r.below(scaled(30 * MINUTE, self.events_min))),
            },
            Fault::Actuators => {
                let how = match r.below(8) {
                    0 | 1 => Obedience::After(500 + r.below(90_000)),
                    2 => Obedience::Silent,
                    3 => Obedience::Refuses,
                    4 => Obedience::Lies,
                    5 => Obedience::Twice,
                    6 => Obedience::Stranger,
                    _ => Obedience::After(500),
                };
                Stimulus::Obey(r.below(self.actuators.len() as u64) as usize, how)
            }
            Fault::Operators => Stimulus::Act {
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
            },
            Fault::Telemetry => match r.below(4) {
                0 => Stimulus::Flood(r.below(self.services.len() as u64) as usize),
                _ => Stimulus::Garbage(STREAMS[r.below(3) as usize], r.bits()),
            },
            Fault::Bus | Fault::Drift => unreachable!("it takes no moment"),
        }
    }

    /// Freezes that people begin and end.
    fn freezes(&self, length: u64) -> Vec<(u64, Stimulus)> {
        let mut r = random(self.seed, Draw::Windows, 1);
        if !(self.has(Fault::Operators) && r.chance(0.5)) {
            return Vec::new();
        }
        let draw = |_| {
            let freeze = r.chance(0.6);
            let service = r.chance(0.5).then(|| r.below(2) as usize);
            let lasts = (freeze && r.chance(0.6)).then(|| 1 + r.below(20 * MINUTE));
            let (at, actor) = (1_000 + r.below(length - 1_000), r.below(ACTORS.len() as u64) as usize);
            (at, Stimulus::Freeze { freeze, service, lasts, actor })
        };
        (0..share(4, self.events_min)).map(draw).collect()
    }

    /// How actuators do what they are asked for beside setting a share.
    fn tasks(&self, length: u64) -> Vec<(u64, Stimulus)> {
        if !(self.has(Fault::Actuators) && self.ways.has_task()) {
            return Vec::new();
        }
        let mut r = random(self.seed, Draw::Exposure, 3);
        let how = [Work::Well, Work::Half, Work::Backward, Work::Longer, Work::Late, Work::Never];
        let draw = |n| {
            let (at, actuator) = (r.below(length), r.below(self.actuators.len() as u64) as usize);
            // The first rollout begins at once.
            let at = if n == 0 { 1_000 } else { at };
            (at, Stimulus::Work(actuator, how[r.below(6) as usize]))
        };
        (0..share(12, self.events_min)).map(draw).collect()
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
            let intent = Intent { service, from, to, id, policy, reason: 0, finding, scopes };
            if r.chance(0.3) {
                // It is sent again later, or its id is used for something else.
                let reason = r.below(2);
                let again = Stimulus::Intent(Intent { reason, ..intent });
                all.push((at + 1_000 + r.below(scaled(30 * MINUTE, self.events_min)), again));
            }
            all.push((at, Stimulus::Intent(intent)));
        }
        all
    }
}
