//! ESRGAN's network of residual dense blocks (`RRDBNet` of BasicSR; Wang et al., 2018 and 2021).
//!
//! The blocks see a whole picture, since each of their convolutions sees one pixel further; what follows them enlarges four times
//! and is computed in strips, whose halo makes them equal to the whole.

use std::ops::Range;

use pentimento_types::{RgbImage, Size};

use super::picture::{
    convolve, enlarged_size, leaky_relu, picture_of, pixel_unshuffle, tensor_of, write_lines,
};
use super::{GoesOn, check};
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    Conv2d, ConvFusion, HostTensor, LayerSource, Result, Stride, Tensor, join_channels, on_pool,
};

/// Lines of the blocks' result around a strip on which it depends: the three convolutions of enlarged pixels see fewer than two.
const HALO: usize = 2;
/// Lines of a strip. At 1024 columns, the widest tensors of one hold 270 MB.
const STRIP: usize = 16;
/// How much of a block's result is added to its input.
const SHARE: f64 = 0.2;

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RrdbConfig {
    /// Blocks of three dense parts.
    pub blocks: usize,
    /// Channels between them.
    pub features: usize,
    /// Channels that each layer of a part adds.
    pub growth: usize,
    /// How many pixels on a side are taken as one: 1, 2 or 4.
    pub unshuffle: usize,
}

/// The network.
#[derive(Debug)]
pub struct RrdbNet {
    config: RrdbConfig,
    first: Conv2d,
    blocks: Vec<[DensePart; 3]>,
    body: Conv2d,
    up: [Conv2d; 2],
    high: Conv2d,
    last: Conv2d,
}

/// Five convolutions, each of which sees the results of all before it.
#[derive(Debug)]
struct DensePart([Conv2d; 5]);

impl RrdbNet {
    /// Reads it from `from`, with BasicSR's names.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: RrdbConfig, from: &LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, from).during("loading the upscaler")
    }

    fn load(config: RrdbConfig, from: &LayerSource<'_>) -> Result<Self> {
        let RrdbConfig {
            blocks,
            features,
            growth,
            unshuffle,
        } = config;
        let conv = |inputs, outputs, from: LayerSource<'_>| Conv2d::new(inputs, outputs, Stride::One, &from);
        let part = |from: LayerSource<'_>| -> Result<DensePart> {
            let layer = |number: usize| {
                let outputs = if number == 4 { features } else { growth };
                conv(
                    features + number * growth,
                    outputs,
                    from.pp(format!("conv{}", number + 1)),
                )
            };
            Ok(DensePart([layer(0)?, layer(1)?, layer(2)?, layer(3)?, layer(4)?]))
        };
        let block = |number: usize| -> Result<[DensePart; 3]> {
            let from = from.pp(format!("body.{number}"));
            Ok([
                part(from.pp("rdb1"))?,
                part(from.pp("rdb2"))?,
                part(from.pp("rdb3"))?,
            ])
        };
        let same = |name: &str| conv(features, features, from.pp(name));
        Ok(Self {
            config,
            first: conv(3 * unshuffle * unshuffle, features, from.pp("conv_first"))?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            body: same("conv_body")?,
            up: [same("conv_up1")?, same("conv_up2")?],
            high: same("conv_hr")?,
            last: conv(features, 3, from.pp("conv_last"))?,
        })
    }

    /// How many times longer a result's sides are.
    #[must_use]
    pub const fn scale(&self) -> usize {
        4 / self.config.unshuffle
    }

    /// Bytes that enlarging a picture of this size takes beside both pictures, about.
    #[must_use]
    pub fn working_bytes(&self, size: Size) -> u64 {
        let RrdbConfig {
            features,
            growth,
            unshuffle,
            ..
        } = self.config;
        let [width, height] =
            [size.width, size.height].map(|side| u64::from(side).div_ceil(unshuffle as u64));
        // What a dense part has seen, before and after it grows, and what stands beside it: both ends of the block and of the part,
        // and a half of its sum.
        let channels = 2 * (features + 4 * growth) + 5 * features;
        let blocks = width * height * channels as u64 * 4;
        // Of a strip, pixels of four times: input and result of a convolution, and both inputs of a maximum.
        let strip = (STRIP + 2 * HALO) as u64 * 16 * width * features as u64 * 4 * 4;
        blocks + strip
    }

    /// The enlarged picture.
    ///
    /// # Errors
    /// When a tensor operation fails, or `goes_on` says no.
    pub fn enlarge(
        &self,
        picture: &RgbImage,
        goes_on: GoesOn<'_>,
    ) -> std::result::Result<RgbImage, ModelError> {
        let enlarged = || {
            let features = self.features(picture, goes_on)?;
            let size = enlarged_size(picture.size(), self.scale());
            let width = size.width as usize;
            let mut pixels = vec![0; width * size.height as usize * 3];
            let height = features.dim(1)?;
            for top in (0..height).step_by(STRIP) {
                check(goes_on)?;
                let strip = top..(top + STRIP).min(height);
                let lines = on_pool(|| self.strip(&features, &strip))?;
                write_lines(&lines, (&mut pixels, width), 4 * top)?;
            }
            picture_of(size, pixels)
        };
        enlarged().during("running the upscaler")
    }

    /// What the blocks make of a picture: (1, h, w, features), each pixel one of `unshuffle` times as many on a side.
    fn features(&self, picture: &RgbImage, goes_on: GoesOn<'_>) -> Result<HostTensor> {
        let x = pixel_unshuffle(&tensor_of(picture, self.config.unshuffle)?, self.config.unshuffle)?;
        let first = on_pool(|| convolve(&self.first, &x.contiguous()?, None))?;
        let mut x = first.clone();
        for parts in &self.blocks {
            check(goes_on)?;
            x = on_pool(|| -> Result<_> {
                let mut deep = x.clone();
                for part in parts {
                    deep = part.forward(&deep)?;
                }
                Ok((&x + (deep * SHARE)?)?)
            })?;
        }
        on_pool(|| {
            let first = Tensor::Host(first);
            let fusion = ConvFusion {
                residual: Some(&first),
                ..ConvFusion::default()
            };
            self.body.forward(&Tensor::Host(x), fusion)?.into_host()
        })
    }

    /// What becomes of some lines of the blocks' result: (1, 4 · lines, 4 · w, 3), about 0..1.
    fn strip(&self, features: &HostTensor, strip: &Range<usize>) -> Result<HostTensor> {
        let (_, height, width, _) = features.dims4()?;
        let (before, after) = (HALO.min(strip.start), HALO.min(height - strip.end));
        let lines = before + strip.len() + after;
        let mut x = features.narrow(1, strip.start - before, lines)?.contiguous()?;
        for (conv, times) in self.up.iter().zip([2, 4]) {
            let size = (times * lines, times * width);
            x = leaky_relu(&convolve(conv, &x, Some(size))?)?;
        }
        let x = leaky_relu(&convolve(&self.high, &x, None)?)?;
        let x = convolve(&self.last, &x, None)?;
        Ok(x.narrow(1, 4 * before, 4 * strip.len())?)
    }
}

