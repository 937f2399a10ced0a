//! What is printed of the evidence behind an event, read as by somebody who is no statistician.

use sluice::core::event::Event;
use sluice::core::event::decision::Choice;
use sluice::core::evidence::verdict::Verdict;
use sluice::shell::log::{Log, OpenOptions};
use sluice::sim::script::Entry;
use sluice::wire::envelope::Group;

use super::*;
use crate::scenario::history;

/// A log of these events, and the folder that it is in.
pub fn kept(entries: &[Entry]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let Event::LogCreated { log, .. } = entries[0].2 else { panic!("{:?}", entries[0]) };
    let options = OpenOptions { ballast: 0, log_id: Some(log), ..OpenOptions::default() };
    let mut log = Log::open(dir.path(), &options).expect("a log").log;
    for entries in entries.chunks(500) {
        let mut group = Group::after(log.head());
        for (_, at, event) in entries {
            group.push(event, *at).expect("it fits");
        }
        log.append(&group).expect("it is written");
    }
    log.close().expect("closed");
    dir
}

fn explained(dir: &tempfile::TempDir, seq: u64, more: &[&str]) -> Output {
    let (seq, data) = (seq.to_string(), dir.path().display().to_string());
    run(&[&["replay", "--explain", &seq, "--data", &data], more].concat())
}

#[track_caller]
fn first(entries: &[Entry], what: impl Fn(&Event) -> bool) -> u64 {
    entries.iter().find(|entry| what(&entry.2)).expect("such an event").0
}

fn decided(choice: Choice) -> impl Fn(&Event) -> bool {
    move |e| matches!(e, Event::DecisionMade { decision, .. } if decision.choice == choice)
}

fn said(verdict: Verdict) -> impl Fn(&Event) -> bool {
    move |e| matches!(e, Event::VerdictReached { reading, .. } if reading.verdict == verdict)
}

/// What must never be said of evidence.
#[track_caller]
fn sound(page: &str) {
    for never in ["probab", "p =", "p=", "significan", "no problem", "% sure", "likely"] {
        assert!(!page.to_lowercase().contains(never), "{never}: {page}");
    }
}

/// The number after `before` in a page.
#[track_caller]
fn number(page: &str, before: &str) -> f64 {
    let rest = page.split_once(before).unwrap_or_else(|| panic!("{before} is not in {page}")).1.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("no number after {before}: {page}"))
}

#[test]
fn a_rollback_by_the_average_adds_up_on_the_page() {
    let entries = history("both_a_little_worse_roll_back");
    let dir = kept(&entries);
    let back = first(&entries, decided(Choice::Rollback));
    let Event::DecisionMade { decision, .. } = &entries[back as usize - 1].2 else { unreachable!() };
    for seq in [back, first(&entries, said(Verdict::Fail))] {
        let page = ok(&explained(&dir, seq, &[]));
        sound(&page);
        let sum = number(&page, "\nsum ");
        let row = |name: &str| -> Vec<f64> {
            let together = page.split_once("the rollback guardrails together: ").expect("a table").1;
            let line = together.lines().find(|line| line.starts_with(name)).expect("a row");
            line.split_whitespace()
                .skip(1)
                .filter_map(|cell| cell.trim_end_matches('x').parse().ok())
                .collect()
        };
        let (eval, helped) = (row("eval_pass"), row("helped"));
        for part in [&eval, &helped] {
            assert!((part[0] * part[1] - part[2]).abs() < 2e-4, "{page}");
        }
        assert!((eval[2] + helped[2] - sum).abs() < 2e-4 && sum >= 16.0, "{page}");
        assert!((sum - decision.harm_ln.exp()).abs() < 1e-4);
        assert!(eval[1] < 32.0 && helped[1] < 32.0, "neither has what it needs by itself: {page}");
        assert_eq!(page.matches("carries most of it: fails").count(), 1);
        assert!(
            page.contains(" of the 16x needed\nGUARDRAIL ") && page.contains(" of the 32x needed\n"),
            "{page}"
        );
        let recorded = format!("; recorded {:.4}x\n", decision.harm_ln.exp());
        assert_eq!(page.contains(&recorded), seq == back, "{page}");
        let means = "Had the canary been within the limits of both guardrails that may roll back on evidence, this would \
                     happen in at most 6.3% of rollouts.\n";
        assert_eq!(page.contains(means), seq == back, "{page}");
        assert_eq!(page.contains("\nIt has failed since event "), seq == back, "{page}");
        let n = eval[1].max(helped[1]) as u64;
        assert!(page.contains(&format!("  At most 1 in {n} healthy canaries would ever show ")), "{page}");
        assert!(page.ends_with("\nidentical to the record, word for word\n"), "{page}");
    }
}

