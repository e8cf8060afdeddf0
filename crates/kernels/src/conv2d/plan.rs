//! Which algorithm a convolution takes. It depends on the layer only, never on the number of rows: rows of one picture
//! come out the same alone and in a batch.

use super::Padding;

/// How a layer is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Fewer multiplications by transforming tiles (Lavin and Gray, 2016): 3x3, stride 1, size kept.
    Winograd(Algorithm),
    /// Gathered pixels times the weights as a matrix.
    Direct,
}

/// F(m x m, 3x3): m x m results from tiles of m + 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    F2,
    F4,
}

/// Fewer input channels than this leave the transforms without enough multiplications to save.
const FEWEST_INPUTS: usize = 16;

impl Plan {
    pub(super) fn choose(inputs: usize, stride: usize, padding: Padding) -> Self {
        if stride == 1 && padding == Padding::SAME && inputs >= FEWEST_INPUTS {
            Self::Winograd(Algorithm::F4)
        } else {
            Self::Direct
        }
    }

    /// The source of packed depth k in the weights of one output, (in, 3, 3).
    pub(super) fn order(self, inputs: usize) -> impl Fn(usize) -> usize + Sync {
        move |k| match self {
            // Nine taps of a channel side by side, as they are transformed.
            Self::Winograd(_) => k,
            // All channels of a tap side by side, as a gathered pixel has them.
            Self::Direct => k % inputs * 9 + k / inputs,
        }
    }
}
