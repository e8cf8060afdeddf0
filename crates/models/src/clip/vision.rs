//! CLIP's image encoder (Radford et al., 2021; transformers `modeling_clip.py`, `CLIPVisionModelWithProjection`): a picture
//! to an embedding, or to the states that the resampler of an IP-Adapter takes.
//!
//! A pass is cut into slices of a few layers, so that none takes longer than an evaluation of a UNet.

use super::encoder_layer::{EncoderLayer, LayerSizes, run};
use super::vision_config::ClipVisionConfig;
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    Embedding, HostTensor, InputList, Layer, LayerNorm, LayerSource, Linear, PatchEmbedding, Programs,
    Result, Tensor, on_pool, size_bytes, to_f32,
};

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

/// What the encoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Computation {
    /// Squares of pixels to tokens.
    Patches,
    /// The norm before all layers.
    Norm,
    /// The layers from one on, up to another, and what is wanted after the last.
    Layers(usize, usize, VisionOutput),
}

/// The image encoder.
#[derive(Clone, Debug)]
pub struct ClipVision {
    /// (1, 1, D), in main memory.
    class_token: HostTensor,
    patches: PatchEmbedding,
    positions: Embedding,
    norm_before: LayerNorm,
    layers: Vec<EncoderLayer>,
    norm_after: LayerNorm,
    projection: Linear,
    config: ClipVisionConfig,
    programs: Programs<Computation>,
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
    /// Loads the encoder from `from`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &ClipVisionConfig, from: LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &from).during("loading the image encoder")
    }

    fn load(config: &ClipVisionConfig, root: &LayerSource<'_>) -> Result<Self> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let from = root.pp("vision_model");
        let embeddings = from.pp("embeddings");
        let sizes = LayerSizes {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps,
            activation: config.hidden_act,
            is_causal: false,
        };
        let class_token = to_f32(&embeddings.get(&[width], "class_embedding")?)?;
        Ok(Self {
            class_token: class_token.reshape((1, 1, width))?,
            patches: PatchEmbedding::new(3, width, config.patch_size, &embeddings.pp("patch_embedding"))?,
            positions: Embedding::new(config.tokens(), width, &embeddings.pp("position_embedding"))?,
            // As OpenAI spelt it, and everybody since.
            norm_before: LayerNorm::new(width, eps, &from.pp("pre_layrnorm"))?,
            layers: EncoderLayer::stack(config.num_hidden_layers, sizes, &from.pp("encoder").pp("layers"))?,
            norm_after: LayerNorm::new(width, eps, &from.pp("post_layernorm"))?,
            projection: Linear::without_bias(width, config.projection_dim, &root.pp("visual_projection"))?,
            config: config.clone(),
            programs: Programs::new(root.device()),
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

    /// Begins with `pixels` (B, 3, side, side) in main memory, prepared as CLIP was trained.
    ///
    /// # Errors
    /// When they are of another size than the encoder's.
    pub fn begin(
        &self,
        pixels: &HostTensor,
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

    /// The next layers; the result, in main memory, after the last ones.
    ///
    /// # Errors
    /// When a forward fails, or the pass has ended before.
    pub fn advance(&self, pass: &mut VisionPass) -> std::result::Result<Option<HostTensor>, ModelError> {
        let all = self.layers_for(pass.wanted);
        if pass.next > all {
            return Err(ModelError::Spent {
                what: "encoding a picture",
            });
        }
        let end = all.min(pass.next + LAYERS_OF_A_SLICE);
        let encode = || -> Result<_> {
            let (rows, tokens, width) = pass.states.dims3()?;
            let mut given = InputList::default();
            let states = given.tensor(pass.states.clone());
            // The first token of each row.
            let first = given.index((0_u32..).step_by(tokens).take(rows).collect());
            let key = Computation::Layers(pass.next, end, pass.wanted);
            self.programs.run_one(key, given, |inputs| {
                let states = run(&self.layers[pass.next..end], inputs.take(states)?)?;
                if end < all || pass.wanted == VisionOutput::Penultimate {
                    return Ok(states);
                }
                let class = states.reshape(&[rows * tokens, width])?;
                let class = class.select_rows(&inputs.index(first)?)?;
                self.projection.forward(&self.norm_after.forward(&class)?)
            })
        };
        let states = on_pool(encode).during("encoding a picture")?;
        if end == all {
            pass.next = all + 1;
            return states.into_host().map(Some).during("encoding a picture");
        }
        (pass.states, pass.next) = (states, end);
        Ok(None)
    }

    /// All slices at once.
    ///
    /// # Errors
    /// As [`Self::begin`] and [`Self::advance`].
    pub fn forward(
        &self,
        pixels: &HostTensor,
        wanted: VisionOutput,
    ) -> std::result::Result<HostTensor, ModelError> {
        let mut pass = self.begin(pixels, wanted)?;
        loop {
            if let Some(found) = self.advance(&mut pass)? {
                return Ok(found);
            }
        }
    }

    /// (B, S, D)
    fn embed(&self, pixels: &HostTensor) -> Result<Tensor> {
        let mut given = InputList::default();
        let squares = given.host(self.patches.squares(pixels)?);
        let patches = self.programs.run_one(Computation::Patches, given, |inputs| {
            self.patches.forward(&inputs.take(squares)?)
        })?;
        let patches = patches.into_host()?;
        let (b, _, width) = patches.dims3()?;
        let class = self.class_token.broadcast_as((b, 1, width))?;
        let tokens = HostTensor::cat(&[&class, &patches], 1)?;
        let positions = self.positions.first(self.config.tokens())?;
        let tokens = tokens.broadcast_add(&positions)?.contiguous()?;
        let mut given = InputList::default();
        let tokens = given.host(tokens);
        self.programs.run_one(Computation::Norm, given, |inputs| {
            self.norm_before.forward(&inputs.take(tokens)?)
        })
    }
}
