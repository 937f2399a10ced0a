//! What the change windows of a policy file may be.

use super::grammar::{FreezeBody, Spec, WindowBody};
use super::scalars::{CronLine, LocalTime, Name, Zone};
use crate::core::event::code::Code;
use crate::core::policy::windows::{Period, Window, Windows};
use crate::core::time::{Span, Timestamp};
use crate::windows::{self, Bad};
use crate::wire::yaml::{Checker, Node, Place};

const WINDOWS_MAX: usize = 16;
const FREEZES_MAX: usize = 64;
const DURATION: std::ops::RangeInclusive<Span> = Span::mins(1)..=Span::hours(31 * 24);

/// `now`: also refuse what would not open within a year from then.
pub fn windows(c: &mut Checker, spec: &Spec, now: Option<Timestamp>) -> Option<Windows> {
    let at = spec.windows.as_ref()?;
    let body = &at.value;
    for (what, n, max) in [
        ("allow", body.allow.len(), WINDOWS_MAX),
        ("deny", body.deny.len(), WINDOWS_MAX),
        ("freeze", body.freeze.len(), FREEZES_MAX),
    ] {
        if n > max {
            c.refuse(
                Code::FileValue,
                at.place,
                &format!("spec.windows.{what}"),
                &format!("at most {max}, got {n}"),
            );
            return None;
        }
    }
    let mut all = |what: &str, bodies: &[WindowBody]| -> Vec<Option<Window>> {
        let path = |i: usize| format!("spec.windows.{what}[{i}]");
        bodies.iter().enumerate().map(|(i, body)| window(c, &path(i), body)).collect()
    };
    let (allow, deny) = (all("allow", &body.allow), all("deny", &body.deny));
    let freeze = body.freeze.iter().enumerate();
    let freeze: Vec<_> =
        freeze.map(|(i, body)| range(c, &format!("spec.windows.freeze[{i}]"), body)).collect();
    let whole = Windows {
        allow: allow.into_iter().collect::<Option<_>>()?,
        deny: deny.into_iter().collect::<Option<_>>()?,
        freeze: freeze.into_iter().collect::<Option<_>>()?,
    };
    if let Some(now) = now
        && windows::never_opens(&whole, now)
    {
        let from = windows::moment_in(now, "UTC");
        let message =
            format!("nothing could be promoted in the year from {from} on: these windows never open");
        c.refuse(Code::NeverOpen, at.place, "spec.windows", &message);
        return None;
    }
    (whole != Windows::default()).then_some(whole)
}

fn name(c: &mut Checker, path: &str, node: &Option<Node<Name>>) -> Option<String> {
    match node {
        Some(node) => c.get(&format!("{path}.reason"), node).map(|Name(text)| text),
        None => Some(String::new()),
    }
}

fn window(c: &mut Checker, path: &str, body: &WindowBody) -> Option<Window> {
    let CronLine(cron) = c.get(&format!("{path}.cron"), &body.cron)?;
    let sound = cron_line(c, &format!("{path}.cron"), &body.cron, &cron);
    let tz = c.get(&format!("{path}.tz"), &body.tz);
    let duration = c.get(&format!("{path}.duration"), &body.duration);
    if let Some(given) = duration.filter(|given| !DURATION.contains(given)) {
        let message = format!("must be {} to {}, got {given}", DURATION.start(), DURATION.end());
        c.refuse(Code::Schedule, body.duration.place, &format!("{path}.duration"), &message);
    }
    let (Zone(tz), reason) = (tz?, name(c, path, &body.reason)?);
    (sound).then_some(Window { cron, duration: duration?, tz, reason })
}

fn cron_line(c: &mut Checker, path: &str, node: &Node<CronLine>, text: &str) -> bool {
    let Bad { what, column, length } = match windows::fires(text) {
        Ok(schedule) if windows::ever(&schedule) => return true,
        Ok(_) => Bad { what: "names a day that never comes".into(), column: 0, length: text.chars().count() },
        Err(bad) => bad,
    };
    // The caret goes below the field that is wrong: behind the quote, if there is one.
    let quote = usize::from(node.place.length == text.chars().count() + 2);
    let place = Place { column: node.place.column + quote + column, length, ..node.place };
    c.refuse(Code::Schedule, place, path, &what);
    false
}

fn range(c: &mut Checker, path: &str, body: &FreezeBody) -> Option<Period> {
    let from = c.get(&format!("{path}.from"), &body.from);
    let to = c.get(&format!("{path}.to"), &body.to);
    let (tz, reason) = (c.get(&format!("{path}.tz"), &body.tz), name(c, path, &body.reason));
    let (LocalTime(from), LocalTime(to), Zone(tz)) = (from?, to?, tz?);
    let range = Period { from, to, tz, reason: reason? };
    if !windows::ends_after(&range) {
        let message = format!("{} is not after from, {}", range.to, range.from);
        c.refuse(Code::FreezeTime, body.to.place, &format!("{path}.to"), &message);
        return None;
    }
    Some(range)
}
