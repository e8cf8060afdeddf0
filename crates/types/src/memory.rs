//! The one account of what large things hold in memory: weights, states of running jobs, decoded images, bodies.
//!
//! Whoever is about to allocate something whose size a caller decides reserves the bytes first and keeps the
//! [`Reservation`] beside them; when a use has no room, the caller is told so before anything is allocated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What bytes are held for. Each use has a budget of its own, so that bodies cannot take the room of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemoryUse {
    /// Weights of models, as the kernels have them.
    Weights,
    /// What jobs on the device carry from evaluation to evaluation: latents, text states, keys and values.
    States,
    /// Decoded input images.
    Images,
    /// Bodies of requests that are being read or parsed.
    Bodies,
    /// Finished pictures on their way to callers.
    Replies,
}

impl MemoryUse {
    /// Every use.
    pub const ALL: &'static [Self] = &[
        Self::Weights,
        Self::States,
        Self::Images,
        Self::Bodies,
        Self::Replies,
    ];

    /// A stable lower-case name for logs, metrics and error texts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::States => "states",
            Self::Images => "images",
            Self::Bodies => "bodies",
            Self::Replies => "replies",
        }
    }
}

/// The most bytes that each use may hold; `u64::MAX` is without a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    /// For [`MemoryUse::Weights`].
    pub weights: u64,
    /// For [`MemoryUse::States`].
    pub states: u64,
    /// For [`MemoryUse::Images`].
    pub images: u64,
    /// For [`MemoryUse::Bodies`].
    pub bodies: u64,
    /// For [`MemoryUse::Replies`].
    pub replies: u64,
}

impl MemoryBudget {
    /// Bytes are counted and never refused.
    pub const UNBOUNDED: Self = Self {
        weights: u64::MAX,
        states: u64::MAX,
        images: u64::MAX,
        bodies: u64::MAX,
        replies: u64::MAX,
    };

    const fn of(&self, usage: MemoryUse) -> u64 {
        match usage {
            MemoryUse::Weights => self.weights,
            MemoryUse::States => self.states,
            MemoryUse::Images => self.images,
            MemoryUse::Bodies => self.bodies,
            MemoryUse::Replies => self.replies,
        }
    }
}

/// There is no room for so many bytes of this use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes for {} do not fit: {held} of {limit} are in use", usage.as_str())]
pub struct MemoryFull {
    /// What for.
    pub usage: MemoryUse,
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes held at that moment.
    pub held: u64,
    /// The budget.
    pub limit: u64,
}

impl MemoryFull {
    /// Whether it would not fit even if nothing else were held, so that waiting does not help.
    #[must_use]
    pub const fn is_hopeless(&self) -> bool {
        self.asked > self.limit
    }
}

/// The account of the whole process. Shared by all its parts.
#[derive(Debug)]
pub struct MemoryLedger {
    budget: MemoryBudget,
    held: [AtomicU64; MemoryUse::ALL.len()],
    /// The account of which this is a part, which counts the same bytes.
    whole: Option<Arc<Self>>,
}

impl MemoryLedger {
    /// An account in which nothing is held.
    #[must_use]
    pub fn new(budget: MemoryBudget) -> Arc<Self> {
        Arc::new(Self {
            budget,
            held: Default::default(),
            whole: None,
        })
    }

    /// A part of this account with a budget of its own, as one of several devices has it. What is reserved in the part is held in
    /// both, and has to fit into both.
    #[must_use]
    pub fn part(self: &Arc<Self>, budget: MemoryBudget) -> Arc<Self> {
        Arc::new(Self {
            budget,
            held: Default::default(),
            whole: Some(Arc::clone(self)),
        })
    }

