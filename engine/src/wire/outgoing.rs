//! What sluice publishes: decisions, commands, alerts and refused inputs, as JSON with CloudEvents headers.
//!
//! Pure and repeatable: the same event of the same log gives the same bytes and the same message id, so that
//! sending twice is the same as sending once.

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::core::event::Event;
use crate::core::event::bundle::Parts;
use crate::core::event::code::Code;
use crate::core::event::decision::{Choice, Decision, Reason};
use crate::core::ids::{Actuator, CommandId, EventSeq, RolloutId, derived_id};
use crate::core::policy::segment::{SegmentShare, Task, Test};
use crate::core::state::State;
use crate::core::time::Timestamp;
use crate::core::words::{self, refusal};
use crate::wire::reading::{GuardrailView, guardrail_view};
use crate::wire::time::rfc3339;

/// Root of all subjects; its version grows only with a breaking change.
pub const ROOT: &str = "sluice.v1";

/// One message on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The event it announces.
    pub seq: EventSeq,
    pub subject: String,
    /// `Nats-Msg-Id`, CloudEvents attributes (`ce-`, types after CDEvents' rule for custom events), `traceparent`.
    pub headers: Vec<(&'static str, String)>,
    body: Body,
    /// A command: sent on even when the broker's stream cannot take it.
    pub urgent: bool,
}

/// What a message says. A decision has a lot to say, and the command that carries it out must not wait for that: it is
/// put into words when it is sent.
#[derive(Clone, Debug)]
enum Body {
    Ready(Vec<u8>),
    Decision(Box<DecisionBody>),
}

#[derive(Clone, Debug)]
struct DecisionBody {
    at: Timestamp,
    rollout: RolloutId,
    decision: Decision,
    policy: String,
    command: CommandId,
}

impl Outgoing {
    /// JSON.
    pub fn body(&self) -> Vec<u8> {
        match &self.body {
            Body::Ready(bytes) => bytes.clone(),
            Body::Decision(body) => json(&body.message(self.seq)),
        }
    }
}

/// `sluice.v1.decision.<service>.<choice>`
#[derive(Serialize, JsonSchema)]
pub struct DecisionMessage {
    pub v: u32,
    pub seq: EventSeq,
    /// RFC 3339, UTC.
    pub at: String,
    pub rollout: String,
    pub service: String,
    pub decision: Choice,
    pub baseline: String,
    pub canary: String,
    /// Number of the step it was made at, from 1.
    pub step: Option<u16>,
    /// Of the segment that it is about.
    pub weight: WeightChange,
    /// That segment (cohort or region), where the policy has any. A rollback without one is of everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// What actuators do at the step that is entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Of a rollback of one segment: the number of the step that serves then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_to: Option<u16>,
    pub summary: String,
    /// What made the choice, binding first.
    pub because: Vec<Because>,
    pub guardrails: Vec<GuardrailView>,
    pub policy: String,
    pub policy_hash: String,
    pub engine: u32,
    pub inputs: Inputs,
    /// The command that carries it out; none for a hold.
    pub command: Option<String>,
    /// `automatic`, or `operator` when a person ordered it.
    pub mode: &'static str,
    pub actor: Option<String>,
}

/// One thing that binds a decision. About a guardrail, its figures stand beside the sentence.
#[derive(Serialize, JsonSchema)]
pub struct Because {
    /// `guardrail`, `samples`, `bake`, `deadline`, `approvals`, `paused`, `operator`, `soak_over`, ...
    pub gate: String,
    pub binding: bool,
    pub summary: String,
    #[serde(flatten)]
    pub guardrail: Option<GuardrailView>,
}

/// In percent of traffic.
#[derive(Serialize, JsonSchema)]
pub struct WeightChange {
    pub from: f64,
    pub to: f64,
}

/// First and last event that the decision could know.
#[derive(Serialize, JsonSchema)]
pub struct Inputs {
    pub first: EventSeq,
    pub last: EventSeq,
}

