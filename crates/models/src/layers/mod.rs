//! The layers that all networks are built of, and the only place that knows on what a layer computes.
//!
//! A layer has a name, its path in the checkpoint, and keeps its weights as its device wants them; outside of this
//! folder nobody sees a kernel's type. A network is given tensors of main memory and gives such back; between the two it sees
//! tensors of its device, which are the inputs and the results of a computation (`Programs`). Images are (B, h, w, C),
//! tokens (B, T, D).

mod attention;
mod branches;
mod conv;
mod embedding;
mod linear;
mod norm;
mod patch;
mod patch_embedding;
mod single_head;
mod spec;
mod token_merge;

pub(crate) use pentimento_kernels::{
    BranchSet, IndexPlace, InputList, Inputs, Programs, Result, RowIndex, SetsPlace, Tensor, TensorPlace,
    channels_first, channels_last, host_tensor, join_channels, on_pool, relu, to_f32,
};
pub use pentimento_kernels::{
    Device, DeviceLocation, GpuDevice, HostTensor, KernelError, LayerSource, Precision, ProgramMemory,
    ProgramsId,
};

pub(crate) use attention::{
    Attention, JoinedAttention, KeyValueProjections, KeyValues, KvPlaces, MoreKeyValues, Projections,
};
pub(crate) use branches::{branch_set, give_branches_of_rows, has_branches};
pub(crate) use conv::{Conv2d, ConvFusion, Stride};
pub(crate) use embedding::Embedding;
pub(crate) use linear::{Activation, Geglu, Linear, shortcut};
pub(crate) use norm::{GroupNorm, LayerNorm};
pub use patch::LayerPatch;
pub(crate) use patch_embedding::PatchEmbedding;
pub(crate) use single_head::SingleHeadAttention;
pub(crate) use spec::{Layer, each_spec, patch_each, size_bytes};
pub use spec::{LayerKind, LayerName, LayerShape, PatchOf};
pub(crate) use token_merge::TokenMerge;