    /// Reserves bytes before they are allocated; they are given back when the reservation is dropped.
    ///
    /// # Errors
    /// [`MemoryFull`] when the budget of this use does not allow them now.
    pub fn reserve(self: &Arc<Self>, usage: MemoryUse, bytes: u64) -> Result<Reservation, MemoryFull> {
        let in_whole = self.whole.as_ref().map(|whole| whole.reserve(usage, 0));
        let mut reservation = Reservation {
            ledger: Arc::clone(self),
            usage,
            bytes: 0,
            in_whole: in_whole.transpose()?.map(Box::new),
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }

    /// Bytes held for a use now.
    #[must_use]
    pub fn held(&self, usage: MemoryUse) -> u64 {
        self.counter(usage).load(Ordering::Relaxed)
    }

    /// The budget of a use.
    #[must_use]
    pub const fn limit(&self, usage: MemoryUse) -> u64 {
        self.budget.of(usage)
    }

    const fn counter(&self, usage: MemoryUse) -> &AtomicU64 {
        &self.held[usage as usize]
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: Arc<MemoryLedger>,
    usage: MemoryUse,
    bytes: u64,
    /// The same bytes in the account of which this one is a part.
    in_whole: Option<Box<Self>>,
}

impl Reservation {
    /// Bytes held by this reservation.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reserves `more` bytes on top; on an error nothing has changed.
    ///
    /// # Errors
    /// [`MemoryFull`].
    pub fn grow(&mut self, more: u64) -> Result<(), MemoryFull> {
        if let Some(whole) = &mut self.in_whole {
            whole.grow(more)?;
        }
        let (limit, counter) = (self.ledger.limit(self.usage), self.ledger.counter(self.usage));
        let grown = |held: u64| held.checked_add(more).filter(|sum| *sum <= limit);
        // The counter guards no other memory; what is allocated under it is the owner's alone.
        match counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown) {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(held) => {
                if let Some(whole) = &mut self.in_whole {
                    whole.shrink_to(self.bytes);
                }
                Err(MemoryFull {
                    usage: self.usage,
                    asked: more,
                    held,
                    limit,
                })
            }
        }
    }

    /// Gives back all but `bytes`, once the real size is known to be smaller.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.ledger
            .counter(self.usage)
            .fetch_sub(surplus, Ordering::Relaxed);
        self.bytes -= surplus;
        if let Some(whole) = &mut self.in_whole {
            whole.shrink_to(self.bytes);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_holds_at_most_its_budget_and_gives_back_what_is_dropped() {
        let ledger = MemoryLedger::new(MemoryBudget {
            images: 100,
            ..MemoryBudget::UNBOUNDED
        });
        let mut first = ledger.reserve(MemoryUse::Images, 60).unwrap();
        let full = ledger.reserve(MemoryUse::Images, 41).unwrap_err();
        assert_eq!((full.asked, full.held, full.limit), (41, 60, 100));
        assert!(!full.is_hopeless() && ledger.reserve(MemoryUse::Images, 101).unwrap_err().is_hopeless());
        // Another use has room of its own.
        let _other = ledger.reserve(MemoryUse::States, 1000).unwrap();
        let second = ledger.reserve(MemoryUse::Images, 40).unwrap();
        assert!(first.grow(1).is_err());
        assert_eq!((first.bytes(), ledger.held(MemoryUse::Images)), (60, 100));
        first.shrink_to(10);
        assert_eq!(ledger.held(MemoryUse::Images), 50);
        drop((first, second));
        assert_eq!(ledger.held(MemoryUse::Images), 0);
        assert_eq!(ledger.held(MemoryUse::States), 1000);
    }

    #[test]
    fn what_a_part_holds_is_held_in_the_whole_and_fits_into_both() {
        let of_weights = |weights| MemoryBudget {
            weights,
            ..MemoryBudget::UNBOUNDED
        };
        let whole = MemoryLedger::new(of_weights(100));
        let [one, other] = [whole.part(of_weights(60)), whole.part(of_weights(60))];
        let mut held = one.reserve(MemoryUse::Weights, 50).unwrap();
        let full = one.reserve(MemoryUse::Weights, 20).unwrap_err();
        assert_eq!((full.held, full.limit), (50, 60), "the part has no room");
        assert_eq!(
            whole.held(MemoryUse::Weights),
            50,
            "and what was refused is held nowhere"
        );
        let full = other.reserve(MemoryUse::Weights, 55).unwrap_err();
        assert_eq!((full.held, full.limit), (50, 100), "the whole has none");
        assert_eq!(other.held(MemoryUse::Weights), 0);
        held.shrink_to(10);
        let _more = other.reserve(MemoryUse::Weights, 60).unwrap();
        let held_by = |ledger: &MemoryLedger| ledger.held(MemoryUse::Weights);
        assert_eq!((held_by(&one), held_by(&other), held_by(&whole)), (10, 60, 70));
        drop(held);
        assert_eq!((held_by(&one), held_by(&whole)), (0, 60));
    }

    #[test]
    fn a_sum_that_does_not_fit_a_number_is_refused() {
        let ledger = MemoryLedger::new(MemoryBudget::UNBOUNDED);
        let _held = ledger.reserve(MemoryUse::Bodies, u64::MAX - 1).unwrap();
        assert!(ledger.reserve(MemoryUse::Bodies, 2).is_err());
    }
}
