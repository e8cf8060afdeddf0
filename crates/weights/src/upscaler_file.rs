//! Files of networks that enlarge pictures, in the two architectures of Real-ESRGAN (Wang et al., 2021): residual dense blocks
//! in ESRGAN's old and new names, and the compact one.
//!
//! Which one it is, and how large, is found from the shapes of its tensors: no file says it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;

use crate::container::{StoredTensor, TensorFile};
use crate::kind::UPSCALER_GROUPS;
use crate::{Component, Dtypes, ReadProgress, WeightsError, kind};

/// The most blocks or layers; those that are published have 23 and 32.
const MOST_BLOCKS: usize = 128;
/// The most channels of any layer; those that are published have 64.
const MOST_CHANNELS: usize = 1024;
/// What the shapes of an upscaler's tensors say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpscalerAbout {
    /// `RRDBNet` of BasicSR.
    Rrdb {
        /// Blocks of three dense parts.
        blocks: usize,
        /// Channels between them.
        features: usize,
        /// Channels that each layer of a part adds.
        growth: usize,
        /// How many pixels on a side are taken as one: 1, 2 or 4.
        unshuffle: usize,
    },
    /// `SRVGGNetCompact` of Real-ESRGAN.
    Compact {
        /// Convolutions from features to features.
        layers: usize,
        /// Channels between them.
        features: usize,
        /// How many times longer the sides become.
        scale: usize,
    },
}

impl UpscalerAbout {
    /// How many times longer the sides become.
    #[must_use]
    pub const fn scale(&self) -> usize {
        match self {
            Self::Rrdb { unshuffle, .. } => 4 / *unshuffle,
            Self::Compact { scale, .. } => *scale,
        }
    }
}

/// An opened upscaler: names and shapes are known, and no number has been read.
#[derive(Debug)]
pub struct UpscalerFile {
    file: TensorFile,
    about: UpscalerAbout,
}

impl UpscalerFile {
    /// Opens safetensors or a pickle.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, is something else, which is named, or an upscaler of another architecture.
    pub fn open(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        let file = TensorFile::open(path, progress)?;
        let file = file.with_tensors(renamed(file.tensors()), progress);
        let about = about_renamed(&file)?;
        Ok(Self { file, about })
    }

    /// What it is.
    #[must_use]
    pub const fn about(&self) -> UpscalerAbout {
        self.about
    }

    /// Its tensors, under the names that BasicSR gives them.
    ///
    /// # Errors
    /// As [`Component`]'s.
    pub fn into_component(self, dtypes: Dtypes, device: &Device) -> Result<Component, WeightsError> {
        Component::from_files(vec![self.file], dtypes, device)
    }
}

/// What the shapes say.
pub(crate) fn about(file: &TensorFile) -> Result<UpscalerAbout, WeightsError> {
    about_renamed(&file.with_tensors(renamed(file.tensors()), &ReadProgress::default()))
}

/// The tensors of the first group that has any, with the new names.
fn renamed(tensors: &BTreeMap<String, StoredTensor>) -> BTreeMap<String, StoredTensor> {
    let group = UPSCALER_GROUPS
        .iter()
        .find(|group| tensors.keys().any(|name| name.starts_with(**group)));
    let group = group.copied().unwrap_or_default();
    let named = tensors.iter().filter_map(|(name, stored)| {
        let name = name.strip_prefix(group)?;
        Some((new_name(name).unwrap_or_else(|| name.to_owned()), stored.clone()))
    });
    named.collect()
}

/// ESRGAN's first names, numbers of a sequence, in those of BasicSR. Only what enlarges four times has these numbers.
fn new_name(old: &str) -> Option<String> {
    let rest = old.strip_prefix("model.")?;
    let (number, part) = rest.split_once('.')?;
    let plain = |name: &str| Some(format!("{name}.{part}"));
    match number {
        "0" => plain("conv_first"),
        "3" => plain("conv_up1"),
        "6" => plain("conv_up2"),
        "8" => plain("conv_hr"),
        "10" => plain("conv_last"),
        "1" => {
            let mut words = part.strip_prefix("sub.")?.split('.');
            let (block, next) = (words.next()?, words.next()?);
            let Some(dense) = next.strip_prefix("RDB") else {
                return Some(format!("conv_body.{next}"));
            };
            let (conv, _zero, what) = (words.next()?, words.next()?, words.next()?);
            Some(format!("body.{block}.rdb{dense}.{conv}.{what}"))
        }
        _ => None,
    }
}

