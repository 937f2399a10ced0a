//! Which part of the traffic a sample belongs to, as its tags say.

use crate::core::policy::Policy;

/// To which segment of the traffic samples of these tags belong.
pub fn segment_of(policy: &Policy, tags: &str) -> Option<usize> {
    let segments = policy.segments.as_ref()?;
    let prefix = format!("{}=", segments.kind.as_str());
    let name = tags.split(',').find_map(|tag| tag.strip_prefix(&prefix))?;
    segments.named.iter().position(|segment| segment.name == name)
}

/// Whether samples of these tags say to which segment they belong.
pub fn is_tagged(policy: &Policy, tags: &str) -> bool {
    let Some(segments) = &policy.segments else { return false };
    let prefix = format!("{}=", segments.kind.as_str());
    tags.split(',').any(|tag| tag.starts_with(&prefix))
}
