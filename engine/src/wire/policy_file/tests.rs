use proptest::prelude::*;

use super::*;
use crate::core::event::code::Code;
use crate::core::ids::Weight;
use crate::core::policy::ChangeKind;
use crate::core::policy::guardrail::{Absolute, Margin, Proportion, Rule};
use crate::core::time::Span;
use crate::wire::yaml::Place;

/// A sound policy whose lines the tests change.
const SOUND: &str = "\
apiVersion: sluice.dev/v1
kind: RolloutPolicy
metadata: {name: p}
spec:
  exposure:
    percent:
      - {to: 5%, bake: 4h, min_samples: {eval_pass: 400}, deadline: 24h}
      - {to: 100%}
  guardrails:
    - {metric: eval_pass, kind: proportion, better: higher, limit: 3pp, on_fail: rollback}
    - {metric: error, kind: absolute, above: 20%, of_last: 200, on_fail: rollback}
";

fn faults(text: &str) -> Vec<(Code, String, Place)> {
    let error = parse_policy(text, "p.yaml").expect_err("should be refused");
    error.0.into_iter().map(|fault| (fault.code, fault.message, fault.place)).collect()
}

#[test]
fn the_shipped_policies_are_sound_and_cover_every_kind_once() {
    let mut kinds = Vec::new();
    for (file, text) in shipped() {
        let policy = parse_policy(text, file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(policy.steps.last().unwrap().to, Weight::FULL);
        let weights: f64 = policy.guardrails.iter().map(|guardrail| guardrail.weight).sum();
        assert!((weights - 1.0).abs() < 1e-9, "{file}: {weights}");
        kinds.extend(policy.applies_to.into_iter().filter(|_| !policy.significant));
    }
    kinds.sort();
    let mut all = ChangeKind::ALL;
    all.sort();
    assert_eq!(kinds, all);
}

#[test]
fn what_is_left_out_has_its_default() {
    let policy = parse_policy(SOUND, "p.yaml").unwrap();
    assert_eq!((policy.stale_after, policy.ack_timeout), (Span::mins(15), Span::secs(30)));
    assert_eq!(policy.actuators, ["default".into()]);
    let [eval, absolute] = policy.guardrails.as_slice() else { panic!() };
    assert_eq!((eval.name.as_str(), eval.weight, eval.gates), ("eval_pass", 1.0, true));
    assert_eq!(eval.rule, Rule::Proportion(Proportion { margin: Margin::Points(0.03) }));
    assert_eq!((absolute.name.as_str(), absolute.weight, absolute.gates), ("error.absolute", 0.0, false));
    assert_eq!(absolute.rule, Rule::Absolute(Absolute { above: 0.2, of_last: 200 }));
}

#[test]
fn a_fault_points_at_its_place() {
    let error = parse_policy(&SOUND.replace("min_samples", "min_sample"), "p.yaml").unwrap_err();
    let expected = "\
error[E3005]: policy: unknown key min_sample; did you mean min_samples?
 --> p.yaml:7:28
  |
7 |       - {to: 5%, bake: 4h, min_sample: {eval_pass: 400}, deadline: 24h}
  |                            ^^^^^^^^^^";
    assert_eq!(error.to_string(), expected);
}

/// People mend a file in one go: what can be told of several values is told at once.
#[test]
fn several_faults_are_told_together() {
    let text = SOUND.replace("bake: 4h", "bake: 4 hours").replace("3pp", "3").replace("200", "0");
    let codes: Vec<_> = faults(&text).into_iter().map(|(code, _, place)| (code, place.line)).collect();
    assert_eq!(codes, [(Code::FileValue, 7), (Code::FileValue, 10), (Code::Limit, 11)]);
}

#[test]
fn durations_are_read_exactly() {
    let bake = |text: &str| {
        parse_policy(&SOUND.replace("bake: 4h", &format!("bake: {text}")), "p.yaml").map(|p| p.steps[0].bake)
    };
    for (text, span) in
        [("90s", Span::secs(90)), ("1h30m", Span::mins(90)), ("250ms", Span(250)), ("0s", Span::ZERO)]
    {
        assert_eq!(bake(text), Ok(span), "{text}");
    }
    for text in ["4", "30m1h", "1h1h", "1.5h", "-1h", "1 h", "h", "\"\"", "99999999999999999999d"] {
        assert!(bake(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in "[ -~\n\t\u{e9}\u{2028}]{0,200}") {
        let _ = parse_policy(&text, "p.yaml").map_err(|error| error.to_string());
    }

    /// A sound file with one character changed gets further than noise does.
    #[test]
    fn nearly_right_files_do_not_panic(at in any::<prop::sample::Index>(), c in any::<char>()) {
        for (file, text) in shipped() {
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            chars[at] = c;
            let text: String = chars.into_iter().collect();
            let _ = parse_policy(&text, file).map_err(|error| error.to_string());
        }
    }
}
