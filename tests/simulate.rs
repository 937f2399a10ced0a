//! The simulator itself: one seed is one history, and leaving one thing out changes nothing about the others. What it
//! finds is the business of `make simulate` and `make planted`.

use std::collections::BTreeSet;

use sluice::sim::history::{History, run};
use sluice::sim::plan::{Fault, Plan, Stimulus};

fn simulate(seed: u64) -> History {
    let history = run(&Plan::draw(seed, Fault::ALL), &BTreeSet::new(), true);
    assert_eq!(history.failure, None, "seed {seed}");
    history
}

#[test]
fn one_seed_is_one_history_byte_for_byte() {
    let heads: BTreeSet<_> = (0..3)
        .map(|seed| {
            let (first, again) = (simulate(seed), simulate(seed));
            assert_eq!(
                (first.head, first.events, &first.rare),
                (again.head, again.events, &again.rare),
                "seed {seed}"
            );
            assert_eq!(first.trace, again.trace, "seed {seed}");
            first.head
        })
        .collect();
    assert_eq!(heads.len(), 3, "and another seed is another history");
}

/// What comes before the thing that is left out happens as it did: else the shortest history would be another one.
#[test]
fn leaving_one_thing_out_changes_nothing_before_it() {
    let mut plans = (0..).map(|seed| Plan::draw(seed, &[Fault::Operators]));
    let plan = plans.find(|plan| plan.has(Fault::Operators)).expect("one in two");
    let order =
        plan.stimuli.iter().rposition(|(_, s)| matches!(s, Stimulus::Act { .. })).expect("people act");
    let (whole, without) = (run(&plan, &BTreeSet::new(), true), run(&plan, &BTreeSet::from([order]), true));
    let same = whole.trace.iter().zip(&without.trace).take_while(|(a, b)| a == b).count();
    assert!(same > 100 && same < whole.trace.len(), "{same} of {} lines are the same", whole.trace.len());
}

/// And the same seeds meet it where they may.
#[test]
fn a_history_without_trouble_meets_none() {
    let trouble = ["killed", "disk", "sleeps", "clock", "lost", "silent"];
    let met = |allowed: &[Fault]| -> BTreeSet<&str> {
        let histories = (0..3).map(|seed| run(&Plan::draw(seed, allowed), &BTreeSet::new(), false));
        let rare = histories.flat_map(|history| {
            assert_eq!(history.failure, None);
            history.rare
        });
        rare.map(|state| state.name()).filter(|name| trouble.iter().any(|t| name.contains(t))).collect()
    };
    assert_eq!(met(&[]), BTreeSet::new());
    assert!(met(Fault::ALL).len() > 3);
}
