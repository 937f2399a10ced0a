//! The keys of a policy file. What their values may be, alone and together, is `check`'s business.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::scalars::{
    ApiVersion, CronLine, Exposed, Label, Lasting, LocalTime, MetricName, Name, PolicyKind, SmokeAt, Subject,
    TagValue, Words, Zone,
};
use crate::core::policy::actuator::OnDeadline;
use crate::core::policy::guardrail::{Better, GuardrailKind, OnFail};
use crate::core::policy::segment::OnSegmentFailure;
use crate::core::policy::{ChangeKind, Concurrency, Retry};
use crate::core::time::Span;
use crate::wire::yaml::{At, Node, Percent, Points, Scalar};

/// Keys of the full grammar that this version does not read.
pub const NOT_YET: [&str; 1] = ["prepare"];

/// The rules that a rollout runs under.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    #[serde(rename = "apiVersion")]
    pub api_version: Node<ApiVersion>,
    pub kind: Node<PolicyKind>,
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// What intents call the policy.
    pub name: Node<Label>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Change kinds this policy is the default for.
    #[serde(default)]
    pub applies_to: Vec<Node<ChangeKind>>,
    /// Whether that is for the changes that their submitter calls significant, and not for the others (default: false).
    pub significant: Option<Node<bool>>,
    pub exposure: At<Exposure>,
    /// What a step does that is not promoted by its deadline (default: hold).
    pub on_deadline: Option<Node<OnDeadline>>,
    #[schemars(length(min = 1, max = 32))]
    pub guardrails: At<Vec<GuardrailBody>>,
    /// What holds or alerts by what was observed, beside the guardrails (default: none).
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub conditions: Vec<ConditionBody>,
    #[serde(default)]
    pub evidence: EvidenceBody,
    /// Telemetry older than this says nothing about now (default: 15m).
    pub stale_after: Option<Node<Lasting>>,
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub approvals: Vec<ApprovalBody>,
    /// What a second intent for a busy service does (default: queue).
    pub concurrency: Option<Node<Concurrency>>,
    /// Parts of a bundle that may change in one rollout, 1 to 6 (default: 1).
    pub parts_at_once: Option<Node<u64>>,
    /// When a rollout may move forward (default: always). A rollback never waits for them.
    pub windows: Option<At<WindowsBody>>,
    /// Time after completion in which the old version is kept and the rollout can be taken back (default: none).
    pub keep_old: Option<Node<Span>>,
    /// Resources that every rollout of this policy uses, beside those of its intent: one rollout at a time has each.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub scopes: Vec<Node<Label>>,
    /// What it takes to try a version again that a guardrail or a deadline took back (default: needs_finding).
    pub retry_after_rollback: Option<Node<Retry>>,
    /// Everyone who must confirm a command (default: one, called default).
    #[schemars(length(min = 1, max = 16))]
    pub actuators: Option<At<Vec<At<ActuatorBody>>>>,
    /// After this long without a confirmation the command is sent again (default: 30s).
    pub ack_timeout: Option<Node<Lasting>>,
    /// Telemetry has to show what actuators confirm, or nothing is promoted (default: they are believed).
    pub effective: Option<At<EffectiveBody>>,
    /// What is run as soon as a step is applied; a step is not promoted before all have passed.
    #[schemars(length(max = 16))]
    pub smoke: Option<At<Vec<SmokeBody>>>,
}

/// A name, or more.
pub type ActuatorBody = Short<Label, DeclaredBody>;

