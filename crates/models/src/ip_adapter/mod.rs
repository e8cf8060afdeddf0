//! IP-Adapters (Ye et al., 2023, arXiv 2308.06721; diffusers `loaders/unet.py`): a picture as a prompt beside the text.
//!
//! The picture becomes a few tokens, and each cross-attention of the UNet gets keys and values for them of its own. The UNet
//! stays as it is. Names are those of the published files (<https://github.com/tencent-ailab/IP-Adapter>).

mod config;
mod projection;

pub use self::config::{ImageProjectionConfig, IpAdapterConfig};

use self::projection::Projection;
use crate::error::During;
use crate::layers::{
    Device, HostTensor, InputList, KeyValueProjections, KeyValues, Layer, LayerSource, Linear, Programs,
    Result, on_pool, size_bytes,
};
use crate::{ModelError, UNetConfig, VisionOutput};

/// What an adapter computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Computation {
    /// What the image encoder gives to tokens.
    Tokens,
    /// Tokens, and the same times a scale, to keys and values.
    Project,
}

/// An adapter for UNets of one shape.
#[derive(Clone, Debug)]
pub struct IpAdapter {
    projection: Projection,
    /// One for each cross-attention, in the order in which those run.
    layers: Vec<KeyValueProjections>,
    config: IpAdapterConfig,
    programs: Programs<Computation>,
}

impl IpAdapter {
    /// Loads the adapter from `from`, at the root of its file, for UNets of this shape.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` and `unet` say.
    pub fn new(
        config: &IpAdapterConfig,
        unet: &UNetConfig,
        from: LayerSource<'_>,
    ) -> std::result::Result<Self, ModelError> {
        Self::load(config, unet, &from).during("loading the IP-Adapter")
    }

    fn load(config: &IpAdapterConfig, unet: &UNetConfig, from: &LayerSource<'_>) -> Result<Self> {
        let layers = unet.ip_adapter_layers().into_iter().map(|(number, width)| {
            let from = from.pp("ip_adapter").pp(number);
            Ok(KeyValueProjections {
                k: Linear::without_bias(config.width, width, &from.pp("to_k_ip"))?,
                v: Linear::without_bias(config.width, width, &from.pp("to_v_ip"))?,
            })
        });
        Ok(Self {
            projection: Projection::new(config, &from.pp("image_proj"))?,
            layers: layers.collect::<Result<_>>()?,
            config: *config,
            programs: Programs::new(from.device()),
        })
    }

    /// Sizes of this adapter.
    #[must_use]
    pub const fn config(&self) -> &IpAdapterConfig {
        &self.config
    }

    /// What it takes of the image encoder.
    #[must_use]
    pub const fn takes(&self) -> VisionOutput {
        match self.config.projection {
            ImageProjectionConfig::Linear { .. } => VisionOutput::Embedding,
            ImageProjectionConfig::Resampler { .. } => VisionOutput::Penultimate,
        }
    }

    /// Bytes that the weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        size_bytes(|visit| self.clone().walk(&mut |layer| visit(layer)))
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        self.projection.walk(visit);
        self.layers.iter_mut().for_each(|layer| layer.walk(visit));
    }

    /// The tokens (B, N, D), in main memory, of what the image encoder has seen, which is [`Self::takes`]: (B, P) or (B, S, states).
    ///
    /// # Errors
    /// When it is of another encoder's width.
    pub fn tokens(&self, seen: &HostTensor) -> std::result::Result<HostTensor, ModelError> {
        let (fits, expected) = match self.config.projection {
            ImageProjectionConfig::Linear { embedding } => (
                matches!(*seen.dims(), [_, width] if width == embedding),
                format!("(B, {embedding})"),
            ),
            ImageProjectionConfig::Resampler { states, .. } => (
                matches!(*seen.dims(), [_, _, width] if width == states),
                format!("(B, S, {states})"),
            ),
        };
        if !fits {
            return Err(ModelError::Shape {
                tensor: "what the image encoder gives",
                found: seen.dims().to_vec(),
                expected,
            });
        }
        let tokens = || {
            let mut given = InputList::default();
            let rows = seen.dims().first().copied().unwrap_or(0);
            let queries = self.projection.queries(rows)?.map(|queries| given.host(queries));
            let seen = given.host(seen.clone());
            let tokens = self.programs.run_one(Computation::Tokens, given, |inputs| {
                let queries = queries.map(|queries| inputs.take(queries)).transpose()?;
                self.projection
                    .forward(&inputs.take(seen)?, queries, &self.config)
            })?;
            tokens.into_host()
        };
        on_pool(tokens).during("turning a picture into tokens")
    }

    /// How many cross-attentions it is for.
    pub(crate) fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Keys and values of `tokens` (1, N, D), in main memory, for every cross-attention, in the order in which those run.
    pub(crate) fn project(&self, tokens: &HostTensor, scale: f32) -> Result<Vec<KeyValues>> {
        let mut given = InputList::default();
        // An input on a GPU, so that all scales are one program.
        let scaled = match self.programs.device() {
            Device::Cpu | Device::CpuInBf16 => None,
            Device::Gpu(_) => Some(given.host(tokens.affine(f64::from(scale), 0.0)?)),
        };
        let tokens = given.host(tokens.clone());
        let results = self.programs.run(Computation::Project, given, |inputs| {
            let tokens = inputs.take(tokens)?;
            let scaled = scaled.map(|scaled| inputs.take(scaled)).transpose()?;
            let mut results = Vec::with_capacity(2 * self.layers.len());
            for layer in &self.layers {
                results.extend(layer.project(&tokens, scaled.as_ref(), scale)?.into_results());
            }
            Ok(results)
        })?;
        Ok(KeyValues::from_results(results))
    }
}
