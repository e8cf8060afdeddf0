//! The use cases of the server: submit, wait, fetch, cancel, links; and the worker loop that runs the jobs.
//!
//! Nothing here knows HTTP or a vendor's field names, and no tensor comes up this far.

mod error;
pub mod image_codec;
mod key_ring;
mod service;

pub use error::{ModelRole, ServiceError};
pub use key_ring::KeyRing;
pub use pentimento_catalog::{
    Availability, BaseModel, Catalog, CatalogError, ModelEntry, ModelKind, Source, Unavailable,
};
pub use service::{
    EngineSummary, ImageLink, InputLimits, JobCounts, LinkedFile, Service, ServiceConfig, ServiceStatus,
    finished_images,
};
