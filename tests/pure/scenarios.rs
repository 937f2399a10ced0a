//! Whole rollouts, each with the whole trace it must leave: one test a file of `tests/scenarios`, of the same name.
//! `SLUICE_WRITE_TRACES=1` rewrites the traces of the tests that run, and the digests of the states they end in.
//!
//! The digests stand apart, in `tests/scenarios/digests`: a stored field more changes them all, and none of the traces.
//!
//! Beside the trace, every scenario is replayed from its stored bytes, folded again from a snapshot in its middle, and
//! checked against the invariants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use sluice::core::event::Event;
use sluice::core::state::State;
use sluice::core::words::line;
use sluice::invariants::Checker;
use sluice::replay::Verifier;
use sluice::sim::script::{self, Entry};
use sluice::wire::{envelope, policy_file};

macro_rules! scenarios {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];

        $(#[test]
        fn $name() {
            plays(stringify!($name));
        })*
    };
}

scenarios! {
    a_first_step_waits_for_windows_and_freezes
    ab_is_won_at_the_horizon
    ab_that_is_not_won_keeps_the_old_one
    ab_with_a_broken_split_is_held
    actuator_that_refuses_is_named
    alert_that_gates_does_not_let_pass
    approval_is_the_last_gate
    benefit_in_one_region_excuses_no_other
    blue_green_sends_canary_traffic_first
    blue_green_that_fails_never_gets_all
    both_a_little_worse_roll_back
    broken_split_holds
    bundle_changes_one_part
    clock_set_forward_is_not_watched
    closed_window_is_overridden_on_record
    cohort_is_not_promoted_by_the_one_before
    cohort_that_suffers_takes_all_back
    cohorts_internal_beta_general
    cold_caches_are_not_compared
    complaints_of_named_users_roll_back
    completed_is_taken_back_while_kept
    condition_asks_about_a_trade_off
    confirmed_shown_and_tested
    crash_is_caught_by_the_absolute_guard
    dearer_model_raises_the_alert
    downtime_is_not_watched
    effective_is_what_telemetry_shows
    excuse_that_lapses_rolls_back
    few_dear_answers_raise_the_alert
    freeze_ends_by_its_time
    freeze_holds_and_harm_still_rolls_back
    good_model_is_promoted
    grades_that_get_lost_hold
    index_is_filled_compared_and_shifted
    index_that_answers_worse_stays_in_the_shadow
    index_that_lost_documents_is_not_believed
    late_regression_is_caught_in_the_soak
    leak_in_the_soak_takes_all_back
    leaks_are_counted_over_all_steps
    lying_router_is_named
    more_complaints_roll_back
    nearly_everything
    newer_change_supersedes
    no_telemetry_is_held_then_rolled_back
    operator_is_refused_what_is_over
    operator_promotes_early
    pairs_decide_on_few_answers
    pause_freezes_the_bake_and_not_the_guard
    paused_and_resumed
    prompt_from_git_names_its_commits
    queued_change_is_withdrawn
    region_that_fails_alone_holds
    region_that_fails_goes_back_alone
    region_that_fails_late_goes_back_with_the_next
    region_that_fails_takes_all_back
    region_that_goes_back_slowly_goes_alone
    restart_resends_the_open_command
    restarts_do_not_hide_harm
    retry_needs_a_finding
    rollback_is_taken_as_done_by_a_person
    rollback_that_is_not_effective_is_not_over
    second_attempt_starts_afresh
    second_change_waits_its_turn
    shared_scope_waits
    silence_is_not_good_news
    silent_actuator_is_named
    silent_router_holds_the_step
    silent_router_is_named_and_taken_back
    skip_stops_at_a_guardrail
    slow_router_is_no_complaint
    slower_but_better_waits_for_a_person
    slower_tail_rolls_back
    small_drop_asks_a_person
    smoke_test_runs_again_after_a_restart
    smoke_test_that_fails_takes_all_back
    smoke_test_that_hangs_takes_all_back
    smoke_test_that_holds_is_overridden
    smoke_tests_pass_at_every_step
    source_that_is_silent_is_broken
    stale_window_counts_as_closed
    start_that_is_not_confirmed_is_taken_back
    submitter_does_not_approve
    telemetry_that_stops_is_stale
    tickets_come_in_after_the_step_seemed_well
    too_few_samples_keep_baking
    two_routers_must_both_confirm
    what_serves_is_nothing_to_roll_out
    who_tells_of_leaks_only_is_not_heard
    window_in_the_hour_that_autumn_repeats
    window_in_the_hour_that_spring_skips
    window_keeps_both_steps_waiting
    worse_feedback_holds
    worse_grades_roll_back
    worse_model_is_rolled_back
}

#[test]
fn every_script_is_a_test() {
    let files =
        std::fs::read_dir(folder()).expect("tests/scenarios").map(|entry| entry.expect("a file").path());
    let scripts = files.filter(|path| path.extension().is_some_and(|ext| ext == "scn"));
    let scripts = scripts.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned());
    let unlisted = |name: &String| !NAMES.contains(&name.as_str());
    let missing: Vec<String> = scripts.filter(unlisted).collect();
    assert!(missing.is_empty(), "no tests of {missing:?}: add them to the list in tests/pure/scenarios.rs");
    let stale: Vec<String> = digests().into_keys().filter(unlisted).collect();
    assert!(stale.is_empty(), "tests/scenarios/digests has {stale:?}, which are no scripts");
}

