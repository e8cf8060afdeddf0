//! Weights that were saved by `torch.save` (`.ckpt`, `.pt`, `.pth`, `.bin`): a pickle that says which tensors there are,
//! and their numbers beside it.
//!
//! Nothing in the pickle is ever called or executed: its operations build plain values, and calls of unknown names are
//! refused by name. Both containers are read, the zip archive and the older row of pickles and numbers
//! (`torch/serialization.py`).

mod error;
mod legacy;
mod machine;
mod reader;
mod tensors;
#[cfg(test)]
mod tests;
mod torch;
mod value;
mod zip_archive;

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

use self::error::PickleProblem;
use self::value::{Arena, Id, Value};
use super::notes::Notes;
use super::stored_tensor::StoredTensor;

/// Whether a file that begins so is one of the two containers. A safetensors file may begin with the same two bytes, the
/// length of its header, behind which there is always a brace.
pub(super) fn is_pickle(start: &[u8]) -> bool {
    let is_header = start.get(8) == Some(&b'{');
    start.starts_with(b"PK\x03\x04") || (matches!(start, [0x80, 1..=5, ..]) && !is_header)
}

/// The tensors of a file, by name, and the plain values beside them. Names of nested dictionaries are joined with dots; one
/// `state_dict` around all is left out.
///
/// # Errors
/// [`PickleProblem`]: what is no such file, what would have to be called, and tensors that the file does not hold.
pub(super) fn read<R: Read + Seek>(
    file: &mut R,
) -> Result<(BTreeMap<String, StoredTensor>, Notes), PickleProblem> {
    let mut start = [0_u8; 4];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut start)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let content = if start.starts_with(b"PK\x03\x04") {
        zip_archive::read(BufReader::new(file))?
    } else {
        legacy::read(BufReader::new(file))?
    };
    // What an archive says of its entries is no more than that.
    let inside = |stored: &StoredBytes| {
        stored
            .start
            .checked_add(stored.length)
            .is_some_and(|end| end <= length)
    };
    if !content.storages.values().all(inside) {
        return Err(PickleProblem::Truncated);
    }
    Ok((tensors::collect(&content)?, notes(&content)))
}

/// The text and the numbers of the outermost dictionary; what is more than that is named by its kind.
fn notes(content: &Content) -> Notes {
    const MOST: usize = 256;
    const LONGEST: usize = 4096;
    let arena = &content.arena;
    let Value::Dict(members) = arena.get(content.root) else {
        return Notes::new();
    };
    let plain = |id: Id| {
        if let Value::Int(number) = arena.get(id) {
            return Some(number.to_string());
        }
        let text = arena.text(id).filter(|text| text.len() <= LONGEST);
        text.map(str::to_owned)
    };
    let members = members.iter().take(MOST).filter_map(|(key, value)| {
        let value = plain(*value).unwrap_or_else(|| arena.get(*value).kind().to_owned());
        Some((plain(*key)?, value))
    });
    members.collect()
}

/// What a file holds.
struct Content {
    arena: Arena,
    root: Id,
    /// Where each storage lies in the file, in bytes.
    storages: BTreeMap<String, StoredBytes>,
}

/// A range of the file.
#[derive(Clone, Copy, Debug)]
struct StoredBytes {
    start: u64,
    length: u64,
}
