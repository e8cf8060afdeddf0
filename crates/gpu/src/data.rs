//! Numbers on the host on their way to a device, and the types that a device knows.

use half::f16;

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats of IEEE 754; sums of them are kept in [`DType::F32`].
    F16,
    /// 32-bit integers, for places and identifiers.
    I32,
    /// Places in the device's memory, or none. They are filled by this crate alone, since kernels follow them.
    Address,
}

impl DType {
    /// Bytes of one number.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 => 2,
            Self::Address => 8,
        }
    }

    /// The end of the names of kernels for this type.
    pub(crate) const fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I32 => "i32",
            Self::Address => "address",
        }
    }
}

/// Numbers on the host.
#[derive(Clone, Copy, Debug)]
pub enum HostData<'a> {
    /// For a tensor of [`DType::F32`].
    F32(&'a [f32]),
    /// For a tensor of [`DType::F16`].
    F16(&'a [f16]),
    /// For a tensor of [`DType::I32`].
    I32(&'a [i32]),
}

impl HostData<'_> {
    /// The type that they are.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::I32(_) => DType::I32,
        }
    }

    /// How many they are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
            Self::I32(numbers) => numbers.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As they lie in a device's memory, little-endian.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::F32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::F16(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::I32(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        }
    }
}

/// The numbers that lie in a device's memory as `bytes`; addresses are no numbers.
pub(crate) fn floats(bytes: &[u8], dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
        DType::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
            .collect(),
        #[expect(clippy::cast_precision_loss, reason = "places and identifiers are below 2^24")]
        DType::I32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| i32::from_le_bytes(*bytes) as f32)
            .collect(),
        DType::Address => Vec::new(),
    }
}
