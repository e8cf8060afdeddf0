//! The safetensors format: its header is read once and checked against the file's real length, so that no later step can
//! ask for bytes that are not there or allocate what a header merely claims.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;

use super::Bytes;
use super::notes::Notes;
use super::stored_tensor::StoredTensor;
use crate::WeightsError;

/// The most bytes of a header. That of the largest Stable Diffusion network has a fiftieth of it; parsed it takes several
/// times its bytes.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// The tensors of a file that begins with `start`, and the metadata of its header.
pub(super) fn read(
    name: &str,
    bytes: &Bytes,
    start: &[u8],
) -> Result<(BTreeMap<String, StoredTensor>, Notes), WeightsError> {
    let refused = |detail: String| WeightsError::NotAModel {
        file: name.to_owned(),
        detail: looks_like(start).unwrap_or(detail),
    };
    // The header's own length stands in 8 bytes before it.
    let length = start.first_chunk().map(|length| u64::from_le_bytes(*length));
    let length = length.ok_or_else(|| refused("the file is too short".to_owned()))?;
    if length > bytes.len() - 8 {
        return Err(refused("the header is longer than the file".to_owned()));
    }
    if length > MAX_HEADER_BYTES {
        return Err(refused(format!(
            "the header has {length} bytes, and at most {MAX_HEADER_BYTES} are read"
        )));
    }
    let mut header = Vec::new();
    bytes.blocks(8, 8 + length, |block| header.extend_from_slice(block))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| refused(error.to_string()))?;
    // Offsets count from the header's end, and are checked to follow one another.
    let base = 8 + length;
    if base.checked_add(metadata.data_len() as u64) != Some(bytes.len()) {
        return Err(refused(
            "the tensors of the header do not fill the file: it is cut short or damaged".to_owned(),
        ));
    }
    let tensors = metadata.tensors().into_iter().map(|(tensor, info)| {
        let (start, end) = info.data_offsets;
        let stored = StoredTensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            start: base + start as u64,
            end: base + end as u64,
            strides: None,
        };
        (tensor, stored)
    });
    let notes = metadata.metadata().iter().flatten();
    let notes = notes.map(|(key, value)| (key.clone(), value.clone()));
    Ok((tensors.collect(), notes.collect()))
}

/// What a file that is not safetensors seems to be, where its first bytes tell, which are these.
fn looks_like(bytes: &[u8]) -> Option<String> {
    let start = bytes.trim_ascii_start();
    let what = if bytes.is_empty() {
        "the file is empty"
    } else if start.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer instead of the file it stands for"
    } else if start.starts_with(b"<") {
        "an HTML or XML page instead of weights"
    } else {
        return None;
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{DType, Device, Tensor};

    use super::super::{BLOCK, Dtypes, ReadError, TensorFile};
    use super::*;
    use crate::ReadProgress;

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

    /// 0x80 and a small number is how a pickle begins, too.
    #[test]
    fn a_header_whose_length_looks_like_a_pickle_is_read() {
        for length in [384, 640, 896, 1152, 1408] {
            let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
            let header = format!("{header:length$}");
            let file = TensorFile::from_bytes("x".to_owned(), file(&header, 8)).unwrap();
            assert_eq!(file.tensors()["a"].shape, [2]);
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
        assert!(refused(b"PK\x03\x04archive/data.pkl".to_vec()).contains("not a whole zip archive"));
    }

    /// A file of one tensor `a` with the given numbers.
    fn on_disk(dtype: &str, data: &[u8], count: usize) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let length = data.len();
        let header =
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":[{count}],"data_offsets":[0,{length}]}}}}"#);
        let mut bytes = file(&header, 0);
        bytes.extend_from_slice(data);
        fs_err::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn opened(path: &Path) -> Result<TensorFile, WeightsError> {
        TensorFile::open(path, &ReadProgress::default())
    }

    fn read(open: &TensorFile, dtypes: Dtypes) -> Result<Tensor, ReadError> {
        let stored = &open.tensors()["a"];
        open.read("a", stored, &stored.shape, (dtypes, &Device::Cpu))
    }

    #[test]
    fn a_file_cut_short_while_it_is_read_is_an_error_wherever_it_is_cut() {
        let data = vec![1; 3 * BLOCK];
        let (_folder, path) = on_disk("F32", &data, data.len() / 4);
        let whole = fs_err::metadata(&path).unwrap().len();
        for length in [0, 8, 100, BLOCK as u64, whole - 1] {
            on_disk_again(&path, &data);
            let open = opened(&path).unwrap();
            let cut = fs_err::OpenOptions::new().write(true).open(&path).unwrap();
            cut.set_len(length).unwrap();
            let error = read(&open, Dtypes::Stored).unwrap_err();
            assert!(
                matches!(error, ReadError::Weights(WeightsError::Changed { .. })),
                "{length}: {error:?}"
            );
        }
    }

    /// The same file once more, in the same place.
    fn on_disk_again(path: &Path, data: &[u8]) {
        let (_folder, other) = on_disk("F32", data, data.len() / 4);
        fs_err::copy(other, path).unwrap();
    }

    #[test]
    fn a_file_that_is_written_to_while_it_is_read_is_noticed() {
        let (_folder, path) = on_disk("F32", &[1; 8], 2);
        let open = opened(&path).unwrap();
        open.check_unchanged().unwrap();
        let file = fs_err::OpenOptions::new().append(true).open(&path).unwrap();
        file.set_len(4000).unwrap();
        read(&open, Dtypes::Stored).unwrap();
        assert!(matches!(
            open.check_unchanged(),
            Err(WeightsError::Changed { .. })
        ));
    }

    #[test]
    fn an_empty_file_and_a_folder_are_no_models() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        fs_err::write(&path, b"").unwrap();
        assert!(opened(&path).unwrap_err().to_string().contains("empty"));
        let text = opened(folder.path()).unwrap_err().to_string();
        assert!(
            text.ends_with("not a model: a folder instead of a file"),
            "{text}"
        );
    }

    #[test]
    fn every_number_is_read_exactly_across_block_borders() {
        let halves: Vec<u16> = (0..=u16::MAX).cycle().take(BLOCK).collect();
        let bytes: Vec<u8> = halves.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let (_folder, path) = on_disk("F16", &bytes, halves.len());
        let open = opened(&path).unwrap();
        let stored: Vec<half::f16> = read(&open, Dtypes::Stored).unwrap().to_vec1().unwrap();
        assert!(
            stored
                .iter()
                .zip(&halves)
                .all(|(value, bits)| value.to_bits() == *bits)
        );
        let wide: Vec<f32> = read(&open, Dtypes::All(DType::F32)).unwrap().to_vec1().unwrap();
        assert_eq!(wide.len(), halves.len());
        assert!(
            wide.iter()
                .zip(&stored)
                .all(|(wide, stored)| wide.to_bits() == stored.to_f32().to_bits())
        );
        let (_folder, path) = on_disk("BF16", &bytes, halves.len());
        let wide = read(&opened(&path).unwrap(), Dtypes::All(DType::F32)).unwrap();
        let wide: Vec<f32> = wide.to_vec1().unwrap();
        assert!(
            wide.iter()
                .zip(&halves)
                .all(|(wide, bits)| wide.to_bits() == u32::from(*bits) << 16 || wide.is_nan())
        );
        let numbers: Vec<f32> = (0..200_000_u32).map(f32::from_bits).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (_folder, path) = on_disk("F32", &bytes, numbers.len());
        let found = read(&opened(&path).unwrap(), Dtypes::Stored).unwrap();
        assert_eq!(found.to_vec1::<f32>().unwrap(), numbers);
    }
}
