//! Metrics summed by the sender: `{"n","k"}`, `{"n","sum","sumsq"}` or `{"n","le":{..,"inf":n}}`.

use std::collections::BTreeMap;

use super::values::{Part, TimeShape, Value, number};
use crate::core::event::code::Code;
use crate::core::telemetry::columns::{Aggregate, Sums};
use crate::core::text;
use crate::wire::error::{shown, unknown};
use crate::wire::json::KEYS_MAX;
use crate::wire::names;

/// Most observations in one aggregate. All aggregates of many messages then add up in 64 bits, and every
/// count is exact in a double.
pub const COUNT_MAX: u64 = 1_000_000_000_000;
/// Most bounds of a histogram.
pub const BOUNDS_MAX: usize = 64;

/// Many requests, summed by the sender.
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "documents what `summaries` reads")]
#[schemars(deny_unknown_fields)]
pub struct AggregateShape {
    /// What served the requests.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    version: String,
    /// When the first was served.
    from: TimeShape,
    /// When the last was served.
    to: TimeShape,
    /// Identity of the message, so that its redelivery does not count again.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[!-~]+$"))]
    id: Option<String>,
    /// Sums by metric.
    #[schemars(extend("minProperties" = 1, "propertyNames" = {"pattern": "^[a-z][a-z0-9_.]{0,62}$"}))]
    m: BTreeMap<String, SumsShape>,
}

#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "documents what `summaries` reads")]
#[schemars(rename = "Sums", untagged, deny_unknown_fields)]
pub enum SumsShape {
    /// Of n zeros and ones, k are ones.
    Ones {
        n: u64,
        k: u64,
    },
    Moments {
        n: u64,
        sum: f64,
        sumsq: f64,
    },
    /// How many are at most each bound; `inf` counts all n.
    Histogram {
        n: u64,
        le: BTreeMap<String, u64>,
    },
}

pub struct Summary {
    pub metric: String,
    pub n: u64,
    pub sums: Sums,
}

/// Code, field below the sample, what is wrong.
pub type Fault = (Code, String, String);

/// The summaries that the value of `m` holds.
pub fn summaries(m: Part) -> Result<Vec<Summary>, Fault> {
    let metrics = fields("m", m)?;
    if metrics.is_empty() {
        return fault(Code::NoMetric, "m", "has no metric");
    }
    metrics.into_iter().map(|(metric, sums)| summary(metric, sums)).collect()
}

fn summary(metric: String, sums: Part) -> Result<Summary, Fault> {
    if !names::is_metric(&metric) {
        let what = format!("{:?} is not a metric's name; use [a-z][a-z0-9_.]{{0,62}}", shown(&metric));
        return fault(Code::MetricName, "m", &what);
    }
    let path = format!("m.{metric}");
    let (mut n, mut k, mut sum, mut sumsq, mut le) = (None, None, None, None, None);
    for (field, value) in fields(&path, sums)? {
        let at = format!("{path}.{field}");
        match field.as_str() {
            "n" => n = Some(count(&at, &value)?),
            "k" => k = Some(count(&at, &value)?),
            "sum" => sum = Some(finite(&at, &value)?),
            "sumsq" => sumsq = Some(finite(&at, &value)?),
            "le" => le = Some(histogram(&at, value)?),
            _ => {
                return fault(
                    Code::UnknownField,
                    &path,
                    &unknown("field", &field, &["n", "k", "sum", "sumsq", "le"]),
                );
            }
        }
    }
    let Some(n) = n else { return fault(Code::FieldValue, &path, "required field n is missing") };
    let sums = match (k, sum, sumsq, le) {
        (Some(k), None, None, None) => Sums::Ones(k),
        (None, Some(sum), Some(sumsq), None) => Sums::Moments { sum, sumsq },
        (None, None, None, Some((bounds, counts))) => Sums::Histogram { bounds, counts },
        _ => return fault(Code::ImpossibleSum, &path, "beside n goes either k, or sum and sumsq, or le"),
    };
    check(n, &sums).map_err(|(code, what)| (code, path, what))?;
    Ok(Summary { metric, n, sums })
}

