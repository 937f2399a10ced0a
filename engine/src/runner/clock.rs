//! Log time: the wall clock's, as long as it runs like a clock.
//!
//! Wall clocks are set, machines sleep. A bake must not end sooner for it, so log time advances with the steady
//! clock. A wall clock found ahead of that was set forward: log time follows it, and how far is recorded as time that
//! nobody watched. One found behind is waited for at half speed, for log time never runs backwards.

use crate::core::time::{Span, Timestamp};

/// How far the clocks may part before log time follows the wall clock. Their usual drift takes hours for it.
const APART: Span = Span::secs(2);

/// What the machine's two clocks say at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub wall: Timestamp,
    /// Since any fixed moment of this process; never set.
    pub steady: Span,
}

/// Makes log time out of moments that are given in order.
#[derive(Clone, Debug, Default)]
pub struct LogClock {
    /// Where both clocks were last taken to agree.
    base: Option<Moment>,
    /// The last time given out.
    last: Timestamp,
    /// Since when, and from which log time on, the wall clock is waited for.
    behind: Option<(Timestamp, Span)>,
}

impl LogClock {
    /// A clock whose first reading is not before `last`.
    pub fn after(last: Timestamp) -> LogClock {
        LogClock { last, ..LogClock::default() }
    }

    /// The last time given out.
    pub fn now(&self) -> Timestamp {
        self.last
    }

    /// Log time at `moment`, and by how much the wall clock was set forward since the reading before.
    pub fn read(&mut self, moment: Moment) -> (Timestamp, Option<Span>) {
        let base = self.base.get_or_insert(moment);
        let mut steady = base.wall.plus(moment.steady.minus(base.steady));
        let mut stepped = None;
        if steady.plus(APART) <= moment.wall {
            // What log time is already ahead of was watched.
            stepped = Some(moment.wall.since(steady.max(self.last))).filter(|by| *by >= APART);
        }
        if stepped.is_some() || moment.wall.plus(APART) <= steady || moment.wall >= steady.plus(APART) {
            (*base, steady) = (moment, moment.wall);
        }
        self.last = if steady >= self.last {
            self.behind = None;
            steady
        } else {
            let (from, since) = *self.behind.get_or_insert((self.last, moment.steady));
            from.plus(Span(moment.steady.minus(since).0 / 2)).max(self.last)
        };
        (self.last, stepped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_s: u64, steady_s: u64) -> Moment {
        Moment { wall: Timestamp(wall_s * 1_000), steady: Span::secs(steady_s) }
    }

    /// What a clock gives out for these moments, in seconds: log time, and steps.
    fn read(clock: &mut LogClock, moments: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let read = |(wall, steady): &(u64, u64)| clock.read(at(*wall, *steady));
        moments.iter().map(read).map(|(at, by)| (at.0 / 1_000, by.map_or(0, |by| by.0 / 1_000))).collect()
    }

    #[test]
    fn a_wall_clock_that_runs_like_one_is_followed() {
        let mut clock = LogClock::default();
        assert_eq!(read(&mut clock, &[(100, 7), (101, 8), (161, 68)]), [(100, 0), (101, 0), (161, 0)]);
    }

    #[test]
    fn an_hour_forward_is_an_hour_that_nobody_watched() {
        let mut clock = LogClock::default();
        assert_eq!(
            read(&mut clock, &[(100, 0), (3_710, 10), (3_720, 20)]),
            [(100, 0), (3_710, 3_600), (3_720, 0)]
        );
    }

    /// At ten times the speed every reading is ahead by a little: only real seconds count as watched.
    #[test]
    fn a_wall_clock_that_races_does_not_shorten_anything() {
        let mut clock = LogClock::default();
        let moments: Vec<_> = (0..=60).map(|s| (100 + 10 * s, s)).collect();
        let read = read(&mut clock, &moments);
        let (last, stepped) = (read[60].0, read.iter().map(|(_, by)| by).sum::<u64>());
        assert!((last - 100 - stepped).abs_diff(60) <= 2, "{last} {stepped}");
    }

    #[test]
    fn a_wall_clock_set_back_is_waited_for_at_half_speed() {
        let mut clock = LogClock::default();
        let moments = [(100, 0), (40, 0), (50, 10), (60, 20), (158, 118), (161, 121), (170, 130)];
        assert_eq!(
            read(&mut clock, &moments),
            [(100, 0), (100, 0), (105, 0), (110, 0), (158, 0), (161, 0), (170, 0)]
        );
    }

    #[test]
    fn a_start_with_a_clock_behind_the_log_goes_on_from_the_log() {
        let mut clock = LogClock::after(Timestamp(500_000));
        assert_eq!(read(&mut clock, &[(100, 0), (102, 2)]), [(500, 0), (501, 0)]);
        // It is put right: nothing of it is new time but what lies beyond the log.
        assert_eq!(read(&mut clock, &[(502, 2)]), [(502, 0)]);
        assert_eq!(read(&mut clock, &[(700, 4)]), [(700, 196)]);
    }
}
