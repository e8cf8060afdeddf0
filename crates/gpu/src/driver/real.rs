//! A CUDA device, by the driver that is opened at run time. Nothing here has run on a GPU yet.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::DriverError;
use cudarc::driver::result as cuda;
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, cudaError_enum as Status};

use super::{Description, Driver, compile};
use crate::command::{Command, Launch, Span};
use crate::error::{Error, Result};

/// Symbols of the driver that are used. One that is missing would end the process at its first use.
const SYMBOLS: &[&str] = &[
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuFuncSetAttribute",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
];

/// Shared memory that a block has without asking for more.
const PLAIN_SHARED: usize = 48 << 10;

/// A device, its context, one stream, and our kernels on it.
#[derive(Debug)]
pub(crate) struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    module: sys::CUmodule,
    description: Description,
    state: Mutex<State>,
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
        library().map_err(unavailable)?;
        cuda::init()
            .map_err(|error| unavailable(format!("the NVIDIA driver does not start: {}", words(error))))?;
        let asked = |error: DriverError| unavailable(words(error));
        let count = cuda::device::get_count().map_err(asked)?;
        let number = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        if number >= count {
            return Err(unavailable(format!(
                "device {ordinal} was asked for, and there are {count}"
            )));
        }
        let device = cuda::device::get(number).map_err(asked)?;
        let description = describe(device).map_err(asked)?;
        let cubin = compile::cubin(description.capability, cache).map_err(unavailable)?;
        // SAFETY: the device is the driver's.
        let context = unsafe { cuda::primary_ctx::retain(device) }.map_err(asked)?;
        let mut opened = Self {
            device,
            context,
            stream: std::ptr::null_mut(),
            module: std::ptr::null_mut(),
            description,
            state: Mutex::default(),
        };
        opened.enter().map_err(asked)?;
        opened.stream = cuda::stream::create(cuda::stream::StreamKind::NonBlocking).map_err(asked)?;
        // SAFETY: the image is a whole cubin, whose length its header says.
        opened.module = unsafe { cuda::module::load_data(cubin.as_ptr().cast()) }
            .map_err(|error| unavailable(format!("our kernels do not load: {}", words(error))))?;
        Ok(opened)
    }

    /// Makes the context this thread's.
    fn enter(&self) -> std::result::Result<(), DriverError> {
        // SAFETY: the context is held until this is dropped.
        unsafe { cuda::ctx::set_current(self.context) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call, unless one has failed before. What fails is for ever, but for want of memory.
    fn call<T>(&self, what: &str, call: impl FnOnce() -> std::result::Result<T, DriverError>) -> Result<T> {
        if let Some(error) = self.state().lost.clone() {
            return Err(error);
        }
        self.enter().and_then(|()| call()).map_err(|error| {
            let error = Error::Lost {
                why: format!("{what}: {}", words(error)),
            };
            self.state().lost = Some(error.clone());
            error
        })
    }

    fn function(&self, launch: &Launch) -> Result<sys::CUfunction> {
        let known = self.state().functions.get(&launch.kernel).copied();
        let mut function = if let Some(function) = known {
            function
        } else {
            let name = CString::new(launch.kernel.as_str()).unwrap_or_default();
            // SAFETY: the module is loaded until this is dropped.
            let handle = self.call(&launch.kernel, || unsafe {
                cuda::module::get_function(self.module, name)
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
        self.state().functions.insert(launch.kernel.clone(), function);
        Ok(function.handle)
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
            cuda::launch_kernel(function, grid, block, shared_bytes, self.stream, &mut parameters)
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
            cuda::memcpy_htod_async(address, bytes, self.stream)
        })
    }

    unsafe fn download(&self, from: Span, bytes: &mut [u8]) -> Result<()> {
        let address = from.address().unwrap_or(0);
        // SAFETY: the caller's; the bytes are borrowed until the stream is done.
        self.call("download", || unsafe {
            cuda::memcpy_dtoh_async(bytes, address, self.stream)
        })?;
        self.synchronize()
    }

    unsafe fn run(&self, command: &Command) -> Result<()> {
        match command {
            // SAFETY: the caller's.
            Command::Launch(launch) => unsafe { self.launch(launch) },
            Command::Copy { from, to } => {
                let [from_address, to_address] = [from, to].map(|span| span.address().unwrap_or(0));
                let bytes = from.bytes.min(to.bytes);
                // SAFETY: the caller's.
                let copy =
                    || unsafe { cuda::memcpy_dtod_async(to_address, from_address, bytes, self.stream) };
                self.call("copy", copy)
            }
            Command::Freed(_) => Ok(()),
            Command::Linear(_) | Command::Conv(_) | Command::Attention(_) => Err(Error::Unavailable {
                why: "calls of cuDNN are not written yet (issue 19)".to_owned(),
            }),
        }
    }

    fn synchronize(&self) -> Result<()> {
        // SAFETY: the stream is there until this is dropped.
        self.call("cuStreamSynchronize", || unsafe {
            cuda::stream::synchronize(self.stream)
        })
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.enter().is_ok() {
            if !self.module.is_null() {
                // SAFETY: nobody else has the module.
                let _ = unsafe { cuda::module::unload(self.module) };
            }
            if !self.stream.is_null() {
                // SAFETY: nobody else has the stream.
                let _ = unsafe { cuda::stream::destroy(self.stream) };
            }
        }
        // SAFETY: retained when this was made.
        let _ = unsafe { cuda::primary_ctx::release(self.device) };
    }
}

/// Whether the driver is there with all that is used of it, or what is missing.
fn library() -> std::result::Result<(), String> {
    // SAFETY: opening a library runs its initialisation, which NVIDIA's survive.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            "libcuda.so.1 was not found: there is no NVIDIA driver (580 or newer is needed)".to_owned(),
        );
    }
    // SAFETY: the library has just been opened.
    let library = unsafe { sys::culib() };
    for symbol in SYMBOLS {
        // SAFETY: the symbol is looked up and not used.
        if unsafe { library.get::<*const c_char>(symbol.as_bytes()) }.is_err() {
            return Err(format!(
                "libcuda has no `{symbol}`: the NVIDIA driver is too old or broken"
            ));
        }
    }
    Ok(())
}

fn describe(device: sys::CUdevice) -> std::result::Result<Description, DriverError> {
    // SAFETY: the device is the driver's.
    let attribute = |attribute| unsafe { cuda::device::get_attribute(device, attribute) };
    let side = |number: i32| u32::try_from(number).unwrap_or(0);
    let mut driver = 0;
    // SAFETY: the place is valid.
    unsafe { sys::cuDriverGetVersion(&raw mut driver) }.result()?;
    let mut software = vec![format!(
        "CUDA of the driver {}.{}",
        driver / 1000,
        driver % 1000 / 10
    )];
    if let Ok((major, minor)) = compile::version() {
        software.push(format!("NVRTC {major}.{minor}"));
    }
    Ok(Description {
        name: cuda::device::get_name(device)?,
        capability: (
            side(attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            )?),
            side(attribute(
                Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )?),
        ),
        // SAFETY: the device is the driver's.
        memory_bytes: unsafe { cuda::device::total_mem(device) }?,
        software,
    })
}

/// The driver's words for an error, with its name.
fn words(error: DriverError) -> String {
    let text = error
        .error_string()
        .map(CStr::to_string_lossy)
        .unwrap_or_default();
    format!("{text} ({:?})", error.0)
}
