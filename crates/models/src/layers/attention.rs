//! Multi-head attention: four projections and the attention between them.

use pentimento_kernels::{self as kernels, Result, Tensor};

use super::linear::Linear;
use super::spec::Layer;

/// The linear layers of an attention. Keys and values may come from tokens of another width than queries.
#[derive(Clone, Debug)]
pub(crate) struct Projections {
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) out: Linear,
}

/// An attention of tokens to themselves or to others.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    projections: Projections,
    heads: usize,
    mask: kernels::AttnMask,
}

impl Attention {
    /// Every query sees all keys.
    pub(crate) fn new(projections: Projections, heads: usize) -> Self {
        Self {
            projections,
            heads,
            mask: kernels::AttnMask::None,
        }
    }

    /// Every query sees the keys up to its own place.
    pub(crate) fn causal(projections: Projections, heads: usize) -> Self {
        Self {
            mask: kernels::AttnMask::Causal,
            ..Self::new(projections, heads)
        }
    }

    /// Keys and values of `x` (B, S, D).
    pub(crate) fn project_kv(&self, x: &Tensor) -> Result<KeyValues> {
        Ok(KeyValues {
            k: self.projections.k.forward(x)?,
            v: self.projections.v.forward(x)?,
        })
    }

    /// Bytes of [`Attention::project_kv`]'s result for one row of `tokens` tokens.
    pub(crate) fn kv_bytes(&self, tokens: usize) -> u64 {
        let width = self.projections.k.outputs() + self.projections.v.outputs();
        (tokens as u64).saturating_mul((width * size_of::<f32>()) as u64)
    }

    /// `x` (B, T, D) attends to `kv`.
    pub(crate) fn forward(&self, x: &Tensor, kv: &KeyValues) -> Result<Tensor> {
        self.projections.out.forward(&self.attend(x, kv)?)
    }

    /// As [`Attention::forward`], with `residual` (B, T, D) added.
    pub(crate) fn forward_add(&self, x: &Tensor, kv: &KeyValues, residual: &Tensor) -> Result<Tensor> {
        self.projections.out.forward_add(&self.attend(x, kv)?, residual)
    }

    fn attend(&self, x: &Tensor, kv: &KeyValues) -> Result<Tensor> {
        let q = self.projections.q.forward(x)?;
        kernels::attend(&q, &kv.k, &kv.v, self.heads, self.mask)
    }

    /// Its layers.
    pub(crate) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        let Projections { q, k, v, out } = &mut self.projections;
        [q, k, v, out].into_iter().for_each(|layer| visit(layer));
    }
}

/// What is attended to, already projected: (B, S, heads · d) each.
#[derive(Clone, Debug)]
pub(crate) struct KeyValues {
    k: Tensor,
    v: Tensor,
}

impl KeyValues {
    /// The rows of all `parts`, one after the other; they have equally many tokens.
    pub(crate) fn cat(parts: &[&Self]) -> Result<Self> {
        if let [only] = parts {
            return Ok((*only).clone());
        }
        let part = |of: fn(&Self) -> &Tensor| {
            Tensor::cat_rows(&parts.iter().map(|part| of(part)).collect::<Vec<_>>())
        };
        Ok(Self {
            k: part(|part| &part.k)?,
            v: part(|part| &part.v)?,
        })
    }

    /// Bytes that they take.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.k.size_bytes() + self.v.size_bytes()
    }
}
