//! The async door to the device thread. Refuses at once when the engine is full; nothing ever waits here for room.

use std::fmt;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Precision, WordModel};
use pentimento_types::{ApiKeyId, Clock, JobId, MemoryBudget, MemoryLedger, MemoryUse, Priority};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, watch};

use crate::admission::Place;
use crate::device_thread::{Admission, Command, DeviceThread, Loads};
use crate::event::JobEvents;
use crate::metrics::DeviceMetrics;
use crate::model_memory::ModelMemory;
use crate::{BatchPolicy, DeviceReport, EngineError, Executor, PreviewSwitch, ResolvedJob, ResolvedModels};

/// What the engine is doing, as of the last tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// Jobs inside, prepared or not.
    pub jobs: usize,
    /// Jobs whose preparation has not begun.
    pub jobs_waiting: usize,
    /// Those of them whose model is being loaded.
    pub jobs_loading: usize,
    /// Rows that have evaluations before them.
    pub rows: u32,
    /// The policy's `max_jobs`.
    pub max_jobs: usize,
    /// False once the device is lost or the thread has ended.
    pub healthy: bool,
}

/// Starts the device thread.
#[derive(Clone, Copy, Debug)]
pub struct Engine;

impl Engine {
    /// As [`Engine::start_within`], without a bound on memory.
    ///
    /// # Errors
    /// As there.
    pub fn start<E: Executor>(
        executor: E,
        policy: BatchPolicy,
        clock: Arc<dyn Clock>,
    ) -> Result<(EngineHandle, EngineThread), EngineError> {
        let memory = MemoryLedger::new(MemoryBudget::UNBOUNDED);
        Self::start_within(executor, policy, clock, memory)
    }

    /// Moves the executor to a thread of its own and gives back the door to it. Jobs are let in while `memory` has room
    /// for their decoded images.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start_within<E: Executor>(
        executor: E,
        policy: BatchPolicy,
        clock: Arc<dyn Clock>,
        memory: Arc<MemoryLedger>,
    ) -> Result<(EngineHandle, EngineThread), EngineError> {
        let (commands, inbox) = std_mpsc::channel();
        let loader = Arc::new(executor.loader());
        let status = EngineStatus {
            jobs: 0,
            jobs_waiting: 0,
            jobs_loading: 0,
            rows: 0,
            max_jobs: policy.max_jobs,
            healthy: true,
        };
        let (status_writer, status) = watch::channel(status);
        let loads = Loads::new(Arc::clone(&loader), commands.clone());
        let thread = DeviceThread::new(
            (executor, loads),
            policy,
            Arc::clone(&clock),
            inbox,
            status_writer,
        );
        let metrics = thread.metrics().clone();
        let join = thread::Builder::new()
            .name("pentimento-device".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| EngineError::Spawn(Arc::new(error)))?;
        let door = Arc::new(Semaphore::new(policy.max_jobs));
        let handle = EngineHandle {
            commands: Arc::new(Commands(commands)),
            models: loader,
            door,
            memory,
            max_jobs: policy.max_jobs,
            status,
            metrics,
            clock,
        };
        Ok((handle, EngineThread { join }))
    }
}

/// What holds for a job beside what it is.
#[derive(Clone, Debug)]
pub struct JobTerms {
    /// Whose share of the device's time it uses.
    pub owner: ApiKeyId,
    /// About how much of the device's time it will take, in the units of [`pentimento_types::Recipe::work`]; 0 where nobody
    /// knows. Small jobs of an owner are done before large ones.
    pub work: u64,
    /// Before or behind other jobs of its owner.
    pub priority: Priority,
    /// When it fails with [`EngineError::DeadlineExceeded`] unless it has ended, a time of the engine's clock.
    pub deadline: Option<Instant>,
    /// Whether its images are to be shown while they are made.
    pub previews: PreviewSwitch,
}

