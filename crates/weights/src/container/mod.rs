//! One weights file: its bytes, wherever they are, and the checked index of the tensors in them.

mod disk;
mod notes;
mod pickle;
mod safetensors;
mod stored_tensor;
mod tensor_file;

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use self::disk::DiskFile;
pub(crate) use self::notes::Notes;
pub(crate) use self::stored_tensor::{StoredTensor, below};
pub use self::tensor_file::Dtypes;
pub(crate) use self::tensor_file::{ReadError, TensorFile};
use crate::{ReadProgress, WeightsError};

/// Where a file's bytes are.
#[derive(Debug)]
enum Bytes {
    OnDisk(DiskFile),
    Owned(Arc<[u8]>),
}

impl Bytes {
    fn open(path: &Path, progress: &ReadProgress) -> Result<Self, WeightsError> {
        DiskFile::open(path, progress).map(Self::OnDisk)
    }

    /// The same bytes, whose reads are counted elsewhere.
    fn counting(&self, progress: &ReadProgress) -> Self {
        match self {
            Self::OnDisk(file) => Self::OnDisk(file.counting(progress)),
            Self::Owned(bytes) => Self::Owned(Arc::clone(bytes)),
        }
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

/// Reads [`Bytes`] as a stream.
#[derive(Debug)]
struct Stream<'a> {
    bytes: &'a Bytes,
    position: u64,
}

impl<'a> Stream<'a> {
    const fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, position: 0 }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.bytes.len().saturating_sub(self.position);
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        // Somebody may have gone beyond the end, where there is nothing to ask for.
        if count == 0 {
            return Ok(0);
        }
        let mut filled = 0;
        let end = self.position + count as u64;
        let read = self.bytes.blocks(self.position, end, |block| {
            buffer[filled..filled + block.len()].copy_from_slice(block);
            filled += block.len();
        });
        read.map_err(std::io::Error::other)?;
        self.position = end;
        Ok(count)
    }
}

impl Seek for Stream<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.bytes.len().checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
