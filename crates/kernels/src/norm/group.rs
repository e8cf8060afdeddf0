//! Group normalisation (Wu and He, 2018) of images (B, h, w, C), in two halves: the statistics become a scale and a
//! shift for every channel, and the layer that reads the image next applies them.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::buffer::{SharedPtr, written};
use crate::isa::Isa;
use crate::pool::{for_each, tasks};
use crate::simd::{Kernel, Simd, math};
use crate::values::{slice, to_f32s, values};

/// Numbers of a task, few enough to be read twice from the L2 cache. An image is always cut in the same places,
/// so the sums do not depend on the number of threads.
const PIECE: usize = 1 << 15;

/// A group norm.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    eps: f64,
}

/// A norm of one tensor, whose statistics are known: y = x · scale + shift for each channel, followed by SiLU or not.
#[derive(Debug)]
pub struct Normalisation {
    /// (B, C)
    scale: Vec<f32>,
    shift: Vec<f32>,
    silu: bool,
    isa: Isa,
}

impl GroupNorm {
    /// A norm of C = `weight`'s length channels in `groups` equal groups.
    ///
    /// # Errors
    /// When weight and bias differ in length or the groups do not divide it.
    pub fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Self> {
        let (weight, bias) = (to_f32s(weight)?, to_f32s(bias)?);
        if weight.len() != bias.len() || groups == 0 || weight.len() % groups != 0 {
            candle_core::bail!(
                "{groups} groups of {} channels, {} biases",
                weight.len(),
                bias.len()
            )
        }
        Ok(Self {
            weight,
            bias,
            groups,
            eps,
        })
    }

    /// The norm of `x` (B, …, C), contiguous f32, to be applied by the layer that reads `x` next.
    ///
    /// # Errors
    /// When the shape does not fit, or `x` is not contiguous f32 on the CPU.
    pub fn normalisation(&self, x: &Tensor) -> Result<Normalisation> {
        self.normalisation_with(Isa::detect(), x)
    }

    pub(crate) fn normalisation_with(&self, isa: Isa, x: &Tensor) -> Result<Normalisation> {
        let dims = x.dims();
        let channels = self.weight.len();
        let (Some(&rows), Some(&last)) = (dims.first(), dims.last()) else {
            candle_core::bail!("a norm of a single number")
        };
        if last != channels || dims.len() < 3 {
            candle_core::bail!("a norm of {channels} channels got {dims:?}")
        }
        let guard = values(x)?;
        let x = guard.get();
        let pixels = x.len() / (rows * channels).max(1);
        let piece = (PIECE / channels).max(1);
        let pieces = pixels.div_ceil(piece);
        let moments: Vec<Vec<Moments>> = tasks(rows * pieces)
            .map(|task| {
                let (row, start) = (task / pieces, task % pieces * piece);
                let count = piece.min(pixels - start);
                let from = (row * pixels + start) * channels;
                self.moments(isa, &x[from..from + count * channels])
            })
            .collect();
        let mut scale = vec![0.0; rows * channels];
        let mut shift = vec![0.0; rows * channels];
        for row in 0..rows {
            let pieces = &moments[row * pieces..(row + 1) * pieces];
            let part = row * channels..(row + 1) * channels;
            self.coefficients(pieces, &mut scale[part.clone()], &mut shift[part]);
        }
        Ok(Normalisation {
            scale,
            shift,
            silu: false,
            isa,
        })
    }

