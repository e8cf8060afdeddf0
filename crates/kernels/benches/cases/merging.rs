//! Token merging on the UNet's outermost level: what it costs to find half of the tokens, and to go there and back.

use pentimento_kernels::cpu::TokenMerge;

use super::{Case, Make, Work, f32s, noise, run};

const WIDTH: usize = 320;

/// Sides of the latents: images of 512x512 and 1024x1024.
const SIDES: [usize; 2] = [64, 128];

pub(super) fn all() -> Vec<Case> {
    SIDES.into_iter().map(case).collect()
}

fn case(side: usize) -> Case {
    let tokens = side * side;
    // Three quarters of the tokens are compared with the fourth one.
    let operations = 2 * (tokens * 3 / 4) * (tokens / 4) * WIDTH;
    Case {
        kernel: "merging",
        shape: format!("half of {tokens} tokens of {WIDTH}"),
        work: Work {
            direct: operations,
            done: operations,
            // Read to compare and to average, half as many written and read as means, read once more as residual, written.
            bytes: f32s((5 * tokens) * WIDTH),
        },
        ours: ours(side),
        in_bf16: None,
        candle: None,
    }
}

fn ours(side: usize) -> Make {
    Box::new(move || {
        let x = noise(&[1, side * side, WIDTH]);
        run(move || {
            let merge =
                TokenMerge::choose(&x, (side, side), side * side / 2)?.expect("there is something to merge");
            merge.unmerge(&merge.merge(&x)?, &x)
        })
    })
}
