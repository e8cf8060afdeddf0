//! Where layers have their weights and compute.

use pentimento_gpu::{DType, Gpu, GpuId};

use crate::isa::Isa;

/// A place that computes. It is chosen when a layer is made, and whatever the layer is given has to be there.
#[derive(Clone, Debug, Default)]
pub enum Device {
    /// Main memory and the processor's cores, in f32.
    #[default]
    Cpu,
    /// The same, where the large products are of numbers rounded to bfloat16. Between layers, in sums, norms and softmax they
    /// are f32.
    CpuInBf16,
    /// A GPU.
    Gpu(GpuDevice),
}

/// A GPU, and the numbers in which networks compute there.
#[derive(Clone, Debug)]
pub struct GpuDevice {
    gpu: Gpu,
    precision: Precision,
}

/// The type of what is multiplied; on a GPU also of what is between layers. Sums are in f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 16 bits, on a GPU.
    F16,
    /// 16 bits with the range of f32, on a processor that multiplies them faster.
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Which device it is, for keys: what is equal is the same numbers in the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceLocation {
    /// Main memory, in f32.
    Cpu,
    /// Main memory, in bfloat16.
    CpuInBf16,
    /// A GPU, and the precision of what is there.
    Gpu(GpuId, Precision),
}

impl DeviceLocation {
    /// The numbers in which networks compute there.
    #[must_use]
    pub const fn precision(self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::CpuInBf16 => Precision::Bf16,
            Self::Gpu(_, precision) => precision,
        }
    }

    /// The same device, for what is in 32 bits there.
    #[must_use]
    pub const fn in_f32(self) -> Self {
        match self {
            Self::Cpu | Self::CpuInBf16 => Self::Cpu,
            Self::Gpu(gpu, _) => Self::Gpu(gpu, Precision::F32),
        }
    }
}

impl Device {
    /// [`Device::CpuInBf16`]; None where the [instruction set](Isa) in use has nothing for it, since it would be no faster than
    /// f32.
    #[must_use]
    pub fn cpu_in_bf16() -> Option<Self> {
        Isa::detect().pairs().map(|_| Self::CpuInBf16)
    }

    /// Which device it is.
    #[must_use]
    pub fn location(&self) -> DeviceLocation {
        match self {
            Self::Cpu => DeviceLocation::Cpu,
            Self::CpuInBf16 => DeviceLocation::CpuInBf16,
            Self::Gpu(device) => DeviceLocation::Gpu(device.gpu.id(), device.precision),
        }
    }

    /// The same device, where networks compute in 32 bits whatever they do elsewhere.
    #[must_use]
    pub fn in_f32(&self) -> Self {
        match self {
            Self::Cpu | Self::CpuInBf16 => Self::Cpu,
            Self::Gpu(device) => Self::Gpu(GpuDevice::new(device.gpu.clone(), Precision::F32)),
        }
    }

    /// The numbers in which networks compute there.
    #[must_use]
    pub const fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::CpuInBf16 => Precision::Bf16,
            Self::Gpu(device) => device.precision,
        }
    }

    /// The GPU, where it is one.
    #[must_use]
    pub const fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Cpu | Self::CpuInBf16 => None,
            Self::Gpu(device) => Some(&device.gpu),
        }
    }

    /// Whether rows of different sets of LoRAs share a forward here: where a forward of two rows takes less than two of one. A
    /// processor is busy with one row.
    #[must_use]
    pub const fn mixes_sets(&self) -> bool {
        match self {
            Self::Cpu | Self::CpuInBf16 => false,
            Self::Gpu(_) => true,
        }
    }

    /// Bytes of a number between two layers.
    #[must_use]
    pub const fn number_bytes(&self) -> usize {
        match self {
            Self::Cpu | Self::CpuInBf16 => size_of::<f32>(),
            Self::Gpu(device) => device.dtype().size_bytes(),
        }
    }
}

impl GpuDevice {
    /// Networks on `gpu`, in this precision.
    #[must_use]
    pub const fn new(gpu: Gpu, precision: Precision) -> Self {
        Self { gpu, precision }
    }

    /// The device itself.
    #[must_use]
    pub const fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(crate) const fn dtype(&self) -> DType {
        match self.precision {
            // A GPU is never opened in bfloat16.
            Precision::F32 | Precision::Bf16 => DType::F32,
            Precision::F16 => DType::F16,
        }
    }
}
