//! The evidence behind an event, worked out again, is what was recorded; and what is not is told.

use sluice::core::event::Event;
use sluice::retrace::{Retrace, RetraceError, Tracer, subject};
use sluice::sim::script;
use sluice::wire::policy_file;

fn history(name: &str) -> Vec<script::Entry> {
    let path = format!("{}/tests/scenarios/{name}.scn", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("the scenario");
    let [policy, commands, _] = script::parts(&text).expect("its parts");
    let parsed = policy_file::parse_policy(policy, name).expect("its policy");
    script::run(parsed, policy, commands, 7).expect("it runs").1
}

fn trace(history: &[script::Entry], at: usize, guardrail: Option<&str>) -> Result<Retrace, RetraceError> {
    let (seq, _, event) = &history[at];
    let mut tracer = Tracer::new(subject(*seq, event, guardrail)?);
    history[..=at].iter().for_each(|(seq, at, event)| tracer.next(*seq, *at, event));
    Ok(tracer.finish())
}

/// Of the harm and safety of every factor, the product is the whole.
fn check(trace: &Retrace) {
    assert_eq!(trace.differs_at, None);
    let factors = |of: fn(&sluice::retrace::Factor) -> [f64; 2]| {
        let moved = trace.cohorts.iter().map(|f| of(f)[1] - of(f)[0]).sum::<f64>();
        let start = trace.cohorts.iter().find(|f| f.harm_ln[0] != 0.0 || f.harm_ln[1] != 0.0);
        (moved, start.map_or(0.0, |f| of(f)[0]))
    };
    for (ln, (moved, start)) in [
        (trace.evidence.harm.ln(), factors(|f| f.harm_ln)),
        (trace.evidence.safe.ln(), factors(|f| f.safe_ln)),
    ] {
        assert!((ln - start - moved).abs() < 1e-9, "{ln} is not {start} + {moved}");
    }
}

#[test]
fn every_kind_of_evidence_is_worked_out_again() {
    for name in [
        "worse_model_is_rolled_back",
        "slower_tail_rolls_back",
        "worse_grades_roll_back",
        "pairs_decide_on_few_answers",
        "more_complaints_roll_back",
    ] {
        let history = history(name);
        let fails = |entry: &script::Entry| matches!(&entry.2, Event::DecisionMade { decision, .. } if !decision.because.is_empty());
        let decided = history.iter().position(fails).expect("a decision with a reason");
        let traced = trace(&history, decided, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&traced);
        let reading = traced.reading.expect("a decision holds readings");
        assert_eq!(reading.harm_ln, traced.evidence.harm.ln(), "{name}");
        assert!(traced.cohorts.len() > 1 && !traced.blocks.is_empty(), "{name}");
        let scored = history[..decided].iter().rposition(|e| matches!(e.2, Event::CohortScored { .. }));
        check(&trace(&history, scored.expect("a cohort"), None).expect("evidence"));
    }
}

#[test]
fn a_changed_fact_is_told_by_the_first_event_that_it_makes_differ() {
    let mut history = history("worse_model_is_rolled_back");
    let mut scored = history.iter().enumerate().filter_map(|(i, (_, _, event))| match event {
        Event::CohortScored { guardrail, scored, .. } if guardrail == "eval_pass" => {
            (!scored.reference_only).then_some(i)
        }
        _ => None,
    });
    let (first, second) = (scored.next().expect("a cohort"), scored.next().expect("another"));
    let between = (first..second).rev().find(|i| matches!(history[*i].2, Event::BatchReceived { .. }));
    let batch = between.expect("telemetry between them");
    // One batch of telemetry is gone from the record.
    let columns = match &mut history[batch].2 {
        Event::BatchReceived { columns, .. } => columns,
        _ => unreachable!(),
    };
    *columns = sluice::core::columns::Builder::new(columns.base).finish();
    let traced = trace(&history, second, None).expect("evidence");
    assert_eq!(traced.differs_at, Some(history[second].0));
}

#[test]
fn an_event_without_evidence_says_so() {
    let history = history("worse_model_is_rolled_back");
    assert!(matches!(trace(&history, 0, None), Err(RetraceError::NoEvidence(1, "log.created"))));
    let decided = history.iter().position(|e| matches!(e.2, Event::DecisionMade { .. })).expect("a decision");
    assert!(matches!(trace(&history, decided, None), Err(RetraceError::Which(..))));
    let wrong = trace(&history, decided, Some("nonsense"));
    assert!(matches!(wrong, Err(RetraceError::NoGuardrail(..))), "{wrong:?}");
}
