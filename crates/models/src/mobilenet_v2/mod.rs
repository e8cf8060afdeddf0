//! MobileNetV2 (Sandler et al., 2018, table 2) as Keras has it, with two hidden layers behind it as in `nsfwjs`.
//!
//! Inverted residuals: a 1x1 convolution that widens, a 3x3 convolution of each channel alone, a 1x1 convolution that narrows.
//! Batch norms (epsilon 0.001) are folded into the weights before them. It is always on the CPU.

mod depthwise;
mod picture;

use pentimento_types::RgbImage;

use self::depthwise::Depthwise;
use crate::ModelError;
use crate::error::During;
use crate::keras_file::{KerasFile, conv2d, linear};
use crate::layers::{
    Conv2d, ConvFusion, HostTensor, KernelError, Linear, Result, Stride, Tensor, on_pool, relu,
};

/// Of Keras' `BatchNormalization` in this network.
const EPSILON: f64 = 0.001;
/// Outputs and first stride of each group of blocks, and how many there are; all but the first widen sixfold.
const GROUPS: [(usize, usize, usize); 7] = [
    (16, 1, 1),
    (24, 2, 2),
    (32, 2, 3),
    (64, 2, 4),
    (96, 1, 3),
    (160, 2, 3),
    (320, 1, 1),
];

/// A classifier with five classes.
#[derive(Debug)]
pub struct MobileNetV2 {
    first: Conv2d,
    blocks: Vec<Block>,
    last: Linear,
    hidden: [Linear; 2],
    output: Linear,
}

#[derive(Debug)]
struct Block {
    expand: Option<Linear>,
    depthwise: Depthwise,
    project: Linear,
    is_residual: bool,
}

impl MobileNetV2 {
    /// Classes that it tells apart.
    pub const CLASSES: usize = 5;

    /// Reads the network from a file of safetensors with Keras' names.
    ///
    /// # Errors
    /// When the file is none, or a tensor is missing or has another shape.
    pub fn from_safetensors(bytes: &[u8]) -> std::result::Result<Self, ModelError> {
        Self::load(bytes).during("loading the classifier")
    }

    fn load(bytes: &[u8]) -> Result<Self> {
        let file = KerasFile::read(bytes)?;
        let (kernel, bias) = folded(&file, &file.kernel("Conv1")?, "bn_Conv1")?;
        let mut blocks = Vec::new();
        let mut inputs = 32;
        for (outputs, stride, count) in GROUPS {
            for at in 0..count {
                let name = match blocks.len() {
                    0 => "expanded_conv_".to_owned(),
                    number => format!("block_{number}_"),
                };
                let stride = if at == 0 { stride } else { 1 };
                blocks.push(Block::load(&file, &name, stride, inputs == outputs)?);
                inputs = outputs;
            }
        }
        Ok(Self {
            first: conv2d("Conv1", &kernel, bias, Stride::TwoPaddedAfter)?,
            blocks,
            last: pointwise(&file, "Conv_1", "Conv_1_bn")?,
            hidden: [file.dense("dense_1")?, file.dense("dense_2")?],
            output: file.dense("dense_3")?,
        })
    }

    /// The probabilities of the classes, which sum to one, for a picture of any size.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn classify(&self, picture: &RgbImage) -> std::result::Result<[f32; Self::CLASSES], ModelError> {
        on_pool(|| self.scores(&self.features(picture)?)).during("running the classifier")
    }

    /// The means (1, 1280) of the last convolution's channels.
    fn features(&self, picture: &RgbImage) -> Result<HostTensor> {
        let x = Tensor::Host(picture::prepare(picture)?);
        let x = self.first.forward(&x, ConvFusion::default())?.into_host()?;
        let mut x = Tensor::Host(x.clamp(0.0_f32, 6.0)?);
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        // (1, 7, 7, 1280)
        let x = self.last.forward(&x)?.into_host()?;
        Ok(x.clamp(0.0_f32, 6.0)?.mean((1, 2))?)
    }

    fn scores(&self, features: &HostTensor) -> Result<[f32; Self::CLASSES]> {
        let mut x = Tensor::Host(features.clone());
        for layer in &self.hidden {
            x = relu(layer.forward(&x)?)?;
        }
        let scores = candle_nn::ops::softmax_last_dim(&self.output.forward(&x)?.into_host()?)?;
        let scores = scores.flatten_all()?.to_vec1::<f32>()?;
        match scores.as_slice().try_into() {
            Ok(scores) => Ok(scores),
            Err(_) => Err(KernelError::mismatch(format!(
                "there are {} classes",
                scores.len()
            ))),
        }
    }
}

