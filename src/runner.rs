//! One owner of the state: a fact goes in, and everything it leads to is recorded behind it.
//!
//! Pure: the time of a fact is given; recording and releasing effects are the caller's. The live daemon, the
//! demo, the simulator and the tests all run this.

use crate::core::decide::decide;
use crate::core::event::{Event, Origin, Refusal, Rejection};
use crate::core::ids::EventSeq;
use crate::core::state::{Admission, State};
use crate::core::time::Timestamp;

/// Conclusions one fact may lead to. A fault in the rules that never settles must not fill the disk.
const CONCLUSIONS_MAX: usize = 100_000;

/// What became of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Recorded as this sequence; its conclusions follow directly.
    Recorded(EventSeq),
    /// It had been recorded before.
    Duplicate,
    /// It would break a bound. The refusal is recorded instead.
    Refused(EventSeq, Refusal),
}

/// The folded state and the rules.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    pub state: State,
    /// Nothing comes due before this. To ask all rollouts after each fact would cost more than the facts do.
    quiet_until: Timestamp,
}

impl Runner {
    pub fn new(state: State) -> Runner {
        Runner { state, quiet_until: Timestamp::default() }
    }

    /// Takes in one fact that came at `now`. `record` is called with every event in order, the due deadlines
    /// before it included. Log time never runs backwards: an earlier `now` counts as the last recorded time.
    pub fn take(
        &mut self,
        now: Timestamp,
        fact: Event,
        record: &mut dyn FnMut(EventSeq, Timestamp, &Event),
    ) -> Taken {
        debug_assert!(fact.is_fact());
        // What came due while the daemon was down is looked at after the start has been taken into account.
        if !matches!(fact, Event::DaemonStarted { .. } | Event::LogCreated { .. }) {
            self.tick(now, record);
        }
        match self.state.admit(&fact) {
            Admission::Accept => Taken::Recorded(self.put(now, &fact, record)),
            Admission::Duplicate => Taken::Duplicate,
            Admission::Refuse(refusal) => {
                let rejected =
                    Event::InputRejected { rejection: rejection(&fact, &refusal), origin: origin(&fact) };
                Taken::Refused(self.put(now, &rejected, record), refusal)
            }
        }
    }

    /// Records that time has passed, if something was due by `now`.
    pub fn tick(&mut self, now: Timestamp, record: &mut dyn FnMut(EventSeq, Timestamp, &Event)) {
        let now = now.max(self.state.now);
        // Each deadline at its own moment would rewrite when it was noticed: they are all noticed now.
        if self.quiet_until <= now {
            self.quiet_until = self.state.due().unwrap_or(Timestamp(u64::MAX));
        }
        if self.quiet_until <= now {
            self.put(now, &Event::TimePassed, record);
        }
    }

    /// When [`Runner::tick`] has to be called next: never late, at times early. `None`: not before the next fact.
    pub fn due(&mut self) -> Option<Timestamp> {
        if self.quiet_until <= self.state.now {
            self.quiet_until = self.state.due().unwrap_or(Timestamp(u64::MAX));
        }
        (self.quiet_until != Timestamp(u64::MAX)).then_some(self.quiet_until)
    }

    /// Draws what still follows from the last fact. Nothing does, unless a crash came between two groups of a fact
    /// that led to very much.
    pub fn finish(&mut self, record: &mut dyn FnMut(EventSeq, Timestamp, &Event)) {
        let mut left = CONCLUSIONS_MAX;
        while let Some(conclusion) = decide(&self.state) {
            let (seq, at) = (self.state.last + 1, self.state.now);
            let kind = conclusion.kind();
            assert!(left > 0, "{CONCLUSIONS_MAX} conclusions up to seq {seq} and no end; last: {kind}");
            left -= 1;
            self.state.apply(seq, at, &conclusion);
            record(seq, at, &conclusion);
        }
        self.quiet_until = Timestamp::default();
    }

    fn put(
        &mut self,
        now: Timestamp,
        fact: &Event,
        record: &mut dyn FnMut(EventSeq, Timestamp, &Event),
    ) -> EventSeq {
        let at = now.max(self.state.now);
        let first = self.state.last + 1;
        self.state.touched.clear();
        self.state.apply(first, at, fact);
        record(first, at, fact);
        self.finish(record);
        self.quiet_until = match fact {
            // Without conclusions, telemetry changes when one rollout comes due, and no other.
            Event::BatchReceived { service, .. } if self.state.last == first => {
                let active = self.state.services.get(service).and_then(|known| known.active.as_ref());
                let rollout = active.and_then(|id| self.state.rollouts.get(id));
                let due = rollout.and_then(|r| r.due(self.state.policy_of(r), at));
                due.map_or(self.quiet_until, |due| due.min(self.quiet_until))
            }
            _ => Timestamp::default(),
        };
        first
    }
}

fn origin(fact: &Event) -> Origin {
    match fact {
        Event::IntentReceived { origin, .. }
        | Event::BatchReceived { origin, .. }
        | Event::AckReceived { origin, .. }
        | Event::OperatorActed { origin, .. }
        | Event::InputRejected { origin, .. } => origin.clone(),
        _ => Origin::default(),
    }
}

fn rejection(fact: &Event, refusal: &Refusal) -> Rejection {
    let (source, bytes) = match fact {
        Event::BatchReceived { service, columns, .. } => {
            let bytes = columns.series_col.len() + columns.time_col.len() + columns.value_col.len();
            (format!("telemetry.{service}"), bytes as u64)
        }
        other => (other.kind().to_owned(), 0),
    };
    Rejection {
        code: refusal.code.clone(),
        message: refusal.message.clone(),
        source,
        bytes,
        excerpt: String::new(),
    }
}
