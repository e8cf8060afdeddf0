//! Opens the device that the settings ask for, and says what is used in its place where it is another.

use std::path::PathBuf;

use pentimento_engine::{BatchPolicy, Device, GpuDevice, Precision};
use pentimento_gpu::{Error as GpuError, Gpu};

use crate::config::{Config, ConfigError, DeviceChoice, GpuMemory, PrecisionChoice};

/// The folder of our compiled kernels, in the data folder.
const KERNELS: &str = "gpu";

/// A device that is open.
#[derive(Debug)]
pub(crate) struct OpenDevice {
    pub(crate) device: Device,
    /// How work is put together there.
    pub(crate) policy: BatchPolicy,
    /// Why it is the processor, where a GPU would have been taken.
    pub(crate) why_cpu: Option<String>,
}

impl OpenDevice {
    /// What this process may use of a GPU's memory.
    pub(crate) fn gpu_budget(&self) -> Option<u64> {
        self.device.gpu().map(|gpu| gpu.budget_bytes() as u64)
    }

    fn cpu(why_cpu: Option<String>) -> Self {
        Self {
            device: Device::Cpu,
            policy: BatchPolicy::cpu(),
            why_cpu,
        }
    }

    fn gpu(gpu: Gpu, config: &Config) -> Result<Self, GpuError> {
        match config.gpu_memory {
            None => {}
            Some(GpuMemory::Bytes(bytes)) => {
                gpu.set_budget(usize::try_from(bytes.0).unwrap_or(usize::MAX));
            }
            Some(GpuMemory::Percent(percent)) => {
                gpu.set_budget(usize::MAX);
                gpu.set_budget(gpu.free_bytes()? / 100 * usize::from(percent));
            }
        }
        let precision = match config.precision {
            None | Some(PrecisionChoice::F16) => Precision::F16,
            Some(PrecisionChoice::F32) => Precision::F32,
        };
        Ok(Self {
            device: Device::Gpu(GpuDevice::new(gpu, precision)),
            policy: BatchPolicy::gpu(),
            why_cpu: None,
        })
    }
}

/// Opens it. Only `auto` computes on the processor where no GPU can be used.
pub(crate) fn open(config: &Config) -> Result<OpenDevice, ConfigError> {
    let (name, opened) = match &config.device {
        DeviceChoice::Cpu => return Ok(OpenDevice::cpu(None)),
        DeviceChoice::Auto => {
            let opened =
                Gpu::open(0, kernels(config).as_deref()).and_then(|gpu| OpenDevice::gpu(gpu, config));
            return Ok(opened.unwrap_or_else(|error| OpenDevice::cpu(Some(why(&error)))));
        }
        DeviceChoice::Cuda(number) => (
            format!("cuda:{number}"),
            Gpu::open(*number, kernels(config).as_deref()),
        ),
        DeviceChoice::Emulated(fault) => ("emulated".to_owned(), Gpu::open_emulated(fault.as_deref())),
    };
    let opened = opened.and_then(|gpu| OpenDevice::gpu(gpu, config));
    opened.map_err(|error| ConfigError::Device {
        device: name,
        why: why(&error),
    })
}

/// Where our kernels are kept for the next start; nowhere when there is no data folder yet.
fn kernels(config: &Config) -> Option<PathBuf> {
    config.data.is_dir().then(|| config.data.join(KERNELS))
}

fn why(error: &GpuError) -> String {
    match error {
        GpuError::Unavailable { why } => why.clone(),
        other => other.to_string(),
    }
}