#[test]
fn what_is_safe_what_is_open_and_what_is_never_found_is_said_with_the_policys_numbers() {
    let entries = history("good_model_is_promoted");
    let dir = kept(&entries);
    let pass = |name: &'static str| {
        move |e: &Event| {
            matches!(e, Event::VerdictReached { reading, .. }
                if reading.verdict == Verdict::Pass && reading.name == name)
        }
    };
    let page = ok(&explained(&dir, first(&entries, pass("eval_pass")), &[]));
    sound(&page);
    assert!(
        page.contains(
            "\n  Shown to be less than 3 points worse; false in at most 20% of canaries that bad.\n"
        ),
        "{page}"
    );
    assert!(
        page.contains("\n  Differences of less than 0.75 points beyond the limit may never be found.\n"),
        "{page}"
    );

    let open = first(&entries, said(Verdict::Undecided));
    let page = ok(&explained(&dir, open, &[]));
    sound(&page);
    assert!(page.contains("\n  Not enough evidence yet.\n"), "{page}");
    assert!(page.contains("evidence of harm: none of the "), "{page}");

    // The last step asks for more.
    let last = entries.iter().rfind(|entry| decided(Choice::Promote)(&entry.2)).expect("a promotion").0;
    let page = ok(&explained(&dir, last, &[]));
    let others =
        "\nJudged with it: eval_pass, error.absolute, cost_usd, feedback_down; --guardrail NAME shows one\n";
    assert!(page.starts_with("assistant-1 error at event ") && page.contains(others), "{page}");
    let shown = "\n  Shown to be less than 50% of the baseline plus 0.5 points worse; false in at most 5% of canaries that bad.\n";
    assert!(page.contains(shown), "{page}");
    let multiples: Vec<&str> = page.split_whitespace().filter_map(|word| word.strip_suffix('x')).collect();
    assert!(multiples.iter().any(|n| n.contains(',') && *n != "1,000,000"), "evidence of thousands: {page}");
    let long = |n: &&&str| n.find('.').is_some_and(|digits| digits > 3);
    assert_eq!(multiples.iter().find(long), None, "{page}");
    let page = ok(&explained(&dir, last, &["--guardrail", "eval_pass"]));
    assert!(page.contains("; false in at most 5% of canaries that bad.\n"), "{page}");
    let json: Value =
        serde_json::from_str(&ok(&explained(&dir, last, &["--guardrail", "eval_pass", "-o", "json"])))
            .unwrap();
    let sentences = json["meaning"].as_array().expect("sentences");
    assert!(sentences.iter().all(|said| page.contains(said.as_str().unwrap())), "{json}");
    assert_eq!((&json["verified"], &json["difference"]), (&true.into(), &Value::Null));
}

#[test]
fn both_sides_of_a_missing_share_and_a_slice_with_its_family_are_shown() {
    let entries = history("grades_that_get_lost_hold");
    let page = ok(&explained(&kept(&entries), first(&entries, said(Verdict::Fail)), &[]));
    sound(&page);
    for part in [
        "x needed, the average of two sides\n",
        "\n  of more missing than the limit allows: ",
        "\n  of less missing than the limit allows: none\n",
        "  MORE MISSING  ",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("evidence of safety") && !page.contains("SAFE"), "it cannot show safety: {page}");

    let entries = history("region_that_fails_alone_holds");
    let alert = first(&entries, |e| matches!(e, Event::AlertRaised { .. }));
    let page = ok(&explained(&kept(&entries), alert, &[]));
    sound(&page);
    for part in [
        "assistant-1 eval_pass[region=jp] at event ",
        "\n  At most 1 in 20 canaries that are well in all 5 judged slices is ever stopped by one of them, however often you look.\n",
        "\n5 slices are judged together: the first k are found if the k-th has what k of them need; found: 1\n",
        "x of the 100x needed  found: beyond its limit\n",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn a_reference_that_was_changed_is_an_error_with_both_sides() {
    let mut entries = history("both_a_little_worse_roll_back");
    let back = first(&entries, decided(Choice::Rollback));
    let frozen = first(&entries, |e| matches!(e, Event::ReferenceFrozen { .. }));
    match &mut entries[frozen as usize - 1].2 {
        Event::ReferenceFrozen { reference, .. } => reference.theta += 0.01,
        _ => unreachable!(),
    }
    let output = explained(&kept(&entries), back, &[]);
    let page = text(&output.stdout);
    assert_eq!(output.status.code(), Some(21), "{page}");
    let told = format!("\nDIFFERS from what event {frozen} recorded\nassistant-1, seq {frozen}, ");
    assert!(
        page.contains(&told) && page.contains("first difference: ReferenceFrozen.reference.theta: RECORDED "),
        "{page}"
    );
}

#[test]
fn a_guardrail_that_only_counts_has_no_evidence_to_show() {
    let entries = history("crash_is_caught_by_the_absolute_guard");
    let page = ok(&explained(&kept(&entries), first(&entries, decided(Choice::Rollback)), &[]));
    sound(&page);
    assert!(page.contains("\n  It counts against a fixed limit and compares nothing: "), "{page}");
    for never in ["evidence of harm: ", "by cohort", "of rollouts", "healthy"] {
        assert!(!page.contains(never), "{never}: {page}");
    }
}
