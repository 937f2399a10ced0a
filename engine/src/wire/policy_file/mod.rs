//! Policy files: YAML in, a checked [`Policy`] out, or all that is wrong with it and where.
//!
//! Codes beside those of [`super::yaml`]: E3006 a metric no guardrail uses, E3007 no guardrail that
//! could stop a rollout, E3008 minimum samples, E3009 exposure, E3010 could never happen, E3020 weights,
//! E3021 not a policy of this version, E3022 a name, E3024 a limit, E3025 a name given twice; of windows: E3040 a time
//! zone, E3041 a cron line or a duration, E3042 never open, E3043 a time of a freeze.

mod actuation;
mod check;
mod conditions;
mod exposure;
mod grammar;
mod guardrails;
mod scalars;
mod windows;

use super::envelope::RECORD_MAX;
use super::yaml::{Checker, FileError, Place};
use crate::core::event::code::Code;
use crate::core::policy::Policy;
use crate::core::text::count;
use crate::core::time::Timestamp;
pub use grammar::PolicyFile;

/// Bytes of a policy and its text together: both stand in one record, beside its framing and field names.
const STORED_MAX: usize = RECORD_MAX - 1_024;

/// The policies that ship with sluice, by file name: the defaults of every change kind.
pub fn shipped() -> [(&'static str, &'static str); 6] {
    [
        ("model.yaml", include_str!("../../../../policies/model.yaml")),
        ("prompt.yaml", include_str!("../../../../policies/prompt.yaml")),
        ("prompt-significant.yaml", include_str!("../../../../policies/prompt-significant.yaml")),
        ("vector-store.yaml", include_str!("../../../../policies/vector-store.yaml")),
        ("cache.yaml", include_str!("../../../../policies/cache.yaml")),
        ("serving.yaml", include_str!("../../../../policies/serving.yaml")),
    ]
}

/// Reads one policy. `file` names it in errors.
///
/// Errors: everything that is wrong, in the order of the file as far as it could be read.
pub fn parse_policy(text: &str, file: &str) -> Result<Policy, FileError> {
    parse(text, file, None)
}

/// As [`parse_policy`], and a policy whose windows do not open in the year from `now` on is wrong too. Not so at a start of
/// the daemon: what was right when it was written must not keep it down.
pub fn check_policy(text: &str, file: &str, now: Timestamp) -> Result<Policy, FileError> {
    parse(text, file, Some(now))
}

fn parse(text: &str, file: &str, now: Option<Timestamp>) -> Result<Policy, FileError> {
    let mut checker = Checker::new("policy", file, text);
    let parsed: Option<PolicyFile> = checker.parse(&grammar::NOT_YET);
    let policy = parsed.and_then(|parsed| check::policy(&mut checker, &parsed, now));
    if let Some(policy) = &policy {
        let rules = rmp_serde::to_vec_named(policy).expect("policies are made of encodable types");
        let bytes = rules.len() + text.len();
        if bytes > STORED_MAX {
            let (bytes, limit) = (count(bytes as u64), count(STORED_MAX as u64));
            let message = format!("takes {bytes} bytes in the log, its text included; the limit is {limit}");
            checker.refuse(Code::FileTooLarge, Place::default(), "", &message);
        }
    }
    checker.finish(policy)
}

#[cfg(test)]
mod tests;
