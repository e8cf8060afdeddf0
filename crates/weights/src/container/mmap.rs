//! Memory-mapped files, the only unsafe code of this crate.
//!
//! A mapping lives only while a component is loaded: every tensor is copied out of it.
//! A file replaced by rename or deleted keeps its old mapping; one cut short in place is noticed before each copy.
#![expect(unsafe_code, reason = "mapping a file is unsafe; see the SAFETY note")]

use std::path::Path;

use memmap2::{Mmap, UncheckedAdvice};

use crate::WeightsError;

/// A whole file, mapped for reading.
#[derive(Debug)]
pub(super) struct MappedFile {
    file: fs_err::File,
    map: Mmap,
}

impl MappedFile {
    /// Maps `path`. An empty file is an error, for the system cannot map it and it is no model.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let name = || path.display().to_string();
        let unreadable = |source| WeightsError::Unreadable { file: name(), source };
        let file = fs_err::File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() == 0 {
            let detail = if metadata.is_file() {
                "the file is empty"
            } else {
                "not a regular file"
            };
            return Err(WeightsError::NotAModel {
                file: name(),
                detail: detail.to_owned(),
            });
        }
        // SAFETY: the map is private to this value and only ever read as bytes, for which any content is valid. What
        // cannot be ruled out is another process changing the file in place: changed bytes give wrong weights, and
        // `bytes` refuses a file that has become shorter, which is the case the system answers with a signal.
        let map = unsafe { Mmap::map(file.file()) }.map_err(unreadable)?;
        Ok(Self { file, map })
    }

    /// The content, if the file still has its full length.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        let length = self.file.metadata().ok()?.len();
        (length >= self.map.len() as u64).then_some(&self.map[..])
    }

    /// Tells the system that bytes `start..end` have been read: they stay in its cache, but no longer count as this
    /// process's memory, which would otherwise hold every weight twice at the end of a load.
    pub(super) fn forget(&self, start: usize, end: usize) {
        let length = end.saturating_sub(start);
        // SAFETY: the map is shared with the file and never written, so what is dropped would be read again from there.
        let told = unsafe {
            self.map
                .unchecked_advise_range(UncheckedAdvice::DontNeed, start, length)
        };
        // Only memory is at stake, and not every system has the call.
        drop(told);
    }
}
