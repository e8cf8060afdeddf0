//! The life of models: which are brought into memory before a job asks for them, and which leave it.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::ModelEntry;
use pentimento_engine::{EngineError, ResolvedModels};
use pentimento_types::{ModelId, describe_chain};

use crate::inner::{Inner, Lifecycle};
use crate::named_models::base_of;
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
        let checkpoint = self.inner.find_usable(ModelRole::Checkpoint, name).await?;
        self.inner.bring_into_memory(checkpoint, false).await
    }

    /// As [`Service::load_model`], without waiting for the end: only what can be told at once is an error. What has no place
    /// in memory of its own, a LoRA for example, is looked for and not loaded.
    ///
    /// # Errors
    /// The `Model…` variants, and [`ServiceError::ShuttingDown`].
    pub async fn begin_to_load(&self, role: ModelRole, name: &ModelId) -> Result<(), ServiceError> {
        self.inner.check_open()?;
        match self.inner.find_usable(role, name).await {
            // Its files are on their way, and it is loaded when they are here.
            Ok(_) | Err(ServiceError::ModelOnItsWay { .. }) => {}
            Err(error) => return Err(error),
        }
        if role == ModelRole::Checkpoint {
            let (inner, entry) = (Arc::clone(&self.inner), self.inner.find(role, name)?);
            // What goes wrong is in the log, and is said to whoever asks for the model.
            tokio::spawn(async move { inner.fetch_and_load(&entry, false).await });
        }
        Ok(())
    }

    /// Throws a checkpoint out of memory, pinned or not, as far as no job uses it, and ends its download. Says how many bytes that was.
    ///
    /// # Errors
    /// [`ServiceError::ModelNotFound`].
    pub async fn unload_model(&self, name: &ModelId) -> Result<u64, ServiceError> {
        let entry = self.inner.find(ModelRole::Checkpoint, name)?;
        let entry = base_of(&self.inner.catalog, &entry).unwrap_or(entry);
        self.inner.hub.cancel(&entry);
        let engine = self.inner.engine.clone();
        // Giving gigabytes back takes a while.
        let evicted = tokio::task::spawn_blocking(move || engine.evict(&entry.name)).await;
        evicted.map_err(ServiceError::internal)
    }
}

impl Inner {
    async fn fetch_and_load(&self, entry: &Arc<ModelEntry>, pin: bool) -> Result<(), ServiceError> {
        let entry = base_of(&self.catalog, entry).unwrap_or_else(|| Arc::clone(entry));
        let located = tokio::select! {
            located = self.usable_in_the_end(ModelRole::Checkpoint, &entry) => located?,
            () = self.stopped() => return Err(ServiceError::ShuttingDown),
        };
        self.bring_into_memory(located, pin).await
    }

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

/// Brings the pinned models into memory, and lets models go that nobody uses, until the service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    tokio::join!(load_pinned(&inner), let_go(&inner));
}

/// In the order of the catalogue. What a pinned model lacks is fetched: its operator has asked for it.
async fn load_pinned(inner: &Inner) {
    let pinned = inner.catalog.entries().iter().filter(|entry| entry.pinned);
    for entry in pinned {
        if inner.lifecycle() != Lifecycle::Open {
            return;
        }
        // What is wrong with it is in the log, and is said to whoever asks for it.
        let _ = inner.fetch_and_load(entry, true).await;
    }
}

async fn let_go(inner: &Inner) {
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
