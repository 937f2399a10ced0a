//! What goes to and fro between the daemon, the broker, the actuators and those who measure.

use serde_json::{Value, json};

use super::{ACK_WAIT, Happening, RESEND, Run, Stop, Ticket, broken, key, message_id};
use crate::core::event::fact::{Delivery, Inbound};
use crate::core::ids::Service;
use crate::core::policy::segment::SegmentShare;
use crate::core::time::Span;
use crate::runner::ledger::Released;
use crate::sim::broker::Stored;
use crate::sim::coverage::rare::Rare;
use crate::sim::plan::{self, Draw, Fault, MINUTE, Obedience, Work};
use crate::sim::script::START;
use crate::sim::traffic::{self, Serving};
use crate::wire::intake::{self, Kind, Message};
use crate::wire::outgoing::Outgoing;

/// What a task is about: entries of an index, of a cache.
const DOCUMENTS: u64 = 8_000;

impl Run<'_> {
    pub(super) fn send(&mut self, place: u64) {
        let mut r = self.random(Draw::Send, self.now.rotate_left(32) ^ place);
        let (delay, lost) = if self.has(Fault::Bus) {
            (if r.chance(0.1) { r.below(20_000) } else { 1 + r.below(50) }, r.chance(0.08))
        } else {
            (1, false)
        };
        let Some(node) = &mut self.node else { return };
        let behind = node.outbox.front().is_some_and(|front| front.place < place);
        let Some(sending) = node.outbox.iter_mut().find(|s| s.place == place && !s.stored) else { return };
        let lost = lost || self.kill_at_loss && behind;
        sending.lost = lost;
        let message = Box::new(sending.message.clone());
        let life = self.life;
        if lost {
            self.reach(Rare::MessageLost);
        } else {
            self.at(self.now + delay, Happening::Out(life, place, message));
        }
        self.at(self.now + RESEND + delay, Happening::OutRetry(life, place));
    }

    /// A message reaches the broker.
    pub(super) fn out(&mut self, life: u64, place: u64, message: Outgoing) -> Result<(), Stop> {
        let id = message_id(&message);
        self.delivered.insert(id.clone());
        let mut r = self.random(Draw::Arrival, self.now.rotate_left(32) ^ place);
        if self.broker.accept(&id, self.now) {
            let body: Value = serde_json::from_slice(&message.body()).expect("messages are JSON");
            if body["op"] == "set_weight" {
                let name = body["actuator"].as_str().unwrap_or_default();
                if let Some(actuator) = self.plan.actuators.iter().position(|a| *a == name) {
                    self.at(self.now + 1 + r.below(20), Happening::Command(actuator, body));
                }
            }
        }
        if !(self.has(Fault::Bus) && r.chance(0.05)) {
            self.at(self.now + 1, Happening::OutAck(life, place));
        }
        Ok(())
    }

    /// The broker has it.
    pub(super) fn out_ack(&mut self, place: u64) -> Result<(), Stop> {
        let Some(node) = self.node.as_mut() else { return Ok(()) };
        if let Some(sending) = node.outbox.iter_mut().find(|s| s.place == place) {
            sending.stored = true;
        }
        let mut told = None;
        while node.outbox.front().is_some_and(|front| front.stored) {
            let front = node.outbox.pop_front().expect("it was looked at");
            told = Some((front.message.seq, told.map_or(0, |(_, n)| n) + 1));
        }
        let Some((seq, n)) = told else { return Ok(()) };
        // More messages of the same event may follow: only a younger event shows that this one is done.
        let done = node.outbox.front().is_some_and(|next| next.message.seq > seq);
        let more = node.ledger.published(if done { seq } else { seq.saturating_sub(1) }, n);
        let released = more.map(|messages| Released {
            messages,
            receipts: Vec::new(),
            news: Vec::new(),
            events: 0,
            bytes: 0,
        });
        if !self.told(released)? || !self.kill_at_loss {
            return Ok(());
        }
        // The next life has to find out by itself what did not arrive.
        if self.node.as_ref().is_some_and(|node| node.outbox.iter().any(|sending| sending.lost)) {
            self.reach(Rare::KilledAtLoss);
            let after = self.down_for();
            self.kill(after);
        }
        Ok(())
    }

    /// A command reaches an actuator.
    pub(super) fn command(&mut self, actuator: usize, body: Value) -> Result<(), Stop> {
        let (id, service) = (text(&body, "command"), text(&body, "service"));
        if let Some(known) = self.seen.get(&(id.clone(), actuator)) {
            if *known != body {
                return Err(broken("I15", self.checker.seq, format!("command {id} came twice and differs")));
            }
            self.reach(Rare::CommandAgain);
        }
        self.seen.insert((id.clone(), actuator), body.clone());
        let decision = body["decision"].as_u64().unwrap_or(0);
        let how = if self.healed { Obedience::After(500) } else { self.obedience[actuator] };
        let key = (actuator, service);
        // An older command that comes late is left out.
        let late = self.exposures.get(&key).is_some_and(|(newest, ..)| *newest > decision);
        let (delay, status, applies) = match how {
            Obedience::Silent => {
                return Ok(());
            }
            Obedience::Refuses => (500, "rejected", false),
            Obedience::Lies => {
                self.reach(Rare::ActuatorLied);
                self.lied = true;
                (500, "applied", false)
            }
            Obedience::After(delay) => (delay, "applied", true),
            Obedience::Twice | Obedience::Stranger => (500, "applied", true),
        };
        if delay > 30_000 {
            self.reach(Rare::ActuatorSlow);
        }
        if applies && !late {
            self.exposures.insert(key, (decision, serving(&body)));
        }
        let name = self.plan.actuators[actuator];
        let ack = |who: &str, status: &str, done: Option<(u64, u64)>| {
            let ack = confirmation(&body, who, status, delay, done);
            Happening::Publish(Inbound::Acks, Box::new(ack))
        };
        if how == Obedience::Stranger {
            self.reach(Rare::Stranger);
            self.at(self.now + 100, ack("somebody-else", "applied", None));
        }
        if applies && (body["task"] == "populate" || body["task"] == "start") {
            for (after, status, done) in self.tells(actuator, delay) {
                self.at(self.now + after, ack(name, status, Some(done)));
            }
            return Ok(());
        }
        if how == Obedience::Twice {
            self.reach(Rare::AckTwice);
            self.at(self.now + delay + 40, ack(name, status, None));
        }
        self.at(self.now + delay, ack(name, status, None));
        Ok(())
    }

    /// What an actuator says about a task that it begins after `delay`: when, with which status, and how much is done of
    /// how much.
    fn tells(&self, actuator: usize, delay: u64) -> Vec<(u64, &'static str, (u64, u64))> {
        let how = if self.healed { Work::Well } else { self.work[actuator] };
        let (mut over, every) = self.plan.ways.work;
        if how == Work::Late {
            over += 12 * MINUTE;
        }
        let reports = (delay + every..delay + over).step_by(every as usize);
        let far = |at: u64| DOCUMENTS * (at - delay) / over;
        let mut told: Vec<_> = reports.map(|at| (at, "progress", (far(at), DOCUMENTS))).collect();
        let done = (delay + over, "applied", (DOCUMENTS, DOCUMENTS));
        match how {
            Work::Well | Work::Late => told.push(done),
            Work::Half => told.push((delay + over, "applied", (DOCUMENTS / 2, DOCUMENTS))),
            Work::Backward => {
                told.push((delay + over, "progress", (DOCUMENTS / 10, DOCUMENTS)));
                told.push((delay + over + every, "applied", (DOCUMENTS, DOCUMENTS)));
            }
            Work::Longer => {
                told.push(done);
                told.push((delay + over + every, "progress", (DOCUMENTS - 1, DOCUMENTS)));
            }
            Work::Never => {}
        }
        told
    }

    // What comes to the daemon.

    pub(super) fn publish(&mut self, stream: Inbound, message: Stored) {
        let Some(seq) = self.broker.publish(stream, message, self.now) else { return };
        let mut r = self.random(Draw::Delivery, key(stream, seq));
        let delay = match self.has(Fault::Bus) {
            true if r.chance(0.1) => r.below(25_000),
            _ => 1 + r.below(5),
        };
        if self.has(Fault::Bus) && r.chance(0.05) {
            self.at(self.now + delay + r.below(40_000), Happening::Deliver(stream, seq));
        }
        self.at(self.now + delay, Happening::Deliver(stream, seq));
    }

    pub(super) fn deliver(&mut self, stream: Inbound, seq: u64) {
        if self.node.is_none() {
            return;
        }
        let Some(message) = self.broker.waiting(stream, seq) else { return };
        message.attempts += 1;
        let message = message.clone();
        let (kind, word) = match stream {
            Inbound::Intents => (Kind::Intent, "intent"),
            Inbound::Telemetry => (Kind::Telemetry, "telemetry"),
            Inbound::Acks => (Kind::Ack, "ack"),
        };
        let now = self.moment().wall;
        let facts = intake::facts(
            kind,
            &Message {
                body: &message.body,
                content_type: message.content_type,
                service: Some(&message.service),
                source: word,
                message_id: message.id.as_deref(),
                traceparent: None,
                delivery: Some(Delivery { stream, seq, published: Some(START.plus(Span(message.at))) }),
            },
            now,
        );
        let parts = facts.len();
        let tickets = facts
            .into_iter()
            .enumerate()
            .map(|(i, fact)| (Ticket::Part { stream, seq, last: i + 1 == parts }, fact));
        self.node.as_mut().expect("checked").inbox.extend(tickets);
        self.at(self.now + ACK_WAIT, Happening::AckWait(stream, seq, message.attempts));
        self.soon();
    }

    pub(super) fn soon(&mut self) {
        let life = self.life;
        self.at(self.now + 1, Happening::Wake(life));
    }

    /// What ten seconds of a service's requests measured is sent.
    pub(super) fn measure(&mut self, i: usize, n: u64) {
        let service = &self.plan.services[i];
        let mut r = self.random(Draw::Traffic, (i as u64) << 56 | n);
        let exposure = self.exposures.iter().filter(|((_, name), _)| name == service.name);
        let exposures: Vec<Serving> = exposure.map(|(_, (_, serving))| serving.clone()).collect();
        let trouble = self.has(Fault::Telemetry);
        let base = self.broker_baseline(i);
        // Whether everybody serves the share of the step that counts, or some are on their way to another: under an actuator
        // that lies nobody does.
        let step = self.node.as_ref().and_then(|node| {
            let state = node.ledger.state();
            let open =
                state.rollouts.values().find(|o| o.spec.service.as_str() == service.name && o.exposed())?;
            let step = state.policy_of(open).exposure_at(open.serving_step()?);
            let share = |own: &SegmentShare| (own.segment.name.clone(), own.weight.as_share());
            let shares = (step.rest.as_share(), step.segments.iter().map(share).collect::<Vec<_>>());
            Some((open.sent.is_some(), shares))
        });
        let as_planned = step.is_some_and(|(moves, (rest, segments))| {
            let as_step = |s: &Serving| s.rest == rest && s.segments == segments;
            moves || exposures.len() == self.plan.actuators.len() && exposures.iter().all(as_step)
        });
        let sent =
            traffic::measured(service, &exposures, &base, self.true_time(), as_planned, trouble, &mut r);
        for (mut delay, mut message, repeat) in sent {
            if repeat {
                // The sender did not hear that it was stored, and sends it again, at times after the broker forgot.
                let again = self.now + delay + 1_000 + r.below(200_000);
                self.at(again, Happening::Publish(Inbound::Telemetry, Box::new(message.clone())));
                self.reach(Rare::IdAgain);
            }
            if !self.has(Fault::Bus) {
                delay = delay.min(10 * MINUTE);
            }
            message.service = service.name.to_owned();
            self.at(self.now + delay, Happening::Publish(Inbound::Telemetry, Box::new(message)));
        }
    }

    /// What serves a service where no command has said otherwise.
    pub(super) fn broker_baseline(&self, i: usize) -> String {
        let serving = self.node.as_ref().and_then(|node| {
            let state = node.ledger.state();
            state.services.get(&Service::from(self.plan.services[i].name))?.serving.clone()
        });
        serving.unwrap_or_else(|| plan::version(0, self.plan.bundles)).0
    }
}

