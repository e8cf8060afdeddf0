//! What submit has found out about a job, kept for its first attempt: what its names stand for, and its decoded images.
//!
//! A job that starts soon is resolved and decoded once. What waits longer may lose its images again, which are then
//! decoded anew from the stored files: the decoded images of waiting jobs stay within the ledger's room for images.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pentimento_engine::ResolvedModels;
use pentimento_types::{InputRole, JobId, MemoryFull, MemoryLedger, MemoryUse, Reservation, RgbImage};

use crate::ServiceError;

/// What is known of one admitted job.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) models: ResolvedModels,
    pub(crate) images: Option<DecodedImages>,
}

/// Decoded images with the room that they take.
#[derive(Debug, Default)]
pub(crate) struct DecodedImages {
    images: BTreeMap<InputRole, (RgbImage, Reservation)>,
}

impl DecodedImages {
    /// Takes over an image with the room that it takes.
    pub(crate) fn add(&mut self, role: InputRole, image: RgbImage, room: Reservation) {
        self.images.insert(role, (image, room));
    }

    /// The images by role. Their room is given back: somebody else accounts for them now.
    pub(crate) fn into_vec(self) -> Vec<(InputRole, RgbImage)> {
        let images = self.images.into_iter();
        images.map(|(role, (image, _))| (role, image)).collect()
    }

    fn bytes(&self) -> u64 {
        self.images.values().map(|(_, room)| room.bytes()).sum()
    }
}

/// The admitted jobs of this process that no attempt has taken yet.
#[derive(Debug)]
pub(crate) struct AdmittedJobs {
    ledger: Arc<MemoryLedger>,
    /// Ids sort by the time of their making.
    waiting: Mutex<BTreeMap<JobId, Admitted>>,
}

impl AdmittedJobs {
    pub(crate) const fn new(ledger: Arc<MemoryLedger>) -> Self {
        Self {
            ledger,
            waiting: Mutex::new(BTreeMap::new()),
        }
    }

    /// What all images may take, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.ledger.limit(MemoryUse::Images)
    }

    /// Refuses images of more bytes than would fit if nothing else were held.
    ///
    /// # Errors
    /// [`ServiceError::ImageMemory`].
    pub(crate) fn check(&self, needed: u64) -> Result<(), ServiceError> {
        let limit = self.limit();
        if needed > limit {
            return Err(ServiceError::ImageMemory { needed, limit });
        }
        Ok(())
    }

    /// Room for an image of a job that waits. None where it is taken: by jobs that wait longer already, and by images in the
    /// engine.
    pub(crate) fn reserve(&self, bytes: u64) -> Option<Reservation> {
        self.ledger.reserve(MemoryUse::Images, bytes).ok()
    }

    /// Room for something that is needed whether there is room or not.
    ///
    /// # Errors
    /// [`MemoryFull`].
    pub(crate) fn room(&self, bytes: u64) -> Result<Reservation, MemoryFull> {
        self.ledger.reserve(MemoryUse::Images, bytes)
    }

    pub(crate) fn keep(&self, id: JobId, admitted: Admitted) {
        self.waiting().insert(id, admitted);
    }

    /// What is known of a job, for the attempt that begins now; None for a job of another process or a second attempt.
    pub(crate) fn take(&self, id: JobId) -> Option<Admitted> {
        self.waiting().remove(&id)
    }

    /// The jobs of which something is kept.
    pub(crate) fn known(&self) -> HashSet<JobId> {
        self.waiting().keys().copied().collect()
    }

    /// Forgets the jobs that do not wait any more.
    pub(crate) fn retain(&self, waits: impl Fn(JobId) -> bool) {
        self.waiting().retain(|id, _| waits(*id));
    }

    /// Drops the images of the job that will wait longest. False when no waiting job has any.
    pub(crate) fn give_up_one(&self) -> bool {
        let mut waiting = self.waiting();
        let newest_first = waiting.values_mut().rev();
        let given_up = newest_first.filter_map(|admitted| admitted.images.take()).next();
        if let Some(given_up) = &given_up {
            tracing::debug!(
                bytes = given_up.bytes(),
                "the images of a waiting job are given up"
            );
        }
        given_up.is_some()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<JobId, Admitted>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use pentimento_types::{MemoryBudget, Size};

    use super::*;
    use crate::Catalog;

    const IMAGE_BYTES: u64 = 4 * 4 * 3;

    fn admitted(jobs: &AdmittedJobs) -> Admitted {
        let size = Size { width: 4, height: 4 };
        let image = RgbImage::new(size, vec![0; 48]).unwrap();
        let images = jobs.reserve(IMAGE_BYTES).map(|room| {
            let mut images = DecodedImages::default();
            images.add(InputRole::Init, image, room);
            images
        });
        Admitted {
            models: ResolvedModels::checkpoint(Arc::clone(&Catalog::embedded_only().entries()[0])),
            images,
        }
    }

    fn jobs(images: u64) -> (Arc<MemoryLedger>, AdmittedJobs) {
        let ledger = MemoryLedger::new(MemoryBudget {
            images,
            ..MemoryBudget::UNBOUNDED
        });
        (Arc::clone(&ledger), AdmittedJobs::new(ledger))
    }

    #[test]
    fn the_newest_waiting_job_gives_its_images_up_first() {
        let (ledger, jobs) = jobs(2 * IMAGE_BYTES);
        let id = JobId::from_u128;
        for job in 1..=3 {
            let admitted = admitted(&jobs);
            assert_eq!(admitted.images.is_some(), job < 3, "there is room for two");
            jobs.keep(id(job), admitted);
        }
        assert_eq!(ledger.held(MemoryUse::Images), 2 * IMAGE_BYTES);
        assert!(jobs.give_up_one());
        let has_images = |job| jobs.take(id(job)).unwrap().images.is_some();
        assert!(has_images(1) && !has_images(2) && !has_images(3));
        assert!(jobs.take(id(1)).is_none(), "each is taken once");
        assert!(!jobs.give_up_one());
        assert_eq!(ledger.held(MemoryUse::Images), 0);
    }

    #[test]
    fn what_never_fits_is_refused_and_what_does_not_wait_is_forgotten() {
        let (ledger, jobs) = jobs(IMAGE_BYTES);
        jobs.check(IMAGE_BYTES).unwrap();
        let refused = jobs.check(IMAGE_BYTES + 1).unwrap_err();
        assert!(
            matches!(
                refused,
                ServiceError::ImageMemory {
                    needed: 49,
                    limit: 48
                }
            ),
            "{refused}"
        );
        jobs.keep(JobId::from_u128(1), admitted(&jobs));
        assert_eq!(ledger.held(MemoryUse::Images), IMAGE_BYTES);
        jobs.retain(|_| false);
        assert_eq!(ledger.held(MemoryUse::Images), 0);
    }
}
