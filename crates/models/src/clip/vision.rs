//! CLIP's image encoder (Radford et al., 2021; transformers `modeling_clip.py`, `CLIPVisionModelWithProjection`): a picture
//! to an embedding, or to the states that the resampler of an IP-Adapter takes.
//!
//! A pass is cut into slices of a few layers, so that none takes longer than an evaluation of a UNet.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::encoder_layer::{EncoderLayer, LayerSizes, run};
use super::vision_config::ClipVisionConfig;
use crate::ModelError;
use crate::error::During;
use crate::layers::{Embedding, Layer, LayerNorm, Linear, PatchEmbedding, on_pool, size_bytes};

/// Layers of a slice. Of the largest encoder that is published, `ViT-bigG/14`, eight take about as long as one row of a
/// UNet of Stable Diffusion 1 on 256 x 256 pixels.
const LAYERS_OF_A_SLICE: usize = 8;

/// What is asked of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VisionOutput {
    /// The class token after the last layer, normed and projected: (B, P).
    Embedding,
    /// All states before the last layer: (B, S, D).
    Penultimate,
}

/// The image encoder.
#[derive(Clone, Debug)]
pub struct ClipVision {
    /// (1, 1, D)
    class_token: Tensor,
    patches: PatchEmbedding,
    positions: Embedding,
    norm_before: LayerNorm,
    layers: Vec<EncoderLayer>,
    norm_after: LayerNorm,
    projection: Linear,
    config: ClipVisionConfig,
}

/// Pictures on their way through the encoder.
#[derive(Debug)]
pub struct VisionPass {
    /// (B, S, D)
    states: Tensor,
    /// The next layer.
    next: usize,
    wanted: VisionOutput,
}

impl ClipVision {
    /// Loads the encoder from `vb`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &ClipVisionConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &vb).during("loading the image encoder")
    }

    fn load(config: &ClipVisionConfig, root: &VarBuilder<'_>) -> Result<Self> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let vb = root.pp("vision_model");
        let embeddings = vb.pp("embeddings");
        let sizes = LayerSizes {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps,
            activation: config.hidden_act,
            is_causal: false,
        };
        let class_token = embeddings.get(width, "class_embedding")?;
        Ok(Self {
            class_token: class_token.to_dtype(DType::F32)?.reshape((1, 1, width))?,
            patches: PatchEmbedding::new(3, width, config.patch_size, &embeddings.pp("patch_embedding"))?,
            positions: Embedding::new(config.tokens(), width, &embeddings.pp("position_embedding"))?,
            // As OpenAI spelt it, and everybody since.
            norm_before: LayerNorm::new(width, eps, &vb.pp("pre_layrnorm"))?,
            layers: EncoderLayer::stack(config.num_hidden_layers, sizes, &vb.pp("encoder").pp("layers"))?,
            norm_after: LayerNorm::new(width, eps, &vb.pp("post_layernorm"))?,
            projection: Linear::without_bias(width, config.projection_dim, &root.pp("visual_projection"))?,
            config: config.clone(),
        })
    }

    /// Sizes of this encoder.
    #[must_use]
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// Bytes that the weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        size_bytes(|visit| self.clone().walk(&mut |layer| visit(layer)))
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.patches);
        visit(&mut self.positions);
        visit(&mut self.norm_before);
        self.layers.iter_mut().for_each(|layer| layer.walk(visit));
        visit(&mut self.norm_after);
        visit(&mut self.projection);
    }

    /// How many times [`Self::advance`] is called for one result.
    #[must_use]
    pub fn slices(&self, wanted: VisionOutput) -> usize {
        self.layers_for(wanted).div_ceil(LAYERS_OF_A_SLICE).max(1)
    }

    fn layers_for(&self, wanted: VisionOutput) -> usize {
        match wanted {
            VisionOutput::Embedding => self.layers.len(),
            VisionOutput::Penultimate => self.layers.len() - 1,
        }
    }

    /// Begins with `pixels` (B, 3, side, side), prepared as CLIP was trained.
    ///
    /// # Errors
    /// When they are of another size than the encoder's.
    pub fn begin(
        &self,
        pixels: &Tensor,
        wanted: VisionOutput,
    ) -> std::result::Result<VisionPass, ModelError> {
        let side = self.config.image_size;
        if !matches!(*pixels.dims(), [b, 3, h, w] if b > 0 && h == side && w == side) {
            return Err(ModelError::Shape {
                tensor: "pixels",
                found: pixels.dims().to_vec(),
                expected: format!("(B, 3, {side}, {side})"),
            });
        }
        let states = on_pool(|| self.embed(pixels)).during("cutting a picture into patches")?;
        Ok(VisionPass {
            states,
            next: 0,
            wanted,
        })
    }

    /// The next layers; the result after the last ones.
    ///
    /// # Errors
    /// When a forward fails, or the pass has ended before.
    pub fn advance(&self, pass: &mut VisionPass) -> std::result::Result<Option<Tensor>, ModelError> {
        let all = self.layers_for(pass.wanted);
        if pass.next > all {
            return Err(ModelError::Spent {
                what: "encoding a picture",
            });
        }
        let end = all.min(pass.next + LAYERS_OF_A_SLICE);
        let encode = || {
            let states = run(&self.layers[pass.next..end], pass.states.clone())?;
            if end < all || pass.wanted == VisionOutput::Penultimate {
                return Ok(states);
            }
            let class = states.narrow(1, 0, 1)?.contiguous()?;
            self.projection
                .forward(&self.norm_after.forward(&class)?)?
                .squeeze(1)
        };
        let states = on_pool(encode).during("encoding a picture")?;
        if end == all {
            pass.next = all + 1;
            return Ok(Some(states));
        }
        (pass.states, pass.next) = (states, end);
        Ok(None)
    }

    /// All slices at once.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Self::advance`].
    pub fn forward(&self, pixels: &Tensor, wanted: VisionOutput) -> std::result::Result<Tensor, ModelError> {
        let mut pass = self.begin(pixels, wanted)?;
        loop {
            if let Some(found) = self.advance(&mut pass)? {
                return Ok(found);
            }
        }
    }

    /// (B, S, D)
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let patches = self.patches.forward(pixels)?;
        let (b, _, width) = patches.dims3()?;
        let class = self.class_token.broadcast_as((b, 1, width))?;
        let tokens = Tensor::cat(&[&class, &patches], 1)?;
        let positions = self.positions.first(self.config.tokens())?;
        self.norm_before
            .forward(&tokens.broadcast_add(&positions)?.contiguous()?)
    }
}
