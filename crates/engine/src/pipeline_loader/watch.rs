//! Watching a load from beside: a disk that does not answer delays its own models only.
//!
//! Nothing can interrupt a thread that reads from such a disk. Its load is given up, so that its place and its turn are
//! free; the thread is left to itself, and until it ends the model is not tried again, so there is one such thread for a
//! model at most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pentimento_pipeline::ReadProgress;

/// A load that has read nothing for so long lets others read beside it.
const PATIENCE: Duration = Duration::from_secs(3);
/// A load that has read nothing for so long is given up. Packing what was read last takes a second or two.
pub(super) const GIVE_UP: Duration = Duration::from_secs(30);

/// One load, as it looks from beside. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched(Arc<State>);

#[derive(Debug, Default)]
struct State {
    progress: ReadProgress,
    /// It waits for its turn, which is no fault of its disk.
    waiting: AtomicBool,
    ended: AtomicBool,
}

impl Watched {
    /// Where what is read is counted.
    pub(super) fn progress(&self) -> &ReadProgress {
        &self.0.progress
    }

    /// The load will do nothing any more.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is to be done about a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    Wait,
    /// Others may read.
    LetOthersGo,
    GiveUp,
}

/// When a load was last seen to go on.
#[derive(Debug)]
pub(super) struct Watcher {
    bytes: u64,
    since: Instant,
}

impl Watcher {
    pub(super) const fn new(now: Instant) -> Self {
        Self { bytes: 0, since: now }
    }

    /// Looks at the load.
    pub(super) fn look(&mut self, load: &Watched, now: Instant) -> Advice {
        let bytes = load.progress().bytes();
        if bytes != self.bytes || load.0.waiting.load(Ordering::Relaxed) {
            (self.bytes, self.since) = (bytes, now);
        }
        let still = now.saturating_duration_since(self.since);
        if still >= GIVE_UP {
            Advice::GiveUp
        } else if still >= PATIENCE {
            Advice::LetOthersGo
        } else {
            Advice::Wait
        }
    }
}

/// Whose turn it is to read: two loads at once would only take the processor from the evaluations twice.
#[derive(Debug, Default)]
pub(super) struct ReadingTurn {
    holder: Mutex<Option<Watched>>,
    freed: Condvar,
}

/// Gives the turn back when it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a> {
    turn: &'a ReadingTurn,
    load: Watched,
}

impl ReadingTurn {
    fn holder(&self) -> MutexGuard<'_, Option<Watched>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else reads.
    pub(super) fn take(&self, load: &Watched) -> Held<'_> {
        load.0.waiting.store(true, Ordering::Relaxed);
        let mut holder = self.holder();
        while holder.is_some() {
            holder = self.freed.wait(holder).unwrap_or_else(PoisonError::into_inner);
        }
        *holder = Some(load.clone());
        drop(holder);
        load.0.waiting.store(false, Ordering::Relaxed);
        Held {
            turn: self,
            load: load.clone(),
        }
    }

    /// Takes the turn from this load, if it has it.
    pub(super) fn free(&self, load: &Watched) {
        let mut holder = self.holder();
        if holder.as_ref().is_some_and(|held| held.is(load)) {
            *holder = None;
            self.freed.notify_one();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.turn.free(&self.load);
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn a_load_that_reads_nothing_lets_others_go_and_is_then_given_up() {
        let (load, now) = (Watched::default(), SystemClock.now());
        let mut watcher = Watcher::new(now);
        let mut after = |seconds| watcher.look(&load, now + Duration::from_secs(seconds));
        assert_eq!(after(2), Advice::Wait);
        assert_eq!(after(3), Advice::LetOthersGo);
        assert_eq!(after(29), Advice::LetOthersGo);
        assert_eq!(after(30), Advice::GiveUp);
    }

    #[test]
    fn waiting_for_a_turn_is_no_fault_of_the_disk() {
        let (load, now) = (Watched::default(), SystemClock.now());
        let mut watcher = Watcher::new(now);
        load.0.waiting.store(true, Ordering::Relaxed);
        assert_eq!(watcher.look(&load, now + 10 * GIVE_UP), Advice::Wait);
        load.0.waiting.store(false, Ordering::Relaxed);
        assert_eq!(
            watcher.look(&load, now + 10 * GIVE_UP + PATIENCE),
            Advice::LetOthersGo
        );
    }

    #[test]
    fn a_turn_that_was_taken_away_is_not_given_back_for_another() {
        let (turn, slow, quick) = (ReadingTurn::default(), Watched::default(), Watched::default());
        let held_by_slow = turn.take(&slow);
        turn.free(&slow);
        let _held_by_quick = turn.take(&quick);
        drop(held_by_slow);
        assert!(turn.holder().as_ref().is_some_and(|holder| holder.is(&quick)));
    }
}
