//! What the models that were loaded consist of, and how long each of them is to stay in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use pentimento_pipeline::ComponentKey;

use crate::{ModelKey, Presence, ResolvedModels};

/// One model, as it was last put together.
#[derive(Debug)]
struct Known {
    checkpoint: String,
    components: Vec<ComponentKey>,
    pinned: bool,
    /// How long it stays when nobody uses it; None is for ever.
    keep_alive: Option<Duration>,
    /// The number of the load that brought it into use last.
    last_load: u64,
}

/// Models that are known and not pinned, at most: callers choose strengths, and each of them makes another set.
const MOST_KNOWN: usize = 64;

/// The models of which something is in memory.
#[derive(Debug, Default)]
pub(super) struct KnownModels {
    models: HashMap<ModelKey, Known>,
    loads: u64,
}

impl KnownModels {
    /// Takes a model in that was loaded. Gives back the components of those that are forgotten for it and that are a part of
    /// no other: the models that were longest not loaded.
    pub(super) fn insert(
        &mut self,
        models: &ResolvedModels,
        components: Vec<ComponentKey>,
        keep_alive: Option<Duration>,
    ) -> Vec<ComponentKey> {
        let key = ModelKey::of(models);
        let pinned = self.models.get(&key).is_some_and(|known| known.pinned);
        self.loads += 1;
        let known = Known {
            checkpoint: models.checkpoint.name.clone(),
            components,
            pinned,
            keep_alive,
            last_load: self.loads,
        };
        self.models.insert(key, known);
        self.forget_oldest()
    }

    fn forget_oldest(&mut self) -> Vec<ComponentKey> {
        let mut loads: Vec<u64> = self
            .models
            .values()
            .filter(|known| !known.pinned)
            .map(|known| known.last_load)
            .collect();
        let Some(too_many) = loads.len().checked_sub(MOST_KNOWN).filter(|count| *count > 0) else {
            return Vec::new();
        };
        loads.sort_unstable();
        let last_gone = loads[too_many - 1];
        let is_old = |_: &ModelKey, known: &mut Known| !known.pinned && known.last_load <= last_gone;
        let gone: Vec<Known> = self.models.extract_if(is_old).map(|(_, known)| known).collect();
        let kept: HashSet<&ComponentKey> = self.models.values().flat_map(|known| &known.components).collect();
        let components = gone.into_iter().flat_map(|known| known.components);
        components.filter(|component| !kept.contains(component)).collect()
    }

    /// Forgets models that are not in memory as a whole any more: callers can ask for any number of them, since LoRAs have
    /// strengths, and all sets of a checkpoint share most of their components.
    pub(super) fn retain_resident(&mut self, is_resident: impl Fn(&ComponentKey) -> bool) {
        self.models
            .retain(|_, known| known.pinned || known.components.iter().all(&is_resident));
    }

    /// Names of the checkpoints that are in memory as a whole, by themselves or with what changes them, in order. What callers
    /// put beside them is nobody else's business.
    pub(super) fn resident(&self, is_resident: impl Fn(&ComponentKey) -> bool) -> Vec<String> {
        let resident = self
            .models
            .values()
            .filter(|known| known.components.iter().all(&is_resident));
        let names: BTreeSet<&String> = resident.map(|known| &known.checkpoint).collect();
        names.into_iter().cloned().collect()
    }

    /// How much of a model is in memory.
    pub(super) fn presence(
        &self,
        models: &ResolvedModels,
        is_resident: impl Fn(&ComponentKey) -> bool,
    ) -> Presence {
        let is_here = |known: &Known| known.components.iter().all(&is_resident);
        if self.models.get(&ModelKey::of(models)).is_some_and(is_here) {
            return Presence::Whole;
        }
        let name = &models.checkpoint.name;
        let mut of_checkpoint = self.models.values().filter(|known| known.checkpoint == *name);
        if of_checkpoint.any(is_here) {
            Presence::Checkpoint
        } else {
            Presence::Cold
        }
    }

    /// Keeps a model that was loaded.
    pub(super) fn pin(&mut self, model: &ModelKey) {
        if let Some(known) = self.models.get_mut(model) {
            known.pinned = true;
        }
    }

    /// Lets go of all models of a checkpoint, and names what they consist of.
    pub(super) fn unpin(&mut self, checkpoint: &str) -> Vec<ComponentKey> {
        let models = self
            .models
            .values_mut()
            .filter(|known| known.checkpoint == checkpoint);
        models
            .flat_map(|known| {
                known.pinned = false;
                known.components.iter().cloned()
            })
            .collect()
    }

    /// What must stay.
    pub(super) fn pinned(&self) -> impl Iterator<Item = ComponentKey> {
        let pinned = self.models.values().filter(|known| known.pinned);
        pinned.flat_map(|known| known.components.iter().cloned())
    }

    /// How long each component stays when nobody uses it: as long as the model that wants it longest; None is for ever. One
    /// that is not there is a part of no model any more.
    pub(super) fn keep_alive(&self) -> HashMap<&ComponentKey, Option<Duration>> {
        let mut longest: HashMap<&ComponentKey, Option<Duration>> = HashMap::new();
        for known in self.models.values() {
            for component in &known.components {
                let so_far = longest.entry(component).or_insert(Some(Duration::ZERO));
                *so_far = so_far.zip(known.keep_alive).map(|(one, other)| one.max(other));
            }
        }
        longest
    }

    /// Another number after each load.
    pub(super) const fn loads(&self) -> u64 {
        self.loads
    }
}
