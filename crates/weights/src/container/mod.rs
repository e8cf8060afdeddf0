//! One weights file: bytes and the checked index of the tensors in them.

mod mmap;
mod safetensors;

use std::path::Path;

use self::mmap::MappedFile;
pub use self::safetensors::Dtypes;
pub(crate) use self::safetensors::TensorFile;
use crate::WeightsError;

/// Where a file's bytes are.
#[derive(Debug)]
enum Bytes {
    Mapped(MappedFile),
    Owned(Vec<u8>),
}

impl Bytes {
    fn map(path: &Path) -> Result<Self, WeightsError> {
        MappedFile::open(path).map(Self::Mapped)
    }

    fn get(&self) -> Option<&[u8]> {
        match self {
            Self::Mapped(file) => file.bytes(),
            Self::Owned(bytes) => Some(bytes),
        }
    }

    /// Bytes `start..end` will not be read again soon.
    fn forget(&self, start: usize, end: usize) {
        match self {
            Self::Mapped(file) => file.forget(start, end),
            Self::Owned(_) => {}
        }
    }
}
