//! Linear layers: projections of attention, the two of a feed-forward network, CLIP's and the time embedding's.

use candle_core::{D, DType};
use pentimento_kernels::Activation;
use pentimento_kernels::cpu::Linear;

use super::{Case, Make, Work, f32s, noise, run};

#[derive(Clone, Copy)]
struct Layer {
    rows: usize,
    inputs: usize,
    /// Rows of the weight; GEGLU gives half as many columns.
    outputs: usize,
    gated: bool,
    weights: DType,
}

/// Rows, inputs, outputs, GEGLU.
const LAYERS: [(usize, usize, usize, bool); 11] = [
    (4096, 320, 320, false),
    (4096, 320, 2560, true),
    (4096, 1280, 320, false),
    (1024, 640, 640, false),
    (1024, 640, 5120, true),
    (1024, 2560, 640, false),
    (256, 1280, 1280, false),
    (256, 1280, 10240, true),
    (256, 5120, 1280, false),
    (77, 768, 3072, false),
    (1, 1280, 1280, false),
];

pub(super) fn all() -> Vec<Case> {
    let both = |(rows, inputs, outputs, gated)| {
        [DType::F32, DType::F16].map(|weights| {
            Layer {
                rows,
                inputs,
                outputs,
                gated,
                weights,
            }
            .case()
        })
    };
    LAYERS.into_iter().flat_map(both).collect()
}

impl Layer {
    fn case(self) -> Case {
        let gated = if self.gated { " GEGLU" } else { "" };
        let columns = if self.gated {
            self.outputs / 2
        } else {
            self.outputs
        };
        let operations = 2 * self.rows * self.inputs * self.outputs;
        let weights = self.inputs * self.outputs * self.weights.size_in_bytes();
        Case {
            kernel: "linear",
            shape: format!(
                "{}x{} to {}{gated}, {}",
                self.rows,
                self.inputs,
                self.outputs,
                self.weights.as_str()
            ),
            work: Work {
                direct: operations,
                done: operations,
                bytes: f32s(self.rows * (self.inputs + columns) + self.outputs) + weights,
            },
            ours: self.ours(false),
            // candle multiplies numbers of one type only.
            in_bf16: Some(self.ours(true)),
            candle: (self.weights == DType::F32).then(|| self.candle()),
        }
    }

    fn ours(self, in_bf16: bool) -> Make {
        Box::new(move || {
            let weight = noise(&[self.outputs, self.inputs])
                .to_dtype(self.weights)
                .unwrap();
            let bias = noise(&[self.outputs]);
            let layer = if in_bf16 {
                Linear::in_bf16(&weight, Some(&bias), self.gated).unwrap()
            } else if self.gated {
                Linear::geglu(&weight, Some(&bias)).unwrap()
            } else {
                Linear::new(&weight, Some(&bias)).unwrap()
            };
            let x = noise(&[self.rows, self.inputs]);
            run(move || layer.forward(&x, Activation::None, None))
        })
    }

    fn candle(self) -> Make {
        Box::new(move || {
            let weight = noise(&[self.outputs, self.inputs]).t().unwrap();
            let bias = noise(&[self.outputs]);
            let x = noise(&[self.rows, self.inputs]);
            run(move || {
                let y = x.matmul(&weight)?.broadcast_add(&bias)?;
                if self.gated {
                    let halves = y.chunk(2, D::Minus1)?;
                    &halves[0] * halves[1].gelu_erf()?
                } else {
                    Ok(y)
                }
            })
        })
    }
}
