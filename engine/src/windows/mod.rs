//! Change windows: cron lines and time zones in, instants out. The core only ever sees what comes out, as the fact
//! `windows.computed`.
//!
//! Invariant: the same windows and the same time give the same bounds, on every machine: the zone database is part of
//! the build. Where clocks skip or repeat a local time, what forbids starts at the earlier of the two instants that the
//! time may mean and ends counted from the later one; what permits starts at the later. So nothing is dropped, nothing
//! opens twice, and a change of the clocks never permits more. Durations are elapsed time.
//! Not here: who asks, and when (`runner`); what a closed window stops (`core::judge`).

mod read;

use chrono::{DateTime as Chrono, Datelike, Timelike, Utc};
use cron::Schedule;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::core::event::windows::Bounds;
use crate::core::policy::windows::{Period, Window, Windows};
use crate::core::time::{Span, Timestamp};
pub use read::{Bad, database, fires, local, moment, zone, zones};

const DAY: Span = Span::hours(24);
/// A fact is worked out anew after so long, also when nothing changes.
const HOLDS: Span = Span::hours(30 * 24);
/// How far is looked for the next change, first and at most.
const NEAR: Span = Span::hours(40 * 24);
const FAR: Span = Span::hours(400 * 24);

/// Which rule says so: what forbids comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Freeze(usize),
    Deny(usize),
    /// An allow window is open.
    Allow(usize),
    /// There is an allow window, and none is open.
    Shut,
    /// Nothing is declared that could be closed.
    Free,
}

impl Rule {
    fn open(self) -> bool {
        matches!(self, Rule::Allow(_) | Rule::Free)
    }
}

/// Half-open intervals of every rule, as far as was looked.
struct Timeline<'a> {
    windows: &'a Windows,
    freeze: Vec<(Timestamp, Timestamp)>,
    deny: Vec<Vec<(Timestamp, Timestamp)>>,
    allow: Vec<Vec<(Timestamp, Timestamp)>>,
}

/// What `windows` say at `at`, and for how long.
pub fn bounds(windows: &Windows, at: Timestamp) -> Bounds {
    let near = Timeline::new(windows, at, NEAR);
    let rule = near.rule(at);
    let (timeline, turns) = match near.turn(at) {
        Some(turns) => (near, Some(turns)),
        None => {
            let far = Timeline::new(windows, at, FAR);
            let turns = far.turn(at);
            (far, turns)
        }
    };
    // Another reason is news, even when the verdict stays.
    let changes = timeline.edges(at).find(|edge| timeline.rule(*edge) != rule);
    let until = changes.map_or(at.plus(HOLDS), |change| change.min(at.plus(HOLDS)));
    Bounds { from: at, until, open: rule.open(), why: timeline.why(at, rule, changes, turns), turns }
}

/// The next `n` times at which something can be promoted, each with its end; the present one first.
pub fn openings(windows: &Windows, at: Timestamp, n: usize) -> Vec<(Timestamp, Option<Timestamp>)> {
    let timeline = Timeline::new(windows, at, FAR);
    let mut found = Vec::new();
    let mut begins = timeline.rule(at).open().then_some(at);
    for edge in timeline.edges(at) {
        match (begins, timeline.rule(edge).open()) {
            (Some(begin), false) => {
                found.push((begin, Some(edge)));
                begins = None;
            }
            (None, true) => begins = Some(edge),
            _ => {}
        }
        if found.len() >= n {
            return found;
        }
    }
    found.extend(begins.map(|begin| (begin, None)));
    found
}

/// Whether nothing could be promoted in the year after `at`.
pub fn never_opens(windows: &Windows, at: Timestamp) -> bool {
    openings(windows, at, 1).first().is_none_or(|(from, _)| from.since(at) > Span(365 * DAY.0))
}

