//! Multi-head attention: four projections and the attention between them.

use pentimento_kernels::{self as kernels, InputList, Inputs, Result, Tensor, TensorPlace};

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

    /// The attention for `count` rows from row `first` on of those that are `of` in all.
    pub(crate) fn of_rows(&self, first: usize, count: usize, of: usize) -> Result<Self> {
        let Projections { q, k, v, out } = &self.projections;
        let projections = Projections {
            q: q.of_rows(first, count, of)?,
            k: k.of_rows(first, count, of)?,
            v: v.of_rows(first, count, of)?,
            out: out.of_rows(first, count, of)?,
        };
        Ok(Self { projections, ..*self })
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
        (tokens as u64).saturating_mul((width * self.projections.k.number_bytes()) as u64)
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
            let part = attended.narrow_rows(first, run.rows)?;
            parts.push(match &run.kv {
                Some(kv) => {
                    let q = q.narrow_rows(first, run.rows)?;
                    self.attend_with(&q, kv)?.add(&part)?
                }
                None => part,
            });
            first += run.rows;
        }
        let attended = Tensor::cat_rows(&parts.iter().collect::<Vec<_>>())?;
        self.projections.out.forward_add(&attended, residual)
    }

    fn attend(&self, x: &Tensor, kv: &KeyValues) -> Result<Tensor> {
        self.attend_with(&self.projections.q.forward(x)?, kv)
    }

    fn attend_with(&self, q: &Tensor, kv: &KeyValues) -> Result<Tensor> {
        let precision = self.projections.out.precision();
        kernels::attend((q, &kv.k, &kv.v), self.heads, self.mask, precision)
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
    /// Keys and values of `x` (B, S, D). What is attended to by them counts `scale` times: softmax does not see the values, so the sum
    /// over them may be scaled before it is made, and so may what they are a linear function of. `scaled` is that, `x` times
    /// `scale`, where a program of a GPU is given it, which must not have a scale written into it.
    pub(crate) fn project(&self, x: &Tensor, scaled: Option<&Tensor>, scale: f32) -> Result<KeyValues> {
        let v = match scaled {
            Some(scaled) => self.v.forward(scaled)?,
            None => self.v.forward(x)?.affine(f64::from(scale), 0.0)?,
        };
        Ok(KeyValues {
            k: self.k.forward(x)?,
            v,
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
        let (_, _, both) = kv.dims3()?;
        let width = both / 2;
        let half = |start: usize| kv.columns(start, width);
        let mask = kernels::AttnMask::None;
        let y = kernels::attend(
            (&q, &half(0)?, &half(width)?),
            self.heads,
            mask,
            self.out.precision(),
        )?;
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
    /// Both, as results of a computation; [`KeyValues::from_results`] puts them together again.
    pub(crate) fn into_results(self) -> [Tensor; 2] {
        [self.k, self.v]
    }

    /// Those of several layers.
    pub(crate) fn from_results(results: Vec<Tensor>) -> Vec<Self> {
        let mut results = results.into_iter();
        let pairs = std::iter::from_fn(|| results.next().zip(results.next()));
        pairs.map(|(k, v)| Self { k, v }).collect()
    }

    /// Gives the rows of all `parts`, one after the other, to a computation; they have equally many tokens.
    pub(crate) fn give<'a>(parts: &[&'a Self], given: &mut InputList<'a>) -> KvPlaces {
        KvPlaces {
            k: given.rows(parts.iter().map(|part| &part.k).collect()),
            v: given.rows(parts.iter().map(|part| &part.v).collect()),
        }
    }

    /// Bytes that they take.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.k.size_bytes() + self.v.size_bytes()
    }
}

/// Where a computation finds keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvPlaces {
    k: TensorPlace,
    v: TensorPlace,
}

impl KvPlaces {
    /// Those of all rows.
    pub(crate) fn get(self, inputs: &Inputs<'_>) -> Result<KeyValues> {
        Ok(KeyValues {
            k: inputs.get(self.k)?,
            v: inputs.get(self.v)?,
        })
    }
}
