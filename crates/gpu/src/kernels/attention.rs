//! The geometry of our attention kernels, as `attention.cu` instantiates them.

use crate::command::{Arg, AttentionCall, Launch, Span};
use crate::data::DType;

/// Warps of a block.
const WARPS: usize = 4;

/// Keys of a tile, and lanes of a warp.
const LANES: usize = 32;

/// Queries of a warp, and keys of a tile, on the matrix units.
const FRAGMENT: usize = 16;

/// The launch in f32 arithmetic, for heads up to 512 wide. None beyond, or where a size is more than a kernel counts.
pub(crate) fn plain(call: &AttentionCall, causal: bool) -> Option<Launch> {
    let (columns, of_warp) = match call.width {
        0..=64 => (2, 4),
        65..=160 => (5, 4),
        161..=512 => (16, 1),
        _ => return None,
    };
    let tile = LANES * (call.width + 1) + WARPS * of_warp * (call.width + LANES);
    let mut launch = launch(call, WARPS * of_warp)?;
    launch.kernel = format!("attend_{columns}_{}", call.dtype.suffix());
    launch.shared_bytes = tile * size_of::<f32>();
    launch.args.push(Arg::I32(i32::from(causal)));
    Some(launch)
}

/// The launch on the matrix units, for f16 and heads up to 160 wide. None otherwise.
pub(crate) fn tiles(call: &AttentionCall) -> Option<Launch> {
    let side = [48, 64, 80, 160].into_iter().find(|side| call.width <= *side)?;
    if call.dtype != DType::F16 {
        return None;
    }
    let mut launch = launch(call, WARPS * FRAGMENT)?;
    launch.kernel = format!("attend_tiles_{side}");
    launch.shared_bytes = 2 * FRAGMENT * (side + 8) * size_of::<u16>();
    Some(launch)
}

/// What both have in common.
fn launch(call: &AttentionCall, queries_of_block: usize) -> Option<Launch> {
    let side = |count: usize, most: usize| u32::try_from(count).ok().filter(|_| count <= most);
    let int = |value: usize| i32::try_from(value).ok().map(Arg::I32);
    let operand = |span: Span| Some(Arg::Pointer(span));
    Some(Launch {
        kernel: String::new(),
        grid: [
            side(call.queries.div_ceil(queries_of_block), i32::MAX as usize)?,
            side(call.heads, 65_535)?,
            side(call.rows, 65_535)?,
        ],
        block: [side(WARPS * LANES, 1024)?, 1, 1],
        shared_bytes: 0,
        args: [
            operand(call.q),
            operand(call.k),
            operand(call.v),
            operand(call.y),
            int(call.queries),
            int(call.keys),
            int(call.heads),
            int(call.width),
            Some(Arg::F32(call.scale)),
        ]
        .into_iter()
        .collect::<Option<Vec<_>>>()?,
    })
}
