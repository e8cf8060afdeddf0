//! 3x3 convolutions of images (B, h, w, C), fused with what surrounds them in the networks: norm, SiLU and
//! nearest-neighbour upsampling before, bias, time embedding and residual after.

mod algorithm;
mod direct;
#[cfg(test)]
mod tests;
mod winograd;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

#[doc(hidden)]
pub use self::algorithm::multiplications;
use self::algorithm::{ConvAlgorithm, FEWEST_INPUTS, Factors, WinogradVariant};
use crate::buffer::written;
use crate::isa::Isa;
use crate::matrix::pad_bias;
use crate::norm::{Coefficients, Normalisation};
use crate::packed::{Packed, Stored};
use crate::pairs::{Form, Order, PairUnit};
use crate::simd::PANEL;
use crate::values::{Values, slice, values};

/// Rows and columns of zeros around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Above and to the left.
    pub before: usize,
    /// Below and to the right.
    pub after: usize,
}

impl Padding {
    /// One on every side, which keeps the size at stride 1.
    pub const SAME: Self = Self { before: 1, after: 1 };
}

/// A 3x3 convolution with packed weights.
#[derive(Debug)]
pub struct Conv2d {
    algorithm: ConvAlgorithm,
    packed: Packed,
    /// As long as the packed columns.
    bias: Vec<f32>,
    in_bf16: bool,
    inputs: usize,
    outputs: usize,
    stride: usize,
    padding: Padding,
}

/// What is computed in one pass with a convolution, before it and after it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvFusion<'a> {
    /// Applied to the input first.
    pub norm: Option<&'a Normalisation>,
    /// The input is enlarged to this size (h, w) first, each pixel from its nearest neighbour.
    pub upsample: Option<(usize, usize)>,
    /// (B, 1, out), added to all pixels of a row.
    pub row_bias: Option<&'a Tensor>,
    /// (B, h', w', out), added to the result.
    pub residual: Option<&'a Tensor>,
}

impl Conv2d {
    /// A convolution with `weight` (out, in, 3, 3) in f32, f16 or bf16 and `bias` (out,), or none.
    ///
    /// # Errors
    /// When the shapes do not fit each other, or a tensor is not on the CPU.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: Padding) -> Result<Self> {
        Self::packed(weight, bias, (stride, padding), false)
    }

    /// The same with what is multiplied rounded to bfloat16, weights and inputs or what Winograd's method makes of them, where
    /// that is less work for the processor; sums are in f32. A layer of a few channels, pixels or latents, has little to gain and much to lose.
    ///
    /// # Errors
    /// As there.
    pub fn in_bf16(weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: Padding) -> Result<Self> {
        Self::packed(weight, bias, (stride, padding), true)
    }

    fn packed(
        weight: &Tensor,
        bias: Option<&Tensor>,
        (stride, padding): (usize, Padding),
        in_bf16: bool,
    ) -> Result<Self> {
        let (outputs, inputs, 3, 3) = weight.dims4()? else {
            candle_core::bail!("a kernel of 3x3 is expected, this is {:?}", weight.dims())
        };
        let in_bf16 = in_bf16 && inputs >= FEWEST_INPUTS;
        let algorithm = ConvAlgorithm::choose(inputs, stride, padding);
        let columns: Vec<usize> = (0..outputs).collect();
        let stored = Stored {
            weight,
            // Winograd's method rounds what it has made of the weights.
            form: match algorithm {
                ConvAlgorithm::Direct if in_bf16 => Form::Pairs,
                ConvAlgorithm::Direct | ConvAlgorithm::Winograd => Form::Stored,
            },
        };
        Ok(Self {
            algorithm,
            packed: Packed::new(stored, 9 * inputs, algorithm.order(inputs), &columns)?,
            bias: match bias {
                Some(bias) => pad_bias(bias, outputs, &columns)?,
                None => vec![0.0; outputs.next_multiple_of(PANEL)],
            },
            in_bf16,
            inputs,
            outputs,
            stride,
            padding,
        })
    }

    /// Bytes that the packed weights and the bias hold.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.packed.size_bytes() + self.bias.capacity() * size_of::<f32>()
    }

    /// `x`: (B, h, w, in), contiguous f32. Result: (B, h', w', out).
    ///
    /// # Errors
    /// When a shape does not fit, or a tensor is not contiguous f32 on the CPU.
    pub fn forward(&self, x: &Tensor, fusion: ConvFusion<'_>) -> Result<Tensor> {
        x.apply_op1_no_bwd(&Conv2dOp {
            conv: self,
            variant: None,
            fusion,
            isa: Isa::detect(),
        })
    }
}

/// Sizes of one forward.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    rows: usize,
    /// The stored image.
    source: (usize, usize),
    /// The image that is convolved: the stored one, or that one enlarged unless the algorithm does that.
    input: (usize, usize),
    output: (usize, usize),
    /// Lines and columns of zeros above and to the left of the input.
    before: usize,
}

/// The operands of one forward, checked against the sizes.
#[derive(Clone, Copy, Debug)]
struct Operands<'a> {
    sizes: Sizes,
    x: &'a [f32],
    /// (B, in)
    norm: Option<Coefficients<'a>>,
    /// (B, packed columns)
    bias: &'a [f32],
    residual: Option<&'a [f32]>,
    /// The source line of each input line, and the source column of each input column.
    lines: &'a [usize],
    columns: &'a [usize],
}

