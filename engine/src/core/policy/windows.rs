//! When changes may move forward, as a policy says it.

use serde::{Deserialize, Serialize};

use crate::core::time::Span;

/// When a rollout may move forward: in some `allow` window (or always, where none is declared), in no `deny` window, in
/// no `freeze`. Cron lines and zones mean nothing in here; `crate::windows` reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    pub allow: Vec<Window>,
    pub deny: Vec<Window>,
    pub freeze: Vec<Period>,
}

/// Opens again and again, for so much elapsed time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub cron: String,
    pub duration: Span,
    pub tz: String,
    /// What it is called; may be empty.
    pub reason: String,
}

/// From one local time to another, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    pub from: String,
    pub to: String,
    pub tz: String,
    pub reason: String,
}
