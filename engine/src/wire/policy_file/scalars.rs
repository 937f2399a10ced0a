//! The words and names of a policy file: how each is spelled.

use schemars::{Schema, SchemaGenerator, json_schema};

use crate::core::event::code::Code;
use crate::core::ids::Weight;
use crate::core::policy::actuator::OnDeadline;
use crate::core::policy::guardrail::{Better, GuardrailKind, OnFail};
use crate::core::policy::segment::OnSegmentFailure;
use crate::core::policy::{ChangeKind, Concurrency, Retry};
use crate::core::time::Span;
use crate::windows;
use crate::wire::error::{did_you_mean, shown};
use crate::wire::names;
use crate::wire::telemetry::UNIT_MAX;
use crate::wire::yaml::{Percent, Scalar, Unfit, stamp, words};

/// Kinds of guardrail that this version does not read.
const KINDS_NOT_YET: [&str; 3] = ["survival", "distribution", "cel"];

/// What is wrong with a cron line, a zone or a local time is found with its place in `check`.
pub struct CronLine(pub String);
pub struct Zone(pub String);
pub struct LocalTime(pub String);

/// A few words of a person.
pub struct Name(pub String);

pub struct ApiVersion;
pub struct PolicyKind;

/// A name as [`names::label`] has it.
pub struct Label(pub String);

/// A name as [`names::metric`] has it.
#[derive(Clone)]
pub struct MetricName(pub String);

/// What a sample's tag may say.
pub struct TagValue(pub String);

/// Where messages go, as [`names::subject`] has it.
pub struct Subject(pub String);

/// Text of 1 to 200 characters, none of them hidden.
pub struct Words(pub String);

/// A share of traffic above none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exposed(pub Weight);

/// A time of a second or more.
#[derive(Clone, Copy)]
pub struct Lasting(pub Span);

/// At which steps a smoke test runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SmokeAt {
    First,
    Every,
}

words!(GuardrailKind, &KINDS_NOT_YET, "proportion" => GuardrailKind::Proportion, "score" => GuardrailKind::Score,
    "mean" => GuardrailKind::Mean, "quantile" => GuardrailKind::Quantile, "paired" => GuardrailKind::Paired,
    "count" => GuardrailKind::Count, "split" => GuardrailKind::Split, "missing" => GuardrailKind::Missing,
    "absolute" => GuardrailKind::Absolute, "stop" => GuardrailKind::Stop);
words!(Better, &[], "higher" => Better::Higher, "lower" => Better::Lower);
words!(OnFail, &[], "rollback" => OnFail::Rollback, "hold" => OnFail::Hold, "alert" => OnFail::Alert);
words!(OnSegmentFailure, &[], "all" => OnSegmentFailure::All, "alone" => OnSegmentFailure::Alone);
words!(SmokeAt, &[], "first" => SmokeAt::First, "every" => SmokeAt::Every);
words!(OnDeadline, &[], "hold" => OnDeadline::Hold, "rollback" => OnDeadline::Rollback);
words!(Concurrency, &[], "queue" => Concurrency::Queue, "refuse" => Concurrency::Refuse,
    "supersede" => Concurrency::Supersede);
words!(Retry, &[], "needs_finding" => Retry::NeedsFinding, "allowed" => Retry::Allowed);
words!(ChangeKind, &[], "model" => ChangeKind::Model, "prompt" => ChangeKind::Prompt,
    "vector_store" => ChangeKind::VectorStore, "cache" => ChangeKind::Cache, "serving" => ChangeKind::Serving);

stamp!(ApiVersion, "sluice.dev/v1");
stamp!(PolicyKind, "RolloutPolicy");

impl Scalar for Label {
    fn parse(text: &str) -> Result<Label, Unfit> {
        names::label("", text).map(Label).map_err(|error| Unfit { code: Code::PolicyName, ..error.into() })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,62}$"})
    }
}

