//! A safetensors file: its header is read once and checked against the file's real length, so that no later step can
//! ask for bytes that are not there or allocate what a header merely claims.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::slice::HalfFloatSliceExt;
use safetensors::{Dtype, SafeTensors};

use super::Bytes;
use crate::WeightsError;

/// Where one tensor lies in its file, checked: the range is inside the file and fits shape times dtype.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor {
    dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    start: usize,
    end: usize,
}

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

/// One safetensors file with its index.
#[derive(Debug)]
pub(crate) struct TensorFile {
    name: String,
    bytes: Bytes,
    tensors: BTreeMap<String, StoredTensor>,
}

impl TensorFile {
    /// Maps a file of the disk.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::index(path.display().to_string(), Bytes::map(path)?)
    }

    /// Takes the bytes of a file in memory.
    pub(crate) fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Self, WeightsError> {
        Self::index(name, Bytes::Owned(bytes))
    }

    fn index(name: String, bytes: Bytes) -> Result<Self, WeightsError> {
        let content = bytes
            .get()
            .ok_or_else(|| WeightsError::Changed { file: name.clone() })?;
        let (header, metadata) =
            SafeTensors::read_metadata(content).map_err(|error| WeightsError::NotAModel {
                file: name.clone(),
                detail: looks_like(content).unwrap_or_else(|| error.to_string()),
            })?;
        // The header's own length stands in 8 bytes before it; offsets count from its end.
        let base = header + 8;
        let mut tensors = BTreeMap::new();
        for (tensor, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let stored = StoredTensor {
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: base + start,
                end: base + end,
            };
            if stored.end > content.len() {
                let detail = format!("tensor `{tensor}` lies beyond the end of the file");
                return Err(WeightsError::NotAModel { file: name, detail });
            }
            tensors.insert(tensor, stored);
        }
        Ok(Self { name, bytes, tensors })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    /// Copies one tensor out of the file, with the given shape of the same number of elements, as [`Dtypes`] has it.
    pub(crate) fn read(
        &self,
        name: &str,
        stored: &StoredTensor,
        shape: &[usize],
        (dtypes, device): (Dtypes, &Device),
    ) -> Result<Tensor, candle_core::Error> {
        let changed = || WeightsError::Changed {
            file: self.name.clone(),
        };
        let content = self
            .bytes
            .get()
            .ok_or_else(|| candle_core::Error::from(changed()))?;
        let bytes = content
            .get(stored.start..stored.end)
            .ok_or_else(|| candle_core::Error::from(changed()))?;
        let unsupported = || WeightsError::Dtype {
            file: self.name.clone(),
            tensor: name.to_owned(),
            found: format!("{:?}", stored.dtype),
        };
        let from = FLOATS.iter().find(|(stored_as, _)| *stored_as == stored.dtype);
        let (_, from) = *from.ok_or_else(|| candle_core::Error::from(unsupported()))?;
        let dtype = dtypes.of(from);
        let tensor = match (from, dtype) {
            (DType::F16, DType::F32) => {
                Tensor::from_vec(widen(bytes, half::f16::from_le_bytes), shape, device)
            }
            (DType::BF16, DType::F32) => {
                Tensor::from_vec(widen(bytes, half::bf16::from_le_bytes), shape, device)
            }
            (_, _) => Tensor::from_raw_buffer(bytes, from, shape, device)?.to_dtype(dtype),
        };
        self.bytes.forget(stored.start, stored.end);
        tensor
    }
}

/// Half-precision bytes as f32, in blocks, because the block conversion uses the processor's instruction for it.
fn widen<T: Copy + Default>(bytes: &[u8], parse: impl Fn([u8; 2]) -> T) -> Vec<f32>
where
    [T]: HalfFloatSliceExt,
{
    const BLOCK: usize = 4096;
    let mut out = vec![0.0_f32; bytes.len() / 2];
    let mut block = [T::default(); BLOCK];
    for (source, target) in bytes.chunks(2 * BLOCK).zip(out.chunks_mut(BLOCK)) {
        for (pair, value) in source.chunks_exact(2).zip(&mut block) {
            *value = parse([pair[0], pair[1]]);
        }
        block[..target.len()].convert_to_f32_slice(target);
    }
    out
}

/// What a file that is not safetensors seems to be, where its first bytes tell.
fn looks_like(bytes: &[u8]) -> Option<String> {
    let start = bytes.get(..512).unwrap_or(bytes).trim_ascii_start();
    let what = if bytes.is_empty() {
        "the file is empty"
    } else if start.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer instead of the file it stands for"
    } else if start.starts_with(b"<") {
        "an HTML or XML page instead of weights"
    } else if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        "a pickle (.ckpt, .pt, .bin) instead of safetensors"
    } else {
        return None;
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn refused(bytes: Vec<u8>) -> String {
        TensorFile::from_bytes("x.safetensors".to_owned(), bytes)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_good_file_is_indexed() {
        let good = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8);
        let file = TensorFile::from_bytes("x".to_owned(), good).unwrap();
        assert_eq!(file.tensors()["a"].shape, [2]);
    }

    #[test]
    fn damaged_headers_are_refused_without_believing_them() {
        let cases = [
            Vec::new(),
            b"abc".to_vec(),
            u64::MAX.to_le_bytes().to_vec(),
            (1_u64 << 63).to_le_bytes().to_vec(),
            [200_000_000_u64.to_le_bytes().as_slice(), b"{}"].concat(),
            file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7),
            file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 9),
            file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12),
            file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
            file(
                r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4],"data_offsets":[0,8]}}"#,
                8,
            ),
            file(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                12,
            ),
            file(
                r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                12,
            ),
            file(&"[".repeat(100_000), 0),
            file(r#"{"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}}"#, 8),
        ];
        for bytes in cases {
            assert!(refused(bytes).starts_with("x.safetensors: not a model: "));
        }
    }

    #[test]
    fn a_foreign_file_is_named_for_what_it_is() {
        assert!(
            refused(b"\n<!DOCTYPE html><html>".to_vec()).ends_with("HTML or XML page instead of weights")
        );
        assert!(
            refused(b"version https://git-lfs.github.com/spec/v1\n".to_vec()).contains("Git LFS pointer")
        );
        assert!(refused(b"PK\x03\x04archive/data.pkl".to_vec()).contains("a pickle"));
    }

    #[test]
    fn a_file_cut_short_while_mapped_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        fs_err::write(
            &path,
            file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        )
        .unwrap();
        let open = TensorFile::open(&path).unwrap();
        fs_err::write(&path, b"").unwrap();
        let stored = open.tensors()["a"].clone();
        let error = open
            .read("a", &stored, &[2], (Dtypes::Stored, &Device::Cpu))
            .unwrap_err();
        assert!(
            error.to_string().contains("changed while it was being read"),
            "{error}"
        );
        assert!(TensorFile::open(&path).unwrap_err().to_string().contains("empty"));
        assert!(TensorFile::open(folder.path()).is_err());
    }

    #[test]
    fn halves_are_widened_exactly_across_block_borders() {
        let values: Vec<half::f16> = (0..5000_u16).map(half::f16::from_bits).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let wide = widen(&bytes, half::f16::from_le_bytes);
        assert!(
            wide.iter()
                .zip(&values)
                .all(|(w, v)| w.to_bits() == v.to_f32().to_bits())
        );
        assert_eq!(
            widen(&0xBF80_u16.to_le_bytes(), half::bf16::from_le_bytes),
            [-1.0]
        );
    }
}
