//! The layer that both of CLIP's encoders are made of (transformers `modeling_clip.py`, `CLIPEncoderLayer`).

use super::config::HiddenAct;
use crate::layers::{
    Activation, Attention, Layer, LayerNorm, LayerSource, Linear, Projections, Result, Tensor,
};

/// Sizes of every layer of an encoder.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerSizes {
    /// Width D of the hidden states.
    pub(super) width: usize,
    /// Width inside the feed-forward part.
    pub(super) inner: usize,
    pub(super) heads: usize,
    pub(super) eps: f32,
    pub(super) activation: HiddenAct,
    /// A token sees itself and those before it: words, not patches.
    pub(super) is_causal: bool,
}

/// Self-attention and a feed-forward part, each with a norm before it and a residual.
#[derive(Clone, Debug)]
pub(super) struct EncoderLayer {
    norm1: LayerNorm,
    self_attn: Attention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl EncoderLayer {
    /// The layers `<path>.0`, `<path>.1` and so on.
    pub(super) fn stack(count: usize, sizes: LayerSizes, from: &LayerSource<'_>) -> Result<Vec<Self>> {
        (0..count).map(|i| Self::new(sizes, &from.pp(i))).collect()
    }

    fn new(sizes: LayerSizes, from: &LayerSource<'_>) -> Result<Self> {
        let LayerSizes {
            width, inner, eps, ..
        } = sizes;
        let projection = |name: &str| Linear::new(width, width, &from.pp("self_attn").pp(name));
        let projections = Projections {
            q: projection("q_proj")?,
            k: projection("k_proj")?,
            v: projection("v_proj")?,
            out: projection("out_proj")?,
        };
        let activation = match sizes.activation {
            HiddenAct::QuickGelu => Activation::QuickGelu,
            HiddenAct::Gelu => Activation::Gelu,
        };
        let mlp = from.pp("mlp");
        Ok(Self {
            norm1: LayerNorm::new(width, eps, &from.pp("layer_norm1"))?,
            self_attn: if sizes.is_causal {
                Attention::causal(projections, sizes.heads)
            } else {
                Attention::new(projections, sizes.heads)
            },
            norm2: LayerNorm::new(width, eps, &from.pp("layer_norm2"))?,
            fc1: Linear::new(width, inner, &mlp.pp("fc1"))?.with_activation(activation),
            fc2: Linear::new(inner, width, &mlp.pp("fc2"))?,
        })
    }

    /// `x`: (B, T, D). Result: the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(x)?;
        let x = self
            .self_attn
            .forward_add(&y, &self.self_attn.project_kv(&y)?, x)?;
        let y = self.fc1.forward(&self.norm2.forward(&x)?)?;
        self.fc2.forward_add(&y, &x)
    }

    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.norm1);
        self.self_attn.walk(visit);
        visit(&mut self.norm2);
        visit(&mut self.fc1);
        visit(&mut self.fc2);
    }
}

/// `x` (B, T, D) through some of the layers.
pub(super) fn run(layers: &[EncoderLayer], mut x: Tensor) -> Result<Tensor> {
    for layer in layers {
        x = layer.forward(&x)?;
    }
    Ok(x)
}
