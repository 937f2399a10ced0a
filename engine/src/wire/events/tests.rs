use std::collections::BTreeSet;

use super::*;
use crate::core::event::alert::*;
use crate::core::event::bundle::{Commit, Composition, Part};
use crate::core::event::code::Code;
use crate::core::event::command::*;
use crate::core::event::decision::*;
use crate::core::event::fact::*;
use crate::core::event::reading::Silence;
use crate::core::event::rollout_spec::*;
use crate::core::event::smoke::SmokeOutcome;
use crate::core::event::windows::{Bounds, Freeze};
use crate::core::event::*;
use crate::core::evidence::interval::Range;
use crate::core::evidence::score::Evidence;
use crate::core::evidence::verdict::Verdict;
use crate::core::ids::{SmokeId, Weight};
use crate::core::policy::actuator::*;
use crate::core::policy::condition::Expression;
use crate::core::policy::guardrail::{GuardrailKind, *};
use crate::core::policy::segment::*;
use crate::core::policy::windows::*;
use crate::core::policy::*;
use crate::core::telemetry::arm::*;
use crate::core::telemetry::columns::{Row, Sums};
use crate::core::time::Span;

fn reference() -> Reference {
    Reference {
        theta: 0.9,
        variance: 0.09,
        cap: Some(1.5),
        threshold: Some(900.0),
        n: 500,
        harm_grid: vec![0.1],
        safe_grid: vec![0.2, 0.3],
        secondary_grid: vec![0.4],
    }
}

fn reading() -> GuardrailReading {
    GuardrailReading {
        name: "eval_pass".into(),
        metric: "eval_pass".into(),
        kind: GuardrailKind::Proportion,
        on_fail: OnFail::Rollback,
        verdict: Verdict::Undecided,
        baseline: ArmCount { n: 3, sum: 2.0 },
        canary: ArmCount::default(),
        range: Some(Range { diff: -0.25, lo: -0.5, hi: 0.0 }),
        harm_ln: f64::MIN_POSITIVE,
        harm_need_ln: 2.5,
        safe_ln: -0.0,
        safe_need_ln: f64::NEG_INFINITY,
        limit: Some(-0.03),
        waiting: 7,
        left_out: 3,
        clamped: 4,
        late: 1,
        reference: Some(reference()),
        epoch: 2,
        blocks: 11,
        estimate: Some(1.25),
        excused: Some("eval_pass".into()),
        accepted: Some("maya".into()),
        benefit_ln: Some(3.0),
        excused_when: Some("g.diff > 2".into()),
        silence: Some(Silence {
            canary: "v@2".into(),
            canary_for: Some(Span::mins(16)),
            baseline: "v@1".into(),
            baseline_for: None,
        }),
    }
}

fn segment() -> Segment {
    Segment { name: "beta".into(), attribute: "plan".into(), test: Test::EndsWith("-beta".into()) }
}

fn composition() -> Composition {
    let git = Commit { repository: "r".into(), path: "p.md".into(), commit: "1a".into() };
    Composition { parts: [(Part::Prompt, "p@1".into())].into(), git: Some(git) }
}

