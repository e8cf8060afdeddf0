//! The components of a model: those that are in memory, and the others from their files, for which there is room first.

use std::collections::HashSet;
use std::time::Instant;

use pentimento_pipeline::{Component, ComponentKey, ModelSource, StableDiffusion};
use pentimento_types::{MemoryFull, MemoryUse, Reservation};

use super::watch::Watched;
use super::{Fault, Memory, PipelineLoader};
use crate::ResolvedModels;

impl PipelineLoader {
    pub(super) fn find_or_read(
        &self,
        models: &ResolvedModels,
        watched: &Watched,
    ) -> Result<StableDiffusion, Fault> {
        let source = ModelSource::open(models, &self.0.device)?;
        let source = source.counting(watched.progress());
        let keys = self.memory().in_their_precision(source.keys()?);
        let components = match self.resident(&keys) {
            Some(components) => components,
            None => {
                let _alone = self.0.reading.take(watched);
                let began = self.0.clock.now();
                let read = self.read_missing(&source, &keys);
                self.note_load(began, &read);
                read?
            }
        };
        let model = source.assemble(components)?;
        let keep_alive = models.checkpoint.keep_alive.or(self.0.keep_alive);
        // Dropped after the lock.
        let mut evicted = Vec::new();
        let mut memory = self.memory();
        let Memory {
            components,
            models: known,
            ..
        } = &mut *memory;
        let bases: Vec<ComponentKey> = keys.iter().filter_map(ComponentKey::base).collect();
        let forgotten = known.insert(models, keys.into_iter().chain(bases).collect(), keep_alive);
        components.evict(&forgotten, &mut evicted);
        known.retain_resident(|key| components.contains(key));
        memory.pin();
        Ok(model)
    }

    pub(super) fn note_load<T>(&self, began: Instant, read: &Result<T, Fault>) {
        match read {
            Ok(_) => {
                let took = self.0.clock.now().saturating_duration_since(began);
                self.0.metrics.loaded(took);
            }
            Err(Fault::NoRoom { .. }) => self.0.metrics.refused(),
            Err(Fault::Failed(_)) => self.0.metrics.failed(),
        }
    }

    /// The components, when all are in memory.
    fn resident(&self, keys: &[ComponentKey]) -> Option<Vec<Component>> {
        let mut memory = self.memory();
        keys.iter().map(|key| memory.components.get(key)).collect()
    }

    fn read_missing(&self, source: &ModelSource, keys: &[ComponentKey]) -> Result<Vec<Component>, Fault> {
        // A copy with LoRAs shares the memory of the component without them.
        let bases = keys.iter().filter_map(ComponentKey::base);
        let wanted: Vec<ComponentKey> = bases.chain(keys.iter().cloned()).collect();
        self.make_room(&wanted, |key| source.expected_bytes(key))?;
        let components = keys.iter().map(|key| self.find_or_read_one(source, key, &wanted));
        let components = components.collect::<Result<Vec<_>, _>>()?;
        // What was read may be larger than its files had said.
        let mut evicted = Vec::new();
        let _ = self.memory().components.make_room(0, &wanted, &mut evicted);
        Ok(components)
    }

    pub(super) fn find_or_read_one(
        &self,
        source: &ModelSource,
        key: &ComponentKey,
        wanted: &[ComponentKey],
    ) -> Result<Component, Fault> {
        if let Some(component) = self.memory().components.get(key) {
            return Ok(component);
        }
        let base = key
            .base()
            .map(|base| self.find_or_read_one(source, &base, wanted));
        let base = base.transpose()?;
        let counted = self.count(source.expected_bytes(key), wanted);
        let (component, size_bytes) = source.read(key, base.as_ref())?;
        let counted = self.recount(counted, size_bytes, wanted);
        let entry = (component.clone(), base);
        self.memory()
            .components
            .insert(key.clone(), entry, (size_bytes, counted));
        Ok(component)
    }

    /// Puts a component that is about to be read into the account, for which others are thrown out where they must be. A model that is larger than
    /// all that is set aside for weights is let in alone, and is then missing in the account.
    pub(super) fn count(&self, bytes: u64, keys: &[ComponentKey]) -> Option<Reservation> {
        let mut evicted = Vec::new();
        let _ = self.memory().components.make_room(bytes, keys, &mut evicted);
        drop(evicted);
        let counted = self.0.ledger.reserve(MemoryUse::Weights, bytes);
        counted.inspect_err(too_large).ok()
    }

    /// Corrects the account once a component's real size is known.
    pub(super) fn recount(
        &self,
        counted: Option<Reservation>,
        bytes: u64,
        keys: &[ComponentKey],
    ) -> Option<Reservation> {
        let mut counted = counted?;
        let more = bytes.saturating_sub(counted.bytes());
        if more == 0 {
            counted.shrink_to(bytes);
            return Some(counted);
        }
        let mut evicted = Vec::new();
        let _ = self.memory().components.make_room(bytes, keys, &mut evicted);
        drop(evicted);
        counted.grow(more).inspect_err(too_large).ok()?;
        Some(counted)
    }

    /// Room for those that are not in memory, before the first of them is read.
    pub(super) fn make_room(
        &self,
        keys: &[ComponentKey],
        expected_bytes: impl Fn(&ComponentKey) -> u64,
    ) -> Result<(), Fault> {
        let missing: HashSet<&ComponentKey> = {
            let memory = self.memory();
            let missing = keys.iter().filter(|key| !memory.components.contains(key));
            missing.collect()
        };
        // The headers of files may be read for this.
        let needed = missing.into_iter().map(expected_bytes).sum();
        let mut evicted = Vec::new();
        let mut memory = self.memory();
        let made = memory.components.make_room(needed, keys, &mut evicted);
        drop(memory);
        made.map_err(|held| Fault::NoRoom { needed, held })
    }
}

fn too_large(full: &MemoryFull) {
    tracing::warn!(%full, "a model is larger than the memory set aside for weights");
}
