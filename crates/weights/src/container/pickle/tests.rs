//! Files of `torch.save` against what PyTorch reads from them, and files that must not be read.
//!
//! Both are made by `tests/golden/generate/pickle_files.py`.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::PathBuf;

use candle_core::{DType, Device};
use safetensors::SafeTensors;
use serde_json::Value as Json;

use super::error::PickleProblem;
use super::machine;
use super::reader::PickleReader;
use super::value::Arena;
use crate::ReadProgress;
use crate::container::{Dtypes, StoredTensor, TensorFile};

fn tensors(file: &mut Cursor<impl AsRef<[u8]>>) -> Result<BTreeMap<String, StoredTensor>, PickleProblem> {
    super::read(file).map(|(tensors, _)| tensors)
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/pickle"))
}

fn expected() -> (Vec<u8>, Json) {
    let bytes = fs_err::read(folder().join("tensors.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let about = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
    (bytes, about)
}

/// The numbers of a tensor of floats.
fn values(file: &TensorFile, name: &str) -> Option<Vec<f64>> {
    let stored = &file.tensors()[name];
    let read = file.read(
        name,
        stored,
        &stored.shape,
        (Dtypes::All(DType::F64), &Device::Cpu),
    );
    let read = read.ok()?;
    Some(read.flatten_all().unwrap().to_vec1().unwrap())
}

#[test]
fn every_form_of_file_has_the_tensors_that_pytorch_reads() {
    let (golden, about) = expected();
    let golden_file = TensorFile::from_bytes("golden".to_owned(), golden.clone()).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    for name in about["files"].as_array().unwrap() {
        let name = name.as_str().unwrap();
        let file = TensorFile::open(&folder().join(name), &ReadProgress::default()).unwrap();
        let found = file.tensors();
        let prefix = format!("{name}/");
        let names: Vec<&str> = golden
            .names()
            .into_iter()
            .filter_map(|full| full.strip_prefix(&prefix))
            .collect();
        assert_eq!(found.len(), names.len(), "{name}: {:?} {names:?}", found.keys());
        for tensor in names {
            let full = format!("{prefix}{tensor}");
            let (stored, expected) = (&found[tensor], golden.tensor(&full).unwrap());
            assert_eq!(stored.dtype, expected.dtype(), "{full}");
            assert_eq!(stored.shape, expected.shape(), "{full}");
            // Whole numbers are no weights, and are only known to be there.
            assert_eq!(values(&file, tensor), values(&golden_file, &full), "{full}");
        }
    }
}

#[test]
fn what_is_more_than_data_or_claims_what_is_not_there_is_refused() {
    let (_, about) = expected();
    let refused = about["refused"].as_object().unwrap();
    for entry in fs_err::read_dir(folder().join("refused")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let reason = refused[name].as_str().unwrap();
        let found = tensors(&mut Cursor::new(fs_err::read(&path).unwrap()));
        if reason.is_empty() {
            // Harmless for who does not copy; there is no tensor in it.
            assert_eq!(found.unwrap().len(), 0, "{name}");
        } else {
            let text = found.unwrap_err().to_string();
            assert!(text.contains(reason), "{name}: {text}");
        }
    }
}

/// A few bytes must not ask for much, again and again.
#[test]
fn what_grows_without_a_tensor_is_bounded() {
    let loaded = |pickle: &[u8]| {
        let mut arena = Arena::default();
        machine::load(&mut PickleReader::new(pickle), &mut arena).map(|_| arena.bytes())
    };
    let many = 3 << 20;
    // MEMOIZE, one byte a memo; MARK; DUP; and texts by their numbers in the memo.
    for pickle in [
        [b"\x80\x04N".as_slice(), &vec![0x94; many]].concat(),
        vec![b'('; many],
        [b"N".as_slice(), &vec![b'2'; many]].concat(),
        vec![b'N'; many],
    ] {
        let found = loaded(&pickle);
        assert!(matches!(found, Err(PickleProblem::TooMany { .. })), "{found:?}");
    }
    let long = [b"X\0\0\0\x01".as_slice(), &vec![b'x'; 1 << 24], b"q\0"].concat();
    let found = loaded(&[long, b"h\0h\0\x93".repeat(1000)].concat());
    assert!(matches!(found, Err(PickleProblem::Malformed(_))), "{found:?}");
}

#[test]
fn an_archive_that_claims_more_entries_than_any_has_is_refused_before_room_is_made() {
    let mut archive = b"PK\x03\x04".to_vec();
    archive.extend(b"PK\x06\x06");
    archive.extend([0; 28]);
    archive.extend((1_u64 << 40).to_le_bytes());
    archive.extend([0; 16]);
    archive.extend(b"PK\x06\x07\0\0\0\0");
    archive.extend(4_u64.to_le_bytes());
    archive.extend([1, 0, 0, 0]);
    archive.extend(b"PK\x05\x06\0\0\0\0\xff\xff\xff\xff");
    archive.extend([0xff; 8]);
    archive.extend([0, 0]);
    let refused = tensors(&mut Cursor::new(archive));
    assert!(
        matches!(refused, Err(PickleProblem::TooMany { .. })),
        "{refused:?}"
    );
}

/// Wherever a file ends too soon, it is refused or what is read of it is right.
#[test]
fn a_file_cut_at_any_byte_is_no_trap() {
    for name in ["legacy-lightning.ckpt", "flat.bin"] {
        let whole = fs_err::read(folder().join(name)).unwrap();
        let good = tensors(&mut Cursor::new(&whole)).unwrap();
        for length in 0..whole.len() {
            if let Ok(found) = tensors(&mut Cursor::new(&whole[..length])) {
                assert_eq!(found, good, "{name} {length}");
                assert!(found.values().all(|tensor| tensor.end <= length as u64));
            }
        }
    }
}

/// Files that other people trained, where somebody has put them beside the checkout; none of them is ours to commit.
#[test]
fn published_files_are_read() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/real"));
    for (name, tensors, first) in [
        ("learned_embeds.bin", 1, "<birb-style>"),
        ("taef2_decoder.pth", 79, "1.weight"),
        ("taef2_encoder.pth", 79, "0.weight"),
    ] {
        let path = folder.join(name);
        if !path.exists() {
            println!("{name} is not there and was NOT read");
            continue;
        }
        let file = TensorFile::open(&path, &ReadProgress::default()).unwrap();
        assert!(
            file.tensors().len() >= tensors,
            "{name}: {:?}",
            file.tensors().keys()
        );
        let values = values(&file, first).unwrap();
        assert!(values.iter().all(|value| value.is_finite()), "{name} {first}");
        assert!(values.iter().any(|value| *value != 0.0), "{name} {first}");
    }
}
