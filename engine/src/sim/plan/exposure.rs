//! The ways of exposure of a seed, and the segments that its traffic has.

use super::{Draw, MINUTE, random};
use crate::core::policy::guardrail::GuardrailKind;
use crate::sim::random::Random;

/// Segments of the traffic, the last everybody else.
#[derive(Clone, Debug)]
pub struct Segments {
    /// The tag by which samples say where they belong.
    pub tag: &'static str,
    pub names: Vec<&'static str>,
    /// Share of the requests of each, and how far its passes lie from the service's.
    pub shares: Vec<f64>,
    pub levels: Vec<f64>,
}

/// How one policy exposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Percent,
    /// The segments of the seed one after another; whether a region that fails goes back alone.
    Segments {
        alone: bool,
    },
    Ab,
    Parallel {
        shadow: bool,
    },
    BlueGreen,
}

impl Way {
    /// Whether actuators are asked for more than a share.
    fn has_task(self) -> bool {
        matches!(self, Way::Parallel { .. } | Way::BlueGreen)
    }
}

/// What a seed says about exposure.
#[derive(Clone, Debug)]
pub struct Ways {
    pub quick: Way,
    pub cautious: Way,
    /// `None` where no policy has segments.
    pub segments: Option<Segments>,
    /// In which every step must be confirmed, in minutes.
    apply_within: Option<u64>,
    /// How long a task takes where nothing goes wrong, ms, and how often it is reported on.
    pub work: (u64, u64),
}

impl Ways {
    pub fn draw(seed: u64) -> Ways {
        let mut r = random(seed, Draw::Exposure, 0);
        let mut way = |percents: u64| match r.below(11 + percents) {
            0..=2 => Way::Segments { alone: true },
            3 | 4 => Way::Segments { alone: false },
            5 | 6 => Way::Ab,
            7 | 8 => Way::Parallel { shadow: r.chance(0.7) },
            9 | 10 => Way::BlueGreen,
            _ => Way::Percent,
        };
        let (quick, cautious) = (way(8), way(20));
        let divided = [quick, cautious].iter().any(|way| matches!(way, Way::Segments { .. }));
        let segments = divided.then(|| Segments::draw(&mut r, quick, cautious));
        let apply_within = r.chance(0.3).then(|| 2 + r.below(4));
        let work = (20_000 + r.below(4 * MINUTE), 15_000 + r.below(45_000));
        Ways { quick, cautious, segments, apply_within, work }
    }

    /// Whether actuators are asked for more than a share.
    pub fn has_task(&self) -> bool {
        self.quick.has_task() || self.cautious.has_task()
    }

    /// What the ways are best watched by.
    pub fn kinds(&self, seed: u64) -> Vec<GuardrailKind> {
        let mut r = random(seed, Draw::Exposure, 1);
        let ways = [self.quick, self.cautious];
        let shadow = ways.contains(&Way::Parallel { shadow: true }) && r.chance(0.8);
        let split = ways.contains(&Way::Ab) && r.chance(0.5);
        [(shadow, GuardrailKind::Paired), (split, GuardrailKind::Split)]
            .into_iter()
            .filter_map(|(wanted, kind)| wanted.then_some(kind))
            .collect()
    }

    /// The keys below `exposure`; `steps` are those of a way by percent, `soak` is in minutes.
    pub fn text(&self, way: Way, steps: &str, soak: u64, r: &mut Random) -> String {
        let within = self.apply_within.map(|minutes| format!("    apply_within: {minutes}m\n"));
        let within = within.unwrap_or_default();
        let task = if r.chance(0.6) { format!("{{within: {}m}}", 3 + r.below(6)) } else { "{}".into() };
        within
            + &match way {
                Way::Percent => format!("    percent: [{steps}]\n    soak: {soak}m\n"),
                Way::Segments { alone } => {
                    let segments = self.segments.as_ref().expect("they are drawn with the way");
                    segments.text(alone, r) + &format!("    soak: {soak}m\n")
                }
                Way::Ab => {
                    let (split, horizon) = ([30, 50][r.below(2) as usize], 10 + r.below(15));
                    format!(
                        "    ab: {{split: {split}%, horizon: {horizon}m, primary: eval_pass, min_samples: {{eval_pass: \
                         {}}}}}\n    soak: {soak}m\n",
                        50 + r.below(200)
                    )
                }
                Way::Parallel { shadow } => {
                    let (bake, deadline) = (1 + r.below(3), 6 + r.below(12));
                    let shadow = match shadow {
                        true => format!("      shadow: {{bake: {bake}m, deadline: {deadline}m}}\n"),
                        false => String::new(),
                    };
                    format!(
                        "    parallel:\n      populate: {task}\n{shadow}      percent: [{steps}]\n      keep: {soak}m\n"
                    )
                }
                Way::BlueGreen => {
                    let (to, bake) = ([20, 50][r.below(2) as usize], 2 + r.below(3));
                    format!(
                        "    blue_green: {{start: {task}, canary: {{to: {to}%, bake: {bake}m, deadline: 25m}}, keep: \
                         {soak}m}}\n"
                    )
                }
            }
    }
}

impl Segments {
    fn draw(r: &mut Random, quick: Way, cautious: Way) -> Segments {
        let alone = [quick, cautious].contains(&Way::Segments { alone: true });
        let three = r.chance(0.4);
        let (tag, names) = match alone || r.chance(0.4) {
            true => ("region", ["eu", "us", "everywhere"]),
            false => ("cohort", ["internal", "beta", "general"]),
        };
        let names = names.into_iter().enumerate().filter(|(i, _)| three || *i != 1).map(|(_, name)| name);
        let shares = if three { vec![0.35, 0.3, 0.35] } else { vec![0.5, 0.5] };
        let levels = shares.iter().map(|_| 0.08 * r.unit() - 0.06).collect();
        Segments { tag, names: names.collect(), shares, levels }
    }

    fn text(&self, alone: bool, r: &mut Random) -> String {
        let mut text = format!("    {}s:\n", self.tag);
        for (i, name) in self.names.iter().enumerate() {
            let last = i + 1 == self.names.len();
            let deadline = if r.chance(0.7) { ", deadline: 25m" } else { "" };
            let steps = match r.below(4) {
                _ if last => format!("{{to: 50%, bake: 2m{deadline}}}, {{to: 100%}}"),
                0 => format!("{{to: 30%, bake: 2m}}, {{to: 60%, bake: 2m{deadline}}}"),
                1 => format!("{{to: 50%, bake: 2m{deadline}}}, {{to: 100%, bake: 1m}}"),
                _ => format!("{{to: 50%, bake: 2m{deadline}}}"),
            };
            let member = match (self.tag, *name) {
                ("cohort", "internal") => ", where: {attribute: email, ends_with: \"@example.com\"}",
                ("cohort", "beta") => ", where: {attribute: plan, in: [beta, early]}",
                _ => "",
            };
            text += &format!("      - {{name: {name}{member}, steps: [{steps}]}}\n");
        }
        if self.tag == "region" {
            text += &format!("    on_region_failure: {}\n", if alone { "alone" } else { "all" });
        }
        text
    }
}
