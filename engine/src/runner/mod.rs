//! One owner of the state: a fact goes in, and everything it leads to is recorded behind it.
//!
//! Pure: the time of a fact is given; recording and releasing effects are the caller's. The live daemon, the
//! demo, the simulator and the tests all run this.

pub mod clock;
pub mod ledger;

use std::collections::{BTreeMap, BTreeSet};

use crate::core::decide::decide;
use crate::core::event::Event;
use crate::core::event::fact::Rejection;
use crate::core::event::refusal::Refusal;
use crate::core::event::rollout_spec::RolloutSpec;
use crate::core::ids::{EventSeq, RolloutId};
use crate::core::state::State;
use crate::core::state::admission::Admission;
use crate::core::state::agenda::Agenda;
use crate::core::time::Timestamp;
use crate::core::words;
use crate::windows;

/// Conclusions one fact may lead to. A fault in the rules that never settles must not fill the disk.
const CONCLUSIONS_MAX: usize = 100_000;

/// What became of a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Recorded as this sequence; its conclusions follow directly, the answer first.
    Recorded { seq: EventSeq, answer: Option<Answer> },
    /// It had been recorded before.
    Duplicate,
    /// It would break a bound. The refusal is recorded instead.
    Refused(EventSeq, Refusal),
}

/// The conclusion that answers a fact.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An intent became a rollout.
    Created {
        seq: EventSeq,
        rollout: RolloutId,
        spec: Box<RolloutSpec>,
    },
    /// What somebody ordered happens.
    Accepted {
        seq: EventSeq,
    },
    Refused {
        seq: EventSeq,
        refusal: Refusal,
    },
}

impl Answer {
    fn of(seq: EventSeq, conclusion: &Event) -> Option<Answer> {
        Some(match conclusion {
            Event::RolloutCreated { rollout, spec } => {
                Answer::Created { seq, rollout: rollout.clone(), spec: Box::new(spec.clone()) }
            }
            Event::ActAccepted { .. } | Event::FreezeStarted { .. } | Event::FreezeEnded { .. } => {
                Answer::Accepted { seq }
            }
            Event::IntentRefused { refusal, .. }
            | Event::ActRefused { refusal, .. }
            | Event::AckRefused { refusal, .. }
            | Event::FreezeRefused { refusal, .. } => Answer::Refused { seq, refusal: refusal.clone() },
            _ => return None,
        })
    }
}

/// The folded state and the rules.
#[derive(Clone, Debug, Default)]
pub struct Runner {
    pub state: State,
    /// When each open rollout comes due, and the same in order of time: what [`State::due`] would find. To ask all
    /// rollouts after each fact would cost more than the facts do.
    due: BTreeMap<RolloutId, Timestamp>,
    soonest: BTreeSet<(Timestamp, RolloutId)>,
}

impl Runner {
    pub fn new(state: State) -> Runner {
        let mut runner = Runner { state, ..Runner::default() };
        let open: Vec<RolloutId> = runner.state.rollouts.keys().cloned().collect();
        open.iter().for_each(|id| runner.note_due(id));
        runner
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
        // What came due while nobody watched is looked at after that has been taken into account.
        if !matches!(
            fact,
            Event::DaemonStarted { .. }
                | Event::LogCreated { .. }
                | Event::EngineAdopted { .. }
                | Event::ClockStepped { .. }
        ) {
            self.tick(now, record);
        }
        match self.state.admit(&fact) {
            Admission::Accept => {
                let (seq, answer) = self.put(now, &fact, record);
                Taken::Recorded { seq, answer }
            }
            Admission::Duplicate => Taken::Duplicate,
            Admission::Refuse(refusal) => {
                let origin = fact.origin().cloned().unwrap_or_default();
                let rejected = Event::InputRejected { rejection: rejection(&fact, &refusal), origin };
                Taken::Refused(self.put(now, &rejected, record).0, refusal)
            }
        }
    }

    /// Records that time has passed, if something was due by `now`.
    pub fn tick(&mut self, now: Timestamp, record: &mut dyn FnMut(EventSeq, Timestamp, &Event)) {
        let now = now.max(self.state.now);
        debug_assert_eq!(self.due(), self.state.due());
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        // What the windows say first: what is due may wait for them.
        while let Some(fact) = self.wanted(now, None) {
            self.put(now, &fact, record);
        }
        // Each deadline at its own moment would rewrite when it was noticed: they are all noticed now.
        if self.due().is_some_and(|due| due <= now) {
            self.put(now, &Event::TimePassed, record);
        }
    }

    /// When [`Runner::tick`] has to be called next; `None`: not before the next fact.
    pub fn due(&self) -> Option<Timestamp> {
        self.soonest.first().map(|(at, _)| *at).into_iter().chain(self.state.freeze_due()).min()
    }

    /// The windows of a policy that have to be worked out, as a fact: among those that the last fact touched, or of all.
    fn wanted(&self, now: Timestamp, agenda: Option<&Agenda>) -> Option<Event> {
        let (policy, windows) = match agenda {
            Some(agenda) => self.state.windows_wanted(agenda.iter(), now),
            None => self.state.windows_wanted(self.state.rollouts.keys(), now),
        }?;
        Some(Event::WindowsComputed { policy, bounds: windows::bounds(windows, now) })
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
        let agenda = std::mem::take(&mut self.state.agenda);
        agenda.iter().for_each(|id| self.note_due(id));
        self.state.agenda = agenda;
    }

    fn put(
        &mut self,
        now: Timestamp,
        fact: &Event,
        record: &mut dyn FnMut(EventSeq, Timestamp, &Event),
    ) -> (EventSeq, Option<Answer>) {
        let at = now.max(self.state.now);
        let first = self.state.last + 1;
        self.state.apply(first, at, fact);
        record(first, at, fact);
        // A question is answered before anything else is concluded.
        let (mut asks, mut answer) = (self.state.pending.is_some(), None);
        self.finish(&mut |seq, at, event| {
            if std::mem::take(&mut asks) {
                answer = Answer::of(seq, event);
            }
            record(seq, at, event);
        });
        // Telemetry touches a rollout only when there is something to conclude, but always changes when it comes due.
        if let Event::BatchReceived { service, .. } = fact
            && let Some(id) = self.state.services.get(service).and_then(|known| known.active.clone())
        {
            self.note_due(&id);
        }
        while let Some(fact) = self.wanted(at, Some(&self.state.agenda)) {
            self.put(at, &fact, record);
        }
        (first, answer)
    }

    fn note_due(&mut self, id: &RolloutId) {
        let rollout = self.state.rollouts.get(id);
        let due = rollout.and_then(|rollout| self.state.due_of(rollout));
        if self.due.get(id).copied() == due {
            return;
        }
        let before = match due {
            Some(at) => self.due.insert(id.clone(), at),
            None => self.due.remove(id),
        };
        if let Some(before) = before {
            self.soonest.remove(&(before, id.clone()));
        }
        self.soonest.extend(due.map(|at| (at, id.clone())));
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
        code: refusal.code(),
        message: words::refusal::text(refusal),
        source,
        bytes,
        excerpt: String::new(),
    }
}
