//! Weights in the order in which the kernels read them: panels of 16 output columns.
//!
//! Half-precision weights stay as they are in memory; a panel's part is widened to f32 right before use, once for many
//! rows, which costs about a hundredth of the multiplication.

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::pairs::{Form, STEP};
use crate::simd::{LINE, PANEL, Prefetch, Simd};

/// Numbers of one of the three storage types, or pairs.
#[derive(Debug)]
enum Numbers {
    F32(Vec<f32>),
    F16(Vec<u16>),
    Bf16(Vec<u16>),
    /// Rounded to bfloat16: \[columns / 16\]\[depth / 2\]\[16\]\[2\], the depth filled up with zeros to a multiple of
    /// [`STEP`].
    Pairs(Vec<u16>),
}

/// A matrix (columns, depth), such as a linear layer's weight, as panels: \[columns / 16\]\[depth\]\[16\], the last
/// panel filled up with zeros.
#[derive(Debug)]
pub(crate) struct Packed {
    numbers: Numbers,
    depth: usize,
}

/// Weights, and what is to become of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) weight: &'a Tensor,
    pub(crate) form: Form,
}

impl Packed {
    /// Packs `weight`, whose element for column c and depth k is number `c * depth + at(k)`; f32, f16 or bf16.
    /// `columns[p]` is the source of packed column p, so that columns can be put into another order.
    pub(crate) fn new(
        Stored { weight, form }: Stored<'_>,
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
        let numbers = if form == Form::Pairs {
            Numbers::Pairs(if let CpuStorage::F16(v) = storage {
                pack_pairs(&v[start..end], depth, at, columns, f16::to_f32)
            } else if let CpuStorage::BF16(v) = storage {
                pack_pairs(&v[start..end], depth, at, columns, bf16::to_f32)
            } else {
                pack_pairs(&storage.as_slice::<f32>()?[start..end], depth, at, columns, |v| v)
            })
        } else if let CpuStorage::F16(v) = storage {
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

    /// Whether it consists of pairs.
    pub(crate) fn is_pairs(&self) -> bool {
        matches!(self.numbers, Numbers::Pairs(_))
    }

    /// The pairs from row `start` of panel `panel` on, which is even, and the distance to the next panel; None where it does
    /// not consist of pairs.
    #[inline(always)]
    pub(crate) fn pairs(&self, panel: usize, start: usize) -> Option<(*const f32, usize)> {
        let Numbers::Pairs(v) = &self.numbers else {
            return None;
        };
        let next = self.rows_of_panel() / 2 * PANEL;
        let first = panel * next + start / 2 * PANEL;
        Some((v.as_ptr().cast::<f32>().wrapping_add(first), next))
    }

    /// Rows that a panel has room for.
    #[inline(always)]
    fn rows_of_panel(&self) -> usize {
        match self.numbers {
            Numbers::Pairs(_) => self.depth.next_multiple_of(STEP),
            Numbers::F32(_) | Numbers::F16(_) | Numbers::Bf16(_) => self.depth,
        }
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
        let first = (panel * self.rows_of_panel() + start) * PANEL * size;
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
        let first = (panel * self.rows_of_panel() + start) * PANEL;
        if first >= self.len() {
            return Prefetch::NONE;
        }
        // A step is a row, or two of them as pairs.
        let rows = if self.is_pairs() { 2 } else { 1 };
        Prefetch {
            first: base.wrapping_add(first * size),
            step: rows * PANEL * size,
            next: self.rows_of_panel() * PANEL * size,
            tiles: panels,
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        match &self.numbers {
            Numbers::F32(v) => v.len(),
            Numbers::F16(v) | Numbers::Bf16(v) | Numbers::Pairs(v) => v.len(),
        }
    }

    /// The address of the first number, and the size of one in bytes.
    #[inline(always)]
    fn bytes(&self) -> (*const u8, usize) {
        match &self.numbers {
            Numbers::F32(v) => (v.as_ptr().cast(), 4),
            Numbers::F16(v) | Numbers::Bf16(v) | Numbers::Pairs(v) => (v.as_ptr().cast(), 2),
        }
    }

    /// Bytes that the numbers take.
    pub(crate) fn size_bytes(&self) -> usize {
        match &self.numbers {
            Numbers::F32(v) => v.capacity() * size_of::<f32>(),
            Numbers::F16(v) | Numbers::Bf16(v) | Numbers::Pairs(v) => v.capacity() * size_of::<u16>(),
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
        let (size, next) = (length * PANEL, self.rows_of_panel() * PANEL);
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
                Numbers::Pairs(v) => {
                    debug_assert!(start.is_multiple_of(2));
                    let words = v.as_ptr().cast::<f32>();
                    for panel in 0..count {
                        let (from, to) = (words.add((first + panel * next) / 2), scratch.add(panel * size));
                        for at in (0..length / 2 * PANEL).step_by(S::LANES) {
                            let i = at / PANEL * PANEL;
                            let (even, odd) = s.split_pairs(s.load(from.add(at)));
                            s.store(to.add(at + i), even);
                            s.store(to.add(at + i + PANEL), odd);
                        }
                        if length % 2 == 1 {
                            let i = length / 2 * PANEL;
                            for lane in (0..PANEL).step_by(S::LANES) {
                                let (even, _) = s.split_pairs(s.load(from.add(i + lane)));
                                s.store(to.add(2 * i + lane), even);
                            }
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

/// The same rounded to bfloat16, in pairs.
fn pack_pairs<T: Copy + Sync>(
    weight: &[T],
    depth: usize,
    at: impl Fn(usize) -> usize + Sync,
    columns: &[usize],
    widen: impl Fn(T) -> f32 + Sync,
) -> Vec<u16> {
    let size = depth.next_multiple_of(STEP) * PANEL;
    let mut out = vec![0; columns.len().div_ceil(PANEL) * size];
    out.par_chunks_mut(size)
        .zip(columns.par_chunks(PANEL))
        .for_each(|(panel, columns)| {
            for (piece, panel) in panel.chunks_mut(PIECE * PANEL).enumerate() {
                let first = piece * PIECE;
                for (j, column) in columns.iter().enumerate() {
                    let source = &weight[column * depth..][..depth];
                    for (pair, to) in panel.chunks_exact_mut(2 * PANEL).enumerate() {
                        for (half, k) in (first + 2 * pair..depth).take(2).enumerate() {
                            to[2 * j + half] = bf16::from_f32(widen(source[at(k)])).to_bits();
                        }
                    }
                }
            }
        });
    out
}
