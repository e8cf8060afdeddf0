//! The life of models: which are brought into memory before a job asks for them, and which leave it.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::ModelEntry;
use pentimento_engine::{EngineError, ResolvedModels};
use pentimento_types::{ModelId, describe_chain};

use crate::inner::{Inner, Lifecycle};
use crate::{ModelRole, Service, ServiceError};

/// Between two looks for models that nobody has used for long enough.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

impl Service {
    /// Brings a checkpoint into memory, so that the next request for it need not wait. It stays there until other models need
    /// the room, or until nobody has used it for as long as it is kept.
    ///
    /// # Errors
    /// The `Model…` variants, and [`ServiceError::ShuttingDown`].
    pub async fn load_model(&self, name: &ModelId) -> Result<(), ServiceError> {
        self.inner.check_open()?;
        let checkpoint = self.inner.find_checkpoint(name).await?;
        self.inner.bring_into_memory(checkpoint, false).await
    }

    /// As [`Service::load_model`], without waiting for the end: only what can be told at once is an error. What has no place
    /// in memory of its own, a LoRA for example, is looked for and not loaded.
    ///
    /// # Errors
    /// The `Model…` variants, and [`ServiceError::ShuttingDown`].
    pub async fn begin_to_load(&self, role: ModelRole, name: &ModelId) -> Result<(), ServiceError> {
        self.inner.check_open()?;
        let entry = self.inner.find_usable(role, name).await?;
        if role == ModelRole::Checkpoint {
            let inner = Arc::clone(&self.inner);
            // What goes wrong is in the log, and is said to whoever asks for the model.
            tokio::spawn(async move { inner.bring_into_memory(entry, false).await });
        }
        Ok(())
    }

    /// Throws a checkpoint out of memory, pinned or not, as far as no job uses it. Says how many bytes that was.
    ///
    /// # Errors
    /// [`ServiceError::ModelNotFound`].
    pub async fn unload_model(&self, name: &ModelId) -> Result<u64, ServiceError> {
        let entry = self.inner.find(ModelRole::Checkpoint, name)?;
        let engine = self.inner.engine.clone();
        // Giving gigabytes back takes a while.
        let evicted = tokio::task::spawn_blocking(move || engine.evict(&entry.name)).await;
        evicted.map_err(ServiceError::internal)
    }
}

impl Inner {
    async fn bring_into_memory(&self, checkpoint: Arc<ModelEntry>, pin: bool) -> Result<(), ServiceError> {
        let name = checkpoint.name.clone();
        let loaded = self
            .engine
            .load(ResolvedModels::checkpoint(checkpoint), pin)
            .await;
        loaded.map_err(|error| {
            tracing::warn!(model = %name, error = describe_chain(&error), "a model was not brought into memory");
            let reason = match &error {
                EngineError::Executor(cause) => cause.message(),
                other => other.to_string(),
            };
            ServiceError::ModelUnavailable {
                role: ModelRole::Checkpoint,
                name,
                reason,
            }
        })
    }
}

/// Brings the pinned models into memory, in the order of the catalogue, then lets models go that nobody uses, until the
/// service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let pinned = inner.catalog.entries().iter().filter(|entry| entry.pinned);
    for entry in pinned.cloned().collect::<Vec<_>>() {
        if inner.lifecycle() != Lifecycle::Open {
            return;
        }
        // What is wrong with it is in the log, and is said to whoever asks for it.
        let _ = inner.bring_into_memory(entry, true).await;
    }
    loop {
        let next = inner.clock.now() + BETWEEN_LOOKS;
        tokio::select! {
            () = inner.clock.sleep_until(next) => {}
            () = inner.stopped() => return,
        }
        let engine = inner.engine.clone();
        let evicted = tokio::task::spawn_blocking(move || engine.evict_unused()).await;
        if let Ok(bytes @ 1..) = evicted {
            tracing::info!(bytes, "models that nobody used have left memory");
        }
    }
}
