//! Matrix layers. A 1x1 convolution is one too, over the channels of every pixel.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use pentimento_kernels as kernels;

use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// What a linear layer applies to its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · sigmoid(1.702 x)
    QuickGelu,
    /// x · Φ(x), with the error function.
    Gelu,
}

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    spec: LayerSpec,
    kernel: kernels::Linear,
    activation: kernels::Activation,
}

impl Linear {
    /// `inputs` to `outputs` numbers, with a bias.
    pub(crate) fn new(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::read(shape(LayerKind::Linear, inputs, outputs), vb)
    }

    /// As [`Linear::new`], without a bias.
    pub(crate) fn without_bias(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = shape(LayerKind::Linear, inputs, outputs);
        Self::read(LayerShape { bias: false, ..shape }, vb)
    }

    /// As [`Linear::new`], stored as the kernel of a 1x1 convolution.
    pub(crate) fn pointwise(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::read(shape(LayerKind::Pointwise, inputs, outputs), vb)
    }

    /// As [`Linear::pointwise`], without a bias.
    pub(crate) fn pointwise_without_bias(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = shape(LayerKind::Pointwise, inputs, outputs);
        Self::read(LayerShape { bias: false, ..shape }, vb)
    }

    fn read(shape: LayerShape, vb: &VarBuilder<'_>) -> Result<Self> {
        let spec = LayerSpec::at(vb, shape);
        let weight = spec.weight(vb)?.reshape((shape.outputs, shape.inputs))?;
        let bias = shape.bias.then(|| spec.bias(vb)).transpose()?;
        Ok(Self {
            spec,
            kernel: kernels::Linear::new(&weight, bias.as_ref())?,
            activation: kernels::Activation::None,
        })
    }

    /// The same layer, followed by `activation`.
    pub(crate) fn with_activation(self, activation: Activation) -> Self {
        let activation = match activation {
            Activation::Silu => kernels::Activation::Silu,
            Activation::QuickGelu => kernels::Activation::QuickGelu,
            Activation::Gelu => kernels::Activation::Gelu,
        };
        Self { activation, ..self }
    }

    /// How many numbers go out.
    pub(crate) fn outputs(&self) -> usize {
        self.spec.shape.outputs
    }

    /// `x`: (…, inputs). Result: (…, outputs).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernel.forward(x, self.activation, None)
    }

    /// As [`Linear::forward`], with `residual` (…, outputs) added last.
    pub(crate) fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.kernel.forward(x, self.activation, Some(residual))
    }
}

impl Layer for Linear {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }
}

/// GEGLU (Shazeer, 2020): a layer whose first half is multiplied by the GELU of its second.
#[derive(Debug)]
pub(crate) struct Geglu {
    spec: LayerSpec,
    kernel: kernels::Linear,
}

impl Geglu {
    /// `inputs` to `outputs` numbers, by a matrix of twice as many outputs.
    pub(crate) fn new(inputs: usize, outputs: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let shape = shape(LayerKind::Linear, inputs, 2 * outputs);
        let spec = LayerSpec::at(vb, shape);
        let kernel = kernels::Linear::geglu(&spec.weight(vb)?, Some(&spec.bias(vb)?))?;
        Ok(Self { spec, kernel })
    }

    /// `x`: (…, inputs). Result: (…, outputs).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernel.forward(x, kernels::Activation::None, None)
    }
}

impl Layer for Geglu {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }
}

/// The residual of a block: its input `x`, projected where the number of channels changes and freed after that.
pub(crate) fn shortcut(projection: Option<&Linear>, x: Tensor) -> Result<Tensor> {
    match projection {
        Some(projection) => projection.forward(&x),
        None => Ok(x),
    }
}

/// A layer with a bias.
fn shape(kind: LayerKind, inputs: usize, outputs: usize) -> LayerShape {
    LayerShape {
        kind,
        inputs,
        outputs,
        bias: true,
    }
}