/// Whether `test` is one of these, and its trace says `what`.
pub fn says(test: &str, what: &str) -> Result<(), String> {
    let name = test.strip_prefix("pure::scenarios::").ok_or(format!("{test} is no scenario"))?;
    let path = folder().join(name).with_extension("scn");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
    let [_, _, trace] = script::parts(&text)?;
    trace.contains(what).then_some(()).ok_or_else(|| format!("the trace of {name} does not say {what:?}"))
}

/// Plays the script; its trace must be the recorded one, and its state have the recorded digest.
fn plays(name: &str) {
    let path = folder().join(name).with_extension("scn");
    let text = std::fs::read_to_string(&path).expect("readable");
    let [policy_text, commands, recorded] = script::parts(&text).unwrap_or_else(|e| panic!("{e}"));
    let policy = policy_file::parse_policy(policy_text, name).unwrap_or_else(|e| panic!("{e}"));
    let (runner, events) = script::run(policy, policy_text, commands, 7).unwrap_or_else(|e| panic!("{e}"));
    check_replay(&events, &runner.state);
    let (replayed, digest) = (trace(&events), runner.state.digest().short());
    if std::env::var_os("SLUICE_WRITE_TRACES").is_some() {
        let kept = text.strip_suffix(recorded).expect("the trace is the end");
        std::fs::write(&path, format!("{kept}{replayed}")).expect("writable");
        write_digest(name, digest);
        return;
    }
    if let Some((a, b)) = recorded.lines().zip(replayed.lines()).find(|(a, b)| a != b) {
        panic!("\n  RECORDED {a}\n  REPLAYED {b}");
    }
    assert_eq!(recorded.lines().count(), replayed.lines().count(), "lines recorded, lines replayed");
    assert_eq!(digests().get(name), Some(&digest), "the state it ends in");
}

/// Events that every second or minute brings; the last line of a trace counts them, and the digest pins them.
fn is_routine(event: &Event) -> bool {
    matches!(
        event,
        Event::BatchReceived { .. }
            | Event::CohortScored { .. }
            | Event::TimePassed
            | Event::EngineAdopted { .. }
    )
}

fn trace(events: &[Entry]) -> String {
    let told = events.iter().filter(|(_, _, event)| !is_routine(event));
    let mut text = String::new();
    for (_, at, event) in told {
        let line = line::line(0, *at, events[0].1, event);
        text.push_str(line.trim_start().trim_start_matches("0 "));
        text.push('\n');
    }
    let decided = events.iter().filter(|(_, _, e)| matches!(e, Event::DecisionMade { .. })).count();
    text.push_str(&format!("{} events, {decided} decisions\n", events.len()));
    text
}

/// The stored form of the history decides the same again, and a snapshot in its middle changes nothing.
fn check_replay(events: &[Entry], state: &State) {
    let mut head = envelope::Head::default();
    let mut group = envelope::Group::after(head);
    for (_, at, event) in events {
        group.push(event, *at).unwrap_or_else(|e| panic!("{e}"));
    }
    let (mut verifier, mut invariants) = (Verifier::default(), Checker::default());
    let (mut offset, mut snapshot) = (0, None);
    while offset < group.bytes().len() {
        let record = head.accept(group.bytes(), &mut offset).unwrap_or_else(|e| panic!("{e}"));
        let e = record.envelope().unwrap_or_else(|e| panic!("{e}"));
        verifier.next(e.seq, e.at, &e.event).unwrap_or_else(|d| panic!("{d}\n{d:?}"));
        invariants.next(e.seq, e.at, &e.event).unwrap_or_else(|v| panic!("{v}"));
        if let Some(state) = &mut snapshot {
            State::apply(state, e.seq, e.at, &e.event);
        } else if e.seq == events.len() as u64 / 2 {
            let bytes = rmp_serde::to_vec_named(&verifier.state).expect("storable");
            snapshot = Some(State::stored(&bytes).expect("readable"));
        }
    }
    verifier.settled().unwrap_or_else(|d| panic!("{d}"));
    invariants.settled().unwrap_or_else(|v| panic!("{v}"));
    assert_eq!(verifier.state.digest(), state.digest(), "replayed state");
    assert_eq!(snapshot.expect("half way").digest(), state.digest(), "state after a snapshot");
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// The digests are one file for all scenarios, which are played side by side.
static DIGESTS: Mutex<()> = Mutex::new(());

fn digests() -> BTreeMap<String, String> {
    let _alone = DIGESTS.lock();
    read_digests()
}

fn read_digests() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder().join("digests")).expect("tests/scenarios/digests");
    let lines = text.lines().map(|line| line.split_once(' ').expect("a name and a digest"));
    lines.map(|(name, digest)| (name.to_owned(), digest.to_owned())).collect()
}

fn write_digest(name: &str, digest: String) {
    let _alone = DIGESTS.lock();
    let mut digests = read_digests();
    digests.insert(name.to_owned(), digest);
    let lines: String = digests.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect();
    std::fs::write(folder().join("digests"), lines).expect("writable");
}
