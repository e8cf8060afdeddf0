//! The async door to the device threads. Refuses at once when the engine is full; nothing ever waits here for room.
//!
//! Whoever hands a job in does not know how many devices there are: `Placement` says which one it goes to.

use std::fmt;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::{Duration, Instant};

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Precision, WordModel};
use pentimento_types::{ApiKeyId, Clock, JobId, MemoryLedger, MemoryUse, Priority};
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, TryAcquireError, mpsc, watch};

use crate::admission::Place;
use crate::device_thread::{Admission, Command};
use crate::event::JobEvents;
use crate::metrics::{DeviceCollector, DeviceMetrics};
use crate::model_memory::ModelMemory;
use crate::placement::{Offer, Placement, place_for_model};
use crate::{DeviceReport, EngineError, ModelKey, PreviewSwitch, ResolvedJob, ResolvedModels};

/// What the engine is doing, on all its devices together, as of their last ticks.
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
    /// The most rows that are worth having, as far as has been measured: more would only wait.
    pub rows_wanted: u32,
    /// The policy's `max_jobs`, for each device.
    pub max_jobs: usize,
    /// False once a device is lost or its thread has ended.
    pub healthy: bool,
}

impl EngineStatus {
    /// Nothing yet.
    pub(crate) const fn idle(max_jobs: usize) -> Self {
        Self {
            jobs: 0,
            jobs_waiting: 0,
            jobs_loading: 0,
            rows: 0,
            rows_wanted: 1,
            max_jobs,
            healthy: true,
        }
    }
}

/// One of the devices, as it is used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// What it is, and its memory.
    pub report: DeviceReport,
    /// Jobs that were given to it and have not ended.
    pub jobs: usize,
    /// As [`EngineHandle::resident_models`], there.
    pub resident_models: Vec<String>,
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

/// What all handles share. A device thread is told when the last one goes; it cannot see that on its channel, on which
/// its own loads report, too.
pub(crate) struct Commands(pub(crate) std_mpsc::Sender<Command>);

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

/// The way to one device.
pub(crate) struct Door {
    pub(crate) commands: Commands,
    pub(crate) models: Arc<dyn ModelMemory>,
    pub(crate) status: watch::Receiver<EngineStatus>,
}