    /// Bytes that weight and bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        (self.weight.capacity() + self.bias.capacity()) * size_of::<f32>()
    }

    /// Count, mean and squared deviations of each group in some pixels.
    fn moments(&self, isa: Isa, x: &[f32]) -> Vec<Moments> {
        let channels = self.weight.len();
        let width = channels / self.groups;
        let mut sums = vec![0.0; channels];
        isa.run(Sums {
            x,
            channels,
            means: None,
            out: &mut sums,
        });
        #[expect(clippy::cast_precision_loss, reason = "a count of numbers in one piece")]
        let count = (x.len() / channels * width) as f64;
        let total = |sums: &[f32]| sums.iter().map(|v| f64::from(*v)).sum::<f64>();
        let means: Vec<f64> = sums.chunks(width).map(|sums| total(sums) / count).collect();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "deviations are taken from about the mean"
        )]
        let about: Vec<f32> = (0..channels).map(|c| means[c / width] as f32).collect();
        isa.run(Sums {
            x,
            channels,
            means: Some(&about),
            out: &mut sums,
        });
        let groups = sums.chunks(width).zip(means).zip(about.chunks(width));
        groups
            .map(|((squares, mean), about)| {
                // These are squared distances from the rounded mean; those from the exact mean are smaller by its error squared.
                let off = mean - f64::from(about[0]);
                Moments {
                    count,
                    mean,
                    squares: total(squares) - count * off * off,
                }
            })
            .collect()
    }

    /// Joins the pieces of a row (Chan, Golub and LeVeque, 1979).
    fn coefficients(&self, pieces: &[Vec<Moments>], scale: &mut [f32], shift: &mut [f32]) {
        let width = self.weight.len() / self.groups;
        for group in 0..self.groups {
            let parts = || pieces.iter().map(|piece| piece[group]);
            let count: f64 = parts().map(|m| m.count).sum();
            let mean = parts().map(|m| m.count * m.mean).sum::<f64>() / count;
            let squares: f64 = parts()
                .map(|m| m.squares + m.count * (m.mean - mean).powi(2))
                .sum();
            let inverse = (squares / count + self.eps).sqrt().recip();
            for channel in group * width..(group + 1) * width {
                let a = f64::from(self.weight[channel]) * inverse;
                #[expect(clippy::cast_possible_truncation, reason = "the tensor is f32")]
                {
                    scale[channel] = a as f32;
                    shift[channel] = (f64::from(self.bias[channel]) - mean * a) as f32;
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

/// Sums of every channel over some pixels, or of its squared distance from a mean.
struct Sums<'a> {
    x: &'a [f32],
    channels: usize,
    means: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl Sums<'_> {
    /// Sums the channels from `first` on in whole blocks of `N` vectors; returns the first channel that is left. A channel's
    /// numbers are summed in the order of the pixels whatever `N` is.
    #[inline(always)]
    fn blocks<S: Simd, const N: usize>(&mut self, s: S, mut first: usize) -> usize {
        while first + N * S::LANES <= self.channels {
            let mut sums = [s.splat(0.0); N];
            let mut means = [s.splat(0.0); N];
            if let Some(from) = self.means {
                for (i, mean) in means.iter_mut().enumerate() {
                    // SAFETY: these lanes are channels, each of which has a mean.
                    *mean = unsafe { s.load(from.as_ptr().add(first + i * S::LANES)) };
                }
            }
            for pixel in self.x.chunks_exact(self.channels) {
                for (i, (sum, mean)) in sums.iter_mut().zip(means).enumerate() {
                    // SAFETY: these lanes are channels of the pixel.
                    let v = unsafe { s.load(pixel.as_ptr().add(first + i * S::LANES)) };
                    *sum = match self.means {
                        None => s.add(*sum, v),
                        Some(_) => {
                            let d = s.sub(v, mean);
                            s.fma(d, d, *sum)
                        }
                    };
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                // SAFETY: these lanes are channels.
                unsafe { s.store(self.out.as_mut_ptr().add(first + i * S::LANES), sum) };
            }
            first += N * S::LANES;
        }
        first
    }
}

impl Kernel for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        // Eight vectors of a pixel at a time, so that memory is read line after line; then four, then one.
        let mut whole = self.blocks::<S, 8>(s, 0);
        whole = self.blocks::<S, 4>(s, whole);
        whole = self.blocks::<S, 1>(s, whole);
        for channel in whole..self.channels {
            let values = self.x.iter().skip(channel).step_by(self.channels);
            self.out[channel] = match self.means {
                None => values.sum(),
                Some(means) => values.map(|v| (v - means[channel]).powi(2)).sum(),
            };
        }
    }
}

impl Normalisation {
    /// The same, followed by SiLU.
    #[must_use]
    pub fn with_silu(self) -> Self {
        Self { silu: true, ..self }
    }

    /// Those of all rows, (B, C).
    pub(crate) fn coefficients(&self) -> Coefficients<'_> {
        Coefficients {
            scale: &self.scale,
            shift: &self.shift,
            silu: self.silu,
        }
    }

    /// Applies it to `x`, the tensor that it was made from.
    ///
    /// # Errors
    /// When `x` has another shape.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op1_no_bwd(&ApplyOp(self))
    }
}

