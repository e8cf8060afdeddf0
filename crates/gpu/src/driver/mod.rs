//! What has to be there to compute: memory, launches, calls of libraries. A card has it by CUDA's driver, and a test by the
//! emulated device, which runs the same kernels with the same geometry on the host.

#[cfg(feature = "cuda")]
mod compile;
#[cfg(feature = "emulated")]
pub(crate) mod emulated;
#[cfg(feature = "emulated")]
pub(crate) mod faults;
#[cfg(feature = "emulated")]
mod heap;
#[cfg(feature = "cuda")]
pub(crate) mod real;
#[cfg(feature = "emulated")]
mod reference;

use std::any::Any;
use std::sync::Arc;

use crate::command::{Command, Span};
use crate::error::Result;

/// What a device says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// The maker's name for it.
    pub name: String,
    /// Compute capability, as (9, 0) for an H100.
    pub capability: (u32, u32),
    /// All of its memory, in bytes.
    pub memory_bytes: usize,
    /// Driver and libraries with their versions, one a line.
    pub software: Vec<String>,
}

/// What a library needs for a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preparation {
    /// Bytes that it works in.
    pub(crate) workspace_bytes: usize,
    /// What has to be there as long as the command is run.
    pub(crate) held: Option<Arc<dyn Any + Send + Sync>>,
}

/// A device, told what to do one thing after the other.
///
/// After [`Lost`](crate::Error::Lost) every further call returns it again. Whoever has the device tells it one thing at a time:
/// what one thread said while another has a graph made would become a part of that graph.
pub(crate) trait Driver: std::fmt::Debug + Send + Sync {
    fn description(&self) -> Description;

    /// Bytes that nobody uses now.
    fn free_bytes(&self) -> Result<usize>;

    /// The address of `bytes` bytes, a multiple of [`ALIGNMENT`](crate::arena::ALIGNMENT). What is in them is not said.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives back what `allocate` has returned. Errors show at the next call.
    fn free(&self, address: u64);

    /// # Safety
    /// `to` lies in memory of this device that is allocated, and is as long as `bytes`.
    unsafe fn upload(&self, to: Span, bytes: &[u8]) -> Result<()>;

    /// Waits for everything that was told before.
    ///
    /// # Safety
    /// `from` lies in memory of this device that is allocated, and is as long as `bytes`.
    unsafe fn download(&self, from: Span, bytes: &mut [u8]) -> Result<()>;

    /// Makes ready what a library needs for the command, which has no addresses yet. The first question about a layer chooses its
    /// engine.
    fn prepare(&self, command: &Command) -> Result<Preparation>;

    /// Runs the command after those before it; its errors may show at a later call.
    ///
    /// # Safety
    /// Every span of the command has an address in memory of this device that is allocated until it has run, and a launch's
    /// parameters are those that its kernel takes. So has `workspace`, of which nothing else is a part, as long as
    /// [`Driver::prepare`] says.
    unsafe fn run(&self, command: &Command, workspace: Span) -> Result<()>;

    /// These commands as one, for [`Driver::replay`]. They have been run before, so that nothing has to be loaded any more.
    /// None where the device cannot make one of them; they are run one by one then.
    ///
    /// # Safety
    /// As [`Driver::run`], for all of them, for as long as the graph is replayed.
    unsafe fn graph(&self, commands: &[Command], workspace: Span) -> Result<Option<Graph>>;

    /// Runs what a graph of this device is made of, after everything that was told before.
    ///
    /// # Safety
    /// What [`Driver::graph`] was told still holds.
    unsafe fn replay(&self, graph: &Graph) -> Result<()>;

    /// Gives a graph of this device back.
    fn release(&self, graph: Graph);

    /// Waits for everything that was told before.
    fn synchronize(&self) -> Result<()>;

    /// Plans of libraries that are kept.
    fn plans(&self) -> usize;
}

/// Commands that a device runs as one.
#[derive(Debug)]
pub(crate) enum Graph {
    /// A graph of CUDA.
    #[cfg(feature = "cuda")]
    Cuda(real::CudaGraph),
    /// The commands, each of which is run again, and the workspace.
    #[cfg(feature = "emulated")]
    Emulated(Vec<Command>, Span),
}
