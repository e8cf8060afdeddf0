//! The catalogue of models: reads and checks `models.toml`, and turns the name a caller sent into one entry.
//!
//! Invariant: a caller's name is only ever compared with names in the catalogue; it never becomes a path or an address.

mod catalog;
mod entry;
mod error;
mod nearest;
mod parse;
mod preset;
mod scheduler_settings;
mod settle;
mod source;

pub use catalog::Catalog;
pub use entry::{BaseModel, ModelEntry, ModelKind, ModelPrecision, Prediction};
pub use error::{CatalogError, EntryFault};
pub use preset::{LoraInPreset, Preset};
pub use scheduler_settings::{SchedulerSettings, TimestepSpacing};
pub use source::{Availability, Source, Unavailable};