struct ApplyOp<'a>(&'a Normalisation);

impl CustomOp1 for ApplyOp<'_> {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let norm = self.0;
        let dims = layout.dims();
        let channels = dims.last().copied().unwrap_or(0);
        if dims.first().copied().unwrap_or(0) * channels != norm.scale.len() || channels == 0 {
            candle_core::bail!("a norm of {} numbers applied to {dims:?}", norm.scale.len())
        }
        let x = slice(x, layout)?;
        let per_row = x.len() / dims[0].max(1);
        let piece = (PIECE / channels).max(1) * channels;
        let fill = |out: *mut f32| {
            let out = SharedPtr::new(out);
            let pieces = per_row.div_ceil(piece);
            for_each(dims[0] * pieces, |task| {
                let (row, start) = (task / pieces, task % pieces * piece);
                let (from, length) = (row * per_row + start, piece.min(per_row - start));
                // SAFETY: pieces do not overlap and lie within the result.
                let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(from), length) };
                let coefficients = norm.coefficients().part(row * channels, channels);
                let pixels = x[from..from + length].chunks(channels);
                for (x, out) in pixels.zip(out.chunks_mut(channels)) {
                    apply(norm.isa, x, coefficients, out);
                }
            });
        };
        // SAFETY: the pieces cover the result.
        let out = unsafe { written(x.len(), fill) };
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

/// The part of a normalisation for some channels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    silu: bool,
}

impl Coefficients<'_> {
    /// How many channels.
    pub(crate) fn count(&self) -> usize {
        self.scale.len()
    }

    /// Those of `count` channels from `start` on.
    pub(crate) fn part(self, start: usize, count: usize) -> Self {
        Self {
            scale: &self.scale[start..start + count],
            shift: &self.shift[start..start + count],
            ..self
        }
    }
}

/// Normalises some channels of one pixel.
pub(crate) fn apply(isa: Isa, x: &[f32], coefficients: Coefficients<'_>, out: &mut [f32]) {
    isa.run(Apply { x, coefficients, out });
}

struct Apply<'a> {
    x: &'a [f32],
    coefficients: Coefficients<'a>,
    out: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        apply_with(s, self.x, self.coefficients, self.out);
    }
}

/// [`apply`] inside a kernel. `out` may be longer than `x`.
#[inline(always)]
pub(crate) fn apply_with<S: Simd>(s: S, x: &[f32], coefficients: Coefficients<'_>, out: &mut [f32]) {
    let Coefficients { scale, shift, silu } = coefficients;
    let length = x.len();
    assert!(scale.len() == length && shift.len() == length && out.len() >= length);
    let whole = length / S::LANES * S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: `i` and the lanes after it are within all four.
        unsafe {
            let y = affine(
                s,
                s.load(x.as_ptr().add(i)),
                (s.load(scale.as_ptr().add(i)), s.load(shift.as_ptr().add(i))),
                silu,
            );
            s.store(out.as_mut_ptr().add(i), y);
        }
    }
    for i in whole..length {
        let y = affine(s, s.splat(x[i]), (s.splat(scale[i]), s.splat(shift[i])), silu);
        let mut lanes = [0.0; crate::simd::PANEL];
        // SAFETY: a vector has at most 16 lanes.
        unsafe { s.store(lanes.as_mut_ptr(), y) };
        out[i] = lanes[0];
    }
}

#[inline(always)]
fn affine<S: Simd>(s: S, x: S::V, (scale, shift): (S::V, S::V), silu: bool) -> S::V {
    let y = s.fma(x, scale, shift);
    if silu { math::swish(s, y, 1.0) } else { y }
}
