use super::*;

fn at(text: &str) -> Timestamp {
    moment(text).unwrap()
}

fn window(cron: &str, duration: Span, tz: &str) -> Window {
    Window { cron: cron.into(), duration, tz: tz.into(), reason: String::new() }
}

fn allow(cron: &str, duration: Span, tz: &str) -> Windows {
    Windows { allow: vec![window(cron, duration, tz)], ..Windows::default() }
}

fn deny(cron: &str, duration: Span, tz: &str) -> Windows {
    Windows { deny: vec![window(cron, duration, tz)], ..Windows::default() }
}

/// The first interval after `from` in which it is open (or closed, of a deny window).
fn first(windows: &Windows, from: &str) -> [String; 2] {
    let now = bounds(windows, at(from));
    let begins = now.turns.unwrap();
    let ends = bounds(windows, begins).turns.unwrap();
    [begins, ends].map(|at| civil(at, &TimeZone::UTC).strftime("%m-%d %H:%M").to_string())
}

/// 02:00 to 03:00 does not exist on 2027-03-28 in Berlin (01:00 UTC), 03-14 in New York (07:00 UTC), and 02:00 to 02:30 on
/// 2026-10-04 on Lord Howe (10-03 15:30 UTC). All instants by hand.
#[test]
fn a_start_that_the_clocks_skip_is_not_dropped() {
    let h = Span::hours(1);
    for (cron, tz, from, opens, denies) in [
        ("0 30 2 * * *", "Europe/Berlin", "2027-03-27T12:00Z", ["03-28 01:30", "03-28 02:30"], "03-28 00:30"),
        (
            "0 30 2 * * *",
            "America/New_York",
            "2027-03-13T12:00Z",
            ["03-14 07:30", "03-14 08:30"],
            "03-14 06:30",
        ),
        (
            "0 15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00Z",
            ["10-03 15:45", "10-03 16:45"],
            "10-03 15:15",
        ),
    ] {
        assert_eq!(first(&allow(cron, h, tz), from), opens, "{tz}");
        assert_eq!(first(&deny(cron, h, tz), from), [denies, opens[1]], "{tz}");
    }
}

/// 02:00 to 03:00 comes twice on 2027-10-31 in Berlin, 01:00 to 02:00 on 2026-11-01 in New York, and 01:30 to 02:00 on
/// 2027-04-04 on Lord Howe.
#[test]
fn a_start_that_comes_twice_opens_once() {
    let h = Span::mins(30);
    for (cron, tz, from, opens, denies) in [
        ("0 30 2 * * *", "Europe/Berlin", "2027-10-30T12:00Z", ["10-31 01:30", "10-31 02:00"], "10-31 00:30"),
        (
            "0 30 1 * * *",
            "America/New_York",
            "2026-10-31T12:00Z",
            ["11-01 06:30", "11-01 07:00"],
            "11-01 05:30",
        ),
        (
            "0 45 1 * * *",
            "Australia/Lord_Howe",
            "2027-04-03T12:00Z",
            ["04-03 15:15", "04-03 15:45"],
            "04-03 14:45",
        ),
    ] {
        assert_eq!(first(&allow(cron, h, tz), from), opens, "{tz}");
        assert_eq!(first(&deny(cron, h, tz), from), [denies, opens[1]], "{tz}");
    }
}

#[test]
fn a_duration_is_elapsed_time() {
    let saturday = |tz| allow("0 0 22 * * SAT", Span::hours(8), tz);
    assert_eq!(first(&saturday("Europe/Berlin"), "2027-03-27T12:00Z"), ["03-27 21:00", "03-28 05:00"]);
    assert_eq!(first(&saturday("Europe/Berlin"), "2027-10-30T12:00Z"), ["10-30 20:00", "10-31 04:00"]);
    assert_eq!(first(&saturday("America/New_York"), "2027-03-13T12:00Z"), ["03-14 03:00", "03-14 11:00"]);
    assert_eq!(first(&saturday("Australia/Lord_Howe"), "2027-04-03T08:00Z"), ["04-03 11:00", "04-03 19:00"]);
    // Half an hour off, and no change at all.
    let kolkata = allow("0 0 9 * * MON-FRI", Span::hours(8), "Asia/Kolkata");
    assert_eq!(first(&kolkata, "2027-03-26T12:00Z"), ["03-29 03:30", "03-29 11:30"]);
}

#[test]
fn every_day_of_a_year_opens_once_for_as_long() {
    for tz in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"] {
        for cron in ["0 0 1 * * *", "0 30 2 * * *", "0 0 23 * * *"] {
            let found = openings(&allow(cron, Span::mins(20), tz), at("2027-01-01T12:00Z"), 365);
            assert_eq!(found.len(), 365);
            for (from, to) in found {
                assert_eq!(to.unwrap().since(from), Span::mins(20), "{tz} {cron} {}", moment_in(from, tz));
            }
        }
    }
}

