//! Sound policies, and how a person would write each.

use std::collections::BTreeMap;
use std::fmt::Write;

use proptest::prelude::*;
use sluice::core::ids::{Actuator, Metric, Scope, Weight};
use sluice::core::policy::actuator::*;
use sluice::core::policy::guardrail::*;
use sluice::core::policy::windows::*;
use sluice::core::policy::*;
use sluice::core::time::Span;

const METRICS: [&str; 4] = ["eval_pass", "error", "cost_usd", "a.b_1"];
const HOUR: u64 = 3_600_000;

/// A share in hundredths of a percent, as the file's decimals give it.
fn share(hundredths: u32) -> f64 {
    f64::from(hundredths) / 100.0 / 100.0
}

fn span(min_ms: u64, max_ms: u64) -> impl Strategy<Value = Span> {
    let whole = (min_ms / 1_000).max(1)..=max_ms / 1_000;
    prop_oneof![(min_ms..=max_ms).prop_map(Span), whole.prop_map(Span::secs)]
}

/// A guardrail that is not an absolute one; its weight comes later.
fn any_guardrail() -> impl Strategy<Value = Guardrail> {
    let margin = (0u8..3, any::<bool>(), 1u32..9_999, 0u32..500).prop_map(|(form, higher, n, plus)| {
        let better = if higher { Better::Higher } else { Better::Lower };
        let ratio = if higher { share(n) } else { 1.0 + share(n) };
        let margin = match form {
            0 => Margin::Points(share(n)),
            1 => Margin::Relative(share(n)),
            _ => Margin::Ratio { ratio, plus: share(plus) },
        };
        (better, margin)
    });
    let rest = (0..METRICS.len(), 0usize..6, span(0, HOUR / 2), 0usize..3, any::<bool>());
    (margin, rest).prop_map(|((better, margin), (metric, kind, maturity, on_fail, gates))| {
        let rule = match (kind, margin) {
            (0, Margin::Relative(handicap)) => Rule::Mean(Mean { handicap }),
            (1, Margin::Relative(handicap)) => Rule::Quantile(Quantile { q: 0.95, handicap }),
            (2, Margin::Points(points)) => Rule::Paired(Paired { points }),
            (3, Margin::Ratio { ratio, .. }) => Rule::Count(Count { ratio }),
            (4, margin) => Rule::Score(Score { margin }),
            (5, Margin::Points(points)) => {
                Rule::Missing(Missing { of: Metric::from(METRICS[(metric + 1) % METRICS.len()]), points })
            }
            (5, Margin::Relative(_)) => Rule::Split,
            (_, margin) => Rule::Proportion(Proportion { margin }),
        };
        let shows_safety = !matches!(rule, Rule::Split | Rule::Missing { .. });
        Guardrail {
            name: String::new(),
            metric: Metric::from(METRICS[metric]),
            better,
            rule,
            maturity,
            on_fail: [OnFail::Rollback, OnFail::Hold, OnFail::Alert]
                [if shows_safety { on_fail } else { on_fail.max(1) }],
            weight: 0.0,
            gates: gates && shows_safety,
            slices: None,
            judged: None,
            unless: None,
            benefit: None,
        }
    })
}

fn any_absolute() -> impl Strategy<Value = Guardrail> {
    (0..METRICS.len(), any::<bool>(), 1u32..9_999, 1u32..=10_000, 0usize..3).prop_map(
        |(metric, higher, above, of_last, on_fail)| Guardrail {
            name: String::new(),
            metric: Metric::from(METRICS[metric]),
            better: if higher { Better::Higher } else { Better::Lower },
            rule: Rule::Absolute(Absolute { above: share(above), of_last }),
            maturity: Span::ZERO,
            on_fail: [OnFail::Rollback, OnFail::Hold, OnFail::Alert][on_fail],
            weight: 0.0,
            gates: false,
            slices: None,
            judged: None,
            unless: None,
            benefit: None,
        },
    )
}

fn any_stop() -> impl Strategy<Value = Guardrail> {
    (0..METRICS.len(), 0u64..1_000).prop_map(|(metric, allowed)| {
        let rule = Rule::Stop(Stop { allowed });
        Guardrail { weight: 0.0, gates: false, ..Guardrail::new(METRICS[metric], Better::Lower, rule) }
    })
}