/// `sluice.v1.command.<service>.<actuator>`
#[derive(Serialize, JsonSchema)]
pub struct CommandMessage {
    pub v: u32,
    pub command: String,
    pub rollout: String,
    pub service: String,
    pub actuator: String,
    pub op: &'static str,
    /// Sequence of the decision it carries out. Of two commands of a service the one with the higher number stands;
    /// the other may come late and is to be left out.
    pub decision: EventSeq,
    pub baseline: String,
    pub canary: String,
    /// What the canary is made of, where it is a bundle: the version of each part.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub bundle: Parts,
    /// Share of traffic that the canary shall serve, in percent; with segments, of whoever is in none of them.
    pub canary_weight: f64,
    /// Parts of the traffic with a share of their own. Whoever belongs to several is in the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentWeight>,
    /// What is to be done beside setting the share, before the command is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// Confirm within this time, or you are named as silent.
    pub deadline_ms: u64,
    /// Applying it twice is the same as once.
    pub idempotent: bool,
}

/// The canary's share of one segment.
#[derive(Serialize, JsonSchema)]
pub struct SegmentWeight {
    pub name: String,
    /// Attribute of the evaluation context that says who belongs to it.
    pub attribute: String,
    /// What the attribute must be.
    pub test: Test,
    /// In percent.
    pub canary_weight: f64,
}

/// `sluice.v1.alert.<service>`
#[derive(Serialize, JsonSchema)]
pub struct AlertMessage {
    pub v: u32,
    pub seq: EventSeq,
    pub at: String,
    pub rollout: String,
    pub service: String,
    pub alert: &'static str,
    pub summary: String,
    pub guardrail: Option<GuardrailView>,
}

/// `sluice.v1.rejected`
#[derive(Serialize, JsonSchema)]
pub struct RejectedMessage {
    pub v: u32,
    pub seq: EventSeq,
    pub at: String,
    pub code: &'static str,
    pub message: String,
    pub source: String,
    pub bytes: u64,
    pub excerpt: String,
}

/// The messages that announce the event at `seq`. `state`: any state at or after it.
pub fn messages(state: &State, seq: EventSeq, at: Timestamp, event: &Event) -> Vec<Outgoing> {
    match event {
        Event::DecisionMade { rollout, decision } => {
            let service = service_of(rollout);
            let subject = format!("{ROOT}.decision.{service}.{}", decision.choice.as_str());
            let body = Body::Decision(Box::new(DecisionBody::new(state, seq, at, rollout, decision)));
            let kind = match decision.choice {
                Choice::Promote => "sluice-rollout.promoted",
                Choice::Hold => "sluice-rollout.held",
                Choice::Rollback => "sluice-rollout.rolledback",
                Choice::Complete => "sluice-rollout.completed",
            };
            vec![outgoing(state, seq, at, kind, None, subject, Some(rollout), body)]
        }
        Event::CommandIssued { rollout, command } => {
            let to = command.actuators.iter().map(|a| a.as_str());
            commands(state, seq, rollout, command.id, to.collect())
        }
        Event::CommandResent { rollout, command, actuators, .. } => {
            commands(state, seq, rollout, *command, actuators.iter().map(|a| a.as_str()).collect())
        }
        Event::AlertRaised { rollout, alert } => {
            let service = service_of(rollout);
            let body = AlertMessage {
                v: 1,
                seq,
                at: rfc3339(at),
                rollout: rollout.0.clone(),
                service: service.to_owned(),
                alert: alert.kind().name(),
                summary: words::alert::text(alert),
                guardrail: alert.reading().map(guardrail_view),
            };
            let subject = format!("{ROOT}.alert.{service}");
            vec![outgoing(
                state,
                seq,
                at,
                "sluice-alert.raised",
                None,
                subject,
                Some(rollout),
                Body::of(&body),
            )]
        }
        Event::InputRejected { rejection: r, .. } => {
            vec![rejected(state, seq, at, r.code, &r.message, &r.source, r.bytes, &r.excerpt)]
        }
        Event::IntentRefused { intent, service, refusal: r } => {
            let source = format!("{ROOT}.intent.{service}");
            vec![rejected(state, seq, at, r.code(), &refusal::text(r), &source, 0, intent.as_str())]
        }
        Event::AckRefused { command, actuator, refusal: r } => {
            let excerpt = format!("{command} from {actuator}");
            let source = format!("{ROOT}.ack");
            vec![rejected(state, seq, at, r.code(), &refusal::text(r), &source, 0, &excerpt)]
        }
        _ => Vec::new(),
    }
}

