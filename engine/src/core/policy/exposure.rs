//! Who is sent to the canary: a share of everybody, or segments of the traffic one after another, each by shares. And what
//! actuators do before anybody is.

use super::Policy;
use super::segment::{OnSegmentFailure, SegmentShare, Segments};
use crate::core::ids::Weight;

/// The canary's share of whoever is in no named segment, and of each segment that has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposure {
    pub rest: Weight,
    pub segments: Vec<SegmentShare>,
}

impl Policy {
    /// What is exposed once `step` is applied: its own share, and of segments before it what they had reached.
    pub fn exposure_at(&self, step: u16) -> Exposure {
        let mut exposure = Exposure::default();
        // At the end there are no segments any more: it is everybody.
        if usize::from(step) + 1 == self.steps.len() {
            return Exposure { rest: self.step(step).to, segments: Vec::new() };
        }
        let named = self.segments.as_ref().map_or(&[][..], |segments| &segments.named);
        for step in self.steps.iter().take(usize::from(step) + 1) {
            let Some(i) = step.segment else {
                exposure.rest = step.to;
                continue;
            };
            let Some(segment) = named.get(usize::from(i)) else { continue };
            match exposure.segments.iter_mut().find(|share| share.segment.name == segment.name) {
                Some(share) => share.weight = step.to,
                None => exposure.segments.push(SegmentShare { segment: segment.clone(), weight: step.to }),
            }
        }
        exposure
    }

    /// The segment that `step` is about, by name: `None` where it is everybody.
    pub fn segment_of(&self, step: u16) -> Option<&str> {
        let segments = self.segments.as_ref()?;
        let step = self.steps.get(usize::from(step))?;
        Some(
            step.segment.and_then(|i| segments.named.get(usize::from(i))).map_or(&segments.rest, |s| &s.name),
        )
    }

    /// A step as people call it: `25%`, `beta 10%`, `populate`.
    pub fn step_name(&self, step: u16) -> String {
        let Some(own) = self.steps.get(usize::from(step)) else { return String::new() };
        match (own.task, self.segment_of(step)) {
            (Some(task), _) => task.as_str().to_owned(),
            (None, Some(segment)) => format!("{segment} {}", own.to),
            (None, None) => own.to.to_string(),
        }
    }

    /// The share of its own part that was exposed before `step`.
    pub fn weight_before(&self, step: u16) -> Weight {
        let (before, own) = (self.steps.get(usize::from(step).wrapping_sub(1)), self.step(step));
        before.filter(|before| before.segment == own.segment).map_or(Weight::ZERO, |before| before.to)
    }

    /// The last step of the part before that of `step`, where a part that fails goes back alone and there is one.
    pub fn step_before_segment(&self, step: u16) -> Option<u16> {
        let alone = |segments: &&Segments| segments.on_failure == OnSegmentFailure::Alone;
        self.segments.as_ref().filter(alone)?;
        let own = self.steps.get(usize::from(step))?.segment;
        let before = self.steps[..usize::from(step)].iter().rposition(|step| step.segment != own)?;
        Some(before as u16)
    }
}
