//! The reference safety checker (diffusers `safety_checker.py`, `StableDiffusionSafetyChecker`): CLIP's image encoder, and
//! the concepts to which a picture must not be near.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ModelError;
use crate::clip::{ClipVision, ClipVisionConfig, VisionOutput};
use crate::layers::{HostTensor, LayerSource};
use crate::safety_concepts::{ConceptScores, SafetyConcepts};

/// The checker's `config.json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawConfig")]
pub struct ConceptCheckerConfig {
    /// Sizes of the image encoder.
    pub vision: ClipVisionConfig,
}

#[derive(Deserialize)]
struct RawConfig {
    vision_config: Map<String, Value>,
    /// transformers' CLIPConfig.
    #[serde(default = "projection_dim")]
    projection_dim: usize,
}

fn projection_dim() -> usize {
    512
}

impl TryFrom<RawConfig> for ConceptCheckerConfig {
    type Error = serde_json::Error;

    fn try_from(raw: RawConfig) -> Result<Self, serde_json::Error> {
        let mut vision = raw.vision_config;
        // The projection is the checker's; what the encoder's part says of one is not used, and published files are wrong there.
        vision.insert("projection_dim".to_owned(), raw.projection_dim.into());
        let vision = serde_json::from_value(Value::Object(vision))?;
        Ok(Self { vision })
    }
}

/// The image encoder and the concepts.
#[derive(Clone, Debug)]
pub struct ConceptChecker {
    encoder: ClipVision,
    concepts: SafetyConcepts,
}

impl ConceptChecker {
    /// Loads the checker from `from`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &ConceptCheckerConfig, from: LayerSource<'_>) -> Result<Self, ModelError> {
        let concepts = SafetyConcepts::new(config.vision.projection_dim, &from)?;
        // The encoder is a model inside of the checker: its names have the part twice.
        let inside = from.rename_f(|name| match name.strip_prefix("vision_model.") {
            Some(_) => format!("vision_model.{name}"),
            None => name.to_owned(),
        });
        Ok(Self {
            encoder: ClipVision::new(&config.vision, inside)?,
            concepts,
        })
    }

    /// Bytes that the weights of the encoder hold; the concepts are small.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.encoder.size_bytes()
    }

    /// The scores of a picture `pixels` (1, 3, side, side), prepared as CLIP was trained.
    ///
    /// # Errors
    /// When the shape does not fit, or a forward fails.
    pub fn scores(&self, pixels: &HostTensor) -> Result<ConceptScores, ModelError> {
        let embedding = self.encoder.forward(pixels, VisionOutput::Embedding)?;
        self.concepts.scores(&embedding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Device;
    use pentimento_testkit::{Golden, Tolerance, assert_close};

    fn checker() -> ConceptChecker {
        let config = include_str!("../../../tests/golden/safety_checker/model/config.json");
        let config: ConceptCheckerConfig = serde_json::from_str(config).expect("can be read");
        assert_eq!(config.vision.projection_dim, 24, "the checker's own");
        let weights = Golden::open("safety_checker/model/model.safetensors");
        let named = |name: &str| (name.to_owned(), weights.tensor(name).clone());
        let tensors = weights.names().into_iter().map(named).collect();
        let source = LayerSource::from_tensors(tensors, &Device::Cpu);
        ConceptChecker::new(&config, source).expect("loads")
    }

    #[test]
    fn embeddings_and_scores_are_the_references() {
        let (checker, cases) = (checker(), Golden::open("safety_checker/cases.safetensors"));
        let pixels = cases.tensor("pixels");
        let found = checker
            .encoder
            .forward(pixels, VisionOutput::Embedding)
            .expect("runs");
        // Sums of 32 products of numbers about one, where the text encoder's are about a fifth.
        assert_close(
            "embeddings",
            &found,
            cases.tensor("embeddings"),
            Tolerance::CLIP_EMBEDDING,
        );
        // The model's own thresholds are those of the first picture, without special care.
        let first = pixels.narrow(0, 0, 1).expect("a row");
        let scores = checker.scores(&first).expect("runs");
        let bad: Vec<u8> = scores
            .concepts
            .iter()
            .map(|score| u8::from(*score > 0.0))
            .collect();
        assert_eq!(bad, cases.values::<u8>("plain.0.bad"));
        assert!(scores.is_unsafe());
    }

    #[test]
    fn a_config_that_is_none_is_refused() {
        for text in [
            "{}",
            r#"{"vision_config": 7}"#,
            r#"{"vision_config": {"image_size": "x"}}"#,
        ] {
            assert!(
                serde_json::from_str::<ConceptCheckerConfig>(text).is_err(),
                "{text}"
            );
        }
    }
}