fn any_guardrails() -> impl Strategy<Value = Vec<Guardrail>> {
    let more = proptest::collection::vec(
        prop_oneof![4 => any_guardrail(), 4 => any_absolute(), 1 => any_stop()],
        0..5,
    );
    (any_guardrail(), more, any::<bool>()).prop_map(|(mut first, more, equal)| {
        // A promotion needs something to be seen, and something must be able to stop it.
        if !first.shows_safety() {
            first.rule = Rule::Proportion(Proportion { margin: Margin::Points(0.03) });
        }
        (first.gates, first.on_fail) = (true, OnFail::Rollback);
        let mut all = vec![first];
        all.extend(more);
        for (i, guardrail) in all.iter_mut().enumerate() {
            guardrail.name = format!("g{i}");
        }
        let mut sharing: Vec<&mut Guardrail> =
            all.iter_mut().filter(|g| g.on_fail == OnFail::Rollback && g.shows_safety()).collect();
        let n = sharing.len();
        for (i, guardrail) in sharing.iter_mut().enumerate() {
            let half = 0.5f64.powi(i as i32 + 1);
            guardrail.weight = match equal {
                true => 1.0 / n as f64,
                false if i + 1 == n => 2.0 * half,
                false => half,
            };
        }
        all
    })
}

fn limit(margin: Margin) -> String {
    match margin {
        Margin::Points(n) => format!("{}pp", percent(n)),
        Margin::Relative(n) => format!("{}%", percent(n)),
        Margin::Ratio { ratio, plus } => format!("{{ratio: {ratio}, plus: {}pp}}", percent(plus)),
    }
}

/// Weight, bake, how long after that the deadline is, samples by metric.
type Drawn = (u16, Span, Option<Span>, BTreeMap<usize, u64>);

fn any_steps() -> impl Strategy<Value = Vec<Drawn>> {
    let samples = proptest::collection::btree_map(0usize..METRICS.len(), 1u64..1 << 40, 0..3);
    let one = (1u16..=9_500, span(0, 48 * HOUR), prop::option::of(span(1, 48 * HOUR)), samples);
    proptest::collection::vec(one, 0..4)
}

pub fn any_policy() -> impl Strategy<Value = Policy> {
    let names = ("[a-z0-9][a-z0-9-]{0,62}", proptest::collection::btree_set("[a-z0-9][a-z0-9-]{0,62}", 1..4));
    let kinds = proptest::sample::subsequence(ChangeKind::ALL.to_vec(), 0..=5);
    let levels =
        (100u32..10_000_000, 100u32..10_000_000, 100u32..10_000_000, 1u64..=3_600, 20u32..=1_000_000);
    let times = (span(0, 90 * 24 * HOUR), span(1_000, HOUR), span(1_000, HOUR));
    let words = (any::<bool>(), any::<bool>(), proptest::collection::vec(1u8..=10, 0..5));
    (names, kinds, any_steps(), any_guardrails(), levels, times, words).prop_map(
        |((name, actuators), applies_to, steps, guardrails, levels, times, (hold, queue, approvers))| {
            let used: Vec<&Metric> = guardrails.iter().map(|g| &g.metric).collect();
            let mut by_weight = BTreeMap::new();
            for (to, bake, deadline, samples) in steps {
                let metrics = samples.into_iter().map(|(i, n)| (Metric::from(METRICS[i]), n));
                let min_samples = metrics.filter(|(metric, _)| used.contains(&metric)).collect();
                let deadline = deadline.map(|more| bake.plus(more));
                let step = Step { min_samples, deadline, ..Step::plain(Weight(to), bake) };
                by_weight.insert(to, step);
            }
            let mut steps: Vec<Step> = by_weight.into_values().collect();
            steps.push(Step::plain(Weight::FULL, Span::ZERO));
            let approvals: Vec<Approval> = steps
                .iter()
                .zip(approvers)
                .map(|(step, by)| Approval { before: step.to, by, not_submitter: queue })
                .collect();
            let level = |n: u32| 1.0 + f64::from(n) / 100.0;
            Policy {
                name,
                applies_to,
                significant: hold,
                parts_at_once: 1 + approvals.len().min(5) as u8,
                conditions: Vec::new(),
                steps,
                segments: None,
                ab: false,
                release: false,
                soak: times.0,
                keep_old: times.2,
                on_deadline: if hold { OnDeadline::Hold } else { OnDeadline::Rollback },
                guardrails,
                evidence: EvidenceRules {
                    rollback: level(levels.0),
                    promote: level(levels.1),
                    promote_last: level(levels.2),
                    split: level(levels.0),
                    warm_up: times.1,
                    cohort: Span::secs(levels.3),
                    reference_min: levels.4,
                },
                stale_after: times.1,
                approvals,
                windows: (hold && queue).then(some_windows),
                concurrency: if queue { Concurrency::Queue } else { Concurrency::Refuse },
                retry_after_rollback: if hold { Retry::NeedsFinding } else { Retry::Allowed },
                scopes: actuators.iter().map(|name| Scope(name.clone())).collect(),
                actuators: actuators.iter().map(|name| Actuator(name.clone())).collect(),
                ack_timeout: times.2,
                declared: actuators
                    .iter()
                    .filter(|_| queue)
                    .map(|name| (Actuator(name.clone()), some_actuator(times.1, hold)))
                    .collect(),
                effective: hold.then_some(Effective { within: times.1.plus(times.2), after: times.1 }),
                smoke: if queue { some_tests(times.2, hold) } else { Vec::new() },
            }
        },
    )
}

