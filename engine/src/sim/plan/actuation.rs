//! What a seed's policies say of actuators, of what telemetry has to show, and of smoke tests; and how these end.

use super::{Draw, random};
use crate::core::event::smoke::{SmokeAsk, SmokeOutcome};

/// The list of actuators as the policy file has it.
pub fn actuators(seed: u64, names: &[&str]) -> String {
    let mut r = random(seed, Draw::CarriedOut, 0);
    let declared = r.chance(0.5);
    let entry = |name: &&str| {
        let (declared, own) = (declared && r.chance(0.7), r.chance(0.5));
        let (within, every) = (20 + r.below(100), 15 + r.below(90));
        let silent = if r.chance(0.5) { "rollback" } else { "hold" };
        let (subject, schedule) = (r.chance(0.3), r.chance(0.6));
        if !declared {
            return (*name).to_owned();
        }
        let mut text = format!("{{name: {name}, on_silent: {silent}");
        text += &if own { format!(", ack_within: {within}s") } else { String::new() };
        text += &if schedule { format!(", resend_every: {every}s") } else { String::new() };
        text + &if subject { format!(", subject: routers.{name}}}") } else { "}".into() }
    };
    names.iter().map(entry).collect::<Vec<_>>().join(", ")
}

/// Further lines of the policy file.
pub fn further(seed: u64) -> String {
    let mut r = random(seed, Draw::CarriedOut, 1);
    let mut text = String::new();
    if r.chance(0.45) {
        let (within, after) = (120 + r.below(180), [0, 0, 10][r.below(3) as usize]);
        text += &format!("  effective: {{within: {within}s, after: {after}s}}\n");
    }
    if r.chance(0.45) {
        let on_fail = if r.chance(0.5) { "rollback" } else { "hold" };
        let at = if r.chance(0.3) { "first" } else { "every" };
        text += &format!(
            "  smoke:\n    - {{name: golden, command: [/opt/golden], timeout: 3m, on_fail: {on_fail}, at: {at}}}\n"
        );
        if r.chance(0.4) {
            text += "    - {name: handshake, request: tests.handshake, timeout: 30s}\n";
        }
    }
    text
}

/// How a run of a smoke test ends: after how many ms, and whether that is said twice, or of a test that nobody knows.
pub struct Ending {
    pub after: u64,
    pub outcome: SmokeOutcome,
    pub twice: bool,
    pub strange: bool,
}

/// How the `attempt`th run of a test ends. Once trouble is over all pass.
pub fn ending(seed: u64, ask: &SmokeAsk, healed: bool) -> Ending {
    let mut r = random(seed, Draw::Smoke, ask.id.0.as_u128() as u64 ^ u64::from(ask.attempt));
    let (after, sort, strange) = (r.below(150_000), r.below(20), r.chance(0.05));
    let outcome = match sort {
        _ if healed => SmokeOutcome::Passed,
        0 | 1 => SmokeOutcome::Failed,
        2 => SmokeOutcome::TimedOut,
        3 => SmokeOutcome::CouldNotRun,
        _ => SmokeOutcome::Passed,
    };
    let hangs = outcome == SmokeOutcome::TimedOut || after >= ask.timeout.0;
    let outcome = if hangs { SmokeOutcome::TimedOut } else { outcome };
    Ending { after: if hangs { ask.timeout.0 } else { after }, outcome, twice: sort == 4, strange }
}
