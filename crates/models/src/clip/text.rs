//! CLIP's text encoder (Radford et al., 2021; transformers `modeling_clip.py`): tokens to hidden states.

use super::config::ClipTextConfig;
use super::encoder_layer::{EncoderLayer, LayerSizes, run};
use crate::ModelError;
use crate::error::During;
use crate::layers::{
    Embedding, HostTensor, InputList, KernelError, Layer, LayerName, LayerNorm, LayerShape, LayerSource,
    Linear, PatchOf, Programs, Result, Tensor, each_spec, on_pool, patch_each, size_bytes,
};

/// What SDXL takes of a text encoder, in main memory.
#[derive(Clone, Debug)]
pub struct RawStates {
    /// Hidden states before the final norm, (B, T, D).
    pub token_states: HostTensor,
    /// The last layer's state at the end token, normed and projected, (B, P); of an encoder with a projection only.
    pub pooled: Option<HostTensor>,
}

/// What the encoder computes, after so many of its layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Computation {
    /// Normed states.
    Normed(usize),
    /// States as they are, and the pooled one after all layers.
    Raw(usize),
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
    programs: Programs<Computation>,
}

impl ClipText {
    /// Loads the encoder from `from`, at the root of its component.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says.
    pub fn new(config: &ClipTextConfig, from: LayerSource<'_>) -> std::result::Result<Self, ModelError> {
        Self::load(config, &from.pp("text_model")).during("loading the text encoder")
    }

    /// As [`ClipText::new`], with the projection that makes the pooled state: transformers'
    /// `CLIPTextModelWithProjection`, the second encoder of SDXL.
    ///
    /// # Errors
    /// As [`ClipText::new`].
    pub fn with_projection(
        config: &ClipTextConfig,
        from: LayerSource<'_>,
    ) -> std::result::Result<Self, ModelError> {
        let load = || -> Result<_> {
            let (width, pooled) = (config.hidden_size, config.projection_dim);
            let projection = Linear::without_bias(width, pooled, &from.pp("text_projection"))?;
            Ok(Self {
                projection: Some(projection),
                ..Self::load(config, &from.pp("text_model"))?
            })
        };
        load().during("loading the text encoder")
    }

    fn load(config: &ClipTextConfig, from: &LayerSource<'_>) -> Result<Self> {
        let width = config.hidden_size;
        let embeddings = from.pp("embeddings");
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
            layers: EncoderLayer::stack(config.num_hidden_layers, sizes, &from.pp("encoder").pp("layers"))?,
            final_norm: LayerNorm::new(width, config.layer_norm_eps, &from.pp("final_layer_norm"))?,
            projection: None,
            config: config.clone(),
            programs: Programs::new(from.device()),
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
    pub fn forward(&self, ids: &HostTensor, clip_skip: usize) -> std::result::Result<HostTensor, ModelError> {
        self.normed(ids, None, clip_skip)
    }

    /// As [`Self::forward`], where the id `vocab_size + k` stands for row k of `vectors` (V, D): textual inversions, whose
    /// tokens no vocabulary has.
    ///
    /// # Errors
    /// As [`Self::forward`], and when the vectors have another width.
    pub fn forward_with(
        &self,
        ids: &HostTensor,
        vectors: &HostTensor,
        clip_skip: usize,
    ) -> std::result::Result<HostTensor, ModelError> {
        self.normed(ids, Some(vectors), clip_skip)
    }

    fn normed(
        &self,
        ids: &HostTensor,
        vectors: Option<&HostTensor>,
        clip_skip: usize,
    ) -> std::result::Result<HostTensor, ModelError> {
        let layers = Self::layers_to_run(clip_skip, self.layers.len() + 1)?;
        self.check(ids, vectors)?;
        let encode = || {
            let mut given = InputList::default();
            let x = given.host(self.embed(ids, vectors)?);
            let states = self
                .programs
                .run_one(Computation::Normed(layers), given, |inputs| {
                    self.final_norm
                        .forward(&run(&self.layers[..layers], inputs.take(x)?)?)
                })?;
            states.into_host()
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
        ids: &HostTensor,
        vectors: Option<&HostTensor>,
        clip_skip: usize,
        end: u32,
    ) -> std::result::Result<RawStates, ModelError> {
        let layers = Self::layers_to_run(clip_skip, self.layers.len())?;
        self.check(ids, vectors)?;
        let encode = || -> Result<_> {
            let (before, after) = self.layers.split_at(layers);
            let mut given = InputList::default();
            let x = given.host(self.embed(ids, vectors)?);
            let projection = match &self.projection {
                Some(projection) => Some((projection, given.index(ends(ids, end)?))),
                None => None,
            };
            let mut results = self.programs.run(Computation::Raw(layers), given, |inputs| {
                let token_states = run(before, inputs.take(x)?)?;
                let Some((projection, ends)) = projection else {
                    return Ok(vec![token_states]);
                };
                let last = run(after, token_states.clone())?;
                let (b, t, d) = last.dims3()?;
                // (B, D)
                let last = last.reshape(&[b * t, d])?.select_rows(&inputs.index(ends)?)?;
                let pooled = projection.forward(&self.final_norm.forward(&last)?)?;
                Ok(vec![pooled, token_states])
            })?;
            let (token_states, pooled) = (results.pop(), results.pop());
            let none = || KernelError::mismatch("a text without states");
            Ok(RawStates {
                token_states: token_states.ok_or_else(none)?.into_host()?,
                pooled: pooled.map(Tensor::into_host).transpose()?,
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

    fn check(&self, ids: &HostTensor, vectors: Option<&HostTensor>) -> std::result::Result<(), ModelError> {
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
    fn embed(&self, ids: &HostTensor, vectors: Option<&HostTensor>) -> Result<HostTensor> {
        let (_, t) = ids.dims2()?;
        let tokens = match vectors {
            Some(vectors) => self.tokens.forward_with(ids, vectors)?,
            None => self.tokens.forward(ids)?,
        };
        Ok(tokens.broadcast_add(&self.positions.first(t)?)?)
    }
}

/// The place of the first `end` of each row of `ids` (B, T) among the tokens of all rows.
fn ends(ids: &HostTensor, end: u32) -> Result<Vec<u32>> {
    let (_, t) = ids.dims2()?;
    let places = ids.to_vec2::<u32>()?.into_iter().enumerate().map(|(row, ids)| {
        let place = ids.iter().position(|id| *id == end);
        let place = place.and_then(|place| u32::try_from(row * t + place).ok());
        place.ok_or_else(|| {
            KernelError::mismatch(format!("row {row} of the token ids has no end token {end}"))
        })
    });
    places.collect()
}
