//! Room in the engine for one job: a place at the door, and the bytes of its decoded images.

use pentimento_types::Reservation;
use tokio::sync::OwnedSemaphorePermit;

use crate::placement::OnDevice;

/// Given back when it is dropped, which the engine does at the job's end.
#[derive(Debug)]
pub struct Place {
    /// The device that it was given to. Before the place at the door: who comes in finds the device as it is.
    pub(crate) on_device: Option<OnDevice>,
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) _images: Reservation,
}
