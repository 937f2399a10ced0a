//! The texts of windows: cron lines, zones and local times, each with what is wrong with it.

use std::str::FromStr;

use cron::Schedule;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::core::time::Timestamp;

/// What is wrong with a text, and where in it: column and length in characters, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub what: String,
    pub column: usize,
    pub length: usize,
}

/// The fields of a cron line: name, what is expected.
const FIELDS: [(&str, &str); 7] = [
    ("second", "0-59"),
    ("minute", "0-59"),
    ("hour", "0-23"),
    ("day of month", "1-31"),
    ("month", "1-12 or JAN-DEC"),
    ("weekday", "SUN-SAT"),
    ("year", "1970-2100"),
];
const FORM: &str = "second minute hour day month weekday, as in 0 0 9 * * MON-THU";

/// The zones of this build.
pub fn database() -> &'static TimeZoneDatabase {
    static ZONES: std::sync::LazyLock<TimeZoneDatabase> = std::sync::LazyLock::new(TimeZoneDatabase::bundled);
    &ZONES
}

/// A zone by its name in the database, spelt as there.
pub fn zone(name: &str) -> Option<TimeZone> {
    let zone = database().get(name).ok()?;
    (zone.iana_name() == Some(name) || name == "UTC").then_some(zone)
}

/// The names of all zones.
pub fn zones() -> Vec<String> {
    database().available().map(|name| name.to_string()).collect()
}

/// Reads a cron line of 6 or 7 fields that fires at most once an hour.
pub fn fires(text: &str) -> Result<Schedule, Bad> {
    let whole = |what: String| Bad { what, column: 0, length: text.chars().count() };
    let fields = fields(text);
    if !(6..=7).contains(&fields.len()) {
        let n = fields.len();
        return Err(whole(format!("has {n} field{}; expected {FORM}", if n == 1 { "" } else { "s" })));
    }
    for (i, ((column, field), (name, range))) in fields.iter().zip(FIELDS).enumerate() {
        let bad = |expected: String| {
            let what = format!("field {} ({name}) is {field}; expected {expected}", i + 1);
            Bad { what, column: *column, length: field.chars().count() }
        };
        if i < 2 && (field.is_empty() || !field.bytes().all(|b| b.is_ascii_digit())) {
            return Err(bad(format!("one number, {range}: a window opens at most once an hour")));
        }
        // Counted from Sunday as 1 here, as 0 by others: names leave no doubt.
        if i == 5 && field.bytes().any(|b| b.is_ascii_digit()) && !field.contains('/') {
            return Err(bad("names, such as MON-FRI or SAT,SUN".into()));
        }
        let mut alone = ["0", "0", "0", "*", "*", "*", "*"];
        alone[i] = field;
        if Schedule::from_str(&alone.join(" ")).is_err() {
            return Err(bad(format!("{range}, *, a list, a range or a step")));
        }
    }
    Schedule::from_str(text).map_err(|_| whole(format!("cannot be read; expected {FORM}")))
}

/// The fields with the column where each begins.
fn fields(text: &str) -> Vec<(usize, &str)> {
    let mut fields = Vec::new();
    let mut column = 0;
    for part in text.split(' ') {
        if !part.trim().is_empty() {
            fields.push((column, part));
        }
        column += part.chars().count() + 1;
    }
    fields
}

/// A local time: `2026-12-18T00:00`.
pub fn local(text: &str) -> Result<DateTime, String> {
    let wrong = || "expected a local time without a zone, such as 2026-12-18T00:00".to_owned();
    let (date, time) = text.split_once(['T', ' ']).ok_or_else(wrong)?;
    let clock = time.len() >= 5 && time.bytes().all(|b| b.is_ascii_digit() || b == b':');
    if !clock || date.len() != 10 {
        return Err(wrong());
    }
    format!("{date}T{time}").parse().map_err(|_| wrong())
}

/// A moment as people name it: `2026-12-24T15:00Z`, or a local time and a zone: `2026-12-24 15:00 Europe/Berlin`.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let known = |at: jiff::Timestamp| u64::try_from(at.as_millisecond()).ok().map(Timestamp);
    let wrong = || {
        "expected a time with its zone, such as 2026-12-24T15:00:00Z or \"2026-12-24 15:00 Europe/Berlin\""
            .to_owned()
    };
    let text = text.trim();
    if let Some(at) = text.parse::<jiff::Timestamp>().ok().and_then(known) {
        return Ok(at);
    }
    let (time, name) = text.rsplit_once(' ').ok_or_else(wrong)?;
    let time = local(time.trim()).map_err(|_| wrong())?;
    let zone = zone(name).ok_or_else(|| format!("there is no time zone {name}"))?;
    zone.to_timestamp(time).ok().and_then(known).ok_or_else(wrong)
}
