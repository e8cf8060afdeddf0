//! Which algorithm a convolution takes. It depends on the layer and on the size of its picture, never on the number of
//! rows: a picture comes out the same alone and in a batch.

use super::Padding;

/// How a layer is computed, and so the order of its packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Fewer multiplications by transforming tiles (Lavin and Gray, 2016): 3x3, stride 1, size kept.
    Winograd,
    /// Gathered pixels times the weights as a matrix.
    Direct,
}

/// How Winograd's method cuts a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// F(2x2, 3x3): 2x2 results from tiles of 4x4.
    F2,
    /// F(4x4, 3x3)
    F4,
    /// F(5x5, 2x2) on a picture that is doubled on the way, for each of the four results beside a pixel.
    Doubled,
}

impl Algorithm {
    /// For pictures of `input` (h, w), enlarged from `source`: F(4x4) needs 2.25 multiplications a pixel instead of 4,
    /// unless its tiles are mostly outside of the picture; doubled pictures need 1.44, but transform four times as many
    /// weights, which takes some tiles to pay.
    pub(super) fn choose(source: (usize, usize), input: (usize, usize)) -> Self {
        let tiles = |m: usize, (h, w): (usize, usize)| h.div_ceil(m) * w.div_ceil(m);
        let doubled = input == (2 * source.0, 2 * source.1);
        if input.0 <= 2 && input.1 <= 2 {
            Self::F2
        } else if doubled && 10 * 4 * tiles(5, (source.0 + 1, source.1 + 1)) <= 9 * tiles(4, input) {
            Self::Doubled
        } else {
            Self::F4
        }
    }
}

/// Fewer input channels than this leave the transforms without enough multiplications to save.
const FEWEST_INPUTS: usize = 16;

impl Plan {
    pub(super) fn choose(inputs: usize, stride: usize, padding: Padding) -> Self {
        if stride == 1 && padding == Padding::SAME && inputs >= FEWEST_INPUTS {
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
