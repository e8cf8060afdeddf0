//! Matrix layers. A 1x1 convolution is one too, over the channels of every pixel.

use std::sync::Arc;

use pentimento_kernels::{self as kernels, Device, HostTensor, KernelError, LayerSource, Result, Tensor};

use super::patch::{Beside, LayerPatch};
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

/// Packed weights, and what a LoRA adds beside them.
#[derive(Clone, Debug)]
struct Matrix {
    kernel: Arc<kernels::Linear>,
    branch: Beside,
}

impl Matrix {
    fn new(kernel: kernels::Linear) -> Self {
        Self {
            kernel: Arc::new(kernel),
            branch: None,
        }
    }

    fn size_bytes(&self) -> usize {
        let branch = self.branch.as_ref().map_or(0, |branch| branch.size_bytes());
        self.kernel.size_bytes() + branch
    }

    /// `new` packs other weights (outputs, inputs).
    fn patch(
        &mut self,
        patch: LayerPatch,
        spec: &LayerSpec,
        new: impl FnOnce(&HostTensor, Option<&HostTensor>, &Device) -> Result<kernels::Linear>,
    ) -> Result<usize> {
        if self.branch.is_some() {
            return Err(KernelError::mismatch("a layer is changed a second time"));
        }
        match patch {
            LayerPatch::Branch { down, up } => {
                let branch = self.kernel.branch(&down, &up)?;
                let bytes = branch.size_bytes();
                self.branch = Some(Arc::new(branch));
                Ok(bytes)
            }
            LayerPatch::Weights { weight, bias } => {
                let shape = spec.shape;
                if bias.is_some() != shape.bias {
                    return Err(KernelError::mismatch("a layer gains or loses its bias"));
                }
                let weight = weight.reshape((shape.outputs, shape.inputs))?;
                self.kernel = Arc::new(new(&weight, bias.as_ref(), &spec.device)?);
                Ok(self.kernel.size_bytes())
            }
        }
    }

    /// The same for `count` rows from row `first` on of those that are `of` in all.
    fn of_rows(&self, first: usize, count: usize, of: usize) -> Result<Self> {
        let narrow = self
            .branch
            .as_ref()
            .map(|branch| branch.narrow_rows(first, count, of));
        let narrow = narrow.transpose()?.flatten().map(Arc::new);
        Ok(Self {
            kernel: Arc::clone(&self.kernel),
            branch: narrow.or_else(|| self.branch.clone()),
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        activation: kernels::Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let branch = self.branch.as_deref();
        self.kernel.forward_beside(x, branch, activation, residual)
    }
}

/// A linear layer.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    spec: LayerSpec,
    matrix: Matrix,
    activation: kernels::Activation,
}

impl Linear {
    /// `inputs` to `outputs` numbers, with a bias.
    pub(crate) fn new(inputs: usize, outputs: usize, from: &LayerSource<'_>) -> Result<Self> {
        Self::read(shape(LayerKind::Linear, inputs, outputs), from)
    }

    /// As [`Linear::new`], without a bias.
    pub(crate) fn without_bias(inputs: usize, outputs: usize, from: &LayerSource<'_>) -> Result<Self> {
        let shape = shape(LayerKind::Linear, inputs, outputs);
        Self::read(LayerShape { bias: false, ..shape }, from)
    }

    /// As [`Linear::new`], stored as the kernel of a 1x1 convolution.
    pub(crate) fn pointwise(inputs: usize, outputs: usize, from: &LayerSource<'_>) -> Result<Self> {
        Self::read(shape(LayerKind::Pointwise, inputs, outputs), from)
    }

    /// As [`Linear::pointwise`], without a bias.
    pub(crate) fn pointwise_without_bias(
        inputs: usize,
        outputs: usize,
        from: &LayerSource<'_>,
    ) -> Result<Self> {
        let shape = shape(LayerKind::Pointwise, inputs, outputs);
        Self::read(LayerShape { bias: false, ..shape }, from)
    }

    fn read(shape: LayerShape, from: &LayerSource<'_>) -> Result<Self> {
        let spec = LayerSpec::at(from, shape);
        let weight = spec.weight(from)?.reshape((shape.outputs, shape.inputs))?;
        let bias = shape.bias.then(|| spec.bias(from)).transpose()?;
        let kernel = kernels::Linear::new(&weight, bias.as_ref(), &spec.device)?;
        Ok(Self {
            spec,
            matrix: Matrix::new(kernel),
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

    /// The layer for `count` rows from row `first` on of those that are `of` in all, each of which may have a set of LoRAs of its
    /// own.
    pub(super) fn of_rows(&self, first: usize, count: usize, of: usize) -> Result<Self> {
        Ok(Self {
            matrix: self.matrix.of_rows(first, count, of)?,
            ..self.clone()
        })
    }

    /// The numbers in which it computes.
    pub(crate) fn precision(&self) -> kernels::Precision {
        self.matrix.kernel.precision()
    }

    /// How many numbers go out.
    pub(crate) fn outputs(&self) -> usize {
        self.spec.shape.outputs
    }

    /// Bytes of a number of what goes out.
    pub(crate) const fn number_bytes(&self) -> usize {
        self.spec.device.number_bytes()
    }

    /// `x`: (…, inputs). Result: (…, outputs).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.matrix.forward(x, self.activation, None)
    }

    /// As [`Linear::forward`], with `residual` (…, outputs) added last.
    pub(crate) fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.matrix.forward(x, self.activation, Some(residual))
    }
}

impl Layer for Linear {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.matrix.size_bytes()
    }

    fn beside(&mut self) -> Option<&mut Beside> {
        Some(&mut self.matrix.branch)
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        self.matrix.patch(patch, &self.spec, kernels::Linear::new)
    }
}

/// GEGLU (Shazeer, 2020): a layer whose first half is multiplied by the GELU of its second.
#[derive(Clone, Debug)]
pub(crate) struct Geglu {
    spec: LayerSpec,
    matrix: Matrix,
}

impl Geglu {
    /// `inputs` to `outputs` numbers, by a matrix of twice as many outputs.
    pub(crate) fn new(inputs: usize, outputs: usize, from: &LayerSource<'_>) -> Result<Self> {
        let shape = shape(LayerKind::Linear, inputs, 2 * outputs);
        let spec = LayerSpec::at(from, shape);
        let kernel = kernels::Linear::geglu(&spec.weight(from)?, Some(&spec.bias(from)?), from.device())?;
        Ok(Self {
            spec,
            matrix: Matrix::new(kernel),
        })
    }

    /// `x`: (…, inputs). Result: (…, outputs).
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.matrix.forward(x, kernels::Activation::None, None)
    }
}

impl Layer for Geglu {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.matrix.size_bytes()
    }

    fn beside(&mut self) -> Option<&mut Beside> {
        Some(&mut self.matrix.branch)
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        self.matrix.patch(patch, &self.spec, kernels::Linear::geglu)
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