impl DensePart {
    fn forward(&self, x: &HostTensor) -> Result<HostTensor> {
        let [.., last] = &self.0;
        let mut seen = x.clone();
        for conv in &self.0[..4] {
            let grown = leaky_relu(&convolve(conv, &seen, None)?)?;
            seen = join_channels(&Tensor::Host(seen), &Tensor::Host(grown))?.into_host()?;
        }
        Ok(((convolve(last, &seen, None)? * SHARE)? + x)?)
    }
}

#[cfg(test)]
mod tests {
    use pentimento_testkit::{Tolerance, assert_close, compare};
    use pentimento_weights::{Component, Dtypes};

    use super::*;
    use crate::layers::{Device, host_tensor};

    /// Strips of any place give what the whole gives: their halo is wide enough.
    #[test]
    fn strips_give_what_the_whole_gives() {
        let weights = Component::seeded(4, Dtypes::Stored, &candle_core::Device::Cpu);
        let source = LayerSource::new(weights.var_builder(), &Device::Cpu);
        let config = RrdbConfig {
            blocks: 1,
            features: 8,
            growth: 4,
            unshuffle: 1,
        };
        let network = RrdbNet::new(config, &source).expect("loads");
        let features = {
            let values = (0..37 * 6 * 8).map(|i| (i as f32 * 0.37).sin());
            host_tensor(values.collect(), &[1, 37, 6, 8]).expect("a tensor")
        };
        let whole = network.strip(&features, &(0..37)).expect("runs");
        for strip in [0..16, 16..32, 32..37, 1..2, 36..37, 5..30] {
            let found = network.strip(&features, &strip).expect("runs");
            let expected = whole.narrow(1, 4 * strip.start, 4 * strip.len()).expect("inside");
            assert_close(
                "strip",
                &found,
                &expected,
                Tolerance {
                    max: 1e-6,
                    mean: 1e-7,
                },
            );
        }
        // With a smaller halo it would not be so.
        let cut = features
            .narrow(1, 16, 16)
            .and_then(|t| t.contiguous())
            .expect("inside");
        let found = network.strip(&cut, &(0..16)).expect("runs");
        let expected = whole.narrow(1, 64, 64).expect("inside");
        assert!(compare(&found, &expected).expect("one shape").max > 1e-3);
    }
}
