//! What sluice acknowledged outlives `kill -9`, whenever it comes.
//!
//! A writer submits intents without a pause; the daemon is killed once a few have their receipts, so
//! that the kill meets some request half done. After the restart each acknowledged intent, submitted
//! again, must get the very receipt it got before: it is still there, and it took effect once.
//! `rollout`: a rollout is carried to the end it has without kills. `broker`: what was durable and not yet said, or
//! said and not confirmed, when the kill came.
//! A kill tests the process, not the disk: the page cache survives it. Power cuts are another matter.

mod broker;
mod rollout;

use std::path::Path;
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::support::{DEADLINE, Daemon, sluice_in, try_post};

#[test]
fn receipts_outlive_three_kills() {
    receipts_outlive(3);
}

#[test]
#[ignore = "takes minutes: make kill-test N=200"]
fn receipts_outlive_many_kills() {
    receipts_outlive(kills());
}

/// How many kills a long run is asked for.
fn kills() -> u32 {
    let kills = std::env::var("SLUICE_KILLS").unwrap_or_else(|_| "200".to_owned());
    kills.parse().expect("SLUICE_KILLS is a number")
}

/// Ends the daemon; then its log is whole and replays, wherever it is looked at.
fn assert_sound(daemon: &mut Daemon) {
    assert!(daemon.terminate().success());
    let data = daemon.data().display().to_string();
    for verb in [&["log", "verify", "--data", &data], &["replay", "--verify", "--data", &data]] {
        for place in [&[][..], &[("TZ", "Asia/Kolkata"), ("LC_ALL", "tr_TR.UTF-8")]] {
            let (code, output) = sluice_in(place, verb);
            assert_eq!(code, Some(0), "{verb:?} with {place:?}: {output}");
        }
    }
}

fn receipts_outlive(kills: u32) {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/policies");
    let mut daemon = Daemon::start(None, Some(&policies));
    let mut receipts = Vec::new();
    for round in 0..kills {
        let url = daemon.url("/v1/intents");
        let (acknowledged, arrived) = mpsc::channel();
        let writer = std::thread::spawn(move || write_until_killed(&url, round, &acknowledged));
        // 1 to 5 receipts, then the kill: over the rounds it meets young and busy daemons.
        for _ in 0..=round % 5 {
            receipts.push(arrived.recv_timeout(DEADLINE).expect("a receipt"));
        }
        daemon.kill9();
        writer.join().expect("the writer");
        // Receipts that were on their way when the kill came count too.
        receipts.extend(arrived.try_iter());
        daemon.restart();
        // A daemon that forgot its receipts would hand out the same ones again. It shows here: the next
        // receipt must come after all of them.
        let (_, next) = daemon.post("/v1/intents", &intent(round, "after"));
        let last = receipts.iter().map(|(_, receipt)| seq(receipt)).max().expect("a receipt");
        assert!(seq(&next) > last, "sequence {last} was acknowledged, then {next} after kill {round}");
        assert_kept(&daemon, &receipts[receipts.len().saturating_sub(20)..]);
    }
    assert_kept(&daemon, &receipts);
    assert_sound(&mut daemon);
    println!("{} receipts outlived {kills} kills", receipts.len());
}

/// An intent and the receipt it got.
type Receipt = (Value, Value);

/// Submits intents, each for a service of its own, until the daemon is gone.
fn write_until_killed(url: &str, round: u32, acknowledged: &mpsc::Sender<Receipt>) {
    for n in 0_u32.. {
        let intent = intent(round, &n.to_string());
        let Some((status, receipt)) = try_post(url, &intent) else { return };
        assert!((200..300).contains(&status), "{intent} is answered with {status} {receipt}");
        acknowledged.send((intent, receipt)).expect("the test still listens");
    }
}

fn intent(round: u32, name: &str) -> Value {
    json!({
        "id": format!("kill-{round}-{name}"), "service": format!("service-{round}-{name}"),
        "change": {"kind": "prompt", "from": "prompt@41", "to": "prompt@42"},
        "policy": "quick", "by": "maya", "reason": "a better answer",
    })
}

fn seq(receipt: &Value) -> u64 {
    receipt["seq"].as_u64().unwrap_or_else(|| panic!("the receipt {receipt} has no sequence"))
}

fn assert_kept(daemon: &Daemon, receipts: &[Receipt]) {
    for (intent, receipt) in receipts {
        let (_, again) = daemon.post("/v1/intents", intent);
        assert_eq!(seq(&again), seq(receipt), "sequence of {intent}");
        assert_eq!(again["rollout"], receipt["rollout"], "rollout of {intent}");
    }
}
