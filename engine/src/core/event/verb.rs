//! What people can do to a rollout: one row a verb. The API, the command line and the checks of both go by it.

use serde::{Deserialize, Serialize};

/// What a person can do to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Promote,
    Pause,
    Resume,
    Rollback,
    Abort,
    Approve,
    Note,
    /// Takes responsibility for a rollout.
    Claim,
    /// Promotes without waiting for time and sample counts, and past nothing else.
    Skip,
}

/// What is to be known of a verb by whoever offers it.
pub struct VerbSpec {
    pub name: &'static str,
    /// What it does, as the API says it.
    pub does: &'static str,
    /// The same as `sluice --help` says it, and a command line.
    pub help: &'static str,
    pub example: &'static str,
    /// Whoever does it says why.
    pub needs_reason: bool,
    /// It can go past what stops it, and whoever does that says why.
    pub may_override: bool,
}

/// What most verbs have in common.
const PLAIN: VerbSpec =
    VerbSpec { name: "", does: "", help: "", example: "", needs_reason: false, may_override: false };

impl Verb {
    pub const ALL: [Verb; 9] = [
        Verb::Promote,
        Verb::Pause,
        Verb::Resume,
        Verb::Rollback,
        Verb::Abort,
        Verb::Approve,
        Verb::Note,
        Verb::Claim,
        Verb::Skip,
    ];

    /// Its row.
    pub const fn spec(self) -> &'static VerbSpec {
        match self {
            Verb::Promote => &VerbSpec {
                name: "promote",
                does: "one step now",
                help: "Advance one step now, without waiting for time or sample counts",
                example: "sluice promote 118 --reason \"checked by hand\"",
                may_override: true,
                ..PLAIN
            },
            Verb::Pause => &VerbSpec {
                name: "pause",
                does: "no promotion until resumed; guardrails stay armed",
                help: "Hold a rollout; the bake clock stops, guardrails stay armed",
                example: "sluice pause 118",
                ..PLAIN
            },
            Verb::Resume => &VerbSpec {
                name: "resume",
                does: "ends a pause",
                help: "End a pause",
                example: "sluice resume 118",
                ..PLAIN
            },
            Verb::Rollback => &VerbSpec {
                name: "rollback",
                does: "canary to 0 now",
                help: "Take the canary to 0% now",
                example: "sluice rollback 118 --reason \"bad refunds\"",
                needs_reason: true,
                may_override: true,
            },
            Verb::Abort => &VerbSpec {
                name: "abort",
                does: "withdraws a rollout that has no traffic",
                help: "Withdraw a rollout that has no traffic yet",
                example: "sluice abort 119 --reason \"superseded by prompt@44\"",
                ..PLAIN
            },
            Verb::Approve => &VerbSpec {
                name: "approve",
                does: "satisfies an approval gate",
                help: "Give one of the approvals that the next step needs",
                example: "sluice approve 118 --reason \"read the eval report\"",
                ..PLAIN
            },
            Verb::Note => &VerbSpec {
                name: "note",
                does: "adds a remark to the log",
                help: "Put a remark into the log of a rollout",
                example: "sluice note 118 --reason \"support sees angry mails since 13:40\"",
                needs_reason: true,
                ..PLAIN
            },
            Verb::Claim => &VerbSpec {
                name: "claim",
                does: "says who takes responsibility for a rollout",
                help: "Say that you take responsibility for a rollout",
                example: "sluice claim 118",
                may_override: true,
                ..PLAIN
            },
            Verb::Skip => &VerbSpec {
                name: "skip",
                does: "one step now, past bake time and sample minimum only",
                help: "Advance one step without the rest of its bake time and sample minimum, past nothing else",
                example: "sluice skip 118 --reason \"seen enough at night traffic\"",
                needs_reason: true,
                ..PLAIN
            },
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.spec().name
    }

    pub fn named(name: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.as_str() == name)
    }

    /// What lacks its reason, where one is needed: `rollback`, `promote --override`.
    pub fn lacks_reason(self, force: bool, reason: &str) -> Option<String> {
        let VerbSpec { name, needs_reason, may_override, .. } = self.spec();
        match reason.trim().is_empty() {
            true if *needs_reason => Some((*name).to_owned()),
            true if *may_override && force => Some(format!("{name} --override")),
            _ => None,
        }
    }
}