fn text(body: &Value, name: &str) -> String {
    body[name].as_str().unwrap_or_default().to_owned()
}

/// What an actuator serves that has applied a command.
fn serving(body: &Value) -> Serving {
    let share = |body: &Value| body["canary_weight"].as_f64().unwrap_or(0.0) / 100.0;
    let segments = body["segments"].as_array().map_or(&[][..], Vec::as_slice);
    Serving {
        versions: [text(body, "baseline"), text(body, "canary")],
        rest: share(body),
        segments: segments.iter().map(|segment| (text(segment, "name"), share(segment))).collect(),
        shadowed: body["task"] == "shadow",
    }
}

/// What `who` says of a command after `delay` ms; `done`: how much of how much.
fn confirmation(command: &Value, who: &str, status: &str, delay: u64, done: Option<(u64, u64)>) -> Stored {
    let id = text(command, "command");
    let mut ack = json!({"v": 1, "command": id, "actuator": who, "status": status, "took_ms": delay});
    if status == "rejected" {
        ack["why"] = json!("weights are frozen");
    }
    if let Some((done, of)) = done {
        (ack["done"], ack["of"]) = (json!(done), json!(of));
    }
    Stored {
        service: text(command, "service"),
        content_type: None,
        id: None,
        body: ack.to_string().into_bytes(),
        attempts: 0,
        at: 0,
    }
}
