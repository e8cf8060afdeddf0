//! The safety checker that diffusers runs (`StableDiffusionSafetyChecker`), read from the files of a catalogue's entry.
//!
//! It computes on the CPU, whatever the device, with the weights as they are stored and sums in f32.

use candle_core::Device as HostDevice;
use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{ConceptChecker, ConceptCheckerConfig, ConceptScores, Device, LayerSource};
use pentimento_types::RgbImage;
use pentimento_weights::{Checkpoint, Dtypes, WeightsError};

use crate::PipelineError;
use crate::clip_pixels::clip_pixels;

const PART: &str = "safety_checker";
const CONFIG: &str = "safety_checker/config.json";

/// A loaded checker. It holds no state of any picture.
#[derive(Debug)]
pub struct ReferenceSafetyChecker {
    network: ConceptChecker,
    /// Of the pictures that it takes.
    side: u32,
}

impl ReferenceSafetyChecker {
    /// Reads it from the folder of an entry whose files are on this machine.
    ///
    /// # Errors
    /// When a file, tensor or configuration is missing or wrong; the error names it.
    pub fn open(entry: &ModelEntry) -> Result<Self, PipelineError> {
        let name = entry.name.clone();
        let Source::Path(folder) = &entry.source else {
            return Err(PipelineError::UnsupportedSource {
                name,
                reason: "a safety checker is read from local files".to_owned(),
            });
        };
        let weights_error = |source: WeightsError| PipelineError::Weights {
            name: name.clone(),
            source: Box::new(source),
        };
        let files = Checkpoint::safety_checker(folder).map_err(weights_error)?;
        let files = files.preferring(entry.variant.as_deref());
        let config: ConceptCheckerConfig = files.json(CONFIG).map_err(weights_error)?;
        let weights = files.component(PART, Dtypes::Stored, &HostDevice::Cpu);
        let weights = weights.map_err(weights_error)?;
        let network = ConceptChecker::new(&config, LayerSource::new(weights.var_builder(), &Device::Cpu));
        let network = network.map_err(|source| match weights.take_fault() {
            Some(fault) => weights_error(fault),
            None => PipelineError::Part {
                name: name.clone(),
                source: Box::new(source),
            },
        })?;
        weights.finish().map_err(weights_error)?;
        Ok(Self {
            network,
            side: config.vision.image_size as u32,
        })
    }

    /// Bytes that it holds.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.network.size_bytes()
    }

    /// How near a picture of any size is to what it must not show.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn scores(&self, picture: &RgbImage) -> Result<ConceptScores, PipelineError> {
        let pixels = clip_pixels(picture, self.side).map_err(PipelineError::Tensor)?;
        Ok(self.network.scores(&pixels)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use pentimento_catalog::ModelKind;
    use pentimento_testkit::{Golden, golden_dir};
    use pentimento_types::Size;

    use super::*;

    fn entry(folder: PathBuf) -> ModelEntry {
        ModelEntry::new("checker", ModelKind::SafetyChecker, Source::Path(folder))
    }

    #[test]
    fn pictures_are_judged_as_by_diffusers() {
        let checker =
            ReferenceSafetyChecker::open(&entry(golden_dir().join("safety_checker/model"))).unwrap();
        assert!(checker.size_bytes() > 100_000);
        let cases = Golden::open("safety_checker/cases.safetensors");
        let own = Golden::open("safety_checker/model/model.safetensors");
        let thresholds = own.values::<f32>("concept_embeds_weights");
        let cosines = cases.values::<f32>("concepts");
        for index in 0..6 {
            let tensor = cases.tensor(&format!("picture.{index}"));
            let (height, width, _) = tensor.dims3().unwrap();
            let size = Size {
                width: width as u32,
                height: height as u32,
            };
            let pixels = tensor.flatten_all().unwrap().to_vec1().unwrap();
            let found = checker.scores(&RgbImage::new(size, pixels).unwrap()).unwrap();
            assert!(
                found.special.iter().all(|score| *score <= 0.0),
                "no special care: {found:?}"
            );
            // Twice the half of a thousandth by which the score is rounded.
            for (concept, score) in found.concepts.iter().enumerate() {
                let expected = cosines[index * thresholds.len() + concept] - thresholds[concept];
                assert!(
                    (score - expected).abs() < 1e-3,
                    "{index} {concept}: {score} {expected}"
                );
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = ReferenceSafetyChecker::open(&entry(folder.path().to_owned())).unwrap_err();
        assert!(
            pentimento_types::describe_chain(&error).contains("`config.json` of a safety checker"),
            "{error:?}"
        );
        let config = fs_err::read(golden_dir().join("safety_checker/model/config.json")).unwrap();
        fs_err::write(folder.path().join("config.json"), config).unwrap();
        let error = ReferenceSafetyChecker::open(&entry(folder.path().to_owned())).unwrap_err();
        assert!(matches!(error, PipelineError::Weights { .. }), "{error:?}");
    }
}
