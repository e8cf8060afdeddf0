//! A CUDA device, by the driver that is opened at run time. Nothing here has run on a GPU yet.

mod probe;

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::DriverError;
use cudarc::driver::result as cuda;
use cudarc::driver::sys::{self, cudaError_enum as Status};

use self::probe::{LEAST_DRIVER, describe, driver_number, suits, words};
pub(crate) use self::probe::{count, libraries};
use super::{Description, Driver, Graph, Preparation, compile};
use crate::command::{Arg, Command, Launch, LinearCall, Span};
use crate::error::{Error, Result};
use crate::plans::{self, ConvKey, Operands, Plan, Plans};

/// Threads of a block that adds.
const ADD_THREADS: u32 = 256;

/// Shared memory that a block has without asking for more.
const PLAIN_SHARED: usize = 48 << 10;

/// A device, its context, one stream, and our kernels on it.
#[derive(Debug)]
pub(crate) struct Cuda {
    description: Description,
    state: Mutex<State>,
    // Given back in this order.
    plans: Mutex<Plans>,
    /// For whoever only looks, and must not wait for a plan that is being made.
    plan_count: AtomicUsize,
    module: Module,
    stream: Stream,
    context: Context,
}

/// A device's primary context.
#[derive(Debug)]
struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
}

impl Context {
    fn of(device: sys::CUdevice) -> std::result::Result<Self, DriverError> {
        // SAFETY: the device is the driver's.
        let handle = unsafe { cuda::primary_ctx::retain(device) }?;
        let context = Self { device, handle };
        context.enter()?;
        Ok(context)
    }

    fn enter(&self) -> std::result::Result<(), DriverError> {
        // SAFETY: the context is retained until this is dropped.
        unsafe { cuda::ctx::set_current(self.handle) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained when this was made.
        let _ = unsafe { cuda::primary_ctx::release(self.device) };
    }
}

/// Our kernels on the device.
#[derive(Debug)]
struct Module(sys::CUmodule);

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: nobody else has the module.
        let _ = unsafe { cuda::module::unload(self.0) };
    }
}

/// The queue of everything that the device is told.
#[derive(Debug)]
struct Stream(sys::CUstream);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: nobody uses the stream any more.
        let _ = unsafe { cuda::stream::destroy(self.0) };
    }
}

/// A program as a graph.
#[derive(Debug)]
pub(crate) struct CudaGraph {
    graph: sys::CUgraph,
    executable: sys::CUgraphExec,
    /// Whose kernels it launches.
    _plans: Vec<Arc<Plan>>,
}

// SAFETY: a graph is not tied to a thread, and whoever has it is the only one to use it.
unsafe impl Send for CudaGraph {}
// SAFETY: as above; it is launched under the arena's lock only.
unsafe impl Sync for CudaGraph {}

impl Drop for CudaGraph {
    fn drop(&mut self) {
        if !self.executable.is_null() {
            // SAFETY: nobody else has it.
            let _ = unsafe { cuda::graph::exec_destroy(self.executable) };
        }
        // SAFETY: nobody else has it.
        let _ = unsafe { cuda::graph::destroy(self.graph) };
    }
}

// SAFETY: the handles are those of the driver, which may be used from any thread once the context is the thread's; every call
// makes it so first.
unsafe impl Send for Cuda {}
// SAFETY: as above; the driver locks what it shares.
unsafe impl Sync for Cuda {}

#[derive(Debug, Default)]
struct State {
    functions: HashMap<String, Function>,
    lost: Option<Error>,
    /// While a graph is being made: the plans that it will refer to.
    captured: Option<Vec<Arc<Plan>>>,
}

#[derive(Clone, Copy, Debug)]
struct Function {
    handle: sys::CUfunction,
    shared_bytes: usize,
}

