//! The evidence behind an event, worked out again, is what was recorded; and what is not is told.

use sluice::core::event::Event;
use sluice::core::event::decision::Choice;
use sluice::core::event::reading::GuardrailReading;
use sluice::core::evidence::score;
use sluice::core::evidence::verdict::Verdict;
use sluice::core::policy::guardrail::OnFail;
use sluice::evidence_trace::{EvidenceTrace, EvidenceTraceError, Factor, Snapshot, Tracer, subject};
use sluice::sim::script::Entry;
use sluice::view::evidence::EvidenceAnswer;

use crate::scenario::history;

#[track_caller]
fn find(history: &[Entry], what: impl Fn(&Event) -> bool) -> usize {
    history.iter().position(|entry| what(&entry.2)).expect("such an event")
}

fn stand(trace: &EvidenceTrace) -> &Snapshot {
    trace.stand.as_ref().expect("the facts lead to the event")
}

fn trace(history: &[Entry], at: usize, guardrail: Option<&str>) -> Result<EvidenceTrace, EvidenceTraceError> {
    let (seq, _, event) = &history[at];
    let mut tracer = Tracer::new(subject(*seq, event, guardrail)?);
    history[..=at].iter().for_each(|(seq, at, event)| tracer.next(*seq, *at, event));
    Ok(tracer.finish())
}