fn policy() -> Policy {
    let guardrail = |rule| Guardrail {
        name: "g".into(),
        metric: "m".into(),
        better: Better::Lower,
        rule,
        maturity: Span::mins(1),
        on_fail: OnFail::Hold,
        weight: 0.5,
        gates: true,
        slices: Some("suite".into()),
        judged: Some(Judged { values: vec!["refunds".into(), "billing".into()], on_fail: OnFail::Hold }),
        unless: Some(Unless::Benefit { guardrail: "eval_pass".into() }),
        benefit: Some(0.02),
    };
    Policy {
        name: "p".into(),
        applies_to: vec![ChangeKind::Model, ChangeKind::Prompt],
        significant: true,
        parts_at_once: 2,
        conditions: vec![Condition {
            name: "dear".into(),
            when: Expression::new("cost_usd.diff > 20").expect("sound"),
            on: OnFail::Alert,
        }],
        steps: vec![Step {
            to: Weight::FULL,
            segment: Some(1),
            task: Some(Task::Shadow),
            apply_within: Some(Span::mins(3)),
            bake: Span::hours(4),
            min_samples: [("m".into(), 400)].into(),
            deadline: None,
        }],
        segments: Some(Segments {
            kind: SegmentKind::Cohort,
            named: vec![segment()],
            rest: "general".into(),
            on_failure: OnSegmentFailure::Alone,
        }),
        ab: true,
        release: true,
        soak: Span::hours(24),
        keep_old: Span::hours(24),
        on_deadline: OnDeadline::Hold,
        guardrails: vec![
            guardrail(Rule::Proportion(Proportion { margin: Margin::Points(0.03) })),
            guardrail(Rule::Proportion(Proportion { margin: Margin::Ratio { ratio: 1.5, plus: 0.001 } })),
            guardrail(Rule::Mean(Mean { handicap: 0.1 })),
            guardrail(Rule::Score(Score { margin: Margin::Relative(0.03) })),
            guardrail(Rule::Quantile(Quantile { q: 0.95, handicap: 0.1 })),
            guardrail(Rule::Paired(Paired { points: 0.03 })),
            guardrail(Rule::Count(Count { ratio: 1.25 })),
            guardrail(Rule::Split),
            guardrail(Rule::Missing(Missing { of: "request".into(), points: 0.02 })),
            guardrail(Rule::Absolute(Absolute { above: 0.2, of_last: 200 })),
            guardrail(Rule::Stop(Stop { allowed: 2 })),
        ],
        evidence: EvidenceRules::default(),
        stale_after: Span::secs(60),
        approvals: vec![Approval { before: Weight::percent(50), by: 1, not_submitter: true }],
        concurrency: Concurrency::Queue,
        windows: Some(Windows {
            allow: vec![Window {
                cron: "0 0 9 * * MON-THU".into(),
                duration: Span::hours(8),
                tz: "Europe/Berlin".into(),
                reason: "office hours".into(),
            }],
            deny: vec![],
            freeze: vec![Period {
                from: "2026-12-18T00:00".into(),
                to: "2027-01-04T08:00".into(),
                tz: "UTC".into(),
                reason: String::new(),
            }],
        }),
        retry_after_rollback: Retry::NeedsFinding,
        scopes: vec!["gateway".into()],
        actuators: vec!["router".into()],
        ack_timeout: Span::secs(30),
        declared: [(
            "router".into(),
            Declared {
                subject: Some("routers.eu".into()),
                ack_within: Some(Span::mins(1)),
                resend_every: Some(Span::secs(10)),
                on_silent: OnDeadline::Rollback,
            },
        )]
        .into(),
        effective: Some(Effective { within: Span::mins(15), after: Span::secs(30) }),
        smoke: vec![
            Smoke {
                name: "golden".into(),
                run: Run::Command(vec!["/opt/golden".into(), "--fast".into()]),
                timeout: Span::mins(10),
                first: true,
                on_fail: OnDeadline::Hold,
            },
            Smoke {
                name: "handshake".into(),
                run: Run::Request("tests.handshake".into()),
                timeout: Span::secs(30),
                first: false,
                on_fail: OnDeadline::Rollback,
            },
        ],
    }
}

fn columns() -> Columns {
    let mut builder = crate::core::telemetry::columns::Builder::new(Timestamp(5));
    let (unit, tags) = (Some("user-1"), Some("region=eu"));
    builder.push(Row { version: "v@1", metric: "m", served_at: Timestamp(4), unit, tags, value: 0.1 });
    builder.aggregate("v@2", "m", Timestamp(0), Timestamp(9), 10, Sums::Ones(3));
    let histogram = Sums::Histogram { bounds: vec![1.0, f64::INFINITY], counts: vec![4, 9] };
    builder.aggregate("v@2", "m", Timestamp(0), Timestamp(9), 9, histogram);
    builder.finish()
}

