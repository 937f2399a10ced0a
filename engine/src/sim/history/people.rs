//! What happens from outside by the plan, and what people do.

use serde_json::json;

use super::{Happening, Run, Stop, Ticket};
use crate::core::event::Event;
use crate::core::event::fact::{Act, FreezeOrder, Inbound, Origin};
use crate::core::event::rollout_spec::Outcome;
use crate::core::event::verb::Verb;
use crate::core::ids::{Digest, EventSeq, RolloutId};
use crate::core::policy::guardrail::OnFail;
use crate::core::state::rollout::Stage;
use crate::core::time::{Span, Timestamp};
use crate::sim::broker::Stored;
use crate::sim::coverage::rare::Rare;
use crate::sim::disk::Mishap;
use crate::sim::plan::{self, ACTORS, Draw, MINUTE, Obedience, SCOPES, Stimulus};
use crate::sim::traffic;

impl Run<'_> {
    pub(super) fn stimulus(&mut self, i: usize) -> Result<(), Stop> {
        let stimulus = self.plan.stimuli[i].1.clone();
        match stimulus {
            Stimulus::Tick(service) => self.measure(service, self.now),
            Stimulus::Intent(intent) => self.ask_for(&intent),
            Stimulus::Act { verb, actor, pick, stale, force } => {
                if let Some(act) = self.act(verb, ACTORS[actor], pick, stale, force) {
                    self.order(act);
                }
            }
            Stimulus::Mishap(mishap) => self.meet(mishap),
            Stimulus::KillInRelease(after) => {
                if self.node.is_some() {
                    self.budget = Some(after);
                }
            }
            Stimulus::KillAtLoss => self.kill_at_loss = self.node.is_some(),
            Stimulus::Kill => {
                if self.node.is_some() {
                    self.reach(Rare::KilledIdle);
                }
                let after = self.down_for();
                self.kill(after);
            }
            Stimulus::Snapshot => return self.snapshot(false),
            Stimulus::Stop => return self.snapshot(true),
            Stimulus::NearlyFull => {
                self.full = true;
                self.at(self.now + 3 * MINUTE, Happening::Room);
            }
            Stimulus::Damage(damage) => {
                let mut r = self.random(Draw::Damage, i as u64);
                // Nobody reads a closed log: the next start does.
                let after = self.down_for();
                self.kill(after);
                self.disk.borrow_mut().damage(damage, &mut r);
            }
            Stimulus::Reset(stream) => self.reset(stream),
            Stimulus::Clock(by) => {
                self.wall += by;
                if by < -2_000 {
                    self.reach(Rare::ClockBack);
                }
                self.soon();
            }
            Stimulus::Sleep(span) => self.sleep(span),
            Stimulus::Obey(actuator, how) => self.obedience[actuator] = how,
            Stimulus::Work(actuator, how) => self.work[actuator] = how,
            Stimulus::Garbage(stream, what) => self.garble(stream, what),
            Stimulus::Flood(service) => {
                self.reach(Rare::Flood);
                (0..40).for_each(|n| self.measure(service, self.now + n));
            }
            Stimulus::Freeze { freeze, service, lasts, actor } => {
                let order = FreezeOrder {
                    freeze,
                    service: service.map(|i| self.plan.services[i % self.plan.services.len()].name.into()),
                    until: lasts.map(|lasts| self.moment_or_true().plus(Span(lasts))),
                    actor: ACTORS[actor].into(),
                    host: "laptop".into(),
                    args: vec!["freeze".into()],
                    reason: "because".into(),
                };
                self.freeze(order);
            }
            Stimulus::Policy(change) => self.edit_policy(change),
        }
        Ok(())
    }

    fn ask_for(&mut self, intent: &plan::Intent) {
        let plan::Intent { service, from, to, id, policy, reason, finding, scopes } = *intent;
        let mut body = json!({
            "id": format!("i{id}"), "by": "maya", "reason": format!("try it {reason}"),
            "change": {"kind": "model"},
        });
        let change = &mut body["change"];
        if self.plan.bundles {
            change["bundle"] = json!(plan::bundle(to));
            from.into_iter().for_each(|from| change["from_bundle"] = json!(plan::bundle(from)));
        } else {
            change["to"] = json!(plan::version(to, false));
            from.into_iter().for_each(|from| change["from"] = json!(plan::version(from, false)));
        }
        if let Some(policy) = policy {
            body["policy"] = json!(policy);
        }
        let named = SCOPES.into_iter().enumerate().filter(|(i, _)| scopes >> i & 1 == 1);
        let named: Vec<&str> = named.map(|(_, scope)| scope).collect();
        if !named.is_empty() {
            body["scopes"] = json!(named);
        }
        if finding {
            body["finding"] = json!("the gateway was cold");
        }
        let message = Stored {
            service: self.plan.services[service].name.into(),
            content_type: None,
            id: None,
            body: body.to_string().into_bytes(),
            attempts: 0,
            at: 0,
        };
        self.publish(Inbound::Intents, message);
    }

    /// A message that cannot be read.
    fn garble(&mut self, stream: Inbound, what: u64) {
        let message = traffic::garbage(stream, what, self.true_time());
        if stream == Inbound::Telemetry && message.body.windows(3).any(|w| w == b"NaN") {
            self.reach(Rare::NotFinite);
        }
        self.publish(stream, message);
    }

    /// The machine sleeps.
    fn sleep(&mut self, span: u64) {
        self.asleep = self.now + span;
        if let Some(node) = &mut self.node {
            node.slept += span;
            self.slept += span;
            self.reach(Rare::Slept);
        }
        self.at(self.asleep, Happening::Wake(self.life));
    }

    /// The next group meets this.
    fn meet(&mut self, mishap: Mishap) {
        if self.node.is_none() {
            return;
        }
        match mishap {
            Mishap::KilledBefore => self.reach(Rare::KilledBefore),
            Mishap::KilledUnsynced => self.reach(Rare::KilledUnsynced),
            Mishap::KilledAfter => self.reach(Rare::KilledAfter),
            _ => {}
        }
        self.disk.borrow_mut().mishap = Some(mishap);
    }

    /// A snapshot is taken, at the end of a life where it `stops` in order.
    fn snapshot(&mut self, stops: bool) -> Result<(), Stop> {
        self.work()?;
        let Some(node) = self.node.as_mut() else { return Ok(()) };
        if let Err(error) = node.ledger.snapshot() {
            return self.refused(&error);
        }
        if stops {
            self.reach(Rare::Stopped);
            let after = self.down_for();
            self.kill(after);
        }
        Ok(())
    }

    /// A stream is lost with what waited in it; what is being recorded keeps its number.
    fn reset(&mut self, stream: Inbound) {
        let Some(node) = &self.node else { return };
        let recorded = node.ledger.state().intake.high(stream);
        let of_it = |ticket: &Ticket| matches!(ticket, Ticket::Part { stream: s, .. } if *s == stream);
        if !node.inbox.iter().any(|(ticket, _)| of_it(ticket)) {
            self.broker.reset(stream, recorded);
            self.reach(Rare::StreamReset);
        }
    }

    /// Somebody edits the file of a policy.
    fn edit_policy(&mut self, change: u64) {
        let (source, policy) = &self.plan.policies[(change % 2) as usize];
        let mut policy = policy.clone();
        policy.steps[0].bake = Span(policy.steps[0].bake.0 / 2);
        if policy.ab {
            policy.steps[0].deadline = Some(policy.steps[0].bake);
        }
        policy.guardrails[0].on_fail = OnFail::Alert;
        let source = format!("{source}# {change}\n");
        let digest = Digest::of(source.as_bytes());
        if let Some(node) = &mut self.node {
            if !node.ledger.state().rollouts.is_empty() {
                self.coverage.rare.insert(Rare::PolicyEdited);
            }
            node.inbox.push_back((Ticket::Own, Event::PolicyStored { digest, policy, source }));
            self.soon();
        }
    }

    /// An order about a rollout that somebody sees, has seen, or makes up.
    pub(super) fn act(&self, verb: Verb, actor: &str, pick: u64, stale: bool, force: bool) -> Option<Act> {
        let state = self.node.as_ref()?.ledger.state();
        let open = state.rollouts.values().map(|r| (r.id.clone(), r.moved));
        let over = state.ended.iter().rev().take(2).map(|e| (e.id.clone(), e.ended));
        let known: Vec<(RolloutId, EventSeq)> = open.chain(over).collect();
        let (rollout, moved) = match known.len() {
            0 => (RolloutId::from("nothing-1"), 1),
            n => known[(pick % n as u64) as usize].clone(),
        };
        // Half of all rollbacks are second thoughts about what has completed; so is much else when nothing is open.
        let completed = state.ended.iter().rev().find(|e| e.outcome == Outcome::Completed);
        let idle = state.rollouts.is_empty() && matches!(verb, Verb::Promote | Verb::Skip | Verb::Pause);
        let second = completed.filter(|_| (verb == Verb::Rollback || idle) && pick >> 9 & 1 == 1);
        let (rollout, moved, verb) = match second {
            Some(ended) => (ended.id.clone(), ended.ended, Verb::Rollback),
            None => (rollout, moved, verb),
        };
        let if_seq = if stale { Some(moved.saturating_sub(1 + pick % 50)) } else { Some(moved) };
        Some(Act {
            rollout,
            verb,
            actor: actor.into(),
            host: "laptop".into(),
            args: vec![verb.as_str().into()],
            reason: "because".into(),
            if_seq: if_seq.filter(|_| stale || pick.is_multiple_of(3)),
            force,
        })
    }

    pub(super) fn order(&mut self, act: Act) {
        if let Some(node) = &mut self.node {
            node.inbox.push_back((Ticket::Own, Event::OperatorActed { act, origin: Origin::default() }));
            self.soon();
        }
    }

    /// Log time as the daemon has it.
    fn moment_or_true(&self) -> Timestamp {
        self.node.as_ref().map_or(self.true_time(), |node| node.ledger.state().now)
    }

    fn freeze(&mut self, order: FreezeOrder) {
        if let Some(node) = &mut self.node {
            node.inbox.push_back((Ticket::Own, Event::FreezeOrdered { order, origin: Origin::default() }));
            self.soon();
        }
    }

    /// Trouble is over: everything works again, and people look after what is left.
    pub(super) fn care(&mut self) {
        if !self.healed {
            self.healed = true;
            self.full = false;
            self.budget = None;
            self.kill_at_loss = false;
            self.disk.borrow_mut().mishap = None;
            self.obedience.iter_mut().for_each(|how| *how = Obedience::After(500));
            self.at(self.now, Happening::Start);
            for i in 0..self.plan.services.len() {
                self.at(self.now + i as u64, Happening::Tick(i));
            }
            for (stream, seq) in self.broker.all_waiting() {
                self.at(self.now + 10, Happening::Deliver(stream, seq));
            }
        }
        let forced = self.now >= self.plan.cleared;
        let mut orders = Vec::new();
        if let Some(node) = &self.node {
            for rollout in node.ledger.state().rollouts.values() {
                let order = |verb, actor: &str| Act {
                    rollout: rollout.id.clone(),
                    verb,
                    actor: actor.into(),
                    host: "laptop".into(),
                    args: Vec::new(),
                    reason: "clearing up".into(),
                    if_seq: None,
                    force: false,
                };
                // Half of the people know better than the telemetry.
                let unseen = rollout.stage == Stage::RollingBack && rollout.sent.is_none();
                if unseen && self.plan.seed.is_multiple_of(2) {
                    orders.push(Act { force: true, ..order(Verb::Rollback, "ada") });
                } else if forced {
                    orders.push(order(if rollout.exposed() { Verb::Rollback } else { Verb::Abort }, "ada"));
                } else if rollout.segment_taken_back.is_some() {
                    // What failed is tried again, until it is time to give it up.
                    orders.push(Act { force: true, ..order(Verb::Promote, "ada") });
                } else if rollout.paused.is_some() {
                    orders.push(order(Verb::Resume, "ada"));
                } else if rollout.bake().is_some() {
                    orders.extend(["maya", "li", "ada"].map(|actor| order(Verb::Approve, actor)));
                }
            }
        }
        orders.into_iter().for_each(|act| self.order(act));
        let frozen = self.node.as_ref().map(|node| node.ledger.state().freezes.clone()).unwrap_or_default();
        for freeze in frozen {
            self.freeze(FreezeOrder {
                freeze: false,
                service: freeze.service,
                until: None,
                actor: "ada".into(),
                host: "laptop".into(),
                args: Vec::new(),
                reason: "clearing up".into(),
            });
        }
        self.at(self.now + 3 * MINUTE, Happening::Care);
    }
}
