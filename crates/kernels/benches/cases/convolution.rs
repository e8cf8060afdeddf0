//! 3x3 convolutions of the UNet and of the VAE.

use candle_core::{DType, Tensor};
use pentimento_kernels::Padding;
use pentimento_kernels::cpu::{Conv2d, ConvFusion, multiplications};

use super::{Case, Make, Work, f32s, noise, run};

#[derive(Clone, Copy)]
struct Layer {
    batch: usize,
    inputs: usize,
    outputs: usize,
    /// Height and width of the image that comes in.
    side: usize,
    stride: usize,
    /// Whether the image is enlarged to twice its size first.
    upsample: bool,
    weights: DType,
}

const fn same(inputs: usize, outputs: usize, side: usize) -> Layer {
    Layer {
        batch: 1,
        inputs,
        outputs,
        side,
        stride: 1,
        upsample: false,
        weights: DType::F32,
    }
}

const LAYERS: [Layer; 19] = [
    same(320, 320, 64),
    Layer {
        batch: 8,
        ..same(320, 320, 64)
    },
    same(640, 320, 64),
    same(640, 640, 32),
    same(1280, 1280, 16),
    Layer {
        batch: 8,
        ..same(1280, 1280, 16)
    },
    same(2560, 1280, 16),
    Layer {
        weights: DType::F16,
        ..same(2560, 1280, 16)
    },
    same(1280, 1280, 8),
    Layer {
        weights: DType::F16,
        ..same(1280, 1280, 8)
    },
    same(2560, 1280, 8),
    same(512, 512, 64),
    same(512, 512, 128),
    Layer {
        upsample: true,
        ..same(512, 512, 64)
    },
    same(256, 256, 256),
    same(128, 128, 512),
    Layer {
        stride: 2,
        ..same(320, 320, 64)
    },
    same(4, 320, 64),
    same(128, 3, 512),
];

pub(super) fn all() -> Vec<Case> {
    LAYERS.into_iter().map(Layer::case).collect()
}

impl Layer {
    fn case(self) -> Case {
        let pixels = self.batch * self.output() * self.output();
        let direct = 2 * 9 * pixels * self.inputs * self.outputs;
        let image = self.batch * self.side * self.side * self.inputs;
        let weights = 9 * self.inputs * self.outputs * self.weights.size_in_bytes();
        Case {
            kernel: "convolution",
            shape: self.to_string(),
            work: Work {
                direct,
                done: 2 * self.batch * self.multiplications(),
                bytes: f32s(image + pixels * self.outputs + self.outputs) + weights,
            },
            ours: self.ours(),
            in_bf16: None,
            candle: (self.weights == DType::F32).then(|| self.candle()),
        }
    }

    /// Height and width of the result.
    const fn output(self) -> usize {
        if self.upsample {
            2 * self.side
        } else {
            self.side / self.stride
        }
    }

    /// Of one image.
    fn multiplications(self) -> usize {
        let side = if self.upsample { 2 * self.side } else { self.side };
        let channels = (self.inputs, self.outputs);
        multiplications(channels, self.stride, (self.side, self.side), (side, side))
    }

    fn ours(self) -> Make {
        Box::new(move || {
            let weight = noise(&[self.outputs, self.inputs, 3, 3]);
            let weight = weight.to_dtype(self.weights).unwrap();
            let layer =
                Conv2d::new(&weight, Some(&noise(&[self.outputs])), self.stride, Padding::SAME).unwrap();
            let x = noise(&[self.batch, self.side, self.side, self.inputs]);
            let fusion = ConvFusion {
                upsample: self.upsample.then(|| (self.output(), self.output())),
                ..ConvFusion::default()
            };
            run(move || layer.forward(&x, fusion))
        })
    }

    fn candle(self) -> Make {
        Box::new(move || {
            let weight = noise(&[self.outputs, self.inputs, 3, 3]);
            let bias = noise(&[1, self.outputs, 1, 1]);
            let x = noise(&[self.batch, self.inputs, self.side, self.side]);
            let convolve = move |x: &Tensor| x.conv2d(&weight, 1, self.stride, 1, 1)?.broadcast_add(&bias);
            run(move || {
                if self.upsample {
                    convolve(&x.upsample_nearest2d(self.output(), self.output())?)
                } else {
                    convolve(&x)
                }
            })
        })
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {} at {}", self.inputs, self.outputs, self.side)?;
        if self.upsample {
            write!(f, " enlarged to {}", self.output())?;
        }
        if self.stride > 1 {
            write!(f, ", stride {}", self.stride)?;
        }
        write!(f, ", {}", self.weights.as_str())?;
        if self.batch > 1 {
            write!(f, ", batch {}", self.batch)?;
        }
        Ok(())
    }
}
