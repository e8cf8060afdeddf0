//! Loads under way, each on a thread of its own, so that the device does not wait for a slow disk. Whether one load waits
//! for another is the loader's decision.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Command, DeviceThread};
use crate::batcher::Outcome;
use crate::{EngineError, Executor, LoadError, ModelKey, ModelLoader, ResolvedModels};

/// How long the end of the engine waits for loads, in looks and the time between them. Who reads from a disk that does
/// not answer is left behind, and ends with the process.
const LAST_LOOKS: u32 = 200;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The end of a load.
struct Ended<M> {
    model: ModelKey,
    result: Result<M, LoadFault>,
}

enum LoadFault {
    NoRoom(EngineError),
    Failed(EngineError),
}

/// Everything that the loads share.
pub(crate) struct Loads<L: ModelLoader> {
    loader: Arc<L>,
    threads: Vec<JoinHandle<()>>,
    sender: Sender<Ended<L::Model>>,
    ended: Receiver<Ended<L::Model>>,
    commands: Sender<Command>,
}

impl<L: ModelLoader> Loads<L> {
    pub(crate) fn new(loader: Arc<L>, commands: Sender<Command>) -> Self {
        let (sender, ended) = mpsc::channel();
        Self {
            loader,
            threads: Vec::new(),
            sender,
            ended,
            commands,
        }
    }

    /// Returns at once.
    fn start(&mut self, models: ResolvedModels) -> Result<(), EngineError> {
        self.threads.retain(|thread| !thread.is_finished());
        let (loader, sender, commands) = (
            Arc::clone(&self.loader),
            self.sender.clone(),
            self.commands.clone(),
        );
        let run = move || {
            let model = ModelKey::of(&models);
            let result = load(loader.as_ref(), &models);
            drop(loader);
            // A device thread that has ended needs no model.
            let _ = sender.send(Ended { model, result });
            let _ = commands.send(Command::LoadEnded);
        };
        let thread = thread::Builder::new()
            .name("pentimento-loader".to_owned())
            .spawn(run);
        let thread = thread.map_err(|error| EngineError::Spawn(Arc::new(error)))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for the loads that end soon, and leaves the others.
    pub(super) fn end(self) {
        for _ in 0..LAST_LOOKS {
            if self.threads.iter().all(JoinHandle::is_finished) {
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        tracing::warn!("a load does not end; the engine ends without it");
    }
}

/// A panic is the model's fault and nobody else's.
fn load<L: ModelLoader>(loader: &L, models: &ResolvedModels) -> Result<L::Model, LoadFault> {
    match panic::catch_unwind(AssertUnwindSafe(|| loader.load(models))) {
        Ok(Ok(model)) => Ok(model),
        Ok(Err(LoadError::Failed(error))) => Err(LoadFault::Failed(error.into())),
        Ok(Err(LoadError::NoRoom(error))) => Err(LoadFault::NoRoom(error.into())),
        Err(_) => {
            tracing::error!(model = %ModelKey::of(models), "loading a model panicked");
            Err(LoadFault::Failed(EngineError::Panicked { act: "load" }))
        }
    }
}

impl<E: Executor> DeviceThread<E> {
    pub(super) fn load(&mut self, model: ModelKey) {
        let mut inputs = self.running.values().map(|running| &running.input);
        let Some(models) = inputs
            .find(|input| input.model_key() == model)
            .map(|input| input.models.clone())
        else {
            debug_assert!(false, "the batcher loads models that a job waits for");
            self.report(Outcome::LoadFailed(model), Some(EngineError::Stopped));
            return;
        };
        tracing::debug!(%model, "a model is loaded");
        if let Err(error) = self.loads.start(models) {
            self.report(Outcome::LoadFailed(model), Some(error));
        }
    }

    /// Reports the loads that have ended.
    pub(super) fn take_loads(&mut self) {
        while let Ok(Ended { model, result }) = self.loads.ended.try_recv() {
            let (outcome, error) = match result {
                Ok(loaded) => {
                    self.models.insert(model.clone(), loaded);
                    (Outcome::Loaded(model), None)
                }
                Err(LoadFault::Failed(error)) => (Outcome::LoadFailed(model), Some(error)),
                Err(LoadFault::NoRoom(error)) => (Outcome::LoadRefused(model), Some(error)),
            };
            self.report(outcome, error);
        }
    }
}
