//! Weights in the order in which the kernels read them: panels of 16 output columns.
//!
//! Half-precision weights stay as they are in memory; a panel's part is widened to f32 right before use, once for many
//! rows, which costs about a hundredth of the multiplication.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::simd::{LINE, PANEL, Prefetch, Simd};

/// Numbers of one of the three storage types.
#[derive(Debug)]
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Bf16(Vec<u16>),
}

/// A matrix (columns, depth), such as a linear layer's weight, as panels: \[columns / 16\]\[depth\]\[16\], the last
/// panel filled up with zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    numbers: Numbers,
    depth: usize,
}

impl Packed {
    /// Packs `weight`, whose element for column c and depth k is number `c * depth + at(k)`; f32, f16 or bf16.
    /// `columns[p]` is the source of packed column p, so that columns can be put into another order.
    pub(crate) fn new(
        weight: &Tensor,
        depth: usize,
        at: impl Fn(usize) -> usize + Sync,
        columns: &[usize],
    ) -> Result<Self> {
        if !matches!(weight.device(), Device::Cpu) {
            candle_core::bail!("these kernels run on the CPU, the weight is elsewhere")
        }
        if depth == 0 {
            candle_core::bail!("a layer without inputs")
        }
        let as_is = matches!(weight.dtype(), DType::F32 | DType::F16 | DType::BF16);
        let weight = if as_is {
            weight.clone()
        } else {
            weight.to_dtype(DType::F32)?
        };
        let weight = weight.contiguous()?;
        let (storage, layout) = weight.storage_and_layout();
        let start = layout.start_offset();
        let end = start + layout.shape().elem_count();
        let Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("these kernels run on the CPU, the weight is elsewhere")
        };
        let numbers = if let CpuStorage::F16(v) = storage {
            Numbers::F16(pack(&v[start..end], depth, at, columns, |v: f16| v.to_bits()))
        } else if let CpuStorage::BF16(v) = storage {
            Numbers::Bf16(pack(&v[start..end], depth, at, columns, |v: bf16| v.to_bits()))
        } else {
            Numbers::F32(pack(
                &storage.as_slice::<f32>()?[start..end],
                depth,
                at,
                columns,
                |v| v,
            ))
        };
        Ok(Self { numbers, depth })
    }

    /// Prefetches part `part` of `parts` of rows `start..start + length` of panel `panel`, if they exist, so that they
    /// come from memory while something else is computed.
    #[inline(always)]
    pub(crate) fn prefetch<S: Simd>(
        &self,
        s: S,
        panel: usize,
        (start, length): (usize, usize),
        (part, parts): (usize, usize),
    ) {
        let (base, size) = self.bytes();
        let first = (panel * self.depth + start) * PANEL * size;
        let bytes = (length.min(self.depth.saturating_sub(start)) * PANEL * size).div_ceil(parts);
        for line in (part * bytes..(part + 1) * bytes).step_by(LINE) {
            s.prefetch(base.wrapping_add(first + line));
        }
    }

    /// The prefetch of the weights that are multiplied next, from row `start` of panel `panel` on, while `panels` tiles are
    /// multiplied: each tile prefetches one panel. None where the panel does not exist.
    #[inline(always)]
    pub(crate) fn prefetch_of(&self, (panel, panels): (usize, usize), start: usize) -> Prefetch {
        let (base, size) = self.bytes();
        let first = (panel * self.depth + start) * PANEL;
        if first >= self.len() {
            return Prefetch::NONE;
        }
        Prefetch {
            first: base.wrapping_add(first * size),
            step: PANEL * size,
            next: self.depth * PANEL * size,
            tiles: panels,
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match &self.numbers {
            Numbers::F32(v) => v.len(),
            Numbers::F16(v) | Numbers::Bf16(v) => v.len(),
        }
    }

    /// The address of the first number, and the size of one in bytes.
    #[inline(always)]
    fn bytes(&self) -> (*const u8, usize) {
        match &self.numbers {
            Numbers::F32(v) => (v.as_ptr().cast(), 4),
            Numbers::F16(v) | Numbers::Bf16(v) => (v.as_ptr().cast(), 2),
        }
    }

    /// Bytes that the numbers take.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.numbers {
            Numbers::F32(v) => v.capacity() * size_of::<f32>(),
            Numbers::F16(v) | Numbers::Bf16(v) => v.capacity() * size_of::<u16>(),
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// Rows `start..start + length` of `count` panels from `panel` on, as f32, and the distance from one panel's to the
    /// next: in place, or widened into `scratch`.
    ///
    /// # Safety
    /// The panels and their rows exist; `scratch` has room for 16 · `length` numbers for each panel.
    #[inline(always)]
    pub(crate) unsafe fn panels<S: Simd>(
        &self,
        s: S,
        (panel, count): (usize, usize),
        (start, length): (usize, usize),
        scratch: *mut f32,
    ) -> (*const f32, usize) {
        let (size, next) = (length * PANEL, self.depth * PANEL);
        let first = panel * next + start * PANEL;
        // SAFETY: the caller vouches for the ranges and for the scratch.
        unsafe {
            match &self.numbers {
                Numbers::F32(v) => return (v.as_ptr().add(first), next),
                Numbers::F16(v) => {
                    for panel in 0..count {
                        let (from, to) = (v.as_ptr().add(first + panel * next), scratch.add(panel * size));
                        for i in (0..size).step_by(S::LANES) {
                            s.store(to.add(i), s.widen_f16(from.add(i)));
                        }
                    }
                }
                Numbers::Bf16(v) => {
                    for panel in 0..count {
                        let (from, to) = (v.as_ptr().add(first + panel * next), scratch.add(panel * size));
                        for i in (0..size).step_by(S::LANES) {
                            s.store(to.add(i), s.widen_bf16(from.add(i)));
                        }
                    }
                }
            }
        }
        (scratch, size)
    }
}

/// How much of the depth is packed at a time.
const PIECE: usize = 128;

fn pack<T: Copy + Sync, U: Copy + Default + Send>(
    weight: &[T],
    depth: usize,
    at: impl Fn(usize) -> usize + Sync,
    columns: &[usize],
    convert: impl Fn(T) -> U + Sync,
) -> Vec<U> {
    let mut out = vec![U::default(); columns.len().div_ceil(PANEL) * depth * PANEL];
    out.par_chunks_mut((depth * PANEL).max(1))
        .zip(columns.par_chunks(PANEL))
        .for_each(|(panel, columns)| {
            // In pieces that stay in the L1 cache while their sixteen columns are interleaved.
            for (piece, panel) in panel.chunks_mut(PIECE * PANEL).enumerate() {
                let first = piece * PIECE;
                for (j, column) in columns.iter().enumerate() {
                    let source = &weight[column * depth..][..depth];
                    for (k, to) in panel.iter_mut().skip(j).step_by(PANEL).enumerate() {
                        *to = convert(source[at(first + k)]);
                    }
                }
            }
        });
    out
}