/// Of the harm and safety of every factor, the product is the whole; of the blocks of a cohort, the cohort's.
#[track_caller]
fn check(trace: &EvidenceTrace) {
    assert!(trace.differs.is_none(), "{:?}", trace.differs);
    let stand = stand(trace);
    let factors = |of: &dyn Fn(&Factor) -> [f64; 2]| {
        let moved = trace.cohorts.iter().map(|f| of(f)[1] - of(f)[0]).sum::<f64>();
        let start = trace.cohorts.iter().find(|f| of(f)[0] != 0.0 || of(f)[1] != 0.0);
        (moved, start.map_or(0.0, |f| of(f)[0]))
    };
    let same = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    for (ln, (moved, start)) in [
        (score::harm_ln(&stand.guardrail, &stand.evidence), factors(&|f| f.harm_ln)),
        (stand.evidence.safe.ln(), factors(&|f| f.safe_ln)),
    ] {
        same(ln, start + moved);
    }
    if let (Some(whole), Some(first), Some(last)) =
        (trace.cohorts.last(), trace.blocks.first(), trace.blocks.last())
    {
        for of in [|f: &Factor| f.harm_ln, |f: &Factor| f.safe_ln] {
            same(of(first)[0], of(whole)[0]);
            same(of(last)[1], of(whole)[1]);
        }
        assert_eq!(first.anew, whole.anew);
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
        let fails = |entry: &Entry| matches!(&entry.2, Event::DecisionMade { decision, .. } if !decision.because.is_empty());
        let decided = history.iter().position(fails).expect("a decision with a reason");
        let traced = trace(&history, decided, None).unwrap_or_else(|e| panic!("{name}: {e}"));
        check(&traced);
        let reading = stand(&traced).reading.clone().expect("a decision holds readings");
        assert_eq!(reading.harm_ln, stand(&traced).evidence.harm.ln(), "{name}");
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
    *columns = sluice::core::telemetry::columns::Builder::new(columns.base).finish();
    let traced = trace(&history, second, None).expect("evidence");
    let differs = traced.differs.expect("a difference");
    assert_eq!(differs.seq(), history[second].0);
    assert!(differs.sides().contains("RECORDED  cohort.scored"), "{}", differs.sides());
}

/// Of two that were shown safe: the one that was nearer to not being.
#[test]
fn a_promotion_is_explained_by_what_had_least_to_spare() {
    let history = history("good_model_is_promoted");
    let promoted = history.iter().position(|entry| match &entry.2 {
        Event::DecisionMade { decision, .. } => {
            decision.choice == Choice::Promote
                && decision.readings.iter().filter(|r| r.verdict == Verdict::Pass).count() > 1
        }
        _ => false,
    });
    let traced = trace(&history, promoted.expect("a promotion"), None).expect("evidence");
    check(&traced);
    let spare = |r: &GuardrailReading| r.safe_ln - r.safe_need_ln;
    let Event::DecisionMade { decision, .. } = &history[promoted.unwrap()].2 else { unreachable!() };
    let shown = decision.readings.iter().filter(|r| r.verdict == Verdict::Pass && r.kind.shows_safety());
    let gating: Vec<_> = shown.filter(|r| r.on_fail != OnFail::Alert).collect();
    let own = gating.iter().find(|r| r.name == traced.subject.guardrail).expect("one that gates");
    assert!(gating.len() > 1 && gating.iter().all(|r| spare(own) <= spare(r)), "{}", own.name);
    assert_eq!(traced.subject.others.len() + 1, decision.readings.len());
}

#[test]
fn an_event_without_evidence_says_so() {
    let history = history("worse_model_is_rolled_back");
    assert!(matches!(trace(&history, 0, None), Err(EvidenceTraceError::NoEvidence(1, "log.created"))));
    let decided = history.iter().position(|e| matches!(e.2, Event::DecisionMade { .. })).expect("a decision");
    assert!(matches!(trace(&history, decided, None), Err(EvidenceTraceError::Which(..))));
    let wrong = trace(&history, decided, Some("nonsense"));
    assert!(matches!(wrong, Err(EvidenceTraceError::NoGuardrail(..))), "{wrong:?}");
}

/// Both guardrails suffer a little: neither has what it needs by itself.
#[test]
fn a_rollback_by_the_average_is_shown_as_what_it_is() {
    let history = history("both_a_little_worse_roll_back");
    let back = find(
        &history,
        |e| matches!(e, Event::DecisionMade { decision, .. } if decision.choice == Choice::Rollback),
    );
    let failed = find(
        &history,
        |e| matches!(e, Event::VerdictReached { reading, .. } if reading.verdict == Verdict::Fail),
    );
    let Event::DecisionMade { decision, .. } = &history[back].2 else { unreachable!() };
    for at in [back, failed] {
        let traced = trace(&history, at, None).expect("evidence");
        check(&traced);
        let stand = stand(&traced).clone();
        let reading = stand.reading.as_ref().expect("a reading");
        assert!(reading.harm_ln < reading.harm_need_ln, "the average is what decides: {reading:?}");
        let w = &stand.weighing;
        let sum: f64 = w.parts.iter().map(|part| part.weight * part.ln.exp()).sum();
        assert!((sum.ln() - w.ln).abs() < 1e-12 && (w.parts.len(), w.need_ln) == (2, 16f64.ln()), "{w:?}");
        assert!(sum >= 16.0 && (w.ln - decision.harm_ln).abs() < 1e-12, "{w:?}");
        let carries: Vec<&str> =
            w.parts.iter().filter(|part| part.carries).map(|part| part.guardrail.as_str()).collect();
        assert_eq!(carries, [reading.name.as_str()]);
        assert_eq!(w.recorded_ln, (at == back).then_some(decision.harm_ln));
        let answer = EvidenceAnswer::new(traced);
        let means = |text: &str| answer.meaning.iter().any(|sentence| sentence == text);
        let back = format!(
            "Together they are worse than their limits allow, and {} has most of it. Had the canary been within the limits \
             of both guardrails that may roll back on evidence, this would happen in at most 6.3% of rollouts.",
            reading.name
        );
        assert_eq!(means(&back), w.recorded_ln.is_some(), "{:?}", answer.meaning);
        assert!(means("Differences of less than 0.75 points beyond the limit may never be found."));
    }
}

#[test]
fn a_missing_share_is_shown_from_both_sides() {
    let history = history("grades_that_get_lost_hold");
    let failed = find(
        &history,
        |e| matches!(e, Event::VerdictReached { reading, .. } if reading.verdict == Verdict::Fail),
    );
    let traced = trace(&history, failed, None).expect("evidence");
    check(&traced);
    let last = traced.cohorts.last().expect("a cohort");
    let [above, below] = last.sides_ln.expect("two sides");
    let average = ((above[1].exp() + below[1].exp()) / 2.0).ln();
    assert!((average - last.harm_ln[1]).abs() < 1e-12 && above[1] > below[1]);
    let reading = stand(&traced).reading.clone().expect("a reading");
    let answer = EvidenceAnswer::new(traced);
    assert_eq!(answer.harm.ln, reading.harm_ln);
    let sides = [answer.above.expect("above").ln, answer.below.expect("below").ln];
    assert_eq!(sides, [above[1], below[1]]);
}

#[test]
fn the_benefit_of_a_trade_off_has_its_factors() {
    let history = history("slower_but_better_waits_for_a_person");
    let of_it = |e: &Event| match e {
        Event::VerdictReached { reading, .. } => reading.benefit_ln.is_some_and(|ln| ln > 0.0),
        _ => false,
    };
    let traced = trace(&history, find(&history, of_it), None).expect("evidence");
    check(&traced);
    let reading = stand(&traced).reading.clone().expect("a reading");
    let last = traced.cohorts.last().and_then(|f| f.benefit_ln).expect("a benefit");
    assert_eq!(Some(last[1]), reading.benefit_ln);
    let answer = EvidenceAnswer::new(traced);
    let benefit = answer.benefit.expect("an account of the benefit");
    assert_eq!((Some(benefit.ln), benefit.bets.is_empty()), (reading.benefit_ln, false));
}

#[test]
fn an_alert_about_a_slice_is_explained_with_its_family() {
    let history = history("region_that_fails_alone_holds");
    let alert = find(&history, |e| matches!(e, Event::AlertRaised { .. }));
    let Event::AlertRaised { alert: raised, .. } = &history[alert].2 else { unreachable!() };
    let recorded = raised.reading().cloned().expect("a reading");
    let traced = trace(&history, alert, None).expect("evidence");
    check(&traced);
    assert_eq!(traced.subject.name(), "eval_pass[region=jp]");
    let stand = stand(&traced);
    assert_eq!(stand.evidence.harm.ln(), recorded.harm_ln);
    assert_eq!(stand.reading.as_ref(), Some(&recorded));
    let found: Vec<bool> = stand.family.iter().map(|member| member.found).collect();
    assert_eq!(found, [true, false, false, false, false]);
    let needs: Vec<f64> = stand.family.iter().map(|member| member.need_ln.exp().round()).collect();
    // Five slices at 20x: the k-th needs 100 / k.
    assert_eq!(needs, [100.0, 50.0, 33.0, 25.0, 20.0]);
    assert!(stand.family[0].ln >= 100f64.ln() && stand.family[0].need_ln == recorded.harm_need_ln);
    let answer = EvidenceAnswer::new(traced);
    let said = "At most 1 in 20 canaries that are well in all 5 judged slices is ever stopped by one of them, however \
                often you look.";
    assert!(answer.meaning.iter().any(|sentence| sentence == said), "{:?}", answer.meaning);

    // The hold that follows names the slice; a slice can be asked for of any event about its guardrail.
    let held = find(
        &history,
        |e| matches!(e, Event::DecisionMade { decision, .. } if decision.choice == Choice::Hold),
    );
    assert_eq!(trace(&history, held, None).expect("evidence").subject.name(), "eval_pass[region=jp]");
    let other = trace(&history, held, Some("eval_pass[region=eu]")).expect("evidence");
    check(&other);
    assert!(other.stand.is_some_and(|stand| stand.evidence.harm.ln() < 0.0));
}

#[test]
fn every_cohort_of_every_scenario_with_parts_of_the_traffic_is_its_blocks() {
    for name in ["cohorts_internal_beta_general", "cohort_is_not_promoted_by_the_one_before"] {
        let history = history(name);
        let mut anew = 0;
        let scored = history.iter().enumerate().filter(|(_, e)| matches!(e.2, Event::CohortScored { .. }));
        let decided = history.iter().rposition(|e| matches!(e.2, Event::DecisionMade { .. }));
        let last: Vec<usize> = scored.map(|(i, _)| i).collect();
        for at in last.iter().step_by(last.len() / 5 + 1).copied().chain(last.last().copied()) {
            let traced = trace(&history, at, None).expect("evidence");
            check(&traced);
            anew = anew.max(traced.cohorts.iter().filter(|f| f.anew).count());
        }
        assert!(decided.is_some() && anew > 0, "{name}: {anew}");
    }
}

/// A record whose reference was changed does not make what was worked out follow it.
#[test]
fn references_come_from_the_facts_too() {
    let mut history = history("worse_model_is_rolled_back");
    let frozen =
        find(&history, |e| matches!(e, Event::ReferenceFrozen { guardrail, .. } if guardrail == "eval_pass"));
    let back = find(
        &history,
        |e| matches!(e, Event::DecisionMade { decision, .. } if decision.choice == Choice::Rollback),
    );
    let honest = trace(&history, back, Some("eval_pass")).expect("evidence");
    match &mut history[frozen].2 {
        Event::ReferenceFrozen { reference, .. } => reference.theta -= 0.01,
        _ => unreachable!(),
    }
    let traced = trace(&history, back, Some("eval_pass")).expect("evidence");
    let differs = traced.differs.as_ref().expect("a difference");
    assert_eq!(differs.seq(), history[frozen].0);
    assert!(differs.sides().contains("reference.theta"), "{}", differs.sides());
    assert_eq!(traced.stand, honest.stand);
    assert_eq!(traced.cohorts, honest.cohorts);
}
