//! The life of models: which are brought into memory before a job asks for them, and which leave it.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::ModelEntry;
use pentimento_engine::EngineError;
use pentimento_types::{ErrorKind, HasKind as _, JobFailure, ModelId, Recipe, describe_chain};

use crate::inner::{Inner, Lifecycle};
use crate::{ModelRole, NamedModels, ServiceError};

/// Between two looks for models that nobody has used for long enough.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

impl Inner {
    /// What a name stands for when nothing else is asked for: a preset with its LoRAs and its VAE.
    pub(crate) fn whole_of(&self, name: &ModelId) -> Result<NamedModels, ServiceError> {
        NamedModels::of(&self.catalog, &Recipe::of_model(name.clone()))
    }

    pub(crate) async fn evict(&self, entry: &Arc<ModelEntry>) -> Result<u64, ServiceError> {
        let (engine, name) = (self.engine.clone(), entry.name.clone());
        // Giving gigabytes back takes a while.
        let evicted = tokio::task::spawn_blocking(move || engine.evict(&name)).await;
        evicted.map_err(ServiceError::internal)
    }

    pub(crate) async fn fetch_and_load(&self, entry: &ModelEntry, pin: bool) -> Result<(), ServiceError> {
        let named = self.whole_of(&ModelId::new(&entry.name))?;
        let mut located = Vec::new();
        for (role, entry) in named.entries() {
            located.push(tokio::select! {
                located = self.usable_in_the_end(role, &entry) => located?,
                () = self.stopped() => return Err(ServiceError::ShuttingDown),
            });
        }
        self.bring_into_memory(named.located(located), pin).await
    }

    pub(crate) async fn bring_into_memory(&self, named: NamedModels, pin: bool) -> Result<(), ServiceError> {
        let name = named.checkpoint().name.clone();
        // Embeddings are no part of what is loaded.
        let models = named.resolved(Vec::new());
        let turn = self
            .loads
            .turns
            .get_or_make(name.clone(), 1)
            .acquire_owned()
            .await;
        let turn = turn.map_err(ServiceError::internal)?;
        let seat = Arc::clone(&self.loads.seats).acquire_owned().await;
        let seat = seat.map_err(ServiceError::internal)?;
        let engine = self.engine.clone();
        let loading = tokio::spawn(async move {
            let _both = (turn, seat);
            engine.load(models, pin).await
        });
        let loaded = loading.await.map_err(ServiceError::internal)?;
        loaded.map_err(|error| {
            tracing::warn!(model = %name, error = describe_chain(&error), "a model was not brought into memory");
            let reason = if let EngineError::Executor(cause) = &error {
                cause.message()
            } else {
                error.to_string()
            };
            let kind = error.kind();
            if kind.is_retryable() || kind == ErrorKind::OutOfDeviceMemory {
                return ServiceError::ModelUnavailable {
                    role: ModelRole::Checkpoint,
                    name,
                    reason,
                };
            }
            // The same call fails again until somebody changes the files or the catalogue.
            ServiceError::Failed(JobFailure {
                kind,
                message: format!("the checkpoint `{name}` cannot be brought into memory: {reason}"),
            })
        })
    }
}

/// Brings the pinned models into memory, and lets models go that nobody uses, until the service has stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    tokio::join!(inner.load_enhancer(), load_pinned(&inner), let_go(&inner));
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
