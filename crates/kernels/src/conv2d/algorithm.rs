//! Which algorithm computes a convolution. It depends on the layer and on the size of its image, never on the number of
//! rows: an image comes out the same alone and in a batch.

use super::Padding;

/// How a layer is computed, which decides the order of its packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConvAlgorithm {
    /// Fewer multiplications by transforming tiles (Lavin and Gray, 2016): stride 1 with the size kept, and stride 2.
    Winograd,
    /// Gathered pixels times the weights as a matrix.
    Direct,
}

/// How Winograd's method cuts an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WinogradVariant {
    /// F(2x2, 3x3): 2x2 results from tiles of 4x4.
    F2,
    /// F(4x4, 3x3): 2.25 multiplications a pixel instead of 9.
    F4,
    /// F(6x6, 3x3): 1.78, with larger rounding errors.
    F6,
    /// F(5x5, 2x2) on an image that is doubled on the way, for each of the four results beside a pixel: 1.44.
    Doubled,
    /// Stride 2, 4x4 results from tiles of 9x9: 5.06.
    Strided,
}

/// The numbers whose products Winograd's method sums up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Factors {
    /// Those of f32.
    F32,
    /// Those of f32, each split into two of bfloat16.
    Split,
    /// Rounded to bfloat16.
    Rounded,
}

/// Images of fewer tiles are computed in f32 on every machine: their work is the transform of the weights.
pub(super) const FEWEST_OF_PAIRS: usize = 16;

/// The cost of transforming the weights of a position, in multiplied tiles.
pub(super) const TRANSFORM: usize = 8;

impl WinogradVariant {
    /// For images of `input` (h, w), enlarged from `source`. With stride 2 there is one; with stride 1 F(2x2) where
    /// larger tiles would be mostly outside of the image, else F(4x4), unless another saves at least a tenth of its work.
    ///
    /// Where products are of split numbers, F(6x6) would multiply what they lose; of rounded ones all but F(2x2) would. An image
    /// that is doubled on the way is never of rounded ones, since that variant has the points of F(4x4).
    pub(super) fn choose(
        stride: usize,
        source: (usize, usize),
        input: (usize, usize),
        factors: Factors,
    ) -> Self {
        if stride == 2 {
            return Self::Strided;
        }
        if input.0 <= 2 && input.1 <= 2 {
            return Self::F2;
        }
        let doubled = input == (2 * source.0, 2 * source.1);
        let other = if doubled { Self::Doubled } else { Self::F6 };
        match factors {
            Factors::Rounded if !doubled && Self::F2.tiles(source, input) >= FEWEST_OF_PAIRS => {
                return Self::F2;
            }
            Factors::Split | Factors::Rounded if !doubled => return Self::F4,
            Factors::F32 | Factors::Split | Factors::Rounded => {}
        }
        if 10 * other.work(source, input) <= 9 * Self::F4.work(source, input) {
            other
        } else {
            Self::F4
        }
    }

    /// Multiplications for each pair of an input and an output channel, and the transform of its weights.
    fn work(self, source: (usize, usize), input: (usize, usize)) -> usize {
        self.positions() * (self.tiles(source, input) + TRANSFORM)
    }

    /// Products of an input and an output channel: the positions of a tile, in each phase of the result.
    fn positions(self) -> usize {
        match self {
            Self::F2 => 16,
            Self::F4 => 36,
            Self::F6 => 64,
            Self::Doubled => 4 * 36,
            Self::Strided => 81,
        }
    }

    fn tiles(self, source: (usize, usize), input: (usize, usize)) -> usize {
        let tiles = |m: usize, (h, w): (usize, usize)| h.div_ceil(m) * w.div_ceil(m);
        match self {
            Self::F2 => tiles(2, input),
            Self::F4 => tiles(4, input),
            Self::F6 => tiles(6, input),
            Self::Doubled => tiles(5, (source.0 + 1, source.1 + 1)),
            Self::Strided => tiles(8, input),
        }
    }
}

/// The multiplications that a convolution of an image of size `source` (h, w) really takes, fewer than by definition where
/// Winograd's method is used; for benchmarks. `enlarged` is the size after upsampling, or `source` without it.
#[must_use]
pub fn multiplications(
    (inputs, outputs): (usize, usize),
    stride: usize,
    source: (usize, usize),
    enlarged: (usize, usize),
) -> usize {
    let per_pair = match ConvAlgorithm::choose(inputs, stride, Padding::SAME) {
        ConvAlgorithm::Winograd => {
            let variant = WinogradVariant::choose(stride, source, enlarged, Factors::F32);
            variant.positions() * variant.tiles(source, enlarged)
        }
        ConvAlgorithm::Direct => 9 * enlarged.0.div_ceil(stride) * enlarged.1.div_ceil(stride),
    };
    per_pair * inputs * outputs
}

/// Fewer input channels than this leave the transforms without enough multiplications to save.
pub(super) const FEWEST_INPUTS: usize = 16;

/// From so many input channels on, stride 2 is computed by [`ConvAlgorithm::Direct`]. Weights are packed before the size
/// of an image is known, and only the UNet's last such layer has so many channels: its images, 16x16 to 24x24, have so
/// few tiles that transforming the weights takes longer than the multiplications that it saves.
const STRIDED_INPUTS: usize = 1024;

impl ConvAlgorithm {
    pub(super) fn choose(inputs: usize, stride: usize, padding: Padding) -> Self {
        let suited = match stride {
            1 => padding == Padding::SAME,
            2 => inputs < STRIDED_INPUTS,
            _ => false,
        };
        if suited && inputs >= FEWEST_INPUTS {
            Self::Winograd
        } else {
            Self::Direct
        }
    }

    /// The source of packed depth k in the weights of one output, (in, 3, 3).
    pub(super) fn order(self, inputs: usize) -> impl Fn(usize) -> usize + Sync {
        move |k| match self {
            // Nine taps of a channel side by side, as they are transformed.
            Self::Winograd => k,
            // All channels of a tap side by side, as a gathered pixel has them.
            Self::Direct => k % inputs * 9 + k / inputs,
        }
    }
}
