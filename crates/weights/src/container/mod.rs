//! One weights file: its bytes, wherever they are, and the checked index of the tensors in them.

mod disk;
mod safetensors;

use std::path::Path;

use self::disk::DiskFile;
pub use self::safetensors::Dtypes;
pub(crate) use self::safetensors::{ReadError, TensorFile};
use crate::{ReadProgress, WeightsError};

/// Where a file's bytes are.
#[derive(Debug)]
enum Bytes {
    OnDisk(DiskFile),
    Owned(Vec<u8>),
}

impl Bytes {
    fn open(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        DiskFile::open(path, progress).map(Self::OnDisk)
    }

    fn len(&self) -> u64 {
        match self {
            Self::OnDisk(file) => file.len(),
            Self::Owned(bytes) => bytes.len() as u64,
        }
    }

    /// Gives the bytes from `start` to `end` to `take`, in order, in blocks of [`BLOCK`] and a last one with the rest.
    fn blocks(&self, start: u64, end: u64, mut take: impl FnMut(&[u8])) -> Result<(), WeightsError> {
        match self {
            Self::OnDisk(file) => file.blocks(start, end, take),
            Self::Owned(bytes) => {
                let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
                let bytes = range.and_then(|(start, end)| bytes.get(start..end));
                let bytes = bytes.expect("the index holds ranges inside the file only");
                bytes.chunks(BLOCK).for_each(&mut take);
                Ok(())
            }
        }
    }

    /// Whether the file is still the one that was opened. Bytes in memory do not change.
    fn check_unchanged(&self) -> Result<(), WeightsError> {
        match self {
            Self::OnDisk(file) => file.check_unchanged(),
            Self::Owned(_) => Ok(()),
        }
    }
}

/// Bytes that are read at once: what is copied out of them is still in a processor's cache.
const BLOCK: usize = 256 * 1024;
