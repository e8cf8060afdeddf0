//! Who may plan: each plan reads the model's disk, which may not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

/// How many plans of one model are made at once, each of which reads the model's disk.
const PLANS_AT_ONCE: usize = 4;
/// Keeps the threads that a disk without an answer can hold to a few for each model, however many callers come and go.
#[derive(Debug, Default)]
pub(crate) struct PlanTurns(Mutex<HashMap<String, Arc<Semaphore>>>);

impl PlanTurns {
    /// Models are those of the catalogue, so there are never many.
    pub(crate) fn of(&self, model: &str) -> Arc<Semaphore> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = turns.entry(model.to_owned());
        Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(PLANS_AT_ONCE))))
    }
}
