//! What is understood and not done, by its code and in full.

use sluice::core::event::Event;
use sluice::core::event::fact::{Ack, AckStatus, Origin};
use sluice::core::ids::{Actuator, CommandId, Service};
use sluice::core::words;
use sluice::sim::script;
use sluice::wire::policy_file::parse_policy;

const POLICY: &str = "
apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: quick}
spec:
  applies_to: [model]
  exposure:
    percent:
      - {to: 10%, bake: 1h}
      - {to: 100%}
    soak: 10m
  guardrails:
    - {metric: error, kind: absolute, above: 20%, of_last: 200, on_fail: rollback}
";

/// `code message` of what is refused of `script`, under the policy with `more` in it; of the facts that come behind too.
fn refused(more: &str, script: &str, facts: impl FnOnce(&script::Entry) -> Vec<Event>) -> Vec<String> {
    let text = format!("{POLICY}{more}");
    let policy = parse_policy(&text, "p.yaml").unwrap();
    let script =
        format!("traffic assistant 5/s\nversion a error=chance:0.01\nversion b error=chance:0.01\n{script}");
    let (mut runner, mut log) = script::run(policy, &text, &script, 7).unwrap();
    let issued = log.iter().rev().find(|(_, _, event)| event.kind() == "command.issued");
    for fact in issued.map(facts).unwrap_or_default() {
        let at = runner.state.now;
        runner.take(at, fact, &mut |seq, at, event| log.push((seq, at, event.clone())));
    }
    let refusals = log.iter().filter_map(|(_, _, event)| match event {
        Event::IntentRefused { refusal, .. }
        | Event::ActRefused { refusal, .. }
        | Event::FreezeRefused { refusal, .. }
        | Event::AckRefused { refusal, .. } => Some(refusal),
        _ => None,
    });
    refusals.map(|refusal| format!("{} {}", refusal.code(), words::refusal::text(refusal))).collect()
}

fn none(_: &script::Entry) -> Vec<Event> {
    Vec::new()
}

#[test]
fn an_approval_that_counts_for_nothing() {
    let script = "intent a -> b by maya: faster\nrun 1m\nact approve by li: fine\n";
    let told = "E0318 the next step of assistant-1 needs no approval";
    assert_eq!(refused("", script, none), [told]);
    let script = format!("{script}act approve by li: again\n");
    let told = "E0319 li has already approved the next step of assistant-1";
    assert_eq!(refused("  approvals: [{before: 100%, by: 2}]\n", &script, none), [told]);
}

#[test]
fn a_promotion_of_what_has_nothing_ahead() {
    let script = "intent a -> b by maya: faster\nrun 1m\nintent a -> c by maya: faster still\n\
                  act promote by li on assistant-2: now\nact promote by li on assistant-1: now\nrun 1m\n\
                  act promote by li on assistant-1: more\n";
    assert_eq!(
        refused("", script, none),
        [
            "E0321 promote refused: assistant-2: it has not started",
            "E0321 promote refused: assistant-1: it already has all traffic",
        ]
    );
}

#[test]
fn one_freeze_more_than_there_may_be() {
    let freezes: String = (0..257).map(|i| format!("freeze s-{i} by li: outage\n")).collect();
    let told = "E0341 256 freezes are on; end one, or freeze everything: sluice freeze";
    assert_eq!(refused("", &freezes, none), [told]);
}

#[test]
fn an_intent_that_does_not_say_what_serves() {
    let told = "E1030 change.from is missing, and what serves assistant now is not known; name it";
    assert_eq!(refused("", "intent ? -> b by maya: faster\n", none), [told]);
    let bundles = "bundle b model=m@2\nintent a -> b by maya: faster\n";
    let told = "E1037 what a, which serves assistant, is made of is not known, so which parts would change cannot \
                be told; name them: change.from_bundle";
    assert_eq!(refused("", bundles, none), [told]);
}

#[test]
fn an_intent_for_which_there_is_no_place() {
    let told = "E1033 assistant-1 is active on assistant, and the policy takes one at a time";
    let two = "intent a -> b by maya: faster\nintent a -> c by maya: faster still\n";
    assert_eq!(refused("  concurrency: refuse\n", two, none), [told]);
    let many: String = (0..18).map(|i| format!("intent a -> v{i} by maya: faster\n")).collect();
    assert_eq!(refused("", &many, none), ["E1034 16 rollouts already wait on assistant; limit 16"]);
}

#[test]
fn an_ack_that_nobody_waits_for() {
    let ack = |service: &str, command, actuator: &str| Event::AckReceived {
        ack: Ack {
            service: Service::from(service),
            command,
            actuator: Actuator::from(actuator),
            status: AckStatus::Applied,
            took_ms: None,
            done: None,
        },
        origin: Origin::default(),
    };
    let facts = |(_, _, issued): &script::Entry| {
        let Event::CommandIssued { command, .. } = issued else { unreachable!() };
        let stray = CommandId::default();
        vec![
            ack("assistant", command.id, "router"),
            ack("assistant", stray, "default"),
            ack("other", stray, "default"),
        ]
    };
    let command = "1aebf54b-48ad-5c5f-89cd-498c71d596b5";
    let stray = "00000000-0000-0000-0000-000000000000";
    assert_eq!(
        refused("", "intent a -> b by maya: faster\n", facts),
        [
            format!("E2101 command {command} is not for actuator router; it is for default"),
            format!("E2101 service assistant waits for command {command}, not {stray}; no effect"),
            format!("E2101 service other waits for no confirmation; {stray} has no effect"),
        ]
    );
}