impl<'a> Operands<'a> {
    /// The biases of one row, one for each packed column.
    fn biases_of(&self, row: usize) -> &'a [f32] {
        let packed = self.bias.len() / self.sizes.rows;
        &self.bias[row * packed..][..packed]
    }
}

struct Conv2dOp<'a> {
    conv: &'a Conv2d,
    /// The variant of Winograd's method, where it is not to be chosen by the size.
    variant: Option<WinogradVariant>,
    fusion: ConvFusion<'a>,
    isa: Isa,
}

impl CustomOp1 for Conv2dOp<'_> {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(layout)?;
        let x = slice(x, layout)?;
        let row_bias = self.fusion.row_bias.map(values).transpose()?;
        let bias = self.biases(sizes.rows, row_bias.as_ref().map(Values::get))?;
        let residual = self.fusion.residual.map(values).transpose()?;
        let residual = residual.as_ref().map(Values::get);
        let (h, w) = sizes.output;
        let length = sizes.rows * h * w * self.conv.outputs;
        if let Some(residual) = residual
            && residual.len() != length
        {
            candle_core::bail!("a residual of {} numbers for {length}", residual.len())
        }
        let norm = self.fusion.norm.map(|norm| norm.coefficients());
        if let Some(norm) = norm
            && norm.count() != sizes.rows * self.conv.inputs
        {
            candle_core::bail!("a norm of {} channels before {:?}", norm.count(), layout.dims())
        }
        let variant = self.variant(sizes);
        // That variant enlarges the image itself.
        let input = match variant == Some(WinogradVariant::Doubled) {
            true => sizes.source,
            false => sizes.input,
        };
        let sizes = Sizes { input, ..sizes };
        let lines = nearest(sizes.source.0, sizes.input.0);
        let columns = nearest(sizes.source.1, sizes.input.1);
        let operands = Operands {
            sizes,
            x,
            norm,
            bias: &bias,
            residual,
            lines: &lines,
            columns: &columns,
        };
        let fill = |out: *mut f32| {
            // SAFETY: all operands have been checked against the sizes.
            unsafe {
                match variant {
                    Some(variant) => {
                        winograd::run((self.isa, self.factors()), variant, self.conv, operands, out)
                    }
                    None => direct::run(self.isa, self.conv, operands, out),
                }
            }
        };
        // SAFETY: each algorithm writes every pixel of the result.
        let out = unsafe { written(length, fill) };
        Ok((
            CpuStorage::F32(out),
            Shape::from((sizes.rows, h, w, self.conv.outputs)),
        ))
    }
}

impl Conv2dOp<'_> {
    fn sizes(&self, layout: &Layout) -> Result<Sizes> {
        let conv = self.conv;
        let (rows, h, w, inputs) = layout.shape().dims4()?;
        if inputs != conv.inputs {
            candle_core::bail!(
                "a convolution of {} channels got {:?}",
                conv.inputs,
                layout.dims()
            )
        }
        let input = self.fusion.upsample.unwrap_or((h, w));
        if h * w == 0 || input.0 < h || input.1 < w {
            candle_core::bail!("cannot enlarge {:?} to {input:?}", (h, w))
        }
        let zeros = conv.padding.before + conv.padding.after;
        let side = |n: usize| (n + zeros).checked_sub(3).map(|room| room / conv.stride + 1);
        let (Some(oh), Some(ow)) = (side(input.0), side(input.1)) else {
            candle_core::bail!("an image of {input:?} is smaller than the kernel")
        };
        Ok(Sizes {
            rows,
            source: (h, w),
            input,
            output: (oh, ow),
            before: conv.padding.before,
        })
    }

    /// The variant for these sizes, in a layer that is packed for Winograd's method.
    fn variant(&self, sizes: Sizes) -> Option<WinogradVariant> {
        let by_size = || {
            let factors = self.factors();
            WinogradVariant::choose(self.conv.stride, sizes.source, sizes.input, factors)
        };
        (self.conv.algorithm == ConvAlgorithm::Winograd).then(|| self.variant.unwrap_or_else(by_size))
    }

    /// What Winograd's method multiplies. AVX-512 has two products of rounded numbers for one of f32, which F(2x2) needs twice as
    /// often as F(4x4): there it would gain nothing.
    fn factors(&self) -> Factors {
        match self.isa.pairs().map(PairUnit::order) {
            Some(Order::Tile) if self.conv.in_bf16 => Factors::Rounded,
            Some(Order::Tile) => Factors::Split,
            Some(Order::Chain) | None => Factors::F32,
        }
    }

    /// Bias and row bias together, for each row.
    fn biases(&self, rows: usize, row_bias: Option<&[f32]>) -> Result<Vec<f32>> {
        let (outputs, bias) = (self.conv.outputs, &self.conv.bias);
        let mut biases = bias.repeat(rows);
        if let Some(extra) = row_bias {
            if extra.len() != rows * outputs {
                candle_core::bail!(
                    "a row bias of {} numbers for {rows} rows of {outputs}",
                    extra.len()
                )
            }
            for (sum, extra) in biases.chunks_mut(bias.len()).zip(extra.chunks(outputs)) {
                for (sum, extra) in sum.iter_mut().zip(extra) {
                    *sum += extra;
                }
            }
        }
        debug_assert_eq!(biases.len() % PANEL, 0);
        Ok(biases)
    }
}

/// The nearest of `from` places for each of `to`, as PyTorch's `interpolate` rounds it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes of images"
)]
fn nearest(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| ((i as f64 * scale) as usize).min(from - 1))
        .collect()
}
