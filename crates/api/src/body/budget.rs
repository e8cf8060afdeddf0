//! What the bodies of all callers may take together: the ledger's room for bodies, and within it a share for
//! callers who are not identified yet.
//!
//! Invariant: unidentified callers never hold more than their share. A [`BodyMemory`] gives back what it holds
//! when it is dropped, whatever ended the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pentimento_types::{MemoryLedger, MemoryUse, Reservation};

use super::error::BodyError;

/// One part of so many is what unidentified callers share.
const SHARE_OF_UNIDENTIFIED: u64 = 4;

/// Whether the server knows who sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A header or the query has said it, or nobody needs a key.
    Identified,
    /// The key may be inside the body.
    Unidentified,
}

/// Counts the bytes of all bodies that are being read or parsed, in bytes of memory and not of the wire.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    ledger: Arc<MemoryLedger>,
    largest_body: usize,
    unidentified: Share,
}

#[derive(Debug)]
struct Share {
    limit: u64,
    held: AtomicU64,
}

impl Share {
    fn take(&self, bytes: u64) -> Result<(), BodyError> {
        let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limit);
        // Guards no other memory.
        let taken = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        taken.map(|_| ()).map_err(|_| BodyError::NoRoom)
    }

    fn give(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl BodyBudget {
    /// The ledger's room for bodies; a quarter of it for unidentified callers, but enough for the largest body
    /// of one.
    ///
    /// The largest body has `largest_body` bytes, or fewer where `places` times as many, which it takes while it is parsed,
    /// would never fit: such a body is too large, and not early.
    pub(crate) fn new(ledger: Arc<MemoryLedger>, largest_body: usize, places: usize) -> Self {
        let room = ledger.limit(MemoryUse::Bodies);
        let fits = usize::try_from(room).unwrap_or(usize::MAX) / places;
        let largest_body = largest_body.min(fits);
        let one_body = wide(largest_body) * wide(places);
        Self {
            unidentified: Share {
                limit: (room / SHARE_OF_UNIDENTIFIED).max(one_body),
                held: AtomicU64::new(0),
            },
            ledger,
            largest_body,
        }
    }

    /// The largest body that is read, in bytes.
    pub(crate) const fn largest_body(&self) -> usize {
        self.largest_body
    }
}

/// The room that one body, and what is parsed out of it, takes.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    budget: Arc<BodyBudget>,
    sender: Sender,
    held: Reservation,
}

impl BodyMemory {
    /// Nothing yet.
    pub(crate) fn new(budget: &Arc<BodyBudget>, sender: Sender) -> Result<Self, BodyError> {
        let held = budget.ledger.reserve(MemoryUse::Bodies, 0);
        Ok(Self {
            budget: Arc::clone(budget),
            sender,
            held: held.map_err(|_| BodyError::NoRoom)?,
        })
    }

    /// Of which budget.
    pub(super) fn budget(&self) -> &BodyBudget {
        &self.budget
    }

    /// Takes `bytes` more, or none of them.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let bytes = wide(bytes);
        let share = (self.sender == Sender::Unidentified).then_some(&self.budget.unidentified);
        if let Some(share) = share {
            share.take(bytes)?;
        }
        self.held.grow(bytes).map_err(|_| {
            if let Some(share) = share {
                share.give(bytes);
            }
            BodyError::NoRoom
        })
    }

    /// Gives back what is beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let before = self.held.bytes();
        self.held.shrink_to(wide(bytes));
        if self.sender == Sender::Unidentified {
            self.budget.unidentified.give(before - self.held.bytes());
        }
    }

    /// Whether the sender has said who it is.
    pub(super) fn is_identified(&self) -> bool {
        self.sender == Sender::Identified
    }

    /// The sender has said who it is; from now on the body counts as everybody's.
    pub(crate) fn identify_sender(&mut self) {
        if self.sender == Sender::Unidentified {
            self.budget.unidentified.give(self.held.bytes());
            self.sender = Sender::Identified;
        }
    }
}

impl Drop for BodyMemory {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// No machine has a `usize` that is wider.
const fn wide(bytes: usize) -> u64 {
    bytes as u64
}

#[cfg(test)]
mod tests {
    use pentimento_types::MemoryBudget;

    use super::*;

    fn budget(room: u64, largest_body: usize) -> Arc<BodyBudget> {
        let ledger = MemoryLedger::new(MemoryBudget {
            bodies: room,
            ..MemoryBudget::UNBOUNDED
        });
        Arc::new(BodyBudget::new(ledger, largest_body, 2))
    }

    fn memory(budget: &Arc<BodyBudget>, sender: Sender) -> BodyMemory {
        BodyMemory::new(budget, sender).unwrap()
    }

    fn held(budget: &BodyBudget) -> (u64, u64) {
        let unidentified = budget.unidentified.held.load(Ordering::Relaxed);
        (budget.ledger.held(MemoryUse::Bodies), unidentified)
    }

    #[test]
    fn what_is_taken_comes_back() {
        let budget = budget(100, 10);
        let mut first = memory(&budget, Sender::Identified);
        first.grow(60).unwrap();
        let mut second = memory(&budget, Sender::Identified);
        assert_eq!(second.grow(41), Err(BodyError::NoRoom));
        second.grow(40).unwrap();
        assert_eq!(held(&budget), (100, 0));
        first.shrink_to(20);
        first.shrink_to(30);
        assert_eq!(held(&budget), (60, 0));
        second.grow(40).unwrap();
        drop((first, second));
        assert_eq!(held(&budget), (0, 0));
    }

    #[test]
    fn unidentified_callers_have_a_share_until_they_are_identified() {
        let budget = budget(100, 10);
        let mut first = memory(&budget, Sender::Unidentified);
        first.grow(25).unwrap();
        let mut other = memory(&budget, Sender::Unidentified);
        assert_eq!(other.grow(1), Err(BodyError::NoRoom));
        first.identify_sender();
        first.grow(70).unwrap();
        // Their share has room again, the whole has not.
        assert_eq!(other.grow(25), Err(BodyError::NoRoom));
        other.grow(5).unwrap();
        assert_eq!(held(&budget), (100, 5));
        drop(first);
        other.grow(20).unwrap();
        drop(other);
        assert_eq!(held(&budget), (0, 0));
    }

    #[test]
    fn one_unidentified_caller_may_always_send_the_largest_body() {
        for (room, asked, largest, share) in [(1000, 10, 10, 250), (100, 30, 30, 60), (100, 80, 50, 100)] {
            let budget = budget(room, asked);
            assert_eq!(
                (budget.largest_body(), budget.unidentified.limit),
                (largest, share)
            );
        }
        let unbounded = budget(u64::MAX, 80);
        assert_eq!(unbounded.largest_body(), 80);
    }
}
