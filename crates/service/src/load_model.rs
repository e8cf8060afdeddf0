//! A model by its name: brought into memory before a job asks for it, or thrown out.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_types::ModelId;

use crate::named_models::base_of;
use crate::{ModelRole, Service, ServiceError};

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
