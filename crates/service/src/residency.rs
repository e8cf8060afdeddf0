//! The life of models: which are brought into memory before a job asks for them, and which leave it.

use std::sync::Arc;
use std::time::Duration;

use pentimento_catalog::ModelEntry;
use pentimento_engine::EngineError;
use pentimento_types::{
    ErrorKind, HasKind as _, JobFailure, KeyedSemaphores, ModelId, Recipe, describe_chain,
};
use tokio::sync::Semaphore;

use crate::inner::{Inner, Lifecycle};
use crate::named_models::base_of;
use crate::{ModelRole, NamedModels, Service, ServiceError};

/// Models that are brought into memory at once without a job; each takes the disk's whole rate.
const LOADS_AT_ONCE: usize = 2;
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
        let named = self.inner.whole_of(name)?;
        let located = self.inner.usable(named.entries()).await?;
        self.inner.bring_into_memory(named.located(located), false).await
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
            let entry = self.inner.find(role, name)?;
            // One for each name at a time, however often it is asked for.
            let once = self.inner.loads.begun.get_or_make(entry.name.clone(), 1);
            if let Ok(begun) = once.try_acquire_owned() {
                let inner = Arc::clone(&self.inner);
                // What goes wrong is in the log, and is said to whoever asks for the model.
                tokio::spawn(async move {
                    let _begun = begun;
                    inner.fetch_and_load(&entry, false).await
                });
            }
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
        self.inner.evict(&entry).await
    }

    /// The same for a caller who speaks for nobody else: no download is ended, and a model that the catalogue pins stays, which
    /// is None.
    ///
    /// # Errors
    /// [`ServiceError::ModelNotFound`].
    pub async fn unload_unpinned(&self, name: &ModelId) -> Result<Option<u64>, ServiceError> {
        let catalog = &self.inner.catalog;
        let run_as = |entry: Arc<ModelEntry>| base_of(catalog, &entry).unwrap_or(entry);
        let entry = run_as(self.inner.find(ModelRole::Checkpoint, name)?);
        let mut pinned = catalog.entries().iter().filter(|other| other.pinned);
        if pinned.any(|other| run_as(Arc::clone(other)).name == entry.name) {
            return Ok(None);
        }
        self.inner.evict(&entry).await.map(Some)
    }
}

/// The loads that were asked for without a job.
#[derive(Debug)]
pub(crate) struct Loads {
    /// Who has begun one without waiting for its end, by the model's name.
    begun: KeyedSemaphores<String>,
    /// Those at once. A load runs on when its caller goes away, so it holds its seat itself.
    seats: Arc<Semaphore>,
    /// One at a time for each model; the next finds it in memory.
    turns: KeyedSemaphores<String>,
}

impl Default for Loads {
    fn default() -> Self {
        Self {
            begun: KeyedSemaphores::default(),
            seats: Arc::new(Semaphore::new(LOADS_AT_ONCE)),
            turns: KeyedSemaphores::default(),
        }
    }
}

impl Inner {
    /// What a name stands for when nothing else is asked for: a preset with its LoRAs and its VAE.
    fn whole_of(&self, name: &ModelId) -> Result<NamedModels, ServiceError> {
        NamedModels::of(&self.catalog, &Recipe::of_model(name.clone()))
    }

    async fn evict(&self, entry: &Arc<ModelEntry>) -> Result<u64, ServiceError> {
        let (engine, name) = (self.engine.clone(), entry.name.clone());
        // Giving gigabytes back takes a while.
        let evicted = tokio::task::spawn_blocking(move || engine.evict(&name)).await;
        evicted.map_err(ServiceError::internal)
    }

    async fn fetch_and_load(&self, entry: &ModelEntry, pin: bool) -> Result<(), ServiceError> {
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

    async fn bring_into_memory(&self, named: NamedModels, pin: bool) -> Result<(), ServiceError> {
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
            let reason = match &error {
                EngineError::Executor(cause) => cause.message(),
                other => other.to_string(),
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
