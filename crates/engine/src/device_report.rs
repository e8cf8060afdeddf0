//! What a device says of itself and of its memory, for doctor, metrics and status pages.

use pentimento_catalog::ModelEntry;
use pentimento_pipeline::{Device, ModelSource, Precision};

/// A device and how it is used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceReport {
    /// `cpu`, or the maker's name for a GPU.
    pub name: String,
    /// The numbers in which networks compute.
    pub precision: Precision,
    /// More, where it is a GPU.
    pub gpu: Option<GpuReport>,
}

/// A GPU and its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuReport {
    /// Compute capability, as (9, 0) for an H100.
    pub capability: (u32, u32),
    /// Driver and libraries with their versions.
    pub software: Vec<String>,
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
    /// What this process may use of it.
    pub budget_bytes: u64,
    /// What it uses: weights, texts, pictures between two slices, and the arena.
    pub used_bytes: u64,
    /// Plans of libraries that are kept.
    pub plans: u64,
}

/// The numbers in which a checkpoint computes where `device` is open, which need not be those that its entry asks for.
#[must_use]
pub fn precision_on(device: &Device, checkpoint: &ModelEntry) -> Precision {
    ModelSource::device_of(checkpoint, device).precision()
}

impl DeviceReport {
    /// Of a device as it is now.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        let Some(gpu) = device.gpu() else {
            return Self {
                name: "cpu".to_owned(),
                precision: device.precision(),
                gpu: None,
            };
        };
        let said = gpu.description();
        Self {
            name: said.name,
            precision: device.precision(),
            gpu: Some(GpuReport {
                capability: said.capability,
                software: said.software,
                memory_bytes: said.memory_bytes as u64,
                budget_bytes: gpu.budget_bytes() as u64,
                used_bytes: gpu.used_bytes() as u64,
                plans: gpu.plans() as u64,
            }),
        }
    }
}
