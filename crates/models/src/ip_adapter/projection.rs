//! From what the image encoder gives to tokens: diffusers' `ImageProjection` and `IPAdapterPlusImageProjection`
//! (`models/embeddings.py`), the second of which is the perceiver resampler of Flamingo (Alayrac et al., 2022).

use super::config::{ImageProjectionConfig, IpAdapterConfig};
use crate::layers::{
    Activation, HostTensor, JoinedAttention, KernelError, Layer, LayerNorm, LayerSource, Linear, Result,
    Tensor, to_f32,
};

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
    /// The queries at the start, (1, N, hidden), in main memory.
    latents: HostTensor,
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
    pub(super) fn new(config: &IpAdapterConfig, from: &LayerSource<'_>) -> Result<Self> {
        let ImageProjectionConfig::Linear { embedding } = config.projection else {
            return Resampler::new(config, from).map(Self::Resampler);
        };
        Ok(Self::Linear {
            proj: Linear::new(embedding, config.tokens * config.width, &from.pp("proj"))?,
            norm: LayerNorm::new(config.width, EPS, &from.pp("norm"))?,
        })
    }

    /// The queries that [`Self::forward`] takes for `rows` pictures, (B, N, hidden); None where there are none.
    pub(super) fn queries(&self, rows: usize) -> Result<Option<HostTensor>> {
        match self {
            Self::Linear { .. } => Ok(None),
            Self::Resampler(resampler) => resampler.queries(rows).map(Some),
        }
    }

    /// (B, N, D)
    pub(super) fn forward(
        &self,
        seen: &Tensor,
        queries: Option<Tensor>,
        config: &IpAdapterConfig,
    ) -> Result<Tensor> {
        match self {
            Self::Linear { proj, norm } => {
                let tokens = proj.forward(seen)?;
                let tokens = tokens.reshape(&[seen.rows(), config.tokens, config.width])?;
                norm.forward(&tokens)
            }
            Self::Resampler(resampler) => {
                let queries = queries.ok_or_else(|| KernelError::mismatch("a resampler without queries"))?;
                resampler.forward(seen, queries)
            }
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
    fn new(config: &IpAdapterConfig, from: &LayerSource<'_>) -> Result<Self> {
        let ImageProjectionConfig::Resampler {
            states,
            hidden,
            heads,
            depth,
            inner,
        } = config.projection
        else {
            return Err(KernelError::mismatch("an adapter without a resampler"));
        };
        let layer = |i: usize| ResamplerLayer::new((hidden, heads, inner), &from.pp("layers").pp(i));
        let latents = from.get(&[1, config.tokens, hidden], "latents")?;
        Ok(Self {
            latents: to_f32(&latents)?,
            proj_in: Linear::new(states, hidden, &from.pp("proj_in"))?,
            layers: (0..depth).map(layer).collect::<Result<_>>()?,
            proj_out: Linear::new(hidden, config.width, &from.pp("proj_out"))?,
            norm_out: LayerNorm::new(config.width, EPS, &from.pp("norm_out"))?,
        })
    }

    /// The same queries for each of `rows` pictures, (B, N, hidden).
    fn queries(&self, rows: usize) -> Result<HostTensor> {
        let (_, count, hidden) = self.latents.dims3()?;
        Ok(self.latents.broadcast_as((rows, count, hidden))?.contiguous()?)
    }

    /// `states`: (B, S, states), `latents`: [`Self::queries`]. Result: (B, N, D).
    fn forward(&self, states: &Tensor, mut latents: Tensor) -> Result<Tensor> {
        let states = self.proj_in.forward(states)?;
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
    fn new((hidden, heads, inner): (usize, usize, usize), from: &LayerSource<'_>) -> Result<Self> {
        let (attn, mlp) = (from.pp(0), from.pp(1));
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
        let others = states.cat_tokens(&queries)?;
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