fn some_actuator(every: Span, hold: bool) -> Declared {
    Declared {
        subject: hold.then(|| "routers.eu.set".into()),
        ack_within: None,
        resend_every: Some(every),
        on_silent: if hold { OnDeadline::Hold } else { OnDeadline::Rollback },
    }
}

fn some_tests(timeout: Span, hold: bool) -> Vec<Smoke> {
    let command = Run::Command(vec!["/opt/golden".into(), "two words".into(), "$HOME; rm \"-rf\"".into()]);
    let test = |name: &str, run, first, on_fail| Smoke { name: name.into(), run, timeout, first, on_fail };
    let (some, other) = match hold {
        true => (OnDeadline::Hold, OnDeadline::Rollback),
        false => (OnDeadline::Rollback, OnDeadline::Hold),
    };
    vec![test("golden", command, hold, some), test("shake", Run::Request("tests.x".into()), !hold, other)]
}

/// What is written into the file as text stays text.
fn some_windows() -> Windows {
    let window = |cron: &str, reason: &str| Window {
        cron: cron.into(),
        duration: Span::hours(8),
        tz: "Europe/Berlin".into(),
        reason: reason.into(),
    };
    let [from, to] = ["2026-12-18T00:00", "2027-01-04T08:00"].map(String::from);
    Windows {
        allow: vec![window("0 0 9 * * MON-THU", "")],
        deny: vec![window("0 30 12 * * FRI", "no \"Fridays\"")],
        freeze: vec![Period { from, to, tz: "Asia/Kolkata".into(), reason: "holidays".into() }],
    }
}

/// A share as `5%` or `0.01%`, without its unit.
fn percent(share: f64) -> f64 {
    (share * 10_000.0).round() / 100.0
}

