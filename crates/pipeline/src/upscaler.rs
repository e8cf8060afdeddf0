//! Enlarges finished pictures, with the small networks inside the binary or with those of the catalogue. It computes on the CPU,
//! whatever the device.

use candle_core::Device as HostDevice;
use pentimento_catalog::{ModelEntry, Source};
use pentimento_models::{
    CompactConfig, CompactNet, Device, GoesOn, LayerSource, ModelError, ResidualDense, RrdbConfig, RrdbNet,
};
use pentimento_types::{RgbImage, Size};
use pentimento_weights::{Dtypes, ReadProgress, UpscalerAbout, UpscalerFile, WeightsError};

use crate::PipelineError;

/// How many times larger the small networks make the sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpscaleFactor {
    /// Twice.
    Two,
    /// Four times.
    Four,
}

impl UpscaleFactor {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// A loaded upscaler. It holds no state of any picture.
#[derive(Debug)]
pub struct Upscaler {
    network: Network,
}

#[derive(Debug)]
enum Network {
    /// About 2 MB.
    Small(Box<ResidualDense>),
    Rrdb(Box<RrdbNet>),
    Compact(CompactNet),
}

impl Upscaler {
    /// The one inside the binary.
    ///
    /// # Errors
    /// When the binary is damaged.
    pub fn embedded(factor: UpscaleFactor) -> Result<Self, PipelineError> {
        let bytes = match factor {
            UpscaleFactor::Two => pentimento_embedded_nets::ESRGAN_SLIM_X2,
            UpscaleFactor::Four => pentimento_embedded_nets::ESRGAN_SLIM_X4,
        };
        let network = ResidualDense::from_safetensors(bytes, factor.number() as usize)?;
        Ok(Self {
            network: Network::Small(Box::new(network)),
        })
    }

    /// Reads one of Real-ESRGAN's architectures from the file of an entry that is on this machine.
    ///
    /// # Errors
    /// When the file is something else, or a tensor is missing or has another shape; the error names it.
    pub fn open(entry: &ModelEntry) -> Result<Self, PipelineError> {
        let name = || entry.name.clone();
        let Source::Path(path) = &entry.source else {
            return Err(PipelineError::UnsupportedSource {
                name: name(),
                reason: "an upscaler is read from a local file".to_owned(),
            });
        };
        let weights_error = |source: WeightsError| PipelineError::Weights {
            name: name(),
            source: Box::new(source),
        };
        let part_error = |source: ModelError| PipelineError::Part {
            name: name(),
            source: Box::new(source),
        };
        let file = UpscalerFile::open(path, &ReadProgress::default()).map_err(weights_error)?;
        let about = file.about();
        let weights = file.into_component(Dtypes::Stored, &HostDevice::Cpu);
        let weights = weights.map_err(weights_error)?;
        let source = LayerSource::new(weights.var_builder(), &Device::Cpu);
        let network = match about {
            UpscalerAbout::Rrdb {
                blocks,
                features,
                growth,
                unshuffle,
            } => {
                let config = RrdbConfig {
                    blocks,
                    features,
                    growth,
                    unshuffle,
                };
                RrdbNet::new(config, &source).map(|network| Network::Rrdb(Box::new(network)))
            }
            UpscalerAbout::Compact {
                layers,
                features,
                scale,
            } => {
                let config = CompactConfig {
                    layers,
                    features,
                    scale,
                };
                CompactNet::new(config, &source).map(Network::Compact)
            }
        };
        let network = network.map_err(|error| match weights.take_fault() {
            Some(fault) => weights_error(fault),
            None => part_error(error),
        })?;
        weights.finish().map_err(weights_error)?;
        Ok(Self { network })
    }

    /// How many times longer a result's sides are.
    #[must_use]
    pub fn scale(&self) -> u32 {
        let scale = match &self.network {
            Network::Small(network) => network.scale(),
            Network::Rrdb(network) => network.scale(),
            Network::Compact(network) => network.scale(),
        };
        scale as u32
    }

    /// Bytes that enlarging a picture of this size takes beside both pictures, about.
    #[must_use]
    pub fn working_bytes(&self, size: Size) -> u64 {
        match &self.network {
            // In tiles.
            Network::Small(_) => 100 << 20,
            Network::Rrdb(network) => network.working_bytes(size),
            Network::Compact(network) => network.working_bytes(size),
        }
    }

    /// The enlarged picture. `goes_on` is asked between two pieces of the work, which ends with an error where it says no.
    ///
    /// # Errors
    /// When a tensor operation fails, and where nobody waits any more.
    pub fn enlarge(&self, picture: &RgbImage, goes_on: GoesOn<'_>) -> Result<RgbImage, PipelineError> {
        Ok(match &self.network {
            Network::Small(network) => network.enlarge(picture, goes_on)?,
            Network::Rrdb(network) => network.enlarge(picture, goes_on)?,
            Network::Compact(network) => network.enlarge(picture, goes_on)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use pentimento_catalog::ModelKind;
    use pentimento_testkit::{Golden, compare_values, golden_dir};

    use super::*;

    fn entry(file: &str) -> ModelEntry {
        let path = golden_dir().join(file);
        ModelEntry::new("upscaler", ModelKind::Upscaler, Source::Path(path))
    }

    /// By spandrel. Its numbers are rounded here as ours are.
    #[test]
    fn enlarged_pictures_are_the_references() {
        let golden = Golden::open("upscalers/cases.safetensors");
        let (height, width, _) = golden.tensor("picture").dims3().unwrap();
        let size = Size {
            width: width as u32,
            height: height as u32,
        };
        let picture = RgbImage::new(size, golden.values("picture")).unwrap();
        for (name, scale) in [("x4", 4), ("x2", 2), ("compact", 4)] {
            let upscaler = Upscaler::open(&entry(&format!("upscalers/{name}.pth"))).unwrap();
            assert_eq!(upscaler.scale(), scale);
            assert!(upscaler.working_bytes(size) > size.rgb_bytes());
            let found = upscaler.enlarge(&picture, &|| true).unwrap();
            assert_eq!(found.size().width, size.width * scale);
            assert!(upscaler.enlarge(&picture, &|| false).is_err(), "nobody waits");
            let found: Vec<f32> = found.pixels().iter().copied().map(f32::from).collect();
            let expected: Vec<f32> = golden.values(name);
            let expected: Vec<f32> = expected
                .iter()
                .map(|value| (value * 255.0).round().clamp(0.0, 255.0))
                .collect();
            let difference = compare_values(&found, &expected).unwrap();
            assert!(
                difference.max <= 1.0 && difference.mean < 1e-3,
                "{name}: {difference:?}"
            );
        }
    }

    #[test]
    fn what_is_no_upscaler_is_refused_by_name() {
        let error = Upscaler::open(&entry("lora/kohya.safetensors")).unwrap_err();
        let text = pentimento_types::describe_chain(&error);
        assert!(text.contains("LoRA") || text.contains("upscaler"), "{text}");
    }
}
