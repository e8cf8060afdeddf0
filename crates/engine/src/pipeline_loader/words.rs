//! Language models in the pool: found or read as the components of checkpoints are, in the same account.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Component, ComponentKey, WordModel, WordModelSource};
use pentimento_types::{ErrorKind, HasKind as _, describe_chain};

use super::{Fault, LONGEST_REASON, PipelineLoader, WeightsFull};
use crate::component_pool::NoRoom;
use crate::{ExecutorError, SharedCause};

impl PipelineLoader {
    /// Two that ask at once for one that is not in memory may both read it, and one of the two is then kept.
    pub(super) fn find_or_read_words(
        &self,
        entry: &ModelEntry,
        words: &[&str],
    ) -> Result<Arc<WordModel>, Fault> {
        let source = WordModelSource::open(entry)?;
        let key = source.key()?;
        if let Some(Component::PromptEnhancer(model)) = self.memory().components.get(&key) {
            return Ok(model);
        }
        let wanted = [key.clone()];
        self.make_room(&wanted, ComponentKey::expected_bytes)?;
        let counted = self.count(key.expected_bytes(), &wanted);
        let began = self.0.clock.now();
        let read = source.read(words).map_err(Fault::from);
        self.note_load(began, &read);
        let (model, size_bytes) = read?;
        let counted = self.recount(counted, size_bytes, &wanted);
        let model = Arc::new(model);
        let component = Component::PromptEnhancer(Arc::clone(&model));
        let mut memory = self.memory();
        memory
            .components
            .insert(key.clone(), (component, None), (size_bytes, counted));
        memory.words = Some(key);
        memory.pin();
        drop(memory);
        tracing::info!(model = %entry.name, bytes = size_bytes, "loaded a prompt enhancer");
        Ok(model)
    }

    /// As a model that could not be loaded, for callers without the folder in which it is.
    pub(super) fn not_said(&self, entry: &ModelEntry, fault: Fault) -> ExecutorError {
        let (kind, permanent, reason, source): (_, _, _, SharedCause) = match fault {
            Fault::Failed(error) => {
                tracing::warn!(model = %entry.name, error = describe_chain(&error), "a prompt enhancer cannot be loaded");
                let text =
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), describe_chain);
                let shown = text.replace(&entry.source.to_string(), "its folder");
                let shown = shown.chars().take(LONGEST_REASON).collect();
                (error.kind(), error.is_permanent(), Some(shown), Arc::new(error))
            }
            Fault::NoRoom {
                needed,
                held: NoRoom { held_bytes },
            } => {
                self.0.metrics.refused();
                let full = WeightsFull {
                    needed,
                    held: held_bytes,
                };
                (ErrorKind::Overloaded, false, None, Arc::new(full))
            }
        };
        ExecutorError::ModelLoad {
            model: entry.name.clone(),
            kind,
            permanent,
            reason,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use pentimento_catalog::{ModelKind, Source};
    use pentimento_pipeline::{Device, seeded};
    use pentimento_types::{ManualClock, MemoryBudget, MemoryLedger, MemoryUse};

    use super::*;
    use crate::metrics::LoaderMetrics;
    use crate::{ModelLoader as _, ResolvedModels};

    const WORDS: &[&str] = &["sharp", "focus"];

    fn entry(folder: &Path) -> ModelEntry {
        ModelEntry::new(
            "words",
            ModelKind::PromptEnhancer,
            Source::Path(folder.to_owned()),
        )
    }

    fn golden() -> ModelEntry {
        entry(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/prompt_enhancer/model"))
    }

    fn loader(weights: u64) -> (PipelineLoader, Arc<MemoryLedger>, ManualClock) {
        let ledger = MemoryLedger::new(MemoryBudget {
            weights,
            ..MemoryBudget::UNBOUNDED
        });
        let clock = ManualClock::new(std::time::SystemTime::UNIX_EPOCH);
        let keep = Some(Duration::from_secs(60));
        let loader = PipelineLoader::new(
            Device::Cpu,
            Arc::clone(&ledger),
            Arc::new(clock.clone()),
            (keep, LoaderMetrics::default()),
        );
        (loader, ledger, clock)
    }

    #[test]
    fn a_language_model_is_counted_shared_and_stays_until_its_file_is_replaced() {
        let (loader, ledger, clock) = loader(u64::MAX);
        let held = || ledger.held(MemoryUse::Weights);
        let folder = tempfile::tempdir().unwrap();
        let Source::Path(model) = golden().source else {
            panic!("a folder")
        };
        for file in ["config.json", "vocab.json", "merges.txt", "model.safetensors"] {
            fs_err::copy(model.join(file), folder.path().join(file)).unwrap();
        }
        let entry = entry(folder.path());
        let model = loader.word_model(&entry, WORDS).unwrap();
        let bytes = held();
        assert!(bytes > 100_000, "{bytes}");
        let again = loader.word_model(&entry, WORDS).unwrap();
        assert!(Arc::ptr_eq(&model, &again));
        assert!(loader.resident_models().is_empty(), "it is no checkpoint");
        drop((model, again));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(
            (loader.evict_unused(), loader.evict_idle(), held()),
            (0, 0, bytes)
        );
        let config = folder.path().join("config.json");
        let text = fs_err::read_to_string(&config).unwrap();
        fs_err::write(&config, format!("{text} ")).unwrap();
        drop(loader.word_model(&entry, WORDS).unwrap());
        assert_eq!(held(), 2 * bytes);
        assert_eq!(
            (loader.evict_unused(), held()),
            (bytes, bytes),
            "the old one leaves"
        );
    }

    #[test]
    fn models_in_use_are_in_its_way_until_they_are_let_go() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("tiny");
        seeded::write_checkpoint(seeded::Shape::Tiny, 1, &folder).unwrap();
        let checkpoint = ModelEntry::new("tiny", ModelKind::Checkpoint, Source::Path(folder));
        let models = ResolvedModels::checkpoint(Arc::new(checkpoint));
        let (unbounded, ledger, _) = loader(u64::MAX);
        drop(unbounded.load(&models).unwrap());
        let (loader, ..) = loader(ledger.held(MemoryUse::Weights) + 1000);
        let in_use = loader.load(&models).unwrap();
        let refused = loader.word_model(&golden(), WORDS).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        drop(in_use);
        loader.word_model(&golden(), WORDS).unwrap();
    }

    #[test]
    fn one_that_cannot_be_read_is_refused_without_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (loader, ledger, _) = loader(u64::MAX);
        let refused = loader.word_model(&entry(folder.path()), WORDS).unwrap_err();
        let message = refused.message();
        assert!(message.contains("config.json"), "{message}");
        assert!(
            !message.contains(&folder.path().display().to_string()),
            "{message}"
        );
        assert_eq!(ledger.held(MemoryUse::Weights), 0);
    }
}