impl Cuda {
    /// The device with this number, with our kernels, which are kept in `cache` if there is one.
    pub(crate) fn open(ordinal: usize, cache: Option<&Path>) -> Result<Self> {
        let unavailable = |why: String| Error::Unavailable { why };
        let count = c_int::try_from(count()?).unwrap_or(c_int::MAX);
        let asked = |error: DriverError| unavailable(words(error));
        let version = driver_number().map_err(unavailable)?;
        if version < LEAST_DRIVER {
            return Err(unavailable(format!(
                "the NVIDIA driver is for CUDA {}.{}; 580 or newer is needed, which is for CUDA 13.0",
                version / 1000,
                version % 1000 / 10
            )));
        }
        let number = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        if number >= count {
            return Err(unavailable(format!(
                "device {ordinal} was asked for, and there are {count}"
            )));
        }
        let device = cuda::device::get(number).map_err(asked)?;
        let description = describe(device).map_err(asked)?;
        suits(description.capability).map_err(unavailable)?;
        let cubin = compile::cubin(description.capability, cache).map_err(unavailable)?;
        plans::version().map_err(unavailable)?;
        let context = Context::of(device).map_err(asked)?;
        let stream = Stream(cuda::stream::create(cuda::stream::StreamKind::NonBlocking).map_err(asked)?);
        // SAFETY: the image is a whole cubin, whose length its header says.
        let module = unsafe { cuda::module::load_data(cubin.as_ptr().cast()) }
            .map(Module)
            .map_err(|error| unavailable(format!("our kernels do not load: {}", words(error))))?;
        let plans = Plans::new(stream.0.cast()).map_err(unavailable)?;
        Ok(Self {
            plans: Mutex::new(plans),
            plan_count: AtomicUsize::new(0),
            stream,
            module,
            description,
            state: Mutex::default(),
            context,
        })
    }

    /// Makes the context this thread's.
    fn enter(&self) -> std::result::Result<(), DriverError> {
        self.context.enter()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call, unless one has failed before. What fails is for ever, but for want of memory.
    fn call<T>(&self, what: &str, call: impl FnOnce() -> std::result::Result<T, DriverError>) -> Result<T> {
        if let Some(error) = self.state().lost.clone() {
            return Err(error);
        }
        self.enter()
            .and_then(|()| call())
            .map_err(|error| self.fail(format!("{what}: {}", words(error))))
    }

    /// What an error of a queued call means: the device is lost. While a graph is made nothing runs, so there the graph alone is.
    fn fail(&self, why: String) -> Error {
        let mut state = self.state();
        if state.captured.is_some() {
            return Error::Library { why };
        }
        let error = Error::Lost { why };
        state.lost = Some(error.clone());
        error
    }

    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let known = self.state().functions.get(&launch.kernel).copied();
        let mut function = if let Some(function) = known {
            function
        } else {
            let name = CString::new(launch.kernel.as_str()).unwrap_or_default();
            // SAFETY: the module is loaded until this is dropped.
            let handle = self.call(&launch.kernel, || unsafe {
                cuda::module::get_function(self.module.0, name)
            })?;
            Function {
                handle,
                shared_bytes: PLAIN_SHARED,
            }
        };
        if launch.shared_bytes > function.shared_bytes {
            let bytes = c_int::try_from(launch.shared_bytes).unwrap_or(c_int::MAX);
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is one of the module's.
            let set = || unsafe { cuda::function::set_function_attribute(function.handle, attribute, bytes) };
            self.call(&launch.kernel, set)?;
            function.shared_bytes = launch.shared_bytes;
        }
        if known.is_none_or(|known| known.shared_bytes != function.shared_bytes) {
            self.state().functions.insert(launch.kernel.clone(), function);
        }
        Ok(function.handle)
    }

    /// A layer by cuDNN.
    ///
    /// # Safety
    /// As [`Plans::execute`].
    unsafe fn convolve(&self, layer: (ConvKey, usize), operands: Operands, workspace: Span) -> Result<()> {
        // Its context first, and no call on a device that is lost.
        self.call("a layer", || Ok(()))?;
        let mut plans = self.kept_plans();
        let prepared = plans
            .prepare(layer, operands, workspace)
            .map_err(Error::library)?;
        // SAFETY: the caller's; the workspace is as long as the plan wants, which `prepare` has seen.
        let done = unsafe { plans.execute(&prepared) };
        // Something may have been launched by now, of which nobody knows the end.
        done.map_err(|why| self.fail(why))?;
        if let Some(held) = self.state().captured.as_mut() {
            held.push(prepared.plan());
        }
        Ok(())
    }

