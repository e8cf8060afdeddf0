//! The container before PyTorch 1.6: a magic number, a version and the machine's properties as three pickles, the object as
//! a fourth, the storages' keys as a fifth, then each storage with its count in front.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Seek, SeekFrom};

use super::error::PickleProblem;
use super::reader::PickleReader;
use super::tensors::{dtype_of, size_bytes};
use super::value::{Arena, Id, Value};
use super::{Content, StoredBytes, machine};

/// `MAGIC_NUMBER`, least significant byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const VERSION: i64 = 1001;

pub(super) fn read<R: BufRead + Seek>(mut file: R) -> Result<Content, PickleProblem> {
    let foreign = || PickleProblem::Container("it is a pickle, but none that `torch.save` writes".to_owned());
    let mut arena = Arena::default();
    let mut reader = PickleReader::new(&mut file);
    let magic = machine::load(&mut reader, &mut arena)?;
    if !matches!(arena.get(magic), Value::BigInt(bytes) if bytes.starts_with(&MAGIC)) {
        return Err(foreign());
    }
    let version = machine::load(&mut reader, &mut arena)?;
    let machine_properties = machine::load(&mut reader, &mut arena)?;
    if arena.get(version) != &Value::Int(VERSION) || is_big_endian(&arena, machine_properties) {
        return Err(foreign());
    }
    let root = machine::load(&mut reader, &mut arena)?;
    let keys = machine::load(&mut reader, &mut arena)?;
    let numbers = reader.consumed();
    let sizes = element_sizes(&arena);
    let keys = arena.items(keys).ok_or_else(foreign)?;
    let mut storages = BTreeMap::new();
    let mut position = numbers;
    for key in keys {
        let key = arena.text(*key).ok_or_else(foreign)?;
        file.seek(SeekFrom::Start(position))?;
        let mut count = [0_u8; 8];
        file.read_exact(&mut count)?;
        // A storage that no tensor uses has no known size, and what lies behind it cannot be found.
        let size = sizes.get(key).copied().ok_or_else(foreign)?;
        let length = u64::from_le_bytes(count).checked_mul(size).ok_or_else(foreign)?;
        let start = position + 8;
        position = start.checked_add(length).ok_or_else(foreign)?;
        storages.insert(key.to_owned(), StoredBytes { start, length });
    }
    Ok(Content {
        arena,
        root,
        storages,
    })
}

/// The bytes of one element of each storage that the pickle mentions.
fn element_sizes(arena: &Arena) -> HashMap<String, u64> {
    let mut sizes = HashMap::new();
    for id in 0..arena.len() {
        if let Value::Storage(storage) = arena.get(id)
            && let Some(dtype) = dtype_of(&storage.kind)
        {
            sizes.insert(storage.key.clone(), size_bytes(dtype));
        }
    }
    sizes
}

fn is_big_endian(arena: &Arena, properties: Id) -> bool {
    let little = arena.member(properties, "little_endian");
    little.is_none_or(|little| arena.get(little) != &Value::Bool(true))
}
