//! The rollouts about which something may follow.

use std::collections::BTreeSet;
use std::ops::Bound::{Included, Unbounded};

use crate::core::ids::RolloutId;

/// Rollouts that the last fact may have changed, in the order in which they are asked what follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agenda {
    ids: BTreeSet<RolloutId>,
    /// Nothing more follows from those before this one.
    from: Option<RolloutId>,
}

impl Agenda {
    pub fn clear(&mut self) {
        *self = Agenda::default();
    }

    pub fn insert(&mut self, id: RolloutId) {
        if self.from.as_ref().is_some_and(|from| id < *from) {
            self.from = Some(id.clone());
        }
        self.ids.insert(id);
    }

    pub fn extend(&mut self, ids: impl IntoIterator<Item = RolloutId>) {
        ids.into_iter().for_each(|id| self.insert(id));
    }

    /// Notes that something followed from `id`: those before it had nothing to say, and that has not changed. Asked
    /// again for each conclusion, thousands of open rollouts would keep everybody waiting for minutes.
    pub(super) fn conclude(&mut self, id: &RolloutId) {
        self.from = Some(id.clone());
        self.ids.insert(id.clone());
    }

    pub fn iter(&self) -> impl Iterator<Item = &RolloutId> {
        self.ids.iter()
    }

    /// Those from which something may still follow.
    pub fn open(&self) -> impl Iterator<Item = &RolloutId> {
        self.ids.range::<RolloutId, _>((self.from.as_ref().map_or(Unbounded, Included), Unbounded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_again_before_whom_something_followed() {
        let mut agenda = Agenda::default();
        agenda.extend(["a-1", "b-1", "c-1"].map(RolloutId::from));
        agenda.conclude(&"b-1".into());
        let open = |agenda: &Agenda| agenda.open().map(|id| id.0.clone()).collect::<Vec<_>>();
        assert_eq!(open(&agenda), ["b-1", "c-1"]);
        assert_eq!(agenda.iter().count(), 3);
        // Unless it is touched anew.
        agenda.insert("a-1".into());
        assert_eq!(open(&agenda), ["a-1", "b-1", "c-1"]);
        agenda.clear();
        assert!(open(&agenda).is_empty());
    }
}
