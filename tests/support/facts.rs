//! Facts for tests that hand them in one by one.

use sluice::core::event::Event;
use sluice::core::ids::Digest;
use sluice::wire::policy_file;

/// Of a policy's text.
pub fn policy_stored(text: &str) -> Event {
    let policy = policy_file::parse_policy(text, "policy.yaml").expect("a policy");
    Event::PolicyStored { digest: Digest::of(text.as_bytes()), policy, source: text.to_owned() }
}
