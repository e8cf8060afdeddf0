//! From what the image encoder gives to tokens: diffusers' `ImageProjection` and `IPAdapterPlusImageProjection`
//! (`models/embeddings.py`), the second of which is the perceiver resampler of Flamingo (Alayrac et al., 2022).

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{ImageProjectionConfig, IpAdapterConfig};
use crate::layers::{Activation, JoinedAttention, Layer, LayerNorm, Linear};

/// PyTorch's default, which no file says.
const EPS: f32 = 1e-5;

/// Either of them.
#[derive(Clone, Debug)]
pub(super) enum Projection {
    Linear { proj: Linear, norm: LayerNorm },
    Resampler(Resampler),
}

/// Queries that attend to the states of a picture and to themselves, layer by layer.
#[derive(Clone, Debug)]
pub(super) struct Resampler {
    /// The queries at the start, (1, N, hidden).
    latents: Tensor,
    proj_in: Linear,
    layers: Vec<ResamplerLayer>,
    proj_out: Linear,
    norm_out: LayerNorm,
}

#[derive(Clone, Debug)]
struct ResamplerLayer {
    /// Of the states.
    norm1: LayerNorm,
    /// Of the queries.
    norm2: LayerNorm,
    attn: JoinedAttention,
    norm3: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Projection {
    pub(super) fn new(config: &IpAdapterConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let ImageProjectionConfig::Linear { embedding } = config.projection else {
            return Resampler::new(config, vb).map(Self::Resampler);
        };
        Ok(Self::Linear {
            proj: Linear::new(embedding, config.tokens * config.width, &vb.pp("proj"))?,
            norm: LayerNorm::new(config.width, EPS, &vb.pp("norm"))?,
        })
    }

    /// (B, N, D)
    pub(super) fn forward(&self, seen: &Tensor, config: &IpAdapterConfig) -> Result<Tensor> {
        match self {
            Self::Linear { proj, norm } => {
                let b = seen.dim(0)?;
                let tokens = proj.forward(seen)?.reshape((b, config.tokens, config.width))?;
                norm.forward(&tokens)
            }
            Self::Resampler(resampler) => resampler.forward(seen),
        }
    }

    pub(super) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        match self {
            Self::Linear { proj, norm } => {
                visit(proj);
                visit(norm);
            }
            Self::Resampler(resampler) => resampler.walk(visit),
        }
    }
}

impl Resampler {
    fn new(config: &IpAdapterConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let ImageProjectionConfig::Resampler {
            states,
            hidden,
            heads,
            depth,
            inner,
        } = config.projection
        else {
            candle_core::bail!("an adapter without a resampler")
        };
        let layer = |i: usize| ResamplerLayer::new((hidden, heads, inner), &vb.pp("layers").pp(i));
        let latents = vb.get((1, config.tokens, hidden), "latents")?;
        Ok(Self {
            latents: latents.to_dtype(DType::F32)?,
            proj_in: Linear::new(states, hidden, &vb.pp("proj_in"))?,
            layers: (0..depth).map(layer).collect::<Result<_>>()?,
            proj_out: Linear::new(hidden, config.width, &vb.pp("proj_out"))?,
            norm_out: LayerNorm::new(config.width, EPS, &vb.pp("norm_out"))?,
        })
    }

    /// `states`: (B, S, states). Result: (B, N, D).
    fn forward(&self, states: &Tensor) -> Result<Tensor> {
        let states = self.proj_in.forward(states)?;
        let (_, count, hidden) = self.latents.dims3()?;
        let rows = (states.dim(0)?, count, hidden);
        let mut latents = self.latents.broadcast_as(rows)?.contiguous()?;
        for layer in &self.layers {
            latents = layer.forward(&states, &latents)?;
        }
        self.norm_out.forward(&self.proj_out.forward(&latents)?)
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.proj_in);
        self.layers.iter_mut().for_each(|layer| layer.walk(visit));
        visit(&mut self.proj_out);
        visit(&mut self.norm_out);
    }
}

impl ResamplerLayer {
    fn new((hidden, heads, inner): (usize, usize, usize), vb: &VarBuilder<'_>) -> Result<Self> {
        let (attn, mlp) = (vb.pp(0), vb.pp(1));
        let width = heads * ImageProjectionConfig::HEAD_WIDTH;
        Ok(Self {
            norm1: LayerNorm::new(hidden, EPS, &attn.pp("norm1"))?,
            norm2: LayerNorm::new(hidden, EPS, &attn.pp("norm2"))?,
            attn: JoinedAttention {
                q: Linear::without_bias(hidden, width, &attn.pp("to_q"))?,
                kv: Linear::without_bias(hidden, 2 * width, &attn.pp("to_kv"))?,
                out: Linear::without_bias(width, hidden, &attn.pp("to_out"))?,
                heads,
            },
            norm3: LayerNorm::new(hidden, EPS, &mlp.pp(0))?,
            fc1: Linear::without_bias(hidden, inner, &mlp.pp(1))?.with_activation(Activation::Gelu),
            fc2: Linear::without_bias(inner, hidden, &mlp.pp(3))?,
        })
    }

    /// `states` (B, S, hidden), `latents` (B, N, hidden). Result: the shape of the latents.
    fn forward(&self, states: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let states = self.norm1.forward(states)?;
        let queries = self.norm2.forward(latents)?;
        let others = Tensor::cat(&[&states, &queries], 1)?;
        let latents = self.attn.forward_add(&queries, &others, latents)?;
        let y = self.fc1.forward(&self.norm3.forward(&latents)?)?;
        self.fc2.forward_add(&y, &latents)
    }

    fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.norm1);
        visit(&mut self.norm2);
        self.attn.walk(visit);
        visit(&mut self.norm3);
        visit(&mut self.fc1);
        visit(&mut self.fc2);
    }
}
