//! What there is of CUDA on this machine: the driver with all that is used of it, the other libraries, and the devices.

use std::ffi::{CStr, c_char};

use cudarc::driver::DriverError;
use cudarc::driver::result as cuda;
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use crate::driver::{Description, compile};
use crate::error::{Error, Result};
use crate::plans;

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
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
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
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

/// The driver's number of CUDA 13.0, which 580 is the first for.
pub(super) const LEAST_DRIVER: i32 = 13_000;

/// An A100's: the matrix units of older cards are others.
const LEAST_CAPABILITY: (u32, u32) = (8, 0);

/// How many devices the driver shows this process.
pub(crate) fn count() -> Result<usize> {
    let unavailable = |why: String| Error::Unavailable { why };
    library().map_err(unavailable)?;
    cuda::init()
        .map_err(|error| unavailable(format!("the NVIDIA driver does not start: {}", words(error))))?;
    let count = cuda::device::get_count().map_err(|error| unavailable(words(error)))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Each library that is opened at run time: its name, and its version or why it cannot be used.
pub(crate) fn libraries() -> Vec<(&'static str, std::result::Result<String, String>)> {
    let nvrtc = compile::version().map(|(major, minor)| format!("{major}.{minor}"));
    vec![
        ("NVIDIA driver", library().and_then(|()| driver_version())),
        ("NVRTC", nvrtc),
        ("cuDNN", plans::version().map(cudnn_version)),
    ]
}

pub(super) fn driver_number() -> std::result::Result<i32, String> {
    let mut version = 0;
    // SAFETY: the place is valid.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    asked.result().map_err(words)?;
    Ok(version)
}

fn driver_version() -> std::result::Result<String, String> {
    let version = driver_number()?;
    Ok(format!("CUDA {}.{}", version / 1000, version % 1000 / 10))
}

/// Whether our kernels and the plans are for cards of this compute capability.
pub(super) fn suits(capability: (u32, u32)) -> std::result::Result<(), String> {
    let (major, minor) = capability;
    if capability < LEAST_CAPABILITY {
        return Err(format!(
            "the card has compute capability {major}.{minor}; 8.0 or newer is needed"
        ));
    }
    Ok(())
}

fn cudnn_version(version: usize) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
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

pub(super) fn describe(device: sys::CUdevice) -> std::result::Result<Description, DriverError> {
    // SAFETY: the device is the driver's.
    let attribute = |attribute| unsafe { cuda::device::get_attribute(device, attribute) };
    let side = |number: i32| u32::try_from(number).unwrap_or(0);
    let software = libraries()
        .into_iter()
        .filter_map(|(name, version)| version.ok().map(|version| format!("{name} {version}")));
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
        software: software.collect(),
    })
}

/// The driver's words for an error, with its name.
pub(super) fn words(error: DriverError) -> String {
    let text = error
        .error_string()
        .map(CStr::to_string_lossy)
        .unwrap_or_default();
    format!("{text} ({:?})", error.0)
}
