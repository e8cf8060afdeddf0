//! Room in the engine for one job: a place at the door, and the bytes of its decoded images.

use pentimento_types::Reservation;
use tokio::sync::OwnedSemaphorePermit;

/// Given back when it is dropped, which the engine does at the job's end.
#[derive(Debug)]
pub struct Place {
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) _images: Reservation,
}
