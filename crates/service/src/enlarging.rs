//! Whose picture is being enlarged, and who waits for that.

use std::sync::Arc;

use pentimento_types::{ApiKeyId, KeyedSemaphores};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ServiceError;

/// Callers that wait for the one whose picture is being enlarged. One more is told to come back.
const WAITING: usize = 8;
/// Of one owner, so that others find a place.
const OF_ONE: usize = 4;

/// Who enlarges.
#[derive(Debug)]
pub(crate) struct Enlarging {
    places: Arc<Semaphore>,
    owners: KeyedSemaphores<ApiKeyId>,
    pub(crate) turn: Arc<Semaphore>,
}

impl Default for Enlarging {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(1 + WAITING)),
            owners: KeyedSemaphores::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Enlarging {
    /// A place in the line, given back when it is dropped.
    pub(crate) fn place(&self, owner: &ApiKeyId) -> Result<[OwnedSemaphorePermit; 2], ServiceError> {
        let own = self.owners.get_or_make(owner.clone(), OF_ONE);
        let of = |places: Arc<Semaphore>| places.try_acquire_owned().map_err(|_| ServiceError::Overloaded);
        Ok([of(own)?, of(Arc::clone(&self.places))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_leaves_places_to_others() {
        let (enlarging, places) = (Enlarging::default(), |name: &str| ApiKeyId::new(name));
        let held: Vec<_> = (0..OF_ONE)
            .map(|_| enlarging.place(&places("a")).unwrap())
            .collect();
        assert!(matches!(
            enlarging.place(&places("a")),
            Err(ServiceError::Overloaded)
        ));
        let other = enlarging.place(&places("b")).unwrap();
        drop(held);
        assert!(enlarging.place(&places("a")).is_ok());
        drop(other);
    }
}