impl Block {
    fn load(file: &KerasFile, name: &str, stride: usize, is_residual: bool) -> Result<Self> {
        let named = |part: &str| format!("{name}{part}");
        let expand = || pointwise(file, &named("expand"), &named("expand_BN"));
        Ok(Self {
            expand: (name != "expanded_conv_").then(expand).transpose()?,
            depthwise: Depthwise::load(file, &named("depthwise"), stride)?,
            project: pointwise(file, &named("project"), &named("project_BN"))?,
            is_residual,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let expanded = self.expand.as_ref().map(|expand| expand.forward(x)).transpose()?;
        let y = self.depthwise.forward(expanded.as_ref().unwrap_or(x))?;
        if self.is_residual {
            self.project.forward_add(&y, x)
        } else {
            self.project.forward(&y)
        }
    }
}

/// A 1x1 convolution followed by a batch norm.
fn pointwise(file: &KerasFile, name: &str, norm: &str) -> Result<Linear> {
    let (kernel, bias) = folded(file, &file.kernel(name)?, norm)?;
    linear(name, &kernel.flatten_from(1)?, bias)
}

/// A kernel (outputs, …) and a bias that do what the kernel and the norm after it do.
fn folded(file: &KerasFile, kernel: &HostTensor, norm: &str) -> Result<(HostTensor, HostTensor)> {
    let part = |part: &str| file.get(&format!("{norm}/{part}"));
    let scale = (part("gamma")? / (part("moving_variance")? + EPSILON)?.sqrt()?)?;
    let bias = (part("beta")? - (part("moving_mean")? * &scale)?)?;
    let scale = scale.reshape((scale.elem_count(), 1, 1, 1))?;
    Ok((kernel.broadcast_mul(&scale)?, bias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pentimento_testkit::{Golden, Tolerance, assert_close, assert_values_close};
    use pentimento_types::Size;

    fn network() -> MobileNetV2 {
        MobileNetV2::from_safetensors(pentimento_embedded_nets::NSFW_MOBILENET_V2).expect("loads")
    }

    fn picture(golden: &Golden, name: &str) -> RgbImage {
        let &[height, width, 3] = golden.shape(name) else {
            panic!("{name} is no picture")
        };
        let size = Size {
            width: width as u32,
            height: height as u32,
        };
        RgbImage::new(size, golden.values(name)).expect("the bytes fit")
    }

    #[test]
    fn features_and_scores_are_those_of_the_reference() {
        let (golden, network) = (Golden::open("embedded_nets/classes.safetensors"), network());
        let names = golden.names();
        let names: Vec<_> = names
            .iter()
            .filter_map(|name| name.strip_suffix(".picture"))
            .collect();
        assert!(names.len() >= 8, "{names:?}");
        for name in names {
            let picture = picture(&golden, &format!("{name}.picture"));
            let features = network.features(&picture).expect("runs");
            let expected = golden
                .tensor(&format!("{name}.features"))
                .unsqueeze(0)
                .expect("a row");
            assert_close(name, &features, &expected, Tolerance::CLASSIFIER_FEATURES);
            let scores = network.classify(&picture).expect("runs");
            let expected = golden.values(&format!("{name}.scores"));
            assert_values_close(name, &scores, &expected, Tolerance::CLASSIFIER);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let file = pentimento_embedded_nets::NSFW_MOBILENET_V2;
        assert!(MobileNetV2::from_safetensors(&file[..file.len() - 1]).is_err());
        assert!(MobileNetV2::from_safetensors(pentimento_embedded_nets::ESRGAN_SLIM_X2).is_err());
    }
}
