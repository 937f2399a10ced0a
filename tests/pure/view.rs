//! The view that is kept up to date shows what a whole look at the state shows.

use sluice::core::ids::RolloutId;
use sluice::core::state::State;
use sluice::core::state::rollout::Rollout;
use sluice::core::time::{Span, Timestamp};
use sluice::view::{Views, view};

use crate::scenario::history;

/// A scenario in which two rollouts are open at once.
const SCENARIO: &str = "second_change_waits_its_turn";

/// Draws what changes as the writer does, `n` more in turn after each event, and checks against a whole look.
fn follow(n: usize) {
    let (mut state, mut views) = (State::default(), Views::default());
    let (mut open_at_once, mut over) = (0, 0);
    for (seq, at, event) in history(SCENARIO) {
        state.apply(seq, at, &event);
        let mut changed: Vec<RolloutId> = state.agenda.iter().cloned().collect();
        changed.extend(event.rollout().cloned());
        views.follow(&state, at, &changed);
        let rounds = state.rollouts.len().div_ceil(n);
        (0..rounds).for_each(|_| views.turn(&state, at, n));
        let (kept, whole) = (views.view(&state, at), view(&state, at));
        assert_eq!((kept.seq, kept.at), (whole.seq, whole.at));
        assert_eq!(kept.rollouts, whole.rollouts, "after seq {seq}");
        open_at_once = open_at_once.max(state.rollouts.len());
        over = state.ended.len();
    }
    assert!(open_at_once > 1 && over > 0, "{open_at_once} open at once, {over} over");
}

#[test]
fn every_rollout_has_been_drawn_after_its_turn() {
    follow(1);
}

#[test]
fn more_turns_than_rollouts_draw_each_of_them() {
    follow(16);
}

/// Time passes for all of them: with three open and one drawn at a time, three turns are one round.
#[test]
fn turns_go_round() {
    let mut state = State::default();
    for (seq, at, event) in history(SCENARIO) {
        state.apply(seq, at, &event);
        if state.rollouts.values().any(|rollout| rollout.bake().is_some()) {
            break;
        }
    }
    let baking = state.rollouts.values().find(|r| r.bake().is_some()).expect("one bakes").clone();
    for name in ["a-1", "b-1", "c-1"] {
        state.rollouts.insert(name.into(), Rollout { id: name.into(), ..baking.clone() });
    }
    let (mut views, mut at) = (Views::default(), state.now);
    views.follow(&state, at, state.rollouts.keys());
    for _ in 0..2 {
        at = at.plus(Span::mins(1));
        (0..state.rollouts.len()).for_each(|_| views.turn(&state, at, 1));
        assert_eq!(views.view(&state, at).rollouts, view(&state, at).rollouts);
    }
}

/// A decision shows at once; the watched time of the others follows in turn.
#[test]
fn what_changed_is_drawn_without_waiting_for_its_turn() {
    let (mut state, mut views) = (State::default(), Views::default());
    for (seq, at, event) in history(SCENARIO) {
        state.apply(seq, at, &event);
        let Some(id) = event.rollout() else { continue };
        views.follow(&state, at, [id]);
        let shown = views.view(&state, Timestamp::default());
        let drawn = shown.rollouts.iter().find(|r| r.rollout == id.0).expect("shown");
        let whole = view(&state, at);
        let now = whole.rollouts.iter().find(|r| r.rollout == id.0).expect("shown");
        assert_eq!(drawn, now, "after seq {seq}");
    }
}