impl Scalar for Subject {
    fn parse(text: &str) -> Result<Subject, Unfit> {
        let subject =
            names::subject("", text).map_err(|error| Unfit { code: Code::PolicyName, ..error.into() })?;
        Ok(Subject(subject))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": names::SUBJECT_MAX, "pattern": "^[^ .*>$_][^ .*>]*([.][^ .*>]+)*$"})
    }
}

impl Scalar for MetricName {
    fn parse(text: &str) -> Result<MetricName, Unfit> {
        let metric =
            names::metric("", text).map_err(|error| Unfit { code: Code::PolicyName, ..error.into() })?;
        Ok(MetricName(metric.0))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[a-z][a-z0-9_.]{0,62}$"})
    }
}

impl Scalar for TagValue {
    fn parse(text: &str) -> Result<TagValue, Unfit> {
        if text.contains([',', '=']) {
            let message = "the value of a tag has no , and no =".into();
            return Err(Unfit { code: Code::PolicyName, message });
        }
        let value = names::prose("", text, UNIT_MAX);
        value.map(TagValue).map_err(|error| Unfit { code: Code::PolicyName, ..error.into() })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": UNIT_MAX, "pattern": "^[^,=]+$"})
    }
}

impl Scalar for CronLine {
    fn parse(text: &str) -> Result<CronLine, Unfit> {
        Ok(CronLine(text.to_owned()))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]+ +[0-9]+ +[^ ]+ +[^ ]+ +[^ ]+ +[^ ]+( +[^ ]+)?$"})
    }
}

impl Scalar for Zone {
    fn parse(text: &str) -> Result<Zone, Unfit> {
        if windows::zone(text).is_some() {
            return Ok(Zone(text.to_owned()));
        }
        let zones = windows::zones();
        let near = zones.iter().find(|zone| zone.eq_ignore_ascii_case(text)).map(String::as_str);
        let near = near.or_else(|| did_you_mean(text, zones.iter().map(String::as_str)));
        let hint = match near {
            Some(zone) => format!("did you mean {zone}?"),
            None => "expected a name such as Europe/Berlin or UTC".into(),
        };
        Err(Unfit { code: Code::TimeZone, message: format!("there is no time zone {}; {hint}", shown(text)) })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

impl Scalar for LocalTime {
    fn parse(text: &str) -> Result<LocalTime, Unfit> {
        let wrong = |why| Unfit { code: Code::FreezeTime, message: format!("is {}; {why}", shown(text)) };
        windows::local(text).map(|_| LocalTime(text.to_owned())).map_err(wrong)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?$"})
    }
}

impl Scalar for Name {
    fn parse(text: &str) -> Result<Name, Unfit> {
        names::prose("", text, names::BY_MAX)
            .map(Name)
            .map_err(|error| Unfit { code: Code::PolicyName, ..error.into() })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": names::BY_MAX})
    }
}

impl Scalar for Words {
    fn parse(text: &str) -> Result<Words, Unfit> {
        names::prose("", text, 200).map(Words).map_err(|error| error.into())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": 200})
    }
}

impl Scalar for Lasting {
    fn parse(text: &str) -> Result<Lasting, Unfit> {
        match Span::parse(text)? {
            span if span < Span::secs(1) => {
                Err(Unfit { code: Code::FileValue, message: format!("must be 1s or more, got {span}") })
            }
            span => Ok(Lasting(span)),
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        Span::schema(generator)
    }
}

impl Scalar for Exposed {
    fn parse(text: &str) -> Result<Exposed, Unfit> {
        let Percent(share) = Percent::parse(text)?;
        let wrong =
            |what: &str| Err(Unfit { code: Code::Exposure, message: format!("{} is {what}", shown(text)) });
        // Hundredths of a percent are what a command carries.
        let weight = share * 10_000.0;
        if share > 1.0 {
            wrong("over 100%")
        } else if share == 0.0 {
            wrong("no exposure; steps begin above 0%")
        } else if (weight - weight.round()).abs() > 1e-6 {
            wrong("finer than 0.01%")
        } else {
            Ok(Exposed(Weight(weight.round() as u16)))
        }
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        Percent::schema(generator)
    }
}
