//! The compact network of Real-ESRGAN (`SRVGGNetCompact`): plain convolutions with slopes of their own, whose result is added to
//! the picture, enlarged by its nearest pixels.

use pentimento_types::{RgbImage, Size};

use super::picture::{convolve, enlarged_size, picture_of, pixel_shuffle, tensor_of, write_lines};
use super::{GoesOn, check};
use crate::ModelError;
use crate::error::During;
use crate::layers::{Conv2d, HostTensor, LayerSource, Result, Stride, on_pool, to_f32};

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactConfig {
    /// Convolutions from features to features.
    pub layers: usize,
    /// Channels between them.
    pub features: usize,
    /// How many times longer the sides become.
    pub scale: usize,
}

/// The network.
#[derive(Debug)]
pub struct CompactNet {
    config: CompactConfig,
    /// Each with the slopes (features) of its negative results.
    layers: Vec<(Conv2d, HostTensor)>,
    last: Conv2d,
}

impl CompactNet {
    /// Reads it from `from`, with Real-ESRGAN's names: `body.0`, `body.1` and so on.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(config: CompactConfig, from: &LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, from).during("loading the upscaler")
    }

    fn load(config: CompactConfig, from: &LayerSource<'_>) -> Result<Self> {
        let CompactConfig {
            layers,
            features,
            scale,
        } = config;
        let conv = |number: usize, inputs, outputs| {
            Conv2d::new(inputs, outputs, Stride::One, &from.pp(format!("body.{number}")))
        };
        let layer = |number: usize| {
            let inputs = if number == 0 { 3 } else { features };
            let slopes = from.get(&[features], &format!("body.{}.weight", 2 * number + 1))?;
            Ok((conv(2 * number, inputs, features)?, to_f32(&slopes)?))
        };
        Ok(Self {
            config,
            layers: (0..=layers).map(layer).collect::<Result<_>>()?,
            last: conv(2 * (layers + 1), features, 3 * scale * scale)?,
        })
    }

    /// How many times longer a result's sides are.
    #[must_use]
    pub const fn scale(&self) -> usize {
        self.config.scale
    }

    /// Bytes that enlarging a picture of this size takes beside both pictures, about.
    #[must_use]
    pub fn working_bytes(&self, size: Size) -> u64 {
        let CompactConfig { features, scale, .. } = self.config;
        // Input and result of a convolution and three of a slope, or both ends of the shuffle.
        let channels = (5 * features).max(4 * 3 * scale * scale);
        size.pixels() * channels as u64 * 4
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
            let size = enlarged_size(picture.size(), self.config.scale);
            let lines = on_pool(|| self.forward(&tensor_of(picture, 1)?, goes_on))?;
            let mut pixels = vec![0; (size.rgb_bytes()) as usize];
            write_lines(&lines, (&mut pixels, size.width as usize), 0)?;
            picture_of(size, pixels)
        };
        enlarged().during("running the upscaler")
    }

    /// `x`: (1, h, w, 3) in 0..1. Result: (1, h·scale, w·scale, 3), about 0..1.
    fn forward(&self, x: &HostTensor, goes_on: GoesOn<'_>) -> Result<HostTensor> {
        let mut deep = x.clone();
        for (conv, slopes) in &self.layers {
            check(goes_on)?;
            let made = convolve(conv, &deep, None)?;
            let above = made.relu()?;
            deep = ((made - &above)?.broadcast_mul(slopes)? + above)?;
        }
        let scale = self.config.scale;
        let made = convolve(&self.last, &deep, None)?;
        let (_, h, w, _) = x.dims4()?;
        // Each pixel `scale` times in both directions.
        let nearest = x.reshape((h, 1, w, 1, 3))?;
        let nearest = nearest.broadcast_as((h, scale, w, scale, 3))?;
        Ok((pixel_shuffle(&made, scale)? + nearest.reshape((1, h * scale, w * scale, 3))?)?)
    }
}
