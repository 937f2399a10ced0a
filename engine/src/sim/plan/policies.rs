//! The policies of a seed.

use super::{Draw, MINUTE, Way, Ways, random};
use crate::core::policy::Policy;
use crate::core::policy::guardrail::GuardrailKind;
use crate::sim::random::Random;
use crate::wire::policy_file;

/// Further guardrails of a seed: few at once, for each costs time.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    pub some: Vec<GuardrailKind>,
    pub histograms: bool,
    /// A quantile that fails is excused by better answers.
    pub trade: bool,
    warm_up: bool,
    /// Answers that fail are graded later than those that pass.
    pub slow_grades: bool,
    /// Grades say who graded them, and now and then that is somebody else.
    pub judges: bool,
    /// A suite of grades that fails holds.
    pub judges_slices: bool,
    /// How often it may happen that a version leaks, and who tells.
    pub stop: Option<(u64, Detector)>,
}

/// What looks for leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detector {
    /// It says how many it looked at, leaks or not.
    Sound,
    /// It speaks of leaks only.
    Mute,
    /// It dies so many ms after the start.
    Dies(u64),
}

/// Limits of the further guardrails: points of grades, pairs and missing values, factors of quantiles and counts.
pub const POINTS: f64 = 0.05;
pub const SLOWER: f64 = 0.3;
pub const OFTENER: f64 = 0.5;
/// Limit of the cost that every policy watches.
pub const DEARER: f64 = 0.2;

impl Kinds {
    pub(super) fn draw(seed: u64) -> Kinds {
        use GuardrailKind::{Count, Missing, Paired, Quantile, Score, Split, Stop};
        let mut r = random(seed, Draw::Kinds, 0);
        let all = [Score, Quantile, Paired, Count, Split, Missing, Quantile, Count];
        let n = [0, 0, 1, 1, 2][r.below(5) as usize];
        let mut some: Vec<GuardrailKind> = (0..n).map(|_| all[r.below(8) as usize]).collect();
        some.dedup();
        let trade = some.contains(&Quantile) && r.chance(0.5);
        let (histograms, warm_up, slow_grades) = (r.chance(0.4), r.chance(0.2), r.chance(0.3));
        let judges_slices = r.chance(0.3);
        let judges = r.chance(0.5);
        let stop = Kinds::stop(seed);
        let kinds = Kinds { some, histograms, trade, warm_up, slow_grades, judges, judges_slices, stop };
        let kinds = if judges_slices { kinds.with(&[Score]) } else { kinds };
        if stop.is_some() { kinds.with(&[Stop]) } else { kinds }
    }

    fn stop(seed: u64) -> Option<(u64, Detector)> {
        let mut r = random(seed, Draw::Stop, 0);
        let detector = match r.below(8) {
            0 => Detector::Mute,
            1 => Detector::Dies((10 + r.below(60)) * MINUTE),
            _ => Detector::Sound,
        };
        let allowed = [0, 0, 1, 3][r.below(4) as usize];
        r.chance(0.12).then_some((allowed, detector))
    }

    /// And `more`.
    pub(super) fn with(mut self, more: &[GuardrailKind]) -> Kinds {
        more.iter().for_each(|kind| {
            if !self.some.contains(kind) {
                self.some.push(*kind);
            }
        });
        self
    }

    fn guardrails(&self) -> String {
        let line = |kind: &GuardrailKind| {
            let of = match kind {
                GuardrailKind::Score if self.judges_slices => {
                    "metric: grade, kind: score, better: higher, limit: 5pp, on_fail: hold, gates: true, slices: {tag: suite, values: [s0, s1, s2], on_fail: hold}"
                }
                GuardrailKind::Score => {
                    "metric: grade, kind: score, better: higher, limit: 5pp, on_fail: hold, gates: true, slices: suite"
                }
                GuardrailKind::Quantile if self.trade => {
                    "metric: latency_ms, kind: quantile, q: 0.9, better: lower, limit: 30%, on_fail: rollback, weight: 0.2, unless: {benefit: eval_pass, by: 1pp}"
                }
                GuardrailKind::Quantile => {
                    "metric: latency_ms, kind: quantile, q: 0.9, better: lower, limit: 30%, on_fail: hold, gates: true"
                }
                GuardrailKind::Paired => {
                    "metric: shadow, kind: paired, better: higher, limit: 5pp, on_fail: hold, gates: true"
                }
                GuardrailKind::Count => {
                    "metric: complaint, kind: count, limit: 50%, on_fail: hold, gates: true"
                }
                GuardrailKind::Split => "metric: assigned, kind: split, on_fail: hold",
                GuardrailKind::Missing => {
                    "metric: reply, kind: missing, of: request, limit: 5pp, maturity: 1m, on_fail: hold"
                }
                GuardrailKind::Stop => {
                    let allowed = self.stop.map_or(0, |(allowed, _)| allowed);
                    return format!(
                        "    - {{metric: leak, kind: stop, allowed: {allowed}, on_fail: rollback}}\n"
                    );
                }
                // Every policy has them.
                GuardrailKind::Proportion | GuardrailKind::Mean | GuardrailKind::Absolute => {
                    return String::new();
                }
            };
            format!("    - {{{of}}}\n")
        };
        self.some.iter().map(line).collect()
    }
}

