//! A crash between any two events of a history: what was still to be concluded is concluded the same.

use sluice::core::event::Event;
use sluice::core::state::State;
use sluice::runner::Runner;

use crate::scenario;

#[test]
fn a_history_cut_anywhere_is_finished_as_it_was() {
    let events = scenario::history("nearly_everything");
    let mut state = State::default();
    let mut cut_inside = 0;
    for (i, (seq, at, event)) in events.iter().enumerate() {
        state.apply(*seq, *at, event);
        let mut runner = Runner::new(state.clone());
        let mut drawn = Vec::new();
        runner.finish(&mut |seq, at, event: &Event| drawn.push((seq, at, event.clone())));
        let rest: Vec<_> =
            events[i + 1..].iter().take_while(|(_, _, event)| !event.is_fact()).cloned().collect();
        assert_eq!(drawn, rest, "cut after seq {seq}, {}", event.kind());
        cut_inside += usize::from(!rest.is_empty());
    }
    assert!(cut_inside > 90, "the history has chains of conclusions to cut: {cut_inside}");
}
