//! A catalogue's entry of a prompt enhancer → the component that it is → the language model.

use candle_core::Device as HostDevice;
use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{DeviceLocation, Gpt2, Gpt2Config, Gpt2Tokenizer, ModelError};
use pentimento_weights::{Checkpoint, Dtypes, WeightsError};

use crate::PipelineError;
use crate::component::{ComponentKey, ComponentRole, PatchSet};
use crate::word_model::WordModel;

const PART: &str = "prompt_enhancer";
const CONFIG: &str = "prompt_enhancer/config.json";
const VOCABULARY: &str = "prompt_enhancer/vocab.json";
const MERGES: &str = "prompt_enhancer/merges.txt";

/// Where one comes from: it can be told apart from others before it is read.
#[derive(Debug)]
pub struct WordModelSource {
    name: String,
    files: Checkpoint,
}

impl WordModelSource {
    /// Finds the files of an entry that are on this machine. No weights are read yet.
    ///
    /// # Errors
    /// When there is no configuration.
    pub fn open(entry: &ModelEntry) -> Result<Self, PipelineError> {
        let name = entry.name.clone();
        let Source::Path(folder) = &entry.source else {
            return Err(PipelineError::UnsupportedSource {
                name,
                reason: "a prompt enhancer is read from local files".to_owned(),
            });
        };
        match Checkpoint::prompt_enhancer(folder) {
            Ok(files) => Ok(Self {
                name,
                files: files.preferring(entry.variant.as_deref()),
            }),
            Err(source) => Err(PipelineError::Weights {
                name,
                source: Box::new(source),
            }),
        }
    }

    /// Which component it is; another one when a file is replaced.
    ///
    /// # Errors
    /// When a file cannot be looked at, or there are no weights.
    pub fn key(&self) -> Result<ComponentKey, PipelineError> {
        let files = self.files.component_identity(PART, &[CONFIG, VOCABULARY, MERGES]);
        Ok(ComponentKey {
            role: ComponentRole::PromptEnhancer,
            files: files.map_err(|source| self.weights(source))?,
            patches: PatchSet::default(),
            dtypes: Dtypes::Stored,
            device: DeviceLocation::Cpu,
        })
    }

    /// Reads it, with its size in bytes. Listed words that are no token of its vocabulary are never said.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn read(&self, words: &[&str]) -> Result<(WordModel, u64), PipelineError> {
        let part = |source| PipelineError::Part {
            name: self.name.clone(),
            source: Box::new(source),
        };
        let config: Gpt2Config = self.files.json(CONFIG).map_err(|source| self.weights(source))?;
        let file = |path: &str| self.files.read(path).map_err(|source| self.weights(source));
        let tokenizer = Gpt2Tokenizer::from_files(&file(VOCABULARY)?, &file(MERGES)?).map_err(part)?;
        let weights = self.files.component(PART, Dtypes::Stored, &HostDevice::Cpu);
        let weights = weights.map_err(|source| self.weights(source))?;
        let network = Gpt2::new(&config, &weights.var_builder());
        let network = network.map_err(|source| match weights.take_fault() {
            Some(fault) => self.weights(fault),
            None => part(source),
        })?;
        // Older files have the masks of the attentions beside the weights.
        weights.finish_partly().map_err(|source| self.weights(source))?;
        if tokenizer
            .largest_id()
            .is_none_or(|id| id as usize >= config.vocab_size)
        {
            let detail = format!(
                "it has ids that the network, of {} tokens, has not",
                config.vocab_size
            );
            return Err(part(ModelError::TokenizerFile {
                file: "vocab.json",
                detail,
            }));
        }
        let comma = tokenizer.id_of(",").ok_or_else(|| {
            part(ModelError::TokenizerFile {
                file: "vocab.json",
                detail: "it has no comma".to_owned(),
            })
        })?;
        let listed = words.iter().filter_map(|word| {
            let id = tokenizer.id_of(&format!(" {word}"))?;
            Some((id, word.to_lowercase()))
        });
        let listed = listed.collect();
        let size_bytes = network.size_bytes();
        let model = WordModel {
            network,
            tokenizer,
            listed,
            comma,
        };
        Ok((model, size_bytes))
    }

    fn weights(&self, source: WeightsError) -> PipelineError {
        PipelineError::Weights {
            name: self.name.clone(),
            source: Box::new(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use pentimento_catalog::ModelKind;
    use pentimento_testkit::{Golden, golden_dir};

    use super::*;

    fn open(words: &[&str]) -> WordModel {
        let folder = golden_dir().join("prompt_enhancer/model");
        let entry = ModelEntry::new("tiny", ModelKind::PromptEnhancer, Source::Path(folder));
        let source = WordModelSource::open(&entry).unwrap();
        let key = source.key().unwrap();
        assert_eq!(key.role(), ComponentRole::PromptEnhancer);
        let (model, size_bytes) = source.read(words).unwrap();
        assert!(
            (100_000..key.expected_bytes()).contains(&size_bytes),
            "{size_bytes}"
        );
        model
    }

    #[test]
    fn prompts_go_on_as_in_the_reference() {
        let golden = Golden::open("prompt_enhancer/cases.safetensors");
        let listed: Vec<String> = serde_json::from_value(golden.about()["listed"].clone()).unwrap();
        let listed: Vec<&str> = listed.iter().map(String::as_str).collect();
        let model = open(&listed);
        for (index, prompt) in golden.about()["prompts"].as_array().unwrap().iter().enumerate() {
            let prompt = prompt.as_str().unwrap();
            let expected = golden.values::<i64>(&format!("chosen.{index}"));
            let found = model.chosen(prompt, 12).unwrap();
            assert_eq!(
                found.iter().map(|id| i64::from(*id)).collect::<Vec<_>>(),
                expected,
                "{prompt}"
            );
            let phrases = model.phrases(prompt, 12).unwrap();
            let words: Vec<&str> = phrases.iter().flat_map(|phrase| phrase.split(' ')).collect();
            assert!(words.iter().all(|word| listed.contains(word)), "{phrases:?}");
            assert!(words.iter().all(|word| !prompt.contains(word)), "{phrases:?}");
            assert!(
                phrases.iter().all(|phrase| phrase.split(' ').count() <= 3),
                "{phrases:?}"
            );
        }
    }

    #[test]
    fn nothing_is_said_without_words_and_long_texts_are_shown_by_their_end() {
        assert_eq!(
            open(&["unheard"]).phrases("a house", 12).unwrap(),
            Vec::<String>::new()
        );
        let model = open(&["sharp", "focus"]);
        assert_eq!(model.phrases("", 12).unwrap(), Vec::<String>::new());
        assert_eq!(model.phrases("a house", 0).unwrap(), Vec::<String>::new());
        let end = "red house ".repeat(40);
        let long = format!("{}{end}", "a dog ".repeat(4000));
        assert_eq!(
            model.phrases(&long, 12).unwrap(),
            model.phrases(&end, 12).unwrap()
        );
        // More than there are places.
        assert!(!model.phrases("a house", 200).unwrap().is_empty());
    }
}
