//! By which time things grow old: the wall clock, but not further than time has really passed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pentimento_types::Clock;

/// What the clocks of a machine are corrected by all the time.
const DRIFT: Duration = Duration::from_secs(60);

/// The age of things that are written down with the time on the wall.
#[derive(Debug)]
pub struct AgeClock {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// Times come in as arguments.
#[derive(Debug)]
struct State {
    /// A moment on both clocks.
    anchor: (Instant, SystemTime),
    /// Since when the wall clock has been ahead of the time that passed.
    ahead_since: Option<Instant>,
}

impl AgeClock {
    /// Believes the clock as it is now.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State::new(clock.now(), clock.wall());
        Self {
            clock,
            state: Mutex::new(state),
        }
    }

    /// The time now. A wall clock that was set forward is believed once it has been ahead for `kept`, since what was written
    /// down by the old time is then old by any clock.
    #[must_use]
    pub fn now(&self, kept: Duration) -> SystemTime {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.at(self.clock.now(), self.clock.wall(), kept)
    }
}

impl State {
    const fn new(now: Instant, wall: SystemTime) -> Self {
        Self {
            anchor: (now, wall),
            ahead_since: None,
        }
    }

    fn at(&mut self, now: Instant, wall: SystemTime, kept: Duration) -> SystemTime {
        let passed = self.anchor.1 + now.saturating_duration_since(self.anchor.0);
        if wall <= passed + DRIFT {
            self.ahead_since = None;
            return wall.min(passed);
        }
        let since = *self.ahead_since.get_or_insert(now);
        if now.saturating_duration_since(since) < kept {
            return passed;
        }
        *self = Self::new(now, wall);
        wall
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::SystemClock;

    use super::*;

    const KEPT: Duration = Duration::from_secs(1000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_is_set_forward_ages_nothing_until_everything_is_old() {
        let (start, wall) = (SystemClock.now(), SystemTime::UNIX_EPOCH);
        let year = wall + seconds(1_800_000_000);
        let mut clock = State::new(start, wall);
        let mut at = |after, wall| clock.at(start + seconds(after), wall, KEPT);
        assert_eq!(at(10, wall + seconds(10)), wall + seconds(10));
        // The machine learns what year it is.
        assert_eq!(at(20, year), wall + seconds(20));
        assert_eq!(at(1019, year + seconds(999)), wall + seconds(1019));
        assert_eq!(at(1020, year + seconds(1000)), year + seconds(1000));
        assert_eq!(at(1030, year + seconds(1010)), year + seconds(1010));
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed_and_a_short_jump_is_forgotten() {
        let (start, wall) = (SystemClock.now(), SystemTime::UNIX_EPOCH + seconds(1_000_000));
        let mut clock = State::new(start, wall);
        let mut at = |after, wall| clock.at(start + seconds(after), wall, KEPT);
        assert_eq!(at(1, wall - seconds(100)), wall - seconds(100));
        assert_eq!(at(500, wall + seconds(5000)), wall + seconds(500));
        assert_eq!(at(900, wall + seconds(900)), wall + seconds(900));
        assert_eq!(
            at(1600, wall + seconds(5000)),
            wall + seconds(1600),
            "it counts anew"
        );
    }
}