/// The door to the device threads. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    /// At least one.
    devices: Arc<[Door]>,
    placement: Arc<Placement>,
    permits: Arc<Semaphore>,
    max_jobs: usize,
    memory: Arc<MemoryLedger>,
    /// Whether one of the devices is.
    lost: watch::Receiver<bool>,
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
    pub(crate) fn new(
        (devices, placement): (Vec<Door>, Arc<Placement>),
        (permits, memory): (Arc<Semaphore>, Arc<MemoryLedger>),
        (metrics, lost): (DeviceMetrics, watch::Receiver<bool>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            devices: devices.into(),
            placement,
            max_jobs: permits.available_permits(),
            permits,
            memory,
            lost,
            metrics,
            clock,
        }
    }

    fn models(&self) -> impl Iterator<Item = &Arc<dyn ModelMemory>> {
        self.devices.iter().map(|device| &device.models)
    }

    /// What each device has of a model.
    fn offers(&self, models: &ResolvedModels) -> Vec<Offer> {
        self.models().map(|memory| memory.offer(models)).collect()
    }

    /// Takes a place for a job whose decoded images will take this many bytes, before they are decoded.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] and [`EngineError::MemoryFull`] when there is no room now,
    /// [`EngineError::ShuttingDown`] when there will not be any more.
    pub fn reserve(&self, image_bytes: u64) -> Result<Place, EngineError> {
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => EngineError::Overloaded { limit: self.max_jobs },
                TryAcquireError::Closed => EngineError::ShuttingDown,
            })?;
        let images = self.memory.reserve(MemoryUse::Images, image_bytes)?;
        Ok(Place {
            on_device: None,
            _permit: permit,
            _images: images,
        })
    }

    /// Hands a job to a device thread, in a place that it gets now.
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
        mut place: Place,
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
        let model = (id, ModelKey::of(&input.models));
        let on_device = self
            .placement
            .place(model, terms.work, &self.offers(&input.models));
        let device = on_device.device();
        place.on_device = Some(on_device);
        let (events, receiver) = mpsc::unbounded_channel();
        let admission = Admission {
            id,
            input,
            terms,
            events,
            place,
        };
        let commands = &self.devices[device].commands;
        commands.send(Command::Admit(Box::new(admission)))?;
        Ok(JobEvents::new(id, receiver))
    }

    /// Ends a job before the next act of the device; its last event is then `Cancelled`. Nothing happens when it has
    /// ended already.
    pub fn cancel(&self, id: JobId) {
        for device in self.devices.iter() {
            // A thread that has ended has no job to cancel, and those that do not know the job do nothing.
            let _ = device.commands.send(Command::Cancel(id));
        }
    }

    /// Brings a model into the memory of one device before a job asks for it, where jobs for it then go. It stays there as long as
    /// other models leave it room, or, when it is pinned, until it is evicted.
    ///
    /// # Errors
    /// [`EngineError::Executor`] when it cannot be loaded, or the models in use and the pinned ones leave no room.
    pub async fn load(&self, models: ResolvedModels, pin: bool) -> Result<(), EngineError> {
        let device = place_for_model(&self.offers(&models));
        let memory = Arc::clone(&self.devices[device].models);
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
        // It computes on the CPU, and one of them is enough.
        self.devices[0].models.word_model(entry, words)
    }

    /// Throws out of memory what belongs to this checkpoint, pinned or not, as far as no job uses it. Says how many bytes that
    /// was.
    #[must_use]
    pub fn evict(&self, checkpoint: &str) -> u64 {
        self.models().map(|memory| memory.evict(checkpoint)).sum()
    }

    /// Throws out of memory everything that no job uses and that is not pinned. Says how many bytes that was.
    #[must_use]
    pub fn evict_idle(&self) -> u64 {
        self.models().map(|memory| memory.evict_idle()).sum()
    }

    /// Throws out models that no job has used for as long as they are to be kept. Says how many bytes that was. To be called
    /// every few seconds.
    #[must_use]
    pub fn evict_unused(&self) -> u64 {
        self.models().map(|memory| memory.evict_unused()).sum()
    }

    /// The devices, the first one first, as they are now.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceUse> {
        let jobs = self.placement.jobs();
        let devices = self.models().zip(jobs).map(|(memory, jobs)| DeviceUse {
            report: memory.device(),
            jobs,
            resident_models: memory.resident_models(),
        });
        devices.collect()
    }

    /// The numbers in which a checkpoint computes, on all of them the same.
    #[must_use]
    pub fn precision(&self, checkpoint: &ModelEntry) -> Precision {
        self.devices[0].models.precision(checkpoint)
    }

    /// Names of the checkpoints whose weights are in the memory of a device, in use or not, in order. Models come and go without the
    /// devices, too, so it is the loaders that are asked.
    #[must_use]
    pub fn resident_models(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .models()
            .flat_map(|memory| memory.resident_models())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How long all devices have worked since the start.
    #[must_use]
    pub fn device_time(&self) -> Duration {
        self.metrics.device_time(self.devices.len())
    }

    /// Puts what the devices and the loads have done into a registry. Loaders of executors that were made each by itself count by
    /// themselves; those of the first device are put there.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        self.devices[0].models.register_metrics(registry);
        registry.register_collector(Box::new(DeviceCollector {
            models: self.models().map(Arc::clone).collect(),
            placement: Arc::clone(&self.placement),
        }));
    }

    /// What the engine is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let mut all = EngineStatus::idle(self.max_jobs);
        all.rows_wanted = 0;
        for device in self.devices.iter() {
            let status = device.status.borrow();
            all.jobs_waiting += status.jobs_waiting;
            all.jobs_loading += status.jobs_loading;
            all.rows += status.rows;
            all.rows_wanted = all.rows_wanted.saturating_add(status.rows_wanted);
            all.healthy &= status.healthy && device.status.has_changed().is_ok();
        }
        // The door knows better than the last ticks.
        all.jobs = self.max_jobs.saturating_sub(self.permits.available_permits());
        all
    }

    /// Whether nothing will run on one of the devices any more, and only a new process can use it. The others then end, too.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Returns when a device is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        if lost.wait_for(|lost| *lost).await.is_err() {
            // It has ended in order.
            std::future::pending::<()>().await;
        }
    }

    /// Takes no new job, lets those inside go on for `grace`, then ends the rest between two acts with
    /// [`EngineError::ShuttingDown`]. Returns when the threads have ended. A second call can only shorten the grace.
    pub async fn shutdown(&self, grace: Duration) {
        self.permits.close();
        let deadline = self.clock.now() + grace;
        for device in self.devices.iter() {
            // One that has ended needs no word.
            let _ = device.commands.send(Command::Shutdown { deadline });
        }
        for device in self.devices.iter() {
            let mut status = device.status.clone();
            while status.changed().await.is_ok() {}
        }
    }
}
