//! What the bodies of all callers may take together.
//!
//! Invariant: no more is ever reserved than the budget, and no more than their share of it by callers who are not known
//! yet. A [`BodyMemory`] gives back what it holds when it is dropped, whatever ended the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::BodyError;

/// Whether the server knows who sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A header or the query has said it, or nobody needs a key.
    Known,
    /// The key may be inside the body.
    Stranger,
}

/// Counts the bytes of all bodies that are being read or parsed, in bytes of memory and not of the wire.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    all: Account,
    strangers: Account,
}

#[derive(Debug)]
struct Account {
    limit: usize,
    used: AtomicUsize,
}

impl Account {
    const fn new(limit: usize) -> Self {
        Self {
            limit,
            used: AtomicUsize::new(0),
        }
    }

    fn take(&self, bytes: usize) -> Result<(), BodyError> {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
        taken.map(|_| ()).map_err(|_| BodyError::NoRoom)
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl BodyBudget {
    /// `bytes` for all; a quarter of it for strangers, but enough for `one_body`, which is what the largest body of one of
    /// them takes while it is parsed.
    pub(crate) fn new(bytes: usize, one_body: usize) -> Self {
        let strangers = (bytes / 4).max(one_body).min(bytes);
        Self {
            all: Account::new(bytes),
            strangers: Account::new(strangers),
        }
    }

    /// Bytes that are reserved now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.all.used.load(Ordering::Acquire)
    }
}

/// The room that one body, and what is parsed out of it, takes.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    budget: Arc<BodyBudget>,
    sender: Sender,
    bytes: usize,
}

impl BodyMemory {
    /// Nothing yet.
    pub(crate) const fn new(budget: Arc<BodyBudget>, sender: Sender) -> Self {
        Self {
            budget,
            sender,
            bytes: 0,
        }
    }

    /// Takes `bytes` more, or none of them.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let strangers = (self.sender == Sender::Stranger).then_some(&self.budget.strangers);
        if let Some(account) = strangers {
            account.take(bytes)?;
        }
        if let Err(full) = self.budget.all.take(bytes) {
            if let Some(account) = strangers {
                account.give(bytes);
            }
            return Err(full);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Gives back what is beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let beyond = self.bytes.saturating_sub(bytes);
        if self.sender == Sender::Stranger {
            self.budget.strangers.give(beyond);
        }
        self.budget.all.give(beyond);
        self.bytes -= beyond;
    }

    /// The sender has said who it is; from now on the body counts as everybody's.
    pub(crate) fn sender_is_known(&mut self) {
        if self.sender == Sender::Stranger {
            self.budget.strangers.give(self.bytes);
            self.sender = Sender::Known;
        }
    }
}

impl Drop for BodyMemory {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(budget: &Arc<BodyBudget>, sender: Sender) -> BodyMemory {
        BodyMemory::new(Arc::clone(budget), sender)
    }

    #[test]
    fn what_is_taken_comes_back() {
        let budget = Arc::new(BodyBudget::new(100, 10));
        let mut first = memory(&budget, Sender::Known);
        first.grow(60).unwrap();
        let mut second = memory(&budget, Sender::Known);
        assert_eq!(second.grow(41), Err(BodyError::NoRoom));
        second.grow(40).unwrap();
        assert_eq!(budget.used(), 100);
        first.shrink_to(20);
        first.shrink_to(30);
        assert_eq!(budget.used(), 60);
        second.grow(40).unwrap();
        drop((first, second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn strangers_have_a_share_until_they_are_known() {
        let budget = Arc::new(BodyBudget::new(100, 10));
        let mut stranger = memory(&budget, Sender::Stranger);
        stranger.grow(25).unwrap();
        let mut other = memory(&budget, Sender::Stranger);
        assert_eq!(other.grow(1), Err(BodyError::NoRoom));
        stranger.sender_is_known();
        stranger.grow(70).unwrap();
        // Their share has room again, the whole has not.
        assert_eq!(other.grow(25), Err(BodyError::NoRoom));
        other.grow(5).unwrap();
        drop(stranger);
        other.grow(20).unwrap();
        drop(other);
        let (all, strangers) = (&budget.all.used, &budget.strangers.used);
        assert_eq!(
            (all.load(Ordering::Acquire), strangers.load(Ordering::Acquire)),
            (0, 0)
        );
    }

    #[test]
    fn one_stranger_may_always_send_the_largest_body() {
        assert_eq!(BodyBudget::new(100, 60).strangers.limit, 60);
        assert_eq!(BodyBudget::new(100, 180).strangers.limit, 100);
    }
}
