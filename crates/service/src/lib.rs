//! The use cases of the server: submit, wait, fetch, cancel, links; and the worker loop that runs the jobs.
//!
//! Nothing here knows HTTP or a vendor's field names, and no tensor comes up this far.

mod admitted;
mod attempt;
mod config;
mod decode_room;
mod decoding_shares;
mod deliver;
mod embeddings;
mod error;
mod fetching;
mod forecast;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image_codec;
mod inner;
mod inputs;
mod key_ring;
mod limits;
mod links;
mod load_model;
mod loads;
mod looks;
mod maintenance;
mod model_files;
mod model_state;
mod named_models;
mod off_thread;
mod picture_calls;
mod plan;
mod progress;
mod residency;
mod resolve;
mod safety;
mod service;
mod shutdown;
mod submit;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod unfetched;
mod wait;
mod worker;

pub use config::{ServiceConfig, ServiceParts};
pub use error::{ModelRole, ServiceError};
pub use inputs::image_fetcher;
pub use key_ring::KeyRing;
pub use limits::InputLimits;
pub use links::{ImageLink, LinkedFile};
pub use model_state::ModelState;
pub use named_models::NamedModels;
pub use pentimento_catalog::{BaseModel, Catalog, CatalogError, ModelEntry, ModelKind, Source, Unavailable};
pub use pentimento_hub::{Hub, HubSettings, Progress as FileProgress};
pub use pentimento_jobs::JobCounts;
pub use pentimento_outbound::{AddressGuard, ImageFetcher};
pub use picture_calls::{Enlarged, PictureCall};
pub use plan::model_notes;
pub use safety::{SafetyRule, SafetySettings};
pub use service::{EngineSummary, Service, ServiceStatus, finished_images};
pub use submit::Submission;
pub use unfetched::Held;

#[cfg(test)]
mod tests;