impl<'a> Timeline<'a> {
    fn new(windows: &'a Windows, at: Timestamp, ahead: Span) -> Timeline<'a> {
        let to = at.plus(ahead);
        let of = |window: &Window, forbids: bool| intervals(window, forbids, at, to);
        Timeline {
            windows,
            freeze: windows.freeze.iter().map(range).collect(),
            deny: windows.deny.iter().map(|window| of(window, true)).collect(),
            allow: windows.allow.iter().map(|window| of(window, false)).collect(),
        }
    }

    /// What binds at `at`.
    fn rule(&self, at: Timestamp) -> Rule {
        let holds = |(from, to): &(Timestamp, Timestamp)| *from <= at && at < *to;
        let one = |all: &[Vec<_>]| all.iter().position(|intervals| intervals.iter().any(holds));
        if let Some(i) = self.freeze.iter().position(holds) {
            Rule::Freeze(i)
        } else if let Some(i) = one(&self.deny) {
            Rule::Deny(i)
        } else if self.allow.is_empty() {
            Rule::Free
        } else {
            one(&self.allow).map_or(Rule::Shut, Rule::Allow)
        }
    }

    /// Every instant after `at` at which something begins or ends.
    fn edges(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> {
        let of_windows = self.deny.iter().chain(&self.allow).flatten();
        let all = self.freeze.iter().chain(of_windows).flat_map(|(from, to)| [*from, *to]);
        let mut edges: Vec<Timestamp> = all.filter(|edge| *edge > at).collect();
        edges.sort_unstable();
        edges.dedup();
        edges.into_iter()
    }

    /// When the verdict next becomes the other one.
    fn turn(&self, at: Timestamp) -> Option<Timestamp> {
        let open = self.rule(at).open();
        self.edges(at).find(|edge| self.rule(*edge).open() != open)
    }

    /// The verdict in words: which rule, and when that changes.
    fn why(&self, at: Timestamp, rule: Rule, changes: Option<Timestamp>, turns: Option<Timestamp>) -> String {
        let Windows { allow, deny, freeze } = self.windows;
        let (said, zone) = match rule {
            Rule::Freeze(i) => (format!("freeze {}", quoted(&freeze[i].reason)), freeze[i].tz.as_str()),
            Rule::Deny(i) => (name("deny window", &deny[i]), deny[i].tz.as_str()),
            Rule::Allow(i) => (name("window", &allow[i]), allow[i].tz.as_str()),
            Rule::Shut => ("no window is open".into(), allow[0].tz.as_str()),
            Rule::Free => {
                let zone = freeze.iter().map(|range| &range.tz).chain(deny.iter().map(|w| &w.tz)).next();
                ("no freeze or deny window is on".into(), zone.map_or("UTC", String::as_str))
            }
        };
        let mut text = said.trim_end().to_owned();
        match (rule, turns) {
            (Rule::Allow(_) | Rule::Free, Some(closes)) => {
                text += &format!(" until {}", moment_in(closes, zone))
            }
            (Rule::Allow(_) | Rule::Free, None) => text += ", and none comes within 400 days",
            (Rule::Freeze(_) | Rule::Deny(_), _) => {
                if let Some(ends) = changes {
                    text += &format!(" until {}", moment_in(ends, zone));
                }
            }
            (Rule::Shut, _) => {}
        }
        if !rule.open() {
            text += &match turns {
                Some(opens) if Some(opens) == changes && rule != Rule::Shut => String::new(),
                Some(opens) => format!("; the next opens {}", moment_in(opens, zone)),
                None => "; none opens within 400 days".into(),
            };
        }
        debug_assert!(turns.is_none_or(|turns| turns > at));
        text
    }
}

fn quoted(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!("\"{reason}\"") }
}

fn name(kind: &str, window: &Window) -> String {
    match window.reason.as_str() {
        "" => format!("{kind} {} for {} ({})", window.cron, window.duration, window.tz),
        reason => format!("{kind} \"{reason}\""),
    }
}

/// `Mon 2026-01-05 16:00 UTC (17:00 Europe/Berlin)`: in both zones, the second with its date where that differs.
pub fn moment_in(at: Timestamp, zone_name: &str) -> String {
    let utc = civil(at, &TimeZone::UTC);
    let text = format!("{} UTC", utc.strftime("%a %Y-%m-%d %H:%M"));
    let Some(zone) = zone(zone_name).filter(|_| zone_name != "UTC") else { return text };
    let there = civil(at, &zone);
    let form = if there.date() == utc.date() { "%H:%M" } else { "%a %H:%M" };
    format!("{text} ({} {zone_name})", there.strftime(form))
}

/// The intervals of one window that touch `at` to `to`, in order.
fn intervals(window: &Window, forbids: bool, at: Timestamp, to: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    // A policy that was checked has both; one that an older build checked closes what it cannot read.
    let (Ok(schedule), Some(zone)) = (fires(&window.cron), zone(&window.tz)) else {
        return if forbids { vec![(Timestamp(0), Timestamp(u64::MAX))] } else { Vec::new() };
    };
    // On the local clock, which neither skips nor repeats there: cron drops what falls into a gap, and fires twice.
    let from = Timestamp(at.0.saturating_sub(window.duration.0 + 2 * DAY.0));
    let (from, end) = (civil(from, &zone), civil(to.plus(DAY), &zone));
    let mut all: Vec<_> = local_fires(&schedule, from)
        .take_while(|fire| *fire < end)
        .map(|fire| interval(&zone, fire, fire, window.duration, forbids))
        .filter(|(_, ends)| *ends > at)
        .collect();
    all.sort_unstable();
    all
}

fn range(range: &Period) -> (Timestamp, Timestamp) {
    match (zone(&range.tz), local(&range.from), local(&range.to)) {
        (Some(zone), Ok(from), Ok(to)) => interval(&zone, from, to, Span::ZERO, true),
        _ => (Timestamp(0), Timestamp(u64::MAX)),
    }
}

/// What begins at the local time `from`, and lasts for `lasting` from the local time `to` on.
fn interval(
    zone: &TimeZone,
    from: DateTime,
    to: DateTime,
    lasting: Span,
    forbids: bool,
) -> (Timestamp, Timestamp) {
    let instant = |local: DateTime, later: bool| {
        let both = zone.to_ambiguous_timestamp(local);
        let one = if later { both.later() } else { both.earlier() };
        Timestamp(one.map_or(0, |at| at.as_millisecond().max(0) as u64))
    };
    (instant(from, !forbids), instant(to, true).plus(lasting))
}

fn local_fires(schedule: &Schedule, from: DateTime) -> impl Iterator<Item = DateTime> {
    let from = Chrono::<Utc>::from_timestamp_millis(instant_utc(from)).unwrap_or_default();
    schedule.after_owned(from).map_while(|fire| {
        let (date, time) = (fire.date_naive(), fire.time());
        let [month, day, hour, minute, second] =
            [date.month(), date.day(), time.hour(), time.minute(), time.second()].map(|n| n as i8);
        DateTime::new(date.year() as i16, month, day, hour, minute, second, 0).ok()
    })
}

fn civil(at: Timestamp, zone: &TimeZone) -> DateTime {
    let at = jiff::Timestamp::from_millisecond(at.0 as i64).unwrap_or(jiff::Timestamp::MAX);
    zone.to_datetime(at)
}

fn instant_utc(local: DateTime) -> i64 {
    TimeZone::UTC.to_timestamp(local).map_or(0, jiff::Timestamp::as_millisecond)
}

/// Whether a schedule ever fires.
pub fn ever(schedule: &Schedule) -> bool {
    schedule.after(&Chrono::<Utc>::UNIX_EPOCH).next().is_some()
}

/// Whether a range ends after it begins, as instants.
pub fn ends_after(r: &Period) -> bool {
    let (from, to) = range(r);
    from < to
}

#[cfg(test)]
mod tests;
