//! The graph of a convolution with bias, which a linear layer is as well: one with a kernel of 1x1 over lines of 1 pixel.

use cudarc::cudnn::sys::{
    cudnnConvolutionMode_t as ConvMode, cudnnDataType_t as NumberType, cudnnPointwiseMode_t as Pointwise,
};

use super::descriptor::{Descriptor, Kind, Name};
use super::{ALIGNED, Card, Why};
use crate::command::{ConvCall, LinearCall};
use crate::data::DType;

/// The numbers by which operands are found when a plan is executed.
pub(super) const X: i64 = 1;
pub(super) const WEIGHT: i64 = 2;
pub(super) const BIAS: i64 = 3;
pub(super) const RESULT: i64 = 4;
const SUM: i64 = 5;

/// A layer and its size, without the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConvKey {
    pub(crate) dtype: DType,
    /// (h, w) of the input and of the output.
    pub(crate) from: (usize, usize),
    pub(crate) to: (usize, usize),
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) side: usize,
    pub(crate) stride: usize,
    pub(crate) before: usize,
    pub(crate) bias: bool,
}

impl From<&ConvCall> for ConvKey {
    fn from(call: &ConvCall) -> Self {
        Self {
            dtype: call.dtype,
            from: call.from,
            to: call.to,
            inputs: call.inputs,
            outputs: call.outputs,
            side: call.side,
            stride: call.stride,
            before: call.before,
            bias: call.bias.is_some(),
        }
    }
}

impl From<&LinearCall> for ConvKey {
    /// The lines of a row are the pixels of an image that is one pixel wide.
    fn from(call: &LinearCall) -> Self {
        let lines = (call.lines / call.rows.max(1), 1);
        Self {
            dtype: call.dtype,
            from: lines,
            to: lines,
            inputs: call.inputs,
            outputs: call.outputs,
            side: 1,
            stride: 1,
            before: 0,
            bias: call.bias.is_some(),
        }
    }
}

/// The graph for a number of rows, with the descriptors that it refers to.
pub(super) fn graph(card: &Card, key: ConvKey, rows: usize) -> Result<(Descriptor, Vec<Descriptor>), Why> {
    let stored = match key.dtype {
        DType::F32 => NumberType::CUDNN_DATA_FLOAT,
        DType::F16 => NumberType::CUDNN_DATA_HALF,
        DType::I32 | DType::Address => return Err("layers compute floats".to_owned()),
    };
    let image = |id, channels, (h, w), number, hidden| tensor(id, [rows, channels, h, w], number, hidden);
    let x = image(X, key.inputs, key.from, stored, false)?;
    let weight = tensor(
        WEIGHT,
        [key.outputs, key.inputs, key.side, key.side],
        stored,
        false,
    )?;
    let y = image(RESULT, key.outputs, key.to, stored, false)?;
    let shape = shape(key)?;
    if !key.bias {
        let product = product(&shape, (&x, &weight), &y)?;
        let graph = over(card, &[&product])?;
        return Ok((graph, vec![x, weight, y, shape, product]));
    }
    let sum = image(SUM, key.outputs, key.to, NumberType::CUDNN_DATA_FLOAT, true)?;
    let bias = tensor(BIAS, [1, key.outputs, 1, 1], stored, false)?;
    let product = product(&shape, (&x, &weight), &sum)?;
    let add = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .pointwise(Name::CUDNN_ATTR_POINTWISE_MODE, Pointwise::CUDNN_POINTWISE_ADD)?
        .number_type(Name::CUDNN_ATTR_POINTWISE_MATH_PREC, NumberType::CUDNN_DATA_FLOAT)?
        .finished()?;
    let addition = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .child(Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &add)?
        .child(Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &sum)?
        .child(Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &bias)?
        .child(Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &y)?
        .finished()?;
    let graph = over(card, &[&product, &addition])?;
    Ok((
        graph,
        vec![x, weight, y, shape, sum, bias, product, add, addition],
    ))
}

fn over(card: &Card, operations: &[&Descriptor]) -> Result<Descriptor, Why> {
    let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
        .children(Name::CUDNN_ATTR_OPERATIONGRAPH_OPS, operations)?;
    match card {
        Card::Present(handle) => graph
            .handle(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, handle)?
            .finished(),
        Card::Described(_) => graph.finished(),
    }
}

/// A tensor with channels innermost; `hidden` ones are not stored.
fn tensor(id: i64, dims: [usize; 4], number: NumberType, hidden: bool) -> Result<Descriptor, Why> {
    let dims = dims.map(|side| i64::try_from(side).unwrap_or(i64::MAX));
    let [_, channels, h, w] = dims;
    Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .number_type(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, number)?
        .ints(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &dims)?
        .ints(
            Name::CUDNN_ATTR_TENSOR_STRIDES,
            &[channels * h * w, 1, w * channels, channels],
        )?
        .ints(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[id])?
        .ints(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[ALIGNED.cast_signed()])?
        .flag(Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL, hidden)?
        .finished()
}

fn shape(key: ConvKey) -> Result<Descriptor, Why> {
    let int = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    // What is missing behind the input for the last place of the output.
    let after = |from: usize, to: usize| {
        int(((to.max(1) - 1) * key.stride + key.side).saturating_sub(from + key.before))
    };
    let behind = [after(key.from.0, key.to.0), after(key.from.1, key.to.1)];
    Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .number_type(
            Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
            NumberType::CUDNN_DATA_FLOAT,
        )?
        .convolution(
            Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            ConvMode::CUDNN_CROSS_CORRELATION,
        )?
        .ints(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2])?
        .ints(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[int(key.before); 2])?
        .ints(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &behind)?
        .ints(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1, 1])?
        .ints(Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, &[int(key.stride); 2])?
        .finished()
}

fn product(
    shape: &Descriptor,
    (x, weight): (&Descriptor, &Descriptor),
    y: &Descriptor,
) -> Result<Descriptor, Why> {
    Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
        .child(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, shape)?
        .child(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, x)?
        .child(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, weight)?
        .child(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, y)?
        .floats(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, &[1.0])?
        .floats(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, &[0.0])?
        .finished()
}
