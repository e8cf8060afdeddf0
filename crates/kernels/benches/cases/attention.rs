//! Attention of the UNet over pixels and over the 77 tokens of a prompt, and of the VAE.

use candle_core::Tensor;
use pentimento_kernels::AttnMask;
use pentimento_kernels::cpu::{attend, attend_in_bf16};

use super::{Case, Make, Work, f32s, noise, run};

#[derive(Clone, Copy)]
struct Layer {
    queries: usize,
    keys: usize,
    heads: usize,
    /// d, of a head.
    width: usize,
}

/// Queries, keys, heads, width of a head.
const LAYERS: [(usize, usize, usize, usize); 7] = [
    (4096, 4096, 8, 40),
    // After half of the tokens have been merged.
    (2048, 2048, 8, 40),
    (1024, 1024, 8, 80),
    (256, 256, 8, 160),
    (4096, 77, 8, 40),
    (1024, 77, 8, 80),
    (4096, 4096, 1, 512),
];

pub(super) fn all() -> Vec<Case> {
    let layer = |(queries, keys, heads, width)| Layer {
        queries,
        keys,
        heads,
        width,
    };
    LAYERS.into_iter().map(layer).map(Layer::case).collect()
}

impl Layer {
    fn case(self) -> Case {
        let Self {
            queries,
            keys,
            heads,
            width,
        } = self;
        let operations = 2 * 2 * queries * keys * heads * width;
        Case {
            kernel: "attention",
            shape: format!("{queries} over {keys}, {heads} heads of {width}"),
            work: Work {
                direct: operations,
                done: operations,
                bytes: f32s(2 * (queries + keys) * heads * width),
            },
            ours: self.ours(false),
            in_bf16: Some(self.ours(true)),
            candle: Some(self.candle()),
        }
    }

    fn ours(self, in_bf16: bool) -> Make {
        Box::new(move || {
            let row = |tokens| noise(&[1, tokens, self.heads * self.width]);
            let (q, k, v) = (row(self.queries), row(self.keys), row(self.keys));
            let attend = if in_bf16 { attend_in_bf16 } else { attend };
            run(move || attend(&q, &k, &v, self.heads, AttnMask::None))
        })
    }

    /// With the matrix of scores, and with the heads already apart.
    fn candle(self) -> Make {
        Box::new(move || {
            let head = |tokens| noise(&[1, self.heads, tokens, self.width]);
            let (q, k, v) = (head(self.queries), head(self.keys), head(self.keys));
            let scale = (self.width as f64).sqrt().recip();
            run(move || {
                let scores: Tensor = (q.matmul(&k.t()?)? * scale)?;
                candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)
            })
        })
    }
}
