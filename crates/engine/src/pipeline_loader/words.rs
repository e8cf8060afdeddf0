//! Language models in the pool: found or read as the components of checkpoints are, in the same account.

use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Component, WordModel, WordModelSource};
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
        self.make_room(&wanted)?;
        let counted = self.count(key.expected_bytes(), &wanted);
        let began = self.0.clock.now();
        let read = source.read(words).map_err(Fault::from);
        self.note_load(began, &read);
        let (model, size_bytes) = read?;
        let counted = self.recount(counted, size_bytes, &wanted);
        let model = Arc::new(model);
        let component = Component::PromptEnhancer(Arc::clone(&model));
        self.memory()
            .components
            .insert(key, (component, None), (size_bytes, counted));
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

    use candle_core::Device;
    use pentimento_catalog::{ModelKind, Source};
    use pentimento_types::{ManualClock, MemoryBudget, MemoryLedger, MemoryUse};

    use super::*;
    use crate::ModelLoader as _;

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
        let loader = PipelineLoader::new(Device::Cpu, Arc::clone(&ledger), Arc::new(clock.clone()), keep);
        (loader, ledger, clock)
    }

    #[test]
    fn a_language_model_is_counted_shared_and_leaves_as_the_others_do() {
        let (loader, ledger, clock) = loader(u64::MAX);
        let held = || ledger.held(MemoryUse::Weights);
        let model = loader.word_model(&golden(), WORDS).unwrap();
        let bytes = held();
        assert!(bytes > 100_000, "{bytes}");
        let again = loader.word_model(&golden(), WORDS).unwrap();
        assert!(Arc::ptr_eq(&model, &again));
        assert_eq!((held(), loader.evict_idle()), (bytes, 0), "it is in use");
        assert!(loader.resident_models().is_empty(), "it is no checkpoint");
        drop((model, again));
        // As long as a checkpoint that nobody uses.
        assert_eq!(loader.evict_unused(), 0);
        clock.advance(Duration::from_secs(59));
        assert_eq!((loader.evict_unused(), held()), (0, bytes));
        clock.advance(Duration::from_secs(1));
        assert_eq!((loader.evict_unused(), held()), (bytes, 0));
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