impl Default for JobTerms {
    fn default() -> Self {
        Self {
            owner: ApiKeyId::anonymous(),
            work: 0,
            priority: Priority::Normal,
            deadline: None,
            previews: PreviewSwitch::default(),
        }
    }
}

/// The running device thread.
#[derive(Debug)]
pub struct EngineThread {
    join: JoinHandle<()>,
}

impl EngineThread {
    /// Blocks until the thread has ended: after a shutdown, or when every handle is gone and no job is left.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] when the thread ended by a panic outside of the guarded acts.
    pub fn join(self) -> Result<(), EngineError> {
        self.join.join().map_err(|_| EngineError::Stopped)
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }
}

/// What all handles share. The device thread is told when the last one goes; it cannot see that on its channel, on which
/// its own loads report, too.
struct Commands(std_mpsc::Sender<Command>);

impl Commands {
    /// Err when the thread has ended.
    fn send(&self, command: Command) -> Result<(), EngineError> {
        self.0.send(command).map_err(|_| EngineError::Stopped)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // A thread that has ended needs no word.
        let _ = self.send(Command::HandlesGone);
    }
}

/// The door to the device thread. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Arc<Commands>,
    models: Arc<dyn ModelMemory>,
    door: Arc<Semaphore>,
    memory: Arc<MemoryLedger>,
    max_jobs: usize,
    status: watch::Receiver<EngineStatus>,
    metrics: DeviceMetrics,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineHandle")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl EngineHandle {
    /// Takes a place for a job whose decoded images will take this many bytes, before they are decoded.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] and [`EngineError::MemoryFull`] when there is no room now,
    /// [`EngineError::ShuttingDown`] when there will not be any more.
    pub fn reserve(&self, image_bytes: u64) -> Result<Place, EngineError> {
        let permit = Arc::clone(&self.door)
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => EngineError::Overloaded { limit: self.max_jobs },
                TryAcquireError::Closed => EngineError::ShuttingDown,
            })?;
        let images = self.memory.reserve(MemoryUse::Images, image_bytes)?;
        Ok(Place {
            _permit: permit,
            _images: images,
        })
    }

    /// Hands a job to the device thread, in a place that it gets now.
    ///
    /// # Errors
    /// As [`EngineHandle::reserve`], and [`EngineError::Stopped`]. Everything later comes as an event.
    pub fn generate(&self, id: JobId, input: ResolvedJob) -> Result<JobEvents, EngineError> {
        self.generate_until(id, input, None)
    }

    /// As [`EngineHandle::generate`], for a job that fails with [`EngineError::DeadlineExceeded`] when it is not finished
    /// at `deadline`, a time of the engine's clock. The deadline is looked at between two acts of the device.
    ///
    /// # Errors
    /// As [`EngineHandle::generate`].
    pub fn generate_until(
        &self,
        id: JobId,
        input: ResolvedJob,
        deadline: Option<Instant>,
    ) -> Result<JobEvents, EngineError> {
        let place = self.reserve(input.image_bytes())?;
        let terms = JobTerms {
            deadline,
            ..JobTerms::default()
        };
        self.generate_in(place, id, input, terms)
    }

    /// As [`EngineHandle::generate_until`], in a place that was taken before, and on any terms.
    ///
    /// A job that gives its input back ([`pentimento_types::Recipe::gives_input_back`]) is done at once: neither the device nor
    /// a model is asked.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] when the engine takes nothing any more.
    pub fn generate_in(
        &self,
        place: Place,
        id: JobId,
        input: ResolvedJob,
        terms: JobTerms,
    ) -> Result<JobEvents, EngineError> {
        // Text to image has nothing to give back, whatever its strength.
        let given_back = input.images.init().filter(|_| input.recipe.gives_input_back());
        if let Some(image) = given_back {
            let images = (image, input.recipe.image_count);
            return Ok(JobEvents::of_input(id, images, place));
        }
        let (events, receiver) = mpsc::unbounded_channel();
        let admission = Admission {
            id,
            input,
            terms,
            events,
            place,
        };
        self.commands.send(Command::Admit(Box::new(admission)))?;
        Ok(JobEvents::new(id, receiver))
    }

    /// Ends a job before the next act of the device; its last event is then `Cancelled`. Nothing happens when it has
    /// ended already.
    pub fn cancel(&self, id: JobId) {
        // A thread that has ended has no job to cancel.
        let _ = self.commands.send(Command::Cancel(id));
    }

    /// Brings a model into memory before a job asks for it. It stays there as long as other models leave it room, or, when it
    /// is pinned, until it is evicted.
    ///
    /// # Errors
    /// [`EngineError::Executor`] when it cannot be loaded, or the models in use and the pinned ones leave no room.
    pub async fn load(&self, models: ResolvedModels, pin: bool) -> Result<(), EngineError> {
        let memory = Arc::clone(&self.models);
        let loaded = tokio::task::spawn_blocking(move || memory.load_and_keep(&models, pin));
        // A panic of the loader is the model's fault.
        loaded.await.map_err(|_| EngineError::Panicked { act: "load" })?
    }

    /// A language model of the catalogue that says these words only, whose files are on this machine. It is in memory as the models
    /// of jobs are, and counts as they do. Waits for the disk when it is not there yet: call it on a blocking thread.
    ///
    /// # Errors
    /// [`EngineError::Executor`] when it cannot be loaded, or the models in use leave no room.
    pub fn word_model(&self, entry: &ModelEntry, words: &[&str]) -> Result<Arc<WordModel>, EngineError> {
        self.models.word_model(entry, words)
    }

    /// Throws out of memory what belongs to this checkpoint, pinned or not, as far as no job uses it. Says how many bytes that
    /// was.
    #[must_use]
    pub fn evict(&self, checkpoint: &str) -> u64 {
        self.models.evict(checkpoint)
    }

    /// Throws out of memory everything that no job uses and that is not pinned. Says how many bytes that was.
    #[must_use]
    pub fn evict_idle(&self) -> u64 {
        self.models.evict_idle()
    }

    /// Throws out models that no job has used for as long as they are to be kept. Says how many bytes that was. To be called
    /// every few seconds.
    #[must_use]
    pub fn evict_unused(&self) -> u64 {
        self.models.evict_unused()
    }

    /// The device, and its memory as it is now.
    #[must_use]
    pub fn device(&self) -> DeviceReport {
        self.models.device()
    }

    /// The numbers in which it computes.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.models.precision()
    }

    /// Names of the checkpoints whose weights are in memory, in use or not. Models come and go without the device, too, so it is
    /// the loader that is asked.
    #[must_use]
    pub fn resident_models(&self) -> Vec<String> {
        self.models.resident_models()
    }

    /// How long the device has worked since the start.
    #[must_use]
    pub fn device_time(&self) -> Duration {
        self.metrics.device_time()
    }

    /// Puts what the device and the loads have done into a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.models.register_metrics(registry);
    }

    /// What the engine is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let mut status = self.status.borrow().clone();
        // The door knows better than the last tick.
        status.jobs = self.max_jobs.saturating_sub(self.door.available_permits());
        status.healthy &= self.status.has_changed().is_ok();
        status
    }

    /// Whether nothing will run on the device any more, and only a new process can use it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        !self.status.borrow().healthy
    }

    /// Returns when the device is lost.
    pub async fn lost(&self) {
        let mut status = self.status.clone();
        if status.wait_for(|status| !status.healthy).await.is_err() {
            // It has ended in order.
            std::future::pending::<()>().await;
        }
    }

    /// Takes no new job, lets those inside go on for `grace`, then ends the rest between two acts with
    /// [`EngineError::ShuttingDown`]. Returns when the thread has ended. A second call can only shorten the grace.
    pub async fn shutdown(&self, grace: Duration) {
        self.door.close();
        let deadline = self.clock.now() + grace;
        if self.commands.send(Command::Shutdown { deadline }).is_err() {
            return;
        }
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {}
    }
}
