//! What the models that were loaded consist of, and how long each of them is to stay in memory.

use std::collections::HashMap;
use std::time::Duration;

use pentimento_pipeline::ComponentKey;

use crate::{ModelKey, ResolvedModels};

/// One model, as it was last put together.
#[derive(Debug)]
struct Known {
    checkpoint: String,
    components: Vec<ComponentKey>,
    pinned: bool,
    /// How long it stays when nobody uses it; None is for ever.
    keep_alive: Option<Duration>,
}

/// The models of which something is in memory.
#[derive(Debug, Default)]
pub(super) struct KnownModels(HashMap<ModelKey, Known>);

impl KnownModels {
    pub(super) fn insert(
        &mut self,
        models: &ResolvedModels,
        components: Vec<ComponentKey>,
        keep_alive: Option<Duration>,
    ) {
        let key = ModelKey::of(models);
        let pinned = self.0.get(&key).is_some_and(|known| known.pinned);
        let known = Known {
            checkpoint: models.checkpoint.name.clone(),
            components,
            pinned,
            keep_alive,
        };
        self.0.insert(key, known);
    }

    /// Forgets models that are not in memory as a whole any more: callers can ask for any number of them, since LoRAs have
    /// strengths, and all sets of a checkpoint share most of their components.
    pub(super) fn retain_resident(&mut self, is_resident: impl Fn(&ComponentKey) -> bool) {
        self.0
            .retain(|_, known| known.pinned || known.components.iter().all(&is_resident));
    }

    /// Names of the models that are in memory as a whole, in order.
    pub(super) fn resident(&self, is_resident: impl Fn(&ComponentKey) -> bool) -> Vec<String> {
        let resident = self
            .0
            .iter()
            .filter(|(_, known)| known.components.iter().all(&is_resident));
        let mut names: Vec<String> = resident.map(|(model, _)| model.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Keeps a model that was loaded.
    pub(super) fn pin(&mut self, model: &ModelKey) {
        if let Some(known) = self.0.get_mut(model) {
            known.pinned = true;
        }
    }

    /// Lets go of all models of a checkpoint, and names what they consist of.
    pub(super) fn unpin(&mut self, checkpoint: &str) -> Vec<ComponentKey> {
        let models = self.0.values_mut().filter(|known| known.checkpoint == checkpoint);
        models
            .flat_map(|known| {
                known.pinned = false;
                known.components.iter().cloned()
            })
            .collect()
    }

    /// What must stay.
    pub(super) fn pinned(&self) -> impl Iterator<Item = ComponentKey> {
        let pinned = self.0.values().filter(|known| known.pinned);
        pinned.flat_map(|known| known.components.iter().cloned())
    }

    /// How long a component stays when nobody uses it: as long as the model that wants it longest.
    pub(super) fn keep_alive(&self, component: &ComponentKey) -> Option<Duration> {
        let models = self.0.values();
        let mut of = models
            .filter(|known| known.components.contains(component))
            .map(|known| known.keep_alive);
        // One that is a part of no model any more has nobody who wants it.
        let first = of.next().unwrap_or(Some(Duration::ZERO))?;
        of.try_fold(first, |longest, keep| Some(longest.max(keep?)))
    }
}
