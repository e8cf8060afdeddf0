//! Starts the threads that own the devices, one for each, behind one door.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use pentimento_types::{Clock, MemoryBudget, MemoryLedger};
use tokio::sync::{Semaphore, watch};

use crate::device_thread::{Command, DeviceThread, Loads, Neighbours};
use crate::handle::{Commands, Door};
use crate::metrics::DeviceMetrics;
use crate::model_memory::ModelMemory;
use crate::placement::Placement;
use crate::{BatchPolicy, EngineError, EngineHandle, EngineStatus, Executor};

/// Starts the device threads.
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

    /// As [`Engine::start_on`], on one device.
    ///
    /// # Errors
    /// As there.
    pub fn start_within<E: Executor>(
        executor: E,
        policy: BatchPolicy,
        clock: Arc<dyn Clock>,
        memory: Arc<MemoryLedger>,
    ) -> Result<(EngineHandle, EngineThread), EngineError> {
        Self::start_on(vec![executor], policy, clock, memory)
    }

    /// Moves each executor to a thread of its own and gives back the one door to them. Jobs are let in while `memory` has room for
    /// their decoded images, and no device has more of them than the policy says.
    ///
    /// Executors of several devices are those of one kind in all that decides pixels: a job goes to any of them.
    ///
    /// # Errors
    /// When the operating system refuses a thread. Those that have begun then end.
    pub fn start_on<E: Executor>(
        executors: Vec<E>,
        policy: BatchPolicy,
        clock: Arc<dyn Clock>,
        memory: Arc<MemoryLedger>,
    ) -> Result<(EngineHandle, EngineThread), EngineError> {
        let count = executors.len();
        let placement = Placement::new(count, policy.max_jobs);
        let metrics = DeviceMetrics::default();
        let (loss, lost) = watch::channel(false);
        let channels: Vec<_> = executors.iter().map(|_| mpsc::channel()).collect();
        let senders: Vec<mpsc::Sender<Command>> = channels.iter().map(|(sender, _)| sender.clone()).collect();
        let (mut doors, mut threads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (device, (executor, (commands, inbox))) in executors.into_iter().zip(channels).enumerate() {
            let loader = Arc::new(executor.loader());
            let (status_writer, status) = watch::channel(EngineStatus::idle(policy.max_jobs));
            let loads = Loads::new(Arc::clone(&loader), commands.clone());
            let others = senders.iter().enumerate().filter(|(other, _)| *other != device);
            let neighbours = Neighbours {
                device,
                placement: Arc::clone(&placement),
                others: others.map(|(_, sender)| sender.clone()).collect(),
                loss: loss.clone(),
            };
            let thread = DeviceThread::new(
                (executor, loads),
                policy,
                Arc::clone(&clock),
                (metrics.of_device(device), neighbours),
                (inbox, status_writer),
            );
            let join = thread::Builder::new()
                .name(thread_name(device, count))
                .spawn(move || thread.run())
                .map_err(|error| EngineError::Spawn(Arc::new(error)))?;
            threads.push(join);
            let models: Arc<dyn ModelMemory> = loader;
            doors.push(Door {
                commands: Commands(commands),
                models,
                status,
            });
        }
        let permits = Arc::new(Semaphore::new(count * policy.max_jobs));
        let handle = EngineHandle::new((doors, placement), (permits, memory), (metrics, lost), clock);
        Ok((handle, EngineThread { threads }))
    }
}

fn thread_name(device: usize, count: usize) -> String {
    if count == 1 {
        "pentimento-device".to_owned()
    } else {
        // Linux shows fifteen characters.
        format!("device-{device}")
    }
}

/// The running device threads.
#[derive(Debug)]
pub struct EngineThread {
    threads: Vec<JoinHandle<()>>,
}

impl EngineThread {
    /// Blocks until all have ended: after a shutdown, or when every handle is gone and no job is left.
    ///
    /// # Errors
    /// [`EngineError::Stopped`] when one ended by a panic outside of the guarded acts.
    pub fn join(self) -> Result<(), EngineError> {
        let mut joined = Ok(());
        for thread in self.threads {
            joined = joined.and(thread.join().map_err(|_| EngineError::Stopped));
        }
        joined
    }

    /// Whether all have ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}
