//! Guardrails slice by slice: a canary that is well on the whole may fail in one suite or one region.
//!
//! Every value that a policy names is one hypothesis, and all of them together are one family. Which are found is said
//! by e-BH (Wang and Ramdas 2022, arXiv:2009.02824) at the level of a rollback; a slice that has shown nothing has an
//! e-value of 1. The first find needs an average over the family at that level, and the average of e-processes is one:
//! a canary that is well in every slice is stopped by any of them in at most 1 of `level` rollouts, however often one
//! looks (Ville 1939). Of those found at one moment at most 1 of `level` is wrong, on average.

use super::alert::raised;
use super::readings::{self, Excuse};
use super::turn::Turn;
use crate::core::event::Event;
use crate::core::event::alert::{Alert, AlertKind};
use crate::core::event::decision::{Gate, Reason};
use crate::core::event::reading::GuardrailReading;
use crate::core::evidence::bets::{discoveries, enough};
use crate::core::evidence::monitor::GuardrailMonitor;
use crate::core::evidence::verdict::Verdict;
use crate::core::policy::guardrail::{Guardrail, OnFail};

/// One value that a policy names, and how it stands.
pub struct Slice<'a> {
    guardrail: &'a Guardrail,
    tag: &'a str,
    value: &'a str,
    on_fail: OnFail,
    /// `None`: no sample had the value yet.
    monitor: Option<&'a GuardrailMonitor>,
    /// Beyond its limit, as told to people. Stays.
    told: bool,
    /// Beyond its limit now.
    found: bool,
    /// Log-evidence (nats) that is enough, among as many.
    pub need_ln: f64,
}

impl Slice<'_> {
    /// `eval_pass[suite=refunds]`
    pub fn name(&self) -> String {
        format!("{}[{}={}]", self.guardrail.name, self.tag, self.value)
    }

    pub fn fails(&self) -> bool {
        self.told || self.found
    }

    pub fn is(&self, guardrail: &str, value: &str) -> bool {
        self.guardrail.name == guardrail && self.value == value
    }

    /// What it has shown, as that of a guardrail.
    fn reading(&self, turn: Turn) -> Option<GuardrailReading> {
        let guardrail = Guardrail {
            name: self.name(),
            on_fail: self.on_fail,
            weight: 0.0,
            unless: None,
            benefit: None,
            ..self.guardrail.clone()
        };
        let mut reading = readings::read(turn, self.monitor?, &guardrail, Excuse::default(), [None; 2]);
        (reading.verdict, reading.harm_need_ln) = (Verdict::Fail, self.need_ln);
        Some(reading)
    }
}

/// Every slice that may stop the rollout, in the policy's order.
pub fn slices<'a>(turn: Turn<'a>) -> Vec<Slice<'a>> {
    let Turn { rollout, policy, .. } = turn;
    let mut slices = Vec::new();
    let mut lns = Vec::new();
    for (monitor, guardrail) in rollout.monitors.iter().zip(&policy.guardrails) {
        let (Some(tag), Some(judged)) = (&guardrail.slices, &guardrail.judged) else { continue };
        for value in &judged.values {
            let part = monitor.slices.get(value);
            let bet_on = part.filter(|part| part.reference.is_some() && part.evidence.blocks > 0);
            lns.push(bet_on.map_or(0.0, |part| part.evidence.harm.ln()));
            slices.push(Slice {
                guardrail,
                tag,
                value,
                on_fail: judged.on_fail,
                monitor: part,
                told: rollout.alerts.contains_key(&AlertKind::Slice(guardrail.name.clone(), value.clone())),
                found: false,
                need_ln: 0.0,
            });
        }
    }
    let found = discoveries(&lns, policy.evidence.rollback);
    let n = found.iter().filter(|found| **found).count().max(1);
    let need_ln = enough(lns.len(), n, policy.evidence.rollback);
    for (slice, found) in slices.iter_mut().zip(found) {
        (slice.found, slice.need_ln) = (found, need_ln);
    }
    slices
}

/// People are told of each that is beyond its limit, once.
pub fn alert(turn: Turn, slices: &[Slice]) -> Option<Event> {
    let news = slices.iter().find(|slice| slice.found && !slice.told)?;
    let reading = news.reading(turn)?;
    let (guardrail, value) = (news.guardrail.name.clone(), news.value.to_owned());
    Some(raised(turn.rollout, Alert::Slice { guardrail, value, reading: Box::new(reading) }))
}

/// A slice that holds stands in the way until a person promotes past it.
pub fn gates(slices: &[Slice]) -> impl Iterator<Item = Gate> {
    let holds = |slice: &&Slice| {
        let accepted = slice.monitor.is_some_and(|part| part.accepted.is_some());
        slice.told && slice.on_fail == OnFail::Hold && !accepted
    };
    let gate = |slice: &Slice| Gate { met: false, time: false, reason: Reason::Slice { name: slice.name() } };
    slices.iter().filter(holds).map(gate)
}
