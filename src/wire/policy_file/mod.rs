//! Policy files: YAML in, a checked [`Policy`] out, or all that is wrong with it and where.
//!
//! Codes beside those of [`super::yaml`]: E3006 a metric no guardrail uses, E3007 no guardrail that
//! could stop a rollout, E3008 minimum samples, E3009 exposure, E3010 could never happen, E3020 weights,
//! E3021 not a policy of this version, E3022 a name, E3024 a limit, E3025 a name given twice.

mod check;
mod grammar;

use super::yaml::{Checker, FileError};
use crate::core::policy::Policy;
pub use grammar::PolicyFile;

/// The policies that ship with sluice, by file name: the defaults of every change kind.
pub fn shipped() -> [(&'static str, &'static str); 3] {
    [
        ("model.yaml", include_str!("../../../policies/model.yaml")),
        ("prompt.yaml", include_str!("../../../policies/prompt.yaml")),
        ("infrastructure.yaml", include_str!("../../../policies/infrastructure.yaml")),
    ]
}

/// Reads one policy. `file` names it in errors.
///
/// Errors: everything that is wrong, in the order of the file as far as it could be read.
pub fn parse_policy(text: &str, file: &str) -> Result<Policy, FileError> {
    let mut checker = Checker::new("policy", file, text);
    let parsed: Option<PolicyFile> = checker.parse(&grammar::NOT_YET);
    let policy = parsed.and_then(|parsed| check::policy(&mut checker, &parsed));
    checker.finish(policy)
}

#[cfg(test)]
mod tests;
