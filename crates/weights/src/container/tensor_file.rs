//! A weights file with the index of its tensors, whatever its format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::slice::HalfFloatSliceExt;
use safetensors::Dtype;

use super::notes::Notes;
use super::stored_tensor::StoredTensor;
use super::{BLOCK, Bytes, Stream, pickle, safetensors as safetensors_file};
use crate::{ReadProgress, WeightsError};

/// The dtypes that weights have, on disk and in candle.
const FLOATS: [(Dtype, DType); 4] = [
    (Dtype::F32, DType::F32),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::F64, DType::F64),
];

/// In which dtypes weights are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtypes {
    /// As the file has them, f16, bf16 or f32; f64 becomes f32.
    Stored,
    /// All in this one.
    All(DType),
}

impl Dtypes {
    fn of(self, stored: DType) -> DType {
        match self {
            Self::All(dtype) => dtype,
            Self::Stored if stored == DType::F64 => DType::F32,
            Self::Stored => stored,
        }
    }
}

/// One weights file with its index.
#[derive(Debug)]
pub(crate) struct TensorFile {
    name: String,
    bytes: Bytes,
    tensors: BTreeMap<String, StoredTensor>,
    notes: Notes,
    format: &'static str,
}

impl TensorFile {
    /// Opens a file of the disk.
    pub(crate) fn open(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        Self::index(path.display().to_string(), Bytes::open(path, progress)?)
    }

