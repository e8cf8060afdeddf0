//! The one thread that owns the device: takes commands, asks the batcher, calls the executor, reports. Models are loaded
//! on threads beside it.
//!
//! Every act of the executor is guarded against panics, so that strangers' jobs never take the process down together.
//! Invariant: a job is in `running` exactly while the batcher knows it, and gets exactly one end event.

mod acts;
#[cfg(test)]
mod loading_tests;
mod loads;
mod running;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use pentimento_types::{Clock, JobId};
use tokio::sync::{mpsc, watch};

pub(crate) use self::loads::Loads;
use self::running::{Running, RunningOn};
use crate::admission::Place;
use crate::batcher::{AdmitError, Batcher, ImageId, JobSpec, Plan};
use crate::metrics::DeviceMetrics;
use crate::placement::Placement;
use crate::{
    BatchPolicy, EngineError, EngineStatus, Executor, JobEvent, JobTerms, ModelKey, ModelOf, ResolvedJob,
};

/// How often deadlines are looked at while nothing else happens than loads.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A job on its way in.
pub(crate) struct Admission {
    pub(crate) id: JobId,
    pub(crate) input: ResolvedJob,
    pub(crate) terms: JobTerms,
    pub(crate) events: mpsc::UnboundedSender<JobEvent>,
    pub(crate) place: Place,
}

/// What the thread is told.
pub(crate) enum Command {
    Admit(Box<Admission>),
    Cancel(JobId),
    Shutdown {
        deadline: Instant,
    },
    /// No handle is left, so no job comes any more.
    HandlesGone,
    /// A load has ended; its result is with the loads.
    LoadEnded,
}

/// What a thread knows of the other devices of its engine.
pub(crate) struct Neighbours {
    /// Which of them is its own.
    pub(crate) device: usize,
    pub(crate) placement: Arc<Placement>,
    pub(crate) others: Vec<Sender<Command>>,
    /// Set when one of the devices is lost.
    pub(crate) loss: watch::Sender<bool>,
}

impl Neighbours {
    fn worked(&self, time: Duration) {
        self.placement.worked(self.device, time);
    }
}

/// Everything the thread owns.
pub(crate) struct DeviceThread<E: Executor> {
    executor: E,
    loads: Loads<E::Loader>,
    /// The models that the batcher has in use.
    models: HashMap<ModelKey, ModelOf<E>>,
    batcher: Batcher,
    running: HashMap<JobId, RunningOn<E>>,
    clock: Arc<dyn Clock>,
    metrics: DeviceMetrics,
    neighbours: Neighbours,
    inbox: Receiver<Command>,
    status: watch::Sender<EngineStatus>,
    /// Set by a shutdown: when the jobs inside are to be ended.
    stop_at: Option<Instant>,
    handles_gone: bool,
    /// Set when the device is lost.
    lost: bool,
}

impl<E: Executor> DeviceThread<E> {
    pub(crate) fn new(
        (executor, loads): (E, Loads<E::Loader>),
        policy: BatchPolicy,
        clock: Arc<dyn Clock>,
        (metrics, neighbours): (DeviceMetrics, Neighbours),
        (inbox, status): (Receiver<Command>, watch::Sender<EngineStatus>),
    ) -> Self {
        let batcher = Batcher::new(policy);
        Self {
            executor,
            loads,
            models: HashMap::new(),
            batcher,
            running: HashMap::new(),
            clock,
            metrics,
            neighbours,
            inbox,
            status,
            stop_at: None,
            handles_gone: false,
            lost: false,
        }
    }

    /// The loop. Returns after a shutdown, when the device is lost, or when no handle and no job is left.
    pub(crate) fn run(mut self) {
        loop {
            self.take_commands();
            self.drop_unwanted();
            if self.lost || self.time_to_stop() {
                // Whoever waits for the loss is told.
                self.publish_status();
                break;
            }
            match self.plan() {
                Plan::Idle => {
                    if self.handles_gone && self.running.is_empty() {
                        break;
                    }
                    self.publish_status();
                    self.wait();
                }
                Plan::Load(model) => self.load(model),
                Plan::Unload(model) => drop(self.models.remove(&model)),
                Plan::Prepare(job) => self.prepare(job),
                Plan::Denoise { key, images } => self.denoise(&key, images),
                Plan::Finish(image) => self.finish(image),
            }
            self.publish_status();
        }
        self.end_all(&EngineError::ShuttingDown);
        self.models.clear();
        self.loads.end();
    }