/// One event of each kind, every optional field of its parts set somewhere.
fn one_of_each() -> Vec<Event> {
    let origin = || Origin {
        delivery: Some(Delivery { stream: Inbound::Telemetry, seq: 9, published: Some(Timestamp(7)) }),
        message_id: Some("m-1".into()),
        traceparent: Some("00-aa-bb-01".into()),
    };
    let rollout = || RolloutId::from("chat-1");
    let command = CommandId(Uuid::from_u128(77));
    let refusal = || Refusal::Over { rollout: rollout(), outcome: Outcome::RolledBack, at: 147 };
    let digest = Digest::of(b"x");
    let reasons = vec![
        Reason::Guardrail { name: "g".into() },
        Reason::Samples { metric: "m".into(), have: 1, need: 2 },
        Reason::Approvals { have: 0, need: 1 },
        Reason::Window { why: Some("weekend".into()), turns: Some(Timestamp(9)) },
        Reason::Frozen {
            service: None,
            by: "ann".into(),
            reason: "outage".into(),
            until: Some(Timestamp(9)),
        },
        Reason::ActuatorRejected { actuator: "router".into(), why: "no".into() },
        Reason::SoakOver,
        Reason::Condition { name: "dear".into(), known: true },
        Reason::Effective { to: Weight::percent(5), canary: 3, requests: 70, shown: false },
        Reason::Smoke {
            name: "golden".into(),
            outcome: Some(SmokeOutcome::Failed),
            detail: "3 of 40 differ".into(),
            within_ms: 600_000,
        },
    ];
    let smoke_id = SmokeId(Uuid::from_u128(78));
    vec![
        Event::SmokeFinished {
            result: SmokeResult {
                id: smoke_id,
                rollout: rollout(),
                name: "golden".into(),
                outcome: SmokeOutcome::TimedOut,
                detail: "37 of 40".into(),
                took_ms: 600_000,
            },
        },
        Event::SmokeAsked {
            rollout: rollout(),
            ask: SmokeAsk {
                id: smoke_id,
                name: "golden".into(),
                run: Run::Command(vec!["/opt/golden".into()]),
                timeout: Span::mins(10),
                service: "chat".into(),
                step: 1,
                from: "v@1".into(),
                to: "v@2".into(),
                attempt: 2,
            },
        },
        Event::EffectShown {
            rollout: rollout(),
            effect: Shown {
                command,
                to: Weight::percent(5),
                metric: "error".into(),
                canary: 51,
                requests: 1_000,
                took_ms: 61_000,
            },
        },
        Event::LogCreated { log: Uuid::from_u128(1), build: "0.1.0".into() },
        Event::DaemonStarted { build: "0.1.0".into() },
        Event::EngineAdopted { engine: ENGINE },
        Event::ClockStepped { by: Span::hours(1) },
        Event::PolicyStored { digest, policy: policy(), source: "a: b\n".into() },
        Event::IntentReceived {
            intent: Intent {
                id: "i".into(),
                service: "chat".into(),
                kind: ChangeKind::VectorStore,
                from: None,
                to: "v@2".into(),
                policy: Some("p".into()),
                by: "ann".into(),
                reason: "better".into(),
                finding: Some("the cache was cold".into()),
                scopes: vec!["vector-db".into()],
                significant: true,
                composition: composition(),
                from_composition: composition(),
                content: digest,
            },
            origin: origin(),
        },
        Event::BatchReceived { service: "chat".into(), columns: columns(), origin: Origin::default() },
        Event::AckReceived {
            ack: Ack {
                service: "chat".into(),
                command,
                actuator: "router".into(),
                status: AckStatus::Rejected("busy".into()),
                took_ms: Some(12),
                done: Some((980, 1_000)),
            },
            origin: origin(),
        },
        Event::OperatorActed {
            act: Act {
                rollout: rollout(),
                verb: Verb::Note,
                actor: "ann".into(),
                host: "h".into(),
                args: vec!["note".into(), "\u{1b}]0;x".into()],
                reason: String::new(),
                if_seq: Some(u64::MAX),
                force: true,
            },
            origin: origin(),
        },
        Event::InputRejected {
            rejection: Rejection {
                code: Code::Empty,
                message: "empty".into(),
                source: "sluice.v1.intent.chat".into(),
                bytes: 0,
                excerpt: String::new(),
            },
            origin: origin(),
        },
        Event::TimePassed,
        Event::WindowsComputed {
            policy: digest,
            bounds: Bounds {
                from: Timestamp(5),
                until: Timestamp(9),
                open: true,
                why: "window".into(),
                turns: Some(Timestamp(9)),
            },
        },
        Event::FreezeOrdered {
            order: FreezeOrder {
                freeze: true,
                service: Some("chat".into()),
                until: Some(Timestamp(9)),
                actor: "ann".into(),
                host: "h".into(),
                args: vec!["freeze".into()],
                reason: "outage".into(),
            },
            origin: origin(),
        },
        Event::FreezeStarted {
            freeze: Freeze {
                service: None,
                by: "ann".into(),
                reason: "outage".into(),
                since: Timestamp(5),
                until: None,
            },
        },
        Event::FreezeEnded { service: Some("chat".into()), by: None },
        Event::FreezeRefused { service: None, actor: "ann".into(), refusal: refusal() },
        Event::IntentRefused { intent: "i".into(), service: "chat".into(), refusal: refusal() },
        Event::RolloutCreated {
            rollout: rollout(),
            spec: RolloutSpec {
                intent: "i".into(),
                service: "chat".into(),
                kind: ChangeKind::Cache,
                from: "v@1".into(),
                to: "v@2".into(),
                policy_name: "p".into(),
                policy: digest,
                by: "ann".into(),
                reason: "better".into(),
                attempt: 2,
                finding: Some("the cache was cold".into()),
                scopes: vec!["vector-db".into()],
                composition: composition(),
                from_composition: composition(),
                behind: Some(rollout()),
                supersedes: vec![rollout()],
                engine: ENGINE,
                blocked: Some(Blocked { scope: "vector-db".into(), by: rollout() }),
                traceparent: None,
            },
        },
        Event::ActAccepted { rollout: rollout(), verb: Verb::Approve, actor: "ann".into() },
        Event::ActRefused {
            rollout: rollout(),
            verb: Verb::Promote,
            actor: "ann".into(),
            refusal: refusal(),
        },
        Event::ReferenceFrozen { rollout: rollout(), guardrail: "g".into(), reference: reference() },
        Event::CohortScored {
            rollout: rollout(),
            guardrail: "g".into(),
            cohort: Timestamp(60_000),
            scored: Box::new(Scored {
                step: 1,
                baseline: ArmCount::default(),
                canary: ArmCount::default(),
                reference_only: false,
                evidence: Evidence::default(),
            }),
        },
        Event::VerdictReached { rollout: rollout(), reading: reading() },
        Event::DecisionMade {
            rollout: rollout(),
            decision: Box::new(Decision {
                choice: Choice::Rollback,
                baseline: "v@1".into(),
                canary: "v@2".into(),
                step: Some(3),
                weight_from: Weight::percent(5),
                weight_to: Weight::ZERO,
                segment: Some("beta".into()),
                task: Some(Task::Release),
                back_to: Some(2),
                because: reasons,
                readings: vec![reading()],
                harm_ln: 3.5,
                policy: digest,
                engine: ENGINE,
                inputs: (1, 300),
                actor: None,
            }),
        },
        Event::CommandIssued {
            rollout: rollout(),
            command: Command {
                id: command,
                service: "chat".into(),
                decision: 9,
                baseline: "v@1".into(),
                canary: "v@2".into(),
                bundle: composition().parts,
                weight: Weight(33),
                segments: vec![SegmentShare { segment: segment(), weight: Weight::FULL }],
                task: Some(Task::Populate),
                actuators: vec!["router".into()],
            },
        },
        Event::CommandResent { rollout: rollout(), command, attempt: 2, actuators: vec!["router".into()] },
        Event::CommandApplied { rollout: rollout(), command },
        Event::AckRefused { command, actuator: "router".into(), refusal: refusal() },
        Event::AlertRaised {
            rollout: rollout(),
            alert: Alert::Deadline {
                step: 2,
                at: "25%".into(),
                after: Span::hours(4),
                first: Box::new(Grounds::of(
                    vec![Reason::Guardrail { name: "eval_pass".into() }],
                    &[reading()],
                )),
            },
        },
        Event::RolloutEnded { rollout: rollout(), outcome: Outcome::RolledBack },
    ]
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let mut seen = BTreeSet::new();
    for event in one_of_each() {
        let mut payload = vec![];
        let (kind, version) = encode(&event, &mut payload).unwrap();
        assert_eq!(name(kind), Some(event.kind()));
        assert_eq!(decode(kind, version, &payload).as_ref(), Ok(&event));
        seen.insert(kind);
        for cut in 0..payload.len() {
            assert!(decode(kind, version, &payload[..cut]).is_err(), "{} cut at {cut}", event.kind());
        }
        payload.push(0xc0);
        assert!(decode(kind, version, &payload).is_err(), "{} with a byte behind it", event.kind());
    }
    assert_eq!(seen, CODES.iter().copied().collect());
}

