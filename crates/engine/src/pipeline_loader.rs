//! Loads Stable Diffusion from the catalogue's files, component by component, beside the device thread.
//!
//! A component that is in memory already is shared, whichever model it was loaded for. The files are looked at each time
//! a model comes into use, so a file that was replaced is loaded anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Device;
use pentimento_pipeline::{
    CheckpointSource, Component, ComponentKey, ComponentRole, PipelineError, StableDiffusion,
};
use pentimento_types::{Clock, ErrorKind, HasKind, MemoryLedger, MemoryUse, Reservation};

use crate::component_pool::{ComponentPool, NoRoom, Shared};
use crate::{ExecutorError, LoadError, ModelKey, ModelLoader, ResolvedModels, SharedCause};

/// How long the cause of a failed load is the answer, before the files are looked at again.
const FAILURE_LIFETIME: Duration = Duration::from_secs(10);

/// Clones share everything.
#[derive(Clone)]
pub struct PipelineLoader(Arc<Inner>);

struct Inner {
    device: Device,
    clock: Arc<dyn Clock>,
    ledger: Arc<MemoryLedger>,
    /// Held for a look or a change, never while a file is read.
    memory: Mutex<Memory>,
    /// Held while weights are read: two loads at once would only take the processor from the evaluations twice.
    reading: Mutex<()>,
}

struct Memory {
    components: ComponentPool<ComponentKey, Component>,
    /// What each model was last put together from.
    models: HashMap<ModelKey, [ComponentKey; 4]>,
    failures: HashMap<ModelKey, Failure>,
}

struct Failure {
    error: ExecutorError,
    until: Instant,
}

/// Why a load ended without a model.
enum Fault {
    Failed(Box<PipelineError>),
    NoRoom { needed: u64, held: NoRoom },
}

impl From<PipelineError> for Fault {
    fn from(error: PipelineError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// The models in use leave too little of the memory that is set aside for weights.
#[derive(Debug, thiserror::Error)]
#[error("{needed} bytes are needed beside the {held} bytes of models in use")]
struct WeightsFull {
    needed: u64,
    held: u64,
}

impl Shared for Component {
    fn holders(&self) -> usize {
        Self::holders(self)
    }
}

impl fmt::Debug for PipelineLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineLoader")
            .field("models", &self.resident_models())
            .finish_non_exhaustive()
    }
}

impl PipelineLoader {
    pub(crate) fn new(device: Device, ledger: Arc<MemoryLedger>, clock: Arc<dyn Clock>) -> Self {
        let memory = Memory {
            components: ComponentPool::new(ledger.limit(MemoryUse::Weights)),
            models: HashMap::new(),
            failures: HashMap::new(),
        };
        Self(Arc::new(Inner {
            device,
            clock,
            ledger,
            memory: Mutex::new(memory),
            reading: Mutex::new(()),
        }))
    }

