//! The simulator itself: one seed is one history, and leaving one thing out changes nothing about the others. What it
//! finds is the business of `make simulate` and `make planted`.

use std::collections::BTreeSet;

use sluice::sim::history::{History, run};
use sluice::sim::plan::{EVENTS_MIN, Fault, Plan, Stimulus};

fn simulate(seed: u64) -> History {
    let history = run(&Plan::draw(seed, EVENTS_MIN, Fault::ALL), &BTreeSet::new(), true);
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

/// Requests of one segment, sent by a clock ahead of the log's, counted for the next one.
#[test]
fn seeds_that_once_broke_a_promise_keep_it() {
    simulate(234);
}

/// The silence about a rollback is told of each command anew: a part that went back was superseded before it was confirmed.
#[test]
fn silence_about_a_second_rollback_is_told_again() {
    simulate(1693);
}

/// What comes before the thing that is left out happens as it did: else the shortest history would be another one.
#[test]
fn leaving_one_thing_out_changes_nothing_before_it() {
    let mut plans = (0..).map(|seed| Plan::draw(seed, EVENTS_MIN, &[Fault::Operators]));
    let plan = plans.find(|plan| plan.has(Fault::Operators)).expect("one in two");
    let order =
        plan.stimuli.iter().rposition(|(_, s)| matches!(s, Stimulus::Act { .. })).expect("people act");
    let (whole, without) = (run(&plan, &BTreeSet::new(), true), run(&plan, &BTreeSet::from([order]), true));
    let same = whole.trace.iter().zip(&without.trace).take_while(|(a, b)| a == b).count();
    assert!(same > 100 && same < whole.trace.len(), "{same} of {} lines are the same", whole.trace.len());
}

/// A short history is one of its own, and still a whole one: what was rolled out is over, whatever came in between.
#[test]
fn a_size_is_part_of_what_a_seed_stands_for() {
    let (mut over, mut troubles, mut events) = (0, BTreeSet::new(), [0; 2]);
    for seed in 0..20 {
        let short = || run(&Plan::draw(seed, 100, Fault::ALL), &BTreeSet::new(), false);
        let (first, again) = (short(), short());
        assert_eq!(first.failure, None, "seed {seed}");
        assert_eq!((first.head, &first.rare), (again.head, &again.rare), "seed {seed}");
        let longer = run(&Plan::draw(seed, 2 * EVENTS_MIN, Fault::ALL), &BTreeSet::new(), false);
        assert_ne!(first.head, longer.head);
        events = [events[0] + first.events, events[1] + longer.events];
        over += usize::from(first.over > 0);
        troubles.extend(first.rare);
    }
    assert!(events[0] < events[1] / 3, "{events:?} events at 100 and {}", 2 * EVENTS_MIN);
    assert!(over >= 15, "a rollout is over in {over} of 20");
    assert!(troubles.len() > 40, "{} rare states in 20 short histories", troubles.len());
}

/// And the same seeds meet it where they may.
#[test]
fn a_history_without_trouble_meets_none() {
    let trouble = ["killed", "disk", "sleeps", "clock", "lost", "silent"];
    let met = |allowed: &[Fault]| -> BTreeSet<&str> {
        let histories =
            (0..3).map(|seed| run(&Plan::draw(seed, EVENTS_MIN, allowed), &BTreeSet::new(), false));
        let rare = histories.flat_map(|history| {
            assert_eq!(history.failure, None);
            history.rare
        });
        rare.map(|state| state.name()).filter(|name| trouble.iter().any(|t| name.contains(t))).collect()
    };
    assert_eq!(met(&[]), BTreeSet::new());
    assert!(met(Fault::ALL).len() > 3);
}
