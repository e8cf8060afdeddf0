//! Places for unfinished jobs: taken before a request is looked at closely, and held until its job has ended.
//!
//! One rule keeps a caller from taking them all: nobody may hold more than [`SHARE`] times as many places as are free. One
//! caller alone so gets three quarters, two get three sevenths each, and who holds none finds a free place as long as there
//! is one (dynamic thresholds: Choudhury and Hahne, 1998). Callers without keys cannot be told apart, and share all places.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_types::ApiKeyId;

use crate::JobsError;

/// How many times as many places as are free one caller may hold.
const SHARE: usize = 3;

/// All places of a store, or of a worker. Clones share them.
///
/// For implementations of [`crate::JobStore`]: they live in the process and not in the records, so that a store which keeps
/// its records over a restart begins with [`Places::take`] for each job that it finds unfinished.
#[derive(Clone, Debug)]
pub struct Places {
    limit: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    of: HashMap<ApiKeyId, usize>,
}

/// A place of a job, or of a request that may become one. Given back when it is dropped.
#[derive(Debug)]
pub struct JobPlace {
    owner: ApiKeyId,
    places: Places,
}

impl Places {
    /// This many.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            held: Arc::default(),
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// A free place, for a caller that has not more than its share.
    ///
    /// # Errors
    /// [`JobsError::Full`], [`JobsError::ShareFull`].
    pub fn reserve(&self, owner: &ApiKeyId) -> Result<JobPlace, JobsError> {
        self.reserve_within(owner, usize::MAX)
    }

    /// The same for a caller that may hold at most `most`, whatever its share is.
    ///
    /// # Errors
    /// [`JobsError::Full`], [`JobsError::OwnerFull`], [`JobsError::ShareFull`].
    pub fn reserve_within(&self, owner: &ApiKeyId, most: usize) -> Result<JobPlace, JobsError> {
        let mut held = self.lock();
        let free = self.limit.saturating_sub(held.all);
        if free == 0 {
            return Err(JobsError::Full { limit: self.limit });
        }
        let own = held.of.get(owner).copied().unwrap_or(0);
        if own >= most {
            return Err(JobsError::OwnerFull { limit: most });
        }
        if has_its_share(owner, own, free) {
            return Err(JobsError::ShareFull { held: own });
        }
        held.add(owner);
        drop(held);
        Ok(self.place(owner))
    }

    /// A place beyond all bounds, for a job that is there already.
    #[must_use]
    pub fn take(&self, owner: &ApiKeyId) -> JobPlace {
        self.lock().add(owner);
        self.place(owner)
    }

    /// Whether none is free.
    #[must_use]
    pub fn are_all_taken(&self) -> bool {
        self.lock().all >= self.limit
    }

    /// The callers that would be refused a place because they have their share.
    #[must_use]
    pub fn shares_taken(&self) -> Vec<ApiKeyId> {
        let held = self.lock();
        let free = self.limit.saturating_sub(held.all);
        let callers = held.of.iter();
        callers
            .filter(|(owner, own)| has_its_share(owner, **own, free))
            .map(|(owner, _)| owner.clone())
            .collect()
    }

    fn place(&self, owner: &ApiKeyId) -> JobPlace {
        JobPlace {
            owner: owner.clone(),
            places: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_its_share(owner: &ApiKeyId, own: usize, free: usize) -> bool {
    *owner != ApiKeyId::anonymous() && own >= free.saturating_mul(SHARE)
}

impl Held {
    fn add(&mut self, owner: &ApiKeyId) {
        self.all += 1;
        *self.of.entry(owner.clone()).or_default() += 1;
    }
}

impl Drop for JobPlace {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        held.all -= 1;
        if let Some(own) = held.of.get_mut(&self.owner) {
            *own -= 1;
            if *own == 0 {
                held.of.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(places: &Places, owner: &ApiKeyId) -> Vec<JobPlace> {
        std::iter::from_fn(|| places.reserve(owner).ok()).collect()
    }

    #[test]
    fn a_caller_leaves_a_share_for_others_and_all_together_fill_the_places() {
        let places = Places::new(100);
        let [a, b, c] = ["a", "b", "c"].map(ApiKeyId::new);
        let of_a = take_all(&places, &a);
        assert_eq!(of_a.len(), 75);
        assert!(matches!(
            places.reserve(&a),
            Err(JobsError::ShareFull { held: 75 })
        ));
        assert_eq!(places.shares_taken(), std::slice::from_ref(&a));
        let of_b = take_all(&places, &b);
        assert_eq!(of_b.len(), 19, "three times the six that are left, rounded up");
        assert!(places.reserve(&c).is_ok(), "who holds none finds a place");
        drop(of_a);
        assert_eq!(take_all(&places, &c).len(), 61);
        drop(of_b);
        let anonymous = take_all(&places, &ApiKeyId::anonymous());
        assert!(anonymous.len() == 100 && places.are_all_taken());
        assert!(matches!(places.reserve(&a), Err(JobsError::Full { limit: 100 })));
        drop(anonymous);
        assert!(places.lock().of.is_empty() && places.lock().all == 0);
    }

    #[test]
    fn a_caller_with_a_bound_of_its_own_holds_no_more_than_that() {
        let places = Places::new(100);
        let [a, b] = ["a", "b"].map(ApiKeyId::new);
        let first = places.reserve_within(&a, 2).unwrap();
        let second = places.reserve_within(&a, 2).unwrap();
        let refused = places.reserve_within(&a, 2);
        assert!(matches!(refused, Err(JobsError::OwnerFull { limit: 2 })));
        assert!(places.reserve_within(&b, 1).is_ok(), "others have their own");
        drop(first);
        assert!(places.reserve_within(&a, 2).is_ok());
        drop(second);
    }

    #[test]
    fn the_smallest_number_of_places_can_all_be_taken() {
        for limit in 1..=3 {
            assert_eq!(take_all(&Places::new(limit), &ApiKeyId::new("a")).len(), limit);
        }
    }

    #[test]
    fn what_is_there_already_counts_and_is_never_refused() {
        let places = Places::new(1);
        let owner = ApiKeyId::new("a");
        let found = [places.take(&owner), places.take(&owner)];
        assert!(matches!(
            places.reserve(&owner),
            Err(JobsError::Full { limit: 1 })
        ));
        drop(found);
        assert!(places.reserve(&owner).is_ok());
    }
}