/// What makes sums impossible, however they came in.
pub fn check(n: u64, sums: &Sums) -> Result<(), (Code, String)> {
    if n == 0 || n > COUNT_MAX {
        return Err((Code::Count, format!("n must be 1 to {}, got {n}", text::count(COUNT_MAX))));
    }
    match sums {
        Sums::Ones(k) if *k > n => Err((Code::MoreThanAll, format!("k ({k}) exceeds n ({n})"))),
        // Cauchy and Schwarz, with room for the sender's rounding.
        Sums::Moments { sum, sumsq } if sum / n as f64 * sum > sumsq * (1.0 + 1e-9) => Err((
            Code::ImpossibleSum,
            format!("sumsq ({sumsq}) is too small for sum ({sum}) of n ({n}) values"),
        )),
        Sums::Histogram { bounds, counts } => {
            if bounds.len() > BOUNDS_MAX || counts.len() != bounds.len() {
                return Err((
                    Code::ImpossibleSum,
                    format!("le must have 1 to {BOUNDS_MAX} bounds, each with a count"),
                ));
            }
            if bounds.last() != Some(&f64::INFINITY) || counts.last() != Some(&n) {
                return Err((
                    Code::ImpossibleSum,
                    format!("le must end with \"inf\": {n}, which counts all n"),
                ));
            }
            if !bounds.is_sorted_by(|a, b| a < b) {
                return Err((Code::ImpossibleSum, "le has a bound twice or out of order".to_owned()));
            }
            if !counts.is_sorted() {
                return Err((
                    Code::ImpossibleSum,
                    "le is cumulative: counts must not fall as bounds rise".to_owned(),
                ));
            }
            Ok(())
        }
        Sums::Ones(_) | Sums::Moments { .. } => Ok(()),
    }
}

fn histogram(path: &str, le: Part) -> Result<(Vec<f64>, Vec<u64>), Fault> {
    let mut steps = Vec::new();
    for (bound, value) in fields(path, le)? {
        let at = if bound == "inf" {
            Some(f64::INFINITY)
        } else {
            bound.parse().ok().filter(|b: &f64| b.is_finite())
        };
        let Some(at) = at else {
            let what = format!("bound {:?} is not a number or inf", shown(&bound));
            return fault(Code::ImpossibleSum, path, &what);
        };
        steps.push((at, count(&format!("{path}.{bound}"), &value)?));
    }
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(steps.into_iter().unzip())
}

fn count(path: &str, value: &Part) -> Result<u64, Fault> {
    match value {
        Part::Scalar(Value::Unsigned(n)) if *n <= COUNT_MAX => Ok(*n),
        Part::Scalar(Value::Unsigned(n)) => {
            fault(Code::Count, path, &format!("{n} is over the limit {}", text::count(COUNT_MAX)))
        }
        Part::Scalar(Value::Signed(n)) => fault(Code::Count, path, &format!("must be 0 or more, got {n}")),
        Part::Scalar(Value::Float(n)) => {
            fault(Code::Count, path, &format!("must be a whole number, got {n}"))
        }
        _ => fault(Code::Count, path, "must be a whole number"),
    }
}

fn finite(path: &str, value: &Part) -> Result<f64, Fault> {
    let result = match value {
        Part::Scalar(value) => number(*value),
        Part::Text(_) => number(Value::Text),
        Part::Map(_) => number(Value::Nested),
    };
    result.or_else(|(code, what)| fault(code, path, &what))
}

/// The fields of an object, none twice.
pub fn fields(path: &str, part: Part) -> Result<Vec<(String, Part)>, Fault> {
    let Part::Map(fields) = part else { return fault(Code::NotANumber, path, "expected an object") };
    if fields.len() > KEYS_MAX {
        return fault(Code::TooManyFields, path, &format!("more than {KEYS_MAX} fields in one object"));
    }
    for (i, (name, _)) in fields.iter().enumerate() {
        if fields[..i].iter().any(|(earlier, _)| earlier == name) {
            return fault(Code::GivenTwice, path, &format!("field {} appears twice", shown(name)));
        }
    }
    Ok(fields)
}

fn fault<T>(code: Code, path: &str, what: &str) -> Result<T, Fault> {
    Err((code, path.to_owned(), what.to_owned()))
}

/// An upper bound of the bytes one takes in the log.
pub fn stored_size(aggregate: &Aggregate) -> usize {
    match &aggregate.sums {
        Sums::Histogram { bounds, counts } => 96 + 9 * (bounds.len() + counts.len()),
        _ => 96,
    }
}
