//! Group and layer normalisation.

use std::sync::Arc;

use pentimento_kernels::{self as kernels, LayerSource, Result, Tensor};

use super::patch::{LayerPatch, needed};
use super::spec::{Layer, LayerKind, LayerShape, LayerSpec};

/// A group norm over the channels of an image.
#[derive(Clone, Debug)]
pub(crate) struct GroupNorm {
    spec: LayerSpec,
    /// How many groups, and epsilon.
    how: (usize, f64),
    kernel: Arc<kernels::GroupNorm>,
}

impl GroupNorm {
    /// `width` channels in `groups` groups.
    pub(crate) fn new(groups: usize, width: usize, eps: f64, from: &LayerSource<'_>) -> Result<Self> {
        let (spec, how) = (spec(width, from), (groups, eps));
        let kernel = kernels::GroupNorm::new(&spec.weight(from)?, &spec.bias(from)?, how, from.device())?;
        Ok(Self {
            spec,
            how,
            kernel: Arc::new(kernel),
        })
    }

    /// `x`: (B, …, C). Result: the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernel.normalisation(x)?.apply(x)
    }

    /// The norm of `x` and SiLU, for the convolution that reads `x` next.
    pub(super) fn before_conv(&self, x: &Tensor) -> Result<kernels::Normalisation> {
        Ok(self.kernel.normalisation(x)?.with_silu())
    }
}

impl Layer for GroupNorm {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        let (weight, bias) = patch.weights()?;
        let kernel = kernels::GroupNorm::new(&weight, &needed(bias)?, self.how, &self.spec.device)?;
        self.kernel = Arc::new(kernel);
        Ok(self.size_bytes())
    }
}

/// A layer norm over the numbers of a token.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    spec: LayerSpec,
    eps: f32,
    kernel: Arc<kernels::LayerNorm>,
}

impl LayerNorm {
    /// `width` numbers.
    pub(crate) fn new(width: usize, eps: f32, from: &LayerSource<'_>) -> Result<Self> {
        let spec = spec(width, from);
        let kernel = kernels::LayerNorm::new(&spec.weight(from)?, &spec.bias(from)?, eps, from.device())?;
        Ok(Self {
            spec,
            eps,
            kernel: Arc::new(kernel),
        })
    }

    /// `x`: (…, D). Result: the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.kernel.forward(x)
    }
}

impl Layer for LayerNorm {
    fn specs(&self) -> &[LayerSpec] {
        std::slice::from_ref(&self.spec)
    }

    fn size_bytes(&self) -> usize {
        self.kernel.size_bytes()
    }

    fn patch(&mut self, patch: LayerPatch) -> Result<usize> {
        let (weight, bias) = patch.weights()?;
        let kernel = kernels::LayerNorm::new(&weight, &needed(bias)?, self.eps, &self.spec.device)?;
        self.kernel = Arc::new(kernel);
        Ok(self.size_bytes())
    }
}

fn spec(width: usize, from: &LayerSource<'_>) -> LayerSpec {
    let shape = LayerShape {
        kind: LayerKind::Norm,
        inputs: width,
        outputs: width,
        bias: true,
    };
    LayerSpec::at(from, shape)
}
