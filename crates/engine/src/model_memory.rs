//! The models in memory as the door to the engine sees them, whatever the executor's type.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Precision, WordModel};
use prometheus_client::registry::Registry;

use crate::{DeviceReport, EngineError, LoadError, ModelLoader, Offer, ResolvedModels};

/// A [`ModelLoader`] without its type.
pub(crate) trait ModelMemory: Send + Sync {
    /// Loads a model and lets go of it, so that it is in memory as one that nobody uses.
    fn load_and_keep(&self, models: &ResolvedModels, pin: bool) -> Result<(), EngineError>;

    /// As [`ModelLoader::word_model`].
    fn word_model(&self, entry: &ModelEntry, words: &[&str]) -> Result<Arc<WordModel>, EngineError>;

    /// As [`ModelLoader::evict`].
    fn evict(&self, checkpoint: &str) -> u64;

    /// As [`ModelLoader::evict_idle`].
    fn evict_idle(&self) -> u64;

    /// As [`ModelLoader::evict_unused`].
    fn evict_unused(&self) -> u64;

    /// As [`ModelLoader::device`].
    fn device(&self) -> DeviceReport;

    /// As [`ModelLoader::precision`].
    fn precision(&self, checkpoint: &ModelEntry) -> Precision;

    /// As [`ModelLoader::resident_models`].
    fn resident_models(&self) -> Vec<String>;

    /// As [`ModelLoader::offer`].
    fn offer(&self, models: &ResolvedModels) -> Offer;

    /// As [`ModelLoader::register_metrics`].
    fn register_metrics(&self, registry: &mut Registry);
}

impl<L: ModelLoader> ModelMemory for L {
    fn load_and_keep(&self, models: &ResolvedModels, pin: bool) -> Result<(), EngineError> {
        let loaded = self.load(models).map_err(|error| match error {
            LoadError::Failed(error) | LoadError::NoRoom(error) => EngineError::from(error),
        })?;
        if pin {
            // Before it is let go of, so that nothing can come between.
            self.pin(models);
        }
        drop(loaded);
        Ok(())
    }

    fn word_model(&self, entry: &ModelEntry, words: &[&str]) -> Result<Arc<WordModel>, EngineError> {
        Ok(ModelLoader::word_model(self, entry, words)?)
    }

    fn evict(&self, checkpoint: &str) -> u64 {
        ModelLoader::evict(self, checkpoint)
    }

    fn evict_idle(&self) -> u64 {
        ModelLoader::evict_idle(self)
    }

    fn evict_unused(&self) -> u64 {
        ModelLoader::evict_unused(self)
    }

    fn device(&self) -> DeviceReport {
        ModelLoader::device(self)
    }

    fn precision(&self, checkpoint: &ModelEntry) -> Precision {
        ModelLoader::precision(self, checkpoint)
    }

    fn resident_models(&self) -> Vec<String> {
        ModelLoader::resident_models(self)
    }

    fn offer(&self, models: &ResolvedModels) -> Offer {
        ModelLoader::offer(self, models)
    }

    fn register_metrics(&self, registry: &mut Registry) {
        ModelLoader::register_metrics(self, registry);
    }
}
