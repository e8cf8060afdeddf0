//! Multi-head attention: four projections and the attention between them.

use candle_core::{Result, Tensor};
use pentimento_kernels as kernels;

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

    /// As [`Attention::forward_add`], and what the rows get of `more` is added before the last projection: decoupled
    /// cross-attention (Ye et al., 2023, equation 5). A row without more is computed as if there were none.
    pub(crate) fn forward_add_more(
        &self,
        x: &Tensor,
        kv: &KeyValues,
        more: &[MoreKeyValues],
        residual: &Tensor,
    ) -> Result<Tensor> {
        if more.iter().all(|run| run.kv.is_none()) {
            return self.forward_add(x, kv, residual);
        }
        let q = self.projections.q.forward(x)?;
        let attended = self.attend_with(&q, kv)?;
        let mut parts = Vec::with_capacity(more.len());
        let mut first = 0;
        for run in more {
            let part = attended.narrow(0, first, run.rows)?;
            parts.push(match &run.kv {
                Some(kv) => (self.attend_with(&q.narrow(0, first, run.rows)?, kv)? + part)?,
                None => part,
            });
            first += run.rows;
        }
        self.projections
            .out
            .forward_add(&Tensor::cat(&parts, 0)?, residual)
    }

    fn attend(&self, x: &Tensor, kv: &KeyValues) -> Result<Tensor> {
        self.attend_with(&self.projections.q.forward(x)?, kv)
    }

    fn attend_with(&self, q: &Tensor, kv: &KeyValues) -> Result<Tensor> {
        kernels::attend(q, &kv.k, &kv.v, self.heads, self.mask)
    }

    /// Its layers.
    pub(crate) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        let Projections { q, k, v, out } = &mut self.projections;
        [q, k, v, out].into_iter().for_each(|layer| visit(layer));
    }
}

/// Neighbouring rows of a batch, and what they attend to beside what all rows do.
#[derive(Clone, Debug)]
pub(crate) struct MoreKeyValues {
    /// How many they are.
    pub(crate) rows: usize,
    /// Of as many rows; None is nothing.
    pub(crate) kv: Option<KeyValues>,
}

/// Projections of keys and values without those of queries and of the result: what an IP-Adapter has for each attention.
#[derive(Clone, Debug)]
pub(crate) struct KeyValueProjections {
    pub(crate) k: Linear,
    pub(crate) v: Linear,
}

impl KeyValueProjections {
    /// Keys and values of `x` (B, S, D). What is attended to by them counts `scale` times.
    pub(crate) fn project(&self, x: &Tensor, scale: f32) -> Result<KeyValues> {
        Ok(KeyValues {
            k: self.k.forward(x)?,
            // Softmax does not see the values, so the sum over them may be scaled before it is made.
            v: (self.v.forward(x)? * f64::from(scale))?,
        })
    }

    /// Its layers.
    pub(crate) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.k);
        visit(&mut self.v);
    }
}

/// An attention whose keys and values come of one matrix, the keys first.
#[derive(Clone, Debug)]
pub(crate) struct JoinedAttention {
    pub(crate) q: Linear,
    pub(crate) kv: Linear,
    pub(crate) out: Linear,
    pub(crate) heads: usize,
}

impl JoinedAttention {
    /// `x` (B, T, D) attends to `others` (B, S, D), with `residual` (B, T, D) added.
    pub(crate) fn forward_add(&self, x: &Tensor, others: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let q = self.q.forward(x)?;
        let kv = self.kv.forward(others)?;
        let width = kv.dim(2)? / 2;
        let half = |start: usize| kv.narrow(2, start, width)?.contiguous();
        let mask = kernels::AttnMask::None;
        let y = kernels::attend(&q, &half(0)?, &half(width)?, self.heads, mask)?;
        self.out.forward_add(&y, residual)
    }

    /// Its layers.
    pub(crate) fn walk(&mut self, visit: &mut dyn FnMut(&mut dyn Layer)) {
        visit(&mut self.q);
        visit(&mut self.kv);
        visit(&mut self.out);
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
        let part =
            |of: fn(&Self) -> &Tensor| Tensor::cat(&parts.iter().map(|part| of(part)).collect::<Vec<_>>(), 0);
        Ok(Self {
            k: part(|part| &part.k)?,
            v: part(|part| &part.v)?,
        })
    }

    /// Bytes that they take.
    pub(crate) fn size_bytes(&self) -> u64 {
        let bytes = |x: &Tensor| (x.elem_count() * x.dtype().size_in_bytes()) as u64;
        bytes(&self.k) + bytes(&self.v)
    }
}
