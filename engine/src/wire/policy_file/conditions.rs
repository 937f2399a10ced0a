//! Conditions: CEL expressions over what the guardrails of the policy observe.

use std::collections::BTreeMap;

use super::grammar::Spec;
use super::scalars::Label;
use crate::core::event::code::Code;
use crate::core::policy::condition::{Expression, FIGURES, Figures};
use crate::core::policy::guardrail::{Condition, Guardrail, OnFail, Unless};
use crate::wire::error::{did_you_mean, inert, shown};
use crate::wire::yaml::{Checker, Node, Place};

const CONDITIONS_MAX: usize = 16;
/// Bytes of one expression.
const EXPRESSION_MAX: usize = 1_000;
/// Bytes of what the parser of the language says.
const WHY_MAX: usize = 200;

/// The conditions of the policy itself.
pub fn conditions(c: &mut Checker, spec: &Spec, guardrails: &[Guardrail]) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = Vec::new();
    for (i, body) in spec.conditions.iter().enumerate() {
        let path = format!("spec.conditions[{i}]");
        if i == CONDITIONS_MAX {
            let message = format!("at most {CONDITIONS_MAX} conditions, got {}", spec.conditions.len());
            c.refuse(Code::FileValue, body.name.place, "spec.conditions", &message);
            break;
        }
        let name = c.get(&format!("{path}.name"), &body.name);
        let on = c.get(&format!("{path}.on"), &body.on);
        let when = expression(c, &format!("{path}.when"), &body.when, guardrails);
        let (Some(Label(name)), Some(on), Some(when)) = (name, on, when) else { continue };
        if on == OnFail::Rollback {
            let message = "a condition has no part in the error budget of rollbacks: hold or alert";
            c.refuse(Code::Unreachable, body.on.place, &format!("{path}.on"), message);
        } else if conditions.iter().any(|known| known.name == name) {
            c.refuse(
                Code::NamedTwice,
                body.name.place,
                &format!("{path}.name"),
                &format!("{name} is there twice"),
            );
        } else {
            conditions.push(Condition { name, when, on });
        }
    }
    conditions
}

/// The conditions that excuse a failing guardrail.
pub fn excuses(c: &mut Checker, spec: &Spec, guardrails: &mut [Guardrail]) {
    for (i, body) in spec.guardrails.value.iter().enumerate() {
        let Some(when) = body.unless.as_ref().and_then(|unless| unless.when.as_ref()) else { continue };
        let path = format!("spec.guardrails[{i}].unless.when");
        if let Some(when) = expression(c, &path, when, guardrails) {
            guardrails[i].unless = Some(Unless::When { when });
        }
    }
}

/// A sound expression over guardrails that the policy has, which is true or false once everything is known.
fn expression(
    c: &mut Checker,
    path: &str,
    node: &Node<String>,
    guardrails: &[Guardrail],
) -> Option<Expression> {
    let text = &node.text;
    if text.len() > EXPRESSION_MAX {
        let message = format!("must have at most {EXPRESSION_MAX} bytes, got {}", text.len());
        c.refuse(Code::FileValue, node.place, path, &message);
        return None;
    }
    let expression = match Expression::new(text) {
        Ok(expression) => expression,
        Err((column, why)) => {
            // The place of a quoted text is that of its quote.
            let quote = usize::from(node.place.length > text.chars().count());
            let place = Place { column: node.place.column + quote + column, length: 1, ..node.place };
            let why = inert(why.lines().next().unwrap_or_default(), WHY_MAX);
            c.refuse(Code::Condition, place, path, &format!("not a CEL expression: {why}"));
            return None;
        }
    };
    let names = expression.names();
    let known = || guardrails.iter().map(|guardrail| guardrail.name.as_str());
    if let Some(unknown) = names.iter().find(|name| !known().any(|guardrail| guardrail == name.as_str())) {
        let near = did_you_mean(unknown, known()).map(|near| format!("; did you mean {near}?"));
        let dotted = known().find(|name| name.split('.').next() == Some(unknown.as_str()));
        let near = match dotted {
            Some(dotted) => {
                let hint = format!("; to speak of {dotted}, give it a name without a dot (name: {unknown})");
                Some(hint)
            }
            None => near,
        };
        let message = format!("no guardrail is called {}{}", shown(unknown), near.unwrap_or_default());
        c.refuse(Code::MetricUnused, node.place, path, &message);
        return None;
    }
    if names.is_empty() {
        c.refuse(
            Code::Condition,
            node.place,
            path,
            "looks at no guardrail, so it says nothing about the canary",
        );
        return None;
    }
    let one = Some(1.0);
    let figures = Figures {
        diff: one,
        low: one,
        high: one,
        limit: one,
        ratio: one,
        canary: one,
        baseline: one,
        canary_n: 1.0,
        baseline_n: 1.0,
    };
    let all: BTreeMap<&str, Figures> = known().map(|name| (name, figures)).collect();
    if let Err(why) = expression.holds(&all) {
        let figures = FIGURES.join(", ");
        let why = inert(&why, WHY_MAX);
        let message = format!(
            "cannot be worked out: {why}; a guardrail has {figures}, all of them decimals: write 2.0, not 2, in sums and products"
        );
        c.refuse(Code::Condition, node.place, path, &message);
        return None;
    }
    Some(expression)
}