fn about_renamed(file: &TensorFile) -> Result<UpscalerAbout, WeightsError> {
    let tensors = file.tensors();
    let wrong = |detail: String| WeightsError::NotAModel {
        file: file.name().to_owned(),
        detail: format!("no upscaler that can be used: {detail}"),
    };
    let shape = |name: &str| -> Result<[usize; 2], WeightsError> {
        let stored = tensors
            .get(name)
            .ok_or_else(|| wrong(format!("`{name}` is missing")))?;
        match *stored.shape.as_slice() {
            [outputs, inputs, 3, 3] if outputs.max(inputs) <= MOST_CHANNELS && outputs.min(inputs) > 0 => {
                Ok([outputs, inputs])
            }
            _ => Err(wrong(format!("`{name}` has shape {:?}", stored.shape))),
        }
    };
    let blocks = |name: &dyn Fn(usize) -> String| {
        (0..)
            .take_while(|number| tensors.contains_key(&name(*number)))
            .count()
    };
    if tensors.contains_key("conv_first.weight") {
        let [features, inputs] = shape("conv_first.weight")?;
        let [growth, _] = shape("body.0.rdb1.conv1.weight")?;
        let [colours, _] = shape("conv_last.weight")?;
        let blocks = blocks(&|number| format!("body.{number}.rdb1.conv1.weight"));
        let unshuffle = match inputs {
            3 => 1,
            12 => 2,
            48 => 4,
            other => {
                return Err(wrong(format!(
                    "it takes {other} channels, and 3, 12 or 48 are expected"
                )));
            }
        };
        // Others do not enlarge four times inside.
        for name in ["conv_up1.weight", "conv_up2.weight", "conv_hr.weight"] {
            shape(name)?;
        }
        if colours != 3 || blocks > MOST_BLOCKS {
            return Err(wrong(format!(
                "it has {blocks} blocks and gives {colours} channels"
            )));
        }
        return Ok(UpscalerAbout::Rrdb {
            blocks,
            features,
            growth,
            unshuffle,
        });
    }
    if !kind::is_upscaler(file) {
        return Err(WeightsError::OtherKind {
            file: file.name().to_owned(),
            found: kind::named(file)
                .unwrap_or("a file without a tensor of an upscaler")
                .to_owned(),
            wanted: "an upscaler",
        });
    }
    let [features, inputs] = shape("body.0.weight")?;
    let count = blocks(&|number| format!("body.{number}.weight"));
    let [outputs, _] = shape(&format!("body.{}.weight", count.saturating_sub(1)))?;
    let scale = [1, 2, 3, 4]
        .into_iter()
        .find(|scale| 3 * scale * scale == outputs);
    // First and last convolution, and a slope after each but the last.
    let (Some(scale), 3, true) = (
        scale,
        inputs,
        count >= 3 && count % 2 == 1 && count <= 2 * MOST_BLOCKS,
    ) else {
        return Err(wrong(format!(
            "it has {count} layers from {inputs} to {outputs} channels"
        )));
    };
    Ok(UpscalerAbout::Compact {
        layers: (count - 3) / 2,
        features,
        scale,
    })
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::golden_dir;

    use super::*;
    use crate::{WeightsKind, kind_of};

    #[test]
    fn what_an_upscaler_is_is_found_from_its_shapes() {
        let rrdb = |unshuffle| UpscalerAbout::Rrdb {
            blocks: 1,
            features: 8,
            growth: 32,
            unshuffle,
        };
        let compact = UpscalerAbout::Compact {
            layers: 2,
            features: 8,
            scale: 4,
        };
        for (name, expected, scale) in [("x4", rrdb(1), 4), ("x2", rrdb(2), 2), ("compact", compact, 4)] {
            let path = golden_dir().join(format!("upscalers/{name}.pth"));
            let found = UpscalerFile::open(&path, &ReadProgress::default()).unwrap();
            assert_eq!(
                (found.about(), found.about().scale()),
                (expected, scale),
                "{name}"
            );
            assert_eq!(
                kind_of(&path).unwrap().kind,
                WeightsKind::Upscaler(Some(expected))
            );
        }
        let other = golden_dir().join("lora/kohya.safetensors");
        let error = UpscalerFile::open(&other, &ReadProgress::default()).unwrap_err();
        assert!(error.to_string().contains("upscaler"), "{error}");
    }

    #[test]
    fn the_first_names_are_those_of_today() {
        for (old, new) in [
            ("model.0.weight", "conv_first.weight"),
            ("model.1.sub.0.RDB1.conv1.0.weight", "body.0.rdb1.conv1.weight"),
            ("model.1.sub.22.RDB3.conv5.0.bias", "body.22.rdb3.conv5.bias"),
            ("model.1.sub.23.bias", "conv_body.bias"),
            ("model.3.weight", "conv_up1.weight"),
            ("model.6.weight", "conv_up2.weight"),
            ("model.8.bias", "conv_hr.bias"),
            ("model.10.bias", "conv_last.bias"),
        ] {
            assert_eq!(new_name(old).as_deref(), Some(new));
        }
        for other in [
            "conv_first.weight",
            "model.2.weight",
            "model.1.sub",
            "model",
            "body.0.weight",
        ] {
            assert_eq!(new_name(other), None, "{other}");
        }
    }
}
