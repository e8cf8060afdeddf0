//! CLIP's text encoder (Radford et al., 2021; transformers `modeling_clip.py`): tokens to hidden states.

use candle_core::{DType, IndexOp, Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels::{Activation, LayerNorm, Linear, Mask, attend, on_pool};

use super::config::{ClipTextConfig, HiddenAct};
use crate::ModelError;
use crate::error::During;
use crate::layers::{layer_norm, linear};

/// The text encoder.
#[derive(Debug)]
pub struct ClipText {
    /// (vocabulary, D)
    tokens: Tensor,
    /// (positions, D)
    positions: Tensor,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
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

    fn load(config: &ClipTextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.hidden_size;
        let embeddings = vb.pp("embeddings");
        let layers = vb.pp("encoder").pp("layers");
        Ok(Self {
            tokens: embeddings.get((config.vocab_size, width), "token_embedding.weight")?,
            positions: embeddings.get(
                (config.max_position_embeddings, width),
                "position_embedding.weight",
            )?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(config, &layers.pp(i)))
                .collect::<Result<_>>()?,
            final_norm: layer_norm(width, config.layer_norm_eps, &vb.pp("final_layer_norm"))?,
            config: config.clone(),
        })
    }

    /// Sizes of this encoder.
    #[must_use]
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Hidden states of `ids` (B, T), u32, T up to 77, to (B, T, D).
    ///
    /// `clip_skip` counts from 1, the last layer; the layers after it are not run, the final norm always is. So 1 is
    /// diffusers' `clip_skip=None` and 2 its `clip_skip=1`.
    ///
    /// # Errors
    /// When `clip_skip` is 0 or beyond the embeddings, or an id is not in the vocabulary.
    pub fn forward(&self, ids: &Tensor, clip_skip: usize) -> std::result::Result<Tensor, ModelError> {
        let most = self.layers.len() + 1;
        if !(1..=most).contains(&clip_skip) {
            return Err(ModelError::ClipSkip {
                found: clip_skip,
                most,
            });
        }
        if ids.rank() != 2 || !(1..=self.config.max_position_embeddings).contains(&ids.dims()[1]) {
            return Err(ModelError::Shape {
                tensor: "token ids",
                found: ids.dims().to_vec(),
                expected: format!("(B, 1 to {})", self.config.max_position_embeddings),
            });
        }
        on_pool(|| self.encode(ids, most - clip_skip)).during("encoding a prompt")
    }

    fn encode(&self, ids: &Tensor, layers: usize) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let mut x = self
            .tokens
            .index_select(&ids.flatten_all()?, 0)?
            .to_dtype(DType::F32)?
            .reshape((b, t, ()))?
            .broadcast_add(&self.positions.i(..t)?.to_dtype(DType::F32)?)?;
        for layer in &self.layers[..layers] {
            x = layer.forward(&x)?;
        }
        self.final_norm.forward(&x)
    }
}

#[derive(Debug)]
struct Layer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
    activation: Activation,
}

impl Layer {
    fn new(config: &ClipTextConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (width, inner, eps) = (
            config.hidden_size,
            config.intermediate_size,
            config.layer_norm_eps,
        );
        let attention = vb.pp("self_attn");
        let mlp = vb.pp("mlp");
        Ok(Self {
            norm1: layer_norm(width, eps, &vb.pp("layer_norm1"))?,
            q: linear(width, width, &attention.pp("q_proj"))?,
            k: linear(width, width, &attention.pp("k_proj"))?,
            v: linear(width, width, &attention.pp("v_proj"))?,
            out: linear(width, width, &attention.pp("out_proj"))?,
            norm2: layer_norm(width, eps, &vb.pp("layer_norm2"))?,
            fc1: linear(width, inner, &mlp.pp("fc1"))?,
            fc2: linear(inner, width, &mlp.pp("fc2"))?,
            heads: config.num_attention_heads,
            activation: match config.hidden_act {
                HiddenAct::QuickGelu => Activation::QuickGelu,
                HiddenAct::Gelu => Activation::Gelu,
            },
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        let project = |layer: &Linear| layer.forward(&y, Activation::None, None);
        let (q, k, v) = (project(&self.q)?, project(&self.k)?, project(&self.v)?);
        let y = attend(&q, &k, &v, self.heads, Mask::Causal)?;
        let x = self.out.forward(&y, Activation::None, Some(x))?;
        let y = self
            .fc1
            .forward(&self.norm2.forward(&x)?, self.activation, None)?;
        self.fc2.forward(&y, Activation::None, Some(&x))
    }
}
