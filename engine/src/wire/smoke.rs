//! Smoke tests over the bus: what a runner is asked, and what it answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::InputError;
use super::json;
use crate::core::event::code::Code;
use crate::core::event::smoke::SmokeAsk;
use crate::core::ids::RolloutId;
use crate::core::text::plain;

/// Bytes of an answer.
pub const ANSWER_MAX: usize = 16 * 1024;
/// Characters and lines of what a test said that are kept: its end.
const DETAIL_MAX: usize = 2_000;
const LINES_MAX: usize = 20;

/// A request to a runner. It may come twice under one id.
#[derive(Serialize, JsonSchema)]
pub struct SmokeRequest {
    pub v: u32,
    #[schemars(extend("format" = "uuid"))]
    pub id: String,
    pub name: String,
    pub rollout: String,
    pub service: String,
    /// Number of the step that was applied, from 1.
    pub step: u16,
    /// What served before, and what is rolled out.
    pub from: String,
    pub to: String,
    /// An answer that takes longer counts as a failure.
    pub timeout_ms: u64,
}

/// A runner's answer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmokeAnswer {
    /// Version of this shape.
    #[schemars(range(min = 1, max = 1))]
    pub v: Option<u32>,
    pub ok: bool,
    /// Kept on record: the last 2,000 characters.
    #[serde(default)]
    pub detail: String,
}

/// The request for `ask`.
pub fn request(rollout: &RolloutId, ask: &SmokeAsk) -> SmokeRequest {
    SmokeRequest {
        v: 1,
        id: ask.id.to_string(),
        name: ask.name.clone(),
        rollout: rollout.0.clone(),
        service: ask.service.0.clone(),
        step: ask.step + 1,
        from: ask.from.0.clone(),
        to: ask.to.0.clone(),
        timeout_ms: ask.timeout.0,
    }
}

/// Reads a runner's answer. Errors: those of the form (E1001 to E1011), E1005 another version.
pub fn parse_answer(bytes: &[u8]) -> Result<SmokeAnswer, InputError> {
    let answer: SmokeAnswer = json::object("answer", json::text("answer", bytes, ANSWER_MAX)?)?;
    match answer.v.filter(|v| *v != 1) {
        Some(v) => {
            Err(InputError::new(Code::FieldValue, format!("answer.v: this sluice reads version 1, got {v}")))
        }
        None => Ok(answer),
    }
}

/// The end of what a test said, nothing in it hidden.
pub fn detail(text: &str) -> String {
    let lines: Vec<String> = text.trim().lines().map(plain).collect();
    let kept = lines[lines.len().saturating_sub(LINES_MAX)..].join("\n");
    let skipped = kept.chars().count().saturating_sub(DETAIL_MAX);
    kept.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let long: String = (0..1_000).map(|i| format!("line {i}\n")).collect();
        let kept = detail(&long);
        assert!(kept.starts_with("line 980\n") && kept.ends_with("\nline 999"), "{kept}");
        assert_eq!(detail(&"x".repeat(5_000)).len(), DETAIL_MAX);
        assert_eq!(detail("\x1b[31mred\r\n"), "\\x1b[31mred");
    }

    #[test]
    fn an_answer_is_yes_or_no() {
        assert!(parse_answer(br#"{"ok":true}"#).unwrap().ok);
        let answer = parse_answer(br#"{"v":1,"ok":false,"detail":"3 of 40 differ"}"#).unwrap();
        assert_eq!((answer.ok, answer.detail.as_str()), (false, "3 of 40 differ"));
        for (bad, code) in [
            ("{}", Code::FieldValue),
            (r#"{"ok":"yes"}"#, Code::FieldValue),
            (r#"{"ok":true,"x":1}"#, Code::UnknownField),
            ("ok", Code::NotAnObject),
        ] {
            assert_eq!(parse_answer(bad.as_bytes()).err().map(|e| e.code), Some(code), "{bad}");
        }
    }
}