/// The decision at `seq` as it is published and shown.
pub fn decision_message(
    state: &State,
    seq: EventSeq,
    at: Timestamp,
    rollout: &RolloutId,
    decision: &Decision,
) -> DecisionMessage {
    DecisionBody::new(state, seq, at, rollout, decision).message(seq)
}

impl DecisionBody {
    fn new(
        state: &State,
        seq: EventSeq,
        at: Timestamp,
        rollout: &RolloutId,
        decision: &Decision,
    ) -> DecisionBody {
        DecisionBody {
            at,
            rollout: rollout.clone(),
            decision: decision.clone(),
            policy: state.policies.get(&decision.policy).map(|p| p.name.clone()).unwrap_or_default(),
            command: CommandId::of(state.log, seq),
        }
    }

    fn message(&self, seq: EventSeq) -> DecisionMessage {
        let d = &self.decision;
        DecisionMessage {
            v: 1,
            seq,
            at: rfc3339(self.at),
            rollout: self.rollout.0.clone(),
            service: service_of(&self.rollout).to_owned(),
            decision: d.choice,
            baseline: d.baseline.0.clone(),
            canary: d.canary.0.clone(),
            step: d.step.map(|step| step + 1),
            weight: WeightChange { from: d.weight_from.as_percent(), to: d.weight_to.as_percent() },
            segment: d.segment.clone(),
            task: d.task,
            back_to: d.back_to.map(|step| step + 1),
            summary: words::decision(d),
            because: d.because.iter().map(|reason| because(reason, d)).collect(),
            guardrails: d.readings.iter().map(guardrail_view).collect(),
            policy: self.policy.clone(),
            policy_hash: d.policy.short(),
            engine: d.engine,
            inputs: Inputs { first: d.inputs.0, last: d.inputs.1 },
            command: d.moves().then(|| self.command.to_string()),
            mode: if d.actor.is_some() { "operator" } else { "automatic" },
            actor: d.actor.clone(),
        }
    }
}

impl Body {
    fn of(message: &impl Serialize) -> Body {
        Body::Ready(json(message))
    }
}

fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("messages are made of finite numbers and strings")
}

fn because(reason: &Reason, d: &Decision) -> Because {
    let guardrail = match reason {
        Reason::Guardrail { name } => d.readings.iter().find(|r| r.name == *name).map(guardrail_view),
        _ => None,
    };
    let gate = serde_json::to_value(reason).ok();
    Because {
        gate: gate.and_then(|r| Some(r.get("gate")?.as_str()?.to_owned())).unwrap_or_default(),
        binding: true,
        summary: words::reason(reason, &d.readings),
        guardrail,
    }
}

fn segment_weight(part: &SegmentShare) -> SegmentWeight {
    let segment = &part.segment;
    SegmentWeight {
        name: segment.name.clone(),
        attribute: segment.attribute.clone(),
        test: segment.test.clone(),
        canary_weight: part.weight.as_percent(),
    }
}

