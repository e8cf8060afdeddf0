//! Opens the device that the settings ask for, and says what is used in its place where it is another.

use std::path::{Path, PathBuf};

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
    /// Why it is the processor, where a GPU would have been taken. None in a build without CUDA, of which nobody expects one.
    pub(crate) why_cpu: Option<String>,
    /// Whether somebody is likely to be surprised by that: there is a driver, or what only a GPU can do was asked for.
    pub(crate) is_surprising: bool,
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
            is_surprising: false,
        }
    }

    /// In bfloat16, where the processor is faster with that.
    fn cpu_in_bf16() -> Result<Self, ConfigError> {
        let device = Device::cpu_in_bf16().ok_or_else(|| ConfigError::Refused {
            name: "precision",
            value: "bf16".to_owned(),
            problem: "needs a processor with AVX512-BF16 or AMX, and the instruction set in use has neither; leave it out",
        })?;
        Ok(Self {
            device,
            ..Self::cpu(None)
        })
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
            // bfloat16 has been refused, or made the processor the choice.
            None | Some(PrecisionChoice::F16 | PrecisionChoice::Bf16) => Precision::F16,
            Some(PrecisionChoice::F32) => Precision::F32,
        };
        Ok(Self {
            device: Device::Gpu(GpuDevice::new(gpu, precision)),
            policy: BatchPolicy::gpu(),
            why_cpu: None,
            is_surprising: false,
        })
    }
}

/// Opens it, and keeps our compiled kernels for the next start. Only `auto` computes on the processor where no GPU can be used.
pub(crate) fn open(config: &Config) -> Result<OpenDevice, ConfigError> {
    open_with(config, kernels(config).as_deref())
}

/// The same, without leaving anything behind.
pub(crate) fn look(config: &Config) -> Result<OpenDevice, ConfigError> {
    open_with(config, None)
}

fn open_with(config: &Config, kernels: Option<&Path>) -> Result<OpenDevice, ConfigError> {
    let in_bf16 = config.precision == Some(PrecisionChoice::Bf16);
    let (name, opened) = match &config.device {
        // What nothing but the processor computes in.
        DeviceChoice::Cpu | DeviceChoice::Auto if in_bf16 => return OpenDevice::cpu_in_bf16(),
        DeviceChoice::Cpu => return Ok(OpenDevice::cpu(None)),
        DeviceChoice::Auto => {
            let opened = Gpu::open(0, kernels).and_then(|gpu| OpenDevice::gpu(gpu, config));
            return Ok(opened.unwrap_or_else(|error| in_place_of_a_gpu(&error, config)));
        }
        DeviceChoice::Cuda(number) => (format!("cuda:{number}"), Gpu::open(*number, kernels)),
        DeviceChoice::Emulated(fault) => ("emulated".to_owned(), Gpu::open_emulated(fault.as_deref())),
    };
    let opened = opened.and_then(|gpu| OpenDevice::gpu(gpu, config));
    opened.map_err(|error| ConfigError::Device {
        device: name,
        why: why(&error),
    })
}

fn in_place_of_a_gpu(error: &GpuError, config: &Config) -> OpenDevice {
    let libraries = Gpu::libraries();
    let has_driver = libraries.first().is_some_and(|(_, driver)| driver.is_ok());
    OpenDevice {
        why_cpu: (!libraries.is_empty()).then(|| why(error)),
        is_surprising: has_driver || config.precision == Some(PrecisionChoice::F16),
        ..OpenDevice::cpu(None)
    }
}

/// Where our kernels are kept for the next start; nowhere when there is no data folder yet.
fn kernels(config: &Config) -> Option<PathBuf> {
    config.data.is_dir().then(|| config.data.join(KERNELS))
}

fn why(error: &GpuError) -> String {
    if let GpuError::Unavailable { why } = error {
        why.clone()
    } else {
        error.to_string()
    }
}
