//! CLIP's text encoder (Radford et al., 2021; transformers `modeling_clip.py`): tokens to hidden states.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::ClipTextConfig;
use super::encoder_layer::{EncoderLayer, LayerSizes, run};
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    Embedding, Layer, LayerName, LayerNorm, LayerShape, Linear, PatchOf, each_spec, on_pool, patch_each,
    size_bytes,
};

/// What SDXL takes of a text encoder.
#[derive(Clone, Debug)]
pub struct RawStates {
    /// Hidden states before the final norm, (B, T, D).
    pub token_states: Tensor,
    /// The last layer's state at the end token, normed and projected, (B, P); of an encoder with a projection only.
    pub pooled: Option<Tensor>,
}

/// The text encoder.
#[derive(Clone, Debug)]
pub struct ClipText {
    tokens: Embedding,
    positions: Embedding,
    layers: Vec<EncoderLayer>,
    final_norm: LayerNorm,
    /// From the state at the end token to the pooled one.
    projection: Option<Linear>,
    config: ClipTextConfig,
}

impl ClipText {
    /// Loads the encoder from `vb`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &ClipTextConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &vb.pp("text_model")).during("loading the text encoder")
    }

    /// As [`ClipText::new`], with the projection that makes the pooled state: transformers'
    /// `CLIPTextModelWithProjection`, the second encoder of SDXL.
    ///
    /// # Errors
    /// As [`ClipText::new`].
    pub fn with_projection(
        config: &ClipTextConfig,
        vb: VarBuilder<'_>,
    ) -> std::result::Result<Self, ModelError> {
        let load = || {
            let (width, pooled) = (config.hidden_size, config.projection_dim);
            let projection = Linear::without_bias(width, pooled, &vb.pp("text_projection"))?;
            Ok(Self {
                projection: Some(projection),
                ..Self::load(config, &vb.pp("text_model"))?
            })
        };
        load().during("loading the text encoder")
    }

    fn load(config: &ClipTextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.hidden_size;
        let embeddings = vb.pp("embeddings");
        let sizes = LayerSizes {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            activation: config.hidden_act,
            is_causal: true,
        };
        Ok(Self {
            tokens: Embedding::new(config.vocab_size, width, &embeddings.pp("token_embedding"))?,
            positions: Embedding::new(
                config.max_position_embeddings,
                width,
                &embeddings.pp("position_embedding"),
            )?,
            layers: EncoderLayer::stack(config.num_hidden_layers, sizes, &vb.pp("encoder").pp("layers"))?,
            final_norm: LayerNorm::new(width, config.layer_norm_eps, &vb.pp("final_layer_norm"))?,
            projection: None,
            config: config.clone(),
        })
    }

    /// Sizes of this encoder.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Width P of the pooled state, if there is one.
    #[must_use]
    pub fn pooled_width(&self) -> Option<usize> {
        self.projection.as_ref().map(Linear::outputs)
    }

    /// Calls `visit` with every layer of the checkpoint, in the order in which they run.
    pub fn layers(&self, visit: &mut dyn FnMut(&LayerName, LayerShape)) {
        // A copy shares all weights, and there is one walk for looking and for changing.
        each_spec(|visit| self.clone().walk(&mut |layer| visit(layer)), visit);
    }

    /// Bytes that the weights hold.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        size_bytes(|visit| self.clone().walk(&mut |layer| visit(layer)))
    }

    /// A copy in which the layers that `change` answers for are others; all others are shared with this network, which stays
    /// as it is. Also the bytes that the copy holds beyond what is shared.
    ///
    /// # Errors
    /// What `change` fails with; when a patch does not fit its layer, or the layer has been changed before.
    pub fn patched<E: From<ModelError>>(
        &self,
        change: &mut PatchOf<'_, E>,
    ) -> std::result::Result<(Self, u64), E> {
        let mut copy = self.clone();
        let bytes = patch_each(|visit| copy.walk(visit), change)?;
        Ok((copy, bytes))
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.tokens);
        visit(&mut self.positions);
        self.layers.iter_mut().for_each(|layer| layer.walk(visit));
        visit(&mut self.final_norm);
        if let Some(projection) = &mut self.projection {
            visit(projection);
        }
    }

    /// Hidden states of `ids` (B, T), u32, T up to 77, to (B, T, D).
    ///
    /// `clip_skip` counts from 1, the last layer; the layers after it are not run, the final norm always is. So 1 is
    /// diffusers' `clip_skip=None` and 2 its `clip_skip=1`.
    ///
    /// # Errors
    /// When `clip_skip` is 0 or beyond the embeddings, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &Tensor, clip_skip: usize) -> std::result::Result<Tensor, ModelError> {
        self.normed(ids, None, clip_skip)
    }

    /// As [`Self::forward`], where the id `vocab_size + k` stands for row k of `vectors` (V, D): textual inversions, whose
    /// tokens no vocabulary has.
    ///
    /// # Errors
    /// As [`Self::forward`], and when the vectors have another width.
    pub fn forward_with(
        &self,
        ids: &Tensor,
        vectors: &Tensor,
        clip_skip: usize,
    ) -> std::result::Result<Tensor, ModelError> {
        self.normed(ids, Some(vectors), clip_skip)
    }

    fn normed(
        &self,
        ids: &Tensor,
        vectors: Option<&Tensor>,
        clip_skip: usize,
    ) -> std::result::Result<Tensor, ModelError> {
        let layers = Self::layers_to_run(clip_skip, self.layers.len() + 1)?;
        self.check(ids, vectors)?;
        let encode = || {
            let states = run(&self.layers[..layers], self.embed(ids, vectors)?)?;
            self.final_norm.forward(&states)
        };
        on_pool(encode).during("encoding a prompt")
    }

    /// What SDXL takes of `ids` (B, T), u32, T up to 77, each row with the end token `end` in it; `vectors` as in
    /// [`Self::forward_with`].
    ///
    /// `clip_skip` counts from 1, the last layer but one, since SDXL was trained on that; so 1 is diffusers'
    /// `clip_skip=None` and 2 its `clip_skip=1`. The pooled state is the last layer's whatever is skipped.
    ///
    /// # Errors
    /// When `clip_skip` is 0 or beyond the embeddings, an id is not in the vocabulary, or a row has no end token.
    pub fn forward_raw(
        &self,
        ids: &Tensor,
        vectors: Option<&Tensor>,
        clip_skip: usize,
        end: u32,
    ) -> std::result::Result<RawStates, ModelError> {
        let layers = Self::layers_to_run(clip_skip, self.layers.len())?;
        self.check(ids, vectors)?;
        let encode = || {
            let (before, after) = self.layers.split_at(layers);
            let token_states = run(before, self.embed(ids, vectors)?)?;
            let Some(projection) = &self.projection else {
                return Ok(RawStates {
                    token_states,
                    pooled: None,
                });
            };
            let last = run(after, token_states.clone())?;
            let pooled = projection.forward(&self.final_norm.forward(&at_end(&last, ids, end)?)?)?;
            Ok(RawStates {
                token_states,
                pooled: Some(pooled),
            })
        };
        on_pool(encode).during("encoding a prompt")
    }

    /// How many layers run for `clip_skip`, which may be at most `most`.
    fn layers_to_run(clip_skip: usize, most: usize) -> std::result::Result<usize, ModelError> {
        if (1..=most).contains(&clip_skip) {
            return Ok(most - clip_skip);
        }
        Err(ModelError::ClipSkip {
            found: clip_skip,
            most,
        })
    }

    fn check(&self, ids: &Tensor, vectors: Option<&Tensor>) -> std::result::Result<(), ModelError> {
        let width = self.config.hidden_size;
        if let Some(vectors) = vectors
            && !matches!(*vectors.dims(), [_, found] if found == width)
        {
            return Err(ModelError::Shape {
                tensor: "vectors",
                found: vectors.dims().to_vec(),
                expected: format!("(V, {width})"),
            });
        }
        if ids.rank() == 2 && (1..=self.config.max_position_embeddings).contains(&ids.dims()[1]) {
            return Ok(());
        }
        Err(ModelError::Shape {
            tensor: "token ids",
            found: ids.dims().to_vec(),
            expected: format!("(B, 1 to {})", self.config.max_position_embeddings),
        })
    }

    /// (B, T, D)
    fn embed(&self, ids: &Tensor, vectors: Option<&Tensor>) -> Result<Tensor> {
        let (_, t) = ids.dims2()?;
        let tokens = match vectors {
            Some(vectors) => self.tokens.forward_with(ids, vectors)?,
            None => self.tokens.forward(ids)?,
        };
        tokens.broadcast_add(&self.positions.first(t)?)
    }
}

/// The states (B, T, D) at the first `end` of each row of `ids` (B, T): (B, D).
fn at_end(states: &Tensor, ids: &Tensor, end: u32) -> Result<Tensor> {
    let rows = ids.to_vec2::<u32>()?.into_iter().enumerate().map(|(row, ids)| {
        let Some(place) = ids.iter().position(|id| *id == end) else {
            candle_core::bail!("row {row} of the token ids has no end token {end}")
        };
        states.narrow(0, row, 1)?.narrow(1, place, 1)?.squeeze(1)
    });
    Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?.contiguous()
}
