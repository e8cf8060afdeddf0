//! Loads Stable Diffusion from the catalogue's files, component by component, beside the device thread.
//!
//! A component that is in memory already is shared, whichever model it was loaded for. The files are looked at each time
//! a model comes into use, so a file that was replaced is loaded anew. A model that cannot be loaded is not tried again
//! until its files have changed.

mod known;
mod reading;
mod watch;
mod wide_vae;
mod words;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{
    Beside, Component, ComponentKey, Device, FolderStamp, ModelSource, PipelineError, Precision,
    StableDiffusion, WordModel,
};
use pentimento_types::{Clock, ErrorKind, HasKind, MemoryLedger, MemoryUse, describe_chain};
use prometheus_client::registry::Registry;

use self::known::KnownModels;
use self::watch::{Advice, ReadingTurn, Watched, Watcher};
use crate::component_pool::{ComponentPool, NoRoom, Shared};
use crate::metrics::LoaderMetrics;
use crate::{
    DeviceReport, ExecutorError, LoadError, ModelKey, ModelLoader, Offer, ResolvedModels, SharedCause,
    precision_on,
};

/// How long the cause of a failed load is the answer, before it is tried again, when that may help.
const FAILURE_LIFETIME: Duration = Duration::from_secs(10);
/// Between two looks at a load.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// Failures that are remembered.
const MOST_FAILURES: usize = 1024;
/// The longest reason that is shown, in characters.
const LONGEST_REASON: usize = 400;

/// Clones share everything.
#[derive(Clone)]
pub struct PipelineLoader(Arc<Inner>);

struct Inner {
    device: Device,
    /// How long a model that nobody uses stays, where its entry does not say it; None is for ever.
    keep_alive: Option<Duration>,
    clock: Arc<dyn Clock>,
    ledger: Arc<MemoryLedger>,
    metrics: LoaderMetrics,
    /// Held for a look or a change, never while a file is read.
    memory: Mutex<Memory>,
    reading: ReadingTurn,
}

struct Memory {
    components: ComponentPool<ComponentKey, Component>,
    models: KnownModels,
    failures: HashMap<ModelKey, Failure>,
    /// Loads that were given up, some of which still wait for their disk.
    given_up: HashMap<ModelKey, Watched>,
    resident: Resident,
    /// Autoencoders in 16 bits whose range was left.
    narrow_vaes: HashSet<ComponentKey>,
    /// The prompt enhancer, which stays as long as the server runs: it has no jobs that could wait for room.
    words: Option<ComponentKey>,
}

/// The last answer to what is in memory.
#[derive(Default)]
struct Resident {
    names: Vec<String>,
    /// The changes and loads that it has seen.
    as_of: Option<(u64, u64)>,
}

struct Failure {
    error: ExecutorError,
    end: FailureEnd,
}

/// Until when a failure is the answer.
enum FailureEnd {
    At(Instant),
    /// When the files are others than these.
    Change(Vec<FolderStamp>),
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

/// The disk that holds a model does not answer.
#[derive(Debug, thiserror::Error)]
#[error("nothing could be read from its disk for {} seconds", watch::GIVE_UP.as_secs())]
struct NoAnswer;

impl Shared for Component {
    fn holders(&self) -> usize {
        Self::holders(self)
    }
}

impl Memory {
    /// Keeps what is pinned by now, and nothing else.
    fn pin(&mut self) {
        let pinned: Vec<ComponentKey> = self.models.pinned().chain(self.words.clone()).collect();
        self.components.pin(pinned);
    }