    fn kept_plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    /// As [`Driver::run`].
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let function = self.function(launch)?;
        let mut values: Vec<u64> = launch.args.iter().map(|arg| arg.bits()).collect();
        let mut parameters: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| std::ptr::from_mut(value).cast())
            .collect();
        let [grid, block] = [launch.grid, launch.block].map(|[x, y, z]| (x, y, z));
        let shared_bytes = u32::try_from(launch.shared_bytes).unwrap_or(u32::MAX);
        // SAFETY: the caller says that the parameters are the kernel's; the driver copies them before it returns.
        let run = || unsafe {
            cuda::launch_kernel(
                function,
                grid,
                block,
                shared_bytes,
                self.stream.0,
                &mut parameters,
            )
        };
        self.call(&launch.kernel, run)
    }
}

impl Driver for Cuda {
    fn description(&self) -> Description {
        self.description.clone()
    }

    fn free_bytes(&self) -> Result<usize> {
        self.call("cuMemGetInfo", cuda::mem_get_info)
            .map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        // SAFETY: nothing is asked of the bytes.
        let found = self.call("cuMemAlloc", || match unsafe { cuda::malloc_sync(bytes) } {
            Err(DriverError(Status::CUDA_ERROR_OUT_OF_MEMORY)) => Ok(None),
            other => other.map(Some),
        })?;
        match found {
            Some(address) => Ok(address),
            None => Err(Error::OutOfMemory {
                asked: bytes,
                free: self.free_bytes()?,
            }),
        }
    }

    fn free(&self, address: u64) {
        // SAFETY: `allocate` has returned the address, and its owner is gone. The driver waits for what still uses it.
        let _ = self.call("cuMemFree", || unsafe { cuda::free_sync(address) });
    }

    unsafe fn upload(&self, to: Span, bytes: &[u8]) -> Result<()> {
        let address = to.address().unwrap_or(0);
        // SAFETY: the caller's. Pageable memory has been read when the call returns.
        self.call("upload", || unsafe {
            cuda::memcpy_htod_async(address, bytes, self.stream.0)
        })
    }

    unsafe fn download(&self, from: Span, bytes: &mut [u8]) -> Result<()> {
        let address = from.address().unwrap_or(0);
        // SAFETY: the caller's; the bytes are borrowed until the stream is done.
        self.call("download", || unsafe {
            cuda::memcpy_dtoh_async(bytes, address, self.stream.0)
        })?;
        self.synchronize()
    }

    fn prepare(&self, command: &Command) -> Result<Preparation> {
        let Some((key, rows)) = layer_of(command) else {
            return Ok(Preparation::default());
        };
        self.call("a layer", || Ok(()))?;
        let mut plans = self.kept_plans();
        let plan = plans.plan(key, rows).map_err(Error::library)?;
        self.plan_count.store(plans.len(), Ordering::Relaxed);
        Ok(Preparation {
            workspace_bytes: plan.workspace_bytes(),
            held: Some(plan),
        })
    }

    unsafe fn run(&self, command: &Command, workspace: Span) -> Result<()> {
        match command {
            // SAFETY: the caller's.
            Command::Launch(launch) => unsafe { self.launch(launch) },
            Command::Copy { from, to } => {
                let [from_address, to_address] = [from, to].map(|span| span.address().unwrap_or(0));
                let bytes = from.bytes.min(to.bytes);
                // SAFETY: the caller's.
                let copy =
                    || unsafe { cuda::memcpy_dtod_async(to_address, from_address, bytes, self.stream.0) };
                self.call("copy", copy)
            }
            Command::Freed(_) => Ok(()),
            Command::Conv(call) => {
                let [x, weight, y] = [call.x, call.weight, call.y].map(|span| span.address().unwrap_or(0));
                let bias = call.bias.and_then(Span::address);
                // SAFETY: the caller's; the call's spans are as long as its sizes say.
                unsafe {
                    self.convolve(
                        (call.into(), call.rows),
                        Operands { x, weight, bias, y },
                        workspace,
                    )
                }
            }
            Command::Linear(call) => {
                let [x, weight, y] = [call.x, call.weight, call.y].map(|span| span.address().unwrap_or(0));
                let bias = call.bias.and_then(Span::address);
                // SAFETY: the caller's; the call's spans are as long as its sizes say.
                unsafe {
                    self.convolve(
                        (call.into(), call.rows),
                        Operands { x, weight, bias, y },
                        workspace,
                    )?
                };
                let Some(residual) = call.residual else {
                    return Ok(());
                };
                let addition = add_to(call, residual)?;
                // SAFETY: as above.
                unsafe { self.launch(&addition) }
            }
        }
    }

