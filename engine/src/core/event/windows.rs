//! What the windows of a policy say, and freezes.

use serde::{Deserialize, Serialize};

use crate::core::ids::Service;
use crate::core::time::Timestamp;

/// What the windows of a policy say from one moment until another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub from: Timestamp,
    /// Then it has to be worked out again.
    pub until: Timestamp,
    pub open: bool,
    /// Which window or freeze says so, in words, with the next change.
    pub why: String,
    /// When it opens, or closes, if that is known.
    pub turns: Option<Timestamp>,
}

/// Nothing moves forward until somebody ends it, or its time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// `None`: everything.
    pub service: Option<Service>,
    pub by: String,
    pub reason: String,
    pub since: Timestamp,
    pub until: Option<Timestamp>,
}