#[test]
fn a_freeze_beats_a_deny_window_and_that_an_allow_window() {
    let tz = "Europe/Berlin";
    let windows = Windows {
        allow: vec![window("0 0 9 * * MON-FRI", Span::hours(8), tz)],
        deny: vec![Window { reason: "weekend".into(), ..window("0 0 16 * * FRI", Span::hours(64), tz) }],
        freeze: vec![Period {
            from: "2026-12-18T10:00".into(),
            to: "2027-01-04T08:00".into(),
            tz: tz.into(),
            reason: "holidays".into(),
        }],
    };
    let says = |text: &str| {
        let b = bounds(&windows, at(text));
        format!("{} {}", if b.open { "open:" } else { "closed:" }, b.why)
    };
    for (when, why) in [
        (
            "2026-12-10T10:00Z",
            "open: window 0 0 9 * * MON-FRI for 8h (Europe/Berlin) until Thu 2026-12-10 16:00 UTC (17:00 Europe/Berlin)",
        ),
        (
            "2026-12-10T16:00Z",
            "closed: no window is open; the next opens Fri 2026-12-11 08:00 UTC (09:00 Europe/Berlin)",
        ),
        (
            "2026-12-11T15:00Z",
            "closed: deny window \"weekend\" until Mon 2026-12-14 07:00 UTC (08:00 Europe/Berlin); the next opens Mon 2026-12-14 08:00 UTC (09:00 Europe/Berlin)",
        ),
        (
            "2026-12-18T08:59Z",
            "open: window 0 0 9 * * MON-FRI for 8h (Europe/Berlin) until Fri 2026-12-18 09:00 UTC (10:00 Europe/Berlin)",
        ),
        (
            "2026-12-18T15:30Z",
            "closed: freeze \"holidays\" until Mon 2027-01-04 07:00 UTC (08:00 Europe/Berlin); the next opens Mon 2027-01-04 08:00 UTC (09:00 Europe/Berlin)",
        ),
    ] {
        assert_eq!(says(when), why, "{when}");
    }
    // A fact ends where its reason does, at the latest after a month.
    assert_eq!(bounds(&windows, at("2026-12-11T15:00Z")).until, at("2026-12-14T07:00Z"));
    let free = Windows { freeze: windows.freeze.clone(), ..Windows::default() };
    let now = at("2027-02-01T00:00Z");
    let calm = bounds(&free, now);
    assert_eq!((calm.open, calm.until, calm.turns), (true, now.plus(HOLDS), None));
    assert_eq!(calm.why, "no freeze or deny window is on, and none comes within 400 days");
}

#[test]
fn windows_that_meet_are_one_opening() {
    let mut windows = allow("0 0 9 * * *", Span::hours(3), "UTC");
    windows.allow.push(window("0 0 12 * * *", Span::hours(2), "UTC"));
    let found = openings(&windows, at("2027-01-01T00:00Z"), 1);
    assert_eq!(found, [(at("2027-01-01T09:00Z"), Some(at("2027-01-01T14:00Z")))]);
    assert!(!never_opens(&windows, at("2027-01-01T00:00Z")));
    windows.deny.push(window("0 0 8 * * *", Span::hours(24), "UTC"));
    assert!(never_opens(&windows, at("2027-01-01T00:00Z")));
}

#[test]
fn what_is_wrong_with_a_cron_line_is_placed() {
    for (line, column, what) in [
        (
            "0 9 * * MON-THU",
            0,
            "has 5 fields; expected second minute hour day month weekday, as in 0 0 9 * * MON-THU",
        ),
        ("0 0 25 * * *", 4, "field 3 (hour) is 25; expected 0-23, *, a list, a range or a step"),
        ("0 0  9 32 * *", 7, "field 4 (day of month) is 32; expected 1-31, *, a list, a range or a step"),
        ("0 0 9 * * 1-5", 10, "field 6 (weekday) is 1-5; expected names, such as MON-FRI or SAT,SUN"),
        (
            "0 */5 9 * * *",
            2,
            "field 2 (minute) is */5; expected one number, 0-59: a window opens at most once an hour",
        ),
        ("0 0 22-6 * * *", 4, "field 3 (hour) is 22-6; expected 0-23, *, a list, a range or a step"),
        ("@daily", 0, "has 1 field; expected second minute hour day month weekday, as in 0 0 9 * * MON-THU"),
    ] {
        let bad = fires(line).unwrap_err();
        assert_eq!((bad.column, bad.what.as_str()), (column, what), "{line}");
    }
    assert!(!ever(&fires("0 0 9 30 FEB *").unwrap()));
    assert!(ever(&fires("0 0 9 29 FEB *").unwrap()));
}

#[test]
fn a_moment_names_its_zone() {
    let t = at("2026-12-24T14:00:00Z");
    for text in
        ["2026-12-24 15:00 Europe/Berlin", "2026-12-24T15:00 Europe/Berlin", "2026-12-24T15:00:00+01:00"]
    {
        assert_eq!(moment(text), Ok(t), "{text}");
    }
    assert!(moment("2026-12-24T15:00").unwrap_err().starts_with("expected a time with its zone"));
    assert_eq!(moment("2026-12-24 15:00 Europe/Berln").unwrap_err(), "there is no time zone Europe/Berln");
    assert!(local("2026-12-18T00:00+01:00").is_err());
}
