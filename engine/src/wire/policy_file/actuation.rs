//! Who carries commands out, how that is seen, and what is run when they have.

use std::collections::BTreeMap;

use super::grammar::{DeclaredBody, Short, SmokeBody, Spec};
use super::scalars::{Label, Lasting, SmokeAt, Subject, Words};
use crate::core::event::code::Code;
use crate::core::ids::Actuator;
use crate::core::policy::actuator::{Declared, Effective, OnDeadline, Run, Smoke};
use crate::core::time::Span;
use crate::wire::yaml::{At, Checker, Node, Scalar, Unfit};

const ACTUATORS_MAX: usize = 16;
const SMOKE_MAX: usize = 16;
const ARGUMENTS_MAX: usize = 64;
const TIMEOUT_MAX: Span = Span::hours(24);

type Actuators = (Vec<Actuator>, BTreeMap<Actuator, Declared>);

pub fn actuators(c: &mut Checker, spec: &Spec) -> Option<Actuators> {
    let Some(At { value: bodies, place }) = &spec.actuators else {
        return Some((vec![Actuator::from("default")], BTreeMap::new()));
    };
    if bodies.is_empty() || bodies.len() > ACTUATORS_MAX {
        let message = format!("must name 1 to {ACTUATORS_MAX}, got {}", bodies.len());
        c.refuse(Code::FileValue, *place, "spec.actuators", &message);
        return None;
    }
    let (mut actuators, mut all) = (Vec::new(), BTreeMap::new());
    for (i, At { value: body, place }) in bodies.iter().enumerate() {
        let path = format!("spec.actuators[{i}]");
        let (name, place, declared) = match body {
            Short::Text(text, _) => match Label::parse(text) {
                Ok(Label(name)) => (Some(name), *place, None),
                Err(Unfit { code, message }) => {
                    c.refuse(code, *place, &path, &message);
                    (None, *place, None)
                }
            },
            Short::Map(body) => {
                let name = c.get(&format!("{path}.name"), &body.name).map(|Label(name)| name);
                (name, body.name.place, declared(c, &path, body))
            }
        };
        let Some(name) = name else { continue };
        if actuators.contains(&Actuator(name.clone())) {
            c.refuse(Code::NamedTwice, place, &path, &format!("{name} is there twice"));
        }
        actuators.push(Actuator(name.clone()));
        all.extend(declared.map(|declared| (Actuator(name), declared)));
    }
    Some((actuators, all))
}

fn declared(c: &mut Checker, path: &str, body: &DeclaredBody) -> Option<Declared> {
    let subject = body.subject.as_ref().map(|node| c.get(&format!("{path}.subject"), node));
    let mut span = |name: &str, node: &Option<Node<Lasting>>| match node {
        Some(node) => c.get(&format!("{path}.{name}"), node).map(|Lasting(span)| Some(span)),
        None => Some(None),
    };
    let (ack_within, resend_every) =
        (span("ack_within", &body.ack_within), span("resend_every", &body.resend_every));
    let on_silent = c.get_or(&format!("{path}.on_silent"), &body.on_silent, OnDeadline::Hold);
    let subject = match subject {
        Some(subject) => Some(subject?.0),
        None => None,
    };
    Some(Declared { subject, ack_within: ack_within?, resend_every: resend_every?, on_silent: on_silent? })
}

pub fn effective(c: &mut Checker, spec: &Spec) -> Option<Effective> {
    let body = &spec.effective.as_ref()?.value;
    let path = "spec.effective.within";
    let within = c.get(path, &body.within);
    let after = c.get_or("spec.effective.after", &body.after, Span::ZERO);
    let (within, after) = (within?, after?);
    if within < Span::secs(1) {
        c.refuse(Code::FileValue, body.within.place, path, &format!("must be 1s or more, got {within}"));
        return None;
    }
    if after >= within {
        let message = format!("must be above after, {after}, got {within}: nothing would ever count");
        c.refuse(Code::Unreachable, body.within.place, path, &message);
        return None;
    }
    Some(Effective { within, after })
}

pub fn smoke(c: &mut Checker, spec: &Spec) -> Vec<Smoke> {
    let Some(At { value: bodies, place }) = &spec.smoke else { return Vec::new() };
    if bodies.len() > SMOKE_MAX {
        let message = format!("must be at most {SMOKE_MAX}, got {}", bodies.len());
        c.refuse(Code::FileValue, *place, "spec.smoke", &message);
        return Vec::new();
    }
    let mut all: Vec<Smoke> = Vec::new();
    for (i, body) in bodies.iter().enumerate() {
        let path = format!("spec.smoke[{i}]");
        let Some(test) = test(c, &path, body) else { continue };
        if all.iter().any(|known| known.name == test.name) {
            let message = format!("{} is there twice", test.name);
            c.refuse(Code::NamedTwice, body.name.place, &format!("{path}.name"), &message);
        }
        all.push(test);
    }
    all
}

fn test(c: &mut Checker, path: &str, body: &SmokeBody) -> Option<Smoke> {
    let name = c.get(&format!("{path}.name"), &body.name);
    let timeout_path = format!("{path}.timeout");
    let timeout = c.get(&timeout_path, &body.timeout);
    if let Some(given) = timeout.filter(|given| !(Span::secs(1)..=TIMEOUT_MAX).contains(given)) {
        let message = format!("must be 1s to {TIMEOUT_MAX}, got {given}");
        c.refuse(Code::FileValue, body.timeout.place, &timeout_path, &message);
    }
    let at = c.get_or(&format!("{path}.at"), &body.at, SmokeAt::Every);
    let on_fail = c.get_or(&format!("{path}.on_fail"), &body.on_fail, OnDeadline::Rollback);
    let run = run(c, path, body);
    Some(Smoke {
        name: name?.0,
        run: run?,
        timeout: timeout?,
        first: at? == SmokeAt::First,
        on_fail: on_fail?,
    })
}

fn run(c: &mut Checker, path: &str, body: &SmokeBody) -> Option<Run> {
    match (&body.command, &body.request) {
        (Some(At { value: words, place }), None) => {
            let path = format!("{path}.command");
            if words.is_empty() || words.len() > ARGUMENTS_MAX {
                let message = format!(
                    "must be a program and its arguments, 1 to {ARGUMENTS_MAX} in all, got {}",
                    words.len()
                );
                c.refuse(Code::FileValue, *place, &path, &message);
                return None;
            }
            let said = words.iter().enumerate().map(|(i, word)| c.get(&format!("{path}[{i}]"), word));
            let said: Vec<Option<Words>> = said.collect();
            let argv: Vec<String> =
                said.into_iter().map(|word| word.map(|Words(text)| text)).collect::<Option<_>>()?;
            if !argv[0].starts_with('/') {
                let message = format!(
                    "must be the whole path of a program, as in /usr/local/bin/test, got {}",
                    argv[0]
                );
                c.refuse(Code::FileValue, words[0].place, &format!("{path}[0]"), &message);
                return None;
            }
            Some(Run::Command(argv))
        }
        (None, Some(node)) => {
            let Subject(subject) = c.get(&format!("{path}.request"), node)?;
            Some(Run::Request(subject))
        }
        (Some(At { place, .. }), Some(_)) => {
            c.refuse(Code::FileValue, *place, path, "has both command and request; give one");
            None
        }
        (None, None) => {
            c.refuse(Code::FileKeyMissing, body.name.place, path, "needs command or request");
            None
        }
    }
}