/// A name, or a map that says more.
pub enum Short<S, T> {
    Text(String, PhantomData<S>),
    Map(Box<T>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclaredBody {
    pub name: Node<Label>,
    /// Where its commands go (default: sluice.v1.command.SERVICE.NAME).
    pub subject: Option<Node<Subject>>,
    /// Silent for longer, it is named and on_silent happens (default: ack_timeout).
    pub ack_within: Option<Node<Lasting>>,
    /// How often an unconfirmed command is sent again (default: after ack_timeout, then after twice as long, up to 5m).
    pub resend_every: Option<Node<Lasting>>,
    /// What silence at a step does (default: hold). Silence about a rollback is named every 5m.
    pub on_silent: Option<Node<OnDeadline>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EffectiveBody {
    /// If telemetry has not shown a command so long after its confirmation, people are told.
    pub within: Node<Span>,
    /// What is served in this time after the confirmation does not count (default: 0s).
    pub after: Option<Node<Span>>,
}

/// One of command, request.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeBody {
    pub name: Node<Label>,
    /// A program (its whole path) and its arguments, run by the daemon if its config allows that.
    #[schemars(length(min = 1, max = 64))]
    pub command: Option<At<Vec<Node<Words>>>>,
    /// A subject on which a runner answers.
    pub request: Option<Node<Subject>>,
    /// Then it is ended, and counts as failed.
    pub timeout: Node<Span>,
    /// At which steps (default: every).
    pub at: Option<Node<SmokeAt>>,
    /// What a failure does (default: rollback). A test that could not be run holds.
    pub on_fail: Option<Node<OnDeadline>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exposure {
    /// The steps, rising, the last to 100%.
    #[schemars(length(min = 1, max = 50))]
    pub percent: Option<At<Vec<StepBody>>>,
    /// Cohorts of users one after another, the last everybody else.
    #[schemars(length(min = 2, max = 16))]
    pub cohorts: Option<At<Vec<CohortBody>>>,
    /// Regions one after another, the last everywhere else.
    #[schemars(length(min = 2, max = 16))]
    pub regions: Option<At<Vec<RegionBody>>>,
    /// Where a failure takes the canary back (default: all).
    pub on_region_failure: Option<Node<OnSegmentFailure>>,
    /// A fixed split for a set time.
    pub ab: Option<At<AbBody>>,
    /// A new index or cache beside the old one.
    pub parallel: Option<At<ParallelBody>>,
    /// A new serving stack beside the old one.
    pub blue_green: Option<At<BlueGreenBody>>,
    /// When on_deadline happens if not every actuator has confirmed a step, from its command (default: never).
    pub apply_within: Option<Node<Span>>,
    /// Watched time after 100%, guardrails armed (default: none).
    pub soak: Option<Node<Span>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CohortBody {
    /// What samples are tagged with: cohort=NAME.
    pub name: Node<Label>,
    /// Who belongs to it; for every cohort but the last.
    pub r#where: Option<At<WhereBody>>,
    /// Shares of the cohort, rising.
    #[schemars(length(min = 1, max = 50))]
    pub steps: At<Vec<StepBody>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegionBody {
    /// What samples are tagged with: region=NAME. The last stands for everywhere else.
    pub name: Node<Label>,
    /// Shares of the region, rising.
    #[schemars(length(min = 1, max = 50))]
    pub steps: At<Vec<StepBody>>,
}

/// One of in, starts_with, ends_with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhereBody {
    /// Of the evaluation context.
    pub attribute: Node<Words>,
    #[schemars(length(min = 1, max = 1000))]
    pub r#in: Option<Vec<Node<Words>>>,
    pub starts_with: Option<Node<Words>>,
    pub ends_with: Option<Node<Words>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbBody {
    /// Share of the new version.
    pub split: Node<Exposed>,
    /// How long the split is kept; then it is decided.
    pub horizon: Node<Span>,
    /// The guardrail that must be shown within its limit at the horizon.
    pub primary: Node<MetricName>,
    /// Canary observations by metric, without which the new version does not win.
    #[serde(default)]
    pub min_samples: BTreeMap<String, Node<u64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelBody {
    #[serde(default)]
    pub populate: TaskBody,
    /// A copy of the traffic is answered by both, and compared.
    pub shadow: Option<At<ShadowBody>>,
    #[schemars(length(min = 1, max = 48))]
    pub percent: At<Vec<StepBody>>,
    /// How long the old one is kept, and watched against, after 100% (default: none).
    pub keep: Option<Node<Span>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BlueGreenBody {
    #[serde(default)]
    pub start: TaskBody,
    /// Canary traffic before all of it.
    pub canary: StepBody,
    /// How long the old one is kept, and watched against, after 100% (default: none).
    pub keep: Option<Node<Span>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskBody {
    /// When on_deadline happens, from the command (default: exposure.apply_within).
    pub within: Option<Node<Span>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShadowBody {
    /// How long it is watched.
    pub bake: Node<Span>,
    /// Canary observations by metric, without which it is not promoted.
    #[serde(default)]
    pub min_samples: BTreeMap<String, Node<u64>>,
    /// When on_deadline happens, counted as bake is.
    pub deadline: Option<Node<Span>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepBody {
    /// Share of traffic that the canary serves.
    pub to: Node<Exposed>,
    /// How long the step is watched; needed for every step but the last.
    pub bake: Option<Node<Span>>,
    /// Canary observations by metric, without which the step is not promoted.
    #[serde(default)]
    pub min_samples: BTreeMap<String, Node<u64>>,
    /// When on_deadline happens, counted as bake is.
    pub deadline: Option<Node<Span>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalBody {
    /// The step that needs them.
    pub before: Node<Exposed>,
    /// How many persons.
    pub by: Node<u64>,
    /// Whether whoever submitted the change is not among them (default: false).
    pub not_submitter: Option<Node<bool>>,
}

/// A promotion needs one of allow open (if there is any), and none of deny and freeze on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowsBody {
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub allow: Vec<WindowBody>,
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub deny: Vec<WindowBody>,
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub freeze: Vec<FreezeBody>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowBody {
    /// When it opens, at most once an hour: second minute hour day month weekday.
    pub cron: Node<CronLine>,
    /// For how long, as time passes; 1m to 31d.
    pub duration: Node<Span>,
    /// Of the cron line: a name of the time zone database.
    pub tz: Node<Zone>,
    /// What it is called.
    pub reason: Option<Node<Name>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeBody {
    /// Local time, as in 2026-12-18T00:00.
    pub from: Node<LocalTime>,
    pub to: Node<LocalTime>,
    /// Of both: a name of the time zone database.
    pub tz: Node<Zone>,
    /// What it is called.
    pub reason: Option<Node<Name>>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceBody {
    /// Evidence of harm that rolls back: 20 rolls at most 1 of 20 healthy canaries back (default: 20).
    pub rollback: Option<Node<f64>>,
    /// Evidence of safety that a step needs (default: 5).
    pub promote: Option<Node<f64>>,
    /// Evidence of safety that the step to 100% needs (default: 20).
    pub promote_last: Option<Node<f64>>,
    /// Evidence that traffic is not split as asked for, of kind split (default: 1000).
    pub split: Option<Node<f64>>,
    /// What is served in this time after a step was applied is not compared (default: 0s).
    pub warm_up: Option<Node<Span>>,
    /// Requests of this much time are compared with each other (default: 1m).
    pub cohort: Option<Node<Span>>,
    /// Baseline observations before anything is compared (default: 500).
    pub reference_min: Option<Node<u64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardrailBody {
    pub metric: Node<MetricName>,
    pub kind: Node<GuardrailKind>,
    /// Default: the metric's name, with .absolute for kind absolute and .stop for kind stop.
    pub name: Option<Node<MetricName>>,
    /// Which way is good; needed but for the kinds absolute, count, missing and stop (there: lower) and split.
    pub better: Option<Node<Better>>,
    /// How much worse than the baseline is accepted. Not for the kinds absolute, split and stop.
    pub limit: Option<At<Limit>>,
    /// Kind quantile: which one, as 0.95.
    pub q: Option<Node<f64>>,
    /// Kind missing: the metric that every request has.
    pub of: Option<Node<MetricName>>,
    /// The tag by whose values the guardrail is shown in slices, or a map that says which of them are judged.
    pub slices: Option<At<Short<MetricName, SlicesBody>>>,
    /// A benefit that turns a rollback by this guardrail into a hold.
    pub unless: Option<UnlessBody>,
    /// Kind absolute: the share of bad ones that is too much.
    pub above: Option<Node<Percent>>,
    /// Kind absolute: of how many of the last canary observations.
    pub of_last: Option<Node<u64>>,
    /// Kind stop: how often it may happen in the whole rollout (default: 0).
    pub allowed: Option<Node<u64>>,
    /// How long after the request its value may arrive (default: 0s).
    pub maturity: Option<Node<Span>>,
    pub on_fail: Node<OnFail>,
    /// Share of the error budget of rollbacks; all of them sum to 1 (default: equal shares).
    pub weight: Option<Node<f64>>,
    /// Whether a promotion needs the metric shown safe (default: where it rolls back).
    pub gates: Option<Node<bool>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlicesBody {
    pub tag: Node<MetricName>,
    /// The values that are judged, each for itself.
    #[schemars(length(min = 1, max = 16))]
    pub values: At<Vec<Node<TagValue>>>,
    /// What happens when one of them is beyond the guardrail's limit: hold or alert.
    pub on_fail: Node<OnFail>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnlessBody {
    /// The guardrail (kinds proportion, score and paired) whose metric must be shown better than the baseline's.
    pub benefit: Option<Node<MetricName>>,
    /// By more than this.
    pub by: Option<Node<Points>>,
    /// Instead of both: a CEL expression over what the guardrails observe.
    #[schemars(length(max = 1000))]
    pub when: Option<Node<String>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionBody {
    /// What people call it.
    pub name: Node<Label>,
    /// A CEL expression over what the guardrails observe.
    #[schemars(length(max = 1000))]
    pub when: Node<String>,
    /// `hold` or `alert`, as long as it holds.
    pub on: Node<OnFail>,
}

/// `3pp`, `10%` or `{ratio: 1.5, plus: 0.1pp}`.
pub enum Limit {
    Text(String),
    Ratio { ratio: Option<Node<f64>>, plus: Option<Node<Points>> },
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Limit, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("3pp, 10% or {ratio: 1.5, plus: 0.1pp}")
            }

            fn visit_str<E>(self, text: &str) -> Result<Limit, E> {
                Ok(Limit::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limit, A::Error> {
                let (mut ratio, mut plus) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "ratio" => ratio = Some(map.next_value()?),
                        "plus" => plus = Some(map.next_value()?),
                        other => return Err(serde::de::Error::unknown_field(other, &["ratio", "plus"])),
                    }
                }
                Ok(Limit::Ratio { ratio, plus })
            }
        }
        input.deserialize_any(Form)
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (percent, points) = (Percent::schema(generator), Points::schema(generator));
        json_schema!({"anyOf": [percent, points, {
            "type": "object",
            "properties": {"ratio": {"type": "number"}, "plus": points},
            "required": ["ratio"],
            "additionalProperties": false,
        }]})
    }
}

impl<'de, S, T: Deserialize<'de>> Deserialize<'de> for Short<S, T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Short<S, T>, D::Error> {
        struct Form<S, T>(PhantomData<(S, T)>);
        impl<'de, S, T: Deserialize<'de>> Visitor<'de> for Form<S, T> {
            type Value = Short<S, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name or a map that says more")
            }

            fn visit_str<E>(self, text: &str) -> Result<Short<S, T>, E> {
                Ok(Short::Text(text.to_owned(), PhantomData))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Short<S, T>, A::Error> {
                let body = T::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Short::Map(Box::new(body)))
            }
        }
        input.deserialize_any(Form(PhantomData))
    }
}

impl<S: Scalar, T: JsonSchema> JsonSchema for Short<S, T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Short".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (text, map) = (S::schema(generator), generator.subschema_for::<T>());
        json_schema!({"anyOf": [text, map]})
    }
}
