//! The use cases of the server: submit, wait, fetch, cancel, links; the worker loop that runs the jobs, and the loop that
//! sends webhooks.
//!
//! Nothing here knows HTTP or a vendor's field names, and no tensor comes up this far.

mod admitted;
mod attempt;
mod check_framed;
mod checker_files;
mod clearing;
mod config;
mod deadlines;
mod decode_room;
mod decoding_shares;
mod deliver;
mod device_time;
mod embeddings;
mod enhance;
mod enlarging;
mod error;
mod fetching;
mod forecast;
mod framing;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod image_codec;
mod inner;
mod inputs;
mod job_span;
mod keep_picture;
mod kept_pictures;
mod key_file;
mod key_record;
mod key_ring;
mod key_watch;
mod language_enhancer;
mod limits;
mod links;
mod load_model;
mod loads;
mod looks;
mod maintenance;
mod metrics;
mod model_files;
mod model_state;
mod named_models;
mod off_thread;
mod own_jobs;
mod own_links;
mod picture_calls;
mod plan;
mod progress;
mod prompt_enhancer;
mod put_back;
mod rate_store;
mod rates;
mod residency;
mod resolve;
mod safety;
mod saving;
mod service;
mod shutdown;
mod signing;
mod sketches;
mod style_expansion;
mod submit;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod traces;
mod transition;
mod unfetched;
mod uploads;
mod wait;
mod watch;
mod watched;
mod webhook_bodies;
mod webhook_calls;
mod webhooks;
mod worker;

pub use clearing::Cleared;
pub use config::{ServiceConfig, ServiceParts};
pub use error::{ModelRole, ServiceError};
pub use forecast::Standing;
pub use inputs::image_fetcher;
pub use key_file::{KeyFile, KeyFileError, SECRET_PREFIX};
pub use key_record::{KeyLimits, NewKey, StoredKey, check_label};
pub use key_ring::{KeyGrant, KeyRing};
pub use limits::InputLimits;
pub use links::{ImageLink, LinkedFile};
pub use metrics::{ServiceMetrics, WebhookResult};
pub use model_state::ModelState;
pub use named_models::NamedModels;
pub use own_jobs::JobPage;
pub use pentimento_catalog::{BaseModel, Catalog, CatalogError, ModelEntry, ModelKind, Source, Unavailable};
pub use pentimento_engine::{DeviceReport, DeviceUse, GpuReport};
pub use pentimento_hub::{Hub, HubSettings, Progress as FileProgress};
pub use pentimento_jobs::{JobCounts, OutboxEntry, OutboxFilter, OutboxState};
pub use pentimento_outbound::{AddressGuard, ImageFetcher, WebhookSecret};
pub use pentimento_storage::Access;
pub use picture_calls::{Enlarged, PictureCall};
pub use plan::model_notes;
pub use prompt_enhancer::{Additions, PromptEnhancer, PromptWords};
pub use rates::{RateBucket, RateCaller, RateConfig, RateExceeded, Rates};
pub use safety::{SafetyRule, SafetySettings};
pub use service::{EngineSummary, Service, ServiceStatus, finished_images};
pub use style_expansion::StyleExpansion;
pub use submit::Submission;
pub use traces::{TraceHooks, Traces};
pub use unfetched::Held;
pub use uploads::Uploaded;
pub use watch::{Seen, Watcher};
pub use watched::{News, Preview};
pub use webhook_bodies::{LastingLink, WebhookBodies};
pub use webhooks::webhook_sender;

#[cfg(test)]
mod tests;
