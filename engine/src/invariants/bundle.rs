//! What versions are made of, as intents say, and what of that a rollout may change.

use std::collections::BTreeMap;

use super::{Checked, ensure};
use crate::core::event::bundle::{Part, Parts};
use crate::core::event::fact::Intent;
use crate::core::event::rollout_spec::RolloutSpec;
use crate::core::ids::{RolloutId, Version};
use crate::core::policy::Policy;

/// The parts of each bundle that an intent has named. A fingerprint stands for one bundle for ever.
#[derive(Clone, Debug, Default)]
pub struct Made {
    parts: BTreeMap<Version, Parts>,
}

impl Made {
    pub fn intent(&mut self, intent: &Intent) -> Checked {
        let from = intent.from.as_ref().zip(Some(&intent.from_composition.parts));
        for (version, parts) in from.into_iter().chain([(&intent.to, &intent.composition.parts)]) {
            if !parts.is_empty() {
                let known = self.parts.entry(version.clone()).or_insert_with(|| parts.clone());
                ensure(known == parts, "I42", || format!("{version} is {known:?} and {parts:?}"))?;
            }
        }
        Ok(())
    }

    /// Whether there is something to roll out where `serving` serves, and no more of it at once than the policy allows.
    pub fn leaves_something(&self, spec: &RolloutSpec, policy: &Policy, serving: Option<&Version>) -> bool {
        if serving == Some(&spec.to) {
            return false;
        }
        let limit = usize::from(policy.parts_at_once);
        let Some(to) = self.parts.get(&spec.to).filter(|_| limit < Part::ALL.len()) else { return true };
        let Some(from) = serving.and_then(|version| self.parts.get(version)) else { return false };
        let same = to.iter().filter(|(part, version)| from.get(part) == Some(version)).count();
        let named = to.len() + from.keys().filter(|part| !to.contains_key(part)).count();
        named - same <= limit
    }

    pub fn begins(
        &self,
        id: &RolloutId,
        spec: &RolloutSpec,
        policy: &Policy,
        serving: Option<&Version>,
    ) -> Checked {
        ensure(self.leaves_something(spec, policy, serving), "I42", || {
            format!("{id} begins to bring {} where {serving:?} serves, against its policy", spec.to)
        })
    }
}