/// The change windows of a seed, for some: an hour is long in a history.
pub(super) fn windows(seed: u64) -> String {
    let mut r = random(seed, Draw::Windows, 0);
    if !r.chance(0.35) {
        return String::new();
    }
    let mut text = String::from("  windows:\n");
    let zone = ["Europe/Berlin", "Asia/Kolkata", "America/New_York", "UTC"][r.below(4) as usize];
    if r.chance(0.7) {
        let (minute, lasts) = (r.below(60), 15 + r.below(40));
        text += &format!("    allow: [{{cron: \"0 {minute} * * * *\", duration: {lasts}m, tz: {zone}}}]\n");
    }
    if r.chance(0.5) {
        let (minute, lasts) = (r.below(60), 3 + r.below(15));
        text += &format!(
            "    deny: [{{cron: \"0 {minute} * * * *\", duration: {lasts}m, tz: {zone}, reason: backup}}]\n"
        );
    }
    let (from, lasts) = (r.below(60), 10 + r.below(40));
    let clock = |minute: u64| format!("2026-01-05T{:02}:{:02}", 9 + minute / 60, minute % 60);
    let (from, to) = (clock(from), clock(from + lasts));
    text += &format!("    freeze: [{{from: {from}, to: {to}, tz: UTC, reason: stocktaking}}]\n");
    text
}

/// What policies say of bundles, and a condition, for some.
pub(super) fn made(bundles: bool, r: &mut Random) -> String {
    let mut text = String::new();
    if bundles && r.chance(0.3) {
        text += "  parts_at_once: 2\n";
    }
    if r.chance(0.15) {
        let on = if r.chance(0.7) { "hold" } else { "alert" };
        text += &format!(
            "  conditions:\n    - {{name: dear, when: 'cost_usd.diff > 25 && eval_pass.low < 5.0', on: {on}}}\n"
        );
    }
    text
}

/// Two policies with the bakes, deadlines, gates and actuators of the seed.
pub(super) fn policies(
    r: &mut Random,
    people: &mut Random,
    (ways, exposures): (&Ways, &mut Random),
    actuators: &str,
    kinds: &Kinds,
    windows: &str,
) -> Vec<(String, Policy)> {
    let further = kinds.guardrails();
    let (pass_weight, warm_up) = (if kinds.trade { 0.4 } else { 0.6 }, u8::from(kinds.warm_up));
    let mut make = |name: &str, way: Way, steps: &str, more: &str| {
        let deadline = if r.chance(0.5) { "hold" } else { "rollback" };
        // An A/B that is not won keeps the old one.
        let deadline = if way == Way::Ab { "rollback" } else { deadline };
        let concurrency = if r.chance(0.8) { "queue" } else { "refuse" };
        let concurrency = if people.chance(0.3) { "supersede" } else { concurrency };
        let keep = if people.chance(0.6) { 1 + people.below(20) } else { 0 };
        let scopes = if people.chance(0.1) { "gateway" } else { "" };
        let more = more.replace("OTHERS", if people.chance(0.5) { "true" } else { "false" });
        let retry = if people.chance(0.7) { "needs_finding" } else { "allowed" };
        let maturity = [if kinds.slow_grades { 1 } else { 0 }, 1, 3][r.below(3) as usize];
        // Labels that nobody waits for come when the next segment has begun.
        let unwaited = way == Way::Segments { alone: true } && exposures.chance(0.6);
        let (maturity, gates) = if unwaited { (3, ", gates: false") } else { (maturity, "") };
        let exposure = ways.text(way, steps, 2 + r.below(8), exposures);
        // What is released at the end is not kept.
        let kept = match way {
            Way::Parallel { .. } | Way::BlueGreen => String::new(),
            _ => format!("  keep_old: {keep}m\n"),
        };
        let text = format!(
            "apiVersion: sluice.dev/v1\nkind: RolloutPolicy\nmetadata: {{name: {name}}}\nspec:\n  applies_to: [model]\n  \
             exposure:\n{exposure}  on_deadline: {deadline}\n  guardrails:\n    \
             - {{metric: eval_pass, kind: proportion, better: higher, limit: 4pp, maturity: {maturity}m, on_fail: rollback, weight: {pass_weight}{gates}}}\n    \
             - {{metric: error, kind: proportion, better: lower, limit: {{ratio: 2, plus: 1pp}}, on_fail: rollback, weight: 0.4}}\n    \
             - {{metric: error, kind: absolute, above: 35%, of_last: 100, on_fail: rollback}}\n    \
             - {{metric: cost_usd, kind: mean, better: lower, limit: 20%, on_fail: alert}}\n{further}  \
             evidence: {{reference_min: {min}, warm_up: {warm_up}m}}\n  actuators: [{actuators}]\n  stale_after: 5m\n  \
             concurrency: {concurrency}\n  retry_after_rollback: {retry}\n\
             {kept}  scopes: [{scopes}]\n{windows}{more}",
            min = 100 + r.below(200),
        );
        let policy = policy_file::parse_policy(&text, name).unwrap_or_else(|error| panic!("{error}\n{text}"));
        (text, policy)
    };
    let quick = "{to: 30%, bake: 3m, deadline: 25m}, {to: 60%, bake: 2m}, {to: 100%}";
    let cautious = "{to: 10%, bake: 4m, min_samples: {eval_pass: 60}, deadline: 20m}, {to: 50%, bake: 6m, \
                    min_samples: {eval_pass: 300}, deadline: 30m}, {to: 100%}";
    // An approval is of a share that some step goes to.
    let of = |share: &str, by: u64| format!("{{before: {share}, by: {by}, not_submitter: OTHERS}}");
    let first = match ways.cautious {
        Way::Ab | Way::BlueGreen => String::new(),
        _ => of("50%", 1) + ", ",
    };
    let approvals = format!("  approvals: [{first}{}]\n", of("100%", 2));
    vec![make("quick", ways.quick, quick, ""), make("cautious", ways.cautious, cautious, &approvals)]
}