    /// Callers can ask for any number of models, since LoRAs have strengths.
    fn forget_old_failures(&mut self, now: Instant) {
        self.failures.retain(|_, failure| match failure.end {
            FailureEnd::At(time) => now < time,
            FailureEnd::Change(_) => true,
        });
        if self.failures.len() >= MOST_FAILURES {
            // They are found again by looking at the files once more.
            self.failures.clear();
        }
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
    /// What it counts goes to `metrics`, which the loaders of several devices may share.
    pub(crate) fn new(
        device: Device,
        ledger: Arc<MemoryLedger>,
        clock: Arc<dyn Clock>,
        (keep_alive, metrics): (Option<Duration>, LoaderMetrics),
    ) -> Self {
        let components = ComponentPool::new(ledger.limit(MemoryUse::Weights));
        let memory = Memory {
            components: components.counting(metrics.evictions.clone()),
            models: KnownModels::default(),
            failures: HashMap::new(),
            given_up: HashMap::new(),
            resident: Resident::default(),
            narrow_vaes: HashSet::new(),
            words: None,
        };
        Self(Arc::new(Inner {
            device,
            keep_alive,
            clock,
            ledger,
            metrics,
            memory: Mutex::new(memory),
            reading: ReadingTurn::default(),
        }))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The failure of a model that has failed, and would again.
    fn known_failure(&self, model: &ModelKey, files: &[FolderStamp]) -> Option<ExecutorError> {
        let now = self.0.clock.now();
        let mut memory = self.memory();
        let failure = memory.failures.get(model)?;
        let counts = match &failure.end {
            FailureEnd::At(time) => now < *time,
            FailureEnd::Change(then) => then == files,
        };
        if counts {
            return Some(failure.error.clone());
        }
        memory.failures.remove(model);
        None
    }

    /// Makes an error of a failure, logs it, and keeps it as the answer for the next ones.
    fn failed(
        &self,
        models: &ResolvedModels,
        error: PipelineError,
        files: Vec<FolderStamp>,
    ) -> ExecutorError {
        let (key, permanent) = (ModelKey::of(models), error.is_permanent());
        let until = self.0.clock.now() + FAILURE_LIFETIME;
        let (reason, end) = if permanent {
            let chain = describe_chain(&error);
            tracing::error!(model = %key, error = chain, "a model cannot be loaded until its files are changed");
            (Some(shown_reason(models, &error)), FailureEnd::Change(files))
        } else {
            (None, FailureEnd::At(until))
        };
        let error = ExecutorError::ModelLoad {
            model: key.to_string(),
            kind: error.kind(),
            permanent,
            reason,
            source: Arc::new(error),
        };
        let failure = Failure {
            error: error.clone(),
            end,
        };
        let mut memory = self.memory();
        memory.forget_old_failures(self.0.clock.now());
        memory.failures.insert(key, failure);
        error
    }

    /// The whole load, on the thread that may wait for a disk.
    fn load_now(
        &self,
        models: &ResolvedModels,
        watched: &Watched,
    ) -> Result<Arc<StableDiffusion>, LoadError> {
        let files = ModelSource::stamps(models);
        if let Some(error) = self.known_failure(&ModelKey::of(models), &files) {
            return Err(LoadError::Failed(error));
        }
        let mut found = self.find_or_read(models, watched);
        if is_device_full(&found) && self.evict_idle() > 0 {
            found = self.find_or_read(models, watched);
        }
        match found {
            Ok(model) => Ok(Arc::new(model)),
            // Others hold what it needs, and the device knows better than the account: what their forwards take is no weights.
            Err(Fault::Failed(error)) if error.kind() == ErrorKind::OutOfDeviceMemory && self.is_in_use() => {
                let source: SharedCause = Arc::new(*error);
                Err(LoadError::NoRoom(not_now(models, ErrorKind::Overloaded, source)))
            }
            Err(Fault::NoRoom { needed, held }) => {
                let held = held.held_bytes;
                let source: SharedCause = Arc::new(WeightsFull { needed, held });
                Err(LoadError::NoRoom(not_now(models, ErrorKind::Overloaded, source)))
            }
            // It says nothing about the files, so it is not remembered: the next try may find room.
            Err(Fault::Failed(error)) if error.kind() == ErrorKind::OutOfDeviceMemory => {
                tracing::error!(
                    error = describe_chain(&*error),
                    "a model has no room on the device"
                );
                let mut failed = not_now(models, ErrorKind::OutOfDeviceMemory, Arc::new(*error));
                if let ExecutorError::ModelLoad { reason, .. } = &mut failed {
                    *reason = Some("the device has too little memory for it".to_owned());
                }
                Err(LoadError::Failed(failed))
            }
            // Nothing that is remembered of this model would be true of the next process.
            Err(Fault::Failed(error)) if error.is_device_lost() => {
                tracing::error!(
                    error = describe_chain(&*error),
                    "the device was lost while a model was loaded"
                );
                Err(LoadError::Failed(ExecutorError::DeviceLost {
                    source: Arc::new(*error),
                }))
            }
            Err(Fault::Failed(error)) => Err(LoadError::Failed(self.failed(models, *error, files))),
        }
    }

    /// Waits for a load on another thread, as long as it goes on.
    fn attend<T>(&self, watched: &Watched, ended: &mpsc::Receiver<T>) -> Option<T> {
        let mut watcher = Watcher::new(self.0.clock.now());
        loop {
            match ended.recv_timeout(BETWEEN_LOOKS) {
                Ok(result) => return Some(result),
                // It is always sent; if not, it never will be.
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => match watcher.look(watched, self.0.clock.now()) {
                    Advice::Wait => {}
                    Advice::LetOthersGo => self.0.reading.free(watched),
                    Advice::GiveUp => {
                        self.0.reading.free(watched);
                        return None;
                    }
                },
            }
        }
    }

    /// Whether a load of this model was given up and still waits for its disk.
    fn still_waits(&self, model: &ModelKey) -> bool {
        let mut memory = self.memory();
        memory.given_up.retain(|_, load| !load.has_ended());
        memory.given_up.contains_key(model)
    }

    /// Whether a job holds a model.
    fn is_in_use(&self) -> bool {
        self.memory().components.is_in_use()
    }
}

fn is_device_full<T>(found: &Result<T, Fault>) -> bool {
    matches!(found, Err(Fault::Failed(error)) if error.kind() == ErrorKind::OutOfDeviceMemory)
}

impl ModelLoader for PipelineLoader {
    type Model = Arc<StableDiffusion>;

    fn load(&self, models: &ResolvedModels) -> Result<Arc<StableDiffusion>, LoadError> {
        let no_answer = || {
            let source: SharedCause = Arc::new(NoAnswer);
            LoadError::Failed(not_now(models, ErrorKind::Unavailable, source))
        };
        if self.still_waits(&ModelKey::of(models)) {
            return Err(no_answer());
        }
        let watched = Watched::default();
        let (sender, ended) = mpsc::channel();
        let (loader, its_models, its_watch) = (self.clone(), models.clone(), watched.clone());
        alone_on_a_thread(move || {
            let run = || loader.load_now(&its_models, &its_watch);
            let result = panic::catch_unwind(AssertUnwindSafe(run));
            its_watch.end();
            // Nobody waits for one that was given up.
            let _ = sender.send(result);
        });
        match self.attend(&watched, &ended) {
            Some(Ok(result)) => result,
            Some(Err(payload)) => panic::resume_unwind(payload),
            None => {
                tracing::error!(model = %ModelKey::of(models), "a model's disk does not answer; its load was given up");
                self.memory().given_up.insert(ModelKey::of(models), watched);
                Err(no_answer())
            }
        }
    }

    fn word_model(&self, entry: &ModelEntry, words: &[&str]) -> Result<Arc<WordModel>, ExecutorError> {
        self.find_or_read_words(entry, words)
            .map_err(|fault| self.not_said(entry, fault))
    }

    fn device(&self) -> DeviceReport {
        DeviceReport::of(&self.0.device)
    }

    fn precision(&self, checkpoint: &ModelEntry) -> Precision {
        precision_on(&self.0.device, checkpoint)
    }

    fn resident_models(&self) -> Vec<String> {
        let mut memory = self.memory();
        let Memory {
            components,
            models,
            resident,
            ..
        } = &mut *memory;
        // The device asks after each of its acts.
        let now = (components.changes(), models.loads());
        if resident.as_of != Some(now) {
            resident.as_of = Some(now);
            resident.names = models.resident(|key| components.contains(key));
        }
        resident.names.clone()
    }

    fn offer(&self, models: &ResolvedModels) -> Offer {
        let memory = self.memory();
        let components = &memory.components;
        Offer {
            presence: memory.models.presence(models, |key| components.contains(key)),
            weight_bytes: components.bytes(),
        }
    }

    fn pin(&self, models: &ResolvedModels) {
        let mut memory = self.memory();
        memory.models.pin(&ModelKey::of(models));
        memory.pin();
    }

    fn evict(&self, checkpoint: &str) -> u64 {
        let mut evicted = Vec::new();
        let mut memory = self.memory();
        let keys = memory.models.unpin(checkpoint);
        memory.pin();
        memory.components.evict(&keys, &mut evicted)
    }

    fn evict_idle(&self) -> u64 {
        // Dropped after the lock: freeing gigabytes takes a while.
        let mut evicted = Vec::new();
        let freed = self.memory().components.evict_idle(&mut evicted);
        drop(evicted);
        // And the room for activations, which is what the largest forward so far needed; the next one takes its own.
        let arena = self.0.device.gpu().map_or(0, |gpu| gpu.release_arena());
        freed + arena as u64
    }

    fn evict_unused(&self) -> u64 {
        let mut evicted = Vec::new();
        let now = self.0.clock.now();
        let mut memory = self.memory();
        let Memory {
            components, models, ..
        } = &mut *memory;
        let keep_alive = models.keep_alive();
        // One that is a part of no model any more has nobody who wants it.
        let keep = |key: &ComponentKey| keep_alive.get(key).copied().unwrap_or(Some(Duration::ZERO));
        components.evict_unused(now, keep, &mut evicted)
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
    }
}

/// A load that may succeed later.
fn not_now(models: &ResolvedModels, kind: ErrorKind, source: SharedCause) -> ExecutorError {
    ExecutorError::ModelLoad {
        model: ModelKey::of(models).to_string(),
        kind,
        permanent: false,
        reason: None,
        source,
    }
}

/// What is wrong with a model's files, without the folder in which they are: callers do not see paths of the server.
fn shown_reason(models: &ResolvedModels, error: &PipelineError) -> String {
    if let Some((Beside::IpAdapter, name, reason)) = error.refused_beside() {
        let shown = format!("the IP-Adapter `{name}` cannot be used: {reason}");
        return shown.chars().take(LONGEST_REASON).collect();
    }
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), describe_chain);
    let shown = models.entries().fold(text, |text, entry| {
        let folder = entry.source.to_string();
        // A single file is named with its ending.
        let is_file = Path::new(&folder).extension().is_some();
        text.replace(&format!("{folder}/"), "")
            .replace(&folder, if is_file { "its file" } else { "its folder" })
    });
    shown.chars().take(LONGEST_REASON).collect()
}

/// Packing weights would share its work with the threads that evaluate, which then wait for one another; so a load gets
/// a pool of one thread. Where there is no thread to be had, it runs on this one, and shares after all.
fn alone_on_a_thread(load: impl FnOnce() + Send + 'static) {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .thread_name(|_| "pentimento-packing".to_owned())
        .build();
    match pool {
        // Dropping the pool does not wait for what it runs.
        Ok(pool) => pool.spawn(load),
        Err(error) => {
            tracing::warn!(%error, "no thread to load on by itself");
            load();
        }
    }
}

#[cfg(test)]
mod tests;