    /// What the batcher says, which asks for the room on the device.
    fn plan(&mut self) -> Plan {
        let Self {
            batcher,
            executor,
            running,
            clock,
            ..
        } = self;
        batcher.plan_within(clock.now(), &mut |images| {
            let state = |id: &ImageId| running.get(&id.job)?.state(id.index);
            let states: Vec<&E::State> = images.iter().filter_map(state).collect();
            executor.images_that_fit(&states)
        })
    }

    /// Waits for a command or the end of a load. While a job waits for its model, its deadline may come, and its caller go.
    fn wait(&mut self) {
        let command = if self.running.is_empty() {
            self.inbox.recv().ok()
        } else {
            self.inbox.recv_timeout(BETWEEN_LOOKS).ok()
        };
        if let Some(command) = command {
            self.obey(command);
        }
    }

    fn take_commands(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.obey(command),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Admit(admission) => self.admit(*admission),
            Command::Cancel(job) => {
                self.batcher.cancel(job);
                self.end(job, JobEvent::Cancelled);
            }
            Command::Shutdown { deadline } => {
                self.stop_at = Some(self.stop_at.map_or(deadline, |earlier| earlier.min(deadline)));
            }
            Command::HandlesGone => self.handles_gone = true,
            Command::LoadEnded => self.take_loads(),
        }
    }

    fn admit(&mut self, admission: Admission) {
        let Admission {
            id,
            input,
            terms,
            events,
            place,
        } = admission;
        let spec = JobSpec {
            id,
            owner: terms.owner,
            model: input.model_key(),
            latent: input.latent_size(),
            work: terms.work,
            priority: terms.priority,
            deadline: terms.deadline,
        };
        let refusal = match self.batcher.admit(spec, self.clock.now()) {
            Ok(()) => {
                self.running
                    .insert(id, Running::new(input, events, place, terms.previews));
                return;
            }
            Err(AdmitError::Duplicate) => EngineError::Duplicate,
            Err(AdmitError::Full) => EngineError::Overloaded {
                limit: self.status.borrow().max_jobs,
            },
        };
        drop(place);
        // A caller that has gone needs no answer.
        let _ = events.send(JobEvent::Failed(refusal));
    }

    /// Ends the jobs whose deadline has come and those whose caller has gone.
    fn drop_unwanted(&mut self) {
        for job in self.batcher.expire(self.clock.now()) {
            self.end(job, JobEvent::Failed(EngineError::DeadlineExceeded));
        }
        let gone = self
            .running
            .iter()
            .filter(|(_, running)| running.caller_is_gone());
        let gone: Vec<JobId> = gone.map(|(job, _)| *job).collect();
        for job in gone {
            self.batcher.cancel(job);
            self.end(job, JobEvent::Cancelled);
        }
    }

    fn time_to_stop(&self) -> bool {
        self.stop_at
            .is_some_and(|deadline| self.running.is_empty() || deadline <= self.clock.now())
    }

    /// Frees all that the job holds, its place at the door too, and only then tells its caller.
    fn end(&mut self, job: JobId, event: JobEvent) {
        if let Some(running) = self.running.remove(&job) {
            running.end(event);
        }
    }

    fn end_all(&mut self, error: &EngineError) {
        let jobs: Vec<JobId> = self.running.keys().copied().collect();
        for job in jobs {
            self.batcher.cancel(job);
            self.end(job, JobEvent::Failed(error.clone()));
        }
    }

    /// Who hears of a loss must find the device lost. The other devices have no part in it, but the process has to end
    /// ([ADR 0020](../../../../docs/adr/0020-several-cards-behind-one-queue.md)), so they end between two acts, too.
    fn publish_loss(&self) {
        self.publish_status();
        self.neighbours.loss.send_replace(true);
        for other in &self.neighbours.others {
            // One that has ended needs no word.
            let _ = other.send(Command::Shutdown {
                deadline: self.clock.now(),
            });
        }
    }

    fn publish_status(&self) {
        let status = EngineStatus {
            jobs: self.batcher.len(),
            jobs_waiting: self.batcher.jobs_waiting(),
            jobs_loading: self.batcher.jobs_loading(),
            rows: self.batcher.rows_to_denoise(),
            rows_wanted: self.batcher.rows_wanted(),
            max_jobs: self.status.borrow().max_jobs,
            healthy: !self.lost,
        };
        self.status.send_if_modified(|current| {
            let changed = *current != status;
            *current = status;
            changed
        });
    }
}
