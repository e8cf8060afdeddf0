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

/// F(m x m, 3x3): m x m results from tiles of m + 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    F2,
    F4,
}

impl Algorithm {
    /// For pictures of `size` (h, w): F(4x4) needs 2.25 multiplications a pixel instead of 4, unless its tiles are
    /// mostly outside of the picture.
    pub(super) fn choose((h, w): (usize, usize)) -> Self {
        if h <= 2 && w <= 2 { Self::F2 } else { Self::F4 }
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
