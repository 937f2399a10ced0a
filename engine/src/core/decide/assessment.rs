//! How everything about a rollout stands at one moment: worked out once, and handed to all who ask.

use std::collections::BTreeMap;

use super::conditions::{conditions, observed};
use super::gates::gates;
use super::readings::{Judgement, judge};
use super::slices::{Slice, slices};
use super::turn::Turn;
use crate::core::event::decision::Gate;
use crate::core::policy::condition::Figures;
use crate::core::policy::guardrail::Condition;

/// Every guardrail, condition and slice of a rollout, and what stands between its step and the next.
pub struct Assessment<'a> {
    pub judgement: Judgement,
    /// Every condition of the policy, and whether it holds; `None`: that cannot be told yet.
    pub conditions: Vec<(&'a Condition, Option<bool>)>,
    pub slices: Vec<Slice<'a>>,
    /// In order of precedence.
    pub gates: Vec<Gate>,
}

impl<'a> Assessment<'a> {
    pub fn of(turn: Turn<'a>) -> Assessment<'a> {
        let observed = observed(turn);
        Assessment::with(turn, judge(turn, &observed), &observed)
    }

    /// Where the guardrails have been read already, from what was observed.
    pub fn with(turn: Turn<'a>, judgement: Judgement, observed: &BTreeMap<&str, Figures>) -> Assessment<'a> {
        let (conditions, slices) = (conditions(turn, observed), slices(turn));
        let gates = gates(turn, &judgement.readings, &conditions, &slices);
        Assessment { judgement, conditions, slices, gates }
    }
}
