//! The numbers that an entry of the catalogue asks for, where the device has a choice.

use pentimento_catalog::{ModelEntry, ModelPrecision};
use pentimento_models::Device;

use super::ModelSource;

impl ModelSource {
    /// Where the networks of the checkpoint `entry` compute on a server that has opened `device`. Only a processor has a choice of
    /// numbers for each model; a GPU computes in its own, and a processor that has no instruction for bfloat16 stays with f32, which
    /// is faster there and more exact.
    #[must_use]
    pub fn device_of(entry: &ModelEntry, device: &Device) -> Device {
        match (device, entry.precision) {
            (Device::Cpu | Device::CpuInBf16, Some(ModelPrecision::F32)) => Device::Cpu,
            (Device::Cpu | Device::CpuInBf16, Some(ModelPrecision::Bf16)) => {
                Device::cpu_in_bf16().unwrap_or(Device::Cpu)
            }
            (Device::Gpu(_), Some(_)) | (_, None) => device.clone(),
        }
    }
}
