//! The seam between deciding that a model is needed and bringing it into memory, which must not hold the device up.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Precision, WordModel};
use prometheus_client::registry::Registry;

use crate::{DeviceReport, ExecutorError, Offer, ResolvedModels};

/// Why there is no model.
#[derive(Clone, Debug)]
pub enum LoadError {
    /// It cannot be loaded, now or ever; everybody who waits for it is told so.
    Failed(ExecutorError),
    /// There is no memory for it until a model that is in use is let go.
    NoRoom(ExecutorError),
}

/// Brings models into memory, each call on a thread of its own.
///
/// # Contract
/// * It holds no lock that an act of the executor needs for longer than a look-up, and computes on its own thread alone.
/// * It never throws out what a job holds, and answers [`LoadError::NoRoom`] only while somebody holds another model.
/// * Two calls at the same time are allowed.
pub trait ModelLoader: Send + Sync + 'static {
    /// What an executor computes with. Cheap to clone; a model stays in memory while there is a clone.
    type Model: Clone + Send + 'static;

    /// The model, from memory or from its files.
    ///
    /// # Errors
    /// As [`LoadError`] says.
    fn load(&self, models: &ResolvedModels) -> Result<Self::Model, LoadError>;

    /// A language model of the catalogue that says these words only, from memory or from its files; always with the same words.
    ///
    /// # Errors
    /// When it cannot be loaded, or the models in use leave no room.
    fn word_model(&self, entry: &ModelEntry, words: &[&str]) -> Result<Arc<WordModel>, ExecutorError>;

    /// Where models are loaded to, as it is now.
    fn device(&self) -> DeviceReport;

    /// The numbers in which a checkpoint computes there.
    fn precision(&self, checkpoint: &ModelEntry) -> Precision;

    /// Names of the checkpoints whose weights are in memory, in use or not, for status pages. Called often.
    fn resident_models(&self) -> Vec<String>;

    /// How much of a model is in memory, and what all weights there take. Asked for each job.
    fn offer(&self, models: &ResolvedModels) -> Offer;

    /// Keeps a model that was loaded until it is evicted by name.
    fn pin(&self, models: &ResolvedModels);

    /// Lets go of every model of this checkpoint and throws out what no job uses of them. Says how many bytes that was.
    fn evict(&self, checkpoint: &str) -> u64;

    /// Throws out everything that no job uses and that is not pinned. Says how many bytes that was.
    fn evict_idle(&self) -> u64;

    /// Throws out models that no job has used for as long as they are to be kept. Says how many bytes that was. To be called
    /// now and then: only what its calls have seen counts.
    fn evict_unused(&self) -> u64;

    /// Puts what it counts into a registry, with what the loaders of other devices count that were made together with it.
    fn register_metrics(&self, registry: &mut Registry);
}
