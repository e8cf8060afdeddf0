//! Scaled dot-product attention without the matrix of scores: softmax is carried along from block to block of keys
//! (Milakov and Gimelshein, 2018; Dao et al., 2022), so memory grows with the number of tokens and not with its square.

mod block;
mod operands;
mod pairs;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use self::block::{DEPTH, Operands, QUERIES, QueryBlock, room, strip};
use self::operands::{Heads, Strips};
use self::pairs::PairStrips;
use crate::buffer::{SharedPtr, with_scratch, written};
use crate::isa::Isa;
use crate::pieces::{self, Cut};
use crate::pool::{for_each, threads};
use crate::simd::PANEL;
use crate::values::slice;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttnMask {
    /// All of them.
    None,
    /// Its own and those before it.
    Causal,
}

/// softmax(q · kᵀ / √d) · v for each of `heads` heads: `q` (B, T, heads·d), `k` and `v` (B, S, heads·d), contiguous
/// f32. Result: (B, T, heads·d).
///
/// # Errors
/// When the shapes do not fit each other, or a tensor is not contiguous f32 on the CPU.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: AttnMask) -> Result<Tensor> {
    q.apply_op3_no_bwd(
        k,
        v,
        &AttentionOp {
            heads,
            mask,
            in_bf16: false,
            isa: Isa::detect(),
        },
    )
}

/// The same with queries, keys, values and the weights of softmax rounded to bfloat16 before they are multiplied; sums and
/// softmax are in f32. As in f32 where the machine has no unit for that.
///
/// # Errors
/// As [`attend`].
pub fn attend_in_bf16(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: AttnMask) -> Result<Tensor> {
    q.apply_op3_no_bwd(
        k,
        v,
        &AttentionOp {
            heads,
            mask,
            in_bf16: true,
            isa: Isa::detect(),
        },
    )
}

struct AttentionOp {
    heads: usize,
    mask: AttnMask,
    in_bf16: bool,
    isa: Isa,
}

impl CustomOp3 for AttentionOp {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, queries, width) = q_layout.shape().dims3()?;
        let (k_rows, keys, k_width) = k_layout.shape().dims3()?;
        let fits = (k_rows, k_width) == (rows, width)
            && v_layout.dims() == k_layout.dims()
            && self.heads > 0
            && width % self.heads == 0
            && keys > 0
            && (self.mask == AttnMask::None || keys == queries);
        if !fits {
            candle_core::bail!(
                "attention with {} heads of {:?} over {:?} and {:?}",
                self.heads,
                q_layout.dims(),
                k_layout.dims(),
                v_layout.dims()
            )
        }
        let heads = Heads {
            rows,
            heads: self.heads,
            width: width / self.heads,
        };
        let (q, k, v) = (slice(q, q_layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        let out = self.compute(heads, (q, queries), (k, v, keys));
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }
}

impl AttentionOp {
    fn compute(
        &self,
        heads: Heads,
        (q, queries): (&[f32], usize),
        (k, v, count): (&[f32], &[f32], usize),
    ) -> Vec<f32> {
        let unit = self.isa.pairs().filter(|_| self.in_bf16 || self.isa.splits());
        if let Some(unit) = unit {
            let how = (self.isa, unit, !self.in_bf16);
            let strips = PairStrips::pack(how, heads, (k, v), count);
            let operands = Operands::Pairs(&strips);
            let room = room(heads.width) + pairs::room(heads.width);
            return self.blocks(heads, (q, queries), count, (operands, &strips.norms, room));
        }
        let keys = Strips::pack(heads, k, count, DEPTH.min(heads.width));
        let values = Strips::pack(heads, v, count, strip(heads.width, self.isa.rows()));
        let norms: Vec<f32> = (0..heads.count())
            .into_par_iter()
            // For a few keys it is not worth waking another thread.
            .with_min_len((4096 / count).max(1))
            .map(|head| keys.largest_norm(self.isa, head))
            .collect();
        let operands = Operands::Numbers {
            keys: &keys,
            values: &values,
        };
        self.blocks(heads, (q, queries), count, (operands, &norms, room(heads.width)))
    }

    /// All queries over `count` keys, with the largest norms of each head's keys and so much scratch memory.
    fn blocks(
        &self,
        heads: Heads,
        (q, queries): (&[f32], usize),
        count: usize,
        (operands, norms, room): (Operands<'_>, &[f32], usize),
    ) -> Vec<f32> {
        let cut = Cut {
            most: QUERIES,
            unit: PANEL,
            // Keys and values are read for every piece.
            overhead: QUERIES / 4,
        };
        let most = pieces::shared(threads(), queries, cut, heads.count());
        let blocks = queries.div_ceil(most);
        let fill = |out: *mut f32| {
            let out = SharedPtr::new(out);
            for_each(heads.count() * blocks, |task| {
                let (head, first) = (task / blocks, task % blocks * most);
                let block = QueryBlock {
                    heads,
                    head,
                    first,
                    queries: most.min(queries - first),
                    total: queries,
                    q,
                    count,
                    operands,
                    largest_key: norms[head],
                    mask: self.mask,
                    scratch: std::ptr::null_mut(),
                    out: out.get(),
                };
                with_scratch(room, |scratch| {
                    self.isa.run(QueryBlock { scratch, ..block });
                });
            });
        };
        // SAFETY: every query of every head is written.
        unsafe { written(q.len(), fill) }
    }
}
