//! From a history that breaks a promise to the shortest one that still does.

use std::collections::BTreeSet;

use super::history::{History, run};
use super::plan::Plan;

/// Histories that are run at most.
const RUNS_MAX: usize = 600;

/// Leaves out stimuli as long as the same invariant is broken (delta debugging: Zeller and Hildebrandt 2002, IEEE
/// Trans. Softw. Eng. 28(2)). Returns the stimuli that are needed, by their place in the plan, and the history.
pub fn shortest(plan: &Plan, failed: &History) -> (Vec<usize>, History) {
    let broken = failed.failure.as_ref().map(|violation| violation.invariant);
    let all: BTreeSet<usize> = (0..plan.stimuli.len()).collect();
    let mut best = failed.clone();
    let mut runs = 0;
    let mut fails = |kept: &[usize], best: &mut History| {
        runs += 1;
        let skip = all.iter().copied().filter(|i| kept.binary_search(i).is_err()).collect();
        let history = run(plan, &skip, false);
        let same = runs <= RUNS_MAX && history.failure.as_ref().map(|v| v.invariant) == broken;
        if same {
            *best = history;
        }
        same
    };
    let mut kept: Vec<usize> = all.iter().copied().collect();
    let mut parts = 2;
    while kept.len() > 1 {
        let size = kept.len().div_ceil(parts);
        let without = kept.chunks(size).enumerate().map(|(i, _)| {
            let rest = kept.chunks(size).enumerate().filter(|(j, _)| *j != i);
            rest.flat_map(|(_, chunk)| chunk.iter().copied()).collect::<Vec<_>>()
        });
        let without: Vec<Vec<usize>> = without.collect();
        match without.into_iter().find(|rest| fails(rest, &mut best)) {
            Some(rest) => {
                kept = rest;
                parts = (parts - 1).max(2);
            }
            None if parts >= kept.len() => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    (kept, best)
}