fn time(span: Span) -> String {
    let mut left = span.0;
    let mut text = String::new();
    for (unit, ms) in [("d", 24 * HOUR), ("h", HOUR), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left >= ms {
            write!(text, "{}{unit}", left / ms).unwrap();
            left %= ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}

fn list<T>(items: &[T], one: impl Fn(&T) -> String) -> String {
    format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The file of a policy.
pub fn text(policy: &Policy) -> String {
    let mut out = String::from("apiVersion: sluice.dev/v1\nkind: RolloutPolicy\n");
    let p = policy;
    write!(out, "metadata: {{name: \"{}\"}}\nspec:\n", p.name).unwrap();
    writeln!(out, "  applies_to: {}\n  exposure:\n    percent:", list(&p.applies_to, |kind| word(kind)))
        .unwrap();
    for (i, step) in p.steps.iter().enumerate() {
        write!(out, "      - {{to: {}", step.to).unwrap();
        if i + 1 < p.steps.len() {
            write!(out, ", bake: {}", time(step.bake)).unwrap();
        }
        if !step.min_samples.is_empty() {
            let samples: Vec<_> = step.min_samples.iter().map(|(m, n)| format!("{m}: {n}")).collect();
            write!(out, ", min_samples: {{{}}}", samples.join(", ")).unwrap();
        }
        if let Some(deadline) = step.deadline {
            write!(out, ", deadline: {}", time(deadline)).unwrap();
        }
        out.push_str("}\n");
    }
    writeln!(out, "    soak: {}\n  on_deadline: {}\n  guardrails:", time(p.soak), word(p.on_deadline))
        .unwrap();
    for g in &p.guardrails {
        write!(out, "    - {{name: {}, metric: {}, better: {}", g.name, g.metric, word(g.better)).unwrap();
        let rule = match &g.rule {
            Rule::Absolute(Absolute { above, of_last }) => {
                format!("kind: absolute, above: {}%, of_last: {of_last}", percent(*above))
            }
            Rule::Stop(Stop { allowed }) => format!("kind: stop, allowed: {allowed}"),
            Rule::Mean(Mean { handicap }) => format!("kind: mean, limit: {}%", percent(*handicap)),
            Rule::Quantile(Quantile { q, handicap }) => {
                format!("kind: quantile, q: {q}, limit: {}%", percent(*handicap))
            }
            Rule::Paired(Paired { points }) => format!("kind: paired, limit: {}pp", percent(*points)),
            Rule::Count(Count { ratio }) => format!("kind: count, limit: {{ratio: {ratio}}}"),
            Rule::Split => "kind: split".into(),
            Rule::Missing(Missing { of, points }) => {
                format!("kind: missing, of: {of}, limit: {}pp", percent(*points))
            }
            Rule::Score(Score { margin }) => format!("kind: score, limit: {}", limit(*margin)),
            Rule::Proportion(Proportion { margin }) => format!("kind: proportion, limit: {}", limit(*margin)),
        };
        write!(out, ", {rule}, on_fail: {}", word(g.on_fail)).unwrap();
        if g.compares().is_some() {
            write!(out, ", gates: {}, maturity: {}", g.gates, time(g.maturity)).unwrap();
        }
        if g.weight > 0.0 {
            write!(out, ", weight: {}", g.weight).unwrap();
        }
        out.push_str("}\n");
    }
    let e = &p.evidence;
    writeln!(
        out,
        "  evidence: {{rollback: {}, promote: {}, promote_last: {}, split: {}, warm_up: {}, cohort: {}, reference_min: {}}}",
        e.rollback,
        e.promote,
        e.promote_last,
        e.split,
        time(e.warm_up),
        time(e.cohort),
        e.reference_min
    )
    .unwrap();
    writeln!(out, "  stale_after: {}\n  ack_timeout: {}", time(p.stale_after), time(p.ack_timeout)).unwrap();
    writeln!(
        out,
        "  approvals: {}",
        list(&p.approvals, |a| format!(
            "{{before: {}, by: {}, not_submitter: {}}}",
            a.before, a.by, a.not_submitter
        ))
    )
    .unwrap();
    writeln!(out, "  concurrency: {}\n  parts_at_once: {}", word(p.concurrency), p.parts_at_once).unwrap();
    writeln!(out, "  significant: {}", p.significant).unwrap();
    if let Some(windows) = &p.windows {
        let some = |all: &[Window]| {
            list(all, |w| {
                let reason =
                    if w.reason.is_empty() { String::new() } else { format!(", reason: '{}'", w.reason) };
                format!("{{cron: \"{}\", duration: {}, tz: {}{reason}}}", w.cron, time(w.duration), w.tz)
            })
        };
        writeln!(out, "  windows:\n    allow: {}\n    deny: {}", some(&windows.allow), some(&windows.deny))
            .unwrap();
        let freeze =
            |f: &Period| format!("{{from: {}, to: {}, tz: {}, reason: {}}}", f.from, f.to, f.tz, f.reason);
        writeln!(out, "    freeze: {}", list(&windows.freeze, freeze)).unwrap();
    }
    writeln!(out, "  keep_old: {}", time(p.keep_old)).unwrap();
    writeln!(out, "  scopes: {}", list(&p.scopes, |name| format!("\"{name}\""))).unwrap();
    writeln!(out, "  retry_after_rollback: {}", word(p.retry_after_rollback)).unwrap();
    let actuator = |name: &Actuator| match p.declared.get(name) {
        None => format!("\"{name}\""),
        Some(d) => {
            let every = d.resend_every.map(|every| format!(", resend_every: {}", time(every)));
            let subject = d.subject.as_ref().map(|subject| format!(", subject: {subject}"));
            let (every, subject) = (every.unwrap_or_default(), subject.unwrap_or_default());
            format!("{{name: \"{name}\"{every}{subject}, on_silent: {}}}", word(d.on_silent))
        }
    };
    writeln!(out, "  actuators: {}", list(&p.actuators, actuator)).unwrap();
    if let Some(Effective { within, after }) = p.effective {
        writeln!(out, "  effective: {{within: {}, after: {}}}", time(within), time(after)).unwrap();
    }
    let test = |t: &Smoke| {
        let run = match &t.run {
            Run::Command(argv) => format!("command: {}", serde_json::json!(argv)),
            Run::Request(subject) => format!("request: {subject}"),
        };
        let at = if t.first { "first" } else { "every" };
        let (timeout, on_fail) = (time(t.timeout), word(t.on_fail));
        format!("{{name: {}, {run}, timeout: {timeout}, at: {at}, on_fail: {on_fail}}}", t.name)
    };
    writeln!(out, "  smoke: {}", list(&p.smoke, test)).unwrap();
    out
}
