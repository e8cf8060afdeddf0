//! Seats for those who watch jobs. They hold a connection for long, so there are fewer seats than connections, and one
//! caller does not get all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_service::RateCaller;

/// How many there are, and who has them.
#[derive(Debug)]
pub(crate) struct WatchSeats {
    all: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Nobody has none.
    of: HashMap<RateCaller, usize>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// The caller has as many as one may.
    Own,
    /// All are taken.
    All,
}

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct WatchSeat {
    seats: Arc<WatchSeats>,
    who: RateCaller,
}

impl WatchSeats {
    /// Three of four connections; the others are for those who want something made. Half of them for one caller.
    pub(crate) fn among(connections: usize) -> Arc<Self> {
        let all = connections.saturating_mul(3) / 4;
        Arc::new(Self {
            all,
            of_one: all.div_ceil(2),
            taken: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, who: RateCaller) -> Result<WatchSeat, NoSeat> {
        let mut taken = self.lock();
        let own = taken.of.get(&who).copied().unwrap_or(0);
        if own >= self.of_one {
            return Err(NoSeat::Own);
        }
        if taken.all >= self.all {
            return Err(NoSeat::All);
        }
        taken.all += 1;
        taken.of.insert(who.clone(), own + 1);
        Ok(WatchSeat {
            seats: Arc::clone(self),
            who,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WatchSeat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.of.get(&self.who).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            taken.of.remove(&self.who);
        } else {
            taken.of.insert(self.who.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::ApiKeyId;

    use super::*;

    #[test]
    fn one_caller_has_half_of_the_seats_and_gives_them_back() {
        let seats = WatchSeats::among(8);
        let take = |who: &str| seats.take(RateCaller::Key(ApiKeyId::new(who)));
        let mut own: Vec<_> = (0..3).map(|_| take("a").unwrap()).collect();
        assert_eq!(take("a").unwrap_err(), NoSeat::Own);
        let others: Vec<_> = ["b", "c", "d"].map(|who| take(who).unwrap()).into();
        assert_eq!(take("e").unwrap_err(), NoSeat::All);
        own.pop();
        drop(take("e").unwrap());
        drop((own, others));
        let left = seats.lock();
        assert!(left.of.is_empty() && left.all == 0);
    }
}
