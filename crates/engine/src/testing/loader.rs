//! The fake's models: names that are counted while somebody holds them.

use std::fmt;
use std::sync::{Arc, Mutex};

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Device, Precision, WordModel, WordModelSource};
use pentimento_types::ErrorKind;
use prometheus_client::registry::Registry;

use super::{FaultAt, FaultKind, Faults, lock};
use crate::{
    DeviceReport, ExecutorError, LoadError, ModelLoader, Offer, Presence, ResolvedModels, SharedCause,
};

type LoadHook = Arc<dyn Fn(&str) + Send + Sync>;

/// A model of the fake, which is its name.
#[derive(Clone, Debug)]
pub struct FakeModel(pub(super) Arc<str>);

/// Loads names. Clones share everything.
#[derive(Clone, Default)]
pub struct FakeLoader {
    pub(super) faults: Faults,
    pub(super) hook: Option<LoadHook>,
    /// How many models fit into memory.
    pub(super) room: Option<usize>,
    pub(super) loads: Arc<Mutex<Vec<String>>>,
    /// The least recently loaded first.
    pub(super) residents: Arc<Mutex<Vec<FakeModel>>>,
}

impl fmt::Debug for FakeLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeLoader")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl ModelLoader for FakeLoader {
    // Nothing is counted.
    fn register_metrics(&self, _: &mut Registry) {}

    type Model = FakeModel;

    fn load(&self, models: &ResolvedModels) -> Result<FakeModel, LoadError> {
        let name = &models.checkpoint.name;
        lock(&self.loads).push(name.clone());
        if let Some(hook) = &self.hook {
            hook(name);
        }
        match self.faults.strike(name, FaultAt::Load) {
            None => self.find_or_make(name),
            #[expect(clippy::panic, reason = "a test asked for it")]
            Some(FaultKind::Panic) => panic!("a panic that a test asked for"),
            Some(FaultKind::Error(kind)) => Err(LoadError::Failed(failure(name, kind))),
            Some(FaultKind::OutOfMemory) => {
                Err(LoadError::Failed(failure(name, ErrorKind::OutOfDeviceMemory)))
            }
            Some(FaultKind::DeviceLost) => Err(LoadError::Failed(ExecutorError::DeviceLost {
                source: Arc::new(std::io::Error::other("a fault that a test asked for")),
            })),
        }
    }

    // The real network: there is nothing to fake about it.
    fn word_model(&self, entry: &ModelEntry, words: &[&str]) -> Result<Arc<WordModel>, ExecutorError> {
        let read = WordModelSource::open(entry).and_then(|source| source.read(words));
        match read {
            Ok((model, _)) => Ok(Arc::new(model)),
            Err(_) => Err(failure(&entry.name, ErrorKind::BadModel)),
        }
    }

    fn device(&self) -> DeviceReport {
        DeviceReport::of(&Device::Cpu)
    }

    fn precision(&self, _: &ModelEntry) -> Precision {
        Precision::F32
    }

    fn resident_models(&self) -> Vec<String> {
        let names = lock(&self.residents);
        let mut names: Vec<String> = names.iter().map(|model| model.0.to_string()).collect();
        names.sort_unstable();
        names
    }

    fn offer(&self, models: &ResolvedModels) -> Offer {
        let residents = lock(&self.residents);
        let is_here = residents.iter().any(|model| *model.0 == *models.checkpoint.name);
        Offer {
            presence: if is_here { Presence::Whole } else { Presence::Cold },
            weight_bytes: residents.len() as u64,
        }
    }

    fn pin(&self, _: &ResolvedModels) {}

    fn evict(&self, checkpoint: &str) -> u64 {
        let mut residents = lock(&self.residents);
        let before = residents.len();
        residents.retain(|model| *model.0 != *checkpoint || Arc::strong_count(&model.0) > 1);
        (before - residents.len()) as u64
    }

    fn evict_idle(&self) -> u64 {
        let mut residents = lock(&self.residents);
        let before = residents.len();
        residents.retain(|model| Arc::strong_count(&model.0) > 1);
        (before - residents.len()) as u64
    }

    fn evict_unused(&self) -> u64 {
        0
    }
}

impl FakeLoader {
    fn find_or_make(&self, name: &str) -> Result<FakeModel, LoadError> {
        let mut residents = lock(&self.residents);
        if let Some(model) = residents.iter().find(|model| *model.0 == *name) {
            return Ok(model.clone());
        }
        while self.room.is_some_and(|room| residents.len() >= room) {
            let Some(idle) = residents
                .iter()
                .position(|model| Arc::strong_count(&model.0) == 1)
            else {
                return Err(LoadError::NoRoom(failure(name, ErrorKind::Overloaded)));
            };
            residents.remove(idle);
        }
        let model = FakeModel(Arc::from(name));
        residents.push(model.clone());
        Ok(model)
    }
}

fn failure(name: &str, kind: ErrorKind) -> ExecutorError {
    let source: SharedCause = Arc::new(std::io::Error::other("a fault that a test asked for"));
    ExecutorError::ModelLoad {
        model: name.to_owned(),
        kind,
        permanent: !kind.is_retryable(),
        reason: None,
        source,
    }
}
