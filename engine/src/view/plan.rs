//! `plan`: what a rollout would take, before it is submitted.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::forecast::{self, Plan, PlannedGate, PlannedStep};
use crate::core::event::code::Code;
use crate::core::ids::Service;
use crate::core::policy::{ChangeKind, Policy};
use crate::core::state::{ServiceState, State};
use crate::core::time::{Span, Timestamp};
use crate::wire::error::shown;
use crate::wire::names;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    pub service: String,
    /// By name; else the default of `kind`.
    pub policy: Option<String>,
    pub kind: Option<ChangeKind>,
    /// The default for changes of that kind that are called significant.
    #[serde(default)]
    pub significant: bool,
}

/// Answer to `plan`: what a rollout would take at the traffic seen lately, if the canary is as good as the baseline.
/// Times in milliseconds, `null` where they cannot be told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlanAnswer {
    pub service: String,
    pub policy: String,
    /// What serves, as far as is known.
    pub baseline: Option<String>,
    pub steps: Vec<PlannedStepView>,
    /// Until all traffic is the canary's.
    pub total_ms: Option<u64>,
    /// Observations an hour of each metric that gates, in the last hour or two: what the plan goes by.
    #[serde(default)]
    pub traffic: BTreeMap<String, u64>,
    /// What is slow or cannot be told, and what would shorten it.
    pub advice: Vec<String>,
}

/// One step of a plan.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlannedStepView {
    /// As people call it: `25%`, `beta 10%`, `populate`.
    pub name: String,
    /// In percent.
    pub weight: f64,
    pub bake_ms: u64,
    pub takes_ms: Option<u64>,
    pub deadline_ms: Option<u64>,
    pub gates: Vec<PlannedGateView>,
}

/// One gate of a step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PlannedGateView {
    pub gate: String,
    /// Canary observations since the rollout began.
    pub samples: Option<u64>,
    /// From the beginning of the step.
    pub takes_ms: Option<u64>,
}

/// What a rollout would take at `now`. Errors: E3021 and E3022 the policy, and whatever is wrong with the service's name.
pub fn answer(state: &State, request: &PlanRequest, now: Timestamp) -> Result<PlanAnswer, ApiError> {
    let service = names::label("plan.service", &request.service).map(Service)?;
    let kind = request.kind.unwrap_or(ChangeKind::Model);
    let named = request.policy.as_deref();
    let (name, digest) = match named {
        Some(name) => state.policy_names.get_key_value(name).map(|(n, d)| (n.as_str(), *d)),
        None => state.default_policy(kind, request.significant),
    }
    .ok_or_else(|| no_policy(named, kind))?;
    let none = ServiceState::default();
    let known = state.services.get(&service).unwrap_or(&none);
    let plan = forecast::plan(&state.policies[&digest], &known.series, known.serving.as_ref(), now);
    let baseline = known.serving.as_ref().map(|version| version.0.clone());
    Ok(PlanAnswer::new(service.0, name.to_owned(), baseline, plan))
}

impl PlanAnswer {
    fn new(service: String, policy: String, baseline: Option<String>, plan: Plan) -> PlanAnswer {
        let gate = |gate: PlannedGate| PlannedGateView {
            gate: gate.guardrail,
            samples: gate.samples,
            takes_ms: gate.takes.map(|takes| takes.0),
        };
        let step = |step: PlannedStep| PlannedStepView {
            name: step.name,
            weight: step.to.as_percent(),
            bake_ms: step.bake.0,
            takes_ms: step.takes.map(|takes| takes.0),
            deadline_ms: step.deadline.map(|deadline| deadline.0),
            gates: step.gates.into_iter().map(gate).collect(),
        };
        PlanAnswer {
            service,
            policy,
            baseline,
            steps: plan.steps.into_iter().map(step).collect(),
            total_ms: plan.total.map(|total| total.0),
            traffic: plan.traffic,
            advice: plan.advice,
        }
    }
}

fn no_policy(named: Option<&str>, kind: ChangeKind) -> ApiError {
    match named {
        Some(name) => {
            let name = shown(name);
            ApiError::new(Code::NoSuchPolicy, format!("plan.policy: policy {name} is not known"))
        }
        None => ApiError::new(
            Code::PolicyName,
            format!("plan.kind: no policy applies to changes of kind {}", kind.as_str()),
        ),
    }
}

/// How long a plan takes, and what it says about that.
pub fn outlook(plan: &Plan) -> Vec<String> {
    let total = plan.total.map(|total| {
        format!("about {} to 100% at the traffic of late, if it is as good as before", forecast::rough(total))
    });
    total.into_iter().chain(plan.advice.iter().cloned()).collect()
}

/// `1% 4h > 5% 4h > 100% soak 24h`
pub fn ramp(policy: &Policy) -> String {
    let timed = |what: String, span: Span| if span == Span::ZERO { what } else { format!("{what} {span}") };
    let steps: Vec<String> = policy.steps.iter().map(|step| timed(step.to.to_string(), step.bake)).collect();
    let plan = steps.join(" > ");
    if policy.soak == Span::ZERO { plan } else { format!("{plan} soak {}", policy.soak) }
}