    unsafe fn graph(&self, commands: &[Command], workspace: Span) -> Result<Option<Graph>> {
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.call("cuCtxSetCurrent", || Ok(()))?;
        // SAFETY: the stream is there; nobody else captures on it.
        if unsafe { cuda::stream::begin_capture(self.stream.0, mode) }.is_err() {
            return self.synchronize().map(|()| None);
        }
        self.state().captured = Some(Vec::new());
        let captured = commands.iter().try_for_each(|command| {
            // SAFETY: the caller's.
            unsafe { self.run(command, workspace) }
        });
        // SAFETY: a capture has begun, and has to end even if something in it has failed.
        let ended = unsafe { cuda::stream::end_capture(self.stream.0) };
        let plans = self.state().captured.take().unwrap_or_default();
        let made = ended.ok().map(|graph| CudaGraph {
            graph,
            executable: std::ptr::null_mut(),
            _plans: plans,
        });
        let (Ok(()), Some(mut made)) = (captured, made) else {
            // The commands run one by one as well. Whether the device is still there shows at once.
            return self.synchronize().map(|()| None);
        };
        // SAFETY: the graph has just been made.
        let status = unsafe { sys::cuGraphInstantiateWithFlags(&raw mut made.executable, made.graph, 0) };
        if status.result().is_err() {
            return self.synchronize().map(|()| None);
        }
        Ok(Some(Graph::Cuda(made)))
    }

    unsafe fn replay(&self, graph: &Graph) -> Result<()> {
        match graph {
            // SAFETY: the caller's; the graph is whole, since it was made executable.
            Graph::Cuda(graph) => self.call("replay", || unsafe {
                cuda::graph::launch(graph.executable, self.stream.0)
            }),
            #[cfg(feature = "emulated")]
            Graph::Emulated(..) => Err(Error::operands("replay", "a graph of another device")),
        }
    }

    fn release(&self, graph: Graph) {
        // It belongs to the context, and what it launches may still be running.
        let _ = self.synchronize();
        let _ = self.enter();
        drop(graph);
    }

    fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream is there until this is dropped.
        self.call("cuStreamSynchronize", || unsafe {
            cuda::stream::synchronize(self.stream.0)
        })
    }

    fn plans(&self) -> usize {
        self.plan_count.load(Ordering::Relaxed)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // What the fields give back belongs to the context, which has to be this thread's.
        let _ = self.enter();
    }
}

/// The layer that a library computes, and for how many rows.
fn layer_of(command: &Command) -> Option<(ConvKey, usize)> {
    match command {
        Command::Conv(call) => Some((call.into(), call.rows)),
        Command::Linear(call) => Some((call.into(), call.rows)),
        Command::Launch(_) | Command::Copy { .. } | Command::Freed(_) => None,
    }
}

/// The launch that adds a linear layer's residual to its result, in place: each thread reads the numbers that it writes.
fn add_to(call: &LinearCall, residual: Span) -> Result<Launch> {
    let count = call.lines * call.outputs;
    let long =
        i64::try_from(count).map_err(|_| Error::operands("linear", "more numbers than a kernel counts"))?;
    let blocks = u32::try_from(count.div_ceil(ADD_THREADS as usize).clamp(1, 1 << 16)).unwrap_or(1);
    Ok(Launch {
        kernel: format!("add_{}", call.dtype.suffix()),
        grid: [blocks, 1, 1],
        block: [ADD_THREADS, 1, 1],
        shared_bytes: 0,
        args: vec![
            Arg::Pointer(call.y),
            Arg::Pointer(residual),
            Arg::Pointer(call.y),
            Arg::I64(long),
            Arg::I64(long),
            Arg::I64(0),
            Arg::I64(long),
        ],
    })
}
