//! The async door to the device thread. Refuses at once when the engine is full; nothing ever waits here for room.

use std::fmt;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use pentimento_types::{Clock, JobId};
use tokio::sync::{Semaphore, TryAcquireError, mpsc, watch};

use crate::device_thread::{Admission, Command, DeviceThread};
use crate::event::JobEvents;
use crate::{BatchPolicy, EngineError, Executor, ResolvedJob};

/// What the engine is doing, as of the last tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStatus {
    /// Models whose weights are in memory.
    pub resident_models: Vec<String>,
    /// Jobs inside, prepared or not.
    pub jobs: usize,
    /// Jobs that are not prepared yet.
    pub jobs_waiting: usize,
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
    /// Moves the executor to a thread of its own and gives back the door to it.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start<E: Executor>(
        executor: E,
        policy: BatchPolicy,
        clock: Arc<dyn Clock>,
    ) -> Result<(EngineHandle, EngineThread), EngineError> {
        let (commands, inbox) = std_mpsc::channel();
        let status = EngineStatus {
            resident_models: executor.resident_models(),
            jobs: 0,
            jobs_waiting: 0,
            rows: 0,
            max_jobs: policy.max_jobs,
            healthy: true,
        };
        let (status_writer, status) = watch::channel(status);
        let thread = DeviceThread::new(executor, policy, Arc::clone(&clock), inbox, status_writer);
        let join = thread::Builder::new()
            .name("pentimento-device".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| EngineError::Spawn(Arc::new(error)))?;
        let door = Arc::new(Semaphore::new(policy.max_jobs));
        let handle = EngineHandle {
            commands,
            door,
            max_jobs: policy.max_jobs,
            status,
            clock,
        };
        Ok((handle, EngineThread { join }))
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

/// The door to the device thread. Cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    commands: std_mpsc::Sender<Command>,
    door: Arc<Semaphore>,
    max_jobs: usize,
    status: watch::Receiver<EngineStatus>,
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
    /// Hands a job to the device thread.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when the engine is full, [`EngineError::ShuttingDown`] and [`EngineError::Stopped`]
    /// when it takes nothing any more. Everything later comes as an event.
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
        let permit = Arc::clone(&self.door)
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => EngineError::Overloaded { limit: self.max_jobs },
                TryAcquireError::Closed => EngineError::ShuttingDown,
            })?;
        let (events, receiver) = mpsc::unbounded_channel();
        let admission = Admission {
            id,
            input,
            deadline,
            events,
            permit,
        };
        self.commands
            .send(Command::Admit(Box::new(admission)))
            .map_err(|_| EngineError::Stopped)?;
        Ok(JobEvents::new(id, receiver))
    }

    /// Ends a job before the next act of the device; its last event is then `Cancelled`. Nothing happens when it has
    /// ended already.
    pub fn cancel(&self, id: JobId) {
        // A thread that has ended has no job to cancel.
        let _ = self.commands.send(Command::Cancel(id));
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
