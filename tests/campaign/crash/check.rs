//! What must hold of a data folder after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sluice::core::event::Event;
use sluice::core::ids::{Digest, EventSeq};
use sluice::replay::Verifier;
use sluice::shell::log::{Log, LogError, OpenOptions};
use sluice::shell::recover;
use sluice::wire::envelope::Head;

use crate::crash::traffic::{Acked, What};
use crate::support::{sluice_in, wait_for};

/// A folder through its crashes: what was confirmed, and where its log ended when last looked at.
#[derive(Default)]
pub struct Promises {
    pub acked: Vec<Acked>,
    seen: Head,
    /// What was confirmed after the power had gone, by a process that a real cut would have ended too.
    pub late: Vec<Acked>,
    pub late_head: Option<(EventSeq, Digest)>,
}

impl Promises {
    /// Holds the log to a record that a writer called durable.
    pub fn durable(&mut self, record: Option<(EventSeq, Digest)>) {
        let newer = record.filter(|(seq, _)| *seq > self.seen.seq);
        if let Some((seq, hash)) = newer {
            self.seen = Head { seq, hash, ..self.seen };
        }
    }

    /// Opens the folder as a start would: refused when the log ends before its anchor. Then walks the log: every
    /// sequence there, the chain whole, each conclusion what the facts lead to, all that was confirmed or seen before
    /// where it was, and no command under two ids. Returns how many late confirmations are gone, which is no fault.
    pub fn check(&mut self, data: &Path) -> u64 {
        let log = open(data).unwrap_or_else(|error| panic!("the log does not open: {error}"));
        let mut verifier = Verifier::default();
        let mut events = BTreeMap::new();
        let (mut seen, mut late) = (Digest::default(), None);
        for envelope in log.reader().scan(1).expect("the log reads") {
            let envelope = envelope.unwrap_or_else(|error| panic!("the log does not read: {error}"));
            let replayed = verifier.next(envelope.seq, envelope.at, &envelope.event);
            replayed.unwrap_or_else(|divergence| panic!("{divergence}"));
            if envelope.seq == self.seen.seq {
                seen = envelope.hash;
            }
            if self.late_head.is_some_and(|(seq, _)| seq == envelope.seq) {
                late = Some((envelope.seq, envelope.hash));
            }
            assert_eq!(envelope.seq, events.len() as u64 + 1);
            events.insert(envelope.seq, envelope.event);
        }
        verifier.settled().unwrap_or_else(|divergence| panic!("{divergence}"));
        let head = log.head();
        assert_eq!(head.seq, events.len() as u64);
        assert_eq!(seen, self.seen.hash, "event {} was durable; the log ends at {}", self.seen.seq, head.seq);
        self.seen = head;
        let state = recover::recover(&log).expect("the log folds");
        assert_eq!(state.digest(), verifier.state.digest(), "the snapshot and the whole log differ");
        let kept = |acked: &Acked| events.get(&acked.seq).is_some_and(|event| is(event, &acked.what));
        for acked in &self.acked {
            assert!(kept(acked), "confirmed {acked:?}, found {:?}", events.get(&acked.seq));
        }
        ordered_once(&events);
        let gone = self.late.drain(..).filter(|acked| !kept(acked)).count() as u64;
        gone + u64::from(self.late_head.take().is_some_and(|head| late != Some(head)))
    }

    /// The same from outside: the verbs of the binary.
    pub fn check_verbs(&self, data: &Path) {
        let data = data.display().to_string();
        for verb in [["log", "verify", "--data", &data], ["replay", "--verify", "--data", &data]] {
            let (code, output) = sluice_in(&[], &verb);
            // A log without a single event is sound, and nothing to verify.
            assert!(code == Some(0) || self.seen.seq == 0 && code == Some(2), "{verb:?}: {output}");
        }
    }
}

/// Opens a log once whoever was killed has let go of it.
pub fn open(data: &Path) -> Result<Log, LogError> {
    let options = OpenOptions { ballast: 0, ..OpenOptions::default() };
    wait_for("the folder to be free", || match Log::open(data, &options) {
        Err(LogError::Locked { .. }) => None,
        opened => Some(opened.map(|opened| opened.log)),
    })
}

fn is(event: &Event, what: &What) -> bool {
    match (event, what) {
        (Event::RolloutCreated { rollout, spec }, What::Rollout { intent, rollout: wanted }) => {
            rollout.as_str() == wanted && spec.intent.0 == *intent
        }
        (Event::BatchReceived { origin, .. }, What::Batch(id)) => origin.message_id.as_ref() == Some(id),
        (Event::AckReceived { ack, .. }, What::Ack(command)) => ack.command.to_string() == *command,
        (Event::OperatorActed { act, .. }, What::Order { rollout, .. }) => act.rollout.as_str() == rollout,
        _ => false,
    }
}

/// A decision has one command, a command one id, and what is sent again was issued.
fn ordered_once(events: &BTreeMap<EventSeq, Event>) {
    let (mut ids, mut decisions, mut shares) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for event in events.values() {
        match event {
            Event::CommandIssued { rollout, command } => {
                let new = ids.insert(command.id)
                    & decisions.insert(command.decision)
                    & shares.insert((rollout.as_str(), command.weight));
                assert!(new, "ordered twice: {command:?}");
            }
            Event::CommandResent { command, .. } => assert!(ids.contains(command), "never issued: {command}"),
            Event::CommandApplied { command, .. } => {
                assert!(ids.contains(command), "never issued: {command}")
            }
            _ => {}
        }
    }
}