/// One message per actuator. Empty when the command is no longer the one to obey.
fn commands(
    state: &State,
    seq: EventSeq,
    rollout: &RolloutId,
    id: CommandId,
    actuators: Vec<&str>,
) -> Vec<Outgoing> {
    let Some(open) = state.rollouts.get(rollout) else { return Vec::new() };
    let sent = open.sent.as_ref().map(|sent| (&sent.command, sent.issued_at));
    // Confirmed, and telemetry does not show it.
    let confirmed = open.effect.as_ref().map(|effect| (&effect.command, effect.issued_at));
    let Some((command, issued_at)) = sent.or(confirmed).filter(|(command, _)| command.id == id) else {
        return Vec::new();
    };
    let policy = state.policy_of(open);
    let message = |actuator: &str| {
        let body = CommandMessage {
            v: 1,
            command: id.to_string(),
            rollout: rollout.0.clone(),
            service: command.service.0.clone(),
            actuator: actuator.to_owned(),
            op: "set_weight",
            decision: command.decision,
            baseline: command.baseline.0.clone(),
            canary: command.canary.0.clone(),
            bundle: command.bundle.clone(),
            canary_weight: command.weight.as_percent(),
            segments: command.segments.iter().map(segment_weight).collect(),
            task: command.task,
            deadline_ms: policy.ack_within(&Actuator::from(actuator)).0,
            idempotent: true,
        };
        let own =
            policy.declared.get(&Actuator::from(actuator)).and_then(|declared| declared.subject.clone());
        let subject = own.unwrap_or_else(|| format!("{ROOT}.command.{}.{actuator}", command.service));
        // The id is the command's and the actuator's, not the event's: a resend is the same message. So is its
        // time: the decision's.
        let key = derived_id(id.0, actuator, command.decision);
        let mut out = outgoing(
            state,
            seq,
            issued_at,
            "sluice-command.issued",
            Some(key),
            subject,
            Some(rollout),
            Body::of(&body),
        );
        out.urgent = true;
        out
    };
    actuators.into_iter().map(message).collect()
}

#[allow(clippy::too_many_arguments, reason = "the fields of one flat message")]
fn rejected(
    state: &State,
    seq: EventSeq,
    at: Timestamp,
    code: Code,
    message: &str,
    source: &str,
    bytes: u64,
    excerpt: &str,
) -> Outgoing {
    let body = RejectedMessage {
        v: 1,
        seq,
        at: rfc3339(at),
        code: code.as_str(),
        message: message.to_owned(),
        source: source.to_owned(),
        bytes,
        excerpt: excerpt.to_owned(),
    };
    outgoing(state, seq, at, "sluice-input.rejected", None, format!("{ROOT}.rejected"), None, Body::of(&body))
}

#[allow(clippy::too_many_arguments, reason = "the fields of one flat message")]
fn outgoing(
    state: &State,
    seq: EventSeq,
    at: Timestamp,
    kind: &str,
    id: Option<Uuid>,
    subject: String,
    rollout: Option<&RolloutId>,
    body: Body,
) -> Outgoing {
    let id = id.unwrap_or_else(|| derived_id(state.log, kind, seq)).to_string();
    let mut headers = vec![
        ("Nats-Msg-Id", id.clone()),
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", id),
        ("ce-source", format!("/sluice/{}", state.log)),
        ("ce-type", format!("dev.cdeventsx.{kind}.0.1.0")),
        ("ce-time", rfc3339(at)),
        ("ce-datacontenttype", "application/json".to_owned()),
    ];
    if let Some(rollout) = rollout {
        headers.push(("ce-subject", rollout.0.clone()));
        headers.extend(trace_of(state, rollout).map(|trace| ("traceparent", trace)));
    }
    Outgoing { seq, subject, headers, body, urgent: false }
}

/// The trace that the rollout's intent came with.
fn trace_of(state: &State, rollout: &RolloutId) -> Option<String> {
    let open = state.rollouts.get(rollout).map(|r| &r.spec);
    let ended = || state.ended.iter().rev().find(|e| e.id == *rollout).map(|e| &e.spec);
    open.or_else(ended)?.traceparent.clone()
}

fn service_of(rollout: &RolloutId) -> &str {
    rollout.0.rsplit_once('-').map_or(rollout.as_str(), |(service, _)| service)
}