    /// Takes the bytes of a file in memory.
    pub(crate) fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::index(name, Bytes::Owned(bytes.into()))
    }

    fn index(name: String, bytes: Bytes) -> Result<Self, WeightsError> {
        let mut start = Vec::new();
        bytes.blocks(0, bytes.len().min(512), |block| start.extend_from_slice(block))?;
        let is_pickle = pickle::is_pickle(&start);
        let (tensors, notes) = if is_pickle {
            pickle::read(&mut Stream::new(&bytes)).map_err(|problem| problem.of_file(&name))?
        } else {
            safetensors_file::read(&name, &bytes, &start)?
        };
        Ok(Self {
            name,
            bytes,
            tensors,
            notes,
            format: if is_pickle { "pickle" } else { "safetensors" },
        })
    }

    /// The same file with other tensors of it, or the same under other names; reads are counted in `progress`.
    pub(crate) fn with_tensors(
        &self,
        tensors: BTreeMap<String, StoredTensor>,
        progress: &ReadProgress,
    ) -> Self {
        Self {
            name: self.name.clone(),
            bytes: self.bytes.counting(progress),
            tensors,
            notes: Notes::new(),
            format: self.format,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// `safetensors` or `pickle`.
    pub(crate) const fn format(&self) -> &'static str {
        self.format
    }

    /// What it says beside its tensors.
    pub(crate) fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The names of the kinds of its numbers.
    pub(crate) fn dtypes(&self) -> Vec<String> {
        let dtypes: BTreeSet<Dtype> = self.tensors.values().map(|stored| stored.dtype).collect();
        dtypes.into_iter().map(|dtype| format!("{dtype:?}")).collect()
    }

    /// The one number of a tensor of any kind; None where it has more or fewer.
    ///
    /// # Errors
    /// When it cannot be read, or is of a kind that no number has.
    pub(crate) fn number(&self, name: &str, stored: &StoredTensor) -> Result<Option<f64>, WeightsError> {
        if stored.shape.iter().any(|size| *size != 1) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        self.bytes
            .blocks(stored.start, stored.end, |block| bytes.extend_from_slice(block))?;
        number(stored.dtype, &bytes)
            .map(Some)
            .ok_or_else(|| WeightsError::Dtype {
                file: self.name.clone(),
                tensor: name.to_owned(),
                found: format!("{:?}", stored.dtype),
            })
    }

    /// Whether what has been read came from one and the same file.
    pub(crate) fn check_unchanged(&self) -> Result<(), WeightsError> {
        self.bytes.check_unchanged()
    }

    /// Reads one tensor, with the given shape of the same number of elements, as [`Dtypes`] has it.
    pub(crate) fn read(
        &self,
        name: &str,
        stored: &StoredTensor,
        shape: &[usize],
        (dtypes, device): (Dtypes, &Device),
    ) -> Result<Tensor, ReadError> {
        let unsupported = || WeightsError::Dtype {
            file: self.name.clone(),
            tensor: name.to_owned(),
            found: format!("{:?}", stored.dtype),
        };
        let from = FLOATS.iter().find(|(stored_as, _)| *stored_as == stored.dtype);
        let (_, from) = *from.ok_or_else(unsupported)?;
        let dtype = dtypes.of(from);
        let tensor = match (from, dtype) {
            (DType::F16, DType::F32) => {
                Tensor::from_vec(self.widened(stored, half::f16::from_le_bytes)?, shape, device)
            }
            (DType::BF16, DType::F32) => {
                Tensor::from_vec(self.widened(stored, half::bf16::from_le_bytes)?, shape, device)
            }
            (DType::F16, _) => {
                Tensor::from_vec(self.values(stored, half::f16::from_le_bytes)?, shape, device)
            }
            (DType::BF16, _) => {
                Tensor::from_vec(self.values(stored, half::bf16::from_le_bytes)?, shape, device)
            }
            (DType::F64, _) => Tensor::from_vec(self.values(stored, f64::from_le_bytes)?, shape, device),
            (_, _) => Tensor::from_vec(self.values(stored, f32::from_le_bytes)?, shape, device),
        };
        Ok(tensor?.to_dtype(dtype)?)
    }

    /// The numbers of a tensor.
    fn values<const N: usize, T: Copy>(
        &self,
        stored: &StoredTensor,
        parse: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, WeightsError> {
        let mut out = self.room(stored, N)?;
        self.bytes.blocks(stored.start, stored.end, |block| {
            // A block is a multiple of every number's length.
            out.extend(block.as_chunks().0.iter().map(|bytes| parse(*bytes)));
        })?;
        Ok(stored.in_order(out))
    }

    /// Half-precision numbers as f32, in blocks, because the block conversion uses the processor's instruction for it.
    fn widened<T>(
        &self,
        stored: &StoredTensor,
        parse: impl Fn([u8; 2]) -> T,
    ) -> Result<Vec<f32>, WeightsError>
    where
        [T]: HalfFloatSliceExt,
    {
        let mut out: Vec<f32> = self.room(stored, 2)?;
        let mut halves: Vec<T> = Vec::with_capacity(BLOCK / 2);
        self.bytes.blocks(stored.start, stored.end, |block| {
            halves.clear();
            halves.extend(block.as_chunks().0.iter().map(|bytes| parse(*bytes)));
            let begin = out.len();
            out.resize(begin + halves.len(), 0.0);
            halves.convert_to_f32_slice(&mut out[begin..]);
        })?;
        Ok(stored.in_order(out))
    }

    /// Room for all numbers of a tensor, each of which has `width` bytes in the file. A file can be larger than the memory.
    fn room<T>(&self, stored: &StoredTensor, width: usize) -> Result<Vec<T>, WeightsError> {
        let bytes = stored.end - stored.start;
        let mut out = Vec::new();
        let count = usize::try_from(bytes).map(|bytes| bytes / width);
        let reserved = count.is_ok_and(|count| out.try_reserve_exact(count).is_ok());
        reserved.then_some(out).ok_or_else(|| WeightsError::NoMemory {
            file: self.name.clone(),
            bytes,
        })
    }
}

/// A number as it is stored.
fn number(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    let bytes_8 = || bytes.try_into().ok();
    let bytes_4 = || bytes.try_into().ok();
    let bytes_2 = || bytes.try_into().ok();
    Some(match (dtype, bytes) {
        (Dtype::F64, _) => f64::from_le_bytes(bytes_8()?),
        (Dtype::F32, _) => f32::from_le_bytes(bytes_4()?).into(),
        (Dtype::F16, _) => half::f16::from_le_bytes(bytes_2()?).into(),
        (Dtype::BF16, _) => half::bf16::from_le_bytes(bytes_2()?).into(),
        #[expect(clippy::cast_precision_loss, reason = "a rank or an alpha is small")]
        (Dtype::I64, _) => i64::from_le_bytes(bytes_8()?) as f64,
        (Dtype::I32, _) => i32::from_le_bytes(bytes_4()?).into(),
        (Dtype::I16, _) => i16::from_le_bytes(bytes_2()?).into(),
        (Dtype::I8, [byte]) => byte.cast_signed().into(),
        (Dtype::U8 | Dtype::BOOL, [byte]) => (*byte).into(),
        _ => return None,
    })
}

/// Why there is no tensor.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file's fault.
    Weights(WeightsError),
    /// The device's.
    Device(candle_core::Error),
}

impl From<WeightsError> for ReadError {
    fn from(error: WeightsError) -> Self {
        Self::Weights(error)
    }
}

impl From<candle_core::Error> for ReadError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(error)
    }
}