    /// Throws out what no job uses, and says how many bytes that was.
    pub(crate) fn evict_idle(&self) -> u64 {
        self.memory().components.evict_idle()
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model whose load failed a moment ago.
    fn recent_failure(&self, model: &ModelKey) -> Option<ExecutorError> {
        let now = self.0.clock.now();
        let mut memory = self.memory();
        memory.failures.retain(|_, failure| failure.until > now);
        memory.failures.get(model).map(|failure| failure.error.clone())
    }

    fn remember_failure(&self, model: ModelKey, error: ExecutorError) {
        let until = self.0.clock.now() + FAILURE_LIFETIME;
        self.memory().failures.insert(model, Failure { error, until });
    }

    fn find_or_read(&self, models: &ResolvedModels) -> Result<StableDiffusion, Fault> {
        let source = CheckpointSource::open(&models.checkpoint, &self.0.device)?;
        let keys = source.keys()?;
        let components = match self.resident(&keys) {
            Some(components) => components,
            None => self.read_missing(&source, &keys)?,
        };
        let model = source.assemble(components)?;
        self.memory().models.insert(models.key(), keys);
        Ok(model)
    }

    /// The components, when all are in memory.
    fn resident(&self, keys: &[ComponentKey; 4]) -> Option<Vec<Component>> {
        let mut memory = self.memory();
        keys.iter().map(|key| memory.components.get(key)).collect()
    }

    fn read_missing(
        &self,
        source: &CheckpointSource,
        keys: &[ComponentKey; 4],
    ) -> Result<Vec<Component>, Fault> {
        let _alone = self.0.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(keys)?;
        let mut components = Vec::with_capacity(keys.len());
        for (key, role) in keys.iter().zip(ComponentRole::ALL) {
            let resident = self.memory().components.get(key);
            components.push(match resident {
                Some(component) => component,
                None => {
                    let (component, size_bytes) = source.read(role)?;
                    let counted = self.count(size_bytes, keys);
                    let mut memory = self.memory();
                    let clone = component.clone();
                    memory
                        .components
                        .insert(key.clone(), clone, (size_bytes, counted));
                    component
                }
            });
        }
        // What was read may be larger than its files had said.
        let mut evicted = Vec::new();
        let _ = self.memory().components.make_room(0, keys, &mut evicted);
        Ok(components)
    }

    /// Puts a component into the account, for which others are thrown out where they must be. A model that is larger than
    /// all that is set aside for weights is let in alone, and is then missing in the account.
    fn count(&self, bytes: u64, keys: &[ComponentKey; 4]) -> Option<Reservation> {
        let mut evicted = Vec::new();
        let _ = self.memory().components.make_room(bytes, keys, &mut evicted);
        drop(evicted);
        let counted = self.0.ledger.reserve(MemoryUse::Weights, bytes);
        counted
            .inspect_err(
                |full| tracing::warn!(%full, "a model is larger than the memory set aside for weights"),
            )
            .ok()
    }

    /// Room for those that are not in memory, before the first of them is read.
    fn make_room(&self, keys: &[ComponentKey; 4]) -> Result<(), Fault> {
        let mut evicted = Vec::new();
        let mut memory = self.memory();
        let missing = keys.iter().filter(|key| !memory.components.contains(key));
        let needed = missing.map(ComponentKey::expected_bytes).sum();
        let made = memory.components.make_room(needed, keys, &mut evicted);
        drop(memory);
        made.map_err(|held| Fault::NoRoom { needed, held })
    }
}

impl ModelLoader for PipelineLoader {
    type Model = Arc<StableDiffusion>;

    fn load(&self, models: &ResolvedModels) -> Result<Arc<StableDiffusion>, LoadError> {
        let key = models.key();
        if let Some(error) = self.recent_failure(&key) {
            return Err(LoadError::Failed(error));
        }
        let load_error = |kind, permanent, source| ExecutorError::ModelLoad {
            model: key.to_string(),
            kind,
            permanent,
            source,
        };
        match alone_on_this_thread(|| self.find_or_read(models)) {
            Ok(model) => Ok(Arc::new(model)),
            Err(Fault::NoRoom { needed, held }) => {
                let held = held.held_bytes;
                let source: SharedCause = Arc::new(WeightsFull { needed, held });
                Err(LoadError::NoRoom(load_error(
                    ErrorKind::Overloaded,
                    false,
                    source,
                )))
            }
            Err(Fault::Failed(error)) => {
                let error = load_error(error.kind(), error.is_permanent(), Arc::new(*error));
                self.remember_failure(key.clone(), error.clone());
                Err(LoadError::Failed(error))
            }
        }
    }

    fn resident_models(&self) -> Vec<String> {
        let memory = self.memory();
        let is_resident = |keys: &[ComponentKey; 4]| keys.iter().all(|key| memory.components.contains(key));
        let models = memory.models.iter().filter(|(_, keys)| is_resident(keys));
        let mut names: Vec<String> = models.map(|(model, _)| model.to_string()).collect();
        names.sort_unstable();
        names
    }
}

/// Packing weights would share its work with the threads that evaluate, which then wait for one another; so it gets a
/// pool of one thread. Where there is no thread to be had, it shares after all.
fn alone_on_this_thread<R: Send>(load: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "pentimento-packing".to_owned())
        .build();
    match pool {
        Ok(pool) => pool.install(load),
        Err(error) => {
            tracing::warn!(%error, "no thread to load on by itself");
            load()
        }
    }
}

#[cfg(test)]
mod tests;