/// The stored form of version 1, whose names and codes are for ever.
#[test]
fn a_payload_is_a_map_of_the_fields_by_name() {
    let mut payload = vec![];
    let event = Event::CommandApplied { rollout: "r-1".into(), command: CommandId(Uuid::from_u128(0)) };
    assert_eq!(encode(&event, &mut payload).unwrap(), (30, 1));
    let stored = [b"\x82\xa7rollout\xa3r-1\xa7command\xc4\x10".as_slice(), &[0; 16]].concat();
    assert_eq!(payload, stored);
}

#[test]
fn what_this_build_does_not_know_is_named() {
    for (kind, version, text) in [
        (5, 99, "uses event version 99; this build reads 1 to 1"),
        (5, 0, "uses event version 0; this build reads 1 to 1"),
        (200, 1, "is of kind 200, which this build does not know; use a newer sluice"),
        (200, 99, "is of kind 200, which this build does not know; use a newer sluice"),
    ] {
        assert_eq!(decode(kind, version, &[0x80]).unwrap_err().to_string(), text);
    }
    let misspelt = b"\x81\xa5build\xa1x\x81";
    assert!(decode(2, 1, &misspelt[..9]).is_ok());
    let unknown = decode(2, 1, b"\x82\xa5build\xa1x\xa1y\x01").unwrap_err().to_string();
    assert_eq!(unknown, "holds a payload that does not decode: unknown field `y`, expected `build`");
}

/// The decoder's words may hold bytes of the payload.
#[test]
fn what_a_damaged_payload_says_is_short_and_inert() {
    let said = |payload: &[u8]| decode(2, 1, payload).unwrap_err().to_string();
    let unseen = said(b"\x81\xa3\xe2\x80\xae\xa1x");
    assert_eq!(unseen, r"holds a payload that does not decode: unknown field `\u{202e}`, expected `build`");
    let long = said(&[b"\x81\xda\xff\xff", vec![b'k'; 0xffff].as_slice(), b"\x01"].concat());
    assert!(long.len() < 320 && long.ends_with("kkk…"), "{long}");
}
