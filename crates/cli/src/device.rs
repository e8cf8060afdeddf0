//! Opens the devices that the settings ask for, and says what is used in their place where it is another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pentimento_catalog::ModelEntry;
use pentimento_engine::{BatchPolicy, Device, GpuDevice, Precision, precision_on};
use pentimento_gpu::{Error as GpuError, Gpu};

use crate::config::{Config, ConfigError, DeviceChoice, GpuMemory, PrecisionChoice};

/// The folder of our compiled kernels, in the data folder.
const KERNELS: &str = "gpu";

/// Devices that are open, all of one kind.
#[derive(Debug)]
pub(crate) struct OpenDevices {
    /// At least one; several are GPUs.
    pub(crate) devices: Vec<Device>,
    /// How work is put together on each of them.
    pub(crate) policy: BatchPolicy,
    /// Why it is the processor, where a GPU would have been taken. None in a build without CUDA, of which nobody expects one.
    pub(crate) why_cpu: Option<String>,
    /// Whether somebody is likely to be surprised by that: there is a driver, or what only a GPU can do was asked for.
    pub(crate) is_surprising: bool,
    /// GPUs that nobody named and that cannot be used: which, and why.
    pub(crate) left_out: Vec<(String, String)>,
}

impl OpenDevices {
    /// What this process may use of each GPU's memory; nothing where it computes on the processor.
    pub(crate) fn gpu_budgets(&self) -> Vec<u64> {
        let gpus = self.devices.iter().filter_map(Device::gpu);
        gpus.map(|gpu| gpu.budget_bytes() as u64).collect()
    }

    fn cpu(why_cpu: Option<String>) -> Self {
        Self {
            devices: vec![Device::Cpu],
            policy: BatchPolicy::cpu(),
            why_cpu,
            is_surprising: false,
            left_out: Vec::new(),
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
            devices: vec![device],
            ..Self::cpu(None)
        })
    }

    const fn gpus(devices: Vec<Device>, left_out: Vec<(String, String)>) -> Self {
        Self {
            devices,
            policy: BatchPolicy::gpu(),
            why_cpu: None,
            is_surprising: false,
            left_out,
        }
    }
}

/// Opens them, and keeps our compiled kernels for the next start. Only `auto` computes on the processor where no GPU can be used.
pub(crate) fn open(config: &Config) -> Result<OpenDevices, ConfigError> {
    open_with(config, kernels(config).as_deref())
}

/// The same, without leaving anything behind.
pub(crate) fn look(config: &Config) -> Result<OpenDevices, ConfigError> {
    open_with(config, None)
}

fn open_with(config: &Config, kernels: Option<&Path>) -> Result<OpenDevices, ConfigError> {
    let in_bf16 = config.precision == Some(PrecisionChoice::Bf16);
    let named = |name: String| {
        move |error: GpuError| ConfigError::Device {
            device: name,
            why: why(&error),
        }
    };
    match &config.device {
        // What nothing but the processor computes in.
        DeviceChoice::Cpu | DeviceChoice::Auto if in_bf16 => OpenDevices::cpu_in_bf16(),
        DeviceChoice::Cpu => Ok(OpenDevices::cpu(None)),
        DeviceChoice::Auto => {
            let opened = all_usable(config, kernels);
            Ok(opened.unwrap_or_else(|error| in_place_of_a_gpu(&error, config)))
        }
        DeviceChoice::AllCuda => all_usable(config, kernels).map_err(named("cuda".to_owned())),
        DeviceChoice::Cuda(numbers) => {
            let open = |number: &usize| {
                let opened = Gpu::open(*number, kernels).and_then(|gpu| within_budget(gpu, config));
                opened.map_err(named(format!("cuda:{number}")))
            };
            let devices = numbers.iter().map(open).collect::<Result<_, _>>()?;
            Ok(OpenDevices::gpus(devices, Vec::new()))
        }
        DeviceChoice::Emulated(faults) => {
            let open = |fault: &Option<String>| {
                let opened = Gpu::open_emulated(fault.as_deref()).and_then(|gpu| within_budget(gpu, config));
                opened.map_err(named("emulated".to_owned()))
            };
            let devices = faults.iter().map(open).collect::<Result<_, _>>()?;
            Ok(OpenDevices::gpus(devices, Vec::new()))
        }
    }
}

/// Those of these entries that ask for other numbers than those in which `device` will compute them,
/// in words.
/// One catalogue may be that of machines of many kinds, so that is no mistake in it.
pub(crate) fn not_as_asked(device: &Device, entries: &[Arc<ModelEntry>]) -> Vec<String> {
    let why = if device.gpu().is_some() {
        "which is for processors"
    } else {
        "for which the instruction set in use has nothing"
    };
    let differing = entries.iter().filter_map(|entry| {
        let (asked, found) = (entry.precision?.as_str(), precision_on(device, entry).to_string());
        (asked != found).then(|| {
            format!(
                "`{}` asks for precision {asked}, {why}; it is computed in {found}",
                entry.name
            )
        })
    });
    differing.collect()
}

/// Whatever CUDA devices there are. One that cannot be used is no reason not to use the others, since nobody named it: a card that
/// has failed must not keep a server from its next start.
fn all_usable(config: &Config, kernels: Option<&Path>) -> Result<OpenDevices, GpuError> {
    let (mut devices, mut left_out, mut first_error) = (Vec::new(), Vec::new(), None);
    // Where there is none, opening the first one says so.
    for number in 0..Gpu::count()?.max(1) {
        match Gpu::open(number, kernels).and_then(|gpu| within_budget(gpu, config)) {
            Ok(device) => devices.push(device),
            Err(error) => {
                left_out.push((format!("cuda:{number}"), why(&error)));
                first_error = first_error.or(Some(error));
            }
        }
    }
    match first_error {
        Some(error) if devices.is_empty() => Err(error),
        Some(_) | None => Ok(OpenDevices::gpus(devices, left_out)),
    }
}

/// A GPU of whose memory no more is taken than the settings allow.
fn within_budget(gpu: Gpu, config: &Config) -> Result<Device, GpuError> {
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
    Ok(Device::Gpu(GpuDevice::new(gpu, precision)))
}

fn in_place_of_a_gpu(error: &GpuError, config: &Config) -> OpenDevices {
    let libraries = Gpu::libraries();
    let has_driver = libraries.first().is_some_and(|(_, driver)| driver.is_ok());
    OpenDevices {
        why_cpu: (!libraries.is_empty()).then(|| why(error)),
        is_surprising: has_driver || config.precision == Some(PrecisionChoice::F16),
        ..OpenDevices::cpu(None)
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
