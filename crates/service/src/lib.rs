//! The use cases of the server: submit, wait, fetch, cancel, links; and the worker loop that runs the jobs.
//!
//! Nothing here knows HTTP or a vendor's field names, and no tensor comes up this far.

mod attempt;
mod deliver;
mod error;
pub mod image_codec;
mod inputs;
mod key_ring;
mod links;
mod maintenance;
mod progress;
mod service;
mod shutdown;
mod submit;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wait;
mod worker;

pub use error::{ModelRole, ServiceError};
pub use inputs::image_fetcher;
pub use key_ring::KeyRing;
pub use links::{ImageLink, LinkedFile};
pub use pentimento_catalog::{
    Availability, BaseModel, Catalog, CatalogError, ModelEntry, ModelKind, Source, Unavailable,
};
pub use pentimento_jobs::JobCounts;
pub use pentimento_outbound::{AddressGuard, ImageFetcher};
pub use service::{
    EngineSummary, InputLimits, Service, ServiceConfig, ServiceParts, ServiceStatus, finished_images,
};
pub use submit::Submission;

#[cfg(test)]
mod tests;
