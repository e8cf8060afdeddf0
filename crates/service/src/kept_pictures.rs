//! Pictures in the store that belong to no job: uploaded ones, and enlarged ones. How many bytes of them one caller and all
//! callers may have here at once, and when each is deleted.
//!
//! What an earlier process has kept is not counted; its pictures are deleted with those that belong to no job any more.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pentimento_types::{ApiKeyId, ImageKey};

use crate::ServiceError;

/// Of all callers together.
const MOST_BYTES: u64 = 8 << 30;
/// Of one caller, so that nobody takes what all have.
const MOST_OF_ONE: u64 = 2 << 30;

/// What a picture counts at least: there is a place in a folder and in this list for each.
pub(crate) const LEAST_BYTES: u64 = 64 << 10;

/// A picture that is kept, or is just being stored.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) key: ImageKey,
    pub(crate) owner: ApiKeyId,
    pub(crate) bytes: u64,
    /// When it is deleted.
    pub(crate) until: Instant,
}

/// All of them, those that were stored first at the front.
#[derive(Debug, Default)]
pub(crate) struct KeptPictures(Mutex<VecDeque<Kept>>);

impl KeptPictures {
    /// Takes room for a picture of an owner, before it is stored.
    pub(crate) fn reserve(&self, kept: Kept, now: Instant) -> Result<(), ServiceError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = |of_one: bool| -> u64 {
            let counted = all.iter().filter(|other| !of_one || other.owner == kept.owner);
            counted.map(|other| other.bytes).sum()
        };
        let beyond = |held: u64, most: u64| held.saturating_add(kept.bytes) > most;
        let is_beyond_own = beyond(held(true), MOST_OF_ONE);
        if is_beyond_own || beyond(held(false), MOST_BYTES) {
            let mut counted = all
                .iter()
                .filter(|other| !is_beyond_own || other.owner == kept.owner);
            let first = counted.next().map(|first| first.until);
            let wait = first.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
            return Err(ServiceError::KeptPicturesFull { retry_after: wait });
        }
        all.push_back(kept);
        Ok(())
    }

    /// Forgets a picture that could not be stored.
    pub(crate) fn forget(&self, key: &ImageKey) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|kept| kept.key != *key);
    }

    /// Those whose time is over. They are counted until they are deleted.
    pub(crate) fn expired(&self, now: Instant) -> Vec<ImageKey> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = all.iter().filter(|kept| kept.until <= now);
        over.map(|kept| kept.key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{Clock as _, JobId, SystemClock};

    use super::*;

    #[test]
    fn one_caller_has_a_share_and_all_have_a_bound_until_pictures_expire() {
        let (pictures, now) = (KeptPictures::default(), SystemClock.now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let keep = |owner: &str, bytes: u64, at: u64| {
            let key = ImageKey::output("upload", JobId::new(), 0, "png");
            let kept = Kept {
                key,
                owner: ApiKeyId::new(owner),
                bytes,
                until: after(at + 100),
            };
            pictures.reserve(kept, after(at))
        };
        keep("a", MOST_OF_ONE, 0).unwrap();
        let refused = keep("a", 1, 10).unwrap_err();
        let wait = Duration::from_secs(90);
        assert!(
            matches!(refused, ServiceError::KeptPicturesFull { retry_after } if retry_after == wait),
            "{refused:?}"
        );
        assert_eq!(refused.retry_after(), Some(wait));
        for owner in ["b", "c", "d"] {
            keep(owner, MOST_OF_ONE, 20).unwrap();
        }
        let refused = keep("b", 1, 30).unwrap_err();
        assert_eq!(
            refused.retry_after(),
            Some(Duration::from_secs(90)),
            "its own first one"
        );
        assert!(keep("e", 1, 30).is_err(), "all together");
        assert!(pictures.expired(after(99)).is_empty());
        let expired = pictures.expired(after(100));
        assert_eq!(expired.len(), 1);
        assert!(keep("a", 1, 100).is_err(), "until it is deleted");
        pictures.forget(&expired[0]);
        keep("a", 1, 100).unwrap();
    }
}
