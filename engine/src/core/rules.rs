//! By which rules conclusions follow from facts.
//!
//! Until the first tagged version a change of the rules raises [`ENGINE`] and keeps nothing of what was before. From then on
//! every engine that a released version decided by stays readable here: as a flag of [`Rules`], named for what differs
//! and asked for by that name (`rules.spreads_sums`), never as a comparison of numbers.

/// The rules that this build decides by. Another number whenever a recorded history could be decided differently.
pub const ENGINE: u32 = 5;

/// What differs between the engines that this build has; nothing does while there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {}

impl Rules {
    /// The rules of an engine; `None` where this build does not have them.
    pub fn of(engine: u32) -> Option<Rules> {
        (engine == ENGINE).then_some(Rules {})
    }

    /// Whether `engine` is what new rollouts are decided by.
    pub fn are_current(engine: u32) -> bool {
        engine == ENGINE
    }
}
